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
        let unsynced = AtomicBool::new(!file.is_synced());
        Self {
            file,
            path,
            unsynced,
        }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(super) fn len(&self) -> Result<u64, StorageError> {
        self.name("measure", self.file.len())
    }

    /// Fills `buffer` from `offset` on as far as the file goes, and says how far.
    ///
    /// What is not read is taken for not there, and may be written over: so an early end is made
    /// sure of.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let mut last = None;
        loop {
            let count = self.name("read", self.file.read(offset, buffer))?;
            if count == buffer.len() || offset.saturating_add(count as u64) >= self.len()? {
                return Ok(count);
            }
            // The file may have grown meanwhile; then the next try reads more.
            if last.replace(count) == Some(count) {
                let ends_early = io::Error::from(io::ErrorKind::UnexpectedEof);
                return self.name("read", Err(ends_early));
            }
        }
    }

    /// What of `buffer` is there at `offset` now; the rest stays as it is. Of a file that somebody else cuts and prolongs.
    pub(super) fn glance(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.name("read", self.file.read(offset, buffer)).map(drop)
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
