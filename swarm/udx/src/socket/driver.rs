//! The task of one socket: receives, hands packets to their streams, sends what streams have, keeps their time.
//! Knows who gets which datagram. Does not know what is in it.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_primitives::time::Time;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

use super::buffers::{self, Bunch};
use super::datagrams::Datagrams;
use super::handle::Cell;
use super::timers::TimerQueue;
use super::udp::{Datagram, SocketShared};
use crate::limits::DATAGRAM_LEN_MAX;
use crate::packet::{Header, Kinds, Packet, readdress};
use crate::stream::{CloseReason, Transmit};

/// The state of the task.
pub(super) struct Driver {
    shared: Arc<SocketShared>,
    datagrams: Arc<Datagrams>,
    queue: VecDeque<Arc<Cell>>,
    timers: TimerQueue,
    sleep: Pin<Box<Sleep>>,
    /// Datagrams that the operating system had no room for.
    unsent: Option<Transmit>,
    out: Vec<u8>,
    receive_errors: u32,
    /// Dropped after everything else.
    _closed: CloseOnDrop,
}

struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Driver {
    /// Streams that stand in line here but have moved on stand in line there; and another socket goes on keeping
    /// the time of those that no socket carries yet.
    fn drop(&mut self) {
        let inbox = &self.shared.inbox;
        for cell in inbox.finish().into_iter().chain(self.queue.drain(..)) {
            cell.dequeued();
            let socket = cell.lock().socket.clone();
            if let Some(socket) = socket {
                cell.submit_to(&socket.inbox);
            }
        }
        self.shared.table.remove_socket(inbox);
        self.datagrams.finish();
    }
}

impl Driver {
    pub(super) fn new(shared: Arc<SocketShared>, datagrams: Arc<Datagrams>) -> Self {
        Self {
            datagrams,
            queue: VecDeque::new(),
            timers: TimerQueue::default(),
            sleep: Box::pin(sleep_until(Instant::now())),
            unsent: None,
            out: Vec::new(),
            receive_errors: 0,
            _closed: CloseOnDrop(Arc::clone(&shared.closed)),
            shared,
        }
    }

    /// Receives once. True if there may be more.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, io::Error> {
        let shared = Arc::clone(&self.shared);
        match shared.io.poll_recv_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready?,
        }
        let now = shared.table.now();
        match buffers::receive(&shared.io, &shared.state, |bunch| {
            self.handle_bunch(now, bunch)
        }) {
            Ok(_) => {
                shared.counters.receives.fetch_add(1, Ordering::Relaxed);
                self.receive_errors = 0;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            // What an ICMP message said of a datagram sent earlier; it is no news of the socket.
            Err(error) if self.receive_errors < RECEIVE_ERRORS_MAX => {
                tracing::trace!(%error, "receive");
                self.receive_errors += 1;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn handle_bunch(&mut self, now: Time, bunch: Bunch<'_>) {
        let Bunch {
            from,
            stride,
            bytes,
        } = bunch;
        let counters = &self.shared.counters;
        let datagrams = bytes.len().div_ceil(stride) as u64;
        counters
            .datagrams_received
            .fetch_add(datagrams, Ordering::Relaxed);
        counters
            .bytes_received
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut last: Option<(u32, Arc<Cell>)> = None;
        for datagram in bytes.chunks_mut(stride) {
            let Some(id) = Header::parse(datagram).map(|header| header.stream_id) else {
                self.deliver(datagram, from);
                continue;
            };
            if last.as_ref().is_none_or(|&(last, _)| last != id) {
                last = self.shared.table.get(id).map(|cell| (id, cell));
            }
            match &last {
                Some((_, cell)) => self.handle_packet(now, &Arc::clone(cell), datagram, from),
                None => self.deliver(datagram, from),
            }
        }
    }

    /// Hands a packet to its stream, or passes it on if that is relayed.
    fn handle_packet(
        &mut self,
        now: Time,
        cell: &Arc<Cell>,
        datagram: &mut [u8],
        from: SocketAddr,
    ) {
        let mut state = cell.lock();
        if state.stream.is_drained() {
            return;
        }
        state.note_path(now, &self.shared, from);
        if let Some(destination) = state.relay_to.clone() {
            state.stream.note_relayed(now, datagram.len());
            drop(state);
            match destination.upgrade() {
                Some(destination) => self.relay(cell, &destination, datagram),
                None => self.end_relay(cell),
            }
            return;
        }
        if let Some(packet) = Packet::parse(datagram) {
            state.stream.handle_packet(now, &packet);
        }
        let socket = state.socket.clone();
        drop(state);
        match socket {
            Some(socket) if !Arc::ptr_eq(&socket, &self.shared) => cell.submit_to(&socket.inbox),
            _ => self.enqueue(cell),
        }
    }

    /// Changes the id and nothing else. What cannot be sent at once is lost: the ends repeat it.
    fn relay(&mut self, cell: &Arc<Cell>, destination: &Arc<Cell>, datagram: &mut [u8]) {
        let header = Header::parse(datagram);
        let target = {
            let mut state = destination.lock();
            let target = state.stream.remote().zip(state.socket.clone());
            if state.stream.is_closed() {
                drop(state);
                self.end_relay(cell);
                return;
            }
            header
                .iter()
                .for_each(|header| state.stream.note_passed_on(header));
            target
        };
        let is_last = header.is_some_and(|header| header.kinds.has(Kinds::DESTROY));
        if let Some(((address, id), socket)) = target
            && readdress(datagram, id)
        {
            let _ = socket.send(datagram, address, None);
        }
        if is_last {
            self.end_relay(cell);
            self.end_relay(destination);
        }
    }

    fn end_relay(&mut self, cell: &Arc<Cell>) {
        cell.lock().stream.abandon(CloseReason::ResetByPeer);
        self.enqueue(cell);
    }

    /// Hands a datagram to the socket's owner.
    fn deliver(&mut self, data: &[u8], from: SocketAddr) {
        let delivered = data.len() <= DATAGRAM_LEN_MAX
            && self.datagrams.push(|| {
                let data = Bytes::copy_from_slice(data);
                Datagram { data, from }
            });
        if !delivered {
            let dropped = &self.shared.counters.datagrams_dropped;
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enqueue(&mut self, cell: &Arc<Cell>) {
        if cell.enqueue() {
            self.queue.push_back(Arc::clone(cell));
        }
    }

    fn fire_timers(&mut self) {
        let now = self.shared.table.now();
        while let Some(id) = self.timers.pop_due(now) {
            let Some(cell) = self.shared.table.get(id) else {
                continue;
            };
            cell.lock().stream.handle_timeout(now);
            self.enqueue(&cell);
        }
    }

    /// Lets the streams in the queue send in turn. False if the operating system takes no more.
    fn transmit(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.send_unsent(cx) {
            return false;
        }
        for _ in 0..self.queue.len() {
            let Some(cell) = self.queue.pop_front() else {
                break;
            };
            cell.dequeued();
            if !self.serve(cx, &cell) {
                return false;
            }
        }
        true
    }

    /// Sends up to a turn's worth of one stream, wakes its owner, and notes when it wants to be looked at again.
    fn serve(&mut self, cx: &mut Context<'_>, cell: &Arc<Cell>) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            let now = self.shared.table.now();
            let mut state = cell.lock();
            if !self.is_ours(cell, &state.socket) {
                return true;
            }
            self.out.clear();
            let segments = self.shared.segments_max();
            let transmit = state.stream.poll_transmit(now, segments, &mut self.out);
            if transmit.is_none() {
                state.wake();
                self.timers
                    .schedule(state.stream.local_id(), state.stream.poll_timeout());
                self.forget_if_drained(cell, state);
                return true;
            }
            drop(state);
            self.unsent = transmit;
            if !self.send_unsent(cx) {
                cell.lock().wake();
                self.enqueue(cell);
                return false;
            }
        }
        cell.lock().wake();
        self.enqueue(cell);
        true
    }

    /// A stream that has moved to another socket is passed on to it.
    fn is_ours(&self, cell: &Arc<Cell>, socket: &Option<Arc<SocketShared>>) -> bool {
        match socket {
            Some(socket) if !Arc::ptr_eq(socket, &self.shared) => {
                cell.submit_to(&socket.inbox);
                false
            }
            _ => true,
        }
    }

    fn forget_if_drained(
        &self,
        cell: &Arc<Cell>,
        mut state: std::sync::MutexGuard<'_, super::handle::State>,
    ) {
        if state.stream.is_drained() {
            let id = state.stream.local_id();
            state.wake_all();
            state.attach(None);
            drop(state);
            self.shared.table.remove(id, cell);
        }
    }

    /// True unless the operating system takes no more; then the task is woken when it does.
    fn send_unsent(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(transmit) = self.unsent else {
            return true;
        };
        loop {
            let to = transmit.destination;
            let sent = match transmit.segment_size {
                None if transmit.may_fragment => self.shared.send_in_fragments(&self.out, to),
                segment => self.shared.send(&self.out, to, segment),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.shared.io.poll_send_ready(cx) {
                        Poll::Pending => return false,
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(_)) => {}
                    }
                }
                // Too large for the path, no route, a firewall: to the stream it is a lost packet.
                Err(error) => tracing::trace!(%error, to = %transmit.destination, "send"),
                Ok(()) => {}
            }
            self.unsent = None;
            return true;
        }
    }

    /// Sleeps until the next deadline. True if it has passed already.
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.timers.earliest() else {
            self.put_sleep_off();
            return false;
        };
        let at = self.shared.table.instant(at);
        if self.sleep.deadline() != at {
            self.sleep.as_mut().reset(at);
        }
        self.sleep.as_mut().poll(cx).is_ready()
    }

    /// A sleep that was begun would wake the task for nothing.
    fn put_sleep_off(&mut self) {
        let (now, deadline) = (Instant::now(), self.sleep.deadline());
        if now < deadline && deadline < now + NOTHING_DUE / 2 {
            self.sleep.as_mut().reset(now + NOTHING_DUE);
        }
    }

    fn is_unused(&self) -> bool {
        let streams = self.shared.streams.load(Ordering::Acquire);
        streams == 0 && !self.shared.has_owner.load(Ordering::Acquire)
    }

    /// Ends the socket's streams; with `politely`, their peers are told.
    fn end_streams(&mut self, cx: &mut Context<'_>, politely: bool) {
        for cell in self.shared.table.all() {
            let mut state = cell.lock();
            let is_ours = state
                .socket
                .as_ref()
                .is_some_and(|socket| Arc::ptr_eq(socket, &self.shared));
            if !is_ours {
                continue;
            }
            if politely {
                state.stream.destroy_as(CloseReason::SocketClosed);
            } else {
                state.stream.abandon(CloseReason::SocketClosed);
            }
            drop(state);
            self.unsent = None;
            self.serve(cx, &cell);
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        for _ in 0..TURNS_PER_POLL {
            driver.shared.inbox.take(cx.waker(), &mut driver.queue);
            if !driver.shared.inbox.is_open() {
                driver.end_streams(cx, true);
                return Poll::Ready(());
            }
            let received = match driver.receive(cx) {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "the UDP socket failed");
                    driver.end_streams(cx, false);
                    return Poll::Ready(());
                }
            };
            driver.fire_timers();
            let may_send = driver.transmit(cx);
            let is_due = driver.poll_sleep(cx);
            if driver.is_unused() {
                return Poll::Ready(());
            }
            let has_work = received || is_due || (may_send && !driver.queue.is_empty());
            if !has_work {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How far a sleep is put off that nothing needs.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// Turns of receiving and sending before other tasks of the runtime have theirs.
const TURNS_PER_POLL: usize = 16;

/// Batches of one stream before the next stream has its turn.
const BATCHES_PER_TURN: usize = 4;

/// Errors of receiving in a row before the socket counts as broken.
const RECEIVE_ERRORS_MAX: u32 = 1000;
