//! One file, reduced to the few things the layout asks of it.
//!
//! [`BlockFile`] is where a crash test puts its recording file. Knows positions and bytes. Does
//! not know what they mean.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::positional;

/// A file by position. A file that was never written is empty, and need not exist.
#[allow(
    clippy::len_without_is_empty,
    reason = "a file is asked for its length only"
)]
pub trait BlockFile: Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on, and says how far; less than all only at the end of file.
    ///
    /// # Errors
    /// The operating system's.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    ///
    /// # Errors
    /// The operating system's; how much was written is then unknown.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or extends the file; what is added reads as zeros.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns once everything written so far survives a power cut.
    ///
    /// # Errors
    /// The operating system's; what was written is then in doubt for good.
    fn sync(&self) -> io::Result<()>;

    /// Whether everything that is in it is known to survive a power cut, whoever wrote it, and its name.
    fn is_synced(&self) -> bool {
        false
    }

    /// Makes `range` read as zeros without changing the length, and gives its space back where
    /// the file system can.
    ///
    /// # Errors
    /// The operating system's.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;

    /// The first position from `offset` on whose byte may be other than zero, or `None` if there
    /// is none: holes are skipped where the file system tells them.
    ///
    /// # Errors
    /// The operating system's.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.len()?).then_some(offset))
    }
}

/// One that is open. A sync covers its bytes and its length, not its name.
impl BlockFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        positional::read_at(self, offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        positional::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        positional::punch(self, range)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        positional::next_data(self, offset)
    }
}

/// A file of the operating system, opened when it is first used and created when first written.
pub struct OsFile {
    path: PathBuf,
    writable: bool,
    /// Whether it is made for its owner's eyes alone.
    is_private: bool,
    file: OnceLock<File>,
    /// Whether its directory entry may not have reached the device yet.
    is_new: AtomicBool,
}

impl OsFile {
    /// The file at `path`, whether or not it exists.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            writable: true,
            is_private: false,
            file: OnceLock::new(),
            is_new: AtomicBool::new(false),
        }
    }

    /// As [`OsFile::new`]; if it is made, only its owner may read it.
    pub fn private(path: PathBuf) -> Self {
        Self {
            is_private: true,
            ..Self::new(path)
        }
    }

    /// The file at `path`, to be read only: every change is refused.
    pub fn read_only(path: PathBuf) -> Self {
        Self {
            writable: false,
            ..Self::new(path)
        }
    }

    fn existing(&self) -> io::Result<Option<&File>> {
        if let Some(file) = self.file.get() {
            return Ok(Some(file));
        }
        let mut options = OpenOptions::new();
        match options.read(true).write(self.writable).open(&self.path) {
            Ok(file) => Ok(Some(self.file.get_or_init(|| file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn created(&self) -> io::Result<&File> {
        if !self.writable {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(file) = self.existing()? {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        if self.is_private {
            make_private(&mut options);
        }
        let file = options.open(&self.path)?;
        self.is_new.store(true, Ordering::Relaxed);
        Ok(self.file.get_or_init(|| file))
    }
}

#[cfg(unix)]
fn make_private(options: &mut OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

#[cfg(not(unix))]
fn make_private(_: &mut OpenOptions) {}

impl BlockFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        match self.existing()? {
            Some(file) => file.metadata().map(|metadata| metadata.len()),
            None => Ok(0),
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.existing()? else {
            return Ok(0);
        };
        positional::read_at(file, offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        positional::write_all_at(self.created()?, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.created()?.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let Some(file) = self.existing()? else {
            return Ok(());
        };
        file.sync_data()?;
        if self.is_new.swap(false, Ordering::Relaxed)
            && let Some(directory) = self.path.parent()
        {
            positional::sync_directory(directory)?;
        }
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let file = self.existing()?;
        file.map_or(Ok(()), |file| positional::punch(file, range))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match self.existing()? {
            Some(file) => positional::next_data(file, offset),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwritten_file_is_empty_and_not_created() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let file = OsFile::new(path.clone());
        assert_eq!(file.len().unwrap(), 0);
        assert_eq!(file.read(7, &mut [1; 4]).unwrap(), 0);
        file.sync().unwrap();
        file.punch(0..10).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn holes_read_as_zeros_and_keep_the_length() {
        let directory = tempfile::tempdir().unwrap();
        let file = OsFile::new(directory.path().join("data"));
        file.write(0, &[1; 10_000]).unwrap();
        file.punch(10..9_000).unwrap();
        file.punch(9_999..20_000).unwrap();
        let mut back = [7; 10_001];
        assert_eq!(file.read(0, &mut back).unwrap(), 10_000);
        let ones = back[..10_000].iter().filter(|byte| **byte == 1).count();
        assert_eq!(ones, 10_000 - 8_990 - 1);
        assert_eq!(file.len().unwrap(), 10_000);
    }

    #[test]
    fn data_behind_a_hole_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = OsFile::new(directory.path().join("bitfield"));
        assert_eq!(file.next_data(0).unwrap(), None);
        file.write(1 << 30, &[1; 10]).unwrap();
        let found = file.next_data(0).unwrap().unwrap();
        assert!(found <= 1 << 30);
        assert!(found > 0 || !cfg!(target_os = "linux"));
        assert_eq!(file.next_data((1 << 30) + 10).unwrap(), None);
        assert_eq!(file.next_data(u64::MAX).unwrap(), None);
    }
}
