//! Makes signatures without anything that is not Rust.

use ed25519_dalek::{Signer, SigningKey};

/// Signs with a key.
#[derive(Debug, Clone)]
pub(super) struct Maker;

impl Maker {
    /// There is nothing to prepare.
    pub(super) fn new() -> Self {
        Self
    }

    /// The signature of `key` over `message`.
    pub(super) fn sign(&self, key: &SigningKey, message: &[u8]) -> [u8; 64] {
        key.sign(message).to_bytes()
    }
}
