//! A storage in memory that counts how often it is read, and can hold up what is to be durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ferrocore_log::Durability;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{
    Alias, BlockPlace, CoreHeader, CoreStorage, CoreWrite, OpenedCore, Storage, StorageError,
    WriteBatch,
};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;

use crate::common::gate::Gate;

/// How often nodes, places and blocks were read. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Reads(Arc<AtomicUsize>);

impl Reads {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The store.
pub(crate) struct Counted {
    pub(crate) memory: Memory,
    pub(crate) reads: Reads,
    /// Commits with [`Durability::Sync`] wait before it.
    pub(crate) gate: Gate,
}

impl Counted {
    fn counted(&self, opened: OpenedCore) -> OpenedCore {
        let storage = Arc::new(CountedCore {
            storage: Arc::clone(&opened.storage),
            reads: self.reads.clone(),
            gate: self.gate.clone(),
        });
        OpenedCore { storage, ..opened }
    }
}

impl Storage for Counted {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        self.memory.root_secret()
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let opened = self.memory.open(core)?;
        Ok(opened.map(|opened| self.counted(opened)))
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        Ok(self.counted(self.memory.create(header)?))
    }

    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        self.memory.peek(core)
    }

    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        self.memory.list()
    }

    fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        self.memory.disk_bytes(core)
    }

    fn purge(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        self.memory.purge(core)
    }

    fn secret(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        self.memory.secret(core)
    }

    fn set_secret(&self, core: &DiscoveryKey, key_pair: &KeyPair) -> Result<(), StorageError> {
        self.memory.set_secret(core, key_pair)
    }

    fn is_guarded(&self, core: &DiscoveryKey) -> Result<bool, StorageError> {
        self.memory.is_guarded(core)
    }

    fn set_guarded(&self, core: &DiscoveryKey, guarded: bool) -> Result<(), StorageError> {
        self.memory.set_guarded(core, guarded)
    }

    fn alias(&self, alias: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        self.memory.alias(alias)
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.memory.commit(batch, durability)
    }

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        self.memory.aliases()
    }

    fn set_alias(&self, alias: Alias, core: &DiscoveryKey) -> Result<(), StorageError> {
        self.memory.set_alias(alias, core)
    }
}

/// One core of it.
struct CountedCore {
    storage: Arc<dyn CoreStorage>,
    reads: Reads,
    gate: Gate,
}

impl CoreStorage for CountedCore {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.reads.add();
        self.storage.node(index)
    }

    fn next_node(&self, from: u64) -> Result<Option<u64>, StorageError> {
        self.storage.next_node(from)
    }

    fn locate(&self, roots: &Roots, index: u64) -> Result<Option<BlockPlace>, StorageError> {
        self.reads.add();
        self.storage.locate(roots, index)
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        self.reads.add();
        self.storage.block(byte_offset, size)
    }

    fn check(&self) -> Result<(), StorageError> {
        self.storage.check()
    }

    fn still_has(&self, index: u64) -> Result<Option<bool>, StorageError> {
        self.storage.still_has(index)
    }

    fn commit(&self, write: CoreWrite, durability: Durability) -> Result<(), StorageError> {
        if durability == Durability::Sync {
            self.gate.pass().expect("the device is whole");
        }
        self.storage.commit(write, durability)
    }

    fn flush(&self, durability: Durability) -> Result<(), StorageError> {
        self.storage.flush(durability)
    }
}
