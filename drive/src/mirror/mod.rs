//! Local folders: making a drive equal to one, and one equal to a drive.
//!
//! [`import`](fn@import) and [`export`](fn@export) block the thread they are called on, use a few
//! more while they run, and report each path to a callback. Paths are in byte order, as drives
//! keep them. Does not watch folders nor follow drives: call again with the same cache, which
//! knows what need not be read again.

mod export;
mod import;
mod stamp;
mod walk;

use std::fmt;
use std::path::Path;

pub use export::{ExportCache, ExportError, ExportOptions, Prune, export};
pub use import::{ImportCache, ImportError, ImportOptions, import};
pub use stamp::Stamp;

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// It was not there.
    Add,
    /// It was different.
    Change,
    /// It is gone.
    Remove,
    /// It was the same already.
    Equal,
}

/// What import and export tell on their way.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum MirrorEvent<'a> {
    /// A path has been dealt with. Told before the change is visible in the drive's index.
    Done {
        /// What was done.
        op: Op,
        /// The drive path.
        path: &'a str,
        /// Bytes of the file: the new one's, or the removed one's.
        bytes: u64,
    },
    /// A path is left as it is.
    Skipped {
        /// Where, below the folder.
        path: &'a Path,
        /// Why.
        reason: &'a SkipReason,
    },
    /// Bytes of a file were read or written; the file may not be done yet.
    Progress {
        /// How many since the last such event.
        bytes: u64,
    },
}

/// Why a path was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The name is not UTF-8; rename it.
    NotUtf8,
    /// Peers would read the name as another: it has a backslash, or the top folder ends with a
    /// colon; rename it.
    NotPortable,
    /// The target of the link is not UTF-8; link elsewhere.
    LinkNotUtf8,
    /// Neither file, folder nor link: a socket, a pipe or a device.
    Special,
    /// The system does not let us read it.
    Unreadable(String),
    /// It changed each time it was read; import again.
    Changing,
    /// It lies too many folders deep.
    TooDeep,
    /// The drive's path is not one of a file below a folder, such as `/../x`.
    NotNormal,
    /// The entry is malformed; what is wrong with it.
    Malformed(String),
    /// The system refuses the name or the link; what it says.
    Unnameable(String),
    /// A folder on the way is a symbolic link.
    ThroughLink,
    /// A file is where a folder belongs, or a folder where a file does.
    Occupied,
    /// There is something that we did not write.
    Kept,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("the name is not UTF-8"),
            Self::NotPortable => f.write_str("other peers would read the name as another one"),
            Self::LinkNotUtf8 => f.write_str("the target of the link is not UTF-8"),
            Self::Special => f.write_str("it is neither a file nor a folder nor a link"),
            Self::Unreadable(reason) => write!(f, "it cannot be read: {reason}"),
            Self::Changing => f.write_str("it kept changing while it was read"),
            Self::TooDeep => f.write_str("it lies too many folders deep"),
            Self::NotNormal => f.write_str("the path does not lie below the folder"),
            Self::Malformed(reason) => f.write_str(reason),
            Self::Unnameable(reason) => write!(f, "it cannot be created here: {reason}"),
            Self::ThroughLink => f.write_str("a folder on the way is a symbolic link"),
            Self::Occupied => f.write_str("a folder and a file are in each other's place"),
            Self::Kept => f.write_str("a local file that we did not write is there"),
        }
    }
}

/// What an import or export has done, in files and links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorSummary {
    /// The version of the drive that now equals the folder.
    pub version: u64,
    /// New ones.
    pub added: u64,
    /// Changed ones.
    pub changed: u64,
    /// Removed ones.
    pub removed: u64,
    /// Those that were the same already.
    pub equal: u64,
    /// Those left as they are; each was told as [`MirrorEvent::Skipped`].
    pub skipped: u64,
    /// Bytes of new and changed files.
    pub bytes_added: u64,
    /// Bytes of removed files.
    pub bytes_removed: u64,
    /// Files whose content was looked at, on either side.
    pub files_read: u64,
    /// Blocks of files that were here already when their export began.
    pub blocks_have: u64,
    /// Blocks of files that had to be fetched for their export.
    pub blocks_fetched: u64,
}

/// Counts what is told, and passes it on.
struct Reporter<'a> {
    summary: MirrorSummary,
    observe: &'a mut dyn FnMut(MirrorEvent<'_>),
}

impl<'a> Reporter<'a> {
    fn new(observe: &'a mut dyn FnMut(MirrorEvent<'_>)) -> Self {
        Self {
            summary: MirrorSummary::default(),
            observe,
        }
    }

    fn done(&mut self, op: Op, path: &str, bytes: u64) {
        let summary = &mut self.summary;
        match op {
            Op::Add => summary.added += 1,
            Op::Change => summary.changed += 1,
            Op::Remove => summary.removed += 1,
            Op::Equal => summary.equal += 1,
        }
        match op {
            Op::Add | Op::Change => summary.bytes_added += bytes,
            Op::Remove => summary.bytes_removed += bytes,
            Op::Equal => {}
        }
        (self.observe)(MirrorEvent::Done { op, path, bytes });
    }

    fn skipped(&mut self, path: &Path, reason: &SkipReason) {
        self.summary.skipped += 1;
        (self.observe)(MirrorEvent::Skipped { path, reason });
    }

    fn progress(&mut self, bytes: u64) {
        if bytes > 0 {
            (self.observe)(MirrorEvent::Progress { bytes });
        }
    }
}

/// How many threads read or write when the caller does not say: one a core, at most 8.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}
