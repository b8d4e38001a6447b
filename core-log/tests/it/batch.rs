//! Goal: a batch over several cores is all there or not at all, for whoever looks, and whatever it
//! meets.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use ferrocore_log::events::Event;
use ferrocore_log::storage::{CoreWrite, Storage as _, StorageError, WriteBatch, memory::Memory};
use ferrocore_log::{
    Core, CoreError, Corestore, Durability, EncryptionKey, StoreError, StoreOptions,
};
use ferrocore_primitives::keys::DiscoveryKey;

/// Runs `test` on a store in memory and, in both modes, on files.
fn on_each_storage(test: impl Fn(&Corestore)) {
    test(&Corestore::memory());
    #[cfg(feature = "files")]
    for durability in [Durability::Buffered, Durability::Sync] {
        let directory = tempfile::tempdir().unwrap();
        test(
            &Corestore::open(
                directory.path(),
                StoreOptions {
                    durability,
                    ..StoreOptions::default()
                },
            )
            .unwrap(),
        );
    }
}

#[test]
fn all_changes_of_a_batch_come_into_being() {
    on_each_storage(|store| {
        let cores = ["a", "b", "c"].map(|name| store.get_named(name).unwrap());
        let [a, b, c] = &cores;
        let secret = c.with_encryption(&EncryptionKey::generate());
        b.append("before").unwrap();
        let mut batch = store.batch();
        batch.append(a, "a0").unwrap();
        let two = ["b1", "b2"].map(Bytes::from).to_vec();
        batch.append_batch(b, two).unwrap();
        batch.append(a, "a1").unwrap();
        batch.append(&secret, "hidden").unwrap();
        batch.set_user_data(b, "key", Some(b"value")).unwrap();
        assert_eq!((a.length(), b.length(), c.length()), (0, 1, 0));
        let appended = batch.commit().unwrap();
        for core in &cores {
            let found = appended.iter().find(|(key, _)| *key == core.key()).unwrap();
            assert_eq!(found.1.length, core.length());
        }
        assert_eq!((a.length(), b.length(), c.length()), (2, 3, 1));
        assert_eq!(a.get_local(1).unwrap().unwrap(), "a1");
        assert_eq!(b.get_local(2).unwrap().unwrap(), "b2");
        assert_eq!(b.user_data("key").unwrap(), b"value");
        assert_eq!(secret.get_local(0).unwrap().unwrap(), "hidden");
        assert_ne!(c.get_local(0).unwrap().unwrap(), "hidden");
        for core in &cores {
            core.append("goes on").unwrap();
        }
    });
}

/// Looks at a core in the moment of a wake.
struct Look {
    at: Core,
    seen: Mutex<Vec<u64>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.seen.lock().unwrap().push(self.at.length());
    }
}

/// Goal: whoever is told by one core finds the change of the other, also who looks in the moment that it is told.
#[test]
fn events_come_when_all_is_there() {
    on_each_storage(|store| {
        let [a, b] = ["a", "b"].map(|name| store.get_named(name).unwrap());
        let (of_a, of_b) = (a.events(), b.events());
        let (told_by_a, told_by_b) = (a.events(), b.events());
        let looks = [&b, &a].map(|at| {
            let (at, seen) = (at.clone(), Mutex::default());
            Arc::new(Look { at, seen })
        });
        let mut waiting = [Box::pin(told_by_a.next()), Box::pin(told_by_b.next())];
        for (next, look) in waiting.iter_mut().zip(&looks) {
            let waker = Waker::from(Arc::clone(look));
            let polled = next.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        let mut batch = store.batch();
        for core in [&a, &b] {
            batch.append(core, "one").unwrap();
            batch.append(core, "two").unwrap();
        }
        batch.commit().unwrap();
        for events in [of_a, of_b] {
            assert_eq!(events.try_next(), Some(Event::Append { length: 2 }));
            assert_eq!(events.try_next(), Some(Event::Have(0..2)));
            assert_eq!(events.try_next(), None);
        }
        for look in &looks {
            let seen = look.seen.lock().unwrap();
            assert!(
                !seen.is_empty() && seen.iter().all(|length| *length == 2),
                "{seen:?}"
            );
        }
    });
}

#[test]
fn one_core_that_cannot_be_written_leaves_all_as_they_were() {
    on_each_storage(|store| {
        let mine = store.get_named("mine").unwrap();
        let theirs = Corestore::memory().get_named("theirs").unwrap();
        let reader = store.get(&theirs.key()).unwrap();
        let mut batch = store.batch();
        batch.append(&mine, "not to be").unwrap();
        batch.append(&reader, "refused").unwrap();
        let error = batch.commit().unwrap_err();
        let refused = matches!(error, StoreError::Core(CoreError::NotWritable { core }) if core == reader.key());
        assert!(refused, "{error}");
        assert_eq!(mine.length(), 0);
        mine.append("goes on").unwrap();
    });
}

#[test]
fn a_core_of_another_store_is_refused() {
    on_each_storage(|store| {
        let other = Corestore::memory().get_named("other").unwrap();
        // Even if this store has that core too.
        let _same_key = store.get(&other.key()).unwrap();
        let mut batch = store.batch();
        let error = batch.append(&other, "refused").unwrap_err();
        assert!(matches!(error, StoreError::OtherStore { .. }), "{error}");
        let error = batch.set_user_data(&other, "key", None).unwrap_err();
        assert!(matches!(error, StoreError::OtherStore { .. }), "{error}");
        assert!(batch.commit().unwrap().is_empty());
    });
}

/// Goal: batches that name the same cores in another order wait for each other, not in a circle.
#[test]
fn batches_never_deadlock() {
    on_each_storage(|store| {
        let cores = ["a", "b", "c"].map(|name| store.get_named(name).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let cores = &cores;
                scope.spawn(move || {
                    for round in 0..10 {
                        let mut batch = store.batch();
                        for turn in 0..2 {
                            let core = &cores[(thread + round + turn) % 3];
                            batch.append(core, format!("{thread} {round}")).unwrap();
                        }
                        batch.commit().unwrap();
                        cores[thread].append("alone").unwrap();
                    }
                });
            }
        });
        let total: u64 = cores.iter().map(ferrocore_log::Core::length).sum();
        assert_eq!(total, 3 * 10 * 3);
    });
}

#[test]
fn storage_refuses_a_core_that_is_not_open() {
    let core = DiscoveryKey::from([9; 32]);
    let mut batch = WriteBatch::new();
    assert!(batch.insert(core, CoreWrite::default()).is_none());
    assert!(batch.insert(core, CoreWrite::default()).is_some());
    let error = Memory::new().commit(batch, Durability::Buffered);
    assert!(matches!(error, Err(StorageError::NotOpen { .. })));
}

/// Goal: a journal has a bound, which is told before anything changes.
#[cfg(feature = "files")]
#[test]
fn a_batch_larger_than_the_journal_changes_nothing() {
    use ferrocore_log::storage::files::JOURNAL_BYTES_MAX;
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let cores = ["a", "b", "c"].map(|name| store.get_named(name).unwrap());
    let large = vec![7; JOURNAL_BYTES_MAX as usize / 3 + 1];
    let mut batch = store.batch();
    for core in &cores {
        batch.append(core, "not to be").unwrap();
        batch.set_user_data(core, "large", Some(&large)).unwrap();
    }
    let error = batch.commit().unwrap_err();
    let StoreError::Core(CoreError::Storage(StorageError::BatchTooLarge { bytes, max })) = error
    else {
        panic!("{error}");
    };
    assert!(bytes > max && max == JOURNAL_BYTES_MAX);
    for core in &cores {
        assert_eq!((core.length(), core.user_data("large")), (0, None));
        core.append("goes on").unwrap();
    }
}

/// Goal: a value of any length that may be kept can be replaced, whatever it replaces, and two such
/// values are too much.
#[cfg(feature = "files")]
#[test]
fn a_long_value_can_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("log").unwrap();
    let long = |byte| vec![byte; 9 << 20];
    core.set_user_data("key", Some(&long(1))).unwrap();
    core.set_user_data("key", Some(&long(2))).unwrap();
    let error = core.set_user_data("other", Some(&long(3))).unwrap_err();
    assert!(
        matches!(
            error,
            CoreError::Storage(StorageError::HeaderTooLarge { .. })
        ),
        "{error}"
    );
    core.set_user_data("key", None).unwrap();
    core.set_user_data("other", Some(&long(3))).unwrap();
    drop((core, store));
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("log").unwrap();
    assert_eq!(core.user_data("key"), None);
    assert!(core.user_data("other").unwrap() == long(3));
}
