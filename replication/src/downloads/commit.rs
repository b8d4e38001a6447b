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
use ferrocore_log::proof::Proof;
use ferrocore_primitives::time::Time;

use super::Downloads;
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::Peer;
use crate::promises::Path;
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
    pub(crate) fn commit(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        wire: &mut Wire<'_>,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        let adopted = self.following.poll(&self.waker);
        let must_wait = self.is_still_committing(core, peer, &mut wire.counted);
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
        let (verified, refused) = self.sort_out(core, peer, requests, results);
        let bytes = changeset.block_bytes();
        self.committing = Some(Box::new(Committing {
            ticket: core.commit_async(changeset),
            verified,
            bytes,
            kept_bytes: 0,
        }));
        if self.is_still_committing(core, peer, &mut wire.counted) {
            self.hold_committing();
        }
        let Some(error) = refused else {
            return Ok(());
        };
        wire.counted.proofs_refused += 1;
        self.suspect(core, peer, error, wire, now)
    }

    /// Whether the commit is still under way; if it is over, sees to what follows.
    fn is_still_committing(&mut self, core: &Core, peer: &mut Peer, stats: &mut Stats) -> bool {
        let Some(mut committing) = self.committing.take() else {
            return false;
        };
        let Poll::Ready(result) = committing.poll(&self.waker) else {
            self.committing = Some(committing);
            return true;
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
                        |path: Path| accepted.unplaced.binary_search(&path.block).is_ok();
                    let is_unplaced = |p: &&Pending| p.path().is_some_and(is_unplaced);
                    give_no_whole_path(core, peer, verified.iter().filter(is_unplaced));
                }
            }
            Err(error) => self.fail_commit(core, &verified, &error),
        }
        false
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

    /// Which requests are answered by proofs that hold, and the worst that is wrong with the others.
    fn sort_out(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        requests: Vec<Pending>,
        results: Vec<Result<(), VerifyError>>,
    ) -> (Vec<Pending>, Option<VerifyError>) {
        let (mut verified, mut refused) = (Vec::with_capacity(requests.len()), None);
        for (pending, result) in requests.into_iter().zip(results) {
            let Err(error) = result else {
                self.unjudged -= usize::from(self.unjudged > 0 && pending.path().is_some());
                verified.push(pending);
                continue;
            };
            self.release_all(core, [&pending]);
            if matches!(error, VerifyError::Damaged { .. }) {
                give_no_whole_path(core, peer, [&pending]);
            }
            if is_to_blame(&error, &pending) {
                refused = Some(error);
            } else if matches!(error, VerifyError::Unanchored { .. }) {
                self.unjudged += 1;
            }
        }
        (verified, refused)
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

/// Does not ask a peer again for blocks that it did not give the whole path of, though that was asked for: what is here
/// of the tree is damaged, and does not tell where they belong. Those that were asked for before that was known, it may give.
fn give_no_whole_path<'a>(
    core: &Core,
    peer: &mut Peer,
    requests: impl IntoIterator<Item = &'a Pending>,
) {
    for path in requests.into_iter().filter_map(Pending::path) {
        let levels = core.missing_nodes(2 * path.block).unwrap_or(0);
        if path.levels >= levels {
            peer.blocks.deny(path.block);
        }
    }
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
