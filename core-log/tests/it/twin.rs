//! Goal: the arithmetic on tree indexes, the plans of proofs and their verification are right far
//! beyond any log that a test could write: up to 2^40 blocks.
//! Method: the recursive Merkle tree by its definition as the twin. All blocks of its log are
//! alike but for a few, so the hash of a subtree without one of these follows from its depth
//! alone, and the tree over 2^40 blocks is made in a few thousand hashes. `PROPTEST_CASES` says how
//! many logs.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrocore_log::flat_tree;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::proof::{NodeRequest, Plan, Proof, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::proof::{SeekRoot, growth};
use ferrocore_log::seek::{self, NodeSource, Position};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, Corestore, Manifest, StorageError};
use ferrocore_primitives::hash::{self, Hash};
use ferrocore_primitives::sign::KeyPair;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

const LENGTH_MAX: u64 = 1 << 40;
const PLAIN: &[u8] = b"plain block";

/// A subtree, by its height and its place from the left among those of its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    depth: u32,
    offset: u64,
}

impl Place {
    fn first(self) -> u64 {
        self.offset << self.depth
    }

    fn end(self) -> u64 {
        (self.offset + 1) << self.depth
    }

    fn holds(self, block: u64) -> bool {
        self.first() <= block && block < self.end()
    }

    fn children(self) -> Option<[Self; 2]> {
        let depth = self.depth.checked_sub(1)?;
        Some([0, 1].map(|side| Self {
            depth,
            offset: 2 * self.offset + side,
        }))
    }

    fn parent(self) -> Self {
        Self {
            depth: self.depth + 1,
            offset: self.offset / 2,
        }
    }

    /// Leaf `i` has index `2i`; every other node lies halfway between its outermost leaves.
    fn index(self) -> u64 {
        (2 * self.first() + 2 * (self.end() - 1)) / 2
    }
}

/// The roots of a log of `length` blocks from block `first` on: the largest that fits, then the rest.
fn roots_of(first: u64, length: u64) -> Vec<Place> {
    if length == 0 {
        return Vec::new();
    }
    let depth = length.ilog2();
    let root = Place {
        depth,
        offset: first >> depth,
    };
    let mut roots = vec![root];
    roots.extend(roots_of(root.end(), length - (1 << depth)));
    roots
}

/// The largest subtrees of `top` that hold blocks from `from` on and no others.
fn cover(top: Place, from: u64) -> Vec<Place> {
    match top.children() {
        _ if top.end() <= from => Vec::new(),
        Some([left, right]) if top.first() < from => {
            [cover(left, from), cover(right, from)].concat()
        }
        _ => vec![top],
    }
}

/// A log of which a few blocks are told apart.
#[derive(Debug)]
struct Log {
    length: u64,
    special: BTreeMap<u64, Bytes>,
    /// Size and hash of a subtree of plain blocks, by depth.
    plain: Vec<(u64, Hash)>,
}

impl Log {
    fn new(length: u64, special: BTreeMap<u64, Bytes>) -> Self {
        let mut plain = vec![(PLAIN.len() as u64, hash::leaf(PLAIN))];
        for depth in 0..length.ilog2() as usize {
            let (size, child) = plain[depth];
            plain.push((2 * size, hash::parent(size, &child, size, &child)));
        }
        Self {
            length,
            special,
            plain,
        }
    }

    fn block(&self, index: u64) -> Bytes {
        let special = self.special.get(&index).cloned();
        special.unwrap_or(Bytes::from_static(PLAIN))
    }

    /// The tree by its definition.
    fn node(&self, place: Place) -> Node {
        let is_plain = self
            .special
            .range(place.first()..place.end())
            .next()
            .is_none();
        let index = place.index();
        let (size, hash) = match place.children() {
            _ if is_plain => self.plain[place.depth as usize],
            None => {
                let block = self.block(place.first());
                (block.len() as u64, hash::leaf(&block))
            }
            Some(children) => {
                let [left, right] = children.map(|child| self.node(child));
                let hash = hash::parent(left.size, &left.hash, right.size, &right.hash);
                (left.size + right.size, hash)
            }
        };
        Node { index, size, hash }
    }

    fn roots(&self, length: u64) -> Vec<Node> {
        roots_of(0, length)
            .into_iter()
            .map(|root| self.node(root))
            .collect()
    }

    /// Bytes of the blocks of `top` that come before `block`.
    fn size_before(&self, top: Place, block: u64) -> u64 {
        match top.children() {
            _ if top.end() <= block => self.node(top).size,
            _ if top.first() >= block => 0,
            None => 0,
            Some([left, right]) => self.size_before(left, block) + self.size_before(right, block),
        }
    }

    fn byte_offset(&self, block: u64) -> u64 {
        let roots = roots_of(0, self.length).into_iter();
        roots.map(|root| self.size_before(root, block)).sum()
    }

    /// What is found at `index`, by walking down from the root above.
    fn at(&self, index: u64) -> Option<Place> {
        let mut at = roots_of(0, self.length)
            .into_iter()
            .find(|root| 2 * root.first() <= index && index <= 2 * (root.end() - 1))?;
        while at.index() != index {
            let [left, right] = at.children()?;
            at = if index < at.index() { left } else { right };
        }
        Some(at)
    }

    fn head(&self) -> TreeHead {
        let roots = self.roots(self.length);
        TreeHead {
            fork: 0,
            length: self.length,
            hash: hash::tree(roots.iter().map(|n| (n.index, n.size, n.hash))),
        }
    }
}

impl NodeSource for Log {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        Ok(self.at(index).map(|place| self.node(place)))
    }
}

/// A writer that holds the whole log, as it were, and a reader of it.
struct Pair {
    log: Log,
    reader: Core,
    signature: Bytes,
    manifest: Manifest,
}

impl Pair {
    fn new(log: Log) -> Self {
        let key_pair = KeyPair::from_seed(&[3; 32]);
        let manifest = Manifest::single(key_pair.public_key());
        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        Self {
            signature: verifier.sign(&log.head(), &key_pair).unwrap(),
            reader: Corestore::memory().get(&manifest.key()).unwrap(),
            manifest,
            log,
        }
    }

    fn prove(&self, request: &ProofRequest, seek_root: Option<u64>) -> Proof {
        let plan = Plan::new(request, self.log.length, None, seek_root.map(SeekRoot)).unwrap();
        let proof = plan.assemble(request, &self.signature, |index| {
            NodeSource::node(&self.log, index).map(|node| node.unwrap())
        });
        let mut proof = proof.unwrap();
        proof.manifest = request.manifest.then(|| self.manifest.clone());
        if let Some(block) = &mut proof.block {
            block.value = self.log.block(block.index);
        }
        proof
    }

    /// The reader learns the length, with a block along the way if it is one the upgrade brings.
    fn upgrade(&self, with: Option<u64>) {
        let request = ProofRequest {
            block: with.map(|index| NodeRequest { index, nodes: 0 }),
            upgrade: Some(UpgradeRequest {
                start: 0,
                length: self.log.length,
            }),
            manifest: true,
            ..ProofRequest::default()
        };
        self.reader.accept(self.prove(&request, None)).unwrap();
        assert_eq!(self.reader.length(), self.log.length);
        assert_eq!(self.reader.tree_hash(), self.log.head().hash);
    }

    fn fetch(&self, index: u64) {
        let nodes = self.reader.missing_nodes(2 * index).unwrap();
        let request = ProofRequest {
            block: Some(NodeRequest { index, nodes }),
            ..ProofRequest::default()
        };
        let proof = self.prove(&request, None);
        assert_eq!(proof.block.as_ref().unwrap().nodes.len() as u64, nodes);
        self.reader.accept(proof).unwrap();
    }
}

fn logs() -> impl Strategy<Value = Log> {
    let length = (0u32..=40, any::<u64>());
    let length = length.prop_map(|(bits, any)| 1 + any % (LENGTH_MAX >> bits));
    let special = btree_map(any::<u64>(), vec(any::<u8>(), 1..30), 0..6);
    (length, special).prop_map(|(length, special)| {
        let special = special.into_iter();
        Log::new(
            length,
            special
                .map(|(at, block)| (at % length, block.into()))
                .collect(),
        )
    })
}

/// A log and some of its blocks: those told apart, their neighbours, the ends, any.
fn logs_and_blocks() -> impl Strategy<Value = (Log, Vec<u64>)> {
    (logs(), vec(any::<u64>(), 1..6)).prop_map(|(log, any)| {
        let length = log.length;
        let near = log
            .special
            .keys()
            .flat_map(|at| [*at, at ^ 1, at.saturating_sub(1)]);
        let mut blocks: Vec<u64> = near.chain([0, length - 1]).collect();
        blocks.extend(any.iter().map(|at| at % length));
        blocks.retain(|block| *block < length);
        (log, blocks)
    })
}

proptest! {
        #[test]
    fn indexes_are_those_of_the_definition(depth in 0u32..40, any in any::<u64>()) {
        let place = Place { depth, offset: any % (LENGTH_MAX >> depth) };
        let index = place.index();
        prop_assert_eq!(flat_tree::index(depth, place.offset), index);
        prop_assert_eq!(flat_tree::depth(index), depth);
        prop_assert_eq!(flat_tree::offset(index), place.offset);
        prop_assert_eq!(flat_tree::first_block(index), place.first());
        prop_assert_eq!(flat_tree::end_block(index), place.end());
        prop_assert_eq!(flat_tree::leaves(index), place.end() - place.first());
        let children = place.children().map(|children| children.map(Place::index));
        prop_assert_eq!(flat_tree::children(index).map(|(left, right)| [left, right]), children);
        let parent = place.parent();
        prop_assert_eq!(flat_tree::parent(index), parent.index());
        let [left, right] = parent.children().unwrap();
        let (sibling, is_left) = if left == place { (right, true) } else { (left, false) };
        prop_assert_eq!(flat_tree::sibling(index), sibling.index());
        prop_assert_eq!(flat_tree::is_left(index), is_left);
        for block in [place.first(), place.end() - 1, place.end(), place.first().wrapping_sub(1)] {
            let holds = block < LENGTH_MAX && place.holds(block);
            prop_assert_eq!(block < LENGTH_MAX && flat_tree::contains(index, 2 * block), holds);
        }
    }

    #[test]
    fn roots_and_growth_are_those_of_the_definition(log in logs(), any in any::<u64>()) {
        let (from, to) = (any % (log.length + 1), log.length);
        let roots: Vec<u64> = roots_of(0, to).into_iter().map(Place::index).collect();
        prop_assert_eq!(flat_tree::full_roots(to).collect::<Vec<_>>(), roots);
        let mut grown = Vec::new();
        growth(from, to, |index| grown.push(index));
        let expected = roots_of(0, to).into_iter().flat_map(|root| cover(root, from));
        prop_assert_eq!(&grown, &expected.map(Place::index).collect::<Vec<_>>());
        // Grown by these, the tree of `from` blocks becomes that of `to`, node for node.
        let mut tree = Roots::new(from, log.roots(from)).unwrap();
        let mut born = Vec::new();
        for index in grown {
            let node = NodeSource::node(&log, index).unwrap().unwrap();
            prop_assert!(tree.push(node, |node| born.push(node)).is_some());
        }
        prop_assert_eq!(tree.nodes(), &log.roots(to)[..]);
        prop_assert_eq!(tree.length(), to);
        prop_assert_eq!(tree.hash(), log.head().hash);
        for node in born {
            prop_assert_eq!(NodeSource::node(&log, node.index).unwrap(), Some(node));
        }
    }

    #[test]
    fn a_reader_takes_blocks_from_anywhere((log, blocks) in logs_and_blocks()) {
        let pair = Pair::new(log);
        pair.upgrade(blocks.first().copied());
        for block in &blocks {
            pair.fetch(*block);
        }
        for block in blocks {
            prop_assert_eq!(pair.reader.get_local(block).unwrap(), Some(pair.log.block(block)));
            let path = pair.reader.missing_nodes(2 * block).unwrap();
            prop_assert_eq!(path, 0, "what was verified is kept");
        }
    }

    #[test]
    fn a_path_is_the_siblings_on_the_way_up((log, blocks) in logs_and_blocks(), levels in 0u64..42) {
        for block in blocks {
            let root = roots_of(0, log.length).into_iter().find(|root| root.holds(block)).unwrap();
            let levels = levels.min(root.depth.into());
            let (mut at, mut path) = (Place { depth: 0, offset: block }, Vec::new());
            for _ in 0..levels {
                let siblings = at.parent().children().unwrap();
                path.extend(siblings.into_iter().filter(|sibling| *sibling != at));
                at = at.parent();
            }
            let request = ProofRequest {
                block: Some(NodeRequest { index: block, nodes: levels }),
                ..ProofRequest::default()
            };
            let plan = Plan::new(&request, log.length, None, None).unwrap();
            prop_assert_eq!(plan.path, path.into_iter().map(Place::index).collect::<Vec<_>>());
        }
    }

    #[test]
    fn bytes_are_found_where_they_are((log, blocks) in logs_and_blocks()) {
        let roots = Roots::new(log.length, log.roots(log.length)).unwrap();
        let pair = Pair::new(log);
        pair.upgrade(None);
        for block in blocks {
            let (start, size) = (pair.log.byte_offset(block), pair.log.block(block).len() as u64);
            let offset = seek::byte_offset(&roots, &pair.log, 2 * block).unwrap();
            prop_assert_eq!(offset, Some(start));
            for into in [0, size / 2, size - 1] {
                let found = seek::seek(&roots, &pair.log, start + into, 0).unwrap();
                prop_assert_eq!(found, Position::Block { index: block, offset: into });
            }
            // And a reader that holds nothing but roots is led there.
            if let Position::Below { node, .. } = pair.reader_seek(&roots, start) {
                let root = seek::seek_root_in_subtree(&roots, &pair.log, node, start, 0);
                let root = root.unwrap().unwrap();
                prop_assert!(flat_tree::first_block(root) <= block);
                prop_assert!(flat_tree::end_block(root) >= block);
                let request = ProofRequest {
                    hash: Some(NodeRequest { index: node, nodes: 0 }),
                    seek: Some(SeekRequest { bytes: start, padding: 0 }),
                    ..ProofRequest::default()
                };
                pair.reader.accept(pair.prove(&request, Some(root))).unwrap();
            }
        }
    }
}

impl Pair {
    /// Where byte `bytes` is, as far as the reader can tell.
    fn reader_seek(&self, roots: &Roots, bytes: u64) -> Position {
        struct RootsOnly<'a>(&'a Roots);
        impl NodeSource for RootsOnly<'_> {
            fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
                Ok(self
                    .0
                    .nodes()
                    .iter()
                    .copied()
                    .find(|node| node.index == index))
            }
        }
        seek::seek(roots, &RootsOnly(roots), bytes, 0).unwrap()
    }
}
