//! Which blocks a peer has: those without a gap from the first, and others as far as there is memory for them.
//!
//! | module | noun |
//! |---|---|
//! | `scattered` | blocks beyond a gap, page by page |
//! | `denied` | blocks that it would not give |
//! | `words` | the bits of a message |
//!
//! Knows what the peer said last of each block. Does not know what is asked of it.

mod denied;
mod scattered;
mod words;

use std::ops::Range;

use ferrocore_log::bitfield::{PAGE_BITS, PAGE_MEMORY_MAX};

use self::denied::Denied;
use self::scattered::{Scattered, hull};
use self::words::{by_page, runs};
use crate::limits::{BITFIELD_PAGES_MAX, WANT_BLOCKS};
use crate::memory::Memory;
use crate::messages::{self, BitfieldWords};
use crate::seldom::Seldom;

pub(crate) use self::scattered::Forgotten;

/// Words of a batch that can be asked for.
const WANT_WORDS: usize = (WANT_BLOCKS / 32) as usize;

/// The blocks that a peer has.
#[derive(Debug, Default)]
pub(crate) struct RemoteBlocks {
    /// It has every block before this one.
    contiguous: u64,
    others: Seldom<Others>,
}

/// What there is to know beside that.
#[derive(Debug, Default)]
struct Others {
    scattered: Scattered,
    /// What it said of blocks from here on was the first to find no memory the last time.
    cut_at: u64,
    denied: Denied,
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
                others?.scattered.next(from)?
            };
            if found >= range.end {
                return None;
            }
            match others.and_then(|others| others.denied.end(found)) {
                None => return Some(found),
                Some(end) => from = end,
            }
        }
        None
    }

    /// Whether it has all of `range`.
    pub(crate) fn has_all(&self, range: Range<u64>) -> bool {
        let from = range.start.max(self.contiguous);
        let has_others = |others: &Others| others.scattered.has_all(from..range.end);
        from >= range.end || self.others.get().is_some_and(has_others)
    }

    /// It would not give a block that it has. False once that happened too often.
    pub(crate) fn deny(&mut self, index: u64) -> bool {
        self.others.need().denied.add(index)
    }

    /// It can prove to us nothing that is below this root of its log. That does not count against it.
    pub(crate) fn note_unprovable(&mut self, root: u64) {
        self.others.need().denied.add_unprovable(root);
    }

    /// The roots below which it can prove nothing to us.
    pub(crate) fn unprovable(&self) -> Vec<u64> {
        let others = self.others.get();
        others.map_or(Vec::new(), |others| others.denied.unprovable())
    }

    /// It may be able to prove what is below these after all.
    pub(crate) fn note_provable(&mut self, roots: &[u64]) {
        if let Some(others) = self.others.get_mut() {
            others.denied.remove_unprovable(roots);
        }
    }

    /// How many pages more may be remembered, as far as others leave memory for them.
    pub(crate) fn pages_free(&self, memory: &Memory) -> usize {
        let others = self.others.get();
        let pages = others.map_or(0, |others| others.scattered.pieces());
        (BITFIELD_PAGES_MAX - pages).min(memory.free() / PAGE_MEMORY_MAX)
    }

    /// Forgets what it has beside the blocks without a gap.
    pub(crate) fn forget_scattered(&mut self) -> Forgotten {
        let others = self.others.get_mut();
        others.and_then(|others| others.scattered.forget())
    }

    /// It has, or has no more, a run of blocks. Returns those of which there was no memory to know that.
    pub(crate) fn handle_range(&mut self, range: messages::Range, memory: &Memory) -> Forgotten {
        let blocks = range.start..range.start.saturating_add(range.length);
        match range.drop {
            _ if blocks.is_empty() => None,
            false => {
                if let Some(others) = self.others.get_mut() {
                    others.denied.take_back(&blocks);
                }
                self.set(blocks, memory)
            }
            true => self.clear(blocks, memory),
        }
    }

    /// It has exactly these of a run of blocks. What is misaligned is ignored, as JavaScript does, and
    /// so is what goes beyond a batch that can be asked for. Returns as [`handle_range`](Self::handle_range).
    pub(crate) fn handle_bitfield(
        &mut self,
        bitfield: &BitfieldWords,
        memory: &Memory,
    ) -> Forgotten {
        let words = bitfield.words.get(..WANT_WORDS).unwrap_or(&bitfield.words);
        if words.is_empty() || !bitfield.start.is_multiple_of(32) {
            return None;
        }
        let end = bitfield.start.saturating_add(words.len() as u64 * 32);
        let mut forgotten = self.clear(bitfield.start..end, memory);
        let pages = by_page(bitfield.start, words);
        // What found no memory the last time goes first, so that everything has its turn.
        let cut_at = self.others.get().map_or(0, |others| others.cut_at);
        let (known, cut) = pages.split_at(pages.partition_point(|(start, _)| *start < cut_at));
        let mut first_cut = None;
        for (start, words) in cut.iter().chain(known) {
            let cut = self.set_in_page(*start, words, memory);
            first_cut = first_cut.or(cut.as_ref().map(|_| *start));
            forgotten = hull(forgotten, cut);
        }
        if let Some(others) = self.others.get_mut() {
            others.cut_at = first_cut.unwrap_or(0);
        }
        forgotten
    }

    /// It has these of a run of blocks, all of them in one page. Their memory is asked for once: there may be as many gaps
    /// as every other block.
    fn set_in_page(&mut self, start: u64, words: &[u32], memory: &Memory) -> Forgotten {
        let runs = runs(words).map(|run| start + run.start..start + run.end);
        let mut runs = runs.peekable();
        let mut contiguous = self.contiguous;
        while let Some(run) = runs.next_if(|run| run.start <= contiguous) {
            contiguous = contiguous.max(run.end);
        }
        self.advance(contiguous);
        runs.peek()?;
        let scattered = &mut self.others.need().scattered;
        let is_set = scattered.set_in_page(start / PAGE_BITS, runs, memory);
        (!is_set).then(|| start..start + words.len() as u64 * 32)
    }

    fn set(&mut self, blocks: Range<u64>, memory: &Memory) -> Forgotten {
        if blocks.start <= self.contiguous {
            self.advance(blocks.end);
            return None;
        }
        let scattered = &mut self.others.need().scattered;
        let set_to = scattered.set(blocks.clone(), memory);
        (set_to < blocks.end).then_some(set_to..blocks.end)
    }

    /// It has every block before `end`: which of them it had before is of no use any more.
    fn advance(&mut self, end: u64) {
        if end > self.contiguous {
            self.contiguous = end;
            if let Some(others) = self.others.get_mut() {
                others.scattered.clear_pages_before(end);
            }
        }
    }

    fn clear(&mut self, blocks: Range<u64>, memory: &Memory) -> Forgotten {
        let mut forgotten = None;
        if blocks.start < self.contiguous {
            let behind = blocks.end.min(self.contiguous)..self.contiguous;
            self.contiguous = blocks.start;
            if !behind.is_empty() {
                forgotten = self.set(behind, memory);
            }
        }
        let Some(others) = self.others.get_mut() else {
            return forgotten;
        };
        // JavaScript refuses what it clears before it takes it back; should it fetch that again, it will give it.
        others.denied.take_back(&blocks);
        hull(forgotten, others.scattered.clear(blocks, memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DENIALS_MAX, UNPROVABLE_MAX};
    use crate::memory::PeersMemory;
    use crate::work::steps_done;
    use ferrocore_log::flat_tree;
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
        let memory = memory();
        let mut blocks = RemoteBlocks::default();
        for number in 0..1000 {
            blocks.handle_range(have(1 + 2 * number * PAGE_BITS, PAGE_BITS), &memory);
        }
        assert_eq!(blocks.others.need().scattered.pieces(), BITFIELD_PAGES_MAX);
        assert_eq!(blocks.next(0..10), Some(1));
        blocks.handle_range(have(1 << 50, 1), &memory);
        assert_eq!(blocks.next(1 << 50..1 << 51), None, "one page too many");
        blocks.handle_range(have(0, 1 << 52), &memory);
        assert_eq!(blocks.next(1 << 50..1 << 51), Some(1 << 50));
        assert_eq!(memory.used(), 0);
        blocks.handle_range(drop(0, 1 << 52), &memory);
        assert_eq!(blocks.next(0..1 << 53), None);
    }

    /// Goal: a long run takes as little as a short one, and so does what is cut out of it.
    #[test]
    fn a_run_takes_little_however_long_it_is() {
        let memory = memory();
        let (mut blocks, end) = (RemoteBlocks::default(), 1 << 52);
        let before = steps_done();
        assert_eq!(blocks.handle_range(have(5, end - 5), &memory), None);
        assert_eq!(blocks.handle_range(drop(end / 2, 1), &memory), None);
        assert!(blocks.has_all(5..end / 2) && blocks.has_all(end / 2 + 1..end));
        assert_eq!(blocks.next(end / 2..end), Some(end / 2 + 1));
        assert_eq!(blocks.next(end..end + 10), None);
        assert_eq!(blocks.next(0..end), Some(5));
        blocks.handle_range(have(end / 2, 1), &memory);
        assert!(blocks.has_all(5..end) && !blocks.has_all(4..end));
        assert!(memory.used() < PAGE_MEMORY_MAX, "{}", memory.used());
        for number in 0..100 {
            blocks.handle_range(drop(7, end - number), &memory);
            blocks.handle_range(have(7 + number, end), &memory);
        }
        let steps = steps_done() - before;
        assert!(steps < 210 * 8, "{steps}");
        let forgotten = blocks.forget_scattered().unwrap();
        assert!(forgotten.contains(&5) && forgotten.contains(&(end - 1)));
        assert_eq!((memory.used(), blocks.next(0..end)), (0, None));
    }

    proptest! {
        /// Goal: runs of pages, pages and what is cut of both equal a plain set, with room for all of it; and with little room
        /// nothing is believed that was not said.
        #[test]
        fn runs_of_pages_are_what_was_said_last(
            sayings in prop::collection::vec((any::<bool>(), 0..80_u64, 0..40_u64), 0..40),
            pages in 0..6_usize,
        ) {
            // In steps that sometimes end pages and sometimes cut them.
            const STEP: u64 = PAGE_BITS / 8 * 3;
            let much = memory();
            let little = Memory::new(0, pages * PAGE_MEMORY_MAX, &PeersMemory::new(1 << 30));
            let (mut known, mut believed) = (RemoteBlocks::default(), RemoteBlocks::default());
            let mut plain = [false; 120];
            for (drop, start, length) in sayings {
                let (start, length) = (start + 1, length.min(118 - start));
                let range = messages::Range { drop, start: start * STEP, length: length * STEP };
                prop_assert_eq!(known.handle_range(range, &much), None);
                believed.handle_range(range, &little);
                plain[start as usize..(start + length) as usize].fill(!drop);
            }
            for (index, is_set) in plain.iter().enumerate() {
                let step = index as u64 * STEP..(index as u64 + 1) * STEP;
                prop_assert_eq!(known.has_all(step.clone()), *is_set);
                prop_assert_eq!(known.next(step.clone()), is_set.then_some(step.start));
                prop_assert!(*is_set || believed.next(step.clone()).is_none());
                prop_assert!(*is_set || !believed.has_all(step.end - 1..step.end));
            }
            for (blocks, memory) in [(known, much), (believed, little)] {
                std::mem::drop(blocks);
                prop_assert_eq!(memory.used(), 0);
            }
        }
    }

    #[test]
    fn pages_that_are_of_no_use_any_more_are_given_back() {
        let memory = memory();
        let mut blocks = RemoteBlocks::default();
        let scattered = |page| BitfieldWords {
            start: page * PAGE_BITS,
            words: vec![0x5555_5554; PAGE_BITS as usize / 32],
        };
        (0..4).for_each(|page| {
            assert_eq!(blocks.handle_bitfield(&scattered(page), &memory), None);
        });
        let free = blocks.pages_free(&memory);
        // What follows without a gap takes nothing, and is as true as before.
        blocks.handle_range(have(0, 2 * PAGE_BITS + 1), &memory);
        assert_eq!(blocks.pages_free(&memory), free + 2);
        assert_eq!(
            blocks.next(2 * PAGE_BITS + 1..u64::MAX),
            Some(2 * PAGE_BITS + 2)
        );
        blocks.handle_range(drop(3 * PAGE_BITS, PAGE_BITS), &memory);
        assert_eq!(blocks.pages_free(&memory), free + 3);
        assert_eq!(
            blocks.forget_scattered(),
            Some(2 * PAGE_BITS..3 * PAGE_BITS)
        );
        assert_eq!(blocks.contiguous(), 2 * PAGE_BITS + 1);
        assert_eq!(blocks.next(2 * PAGE_BITS + 1..u64::MAX), None);
        assert_eq!(
            (blocks.pages_free(&memory), memory.used()),
            (BITFIELD_PAGES_MAX, 0)
        );
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
        let forgotten = blocks.handle_bitfield(&said, &little);
        assert_eq!(forgotten, Some(PAGE_BITS..last + 2));
        assert_eq!(blocks.next(0..end), Some(start));
        assert_eq!(blocks.next(PAGE_BITS - 1..end), None);
        // Said again, it begins with what was cut.
        for known in [PAGE_BITS, 2 * PAGE_BITS, start] {
            blocks.forget_scattered();
            assert!(blocks.handle_bitfield(&said, &little).is_some());
            assert_eq!(blocks.next(0..end), Some(known));
        }
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

    /// Goal: what was denied and announced again, having been taken back or not, is asked for again, but not without end.
    #[test]
    fn what_is_announced_again_is_had_again() {
        for taken_back in [Some(drop(3, 1)), None] {
            let mut blocks = RemoteBlocks::default();
            let mut rounds = 0;
            blocks.handle_range(have(0, 100), &memory());
            while blocks.deny(3) {
                assert_eq!(blocks.next(3..4), None);
                taken_back.map(|dropped| blocks.handle_range(dropped, &memory()));
                blocks.handle_range(have(2, 1), &memory());
                assert_eq!(blocks.next(3..4), None);
                blocks.handle_range(have(3, 1), &memory());
                assert_eq!(blocks.next(3..4), Some(3));
                rounds += 1;
            }
            assert_eq!(rounds + 1, DENIALS_MAX);
        }
    }

    /// Goal: below roots that prove nothing here nothing is asked for, until they do; and no more of them are remembered than may be.
    #[test]
    fn what_cannot_be_proven_is_not_asked_for_meanwhile() {
        let mut blocks = RemoteBlocks::default();
        blocks.handle_range(have(0, 1 << 20), &memory());
        let root = |number: usize| flat_tree::index(3, number as u64);
        for number in [1, 2, 2] {
            blocks.note_unprovable(root(number));
        }
        assert_eq!((blocks.next(7..9), blocks.next(8..30)), (Some(7), Some(24)));
        assert_eq!(blocks.next(8..24), None);
        assert_eq!(blocks.unprovable(), [root(1), root(2)]);
        blocks.note_provable(&[root(1), root(3)]);
        assert_eq!(
            (blocks.next(8..30), blocks.next(16..30)),
            (Some(8), Some(24))
        );
        (0..2 * UNPROVABLE_MAX).for_each(|number| blocks.note_unprovable(root(10 + number)));
        let asked = (0..2 * UNPROVABLE_MAX as u64)
            .map(|number| 80 + 8 * number)
            .filter(|first| blocks.next(*first..*first + 8).is_some());
        assert_eq!(asked.count(), UNPROVABLE_MAX);
        assert_eq!(blocks.unprovable().len(), UNPROVABLE_MAX);
    }

    #[test]
    fn what_is_denied_is_not_had_when_another_is_taken_back() {
        let mut blocks = RemoteBlocks::default();
        blocks.handle_range(have(0, 100), &memory());
        blocks.deny(50);
        blocks.handle_range(drop(3, 1), &memory());
        assert_eq!(blocks.next(50..60), Some(51));
    }
}
