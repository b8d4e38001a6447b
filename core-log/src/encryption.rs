//! Block encryption: what is stored of a block whose core has an encryption key.
//!
//! Knows how keys derive and what one encrypted block looks like. Does not know logs: the tree
//! is built over stored blocks, so whoever lacks the key can still keep, verify and pass on.
//!
//! A stored block (`hypercore/lib/default-encryption.js` 11.37.1, the same bytes as
//! `block-encryption.js` 10.38.2):
//!
//! | field | bytes | |
//! |---|---|---|
//! | blinded fork | 8 | the fork it was appended under, XSalsa20 with the blinding key |
//! | body | rest | the plaintext, XSalsa20 with the block key |
//!
//! Nonces are 24 bytes: the index (8, little endian) and 16 zeros for the fork; the index, the
//! blinded fork and 8 zeros for the body. The fork is in it so that a block that replaces
//! another after a truncate has another key stream.
//!
//! There is no tag. The tree says that these are the bytes that were signed; that the key fits them the fork
//! tells: with a wrong key it is a random number of 64 bits, and forks are small ([`BlockCipher::fork_of`]).
//! Blocks of compat cores differ in how their key derives, and in nothing else.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::{hash, namespace, random};
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes that encryption adds to a block.
pub const PADDING: usize = 8;

type Nonce = [u8; 24];

/// The secret that the blocks of a core are encrypted with; several cores may share one.
///
/// Zeroized when dropped, and hidden in `Debug`.
#[derive(Clone)]
pub struct EncryptionKey {
    secret: Zeroizing<[u8; 32]>,
    is_block_key: bool,
}

impl EncryptionKey {
    /// A random key.
    pub fn generate() -> Self {
        Self::from(random::bytes())
    }

    /// A key for one core alone that encrypts its blocks as it is, instead of one from which
    /// each core's block key derives: JavaScript's `{ key, block: true }`.
    pub fn block_key(secret: [u8; 32]) -> Self {
        Self {
            is_block_key: true,
            ..Self::from(secret)
        }
    }

    /// Whether it encrypts the blocks of one core as it is; see [`EncryptionKey::block_key`].
    pub fn is_block_key(&self) -> bool {
        self.is_block_key
    }

    /// The key that encrypts the blocks of `core` and no other, derived from this one
    /// (JavaScript's `Hypercore.blockEncryptionKey`): what reads a static copy of it. `is_compat`
    /// says whether the core's key is its signer's bare public key.
    pub fn of_core(&self, core: &Key, is_compat: bool) -> Self {
        Self::block_key(*BlockCipher::new(core, self, is_compat).block_key)
    }

    /// The secret itself, to be kept or passed on.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl From<[u8; 32]> for EncryptionKey {
    fn from(secret: [u8; 32]) -> Self {
        Self {
            secret: Zeroizing::new(secret),
            is_block_key: false,
        }
    }
}

impl PartialEq for EncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        let is_same: bool = self.secret.ct_eq(other.secret.as_slice()).into();
        is_same && self.is_block_key == other.is_block_key
    }
}

impl Eq for EncryptionKey {}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").finish_non_exhaustive()
    }
}

/// The ciphers of one core.
///
/// A reader learns only with the first proof whether its core is a compat one, which derives its
/// block key in another way; so both are made at once.
pub(crate) struct CoreCiphers {
    current: BlockCipher,
    compat: BlockCipher,
}

impl CoreCiphers {
    pub(crate) fn new(core: &Key, key: &EncryptionKey) -> Self {
        Self {
            current: BlockCipher::new(core, key, false),
            compat: BlockCipher::new(core, key, true),
        }
    }

    pub(crate) fn choose(&self, is_compat: bool) -> &BlockCipher {
        match is_compat {
            true => &self.compat,
            false => &self.current,
        }
    }
}

/// Encrypts and decrypts the blocks of one core.
#[derive(Clone)]
pub struct BlockCipher {
    block_key: Zeroizing<[u8; 32]>,
    blinding_key: Zeroizing<[u8; 32]>,
}

impl BlockCipher {
    /// The cipher of `core`, whose key is its signer's public key if it `is_compat`.
    pub fn new(core: &Key, key: &EncryptionKey, is_compat: bool) -> Self {
        let secret = key.secret();
        let block_key = if key.is_block_key {
            key.secret.clone()
        } else if is_compat {
            derived(hash::keyed(core.as_bytes(), &[secret]))
        } else {
            let purpose = namespace::default_encryption();
            derived(hash::hash(&[purpose.as_bytes(), core.as_bytes(), secret]))
        };
        let blinding_key = derived(hash::hash(&[block_key.as_slice()]));
        Self {
            block_key,
            blinding_key,
        }
    }

    /// What is stored of `plaintext` as block `index`, appended under `fork`.
    pub fn encrypt(&self, index: u64, fork: u64, plaintext: &[u8]) -> Bytes {
        let blinded_fork = self.blind(index, fork);
        let mut stored = BytesMut::with_capacity(PADDING + plaintext.len());
        stored.extend_from_slice(&blinded_fork);
        stored.extend_from_slice(plaintext);
        let body = stored.get_mut(PADDING..).unwrap_or_default();
        apply(&self.block_key, &nonce(index, blinded_fork), body);
        stored.freeze()
    }

    /// The plaintext of block `index`, in place if nobody else holds `stored`; `None` if it is
    /// too short to be an encrypted block.
    pub fn decrypt(&self, index: u64, stored: Bytes) -> Option<Bytes> {
        let blinded_fork = *stored.first_chunk::<PADDING>()?;
        let mut body = match stored.try_into_mut() {
            Ok(bytes) => bytes,
            Err(shared) => BytesMut::from(shared.as_ref()),
        };
        body.advance(PADDING);
        apply(&self.block_key, &nonce(index, blinded_fork), &mut body);
        Some(body.freeze())
    }

    /// The fork that the block was appended under, if this is the key of the block and `index` its
    /// place; else any number, most likely a larger one than a fork is. `None` if it is too short to be an
    /// encrypted block.
    pub fn fork_of(&self, index: u64, stored: &[u8]) -> Option<u64> {
        let blinded_fork = stored.first_chunk::<PADDING>()?;
        Some(u64::from_le_bytes(self.blinded(index, *blinded_fork)))
    }

    /// Whether `other` encrypts with the same key.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.block_key.ct_eq(other.block_key.as_slice()).into()
    }

    fn blind(&self, index: u64, fork: u64) -> [u8; PADDING] {
        self.blinded(index, fork.to_le_bytes())
    }

    /// Twice is as if never.
    fn blinded(&self, index: u64, mut fork: [u8; PADDING]) -> [u8; PADDING] {
        apply(&self.blinding_key, &nonce(index, [0; PADDING]), &mut fork);
        fork
    }
}

impl fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCipher").finish_non_exhaustive()
    }
}

fn derived(hash: hash::Hash) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*hash.as_bytes())
}

fn nonce(index: u64, fork: [u8; PADDING]) -> Nonce {
    let mut nonce = Nonce::default();
    let words = [index.to_le_bytes(), fork];
    let (places, _) = nonce.as_chunks_mut();
    places
        .iter_mut()
        .zip(words)
        .for_each(|(to, word)| *to = word);
    nonce
}

fn apply(key: &[u8; 32], nonce: &Nonce, bytes: &mut [u8]) {
    XSalsa20::new(key.into(), nonce.into()).apply_keystream(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let key = EncryptionKey::from([0xab; 32]);
        let cipher = BlockCipher::new(&Key::from([1; 32]), &key, false);
        assert_eq!(
            format!("{key:?} {cipher:?}"),
            "EncryptionKey { .. } BlockCipher { .. }"
        );
    }

    #[test]
    fn what_is_shared_is_decrypted_aside() {
        let cipher = BlockCipher::new(&Key::from([1; 32]), &EncryptionKey::generate(), false);
        let stored = cipher.encrypt(7, 2, b"hello");
        let kept = stored.clone();
        assert_eq!(cipher.decrypt(7, stored.clone()).unwrap(), "hello");
        assert_eq!(stored, kept);
        assert!(cipher.decrypt(0, Bytes::from_static(b"1234567")).is_none());
    }
}
