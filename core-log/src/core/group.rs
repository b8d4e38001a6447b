//! Group commit: appends that wait for the device share one commit, and with it its syncs.
//!
//! Whoever appends to a core that nobody is committing commits at once. Whoever comes meanwhile
//! queues up, and all of them are the next commit, under one signature. That one is left to a
//! thread of the [`Flusher`], which is started when there is work and ends when there is none.
//!
//! Knows queues, tickets and threads. Does not know what an append is: `append` does.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use ferrocore_primitives::keys::DiscoveryKey;

use super::append::{Appended, HashedBlocks};
use super::{CoreError, Inner};
use crate::limits::{APPENDS_WAITING_BYTES_MAX, BATCH_BYTES_MAX};
use crate::storage::{StorageError, lock};

/// Most threads that commit for the cores of one store.
const FLUSHERS_MAX: usize = 8;

/// An append under way: a future, for any runtime or none, that is there once the blocks are.
///
/// The append takes place whether the ticket is kept or dropped. Tickets of one core come in the
/// order of their appends; those that share a commit share its failure.
#[must_use = "an append that was not waited for may have failed"]
pub struct AppendTicket {
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    done: Condvar,
}

#[derive(Default)]
struct SlotState {
    is_over: bool,
    result: Option<Result<Appended, CoreError>>,
    waker: Option<Waker>,
}

impl Slot {
    /// The first result counts.
    fn complete(&self, result: Result<Appended, CoreError>) {
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

impl AppendTicket {
    /// Of an append that is over.
    pub(super) fn ready(result: Result<Appended, CoreError>) -> Self {
        let slot = Arc::<Slot>::default();
        slot.complete(result);
        Self { slot }
    }

    /// Blocks this thread until the append is over.
    ///
    /// # Errors
    /// Those of [`Core::append_batch`](super::Core::append_batch).
    pub fn wait(self) -> Result<Appended, CoreError> {
        let state = lock(&self.slot.state);
        let waited = self
            .slot
            .done
            .wait_while(state, |state| state.result.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.result.take().expect("it was waited for")
    }
}

impl Future for AppendTicket {
    type Output = Result<Appended, CoreError>;

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

impl fmt::Debug for AppendTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_done = lock(&self.slot.state).result.is_some();
        f.debug_struct("AppendTicket")
            .field("is_done", &is_done)
            .finish()
    }
}

/// Makes blocks for the block index and the fork they will have, unless those do not suit it.
pub(super) type Make = Box<dyn FnOnce(u64, u64) -> Result<HashedBlocks, CoreError> + Send>;

/// One append that waits for its commit.
pub(super) struct Request {
    pub(super) make: Make,
    /// Bytes of its blocks, as they are stored.
    pub(super) bytes: usize,
    /// Of these, so many a block are not the caller's.
    pub(super) padding: usize,
    pub(super) completer: Completer,
}

/// Whoever completes a ticket. No ticket waits for ever: dropped, it fails it.
pub(super) struct Completer {
    slot: Arc<Slot>,
    core: DiscoveryKey,
}

/// An append that is over, and who waits for it.
pub(super) type Done = (Completer, Result<Appended, CoreError>);

impl Completer {
    pub(super) fn new(core: DiscoveryKey) -> (Self, AppendTicket) {
        let slot = Arc::<Slot>::default();
        let ticket = AppendTicket {
            slot: Arc::clone(&slot),
        };
        (Self { slot, core }, ticket)
    }

    pub(super) fn complete(self, result: Result<Appended, CoreError>) {
        self.slot.complete(result);
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        let core = self.core;
        self.slot
            .complete(Err(StorageError::Poisoned { core }.into()));
    }
}

/// The appends to one core that wait for their commit.
#[derive(Default)]
pub(super) struct AppendQueue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
    /// Whether somebody commits, and will look here again.
    is_led: bool,
}

impl AppendQueue {
    /// Queues `request` and says whether the caller must see to its commit, as nobody else does.
    pub(super) fn push(&self, request: Request) -> bool {
        let mut waiting = lock(&self.0);
        waiting.bytes += request.cost();
        waiting.requests.push_back(request);
        !mem::replace(&mut waiting.is_led, true)
    }

    /// Whether more may wait than do now.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.0).bytes < APPENDS_WAITING_BYTES_MAX
    }

    /// Those that the next commit takes: all, as long as their blocks make no too large batch.
    fn next_group(&self) -> Vec<Request> {
        let mut waiting = lock(&self.0);
        let mut bytes = 0;
        let fits = |request: &&Request| {
            bytes += request.bytes;
            bytes <= BATCH_BYTES_MAX
        };
        let count = waiting.requests.iter().take_while(fits).count().max(1);
        let count = count.min(waiting.requests.len());
        let group: Vec<_> = waiting.requests.drain(..count).collect();
        waiting.bytes -= group.iter().map(Request::cost).sum::<usize>();
        group
    }

    /// Ends the lead if nobody waits, and says whether it did.
    fn resign(&self) -> bool {
        let mut waiting = lock(&self.0);
        waiting.is_led = !waiting.requests.is_empty();
        !waiting.is_led
    }

    /// Ends the lead and fails all who wait.
    fn abandon(&self) {
        let mut waiting = lock(&self.0);
        let failed = mem::take(&mut *waiting);
        drop(waiting);
        drop(failed);
    }
}

impl Request {
    /// What it takes up while it waits, about.
    fn cost(&self) -> usize {
        REQUEST_BYTES + self.bytes
    }
}

/// What a request takes besides its blocks, about.
const REQUEST_BYTES: usize = 256;

/// Fails those who wait for a leader who panics.
struct Lead<'a>(&'a AppendQueue);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Inner {
    /// Makes one commit for those who wait. Returns them, and whether more have come; if not, the
    /// lead is given up.
    pub(super) fn lead(&self) -> (Vec<Done>, bool) {
        let lead = Lead(&self.appends);
        let done = self.append_group(self.appends.next_group());
        mem::forget(lead);
        (done, !self.appends.resign())
    }
}

/// The threads that commit for the cores of a store when no caller does.
#[derive(Default)]
pub(crate) struct Flusher(Mutex<Work>);

#[derive(Default)]
struct Work {
    cores: VecDeque<Arc<Inner>>,
    threads: usize,
}

impl Flusher {
    /// Leaves the lead of `core` to a thread, or, where there are no threads, keeps it here.
    pub(super) fn hand_over(this: &Arc<Self>, core: Arc<Inner>) {
        {
            let mut work = lock(&this.0);
            work.cores.push_back(core);
            if work.threads == FLUSHERS_MAX {
                return;
            }
            work.threads += 1;
        }
        let flusher = Arc::clone(this);
        let thread = thread::Builder::new().name("ferrocore-flusher".to_owned());
        if thread.spawn(move || flusher.run()).is_err() {
            this.run();
        }
    }

    /// Works until there is nothing left to do.
    fn run(&self) {
        while let Some(core) = self.next() {
            // A panic fails those who waited for this core, not those of the next.
            let _ = catch_unwind(AssertUnwindSafe(|| self.commit_for(core)));
        }
    }

    fn next(&self) -> Option<Arc<Inner>> {
        let mut work = lock(&self.0);
        let core = work.cores.pop_front();
        if core.is_none() {
            work.threads -= 1;
        }
        core
    }

    fn commit_for(&self, core: Arc<Inner>) {
        let (done, more) = core.lead();
        match more {
            // Behind the others: none is kept waiting by a core that is always busy.
            true => lock(&self.0).cores.push_back(core),
            // Before the tickets: who waited may close the core, and open it again.
            false => drop(core),
        }
        complete(done);
    }
}

/// Tells those who waited.
pub(super) fn complete(done: Vec<Done>) {
    for (completer, result) in done {
        completer.complete(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> (Request, AppendTicket) {
        let (completer, ticket) = Completer::new(DiscoveryKey::from([0; 32]));
        let request = Request {
            make: Box::new(|_, _| Ok(HashedBlocks::hash(Vec::new()))),
            bytes: BATCH_BYTES_MAX / 2,
            padding: 0,
            completer,
        };
        (request, ticket)
    }

    #[test]
    fn a_leader_who_panics_fails_those_who_wait() {
        let queue = AppendQueue::default();
        let (first, second) = (request(), request());
        assert!(queue.push(first.0), "the first leads");
        assert!(!queue.push(second.0));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _lead = Lead(&queue);
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert!(first.1.wait().is_err() && second.1.wait().is_err());
        assert!(queue.push(request().0), "somebody leads again");
    }

    #[test]
    fn a_group_is_no_larger_than_a_batch() {
        let queue = AppendQueue::default();
        for _ in 0..5 {
            queue.push(request().0);
        }
        let mut sizes = Vec::new();
        while !queue.resign() {
            sizes.push(queue.next_group().len());
        }
        assert_eq!(sizes, [2, 2, 1]);
    }
}
