//! A snapshot, and what the core has left of it.

use ferrocore_log::{CoreError, Snapshot};

use super::{Block, any_byte, byte_length};
use crate::rig::rng::Rng;
use crate::rig::workload::watched;

pub(super) struct ViewModel {
    snapshot: Snapshot,
    blocks: Vec<Block>,
    left: usize,
}

impl ViewModel {
    pub(super) fn new(snapshot: Snapshot, blocks: &[Block]) -> Self {
        Self {
            snapshot,
            blocks: blocks.to_vec(),
            left: blocks.len(),
        }
    }

    pub(super) fn cut_to(&mut self, length: usize) {
        self.left = self.left.min(length);
    }

    /// What is left is as it was, unless `core` was cleared of it; the rest is gone.
    pub(super) fn check(&self, core: &[Block], rng: &mut Rng) {
        let snapshot = &self.snapshot;
        assert_eq!(snapshot.length(), self.blocks.len() as u64);
        assert_eq!(snapshot.compat_length(), self.left as u64);
        assert_eq!(snapshot.byte_length(), byte_length(&self.blocks));
        for index in watched(self.blocks.len() as u64) {
            let found = snapshot.get_local(index);
            let index = index as usize;
            let block = &self.blocks[index];
            if index < self.left {
                assert!(core[index].is_stored_as(block));
                let expected = core[index].is_here.then(|| block.bytes.clone());
                assert_eq!(found.unwrap(), expected);
            } else {
                assert!(is_gone(found), "block {index}");
            }
        }
        if let Some((byte, place)) = any_byte(&self.blocks, rng) {
            let found = snapshot.seek_local(byte);
            match place.0 < self.left as u64 {
                true => assert_eq!(found.unwrap(), Some(place)),
                false => assert!(is_gone(found), "byte {byte}"),
            }
        }
    }
}

fn is_gone<T>(result: Result<T, CoreError>) -> bool {
    matches!(result, Err(CoreError::SnapshotNotAvailable { .. }))
}
