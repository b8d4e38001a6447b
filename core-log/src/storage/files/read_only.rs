//! A store on disk that is only read: on a medium that cannot be written, or while another program
//! writes it. Nothing is locked, created, repaired or removed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;
use zeroize::Zeroizing;

use super::aliases::Aliases;
use super::drafts::Drafts;
use super::file_system::{FileSystem, OsFileSystem};
use super::guards::Guards;
use super::home::Home;
use super::place::Place;
use super::pool::Pool;
use super::root_secret::{self, ROOT_SECRET_BYTES};
use super::secrets::Secrets;
use super::whole;
use super::{CoreFiles, FileCore, io_error, is_damaged};
use crate::root_secret::RootSecret;
use crate::storage::{
    Alias, CoreHeader, Durability, OpenedCore, Storage, StorageError, WriteBatch, lock,
};

/// A store in a directory, to be read only.
///
/// A core is as it was last committed when it was opened here. It can be read until whoever writes
/// it truncates it, which is an error from then on ([`StorageError::Changed`]); open it again to
/// see what was written meanwhile. A change of several cores that is being made, or was begun when
/// the writer died, may be there in some of them only.
pub struct ReadOnlyFiles {
    place: Arc<Place>,
    root_secret: root_secret::Secret,
    /// Names given through this handle are kept here only.
    aliases: Mutex<Option<Aliases>>,
    pool: Arc<Pool>,
}

impl ReadOnlyFiles {
    /// Opens the store in `directory`, which must be there.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it is none or cannot be read, [`StorageError::RootSecretLost`],
    /// [`StorageError::UnknownFormat`].
    pub fn open(directory: &Path, open_files_max: Option<usize>) -> Result<Self, StorageError> {
        Self::open_on(Arc::new(OsFileSystem), directory, open_files_max)
    }

    /// As [`ReadOnlyFiles::open`], of files and directories that need not be the operating system's.
    ///
    /// # Errors
    /// As for [`ReadOnlyFiles::open`].
    pub fn open_on(
        files: Arc<dyn FileSystem>,
        directory: &Path,
        open_files_max: Option<usize>,
    ) -> Result<Self, StorageError> {
        let place = Place::new(Arc::clone(&files), directory);
        let path = place.primary_key();
        let secret = whole::read_to(&*files, &path, ROOT_SECRET_BYTES as u64);
        let secret = secret.map_err(io_error("read", &path))?;
        let is_whole = secret.as_ref().is_some_and(|bytes| {
            bytes.len() >= ROOT_SECRET_BYTES && bytes.iter().any(|byte| *byte != 0)
        });
        if !is_whole && !place.list()?.is_empty() {
            return Err(StorageError::RootSecretLost { path });
        }
        let not_there = || io_error("read", &path)(io::ErrorKind::NotFound.into());
        let secret = Zeroizing::new(secret.ok_or_else(not_there)?);
        let root_secret = secret.first_chunk().copied().map(Zeroizing::new);
        let root_secret = root_secret.ok_or_else(|| StorageError::UnknownFormat {
            path,
            reason: format!("a root secret has {ROOT_SECRET_BYTES} bytes"),
        })?;
        if is_damaged(&place, &RootSecret::from(root_secret.clone()))? {
            let path = place.primary_key();
            return Err(StorageError::RootSecretLost { path });
        }
        Ok(Self {
            place: Arc::new(place),
            root_secret,
            aliases: Mutex::default(),
            pool: Arc::new(Pool::new(open_files_max)),
        })
    }

    fn files_of(&self, core: &DiscoveryKey) -> Result<Option<CoreFiles>, StorageError> {
        Home::of_core(&self.place, core, None).open_to_read(&self.place.files, &self.pool)
    }

    /// Adds what is kept beside the files of a core.
    fn complete(&self, core: &DiscoveryKey, opened: OpenedCore) -> OpenedCore {
        OpenedCore {
            drafts: Some(Drafts::read_only(&self.place, core, &self.pool)),
            conflicts: Some(Arc::new(self.place.conflict(core).read_only())),
            ..opened
        }
    }

    fn with_aliases<T>(&self, work: impl FnOnce(&mut Aliases) -> T) -> Result<T, StorageError> {
        let mut aliases = lock(&self.aliases);
        let aliases = match &mut *aliases {
            Some(aliases) => aliases,
            empty => {
                let names = || self.place.names();
                let files = Arc::clone(&self.place.files);
                let (aliases, _) = Aliases::read(files, self.place.aliases.clone(), names)?;
                empty.insert(aliases)
            }
        };
        Ok(work(aliases))
    }
}

impl Storage for ReadOnlyFiles {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        Ok(*self.root_secret)
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let opened = FileCore::open_read_only(core, || self.files_of(core))?;
        if opened.is_none() {
            self.peek(core)?; // it may have lost its oplog
        }
        Ok(opened.map(|opened| self.complete(core, opened)))
    }

    fn open_unverified(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let opened = FileCore::open_read_only_unverified(core, || self.files_of(core))?;
        Ok(opened.map(|opened| self.complete(core, opened)))
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let core = header.key.discovery_key();
        Err(StorageError::ReadOnly { core })
    }

    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        self.place.peek(core)
    }

    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        self.place.list()
    }

    fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        self.place.disk_bytes(core)
    }

    fn purge(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        Err(StorageError::ReadOnly { core: *core })
    }

    fn commit(&self, batch: WriteBatch, _: Durability) -> Result<(), StorageError> {
        match batch.into_writes().next() {
            Some((core, _)) => Err(StorageError::ReadOnly { core }),
            None => Ok(()),
        }
    }

    fn secret(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        let files = Arc::clone(&self.place.files);
        Secrets::new(files, self.place.secrets.clone()).get(core)
    }

    fn set_secret(&self, core: &DiscoveryKey, _: &KeyPair) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly { core: *core })
    }

    fn is_guarded(&self, core: &DiscoveryKey) -> Result<bool, StorageError> {
        let files = Arc::clone(&self.place.files);
        let (guards, _) = Guards::read(files, self.place.guards.clone())?;
        Ok(guards.is_guarded(core))
    }

    fn set_guarded(&self, core: &DiscoveryKey, _: bool) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly { core: *core })
    }

    fn alias(&self, alias: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        self.with_aliases(|aliases| aliases.get(alias))?
    }

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        self.with_aliases(|aliases| aliases.all())
    }

    fn set_alias(&self, alias: Alias, core: &DiscoveryKey) -> Result<(), StorageError> {
        self.with_aliases(|aliases| aliases.set_in_memory(alias, *core))
    }
}
