//! What a peer has, where other channels of the core can look at it too.
//!
//! Knows sharing. Does not know how it is kept: that is [`RemoteBlocks`].

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ferrocore_log::flat_tree;
use ferrocore_log::supply::{Availability, SharedAvailability};

use crate::memory::Memory;
use crate::messages::{self, BitfieldWords};
use crate::remote_blocks::{Forgotten, RemoteBlocks};

/// The blocks of one peer. Only its own channel changes them; whoever shares them may look.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(RwLock<RemoteBlocks>);

impl Holdings {
    /// For others to look at.
    pub(crate) fn share(&self) -> SharedAvailability {
        Arc::clone(&self.0) as SharedAvailability
    }

    /// The peer is on another history: it has said nothing about that one.
    pub(crate) fn forget(&self) {
        *self.write() = RemoteBlocks::default();
    }

    /// As [`RemoteBlocks::handle_range`].
    pub(crate) fn handle_range(&self, range: messages::Range, memory: &Memory) -> Forgotten {
        self.write().handle_range(range, memory)
    }

    /// As [`RemoteBlocks::handle_bitfield`].
    pub(crate) fn handle_bitfield(&self, bitfield: &BitfieldWords, memory: &Memory) -> Forgotten {
        self.write().handle_bitfield(bitfield, memory)
    }

    /// As [`RemoteBlocks::forget_scattered`].
    pub(crate) fn forget_scattered(&self) -> Forgotten {
        self.write().forget_scattered()
    }

    /// As [`RemoteBlocks::deny`].
    pub(crate) fn deny(&self, index: u64) -> bool {
        self.write().deny(index)
    }

    /// As [`RemoteBlocks::note_unprovable`].
    pub(crate) fn note_unprovable(&self, root: u64) {
        self.write().note_unprovable(root);
    }

    /// Forgets the roots noted as unprovable of which `is_so` is true no more. Returns the first block that the peer may be asked for
    /// again. Nobody waits for these holdings while `is_so` looks at whatever else.
    pub(crate) fn keep_unprovable(&self, is_so: impl Fn(u64) -> bool) -> Option<u64> {
        let roots = self.read().unprovable(); // most have none, most of the time
        let provable: Vec<_> = roots.into_iter().filter(|root| !is_so(*root)).collect();
        let first = provable.iter().map(|root| flat_tree::first_block(*root));
        let first = first.min()?;
        self.write().note_provable(&provable);
        Some(first)
    }

    /// As [`RemoteBlocks::has_all`].
    pub(crate) fn has_all(&self, range: Range<u64>) -> bool {
        self.read().has_all(range)
    }

    /// To look at for a moment; not to be kept while they are changed.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, RemoteBlocks> {
        self.0.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, RemoteBlocks> {
        self.0.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, RemoteBlocks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Availability for Shared {
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        self.read().next(range)
    }

    fn has_all(&self, range: Range<u64>) -> bool {
        self.read().has_all(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever judges what a peer can prove may wait for whoever looks at what it has: neither holds up the other.
    #[test]
    fn nobody_waits_while_roots_are_judged() {
        let holdings = Holdings::default();
        let root = |number| flat_tree::index(3, number);
        assert_eq!(holdings.keep_unprovable(|_| panic!("there is none")), None);
        for number in [2, 1, 3] {
            holdings.note_unprovable(root(number));
        }
        let is_free = |_| holdings.0.0.try_write().is_ok();
        assert_eq!(holdings.keep_unprovable(is_free), None);
        let is_first = |kept| kept == root(1);
        assert_eq!(holdings.keep_unprovable(is_first), Some(16));
        assert_eq!(holdings.read().unprovable(), [root(1)]);
    }
}
