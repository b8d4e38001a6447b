//! What an audit reads: nodes, blocks and bits as they are stored, and what they say of each other.
//!
//! Knows which nodes and blocks agree. Does not know what is signed, nor what is done about damage.

use std::ops::Range;

use bytes::Bytes;

use super::{Subtree, right_offset};
use crate::bitfield::Bitfield;
use crate::flat_tree;
use crate::merkle::Node;
use crate::storage::{CoreStorage, StorageError};

/// What an audit reads. Nothing may change it during a call.
pub(crate) struct Stored<'a> {
    pub(crate) storage: &'a dyn CoreStorage,
    pub(crate) bits: &'a Bitfield,
}

/// A place of the tree, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Here(Node),
    Absent,
    /// No node can look like that.
    Impossible,
}

impl Slot {
    pub(super) fn node(self) -> Option<Node> {
        match self {
            Self::Here(node) => Some(node),
            Self::Absent | Self::Impossible => None,
        }
    }
}

impl Stored<'_> {
    /// The first place in `range` that may hold a node.
    pub(super) fn next_node(&self, range: &Range<u64>) -> Result<Option<u64>, StorageError> {
        if range.is_empty() {
            return Ok(None);
        }
        let next = self.storage.next_node(range.start)?;
        Ok(next.filter(|index| range.contains(index)))
    }

    /// As [`Stored::next_node`], whether there is any.
    pub(super) fn may_have_nodes(&self, range: &Range<u64>) -> Result<bool, StorageError> {
        Ok(self.next_node(range)?.is_some())
    }

    /// What is in the place of node `index`.
    pub(super) fn slot(&self, index: u64) -> Result<Slot, StorageError> {
        match self.storage.node(index) {
            Ok(node) => Ok(node.map_or(Slot::Absent, Slot::Here)),
            Err(StorageError::Corrupt { .. }) => Ok(Slot::Impossible),
            Err(error) => Err(error),
        }
    }

    /// The leaf of what lies where block `index` should; `None` if nothing does.
    pub(super) fn leaf(
        &self,
        index: u64,
        byte_offset: u64,
        size: u64,
    ) -> Result<Option<Node>, StorageError> {
        let Ok(size) = usize::try_from(size) else {
            return Ok(None);
        };
        let block: Option<Bytes> = match self.storage.block(byte_offset, size) {
            Ok(block) => Some(block),
            Err(StorageError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(block.map(|block| Node::leaf(index, &block)))
    }

    /// The first block below `index` that is said to be here.
    pub(super) fn marked_below(&self, index: u64) -> Option<u64> {
        let marked = self.bits.next_set(flat_tree::first_block(index));
        marked.filter(|block| *block < flat_tree::end_block(index))
    }

    /// Two children that make the node, each as stored or as what lies below it says.
    pub(super) fn proven_children(
        &self,
        at: &Subtree,
        slots: [Slot; 2],
    ) -> Result<Option<(Node, Node)>, StorageError> {
        let Some((left, right)) = flat_tree::children(at.node.index) else {
            return Ok(None);
        };
        let lefts = self.candidates(at, left, slots, at.byte_offset)?;
        let left_size = lefts.first().map_or(0, |node| node.size);
        let start = right_offset(at, slots).unwrap_or(at.byte_offset.saturating_add(left_size));
        let rights = self.candidates(at, right, slots, start)?;
        let pairs = lefts
            .iter()
            .flat_map(|left| rights.iter().map(move |right| (*left, *right)));
        Ok(pairs
            .into_iter()
            .find(|(left, right)| makes(at, left, right)))
    }

    /// What the child `index` of `at` may be.
    fn candidates(
        &self,
        at: &Subtree,
        index: u64,
        [left, right]: [Slot; 2],
        byte_offset: u64,
    ) -> Result<Vec<Node>, StorageError> {
        let is_left = index < at.node.index;
        let (own, other) = if is_left {
            (left, right)
        } else {
            (right, left)
        };
        let mut candidates: Vec<Node> = own.node().into_iter().collect();
        if flat_tree::children(index).is_some() {
            candidates.extend(self.parent_of_children(index)?);
            candidates.extend(self.rebuilt(index)?);
            candidates.extend(self.made_of_all_below(index, byte_offset)?);
            return Ok(candidates);
        }
        let block = flat_tree::first_block(index);
        if !self.bits.get(block) {
            return Ok(candidates);
        }
        let rest = other.node().and_then(|n| at.node.size.checked_sub(n.size));
        let sizes = own.node().map(|node| node.size).into_iter().chain(rest);
        for size in sizes.filter(|size| *size <= at.node.size) {
            let skipped = if is_left { 0 } else { at.node.size - size };
            let byte_offset = at.byte_offset.saturating_add(skipped);
            candidates.extend(self.leaf(block, byte_offset, size)?);
        }
        Ok(candidates)
    }

    /// What the children of `index` make of it.
    fn parent_of_children(&self, index: u64) -> Result<Option<Node>, StorageError> {
        let Some((left, right)) = flat_tree::children(index) else {
            return Ok(None);
        };
        let children = self.slot(left)?.node().zip(self.slot(right)?.node());
        Ok(children.and_then(|(left, right)| Node::parent(&left, &right)))
    }

    /// What the lowest nodes below `index` make of it. Cost: as many reads as nodes are below.
    fn rebuilt(&self, index: u64) -> Result<Option<Node>, StorageError> {
        let stored = self.slot(index)?;
        let Some((left, right)) = flat_tree::children(index) else {
            return Ok(stored.node());
        };
        if [self.slot(left)?, self.slot(right)?] == [Slot::Absent; 2] {
            return Ok(stored.node());
        }
        match self.rebuilt(left)?.zip(self.rebuilt(right)?) {
            Some((left, right)) => Ok(Node::parent(&left, &right)),
            None => Ok(stored.node()),
        }
    }

    /// Whether what lies below a node agrees with it.
    pub(super) fn is_backed(&self, slot: Slot, byte_offset: u64) -> Result<bool, StorageError> {
        let Slot::Here(node) = slot else {
            return Ok(false);
        };
        if flat_tree::children(node.index).is_some() {
            return Ok(self.parent_of_children(node.index)? == Some(node));
        }
        let block = flat_tree::first_block(node.index);
        let is_marked = self.bits.get(block);
        Ok(is_marked && self.leaf(block, byte_offset, node.size)? == Some(node))
    }
}

/// Whether `left` and `right` are the children that the node was made of.
pub(super) fn makes(at: &Subtree, left: &Node, right: &Node) -> bool {
    Node::parent(left, right) == Some(at.node)
}
