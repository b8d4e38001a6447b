//! Both sides of the duplicate rule at once.
//!
//! Goal: whatever the order in which two peers learn of their crossing connections and of each other's decisions, both end
//! with the same one. Method: random dials and random delivery; what one side closes, the other is told of.

use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;
use ferrocore_swarm::connections::{Candidate, Connections, Verdict};
use proptest::prelude::*;

/// What a side has yet to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Opened(usize),
    Closed(usize),
}

struct Side {
    remote_key: PublicKey,
    connections: Connections<usize>,
    news: Vec<News>,
    /// Connections that were closed before this side had learned that they are open.
    stillborn: Vec<usize>,
}

/// One connection: whether the first side dialled it, and its handshake hash.
type Dial = (bool, [u8; 4]);

impl Side {
    fn new(our_key: PublicKey, remote_key: PublicKey) -> Self {
        Self {
            remote_key,
            connections: Connections::new(our_key),
            news: Vec::new(),
            stillborn: Vec::new(),
        }
    }

    /// Learns one thing; returns the connection that it closes because of it.
    fn learn(&mut self, index: usize, is_first: bool, dials: &[Dial]) -> Option<usize> {
        match self.news.remove(index) {
            News::Closed(id) => {
                self.connections.remove(&self.remote_key, id);
                self.stillborn.push(id);
                None
            }
            News::Opened(id) if self.stillborn.contains(&id) => None,
            News::Opened(id) => {
                let (first_dialled, hash) = dials[id];
                let mut handshake_hash = [id as u8; 64];
                handshake_hash[..4].copy_from_slice(&hash);
                let candidate = Candidate {
                    id,
                    remote_key: self.remote_key,
                    is_initiator: first_dialled == is_first,
                    handshake_hash,
                };
                match self.connections.offer(candidate, Time::ZERO) {
                    Verdict::Only => None,
                    Verdict::Replaces(older) => Some(older),
                    Verdict::Duplicate(_) => Some(id),
                    Verdict::Ourselves => panic!("the keys differ"),
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn both_sides_keep_the_same_one(
        keys in any::<([u8; 32], [u8; 32])>().prop_filter("two peers", |(a, b)| a != b),
        dials in prop::collection::vec(any::<Dial>(), 1..6),
        choices in prop::collection::vec(any::<usize>(), 64),
    ) {
        let (first, second) = (PublicKey::from(keys.0), PublicKey::from(keys.1));
        let mut sides = [Side::new(first, second), Side::new(second, first)];
        for side in &mut sides {
            side.news = (0..dials.len()).map(News::Opened).collect();
        }
        let mut choices = choices.into_iter().cycle();
        while sides.iter().any(|side| !side.news.is_empty()) {
            let mut who = choices.next().unwrap() % 2;
            if sides[who].news.is_empty() {
                who = 1 - who;
            }
            let index = choices.next().unwrap() % sides[who].news.len();
            if let Some(closed) = sides[who].learn(index, who == 0, &dials) {
                sides[1 - who].news.push(News::Closed(closed));
            }
        }
        let [first, second] = sides.map(|side| side.connections.get(&side.remote_key));
        prop_assert!(first.is_some());
        prop_assert_eq!(first, second);
    }
}
