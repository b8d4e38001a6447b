//! What can go wrong with a store.

use ferrocore_primitives::keys::{DiscoveryKey, Key};
use thiserror::Error;

use crate::core::CoreError;
use crate::storage::StorageError;

/// A store could not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The core could not be opened.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The options name no core; give a key, a name, a key pair or a manifest.
    #[error("no key, name, key pair or manifest says which core is meant")]
    Unspecified,
    /// The options name two different cores; leave one of them out.
    #[error("the key given is {given}, but the other options belong to core {derived}")]
    KeyMismatch {
        /// The key given.
        given: Key,
        /// The key that follows from the other options.
        derived: Key,
    },
    /// The key pair cannot sign for the core; give the right one, or none to read only.
    #[error("the key pair does not belong to core {core}")]
    KeyPairMismatch {
        /// The core.
        core: Key,
    },
    /// The core is not one of this store; take the handle that this store gives.
    #[error("core {core} is not open in this store")]
    OtherStore {
        /// The core.
        core: Key,
    },
    /// A static core needs a block.
    #[error("a static core of no blocks cannot be")]
    Empty,
    /// Somebody holds the core; drop all handles and try again.
    #[error("core {core} is in use; stop what uses it first")]
    InUse {
        /// The core, by discovery key.
        core: DiscoveryKey,
    },
    /// The core is open without the key pair; drop the other handles first.
    #[error("core {core} is already open for reading only; close it first")]
    OpenReadOnly {
        /// The core.
        core: Key,
    },
}

impl StoreError {
    /// Whether a core did not open since its roots are missing, or not those that were signed.
    pub(super) fn is_about_roots(&self) -> bool {
        let error = match self {
            Self::Storage(error) | Self::Core(CoreError::Storage(error)) => error,
            _ => return false,
        };
        matches!(error, StorageError::Corrupt { part, .. } if ["tree", "head"].contains(part))
    }
}
