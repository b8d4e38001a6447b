//! Secret keys that do not derive from the store's root secret: one 0600 file a core, 64 bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;
use zeroize::Zeroizing;

use super::file_system::FileSystem;
use super::io_error;
use super::whole;
use crate::root_secret::{Fingerprint, RootSecret};
use crate::storage::StorageError;

/// Bytes of a secret key, its public key among them.
const SECRET_BYTES: usize = 64;

/// The part of a core that a secret key is, for errors.
const SECRET: &str = "secret";

/// The directory of imported secret keys.
pub(super) struct Secrets {
    files: Arc<dyn FileSystem>,
    directory: PathBuf,
}

impl Secrets {
    pub(super) fn new(files: Arc<dyn FileSystem>, directory: PathBuf) -> Self {
        Self { files, directory }
    }

    /// The key pair kept for `core`.
    pub(super) fn get(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        let path = self.path(core);
        // One more than there may be, so that what is too long is none.
        let secret = whole::read_to(&*self.files, &path, SECRET_BYTES as u64 + 1);
        let Some(secret) = secret.map_err(io_error("read", &path))? else {
            return Ok(None);
        };
        let secret = Zeroizing::new(secret);
        let secret: Option<&[u8; SECRET_BYTES]> = secret.as_slice().try_into().ok();
        let key_pair = secret.and_then(|secret| KeyPair::from_secret(secret).ok());
        let damaged = || StorageError::Corrupt {
            core: *core,
            part: SECRET,
            offset: 0,
            reason: format!("{} holds no ed25519 secret key", path.display()),
        };
        key_pair.map(Some).ok_or_else(damaged)
    }

    /// As [`Secrets::get`], but for nothing if what is kept is damaged: what is signed can be read, and audited, without it.
    pub(super) fn get_whole(&self, core: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        match self.get(core) {
            Err(error @ StorageError::Corrupt { .. }) => {
                tracing::warn!(%error, "a log can be read only");
                Ok(None)
            }
            result => result,
        }
    }

    /// Keeps `key_pair` for `core`, on the device when this returns: nothing can bring it back.
    pub(super) fn put(&self, core: &DiscoveryKey, key_pair: &KeyPair) -> Result<(), StorageError> {
        let secret = key_pair.to_secret();
        put(
            &*self.files,
            &self.directory,
            &core.to_hex(),
            secret.as_slice(),
        )
    }

    fn path(&self, core: &DiscoveryKey) -> PathBuf {
        self.directory.join(core.to_hex())
    }
}

/// Keeps a root secret that another one takes the place of.
pub(super) fn put_aside(
    files: &dyn FileSystem,
    directory: &Path,
    fingerprint: &Fingerprint,
    secret: &RootSecret,
) -> Result<(), StorageError> {
    put(
        files,
        directory,
        &format!("root-{fingerprint}"),
        secret.bytes(),
    )
}

/// Puts a secret into a private file, which is there whole or not at all.
fn put(
    files: &dyn FileSystem,
    directory: &Path,
    name: &str,
    secret: &[u8],
) -> Result<(), StorageError> {
    let path = directory.join(name);
    let write = || {
        files.create_directory(directory, true)?;
        let above = directory.parent();
        above.map_or(Ok(()), |above| files.sync_directory(above))?;
        whole::replace_private(files, &path, secret)
    };
    write().map_err(io_error("write", &path))
}

#[cfg(test)]
mod tests {
    use super::super::file_system::OsFileSystem;
    use super::*;
    use std::fs;

    #[test]
    fn secrets_come_back_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Arc::new(OsFileSystem), directory.path().join("keys"));
        let core = DiscoveryKey::from([1; 32]);
        assert!(secrets.get(&core).unwrap().is_none());
        secrets.put(&core, &KeyPair::from_seed(&[2; 32])).unwrap();
        assert_eq!(secrets.get(&core).unwrap().unwrap().seed(), &[2; 32]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(secrets.path(&core))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(secrets.path(&core), [1; 64]).unwrap();
        assert!(secrets.get(&core).is_err());
        assert!(secrets.get_whole(&core).unwrap().is_none());
    }
}
