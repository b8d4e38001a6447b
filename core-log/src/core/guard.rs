//! Keeping a writer from making a second history of its own log.
//!
//! Whoever holds a secret key but not all that was signed with it would sign other blocks at places that
//! are taken. Two things stop it: the *guard* on a core whose secret was brought back or imported, until
//! somebody shows how long the log is; and every *claim* of a supplier to have a longer log, guarded or
//! not, until the log is here or the claim turns out to be wrong.
//!
//! Knows what suppliers say of their heads, and when that is believed. Does not know where the guard is
//! kept (the store passes a [`Release`]) nor how heads travel.

use std::sync::{Arc, Mutex};

use super::{Core, CoreError, Inner};
use crate::few::Few;
use crate::storage::{StorageError, lock};
use crate::supply::SupplierId;

/// Claims that came to nothing, in sequence, before those of further suppliers stop nobody any more: or peers
/// that lie could keep a writer from its own log for ever. A longer log that is proven begins the
/// count anew, and suppliers that left before they could prove anything are not counted.
pub const BROKEN_CLAIMS_MAX: u32 = 3;

/// Forgets, for good, that a core is guarded.
pub(crate) type Release = Arc<dyn Fn() -> Result<(), StorageError> + Send + Sync>;

/// What a supplier says of its log. A higher fork is newer, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteHead {
    /// Which history it is at.
    pub fork: u64,
    /// Blocks in the log.
    pub length: u64,
}

/// The state of one core.
#[derive(Default)]
pub(super) struct WriteGuard {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// While the core is guarded: how it is let go.
    release: Option<Release>,
    claims: Few<SupplierId, Claim>,
    broken: u32,
}

/// What is known of one supplier's head.
#[derive(Debug, Clone, Copy)]
struct Claim {
    head: RemoteHead,
    /// It had something before it could have it from us.
    is_witness: bool,
    /// It has claimed more than it could prove.
    is_broken: bool,
}

/// Whether the core may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Free,
    Unconfirmed,
    Behind(RemoteHead),
}

impl Core {
    /// Whether the core's secret was brought back or imported, and nobody has shown since how long the
    /// log is. Nothing can be appended until then, or until the guard is [lifted](Self::lift_guard).
    pub fn is_guarded(&self) -> bool {
        lock(&self.inner.guard.state).release.is_some()
    }

    /// Lets the core be written although nobody has shown how long it is.
    ///
    /// If there is more of it elsewhere, what is appended here becomes a second history, and readers of
    /// one will refuse the other.
    ///
    /// # Errors
    /// [`CoreError::Storage`] if it cannot be remembered; the guard stays then.
    pub fn lift_guard(&self) -> Result<(), CoreError> {
        let release = lock(&self.inner.guard.state).release.clone();
        let Some(release) = release else {
            return Ok(());
        };
        release()?;
        lock(&self.inner.guard.state).release = None;
        self.inner.supply.wake_suppliers();
        Ok(())
    }

    /// Waits until the core may be written: until one supplier has shown how long the log is, if that is
    /// not known, and until what any claims to have beyond ours is here. Ready at once for a core without
    /// a guard that nobody has more of.
    ///
    /// # Errors
    /// [`CoreError::Unconfirmed`] or [`CoreError::Behind`] if there is nobody who could help. How long to
    /// wait for a slow peer is the caller's to say.
    pub async fn confirmed(&self) -> Result<(), CoreError> {
        let inner = &*self.inner;
        loop {
            let progress = inner.supply.listen();
            match inner.check_guard() {
                Ok(()) => return Ok(()),
                Err(error) if inner.supply.is_hopeless() => return Err(error),
                Err(_) => progress.await,
            }
        }
    }

    /// Guards the core until `release` is called.
    pub(crate) fn guard(&self, release: Release) {
        lock(&self.inner.guard.state).release = Some(release);
    }
}

impl Inner {
    /// Whether the log may be made longer or cut.
    pub(super) fn check_guard(&self) -> Result<(), CoreError> {
        let verdict = lock(&self.guard.state).verdict(self.head());
        match verdict {
            Verdict::Free => Ok(()),
            Verdict::Unconfirmed => Err(CoreError::Unconfirmed { core: self.key }),
            Verdict::Behind(RemoteHead { fork, length }) => Err(CoreError::Behind {
                core: self.key,
                fork,
                length,
            }),
        }
    }

    /// A supplier says what it has.
    pub(super) fn hear(&self, id: SupplierId, head: RemoteHead) {
        let ours = self.head();
        lock(&self.guard.state).hear(id, head, ours);
        if self.end_guard() {
            self.supply.wake_suppliers();
        }
    }

    /// A supplier cannot prove what it said.
    pub(super) fn doubt(&self, id: SupplierId) {
        let ours = self.head();
        lock(&self.guard.state).doubt(id, ours);
        self.supply.wake_readers();
    }

    /// A supplier has gone. That is no lie: lines break, and whoever knows more is likely to come back.
    pub(super) fn forget(&self, id: SupplierId) {
        lock(&self.guard.state).claims.remove(&id);
        self.supply.wake_readers();
    }

    /// Our head has just been brought by a proof: not all suppliers lie.
    pub(super) fn head_proven(&self) {
        lock(&self.guard.state).broken = 0;
    }

    /// Lets go of a guarded core if the log is as long as some supplier has shown; returns whether.
    pub(super) fn end_guard(&self) -> bool {
        let ours = self.head();
        let release = lock(&self.guard.state).confirmed(ours);
        let Some(release) = release else {
            return false;
        };
        if let Err(error) = release() {
            // It is guarded again when it is opened next, which does no harm.
            tracing::warn!(core = %self.key, %error, "cannot remember that a core is confirmed");
        }
        true
    }

    fn head(&self) -> RemoteHead {
        let shared = self.read();
        RemoteHead {
            fork: shared.fork,
            length: shared.roots.length(),
        }
    }
}

impl State {
    fn verdict(&self, ours: RemoteHead) -> Verdict {
        let longer = self.claims.values().filter(|claim| claim.is_open(ours));
        match longer.map(|claim| claim.head).max() {
            Some(head) if self.broken < BROKEN_CLAIMS_MAX => Verdict::Behind(head),
            _ if self.release.is_some() => Verdict::Unconfirmed,
            _ => Verdict::Free,
        }
    }

    fn hear(&mut self, id: SupplierId, head: RemoteHead, ours: RemoteHead) {
        let claim = self.claims.get_or_insert_with(id, || Claim {
            head,
            // A supplier that begins with nothing may have from us all that it has later.
            is_witness: head.length > 0,
            is_broken: false,
        });
        let takes_back = claim.head > ours && head <= ours;
        claim.is_witness = !takes_back && (claim.is_witness || head > ours);
        claim.head = head;
    }

    fn doubt(&mut self, id: SupplierId, ours: RemoteHead) {
        if let Some(claim) = self.claims.get_mut(&id)
            && claim.is_open(ours)
        {
            claim.is_broken = true;
            self.broken = self.broken.saturating_add(1);
        }
    }

    /// Ends the guard if a witness's log is all here.
    fn confirmed(&mut self, ours: RemoteHead) -> Option<Release> {
        let is_shown = |claim: &Claim| {
            let is_same_history = claim.head.fork == ours.fork;
            claim.is_witness && is_same_history && (1..=ours.length).contains(&claim.head.length)
        };
        let is_free = !self.claims.values().any(|claim| claim.is_open(ours));
        let is_confirmed = is_free && self.claims.values().any(is_shown);
        self.release.take_if(|_| is_confirmed)
    }
}

impl Claim {
    /// Whether it says that there is more than ours, and nothing speaks against it.
    fn is_open(&self, ours: RemoteHead) -> bool {
        self.head > ours && !self.is_broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Corestore;
    use crate::proof::{ProofRequest, UpgradeRequest};
    use crate::supply::SupplyHub;

    const OURS: RemoteHead = head(1, 10);

    const fn head(fork: u64, length: u64) -> RemoteHead {
        RemoteHead { fork, length }
    }

    fn suppliers<const N: usize>() -> [SupplierId; N] {
        let hub = SupplyHub::default();
        std::array::from_fn(|_| hub.attach(Arc::new(|| {})))
    }

    fn guarded() -> State {
        State {
            release: Some(Arc::new(|| Ok(()))),
            ..State::default()
        }
    }

    #[test]
    fn a_longer_log_or_a_newer_history_stops_a_writer_until_it_is_here() {
        for longer in [head(1, 11), head(2, 1)] {
            let [id] = suppliers();
            let mut state = State::default();
            state.hear(id, OURS, OURS);
            assert_eq!(state.verdict(OURS), Verdict::Free);
            state.hear(id, longer, OURS);
            assert_eq!(state.verdict(OURS), Verdict::Behind(longer));
            assert_eq!(state.verdict(longer), Verdict::Free);
        }
    }

    #[test]
    fn claims_that_come_to_nothing_are_counted_and_then_not_heard() {
        let ids = suppliers::<{ BROKEN_CLAIMS_MAX as usize + 1 }>();
        let mut state = State::default();
        for id in &ids[1..] {
            state.hear(*id, head(9, 9), OURS);
            assert_eq!(state.verdict(OURS), Verdict::Behind(head(9, 9)));
            state.doubt(*id, OURS);
            state.doubt(*id, OURS); // counts once
            state.hear(*id, head(10, 9), OURS);
            assert_eq!(state.verdict(OURS), Verdict::Free);
        }
        state.hear(ids[0], head(9, 9), OURS);
        assert_eq!(state.verdict(OURS), Verdict::Free);
    }

    #[test]
    fn suppliers_that_leave_are_not_counted() {
        let core = Corestore::memory().get_named("log").unwrap();
        let longer = head(0, 3);
        for _ in 0..2 * BROKEN_CLAIMS_MAX {
            let id = core.supply().attach(Arc::new(|| {}));
            core.supply().hear(id, longer);
            let refused = core.append("too early");
            assert!(
                matches!(refused, Err(CoreError::Behind { .. })),
                "{refused:?}"
            );
            core.supply().detach(id);
        }
        assert_eq!(core.length(), 0);
    }

    /// Goal: whoever proves a longer log makes good for those who lied. Method: one claim less than are heard,
    /// then a proof, and as many again.
    #[test]
    fn a_longer_log_that_is_proven_begins_the_count_anew() {
        let ahead = Corestore::memory().get_named("log").unwrap();
        ahead
            .append_batch(vec!["one".into(), "two".into()])
            .unwrap();
        let core = Corestore::memory().get(&ahead.key()).unwrap();
        let lie = |count| {
            for _ in 0..count {
                let id = core.supply().attach(Arc::new(|| {}));
                core.supply().hear(id, head(9, 9));
                assert!(matches!(
                    core.inner.check_guard(),
                    Err(CoreError::Behind { .. })
                ));
                core.supply().doubt(id);
            }
        };
        lie(BROKEN_CLAIMS_MAX - 1);
        for fork in [0, 1] {
            if fork == 1 {
                ahead.truncate(1, None).unwrap();
                let upgrade = ahead.prove(&whole(&ahead)).unwrap().unwrap();
                core.adopt(core.reorg(upgrade).unwrap()).unwrap();
            } else {
                core.accept(ahead.prove(&whole(&ahead)).unwrap().unwrap())
                    .unwrap();
            }
            assert_eq!((core.fork(), core.tree_hash()), (fork, ahead.tree_hash()));
            lie(BROKEN_CLAIMS_MAX - 1);
        }
    }

    /// Asks for all of a log, from its start.
    fn whole(core: &Core) -> ProofRequest {
        ProofRequest {
            fork: core.fork(),
            upgrade: Some(UpgradeRequest {
                start: 0,
                length: core.length(),
            }),
            manifest: true,
            ..ProofRequest::default()
        }
    }

    #[test]
    fn a_supplier_that_had_its_log_before_us_confirms() {
        for shown in [head(1, 1), head(1, 10)] {
            let [id] = suppliers();
            let mut state = guarded();
            assert_eq!(state.verdict(OURS), Verdict::Unconfirmed);
            state.hear(id, shown, OURS);
            assert!(state.confirmed(OURS).is_some());
            assert_eq!(state.verdict(OURS), Verdict::Free);
        }
    }

    /// Goal: neither an empty peer, nor one that has it from us, nor another history, nor a claim that is
    /// not proven lets a guarded core go.
    #[test]
    fn whoever_knows_nothing_of_its_own_confirms_nothing() {
        let [empty, old, liar] = suppliers();
        let mut state = guarded();
        state.hear(empty, head(0, 0), OURS);
        state.hear(empty, head(1, 10), OURS);
        state.hear(old, head(0, 10), OURS);
        state.hear(liar, head(1, 99), OURS);
        assert!(state.confirmed(OURS).is_none());
        state.doubt(liar, OURS);
        state.hear(liar, head(1, 10), OURS);
        assert!(state.confirmed(OURS).is_none());
        assert_eq!(state.verdict(OURS), Verdict::Unconfirmed);
        // One of them meets somebody who knows more.
        state.hear(empty, head(1, 11), OURS);
        assert!(state.confirmed(OURS).is_none());
        assert!(state.confirmed(head(1, 11)).is_some());
    }

    #[test]
    fn a_core_is_not_let_go_while_another_supplier_has_more() {
        let [short, long] = suppliers();
        let mut state = guarded();
        state.hear(long, head(1, 11), OURS);
        state.hear(short, head(1, 5), OURS);
        assert!(state.confirmed(OURS).is_none());
        assert!(state.confirmed(head(1, 11)).is_some());
    }
}
