//! From answers to the core: they are verified together, committed together, and those that fail are judged.
//! A commit that has to wait for the device is left to the core, and what comes meanwhile is the next one.
//!
//! Knows whose fault a proof is that does not hold. Does not know how it is verified: that is the core's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ferrocore_log::Core;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::{AcceptError, AcceptTicket, Accepted};
use ferrocore_log::flat_tree;
use ferrocore_log::proof::Proof;
use ferrocore_primitives::time::Time;

use super::Downloads;
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::Peer;
use crate::promises::{Path, levels_below_root};
use crate::requests::{Asked, Pending};
use crate::stats::Stats;
use crate::suspicion::{Suspicion, may_show_conflict};
use crate::wire::Wire;
use crate::work::steps;

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) pending: Pending,
    pub(super) proof: Proof,
    /// What it takes of the room for answers that wait.
    pub(super) kept_bytes: usize,
}

impl Arrived {
    /// Whether it brings a longer log.
    pub(super) fn is_upgrade(&self) -> bool {
        self.pending.asked == Asked::Upgrade
    }
}

/// A commit that is under way.
#[derive(Debug)]
pub(super) struct Committing {
    ticket: AcceptTicket,
    /// What it answers.
    verified: Vec<Pending>,
    bytes: usize,
    /// What it takes of the room for answers that wait.
    kept_bytes: usize,
}

impl Committing {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Accepted, AcceptError>> {
        Pin::new(&mut self.ticket).poll(&mut Context::from_waker(waker))
    }

    /// Whether it brings a longer log.
    pub(super) fn is_upgrade(&self) -> bool {
        self.verified
            .iter()
            .any(|pending| pending.asked == Asked::Upgrade)
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Leaves what it answers to others: it was of another history.
    pub(super) fn forget(&mut self) {
        self.verified.clear();
    }
}

impl Downloads {
    /// Verifies what has arrived and commits it in one pass, or sees to it that this is done once the commit
    /// before is over.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadProof`] if a proof does not hold. Those that do are committed.
    /// [`PeerMisbehaved::TooManyDenials`] if it gave less than it was asked for, once too often.
    pub(crate) fn commit(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        wire: &mut Wire<'_>,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        let adopted = self.following.poll(&self.waker);
        let must_wait = self.is_still_committing(core, peer, &mut wire.counted)?;
        self.check_followed(core, adopted, &mut wire.counted)?;
        if let Some(error) = self.suspicion.take_verdict() {
            return Err(PeerMisbehaved::BadProof(error));
        }
        if must_wait || self.arrived.get().is_none() {
            return Ok(());
        }
        let arrived = self.arrived.take();
        steps(arrived.len() as u64);
        self.kept
            .give_back(arrived.iter().map(|a| a.kept_bytes).sum());
        let (requests, proofs) = arrived
            .into_iter()
            .map(|arrived| (arrived.pending, arrived.proof))
            .unzip();
        let mut changeset = core.changeset();
        let results = core.verify_into(&mut changeset, proofs);
        let length = changeset.length();
        let (verified, doubted, refused) = self.sort_out(core, requests, results);
        let bytes = changeset.block_bytes();
        self.committing = Some(Box::new(Committing {
            ticket: core.commit_async(changeset),
            verified,
            bytes,
            kept_bytes: 0,
        }));
        if self.is_still_committing(core, peer, &mut wire.counted)? {
            self.hold_committing();
        }
        let Some(error) = refused else {
            return give_no_whole_path(length, peer, doubted);
        };
        wire.counted.proofs_refused += 1;
        self.suspect(core, peer, error, wire, now)
    }

    /// Whether the commit is still under way; if it is over, sees to what follows.
    ///
    /// # Errors
    /// [`PeerMisbehaved::TooManyDenials`] if it did not give what it was asked for, once too often.
    fn is_still_committing(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        stats: &mut Stats,
    ) -> Result<bool, PeerMisbehaved> {
        let Some(mut committing) = self.committing.take() else {
            return Ok(false);
        };
        let Poll::Ready(result) = committing.poll(&self.waker) else {
            self.committing = Some(committing);
            return Ok(true);
        };
        self.promises.stored();
        let Committing {
            verified,
            bytes,
            kept_bytes,
            ..
        } = *committing;
        self.kept.give_back(kept_bytes);
        match result {
            Ok(accepted) => {
                if accepted.length.is_some() {
                    self.start_patience_over();
                }
                stats.blocks_downloaded += accepted.blocks.len() as u64;
                stats.bytes_downloaded += bytes as u64;
                if accepted.blocks.len() < verified.len() {
                    self.release_duplicates(core, &verified, &accepted.blocks);
                    settle_seeks(core, &verified);
                    let is_unplaced =
                        |path: &Path| accepted.unplaced.binary_search(&path.block).is_ok();
                    let unplaced = verified
                        .iter()
                        .filter_map(Pending::path)
                        .filter(is_unplaced);
                    give_no_whole_path(core.length(), peer, unplaced)?;
                }
            }
            Err(error) => self.fail_commit(core, &verified, &error),
        }
        Ok(false)
    }

    /// Paths that are asked for may rest on what is being committed, and its blocks are in memory.
    fn hold_committing(&mut self) {
        if let Some(committing) = &mut self.committing {
            committing.kept_bytes = committing.bytes;
            self.kept.hold(committing.bytes);
        }
        let verified = self.committing.iter().flat_map(|c| &c.verified);
        let paths = verified.filter_map(Pending::path);
        paths.for_each(|path| self.promises.hold(path));
    }

    /// Asks a peer whose proof does not hold for all it has, if that may show another history.
    fn suspect(
        &mut self,
        core: &Core,
        peer: &Peer,
        error: VerifyError,
        wire: &mut Wire<'_>,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        let length = core.length().min(peer.sync.length);
        let is_same_fork = peer.sync.fork == core.fork();
        let may_tell = may_show_conflict(&error) && length > 0 && is_same_fork;
        if !may_tell || self.suspicion.is_any() {
            return Err(PeerMisbehaved::BadProof(error));
        }
        self.request_whole(core, length, wire, now);
        self.suspicion = Suspicion::Asked(Box::new(error));
        self.pause(); // others may have what it was to give
        Ok(())
    }

    /// Which requests are answered by proofs that hold, the paths of those that our own tree neither confirms nor refutes, and
    /// the worst that is wrong with the others.
    fn sort_out(
        &mut self,
        core: &Core,
        requests: Vec<Pending>,
        results: Vec<Result<(), VerifyError>>,
    ) -> (Vec<Pending>, Vec<Path>, Option<VerifyError>) {
        let (mut verified, mut refused) = (Vec::with_capacity(requests.len()), None);
        let mut doubted = Vec::new();
        for (pending, result) in requests.into_iter().zip(results) {
            let Err(error) = result else {
                self.unjudged -= usize::from(self.unjudged > 0 && pending.path().is_some());
                verified.push(pending);
                continue;
            };
            self.release_all(core, [&pending]);
            if matches!(error, VerifyError::Damaged { .. }) {
                doubted.extend(pending.path());
            }
            if is_to_blame(&error, &pending) {
                refused = Some(error);
            } else if matches!(error, VerifyError::Unanchored { .. }) {
                self.unjudged += 1;
            }
        }
        (verified, doubted, refused)
    }

    /// Queues an answer, and those that were waiting for it behind it.
    pub(super) fn arrive(&mut self, arrived: Arrived) {
        let mut ready = vec![arrived];
        while let Some(next) = ready.pop() {
            if let Some(path) = next.pending.path() {
                ready.extend(self.promises.settle(path));
                if self.committing.is_some() {
                    self.promises.hold(path);
                }
            }
            self.arrived.need().push(next);
        }
    }

    /// Blocks that came from elsewhere meanwhile leave no claims behind.
    fn release_duplicates(&self, core: &Core, verified: &[Pending], fresh: &[u64]) {
        let is_fresh = |path: Path| fresh.binary_search(&path.block).is_ok();
        let duplicates = verified
            .iter()
            .filter(|p| p.path().is_some_and(|path| !is_fresh(path)));
        self.release_all(core, duplicates);
    }

    fn fail_commit(&mut self, core: &Core, verified: &[Pending], error: &AcceptError) {
        self.release_all(core, verified);
        if let AcceptError::Storage(error) = error {
            tracing::error!(core = %core.key(), %error, "cannot store what a peer sent");
            self.stop();
        }
    }
}

/// Sees to it that a peer is not asked without end for what does not help: what is here of the tree, of a log of `length` blocks,
/// is damaged, and neither confirms nor places these blocks. Whoever was asked for less than the whole path is asked again.
///
/// # Errors
/// [`PeerMisbehaved::TooManyDenials`] if it was asked for a path up to a root of ours, which needs nothing of what is here, and
/// gave less, once too often.
fn give_no_whole_path(
    length: u64,
    peer: &mut Peer,
    paths: impl IntoIterator<Item = Path>,
) -> Result<(), PeerMisbehaved> {
    for Path { block, levels, .. } in paths {
        let common = length.min(peer.length());
        if levels_below_root(block, common).is_none_or(|whole| levels < whole) {
            continue;
        }
        // A shorter log does not reach up to what is damaged.
        let root = flat_tree::root_of(block, common);
        if root != flat_tree::root_of(block, length) {
            peer.blocks.note_unprovable(root);
        } else if !peer.blocks.deny(block) {
            return Err(PeerMisbehaved::TooManyDenials);
        }
    }
    Ok(())
}

/// Whoever asked for bytes looks again.
fn settle_seeks(core: &Core, verified: &[Pending]) {
    for pending in verified {
        if let Asked::Seek(seek, _) = pending.asked {
            core.supply().seek_answered(seek);
        }
    }
}

/// Looks whether a peer's whole log is another than the one here.
pub(super) fn check_conflict(core: &Core, proof: &Proof) {
    match core.check_conflict(proof) {
        Ok(_) => {} // the core tells everybody
        Err(VerifyError::Storage(error)) => {
            tracing::error!(core = %core.key(), %error, "cannot keep what froze the core");
        }
        Err(error) => tracing::debug!(core = %core.key(), %error, "a peer shows no signed log"),
    }
}

/// Whether a failed verification is the peer's fault: not if we or another peer moved the core, nor
/// if we asked for too short a path.
fn is_to_blame(error: &VerifyError, pending: &Pending) -> bool {
    let path = pending.path();
    let rests_on_another = path.is_some_and(|path| path.promised_anchor.is_some());
    match error {
        VerifyError::Unanchored { .. } => !rests_on_another,
        VerifyError::WrongFork { .. } => false,
        other => !other.is_blameless(),
    }
}
