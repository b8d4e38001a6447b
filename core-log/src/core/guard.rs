//! Keeping a writer from making a second history of its own log.
//!
//! Whoever holds a secret key but not all that was signed with it would sign other blocks at places that
//! are taken. Two things stop it: the *guard* on a core whose secret was brought back or imported, until
//! somebody proves how long the log is; and every *claim* of a supplier to have a longer log, guarded or
//! not, until the log is here or the claim turns out to be wrong.
//!
//! What a supplier says frees nobody: its signed tree does, which is either brought here or compared with ours.
//!
//! Knows what suppliers say of their heads, and when that is proven. Does not know where the guard is
//! kept (the store passes a [`Release`]) nor how heads travel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::freeze::check_shown;
use super::{Core, CoreError, Inner};
use crate::changeset::VerifyError;
use crate::conflict::SignedTree;
use crate::few::Few;
use crate::proof::Proof;
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
    /// What we had when a supplier was to be asked to prove its head: only while the core is guarded.
    asked_at: BTreeMap<SupplierId, RemoteHead>,
    broken: u32,
    /// Whether our head was brought by a proof since the core is guarded.
    is_proven: bool,
}

/// What is known of one supplier's head.
#[derive(Debug, Clone, Copy)]
struct Claim {
    head: RemoteHead,
    /// It had something before it could have it from us.
    is_witness: bool,
    /// It has claimed more than it could prove.
    is_broken: bool,
    /// The head is signed, and its tree is the beginning of ours.
    is_proven: bool,
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
        lock(&self.inner.guard.state).is_guarded()
    }

    /// Lets the core be written although nobody has proven how long it is.
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

    /// Waits until the core may be written: until one supplier has proven how long the log is, if that is
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
        let mut state = lock(&self.inner.guard.state);
        state.release = Some(release);
        state.is_proven = false;
        let claims = state.claims.values_mut();
        claims.for_each(|claim| claim.is_proven = false);
        state.asked_at.clear();
        drop(state);
        self.inner.supply.wake_suppliers();
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
        let mut state = lock(&self.guard.state);
        state.claims.remove(&id);
        state.asked_at.remove(&id);
        drop(state);
        self.supply.wake_readers();
    }

    /// Our head has just been brought by a proof: not all suppliers lie, and what this one has is here.
    pub(super) fn head_proven(&self) {
        // What a manifest pins is signed by nobody: it does not tell how long the log became.
        let is_signed = !self.read().signature.is_empty();
        let mut state = lock(&self.guard.state);
        state.broken = 0;
        state.is_proven |= is_signed;
        drop(state);
        if self.end_guard() {
            self.supply.wake_suppliers();
        }
    }

    /// The length for which a supplier is to be asked for its signed tree, which is to be
    /// [shown](Self::show_head) then: once for each head that it says to have.
    pub(super) fn unproven_head(&self, id: SupplierId) -> Option<u64> {
        if !lock(&self.guard.state).is_guarded() {
            return None; // most cores
        }
        let ours = self.head();
        lock(&self.guard.state).take_unproven(id, ours)
    }

    /// A supplier has shown its signed tree; returns whether that is the head it says to have, and the beginning
    /// of ours.
    pub(super) fn show_head(&self, id: SupplierId, proof: &Proof) -> Result<bool, VerifyError> {
        let Some(shown) = self.signed_beginning(proof)? else {
            return Ok(false);
        };
        let is_proven = lock(&self.guard.state).prove(id, shown);
        if is_proven && self.end_guard() {
            self.supply.wake_suppliers();
        }
        Ok(is_proven)
    }

    /// The head whose signature `proof` shows, if ours begins with all of its tree. That may be longer than the
    /// upgrade that was asked for, as where a manifest pins a prologue, whose length JavaScript answers with.
    fn signed_beginning(&self, proof: &Proof) -> Result<Option<RemoteHead>, VerifyError> {
        let (ours, verifier) = (self.head(), self.read().verifier.clone());
        let (Some(upgrade), Some(verifier)) = (&proof.upgrade, verifier) else {
            return Ok(None);
        };
        let is_signed = upgrade.signature.as_ref().is_some_and(|s| !s.is_empty());
        if !is_signed || proof.fork != ours.fork || upgrade.start != 0 {
            return Ok(None);
        }
        let tree = SignedTree::of(upgrade);
        let signed = check_shown(&tree, upgrade.length, proof.fork, &verifier)?;
        let (fork, length) = (proof.fork, signed.length());
        if length > ours.length {
            return Ok(None); // to be brought here first
        }
        match self.roots_at(length) {
            Ok((at, roots)) => {
                let is_ours = at == fork && roots.hash() == signed.hash();
                Ok(is_ours.then_some(RemoteHead { fork, length }))
            }
            Err(CoreError::Storage(error)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(core = %self.key, %error, "cannot compare with what a peer has");
                Ok(None)
            }
        }
    }

    /// Lets go of a guarded core if the log is as long as some supplier has proven; returns whether.
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
            _ if self.is_guarded() => Verdict::Unconfirmed,
            _ => Verdict::Free,
        }
    }

    fn hear(&mut self, id: SupplierId, head: RemoteHead, ours: RemoteHead) {
        let claim = self.claims.get_or_insert_with(id, || Claim {
            head,
            // A supplier that begins with nothing may have from us all that it has later.
            is_witness: head.length > 0,
            is_broken: false,
            is_proven: false,
        });
        if claim.head != head && !claim.is_proven {
            // What comes to have more of ours may have it from us.
            claim.is_witness &= head < claim.head || head > ours;
            self.asked_at.remove(&id);
        }
        claim.is_proven &= claim.head <= head && claim.head.fork == head.fork;
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

    fn is_guarded(&self) -> bool {
        self.release.is_some()
    }

    fn take_unproven(&mut self, id: SupplierId, ours: RemoteHead) -> Option<u64> {
        self.release.as_ref()?;
        let claim = self.claims.get(&id)?;
        let is_asked = claim.is_proven || self.asked_at.get(&id) == Some(&ours);
        if is_asked || !claim.is_witness_within(ours) {
            return None;
        }
        self.asked_at.insert(id, ours);
        Some(claim.head.length)
    }

    /// The supplier has shown a signed tree with which ours begins; returns whether it is what it says to have. What
    /// is longer it may have from us meanwhile; what is shorter is another's head.
    fn prove(&mut self, id: SupplierId, shown: RemoteHead) -> bool {
        let claim = self
            .claims
            .get_mut(&id)
            .filter(|claim| claim.is_witness && claim.head == shown);
        claim.map(|claim| claim.is_proven = true).is_some()
    }

    /// Ends the guard if what a witness has proven is all here, and nobody has more.
    fn confirmed(&mut self, ours: RemoteHead) -> Option<Release> {
        let is_shown = |claim: &Claim| claim.is_proven && claim.is_witness_within(ours);
        let is_free = !self.claims.values().any(|claim| claim.is_open(ours));
        let is_proven = self.is_proven || self.claims.values().any(is_shown);
        self.release.take_if(|_| is_free && is_proven)
    }
}

impl Claim {
    /// Whether it says that there is more than ours, and nothing speaks against it.
    fn is_open(&self, ours: RemoteHead) -> bool {
        self.head > ours && !self.is_broken
    }

    /// Whether it says, of its own knowledge, to have a part of our log, or all of it.
    fn is_witness_within(&self, ours: RemoteHead) -> bool {
        let is_same_history = self.head.fork == ours.fork;
        self.is_witness && is_same_history && (1..=ours.length).contains(&self.head.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{ProofRequest, UpgradeRequest};
    use crate::supply::SupplyHub;
    use crate::{CoreOptions, Corestore};
    use ferrocore_primitives::sign::KeyPair;

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
    fn a_supplier_that_had_its_log_before_us_is_asked_to_prove_it_and_then_confirms() {
        for shown in [head(1, 1), head(1, 10)] {
            let [id] = suppliers();
            let mut state = guarded();
            assert_eq!(state.take_unproven(id, OURS), None);
            state.hear(id, shown, OURS);
            assert!(state.confirmed(OURS).is_none());
            assert_eq!(state.verdict(OURS), Verdict::Unconfirmed);
            assert_eq!(state.take_unproven(id, OURS), Some(shown.length));
            assert_eq!(state.take_unproven(id, OURS), None, "asked once");
            assert!(!state.prove(id, head(1, 2)), "another head than it says");
            assert!(state.confirmed(OURS).is_none());
            assert!(state.prove(id, shown));
            assert!(state.confirmed(OURS).is_some());
            assert_eq!(state.verdict(OURS), Verdict::Free);
            assert_eq!(state.take_unproven(id, OURS), None);
        }
    }

    /// Goal: a bare number frees nobody, and neither does a proof of less than it. Method: a core that has half
    /// of what was signed is guarded, and hears of heads that are shown in various ways, of which one is right.
    #[test]
    fn what_is_not_proven_frees_nobody() {
        let options = || CoreOptions {
            key_pair: Some(KeyPair::from_seed(&[1; 32])),
            ..CoreOptions::default()
        };
        let author = || Corestore::memory().get_with(options()).unwrap();
        let [all, forged] = [author(), author()];
        all.append_batch(vec!["0".into(), "1".into(), "2".into()])
            .unwrap();
        let core = Corestore::memory().get_with(options()).unwrap();
        core.append_batch(vec!["0".into(), "1".into(), "2".into()])
            .unwrap();
        all.append("3").unwrap();
        forged.append_batch(vec!["0".into(), "x".into()]).unwrap();
        let [shorter, same] = [author(), author()];
        same.append_batch(vec!["0".into(), "1".into(), "2".into()])
            .unwrap();
        shorter.append_batch(vec!["0".into(), "1".into()]).unwrap();
        core.guard(Arc::new(|| Ok(())));

        let id = core.supply().attach(Arc::new(|| {}));
        core.supply().hear(id, head(0, 2));
        assert!(core.is_guarded());
        assert_eq!(core.supply().unproven_head(id), Some(2));
        let show = |proof: &Proof| core.supply().show_head(id, proof);
        let of = |shown: &Core, length| {
            let mut request = whole(shown);
            request.upgrade = Some(UpgradeRequest { start: 0, length });
            shown.prove(&request).unwrap().unwrap()
        };
        // Another history, logs that were signed at a greater length, at more than is here and at what is; no
        // signature, a wrong one, of another fork, of no tree.
        assert!(!show(&of(&forged, 2)).unwrap());
        assert!(!show(&of(&all, 2)).unwrap());
        assert!(!show(&of(&same, 2)).unwrap(), "it may have that from us");
        let right = of(&shorter, 2);
        let mut unsigned = right.clone();
        unsigned.upgrade.as_mut().unwrap().signature = None;
        assert!(!show(&unsigned).unwrap());
        let mut wrong = right.clone();
        wrong.upgrade.as_mut().unwrap().signature = of(&all, 4).upgrade.unwrap().signature;
        assert!(matches!(
            show(&wrong),
            Err(VerifyError::Signature { length: 2 })
        ));
        let mut of_fork = right.clone();
        of_fork.fork = 1;
        assert!(!show(&of_fork).unwrap());
        let mut treeless = right.clone();
        treeless.upgrade.as_mut().unwrap().nodes.clear();
        show(&treeless).unwrap_err();
        assert!(core.is_guarded() && core.append("too early").is_err());

        assert!(show(&right).unwrap());
        assert!(!core.is_guarded());
        core.append("goes on").unwrap();
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
        for id in [empty, old, liar] {
            assert_eq!(state.take_unproven(id, OURS), None);
        }
        // One of them meets somebody who knows more.
        state.hear(empty, head(1, 11), OURS);
        assert!(state.confirmed(OURS).is_none());
        assert!(state.confirmed(head(1, 11)).is_none(), "nobody proved it");
        state.is_proven = true;
        assert!(state.confirmed(OURS).is_none());
        assert!(state.confirmed(head(1, 11)).is_some());
    }

    #[test]
    fn a_core_is_not_let_go_while_another_supplier_has_more() {
        let [short, long] = suppliers();
        let mut state = guarded();
        state.hear(long, head(1, 11), OURS);
        state.hear(short, head(1, 5), OURS);
        assert!(state.prove(short, head(1, 5)));
        assert!(state.confirmed(OURS).is_none());
        assert!(state.confirmed(head(1, 11)).is_some());
    }
}
