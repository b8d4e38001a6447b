//! Answering requests: plan, read, assemble.

use std::sync::Arc;

use bytes::Bytes;

use super::{Core, Inner, ProveError, Stored};
use crate::flat_tree;
use crate::limits::NUMBER_MAX;
use crate::manifest::Manifest;
use crate::merkle::Roots;
use crate::proof::{Plan, PlanError, Proof, ProofRequest, SeekRoot, SeekScope, seek_scope};
use crate::seek;
use crate::storage::StorageError;
use crate::verifier::Verifier;

impl Core {
    /// The proof that answers `request`, or `None` if this core cannot answer it now: another
    /// fork, a block that is not here, or nothing to say.
    ///
    /// # Errors
    /// [`ProveError::Invalid`] if the request does not fit the log, [`ProveError::MissingNode`]
    /// if a node it needs is not here, [`ProveError::Core`] if storage fails.
    pub fn prove(&self, request: &ProofRequest) -> Result<Option<Proof>, ProveError> {
        let view = self.view();
        let manifest = view.manifest().filter(|_| request.manifest);
        let proof = match self.prove_at(&view, request) {
            // A truncate or a reorg came between: what was read may be of two histories.
            _ if !self.inner.is_still_on(view.fork) => None,
            result => result?,
        };
        let manifest_only = || Proof {
            fork: request.fork,
            ..Proof::default()
        };
        let proof = Proof {
            manifest,
            ..proof.unwrap_or_else(manifest_only)
        };
        Ok((!proof.is_empty()).then_some(proof))
    }

    /// How many levels above tree node `index` are missing here: what a request for it says.
    ///
    /// 0 if the node lies past the log, which only an upgrade can prove.
    ///
    /// # Errors
    /// [`StorageError`] if the tree cannot be read.
    pub fn missing_nodes(&self, index: u64) -> Result<u64, StorageError> {
        let length = self.length();
        if index >= NUMBER_MAX || flat_tree::end_block(index) > length {
            return Ok(0);
        }
        let (mut at, mut missing) = (index, 0);
        while !flat_tree::contains(at, 2 * length) && self.inner.storage.node(at)?.is_none() {
            at = flat_tree::parent(at);
            missing += 1;
        }
        Ok(missing)
    }

    /// Whether an upgrade from `length` blocks can be proven.
    ///
    /// # Errors
    /// [`StorageError`] if the tree cannot be read.
    pub fn can_upgrade_from(&self, length: u64) -> Result<bool, StorageError> {
        if length >= self.length() {
            return Ok(length == 0);
        }
        for root in flat_tree::full_roots(length) {
            if self.inner.storage.node(root)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn view(&self) -> View {
        let shared = self.inner.read();
        View {
            fork: shared.fork,
            roots: Arc::clone(&shared.roots),
            signature: shared.signature.clone(),
            verifier: shared.verifier.clone(),
        }
    }

    fn prove_at(&self, view: &View, request: &ProofRequest) -> Result<Option<Proof>, ProveError> {
        let length = view.roots.length();
        if request.fork != view.fork || length == 0 {
            return Ok(None);
        }
        let block = match request.block {
            None => None,
            Some(asked) if asked.index >= length => return Err(PlanError::InvalidNode.into()),
            Some(asked) => match self.get_raw(asked.index)? {
                None => return Ok(None),
                block => block,
            },
        };
        let seek_root = self.seek_root(view, request)?;
        let plan = Plan::new(request, length, view.prologue(), seek_root)?;
        let mut proof = plan.assemble(request, &view.signature, |index| {
            let node = self.inner.storage.node(index)?;
            node.ok_or(ProveError::MissingNode { index })
        })?;
        if let (Some(part), Some(block)) = (&mut proof.block, block) {
            part.value = block;
        }
        Ok(Some(proof))
    }

    fn seek_root(
        &self,
        view: &View,
        request: &ProofRequest,
    ) -> Result<Option<SeekRoot>, ProveError> {
        let scope = seek_scope(request, view.roots.length(), view.prologue())?;
        let (Some(scope), Some(asked)) = (scope, request.seek) else {
            return Ok(None);
        };
        let (bytes, padding) = (asked.bytes, asked.padding);
        let nodes = Stored(&*self.inner.storage);
        let root = match scope {
            SeekScope::Log(to) => seek::seek_root_in_log(to, &nodes, bytes, padding)?,
            SeekScope::Below(node) => {
                seek::seek_root_in_subtree(&view.roots, &nodes, node, bytes, padding)?
            }
        };
        Ok(root.map(SeekRoot))
    }
}

impl Inner {
    /// Whether everything in storage is of history `fork`.
    pub(super) fn is_still_on(&self, fork: u64) -> bool {
        let shared = self.read();
        shared.fork == fork && shared.being_cut_to.is_none()
    }
}

/// The state one answer is made from.
struct View {
    fork: u64,
    roots: Arc<Roots>,
    signature: Bytes,
    verifier: Option<Verifier>,
}

impl View {
    fn prologue(&self) -> Option<&crate::manifest::Prologue> {
        self.verifier.as_ref()?.prologue()
    }

    /// The manifest as it is told to peers: never a compat core's.
    fn manifest(&self) -> Option<Manifest> {
        let verifier = self.verifier.as_ref().filter(|v| !v.is_compat())?;
        Some(verifier.manifest().clone())
    }
}
