//! Where the stored tree was seen to be damaged: what is asked for below comes with its whole path, which mends it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::Inner;
use crate::flat_tree;
use crate::storage::lock;

/// Most nodes that are remembered. Where there are more, neighbours count as one.
const DOUBTS_MAX: usize = 64;

/// Nodes below which something is missing or wrong, though it should be here.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<BTreeSet<u64>>);

impl Inner {
    /// Remembers that what is right below `node` is not to be relied on, unless it was seen in a history that is no more.
    pub(super) fn doubt_below(&self, fork: u64, node: u64) {
        let shared = self.read();
        if shared.fork == fork {
            self.doubts.add(node, shared.roots.length());
        }
    }
}

impl Doubts {
    /// One node more, of a log of `length` blocks. Of too many, the two that are nearest to each other give way to the one above both.
    fn add(&self, node: u64, length: u64) {
        let mut nodes = lock(&self.0);
        nodes.insert(node);
        if nodes.len() <= DOUBTS_MAX {
            return;
        }
        // Nothing is brought that settles a node above the roots; but they are fewer than what is remembered.
        let is_above_roots = |node| flat_tree::end_block(node) > length;
        let pairs = nodes.iter().zip(nodes.iter().skip(1));
        let joined = pairs.map(|(left, right)| (above_both(*left, *right), [*left, *right]));
        if let Some((above, both)) =
            joined.min_by_key(|(above, _)| (is_above_roots(*above), flat_tree::depth(*above)))
        {
            nodes.retain(|node| !both.contains(node));
            nodes.insert(above);
        }
    }

    /// Whether anything on the way up from node `index` is doubted.
    pub(super) fn concern(&self, index: u64) -> bool {
        let nodes = lock(&self.0);
        nodes.iter().any(|node| flat_tree::contains(*node, index))
    }

    /// Ends the doubts of nodes both of whose children were brought. What is still wrong further below is met again.
    pub(super) fn settle(&self, was_brought: impl Fn(u64) -> bool) {
        lock(&self.0).retain(|node| match flat_tree::children(*node) {
            Some((left, right)) => !(was_brought(left) && was_brought(right)),
            None => false,
        });
    }

    /// Ends all of them: what is here was looked at, or is another history. What is still wrong is met again.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }
}

/// The lowest node that has both below it, or is one of them and has the other.
fn above_both(node: u64, other: u64) -> u64 {
    let mut above = node;
    while !flat_tree::contains(above, other) {
        above = flat_tree::parent(above);
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 8 blocks each, below the one root of a log of so many blocks.
    fn node(number: usize) -> u64 {
        flat_tree::index(3, number as u64)
    }

    const LENGTH: u64 = 8 << 10;

    fn is_doubted(doubts: &Doubts, number: usize) -> bool {
        doubts.concern(flat_tree::left_span(node(number)))
    }

    /// Brings the path of a block below this node.
    fn bring(doubts: &Doubts, number: usize) {
        let leaf = flat_tree::left_span(node(number));
        let is_on_path = |node: u64| flat_tree::contains(flat_tree::parent(node), leaf);
        doubts.settle(is_on_path);
    }

    /// Goal: one place of damage too many is not forgotten, and what is sound far from all of them is not doubted for it.
    #[test]
    fn more_than_are_remembered_are_doubted_with_their_neighbours() {
        let doubts = Doubts::default();
        // Two of them are next to each other, the others are not.
        let numbers = || (0..DOUBTS_MAX).map(|number| 4 * number + usize::from(number == 0));
        for number in numbers().chain([4]) {
            doubts.add(node(number), LENGTH);
        }
        assert_eq!(lock(&doubts.0).len(), DOUBTS_MAX);
        assert!(!is_doubted(&doubts, 2) && !is_doubted(&doubts, 5));
        doubts.add(node(5), LENGTH);
        assert_eq!(lock(&doubts.0).len(), DOUBTS_MAX);
        assert!(
            numbers()
                .chain([5])
                .all(|number| is_doubted(&doubts, number))
        );
        for sound in [0, 2, 3, 6, 7, 4 * DOUBTS_MAX] {
            assert!(!is_doubted(&doubts, sound), "{sound}");
        }
        bring(&doubts, 5);
        assert!(!is_doubted(&doubts, 5) && !is_doubted(&doubts, 4));
        assert!(is_doubted(&doubts, 1) && is_doubted(&doubts, 8));
    }

    /// Goal: however many places are damaged, what is brought below ends the doubts there, whatever nobody wants elsewhere.
    #[test]
    fn doubts_end_where_something_is_brought() {
        let doubts = Doubts::default();
        for number in (0..LENGTH as usize / 8).rev() {
            doubts.add(node(number), LENGTH);
            assert!(lock(&doubts.0).len() <= DOUBTS_MAX);
        }
        let wanted = LENGTH as usize / 16;
        assert!((0..LENGTH as usize / 8).all(|number| is_doubted(&doubts, number)));
        let mut brought = 0;
        for number in 0..wanted {
            while is_doubted(&doubts, number) {
                bring(&doubts, number);
                brought += 1;
                assert!(brought <= DOUBTS_MAX, "once for each that is remembered");
            }
        }
        assert!(is_doubted(&doubts, wanted) && !lock(&doubts.0).is_empty());
    }

    /// Goal: no doubt is of a node that nothing brings, as it is above the roots.
    #[test]
    fn doubts_end_below_each_root() {
        const LENGTH: u64 = (1 << 20) + 0b1111_1110;
        let doubts = Doubts::default();
        let roots: Vec<_> = flat_tree::full_roots(LENGTH).collect();
        for root in &roots {
            doubts.add(*root, LENGTH);
        }
        for number in 0..2 * DOUBTS_MAX {
            doubts.add(node(1024 * number), LENGTH);
            let nodes = lock(&doubts.0);
            let is_there = |node: &u64| roots.iter().any(|root| flat_tree::contains(*root, *node));
            assert!(nodes.iter().all(is_there) && nodes.len() <= DOUBTS_MAX);
        }
    }
}
