//! Goal: a core that takes long to open, or to delete, keeps nobody waiting who wants another one.
//! Method: a storage that holds up one core until another one was opened.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::infos;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{Alias, CoreHeader, OpenedCore, Storage, StorageError, WriteBatch};
use ferrocore_log::{Corestore, Durability, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;

/// Longer than anything here takes: a test that waits as long has failed.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Memory storage in which one core is slow.
struct Slow {
    memory: Memory,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    /// How often a core was looked at on disk.
    peeks: AtomicUsize,
    slow: Mutex<Option<Holdup>>,
}

/// Holds up the next work on one core.
struct Holdup {
    core: DiscoveryKey,
    /// Is told that the work has begun.
    reached: Sender<()>,
    /// Tells that it may go on.
    go_on: Receiver<()>,
}

impl Gate {
    fn pass(&self, core: &DiscoveryKey) {
        let mut slow = self.slow.lock().unwrap();
        let holdup = slow.take_if(|slow| slow.core == *core);
        drop(slow);
        if let Some(holdup) = holdup {
            holdup.reached.send(()).unwrap();
            let others = holdup.go_on.recv_timeout(WATCHDOG);
            others.expect("another core is opened");
        }
    }
}

impl Storage for Slow {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        self.memory.root_secret()
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        self.gate.pass(core);
        self.memory.open(core)
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        self.memory.create(header)
    }

    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        self.gate.peeks.fetch_add(1, Ordering::Relaxed);
        self.memory.peek(core)
    }

    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        self.memory.list()
    }

    fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        self.memory.disk_bytes(core)
    }

    fn purge(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        self.gate.pass(core);
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

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.memory.commit(batch, durability)
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

#[test]
fn a_slow_core_holds_up_no_other() {
    let gate = Arc::new(Gate::default());
    let memory = Memory::new();
    let storage = Slow {
        memory,
        gate: Arc::clone(&gate),
    };
    let store = Corestore::with_storage(storage, StoreOptions::default()).unwrap();
    let slow = store.get_named("slow").unwrap().discovery_key();
    for purges in [false, true] {
        let ((reached, is_reached), (go_on, may_go_on)) = (channel(), channel());
        *gate.slow.lock().unwrap() = Some(Holdup {
            core: slow,
            reached,
            go_on: may_go_on,
        });
        let stuck = {
            let store = store.clone();
            thread::spawn(move || match purges {
                false => assert_eq!(store.get_named("slow").unwrap().length(), 0),
                true => assert_eq!(store.purge(&slow).unwrap(), 0),
            })
        };
        is_reached.recv_timeout(WATCHDOG).unwrap();
        store.get_named("quick").unwrap().append("x").unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
        go_on.send(()).unwrap();
        stuck.join().unwrap();
    }
    assert_eq!(store.get_named("quick").unwrap().length(), 2);
    assert!(store.get_by_discovery_key(&slow).unwrap().is_none());
}

/// Goal: however many ask for a core at once, it is opened once, and all get that one.
#[test]
fn threads_share_the_core_that_one_of_them_opens() {
    let store = Corestore::memory();
    let key = store.get_named("shared").unwrap().key();
    for _ in 0..50 {
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let open = || {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                let core = store.get(&key).unwrap();
                barrier.wait(); // all are open at once
                core.append("x").unwrap();
                barrier.wait();
                core.length()
            })
        };
        let threads: Vec<_> = (0..4).map(|_| open()).collect();
        let lengths: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]));
    }
    assert_eq!(store.get(&key).unwrap().length(), 200);
}

#[test]
fn open_cores_are_listed_from_memory() {
    let gate = Arc::new(Gate::default());
    let storage = Slow {
        memory: Memory::new(),
        gate: Arc::clone(&gate),
    };
    let store = Corestore::with_storage(storage, StoreOptions::default()).unwrap();
    let cores = ["a", "b", "c"].map(|name| store.namespace("x").get_named(name).unwrap());
    cores[1].append("x").unwrap();
    let open = infos(&store);
    assert_eq!(gate.peeks.load(Ordering::Relaxed), 0);
    assert_eq!(open.iter().map(|info| info.length).sum::<u64>(), 1);
    drop(cores);
    assert_eq!(infos(&store), open);
    assert_eq!(gate.peeks.load(Ordering::Relaxed), 3);
}
