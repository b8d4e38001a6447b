//! Which blocks a peer has: those without a gap from the first, and others as far as there is memory for them.
//!
//! Knows what the peer said last of each block. Does not know what is asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::ops::Range;

use ferrocore_log::bitfield::{Bitfield, PAGE_BITS, PAGE_MEMORY_MAX};

use crate::limits::{BITFIELD_PAGES_MAX, DENIALS_MAX, WANT_BLOCKS};
use crate::memory::{Memory, Share};
use crate::messages::{self, BitfieldWords};
use crate::seldom::Seldom;

/// Words of a batch that can be asked for.
const WANT_WORDS: usize = (WANT_BLOCKS / 32) as usize;

/// The blocks that a peer has.
#[derive(Debug, Default)]
pub(crate) struct RemoteBlocks {
    /// It has every block before this one.
    contiguous: u64,
    others: Seldom<Scattered>,
}

/// What a peer has beside the blocks that it has without a gap.
#[derive(Debug, Default)]
struct Scattered {
    /// Blocks that it has.
    bits: Bitfield,
    /// Pages of `bits` that may be in memory, and how many bytes are taken for each.
    pages: BTreeMap<u64, usize>,
    /// What is taken for them, from the first on.
    share: Option<Share>,
    /// Blocks that it announced but would not give, and has not taken back since.
    denied: BTreeSet<u64>,
    /// How often it would not give one.
    denials: usize,
}

impl RemoteBlocks {
    /// Blocks it has without a gap from the first.
    pub(crate) fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// The first block of `range` that it has.
    pub(crate) fn next(&self, range: Range<u64>) -> Option<u64> {
        let mut from = range.start;
        while from < range.end {
            let others = self.others.get();
            let found = if from < self.contiguous {
                from
            } else {
                others?.bits.next_set(from)?
            };
            if found >= range.end {
                return None;
            }
            if !others.is_some_and(|others| others.denied.contains(&found)) {
                return Some(found);
            }
            from = found + 1;
        }
        None
    }

    /// Whether it has all of `range`.
    pub(crate) fn has_all(&self, range: Range<u64>) -> bool {
        let from = range.start.max(self.contiguous);
        let has_others = |others: &Scattered| others.bits.next_unset(from) >= range.end;
        from >= range.end || self.others.get().is_some_and(has_others)
    }

    /// It would not give a block that it has. False once that happened too often.
    pub(crate) fn deny(&mut self, index: u64) -> bool {
        let others = self.others.need();
        others.denials += usize::from(others.denied.insert(index));
        others.denials < DENIALS_MAX
    }

    /// It has, or has no more, a run of blocks.
    pub(crate) fn handle_range(&mut self, range: messages::Range, memory: &Memory) {
        let blocks = range.start..range.start.saturating_add(range.length);
        if blocks.is_empty() {
            return;
        }
        match range.drop {
            false => self.set(blocks, memory),
            true => self.clear(blocks, memory),
        }
    }

    /// It has exactly these of a run of blocks. What is misaligned is ignored, as JavaScript does, and
    /// so is what goes beyond a batch that can be asked for.
    pub(crate) fn handle_bitfield(&mut self, bitfield: &BitfieldWords, memory: &Memory) {
        let words = bitfield.words.get(..WANT_WORDS).unwrap_or(&bitfield.words);
        if words.is_empty() || !bitfield.start.is_multiple_of(32) {
            return;
        }
        let end = bitfield.start.saturating_add(words.len() as u64 * 32);
        self.clear(bitfield.start..end, memory);
        let (mut start, mut rest) = (bitfield.start, words);
        while !rest.is_empty() {
            let left_of_page = (PAGE_BITS - start % PAGE_BITS) / 32;
            let (words, behind) = rest.split_at(rest.len().min(left_of_page as usize));
            self.set_in_page(start, words, memory);
            start += left_of_page * 32;
            rest = behind;
        }
    }

    /// It has these of a run of blocks, all of them in one page. Their memory is asked for once: there may be as many gaps
    /// as every other block.
    fn set_in_page(&mut self, start: u64, words: &[u32], memory: &Memory) {
        let runs = runs(words).map(|run| start + run.start..start + run.end);
        let mut runs = runs.peekable();
        while let Some(run) = runs.next_if(|run| run.start <= self.contiguous) {
            self.contiguous = self.contiguous.max(run.end);
        }
        if runs.peek().is_some() {
            let others = self.others.need();
            others.set_in_page(start / PAGE_BITS, runs, memory);
        }
    }

    /// Cost and memory are bounded by cutting what a peer says of blocks far from its contiguous ones.
    fn set(&mut self, blocks: Range<u64>, memory: &Memory) {
        if blocks.start <= self.contiguous {
            self.contiguous = self.contiguous.max(blocks.end);
        } else {
            let end = blocks.end.min(blocks.start.saturating_add(WANT_BLOCKS));
            self.others.need().set(blocks.start..end, memory);
        }
    }

    fn clear(&mut self, blocks: Range<u64>, memory: &Memory) {
        if blocks.start < self.contiguous {
            let behind = blocks.end.min(self.contiguous)..self.contiguous;
            self.contiguous = blocks.start;
            if !behind.is_empty() {
                self.set(behind, memory);
            }
        }
        if let Some(others) = self.others.get_mut() {
            others.clear(blocks);
        }
    }
}

impl Scattered {
    /// Sets as much of `blocks`, from its start, as there is memory for.
    fn set(&mut self, blocks: Range<u64>, memory: &Memory) {
        let mut start = blocks.start;
        while start < blocks.end {
            let page = start / PAGE_BITS;
            let end = blocks.end.min((page + 1) * PAGE_BITS);
            if !self.set_in_page(page, iter::once(start..end), memory) {
                return;
            }
            start = end;
        }
    }

    /// Sets `runs`, all of them in `page`; false, and none is set, if there is no memory for it.
    fn set_in_page(
        &mut self,
        page: u64,
        runs: impl Iterator<Item = Range<u64>>,
        memory: &Memory,
    ) -> bool {
        let share = self.share.get_or_insert_with(|| memory.share());
        let taken = self.pages.get(&page).copied();
        let is_one_more = taken.is_none() && self.pages.len() == BITFIELD_PAGES_MAX;
        if is_one_more || !share.take(PAGE_MEMORY_MAX - taken.unwrap_or(0)) {
            return false;
        }
        for run in runs {
            self.bits.set_range(run, true);
        }
        let takes = self.bits.page_memory(page).min(PAGE_MEMORY_MAX);
        share.give_back(PAGE_MEMORY_MAX - takes);
        self.pages.insert(page, takes);
        true
    }

    /// Clears `blocks`. A page that would take more memory then than there is, is cleared as a whole: what is
    /// not known of the peer is not asked of it.
    fn clear(&mut self, blocks: Range<u64>) {
        // JavaScript refuses what it clears before it takes it back; should it fetch that again, it will give it.
        self.denied.retain(|index| !blocks.contains(index));
        let Some(share) = &mut self.share else {
            return; // nothing was set
        };
        // Only pages that are in memory hold set bits: the span of `blocks` is the peer's say-so.
        for (page, taken) in self.pages.range_mut(blocks.start / PAGE_BITS..) {
            let whole = page * PAGE_BITS..(page + 1) * PAGE_BITS;
            let part = blocks.start.max(whole.start)..blocks.end.min(whole.end);
            if part.is_empty() {
                break;
            }
            let is_affordable = share.take(PAGE_MEMORY_MAX - *taken);
            let held = if is_affordable {
                PAGE_MEMORY_MAX
            } else {
                *taken
            };
            let cleared = if is_affordable { part } else { whole };
            self.bits.set_range(cleared, false);
            *taken = self.bits.page_memory(*page).min(held);
            share.give_back(held - *taken);
        }
    }
}

/// The runs of ones in `words`, in order. A run may come in parts.
fn runs(words: &[u32]) -> impl Iterator<Item = Range<u64>> {
    let in_word = |(index, word): (usize, &u32)| {
        let (first, mut rest) = (index as u64 * 32, *word);
        iter::from_fn(move || {
            let start = (rest != 0).then(|| rest.trailing_zeros())?;
            let end = start + (rest >> start).trailing_ones();
            rest &= u32::MAX.checked_shl(end).unwrap_or(0);
            Some(first + u64::from(start)..first + u64::from(end))
        })
    };
    words.iter().enumerate().flat_map(in_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PeersMemory;
    use proptest::prelude::*;

    /// More than these tests need.
    fn memory() -> Memory {
        Memory::new(0, 1 << 30, &PeersMemory::new(1 << 30))
    }

    fn have(start: u64, length: u64) -> messages::Range {
        messages::Range {
            drop: false,
            start,
            length,
        }
    }

    fn drop(start: u64, length: u64) -> messages::Range {
        messages::Range {
            drop: true,
            start,
            length,
        }
    }

    const SPAN: u64 = 4 * 64;

    /// What a peer may say about its first blocks.
    #[derive(Debug, Clone)]
    enum Said {
        Range(messages::Range),
        Words(u64, Vec<u32>),
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![
            (any::<bool>(), 0..SPAN, 0..SPAN).prop_map(|(drop, start, length)| {
                Said::Range(messages::Range {
                    drop,
                    start,
                    length: length.min(SPAN - start),
                })
            }),
            (0..6u64, prop::collection::vec(any::<u32>(), 0..3))
                .prop_map(|(word, words)| Said::Words(word * 32, words)),
        ]
    }

    proptest! {
        #[test]
        fn blocks_are_what_was_said_last(sayings in prop::collection::vec(said(), 0..30)) {
            // Goal: contiguous length, pages and words together equal one plain array of flags.
            let mut blocks = RemoteBlocks::default();
            let mut plain = vec![false; SPAN as usize];
            for saying in sayings {
                match saying {
                    Said::Range(range) => {
                        blocks.handle_range(range, &memory());
                        plain[range.start as usize..(range.start + range.length) as usize].fill(!range.drop);
                    }
                    Said::Words(start, words) => {
                        for (bit, flag) in plain[start as usize..].iter_mut().take(words.len() * 32).enumerate() {
                            *flag = words[bit / 32] >> (bit % 32) & 1 == 1;
                        }
                        blocks.handle_bitfield(&BitfieldWords { start, words }, &memory());
                    }
                }
            }
            for index in 0..SPAN {
                let next = plain[index as usize..].iter().position(|has| *has);
                prop_assert_eq!(blocks.next(index..SPAN), next.map(|offset| index + offset as u64));
                prop_assert_eq!(blocks.has_all(index..index + 1), plain[index as usize]);
            }
        }
    }

    #[test]
    fn memory_is_bounded_whatever_is_claimed() {
        let mut blocks = RemoteBlocks::default();
        for batch in 0..100 {
            blocks.handle_range(have(1 + batch * WANT_BLOCKS, 1 << 52), &memory());
        }
        assert_eq!(blocks.others.need().pages.len(), BITFIELD_PAGES_MAX);
        assert_eq!(blocks.next(0..10), Some(1));
        blocks.handle_range(have(1 << 50, 1), &memory());
        assert_eq!(blocks.next(1 << 50..1 << 51), None, "one page too many");
        blocks.handle_range(have(0, 1 << 52), &memory());
        assert_eq!(blocks.next(1 << 50..1 << 51), Some(1 << 50));
        blocks.handle_range(drop(0, 1 << 52), &memory());
        assert_eq!(blocks.next(0..1 << 53), None);
    }

    #[test]
    fn words_of_several_pages_are_taken_page_by_page_as_far_as_memory_goes() {
        let start = PAGE_BITS - 64;
        let words = vec![0x5555_5555; PAGE_BITS as usize / 32 + 4];
        let (last, end) = (start + words.len() as u64 * 32 - 2, 3 * PAGE_BITS);
        let said = BitfieldWords { start, words };
        let mut blocks = RemoteBlocks::default();
        blocks.handle_range(have(0, start), &memory());
        blocks.handle_bitfield(&said, &memory());
        assert_eq!(blocks.contiguous(), start + 1, "what follows without a gap");
        for index in (start..last).step_by(2) {
            assert!(blocks.has_all(index..index + 1));
            assert_eq!(blocks.next(index + 1..end), Some(index + 2));
        }
        assert_eq!(blocks.next(last + 1..end), None);

        // One page: of the next ones nothing is known.
        let little = Memory::new(0, PAGE_MEMORY_MAX, &PeersMemory::new(1 << 30));
        let mut blocks = RemoteBlocks::default();
        blocks.handle_bitfield(&said, &little);
        assert_eq!(blocks.next(0..end), Some(start));
        assert_eq!(blocks.next(PAGE_BITS - 1..end), None);
        // None: but for what follows without a gap.
        let none = Memory::new(0, 0, &PeersMemory::new(1 << 30));
        let mut blocks = RemoteBlocks::default();
        blocks.handle_range(have(0, start), &none);
        blocks.handle_bitfield(&said, &none);
        assert_eq!(
            (blocks.contiguous(), blocks.next(start + 1..end)),
            (start + 1, None)
        );
    }

    #[test]
    fn what_is_denied_is_not_had() {
        let mut blocks = RemoteBlocks::default();
        blocks.handle_range(have(0, 100), &memory());
        assert!(blocks.deny(3));
        assert_eq!(blocks.next(3..5), Some(4));
        let denials = (0..).take_while(|index| blocks.deny(*index)).count();
        assert!(denials <= DENIALS_MAX);
    }

    /// Goal: what was denied, taken back and announced again is asked for again, but not without end.
    #[test]
    fn what_is_announced_again_is_had_again() {
        let mut blocks = RemoteBlocks::default();
        let taken_back = drop(3, 1);
        let mut rounds = 0;
        blocks.handle_range(have(0, 100), &memory());
        while blocks.deny(3) {
            assert_eq!(blocks.next(3..4), None);
            blocks.handle_range(taken_back, &memory());
            assert_eq!(blocks.next(3..4), None);
            blocks.handle_range(have(3, 1), &memory());
            assert_eq!(blocks.next(3..4), Some(3));
            rounds += 1;
        }
        assert_eq!(rounds + 1, DENIALS_MAX);
    }
}
