//! Moving to another history: whether it is signed, and where it leaves ours.
//!
//! A writer that truncates its log starts a new *fork*, and a higher fork always wins. Its reader
//! verifies the new tree from an empty one, then looks for the *ancestors*: the blocks that both
//! histories begin with, which need not be fetched again. From the first root that differs it goes
//! down a level at a time, asking for the two children of the node it stands on.
//!
//! Knows trees and proofs. Does not know who is asked, nor how the new history is committed (`core`).

use crate::changeset::{Base, Changeset, VerifyError};
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::proof::{NodeRequest, Proof, ProofRequest};
use crate::seek::NodeSource;
use crate::storage::StorageError;
use crate::verifier::Verifier;

/// A signed tree of a higher fork, and how much of it is known to be ours too.
///
/// [`Core::reorg`](crate::Core::reorg) makes one. While [`wants`](Self::wants) asks for a proof, hand it to
/// [`Core::narrow`](crate::Core::narrow): at most one for each level of the tree. Then
/// [`Core::adopt`](crate::Core::adopt) it. That may be done earlier, if nobody can answer: the blocks
/// that are not known to be the same by then are fetched again.
#[derive(Debug)]
pub struct Reorg {
    /// The history that is left.
    pub(crate) base: Base,
    /// The new tree, with the nodes of it that are proven.
    pub(crate) tree: Changeset,
    /// The leftmost node that is not known to be the same in both trees.
    differing: Option<Node>,
    /// Whether both trees may have something in common below it.
    is_open: bool,
    /// Two siblings of which only the sum of the sizes is proven.
    unproven: Option<[Node; 2]>,
}

/// How a node of the new tree compares with what is here.
#[derive(Debug, PartialEq, Eq)]
enum Match {
    /// It is here.
    Same,
    /// It is not, but nodes below it may be.
    Partial,
    /// Neither it nor anything below it is here.
    Nothing,
}

impl Reorg {
    /// Verifies `proof`, which must upgrade an empty log to a fork above that of `base`.
    ///
    /// Cost: as for an upgrade, and a node read for each root.
    pub(crate) fn new(
        base: Base,
        verifier: Verifier,
        stored: &impl NodeSource,
        proof: Proof,
    ) -> Result<Self, VerifyError> {
        if proof.fork <= base.fork {
            return Err(VerifyError::Stale);
        }
        let mut tree = Changeset::new(proof.fork, Roots::default(), verifier);
        for result in tree.extend(&Nowhere, vec![proof]) {
            result?;
        }
        if !tree.is_upgrade() {
            return Err(VerifyError::Signature { length: 0 });
        }
        let mut reorg = Self {
            base,
            tree,
            differing: None,
            is_open: false,
            unproven: None,
        };
        reorg.compare_roots(stored)?;
        Ok(reorg)
    }

    /// Takes in the answer to what [`wants`](Self::wants) asks for.
    pub(crate) fn narrow(
        &mut self,
        stored: &impl NodeSource,
        proof: &Proof,
    ) -> Result<(), VerifyError> {
        let Some(node) = self.differing.filter(|_| self.is_open) else {
            return Ok(()); // nothing was asked for
        };
        let [left, right] = children_in(proof, self.fork(), &node)?;
        // The node's children add up to it, so it is as long as it was said to be.
        let proven = self.unproven.take().into_iter().flatten();
        self.tree.nodes.extend(proven.map(|n| (n.index, n)));
        if self.compare(stored, &left)? == Match::Same {
            self.tree.nodes.insert(right.index, right);
            self.stand_on(stored, right)
        } else {
            self.unproven = Some([left, right]);
            self.stand_on(stored, left)
        }
    }

    /// The proof that would show more of the new tree to be ours too, if there is one.
    pub fn wants(&self) -> Option<ProofRequest> {
        let node = self.differing.filter(|_| self.is_open)?;
        let (left, _) = flat_tree::children(node.index)?;
        Some(ProofRequest {
            fork: self.fork(),
            hash: Some(NodeRequest {
                index: left,
                nodes: 1,
            }),
            ..ProofRequest::default()
        })
    }

    /// The new fork.
    pub fn fork(&self) -> u64 {
        self.tree.base.fork
    }

    /// Blocks in the new log.
    pub fn length(&self) -> u64 {
        self.tree.length()
    }

    /// How many blocks, from the first, are known to be the same in both histories.
    pub fn ancestors(&self) -> u64 {
        let differing = self.differing.as_ref();
        differing.map_or(self.length(), |node| flat_tree::first_block(node.index))
    }

    fn compare_roots(&mut self, stored: &impl NodeSource) -> Result<(), VerifyError> {
        let roots = self.tree.roots.clone();
        for root in roots.nodes() {
            if self.compare(stored, root)? != Match::Same {
                return self.stand_on(stored, *root);
            }
        }
        Ok(())
    }

    fn stand_on(&mut self, stored: &impl NodeSource, node: Node) -> Result<(), VerifyError> {
        self.is_open = self.compare(stored, &node)? == Match::Partial;
        self.differing = Some(node);
        Ok(())
    }

    fn compare(&self, stored: &impl NodeSource, node: &Node) -> Result<Match, StorageError> {
        let index = node.index;
        if flat_tree::first_block(index) >= self.base.length {
            return Ok(Match::Nothing);
        }
        // A node that reaches past our log is none of ours, but some below it are.
        let is_within = flat_tree::end_block(index) <= self.base.length;
        if is_within && stored.node(index)?.as_ref() == Some(node) {
            return Ok(Match::Same);
        }
        let is_partial = match flat_tree::children(index) {
            None => false,
            // Where a block is here, so are the left siblings of all nodes above it.
            Some((left, _)) => !is_within || stored.node(left)?.is_some(),
        };
        Ok(match is_partial {
            true => Match::Partial,
            false => Match::Nothing,
        })
    }
}

/// The children of `node`, which must be what `proof` consists of.
fn children_in(proof: &Proof, fork: u64, node: &Node) -> Result<[Node; 2], VerifyError> {
    if proof.fork != fork {
        return Err(VerifyError::WrongFork {
            expected: fork,
            found: proof.fork,
        });
    }
    let index = node.index;
    let nodes = proof.hash.as_ref().map(|hash| hash.nodes.as_slice());
    let Some([left, right]) = nodes else {
        return Err(VerifyError::UnexpectedNode { index });
    };
    if flat_tree::children(index) != Some((left.index, right.index)) {
        return Err(VerifyError::UnexpectedNode { index });
    }
    match Node::parent(left, right).as_ref() == Some(node) {
        true => Ok([*left, *right]),
        false => Err(VerifyError::Checksum { index }),
    }
}

/// The storage of an empty log.
struct Nowhere;

impl NodeSource for Nowhere {
    fn node(&self, _: u64) -> Result<Option<Node>, StorageError> {
        Ok(None)
    }
}
