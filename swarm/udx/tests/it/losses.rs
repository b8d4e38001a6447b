//! Which of a stream's means brings back what was lost, and how soon: on virtual time, on a path with a round trip of 20 ms. The
//! retransmission timer, which waits for 400 ms at least, must not be needed.

use std::time::Duration;

use crate::common::{Network, Pair, pattern};
use ferrocore_primitives::time::Time;
use ferrocore_udx::stream::{Config, Stats};

const WARM: usize = 100_000;

/// Two streams that know their round trip, with nothing under way.
fn warm() -> Pair {
    let wires = [Network::default(), Network::default()];
    let mut pair = Pair::new(1, [Config::default(), Config::default()], wires);
    pair.peers.iter_mut().for_each(|peer| peer.finishes = false);
    pair.peers[0].to_write = pattern(1, WARM);
    pair.run(Duration::from_secs(10), |_| false);
    assert_eq!(pair.peers[1].heard.len(), WARM);
    let stats = pair.peers[0].stream.stats();
    assert_eq!((stats.lost, stats.in_flight), (0, 0), "{stats:?}");
    pair
}

/// Writes `count` packets of 500 bytes, and takes those of them from the wire that are to be lost.
fn send(pair: &mut Pair, count: usize, is_lost: bool) {
    for _ in 0..count {
        let peer = &mut pair.peers[0];
        let len = peer.to_write.len() + 500;
        peer.to_write = pattern(1, len);
        if is_lost {
            let written = peer.stream.write(&peer.to_write[len - 500..]);
            assert_eq!(written, Ok(500));
            peer.written = len;
            let mut out = Vec::new();
            let sent = peer.stream.poll_transmit(pair.now, 1, &mut out);
            assert!(sent.is_some_and(|sent| sent.segment_size.is_none()));
        } else {
            pair.run(Duration::ZERO, |_| false);
        }
    }
}

/// How long it takes from `start` until all has arrived, and what it took.
fn arrival(mut pair: Pair, start: Time) -> (Duration, Stats) {
    let len = pair.peers[0].to_write.len();
    let is_heard = |pair: &Pair| pair.peers[1].heard.len() == len;
    assert!(pair.run(Duration::from_secs(10), is_heard));
    assert!(pair.peers[1].heard == pattern(1, len));
    let stats = pair.peers[0].stream.stats();
    (pair.now.saturating_since(start), stats)
}

/// Goal: the last packet, whose loss no later one shows, is missed after two round trips. Method: it is lost alone, after others that
/// arrive, and with all before it.
#[test]
fn a_lost_tail_is_probed_for() {
    for (arriving, lost) in [(0, 1), (3, 1), (0, 4)] {
        let mut pair = warm();
        let start = pair.now;
        send(&mut pair, arriving, false);
        send(&mut pair, lost, true);
        let (took, stats) = arrival(pair, start);
        assert!(stats.tail_probes > 0, "{stats:?}");
        assert_eq!(stats.timeouts, 0, "{stats:?}");
        assert!(took < Duration::from_millis(100), "{took:?}: {stats:?}");
    }
}

/// Goal: a packet that others overtake is sent again once three of them are acked, or with fewer when a quarter of a round trip has
/// passed; before a probe is due. Method: the first of two is lost, and the first of six.
#[test]
fn what_later_packets_overtake_is_sent_again_at_once() {
    for arriving in [1, 5] {
        let mut pair = warm();
        let start = pair.now;
        send(&mut pair, 1, true);
        send(&mut pair, arriving, false);
        let (took, stats) = arrival(pair, start);
        assert_eq!((stats.fast_recoveries, stats.lost), (1, 1), "{stats:?}");
        assert_eq!((stats.tail_probes, stats.timeouts), (0, 0), "{stats:?}");
        let patience = if arriving < 3 { 5 } else { 0 };
        let due = Duration::from_millis(30 + patience);
        assert!(
            took <= due + Duration::from_millis(1),
            "{took:?}: {stats:?}"
        );
    }
}
