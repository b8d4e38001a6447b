//! Messages beside the stream: each for itself, in any order, perhaps lost.
//! Knows their encryption. Does not know the datagrams that carry them, nor which message came before.
//!
//! An envelope is what `send` of `@hyperswarm/secret-stream` 6.9.2 makes, libsodium's `secretbox` behind its
//! nonce:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | counter, little endian; with 16 zeros it is the nonce |
//! | 16 | Poly1305 of the hidden message |
//! | … | message, hidden by XSalsa20 |

use ferrocore_primitives::hash::keyed;
use ferrocore_primitives::{namespace, random};
use zeroize::Zeroizing;

use crate::HandshakeResult;
use crate::direction::NAMESPACE;
use crate::noise::SecretKey;
use crate::secret_box::{self, MAC_LEN, NONCE_LEN};

/// Bytes that an envelope has beside its message.
pub const OVERHEAD: usize = COUNTER_LEN + MAC_LEN;

const COUNTER_LEN: usize = 8;

/// Number of the namespace that both keys derive under, behind that of their side.
const SEND_NAMESPACE: u8 = 2;

/// Encrypts our messages.
pub struct Sealer {
    key: SecretKey,
    counter: u64,
}

impl Sealer {
    /// Starts at a random counter: the keys of a connection are used by one sealer only.
    pub fn new(keys: &HandshakeResult) -> Self {
        Self::with_counter(keys, random::u64())
    }

    /// As [`new`](Self::new) with the counter of the first message given: for tests. One used twice gives
    /// away the messages.
    pub fn with_counter(keys: &HandshakeResult, counter: u64) -> Self {
        Self {
            key: key(keys, keys.is_initiator),
            counter,
        }
    }

    /// The envelope of `message`.
    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let counter = self.counter.to_le_bytes();
        // No connection lives for the 2^64 messages after which a counter comes again.
        self.counter = self.counter.wrapping_add(1);
        let sealed = secret_box::seal(&self.key, &nonce(&counter), message);
        [&counter[..], &sealed].concat()
    }
}

/// Decrypts the peer's messages.
pub struct Opener {
    key: SecretKey,
}

impl Opener {
    /// The other end of the peer's [`Sealer`].
    pub fn new(keys: &HandshakeResult) -> Self {
        Self {
            key: key(keys, !keys.is_initiator),
        }
    }

    /// The message in `envelope`, or `None` if that is too short or was not made by the peer: drop it then,
    /// the connection is none the worse.
    ///
    /// One that comes twice opens twice.
    pub fn open(&self, envelope: &[u8]) -> Option<Vec<u8>> {
        let (counter, sealed) = envelope.split_first_chunk::<COUNTER_LEN>()?;
        secret_box::open(&self.key, &nonce(counter), sealed)
    }
}

/// The key of what the initiator, or else the responder, sends.
fn key(keys: &HandshakeResult, initiators: bool) -> SecretKey {
    let of_side = namespace::nth(NAMESPACE, u8::from(!initiators));
    let of_sending = namespace::nth(NAMESPACE, SEND_NAMESPACE);
    let key = keyed(&keys.hash, &[of_side.as_ref(), of_sending.as_ref()]);
    Zeroizing::new(*key.as_bytes())
}

fn nonce(counter: &[u8; COUNTER_LEN]) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    let (head, _) = nonce.split_at_mut(COUNTER_LEN);
    head.copy_from_slice(counter);
    nonce
}

#[cfg(test)]
mod tests {
    use ferrocore_primitives::sign::KeyPair;
    use proptest::prelude::*;

    use super::*;

    /// The keys of both ends of a connection, the initiator's first.
    fn keys() -> [HandshakeResult; 2] {
        let public_key = KeyPair::from_seed(&[7; 32]).public_key();
        [true, false].map(|is_initiator| HandshakeResult {
            tx: Zeroizing::default(),
            rx: Zeroizing::default(),
            hash: [0x11; 64],
            remote_public_key: public_key,
            is_initiator,
        })
    }

    #[test]
    fn envelopes_open_in_any_order_at_the_other_end_only() {
        let [ours, theirs] = keys();
        let mut sealer = Sealer::new(&ours);
        let (first, second) = (sealer.seal(b"first"), sealer.seal(b""));
        assert_ne!(first[..COUNTER_LEN], second[..COUNTER_LEN]);
        let opener = Opener::new(&theirs);
        assert_eq!(opener.open(&second).unwrap(), b"");
        assert_eq!(opener.open(&first).unwrap(), b"first");
        assert_eq!(Opener::new(&ours).open(&first), None, "reflected");
    }

    #[test]
    fn counters_wrap() {
        let [ours, theirs] = keys();
        let mut sealer = Sealer::with_counter(&ours, u64::MAX);
        let envelopes = [sealer.seal(b"a"), sealer.seal(b"b")];
        assert_eq!(envelopes[1][..COUNTER_LEN], [0; COUNTER_LEN]);
        let opener = Opener::new(&theirs);
        let opened = envelopes.map(|envelope| opener.open(&envelope).unwrap());
        assert_eq!(opened, [b"a", b"b"]);
    }

    #[test]
    fn what_was_changed_or_cut_is_dropped() {
        let [ours, theirs] = keys();
        let opener = Opener::new(&theirs);
        let envelope = Sealer::new(&ours).seal(b"hello");
        for at in 0..envelope.len() {
            let mut forged = envelope.clone();
            forged[at] ^= 1;
            assert_eq!(opener.open(&forged), None, "byte {at}");
            assert_eq!(opener.open(&envelope[..at]), None, "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_dropped(bytes: Vec<u8>) {
            prop_assert_eq!(Opener::new(&keys()[0]).open(&bytes), None);
        }
    }
}
