//! The encryption keys that a store remembers, so that names stand for encrypted drives too.
//! Knows one private file a core. Does not know whether a key is the right one; that it is the one that was
//! remembered, a checksum says, over the core, too: a key of another core would be a wrong one.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 32 | the key |
//! | 32 | 1 | 0; 1 if it encrypts the blocks of one core as it is (`EncryptionKey::block_key`) |
//! | 33 | 8 | the first bytes of BLAKE2b-256 over the namespace `ferrocore keyring` (0), the core's discovery key and what is before |
//!
//! Versions before wrote the first 32 bytes alone, which are read; they do not read more.

use std::io;
use std::path::{Path, PathBuf};

use ferrocore::primitives::keys::DiscoveryKey;
use ferrocore::primitives::{hash, namespace};
use ferrocore::{EncryptionKey, Key};
use zeroize::Zeroizing;

use crate::exit::{Failure, Kind, Result};
use crate::names::replace;
use crate::store::create_private;

/// Where keys are kept, under the store, beside the secret keys of imported cores.
const DIRECTORY: &str = "keys";

/// What tells the files of encryption keys from those of secret keys.
const EXTENSION: &str = "encryption";

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 8;

/// All encryption keys of one store.
#[derive(Debug)]
pub(crate) struct Keyring {
    directory: PathBuf,
}

impl Keyring {
    /// The keys of the store in `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        let directory = dir.join(DIRECTORY);
        Self { directory }
    }

    /// What the core `key` is encrypted with, if that was remembered.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<EncryptionKey>> {
        let path = self.path(&key.discovery_key());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("cannot read {}", path.display());
                return Err(Failure::storage(message, &error));
            }
        };
        let decoded = decode(key, &bytes);
        decoded.map(Some).ok_or_else(|| damaged(&path))
    }

    /// Remembers what the core `key` is encrypted with; on the device when this returns.
    pub(crate) fn put(&self, key: &Key, encryption: &EncryptionKey) -> Result<()> {
        create_private(&self.directory)?;
        let path = self.path(&key.discovery_key());
        replace(&path, &encode(key, encryption))
            .map_err(|error| Failure::storage(format!("cannot write {}", path.display()), &error))
    }

    /// Remembers that the core `key` was begun, as it is, with this encryption key or with none:
    /// after a purge, a core of the same name has the same key.
    pub(crate) fn begin(&self, key: &Key, encryption: Option<&EncryptionKey>) -> Result<()> {
        if let Some(encryption) = encryption {
            return self.put(key, encryption);
        }
        self.remove(&key.discovery_key())
    }

    /// Whether a key of `core` is here, damaged or not.
    pub(crate) fn contains(&self, core: &DiscoveryKey) -> bool {
        self.path(core).exists()
    }

    /// Forgets what `core` is encrypted with, if that was remembered.
    pub(crate) fn remove(&self, core: &DiscoveryKey) -> Result<()> {
        let path = self.path(core);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let message = format!("cannot remove {}", path.display());
                Err(Failure::storage(message, &error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, core: &DiscoveryKey) -> PathBuf {
        let name = core.to_string();
        self.directory.join(name).with_extension(EXTENSION)
    }
}

/// What is kept of the encryption key of core `key`.
fn encode(key: &Key, encryption: &EncryptionKey) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1 + CHECKSUM_BYTES));
    bytes.extend_from_slice(encryption.secret());
    bytes.push(encryption.is_block_key().into());
    let checksum = checksum(key, &bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// The encryption key of core `key`, if that is what the bytes are.
fn decode(key: &Key, bytes: &[u8]) -> Option<EncryptionKey> {
    let (secret, rest) = bytes.split_first_chunk::<KEY_BYTES>()?;
    let is_block_key = match rest.split_first() {
        None => return Some(EncryptionKey::from(*secret)), // as it was before
        Some((0, _)) => false,
        Some((1, _)) => true,
        Some(_) => return None,
    };
    let (kept, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let is_whole = kept.len() == KEY_BYTES + 1 && *sum == checksum(key, kept);
    is_whole.then(|| match is_block_key {
        true => EncryptionKey::block_key(*secret),
        false => EncryptionKey::from(*secret),
    })
}

fn checksum(key: &Key, kept: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let purpose = namespace::nth("ferrocore keyring", 0);
    let core = key.discovery_key();
    let hash = hash::hash(&[purpose.as_bytes(), core.as_bytes(), kept]);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum
        .iter_mut()
        .zip(hash.as_bytes())
        .for_each(|(to, byte)| *to = *byte);
    checksum
}

fn damaged(path: &Path) -> Failure {
    let message = format!(
        "{} is damaged: it is not the encryption key that was kept there",
        path.display()
    );
    Failure::new(Kind::Storage, message).hint(
        "move it away, and import a backup of it, or give the key in a link, as in hyper://KEY#ENCRYPTION-KEY",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let (keyring, core) = (Keyring::of(dir.path()), Key::from([1; 32]));
        assert_eq!(keyring.get(&core), Ok(None));
        let (first, second) = (EncryptionKey::block_key([7; 32]), EncryptionKey::generate());
        for key in [first, second] {
            keyring.put(&core, &key).unwrap();
            assert_eq!(Keyring::of(dir.path()).get(&core), Ok(Some(key)));
        }
        #[cfg(unix)]
        for (path, expected) in [
            (keyring.path(&core.discovery_key()), 0o600),
            (dir.path().join(DIRECTORY), 0o700),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected);
        }
        std::fs::write(keyring.path(&core.discovery_key()), "short").unwrap();
        assert_eq!(keyring.get(&core).unwrap_err().kind, Kind::Storage);
        keyring.begin(&core, None).unwrap();
        assert_eq!(keyring.get(&core), Ok(None));
        keyring.begin(&core, None).unwrap();
    }

    /// Goal: what is not what was kept is damage, whichever bit it is, however much of it is there, and also if it is
    /// the key of another core. Files of versions before are read.
    #[test]
    fn damaged_keys_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (keyring, core) = (Keyring::of(dir.path()), Key::from([1; 32]));
        let key = EncryptionKey::generate();
        keyring.put(&core, &key).unwrap();
        let path = keyring.path(&core.discovery_key());
        let whole = std::fs::read(&path).unwrap();
        let damaged = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let failure = keyring.get(&core).unwrap_err();
            assert_eq!(failure.kind, Kind::Storage);
            assert!(failure.message.contains(path.to_str().unwrap()));
        };
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            damaged(&flipped);
        }
        for len in (0..whole.len()).filter(|len| *len != KEY_BYTES) {
            damaged(&whole[..len]);
        }
        damaged(&[whole.as_slice(), &[0]].concat());
        let other = Key::from([2; 32]);
        keyring.put(&other, &key).unwrap();
        damaged(&std::fs::read(keyring.path(&other.discovery_key())).unwrap());

        std::fs::write(&path, key.secret()).unwrap();
        assert_eq!(keyring.get(&core), Ok(Some(key)));
    }
}
