//! The receiving half of a stream, on tokio's clock.
//! Knows reads, deadlines and what a frame that is arriving holds. Does not know how to cut or decrypt frames.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::budget::{FREE_FRAME_LEN, FrameBudget, FrameBudgets, FrameRoom};
use crate::{Incoming, StreamError};

/// How long a receiver waits for the rest of a frame that has begun to arrive, if it needs no room of a [`FrameBudget`].
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// ... and one second more for each of these bytes.
pub const FRAME_BYTES_A_SECOND: usize = 1024;

/// The receiving half.
pub struct Receiver<R> {
    io: R,
    incoming: Incoming,
    header_deadline: Instant,
    idle_timeout: Option<Duration>,
    last_read: Instant,
    waited: FrameWait,
    arrivals: Arrivals,
    long_bytes: Arc<AtomicU64>,
    room: Room,
    free_frame_len: usize,
}

/// When something came last of a frame that takes longer than one read. Time in which such a frame had to wait for room here
/// counts as if something had come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Of any frame.
    pub any: Option<Instant>,
    /// Of one of more than [`FREE_FRAME_LEN`] bytes.
    pub long: Option<Instant>,
}

impl Arrivals {
    /// Of a long frame at `now`.
    fn at(now: Instant) -> Self {
        let (any, long) = (Some(now), Some(now));
        Self { any, long }
    }
}

impl<R> Receiver<R> {
    /// The receiving half over `io`, where the header must have come by `header_deadline`.
    pub(crate) fn new(
        io: R,
        incoming: Incoming,
        header_deadline: Instant,
        idle_timeout: Option<Duration>,
    ) -> Self {
        Self {
            io,
            incoming,
            header_deadline,
            idle_timeout,
            last_read: Instant::now(),
            waited: FrameWait::default(),
            arrivals: Arrivals::default(),
            long_bytes: Arc::default(),
            room: Room::new(FrameBudgets::process().incoming),
            free_frame_len: FREE_FRAME_LEN,
        }
    }
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// The next message, or `None` when the peer has ended the stream. Keepalives are left out.
    ///
    /// May be cancelled without losing anything. A message shares memory with those it was read with: copy
    /// small ones that are kept long.
    ///
    /// # Errors
    /// [`StreamError`] if the connection failed, the peer broke the protocol or a deadline passed. The
    /// stream is over then.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.room.give_back();
        loop {
            if let Some(message) = self.incoming.next_message()? {
                self.room.hand_out();
                return Ok(Some(message));
            }
            self.make_room().await?;
            if self.read().await? == 0 {
                return self.incoming.end().map(|()| None);
            }
        }
    }

    /// Takes room for long frames from `budget` from now on, instead of that of the process.
    pub fn set_frame_budget(&mut self, budget: FrameBudget) {
        self.room.budget = budget;
    }

    /// Whether the last message is a long one that holds room: the next call of [`recv`](Self::recv) gives it
    /// back.
    pub fn is_holding(&self) -> bool {
        matches!(self.room.state, RoomState::HandedOut(_))
    }

    /// Gives back what is held for a frame that is worked on or arriving, or waited for: nothing is to be received any more.
    pub fn abandon(&mut self) {
        self.room.state = RoomState::None;
    }

    /// Keeps to the deadlines of a long frame that is worked on, or arriving, while nothing is read. Ends only with an error.
    /// May be cancelled.
    ///
    /// # Errors
    /// [`StreamError::FrameTimeout`] if it took too long, or [`StreamError::NoRoom`]: end the stream.
    pub async fn hold(&mut self) -> Result<Infallible, StreamError> {
        loop {
            if self.room.is_waited_for() {
                // Room that nobody takes would be nobody's.
                self.make_room().await?;
            }
            let Some(next_check) = self.room.next_check() else {
                return pending().await;
            };
            sleep_until(next_check).await;
            self.room.check()?;
        }
    }

    /// When something came last of a frame that was not whole then: what is behind it could not come meanwhile.
    pub fn arrivals(&self) -> Arrivals {
        match self.room.is_waited_for() {
            true => Arrivals::at(Instant::now()),
            false => self.arrivals,
        }
    }

    /// Counts the bytes that come of frames of more than [`FREE_FRAME_LEN`], whole or not: whoever waits for a long message
    /// sees that it is on its way.
    pub fn long_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.long_bytes)
    }

    /// Refuses messages of more than `len` bytes from now on; see [`Incoming::set_message_len_max`].
    pub fn set_message_len_max(&mut self, len: usize) {
        self.incoming.set_message_len_max(len);
    }

    /// Reads at most `read_len` bytes at a time from now on, and has a frame of more than `free_frame_len` wait for room;
    /// at first [`READ_LEN_MAX`](crate::READ_LEN_MAX) and [`FREE_FRAME_LEN`], which are the most.
    pub fn set_buffers(&mut self, read_len: usize, free_frame_len: usize) {
        self.incoming.set_read_len_max(read_len);
        self.free_frame_len = free_frame_len.min(FREE_FRAME_LEN);
    }

    /// Waits until there is memory for the frame that has begun to arrive, if it is a long one.
    async fn make_room(&mut self) -> Result<(), StreamError> {
        let len = self.incoming.incomplete_len();
        let Some(len) = len.filter(|len| *len > self.free_frame_len) else {
            // Buffers may have become longer since it began to wait.
            if self.room.wait_no_more() {
                self.begin_to_listen();
            }
            return Ok(());
        };
        if self.room.wait_for(len).await? {
            self.incoming.reserve_frame();
            self.begin_to_listen();
        }
        Ok(())
    }

    /// While it waited for room nothing could come: that is as if something had.
    fn begin_to_listen(&mut self) {
        self.last_read = Instant::now();
        self.arrivals = Arrivals::at(self.last_read);
    }

    /// Reads what there is, within the deadlines that hold now.
    async fn read(&mut self) -> Result<usize, StreamError> {
        self.waited.is_for(self.incoming.arriving());
        let arriving = self.incoming.incomplete_len();
        loop {
            let (deadline, missed) = self.deadline().unzip();
            let next_check = deadline.into_iter().chain(self.room.next_check()).min();
            let waiting = Waiting::new(&mut self.waited);
            let read = self.io.read_buf(self.incoming.space());
            let n = match next_check {
                Some(next_check) => timeout_at(next_check, read).await.ok().transpose()?,
                None => Some(read.await?),
            };
            drop(waiting);
            if let Some(n) = n {
                self.last_read = Instant::now();
                self.note_arrival(arriving, n);
            }
            self.room.check()?;
            if let Some(n) = n {
                return Ok(n);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now())
                && let Some(missed) = missed
            {
                return Err(missed);
            }
        }
    }

    /// Notes that so many bytes came while a frame was `arriving`, or its length was not known yet.
    fn note_arrival(&mut self, arriving: Option<usize>, bytes: usize) {
        let Some(len) = arriving.or_else(|| self.incoming.incomplete_len()) else {
            return;
        };
        self.arrivals.any = Some(self.last_read);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.room.moved(bytes);
        if len > FREE_FRAME_LEN {
            self.arrivals.long = Some(self.last_read);
            self.long_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Until when something must have come, or else what has been missed.
    fn deadline(&self) -> Option<(Instant, StreamError)> {
        if !self.incoming.is_open() {
            return Some((self.header_deadline, StreamError::HandshakeTimeout));
        }
        let idle = self.idle_timeout.map(|timeout| self.last_read + timeout);
        let idle = idle.map(|deadline| (deadline, StreamError::IdleTimeout));
        let arriving = self.incoming.arriving().filter(|_| self.room.is_none());
        let frame = arriving.map(|_| {
            let len = self.incoming.incomplete_len().unwrap_or(0);
            let left = FrameWait::max(len).saturating_sub(self.waited.time);
            (Instant::now() + left, StreamError::FrameTimeout { len })
        });
        idle.into_iter().chain(frame).min_by_key(|(at, _)| *at)
    }
}

/// How long the rest of the frame that is arriving has been waited for. Time in which nobody listened does not count.
#[derive(Debug, Default)]
struct FrameWait {
    frame: Option<u64>,
    time: Duration,
}

impl FrameWait {
    /// Begins anew for another frame.
    fn is_for(&mut self, frame: Option<u64>) {
        if self.frame != frame {
            *self = Self {
                frame,
                time: Duration::ZERO,
            };
        }
    }

    /// How long a frame of so many bytes may take.
    fn max(len: usize) -> Duration {
        let seconds = len.div_ceil(FRAME_BYTES_A_SECOND);
        FRAME_TIMEOUT + Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
    }
}

/// Counts time for as long as it lives: whoever waits may be interrupted.
struct Waiting<'a> {
    wait: &'a mut FrameWait,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(wait: &'a mut FrameWait) -> Self {
        let since = Instant::now();
        Self { wait, since }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.wait.time += self.since.elapsed();
    }
}

/// What a receiver holds of the budget for long frames.
struct Room {
    budget: FrameBudget,
    state: RoomState,
}

/// Boxed: most streams never hold any.
enum RoomState {
    None,
    /// A frame has begun to arrive. Kept, because whoever waits may be interrupted.
    Waiting(
        Pin<Box<dyn Future<Output = Result<FrameRoom, StreamError>> + Send + std::marker::Sync>>,
    ),
    /// It is arriving.
    Filling(Box<FrameRoom>),
    /// It is being worked on.
    HandedOut(Box<FrameRoom>),
}

impl Room {
    fn new(budget: FrameBudget) -> Self {
        let state = RoomState::None;
        Self { budget, state }
    }

    /// Whether room is there that was not before.
    async fn wait_for(&mut self, len: usize) -> Result<bool, StreamError> {
        if matches!(self.state, RoomState::None) {
            let budget = self.budget.clone();
            self.state = RoomState::Waiting(Box::pin(async move { budget.room(len).await }));
        }
        let RoomState::Waiting(waiting) = &mut self.state else {
            return Ok(false);
        };
        let room = waiting.await;
        self.state = RoomState::None;
        self.state = RoomState::Filling(Box::new(room?));
        Ok(true)
    }

    fn hand_out(&mut self) {
        self.state = match std::mem::replace(&mut self.state, RoomState::None) {
            RoomState::Filling(room) => {
                room.begin_work();
                RoomState::HandedOut(room)
            }
            other => other,
        };
    }

    fn moved(&self, bytes: u64) {
        if let RoomState::Filling(room) = &self.state {
            room.moved(bytes);
        }
    }

    /// Gives up the place in the line, where room would be held that nobody takes. Whether it had one.
    fn wait_no_more(&mut self) -> bool {
        let is_waiting = self.is_waited_for();
        if is_waiting {
            self.state = RoomState::None;
        }
        is_waiting
    }

    fn give_back(&mut self) {
        if matches!(self.state, RoomState::HandedOut(_)) {
            self.state = RoomState::None;
        }
    }

    fn is_none(&self) -> bool {
        matches!(self.state, RoomState::None)
    }

    fn is_waited_for(&self) -> bool {
        matches!(self.state, RoomState::Waiting(_))
    }

    fn next_check(&self) -> Option<Instant> {
        self.held().map(FrameRoom::next_check)
    }

    fn check(&self) -> Result<(), StreamError> {
        self.held().map_or(Ok(()), FrameRoom::check)
    }

    fn held(&self) -> Option<&FrameRoom> {
        match &self.state {
            RoomState::Filling(room) | RoomState::HandedOut(room) => Some(room),
            RoomState::None | RoomState::Waiting(_) => None,
        }
    }
}

impl<R> fmt::Debug for Receiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}
