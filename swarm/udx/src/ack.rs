//! Which packets arrived out of order: ranges of sequence numbers, and their form as SACK blocks.
//! Knows intervals. Does not know what the packets hold.

use std::collections::{BTreeSet, VecDeque};

use crate::limits::SACK_BLOCKS_MAX;
use crate::seq;

/// Disjoint, ascending, non-touching half-open ranges.
#[derive(Debug, Default)]
pub(crate) struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

/// The numbers that arrived out of order last, newest at the back: what an ack must tell that cannot tell all.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<u64>);

impl Recent {
    /// Packet `seq` has arrived before its turn.
    pub(crate) fn push(&mut self, seq: u64) {
        if self.0.len() >= RECENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(seq);
    }
}

/// How many arrivals are remembered. They fill the blocks of an ack several times over, for acks get lost, too.
const RECENT_MAX: usize = 4 * SACK_BLOCKS_MAX;

impl RangeSet {
    /// Adds one number; false if it was there.
    pub(crate) fn insert(&mut self, seq: u64) -> bool {
        let at = self.ranges.partition_point(|&(_, end)| end < seq);
        let Some(&(start, end)) = self.ranges.get(at) else {
            self.ranges.push((seq, seq + 1));
            return true;
        };
        if start <= seq && seq < end {
            return false;
        }
        if end == seq {
            self.extend_end(at);
        } else if start == seq + 1 {
            self.set(at, (seq, end));
        } else {
            self.ranges.insert(at, (seq, seq + 1));
        }
        true
    }

    /// Adds the numbers from `start` to before `end`, and returns the parts of that which were missing. Costs the
    /// ranges that it touches, not the numbers in them.
    pub(crate) fn insert_range(&mut self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let first = self
            .ranges
            .partition_point(|&(_, known_end)| known_end < start);
        let (mut missing, mut joined, mut at) = (Vec::new(), (start, end), start);
        let mut last = first;
        while let Some(&(known, known_end)) = self.ranges.get(last)
            && known <= end
        {
            if at < known {
                missing.push((at, known));
            }
            at = at.max(known_end);
            joined = (joined.0.min(known), joined.1.max(known_end));
            last += 1;
        }
        if at < end {
            missing.push((at, end));
        }
        self.ranges.splice(first..last, [joined]);
        missing
    }

    /// Forgets everything below `seq`.
    pub(crate) fn remove_below(&mut self, seq: u64) {
        let gone = self.ranges.partition_point(|&(_, end)| end <= seq);
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(seq);
        }
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.position(seq).is_some()
    }

    /// Which range holds `seq`.
    fn position(&self, seq: u64) -> Option<usize> {
        let at = self.ranges.partition_point(|&(_, end)| end <= seq);
        let range = self.ranges.get(at);
        range.is_some_and(|&(start, _)| start <= seq).then_some(at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges for an ack, ascending. If they are more than it may carry: those with the latest arrivals, for
    /// the sender knows the others from earlier acks. (libudx names the lowest; its sender takes any.) Of several acks
    /// at once each goes further back.
    pub(crate) fn blocks(&self, recent: &Recent, turn: usize) -> Vec<(u32, u32)> {
        let wire = |&(start, end): &(u64, u64)| (seq::to_wire(start), seq::to_wire(end));
        if self.ranges.len() <= SACK_BLOCKS_MAX {
            return self.ranges.iter().map(wire).collect();
        }
        let mut chosen = BTreeSet::new();
        let skipped = turn * SACK_BLOCKS_MAX % RECENT_MAX;
        for &seq in recent.0.iter().rev().skip(skipped) {
            if chosen.len() == SACK_BLOCKS_MAX {
                break;
            }
            chosen.extend(self.position(seq));
        }
        let mut lowest = 0..;
        while chosen.len() < SACK_BLOCKS_MAX {
            chosen.extend(lowest.next());
        }
        let chosen = chosen.into_iter().filter_map(|at| self.ranges.get(at));
        chosen.map(wire).collect()
    }

    /// Grows the range at `at` by one number, joining it with the next if they touch.
    fn extend_end(&mut self, at: usize) {
        let Some(&(start, end)) = self.ranges.get(at) else {
            return;
        };
        match self.ranges.get(at + 1) {
            Some(&(next_start, next_end)) if next_start == end + 1 => {
                self.set(at, (start, next_end));
                self.ranges.remove(at + 1);
            }
            _ => self.set(at, (start, end + 1)),
        }
    }

    fn set(&mut self, at: usize, range: (u64, u64)) {
        if let Some(slot) = self.ranges.get_mut(at) {
            *slot = range;
        }
    }
}

/// The parts of a peer's SACK blocks that can be true: within `una..next`, ascending, each number once.
///
/// The order bounds the work by the packets in flight, however many blocks a hostile peer sends.
pub(crate) fn valid_blocks(
    blocks: impl Iterator<Item = (u32, u32)>,
    una: u64,
    next: u64,
) -> impl Iterator<Item = Result<(u64, u64), BadBlock>> {
    let mut floor = una;
    blocks.map(move |(start, end)| {
        let (start, end) = (seq::near(una, start), seq::near(una, end));
        if start < floor || end > next || start >= end {
            return Err(BadBlock);
        }
        floor = end;
        Ok((start, end))
    })
}

/// A SACK block outside what was sent, empty, or out of order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadBlock;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_agree_with_a_set(numbers in proptest::collection::vec(0u64..60, 0..80), floor in 0u64..60) {
            let (mut ranges, mut twin) = (RangeSet::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), twin.insert(number));
            }
            ranges.remove_below(floor);
            twin.retain(|&number| number >= floor);
            for number in 0..60 {
                prop_assert_eq!(ranges.contains(number), twin.contains(&number));
            }
            prop_assert!(ranges.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "ranges touch");
            prop_assert_eq!(ranges.is_empty(), twin.is_empty());
        }
    }

    proptest! {
        #[test]
        fn whole_ranges_agree_with_their_numbers(blocks in proptest::collection::vec((0u64..60, 1u64..12), 0..30)) {
            let (mut ranges, mut twin) = (RangeSet::default(), BTreeSet::new());
            for (start, len) in blocks {
                let missing: Vec<u64> = ranges
                    .insert_range(start, start + len)
                    .into_iter()
                    .flat_map(|(start, end)| start..end)
                    .collect();
                let expected: Vec<u64> = (start..start + len).filter(|&number| twin.insert(number)).collect();
                prop_assert_eq!(missing, expected);
            }
            for number in 0..80 {
                prop_assert_eq!(ranges.contains(number), twin.contains(&number));
            }
            prop_assert!(ranges.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "ranges touch");
        }
    }

    #[test]
    fn an_ack_that_cannot_list_all_ranges_lists_those_that_grew_last() {
        let (mut ranges, mut recent) = (RangeSet::default(), Recent::default());
        for number in (0..200).map(|index| index * 3).chain([7]) {
            ranges.insert(number);
            recent.push(number);
        }
        let blocks = ranges.blocks(&recent, 0);
        assert_eq!(blocks.len(), SACK_BLOCKS_MAX);
        assert!(blocks.is_sorted());
        assert_eq!(blocks[0], (6, 8), "the one that came last");
        assert_eq!(blocks[SACK_BLOCKS_MAX - 1], (597, 598), "the highest");
        assert_eq!(blocks[1], (453, 454), "and what came before that");
        let further = ranges.blocks(&recent, 1);
        assert_eq!(further.len(), SACK_BLOCKS_MAX);
        assert_eq!(further[SACK_BLOCKS_MAX - 1], (450, 451), "those before");
        recent = Recent::default();
        assert_eq!(ranges.blocks(&recent, 0)[0], (0, 1), "the lowest fill up");
        assert_eq!(ranges.blocks(&recent, 0).len(), SACK_BLOCKS_MAX);
    }

    #[test]
    fn blocks_that_cannot_be_true_are_refused() {
        let (una, next) = (seq::first(u32::MAX - 1), seq::first(u32::MAX - 1) + 10);
        let check = |blocks: &[(u32, u32)]| -> Vec<_> {
            valid_blocks(blocks.iter().copied(), una, next).collect()
        };
        assert_eq!(check(&[(0, 2)]), [Ok((una + 2, una + 4))]); // across the wrap
        assert_eq!(check(&[(0, 9)]), [Err(BadBlock)]); // never sent
        assert_eq!(check(&[(2, 2), (3, 1)]), [Err(BadBlock), Err(BadBlock)]); // empty, backwards
        assert_eq!(check(&[(u32::MAX - 2, 1)]), [Err(BadBlock)]); // acked before
        assert_eq!(
            check(&[(1, 3), (1, 3)]),
            [Ok((una + 3, una + 5)), Err(BadBlock)]
        ); // twice
    }
}
