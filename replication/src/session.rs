//! The driver: a task that replicates a store over one encrypted stream.
//!
//! Knows sockets, clocks and the store. Does not know the protocol: that is [`Connection`].

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferrocore_log::core::Finding;
use ferrocore_log::corestore::OpenedCores;
use ferrocore_log::{Core, Corestore};
use ferrocore_mux::Frame;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;
use ferrocore_secret_stream::{
    FrameBudget, FrameBudgets, FrameRoom, MESSAGE_LEN_MAX, Receiver, SecretStream, Sender,
    StreamError,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::connection::{Connection, Event};
use crate::limits::{
    BURST_BYTES_MAX, CLOSE_TIMEOUT, FRAMES_QUEUED_MAX, MISBEHAVIOURS_MAX, UNPROVEN_FRAME_LEN_MAX,
    UPLOAD_TOGETHER_BYTES,
};
use crate::misbehaviour::PeerMisbehaved;
use crate::stats::{Rate, SessionReport, Stats};

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Offer the peer every core that is open in the store, now or later, and not written here, or not here
    /// as a whole.
    /// Without it only cores that are [attached](Session::attach), or that the peer asks for, are
    /// replicated.
    pub follow_readers: bool,
    /// The memory that long frames share, in both directions: that of the process unless tests want to see
    /// it run out.
    pub frame_budgets: FrameBudgets,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            follow_readers: true,
            frame_budgets: FrameBudgets::process(),
        }
    }
}

/// Why a session ended before anybody closed it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream failed; connect again.
    #[error(transparent)]
    Stream(Arc<StreamError>),
    /// The peer broke the protocol; others may do better.
    #[error(transparent)]
    Peer(Arc<PeerMisbehaved>),
}

impl From<StreamError> for SessionError {
    fn from(error: StreamError) -> Self {
        Self::Stream(Arc::new(error))
    }
}

impl From<PeerMisbehaved> for SessionError {
    fn from(misbehaved: PeerMisbehaved) -> Self {
        Self::Peer(Arc::new(misbehaved))
    }
}

/// Replication with one peer. Dropping it closes the stream; claims go back to other suppliers.
pub struct Session {
    commands: mpsc::UnboundedSender<Command>,
    stats: Arc<Mutex<Stats>>,
    end: watch::Receiver<Option<Result<(), SessionError>>>,
    task: AbortHandle,
    misbehaved: tokio::sync::Mutex<mpsc::Receiver<Arc<PeerMisbehaved>>>,
    remote_public_key: PublicKey,
}

enum Command {
    /// The guard keeps readers of the core waiting until it is on the connection.
    Attach(Core, Finding),
    Report(oneshot::Sender<SessionReport>),
    Close,
}

impl Session {
    /// Replicates `store` over `stream`, in a task of its own: every core that the peer asks for and can
    /// show the key of, and those that `options` tell.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<T>(stream: SecretStream<T>, store: Corestore, options: SessionOptions) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let remote_public_key = stream.remote_public_key();
        let (commands, received) = mpsc::unbounded_channel();
        let (ended, end) = watch::channel(None);
        let stats = Arc::default();
        let (report, misbehaved) = mpsc::channel(MISBEHAVIOURS_MAX);
        let outlets = Outlets {
            stats: Arc::clone(&stats),
            misbehaved: report,
        };
        let driver = Driver::new(stream, store, options, received, outlets);
        let task = tokio::spawn(async move {
            let result = driver.run().await;
            if let Err(error) = &result {
                tracing::debug!(peer = ?remote_public_key, %error, "a session failed");
            }
            ended.send_replace(Some(result));
        });
        Self {
            commands,
            stats,
            end,
            task: task.abort_handle(),
            misbehaved: tokio::sync::Mutex::new(misbehaved),
            remote_public_key,
        }
    }

    /// Offers `core` to the peer, if it is not on the connection already.
    pub fn attach(&self, core: &Core) {
        // A session that has ended has nobody to offer it to.
        let _ = self
            .commands
            .send(Command::Attach(core.clone(), core.finding()));
    }

    /// Ends the session once what was written has been taken. See [`closed`](Self::closed).
    pub fn close(&self) {
        let _ = self.commands.send(Command::Close);
    }

    /// Ends the session now, whatever is still to be written. It has let its cores go once it is
    /// [`closed`](Self::closed).
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Waits until the session has ended: by [`close`](Self::close), or because the peer ended it.
    ///
    /// # Errors
    /// [`SessionError`] if it failed.
    pub async fn closed(&self) -> Result<(), SessionError> {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()), // aborted, or the runtime went away
        }
    }

    /// Waits as [`closed`](Self::closed) does, and keeps nothing of the session: it may be dropped meanwhile, which ends it.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut end = self.end.clone();
        async move {
            end.wait_for(Option::is_some).await.ok();
        }
    }

    /// The next thing that the peer did wrong without losing the connection, or `None` when the
    /// session has ended. Each is given to one caller; at most [`MISBEHAVIOURS_MAX`] wait.
    pub async fn misbehaved(&self) -> Option<Arc<PeerMisbehaved>> {
        self.misbehaved.lock().await.recv().await
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// What the session has carried: all of it once the session has [closed](Self::closed), before
    /// that perhaps without the burst that is being worked on.
    pub fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it carries just now; `None` once it has ended.
    pub async fn report(&self) -> Option<SessionReport> {
        let (answer, report) = oneshot::channel();
        self.commands.send(Command::Report(answer)).ok()?;
        report.await.ok()
    }

    /// The peer's key, which it has proven to own.
    pub fn remote_public_key(&self) -> PublicKey {
        self.remote_public_key
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("remote_public_key", &self.remote_public_key)
            .finish_non_exhaustive()
    }
}

/// The task's state.
struct Driver<T> {
    connection: Connection,
    receiver: Receiver<ReadHalf<T>>,
    /// Frames on their way to the writing task, which keeps us reading while the peer does not.
    frames: mpsc::Sender<Outbound>,
    /// Memory for the next long answer.
    room: UploadRoom,
    budget: FrameBudget,
    writer: JoinHandle<Result<(), StreamError>>,
    store: Corestore,
    opened: Option<OpenedCores>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Notified when a core has news.
    news: Arc<Notify>,
    outlets: Outlets,
    is_proven: bool,
    /// Bytes of blocks sent, and come.
    rates: (Rate, Rate),
    started: Instant,
}

/// Where the task leaves what others want to know.
struct Outlets {
    stats: Arc<Mutex<Stats>>,
    misbehaved: mpsc::Sender<Arc<PeerMisbehaved>>,
}

/// What the task waited for.
enum Happened {
    Received(Result<Option<Bytes>, StreamError>),
    RoomForFrames,
    /// Memory for a long answer.
    Memory(Result<FrameRoom, StreamError>),
    /// The last frame may have been worked on for too long.
    FrameDue,
    News,
    Timeout,
    Opened(Core),
    Commanded(Option<Command>),
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Driver<T> {
    fn new(
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
        let (sender, mut receiver) = stream.split();
        receiver.set_message_len_max(UNPROVEN_FRAME_LEN_MAX);
        receiver.set_frame_budget(options.frame_budgets.incoming);
        let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
        let mut driver = Self {
            connection,
            receiver,
            frames,
            room: UploadRoom::None,
            budget: options.frame_budgets.outgoing,
            writer: tokio::spawn(write(sender, queued)),
            opened: options.follow_readers.then(|| store.watch_opened()),
            store,
            commands,
            news,
            outlets,
            is_proven: false,
            rates: (Rate::new(Time::ZERO), Rate::new(Time::ZERO)),
            started: Instant::now(),
        };
        // Before anybody can read from them: a reader without suppliers fails at once.
        while let Some(core) = driver.opened.as_mut().and_then(OpenedCores::try_next) {
            driver.follow(&core);
        }
        driver
    }

    async fn run(mut self) -> Result<(), SessionError> {
        let mut result = self.replicate().await;
        // What came before the end is worth as much as what came before that.
        if result.is_ok() || matches!(result, Err(SessionError::Stream(_))) {
            result = result.and(self.poll_events());
            // Whoever waits for the end may open the cores again.
            let stored = timeout(CLOSE_TIMEOUT, self.store_all()).await;
            result = result.and(stored.unwrap_or(Ok(())));
        }
        self.publish_stats();
        let Self {
            connection,
            frames,
            writer,
            ..
        } = self;
        // Claims are free for others before the peer is waited for.
        drop(connection);
        drop(frames);
        let written = finish(writer).await;
        result.and(written.map_err(SessionError::from))
    }

    /// Waits until what came is on the device.
    async fn store_all(&mut self) -> Result<(), SessionError> {
        while self.connection.backlog().commits > 0 {
            self.news.notified().await;
            self.connection.handle_wake();
            self.poll_events()?;
        }
        Ok(())
    }

    /// Runs until the stream ends or the session is closed.
    async fn replicate(&mut self) -> Result<(), SessionError> {
        loop {
            self.poll_events()?;
            let output = self.transmit()?;
            match output {
                Output::WriterEnded => return Ok(()),
                // What was read asks for more than there was room for until now.
                Output::AllSent if !self.connection.wants_frame() => continue,
                Output::AllSent | Output::WaitsForRoom | Output::WaitsForMemory => {}
            }
            self.publish_stats();
            match self.next(output).await {
                Happened::Received(frame) => match frame? {
                    Some(frame) => self.receive(frame).await?,
                    None => return Ok(()),
                },
                Happened::News => self.connection.handle_wake(),
                Happened::Timeout => self.connection.handle_timeout(self.now()),
                Happened::Opened(core) => self.follow(&core),
                Happened::Commanded(Some(Command::Attach(core, _finding))) => {
                    self.connection.attach(&core);
                }
                Happened::Commanded(Some(Command::Report(answer))) => {
                    answer.send(self.report()).ok(); // nobody may be waiting any more
                }
                Happened::Commanded(Some(Command::Close) | None) => return Ok(()),
                Happened::RoomForFrames => {}
                Happened::FrameDue => self.receiver.check_frame()?,
                Happened::Memory(room) => {
                    self.room = UploadRoom::Granted(room?);
                    self.connection.grant_room();
                }
            }
        }
    }

    /// Takes in a frame and those that are there behind it: the more blocks are committed at once, the
    /// fewer writes they cost.
    async fn receive(&mut self, first: Bytes) -> Result<(), SessionError> {
        let mut received = first.len();
        self.connection.handle_frame(first);
        while received < BURST_BYTES_MAX {
            let frame = tokio::select! {
                biased;
                frame = self.receiver.recv() => frame?,
                () = std::future::ready(()) => None,
            };
            let Some(frame) = frame else {
                break; // none is there, or none will come: then it is said again
            };
            received += frame.len();
            self.connection.handle_frame(frame);
        }
        Ok(())
    }

    /// Answers what the connection asks.
    fn poll_events(&mut self) -> Result<(), SessionError> {
        let now = self.now();
        while let Some(Event::CoreWanted {
            offer,
            discovery_key,
            handshake,
        }) = self.connection.poll_event(now)?
        {
            match self.store.get_by_discovery_key(&discovery_key) {
                Ok(Some(core)) => self.connection.accept(offer, &handshake, &core)?,
                Ok(None) => self.connection.reject(offer),
                Err(error) => {
                    tracing::warn!(core = %discovery_key, %error, "cannot open a core that a peer wants");
                    self.connection.reject(offer);
                }
            }
        }
        while let Some(misbehaved) = self.connection.poll_misbehaviour() {
            // If nobody takes them, they were logged at least.
            let _ = self.outlets.misbehaved.try_send(Arc::new(misbehaved));
        }
        if !self.is_proven && self.connection.is_proven() {
            self.is_proven = true;
            self.receiver.set_message_len_max(MESSAGE_LEN_MAX);
        }
        Ok(())
    }

    /// Hands frames to the writing task, as many as it has room for.
    fn transmit(&mut self) -> Result<Output, PeerMisbehaved> {
        loop {
            let permit = match self.frames.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return Ok(Output::WaitsForRoom),
                Err(TrySendError::Closed(())) => return Ok(Output::WriterEnded),
            };
            match self.connection.poll_transmit()? {
                Some(frame) => {
                    let room = self.room.take_for(&frame);
                    permit.send(Outbound { frame, room });
                }
                None => break,
            }
        }
        if let Some(len) = self.connection.wants_room() {
            self.room.wait_for(&self.budget, len);
            return Ok(Output::WaitsForMemory);
        }
        self.room = UploadRoom::None; // its answer turned out short
        self.connection.revoke_room();
        Ok(Output::AllSent)
    }

    async fn next(&mut self, output: Output) -> Happened {
        let deadline = self
            .connection
            .next_timeout()
            .map(|time| self.started + time.saturating_since(Time::ZERO));
        // A frame that cannot be worked off holds memory.
        let is_reading = self.connection.wants_frame();
        let frame_due = self.receiver.frame_deadline().filter(|_| !is_reading);
        tokio::select! {
            frame = self.receiver.recv(), if self.connection.wants_frame() => Happened::Received(frame),
            _ = self.frames.reserve(), if output == Output::WaitsForRoom => Happened::RoomForFrames,
            () = self.frames.closed() => Happened::RoomForFrames,
            room = self.room.granted() => Happened::Memory(room),
            () = sleep_until(frame_due.unwrap_or(self.started)), if frame_due.is_some() => Happened::FrameDue,
            () = self.news.notified() => Happened::News,
            command = self.commands.recv() => Happened::Commanded(command),
            core = next_opened(&mut self.opened) => Happened::Opened(core),
            () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => Happened::Timeout,
        }
    }

    /// Offers a core to the peer unless it is written here: then the peer has to ask. One that lacks blocks
    /// may be read all the same, and a guarded one waits to learn from peers how long it is.
    fn follow(&mut self, core: &Core) {
        let is_whole = core.contiguous_length() == core.length() && !core.is_guarded();
        if !core.is_writable() || !is_whole {
            self.connection.attach(core);
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    fn publish_stats(&mut self) {
        let (stats, now) = (self.connection.stats(), self.now());
        let published = &self.outlets.stats;
        let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
        let news = stats - *published;
        *published = stats;
        drop(published);
        self.rates.0.add(news.bytes_uploaded, now);
        self.rates.1.add(news.bytes_downloaded, now);
    }

    fn report(&self) -> SessionReport {
        let now = self.now();
        SessionReport {
            age: now.saturating_since(Time::ZERO),
            stats: self.connection.stats(),
            upload_rate: self.rates.0.per_second(now),
            download_rate: self.rates.1.per_second(now),
            cores: self.connection.core_stats(),
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

/// A frame on its way to the writing task, and the memory it holds.
struct Outbound {
    frame: Frame,
    room: Option<FrameRoom>,
}

/// Memory for the next long answer.
enum UploadRoom {
    None,
    Waiting(Pin<Box<dyn Future<Output = Result<FrameRoom, StreamError>> + Send>>),
    Granted(FrameRoom),
}

impl UploadRoom {
    fn wait_for(&mut self, budget: &FrameBudget, len: usize) {
        if !matches!(self, Self::Waiting(_)) {
            let budget = budget.clone();
            *self = Self::Waiting(Box::pin(async move { budget.room(len).await }));
        }
    }

    /// Waits for the memory that was asked for; for ever if none was.
    async fn granted(&mut self) -> Result<FrameRoom, StreamError> {
        let Self::Waiting(waiting) = self else {
            return std::future::pending().await;
        };
        let room = waiting.await;
        *self = Self::None;
        room
    }

    /// What `frame` holds while it is written.
    fn take_for(&mut self, frame: &Frame) -> Option<FrameRoom> {
        if frame.len() <= UPLOAD_TOGETHER_BYTES {
            return None;
        }
        match std::mem::replace(self, Self::None) {
            Self::Granted(room) => Some(room),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// The next core to be opened in the store; never without a subscription.
async fn next_opened(opened: &mut Option<OpenedCores>) -> Core {
    let next = match opened {
        Some(opened) => opened.next().await,
        None => None,
    };
    match next {
        Some(core) => core,
        None => std::future::pending().await,
    }
}

/// Writes frames as they come, flushes when none is waiting, and keeps the stream alive.
async fn write<W: AsyncWrite + Unpin>(
    mut sender: Sender<W>,
    mut frames: mpsc::Receiver<Outbound>,
) -> Result<(), StreamError> {
    loop {
        let frame = match frames.try_recv() {
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
            Some(Outbound { frame, room }) => {
                sender.send(frame.segments()).await?;
                drop(frame);
                if let Some(room) = room {
                    flush_within(&mut sender, &room).await?;
                }
            }
            None => return sender.close().await,
        }
    }
}

/// Writes a long frame in the time that it may hold memory for.
async fn flush_within<W: AsyncWrite + Unpin>(
    sender: &mut Sender<W>,
    room: &FrameRoom,
) -> Result<(), StreamError> {
    loop {
        match timeout_at(room.next_check(), sender.flush()).await {
            Ok(flushed) => return flushed,
            Err(_) => room.check()?,
        }
    }
}

/// Waits for the writing task to write what it has, but not for ever.
async fn finish(mut writer: JoinHandle<Result<(), StreamError>>) -> Result<(), StreamError> {
    match timeout(CLOSE_TIMEOUT, &mut writer).await {
        Ok(Ok(written)) => written,
        Ok(Err(_)) => Ok(()), // the runtime is shutting down
        Err(_) => {
            writer.abort();
            Ok(())
        }
    }
}
