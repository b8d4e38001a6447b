//! Stopping when the core's own signers contradict themselves.

use std::sync::Arc;

use ferrocore_primitives::encoding::{Decode as _, Encode as _};
use ferrocore_primitives::keys::Key;

use super::{Core, CoreError, Inner};
use crate::changeset::VerifyError;
use crate::conflict::{Conflict, ConflictError, SignedTree};
use crate::events::Event;
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::proof::{self, Proof};
use crate::storage::{ConflictKeeper, StorageError};
use crate::verifier::Verifier;

impl Core {
    /// Compares the signed tree that `proof` upgrades nothing to with the one here, of which it must
    /// be the beginning or the continuation. If it is neither, the core is frozen: evidence is
    /// kept, [`Event::Conflict`] is told, and appends, truncates and upgrades are refused from
    /// then on, also after the core was opened again. What is here can still be read, and proven.
    ///
    /// `None` if there is no conflict, or none that can be told: the proof is of another fork, of
    /// a part that is not here, or does not upgrade from nothing.
    ///
    /// Ask a peer for such a proof when another of its proofs does not hold, as JavaScript does
    /// (`hypercore/lib/core.js` 11.37.1, `checkConflict`). Unlike there, also what comes behind
    /// a pinned beginning is compared.
    ///
    /// # Errors
    /// [`VerifyError::Signature`] or [`VerifyError::UnexpectedNode`] if what was shown is no
    /// signed tree; [`VerifyError::Storage`], also if the evidence could not be kept: the core is
    /// frozen all the same, until it is closed.
    pub fn check_conflict(&self, proof: &Proof) -> Result<Option<Arc<Conflict>>, VerifyError> {
        let inner = &*self.inner;
        if self.conflict().is_none() {
            // Most of what is shown shows nothing, and must not wait for a device that somebody's commit is on its way to.
            match inner.compare(proof) {
                Ok(Some(_)) | Err(VerifyError::Storage(_)) => {} // perhaps of a log that was being cut
                nothing => return nothing.map(|_| None),
            }
        }
        let _writer = inner.lock_writer();
        if let Some(known) = self.conflict() {
            return Ok(Some(known));
        }
        let Some(conflict) = inner.compare(proof)? else {
            return Ok(None);
        };
        let conflict = Arc::new(conflict);
        inner.freeze(Arc::clone(&conflict));
        inner.keep(&conflict)?;
        Ok(Some(conflict))
    }

    /// Freezes the core because of evidence that somebody else came by.
    ///
    /// # Errors
    /// [`ConflictError`] if it proves nothing: the core goes on.
    pub fn freeze(&self, conflict: Conflict) -> Result<(), FreezeError> {
        let inner = &*self.inner;
        let known = inner.read().verifier.clone();
        match known.filter(|verifier| verifier.is_compat() && conflict.manifest.is_none()) {
            Some(verifier) => conflict.verify_under(&verifier)?,
            None => conflict.verify(&self.key())?,
        }
        let _writer = inner.lock_writer();
        if self.conflict().is_none() {
            let conflict = Arc::new(conflict);
            inner.freeze(Arc::clone(&conflict));
            inner.keep(&conflict)?;
        }
        Ok(())
    }

    /// Whether nothing more is taken, since two histories are signed: also if the evidence of that was damaged.
    pub fn is_frozen(&self) -> bool {
        self.inner.read().is_frozen()
    }

    /// Why the core is frozen, if it is and the evidence is whole.
    pub fn conflict(&self) -> Option<Arc<Conflict>> {
        self.inner.read().conflict.clone()
    }
}

/// Evidence was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// It proves nothing.
    #[error(transparent)]
    Conflict(#[from] ConflictError),
    /// It could not be kept. The core is frozen until it is closed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Inner {
    /// Refuses to go on from a log whose signers contradict themselves.
    pub(super) fn check_not_frozen(&self) -> Result<(), CoreError> {
        match self.read().is_frozen() {
            true => Err(CoreError::Conflict { core: self.key }),
            false => Ok(()),
        }
    }

    /// The conflict between what `proof` shows and what is here, if there is one. Only while the writer lock is held is it
    /// sure that what is here was read of one history.
    fn compare(&self, proof: &Proof) -> Result<Option<Conflict>, VerifyError> {
        let (fork, current, signature, verifier) = {
            let shared = self.read();
            let roots = Arc::clone(&shared.roots);
            let verifier = shared.verifier.clone();
            (shared.fork, roots, shared.signature.clone(), verifier)
        };
        let (Some(upgrade), Some(verifier)) = (&proof.upgrade, verifier) else {
            return Ok(None);
        };
        if proof.fork != fork || upgrade.start != 0 {
            return Ok(None);
        }
        let shown = SignedTree::of(upgrade);
        check_shown(&shown, upgrade.length, fork, &verifier)?;
        let Some((length, theirs)) = shown.seen_at(upgrade.length, current.length()) else {
            return Ok(None);
        };
        let signature = (!signature.is_empty()).then_some(signature);
        let nodes = flat_nodes(length, current.length());
        let [nodes, additional] = nodes.map(|indexes| self.nodes_here(&indexes));
        let (Some(nodes), Some(additional)) = (nodes?, additional?) else {
            return Ok(None);
        };
        let ours = SignedTree {
            nodes,
            additional,
            signature,
        };
        let manifest = Some(verifier.manifest().clone()).filter(|_| !verifier.is_compat());
        let conflict = Conflict {
            manifest,
            fork,
            length,
            ours,
            theirs,
        };
        // Damage here is no proof against anybody, and neither is agreement.
        Ok(conflict.verify_under(&verifier).is_ok().then_some(conflict))
    }

    /// The nodes at these indexes, if all are here.
    fn nodes_here(&self, indexes: &[u64]) -> Result<Option<Vec<Node>>, StorageError> {
        indexes
            .iter()
            .map(|index| self.storage.node(*index))
            .collect()
    }

    fn freeze(&self, conflict: Arc<Conflict>) {
        let (fork, length) = (conflict.fork, conflict.length);
        tracing::error!(core = %self.key, fork, length, "two histories are signed; nothing more is taken");
        self.update(|shared| shared.conflict = Some(conflict));
        self.announce(&[Event::Conflict { length, fork }]);
    }

    fn keep(&self, conflict: &Conflict) -> Result<(), StorageError> {
        let keeper = self.conflict_keeper.as_ref();
        keeper.map_or(Ok(()), |keeper| keeper.keep(&conflict.to_vec()))
    }
}

/// What is kept of a conflict.
pub(super) enum Evidence {
    None,
    Of(Arc<Conflict>),
    /// There was some. That it is damaged is no reason to go on, nor one to read nothing.
    Damaged,
}

/// What is kept of a conflict of the core `key`.
pub(super) fn load(
    key: &Key,
    keeper: Option<&dyn ConflictKeeper>,
) -> Result<Evidence, StorageError> {
    let Some(kept) = keeper.map(ConflictKeeper::load).transpose()?.flatten() else {
        return Ok(Evidence::None);
    };
    let conflict = Conflict::from_slice(&kept).ok();
    Ok(
        match conflict.filter(|conflict| conflict.verify(key).is_ok()) {
            Some(conflict) => Evidence::Of(Arc::new(conflict)),
            None => {
                tracing::error!(core = %key, "the evidence of two signed histories is damaged; nothing more is taken all the same");
                Evidence::Damaged
            }
        },
    )
}

/// The roots of the tree that is signed, if what was shown of `length` blocks grows to one.
pub(super) fn check_shown(
    shown: &SignedTree,
    length: u64,
    fork: u64,
    verifier: &Verifier,
) -> Result<Roots, VerifyError> {
    let checked = shown
        .roots(length)
        .and_then(|roots| shown.check_signature(fork, &roots, verifier));
    checked.map_err(|error| match error {
        ConflictError::Signature => VerifyError::Signature { length },
        _ => VerifyError::UnexpectedNode { index: 0 },
    })
}

/// The roots of `length` blocks, and what grows them to `to`.
fn flat_nodes(length: u64, to: u64) -> [Vec<u64>; 2] {
    let mut additional = Vec::new();
    proof::growth(length, to, |index| additional.push(index));
    [flat_tree::full_roots(length).collect(), additional]
}
