//! Copying a pinned beginning out of another core that begins with the same blocks.
//!
//! The walk goes down from the roots, which the manifest pins, and checks each step: children
//! against the node above them, blocks against the subtree they make. So a copy needs no trust in
//! what it is copied from. A subtree is committed whole, with the path to it; whatever a crash
//! leaves is a sparse core that says so, and the next copy goes on from there.

use bytes::Bytes;

use super::{AcceptError, Core, CoreError, HashedBlocks};
use crate::changeset::{Changeset, VerifyError};
use crate::flat_tree;
use crate::limits::BLOCK_BYTES_MAX;
use crate::merkle::{Node, Roots};
use crate::proof::{Proof, UpgradeProof};
use crate::storage::StorageError;

/// A subtree of at most so many bytes is copied at once, if it is not a single block.
const SUBTREE_BYTES_MAX: u64 = 4 << 20;
/// A subtree of at most so many blocks is copied at once.
const SUBTREE_BLOCKS_MAX: u64 = 4096;

impl Core {
    /// Copies what this core's manifest pins out of `source`, which must begin with the same
    /// blocks. What is here already is not copied again, so a copy that was cut off goes on.
    ///
    /// Blocks are copied as they are stored: encrypted ones stay encrypted, and are read with
    /// the source's [block key](crate::EncryptionKey::of_core). Holds at most some 4 MiB of
    /// blocks, or one larger block, at a time. `source` is not changed.
    ///
    /// # Errors
    /// [`CoreError::Prologue`] if nothing is pinned or `source` begins otherwise;
    /// [`CoreError::MissingBlock`] if `source` lacks one; [`CoreError::HistoryChanged`] if it is
    /// truncated meanwhile; [`CoreError::Storage`]. What was copied by then stays.
    pub fn copy_prologue(&self, source: &Self) -> Result<(), CoreError> {
        let core = self.key();
        let pinned = {
            let shared = self.inner.read();
            let prologue = shared.verifier.as_ref().and_then(|v| v.prologue());
            prologue.copied().ok_or(CoreError::Prologue { core })?
        };
        let head = source.tree_head(pinned.length)?;
        if head.hash != pinned.hash {
            return Err(CoreError::Prologue { core });
        }
        source.check_whole(pinned.length)?;
        let copy = Copy {
            source,
            target: self,
            fork: head.fork,
        };
        copy.run(pinned.length)
    }

    /// Takes the blocks of the pinned beginning, whose tree these are, in one commit.
    pub(crate) fn fill_prologue(
        &self,
        blocks: Vec<Bytes>,
        roots: Roots,
        nodes: Vec<Node>,
    ) -> Result<(), CoreError> {
        let mut changeset = self.changeset();
        if roots.length() > self.length() {
            changeset.roots = roots;
            changeset.signature = Some(Bytes::new()); // the manifest stands in for it
        }
        changeset.nodes = nodes.into_iter().map(|node| (node.index, node)).collect();
        changeset.blocks = (0..).zip(blocks).collect();
        self.commit_whole(changeset)
    }

    fn commit_whole(&self, changeset: Changeset) -> Result<(), CoreError> {
        let accepted = self.commit(changeset);
        let accepted = accepted.map_err(|error| refused(self, error))?;
        match accepted.unplaced.first() {
            Some(index) => Err(refused(self, AcceptError::Unplaced { index: *index })),
            None => Ok(()),
        }
    }

    /// Whether the first `length` blocks are here.
    pub(crate) fn check_whole(&self, length: u64) -> Result<(), CoreError> {
        let missing = self.with_bitfield(|bits| bits.next_unset(0));
        match missing < length {
            true => Err(CoreError::MissingBlock {
                core: self.key(),
                index: missing,
            }),
            false => Ok(()),
        }
    }
}

struct Copy<'a> {
    source: &'a Core,
    target: &'a Core,
    /// The source's history when this began.
    fork: u64,
}

impl Copy<'_> {
    fn run(&self, length: u64) -> Result<(), CoreError> {
        let (_, roots) = self.source.inner.roots_at(length)?;
        if self.target.length() < length {
            self.take_roots(roots.nodes().to_vec(), length)?;
        }
        let (mut rest, mut byte_offset) = (Vec::new(), 0);
        for root in roots.nodes() {
            rest.push((*root, byte_offset));
            byte_offset += root.size;
        }
        rest.reverse(); // the first comes first
        let mut path = Vec::new();
        while let Some((node, byte_offset)) = rest.pop() {
            if self.is_here(&node) {
                continue;
            }
            if is_small(&node) {
                self.copy_subtree(&node, byte_offset, std::mem::take(&mut path))?;
                continue;
            }
            let [left, right] = self.children(&node)?;
            path.extend([left, right]);
            rest.push((right, byte_offset.saturating_add(left.size)));
            rest.push((left, byte_offset));
        }
        Ok(())
    }

    /// Takes the pinned tree, of which no block is here yet.
    fn take_roots(&self, nodes: Vec<Node>, length: u64) -> Result<(), CoreError> {
        let upgrade = UpgradeProof {
            start: 0,
            length,
            nodes,
            additional: Vec::new(),
            signature: None,
        };
        let proof = Proof {
            upgrade: Some(upgrade),
            ..Proof::default()
        };
        let taken = self.target.accept(proof).map(drop);
        taken.map_err(|error| refused(self.target, error))
    }

    fn is_here(&self, node: &Node) -> bool {
        let blocks = flat_tree::first_block(node.index)..flat_tree::end_block(node.index);
        self.target.count(blocks) == flat_tree::leaves(node.index)
    }

    /// The children of a node that is known to be right.
    fn children(&self, node: &Node) -> Result<[Node; 2], CoreError> {
        let Some((left, right)) = flat_tree::children(node.index) else {
            return Err(self.mismatch(node));
        };
        let children = [self.node(left)?, self.node(right)?];
        let parent = Node::parent(&children[0], &children[1]);
        match parent.as_ref() == Some(node) {
            true => Ok(children),
            false => Err(self.mismatch(node)),
        }
    }

    fn node(&self, index: u64) -> Result<Node, CoreError> {
        let node = self.source.inner.storage.node(index)?;
        node.ok_or(CoreError::MissingNodes {
            core: self.source.key(),
            index: flat_tree::first_block(index),
        })
    }

    /// Copies the blocks below `node`, if they are those that make it, and the `path` to it.
    ///
    /// Of two siblings that were looked up, only the sum of the sizes is proven. The blocks prove
    /// that of one at the bottom, and so those of all on the path.
    fn copy_subtree(
        &self,
        node: &Node,
        byte_offset: u64,
        path: Vec<Node>,
    ) -> Result<(), CoreError> {
        let first = flat_tree::first_block(node.index);
        let blocks = self.read_blocks(node, byte_offset)?;
        let hashed = HashedBlocks::hash(blocks);
        let leaves = hashed.leaves(first).collect();
        let mut nodes = path;
        if nodes_above(leaves, &mut nodes).as_ref() != Some(node) {
            return Err(self.mismatch(node));
        }
        let blocks = (first..).zip(hashed.into_blocks()).collect();
        self.commit(nodes, blocks)
    }

    /// What the source has in place of the blocks below `node`: verified by nobody yet.
    fn read_blocks(&self, node: &Node, byte_offset: u64) -> Result<Vec<Bytes>, CoreError> {
        let end = byte_offset.saturating_add(node.size);
        let (mut blocks, mut offset) = (Vec::new(), byte_offset);
        for index in flat_tree::first_block(node.index)..flat_tree::end_block(node.index) {
            let size = self.node(2 * index)?.size;
            let len = usize::try_from(size).ok();
            let fits = offset.checked_add(size).is_some_and(|to| to <= end);
            let len = len.filter(|len| fits && *len <= BLOCK_BYTES_MAX);
            let len = len.ok_or_else(|| self.mismatch(node))?;
            blocks.push(self.source.inner.storage.block(offset, len)?);
            offset += size;
        }
        Ok(blocks)
    }

    /// Commits what was found to be right.
    fn commit(&self, nodes: Vec<Node>, blocks: Vec<(u64, Bytes)>) -> Result<(), CoreError> {
        let mut changeset = self.target.changeset();
        changeset.nodes = nodes.into_iter().map(|node| (node.index, node)).collect();
        changeset.blocks = blocks;
        self.target.commit_whole(changeset)
    }

    /// Why what the source has below `node` does not make it.
    fn mismatch(&self, node: &Node) -> CoreError {
        let (core, source) = (self.source.key(), self.source);
        if source.fork() != self.fork {
            return CoreError::HistoryChanged { core };
        }
        match source.check_whole(flat_tree::end_block(node.index)) {
            Err(missing) => missing,
            Ok(()) => CoreError::Storage(StorageError::Corrupt {
                core: source.discovery_key(),
                part: "tree",
                offset: node.index,
                reason: "blocks and nodes below do not make this node; audit the core".to_owned(),
            }),
        }
    }
}

/// Why `core` did not take what belongs to its beginning.
fn refused(core: &Core, error: AcceptError) -> CoreError {
    let discovery_key = core.discovery_key();
    let core = core.key();
    match error {
        AcceptError::Storage(error) | AcceptError::Verify(VerifyError::Storage(error)) => {
            error.into()
        }
        AcceptError::Verify(VerifyError::Stale) => CoreError::HistoryChanged { core },
        AcceptError::Verify(_) => CoreError::Prologue { core },
        AcceptError::TooMuch { max } => CoreError::TooManyAppends { max },
        AcceptError::Unplaced { index } => CoreError::Storage(StorageError::Corrupt {
            core: discovery_key,
            part: "tree",
            offset: 2 * index,
            reason: "the nodes above do not tell where this block begins; audit the core"
                .to_owned(),
        }),
    }
}

/// Whether what is below `node` is copied at once.
fn is_small(node: &Node) -> bool {
    let leaves = flat_tree::leaves(node.index);
    leaves == 1 || (leaves <= SUBTREE_BLOCKS_MAX && node.size <= SUBTREE_BYTES_MAX)
}

/// Adds a whole subtree to `nodes`, from its leaves up, and returns its top.
fn nodes_above(leaves: Vec<Node>, nodes: &mut Vec<Node>) -> Option<Node> {
    let mut level = leaves;
    loop {
        nodes.extend_from_slice(&level);
        if let [top] = level.as_slice() {
            return Some(*top);
        }
        let (pairs, []) = level.as_chunks::<2>() else {
            return None;
        };
        let parents = pairs.iter().map(|[left, right]| Node::parent(left, right));
        level = parents.collect::<Option<_>>()?;
        if level.is_empty() {
            return None;
        }
    }
}
