//! Many cores in one place: by name, by key, by discovery key.
//!
//! Knows how named cores derive from the store's root secret, and shares each open core within
//! the process. Does not know where cores are kept ([`crate::storage`]) or how they travel.

mod batch;
mod error;
mod followed;
mod keys;
mod listing;
mod opened;
mod options;
mod statics;
mod wanted;
mod watch;

use std::fmt;
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

use ferrocore_primitives::hash;
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::KeyPair;
use zeroize::Zeroizing;

use self::opened::Registry;
use crate::core::{Core, CoreError, Flusher};
use crate::manifest::Manifest;
use crate::root_secret::RootSecret;
use crate::signer::Secret;
#[cfg(feature = "files")]
use crate::storage::files::{Files, ReadOnlyFiles};
use crate::storage::memory::Memory;
use crate::storage::{
    Alias, CoreWrite, Durability, GIVEN, Garbage, OpenedCore, Storage, StorageError,
};

pub use self::batch::Batch;
pub use self::error::StoreError;
pub use self::followed::FollowedCores;
pub use self::keys::{CoreSecret, SecretOrigin};
pub use self::listing::{CoreInfo, ListedCore};
pub use self::opened::{OpenedCores, StoreFinding};
pub use self::options::{CoreOptions, StoreOptions};
use self::wanted::Wanted;
pub(crate) use self::wanted::signs_for;
use self::watch::Watchers;
pub use self::watch::{StoreEvent, StoreEvents};

/// The namespace of a store that was not asked for another.
const ROOT_NAMESPACE: [u8; 32] = [0; 32];

/// A store of cores, or a namespace within one. Clones are handles on the same store.
///
/// An open core is shared: whoever asks for it gets the same [`Core`], which closes when the last
/// handle is dropped. Whoever has a handle on a core may outlive the store.
///
/// # Examples
/// ```
/// use ferrocore_log::Corestore;
///
/// let store = Corestore::memory();
/// let core = store.get_named("notes")?;
/// core.append("hello")?;
/// assert_eq!(store.get(&core.key())?.length(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Corestore {
    inner: Arc<Inner>,
    namespace: [u8; 32],
}

struct Inner {
    storage: Arc<dyn Storage>,
    root_secret: RootSecret,
    durability: Durability,
    read_only: bool,
    watchers: Watchers,
    opened: Arc<Registry>,
    flusher: Arc<Flusher>,
}

impl Corestore {
    /// Opens the store in `directory`, creating it if there is none.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another program has it open, unless it is only read: then
    /// [`StorageError::Io`] if there is none.
    #[cfg(feature = "files")]
    pub fn open(directory: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        if options.read_only {
            let files = ReadOnlyFiles::open(directory, options.open_files_max)?;
            return Ok(Self::with_storage(files, options)?);
        }
        let files = Files::open_with(directory, options.durability, options.open_files_max)?;
        Ok(Self::with_storage(files, options)?)
    }

    /// A new store in memory, with a random root secret.
    pub fn memory() -> Self {
        let memory = Memory::new();
        Self::with_storage(memory, StoreOptions::default()).expect("memory does not fail")
    }

    /// A store in whatever keeps cores.
    ///
    /// # Errors
    /// [`StorageError`] if the root secret cannot be read.
    pub fn with_storage(
        storage: impl Storage,
        options: StoreOptions,
    ) -> Result<Self, StorageError> {
        let inner = Inner {
            root_secret: Zeroizing::new(storage.root_secret()?).into(),
            storage: Arc::new(storage),
            durability: options.durability,
            read_only: options.read_only,
            watchers: Watchers::default(),
            opened: Arc::default(),
            flusher: Arc::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            namespace: ROOT_NAMESPACE,
        })
    }

    /// The same store with names of its own: `name` there is another core than `name` here.
    pub fn namespace(&self, name: &str) -> Self {
        let namespace = hash::hash(&[&self.namespace, name.as_bytes()]);
        Self {
            inner: Arc::clone(&self.inner),
            namespace: *namespace.as_bytes(),
        }
    }

    /// The key pair of `name`, which follows from the root secret and the namespace.
    pub fn key_pair(&self, name: &str) -> KeyPair {
        self.inner.derive(&self.alias(name))
    }

    /// Opens the core called `name`, creating it if there is none. It is writable, unless the
    /// name was given to a core of somebody else.
    ///
    /// # Errors
    /// [`StoreError::Storage`], [`StoreError::Core`] if it cannot be opened.
    pub fn get_named(&self, name: &str) -> Result<Core, StoreError> {
        let alias = self.alias(name);
        if let Some(known) = self.inner.storage.alias(&alias)?
            && let Some(core) = self.get_by_discovery_key(&known)?
        {
            return Ok(core);
        }
        let public_key = self.key_pair(name).public_key();
        // Corestore 6 makes compat cores, or others with a manifest of version 0.
        let compat = Manifest::compat(public_key);
        for key in [Key::from(*public_key.as_bytes()), compat.key()] {
            if let Some(core) = self.get_by_discovery_key(&key.discovery_key())? {
                self.inner.storage.set_alias(alias, &core.discovery_key())?;
                return Ok(core);
            }
        }
        self.get_with(CoreOptions {
            name: Some(name.to_owned()),
            ..CoreOptions::default()
        })
    }

    /// Opens the core with this key, or prepares to read it if it is not here.
    ///
    /// # Errors
    /// [`StoreError::Storage`], [`StoreError::Core`] if it cannot be opened.
    pub fn get(&self, key: &Key) -> Result<Core, StoreError> {
        self.get_with(CoreOptions {
            key: Some(*key),
            ..CoreOptions::default()
        })
    }

    /// Opens the core with this discovery key, if it is here.
    ///
    /// # Errors
    /// [`StoreError::Storage`], [`StoreError::Core`] if it cannot be opened.
    pub fn get_by_discovery_key(&self, core: &DiscoveryKey) -> Result<Option<Core>, StoreError> {
        let result = self.inner.opened.get_or_open(core, || {
            let opened = self.inner.storage.open(core).map_err(StoreError::from)?;
            Ok(self.inner.start(opened.ok_or(None)?, None, false)?)
        });
        match result {
            Ok(core) => Ok(Some(core)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// As [`Corestore::get`] for a core that is here. If its roots are damaged, so that it does not open, it is opened as
    /// with [`Core::danger_open_unverified`], to be audited: nobody else gets it while anybody holds that ([`StorageError::Locked`], at once).
    ///
    /// # Errors
    /// As for [`Corestore::get`], but for the signature and the roots.
    pub fn danger_get_unverified(&self, key: &Key) -> Result<Option<Core>, StoreError> {
        let discovery_key = key.discovery_key();
        match self.get_by_discovery_key(&discovery_key) {
            Err(error) if error.is_about_roots() => {}
            result => return result,
        }
        let open = || {
            let opened = self.inner.storage.open_unverified(&discovery_key)?;
            let durability = self.inner.durability;
            let open = |opened| Core::danger_open_unverified(opened, durability);
            Ok(opened.map(open).transpose()?)
        };
        match self.inner.opened.unless_open(&discovery_key, open) {
            Some(result) => result,
            None => self.get_by_discovery_key(&discovery_key), // it was mended meanwhile
        }
    }

    /// Opens the core that `options` tell, creating it if it is not here.
    ///
    /// # Errors
    /// [`StoreError::Unspecified`], [`StoreError::KeyMismatch`] and
    /// [`StoreError::KeyPairMismatch`] if the options do not fit together;
    /// [`StoreError::OpenReadOnly`] if it is open and cannot be written through that handle.
    pub fn get_with(&self, mut options: CoreOptions) -> Result<Core, StoreError> {
        let encryption = options.encryption.take();
        let wanted = self.resolve(options)?;
        let discovery_key = wanted.key.discovery_key();
        let core = self.inner.opened.get_or_open(&discovery_key, || {
            let opened = match self.inner.storage.open(&discovery_key)? {
                Some(opened) => self.inner.adopt(opened, &wanted)?,
                None => {
                    let created = self.inner.storage.create(wanted.header()?)?;
                    self.inner.watchers.tell(StoreEvent::Created(discovery_key));
                    created
                }
            };
            self.inner.start(opened, wanted.secret(), wanted.is_legacy)
        })?;
        let must_write = wanted.secret().is_some() && !self.inner.read_only;
        if must_write && !core.is_writable() && signs_alone(core.manifest()) {
            return Err(StoreError::OpenReadOnly { core: core.key() });
        }
        if let Some(alias) = &wanted.alias {
            let index = &self.inner.storage;
            index.set_alias(alias.clone(), &discovery_key)?;
            if !wanted.is_derived() && !self.inner.read_only {
                remember(&core, alias)?;
            }
        }
        Ok(match encryption {
            Some(key) => core.with_encryption(&key),
            None => core,
        })
    }

    /// What the core takes on the disk, in bytes; zero if it is not here.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if its files cannot be looked at.
    pub fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StoreError> {
        Ok(self.inner.storage.disk_bytes(core)?)
    }

    /// Deletes a core for good, with its drafts, its names and, if it does not derive from a name, its secret
    /// key; returns the bytes this gave back on the disk.
    ///
    /// A core that is made under the same name later has the same key. Peers that still have blocks
    /// of the old one see two histories then, so choose another name.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while anybody holds the core, [`StoreError::Storage`].
    pub fn purge(&self, core: &DiscoveryKey) -> Result<u64, StoreError> {
        let purged = self
            .inner
            .opened
            .unless_open(core, || self.inner.storage.purge(core));
        let freed = purged.ok_or(StoreError::InUse { core: *core })??;
        self.inner.watchers.tell(StoreEvent::Purged(*core));
        Ok(freed)
    }

    /// Subscribes to the cores of the whole store that are open: those open now, then each as it
    /// is opened.
    pub fn watch_opened(&self) -> OpenedCores {
        OpenedCores::new(Arc::clone(&self.inner.opened))
    }

    /// As [`Corestore::watch_opened`], for who finds suppliers of each core: its readers wait until it is told.
    pub fn follow_opened(&self) -> FollowedCores {
        FollowedCores::new(Arc::clone(&self.inner.opened))
    }

    /// Finds what crashes left behind in the store and is of no use to anybody, and removes it
    /// unless `dry_run`: no cores, no names, no keys, nothing of other programs.
    ///
    /// # Errors
    /// [`StoreError::Storage`]; what was removed until then is gone.
    pub fn collect_garbage(&self, dry_run: bool) -> Result<Vec<Garbage>, StoreError> {
        Ok(self.inner.storage.collect_garbage(dry_run)?)
    }

    /// Subscribes to cores that are created, opened or purged from now on, by anybody who has a
    /// handle on this store.
    pub fn watch(&self) -> StoreEvents {
        self.inner.watchers.subscribe()
    }

    /// As [`Core::finding`] for every core of the store, open now or later: until the guard is
    /// dropped, readers wait for suppliers. Cores that others open are included from their first
    /// moment, before [`Corestore::watch_opened`] can tell of them.
    pub fn finding(&self) -> StoreFinding {
        StoreFinding::new(Arc::clone(&self.inner.opened))
    }

    fn alias(&self, name: &str) -> Alias {
        Alias {
            namespace: self.namespace,
            name: name.to_owned(),
        }
    }
}

impl fmt::Debug for Corestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Corestore")
            .field("durability", &self.inner.durability)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The key pair of a name.
    fn derive(&self, alias: &Alias) -> KeyPair {
        self.root_secret.key_pair(alias)
    }

    /// Makes a core of what storage opened. It signs with `given`, which must fit, or with the
    /// pair that its name derives, or with the one kept with it.
    fn start(
        &self,
        mut opened: OpenedCore,
        given: Option<Secret>,
        is_legacy: bool,
    ) -> Result<Core, StoreError> {
        let header = &mut opened.header;
        let (key, manifest) = (header.key, header.manifest.as_ref());
        let fits = |secret: &Secret| signs_for(secret.public_key(), &key, manifest);
        if given.as_ref().is_some_and(|given| !fits(given)) {
            return Err(StoreError::KeyPairMismatch { core: key });
        }
        let derived = header.alias().map(|alias| self.derive(&alias));
        let [derived, kept] = [derived, header.key_pair.take()].map(|pair| pair.map(Secret::Here));
        let secret = [given, derived, kept].into_iter().flatten().find(fits);
        if header.manifest.is_none() {
            let signer = secret.as_ref().map(Secret::public_key);
            header.manifest = signer.map(Manifest::single);
        }
        let secret = secret.filter(|_| !self.read_only);
        let flusher = Arc::clone(&self.flusher);
        let is_ours = secret.is_some();
        let open = if is_legacy {
            Core::open_legacy
        } else {
            Core::open_in
        };
        let core = open(opened, secret, self.durability, flusher)?;
        if is_ours {
            self.guard(&core)?;
        }
        self.watchers.tell(StoreEvent::Opened(core.discovery_key()));
        Ok(core)
    }

    /// Whether `core` is the one that this store has open.
    fn holds(&self, core: &Core) -> bool {
        let open = self.opened.get(&core.discovery_key());
        open.is_some_and(|open| open.is_same(core))
    }

    /// Teaches a core that is here what it did not know: its manifest, its name.
    fn adopt(&self, mut opened: OpenedCore, wanted: &Wanted) -> Result<OpenedCore, StoreError> {
        let mut write = CoreWrite::default();
        if opened.header.manifest.is_none() {
            write.manifest.clone_from(&wanted.manifest);
        }
        if opened.header.alias().is_none() {
            let user_data = wanted.user_data();
            write.user_data = user_data.map(|(key, value)| (key, Some(value))).collect();
        }
        if write.manifest.is_none() && write.user_data.is_empty() {
            return Ok(opened);
        }
        if !self.read_only {
            opened.storage.commit(write.clone(), self.durability)?;
        }
        let header = &mut opened.header;
        header.manifest = header.manifest.take().or(write.manifest);
        let added = write.user_data.into_iter();
        header
            .user_data
            .extend(added.filter_map(|(key, value)| Some((key, value?))));
        Ok(opened)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.opened.close();
        self.watchers.close();
    }
}

/// Lets a core that was not created under `alias` tell it, should the index be lost.
fn remember(core: &Core, alias: &Alias) -> Result<(), CoreError> {
    for (key, value) in alias.user_data(GIVEN) {
        if core.user_data(key).as_ref() != Some(&value) {
            core.set_user_data(key, Some(&value))?;
        }
    }
    Ok(())
}

/// Whether one key pair is enough to append.
fn signs_alone(manifest: Option<Manifest>) -> bool {
    manifest.is_none_or(|manifest| manifest.quorum == 1)
}
