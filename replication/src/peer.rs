//! What we know of the other side of one channel: its state, its blocks, its wants.
//!
//! Knows what the peer said. Does not know what is asked of it or answered.

use crate::holdings::Holdings;
use crate::messages::Sync;
use crate::remote_wants::RemoteWants;

/// The other side, as it describes itself.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Its last Sync, all zero before the first.
    pub(crate) sync: Sync,
    /// Whether there was one.
    pub(crate) is_synced: bool,
    /// Blocks it told us about.
    pub(crate) blocks: Holdings,
    /// Blocks it asked us to tell it about.
    pub(crate) wants: RemoteWants,
}

impl Peer {
    /// How long its log is, as far as it has shown: a JavaScript peer may tell of blocks past the length it told, and
    /// may never tell that length (`hypercore/lib/replicator.js` 11.37.1, `_updateCanUpgradeAndSync`).
    pub(crate) fn length(&self) -> u64 {
        self.sync.length.max(self.blocks.read().contiguous())
    }

    /// Whether it said that it has a block.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.blocks.has_all(index..index + 1)
    }
}
