//! Goal: whatever is cut from or flipped in a core's files, opening it never panics, never
//! invents a block, and never forgets what was acknowledged before the damage.
#![cfg(feature = "files")]

mod rig;

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::{Core, Durability};
use proptest::prelude::*;
use rig::{Contents, Disk, create, open};

fn block(index: u64) -> Bytes {
    Bytes::from(vec![index as u8 + 1; 1 + index as usize % 9])
}

/// Goal: a cut behind a commit keeps the commit, a cut within a header leaves an older one or is
/// told.
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
            // Within the headers: an older state, none, or an error.
            let found = open(&disk, Durability::Buffered).unwrap_or_default();
            assert!(found.is_none_or(|core| core.length() <= 2), "cut at {cut}");
            continue;
        };
        let core = open(&disk, Durability::Buffered).unwrap().unwrap();
        assert_eq!(core.length(), *length, "cut at {cut}");
        let kept = (0..*length).map(|i| core.get_local(i).unwrap().unwrap());
        assert!(kept.eq((0..*length).map(block)), "cut at {cut}");
        core.append("goes on").unwrap();
    }
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
        let interesting = bytes.iter().enumerate();
        let interesting = interesting.filter(|(at, byte)| **byte != 0 || at % 61 == 0);
        for (at, _) in interesting {
            let mut files = whole.clone();
            files.entry(name).or_default()[at] ^= 1 << (at % 8);
            match open(&Disk::new(files), Durability::Buffered) {
                Err(_) | Ok(None) => told += 1,
                Ok(Some(core)) => {
                    check_blocks(&core, &format!("{name} byte {at}"));
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

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    Truncate(u8),
    Clear(u8, u8),
    UserData(u8, u16),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => proptest::collection::vec(0u8..30, 1..6).prop_map(Step::Append),
        1 => (100u8..255).prop_map(|len| Step::Append(vec![2; len.into()])),
        2 => any::<u8>().prop_map(Step::Truncate),
        2 => any::<(u8, u8)>().prop_map(|(start, len)| Step::Clear(start, len)),
        2 => (0u8..3, 0u16..9000).prop_map(|(key, len)| Step::UserData(key, len)),
        1 => Just(Step::Flush),
    ];
    proptest::collection::vec(step, 1..16)
}

/// The obvious core: a list of blocks, some of them cleared.
#[derive(Default)]
struct Model {
    blocks: Vec<Option<Bytes>>,
    fork: u64,
    user_data: BTreeMap<String, Vec<u8>>,
}

impl Model {
    fn run(&mut self, core: &Core, step: &Step, number: usize) {
        let length = self.blocks.len();
        match step {
            Step::Append(sizes) => {
                let block = |size: &u8| Bytes::from(vec![number as u8 + 1; usize::from(*size)]);
                let blocks: Vec<_> = sizes.iter().map(block).collect();
                core.append_batch(blocks.clone()).unwrap();
                self.blocks.extend(blocks.into_iter().map(Some));
            }
            Step::Truncate(at) => {
                let to = usize::from(*at) % (length + 1);
                core.truncate(to as u64, None).unwrap();
                self.blocks.truncate(to);
                self.fork += 1;
            }
            Step::Clear(start, len) => {
                let start = usize::from(*start).min(length);
                let end = (start + usize::from(*len)).min(length);
                core.clear(start as u64..end as u64).unwrap();
                self.blocks[start..end].fill(None);
            }
            Step::UserData(key, len) => {
                let value = vec![number as u8; usize::from(*len)];
                core.set_user_data(&key.to_string(), Some(&value)).unwrap();
                self.user_data.insert(key.to_string(), value);
            }
            Step::Flush => core.flush().unwrap(),
        }
    }

    fn check(&self, core: &Core) {
        assert_eq!(core.length(), self.blocks.len() as u64);
        assert_eq!(core.fork(), self.fork);
        let missing = self.blocks.iter().position(Option::is_none);
        let contiguous_length = missing.unwrap_or(self.blocks.len()) as u64;
        assert_eq!(core.contiguous_length(), contiguous_length);
        for (block, index) in self.blocks.iter().zip(0..) {
            assert_eq!(core.get_local(index).unwrap(), *block);
        }
        for (key, value) in &self.user_data {
            let expected = Some(value).filter(|value| !value.is_empty());
            assert_eq!(core.user_data(key).as_ref(), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: after every step, a killed process and a closed one leave the same state.
    #[test]
    fn every_state_is_found_again(steps in steps()) {
        let disk = Disk::new(Contents::new());
        let mut core = create(&disk, Durability::Buffered).unwrap();
        let mut model = Model::default();
        for (number, step) in steps.iter().enumerate() {
            model.run(&core, step, number);
            let killed = Disk::new(disk.contents());
            model.check(&open(&killed, Durability::Buffered).unwrap().unwrap());
            if number % 3 == 2 {
                drop(core);
                core = open(&disk, Durability::Buffered).unwrap().unwrap();
                model.check(&core);
            }
        }
    }

    /// Goal: files of any content are a core or an error.
    #[test]
    fn any_files_open_or_fail(
        oplog in proptest::collection::vec(any::<u8>(), 0..9000),
        tree in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let disk = Disk::new(Contents::from([("oplog", oplog), ("tree", tree)]));
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
    files.entry("oplog").or_default().extend_from_slice(b"torn");
    let killed = Disk::new(files.clone());
    let header = FileCore::peek(&core.discovery_key(), killed.core_files());
    assert_eq!(header.unwrap().unwrap().head.length, 10);
    assert_eq!(killed.contents(), files);
}
