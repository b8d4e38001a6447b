//! The commands of folders and drives.

use std::path::PathBuf;

use clap::Args;

use crate::target::{HalfOpen, Name, Place};

/// Import a folder into a drive, serve it, and follow its changes until Ctrl-C
///
/// The same folder continues the same drive. Prints what the other side types to fetch it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore share ~/Photos --listen 0.0.0.0:4000")]
pub(crate) struct Share {
    /// The folder
    pub(crate) dir: PathBuf,
    /// Call the drive so [default: the folder's name]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Start another drive even if the folder has one
    #[arg(long)]
    pub(crate) new: bool,
    /// Serve the folder as it is now, without following its changes
    #[arg(long)]
    pub(crate) once: bool,
    /// Encrypt a new drive: peers can keep it, but only who has the whole link can read it
    #[arg(long)]
    pub(crate) encrypt: bool,
}

/// Keep drives and cores whole, follow their changes, and serve them until Ctrl-C
///
/// Nothing times out: peers may come and go.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore seed hyper://KEY photos --listen 0.0.0.0:4000")]
pub(crate) struct Seed {
    /// The drives and cores: links, keys or names
    #[arg(required = true, value_name = "TARGET")]
    pub(crate) targets: Vec<Place>,
}

/// Fetch a drive, or a part of it, into a folder
///
/// A run that was cut short is resumed by running it again. Files that fcore did not write are kept,
/// and reported with exit code 8.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore get hyper://KEY ./photos --peer 192.168.1.7:4000")]
pub(crate) struct Get {
    /// The drive: a link, a key or a name
    #[arg(value_name = "LINK")]
    pub(crate) target: Place,
    /// The folder to write [default: the drive's name or the key's first letters]
    pub(crate) dest: Option<PathBuf>,
    /// Only files that match this pattern; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Vec<String>,
    /// The drive as it was at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<u64>,
    /// Go on fetching what changes until Ctrl-C
    #[arg(long, conflicts_with = "at")]
    pub(crate) live: bool,
    /// Replace files that fcore did not write
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Delete files that the drive does not have
    #[arg(long)]
    pub(crate) prune: bool,
}

/// List the files of a drive
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore ls -l photos:/2024")]
pub(crate) struct Ls {
    /// The drive, a version, a folder in it
    pub(crate) target: Place,
    /// Show type, size and link targets
    #[arg(short)]
    pub(crate) long: bool,
    /// List folders in folders too
    #[arg(short = 'R')]
    pub(crate) recursive: bool,
}

/// Write a file of a drive to stdout
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore cat photos:/notes.txt --range 0..100")]
pub(crate) struct Cat {
    /// The drive and the path of the file
    pub(crate) target: Place,
    /// Only these bytes
    #[arg(long, value_name = "A..B")]
    pub(crate) range: Option<HalfOpen>,
}

/// Write a file into a drive of this store
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore put notes.txt photos:/notes.txt")]
pub(crate) struct Put {
    /// The file, or - for stdin
    pub(crate) src: PathBuf,
    /// The drive and the path; a path that ends with a slash takes the file's name
    pub(crate) target: Place,
}

/// Remove a file from a drive of this store
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore rm photos:/notes.txt")]
pub(crate) struct Rm {
    /// The drive and the path
    pub(crate) target: Place,
    /// Remove a folder with all that is in it
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}
