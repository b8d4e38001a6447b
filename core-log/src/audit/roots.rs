//! What nodes of a damaged core may have been, by what is stored below them, and so which roots were signed.
//!
//! Knows what each may be made of. Does not know who signed, nor what is done with what is found.

use super::stored::{Halt, Search, Stored};
use crate::flat_tree;
use crate::limits::BLOCK_BYTES_MAX;
use crate::merkle::{Node, Roots};
use crate::storage::StorageError;

/// Most nodes that one place is thought to have held.
const CANDIDATES_MAX: usize = 4;
/// Most sets of roots that are tried with so many levels below them looked at.
const TRIES_MAX: usize = 256;

/// A place whose node is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sought {
    index: u64,
    byte_offset: u64,
    /// How many bytes the nodes around it leave for it.
    size: Option<u64>,
    is_root: bool,
}

impl Stored<'_> {
    /// The roots of a log of `length` blocks for which `holds`, each as stored or made of what is stored below it. If there
    /// are none, those that are most likely, blank where nothing is left.
    ///
    /// A node that its children make is believed, so that only what is damaged is looked below, and no further than it
    /// takes. Cost: below a damaged root, at most twice a read of all that is there.
    pub(crate) fn find_roots(
        &self,
        length: u64,
        holds: impl Fn(&Roots) -> bool,
    ) -> Result<Roots, StorageError> {
        let places: Vec<u64> = flat_tree::full_roots(length).collect();
        let levels = places
            .first()
            .map_or(0, |root| flat_tree::depth(*root) as usize);
        let (mut tried, mut search) = (Vec::new(), Search::default());
        for level in levels_to_look_at(levels) {
            let candidates = loop {
                match self.roots_within(&mut search, &places, level) {
                    Ok(candidates) => break candidates,
                    Err(Halt::Spent) => self.begin_turn(), // nobody waits
                    Err(Halt::Failed(error)) => return Err(error),
                }
            };
            if candidates != tried {
                if let Some(roots) = first_set(length, &candidates, &holds) {
                    return Ok(roots);
                }
                tried = candidates;
            }
        }
        let likely = |(index, candidates): (&u64, &Vec<Node>)| {
            let likeliest = match flat_tree::children(*index) {
                Some(_) => candidates.first(),
                // The stored one: its block may not have been looked for where it is.
                None => candidates.last(),
            };
            likeliest.copied().unwrap_or(Node::blank(*index))
        };
        let nodes = places.iter().zip(&tried).map(likely).collect();
        Ok(Roots::new(length, nodes).unwrap_or_default())
    }

    /// What an inner node may be by all that is stored below it.
    pub(super) fn made_of_all_below(
        &self,
        search: &mut Search,
        index: u64,
        byte_offset: u64,
    ) -> Result<Vec<Node>, Halt> {
        let sought = Sought {
            index,
            byte_offset,
            size: None,
            is_root: false,
        };
        self.within(search, sought, usize::MAX)
    }

    /// The only one of these roots that nothing stored agrees with. If the signature does not hold, it is the wrong one.
    pub(super) fn only_unbacked(&self, roots: &Roots) -> Result<Option<u64>, StorageError> {
        let (mut unbacked, mut byte_offset) = (Vec::new(), 0);
        for node in roots.nodes() {
            if !self.is_backed(self.slot(node.index)?, byte_offset)? {
                unbacked.push(node.index);
            }
            byte_offset += node.size;
        }
        Ok(match unbacked.as_slice() {
            [only] => Some(*only),
            _ => None,
        })
    }

    /// What each of these roots may be, by so many levels below them.
    fn roots_within(
        &self,
        search: &mut Search,
        places: &[u64],
        levels: usize,
    ) -> Result<Vec<Vec<Node>>, Halt> {
        let (mut all, mut byte_offset) = (Vec::new(), 0_u64);
        for index in places {
            let sought = Sought {
                index: *index,
                byte_offset,
                size: None,
                is_root: true,
            };
            let candidates = self.within(search, sought, levels)?;
            let size = candidates.first().map_or(0, |node| node.size);
            byte_offset = byte_offset.saturating_add(size);
            all.push(candidates);
        }
        Ok(all)
    }

    /// What a node may be, by so many levels below it, the likeliest first.
    fn within(
        &self,
        search: &mut Search,
        sought: Sought,
        levels: usize,
    ) -> Result<Vec<Node>, Halt> {
        if let Some(known) = search.made.get(&(sought, levels)) {
            return Ok(known.clone());
        }
        if self.is_spent() {
            return Err(Halt::Spent);
        }
        let made = self.look_within(search, sought, levels)?;
        search.made.insert((sought, levels), made.clone());
        Ok(made)
    }

    fn look_within(
        &self,
        search: &mut Search,
        sought: Sought,
        levels: usize,
    ) -> Result<Vec<Node>, Halt> {
        let own = self.slot(sought.index)?.node();
        let as_stored = own.into_iter().collect();
        if levels == 0 {
            return Ok(as_stored);
        }
        let Some((left, right)) = flat_tree::children(sought.index) else {
            return Ok(self.leaves(sought, own)?);
        };
        let slots = [self.slot(left)?.node(), self.slot(right)?.node()];
        if let [Some(left), Some(right)] = &slots
            && own.is_some()
            && Node::parent(left, right) == own
        {
            return Ok(as_stored);
        }
        if !self.has_nodes_below(sought.index)? {
            return Ok(as_stored);
        }
        // What the other child leaves of this node, if both are as they were.
        let size = own.map(|node| node.size).or(sought.size);
        let rest = |other: Option<Node>| size?.checked_sub(other?.size);
        let [left_slot, right_slot] = slots;
        let left = Sought {
            index: left,
            byte_offset: sought.byte_offset,
            size: rest(right_slot),
            is_root: false,
        };
        let lefts = self.within(search, left, levels - 1)?;
        let left_size = lefts.first().map_or(0, |node| node.size);
        let right = Sought {
            index: right,
            byte_offset: sought.byte_offset.saturating_add(left_size),
            size: rest(left_slot),
            is_root: false,
        };
        let rights = self.within(search, right, levels - 1)?;
        for known in [left, right] {
            search.made.remove(&(known, levels - 1));
        }
        let pairs = lefts
            .iter()
            .flat_map(|left| rights.iter().map(move |right| (left, right)));
        let made = pairs.filter_map(|(left, right)| Node::parent(left, right));
        Ok(candidates(made, own))
    }

    /// What a leaf may be, by the block that it is of.
    fn leaves(&self, sought: Sought, own: Option<Node>) -> Result<Vec<Node>, StorageError> {
        let block = flat_tree::first_block(sought.index);
        if !self.bits.get(block) {
            return Ok(own.into_iter().collect());
        }
        let mut made = Vec::new();
        for size in [own.map(|node| node.size), sought.size] {
            let Some(size) = size else { continue };
            made.extend(self.leaf(block, sought.byte_offset, size)?);
        }
        let is_backed = own.is_some_and(|own| made.contains(&own));
        if sought.is_root && !is_backed {
            // Only the last root can be a leaf: its block ends the data.
            let size = self.bytes_from(sought.byte_offset)?;
            made.extend(self.leaf(block, sought.byte_offset, size)?);
        }
        Ok(candidates(made.into_iter(), own))
    }

    /// How many bytes of data there are from `byte_offset` on, but no more than a block has.
    fn bytes_from(&self, byte_offset: u64) -> Result<u64, StorageError> {
        let (mut here, mut not_here) = (0, BLOCK_BYTES_MAX + 1);
        while not_here - here > 1 {
            let size = here.midpoint(not_here);
            match self.block(byte_offset, size)? {
                Some(_) => here = size,
                None => not_here = size,
            }
        }
        Ok(here as u64)
    }

    fn has_nodes_below(&self, index: u64) -> Result<bool, StorageError> {
        let left = flat_tree::left_span(index)..index;
        let right = index + 1..flat_tree::right_span(index) + 1;
        Ok(self.may_have_nodes(&left)? || self.may_have_nodes(&right)?)
    }
}

/// None, then twice as many each time, up to all of them.
fn levels_to_look_at(levels: usize) -> impl Iterator<Item = usize> {
    let doubled = std::iter::successors(Some(1), |level| Some(level * 2));
    // A leaf has its block below it.
    let all = levels + 1;
    let some = doubled.take_while(move |level| *level < all);
    std::iter::once(0).chain(some).chain([all])
}

/// The stored node if it is one of those that were made; else those, and then it.
fn candidates(made: impl Iterator<Item = Node>, own: Option<Node>) -> Vec<Node> {
    let mut candidates: Vec<Node> = Vec::new();
    for node in made {
        if Some(node) == own {
            return vec![node];
        }
        if !candidates.contains(&node) {
            candidates.push(node);
        }
    }
    candidates.truncate(CANDIDATES_MAX - 1);
    candidates.extend(own);
    candidates
}

/// The first set of roots, one of the candidates for each, for which `holds`.
fn first_set(
    length: u64,
    candidates: &[Vec<Node>],
    holds: impl Fn(&Roots) -> bool,
) -> Option<Roots> {
    let lens = candidates.iter().map(Vec::len);
    let sets = lens.fold(1, usize::saturating_mul);
    (0..sets.min(TRIES_MAX)).find_map(|number| {
        let mut rest = number;
        let pick = |candidates: &Vec<Node>| {
            let picked = rest.checked_rem(candidates.len())?;
            rest /= candidates.len();
            candidates.get(picked).copied()
        };
        let nodes: Option<Vec<Node>> = candidates.iter().map(pick).collect();
        Roots::new(length, nodes?).filter(&holds)
    })
}
