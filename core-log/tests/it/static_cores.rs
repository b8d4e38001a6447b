//! Goal: a static core is exactly what its key pins, is copied without harm to what it is copied
//! from, and never claims a block it does not have.
//! Method: cores of many shapes are copied and compared; sources that lack blocks, are damaged,
//! go on, are cut, are encrypted; copies that are cut off at each of their commits.
#![cfg(feature = "files")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::manifest::Prologue;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{
    Alias, CoreHeader, CoreStorage, CoreWrite, Durability, OpenedCore, Storage, StorageError,
    WriteBatch,
};
use ferrocore_log::{
    Core, CoreError, CoreOptions, Corestore, EncryptionKey, Manifest, StoreError, StoreOptions,
};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;

/// Blocks of many sizes, some of them empty, some larger than a part of a copy.
fn blocks(count: usize) -> Vec<Bytes> {
    let size = |i: usize| match i {
        13 => 5 << 20,
        i if i % 5 == 0 => 0,
        i => i * 31 % 900,
    };
    (0..count)
        .map(|i| Bytes::from(vec![i as u8; size(i)]))
        .collect()
}

fn source_of(store: &Corestore, count: usize) -> Core {
    let source = store.get_named("source").unwrap();
    source.append_batch(blocks(count)).unwrap();
    source
}

fn assert_same(copy: &Core, source: &Core) {
    assert_eq!(copy.length(), source.length());
    assert_eq!(copy.tree_hash(), source.tree_hash());
    assert_eq!(copy.byte_length(), source.byte_length());
    assert_eq!(copy.contiguous_length(), source.length());
    for index in 0..source.length() {
        assert_eq!(
            copy.get_local(index).unwrap(),
            source.get_local(index).unwrap()
        );
    }
    let report = copy.audit(Mode::DryRun, |_| ()).unwrap();
    assert_eq!((report.blocks, report.bad), (source.length(), 0));
}

#[test]
fn a_static_core_of_blocks_is_that_of_a_core_that_has_them() {
    for count in [1, 2, 3, 5, 8, 100, 4_097] {
        let store = Corestore::memory();
        let source = source_of(&store, count);
        let copy = store.staticify(&source).unwrap();
        assert_same(&copy, &source);
        let manifest = copy.manifest().unwrap();
        let prologue = Prologue {
            hash: source.tree_hash(),
            length: source.length(),
        };
        assert_eq!(
            manifest,
            Manifest::builder().prologue(prologue).build().unwrap()
        );
        let made = Corestore::memory().create_static(blocks(count)).unwrap();
        assert_eq!(made.key(), copy.key());
        assert_same(&made, &source);
    }
}

#[test]
fn a_static_core_is_served_and_cannot_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let made = store.create_static(blocks(9)).unwrap();
    let reader = Corestore::memory().get(&made.key()).unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index: 4, nodes: 0 }),
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 9,
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(made.prove(&request).unwrap().unwrap())
        .unwrap();
    assert_eq!(reader.get_local(4).unwrap().unwrap(), blocks(9)[4]);
    for core in [&made, &reader] {
        assert!(!core.is_writable());
        assert!(matches!(
            core.append("x"),
            Err(CoreError::NotWritable { .. })
        ));
        assert!(matches!(
            core.truncate(0, None),
            Err(CoreError::NotWritable { .. })
        ));
    }
    let key = made.key();
    drop((made, store));
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    assert_eq!(store.get(&key).unwrap().contiguous_length(), 9);
}

#[test]
fn the_source_is_not_changed_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let source = source_of(&store, 50);
    source.truncate(40, None).unwrap();
    source.set_user_data("app", Some(b"mine")).unwrap();
    let copy = store.staticify(&source).unwrap();
    assert_same(&copy, &source);
    assert_eq!((source.fork(), copy.fork()), (1, 0));
    assert_eq!(copy.user_data("app").unwrap(), b"mine");
    assert_eq!(
        copy.user_data("corestore/name"),
        None,
        "it is another core's"
    );
    source.append("goes on").unwrap();
    assert_eq!((source.length(), copy.length()), (41, 40));
    let (key, static_key) = (source.key(), copy.key());
    drop((source, copy, store));
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let source = store.get_named("source").unwrap();
    assert_eq!((source.key(), source.length()), (key, 41));
    assert!(source.is_writable());
    assert_eq!(store.get(&static_key).unwrap().contiguous_length(), 40);
}

#[test]
fn what_lacks_blocks_is_not_copied() {
    let store = Corestore::memory();
    let empty = store.get_named("empty").unwrap();
    assert!(matches!(store.staticify(&empty), Err(StoreError::Empty)));
    let source = source_of(&store, 20);
    source.clear(7..9).unwrap();
    let before = store.list().unwrap().len();
    let Err(StoreError::Core(CoreError::MissingBlock { index: 7, .. })) = store.staticify(&source)
    else {
        panic!("block 7 is missing");
    };
    assert_eq!(
        store.list().unwrap().len(),
        before,
        "nothing is left behind"
    );
}

/// Goal: whoever copies needs no key, whoever reads needs the source's.
#[test]
fn an_encrypted_core_is_copied_blind() {
    for compat in [false, true] {
        let store = Corestore::memory();
        let options = CoreOptions {
            name: Some("secret".to_owned()),
            compat,
            ..CoreOptions::default()
        };
        let source = store.get_with(options).unwrap();
        let key = EncryptionKey::generate();
        let plain = source.with_encryption(&key);
        plain.append_batch(blocks(10)).unwrap();
        let copy = store.staticify(&source).unwrap();
        assert_same(&copy, &source);
        let block_key = key.of_core(&source.key(), compat);
        let opened = copy.with_encryption(&block_key);
        for index in 0..10 {
            assert_eq!(
                opened.get_local(index).unwrap(),
                plain.get_local(index).unwrap()
            );
        }
    }
}

/// Goal: nothing that the source's tree does not prove is copied.
#[test]
fn a_damaged_source_is_told_and_not_copied() {
    let store = Corestore::memory();
    let manifest = Manifest::single(KeyPair::from_seed(&[1; 32]).public_key());
    let header = CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: Some(KeyPair::from_seed(&[1; 32])),
        user_data: Default::default(),
        head: ferrocore_log::storage::Head::empty(),
    };
    let opened = Memory::new().create(header).unwrap();
    let storage = Arc::clone(&opened.storage);
    let source = Core::open(opened, None, Durability::Buffered).unwrap();
    source.append_batch(blocks(20)).unwrap();
    // A leaf and its block that fit each other, and nothing above.
    let other = Node::leaf(3, &vec![9; blocks(20)[3].len()]);
    let write = CoreWrite {
        nodes: vec![other],
        ..CoreWrite::default()
    };
    storage.commit(write, Durability::Buffered).unwrap();
    // The copy takes blocks, not leaves, so it mends what the tree proves.
    let copy = store.staticify(&source).unwrap();
    for (index, block) in (0..).zip(blocks(20)) {
        assert_eq!(copy.get_local(index).unwrap(), Some(block));
    }
    let mut longer = Node::leaf(4, b"");
    longer.size = u64::MAX >> 11;
    for damaged in [Node::leaf(7, b"another"), longer] {
        let write = CoreWrite {
            nodes: vec![damaged],
            ..CoreWrite::default()
        };
        storage.commit(write, Durability::Buffered).unwrap();
        let store = Corestore::memory();
        let told = store.staticify(&source);
        assert!(
            matches!(
                told,
                Err(StoreError::Core(CoreError::Storage(
                    StorageError::Corrupt { .. }
                )))
            ),
            "{told:?}"
        );
    }
}

/// Goal: a copy that is cut off holds the head and whole parts, says so, and goes on where it was
/// cut off. Method: storage fails at each commit in turn.
#[test]
fn a_copy_that_was_cut_off_goes_on() {
    let source = source_of(&Corestore::memory(), 300);
    let mut last_reads = u64::MAX;
    for commits in 0.. {
        let memory = Arc::new(Memory::with_root_secret([1; 32]));
        let left = Arc::new(AtomicUsize::new(commits));
        let failing = Failing {
            memory: Arc::clone(&memory),
            left,
        };
        let cut = Corestore::with_storage(failing, StoreOptions::default()).unwrap();
        let result = cut.staticify(&source);
        drop(cut);
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let whole = Failing { memory, left };
        let store = Corestore::with_storage(whole, StoreOptions::default()).unwrap();
        if result.is_ok() {
            assert!(commits > 3, "there was something to cut off");
            break;
        }
        for core in store.list().unwrap() {
            let partial = store.get(&core.info.unwrap().key).unwrap();
            let report = partial.audit(Mode::DryRun, |_| ()).unwrap();
            assert_eq!(report.bad, 0);
            assert!(
                partial.contiguous_length() < 300,
                "it claims no block it has not"
            );
            for index in (0..300).filter(|index| partial.has(*index)) {
                assert_eq!(
                    partial.get_local(index).unwrap(),
                    source.get_local(index).unwrap()
                );
            }
            let missing = 300 - partial.count(0..300);
            assert!(missing <= last_reads, "each cut comes later");
            last_reads = missing;
        }
        let copy = store.staticify(&source).unwrap();
        assert_same(&copy, &source);
    }
}

/// Memory that fails all commits after some.
struct Failing {
    memory: Arc<Memory>,
    left: Arc<AtomicUsize>,
}

struct FailingCore {
    storage: Arc<dyn CoreStorage>,
    left: Arc<AtomicUsize>,
    core: DiscoveryKey,
}

impl Failing {
    fn wrap(&self, core: DiscoveryKey, opened: OpenedCore) -> OpenedCore {
        let storage = FailingCore {
            storage: Arc::clone(&opened.storage),
            left: Arc::clone(&self.left),
            core,
        };
        OpenedCore {
            storage: Arc::new(storage),
            ..opened
        }
    }
}

impl Storage for Failing {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        self.memory.root_secret()
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let opened = self.memory.open(core)?;
        Ok(opened.map(|opened| self.wrap(*core, opened)))
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let core = header.key.discovery_key();
        Ok(self.wrap(core, self.memory.create(header)?))
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

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.memory.commit(batch, durability)
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

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        self.memory.aliases()
    }

    fn set_alias(&self, alias: Alias, core: &DiscoveryKey) -> Result<(), StorageError> {
        self.memory.set_alias(alias, core)
    }
}

impl CoreStorage for FailingCore {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.storage.node(index)
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        self.storage.block(byte_offset, size)
    }

    fn commit(&self, write: CoreWrite, durability: Durability) -> Result<(), StorageError> {
        let take = |left: usize| left.checked_sub(1);
        match self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
        {
            Ok(_) => self.storage.commit(write, durability),
            Err(_) => Err(StorageError::Poisoned { core: self.core }),
        }
    }

    fn flush(&self, durability: Durability) -> Result<(), StorageError> {
        self.storage.flush(durability)
    }
}
