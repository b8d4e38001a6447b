//! Cores on disk, in the file layout of hypercore 10 under the directory layout of Corestore 6.
//!
//! | path in the store | what |
//! |---|---|
//! | `corestore/primary-key` | the root secret: 32 bytes; locked while the store is open |
//! | `corestore/cores/aa/bb/<discovery key>/` | one core: `oplog`, `tree`, `bitfield`, `data`, `header` |
//! | `drafts/<discovery key>/<discovery key of the draft>/` | one draft on that core, in the same files |
//! | `journal` | a change of several cores, while it is being made |
//! | `conflicts/<discovery key>` | what froze a core whose signers contradict themselves |
//! | `aliases`, `aliases.copy` | which core has which name; made anew from the cores if both are lost |
//! | `keys/<discovery key>` | the secret key of a core that was imported |
//! | `keys/<discovery key>.encryption` | what a core is encrypted with, if a program above keeps that; only purges know it |
//! | `keys/root-<fingerprint>` | a root secret that another one took the place of |
//! | `root` | which root secret that is, and a checksum |
//! | `guards`, `guards.copy` | which cores must not be written until somebody shows how long they are; if both are damaged, none |
//! | `purges/<discovery key>` | a purge under way |
//! | `pid` | who has the store open; locked likewise |
//!
//! What JavaScript reads and writes lies in `corestore/`, what is ours beside it. Other files in
//! `corestore/` (Corestore 7 leaves `CORESTORE` and `db`) are left alone.

mod aliases;
mod bitfield;
pub mod block_file;
mod conflicts;
mod data;
mod directory;
mod drafts;
mod entry;
mod file_core;
pub mod file_system;
pub(crate) mod fuzzing;
mod gc;
mod guards;
mod header;
mod home;
mod journal;
mod lock;
mod open_cores;
mod oplog;
mod overlay;
mod page_starts;
mod part;
mod pending;
mod place;
mod poison;
mod pool;
mod positional;
mod purges;
mod read_only;
mod record;
mod recovery;
mod root_mark;
mod root_secret;
mod secrets;
mod settled;
mod snapshot;
mod tree;
mod tree_cache;
mod tree_page;
mod whole;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;

use self::aliases::Aliases;
use self::directory::{Access, Unusable};
use self::drafts::Drafts;
pub use self::file_core::{CoreFiles, FileCore};
use self::file_system::{FileAccess, FileSystem, OpenFile, OsFileSystem};
use self::guards::Guards;
use self::home::Home;
pub use self::journal::{JOURNAL_BYTES_MAX, Journal};
use self::open_cores::OpenCores;
use self::place::Place;
use self::pool::Pool;
pub use self::read_only::ReadOnlyFiles;
use self::secrets::Secrets;
use self::settled::Settled;
use crate::corestore::signs_for;
use crate::root_secret::{RestoreError, RootSecret};
use crate::storage::{
    Alias, CoreHeader, Durability, Garbage, OpenedCore, Storage, StorageError, WriteBatch,
    lock as lock_mutex,
};

/// A store in a directory; exclusive until dropped.
pub struct Files {
    place: Arc<Place>,
    durability: Durability,
    root_secret: root_secret::Secret,
    guards: Mutex<Guards>,
    aliases: Mutex<Option<Aliases>>,
    secrets: Secrets,
    drafts: Drafts,
    journal: Journal,
    /// Held shared while a core's directories are made, exclusively while empty ones are removed.
    creating: RwLock<()>,
    /// Held while a purge is begun or finished.
    purging: Mutex<()>,
    open_cores: Arc<OpenCores>,
    pool: Arc<Pool>,
    /// In synced mode, in which a core is shown once all of it is on the device.
    settled: Option<Arc<Settled>>,
    _lock: Box<dyn OpenFile>,
    _holder: Option<Box<dyn OpenFile>>,
}

impl Files {
    /// Opens the store in `directory`, creating it if there is none.
    ///
    /// `durability` is that of creating cores, keys and aliases; commits bring their own.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another program has it open, [`StorageError::RootSecretLost`],
    /// [`StorageError::Io`].
    pub fn open(directory: &Path, durability: Durability) -> Result<Self, StorageError> {
        Self::open_with(directory, durability, None)
    }

    /// As [`Files::open`], with at most `open_files_max` files open for its cores; see
    /// [`StoreOptions::open_files_max`](crate::StoreOptions::open_files_max).
    ///
    /// # Errors
    /// As for [`Files::open`].
    pub fn open_with(
        directory: &Path,
        durability: Durability,
        open_files_max: Option<usize>,
    ) -> Result<Self, StorageError> {
        let files = Arc::new(OsFileSystem);
        Self::open_on(files, directory, durability, open_files_max)
    }

    /// As [`Files::open_with`], of files and directories that need not be the operating system's.
    ///
    /// # Errors
    /// As for [`Files::open`].
    pub fn open_on(
        files: Arc<dyn FileSystem>,
        directory: &Path,
        durability: Durability,
        open_files_max: Option<usize>,
    ) -> Result<Self, StorageError> {
        let place = Arc::new(Place::new(Arc::clone(&files), directory));
        let (lock, path) = lock_store(&place)?;
        let found = root_secret::read(&*lock).map_err(io_error("read", &path))?;
        let is_new = found.is_none();
        let root_secret = match found {
            Some(secret) => secret,
            // It is on the device before there is any core, and before its mark. Corestore 7 takes it away.
            None if !place.list()?.is_empty() || root_mark::is_any(&*files, &place.root)? => {
                return Err(StorageError::RootSecretLost { path });
            }
            None => root_secret::make(&*lock).map_err(io_error("write", &path))?,
        };
        let root = RootSecret::from(root_secret.clone());
        if is_damaged(&place, &root)? {
            return Err(StorageError::RootSecretLost { path });
        }
        let fingerprint = root.fingerprint();
        if !root_mark::is_of(&*files, &place.root, &fingerprint)? {
            root_mark::set(&*files, &place.root, &fingerprint)?;
        }
        // Every name depends on the secret: it must not be lost whatever the durability.
        if is_new || durability == Durability::Sync {
            sync_store(&place)?;
        }
        let journal = directory.join("journal");
        let journal = Journal::new(files.file(&journal, FileAccess::Write), journal);
        let open_cores = Arc::new(OpenCores::default());
        let pool = Arc::new(Pool::new(open_files_max));
        let settled = || Settled::new(Arc::clone(&files), place.store.clone());
        let settled = (durability == Durability::Sync).then(|| Arc::new(settled()));
        let store = Self {
            drafts: Drafts {
                place: Arc::clone(&place),
                durability,
                open_cores: Arc::clone(&open_cores),
                pool: Arc::clone(&pool),
                settled: settled.clone(),
            },
            durability,
            root_secret,
            guards: Mutex::new(Guards::load(Arc::clone(&files), place.guards.clone())?),
            aliases: Mutex::new(None),
            secrets: Secrets::new(files, place.secrets.clone()),
            open_cores,
            journal,
            creating: RwLock::new(()),
            purging: Mutex::new(()),
            pool,
            settled,
            _holder: announce_holder(&place)?,
            _lock: lock,
            place,
        };
        let open = |core: &_, is_damaged| match is_damaged {
            false => Ok(store.open_shared(core)?.map(|(_, core)| core)),
            true => store.open_damaged(core),
        };
        store.journal.recover(open)?;
        store.finish_purges();
        Ok(store)
    }

    /// Gives the store in `directory` this root secret, and guards all its cores. There may be no store
    /// yet, one that has the secret already, or one that lost it.
    ///
    /// # Errors
    /// [`RestoreError::OtherRoot`] if it has another one, unless that is put aside: where no core is there and
    /// `replace` allows it, or where the names that the cores tell derive from this one only.
    /// [`RestoreError::NotOfStore`] if it has none, and no name derives from this one, unless `replace` allows
    /// it; [`RestoreError::Storage`].
    pub fn restore(directory: &Path, root: &RootSecret, replace: bool) -> Result<(), RestoreError> {
        Self::restore_on(Arc::new(OsFileSystem), directory, root, replace)
    }

    /// As [`Files::restore`], of files and directories that need not be the operating system's.
    ///
    /// # Errors
    /// As for [`Files::restore`].
    pub fn restore_on(
        files: Arc<dyn FileSystem>,
        directory: &Path,
        root: &RootSecret,
        replace: bool,
    ) -> Result<(), RestoreError> {
        let place = Place::new(Arc::clone(&files), directory);
        let (lock, path) = lock_store(&place)?;
        let found = root_secret::read(&*lock).map_err(io_error("read", &path))?;
        let found = found.map(RootSecret::from);
        let named = place.named()?;
        let derived = |root: &RootSecret| named.iter().filter(|core| derives(root, core)).count();
        let is_there = found.as_ref() == Some(root);
        match found {
            Some(_) if is_there => {}
            Some(other) => {
                let (fingerprint, cores) = (other.fingerprint(), place.list()?.len());
                let is_marked = root_mark::is_of(&*files, &place.root, &root.fingerprint())?;
                let is_strayed = derived(&other) == 0 && (derived(root) > 0 || is_marked);
                if !(is_strayed || cores == 0 && replace) {
                    return Err(RestoreError::OtherRoot { fingerprint, cores });
                }
                secrets::put_aside(&*files, &place.secrets, &fingerprint, &other)?;
            }
            None if !named.is_empty() && derived(root) == 0 && !replace => {
                let cores = named.len();
                return Err(RestoreError::NotOfStore { cores });
            }
            None => {}
        }
        // The guard is there before what it guards.
        Guards::load(Arc::clone(&files), place.guards.clone())?.guard_all()?;
        if !is_there {
            // Windows lets nobody rename a file that somebody has locked, and what holds a name in Unix is the file.
            let _lock = (!cfg!(windows)).then_some(lock);
            let replaced = root_secret::replace(&*files, &path, root.bytes());
            replaced.map_err(io_error("write", &path))?;
        }
        root_mark::set(&*files, &place.root, &root.fingerprint())?;
        Ok(sync_store(&place)?)
    }

    fn open_shared(
        &self,
        core: &DiscoveryKey,
    ) -> Result<Option<(OpenedCore, Arc<FileCore>)>, StorageError> {
        let Some(files) = self.files_of(core, Access::Write)? else {
            self.peek(core)?; // it may have lost its oplog
            return Ok(None);
        };
        let opened = FileCore::open_shared(core, files, self.durability)?;
        opened
            .iter()
            .for_each(|(_, core)| self.open_cores.attach(core));
        Ok(opened)
    }

    fn open_damaged(&self, core: &DiscoveryKey) -> Result<Option<Arc<FileCore>>, StorageError> {
        let Some(files) = self.files_of(core, Access::Write)? else {
            return Ok(None);
        };
        let opened = FileCore::open_unverified_shared(core, files, self.durability)?;
        Ok(opened.map(|(_, core)| core))
    }

    /// Adds what is kept beside the files of a core.
    fn complete(&self, core: &DiscoveryKey, opened: &mut OpenedCore) -> Result<(), StorageError> {
        opened.drafts = Some(self.drafts.of(core));
        if opened.header.key_pair.is_none() {
            opened.header.key_pair = self.secrets.get_whole(core)?;
        }
        opened.conflicts = Some(Arc::new(self.place.conflict(core)));
        Ok(())
    }

    /// The files of a core, its oplog locked; `None` if it has no oplog.
    fn files_of(
        &self,
        core: &DiscoveryKey,
        access: Access,
    ) -> Result<Option<CoreFiles>, StorageError> {
        let home = Home::of_core(&self.place, core, self.settled.clone());
        home.open(access, &self.place.files, &self.pool, &self.open_cores)
    }

    /// Runs `work` on the index of aliases, which is read or rebuilt when first needed.
    fn with_aliases<T>(
        &self,
        work: impl FnOnce(&mut Aliases) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut aliases = lock_mutex(&self.aliases);
        let aliases = match &mut *aliases {
            Some(aliases) => aliases,
            empty => empty.insert(self.load_aliases()?),
        };
        work(aliases)
    }

    fn load_aliases(&self) -> Result<Aliases, StorageError> {
        let files = Arc::clone(&self.place.files);
        Aliases::load(files, self.place.aliases.clone(), || self.place.names())
    }

    /// Finishes the purges that were cut off. What stays is tried again when the store is opened next, or the core is purged
    /// again or comes back.
    fn finish_purges(&self) {
        let finish = |core| self.finish_purge(&core).map(drop);
        let purging = self.place.purging();
        let finished = purging.and_then(|cores| cores.into_iter().try_for_each(finish));
        if let Err(error) = finished {
            tracing::warn!(%error, "cannot finish a purge");
        }
    }

    /// Removes what a purge that was cut off left of a core; returns the bytes that this gave back.
    fn finish_purge(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        let _alone = lock_mutex(&self.purging);
        self.finish_purge_alone(core)
    }

    fn finish_purge_alone(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        let forget_names = || self.with_aliases(|aliases| aliases.remove(core));
        self.place.finish_purge(core, forget_names)
    }
}

impl Storage for Files {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        Ok(*self.root_secret)
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        self.journal.check_open(core)?;
        let Some((mut opened, _)) = self.open_shared(core)? else {
            return Ok(None);
        };
        self.complete(core, &mut opened)?;
        Ok(Some(opened))
    }

    fn open_unverified(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        self.journal.check_open(core)?;
        let Some(files) = self.files_of(core, Access::Write)? else {
            return Ok(None);
        };
        let opened = FileCore::open_unverified_shared(core, files, self.durability)?;
        let Some((mut opened, shared)) = opened else {
            return Ok(None);
        };
        self.open_cores.attach_audited(&shared);
        drop(shared);
        self.complete(core, &mut opened)?;
        Ok(Some(opened))
    }

    fn create(&self, mut header: CoreHeader) -> Result<OpenedCore, StorageError> {
        let core = header.key.discovery_key();
        let directory = self.place.of_core(&core);
        self.finish_purge(&core)?;
        let creating = self.creating.read().unwrap_or_else(PoisonError::into_inner);
        create_directory(&self.place, &directory)?;
        if self.peek(&core)?.is_some() {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(io_error("create", &directory)(exists));
        }
        let key_pair = header.key_pair.take();
        if let Some(key_pair) = &key_pair {
            self.secrets.put(&core, key_pair)?;
        }
        let not_there = || io_error("create", &directory)(io::ErrorKind::NotFound.into());
        let files = self
            .files_of(&core, Access::Create)?
            .ok_or_else(not_there)?;
        drop(creating);
        let (mut opened, shared) = FileCore::create_shared(files, header, self.durability)?;
        self.open_cores.attach(&shared);
        opened.header.key_pair = key_pair;
        opened.drafts = Some(self.drafts.of(&core));
        opened.conflicts = Some(Arc::new(self.place.conflict(&core)));
        Ok(opened)
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
        self.journal.check_open(core)?;
        let _alone = lock_mutex(&self.purging);
        if !self.place.holds_core(&self.place.of_core(core))? {
            return self.finish_purge_alone(core);
        }
        // One that lost its oplog gets another to lock.
        let Some(_locked) = self.files_of(core, Access::Create)? else {
            return Ok(0);
        };
        self.place.begin_purge(core)?;
        self.finish_purge_alone(core)
    }

    fn collect_garbage(&self, dry_run: bool) -> Result<Vec<Garbage>, StorageError> {
        let _alone = self
            .creating
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        gc::collect(&self.place, dry_run)
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        let find = |(core, write)| {
            let found = self.open_cores.get(&core);
            Ok((found.ok_or(StorageError::NotOpen { core })?, write))
        };
        let changes: Result<Vec<_>, StorageError> = batch.into_writes().map(find).collect();
        self.journal.commit(changes?, durability)
    }

    fn secret(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        self.secrets.get(core)
    }

    fn set_secret(&self, core: &DiscoveryKey, key_pair: &KeyPair) -> Result<(), StorageError> {
        self.finish_purge(core)?;
        self.secrets.put(core, key_pair)
    }

    fn is_guarded(&self, core: &DiscoveryKey) -> Result<bool, StorageError> {
        Ok(lock_mutex(&self.guards).is_guarded(core))
    }

    fn set_guarded(&self, core: &DiscoveryKey, guarded: bool) -> Result<(), StorageError> {
        lock_mutex(&self.guards).set(core, guarded)
    }

    fn alias(&self, alias: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        self.with_aliases(|aliases| aliases.get(alias))
    }

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        self.with_aliases(|aliases| Ok(aliases.all()))
    }

    fn set_alias(&self, alias: Alias, core: &DiscoveryKey) -> Result<(), StorageError> {
        self.with_aliases(|aliases| aliases.set(alias, *core, self.durability))
    }
}

/// Whether the name that a core tells derives from this secret.
fn derives(root: &RootSecret, core: &(Alias, CoreHeader)) -> bool {
    let (alias, header) = core;
    let signer = root.key_pair(alias).public_key();
    signs_for(signer, &header.key, header.manifest.as_ref())
}

/// Whether `root` is not the secret that the store had, nor that of any of its cores' names: then it was damaged. A store whose
/// cores tell no names could only say that it is another one, which may be meant.
fn is_damaged(place: &Place, root: &RootSecret) -> Result<bool, StorageError> {
    if !root_mark::is_of_another(&*place.files, &place.root, &root.fingerprint())? {
        return Ok(false);
    }
    let named = place.named()?;
    Ok(!named.is_empty() && !named.iter().any(|core| derives(root, core)))
}

/// Makes the entries of the store's directories survive a power cut, and that of the store.
fn sync_store(place: &Place) -> Result<(), StorageError> {
    let files = &place.files;
    for synced in [&place.corestore, &place.store] {
        files
            .sync_directory(synced)
            .map_err(io_error("sync", synced))?;
    }
    // Whose directory the store is in, may not let us open it.
    let parent = place.store.canonicalize().ok();
    let parent = parent.as_deref().and_then(Path::parent);
    match parent.map_or(Ok(()), |parent| files.sync_directory(parent)) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            Err(io_error("sync", &place.store)(error))
        }
        _ => Ok(()),
    }
}

/// Locks the store, creating it if there is none; returns the locked file and its path.
fn lock_store(place: &Place) -> Result<(Box<dyn OpenFile>, PathBuf), StorageError> {
    create_directory(place, &place.corestore)?;
    let path = place.primary_key();
    let locked = place.files.lock(&path, true);
    match locked.map_err(io_error("open", &path))? {
        Some(locked) => Ok((locked, path)),
        None => Err(StorageError::Locked {
            path,
            holder: holder(place),
        }),
    }
}

/// Leaves our process id for whoever finds the store locked. Not being able to is no failure.
fn announce_holder(place: &Place) -> Result<Option<Box<dyn OpenFile>>, StorageError> {
    let path = place.holder();
    let locked = place.files.lock(&path, true);
    let Some(locked) = locked.map_err(io_error("open", &path))? else {
        return Ok(None);
    };
    let note = format!("{}\n", process::id());
    let written = locked
        .set_len(0)
        .and_then(|()| locked.write(0, note.as_bytes()));
    written.map_err(io_error("write", &path))?;
    Ok(Some(locked))
}

/// Most bytes of a process id and the end of its line.
const PID_BYTES_MAX: u64 = 16;

/// The process id left by the holder of the store, unless the holder is another program and the
/// note an old one.
fn holder(place: &Place) -> Option<u32> {
    let path = place.holder();
    match place.files.lock(&path, false) {
        Ok(None) => {
            let bytes = whole::read_to(&*place.files, &path, PID_BYTES_MAX).ok()??;
            str::from_utf8(&bytes).ok()?.trim().parse().ok()
        }
        _ => None,
    }
}

fn create_directory(place: &Place, path: &Path) -> Result<(), StorageError> {
    let created = place.files.create_directory(path, false);
    created.map_err(io_error("create", path))
}

/// Says what could not be done, and to which file.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    move |source| StorageError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// As [`io_error`], for a file that another program may have taken or changed.
fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| match source.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Unusable::Locked) => StorageError::Locked { path, holder: None },
        Some(Unusable::Changed(how)) => StorageError::Changed { path, how },
        None => StorageError::Io {
            action,
            path,
            source,
        },
    }
}
