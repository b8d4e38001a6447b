//! Room for one frame, and until when it may be held.
//!
//! Knows what has moved, and who waits. Does not know what the frame holds.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::tempo::{AT_LEISURE, HURRIED, Tempo};
use super::{FrameBudget, Part, STILL_TIME_MIN};
use crate::StreamError;

/// How often it is looked at what is held. Time beyond twice this in which it was not is our own, and held against nobody.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const _: () = assert!(
    STILL_TIME_MIN.as_millis() > 2 * LOOK_INTERVAL.as_millis(),
    "time in which nobody looked is held against nobody, however many wait"
);

/// Room for one frame, given back when dropped.
pub struct FrameRoom {
    part: Arc<Part>,
    len: usize,
    at_leisure: Tempo,
    hurried: Tempo,
    /// For so long whoever holds it may stand still, however many wait.
    still_min: Duration,
    /// Until when it may be held, however much moves: where a limit of our own is what is slow there is another end.
    until: Option<Instant>,
    due: Mutex<Due>,
    _permit: OwnedSemaphorePermit,
}

/// By when more has to move.
#[derive(Debug, Clone, Copy)]
struct Due {
    at_leisure: Instant,
    hurried: Instant,
    /// Up to when it was looked at.
    looked: Instant,
}

impl Due {
    fn from_now(at_leisure: Tempo, hurried: Tempo) -> Self {
        let now = Instant::now();
        Self {
            at_leisure: now + at_leisure.still,
            hurried: now + hurried.still,
            looked: now,
        }
    }
}

impl FrameRoom {
    pub(super) fn new(
        budget: &FrameBudget,
        part: &Arc<Part>,
        len: usize,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let [at_leisure, hurried] = [AT_LEISURE, HURRIED].map(|tempo| tempo.at_pace(budget.pace));
        Self {
            part: Arc::clone(part),
            len,
            at_leisure,
            hurried,
            still_min: hurried.still.min(budget.still_min()),
            until: budget
                .pace
                .map(|_| Instant::now() + budget.own_time() + HURRIED.time_for(len)),
            due: Mutex::new(Due::from_now(at_leisure, hurried)),
            _permit: permit,
        }
    }

    /// Says that so many more bytes of the frame have moved, or of what stands before it.
    pub fn moved(&self, bytes: u64) {
        let now = Instant::now();
        let mut due = self.look(now);
        due.at_leisure = self.at_leisure.next_due(due.at_leisure, bytes, now);
        due.hurried = self.hurried.next_due(due.hurried, bytes, now);
    }

    /// Says that all of the frame has moved, and that it is to be worked off.
    pub fn begin_work(&self) {
        *self.due() = Due::from_now(self.at_leisure, self.hurried);
    }

    /// When [`check`](Self::check) is to be called next, at the latest. What is called later takes the time for its own.
    pub fn next_check(&self) -> Instant {
        let now = Instant::now();
        let deadline = self.deadline(*self.look(now));
        (now + LOOK_INTERVAL).min(deadline) // others may come
    }

    /// Whether the room may still be held.
    ///
    /// # Errors
    /// [`StreamError::FrameTimeout`] if it is to be given back, with the stream.
    pub fn check(&self) -> Result<(), StreamError> {
        let now = Instant::now();
        let due = *self.look(now);
        match now < self.deadline(due) {
            true => Ok(()),
            false => Err(StreamError::FrameTimeout { len: self.len }),
        }
    }

    /// Puts off what is due by the time in which we did not look, be it that our own device or machine stood still; and, if somebody
    /// began to wait, until after that: nobody had to hurry before.
    fn look(&self, now: Instant) -> MutexGuard<'_, Due> {
        let since = self.part.line().since;
        let mut due = self.due();
        let unseen = now.saturating_duration_since(due.looked);
        let unseen = unseen.saturating_sub(2 * LOOK_INTERVAL);
        due.looked = now;
        let put_off = |due: Instant, tempo: Tempo| {
            let later = due + unseen;
            later.min(now + tempo.still).max(due)
        };
        due.at_leisure = put_off(due.at_leisure, self.at_leisure);
        due.hurried = put_off(due.hurried, self.hurried);
        if let Some(since) = since {
            due.hurried = due.hurried.max(since + self.hurried.still);
        }
        due
    }

    /// The deadline while as many others wait as do now.
    fn deadline(&self, due: Due) -> Instant {
        let line = *self.part.line();
        if line.units == 0 {
            return due.at_leisure;
        }
        let fair = self.part.still_time(line);
        let still = fair.clamp(self.still_min, self.hurried.still);
        let deadline = due.hurried - (self.hurried.still - still);
        match self.until {
            None => deadline,
            Some(until) => {
                let asked_for = line.since.map_or(until, |since| since + still);
                deadline.min(until.max(asked_for))
            }
        }
    }

    // A panic leaves times, all of them right.
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FrameRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameRoom")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
