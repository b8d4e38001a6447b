//! Memory for long frames, shared by all streams of a process.
//!
//! Knows who holds how much, for how long and whether others wait. Does not know frames.
//!
//! A short frame costs its stream's own buffer. A longer one is taken in only when there is room for the
//! whole of it here: who has to wait is not read from meanwhile. Whoever holds room has to move on, faster while others wait,
//! and may stand still for the less time the more of them do: so many that stall hold up nobody for longer than about
//! [`WAIT_TARGET`]. Who moves on keeps its room till the end, however many wait: what is cut off has moved in vain, and a crowd of
//! which nobody gets done would never end.
//!
//! | module | noun |
//! |---|---|
//! | `line` | those who wait |
//! | `tempo` | how fast whoever holds room has to move |
//! | `room` | room for one frame, and until when it may be held |
//!
//! | part of a budget | whose frames | in which order |
//! |---|---|---|
//! | a quarter | up to [`SMALL_FRAME_LEN`]: what honest peers send | as they were begun |
//! | the rest | longer ones | as they were begun |

mod line;
mod room;
mod tempo;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::line::{Line, Waiting};
pub use self::room::FrameRoom;
use self::tempo::STREAMS_AT_PACE;
use crate::{FRAME_LEN_MAX, StreamError};

/// Bytes of long frames that one process holds at a time, in both directions together.
pub const FRAME_BUDGET: usize = 64 * 1024 * 1024;

/// Frames of up to this many bytes cost no room.
pub const FREE_FRAME_LEN: usize = 128 * 1024;

/// Frames of up to this many bytes do not wait for room behind longer ones.
pub const SMALL_FRAME_LEN: usize = 1024 * 1024;

/// Bytes of long frames of peers that have proven nothing, of all that [`FRAME_BUDGET`] allows.
pub const UNPROVEN_FRAME_BUDGET: usize = 4 * 1024 * 1024;

/// Those who stand still give their room back soon enough that nobody waits for them for longer than about this, as long as
/// [`STILL_TIME_MIN`] each allows it.
pub const WAIT_TARGET: Duration = Duration::from_secs(120);

/// The least time for which whoever holds room may stand still, however many wait. A socket takes bytes in lumps: Linux wakes its
/// writer when a third of the buffer is free, on a line of 250 kB/s each 1.6 seconds.
pub const STILL_TIME_MIN: Duration = Duration::from_secs(2);

/// How long a frame may wait for room.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(300);

/// What one permit of the semaphore stands for, in bytes.
const UNIT: usize = 1024;

const _: () = assert!(
    2 * FRAME_LEN_MAX + UNPROVEN_FRAME_BUDGET <= FRAME_BUDGET / 4 * 3,
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
    /// Of frames that arrive from peers which have proven nothing: whoever has need not wait for them.
    pub unproven: FrameBudget,
}

impl FrameBudgets {
    /// Those of this process, [`FRAME_BUDGET`] in all. Every stream uses them that is not given others.
    pub fn process() -> Self {
        static PROCESS: OnceLock<FrameBudgets> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(FRAME_BUDGET)).clone()
    }

    /// Some of their own, of `bytes` together, but at least one of the longest frames each way, and
    /// [`UNPROVEN_FRAME_BUDGET`].
    pub fn new(bytes: usize) -> Self {
        Self {
            incoming: FrameBudget::new((bytes / 2).saturating_sub(UNPROVEN_FRAME_BUDGET)),
            outgoing: FrameBudget::new(bytes / 2),
            unproven: FrameBudget::of(Part::new(0), Part::new(UNPROVEN_FRAME_BUDGET)),
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.incoming.held() + self.outgoing.held() + self.unproven.held()
    }
}

/// A number of bytes that long frames share. Clones are the same budget.
#[derive(Clone)]
pub struct FrameBudget {
    small: Arc<Part>,
    large: Arc<Part>,
    /// How many bytes a second a process that limits itself moves.
    pace: Option<u64>,
}

/// A part of a budget, for which frames wait in order.
struct Part {
    room: Arc<Semaphore>,
    units: usize,
    line: Mutex<Line>,
}

impl FrameBudget {
    /// One of its own, of `bytes`, of which a quarter is for frames of up to [`SMALL_FRAME_LEN`]; but of at least one of
    /// the longest frames, and if that is all, small ones wait in line with it.
    pub fn new(bytes: usize) -> Self {
        let small = match bytes > FRAME_LEN_MAX {
            true => bytes / 4,
            false => 0,
        };
        Self::of(
            Part::new(small),
            Part::new((bytes - small).max(FRAME_LEN_MAX)),
        )
    }

    fn of(small: Part, large: Part) -> Self {
        let (small, large) = (Arc::new(small), Arc::new(large));
        let pace = None;
        Self { small, large, pace }
    }

    /// The same budget, of a process that moves no more than so many bytes a second by its own choice: nobody is slow for that.
    pub fn at_pace(self, bytes_a_second: u64) -> Self {
        let pace = Some(bytes_a_second.max(1));
        Self { pace, ..self }
    }

    /// For how long one of many streams of a process that limits itself may stand still on account of that, and a little more.
    fn still_min(&self) -> Duration {
        let turn = self.pace.map(|pace| {
            Duration::from_secs_f64((2 * STREAMS_AT_PACE * UNIT as u64) as f64 / pace as f64)
        });
        turn.unwrap_or_default().max(STILL_TIME_MIN)
    }

    /// How long a process that limits itself takes to move all of it.
    fn own_time(&self) -> Duration {
        let bytes = (self.small.units + self.large.units) * UNIT;
        let seconds = |pace: u64| Duration::from_secs_f64(bytes as f64 / pace as f64);
        self.pace.map_or(Duration::ZERO, seconds)
    }

    /// Waits for room for `len` bytes.
    ///
    /// # Errors
    /// [`StreamError::NoRoom`] after [`ROOM_TIMEOUT`], or as much later as the [pace](Self::at_pace) of the process asks for.
    pub async fn room(&self, len: usize) -> Result<FrameRoom, StreamError> {
        let room = timeout(ROOM_TIMEOUT + self.own_time(), self.room_at_last(len));
        room.await.map_err(|_| StreamError::NoRoom { len })
    }

    /// The same without an end.
    async fn room_at_last(&self, len: usize) -> FrameRoom {
        let part = self.part_for(len);
        let units = len.div_ceil(UNIT).min(part.units);
        let count = u32::try_from(units).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&part.room).try_acquire_many_owned(count) {
            return FrameRoom::new(self, part, len, permit);
        }
        let waiting = Waiting::new(part, units);
        let permit = Arc::clone(&part.room).acquire_many_owned(count).await;
        let permit = permit.expect("the semaphore is never closed");
        waiting.end();
        FrameRoom::new(self, part, len, permit)
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.small.held() + self.large.held()
    }

    /// Whether somebody waits for room.
    pub fn is_crowded(&self) -> bool {
        self.small.line().units + self.large.line().units > 0
    }

    fn part_for(&self, len: usize) -> &Arc<Part> {
        match len <= SMALL_FRAME_LEN && self.small.units > 0 {
            true => &self.small,
            false => &self.large,
        }
    }
}

impl Part {
    fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT);
        Self {
            room: Arc::new(Semaphore::new(units)),
            units,
            line: Mutex::default(),
        }
    }

    fn held(&self) -> usize {
        (self.units - self.room.available_permits()) * UNIT
    }

    // A panic leaves numbers that say what they said.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long each may stand still for all who wait to have their room within [`WAIT_TARGET`] if all do.
    fn still_time(&self, line: Line) -> Duration {
        let rounds = line.most as f64 / self.units.max(1) as f64;
        WAIT_TARGET.div_f64(rounds.max(1.0))
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

#[cfg(test)]
mod tests;
