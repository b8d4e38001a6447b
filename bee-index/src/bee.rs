//! The handle of a bee.

use std::sync::Arc;

use async_lock::{Mutex, MutexGuardArc};
use bytes::Bytes;
use ferrocore_log::{AppendOptions, Core, CoreError};

use crate::batch::Batch;
use crate::block::Entry;
use crate::blocks::Blocks;
use crate::error::BeeError;
use crate::header::{Header, Metadata};
use crate::history::{History, HistoryOptions};
use crate::range::{Range, RangeOptions};
use crate::reader::Tree;
use crate::writer::Writer;

/// Held by the one batch that may write; between batches it keeps the writer.
pub(crate) type WriterLock = MutexGuardArc<Option<Writer>>;

/// How a bee writes. Readers need none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Written into the header with the first operation; see [`Header::metadata`].
    pub metadata: Option<Metadata>,
    /// Whether a put of the value that a key has already is appended. On by default, as in
    /// JavaScript; turn it off when many puts change nothing.
    pub always_duplicate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metadata: None,
            always_duplicate: true,
        }
    }
}

/// An ordered map of byte strings on a [`Core`].
///
/// Every operation is one block of the core, so every length of the core is a version of the map
/// ([`Bee::checkout`]). Reads fetch only the blocks they need. Clones share the core, the cache of
/// blocks and the writer lock. Two bees made apart over one core do not wait for each other: each
/// appends only to the version it has read, so the later one makes its put or del again, and a
/// batch or a condition, which cannot be asked twice, ends in [`BeeError::Conflict`].
///
/// Futures need no runtime, and are ready when first polled if all blocks are stored here and no
/// other writer holds the lock.
#[derive(Clone)]
pub struct Bee {
    blocks: Blocks,
    writer: Arc<Mutex<Option<Writer>>>,
    options: Arc<Options>,
    checkout: Option<u64>,
}

impl Bee {
    /// A bee on `core`. Nothing is read or written yet.
    pub fn new(core: Core, options: Options) -> Self {
        Self {
            blocks: Blocks::new(core),
            writer: Arc::default(),
            options: Arc::new(options),
            checkout: None,
        }
    }

    /// Whether `core` begins with the header of a bee. Waits for block 0 if it is not stored here.
    ///
    /// # Errors
    /// [`BeeError::Core`] if the block cannot be had, also because the core is empty.
    pub async fn is_bee(core: &Core) -> Result<bool, BeeError> {
        Ok(Header::decode(&core.get(0).await?).is_some())
    }

    /// Puts `value` under `key`. Returns false if nothing was written, because
    /// [`Options::always_duplicate`] is off and the key has this value already.
    ///
    /// # Errors
    /// [`BeeError::ReadOnly`] on a checkout or a core that is not ours, [`BeeError::NotABee`] on
    /// a core that holds something else, and whatever reading the way to the key comes upon.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, BeeError> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.write_alone(key.as_ref(), Some(Some(value))).await
    }

    /// Puts JavaScript's null under `key`: an entry without a value.
    ///
    /// # Errors
    /// As for [`Bee::put`].
    pub async fn put_null(&self, key: impl AsRef<[u8]>) -> Result<bool, BeeError> {
        self.write_alone(key.as_ref(), Some(None)).await
    }

    /// As [`Bee::put`], but if `key` exists, only when `condition` agrees to replace that entry.
    /// A new key is put without asking.
    ///
    /// # Errors
    /// As for [`Bee::put`], and [`BeeError::Conflict`] if another bee over the core wrote meanwhile.
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        condition: impl FnOnce(&Entry) -> bool + Send,
    ) -> Result<bool, BeeError> {
        let mut batch = self.batch();
        let written = batch.put_if(key, value, condition).await?;
        batch.flush().await?;
        Ok(written)
    }

    /// Deletes `key`. Returns false if there is none: then nothing is written, except that an
    /// empty core gets its header.
    ///
    /// # Errors
    /// As for [`Bee::put`].
    pub async fn del(&self, key: impl AsRef<[u8]>) -> Result<bool, BeeError> {
        self.write_alone(key.as_ref(), None).await
    }

    /// As [`Bee::del`], but only when `condition` agrees to delete the entry.
    ///
    /// # Errors
    /// As for [`Bee::put_if`].
    pub async fn del_if(
        &self,
        key: impl AsRef<[u8]>,
        condition: impl FnOnce(&Entry) -> bool + Send,
    ) -> Result<bool, BeeError> {
        let mut batch = self.batch();
        let written = batch.del_if(key, condition).await?;
        batch.flush().await?;
        Ok(written)
    }

    /// Puts `value`, or deletes with `None`, in a batch of its own; again if somebody else wrote
    /// meanwhile, who has got on then.
    async fn write_alone(&self, key: &[u8], put: Option<Option<Bytes>>) -> Result<bool, BeeError> {
        loop {
            let mut batch = self.batch();
            let written = match &put {
                Some(value) => batch.write(key, value.clone(), None).await?,
                None => batch.del(key).await?,
            };
            match batch.flush().await {
                Err(BeeError::Conflict) => {}
                flushed => return flushed.map(|()| written),
            }
        }
    }

    /// A new batch of operations.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// The core under the bee.
    pub fn core(&self) -> &Core {
        self.blocks.core()
    }

    /// The version that reads see: the number checked out, or the length of the core. Version 1
    /// and below is the empty map.
    pub fn version(&self) -> u64 {
        self.checkout.unwrap_or_else(|| self.core().length()).max(1)
    }

    /// The header, or `None` if the core is empty. Waits for block 0 if it is not stored here.
    ///
    /// # Errors
    /// [`BeeError::NotABee`] if block 0 is something else.
    pub async fn header(&self) -> Result<Option<Header>, BeeError> {
        if self.core().length() == 0 {
            self.update().await?;
        }
        if self.core().length() == 0 {
            return Ok(None);
        }
        let block = self.core().get(0).await?;
        Header::decode(&block).map(Some).ok_or(BeeError::NotABee)
    }

    /// The entry of `key`.
    ///
    /// A deleted key is not found; hyperbee 2.27 finds it again when the node that the search ends
    /// in was last written by the put of that key.
    ///
    /// # Errors
    /// [`BeeError::NotABee`] if the core holds something else,
    /// [`BeeError::Corrupt`] or [`BeeError::WithinBatch`] if there is no tree of this version,
    /// [`BeeError::Truncated`] if the core was truncated meanwhile, [`BeeError::Core`] if a block
    /// cannot be had.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, BeeError> {
        self.tree().await?.get(key.as_ref()).await
    }

    /// Walks over entries in the order of their keys.
    pub fn range(&self, options: RangeOptions) -> Range {
        Range::new(self.clone(), options)
    }

    /// Walks over operations in the order they were made.
    pub fn history(&self, options: HistoryOptions) -> History {
        History::new(self.clone(), options)
    }

    /// The bee as it was at `version`, read-only. A version that the core has not reached yet is
    /// waited for by reads.
    pub fn checkout(&self, version: u64) -> Self {
        Self {
            checkout: Some(version),
            ..self.clone()
        }
    }

    /// The bee as it is now, read-only.
    pub fn snapshot(&self) -> Self {
        self.checkout(self.version())
    }

    /// The tree to read now. A bee that is not checked out asks its suppliers for news first.
    pub(crate) async fn tree(&self) -> Result<Tree, BeeError> {
        if self.checkout.is_none() {
            self.update().await?;
        }
        self.blocks.check_header()?;
        Ok(Tree::new(self.blocks.clone(), self.version()))
    }

    /// Waits for what suppliers know of newer versions; nobody knows more of our own core.
    async fn update(&self) -> Result<(), BeeError> {
        if !self.core().is_writable() {
            self.core().update().await?;
        }
        Ok(())
    }

    /// The writer lock, if this bee may be written to, and what the last writer left.
    pub(crate) async fn lock(&self) -> Result<WriterLock, BeeError> {
        if self.checkout.is_some() || !self.core().is_writable() {
            return Err(BeeError::ReadOnly);
        }
        Ok(self.writer.lock_arc().await)
    }

    /// A new writer on the present version; writes the header of an empty core. Needs the lock.
    pub(crate) async fn new_writer(&self) -> Result<Writer, BeeError> {
        while self.header().await?.is_none() {
            let metadata = self.options.metadata.clone();
            let header = Header { metadata }.encode();
            let if_empty = AppendOptions {
                expected_length: Some(0),
                ..AppendOptions::default()
            };
            match self.core().append_with(vec![header], if_empty) {
                Err(CoreError::Moved { .. }) => {} // somebody else's header, or no bee
                appended => drop(appended?),
            }
        }
        let tree = Tree::new(self.blocks.clone(), self.version());
        Ok(Writer::new(tree, self.options.always_duplicate))
    }
}
