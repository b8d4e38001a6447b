//! The root secret of a store: 32 bytes in `corestore/primary-key`, the file that is locked.

use std::io;
use std::path::Path;

use ferrocore_primitives::random;
use zeroize::Zeroizing;

use super::block_file::BlockFile;
use super::file_system::FileSystem;
use super::whole;

/// Bytes of the root secret.
pub(super) const ROOT_SECRET_BYTES: usize = 32;

/// A root secret, gone from memory when dropped.
pub(super) type Secret = Zeroizing<[u8; ROOT_SECRET_BYTES]>;

/// Reads the root secret, if there is one. Too few bytes are none, nor are zeros, which a power cut leaves.
pub(super) fn read(file: &dyn BlockFile) -> io::Result<Option<Secret>> {
    if file.len()? < ROOT_SECRET_BYTES as u64 {
        return Ok(None);
    }
    let mut secret = Zeroizing::new([0; ROOT_SECRET_BYTES]);
    if file.read(0, secret.as_mut_slice())? < ROOT_SECRET_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(secret).filter(|secret| **secret != [0; ROOT_SECRET_BYTES]))
}

/// Makes the root secret of a new store. Every name depends on it, so it is on the device when this returns, whatever the
/// durability.
pub(super) fn make(file: &dyn BlockFile) -> io::Result<Secret> {
    let mut secret = Zeroizing::new([0; ROOT_SECRET_BYTES]);
    random::fill(secret.as_mut_slice());
    file.write(0, secret.as_slice())?;
    file.sync()?;
    Ok(secret)
}

/// Puts a root secret in the place of what is at `path`; on the device when this returns. At any moment the file holds the one
/// or the other: half of each would be a third one, of which nobody has the words.
pub(super) fn replace(
    files: &dyn FileSystem,
    path: &Path,
    secret: &[u8; ROOT_SECRET_BYTES],
) -> io::Result<()> {
    whole::replace_private(files, path, secret)
}
