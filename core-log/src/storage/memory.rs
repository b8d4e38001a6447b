//! Cores in memory: gone when the process is. For tests, for the web, for what need not last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Bytes, BytesMut};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::random;
use ferrocore_primitives::sign::KeyPair;
use zeroize::Zeroizing;

use super::{
    Alias, ConflictKeeper, CoreHeader, CoreStorage, CoreWrite, DraftStorage, Durability,
    OpenedCore, Storage, StorageError, WriteBatch, lock, set_user_data,
};
use crate::bitfield::Bitfield;
use crate::flat_tree;
use crate::merkle::Node;

/// A store in memory. Cores stay in it when their handles are dropped.
pub struct Memory {
    root_secret: Zeroizing<[u8; 32]>,
    cores: Mutex<HashMap<DiscoveryKey, Arc<MemoryCore>>>,
    aliases: Mutex<HashMap<Alias, DiscoveryKey>>,
    secrets: Mutex<HashMap<DiscoveryKey, KeyPair>>,
    /// Cores that are, or are not, guarded, and whether the others are.
    guards: Mutex<(HashMap<DiscoveryKey, bool>, bool)>,
}

impl Memory {
    /// An empty store with a random root secret.
    pub fn new() -> Self {
        Self::with_root_secret(random::bytes())
    }

    /// An empty store with a given root secret, from which all named cores derive.
    pub fn with_root_secret(root_secret: [u8; 32]) -> Self {
        Self {
            root_secret: Zeroizing::new(root_secret),
            cores: Mutex::default(),
            aliases: Mutex::default(),
            secrets: Mutex::default(),
            guards: Mutex::default(),
        }
    }

    /// As [`Memory::with_root_secret`], for a secret that was brought back: every core is guarded.
    pub fn restored(root_secret: [u8; 32]) -> Self {
        let memory = Self::with_root_secret(root_secret);
        lock(&memory.guards).1 = true;
        memory
    }

    fn core(&self, core: &DiscoveryKey) -> Option<Arc<MemoryCore>> {
        lock(&self.cores).get(core).cloned()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage for Memory {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        Ok(*self.root_secret)
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let Some(mut opened) = self.core(core).map(MemoryCore::opened) else {
            return Ok(None);
        };
        let kept = || lock(&self.secrets).get(core).cloned();
        opened.header.key_pair = opened.header.key_pair.take().or_else(kept);
        Ok(Some(opened))
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let discovery_key = header.key.discovery_key();
        let core = Arc::new(MemoryCore::new(discovery_key, header));
        lock(&self.cores).insert(discovery_key, Arc::clone(&core));
        Ok(core.opened())
    }

    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        Ok(self.core(core).map(|core| core.state().header.clone()))
    }

    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        Ok(lock(&self.cores).keys().copied().collect())
    }

    fn disk_bytes(&self, _: &DiscoveryKey) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn purge(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        lock(&self.cores).remove(core);
        lock(&self.aliases).retain(|_, named| named != core);
        lock(&self.secrets).remove(core);
        Ok(0)
    }

    fn secret(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        let kept = lock(&self.secrets).get(core).cloned();
        let in_header = || self.core(core)?.state().header.key_pair.clone();
        Ok(kept.or_else(in_header))
    }

    fn set_secret(&self, core: &DiscoveryKey, key_pair: &KeyPair) -> Result<(), StorageError> {
        lock(&self.secrets).insert(*core, key_pair.clone());
        Ok(())
    }

    fn is_guarded(&self, core: &DiscoveryKey) -> Result<bool, StorageError> {
        let guards = lock(&self.guards);
        Ok(guards.0.get(core).copied().unwrap_or(guards.1))
    }

    fn set_guarded(&self, core: &DiscoveryKey, guarded: bool) -> Result<(), StorageError> {
        lock(&self.guards).0.insert(*core, guarded);
        Ok(())
    }

    fn commit(&self, batch: WriteBatch, _: Durability) -> Result<(), StorageError> {
        let find = |(core, write)| {
            let found = self.core(&core).ok_or(StorageError::NotOpen { core })?;
            Ok((found, write))
        };
        let found: Result<Vec<_>, StorageError> = batch.into_writes().map(find).collect();
        let found = found?;
        // All are locked before the first changes: nobody reads one before and one after.
        let states: Vec<_> = found.iter().map(|(core, _)| core.state_mut()).collect();
        for (mut state, (_, write)) in states.into_iter().zip(&found) {
            state.apply(write.clone());
        }
        Ok(())
    }

    fn alias(&self, alias: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        Ok(lock(&self.aliases).get(alias).copied())
    }

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        let aliases = lock(&self.aliases);
        let all = aliases.iter().map(|(alias, core)| (alias.clone(), *core));
        Ok(all.collect())
    }

    fn set_alias(&self, alias: Alias, core: &DiscoveryKey) -> Result<(), StorageError> {
        lock(&self.aliases).insert(alias, *core);
        Ok(())
    }
}

/// One core in memory.
struct MemoryCore {
    core: DiscoveryKey,
    state: RwLock<State>,
    drafts: Arc<MemoryDrafts>,
    conflict: Mutex<Option<Vec<u8>>>,
}

/// The drafts of one core in memory.
#[derive(Default)]
struct MemoryDrafts {
    drafts: Mutex<HashMap<DiscoveryKey, Arc<MemoryCore>>>,
}

impl DraftStorage for MemoryDrafts {
    fn open(&self, draft: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let draft = lock(&self.drafts).get(draft).cloned();
        Ok(draft.map(MemoryCore::opened))
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let discovery_key = header.key.discovery_key();
        let draft = Arc::new(MemoryCore::new(discovery_key, header));
        lock(&self.drafts).insert(discovery_key, Arc::clone(&draft));
        Ok(draft.opened())
    }

    fn list(&self) -> Result<Vec<CoreHeader>, StorageError> {
        let drafts = lock(&self.drafts);
        Ok(drafts
            .values()
            .map(|draft| draft.state().header.clone())
            .collect())
    }

    fn remove(&self, draft: &DiscoveryKey) -> Result<bool, StorageError> {
        Ok(lock(&self.drafts).remove(draft).is_some())
    }
}

struct State {
    header: CoreHeader,
    bitfield: Bitfield,
    nodes: BTreeMap<u64, Node>,
    /// Blocks by byte offset; they do not overlap, and none is empty.
    blocks: BTreeMap<u64, Bytes>,
}

impl MemoryCore {
    fn new(core: DiscoveryKey, header: CoreHeader) -> Self {
        let state = State {
            header,
            bitfield: Bitfield::new(),
            nodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
        };
        Self {
            core,
            state: RwLock::new(state),
            drafts: Arc::default(),
            conflict: Mutex::default(),
        }
    }

    fn opened(self: Arc<Self>) -> OpenedCore {
        let state = self.state();
        let (header, bitfield) = (state.header.clone(), state.bitfield.clone());
        drop(state);
        OpenedCore {
            header,
            bitfield,
            drafts: Some(Arc::clone(&self.drafts) as _),
            conflicts: Some(Arc::clone(&self) as _),
            storage: self,
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreStorage for MemoryCore {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        Ok(self.state().nodes.get(&index).copied())
    }

    fn next_node(&self, from: u64) -> Result<Option<u64>, StorageError> {
        let state = self.state();
        Ok(state.nodes.range(from..).next().map(|(index, _)| *index))
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        let bytes = self.state().read(byte_offset, size);
        bytes.ok_or_else(|| StorageError::Corrupt {
            core: self.core,
            part: "data",
            offset: byte_offset,
            reason: "the block is not here".to_owned(),
        })
    }

    fn commit(&self, write: CoreWrite, _: Durability) -> Result<(), StorageError> {
        self.state_mut().apply(write);
        Ok(())
    }

    fn flush(&self, _: Durability) -> Result<(), StorageError> {
        Ok(())
    }
}

impl ConflictKeeper for MemoryCore {
    fn load(&self) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(lock(&self.conflict).clone())
    }

    fn keep(&self, evidence: &[u8]) -> Result<(), StorageError> {
        *lock(&self.conflict) = Some(evidence.to_vec());
        Ok(())
    }
}

impl State {
    fn apply(&mut self, write: CoreWrite) {
        // First: what a change gives up that replaces history lies where its blocks go.
        for range in write.freed {
            self.make_room(range.start, range.end);
        }
        for run in write.blocks {
            let mut offset = run.byte_offset;
            for block in run.blocks {
                let end = offset + block.len() as u64;
                self.put(offset, &block);
                offset = end;
            }
        }
        if let Some(head) = write.head {
            if head.ancestors < self.header.head.length {
                self.nodes
                    .retain(|index, _| flat_tree::end_block(*index) <= head.ancestors);
            }
            self.header.head = head.head;
        }
        for node in write.nodes {
            match node.is_blank() {
                true => self.nodes.remove(&node.index),
                false => self.nodes.insert(node.index, node),
            };
        }
        for bits in write.bits {
            self.bitfield.set_range(bits.range, bits.value);
        }
        self.header.manifest = write.manifest.or(self.header.manifest.take());
        for (key, value) in write.user_data {
            set_user_data(&mut self.header.user_data, key, value);
        }
    }

    /// Keeps a copy: a block that came from a peer is a part of something that may be longer by any amount.
    fn put(&mut self, offset: u64, block: &[u8]) {
        if !block.is_empty() {
            self.make_room(offset, offset + block.len() as u64);
            self.blocks.insert(offset, Bytes::copy_from_slice(block));
        }
    }

    /// Removes what lies between `start` and `end`. Costs what is removed, however much else is here: blocks come in any order.
    fn make_room(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if let Some((offset, block)) = self.blocks.range_mut(..start).next_back() {
            let keep = (start - offset) as usize;
            if block.len() > keep {
                let behind = block.split_off(keep);
                self.blocks.insert(start, behind);
            }
        }
        while let Some((offset, _)) = self.blocks.range(start..end).next() {
            let offset = *offset;
            let removed = self.blocks.remove(&offset);
            let keep = (end - offset) as usize;
            if let Some(block) = removed.filter(|block| block.len() > keep) {
                self.blocks.insert(end, block.slice(keep..));
            }
        }
    }

    /// The bytes from `offset` on, without a copy if they are one block.
    fn read(&self, offset: u64, size: usize) -> Option<Bytes> {
        let mut parts = self.parts(offset);
        let first = match size {
            0 => return Some(Bytes::new()),
            _ => parts.next()?,
        };
        if first.len() >= size {
            return Some(first.slice(..size));
        }
        let mut whole = BytesMut::from(first);
        while whole.len() < size {
            let part = parts.next()?;
            let rest = part.len().min(size - whole.len());
            whole.extend_from_slice(&part.slice(..rest));
        }
        Some(whole.freeze())
    }

    /// Adjacent stored bytes from `offset` on.
    fn parts(&self, offset: u64) -> impl Iterator<Item = Bytes> {
        let before = self.blocks.range(..=offset).next_back();
        let start = before.map_or(offset, |(start, _)| *start);
        let mut at = offset;
        self.blocks.range(start..).map_while(move |(start, block)| {
            let skip = usize::try_from(at.checked_sub(*start)?).ok()?;
            let part = (skip < block.len()).then(|| block.slice(skip..))?;
            at += part.len() as u64;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::storage::{BlockWrite, Head};
    use ferrocore_primitives::keys::Key;
    use proptest::prelude::*;

    fn state() -> State {
        let header = CoreHeader {
            key: Key::from([0; 32]),
            manifest: None,
            key_pair: None,
            user_data: BTreeMap::new(),
            head: Head::empty(),
        };
        MemoryCore::new(DiscoveryKey::from([0; 32]), header)
            .state
            .into_inner()
            .unwrap()
    }

    /// Goal: what a change gives up that replaces history is gone, and what it brings instead is not.
    #[test]
    fn what_is_cut_off_is_not_kept() {
        let mut state = state();
        let write = |byte_offset, byte, freed: Option<Range<u64>>| CoreWrite {
            blocks: vec![BlockWrite {
                byte_offset,
                blocks: vec![Bytes::from(vec![byte; 10])],
            }],
            freed: freed.into_iter().collect(),
            ..CoreWrite::default()
        };
        for (offset, byte) in [(0, 1), (10, 2), (20, 3)] {
            state.apply(write(offset, byte, None));
        }
        state.apply(write(10, 4, Some(10..30)));
        let held: Vec<_> = state.blocks.iter().map(|(at, b)| (*at, b[0])).collect();
        assert_eq!(held, [(0, 1), (10, 4)]);
    }

    proptest! {
        /// Goal: whatever is written over whatever, a read gives what a plain array gives.
        #[test]
        fn equals_an_array(
            writes in proptest::collection::vec((0usize..40, 0usize..20, any::<bool>()), 1..20),
            at in 0usize..60,
            size in 0usize..30,
        ) {
            let mut state = state();
            let mut array = [None; 100];
            for ((start, len, free), tag) in writes.into_iter().zip(1u8..) {
                let value = (!free).then_some(tag);
                array[start..start + len].fill(value);
                match free {
                    true => state.make_room(start as u64, (start + len) as u64),
                    false => state.put(start as u64, &vec![tag; len]),
                }
            }
            let expected: Option<Vec<u8>> = array[at..at + size].iter().copied().collect();
            let read = state.read(at as u64, size).map(|bytes| bytes.to_vec());
            prop_assert_eq!(read, expected);
        }
    }
}
