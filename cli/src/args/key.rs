//! `key`: the commands of secrets.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::target::{Name, Place};

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    /// List the root secret, by a fingerprint, and the logs that there are secrets of
    #[command(after_help = "Example:\n  fcore key ls")]
    Ls,
    Backup(KeyBackup),
    Recover(KeyRecover),
    Export(KeyExport),
    Import(KeyImport),
}

/// Write the root secret to stdout as 24 words, or all secrets to an encrypted file
///
/// The words bring back every log and drive that has a name, as far as peers have the blocks, but neither
/// imported secrets nor encryption keys: the file has those too.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore key backup --file keys.fcore")]
pub(crate) struct KeyBackup {
    /// Write all secrets to this new file, under a passphrase
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Write the words even if there is a file
    #[arg(long)]
    pub(crate) phrase: bool,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, requires = "file", value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Bring secrets back into a new store: from 24 words on stdin, or from a file
///
/// Nothing can be appended to a log of it until a peer has proven how long that is, unless --offline says
/// that nobody has more.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore --store ./new key recover --core journal --drive photos")]
pub(crate) struct KeyRecover {
    /// A file that `key backup` made [default: the words, from stdin]
    pub(crate) file: Option<PathBuf>,
    /// The name of a log that was in the store; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) core: Vec<Name>,
    /// The name of a drive that was in the store; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) drive: Vec<Name>,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, requires = "file", value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Write what it takes to write and decrypt one log or drive, encrypted
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore key export journal --file journal.fcore")]
pub(crate) struct KeyExport {
    /// The log or drive
    pub(crate) core: Place,
    /// Write to this new file [default: text to stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Take in what `key export` wrote, so that the log or drive can be written here
///
/// Nothing can be appended until a peer has proven how long the log is, unless --offline says that nobody
/// has more. Two stores must not write to one log at the same time.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore key import journal.fcore")]
pub(crate) struct KeyImport {
    /// The file [default: stdin]
    pub(crate) file: Option<PathBuf>,
    /// Call it so [default: as it was called]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}
