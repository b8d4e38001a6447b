//! Replacing history: by our own truncate, or by a fork that a peer has proven.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::keys::Key;

use super::group::{AdoptTicket, Adoption, Waiter};
use super::ticket::Completer;
use super::{AcceptError, Core, Inner, Shared, Stored};
use crate::changeset::{Base, VerifyError};
use crate::descent::Descent;
use crate::events::Event;
use crate::manifest::Manifest;
use crate::merkle::{Node, Roots};
use crate::proof::Proof;
use crate::reorg::Reorg;
use crate::storage::{BitWrite, CoreWrite, Durability, Head, HeadWrite, StorageError};
use crate::verifier::Verifier;

impl Core {
    /// Verifies the proof of a higher fork: an upgrade from an empty log, with the manifest if it is
    /// not known here.
    ///
    /// # Errors
    /// [`VerifyError::Stale`] if the fork is not higher, and what an upgrade may fail with.
    pub fn reorg(&self, proof: Proof) -> Result<Reorg, VerifyError> {
        let (base, verifier) = {
            let shared = self.inner.read();
            let base = Base {
                fork: shared.fork,
                length: shared.roots.length(),
            };
            (base, shared.verifier.clone())
        };
        let verifier = verifier.unwrap_or_else(|| Verifier::compat(self.inner.key));
        Reorg::new(base, verifier, &Stored(&*self.inner.storage), proof)
    }

    /// Takes in the answer to what `reorg` wants.
    ///
    /// # Errors
    /// [`VerifyError`] if it is not what the new history consists of; `reorg` is unchanged.
    pub fn narrow(&self, reorg: &mut Reorg, proof: &Proof) -> Result<(), VerifyError> {
        reorg.narrow(&Stored(&*self.inner.storage), proof)
    }

    /// Leaves the current history for that of `reorg`: drops what they do not have in common and
    /// takes the new head, in one commit.
    ///
    /// # Errors
    /// [`VerifyError::Stale`] if the core has come to another fork meanwhile, or
    /// [`AcceptError::Storage`].
    pub fn adopt(&self, reorg: Reorg) -> Result<(), AcceptError> {
        self.inner.adopt(reorg)
    }

    /// As [`Core::adopt`], without waiting for the device. With [`Durability::Sync`] this only queues the
    /// move, which a thread of the store makes; with [`Durability::Buffered`] it is made when this returns.
    ///
    /// # Errors
    /// The ticket's, as for [`Core::adopt`].
    pub fn adopt_async(&self, reorg: Reorg) -> AdoptTicket {
        if self.inner.durability == Durability::Buffered {
            return AdoptTicket::ready(self.adopt(reorg));
        }
        let (completer, ticket) = Completer::new(self.discovery_key());
        let adoption = Box::new(Adoption { reorg, completer });
        self.inner.commit_later(Waiter::Adopt(adoption), None);
        ticket
    }
}

/// A history in place of the current one.
pub(super) struct History {
    pub(super) fork: u64,
    /// How many blocks both begin with.
    pub(super) ancestors: u64,
    pub(super) roots: Roots,
    pub(super) signature: Bytes,
    /// Nodes of the new tree that the current one does not have.
    pub(super) nodes: Vec<Node>,
    /// The manifest, if it has just been learnt.
    pub(super) manifest: Option<Manifest>,
}

impl Inner {
    pub(super) fn adopt(&self, reorg: Reorg) -> Result<(), AcceptError> {
        let _writer = self.lock_writer();
        let (fork, is_frozen) = {
            let shared = self.read();
            (shared.fork, shared.is_frozen())
        };
        if reorg.base.fork != fork {
            return Err(VerifyError::Stale.into());
        }
        if is_frozen {
            return Err(VerifyError::Frozen.into());
        }
        let ancestors = reorg.ancestors();
        let tree = reorg.tree;
        let manifest = self.new_manifest(&tree);
        self.replace_history(History {
            fork: tree.base.fork,
            ancestors,
            signature: tree.signature.unwrap_or_default(),
            nodes: tree.nodes.into_values().collect(),
            roots: tree.roots,
            manifest,
        })?;
        self.head_proven();
        Ok(())
    }

    /// Commits `next`, flips to it and tells everybody. The writer lock must be held.
    pub(super) fn replace_history(&self, next: History) -> Result<(), StorageError> {
        // Space alone is not worth an error.
        let freed = self.bytes_given_up(&next).ok().flatten();
        // From here on storage holds nodes of either history. Snapshots are told before: one that
        // finds itself whole after a read has read nothing of the new history.
        self.update(|shared| {
            shared.being_cut_to = Some(next.ancestors);
            self.cuts.cut_to(next.ancestors);
        });
        let committed = self.commit_history(&next, freed);
        let (ancestors, fork, length) = (next.ancestors, next.fork, next.roots.length());
        let has_manifest = next.manifest.is_some();
        self.update(|shared| {
            shared.being_cut_to = None;
            if committed.is_ok() {
                shared.flip_history(self.key, next);
            }
        });
        if committed.is_err() {
            self.supply.wake_suppliers(); // and whoever waits for the cut
        }
        committed?;
        self.doubts.forget();
        self.forget_fitting();
        self.supply.truncated(ancestors);
        let truncate = Event::Truncate {
            length: ancestors,
            fork,
        };
        let manifest = has_manifest.then_some(Event::Manifest);
        let append = (length > ancestors).then_some(Event::Append { length });
        let events: Vec<Event> = manifest
            .into_iter()
            .chain([truncate])
            .chain(append)
            .collect();
        self.announce(&events);
        Ok(())
    }

    fn commit_history(
        &self,
        next: &History,
        freed: Option<Range<u64>>,
    ) -> Result<(), StorageError> {
        let forgotten = next.ancestors..self.read().roots.length();
        let bits = BitWrite {
            range: forgotten.clone(),
            value: false,
        };
        let head = Head {
            fork: next.fork,
            length: next.roots.length(),
            root_hash: next.roots.hash(),
            signature: next.signature.clone(),
        };
        let write = CoreWrite {
            nodes: next.nodes.clone(),
            bits: (!forgotten.is_empty())
                .then_some(bits)
                .into_iter()
                .collect(),
            head: Some(HeadWrite {
                head,
                ancestors: next.ancestors,
            }),
            manifest: next.manifest.clone(),
            freed: freed.into_iter().collect(),
            ..CoreWrite::default()
        };
        self.storage.commit(write, self.durability)
    }

    /// The bytes of the blocks that `next` does not have in common with the log, or `None` where the tree nodes that tell are not
    /// here, or damaged. Whoever frees them destroys what lies there: so it is proven where they begin.
    fn bytes_given_up(&self, next: &History) -> Result<Option<Range<u64>>, StorageError> {
        let end = self.read().roots.byte_length();
        let fresh = next.nodes.iter().map(|node| (node.index, *node)).collect();
        let mut descent = Descent::new(&next.roots, &fresh, Stored(&*self.storage));
        let start = descent.byte_offset(2 * next.ancestors)?.ok();
        Ok(start.filter(|start| *start < end).map(|start| start..end))
    }
}

impl Shared {
    fn flip_history(&mut self, key: Key, next: History) {
        self.fork = next.fork;
        self.roots = Arc::new(next.roots);
        self.signature = next.signature;
        self.change_bits(|bits| bits.truncate(next.ancestors));
        self.contiguous_length = self.contiguous_length.min(next.ancestors);
        if let Some(manifest) = next.manifest {
            self.verifier = Verifier::new(key, manifest);
        }
    }
}
