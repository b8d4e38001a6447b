//! The duplicate rule: of two connections to one peer, both sides keep the same one.
//! Knows keys, who dialled, and when. Does not know streams, or by which transport a connection came.
//!
//! # The rule
//!
//! Two connections that came about at nearly the same time are *crossing*: both sides see both, in an order of their own, so
//! the choice must not depend on the order. Otherwise one side has lost the older without the other's knowledge, and the
//! newer stays.
//!
//! | the newer was dialled by | and came | stays |
//! |---|---|---|
//! | the other side than the older | within [`CROSSING_WINDOW`] | the one that the larger key dialled |
//! | the same side | within [`REPEAT_WINDOW`] | the one with the larger handshake hash |
//! | | later | the newer |
//!
//! `hyperswarm` 4.17 (`_handleServerConnection`) and the pool of `hyperdht` decide the first row alike while the older has not
//! carried bytes both ways; afterwards they keep the newer at once. A JavaScript peer does not dial a key that it is
//! connected to, so the two differ only while a dial crosses a connection that has just come up, where its rule may
//! end both.

use std::collections::HashMap;

use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;

use crate::limits::{CROSSING_WINDOW, REPEAT_WINDOW};

/// What the rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<Id> {
    /// The caller's name for the connection.
    pub id: Id,
    /// The peer's key, which it has proven to own.
    pub remote_key: PublicKey,
    /// Whether we dialled.
    pub is_initiator: bool,
    /// The handshake hash: the same on both sides, and of this connection only.
    pub handshake_hash: [u8; 64],
}

/// What becomes of a connection, and of the one that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "one of two connections is to be closed"]
pub enum Verdict<Id> {
    /// It is the only one to this peer.
    Only,
    /// It stays; the one named here is to be closed.
    Replaces(Id),
    /// It is to be closed; the one named here stays.
    Duplicate(Id),
    /// It leads to ourselves, and is to be closed.
    Ourselves,
}

/// The connections of a swarm: at most one to each key.
#[derive(Debug, Clone)]
pub struct Connections<Id> {
    our_key: PublicKey,
    by_key: HashMap<PublicKey, Entry<Id>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry<Id> {
    candidate: Candidate<Id>,
    since: Time,
}

impl<Id: Copy + PartialEq> Connections<Id> {
    /// No connections yet. Both sides' keys decide between crossing connections.
    pub fn new(our_key: PublicKey) -> Self {
        Self {
            our_key,
            by_key: HashMap::new(),
        }
    }

    /// Enters a connection whose handshake is done, if it is to stay.
    pub fn offer(&mut self, newer: Candidate<Id>, now: Time) -> Verdict<Id> {
        if newer.remote_key == self.our_key {
            return Verdict::Ourselves;
        }
        let older = self.by_key.get(&newer.remote_key).copied();
        if let Some(older) = older
            && !self.newer_stays(&older, &newer, now)
        {
            return Verdict::Duplicate(older.candidate.id);
        }
        let entry = Entry {
            candidate: newer,
            since: now,
        };
        self.by_key.insert(newer.remote_key, entry);
        match older {
            Some(older) => Verdict::Replaces(older.candidate.id),
            None => Verdict::Only,
        }
    }

    /// Forgets a connection that is over; returns whether it was the one that stayed.
    pub fn remove(&mut self, remote_key: &PublicKey, id: Id) -> bool {
        let is_kept = self.get(remote_key) == Some(id);
        if is_kept {
            self.by_key.remove(remote_key);
        }
        is_kept
    }

    /// The connection to this peer, if there is one.
    pub fn get(&self, remote_key: &PublicKey) -> Option<Id> {
        self.by_key.get(remote_key).map(|entry| entry.candidate.id)
    }

    /// Our key.
    pub fn our_key(&self) -> PublicKey {
        self.our_key
    }

    /// How many peers are connected.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no peer is connected.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All connections, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Candidate<Id>> {
        self.by_key.values().map(|entry| entry.candidate)
    }

    fn newer_stays(&self, older: &Entry<Id>, newer: &Candidate<Id>, now: Time) -> bool {
        let age = now.saturating_since(older.since);
        let older = &older.candidate;
        if older.is_initiator != newer.is_initiator {
            let we_are_larger = self.our_key > newer.remote_key;
            age > CROSSING_WINDOW || newer.is_initiator == we_are_larger
        } else {
            age > REPEAT_WINDOW || newer.handshake_hash > older.handshake_hash
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LARGER: [u8; 32] = [9; 32];
    const SMALLER: [u8; 32] = [1; 32];

    fn candidate(remote: [u8; 32], id: u8, is_initiator: bool) -> Candidate<u8> {
        Candidate {
            id,
            remote_key: remote.into(),
            is_initiator,
            handshake_hash: [id; 64],
        }
    }

    /// Goal: the first row of the table, on both sides and in both orders.
    #[test]
    fn of_crossing_dials_the_larger_keys_stays() {
        for newer_is_initiator in [true, false] {
            for (ours, theirs) in [(LARGER, SMALLER), (SMALLER, LARGER)] {
                let mut connections = Connections::new(ours.into());
                let older = candidate(theirs, 1, !newer_is_initiator);
                let newer = candidate(theirs, 2, newer_is_initiator);
                assert_eq!(connections.offer(older, Time::ZERO), Verdict::Only);
                let verdict = connections.offer(newer, Time::ZERO + CROSSING_WINDOW);
                let expected = match newer_is_initiator == (ours == LARGER) {
                    true => Verdict::Replaces(1),
                    false => Verdict::Duplicate(1),
                };
                assert_eq!(verdict, expected);
            }
        }
    }

    #[test]
    fn of_two_dials_of_one_side_the_larger_hash_stays_whatever_the_order() {
        for (first, second) in [(1, 2), (2, 1)] {
            let mut connections = Connections::new(LARGER.into());
            let _ = connections.offer(candidate(SMALLER, first, true), Time::ZERO);
            let _ = connections.offer(candidate(SMALLER, second, true), Time::ZERO + REPEAT_WINDOW);
            assert_eq!(connections.get(&SMALLER.into()), Some(2));
        }
    }

    #[test]
    fn later_the_newer_stays() {
        for (is_initiator, window) in [(false, REPEAT_WINDOW), (true, CROSSING_WINDOW)] {
            let mut connections = Connections::new(SMALLER.into());
            let late = Time::ZERO + window + Duration::from_nanos(1);
            let _ = connections.offer(candidate(LARGER, 2, false), Time::ZERO);
            let verdict = connections.offer(candidate(LARGER, 1, is_initiator), late);
            assert_eq!(verdict, Verdict::Replaces(2));
        }
    }

    #[test]
    fn a_connection_to_ourselves_is_noticed() {
        let mut connections = Connections::new(LARGER.into());
        let verdict = connections.offer(candidate(LARGER, 1, true), Time::ZERO);
        assert_eq!(verdict, Verdict::Ourselves);
        assert!(connections.is_empty());
    }

    #[test]
    fn who_was_replaced_does_not_take_the_other_along() {
        let mut connections = Connections::new(LARGER.into());
        let _ = connections.offer(candidate(SMALLER, 1, false), Time::ZERO);
        let _ = connections.offer(candidate(SMALLER, 2, true), Time::ZERO);
        assert!(!connections.remove(&SMALLER.into(), 1));
        assert_eq!(connections.len(), 1);
        assert!(connections.remove(&SMALLER.into(), 2));
        assert!(connections.is_empty());
    }
}
