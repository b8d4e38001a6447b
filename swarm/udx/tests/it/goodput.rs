//! How much of a bottleneck one stream fills while datagrams and acks are lost at random, on virtual time: how busy the
//! machine is makes no difference.

use std::time::Duration;

use crate::common::{Network, Pair, pattern, setting};
use ferrocore_udx::limits::SACK_BLOCKS_MAX;
use ferrocore_udx::stream::{Config, Stats};

/// A path, the same both ways.
#[derive(Debug, Clone, Copy)]
struct Link {
    bytes_per_second: u64,
    delay: Duration,
    queue: u64,
    batch: Duration,
}

/// 8 Mbit/s, 40 ms round trip, a queue of one round trip.
const DSL: Link = link(1_000_000, 20_000, 40_000);
/// 100 Mbit/s, 20 ms round trip, a queue of 50 ms: the slow link of the benchmark.
const CABLE: Link = link(12_500_000, 10_000, 625_000);
/// The same with hardly a queue: what the sender overshoots by is lost, too.
const POLICED: Link = link(12_500_000, 10_000, 30_000);
/// 800 Mbit/s, 0.2 ms round trip: the benchmark's wire between two namespaces.
const WIRE: Link = link(100_000_000, 100, 200_000);

const fn link(bytes_per_second: u64, delay_micros: u64, queue: u64) -> Link {
    let delay = Duration::from_micros(delay_micros);
    Link {
        bytes_per_second,
        delay,
        queue,
        batch: Duration::ZERO,
    }
}

/// What a transfer came to.
struct Outcome {
    /// Goodput over bandwidth, once a third had arrived: the start has its own pace.
    share: f64,
    sender: Stats,
    receiver: Stats,
}

fn transfer(link: Link, loss_permille: u64, len: usize) -> Outcome {
    let wire = Network {
        loss_permille,
        delay: link.delay,
        bandwidth: link.bytes_per_second,
        queue: link.queue,
        batch: link.batch,
        ..Network::default()
    };
    let seed = setting("FERROCORE_SEED", 3);
    let configs = [Config::default(), Config::default()];
    let mut pair = Pair::new(seed, configs, [wire.clone(), wire]);
    pair.peers[0].to_write = pattern(1, len);
    let mut start = None;
    let ended = pair.run(Duration::from_secs(600), |pair| {
        let heard = pair.peers[1].heard.len();
        if heard > len / 3 {
            start.get_or_insert((pair.now, heard));
        }
        pair.peers[1].stream.has_ended()
    });
    assert!(ended, "{link:?}, {loss_permille}/1000 lost: not done");
    assert_eq!(pair.peers[1].heard.len(), len);
    let (start, heard) = start.expect("everything was heard");
    let seconds = pair.now.saturating_since(start).as_secs_f64();
    let share = (len - heard) as f64 / seconds / link.bytes_per_second as f64;
    let [sender, receiver] = [0, 1].map(|side: usize| pair.peers[side].stream.stats());
    println!(
        "{link:?}, {loss_permille}/1000 lost: {share:.2}, {sender:?}, needless {}",
        receiver.duplicates
    );
    Outcome {
        share,
        sender,
        receiver,
    }
}

fn assert_shares(link: Link, len: usize, shares: &[(u64, f64)]) {
    for &(loss_permille, share_min) in shares {
        let outcome = transfer(link, loss_permille, len);
        assert!(
            outcome.share >= share_min,
            "{link:?}, {loss_permille}/1000 lost: {:.2} of the bottleneck",
            outcome.share
        );
    }
}

#[test]
fn a_lossy_path_is_used_well() {
    // Goal: random loss does not starve a stream, as it would starve one that takes it for congestion. A fifth of
    // all packets and of all acks lost leaves at most 0.8 for those sent once.
    assert_shares(DSL, 2_000_000, &[(0, 0.9), (50, 0.8), (200, 0.6)]);
    assert_shares(CABLE, 6_000_000, &[(0, 0.85), (50, 0.7)]);
    assert_shares(CABLE, 9_000_000, &[(200, 0.5), (300, 0.4)]);
    assert_shares(WIRE, 6_000_000, &[(50, 0.7), (200, 0.5)]);
}

#[test]
fn a_receiver_that_acks_batches_loses_little() {
    // Goal: a kernel hands over what arrived within a millisecond in one go, and one ack for all of that may be lost.
    let batched = |link| Link {
        batch: Duration::from_millis(1),
        ..link
    };
    assert_shares(
        batched(CABLE),
        9_000_000,
        &[(0, 0.85), (50, 0.7), (200, 0.5)],
    );
    assert_shares(batched(WIRE), 9_000_000, &[(0, 0.8), (50, 0.7), (200, 0.5)]);
}

#[test]
fn losses_that_the_sender_causes_itself_do_not_make_it_send_more() {
    // Goal: what is sent on top for a lossy path must not feed on itself. Method: a queue so short that every
    // overshoot is lost at once.
    let calm = transfer(POLICED, 0, 16_000_000);
    assert!(calm.share >= 0.8, "{:.2} of the bottleneck", calm.share);
    let (sent, lost) = (calm.sender.packets_sent, calm.sender.lost);
    assert!(lost * 8 < sent, "{lost} of {sent} packets lost");
    assert_shares(POLICED, 6_000_000, &[(50, 0.7), (200, 0.4)]);
}

#[test]
fn an_ack_without_room_for_all_gaps_causes_no_needless_retransmissions() {
    // Goal: with more gaps than an ack can tell of, what it does not tell of is not lost. Method: 100 ms round trip,
    // a fifth lost: hundreds of gaps.
    let far = Link {
        delay: Duration::from_millis(50),
        ..CABLE
    };
    let outcome = transfer(far, 200, 8_000_000);
    let (again, needless) = (outcome.sender.retransmits, outcome.receiver.duplicates);
    assert!(again as usize > 20 * SACK_BLOCKS_MAX);
    assert!(needless * 50 < again, "{needless} of {again} came twice");
}
