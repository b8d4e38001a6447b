//! Several operations that reach the core at once, or not at all.

use bytes::Bytes;

use crate::bee::{Bee, WriterLock};
use crate::block::Entry;
use crate::error::BeeError;
use crate::writer::{Condition, Writer};

/// Operations on a bee that are appended together by [`Batch::flush`]. Dropping a batch drops its
/// operations.
///
/// From its first operation on a batch holds the writer lock of the bee: other writers of the bee
/// and its clones wait until it is flushed or dropped. A task that awaits one of those while it
/// holds an open batch waits forever.
pub struct Batch {
    bee: Bee,
    open: Option<Open>,
}

struct Open {
    writer: Writer,
    lock: WriterLock,
}

impl Batch {
    pub(crate) fn new(bee: Bee) -> Self {
        Self { bee, open: None }
    }

    /// As [`Bee::put`].
    ///
    /// # Errors
    /// As for [`Bee::put`], and [`BeeError::BrokenBatch`] after an operation that did not complete.
    pub async fn put(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, BeeError> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.write(key.as_ref(), Some(value), None).await
    }

    /// As [`Bee::put_null`].
    ///
    /// # Errors
    /// As for [`Batch::put`].
    pub async fn put_null(&mut self, key: impl AsRef<[u8]>) -> Result<bool, BeeError> {
        self.write(key.as_ref(), None, None).await
    }

    /// As [`Bee::put_if`].
    ///
    /// # Errors
    /// As for [`Batch::put`].
    pub async fn put_if(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        condition: impl FnOnce(&Entry) -> bool + Send,
    ) -> Result<bool, BeeError> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.write(key.as_ref(), Some(value), Some(Box::new(condition)))
            .await
    }

    /// As [`Bee::del`].
    ///
    /// # Errors
    /// As for [`Batch::put`].
    pub async fn del(&mut self, key: impl AsRef<[u8]>) -> Result<bool, BeeError> {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.writer().await?.del(key, None).await
    }

    /// As [`Bee::del_if`].
    ///
    /// # Errors
    /// As for [`Batch::put`].
    pub async fn del_if(
        &mut self,
        key: impl AsRef<[u8]>,
        condition: impl FnOnce(&Entry) -> bool + Send,
    ) -> Result<bool, BeeError> {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.writer()
            .await?
            .del(key, Some(Box::new(condition)))
            .await
    }

    /// As [`Bee::get`], with the operations of this batch made.
    ///
    /// # Errors
    /// As for [`Bee::get`], and [`BeeError::BrokenBatch`] after an operation that did not complete.
    pub async fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, BeeError> {
        match &mut self.open {
            Some(open) => open.writer.get(key.as_ref()).await,
            None => self.bee.get(key).await,
        }
    }

    /// Appends the operations to the core: all of them in one append, or none.
    ///
    /// # Errors
    /// [`BeeError::BrokenBatch`] if an operation did not complete, [`BeeError::Conflict`] if the
    /// core changed meanwhile, [`BeeError::Core`] if the append failed.
    pub async fn flush(self) -> Result<(), BeeError> {
        let Some(mut open) = self.open else {
            return Ok(());
        };
        open.writer.flush()?;
        *open.lock = Some(open.writer).filter(Writer::is_reusable);
        Ok(())
    }

    /// Drops the operations.
    pub fn close(self) {}

    pub(crate) async fn write(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        condition: Condition<'_>,
    ) -> Result<bool, BeeError> {
        let key = Bytes::copy_from_slice(key);
        self.writer().await?.put(key, value, condition).await
    }

    async fn writer(&mut self) -> Result<&mut Writer, BeeError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin().await?,
        };
        Ok(&mut self.open.insert(open).writer)
    }

    async fn begin(&self) -> Result<Open, BeeError> {
        let mut lock = self.bee.lock().await?;
        let writer = match lock.take().filter(Writer::is_reusable) {
            Some(writer) => writer,
            None => self.bee.new_writer().await?,
        };
        Ok(Open { writer, lock })
    }
}
