//! Folders that do not fit a drive as they are, and files larger than memory should hold.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ferrocore_interop_tests::folder::{self, Snapshot};

use crate::live::{Shared, Stage, get};

#[test]
fn names_a_drive_cannot_carry_are_reported_and_never_collide() {
    // Goal: nothing is renamed, joined or lost in silence. Method: what arrives is a part of what
    // was there, equal; what is missing was reported, one report a file.
    let stage = Stage::new();
    let (source, target) = (stage.path("source"), stage.path("target"));
    folder::write(
        &source,
        "back/slash",
        b"the file that `back\\slash` must not become",
    );
    folder::write(
        &source,
        "in a drive",
        b"the file that `c:/in a drive` must not become",
    );
    let mangled = folder::write_mangled_names(&source);
    let not_utf8 = folder::write_non_utf8_names(&source);
    let sharer = stage.fcore("store");
    let mut run = sharer.start(["share".as_ref(), source.as_os_str(), "--once".as_ref()]);
    run.wait_ready();
    let reported = run
        .terminate()
        .expect_code(8)
        .events
        .iter()
        .filter(|event| event["event"] == "skipped")
        .count();

    let shared = Shared::start(&sharer, &source);
    stage
        .fcore("reader")
        .run(get(&shared.key, &target, shared.port, &[]))
        .expect_code(0);
    let arrived = Snapshot::of(&target);
    let paths: BTreeSet<PathBuf> = arrived.entries().keys().cloned().collect();
    let before = Snapshot::of(&source);
    let missing = before
        .entries()
        .keys()
        .filter(|path| !paths.contains(*path))
        .count();
    assert!(not_utf8.iter().all(|path| !paths.contains(path)));
    assert_eq!(
        missing, reported,
        "arrived: {paths:?}, of which mangled by JS: {mangled:?}"
    );
    before
        .without(|path| !paths.contains(path))
        .assert_same(&arrived);
}

#[test]
fn a_sparse_file_of_3_gib_arrives() {
    // Goal: no file is held in memory, offsets beyond 32 bits are right. Method: sizes and marks.
    const SIZE: u64 = 3 << 30;
    let stage = Stage::new();
    let (source, target) = (stage.path("source"), stage.path("target"));
    std::fs::create_dir(&source).unwrap();
    folder::write_sparse(&source.join("sparse"), SIZE);
    let shared = Shared::start(&stage.fcore("store"), &source);
    stage
        .fcore("reader")
        .run(get(&shared.key, &target, shared.port, &[]))
        .expect_code(0);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}
