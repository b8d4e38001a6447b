//! A change of several cores of a store: made as one or not at all.

use std::fmt;

use bytes::Bytes;
use ferrocore_primitives::keys::Key;

use super::{Corestore, StoreError};
use crate::core::batch::{self, CoreChange};
use crate::core::{Appended, Core, CoreError};
use crate::limits::BATCH_BYTES_MAX;

/// Appends to several cores, and user data, that come into being together or not at all. Made by
/// [`Corestore::batch`].
///
/// Nothing happens before [`Batch::commit`], and nothing at all if it is dropped.
///
/// # Examples
/// ```
/// use ferrocore_log::Corestore;
///
/// let store = Corestore::memory();
/// let (accounts, journal) = (store.get_named("accounts")?, store.get_named("journal")?);
/// let mut batch = store.batch();
/// batch.append(&accounts, "alice: -5, bob: +5")?;
/// batch.append(&journal, "alice gave bob 5")?;
/// batch.set_user_data(&journal, "last", Some(b"0"))?;
/// batch.commit()?;
/// assert_eq!((accounts.length(), journal.length()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    store: Corestore,
    changes: Vec<CoreChange>,
    bytes: usize,
}

impl Corestore {
    /// A change of several cores, empty as yet.
    pub fn batch(&self) -> Batch {
        Batch {
            store: self.clone(),
            changes: Vec::new(),
            bytes: 0,
        }
    }
}

impl Batch {
    /// Appends one block to `core`.
    ///
    /// # Errors
    /// As for [`Batch::append_batch`].
    pub fn append(&mut self, core: &Core, block: impl Into<Bytes>) -> Result<(), StoreError> {
        self.append_batch(core, vec![block.into()])
    }

    /// Appends `blocks` to `core`, behind what this batch appends to it already.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`] if the core is not of this store; [`StoreError::Core`] if a
    /// block or the batch is too large, or an encrypting handle cannot write.
    pub fn append_batch(&mut self, core: &Core, blocks: Vec<Bytes>) -> Result<(), StoreError> {
        let padding = core.padding();
        let of_blocks: usize = blocks.iter().map(|block| block.len() + padding).sum();
        let (bytes, max) = (self.bytes.saturating_add(of_blocks), BATCH_BYTES_MAX);
        if bytes > max {
            return Err(CoreError::BatchTooLarge { bytes, max }.into());
        }
        self.change(core)?.append(core, blocks)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Sets a small value kept beside `core`, or removes it, as [`Core::set_user_data`] does.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`] if the core is not of this store, [`StoreError::Core`] if the
    /// handle is for reading.
    pub fn set_user_data(
        &mut self,
        core: &Core,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.change(core)?.set_user_data(core, key, value)?;
        Ok(())
    }

    /// Makes all changes, as durable as the store promises, and returns for each core what its log
    /// is like then, in the order of the discovery keys. Readers are told when all are made.
    ///
    /// Several batches may be committed at the same time, whatever cores they have in common: they
    /// wait for each other, and never in a circle.
    ///
    /// # Errors
    /// [`StoreError::Core`], and nothing is changed: those of [`Core::append_batch`] for one of the cores, of which
    /// [`CoreError::Storage`] means that the cores must be opened again, and with
    /// [`Unfinished`](crate::StorageError::Unfinished) the store.
    pub fn commit(self) -> Result<Vec<(Key, Appended)>, StoreError> {
        let inner = &self.store.inner;
        let storage = &*inner.storage;
        Ok(batch::commit(self.changes, storage, inner.durability)?)
    }

    fn change(&mut self, core: &Core) -> Result<&mut CoreChange, StoreError> {
        let key = core.discovery_key();
        let known = self
            .changes
            .iter()
            .position(|c| c.core.discovery_key() == key);
        let place = match known {
            None if self.store.inner.holds(core) => {
                self.changes.push(CoreChange::new(core.clone()));
                self.changes.len() - 1
            }
            place => place.unwrap_or(usize::MAX),
        };
        let change = self.changes.get_mut(place);
        let change = change.filter(|change| change.core.is_same(core));
        change.ok_or(StoreError::OtherStore { core: core.key() })
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("cores", &self.changes.len())
            .finish_non_exhaustive()
    }
}
