//! How many files a store has open at once: those of the cores used longest ago are closed.
//!
//! Knows cores by how many descriptors they hold. Does not know files, nor how to open one again.
//!
//! The order is that of a clock with one hand: a core that was used since the hand passed last is
//! passed once more. Descriptors that are being used are never closed, so the bound may be
//! exceeded by two for each thread that works at the moment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::storage::lock;

/// Most files a store holds open by default, if the system allows the process four times as many.
const DEFAULT_MAX: usize = 1024;
/// So much of what the system allows the process is taken: the rest is for sockets and others.
const SHARE_OF_LIMIT: usize = 4;
/// Fewer make every access open a file.
const MIN: usize = 8;
/// Places in the ring that are not worth clearing.
const RING_MIN: usize = 64;

/// Somebody who holds descriptors and can do without for a while.
pub(super) trait Holder: Send + Sync {
    /// Closes all descriptors and says how many they were; `None` if they were used lately or
    /// are in use. Must not wait.
    fn close(&self) -> Option<usize>;
}

/// The descriptors of one store.
pub(super) struct Pool {
    max: usize,
    open: AtomicUsize,
    /// Who holds descriptors, in the order in which the hand comes to them.
    ring: Mutex<VecDeque<Weak<dyn Holder>>>,
}

impl Pool {
    /// A pool of at most `max` descriptors, or as many as suit the process.
    pub(super) fn new(max: Option<usize>) -> Self {
        Self {
            max: max.unwrap_or_else(default_max).max(MIN),
            open: AtomicUsize::new(0),
            ring: Mutex::default(),
        }
    }

    /// Counts `count` descriptors that the caller is about to open, and closes others for them.
    pub(super) fn reserve(&self, count: usize) {
        self.open.fetch_add(count, Ordering::Relaxed);
        if self.open() > self.max {
            let mut ring = lock(&self.ring);
            while self.open() > self.max && self.close_one(&mut ring) {}
        }
    }

    /// Counts `count` descriptors less: they are closed, or could not be opened.
    pub(super) fn release(&self, count: usize) {
        self.open.fetch_sub(count, Ordering::Relaxed);
    }

    /// Lets the hand come to `holder`, which has begun to hold descriptors.
    pub(super) fn join(&self, holder: Weak<dyn Holder>) {
        let mut ring = lock(&self.ring);
        if ring.len() >= RING_MIN.max(2 * self.max) {
            ring.retain(|holder| holder.strong_count() > 0);
        }
        ring.push_back(holder);
    }

    /// Closes half of what is open: the process, or the system, has no descriptors left.
    pub(super) fn shrink(&self) {
        let keep = self.open() / 2;
        let mut ring = lock(&self.ring);
        while self.open() > keep && self.close_one(&mut ring) {}
    }

    /// How many descriptors are open, or about to be.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes the descriptors of the next core that can do without; `false` if there is none.
    fn close_one(&self, ring: &mut VecDeque<Weak<dyn Holder>>) -> bool {
        // Twice round: the first time a core that was used lately is only asked.
        for _ in 0..2 * ring.len() {
            let Some(next) = ring.pop_front() else {
                return false;
            };
            let Some(holder) = next.upgrade() else {
                continue; // it closed, and has released what it held
            };
            match holder.close() {
                Some(count) => {
                    self.release(count);
                    return true;
                }
                None => ring.push_back(Arc::downgrade(&holder)),
            }
        }
        false
    }
}

#[cfg(unix)]
fn default_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
    DEFAULT_MAX.min(allowed / SHARE_OF_LIMIT)
}

/// There is no such limit.
#[cfg(not(unix))]
fn default_max() -> usize {
    DEFAULT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[derive(Default)]
    struct Fake {
        used: AtomicBool,
        in_use: AtomicBool,
        closed: AtomicUsize,
    }

    impl Holder for Fake {
        fn close(&self) -> Option<usize> {
            let busy = self.used.swap(false, Ordering::Relaxed);
            if busy || self.in_use.load(Ordering::Relaxed) {
                return None;
            }
            self.closed.fetch_add(1, Ordering::Relaxed);
            Some(2)
        }
    }

    fn join(pool: &Pool) -> Arc<Fake> {
        let fake = Arc::new(Fake::default());
        let weak: Weak<Fake> = Arc::downgrade(&fake);
        pool.reserve(2);
        pool.join(weak);
        fake
    }

    #[test]
    fn those_used_longest_ago_are_closed_first() {
        let pool = Pool::new(Some(8));
        let fakes: Vec<_> = (0..4).map(|_| join(&pool)).collect();
        assert_eq!(pool.open(), 8);
        fakes[0].used.store(true, Ordering::Relaxed);
        fakes[1].in_use.store(true, Ordering::Relaxed);
        let closed = || -> Vec<_> {
            let closed = fakes.iter().map(|fake| fake.closed.load(Ordering::Relaxed));
            closed.collect()
        };
        pool.reserve(2);
        assert_eq!((pool.open(), closed()), (8, vec![0, 0, 1, 0]));
        pool.reserve(2);
        assert_eq!((pool.open(), closed()), (8, vec![0, 0, 1, 1]));
        pool.reserve(2);
        assert_eq!((pool.open(), closed()), (8, vec![1, 0, 1, 1]));
        pool.reserve(2); // the one that is left is in use
        assert_eq!((pool.open(), closed()), (10, vec![1, 0, 1, 1]));
    }

    #[test]
    fn those_that_are_gone_cost_no_place() {
        let pool = Pool::new(Some(10));
        let kept = join(&pool);
        for _ in 0..1000 {
            join(&pool);
            pool.release(2);
        }
        assert!(lock(&pool.ring).len() <= RING_MIN);
        pool.shrink();
        assert_eq!((kept.closed.load(Ordering::Relaxed), pool.open()), (1, 0));
    }
}
