//! Where the files of one core are, and how all of them are opened.
//!
//! Knows which directories may be new with a core, and who else may have it. Does not know what is in the files.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use ferrocore_primitives::keys::DiscoveryKey;

use super::directory::{Access, CoreDirectory};
use super::file_core::CoreFiles;
use super::file_error;
use super::file_system::FileSystem;
use super::open_cores::OpenCores;
use super::place::{Place, core_files};
use super::pool::Pool;
use super::settled::Settled;
use crate::storage::StorageError;

/// `bb`, `aa`, `cores`, and `corestore` which that is in: each is made for the first core in it.
const ABOVE_CORE: usize = 4;
/// That of the drafts of a core, `drafts`, and the store which that is in.
const ABOVE_DRAFT: usize = 3;

/// Where the files of a core are.
pub(super) struct Home {
    pub(super) core: DiscoveryKey,
    pub(super) path: PathBuf,
    /// How many directories above this one may be new with it.
    pub(super) above: usize,
    /// Who knows what of it is on the device, where that matters.
    pub(super) settled: Option<Arc<Settled>>,
}

impl Home {
    /// That of a core of the store.
    pub(super) fn of_core(
        place: &Place,
        core: &DiscoveryKey,
        settled: Option<Arc<Settled>>,
    ) -> Self {
        Self {
            core: *core,
            path: place.of_core(core),
            above: ABOVE_CORE,
            settled,
        }
    }

    /// That of a draft, among those in `drafts`.
    pub(super) fn of_draft(
        drafts: &Path,
        draft: &DiscoveryKey,
        settled: Option<Arc<Settled>>,
    ) -> Self {
        Self {
            core: *draft,
            path: drafts.join(draft.to_hex()),
            above: ABOVE_DRAFT,
            settled,
        }
    }

    /// The files, the oplog locked, for who has the core alone among `open_cores`; `None` if there is no oplog.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if anybody has it, [`StorageError::Io`].
    pub(super) fn open(
        self,
        access: Access,
        files: &Arc<dyn FileSystem>,
        pool: &Arc<Pool>,
        open_cores: &Arc<OpenCores>,
    ) -> Result<Option<CoreFiles>, StorageError> {
        let Some(registration) = OpenCores::register(open_cores, self.core) else {
            let (path, holder) = (self.path.join("oplog"), Some(process::id()));
            return Err(StorageError::Locked { path, holder });
        };
        self.open_guarded(access, files, pool, Box::new(registration))
    }

    /// The files, to be read only, whoever has them; `None` if there is no oplog.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(super) fn open_to_read(
        self,
        files: &Arc<dyn FileSystem>,
        pool: &Arc<Pool>,
    ) -> Result<Option<CoreFiles>, StorageError> {
        self.open_guarded(Access::Read, files, pool, Box::new(()))
    }

    fn open_guarded(
        self,
        access: Access,
        files: &Arc<dyn FileSystem>,
        pool: &Arc<Pool>,
        guard: Box<dyn Send + Sync>,
    ) -> Result<Option<CoreFiles>, StorageError> {
        let (path, files, pool) = (self.path.clone(), Arc::clone(files), Arc::clone(pool));
        let opened = CoreDirectory::open(self, access, files, pool, guard);
        let opened = opened.map_err(file_error("open", &path.join("oplog")))?;
        Ok(opened.map(|opened| core_files(path, |name| opened.file(name))))
    }
}
