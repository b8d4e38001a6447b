//! Who announced itself under which topic.
//! Knows counts and age (`record-cache` 1.2). Does not know signatures, or what a record says.
//!
//! A record that is announced again before its generation is over stays as it is; a peer that moved takes the old one
//! back first.

use std::collections::HashMap;
use std::time::Duration;

use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;

use super::generations::Turns;
use crate::id::Id;
use crate::random::Random;

/// The records of all topics.
#[derive(Debug)]
pub(super) struct Records {
    fresh: Generation,
    stale: Generation,
    entries: usize,
    turns: Turns,
}

#[derive(Debug, Default)]
struct Generation {
    topics: HashMap<Id, Topic>,
    len: usize,
}

/// The peers of a topic, found by key and by number.
#[derive(Debug, Default)]
struct Topic {
    list: Vec<(PublicKey, Vec<u8>)>,
    places: HashMap<PublicKey, usize>,
}

impl Records {
    pub(super) fn new(now: Time, entries: usize, age: Duration) -> Self {
        Self {
            fresh: Generation::default(),
            stale: Generation::default(),
            entries,
            turns: Turns::new(now, age),
        }
    }

    pub(super) fn add(&mut self, now: Time, topic: Id, key: PublicKey, record: Vec<u8>) {
        self.turn(now);
        self.stale.remove(&topic, &key);
        self.fresh.add(topic, key, record);
        if self.fresh.len > self.entries {
            self.turns.restart(now);
            self.forget();
        }
    }

    pub(super) fn remove(&mut self, topic: &Id, key: &PublicKey) {
        self.fresh.remove(topic, key);
        self.stale.remove(topic, key);
    }

    /// Up to `count` records of a topic, chosen at random.
    pub(super) fn some(
        &mut self,
        now: Time,
        topic: &Id,
        count: usize,
        random: &mut Random,
    ) -> Vec<Vec<u8>> {
        self.turn(now);
        let fresh = self.fresh.records(topic);
        let stale = self.stale.records(topic);
        let len = fresh.len() + stale.len();
        let at = |n: usize| {
            fresh
                .get(n)
                .or_else(|| stale.get(n.checked_sub(fresh.len())?))
        };
        let chosen = choose(len, count, random).into_iter().filter_map(at);
        chosen.map(|(_, record)| record.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len + self.stale.len
    }

    fn turn(&mut self, now: Time) {
        for _ in 0..self.turns.due(now) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.stale = std::mem::take(&mut self.fresh);
    }
}

impl Generation {
    fn add(&mut self, topic: Id, key: PublicKey, record: Vec<u8>) {
        let topic = self.topics.entry(topic).or_default();
        if !topic.places.contains_key(&key) {
            topic.places.insert(key, topic.list.len());
            topic.list.push((key, record));
            self.len += 1;
        }
    }

    fn remove(&mut self, id: &Id, key: &PublicKey) {
        let Some(topic) = self.topics.get_mut(id) else {
            return;
        };
        let Some(at) = topic.places.remove(key) else {
            return;
        };
        topic.list.swap_remove(at);
        if let Some((moved, _)) = topic.list.get(at) {
            topic.places.insert(*moved, at);
        }
        self.len -= 1;
        if topic.list.is_empty() {
            self.topics.remove(id);
        }
    }

    fn records(&self, topic: &Id) -> &[(PublicKey, Vec<u8>)] {
        let topic = self.topics.get(topic);
        topic.map_or(&[], |topic| topic.list.as_slice())
    }
}

/// `count` different numbers below `len`, or all of them: the first places of a shuffle, of which only those that were
/// swapped are kept.
fn choose(len: usize, count: usize, random: &mut Random) -> Vec<usize> {
    let mut swapped = HashMap::new();
    let place = |swapped: &HashMap<usize, usize>, at| swapped.get(&at).copied().unwrap_or(at);
    let pick = |at| {
        let other = at + random.below(len - at);
        let chosen = place(&swapped, other);
        swapped.insert(other, place(&swapped, at));
        chosen
    };
    (0..count.min(len)).map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(30);

    fn key(n: u16) -> PublicKey {
        let [a, b] = n.to_le_bytes();
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&[a, b]);
        bytes.into()
    }

    fn topic(n: u8) -> Id {
        [n; 32].into()
    }

    #[test]
    fn a_choice_has_no_number_twice_and_every_number_comes_up() {
        let mut random = Random::new([1; 32]);
        let mut seen = [false; 30];
        for _ in 0..100 {
            let mut chosen = choose(30, 20, &mut random);
            chosen.iter().for_each(|n| seen[*n] = true);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 20);
        }
        assert_eq!(seen, [true; 30]);
        let mut all = choose(5, 20, &mut random);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert!(choose(0, 20, &mut random).is_empty());
    }

    #[test]
    fn records_live_for_two_generations_and_the_first_of_a_key_stays() {
        let mut records = Records::new(Time::ZERO, 100, AGE);
        let mut random = Random::new([1; 32]);
        let now = Time::ZERO;
        records.add(now, topic(1), key(1), vec![1]);
        records.add(now, topic(1), key(1), vec![2]);
        assert_eq!(records.some(now, &topic(1), 20, &mut random), [vec![1]]);
        let later = now + AGE;
        records.add(later, topic(1), key(1), vec![3]);
        assert_eq!(records.some(later, &topic(1), 20, &mut random), [vec![3]]);
        assert_eq!(records.len(), 1);
        let late = later + AGE * 2;
        assert!(records.some(late, &topic(1), 20, &mut random).is_empty());
    }

    #[test]
    fn records_are_bounded_and_those_removed_are_gone() {
        let mut records = Records::new(Time::ZERO, 100, AGE);
        let mut random = Random::new([1; 32]);
        for n in 0..1000 {
            let topic = topic(u8::try_from(n % 3).unwrap());
            records.add(Time::ZERO, topic, key(n), n.to_le_bytes().to_vec());
            assert!(records.len() <= 201);
        }
        for n in 0..1000 {
            records.remove(&topic(u8::try_from(n % 3).unwrap()), &key(n));
        }
        assert_eq!(records.len(), 0);
        assert!(records.fresh.topics.is_empty() && records.stale.topics.is_empty());
        assert!(
            records
                .some(Time::ZERO, &topic(0), 20, &mut random)
                .is_empty()
        );
    }
}
