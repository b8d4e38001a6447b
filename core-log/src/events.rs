//! What happens to a core, told to whoever subscribed.
//!
//! Knows bounded queues and waking. Does not know what causes an event.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use event_listener::Event as Signal;
#[cfg(not(target_family = "wasm"))]
use event_listener::Listener as _;

use crate::limits::EVENTS_MAX;

/// A change of a core, told after it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The log is longer: by our own append or by a verified upgrade.
    Append {
        /// Blocks in the log now.
        length: u64,
    },
    /// These blocks are here now.
    Have(Range<u64>),
    /// These blocks are not here any more.
    Clear(Range<u64>),
    /// The log was cut to `length` blocks and goes on as fork `fork`: by our own truncate, or
    /// because a peer has proven this fork.
    Truncate {
        /// Blocks that are the same in both histories.
        length: u64,
        /// The new fork.
        fork: u64,
    },
    /// The manifest has become known.
    Manifest,
    /// Two histories are signed, so the core is frozen: [`Core::conflict`](crate::Core::conflict)
    /// holds the evidence.
    Conflict {
        /// The fork of both.
        fork: u64,
        /// Blocks that both have, and do not agree on.
        length: u64,
    },
    /// Events were dropped because this subscriber did not keep up; look at the core anew.
    Lagged,
}

/// The subscribers of one core.
#[derive(Debug, Default)]
pub(crate) struct EventHub {
    subscribers: Mutex<Vec<Weak<Queue>>>,
}

impl EventHub {
    pub(crate) fn subscribe(&self) -> Events {
        let queue = Arc::new(Queue::default());
        let mut subscribers = self.lock();
        if subscribers.len() == subscribers.capacity() {
            let more = 1 + subscribers.len() / 2; // most of many thousand cores have one or two
            subscribers.reserve_exact(more);
        }
        subscribers.push(Arc::downgrade(&queue));
        drop(subscribers);
        Events { queue }
    }

    pub(crate) fn emit(&self, event: &Event) {
        self.lock().retain(|subscriber| {
            let queue = subscriber.upgrade();
            queue.is_some_and(|queue| {
                queue.push(event.clone());
                true
            })
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Queue>>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscription: the events since it was made, in order, at most [`EVENTS_MAX`] waiting.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
}

impl Events {
    /// The next event, if one is waiting.
    pub fn try_next(&self) -> Option<Event> {
        let mut events = self.queue.lock();
        let event = events.pop_front();
        if events.is_empty() {
            *events = VecDeque::new(); // most of many thousand cores have news seldom
        }
        event
    }

    /// The next event, waiting for it.
    pub async fn next(&self) -> Event {
        loop {
            let listener = self.queue.signal.listen();
            if let Some(event) = self.try_next() {
                return event;
            }
            listener.await;
        }
    }

    /// As [`Events::next`], blocking the thread: not on wasm, where a thread cannot wait.
    #[cfg(not(target_family = "wasm"))]
    pub fn wait(&self) -> Event {
        loop {
            let listener = self.queue.signal.listen();
            if let Some(event) = self.try_next() {
                return event;
            }
            listener.wait();
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    events: Mutex<VecDeque<Event>>,
    signal: Signal,
}

impl Queue {
    fn push(&self, event: Event) {
        merge(&mut self.lock(), event);
        self.signal.notify(usize::MAX);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds `event`, into the last one where that says the same in less.
fn merge(events: &mut VecDeque<Event>, event: Event) {
    match (events.back_mut(), &event) {
        (Some(Event::Lagged), _) => return,
        (Some(Event::Append { length }), Event::Append { length: longer }) => {
            *length = *longer;
            return;
        }
        (Some(Event::Have(last)), Event::Have(next)) if last.end == next.start => {
            last.end = next.end;
            return;
        }
        _ => {}
    }
    if events.len() < EVENTS_MAX {
        events.push_back(event);
    } else {
        events.clear();
        events.push_back(Event::Lagged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge() {
        let hub = EventHub::default();
        let events = hub.subscribe();
        hub.emit(&Event::Have(0..1));
        hub.emit(&Event::Have(1..5));
        hub.emit(&Event::Have(7..8));
        assert_eq!(events.try_next(), Some(Event::Have(0..5)));
        assert_eq!(events.try_next(), Some(Event::Have(7..8)));
        assert_eq!(events.try_next(), None);
    }

    #[test]
    fn a_subscriber_that_sleeps_is_told_that_it_lagged() {
        let hub = EventHub::default();
        let events = hub.subscribe();
        for index in 0..=EVENTS_MAX as u64 {
            hub.emit(&Event::Have(2 * index..2 * index + 1));
        }
        assert_eq!(events.try_next(), Some(Event::Lagged));
        assert_eq!(events.try_next(), None);
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let hub = EventHub::default();
        drop(hub.subscribe());
        hub.emit(&Event::Manifest);
        assert!(hub.lock().is_empty());
    }
}
