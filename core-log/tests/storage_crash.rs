//! Goal: whatever write a crash stops at, the state found afterwards is the one before or after
//! the change that was under way. Method: files in memory that refuse every write after the
//! n-th, for every n; then the same files without the limit.
#![cfg(feature = "files")]

mod rig;

use std::collections::HashMap;

use bytes::Bytes;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::storage::{BitWrite, BlockWrite, CoreWrite, Head, HeadWrite};
use ferrocore_log::{Core, CoreError, Durability, flat_tree};
use rig::{Contents, Disk, create, header, open};

/// One change of a core.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append(usize),
    Truncate(u64),
    Clear(u64, u64),
    UserData(usize),
    Flush,
}

/// Everything there is to know about a core.
type Snapshot = (u64, Vec<Option<Vec<u8>>>, Option<Vec<u8>>);

fn run(core: &Core, step: Step, number: usize) -> Result<(), CoreError> {
    let block = |i: usize| vec![number as u8; 1 + (number + i) % 7].into();
    match step {
        Step::Append(count) => core.append_batch((0..count).map(block).collect()).map(drop),
        Step::Truncate(length) => core.truncate(length, None).map(drop),
        Step::Clear(start, end) => core.clear(start..end),
        Step::UserData(size) => core.set_user_data("key", Some(&vec![number as u8; size])),
        Step::Flush => core.flush(),
    }
}

fn snapshot(core: &Core) -> Snapshot {
    let block = |i| core.get_local(i).unwrap().map(|block| block.to_vec());
    let blocks = (0..core.length()).map(block).collect();
    (core.fork(), blocks, core.user_data("key"))
}

/// A history with every kind of step in every neighbourhood, large batches included.
const STEPS: &[Step] = &[
    Step::Append(1),
    Step::Append(5),
    Step::Flush,
    Step::Append(3),
    Step::UserData(10),
    Step::Truncate(7),
    Step::Append(2),
    Step::Truncate(4),
    Step::Clear(1, 3),
    Step::Append(200),
    Step::Append(1),
    Step::UserData(5_000),
    Step::Flush,
    Step::UserData(6_000),
    Step::Truncate(100),
    Step::Append(150),
    Step::Append(2),
    Step::Clear(3, 90),
    Step::Flush,
    Step::Truncate(0),
    Step::Append(4),
];

#[test]
fn a_crash_at_any_write_leaves_the_state_before_or_after() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let (mut changes, mut finished) = (0, false);
        while !finished {
            finished = crash_after(changes, durability);
            changes += 1;
        }
        assert!(changes > STEPS.len(), "crashes were tried");
    }
}

/// Runs the history until the `changes`-th change of a file; whether all of it fitted.
fn crash_after(changes: usize, durability: Durability) -> bool {
    let disk = Disk::failing_after(HashMap::new(), changes);
    let Ok(core) = create(&disk, durability) else {
        let disk = Disk::new(disk.contents());
        let core = open(&disk, durability).unwrap();
        assert!(core.is_none_or(|core| core.length() == 0));
        return false;
    };
    let twin = create(&Disk::new(HashMap::new()), durability).unwrap();
    let (mut before, mut after) = (snapshot(&twin), snapshot(&twin));
    let mut finished = true;
    for (number, step) in STEPS.iter().enumerate() {
        run(&twin, *step, number).unwrap();
        (before, after) = (after, snapshot(&twin));
        if run(&core, *step, number).is_err() {
            assert!(core.append("refused").is_err(), "it is poisoned");
            finished = false;
            break;
        }
        before.clone_from(&after);
    }
    check_header_alone(disk.contents());
    let disk = Disk::new(disk.contents());
    let found = open(&disk, durability).unwrap().unwrap();
    let found_state = snapshot(&found);
    assert!(
        found_state == before || found_state == after,
        "after {changes} changes: {found_state:?} is neither {before:?} nor {after:?}"
    );
    check_goes_on(&disk, &found, durability);
    finished
}

/// Hypercore 10 looks for the roots that the header names before it reads the entries: so the
/// header must name a length whose roots are there, at any moment.
fn check_header_alone(mut files: Contents) {
    files.entry("oplog").or_default().truncate(8192);
    let disk = Disk::new(files);
    assert!(open(&disk, Durability::Buffered).unwrap().is_some());
}

/// The core that was found appends and truncates, and is the same when opened once more.
fn check_goes_on(disk: &Disk, found: &Core, durability: Durability) {
    let cut = found.length() / 2;
    found.append("more").unwrap();
    found.truncate(cut, None).unwrap();
    found.append("other").unwrap();
    let expected = snapshot(found);
    let copy = Disk::new(disk.contents());
    let again = open(&copy, durability).unwrap().unwrap();
    assert_eq!(snapshot(&again), expected);
}

/// Goal: a head that replaces history and brings a block with it keeps the order: at no moment
/// is an old block overwritten while the old head still counts.
#[test]
fn a_crash_amid_a_reorg_never_mixes_histories() {
    let (mut changes, mut finished) = (0, false);
    while !finished {
        finished = crash_amid_reorg(changes);
        changes += 1;
    }
    assert!(changes > 10, "crashes were tried");
}

/// The reorg turns `old 0..7` into `old 0..3, new 3..6` of which block 4 is brought along.
fn crash_amid_reorg(changes: usize) -> bool {
    let block = |tag: &str, i: usize| Bytes::from(format!("{tag} {i}"));
    let old: Vec<_> = (0..7).map(|i| block("old", i)).collect();
    let new: Vec<_> = (0..3)
        .map(|i| block("old", i))
        .chain((3..6).map(|i| block("new", i)))
        .collect();
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch(old.clone()).unwrap();
    core.flush().unwrap();
    let disk = Disk::failing_after(disk.contents(), changes);
    let core = header().key.discovery_key();
    let opened = FileCore::open(&core, disk.core_files(), Durability::Buffered);
    let Ok(Some(opened)) = opened else {
        return false;
    };
    let result = opened.storage.commit(reorg(&new), Durability::Buffered);
    let disk = Disk::new(disk.contents());
    let found = open(&disk, Durability::Buffered).unwrap().unwrap();
    let expected = if found.fork() == 0 { old } else { new };
    assert_eq!(found.length(), expected.len() as u64);
    for (expected, index) in expected.iter().zip(0..) {
        match found.get_local(index).unwrap() {
            Some(found) => assert_eq!(found, expected, "after {changes} changes"),
            None => assert!(found.fork() == 1 && index >= 3, "after {changes} changes"),
        }
    }
    assert!(result.is_err() || found.has(4));
    result.is_ok()
}

/// The change to `blocks`, from a history that shares the first 3 of 7, with block 4 brought.
fn reorg(blocks: &[Bytes]) -> CoreWrite {
    let (mut roots, mut nodes) = (Roots::default(), Vec::new());
    for (block, index) in blocks.iter().zip(0..) {
        let leaf = Node::leaf(index, block);
        nodes.push(leaf);
        roots.push(leaf, |parent| nodes.push(parent)).unwrap();
    }
    // A reader gets the nodes of the proof only; all of those above new blocks is the most.
    nodes.retain(|node| flat_tree::end_block(node.index) > 3);
    let byte_offset = blocks[..4].iter().map(|block| block.len() as u64).sum();
    CoreWrite {
        blocks: vec![BlockWrite {
            byte_offset,
            blocks: vec![blocks[4].clone()],
        }],
        nodes,
        bits: vec![
            BitWrite {
                range: 3..7,
                value: false,
            },
            BitWrite {
                range: 4..5,
                value: true,
            },
        ],
        head: Some(HeadWrite {
            head: Head {
                fork: 1,
                length: roots.length(),
                root_hash: roots.hash(),
                signature: Bytes::from_static(b"not checked by storage"),
            },
            ancestors: 3,
        }),
        ..CoreWrite::default()
    }
}
