//! Blocks that a peer announced and would not give.
//!
//! Knows which, and how often is too often. Does not know what else it has.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::limits::DENIALS_MAX;

/// Those that it has not taken back since.
#[derive(Debug, Default)]
pub(super) struct Denied {
    blocks: BTreeSet<u64>,
    /// How often it would not give one, those included that it has taken back.
    denials: usize,
}

impl Denied {
    pub(super) fn contains(&self, index: u64) -> bool {
        self.blocks.contains(&index)
    }

    /// One more. False once that happened too often.
    pub(super) fn add(&mut self, index: u64) -> bool {
        self.denials += usize::from(self.blocks.insert(index));
        self.denials < DENIALS_MAX
    }

    /// It does not have these any more, or has them anew.
    pub(super) fn take_back(&mut self, blocks: &Range<u64>) {
        self.blocks.retain(|index| !blocks.contains(index));
    }
}
