//! Tokens: who shows one has received a datagram of ours at its address, not long ago.
//! Knows how they are made and how long they live (`dht-rpc/lib/io.js` 6.27). Does not know what they permit.
//!
//! A token is BLAKE2b-256 over the host in dotted notation, keyed by a secret; the port is not part of it. Of two
//! secrets the newer makes tokens and both are accepted. Every [`PERIOD`] the newer takes the place of the older, whose
//! hash becomes the newer: so a token lives between one and two periods.

use std::net::Ipv4Addr;
use std::time::Duration;

use ferrocore_primitives::hash::{Hash, hash, keyed};
use ferrocore_primitives::time::Time;

use crate::message::Token;

/// How long one secret makes tokens.
pub const PERIOD: Duration = Duration::from_millis(10 * 750);

/// The secrets of a node. Not printed.
pub struct Tokens {
    older: [u8; 32],
    newer: [u8; 32],
    turns_at: Time,
}

impl Tokens {
    /// Tokens made with two random secrets.
    pub fn new(now: Time, older: [u8; 32], newer: [u8; 32]) -> Self {
        Self {
            older,
            newer,
            turns_at: now + PERIOD,
        }
    }

    /// A token for whoever receives datagrams at `host`.
    pub fn issue(&mut self, now: Time, host: Ipv4Addr) -> Token {
        self.turn(now);
        <[u8; 32]>::from(make(&self.newer, host)).into()
    }

    /// Whether `token` was issued for `host` and is not too old. Takes the same time for every token.
    pub fn accepts(&mut self, now: Time, host: Ipv4Addr, token: &Token) -> bool {
        self.turn(now);
        let token = Hash::from(*token.as_bytes());
        let by_newer = make(&self.newer, host).ct_eq(&token);
        let by_older = make(&self.older, host).ct_eq(&token);
        by_newer | by_older
    }

    /// Two turns make both secrets new, so more are never needed.
    fn turn(&mut self, now: Time) {
        for _ in 0..2 {
            if now < self.turns_at {
                return;
            }
            let next = hash(&[&self.older]).into();
            self.older = std::mem::replace(&mut self.newer, next);
            self.turns_at += PERIOD;
        }
        if now >= self.turns_at {
            self.turns_at = now + PERIOD;
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

fn make(secret: &[u8; 32], host: Ipv4Addr) -> Hash {
    keyed(secret, &[host.to_string().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_token_lives_one_to_two_periods_and_for_one_host() {
        let mut tokens = Tokens::new(Time::ZERO, [1; 32], [2; 32]);
        let token = tokens.issue(Time::ZERO + SECOND, HOST);
        let other = Ipv4Addr::new(192, 0, 2, 2);
        assert!(!tokens.accepts(Time::ZERO + SECOND, other, &token));
        assert!(tokens.accepts(Time::ZERO + (PERIOD * 2 - SECOND), HOST, &token));
        assert!(!tokens.accepts(Time::ZERO + PERIOD * 2, HOST, &token));
    }

    #[test]
    fn long_silence_makes_all_tokens_old() {
        for periods in [2, 3, 1000] {
            let mut tokens = Tokens::new(Time::ZERO, [1; 32], [2; 32]);
            let token = tokens.issue(Time::ZERO, HOST);
            let later = Time::ZERO + PERIOD * periods;
            assert!(!tokens.accepts(later, HOST, &token), "{periods}");
            let fresh = tokens.issue(later, HOST);
            assert!(tokens.accepts(later + (PERIOD - SECOND), HOST, &fresh));
        }
    }
}
