//! Blocks that a peer announced and would not give, and those that it cannot prove to us.
//!
//! Knows which, and how often is too often. Does not know what else it has.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use ferrocore_log::flat_tree;

use crate::limits::{DENIALS_MAX, UNPROVABLE_MAX};

/// Those that it has not taken back since.
#[derive(Debug, Default)]
pub(super) struct Denied {
    blocks: BTreeSet<u64>,
    /// How often it would not give one, those included that it has taken back.
    denials: usize,
    /// Roots of its log below which it proves nothing to us: our own tree is damaged above them. It is not to blame.
    unprovable: VecDeque<u64>,
}

impl Denied {
    /// The end of the blocks from `index` on that are not to be asked for, if that is one of them.
    pub(super) fn end(&self, index: u64) -> Option<u64> {
        let is_above = |root: &&u64| flat_tree::contains(**root, 2 * index);
        let root = self.unprovable.iter().find(is_above);
        let end = root.map(|root| flat_tree::end_block(*root));
        end.or_else(|| self.blocks.contains(&index).then_some(index + 1))
    }

    /// One more. False once that happened too often.
    pub(super) fn add(&mut self, index: u64) -> bool {
        self.denials += usize::from(self.blocks.insert(index));
        self.denials < DENIALS_MAX
    }

    /// Below one more root of its log it proves nothing to us. Of too many, the first is tried again.
    pub(super) fn add_unprovable(&mut self, root: u64) {
        if !self.unprovable.contains(&root) {
            self.unprovable.push_back(root);
        }
        if self.unprovable.len() > UNPROVABLE_MAX {
            self.unprovable.pop_front();
        }
    }

    pub(super) fn unprovable(&self) -> Vec<u64> {
        self.unprovable.iter().copied().collect()
    }

    pub(super) fn remove_unprovable(&mut self, roots: &[u64]) {
        self.unprovable.retain(|root| !roots.contains(root));
    }

    /// It does not have these any more, or has them anew.
    pub(super) fn take_back(&mut self, blocks: &Range<u64>) {
        self.blocks.retain(|index| !blocks.contains(index));
    }
}
