//! Wants and claims: what a core lacks, and who is getting it.
//!
//! A reader puts *wants* in (a block, a range, a newer length). A *supplier* (a replication
//! channel, a static store) attaches, claims blocks that it can deliver, and hands in proofs
//! through [`Core::accept`](crate::Core::accept); what it cannot deliver it releases. Knows who
//! wants and claims what. Does not know networks, proofs or storage.

mod seeks;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event as Signal, EventListener};

use self::seeks::SeekWants;
use crate::bitfield::Bitfield;

pub(crate) use self::seeks::SeekOutlook;
pub use self::seeks::{SeekClaim, SeekId};

/// Wakes a supplier: there is something new to claim or to announce. Must not block and must
/// not call back into the core.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Names a supplier of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SupplierId(u64);

/// What a supplier can deliver.
pub trait Availability {
    /// The first block in `range` that it can deliver.
    fn next_available(&self, range: Range<u64>) -> Option<u64>;
}

/// Everything can be delivered: a contiguous peer, a complete static store.
#[derive(Debug, Clone, Copy)]
pub struct All;

impl Availability for All {
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        (!range.is_empty()).then_some(range.start)
    }
}

/// A block that a supplier has taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Block index.
    pub index: u64,
    /// Whether somebody waits for just this block.
    pub urgent: bool,
    /// Whether another supplier has it too, and is late: whoever delivers first ends the other's
    /// work, so look now and then whether the block is here.
    pub contested: bool,
}

/// Blocks of late suppliers that one claim may take on at once.
const CONTESTED_MAX: usize = 16;

/// The wants and suppliers of one core.
#[derive(Default)]
pub(crate) struct SupplyHub {
    state: Mutex<State>,
    /// Fires when blocks arrive, suppliers come, go or settle.
    progress: Signal,
}

#[derive(Default)]
struct State {
    suppliers: HashMap<SupplierId, Supplier>,
    next_id: u64,
    /// How many are looking for suppliers just now.
    finders: usize,
    /// Blocks somebody waits for, with how many do.
    blocks: BTreeMap<u64, usize>,
    ranges: BTreeMap<u64, RangeWant>,
    /// Who is getting which block.
    claims: HashMap<u64, Claimants>,
    /// The claims whose supplier is late.
    late: BTreeSet<u64>,
    seeks: SeekWants,
}

/// Who is getting one block.
#[derive(Debug, Clone, Copy)]
struct Claimants {
    first: SupplierId,
    /// Another one, since the first is late.
    rival: Option<SupplierId>,
}

impl Claimants {
    fn new(first: SupplierId) -> Self {
        Self { first, rival: None }
    }

    fn include(&self, id: SupplierId) -> bool {
        self.first == id || self.rival == Some(id)
    }

    /// Those who are left without `id`.
    fn without(self, id: SupplierId) -> Option<Self> {
        match self.rival {
            Some(rival) if self.first == id => Some(Self::new(rival)),
            Some(rival) if rival == id => Some(Self::new(self.first)),
            None if self.first == id => None,
            _ => Some(self),
        }
    }
}

struct Supplier {
    wake: Wake,
    standing: Standing,
}

/// What may be expected of a supplier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has not said how long its log is.
    Silent,
    /// It can bring the log to this length.
    Reaches(u64),
    /// It can deliver nothing for now, so nobody waits for it.
    Paused,
}

impl Supplier {
    fn is_active(&self) -> bool {
        self.standing != Standing::Paused
    }

    /// The length it has said to have, once it has said one.
    fn remote_length(&self) -> Option<u64> {
        match self.standing {
            Standing::Reaches(length) => Some(length),
            Standing::Silent | Standing::Paused => None,
        }
    }
}

struct RangeWant {
    range: Range<u64>,
    /// Everything before is here.
    missing_from: u64,
    /// Where each supplier's search goes on: what lies before it is here, claimed or not had.
    cursors: HashMap<SupplierId, u64>,
}

/// What the hub answers about a newer length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Some supplier has not spoken yet, or has more than we do.
    Pending,
    /// All suppliers have spoken, and none has more.
    Done,
}

impl SupplyHub {
    pub(crate) fn listen(&self) -> EventListener {
        self.progress.listen()
    }

    pub(crate) fn attach(&self, wake: Wake) -> SupplierId {
        let mut state = self.lock();
        let id = SupplierId(state.next_id);
        state.next_id += 1;
        let supplier = Supplier {
            wake,
            standing: Standing::Silent,
        };
        state.suppliers.insert(id, supplier);
        drop(state);
        self.progress.notify(usize::MAX);
        id
    }

    pub(crate) fn detach(&self, id: SupplierId) {
        let mut state = self.lock();
        state.suppliers.remove(&id);
        state.free_claims(id);
        state.seeks.forget(id);
        state.wake_all();
        drop(state);
        self.progress.notify(usize::MAX);
    }

    pub(crate) fn pause(&self, id: SupplierId) {
        self.lock().free_claims(id);
        self.set_standing(id, Standing::Paused);
    }

    pub(crate) fn resume(&self, id: SupplierId) {
        self.set_standing(id, Standing::Silent);
    }

    pub(crate) fn claim(
        &self,
        id: SupplierId,
        local: &Bitfield,
        length: u64,
        remote: &dyn Availability,
        max: usize,
    ) -> Vec<Claim> {
        let mut state = self.lock();
        if !state.suppliers.get(&id).is_some_and(Supplier::is_active) {
            return Vec::new();
        }
        let mut taken = state.claim_blocks(id, local, length, remote, max);
        state.contest(id, local, length, remote, max, true, &mut taken);
        state.claim_ranges(id, local, length, remote, max, &mut taken);
        state.contest(id, local, length, remote, max, false, &mut taken);
        taken
    }

    /// A claim that takes long: another supplier may try, too.
    pub(crate) fn late(&self, id: SupplierId, index: u64) {
        let mut state = self.lock();
        let is_alone = |claim: &Claimants| claim.first == id && claim.rival.is_none();
        if state.claims.get(&index).is_some_and(is_alone) && state.late.insert(index) {
            state.wake_others(id);
        }
    }

    pub(crate) fn release(&self, id: SupplierId, index: u64) {
        let mut state = self.lock();
        if !state
            .claims
            .get(&index)
            .is_some_and(|claim| claim.include(id))
        {
            return;
        }
        state.give_back(id, index);
        // The one who could not deliver is not asked at once again.
        state.wake_others(id);
    }

    pub(crate) fn available(&self, id: SupplierId, from: u64) {
        for want in self.lock().ranges.values_mut() {
            if let Some(cursor) = want.cursors.get_mut(&id) {
                *cursor = (*cursor).min(from);
            }
        }
    }

    pub(crate) fn settle(&self, id: SupplierId, remote_length: u64) {
        self.set_standing(id, Standing::Reaches(remote_length));
    }

    fn set_standing(&self, id: SupplierId, standing: Standing) {
        let mut state = self.lock();
        let supplier = state.suppliers.get_mut(&id);
        let before = supplier.map(|supplier| std::mem::replace(&mut supplier.standing, standing));
        if before.is_some_and(|before| before != standing) {
            if standing == Standing::Paused {
                state.wake_others(id);
            }
            drop(state);
            self.progress.notify(usize::MAX);
        }
    }

    pub(crate) fn settled(&self, length: u64) -> Settled {
        let state = self.lock();
        let silent_or_ahead = |s: &Supplier| s.remote_length().is_none_or(|l| l > length);
        let unheard = state.active() == 0 && state.finders > 0;
        let mut active = state.suppliers.values().filter(|s| s.is_active());
        if unheard || active.any(silent_or_ahead) {
            Settled::Pending
        } else {
            Settled::Done
        }
    }

    pub(crate) fn remote_length(&self) -> Option<u64> {
        let state = self.lock();
        state
            .suppliers
            .values()
            .filter_map(Supplier::remote_length)
            .max()
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        let state = self.lock();
        state.active() == 0 && state.finders == 0
    }

    pub(crate) fn suppliers(&self) -> usize {
        self.lock().active()
    }

    pub(crate) fn is_wanting(&self) -> bool {
        let state = self.lock();
        !state.blocks.is_empty() || !state.ranges.is_empty()
    }

    pub(crate) fn add_finder(&self) {
        self.lock().finders += 1;
    }

    pub(crate) fn remove_finder(&self) {
        self.lock().finders -= 1;
        self.progress.notify(usize::MAX);
    }

    pub(crate) fn want_block(&self, index: u64) {
        let mut state = self.lock();
        *state.blocks.entry(index).or_insert(0) += 1;
        state.wake_all();
    }

    pub(crate) fn unwant_block(&self, index: u64) {
        let mut state = self.lock();
        if let Some(count) = state.blocks.get_mut(&index) {
            *count -= 1;
            if *count == 0 {
                state.blocks.remove(&index);
            }
        }
    }

    /// Says that a supplier can be asked where a byte is.
    pub(crate) fn answer_seeks(&self, id: SupplierId) {
        self.lock().seeks.add_supplier(id);
    }

    /// Wants to know where byte `byte` is, which lies below tree node `below`, about at block `guess`.
    pub(crate) fn want_seek(&self, byte: u64, padding: u64, below: u64, guess: u64) -> SeekId {
        let mut state = self.lock();
        let id = SeekId(state.next_id);
        state.next_id += 1;
        state.seeks.insert(SeekClaim {
            id,
            byte,
            padding,
            below,
            guess,
        });
        state.wake_all();
        id
    }

    pub(crate) fn unwant_seek(&self, id: SeekId) {
        self.lock().seeks.remove(id);
    }

    pub(crate) fn claim_seek(&self, id: SupplierId) -> Option<SeekClaim> {
        let mut state = self.lock();
        let is_active = state.suppliers.get(&id).is_some_and(Supplier::is_active);
        is_active.then(|| state.seeks.claim(id)).flatten()
    }

    /// A supplier cannot tell where a byte is: the next to be asked is another.
    pub(crate) fn refuse_seek(&self, supplier: SupplierId, id: SeekId) {
        let mut state = self.lock();
        state.seeks.refuse(supplier, id);
        state.wake_others(supplier);
        drop(state);
        self.progress.notify(usize::MAX);
    }

    pub(crate) fn seek_answered(&self, id: SeekId) {
        self.lock().seeks.answer(id);
        self.progress.notify(usize::MAX);
    }

    pub(crate) fn seek_outlook(&self, id: SeekId) -> SeekOutlook {
        let state = self.lock();
        let is_active = |id: SupplierId| state.suppliers.get(&id).is_some_and(Supplier::is_active);
        state.seeks.outlook(id, is_active)
    }

    pub(crate) fn want_range(&self, range: Range<u64>) -> u64 {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let want = RangeWant {
            missing_from: range.start,
            range,
            cursors: HashMap::new(),
        };
        state.ranges.insert(id, want);
        state.wake_all();
        id
    }

    pub(crate) fn unwant_range(&self, id: u64) {
        self.lock().ranges.remove(&id);
    }

    /// The first block of range want `id` that is not here.
    pub(crate) fn missing_from(&self, id: u64, local: &Bitfield) -> Option<u64> {
        let mut state = self.lock();
        let want = state.ranges.get_mut(&id)?;
        want.missing_from = local.next_unset(want.missing_from);
        Some(want.missing_from)
    }

    /// Blocks have been committed: their claims are settled, and waiters look again.
    pub(crate) fn arrived(&self, blocks: impl Iterator<Item = u64>) {
        let mut state = self.lock();
        for index in blocks {
            state.claims.remove(&index);
            state.late.remove(&index);
        }
        drop(state);
        self.progress.notify(usize::MAX);
    }

    /// The log was cut to `length` blocks: what comes there anew is missing and may be claimed.
    pub(crate) fn truncated(&self, length: u64) {
        let mut state = self.lock();
        state.claims.retain(|index, _| *index < length);
        state.late.split_off(&length);
        state.seeks.answer_all(); // whoever asked has to look again
        for want in state.ranges.values_mut() {
            want.missing_from = want.missing_from.min(length.max(want.range.start));
        }
        state.offer(length);
    }

    /// The core has changed in a way its suppliers may want to tell or use.
    pub(crate) fn wake_suppliers(&self) {
        self.lock().wake_all();
        self.progress.notify(usize::MAX);
    }

    /// Something has changed that only those who wait care for.
    pub(crate) fn wake_readers(&self) {
        self.progress.notify(usize::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn claim_blocks(
        &mut self,
        id: SupplierId,
        local: &Bitfield,
        length: u64,
        remote: &dyn Availability,
        max: usize,
    ) -> Vec<Claim> {
        let claims = &mut self.claims;
        let open = self.blocks.range(..length).map(|(index, _)| *index);
        let open = open
            .filter(|index| !local.get(*index) && !claims.contains_key(index))
            .filter(|index| remote.next_available(*index..*index + 1).is_some())
            .take(max);
        let taken: Vec<_> = open
            .map(|index| Claim {
                index,
                urgent: true,
                contested: false,
            })
            .collect();
        for claim in &taken {
            claims.insert(claim.index, Claimants::new(id));
        }
        taken
    }

    /// Takes on blocks whose suppliers are late: those somebody waits for, or any.
    #[allow(
        clippy::too_many_arguments,
        reason = "a step of claiming, with what it knows"
    )]
    fn contest(
        &mut self,
        id: SupplierId,
        local: &Bitfield,
        length: u64,
        remote: &dyn Availability,
        max: usize,
        urgent: bool,
        taken: &mut Vec<Claim>,
    ) {
        let (claims, blocks) = (&mut self.claims, &self.blocks);
        let max = max.min(taken.len() + CONTESTED_MAX);
        self.late.retain(|index| {
            let index = *index;
            let is_free = |claim: &&mut Claimants| claim.first != id && claim.rival.is_none();
            let fits = (!urgent || blocks.contains_key(&index)) && index < length;
            let is_to_be_had = || remote.next_available(index..index + 1).is_some();
            if taken.len() >= max || !fits || local.get(index) || !is_to_be_had() {
                return true;
            }
            let Some(claim) = claims.get_mut(&index).filter(is_free) else {
                return true;
            };
            claim.rival = Some(id);
            taken.push(Claim {
                index,
                urgent: blocks.contains_key(&index),
                contested: true,
            });
            false
        });
    }

    fn claim_ranges(
        &mut self,
        id: SupplierId,
        local: &Bitfield,
        length: u64,
        remote: &dyn Availability,
        max: usize,
        taken: &mut Vec<Claim>,
    ) {
        for want in self.ranges.values_mut() {
            let end = want.range.end.min(length);
            want.missing_from = local.next_unset(want.missing_from);
            let cursor = want.cursors.entry(id).or_insert(want.missing_from);
            *cursor = (*cursor).max(want.missing_from);
            while taken.len() < max && *cursor < end {
                let Some(index) = remote.next_available(*cursor..end) else {
                    *cursor = end;
                    break;
                };
                let missing = local.next_unset(index);
                *cursor = missing.max(index);
                if missing > index {
                    continue;
                }
                *cursor = index + 1;
                if let Entry::Vacant(slot) = self.claims.entry(index) {
                    slot.insert(Claimants::new(id));
                    taken.push(Claim {
                        index,
                        urgent: false,
                        contested: false,
                    });
                }
            }
        }
    }

    /// How many suppliers may deliver something.
    fn active(&self) -> usize {
        self.suppliers.values().filter(|s| s.is_active()).count()
    }

    /// What `id` has claimed may be claimed again.
    fn free_claims(&mut self, id: SupplierId) {
        let claimed = self.claims.iter().filter(|(_, claim)| claim.include(id));
        let claimed: Vec<u64> = claimed.map(|(index, _)| *index).collect();
        for index in claimed {
            self.give_back(id, index);
        }
        for want in self.ranges.values_mut() {
            want.cursors.remove(&id);
        }
        self.seeks.free_claims(id);
    }

    /// Takes `id` out of a claim. If nobody is left, the block may be claimed again.
    fn give_back(&mut self, id: SupplierId, index: u64) {
        self.late.remove(&index);
        match self.claims.get(&index).and_then(|claim| claim.without(id)) {
            Some(left) => {
                self.claims.insert(index, left);
            }
            None => {
                self.claims.remove(&index);
                self.offer(index);
            }
        }
    }

    /// Block `index`, and those behind it, may be claimed again.
    fn offer(&mut self, index: u64) {
        for want in self.ranges.values_mut() {
            for cursor in want.cursors.values_mut() {
                *cursor = (*cursor).min(index);
            }
        }
    }

    fn wake_all(&self) {
        self.suppliers.values().for_each(|s| (s.wake)());
    }

    fn wake_others(&self, id: SupplierId) {
        let others = self.suppliers.iter().filter(|(other, _)| **other != id);
        others.for_each(|(_, supplier)| (supplier.wake)());
    }
}
