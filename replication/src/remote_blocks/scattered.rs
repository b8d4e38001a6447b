//! Blocks beyond a gap: a bitfield of which as many pages are kept as there is memory for.
//!
//! Knows what each page takes. Does not know who said what.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;

use ferrocore_log::bitfield::{Bitfield, PAGE_BITS, PAGE_MEMORY_MAX};

use crate::limits::BITFIELD_PAGES_MAX;
use crate::memory::{Memory, Share};

/// Blocks of which the peer spoke and no more is known than before, for want of memory: all of them lie in this range.
pub(crate) type Forgotten = Option<Range<u64>>;

/// What a peer has beside the blocks that it has without a gap.
#[derive(Debug, Default)]
pub(super) struct Scattered {
    /// Blocks that it has.
    bits: Bitfield,
    /// Pages of `bits` that may be in memory, and how many bytes are taken for each.
    pages: BTreeMap<u64, usize>,
    /// What is taken for them, from the first on.
    share: Option<Share>,
}

impl Scattered {
    /// The first block from `from` on.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        self.bits.next_set(from)
    }

    /// Whether all of `blocks` are among them.
    pub(super) fn has_all(&self, blocks: Range<u64>) -> bool {
        self.bits.next_unset(blocks.start) >= blocks.end
    }

    /// How many pages may be in memory.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Sets as much of `blocks`, from its start, as there is memory for. Returns where that ends.
    pub(super) fn set(&mut self, blocks: Range<u64>, memory: &Memory) -> u64 {
        let mut start = blocks.start;
        while start < blocks.end {
            let page = start / PAGE_BITS;
            let end = blocks.end.min((page + 1) * PAGE_BITS);
            if !self.set_in_page(page, iter::once(start..end), memory) {
                break;
            }
            start = end;
        }
        start
    }

    /// Sets `runs`, all of them in `page`; false, and none is set, if there is no memory for it.
    pub(super) fn set_in_page(
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
    pub(super) fn clear(&mut self, blocks: Range<u64>) -> Forgotten {
        let share = self.share.as_mut()?; // else nothing was set
        let mut forgotten = None;
        let mut is_empty = false;
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
            let cleared = if is_affordable { part } else { whole.clone() };
            self.bits.set_range(cleared, false);
            *taken = self.bits.page_memory(*page).min(held);
            share.give_back(held - *taken);
            is_empty |= *taken == 0;
            forgotten = hull(forgotten, (!is_affordable).then_some(whole));
        }
        if is_empty {
            self.pages.retain(|_, taken| *taken > 0);
        }
        forgotten
    }

    /// Clears the pages that lie before `end` as a whole.
    pub(super) fn clear_pages_before(&mut self, end: u64) {
        let kept = self.pages.split_off(&(end / PAGE_BITS));
        let cleared = std::mem::replace(&mut self.pages, kept);
        self.give_up(cleared);
    }

    /// Clears everything.
    pub(super) fn forget(&mut self) -> Forgotten {
        let cleared = std::mem::take(&mut self.pages);
        let (first, last) = (cleared.first_key_value()?, cleared.last_key_value()?);
        let forgotten = first.0 * PAGE_BITS..(last.0 + 1) * PAGE_BITS;
        self.give_up(cleared);
        Some(forgotten)
    }

    fn give_up(&mut self, pages: BTreeMap<u64, usize>) {
        for (page, taken) in pages {
            let whole = page * PAGE_BITS..(page + 1) * PAGE_BITS;
            self.bits.set_range(whole, false);
            if let Some(share) = &mut self.share {
                share.give_back(taken);
            }
        }
    }
}

/// What holds both.
pub(super) fn hull(one: Forgotten, other: Forgotten) -> Forgotten {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.start.min(other.start)..one.end.max(other.end)),
        (one, other) => one.or(other),
    }
}
