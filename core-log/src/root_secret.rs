//! The secret that all named cores of a store derive from.
//!
//! Knows its fingerprint. Does not know where it is kept or how it is written down ([`crate::backup`]).

use std::fmt;

use ferrocore_primitives::hash;
use ferrocore_primitives::namespace;
use ferrocore_primitives::sign::KeyPair;
use subtle::ConstantTimeEq as _;
#[cfg(feature = "files")]
use thiserror::Error;
use zeroize::Zeroizing;

use crate::storage::Alias;
#[cfg(feature = "files")]
use crate::storage::StorageError;

/// What the fingerprint hashes beside the secret, so that it is the hash of nothing else.
const FINGERPRINT: &[u8] = b"ferrocore/root-fingerprint";

/// Bytes of a fingerprint: enough to tell stores apart, short enough to compare by eye.
const FINGERPRINT_BYTES: usize = 8;

/// A store's root secret: whoever has it can write every named core of the store.
///
/// Zeroized when dropped, compared in constant time, hidden in `Debug`.
#[derive(Clone)]
pub struct RootSecret(Zeroizing<[u8; 32]>);

/// Names a root secret without giving it away: 16 hexadecimal digits of a hash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

/// A store could not be given its root secret back. What was there is as it was.
#[cfg(feature = "files")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is a store with another root secret; restore into a new directory.
    #[error(
        "the store there has another root secret, {fingerprint}, and {cores} cores; restore into a new store"
    )]
    OtherRoot {
        /// That of the secret which is there.
        fingerprint: Fingerprint,
        /// How many cores are there.
        cores: usize,
    },
    /// The store lost its root secret, and this one is not it: none of the names that its cores tell derives from
    /// it. Take that of this store.
    #[error(
        "this is not the root secret of the store there: of its {cores} named cores it derives none"
    )]
    NotOfStore {
        /// How many cores tell their names.
        cores: usize,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl RootSecret {
    /// The name of this secret.
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = hash::keyed(self.0.as_slice(), &[FINGERPRINT]);
        let mut name = hash.to_hex();
        name.truncate(2 * FINGERPRINT_BYTES);
        Fingerprint(name)
    }

    /// The key pair of a name, as in `corestore/index.js` 6.
    pub(crate) fn key_pair(&self, alias: &Alias) -> KeyPair {
        let purpose = namespace::nth("corestore", 0);
        let parts = [purpose.as_bytes(), &alias.namespace, alias.name.as_bytes()];
        let seed = Zeroizing::new(*hash::keyed(self.bytes(), &parts).as_bytes());
        KeyPair::from_seed(&seed)
    }

    /// The secret itself, to be kept.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for RootSecret {
    fn from(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl From<Zeroizing<[u8; 32]>> for RootSecret {
    fn from(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }
}

impl PartialEq for RootSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for RootSecret {}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootSecret")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
