//! Answering requests: plan, read, assemble.

use std::sync::Arc;

use bytes::Bytes;

use super::{Core, CoreError, Inner, ProveError, Stored};
use crate::flat_tree;
use crate::limits::NUMBER_MAX;
use crate::manifest::Manifest;
use crate::merkle::Roots;
use crate::proof::{Plan, PlanError, Proof, ProofRequest, SeekRoot, SeekScope, seek_scope};
use crate::seek::{self, NodeSource};
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
        let block = view.block_of(request).map(|index| self.get_raw(index));
        self.prove_with(&view, request, block)
    }

    /// As [`Core::prove`] for several requests, which costs less: their blocks are hashed several at a time.
    ///
    /// Answers a beginning of `requests`: it ends before the block with which the blocks would come to more
    /// than `bytes_max` bytes, but not before the first.
    pub fn prove_all(
        &self,
        requests: &[ProofRequest],
        bytes_max: usize,
    ) -> Vec<Result<Option<Proof>, ProveError>> {
        self.prove_beginning(requests, bytes_max, usize::MAX)
    }

    /// As [`Core::prove_all`], but it ends also before the first block if that alone is longer than
    /// `bytes_max`: for callers that must find room for it first.
    pub fn prove_short(
        &self,
        requests: &[ProofRequest],
        bytes_max: usize,
    ) -> Vec<Result<Option<Proof>, ProveError>> {
        self.prove_beginning(requests, bytes_max, bytes_max)
    }

    fn prove_beginning(
        &self,
        requests: &[ProofRequest],
        bytes_max: usize,
        first_max: usize,
    ) -> Vec<Result<Option<Proof>, ProveError>> {
        let view = self.view();
        let indexes: Vec<_> = requests.iter().filter_map(|r| view.block_of(r)).collect();
        let blocks = self.get_raw_beginning(&indexes, bytes_max, first_max);
        let mut blocks = blocks.into_iter();
        let mut proofs = Vec::with_capacity(requests.len());
        for request in requests {
            let block = match view.block_of(request) {
                None => None,
                Some(_) => match blocks.next() {
                    None => break,
                    block => block,
                },
            };
            proofs.push(self.prove_with(&view, request, block));
        }
        proofs
    }

    /// Proves with the block that the request asks for, if it asks for one that the log has.
    fn prove_with(
        &self,
        view: &View,
        request: &ProofRequest,
        block: Option<Result<Option<Bytes>, CoreError>>,
    ) -> Result<Option<Proof>, ProveError> {
        let manifest = view.manifest().filter(|_| request.manifest);
        let proof = match self.prove_at(view, request, block) {
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
    /// A node whose sibling is not here, as damage may leave it, counts as missing: nothing proves it, so that what comes
    /// must not be held against it. Where the tree was seen to be damaged, all levels count: what comes then is held against a
    /// root, and takes the place of what is here. Of more than 64 such places neighbours count as one: all levels count also between them.
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
        let is_doubted = self.inner.doubts.concern(index);
        let is_root = |node| flat_tree::contains(flat_tree::parent(node), 2 * length);
        while !is_root(at) && (is_doubted || !self.has_pair(at)?) {
            at = flat_tree::parent(at);
            missing += 1;
        }
        Ok(missing)
    }

    /// Whether a node that is no root is here, and its sibling, as whatever proved it brought both.
    fn has_pair(&self, node: u64) -> Result<bool, StorageError> {
        let is_here = |index| match self.inner.storage.node(index) {
            Ok(node) => Ok(node.is_some()),
            Err(StorageError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        Ok(is_here(node)? && is_here(flat_tree::sibling(node))?)
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

    fn prove_at(
        &self,
        view: &View,
        request: &ProofRequest,
        block: Option<Result<Option<Bytes>, CoreError>>,
    ) -> Result<Option<Proof>, ProveError> {
        let length = view.roots.length();
        if request.fork != view.fork || length == 0 {
            return Ok(None);
        }
        let block = match block.transpose()? {
            None if request.block.is_some() => return Err(PlanError::InvalidNode.into()),
            None => None,
            Some(None) => return Ok(None),
            Some(block) => block,
        };
        let seek_root = self.seek_root(view, request)?;
        let plan = Plan::new(request, length, view.prologue(), seek_root)?;
        if seek_root.is_none() && self.is_seek_outside(view, request)? {
            return Err(PlanError::SeekOutside.into());
        }
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

    /// Whether a seek without a root asks for a byte outside its node, as far as the nodes that are here tell.
    /// Matches `seekUntrustedTree` of `hypercore/lib/merkle-tree.js` 11.37.1, which refuses such a request.
    fn is_seek_outside(&self, view: &View, request: &ProofRequest) -> Result<bool, ProveError> {
        let scope = seek_scope(request, view.roots.length(), view.prologue())?;
        let Some(SeekScope::Below(node)) = scope else {
            return Ok(false);
        };
        let nodes = Stored(&*self.inner.storage);
        let start = seek::byte_offset(&view.roots, &nodes, node)?;
        Ok(start.is_some() && nodes.node(node)?.is_some())
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
    /// The block that answers `request`, if the log has it.
    fn block_of(&self, request: &ProofRequest) -> Option<u64> {
        let index = request.block?.index;
        (request.fork == self.fork && index < self.roots.length()).then_some(index)
    }

    fn prologue(&self) -> Option<&crate::manifest::Prologue> {
        self.verifier.as_ref()?.prologue()
    }

    /// The manifest as it is told to peers: never a compat core's.
    fn manifest(&self) -> Option<Manifest> {
        let verifier = self.verifier.as_ref().filter(|v| !v.is_compat())?;
        Some(verifier.manifest().clone())
    }
}
