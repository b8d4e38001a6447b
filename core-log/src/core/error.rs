//! What can go wrong with a core, by whose doing.

use ferrocore_primitives::keys::Key;
use thiserror::Error;

use crate::changeset::VerifyError;
use crate::proof::PlanError;
use crate::signer::SignerError;
use crate::storage::StorageError;

/// An operation on a core failed. The core is as it was before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The core is frozen: its signers signed two histories, so it has no future. Start another
    /// core, and find out who else has the secret.
    #[error("core {core} is frozen: two histories of it are signed")]
    Conflict {
        /// The core.
        core: Key,
    },
    /// No key pair here can sign for the core; write where it was created.
    #[error("core {core} is not writable here")]
    NotWritable {
        /// The core.
        core: Key,
    },
    /// This handle is for reading only; write through the one it was made from.
    #[error("this handle on core {core} is read-only")]
    ReadOnly {
        /// The core.
        core: Key,
    },
    /// The log is not the one that was to be appended to: somebody else wrote it. Read it again,
    /// and append again.
    #[error("core {core} has moved on, to {length} blocks at fork {fork}")]
    Moved {
        /// The core.
        core: Key,
        /// Its fork now.
        fork: u64,
        /// Its length now.
        length: u64,
    },
    /// Somebody holds the draft; drop all handles and try again.
    #[error("draft {name:?} of core {core} is in use; drop what uses it first")]
    DraftInUse {
        /// The core.
        core: Key,
        /// The draft.
        name: String,
    },
    /// The core was opened from a storage that has no place for drafts; open it from a store.
    #[error("core {core} has no place for drafts")]
    NoDrafts {
        /// The core.
        core: Key,
    },
    /// The append would make the log longer than it asked for; nothing was appended.
    #[error("core {core} has {length} blocks and would have more than {max}")]
    TooLong {
        /// The core.
        core: Key,
        /// Its length.
        length: u64,
        /// The length asked for.
        max: u64,
    },
    /// The signer did not sign; nothing was changed. The source says what to do.
    #[error("core {core} was not signed")]
    Signer {
        /// The core.
        core: Key,
        /// Why.
        source: SignerError,
    },
    /// A signature that others made does not hold for what it is to make the core's.
    #[error("the signature does not hold for core {core}")]
    Signature {
        /// The core.
        core: Key,
    },
    /// The core's secret was brought back or imported, or the store's record of that is damaged, and nobody has proven
    /// since how long the log is.
    /// Connect to a peer that has it, or, if nobody has, [lift the guard](crate::Core::lift_guard).
    #[error(
        "core {core} was restored here, or the store's guards were damaged, and no peer has proven yet how long it is; connect to one that has it"
    )]
    Unconfirmed {
        /// The core.
        core: Key,
    },
    /// A peer says that it has more of the log, and is being asked for it: wait, and try again.
    #[error(
        "a peer has {length} blocks of core {core} at fork {fork}, more than are here; wait for them"
    )]
    Behind {
        /// The core.
        core: Key,
        /// The peer's fork.
        fork: u64,
        /// The peer's length.
        length: u64,
    },
    /// The block is not here, and what was asked for takes all of them; fetch it first.
    #[error("block {index} of core {core} is not here; fetch it first")]
    MissingBlock {
        /// The core.
        core: Key,
        /// The first block that is missing.
        index: u64,
    },
    /// A block is larger than a peer could be sent; cut it.
    #[error("a block of {size} bytes is larger than {max}; cut it into smaller ones")]
    BlockTooLarge {
        /// Its size.
        size: usize,
        /// [`BLOCK_BYTES_MAX`](crate::limits::BLOCK_BYTES_MAX).
        max: usize,
    },
    /// One append carries too much; append in several batches.
    #[error("a batch of {bytes} bytes is larger than {max}; append several smaller ones")]
    BatchTooLarge {
        /// Bytes of all its blocks.
        bytes: usize,
        /// [`BATCH_BYTES_MAX`](crate::limits::BATCH_BYTES_MAX).
        max: usize,
    },
    /// So many bytes wait to be appended that no more are taken; wait for some of the tickets.
    #[error("more than {max} bytes wait to be appended; wait for some of them first")]
    TooManyAppends {
        /// [`APPENDS_WAITING_BYTES_MAX`](crate::limits::APPENDS_WAITING_BYTES_MAX).
        max: usize,
    },
    /// A stored block does not hash to its leaf; fetch it again or restore a backup.
    #[error("block {index} of core {core} is corrupt on disk")]
    CorruptBlock {
        /// The core.
        core: Key,
        /// The block.
        index: u64,
    },
    /// The stored manifest or roots do not belong to the core.
    #[error("what is stored of core {core} does not belong to its key")]
    Manifest {
        /// The core.
        core: Key,
    },
    /// The log was cut while it was audited; audit it again.
    #[error("core {core} has another history than when this began; start again")]
    HistoryChanged {
        /// The core.
        core: Key,
    },
    /// The log ends before this block.
    #[error("block {index} is past the end of core {core}, which has {length}")]
    OutOfBounds {
        /// The core.
        core: Key,
        /// The block asked for.
        index: u64,
        /// The length.
        length: u64,
    },
    /// The history of a snapshot was cut before this block, which is gone; take a new snapshot.
    #[error("block {index} of a snapshot of core {core} is gone: it was cut to {compat_length}")]
    SnapshotNotAvailable {
        /// The core.
        core: Key,
        /// The block asked for.
        index: u64,
        /// How many blocks of the snapshot the core still has.
        compat_length: u64,
    },
    /// The tree nodes that tell are not here; fetch the block, which brings them.
    #[error("tree nodes of core {core} are not here; fetch block {index} first")]
    MissingNodes {
        /// The core.
        core: Key,
        /// The block whose path holds them.
        index: u64,
    },
    /// The log ends before this byte.
    #[error("byte {byte} is past the end of core {core}")]
    BytePastEnd {
        /// The core.
        core: Key,
        /// The byte asked for.
        byte: u64,
    },
    /// The block is not here, and there is nobody who could supply it; connect to a peer.
    #[error("block {index} of core {core} is not here and there is no peer to ask")]
    NoPeers {
        /// The core.
        core: Key,
        /// The block.
        index: u64,
    },
    /// A fork must be newer than the current one.
    #[error("fork {fork} of core {core} is not newer than the current one")]
    InvalidFork {
        /// The core.
        core: Key,
        /// The fork asked for.
        fork: u64,
    },
    /// A fork must be a number that JavaScript can count to; leave it out, or name a smaller one.
    #[error("fork {fork} of core {core} is larger than {max}")]
    ForkTooLarge {
        /// The core.
        core: Key,
        /// The fork asked for.
        fork: u64,
        /// [`NUMBER_MAX`](crate::limits::NUMBER_MAX).
        max: u64,
    },
    /// The manifest pins the beginning: it can neither be cut nor differ. Append it as one batch.
    #[error("core {core} would not begin as its prologue does")]
    Prologue {
        /// The core.
        core: Key,
    },
    /// The block is not encrypted with the key of this handle: that is another core's, or the block is not
    /// encrypted at all. Open the core with the right key, or with none. What is here can be kept,
    /// verified and passed on all the same.
    ///
    /// The key fits if the fork at the block's beginning is one that it may have been appended under. A wrong key
    /// goes unnoticed, and the block is noise, once in 2^32 blocks; once in 2^11 where the manifest
    /// pins the log's beginning, which may come from a core of any fork.
    #[error("the key does not fit block {index} of core {core}, if that is encrypted at all")]
    WrongKey {
        /// The core.
        core: Key,
        /// The block.
        index: u64,
    },
    /// The block is no encrypted one; open the core without an encryption key.
    #[error("block {index} of core {core} is not encrypted; open the core without a key")]
    NotEncrypted {
        /// The core.
        core: Key,
        /// The block.
        index: u64,
    },
    /// The log is as long as its bounds allow.
    #[error("core {core} is full")]
    Full {
        /// The core.
        core: Key,
    },
}

impl CoreError {
    /// The same for another who waited for the same commit: it failed in storage, or because
    /// nobody here can or may sign.
    pub(super) fn again(&self, core: Key) -> Self {
        match self {
            Self::Storage(error) => Self::Storage(error.again(core.discovery_key())),
            Self::Conflict { .. } => Self::Conflict { core },
            Self::Signer { source, .. } => {
                let source = source.again();
                Self::Signer { core, source }
            }
            Self::Unconfirmed { .. } => Self::Unconfirmed { core },
            Self::Behind { fork, length, .. } => Self::Behind {
                core,
                fork: *fork,
                length: *length,
            },
            _ => Self::NotWritable { core },
        }
    }
}

/// A request could not be answered with a proof.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The request does not fit the log: the asker's fault.
    #[error(transparent)]
    Invalid(#[from] PlanError),
    /// A needed node is not here: a sparse core cannot prove everything.
    #[error("tree node {index} is not here")]
    MissingNode {
        /// Tree index.
        index: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Core(#[from] CoreError),
}

impl From<StorageError> for ProveError {
    fn from(error: StorageError) -> Self {
        Self::Core(error.into())
    }
}

/// A proof was not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// It does not verify.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It verifies, but could not be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The block is right, but what tells its place is damaged. Ask for it again, with as many nodes as
    /// [`Core::missing_nodes`](crate::Core::missing_nodes) then tells: what comes mends it, as an audit may.
    #[error(
        "block {index} cannot be stored, for a node of the tree above it is damaged; ask for it again"
    )]
    Unplaced {
        /// The block.
        index: u64,
    },
    /// So many bytes wait for a commit that no more are taken; ask for it again later.
    #[error("more than {max} bytes wait to be stored; ask for it again later")]
    TooMuch {
        /// [`APPENDS_WAITING_BYTES_MAX`](crate::limits::APPENDS_WAITING_BYTES_MAX).
        max: usize,
    },
}
