//! The symmetric part of Noise with ChaCha20-Poly1305 and BLAKE2b-512.
//! Knows the running hash, the chaining key and the cipher. Does not know patterns, keys or roles.

use blake2::{Blake2b512, Digest};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hmac::{Mac, SimpleHmac};
use zeroize::Zeroizing;

use crate::HandshakeError;

/// Length of the hash and of everything derived with it, in bytes.
pub(crate) const HASH_LEN: usize = 64;

/// Length of a cipher key, in bytes.
pub(crate) const KEY_LEN: usize = 32;

/// Length of the authentication tag behind everything encrypted, in bytes.
pub(crate) const TAG_LEN: usize = 16;

type SecretHash = Zeroizing<[u8; HASH_LEN]>;
pub(crate) type SecretKey = Zeroizing<[u8; KEY_LEN]>;

/// Noise's SymmetricState.
#[derive(Clone)]
pub(crate) struct Symmetric {
    hash: [u8; HASH_LEN],
    chaining_key: SecretHash,
    /// None until the first secret was mixed in: until then nothing is encrypted.
    cipher: Option<Cipher>,
}

impl Symmetric {
    /// Starts from the protocol's name, which is at most [`HASH_LEN`] bytes long and so is padded rather
    /// than hashed.
    pub(crate) fn new(protocol_name: &str) -> Self {
        let mut hash = [0; HASH_LEN];
        let (name, _) = hash.split_at_mut(protocol_name.len());
        name.copy_from_slice(protocol_name.as_bytes());
        Self {
            hash,
            chaining_key: Zeroizing::new(hash),
            cipher: None,
        }
    }

    /// Adds public data to what both sides must agree on.
    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        let hasher = Blake2b512::new().chain_update(self.hash);
        self.hash = hasher.chain_update(data).finalize().into();
    }

    /// Adds a shared secret to the keys.
    pub(crate) fn mix_key(&mut self, secret: &[u8]) {
        let (chaining_key, key) = hkdf(&self.chaining_key, secret);
        self.chaining_key = chaining_key;
        self.cipher = Some(Cipher {
            key: truncated(&key),
            nonce: 0,
        });
    }

    /// Appends `plaintext` to `out`, encrypted once there is a key.
    pub(crate) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let ciphertext = match &mut self.cipher {
            Some(cipher) => cipher.encrypt(&self.hash, plaintext),
            None => plaintext.to_vec(),
        };
        self.mix_hash(&ciphertext);
        out.extend_from_slice(&ciphertext);
    }

    /// The plaintext of `ciphertext`, which is the same as long as there is no key.
    pub(crate) fn decrypt(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let plaintext = match &mut self.cipher {
            Some(cipher) => cipher.decrypt(&self.hash, ciphertext)?,
            None => ciphertext.to_vec(),
        };
        self.mix_hash(ciphertext);
        Ok(plaintext)
    }

    /// How many bytes encryption adds at this point.
    pub(crate) fn overhead(&self) -> usize {
        if self.cipher.is_some() { TAG_LEN } else { 0 }
    }

    /// The keys of the two directions, the initiator's first, and the handshake hash.
    pub(crate) fn split(&self) -> (SecretKey, SecretKey, [u8; HASH_LEN]) {
        let (first, second) = hkdf(&self.chaining_key, &[]);
        (truncated(&first), truncated(&second), self.hash)
    }
}

/// Noise's CipherState.
#[derive(Clone)]
struct Cipher {
    key: SecretKey,
    nonce: u64,
}

impl Cipher {
    fn encrypt(&mut self, associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (aead, nonce) = self.next();
        let payload = Payload {
            msg: plaintext,
            aad: associated,
        };
        aead.encrypt(&nonce, payload)
            .expect("handshake messages are far shorter than the cipher's limit")
    }

    fn decrypt(&mut self, associated: &[u8], msg: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (aead, nonce) = self.next();
        let payload = Payload {
            msg,
            aad: associated,
        };
        aead.decrypt(&nonce, payload)
            .map_err(|_| HandshakeError::Forged)
    }

    /// The cipher with the nonce to use now: four zero bytes, then the counter.
    fn next(&mut self) -> (ChaCha20Poly1305, Nonce) {
        let [a, b, c, d, e, f, g, h] = self.nonce.to_le_bytes();
        self.nonce += 1;
        let aead = ChaCha20Poly1305::new((&*self.key).into());
        (aead, [0, 0, 0, 0, a, b, c, d, e, f, g, h].into())
    }
}

/// Noise's HKDF with two outputs.
fn hkdf(chaining_key: &SecretHash, secret: &[u8]) -> (SecretHash, SecretHash) {
    let base = hmac(chaining_key, &[secret]);
    let first = hmac(&base, &[&[1]]);
    let second = hmac(&base, &[&*first, &[2]]);
    (first, second)
}

fn hmac(key: &SecretHash, parts: &[&[u8]]) -> SecretHash {
    let mut mac =
        SimpleHmac::<Blake2b512>::new_from_slice(&**key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Cipher keys are the first half of what is derived for them.
fn truncated(hash: &SecretHash) -> SecretKey {
    let mut key = SecretKey::default();
    let (half, _) = hash.split_at(KEY_LEN);
    key.copy_from_slice(half);
    key
}
