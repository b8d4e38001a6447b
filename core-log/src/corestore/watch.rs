//! What happens to the cores of a store, told to whoever watches it.
//!
//! Knows bounded queues. Does not know why a core is opened.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use event_listener::Event as Signal;
use ferrocore_primitives::keys::DiscoveryKey;

use crate::limits::STORE_EVENTS_MAX;
use crate::storage::lock;

/// A change in what a store has, told after it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// The core was not here before; that it is opened is told next.
    Created(DiscoveryKey),
    /// The core was opened by the first who asked for it.
    Opened(DiscoveryKey),
    /// The core is gone for good.
    Purged(DiscoveryKey),
    /// Events were dropped because this subscriber did not keep up: list the store anew.
    Lagged,
}

/// Who watches a store.
#[derive(Default)]
pub(super) struct Watchers {
    queues: Mutex<Vec<Weak<Queue>>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    signal: Signal,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<StoreEvent>,
    closed: bool,
}

impl Watchers {
    pub(super) fn subscribe(&self) -> StoreEvents {
        let queue = Arc::new(Queue::default());
        lock(&self.queues).push(Arc::downgrade(&queue));
        StoreEvents { queue }
    }

    pub(super) fn tell(&self, event: StoreEvent) {
        self.each(|state| state.push(event));
    }

    /// Tells that nothing will happen any more.
    pub(super) fn close(&self) {
        self.each(|state| state.closed = true);
    }

    fn each(&self, change: impl Fn(&mut State)) {
        lock(&self.queues).retain(|queue| {
            let Some(queue) = queue.upgrade() else {
                return false;
            };
            change(&mut lock(&queue.state));
            queue.signal.notify(usize::MAX);
            true
        });
    }
}

impl State {
    fn push(&mut self, event: StoreEvent) {
        if self.events.back() == Some(&StoreEvent::Lagged) {
            return;
        }
        let has_room = self.events.len() < STORE_EVENTS_MAX;
        self.events
            .push_back(if has_room { event } else { StoreEvent::Lagged });
    }
}

/// A subscription: what happened in the store since it was made, in order, at most
/// [`STORE_EVENTS_MAX`] events waiting.
#[derive(Debug)]
pub struct StoreEvents {
    queue: Arc<Queue>,
}

impl StoreEvents {
    /// The next event, if one is waiting.
    pub fn try_next(&self) -> Option<StoreEvent> {
        lock(&self.queue.state).events.pop_front()
    }

    /// The next event, waiting for it; `None` once the store is dropped.
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&self) -> Option<StoreEvent> {
        loop {
            let changed = self.queue.signal.listen();
            {
                let mut state = lock(&self.queue.state);
                match state.events.pop_front() {
                    None if state.closed => return None,
                    None => {}
                    event => return event,
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_keep_up_is_told_so_once() {
        let watchers = Watchers::default();
        let events = watchers.subscribe();
        let opened = StoreEvent::Opened(DiscoveryKey::from([1; 32]));
        (0..2 * STORE_EVENTS_MAX).for_each(|_| watchers.tell(opened));
        let told: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
        assert_eq!(told.len(), STORE_EVENTS_MAX + 1);
        assert_eq!(told.last(), Some(&StoreEvent::Lagged));
        watchers.tell(opened);
        assert_eq!(events.try_next(), Some(opened));
    }
}
