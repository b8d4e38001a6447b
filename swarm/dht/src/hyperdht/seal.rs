//! Rounds of holepunching under encryption, and proof that a host receives what is sent to it.
//! Knows keys, boxes and tokens (`hyperdht/lib/secure-payload.js` 6.34). Does not know when which round is due.
//!
//! | bytes | field |
//! |---|---|
//! | 24 | nonce, random |
//! | … | [`secret_box`] of a [`HolepunchPayload`]; the key is BLAKE2b-256 of the namespace, keyed by the handshake's hash |
//!
//! Both directions use the same key.

use std::net::Ipv4Addr;

use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::hash::keyed;
use ferrocore_primitives::random;
use ferrocore_secret_stream::secret_box::{self, KEY_LEN, NONCE_LEN};

use super::connect::HolepunchPayload;
use super::peer_holepunch_namespace;
use crate::message::Token;

/// What one side seals and opens rounds with. Not printed.
pub struct Sealing {
    shared: [u8; KEY_LEN],
    local: [u8; 32],
}

impl Sealing {
    /// For the connection of this handshake hash, with `local_secret`, which must be random, behind the tokens.
    pub fn new(handshake_hash: &[u8; 64], local_secret: [u8; 32]) -> Self {
        let namespace = peer_holepunch_namespace();
        let shared = keyed(handshake_hash, &[namespace.as_bytes()]);
        Self {
            shared: *shared.as_bytes(),
            local: local_secret,
        }
    }

    /// `payload` for the other side.
    pub fn seal(&self, payload: &HolepunchPayload) -> Vec<u8> {
        self.seal_with_nonce(payload, &random::bytes())
    }

    /// As [`seal`](Self::seal) with a given nonce: for tests. One used twice gives the rounds away.
    pub fn seal_with_nonce(&self, payload: &HolepunchPayload, nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
        let sealed = secret_box::seal(&self.shared, nonce, &payload.to_vec());
        [&nonce[..], &sealed].concat()
    }

    /// What the other side sealed, or `None` if `sealed` is anything else: ignore it then.
    pub fn open(&self, sealed: &[u8]) -> Option<HolepunchPayload> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let payload = secret_box::open(&self.shared, nonce, sealed)?;
        HolepunchPayload::from_slice(&payload).ok()
    }

    /// What only somebody who receives at `host` can show us. Ports do not count: a NAT may change them.
    pub fn token(&self, host: Ipv4Addr) -> Token {
        let token = keyed(&self.local, &[host.to_string().as_bytes()]);
        Token::from(*token.as_bytes())
    }
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").finish_non_exhaustive()
    }
}
