//! Auditing: what is stored of a core, held against the tree that was signed.
//!
//! The head's signature proves the roots, a node whose two children make it proves them, and a leaf
//! proves its block. So the audit walks down from the roots, only where something is here, and
//! names what does not fit. What is damaged is mended only from what proves it: a node from its
//! children or its block, if the node above is made of the outcome.
//!
//! What is left after a repair must let the rest be fetched: the way up from a block that comes ends at the first node
//! that is here with its sibling. So with a node that is given up goes all that is here below it, the bits last: a repair
//! that is cut off is taken up again where these are. A node whose sibling is not here is proven by nothing, but nobody
//! relies on it: it stays as long as what is below does not contradict it, for blocks can be read by it.
//!
//! Knows nodes, blocks and bits. Does not know locks, nor when what it would mend is written.

mod roots;
mod stored;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use self::stored::Stored;
use self::stored::{Halt, Search, Slot, makes};
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::storage::{BitWrite, CoreWrite, StorageError};

/// Most steps taken before others may change the core. There is a bound on what they read, too.
const TURN_STEPS_MAX: usize = 1024;

/// What an audit does about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is changed.
    DryRun,
    /// Nodes are written anew where they are proven. Blocks and nodes that the signed tree, or what agrees with
    /// it, contradicts are forgotten with all that is below them, so that they can be fetched again; bytes of blocks stay.
    Repair,
}

/// Damage to a core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The signature does not hold over the roots, so that nothing here is proven.
    Head,
    /// The node at this tree index is missing or wrong, or the one above it is missing. Of several that are to be
    /// forgotten, one below the other, one is named.
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

/// What is yet to be done.
#[derive(Debug, Clone)]
enum Work {
    Check(Subtree),
    Forget(Doomed),
    /// Blocks that nothing proves.
    GiveUp(Range<u64>),
}

/// A subtree that is yet to be walked.
#[derive(Debug, Clone, Copy)]
struct Subtree {
    node: Node,
    byte_offset: u64,
    trust: Trust,
}

/// What vouches for the top node of a subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The head's signature.
    Signed,
    /// Other nodes, which nothing proves: both would have to be wrong in the same way.
    Agreed,
    /// Nothing above it, for what is beside it is not here, or is wrong.
    Alone,
}

/// Nodes that are to be forgotten, and the blocks below them.
#[derive(Debug, Clone)]
struct Doomed {
    top: u64,
    /// Those not looked at yet.
    nodes: Range<u64>,
    /// Whether it was told that something is wrong here.
    is_told: bool,
}

impl Doomed {
    fn below(top: u64, is_told: bool) -> Self {
        let nodes = flat_tree::left_span(top)..flat_tree::right_span(top) + 1;
        Self {
            top,
            nodes,
            is_told,
        }
    }
}

/// Damage and what mends it.
struct Found {
    /// `None` if it was told before.
    damage: Option<Damage>,
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
    rest: Vec<Work>,
    /// Whether the signature holds over the roots.
    is_head_proven: bool,
    found: Vec<Found>,
    report: Report,
    /// Below the node that is next, if its turn ended before it was found what it is made of.
    search: Search,
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
        let suspect = match is_proven {
            true => None,
            false => stored.only_unbacked(roots)?,
        };
        let mut is_placed = true;
        for node in roots.nodes().iter().copied() {
            let is_suspect = suspect == Some(node.index);
            if is_suspect || stored.slot(node.index)? != Slot::Here(node) {
                self.add(Damage::Node(node.index), Some(Remedy::Node(node)));
            }
            // How many bytes there are below a root of which nothing is left, nobody knows.
            is_placed &= !node.is_blank();
            if !is_placed {
                continue;
            }
            self.rest.push(Work::Check(Subtree {
                node,
                byte_offset,
                trust: match is_proven {
                    true => Trust::Signed,
                    false => Trust::Agreed,
                },
            }));
            byte_offset += node.size;
        }
        self.rest.reverse(); // the first comes first
        Ok(())
    }

    /// Takes some steps, as many as others can be made to wait for; whether they were the last.
    pub(crate) fn take_turn(&mut self, stored: &Stored<'_>) -> Result<bool, StorageError> {
        for _ in 0..TURN_STEPS_MAX {
            match self.rest.pop() {
                None => return Ok(true),
                Some(Work::Check(at)) => self.check(stored, &at)?,
                Some(Work::Forget(doomed)) => self.forget_next(stored, doomed)?,
                Some(Work::GiveUp(blocks)) => self.give_up_next(stored, blocks),
            }
            if stored.is_spent() {
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
            steps.extend(damage.map(|damage| Step::Found { damage, mendable }));
        }
        (steps, write)
    }

    /// Under a head that is not signed nothing is mended.
    fn add(&mut self, damage: Damage, remedy: Option<Remedy>) {
        let remedy = remedy.filter(|_| self.is_head_proven);
        let count = match &damage {
            Damage::Bits(range) => range.end - range.start,
            _ => 1,
        };
        self.report.bad += if damage.is_bad() { count } else { 0 };
        self.report.mendable += if remedy.is_some() { count } else { 0 };
        self.found.push(Found {
            damage: Some(damage),
            remedy,
        });
    }

    fn check(&mut self, stored: &Stored<'_>, at: &Subtree) -> Result<(), StorageError> {
        let Some(children) = flat_tree::children(at.node.index) else {
            self.report.nodes += 1;
            return self.check_block(stored, at);
        };
        match self.check_children(stored, at, children) {
            Ok(()) => {
                self.report.nodes += 1;
                self.search = Search::default();
            }
            Err(Halt::Spent) => self.rest.push(Work::Check(*at)),
            Err(Halt::Failed(error)) => return Err(error),
        }
        Ok(())
    }

    fn check_block(&mut self, stored: &Stored<'_>, at: &Subtree) -> Result<(), StorageError> {
        let index = flat_tree::first_block(at.node.index);
        let is_marked = stored.bits.get(index);
        if is_marked {
            self.report.blocks += 1;
        } else if at.node.size == 0 {
            return Ok(()); // every empty block is here
        }
        let fits = stored.leaf(index, at.byte_offset, at.node.size)? == Some(at.node);
        let mark = |value| {
            let range = index..index + 1;
            Some(Remedy::Bits(BitWrite { range, value }))
        };
        match (at.trust, is_marked, fits) {
            // One of both is wrong.
            (Trust::Alone, true, false) => self.condemn(at.node.index),
            (_, true, false) => self.add(Damage::Block(index), mark(false)),
            (Trust::Signed, false, true) => self.add(Damage::Unmarked(index), mark(true)),
            _ => {}
        }
        Ok(())
    }

    fn check_children(
        &mut self,
        stored: &Stored<'_>,
        at: &Subtree,
        (left, right): (u64, u64),
    ) -> Result<(), Halt> {
        let slots = [stored.slot(left)?, stored.slot(right)?];
        if slots == [Slot::Absent; 2] && stored.marked_below(at.node.index).is_none() {
            return Ok(self.check_empty(stored, (left, right))?);
        }
        let pair = match slots {
            [Slot::Here(left), Slot::Here(right)] if makes(at, &left, &right) => {
                Some((left, right))
            }
            _ => stored.proven_children(&mut self.search, at, slots)?,
        };
        match pair {
            Some((left, right)) => self.descend(at, slots, left, right),
            None => self.descend_unproven(stored, at, (left, right), slots)?,
        }
        Ok(())
    }

    /// Nothing is below the node, as it should be where no block is here, but for nodes that lost the one above them.
    fn check_empty(
        &mut self,
        stored: &Stored<'_>,
        (left, right): (u64, u64),
    ) -> Result<(), StorageError> {
        for child in [right, left] {
            let has_children = flat_tree::children(child).is_some();
            if has_children && stored.may_have_nodes(&Doomed::below(child, false).nodes)? {
                self.forget(child, false);
            }
        }
        Ok(())
    }

    /// Goes on below two children that make the node. Where storage has others, those are wrong.
    fn descend(&mut self, at: &Subtree, slots: [Slot; 2], left: Node, right: Node) {
        for (slot, node) in slots.into_iter().zip([left, right]) {
            if slot != Slot::Here(node) {
                self.add(Damage::Node(node.index), Some(Remedy::Node(node)));
            }
        }
        let trust = match at.trust {
            Trust::Signed => Trust::Signed,
            Trust::Agreed | Trust::Alone => Trust::Agreed,
        };
        let right_offset = at.byte_offset.saturating_add(left.size);
        // The left one last, so that it comes first.
        for (node, byte_offset) in [(right, right_offset), (left, at.byte_offset)] {
            self.rest.push(Work::Check(Subtree {
                node,
                byte_offset,
                trust,
            }));
        }
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
        let [left_slot, right_slot] = slots;
        let right_offset = right_offset(at, slots).unwrap_or(at.byte_offset);
        let left_offset = at.byte_offset;
        let is_left_backed = stored.is_backed(left_slot, left_offset)?;
        let is_right_backed = stored.is_backed(right_slot, right_offset)?;
        let is_told_apart = is_left_backed != is_right_backed;
        if at.trust == Trust::Alone
            && is_left_backed
            && is_right_backed
            && let Some((left, right)) = left_slot.node().zip(right_slot.node())
            && let Some(node) = Node::parent(&left, &right)
        {
            // What is below agrees with both: it is the node itself that is wrong.
            self.add(Damage::Node(node.index), Some(Remedy::Node(node)));
            self.descend(&Subtree { node, ..*at }, slots, left, right);
            return Ok(());
        }
        let children = [
            (right, right_slot, right_offset, is_right_backed),
            (left, left_slot, left_offset, is_left_backed),
        ];
        // The left one last, so that it comes first.
        for (index, slot, byte_offset, is_backed) in children {
            let is_wrong = both_here && !(is_told_apart && is_backed);
            match slot {
                Slot::Here(node) if !is_wrong => self.rest.push(Work::Check(Subtree {
                    node,
                    byte_offset,
                    trust: Trust::Alone,
                })),
                // Nothing that is here ever proves what lies below.
                Slot::Absent => self.forget(index, stored.marked_below(index).is_some()),
                Slot::Here(_) | Slot::Impossible => self.condemn(index),
            }
        }
        Ok(())
    }

    /// Node `index` is wrong, and so nothing proves what is below it.
    fn condemn(&mut self, index: u64) {
        self.add(Damage::Node(index), Some(Remedy::Node(Node::blank(index))));
        self.forget(index, true);
    }

    /// Nothing proves what is here below node `index`, which is not.
    fn forget(&mut self, index: u64, is_told: bool) {
        self.rest.push(Work::Forget(Doomed::below(index, is_told)));
    }

    /// Forgets the next node of them or, after the last, the blocks.
    fn forget_next(&mut self, stored: &Stored<'_>, doomed: Doomed) -> Result<(), StorageError> {
        let Some(index) = stored.next_node(&doomed.nodes)? else {
            let blocks = flat_tree::first_block(doomed.top)..flat_tree::end_block(doomed.top);
            self.rest.push(Work::GiveUp(blocks));
            return Ok(());
        };
        let is_here = stored.slot(index)? != Slot::Absent;
        let remedy = is_here.then(|| Remedy::Node(Node::blank(index)));
        self.report.nodes += u64::from(is_here);
        match remedy {
            Some(remedy) if doomed.is_told => self.found.push(Found {
                damage: None,
                remedy: Some(remedy).filter(|_| self.is_head_proven),
            }),
            Some(remedy) => self.add(Damage::Node(index), Some(remedy)),
            None => {}
        }
        self.rest.push(Work::Forget(Doomed {
            nodes: index + 1..doomed.nodes.end,
            is_told: doomed.is_told || is_here,
            ..doomed
        }));
        Ok(())
    }

    /// Gives up the next of the blocks that are here.
    fn give_up_next(&mut self, stored: &Stored<'_>, blocks: Range<u64>) {
        let start = stored.bits.next_set(blocks.start);
        let Some(start) = start.filter(|start| *start < blocks.end) else {
            return;
        };
        let end = stored.bits.next_unset(start).min(blocks.end);
        let bits = BitWrite {
            range: start..end,
            value: false,
        };
        self.add(Damage::Bits(start..end), Some(Remedy::Bits(bits)));
        self.rest.push(Work::GiveUp(end..blocks.end));
    }
}

/// Where the right child begins, by its own size if it is known: the left one's may be wrong. `None` if neither is.
fn right_offset(at: &Subtree, [left, right]: [Slot; 2]) -> Option<u64> {
    let by_right = right.node().and_then(|n| at.node.size.checked_sub(n.size));
    let by_left = left.node().map(|left| left.size);
    Some(at.byte_offset.saturating_add(by_right.or(by_left)?))
}
