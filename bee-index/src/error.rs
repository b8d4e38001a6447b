//! What can go wrong with a bee.

use ferrocore_log::CoreError;
use ferrocore_log::codec::CodecError;
use thiserror::Error;

use crate::protobuf::Malformed;

/// Why an operation on a bee failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BeeError {
    /// Block 0 is not the header of a bee: the core holds something else, or is encrypted and
    /// was opened without its key or with another one. Nothing was written.
    #[error("the core is not a bee, or is encrypted with another key than was given")]
    NotABee,
    /// A block of the bee is not what a bee's writer makes. Blocks are verified, so whoever signs
    /// the core wrote it so; older versions may still be readable by a checkout.
    #[error("block {seq} of the bee is corrupt: {reason}")]
    Corrupt {
        /// Index of the block in the core.
        seq: u64,
        /// What is wrong with it.
        reason: Malformed,
    },
    /// No tree ends at this version: it lies within a batch. Check out the version before or
    /// after the batch.
    #[error("version {version} of the bee lies within a batch")]
    WithinBatch {
        /// The version asked for.
        version: u64,
    },
    /// The core was truncated or reorganised during the read. Read again.
    #[error("the core was truncated while the bee was being read")]
    Truncated,
    /// A checkout cannot be written to, nor can a bee whose core is not writable.
    #[error("the bee is read-only")]
    ReadOnly,
    /// The core grew or was truncated beside this bee while a batch was open; nothing of the
    /// batch was written. Make the batch again. Clones of one bee wait for each other instead.
    #[error("the core changed while a batch was open")]
    Conflict,
    /// An earlier operation of this batch failed or was cancelled halfway; nothing of it was
    /// written. Make the batch again.
    #[error("an earlier operation of the batch did not complete")]
    BrokenBatch,
    /// A key or a value does not fit the codec of a [`TypedBee`](crate::TypedBee).
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Reading or writing the core failed.
    #[error(transparent)]
    Core(#[from] CoreError),
}
