//! Handles that encrypt what they append and decrypt what they get.
//!
//! A key belongs to a handle, not to the core: proofs and other handles see stored blocks, so a
//! core is replicated all the same by those who have no key.

use std::sync::Arc;

use bytes::Bytes;

use super::{Core, CoreError};
use crate::encryption::{BlockCipher, CoreCiphers, EncryptionKey, PADDING};
use crate::merkle::Roots;
use crate::verifier::Verifier;

impl Core {
    /// A handle on the same core whose blocks are encrypted with `key`: it appends ciphertext
    /// and gets plaintext, and its byte positions count plaintext.
    ///
    /// Whether the key is the right one cannot be told: with a wrong one, blocks are noise. Do
    /// not append to one core through handles with and without a key.
    #[must_use]
    pub fn with_encryption(&self, key: &EncryptionKey) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            ciphers: Some(Arc::new(CoreCiphers::new(&self.key(), key))),
            is_read_only: self.is_read_only,
        }
    }

    /// Whether this handle encrypts and decrypts.
    pub fn is_encrypted(&self) -> bool {
        self.ciphers.is_some()
    }

    /// Bytes of each stored block that are not the caller's.
    pub(super) fn padding(&self) -> usize {
        match self.ciphers {
            Some(_) => PADDING,
            None => 0,
        }
    }

    /// Bytes of all blocks of a log with these roots, as this handle counts them.
    pub(super) fn byte_length_of(&self, roots: &Roots) -> u64 {
        let padding = (self.padding() as u64).saturating_mul(roots.length());
        roots.byte_length().saturating_sub(padding)
    }

    /// The cipher of the core's kind. To be asked once there are blocks or the core is writable:
    /// before, a reader does not know the kind.
    pub(super) fn cipher(&self) -> Option<&BlockCipher> {
        let ciphers = self.ciphers.as_ref()?;
        // Blocks without a known manifest were verified with the key itself: a compat core's.
        let verifier = &self.inner.read().verifier;
        Some(ciphers.choose(verifier.as_ref().is_none_or(Verifier::is_compat)))
    }

    /// A stored block as this handle hands it out.
    pub(super) fn open_block(&self, index: u64, stored: Bytes) -> Result<Bytes, CoreError> {
        let core = self.key();
        match self.cipher() {
            Some(cipher) => cipher
                .decrypt(index, stored)
                .ok_or(CoreError::NotEncrypted { core, index }),
            None => Ok(stored),
        }
    }
}
