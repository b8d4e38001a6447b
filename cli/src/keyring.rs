//! The encryption keys that a store remembers, so that names stand for encrypted drives too.
//! Knows one private file a core. Does not know whether a key is the right one.

use std::io;
use std::path::{Path, PathBuf};

use ferrocore::{EncryptionKey, Key};
use zeroize::Zeroizing;

use crate::exit::{Failure, Kind, Result};
use crate::names::replace;
use crate::store::create_private;

/// Where keys are kept, under the store, beside the secret keys of imported cores.
const DIRECTORY: &str = "keys";

/// What tells the files of encryption keys from those of secret keys.
const EXTENSION: &str = "encryption";

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
        let path = self.path(key);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("cannot read {}", path.display());
                return Err(Failure::storage(message, &error));
            }
        };
        match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(secret) => Ok(Some(EncryptionKey::from(secret))),
            Err(_) => Err(damaged(&path)),
        }
    }

    /// Remembers what the core `key` is encrypted with; on the device when this returns.
    pub(crate) fn put(&self, key: &Key, encryption: &EncryptionKey) -> Result<()> {
        create_private(&self.directory)?;
        let path = self.path(key);
        replace(&path, encryption.secret())
            .map_err(|error| Failure::storage(format!("cannot write {}", path.display()), &error))
    }

    /// Remembers that the core `key` was begun, as it is, with this encryption key or with none:
    /// after a purge, a core of the same name has the same key.
    pub(crate) fn begin(&self, key: &Key, encryption: Option<&EncryptionKey>) -> Result<()> {
        if let Some(encryption) = encryption {
            return self.put(key, encryption);
        }
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let message = format!("cannot remove {}", path.display());
                Err(Failure::storage(message, &error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name = key.discovery_key().to_string();
        self.directory.join(name).with_extension(EXTENSION)
    }
}

fn damaged(path: &Path) -> Failure {
    let message = format!("{} is no encryption key", path.display());
    Failure::new(Kind::Storage, message)
        .hint("move it away, and give the key in a link, as in hyper://KEY#ENCRYPTION-KEY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let (keyring, core) = (Keyring::of(dir.path()), Key::from([1; 32]));
        assert_eq!(keyring.get(&core), Ok(None));
        let (first, second) = (EncryptionKey::generate(), EncryptionKey::generate());
        for key in [first, second] {
            keyring.put(&core, &key).unwrap();
            assert_eq!(Keyring::of(dir.path()).get(&core), Ok(Some(key)));
        }
        #[cfg(unix)]
        for (path, expected) in [
            (keyring.path(&core), 0o600),
            (dir.path().join(DIRECTORY), 0o700),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected);
        }
        std::fs::write(keyring.path(&core), "short").unwrap();
        assert_eq!(keyring.get(&core).unwrap_err().kind, Kind::Storage);
        keyring.begin(&core, None).unwrap();
        assert_eq!(keyring.get(&core), Ok(None));
        keyring.begin(&core, None).unwrap();
    }
}
