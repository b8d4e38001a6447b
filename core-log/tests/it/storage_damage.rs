//! Goal: whatever is flipped, swapped, zeroed or cut off in a core's files, and whichever of them is gone, opening and
//! using it never panics, and never yields a block that was not appended. The core is as it was, or the error names it
//! and the part; only damage to the journal's tail, which a power cut may leave as well, takes back what is in that:
//! in synced mode damage to the last entry, for each but that tells that those before it had reached the device.
//! Method: in either mode, random damage to files with every feature, `FERROCORE_DAMAGES` times; a failure prints
//! the seed, which `FERROCORE_SEED` takes.
#![cfg(feature = "files")]

use crate::rig::proofs::block_proof;
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::{Contents, Disk, create, header, open};
use std::ops::Range;

use bytes::Bytes;
use ferrocore_log::audit::{Damage, Mode, Step};
use ferrocore_log::storage::StorageError;
use ferrocore_log::{Core, CoreError, Durability};

const DAMAGES: usize = 10_000;
/// Blocks of the log.
const LENGTH: u64 = 60;
/// So many were flushed.
const FLUSHED: u64 = 50;
/// Those that are not here.
const CLEARED: Range<u64> = 3..6;

#[test]
fn damage_is_told_or_does_no_harm() {
    let blocks: Vec<_> = (0..LENGTH as u8).map(block).collect();
    let modes = [Durability::Buffered, Durability::Sync];
    let histories = modes.map(|durability| history(durability, &blocks));
    let (mut told, mut harmless) = (0, 0);
    rounds(from_env("FERROCORE_DAMAGES", DAMAGES), |seed| {
        let mut rng = Rng::new(seed);
        let mode = rng.below(2);
        let (durability, history) = (modes[mode], &histories[mode]);
        let mut files = history.contents.clone();
        let damages = 1 + rng.below(2);
        (0..damages).for_each(|_| damage(&mut files, &mut rng));
        let is_tail_whole = history.is_tail_whole(&files, durability);
        match open(&Disk::new(files), durability) {
            Err(error) => {
                check_told(&error);
                told += 1;
            }
            Ok(found) => {
                let core = found.expect("it is damaged, not gone");
                harmless += 1;
                check_state(&core, is_tail_whole);
                let missing = check_blocks(&core, &blocks);
                // Of two, one may hide a block and the other spoil what would show that it was here.
                if damages == 1 {
                    check_missing(&core, &missing);
                }
                check_goes_on(&core, &history.source);
            }
        }
        1
    });
    println!("{told} told at once, {harmless} while reading or never");
    assert!(told > 0 && harmless > 0);
}

/// The error says which core is damaged, or which file.
fn check_told(error: &StorageError) {
    let names_it = match error {
        StorageError::Corrupt { core, .. } => *core == header().key.discovery_key(),
        StorageError::UnknownFormat { path, .. } => path.starts_with("memory"),
        _ => false,
    };
    assert!(names_it, "{error}");
}

/// No state from before the last flush is found, and none but the last one while its journal, or in synced mode the
/// last entry of that, is whole.
fn check_state(core: &Core, is_tail_whole: bool) {
    let length = core.length();
    assert!(
        length == LENGTH || !is_tail_whole && length >= FLUSHED,
        "{length} blocks"
    );
    assert_eq!(core.fork(), 1);
    assert!(core.user_data("long") == Some(vec![7; 5_000]), "user data");
}

fn block(i: u8) -> Bytes {
    Bytes::from(vec![i + 1; 1 + usize::from(i) * 7 % 90])
}

/// Files of a core that was flushed, and written to since.
struct History {
    contents: Contents,
    /// The same log, undamaged and with all its blocks.
    source: Core,
    /// Where the last entry of the journal begins.
    last_entry: usize,
}

impl History {
    /// Whether what tells of the last state is as it was: in buffered mode every entry, in synced mode the last one.
    fn is_tail_whole(&self, files: &Contents, durability: Durability) -> bool {
        let start = match durability {
            Durability::Buffered => 8192,
            Durability::Sync => self.last_entry,
        };
        let tail = |files: &Contents| Some(files.get("oplog")?.to_vec().get(start..)?.to_vec());
        let found = tail(files).filter(|found| !found.is_empty());
        found.is_some() && found == tail(&self.contents)
    }
}

fn source(blocks: &[Bytes]) -> Core {
    let core = create(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
    core.append_batch(blocks[..40].to_vec()).unwrap();
    core.truncate(30, None).unwrap();
    core.append_batch(blocks[30..].to_vec()).unwrap();
    core
}

fn history(durability: Durability, blocks: &[Bytes]) -> History {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, durability).unwrap();
    core.append_batch(blocks[..40].to_vec()).unwrap();
    core.truncate(30, None).unwrap();
    core.append_batch(blocks[30..FLUSHED as usize].to_vec())
        .unwrap();
    core.set_user_data("long", Some(&[7; 5_000])).unwrap();
    core.clear(CLEARED).unwrap();
    core.flush().unwrap();
    let (first, rest) = blocks[FLUSHED as usize..].split_at(9);
    for block in first {
        core.append(block.clone()).unwrap();
    }
    // Whoever goes on after a kill vouches for what was there as well: here nobody else does for the last entry before it.
    let disk = Disk::new(disk.contents());
    let core = open(&disk, durability).unwrap().unwrap();
    let mut last_entry = 0;
    for block in rest {
        last_entry = disk.contents()["oplog"].len();
        core.append(block.clone()).unwrap();
    }
    let contents = disk.contents();
    History {
        contents,
        source: source(blocks),
        last_entry,
    }
}

/// Flips a bit, overwrites, swaps or moves a few bytes, cuts, empties or removes a file, or zeroes a slot for a header.
fn damage(files: &mut Contents, rng: &mut Rng) {
    let names = ["oplog", "tree", "bitfield", "data", "header"];
    let name = names[rng.below(names.len())];
    match rng.below(20) {
        0 => drop(files.remove(name)),
        1 => {
            let slot = 4096 * rng.below(2);
            let oplog = files.entry("oplog").or_default();
            oplog.edit(|oplog| {
                let (start, end) = (slot.min(oplog.len()), (slot + 4096).min(oplog.len()));
                oplog[start..end].fill(0);
            });
        }
        2 => files.entry(name).or_default().truncate(0),
        _ => damage_bytes(files, name, rng),
    }
}

fn damage_bytes(files: &mut Contents, name: &str, rng: &mut Rng) {
    if let Some(file) = files.get_mut(name).filter(|file| !file.is_empty()) {
        file.edit(|bytes| damage_file(bytes, rng));
    }
}

fn damage_file(file: &mut Vec<u8>, rng: &mut Rng) {
    let at = place(file, rng);
    let other = place(file, rng);
    match rng.below(8) {
        0 => file.truncate(at),
        1 => file.swap(at, other),
        2 => {
            let len = rng.below(64).min(file.len() - at.max(other));
            let bytes = file[at..at + len].to_vec();
            file.copy_within(other..other + len, at);
            file[other..other + len].copy_from_slice(&bytes);
        }
        3 => {
            let len = rng.below(512).min(file.len() - at);
            file[at..at + len].fill(0);
        }
        _ => file[at] ^= 1 << rng.below(8),
    }
}

/// A place that is likely to matter.
fn place(file: &[u8], rng: &mut Rng) -> usize {
    let start = rng.below(file.len());
    let found = file[start..].iter().position(|byte| *byte != 0);
    start + found.unwrap_or_default()
}

/// Who looks at the core as a whole is told of blocks that are gone without having been cleared.
fn check_missing(core: &Core, missing: &[u64]) {
    let mut found = Vec::new();
    let report = core.audit(Mode::DryRun, |step| {
        if let Step::Found { damage, .. } = step {
            found.push(damage.clone());
        }
    });
    if report.is_err() || found.iter().any(Damage::is_bad) {
        return;
    }
    for index in missing.iter().filter(|index| !CLEARED.contains(index)) {
        assert!(
            found.contains(&Damage::Unmarked(*index)),
            "block {index} is gone: {found:?}"
        );
    }
}

/// Every block is the one appended, missing, or an error that names it. Tells which are missing.
fn check_blocks(core: &Core, blocks: &[Bytes]) -> Vec<u64> {
    assert!(core.length() <= blocks.len() as u64);
    assert!(core.fork() <= 1, "fork {}", core.fork());
    let mut missing = Vec::new();
    for (index, block) in (0..core.length()).zip(blocks) {
        match core.get_local(index) {
            Ok(Some(found)) => assert_eq!(found, block),
            Ok(None) => missing.push(index),
            Err(CoreError::CorruptBlock { index: told, .. }) => assert_eq!(told, index),
            Err(CoreError::Storage(error)) => check_told(&error),
            Err(error) => panic!("block {index}: {error}"),
        }
    }
    missing
}

/// Whatever is called next does not panic, what comes is there and is what it was, and what was there before and is not given up stays.
fn check_goes_on(core: &Core, source: &Core) {
    let mut kept: Vec<u64> = (0..core.length()).filter(|i| is_read(core, *i)).collect();
    for index in CLEARED {
        // The second time it comes with its whole path.
        let comes = || {
            let accepted = core.accept(block_proof(core, source, index));
            accepted.is_ok_and(|accepted| accepted.blocks == [index])
        };
        if core.missing_nodes(2 * index).is_ok() && (comes() || comes()) {
            let block = core.get_local(index).unwrap();
            assert_eq!(block, source.get_local(index).unwrap(), "block {index}");
            kept.push(index);
        }
        check_kept(core, &kept, "a block was fetched");
    }
    let range = 10..19;
    if core.clear(range.clone()).is_ok() {
        kept.retain(|index| !range.contains(index));
    }
    check_kept(core, &kept, "blocks were cleared");
    if core.truncate(core.length() / 2, None).is_ok() {
        kept.retain(|index| *index < core.length());
    }
    check_kept(core, &kept, "the log was cut");
    if core.append("goes on").is_ok() {
        let last = core.length() - 1;
        assert_eq!(core.get_local(last).unwrap().unwrap(), "goes on");
    }
    check_kept(core, &kept, "a block was appended");
}

fn is_read(core: &Core, index: u64) -> bool {
    matches!(core.get_local(index), Ok(Some(_)))
}

/// These blocks are still read, or are once an audit has mended the tree: two nodes that are wrong may have told what is right, and one of
/// them was brought anew. That none is another one is seen by its hash.
fn check_kept(core: &Core, kept: &[u64], after: &str) {
    let gone = || -> Vec<u64> {
        kept.iter()
            .copied()
            .filter(|i| !is_read(core, *i))
            .collect()
    };
    if !gone().is_empty() {
        core.audit(Mode::Repair, |_| {}).unwrap();
    }
    assert!(gone().is_empty(), "{:?} are gone since {after}", gone());
}
