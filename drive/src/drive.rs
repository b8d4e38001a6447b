//! The drive: a bee of names beside a core of bytes.
//!
//! Knows which two cores make a drive and how one finds the other. Does not know local folders.

use std::ops::RangeBounds;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ferrocore_bee::{Bee, Metadata, Options};
use ferrocore_log::{Core, CoreOptions, Corestore, EncryptionKey, Manifest};
use ferrocore_primitives::keys::Key;

use crate::batch::Batch;
use crate::blobs::{BlobReader, Blobs, blobs_manifest};
use crate::download::{Selection, Totals};
use crate::entry::{BlobId, Entry, EntryValue};
use crate::error::DriveError;
use crate::listing::{self, Entries, Folder};
use crate::path;

/// Most links that [`Drive::resolve`] goes along, as in JavaScript.
pub const LINK_HOPS_MAX: usize = 16;

/// The name of a drive's index in the namespace of the store it is created in.
const INDEX_NAME: &str = "db";

/// A versioned file system on two cores of a store, as Hyperdrive 13 makes it.
///
/// The *index* is a bee from paths to [`Entry`]s; its key is the drive's. The *blobs* core holds
/// the bytes. Clones share both. Reads that need blocks of others wait for them; how long is the
/// caller's to say. Local reads are ready when first polled.
///
/// ```
/// # pollster::block_on(async {
/// use ferrocore_drive::Drive;
/// use ferrocore_log::Corestore;
///
/// let drive = Drive::create(&Corestore::memory()).await?;
/// drive.put("/notes/today.txt", "buy milk").await?;
/// let version = drive.version();
/// drive.del("/notes/today.txt").await?;
///
/// let yesterday = drive.checkout(version);
/// assert_eq!(yesterday.read("notes/today.txt", 4..).await?, "milk");
/// # Ok::<_, ferrocore_drive::DriveError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Drive {
    bee: Bee,
    shared: Arc<Shared>,
    is_checkout: bool,
}

/// How a drive is opened, for those that are not public to whoever has their key.
#[derive(Debug, Clone, Default)]
pub struct DriveOptions {
    /// What the blocks of both cores are encrypted with. It is not kept: give it each time.
    pub encryption: Option<EncryptionKey>,
}

/// What all versions of a drive have in common.
struct Shared {
    store: Corestore,
    options: DriveOptions,
    blobs: OnceLock<Blobs>,
}

/// Where the files' bytes are.
enum BlobsCore {
    /// The index names it.
    Named(Key),
    /// It follows from the index's manifest.
    Derived(Manifest),
}

impl Drive {
    /// The drive of `store`'s namespace, created if it is not there yet. For several drives in
    /// one store give each a [`Corestore::namespace`].
    ///
    /// # Errors
    /// [`DriveError::Store`] if the store cannot open or create its cores.
    pub async fn create(store: &Corestore) -> Result<Self, DriveError> {
        Self::create_with(store, DriveOptions::default()).await
    }

    /// As [`Drive::create`], with options. An encrypted drive cannot be told from another one:
    /// give its key whenever it is opened, and no key to a drive that was created without.
    ///
    /// # Errors
    /// As for [`Drive::create`]; [`BeeError::NotABee`](ferrocore_bee::BeeError::NotABee) if it is
    /// there and encrypted with another key.
    pub async fn create_with(store: &Corestore, options: DriveOptions) -> Result<Self, DriveError> {
        Self::over(store, Self::create_index(store)?, options).await
    }

    /// The index that [`Drive::create`] would use, created if it is not there yet. To be asked for before the
    /// drive itself when the store was restored: the drive can be written once its index
    /// [is no more guarded](Core::is_guarded).
    ///
    /// # Errors
    /// [`DriveError::Store`] if the store cannot open or create it.
    pub fn create_index(store: &Corestore) -> Result<Core, DriveError> {
        Ok(store.get_named(INDEX_NAME)?)
    }

    /// The drive with this key. To write to it, give the store's namespace that it was created in.
    ///
    /// # Errors
    /// [`DriveError::Store`] if the store cannot open a core.
    pub async fn open(store: &Corestore, key: &Key) -> Result<Self, DriveError> {
        Self::open_with(store, key, DriveOptions::default()).await
    }

    /// As [`Drive::open`], with options. That the encryption key is not the right one shows when
    /// the drive is read: it is not a bee then.
    ///
    /// # Errors
    /// As for [`Drive::create_with`].
    pub async fn open_with(
        store: &Corestore,
        key: &Key,
        options: DriveOptions,
    ) -> Result<Self, DriveError> {
        Self::over(store, store.get(key)?, options).await
    }

    async fn over(
        store: &Corestore,
        index: Core,
        options: DriveOptions,
    ) -> Result<Self, DriveError> {
        let drive = Self::of_index(store, index, options);
        if drive.is_writable() {
            drive.blobs().await?;
        }
        Ok(drive)
    }

    /// Opens no other core.
    fn of_index(store: &Corestore, index: Core, options: DriveOptions) -> Self {
        let index = options.encrypt(index);
        let bee_options = Options {
            metadata: Some(Metadata::default()),
            ..Options::default()
        };
        Self {
            bee: Bee::new(index, bee_options),
            shared: Arc::new(Shared {
                store: store.clone(),
                options,
                blobs: OnceLock::new(),
            }),
            is_checkout: false,
        }
    }

    /// Puts a file, replacing what was at `path`.
    ///
    /// # Errors
    /// [`DriveError::Path`], [`DriveError::ReadOnlyVersion`], or the cores' errors when they are
    /// not writable here.
    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<(), DriveError> {
        let blob = self.blobs().await?.put(bytes).await?;
        self.put_entry(path, &EntryValue::file(blob, false)).await
    }

    /// Puts a symbolic link; `target` is kept as it is.
    ///
    /// # Errors
    /// As for [`Drive::put`].
    pub async fn symlink(&self, path: &str, target: &str) -> Result<(), DriveError> {
        self.put_entry(path, &EntryValue::link(target)).await
    }

    /// Puts an entry as it is. Its blob must be one of this drive's.
    ///
    /// # Errors
    /// As for [`Drive::put`].
    pub async fn put_entry(&self, path: &str, value: &EntryValue) -> Result<(), DriveError> {
        self.check_writable()?;
        let key = listing::key(&normalize(path)?);
        self.bee.put(key, value.to_json()).await?;
        Ok(())
    }

    /// Deletes what is at `path`; returns whether there was anything. Its bytes stay.
    ///
    /// # Errors
    /// As for [`Drive::put`].
    pub async fn del(&self, path: &str) -> Result<bool, DriveError> {
        self.check_writable()?;
        Ok(self.bee.del(listing::key(&normalize(path)?)).await?)
    }

    /// Several changes that are seen together.
    ///
    /// # Errors
    /// [`DriveError::ReadOnlyVersion`].
    pub async fn batch(&self) -> Result<Batch, DriveError> {
        self.check_writable()?;
        Ok(Batch::new(self.blobs().await?.clone(), self.bee.batch()))
    }

    /// The drive as it was at `version`, read-only.
    pub fn checkout(&self, version: u64) -> Self {
        Self {
            bee: self.bee.checkout(version),
            shared: self.shared.clone(),
            is_checkout: true,
        }
    }

    /// The drive as it is now, read-only.
    pub fn snapshot(&self) -> Self {
        self.checkout(self.version())
    }

    /// The drive's key: whoever has it can find and read the drive.
    pub fn key(&self) -> Key {
        self.index().key()
    }

    /// The core of the index. Its discovery key is what peers of the drive meet under.
    pub fn index(&self) -> &Core {
        self.bee.core()
    }

    /// Counts the changes made so far, from 1 for none.
    pub fn version(&self) -> u64 {
        self.bee.version()
    }

    /// Whether this drive can be written to here.
    pub fn is_writable(&self) -> bool {
        !self.is_checkout && self.index().is_writable()
    }

    /// Waits until all suppliers have said what they know of newer versions; returns whether
    /// there is one. Returns at once when there are no suppliers.
    ///
    /// # Errors
    /// As for [`Core::update`].
    pub async fn update(&self) -> Result<bool, DriveError> {
        Ok(self.index().update().await?)
    }

    /// What is at `path`, links not followed.
    ///
    /// # Errors
    /// [`DriveError::Path`], [`DriveError::Entry`] if the index holds something malformed, or the
    /// cores' errors.
    pub async fn entry(&self, path: &str) -> Result<Option<Entry>, DriveError> {
        let found = self.bee.get(listing::key(&normalize(path)?)).await?;
        found.map(listing::entry).transpose()
    }

    /// What is at `path`, or where the links there lead in Hyperdrive's reading
    /// ([`path::resolve`]).
    ///
    /// # Errors
    /// [`DriveError::LinkLoop`] after [`LINK_HOPS_MAX`] links, and those of [`Drive::entry`].
    pub async fn resolve(&self, path: &str) -> Result<Option<Entry>, DriveError> {
        let mut at = path.to_owned();
        for _ in 0..LINK_HOPS_MAX {
            let entry = self.entry(&at).await?;
            let target = entry
                .as_ref()
                .and_then(|entry| entry.value.linkname.as_deref());
            let Some(target) = target.filter(|target| !target.is_empty()) else {
                return Ok(entry);
            };
            at = path::resolve(&normalize(&at)?, target).map_err(|source| DriveError::Path {
                path: target.to_owned(),
                source,
            })?;
        }
        Err(DriveError::LinkLoop {
            path: path.to_owned(),
        })
    }

    /// The bytes of a file, whole or in part. A range that ends past the file stops there.
    ///
    /// # Errors
    /// As for [`Drive::reader`].
    pub async fn read(
        &self,
        path: &str,
        range: impl RangeBounds<u64>,
    ) -> Result<Bytes, DriveError> {
        self.reader(path, range).await?.read_to_end().await
    }

    /// The bytes of a file, whole or in part, block by block.
    ///
    /// # Errors
    /// [`DriveError::NotFound`], [`DriveError::NotAFile`], and those of [`Drive::entry`].
    pub async fn reader(
        &self,
        path: &str,
        range: impl RangeBounds<u64>,
    ) -> Result<BlobReader, DriveError> {
        let not_found = || DriveError::NotFound {
            path: path.to_owned(),
        };
        let entry = self.entry(path).await?.ok_or_else(not_found)?;
        let blob = entry.value.blob.ok_or_else(|| DriveError::NotAFile {
            path: path.to_owned(),
        })?;
        self.blobs().await?.read(&blob, range).await
    }

    /// All entries, in byte order of their paths. Foreign drives may hold paths that are not
    /// normalised; they are among them.
    pub fn entries(&self) -> Entries {
        Entries::all(&self.bee)
    }

    /// The entries below `folder`, at any depth, in byte order of their paths.
    ///
    /// # Errors
    /// [`DriveError::Path`].
    pub fn list(&self, folder: &str) -> Result<Entries, DriveError> {
        Ok(Entries::below(&self.bee, &normalize_folder(folder)?))
    }

    /// The files and folders directly in `folder`.
    ///
    /// # Errors
    /// [`DriveError::Path`].
    pub fn read_dir(&self, folder: &str) -> Result<Folder, DriveError> {
        Ok(Folder::new(&self.bee, normalize_folder(folder)?))
    }

    /// Whether every byte of the file at `path`, or of the files below it, is here. False if
    /// there is no file.
    ///
    /// # Errors
    /// As for [`Drive::entry`].
    pub async fn has(&self, path: &str) -> Result<bool, DriveError> {
        let folder = normalize_folder(path)?;
        let file = match folder.as_str() {
            "" => None,
            path => self.entry(path).await?,
        };
        if let Some(file) = file {
            return self.has_blob(file.value.blob).await;
        }
        let mut entries = Entries::below(&self.bee, &folder);
        let mut found = false;
        while let Some(entry) = entries.next().await? {
            if entry.value.blob.is_some() {
                found = true;
                if !self.has_blob(entry.value.blob).await? {
                    return Ok(false);
                }
            }
        }
        Ok(found)
    }

    /// Fetches everything that `selection` picks, index and bytes, into the store.
    ///
    /// # Errors
    /// As for [`Drive::entry`]; [`CoreError::NoPeers`](ferrocore_log::CoreError::NoPeers) when
    /// nobody is left to ask.
    pub async fn download(&self, selection: &Selection) -> Result<(), DriveError> {
        crate::download::download(self, selection).await
    }

    /// How many files and bytes `selection` picks. Fetches the whole index, no bytes.
    ///
    /// # Errors
    /// The cores' errors.
    pub async fn totals(&self, selection: &Selection) -> Result<Totals, DriveError> {
        crate::download::totals(self, selection).await
    }

    /// The core of the bytes, once it is known: a reader learns it from the index's header, or
    /// from the manifest that comes with the first block.
    ///
    /// # Errors
    /// [`DriveError::NoBlobs`] if the index is not a drive's, the cores' errors if its header
    /// cannot be had.
    pub async fn blobs(&self) -> Result<&Blobs, DriveError> {
        if let Some(blobs) = self.shared.blobs.get() {
            return Ok(blobs);
        }
        let core = self.shared.options.encrypt(self.open_blobs().await?);
        Ok(self.shared.blobs.get_or_init(|| Blobs::new(core)))
    }

    /// The key of the core that holds the bytes of the files of the drive `key`. That core is not opened: it may be
    /// elsewhere, or damaged.
    ///
    /// # Errors
    /// [`DriveError::NoBlobs`] if it has none; as [`Drive::open_with`].
    pub async fn blobs_key(
        store: &Corestore,
        key: &Key,
        options: DriveOptions,
    ) -> Result<Key, DriveError> {
        let drive = Self::of_index(store, store.get(key)?, options);
        Ok(match drive.find_blobs().await? {
            BlobsCore::Named(key) => key,
            BlobsCore::Derived(manifest) => manifest.key(),
        })
    }

    async fn open_blobs(&self) -> Result<Core, DriveError> {
        match self.find_blobs().await? {
            BlobsCore::Named(key) => Ok(self.shared.store.get(&key)?),
            BlobsCore::Derived(manifest) => self.open_derived(manifest),
        }
    }

    async fn find_blobs(&self) -> Result<BlobsCore, DriveError> {
        let header = self.bee.header().await?;
        let no_blobs = || DriveError::NoBlobs { key: self.key() };
        let named = header
            .and_then(|header| header.metadata)
            .and_then(|metadata| metadata.content_feed)
            .filter(|key| !key.is_empty());
        if let Some(named) = named {
            let key: [u8; 32] = *named.first_chunk().ok_or_else(no_blobs)?;
            return Ok(BlobsCore::Named(Key::from(key)));
        }
        let index = self.index().manifest().ok_or_else(no_blobs)?;
        let manifest = blobs_manifest(&self.key(), &index).ok_or_else(no_blobs)?;
        Ok(BlobsCore::Derived(manifest))
    }

    /// Opens the derived blobs core, with the index's key pair where that derives here.
    fn open_derived(&self, manifest: Manifest) -> Result<Core, DriveError> {
        let store = &self.shared.store;
        let key_pair = store.key_pair(INDEX_NAME);
        let ours = manifest
            .signers
            .iter()
            .any(|signer| signer.public_key == key_pair.public_key());
        if !ours || !self.index().is_writable() {
            return Ok(store.get(&manifest.key())?);
        }
        Ok(store.get_with(CoreOptions {
            manifest: Some(manifest),
            key_pair: Some(key_pair),
            ..CoreOptions::default()
        })?)
    }

    /// Makes several changes in one append. Paths are taken as they are.
    pub(crate) async fn apply(&self, changes: Vec<Change>) -> Result<(), DriveError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        let mut batch = self.bee.batch();
        for Change { path, value } in changes {
            let key = listing::key(&path);
            match value {
                Some(value) => batch.put(key, value.to_json()).await?,
                None => batch.del(key).await?,
            };
        }
        Ok(batch.flush().await?)
    }

    async fn has_blob(&self, blob: Option<BlobId>) -> Result<bool, DriveError> {
        match blob {
            Some(blob) => self.blobs().await?.has(&blob).await,
            None => Ok(false),
        }
    }

    fn check_writable(&self) -> Result<(), DriveError> {
        match self.is_checkout {
            true => Err(DriveError::ReadOnlyVersion),
            false => Ok(()),
        }
    }
}

impl DriveOptions {
    fn encrypt(&self, core: Core) -> Core {
        match &self.encryption {
            Some(key) => core.with_encryption(key),
            None => core,
        }
    }
}

/// A new value for a path, or none.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) path: String,
    pub(crate) value: Option<EntryValue>,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive")
            .field("key", &self.key())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// The drive path of a file, or an error that names what was given.
pub(crate) fn normalize(name: &str) -> Result<String, DriveError> {
    path::normalize(name).map_err(|source| DriveError::Path {
        path: name.to_owned(),
        source,
    })
}

fn normalize_folder(name: &str) -> Result<String, DriveError> {
    path::normalize_folder(name).map_err(|source| DriveError::Path {
        path: name.to_owned(),
        source,
    })
}
