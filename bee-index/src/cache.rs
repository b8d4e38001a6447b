//! Tree nodes by where they lie, within a bound on bytes.
//! Knows forks, since a truncated core may hold other nodes in the same places.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::CACHE_BYTES_MAX;
use crate::node::{Node, Pointer};

/// Two generations of nodes: when the young one has filled its half of the bound it becomes the
/// old one, and what the old one held and nobody read meanwhile is dropped. About as good as
/// least-recently-used here, without a list to maintain on each hit.
#[derive(Default)]
pub(crate) struct Cache {
    fork: u64,
    young: HashMap<Pointer, Arc<Node>>,
    old: HashMap<Pointer, Arc<Node>>,
    young_bytes: usize,
}

impl Cache {
    pub(crate) fn get(&mut self, fork: u64, pointer: Pointer) -> Option<Arc<Node>> {
        if fork != self.fork {
            return None;
        }
        if let Some(node) = self.young.get(&pointer) {
            return Some(Arc::clone(node));
        }
        let node = self.old.remove(&pointer)?;
        self.keep(pointer, Arc::clone(&node));
        Some(node)
    }

    pub(crate) fn insert(&mut self, fork: u64, pointer: Pointer, node: Arc<Node>) {
        if fork != self.fork {
            *self = Self {
                fork,
                ..Self::default()
            };
        }
        self.keep(pointer, node);
    }

    /// Accounts for a block of `len` bytes that a node has come to hold.
    pub(crate) fn charge(&mut self, len: usize) {
        self.young_bytes += len + BLOCK_OVERHEAD;
        if self.young_bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn keep(&mut self, pointer: Pointer, node: Arc<Node>) {
        let size = size(&node);
        self.young.insert(pointer, node);
        self.charge(size);
    }
}

/// Bytes of a node and the entries it holds.
fn size(node: &Node) -> usize {
    let entries = node.keys.iter().filter_map(|key| key.entry.get());
    let blocks = entries.map(|entry| entry.size() + BLOCK_OVERHEAD);
    size_of_val(&*node.keys) + size_of_val(&*node.children) + blocks.sum::<usize>()
}

/// What a block or node costs beside its bytes: allocations, and places in maps.
const BLOCK_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Entry;
    use crate::node::NodeKey;
    use bytes::Bytes;

    fn at(seq: u64) -> Pointer {
        Pointer { seq, offset: 0 }
    }

    /// A node of one entry with a value of `len` bytes.
    fn node(len: usize) -> Arc<Node> {
        let key = NodeKey::unread(1);
        key.entry.get_or_init(|| Entry {
            seq: 1,
            key: Bytes::new(),
            value: Some(vec![0; len].into()),
        });
        Arc::new(Node {
            keys: Box::new([key]),
            children: Box::default(),
        })
    }

    /// Fills the cache several times over: it stays within its bound, keeps what is read again
    /// and again, and forgets the rest.
    #[test]
    fn stays_within_its_bound_and_keeps_what_is_read() {
        let mut cache = Cache::default();
        for seq in 0..4 * CACHE_BYTES_MAX as u64 / 8192 {
            cache.insert(0, at(seq), node(8192));
            assert!(cache.get(0, at(0)).is_some());
        }
        let held = cache.young.len() + cache.old.len();
        assert!(held * 8192 <= CACHE_BYTES_MAX);
        assert!(cache.get(0, at(1)).is_none());
    }

    /// Entries that nodes come to hold after they were inserted count too.
    #[test]
    fn charges_push_nodes_out() {
        let mut cache = Cache::default();
        cache.insert(0, at(1), node(0));
        for _ in 0..2 {
            assert!(cache.young.contains_key(&at(1)) || cache.old.contains_key(&at(1)));
            cache.charge(CACHE_BYTES_MAX / 2);
        }
        assert!(cache.get(0, at(1)).is_none());
    }

    #[test]
    fn another_fork_has_other_nodes() {
        let mut cache = Cache::default();
        cache.insert(0, at(1), node(1));
        assert!(cache.get(1, at(1)).is_none());
        cache.insert(1, at(2), node(1));
        assert!(cache.get(1, at(1)).is_none());
        assert!(cache.get(0, at(1)).is_none());
    }
}
