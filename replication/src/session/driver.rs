//! The task of a session: waits for whatever happens next and has it worked on.
//!
//! Knows clocks, commands and which of its parts has to move. Does not know the protocol: that is
//! [`Connection`].

use std::future::ready;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ferrocore_log::core::Finding;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_secret_stream::{FrameBudget, MESSAGE_LEN_MAX, SecretStream, StreamError};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::aside::{Helpers, Place};
use super::desk::{Desk, End};
use super::inbound::{Burst, Inbound};
use super::outbound::{Blocked, Outlet, UploadRoom, Writer};
use super::trial::{Trial, Way};
use super::unoffered::{Turn, Unoffered};
use super::{SessionError, SessionOptions};
use crate::buffers::{Bounds, LongBuffers};
use crate::connection::Connection;
use crate::limits::{CLOSE_TIMEOUT, LONG_BUFFERS_IDLE, SHORT_BURST_BYTES, UNPROVEN_FRAME_LEN_MAX};
use crate::misbehaviour::PeerMisbehaved;
use crate::stats::{Rate, SessionReport, Stats};

/// What a session is told to do.
pub(super) enum Command {
    /// The guard keeps readers of the core waiting until it is on the connection.
    Attach(Core, Finding),
    Report(oneshot::Sender<SessionReport>),
    Close,
}

/// Where the task leaves what others want to know.
pub(super) struct Outlets {
    pub(super) stats: Arc<Mutex<Stats>>,
    pub(super) misbehaved: mpsc::Sender<Arc<PeerMisbehaved>>,
    pub(super) proven: Arc<AtomicBool>,
    pub(super) end: Arc<End>,
}

/// The task's state.
pub(super) struct Driver<T> {
    /// Never waited for: who works on it aside is done before it is locked here.
    desk: Arc<Mutex<Desk>>,
    inbound: Inbound<ReadHalf<T>>,
    /// Frames on their way to the writing task, which keeps us reading while the peer does not.
    outlet: Outlet,
    /// Memory for the next long answer.
    room: UploadRoom,
    /// For long frames that are sent, and for those that arrive once the peer has proven something.
    budget: FrameBudget,
    incoming: FrameBudget,
    writer: Writer,
    /// Cores to be offered.
    unoffered: Option<Unoffered>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Notified when a core has news.
    news: Arc<Notify>,
    stats: Arc<Mutex<Stats>>,
    helpers: Helpers,
    /// Whether they are of use.
    trial: Option<Trial>,
    long_buffers: LongBuffers,
    /// When short buffers would not have done.
    needed_long: Instant,
    /// The time that had come when input was there as well, and went first.
    put_off: Option<Time>,
    is_proven: bool,
    proven: Arc<AtomicBool>,
    /// Bytes of blocks sent, and come.
    rates: (Rate, Rate),
    started: Time,
}

/// What the task waited for.
enum Happened {
    Received(Result<Option<Burst>, StreamError>),
    RoomForFrames,
    /// Memory for a long answer.
    Memory(Result<(), StreamError>),
    /// Long buffers may have been of no use for long enough.
    BuffersDue,
    News,
    Timeout,
    Unoffered(Turn),
    Commanded(Option<Command>),
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Driver<T> {
    pub(super) fn new(
        stream: SecretStream<T>,
        store: Corestore,
        options: SessionOptions,
        commands: mpsc::UnboundedReceiver<Command>,
        outlets: Outlets,
    ) -> Self {
        let news = Arc::new(Notify::new());
        let notify = Arc::clone(&news);
        let wake = Arc::new(move || notify.notify_one());
        let mut connection = Connection::new(stream.is_initiator(), *stream.handshake_hash(), wake);
        connection.limit_long_answers();
        connection.take_turns();
        connection.set_bounds(Bounds::SHORT);
        connection.share_memory(&options.peers_memory);
        connection.share_answers(&options.answers_memory);
        let (sender, mut receiver) = stream.split();
        receiver.set_message_len_max(UNPROVEN_FRAME_LEN_MAX);
        receiver.set_frame_budget(options.frame_budgets.unproven);
        let (outlet, queued) = Outlet::new();
        // Before anybody can read from them: a reader without suppliers fails at once.
        let unoffered = options.follow_readers.then(|| Unoffered::new(&store));
        let room = UploadRoom::new(sender.written());
        let writer = Writer::spawn(sender, queued, Arc::clone(&outlets.end));
        let desk = Desk::new(connection, store, outlets.misbehaved, outlets.end);
        let mut driver = Self {
            desk: Arc::new(Mutex::new(desk)),
            inbound: Inbound::new(receiver, Bounds::SHORT),
            outlet,
            room,
            budget: options.frame_budgets.outgoing,
            incoming: options.frame_budgets.incoming,
            writer,
            unoffered,
            commands,
            news,
            stats: outlets.stats,
            trial: options.helpers.are_on_trial().then(Trial::new),
            helpers: options.helpers,
            long_buffers: options.long_buffers,
            needed_long: Instant::now(),
            put_off: None,
            is_proven: false,
            proven: outlets.proven,
            rates: (Rate::new(now()), Rate::new(now())),
            started: now(),
        };
        driver.offer_opened();
        driver
    }

    /// Grows while a long frame arrives.
    pub(super) fn long_bytes(&self) -> Arc<AtomicU64> {
        self.inbound.long_bytes()
    }

    /// Offers cores while there is place for them.
    fn offer_opened(&mut self) {
        while self.has_place() {
            let next = self.unoffered.as_mut().and_then(Unoffered::try_next);
            let Some((core, _finding)) = next else {
                return; // none is left
            };
            self.follow(&core);
        }
    }

    fn has_place(&self) -> bool {
        self.desk().connection.has_place()
    }

    /// Lets those who wait for cores that were not offered go on, or tells them the time.
    fn look_at_unoffered(&mut self) {
        let desk = lock(&self.desk);
        if let Some(unoffered) = &mut self.unoffered {
            unoffered.look(&desk.store, now());
        }
    }

    pub(super) async fn run(mut self) -> Result<(), SessionError> {
        let mut result = self.replicate().await;
        self.unoffered = None; // nothing more is offered
        // Others may wait for the memory.
        self.inbound.abandon();
        self.room.give_back();
        if matches!(&result, Err(SessionError::Stream(error)) if is_stuck(error)) {
            self.writer.stop();
        }
        // What came before the end is worth as much as what came before that.
        if result.is_ok() || matches!(result, Err(SessionError::Stream(_))) {
            result = result.and(self.poll_events());
            while result.is_ok() && self.desk().connection.has_more() {
                yield_now().await;
                result = self.poll_events();
            }
            // It will not answer any more, whatever our own device still has to do.
            self.desk().connection.end_asking();
            // Whoever waits for the end may open the cores again.
            let stored = timeout(CLOSE_TIMEOUT, self.store_all()).await;
            result = result.and(stored.unwrap_or(Ok(())));
        }
        self.publish_stats();
        let Self {
            desk,
            outlet,
            writer,
            ..
        } = self;
        // Claims are free for others before the peer is waited for.
        drop(desk);
        drop(outlet);
        let written = writer.finish().await;
        result.and(written.map_err(SessionError::from))
    }

    /// Waits until what came is on the device.
    async fn store_all(&mut self) -> Result<(), SessionError> {
        while self.desk().connection.backlog().commits > 0 {
            self.news.notified().await;
            self.desk().connection.handle_wake();
            self.poll_events()?;
        }
        Ok(())
    }

    /// Runs until the stream ends or the session is closed.
    async fn replicate(&mut self) -> Result<(), SessionError> {
        loop {
            self.offer_opened();
            self.poll_events()?;
            let output = self.transmit()?;
            if output != Output::WriterEnded && self.desk().connection.has_more() {
                // Whether there is room for more output or not: the peer may wait for us, too.
                yield_now().await;
                continue;
            }
            match output {
                Output::WriterEnded => return Ok(()),
                // What was read asks for more than there was room for until now.
                Output::AllSent if !self.desk().connection.wants_frame() => continue,
                Output::AllSent | Output::WaitsForRoom | Output::WaitsForMemory => {}
            }
            self.publish_stats();
            self.fit_buffers(output);
            match self.next(output).await {
                Happened::Received(burst) => match burst? {
                    Some(burst) => self.receive(burst).await?,
                    None => return Ok(()),
                },
                Happened::News => self.desk().connection.handle_wake(),
                Happened::Timeout => {
                    let (now, arriving) = (now(), self.inbound.arriving(epoch()));
                    let connection = &mut self.desk().connection;
                    connection.note_arriving(arriving);
                    connection.handle_timeout(now);
                }
                Happened::Unoffered(Turn::Offer(core, _finding)) => self.follow(&core),
                Happened::Unoffered(Turn::Look) => self.look_at_unoffered(),
                Happened::Commanded(Some(Command::Attach(core, _finding))) => {
                    self.desk().connection.attach(&core);
                }
                Happened::Commanded(Some(Command::Report(answer))) => {
                    answer.send(self.report()).ok(); // nobody may be waiting any more
                }
                Happened::Commanded(Some(Command::Close) | None) => return Ok(()),
                Happened::RoomForFrames | Happened::BuffersDue => {}
                Happened::Memory(room) => {
                    room?;
                    self.desk().connection.grant_room();
                }
            }
        }
    }

    /// Works on a burst where that is done sooner.
    async fn receive(&mut self, burst: Burst) -> Result<(), SessionError> {
        let len = burst.len;
        match self.place_for(len) {
            Some(place) => self.work_aside(burst, place).await?,
            None => self.work_here(burst)?,
        }
        let now = now();
        if let Some(trial) = &mut self.trial {
            trial.worked(len, now);
        }
        Ok(())
    }

    /// A place aside for work on so many bytes, if it is worth it.
    fn place_for(&self, len: usize) -> Option<Place> {
        let way = self.trial.as_ref().map_or(Way::Aside, Trial::way);
        // A peer that has proven nothing is worth no second burst.
        let is_worth_it = self.is_proven && way == Way::Aside;
        is_worth_it.then(|| self.helpers.place_for(len)).flatten()
    }

    fn work_here(&mut self, burst: Burst) -> Result<(), PeerMisbehaved> {
        let now = now();
        self.desk().work_on(burst.frames, now)
    }

    /// Has a burst worked on aside while the next one is read.
    async fn work_aside(&mut self, burst: Burst, place: Place) -> Result<(), SessionError> {
        let now = now();
        let desk = Arc::clone(&self.desk);
        let mut work = place.spawn(move || lock(&desk).work_on(burst.frames, now));
        let mut overdue = None;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                error = self.inbound.read_ahead(), if overdue.is_none() => overdue = Some(error),
            }
        };
        match done {
            Ok(worked) => worked?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
        overdue.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Answers what the connection asks.
    fn poll_events(&mut self) -> Result<(), SessionError> {
        let now = now();
        let mut desk = lock(&self.desk);
        desk.poll_events(now)?;
        if !self.is_proven && desk.connection.is_proven() {
            self.is_proven = true;
            self.proven.store(true, Ordering::Release);
            self.inbound.set_message_len_max(MESSAGE_LEN_MAX);
            self.inbound.set_frame_budget(self.incoming.clone());
        }
        Ok(())
    }

    /// Hands frames to the writing task, as many as it has room for.
    fn transmit(&mut self) -> Result<Output, PeerMisbehaved> {
        let long_len = self.bounds().long_frame_len;
        let connection = &mut lock(&self.desk).connection;
        loop {
            let turn = match self.outlet.try_turn() {
                Ok(turn) => turn,
                Err(Blocked::Full) => return Ok(Output::WaitsForRoom),
                Err(Blocked::Ended) => return Ok(Output::WriterEnded),
            };
            match connection.poll_transmit()? {
                Some(frame) => {
                    let room = self.room.take_for(&frame, long_len);
                    turn.send(frame, room);
                }
                None => break,
            }
        }
        if let Some(len) = connection.wants_room() {
            self.room.wait_for(&self.budget, len);
            return Ok(Output::WaitsForMemory);
        }
        self.room.give_back(); // its answer turned out short
        connection.revoke_room();
        Ok(Output::AllSent)
    }

    fn bounds(&self) -> Bounds {
        match self.outlet.is_long() {
            true => Bounds::LONG,
            false => Bounds::SHORT,
        }
    }

    /// Takes long buffers if short ones hold it up and there is a place, and gives them back once they are of no use.
    fn fit_buffers(&mut self, output: Output) {
        let is_held_up = output == Output::WaitsForRoom && {
            let backlog = self.desk().connection.backlog();
            backlog.questions > 0 || backlog.bytes >= SHORT_BURST_BYTES
        };
        let is_needed = self.inbound.was_full() || is_held_up;
        let (is_long, is_due) = (self.outlet.is_long(), self.buffers_due() <= Instant::now());
        if is_needed || (is_long && is_due) {
            self.needed_long = Instant::now();
        }
        if is_needed && !is_long && self.is_proven {
            let Some(place) = self.long_buffers.place() else {
                return;
            };
            self.outlet.lengthen(place);
        } else if is_needed
            || !is_long
            || !is_due
            || output != Output::AllSent
            || !self.outlet.shorten()
        {
            return;
        }
        let bounds = self.bounds();
        self.inbound.set_bounds(bounds);
        self.desk().connection.set_bounds(bounds);
    }

    /// When long buffers may have been of no use for long enough.
    fn buffers_due(&self) -> Instant {
        self.needed_long + LONG_BUFFERS_IDLE
    }

    /// The next thing that happened. What came while this task was busy, with our own device say, goes before the time that it may
    /// have been waited for in vain, a burst of it for each such time.
    async fn next(&mut self, output: Output) -> Happened {
        let happened = self.happens(output).await;
        let (due, is_reading) = {
            let connection = &self.desk().connection;
            (connection.next_timeout(), connection.wants_frame())
        };
        let is_time = matches!(happened, Happened::Timeout);
        if !is_time || !is_reading || self.put_off == due {
            return happened;
        }
        self.put_off = due;
        yield_now().await; // so that what is there is known to be
        tokio::select! {
            biased;
            burst = self.inbound.next() => Happened::Received(burst),
            () = ready(()) => happened,
        }
    }

    async fn happens(&mut self, output: Output) -> Happened {
        let (deadline, is_reading) = {
            let connection = &self.desk().connection;
            (connection.next_timeout(), connection.wants_frame())
        };
        let deadline = deadline.map(|time| epoch() + time.saturating_since(Time::ZERO));
        let buffers_due = self.outlet.is_long().then(|| self.buffers_due());
        let has_place = self.has_place();
        tokio::select! {
            burst = next_burst(&mut self.inbound, is_reading) => Happened::Received(burst),
            () = self.outlet.freed(), if output == Output::WaitsForRoom => Happened::RoomForFrames,
            () = self.outlet.closed() => Happened::RoomForFrames,
            room = self.room.granted() => Happened::Memory(room),
            () = sleep_until(buffers_due.unwrap_or_else(epoch)), if buffers_due.is_some() => Happened::BuffersDue,
            () = self.news.notified() => Happened::News,
            command = self.commands.recv() => Happened::Commanded(command),
            turn = next_turn(&mut self.unoffered, has_place) => Happened::Unoffered(turn),
            () = sleep_until(deadline.unwrap_or_else(epoch)), if deadline.is_some() => Happened::Timeout,
        }
    }

    /// Offers a core to the peer unless it is written here: then the peer has to ask. One that lacks blocks
    /// may be read all the same, and a guarded one waits to learn from peers how long it is.
    fn follow(&mut self, core: &Core) {
        let is_whole = core.contiguous_length() == core.length() && !core.is_guarded();
        if !core.is_writable() || !is_whole {
            self.desk().connection.attach(core);
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    fn stats(&self) -> Stats {
        Stats {
            long_bytes_received: self.long_bytes().load(Ordering::Relaxed),
            ..self.desk().connection.stats()
        }
    }

    fn publish_stats(&mut self) {
        let (stats, now) = (self.stats(), now());
        let mut published = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let news = stats - *published;
        *published = stats;
        drop(published);
        self.rates.0.add(news.bytes_uploaded, now);
        self.rates.1.add(news.bytes_downloaded, now);
    }

    fn report(&self) -> SessionReport {
        let now = now();
        SessionReport {
            age: now.saturating_since(self.started),
            stats: self.stats(),
            upload_rate: self.rates.0.per_second(now),
            download_rate: self.rates.1.per_second(now),
            cores: self.desk().connection.core_stats(),
        }
    }
}

/// Where the output of the connection has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// With the writing task, all of it.
    AllSent,
    /// There may be more than the writing task has room for.
    WaitsForRoom,
    /// The next answer is too long to be made without memory from the budget.
    WaitsForMemory,
    /// The writing task went away, and knows why.
    WriterEnded,
}

/// Whether the peer was given up because it held what others wait for, or took nothing: it is not waited for again.
fn is_stuck(error: &StreamError) -> bool {
    matches!(
        error,
        StreamError::FrameTimeout { .. } | StreamError::NoRoom { .. } | StreamError::WriteTimeout
    )
}

/// All sessions of a process go by one clock: those of one core tell it the time.
fn now() -> Time {
    Time::ZERO + epoch().elapsed()
}

/// When its time begins.
fn epoch() -> Instant {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    Instant::from_std(*EPOCH.get_or_init(std::time::Instant::now))
}

/// After a panic on another thread the session panics, too.
fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next frames, if they are to be read; else only the error that it is to hold a frame for too long.
async fn next_burst<R: AsyncRead + Unpin>(
    inbound: &mut Inbound<R>,
    is_reading: bool,
) -> Result<Option<Burst>, StreamError> {
    match is_reading {
        true => inbound.next().await,
        false => Err(inbound.hold().await),
    }
}

/// What there is to do for cores that were not offered; nothing, ever, without them.
async fn next_turn(unoffered: &mut Option<Unoffered>, has_place: bool) -> Turn {
    match unoffered {
        Some(unoffered) => unoffered.next(has_place).await,
        None => std::future::pending().await,
    }
}
