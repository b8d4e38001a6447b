//! Who of those that a lookup finds is handed in, and when.
//! Knows shares. Does not know queries or records.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// Hands in so many of each answer at once, and of the rest in turns when all answers are there: one node of the DHT that makes
/// peers up would otherwise leave no room for those that others know.
#[derive(Debug)]
pub(crate) struct Shares<K, P> {
    given: HashSet<K>,
    each: usize,
    max: usize,
    /// What is left of each answer.
    rest: Vec<VecDeque<(K, P)>>,
}

impl<K: Copy + Eq + Hash, P> Shares<K, P> {
    /// At most `each` of an answer at first, and `max` in all.
    pub(crate) fn new(each: usize, max: usize) -> Self {
        Self {
            given: HashSet::new(),
            each,
            max,
            rest: Vec::new(),
        }
    }

    /// Takes an answer in, and returns its share without those that came before.
    pub(crate) fn handle_answer(&mut self, peers: impl IntoIterator<Item = (K, P)>) -> Vec<P> {
        let mut share = Vec::new();
        let mut rest = VecDeque::new();
        for (key, peer) in peers {
            if share.len() < self.each {
                share.extend(self.give(key, peer));
            } else {
                rest.push_back((key, peer));
            }
        }
        self.rest.push(rest);
        share
    }

    /// All answers are there: the rest of each in turn, as far as there is room.
    pub(crate) fn into_rest(mut self) -> Vec<P> {
        let mut given = Vec::new();
        let mut rest: VecDeque<_> = std::mem::take(&mut self.rest).into();
        while let Some(mut answer) = rest.pop_front() {
            if let Some((key, peer)) = answer.pop_front() {
                given.extend(self.give(key, peer));
                rest.push_back(answer);
            }
        }
        given
    }

    fn give(&mut self, key: K, peer: P) -> Option<P> {
        (self.given.len() < self.max && self.given.insert(key)).then_some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: few nodes that lie do not fill a lookup. Method: fifteen answers of made-up peers come before one honest answer, more
    /// than there is room for; the honest one's peers are taken nevertheless.
    #[test]
    fn answers_of_liars_leave_room() {
        let mut shares = Shares::new(12, 256);
        let peers = |of: u32, count: u32| (0..count).map(move |n| ((of, n), (of, n)));
        for liar in 0..15 {
            assert_eq!(shares.handle_answer(peers(liar, 60)).len(), 12);
        }
        assert_eq!(shares.handle_answer(peers(99, 12)).len(), 12);
        let rest = shares.into_rest();
        assert_eq!(rest.len(), 256 - 16 * 12);
        assert!((0..15).all(|liar| rest.iter().filter(|(of, _)| *of == liar).count() >= 4));
    }

    #[test]
    fn one_answer_is_given_whole_in_the_end() {
        let mut shares = Shares::new(2, 10);
        assert_eq!(
            shares.handle_answer([(1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')]),
            ['a', 'b']
        );
        assert_eq!(shares.handle_answer([(1, 'a'), (3, 'c')]), ['c']);
        assert_eq!(shares.into_rest(), ['d']);
    }
}
