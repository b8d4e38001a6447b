//! `core`: the commands of single logs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::target::{HalfOpen, Name, Place};

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CoreCommand {
    Create(CoreCreate),
    Append(CoreAppend),
    Get(CoreGet),
    Info(CoreInfo),
    Seek(CoreSeek),
    Tail(CoreTail),
    Truncate(CoreTruncate),
    Clear(CoreClear),
    Audit(CoreAudit),
    Replicate(CoreReplicate),
}

/// Create a log
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core create journal")]
pub(crate) struct CoreCreate {
    /// Its name in the store
    pub(crate) name: Name,
    /// Encrypt its blocks with a new key, which is printed and remembered
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// Let its key be the bare public key of its signer, as hypercore 10 does
    #[arg(long)]
    pub(crate) public_key_is_key: bool,
}

/// Append blocks: stdin or whole files, one block each
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  echo hello | fcore core append journal")]
pub(crate) struct CoreAppend {
    /// The log
    pub(crate) core: Place,
    /// One block for each file
    #[arg(value_name = "FILE", conflicts_with_all = ["lines", "frames"])]
    pub(crate) files: Vec<PathBuf>,
    /// One block for each line of stdin, without its line end
    #[arg(long, conflicts_with = "frames")]
    pub(crate) lines: bool,
    /// One block for each frame of stdin: a 32-bit little-endian length, then the bytes
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Write blocks to stdout
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Nothing in a log tells that it is encrypted: without its key, of an encrypted one come bytes of no\n\
        meaning, and the exit code is 0. Give the whole link, as in hyper://KEY#ENCRYPTION-KEY.\n\n\
        Example:\n  fcore core get journal 0..10"
)]
pub(crate) struct CoreGet {
    /// The log
    pub(crate) core: Place,
    /// The blocks: A, A..B, A.. or ..B
    pub(crate) range: HalfOpen,
    /// A 32-bit little-endian length before each block
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Show the state of a log
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core info journal")]
pub(crate) struct CoreInfo {
    /// The log
    pub(crate) core: Place,
}

/// Find the block that holds a byte of a log, and the offset in it
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core seek journal 1000000")]
pub(crate) struct CoreSeek {
    /// The log
    pub(crate) core: Place,
    /// Bytes from the start of the log
    pub(crate) byte: u64,
}

/// Write the last blocks of a log to stdout, one a line
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core tail journal --follow")]
pub(crate) struct CoreTail {
    /// The log
    pub(crate) core: Place,
    /// How many of the blocks that are there
    #[arg(short = 'n', long, default_value_t = 10)]
    pub(crate) blocks: u64,
    /// Go on with what is appended here or by peers, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// A 32-bit little-endian length before each block instead of a line end behind it
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Cut a log of this store short, and start another history
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core truncate journal 100")]
pub(crate) struct CoreTruncate {
    /// The log
    pub(crate) core: Place,
    /// How many blocks stay
    pub(crate) length: u64,
    /// The number of the new history [default: the next one]
    #[arg(long)]
    pub(crate) fork: Option<u64>,
}

/// Give the disk space of blocks back; they can be fetched again from peers that have them
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core clear journal 0..1000")]
pub(crate) struct CoreClear {
    /// The log
    pub(crate) core: Place,
    /// The blocks: A, A..B, A.. or ..B
    pub(crate) range: HalfOpen,
}

/// Check all that is stored of a log: blocks, tree and bits against the signature
///
/// Exit code 7 when anything is bad.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core audit journal")]
pub(crate) struct CoreAudit {
    /// The log
    pub(crate) core: Place,
    /// Mend what can be proven, and forget what is wrong, so that it can be fetched again
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Replicate logs over stdin and stdout, or over --listen and --peer, until the stream ends or Ctrl-C
///
/// A key that is not in the store is opened as a reader and downloaded whole.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core replicate KEY --peer 192.168.1.7:4000")]
pub(crate) struct CoreReplicate {
    /// The logs
    #[arg(required = true, value_name = "CORE")]
    pub(crate) cores: Vec<Place>,
    /// Start the handshake, over stdin and stdout
    #[arg(long)]
    pub(crate) initiator: bool,
}
