//! Proof that a peer knows a core's key, bound to one connection.
//!
//! A channel is named by the core's discovery key, which anybody may learn. Who opens one shows a
//! hash that only a holder of the key can compute, and that is of no use on another connection.

use ferrocore_primitives::hash::keyed;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;

/// The capability that the initiator (or else the responder) of a stream shows for a core.
///
/// `handshake_hash` is that of the stream's Noise handshake. Matches `hypercore/lib/caps.js` 11.37.1.
pub fn capability(is_initiator: bool, key: &Key, handshake_hash: &[u8; 64]) -> [u8; 32] {
    let namespace = if is_initiator {
        namespace::replicate_initiator()
    } else {
        namespace::replicate_responder()
    };
    *keyed(handshake_hash, &[namespace.as_bytes(), key.as_bytes()]).as_bytes()
}

/// Compares what a peer showed with what it should have, in constant time.
pub fn is_same(shown: &[u8; 32], expected: &[u8; 32]) -> bool {
    let differing = shown
        .iter()
        .zip(expected)
        .fold(0, |bits, (a, b)| bits | (a ^ b));
    differing == 0
}
