//! Ranges of blocks that are wanted, and where each supplier's search in them goes on.
//!
//! Knows the order of blocks in a range: in a row for those who read, the rarest first for those who keep a
//! copy. Does not know who is getting what.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::{Ask, SupplierId};
use crate::bitfield::Bitfield;

/// Candidates that one search for the rarest blocks looks at.
const CANDIDATES_MAX: u64 = 2048;

/// Places of a long range where it looks for them.
const PLACES: u64 = 32;

/// How many of those found are kept at least, for the claims to come.
const RANKED_MIN: usize = 256;

/// Readers at different places of a core that are served side by side; more come after those.
const READERS_MAX: usize = 16;

/// What a range is wanted for. The first is served before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Somebody reads it, or will soon: its blocks come in order, whoever has them, and of several ranges the next of each.
    Reading,
    /// A copy of it is to be here: the blocks that the fewest suppliers have come first, lest they leave
    /// with them.
    Keeping,
}

/// Names one wanted range of one core; in the order in which they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RangeId {
    purpose: Purpose,
    number: u64,
}

/// What suppliers other than the one that asks have.
pub(super) trait Others {
    /// How many have a block.
    fn copies(&self, index: u64) -> usize;
    /// Whether each of them has all of a range.
    fn all_have(&self, range: Range<u64>) -> bool;
}

/// The ranges that are wanted.
#[derive(Debug, Default)]
pub(super) struct RangeWants {
    wants: BTreeMap<RangeId, Want>,
}

#[derive(Debug)]
struct Want {
    range: Range<u64>,
    is_paused: bool,
    /// Everything before is here.
    missing_from: u64,
    /// Everything before is here or claimed: no search need look there. Else each of many suppliers would walk over all that the
    /// others have claimed.
    claimed_to: u64,
    searches: HashMap<SupplierId, Search>,
}

/// One supplier's search.
#[derive(Debug, Default)]
struct Search {
    /// What lies before it is here, claimed or not had.
    cursor: u64,
    /// The rarest blocks found last, the rarest at the end.
    ranked: Vec<u64>,
    /// How often it looked, so that it looks elsewhere the next time.
    looks: u64,
}

impl RangeWants {
    pub(super) fn insert(&mut self, number: u64, range: Range<u64>, purpose: Purpose) -> RangeId {
        let id = RangeId { purpose, number };
        let want = Want {
            missing_from: range.start,
            claimed_to: range.start,
            range,
            is_paused: false,
            searches: HashMap::new(),
        };
        self.wants.insert(id, want);
        id
    }

    /// Takes a want back, and tells of what.
    pub(super) fn remove(&mut self, id: RangeId) -> Option<Range<u64>> {
        self.wants.remove(&id).map(|want| want.range)
    }

    /// Whether a block is in any of them, paused ones included: they are to be had some time.
    pub(super) fn contain(&self, index: u64) -> bool {
        self.wants.values().any(|want| want.range.contains(&index))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wants.values().all(|want| want.is_paused)
    }

    /// Asks for nothing more of it, or for what is missing again. False if that is nothing new.
    pub(super) fn set_paused(&mut self, id: RangeId, is_paused: bool) -> bool {
        let want = self.wants.get_mut(&id);
        want.is_some_and(|want| std::mem::replace(&mut want.is_paused, is_paused) != is_paused)
    }

    pub(super) fn is_paused(&self, id: RangeId) -> bool {
        self.wants.get(&id).is_some_and(|want| want.is_paused)
    }

    /// The first block of a range that is not here.
    pub(super) fn missing_from(&mut self, id: RangeId, local: &Bitfield) -> Option<u64> {
        let want = self.wants.get_mut(&id)?;
        want.missing_from = local.next_unset(want.missing_from);
        Some(want.missing_from)
    }

    /// Hands blocks to `take`, which refuses those that are claimed, until `room` of them are taken. Returns
    /// how many were.
    pub(super) fn claim(
        &mut self,
        ask: &Ask<'_>,
        room: usize,
        others: &impl Others,
        mut take: impl FnMut(u64) -> bool,
    ) -> usize {
        let mut left = room;
        // What is read at several places is needed at each of them first: every reader has its share before one has more.
        let is_read = |id: &RangeId, want: &Want| {
            id.purpose == Purpose::Reading && !want.open(ask).is_empty()
        };
        let readers = self.wants.iter().filter(|(id, want)| is_read(id, want));
        let readers = readers.take(READERS_MAX).count();
        if readers > 1 {
            let share = room.div_ceil(readers);
            let wants = self.wants.iter_mut();
            for (id, want) in wants.filter(|(id, want)| is_read(id, want)).take(readers) {
                let mut of_share = share.min(left);
                left -= of_share;
                want.claim(*id, ask, others, &mut of_share, &mut take);
                left += of_share;
            }
        }
        for (id, want) in &mut self.wants {
            if left == 0 {
                break;
            }
            want.claim(*id, ask, others, &mut left, &mut take);
        }
        room - left
    }

    /// `id` has got more at or past `from`.
    pub(super) fn reconsider(&mut self, id: SupplierId, from: u64) {
        for want in self.wants.values_mut() {
            if let Some(search) = want.searches.get_mut(&id) {
                search.cursor = search.cursor.min(from);
            }
        }
    }

    /// `id` is gone.
    pub(super) fn forget(&mut self, id: SupplierId) {
        for want in self.wants.values_mut() {
            want.searches.remove(&id);
        }
    }

    /// Block `index`, and those behind it, may be claimed again.
    pub(super) fn offer(&mut self, index: u64) {
        for want in self.wants.values_mut() {
            want.claimed_to = want.claimed_to.min(index);
            for search in want.searches.values_mut() {
                search.cursor = search.cursor.min(index);
            }
        }
    }

    /// What lies at or past `length` is missing again.
    pub(super) fn truncated(&mut self, length: u64) {
        for want in self.wants.values_mut() {
            want.missing_from = want.missing_from.min(length.max(want.range.start));
        }
        self.offer(length);
    }
}

impl Want {
    /// What of it is not known to be here.
    fn open(&self, ask: &Ask<'_>) -> Range<u64> {
        match self.is_paused {
            true => 0..0,
            false => self.missing_from..self.range.end.min(ask.length),
        }
    }

    /// Hands blocks to `take` until none of `left` is left.
    fn claim(
        &mut self,
        id: RangeId,
        ask: &Ask<'_>,
        others: &impl Others,
        left: &mut usize,
        take: &mut impl FnMut(u64) -> bool,
    ) {
        self.missing_from = ask.local.next_unset(self.missing_from);
        let open = self.open(ask);
        if open.is_empty() {
            return;
        }
        let search = self.searches.entry(ask.id).or_default();
        if id.purpose == Purpose::Keeping && !others.all_have(open.clone()) {
            search.claim_rarest(ask, open.clone(), others, left, take);
        }
        self.claimed_to = self.claimed_to.max(open.start);
        search.claim_in_order(ask, open, &mut self.claimed_to, left, take);
    }
}

impl Search {
    fn claim_in_order(
        &mut self,
        ask: &Ask<'_>,
        open: Range<u64>,
        claimed_to: &mut u64,
        left: &mut usize,
        take: &mut impl FnMut(u64) -> bool,
    ) {
        self.cursor = self.cursor.max(*claimed_to);
        while *left > 0 && self.cursor < open.end {
            let Some(index) = ask.remote.next_available(self.cursor..open.end) else {
                self.cursor = open.end;
                break;
            };
            let missing = ask.local.next_unset(index);
            self.cursor = missing.max(index + 1);
            if missing == index {
                *left -= usize::from(take(index)); // or somebody has claimed it
            }
            if *claimed_to == index {
                *claimed_to = self.cursor;
            }
        }
    }

    /// Claims what the last look found and, where that ends, looks once more. Blocks that no look meets are
    /// left to [`claim_in_order`](Self::claim_in_order).
    fn claim_rarest(
        &mut self,
        ask: &Ask<'_>,
        open: Range<u64>,
        others: &impl Others,
        left: &mut usize,
        take: &mut impl FnMut(u64) -> bool,
    ) {
        let mut may_look = true;
        while *left > 0 {
            let Some(index) = self.ranked.pop() else {
                if !std::mem::take(&mut may_look) {
                    return;
                }
                self.ranked = self.look(ask, open.clone(), others);
                continue;
            };
            let is_open = open.contains(&index) && !ask.local.get(index);
            if is_open && ask.remote.next_available(index..index + 1).is_some() {
                *left -= usize::from(take(index));
            }
        }
    }

    /// Blocks that are missing and to be had, the rarest at the end.
    fn look(&mut self, ask: &Ask<'_>, open: Range<u64>, others: &impl Others) -> Vec<u64> {
        let span = open.end - open.start;
        let mut found: Vec<(usize, u64)> = Vec::new();
        let mut meet = |part: Range<u64>| {
            let missing = part.filter(|index| !ask.local.get(*index));
            let had = missing.filter(|i| ask.remote.next_available(*i..*i + 1).is_some());
            found.extend(had.map(|index| (others.copies(index), index)));
        };
        if span <= CANDIDATES_MAX {
            meet(open);
        } else {
            let (stride, each) = (span / PLACES, CANDIDATES_MAX / PLACES);
            // An odd step meets every place of a stride in the end.
            let shift = (self.looks * (each | 1)) % stride;
            self.looks += 1;
            for place in 0..PLACES {
                let start = open.start + place * stride + shift;
                meet(start..open.end.min(start + each));
            }
        }
        found.sort_unstable();
        let rarest = found.first().map_or(0, |(copies, _)| *copies);
        let as_rare = found.iter().take_while(|(copies, _)| *copies == rarest);
        let kept = as_rare.count().max(RANKED_MIN);
        found.truncate(kept);
        found.into_iter().rev().map(|(_, index)| index).collect()
    }
}
