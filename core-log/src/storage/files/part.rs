//! One named file of a core, with errors that say which, and a memory of what awaits a sync.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::block_file::BlockFile;
use super::file_error;
use crate::storage::StorageError;

/// A [`BlockFile`] that knows its path.
pub(super) struct Part {
    file: Box<dyn BlockFile>,
    path: PathBuf,
    /// Whether writes may not have reached the device: also those of whoever had it open before.
    unsynced: AtomicBool,
}

impl Part {
    pub(super) fn new(file: Box<dyn BlockFile>, path: PathBuf) -> Self {
        Self {
            file,
            path,
            unsynced: AtomicBool::new(true),
        }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(super) fn len(&self) -> Result<u64, StorageError> {
        self.name("measure", self.file.len())
    }

    /// Fills `buffer` from `offset` on as far as the file goes, and says how far.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        self.name("read", self.file.read(offset, buffer))
    }

    /// Where the next bytes may be that are not of a hole.
    pub(super) fn next_data(&self, offset: u64) -> Result<Option<u64>, StorageError> {
        self.name("read", self.file.next_data(offset))
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.change("write", |file| file.write(offset, bytes))
    }

    pub(super) fn set_len(&self, len: u64) -> Result<(), StorageError> {
        self.change("resize", |file| file.set_len(len))
    }

    pub(super) fn punch(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.change("free space in", |file| file.punch(range))
    }

    /// Does nothing if nothing was written since the last time.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        if !self.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.name("sync", self.file.sync())
    }

    fn change(
        &self,
        action: &'static str,
        change: impl FnOnce(&dyn BlockFile) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        self.unsynced.store(true, Ordering::Release);
        self.name(action, change(self.file.as_ref()))
    }

    fn name<T>(&self, action: &'static str, result: io::Result<T>) -> Result<T, StorageError> {
        result.map_err(|source| file_error(action, &self.path)(source))
    }
}
