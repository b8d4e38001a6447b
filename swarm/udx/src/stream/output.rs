//! What a stream sends, and when it may.
//! Knows packets, windows and batches. Does not know sockets.

use std::net::SocketAddr;

use ferrocore_primitives::time::Time;

use super::{Life, Remote, Stream, take_first};
use crate::limits::{ACKS_MAX, IN_FLIGHT_MAX, PACKETS_AHEAD_MAX};
use crate::packet::{HEADER_LEN, Header, Kinds, SACK_BLOCK_LEN, put_sack};
use crate::seq;

/// Datagrams for one address, one behind the other in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// Length of each datagram but the last, which may be shorter; `None` if there is just one. What the
    /// operating system's segmentation offload takes.
    pub segment_size: Option<usize>,
    /// Whether the one datagram may go in fragments: it was sent before, the path may have become narrower since, and a packet
    /// cannot be cut anew.
    pub may_fragment: bool,
}

/// Datagrams of one length, and at most one shorter, being put together.
#[derive(Debug)]
struct Batch {
    path: u32,
    segment: usize,
    count: usize,
    count_max: usize,
    bytes: usize,
    is_complete: bool,
    may_fragment: bool,
}

impl Batch {
    fn new(count_max: usize) -> Self {
        Self {
            path: 0,
            segment: 0,
            count: 0,
            count_max,
            bytes: 0,
            is_complete: false,
            may_fragment: false,
        }
    }

    fn takes(&self, size: usize, path: u32) -> bool {
        self.count == 0
            || (!self.is_complete
                && self.count < self.count_max
                && path == self.path
                && size <= self.segment
                && self.bytes + size <= BATCH_BYTES_MAX)
    }

    fn push(&mut self, size: usize, path: u32) {
        if self.count == 0 {
            self.segment = size;
            self.path = path;
        }
        self.is_complete = size < self.segment;
        self.count += 1;
        self.bytes += size;
    }
}

/// How often a packet is sent before it may go in fragments, though others of its size pass; and before none of its size is made any
/// more. A path that loses every fifth packet loses one of 600, and of 80,000, so often in a row.
const WHOLE_TRANSMITS: u32 = 4;
const BLACK_HOLE_TRANSMITS: u32 = 7;

/// A UDP datagram's limit bounds a batch too.
const BATCH_BYTES_MAX: usize = 65_000;

impl Stream {
    /// Appends the next datagrams to `out`, at most `datagrams_max` of them.
    ///
    /// Call it until it returns `None`; then [`poll_timeout`](Self::poll_timeout) tells when to come again.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        datagrams_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let remote = self.remote?;
        if std::mem::take(&mut self.wants.destroy) {
            return Some(self.put_bare(now, remote, Kinds::DESTROY, out));
        }
        if matches!(self.life, Life::Closed(_) | Life::Unconnected) {
            return None;
        }
        // An ack with SACK blocks goes first; a plain one rides on data if there is any.
        if self.wants.ack && self.receiver.has_gaps() {
            return Some(self.put_ack(now, remote, datagrams_max, out));
        }
        if let Some(transmit) = self.put_data(now, datagrams_max, out) {
            return Some(transmit);
        }
        if self.wants.ack {
            return Some(self.put_ack(now, remote, datagrams_max, out));
        }
        if std::mem::take(&mut self.wants.heartbeat) {
            return Some(self.put_bare(now, remote, Kinds::HEARTBEAT, out));
        }
        self.put_message(now, remote, out)
    }

    fn put_data(&mut self, now: Time, datagrams_max: usize, out: &mut Vec<u8>) -> Option<Transmit> {
        if self.life != Life::Connected {
            return None;
        }
        let mut batch = Batch::new(datagrams_max);
        self.timers.set_pacing(None);
        if std::mem::take(&mut self.wants.tail_probe) {
            self.put_tail_probe(now, &mut batch, out);
        } else {
            self.put_lost(now, &mut batch, out);
            if !batch.may_fragment {
                self.put_new(now, &mut batch, out);
            }
        }
        self.arm_window_probe(now);
        self.finish_batch(&batch)
    }

    fn finish_batch(&mut self, batch: &Batch) -> Option<Transmit> {
        if batch.count == 0 {
            return None;
        }
        let to = self.remote_of(batch.path)?;
        if Some(to) == self.remote {
            self.wants.ack = false;
            self.wants.unacked = 0;
        }
        Some(Transmit {
            destination: to.address,
            segment_size: (batch.count > 1).then_some(batch.segment),
            may_fragment: batch.may_fragment && batch.count == 1,
        })
    }

    /// Lost packets, before anything new. The peer's window does not hold them back: it may have shrunk.
    fn put_lost(&mut self, now: Time, batch: &mut Batch, out: &mut Vec<u8>) {
        while let Some(lost) = self.sender.peek_lost() {
            let path = self.known_path(lost.path);
            // Segmentation offload does not go with fragments: such a packet goes alone.
            let is_large = self.is_too_large(lost.size, lost.transmits);
            let is_in_company = batch.count > 0 && is_large;
            if is_in_company || !batch.takes(lost.size, path) || !self.may_send(now) {
                return;
            }
            if lost.transmits >= BLACK_HOLE_TRANSMITS && !self.mtu.is_base(lost.size) {
                self.mtu.on_black_hole();
                self.bbr.set_packet(self.full_datagram());
            }
            self.put_packet(now, lost.seq, path, batch, out);
            if is_large {
                batch.may_fragment = true;
                return;
            }
        }
    }

    fn put_new(&mut self, now: Time, batch: &mut Batch, out: &mut Vec<u8>) {
        let payload_max = self.mtu.payload_max();
        if batch.count == 0 && self.waits_for_room(batch.count_max) {
            return;
        }
        while let Some(size) = self.sender.next_new_size(payload_max) {
            let padding = self.padding_for(size);
            let padded = size + usize::from(padding);
            let is_probe_in_company = padding != 0 && batch.count > 0;
            if is_probe_in_company
                || !batch.takes(padded, self.path)
                || !self.fits_peer_window(size - HEADER_LEN)
                || self.sender.has_lost()
                || !self.may_send(now)
            {
                return;
            }
            let seq = self.sender.packetise(payload_max, padding, self.path);
            self.put_packet(now, seq, self.path, batch, out);
            if padding != 0 {
                self.mtu.on_probe_sent();
                batch.is_complete = true; // if it is too large, it takes nothing with it
            }
        }
        if self.sender.in_flight() < self.bbr.window() && !self.sender.has_lost() {
            self.rate.on_app_limited(self.sender.in_flight());
        }
    }

    /// One packet past every window: the first one again if the peer misses it, or a new one, or the last one again.
    fn put_tail_probe(&mut self, now: Time, batch: &mut Batch, out: &mut Vec<u8>) {
        let payload_max = self.mtu.payload_max();
        let is_new = self.peer_window > 0 && self.sender.next_new_size(payload_max).is_some();
        let probe = if self.sender.sacked() > 0 {
            self.sender.unacked(self.sender.una())
        } else if is_new {
            Some((self.sender.packetise(payload_max, 0, self.path), self.path))
        } else {
            self.sender.unacked(self.sender.next().saturating_sub(1))
        };
        if let Some((seq, path)) = probe {
            self.tail.on_sent();
            self.counters.mishaps.make().tail_probes += 1;
            let path = self.known_path(path);
            self.put_packet(now, seq, path, batch, out);
        }
    }

    /// Writes data packet `seq`, first or again, with this side's present window and ack.
    fn put_packet(&mut self, now: Time, seq: u64, path: u32, batch: &mut Batch, out: &mut Vec<u8>) {
        let was_idle = self.sender.in_flight() == 0;
        let was_all_acked = self.sender.unacked_packets() <= 1;
        if was_idle {
            self.bbr.on_restart(now, self.rate.is_app_limited());
            self.pacer.set_rate(now, self.bbr.pacing_rate());
        }
        let rate = self.rate.on_sent(now, was_idle && was_all_acked);
        let Some(remote) = self.remote_of(path) else {
            return;
        };
        let header = self.header(Kinds::ACK, remote.id);
        let Some(packet) = self.sender.transmit(seq, now, rate) else {
            return;
        };
        let start = out.len();
        let header = Header {
            kinds: packet.kinds(),
            data_offset: packet.padding(),
            seq: seq::to_wire(seq),
            ..header
        };
        out.extend_from_slice(&header.to_bytes());
        out.resize(out.len() + usize::from(packet.padding()), 0);
        out.extend_from_slice(packet.payload());
        let is_new = !packet.was_retransmitted();
        let size = out.len() - start;
        if !is_new {
            self.counters.mishaps.make().retransmits += 1;
        }
        self.count_sent(now, header.kinds, size);
        self.pacer.on_sent(size as u64);
        self.arm_after_send(now, is_new && was_all_acked);
        batch.push(size, path);
    }

    /// Whether a packet that was sent before may be larger than what passes now.
    fn is_too_large(&self, size: usize, transmits: u32) -> bool {
        let is_suspect = transmits >= WHOLE_TRANSMITS && !self.mtu.is_base(size);
        is_suspect || size > self.mtu.datagram_max()
    }

    /// An ack of two packets makes room for two, whose ack makes room for two: many streams on a fast path would
    /// send nothing but such pairs. So a full window waits until there is room for a batch, as Linux does for its
    /// own segmentation offload: a third of the window, or what a millisecond carries. Acks are on their way.
    fn waits_for_room(&self, datagrams_max: usize) -> bool {
        let (window, in_flight) = (self.bbr.window(), self.sender.in_flight());
        let room = window.saturating_sub(in_flight);
        let batch = (self.full_datagram() * datagrams_max as u64)
            .min(BATCH_BYTES_MAX as u64)
            .min(window / 3)
            .min(self.bbr.bytes_per_millisecond());
        in_flight > 0 && room < batch && self.sender.queued() as u64 > room
    }

    fn may_send(&mut self, now: Time) -> bool {
        let in_flight = self.sender.in_flight();
        if in_flight >= self.bbr.window().min(IN_FLIGHT_MAX) {
            return false;
        }
        if self.pacer.may_send(now) {
            return true;
        }
        self.timers.set_pacing(Some(self.pacer.ready_at()));
        false
    }

    /// What the peer holds beyond its ack counts against its window; one packet always goes if it is open at all.
    fn fits_peer_window(&self, payload: usize) -> bool {
        let unacked = self.sender.unacked_packets();
        if unacked == 0 {
            return self.peer_window > 0;
        }
        unacked as u64 <= PACKETS_AHEAD_MAX
            && self.sender.unacked_payload() + payload as u64 <= u64::from(self.peer_window)
    }

    fn padding_for(&self, size: usize) -> u8 {
        let may_probe = size > HEADER_LEN && self.moved_at.is_none();
        let padding = may_probe.then(|| self.mtu.padding_for(size)).flatten();
        padding.unwrap_or(0)
    }

    /// One ack; or, where packets get lost, one for each packet of a batch, up to [`ACKS_MAX`], since acks get lost, too:
    /// if it is all of a libudx sender's window, that waits a second for the next one (its tail probe, too, when the round
    /// trip is less than its clock's millisecond). They name different gaps if those are many.
    fn put_ack(
        &mut self,
        now: Time,
        remote: Remote,
        datagrams_max: usize,
        out: &mut Vec<u8>,
    ) -> Transmit {
        self.wants.ack = false;
        let packets = std::mem::take(&mut self.wants.unacked);
        let count = match self.wants.lossy {
            0 => 1,
            _ => packets.min(ACKS_MAX),
        };
        self.wants.lossy = self.wants.lossy.saturating_sub(packets);
        let count = (count as usize).min(datagrams_max).max(1);
        let start = out.len();
        for turn in 0..count {
            self.put_one_ack(now, remote, turn, out);
        }
        let size = (out.len() - start) / count;
        Transmit {
            destination: remote.address,
            segment_size: (count > 1).then_some(size),
            may_fragment: false,
        }
    }

    fn put_one_ack(&mut self, now: Time, remote: Remote, turn: usize, out: &mut Vec<u8>) {
        let blocks = self.receiver.sack_blocks(turn);
        let kinds = if blocks.is_empty() {
            Kinds::ACK
        } else {
            Kinds::SACK
        };
        let header = self.header(kinds, remote.id);
        out.extend_from_slice(&header.to_bytes());
        let size = HEADER_LEN + blocks.len() * SACK_BLOCK_LEN;
        for (start, end) in blocks {
            put_sack(out, start, end);
        }
        self.advertised = header.window;
        self.count_sent(now, kinds, size);
    }

    fn put_bare(&mut self, now: Time, remote: Remote, kinds: Kinds, out: &mut Vec<u8>) -> Transmit {
        out.extend_from_slice(&self.header(kinds, remote.id).to_bytes());
        self.count_sent(now, kinds, HEADER_LEN);
        single(remote)
    }

    fn put_message(&mut self, now: Time, remote: Remote, out: &mut Vec<u8>) -> Option<Transmit> {
        let message = take_first(&mut self.messages_out)?;
        out.extend_from_slice(&self.header(Kinds::MESSAGE, remote.id).to_bytes());
        out.extend_from_slice(&message);
        self.count_sent(now, Kinds::MESSAGE, HEADER_LEN + message.len());
        Some(single(remote))
    }

    fn header(&self, kinds: Kinds, stream_id: u32) -> Header {
        Header {
            kinds,
            data_offset: 0,
            stream_id,
            window: self.receiver.window(),
            seq: seq::to_wire(self.sender.next()),
            ack: seq::to_wire(self.receiver.next()),
        }
    }

    fn count_sent(&mut self, now: Time, kinds: Kinds, bytes: usize) {
        self.advertised = self.receiver.window();
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += bytes as u64;
        self.note_spoken(now, kinds);
    }

    /// The path itself if its address is still known, else the present one.
    fn known_path(&self, path: u32) -> u32 {
        let mut former = self.former.get().into_iter().flatten();
        let is_former = former.any(|&(former, _)| former == path);
        if is_former { path } else { self.path }
    }

    fn remote_of(&self, path: u32) -> Option<Remote> {
        if path == self.path {
            return self.remote;
        }
        let mut former = self.former.get().into_iter().flatten();
        let former = former.find(|&&(former, _)| former == path);
        former.map(|&(_, remote)| remote)
    }
}

fn single(remote: Remote) -> Transmit {
    Transmit {
        destination: remote.address,
        segment_size: None,
        may_fragment: false,
    }
}
