//! Wants and claims: what a core lacks, and who is getting it.
//!
//! A reader puts *wants* in (a block, a range, a newer length). A *supplier* (a replication
//! channel, a static store) attaches, claims blocks that it can deliver, and hands in proofs
//! through [`Core::accept`](crate::Core::accept); what it cannot deliver it releases. Knows who
//! wants and claims what. Does not know networks, proofs or storage.

mod blocks;
mod ranges;
mod seeks;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::{Event as Signal, EventListener};

use self::blocks::BlockWants;
use self::ranges::{Others, RangeWants};
use self::seeks::SeekWants;
use crate::bitfield::Bitfield;
use crate::few::Few;

pub use self::ranges::Purpose;
pub(crate) use self::ranges::RangeId;
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

    /// Whether it can deliver all of `range`.
    fn has_all(&self, mut range: Range<u64>) -> bool {
        range.all(|index| self.next_available(index..index + 1).is_some())
    }
}

/// What a supplier has, for others to look at.
pub type SharedAvailability = Arc<dyn Availability + Send + Sync>;

/// Everything can be delivered: a contiguous peer, a complete static store.
#[derive(Debug, Clone, Copy)]
pub struct All;

impl Availability for All {
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        (!range.is_empty()).then_some(range.start)
    }

    fn has_all(&self, _: Range<u64>) -> bool {
        true
    }
}

/// How soon a supplier will answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When the answer to one more request would be here, from now on.
    pub answer_in: Duration,
    /// How many more requests it is fit to be sent.
    pub room: usize,
}

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
struct Ask<'a> {
    id: SupplierId,
    local: &'a Bitfield,
    length: u64,
    remote: &'a dyn Availability,
}

impl Ask<'_> {
    fn can_have(&self, index: u64) -> bool {
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
    suppliers: Few<SupplierId, Supplier>,
    next_id: u64,
    /// How many are looking for suppliers just now.
    finders: usize,
    blocks: BlockWants,
    ranges: RangeWants,
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
    outlook: Option<Outlook>,
    has: Option<SharedAvailability>,
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
        let mut state = self.lock();
        state.ranges.reconsider(id, from);
        state.blocks.reconsider(id, from);
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
        state.blocks.add(index);
        state.wake_all();
    }

    pub(crate) fn unwant_block(&self, index: u64) {
        self.lock().blocks.remove(index);
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

    pub(crate) fn want_range(&self, range: Range<u64>, purpose: Purpose) -> RangeId {
        let mut state = self.lock();
        let number = state.next_id;
        state.next_id += 1;
        let id = state.ranges.insert(number, range, purpose);
        state.wake_all();
        id
    }

    pub(crate) fn unwant_range(&self, id: RangeId) {
        self.lock().ranges.remove(id);
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
        state.ranges.truncated(length);
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
    /// Takes on blocks that somebody waits for, but for those that a patient one leaves to a faster one.
    fn claim_blocks(&mut self, ask: &Ask<'_>, max: usize, is_patient: bool, claims: &mut Claims) {
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
            self.claims.insert(index, Claimants::new(ask.id));
            claims.taken.push(Claim {
                index,
                urgent: true,
                contested: false,
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

    /// Suppliers that will answer in less than half the time, the fastest first, with the time that is
    /// gained and how many requests they are fit for. Whoever is not known yet lets all go first that are.
    fn faster_than(&self, id: SupplierId) -> Vec<Rival> {
        let own = self.suppliers.get(&id).and_then(|s| s.outlook);
        let gain = |other: Outlook| match own {
            None => Some(other.answer_in),
            Some(own) if 2 * other.answer_in < own.answer_in => {
                Some(own.answer_in - other.answer_in)
            }
            Some(_) => None,
        };
        let others = self.suppliers.iter();
        let others = others.filter(|(other, s)| **other != id && s.is_active());
        let mut faster: Vec<(Duration, Rival)> = others
            .filter_map(|(other, s)| {
                let outlook = s.outlook?;
                Some((outlook.answer_in, (*other, gain(outlook)?, outlook.room)))
            })
            .collect();
        faster.sort_unstable_by_key(|(answer_in, _)| *answer_in);
        faster.into_iter().map(|(_, rival)| rival).collect()
    }

    /// Takes on blocks whose suppliers are late: those somebody waits for, or any.
    fn contest(&mut self, ask: &Ask<'_>, max: usize, urgent: bool, taken: &mut Vec<Claim>) {
        let (claims, blocks) = (&mut self.claims, &self.blocks);
        let max = max.min(taken.len() + CONTESTED_MAX);
        self.late.retain(|index| {
            let index = *index;
            let is_free = |claim: &&mut Claimants| claim.first != ask.id && claim.rival.is_none();
            let fits = (!urgent || blocks.contains(index)) && index < ask.length;
            if taken.len() >= max || !fits || ask.local.get(index) || !ask.can_have(index) {
                return true;
            }
            let Some(claim) = claims.get_mut(&index).filter(is_free) else {
                return true;
            };
            claim.rival = Some(ask.id);
            taken.push(Claim {
                index,
                urgent: blocks.contains(index),
                contested: true,
            });
            false
        });
    }

    fn claim_ranges(&mut self, ask: &Ask<'_>, max: usize, taken: &mut Vec<Claim>) {
        let others = OtherSuppliers {
            suppliers: &self.suppliers,
            id: ask.id,
        };
        let room = max.saturating_sub(taken.len());
        let claims = &mut self.claims;
        self.ranges.claim(ask, room, &others, |index| {
            let Entry::Vacant(slot) = claims.entry(index) else {
                return false;
            };
            slot.insert(Claimants::new(ask.id));
            taken.push(Claim {
                index,
                urgent: false,
                contested: false,
            });
            true
        });
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
        self.ranges.forget(id);
        self.blocks.reconsider(id, 0);
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
                self.ranges.offer(index);
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

/// A faster supplier, the time gained by it, and how many requests it is fit for.
type Rival = (SupplierId, Duration, usize);

/// All suppliers but one that may deliver something and have said what.
struct OtherSuppliers<'a> {
    suppliers: &'a Few<SupplierId, Supplier>,
    id: SupplierId,
}

impl OtherSuppliers<'_> {
    fn iter(&self) -> impl Iterator<Item = &SharedAvailability> {
        let others = self
            .suppliers
            .iter()
            .filter(|(id, s)| **id != self.id && s.is_active());
        others.filter_map(|(_, supplier)| supplier.has.as_ref())
    }
}

impl Others for OtherSuppliers<'_> {
    fn copies(&self, index: u64) -> usize {
        self.iter()
            .filter(|has| has.has_all(index..index + 1))
            .count()
    }

    fn all_have(&self, range: Range<u64>) -> bool {
        self.iter().all(|has| has.has_all(range.clone()))
    }
}
