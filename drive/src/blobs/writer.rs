//! Writing one blob, in as many appends as it takes.

use async_lock::MutexGuardArc;
use bytes::{Bytes, BytesMut};
use ferrocore_log::Core;
use ferrocore_log::core::HashedBlocks;

use super::{BLOCK_BYTES, BlobError};
use crate::DriveError;
use crate::entry::BlobId;

/// Bytes gathered for one append: what a writer holds in memory.
const APPEND_BYTES: usize = 1 << 20;

/// Most blocks that one append of bytes already in memory carries: 64 MiB of full ones.
const APPEND_BLOCKS_MAX: usize = 1024;

/// A blob that is being written.
#[derive(Debug)]
pub struct BlobWriter {
    core: Core,
    id: BlobId,
    /// Bytes that wait for an append to be worth it.
    buffer: BytesMut,
    _lock: MutexGuardArc<()>,
}

impl BlobWriter {
    pub(super) fn new(core: Core, lock: MutexGuardArc<()>) -> Self {
        let id = BlobId {
            block_offset: core.length(),
            byte_offset: core.byte_length(),
            ..BlobId::default()
        };
        Self {
            core,
            id,
            buffer: BytesMut::new(),
            _lock: lock,
        }
    }

    /// Adds bytes; blocks of [`BLOCK_BYTES`] are cut across calls.
    ///
    /// # Errors
    /// As for [`BlobWriter::append`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DriveError> {
        for part in bytes.chunks(APPEND_BYTES) {
            self.buffer.extend_from_slice(part);
            if self.buffer.len() >= APPEND_BYTES {
                let full = self.buffer.split_to(APPEND_BYTES).freeze();
                self.append_bytes(full)?;
            }
        }
        Ok(())
    }

    /// Adds blocks as they are, after everything that was written before.
    ///
    /// # Errors
    /// The core's, and [`BlobError::Interleaved`] if somebody else appended in between.
    pub fn append(&mut self, blocks: HashedBlocks) -> Result<(), DriveError> {
        self.flush()?;
        self.push(blocks)
    }

    /// Adds bytes without copying them.
    ///
    /// # Errors
    /// As for [`BlobWriter::append`].
    pub fn append_bytes(&mut self, bytes: Bytes) -> Result<(), DriveError> {
        for blocks in cut(bytes).chunks(APPEND_BLOCKS_MAX) {
            self.push(HashedBlocks::hash(blocks.to_vec()))?;
        }
        Ok(())
    }

    /// Ends the blob and says where it is.
    ///
    /// # Errors
    /// As for [`BlobWriter::append`].
    pub fn finish(mut self) -> Result<BlobId, DriveError> {
        self.flush()?;
        Ok(self.id)
    }

    fn flush(&mut self) -> Result<(), DriveError> {
        let rest = self.buffer.split().freeze();
        self.append_bytes(rest)
    }

    fn push(&mut self, hashed: HashedBlocks) -> Result<(), DriveError> {
        let blocks = hashed.blocks().len() as u64;
        if blocks == 0 {
            return Ok(());
        }
        let bytes: u64 = hashed.blocks().iter().map(|block| block.len() as u64).sum();
        let appended = self.core.append_hashed(hashed)?;
        self.id.block_length += blocks;
        self.id.byte_length += bytes;
        let byte_end = self.id.byte_offset + self.id.byte_length;
        if (appended.length, appended.byte_length) != (self.id.blocks().end, byte_end) {
            return Err(BlobError::Interleaved.into());
        }
        Ok(())
    }
}

/// Cuts bytes into blocks of [`BLOCK_BYTES`], the last one shorter. Nothing is copied.
pub(crate) fn cut(mut bytes: Bytes) -> Vec<Bytes> {
    let mut blocks = Vec::with_capacity(bytes.len().div_ceil(BLOCK_BYTES));
    while !bytes.is_empty() {
        blocks.push(bytes.split_to(bytes.len().min(BLOCK_BYTES)));
    }
    blocks
}
