//! Several writers of one bee, and batches that do not come to their end.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ferrocore_bee::{Bee, BeeError, Options, RangeOptions};
use ferrocore_log::Corestore;
use pollster::block_on;

fn new_bee() -> Bee {
    let core = Corestore::memory().get_named("bee").unwrap();
    Bee::new(core, Options::default())
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// With everything stored here, nothing ever has to be polled twice.
#[test]
fn local_operations_are_ready_at_once() {
    let bee = new_bee();
    for key in 0..100u8 {
        assert!(matches!(
            poll_once(bee.put([key], "v")),
            Poll::Ready(Ok(true))
        ));
    }
    assert!(matches!(poll_once(bee.get([7])), Poll::Ready(Ok(Some(_)))));
    assert!(matches!(poll_once(bee.del([7])), Poll::Ready(Ok(true))));
    let mut range = bee.range(RangeOptions::default());
    assert!(matches!(poll_once(range.next()), Poll::Ready(Ok(Some(_)))));
}

/// A put waits for the open batch of a clone, whatever becomes of the batch.
#[test]
fn writers_take_turns() {
    let bee = new_bee();
    for flush in [true, false] {
        let clone = bee.clone();
        let mut batch = bee.batch();
        block_on(batch.put("batch", flush.to_string())).unwrap();
        let mut put = pin!(clone.put("put", "v"));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(put.as_mut().poll(context).is_pending());
        match flush {
            true => block_on(batch.flush()).unwrap(),
            false => batch.close(),
        }
        assert!(matches!(put.as_mut().poll(context), Poll::Ready(Ok(true))));
    }
    let entry = block_on(bee.get("batch")).unwrap().unwrap();
    assert_eq!(entry.value.as_deref(), Some(&b"true"[..]));
    assert_eq!(bee.version(), 4);
}

#[test]
fn typed_entries_come_back() {
    use ferrocore_bee::TypedBee;
    use ferrocore_log::codec::{Json, Utf8};

    let bee = new_bee();
    let typed = TypedBee::new(bee.clone(), Utf8, Json::<Vec<u32>>::new());
    for (key, value) in [("b", vec![1, 2]), ("a", vec![])] {
        assert!(block_on(typed.put(key, &value)).unwrap());
    }
    assert_eq!(block_on(typed.get("b")).unwrap().unwrap(), [1, 2]);
    assert_eq!(block_on(typed.get("c")).unwrap(), None);
    block_on(bee.put("ab", "no list")).unwrap();
    let mut range = typed.range(RangeOptions::default());
    let first = block_on(range.next()).unwrap().unwrap();
    assert_eq!(first, ("a".to_owned(), vec![]));
    assert!(matches!(block_on(range.next()), Err(BeeError::Codec(_))));
    assert_eq!(block_on(range.next()).unwrap().unwrap().0, "b");
    assert!(block_on(typed.del("b")).unwrap());
    assert!(block_on(range.next()).unwrap().is_none());
}

/// Threads that put through clones of one bee lose nothing.
#[test]
fn threads_share_a_bee() {
    let bee = new_bee();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let bee = bee.clone();
            scope.spawn(move || {
                for key in 0..50u8 {
                    block_on(bee.put([thread, key], "v")).unwrap();
                }
            });
        }
    });
    for key in (0..4u8).flat_map(|thread| (0..50u8).map(move |key| [thread, key])) {
        assert!(block_on(bee.get(key)).unwrap().is_some());
    }
}

/// The pending operations show in the batch, not in the bee, and not at all once it is dropped.
#[test]
fn a_dropped_batch_leaves_only_the_header() {
    let bee = new_bee();
    let mut batch = bee.batch();
    block_on(batch.put("k", "v")).unwrap();
    assert!(block_on(batch.get("k")).unwrap().is_some());
    assert!(block_on(bee.get("k")).unwrap().is_none());
    drop(batch);
    assert_eq!((bee.core().length(), bee.version()), (1, 1));
    assert!(block_on(bee.batch().get("k")).unwrap().is_none());
    block_on(bee.batch().flush()).unwrap();
    assert_eq!(bee.core().length(), 1);
}

#[test]
fn checkouts_are_read_only() {
    let bee = new_bee();
    block_on(bee.put("k", "v")).unwrap();
    let snapshot = bee.snapshot();
    assert!(matches!(
        block_on(snapshot.put("k", "w")),
        Err(BeeError::ReadOnly)
    ));
    assert!(matches!(
        block_on(snapshot.del("k")),
        Err(BeeError::ReadOnly)
    ));
}

#[test]
fn a_core_that_is_not_ours_is_read_only() {
    let key = new_bee().core().key();
    let reader = Bee::new(Corestore::memory().get(&key).unwrap(), Options::default());
    assert!(matches!(
        block_on(reader.put("k", "v")),
        Err(BeeError::ReadOnly)
    ));
    assert_eq!(block_on(reader.get("k")).unwrap(), None);
}

/// Blocks appended beside an open batch would be taken for its own: it refuses to flush.
#[test]
fn a_core_that_grew_meanwhile_is_a_conflict() {
    let bee = new_bee();
    let mut batch = bee.batch();
    block_on(batch.put("k", "v")).unwrap();
    bee.core().append("beside the bee").unwrap();
    assert!(matches!(block_on(batch.flush()), Err(BeeError::Conflict)));
    assert_eq!(bee.core().length(), 2);
}

/// Goal: two bees made apart over one core lose nothing and write no tree that misses the other's
/// keys. Method: threads put through bees of their own, the first of them into an empty core.
#[test]
fn bees_made_apart_over_one_core_lose_nothing() {
    let core = Corestore::memory().get_named("bee").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            let core = core.clone();
            scope.spawn(move || {
                let bee = Bee::new(core, Options::default());
                for key in 0..40u8 {
                    assert!(block_on(bee.put([key, thread], [thread])).unwrap());
                }
                assert!(block_on(bee.del([0, thread])).unwrap());
            });
        }
    });
    assert_eq!(core.length(), 1 + 3 * 41);
    let bee = Bee::new(core, Options::default());
    let mut range = bee.range(RangeOptions::default());
    for key in 1..40u8 {
        for thread in 0..3u8 {
            let entry = block_on(range.next()).unwrap().unwrap();
            assert_eq!(entry.key, [key, thread][..]);
        }
    }
    assert!(block_on(range.next()).unwrap().is_none());
}

/// A batch and a condition cannot be made again unasked: the later writer is told.
#[test]
fn a_batch_beside_another_bee_is_a_conflict() {
    let core = Corestore::memory().get_named("bee").unwrap();
    let [one, other] = [(); 2].map(|()| Bee::new(core.clone(), Options::default()));
    block_on(one.put("k", "v")).unwrap();
    let mut batch = one.batch();
    block_on(batch.put("k", "from the batch")).unwrap();
    block_on(other.put("k", "from the other")).unwrap();
    assert!(matches!(block_on(batch.flush()), Err(BeeError::Conflict)));
    let write_between = |_: &_| block_on(other.put("l", "w")).unwrap();
    let refused = block_on(one.put_if("k", "x", write_between));
    assert!(matches!(refused, Err(BeeError::Conflict)));
    let entry = block_on(one.get("k")).unwrap().unwrap();
    assert_eq!(entry.value.as_deref(), Some(&b"from the other"[..]));
    assert!(block_on(one.get("l")).unwrap().is_some());
}

/// Other blocks under the same numbers are not confused with those read before the truncation.
#[test]
fn a_truncated_bee_is_read_afresh() {
    let bee = new_bee();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        block_on(bee.put(key, value)).unwrap();
    }
    let without_cache = Bee::new(bee.core().clone(), Options::default());
    let mut range = without_cache.range(RangeOptions::default());
    assert!(block_on(range.next()).unwrap().is_some());
    bee.core().truncate(2, None).unwrap();
    assert!(matches!(block_on(range.next()), Err(BeeError::Truncated)));
    block_on(bee.put("b", "4")).unwrap();
    let entry = block_on(bee.get("b")).unwrap().unwrap();
    assert_eq!(entry.value.as_deref(), Some(&b"4"[..]));
    assert_eq!(block_on(bee.get("c")).unwrap(), None);
}

#[test]
fn conditions_are_asked_about_existing_entries_only() {
    let bee = new_bee();
    let never = |_: &_| -> bool { panic!("asked about an entry that is not there") };
    assert!(block_on(bee.put_if("k", "1", never)).unwrap());
    assert!(!block_on(bee.del_if("other", never)).unwrap());
    let is = |value: &'static str| {
        move |entry: &ferrocore_bee::Entry| entry.value.as_deref() == Some(value.as_bytes())
    };
    assert!(!block_on(bee.put_if("k", "2", is("2"))).unwrap());
    assert!(block_on(bee.put_if("k", "2", is("1"))).unwrap());
    assert!(!block_on(bee.del_if("k", is("1"))).unwrap());
    assert!(block_on(bee.del_if("k", is("2"))).unwrap());
    assert_eq!(block_on(bee.get("k")).unwrap(), None);
}

/// Hyperbee 2.27 finds this key again: the search ends in a node that its put wrote.
#[test]
fn a_deleted_key_stays_deleted() {
    let bee = new_bee();
    for key in ["0", "1", "2", "3", "5", "6", "7", "8", "4", "35"] {
        block_on(bee.put(key, "v")).unwrap();
    }
    block_on(bee.del("4")).unwrap();
    block_on(bee.put("15", "v")).unwrap();
    assert_eq!(block_on(bee.get("4")).unwrap(), None);
}

/// Within a batch a refused put makes the next block larger; the next batch is free of it.
#[test]
fn a_refused_put_leaves_nothing_to_the_next_batch() {
    let [plain, refused] = [false, true].map(|refuse| {
        let bee = new_bee();
        for key in 0..60u8 {
            block_on(bee.put([key], "v")).unwrap();
        }
        if refuse {
            assert!(!block_on(bee.put_if([0], "w", |_| false)).unwrap());
        }
        block_on(bee.put([59], "w")).unwrap();
        bee.core().tree_hash()
    });
    assert_eq!(plain, refused);
}

#[test]
fn futures_can_be_sent_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let bee = new_bee();
    is_send(&bee.get("k"));
    is_send(&bee.put("k", "v"));
    is_send(&bee.put_if("k", "v", |_| true));
    is_send(&bee.del("k"));
    is_send(&bee.range(RangeOptions::default()).next());
    is_send(&bee.batch());
}
