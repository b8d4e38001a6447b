//! The things seen last.
//! Knows how many. Does not know what they are.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// A set that forgets its oldest member when another is one too many.
#[derive(Debug)]
pub(crate) struct Latest<K> {
    members: HashSet<K>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Copy + Eq + Hash> Latest<K> {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            members: HashSet::new(),
            order: VecDeque::new(),
            max,
        }
    }

    /// Returns whom it forgets for the new one. Who is in already keeps its age.
    pub(crate) fn insert(&mut self, key: K) -> Option<K> {
        if !self.members.insert(key) {
            return None;
        }
        self.order.push_back(key);
        if self.order.len() <= self.max {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.members.remove(&oldest);
        Some(oldest)
    }

    /// Cost: its length.
    pub(crate) fn remove(&mut self, key: &K) {
        if self.members.remove(key) {
            self.order.retain(|member| member != key);
        }
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.members.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut latest = Latest::new(2);
        assert_eq!(latest.insert(1), None);
        assert_eq!(latest.insert(2), None);
        assert_eq!(latest.insert(1), None);
        assert_eq!(latest.insert(3), Some(1));
        latest.remove(&2);
        assert_eq!(latest.insert(4), None);
        let members = [1, 2, 3, 4].map(|key| latest.contains(&key));
        assert_eq!(members, [false, false, true, true]);
    }
}
