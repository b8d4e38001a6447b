//! Files and directories by path, reduced to what a store asks of the operating system.
//!
//! [`FileSystem`] is where a test puts one that fails, or that records what a power cut may take. Knows paths. Does not know
//! what is in the files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::block_file::{BlockFile, OsFile};
use super::{lock, positional};

/// What a store asks of the operating system.
///
/// What fails has been done, or not, or in part: so has whatever the operating system says.
pub trait FileSystem: Send + Sync + 'static {
    /// The file at `path`, which need not exist: it is opened when it is first used.
    fn file(&self, path: &Path, access: FileAccess) -> Box<dyn BlockFile>;

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// The operating system's: [`io::ErrorKind::NotFound`] if it is not there, and not to be made.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn OpenFile>>;

    /// The file at `path`, locked until it is dropped; `None` if somebody else has it locked. Made first if `create`.
    ///
    /// # Errors
    /// The operating system's.
    fn lock(&self, path: &Path, create: bool) -> io::Result<Option<Box<dyn OpenFile>>>;

    /// What is at `path`, be it a link to nowhere; `None` if nothing is.
    ///
    /// # Errors
    /// The operating system's, if that cannot be told.
    fn look(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// The paths in a directory, in any order; none if it does not exist or is none.
    ///
    /// # Errors
    /// The operating system's.
    fn entries(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a directory, and those above it that do not exist; one for its owner alone if `is_private`.
    ///
    /// # Errors
    /// The operating system's.
    fn create_directory(&self, path: &Path, is_private: bool) -> io::Result<()>;

    /// Gives a file or directory another name, in the same directory, in the place of a file that has that name.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory in which there is nothing.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_empty(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it, if it is there.
    ///
    /// # Errors
    /// The operating system's; some of it may be gone then.
    fn remove_all(&self, path: &Path) -> io::Result<()>;

    /// Returns once all that was made, renamed and removed in this very directory survives a power cut.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Returns once all on the file system that the directory `path` is on survives a power cut, whoever wrote it; with what the
    /// directory is. `None` if that cannot be had in one, or not be relied on.
    ///
    /// # Errors
    /// The operating system's, which may be about something else on that file system.
    fn sync_all(&self, path: &Path) -> io::Result<Option<Identity>> {
        let _ = path;
        Ok(None)
    }
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// It is only read.
    Read,
    /// It is written, and made when it first is.
    Write,
    /// The same, for its owner's eyes alone if it is made.
    WritePrivate,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// To be read only.
    Read,
    /// To be read and written.
    Write,
    /// The same, and it is made if it is not there.
    Create,
}

/// A file that stays open until it is dropped.
pub trait OpenFile: BlockFile {
    /// Which file it is, whatever its name is by now.
    ///
    /// # Errors
    /// The operating system's.
    fn identity(&self) -> io::Result<Identity>;
}

/// What tells a file from others, where the system does: its device and its number there. In Windows, when it was made is
/// the nearest there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64, u64);

impl Identity {
    /// Whether both are on the same device, where the system tells.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        cfg!(unix) && self.0 == other.0
    }
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whether it is a file, and not a link to one.
    pub is_file: bool,
    /// Whether it is a directory, and not a link to one.
    pub is_directory: bool,
    /// Its length in bytes.
    pub len: u64,
    /// What it takes on the disk, in bytes.
    pub allocated: u64,
    /// When it was last changed, where that is known.
    pub modified: Option<SystemTime>,
}

/// That of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn file(&self, path: &Path, access: FileAccess) -> Box<dyn BlockFile> {
        let path = path.to_owned();
        Box::new(match access {
            FileAccess::Read => OsFile::read_only(path),
            FileAccess::Write => OsFile::new(path),
            FileAccess::WritePrivate => OsFile::private(path),
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn OpenFile>> {
        let mut options = File::options();
        options.read(true).write(mode != OpenMode::Read);
        options.create(mode == OpenMode::Create);
        Ok(Box::new(options.open(path)?))
    }

    fn lock(&self, path: &Path, create: bool) -> io::Result<Option<Box<dyn OpenFile>>> {
        let locked = lock::open(path, create)?;
        Ok(locked.map(|locked| Box::new(locked) as _))
    }

    fn look(&self, path: &Path) -> io::Result<Option<Entry>> {
        match fs::symlink_metadata(path) {
            Err(error) if is_missing(&error) => Ok(None),
            metadata => Ok(Some(Entry::from(&metadata?))),
        }
    }

    fn entries(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(directory) {
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    }

    fn create_directory(&self, path: &Path, is_private: bool) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        if is_private {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        #[cfg(not(unix))]
        let _ = is_private;
        builder.recursive(true).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        unless_missing(fs::remove_file(path))
    }

    fn remove_empty(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        unless_missing(fs::remove_dir_all(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        positional::sync_directory(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<Option<Identity>> {
        match positional::sync_all(path)? {
            Some(directory) => directory.identity().map(Some),
            None => Ok(None),
        }
    }
}

impl OpenFile for File {
    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::from(&self.metadata()?))
    }
}

#[cfg(unix)]
impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self(metadata.dev(), metadata.ino())
    }
}

#[cfg(windows)]
impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        use std::os::windows::fs::MetadataExt as _;
        Self(metadata.creation_time(), 0)
    }
}

impl From<&fs::Metadata> for Entry {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            is_file: metadata.is_file(),
            is_directory: metadata.is_dir(),
            len: metadata.len(),
            allocated: allocated(metadata),
            modified: metadata.modified().ok(),
        }
    }
}

#[cfg(unix)]
fn allocated(metadata: &fs::Metadata) -> u64 {
    512 * std::os::unix::fs::MetadataExt::blocks(metadata)
}

#[cfg(not(unix))]
fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

/// Whether nothing is there, or nothing can be: what should be a directory is a file.
fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
