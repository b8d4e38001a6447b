//! What we know of the other side of one channel: its state, its blocks, its wants.
//!
//! Knows what the peer said. Does not know what is asked of it or answered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ferrocore_log::bitfield::{Bitfield, PAGE_BITS, PAGE_MEMORY_MAX};

use crate::holdings::Holdings;
use crate::limits::{BITFIELD_PAGES_MAX, DENIALS_MAX, REMOTE_WANTS_MAX, WANT_BLOCKS};
use crate::memory::{Memory, Share};
use crate::messages::{self, BitfieldWords, Sync, Want};
use crate::seldom::Seldom;

/// Words of a batch that can be asked for.
const WANT_WORDS: usize = (WANT_BLOCKS / 32) as usize;

/// The other side, as it describes itself.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Its last Sync, all zero before the first.
    pub(crate) sync: Sync,
    /// Whether there was one.
    pub(crate) is_synced: bool,
    /// Blocks it told us about.
    pub(crate) blocks: Holdings,
    /// Blocks it asked us to tell it about.
    pub(crate) wants: RemoteWants,
}

impl Peer {
    /// How long its log is, as far as it has shown: a JavaScript peer may tell of blocks past the length it told, and
    /// may never tell that length (`hypercore/lib/replicator.js` 11.37.1, `_updateCanUpgradeAndSync`).
    pub(crate) fn length(&self) -> u64 {
        self.sync.length.max(self.blocks.read().contiguous())
    }

    /// Whether it said that it has a block.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.blocks.has_all(index..index + 1)
    }
}

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
    /// Blocks that it announced but would not give.
    denied: BTreeSet<u64>,
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
        let denied = &mut self.others.need().denied;
        denied.insert(index);
        denied.len() < DENIALS_MAX
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
        for_each_run(words, |run| {
            self.set(bitfield.start + run.start..bitfield.start + run.end, memory);
        });
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
        let share = self.share.get_or_insert_with(|| memory.share());
        let mut start = blocks.start;
        while start < blocks.end {
            let page = start / PAGE_BITS;
            let end = blocks.end.min((page + 1) * PAGE_BITS);
            let taken = self.pages.get(&page).copied();
            let is_one_more = taken.is_none() && self.pages.len() == BITFIELD_PAGES_MAX;
            let taken = taken.unwrap_or(0);
            if is_one_more || !share.take(PAGE_MEMORY_MAX - taken) {
                return;
            }
            self.bits.set_range(start..end, true);
            let takes = self.bits.page_memory(page).min(PAGE_MEMORY_MAX);
            share.give_back(PAGE_MEMORY_MAX - takes);
            self.pages.insert(page, takes);
            start = end;
        }
    }

    /// Clears `blocks`. A page that would take more memory then than there is, is cleared as a whole: what is
    /// not known of the peer is not asked of it.
    fn clear(&mut self, blocks: Range<u64>) {
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

/// Hands the runs of ones in `words` to `take`, in order. A run may come in parts.
fn for_each_run(words: &[u32], mut take: impl FnMut(Range<u64>)) {
    for (index, word) in words.iter().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            let start = rest.trailing_zeros();
            let end = start + (rest >> start).trailing_ones();
            take(index as u64 * 32 + u64::from(start)..index as u64 * 32 + u64::from(end));
            rest &= u32::MAX.checked_shl(end).unwrap_or(0);
        }
    }
}

/// The ranges that a peer wants to be told about.
#[derive(Debug, Default)]
pub(crate) struct RemoteWants(Seldom<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    wants: Vec<Want>,
    /// What is taken for them, from the first on.
    share: Option<Share>,
    /// Too many ranges: it is told everything.
    all: bool,
}

/// What a want takes, in bytes: a vector that grows may have twice the places it needs.
const WANT_MEMORY: usize = 2 * size_of::<Want>();

impl RemoteWants {
    /// Whether news about `blocks` are wanted.
    pub(crate) fn overlap(&self, blocks: &Range<u64>) -> bool {
        let wanted = self.0.get();
        wanted.is_some_and(|wanted| {
            wanted.all || wanted.wants.iter().any(|want| is_touching(want, blocks))
        })
    }

    /// What was asked about `blocks`; if that is too much to remember, all of them.
    pub(crate) fn touching(&self, blocks: Range<u64>) -> Vec<Want> {
        let Some(wanted) = self.0.get().filter(|_| !blocks.is_empty()) else {
            return Vec::new();
        };
        if wanted.all {
            let batches = blocks.start / WANT_BLOCKS..blocks.end.div_ceil(WANT_BLOCKS);
            let batch = |batch| Want {
                start: batch * WANT_BLOCKS,
                length: WANT_BLOCKS,
                any: false,
            };
            return batches.take(REMOTE_WANTS_MAX).map(batch).collect();
        }
        let wants = wanted.wants.iter();
        wants
            .filter(|want| is_touching(want, &blocks))
            .copied()
            .collect()
    }

    /// Notes a want. False if it is to be ignored: a range of any length may be asked for any one of its blocks,
    /// but not for all of them (`hypercore/lib/wants.js` 11.37.1, `RemoteWants.add`).
    pub(crate) fn add(&mut self, want: Want, memory: &Memory) -> bool {
        if want.length > WANT_BLOCKS && !want.any {
            return false;
        }
        let wanted = self.0.need();
        let share = wanted.share.get_or_insert_with(|| memory.share());
        if wanted.wants.contains(&want) {
            return true;
        }
        if wanted.wants.len() == REMOTE_WANTS_MAX || !share.take(WANT_MEMORY) {
            wanted.all = true;
        } else {
            wanted.wants.push(want);
        }
        true
    }

    /// Forgets a want.
    pub(crate) fn remove(&mut self, want: Want) {
        let Some(wanted) = self.0.get_mut() else {
            return;
        };
        let before = wanted.wants.len();
        wanted.wants.retain(|known| *known != want);
        let gone = before - wanted.wants.len();
        wanted.wants.shrink_to(2 * wanted.wants.len());
        if let Some(share) = &mut wanted.share {
            share.give_back(gone * WANT_MEMORY);
        }
    }
}

fn is_touching(want: &Want, blocks: &Range<u64>) -> bool {
    want.start < blocks.end && blocks.start < want.start.saturating_add(want.length)
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
    fn what_is_denied_is_not_had() {
        let mut blocks = RemoteBlocks::default();
        blocks.handle_range(have(0, 100), &memory());
        assert!(blocks.deny(3));
        assert_eq!(blocks.next(3..5), Some(4));
        let denials = (0..).take_while(|index| blocks.deny(*index)).count();
        assert!(denials <= DENIALS_MAX);
    }

    #[test]
    fn wants_are_bounded() {
        let want = |start, length| Want {
            start,
            length,
            any: false,
        };
        let mut wants = RemoteWants::default();
        assert!(!wants.add(want(0, WANT_BLOCKS + 1), &memory()));
        let memory = memory();
        for start in 0..REMOTE_WANTS_MAX as u64 {
            assert!(wants.add(want(start * 32, 32), &memory));
        }
        assert!(!wants.overlap(&(1 << 40..1 << 41)));
        assert!(wants.add(want(1 << 30, 32), &memory));
        assert!(wants.overlap(&(1 << 40..1 << 41)), "it wants everything");
    }

    #[test]
    fn wants_on_many_channels_have_one_budget() {
        let memory = Memory::new(0, 100 * WANT_MEMORY, &PeersMemory::new(1 << 30));
        let want = |start| Want {
            start,
            length: 32,
            any: start % 64 == 0,
        };
        let mut channels: Vec<RemoteWants> = Vec::new();
        channels.resize_with(10, RemoteWants::default);
        for wants in &mut channels {
            (0..60).for_each(|number| assert!(wants.add(want(number * 32), &memory)));
        }
        let remembered = |wants: &RemoteWants| wants.0.get().map_or(0, |known| known.wants.len());
        assert_eq!(channels.iter().map(remembered).sum::<usize>(), 100);
        assert!(!channels[0].overlap(&(1 << 40..1 << 41)));
        assert!(channels[1].overlap(&(1 << 40..1 << 41)), "it is told all");
        // What is taken back makes room for others.
        (0..60).for_each(|number| channels[0].remove(want(number * 32)));
        assert_eq!(remembered(&channels[0]), 0);
        let mut late = RemoteWants::default();
        (0..60).for_each(|number| assert!(late.add(want(number * 32), &memory)));
        assert_eq!(remembered(&late), 60);
        assert!(!late.overlap(&(1 << 40..1 << 41)));
    }
}
