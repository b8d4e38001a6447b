//! What can go wrong with a drive.

use ferrocore_bee::BeeError;
use ferrocore_log::{CoreError, StoreError};
use ferrocore_primitives::keys::Key;
use thiserror::Error;

use crate::blobs::BlobError;
use crate::entry::EntryError;
use crate::path::PathError;

/// An operation on a drive failed; the drive is as it was before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriveError {
    /// One of the drive's two cores failed, or nobody could supply it.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The store could not open a core.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index failed.
    #[error(transparent)]
    Bee(#[from] BeeError),
    /// A blob is not what its entry says.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The path leads nowhere; give one inside the drive.
    #[error("{path:?}: {source}")]
    Path {
        /// What was given.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// The index holds something else than an entry at this path; its writer is at fault.
    #[error("{path:?}: {source}")]
    Entry {
        /// Where.
        path: String,
        /// What is wrong with it.
        source: EntryError,
    },
    /// There is nothing at this path.
    #[error("{path:?} is not in the drive")]
    NotFound {
        /// The drive path.
        path: String,
    },
    /// There is something at this path, but not a file's bytes.
    #[error("{path:?} is a link, not a file")]
    NotAFile {
        /// The drive path.
        path: String,
    },
    /// Links lead to links, more than [`LINK_HOPS_MAX`](crate::LINK_HOPS_MAX) of them.
    #[error("{path:?} leads from link to link without end")]
    LinkLoop {
        /// Where it began.
        path: String,
    },
    /// The core is not a drive's: no blobs core is named in its header, none follows from its key.
    #[error("core {key} is not the index of a drive: it names no blobs core")]
    NoBlobs {
        /// The index.
        key: Key,
    },
    /// This is a view of one version; write to the drive itself.
    #[error("a version of a drive cannot be written to")]
    ReadOnlyVersion,
}
