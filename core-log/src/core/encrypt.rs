//! Handles that encrypt what they append and decrypt what they get.
//!
//! A key belongs to a handle, not to the core: proofs and other handles see stored blocks, so a
//! core is replicated all the same by those who have no key, or a wrong one.
//!
//! A wrong key is told by the fork that each encrypted block begins with. That blocks are encrypted at
//! all, nobody can tell without a key: then a block is what is stored, and whether that makes sense its
//! reader knows (a bee or a codec does, a log of bytes does not).
//!
//! Nor does a log take blocks that the key of those before does not open: before a handle's first append, the
//! key is tried on the nearest block that is here.

use std::sync::Arc;

use bytes::Bytes;

use super::append::Growth;
use super::{Core, CoreError, HashedBlocks, Inner};
use crate::bitfield::Bitfield;
use crate::encryption::{BlockCipher, CoreCiphers, EncryptionKey, PADDING};
use crate::limits::NUMBER_MAX;
use crate::merkle::Roots;
use crate::storage::lock;
use crate::verifier::Verifier;

/// Any fork up to here is taken for one: it leaves a wrong key one chance in 2^32 for each block.
const SMALL_FORK: u64 = u32::MAX as u64;

/// So many blocks are looked at, from the last one on, for one to try a key on: one is enough, unless it is damaged.
const TRIED_MAX: usize = 8;

impl Core {
    /// A handle on the same core whose blocks are encrypted with `key`: it appends ciphertext
    /// and gets plaintext, and its byte positions count plaintext.
    ///
    /// With a wrong key, reading a block is [`CoreError::WrongKey`], and so is appending where any block is here to
    /// try the key on; see there for how sure that is. Nothing
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
    pub(crate) fn padding(&self) -> usize {
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
        self.inner.check_fits(cipher, index, &stored)?;
        let core = self.key();
        let opened = cipher.decrypt(index, stored);
        opened.ok_or(CoreError::NotEncrypted { core, index })
    }
}

impl Inner {
    /// Whether block `index`, as it is `stored`, was encrypted by `cipher`. To be asked once the block is read.
    pub(super) fn check_fits(
        &self,
        cipher: &BlockCipher,
        index: u64,
        stored: &[u8],
    ) -> Result<(), CoreError> {
        let core = self.key;
        match cipher.fork_of(index, stored) {
            Some(fork) if fork <= self.fork_max() => Ok(()),
            Some(_) => Err(CoreError::WrongKey { core, index }),
            None => Err(CoreError::NotEncrypted { core, index }),
        }
    }

    /// `blocks` as they are stored behind those of `growth`, if `cipher` goes on with these. The writer lock must
    /// be held.
    pub(super) fn encrypt_next(
        &self,
        cipher: &BlockCipher,
        blocks: &[Bytes],
        growth: &Growth,
    ) -> Result<HashedBlocks, CoreError> {
        self.check_goes_on(cipher, growth)?;
        let (fork, start) = growth.end();
        let encrypt = |(index, block): (u64, &Bytes)| cipher.encrypt(index, fork, block);
        let stored = (start..).zip(blocks).map(encrypt);
        Ok(HashedBlocks::hash(stored.collect()))
    }

    /// Whether what `cipher` encrypts may come behind the blocks of `growth`: if it opens the nearest one that is here,
    /// or none is.
    ///
    /// Cost: for the cipher that was found to fit the last time, a comparison; else the block is read.
    fn check_goes_on(&self, cipher: &BlockCipher, growth: &Growth) -> Result<(), CoreError> {
        let mut fitting = lock(&self.fitting);
        if fitting.as_ref().is_some_and(|last| last.is_same(cipher)) {
            return Ok(());
        }
        if let Some((index, block)) = growth.last_block() {
            return self.check_fits(cipher, index, block);
        }
        let (roots, bits) = self.roots_and_bits();
        let read = |index| self.read_block_here(&roots, index);
        if let Some((index, block)) = nearest_block(&bits, roots.length(), read)? {
            self.check_fits(cipher, index, &block)?;
            *fitting = Some(cipher.clone());
        }
        Ok(())
    }

    /// Forgets which cipher fits: the history it was tried on is left.
    pub(super) fn forget_fitting(&self) {
        *lock(&self.fitting) = None;
    }

    /// The last fork that a block here may have been appended under, generously.
    fn fork_max(&self) -> u64 {
        let shared = self.read();
        let prologue = shared.verifier.as_ref().and_then(Verifier::prologue);
        match prologue {
            // Copies of what is pinned keep the blocks of their source, which was at a fork of its own.
            Some(_) => NUMBER_MAX,
            None => shared.fork.max(SMALL_FORK),
        }
    }
}

/// The last block before `end` that is here and whole, as `read` finds it. A damaged one says nothing about keys: that
/// one is the error only where [`TRIED_MAX`] of them are.
pub(super) fn nearest_block(
    bits: &Bitfield,
    end: u64,
    read: impl Fn(u64) -> Result<Option<Bytes>, CoreError>,
) -> Result<Option<(u64, Bytes)>, CoreError> {
    let (mut end, mut damaged) = (end, None);
    for _ in 0..TRIED_MAX {
        let Some(index) = bits.prev_set(end) else {
            return damaged.map_or(Ok(None), Err);
        };
        match read(index) {
            Ok(Some(block)) => return Ok(Some((index, block))),
            Ok(None) => {} // cleared by somebody else
            Err(error @ CoreError::CorruptBlock { .. }) => {
                damaged.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        end = index;
    }
    damaged.map_or(Ok(None), Err)
}
