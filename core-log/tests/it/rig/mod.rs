//! Cores on files in memory: quick to copy, to damage, and to cut the power of.

pub(crate) mod aftermath;
pub(crate) mod drafts;
pub(crate) mod faults;
pub(crate) mod file;
pub(crate) mod power;
pub(crate) mod proofs;
pub(crate) mod rng;
pub(crate) mod rot;
pub(crate) mod store;
pub(crate) mod tree;
pub(crate) mod watched;
pub(crate) mod workload;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, Head, OpenedCore, StorageError};
use ferrocore_log::{Core, CoreError, Durability, Manifest};
use ferrocore_primitives::sign::KeyPair;

use self::file::File;

/// The content of a core's files by name.
pub(crate) type Contents = HashMap<&'static str, File>;

/// Longest file, as file systems have one too.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Files in memory that remember every change, and may fail.
#[derive(Clone)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

struct State {
    files: Contents,
    changes: Vec<Change>,
    /// How often the files were asked for anything.
    calls: usize,
    fault: Option<Fault>,
    /// Whether a call that would have changed a file failed.
    has_lost_change: bool,
    /// Whether syncs wait, and how many do.
    is_held: bool,
    held: usize,
}

/// One change of one file.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) file: &'static str,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen(u64),
    Punch(Range<u64>),
    Sync,
    /// A byte that the device itself changes.
    Rot {
        offset: u64,
        byte: u8,
    },
}

/// A call that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Which call, counted from 0.
    pub(crate) call: usize,
    /// Whether all later calls fail too.
    pub(crate) lasts: bool,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum FaultKind {
    /// The device cannot do it.
    Broken,
    /// The device is full.
    Full,
    /// The device is full after half of a write.
    Short,
    /// A read gives half of what is there; nothing else fails.
    ShortRead,
    /// No descriptor is left for a file to be opened.
    Exhausted,
}

struct MemFile {
    disk: Disk,
    name: &'static str,
}

impl Disk {
    /// Files that never fail.
    pub(crate) fn new(files: Contents) -> Self {
        Self::with_fault(files, None)
    }

    pub(crate) fn with_fault(files: Contents, fault: Option<Fault>) -> Self {
        let state = State {
            files,
            changes: Vec::new(),
            calls: 0,
            fault,
            has_lost_change: false,
            is_held: false,
            held: 0,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// The files as a killed process leaves them.
    pub(crate) fn contents(&self) -> Contents {
        self.lock().files.clone()
    }

    /// Every change so far, in order.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.lock().changes.clone()
    }

    /// Makes a change that somebody else made, which is not counted.
    pub(crate) fn apply(&self, change: &Change) {
        apply(&mut self.lock().files, change);
    }

    /// Changes a byte that nobody writes.
    pub(crate) fn rot(&self, file: &'static str, offset: u64, byte: u8) {
        let what = What::Rot { offset, byte };
        self.lock().change(Change { file, what });
    }

    /// How many changes there were.
    pub(crate) fn now(&self) -> usize {
        self.lock().changes.len()
    }

    /// Lets syncs wait until they are let go.
    pub(crate) fn hold(&self) {
        self.lock().is_held = true;
    }

    /// Waits until a sync does.
    pub(crate) fn await_held(&self) {
        let none = |state: &mut State| state.held == 0;
        drop(self.0.1.wait_while(self.lock(), none).unwrap());
    }

    pub(crate) fn let_go(&self) {
        self.lock().is_held = false;
        self.0.1.notify_all();
    }

    /// How often the files were asked for anything.
    pub(crate) fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Whether a write, a sync or another change failed: memory and files may differ since.
    pub(crate) fn has_lost_change(&self) -> bool {
        self.lock().has_lost_change
    }

    pub(crate) fn len_of(&self, name: &str) -> u64 {
        self.lock()
            .files
            .get(name)
            .map_or(0, |file| file.len() as u64)
    }

    pub(crate) fn core_files(&self) -> CoreFiles {
        self.core_files_named(["oplog", "tree", "bitfield", "data", "header"])
    }

    pub(crate) fn core_files_named(&self, names: [&'static str; 5]) -> CoreFiles {
        let [oplog, tree, bitfield, data, header] = names.map(|name| self.file(name));
        CoreFiles {
            directory: PathBuf::from("memory"),
            oplog,
            tree,
            bitfield,
            data,
            header,
        }
    }

    pub(crate) fn file(&self, name: &'static str) -> Box<dyn BlockFile> {
        let disk = self.clone();
        Box::new(MemFile { disk, name })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }
}

impl State {
    /// Counts a call, and says whether it is one that fails.
    fn fault(&mut self) -> Option<FaultKind> {
        let call = self.calls;
        self.calls += 1;
        let fault = self.fault?;
        let fails = call == fault.call || fault.lasts && call > fault.call;
        fails.then_some(fault.kind)
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.files, &change);
        self.changes.push(change);
    }
}

impl MemFile {
    fn change(&self, what: What) -> io::Result<()> {
        let mut state = self.disk.lock();
        let file = self.name;
        if let What::Write { offset, .. } | What::SetLen(offset) = what
            && offset > FILE_BYTES_MAX
        {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let fault = state.fault();
        let Some(fault) = fault.filter(|fault| !matches!(fault, FaultKind::ShortRead)) else {
            state.change(Change { file, what });
            return Ok(());
        };
        state.has_lost_change = true;
        if let (FaultKind::Short, What::Write { offset, bytes }) = (fault, what) {
            let bytes = bytes[..bytes.len() / 2].into();
            let what = What::Write { offset, bytes };
            state.change(Change { file, what });
        }
        Err(fault.into())
    }

    /// Looks at the file; the flag says whether only at half of what was asked for.
    fn look<T>(&self, look: impl FnOnce(&File, bool) -> T) -> io::Result<T> {
        let mut state = self.disk.lock();
        let fault = state.fault();
        let halved = matches!(fault, Some(FaultKind::ShortRead));
        if let Some(fault) = fault.filter(|_| !halved) {
            return Err(fault.into());
        }
        let empty = File::default();
        let file = state.files.get(self.name);
        Ok(look(file.unwrap_or(&empty), halved))
    }
}

impl BlockFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        self.look(|file, _| file.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.look(|file, halved| {
            let count = file.read(offset, buffer);
            count / if halved { 2 } else { 1 }
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let bytes = bytes.into();
        self.change(What::Write { offset, bytes })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(What::SetLen(len))
    }

    fn sync(&self) -> io::Result<()> {
        let (state, changed) = &*self.disk.0;
        let mut state = state.lock().unwrap();
        if state.is_held {
            state.held += 1;
            changed.notify_all();
            state = changed.wait_while(state, |state| state.is_held).unwrap();
            state.held -= 1;
        }
        drop(state);
        self.change(What::Sync)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.change(What::Punch(range))
    }
}

impl From<FaultKind> for io::Error {
    fn from(fault: FaultKind) -> Self {
        match fault {
            FaultKind::Broken | FaultKind::ShortRead => Self::other("input/output error"),
            FaultKind::Full | FaultKind::Short => Self::from(io::ErrorKind::StorageFull),
            FaultKind::Exhausted => no_descriptor(),
        }
    }
}

#[cfg(unix)]
fn no_descriptor() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EMFILE)
}

#[cfg(not(unix))]
fn no_descriptor() -> io::Error {
    io::Error::other("no descriptor is left")
}

/// Makes `change` to `files`.
pub(crate) fn apply(files: &mut Contents, change: &Change) {
    let file = files.entry(change.file).or_default();
    match &change.what {
        What::Write { offset, bytes } => file.write(*offset as usize, bytes),
        What::SetLen(len) => file.resize(*len as usize),
        What::Punch(range) => file.punch(range.start as usize..range.end as usize),
        What::Rot { offset, byte } => file.write(*offset as usize, &[*byte]),
        What::Sync => {}
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
    create_from(disk, header(), durability)
}

pub(crate) fn create_from(
    disk: &Disk,
    header: CoreHeader,
    durability: Durability,
) -> Result<Core, StorageError> {
    let mut opened = FileCore::create(disk.core_files(), header, durability)?;
    opened.drafts = Some(drafts::of(disk, durability));
    match Core::open(opened, Some(key_pair()), durability) {
        Err(CoreError::Storage(error)) => Err(error),
        result => Ok(result.unwrap()),
    }
}

/// Opens a core whose roots are damaged, for an audit.
pub(crate) fn open_unverified(disk: &Disk, durability: Durability) -> Core {
    let core = header().key.discovery_key();
    let opened = FileCore::open_unverified(&core, disk.core_files(), durability).unwrap();
    Core::danger_open_unverified(opened.unwrap(), durability).unwrap()
}

/// Whether a core was not opened since its roots are missing or wrong.
pub(crate) fn is_about_roots(error: &StorageError) -> bool {
    matches!(error, StorageError::Corrupt { part, .. } if ["tree", "head"].contains(part))
}

pub(crate) fn open(disk: &Disk, durability: Durability) -> Result<Option<Core>, StorageError> {
    let core = header().key.discovery_key();
    let opened = FileCore::open(&core, disk.core_files(), durability)?;
    let opened = opened.map(|opened| OpenedCore {
        drafts: Some(drafts::of(disk, durability)),
        ..opened
    });
    let start = |opened| match Core::open(opened, Some(key_pair()), durability) {
        Err(CoreError::Storage(error)) => Err(error),
        result => Ok(result.unwrap()),
    };
    opened.map(start).transpose()
}
