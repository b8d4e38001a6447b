//! Where cores live: the seam between the log and whatever keeps its bytes.
//!
//! [`Storage`] holds the cores of one store; [`CoreStorage`] holds one of them. Both are semantic:
//! they speak of blocks, nodes, bits and heads, and leave the layout to the implementation
//! ([`memory`], [`files`]). Neither verifies anything.
//!
//! # What survives what
//!
//! | | [`Durability::Buffered`] | [`Durability::Sync`] |
//! |---|---|---|
//! | an append, an upgrade, user data | a kill of the process, once the call returns | a power cut, once the call returns |
//! | a power cut takes | what came after the last flush, truncate or clear, newest first; of blocks appended since the system last wrote them out, bytes, which reading them tells | nothing that was acknowledged |
//! | the core after a power cut | a head it had, signed and whole | the last acknowledged head, or the one under way |
//! | who sees a new head | everybody, once it is with the operating system | nobody, before it is on the device: no event, no peer, no reader, nor who opens the core after a kill, after one who did not sync, or after another program; but who reads another program's core ([`StoreOptions::read_only`](crate::StoreOptions::read_only)) may |
//! | two histories of one fork and length | never after a kill; after a power cut, if a head was told that the cut took | never |
//! | truncate and clear | on the device before anything they give up is overwritten or freed | the same |
//! | a batch over several cores ([`Storage::commit`]) | whole or not at all after a kill; a power cut takes each core back by itself | whole or not at all after either |
//! | a new core | there after a kill; a power cut in the moment of its creation, before its first flush, may take it | there, directory entries and all, once it is created |
//! | a new name of a core | likewise | likewise |
//! | secret keys, the root secret | on the device when the call returns | the same |
//! | what an append waits for | one or two writes; the first one since the core was opened also one sync, for it stands on what whoever had the core before wrote | two syncs, shared by all who append to the core at the same time |
//!
//! After a failed write or sync a core refuses work ([`StorageError::Poisoned`]) until it is opened
//! again, and after a failed batch that may count already, all its cores do until the store is
//! opened again ([`StorageError::Unfinished`]): nobody knows then what is on the device.

pub mod memory;

#[cfg(feature = "files")]
pub mod files;

mod error;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::KeyPair;

use crate::bitfield::Bitfield;
use crate::manifest::Manifest;
use crate::merkle::{Node, Roots};
use crate::seek::{self, NodeSource};

pub use self::error::StorageError;
pub(crate) use self::write::set_user_data;
pub use self::write::{BitWrite, BlockWrite, CoreWrite, HeadWrite, WriteBatch};

/// What a commit survives once it has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The bytes are with the operating system: a kill of the process loses nothing.
    #[default]
    Buffered,
    /// The bytes are on the device: a power cut loses nothing.
    Sync,
}

/// The cores of one store.
pub trait Storage: Send + Sync + 'static {
    /// The store's root secret, made at the first call.
    ///
    /// # Errors
    /// [`StorageError`] if it can neither be read nor written.
    fn root_secret(&self) -> Result<[u8; 32], StorageError>;

    /// Opens a core, recovering it first, or `None` if it is not here.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another program has it open, [`StorageError::Corrupt`] if
    /// what is on disk cannot be a core.
    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError>;

    /// As [`Storage::open`], also if the roots of its log are missing or wrong; a storage that checks them opens no
    /// other core in `open`. Only to look for what they were.
    ///
    /// # Errors
    /// As for [`Storage::open`].
    fn open_unverified(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        self.open(core)
    }

    /// Creates a core that is not here yet; it is there for good when this returns.
    ///
    /// # Errors
    /// As for [`Storage::open`].
    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError>;

    /// What is stored of a core, without opening it: nothing is locked, repaired or written.
    ///
    /// Of a core that is open elsewhere this may be the state before its last commit.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if what is on disk cannot be a core.
    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError>;

    /// The discovery keys of all cores here, in no particular order.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the store cannot be listed.
    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError>;

    /// What the core and its drafts take on the disk, in bytes: whole file system blocks, no holes.
    /// Zero if it is not here.
    ///
    /// # Errors
    /// [`StorageError::Io`] if its files cannot be looked at.
    fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StorageError>;

    /// Deletes the core with its drafts, its names and its secret key; returns the bytes that
    /// [`Storage::disk_bytes`] told of it. It is there whole or not at all.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if it is open, [`StorageError::Io`].
    fn purge(&self, core: &DiscoveryKey) -> Result<u64, StorageError>;

    /// Finds what crashes left behind and is of no use to anybody, and removes it unless
    /// `dry_run`. A storage that leaves nothing behind finds nothing.
    ///
    /// # Errors
    /// [`StorageError::Io`]; what was removed until then is gone.
    fn collect_garbage(&self, dry_run: bool) -> Result<Vec<Garbage>, StorageError> {
        let _ = dry_run;
        Ok(Vec::new())
    }

    /// The key pair kept for a core beside its header.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be read.
    fn secret(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError>;

    /// Keeps the key pair of a core, which need not be here yet; on the device when this returns.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be written.
    fn set_secret(&self, core: &DiscoveryKey, key_pair: &KeyPair) -> Result<(), StorageError>;

    /// Whether the core must not be written until somebody shows how long it is.
    ///
    /// # Errors
    /// [`StorageError`] if that cannot be read.
    fn is_guarded(&self, core: &DiscoveryKey) -> Result<bool, StorageError>;

    /// Remembers whether the core must not be written for now; on the device when this returns.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be written.
    fn set_guarded(&self, core: &DiscoveryKey, guarded: bool) -> Result<(), StorageError>;

    /// The discovery key last kept under `alias`.
    ///
    /// # Errors
    /// [`StorageError`] if the index of aliases cannot be read.
    fn alias(&self, alias: &Alias) -> Result<Option<DiscoveryKey>, StorageError>;

    /// Commits `batch`: the changes of all its cores or of none. As to one core, a change is as
    /// with [`CoreStorage::commit`].
    ///
    /// # Errors
    /// [`StorageError::NotOpen`], [`StorageError::BatchTooLarge`] and
    /// [`StorageError::Poisoned`] before anything is changed. [`StorageError::Io`] may poison all
    /// cores of the batch; if [`StorageError::Unfinished`] follows, open the store again.
    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError>;

    /// All names and the cores last kept under them, in no particular order.
    ///
    /// # Errors
    /// [`StorageError`] if the index of aliases cannot be read.
    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError>;

    /// Keeps `core` under `alias`.
    ///
    /// # Errors
    /// [`StorageError`] if the index of aliases cannot be written.
    fn set_alias(&self, alias: Alias, core: &DiscoveryKey) -> Result<(), StorageError>;
}

/// Something of no use that [`Storage::collect_garbage`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Garbage {
    /// Where it is, or was.
    pub path: PathBuf,
    /// What it takes on the disk, or took, in bytes.
    pub bytes: u64,
}

/// A name within a namespace of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Alias {
    /// The namespace, all zero for the root.
    pub namespace: [u8; 32],
    /// The name as given by the application.
    pub name: String,
}

/// A core as [`Storage::open`] and [`Storage::create`] hand it over.
pub struct OpenedCore {
    /// Its last committed state.
    pub header: CoreHeader,
    /// The blocks it holds. It may still have to be read where nobody has looked yet; should that fail,
    /// [`CoreStorage::check`] does too from then on.
    pub bitfield: Bitfield,
    /// Reads and writes it; exclusive until dropped.
    pub storage: Arc<dyn CoreStorage>,
    /// Where its drafts are, if the storage has a place for them.
    pub drafts: Option<Arc<dyn DraftStorage>>,
    /// Keeps what froze it, if this storage can: without, a frozen core is frozen until it is
    /// closed.
    pub conflicts: Option<Arc<dyn ConflictKeeper>>,
}

/// The drafts of one core. Each is a core by itself, of which only the
/// [draft](crate::Draft) knows what it means.
pub trait DraftStorage: Send + Sync + 'static {
    /// Opens a draft, recovering it first, or `None` if it is not here.
    ///
    /// # Errors
    /// As for [`Storage::open`].
    fn open(&self, draft: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError>;

    /// Creates a draft that is not here yet.
    ///
    /// # Errors
    /// As for [`Storage::open`].
    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError>;

    /// What is stored of all drafts, in no particular order; may lag behind those that are open.
    ///
    /// # Errors
    /// [`StorageError`] if one cannot be read.
    fn list(&self) -> Result<Vec<CoreHeader>, StorageError>;

    /// Deletes a draft, which nobody may have open; returns whether there was one.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn remove(&self, draft: &DiscoveryKey) -> Result<bool, StorageError>;
}

/// Keeps the evidence that froze a core, apart from the core itself.
pub trait ConflictKeeper: Send + Sync + 'static {
    /// What is kept.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be read.
    fn load(&self) -> Result<Option<Vec<u8>>, StorageError>;

    /// Keeps `evidence` for good: on the device, whatever the durability.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be written.
    fn keep(&self, evidence: &[u8]) -> Result<(), StorageError>;
}

/// Everything about a core but its blocks, nodes and bits.
#[derive(Debug, Clone)]
pub struct CoreHeader {
    /// The core's key.
    pub key: Key,
    /// Its manifest, once known.
    pub manifest: Option<Manifest>,
    /// The key pair kept with the core. Absent when it derives from the store's root secret.
    pub key_pair: Option<KeyPair>,
    /// Small values kept beside the log.
    pub user_data: BTreeMap<String, Vec<u8>>,
    /// The signed head.
    pub head: Head,
}

/// User data that holds the name a core was created under, as Corestore 6 writes it.
pub const NAME_USER_DATA: &str = "corestore/name";
/// User data that holds the namespace of that name, 32 bytes.
pub const NAMESPACE_USER_DATA: &str = "corestore/namespace";

/// The keys of both.
pub(crate) const CREATED_UNDER: [&str; 2] = [NAME_USER_DATA, NAMESPACE_USER_DATA];
/// User data that holds a name and its namespace which were given to a core that was not created under them. Corestore 6 takes
/// whatever it finds under its own keys for what the key pair derives from.
pub(crate) const GIVEN: [&str; 2] = ["ferrocore/name", "ferrocore/namespace"];

impl CoreHeader {
    /// The name the core was created under, if it was created under one.
    pub fn alias(&self) -> Option<Alias> {
        Alias::from_user_data(CREATED_UNDER, |key| self.user_data.get(key).cloned())
    }

    /// The name that was given to the core, if it was created under none.
    pub(crate) fn given_alias(&self) -> Option<Alias> {
        Alias::from_user_data(GIVEN, |key| self.user_data.get(key).cloned())
    }
}

impl Alias {
    /// The name that user data tells under these keys, each value of which is had by its key.
    pub(crate) fn from_user_data(
        [name, namespace]: [&str; 2],
        value: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        Some(Self {
            name: String::from_utf8(value(name)?).ok()?,
            namespace: value(namespace)?.try_into().ok()?,
        })
    }

    /// The user data that tells it under these keys.
    pub(crate) fn user_data<'a>(&self, keys: [&'a str; 2]) -> [(&'a str, Vec<u8>); 2] {
        let [name, namespace] = keys;
        [
            (name, self.name.clone().into_bytes()),
            (namespace, self.namespace.to_vec()),
        ]
    }
}

/// The head of a core: what its last signature signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which history this is; a truncate starts another.
    pub fork: u64,
    /// Blocks in the log.
    pub length: u64,
    /// Hash over the roots; of no meaning at length 0.
    pub root_hash: Hash,
    /// As the manifest prescribes; empty at length 0 and for a static core.
    pub signature: Bytes,
}

impl Head {
    /// The head of a core without blocks.
    pub fn empty() -> Self {
        Self {
            fork: 0,
            length: 0,
            root_hash: Hash::from([0; 32]),
            signature: Bytes::new(),
        }
    }
}

/// One core's bytes. Reads may run beside a commit; commits queue up behind each other.
pub trait CoreStorage: Send + Sync + 'static {
    /// The tree node at `index`, if it is here.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the tree cannot be read.
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError>;

    /// The first index from `from` on at which there may be a node, or `None` if there is none: of a sparse tree, what is
    /// empty is skipped where that is known.
    ///
    /// # Errors
    /// As for [`CoreStorage::node`].
    fn next_node(&self, from: u64) -> Result<Option<u64>, StorageError> {
        Ok(Some(from))
    }

    /// Where block `index` of a log with these roots lies, or `None` if a node that tells is not
    /// here. A storage may answer from what it remembers of the history that the roots are of.
    ///
    /// # Errors
    /// As for [`CoreStorage::node`].
    fn locate(&self, roots: &Roots, index: u64) -> Result<Option<BlockPlace>, StorageError> {
        BlockPlace::find(roots, &NodesOf(self), index)
    }

    /// `size` bytes of block data from `byte_offset`. Bytes of blocks that are not here read as
    /// anything; the caller's rehash tells.
    ///
    /// # Errors
    /// [`StorageError::Io`] if they cannot be read, [`StorageError::Corrupt`] if the data ends
    /// before them: a size that a damaged node names is not allocated.
    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError>;

    /// Fails if the bits of this core cannot be relied on any more: one that is not set may be one that could
    /// not be read. Must cost next to nothing.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Whether block `index`, which was here when the core was opened, still is; `None` if nobody but who has
    /// this storage can have cleared it. Asked when its bytes are not what they should be.
    ///
    /// # Errors
    /// [`StorageError`] if that cannot be told.
    fn still_has(&self, index: u64) -> Result<Option<bool>, StorageError> {
        let _ = index;
        Ok(None)
    }

    /// Says what the roots of a core that was opened [unverified](Storage::open_unverified) are, which its signature was
    /// found to hold for. Those that are stored otherwise stay so until they are committed.
    ///
    /// # Errors
    /// As for [`CoreStorage::flush`].
    fn set_roots(&self, roots: &Roots) -> Result<(), StorageError> {
        let _ = roots;
        Ok(())
    }

    /// Commits `write` whole or not at all. Of one that replaces history and brings blocks too,
    /// a crash may keep the history without the blocks.
    ///
    /// # Errors
    /// [`StorageError::Io`] poisons the core: every later call answers
    /// [`StorageError::Poisoned`] until it is opened again.
    fn commit(&self, write: CoreWrite, durability: Durability) -> Result<(), StorageError>;

    /// Moves everything out of the journal into its place.
    ///
    /// # Errors
    /// As for [`CoreStorage::commit`].
    fn flush(&self, durability: Durability) -> Result<(), StorageError>;
}

/// Where a block lies, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlace {
    /// Its size and hash.
    pub leaf: Node,
    /// Where it begins in the concatenation of all blocks.
    pub byte_offset: u64,
}

impl BlockPlace {
    /// Walks from the roots down to block `index`.
    pub(crate) fn find(
        roots: &Roots,
        nodes: &impl NodeSource,
        index: u64,
    ) -> Result<Option<Self>, StorageError> {
        let Some(leaf) = nodes.node(2 * index)? else {
            return Ok(None);
        };
        let byte_offset = seek::byte_offset(roots, nodes, leaf.index)?;
        Ok(byte_offset.map(|byte_offset| Self { leaf, byte_offset }))
    }
}

/// A storage as a source of nodes.
pub(crate) struct NodesOf<'a, S: ?Sized>(pub(crate) &'a S);

impl<S: CoreStorage + ?Sized> NodeSource for NodesOf<'_, S> {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.0.node(index)
    }
}

/// Locks `mutex`. A panic under a lock of this crate leaves whole values behind, so it stays usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
