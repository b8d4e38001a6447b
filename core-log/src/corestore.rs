//! Many cores in one place: by name, by key, by discovery key.
//!
//! Knows how named cores derive from the store's root secret, and shares each open core within
//! the process. Does not know where cores are kept ([`crate::storage`]) or how they travel.

mod batch;
mod keys;
mod opened;
mod statics;
mod watch;

use std::fmt;
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

use ferrocore_primitives::hash;
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::namespace;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

use self::opened::Registry;
use crate::core::{Core, CoreError, Flusher};
use crate::encryption::EncryptionKey;
use crate::manifest::Manifest;
use crate::root_secret::RootSecret;
use crate::signer::{Secret, Signer};
#[cfg(feature = "files")]
use crate::storage::files::{Files, ReadOnlyFiles};
use crate::storage::memory::Memory;
use crate::storage::{
    Alias, CoreHeader, CoreWrite, Durability, Garbage, Head, NAME_USER_DATA, NAMESPACE_USER_DATA,
    OpenedCore, Storage, StorageError,
};

pub use self::batch::Batch;
pub use self::keys::{CoreSecret, SecretOrigin};
pub use self::opened::{OpenedCores, StoreFinding};
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

/// How a store is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreOptions {
    /// What a commit survives once it has returned.
    pub durability: Durability,
    /// Most files that are open at once for the cores of the store, at least 8. Any number of
    /// cores may be open: the files of those used longest ago are closed meanwhile. Only those in
    /// use at the moment may exceed it. By default a quarter of what the system allows the
    /// process, but at most 1024; raise it when many more cores are busy at a time.
    pub open_files_max: Option<usize>,
    /// Open a store on disk to be read only: nothing in it is changed, locked or repaired, so it
    /// may lie on a medium that cannot be written, and another program may have it open. Each
    /// core is as it was last committed when it was opened here; see
    /// [`ReadOnlyFiles`]. No core is writable, and whatever
    /// would change one fails with [`StorageError::ReadOnly`].
    pub read_only: bool,
}

impl From<Durability> for StoreOptions {
    fn from(durability: Durability) -> Self {
        Self {
            durability,
            ..Self::default()
        }
    }
}

/// Which core to open or create, for those that a name or a key alone does not tell.
///
/// The core's key follows from the manifest; without one, from the key pair; and the key pair,
/// if it is not given, from the name.
#[derive(Clone, Default)]
pub struct CoreOptions {
    /// The key; checked against the others if they are given too.
    pub key: Option<Key>,
    /// A name to find the core under from now on.
    pub name: Option<String>,
    /// The pair that signs. It is kept, in a private file, if this call creates the core and the
    /// pair does not derive from `name`.
    pub key_pair: Option<KeyPair>,
    /// What signs in the key pair's place, if the secret lives elsewhere. It is not kept: give it
    /// again whenever the core is opened for writing.
    pub signer: Option<Arc<dyn Signer>>,
    /// Who may sign, if not the key pair alone.
    pub manifest: Option<Manifest>,
    /// Make a core as hypercore 10 does by default: its key is the bare public key.
    pub compat: bool,
    /// The core's trees are signed as before there were namespaces
    /// ([`Signable::Legacy`](crate::signable::Signable::Legacy)): nothing but its key keeps such a signature
    /// apart from others by the same pair. Implies `compat`. It is not kept, so give it whenever the core is
    /// opened; of a core that is open already, whoever opened it has decided.
    pub legacy: bool,
    /// What its blocks are encrypted with, through the handle that is returned; see
    /// [`Core::with_encryption`]. It is not kept.
    pub encryption: Option<EncryptionKey>,
}

/// What is known of a core in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreInfo {
    /// Its key.
    pub key: Key,
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// The name and namespace it was created under.
    pub alias: Option<Alias>,
    /// Blocks in the log.
    pub length: u64,
    /// Which history it is at.
    pub fork: u64,
}

/// A store could not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The core could not be opened.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The options name no core; give a key, a name, a key pair or a manifest.
    #[error("no key, name, key pair or manifest says which core is meant")]
    Unspecified,
    /// The options name two different cores; leave one of them out.
    #[error("the key given is {given}, but the other options belong to core {derived}")]
    KeyMismatch {
        /// The key given.
        given: Key,
        /// The key that follows from the other options.
        derived: Key,
    },
    /// The key pair cannot sign for the core; give the right one, or none to read only.
    #[error("the key pair does not belong to core {core}")]
    KeyPairMismatch {
        /// The core.
        core: Key,
    },
    /// The core is not one of this store; take the handle that this store gives.
    #[error("core {core} is not open in this store")]
    OtherStore {
        /// The core.
        core: Key,
    },
    /// A static core needs a block.
    #[error("a static core of no blocks cannot be")]
    Empty,
    /// Somebody holds the core; drop all handles and try again.
    #[error("core {core} is in use; stop what uses it first")]
    InUse {
        /// The core, by discovery key.
        core: DiscoveryKey,
    },
    /// The core is open without the key pair; drop the other handles first.
    #[error("core {core} is already open for reading only; close it first")]
    OpenReadOnly {
        /// The core.
        core: Key,
    },
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
        if let Some(alias) = wanted.alias {
            self.inner.storage.set_alias(alias, &discovery_key)?;
        }
        Ok(match encryption {
            Some(key) => core.with_encryption(&key),
            None => core,
        })
    }

    /// All cores of the store, whatever their namespace, in the order of their discovery keys.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if one cannot be read.
    pub fn list(&self) -> Result<Vec<CoreInfo>, StoreError> {
        let mut cores = self.inner.storage.list()?;
        cores.sort_unstable();
        let info = |core| self.inner.info(&core).transpose();
        cores.into_iter().filter_map(info).collect()
    }

    /// Every name and the core last kept under it, by namespace and name.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the index of names cannot be read.
    pub fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StoreError> {
        let mut aliases = self.inner.storage.aliases()?;
        aliases.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(aliases)
    }

    /// The names of this namespace and the cores last kept under them, by name.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the index of names cannot be read.
    pub fn names(&self) -> Result<Vec<(String, DiscoveryKey)>, StoreError> {
        let here = |(alias, core): (Alias, _)| {
            (alias.namespace == self.namespace).then_some((alias.name, core))
        };
        Ok(self.aliases()?.into_iter().filter_map(here).collect())
    }

    /// The namespaces that have names, each a hash over its parent's and what it was called; all
    /// zero for the root. What they were called is not kept.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the index of names cannot be read.
    pub fn namespaces(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let aliases = self.aliases()?.into_iter();
        let mut namespaces: Vec<_> = aliases.map(|(alias, _)| alias.namespace).collect();
        namespaces.dedup();
        Ok(namespaces)
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

    /// Finds out which core `options` mean.
    fn resolve(&self, options: CoreOptions) -> Result<Wanted, StoreError> {
        let alias = options.name.map(|name| self.alias(&name));
        let derived = alias.as_ref().map(|alias| self.inner.derive(alias));
        let elsewhere = options.signer.map(Secret::elsewhere);
        let key_pair = options.key_pair.as_ref().or(derived.as_ref());
        let public_key = key_pair.map(KeyPair::public_key);
        let public_key = elsewhere.as_ref().map(Secret::public_key).or(public_key);
        let sole = public_key.map(Manifest::single);
        let sole = sole.filter(|manifest| options.key.is_none_or(|key| manifest.belongs_to(&key)));
        let manifest = options.manifest.or(sole);
        let key = match (options.key, &manifest) {
            (Some(given), Some(manifest)) if !manifest.belongs_to(&given) => {
                let derived = manifest.key();
                return Err(StoreError::KeyMismatch { given, derived });
            }
            (Some(given), _) => given,
            (None, Some(manifest)) if options.compat || options.legacy => compat_key(manifest),
            (None, Some(manifest)) => manifest.key(),
            (None, None) => return Err(StoreError::Unspecified),
        };
        Ok(Wanted {
            key,
            manifest,
            key_pair: options.key_pair,
            elsewhere,
            derived,
            alias,
            is_legacy: options.legacy,
        })
    }
}

impl fmt::Debug for CoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signer = self.signer.as_ref().map(|signer| signer.public_key());
        f.debug_struct("CoreOptions")
            .field("key", &self.key)
            .field("name", &self.name)
            .field("key_pair", &self.key_pair)
            .field("signer", &signer)
            .field("manifest", &self.manifest)
            .field("compat", &self.compat)
            .field("legacy", &self.legacy)
            .field("is_encrypted", &self.encryption.is_some())
            .finish()
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
        let purpose = namespace::nth("corestore", 0);
        let parts = [purpose.as_bytes(), &alias.namespace, alias.name.as_bytes()];
        let seed = Zeroizing::new(*hash::keyed(self.root_secret.bytes(), &parts).as_bytes());
        KeyPair::from_seed(&seed)
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

    fn info(&self, core: &DiscoveryKey) -> Result<Option<CoreInfo>, StoreError> {
        // What is on disk may lag behind a core that is being written.
        if let Some(core) = self.opened.get(core) {
            return Ok(Some(CoreInfo::of(&core)));
        }
        Ok(self.storage.peek(core)?.map(|header| CoreInfo {
            alias: header.alias(),
            key: header.key,
            discovery_key: *core,
            length: header.head.length,
            fork: header.head.fork,
        }))
    }
}

impl CoreInfo {
    /// What an open core knows of itself.
    fn of(core: &Core) -> Self {
        let head = core.head();
        Self {
            key: core.key(),
            discovery_key: core.discovery_key(),
            alias: Alias::from_user_data(|key| core.user_data(key)),
            length: head.length,
            fork: head.fork,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.opened.close();
        self.watchers.close();
    }
}

/// A core that is to be opened or created.
struct Wanted {
    key: Key,
    manifest: Option<Manifest>,
    /// The key pair that was given.
    key_pair: Option<KeyPair>,
    /// What signs in its place.
    elsewhere: Option<Secret>,
    /// The key pair of the name.
    derived: Option<KeyPair>,
    alias: Option<Alias>,
    /// Whether it is signed as before there were namespaces.
    is_legacy: bool,
}

impl Wanted {
    /// The header of the core if it must be created.
    fn header(&self) -> Result<CoreHeader, StoreError> {
        if self
            .secret()
            .is_some_and(|given| !self.fits(given.public_key()))
        {
            return Err(StoreError::KeyPairMismatch { core: self.key });
        }
        Ok(CoreHeader {
            key: self.key,
            manifest: self.manifest.clone(),
            // What derives from the root secret is not written anywhere else.
            key_pair: self.key_pair.clone().filter(|_| !self.is_derived()),
            user_data: self.user_data().collect(),
            head: Head::empty(),
        })
    }

    /// What was given to sign with.
    fn secret(&self) -> Option<Secret> {
        let here = || self.key_pair.clone().map(Secret::Here);
        self.elsewhere.clone().or_else(here)
    }

    fn fits(&self, public_key: PublicKey) -> bool {
        signs_for(public_key, &self.key, self.manifest.as_ref())
    }

    /// Whether the key pair of the name signs for the core.
    fn is_derived(&self) -> bool {
        self.derived
            .as_ref()
            .is_some_and(|derived| self.fits(derived.public_key()))
    }

    /// The user data by which Corestore 6 recognises a named core. It takes the name's key pair
    /// to be the core's, so other cores do not get it.
    fn user_data(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let alias = self.alias.iter().filter(|_| self.is_derived());
        let pairs = alias.flat_map(|alias| {
            [
                (NAME_USER_DATA, alias.name.clone().into_bytes()),
                (NAMESPACE_USER_DATA, alias.namespace.to_vec()),
            ]
        });
        pairs.map(|(key, value)| (key.to_owned(), value))
    }
}

/// Whether `public_key` is among those that sign for the core.
fn signs_for(public_key: PublicKey, key: &Key, manifest: Option<&Manifest>) -> bool {
    match manifest {
        None => public_key.as_bytes() == key.as_bytes(),
        Some(manifest) => manifest
            .signers
            .iter()
            .any(|signer| signer.public_key == public_key),
    }
}

/// Whether one key pair is enough to append.
fn signs_alone(manifest: Option<Manifest>) -> bool {
    manifest.is_none_or(|manifest| manifest.quorum == 1)
}

/// The key of a compat core with this manifest; with several signers it cannot be one.
fn compat_key(manifest: &Manifest) -> Key {
    match manifest.signers.as_slice() {
        [signer] => Key::from(*signer.public_key.as_bytes()),
        _ => manifest.key(),
    }
}
