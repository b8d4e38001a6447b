//! libsodium's `secretbox`: one message hidden by XSalsa20 and vouched for by Poly1305.
//! Knows the two ciphers. Does not know where keys and nonces come from, nor what is in the box.
//!
//! | bytes | field |
//! |---|---|
//! | 16 | Poly1305 of the hidden message, under the first 32 bytes of the keystream |
//! | … | message, hidden by the keystream behind those |

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 24;

/// Bytes that a box has beside its message.
pub const MAC_LEN: usize = 16;

/// The box that holds `message`. A nonce used twice under one key gives both messages away.
pub fn seal(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], message: &[u8]) -> Vec<u8> {
    let mut keystream = Keystream::new(key, nonce);
    let mut hidden = message.to_vec();
    keystream.cipher.apply_keystream(&mut hidden);
    [&keystream.mac(&hidden)[..], &hidden].concat()
}

/// The message in `sealed`, or `None` if that is too short or was made with another key or nonce.
pub fn open(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
    let (mac, hidden) = sealed.split_first_chunk::<MAC_LEN>()?;
    let mut keystream = Keystream::new(key, nonce);
    if !bool::from(keystream.mac(hidden).ct_eq(mac)) {
        return None;
    }
    let mut message = hidden.to_vec();
    keystream.cipher.apply_keystream(&mut message);
    Some(message)
}

/// What the keystream of one box provides.
struct Keystream {
    /// Stands at the message.
    cipher: XSalsa20,
    poly_key: Zeroizing<[u8; KEY_LEN]>,
}

impl Keystream {
    fn new(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN]) -> Self {
        let mut cipher = XSalsa20::new(key.into(), nonce.into());
        let mut poly_key = Zeroizing::new([0; KEY_LEN]);
        cipher.apply_keystream(&mut *poly_key);
        Self { cipher, poly_key }
    }

    fn mac(&self, hidden: &[u8]) -> [u8; MAC_LEN] {
        let poly = Poly1305::new((&*self.poly_key).into());
        poly.compute_unpadded(hidden).into()
    }
}
