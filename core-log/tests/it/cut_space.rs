//! Goal: what a truncate gives up takes no space any more: here, in a draft, at a reader that follows, and after a kill or a power cut
//! in between; and nothing that is kept goes with it.
//! Method: what the file system says of real files; each change of files in memory, with a kill or a power cut after it.
#![cfg(feature = "files")]

use std::path::Path;

use crate::rig::power::{Scene, each_moment};
use crate::rig::proofs::{block_proof, follow, upgrade};
use crate::rig::rng::Rng;
use crate::rig::{Change, Contents, Disk, What, create, open, open_unverified};
use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::storage::StorageError;
use ferrocore_log::{Core, CoreError, Corestore, Durability, StoreOptions};

const BOTH: [Durability; 2] = [Durability::Buffered, Durability::Sync];
const BLOCKS: u64 = 7;
/// How many of them are kept.
const KEPT: u64 = 3;
const NODE_BYTES: usize = 40;

fn block(index: u64, size: usize) -> Bytes {
    Bytes::from(vec![index as u8 + 1; size])
}

fn blocks(size: usize) -> Vec<Bytes> {
    (0..BLOCKS).map(|index| block(index, size)).collect()
}

fn store(directory: &Path, durability: Durability) -> Corestore {
    let options = StoreOptions {
        durability,
        ..StoreOptions::default()
    };
    Corestore::open(directory, options).unwrap()
}

/// What the core takes on the disk, all of it in its place.
#[cfg(target_os = "linux")]
fn taken(store: &Corestore, core: &Core) -> u64 {
    core.flush().unwrap();
    store.disk_bytes(&core.discovery_key()).unwrap()
}

#[cfg(target_os = "linux")]
const BLOCK_BYTES: usize = 256 << 10;
/// Beside blocks: other files, and what is more of a page.
#[cfg(target_os = "linux")]
const OTHER_BYTES: u64 = 128 << 10;

#[cfg(target_os = "linux")]
fn takes_no_more_than(blocks: u64, taken: u64) {
    let bytes = blocks * BLOCK_BYTES as u64;
    assert!(
        (bytes..bytes + OTHER_BYTES).contains(&taken),
        "{taken} bytes for {blocks} blocks"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_writer_and_its_draft_give_back_what_is_cut_off() {
    for durability in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let of_store = store(directory.path(), durability);
        let core = of_store.get_named("log").unwrap();
        core.append_batch(blocks(BLOCK_BYTES)).unwrap();
        let old = core.snapshot();
        takes_no_more_than(BLOCKS, taken(&of_store, &core));
        core.truncate(KEPT, None).unwrap();
        takes_no_more_than(KEPT, taken(&of_store, &core));
        let gone = old.get_local(KEPT);
        assert!(matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })));

        core.append_batch(vec![block(9, BLOCK_BYTES); 2]).unwrap();
        let draft = core.draft("draft").unwrap();
        draft.append_batch(blocks(BLOCK_BYTES)).unwrap();
        takes_no_more_than(KEPT + 2 + BLOCKS, taken(&of_store, &core));
        draft.truncate(KEPT + 3).unwrap();
        takes_no_more_than(KEPT + 3, taken(&of_store, &core));
        drop((old, draft, core, of_store));

        let of_store = store(directory.path(), durability);
        let core = of_store.get_named("log").unwrap();
        let draft = core.draft("draft").unwrap();
        for index in 0..KEPT {
            let kept = core.get_local(index).unwrap();
            assert_eq!(kept, Some(block(index, BLOCK_BYTES)));
        }
        for index in KEPT..KEPT + 2 {
            let newer = core.get_local(index).unwrap();
            assert_eq!(newer, Some(block(9, BLOCK_BYTES)));
        }
        let own = draft.get_local(KEPT + 2).unwrap();
        assert_eq!(own, Some(block(0, BLOCK_BYTES)));
        takes_no_more_than(KEPT + 3, taken(&of_store, &core));
        assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
    }
}

/// Goal: a reader that holds some blocks gives back what the histories do not share, as far as it looked for that, and takes the
/// new blocks.
#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_follows_gives_back_what_is_cut_off() {
    for (durability, levels) in BOTH.into_iter().flat_map(|d| [(d, 0), (d, usize::MAX)]) {
        let writer = Corestore::memory().get_named("log").unwrap();
        writer.append_batch(blocks(BLOCK_BYTES)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let of_store = store(directory.path(), durability);
        let reader = of_store.get(&writer.key()).unwrap();
        upgrade(&reader, &writer);
        for index in [1, 2, 3, 5, 6] {
            reader.accept(block_proof(&reader, &writer, index)).unwrap();
        }
        takes_no_more_than(5, taken(&of_store, &reader));
        writer.truncate(KEPT, None).unwrap();
        let newer = vec![block(9, BLOCK_BYTES); 4];
        writer.append_batch(newer).unwrap();
        assert!(follow(&reader, &writer, levels).unwrap());
        let kept = reader.count(0..reader.length());
        assert_eq!(kept, if levels == 0 { 0 } else { 2 });
        takes_no_more_than(kept, taken(&of_store, &reader));
        drop((reader, of_store));

        let of_store = store(directory.path(), durability);
        let reader = of_store.get(&writer.key()).unwrap();
        takes_no_more_than(kept, taken(&of_store, &reader));
        for index in 0..writer.length() {
            if !reader.has(index) {
                reader.accept(block_proof(&reader, &writer, index)).unwrap();
            }
            let expected = writer.get_local(index).unwrap();
            assert_eq!(reader.get_local(index).unwrap(), expected);
        }
    }
}

/// A cut of the core in the files, change by change.
struct Cut {
    start: Contents,
    changes: Vec<Change>,
}

const SMALL: usize = 50;

/// A core of all the blocks, flushed.
fn whole() -> (Disk, Core) {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch(blocks(SMALL)).unwrap();
    core.flush().unwrap();
    (disk, core)
}

fn cut(durability: Durability, by: impl FnOnce(&Core)) -> Cut {
    let start = whole().0.contents();
    let disk = Disk::new(start.clone());
    let core = open(&disk, durability).unwrap().unwrap();
    by(&core);
    assert_eq!(core.fork(), 1);
    let changes = disk.changes();
    Cut { start, changes }
}

fn by_writer(durability: Durability) -> Cut {
    cut(durability, |core| {
        core.truncate(KEPT, None).unwrap();
    })
}

/// The new history is longer than what is shared.
fn by_reader(durability: Durability) -> Cut {
    cut(durability, |core| {
        let (_, source) = whole();
        source.truncate(KEPT, None).unwrap();
        source
            .append_batch(vec![block(9, SMALL); BLOCKS as usize])
            .unwrap();
        follow(core, &source, usize::MAX).unwrap();
    })
}

/// One in so many openings is cut, too.
const AGAIN_ONE_IN: usize = 4;

/// Goal: wherever a kill or a power cut comes amid a cut, or amid the opening after it, what is kept is there, and what is not is
/// gone with the old history, or all is there with that.
#[test]
fn a_crash_in_between_leaves_nothing_behind() {
    let kept = KEPT * SMALL as u64;
    for (durability, seed) in BOTH.into_iter().zip(0..) {
        for cut in [by_writer(durability), by_reader(durability)] {
            let mut rng = Rng::new(seed);
            let mut forks = [0, 0];
            each_moment(&cut.start, &cut.changes, seed, |device, at, losses| {
                for loss in losses {
                    let _scene = Scene(format!("after {at} changes, {loss:?}"));
                    let files = device.after(*loss, &mut rng);
                    let disk = Disk::new(files.clone());
                    let fork = check(&disk, durability, kept);
                    forks[fork as usize] += 1;
                    if !rng.one_in(AGAIN_ONE_IN) {
                        continue;
                    }
                    each_moment(&files, &disk.changes(), seed, |device, at, losses| {
                        let loss = losses[rng.below(losses.len())];
                        let _scene = Scene(format!("then after {at}, {loss:?}"));
                        let disk = Disk::new(device.after(loss, &mut rng));
                        assert!(check(&disk, durability, kept) >= fork);
                    });
                }
            });
            assert!(forks.iter().all(|count| *count > 0), "{forks:?}");
        }
    }
}

/// Opens the core, which is cut or is not, and says which fork it is at.
fn check(disk: &Disk, durability: Durability, kept: u64) -> u64 {
    let core = open(disk, durability).unwrap().unwrap();
    let (length, bytes) = match core.fork() {
        0 => (BLOCKS, BLOCKS * SMALL as u64),
        _ => (KEPT, kept),
    };
    assert_eq!(core.count(0..core.length()), length);
    for index in 0..length {
        let found = core.get_local(index).unwrap();
        assert_eq!(found, Some(block(index, SMALL)));
    }
    assert_eq!(disk.len_of("data"), bytes, "at fork {}", core.fork());
    core.fork()
}

/// Goal: a root that was damaged after a kill amid a truncate makes nobody free blocks that are kept; the audit that mends it
/// does what the kill kept from being done.
#[test]
fn by_a_damaged_root_nothing_is_freed() {
    let cut = by_writer(Durability::Buffered);
    let is_free =
        |change: &Change| matches!((change.file, &change.what), ("data", What::SetLen(_)));
    let entry = cut.changes.iter().position(is_free).unwrap();
    let disk = Disk::new(cut.start);
    let made = &cut.changes[..entry];
    made.iter().for_each(|change| disk.apply(change));
    let mut files = disk.contents();
    files.get_mut("tree").unwrap().edit(|tree| {
        let size = &mut tree[NODE_BYTES..][..8]; // of blocks 0 and 1
        assert_eq!(u64::from_le_bytes(size.try_into().unwrap()), 100);
        size[0] = 10;
    });
    let disk = Disk::new(files.clone());
    let refused = open(&disk, Durability::Buffered).unwrap_err();
    assert!(matches!(refused, StorageError::Corrupt { .. }), "{refused}");
    assert_eq!(disk.len_of("data"), BLOCKS * SMALL as u64);

    let disk = Disk::new(files);
    let core = open_unverified(&disk, Durability::Buffered);
    let report = core.audit(Mode::Repair, |_| {}).unwrap();
    assert_eq!((report.bad, report.mendable), (1, 1));
    drop(core);
    assert_eq!(check(&disk, Durability::Buffered, KEPT * SMALL as u64), 1);
}
