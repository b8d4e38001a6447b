//! Who was waited for in vain, for which block.
//!
//! Knows no claims. Whoever is here may claim the block again, but keeps nobody from it: else a few that answer nothing would
//! have it among themselves for ever.

use std::collections::BTreeMap;
use std::ops::Range;

use super::SupplierId;

/// Blocks of which it is known at a time.
const BLOCKS_MAX: usize = 4096;

/// Of one block. A supplier more is not remembered.
const SUPPLIERS_MAX: usize = 64;

/// By block.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<u64, Vec<SupplierId>>);

impl Failures {
    /// Remembers a failure, if there is room for it.
    pub(super) fn note(&mut self, id: SupplierId, index: u64) {
        if self.0.len() == BLOCKS_MAX && !self.0.contains_key(&index) {
            return;
        }
        let failed = self.0.entry(index).or_default();
        if failed.len() < SUPPLIERS_MAX && !failed.contains(&id) {
            failed.push(id);
        }
    }

    /// Whether `id` is known to have failed.
    pub(super) fn include(&self, id: SupplierId, index: u64) -> bool {
        self.0
            .get(&index)
            .is_some_and(|failed| failed.contains(&id))
    }

    /// The block is here, or nobody wants it.
    pub(super) fn settle(&mut self, index: u64) {
        self.0.remove(&index);
    }

    /// Forgets those of `range` of which `is_wanted` is false.
    pub(super) fn settle_within(&mut self, range: Range<u64>, is_wanted: impl Fn(u64) -> bool) {
        self.0
            .retain(|index, _| !range.contains(index) || is_wanted(*index));
    }

    /// `id` is gone.
    pub(super) fn forget(&mut self, id: SupplierId) {
        self.0.retain(|_, failed| {
            failed.retain(|supplier| *supplier != id);
            !failed.is_empty()
        });
    }

    /// The log was cut to `length` blocks.
    pub(super) fn truncate(&mut self, length: u64) {
        self.0.split_off(&length);
    }

    /// Of how many blocks it is known.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
