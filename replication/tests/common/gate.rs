//! A device that takes nothing while a gate is shut.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, Head};
use ferrocore_log::{Core, Durability};
use ferrocore_primitives::keys::Key;

/// Syncs wait before it while it is closed.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Syncs>, Condvar)>);

#[derive(Default)]
pub(crate) struct Syncs {
    is_closed: bool,
    waiting: usize,
    /// The threads that came by.
    pub(crate) by: Vec<ThreadId>,
    /// Whether the device is broken.
    pub(crate) fail: bool,
}

impl Gate {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Syncs> {
        self.0.0.lock().unwrap()
    }

    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    pub(crate) fn open(&self) {
        self.lock().is_closed = false;
        self.0.1.notify_all();
    }

    pub(crate) fn await_sync(&self) {
        let none = |syncs: &mut Syncs| syncs.waiting == 0;
        drop(self.0.1.wait_while(self.lock(), none).unwrap());
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self) -> io::Result<()> {
        let mut syncs = self.lock();
        syncs.by.push(thread::current().id());
        syncs.waiting += 1;
        self.0.1.notify_all();
        let mut syncs = self.0.1.wait_while(syncs, |s| s.is_closed).unwrap();
        syncs.waiting -= 1;
        match syncs.fail {
            true => Err(io::Error::other("input/output error")),
            false => Ok(()),
        }
    }
}

/// A file in memory.
struct Gated {
    bytes: Mutex<Vec<u8>>,
    gate: Gate,
}

impl BlockFile for Gated {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write(&self, offset: u64, written: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + written.len();
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[offset as usize..end].copy_from_slice(written);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass()
    }

    fn punch(&self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }
}

/// An empty reader of `key`, with `Durability::Sync`.
pub(crate) fn reader(key: &Key) -> (Core, Gate) {
    let gate = Gate::default();
    let file = || -> Box<dyn BlockFile> {
        Box::new(Gated {
            bytes: Mutex::default(),
            gate: gate.clone(),
        })
    };
    let files = CoreFiles {
        directory: PathBuf::from("memory"),
        oplog: file(),
        tree: file(),
        bitfield: file(),
        data: file(),
        header: file(),
    };
    let header = CoreHeader {
        key: *key,
        manifest: None,
        key_pair: None,
        user_data: Default::default(),
        head: Head::empty(),
    };
    let opened = FileCore::create(files, header, Durability::Sync).unwrap();
    (Core::open(opened, None, Durability::Sync).unwrap(), gate)
}
