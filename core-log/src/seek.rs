//! Byte positions: where a block begins, and which block holds a byte.
//!
//! Knows the sizes in tree nodes, from whatever source holds them. Does not read blocks.

use crate::descent::{self, Broken};
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::storage::StorageError;

/// Anything that can be asked for tree nodes.
pub trait NodeSource {
    /// The node at `index`, if it is held.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be read.
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError>;
}

impl<S: NodeSource + ?Sized> NodeSource for &S {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        (**self).node(index)
    }
}

/// The byte at which the subtree `node` begins, or `None` if a node on the way is not held.
///
/// Cost: one node read a level, three where a node is not held.
///
/// # Errors
/// [`StorageError`] if a node cannot be read.
pub fn byte_offset(
    roots: &Roots,
    nodes: &impl NodeSource,
    node: u64,
) -> Result<Option<u64>, StorageError> {
    let target = flat_tree::left_span(node);
    let mut offset = 0;
    for root in roots.nodes() {
        if !flat_tree::contains(root.index, target) {
            offset += root.size;
            continue;
        }
        let mut at = root.index;
        while flat_tree::left_span(at) != target {
            let Some((left, right)) = flat_tree::children(at) else {
                return Ok(None);
            };
            if flat_tree::contains(left, target) {
                at = left;
                continue;
            }
            let Some(size) = left_size(root, nodes, at, (left, right))? else {
                return Ok(None);
            };
            offset += size;
            at = right;
        }
        return Ok(Some(offset));
    }
    Ok((target == 2 * roots.length()).then_some(offset))
}

/// The size of the left child of `at`, a node below `root`. Where it is not held, as after an audit that gave it up, the
/// node above and the right child tell.
fn left_size(
    root: &Node,
    nodes: &impl NodeSource,
    at: u64,
    (left, right): (u64, u64),
) -> Result<Option<u64>, StorageError> {
    if let Some(left) = nodes.node(left)? {
        return Ok(Some(left.size));
    }
    let above = match at == root.index {
        true => Some(*root),
        false => nodes.node(at)?,
    };
    let both = above.zip(nodes.node(right)?);
    Ok(both.and_then(|(above, right)| above.size.checked_sub(right.size)))
}

/// Where a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// In this block, at this offset. A byte at the very end is in the block after the last.
    Block {
        /// Block index.
        index: u64,
        /// Bytes into the block, padding not counted.
        offset: u64,
    },
    /// Somewhere below this subtree, `bytes` into it: its children are not both held.
    Below {
        /// Tree index.
        node: u64,
        /// Bytes into the subtree.
        bytes: u64,
    },
    /// Somewhere below this subtree, `bytes` into it: what is held below does not make it.
    Damaged {
        /// Tree index.
        node: u64,
        /// Bytes into the subtree.
        bytes: u64,
    },
    /// Past the end of the log.
    Past,
}

/// Finds byte `bytes` of a log whose blocks each carry `padding` bytes that do not count.
///
/// Each node on the way is held against those above it.
///
/// Cost: two node reads and one hash a level.
///
/// # Errors
/// [`StorageError`] if a node cannot be read.
pub fn seek(
    roots: &Roots,
    nodes: &impl NodeSource,
    bytes: u64,
    padding: u64,
) -> Result<Position, StorageError> {
    let mut rest = bytes;
    for root in roots.nodes() {
        let size = unpadded(root, padding);
        if rest >= size && rest > 0 {
            rest -= size;
            continue;
        }
        return descend(nodes, *root, rest, padding);
    }
    let end = Position::Block {
        index: roots.length(),
        offset: 0,
    };
    Ok(if rest == 0 { end } else { Position::Past })
}

/// Finds byte `rest` of the subtree `root`, which is right and known to hold it.
fn descend(
    nodes: &impl NodeSource,
    root: Node,
    mut rest: u64,
    padding: u64,
) -> Result<Position, StorageError> {
    let mut at = root;
    while rest > 0 && flat_tree::depth(at.index) > 0 {
        let (node, bytes) = (at.index, rest);
        let [left, right] = match descent::children(nodes, &at)? {
            Ok(children) => children,
            Err(Broken::Missing(_)) => return Ok(Position::Below { node, bytes }),
            Err(Broken::Wrong(_)) => return Ok(Position::Damaged { node, bytes }),
        };
        let size = unpadded(&left, padding);
        if rest < size {
            at = left;
        } else {
            rest -= size;
            at = right;
        }
    }
    Ok(Position::Block {
        index: flat_tree::first_block(at.index),
        offset: rest,
    })
}

/// The subtree that begins with or holds byte `bytes`, as an uploader proves it.
///
/// Like JavaScript's, it stops at the highest subtree that begins or ends with the byte.
/// `None`: past the end.
///
/// # Errors
/// [`StorageError`] if a node cannot be read.
pub fn seek_root_in_log(
    length: u64,
    nodes: &impl NodeSource,
    bytes: u64,
    padding: u64,
) -> Result<Option<u64>, StorageError> {
    let mut rest = bytes;
    for root in flat_tree::full_roots(length) {
        let Some(node) = nodes.node(root)? else {
            return Ok(None);
        };
        let size = unpadded(&node, padding);
        if rest == size {
            return Ok(Some(root));
        }
        if rest < size {
            return seek_root_below(nodes, root, rest, padding).map(Some);
        }
        rest -= size;
    }
    Ok(None)
}

/// As [`seek_root_in_log`], within the subtree `root`, `bytes` from the log's start.
///
/// `None`: the byte lies outside the subtree.
///
/// # Errors
/// [`StorageError`] if a node cannot be read.
pub fn seek_root_in_subtree(
    roots: &Roots,
    nodes: &impl NodeSource,
    root: u64,
    bytes: u64,
    padding: u64,
) -> Result<Option<u64>, StorageError> {
    let (Some(start), Some(node)) = (byte_offset(roots, nodes, root)?, nodes.node(root)?) else {
        return Ok(None);
    };
    let padded = padding.saturating_mul(flat_tree::first_block(root));
    let Some(rest) = bytes.checked_sub(start.saturating_sub(padded)) else {
        return Ok(None);
    };
    if rest > 0 && rest >= unpadded(&node, padding) {
        return Ok(None);
    }
    seek_root_below(nodes, root, rest, padding).map(Some)
}

fn seek_root_below(
    nodes: &impl NodeSource,
    root: u64,
    mut rest: u64,
    padding: u64,
) -> Result<u64, StorageError> {
    let mut at = root;
    while rest > 0 {
        let Some((left, right)) = flat_tree::children(at) else {
            break;
        };
        let Some(left_node) = nodes.node(left)? else {
            break;
        };
        let size = unpadded(&left_node, padding);
        if rest == size {
            return Ok(left);
        }
        if rest < size {
            at = left;
        } else {
            rest -= size;
            at = right;
        }
    }
    Ok(at)
}

/// The bytes below `node` if each block carries `padding` bytes that do not count.
pub(crate) fn unpadded(node: &Node, padding: u64) -> u64 {
    let padded = padding.saturating_mul(flat_tree::leaves(node.index));
    node.size.saturating_sub(padded)
}
