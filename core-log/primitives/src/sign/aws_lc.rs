//! Makes signatures by AWS-LC: the same bytes as by dalek, for RFC 8032 leaves nothing to choose, in half the time.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::signature::Ed25519KeyPair;
use ed25519_dalek::{Signer, SigningKey};

/// Signs with a key, which it has in the form of AWS-LC from the first time on: most key pairs of a store never sign.
#[derive(Debug, Clone)]
pub(super) struct Maker(OnceLock<Option<Arc<Ed25519KeyPair>>>);

impl Maker {
    /// Nothing is prepared yet.
    pub(super) fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The signature of `key`, always the same one, over `message`.
    pub(super) fn sign(&self, key: &SigningKey, message: &[u8]) -> [u8; 64] {
        let prepare = || {
            let public_key = key.verifying_key();
            let pair =
                Ed25519KeyPair::from_seed_and_public_key(key.as_bytes(), public_key.as_bytes());
            pair.ok().map(Arc::new)
        };
        let pair = self.0.get_or_init(prepare).as_ref();
        let signature = pair.and_then(|pair| pair.try_sign(message).ok()?.as_ref().try_into().ok());
        // There is nothing that AWS-LC could object to in a key of dalek's.
        signature.unwrap_or_else(|| key.sign(message).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// Goal: nobody can tell who made a signature. Method: dalek's, over messages of many lengths.
    #[test]
    fn signatures_are_the_same_as_dalek_makes() {
        let key = SigningKey::from_bytes(&random::bytes());
        let maker = Maker::new();
        for len in [
            0, 1, 31, 32, 63, 64, 65, 111, 112, 127, 128, 129, 1000, 100_000,
        ] {
            let message: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[0]).collect();
            assert_eq!(
                maker.sign(&key, &message),
                key.sign(&message).to_bytes(),
                "{len}"
            );
        }
        assert!(maker.0.get().is_some_and(Option::is_some), "it was AWS-LC");
        assert!(
            maker.clone().0.get().is_some(),
            "what was prepared is prepared for clones"
        );
    }
}
