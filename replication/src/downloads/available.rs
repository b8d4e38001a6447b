//! The blocks that a peer can be asked for, and where it is not known what it has.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::RwLockReadGuard;

use ferrocore_log::supply::Availability;

use crate::limits::{WANT_BLOCKS, WANTS_MAX};
use crate::peer::Peer;
use crate::remote_blocks::RemoteBlocks;

/// The blocks that a peer is known to have.
pub(super) struct Available<'a> {
    blocks: RwLockReadGuard<'a, RemoteBlocks>,
    length: u64,
    /// Batches with wanted blocks that the peer did not speak about.
    unknown: RefCell<BTreeSet<u64>>,
}

impl<'a> Available<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self {
            blocks: peer.blocks.read(),
            length: peer.sync.length,
            unknown: RefCell::default(),
        }
    }

    /// Batches with wanted blocks that the peer did not speak about.
    pub(super) fn into_unknown(self) -> BTreeSet<u64> {
        self.unknown.into_inner()
    }

    /// The first block of `range` that the peer is known to have.
    pub(super) fn known(&self, range: Range<u64>) -> Option<u64> {
        self.blocks.next(range)
    }

    /// Whether the peer may have blocks of `range` that it did not speak about.
    pub(super) fn is_unsure(&self, range: &Range<u64>) -> bool {
        range.start.max(self.blocks.contiguous()) < range.end.min(self.length)
    }

    fn note_unknown(&self, gap: Range<u64>) {
        let start = gap.start.max(self.blocks.contiguous());
        if start < gap.end {
            let batches = start / WANT_BLOCKS..=(gap.end - 1) / WANT_BLOCKS;
            self.unknown.borrow_mut().extend(batches.take(WANTS_MAX));
        }
    }
}

impl Availability for Available<'_> {
    /// Blocks past the length that the peer told count too: a JavaScript relay may announce them long before it
    /// tells that length (`hypercore/lib/replicator.js` 11.37.1, `_updateCanUpgradeAndSync`).
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        let found = self.blocks.next(range.clone());
        let end = found.unwrap_or(range.end).min(self.length);
        self.note_unknown(range.start..end);
        found
    }
}
