//! Who was waited for in vain, for which block.
//!
//! Knows no claims. Whoever is here may claim the block again, but keeps nobody from it: else a few that answer nothing would
//! have it among themselves for ever.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::SupplierId;

/// Blocks of one supplier that are remembered, those furthest on. Nobody's take the place of another's.
const BLOCKS_MAX: usize = 256;

/// The blocks of each.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<SupplierId, BTreeSet<u64>>);

impl Failures {
    /// Remembers a failure.
    pub(super) fn note(&mut self, id: SupplierId, index: u64) {
        let failed = self.0.entry(id).or_default();
        failed.insert(index);
        if failed.len() > BLOCKS_MAX {
            failed.pop_first();
        }
    }

    /// Whether `id` is known to have failed.
    pub(super) fn include(&self, id: SupplierId, index: u64) -> bool {
        self.0
            .get(&id)
            .is_some_and(|failed| failed.contains(&index))
    }

    /// The block is here, or nobody wants it.
    pub(super) fn settle(&mut self, index: u64) {
        self.keep(|failed| _ = failed.remove(&index));
    }

    /// Forgets those of `range` of which `is_wanted` is false.
    pub(super) fn settle_within(&mut self, range: Range<u64>, is_wanted: impl Fn(u64) -> bool) {
        self.keep(|failed| {
            let unwanted = failed
                .range(range.clone())
                .filter(|index| !is_wanted(**index));
            for index in unwanted.copied().collect::<Vec<_>>() {
                failed.remove(&index);
            }
        });
    }

    /// `id` is gone.
    pub(super) fn forget(&mut self, id: SupplierId) {
        self.0.remove(&id);
    }

    /// The log was cut to `length` blocks.
    pub(super) fn truncate(&mut self, length: u64) {
        self.keep(|failed| _ = failed.split_off(&length));
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    fn keep(&mut self, change: impl Fn(&mut BTreeSet<u64>)) {
        self.0.retain(|_, failed| {
            change(failed);
            !failed.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_failures_take_the_place_of_anothers() {
        let mut failures = Failures::default();
        let [one, two] = [SupplierId(1), SupplierId(2)];
        failures.note(two, 7);
        let most = BLOCKS_MAX as u64;
        (0..2 * most).for_each(|index| failures.note(one, index));
        assert!(failures.include(two, 7));
        assert!(!failures.include(one, most - 1) && failures.include(one, most));
        assert_eq!(failures.len(), BLOCKS_MAX + 1);
        failures.settle_within(most..most + 10, |index| index % 2 == 0);
        assert_eq!(failures.len(), BLOCKS_MAX - 4);
        failures.truncate(most + 1);
        assert_eq!(failures.len(), 2);
        failures.settle(7);
        failures.forget(one);
        assert!(failures.0.is_empty());
    }
}
