//! The stream over any `AsyncRead + AsyncWrite`, on tokio's clock.
//! Knows reads, writes and deadlines. Does not know protocols: those are in the modules without IO.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::BytesMut;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::framer::put_frame;
use crate::{
    Framer, HANDSHAKE_FRAME_LEN_MAX, Handshake, HandshakeResult, Incoming, Outgoing, Receiver,
    Role, StreamError,
};

/// How long a handshake may take, unless [`Options`] say otherwise.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a sender stays silent, unless [`Options`] say otherwise: what Hypercore uses.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a peer may take none of what is written to it, unless [`Options`] say otherwise.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How many bytes a [`Sender`] gathers before it writes by itself; a longer message goes alone.
pub const SEND_BUFFER_LEN: usize = 256 * 1024;

/// Deadlines of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long the peer may take until its header has arrived. Raise it for very slow links.
    pub handshake_timeout: Duration,
    /// After how long without a write [`Sender::keep_alive`] sends an empty message; up to a sixteenth earlier, together
    /// with those of other connections of the process.
    pub keep_alive: Option<Duration>,
    /// After how long the stream fails if the connection takes not a byte of what is to be written: the
    /// peer does not read. None for peers that may pause for long.
    pub write_timeout: Option<Duration>,
    /// After how long without receiving anything the stream fails. None by default: a peer need not send
    /// keepalives. Set it, to a few times their [`KEEP_ALIVE`], for peers that do.
    pub idle_timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            write_timeout: Some(WRITE_TIMEOUT),
            idle_timeout: None,
        }
    }
}

/// An encrypted stream to a peer whose key is known: split it to use it.
///
/// ```
/// # async fn example() -> Result<(), ferrocore_secret_stream::StreamError> {
/// use ferrocore_primitives::sign::KeyPair;
/// use ferrocore_secret_stream::{Options, Role, SecretStream};
///
/// let (ours, theirs) = tokio::io::duplex(1024);
/// let (our_keys, their_keys) = (KeyPair::generate(), KeyPair::generate());
/// let (ours, theirs) = tokio::try_join!(
///     SecretStream::handshake(ours, Role::Initiator, &our_keys, Options::default()),
///     SecretStream::handshake(theirs, Role::Responder, &their_keys, Options::default()),
/// )?;
/// assert_eq!(ours.remote_public_key(), their_keys.public_key());
///
/// let (mut sender, _) = ours.split();
/// let (_, mut receiver) = theirs.split();
/// sender.send(&[b"hello"]).await?;
/// sender.flush().await?;
/// assert_eq!(receiver.recv().await?.unwrap(), "hello");
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(example()).unwrap();
/// ```
pub struct SecretStream<T> {
    io: T,
    keys: HandshakeResult,
    outgoing: Outgoing,
    incoming: Incoming,
    options: Options,
    header_deadline: Instant,
}

impl<T: AsyncRead + AsyncWrite + Unpin> SecretStream<T> {
    /// Agrees on keys with the peer at the other end of `io`.
    ///
    /// Returns when the peer's key is proven. Messages can be sent then, while the peer's header may still
    /// be on its way; [`Receiver::recv`] keeps the deadline for it. Both sides write at most 126 bytes before
    /// they read, which `io` must be able to take up.
    ///
    /// # Errors
    /// [`StreamError`] if the connection fails, the peer does not speak the protocol, or takes longer than
    /// `options.handshake_timeout`.
    pub async fn handshake(
        mut io: T,
        role: Role,
        key_pair: &KeyPair,
        options: Options,
    ) -> Result<Self, StreamError> {
        let header_deadline = Instant::now() + options.handshake_timeout;
        let negotiation = negotiate(&mut io, Handshake::xx(role, key_pair));
        let (keys, outgoing, incoming) = timeout_at(header_deadline, negotiation)
            .await
            .map_err(|_| StreamError::HandshakeTimeout)??;
        Ok(Self {
            io,
            keys,
            outgoing,
            incoming,
            options,
            header_deadline,
        })
    }

    /// Continues with the keys of a handshake that took place elsewhere. `received` is what has been read
    /// from `io` already. Our header is sent with the first message or flush.
    pub fn from_keys(io: T, keys: HandshakeResult, received: &[u8], options: Options) -> Self {
        let mut framer = Framer::new(HANDSHAKE_FRAME_LEN_MAX);
        framer.space().extend_from_slice(received);
        Self {
            io,
            outgoing: Outgoing::new(&keys, Vec::new()),
            incoming: Incoming::new(&keys, framer),
            keys,
            options,
            header_deadline: Instant::now() + options.handshake_timeout,
        }
    }

    /// Sends our header now rather than with the first message: for peers that learn only by it that we are here.
    ///
    /// # Errors
    /// [`StreamError::WriteTimeout`] if the connection does not take it, [`StreamError::Io`] if it failed.
    pub async fn open(&mut self) -> Result<(), StreamError> {
        let stalled_at = self
            .options
            .write_timeout
            .map(|timeout| Instant::now() + timeout);
        while !self.outgoing.pending().is_empty() {
            let n = before(stalled_at, self.io.write(self.outgoing.pending())).await?;
            if n == 0 {
                return Err(StreamError::Io(ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(n);
        }
        before(stalled_at, self.io.flush()).await
    }

    /// The two directions, each for a task of its own if need be.
    ///
    /// They share a lock around `io`. Use [`split_with`](Self::split_with) for streams that can be split
    /// without one, such as a `TcpStream`.
    pub fn split(self) -> (Sender<WriteHalf<T>>, Receiver<ReadHalf<T>>) {
        self.split_with(|io| {
            let (reader, writer) = tokio::io::split(io);
            (writer, reader)
        })
    }
}

impl<T> SecretStream<T> {
    /// The same over what `wrap` makes of the stream below, which must carry the same bytes.
    pub fn map_io<U>(self, wrap: impl FnOnce(T) -> U) -> SecretStream<U> {
        SecretStream {
            io: wrap(self.io),
            keys: self.keys,
            outgoing: self.outgoing,
            incoming: self.incoming,
            options: self.options,
            header_deadline: self.header_deadline,
        }
    }

    /// The two directions over the halves that `split` makes of the stream below, writing half first.
    pub fn split_with<W, R>(self, split: impl FnOnce(T) -> (W, R)) -> (Sender<W>, Receiver<R>) {
        let (writer, reader) = split(self.io);
        let sender = Sender {
            io: writer,
            outgoing: self.outgoing,
            keep_alive: self.options.keep_alive,
            last_write: Instant::now(),
            write_timeout: self.options.write_timeout,
            stalled_since: None,
            written: Arc::default(),
        };
        let (header_deadline, idle_timeout) = (self.header_deadline, self.options.idle_timeout);
        let receiver = Receiver::new(reader, self.incoming, header_deadline, idle_timeout);
        (sender, receiver)
    }

    /// Sets [`Options::idle_timeout`], for who learns only after the handshake what its peer sends.
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.options.idle_timeout = timeout;
    }

    /// The handshake hash: the same on both sides, and of this connection only. Capabilities are keyed by
    /// it.
    pub fn handshake_hash(&self) -> &[u8; 64] {
        &self.keys.hash
    }

    /// The peer's key, which it has proven to own.
    pub fn remote_public_key(&self) -> PublicKey {
        self.keys.remote_public_key
    }

    /// Whether this side wrote the first message.
    pub fn is_initiator(&self) -> bool {
        self.keys.is_initiator
    }
}

/// The sending half.
///
/// Every method may be cancelled: bytes that were encrypted but not written stay for the next call.
pub struct Sender<W> {
    io: W,
    outgoing: Outgoing,
    keep_alive: Option<Duration>,
    last_write: Instant,
    write_timeout: Option<Duration>,
    /// Since when the connection has been offered bytes and taken none. A cancelled write goes on waiting
    /// in the next one.
    stalled_since: Option<Instant>,
    written: Arc<AtomicU64>,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Sends one message, the concatenation of `segments`, as one frame.
    ///
    /// It may stay in the buffer until [`flush`](Self::flush). A full buffer ([`SEND_BUFFER_LEN`]) is
    /// written first; when cancelled meanwhile, this message is not sent.
    ///
    /// # Errors
    /// [`StreamError::MessageTooLong`], [`StreamError::WriteTimeout`], or [`StreamError::Io`] if the
    /// connection failed.
    pub async fn send<S: AsRef<[u8]>>(&mut self, segments: &[S]) -> Result<(), StreamError> {
        if self.outgoing.pending().len() >= SEND_BUFFER_LEN {
            self.write_pending().await?;
        }
        self.outgoing.push(segments)
    }

    /// Writes everything that is still in the buffer.
    ///
    /// # Errors
    /// [`StreamError::WriteTimeout`], or [`StreamError::Io`] if the connection failed.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        self.write_pending().await?;
        let deadline = self.write_deadline();
        before(deadline, self.io.flush()).await?;
        self.stalled_since = None;
        Ok(())
    }

    /// Sends an empty message whenever nothing was written for [`Options::keep_alive`]; ends only with an
    /// error. Wait for it, with `select!`, beside whatever provides the next message.
    ///
    /// # Errors
    /// [`StreamError::WriteTimeout`], or [`StreamError::Io`] if the connection failed.
    pub async fn keep_alive(&mut self) -> Result<Infallible, StreamError> {
        let Some(interval) = self.keep_alive else {
            return pending().await;
        };
        loop {
            sleep_until(in_company(self.last_write + interval, interval)).await;
            // Whatever is pending shows that we are there; an empty message is for having nothing.
            if self.outgoing.pending().is_empty() {
                self.outgoing.push::<&[u8]>(&[])?;
            }
            self.flush().await?;
        }
    }

    /// Counts the bytes that the connection takes.
    pub fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    /// Keeps no memory for what will be sent, if nothing waits to be written.
    pub fn shrink(&mut self) {
        self.outgoing.shrink();
    }

    /// Writes what is left and ends this direction; the peer's receiver ends cleanly.
    ///
    /// # Errors
    /// [`StreamError::WriteTimeout`], or [`StreamError::Io`] if the connection failed.
    pub async fn close(mut self) -> Result<(), StreamError> {
        self.write_pending().await?;
        let deadline = self.write_deadline();
        before(deadline, self.io.shutdown()).await
    }

    /// The writing half of the stream below. What was not written is lost.
    pub fn into_inner(self) -> W {
        self.io
    }

    async fn write_pending(&mut self) -> Result<(), StreamError> {
        while !self.outgoing.pending().is_empty() {
            let deadline = self.write_deadline();
            let n = before(deadline, self.io.write(self.outgoing.pending())).await?;
            if n == 0 {
                return Err(StreamError::Io(ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(n);
            let bytes = u64::try_from(n).unwrap_or(u64::MAX);
            self.written.fetch_add(bytes, Ordering::Relaxed);
            self.last_write = Instant::now();
            self.stalled_since = None;
        }
        Ok(())
    }

    /// When the connection must have taken something of what it is offered from now on.
    fn write_deadline(&mut self) -> Option<Instant> {
        let stalled_since = *self.stalled_since.get_or_insert_with(Instant::now);
        self.write_timeout.map(|timeout| stalled_since + timeout)
    }
}

impl<T> fmt::Debug for SecretStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStream")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl<W> fmt::Debug for Sender<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("outgoing", &self.outgoing)
            .finish_non_exhaustive()
    }
}

/// Runs the handshake and sends our header.
async fn negotiate<T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    mut handshake: Handshake,
) -> Result<(HandshakeResult, Outgoing, Incoming), StreamError> {
    let mut framer = Framer::new(HANDSHAKE_FRAME_LEN_MAX);
    let mut unsent = Vec::new();
    while !handshake.is_finished() {
        if handshake.is_our_turn() {
            put_frame(&mut unsent, &handshake.write(&[])?);
        } else {
            io.write_all(&unsent).await?;
            io.flush().await?;
            unsent.clear();
            handshake.read(&read_frame(io, &mut framer).await?)?;
        }
    }
    let keys = handshake.finish()?;
    // The initiator's last message and the header leave in one write.
    let mut outgoing = Outgoing::new(&keys, unsent);
    io.write_all(outgoing.pending()).await?;
    outgoing.advance(outgoing.pending().len());
    io.flush().await?;
    let incoming = Incoming::new(&keys, framer);
    Ok((keys, outgoing, incoming))
}

async fn read_frame(
    io: &mut (impl AsyncRead + Unpin),
    framer: &mut Framer,
) -> Result<BytesMut, StreamError> {
    loop {
        if let Some(frame) = framer.next_frame()? {
            return Ok(frame);
        }
        if io.read_buf(framer.space()).await? == 0 {
            return Err(StreamError::UnexpectedEnd);
        }
    }
}

/// The latest moment up to `at` at which others send their empty messages too, at most a sixteenth of `interval` before
/// it: a thousand idle connections then wake a process a few times in an interval, and not two thousand times.
fn in_company(at: Instant, interval: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let period = (interval / 16).as_nanos().max(1);
    let since = at.saturating_duration_since(*START).as_nanos();
    let early = u64::try_from(since % period).unwrap_or_default();
    at - Duration::from_nanos(early)
}

/// Waits for a connection to take what is written, until `deadline`.
async fn before<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, StreamError> {
    Ok(match deadline {
        Some(deadline) => timeout_at(deadline, work)
            .await
            .map_err(|_| StreamError::WriteTimeout)??,
        None => work.await?,
    })
}
