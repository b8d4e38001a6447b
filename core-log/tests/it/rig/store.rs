//! A store of a few cores on files in memory: with the journal that their batches go through, and a place for one static core.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use ferrocore_log::storage::files::{CoreFiles, FileCore, Journal};
use ferrocore_log::storage::{
    Alias, CoreHeader, Head, OpenedCore, Storage, StorageError, WriteBatch, memory::Memory,
};
use ferrocore_log::{Core, Corestore, Durability, StoreError, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;

use super::{Contents, Disk};

/// The names of the cores there may be.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];
const ROOT_SECRET: [u8; 32] = [7; 32];
const FILES: [[&str; 5]; 3] = [
    ["a/oplog", "a/tree", "a/bitfield", "a/data", "a/header"],
    ["b/oplog", "b/tree", "b/bitfield", "b/data", "b/header"],
    ["c/oplog", "c/tree", "c/bitfield", "c/data", "c/header"],
];
/// Of the one core that has no name.
const STATIC_FILES: [&str; 5] = ["s/oplog", "s/tree", "s/bitfield", "s/data", "s/header"];
pub(crate) const JOURNAL: &str = "journal";

struct DiskStore {
    disk: Disk,
    durability: Durability,
    journal: Journal,
    open: Mutex<HashMap<DiscoveryKey, Weak<FileCore>>>,
}

/// Opens the store on `disk`, completing what a crash left undone.
pub(crate) fn open_store(disk: &Disk, durability: Durability) -> Result<Corestore, StorageError> {
    let store = DiskStore {
        disk: disk.clone(),
        durability,
        journal: Journal::new(disk.file(JOURNAL), PathBuf::from(JOURNAL)),
        open: Mutex::default(),
    };
    let open = |core: &_, is_damaged| match is_damaged {
        false => Ok(store.open_shared(core)?.map(|(_, core)| core)),
        true => {
            let opened = FileCore::open_unverified_shared(core, store.files(core), durability)?;
            Ok(opened.map(|(_, core)| core))
        }
    };
    store.journal.recover(open)?;
    Corestore::with_storage(
        store,
        StoreOptions {
            durability,
            ..StoreOptions::default()
        },
    )
}

/// Its cores, each created if it is not there.
pub(crate) fn open_cores(store: &Corestore) -> Result<Vec<Core>, StoreError> {
    NAMES.iter().map(|name| store.get_named(name)).collect()
}

/// A core, if it is there.
pub(crate) fn open_core(store: &Corestore, number: usize) -> Result<Option<Core>, StoreError> {
    store.get_by_discovery_key(&keys()[number])
}

/// What a core's own files say of it, whatever the journal holds.
pub(crate) fn peek_core(disk: &Disk, number: usize) -> Result<Option<CoreHeader>, StorageError> {
    FileCore::peek(&keys()[number], || {
        Ok(Some(disk.core_files_named(FILES[number])))
    })
}

/// The head that a core's header names, whatever its entries and its roots are.
pub(crate) fn head_in_header(files: &Contents, number: usize) -> Head {
    let mut files = files.clone();
    files.get_mut(oplog_of(number)).unwrap().truncate(8192);
    let disk = Disk::new(files);
    let opened = FileCore::open_read_only_unverified(&keys()[number], || {
        Ok(Some(disk.core_files_named(FILES[number])))
    });
    opened.unwrap().unwrap().header.head
}

/// The name of a core's oplog.
pub(crate) fn oplog_of(number: usize) -> &'static str {
    FILES[number][0]
}

/// The name of a core's tree.
pub(crate) fn tree_of(number: usize) -> &'static str {
    FILES[number][1]
}

/// The discovery key of a core.
pub(crate) fn key_of(number: usize) -> DiscoveryKey {
    keys()[number]
}

/// The discovery keys of the cores.
fn keys() -> &'static [DiscoveryKey] {
    static KEYS: OnceLock<Vec<DiscoveryKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let memory = Memory::with_root_secret(ROOT_SECRET);
        let twin = Corestore::with_storage(memory, StoreOptions::default()).unwrap();
        let key = |name: &&str| twin.get_named(name).unwrap().discovery_key();
        NAMES.iter().map(key).collect()
    })
}

impl DiskStore {
    fn files(&self, core: &DiscoveryKey) -> CoreFiles {
        let number = keys().iter().position(|key| key == core);
        let names = number.map_or(STATIC_FILES, |number| FILES[number]);
        self.disk.core_files_named(names)
    }

    fn open_shared(
        &self,
        core: &DiscoveryKey,
    ) -> Result<Option<(OpenedCore, Arc<FileCore>)>, StorageError> {
        let opened = FileCore::open_shared(core, self.files(core), self.durability)?;
        Ok(opened.inspect(|(_, shared)| self.keep(*core, shared)))
    }

    fn keep(&self, core: DiscoveryKey, shared: &Arc<FileCore>) {
        let weak = Arc::downgrade(shared);
        self.open.lock().unwrap().insert(core, weak);
    }
}

impl Storage for DiskStore {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        Ok(ROOT_SECRET)
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        self.journal.check_open(core)?;
        Ok(self.open_shared(core)?.map(|(opened, _)| opened))
    }

    fn open_unverified(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        FileCore::open_unverified(core, self.files(core), self.durability)
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let core = header.key.discovery_key();
        let (opened, shared) = FileCore::create_shared(self.files(&core), header, self.durability)?;
        self.keep(core, &shared);
        Ok(opened)
    }

    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        FileCore::peek(core, || Ok(Some(self.files(core))))
    }

    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        Ok(keys().to_vec())
    }

    fn disk_bytes(&self, _: &DiscoveryKey) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn purge(&self, _: &DiscoveryKey) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn secret(&self, _: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        Ok(None)
    }

    fn set_secret(&self, _: &DiscoveryKey, _: &KeyPair) -> Result<(), StorageError> {
        unreachable!("no workload imports a secret")
    }

    fn is_guarded(&self, _: &DiscoveryKey) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn set_guarded(&self, _: &DiscoveryKey, _: bool) -> Result<(), StorageError> {
        unreachable!("no workload guards a core")
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        let open = self.open.lock().unwrap();
        let find = |(core, write)| {
            let shared = open.get(&core).and_then(Weak::upgrade);
            Ok((shared.ok_or(StorageError::NotOpen { core })?, write))
        };
        let changes: Result<Vec<_>, StorageError> = batch.into_writes().map(find).collect();
        self.journal.commit(changes?, durability)
    }

    fn alias(&self, _: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        Ok(None)
    }

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        Ok(Vec::new())
    }

    fn set_alias(&self, _: Alias, _: &DiscoveryKey) -> Result<(), StorageError> {
        Ok(())
    }
}
