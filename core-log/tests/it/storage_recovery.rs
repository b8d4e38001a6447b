//! Goal: whatever is cut from or flipped in a core's files, opening it never panics, never
//! invents a block, and never forgets what was acknowledged before the damage.
#![cfg(feature = "files")]

use crate::rig::power::{Device, Loss, Scene, losses};
use crate::rig::rng::Rng;
use crate::rig::workload::{WIDE_LENGTHS, wide};
use crate::rig::{Change, Contents, Disk, What, create, open};
use bytes::Bytes;
use ferrocore_log::bitfield::PAGE_BITS;
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::storage::StorageError;
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::{Core, Durability};
use ferrocore_primitives::encoding::put_uint;
use proptest::prelude::*;

fn block(index: u64) -> Bytes {
    Bytes::from(vec![index as u8 + 1; 1 + index as usize % 9])
}

/// Goal: a cut behind a commit keeps the commit, a cut within a header is told: there is no older state, and never
/// none, which would make way for another history.
#[test]
fn an_oplog_cut_anywhere_keeps_what_came_before() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append(block(0)).unwrap();
    core.append(block(1)).unwrap();
    core.flush().unwrap();
    let mut commits = vec![(disk.len_of("oplog"), 2)];
    for index in 2..8 {
        core.append(block(index)).unwrap();
        commits.push((disk.len_of("oplog"), index + 1));
    }
    let whole = disk.contents();
    for cut in 0..=whole["oplog"].len() {
        let mut files = whole.clone();
        files.entry("oplog").or_default().truncate(cut);
        let disk = Disk::new(files);
        let acknowledged = commits.iter().rev().find(|(end, _)| *end <= cut as u64);
        let Some((_, length)) = acknowledged else {
            // Within the headers: the newer one may be whole.
            match open(&disk, Durability::Buffered) {
                Ok(found) => assert_eq!(found.unwrap().length(), 2, "cut at {cut}"),
                Err(error) => check_told(&error, &format!("cut at {cut}")),
            }
            continue;
        };
        let core = open(&disk, Durability::Buffered).unwrap().unwrap();
        assert_eq!(core.length(), *length, "cut at {cut}");
        let kept = (0..*length).map(|i| core.get_local(i).unwrap().unwrap());
        assert!(kept.eq((0..*length).map(block)), "cut at {cut}");
        core.append("goes on").unwrap();
    }
}

/// An error that says that the oplog is damaged.
fn check_told(error: &StorageError, damage: &str) {
    let is_told = matches!(error, StorageError::Corrupt { part: "oplog", .. });
    assert!(is_told, "{damage}: {error}");
}

/// Goal: a header that reads as zeros, as a sector of a failing disk does, is never a silent return to the one before.
/// Method: a log that is flushed after each append; either slot is zeroed, in whole or up to the sector's end.
#[test]
fn a_header_of_zeros_rolls_nothing_back() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    for length in 1..6 {
        core.append(block(length - 1)).unwrap();
        core.flush().unwrap();
        for (start, end) in [(0, 4096), (4096, 8192), (0, 512), (4096, 4096 + 512)] {
            let mut files = disk.contents();
            let oplog = files.get_mut("oplog").unwrap();
            oplog.edit(|oplog| oplog[start..end].fill(0));
            let damaged = Disk::new(files);
            match open(&damaged, Durability::Buffered) {
                Ok(found) => assert_eq!(found.unwrap().length(), length),
                Err(error) => {
                    check_told(&error, &format!("{length} blocks, {start}..{end}"));
                    assert_eq!(damaged.now(), 0, "what is refused stays as it is");
                }
            }
        }
    }
}

/// Goal: a core that was created and not yet flushed opens after a kill at any moment, also amid a change whose nodes
/// go to `tree` at once; and what a power cut leaves of one that was being created may be created again.
#[test]
fn a_cut_before_the_first_flush_is_no_damage() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = Disk::new(Contents::new());
        let core = create(&disk, durability).unwrap();
        core.append(block(0)).unwrap();
        core.append_batch(vec![Bytes::from_static(b"x"); 300])
            .unwrap();
        core.append(block(1)).unwrap();
        core.flush().unwrap();
        drop(core);
        let (mut device, mut rng) = (Device::new(Contents::new()), Rng::new(1));
        for (at, change) in disk.changes().iter().enumerate() {
            device.advance(change);
            for loss in losses(device.pending(), &mut rng) {
                let _scene = Scene(format!("{durability:?}, after change {at}, {loss:?}"));
                let disk = Disk::new(device.after(loss, &mut rng));
                match open(&disk, durability) {
                    Ok(Some(core)) => drop(core.append("goes on").unwrap()),
                    Ok(None) => drop(create(&disk, durability).unwrap().append("y").unwrap()),
                    // Only the part behind its headers is left of the oplog; as it never was on the device.
                    Err(error) => {
                        check_told(&error, "created and cut");
                        assert!(durability == Durability::Buffered && disk.len_of("tree") == 0);
                    }
                }
            }
        }
    }
}

/// Goal: a header that a killed process had only written is on the device before any entry behind it: should a power cut keep the
/// entry alone, it would tell of a header that was damaged, and the core would not open any more.
/// Method: the first change is so large that it begins with the second header. The process is killed after each of its writes,
/// the core is opened again and goes on, and the power is cut after each write of that.
#[test]
fn no_entry_outlives_the_header_before_it() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = Disk::new(Contents::new());
        let core = create(&disk, durability).unwrap();
        let (start, before) = (disk.contents(), disk.now());
        let many = vec![Bytes::from_static(b"x"); 300];
        core.append_batch(many).unwrap();
        let (mut device, mut rng) = (Device::new(start), Rng::new(1));
        for (at, change) in disk.changes().iter().skip(before).enumerate() {
            device.advance(change);
            let mut killed = device.left(Loss::Nothing, &mut rng);
            let disk = Disk::new(killed.contents());
            let core = open(&disk, durability).unwrap().unwrap();
            core.append("after the kill").unwrap();
            for (then, change) in disk.changes().iter().enumerate() {
                killed.advance(change);
                let _scene = Scene(format!("{durability:?}, killed at {at}, cut at {then}"));
                for _ in 0..10 {
                    let left = Disk::new(killed.after(Loss::Random, &mut rng));
                    drop(open(&left, durability).unwrap().unwrap());
                }
            }
        }
    }
}

/// Goal: a core that is created where another one was left in part has nothing of it: no node of the other history
/// vouches for a block. Method: the files of a log without its oplog; a reader is created in them.
#[test]
fn a_new_core_has_nothing_of_what_was_there() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..9).map(block).collect()).unwrap();
    core.set_user_data("long", Some(&[7; 5_000])).unwrap();
    core.flush().unwrap();
    let mut files = disk.contents();
    files.remove("oplog");
    let disk = Disk::new(files.clone());
    let core = create(&disk, Durability::Buffered).unwrap();
    let (mut device, mut rng) = (Device::new(files), Rng::new(1));
    let changes = disk.changes();
    changes.iter().for_each(|change| device.advance(change));
    let cut = device.after(Loss::Everything, &mut rng);
    assert_eq!(cut["tree"].len(), 0, "nor after a power cut");
    for name in ["tree", "bitfield", "data", "header"] {
        assert_eq!(disk.len_of(name), 0, "{name}");
    }
    core.append("y").unwrap();
    assert_eq!((core.length(), core.fork(), core.count(0..9)), (1, 0, 1));
}

/// Goal: what one power cut took does not come back with the next. The first takes an entry and keeps the one
/// behind it; recovery cuts that off, and an entry of the same length as the lost one is written; the second
/// cut takes all changes of lengths that no sync covered.
#[test]
fn an_entry_behind_a_lost_one_never_counts_again() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append(block(0)).unwrap();
    core.flush().unwrap();
    let lost = disk.len_of("oplog") as usize;
    core.append(block(1)).unwrap();
    let kept = disk.len_of("oplog") as usize;
    core.set_user_data("key", Some(b"of a lost history"))
        .unwrap();
    let mut files = disk.contents();
    files.get_mut("oplog").unwrap().punch(lost..kept);

    let disk = Disk::new(files.clone());
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    assert_eq!((core.length(), core.user_data("key")), (1, None));
    core.append(Bytes::from(vec![9; block(1).len()])).unwrap();
    assert_eq!(disk.len_of("oplog") as usize, kept);
    for (at, change) in disk.changes().iter().enumerate() {
        let later = &disk.changes()[at..];
        let is_synced = |sync: &Change| sync.file == change.file && matches!(sync.what, What::Sync);
        if !matches!(change.what, What::SetLen(_)) || later.iter().any(is_synced) {
            crate::rig::apply(&mut files, change);
        }
    }

    let core = open(&Disk::new(files), Durability::Buffered)
        .unwrap()
        .unwrap();
    assert_eq!((core.length(), core.user_data("key")), (2, None));
}

/// Goal: no flipped bit makes a block that was not appended.
#[test]
fn flipped_bits_are_told_or_do_no_harm() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    for index in 0..6 {
        core.append(block(index)).unwrap();
    }
    core.set_user_data("long", Some(&[7; 5000])).unwrap();
    core.flush().unwrap();
    core.append_batch(vec![block(6), block(7)]).unwrap();
    core.append(block(8)).unwrap();
    let whole = disk.contents();
    let (mut told, mut harmless) = (0, 0);
    for (name, bytes) in &whole {
        let bytes = bytes.to_vec();
        let interesting = bytes.iter().enumerate();
        let interesting = interesting.filter(|(at, byte)| **byte != 0 || at % 61 == 0);
        for (at, _) in interesting {
            let mut files = whole.clone();
            let file = files.entry(name).or_default();
            file.edit(|bytes| bytes[at] ^= 1 << (at % 8));
            match open(&Disk::new(files), Durability::Buffered) {
                Err(StorageError::Corrupt { .. } | StorageError::UnknownFormat { .. }) => told += 1,
                found => {
                    let damage = format!("{name} byte {at}");
                    let core = found.unwrap().expect(&damage);
                    // Of the journal's tail a power cut could have left as much.
                    let in_tail = *name == "oplog" && at >= 8192;
                    assert!(
                        core.length() == 9 || in_tail && core.length() >= 6,
                        "{damage}"
                    );
                    check_blocks(&core, &damage);
                    harmless += 1;
                }
            }
        }
    }
    assert!(
        told > 100 && harmless > 100,
        "{told} told, {harmless} harmless"
    );
}

/// Every block is the one appended, missing, or an error.
fn check_blocks(core: &Core, damage: &str) {
    assert!(core.length() <= 9, "{damage}");
    for index in 0..core.length() {
        if let Ok(Some(found)) = core.get_local(index) {
            assert_eq!(found, block(index), "{damage}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: files of random content, which are no core, are told to be none or refused, and nothing panics.
    #[test]
    fn any_files_open_or_fail(
        oplog in proptest::collection::vec(any::<u8>(), 0..9000),
        tree in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let disk = Disk::new(Contents::from([("oplog", oplog.into()), ("tree", tree.into())]));
        let found = open(&disk, Durability::Buffered);
        prop_assert!(found.is_err() || found.unwrap().is_none());
    }
}

/// Goal: a peek tells what an open would, and leaves the files as they are.
#[test]
fn a_peek_changes_nothing() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..9).map(block).collect()).unwrap();
    core.flush().unwrap();
    core.append(block(9)).unwrap();
    let mut files = disk.contents();
    let oplog = files.entry("oplog").or_default();
    oplog.write(oplog.len(), b"torn");
    let killed = Disk::new(files.clone());
    let header = FileCore::peek(&core.discovery_key(), || Ok(Some(killed.core_files())));
    assert_eq!(header.unwrap().unwrap().head.length, 10);
    assert_eq!(killed.contents(), files);
}

/// Goal: who hands us a directory chooses what its journal says. That a log is endless, and all of it here,
/// takes no more than what there is of it.
#[test]
fn bits_that_no_node_backs_are_not_made() {
    const LENGTH: u64 = 1 << 52;
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..5).map(block).collect()).unwrap();
    core.flush().unwrap();
    let core_key = core.discovery_key();
    drop(core);
    let mut files = disk.contents();
    let oplog = files.get_mut("oplog").unwrap();
    oplog.edit(|oplog| {
        let entry = endless_entry(LENGTH, (oplog[4] ^ oplog[4096 + 4]) & 1);
        oplog.extend(entry);
    });
    let disk = Disk::new(files);
    // Nobody signed it, but that is looked at later.
    let opened = FileCore::open(&core_key, disk.core_files(), Durability::Buffered);
    let opened = opened.unwrap().unwrap();
    assert_eq!(opened.header.head.length, LENGTH);
    assert!(opened.bitfield.get(4));
    assert!(opened.bitfield.count(0..LENGTH) <= 4 * PAGE_BITS);
    let read = FileCore::open_read_only(&core_key, || Ok(Some(disk.core_files())));
    let read = read.unwrap().unwrap();
    assert!(read.bitfield.count(0..LENGTH) <= 4 * PAGE_BITS);
    assert_eq!(read.storage.still_has(4).unwrap(), Some(true));
    assert!(
        open(&disk, Durability::Buffered).is_err(),
        "nobody signed it"
    );
}

/// An entry by which a log of `length` blocks, a power of two, is here, under header bit `bit`.
fn endless_entry(length: u64, bit: u8) -> Vec<u8> {
    let (nodes, upgrade, bits) = (2, 4, 8);
    let mut payload = vec![nodes | upgrade | bits];
    payload.push(1);
    put_uint(&mut payload, length - 1);
    put_uint(&mut payload, 100);
    payload.extend([9; 32]);
    payload.extend([0, 5]); // the fork, and what stays
    put_uint(&mut payload, length);
    payload.push(64);
    payload.extend([9; 64]);
    payload.extend([0, 0]); // set, from the first
    put_uint(&mut payload, length);
    let info = (payload.len() as u32) << 2 | u32::from(bit);
    let info = info.to_le_bytes();
    let checked = [&info, payload.as_slice()].concat();
    [&crc32fast::hash(&checked).to_le_bytes(), checked.as_slice()].concat()
}

/// Goal: how many blocks are here without a gap is right after any cut of the power, though a header tells it
/// and pages of the bitfield are read when they are looked at. Method: a core of three pages, changed at the
/// edges of pages and before; the files as they may be found after each change of them.
#[test]
fn no_gap_is_forgotten_in_a_core_of_several_pages() {
    const LENGTH: u64 = 2 * PAGE_BITS + 500;
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch(vec![Bytes::from_static(b"x"); LENGTH as usize])
        .unwrap();
    core.flush().unwrap();
    assert_eq!(check_gaps(&disk.contents(), Durability::Buffered), LENGTH);
    let files = disk.contents();
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = Disk::new(files.clone());
        let core = open(&disk, durability).unwrap().unwrap();
        let expect = |length| {
            let found = check_gaps(&disk.contents(), durability);
            assert_eq!((core.contiguous_length(), found), (length, length));
        };
        let block = NodeRequest { index: 7, nodes: 0 };
        let request = ProofRequest {
            block: Some(block),
            ..ProofRequest::default()
        };
        let proof = core.prove(&request).unwrap().unwrap();
        core.clear(7..8).unwrap();
        expect(7);
        core.flush().unwrap();
        expect(7);
        core.accept(proof).unwrap();
        expect(LENGTH);
        core.append("y").unwrap();
        core.flush().unwrap();
        expect(LENGTH + 1);
        core.clear(PAGE_BITS..PAGE_BITS + 1).unwrap();
        expect(PAGE_BITS);
        core.truncate(PAGE_BITS - 1, None).unwrap();
        expect(PAGE_BITS - 1);
        core.append_batch(vec![Bytes::from_static(b"z"); 3])
            .unwrap();
        expect(PAGE_BITS + 2);
        core.clear(PAGE_BITS - 1..PAGE_BITS).unwrap();
        core.flush().unwrap();
        expect(PAGE_BITS - 1);
        drop(core);
        let (mut device, mut rng) = (Device::new(files.clone()), Rng::new(1));
        for (at, change) in disk.changes().iter().enumerate() {
            device.advance(change);
            let losses = losses(device.pending(), &mut rng);
            for _ in 0..3 {
                let loss = losses[rng.below(losses.len())];
                let _scene = Scene(format!("{durability:?}, after change {at}, {loss:?}"));
                check_gaps(&device.after(loss, &mut rng), durability);
            }
        }
    }
}

/// Goal: who has lost the newer header does not believe the older one how many blocks are here without a gap, since
/// some may have been cleared after it was written.
#[test]
fn an_older_header_is_not_asked_for_gaps() {
    let before = wide(WIDE_LENGTHS[0]);
    let disk = Disk::new(before.clone());
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    core.clear(PAGE_BITS + 7..PAGE_BITS + 9).unwrap();
    core.flush().unwrap();
    drop(core);
    let (mut files, old) = (disk.contents(), before["oplog"].to_vec());
    files.get_mut("oplog").unwrap().edit(|oplog| {
        let is_new = |slot: &usize| oplog[*slot..slot + 8] != old[*slot..slot + 8];
        let new: Vec<usize> = [0, 4096].into_iter().filter(is_new).collect();
        assert_eq!(new.len(), 1);
        oplog[new[0]] ^= 1;
    });
    assert_eq!(check_gaps(&files, Durability::Buffered), PAGE_BITS + 7);
}

/// What a core says of its gaps is what its bits say.
fn check_gaps(files: &Contents, durability: Durability) -> u64 {
    let core = open(&Disk::new(files.clone()), durability)
        .unwrap()
        .unwrap();
    let (length, contiguous) = (core.length(), core.contiguous_length());
    assert_eq!(core.count(0..contiguous), contiguous);
    assert!(contiguous == length || !core.has(contiguous));
    assert!(!core.has(length));
    contiguous
}
