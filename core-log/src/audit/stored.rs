//! What an audit reads: nodes, blocks and bits as they are stored, and what they say of each other.
//!
//! Knows which nodes and blocks agree. Does not know what is signed, nor what is done about damage.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use super::roots::Sought;
use super::{Subtree, right_offset};
use crate::bitfield::Bitfield;
use crate::flat_tree;
use crate::merkle::Node;
use crate::storage::{CoreStorage, StorageError};

/// About so many nodes are read before others may change the core.
const TURN_READS: u64 = 4096;
/// About so many bytes of blocks are.
const TURN_BYTES: u64 = 4 << 20;

/// What an audit reads in one turn. Nothing may change it during that.
pub(crate) struct Stored<'a> {
    storage: &'a dyn CoreStorage,
    pub(super) bits: &'a Bitfield,
    /// How many nodes, and how many bytes of blocks, may still be read in this turn.
    left: Cell<(u64, u64)>,
    reads_max: u64,
}

/// What a search below a node has come to, so that it goes on in another turn: what is known of the subtrees beside the way to
/// where it is. Others may have changed the core in between: what comes of it is held against the node anyway.
#[derive(Default)]
pub(super) struct Search {
    rebuilt: HashMap<u64, Option<Node>>,
    pub(super) made: HashMap<(Sought, usize), Vec<Node>>,
}

#[cfg(test)]
impl Search {
    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.rebuilt.is_empty() && self.made.is_empty()
    }
}

/// Why a search ends without an answer.
#[derive(Debug)]
pub(super) enum Halt {
    /// It is the turn of others.
    Spent,
    Failed(StorageError),
}

impl From<StorageError> for Halt {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
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

impl<'a> Stored<'a> {
    pub(crate) fn new(storage: &'a dyn CoreStorage, bits: &'a Bitfield) -> Self {
        Self::with_reads(storage, bits, TURN_READS)
    }

    /// For a turn of about so many nodes.
    pub(super) fn with_reads(
        storage: &'a dyn CoreStorage,
        bits: &'a Bitfield,
        reads_max: u64,
    ) -> Self {
        let left = Cell::default();
        let stored = Self {
            storage,
            bits,
            left,
            reads_max,
        };
        stored.begin_turn();
        stored
    }

    pub(super) fn begin_turn(&self) {
        self.left.set((self.reads_max, TURN_BYTES));
    }

    /// Whether it is the turn of others.
    pub(super) fn is_spent(&self) -> bool {
        let (reads, bytes) = self.left.get();
        reads == 0 || bytes == 0
    }

    fn spend(&self, reads: u64, bytes: u64) {
        let left = self.left.get();
        self.left
            .set((left.0.saturating_sub(reads), left.1.saturating_sub(bytes)));
    }

    /// The first place in `range` that may hold a node.
    pub(super) fn next_node(&self, range: &Range<u64>) -> Result<Option<u64>, StorageError> {
        if range.is_empty() {
            return Ok(None);
        }
        self.spend(1, 0);
        let next = self.storage.next_node(range.start)?;
        Ok(next.filter(|index| range.contains(index)))
    }

    /// As [`Stored::next_node`], whether there is any.
    pub(super) fn may_have_nodes(&self, range: &Range<u64>) -> Result<bool, StorageError> {
        Ok(self.next_node(range)?.is_some())
    }

    /// What is in the place of node `index`.
    pub(super) fn slot(&self, index: u64) -> Result<Slot, StorageError> {
        self.spend(1, 0);
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
        let block = self.block(byte_offset, size)?;
        Ok(block.map(|block| Node::leaf(index, &block)))
    }

    /// The bytes from `byte_offset` on, if there are as many.
    pub(super) fn block(
        &self,
        byte_offset: u64,
        size: usize,
    ) -> Result<Option<Bytes>, StorageError> {
        match self.storage.block(byte_offset, size) {
            Ok(block) => {
                self.spend(0, size as u64);
                Ok(Some(block))
            }
            Err(StorageError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first block below `index` that is said to be here.
    pub(super) fn marked_below(&self, index: u64) -> Option<u64> {
        let marked = self.bits.next_set(flat_tree::first_block(index));
        marked.filter(|block| *block < flat_tree::end_block(index))
    }

    /// Two children that make the node, each as stored or as what lies below it says.
    ///
    /// # Errors
    /// [`Halt::Spent`] if it takes another turn: then `search` knows how far this one came.
    pub(super) fn proven_children(
        &self,
        search: &mut Search,
        at: &Subtree,
        slots: [Slot; 2],
    ) -> Result<Option<(Node, Node)>, Halt> {
        let Some((left, right)) = flat_tree::children(at.node.index) else {
            return Ok(None);
        };
        let mut lefts = self.near_candidates(at, left, slots)?;
        let mut rights = self.near_candidates(at, right, slots)?;
        // Nearly always so much has to be read.
        if let Some(pair) = pair_that_makes(at, &lefts, &rights) {
            return Ok(Some(pair));
        }
        lefts.extend(self.far_candidates(search, left, at.byte_offset)?);
        let left_size = lefts.first().map_or(0, |node| node.size);
        let start = right_offset(at, slots).unwrap_or(at.byte_offset.saturating_add(left_size));
        rights.extend(self.far_candidates(search, right, start)?);
        Ok(pair_that_makes(at, &lefts, &rights))
    }

    /// What the child `index` of `at` may be by itself, and by what is next to it or right below.
    fn near_candidates(
        &self,
        at: &Subtree,
        index: u64,
        [left, right]: [Slot; 2],
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

    /// What an inner node may be by all that is stored below it. Cost: up to as many reads as nodes and blocks are below.
    fn far_candidates(
        &self,
        search: &mut Search,
        index: u64,
        byte_offset: u64,
    ) -> Result<Vec<Node>, Halt> {
        if flat_tree::children(index).is_none() {
            return Ok(Vec::new());
        }
        let mut candidates: Vec<Node> = self.rebuilt(search, index)?.into_iter().collect();
        candidates.extend(self.made_of_all_below(search, index, byte_offset)?);
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
    fn rebuilt(&self, search: &mut Search, index: u64) -> Result<Option<Node>, Halt> {
        if let Some(known) = search.rebuilt.get(&index) {
            return Ok(*known);
        }
        if self.is_spent() {
            return Err(Halt::Spent);
        }
        let stored = self.slot(index)?.node();
        let rebuilt = match flat_tree::children(index) {
            None => stored,
            Some((left, right)) => {
                if [self.slot(left)?, self.slot(right)?] == [Slot::Absent; 2] {
                    stored
                } else {
                    let lower = [self.rebuilt(search, left)?, self.rebuilt(search, right)?];
                    for known in [left, right] {
                        search.rebuilt.remove(&known);
                    }
                    match lower {
                        [Some(left), Some(right)] => Node::parent(&left, &right),
                        _ => stored,
                    }
                }
            }
        };
        search.rebuilt.insert(index, rebuilt);
        Ok(rebuilt)
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

/// The first two that make the node.
fn pair_that_makes(at: &Subtree, lefts: &[Node], rights: &[Node]) -> Option<(Node, Node)> {
    let pairs = lefts
        .iter()
        .flat_map(|left| rights.iter().map(move |right| (*left, *right)));
    pairs
        .into_iter()
        .find(|(left, right)| makes(at, left, right))
}

/// Whether `left` and `right` are the children that the node was made of.
pub(super) fn makes(at: &Subtree, left: &Node, right: &Node) -> bool {
    Node::parent(left, right) == Some(at.node)
}
