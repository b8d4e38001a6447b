//! Who has to know how short a log has been cut. Knows lengths; does not know what is read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::storage::lock;

/// The shortest length that a log was cut to since its holder began to look.
#[derive(Debug)]
pub(super) struct Cut(AtomicU64);

impl Cut {
    /// [`u64::MAX`] if the log was not cut.
    pub(super) fn length(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// All who look at one core.
#[derive(Default)]
pub(super) struct Cuts {
    watched: Mutex<Vec<Weak<Cut>>>,
}

impl Cuts {
    /// Looks from now on, at a log that is just `being_cut_to` a length or is not.
    pub(super) fn watch(&self, being_cut_to: Option<u64>) -> Arc<Cut> {
        let cut = Arc::new(Cut(being_cut_to.unwrap_or(u64::MAX).into()));
        let mut watched = lock(&self.watched);
        if watched.len() == watched.capacity() {
            watched.retain(|cut| cut.strong_count() > 0);
        }
        watched.push(Arc::downgrade(&cut));
        cut
    }

    pub(super) fn cut_to(&self, length: u64) {
        lock(&self.watched).retain(|cut| {
            let cut = cut.upgrade();
            cut.is_some_and(|cut| {
                cut.0.fetch_min(length, Ordering::AcqRel);
                true
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_length_counts_for_all_who_look() {
        let cuts = Cuts::default();
        let before = cuts.watch(None);
        cuts.cut_to(5);
        let between = cuts.watch(Some(4));
        cuts.cut_to(7);
        let lengths = [before, between, cuts.watch(None)].map(|cut| cut.length());
        assert_eq!(lengths, [5, 4, u64::MAX]);
    }

    #[test]
    fn who_looks_no_more_takes_no_place() {
        let cuts = Cuts::default();
        (0..1_000).for_each(|_| drop(cuts.watch(None)));
        assert!(lock(&cuts.watched).len() <= 4);
    }
}
