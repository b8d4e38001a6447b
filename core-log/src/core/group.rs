//! Group commit: changes that wait for the device share one commit, and with it its syncs.
//!
//! Whoever changes a core that nobody is committing commits at once. Whoever comes meanwhile
//! queues up, and those who want the same are the next commit: appends under one signature, and the
//! blocks that several peers have proven. That one is left to a thread of the [`Flusher`].
//!
//! Knows queues and whose turn it is. Does not know what an append is, nor a proof: `append`, `accept`
//! and `history` do.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};

use super::append::{Appended, Growth, HashedBlocks};
use super::flusher::Flusher;
use super::ticket::{Completer, Ticket};
use super::{AcceptError, Accepted, CoreError, Inner};
use crate::changeset::Changeset;
use crate::limits::{APPENDS_WAITING_BYTES_MAX, BATCH_BYTES_MAX};
use crate::reorg::Reorg;
use crate::storage::{StorageError, lock};

/// An append under way.
pub type AppendTicket = Ticket<Appended, CoreError>;

/// Verified proofs on their way to storage.
pub type AcceptTicket = Ticket<Accepted, AcceptError>;

/// A move to another history that is under way.
pub type AdoptTicket = Ticket<(), AcceptError>;

/// Makes the blocks that go behind those of a log as it grows, unless that does not suit them.
pub(super) type Make = Box<dyn FnOnce(&Inner, &Growth) -> Result<HashedBlocks, CoreError> + Send>;

/// How much an append brings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) blocks: usize,
    /// Bytes of these, as they are stored.
    pub(super) bytes: usize,
}

impl Size {
    /// What an append of this size takes up while it waits, about.
    pub(super) fn cost(self) -> usize {
        WAITER_BYTES + self.bytes + self.blocks * BLOCK_BYTES
    }
}

/// One append that waits for its commit.
pub(super) struct Request {
    pub(super) make: Make,
    pub(super) size: Size,
    /// Of its bytes, so many a block are not the caller's.
    pub(super) padding: usize,
    pub(super) completer: Completer<Appended, CoreError>,
}

/// Verified proofs that wait for their commit.
pub(super) struct Acceptance {
    pub(super) changeset: Changeset,
    pub(super) completer: Completer<Accepted, AcceptError>,
}

/// A history that waits to take the place of the current one.
pub(super) struct Adoption {
    pub(super) reorg: Reorg,
    pub(super) completer: Completer<(), AcceptError>,
}

/// A change that waits for its commit.
pub(super) enum Waiter {
    Append(Request),
    Accept(Box<Acceptance>),
    Adopt(Box<Adoption>),
}

/// Changes that are over, and who waits for them.
#[derive(Default)]
#[must_use = "somebody waits"]
pub(super) struct Done(Vec<Box<dyn FnOnce() + Send>>);

impl Done {
    pub(super) fn push<T, E>(&mut self, completer: Completer<T, E>, result: Result<T, E>)
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        self.0.push(Box::new(move || completer.complete(result)));
    }

    /// Tells those who waited.
    pub(super) fn tell(self) {
        self.0.into_iter().for_each(|complete| complete());
    }
}

/// The changes of one core that wait for their commit.
#[derive(Default)]
pub(super) struct CommitQueue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    waiters: VecDeque<Waiter>,
    /// What they take up, about.
    bytes: usize,
    /// What those take up who will wait.
    reserved: usize,
    /// Whether somebody commits, and will look here again.
    is_led: bool,
}

impl CommitQueue {
    /// Queues `waiter`, in `room` if some was reserved, and says whether the caller must see to its commit, as nobody else does.
    pub(super) fn push(&self, waiter: Waiter, room: Option<Room<'_>>) -> bool {
        let mut waiting = lock(&self.0);
        if let Some(mut room) = room {
            waiting.reserved -= mem::take(&mut room.cost);
        }
        waiting.bytes += waiter.cost();
        waiting.waiters.push_back(waiter);
        !mem::replace(&mut waiting.is_led, true)
    }

    /// Room for a change of this cost, until its waiter is queued or it comes to nothing. There is some as long as no more wait,
    /// and are about to, than [`APPENDS_WAITING_BYTES_MAX`], or if it is alone: what is larger than that may wait, too.
    pub(super) fn reserve(&self, cost: usize) -> Option<Room<'_>> {
        let mut waiting = lock(&self.0);
        let taken = waiting.bytes + waiting.reserved;
        (taken == 0 || taken + cost <= APPENDS_WAITING_BYTES_MAX).then(|| {
            waiting.reserved += cost;
            Room { queue: self, cost }
        })
    }

    /// Those that the next commit takes: all of a kind, as long as their blocks make no too large batch.
    fn next_group(&self) -> Vec<Waiter> {
        let mut waiting = lock(&self.0);
        let (mut bytes, mut kind) = (0, None);
        let fits = |waiter: &&Waiter| {
            bytes += waiter.bytes();
            let kind = *kind.get_or_insert(mem::discriminant(*waiter));
            bytes <= BATCH_BYTES_MAX && kind == mem::discriminant(*waiter)
        };
        let count = waiting.waiters.iter().take_while(fits).count().max(1);
        let count = count.min(waiting.waiters.len());
        let group: Vec<_> = waiting.waiters.drain(..count).collect();
        waiting.bytes -= group.iter().map(Waiter::cost).sum::<usize>();
        group
    }

    /// Ends the lead if nobody waits, and says whether it did.
    fn resign(&self) -> bool {
        let mut waiting = lock(&self.0);
        waiting.is_led = !waiting.waiters.is_empty();
        !waiting.is_led
    }

    /// Ends the lead and fails all who wait.
    fn abandon(&self) {
        let mut waiting = lock(&self.0);
        let reserved = waiting.reserved;
        let failed = mem::take(&mut *waiting);
        waiting.reserved = reserved;
        drop(waiting);
        drop(failed);
    }
}

/// Room for a change that is about to wait.
#[must_use = "it is given back"]
pub(super) struct Room<'a> {
    queue: &'a CommitQueue,
    cost: usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.cost > 0 {
            lock(&self.queue.0).reserved -= self.cost;
        }
    }
}

impl Waiter {
    /// Of its blocks.
    fn bytes(&self) -> usize {
        match self {
            Self::Append(request) => request.size.bytes,
            Self::Accept(acceptance) => acceptance.changeset.block_bytes(),
            Self::Adopt(_) => 0,
        }
    }

    /// What it takes up while it waits, about.
    fn cost(&self) -> usize {
        match self {
            Self::Append(request) => request.size.cost(),
            Self::Accept(acceptance) => changeset_cost(&acceptance.changeset),
            Self::Adopt(adoption) => WAITER_BYTES + adoption.reorg.tree.nodes.len() * NODE_BYTES,
        }
    }
}

/// What verified proofs take up while they wait, about.
pub(super) fn changeset_cost(changeset: &Changeset) -> usize {
    let (blocks, nodes) = (changeset.blocks.len(), changeset.nodes.len());
    WAITER_BYTES + changeset.block_bytes() + blocks * BLOCK_BYTES + nodes * NODE_BYTES
}

/// What one takes besides its blocks and nodes, about.
const WAITER_BYTES: usize = 256;

/// What a block takes besides its bytes, about: where these are, and its hash or number.
const BLOCK_BYTES: usize = 64;

/// What a verified node takes, about.
const NODE_BYTES: usize = 64;

/// Fails those who wait for a leader who panics.
struct Lead<'a>(&'a CommitQueue);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Inner {
    /// Queues a change. The ticket that belongs to it is completed by a thread, or has been by now.
    pub(super) fn commit_later(self: &Arc<Self>, waiter: Waiter, room: Option<Room<'_>>) {
        if self.queue.push(waiter, room) {
            Flusher::hand_over(&self.flusher, Arc::clone(self));
        }
    }

    /// Queues a change, and makes its commit here unless others are at it: the caller waits anyway.
    pub(super) fn commit_now(self: &Arc<Self>, waiter: Waiter) {
        if !self.queue.push(waiter, None) {
            return;
        }
        let (done, more) = self.lead();
        if more {
            Flusher::hand_over(&self.flusher, Arc::clone(self));
        }
        done.tell();
    }

    /// Makes one commit for those who wait. Returns them, and whether more have come; if not, the
    /// lead is given up.
    pub(super) fn lead(&self) -> (Done, bool) {
        let lead = Lead(&self.queue);
        let done = self.commit_group(self.queue.next_group());
        mem::forget(lead);
        (done, !self.queue.resign())
    }

    /// Commits what is of one kind.
    fn commit_group(&self, group: Vec<Waiter>) -> Done {
        let (mut appends, mut proofs, mut done) = (Vec::new(), Vec::new(), Done::default());
        for waiter in group {
            match waiter {
                Waiter::Append(request) => appends.push(request),
                Waiter::Accept(acceptance) => proofs.push(*acceptance),
                Waiter::Adopt(adoption) => {
                    let Adoption { reorg, completer } = *adoption;
                    done.push(completer, self.adopt(reorg));
                }
            }
        }
        if !appends.is_empty() {
            self.append_group(appends, &mut done);
        }
        if !proofs.is_empty() {
            self.accept_group(proofs, &mut done);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use ferrocore_primitives::keys::DiscoveryKey;

    use super::*;

    fn request() -> (Waiter, AppendTicket) {
        let (completer, ticket) = Completer::new(DiscoveryKey::from([0; 32]));
        let request = Request {
            make: Box::new(|_, _| Ok(HashedBlocks::hash(Vec::new()))),
            size: Size {
                blocks: 0,
                bytes: BATCH_BYTES_MAX / 2,
            },
            padding: 0,
            completer,
        };
        (Waiter::Append(request), ticket)
    }

    #[test]
    fn a_leader_who_panics_fails_those_who_wait() {
        let queue = CommitQueue::default();
        let (first, second) = (request(), request());
        assert!(queue.push(first.0, None), "the first leads");
        assert!(!queue.push(second.0, None));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _lead = Lead(&queue);
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert!(first.1.wait().is_err() && second.1.wait().is_err());
        assert!(queue.push(request().0, None), "somebody leads again");
    }

    /// Goal: what is about to wait has its room before it is hashed, so that together they are never more than may wait; and
    /// room that was not used is there again.
    #[test]
    fn room_is_taken_once() {
        let (queue, max) = (CommitQueue::default(), APPENDS_WAITING_BYTES_MAX);
        let most = queue.reserve(2 * max).expect("alone anything may wait");
        assert!(queue.reserve(0).is_none());
        drop(most);
        let first = queue.reserve(max / 2).unwrap();
        let second = queue.reserve(max / 2).unwrap();
        assert!(queue.reserve(1).is_none());
        drop(first);
        assert!(queue.reserve(max / 2 + 1).is_none());
        let (mut waiter, _ticket) = request();
        if let Waiter::Append(request) = &mut waiter {
            request.size.bytes = max / 2 - WAITER_BYTES;
        }
        assert!(queue.push(waiter, Some(second)));
        drop(queue.reserve(max / 2).expect("its room is what it takes"));
        assert!(queue.reserve(max / 2 + 1).is_none());
        let reserved = queue.reserve(1).unwrap();
        queue.abandon();
        drop(reserved);
        assert!(queue.reserve(2 * max).is_some(), "nobody waits");
    }

    #[test]
    fn a_group_is_no_larger_than_a_batch() {
        let queue = CommitQueue::default();
        for _ in 0..5 {
            queue.push(request().0, None);
        }
        let mut sizes = Vec::new();
        while !queue.resign() {
            sizes.push(queue.next_group().len());
        }
        assert_eq!(sizes, [2, 2, 1]);
    }
}
