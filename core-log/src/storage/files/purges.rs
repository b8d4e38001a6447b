//! Purges under way: `purges/<discovery key>` is there from before a core goes until all that belonged to it is gone.
//!
//! | `purges/KEY` | the core | it means | what is left to be done |
//! |---|---|---|---|
//! | there | in its place | nothing is purged yet | the mark goes |
//! | there | not in its place | it is purged | drafts, names, secret and encryption key, evidence, `KEY.purged` go, then the mark |
//!
//! So a purge that a failure or a crash cuts off can be repeated, and is finished when the store is opened next or the core
//! comes back. Each step is on the device before the next one that relies on it, whatever the durability.
//!
//! Knows files and their order. Does not know names ([`super::aliases`]), nor whether somebody has the core open.

use std::io;
use std::path::{Path, PathBuf};

use ferrocore_primitives::keys::DiscoveryKey;

use super::file_system::FileAccess;
use super::io_error;
use super::place::{Place, core_of};
use crate::storage::StorageError;

impl Place {
    fn purge_mark(&self, core: &DiscoveryKey) -> PathBuf {
        self.purges.join(core.to_hex())
    }

    /// The purges that have begun.
    pub(super) fn purging(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        let marks = self.entries(&self.purges)?;
        Ok(marks.iter().filter_map(|mark| core_of(mark)).collect())
    }

    /// Takes a core, which nobody has open, out of its place.
    pub(super) fn begin_purge(&self, core: &DiscoveryKey) -> Result<(), StorageError> {
        let (directory, mark) = (self.of_core(core), self.purge_mark(core));
        // Renamed it is no core any more, so a crash leaves none with half its files.
        let doomed = directory.with_extension("purged");
        let begin = || {
            self.files.create_directory(&self.purges, false)?;
            self.files.sync_directory(&self.store)?;
            let file = self.files.file(&mark, FileAccess::Write);
            file.set_len(0)?;
            file.sync()?;
            self.files.sync_directory(&self.purges)?;
            self.files.remove_all(&doomed)?;
            self.files.rename(&directory, &doomed)
        };
        begin().map_err(io_error("remove", &directory))
    }

    /// Removes what belonged to a core whose purge has begun, with `forget_names`; returns the bytes that this gave back. Of
    /// one that is in its place nothing is removed.
    pub(super) fn finish_purge(
        &self,
        core: &DiscoveryKey,
        forget_names: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<u64, StorageError> {
        let (directory, mark) = (self.of_core(core), self.purge_mark(core));
        let found = self.files.look(&mark);
        if found.map_err(io_error("look at", &mark))?.is_none() {
            return Ok(0);
        }
        if self.holds_core(&directory)? {
            self.remove_mark(&mark)?;
            return Ok(0);
        }
        self.synced(directory.parent())?;
        let (doomed, drafts) = (directory.with_extension("purged"), self.drafts_of(core));
        let freed = self.bytes_at(&doomed)? + self.bytes_at(&drafts)?;
        let removed = self.files.remove_all(&drafts);
        removed.map_err(io_error("remove", &drafts))?;
        self.synced(Some(&self.drafts))?;
        forget_names()?;
        let (secret, encryption_key) = (self.secret_of(core), self.encryption_key_of(core));
        for file in [secret, encryption_key, self.conflict_of(core)] {
            let removed = self.files.remove_file(&file);
            removed.map_err(io_error("remove", &file))?;
            self.synced(file.parent())?;
        }
        let removed = self.files.remove_all(&doomed);
        removed.map_err(io_error("remove", &doomed))?;
        self.synced(doomed.parent())?;
        self.remove_mark(&mark)?;
        Ok(freed)
    }

    fn remove_mark(&self, mark: &Path) -> Result<(), StorageError> {
        let removed = self.files.remove_file(mark);
        removed.map_err(io_error("remove", mark))?;
        self.synced(Some(&self.purges))?;
        self.files.remove_empty(&self.purges).ok(); // there may be others
        Ok(())
    }

    /// Makes what was done in a directory survive a power cut, if it is there.
    fn synced(&self, directory: Option<&Path>) -> Result<(), StorageError> {
        let Some(directory) = directory else {
            return Ok(());
        };
        match self.files.sync_directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(io_error("sync", directory)),
        }
    }
}
