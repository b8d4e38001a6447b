//! Several changes of a drive that are seen together.

use bytes::Bytes;

use crate::blobs::Blobs;
use crate::drive::normalize;
use crate::entry::EntryValue;
use crate::error::DriveError;
use crate::listing;

/// Changes that reach the drive's index at once by [`Batch::flush`], or not at all. The bytes of
/// files are appended at once; dropped with the batch, they stay unreferenced.
///
/// From its first change on it holds the index's writer lock: flush it soon.
pub struct Batch {
    blobs: Blobs,
    bee: ferrocore_bee::Batch,
}

impl Batch {
    pub(crate) fn new(blobs: Blobs, bee: ferrocore_bee::Batch) -> Self {
        Self { blobs, bee }
    }

    /// As [`Drive::put`](crate::Drive::put).
    ///
    /// # Errors
    /// As there.
    pub async fn put(&mut self, path: &str, bytes: impl Into<Bytes>) -> Result<(), DriveError> {
        let blob = self.blobs.put(bytes).await?;
        self.put_entry(path, &EntryValue::file(blob, false)).await
    }

    /// As [`Drive::symlink`](crate::Drive::symlink).
    ///
    /// # Errors
    /// As there.
    pub async fn symlink(&mut self, path: &str, target: &str) -> Result<(), DriveError> {
        self.put_entry(path, &EntryValue::link(target)).await
    }

    /// As [`Drive::put_entry`](crate::Drive::put_entry).
    ///
    /// # Errors
    /// As there.
    pub async fn put_entry(&mut self, path: &str, value: &EntryValue) -> Result<(), DriveError> {
        let key = listing::key(&normalize(path)?);
        self.bee.put(key, value.to_json()).await?;
        Ok(())
    }

    /// As [`Drive::del`](crate::Drive::del).
    ///
    /// # Errors
    /// As there.
    pub async fn del(&mut self, path: &str) -> Result<bool, DriveError> {
        Ok(self.bee.del(listing::key(&normalize(path)?)).await?)
    }

    /// Appends the changes to the index.
    ///
    /// # Errors
    /// The index's; nothing is changed then.
    pub async fn flush(self) -> Result<(), DriveError> {
        Ok(self.bee.flush().await?)
    }
}
