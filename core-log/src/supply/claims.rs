//! Claims: which supplier is getting which block, and who may try as well.
//!
//! Knows in which order blocks are claimed. Does not know what is wanted, nor how soon anybody answers.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::time::Duration;

use super::outlook::Rival;
use super::supplier::{Availability, OtherSuppliers};
use super::{State, SupplierId};
use crate::bitfield::Bitfield;

/// What was claimed, and what was left to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Taken on.
    pub taken: Vec<Claim>,
    /// Blocks that somebody waits for were left to a supplier that will answer sooner. If they are still
    /// open after this time, claim them without regard for it: waiting longer gains nothing.
    pub left_for: Option<Duration>,
}

/// Who asks for something to claim, and what is known.
pub(super) struct Ask<'a> {
    pub(super) id: SupplierId,
    pub(super) local: &'a Bitfield,
    pub(super) length: u64,
    pub(super) remote: &'a dyn Availability,
}

impl Ask<'_> {
    pub(super) fn can_have(&self, index: u64) -> bool {
        self.remote.next_available(index..index + 1).is_some()
    }
}

/// A block that a supplier has taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Block index.
    pub index: u64,
    /// Whether somebody waits for just this block.
    pub urgent: bool,
    /// Whether others have it too, and are late: whoever delivers first ends the others'
    /// work, so look now and then whether the block is here.
    pub contested: bool,
}

/// Blocks of late suppliers that one claim may take on at once.
const CONTESTED_MAX: usize = 16;

/// How many suppliers may be getting one block, each since all before it are late: as many as in JavaScript
/// (`hypercore/lib/replicator.js` 11.37.1, hotswaps), but for those who have been at it for too long to be waited for, ...
const CLAIMANTS_MAX: usize = 3;

/// ... and if somebody waits for just that block: some who hold it back do not keep a reader from who gives it.
const URGENT_CLAIMANTS_MAX: usize = 8;

/// Who is getting one block.
#[derive(Debug)]
pub(super) struct Claimants {
    first: SupplierId,
    /// Others, in the order they came. All but the last of all are late.
    rivals: Vec<SupplierId>,
    /// Whether the last is late, too.
    are_late: bool,
    /// Those that have been at it for so long that they do not count.
    discounted: Vec<SupplierId>,
}

impl Claimants {
    fn new(first: SupplierId) -> Self {
        Self {
            first,
            rivals: Vec::new(), // which takes no memory
            are_late: false,
            discounted: Vec::new(),
        }
    }

    /// One of whom nothing is expected: others may try at once.
    fn of_no_account(first: SupplierId) -> Self {
        Self {
            are_late: true,
            discounted: vec![first],
            ..Self::new(first)
        }
    }

    pub(super) fn include(&self, id: SupplierId) -> bool {
        self.suppliers().any(|supplier| supplier == id)
    }

    fn suppliers(&self) -> impl Iterator<Item = SupplierId> {
        std::iter::once(self.first).chain(self.rivals.iter().copied())
    }

    /// How many count.
    fn count(&self) -> usize {
        1 + self.rivals.len() - self.discounted.len()
    }

    fn last(&self) -> SupplierId {
        self.rivals.last().copied().unwrap_or(self.first)
    }

    /// One more tries.
    fn add(&mut self, id: SupplierId) {
        self.rivals.push(id);
        self.are_late = false;
    }

    /// One more tries, of whom nothing is expected: all before it are late, and it is, too.
    fn add_of_no_account(&mut self, id: SupplierId) {
        self.rivals.push(id);
        self.discounted.push(id);
    }

    /// Takes `id` out. False if nobody is left.
    fn remove(&mut self, id: SupplierId) -> bool {
        self.are_late |= self.last() == id;
        self.discounted.retain(|discounted| *discounted != id);
        if self.first != id {
            self.rivals.retain(|rival| *rival != id);
            return true;
        }
        let is_any = !self.rivals.is_empty();
        if is_any {
            self.first = self.rivals.remove(0);
        }
        is_any
    }
}

impl State {
    /// Takes on blocks that somebody waits for, but for those that a patient one leaves to a faster one.
    pub(super) fn claim_blocks(
        &mut self,
        ask: &Ask<'_>,
        max: usize,
        is_patient: bool,
        claims: &mut Claims,
    ) {
        if self.blocks.is_empty() {
            return;
        }
        let mut faster = match is_patient {
            true => self.faster_than(ask.id),
            false => Vec::new(),
        };
        let considered = max + faster.iter().map(|(_, _, room)| room).sum::<usize>();
        let (open, missed) = self.open_blocks(ask, considered);
        for index in open {
            if claims.taken.len() == max {
                break;
            }
            let may_have =
                |(id, _, room): &&mut Rival| *room > 0 && self.blocks.may_have(index, *id);
            if let Some((_, gain, room)) = faster.iter_mut().find(may_have) {
                *room -= 1;
                claims.left_for = Some(claims.left_for.map_or(*gain, |least| least.min(*gain)));
                self.blocks.leave(index);
                continue;
            }
            let contested = self.claim_open(ask.id, index);
            claims.taken.push(Claim {
                index,
                urgent: true,
                contested,
            });
        }
        let mut is_left = false;
        for index in missed {
            is_left |= self.blocks.pass(index, ask.id);
        }
        if is_left {
            self.wake_others(ask.id);
        }
    }

    /// Blocks that somebody waits for and nobody is getting: up to `max` that can be had, and those that
    /// turn out not to be.
    fn open_blocks(&self, ask: &Ask<'_>, max: usize) -> (Vec<u64>, Vec<u64>) {
        let (mut open, mut missed) = (Vec::new(), Vec::new());
        for index in self.blocks.below(ask.length) {
            if open.len() == max {
                break;
            }
            if ask.local.get(index) || self.claims.contains_key(&index) {
                continue;
            }
            if ask.can_have(index) {
                open.push(index);
            } else if self.blocks.may_have(index, ask.id) {
                missed.push(index);
            }
        }
        (open, missed)
    }

    /// Whether `id` is getting a block.
    pub(super) fn is_getting(&self, id: SupplierId, index: u64) -> bool {
        self.claims
            .get(&index)
            .is_some_and(|claim| claim.include(id))
    }

    /// Takes on a block that nobody is getting. True if others may try at once.
    fn claim_open(&mut self, id: SupplierId, index: u64) -> bool {
        let has_failed = self.failures.include(id, index);
        let claim = match has_failed {
            true => Claimants::of_no_account(id),
            false => Claimants::new(id),
        };
        self.claims.insert(index, claim);
        self.sort_late(index);
        has_failed
    }

    /// The last who took on a block has not got it in its time. True if one more may try, and that is news.
    pub(super) fn note_late(&mut self, id: SupplierId, index: u64) -> bool {
        let Some(claim) = self.claims.get_mut(&index) else {
            return false;
        };
        if claim.last() != id || std::mem::replace(&mut claim.are_late, true) {
            return false;
        }
        self.sort_late(index);
        self.late.contains(&index)
    }

    /// `id` has been at a block for so long that it keeps nobody from trying. True if one more may try, and that is news.
    pub(super) fn discount(&mut self, id: SupplierId, index: u64) -> bool {
        let Some(claim) = self.claims.get_mut(&index) else {
            return false;
        };
        if !claim.include(id) || claim.discounted.contains(&id) {
            return false;
        }
        claim.discounted.push(id);
        let might_try = self.late.contains(&index);
        self.sort_late(index);
        !might_try && self.late.contains(&index)
    }

    /// Puts a block among those that one more may try if all who are getting it are late, and are not too many yet: how many
    /// may be depends on whether somebody waits for it.
    pub(super) fn sort_late(&mut self, index: u64) {
        let claimants_max = match self.blocks.contains(index) {
            true => URGENT_CLAIMANTS_MAX,
            false => CLAIMANTS_MAX,
        };
        let may_try = |claim: &Claimants| claim.are_late && claim.count() < claimants_max;
        match self.claims.get(&index).is_some_and(may_try) {
            true => self.late.insert(index),
            false => self.late.remove(&index),
        };
    }

    /// Takes on blocks whose suppliers are late: those somebody waits for, or any.
    pub(super) fn contest(
        &mut self,
        ask: &Ask<'_>,
        max: usize,
        urgent: bool,
        taken: &mut Vec<Claim>,
    ) {
        let max = max.min(taken.len() + CONTESTED_MAX);
        let mut from = 0;
        while taken.len() < max {
            let Some(index) = self.next_late(ask, from, urgent) else {
                break;
            };
            from = index + 1;
            let claim = self.claims.get_mut(&index);
            let claim = claim.filter(|claim| !claim.include(ask.id));
            let Some(claim) = claim.filter(|_| !ask.local.get(index)) else {
                continue;
            };
            if self.failures.include(ask.id, index) {
                claim.add_of_no_account(ask.id);
            } else {
                claim.add(ask.id);
                self.late.remove(&index);
            }
            taken.push(Claim {
                index,
                urgent: self.blocks.contains(index),
                contested: true,
            });
        }
    }

    /// The next late block from `from` on that can be had, and that somebody waits for if it is to be urgent. All suppliers look
    /// here, so those that many others are late with, and this one does not have, must not be looked at one by one.
    fn next_late(&self, ask: &Ask<'_>, mut from: u64, urgent: bool) -> Option<u64> {
        while from < ask.length {
            let late = *self.late.range(from..ask.length).next()?;
            let wanted = match urgent {
                true => self.blocks.next(late)?,
                false => late,
            };
            from = ask.remote.next_available(wanted..ask.length.max(wanted))?;
            if from == late {
                return Some(late);
            }
        }
        None
    }

    pub(super) fn claim_ranges(&mut self, ask: &Ask<'_>, max: usize, taken: &mut Vec<Claim>) {
        let others = OtherSuppliers {
            suppliers: &self.suppliers,
            id: ask.id,
        };
        let room = max.saturating_sub(taken.len());
        let (claims, failures, late) = (&mut self.claims, &self.failures, &mut self.late);
        self.ranges.claim(ask, room, &others, |index| {
            let Entry::Vacant(slot) = claims.entry(index) else {
                return false;
            };
            let contested = failures.include(ask.id, index);
            if contested {
                slot.insert(Claimants::of_no_account(ask.id));
                late.insert(index);
            } else {
                slot.insert(Claimants::new(ask.id));
            }
            taken.push(Claim {
                index,
                urgent: false,
                contested,
            });
            true
        });
    }

    /// What `id` has claimed may be claimed again.
    pub(super) fn free_claims(&mut self, id: SupplierId) {
        let claimed = self.claims.iter().filter(|(_, claim)| claim.include(id));
        let claimed: Vec<u64> = claimed.map(|(index, _)| *index).collect();
        for index in claimed {
            self.give_back(id, index);
        }
        self.ranges.forget(id);
        self.blocks.reconsider(id, 0);
        self.seeks.free_claims(id);
    }

    /// Takes `id` out of a claim. If nobody is left, the block may be claimed again; if all who are left are late, contested.
    pub(super) fn give_back(&mut self, id: SupplierId, index: u64) {
        let Some(claim) = self.claims.get_mut(&index) else {
            return;
        };
        if !claim.remove(id) {
            self.claims.remove(&index);
            self.late.remove(&index);
            self.abandoned.remove(&index);
            self.ranges.offer(index);
            if !self.is_wanted(index) {
                self.failures.settle(index);
            }
        } else if self.is_wanted(index) {
            self.sort_late(index);
        }
    }

    /// Some blocks of `range` are wanted less than before: whoever is getting one that nobody wants is woken.
    pub(super) fn abandon(&mut self, range: Range<u64>) {
        let (blocks, ranges) = (&self.blocks, &self.ranges);
        let is_wanted = |index| blocks.contains(index) || ranges.contain(index);
        self.failures.settle_within(range.clone(), is_wanted);
        if self.claims.is_empty() {
            return;
        }
        let is_short =
            usize::try_from(range.end - range.start).is_ok_and(|n| n < self.claims.len());
        let claimed: Vec<u64> = match is_short {
            true => range
                .filter(|index| self.claims.contains_key(index))
                .collect(),
            false => self
                .claims
                .keys()
                .copied()
                .filter(|index| range.contains(index))
                .collect(),
        };
        let unwanted: Vec<u64> = claimed
            .into_iter()
            .filter(|index| !self.is_wanted(*index))
            .collect();
        let claims = unwanted.iter().filter_map(|index| self.claims.get(index));
        let getting: BTreeSet<SupplierId> = claims.flat_map(|claim| claim.suppliers()).collect();
        self.abandoned.extend(unwanted);
        getting.into_iter().for_each(|id| self.wake(id));
    }

    /// The blocks, in order, that `id` is getting and that nobody wants any more. What is wanted again is
    /// forgotten here.
    pub(super) fn unwanted(&mut self, id: SupplierId) -> Vec<u64> {
        let mut abandoned = std::mem::take(&mut self.abandoned);
        abandoned.retain(|index| !self.is_wanted(*index));
        self.abandoned = abandoned;
        let is_getting = |index: &&u64| {
            self.claims
                .get(index)
                .is_some_and(|claim| claim.include(id))
        };
        self.abandoned.iter().filter(is_getting).copied().collect()
    }

    fn is_wanted(&self, index: u64) -> bool {
        self.blocks.contains(index) || self.ranges.contain(index)
    }

    /// How many blocks somebody is getting; how many of them one more may try, and how many nobody wanted; how many failures are
    /// known.
    pub(super) fn claimed(&self) -> [usize; 4] {
        let Self {
            claims,
            late,
            abandoned,
            failures,
            ..
        } = self;
        [claims.len(), late.len(), abandoned.len(), failures.len()]
    }
}
