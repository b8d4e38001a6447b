//! Memory for long frames, shared by all streams of a process.
//!
//! Knows who holds how much, for how long and whether others wait. Does not know frames.
//!
//! A short frame costs its stream's own buffer. A longer one is taken in only when there is room for the
//! whole of it here: who has to wait is not read from meanwhile. Room is given in the order it was asked for,
//! and whoever holds it has a deadline, a nearer one while others wait.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::{FRAME_LEN_MAX, StreamError};

/// Bytes of long frames that one process holds at a time, in both directions together.
pub const FRAME_BUDGET: usize = 64 * 1024 * 1024;

/// Frames of up to this many bytes cost no room.
pub const FREE_FRAME_LEN: usize = 128 * 1024;

/// How long a frame may wait for room.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(300);

/// How long room is held whatever its size.
const HELD_TIME: Duration = Duration::from_secs(60);

/// ... and one second more for each of these bytes.
const HELD_BYTES_A_SECOND: usize = 64 * 1024;

/// The same while others wait.
const HURRIED_TIME: Duration = Duration::from_secs(10);

/// The same while others wait.
const HURRIED_BYTES_A_SECOND: usize = 1024 * 1024;

/// What one permit of the semaphore stands for, in bytes.
const UNIT: usize = 1024;

const _: () = assert!(
    2 * FRAME_LEN_MAX <= FRAME_BUDGET,
    "every frame finds room alone"
);
const _: () = assert!(FRAME_BUDGET / UNIT < u32::MAX as usize);

/// What the two directions may hold. Each has its own: two processes that had given all their room to what
/// they send would wait for each other to receive.
#[derive(Debug, Clone)]
pub struct FrameBudgets {
    /// Of frames that arrive and are worked on.
    pub incoming: FrameBudget,
    /// Of frames that wait to be taken by the peer.
    pub outgoing: FrameBudget,
}

impl FrameBudgets {
    /// Those of this process, half of [`FRAME_BUDGET`] each. Every stream uses them that is not given others.
    pub fn process() -> Self {
        static PROCESS: OnceLock<FrameBudgets> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(FRAME_BUDGET)).clone()
    }

    /// Some of their own, of `bytes` together, but at least one of the longest frames each.
    pub fn new(bytes: usize) -> Self {
        Self {
            incoming: FrameBudget::new(bytes / 2),
            outgoing: FrameBudget::new(bytes / 2),
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.incoming.held() + self.outgoing.held()
    }
}

/// A number of bytes that long frames share. Clones are the same budget.
#[derive(Clone)]
pub struct FrameBudget {
    shared: Arc<Shared>,
}

struct Shared {
    room: Arc<Semaphore>,
    units: usize,
    waiting: AtomicUsize,
}

impl FrameBudget {
    /// One of its own, of `bytes` but at least one of the longest frames.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.max(FRAME_LEN_MAX).div_ceil(UNIT);
        Self {
            shared: Arc::new(Shared {
                room: Arc::new(Semaphore::new(units)),
                units,
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// Waits for room for `len` bytes, first come, first served.
    ///
    /// # Errors
    /// [`StreamError::NoRoom`] after [`ROOM_TIMEOUT`].
    pub async fn room(&self, len: usize) -> Result<FrameRoom, StreamError> {
        let units = len.div_ceil(UNIT).min(self.shared.units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room);
        if let Ok(permit) = Arc::clone(&room).try_acquire_many_owned(units) {
            return Ok(FrameRoom::new(self.clone(), len, permit));
        }
        let waiting = Waiting::new(&self.shared);
        match timeout(ROOM_TIMEOUT, room.acquire_many_owned(units)).await {
            Ok(Ok(permit)) => {
                drop(waiting);
                Ok(FrameRoom::new(self.clone(), len, permit))
            }
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(StreamError::NoRoom { len }),
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        (self.shared.units - self.shared.room.available_permits()) * UNIT
    }

    /// Whether somebody waits for room.
    pub fn is_crowded(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire) > 0
    }
}

/// Counts one who waits, also if it goes away.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Room for one frame, given back when dropped.
pub struct FrameRoom {
    budget: FrameBudget,
    len: usize,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl FrameRoom {
    fn new(budget: FrameBudget, len: usize, permit: OwnedSemaphorePermit) -> Self {
        Self {
            budget,
            len,
            since: Instant::now(),
            _permit: permit,
        }
    }

    /// When [`check`](Self::check) is to be called next, at the latest.
    pub fn next_check(&self) -> Instant {
        let now = Instant::now();
        let hurried = self.deadline(HURRIED_TIME, HURRIED_BYTES_A_SECOND);
        let next = hurried.max(now + Duration::from_secs(1));
        next.min(self.deadline(HELD_TIME, HELD_BYTES_A_SECOND))
    }

    /// Whether the room may still be held.
    ///
    /// # Errors
    /// [`StreamError::FrameTimeout`] if it is to be given back, with the stream.
    pub fn check(&self) -> Result<(), StreamError> {
        let deadline = match self.budget.is_crowded() {
            true => self.deadline(HURRIED_TIME, HURRIED_BYTES_A_SECOND),
            false => self.deadline(HELD_TIME, HELD_BYTES_A_SECOND),
        };
        match Instant::now() < deadline {
            true => Ok(()),
            false => Err(StreamError::FrameTimeout { len: self.len }),
        }
    }

    fn deadline(&self, time: Duration, bytes_a_second: usize) -> Instant {
        let seconds = u64::try_from(self.len.div_ceil(bytes_a_second)).unwrap_or(u64::MAX);
        self.since + time + Duration::from_secs(seconds)
    }
}

impl fmt::Debug for FrameBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBudget")
            .field("held", &self.held())
            .field("is_crowded", &self.is_crowded())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FrameRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameRoom")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn room_is_given_in_order_and_comes_back() {
        let budget = FrameBudget::new(0);
        let first = budget.room(FRAME_LEN_MAX).await.unwrap();
        assert!(!budget.is_crowded());
        let second = budget.clone();
        let second = tokio::spawn(async move { second.room(5000).await.unwrap() });
        tokio::task::yield_now().await;
        assert!(budget.is_crowded());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(budget.held(), 5 * UNIT);
        drop(second);
        assert_eq!(budget.held(), 0);
        assert!(!budget.is_crowded());
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_room_has_less_time_while_others_wait() {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        tokio::time::advance(HURRIED_TIME + Duration::from_secs(16)).await;
        room.check().unwrap();
        let waiting = budget.clone();
        let waiting = tokio::spawn(async move { waiting.room(1).await });
        tokio::task::yield_now().await;
        assert!(matches!(
            room.check(),
            Err(StreamError::FrameTimeout { .. })
        ));
        waiting.abort();
        let _ = waiting.await;
        room.check().unwrap();
        tokio::time::advance(HELD_TIME + Duration::from_secs(256)).await;
        assert!(room.check().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let budget = FrameBudget::new(0);
        let _held = budget.room(FRAME_LEN_MAX).await.unwrap();
        let refused = budget.room(1).await.unwrap_err();
        assert!(matches!(refused, StreamError::NoRoom { len: 1 }));
        assert!(!budget.is_crowded());
    }
}
