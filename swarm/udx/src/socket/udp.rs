//! One UDP socket: its options, plain datagrams, and the queue of streams that have something to send.
//! Knows the operating system's socket. Does not know streams' contents.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Waker;

use bytes::Bytes;
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::datagrams::Datagrams;
use super::driver::Driver;
use super::fragments;
use super::handle::Cell;
use super::table::Table;
use crate::stream::CloseReason;

/// A UDP socket of an endpoint. Clones are the same socket; it closes when the last of them and the last stream on
/// it are gone.
#[derive(Debug, Clone)]
pub struct UdxSocket {
    pub(super) owner: Arc<Owner>,
}

/// A datagram that is no packet of a known stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// What it holds.
    pub data: Bytes,
    /// Who sent it.
    pub from: SocketAddr,
}

/// Counts since the socket was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketStats {
    /// Datagrams received, for streams and others.
    pub datagrams_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Datagrams dropped because nobody took them in time, or because they are too long.
    pub datagrams_dropped: u64,
    /// Calls of the operating system that received something. Where it has receive offload (GRO, and `recvmmsg`),
    /// far fewer than datagrams.
    pub receives: u64,
    /// Calls of the operating system that sent something; fewer than datagrams with segmentation offload (GSO).
    pub sends: u64,
}

/// What the handles share: dropping the last one lets the socket close.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) shared: Arc<SocketShared>,
    datagrams: Arc<Datagrams>,
}

/// What handles, streams and the driver share.
#[derive(Debug)]
pub(super) struct SocketShared {
    pub(super) table: Arc<Table>,
    pub(super) io: UdpSocket,
    pub(super) state: UdpSocketState,
    local: SocketAddr,
    ttl: AtomicU32,
    /// Held for writing while another time to live is set, or fragments are allowed.
    sending: RwLock<()>,
    pub(super) inbox: Arc<Inbox>,
    /// Streams whose packets leave here.
    pub(super) streams: AtomicU64,
    /// False once the last handle is dropped.
    pub(super) has_owner: AtomicBool,
    /// Closed when the driver has ended; no permit is ever given.
    pub(super) closed: Arc<Semaphore>,
    pub(super) counters: Counters,
}

/// Where streams say that they have something to do. Apart from the socket, so that the endpoint can know it
/// without keeping the socket's port in use.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    is_closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    streams: Vec<Arc<Cell>>,
    waker: Option<Waker>,
    /// Nobody will take anything any more.
    is_over: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) datagrams_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    datagrams_sent: AtomicU64,
    bytes_sent: AtomicU64,
    pub(super) datagrams_dropped: AtomicU64,
    pub(super) receives: AtomicU64,
    sends: AtomicU64,
}

impl UdxSocket {
    pub(super) fn bind(table: Arc<Table>, address: SocketAddr) -> io::Result<Self> {
        let io = open(address)?;
        let local = io.local_addr()?;
        let state = UdpSocketState::new((&io).into())?;
        let datagrams = Arc::<Datagrams>::default();
        let shared = Arc::new(SocketShared {
            table,
            io,
            state,
            local,
            ttl: AtomicU32::new(TTL_DEFAULT),
            sending: RwLock::new(()),
            inbox: Arc::default(),
            streams: AtomicU64::new(0),
            has_owner: AtomicBool::new(true),
            closed: Arc::new(Semaphore::new(0)),
            counters: Counters::default(),
        });
        tokio::spawn(Driver::new(Arc::clone(&shared), Arc::clone(&datagrams)));
        shared.table.add_socket(&shared.inbox);
        Ok(Self {
            owner: Arc::new(Owner { shared, datagrams }),
        })
    }

    /// The address and port the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local
    }

    /// Sends a plain datagram. `ttl` is the number of hops it may take, `None` the socket's: a small one opens a
    /// NAT without reaching the other side.
    ///
    /// # Errors
    /// What the operating system says; the datagram may be too large for the path, the host unreachable.
    pub async fn send_to(&self, data: &[u8], to: SocketAddr, ttl: Option<u32>) -> io::Result<()> {
        loop {
            match self.try_send_to(data, to, ttl) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shared().io.writable().await?;
                }
                result => return result,
            }
        }
    }

    /// [`send_to`](Self::send_to) without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if the socket's buffer is full: drop the datagram or try again.
    pub fn try_send_to(&self, data: &[u8], to: SocketAddr, ttl: Option<u32>) -> io::Result<()> {
        match ttl {
            None => self.shared().send(data, to, None),
            Some(ttl) => self.shared().send_with_ttl(data, to, ttl),
        }
    }

    /// The next datagram that is no packet of a known stream.
    ///
    /// At most [`DATAGRAMS_MAX`](crate::limits::DATAGRAMS_MAX) wait; later ones are dropped, and so are those longer than
    /// [`DATAGRAM_LEN_MAX`](crate::limits::DATAGRAM_LEN_MAX).
    ///
    /// # Errors
    /// `NotConnected` once the socket is closed.
    pub async fn recv_from(&self) -> io::Result<Datagram> {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the socket is closed");
        self.owner.datagrams.next().await.ok_or_else(closed)
    }

    /// Sets the number of hops of everything sent, 64 by default.
    ///
    /// # Errors
    /// What the operating system says of values outside of 1 to 255.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let shared = self.shared();
        let _alone = shared
            .sending
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shared.set_ttl(ttl)?;
        shared.ttl.store(ttl, Ordering::Relaxed);
        Ok(())
    }

    /// How many datagrams one call of the operating system takes: 1 without segmentation offload (GSO).
    pub fn segments_max(&self) -> usize {
        self.shared().segments_max()
    }

    /// Counts since the socket was bound.
    pub fn stats(&self) -> SocketStats {
        let counters = &self.shared().counters;
        SocketStats {
            datagrams_received: counters.datagrams_received.load(Ordering::Relaxed),
            bytes_received: counters.bytes_received.load(Ordering::Relaxed),
            datagrams_sent: counters.datagrams_sent.load(Ordering::Relaxed),
            bytes_sent: counters.bytes_sent.load(Ordering::Relaxed),
            datagrams_dropped: counters.datagrams_dropped.load(Ordering::Relaxed),
            receives: counters.receives.load(Ordering::Relaxed),
            sends: counters.sends.load(Ordering::Relaxed),
        }
    }

    /// True if both are the same socket.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.shared(), other.shared())
    }

    /// Destroys the streams on the socket and closes it. The port is free once this returns and other clones of
    /// the socket are dropped.
    pub async fn close(self) {
        let shared = self.shared();
        shared.inbox.close();
        let closed = Arc::clone(&shared.closed);
        drop(self);
        let _ = closed.acquire().await; // never granted: an error tells that the driver has ended
    }

    /// Whether it was not closed, and has not failed.
    pub fn is_open(&self) -> bool {
        let shared = self.shared();
        shared.inbox.is_open() && !shared.closed.is_closed()
    }

    /// A closed socket's clones carry no streams.
    pub(super) fn check_open(&self) -> Result<(), CloseReason> {
        match self.shared().inbox.is_open() {
            true => Ok(()),
            false => Err(CloseReason::SocketClosed),
        }
    }

    pub(super) fn shared(&self) -> &Arc<SocketShared> {
        &self.owner.shared
    }
}

impl SocketShared {
    /// Sends datagrams of `segment` bytes each, or one, without waiting.
    pub(super) fn send(
        &self,
        contents: &[u8],
        to: SocketAddr,
        segment: Option<usize>,
    ) -> io::Result<()> {
        let _shared = self.sending.read().unwrap_or_else(PoisonError::into_inner);
        self.send_now(contents, to, segment)
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Largest number of datagrams that [`send`](Self::send) takes at once.
    pub(super) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    fn send_with_ttl(&self, contents: &[u8], to: SocketAddr, ttl: u32) -> io::Result<()> {
        let _alone = self.sending.write().unwrap_or_else(PoisonError::into_inner);
        self.set_ttl(ttl)?;
        let sent = self.send_now(contents, to, None);
        self.set_ttl(self.ttl.load(Ordering::Relaxed))?;
        sent
    }

    /// Sends one datagram that routers, and this system, may cut into fragments. Where the system has no way to say so it goes whole.
    pub(super) fn send_in_fragments(&self, contents: &[u8], to: SocketAddr) -> io::Result<()> {
        let _alone = self.sending.write().unwrap_or_else(PoisonError::into_inner);
        fragments::allow(&self.io, self.local.is_ipv6());
        let sent = self.send_now(contents, to, None);
        fragments::forbid(&self.io, self.local.is_ipv6());
        sent
    }

    fn send_now(&self, contents: &[u8], to: SocketAddr, segment: Option<usize>) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: self.wire_address(to),
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };
        let send = || self.state.try_send((&self.io).into(), &transmit);
        // The runtime takes a fresh socket for full until it has looked at it for the first time.
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.try_io(Interest::WRITABLE, send)?;
            }
            sent => sent?,
        }
        let datagrams = segment.map_or(1, |segment| contents.len().div_ceil(segment.max(1)));
        let counters = &self.counters;
        counters.sends.fetch_add(1, Ordering::Relaxed);
        counters
            .datagrams_sent
            .fetch_add(datagrams as u64, Ordering::Relaxed);
        counters
            .bytes_sent
            .fetch_add(contents.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.io);
        if self.local.is_ipv6() {
            socket.set_unicast_hops_v6(ttl)?;
            // Not every platform lets an IPv6 socket set this; there IPv4 keeps the default.
            let _ = socket.set_ttl_v4(ttl);
            return Ok(());
        }
        socket.set_ttl_v4(ttl)
    }

    /// An IPv6 socket reaches IPv4 by mapped addresses.
    fn wire_address(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.local.is_ipv6() => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), to.port())
            }
            _ => to,
        }
    }
}

impl Inbox {
    /// Says that `cell` has something to do here, and wakes the driver. False if there is none any more.
    pub(super) fn push(&self, cell: Arc<Cell>) -> bool {
        let waker = {
            let mut waiting = self.lock();
            if waiting.is_over {
                return false;
            }
            waiting.streams.push(cell);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The driver is gone: what still waits, which is the last.
    pub(super) fn finish(&self) -> Vec<Arc<Cell>> {
        self.is_closing.store(true, Ordering::Release);
        let mut waiting = self.lock();
        waiting.is_over = true;
        std::mem::take(&mut waiting.streams)
    }

    /// Wakes the driver.
    pub(super) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the streams that have something to do, and leaves `waker` for the next.
    pub(super) fn take(&self, waker: &Waker, into: &mut impl Extend<Arc<Cell>>) {
        let mut waiting = self.lock();
        into.extend(waiting.streams.drain(..));
        let is_known = waiting.waker.as_ref();
        if !is_known.is_some_and(|old| old.will_wake(waker)) {
            waiting.waker = Some(waker.clone());
        }
    }

    /// Tells the driver to end.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.wake();
    }

    /// False once the socket is closed or about to be.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closing.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.datagrams.forget();
        self.shared.has_owner.store(false, Ordering::Release);
        self.shared.inbox.wake();
    }
}

const TTL_DEFAULT: u32 = 64;

/// The operating system may grant less.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
const SEND_BUFFER: usize = 1024 * 1024;

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // A smaller buffer works too.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
