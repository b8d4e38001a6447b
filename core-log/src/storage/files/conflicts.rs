//! The evidence that froze a core, one file each, beside what JavaScript reads.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ferrocore_primitives::keys::DiscoveryKey;

use super::positional::sync_directory;
use super::{create_directories, io_error, whole};
use crate::conflict::CONFLICT_BYTES_MAX;
use crate::storage::{ConflictKeeper, StorageError};

/// The file of one core.
pub(super) struct ConflictFile {
    path: PathBuf,
    is_read_only: bool,
}

impl ConflictFile {
    pub(super) fn new(directory: &Path, core: &DiscoveryKey) -> Self {
        Self {
            path: directory.join(core.to_hex()),
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

    /// Forgets what is kept.
    pub(super) fn remove(&self) -> Result<(), StorageError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        // One more than fits, so that what is too long is told as such.
        whole::read_to(&self.path, CONFLICT_BYTES_MAX as u64 + 1)
    }

    /// A core that stopped must not go on after a power cut, so it is synced whatever the
    /// durability.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

impl ConflictKeeper for ConflictFile {
    fn load(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.read().map_err(io_error("read", &self.path))
    }

    fn keep(&self, evidence: &[u8]) -> Result<(), StorageError> {
        if self.is_read_only {
            return Ok(());
        }
        self.path.parent().map_or(Ok(()), create_directories)?;
        self.write(evidence).map_err(io_error("write", &self.path))
    }
}
