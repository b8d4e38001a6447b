//! The evidence that froze a core, one file each, beside what JavaScript reads.

use std::path::PathBuf;
use std::sync::Arc;

use super::file_system::FileSystem;
use super::{io_error, whole};
use crate::conflict::CONFLICT_BYTES_MAX;
use crate::storage::{ConflictKeeper, StorageError};

/// The file of one core.
pub(super) struct ConflictFile {
    files: Arc<dyn FileSystem>,
    path: PathBuf,
    is_read_only: bool,
}

impl ConflictFile {
    pub(super) fn new(files: Arc<dyn FileSystem>, path: PathBuf) -> Self {
        Self {
            files,
            path,
            is_read_only: false,
        }
    }

    /// The same, which keeps nothing more.
    pub(super) fn read_only(self) -> Self {
        Self {
            is_read_only: true,
            ..self
        }
    }
}

impl ConflictKeeper for ConflictFile {
    fn load(&self) -> Result<Option<Vec<u8>>, StorageError> {
        // One more than fits, so that what is too long is told as such.
        let kept = whole::read_to(&*self.files, &self.path, CONFLICT_BYTES_MAX as u64 + 1);
        kept.map_err(io_error("read", &self.path))
    }

    /// A core that stopped must not go on after a power cut, so it is synced whatever the
    /// durability.
    fn keep(&self, evidence: &[u8]) -> Result<(), StorageError> {
        if self.is_read_only {
            return Ok(());
        }
        let write = || {
            if let Some(directory) = self.path.parent() {
                self.files.create_directory(directory, false)?;
                let above = directory.parent();
                above.map_or(Ok(()), |above| self.files.sync_directory(above))?;
            }
            whole::replace(&*self.files, &self.path, evidence)
        };
        write().map_err(io_error("write", &self.path))
    }
}
