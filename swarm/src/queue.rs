//! Who is dialled next: `shuffled-priority-queue`.
//! Knows priorities. Does not know why somebody has one.

use crate::peer_info::Priority;
use crate::rng::Rng;

/// Peers that wait to be dialled: the highest priority first, in random order within it, so that the members of a topic do
/// not all dial the same one.
#[derive(Debug, Clone)]
pub struct Queue<K> {
    /// One for each of [`Priority::ALL`].
    buckets: [Vec<K>; Priority::ALL.len()],
    rng: Rng,
}

impl<K: PartialEq> Queue<K> {
    /// An empty queue, whose order depends on `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            buckets: Default::default(),
            rng: Rng::new(seed),
        }
    }

    /// Appends a peer, which must not be in the queue.
    pub fn push(&mut self, priority: Priority, peer: K) {
        let bucket = Priority::ALL.iter().position(|each| *each == priority);
        if let Some(bucket) = bucket.and_then(|index| self.buckets.get_mut(index)) {
            bucket.push(peer);
        }
    }

    /// Takes the next peer out.
    pub fn pop(&mut self) -> Option<K> {
        let bucket = self.buckets.iter_mut().rfind(|all| !all.is_empty())?;
        let index = self.rng.below(bucket.len());
        Some(bucket.swap_remove(index))
    }

    /// Takes out one that is not to be dialled after all. Cost: the length of the queue.
    pub fn remove(&mut self, peer: &K) {
        for bucket in &mut self.buckets {
            bucket.retain(|each| each != peer);
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_comes_first_and_equals_are_shuffled() {
        let mut first = [0_u32; 4];
        for seed in 0..200 {
            let mut queue = Queue::new(seed);
            for number in 0..4 {
                queue.push(Priority::Normal, number);
            }
            queue.push(Priority::VeryLow, 5);
            queue.push(Priority::High, 6);
            queue.push(Priority::VeryHigh, 7);
            assert_eq!(queue.len(), 7);
            assert_eq!((queue.pop(), queue.pop()), (Some(7), Some(6)));
            first[queue.pop().unwrap()] += 1;
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            assert_eq!(rest.last(), Some(&5));
            assert!(queue.is_empty());
        }
        assert!(first.iter().all(|times| *times > 20), "{first:?}");
    }

    #[test]
    fn who_is_removed_is_not_popped() {
        let mut queue = Queue::new(0);
        queue.push(Priority::Low, 1);
        queue.push(Priority::High, 2);
        queue.remove(&2);
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
    }
}
