//! Proofs: what a peer may ask of a log, what an answer carries, and which nodes it needs.
//!
//! Knows which tree nodes prove what ([`Plan`]). Does not know where nodes come from (a plan
//! is filled by [`Plan::assemble`]), how a proof is checked (`changeset`) or the wire.

use bytes::Bytes;
use thiserror::Error;

use crate::flat_tree;
use crate::limits::NUMBER_MAX;
use crate::manifest::{Manifest, Prologue};
use crate::merkle::Node;

/// What a peer asks for. All parts may be combined, but for `block` beside `hash`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofRequest {
    /// The fork the answer must be of.
    pub fork: u64,
    /// A block, by block index.
    pub block: Option<NodeRequest>,
    /// A tree node, by tree index.
    pub hash: Option<NodeRequest>,
    /// The block that holds a byte.
    pub seek: Option<SeekRequest>,
    /// A longer tree.
    pub upgrade: Option<UpgradeRequest>,
    /// Whether the manifest is wanted too.
    pub manifest: bool,
}

/// A block or tree node, and how much of the path above it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRequest {
    /// Block index of a block request, tree index of a hash request.
    pub index: u64,
    /// Levels up to the first ancestor that the asker already holds.
    pub nodes: u64,
}

/// A byte position in the unpadded log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekRequest {
    /// Bytes from the start.
    pub bytes: u64,
    /// Bytes of each block that do not count (8 for encrypted cores).
    pub padding: u64,
}

/// From a length to a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The length the asker has.
    pub start: u64,
    /// Blocks more.
    pub length: u64,
}

/// An answer to a [`ProofRequest`]: untrusted until a core has verified it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The fork it is of.
    pub fork: u64,
    /// A block and its path.
    pub block: Option<BlockProof>,
    /// A tree node and its path.
    pub hash: Option<HashProof>,
    /// The path of a sought byte.
    pub seek: Option<SeekProof>,
    /// A longer, signed tree.
    pub upgrade: Option<UpgradeProof>,
    /// The manifest.
    pub manifest: Option<Manifest>,
}

impl Proof {
    /// Whether it proves nothing.
    pub fn is_empty(&self) -> bool {
        let fork = self.fork;
        *self
            == Self {
                fork,
                ..Self::default()
            }
    }
}

/// A block and the siblings on its way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockProof {
    /// Block index.
    pub index: u64,
    /// The block.
    pub value: Bytes,
    /// Siblings, from the leaf up.
    pub nodes: Vec<Node>,
}

/// A tree node and the siblings on its way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashProof {
    /// Tree index.
    pub index: u64,
    /// The node itself, then siblings upwards.
    pub nodes: Vec<Node>,
}

/// The path from the subtree that holds a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekProof {
    /// The byte asked for.
    pub bytes: u64,
    /// The subtree, then siblings upwards.
    pub nodes: Vec<Node>,
}

/// The nodes that grow a tree, and the signature over the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeProof {
    /// The length it grows from.
    pub start: u64,
    /// Blocks more.
    pub length: u64,
    /// From `start` to `start + length`.
    pub nodes: Vec<Node>,
    /// From there to the signed length, when that is longer.
    pub additional: Vec<Node>,
    /// Over the last length; absent for a static core.
    pub signature: Option<Bytes>,
}

/// Why a request cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The upgrade is empty or reaches past the log.
    #[error("the upgrade does not lie within the log")]
    InvalidUpgrade,
    /// A block or node past the log, or a path that leaves it.
    #[error("the requested node does not lie within the log")]
    InvalidNode,
    /// A seek cannot go with a block of the part being upgraded.
    #[error("a seek and a new block cannot be proven together")]
    SeekWithNewBlock,
    /// A byte that does not lie below the requested node.
    #[error("the sought byte does not lie below the requested node")]
    SeekOutside,
    /// A block and a hash were asked for at once.
    #[error("a block and a hash cannot be proven together")]
    BlockWithHash,
}

/// The tree nodes that answer a request, by index, in the order of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nodes of the block or hash path.
    pub path: Vec<u64>,
    /// Nodes of the seek path; empty if the path above already holds it.
    pub seek: Vec<u64>,
    /// The upgrade that will be answered: a prologue widens it.
    pub upgrade: Option<UpgradeRequest>,
    /// Nodes of the upgrade.
    pub growth: Vec<u64>,
    /// Nodes from the upgraded to the signed length.
    pub additional: Vec<u64>,
}

/// Where the sought byte lies, found by the owner of the sizes (`seek`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekRoot(
    /// Tree index of the subtree that begins with or holds the byte.
    pub u64,
);

impl Plan {
    /// The nodes that answer `request` from a log of `length` blocks.
    ///
    /// `seek_root` is the subtree for `request.seek`, if there is one; see [`seek_scope`].
    ///
    /// # Errors
    /// [`PlanError`] if the request does not fit the log.
    pub fn new(
        request: &ProofRequest,
        length: u64,
        prologue: Option<&Prologue>,
        seek_root: Option<SeekRoot>,
    ) -> Result<Self, PlanError> {
        let upgrade = request.upgrade.map(|asked| widen(asked, prologue));
        let (from, to) = bounds(upgrade, length)?;
        let mut planner = Planner {
            target: Target::of(request)?,
            seek_root: seek_root.map(|root| root.0),
            plan: Self {
                upgrade,
                ..Self::default()
            },
            path_done: false,
        };
        planner.check(from, to, upgrade.is_some(), request.seek.is_some())?;
        if let Some(target) = planner.old_target(from, upgrade.is_some()) {
            let top = climb(target.index, target.levels, to)?;
            planner.emit_path(top);
        }
        if upgrade.is_some() {
            growth(from, to, |node| planner.emit_growth(node));
            if length > to {
                growth(to, length, |node| planner.plan.additional.push(node));
            }
        }
        Ok(planner.plan)
    }

    /// Fills the plan with nodes.
    ///
    /// The block's value and the manifest are left for the caller to add.
    ///
    /// # Errors
    /// Whatever `node` answers for a node it cannot give.
    pub fn assemble<E>(
        &self,
        request: &ProofRequest,
        signature: &Bytes,
        mut node: impl FnMut(u64) -> Result<Node, E>,
    ) -> Result<Proof, E> {
        let mut nodes = |indexes: &[u64]| -> Result<Vec<Node>, E> {
            indexes.iter().map(|index| node(*index)).collect()
        };
        let path = nodes(&self.path)?;
        let seek = nodes(&self.seek)?;
        let upgrade = match self.upgrade {
            None => None,
            Some(upgrade) => Some(UpgradeProof {
                start: upgrade.start,
                length: upgrade.length,
                nodes: nodes(&self.growth)?,
                additional: nodes(&self.additional)?,
                signature: (!signature.is_empty()).then(|| signature.clone()),
            }),
        };
        let mut proof = Proof {
            fork: request.fork,
            upgrade,
            ..Proof::default()
        };
        if let Some(block) = request.block {
            proof.block = Some(BlockProof {
                index: block.index,
                value: Bytes::new(),
                nodes: path,
            });
        } else if let Some(hash) = request.hash {
            proof.hash = Some(HashProof {
                index: hash.index,
                nodes: path,
            });
        }
        if let Some(asked) = request.seek.filter(|_| !seek.is_empty()) {
            proof.seek = Some(SeekProof {
                bytes: asked.bytes,
                nodes: seek,
            });
        }
        Ok(proof)
    }
}

/// Where a seek has to look, before the plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekScope {
    /// Below this subtree, which the asker knows.
    Below(u64),
    /// Anywhere in a log of this many blocks.
    Log(u64),
}

/// Where `request.seek` has to look in a log of `length` blocks; `None` if it cannot be
/// answered alone.
///
/// # Errors
/// [`PlanError`] if the request does not fit the log.
pub fn seek_scope(
    request: &ProofRequest,
    length: u64,
    prologue: Option<&Prologue>,
) -> Result<Option<SeekScope>, PlanError> {
    if request.seek.is_none() {
        return Ok(None);
    }
    let upgrade = request.upgrade.map(|asked| widen(asked, prologue));
    let (from, to) = bounds(upgrade, length)?;
    match Target::of(request)? {
        Some(target) if upgrade.is_none() || target.last_block() < from => {
            let top = climb(target.index, target.levels, to)?;
            Ok(Some(SeekScope::Below(top)))
        }
        _ if upgrade.is_some() => Ok(Some(SeekScope::Log(to))),
        _ => Ok(None),
    }
}

/// The nodes that grow a tree of `from` blocks to one of `to`, from the left.
pub fn growth(from: u64, to: u64, mut emit: impl FnMut(u64)) {
    for root in flat_tree::full_roots(to) {
        if flat_tree::end_block(root) <= from {
            continue;
        }
        if flat_tree::first_block(root) >= from {
            emit(root);
            continue;
        }
        let mut at = 2 * (from - 1);
        while at != root {
            let sibling = flat_tree::sibling(at);
            if sibling > at {
                emit(sibling);
            }
            at = flat_tree::parent(at);
        }
    }
}

/// The block or node asked for, as a place in the tree.
#[derive(Debug, Clone, Copy)]
struct Target {
    index: u64,
    levels: u64,
    is_block: bool,
}

impl Target {
    fn of(request: &ProofRequest) -> Result<Option<Self>, PlanError> {
        let target = match (request.block, request.hash) {
            (Some(_), Some(_)) => return Err(PlanError::BlockWithHash),
            (Some(block), None) if block.index > NUMBER_MAX / 2 => {
                return Err(PlanError::InvalidNode);
            }
            (Some(block), None) => Some(Self {
                index: 2 * block.index,
                levels: block.nodes,
                is_block: true,
            }),
            (None, Some(hash)) if hash.index >= NUMBER_MAX => return Err(PlanError::InvalidNode),
            (None, Some(hash)) => Some(Self {
                index: hash.index,
                levels: hash.nodes,
                is_block: false,
            }),
            (None, None) => None,
        };
        Ok(target)
    }

    fn last_block(&self) -> u64 {
        flat_tree::end_block(self.index) - 1
    }
}

struct Planner {
    target: Option<Target>,
    seek_root: Option<u64>,
    plan: Plan,
    path_done: bool,
}

impl Planner {
    fn check(&self, from: u64, to: u64, upgrading: bool, seeking: bool) -> Result<(), PlanError> {
        let Some(target) = self.target else {
            return Ok(());
        };
        if target.last_block() >= to {
            return Err(PlanError::InvalidNode);
        }
        let is_new = flat_tree::first_block(target.index) >= from;
        match upgrading {
            // Half in the asker's tree and half in its growth, it is below no node of either.
            true if !is_new && target.last_block() >= from => Err(PlanError::InvalidNode),
            true if is_new && seeking => Err(PlanError::SeekWithNewBlock),
            _ => Ok(()),
        }
    }

    /// The target, if the asker's tree of `from` blocks already spans it.
    fn old_target(&self, from: u64, upgrading: bool) -> Option<Target> {
        self.target
            .filter(|target| !upgrading || target.last_block() < from)
    }

    /// Takes a node of the growth, or what is asked for below it in its place.
    fn emit_growth(&mut self, node: u64) {
        let below = self.seek_root.or(self.target.map(|target| target.index));
        match below {
            Some(below) if !self.path_done && flat_tree::contains(node, below) => {
                self.emit_path(node);
            }
            _ => self.plan.growth.push(node),
        }
    }

    /// The way from the target to `top`, the seek's own way branching off where it must.
    fn emit_path(&mut self, top: u64) {
        self.path_done = true;
        let Some(target) = self.target else {
            return self.emit_seek(top);
        };
        if !target.is_block {
            self.plan.path.push(target.index);
        }
        let mut at = target.index;
        while at != top {
            let sibling = flat_tree::sibling(at);
            match self.seek_root {
                Some(root) if root != sibling && flat_tree::contains(sibling, root) => {
                    self.emit_seek(sibling);
                }
                _ => self.plan.path.push(sibling),
            }
            at = flat_tree::parent(at);
        }
    }

    fn emit_seek(&mut self, top: u64) {
        let Some(mut at) = self.seek_root else {
            return;
        };
        self.plan.seek.push(at);
        while at != top {
            self.plan.seek.push(flat_tree::sibling(at));
            at = flat_tree::parent(at);
        }
    }
}

/// An upgrade that touches the prologue covers it from the start.
fn widen(asked: UpgradeRequest, prologue: Option<&Prologue>) -> UpgradeRequest {
    match prologue {
        Some(prologue) if asked.start < prologue.length => UpgradeRequest {
            start: 0,
            length: prologue.length,
        },
        _ => asked,
    }
}

/// The lengths between which the answer moves.
fn bounds(upgrade: Option<UpgradeRequest>, length: u64) -> Result<(u64, u64), PlanError> {
    let (from, to) = match upgrade {
        None => (0, length),
        Some(upgrade) => {
            let end = upgrade.start.checked_add(upgrade.length);
            (upgrade.start, end.ok_or(PlanError::InvalidUpgrade)?)
        }
    };
    if from < to && to <= length {
        Ok((from, to))
    } else {
        Err(PlanError::InvalidUpgrade)
    }
}

/// The ancestor `levels` above `index`, which must not span past a log of `length` blocks.
fn climb(index: u64, levels: u64, length: u64) -> Result<u64, PlanError> {
    let mut at = index;
    for _ in 0..levels {
        at = flat_tree::parent(at);
        if flat_tree::contains(at, 2 * length) {
            return Err(PlanError::InvalidNode);
        }
    }
    Ok(at)
}
