//! One UDX stream as a state machine: packets and time in, packets, bytes and deadlines out.
//! Knows the protocol. Does not know sockets, tasks or clocks.

mod input;
mod output;
mod stats;
mod timers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ferrocore_primitives::time::Time;

pub use crate::error::{CloseReason, StreamError};
pub use output::Transmit;
pub use stats::Stats;

use crate::congestion::{Bbr, Pacer, RateMeter, Recovery};
use crate::limits::{
    FORMER_REMOTES_MAX, GIVE_UP_AFTER, MESSAGES_MAX, MTU_BASE, RECEIVE_WINDOW, SEND_QUEUE_MAX,
    UNCONNECTED_WINDOW,
};
use crate::loss::{Rack, TailProbe};
use crate::mtu::Mtu;
use crate::packet::HEADER_LEN;
use crate::rare::Rare;
use crate::recv::Receiver;
use crate::rtt::Rtt;
use crate::send::Sender;
use crate::span::Span;
use stats::Counters;
use timers::Timers;

/// What a stream is made with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Bytes the peer may send ahead of the reader, once that has read as many; the window begins with
    /// [`RECEIVE_WINDOW_FIRST`](crate::limits::RECEIVE_WINDOW_FIRST) at most. The default of 4 MiB fills
    /// 300 Mbit/s at 100 ms.
    pub receive_window: u32,
    /// First sequence number of this side; libudx's default is 0.
    pub first_seq: u32,
    /// First sequence number of the peer.
    pub first_ack: u32,
    /// Sends a heartbeat after this long without anything else to send; `None` never does. A NAT forgets an idle
    /// mapping after 30 s or more; HyperDHT uses 5 s.
    pub keepalive: Option<Duration>,
    /// Closes the stream after this long without any packet from the peer; `None` waits for ever. Sensible only
    /// where the peer sends heartbeats, or is asked by this side's.
    pub idle_timeout: Option<Duration>,
    /// Closes the stream when something was sent and nothing acked for this long.
    pub give_up_after: Duration,
    /// Looks for packets larger than 1,200 bytes by padding. Off only for tests and paths known to be small.
    pub probes_mtu: bool,
    /// Any number; spreads the phases of streams that start together.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receive_window: RECEIVE_WINDOW,
            first_seq: 0,
            first_ack: 0,
            keepalive: None,
            idle_timeout: None,
            give_up_after: GIVE_UP_AFTER,
            probes_mtu: true,
            seed: 0,
        }
    }
}

/// What of a [`Config`] counts once the stream is there.
#[derive(Debug)]
struct Settings {
    keepalive: Option<Span>,
    idle_timeout: Option<Span>,
    give_up_after: Span,
    receive_window: u32,
    probes_mtu: bool,
}

/// A stream between two endpoints.
///
/// | kind of method | which |
/// |---|---|
/// | of the application | [`connect`](Self::connect), [`write`](Self::write), [`read_with`](Self::read_with), [`finish`](Self::finish), [`send_message`](Self::send_message), [`destroy`](Self::destroy), … |
/// | input | [`handle_packet`](Self::handle_packet), [`handle_timeout`](Self::handle_timeout) |
/// | output | [`poll_transmit`](Self::poll_transmit) until it returns `None`, then [`poll_timeout`](Self::poll_timeout) |
///
/// After any call of the first two kinds, call those of the third. Times must not run backwards.
#[derive(Debug)]
pub struct Stream {
    local_id: u32,
    settings: Settings,
    life: Life,
    remote: Option<Remote>,
    former: Rare<VecDeque<(u32, Remote)>>,
    path: u32,
    moved_at: Option<u64>,
    receiver: Receiver,
    sender: Sender,
    rtt: Rtt,
    rack: Rack,
    tail: TailProbe,
    recovery: Recovery,
    recovery_end: u64,
    /// The peer's last ack told of all packets below this one.
    told: u64,
    bbr: Bbr,
    pacer: Pacer,
    rate: RateMeter,
    mtu: Mtu,
    peer_window: u32,
    /// Sequence number and ack of the packet that set the peer's window last.
    window_from: (u64, u64),
    timers: Timers,
    wants: Wants,
    is_released: bool,
    advertised: u32,
    messages_in: Rare<VecDeque<Bytes>>,
    messages_out: Rare<VecDeque<Bytes>>,
    counters: Counters,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remote {
    id: u32,
    address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Unconnected,
    Connected,
    /// Both sides have ended well; answers the peer until then.
    Lingering(Time),
    Closed(Option<CloseReason>),
}

/// Packets without a sequence number that are to be sent.
#[derive(Debug, Default)]
struct Wants {
    ack: bool,
    /// Packets that the next ack is for.
    unacked: u32,
    /// So many more packets are acked several times, for some were lost of late.
    lossy: u32,
    heartbeat: bool,
    tail_probe: bool,
    destroy: bool,
}

impl Stream {
    /// A stream that the peer will address as `local_id`.
    pub fn new(now: Time, local_id: u32, config: Config) -> Self {
        let window = config.receive_window.min(UNCONNECTED_WINDOW);
        let sender = Sender::new(config.first_seq);
        let receiver = Receiver::new(config.first_ack, window);
        let bbr = Bbr::new(now, u64::from(MTU_BASE), config.seed);
        Self {
            local_id,
            life: Life::Unconnected,
            remote: None,
            former: Rare::default(),
            path: 0,
            moved_at: None,
            rtt: Rtt::new(),
            rack: Rack::new(sender.una()),
            tail: TailProbe::default(),
            recovery: Recovery::Open,
            recovery_end: 0,
            told: u64::MAX,
            pacer: Pacer::new(bbr.pacing_rate()),
            bbr,
            rate: RateMeter::default(),
            mtu: Mtu::new(SocketAddr::from(([0; 16], 0)), false),
            peer_window: RECEIVE_WINDOW,
            window_from: (receiver.next(), sender.una()),
            timers: Timers::new(now),
            wants: Wants::default(),
            is_released: false,
            advertised: window,
            messages_in: Rare::default(),
            messages_out: Rare::default(),
            counters: Counters::default(),
            receiver,
            sender,
            settings: Settings {
                keepalive: config.keepalive.map(Span::from),
                idle_timeout: config.idle_timeout.map(Span::from),
                give_up_after: config.give_up_after.into(),
                receive_window: config.receive_window,
                probes_mtu: config.probes_mtu,
            },
        }
    }

    /// Names the peer: its address, and the id it gave the stream. What has arrived before is acked now.
    ///
    /// # Errors
    /// [`StreamError::AlreadyConnected`], [`StreamError::BadAddress`], [`StreamError::Closed`]; nothing has changed.
    pub fn connect(
        &mut self,
        now: Time,
        remote_id: u32,
        address: SocketAddr,
    ) -> Result<(), StreamError> {
        check_address(address)?;
        match self.life {
            Life::Unconnected => {}
            Life::Connected => return Err(StreamError::AlreadyConnected),
            Life::Lingering(_) | Life::Closed(_) => return Err(self.closed_error()),
        }
        self.life = Life::Connected;
        self.set_remote(Remote {
            id: remote_id,
            address,
        });
        self.receiver.set_window_max(self.settings.receive_window);
        self.advertised = self.receiver.window();
        self.timers.on_connected(now);
        Ok(())
    }

    /// Moves the stream to another address of the peer, in the middle of everything: new packets go there at
    /// once, the search for the MTU begins again, and [`is_moving`](Self::is_moving) until the peer has acked all
    /// that went to the old address. If nothing was acked ever, all of it goes to the new one at once: there may have
    /// been nobody.
    ///
    /// # Errors
    /// [`StreamError::NotConnected`], [`StreamError::BadAddress`], [`StreamError::Closed`].
    pub fn change_remote(
        &mut self,
        remote_id: u32,
        address: SocketAddr,
    ) -> Result<(), StreamError> {
        check_address(address)?;
        match (self.life, self.remote) {
            (Life::Connected, Some(old)) => {
                let former = self.former.make();
                former.push_back((self.path, old));
                if former.len() > FORMER_REMOTES_MAX {
                    former.pop_front();
                }
            }
            (Life::Unconnected, _) => return Err(StreamError::NotConnected),
            _ => return Err(self.closed_error()),
        }
        if self.rtt.smoothed().is_none() {
            self.sender.lose_all();
        }
        self.path = self.path.wrapping_add(1);
        self.moved_at = self.sender.has_unacked().then(|| self.sender.next());
        self.set_remote(Remote {
            id: remote_id,
            address,
        });
        Ok(())
    }

    /// Takes as many bytes of `data` as there is room for and returns how many; 0 means: wait until
    /// [`is_writable`](Self::is_writable).
    ///
    /// # Errors
    /// [`StreamError::NotConnected`], [`StreamError::Ended`] after [`finish`](Self::finish), [`StreamError::Closed`].
    pub fn write(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        self.check_writable()?;
        Ok(self.sender.write(data))
    }

    /// Ends this side after what was written. The other direction stays open.
    ///
    /// # Errors
    /// [`StreamError::NotConnected`], [`StreamError::Closed`]. To finish twice is no error.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        match self.check_writable() {
            Ok(()) => self.sender.finish(),
            Err(StreamError::Ended) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends a message that may be lost, doubled or late, and is never mixed with the stream's bytes.
    ///
    /// # Errors
    /// [`StreamError::MessageTooLong`], [`StreamError::TooManyMessages`], [`StreamError::NotConnected`],
    /// [`StreamError::Closed`].
    pub fn send_message(&mut self, message: Bytes) -> Result<(), StreamError> {
        match self.check_writable() {
            Ok(()) | Err(StreamError::Ended) => {}
            Err(error) => return Err(error),
        }
        let (len, max) = (message.len(), self.message_max());
        if len > max {
            return Err(StreamError::MessageTooLong { len, max });
        }
        let waiting = self.messages_out.make();
        if waiting.len() >= MESSAGES_MAX {
            return Err(StreamError::TooManyMessages);
        }
        waiting.push_back(message);
        Ok(())
    }

    /// Hands at most `max` bytes of the peer to `take`, in order and in one or more parts, and returns how many. Zero: nothing
    /// yet, or [`has_ended`](Self::has_ended), or [`close_reason`](Self::close_reason).
    pub fn read_with(&mut self, max: usize, take: impl FnMut(&[u8])) -> usize {
        let len = self.receiver.read(max, take);
        self.offer_window();
        len
    }

    /// Takes at most `max` bytes of the peer; empty like the zero of [`read_with`](Self::read_with).
    pub fn read(&mut self, max: usize) -> Bytes {
        let mut bytes = BytesMut::new();
        self.read_with(max, |part| bytes.extend_from_slice(part));
        bytes.freeze()
    }

    /// Asks the peer for an ack, by a packet that may be lost.
    pub fn send_heartbeat(&mut self) {
        self.wants.heartbeat = self.life == Life::Connected;
    }

    /// Nobody will read or write any more: what was written is still delivered if [`finish`](Self::finish) was
    /// called, what the peer sends is thrown away. Without an end the stream is destroyed; and once the peer has
    /// everything, when it sends more, or does not end its own side within [`LINGER`](crate::limits::LINGER).
    pub fn release(&mut self, now: Time) {
        if !self.sender.is_finishing() {
            self.destroy();
            return;
        }
        self.is_released = true;
        self.receiver.discard();
        self.messages_in.clear();
        self.offer_window();
        self.settle(now);
    }

    /// The next unordered message.
    pub fn read_message(&mut self) -> Option<Bytes> {
        take_first(&mut self.messages_in)
    }

    /// Drops the stream at once, and tells the peer so in one packet that may be lost.
    pub fn destroy(&mut self) {
        self.destroy_as(CloseReason::Destroyed);
    }

    /// [`destroy`](Self::destroy) with another reason for this side to see.
    pub fn destroy_as(&mut self, reason: CloseReason) {
        self.wants.destroy |= self.life == Life::Connected;
        self.close(Some(reason));
    }

    /// Ends the stream without a word to anyone, for a socket that has failed.
    pub fn abandon(&mut self, reason: CloseReason) {
        self.wants.destroy = false;
        self.close(Some(reason));
    }

    /// Sets the interval of heartbeats; see [`Config::keepalive`].
    pub fn set_keepalive(&mut self, interval: Option<Duration>) {
        self.settings.keepalive = interval.map(Span::from);
    }

    /// Sets how long the peer may be silent; see [`Config::idle_timeout`].
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.settings.idle_timeout = timeout.map(Span::from);
    }

    /// Sets how far the peer may be ahead of the reader; see [`Config::receive_window`].
    pub fn set_receive_window(&mut self, bytes: u32) {
        self.settings.receive_window = bytes;
        if self.life != Life::Unconnected {
            self.receiver.set_window_max(bytes);
            self.offer_window();
        }
    }

    /// The id that this side gave the stream.
    pub fn local_id(&self) -> u32 {
        self.local_id
    }

    /// Where new packets go, and the id the peer gave the stream.
    pub fn remote(&self) -> Option<(SocketAddr, u32)> {
        self.remote.map(|remote| (remote.address, remote.id))
    }

    /// True between [`connect`](Self::connect) and the end.
    pub fn is_connected(&self) -> bool {
        self.life == Life::Connected
    }

    /// True while packets sent before the last [`change_remote`](Self::change_remote) are unacked.
    pub fn is_moving(&self) -> bool {
        self.moved_at.is_some()
    }

    /// True if a read returns something or tells the end.
    pub fn is_readable(&self) -> bool {
        self.receiver.has_readable() || self.receiver.is_complete() || self.close_reason().is_some()
    }

    /// True once the peer has ended and everything it sent was read.
    pub fn has_ended(&self) -> bool {
        self.receiver.is_complete() && !self.receiver.has_readable()
    }

    /// True if a write takes something.
    pub fn is_writable(&self) -> bool {
        self.life == Life::Connected && self.sender.has_room()
    }

    /// True if a write takes enough to be worth waking somebody for.
    pub fn is_hungry(&self) -> bool {
        self.is_writable() && self.sender.queued() <= SEND_QUEUE_MAX / 2
    }

    /// True if reading has made room that the peer should be told of: call
    /// [`poll_transmit`](Self::poll_transmit).
    pub fn wants_to_ack(&self) -> bool {
        self.wants.ack
    }

    /// True once the peer has acked everything that was written, and the end if there was one.
    pub fn is_flushed(&self) -> bool {
        let is_sent = self.sender.queued() == 0 && !self.sender.has_unacked();
        is_sent && (!self.sender.is_finishing() || self.sender.is_finished())
    }

    /// True once the peer has acked the end of this side.
    pub fn is_finished(&self) -> bool {
        self.sender.is_finished() || matches!(self.life, Life::Lingering(_) | Life::Closed(None))
    }

    /// True if an unordered message is waiting.
    pub fn has_message(&self) -> bool {
        self.messages_in.get().is_some()
    }

    /// Longest message that fits into one packet now, in bytes.
    pub fn message_max(&self) -> usize {
        self.mtu.datagram_max() - HEADER_LEN
    }

    /// True once the stream is over for the application, well or not. It may still answer its peer.
    pub fn is_closed(&self) -> bool {
        matches!(self.life, Life::Lingering(_) | Life::Closed(_))
    }

    /// Why the stream closed, unless both sides ended it or it is still open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.life {
            Life::Closed(reason) => reason,
            _ => None,
        }
    }

    /// True once nothing more will come out: the stream can be forgotten.
    pub fn is_drained(&self) -> bool {
        matches!(self.life, Life::Closed(_)) && !self.wants.destroy
    }

    fn set_remote(&mut self, remote: Remote) {
        self.remote = Some(remote);
        self.mtu = Mtu::new(remote.address, self.settings.probes_mtu);
        self.bbr.set_packet(self.full_datagram());
    }

    fn full_datagram(&self) -> u64 {
        self.mtu.datagram_max() as u64
    }

    fn check_writable(&self) -> Result<(), StreamError> {
        match self.life {
            Life::Unconnected => Err(StreamError::NotConnected),
            Life::Connected if self.sender.is_finishing() => Err(StreamError::Ended),
            Life::Connected => Ok(()),
            Life::Lingering(_) | Life::Closed(_) => Err(self.closed_error()),
        }
    }

    fn closed_error(&self) -> StreamError {
        self.close_reason()
            .map_or(StreamError::Ended, StreamError::Closed)
    }

    fn close(&mut self, reason: Option<CloseReason>) {
        if !matches!(self.life, Life::Closed(_)) {
            self.life = Life::Closed(reason);
            self.messages_out.clear();
            self.timers.stop();
        }
    }

    /// Tells the peer of room that reading has made, once it is worth a packet: libudx would only learn of it from
    /// its own probes.
    fn offer_window(&mut self) {
        let max = u32::try_from(self.receiver.backlog_max()).unwrap_or(u32::MAX);
        let window = self.receiver.window();
        if self.life == Life::Connected
            && self.advertised <= max / 2
            && window.saturating_sub(self.advertised) >= max / 4
        {
            self.wants.ack = true;
        }
    }
}

/// The next message; the last one takes the queue with it.
fn take_first(messages: &mut Rare<VecDeque<Bytes>>) -> Option<Bytes> {
    let waiting = messages.get_mut()?;
    let first = waiting.pop_front();
    if waiting.is_empty() {
        messages.clear();
    }
    first
}

fn check_address(address: SocketAddr) -> Result<(), StreamError> {
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(StreamError::BadAddress);
    }
    Ok(())
}
