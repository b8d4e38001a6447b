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
//! | part of a budget | whose frames | in which order |
//! |---|---|---|
//! | a quarter | up to [`SMALL_FRAME_LEN`]: what honest peers send | as they were begun |
//! | the rest | longer ones | as they were begun |

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

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

/// How often it is looked at what is held. Time beyond twice this in which it was not is our own, and held against nobody.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// While nobody waits room may be held for as long as something moves...
const AT_LEISURE: Tempo = Tempo {
    still: Duration::from_secs(60),
    bytes_a_second: 1024,
};

/// ... and while others wait: whoever stalls goes first.
const HURRIED: Tempo = Tempo {
    still: Duration::from_secs(10),
    bytes_a_second: 64 * 1024,
};

/// A process that limits itself to some rate may move each of its streams at a rate so many times smaller.
const STREAMS_AT_PACE: u64 = 64;

/// The least that has to move.
#[derive(Debug, Clone, Copy)]
struct Tempo {
    /// For so long nothing need move; nor after something did, however much.
    still: Duration,
    /// On average.
    bytes_a_second: u64,
}

impl Tempo {
    /// The same where `pace` bytes a second are the most that all streams move.
    fn at_pace(self, pace: Option<u64>) -> Self {
        let slowest = pace.map_or(u64::MAX, |pace| (pace / STREAMS_AT_PACE).max(1));
        Self {
            bytes_a_second: self.bytes_a_second.min(slowest),
            ..self
        }
    }

    /// How long so many bytes may take.
    fn time_for(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64) + self.still
    }

    /// By when more has to move, if it was `due` before and `bytes` move now.
    fn next_due(&self, due: Instant, bytes: u64, now: Instant) -> Instant {
        let seconds = bytes as f64 / self.bytes_a_second as f64;
        let worth = Duration::try_from_secs_f64(seconds).unwrap_or(WORTH_MAX);
        (due + worth.min(WORTH_MAX)).min(now + self.still)
    }
}

/// More than anything is worth.
const WORTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What one permit of the semaphore stands for, in bytes.
const UNIT: usize = 1024;

const _: () = assert!(
    2 * FRAME_LEN_MAX + UNPROVEN_FRAME_BUDGET <= FRAME_BUDGET / 4 * 3,
    "every frame finds room alone"
);
const _: () = assert!(FRAME_BUDGET / UNIT < u32::MAX as usize);
const _: () = assert!(
    STILL_TIME_MIN.as_millis() > 2 * LOOK_INTERVAL.as_millis(),
    "time in which nobody looked is held against nobody, however many wait"
);

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

/// Those who wait for room.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// Units that are waited for.
    units: usize,
    /// The most of them, but for those that were waited for by who went away, until as many were got: else those who come last
    /// would wait for longer, the fewer are left.
    most: usize,
    /// How many were got since.
    got: usize,
    /// Since when there has been somebody, but for pauses in which nobody could have hurried.
    since: Option<Instant>,
    /// When the last one left.
    left: Option<Instant>,
}

impl Line {
    fn join(&mut self, units: usize, now: Instant) {
        if self.units == 0 && self.left.is_none_or(|left| left + HURRIED.still < now) {
            self.since = Some(now);
        }
        self.units += units;
        if self.units >= self.most {
            (self.most, self.got) = (self.units, 0);
        }
    }

    fn leave(&mut self, units: usize, has_room: bool, now: Instant) {
        self.units -= units;
        match has_room {
            true => self.got += units,
            false => self.most = self.most.saturating_sub(units).max(self.units),
        }
        if self.got >= self.most {
            (self.most, self.got) = (self.units, 0);
        }
        if self.units == 0 {
            self.left = Some(now);
        }
    }
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

/// Counts one who waits, also if it goes away.
struct Waiting<'a> {
    part: &'a Part,
    units: usize,
    has_room: bool,
}

impl<'a> Waiting<'a> {
    fn new(part: &'a Part, units: usize) -> Self {
        part.line().join(units, Instant::now());
        Self {
            part,
            units,
            has_room: false,
        }
    }

    /// It has its room.
    fn end(mut self) {
        self.has_room = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.part.line();
        line.leave(self.units, self.has_room, Instant::now());
    }
}

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
    fn new(
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
    use std::collections::VecDeque;

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

    async fn wait_beside(budget: &FrameBudget) -> tokio::task::JoinHandle<()> {
        let budget = budget.clone();
        let waiting = tokio::spawn(async move { drop(budget.room(1).await) });
        tokio::task::yield_now().await;
        waiting
    }

    /// Moves so many bytes each second; returns after how many seconds the room was to be given back, if it was within `seconds`.
    async fn ends_at(room: &FrameRoom, bytes_a_second: u64, seconds: u64) -> Option<u64> {
        for second in 0..seconds {
            if room.check().is_err() {
                return Some(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            room.moved(bytes_a_second);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_held_for_as_long_as_something_moves() {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        assert_eq!(
            ends_at(&room, AT_LEISURE.bytes_a_second, 10_000).await,
            None
        );
        let still = AT_LEISURE.still.as_secs();
        assert_eq!(ends_at(&room, 0, 1000).await, Some(still));
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_room_has_to_hurry_while_others_wait() {
        let rate = HURRIED.bytes_a_second;
        let still = HURRIED.still.as_secs();
        let cases = [(0, Some(still)), (rate / 2, Some(2 * still)), (rate, None)];
        for (bytes_a_second, ends) in cases {
            let budget = FrameBudget::new(0);
            let room = budget.room(FRAME_LEN_MAX).await.unwrap();
            let waiting = wait_beside(&budget).await;
            assert_eq!(ends_at(&room, bytes_a_second, 1000).await, ends);
            waiting.abort();
            let _ = waiting.await;
            room.check().unwrap();
        }
    }

    /// Goal: nobody is held to what nobody asked of him at the time. Method: a slow one holds room for minutes; then somebody
    /// waits, and it stands still, or goes on, or begins to hurry.
    #[tokio::test(start_paused = true)]
    async fn who_was_slow_before_anybody_waited_has_time_to_hurry() {
        let rate = HURRIED.bytes_a_second;
        let still = HURRIED.still.as_secs();
        for (then, ends) in [(0, Some(still)), (rate / 2, Some(2 * still)), (rate, None)] {
            let budget = FrameBudget::new(0);
            let room = budget.room(FRAME_LEN_MAX).await.unwrap();
            // Somebody else did, long before.
            let waiting = wait_beside(&budget).await;
            waiting.abort();
            waiting.await.unwrap_err();
            assert_eq!(ends_at(&room, AT_LEISURE.bytes_a_second, 150).await, None);
            let _waiting = wait_beside(&budget).await;
            assert_eq!(ends_at(&room, then, 200).await, ends);
        }
    }

    /// Goal: who stands still has the less time the more wait for it, but not on account of those who went away. Method: a crowd
    /// begins to wait, and all but one hang up.
    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_hung_up_hurries_nobody() {
        for (hangs_up, ends) in [(false, 2), (true, HURRIED.still.as_secs())] {
            let budget = FrameBudget::new(0);
            let room = budget.room(FRAME_LEN_MAX).await.unwrap();
            let wait =
                |budget: FrameBudget| async move { budget.room_at_last(FRAME_LEN_MAX).await };
            let crowd: Vec<_> = (0..60)
                .map(|_| tokio::spawn(wait(budget.clone())))
                .collect();
            let _one = wait_beside(&budget).await;
            if hangs_up {
                crowd.iter().for_each(|waiting| waiting.abort());
                for waiting in crowd {
                    waiting.await.unwrap_err();
                }
            }
            assert_eq!(ends_at(&room, 0, 100).await, Some(ends));
        }
    }

    /// Goal: a limit of one's own lets nobody have room for ever while others wait. Method: one that moves what is asked of one of many.
    #[tokio::test(start_paused = true)]
    async fn a_limit_of_ones_own_is_no_reason_to_hold_room_for_ever() {
        const PACE: u64 = 100_000;
        let budget = FrameBudget::new(0).at_pace(PACE);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        let wait = |budget: FrameBudget| async move { budget.room_at_last(FRAME_LEN_MAX).await };
        let _waiting = tokio::spawn(wait(budget.clone()));
        tokio::task::yield_now().await;
        let most = budget.own_time() + HURRIED.time_for(FRAME_LEN_MAX);
        let ends = ends_at(&room, PACE / STREAMS_AT_PACE + 1, 10_000).await;
        assert_eq!(ends, Some(most.as_secs() + 1));
    }

    /// Goal: a crowd hurries those who stand still for as long as it takes to serve it, however long others come one by one after it.
    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_forgotten_though_the_line_never_ends() {
        let budget = FrameBudget::new(0);
        let mut room = budget.room(FRAME_LEN_MAX).await.unwrap();
        let wait = |budget: FrameBudget| async move { budget.room_at_last(FRAME_LEN_MAX).await };
        let mut line: VecDeque<_> = (0..40)
            .map(|_| tokio::spawn(wait(budget.clone())))
            .collect();
        tokio::task::yield_now().await;
        for served in 0..300 {
            if served == 20 {
                let of_crowd = WAIT_TARGET.as_secs() / 40;
                assert_eq!(ends_at(&room, 0, 100).await, Some(of_crowd), "of the crowd");
            }
            tokio::time::advance(Duration::from_millis(2900)).await;
            if served >= 38 {
                line.push_back(tokio::spawn(wait(budget.clone())));
                tokio::task::yield_now().await;
            }
            drop(room);
            room = line.pop_front().unwrap().await.unwrap();
            assert!(budget.is_crowded());
        }
        assert_eq!(ends_at(&room, 0, 100).await, Some(HURRIED.still.as_secs()));
    }

    /// Goal: who stands still has no time for it anew each time somebody begins to wait. Method: the others are served in between,
    /// each after a second, by what is left.
    #[tokio::test(start_paused = true)]
    async fn who_stands_still_is_found_out_though_others_are_served() {
        let budget = FrameBudget::new(0);
        let stalled = budget.room(FRAME_LEN_MAX / 2).await.unwrap();
        for second in 0.. {
            let other = budget.room(FRAME_LEN_MAX / 2).await.unwrap();
            let waiting = wait_beside(&budget).await;
            if stalled.check().is_err() {
                assert_eq!(second, HURRIED.still.as_secs());
                return;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            drop(other);
            waiting.await.unwrap();
            assert!(!budget.is_crowded() && second < 100);
        }
    }

    /// Goal: a crowd of slow ones gets what it waits for, however many they are: who is cut off has moved in vain, and comes again.
    /// Method: forty, of which one at a time has room for minutes.
    #[tokio::test(start_paused = true)]
    async fn a_crowd_gets_done_one_after_the_other() {
        let budget = FrameBudget::new(0);
        let load = |budget: FrameBudget| async move {
            let room = budget.room_at_last(FRAME_LEN_MAX).await;
            let seconds = FRAME_LEN_MAX as u64 / HURRIED.bytes_a_second;
            assert_eq!(ends_at(&room, HURRIED.bytes_a_second, seconds).await, None);
        };
        let crowd: Vec<_> = (0..40)
            .map(|_| tokio::spawn(load(budget.clone())))
            .collect();
        for loading in crowd {
            loading.await.unwrap();
        }
        assert_eq!(budget.held(), 0);
    }

    /// Goal: time in which our own machine stood still is held against nobody, but buys no time to stand still. Method: nobody
    /// looks for a while, and then each second.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_looked_at_is_our_own_time() {
        for unseen in [1, 9, 11, 200] {
            let budget = FrameBudget::new(0);
            let room = budget.room(FRAME_LEN_MAX).await.unwrap();
            let _waiting = wait_beside(&budget).await;
            assert_eq!(ends_at(&room, 0, 5).await, None);
            tokio::time::advance(Duration::from_secs(unseen)).await;
            let ends = ends_at(&room, 0, 100).await.unwrap();
            let left = HURRIED.still.as_secs() - 5;
            let held_against = unseen.min((2 * LOOK_INTERVAL).as_secs());
            assert_eq!(ends, left - held_against, "{unseen} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_moved_at_once_buys_no_time_to_stand_still() {
        let budget = FrameBudget::new(0);
        let room = budget.room(FRAME_LEN_MAX).await.unwrap();
        room.moved(FRAME_LEN_MAX as u64 - 1);
        let _waiting = wait_beside(&budget).await;
        let still = HURRIED.still.as_secs();
        assert_eq!(ends_at(&room, 0, 1000).await, Some(still));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_ones_own_slows_nobody_who_moves_and_excuses_nobody_who_stalls() {
        const PACE: u64 = 100_000;
        for (bytes_a_second, ends) in [(0, Some(HURRIED.still.as_secs())), (PACE / 3, None)] {
            let budget = FrameBudget::new(0).at_pace(PACE);
            let room = budget.room(FRAME_LEN_MAX).await.unwrap();
            let _waiting = wait_beside(&budget).await;
            let seconds = FRAME_LEN_MAX as u64 / PACE + WAIT_TARGET.as_secs();
            assert_eq!(ends_at(&room, bytes_a_second, seconds).await, ends);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let budget = FrameBudget::new(0);
        let _held = budget.room(FRAME_LEN_MAX).await.unwrap();
        let refused = budget.room(1).await.unwrap_err();
        assert!(matches!(refused, StreamError::NoRoom { len: 1 }));
        assert!(!budget.is_crowded());
    }

    /// Goal: a hundred that take room and stall do not keep one who came last waiting for longer than it may; and who
    /// sends less does not wait for them at all.
    #[tokio::test(start_paused = true)]
    async fn many_that_stall_hold_up_nobody_for_long() {
        let budget = FrameBudget::new(FRAME_BUDGET / 2);
        let stall = |budget: FrameBudget| async move {
            let room = budget.room(FRAME_LEN_MAX).await.unwrap();
            while room.check().is_ok() {
                tokio::time::sleep_until(room.next_check()).await;
            }
        };
        let stalling: Vec<_> = (0..100)
            .map(|_| tokio::spawn(stall(budget.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(budget.is_crowded());
        let start = Instant::now();
        drop(budget.room(SMALL_FRAME_LEN).await.unwrap());
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(budget.room(FRAME_LEN_MAX).await.unwrap());
        let waited = start.elapsed();
        assert!(waited <= 2 * WAIT_TARGET, "{waited:?}");
        assert!(2 * WAIT_TARGET < ROOM_TIMEOUT);
        for stalling in stalling {
            stalling.await.unwrap();
        }
    }
}
