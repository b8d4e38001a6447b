//! What can go wrong with a store, and what the caller can do about it.
//!
//! Knows the errors of every storage. Does not know which of them one has.

use std::path::PathBuf;

use ferrocore_primitives::encoding::DecodeError;
use ferrocore_primitives::keys::DiscoveryKey;
use thiserror::Error;

/// What can go wrong with a store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused; the path and its reason say why.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was being done: `read`, `write`, `sync`, `open`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Somebody else has the store or the core open.
    #[error("{} is in use by {}; stop it or use another store", path.display(), holder.map_or("another program (Node?)".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The locked file.
        path: PathBuf,
        /// The holder's process id, when it is one of ours.
        holder: Option<u32>,
    },
    /// Another program changed a core that was open here; close all handles on it and open it
    /// again.
    #[error("{} was changed by another program: {how}; open the core again", path.display())]
    Changed {
        /// The file in which it was noticed.
        path: PathBuf,
        /// What was noticed.
        how: &'static str,
    },
    /// The store was opened to be read only; open it for writing.
    #[error("core {core} cannot be changed: open its store for writing, not to be read only")]
    ReadOnly {
        /// The core, by discovery key.
        core: DiscoveryKey,
    },
    /// The core was being changed each time it was read; try again.
    #[error("core {core} is being changed by another program; try again")]
    Unsettled {
        /// The core, by discovery key.
        core: DiscoveryKey,
    },
    /// What is stored cannot be right; restore it from a backup or fetch it from a peer. If it is in the `tree` or the
    /// `head`, an [audit](crate::Corestore::danger_get_unverified) may repair it.
    #[error("core {core} is corrupt in {part} at {offset}: {reason}; restore it or fetch it again")]
    Corrupt {
        /// The core, by discovery key.
        core: DiscoveryKey,
        /// Which part of it: `oplog`, `tree`, `bitfield`, `data`, `header`; `head` if the tree and the
        /// signature in the oplog do not belong together; `secret` if it is the key that was imported for it.
        part: &'static str,
        /// Byte offset or index within the part.
        offset: u64,
        /// What does not hold.
        reason: String,
    },
    /// The store's root secret, which all named cores are signed with, is not there, but its cores are. Put the
    /// file back from a copy, or restore the secret ([`Corestore::restore`](crate::Corestore::restore)).
    #[error(
        "the store's root secret, {}, is missing, cut short or damaged: put that file back, or run `fcore key recover`",
        path.display()
    )]
    RootSecretLost {
        /// The file it is kept in.
        path: PathBuf,
    },
    /// A header does not fit its place; remove user data.
    #[error("the header of core {core} does not fit: {reason}; remove user data")]
    HeaderTooLarge {
        /// The core, by discovery key.
        core: DiscoveryKey,
        /// What is too large.
        reason: String,
    },
    /// The format is another or a newer one.
    #[error("{} has an unknown format: {reason}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A file of the store is longer than it may be, or would be; do as `remedy` says.
    #[error("{} has more than {max} bytes; {remedy}", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// How many bytes it may have.
        max: u64,
        /// What can be done about it, and what that costs.
        remedy: &'static str,
    },
    /// An earlier write failed, so memory and disk may differ; open the core again.
    #[error("core {core} refuses work after a failed write; open it again")]
    Poisoned {
        /// The core, by discovery key.
        core: DiscoveryKey,
    },
    /// A batch over several cores changes too much at once; make several of it.
    #[error("a batch of {bytes} bytes of changes is larger than {max}; make several of it")]
    BatchTooLarge {
        /// What it would take in the journal, without blocks that are appended.
        bytes: u64,
        /// The largest journal there may be.
        max: u64,
    },
    /// A batch failed half-way, and one of its cores was asked for, or another batch; open the
    /// store again, which completes or drops it.
    #[error("a batch in {} is unfinished after a failed write; open the store again", path.display())]
    Unfinished {
        /// The journal.
        path: PathBuf,
    },
    /// The core is not open in this store.
    #[error("core {core} is not open in this store")]
    NotOpen {
        /// The core, by discovery key.
        core: DiscoveryKey,
    },
    /// A record could not be decoded.
    #[error("cannot decode {what}: {source}")]
    Decode {
        /// Which record.
        what: &'static str,
        /// Why.
        source: DecodeError,
    },
}

impl StorageError {
    /// The same for another who waited for the same commit of `core`.
    pub(crate) fn again(&self, core: DiscoveryKey) -> Self {
        match self {
            Self::Io {
                action,
                path,
                source,
            } => Self::Io {
                action,
                path: path.clone(),
                source: match source.raw_os_error() {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                },
            },
            _ => Self::Poisoned { core },
        }
    }
}

/// What can be done about the operating system's reason, where that is known.
fn advice(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free some space and open it again",
        ErrorKind::PermissionDenied => "; check who owns it, and its mode",
        ErrorKind::ReadOnlyFilesystem => "; mount it writable, or open the store to be read only",
        ErrorKind::NotFound => "; check the path",
        _ => "",
    }
}
