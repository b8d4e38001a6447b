//! Goal: hypercore 10 (through Corestore 6) and ferrocore write the same core by turns, and neither
//! loses or invents a block; and where the format leaves no choice both write the same bytes.
//!
//! Method: random histories of appends, truncates, clears and user data. In one kind of test they
//! take turns on one directory, everything compared with a plain list of blocks after each turn; in
//! the other each does the whole history alone, and their files are compared. `FERROCORE_HISTORIES`
//! says how many; a failure prints the seed, which `FERROCORE_SEED` takes. What is known to differ
//! stands in `exceptions.json`, and must go on to differ.
#![cfg(unix)]

mod model;
mod ours;
mod rounds;
mod theirs;

use std::path::Path;

use crate::exceptions::Exceptions;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_interop_tests::rng::Rng;
use ferrocore_log::{Corestore, StorageError, StoreError, StoreOptions};
use serde_json::json;

use model::{Kind, Model, Step};
use ours::Ours;
use rounds::rounds;
use theirs::Theirs;

/// Histories of each kind of test.
const HISTORIES: usize = 24;
/// Turns of one history, and steps of one turn at most.
const TURNS: usize = 6;
const STEPS_MAX: usize = 8;

const ROOT_SECRET: [u8; 32] = [0x5a; 32];

#[test]
fn node_and_ferrocore_take_turns() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = node(scratch.path());
    let mut exceptions = Exceptions::read("state");
    rounds(HISTORIES, |seed| {
        let mut rng = Rng::new(seed);
        let directory = tempfile::tempdir_in(scratch.path()).unwrap();
        let kind = *rng.pick(&Kind::ALL);
        let mut model = Model::default();
        let mut is_ours = rng.one_in(2);
        let key = create(directory.path(), kind, is_ours, &mut node);
        for _ in 0..TURNS {
            let steps: Vec<_> = (0..=rng.index(STEPS_MAX))
                .map(|_| model.step(&mut rng))
                .collect();
            let by_key = rng.one_in(2).then_some(key.as_str());
            match is_ours {
                true => ours_takes_a_turn(directory.path(), kind, by_key, &steps, &model),
                false => theirs_takes_a_turn(
                    (&mut node, directory.path(), kind, by_key),
                    &steps,
                    &model,
                    rng.one_in(3),
                    &mut exceptions,
                ),
            }
            is_ours = !is_ours;
        }
        ours_takes_a_turn(directory.path(), kind, None, &[], &model);
        let theirs = (&mut node, directory.path(), kind, None);
        theirs_takes_a_turn(theirs, &[], &model, true, &mut exceptions);
    });
}

#[test]
fn both_write_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = node(scratch.path());
    let mut exceptions = Exceptions::read("bytes");
    let mut states = Exceptions::read("state");
    let done = rounds(HISTORIES, |seed| {
        let mut rng = Rng::new(seed);
        let kind = *rng.pick(&Kind::ALL);
        let here = tempfile::tempdir_in(scratch.path()).unwrap();
        let there = tempfile::tempdir_in(scratch.path()).unwrap();
        let ours_key = create(here.path(), kind, true, &mut node);
        let theirs_key = create(there.path(), kind, false, &mut node);
        assert_eq!(ours_key, theirs_key, "names derive the same keys");
        let mut model = Model::default();
        for _ in 0..TURNS {
            let steps: Vec<_> = (0..=rng.index(STEPS_MAX))
                .map(|_| model.step(&mut rng))
                .collect();
            ours_takes_a_turn(here.path(), kind, None, &steps, &model);
            let theirs = (&mut node, there.path(), kind, None);
            theirs_takes_a_turn(theirs, &steps, &model, true, &mut states);
            compare(here.path(), there.path(), &model, &mut exceptions);
        }
    });
    if done >= HISTORIES {
        exceptions.check(); // in one history alone not every difference shows
    }
}

/// Goal: a store that one side has open is refused to the other until it is closed.
#[test]
fn a_store_that_one_side_has_open_is_refused_to_the_other() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = node(scratch.path());
    let directory = tempfile::tempdir_in(scratch.path()).unwrap();
    let directory = directory.path();
    let key = create(directory, Kind::Compat, true, &mut node);
    let open = json!({ "directory": directory.join("corestore"), "key": key });

    node.call("open", open.clone());
    let refused = Corestore::open(directory, StoreOptions::default());
    let is_locked =
        |error: &StoreError| matches!(error, StoreError::Storage(StorageError::Locked { .. }));
    assert!(
        refused.as_ref().is_err_and(is_locked),
        "{:?}",
        refused.err()
    );
    node.call("shut", json!({}));

    let ours = Ours::open(directory, Kind::Compat, None);
    let call = node.begin("open", open.clone());
    let refused = node.try_finish(&call).unwrap_err();
    assert!(refused.to_lowercase().contains("lock"), "{refused}");
    drop(ours);
    let opened = node.call("open", open);
    assert_eq!(opened["writable"], true);
}

/// Goal: hypercore 10 goes on from a header with our mark, which says that the contiguous length is exact: only
/// a core of a page of the bitfield and more has one. Method: turns at the edge of that page.
#[test]
fn node_goes_on_from_a_header_that_we_marked() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = node(scratch.path());
    let mut exceptions = Exceptions::read("state");
    for kind in [Kind::Compat, Kind::V1] {
        let directory = tempfile::tempdir_in(scratch.path()).unwrap();
        let directory = directory.path();
        let key = create(directory, kind, true, &mut node);
        assert!(!is_marked(directory), "it is empty");
        let mut model = Model::default();
        let blocks = |from: u32, to: u32| (from..to).map(|i| i.to_le_bytes()[..3].to_vec());
        let many = [model.append_blocks(blocks(0, 40_000).collect())];
        ours_takes_a_turn(directory, kind, None, &many, &model);
        assert!(is_marked(directory));

        let steps = [
            model.append_blocks(blocks(40_000, 40_003).collect()),
            model.truncate(32_770),
            model.append_blocks(blocks(0, 5).collect()),
        ];
        let theirs = (&mut node, directory, kind, Some(key.as_str()));
        theirs_takes_a_turn(theirs, &steps, &model, true, &mut exceptions);

        let steps = [
            model.append_blocks(blocks(7, 9).collect()),
            model.clear(32_769, 32_771),
        ];
        ours_takes_a_turn(directory, kind, None, &steps, &model);
        assert!(is_marked(directory), "there are 32,769 without a gap");
        let steps = [
            model.clear(32_766, 32_768),
            model.append_blocks(blocks(1, 3).collect()),
        ];
        let theirs = (&mut node, directory, kind, None);
        theirs_takes_a_turn(theirs, &steps, &model, true, &mut exceptions);
        ours_takes_a_turn(directory, kind, Some(&key), &[], &model);
    }
}

/// Whether a header slot of the one core in the store ends with our mark (`header.rs` of core-log).
fn is_marked(store: &Path) -> bool {
    let oplog = std::fs::read(core_directory(store).join("oplog")).unwrap();
    let slots = oplog.chunks(4_096).take(2);
    slots.filter(|slot| slot.len() > 8).any(|slot| {
        let len = u32::from_le_bytes(slot[4..8].try_into().unwrap()) >> 2;
        let payload = slot.get(8..8 + len as usize);
        payload.is_some_and(|payload| payload.ends_with(&[0xfc, 0x01]))
    })
}

/// What one of the two cannot do, and the histories therefore leave out.
#[test]
fn calls_that_differ_are_known() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = node(scratch.path());
    let mut exceptions = Exceptions::read("calls");
    let empty_and_cleared = [Step::Append(vec![vec![], vec![1]]), Step::Clear(0, 1)];
    create(scratch.path(), Kind::V1, true, &mut node);
    let ours = Ours::open(scratch.path(), Kind::V1, None);
    empty_and_cleared.iter().for_each(|step| ours.run(step));
    drop(ours);
    let mut theirs = Theirs::open(&mut node, scratch.path(), Kind::V1, None);
    if theirs.try_run(&empty_and_cleared).is_err() {
        exceptions.meet("clear: theirs cannot clear empty blocks");
    }
    theirs.close(false);
    exceptions.check();
}

/// What the histories meet now and then, and let pass.
#[test]
fn states_that_differ_are_known() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = node(scratch.path());
    let mut exceptions = Exceptions::read("state");
    create(scratch.path(), Kind::V1, false, &mut node);
    let mut model = Model::default();
    // Node writes out the first step, and journals the second.
    let steps = [model.append_blocks(vec![vec![1]; 5]), model.clear(1, 2)];
    let mut theirs = Theirs::open(&mut node, scratch.path(), Kind::V1, None);
    theirs.run(&steps);
    theirs.close(false);
    Theirs::open(&mut node, scratch.path(), Kind::V1, None).check(&model, &mut exceptions);
    exceptions.check();
}

fn node(scratch: &Path) -> Peer {
    Peer::start(Tree::Legacy, Role::Stores, &scratch.join("unused"))
}

/// Makes the store and the core in it, and returns the core's key.
fn create(directory: &Path, kind: Kind, is_ours: bool, node: &mut Peer) -> String {
    let corestore = directory.join("corestore");
    std::fs::create_dir_all(&corestore).unwrap();
    std::fs::write(corestore.join("primary-key"), ROOT_SECRET).unwrap();
    match is_ours {
        true => Ours::open(directory, kind, None).key(),
        false => {
            let theirs = Theirs::open(node, directory, kind, None);
            let key = theirs.key();
            theirs.close(false);
            key
        }
    }
}

fn ours_takes_a_turn(
    directory: &Path,
    kind: Kind,
    key: Option<&str>,
    steps: &[Step],
    after: &Model,
) {
    let core = Ours::open(directory, kind, key);
    steps.iter().for_each(|step| core.run(step));
    core.check(after);
    drop(core);
    Ours::open(directory, kind, key).check(after);
}

fn theirs_takes_a_turn(
    (node, directory, kind, key): (&mut Peer, &Path, Kind, Option<&str>),
    steps: &[Step],
    after: &Model,
    flush: bool,
    exceptions: &mut Exceptions,
) {
    let mut core = Theirs::open(node, directory, kind, key);
    core.run(steps);
    core.check(after, exceptions);
    core.close(flush);
    let mut core = Theirs::open(node, directory, kind, key);
    core.check(after, exceptions);
    core.close(false);
}

/// Compares the files of the one core in each store.
fn compare(here: &Path, there: &Path, model: &Model, exceptions: &mut Exceptions) {
    for file in ["tree", "bitfield", "data", "oplog", "header"] {
        let [ours, theirs] = [here, there].map(|store| {
            let path = core_directory(store).join(file);
            std::fs::read(path).unwrap_or_default()
        });
        for difference in model.differences(file, &ours, &theirs) {
            exceptions.meet(difference);
        }
    }
}

fn core_directory(store: &Path) -> std::path::PathBuf {
    let mut path = store.join("corestore/cores");
    for _ in 0..3 {
        let mut entries = std::fs::read_dir(&path).unwrap();
        path = entries.next().expect("one core").unwrap().path();
    }
    path
}
