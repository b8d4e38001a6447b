//! Blocks beyond a gap: a bitfield of which as many pages are kept as there is memory for, and runs of pages without a gap.
//!
//! Knows what each page takes. Does not know who said what.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;

use ferrocore_log::bitfield::{Bitfield, PAGE_BITS, PAGE_MEMORY_MAX};

use crate::limits::BITFIELD_PAGES_MAX;
use crate::memory::{Memory, Share};
use crate::work::steps;

/// Blocks of which the peer spoke and no more is known than before, for want of memory: all of them lie in this range.
pub(crate) type Forgotten = Option<Range<u64>>;

/// What a run of whole pages takes in memory, in bytes: two numbers, and their place in a tree.
const RUN_MEMORY: usize = 64;

/// What a peer has beside the blocks that it has without a gap. Whatever it says in one message costs no more than two pages
/// and a run, and what is thrown out, which was paid for when it was set.
#[derive(Debug, Default)]
pub(super) struct Scattered {
    /// Blocks that it has, in pages that it does not have as a whole.
    bits: Bitfield,
    /// Pages of `bits` that may be in memory, and how many bytes are taken for each.
    pages: BTreeMap<u64, usize>,
    /// Pages that it has as a whole: the first of a run, and the one behind its last. Runs do not touch.
    runs: BTreeMap<u64, u64>,
    /// What is taken for all of them, from the first on.
    share: Option<Share>,
}

impl Scattered {
    /// The first block from `from` on.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let page = from / PAGE_BITS;
        if self.run_of(page).is_some() {
            return Some(from);
        }
        let in_run = self.runs.range(page..).next();
        let in_run = in_run.map(|(first, _)| first * PAGE_BITS);
        in_run.into_iter().chain(self.bits.next_set(from)).min()
    }

    /// Whether all of `blocks` are among them.
    pub(super) fn has_all(&self, blocks: Range<u64>) -> bool {
        let mut from = blocks.start;
        while from < blocks.end {
            steps(1);
            let end = match self.run_of(from / PAGE_BITS) {
                Some(run) => run.end * PAGE_BITS,
                None => self.bits.next_unset(from),
            };
            if end == from {
                return false;
            }
            from = end;
        }
        true
    }

    /// How many pages, and runs of pages, may be in memory.
    pub(super) fn pieces(&self) -> usize {
        self.pages.len() + self.runs.len()
    }

    /// Sets as much of `blocks`, from its start, as there is memory for. Returns where that ends.
    pub(super) fn set(&mut self, blocks: Range<u64>, memory: &Memory) -> u64 {
        let (first, last) = (blocks.start.div_ceil(PAGE_BITS), blocks.end / PAGE_BITS);
        let head = blocks.start..blocks.end.min(first * PAGE_BITS);
        let tail = first.max(last) * PAGE_BITS..blocks.end;
        if !self.set_part(head, memory) {
            return blocks.start;
        }
        if first < last && !self.set_run(first..last, memory) {
            return first * PAGE_BITS;
        }
        match self.set_part(tail.clone(), memory) {
            true => blocks.end,
            false => tail.start,
        }
    }

    /// Sets `runs`, all of them in `page`; false, and none is set, if there is no memory for it.
    pub(super) fn set_in_page(
        &mut self,
        page: u64,
        runs: impl Iterator<Item = Range<u64>>,
        memory: &Memory,
    ) -> bool {
        if self.run_of(page).is_some() {
            return true;
        }
        steps(1);
        let is_one_more = !self.pages.contains_key(&page);
        let is_too_many = is_one_more && self.pieces() >= BITFIELD_PAGES_MAX;
        let share = self.share.get_or_insert_with(|| memory.share());
        let taken = self.pages.get(&page).copied();
        if is_too_many || !share.take(PAGE_MEMORY_MAX - taken.unwrap_or(0)) {
            return false;
        }
        for run in runs {
            self.bits.set_range(run, true);
        }
        let is_whole = self.bits.next_unset(page * PAGE_BITS) >= (page + 1) * PAGE_BITS;
        if is_whole {
            // A run's memory is kept of the page's: what is given back, another connection may take at once.
            self.pages.insert(page, PAGE_MEMORY_MAX - RUN_MEMORY);
            self.give_up(vec![page]);
            self.join_run(page..page + 1, RUN_MEMORY);
            return true;
        }
        let takes = self.bits.page_memory(page).min(PAGE_MEMORY_MAX);
        share.give_back(PAGE_MEMORY_MAX - takes);
        self.pages.insert(page, takes);
        true
    }

    /// As [`set_in_page`](Self::set_in_page), a part of one page, or nothing.
    fn set_part(&mut self, blocks: Range<u64>, memory: &Memory) -> bool {
        let page = blocks.start / PAGE_BITS;
        blocks.is_empty() || self.set_in_page(page, iter::once(blocks), memory)
    }

    /// Sets whole pages; false, and none of them is set, if there is no memory for it.
    fn set_run(&mut self, pages: Range<u64>, memory: &Memory) -> bool {
        self.give_up(self.pages_within(pages.clone()));
        let is_one_more = !self.is_touched(&pages);
        let is_too_many = self.pieces() >= BITFIELD_PAGES_MAX;
        let share = self.share.get_or_insert_with(|| memory.share());
        if is_one_more && (is_too_many || !share.take(RUN_MEMORY)) {
            return false;
        }
        self.join_run(pages, if is_one_more { RUN_MEMORY } else { 0 });
        true
    }

    /// Makes one run of whole pages, none of them in `bits`, and of the runs that touch them. So much is taken for it, beside
    /// what is for those.
    fn join_run(&mut self, pages: Range<u64>, taken: usize) {
        steps(1);
        let touching = self.take_runs(around(&pages));
        let start = touching.first().map_or(pages.start, |run| run.start);
        let end = touching.last().map_or(pages.end, |run| run.end);
        self.runs.insert(start.min(pages.start), end.max(pages.end));
        if let Some(share) = &mut self.share {
            share.give_back((taken + touching.len() * RUN_MEMORY).saturating_sub(RUN_MEMORY));
        }
    }

    /// Whether there is a run that holds some of `pages`, or ends or begins beside them.
    fn is_touched(&self, pages: &Range<u64>) -> bool {
        let near = around(pages);
        let behind = self.runs.range(near.clone()).next();
        self.run_of(near.start).is_some() || behind.is_some()
    }

    /// Clears `blocks`. A page that would take more memory then than there is, is cleared as a whole: what is
    /// not known of the peer is not asked of it.
    pub(super) fn clear(&mut self, blocks: Range<u64>, memory: &Memory) -> Forgotten {
        let mut forgotten = self.clear_in_pages(&blocks);
        let pages = blocks.start / PAGE_BITS..blocks.end.div_ceil(PAGE_BITS);
        let runs = self.take_runs(pages.clone());
        if let Some(share) = &mut self.share {
            share.give_back(runs.len() * RUN_MEMORY);
        }
        // What is left of the first and of the last; of those between, nothing.
        for run in runs {
            let run = run.start * PAGE_BITS..run.end * PAGE_BITS;
            let before = run.start..blocks.start.min(run.end);
            let page = blocks.end.max(run.start)..run.end.min(pages.end * PAGE_BITS);
            let behind = page.end.max(run.start)..run.end;
            for left in [before, behind, page] {
                let set_to = match left.is_empty() {
                    true => left.end,
                    false => self.set(left.clone(), memory),
                };
                let cut = (set_to < left.end).then_some(set_to..left.end);
                forgotten = hull(forgotten, cut);
            }
        }
        forgotten
    }

    /// Clears those of `blocks` that are in pages of bits.
    fn clear_in_pages(&mut self, blocks: &Range<u64>) -> Forgotten {
        let share = self.share.as_mut()?; // else nothing was set
        let mut forgotten = None;
        let mut empty = Vec::new();
        // Only pages that are in memory hold set bits: the span of `blocks` is the peer's say-so.
        for (page, taken) in self.pages.range_mut(blocks.start / PAGE_BITS..) {
            let whole = page * PAGE_BITS..(page + 1) * PAGE_BITS;
            let part = blocks.start.max(whole.start)..blocks.end.min(whole.end);
            if part.is_empty() {
                break;
            }
            steps(1);
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
            empty.extend((*taken == 0).then_some(*page));
            forgotten = hull(forgotten, (!is_affordable).then_some(whole));
        }
        for page in empty {
            self.pages.remove(&page);
        }
        forgotten
    }

    /// Clears the pages that lie before `end` as a whole.
    pub(super) fn clear_pages_before(&mut self, end: u64) {
        let page = end / PAGE_BITS;
        self.give_up(self.pages_within(0..page));
        let runs = self.take_runs(0..page);
        let rest = runs.last().map_or(page, |run| run.end);
        let is_left = rest > page;
        if is_left {
            self.runs.insert(page, rest);
        }
        if let Some(share) = &mut self.share {
            share.give_back((runs.len() - usize::from(is_left)) * RUN_MEMORY);
        }
    }

    /// Clears everything.
    pub(super) fn forget(&mut self) -> Forgotten {
        let pages = self.pages_within(0..u64::MAX);
        let mut forgotten = None;
        for page in [pages.first(), pages.last()] {
            let page = page.map(|page| page * PAGE_BITS..(page + 1) * PAGE_BITS);
            forgotten = hull(forgotten, page);
        }
        self.give_up(pages);
        let runs = self.take_runs(0..u64::MAX);
        if let Some(share) = &mut self.share {
            share.give_back(runs.len() * RUN_MEMORY);
        }
        let runs = runs.into_iter();
        let runs = runs.map(|run| Some(run.start * PAGE_BITS..run.end * PAGE_BITS));
        runs.fold(forgotten, hull)
    }

    /// The run that holds `page`.
    fn run_of(&self, page: u64) -> Option<Range<u64>> {
        let (first, end) = self.runs.range(..=page).next_back()?;
        (page < *end).then_some(*first..*end)
    }

    /// Takes out the runs that have some of `pages`, in order. Their memory is not given back.
    fn take_runs(&mut self, pages: Range<u64>) -> Vec<Range<u64>> {
        let start = self
            .run_of(pages.start)
            .map_or(pages.start, |run| run.start);
        let mut taken = Vec::new();
        while let Some((first, end)) = self.runs.range(start..).next() {
            let run = *first..*end;
            if run.start >= pages.end {
                break;
            }
            steps(1);
            self.runs.remove(&run.start);
            taken.push(run);
        }
        taken
    }

    /// Those of `pages` that may hold bits.
    fn pages_within(&self, pages: Range<u64>) -> Vec<u64> {
        self.pages.range(pages).map(|(page, _)| *page).collect()
    }

    fn give_up(&mut self, pages: Vec<u64>) {
        for page in pages {
            steps(1);
            let whole = page * PAGE_BITS..(page + 1) * PAGE_BITS;
            self.bits.set_range(whole, false);
            let taken = self.pages.remove(&page).unwrap_or(0);
            if let Some(share) = &mut self.share {
                share.give_back(taken);
            }
        }
    }
}

/// These pages, and the next ones on both sides.
fn around(pages: &Range<u64>) -> Range<u64> {
    pages.start.saturating_sub(1)..pages.end + 1
}

/// What holds both.
pub(super) fn hull(one: Forgotten, other: Forgotten) -> Forgotten {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.start.min(other.start)..one.end.max(other.end)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::memory::PeersMemory;

    /// Goal: who fills a page keeps what it knew of it, whoever takes the memory that a whole page gives back. Method: another
    /// connection takes all there is, again and again, on a thread of its own.
    #[test]
    fn who_fills_a_page_loses_nothing_to_others() {
        const ROUNDS: usize = 50_000;
        let peers = PeersMemory::new(PAGE_MEMORY_MAX);
        let [ours, theirs] = [(); 2].map(|()| Memory::new(0, 1 << 20, &peers));
        let page = PAGE_BITS..2 * PAGE_BITS;
        let half = PAGE_BITS * 3 / 2;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    theirs.share().take(theirs.free());
                }
            });
            let mut filled = 0;
            while filled < ROUNDS {
                let mut scattered = Scattered::default();
                if scattered.set(page.start..half, &ours) < half {
                    continue;
                }
                let is_set = scattered.set(half..page.end, &ours) == page.end;
                let knows = scattered.has_all(page.start..half);
                is_over.store(!knows, Ordering::Relaxed);
                assert!(knows, "after {filled} pages");
                assert_eq!(scattered.has_all(half..page.end), is_set);
                filled += usize::from(is_set);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(peers.held(), 0);
    }
}
