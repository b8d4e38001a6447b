//! The tree while it is being changed: nodes and child slots in an arena.
//!
//! A slot is the identity of a child pointer. It moves between nodes as they split, merge and
//! borrow; which level of which block it names is filled in when the node under it is written,
//! and read when the block around it is encoded. That makes a batch's blocks come out as
//! hyperbee 2.27's do, byte for byte, including what it leaves behind.
//!
//! Knows how nodes change and which levels become of them. Does not know how nodes are loaded,
//! how keys compare, or what a batch is.
#![expect(
    clippy::indexing_slicing,
    reason = "ids come from this arena, which never shrinks; loading checked keys against children"
)]

use std::ops::{Index, IndexMut};

use bytes::Bytes;

use crate::block::put_index_level;
use crate::node::{Node, Pointer};

/// A node other than the root has at least this many keys.
pub(crate) const KEYS_MIN: usize = 4;
/// A node that has come to have this many keys is split.
const KEYS_FULL: usize = 9;

/// A node of the arena it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

/// A slot of the arena it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(usize);

/// A key in a node: the block that holds it, and its bytes once they were needed.
pub(crate) struct Key {
    pub(crate) seq: u64,
    pub(crate) bytes: Option<Bytes>,
}

/// A child pointer, and the child once it was loaded.
pub(crate) struct Slot {
    pub(crate) pointer: Pointer,
    pub(crate) node: Option<NodeId>,
}

/// A tree node. Inner nodes have one child more than keys, leaves have none.
pub(crate) struct TreeNode {
    pub(crate) keys: Vec<Key>,
    pub(crate) children: Vec<SlotId>,
    /// To be written with the next block.
    pub(crate) changed: bool,
}

/// One step down: the child of `node` taken.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) node: NodeId,
    pub(crate) child: usize,
}

impl TreeNode {
    pub(crate) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}

/// Nodes and slots; none is freed before the arena is.
#[derive(Default)]
pub(crate) struct Arena {
    nodes: Vec<TreeNode>,
    slots: Vec<Slot>,
    key_bytes: usize,
}

impl Arena {
    /// About as many bytes as all this takes.
    pub(crate) fn size(&self) -> usize {
        let node = size_of::<TreeNode>() + KEYS_FULL * (size_of::<Key>() + size_of::<SlotId>());
        self.nodes.len() * node + self.slots.len() * size_of::<Slot>() + self.key_bytes
    }

    /// Takes in a node as it was read.
    pub(crate) fn load(&mut self, node: &Node) -> NodeId {
        let keys = node.keys.iter().map(|key| match key.entry.get() {
            Some(entry) => self.new_key(key.seq, &entry.key),
            None => Key {
                seq: key.seq,
                bytes: None,
            },
        });
        let keys = keys.collect();
        let children = node.children.iter();
        let children = children.map(|&pointer| self.add_slot(pointer, None));
        let children = children.collect();
        self.add_node(keys, children, false)
    }

    /// A key with a copy of its bytes, which holds on to no block.
    pub(crate) fn new_key(&mut self, seq: u64, bytes: &[u8]) -> Key {
        self.key_bytes += bytes.len() + ALLOCATION;
        Key {
            seq,
            bytes: Some(Bytes::copy_from_slice(bytes)),
        }
    }

    /// The root of an empty tree.
    pub(crate) fn add_empty_leaf(&mut self) -> NodeId {
        self.add_node(Vec::new(), Vec::new(), true)
    }

    /// Puts `key` in the place of an equal one.
    pub(crate) fn replace(&mut self, node: NodeId, index: usize, key: Key) {
        let node = &mut self[node];
        node.keys[index] = key;
        node.changed = true;
    }

    /// Inserts a key into the leaf at the end of `path`, splits what becomes full, and returns the
    /// root.
    pub(crate) fn insert(
        &mut self,
        mut path: Vec<Step>,
        leaf: NodeId,
        at: usize,
        key: Key,
    ) -> NodeId {
        let target = &mut self[leaf];
        target.keys.insert(at, key);
        target.changed = true;
        let mut node = leaf;
        while self[node].keys.len() >= KEYS_FULL {
            let (median, right) = self.split(node);
            let right = self.add_slot(UNWRITTEN, Some(right));
            let Some(step) = path.pop() else {
                let left = self.add_slot(UNWRITTEN, Some(node));
                return self.add_node(vec![median], vec![left, right], true);
            };
            let parent = &mut self[step.node];
            parent.keys.insert(step.child, median);
            parent.children.insert(step.child + 1, right);
            parent.changed = true;
            node = step.node;
        }
        path.first().map_or(node, |step| step.node)
    }

    /// Moves a key from `left`, child `index - 1` of `parent`, through the parent into `node`.
    pub(crate) fn borrow_left(&mut self, parent: NodeId, index: usize, left: NodeId, node: NodeId) {
        let from = &mut self[left];
        let key = from.keys.remove(from.keys.len() - 1);
        let child = from.children.pop();
        from.changed = true;
        let key = std::mem::replace(&mut self[parent].keys[index - 1], key);
        self[node].keys.insert(0, key);
        if let Some(child) = child {
            self[node].children.insert(0, child);
        }
    }

    /// Moves a key from `right`, child `index + 1` of `parent`, through the parent into `node`.
    pub(crate) fn borrow_right(
        &mut self,
        parent: NodeId,
        index: usize,
        node: NodeId,
        right: NodeId,
    ) {
        let from = &mut self[right];
        let key = from.keys.remove(0);
        let child = (!from.is_leaf()).then(|| from.children.remove(0));
        from.changed = true;
        let key = std::mem::replace(&mut self[parent].keys[index], key);
        self[node].keys.push(key);
        self[node].children.extend(child);
    }

    /// Joins `left` and `right`, children `index` and `index + 1` of `parent`, and the key between
    /// them into `left`.
    pub(crate) fn merge(&mut self, parent: NodeId, index: usize, left: NodeId, right: NodeId) {
        let between = self[parent].keys.remove(index);
        let freed = self[parent].children.remove(index + 1);
        self[parent].changed = true;
        // A freed slot names no block any more, so compaction drops the level it named.
        self[freed].pointer.seq = 0;
        let keys = std::mem::take(&mut self[right].keys);
        let children = std::mem::take(&mut self[right].children);
        let joined = &mut self[left];
        joined.keys.push(between);
        joined.keys.extend(keys);
        joined.children.extend(children);
        joined.changed = true;
    }

    /// Makes all changed nodes levels of block `seq`: each before its children, the root first.
    pub(crate) fn assign(&mut self, root: NodeId, seq: u64) -> Vec<SlotId> {
        let mut levels = Vec::new();
        let root = self.add_slot(UNWRITTEN, Some(root));
        self.assign_below(root, seq, &mut levels);
        levels
    }

    fn assign_below(&mut self, slot: SlotId, seq: u64, levels: &mut Vec<SlotId>) {
        let Some(node) = self[slot].node else { return };
        self[slot].pointer = Pointer {
            seq,
            offset: levels.len() as u64,
        };
        levels.push(slot);
        self[node].changed = false;
        for index in 0..self[node].children.len() {
            let child = self[node].children[index];
            if self[child].node.is_some_and(|node| self[node].changed) {
                self.assign_below(child, seq, levels);
            }
        }
    }

    /// Drops from the levels of block `seq` its root and those that later blocks of the batch
    /// have written again. The last level takes the place of a dropped one.
    pub(crate) fn compact(&mut self, levels: &mut Vec<SlotId>, seq: u64) {
        if !levels.is_empty() {
            levels.swap_remove(0);
        }
        let mut offset = 0;
        while let Some(&slot) = levels.get(offset) {
            if self[slot].pointer.seq == seq {
                self[slot].pointer.offset = offset as u64;
                offset += 1;
            } else {
                levels.swap_remove(offset);
            }
        }
    }

    /// Appends the node under `slot` to an index, as it is now.
    pub(crate) fn put_level(&self, slot: SlotId, index: &mut Vec<u8>) {
        let Some(node) = self[slot].node else { return };
        let node = &self[node];
        let keys = node.keys.iter().map(|key| key.seq);
        let children = node.children.iter().map(|&child| self[child].pointer);
        put_index_level(index, keys, children);
    }

    /// Takes the upper half off a full node; returns the key between the halves.
    fn split(&mut self, node: NodeId) -> (Key, NodeId) {
        let left = &mut self[node];
        let half = left.keys.len() / 2;
        let keys = left.keys.split_off(left.keys.len() - half);
        let median = left.keys.remove(left.keys.len() - 1);
        let children = if left.is_leaf() {
            Vec::new()
        } else {
            left.children.split_off(left.children.len() - (half + 1))
        };
        left.changed = true;
        (median, self.add_node(keys, children, true))
    }

    fn add_node(&mut self, keys: Vec<Key>, children: Vec<SlotId>, changed: bool) -> NodeId {
        self.nodes.push(TreeNode {
            keys,
            children,
            changed,
        });
        NodeId(self.nodes.len() - 1)
    }

    fn add_slot(&mut self, pointer: Pointer, node: Option<NodeId>) -> SlotId {
        self.slots.push(Slot { pointer, node });
        SlotId(self.slots.len() - 1)
    }
}

/// What an allocation takes beside its bytes.
const ALLOCATION: usize = 32;
/// What a slot points to until its node is written.
const UNWRITTEN: Pointer = Pointer { seq: 0, offset: 0 };

impl Index<NodeId> for Arena {
    type Output = TreeNode;

    fn index(&self, id: NodeId) -> &TreeNode {
        &self.nodes[id.0]
    }
}

impl IndexMut<NodeId> for Arena {
    fn index_mut(&mut self, id: NodeId) -> &mut TreeNode {
        &mut self.nodes[id.0]
    }
}

impl Index<SlotId> for Arena {
    type Output = Slot;

    fn index(&self, id: SlotId) -> &Slot {
        &self.slots[id.0]
    }
}

impl IndexMut<SlotId> for Arena {
    fn index_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.slots[id.0]
    }
}
