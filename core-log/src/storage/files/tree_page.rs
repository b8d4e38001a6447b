//! Pages of the tree: subtrees of seven levels, and where a block begins as one of them tells.
//!
//! Knows places of nodes within a page. Does not know files, nor which pages are kept.

use std::ops::RangeInclusive;

use super::tree::NODE_BYTES;
use crate::flat_tree;

/// Levels of one page.
pub(super) const PAGE_LEVELS: u32 = 7;
/// Nodes in one page, and one more: by as much lie the lowest pages apart in the file.
pub(super) const PAGE_NODES: u64 = 1 << PAGE_LEVELS;

/// A node as the file has it.
pub(super) type NodeBytes = [u8; NODE_BYTES];

/// Some nodes of a subtree, in order.
#[derive(Default)]
pub(super) struct Page {
    /// One bit for each node of the subtree that is there.
    present: u128,
    nodes: Vec<NodeBytes>,
    /// Where the first block of a lowest page begins, once known.
    pub(super) start: Option<u64>,
}

impl Page {
    /// The page of these nodes and zeros.
    pub(super) fn new(mut nodes: Vec<NodeBytes>) -> Self {
        nodes.truncate(PAGE_NODES as usize - 1);
        let is_there = nodes.iter().map(is_node);
        let present: u128 = is_there
            .zip(0..)
            .fold(0, |bits, (there, at)| bits | u128::from(there) << at);
        if present.count_ones() as usize != nodes.len() {
            nodes.retain(is_node);
            nodes.shrink_to_fit();
        }
        let start = None;
        Self {
            present,
            nodes,
            start,
        }
    }

    /// The node above all others.
    pub(super) fn top(&self) -> Option<&NodeBytes> {
        self.get(PAGE_NODES as u32 / 2 - 1)
    }

    pub(super) fn get(&self, at: u32) -> Option<&NodeBytes> {
        let is_there = self.present >> at & 1 == 1;
        is_there.then(|| self.nodes.get(self.rank(at)))?
    }

    pub(super) fn insert(&mut self, at: u32, node: NodeBytes) {
        self.remove(at);
        self.nodes.insert(self.rank(at), node);
        self.present |= 1 << at;
    }

    pub(super) fn remove(&mut self, at: u32) {
        if self.get(at).is_some() {
            self.nodes.remove(self.rank(at));
            self.present &= !(1 << at);
        }
    }

    /// Nodes before `at`.
    fn rank(&self, at: u32) -> usize {
        (self.present & ((1 << at) - 1)).count_ones() as usize
    }

    /// The leaf at `at`, and where its block begins: `start`, and what lies to its left below this page.
    pub(super) fn block(&self, at: u32, start: u64) -> Option<(NodeBytes, u64)> {
        find(at, start, |at| self.get(at))
    }

    /// Nodes that are there.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The room of its nodes, for another page.
    pub(super) fn into_room(self) -> Vec<NodeBytes> {
        self.nodes
    }
}

/// The part of a lowest page that tells where the block with the leaf at `at` begins: from the largest subtree to
/// its left within the page to the leaf itself, a third of the page on average.
pub(super) fn part_of_block(at: u32) -> RangeInclusive<u32> {
    let block = at / 2;
    let first = block.checked_ilog2().map_or(0, |level| (1 << level) - 1);
    first..=at
}

/// As [`Page::block`], of the [part](part_of_block) of a page as the file has it.
pub(super) fn block_of_part(at: u32, start: u64, part: &[NodeBytes]) -> Option<(NodeBytes, u64)> {
    let first = *part_of_block(at).start();
    find(at, start, |at| {
        let node = part.get(at.checked_sub(first)? as usize);
        node.filter(|node| is_node(node))
    })
}

fn find<'a>(
    at: u32,
    start: u64,
    get: impl Fn(u32) -> Option<&'a NodeBytes>,
) -> Option<(NodeBytes, u64)> {
    let (mut node, mut begin) = (u64::from(at), start);
    for _ in 1..PAGE_LEVELS {
        if !flat_tree::is_left(node) {
            let left = get(flat_tree::sibling(node) as u32)?;
            begin = begin.checked_add(size(left))?;
        }
        node = flat_tree::parent(node);
    }
    Some((*get(at)?, begin))
}

/// Whether these are not the zeros of an absent node. Most are told by their first bytes.
pub(super) fn is_node(bytes: &NodeBytes) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().any(|word| *word != [0; 8])
}

/// Bytes of all blocks below a node.
pub(super) fn size(node: &NodeBytes) -> u64 {
    let size = node.first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: u64) -> NodeBytes {
        let mut bytes = [1; NODE_BYTES];
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    /// Goal: a part of the page tells the same as all of it, and needs nothing outside it.
    #[test]
    fn a_block_is_found_by_its_part() {
        let sizes = |at: u64| {
            let (first, end) = (flat_tree::first_block(at), flat_tree::end_block(at));
            (first..end).map(|block| 1 + block * 7 % 31).sum::<u64>()
        };
        let nodes: Vec<_> = (0..PAGE_NODES).map(|at| bytes(sizes(at))).collect();
        let page = Page::new(nodes.clone());
        let mut begin = 1000;
        for at in (0..PAGE_NODES as u32).step_by(2) {
            let part = part_of_block(at);
            let part = &nodes[*part.start() as usize..=*part.end() as usize];
            let expected = Some((nodes[at as usize], begin));
            assert_eq!(page.block(at, 1000), expected);
            assert_eq!(block_of_part(at, 1000, part), expected);
            let (_, short) = part.split_last().unwrap();
            assert_eq!(block_of_part(at, 1000, short), None);
            begin += sizes(u64::from(at));
        }
    }
}
