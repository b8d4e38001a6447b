//! What connections remember of what their peers say, in bytes: a budget for each, and one for all of a process.
//!
//! Knows sums. Does not know what is remembered.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::limits::{
    KEPT_BYTES_ALL_MAX, PEERS_MEMORY_MAX, UNANSWERED_OFFERS_BYTES, UNPROVEN_OFFERS_BYTES,
};

/// What connections share for what their peers say, and for offers that these do not answer, beyond the little that
/// each has for itself. Clones are the same budget.
#[derive(Clone)]
pub struct PeersMemory {
    shared: Arc<Shared>,
    offers: Arc<SharedForOffers>,
}

/// Whoever has proven nothing takes nothing from those who have.
struct SharedForOffers {
    strangers: Arc<Shared>,
    proven: Arc<Shared>,
}

struct Shared {
    max: i64,
    /// Below zero by what was heard before it could be told to be too much.
    free: AtomicI64,
    /// How often somebody found too little.
    refusals: AtomicU64,
}

impl PeersMemory {
    /// That of this process, of [`PEERS_MEMORY_MAX`]. Every session uses it that is not given another.
    pub fn process() -> Self {
        static PROCESS: OnceLock<PeersMemory> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(PEERS_MEMORY_MAX)).clone()
    }

    /// That of this process for answers that wait, of [`KEPT_BYTES_ALL_MAX`]; likewise.
    pub fn process_answers() -> Self {
        static PROCESS: OnceLock<PeersMemory> = OnceLock::new();
        PROCESS
            .get_or_init(|| Self::new(KEPT_BYTES_ALL_MAX))
            .clone()
    }

    /// One of its own, of `bytes` for what peers say.
    pub fn new(bytes: usize) -> Self {
        let offers = SharedForOffers {
            strangers: Shared::new(UNPROVEN_OFFERS_BYTES),
            proven: Shared::new(UNANSWERED_OFFERS_BYTES),
        };
        Self {
            shared: Shared::new(bytes),
            offers: Arc::new(offers),
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        let SharedForOffers { strangers, proven } = &*self.offers;
        self.shared.held() + strangers.held() + proven.held()
    }

    /// What of it is for offers: to peers that have shown a core's key, or to others.
    pub(crate) fn for_offers(&self, is_proven: bool) -> Self {
        let shared = match is_proven {
            true => &self.offers.proven,
            false => &self.offers.strangers,
        };
        Self {
            shared: Arc::clone(shared),
            offers: Arc::clone(&self.offers),
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_used_up(&self) -> bool {
        self.free() == 0
    }

    /// Bytes that are left.
    fn free(&self) -> usize {
        usize::try_from(self.shared.free.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// False, and nothing is taken, if `bytes` are not there, or less than `left` would be behind them.
    fn take(&self, bytes: usize, left: usize) -> bool {
        let take = |free: i64| Some(free - signed(bytes)).filter(|rest| *rest >= signed(left));
        let free = &self.shared.free;
        let is_taken = bytes == 0
            || free
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
                .is_ok();
        if !is_taken {
            self.shared.refusals.fetch_add(1, Ordering::AcqRel);
        }
        is_taken
    }

    fn overdraw(&self, bytes: usize) {
        self.shared.free.fetch_sub(signed(bytes), Ordering::AcqRel);
    }

    fn give_back(&self, bytes: usize) {
        self.shared.free.fetch_add(signed(bytes), Ordering::AcqRel);
    }
}

impl Shared {
    fn new(bytes: usize) -> Arc<Self> {
        let max = signed(bytes);
        let free = AtomicI64::new(max);
        let refusals = AtomicU64::new(0);
        Arc::new(Self {
            max,
            free,
            refusals,
        })
    }

    fn held(&self) -> usize {
        let held = self.max - self.free.load(Ordering::Acquire);
        usize::try_from(held).unwrap_or(0)
    }
}

impl fmt::Debug for PeersMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersMemory")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

/// No sum of lengths in memory comes near the end of either.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 2)
}

/// The budget of one connection for one kind of thing. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    /// What it has for itself.
    own: usize,
    /// What it may have, with what it takes of the others'.
    max: usize,
    /// It takes no more of theirs than so many times what it leaves to them; whatever there is without.
    times_left: Option<NonZeroUsize>,
    used: Mutex<usize>,
    /// How often it found too little of theirs.
    refusals: AtomicU64,
    peers: PeersMemory,
}

impl Memory {
    /// One of at most `max` bytes, of which all but `own` are taken from those of `peers`.
    pub(crate) fn new(own: usize, max: usize, peers: &PeersMemory) -> Self {
        Self::leaving(None, own, max, peers)
    }

    /// The same, but of theirs it takes no more than so many times what it leaves to them: there is always some for one
    /// more, however much others would take.
    pub(crate) fn leaving(
        times_left: Option<NonZeroUsize>,
        own: usize,
        max: usize,
        peers: &PeersMemory,
    ) -> Self {
        let budget = Budget {
            own,
            max,
            times_left,
            used: Mutex::new(0),
            refusals: AtomicU64::new(0),
            peers: peers.clone(),
        };
        Self {
            budget: Arc::new(budget),
        }
    }

    /// Nothing is held of it yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes that all shares hold.
    pub(crate) fn used(&self) -> usize {
        *self.budget.used()
    }

    /// How often others found too little of what is shared.
    pub(crate) fn refused_to_others(&self) -> u64 {
        let Budget {
            refusals, peers, ..
        } = &*self.budget;
        let own = refusals.load(Ordering::Acquire);
        peers
            .shared
            .refusals
            .load(Ordering::Acquire)
            .saturating_sub(own)
    }

    /// Bytes that could be taken now.
    pub(crate) fn free(&self) -> usize {
        let Budget { own, max, .. } = *self.budget;
        let used = self.used();
        let with_others = own.saturating_sub(used) + self.budget.free_of_others(used);
        max.saturating_sub(used).min(with_others)
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let mut used = self.used();
        let Some(more) = used.checked_add(bytes).filter(|more| *more <= self.max) else {
            return false;
        };
        let charge = self.charge(more);
        let left = self
            .times_left
            .map_or(0, |times| charge.div_ceil(times.get()));
        let is_taken = self.peers.take(charge - self.charge(*used), left);
        if !is_taken {
            self.refusals.fetch_add(1, Ordering::AcqRel);
        }
        *used = if is_taken { more } else { *used };
        is_taken
    }

    fn overdraw(&self, bytes: usize) {
        let mut used = self.used();
        let more = used.saturating_add(bytes);
        self.peers.overdraw(self.charge(more) - self.charge(*used));
        *used = more;
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.used();
        let less = used.saturating_sub(bytes);
        self.peers.give_back(self.charge(*used) - self.charge(less));
        *used = less;
    }

    /// What is taken of the others' memory by whoever uses so much.
    fn charge(&self, used: usize) -> usize {
        used.saturating_sub(self.own)
    }

    /// What whoever uses so much may still take of the others' memory.
    fn free_of_others(&self, used: usize) -> usize {
        let free = self.peers.free();
        let Some(times) = self.times_left.map(NonZeroUsize::get) else {
            return free;
        };
        times.saturating_mul(free).saturating_sub(self.charge(used)) / (times + 1)
    }

    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one holder has taken. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    bytes: usize,
}

impl Share {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it is a share of.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes `bytes` more; false, and nothing is taken, if they are not there.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let is_taken = self.memory.budget.take(bytes);
        self.bytes += if is_taken { bytes } else { 0 };
        is_taken
    }

    /// Holds `bytes`, whether they are there or not.
    pub(crate) fn hold(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => {
                self.memory.budget.overdraw(more);
                self.bytes = bytes;
            }
            None => self.give_back(self.bytes - bytes),
        }
    }

    /// Gives `bytes` back.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.memory.budget.give_back(bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_one_budget_and_give_it_back() {
        let memory = Memory::new(0, 10, &PeersMemory::new(100));
        let (mut one, mut other) = (memory.share(), memory.share());
        assert!(one.take(6) && !other.take(5) && other.take(4));
        assert_eq!(memory.free(), 0);
        one.give_back(1);
        assert!(other.take(1) && !other.take(1));
        drop(one);
        assert!(other.take(5) && !other.take(1));
    }

    /// Goal: whoever takes what it can leaves room to one more, and so do all who come after it.
    #[test]
    fn who_leaves_some_leaves_it_to_each_that_comes() {
        let peers = PeersMemory::new(3200);
        let times = NonZeroUsize::new(3);
        let memories = [(); 4].map(|()| Memory::leaving(times, 10, 5000, &peers));
        let mut shares = memories.each_ref().map(Memory::share);
        for (share, takes) in shares.iter_mut().zip([2400, 600, 150, 37]) {
            assert_eq!(share.memory().free(), 10 + takes);
            assert!(!share.take(10 + takes + 1) && share.take(10 + takes));
            assert_eq!(share.memory().free(), 0);
            assert!(!share.take(1));
        }
        let [first, second, ..] = &mut shares;
        first.give_back(1200);
        assert!(first.memory().free() < 1200, "others came");
        assert_eq!(second.memory().free(), (3 * (13 + 1200) - 600) / 4);
        second.hold(3000);
        assert_eq!((first.memory().free(), second.memory().free()), (0, 0));
        drop(shares);
        assert_eq!(peers.held(), 0);
    }

    #[test]
    fn connections_share_all_but_their_own() {
        let peers = PeersMemory::new(10);
        let (one, other) = (Memory::new(4, 100, &peers), Memory::new(4, 100, &peers));
        let (mut one, mut other) = (one.share(), other.share());
        assert_eq!(other.memory().free(), 14);
        assert!(one.take(4) && one.take(9) && !one.take(2));
        assert_eq!(peers.held(), 9);
        assert_eq!((one.memory().free(), other.memory().free()), (1, 5));
        assert!(other.take(5) && !other.take(1), "four of its own and one");
        let refused = |share: &Share| share.memory().refused_to_others();
        assert_eq!((refused(&one), refused(&other)), (1, 1));
        assert!(peers.is_used_up());
        other.hold(7);
        assert_eq!(peers.held(), 12, "what is heard is held");
        other.hold(2);
        assert_eq!(peers.held(), 9);
        one.give_back(10);
        assert_eq!(peers.held(), 0);
        drop((one, other));
        assert_eq!(peers.held(), 0);
    }
}
