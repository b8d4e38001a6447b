//! What a store, or a core of it, is opened with.

use std::fmt;
use std::sync::Arc;

use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;

use crate::encryption::EncryptionKey;
use crate::manifest::Manifest;
use crate::signer::Signer;
use crate::storage::Durability;

/// How a store is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreOptions {
    /// What a commit survives once it has returned.
    pub durability: Durability,
    /// Most files that are open at once for the cores of the store, at least 8. Any number of
    /// cores may be open: the files of those used longest ago are closed meanwhile. Only those in
    /// use at the moment may exceed it. By default a quarter of what the system allows the
    /// process, but at most 1024; raise it when many more cores are busy at a time.
    pub open_files_max: Option<usize>,
    /// Open a store on disk to be read only: nothing in it is changed, locked or repaired, so it
    /// may lie on a medium that cannot be written, and another program may have it open. Each
    /// core is as it was last committed when it was opened here; see
    /// [`ReadOnlyFiles`](crate::storage::files::ReadOnlyFiles). No core is writable, and whatever
    /// would change one fails with [`StorageError::ReadOnly`](crate::StorageError::ReadOnly).
    pub read_only: bool,
}

impl From<Durability> for StoreOptions {
    fn from(durability: Durability) -> Self {
        Self {
            durability,
            ..Self::default()
        }
    }
}

/// Which core to open or create, for those that a name or a key alone does not tell.
///
/// The core's key follows from the manifest; without one, from the key pair; and the key pair,
/// if it is not given, from the name.
#[derive(Clone, Default)]
pub struct CoreOptions {
    /// The key; checked against the others if they are given too.
    pub key: Option<Key>,
    /// A name to find the core under from now on.
    pub name: Option<String>,
    /// The pair that signs. It is kept, in a private file, if this call creates the core and the
    /// pair does not derive from `name`.
    pub key_pair: Option<KeyPair>,
    /// What signs in the key pair's place, if the secret lives elsewhere. It is not kept: give it
    /// again whenever the core is opened for writing.
    pub signer: Option<Arc<dyn Signer>>,
    /// Who may sign, if not the key pair alone.
    pub manifest: Option<Manifest>,
    /// Make a core as hypercore 10 does by default: its key is the bare public key.
    pub compat: bool,
    /// The core's trees are signed as before there were namespaces
    /// ([`Signable::Legacy`](crate::signable::Signable::Legacy)): nothing but its key keeps such a signature
    /// apart from others by the same pair. Implies `compat`. It is not kept, so give it whenever the core is
    /// opened; of a core that is open already, whoever opened it has decided.
    pub legacy: bool,
    /// What its blocks are encrypted with, through the handle that is returned; see
    /// [`Core::with_encryption`](crate::Core::with_encryption). It is not kept.
    pub encryption: Option<EncryptionKey>,
}

impl fmt::Debug for CoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signer = self.signer.as_ref().map(|signer| signer.public_key());
        f.debug_struct("CoreOptions")
            .field("key", &self.key)
            .field("name", &self.name)
            .field("key_pair", &self.key_pair)
            .field("signer", &signer)
            .field("manifest", &self.manifest)
            .field("compat", &self.compat)
            .field("legacy", &self.legacy)
            .field("is_encrypted", &self.encryption.is_some())
            .finish()
    }
}
