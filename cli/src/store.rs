//! The store of a command: where it is, its node, its names, the drives that are open.
//! Knows how targets become drives and cores. Does not know commands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcetera::BaseStrategy as _;
use ferrocore::drive::{Drive, DriveOptions};
use ferrocore::log::{StorageError, StoreError};
use ferrocore::{Core, Durability, EncryptionKey, Key, Node, NodeError};
use tokio::sync::Mutex;

use crate::args::{self, Globals};
use crate::exit::{Failure, Kind, Result};
use crate::keyring::Keyring;
use crate::labels;
use crate::names::{CoreKind, Named, Names};
use crate::target::{Name, Place};

/// The directory of our own under the user's data directory.
const DIRECTORY: &str = "ferrocore";

/// Where the cores are, under the store.
const CORES: &str = "corestore";

/// An open store, shared by all commands that run on it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) node: Node,
    pub(crate) names: Names,
    pub(crate) keyring: Keyring,
    /// Whether this run created it.
    pub(crate) is_new: bool,
    durability: args::Durability,
    /// Drives we write, by key: all writers of one must share it.
    drives: Mutex<HashMap<Key, Drive>>,
}

/// What opening a store came to.
#[derive(Debug)]
pub(crate) enum Opening {
    Opened(Arc<Store>),
    /// Somebody else holds it; the failure says who.
    Held(Failure),
}

/// The directory of the store that the options mean.
pub(crate) fn locate(globals: &Globals, directory: &Path) -> Result<PathBuf> {
    if let Some(dir) = &globals.store {
        return Ok(directory.join(dir));
    }
    let base = etcetera::choose_base_strategy().map_err(|error| {
        Failure::new(Kind::Storage, error).hint("say where the store is with --store DIR")
    })?;
    Ok(base.data_dir().join(DIRECTORY))
}

impl Store {
    /// Opens the store in `dir`, creating it if there is none.
    pub(crate) async fn open(dir: &Path, globals: &Globals) -> Result<Opening> {
        let is_new = !dir.join(CORES).exists();
        create_private(dir)?;
        let mut builder = Node::builder()
            .dir(dir)
            .durability(globals.durability.into());
        if let Some(rate) = globals.up {
            builder = builder.upload_limit(rate);
        }
        if let Some(rate) = globals.down {
            builder = builder.download_limit(rate);
        }
        match builder.open().await {
            Ok(node) => Ok(Opening::Opened(Self::new(dir, node, is_new, globals)?)),
            Err(error @ NodeError::Store(StoreError::Storage(StorageError::Locked { .. }))) => {
                Ok(Opening::Held(error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the store in `dir`, which somebody else holds, to read what was last committed.
    pub(crate) async fn open_read_only(dir: &Path, globals: &Globals) -> Result<Arc<Self>> {
        let node = Node::builder().dir(dir).read_only().open().await?;
        Self::new(dir, node, false, globals)
    }

    fn new(dir: &Path, node: Node, is_new: bool, globals: &Globals) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            names: Names::open(dir, || labels::find(&node))?,
            node,
            keyring: Keyring::of(dir),
            is_new,
            durability: globals.durability,
            drives: Mutex::default(),
        }))
    }

    /// Refuses options that only whoever opens the store can grant.
    pub(crate) fn check_guest(&self, globals: &Globals) -> Result<()> {
        let refused = if globals.durability == args::Durability::Sync
            && self.durability != globals.durability
        {
            "--durability sync"
        } else if globals.up.is_some() || globals.down.is_some() {
            "--up and --down"
        } else {
            return Ok(());
        };
        Err(Failure::usage(format!(
            "the store is held by another fcore, which was started without {refused}"
        ))
        .hint(format!("start that one with {refused}")))
    }

    /// The drive that `place` means, at the version it names.
    pub(crate) async fn drive(&self, place: &Place) -> Result<Drive> {
        let key = self.names.key(&place.base)?;
        match self.names.find_kind(&key) {
            Some(CoreKind::Core) => Err(Failure::usage(format!(
                "`{}` is a core, not a drive",
                place.base
            ))
            .hint("see `fcore core --help`")),
            _ => self.open_drive(&key, self.encryption(&key, place)?).await,
        }
    }

    /// The drive called `name`, created if there is none: encrypted with a new key if `encrypt`.
    pub(crate) async fn create_drive(
        &self,
        name: &Name,
        folder: Option<PathBuf>,
        encrypt: bool,
    ) -> Result<Drive> {
        let mut drives = self.drives.lock().await;
        let known = self.names.find(name).map(|named| named.key);
        let encryption = match known {
            Some(key) => self.keyring.get(&key)?,
            None => encrypt.then(EncryptionKey::generate),
        };
        if encrypt && encryption.is_none() {
            let message = format!("`{name}` is there already, and is not encrypted");
            return Err(Failure::usage(message).hint("add --new to make an encrypted one"));
        }
        let options = DriveOptions { encryption };
        let drive = self.node.create_drive_with(name.as_str(), options.clone());
        let drive = drive.await?;
        if known.is_none() {
            let encryption = options.encryption.as_ref();
            self.keyring.begin(&drive.key(), encryption)?;
        }
        let drive = drives.entry(drive.key()).or_insert(drive).clone();
        let named = Named {
            kind: CoreKind::Drive,
            key: drive.key(),
            folder,
        };
        self.name(name, named)?;
        Ok(drive)
    }

    /// Lets `name` stand for `named`, also should the file of names be lost.
    pub(crate) fn name(&self, name: &Name, named: Named) -> Result<()> {
        for (name, named) in self.names.set(name, named)? {
            labels::put(&self.node.core(&named.key)?, &name, &named)?;
        }
        Ok(())
    }

    /// The drive with this key, decrypted if its encryption key is remembered.
    pub(crate) async fn drive_by_key(&self, key: &Key) -> Result<Drive> {
        self.open_drive(key, self.keyring.get(key)?).await
    }

    /// The core with the files' bytes of a drive, which may be too damaged to be opened.
    pub(crate) async fn blobs_key(&self, key: &Key) -> Result<Key> {
        let encryption = self.keyring.get(key)?;
        let options = DriveOptions { encryption };
        Ok(Drive::blobs_key(self.node.store(), key, options).await?)
    }

    /// Whether the drive was opened to be written since we hold the store.
    pub(crate) async fn is_drive_open(&self, key: &Key) -> bool {
        self.drives.lock().await.contains_key(key)
    }

    /// Lets a drive close once nobody uses it.
    pub(crate) async fn close_drive(&self, key: &Key) {
        self.drives.lock().await.remove(key);
    }

    /// Remembers the encryption key that `place` gives, once the drive was read with it. That of
    /// a drive of ours is remembered from its beginning, and not to be overwritten.
    pub(crate) fn remember(&self, place: &Place, drive: &Drive) -> Result<()> {
        match &place.encryption {
            Some(key) if !drive.is_writable() => self.keyring.put(&drive.key(), key),
            _ => Ok(()),
        }
    }

    async fn open_drive(&self, key: &Key, encryption: Option<EncryptionKey>) -> Result<Drive> {
        let mut drives = self.drives.lock().await;
        if let Some(drive) = drives.get(key) {
            return Ok(drive.clone());
        }
        let options = DriveOptions { encryption };
        let drive = match self.names.name_of(key) {
            // The names of our drives are their namespaces, too.
            Some(name) => {
                let store = self.node.store().namespace(name.as_str());
                Drive::open_with(&store, key, options).await?
            }
            None => self.node.drive_with(key, options).await?,
        };
        if drive.is_writable() {
            drives.insert(*key, drive.clone());
        }
        Ok(drive)
    }

    /// The core that `place` means.
    pub(crate) fn core(&self, place: &Place) -> Result<Core> {
        let key = self.core_key(place)?;
        let core = self.node.core(&key)?;
        Ok(match self.encryption(&key, place)? {
            Some(key) => core.with_encryption(&key),
            None => core,
        })
    }

    /// The core that `place` means, also if its roots are damaged: to audit it.
    pub(crate) fn core_to_audit(&self, place: &Place) -> Result<Core> {
        let key = self.core_key(place)?;
        match self.node.store().danger_get_unverified(&key)? {
            Some(core) => Ok(core),
            None => self.core(place),
        }
    }

    fn core_key(&self, place: &Place) -> Result<Key> {
        if place.path.is_some() || place.version.is_some() {
            return Err(Failure::usage("a core has neither versions nor paths"));
        }
        self.names.key(&place.base)
    }

    /// What the core `key` is encrypted with, as `place` says or as is remembered.
    fn encryption(&self, key: &Key, place: &Place) -> Result<Option<EncryptionKey>> {
        match &place.encryption {
            Some(given) => Ok(Some(given.clone())),
            None => self.keyring.get(key),
        }
    }
}

impl From<args::Durability> for Durability {
    fn from(durability: args::Durability) -> Self {
        match durability {
            args::Durability::Buffered => Self::Buffered,
            args::Durability::Sync => Self::Sync,
        }
    }
}

/// Creates the directory for us alone: keys will lie in it.
pub(crate) fn create_private(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let created = builder.create(dir);
    created.map_err(|error| Failure::storage(format!("cannot create {}", dir.display()), &error))
}
