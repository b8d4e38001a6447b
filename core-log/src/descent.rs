//! The way down from roots that are known to be right: what is met on it is held against what lies above.
//!
//! A node that is stored may have been damaged since. A block that is read by it does not match its hash; but nobody
//! would notice where bytes are written or freed by its size, or a tree is signed that it is a part of.
//!
//! Knows how nodes make the one above them. Does not know storage, nor what the answers are for.

use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::seek::NodeSource;
use crate::storage::StorageError;

/// Where the way ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// This node is not held.
    Missing(u64),
    /// The nodes below this one do not make it.
    Wrong(u64),
}

/// The byte at which something begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOffset {
    /// This one, and all that tells is of the tree that the roots are of.
    Proven(u64),
    /// This one, as far as can be told: on the way there are nodes that are not held.
    Likely(u64),
}

impl ByteOffset {
    /// Whichever it is.
    pub(crate) fn get(self) -> u64 {
        match self {
            Self::Proven(offset) | Self::Likely(offset) => offset,
        }
    }

    /// It, if it is proven.
    pub(crate) fn proven(self) -> Option<u64> {
        match self {
            Self::Proven(offset) => Some(offset),
            Self::Likely(_) => None,
        }
    }
}

/// The roots of the first `length` blocks of a log with these roots, which must be as long.
///
/// Cost: two node reads and one hash a level of the root that is cut.
///
/// # Errors
/// [`StorageError`] if a node cannot be read.
pub(crate) fn roots_at(
    roots: &Roots,
    nodes: &impl NodeSource,
    length: u64,
) -> Result<Result<Roots, Broken>, StorageError> {
    let ends_before = |node: &Node| flat_tree::end_block(node.index) <= length;
    let whole = roots.nodes().iter().copied().take_while(ends_before);
    let mut found: Vec<Node> = whole.collect();
    let mut cut = roots.nodes().get(found.len()).copied();
    while let Some(node) = cut.filter(|node| flat_tree::first_block(node.index) < length) {
        let [left, right] = match children(nodes, &node)? {
            Ok(children) => children,
            Err(broken) => return Ok(Err(broken)),
        };
        cut = Some(match ends_before(&left) {
            true => {
                found.push(left);
                right
            }
            false => left,
        });
    }
    let missing = Broken::Missing(2 * length);
    Ok(Roots::new(length, found).ok_or(missing))
}

/// The children of `node`, which is right.
fn children(
    nodes: &impl NodeSource,
    node: &Node,
) -> Result<Result<[Node; 2], Broken>, StorageError> {
    let Some((left, right)) = flat_tree::children(node.index) else {
        return Ok(Err(Broken::Missing(node.index)));
    };
    let (Some(left_node), right_node) = (nodes.node(left)?, nodes.node(right)?) else {
        return Ok(Err(Broken::Missing(left)));
    };
    let Some(right_node) = right_node else {
        return Ok(Err(Broken::Missing(right)));
    };
    Ok(match Node::parent(&left_node, &right_node) == Some(*node) {
        true => Ok([left_node, right_node]),
        false => Err(Broken::Wrong(node.index)),
    })
}

/// The byte at which the subtree `node` begins. Where a node is not held, as after an audit that gave it up, those
/// around it tell.
///
/// Cost: two node reads and one hash a level.
///
/// # Errors
/// [`StorageError`] if a node cannot be read.
pub(crate) fn byte_offset(
    roots: &Roots,
    nodes: &impl NodeSource,
    node: u64,
) -> Result<Result<ByteOffset, Broken>, StorageError> {
    let target = flat_tree::left_span(node);
    let mut offset = 0;
    for root in roots.nodes() {
        if flat_tree::contains(root.index, target) {
            return descend(*root, nodes, target, offset);
        }
        offset += root.size;
    }
    Ok(match target == 2 * roots.length() {
        true => Ok(ByteOffset::Proven(offset)),
        false => Err(Broken::Missing(node)),
    })
}

/// As [`byte_offset`], of the leaf `target` below `root`, which begins at `offset`.
fn descend(
    root: Node,
    nodes: &impl NodeSource,
    target: u64,
    mut offset: u64,
) -> Result<Result<ByteOffset, Broken>, StorageError> {
    let (mut index, mut held, mut is_proven) = (root.index, Some(root), true);
    while flat_tree::left_span(index) != target {
        let Some((left, right)) = flat_tree::children(index) else {
            return Ok(Err(Broken::Missing(index)));
        };
        let (left_node, right_node) = (nodes.node(left)?, nodes.node(right)?);
        match (&held, &left_node, &right_node) {
            (Some(held), Some(left), Some(right)) => {
                if Node::parent(left, right) != Some(*held) {
                    return Ok(Err(Broken::Wrong(index)));
                }
            }
            _ => is_proven = false,
        }
        if flat_tree::contains(left, target) {
            (index, held) = (left, left_node);
            continue;
        }
        let rest = || held?.size.checked_sub(right_node?.size);
        let Some(size) = left_node.map(|node| node.size).or_else(rest) else {
            return Ok(Err(Broken::Missing(left)));
        };
        // What is not proven may be any number.
        offset = offset.saturating_add(size);
        (index, held) = (right, right_node);
    }
    Ok(Ok(match is_proven {
        true => ByteOffset::Proven(offset),
        false => ByteOffset::Likely(offset),
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;

    use super::*;
    use crate::seek;

    /// Nodes in memory, and how often they were asked for.
    #[derive(Default)]
    struct Nodes {
        held: HashMap<u64, Node>,
        reads: Cell<u64>,
    }

    impl NodeSource for Nodes {
        fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
            self.reads.set(self.reads.get() + 1);
            Ok(self.held.get(&index).copied())
        }
    }

    fn log(length: u64) -> (Roots, Nodes) {
        let (mut roots, mut nodes) = (Roots::default(), Nodes::default());
        for index in 0..length {
            let leaf = Node::leaf(index, &vec![7; index as usize % 5]);
            nodes.held.insert(leaf.index, leaf);
            let born = |node: Node| {
                nodes.held.insert(node.index, node);
            };
            roots.push(leaf, born).unwrap();
        }
        (roots, nodes)
    }

    /// Goal: of a whole tree both find what the naive way does, with two reads a level.
    #[test]
    fn what_is_whole_is_found() {
        let mut grown = vec![Roots::default()];
        for length in 1..70 {
            let (roots, nodes) = log(length);
            let levels = u64::from(length.ilog2());
            for (index, shorter) in (0..).zip(&grown) {
                let offset = byte_offset(&roots, &nodes, 2 * index).unwrap();
                assert!(nodes.reads.take() <= 2 * levels);
                let naive = seek::byte_offset(&roots, &nodes, 2 * index).unwrap();
                assert_eq!(offset, Ok(ByteOffset::Proven(naive.unwrap())));
                nodes.reads.set(0);
                assert_eq!(
                    roots_at(&roots, &nodes, index).unwrap().as_ref(),
                    Ok(shorter)
                );
                assert!(nodes.reads.take() <= 2 * levels);
            }
            assert_eq!(
                roots_at(&roots, &nodes, length).unwrap().as_ref(),
                Ok(&roots)
            );
            grown.push(roots);
        }
    }

    /// Goal: a size or a hash that is wrong never leads to another answer, and a node that is missing to one that counts as proven.
    #[test]
    fn what_is_damaged_is_told() {
        let (roots, nodes) = log(45);
        let is_root = |index: &u64| roots.nodes().iter().any(|root| root.index == *index);
        let below: Vec<u64> = nodes.held.keys().copied().filter(|i| !is_root(i)).collect();
        for (damaged, kind) in below.into_iter().flat_map(|i| [(i, 0), (i, 1), (i, 2)]) {
            let mut held = nodes.held.clone();
            let mut node = held.remove(&damaged).unwrap();
            match kind {
                0 => node.size ^= 4,
                1 => node.hash = Node::leaf(0, b"another").hash,
                _ => {}
            }
            if kind < 2 {
                held.insert(damaged, node);
            }
            let now = Nodes {
                held,
                reads: Cell::default(),
            };
            for index in 0..45 {
                let whole = byte_offset(&roots, &nodes, 2 * index).unwrap().unwrap();
                match byte_offset(&roots, &now, 2 * index).unwrap() {
                    Ok(ByteOffset::Proven(offset)) => assert_eq!(offset, whole.get()),
                    Ok(ByteOffset::Likely(_)) | Err(Broken::Missing(_)) => assert_eq!(kind, 2),
                    Err(Broken::Wrong(_)) => assert!(kind < 2),
                }
                if let Ok(found) = roots_at(&roots, &now, index).unwrap() {
                    assert_eq!(Ok(found), roots_at(&roots, &nodes, index).unwrap());
                }
            }
        }
    }
}
