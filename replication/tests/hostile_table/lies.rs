//! Proofs that are true but for one thing.

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{
    HashProof, NodeRequest, Proof, ProofRequest, SeekProof, UpgradeProof, UpgradeRequest,
};

/// Signatures of the writer for other logs than the one at hand.
#[derive(Debug, Clone)]
pub(crate) struct Signatures {
    /// A shorter one.
    pub(crate) old: Bytes,
    /// One of the same length on another fork.
    pub(crate) other_fork: Bytes,
}

/// What is not true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// The id of the request.
    Id,
    /// The id 0, which conflicts are shown under.
    IdZero,
    /// One byte of the block.
    Value,
    /// The block is empty.
    EmptyValue,
    /// The block is longer than ours.
    LongValue,
    /// Two nodes have changed places.
    NodeOrder,
    /// There is a node more.
    NodeSurplus,
    /// There are 100,000 nodes more.
    ManyNodes,
    /// A node is missing.
    NodeMissing,
    /// All nodes are missing.
    NoNodes,
    /// A node comes twice.
    NodeTwice,
    /// A node's hash.
    NodeHash,
    /// A node's size.
    NodeSize,
    /// A node's size is 2^53 - 1.
    NodeSizeHuge,
    /// A node's place.
    NodeIndex,
    /// The true proof of another block.
    OtherBlock,
    /// The same, under the name of the one that was asked for.
    OtherBlockRenamed,
    /// A fork that is not ours.
    Fork,
    /// Fork 2^53 - 1.
    ForkHuge,
    /// There is a true upgrade that was not asked for.
    SurplusUpgrade,
    /// There is a node that was not asked for.
    SurplusHash,
    /// There is a place of a byte that was not asked for.
    SurplusSeek,
    /// There is the manifest, though not asked for.
    SurplusManifest,
    /// There is nothing in it.
    Nothing,
    /// One bit of the signature.
    Signature,
    /// The signature is missing.
    NoSignature,
    /// The signature is of a shorter log.
    OldSignature,
    /// The signature is of the same blocks on another fork.
    OtherForkSignature,
    /// The signature is a megabyte.
    LongSignature,
    /// The manifest is another core's.
    OtherManifest,
    /// The manifest is missing.
    NoManifest,
    /// The upgrade starts elsewhere.
    UpgradeStart,
    /// The upgrade is said to be longer.
    UpgradeLonger,
    /// The upgrade is said to be shorter.
    UpgradeShorter,
    /// The upgrade is said to be 2^53 - 1 blocks.
    UpgradeHuge,
    /// A root's hash.
    RootHash,
    /// A root's size.
    RootSize,
    /// Two roots have changed places.
    RootOrder,
    /// There is a root more.
    RootSurplus,
    /// A root is missing.
    RootMissing,
    /// There are nodes past the head.
    Additional,
}

impl Lie {
    /// Whether it is told in the proof itself.
    pub(crate) fn changes_proof(self) -> bool {
        !matches!(self, Self::None | Self::Id | Self::IdZero)
    }

    /// The answer of `writer` to `asked`, but for this.
    ///
    /// # Panics
    /// If there is nothing in it to lie about: the row would play the truth.
    pub(crate) fn tell(
        self,
        writer: &Core,
        asked: &ProofRequest,
        signatures: &Signatures,
    ) -> Option<Proof> {
        let mut proof = match self {
            Self::OtherBlock | Self::OtherBlockRenamed => writer.prove(&of_block(7, 3)),
            _ => writer.prove(asked),
        }
        .ok()
        .flatten()?;
        self.change(writer, asked, &mut proof);
        if let Some(upgrade) = &mut proof.upgrade {
            match self {
                Self::OldSignature => upgrade.signature = Some(signatures.old.clone()),
                Self::OtherForkSignature => upgrade.signature = Some(signatures.other_fork.clone()),
                _ => {}
            }
        }
        let truth = writer.prove(asked).ok().flatten();
        let is_lie = truth.as_ref() != Some(&proof);
        assert_eq!(is_lie, self.changes_proof(), "{self:?} of {asked:?}");
        Some(proof)
    }

    fn change(self, writer: &Core, asked: &ProofRequest, proof: &mut Proof) {
        match self {
            Self::OtherBlockRenamed => {
                if let (Some(block), Some(asked)) = (&mut proof.block, asked.block) {
                    block.index = asked.index;
                }
            }
            Self::Fork => proof.fork += 1,
            Self::ForkHuge => proof.fork = (1 << 53) - 1,
            Self::SurplusUpgrade => proof.upgrade = whole(writer).upgrade,
            Self::SurplusHash => {
                let nodes = whole(writer).upgrade.map(|upgrade| upgrade.nodes);
                proof.hash = Some(HashProof {
                    index: 2,
                    nodes: nodes.unwrap_or_default(),
                });
            }
            Self::SurplusSeek => {
                proof.seek = Some(SeekProof {
                    bytes: 3,
                    nodes: Vec::new(),
                });
            }
            Self::SurplusManifest => proof.manifest = writer.manifest(),
            Self::NoManifest => proof.manifest = None,
            Self::OtherManifest => {
                let other = ferrocore_log::Corestore::memory().get_named("other");
                proof.manifest = other.ok().and_then(|other| other.manifest());
            }
            Self::Nothing => {
                *proof = Proof {
                    fork: proof.fork,
                    ..Proof::default()
                }
            }
            Self::Value | Self::EmptyValue | Self::LongValue => self.change_value(proof),
            _ => {
                if let Some(upgrade) = &mut proof.upgrade {
                    self.change_upgrade(upgrade);
                }
                if let Some(nodes) = path_of(proof) {
                    self.change_nodes(nodes);
                }
            }
        }
    }

    fn change_value(self, proof: &mut Proof) {
        let Some(block) = &mut proof.block else {
            return;
        };
        let mut value = block.value.to_vec();
        match self {
            Self::Value => value.iter_mut().take(1).for_each(|byte| *byte ^= 1),
            Self::EmptyValue => value.clear(),
            _ => value.extend([7; 100_000]),
        }
        block.value = Bytes::from(value);
    }

    fn change_nodes(self, nodes: &mut Vec<Node>) {
        let last = nodes.last().cloned();
        match self {
            Self::NodeOrder => nodes.reverse(),
            Self::NodeSurplus => nodes.push(node(99)),
            Self::ManyNodes => nodes.extend((0..100_000).map(|index| node(1000 + index))),
            Self::NodeMissing => drop(nodes.pop()),
            Self::NoNodes => nodes.clear(),
            Self::NodeTwice => nodes.extend(last),
            Self::NodeHash => nodes
                .iter_mut()
                .take(1)
                .for_each(|node| node.hash = [9; 32].into()),
            Self::NodeSize => nodes.iter_mut().take(1).for_each(|node| node.size += 1),
            Self::NodeSizeHuge => nodes
                .iter_mut()
                .take(1)
                .for_each(|node| node.size = (1 << 53) - 1),
            Self::NodeIndex => nodes.iter_mut().take(1).for_each(|node| node.index += 2),
            _ => {}
        }
    }

    fn change_upgrade(self, upgrade: &mut UpgradeProof) {
        let signature = upgrade.signature.clone().unwrap_or_default();
        match self {
            Self::Signature => {
                let mut signature = signature.to_vec();
                signature
                    .iter_mut()
                    .rev()
                    .take(1)
                    .for_each(|byte| *byte ^= 1);
                upgrade.signature = Some(signature.into());
            }
            Self::NoSignature => upgrade.signature = None,
            Self::LongSignature => upgrade.signature = Some(vec![1; 1 << 20].into()),
            Self::UpgradeStart => upgrade.start += 1,
            Self::UpgradeLonger => upgrade.length += 1,
            Self::UpgradeShorter => upgrade.length -= 1,
            Self::UpgradeHuge => upgrade.length = (1 << 53) - 1,
            Self::RootHash => upgrade
                .nodes
                .iter_mut()
                .take(1)
                .for_each(|node| node.hash = [9; 32].into()),
            Self::RootSize => upgrade
                .nodes
                .iter_mut()
                .take(1)
                .for_each(|node| node.size += 1),
            Self::RootOrder => upgrade.nodes.reverse(),
            Self::RootSurplus => upgrade.nodes.push(node(99)),
            Self::RootMissing => drop(upgrade.nodes.pop()),
            Self::Additional => upgrade.additional = vec![node(99), node(101)],
            _ => {}
        }
    }
}

/// What a reader asks to get block `index`.
pub(crate) fn of_block(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    }
}

/// The writer's whole log.
pub(crate) fn whole(writer: &Core) -> Proof {
    let request = ProofRequest {
        fork: writer.fork(),
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: writer.length(),
        }),
        ..ProofRequest::default()
    };
    writer.prove(&request).unwrap().unwrap()
}

/// The nodes of the block, or whatever is in the proof.
fn path_of(proof: &mut Proof) -> Option<&mut Vec<Node>> {
    match (&mut proof.block, &mut proof.hash, &mut proof.upgrade) {
        (Some(block), ..) => Some(&mut block.nodes),
        (None, Some(hash), _) => Some(&mut hash.nodes),
        (None, None, upgrade) => upgrade.as_mut().map(|upgrade| &mut upgrade.nodes),
    }
}

fn node(index: u64) -> Node {
    Node {
        index,
        size: 1,
        hash: [3; 32].into(),
    }
}
