//! What a store remembers of its root secret beside the file that holds it: any 32 bytes are one, so nothing else tells that a
//! bit of it has flipped.
//!
//! Knows one line of `STORE/root`, with a checksum. Does not know the secret, which it cannot tell.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | the fingerprint, in hexadecimal digits |
//! | 1 | a space |
//! | 8 | CRC-32 (IEEE) of the fingerprint's digits, in hexadecimal |
//! | 1 | a line feed |

use std::path::Path;

use super::file_system::FileSystem;
use super::io_error;
use super::whole;
use crate::root_secret::Fingerprint;
use crate::storage::StorageError;

/// Bytes of the line.
const LEN: u64 = 26;

/// Whether the mark at `path` is one of another root secret than that of `fingerprint`. One that is missing, or damaged itself,
/// tells nothing.
///
/// # Errors
/// [`StorageError::Io`].
pub(super) fn is_of_another(
    files: &dyn FileSystem,
    path: &Path,
    fingerprint: &Fingerprint,
) -> Result<bool, StorageError> {
    Ok(read(files, path)?.is_some_and(|digits| digits != fingerprint.to_string()))
}

/// Whether there is a whole mark at `path`, of whatever root secret.
///
/// # Errors
/// [`StorageError::Io`].
pub(super) fn is_any(files: &dyn FileSystem, path: &Path) -> Result<bool, StorageError> {
    Ok(read(files, path)?.is_some())
}

/// Whether the mark at `path` is that of `fingerprint`.
///
/// # Errors
/// [`StorageError::Io`].
pub(super) fn is_of(
    files: &dyn FileSystem,
    path: &Path,
    fingerprint: &Fingerprint,
) -> Result<bool, StorageError> {
    Ok(read(files, path)?.is_some_and(|digits| digits == fingerprint.to_string()))
}

/// Makes the mark at `path` that of `fingerprint`, on the device when this returns.
///
/// # Errors
/// [`StorageError::Io`].
pub(super) fn set(
    files: &dyn FileSystem,
    path: &Path,
    fingerprint: &Fingerprint,
) -> Result<(), StorageError> {
    let line = line_of(&fingerprint.to_string());
    whole::replace(files, path, line.as_bytes()).map_err(io_error("write", path))
}

/// The digits of the mark, if its checksum holds.
fn read(files: &dyn FileSystem, path: &Path) -> Result<Option<String>, StorageError> {
    let line = whole::read_to(files, path, LEN + 1).map_err(io_error("read", path))?;
    let line = line.and_then(|line| String::from_utf8(line).ok());
    let digits = line.as_deref().and_then(|line| line.split_once(' '));
    let whole = digits.filter(|(digits, _)| line.as_deref() == Some(line_of(digits).as_str()));
    Ok(whole.map(|(digits, _)| digits.to_owned()))
}

fn line_of(digits: &str) -> String {
    let checksum = crc32fast::hash(digits.as_bytes());
    format!("{digits} {checksum:08x}\n")
}
