//! Blobs: runs of blocks in a core, each run the bytes of one file.
//!
//! Knows how bytes are cut and where they were put. Does not know names.

mod block_map;
mod manifest;
mod reader;
mod writer;

use std::ops::{Range, RangeBounds};
use std::sync::Arc;

use async_lock::Mutex;
use bytes::Bytes;
use ferrocore_log::Core;
use thiserror::Error;

pub use manifest::blobs_manifest;
pub use reader::{BlobReader, PREFETCH_BLOCKS};
pub use writer::BlobWriter;

pub(crate) use writer::cut;

use crate::DriveError;
use crate::entry::BlobId;

/// Bytes of every block of a blob but the last, as in JavaScript.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// The core that holds the bytes of a drive's files.
#[derive(Debug, Clone)]
pub struct Blobs {
    core: Core,
    /// Held while a blob is written, so that its blocks stay together.
    writer: Arc<Mutex<()>>,
}

/// A blob is not what its id says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// Its blocks hold fewer bytes than its id counts: the drive's writer is at fault.
    #[error(
        "the blob at block {block_offset} lacks some of the {byte_length} bytes it should have"
    )]
    WrongLength {
        /// Its first block.
        block_offset: u64,
        /// What the id says.
        byte_length: u64,
    },
    /// A list of blocks that cannot be read: the drive's writer is at fault.
    #[error("the block map at block {block_offset} is malformed: {reason}")]
    BlockMap {
        /// Its first block.
        block_offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another writer appended to the same core at the same time; put the file again.
    #[error("another writer appended in the middle of the blob; put the file again")]
    Interleaved,
}

impl Blobs {
    /// Blobs in `core`.
    pub fn new(core: Core) -> Self {
        Self {
            core,
            writer: Arc::default(),
        }
    }

    /// The core itself.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Appends `bytes` as one blob, in blocks of [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// [`DriveError::Core`] if the core cannot be appended to.
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<BlobId, DriveError> {
        let mut writer = self.writer().await;
        writer.append_bytes(bytes.into())?;
        writer.finish()
    }

    /// Begins a blob, once no other one is being written. What was appended before it is dropped
    /// unfinished stays in the core, unreferenced.
    pub async fn writer(&self) -> BlobWriter {
        BlobWriter::new(self.core.clone(), self.writer.lock_arc().await)
    }

    /// Reads `range` of the blob `id`, from suppliers where it is not here. A range that ends
    /// past the blob's end stops there.
    ///
    /// # Errors
    /// [`BlobError::BlockMap`], or the core's errors while the place is looked up.
    pub async fn read(
        &self,
        id: &BlobId,
        range: impl RangeBounds<u64>,
    ) -> Result<BlobReader, DriveError> {
        BlobReader::open(&self.core, id, range).await
    }

    /// The number of bytes in the blob `id`; for a deduplicated one its block map is read.
    ///
    /// # Errors
    /// As for [`Blobs::read`].
    pub async fn byte_length(&self, id: &BlobId) -> Result<u64, DriveError> {
        if !id.block_map {
            return Ok(id.byte_length);
        }
        let map = block_map::read(&self.core, id).await?;
        Ok(map.byte_length())
    }

    /// The blocks that hold the bytes of the blob `id`, in runs, in order.
    ///
    /// # Errors
    /// As for [`Blobs::read`].
    pub async fn blocks(&self, id: &BlobId) -> Result<Vec<Range<u64>>, DriveError> {
        if !id.block_map {
            return Ok(vec![id.blocks()]);
        }
        let map = block_map::read(&self.core, id).await?;
        Ok(map.runs())
    }

    /// Whether all blocks of the blob `id` are here.
    ///
    /// # Errors
    /// As for [`Blobs::read`].
    pub async fn has(&self, id: &BlobId) -> Result<bool, DriveError> {
        let here = |blocks: &Range<u64>| {
            blocks.end <= self.core.length()
                && self.core.count(blocks.clone()) == blocks.end.saturating_sub(blocks.start)
        };
        if !here(&id.blocks()) {
            return Ok(false);
        }
        Ok(self.blocks(id).await?.iter().all(here))
    }
}
