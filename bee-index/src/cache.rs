//! Decoded blocks by number, within a bound on bytes.
//! Knows forks, since a truncated core may hold other blocks under the same numbers.

use std::collections::HashMap;

use crate::block::Block;
use crate::limits::{CACHE_BYTES_MAX, CACHED_BLOCK_BYTES_MAX};

/// Two generations of blocks: when the young one has filled its half of the bound it becomes the
/// old one, and what the old one held and nobody read meanwhile is dropped. About as good as
/// least-recently-used here, without a list to maintain on each hit.
#[derive(Default)]
pub(crate) struct Cache {
    fork: u64,
    young: HashMap<u64, Block>,
    old: HashMap<u64, Block>,
    young_bytes: usize,
}

impl Cache {
    pub(crate) fn get(&mut self, fork: u64, seq: u64) -> Option<Block> {
        if fork != self.fork {
            return None;
        }
        if let Some(block) = self.young.get(&seq) {
            return Some(block.clone());
        }
        let block = self.old.remove(&seq)?;
        self.keep(seq, block.clone());
        Some(block)
    }

    pub(crate) fn insert(&mut self, fork: u64, seq: u64, block: Block) {
        if fork != self.fork {
            *self = Self {
                fork,
                ..Self::default()
            };
        }
        if block.len() <= CACHED_BLOCK_BYTES_MAX {
            self.keep(seq, block);
        }
    }

    fn keep(&mut self, seq: u64, block: Block) {
        self.young_bytes += block.len() + OVERHEAD;
        self.young.insert(seq, block);
        if self.young_bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

/// What a block costs beside its bytes: the decoded form, its place in the map, the allocation.
const OVERHEAD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::encode_block;

    fn block(value_len: usize) -> Block {
        Block::decode(encode_block(b"", b"key", Some(&vec![0; value_len]))).unwrap()
    }

    /// Fills the cache several times over: it stays within its bound, keeps what is read again
    /// and again, and forgets the rest.
    #[test]
    fn stays_within_its_bound_and_keeps_what_is_read() {
        let mut cache = Cache::default();
        let inserted = 4 * CACHE_BYTES_MAX as u64 / 8192;
        for seq in 0..inserted {
            cache.insert(0, seq, block(8192));
            assert!(cache.get(0, 0).is_some());
        }
        let held = cache.young.len() + cache.old.len();
        assert!(held * 8192 <= CACHE_BYTES_MAX);
        assert!(cache.get(0, 1).is_none());
    }

    #[test]
    fn another_fork_has_other_blocks() {
        let mut cache = Cache::default();
        cache.insert(0, 1, block(1));
        assert!(cache.get(1, 1).is_none());
        cache.insert(1, 2, block(1));
        assert!(cache.get(1, 1).is_none());
        assert!(cache.get(0, 1).is_none());
    }

    #[test]
    fn large_blocks_are_not_kept() {
        let mut cache = Cache::default();
        cache.insert(0, 1, block(CACHED_BLOCK_BYTES_MAX));
        assert!(cache.get(0, 1).is_none());
    }
}
