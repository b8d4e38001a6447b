//! Plain datagrams between a socket's driver and whoever reads them.
//! Knows how many may wait. Does not know what they hold.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::udp::Datagram;
use crate::limits::DATAGRAMS_MAX;

/// The queue. A thousand nodes of the DHT have two each, so an empty one keeps next to no memory.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Datagram>,
    /// Nothing more comes, or nobody reads any more.
    is_over: bool,
}

/// Places that an empty queue keeps.
const KEPT: usize = 16;

impl Datagrams {
    /// Appends what `make` makes; false if there is no room, or nobody to read it.
    pub(super) fn push(&self, make: impl FnOnce() -> Datagram) -> bool {
        let mut waiting = self.lock();
        if waiting.is_over || waiting.queue.len() >= DATAGRAMS_MAX {
            return false;
        }
        waiting.queue.push_back(make());
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// The next one; `None` once there will be none.
    pub(super) async fn next(&self) -> Option<Datagram> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.take() {
                return next;
            }
            arrived.await;
        }
    }

    /// What waits is still read, and nothing more comes.
    pub(super) fn finish(&self) {
        self.lock().is_over = true;
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Nobody reads any more.
    pub(super) fn forget(&self) {
        let mut waiting = self.lock();
        waiting.is_over = true;
        waiting.queue = VecDeque::new();
    }

    /// The next, or the end; `None` means to wait. One arrival may stand for several datagrams, and the end for all
    /// who wait: so whoever leaves something behind passes it on.
    fn take(&self) -> Option<Option<Datagram>> {
        let mut waiting = self.lock();
        let next = waiting.queue.pop_front();
        let is_empty = waiting.queue.is_empty();
        if is_empty && waiting.queue.capacity() > KEPT {
            waiting.queue = VecDeque::new();
        }
        if !is_empty || waiting.is_over {
            self.arrived.notify_one();
        }
        match next {
            None if !waiting.is_over => None,
            next => Some(next),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
