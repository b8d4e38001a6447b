//! What a commit changes: of one core, or of several together.
//!
//! Knows blocks, nodes, bits and heads. Does not know when they are written, nor where.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use ferrocore_primitives::keys::DiscoveryKey;

use super::Head;
use crate::manifest::Manifest;
use crate::merkle::Node;

/// One atomic change of one core.
#[derive(Debug, Clone, Default)]
pub struct CoreWrite {
    /// Block bytes, each at its byte offset.
    pub blocks: Vec<BlockWrite>,
    /// Tree nodes. One without a size whose hash is all zero removes what is at its index.
    pub nodes: Vec<Node>,
    /// Bits to set or clear, in order.
    pub bits: Vec<BitWrite>,
    /// A new head, and where it leaves the old history.
    pub head: Option<HeadWrite>,
    /// The manifest, when it has just been learnt.
    pub manifest: Option<Manifest>,
    /// User data to set, or to remove: `None`, or an empty value, which the journal cannot tell
    /// from none.
    pub user_data: Vec<(String, Option<Vec<u8>>)>,
    /// Byte ranges of blocks whose bits this clears; their disk space is given back. Of a change that replaces history, one: from
    /// where the blocks end that it keeps to where the log ended.
    pub freed: Vec<Range<u64>>,
}

/// Changes of several cores of one store, each core once, that are made together or not at all.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    writes: BTreeMap<DiscoveryKey, CoreWrite>,
}

impl WriteBatch {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the change of `core`; returns the one that it takes the place of.
    pub fn insert(&mut self, core: DiscoveryKey, write: CoreWrite) -> Option<CoreWrite> {
        self.writes.insert(core, write)
    }

    /// The changes in the order of their discovery keys, which is that of locks.
    pub fn into_writes(self) -> impl Iterator<Item = (DiscoveryKey, CoreWrite)> {
        self.writes.into_iter()
    }
}

/// Bytes of one block or of several adjacent ones.
#[derive(Debug, Clone)]
pub struct BlockWrite {
    /// Where they begin in the concatenation of all blocks.
    pub byte_offset: u64,
    /// The bytes of adjacent blocks, in order.
    pub blocks: Vec<Bytes>,
}

/// A run of bits that change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitWrite {
    /// Block indexes.
    pub range: Range<u64>,
    /// Whether the blocks are here from now on.
    pub value: bool,
}

/// A head that replaces the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadWrite {
    /// The new head.
    pub head: Head,
    /// How many blocks it shares with the old history; fewer than the old length is a truncate.
    pub ancestors: u64,
}

/// Sets or removes one value.
pub(crate) fn set_user_data(
    data: &mut BTreeMap<String, Vec<u8>>,
    key: String,
    value: Option<Vec<u8>>,
) {
    match value.filter(|value| !value.is_empty()) {
        Some(value) => data.insert(key, value),
        None => data.remove(&key),
    };
}
