//! A stream in its owner's hands: `AsyncRead + AsyncWrite`, messages, moves between addresses and sockets.
//! Knows wakers. Does not know the protocol, nor how packets travel.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_primitives::time::Time;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::table::Table;
use super::udp::{Inbox, SocketShared, UdxSocket};
use crate::stream::{CloseReason, Stats, Stream, StreamError};

/// A stream of bytes to one peer.
///
/// Dropped after a shutdown it still delivers what was written, in the background; dropped without one it is
/// destroyed, which the peer sees as a reset. Everything but reading and writing is in [`StreamHandle`], which
/// can be cloned.
#[derive(Debug)]
pub struct UdxStream {
    handle: StreamHandle,
}

/// Everything about a stream but its bytes.
#[derive(Debug, Clone)]
pub struct StreamHandle {
    table: Arc<Table>,
    cell: Arc<Cell>,
}

/// Where a packet came from: a socket of this side, and the peer's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    /// The local address of the socket that received it.
    pub local: SocketAddr,
    /// The address it came from.
    pub remote: SocketAddr,
}

/// Where a packet came from that came another way than the stream goes, or before it goes anywhere.
#[derive(Debug)]
struct OtherPath {
    path: Path,
    socket: Weak<SocketShared>,
}

/// A stream, shared by its handles, the table and the drivers of sockets.
#[derive(Debug)]
pub(super) struct Cell {
    state: Mutex<State>,
    /// Stands in some driver's queue.
    is_queued: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) stream: Stream,
    pub(super) socket: Option<Arc<SocketShared>>,
    pub(super) relay_to: Option<Weak<Cell>>,
    /// Connects to whoever sends the first packet, as this id.
    pub(super) listens_as: Option<u32>,
    path: Option<Box<OtherPath>>,
    path_is_new: bool,
    /// Something has come by the present path.
    is_heard: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Those who wait for anything else.
    watchers: Vec<Watcher>,
}

/// A task that waits for the answer to one of the questions of [`Signs`] to change.
#[derive(Debug)]
struct Watcher {
    waker: Waker,
    wanted: u8,
    /// The answers when it was last looked.
    seen: u8,
}

/// What can be waited for, a bit each: most of what happens to a stream is none of a watcher's business.
struct Signs;

impl Signs {
    const CLOSED: u8 = 1;
    const CONNECTED: u8 = 2;
    const MOVING: u8 = 4;
    const OTHER_PATH: u8 = 8;
    const FLUSHED: u8 = 16;
    const MESSAGE: u8 = 32;
    const UNANSWERED: u8 = 64;
    const HEARD: u8 = 128;
}

impl UdxStream {
    pub(super) fn new(table: Arc<Table>, cell: Arc<Cell>) -> Self {
        Self {
            handle: StreamHandle { table, cell },
        }
    }

    /// A handle that outlives this one's reading and writing.
    pub fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }
}

impl Deref for UdxStream {
    type Target = StreamHandle;

    fn deref(&self) -> &StreamHandle {
        &self.handle
    }
}

impl StreamHandle {
    /// Names the peer and the socket to reach it from: its address, and the id that it gave the stream.
    ///
    /// # Errors
    /// [`StreamError::AlreadyConnected`], [`StreamError::BadAddress`], [`StreamError::Closed`].
    pub fn connect(
        &self,
        socket: &UdxSocket,
        remote_id: u32,
        remote: SocketAddr,
    ) -> Result<(), StreamError> {
        socket.check_open()?;
        let now = self.table.now();
        let mut state = self.cell.lock();
        state.stream.connect(now, remote_id, remote)?;
        state.attach(Some(Arc::clone(socket.shared())));
        state.wake_watchers();
        self.submit(state);
        Ok(())
    }

    /// Connects to whoever sends the stream's first packet, over the socket it arrives at; at once, if it is here already.
    /// `remote_id` is the id that the peer gave the stream. Wait with [`connected`](Self::connected).
    pub fn listen(&self, remote_id: u32) {
        let now = self.table.now();
        let mut state = self.cell.lock();
        state.listens_as = Some(remote_id);
        if let Some((socket, from)) = state.first_path() {
            state.take_first(now, &socket, from);
            self.submit(state);
        }
    }

    /// Returns once the stream is connected, with the peer's address.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if it closed before.
    pub async fn connected(&self) -> Result<SocketAddr, StreamError> {
        self.watch(Signs::CONNECTED, |state| {
            if let Some(reason) = state.stream.close_reason() {
                return Some(Err(reason.into()));
            }
            let (address, _) = state.stream.remote()?;
            Some(Ok(address))
        })
        .await
    }

    /// Moves the stream to another address of its peer, or to another socket of this endpoint.
    ///
    /// # Errors
    /// [`StreamError::NotConnected`], [`StreamError::BadAddress`], [`StreamError::Closed`].
    pub fn change_remote(
        &self,
        socket: &UdxSocket,
        remote_id: u32,
        remote: SocketAddr,
    ) -> Result<(), StreamError> {
        socket.check_open()?;
        let mut state = self.cell.lock();
        state.stream.change_remote(remote_id, remote)?;
        state.is_heard = false;
        state.path = None; // whatever comes by another path than this one is news
        state.path_is_new = false;
        state.attach(Some(Arc::clone(socket.shared())));
        self.submit(state);
        Ok(())
    }

    /// Returns once the peer has acked everything that was sent before the last
    /// [`change_remote`](Self::change_remote).
    ///
    /// # Errors
    /// [`StreamError::Closed`] if the stream closed before.
    pub async fn moved(&self) -> Result<(), StreamError> {
        self.watch(Signs::MOVING, |state| match state.stream.close_reason() {
            Some(reason) => Some(Err(reason.into())),
            None => (!state.stream.is_moving()).then_some(Ok(())),
        })
        .await
    }

    /// Returns once a packet has come by the path that the stream went over to last. The peer knows that path then, and sends by it.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if the stream closed before.
    pub async fn heard(&self) -> Result<(), StreamError> {
        self.watch(Signs::HEARD, |state| match state.stream.close_reason() {
            Some(reason) => Some(Err(reason.into())),
            None => state.is_heard.then_some(Ok(())),
        })
        .await
    }

    /// Returns when a packet has come over another path than the stream's present one, and by which. What libudx
    /// calls the firewall hook: a peer that was reached directly, or has moved.
    ///
    /// # Errors
    /// [`StreamError::Closed`] once the stream is closed.
    pub async fn other_path(&self) -> Result<Path, StreamError> {
        self.watch(Signs::OTHER_PATH, |state| {
            if state.path_is_new {
                state.path_is_new = false;
                return state.path.as_ref().map(|other| Ok(other.path.clone()));
            }
            let reason = state.stream.close_reason()?;
            Some(Err(reason.into()))
        })
        .await
    }

    /// Passes every packet of this stream on to the peer of `destination`, with only the id changed. A relay joins
    /// two streams so, each to the other; neither carries anything of its own from then on. When one is reset both
    /// close. A relay whose peers vanish without a word closes only with an
    /// [`idle_timeout`](crate::stream::Config::idle_timeout).
    pub fn relay_to(&self, destination: &Self) {
        self.cell.lock().relay_to = Some(Arc::downgrade(&destination.cell));
    }

    /// Sends a message that may be lost, doubled or late.
    ///
    /// # Errors
    /// [`StreamError::MessageTooLong`], [`StreamError::TooManyMessages`], [`StreamError::NotConnected`],
    /// [`StreamError::Closed`].
    pub fn send_message(&self, message: Bytes) -> Result<(), StreamError> {
        let mut state = self.cell.lock();
        state.stream.send_message(message)?;
        self.submit(state);
        Ok(())
    }

    /// Sends a packet that the peer answers with an ack, whatever else there is to say; either may be lost.
    pub fn send_heartbeat(&self) {
        let mut state = self.cell.lock();
        state.stream.send_heartbeat();
        self.submit(state);
    }

    /// The longest message that fits a datagram on the present path, in bytes.
    pub fn message_len_max(&self) -> usize {
        self.cell.lock().stream.message_max()
    }

    /// The next message.
    ///
    /// # Errors
    /// [`StreamError::Closed`] or [`StreamError::Ended`] once the stream is closed and all were taken.
    pub async fn recv_message(&self) -> Result<Bytes, StreamError> {
        self.watch(Signs::MESSAGE, |state| {
            if let Some(message) = state.stream.read_message() {
                return Some(Ok(message));
            }
            let reason = state.stream.close_reason();
            let over = || Err(reason.map_or(StreamError::Ended, StreamError::Closed));
            state.stream.is_closed().then(over)
        })
        .await
    }

    /// Returns once the peer has acked everything written so far.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if the stream closed before.
    pub async fn acked(&self) -> Result<(), StreamError> {
        self.watch(Signs::FLUSHED, |state| match state.stream.close_reason() {
            Some(reason) => Some(Err(reason.into())),
            None => state.stream.is_flushed().then_some(Ok(())),
        })
        .await
    }

    /// Returns once the stream is over: `None` if both sides have ended it.
    pub async fn closed(&self) -> Option<CloseReason> {
        self.watch(Signs::CLOSED, |state| {
            state
                .stream
                .is_closed()
                .then(|| state.stream.close_reason())
        })
        .await
    }

    /// Returns once it is, or is no longer, so that the peer has acked nothing although some was sent and repeated more
    /// than once. What is unacked is still repeated, and it may come back.
    ///
    /// # Errors
    /// [`StreamError::Closed`] or [`StreamError::Ended`] once the stream is over.
    pub async fn unanswered(&self, is_it: bool) -> Result<(), StreamError> {
        self.watch(Signs::UNANSWERED, |state| {
            if state.stream.is_closed() {
                let reason = state.stream.close_reason();
                return Some(Err(reason.map_or(StreamError::Ended, StreamError::Closed)));
            }
            (state.stream.is_unanswered() == is_it).then_some(Ok(()))
        })
        .await
    }

    /// Drops the stream at once; the peer sees a reset. One that [relays](Self::relay_to) ends without a word, as libudx ends
    /// it: its peers may have found another path. They are told when its socket is closed.
    pub fn destroy(&self) {
        let mut state = self.cell.lock();
        match state.relay_to {
            Some(_) => state.stream.abandon(CloseReason::Destroyed),
            None => state.stream.destroy(),
        }
        state.wake_all();
        self.submit(state);
    }

    /// Sets the interval of heartbeats on an idle stream.
    pub fn set_keepalive(&self, interval: Option<Duration>) {
        let mut state = self.cell.lock();
        state.stream.set_keepalive(interval);
        self.submit(state);
    }

    /// Sets how long the peer may be silent before the stream times out.
    pub fn set_idle_timeout(&self, timeout: Option<Duration>) {
        let mut state = self.cell.lock();
        state.stream.set_idle_timeout(timeout);
        self.submit(state);
    }

    /// Sets how many bytes the peer may be ahead of the reader.
    pub fn set_receive_window(&self, bytes: u32) {
        let mut state = self.cell.lock();
        state.stream.set_receive_window(bytes);
        self.submit(state);
    }

    /// The id that the peer addresses this stream by.
    pub fn local_id(&self) -> u32 {
        self.cell.lock().stream.local_id()
    }

    /// The peer's address and its id for the stream, once connected.
    pub fn remote(&self) -> Option<(SocketAddr, u32)> {
        self.cell.lock().stream.remote()
    }

    /// The local address of the socket that carries the stream.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let state = self.cell.lock();
        state.socket.as_ref().map(|socket| socket.local_addr())
    }

    /// How the stream stands.
    pub fn stats(&self) -> Stats {
        self.cell.lock().stream.stats()
    }

    /// Waits until `look` finds what it wants; it is called after every change of `wanted`, and once the stream is over.
    async fn watch<T>(&self, wanted: u8, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut state = self.cell.lock();
            if let Some(found) = look(&mut state) {
                return Poll::Ready(found);
            }
            state.watch(wanted | Signs::CLOSED, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Hands the stream to the driver of its socket, if it has one, and otherwise looks after it here.
    fn submit(&self, state: MutexGuard<'_, State>) {
        match state.socket.clone() {
            Some(socket) => {
                drop(state);
                self.cell.submit_to(&socket.inbox);
            }
            None if state.stream.is_drained() => {
                let id = state.stream.local_id();
                drop(state);
                self.table.remove(id, &self.cell);
            }
            None => {
                drop(state);
                self.table.keep_time_of(&self.cell);
            }
        }
    }
}

impl AsyncRead for UdxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.handle.cell.lock();
        let room = out.remaining();
        if state.stream.read_with(room, |part| out.put_slice(part)) > 0 {
            if state.stream.wants_to_ack() {
                self.handle.submit(state);
            }
            return Poll::Ready(Ok(()));
        }
        if state.stream.has_ended() {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = state.stream.close_reason() {
            return Poll::Ready(Err(io_error(reason.into())));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for UdxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.handle.cell.lock();
        let written = state.stream.write(data).map_err(io_error)?;
        if written == 0 && !data.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.handle.submit(state);
        Poll::Ready(Ok(written))
    }

    /// Ready at once: what was written leaves by itself. [`StreamHandle::acked`] waits for the peer.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this side, and is ready once the peer has acked everything.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.handle.cell.lock();
        if state.stream.is_finished() {
            return Poll::Ready(Ok(()));
        }
        state.stream.finish().map_err(io_error)?;
        state.writer = Some(cx.waker().clone());
        self.handle.submit(state);
        Poll::Pending
    }
}

impl Drop for UdxStream {
    fn drop(&mut self) {
        let mut state = self.handle.cell.lock();
        if state.relay_to.is_some() {
            return; // a relay lives until its peers are done
        }
        state.stream.release(self.handle.table.now());
        self.handle.submit(state);
    }
}

impl Cell {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            state: Mutex::new(State {
                stream,
                socket: None,
                relay_to: None,
                listens_as: None,
                path: None,
                path_is_new: false,
                is_heard: false,
                reader: None,
                writer: None,
                watchers: Vec::new(),
            }),
            is_queued: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().stream.is_closed()
    }

    /// Puts the stream into the driver's queue, unless it stands in one.
    pub(super) fn submit_to(self: &Arc<Self>, inbox: &Inbox) {
        if self.enqueue() && !inbox.push(Arc::clone(self)) {
            self.dequeued();
        }
    }

    /// True if the stream stood in no queue; the caller puts it into one.
    pub(super) fn enqueue(&self) -> bool {
        !self.is_queued.swap(true, Ordering::AcqRel)
    }

    pub(super) fn dequeued(&self) {
        self.is_queued.store(false, Ordering::Release);
    }
}

impl State {
    /// Moves the stream to another socket, or off all of them.
    pub(super) fn attach(&mut self, socket: Option<Arc<SocketShared>>) {
        if let Some(socket) = &socket {
            socket.streams.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(old) = std::mem::replace(&mut self.socket, socket) {
            old.streams.fetch_sub(1, Ordering::AcqRel);
            old.inbox.wake(); // it may have been the last
        }
    }

    /// Connects a listening stream to the sender of its first packet.
    fn take_first(&mut self, now: Time, socket: &Arc<SocketShared>, from: SocketAddr) {
        if let Some(remote_id) = self.listens_as.take()
            && self.stream.connect(now, remote_id, from).is_ok()
        {
            self.path_is_new = false;
            self.attach(Some(Arc::clone(socket)));
            self.wake_watchers();
        }
    }

    /// Where packets have come from while the stream was not connected: a peer that knows our address may be faster than
    /// whoever tells us of it.
    fn first_path(&self) -> Option<(Arc<SocketShared>, SocketAddr)> {
        let is_connected = self.stream.remote().is_some();
        let other = self.path.as_ref().filter(|_| !is_connected)?;
        Some((other.socket.upgrade()?, other.path.remote))
    }

    /// Connects a listening stream, and notes a packet that came another way than the stream goes.
    pub(super) fn note_path(&mut self, now: Time, socket: &Arc<SocketShared>, from: SocketAddr) {
        self.take_first(now, socket, from);
        let is_present = self
            .stream
            .remote()
            .is_some_and(|(remote, _)| remote == from)
            && self
                .socket
                .as_ref()
                .is_some_and(|present| Arc::ptr_eq(present, socket));
        if is_present {
            let is_first = !std::mem::replace(&mut self.is_heard, true);
            return if is_first {
                self.wake_watchers()
            };
        }
        let path = Path {
            local: socket.local_addr(),
            remote: from,
        };
        if self.path.as_ref().is_none_or(|known| known.path != path) {
            let socket = Arc::downgrade(socket);
            self.path = Some(Box::new(OtherPath { path, socket }));
            self.path_is_new = true;
            self.wake_watchers();
        }
    }

    /// Wakes whoever has something to find.
    pub(super) fn wake(&mut self) {
        if self.stream.is_closed() {
            self.wake_all();
            return;
        }
        if self.stream.is_readable() {
            wake(&mut self.reader);
        }
        if self.stream.is_hungry() || self.stream.is_finished() {
            wake(&mut self.writer);
        }
        self.wake_watchers();
    }

    pub(super) fn wake_all(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
        self.wake_watchers();
    }

    fn wake_watchers(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let signs = self.signs();
        let concerned = |watcher: &mut Watcher| (watcher.seen ^ signs) & watcher.wanted != 0;
        let concerned = self.watchers.extract_if(.., concerned);
        concerned.for_each(|watcher| watcher.waker.wake());
        if self.watchers.is_empty() {
            self.watchers = Vec::new();
        }
    }

    fn watch(&mut self, wanted: u8, waker: &Waker) {
        self.wake_watchers(); // what they have not seen yet must not be taken for seen
        let seen = self.signs();
        let mut watchers = self.watchers.iter_mut();
        match watchers.find(|known| known.waker.will_wake(waker)) {
            Some(known) => (known.wanted, known.seen) = (known.wanted | wanted, seen),
            None => self.watchers.push(Watcher {
                waker: waker.clone(),
                wanted,
                seen,
            }),
        }
    }

    fn signs(&self) -> u8 {
        let stream = &self.stream;
        let signs = [
            (Signs::CLOSED, stream.is_closed()),
            (Signs::CONNECTED, stream.remote().is_some()),
            (Signs::MOVING, stream.is_moving()),
            (Signs::OTHER_PATH, self.path_is_new),
            (Signs::FLUSHED, stream.is_flushed()),
            (Signs::MESSAGE, stream.has_message()),
            (Signs::UNANSWERED, stream.is_unanswered()),
            (Signs::HEARD, self.is_heard),
        ];
        let shown = signs.into_iter().filter(|(_, is_shown)| *is_shown);
        shown.fold(0, |all, (sign, _)| all | sign)
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn io_error(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Closed(CloseReason::ResetByPeer) => io::ErrorKind::ConnectionReset,
        StreamError::Closed(CloseReason::TimedOut) => io::ErrorKind::TimedOut,
        StreamError::Closed(_) => io::ErrorKind::ConnectionAborted,
        StreamError::Ended => io::ErrorKind::BrokenPipe,
        StreamError::NotConnected => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::InvalidInput,
    };
    io::Error::new(kind, error)
}
