//! Peers that lie and floods: bounded memory, bounded answers, nothing believed that cannot be true.

use std::time::Duration;

use crate::common::{IDS, Network, Pair, Rng, pattern};
use ferrocore_primitives::time::Time;
use ferrocore_udx::limits::{
    ACKS_MAX, DATAGRAM_LEN_MAX, PACKETS_AHEAD_MAX, SACK_BLOCKS_MAX, SEND_QUEUE_MAX,
};
use ferrocore_udx::packet::{HEADER_LEN, Header, Kinds, Packet, put_sack};
use ferrocore_udx::stream::{CloseReason, Config, Stream};

const WINDOW: u32 = 100_000;

fn header(kinds: Kinds, seq: u32, ack: u32) -> Header {
    Header {
        kinds,
        data_offset: 0,
        stream_id: IDS[0],
        window: 1 << 20,
        seq,
        ack,
    }
}

fn handle(stream: &mut Stream, now: Time, header: Header, rest: &[u8]) {
    let datagram = [&header.to_bytes()[..], rest].concat();
    stream.handle_packet(now, &Packet::parse(&datagram).unwrap());
}

/// Datagrams that the stream has to send now.
fn drain(stream: &mut Stream, now: Time) -> Vec<Vec<u8>> {
    let (mut datagrams, mut out) = (Vec::new(), Vec::new());
    while let Some(transmit) = stream.poll_transmit(now, 16, &mut out) {
        let segment = transmit.segment_size.unwrap_or(out.len());
        datagrams.extend(out.chunks(segment).map(<[u8]>::to_vec));
        out.clear();
    }
    datagrams
}

fn connected() -> (Stream, Time) {
    let mut config = Config::default();
    config.receive_window = WINDOW;
    let now = Time::from_nanos(1);
    let mut stream = Stream::new(now, IDS[0], config);
    stream
        .connect(now, IDS[1], crate::common::address(1))
        .unwrap();
    (stream, now)
}

#[test]
fn a_flood_of_packets_ahead_is_kept_up_to_the_window() {
    for payload in [&b""[..], b"x", &[7; 1000]] {
        let (mut stream, now) = connected();
        for seq in (2..200_000).step_by(2) {
            handle(&mut stream, now, header(Kinds::DATA, seq, 0), payload);
        }
        let kept = 99_999 - stream.stats().refused;
        assert!(
            kept <= 2 * u64::from(WINDOW) / (payload.len() as u64 + 100),
            "{kept} kept"
        );
        let acks = drain(&mut stream, now);
        assert_eq!(acks.len(), ACKS_MAX as usize);
        let ack_len_max = HEADER_LEN + 8 * SACK_BLOCKS_MAX;
        assert!(acks.iter().all(|ack| ack.len() <= ack_len_max));
        handle(&mut stream, now, header(Kinds::DATA, 0, 0), b"in line");
        assert_eq!(stream.read(100), "in line", "the next packet always fits");
    }
}

/// Goal: a peer whose whole window is a few packets does not hang on a single ack. Method: the same three packets in line,
/// on a stream that has missed none and on one that has.
#[test]
fn packets_that_arrive_together_are_acked_one_by_one_once_some_got_lost() {
    let acks = |lost: &[u32]| {
        let (mut stream, now) = connected();
        for &seq in lost.iter().chain(&[0, 1]) {
            handle(&mut stream, now, header(Kinds::DATA, seq, 0), b"x");
        }
        drain(&mut stream, now);
        for seq in [2, 3, 4] {
            handle(&mut stream, now, header(Kinds::DATA, seq, 0), b"x");
        }
        drain(&mut stream, now).len()
    };
    assert_eq!(acks(&[]), 1);
    assert_eq!(acks(&[1]), 3, "the second came before the first");
}

#[test]
fn where_the_system_takes_one_datagram_at_a_time_so_do_acks() {
    let (mut stream, now) = connected();
    for seq in (2..200).step_by(2) {
        handle(&mut stream, now, header(Kinds::DATA, seq, 0), b"x");
    }
    let mut out = Vec::new();
    let transmit = stream.poll_transmit(now, 1, &mut out).unwrap();
    assert_eq!(transmit.segment_size, None);
    assert!(out.len() <= HEADER_LEN + 8 * SACK_BLOCKS_MAX);
}

#[test]
fn a_flood_in_line_is_taken_up_to_twice_the_window_and_before_connecting_less() {
    let (mut stream, now) = connected();
    let mut unconnected = Stream::new(now, IDS[0], Config::default());
    for seq in 0..100_000 {
        handle(&mut stream, now, header(Kinds::DATA, seq, 0), &[7; 1000]);
        handle(
            &mut unconnected,
            now,
            header(Kinds::DATA, seq, 0),
            &[7; 1000],
        );
    }
    assert!(stream.read(usize::MAX).len() <= 2 * WINDOW as usize);
    assert!(unconnected.read(usize::MAX).len() <= 2 * 65_536);
}

#[test]
fn acks_of_what_was_never_sent_change_nothing() {
    let (mut stream, now) = connected();
    stream.write(&pattern(1, 5_000)).unwrap();
    let sent = drain(&mut stream, now).len() as u32;
    let before = stream.stats();
    for ack in [sent + 1, sent + 1000, 0x7fff_ffff] {
        handle(&mut stream, now, header(Kinds::ACK, 0, ack), b"");
    }
    let mut blocks = Vec::new();
    let lies = [
        (sent, sent + 1),
        (3, 2),
        (0, u32::MAX),
        (u32::MAX - 5, 2),
        (sent, sent),
    ];
    lies.iter()
        .for_each(|&(start, end)| put_sack(&mut blocks, start, end));
    handle(&mut stream, now, header(Kinds::SACK, 0, 0), &blocks);
    let after = stream.stats();
    assert_eq!(after.bad_acks, 3);
    assert_eq!(after.bad_sacks, lies.len() as u64);
    assert_eq!(
        (after.in_flight, after.congestion_window),
        (before.in_flight, before.congestion_window)
    );
    assert!(!stream.is_flushed());
}

#[test]
fn a_packet_full_of_the_same_block_counts_it_once() {
    let (mut stream, now) = connected();
    stream.write(&pattern(1, 10_000)).unwrap();
    assert!(drain(&mut stream, now).len() > 4);
    let mut blocks = Vec::new();
    (0..170).for_each(|_| put_sack(&mut blocks, 1, 4));
    handle(&mut stream, now, header(Kinds::SACK, 0, 0), &blocks);
    assert_eq!(stream.stats().bad_sacks, 169);
}

#[test]
fn a_thousand_packets_are_answered_by_few_acks() {
    let (mut stream, now) = connected();
    for seq in 0..1000 {
        handle(&mut stream, now, header(Kinds::HEARTBEAT, seq, 0), b"");
    }
    assert_eq!(drain(&mut stream, now).len(), 1);
    for _ in 0..1000 {
        handle(&mut stream, now, header(Kinds::DATA, 0, 0), b"again");
    }
    assert_eq!(drain(&mut stream, now).len(), ACKS_MAX as usize);
}

#[test]
fn what_is_in_flight_is_bounded_whatever_the_peer_claims() {
    // Method: a peer that acks everything at once and names the largest window.
    let (mut stream, mut now) = connected();
    let (mut acked, mut most) = (0, 0);
    for _ in 0..3_000 {
        while stream.write(&[7; 65_536]).unwrap() > 0 {}
        let sent = drain(&mut stream, now).len();
        most = most.max(sent);
        acked += sent as u32;
        now += Duration::from_micros(1);
        let mut ack = header(Kinds::ACK, 0, acked);
        ack.window = u32::MAX;
        handle(&mut stream, now, ack, b"");
        if stream.poll_timeout().is_some_and(|at| at <= now) {
            stream.handle_timeout(now);
        }
    }
    assert!(most as u64 <= PACKETS_AHEAD_MAX, "{most} packets at once");
}

#[test]
fn noise_with_the_right_id_neither_panics_nor_hangs() {
    // Method: half of the packets are honest, half have random fields behind a true id.
    for seed in 0..20 {
        let mut config = Config::default();
        config.idle_timeout = Some(Duration::from_secs(30));
        config.give_up_after = Duration::from_secs(20);
        let wires = [Network::default(), Network::default()];
        let mut pair = Pair::new(seed, [config.clone(), config], wires);
        pair.peers
            .iter_mut()
            .for_each(|peer| peer.to_write = pattern(seed, 200_000));
        let mut rng = Rng::new(seed);
        for _ in 0..300 {
            pair.run(Duration::from_millis(2), |_| false);
            for side in [0, 1] {
                let noise: Vec<u8> = (0..rng.below(60)).map(|_| rng.next() as u8).collect();
                let mut lie = header(
                    Kinds::from_byte(rng.next() as u8),
                    rng.below(300) as u32,
                    rng.below(300) as u32,
                );
                if rng.chance(300) {
                    lie.seq = rng.next() as u32;
                    lie.ack = rng.next() as u32;
                }
                lie.window = rng.next() as u32;
                let datagram = [&lie.to_bytes()[..], &noise].concat();
                let now = pair.now;
                if let Some(packet) = Packet::parse(&datagram) {
                    pair.peers[side].stream.handle_packet(now, &packet);
                }
            }
        }
        let closed = pair.run(Duration::from_secs(120), |pair| {
            pair.peers.iter().all(|peer| peer.stream.is_closed())
        });
        assert!(closed, "seed {seed}: a stream neither ended nor timed out");
    }
}

#[test]
fn sack_blocks_across_the_wrap_count_and_those_the_wrong_way_round_do_not() {
    let mut config = Config::default();
    config.first_seq = u32::MAX - 2;
    let now = Time::from_nanos(1);
    let mut stream = Stream::new(now, IDS[0], config);
    stream
        .connect(now, IDS[1], crate::common::address(1))
        .unwrap();
    stream.write(&pattern(1, 8_000)).unwrap();
    let sent = drain(&mut stream, now);
    let seqs: Vec<u32> = sent
        .iter()
        .map(|datagram| Header::parse(datagram).unwrap().seq)
        .collect();
    assert!(seqs.starts_with(&[u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1]));
    let sack = |start, end| {
        let mut block = Vec::new();
        put_sack(&mut block, start, end);
        block
    };
    let una = u32::MAX - 2;
    for (start, end) in [(1, u32::MAX), (0, una), (una - 1, 1), (1, 1 << 31), (2, 1)] {
        handle(
            &mut stream,
            now,
            header(Kinds::SACK, 0, una),
            &sack(start, end),
        );
    }
    let before = stream.stats();
    assert_eq!((before.bad_sacks, before.bad_acks), (5, 0));
    handle(
        &mut stream,
        now,
        header(Kinds::SACK, 0, una),
        &sack(u32::MAX, 2),
    );
    let after = stream.stats();
    assert_eq!(after.bad_sacks, 5);
    // Three have arrived, so the two before them count as lost.
    let gone: usize = sent.iter().take(5).map(Vec::len).sum();
    assert_eq!(before.in_flight - after.in_flight, gone as u64);
    assert_eq!(after.lost - before.lost, 2);
    handle(&mut stream, now, header(Kinds::ACK, 0, 3), b"");
    let past = 1 << 31;
    handle(&mut stream, now, header(Kinds::ACK, 0, past), b"");
    assert_eq!(
        stream.stats().bad_acks,
        1,
        "half the circle ahead was never sent"
    );
}

#[test]
fn a_tiny_window_lets_one_packet_through_for_each_ack() {
    for window in [1, 19, 1000] {
        let (mut stream, mut now) = connected();
        stream.write(&pattern(1, 100_000)).unwrap();
        let mut acked = drain(&mut stream, now).len() as u32; // the window was not known yet
        for _ in 0..40 {
            now += Duration::from_millis(10);
            let mut ack = header(Kinds::ACK, 0, acked);
            ack.window = window;
            (0..50).for_each(|_| handle(&mut stream, now, ack, b""));
            let sent = drain(&mut stream, now).len() as u32;
            assert!(sent <= 1, "{sent} packets into a window of {window}");
            acked += sent;
        }
        assert!(acked > 20, "the stream stands still with {acked} packets");
    }
}

#[test]
fn a_peer_that_never_acks_costs_one_queue_and_few_packets_and_is_given_up() {
    let (mut stream, mut now) = connected();
    let mut written = 0;
    let mut sent = 0;
    loop {
        let more = stream.write(&[7; 65_536]).unwrap_or(0);
        written += more;
        sent += drain(&mut stream, now).len();
        // It is there, and says so, and acks nothing.
        handle(&mut stream, now, header(Kinds::HEARTBEAT, 0, 0), b"");
        let Some(next) = stream.poll_timeout() else {
            break;
        };
        now = now.max(next);
        stream.handle_timeout(now);
    }
    assert_eq!(stream.close_reason(), Some(CloseReason::TimedOut));
    assert!(now <= Time::ZERO + Duration::from_secs(50), "{now:?}");
    assert!(written <= SEND_QUEUE_MAX + 20_000, "{written} bytes taken");
    assert!(sent < 150, "{sent} packets to nobody");
}

#[test]
fn longer_packets_than_libudx_receives_are_refused() {
    let (mut stream, now) = connected();
    let long = vec![7; DATAGRAM_LEN_MAX + 1];
    handle(&mut stream, now, header(Kinds::DATA, 0, 0), &long);
    handle(&mut stream, now, header(Kinds::MESSAGE, 0, 0), &long);
    assert_eq!(stream.stats().refused, 2);
    assert!(stream.read_message().is_none() && !stream.is_readable());
}

#[test]
fn a_shut_window_that_was_a_lie_opens_again() {
    // Goal: one forged packet, from the future and with a window of zero, does not stop the stream for ever.
    let (mut stream, mut now) = connected();
    let mut lie = header(Kinds::ACK, 300, 0);
    lie.window = 0;
    handle(&mut stream, now, lie, b"");
    stream.write(&pattern(1, 1_000)).unwrap();
    assert!(drain(&mut stream, now).is_empty());
    now = stream
        .poll_timeout()
        .expect("it asks whether the window has opened");
    stream.handle_timeout(now);
    assert_eq!(drain(&mut stream, now).len(), 1, "a heartbeat");
    handle(&mut stream, now, header(Kinds::ACK, 0, 0), b"");
    assert_eq!(drain(&mut stream, now).len(), 1, "the data");
}

#[test]
fn a_peer_that_waits_for_what_a_forged_ack_took_is_given_up() {
    // Goal: packets whose ack takes back what a forged one acked do not keep a stream alive that can get no further.
    let (mut stream, mut now) = connected();
    stream.write(&pattern(1, 1_000)).unwrap();
    assert_eq!(drain(&mut stream, now).len(), 1, "which gets lost");
    let mut lie = header(Kinds::ACK, 0, 1);
    lie.window = 0;
    handle(&mut stream, now, lie, b"");
    stream.write(&pattern(2, 1_000)).unwrap();
    assert!(drain(&mut stream, now).is_empty(), "the window is shut");
    while stream.close_reason().is_none() {
        now = stream.poll_timeout().expect("it asks again and again");
        assert!(now < Time::ZERO + Duration::from_secs(60), "{now:?}");
        stream.handle_timeout(now);
        if !drain(&mut stream, now).is_empty() {
            handle(&mut stream, now, header(Kinds::ACK, 0, 0), b"");
        }
    }
    assert_eq!(stream.close_reason(), Some(CloseReason::TimedOut));
}
