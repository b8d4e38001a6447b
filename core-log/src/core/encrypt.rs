//! Handles that encrypt what they append and decrypt what they get.
//!
//! A key belongs to a handle, not to the core: proofs and other handles see stored blocks, so a
//! core is replicated all the same by those who have no key, or a wrong one.
//!
//! A wrong key is told by the fork that each encrypted block begins with. That blocks are encrypted at
//! all, nobody can tell without a key: then a block is what is stored, and whether that makes sense its
//! reader knows (a bee or a codec does, a log of bytes does not).

use std::sync::Arc;

use bytes::Bytes;

use super::{Core, CoreError};
use crate::encryption::{BlockCipher, CoreCiphers, EncryptionKey, PADDING};
use crate::limits::NUMBER_MAX;
use crate::merkle::Roots;
use crate::verifier::Verifier;

/// Any fork up to here is taken for one: it leaves a wrong key one chance in 2^32 for each block.
const SMALL_FORK: u64 = u32::MAX as u64;

impl Core {
    /// A handle on the same core whose blocks are encrypted with `key`: it appends ciphertext
    /// and gets plaintext, and its byte positions count plaintext.
    ///
    /// With a wrong key, reading a block is [`CoreError::WrongKey`]; see there for how sure that is. Nothing
    /// tells that a key is missing: without one, a handle gets blocks as they are stored. Do not append to
    /// one core through handles with and without a key.
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
        let Some(cipher) = self.cipher() else {
            return Ok(stored);
        };
        let core = self.key();
        let fork = cipher.fork_of(index, &stored);
        match fork.map(|fork| fork <= self.fork_max()) {
            Some(true) => cipher.decrypt(index, stored),
            Some(false) => return Err(CoreError::WrongKey { core, index }),
            None => None,
        }
        .ok_or(CoreError::NotEncrypted { core, index })
    }

    /// The last fork that a block here may have been appended under, generously. To be asked once the block is
    /// read.
    fn fork_max(&self) -> u64 {
        let shared = self.inner.read();
        let prologue = shared.verifier.as_ref().and_then(Verifier::prologue);
        match prologue {
            // Copies of what is pinned keep the blocks of their source, which was at a fork of its own.
            Some(_) => NUMBER_MAX,
            None => shared.fork.max(SMALL_FORK),
        }
    }
}
