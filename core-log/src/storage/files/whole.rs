//! Small files of a store that are read whole, and how long each may be.
//!
//! Knows lengths. Does not know what is in the files.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::io_error;
use super::positional::sync_directory;
use crate::storage::StorageError;

/// Most bytes of an index of names, which is there twice: some 200,000 names. Those that cores were created under
/// are in the cores' headers, too.
pub(super) const ALIASES_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of the guards, which are there twice: some 700,000 lines. Nothing else tells them.
pub(super) const GUARDS_BYTES_MAX: u64 = 64 << 20;

/// Reads the file at `path`, `None` if there is none.
///
/// # Errors
/// [`StorageError::FileTooLong`] if it is longer than `max` bytes, which says to do as `remedy` tells;
/// [`StorageError::Io`].
pub(super) fn read(
    path: &Path,
    max: u64,
    remedy: &'static str,
) -> Result<Option<Vec<u8>>, StorageError> {
    match read_to(path, max.saturating_add(1)).map_err(io_error("read", path))? {
        Some(bytes) => check(path, bytes.len() as u64, max, remedy).map(|()| Some(bytes)),
        None => Ok(None),
    }
}

/// Refuses a file that has, or would have, more than `max` bytes.
///
/// # Errors
/// [`StorageError::FileTooLong`].
pub(super) fn check(
    path: &Path,
    bytes: u64,
    max: u64,
    remedy: &'static str,
) -> Result<(), StorageError> {
    match bytes <= max {
        true => Ok(()),
        false => Err(StorageError::FileTooLong {
            path: path.to_owned(),
            max,
            remedy,
        }),
    }
}

/// Reads at most the first `max` bytes of the file at `path`, `None` if there is none.
pub(super) fn read_to(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts a file of these bytes in the place of the one at `path`, which is there whole at any moment; on the device when this
/// returns.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(read(&path, 3, "").unwrap().is_none());
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read(&path, 3, "").unwrap().unwrap(), b"abc");
        let error = read(&path, 2, "shorten it").unwrap_err().to_string();
        assert!(
            error.contains("file") && error.contains("shorten it"),
            "{error}"
        );
        assert_eq!(read_to(&path, 2).unwrap().unwrap(), b"ab");
    }
}
