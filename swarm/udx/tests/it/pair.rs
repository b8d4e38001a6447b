//! Two streams on virtual time, each test one network or one rule.

use std::time::Duration;

use crate::common::{Network, Pair, Rng, address, pattern, setting};
use bytes::Bytes;
use ferrocore_primitives::time::Time;
use ferrocore_udx::limits::{LINGER, MESSAGES_MAX};
use ferrocore_udx::packet::{Header, Kinds, Packet};
use ferrocore_udx::stream::{CloseReason, Config, Stream, StreamError};

fn config() -> Config {
    Config::default()
}

fn calm() -> Pair {
    Pair::new(
        1,
        [config(), config()],
        [Network::default(), Network::default()],
    )
}

fn both_closed(pair: &Pair) -> bool {
    pair.peers.iter().all(|peer| {
        let is_read = peer.stream.has_ended() || peer.stream.close_reason().is_some();
        peer.stream.is_closed() && is_read
    })
}

/// Settings that a real network might show, and some that none does.
fn any_network(rng: &mut Rng) -> Network {
    Network {
        loss_permille: [0, 10, 50, 200, 400][rng.below(5) as usize],
        duplicate_permille: [0, 20, 300][rng.below(3) as usize],
        corrupt_permille: [0, 0, 20, 100][rng.below(4) as usize],
        delay: Duration::from_micros([50, 2_000, 30_000, 150_000][rng.below(4) as usize]),
        jitter: Duration::from_micros([0, 500, 20_000, 100_000][rng.below(4) as usize]),
        bandwidth: [0, 20_000, 1_000_000, 50_000_000][rng.below(4) as usize],
        queue: [3_000, 60_000, 1_000_000][rng.below(3) as usize],
        datagram_max: [1172, 1200, 1400, usize::MAX][rng.below(4) as usize],
        fragment_max: usize::MAX,
        batch: Duration::from_micros([0, 0, 1_000, 5_000][rng.below(4) as usize]),
        outage: rng.chance(150).then(|| {
            let from = Time::ZERO + Duration::from_millis(rng.below(2_000));
            (from, from + Duration::from_millis(rng.below(30_000)))
        }),
    }
}

#[test]
fn whatever_the_network_does_the_bytes_arrive_once_and_in_order_or_the_stream_times_out() {
    // Goal: the one promise of a stream. Method: random networks, sizes, windows and readers, from printed seeds.
    let seed = setting("FERROCORE_SEED", 7);
    let rounds = setting("FERROCORE_UDX_NETWORKS", 150);
    let (mut whole, mut timed_out) = (0, 0);
    for round in 0..rounds {
        let case = seed.wrapping_mul(1_000_003).wrapping_add(round);
        match one_network(case) {
            true => whole += 1,
            false => timed_out += 1,
        }
    }
    println!("{whole} whole, {timed_out} timed out");
    assert!(
        whole > 4 * timed_out,
        "{whole} whole, {timed_out} timed out; FERROCORE_SEED={seed}"
    );
}

/// True if both directions arrived whole.
fn one_network(case: u64) -> bool {
    let mut rng = Rng::new(case);
    let wires = [any_network(&mut rng), any_network(&mut rng)];
    let mut make = || {
        let mut config = config();
        config.receive_window = [3_000, 100_000, 4 << 20][rng.below(3) as usize];
        config.idle_timeout = Some(Duration::from_secs(60));
        config.keepalive = Some(Duration::from_secs(5));
        config.first_seq = [0, u32::MAX - 20, 5][rng.below(3) as usize];
        config
    };
    let mut configs = [make(), make()];
    configs[0].first_ack = configs[1].first_seq;
    configs[1].first_ack = configs[0].first_seq;
    let slow = wires.iter().any(|wire| wire.bandwidth == 20_000);
    let mut sizes = || {
        let len = [0, 1, 2_000, 50_000, 400_000][rng.below(5) as usize];
        if slow { len.min(50_000) } else { len }
    };
    let lens = [sizes(), sizes()];
    let readers = [rng.below(3), rng.below(3)];
    let mut pair = Pair::new(case, configs, wires);
    for side in [0, 1] {
        let peer = &mut pair.peers[side];
        peer.to_write = pattern(case + side as u64, lens[side]);
        peer.read_max = [usize::MAX, 5_000, 20_000][readers[side] as usize];
        peer.read_every = Duration::from_millis([0, 1, 300][readers[side] as usize]);
        peer.drops = case >> side & 1 == 1;
    }
    let ended = pair.run(Duration::from_secs(3600), both_closed);
    assert!(ended, "case {case} neither finished nor timed out");
    let [left, right] = &pair.peers;
    for (writer, reader) in [(left, right), (right, left)] {
        assert!(
            writer.to_write.starts_with(&reader.heard),
            "case {case}: other bytes arrived"
        );
        match reader.stream.close_reason() {
            None => {
                assert!(
                    reader.heard.len() == writer.to_write.len(),
                    "case {case}: ended early"
                );
            }
            Some(CloseReason::TimedOut | CloseReason::ResetByPeer) => {}
            Some(other) => panic!("case {case}: {other}"),
        }
    }
    pair.peers
        .iter()
        .all(|peer| peer.stream.close_reason().is_none())
}

#[test]
fn the_queue_of_a_bottleneck_is_not_filled() {
    // Goal: pacing. Method: a queue of ten round trips, which a loss-driven sender would fill.
    let wire = Network {
        delay: Duration::from_millis(20),
        bandwidth: 1_000_000,
        queue: 400_000,
        ..Network::default()
    };
    let mut pair = Pair::new(3, [config(), config()], [wire, Network::default()]);
    pair.peers[0].to_write = pattern(1, 6_000_000);
    pair.run(Duration::from_secs(4), |_| false);
    let rtt = pair.peers[0].stream.stats().rtt.unwrap();
    assert!(
        rtt < Duration::from_millis(30 + 60),
        "round trip of {rtt:?} on a path of 30 ms"
    );
}

#[test]
fn reordering_alone_causes_few_retransmissions() {
    let wire = Network {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(10),
        bandwidth: 2_000_000,
        queue: 100_000,
        ..Network::default()
    };
    let mut pair = Pair::new(3, [config(), config()], [wire.clone(), wire]);
    pair.peers[0].to_write = pattern(1, 4_000_000);
    assert!(pair.run(Duration::from_secs(60), |pair| {
        pair.peers[1].stream.has_ended()
    }));
    let stats = pair.peers[0].stream.stats();
    assert!(stats.retransmits * 10 < stats.packets_sent, "{stats:?}");
}

#[test]
fn one_side_ends_and_goes_on_listening() {
    let mut pair = calm();
    pair.peers[0].to_write = b"question".to_vec();
    pair.peers[1].finishes = false;
    assert!(pair.run(Duration::from_secs(1), |pair| {
        pair.peers[1].stream.has_ended()
    }));
    assert!(!both_closed(&pair));
    assert_eq!(pair.peers[0].stream.write(b"more"), Err(StreamError::Ended));
    pair.peers[1].to_write = pattern(1, 100_000);
    pair.peers[1].finishes = true;
    assert!(pair.run(Duration::from_secs(5), both_closed));
    assert_eq!(pair.peers[0].heard, pattern(1, 100_000));
    assert_eq!(pair.peers[0].stream.close_reason(), None);
}

#[test]
fn a_stream_that_ended_lingers_and_is_then_forgotten() {
    let mut pair = calm();
    assert!(pair.run(Duration::from_secs(1), both_closed));
    assert!(!pair.peers[0].stream.is_drained());
    let start = pair.now;
    assert!(pair.run(Duration::from_secs(60), |pair| {
        pair.peers.iter().all(|peer| peer.stream.is_drained())
    }));
    assert!(pair.now.saturating_since(start) <= LINGER + Duration::from_secs(1));
}

#[test]
fn a_peer_that_forgot_the_stream_after_both_ends_is_no_error() {
    // libudx forgets at once; here its last ack is lost.
    let mut pair = calm();
    pair.peers[1].finishes = false;
    assert!(pair.run(Duration::from_secs(1), |pair| {
        pair.peers[1].stream.has_ended()
    }));
    let (left, right) = pair.peers.split_at_mut(1);
    let (now, mut out) = (pair.now, Vec::new());
    left[0].stream = Stream::new(now, 1, config());
    let _ = &mut left[0];
    right[0].stream.finish().unwrap();
    assert!(right[0].stream.poll_transmit(now, 1, &mut out).is_some());
    assert!(pair.run(Duration::from_secs(5), |pair| {
        pair.peers[1].stream.is_closed()
    }));
    assert_eq!(pair.peers[1].stream.close_reason(), None);
}

#[test]
fn a_released_stream_delivers_and_waits_for_the_other_end_but_not_for_ever() {
    // The peer ends too, sends more, or does nothing.
    for (peer_ends, peer_writes) in [(true, 0), (false, 50_000), (false, 0)] {
        let mut pair = calm();
        pair.peers[0].to_write = pattern(1, 100_000);
        pair.peers[1].finishes = false;
        pair.run(Duration::from_millis(15), |_| false);
        let now = pair.now;
        pair.peers[0].stream.release(now);
        assert!(pair.run(Duration::from_secs(4), |pair| {
            pair.peers[1].stream.has_ended()
        }));
        assert_eq!(pair.peers[1].heard, pattern(1, 100_000));
        pair.peers[1].finishes = peer_ends;
        pair.peers[1].to_write = pattern(2, peer_writes);
        let start = pair.now;
        assert!(pair.run(Duration::from_secs(10), |pair| {
            pair.peers[0].stream.is_closed()
        }));
        let waited = pair.now.saturating_since(start);
        assert_eq!(
            waited > Duration::from_secs(3),
            !peer_ends && peer_writes == 0
        );
        let reason = (!peer_ends).then_some(CloseReason::Destroyed);
        assert_eq!(pair.peers[0].stream.close_reason(), reason);
    }
}

#[test]
fn silence_ends_a_stream_within_its_deadline() {
    let dead = Network {
        loss_permille: 1000,
        ..Network::default()
    };
    let mut pair = Pair::new(1, [config(), config()], [dead.clone(), dead.clone()]);
    pair.peers[0].to_write = b"anyone".to_vec();
    let start = pair.now;
    assert!(pair.run(Duration::from_secs(90), |pair| {
        pair.peers[0].stream.is_closed()
    }));
    let waited = pair.now.saturating_since(start);
    assert_eq!(
        pair.peers[0].stream.close_reason(),
        Some(CloseReason::TimedOut)
    );
    assert!((40..60).contains(&waited.as_secs()), "{waited:?}");

    // One that says nothing needs an idle timeout to notice.
    let mut listening = config();
    listening.idle_timeout = Some(Duration::from_secs(10));
    let mut pair = Pair::new(1, [listening, config()], [dead.clone(), dead]);
    pair.peers.iter_mut().for_each(|peer| peer.finishes = false);
    assert!(pair.run(Duration::from_secs(11), |pair| {
        pair.peers[0].stream.is_closed()
    }));
}

/// Goal: who stood still for longer than a peer is waited for tries again first. Method: what was sent is lost, the next look at the
/// clock is two minutes later; it is repeated, and given up only after it was repeated in vain.
#[test]
fn whoever_stood_still_itself_tries_again_before_it_gives_up() {
    let mut stream = Stream::new(Time::ZERO, 7, config());
    stream.connect(Time::ZERO, 9, address(1)).unwrap();
    stream.write(b"hello").unwrap();
    let mut out = Vec::new();
    assert!(stream.poll_transmit(Time::ZERO, 1, &mut out).is_some());
    let mut now = Time::ZERO + Duration::from_secs(120);
    let mut repeated = 0;
    while !stream.is_closed() {
        stream.handle_timeout(now);
        repeated += usize::from(stream.poll_transmit(now, 1, &mut out).is_some());
        now = stream.poll_timeout().unwrap_or(now).max(now);
        assert!(repeated < 20);
    }
    assert!(repeated > 3, "{repeated}");
    assert_eq!(stream.close_reason(), Some(CloseReason::TimedOut));
}

#[test]
fn a_peer_stopped_for_twenty_seconds_is_waited_for() {
    let stopped = Network {
        outage: Some((
            Time::ZERO + Duration::from_millis(80),
            Time::ZERO + Duration::from_secs(20),
        )),
        ..Network::default()
    };
    let mut pair = Pair::new(1, [config(), config()], [stopped.clone(), stopped]);
    pair.peers[0].to_write = pattern(1, 3_000_000);
    let start = pair.now;
    assert!(pair.run(Duration::from_secs(60), both_closed));
    assert_eq!(pair.peers[1].heard.len(), 3_000_000);
    let took = pair.now.saturating_since(start);
    assert!((19..29).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_starts_it_again() {
    let mut small = config();
    small.receive_window = 50_000;
    let mut pair = Pair::new(
        1,
        [config(), small],
        [Network::default(), Network::default()],
    );
    pair.peers[0].to_write = pattern(1, 600_000);
    pair.peers[1].read_max = 0;
    pair.run(Duration::from_secs(300), |_| false);
    assert_eq!(
        pair.peers[0].stream.close_reason(),
        None,
        "a shut window is no silence"
    );
    assert!(pair.peers[0].stream.stats().peer_window < 2_000);
    assert!(
        pair.delivered < 300,
        "{} datagrams to learn that nothing has changed",
        pair.delivered
    );
    pair.peers[1].read_max = usize::MAX;
    assert!(pair.run(Duration::from_secs(30), both_closed));
    assert_eq!(pair.peers[1].heard, pattern(1, 600_000));
}

#[test]
fn a_window_that_never_opens_and_never_answers_times_out() {
    let mut small = config();
    small.receive_window = 5_000;
    let cut = Network {
        outage: Some((
            Time::ZERO + Duration::from_secs(30),
            Time::ZERO + Duration::from_secs(9999),
        )),
        ..Network::default()
    };
    let mut pair = Pair::new(1, [config(), small], [cut.clone(), cut]);
    pair.peers[0].to_write = pattern(1, 20_000);
    pair.peers[1].read_max = 0;
    assert!(pair.run(Duration::from_secs(200), |pair| {
        pair.peers[0].stream.is_closed()
    }));
    assert_eq!(
        pair.peers[0].stream.close_reason(),
        Some(CloseReason::TimedOut)
    );
}

#[test]
fn heartbeats_keep_an_idle_stream_alive() {
    let mut beating = config();
    beating.keepalive = Some(Duration::from_secs(5));
    beating.idle_timeout = Some(Duration::from_secs(12));
    let mut pair = Pair::new(
        1,
        [beating, config()],
        [Network::default(), Network::default()],
    );
    pair.peers.iter_mut().for_each(|peer| peer.finishes = false);
    pair.run(Duration::from_secs(61), |_| false);
    assert!(pair.peers[0].stream.is_connected());
    assert_eq!(pair.peers[0].stream.stats().packets_sent, 12);
    assert_eq!(
        pair.peers[1].stream.stats().packets_sent,
        12,
        "each is answered once"
    );
}

#[test]
fn the_mtu_is_found_and_padding_is_no_data() {
    for (datagram_max, mtu) in [(usize::MAX, 1500), (1392, 1420), (1172, 1200)] {
        let wire = Network {
            datagram_max,
            ..Network::default()
        };
        let mut pair = Pair::new(1, [config(), config()], [wire.clone(), wire]);
        pair.peers[0].to_write = pattern(1, 2_000_000);
        assert!(pair.run(Duration::from_secs(60), both_closed));
        assert_eq!(pair.peers[1].heard, pattern(1, 2_000_000));
        let found = pair.peers[0].stream.stats().mtu;
        assert!(found <= mtu && found + 32 > mtu, "{found} of {mtu}");
    }
}

#[test]
fn a_stream_moves_while_both_paths_live_and_when_the_old_one_is_dead() {
    for old_is_dead in [false, true] {
        let mut pair = calm();
        pair.peers[0].to_write = pattern(1, 1_000_000);
        pair.run(Duration::from_millis(60), |_| false);
        let stream = &mut pair.peers[0].stream;
        stream
            .change_remote(crate::common::IDS[1], "10.0.0.9:9".parse().unwrap())
            .unwrap();
        assert!(stream.is_moving());
        assert_eq!(stream.stats().mtu, 1200);
        if old_is_dead {
            pair.cut();
        }
        assert!(pair.run(Duration::from_secs(60), both_closed));
        assert!(!pair.peers[0].stream.is_moving());
        assert_eq!(pair.peers[1].heard, pattern(1, 1_000_000));
    }
}

#[test]
fn what_went_to_somebody_who_never_answered_goes_to_the_next_at_once() {
    // Goal: a path that is tried out costs the next one no timeout. Method: the remote changes before anything was acked; and after
    // that, where what is on its way may still arrive.
    for has_answered in [false, true] {
        let mut pair = calm();
        pair.peers[0].finishes = false;
        if has_answered {
            pair.peers[0].to_write = pattern(1, 10);
            pair.run(Duration::from_secs(1), |_| false);
        }
        let (now, stream) = (pair.now, &mut pair.peers[0].stream);
        stream.write(b"header").unwrap();
        let mut out = Vec::new();
        let first = stream.poll_transmit(now, 16, &mut out).unwrap();
        assert_eq!(first.destination, address(1));
        while stream.poll_transmit(now, 16, &mut out).is_some() {}
        out.clear();
        let next = "10.0.0.9:9".parse().unwrap();
        stream.change_remote(crate::common::IDS[1], next).unwrap();
        let again = stream.poll_transmit(now, 16, &mut out);
        let again = again.map(|transmit| transmit.destination);
        assert_eq!(again, (!has_answered).then_some(next));
        assert_eq!(out.ends_with(b"header"), !has_answered);
    }
}

/// Two streams that have found out that 1,500 bytes pass, whereupon no more than 1,300 do.
fn narrowed() -> Pair {
    let mut pair = calm();
    pair.peers.iter_mut().for_each(|peer| peer.finishes = false);
    pair.peers[0].to_write = pattern(1, 100_000);
    let is_heard = |pair: &Pair| pair.peers[1].heard.len() == 100_000;
    assert!(pair.run(Duration::from_secs(10), is_heard));
    assert_eq!(pair.peers[0].stream.stats().mtu, 1500);
    pair
}

#[test]
fn a_path_that_becomes_narrower_loses_nothing() {
    // Goal: packets cut for a wide path, which cannot be cut anew, pass a narrower one in fragments, and those that follow are smaller.
    // Method: the path narrows while a megabyte is under way.
    let mut pair = narrowed();
    pair.peers[0].to_write = pattern(1, 1_100_000);
    pair.run(Duration::from_millis(15), |_| false);
    pair.narrow(1300 - 28);
    let is_heard = |pair: &Pair| pair.peers[1].heard.len() == 1_100_000;
    assert!(pair.run(Duration::from_secs(15), is_heard));
    assert!(pair.peers[1].heard == pattern(1, 1_100_000));
    let mtu = pair.peers[0].stream.stats().mtu;
    assert!((1200..=1300).contains(&mtu), "{mtu}");
}

#[test]
fn a_large_packet_on_a_narrower_path_is_not_forgotten_over_small_ones() {
    // Goal: what small packets achieve does not hide that a large one never arrives. Method: 5 kB, and then 20 bytes each second, as
    // a keepalive, which arrive and are acked one by one.
    let mut pair = narrowed();
    pair.narrow(1300 - 28);
    pair.peers[0].to_write = pattern(1, 105_000);
    for second in 1..=20 {
        pair.run(Duration::from_secs(1), |_| false);
        pair.peers[0].to_write = pattern(1, 105_000 + 20 * second);
    }
    pair.run(Duration::from_secs(1), |_| false);
    assert!(pair.peers[1].heard == pattern(1, 105_400));
}

#[test]
fn messages_travel_beside_the_stream_and_are_bounded() {
    let mut pair = calm();
    pair.peers.iter_mut().for_each(|peer| peer.finishes = false);
    let message = Bytes::from_static(b"message");
    let oldest = Bytes::from_static(b"oldest");
    pair.peers[0].stream.send_message(oldest).unwrap();
    for _ in 1..MESSAGES_MAX {
        pair.peers[0].stream.send_message(message.clone()).unwrap();
    }
    let refused = pair.peers[0].stream.send_message(message.clone());
    assert_eq!(refused, Err(StreamError::TooManyMessages));
    pair.run(Duration::from_secs(1), |_| false);
    pair.peers[0].stream.send_message(message.clone()).unwrap();
    pair.run(Duration::from_secs(1), |_| false);
    let taken = std::iter::from_fn(|| pair.peers[1].stream.read_message());
    let taken: Vec<_> = taken.collect();
    assert_eq!(taken, vec![message; MESSAGES_MAX], "the oldest is dropped");
    assert_eq!(pair.peers[1].stream.stats().messages_dropped, 1);
}

#[test]
fn what_arrives_before_connecting_is_kept_and_acked_later() {
    let now = Time::ZERO;
    let mut early = Stream::new(now, 7, config());
    let header = Header {
        kinds: Kinds::DATA,
        data_offset: 0,
        stream_id: 7,
        window: 1000,
        seq: 0,
        ack: 0,
    };
    let datagram = [&header.to_bytes()[..], b"early"].concat();
    early.handle_packet(now, &Packet::parse(&datagram).unwrap());
    let mut out = Vec::new();
    assert_eq!(early.poll_transmit(now, 1, &mut out), None);
    early.connect(now, 9, address(0)).unwrap();
    assert!(early.poll_transmit(now, 1, &mut out).is_some());
    let ack = Packet::parse(&out).unwrap();
    assert_eq!((ack.header.stream_id, ack.header.ack), (9, 1));
    assert_eq!(early.read(10), "early");
}

/// Goal: what was said before the peer was there is said again as soon as the peer speaks. Method: our first packet is lost, and the
/// peer's, which acks nothing, arrives; the next of ours is due within 30 ms, not after a second, and once only.
#[test]
fn what_was_sent_before_the_peer_was_there_is_soon_repeated() {
    let now = Time::ZERO;
    let [mut ours, mut theirs] = [7, 9].map(|id| Stream::new(now, id, config()));
    let mut lost = Vec::new();
    ours.connect(now, 9, address(1)).unwrap();
    ours.write(b"hello").unwrap();
    assert!(ours.poll_transmit(now, 1, &mut lost).is_some());
    let soon = now + Duration::from_millis(30);
    assert!(ours.poll_timeout().unwrap() > soon, "nobody is there yet");
    let mut out = Vec::new();
    theirs.connect(now, 7, address(0)).unwrap();
    theirs.write(b"there").unwrap();
    assert!(theirs.poll_transmit(now, 1, &mut out).is_some());
    for is_first in [true, false] {
        ours.handle_packet(now, &Packet::parse(&out).unwrap());
        let mut ack = Vec::new();
        assert!(ours.poll_transmit(now, 1, &mut ack).is_some());
        assert_eq!(ours.poll_timeout().unwrap() <= soon, is_first);
        let mut repeated = Vec::new();
        ours.handle_timeout(soon);
        assert_eq!(
            ours.poll_transmit(soon, 1, &mut repeated).is_some(),
            is_first
        );
        if is_first {
            let packet = Packet::parse(&repeated).unwrap();
            assert_eq!((packet.header.seq, packet.payload), (0, &b"hello"[..]));
        }
    }
}

#[test]
fn an_old_destroy_is_ignored_and_a_new_one_counts() {
    let mut pair = calm();
    pair.peers.iter_mut().for_each(|peer| peer.finishes = false);
    pair.peers[0].to_write = b"x".to_vec();
    pair.run(Duration::from_secs(1), |_| false);
    let destroy = |seq| Header {
        kinds: Kinds::DESTROY,
        data_offset: 0,
        stream_id: 0,
        window: 0,
        seq,
        ack: 0,
    };
    let now = pair.now;
    let stream = &mut pair.peers[1].stream;
    for (seq, counts) in [(0, false), (0x4000_0000, false), (1, true)] {
        let bytes = destroy(seq).to_bytes();
        stream.handle_packet(now, &Packet::parse(&bytes).unwrap());
        assert_eq!(
            stream.is_closed(),
            counts,
            "DESTROY with sequence number {seq}"
        );
    }
    assert_eq!(stream.close_reason(), Some(CloseReason::ResetByPeer));
}

#[test]
fn what_a_relay_passes_on_puts_its_idle_timeout_off() {
    let mut config = config();
    config.idle_timeout = Some(Duration::from_secs(10));
    let mut relay = Stream::new(Time::ZERO, 7, config);
    let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
    relay.note_relayed(at(9), 20);
    relay.handle_timeout(at(12));
    assert!(!relay.is_closed());
    assert_eq!(relay.poll_timeout(), Some(at(19)));
    relay.handle_timeout(at(19));
    assert_eq!(relay.close_reason(), Some(CloseReason::TimedOut));
}

#[test]
fn a_stream_let_go_after_both_ends_still_answers_what_is_repeated() {
    // The peer repeats what it has no ack of, though this side has long read it, ended, and is held by nobody.
    let mut pair = calm();
    pair.peers[0].to_write = pattern(1, 3_000);
    pair.peers[1].drops = true;
    let has_dropped = |pair: &Pair| pair.peers[1].stream.is_closed();
    assert!(pair.run(Duration::from_secs(5), has_dropped));
    let repeated = Header {
        kinds: Kinds::DATA,
        data_offset: 0,
        stream_id: crate::common::IDS[1],
        window: 1000,
        seq: 0,
        ack: 0,
    };
    let datagram = [&repeated.to_bytes()[..], b"again"].concat();
    let (now, stream) = (pair.now, &mut pair.peers[1].stream);
    stream.handle_packet(now, &Packet::parse(&datagram).unwrap());
    assert!(!stream.is_drained());
    let mut out = Vec::new();
    assert!(stream.poll_transmit(now, 1, &mut out).is_some());
    assert_eq!(
        Header::parse(&out).unwrap().ack,
        4,
        "everything, END included"
    );
}

#[test]
fn the_last_to_end_does_so_in_a_packet_of_its_own_after_all_else_is_acked() {
    // libudx forgets the stream at that packet, and its last ack may be lost: no data must hang on it.
    let mut pair = calm();
    pair.peers[0].finishes = false;
    assert!(pair.run(Duration::from_secs(1), |pair| {
        pair.peers[0].stream.has_ended()
    }));
    let now = pair.now;
    let stream = &mut pair.peers[0].stream;
    stream.write(&pattern(1, 2_000)).unwrap();
    stream.finish().unwrap();
    let mut out = Vec::new();
    let transmit = stream.poll_transmit(now, 16, &mut out).unwrap();
    let segment = transmit.segment_size.unwrap();
    let kinds = |out: &[u8]| Header::parse(out).unwrap().kinds;
    assert!(
        out.chunks(segment)
            .all(|packet| kinds(packet) == Kinds::DATA)
    );
    let packets = out.len().div_ceil(segment) as u32;
    out.clear();
    assert!(
        stream.poll_transmit(now, 16, &mut out).is_none(),
        "END waits"
    );
    let ack = Header {
        kinds: Kinds::ACK,
        data_offset: 0,
        stream_id: crate::common::IDS[0],
        window: 10_000,
        seq: 1,
        ack: packets,
    };
    stream.handle_packet(now, &Packet::parse(&ack.to_bytes()).unwrap());
    assert!(stream.poll_transmit(now, 16, &mut out).is_some());
    assert_eq!(kinds(&out), Kinds::END);
}

/// Goal: who has ended forgets the stream, as libudx does, as soon as it has heard the other's end, and nobody who has said
/// everything fails for it. Method: this end's last packets are on their way before it hears that the other has ended; the
/// other's acks of them get lost, it hears all, and is gone.
#[test]
fn nothing_hangs_on_the_last_ack_of_a_peer_that_is_gone() {
    let acks_lost = Network {
        outage: Some((Time::from_nanos(5_000_000), Time::from_nanos(25_000_000))),
        ..Network::default()
    };
    let mut pair = Pair::new(1, [config(), config()], [Network::default(), acks_lost]);
    let said = pattern(1, 3_000);
    pair.peers[0].to_write = said.clone();
    assert!(pair.run(Duration::from_secs(5), |pair| {
        pair.peers[1].stream.is_closed()
    }));
    assert_eq!(pair.peers[1].heard, said);
    pair.cut();
    pair.peers[1].stream = Stream::new(pair.now, 1, config());
    assert!(pair.run(Duration::from_secs(100), |pair| {
        pair.peers[0].stream.is_closed()
    }));
    assert_eq!(pair.peers[0].stream.close_reason(), None);
}
