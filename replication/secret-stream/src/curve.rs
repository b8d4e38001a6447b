//! Diffie-Hellman on Ed25519 keys: `noise-curve-ed` 2.1.0.
//! Knows which points are refused. Does not know what the secret is mixed into.
//!
//! Unlike X25519 both key and secret are compressed Edwards points, so one key pair signs and agrees.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::traits::IsIdentity;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use crate::HandshakeError;

/// The secret that `ours` and the owner of `theirs` share.
///
/// # Errors
/// [`HandshakeError::UnusableKey`] for what libsodium's `crypto_scalarmult_ed25519_noclamp` refuses:
/// encodings that are not canonical or no point, and points outside the prime-order subgroup.
pub(crate) fn shared_secret(
    ours: &KeyPair,
    theirs: &PublicKey,
) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
    let point = usable_point(theirs).ok_or(HandshakeError::UnusableKey)?;
    // `mul_clamped` clamps as libsodium does when it turns a seed into a scalar.
    let secret = point.mul_clamped(*unclamped_scalar(ours));
    Ok(Zeroizing::new(secret.compress().to_bytes()))
}

/// The point of `key` if it is safe to multiply. The identity is the one point of the prime-order subgroup
/// that is not; multiplying another by a clamped scalar cannot give it.
fn usable_point(key: &PublicKey) -> Option<EdwardsPoint> {
    let encoded = CompressedEdwardsY(*key.as_bytes());
    let point = encoded.decompress()?;
    let canonical = point.compress() == encoded;
    (canonical && point.is_torsion_free() && !point.is_identity()).then_some(point)
}

/// The first half of SHA-512 of the seed, as Ed25519 derives its signing scalar.
fn unclamped_scalar(pair: &KeyPair) -> Zeroizing<[u8; 32]> {
    let mut hash: [u8; 64] = Sha512::digest(pair.seed()).into();
    let mut scalar = Zeroizing::new([0; 32]);
    let (half, _) = hash.split_at(32);
    scalar.copy_from_slice(half);
    zeroize::Zeroize::zeroize(&mut hash);
    scalar
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};

    fn is_refused(key: [u8; 32]) -> bool {
        let pair = KeyPair::from_seed(&[7; 32]);
        shared_secret(&pair, &PublicKey::from(key)).is_err()
    }

    #[test]
    fn both_sides_agree() {
        let (a, b) = (KeyPair::generate(), KeyPair::generate());
        let secret = shared_secret(&a, &b.public_key()).unwrap();
        assert_eq!(secret, shared_secret(&b, &a.public_key()).unwrap());
        assert!(!is_refused(*a.public_key().as_bytes()));
    }

    #[test]
    fn points_outside_the_prime_order_subgroup_are_refused() {
        for point in EIGHT_TORSION {
            assert!(is_refused(point.compress().to_bytes()), "small order");
            let mixed = ED25519_BASEPOINT_POINT + point;
            assert_eq!(
                is_refused(mixed.compress().to_bytes()),
                !point.is_identity(),
                "mixed order"
            );
        }
    }

    #[test]
    fn encodings_that_are_not_canonical_are_refused() {
        // y = p + 3 decompresses to the same point as y = 3, a valid one of large order or not on the
        // curve; either way the encoding itself is refused.
        for low in 0xed..=0xff {
            let mut bytes = [0xff; 32];
            bytes[0] = low;
            bytes[31] = 0x7f;
            assert!(is_refused(bytes));
            bytes[31] = 0xff;
            assert!(is_refused(bytes));
        }
        assert!(is_refused([0; 32]), "order four");
        assert!(
            is_refused([2; 32]) || is_refused([3; 32]),
            "not on the curve"
        );
    }
}
