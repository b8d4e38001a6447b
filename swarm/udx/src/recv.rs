//! The receiving half of a stream: puts packets in order, keeps what was not read yet, says how much more fits.
//! Knows sequence numbers and bytes. Does not know time, acks' timing or addresses.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ack::{RangeSet, Recent};
use crate::backlog::Backlog;
use crate::limits::{PACKET_CHARGE, PACKETS_AHEAD_MAX, RECEIVE_WINDOW_FIRST};
use crate::packet::Kinds;
use crate::rare::Rare;
use crate::seq;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// It and perhaps others behind it can be read now.
    InOrder,
    /// It waits for a packet before it.
    Ahead,
    /// It was here already.
    Duplicate,
    /// There is no room for it, or it lies after the end: as if it had been lost.
    Refused,
}

/// Reorders one stream's packets.
#[derive(Debug)]
pub(crate) struct Receiver {
    next: u64,
    end: Option<u64>,
    /// Bytes that were read so far: somebody wants what the peer sends.
    taken: usize,
    readable: Backlog,
    ahead: Rare<Ahead>,
    window_max: u32,
    discards: bool,
}

/// What has come before its turn.
#[derive(Debug, Default)]
struct Ahead {
    packets: BTreeMap<u64, Bytes>,
    cost: usize,
    ranges: RangeSet,
    recent: Recent,
}

impl Receiver {
    pub(crate) fn new(first_seq: u32, window_max: u32) -> Self {
        Self {
            next: seq::first(first_seq),
            end: None,
            window_max,
            taken: 0,
            readable: Backlog::default(),
            ahead: Rare::default(),
            discards: false,
        }
    }

    /// Takes in a DATA or END packet.
    pub(crate) fn handle(&mut self, seq: u64, kinds: Kinds, payload: &[u8]) -> Received {
        if seq < self.next || self.is_ahead(seq) {
            return Received::Duplicate;
        }
        if !self.has_room(seq, payload.len()) || self.end.is_some_and(|end| seq > end) {
            return Received::Refused;
        }
        if kinds.has(Kinds::END) {
            self.learn_end(seq);
        }
        if seq == self.next {
            self.deliver(payload);
            self.deliver_ahead();
            return Received::InOrder;
        }
        let ahead = self.ahead.make();
        ahead.cost += cost(payload.len());
        ahead.packets.insert(seq, Bytes::copy_from_slice(payload));
        ahead.ranges.insert(seq);
        ahead.recent.push(seq);
        Received::Ahead
    }

    /// Hands at most `max` bytes to `take`, in order and in one or more parts, and returns how many that were.
    pub(crate) fn read(&mut self, max: usize, take: impl FnMut(&[u8])) -> usize {
        let read = self.readable.read(max, take);
        self.taken = self.taken.saturating_add(read);
        read
    }

    /// Throws away what is here and what will come: nobody reads any more.
    pub(crate) fn discard(&mut self) {
        self.discards = true;
        self.readable = Backlog::default();
    }

    pub(crate) fn set_window_max(&mut self, bytes: u32) {
        self.window_max = bytes;
    }

    /// The next sequence number expected.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many more bytes the application's backlog allows.
    pub(crate) fn window(&self) -> u32 {
        let free = self.backlog_max().saturating_sub(self.readable.len());
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// How many bytes may wait for the reader: a multiple of what it has read so far, and some to begin with.
    pub(crate) fn backlog_max(&self) -> usize {
        let read = self.taken.saturating_mul(WINDOW_GROWTH);
        let earned = read.saturating_add(RECEIVE_WINDOW_FIRST as usize);
        usize::try_from(self.window_max).map_or(earned, |max| max.min(earned))
    }

    /// True once everything up to and with the peer's END has arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| end < self.next)
    }

    pub(crate) fn has_readable(&self) -> bool {
        !self.readable.is_empty()
    }

    /// True if something arrived out of order.
    pub(crate) fn has_gaps(&self) -> bool {
        self.ahead.get().is_some()
    }

    /// The SACK blocks for the ack that is the `turn`th of several.
    pub(crate) fn sack_blocks(&self, turn: usize) -> Vec<(u32, u32)> {
        let ahead = self.ahead.get();
        ahead.map_or_else(Vec::new, |ahead| ahead.ranges.blocks(&ahead.recent, turn))
    }

    /// The next packet in line fits while the backlog does not fill the window: whatever lies ahead, it must be
    /// able to come in, or the stream would stand still for ever. And any fits while no more than twice the window is held: libudx
    /// counts what is in flight without what was sacked, sends more than the window past a gap, and gives up on what is refused
    /// too often.
    fn has_room(&self, seq: u64, len: usize) -> bool {
        let (window, readable) = (self.backlog_max(), self.readable.len());
        if seq == self.next && readable < window.max(1) {
            return true;
        }
        let ahead = self.ahead.get().map_or(0, |ahead| ahead.cost);
        let held = readable + ahead + cost(len);
        seq - self.next <= PACKETS_AHEAD_MAX && held <= window.saturating_mul(2)
    }

    /// The first END counts, unless packets after it are here already.
    fn learn_end(&mut self, seq: u64) {
        let last = self
            .ahead
            .get()
            .and_then(|ahead| ahead.packets.last_key_value());
        let past = last.is_some_and(|(&last, _)| last > seq);
        if self.end.is_none() && !past {
            self.end = Some(seq);
        }
    }

    fn deliver(&mut self, payload: &[u8]) {
        self.next += 1;
        if !self.discards {
            self.readable.push(payload);
        }
    }

    fn deliver_ahead(&mut self) {
        while let Some(payload) = self.take_ahead() {
            self.deliver(&payload);
        }
        if let Some(ahead) = self.ahead.get_mut() {
            ahead.ranges.remove_below(self.next);
            if ahead.ranges.is_empty() {
                self.ahead.clear();
            }
        }
    }

    /// The packet whose turn it is, if it has come already.
    fn take_ahead(&mut self) -> Option<Bytes> {
        let ahead = self.ahead.get_mut()?;
        let payload = ahead.packets.remove(&self.next)?;
        ahead.cost -= cost(payload.len());
        Some(payload)
    }

    fn is_ahead(&self, seq: u64) -> bool {
        let ahead = self.ahead.get();
        ahead.is_some_and(|ahead| ahead.ranges.contains(seq))
    }
}

/// While a path is tried out its rate doubles with each round trip, and a packet that is lost three times holds up
/// what three such rounds bring.
const WINDOW_GROWTH: usize = 8;

fn cost(len: usize) -> usize {
    len + PACKET_CHARGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(window: u32) -> (Receiver, u64) {
        (Receiver::new(0, window), seq::first(0))
    }

    fn read(receiver: &mut Receiver, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        receiver.read(max, |part| bytes.extend_from_slice(part));
        bytes
    }

    #[test]
    fn packets_come_out_in_order_and_once() {
        let (mut receiver, first) = receiver(1000);
        assert_eq!(
            receiver.handle(first + 2, Kinds::DATA, b"c"),
            Received::Ahead
        );
        assert_eq!(
            receiver.handle(first + 2, Kinds::DATA, b"x"),
            Received::Duplicate
        );
        assert_eq!(receiver.handle(first, Kinds::DATA, b"a"), Received::InOrder);
        assert_eq!(
            receiver.handle(first, Kinds::DATA, b"x"),
            Received::Duplicate
        );
        assert_eq!(read(&mut receiver, 10), b"a");
        assert_eq!(
            receiver.handle(first + 1, Kinds::DATA, b"b"),
            Received::InOrder
        );
        assert_eq!(read(&mut receiver, 1), b"b");
        assert_eq!(read(&mut receiver, 10), b"c");
        assert!(!receiver.has_gaps());
    }

    #[test]
    fn the_end_counts_when_everything_before_it_is_here() {
        let (mut receiver, first) = receiver(1000);
        receiver.handle(first + 1, Kinds::END, b"");
        assert!(!receiver.is_complete());
        assert_eq!(
            receiver.handle(first + 2, Kinds::DATA, b"late"),
            Received::Refused
        );
        receiver.handle(first, Kinds::DATA, b"a");
        assert!(receiver.is_complete());
        assert_eq!(
            receiver.handle(first + 2, Kinds::DATA, b"late"),
            Received::Refused
        );
        assert_eq!(read(&mut receiver, 10), b"a");
    }

    #[test]
    fn a_full_backlog_refuses_and_an_empty_one_takes_the_next_packet_whatever_lies_ahead() {
        let (mut receiver, first) = receiver(1000);
        let mut ahead = 0;
        while receiver.handle(first + 1 + ahead, Kinds::DATA, &[0; 100]) == Received::Ahead {
            ahead += 1;
        }
        assert!((3..20).contains(&ahead), "{ahead} packets were kept ahead");
        assert_eq!(receiver.window(), 1000);
        assert_eq!(
            receiver.handle(first, Kinds::DATA, &[0; 100]),
            Received::InOrder
        );
        let next = receiver.next();
        while receiver.handle(receiver.next(), Kinds::DATA, &[0; 100]) == Received::InOrder {}
        assert!(receiver.next() >= next);
        assert_eq!(receiver.window(), 0);
        assert!(receiver.read(usize::MAX, |_| {}) <= 2 * 1000 + 100);
        assert_eq!(receiver.window(), 1000);
    }

    /// Goal: a slow reader loses no sender of libudx, which gives up on a packet that was repeated six times in vain: it counts what
    /// is in flight without what was sacked, so past a gap it sends more than the window. Method: a gap closes on more than the
    /// window holds; what was refused meanwhile is taken before anything is read.
    #[test]
    fn what_was_sent_past_a_gap_is_taken_over_the_window() {
        let (mut receiver, first) = receiver(10_000);
        let mut ahead = 1;
        while receiver.handle(first + ahead, Kinds::DATA, &[0; 1_000]) == Received::Ahead {
            ahead += 1;
        }
        let refused = first + ahead;
        receiver.handle(first, Kinds::DATA, &[0; 1_000]);
        assert_eq!((receiver.next(), receiver.window()), (refused, 0));
        assert_eq!(
            receiver.handle(refused, Kinds::DATA, &[0; 1_000]),
            Received::InOrder
        );
        while receiver.handle(receiver.next(), Kinds::DATA, &[0; 1_000]) == Received::InOrder {}
        assert!(receiver.read(usize::MAX, |_| {}) <= 2 * 10_000 + 1_000);
    }

    #[test]
    fn the_window_grows_with_what_is_read() {
        let (mut receiver, _) = receiver(4 << 20);
        let first = RECEIVE_WINDOW_FIRST;
        assert_eq!(receiver.window(), first);
        while receiver.window() > 0 {
            receiver.handle(receiver.next(), Kinds::DATA, &[0; 1024]);
        }
        receiver.read(100_000, |_| {});
        assert_eq!(
            receiver.window(),
            900_000,
            "what was read, and eight times as much more"
        );
        assert_eq!(receiver.read(8 << 20, |_| {}), first as usize - 100_000);
        assert_eq!(receiver.window(), 4 << 20, "and no further");
    }

    #[test]
    fn a_packet_far_ahead_is_refused() {
        let (mut receiver, first) = receiver(1000);
        assert_eq!(
            receiver.handle(first + PACKETS_AHEAD_MAX + 1, Kinds::DATA, b"x"),
            Received::Refused
        );
    }
}
