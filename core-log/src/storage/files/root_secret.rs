//! The root secret of a store: 32 bytes in `corestore/primary-key`, the file that is locked.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

use ferrocore_primitives::random;
use zeroize::Zeroizing;

/// Bytes of the root secret.
pub(super) const ROOT_SECRET_BYTES: usize = 32;

/// A root secret, gone from memory when dropped.
pub(super) type Secret = Zeroizing<[u8; ROOT_SECRET_BYTES]>;

/// Reads the root secret, if there is one. Too few bytes are none, nor are zeros, which a power cut leaves.
pub(super) fn read(mut file: &File) -> io::Result<Option<Secret>> {
    if file.metadata()?.len() < ROOT_SECRET_BYTES as u64 {
        return Ok(None);
    }
    let mut secret = Zeroizing::new([0; ROOT_SECRET_BYTES]);
    file.rewind()?;
    file.read_exact(secret.as_mut_slice())?;
    Ok(Some(secret).filter(|secret| **secret != [0; ROOT_SECRET_BYTES]))
}

/// Makes the root secret of a new store.
pub(super) fn make(file: &File) -> io::Result<Secret> {
    let mut secret = Zeroizing::new([0; ROOT_SECRET_BYTES]);
    random::fill(secret.as_mut_slice());
    write(file, &secret)?;
    Ok(secret)
}

/// Writes the root secret over what is there. Every name depends on it, so it is on the device when this
/// returns, whatever the durability.
pub(super) fn write(mut file: &File, secret: &[u8; ROOT_SECRET_BYTES]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(secret)?;
    file.sync_all()
}
