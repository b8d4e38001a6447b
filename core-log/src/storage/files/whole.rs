//! Small files of a store that are read whole, and how long each may be.
//!
//! Knows lengths. Does not know what is in the files.

use std::io;
use std::path::Path;

use super::file_system::{FileAccess, FileSystem};
use super::io_error;
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
    files: &dyn FileSystem,
    path: &Path,
    max: u64,
    remedy: &'static str,
) -> Result<Option<Vec<u8>>, StorageError> {
    match read_to(files, path, max.saturating_add(1)).map_err(io_error("read", path))? {
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
pub(super) fn read_to(
    files: &dyn FileSystem,
    path: &Path,
    max: u64,
) -> io::Result<Option<Vec<u8>>> {
    if files.look(path)?.is_none() {
        return Ok(None);
    }
    let file = files.file(path, FileAccess::Read);
    let len = file.len()?.min(max);
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let count = file.read(0, &mut bytes)?;
    bytes.truncate(count);
    // Whoever writes it may have cut it meanwhile.
    if (count as u64) < len && (count as u64) < file.len()? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

/// Puts a file of these bytes in the place of the one at `path`, which is there whole at any moment; on the device when this
/// returns.
pub(super) fn replace(files: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(files, path, bytes, FileAccess::Write)
}

/// As [`replace`]; the file is for its owner's eyes alone.
pub(super) fn replace_private(files: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(files, path, bytes, FileAccess::WritePrivate)
}

fn replace_with(
    files: &dyn FileSystem,
    path: &Path,
    bytes: &[u8],
    access: FileAccess,
) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let file = files.file(new, access);
    file.set_len(0)?; // one that was cut off may be longer
    file.write(0, bytes)?;
    file.sync()?;
    drop(file);
    files.rename(new, path)?;
    path.parent()
        .map_or(Ok(()), |parent| files.sync_directory(parent))
}

#[cfg(test)]
mod tests {
    use super::super::file_system::OsFileSystem;
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(read(&OsFileSystem, &path, 3, "").unwrap().is_none());
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read(&OsFileSystem, &path, 3, "").unwrap().unwrap(), b"abc");
        let error = read(&OsFileSystem, &path, 2, "shorten it")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("file") && error.contains("shorten it"),
            "{error}"
        );
        assert_eq!(read_to(&OsFileSystem, &path, 2).unwrap().unwrap(), b"ab");
    }
}
