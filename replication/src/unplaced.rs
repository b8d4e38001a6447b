//! Cores that a connection has no place for yet, in the order in which they are to be offered.
//!
//! Knows names and turns. Does not know when a place is free.

use std::collections::{HashMap, VecDeque};

use ferrocore_log::Core;
use ferrocore_primitives::keys::DiscoveryKey;

use crate::limits::OFFERS_WAITING_MAX;

/// Those that wait to be offered to the peer.
#[derive(Default)]
pub(crate) struct Unplaced {
    cores: HashMap<DiscoveryKey, Core>,
    /// Those taken back stay until their turn, or until they are many.
    order: VecDeque<DiscoveryKey>,
}

impl Unplaced {
    /// One more waits, unless too many do.
    pub(crate) fn push(&mut self, core: &Core) {
        let id = core.discovery_key();
        if self.cores.len() < OFFERS_WAITING_MAX && self.cores.insert(id, core.clone()).is_none() {
            self.order.push_back(id);
        }
    }

    /// It is not to be offered any more.
    pub(crate) fn remove(&mut self, core: &DiscoveryKey) {
        if self.cores.remove(core).is_some() && self.order.len() > 2 * self.cores.len() + SLACK {
            let mut kept = self.cores.clone();
            self.order.retain(|id| kept.remove(id).is_some());
        }
    }

    /// The next to be offered.
    pub(crate) fn pop(&mut self) -> Option<Core> {
        while let Some(id) = self.order.pop_front() {
            if let Some(core) = self.cores.remove(&id) {
                return Some(core);
            }
        }
        *self = Self::default(); // what it took is not needed any more
        None
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.cores.len()
    }
}

/// So many that were taken back are not worth a look.
const SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use ferrocore_log::Corestore;

    use super::*;

    fn cores(count: usize) -> Vec<Core> {
        let store = Corestore::memory();
        let names = (0..count).map(|number| number.to_string());
        names.map(|name| store.get_named(&name).unwrap()).collect()
    }

    #[test]
    fn they_have_their_turn_once_and_in_order() {
        let cores = cores(4);
        let mut unplaced = Unplaced::default();
        cores
            .iter()
            .chain(&cores)
            .for_each(|core| unplaced.push(core));
        unplaced.remove(&cores[1].discovery_key());
        unplaced.remove(&cores[2].discovery_key());
        unplaced.push(&cores[1]);
        assert_eq!(unplaced.len(), 3);
        let order = std::iter::from_fn(|| unplaced.pop()).map(|core| core.key());
        assert_eq!(
            order.collect::<Vec<_>>(),
            [0, 1, 3].map(|at| cores[at].key())
        );
        assert!(unplaced.order.is_empty());
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let cores = cores(2);
        let mut unplaced = Unplaced::default();
        unplaced.push(&cores[0]);
        for _ in 0..10 * SLACK {
            unplaced.push(&cores[1]);
            unplaced.remove(&cores[1].discovery_key());
            assert!(unplaced.order.len() <= 2 * unplaced.len() + SLACK + 1);
        }
        assert_eq!(unplaced.pop().map(|core| core.key()), Some(cores[0].key()));
        assert!(unplaced.pop().is_none() && unplaced.cores.capacity() == 0);
    }
}
