//! Verification: the one door through which remote bytes become part of a core.
//!
//! A [`Changeset`] starts from a core's signed roots and takes in proofs one after the other;
//! what it holds at the end is verified and can be committed. Knows trees, proofs and the
//! verifier. Does not write anything.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use ferrocore_primitives::hash;
use thiserror::Error;

use crate::descent::Descent;
use crate::flat_tree;
use crate::limits::{BLOCK_BYTES_MAX, NUMBER_MAX, PROOF_NODES_MAX};
use crate::manifest::Manifest;
use crate::merkle::{Node, Roots};
use crate::proof::{Proof, UpgradeProof};
use crate::seek::NodeSource;
use crate::storage::StorageError;
use crate::verifier::Verifier;

/// Why a proof was refused. State is unchanged in every case.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The core moved since the proof was asked for; ask again. Nobody's fault.
    #[error("the core has moved on since this proof was asked for")]
    Stale,
    /// The proof is of another fork.
    #[error("the proof is of fork {found}, the core is at {expected}")]
    WrongFork {
        /// Ours.
        expected: u64,
        /// The proof's.
        found: u64,
    },
    /// A node is missing, surplus or out of order.
    #[error("the proof's nodes do not fit together at tree index {index}")]
    UnexpectedNode {
        /// Where the walk stood.
        index: u64,
    },
    /// The path ends at a node that the core does not hold.
    #[error("the proof leads to tree index {index}, which this core cannot check")]
    Unanchored {
        /// The path's top.
        index: u64,
    },
    /// A hash differs from the one that is signed.
    #[error("the proof's hash differs from ours at tree index {index}")]
    Checksum {
        /// The path's top.
        index: u64,
    },
    /// It differs from what is stored, but that is not proven by the roots either: our tree is damaged. Nobody's fault; ask
    /// again, with as many nodes as [`Core::missing_nodes`](crate::Core::missing_nodes) then tells.
    #[error("what is here at tree index {index} is damaged below index {below}; ask again")]
    Damaged {
        /// The path's top.
        index: u64,
        /// The last node above it that the roots prove.
        below: u64,
    },
    /// The new head's signature does not hold.
    #[error("the signature over length {length} does not hold")]
    Signature {
        /// The length it was said to be over.
        length: u64,
    },
    /// The upgrade does not end where the pinned beginning does, or differs from it.
    #[error("the upgrade does not satisfy the core's prologue")]
    Prologue,
    /// The core is frozen: its signers contradict themselves, so it follows none of them. Nobody
    /// can help; look at [`Core::conflict`](crate::Core::conflict).
    #[error("the core is frozen: two histories of it are signed")]
    Frozen,
    /// The manifest is not the one the key commits to.
    #[error("the manifest does not belong to the core's key")]
    Manifest,
    /// A block, node list or number is past its bound.
    #[error("the proof is too large: {0}")]
    TooLarge(&'static str),
    /// Our own storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl VerifyError {
    /// Whether the sender is not to blame.
    pub fn is_blameless(&self) -> bool {
        matches!(
            self,
            Self::Stale | Self::Frozen | Self::Damaged { .. } | Self::Storage(_)
        )
    }
}

/// Verified additions to a core, on top of the state they were verified against.
#[derive(Debug)]
pub struct Changeset {
    pub(crate) base: Base,
    pub(crate) roots: Roots,
    pub(crate) signature: Option<Bytes>,
    pub(crate) nodes: HashMap<u64, Node>,
    pub(crate) blocks: Vec<(u64, Bytes)>,
    pub(crate) manifest: Option<Manifest>,
    verifier: Verifier,
}

/// The state a changeset stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) fork: u64,
    pub(crate) length: u64,
}

impl Changeset {
    /// A changeset on the given roots.
    pub(crate) fn new(fork: u64, roots: Roots, verifier: Verifier) -> Self {
        let length = roots.length();
        Self {
            base: Base { fork, length },
            roots,
            signature: None,
            nodes: HashMap::new(),
            blocks: Vec::new(),
            manifest: None,
            verifier,
        }
    }

    /// Blocks the core will have once this is committed.
    pub fn length(&self) -> u64 {
        self.roots.length()
    }

    /// Whether it brings a longer, signed tree.
    pub fn is_upgrade(&self) -> bool {
        self.signature.is_some()
    }

    /// The blocks it brings, with their indexes.
    pub fn blocks(&self) -> &[(u64, Bytes)] {
        &self.blocks
    }

    /// Bytes of the blocks it brings.
    pub fn block_bytes(&self) -> usize {
        self.blocks.iter().map(|(_, block)| block.len()).sum()
    }

    /// Lets go of what its blocks came in: they may be small parts of it.
    pub(crate) fn own_blocks(&mut self) {
        for (_, block) in &mut self.blocks {
            *block = Bytes::copy_from_slice(block);
        }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        !self.is_upgrade()
            && self.nodes.is_empty()
            && self.blocks.is_empty()
            && self.manifest.is_none()
    }

    /// The manifest its proofs were verified under.
    pub(crate) fn verified_under(&self) -> &Manifest {
        self.verifier.manifest()
    }

    /// Verifies `proofs` in order, each on top of those before that held.
    ///
    /// Blocks are hashed several at a time, so a burst costs less than its proofs one by one.
    pub fn extend(
        &mut self,
        stored: &impl NodeSource,
        proofs: Vec<Proof>,
    ) -> Vec<Result<(), VerifyError>> {
        let leaves = leaves_of(&proofs);
        let mut results = Vec::with_capacity(proofs.len());
        for (proof, leaf) in proofs.into_iter().zip(leaves) {
            results.push(self.add(stored, proof, leaf));
        }
        results
    }

    /// Verifies one proof whose block has the leaf `leaf`.
    fn add(
        &mut self,
        stored: &impl NodeSource,
        proof: Proof,
        leaf: Option<Node>,
    ) -> Result<(), VerifyError> {
        check_bounds(&proof)?;
        if proof.fork != self.base.fork {
            return Err(VerifyError::WrongFork {
                expected: self.base.fork,
                found: proof.fork,
            });
        }
        let learnt = self.verifier_of(proof.manifest.as_ref())?;
        let verifier = learnt.as_ref().unwrap_or(&self.verifier);
        let mut walk = Walk::default();
        let mut top = walk.subtree(&proof, leaf)?;
        let upgraded = match &proof.upgrade {
            None => None,
            Some(upgrade) => Some(self.upgrade(upgrade, verifier, &mut walk, &mut top)?),
        };
        if let Some(top) = top {
            self.check_anchor(stored, &top)?;
        }
        self.merge(proof, learnt, walk, upgraded);
        Ok(())
    }

    /// The verifier under a manifest that a proof brings.
    fn verifier_of(&self, manifest: Option<&Manifest>) -> Result<Option<Verifier>, VerifyError> {
        let with = |manifest| self.verifier.with_manifest(manifest);
        let verifier = manifest.map(|manifest| with(manifest).ok_or(VerifyError::Manifest));
        verifier.transpose()
    }

    /// Grows the roots by `upgrade` and checks the signature over the result.
    fn upgrade(
        &self,
        upgrade: &UpgradeProof,
        verifier: &Verifier,
        walk: &mut Walk,
        subtree: &mut Option<Node>,
    ) -> Result<(Roots, Bytes), VerifyError> {
        if upgrade.start != self.roots.length() {
            return Err(VerifyError::Stale);
        }
        let to = upgrade_end(upgrade)?;
        if let Some(prologue) = verifier.prologue()
            && upgrade.start < prologue.length
            && to != prologue.length
        {
            return Err(VerifyError::Prologue);
        }
        let mut roots = self.roots.clone();
        let mut queue = Queue::new(&upgrade.nodes, subtree.take());
        walk.grow(&mut roots, to, &mut queue)?;
        *subtree = queue.finish()?;
        if let Some(prologue) = verifier.prologue()
            && to == prologue.length
            && roots.hash() != prologue.hash
        {
            return Err(VerifyError::Prologue);
        }
        walk.grow_by(&mut roots, &upgrade.additional)?;
        let signature = verifier.confirm(self.base.fork, &roots, upgrade.signature.as_deref());
        let length = roots.length();
        let signature = signature.ok_or(VerifyError::Signature { length })?;
        Ok((roots, signature))
    }

    /// A path that no upgrade took in must end at a node that is already trusted.
    fn check_anchor(&self, stored: &impl NodeSource, top: &Node) -> Result<(), VerifyError> {
        let index = top.index;
        let root = self.roots.nodes().iter().find(|root| root.index == index);
        let trusted = match root.or_else(|| self.nodes.get(&index)) {
            Some(node) => Some(*node),
            None => stored.node(index)?,
        };
        match trusted {
            None => Err(VerifyError::Unanchored { index }),
            Some(node) if node == *top => Ok(()),
            // Who is wrong, the sender or what is here?
            Some(_) => match Descent::new(&self.roots, &self.nodes, stored).node(index)? {
                Ok(_) => Err(VerifyError::Checksum { index }),
                Err(broken) => Err(VerifyError::Damaged {
                    index,
                    below: broken.below(),
                }),
            },
        }
    }

    fn merge(
        &mut self,
        proof: Proof,
        learnt: Option<Verifier>,
        walk: Walk,
        upgraded: Option<(Roots, Bytes)>,
    ) {
        let unsized_nodes = unsized_nodes(&proof);
        let sized = walk.nodes.iter().map(|n| (n.index, *n));
        let sized = sized.filter(|(index, _)| !unsized_nodes.contains(index));
        self.nodes.extend(sized);
        if let Some(block) = proof.block {
            self.blocks.push((block.index, block.value));
        }
        if let Some((roots, signature)) = upgraded {
            self.roots = roots;
            self.signature = Some(signature);
        }
        if let Some(verifier) = learnt {
            self.manifest = Some(verifier.manifest().clone());
            self.verifier = verifier;
        }
    }
}

/// Nodes given and derived on the way through one proof.
#[derive(Debug, Default)]
struct Walk {
    nodes: Vec<Node>,
}

impl Walk {
    /// The top of what the proof says about a block, a node or a sought byte.
    fn subtree(&mut self, proof: &Proof, leaf: Option<Node>) -> Result<Option<Node>, VerifyError> {
        let seek = match &proof.seek {
            Some(seek) if !seek.nodes.is_empty() => {
                let mut queue = Queue::new(&seek.nodes, None);
                let first = queue.first()?;
                Some(self.climb(first, &mut queue)?)
            }
            _ => None,
        };
        let (start, mut queue) = match (&proof.block, &proof.hash, leaf) {
            (Some(block), _, Some(leaf)) => (leaf, Queue::new(&block.nodes, seek)),
            (_, Some(hash), _) => {
                let mut queue = Queue::new(&hash.nodes, seek);
                (queue.take(hash.index)?, queue)
            }
            _ => return Ok(seek),
        };
        self.climb(start, &mut queue).map(Some)
    }

    /// From `start` up, a sibling at a time, until the queue is empty.
    fn climb(&mut self, start: Node, queue: &mut Queue<'_>) -> Result<Node, VerifyError> {
        let mut top = start;
        self.nodes.push(top);
        while !queue.is_empty() {
            let sibling = queue.take(flat_tree::sibling(top.index))?;
            let parent = Node::parent(&top, &sibling);
            top = parent.ok_or(VerifyError::TooLarge("sizes overflow"))?;
            self.nodes.extend([sibling, top]);
        }
        Ok(top)
    }

    /// Grows `roots` to `to` blocks with nodes from `queue`.
    fn grow(
        &mut self,
        roots: &mut Roots,
        to: u64,
        queue: &mut Queue<'_>,
    ) -> Result<(), VerifyError> {
        while roots.length() < to {
            let index = next_subtree(roots, to);
            self.push(roots, queue.take(index)?)?;
        }
        Ok(())
    }

    /// Grows `roots` by whatever subtrees come next on the right.
    fn grow_by(&mut self, roots: &mut Roots, nodes: &[Node]) -> Result<(), VerifyError> {
        nodes.iter().try_for_each(|node| self.push(roots, *node))
    }

    fn push(&mut self, roots: &mut Roots, node: Node) -> Result<(), VerifyError> {
        let index = node.index;
        self.nodes.push(node);
        roots
            .push(node, |parent| self.nodes.push(parent))
            .ok_or(VerifyError::UnexpectedNode { index })
    }
}

/// The largest aligned subtree that starts where `roots` end and stays within `to` blocks.
fn next_subtree(roots: &Roots, to: u64) -> u64 {
    let length = roots.length();
    let room = (to - length).ilog2();
    let depth = room.min(length.trailing_zeros());
    flat_tree::index(depth, length >> depth)
}

/// Nodes in the order the wire gives them, and one derived node that may fill a gap.
struct Queue<'a> {
    nodes: std::slice::Iter<'a, Node>,
    extra: Option<Node>,
}

impl<'a> Queue<'a> {
    fn new(nodes: &'a [Node], extra: Option<Node>) -> Self {
        Self {
            nodes: nodes.iter(),
            extra,
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 0 && self.extra.is_none()
    }

    fn first(&mut self) -> Result<Node, VerifyError> {
        let first = self.nodes.next().copied();
        first.ok_or(VerifyError::UnexpectedNode { index: 0 })
    }

    /// The next node, which must be the one at `index`.
    fn take(&mut self, index: u64) -> Result<Node, VerifyError> {
        if let Some(extra) = self.extra.take_if(|extra| extra.index == index) {
            return Ok(extra);
        }
        match self.nodes.next() {
            Some(node) if node.index == index => Ok(*node),
            _ => Err(VerifyError::UnexpectedNode { index }),
        }
    }

    /// The derived node if nothing took it. Surplus nodes are refused.
    fn finish(mut self) -> Result<Option<Node>, VerifyError> {
        match self.nodes.next() {
            Some(node) => Err(VerifyError::UnexpectedNode { index: node.index }),
            None => Ok(self.extra),
        }
    }
}

fn upgrade_end(upgrade: &UpgradeProof) -> Result<u64, VerifyError> {
    let end = upgrade.start.checked_add(upgrade.length);
    end.filter(|end| upgrade.start < *end && *end <= NUMBER_MAX / 2)
        .ok_or(VerifyError::TooLarge("upgrade past the longest log"))
}

fn check_bounds(proof: &Proof) -> Result<(), VerifyError> {
    if let Some(block) = &proof.block {
        if block.index > NUMBER_MAX / 2 {
            return Err(VerifyError::TooLarge("block index"));
        }
        if block.value.len() > BLOCK_BYTES_MAX {
            return Err(VerifyError::TooLarge("block"));
        }
    }
    node_lists(proof).try_for_each(check_nodes)
}

fn node_lists(proof: &Proof) -> impl Iterator<Item = &[Node]> {
    let block = proof.block.iter().map(|part| part.nodes.as_slice());
    let hash = proof.hash.iter().map(|part| part.nodes.as_slice());
    let seek = proof.seek.iter().map(|part| part.nodes.as_slice());
    let upgrade = proof.upgrade.iter();
    let upgrade = upgrade.flat_map(|part| [part.nodes.as_slice(), part.additional.as_slice()]);
    block.chain(hash).chain(seek).chain(upgrade)
}

fn check_nodes(nodes: &[Node]) -> Result<(), VerifyError> {
    if nodes.len() > PROOF_NODES_MAX {
        return Err(VerifyError::TooLarge("nodes"));
    }
    match nodes.iter().find(|node| node.index >= NUMBER_MAX) {
        Some(_) => Err(VerifyError::TooLarge("node index")),
        None => Ok(()),
    }
}

/// The nodes of a verified proof whose sizes it does not prove, which are not kept.
///
/// A parent's hash covers the sum of its children's sizes: of two siblings that are both given,
/// one could be said to be longer at the other's cost. The size of a leaf made from its block, of
/// a derived node and of a signed root is proven, and with it that of its sibling.
fn unsized_nodes(proof: &Proof) -> HashSet<u64> {
    if proof.upgrade.is_none() && proof.hash.is_none() && proof.seek.is_none() {
        return HashSet::new(); // on the way up from a block every sibling's sibling is derived
    }
    let given: HashSet<u64> = node_lists(proof).flatten().map(|n| n.index).collect();
    let is_paired = |index: &u64| given.contains(&flat_tree::sibling(*index));
    given.iter().copied().filter(is_paired).collect()
}

/// The leaves of all blocks in `proofs`, hashed together.
fn leaves_of(proofs: &[Proof]) -> Vec<Option<Node>> {
    let blocks: Vec<_> = proofs.iter().filter_map(|p| p.block.as_ref()).collect();
    let values: Vec<&[u8]> = blocks.iter().map(|block| block.value.as_ref()).collect();
    let mut hashes = hash::leaves(&values).into_iter();
    let leaf = |proof: &Proof| {
        let block = proof.block.as_ref()?;
        let hash = hashes.next()?;
        Some(Node {
            index: block.index.checked_mul(2)?,
            size: block.value.len() as u64,
            hash,
        })
    };
    proofs.iter().map(leaf).collect()
}
