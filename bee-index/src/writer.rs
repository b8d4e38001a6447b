//! Puts and dels of one batch, and the blocks they become.
//!
//! The rules are those of hyperbee 2.27 (`index.js`), so that the same operations in the same
//! batches give the same blocks. The surprising ones:
//! - inner nodes on the way of a put are marked changed at once, and stay so when the put is
//!   refused in the end: the next operation of the batch writes them again;
//! - a deleted key of an inner node is replaced from the fuller one of the two leaves beside it;
//! - of all blocks but the last, levels that a later block wrote again are dropped at the end,
//!   but a node that became the root by a collapse leaves its old level behind.
#![expect(
    clippy::indexing_slicing,
    reason = "indices come from searches of the same node; nodes are checked when they are loaded"
)]

use std::cmp::Ordering;

use bytes::Bytes;
use ferrocore_log::{AppendOptions, CoreError};

use crate::arena::{Arena, KEYS_MIN, NodeId, SlotId, Step};
use crate::block::{Entry, encode_block};
use crate::error::BeeError;
use crate::limits::WRITER_BYTES_MAX;
use crate::protobuf::Malformed;
use crate::reader::Tree;

/// Decides whether an existing entry may be replaced or deleted.
pub(crate) type Condition<'a> = Option<Box<dyn FnOnce(&Entry) -> bool + Send + 'a>>;

/// An open batch on top of a committed version. Once flushed it can go on as the next batch, which
/// saves reading what it knows.
pub(crate) struct Writer {
    tree: Tree,
    always_duplicate: bool,
    arena: Arena,
    root: Option<NodeId>,
    pending: Vec<Pending>,
    /// Whether a put since the last commit has marked nodes as changed.
    marked: bool,
    /// Set while nodes are being rearranged: an error or a dropped future leaves it set.
    broken: bool,
}

/// An operation that is not on the core yet.
struct Pending {
    key: Bytes,
    value: Option<Bytes>,
    levels: Vec<SlotId>,
}

/// Where the way down to a key ends.
struct Descent {
    path: Vec<Step>,
    node: NodeId,
    /// As of a binary search: the index of the key, or where it would be inserted.
    place: Result<usize, usize>,
}

/// The side of a subtree to walk down.
#[derive(Clone, Copy)]
enum Edge {
    First,
    Last,
}

/// How a node got its keys back.
#[derive(PartialEq, Eq)]
enum Refilled {
    /// From a sibling: its parent has as many keys as before.
    Borrowed,
    /// By a merge: its parent has one less.
    Merged,
}

impl Writer {
    pub(crate) fn new(tree: Tree, always_duplicate: bool) -> Self {
        Self {
            tree,
            always_duplicate,
            arena: Arena::default(),
            root: None,
            pending: Vec::new(),
            marked: false,
            broken: false,
        }
    }

    /// Returns whether the put was made, which only a key that exists can prevent.
    pub(crate) async fn put(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        condition: Condition<'_>,
    ) -> Result<bool, BeeError> {
        self.check_whole()?;
        let root = match self.root().await? {
            Some(root) => root,
            None => self.arena.add_empty_leaf(),
        };
        self.marked = true;
        let descent = self.descend(root, &key, true).await?;
        let node = descent.node;
        if let Ok(index) = descent.place
            && !self.may_replace(node, index, &value, condition).await?
        {
            return Ok(false);
        }
        let new = self.arena.new_key(self.next_seq(), &key);
        let root = match descent.place {
            Ok(index) => {
                self.arena.replace(node, index, new);
                root
            }
            Err(index) => self.arena.insert(descent.path, node, index, new),
        };
        self.commit(root, key, value);
        Ok(true)
    }

    /// Returns whether the key was there and is deleted.
    pub(crate) async fn del(
        &mut self,
        key: Bytes,
        condition: Condition<'_>,
    ) -> Result<bool, BeeError> {
        self.check_whole()?;
        let Some(root) = self.root().await? else {
            return Ok(false);
        };
        let descent = self.descend(root, &key, false).await?;
        let (mut path, node) = (descent.path, descent.node);
        let Ok(index) = descent.place else {
            return Ok(false);
        };
        if let Some(condition) = condition
            && !condition(&self.entry_at(node, index).await?)
        {
            return Ok(false);
        }
        self.broken = true;
        let leaf = self.remove_key(&mut path, node, index).await?;
        for step in &path {
            self.arena[step.node].changed = true;
        }
        self.arena[leaf].changed = true;
        let root = self.rebalance(path, leaf).await?;
        self.commit(root, key, None);
        Ok(true)
    }

    /// The entry of `key`, operations of this batch included.
    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<Option<Entry>, BeeError> {
        self.check_whole()?;
        let Some(root) = self.root().await? else {
            return Ok(None);
        };
        let descent = self.descend(root, key, false).await?;
        match descent.place {
            Ok(index) => self.entry_at(descent.node, index).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Appends all operations to the core at once.
    pub(crate) fn flush(&mut self) -> Result<(), BeeError> {
        self.check_whole()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let read = AppendOptions::at(self.tree.fork(), self.tree.version());
        let blocks = self.encode();
        match self.tree.core().append_with(blocks, read) {
            Err(CoreError::Moved { .. }) => return Err(BeeError::Conflict),
            appended => appended?,
        };
        self.tree = self.tree.grown_to(self.next_seq());
        self.pending.clear();
        Ok(())
    }

    /// Whether another batch may go on from here, as if it began by reading what is on the core:
    /// what a refused put has marked must not show in its blocks.
    pub(crate) fn is_reusable(&self) -> bool {
        let is_clean = !self.broken && !self.marked && self.pending.is_empty();
        is_clean && self.is_current() && self.arena.size() <= WRITER_BYTES_MAX
    }

    fn is_current(&self) -> bool {
        let core = self.tree.core();
        core.length() == self.tree.version() && core.fork() == self.tree.fork()
    }

    fn check_whole(&self) -> Result<(), BeeError> {
        if self.broken {
            return Err(BeeError::BrokenBatch);
        }
        Ok(())
    }

    async fn root(&mut self) -> Result<Option<NodeId>, BeeError> {
        if self.root.is_none() {
            let node = self.tree.root().await?;
            self.root = node.map(|node| self.arena.load(&node));
        }
        Ok(self.root)
    }

    /// Walks from `root` to the node that has `key`, or to the leaf that would have it.
    async fn descend(
        &mut self,
        root: NodeId,
        key: &[u8],
        mark_changed: bool,
    ) -> Result<Descent, BeeError> {
        let mut path = Vec::new();
        let mut node = root;
        loop {
            let is_leaf = self.arena[node].is_leaf();
            self.arena[node].changed |= mark_changed && !is_leaf;
            let place = self.search(node, key).await?;
            match place {
                Err(child) if !is_leaf => {
                    path.push(Step { node, child });
                    node = self.child(node, child, path.len()).await?;
                }
                _ => return Ok(Descent { path, node, place }),
            }
        }
    }

    /// The index of `key` in `node`, or else that of the child it would be under.
    async fn search(&mut self, node: NodeId, key: &[u8]) -> Result<Result<usize, usize>, BeeError> {
        let (mut low, mut high) = (0, self.arena[node].keys.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.compare(key, node, middle).await? {
                Ordering::Less => high = middle,
                Ordering::Greater => low = middle + 1,
                Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    async fn compare(
        &mut self,
        key: &[u8],
        node: NodeId,
        index: usize,
    ) -> Result<Ordering, BeeError> {
        let other = &self.arena[node].keys[index];
        if let Some(bytes) = &other.bytes {
            return Ok(key.cmp(bytes));
        }
        let seq = other.seq;
        let entry = self.tree.block(seq).await?.into_entry(seq);
        self.arena[node].keys[index] = self.arena.new_key(seq, &entry.key);
        Ok(key.cmp(&entry.key))
    }

    /// Child `index` of `parent`, `depth` steps below the root.
    async fn child(
        &mut self,
        parent: NodeId,
        index: usize,
        depth: usize,
    ) -> Result<NodeId, BeeError> {
        let slot = self.arena[parent].children[index];
        if let Some(node) = self.arena[slot].node {
            return Ok(node);
        }
        let node = self.tree.node(self.arena[slot].pointer, depth).await?;
        let node = self.arena.load(&node);
        self.arena[slot].node = Some(node);
        Ok(node)
    }

    async fn entry_at(&self, node: NodeId, index: usize) -> Result<Entry, BeeError> {
        let seq = self.arena[node].keys[index].seq;
        let Some(pending) = seq.checked_sub(self.tree.version()) else {
            return Ok(self.tree.block(seq).await?.into_entry(seq));
        };
        let Pending { key, value, .. } = &self.pending[pending as usize];
        Ok(Entry {
            seq,
            key: key.clone(),
            value: value.clone(),
        })
    }

    async fn may_replace(
        &self,
        node: NodeId,
        index: usize,
        value: &Option<Bytes>,
        condition: Condition<'_>,
    ) -> Result<bool, BeeError> {
        if condition.is_none() && self.always_duplicate {
            return Ok(true);
        }
        let previous = self.entry_at(node, index).await?;
        let allowed = condition.is_none_or(|condition| condition(&previous));
        Ok(allowed && (self.always_duplicate || previous.value != *value))
    }

    /// Removes a key, filling its place from a leaf if `node` is an inner one. Returns the leaf
    /// that has a key less now, and extends `path` down to it.
    async fn remove_key(
        &mut self,
        path: &mut Vec<Step>,
        node: NodeId,
        index: usize,
    ) -> Result<NodeId, BeeError> {
        if self.arena[node].is_leaf() {
            self.arena[node].keys.remove(index);
            return Ok(node);
        }
        let depth = path.len();
        let (left_way, left) = self.way_to_leaf(depth, node, index, Edge::Last).await?;
        let (right_way, right) = self
            .way_to_leaf(depth, node, index + 1, Edge::First)
            .await?;
        let left_keys = self.arena[left].keys.len();
        let (way, leaf, at) = if left_keys < self.arena[right].keys.len() {
            (right_way, right, 0)
        } else {
            (left_way, left, left_keys - 1)
        };
        self.arena[node].keys[index] = self.arena[leaf].keys.remove(at);
        path.extend(way);
        Ok(leaf)
    }

    /// From `node`, `depth` steps below the root, down child `index` and then along one edge.
    async fn way_to_leaf(
        &mut self,
        depth: usize,
        node: NodeId,
        index: usize,
        edge: Edge,
    ) -> Result<(Vec<Step>, NodeId), BeeError> {
        let mut way = vec![Step { node, child: index }];
        let mut node = self.child(node, index, depth + 1).await?;
        while !self.arena[node].is_leaf() {
            let child = match edge {
                Edge::First => 0,
                Edge::Last => self.arena[node].children.len() - 1,
            };
            way.push(Step { node, child });
            node = self.child(node, child, depth + way.len()).await?;
        }
        Ok((way, node))
    }

    /// Gives nodes on `path` that have too few keys some of their siblings', from `node` upwards.
    /// Returns the root, which is another one if the tree has become lower.
    async fn rebalance(
        &mut self,
        mut path: Vec<Step>,
        mut node: NodeId,
    ) -> Result<NodeId, BeeError> {
        let root = path.first().map_or(node, |step| step.node);
        while let Some(step) = path.pop() {
            if self.arena[node].keys.len() >= KEYS_MIN {
                return Ok(root);
            }
            let depth = path.len() + 1;
            if self.refill(step, node, depth).await? == Refilled::Borrowed {
                return Ok(root);
            }
            node = step.node;
        }
        if self.arena[root].keys.is_empty() && !self.arena[root].is_leaf() {
            return self.child(root, 0, 1).await;
        }
        Ok(root)
    }

    /// Borrows a key for `node` from a sibling that can spare one, else merges it with a sibling.
    async fn refill(
        &mut self,
        step: Step,
        node: NodeId,
        depth: usize,
    ) -> Result<Refilled, BeeError> {
        let (parent, index) = (step.node, step.child);
        let left = match index.checked_sub(1) {
            Some(left) => Some(self.sibling(parent, left, node, depth).await?),
            None => None,
        };
        if let Some(left) = left.filter(|&left| self.can_spare(left)) {
            self.arena.borrow_left(parent, index, left, node);
            return Ok(Refilled::Borrowed);
        }
        let right = if index + 1 < self.arena[parent].children.len() {
            Some(self.sibling(parent, index + 1, node, depth).await?)
        } else {
            None
        };
        if let Some(right) = right.filter(|&right| self.can_spare(right)) {
            self.arena.borrow_right(parent, index, node, right);
            return Ok(Refilled::Borrowed);
        }
        match (left, right) {
            (Some(left), _) => self.arena.merge(parent, index - 1, left, node),
            (None, Some(right)) => self.arena.merge(parent, index, node, right),
            (None, None) => {}
        }
        Ok(Refilled::Merged)
    }

    /// A sibling of `node`, which must be a leaf if `node` is one.
    async fn sibling(
        &mut self,
        parent: NodeId,
        index: usize,
        node: NodeId,
        depth: usize,
    ) -> Result<NodeId, BeeError> {
        let sibling = self.child(parent, index, depth).await?;
        if self.arena[sibling].is_leaf() != self.arena[node].is_leaf() {
            let slot = self.arena[parent].children[index];
            return Err(BeeError::Corrupt {
                seq: self.arena[slot].pointer.seq,
                reason: Malformed::Uneven,
            });
        }
        Ok(sibling)
    }

    fn can_spare(&self, node: NodeId) -> bool {
        self.arena[node].keys.len() > KEYS_MIN
    }

    fn next_seq(&self) -> u64 {
        self.tree.version() + self.pending.len() as u64
    }

    /// Ends an operation: what it changed will be in its block.
    fn commit(&mut self, root: NodeId, key: Bytes, value: Option<Bytes>) {
        let levels = self.arena.assign(root, self.next_seq());
        self.pending.push(Pending { key, value, levels });
        self.root = Some(root);
        self.marked = false;
        self.broken = false;
    }

    /// The blocks, in order. Each is compacted just before it is encoded, not all of them first:
    /// dead levels point to later blocks, and are expected to name levels before compaction.
    fn encode(&mut self) -> Vec<Bytes> {
        let mut blocks = Vec::with_capacity(self.pending.len());
        let mut index = Vec::new();
        let last = self.next_seq() - 1;
        for (seq, pending) in (self.tree.version()..).zip(&mut self.pending) {
            if seq < last {
                self.arena.compact(&mut pending.levels, seq);
            }
            index.clear();
            for &slot in &pending.levels {
                self.arena.put_level(slot, &mut index);
            }
            let value = pending.value.as_deref();
            blocks.push(encode_block(&index, &pending.key, value));
        }
        blocks
    }
}
