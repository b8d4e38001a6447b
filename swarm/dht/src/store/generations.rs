//! A map that forgets: what is used stays, what is not is gone after a while, and it never grows beyond a bound.
//! Knows counts, bytes and age (`xache` 1.2). Does not know what it keeps.
//!
//! Two generations: what is written or read is in the fresh one. After two thirds of the age, or when the fresh one is
//! full, it takes the place of the stale one, which is forgotten. So an entry lives for two to four thirds of the age.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use ferrocore_primitives::time::Time;

/// How much a map keeps, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries of one generation.
    pub(super) entries: usize,
    /// Bytes of the values of one generation.
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

/// When a generation is over.
#[derive(Debug)]
pub(super) struct Turns {
    period: Duration,
    turns_at: Time,
}

#[derive(Debug)]
pub(super) struct Generations<K, V> {
    fresh: HashMap<K, V>,
    stale: HashMap<K, V>,
    fresh_bytes: usize,
    bounds: Bounds,
    turns: Turns,
}

/// How many bytes a value counts for.
pub(super) trait Weigh {
    fn weight(&self) -> usize;
}

impl<K: Hash + Eq, V: Weigh> Generations<K, V> {
    pub(super) fn new(now: Time, bounds: Bounds) -> Self {
        Self {
            fresh: HashMap::new(),
            stale: HashMap::new(),
            fresh_bytes: 0,
            bounds,
            turns: Turns::new(now, bounds.age),
        }
    }

    pub(super) fn insert(&mut self, now: Time, key: K, value: V) {
        self.turn(now);
        self.stale.remove(&key);
        self.insert_fresh(now, key, value);
    }

    pub(super) fn get(&mut self, now: Time, key: &K) -> Option<&V> {
        self.turn(now);
        if let Some((key, value)) = self.stale.remove_entry(key) {
            self.insert_fresh(now, key, value);
        }
        self.fresh.get(key).or_else(|| self.stale.get(key))
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(value) = self.fresh.remove(key) {
            self.fresh_bytes -= value.weight();
        }
        self.stale.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.stale.len()
    }

    fn insert_fresh(&mut self, now: Time, key: K, value: V) {
        self.fresh_bytes += value.weight();
        if let Some(old) = self.fresh.insert(key, value) {
            self.fresh_bytes -= old.weight();
        }
        if self.fresh.len() >= self.bounds.entries || self.fresh_bytes >= self.bounds.bytes {
            self.turns.restart(now);
            self.forget();
        }
    }

    fn turn(&mut self, now: Time) {
        for _ in 0..self.turns.due(now) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.stale = std::mem::take(&mut self.fresh);
        self.fresh_bytes = 0;
    }
}

impl Turns {
    pub(super) fn new(now: Time, age: Duration) -> Self {
        let period = age * 2 / 3;
        Self {
            period,
            turns_at: now + period,
        }
    }

    /// How many generations are over: 0, 1 or 2, which is all of them.
    pub(super) fn due(&mut self, now: Time) -> usize {
        if now < self.turns_at {
            return 0;
        }
        let is_long_over = now >= self.turns_at + self.period;
        self.restart(now);
        if is_long_over { 2 } else { 1 }
    }

    pub(super) fn restart(&mut self, now: Time) {
        self.turns_at = now + self.period;
    }
}

impl Weigh for Vec<u8> {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl Weigh for u64 {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        entries: 4,
        bytes: 100,
        age: Duration::from_secs(30),
    };

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_not_read_is_forgotten_and_what_is_read_stays() {
        let mut map = Generations::new(at(0), BOUNDS);
        map.insert(at(0), 1, vec![1]);
        map.insert(at(0), 2, vec![2]);
        for seconds in (0..200).step_by(15) {
            assert_eq!(map.get(at(seconds), &1), Some(&vec![1]));
        }
        assert_eq!(map.get(at(200), &2), None);
        assert_eq!(map.get(at(300), &1), None, "a long silence");
    }

    #[test]
    fn entries_and_bytes_are_bounded() {
        let mut map = Generations::new(at(0), BOUNDS);
        for key in 0..1000 {
            map.insert(at(0), key, vec![0]);
            assert!(map.len() < 2 * BOUNDS.entries);
        }
        for key in 0..1000 {
            map.insert(at(0), key, vec![0; 60]);
            let is_turned = key > 4;
            assert!(
                !is_turned || map.len() <= 3,
                "two of 60 bytes fill a generation"
            );
        }
        let last = 999;
        assert!(map.get(at(0), &last).is_some());
        map.remove(&last);
        assert!(map.get(at(0), &last).is_none());
    }
}
