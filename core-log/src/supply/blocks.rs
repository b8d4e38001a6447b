//! Single blocks that somebody waits for.
//!
//! Knows how many wait, and who was looked at as a supplier. Does not know who is getting them.

use std::collections::BTreeMap;

use super::SupplierId;

/// The blocks somebody waits for.
#[derive(Debug, Default)]
pub(super) struct BlockWants {
    wants: BTreeMap<u64, Want>,
}

#[derive(Debug, Default)]
struct Want {
    waiting: usize,
    /// Suppliers that were asked and do not have it.
    passed: Vec<SupplierId>,
    /// Whether somebody who has it left it to a faster one.
    is_left: bool,
}

impl BlockWants {
    pub(super) fn add(&mut self, index: u64) {
        self.wants.entry(index).or_default().waiting += 1;
    }

    pub(super) fn remove(&mut self, index: u64) {
        if let Some(want) = self.wants.get_mut(&index) {
            want.waiting -= 1;
            if want.waiting == 0 {
                self.wants.remove(&index);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        self.wants.contains_key(&index)
    }

    /// The first from `from` on.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        self.wants.range(from..).next().map(|(index, _)| *index)
    }

    /// Those before `length`, in order.
    pub(super) fn below(&self, length: u64) -> impl Iterator<Item = u64> {
        self.wants.range(..length).map(|(index, _)| *index)
    }

    /// `id` does not have a block. True if somebody left it to a faster one, who should look again.
    pub(super) fn pass(&mut self, index: u64, id: SupplierId) -> bool {
        let Some(want) = self.wants.get_mut(&index) else {
            return false;
        };
        let is_new = !want.passed.contains(&id);
        if is_new {
            want.passed.push(id);
        }
        is_new && want.is_left
    }

    /// A supplier that has the block leaves it to a faster one.
    pub(super) fn leave(&mut self, index: u64) {
        if let Some(want) = self.wants.get_mut(&index) {
            want.is_left = true;
        }
    }

    /// Whether `id` may turn out to have it.
    pub(super) fn may_have(&self, index: u64, id: SupplierId) -> bool {
        let want = self.wants.get(&index);
        want.is_some_and(|want| !want.passed.contains(&id))
    }

    /// `id` has got more at or past `from`, or is gone.
    pub(super) fn reconsider(&mut self, id: SupplierId, from: u64) {
        for want in self.wants.range_mut(from..).map(|(_, want)| want) {
            want.passed.retain(|passed| *passed != id);
        }
    }
}
