//! Frames on their way out: their order, the memory that long ones wait for, and the task that writes them.
//!
//! Knows when to flush and what a frame holds. Does not know what frames say.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ferrocore_mux::Frame;
use ferrocore_mux::limits::BATCH_LEN_TARGET;
use ferrocore_secret_stream::{FrameBudget, FrameRoom, Sender, StreamError};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, timeout, timeout_at};

use super::desk::End;
use crate::buffers::BufferPlace;
use crate::limits::{CLOSE_TIMEOUT, FRAMES_QUEUED_MAX, LONG_ANSWERS_TOGETHER};

/// What is on its way to the writing task.
pub(super) enum Outbound {
    Frame {
        frame: Frame,
        /// The memory it holds.
        room: Option<UploadGrant>,
        /// That it is the only one, while buffers are short.
        turn: Option<OwnedSemaphorePermit>,
    },
    /// Long buffers are to be given up, and then their place.
    Shrink(BufferPlace),
}

/// The way to the writing task: a queue while buffers are long, one frame at a time while they are short.
pub(super) struct Outlet {
    frames: mpsc::Sender<Outbound>,
    turn: Arc<Semaphore>,
    place: Option<BufferPlace>,
}

/// Why nothing more can be handed over.
pub(super) enum Blocked {
    Full,
    /// The writing task went away, and knows why.
    Ended,
}

impl From<TrySendError<()>> for Blocked {
    fn from(error: TrySendError<()>) -> Self {
        match error {
            TrySendError::Full(()) => Self::Full,
            TrySendError::Closed(()) => Self::Ended,
        }
    }
}

/// The right to hand over one frame.
pub(super) struct Turn<'a> {
    slot: mpsc::Permit<'a, Outbound>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Turn<'_> {
    pub(super) fn send(self, frame: Frame, room: Option<UploadGrant>) {
        let turn = self.turn;
        self.slot.send(Outbound::Frame { frame, room, turn });
    }
}

impl Outlet {
    /// With short buffers, and what the writing task reads from.
    pub(super) fn new() -> (Self, mpsc::Receiver<Outbound>) {
        let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
        let outlet = Self {
            frames,
            turn: Arc::new(Semaphore::new(1)),
            place: None,
        };
        (outlet, queued)
    }

    /// Whether buffers are long.
    pub(super) fn is_long(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn lengthen(&mut self, place: BufferPlace) {
        self.place = Some(place);
    }

    /// Goes back to short buffers; false if something is still queued.
    pub(super) fn shorten(&mut self) -> bool {
        let is_empty = self.frames.capacity() == self.frames.max_capacity();
        let (Some(place), true) = (self.place.take_if(|_| is_empty), is_empty) else {
            return false;
        };
        // If there is no writing task any more, its buffers are gone.
        let _ = self.frames.try_send(Outbound::Shrink(place));
        true
    }

    pub(super) fn try_turn(&self) -> Result<Turn<'_>, Blocked> {
        let slot = self.frames.try_reserve()?;
        let turn = match self.is_long() {
            true => None,
            false => {
                let turn = Arc::clone(&self.turn).try_acquire_owned();
                Some(turn.map_err(|_| Blocked::Full)?)
            }
        };
        Ok(Turn { slot, turn })
    }

    /// Waits until there may be room again.
    pub(super) async fn freed(&self) {
        if !self.is_long() {
            let _ = self.turn.acquire().await;
        }
        let _ = self.frames.reserve().await;
    }

    /// Waits until the writing task went away.
    pub(super) async fn closed(&self) {
        self.frames.closed().await;
    }
}

/// Memory for long answers: of the budget that all sessions share, and no more of it than fits one.
pub(super) struct UploadRoom {
    /// What answers of this session may hold at a time: one, or several shorter ones. It would wait for itself else, as one of the
    /// others for whom everybody has to hurry.
    own: Arc<Semaphore>,
    state: RoomState,
    /// What is held, by an answer that is to be made, waits to be written, or is being written.
    held: Vec<Weak<FrameRoom>>,
    /// All that the stream below has taken, and what of it was seen.
    written: Arc<AtomicU64>,
    seen: u64,
}

enum RoomState {
    None,
    Waiting(Pin<Box<dyn Future<Output = Result<UploadGrant, StreamError>> + Send>>),
    Granted(UploadGrant),
}

/// Memory for one long answer.
pub(super) struct UploadGrant {
    room: Arc<FrameRoom>,
    _own: OwnedSemaphorePermit,
}

impl UploadRoom {
    /// Of a stream that counts what is `written`.
    pub(super) fn new(written: Arc<AtomicU64>) -> Self {
        Self {
            own: Arc::new(Semaphore::new(LONG_ANSWERS_TOGETHER)),
            state: RoomState::None,
            held: Vec::new(),
            written,
            seen: 0,
        }
    }

    /// Begins to wait for room for the next answer, of `len` bytes, unless it does.
    pub(super) fn wait_for(&mut self, budget: &FrameBudget, len: usize) {
        if matches!(self.state, RoomState::Waiting(_)) {
            return;
        }
        let (budget, own) = (budget.clone(), Arc::clone(&self.own));
        let share = u32::try_from(len.min(LONG_ANSWERS_TOGETHER)).unwrap_or(u32::MAX);
        self.state = RoomState::Waiting(Box::pin(async move {
            let own = own.acquire_many_owned(share).await;
            let own = own.expect("the semaphore is never closed");
            let room = Arc::new(budget.room(len).await?);
            Ok(UploadGrant { room, _own: own })
        }));
    }

    /// Waits for the memory that was asked for, and keeps it for the answer; for ever if none was. Meanwhile sees that what is held
    /// is not held for too long, whatever it waits for: as long as the peer takes something, that moves.
    ///
    /// # Errors
    /// [`StreamError::NoRoom`], or [`StreamError::FrameTimeout`] if something was held for too long.
    pub(super) async fn granted(&mut self) -> Result<(), StreamError> {
        loop {
            let next_check = self.next_check();
            let granted = async {
                match &mut self.state {
                    RoomState::Waiting(waiting) => waiting.await,
                    RoomState::None | RoomState::Granted(_) => std::future::pending().await,
                }
            };
            let granted = match next_check {
                Some(next_check) => timeout_at(next_check, granted).await.ok(),
                None => Some(granted.await),
            };
            self.check()?;
            if let Some(granted) = granted {
                self.state = RoomState::None;
                let granted = granted?;
                self.held.push(Arc::downgrade(&granted.room));
                self.state = RoomState::Granted(granted);
                return Ok(());
            }
        }
    }

    /// Waits for none, and keeps none.
    pub(super) fn give_back(&mut self) {
        self.state = RoomState::None;
    }

    /// What `frame` holds while it is written, if it is longer than `long_len`.
    pub(super) fn take_for(&mut self, frame: &Frame, long_len: usize) -> Option<UploadGrant> {
        if frame.len() <= long_len {
            return None;
        }
        match std::mem::replace(&mut self.state, RoomState::None) {
            RoomState::Granted(granted) => Some(granted),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn next_check(&self) -> Option<Instant> {
        let held = self.held.iter().filter_map(Weak::upgrade);
        held.map(|room| room.next_check()).min()
    }

    /// Whether all that is held may be.
    fn check(&mut self) -> Result<(), StreamError> {
        self.held.retain(|room| room.strong_count() > 0);
        let written = self.written.load(Ordering::Relaxed);
        let moved = written.saturating_sub(std::mem::replace(&mut self.seen, written));
        let mut held = self.held.iter().filter_map(Weak::upgrade);
        held.try_for_each(|room| {
            room.moved(moved);
            room.check()
        })
    }
}

/// Writes frames as they come, flushes when none is waiting, and keeps the stream alive.
async fn write<W: AsyncWrite + Unpin>(
    mut sender: Sender<W>,
    mut frames: mpsc::Receiver<Outbound>,
) -> Result<(), StreamError> {
    let mut is_bulk = false;
    loop {
        let frame = match next_at_hand(&mut frames, is_bulk).await {
            Ok(frame) => Some(frame),
            Err(_) => {
                sender.flush().await?;
                tokio::select! {
                    frame = frames.recv() => frame,
                    ended = sender.keep_alive() => {
                        let never: Infallible = ended?;
                        match never {}
                    }
                }
            }
        };
        match frame {
            Some(Outbound::Frame { frame, room, turn }) => {
                is_bulk = frame.len() > BATCH_LEN_TARGET;
                sender.send(frame.segments()).await?;
                drop(frame);
                if room.is_some() || turn.is_some() {
                    sender.flush().await?;
                }
                drop((room, turn));
            }
            Some(Outbound::Shrink(place)) => {
                sender.flush().await?;
                sender.shrink();
                drop(place);
            }
            None => return sender.close().await,
        }
    }
}

/// The next frame if there is one. With `is_bulk` also if there will be one as soon as the session's task has had its turn:
/// the queue is short, and few long writes cost less than many. That is for messages that fill frames of their own: in a batch
/// of short ones the peer has so much work that it had better begin at once.
async fn next_at_hand(
    frames: &mut mpsc::Receiver<Outbound>,
    is_bulk: bool,
) -> Result<Outbound, TryRecvError> {
    match frames.try_recv() {
        Err(TryRecvError::Empty) if is_bulk => {
            yield_now().await;
            frames.try_recv()
        }
        other => other,
    }
}

/// The writing task. It ends when this is dropped, whatever is still to be written: its half of the stream goes with it.
pub(super) struct Writer(JoinHandle<Result<(), StreamError>>);

impl Writer {
    /// Begins to write what is queued. The session has not ended while the task goes on.
    pub(super) fn spawn<W>(
        sender: Sender<W>,
        queued: mpsc::Receiver<Outbound>,
        end: Arc<End>,
    ) -> Self
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        Self(tokio::spawn(async move {
            let written = write(sender, queued).await;
            drop(end);
            written
        }))
    }

    /// Ends the task soon, whatever it has to write.
    pub(super) fn stop(&self) {
        self.0.abort();
    }

    /// Waits for the task to write what it has, but not for ever.
    pub(super) async fn finish(mut self) -> Result<(), StreamError> {
        match timeout(CLOSE_TIMEOUT, &mut self.0).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) => Ok(()), // the runtime is shutting down
            Err(_) => {
                self.0.abort();
                // Whoever waits for the end may count on the stream being closed.
                (&mut self.0).await.unwrap_or(Ok(()))
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
