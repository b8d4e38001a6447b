//! The handle on one core, composed of its parts.
//!
//! [`Core`] is a cheap clone; all clones share one state. Reading roots and bits takes a short
//! shared lock, everything that changes the core holds the writer lock and flips the shared
//! state only after storage has committed.

mod accept;
mod append;
mod append_options;
mod audit;
pub(crate) mod batch;
mod copy;
mod cuts;
mod doubts;
mod draft;
mod encrypt;
mod error;
mod flusher;
mod freeze;
mod group;
mod guard;
mod history;
mod propose;
mod prove;
mod query;
mod read;
mod session;
mod shrink;
mod snapshot;
mod stream;
mod ticket;
mod want;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use async_lock::Mutex as AsyncMutex;
use bytes::Bytes;
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::KeyPair;

use self::group::CommitQueue;
use crate::bitfield::Bitfield;
use crate::conflict::Conflict;
use crate::encryption::{BlockCipher, CoreCiphers};
use crate::events::{Event, EventHub, Events};
use crate::extension::{Extension, ExtensionError, ExtensionHub};
use crate::flat_tree;
use crate::manifest::Manifest;
use crate::merkle::{Node, Roots};
use crate::push::Pushes;
use crate::seek::NodeSource;
use crate::signer::{Secret, Signer};
use crate::storage::{
    self, ConflictKeeper, CoreHeader, CoreStorage, CoreWrite, Durability, OpenedCore, StorageError,
};
use crate::supply::SupplyHub;
use crate::verifier::Verifier;

use self::cuts::Cuts;
use self::doubts::Doubts;
use self::draft::Drafts;
use self::guard::WriteGuard;

pub use accept::Accepted;
pub use append::{Appended, HashedBlocks};
pub use append_options::AppendOptions;
pub(crate) use draft::draft_base_again;
pub use draft::{CommitOptions, Draft, DraftOptions};
pub use error::{AcceptError, CoreError, ProveError};
pub(crate) use flusher::Flusher;
pub use freeze::FreezeError;
pub use group::{AcceptTicket, AdoptTicket, AppendTicket};
pub(crate) use guard::Release;
pub use guard::{BROKEN_CLAIMS_MAX, RemoteHead};
pub use propose::{Addition, Change, Cut, Proposal, Proposed, TruncateProposal};
pub use query::ByteSpan;
pub use read::Updated;
pub use session::Exclusive;
pub use snapshot::Snapshot;
pub use stream::{ByteStream, ReadStream, Sink};
pub use ticket::Ticket;
pub use want::{Download, Finding, Progress, Supply};

/// A core: a signed, append-only log of blocks.
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
    /// If this handle encrypts and decrypts.
    ciphers: Option<Arc<CoreCiphers>>,
    is_read_only: bool,
}

/// A handle that does not keep its core open.
#[derive(Clone)]
pub struct WeakCore {
    inner: Weak<Inner>,
    ciphers: Option<Arc<CoreCiphers>>,
    is_read_only: bool,
}

struct Inner {
    key: Key,
    discovery_key: DiscoveryKey,
    secret: Option<Secret>,
    durability: Durability,
    storage: Arc<dyn CoreStorage>,
    conflict_keeper: Option<Arc<dyn ConflictKeeper>>,
    shared: RwLock<Shared>,
    /// Held from reading the roots to the commit.
    writer: Mutex<()>,
    /// Changes that wait for a commit, with [`Durability::Sync`].
    queue: CommitQueue,
    flusher: Arc<Flusher>,
    /// Held by the one [`Exclusive`] handle.
    exclusive: Arc<AsyncMutex<()>>,
    cuts: Cuts,
    doubts: Doubts,
    drafts: Drafts,
    /// The cipher that was last found to fit the blocks of this history.
    fitting: Mutex<Option<BlockCipher>>,
    supply: SupplyHub,
    guard: WriteGuard,
    events: EventHub,
    extensions: ExtensionHub,
    pushes: Pushes,
}

/// What every reader sees: the state of the last commit.
#[derive(Clone)]
struct Shared {
    fork: u64,
    roots: Arc<Roots>,
    signature: Bytes,
    /// Known once the manifest is, and from the start for compat cores.
    verifier: Option<Verifier>,
    /// Looked at outside the lock, for that may read a page of it.
    bitfield: Arc<Bitfield>,
    contiguous_length: u64,
    user_data: BTreeMap<String, Vec<u8>>,
    /// While storage holds nodes of this history and of the one that takes its place: how many
    /// blocks both begin with.
    being_cut_to: Option<u64>,
    /// Set for good once two histories are known to be signed.
    conflict: Option<Arc<Conflict>>,
    /// Whether that was so when the core was opened, but cannot be shown any more.
    has_lost_evidence: bool,
}

impl Core {
    /// A handle on a core that storage has opened.
    ///
    /// With a `key_pair` that can sign for it alone, the core is writable.
    ///
    /// Cost: the roots are read, and one signature or a quorum of them is verified.
    ///
    /// # Errors
    /// [`CoreError::Manifest`] if the stored manifest does not belong to the key,
    /// [`CoreError::Storage`] if the roots of its length are not in storage, or are not those
    /// that were signed ([`StorageError::Corrupt`] in `head`): a writer would sign what it never
    /// appended.
    pub fn open(
        mut opened: OpenedCore,
        key_pair: Option<KeyPair>,
        durability: Durability,
    ) -> Result<Self, CoreError> {
        let key_pair = key_pair.or(opened.header.key_pair.take());
        let secret = key_pair.map(Secret::Here);
        Self::open_in(opened, secret, durability, Arc::default())
    }

    /// As [`Core::open`], for a secret that lives elsewhere.
    ///
    /// # Errors
    /// As for [`Core::open`].
    pub fn open_with_signer(
        opened: OpenedCore,
        signer: Arc<dyn Signer>,
        durability: Durability,
    ) -> Result<Self, CoreError> {
        let secret = Some(Secret::elsewhere(signer));
        Self::open_in(opened, secret, durability, Arc::default())
    }

    /// As [`Core::open`], for a core whose store has a flusher.
    pub(crate) fn open_in(
        opened: OpenedCore,
        secret: Option<Secret>,
        durability: Durability,
        flusher: Arc<Flusher>,
    ) -> Result<Self, CoreError> {
        let verifier = verifier_of(&opened.header)?;
        Self::open_verified(opened, verifier, secret, durability, flusher)
    }

    /// As [`Core::open_in`], for a core that is signed as before there were namespaces.
    pub(crate) fn open_legacy(
        opened: OpenedCore,
        secret: Option<Secret>,
        durability: Durability,
        flusher: Arc<Flusher>,
    ) -> Result<Self, CoreError> {
        let key = opened.header.key;
        let manifest = opened.header.manifest.as_ref();
        if manifest.is_some_and(|manifest| !manifest.is_compat_for(&key)) {
            return Err(CoreError::Manifest { core: key });
        }
        let verifier = Some(Verifier::legacy(key));
        Self::open_verified(opened, verifier, secret, durability, flusher)
    }

    fn open_verified(
        opened: OpenedCore,
        verifier: Option<Verifier>,
        secret: Option<Secret>,
        durability: Durability,
        flusher: Arc<Flusher>,
    ) -> Result<Self, CoreError> {
        let (header, storage) = (&opened.header, &*opened.storage);
        let roots = load_roots(storage, &header.key, header.head.length)?;
        let core = Self::assemble(opened, roots, verifier, secret, durability, flusher)?;
        let is_signed = core.inner.read().is_signed(&core.inner.key);
        is_signed.then_some(()).ok_or(core.inner.unsigned())?;
        Ok(core)
    }

    fn assemble(
        opened: OpenedCore,
        roots: Roots,
        verifier: Option<Verifier>,
        secret: Option<Secret>,
        durability: Durability,
        flusher: Arc<Flusher>,
    ) -> Result<Self, CoreError> {
        let header = opened.header;
        let key = header.key;
        let contiguous_length = opened.bitfield.next_unset(0).min(header.head.length);
        let evidence = freeze::load(&key, opened.conflicts.as_deref())?;
        let shared = Shared {
            fork: header.head.fork,
            roots: Arc::new(roots),
            signature: header.head.signature,
            verifier,
            bitfield: Arc::new(opened.bitfield),
            contiguous_length,
            user_data: header.user_data,
            being_cut_to: None,
            has_lost_evidence: matches!(evidence, freeze::Evidence::Damaged),
            conflict: match evidence {
                freeze::Evidence::Of(conflict) => Some(conflict),
                freeze::Evidence::None | freeze::Evidence::Damaged => None,
            },
        };
        let inner = Inner {
            key,
            discovery_key: key.discovery_key(),
            secret,
            durability,
            storage: opened.storage,
            conflict_keeper: opened.conflicts,
            shared: RwLock::new(shared),
            writer: Mutex::new(()),
            queue: CommitQueue::default(),
            flusher,
            exclusive: Arc::default(),
            cuts: Cuts::default(),
            doubts: Doubts::default(),
            drafts: Drafts::new(opened.drafts),
            fitting: Mutex::default(),
            supply: SupplyHub::default(),
            guard: WriteGuard::default(),
            events: EventHub::default(),
            extensions: ExtensionHub::default(),
            pushes: Pushes::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            ciphers: None,
            is_read_only: false,
        })
    }

    /// A handle that lets the core close.
    pub fn downgrade(&self) -> WeakCore {
        WeakCore {
            inner: Arc::downgrade(&self.inner),
            ciphers: self.ciphers.clone(),
            is_read_only: self.is_read_only,
        }
    }

    /// Sets a small value kept beside the log, or removes it: with `None`, or an empty value.
    ///
    /// # Errors
    /// [`CoreError::Storage`] if it cannot be committed, [`CoreError::ReadOnly`].
    pub fn set_user_data(&self, key: &str, value: Option<&[u8]>) -> Result<(), CoreError> {
        self.check_not_read_only()?;
        let _writer = self.inner.lock_writer();
        let (key, value) = (key.to_owned(), value.map(<[u8]>::to_vec));
        let write = CoreWrite {
            user_data: vec![(key.clone(), value.clone())],
            ..CoreWrite::default()
        };
        self.inner.storage.commit(write, self.inner.durability)?;
        self.inner
            .update(|shared| storage::set_user_data(&mut shared.user_data, key, value));
        Ok(())
    }

    /// Moves everything committed out of the journal into its place.
    ///
    /// # Errors
    /// [`CoreError::Storage`] if it cannot be written.
    pub fn flush(&self) -> Result<(), CoreError> {
        let _writer = self.inner.lock_writer();
        Ok(self.inner.storage.flush(self.inner.durability)?)
    }

    /// Whether both are handles on the same open core.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The core's key: whoever has it can find, verify and read the core.
    pub fn key(&self) -> Key {
        self.inner.key
    }

    /// The name under which peers meet without telling the key.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.inner.discovery_key
    }

    /// Blocks in the log, whether they are here or not.
    pub fn length(&self) -> u64 {
        self.inner.read().roots.length()
    }

    /// Bytes of all blocks of the log; of their plaintext if this handle decrypts.
    pub fn byte_length(&self) -> u64 {
        self.byte_length_of(&self.inner.read().roots)
    }

    /// Which history this is.
    pub fn fork(&self) -> u64 {
        self.inner.read().fork
    }

    /// Blocks that are here without a gap from the first.
    pub fn contiguous_length(&self) -> u64 {
        self.inner.read().contiguous_length
    }

    /// The manifest, once known; a compat core's says what its key says.
    pub fn manifest(&self) -> Option<Manifest> {
        let shared = self.inner.read();
        shared.verifier.as_ref().map(|v| v.manifest().clone())
    }

    /// Whether the key is the signer's bare public key. Unknown, and so `false`, for a reader
    /// that has not verified anything yet.
    pub fn is_compat(&self) -> bool {
        let shared = self.inner.read();
        shared.verifier.as_ref().is_some_and(Verifier::is_compat)
    }

    /// Whether this handle has what it takes to sign. A [guarded](Self::is_guarded) core, or one that
    /// somebody claims to have more of, is not appended to all the same for now.
    pub fn is_writable(&self) -> bool {
        !self.is_read_only && self.inner.is_written_here()
    }

    /// All values kept beside the log.
    pub(crate) fn all_user_data(&self) -> BTreeMap<String, Vec<u8>> {
        self.inner.read().user_data.clone()
    }

    /// A small value kept beside the log.
    pub fn user_data(&self, key: &str) -> Option<Vec<u8>> {
        self.inner.read().user_data.get(key).cloned()
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> Events {
        self.inner.events.subscribe()
    }

    /// Registers an extension: messages under `name` to and from the peers of this core.
    ///
    /// # Errors
    /// [`ExtensionError::Name`].
    pub fn extension(&self, name: &str) -> Result<Extension, ExtensionError> {
        Extension::new(self.clone(), name)
    }

    pub(crate) fn pushes(&self) -> &Pushes {
        &self.inner.pushes
    }

    pub(crate) fn extensions(&self) -> &ExtensionHub {
        &self.inner.extensions
    }

    pub(crate) fn wake_suppliers(&self) {
        self.inner.supply.wake_suppliers();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("key", &self.key())
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakCore").finish_non_exhaustive()
    }
}

impl WeakCore {
    /// The core, if it is still open.
    pub fn upgrade(&self) -> Option<Core> {
        Some(Core {
            inner: self.inner.upgrade()?,
            ciphers: self.ciphers.clone(),
            is_read_only: self.is_read_only,
        })
    }
}

impl Inner {
    // A panic under a lock cannot leave the state half changed: flips are plain assignments.
    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bits of the last commit.
    fn bits(&self) -> Arc<Bitfield> {
        Arc::clone(&self.read().bitfield)
    }

    fn update<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        change(&mut self.shared.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the secret that signs is ours to use: then nobody else makes the log longer.
    fn is_written_here(&self) -> bool {
        self.signer(&self.read()).is_some()
    }

    /// The secret and its signer's place in the manifest, if it can sign alone.
    fn signer(&self, shared: &Shared) -> Option<(&Secret, usize)> {
        let secret = self.secret.as_ref()?;
        let verifier = shared.verifier.as_ref()?;
        Some((secret, verifier.sole_signer(&secret.public_key())?))
    }

    /// The error of a core whose head nobody signed.
    fn unsigned(&self) -> StorageError {
        StorageError::Corrupt {
            core: self.discovery_key,
            part: "head",
            offset: 0,
            reason: "its signature does not hold over the roots in the tree".to_owned(),
        }
    }

    /// Tells everybody about committed changes.
    fn announce(&self, events: &[Event]) {
        self.end_guard();
        events.iter().for_each(|event| self.events.emit(event));
        let are_blocks = events.iter().all(|event| matches!(event, Event::Have(_)));
        let is_complete = {
            let shared = self.read();
            shared.contiguous_length == shared.roots.length()
        };
        match are_blocks && !is_complete {
            true => self.supply.wake_for_blocks(),
            false => self.supply.wake_suppliers(),
        }
    }
}

impl Shared {
    fn is_frozen(&self) -> bool {
        self.conflict.is_some() || self.has_lost_evidence
    }

    /// Whether the head is signed as the manifest prescribes. What was taken in without a
    /// manifest was verified with the key itself.
    fn is_signed(&self, key: &Key) -> bool {
        let verifier = self.verifier.as_ref();
        is_signed(key, verifier, (self.fork, &self.roots), &self.signature)
    }

    /// Changes the bits, whoever is looking at what they were.
    fn change_bits(&mut self, change: impl FnOnce(&mut Bitfield)) {
        change(Arc::make_mut(&mut self.bitfield));
    }

    /// Marks blocks as here and moves the contiguous length along.
    fn mark(&mut self, range: std::ops::Range<u64>) {
        let touches = range.contains(&self.contiguous_length);
        self.change_bits(|bits| bits.set_range(range, true));
        if touches {
            self.contiguous_length = self.bitfield.next_unset(self.contiguous_length);
        }
    }
}

/// Storage as a source of nodes.
struct Stored<'a>(&'a dyn CoreStorage);

impl NodeSource for Stored<'_> {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.0.node(index)
    }
}

/// As [`Shared::is_signed`].
fn is_signed(
    key: &Key,
    verifier: Option<&Verifier>,
    (fork, roots): (u64, &Roots),
    signature: &[u8],
) -> bool {
    let holds = |v: &Verifier| v.verify(fork, roots, Some(signature));
    roots.length() == 0
        || match verifier {
            Some(verifier) => holds(verifier),
            None => holds(&Verifier::compat(*key)),
        }
}

/// Whether the head in `header` is signed, with the roots that are stored.
pub(crate) fn is_signed_as_stored(header: &CoreHeader, storage: &dyn CoreStorage) -> bool {
    let (key, head) = (&header.key, &header.head);
    let (Ok(verifier), Ok(roots)) = (verifier_of(header), load_roots(storage, key, head.length))
    else {
        return false;
    };
    is_signed(key, verifier.as_ref(), (head.fork, &roots), &head.signature)
}

/// What checks the signatures of a core with this header, if its manifest is known.
fn verifier_of(header: &CoreHeader) -> Result<Option<Verifier>, CoreError> {
    let Some(manifest) = &header.manifest else {
        return Ok(None);
    };
    let verifier = Verifier::new(header.key, manifest.clone());
    let core = header.key;
    verifier.map(Some).ok_or(CoreError::Manifest { core })
}

fn load_roots(storage: &dyn CoreStorage, key: &Key, length: u64) -> Result<Roots, CoreError> {
    let missing = |index| StorageError::Corrupt {
        core: key.discovery_key(),
        part: "tree",
        offset: index,
        reason: format!("the root at tree index {index} is missing"),
    };
    let nodes: Result<Vec<Node>, StorageError> = flat_tree::full_roots(length)
        .map(|index| storage.node(index)?.ok_or_else(|| missing(index)))
        .collect();
    Roots::new(length, nodes?).ok_or(CoreError::Manifest { core: *key })
}
