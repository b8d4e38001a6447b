//! Auditing: what is stored of a core, held against the tree that was signed.
//!
//! The head's signature proves the roots, a node whose two children make it proves them, and a leaf
//! proves its block. So the audit walks down from the roots, only where something is here, and
//! names what does not fit. What is damaged is mended only from what proves it: a node from its
//! children or its block, if the node above is made of the outcome.
//!
//! Knows nodes, blocks and bits. Does not know locks, nor when what it would mend is written.

use std::ops::Range;

use bytes::Bytes;

use crate::bitfield::Bitfield;
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::storage::{BitWrite, CoreStorage, CoreWrite, StorageError};

/// Most steps taken before others may change the core.
const TURN_STEPS_MAX: usize = 1024;
/// About so many bytes of blocks are read before others may change the core.
const TURN_BYTES: u64 = 4 << 20;

/// What an audit does about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is changed.
    DryRun,
    /// Nodes are written anew where they are proven. Blocks and nodes that the signed tree
    /// contradicts are forgotten, so that they can be fetched again; bytes of blocks stay.
    Repair,
}

/// Damage to a core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The signature does not hold over the roots, so that nothing here is proven.
    Head,
    /// The node at this tree index is missing or wrong.
    Node(u64),
    /// The bytes of this block are not those of its leaf.
    Block(u64),
    /// These blocks are said to be here, but there are no nodes to prove them.
    Bits(Range<u64>),
    /// This block is here, but said not to be. It may have been given up on purpose, so it does
    /// not count as bad.
    Unmarked(u64),
}

impl Damage {
    /// Whether something is lost unless it is repaired.
    pub fn is_bad(&self) -> bool {
        !matches!(self, Self::Unmarked(_))
    }
}

/// What an audit tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Something is damaged.
    Found {
        /// What.
        damage: Damage,
        /// Whether it was mended or, in a dry run, could be.
        mendable: bool,
    },
    /// So many blocks have been read.
    Progress {
        /// Since the start.
        blocks: u64,
        /// How many there are to read.
        total: u64,
    },
}

/// What an audit came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Blocks that are said to be here and were read.
    pub blocks: u64,
    /// Nodes that were looked at.
    pub nodes: u64,
    /// Damage that counts as bad; of a run of bits, each.
    pub bad: u64,
    /// Damage that was mended or, in a dry run, could be.
    pub mendable: u64,
}

/// A subtree that is yet to be walked.
#[derive(Debug, Clone, Copy)]
struct Subtree {
    node: Node,
    byte_offset: u64,
    /// Whether the head's signature covers it.
    is_proven: bool,
}

/// A place of the tree, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Here(Node),
    Absent,
    /// No node can look like that.
    Impossible,
}

impl Slot {
    fn node(self) -> Option<Node> {
        match self {
            Self::Here(node) => Some(node),
            Self::Absent | Self::Impossible => None,
        }
    }
}

/// Damage and what mends it.
struct Found {
    damage: Damage,
    remedy: Option<Remedy>,
}

enum Remedy {
    /// Replaces a node, or removes it if this one is blank.
    Node(Node),
    Bits(BitWrite),
}

/// The steps of one audit. Memory does not grow with the core: it holds two subtrees a level.
#[derive(Default)]
pub(crate) struct Auditor {
    rest: Vec<Subtree>,
    /// Whether the signature holds over the roots.
    is_head_proven: bool,
    found: Vec<Found>,
    report: Report,
    bytes_read: u64,
}

/// What an audit reads. Nothing may change it during a call.
pub(crate) struct Stored<'a> {
    pub(crate) storage: &'a dyn CoreStorage,
    pub(crate) bits: &'a Bitfield,
}

impl Auditor {
    /// Checks the head that memory holds, and that storage still holds its roots.
    pub(crate) fn start(
        &mut self,
        stored: &Stored<'_>,
        roots: &Roots,
        is_proven: bool,
    ) -> Result<(), StorageError> {
        self.is_head_proven = is_proven;
        if !is_proven {
            self.add(Damage::Head, None);
        }
        let mut byte_offset = 0;
        for node in roots.nodes().iter().copied() {
            if stored.slot(node.index)? != Slot::Here(node) {
                let remedy = is_proven.then_some(Remedy::Node(node));
                self.add(Damage::Node(node.index), remedy);
            }
            self.rest.push(Subtree {
                node,
                byte_offset,
                is_proven,
            });
            byte_offset += node.size;
        }
        self.rest.reverse(); // the first comes first
        Ok(())
    }

    /// Takes some steps, as many as others can be made to wait for; whether they were the last.
    pub(crate) fn take_turn(&mut self, stored: &Stored<'_>) -> Result<bool, StorageError> {
        let pause_at = self.bytes_read.saturating_add(TURN_BYTES);
        for _ in 0..TURN_STEPS_MAX {
            let Some(at) = self.rest.pop() else {
                return Ok(true);
            };
            self.check(stored, &at)?;
            if self.bytes_read >= pause_at {
                break;
            }
        }
        Ok(false)
    }

    /// What the audit has come to so far.
    pub(crate) fn report(&self) -> Report {
        self.report
    }

    /// The damage found since the last call, and the write that mends what of it can be.
    pub(crate) fn take_found(&mut self) -> (Vec<Step>, CoreWrite) {
        let (mut steps, mut write) = (Vec::new(), CoreWrite::default());
        for Found { damage, remedy } in self.found.drain(..) {
            let mendable = remedy.is_some();
            match remedy {
                Some(Remedy::Node(node)) => write.nodes.push(node),
                Some(Remedy::Bits(bits)) => write.bits.push(bits),
                None => {}
            }
            steps.push(Step::Found { damage, mendable });
        }
        (steps, write)
    }

    fn add(&mut self, damage: Damage, remedy: Option<Remedy>) {
        let count = match &damage {
            Damage::Bits(range) => range.end - range.start,
            _ => 1,
        };
        self.report.bad += if damage.is_bad() { count } else { 0 };
        self.report.mendable += if remedy.is_some() { count } else { 0 };
        self.found.push(Found { damage, remedy });
    }

    fn check(&mut self, stored: &Stored<'_>, at: &Subtree) -> Result<(), StorageError> {
        self.report.nodes += 1;
        match flat_tree::children(at.node.index) {
            None => self.check_block(stored, at),
            Some(children) => self.check_children(stored, at, children),
        }
    }

    fn check_block(&mut self, stored: &Stored<'_>, at: &Subtree) -> Result<(), StorageError> {
        let index = flat_tree::first_block(at.node.index);
        let is_marked = stored.bits.get(index);
        if is_marked {
            self.report.blocks += 1;
        } else if at.node.size == 0 {
            return Ok(()); // every empty block is here
        }
        self.bytes_read = self.bytes_read.saturating_add(at.node.size);
        let leaf = stored.leaf(index, at.byte_offset, at.node.size)?;
        let fits = leaf == Some(at.node);
        let mark = |value| {
            let range = index..index + 1;
            let bits = BitWrite { range, value };
            at.is_proven.then_some(Remedy::Bits(bits))
        };
        match (is_marked, fits) {
            (true, false) => self.add(Damage::Block(index), mark(false)),
            (false, true) if at.is_proven => self.add(Damage::Unmarked(index), mark(true)),
            _ => {}
        }
        Ok(())
    }

    fn check_children(
        &mut self,
        stored: &Stored<'_>,
        at: &Subtree,
        (left, right): (u64, u64),
    ) -> Result<(), StorageError> {
        let slots = [stored.slot(left)?, stored.slot(right)?];
        if slots == [Slot::Absent; 2] && stored.marked_below(at.node.index).is_none() {
            return Ok(());
        }
        let pair = match slots {
            [Slot::Here(left), Slot::Here(right)] if makes(at, &left, &right) => {
                Some((left, right))
            }
            _ => stored.proven_children(at, slots)?,
        };
        match pair {
            Some((left, right)) => self.descend(at, slots, left, right),
            None => self.descend_unproven(stored, at, (left, right), slots)?,
        }
        Ok(())
    }

    /// Goes on below two children that make the node. Where storage has others, those are wrong.
    fn descend(&mut self, at: &Subtree, slots: [Slot; 2], left: Node, right: Node) {
        for (slot, node) in slots.into_iter().zip([left, right]) {
            if slot != Slot::Here(node) {
                let remedy = at.is_proven.then_some(Remedy::Node(node));
                self.add(Damage::Node(node.index), remedy);
            }
        }
        // The left one last, so that it comes first.
        let byte_offset = at.byte_offset.saturating_add(left.size);
        self.rest.push(Subtree {
            node: right,
            byte_offset,
            ..*at
        });
        self.rest.push(Subtree { node: left, ..*at });
    }

    /// Goes on where no two children make the node: below those that are not to blame.
    fn descend_unproven(
        &mut self,
        stored: &Stored<'_>,
        at: &Subtree,
        (left, right): (u64, u64),
        slots: [Slot; 2],
    ) -> Result<(), StorageError> {
        let both_here = slots.iter().all(|slot| slot.node().is_some());
        if both_here && !at.is_proven {
            self.add(Damage::Node(at.node.index), None);
        }
        let offsets = [at.byte_offset, right_offset(at, slots)];
        let [left_slot, right_slot] = slots;
        let [left_offset, right_offset] = offsets;
        let is_left_backed = stored.is_backed(left_slot, left_offset)?;
        let is_right_backed = stored.is_backed(right_slot, right_offset)?;
        let is_told_apart = is_left_backed != is_right_backed;
        let children = [
            (left, left_slot, left_offset, is_left_backed),
            (right, right_slot, right_offset, is_right_backed),
        ];
        for (index, slot, byte_offset, is_backed) in children {
            let is_wrong = both_here && at.is_proven && !(is_told_apart && is_backed);
            match slot {
                Slot::Here(node) if !is_wrong => self.rest.push(Subtree {
                    node,
                    byte_offset,
                    is_proven: false,
                }),
                // Where there is no node, nothing that is here ever proves what lies below, whoever is to blame above.
                Slot::Absent => self.give_up(stored, index, self.is_head_proven),
                Slot::Here(_) | Slot::Impossible => {
                    let blank = at.is_proven.then(|| Remedy::Node(Node::blank(index)));
                    self.add(Damage::Node(index), blank);
                    self.give_up(stored, index, at.is_proven);
                }
            }
        }
        Ok(())
    }

    /// Nothing proves the blocks below `index`; whether they may be forgotten is the caller's to say.
    fn give_up(&mut self, stored: &Stored<'_>, index: u64, is_mendable: bool) {
        let end = flat_tree::end_block(index);
        let mut from = flat_tree::first_block(index);
        while let Some(start) = stored.bits.next_set(from).filter(|start| *start < end) {
            from = stored.bits.next_unset(start).min(end);
            let range = start..from;
            let bits = BitWrite {
                range: range.clone(),
                value: false,
            };
            let remedy = is_mendable.then_some(Remedy::Bits(bits));
            self.add(Damage::Bits(range), remedy);
        }
    }
}

impl Stored<'_> {
    fn slot(&self, index: u64) -> Result<Slot, StorageError> {
        match self.storage.node(index) {
            Ok(node) => Ok(node.map_or(Slot::Absent, Slot::Here)),
            Err(StorageError::Corrupt { .. }) => Ok(Slot::Impossible),
            Err(error) => Err(error),
        }
    }

    /// The leaf of what lies where block `index` should; `None` if nothing does.
    fn leaf(&self, index: u64, byte_offset: u64, size: u64) -> Result<Option<Node>, StorageError> {
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
    fn marked_below(&self, index: u64) -> Option<u64> {
        let marked = self.bits.next_set(flat_tree::first_block(index));
        marked.filter(|block| *block < flat_tree::end_block(index))
    }

    /// Two children that make the node, each as stored or as what lies below it says.
    fn proven_children(
        &self,
        at: &Subtree,
        slots: [Slot; 2],
    ) -> Result<Option<(Node, Node)>, StorageError> {
        let Some((left, right)) = flat_tree::children(at.node.index) else {
            return Ok(None);
        };
        let lefts = self.candidates(at, left, slots)?;
        let rights = self.candidates(at, right, slots)?;
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
    fn is_backed(&self, slot: Slot, byte_offset: u64) -> Result<bool, StorageError> {
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
fn makes(at: &Subtree, left: &Node, right: &Node) -> bool {
    Node::parent(left, right) == Some(at.node)
}

/// Where the right child begins, by its own size if it is known: the left one's may be wrong.
fn right_offset(at: &Subtree, [left, right]: [Slot; 2]) -> u64 {
    let by_right = right.node().and_then(|n| at.node.size.checked_sub(n.size));
    let by_left = left.node().map(|left| left.size);
    at.byte_offset
        .saturating_add(by_right.or(by_left).unwrap_or(0))
}
