//! Goal: a core whose roots are damaged does not open by itself, but an audit names them, and writes anew what the
//! signature vouches for; of what it does not, nothing is touched.
//! Method: cores on files in memory, whose tree is damaged while nobody has them open.
#![cfg(feature = "files")]

use crate::audit::{BLOCKS, NODE_BYTES, audit, block, byte_offset, repair, written};
use crate::rig::proofs::{block_proof, upgrade};
use crate::rig::workload::Snapshot;
use crate::rig::{
    Contents, Disk, apply, create, create_from, header, is_about_roots, open, open_unverified,
};
use bytes::Bytes;
use ferrocore_log::audit::{Damage, Mode};
use ferrocore_log::{
    Core, CoreError, Corestore, Durability, StorageError, StoreError, StoreOptions,
};
use ferrocore_primitives::keys::Key;
use std::path::PathBuf;

const ROOTS: [usize; 3] = [7, 17, 20];

fn damage(files: &mut Contents, damage: impl FnOnce(&mut Vec<u8>)) {
    files.get_mut("tree").unwrap().edit(damage);
}

/// Removes these nodes.
fn remove(files: &mut Contents, nodes: &[usize]) {
    damage(files, |tree| {
        for node in nodes {
            tree[node * NODE_BYTES..(node + 1) * NODE_BYTES].fill(0);
        }
    });
}

/// The core opens by itself and has all its blocks.
fn check_whole(disk: &Disk) {
    let core = open(disk, Durability::Buffered).unwrap().unwrap();
    assert_eq!(audit(&core, Mode::DryRun).1, []);
    (0..BLOCKS).for_each(|i| assert_eq!(core.get_local(i).unwrap(), Some(block(i))));
    core.append("goes on").unwrap();
}

fn nodes(indexes: &[usize]) -> Vec<(Damage, bool)> {
    let named = |index: &usize| (Damage::Node(*index as u64), true);
    indexes.iter().map(named).collect()
}

/// Opens it for an audit, which is to name these nodes, and checks that a dry run changes nothing and a repair
/// whatever it takes.
fn mend(files: Contents, expected: &[usize]) {
    let refused = open(&Disk::new(files.clone()), Durability::Buffered);
    assert!(is_about_roots(&refused.unwrap_err()));
    let disk = Disk::new(files);
    let core = open_unverified(&disk, Durability::Buffered);
    assert!(!core.is_writable());
    assert_eq!(audit(&core, Mode::DryRun).1, nodes(expected));
    core.flush().unwrap();
    drop(core);
    assert_eq!(disk.now(), 0, "a dry run changed something");
    let core = open_unverified(&disk, Durability::Buffered);
    assert_eq!(repair(&core), nodes(expected));
    let killed = disk.contents();
    drop(core);
    check_whole(&disk);
    check_whole(&Disk::new(killed));
}

#[test]
fn roots_that_are_wrong_are_named_and_made_anew() {
    for root in ROOTS {
        for at in 0..NODE_BYTES {
            let mut files = written();
            damage(&mut files, |tree| tree[root * NODE_BYTES + at] ^= 1);
            mend(files, &[root]);
        }
    }
    let mut files = written();
    damage(&mut files, |tree| {
        ROOTS
            .iter()
            .for_each(|root| tree[root * NODE_BYTES + 9] ^= 1);
    });
    mend(files, &ROOTS);
}

#[test]
fn roots_that_are_missing_are_made_anew() {
    for root in ROOTS {
        let mut files = written();
        remove(&mut files, &[root]);
        mend(files, &[root]);
    }
    let mut files = written();
    remove(&mut files, &ROOTS);
    mend(files, &ROOTS);
}

/// Goal: all that is above the leaves may be gone, or wrong as deep as it goes.
#[test]
fn roots_are_made_of_what_is_deep_below_them() {
    let mut files = written();
    remove(&mut files, &[1, 3, 5, 7, 9, 11, 13, 17]);
    mend(files, &[7, 17, 3, 11, 1, 5, 9, 13]);
    let mut files = written();
    damage(&mut files, |tree| {
        for (node, at) in [(7, 9), (11, 0), (9, 30), (20, 8)] {
            tree[node * NODE_BYTES + at] ^= 0x10;
        }
    });
    mend(files, &[7, 20, 11, 9]);
}

/// Goal: a head that is in the journal names no root hash; it is the signature that tells, and the header that is written
/// later names what it holds for.
#[test]
fn a_root_below_a_journaled_head_is_made_anew() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..4).map(block).collect()).unwrap();
    core.flush().unwrap();
    core.append_batch((4..BLOCKS).map(block).collect()).unwrap();
    core.truncate(6, None).unwrap();
    core.append_batch((6..BLOCKS - 2).map(block).collect())
        .unwrap();
    core.flush().unwrap();
    core.append_batch((BLOCKS - 2..BLOCKS).map(block).collect())
        .unwrap();
    let mut files = disk.contents();
    damage(&mut files, |tree| tree[7 * NODE_BYTES + 9] ^= 1);
    let disk = Disk::new(files);
    let core = open_unverified(&disk, Durability::Buffered);
    assert_eq!(audit(&core, Mode::DryRun).1, nodes(&[7]));
    drop(core); // and with it the journal goes into its place
    let refused = open(&disk, Durability::Buffered);
    assert!(is_about_roots(&refused.unwrap_err()));
    let core = open_unverified(&disk, Durability::Buffered);
    assert_eq!(repair(&core), nodes(&[7]));
    drop(core);
    check_whole(&disk);
}

/// Goal: whoever is refused a core whose head is in the journal, and one of whose roots is damaged, writes no header that names roots
/// which nobody signed: the core opens as it was once that root is what it was, as if its files come from a backup. Also where
/// the journal cuts the log, at each moment.
#[test]
fn a_refused_opening_leaves_a_journaled_head_in_the_journal() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let disk = Disk::new(Contents::new());
        let core = create(&disk, durability).unwrap();
        core.append_batch((0..8).map(block).collect()).unwrap();
        core.flush().unwrap();
        core.append_batch((8..BLOCKS).map(block).collect()).unwrap();
        let (mut files, appended) = (disk.contents(), disk.now());
        core.truncate(6, None).unwrap();
        let mut refused = [0, 0];
        for change in disk.changes().split_off(appended) {
            let whole = open(&Disk::new(files.clone()), durability).unwrap();
            let whole = Snapshot::of(&whole.unwrap()).unwrap();
            let flip = |files: &mut Contents, root| {
                damage(files, |tree| tree[root * NODE_BYTES + 9] ^= 1);
            };
            for root in [3, 7, 9] {
                let mut damaged = files.clone();
                flip(&mut damaged, root);
                let disk = Disk::new(damaged);
                let Err(error) = open(&disk, durability) else {
                    continue;
                };
                assert!(is_about_roots(&error), "{error}");
                refused[usize::from(whole.fork > 0)] += 1;
                let mut mended = disk.contents();
                flip(&mut mended, root);
                let core = open(&Disk::new(mended), durability).unwrap();
                assert_eq!(Snapshot::of(&core.unwrap()).unwrap(), whole, "root {root}");
            }
            apply(&mut files, &change);
        }
        assert!(refused[0] > 0 && refused[1] > 5, "{refused:?}");
    }
}

/// Goal: where nothing proves a root, the head is named, and the root if no other can be the wrong one. Nothing is
/// changed: not even a header is written, which would have to name roots that nobody signed.
#[test]
fn a_root_of_which_too_little_is_left_is_named_and_not_touched() {
    let mut files = written();
    damage(&mut files, |tree| tree[20 * NODE_BYTES + 9] ^= 1);
    let data = files.get_mut("data").unwrap();
    data.edit(|data| data[byte_offset(10)] ^= 1);
    check_beyond_repair(files, &[Damage::Node(20), Damage::Block(10)]);

    let mut files = written();
    remove(&mut files, &[7, 3, 1, 0]);
    check_beyond_repair(files, &[Damage::Node(7)]);

    // A head that is in the journal, as above.
    let disk = Disk::new(written());
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    core.append("journaled").unwrap();
    let mut files = disk.contents();
    remove(&mut files, &[7, 3, 1, 0]);
    check_beyond_repair(files, &[Damage::Node(7)]);
}

/// Beside the head, this damage is named, and nothing is done about it.
fn check_beyond_repair(files: Contents, damage: &[Damage]) {
    let disk = Disk::new(files.clone());
    let core = open_unverified(&disk, Durability::Buffered);
    for mode in [Mode::DryRun, Mode::Repair] {
        let (report, found) = audit(&core, mode);
        let expected = [Damage::Head].iter().chain(damage);
        let expected: Vec<_> = expected.map(|damage| (damage.clone(), false)).collect();
        assert_eq!((report.mendable, found), (0, expected));
    }
    core.flush().unwrap();
    drop(core);
    assert_eq!(disk.now(), 0, "it was changed");
    let refused = open(&disk, Durability::Buffered);
    assert!(is_about_roots(&refused.unwrap_err()));
}

/// A reader of a sound core that has these blocks of it, as its files.
pub(crate) fn reader_of(blocks: &[u64]) -> Contents {
    let source = open(&Disk::new(written()), Durability::Buffered);
    let source = source.unwrap().unwrap();
    let disk = Disk::new(Contents::new());
    let mut unknown = header();
    unknown.manifest = None;
    let reader = create_from(&disk, unknown, Durability::Buffered).unwrap();
    upgrade(&reader, &source);
    for index in blocks {
        let proof = block_proof(&reader, &source, *index);
        reader.accept(proof).unwrap();
    }
    drop(reader);
    disk.contents()
}

/// Goal: of a reader's core, a root below which something came is made anew as well; one below which nothing came is named.
#[test]
fn a_readers_root_is_made_anew_if_something_came_below_it() {
    let mut files = reader_of(&[2]);
    damage(&mut files, |tree| tree[7 * NODE_BYTES + 9] ^= 1);
    let disk = Disk::new(files);
    let core = open_unverified(&disk, Durability::Buffered);
    assert_eq!(repair(&core), nodes(&[7]));
    drop(core);
    let core: Core = open(&disk, Durability::Buffered).unwrap().unwrap();
    assert_eq!(core.get_local(2).unwrap(), Some(block(2)));

    let mut files = reader_of(&[2, 9, 10]);
    damage(&mut files, |tree| tree[17 * NODE_BYTES + 9] ^= 1);
    let disk = Disk::new(files);
    let core = open_unverified(&disk, Durability::Buffered);
    assert_eq!(repair(&core), nodes(&[17]));
    drop(core);

    let mut files = reader_of(&[9, 10]);
    damage(&mut files, |tree| tree[7 * NODE_BYTES + 9] ^= 1);
    check_beyond_repair(files, &[Damage::Node(7)]);
}

/// A store with a log whose root is damaged, the log's key, and its tree.
fn store_with_damage() -> (tempfile::TempDir, Key, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("log").unwrap();
    core.append_batch((0..BLOCKS).map(block).collect()).unwrap();
    let (key, name) = (core.key(), core.discovery_key().to_string());
    drop((core, store));
    let path = format!("corestore/cores/{}/{}/{name}/tree", &name[..2], &name[2..4]);
    let path = directory.path().join(path);
    let mut tree = std::fs::read(&path).unwrap();
    tree[7 * NODE_BYTES + 9] ^= 1;
    std::fs::write(&path, &tree).unwrap();
    (directory, key, path)
}

/// Goal: who only reads is told of a log whose root is damaged, by its name; an audit names the root, and the blocks can be saved,
/// but nothing is mended.
#[test]
fn who_only_reads_names_a_damaged_root() {
    let (directory, key, tree) = store_with_damage();
    let before = std::fs::read(&tree).unwrap();
    let options = StoreOptions {
        read_only: true,
        ..StoreOptions::default()
    };
    let store = Corestore::open(directory.path(), options).unwrap();
    let refused = store.get(&key).unwrap_err();
    let core = key.discovery_key();
    assert!(
        matches!(&refused, StoreError::Storage(StorageError::Corrupt { core: named, part: "tree", .. }) if *named == core),
        "{refused}"
    );
    let core = store.danger_get_unverified(&key).unwrap().unwrap();
    assert_eq!(audit(&core, Mode::DryRun).1, nodes(&[7]));
    (0..BLOCKS).for_each(|i| assert_eq!(core.get_local(i).unwrap(), Some(block(i))));
    let repaired = core.audit(Mode::Repair, |_| {}).unwrap_err();
    assert!(
        matches!(repaired, CoreError::Storage(StorageError::ReadOnly { .. })),
        "{repaired}"
    );
    drop(core);
    store.get(&key).unwrap_err();
    assert_eq!(std::fs::read(&tree).unwrap(), before);
}

/// Goal: a store refuses a log whose root is damaged, gives it to who asks to audit it, and to nobody else meanwhile; once it is
/// mended, to everybody, as what it was.
#[test]
fn a_store_gives_a_damaged_log_to_an_audit() {
    let (directory, key, _) = store_with_damage();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    store.get(&key).unwrap_err();
    let core = store.danger_get_unverified(&key).unwrap().unwrap();
    store.get(&key).unwrap_err();
    core.append("nothing").unwrap_err();
    core.set_user_data("key", Some(b"nothing")).unwrap_err();
    assert_eq!(repair(&core), nodes(&[7]));
    drop(core);
    let core = store.get_named("log").unwrap();
    assert!(core.is_writable());
    assert_eq!(audit(&core, Mode::DryRun).1, []);
    let again = store.danger_get_unverified(&key).unwrap().unwrap();
    again.append("the same, which is whole").unwrap();
    assert_eq!(core.length(), BLOCKS + 1);
    let other = Corestore::memory().get_named("other").unwrap().key();
    assert!(store.danger_get_unverified(&other).unwrap().is_none());
}

/// Goal: a root that is the leaf of the log's last block is found by that block. How long the block is, the end of the data
/// tells, also where a longer log was cut.
#[test]
fn the_only_block_of_a_log_is_its_root() {
    for (len, cut) in [(0, false), (1, false), (70_000, false), (5, true)] {
        let disk = Disk::new(Contents::new());
        let core = create(&disk, Durability::Buffered).unwrap();
        let only = Bytes::from(vec![7; len]);
        core.append(only.clone()).unwrap();
        if cut {
            core.append("cut off").unwrap();
            core.truncate(1, None).unwrap();
        }
        drop(core);
        for at in 0..NODE_BYTES {
            let mut files = disk.contents();
            damage(&mut files, |tree| tree[at] ^= 2);
            let disk = Disk::new(files);
            let core = open_unverified(&disk, Durability::Buffered);
            assert_eq!(repair(&core), nodes(&[0]), "byte {at} of {len}");
            drop(core);
            let core = open(&disk, Durability::Buffered).unwrap().unwrap();
            assert_eq!(core.get_local(0).unwrap().as_ref(), Some(&only));
        }
    }
}
