//! Goal: a writer whose store was brought back, or copied, does not sign a second history of its log.
//! Method: two connections on virtual time, one of which knows more than the writer.

use std::time::Duration;

use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::core::BROKEN_CLAIMS_MAX;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::{Core, CoreError, Corestore, StoreOptions};

/// Longer than any request waits.
const LONG: Duration = Duration::from_secs(600);

const SECRET: [u8; 32] = [7; 32];

fn store(memory: Memory) -> Corestore {
    Corestore::with_storage(memory, StoreOptions::default()).unwrap()
}

/// A store that writes the same named cores as every other one made here.
fn copied() -> (Corestore, Core) {
    let store = store(Memory::with_root_secret(SECRET));
    let core = store.get_named("log").unwrap();
    (store, core)
}

fn restored() -> (Corestore, Core) {
    let store = store(Memory::restored(SECRET));
    let core = store.get_named("log").unwrap();
    (store, core)
}

fn connect(here: &Corestore, core: &Core, there: &Corestore) -> Pair {
    let mut pair = Pair::new(here, there);
    pair.a.connection.attach(core);
    pair.drive();
    pair
}

#[track_caller]
fn assert_unconfirmed(core: &Core) {
    let refused = core.append("too early");
    assert!(
        matches!(refused, Err(CoreError::Unconfirmed { .. })),
        "{refused:?}"
    );
    let refused = core.truncate(0, None);
    assert!(
        matches!(refused, Err(CoreError::Unconfirmed { .. })),
        "{refused:?}"
    );
    assert!(core.is_guarded() && core.is_writable());
}

#[test]
fn a_restored_writer_appends_once_a_reader_has_shown_its_log() {
    for cut in [false, true] {
        let (here, before) = copied();
        before.append_batch(blocks(40)).unwrap();
        if cut {
            before.truncate(33, None).unwrap();
        }
        let readers = Corestore::memory();
        let reader = readers.get(&before.key()).unwrap();
        let all = reader.download_all();
        drop(connect(&readers, &reader, &here));
        assert_complete_copy(&before, &reader);
        drop((here, before));

        let (back, core) = restored();
        assert_eq!(core.key(), reader.key());
        assert_unconfirmed(&core);
        let mut pair = connect(&back, &core, &readers);
        assert!(!core.is_guarded());
        assert_eq!(
            (core.fork(), core.tree_hash()),
            (reader.fork(), reader.tree_hash())
        );
        core.append("goes on").unwrap();
        pair.drive();
        assert_eq!(reader.length(), core.length());
        assert_eq!(
            reader.get_local(core.length() - 1).unwrap().unwrap(),
            "goes on"
        );
        assert_eq!(pair.b.stats().proofs_refused, 0);
        drop(all);
        // And it stays free.
        drop((core, pair));
        assert!(!back.get_named("log").unwrap().is_guarded());
    }
}

#[test]
fn a_reader_with_nothing_confirms_nothing() {
    let (back, core) = restored();
    let readers = Corestore::memory();
    let _reader = readers.get(&core.key()).unwrap();
    let mut pair = connect(&back, &core, &readers);
    pair.pass(LONG);
    assert_unconfirmed(&core);
    drop((core, pair));
    let core = back.get_named("log").unwrap();
    assert_unconfirmed(&core);
    core.lift_guard().unwrap();
    core.append("first").unwrap();
}

/// Goal: whoever has imported a secret into a store that reads the core is not freed by a reader that
/// has everything from that very store.
#[test]
fn an_echo_confirms_nothing() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(9));
    let all = reader.download_all();
    drop(connect(&there, &reader, &here));
    let (key, manifest) = (writer.key(), writer.manifest());
    let secret = here.core_secret(&key.discovery_key()).unwrap().unwrap();
    drop((all, reader));
    let core = there
        .import_secret(&key, manifest, &secret.key_pair)
        .unwrap();
    assert_unconfirmed(&core);
    let others = Corestore::memory();
    let echo = others.get(&key).unwrap();
    let _all = echo.download_all();
    let mut pair = connect(&others, &echo, &there);
    pair.pass(LONG);
    assert_complete_copy(&core, &echo);
    assert_unconfirmed(&core);
    drop(pair);
    drop(connect(&there, &core, &here));
    core.append("imported").unwrap();
    assert_eq!(core.length(), 10);
}

/// Goal: whoever has imported a secret is freed by a peer that proves to have as much, or less, and not by one that
/// only says so. Method: proofs are lost on the way, or not.
#[test]
fn what_a_peer_says_frees_nobody_what_it_proves_does() {
    for (length, is_lost) in [(9, true), (9, false), (5, true), (5, false), (1, false)] {
        let (here, writer, there, reader) = writer_and_reader(&blocks(length));
        drop(connect(&there, &reader, &here));
        writer
            .append_batch(vec!["more".into(); 9 - length])
            .unwrap();
        let (key, manifest) = (writer.key(), writer.manifest());
        let secret = here.core_secret(&key.discovery_key()).unwrap().unwrap();
        let store = Corestore::memory();
        let before = store.get(&key).unwrap();
        let all = before.download_all();
        drop(connect(&store, &before, &here));
        drop((all, before));
        let core = store
            .import_secret(&key, manifest, &secret.key_pair)
            .unwrap();
        assert_eq!(core.length(), 9);
        assert_unconfirmed(&core);

        let mut pair = Pair::new(&store, &there);
        pair.a.connection.attach(&core);
        while pair.a.stats().requests_sent == 0 {
            assert!(pair.step());
            assert_unconfirmed(&core);
        }
        if is_lost {
            (0..8).for_each(|_| {
                pair.a.arriving.clear();
                pair.step();
            });
            pair.a.arriving.clear();
            assert_eq!(reader.length(), length as u64);
            pair.now += LONG;
            pair.a.step(pair.now).unwrap();
            assert_unconfirmed(&core);
            continue;
        }
        pair.drive();
        assert!(!core.is_guarded(), "{length}");
        core.append("goes on").unwrap();
    }
}

/// Goal: of two copies of a store, the one that is behind stops as soon as it hears of it, and goes on
/// behind what the other has signed.
#[test]
fn a_copy_that_is_behind_stops_until_it_has_caught_up() {
    for cut in [false, true] {
        let ((here, ahead), (there, behind)) = (copied(), copied());
        ahead.append_batch(blocks(10)).unwrap();
        drop(connect(&there, &behind, &here));
        assert_eq!(behind.length(), 10);
        ahead.append("more").unwrap();
        if cut {
            ahead.truncate(3, None).unwrap();
        }
        let mut pair = Pair::new(&here, &there);
        pair.b.connection.attach(&behind);
        let stopped =
            |core: &Core| matches!(core.append_batch(vec![]), Err(CoreError::Behind { .. }));
        let heard = (0..1000).find(|_| !pair.step() || stopped(&behind));
        assert!(heard.is_some() && stopped(&behind), "cut: {cut}");
        assert!(matches!(
            behind.truncate(0, None),
            Err(CoreError::Behind { .. })
        ));
        pair.drive();
        assert_eq!(
            (behind.fork(), behind.tree_hash()),
            (ahead.fork(), ahead.tree_hash())
        );
        behind.append("behind").unwrap();
        pair.drive();
        assert_eq!(ahead.tree_hash(), behind.tree_hash());
        ahead.append("ahead").unwrap();
        pair.drive();
        assert_eq!(ahead.tree_hash(), behind.tree_hash());
        let refused = pair.a.stats().proofs_refused + pair.b.stats().proofs_refused;
        assert_eq!(refused, 0);
    }
}

/// Goal: a peer that claims more and does not prove it stops a writer for the time of a request, and after
/// a few such claims not at all. Method: the line is cut once the claim is here.
#[test]
fn claims_that_are_not_proven_stop_nobody_for_long() {
    let ((here, ahead), (there, behind)) = (copied(), copied());
    ahead.append_batch(blocks(10)).unwrap();
    for time in 0..=BROKEN_CLAIMS_MAX {
        let mut pair = Pair::new(&here, &there);
        pair.b.connection.attach(&behind);
        let stopped = || matches!(behind.append_batch(vec![]), Err(CoreError::Behind { .. }));
        let mut was_stopped = false;
        for _ in 0..8 {
            pair.step();
            was_stopped |= stopped();
            if was_stopped {
                pair.b.arriving.clear();
            }
        }
        assert_eq!(was_stopped, time < BROKEN_CLAIMS_MAX, "claim {time}");
        pair.now += LONG;
        pair.b.step(pair.now).unwrap();
        assert!(!stopped());
        if time < BROKEN_CLAIMS_MAX {
            assert_eq!(behind.length(), 0);
        }
    }
    behind.append(Bytes::from("its own way")).unwrap();
}
