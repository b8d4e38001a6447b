//! Blocks that are sent to peers unasked.
//!
//! Knows who is to be sent what, and whether a core takes what it did not ask for. Does not know wires: a
//! supplier takes what is to be sent ([`Supply::next_push`](crate::core::Supply::next_push)). Matches
//! `allowPush`, `pushOnly` and `replicator.push` of `hypercore` 11.37.1.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::Core;
use crate::few::Few;
use crate::limits::PUSHES_MAX;
use crate::supply::SupplierId;

/// What becomes of blocks that a peer sends unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushMode {
    /// They are dropped, and peers are not told to send any.
    #[default]
    Refuse,
    /// They are verified and kept, wanted or not: peers may fill the disk.
    Allow,
    /// The same, and peers are asked for nothing: what comes is what they send.
    Only,
}

impl PushMode {
    /// Whether pushed blocks are kept.
    pub fn is_allowed(self) -> bool {
        self != Self::Refuse
    }
}

impl Core {
    /// Says what becomes of blocks that peers send unasked, from now until the core is closed. They are told.
    pub fn set_push_mode(&self, mode: PushMode) {
        self.pushes().lock().mode = mode;
        self.wake_suppliers();
    }

    /// What becomes of blocks that peers send unasked.
    pub fn push_mode(&self) -> PushMode {
        self.pushes().lock().mode
    }

    /// Sends block `index`, with the proof of our log if they know a shorter one, to all peers that take what
    /// they did not ask for and do not have it. Returns for how many it waits to be sent; who does not take
    /// it is found out then. One for which [`PUSHES_MAX`] blocks wait is left out.
    pub fn push(&self, index: u64) -> usize {
        let pushed = self.pushes().push(index);
        self.wake_suppliers();
        pushed
    }
}

/// One core's.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mode: PushMode,
    /// None stands for no block: most of many thousand cores have nothing to push.
    waiting: Few<SupplierId, Option<Box<Blocks>>>,
}

/// Indexes of the blocks that are to be sent to one supplier.
#[derive(Debug, Default)]
struct Blocks(VecDeque<u64>);

impl Pushes {
    /// From now on blocks may be left for `supplier`.
    pub(crate) fn add_carrier(&self, supplier: SupplierId) {
        self.lock().waiting.get_or_insert_with(supplier, || None);
    }

    pub(crate) fn remove_carrier(&self, supplier: SupplierId) {
        self.lock().waiting.remove(&supplier);
    }

    /// What is to be sent to `supplier` next.
    pub(crate) fn next_for(&self, supplier: SupplierId) -> Option<u64> {
        let mut state = self.lock();
        let waiting = state.waiting.get_mut(&supplier)?;
        let next = waiting.as_mut()?.0.pop_front();
        waiting.take_if(|waiting| waiting.0.is_empty());
        next
    }

    pub(crate) fn put_back(&self, supplier: SupplierId, index: u64) {
        if let Some(waiting) = self.lock().waiting.get_mut(&supplier) {
            waiting.get_or_insert_default().0.push_front(index);
        }
    }

    pub(crate) fn is_waiting_for(&self, supplier: SupplierId) -> bool {
        let state = self.lock();
        let waiting = state.waiting.get(&supplier);
        waiting.is_some_and(Option::is_some)
    }

    fn push(&self, index: u64) -> usize {
        let mut state = self.lock();
        let waiting = state.waiting.values_mut();
        let waiting = waiting.map(Option::get_or_insert_default);
        let open = waiting.filter(|waiting| waiting.0.len() < PUSHES_MAX);
        open.map(|waiting| waiting.0.push_back(index)).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Corestore;
    use std::sync::Arc;

    #[test]
    fn blocks_wait_for_those_that_carry_them_and_not_too_many() {
        let core = Corestore::memory().get_named("pushed").unwrap();
        assert_eq!(core.push(0), 0, "nobody is there");
        let supply = core.supply();
        let peer = supply.attach(Arc::new(|| {}));
        supply.carry_pushes(peer);
        for index in 0..PUSHES_MAX as u64 {
            assert_eq!(core.push(index), 1);
        }
        assert_eq!(core.push(7), 0, "one too many");
        assert!(supply.has_push(peer));
        assert_eq!(supply.next_push(peer), Some(0));
        supply.put_back_push(peer, 0);
        assert_eq!(supply.next_push(peer), Some(0));
        supply.detach(peer);
        assert_eq!(core.push(7), 0);
        assert_eq!(supply.next_push(peer), None);
    }
}
