//! The drafts of a core: small cores in a directory of their own, which JavaScript knows nothing of.
//!
//! `drafts/<discovery key of the core>/<discovery key of the draft>/` holds the files of one; which
//! name it has says its header.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrocore_primitives::keys::DiscoveryKey;

use super::directory::Access;
use super::file_core::{CoreFiles, FileCore};
use super::file_system::{FileAccess, FileSystem};
use super::home::Home;
use super::io_error;
use super::open_cores::OpenCores;
use super::place::{Place, core_files};
use super::pool::Pool;
use super::settled::Settled;
use crate::storage::{CoreHeader, DraftStorage, Durability, OpenedCore, StorageError};

/// The drafts of all cores of a store.
pub(super) struct Drafts {
    pub(super) place: Arc<Place>,
    pub(super) durability: Durability,
    pub(super) open_cores: Arc<OpenCores>,
    pub(super) pool: Arc<Pool>,
    pub(super) settled: Option<Arc<Settled>>,
}

impl Drafts {
    /// Those of one core.
    pub(super) fn of(&self, core: &DiscoveryKey) -> Arc<dyn DraftStorage> {
        Arc::new(CoreDrafts {
            directory: self.place.drafts_of(core),
            place: Arc::clone(&self.place),
            durability: self.durability,
            open_cores: Arc::clone(&self.open_cores),
            pool: Arc::clone(&self.pool),
            settled: self.settled.clone(),
        })
    }

    /// Those of one core, to be read only: nothing is locked, and nothing is changed.
    pub(super) fn read_only(
        place: &Arc<Place>,
        core: &DiscoveryKey,
        pool: &Arc<Pool>,
    ) -> Arc<dyn DraftStorage> {
        Arc::new(ReadOnlyDrafts {
            directory: place.drafts_of(core),
            place: Arc::clone(place),
            pool: Arc::clone(pool),
        })
    }
}

/// The drafts of one core.
struct CoreDrafts {
    place: Arc<Place>,
    directory: PathBuf,
    durability: Durability,
    open_cores: Arc<OpenCores>,
    pool: Arc<Pool>,
    settled: Option<Arc<Settled>>,
}

impl CoreDrafts {
    fn directory_of(&self, draft: &DiscoveryKey) -> PathBuf {
        self.directory.join(draft.to_hex())
    }

    fn files_of(
        &self,
        draft: &DiscoveryKey,
        access: Access,
    ) -> Result<Option<CoreFiles>, StorageError> {
        let home = Home::of_draft(&self.directory, draft, self.settled.clone());
        home.open(access, &self.place.files, &self.pool, &self.open_cores)
    }
}

impl DraftStorage for CoreDrafts {
    fn open(&self, draft: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        match self.files_of(draft, Access::Write)? {
            Some(files) => FileCore::open(draft, files, self.durability),
            None => Ok(None),
        }
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let draft = header.key.discovery_key();
        let directory = self.directory_of(&draft);
        let files = &self.place.files;
        let made = files.create_directory(&directory, false);
        made.map_err(io_error("create", &directory))?;
        let not_there = || io_error("create", &directory)(io::ErrorKind::NotFound.into());
        let core_files = self
            .files_of(&draft, Access::Create)?
            .ok_or_else(not_there)?;
        let opened = FileCore::create(core_files, header, self.durability)?;
        if self.durability == Durability::Sync {
            for directory in [&self.directory, &self.place.drafts, &self.place.store] {
                let synced = files.sync_directory(directory);
                synced.map_err(io_error("sync", directory))?;
            }
        }
        Ok(opened)
    }

    fn list(&self) -> Result<Vec<CoreHeader>, StorageError> {
        list(&self.place, &self.directory)
    }

    fn remove(&self, draft: &DiscoveryKey) -> Result<bool, StorageError> {
        let Some(_locked) = self.files_of(draft, Access::Write)? else {
            return Ok(false);
        };
        let directory = self.directory_of(draft);
        // Renamed it is no draft any more, so a crash leaves none with half its files.
        let doomed = directory.with_extension("purged");
        let files = &self.place.files;
        let remove = || {
            files.remove_all(&doomed)?;
            files.rename(&directory, &doomed)?;
            files.sync_directory(&self.directory)?;
            files.remove_all(&doomed)
        };
        remove().map_err(io_error("remove", &directory))?;
        Ok(true)
    }
}

/// The drafts of one core in a store that is only read.
struct ReadOnlyDrafts {
    place: Arc<Place>,
    directory: PathBuf,
    pool: Arc<Pool>,
}

impl DraftStorage for ReadOnlyDrafts {
    fn open(&self, draft: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        FileCore::open_read_only(draft, || {
            Home::of_draft(&self.directory, draft, None).open_to_read(&self.place.files, &self.pool)
        })
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let core = header.key.discovery_key();
        Err(StorageError::ReadOnly { core })
    }

    fn list(&self) -> Result<Vec<CoreHeader>, StorageError> {
        list(&self.place, &self.directory)
    }

    fn remove(&self, draft: &DiscoveryKey) -> Result<bool, StorageError> {
        Err(StorageError::ReadOnly { core: *draft })
    }
}

/// The headers of the drafts below `directory`.
fn list(place: &Place, directory: &Path) -> Result<Vec<CoreHeader>, StorageError> {
    let drafts = place.cores_in(directory)?.into_iter();
    let header = |draft| peek(&*place.files, directory, &draft).transpose();
    drafts.filter_map(header).collect()
}

fn peek(
    files: &dyn FileSystem,
    directory: &Path,
    draft: &DiscoveryKey,
) -> Result<Option<CoreHeader>, StorageError> {
    let directory = directory.join(draft.to_hex());
    FileCore::peek(draft, || {
        let path = directory.clone();
        let file = |name: &str| files.file(&path.join(name), FileAccess::Read);
        Ok(Some(core_files(directory.clone(), file)))
    })
}
