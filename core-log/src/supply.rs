//! Wants and claims: what a core lacks, and who is getting it.
//!
//! A reader puts *wants* in (a block, a range, a newer length). A *supplier* (a replication
//! channel, a static store) attaches, claims blocks that it can deliver, and hands in proofs
//! through [`Core::accept`](crate::Core::accept); what it cannot deliver it releases. Knows who
//! wants and claims what. Does not know networks, proofs or storage.

mod blocks;
mod claims;
mod failures;
mod outlook;
mod ranges;
mod seeks;
mod supplier;
#[cfg(test)]
mod tests;
mod updates;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event as Signal, EventListener};
use ferrocore_primitives::time::Time;

use self::blocks::BlockWants;
use self::claims::{Ask, Claimants};
use self::failures::Failures;
use self::ranges::RangeWants;
use self::seeks::SeekWants;
use self::supplier::{Standing, Supplier};
pub(crate) use self::updates::UpdateId;
use self::updates::Updates;
use crate::bitfield::Bitfield;
use crate::few::Few;

pub use self::claims::{Claim, Claims};
pub use self::outlook::Outlook;
pub use self::ranges::Purpose;
pub(crate) use self::ranges::RangeId;
pub(crate) use self::seeks::SeekOutlook;
pub use self::seeks::{SeekClaim, SeekId};
pub use self::supplier::{All, Availability, SharedAvailability, Tardiness};

/// Wakes a supplier: there is something new to claim or to announce. Must not block and must
/// not call back into the core.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Names a supplier of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SupplierId(u64);

/// The wants and suppliers of one core.
#[derive(Default)]
pub(crate) struct SupplyHub {
    state: Mutex<State>,
    /// Fires when blocks arrive, suppliers come, go or settle.
    progress: Signal,
}

#[derive(Default)]
struct State {
    suppliers: Few<SupplierId, Supplier>,
    next_id: u64,
    /// How many are looking for suppliers just now.
    finders: usize,
    /// Who waits for a newer length.
    updates: Updates,
    blocks: BlockWants,
    ranges: RangeWants,
    /// Who is getting which block.
    claims: HashMap<u64, Claimants>,
    /// The claims whose suppliers are all late, and not as many yet as there may be. All suppliers look here.
    late: BTreeSet<u64>,
    /// The claims of blocks that were wanted by nobody when somebody looked last.
    abandoned: BTreeSet<u64>,
    /// Who was waited for in vain.
    failures: Failures,
    seeks: SeekWants,
}

/// What the hub answers about a newer length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Some supplier that is waited for has not spoken yet, or has more than we do.
    Pending,
    /// All of those have spoken, and none has more.
    Done,
    /// There is always one more that has not, and it has been too long.
    Overdue,
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
            tardiness: Tardiness::None,
            heeds_blocks: true,
            outlook: None,
            has: None,
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
        state.failures.forget(id);
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

    /// What others may know of what a supplier has.
    pub(crate) fn share(&self, id: SupplierId, has: SharedAvailability) {
        if let Some(supplier) = self.lock().suppliers.get_mut(&id) {
            supplier.has = Some(has);
        }
    }

    /// Whether a supplier is woken for blocks that have come while others are missing.
    pub(crate) fn heed_blocks(&self, id: SupplierId, heeds: bool) {
        if let Some(supplier) = self.lock().suppliers.get_mut(&id) {
            supplier.heeds_blocks = heeds;
        }
    }

    /// How soon a supplier will answer; unknown without one.
    pub(crate) fn expect(&self, id: SupplierId, outlook: Option<Outlook>) {
        if let Some(supplier) = self.lock().suppliers.get_mut(&id) {
            supplier.outlook = outlook;
        }
    }

    /// Whether some supplier has all of a range.
    pub(crate) fn some_has_all(&self, range: &Range<u64>) -> bool {
        let state = self.lock();
        let mut active = state.suppliers.values().filter(|s| s.is_active());
        active.any(|s| s.has.as_ref().is_some_and(|has| has.has_all(range.clone())))
    }

    pub(crate) fn claim(
        &self,
        id: SupplierId,
        local: &Bitfield,
        length: u64,
        remote: &dyn Availability,
        max: usize,
        is_patient: bool,
    ) -> Claims {
        let ask = Ask {
            id,
            local,
            length,
            remote,
        };
        let mut state = self.lock();
        let mut claims = Claims::default();
        if !state.suppliers.get(&id).is_some_and(Supplier::is_active) {
            return claims;
        }
        state.claim_blocks(&ask, max, is_patient, &mut claims);
        let taken = &mut claims.taken;
        state.contest(&ask, max, true, taken);
        state.claim_ranges(&ask, max, taken);
        state.contest(&ask, max, false, taken);
        claims
    }

    /// A claim that takes long: one more supplier may try, too.
    pub(crate) fn late(&self, id: SupplierId, index: u64) {
        let mut state = self.lock();
        if state.note_late(id, index) {
            state.wake_others(id);
        }
    }

    /// A claim that takes so long that it keeps nobody from trying, however many others are late.
    pub(crate) fn discount(&self, id: SupplierId, index: u64) {
        let mut state = self.lock();
        if state.discount(id, index) {
            state.wake_others(id);
        }
    }

    pub(crate) fn release(&self, id: SupplierId, index: u64) {
        let mut state = self.lock();
        if state.is_getting(id, index) {
            state.give_back(id, index);
            // The one who could not deliver is not asked at once again.
            state.wake_others(id);
        }
    }

    /// A claim was waited for in vain. The supplier may make it again, for others may do no better, or there may be none; but it
    /// makes it at once itself, before others have heard of it, and so would keep them from the block.
    pub(crate) fn fail(&self, id: SupplierId, index: u64) {
        let mut state = self.lock();
        if state.is_getting(id, index) {
            state.failures.note(id, index);
            state.give_back(id, index);
            state.wake_others(id);
        }
    }

    pub(crate) fn available(&self, id: SupplierId, from: u64) {
        let mut state = self.lock();
        state.ranges.reconsider(id, from);
        state.blocks.reconsider(id, from);
    }

    pub(crate) fn settle(&self, id: SupplierId, remote_length: u64) {
        self.set_standing(id, Standing::Reaches(remote_length));
    }

    /// How long a supplier has owed what it is waited for. Whatever else it says does not change that.
    pub(crate) fn set_tardiness(&self, id: SupplierId, tardiness: Tardiness) {
        let mut state = self.lock();
        if let Some(supplier) = state.suppliers.get_mut(&id) {
            supplier.tardiness = tardiness;
        }
        drop(state);
        self.progress.notify(usize::MAX);
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

    /// Whether somebody who waits, if it is not one who has just begun to, may go on with `length`.
    pub(crate) fn settled(&self, length: u64, update: Option<UpdateId>) -> Settled {
        let state = self.lock();
        let total = update.map_or(Tardiness::None, |id| state.updates.tardiness(id));
        let counted_on = || state.suppliers.values().filter(|s| s.is_counted_on());
        let unheard = counted_on().next().is_none() && state.finders > 0;
        // Who knows nothing of a log yet is no reason to do without one.
        let is_shown = length > 0 && counted_on().any(|s| !s.owes(length));
        let is_waited_for = |s: &Supplier| !is_shown || s.tardiness == Tardiness::None;
        let is_owed = unheard || counted_on().any(|s| s.owes(length) && is_waited_for(s));
        match total {
            _ if !is_owed => Settled::Done,
            Tardiness::Hopeless => Settled::Overdue,
            Tardiness::Late if is_shown => Settled::Overdue,
            _ => Settled::Pending,
        }
    }

    /// Whether no supplier that is waited for, and nobody who looks for one, may show a log.
    pub(crate) fn is_without_log(&self) -> bool {
        let state = self.lock();
        let mut suppliers = state.suppliers.values();
        state.finders == 0 && !suppliers.any(Supplier::is_counted_on)
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

    /// Somebody waits for a newer length until [`remove_update`](Self::remove_update).
    pub(crate) fn add_update(&self) -> UpdateId {
        let mut state = self.lock();
        let id = state.updates.add();
        state.wake_all();
        id
    }

    /// Nor does any supplier look at the time for it any more.
    pub(crate) fn remove_update(&self, id: UpdateId) {
        let mut state = self.lock();
        state.updates.remove(id);
        state.wake_all();
    }

    pub(crate) fn is_updating(&self) -> bool {
        !self.lock().updates.is_empty()
    }

    /// Notes what time it is, and tells when to do so again for those who wait for a newer length.
    pub(crate) fn look_at_updates(&self, now: Time) -> Option<Time> {
        let (is_news, next) = self.lock().updates.look(now);
        if is_news {
            self.progress.notify(usize::MAX);
        }
        next
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
        state.blocks.add(index);
        state.sort_late(index);
        state.wake_all();
    }

    pub(crate) fn unwant_block(&self, index: u64) {
        let mut state = self.lock();
        state.blocks.remove(index);
        state.sort_late(index);
        state.abandon(index..index + 1);
    }

    /// The blocks, in order, that a supplier is getting and that nobody wants any more.
    pub(crate) fn unwanted(&self, id: SupplierId) -> Vec<u64> {
        self.lock().unwanted(id)
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

    /// A supplier finds out whether it can tell where a byte is: meanwhile others may.
    pub(crate) fn postpone_seek(&self, supplier: SupplierId, id: SeekId) {
        let mut state = self.lock();
        state.seeks.postpone(supplier, id);
        state.wake_others(supplier);
    }

    pub(crate) fn reconsider_seek(&self, supplier: SupplierId, id: SeekId) {
        self.lock().seeks.reconsider(supplier, id);
    }

    pub(crate) fn is_sought(&self, id: SeekId) -> bool {
        self.lock().seeks.is_open(id)
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

    pub(crate) fn want_range(&self, range: Range<u64>, purpose: Purpose) -> RangeId {
        let mut state = self.lock();
        let number = state.next_id;
        state.next_id += 1;
        let id = state.ranges.insert(number, range, purpose);
        state.wake_all();
        id
    }

    pub(crate) fn unwant_range(&self, id: RangeId) {
        let mut state = self.lock();
        if let Some(range) = state.ranges.remove(id) {
            state.abandon(range);
        }
    }

    /// Asks for nothing more of a range, or for what is missing again.
    pub(crate) fn set_paused(&self, id: RangeId, is_paused: bool) {
        let mut state = self.lock();
        if state.ranges.set_paused(id, is_paused) && !is_paused {
            state.wake_all();
        }
    }

    pub(crate) fn is_paused(&self, id: RangeId) -> bool {
        self.lock().ranges.is_paused(id)
    }

    /// The first block of range want `id` that is not here.
    pub(crate) fn missing_from(&self, id: RangeId, local: &Bitfield) -> Option<u64> {
        self.lock().ranges.missing_from(id, local)
    }

    /// Blocks have been committed: their claims are settled, and waiters look again.
    pub(crate) fn arrived(&self, blocks: impl Iterator<Item = u64>) {
        let mut state = self.lock();
        for index in blocks {
            state.claims.remove(&index);
            state.late.remove(&index);
            state.abandoned.remove(&index);
            state.failures.settle(index);
        }
        drop(state);
        self.progress.notify(usize::MAX);
    }

    /// The log was cut to `length` blocks: what comes there anew is missing and may be claimed.
    pub(crate) fn truncated(&self, length: u64) {
        let mut state = self.lock();
        state.claims.retain(|index, _| *index < length);
        state.late.split_off(&length);
        state.abandoned.split_off(&length);
        state.failures.truncate(length);
        state.seeks.answer_all(); // whoever asked has to look again
        state.ranges.truncated(length);
    }

    /// The core has changed in a way its suppliers may want to tell or use.
    pub(crate) fn wake_suppliers(&self) {
        self.lock().wake_all();
        self.progress.notify(usize::MAX);
    }

    /// Blocks have come, and others are missing.
    pub(crate) fn wake_for_blocks(&self) {
        let state = self.lock();
        let heeding = state.suppliers.values().filter(|s| s.heeds_blocks);
        heeding.for_each(|supplier| (supplier.wake)());
    }

    /// How many blocks suppliers are getting; how many of them one more may try, and how many nobody wanted; how many failures are
    /// known.
    pub(crate) fn claimed(&self) -> [usize; 4] {
        self.lock().claimed()
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
    /// How many suppliers may deliver something.
    fn active(&self) -> usize {
        self.suppliers.values().filter(|s| s.is_active()).count()
    }

    fn wake_all(&self) {
        self.suppliers.values().for_each(|s| (s.wake)());
    }

    fn wake(&self, id: SupplierId) {
        if let Some(supplier) = self.suppliers.get(&id) {
            (supplier.wake)();
        }
    }

    fn wake_others(&self, id: SupplierId) {
        let others = self.suppliers.iter().filter(|(other, _)| **other != id);
        others.for_each(|(_, supplier)| (supplier.wake)());
    }
}
