//! The way down from roots that are known to be right: what is met on it is held against what lies above.
//!
//! A node that is stored may have been damaged since. A block that is read by it does not match its hash; but nobody
//! would notice where bytes are written or freed by its size, or a tree is signed that it is a part of.
//!
//! Knows how nodes make the one above them. Does not know storage, nor what the answers are for.

use std::collections::HashMap;

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

impl Broken {
    /// The last node on the way that is right: what is below it has to be brought.
    pub(crate) fn below(self) -> u64 {
        match self {
            Self::Missing(node) => flat_tree::parent(node),
            Self::Wrong(node) => node,
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
///
/// # Errors
/// [`StorageError`] if one cannot be read.
pub(crate) fn children(
    nodes: &impl NodeSource,
    node: &Node,
) -> Result<Result<[Node; 2], Broken>, StorageError> {
    let [left, right] = match pair(nodes, node.index)? {
        Ok(pair) => pair,
        Err(broken) => return Ok(Err(broken)),
    };
    Ok(match Node::parent(&left, &right) == Some(*node) {
        true => Ok([left, right]),
        false => Err(Broken::Wrong(node.index)),
    })
}

/// What is held in the place of the children of node `above`.
fn pair(nodes: &impl NodeSource, above: u64) -> Result<Result<[Node; 2], Broken>, StorageError> {
    let Some((left, right)) = flat_tree::children(above) else {
        return Ok(Err(Broken::Missing(above)));
    };
    Ok(match held(nodes, [left, right])? {
        Some([Some(left), Some(right)]) => Ok([left, right]),
        Some([None, _]) => Err(Broken::Missing(left)),
        Some([_, None]) => Err(Broken::Missing(right)),
        None => Err(Broken::Wrong(above)),
    })
}

/// Two siblings as far as they are held, or `None` if what is in the place of one cannot be a node: that is as wrong as
/// another node.
fn held(
    nodes: &impl NodeSource,
    siblings: [u64; 2],
) -> Result<Option<[Option<Node>; 2]>, StorageError> {
    match siblings.map(|index| nodes.node(index)) {
        [Err(StorageError::Corrupt { .. }), _] | [_, Err(StorageError::Corrupt { .. })] => Ok(None),
        [left, right] => Ok(Some([left?, right?])),
    }
}

/// A way down from the roots. Who goes down it next to where somebody went before walks only the part that differs.
pub(crate) struct Descent<'a, S> {
    roots: &'a Roots,
    nodes: Overlay<'a, S>,
    /// From a root down: nodes that are right, and the byte at which each begins.
    way: Vec<(Node, u64)>,
}

impl<'a, S: NodeSource> Descent<'a, S> {
    /// Down from `roots`, through nodes that were verified to make one another, and those in storage.
    pub(crate) fn new(roots: &'a Roots, fresh: &'a HashMap<u64, Node>, stored: S) -> Self {
        Self {
            roots,
            nodes: Overlay { fresh, stored },
            way: Vec::new(),
        }
    }

    /// The byte at which the subtree `node` begins, or where a node on the way to it is missing or wrong.
    ///
    /// Cost: two node reads and one hash a level, but for those that the last way had, and no hash among fresh ones.
    ///
    /// # Errors
    /// [`StorageError`] if a node cannot be read.
    pub(crate) fn byte_offset(&mut self, node: u64) -> Result<Result<u64, Broken>, StorageError> {
        if node == 2 * self.roots.length() {
            return Ok(Ok(self.roots.byte_length()));
        }
        let first = flat_tree::left_span(node);
        let found = self.go_down(first, |index| flat_tree::left_span(index) == first)?;
        Ok(found.map(|(_, offset)| offset))
    }

    /// The byte at which the subtree `node` begins, as far as can be told where nodes on the way are missing: those around
    /// them tell, and those that are held are held against each other.
    ///
    /// A proof of a sought byte leaves such gaps, and an audit that gave nodes up.
    ///
    /// # Errors
    /// [`StorageError`] if a node cannot be read.
    pub(crate) fn likely_byte_offset(
        &self,
        node: u64,
    ) -> Result<Result<u64, Broken>, StorageError> {
        let first = flat_tree::left_span(node);
        let Some((root, mut offset)) = self.root_above(first) else {
            return Ok(Err(Broken::Missing(node)));
        };
        let (mut index, mut held) = (root.index, Some(root));
        while flat_tree::left_span(index) != first {
            let Some((left, right)) = flat_tree::children(index) else {
                return Ok(Err(Broken::Missing(index)));
            };
            let Some([left_node, right_node]) = self::held(&self.nodes, [left, right])? else {
                return Ok(Err(Broken::Wrong(index)));
            };
            if let (Some(held), Some(left), Some(right)) = (held, left_node, right_node)
                && Node::parent(&left, &right) != Some(held)
            {
                return Ok(Err(Broken::Wrong(index)));
            }
            if flat_tree::contains(left, first) {
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
        Ok(Ok(offset))
    }

    /// The node at `index`, as the roots prove it.
    ///
    /// # Errors
    /// [`StorageError`] if a node cannot be read.
    pub(crate) fn node(&mut self, index: u64) -> Result<Result<Node, Broken>, StorageError> {
        let found = self.go_down(index, |at| at == index)?;
        Ok(found.map(|(node, _)| node))
    }

    /// The highest node that contains `target` and is one `is_end` says yes to, and the byte at which it begins.
    fn go_down(
        &mut self,
        target: u64,
        is_end: impl Fn(u64) -> bool,
    ) -> Result<Result<(Node, u64), Broken>, StorageError> {
        let contains = |(node, _): &&(Node, u64)| flat_tree::contains(node.index, target);
        let shared = self.way.iter().take_while(contains).count();
        self.way.truncate(shared);
        if let Some(end) = self.way.iter().find(|(node, _)| is_end(node.index)) {
            return Ok(Ok(*end));
        }
        let top = self.root_above(target).filter(|_| shared == 0);
        self.way.extend(top);
        while let Some((node, offset)) = self.way.last().copied() {
            if is_end(node.index) {
                return Ok(Ok((node, offset)));
            }
            let [left, right] = match self.children(&node)? {
                Ok(children) => children,
                Err(broken) => return Ok(Err(broken)),
            };
            self.way
                .push(match flat_tree::contains(left.index, target) {
                    true => (left, offset),
                    // No overflow: both together are as long as the node above, which is right.
                    false => (right, offset + left.size),
                });
        }
        Ok(Err(Broken::Missing(target)))
    }

    /// The root that contains `target`, and the byte at which it begins.
    fn root_above(&self, target: u64) -> Option<(Node, u64)> {
        let mut offset = 0;
        for root in self.roots.nodes() {
            if flat_tree::contains(root.index, target) {
                return Some((*root, offset));
            }
            offset += root.size;
        }
        None
    }

    fn children(&self, node: &Node) -> Result<Result<[Node; 2], Broken>, StorageError> {
        match self.nodes.derived(node) {
            Some(children) => Ok(Ok(children)),
            None => children(&self.nodes, node),
        }
    }
}

/// Nodes just verified, over those in storage.
struct Overlay<'a, S> {
    fresh: &'a HashMap<u64, Node>,
    stored: S,
}

impl<S> Overlay<'_, S> {
    /// The children of `node`, if it was just made of them.
    fn derived(&self, node: &Node) -> Option<[Node; 2]> {
        let (left, right) = flat_tree::children(node.index)?;
        let is_fresh = self.fresh.get(&node.index) == Some(node);
        let (left, right) = (self.fresh.get(&left)?, self.fresh.get(&right)?);
        is_fresh.then_some([*left, *right])
    }
}

impl<S: NodeSource> NodeSource for Overlay<'_, S> {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        match self.fresh.get(&index) {
            Some(node) => Ok(Some(*node)),
            None => self.stored.node(index),
        }
    }
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

    /// As for who has not been there before.
    fn byte_offset(roots: &Roots, nodes: &Nodes, node: u64) -> Result<u64, Broken> {
        let fresh = HashMap::new();
        Descent::new(roots, &fresh, nodes)
            .byte_offset(node)
            .unwrap()
    }

    /// The same of a node.
    fn node(roots: &Roots, nodes: &Nodes, index: u64) -> Result<Node, Broken> {
        let fresh = HashMap::new();
        Descent::new(roots, &fresh, nodes).node(index).unwrap()
    }

    /// Goal: who goes on from where somebody went before finds the same, and reads less.
    #[test]
    fn neighbours_share_their_way() {
        let (roots, nodes) = log(1000);
        let fresh = HashMap::new();
        let mut descent = Descent::new(&roots, &fresh, &nodes);
        for index in (0..1000).chain([999, 0, 512, 511, 3]) {
            let alone = byte_offset(&roots, &nodes, 2 * index);
            let reads = nodes.reads.take();
            assert_eq!(descent.byte_offset(2 * index).unwrap(), alone);
            assert!(nodes.reads.take() <= reads);
        }
        for index in 0..1000 {
            descent.byte_offset(2 * index).unwrap().unwrap();
        }
        assert!(
            nodes.reads.take() < 4 * 1000,
            "as many as the tree has nodes, twice"
        );
        for index in (0..1999).filter(|index| nodes.held.contains_key(index)) {
            assert_eq!(descent.node(index).unwrap(), Ok(nodes.held[&index]));
        }
    }

    /// Goal: nodes that were verified to make one another are not hashed again; one that was not is held against the others.
    #[test]
    fn fresh_nodes_stand_in_for_damaged_ones() {
        let (roots, mut nodes) = log(64);
        let right = nodes.held.clone();
        for index in [0, 2, 5, 11, 23] {
            nodes.held.get_mut(&index).unwrap().size += 1;
        }
        assert_eq!(byte_offset(&roots, &nodes, 2), Err(Broken::Wrong(15)));
        let path = [0, 2, 1, 5, 3, 11, 7, 23, 15, 47, 31, 63];
        for brought in 0..=path.len() {
            let fresh = path.iter().rev().take(brought);
            let fresh: HashMap<_, _> = fresh.map(|index| (*index, right[index])).collect();
            let mut descent = Descent::new(&roots, &fresh, &nodes);
            let found = descent.byte_offset(2).unwrap();
            match found {
                Ok(offset) => assert_eq!((offset, brought), (right[&0].size, path.len())),
                Err(broken) => assert!([15, 7, 3, 1].map(Broken::Wrong).contains(&broken)),
            }
        }
    }

    /// Goal: of a whole tree both find what the naive way does, with two reads a level.
    #[test]
    fn what_is_whole_is_found() {
        let mut grown = vec![Roots::default()];
        for length in 1..70 {
            let (roots, nodes) = log(length);
            let levels = u64::from(length.ilog2());
            for (index, shorter) in (0..).zip(&grown) {
                let offset = byte_offset(&roots, &nodes, 2 * index);
                assert!(nodes.reads.take() <= 2 * levels);
                let naive = seek::byte_offset(&roots, &nodes, 2 * index).unwrap();
                assert_eq!(offset, Ok(naive.unwrap()));
                nodes.reads.set(0);
                assert_eq!(
                    roots_at(&roots, &nodes, index).unwrap().as_ref(),
                    Ok(shorter)
                );
                assert!(nodes.reads.take() <= 2 * levels);
            }
            for (index, held) in &nodes.held {
                assert_eq!(node(&roots, &nodes, *index).as_ref(), Ok(held));
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
                match byte_offset(&roots, &now, 2 * index) {
                    Ok(offset) => assert_eq!(Ok(offset), byte_offset(&roots, &nodes, 2 * index)),
                    Err(Broken::Missing(missing)) => {
                        assert_eq!((missing, kind), (damaged, 2));
                        let fresh = HashMap::new();
                        let likely =
                            Descent::new(&roots, &fresh, &now).likely_byte_offset(2 * index);
                        if let Ok(offset) = likely.unwrap() {
                            assert_eq!(Ok(offset), byte_offset(&roots, &nodes, 2 * index));
                        }
                    }
                    Err(Broken::Wrong(above)) => {
                        assert!(kind < 2);
                        assert_eq!(above, flat_tree::parent(damaged));
                    }
                }
                if let Ok(found) = roots_at(&roots, &now, index).unwrap() {
                    assert_eq!(Ok(found), roots_at(&roots, &nodes, index).unwrap());
                }
            }
            assert!(self::node(&roots, &now, damaged).is_err());
            for (index, held) in &nodes.held {
                if let Ok(found) = self::node(&roots, &now, *index) {
                    assert_eq!(found, *held);
                }
            }
        }
    }
}
