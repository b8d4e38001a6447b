//! Where pages of a tree begin: what is remembered of a log's byte offsets.
//!
//! Within one history such an offset never changes, so it stays true whatever is appended.
//!
//! Knows numbers of pages. Does not know nodes.

use std::collections::HashMap;

/// Most entries of one generation, of which there are two: at some 20 bytes each, 5 MiB of memory.
const GENERATION_MAX: usize = 131_072;

/// The bytes at which pages begin, by the number of the page: those asked for or learnt last.
pub(super) struct PageStarts {
    young: HashMap<u64, u64>,
    /// Those of the generation before, until the young ones are as many again.
    old: HashMap<u64, u64>,
}

impl PageStarts {
    pub(super) fn new() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Where page `number` begins, if that is remembered. The first one begins at 0.
    pub(super) fn get(&self, number: u64) -> Option<u64> {
        if number == 0 {
            return Some(0);
        }
        let found = self.young.get(&number).or_else(|| self.old.get(&number));
        found.copied()
    }

    pub(super) fn insert(&mut self, number: u64, start: u64) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, start);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_no_more_than_fit() {
        let mut starts = PageStarts::new();
        let count = 3 * GENERATION_MAX as u64 + 7;
        (0..count).for_each(|number| starts.insert(number, 2 * number));
        assert!(starts.young.len() + starts.old.len() <= 2 * GENERATION_MAX);
        assert_eq!((starts.get(0), starts.get(1)), (Some(0), None));
        for number in count - GENERATION_MAX as u64..count {
            assert_eq!(starts.get(number), Some(2 * number));
        }
        starts.clear();
        assert_eq!(starts.get(count - 1), None);
    }
}
