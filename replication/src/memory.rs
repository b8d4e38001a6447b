//! What a connection remembers of what its peer says it has and wants, in bytes: one budget for all channels.
//!
//! Knows sums. Does not know what is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    free: Arc<AtomicUsize>,
}

impl Memory {
    /// One of `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let free = Arc::new(AtomicUsize::new(bytes));
        Self { free }
    }

    /// Nothing is held of it yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            memory: self.clone(),
            bytes: 0,
        }
    }
}

/// What one holder has taken. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    bytes: usize,
}

impl Share {
    /// Takes `bytes` more; false, and nothing is taken, if they are not there.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let free = &self.memory.free;
        let taken = free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
            free.checked_sub(bytes)
        });
        self.bytes += if taken.is_ok() { bytes } else { 0 };
        taken.is_ok()
    }

    /// Gives `bytes` back.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.memory.free.fetch_add(bytes, Ordering::AcqRel);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_one_budget_and_give_it_back() {
        let memory = Memory::new(10);
        let (mut one, mut other) = (memory.share(), memory.share());
        assert!(one.take(6) && !other.take(5) && other.take(4));
        one.give_back(1);
        assert!(other.take(1) && !other.take(1));
        drop(one);
        assert!(other.take(5) && !other.take(1));
    }
}
