//! Cores that a connection has no place for yet, in the order in which they are to be offered.
//!
//! Knows names and turns, and how long readers wait for theirs. Does not know when a place is free.

use std::collections::{HashMap, HashSet, VecDeque};

use ferrocore_log::Core;
use ferrocore_log::core::Finding;
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::time::Time;

use crate::limits::{HEAD_PATIENCE_ALONE, OFFERS_WAITING_MAX};

/// Those that wait to be offered to the peer.
#[derive(Default)]
pub(crate) struct Unplaced {
    cores: HashMap<DiscoveryKey, Waiting>,
    /// Those taken back stay until their turn, or until they are many.
    order: VecDeque<DiscoveryKey>,
    /// Until when readers of those that wait now do so, too.
    until: Option<Time>,
}

/// One core.
struct Waiting {
    core: Core,
    /// Keeps its readers waiting.
    finding: Option<Finding>,
}

impl Unplaced {
    /// One more waits, unless too many do.
    pub(crate) fn push(&mut self, core: &Core) {
        let id = core.discovery_key();
        if self.cores.len() >= OFFERS_WAITING_MAX || self.cores.contains_key(&id) {
            return;
        }
        let waiting = Waiting {
            core: core.clone(),
            finding: Some(core.finding()),
        };
        self.cores.insert(id, waiting);
        self.order.push_back(id);
    }

    /// It is not to be offered any more.
    pub(crate) fn remove(&mut self, core: &DiscoveryKey) {
        if self.cores.remove(core).is_some() && self.order.len() > 2 * self.cores.len() + SLACK {
            let mut kept: HashSet<_> = self.cores.keys().copied().collect();
            self.order.retain(|id| kept.remove(id));
        }
    }

    /// The next to be offered, and what keeps its readers waiting.
    pub(crate) fn pop(&mut self) -> Option<(Core, Option<Finding>)> {
        let mut orders = std::iter::from_fn(|| self.order.pop_front());
        let next = orders.find_map(|id| self.cores.remove(&id));
        if self.cores.is_empty() {
            *self = Self::default(); // what it took is not needed any more
        }
        next.map(|next| (next.core, next.finding))
    }

    /// Lets readers go on who have waited for long enough.
    pub(crate) fn look(&mut self, now: Time) {
        if self.until.is_some_and(|until| until <= now) {
            self.cores
                .values_mut()
                .for_each(|waiting| waiting.finding = None);
            self.until = None;
        }
    }

    /// Notes what time it was when they came.
    pub(crate) fn note_time(&mut self, now: Time) {
        let newest = self.order.back().and_then(|id| self.cores.get(id));
        if self.until.is_none() && newest.is_some_and(|newest| newest.finding.is_some()) {
            self.until = Some(now + HEAD_PATIENCE_ALONE);
        }
    }

    /// When to [look](Self::look) at them.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.until
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
        let order = std::iter::from_fn(|| unplaced.pop()).map(|(core, _)| core.key());
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
        let last = unplaced.pop().map(|(core, _)| core.key());
        assert_eq!(last, Some(cores[0].key()));
        assert!(unplaced.pop().is_none() && unplaced.cores.capacity() == 0);
    }

    /// Goal: readers wait for those that wait, but not for ever; those that come later have their own time.
    #[test]
    fn their_readers_wait_for_a_time() {
        let cores = cores(2);
        let mut unplaced = Unplaced::default();
        unplaced.push(&cores[0]);
        let mut now = Time::ZERO;
        unplaced.note_time(now);
        let is_finding = |unplaced: &Unplaced| {
            let waiting = cores.iter().map(|core| core.discovery_key());
            let waiting = waiting.map(|id| unplaced.cores.get(&id));
            let finding = waiting.map(|waiting| waiting.is_some_and(|it| it.finding.is_some()));
            finding.collect::<Vec<_>>()
        };
        let until = unplaced.next_deadline().expect("not for ever");
        unplaced.look(now);
        assert_eq!(is_finding(&unplaced), [true, false]);
        now = until;
        unplaced.look(now);
        assert_eq!(is_finding(&unplaced), [false, false]);
        assert_eq!(unplaced.next_deadline(), None);
        unplaced.note_time(now);
        assert_eq!(unplaced.next_deadline(), None, "nobody waits");
        unplaced.push(&cores[1]);
        unplaced.note_time(now);
        assert_eq!(is_finding(&unplaced), [false, true]);
        assert_eq!(unplaced.next_deadline(), Some(now + HEAD_PATIENCE_ALONE));
    }
}
