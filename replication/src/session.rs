//! A session: replication of a store over one encrypted stream, in a task of its own.
//!
//! | module | noun |
//! |---|---|
//! | `driver` | the task: waits for what happens next |
//! | `inbound` | frames read and not worked on yet |
//! | `desk` | what works on them, on whichever thread |
//! | `aside` | other threads, for what is much |
//! | `trial` | whether that is faster |
//! | `outbound` | frames on their way out, and the task that writes them |
//! | `unoffered` | cores that are to be offered, and how long their readers wait for that |
//!
//! Knows what an owner of a session can ask. Does not know the protocol: that is
//! [`Connection`](crate::connection::Connection).

mod aside;
mod desk;
mod driver;
mod inbound;
mod outbound;
mod trial;
mod unoffered;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::sign::PublicKey;
use ferrocore_secret_stream::{FrameBudgets, SecretStream, StreamError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

pub use self::aside::Helpers;
use self::driver::{Command, Driver, Outlets};
pub use crate::buffers::LongBuffers;
use crate::limits::MISBEHAVIOURS_MAX;
pub use crate::memory::PeersMemory;
use crate::misbehaviour::PeerMisbehaved;
use crate::stats::{SessionReport, Stats};

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
    /// The memory that what peers say shares: that of the process, likewise.
    pub peers_memory: PeersMemory,
    /// The memory that answers share which cannot be stored yet: that of the process, likewise.
    pub answers_memory: PeersMemory,
    /// Places for sessions that hold more than a little of what comes and goes: those of the process, likewise.
    pub long_buffers: LongBuffers,
    /// Threads that verify and commit while a session reads and decrypts: those of the process, unless there is
    /// reason to know better.
    pub helpers: Helpers,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            follow_readers: true,
            frame_budgets: FrameBudgets::process(),
            peers_memory: PeersMemory::process(),
            answers_memory: PeersMemory::process_answers(),
            long_buffers: LongBuffers::process(),
            helpers: Helpers::process(),
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
    long_bytes: Arc<AtomicU64>,
    end: watch::Receiver<Option<Result<(), SessionError>>>,
    task: AbortHandle,
    misbehaved: tokio::sync::Mutex<mpsc::Receiver<Arc<PeerMisbehaved>>>,
    proven: Arc<AtomicBool>,
    remote_public_key: PublicKey,
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
        let ended = Arc::new(ended);
        let (stats, proven) = (Arc::default(), Arc::default());
        let (report, misbehaved) = mpsc::channel(MISBEHAVIOURS_MAX);
        let outlets = Outlets {
            stats: Arc::clone(&stats),
            misbehaved: report,
            proven: Arc::clone(&proven),
            end: Arc::clone(&ended),
        };
        let driver = Driver::new(stream, store, options, received, outlets);
        let long_bytes = driver.long_bytes();
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
            long_bytes,
            end,
            task: task.abort_handle(),
            misbehaved: tokio::sync::Mutex::new(misbehaved),
            proven,
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

    /// Ends the session now, whatever is still to be written. It has let its cores and the stream go once it is
    /// [`closed`](Self::closed), which does not wait for the peer.
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

    /// Whether the peer has shown that it knows the key of some core.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// What the session has carried: all of it once the session has [closed](Self::closed), before
    /// that perhaps without the burst that is being worked on.
    pub fn stats(&self) -> Stats {
        let stats = *self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            long_bytes_received: self.long_bytes.load(Ordering::Relaxed),
            ..stats
        }
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
