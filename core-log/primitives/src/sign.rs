//! Ed25519 signatures, accepting exactly what libsodium accepts.
//! Knows keys and signatures. Does not know what is signed.

use std::fmt;

use ed25519_dalek::{SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use self::maker::Maker;
use crate::byte_array::write_hex;
use crate::random;

#[cfg_attr(feature = "aws-lc", path = "sign/aws_lc.rs")]
#[cfg_attr(not(feature = "aws-lc"), path = "sign/dalek.rs")]
mod maker;

byte_array! {
    /// An Ed25519 public key. Any 32 bytes are one; those that are no point verify nothing.
    PublicKey, 32, write_hex
}

byte_array! {
    /// An Ed25519 signature.
    Signature, 64, write_hex
}

/// Why bytes are no key pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret key's second half is not the public key of its first; it is damaged, or the halves are
    /// of different pairs.
    #[error("the secret key does not match the public key stored with it")]
    Mismatch,
}

/// An Ed25519 key pair. The secret is zeroized on drop and never printed; with feature `aws-lc` there is a second copy once it has
/// signed, which clones share and AWS-LC cleanses with the last of them.
#[derive(Clone)]
pub struct KeyPair {
    key: SigningKey,
    maker: Maker,
}

impl KeyPair {
    /// A new pair from the operating system's randomness.
    pub fn generate() -> Self {
        let seed = Zeroizing::new(random::bytes());
        Self::from_seed(&seed)
    }

    /// The pair that derives from `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(SigningKey::from_bytes(seed))
    }

    /// The pair of a libsodium secret key: seed, then public key.
    ///
    /// # Errors
    /// [`KeyError::Mismatch`] if the halves do not belong together.
    pub fn from_secret(secret: &[u8; 64]) -> Result<Self, KeyError> {
        SigningKey::from_keypair_bytes(secret)
            .map(Self::of)
            .map_err(|_| KeyError::Mismatch)
    }

    fn of(key: SigningKey) -> Self {
        let maker = Maker::new();
        Self { key, maker }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.maker.sign(&self.key, message))
    }

    /// The seed, from which everything else derives. Secret.
    pub fn seed(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The libsodium form: seed, then public key. Secret.
    pub fn to_secret(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.key.to_keypair_bytes())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Whether `signature` is this key's over `message`. Keys and signatures that libsodium refuses
    /// (points of small order, non-canonical encodings) verify nothing.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.is_canonical()
            && VerifyingKey::from_bytes(&self.0)
                .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    /// Whether the y coordinate is reduced modulo p = 2^255 - 19; dalek reduces it silently.
    fn is_canonical(&self) -> bool {
        let [low, middle @ .., high] = &self.0;
        *low < 0xed || middle.iter().any(|byte| *byte != 0xff) || high & 0x7f != 0x7f
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let pair = KeyPair::generate();
        let signature = pair.sign(b"message");
        assert!(pair.public_key().verify(b"message", &signature));
        assert!(!pair.public_key().verify(b"messages", &signature));
        assert!(
            !KeyPair::generate()
                .public_key()
                .verify(b"message", &signature)
        );
    }

    #[test]
    fn a_secret_key_must_fit_its_public_key() {
        let secret = KeyPair::from_seed(&[1; 32]).to_secret();
        assert_eq!(
            KeyPair::from_secret(&secret).unwrap().seed(),
            &[1; 32],
            "the seed is the first half"
        );
        let mut damaged = *secret;
        damaged[0] ^= 1;
        assert_eq!(
            KeyPair::from_secret(&damaged).unwrap_err(),
            KeyError::Mismatch
        );
    }

    #[test]
    fn small_order_keys_verify_nothing() {
        // With the identity as key, R = s·B satisfies the equation for any message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut zero_s = [0; 64];
        zero_s[0] = 1;
        assert!(!PublicKey::from(identity).verify(b"anything", &Signature::from(zero_s)));
    }

    #[test]
    fn canonical_keys_stay_below_the_prime() {
        let with_low_byte = |low| {
            let mut bytes = [0xff; 32];
            bytes[0] = low;
            bytes[31] = 0x7f;
            PublicKey::from(bytes)
        };
        assert!(with_low_byte(0xec).is_canonical(), "p - 1");
        assert!(!with_low_byte(0xed).is_canonical(), "p");
        assert!(!with_low_byte(0xff).is_canonical(), "2^255 - 1");
        assert!(KeyPair::generate().public_key().is_canonical());
    }

    #[test]
    fn the_secret_is_not_printed() {
        let pair = KeyPair::from_seed(&[0xab; 32]);
        assert!(!format!("{pair:?}").contains("abab"));
    }
}
