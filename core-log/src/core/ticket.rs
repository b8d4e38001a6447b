//! What waits for a commit that somebody else makes.
//!
//! Knows results and wakers. Does not know what is committed.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use ferrocore_primitives::keys::DiscoveryKey;

use crate::storage::{StorageError, lock};

/// A change of a core that is under way: a future, for any runtime or none, that is there once the change is.
///
/// The change takes place whether the ticket is kept or dropped. Tickets of one core's appends come in the
/// order of those; what shares a commit shares its failure.
#[must_use = "a change that was not waited for may have failed"]
pub struct Ticket<T, E> {
    slot: Arc<Slot<T, E>>,
}

struct Slot<T, E> {
    state: Mutex<SlotState<T, E>>,
    done: Condvar,
}

struct SlotState<T, E> {
    is_over: bool,
    result: Option<Result<T, E>>,
    waker: Option<Waker>,
}

impl<T, E> Default for Slot<T, E> {
    fn default() -> Self {
        Self {
            state: Mutex::new(SlotState {
                is_over: false,
                result: None,
                waker: None,
            }),
            done: Condvar::new(),
        }
    }
}

impl<T, E> Slot<T, E> {
    /// The first result counts.
    fn complete(&self, result: Result<T, E>) {
        let waker = {
            let mut state = lock(&self.state);
            if mem::replace(&mut state.is_over, true) {
                return;
            }
            state.result = Some(result);
            state.waker.take()
        };
        self.done.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T, E> Ticket<T, E> {
    /// Of a change that is over.
    pub(super) fn ready(result: Result<T, E>) -> Self {
        let slot = Arc::<Slot<T, E>>::default();
        slot.complete(result);
        Self { slot }
    }

    /// Blocks this thread until the change is over.
    ///
    /// # Errors
    /// Those of the method that returned the ticket.
    pub fn wait(self) -> Result<T, E> {
        let state = lock(&self.slot.state);
        let waited = self
            .slot
            .done
            .wait_while(state, |state| state.result.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.result.take().expect("it was waited for")
    }
}

impl<T, E> Future for Ticket<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.slot.state);
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        assert!(!state.is_over, "polled after it was ready");
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T, E> fmt::Debug for Ticket<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_done = lock(&self.slot.state).result.is_some();
        f.debug_struct("Ticket").field("is_done", &is_done).finish()
    }
}

/// Whoever completes a ticket. No ticket waits for ever: dropped, it fails it.
pub(super) struct Completer<T, E: From<StorageError>> {
    slot: Arc<Slot<T, E>>,
    core: DiscoveryKey,
    judge: fn(T) -> Result<T, E>,
}

impl<T, E: From<StorageError>> Completer<T, E> {
    pub(super) fn new(core: DiscoveryKey) -> (Self, Ticket<T, E>) {
        let slot = Arc::<Slot<T, E>>::default();
        let ticket = Ticket {
            slot: Arc::clone(&slot),
        };
        let judge = Ok;
        (Self { slot, core, judge }, ticket)
    }

    /// The same, for who takes a change for made only if it is all that was wanted.
    pub(super) fn judging(mut self, judge: fn(T) -> Result<T, E>) -> Self {
        self.judge = judge;
        self
    }

    pub(super) fn complete(self, result: Result<T, E>) {
        self.slot.complete(result.and_then(self.judge));
    }
}

impl<T, E: From<StorageError>> Drop for Completer<T, E> {
    fn drop(&mut self) {
        let core = self.core;
        self.slot
            .complete(Err(StorageError::Poisoned { core }.into()));
    }
}
