//! Cores on files in memory: quick to copy, to damage, and to cut the power of.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, Head, StorageError};
use ferrocore_log::{Core, Durability, Manifest};
use ferrocore_primitives::sign::KeyPair;

/// The content of a core's files by name.
pub(crate) type Contents = HashMap<&'static str, Vec<u8>>;

/// Files in memory, and how many more changes they allow.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct State {
    files: Contents,
    changes_left: usize,
}

struct MemFile {
    disk: Disk,
    name: &'static str,
}

impl Disk {
    /// Files that never fail.
    pub(crate) fn new(files: Contents) -> Self {
        Self::failing_after(files, usize::MAX)
    }

    /// Files that refuse every change after the first `changes`.
    pub(crate) fn failing_after(files: Contents, changes: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            files,
            changes_left: changes,
        })))
    }

    /// The files as a killed process leaves them.
    pub(crate) fn contents(&self) -> Contents {
        self.0.lock().unwrap().files.clone()
    }

    pub(crate) fn len_of(&self, name: &str) -> u64 {
        let state = self.0.lock().unwrap();
        state.files.get(name).map_or(0, |file| file.len() as u64)
    }

    pub(crate) fn core_files(&self) -> CoreFiles {
        let file = |name| {
            let disk = self.clone();
            Box::new(MemFile { disk, name }) as Box<dyn BlockFile>
        };
        CoreFiles {
            directory: PathBuf::from("memory"),
            oplog: file("oplog"),
            tree: file("tree"),
            bitfield: file("bitfield"),
            data: file("data"),
            header: file("header"),
            guard: None,
        }
    }
}

impl MemFile {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        if state.changes_left == 0 {
            return Err(io::Error::other("the power is gone"));
        }
        state.changes_left -= 1;
        change(state.files.entry(self.name).or_default());
        Ok(())
    }

    fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let state = self.disk.0.lock().unwrap();
        look(state.files.get(self.name).map_or(&[], Vec::as_slice))
    }
}

impl BlockFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.look(|bytes| bytes.len() as u64))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.look(|bytes| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|file| {
            let end = offset as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[offset as usize..end].copy_from_slice(bytes);
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.resize(len as usize, 0))
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|_| ())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.change(|file| {
            let end = file.len().min(range.end as usize);
            file.get_mut(range.start as usize..end)
                .unwrap_or_default()
                .fill(0);
        })
    }
}

pub(crate) fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

pub(crate) fn header() -> CoreHeader {
    let manifest = Manifest::single(key_pair().public_key());
    CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: None,
        user_data: BTreeMap::new(),
        head: Head::empty(),
    }
}

pub(crate) fn create(disk: &Disk, durability: Durability) -> Result<Core, StorageError> {
    let opened = FileCore::create(disk.core_files(), header(), durability)?;
    Ok(Core::open(opened, Some(key_pair()), durability).unwrap())
}

pub(crate) fn open(disk: &Disk, durability: Durability) -> Result<Option<Core>, StorageError> {
    let core = header().key.discovery_key();
    let opened = FileCore::open(&core, disk.core_files(), durability)?;
    Ok(opened.map(|opened| Core::open(opened, Some(key_pair()), durability).unwrap()))
}
