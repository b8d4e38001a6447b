//! Who holds a secret: a key pair in this process, or something else that signs when asked.
//!
//! Knows how to ask. Does not know what is signed (`signable`) or who may sign (`verifier`).

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use ferrocore_primitives::sign::{KeyPair, PublicKey, Signature};
use thiserror::Error;

/// Whatever signs with a secret that may live elsewhere: a hardware token, an agent, a service.
///
/// A core asks while it holds its writer lock and no other, so readers do not wait for a slow
/// signer, but whoever else writes to the core does. Do not use the core from within.
pub trait Signer: Send + Sync + 'static {
    /// The key that verifies what this signs. It never changes.
    fn public_key(&self) -> PublicKey;

    /// Signs `message`.
    ///
    /// # Errors
    /// [`SignerError`]: nothing is appended then.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignerError>;
}

/// A signer did not sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignerError {
    /// It declined; ask whoever is in charge of it.
    #[error("the signer refused: {reason}")]
    Refused {
        /// As it said.
        reason: String,
    },
    /// It cannot be asked now; try again once it is there.
    #[error("the signer cannot be reached")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// What it returned is no signature of its key; it holds another secret, or is broken.
    #[error("the signer's signature does not hold for its key")]
    Invalid,
    /// Its key is not among those that may sign for the core.
    #[error("the signer's key {0} is not in the core's manifest")]
    Unknown(PublicKey),
}

impl SignerError {
    /// The same for another who waited for the same signature.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Refused { reason } => Self::Refused {
                reason: reason.clone(),
            },
            Self::Unavailable(source) => Self::Unavailable(source.to_string().into()),
            Self::Invalid => Self::Invalid,
            Self::Unknown(public_key) => Self::Unknown(*public_key),
        }
    }
}

impl Signer for KeyPair {
    fn public_key(&self) -> PublicKey {
        Self::public_key(self)
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignerError> {
        Ok(Self::sign(self, message))
    }
}

/// What a core signs with.
#[derive(Clone)]
pub(crate) enum Secret {
    Here(KeyPair),
    Elsewhere {
        /// Asked for once: it is looked at under locks.
        public_key: PublicKey,
        signer: Arc<dyn Signer>,
    },
}

impl Secret {
    pub(crate) fn elsewhere(signer: Arc<dyn Signer>) -> Self {
        let public_key = signer.public_key();
        Self::Elsewhere { public_key, signer }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        match self {
            Self::Here(key_pair) => key_pair.public_key(),
            Self::Elsewhere { public_key, .. } => *public_key,
        }
    }

    /// Signs `message`. What comes from elsewhere is checked.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Signature, SignerError> {
        match self {
            Self::Here(key_pair) => Ok(key_pair.sign(message)),
            Self::Elsewhere { signer, .. } => checked(&**signer, message),
        }
    }
}

/// The signature of `signer`, if it holds.
pub(crate) fn checked(signer: &dyn Signer, message: &[u8]) -> Result<Signature, SignerError> {
    let signature = signer.sign(message)?;
    match signer.public_key().verify(message, &signature) {
        true => Ok(signature),
        false => Err(SignerError::Invalid),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.public_key()).finish()
    }
}
