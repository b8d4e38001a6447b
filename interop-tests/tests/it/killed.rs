//! Goal: whenever a reader of ours is killed while it follows its source to another history, hypercore 10 opens what is left,
//! but for the moments that `exceptions.json` tells of; and it does once the core was opened here.
//!
//! Method: a reader on files in memory, of which a copy is kept after each change. Each copy is put where Corestore 6 looks
//! for a core, twice: one for Node alone, one for us first.
#![cfg(unix)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_log::proof::{Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, Head};
use ferrocore_log::{Core, Corestore, Durability, StoreOptions};
use serde_json::{Value, json};

use crate::exceptions::Exceptions;

/// Blocks that both histories have, and those of the old and the new one. The new one is so long that a root of the old one
/// has a place in it for which nothing comes with its head.
const SHARED: u64 = 3;
const OLD: u64 = 7;
const NEW: u64 = 13;

const ROOT_SECRET: [u8; 32] = [0x5a; 32];
const REFUSED: &str = "reorg: theirs refuses a core whose header names a root that is gone";

type Files = HashMap<&'static str, Vec<u8>>;

#[test]
fn node_opens_a_reader_that_was_killed_as_it_followed_a_fork() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Peer::start(Tree::Legacy, Role::Stores, &scratch.path().join("unused"));
    let mut exceptions = Exceptions::read("killed readers");
    let source = Corestore::memory().get_named("log").unwrap();
    append(&source, "old", OLD);
    let disk = Disk::default();
    let reader = reader(&source, &disk);
    reader.accept(head(&source, 0)).unwrap();
    reader.flush().unwrap();
    source.truncate(SHARED, None).unwrap();
    append(&source, "new", NEW - SHARED);
    let before = disk.moments().len();
    follow(&reader, &source);
    reader.flush().unwrap();

    let moments = disk.moments().split_off(before - 1);
    assert!(moments.len() > 5, "{}", moments.len());
    for (number, files) in moments.iter().enumerate() {
        let [alone, ours_first] = ["node", "ours"].map(|who| {
            let store = scratch.path().join(format!("{who}-{number}"));
            put(files, &source, &store);
            store
        });
        match open(&mut node, &alone, &source) {
            Ok(info) => assert_one_of_both(&info),
            Err(message) => {
                assert!(message.contains("Could not load node"), "{message}");
                exceptions.meet(REFUSED);
            }
        }
        let store = Corestore::open(&ours_first, StoreOptions::default()).unwrap();
        let core = store.get(&source.key()).unwrap();
        let length = core.length();
        drop((core, store));
        let info = open(&mut node, &ours_first, &source).unwrap();
        assert_one_of_both(&info);
        assert_eq!(info["length"], length);
    }
    exceptions.check();
}

fn assert_one_of_both(info: &Value) {
    let head = (info["fork"].as_u64(), info["length"].as_u64());
    assert!(
        head == (Some(0), Some(OLD)) || head == (Some(1), Some(NEW)),
        "{head:?}"
    );
}

fn append(source: &Core, tag: &str, count: u64) {
    let blocks = (0..count).map(|i| format!("{tag} {i}").into());
    source.append_batch(blocks.collect()).unwrap();
}

/// One who has nothing yet.
fn reader(source: &Core, disk: &Disk) -> Core {
    let header = CoreHeader {
        key: source.key(),
        manifest: source.manifest(),
        key_pair: None,
        user_data: BTreeMap::new(),
        head: Head::empty(),
    };
    let opened = FileCore::create(disk.core_files(), header, Durability::Buffered).unwrap();
    Core::open(opened, None, Durability::Buffered).unwrap()
}

fn follow(reader: &Core, source: &Core) {
    let mut reorg = reader.reorg(head(source, 0)).unwrap();
    while let Some(request) = reorg.wants() {
        reader
            .narrow(&mut reorg, &source.prove(&request).unwrap().unwrap())
            .unwrap();
    }
    reader.adopt(reorg).unwrap();
}

/// The proof of all of `source`, for who has `start` blocks of it.
fn head(source: &Core, start: u64) -> Proof {
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start,
            length: source.length() - start,
        }),
        manifest: true,
        fork: source.fork(),
        ..ProofRequest::default()
    };
    source.prove(&request).unwrap().unwrap()
}

/// Puts the files of the core where Corestore 6 and we look for them.
fn put(files: &Files, core: &Core, store: &Path) {
    let name = core.discovery_key().to_hex();
    let corestore = store.join("corestore");
    let directory = corestore
        .join("cores")
        .join(&name[..2])
        .join(&name[2..4])
        .join(&name);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(corestore.join("primary-key"), ROOT_SECRET).unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}

/// What Node finds. It closes the store, be it that it could not open the core.
fn open(node: &mut Peer, store: &Path, core: &Core) -> Result<Value, String> {
    let key = core.key().to_hex();
    let options = json!({ "directory": store.join("corestore"), "key": key, "compat": false });
    let call = node.begin("open", options);
    let opened = node.try_finish(&call);
    let shut = node.begin("shut", json!({}));
    let shut = node.try_finish(&shut);
    assert!(shut.is_ok() || opened.is_err());
    opened
}

/// Files in memory, and a copy of all of them after each change.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(Files, Vec<Files>)>>);

struct MemFile {
    disk: Disk,
    name: &'static str,
}

impl Disk {
    fn moments(&self) -> Vec<Files> {
        self.0.lock().unwrap().1.clone()
    }

    fn core_files(&self) -> CoreFiles {
        let names = ["oplog", "tree", "bitfield", "data", "header"];
        let file = |name| -> Box<dyn BlockFile> {
            let disk = self.clone();
            Box::new(MemFile { disk, name })
        };
        let [oplog, tree, bitfield, data, header] = names.map(file);
        CoreFiles {
            directory: PathBuf::from("memory"),
            oplog,
            tree,
            bitfield,
            data,
            header,
        }
    }
}

impl MemFile {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let (files, moments) = &mut *self.disk.0.lock().unwrap();
        change(files.entry(self.name).or_default());
        moments.push(files.clone());
    }
}

impl BlockFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.0.lock().unwrap();
        Ok(state.0.get(self.name).map_or(0, |file| file.len() as u64))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.0.lock().unwrap();
        let file = state.0.get(self.name).map_or(&[][..], Vec::as_slice);
        let rest = file.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = offset as usize..offset as usize + bytes.len();
        self.change(|file| {
            file.resize(file.len().max(range.end), 0);
            file[range].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.resize(len as usize, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.change(|file| {
            let end = file.len().min(range.end as usize);
            file[range.start as usize..end].fill(0);
        });
        Ok(())
    }
}
