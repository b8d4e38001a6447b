//! The sending half of a stream: bytes not yet sent, what becomes a packet of its own, where the end is.
//! Knows bytes and sequence numbers. Does not know windows, timers, or what became of a packet, which is [`Flight`]'s.

use bytes::{Bytes, BytesMut};
use ferrocore_primitives::time::Time;

use crate::congestion::PacketRate;
use crate::flight::{Acked, Flight, Losses, Lost, Sent};
use crate::limits::SEND_QUEUE_MAX;
use crate::loss::Rack;
use crate::packet::{HEADER_LEN, Kinds};
use crate::seq;

/// Where this side's END is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Queued,
    Sent(u64),
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The first packet not acked, if none is on its way; else the flight knows.
    una: u64,
    queue: BytesMut,
    end: End,
    flight: Option<Box<Flight>>,
}

impl Sender {
    pub(crate) fn new(first_seq: u32) -> Self {
        Self {
            una: seq::first(first_seq),
            queue: BytesMut::new(),
            end: End::Open,
            flight: None,
        }
    }

    /// Takes as much of `data` as there is room for and returns how much that was.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        let room = SEND_QUEUE_MAX.saturating_sub(self.queue.len());
        let taken = data.get(..room).unwrap_or(data);
        self.queue.extend_from_slice(taken);
        taken.len()
    }

    /// Queues END behind what was written. It goes alone, after everything else is acked: libudx forgets a stream once both ENDs
    /// are here, and if its last ack is lost, whatever went with ours looks as if it had not arrived.
    pub(crate) fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Queued;
        }
    }

    /// Takes `seq` for the next packet's number, for a stream that sends none of its own.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        if self.flight.is_none() {
            self.una = self.una.max(seq);
        }
    }

    /// Makes the next new packet of at most `payload_max` bytes, of which [`Sender::next_new_size`] says that there is one; send it
    /// with [`Sender::transmit`].
    pub(crate) fn packetise(&mut self, payload_max: usize, padding: u8, path: u32) -> u64 {
        let payload = match self.queue.len() <= payload_max.min(SMALL) {
            true => Bytes::copy_from_slice(&std::mem::take(&mut self.queue)),
            false => self
                .queue
                .split_to(payload_max.min(self.queue.len()))
                .freeze(),
        };
        let seq = self.next();
        let kinds = if payload.is_empty() {
            self.end = End::Sent(seq);
            Kinds::END
        } else {
            Kinds::DATA
        };
        let una = self.una;
        let flight = self
            .flight
            .get_or_insert_with(|| Box::new(Flight::new(una)));
        flight.push(payload, kinds, padding, path);
        seq
    }

    /// Notes that packet `seq` leaves now, and returns it for its bytes.
    pub(crate) fn transmit(&mut self, seq: u64, now: Time, rate: PacketRate) -> Option<&Sent> {
        self.flight.as_mut()?.transmit(seq, now, rate)
    }

    /// The next lost packet to send again.
    pub(crate) fn peek_lost(&mut self) -> Option<Lost> {
        self.flight.as_mut()?.peek_lost()
    }

    /// Marks packet `seq` as arrived; `None` if it was known.
    pub(crate) fn ack(&mut self, seq: u64) -> Option<Acked> {
        self.flight.as_mut()?.ack(seq)
    }

    /// The parts of a valid SACK block that no block has named before.
    pub(crate) fn news_of(&mut self, block: (u64, u64)) -> Vec<(u64, u64)> {
        let flight = self.flight.as_mut();
        flight.map_or_else(Vec::new, |flight| flight.news_of(block))
    }

    /// Forgets the packets below `ack`, all acked before. An idle stream keeps no buffers.
    pub(crate) fn advance(&mut self, ack: u64) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        flight.advance(ack);
        if flight.is_empty() {
            self.una = flight.una();
            self.flight = None;
            if self.queue.is_empty() {
                self.queue = BytesMut::new();
            }
        }
    }

    /// [`Flight::detect_losses`].
    pub(crate) fn detect_losses(
        &mut self,
        now: Time,
        rack: &Rack,
        reordering: std::time::Duration,
        told: u64,
    ) -> Losses {
        let flight = self.flight.as_mut();
        flight.map_or_else(Losses::default, |flight| {
            flight.detect_losses(now, rack, reordering, told)
        })
    }

    /// The retransmission timer fired: everything in flight is lost.
    pub(crate) fn lose_all(&mut self) -> Losses {
        let flight = self.flight.as_mut();
        flight.map_or_else(Losses::default, |flight| flight.lose_all())
    }

    /// Packet `seq` and its path, unless it has arrived: what a probe sends again.
    pub(crate) fn unacked(&self, seq: u64) -> Option<(u64, u32)> {
        self.flight.as_ref()?.unacked(seq)
    }

    /// Size of the next new packet without padding, if there is anything to send.
    pub(crate) fn next_new_size(&self, payload_max: usize) -> Option<usize> {
        let may_end = self.end == End::Queued && !self.has_unacked();
        let is_wanted = !self.queue.is_empty() || may_end;
        is_wanted.then(|| HEADER_LEN + payload_max.min(self.queue.len()))
    }

    pub(crate) fn una(&self) -> u64 {
        self.flight.as_ref().map_or(self.una, |flight| flight.una())
    }

    /// The sequence number of the next new packet.
    pub(crate) fn next(&self) -> u64 {
        let flight = self.flight.as_ref();
        flight.map_or(self.una, |flight| flight.next())
    }

    pub(crate) fn has_unacked(&self) -> bool {
        self.flight.is_some()
    }

    pub(crate) fn has_lost(&mut self) -> bool {
        self.peek_lost().is_some()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < SEND_QUEUE_MAX && self.end == End::Open
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.end != End::Open
    }

    /// True once the peer has everything, the END included.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.end, End::Sent(seq) if seq < self.una())
    }

    /// True if nothing but a bare END is unacked, and how often it was sent.
    pub(crate) fn bare_end_transmits(&self) -> Option<u32> {
        self.flight.as_ref()?.bare_end_transmits()
    }

    /// True if END and at most a few packets before it are all that is left.
    pub(crate) fn is_ending(&self) -> bool {
        let is_last = self.is_finishing() && self.queue.is_empty();
        is_last && self.unacked_packets() <= ENDING_PACKETS_MAX
    }

    /// Bytes sent, neither acked nor lost.
    pub(crate) fn in_flight(&self) -> u64 {
        self.flight.as_ref().map_or(0, |flight| flight.in_flight())
    }

    pub(crate) fn unacked_packets(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.len())
    }

    /// Payload between the first unacked packet and the last sent one, in bytes.
    pub(crate) fn unacked_payload(&self) -> u64 {
        let flight = self.flight.as_ref();
        flight.map_or(0, |flight| flight.unacked_payload())
    }

    /// Packets acked ahead of one that is not.
    pub(crate) fn sacked(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.sacked())
    }
}

/// Fewer bytes are copied: a packet of them would keep the memory that it is a part of, and a count of its users.
const SMALL: usize = 128;

/// So few that repeating them at a steady pace congests nothing.
const ENDING_PACKETS_MAX: usize = 4;
