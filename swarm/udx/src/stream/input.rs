//! What a packet does to a stream.
//! Knows the order in which libudx looks at a packet's parts (`process_packet`). Does not send.

use bytes::Bytes;
use ferrocore_primitives::time::Time;

use super::{CloseReason, Life, Stream};
use crate::ack::valid_blocks;
use crate::congestion::{Ack, AckedRate, Recovery};
use crate::flight::{Acked, Losses};
use crate::limits::{DATAGRAM_LEN_MAX, LINGER, MESSAGES_MAX, PACKETS_AHEAD_MAX, SACK_BLOCKS_MAX};
use crate::packet::{Header, Kinds, Packet};
use crate::recv::Received;
use crate::seq;

/// After a packet out of order, or one that came again, so many are taken for a sign that others get lost.
const LOSSY_PACKETS: u32 = 256;

/// What one packet's ack and SACK blocks add up to.
#[derive(Debug, Default)]
struct Progress {
    rate: AckedRate,
    newest: Option<Acked>,
    rtt_of: Option<Time>,
}

impl Stream {
    /// Takes in a packet that names this stream's [`local_id`](Self::local_id).
    ///
    /// Never fails: what cannot be true is ignored and counted in [`stats`](Self::stats).
    pub fn handle_packet(&mut self, now: Time, packet: &Packet<'_>) {
        if matches!(self.life, Life::Closed(_)) {
            return;
        }
        self.counters.packets_received += 1;
        self.counters.bytes_received += (crate::packet::HEADER_LEN
            + usize::from(packet.header.data_offset)
            + packet.payload.len()) as u64;
        if self.is_ack_possible(packet.header.ack) {
            self.timers.on_heard(now);
        }
        if packet.payload.len() > DATAGRAM_LEN_MAX {
            self.counters.mishaps.make().refused += 1;
            return;
        }
        if packet.header.kinds.has(Kinds::HEARTBEAT) {
            self.wants.ack = true; // and nothing else in it counts
            return;
        }
        let seq = seq::near(self.receiver.next(), packet.header.seq);
        if self.handle_destroy(packet.header.kinds, seq) {
            return;
        }
        self.handle_payload(packet, seq);
        if matches!(self.life, Life::Closed(_)) {
            return;
        }
        self.handle_ack(now, packet, seq);
        if packet.header.kinds.has(Kinds::DATA) {
            self.hurry_first_probe(now);
        }
        self.settle(now);
    }

    /// Whether it takes back nothing that was acked and acks nothing that was not sent. Else it is old, or one of the two
    /// was forged: then the peer waits for what we think it has, and that it lives is no reason to wait for ever.
    fn is_ack_possible(&self, ack: u32) -> bool {
        let una = self.sender.una();
        (una..=self.sender.next()).contains(&seq::near(una, ack))
    }

    /// Notes that a packet of `bytes` was passed on, for a relay, instead of taken in: the peer lives.
    pub fn note_relayed(&mut self, now: Time, bytes: usize) {
        self.counters.packets_received += 1;
        self.counters.bytes_received += bytes as u64;
        self.timers.on_heard(now);
    }

    /// Notes that such a packet was passed on to this stream's peer: a DESTROY of ours, which takes the next number, counts there.
    pub fn note_passed_on(&mut self, header: &Header) {
        let seq = seq::near(self.sender.next(), header.seq);
        let is_numbered = header.kinds.has(Kinds::DATA | Kinds::END);
        self.sender.skip_to(seq + u64::from(is_numbered));
    }

    /// DESTROY counts from what is expected next on, so that an old one cannot hit a stream that lives.
    fn handle_destroy(&mut self, kinds: Kinds, seq: u64) -> bool {
        let expected = self.receiver.next();
        let counts = (expected..=expected + PACKETS_AHEAD_MAX).contains(&seq);
        if kinds.has(Kinds::DESTROY) && counts {
            let is_over = matches!(self.life, Life::Lingering(_));
            self.wants.destroy = false;
            self.close((!is_over).then_some(CloseReason::ResetByPeer));
        }
        kinds.has(Kinds::DESTROY)
    }

    fn handle_payload(&mut self, packet: &Packet<'_>, seq: u64) {
        let kinds = packet.header.kinds;
        if kinds.has(Kinds::DATA) && self.is_unwanted(seq) {
            self.destroy();
            return;
        }
        if kinds.has(Kinds::DATA | Kinds::END) {
            self.wants.ack = true;
            self.wants.unacked = self.wants.unacked.saturating_add(1);
            match self.receiver.handle(seq, kinds, packet.payload) {
                Received::InOrder => {}
                Received::Ahead => self.wants.lossy = LOSSY_PACKETS,
                Received::Duplicate => {
                    self.counters.mishaps.make().duplicates += 1;
                    self.wants.lossy = LOSSY_PACKETS;
                }
                Received::Refused => self.counters.mishaps.make().refused += 1,
            }
        }
        if kinds.has(Kinds::MESSAGE) {
            self.handle_message(packet.payload);
        }
    }

    /// Of messages that nobody takes the latest are worth the most.
    fn handle_message(&mut self, message: &[u8]) {
        if !self.is_taking_messages() {
            self.counters.mishaps.make().messages_dropped += 1;
            return;
        }
        let waiting = self.messages_in.make();
        if waiting.len() >= MESSAGES_MAX {
            waiting.pop_front();
            self.counters.mishaps.make().messages_dropped += 1;
        }
        waiting.push_back(Bytes::copy_from_slice(message));
    }

    /// The peer goes on where nobody reads any more. What it repeats because an ack was lost is answered like any.
    fn is_unwanted(&self, seq: u64) -> bool {
        let is_news = seq >= self.receiver.next() && !self.receiver.is_complete();
        is_news && self.is_released && self.life == Life::Connected && self.sender.is_finished()
    }

    fn is_taking_messages(&self) -> bool {
        matches!(self.life, Life::Connected | Life::Unconnected)
    }

    fn handle_ack(&mut self, now: Time, packet: &Packet<'_>, packet_seq: u64) {
        let (una, next) = (self.sender.una(), self.sender.next());
        let ack = seq::near(una, packet.header.ack);
        if ack > next {
            self.counters.mishaps.make().bad_acks += 1;
            return;
        }
        self.update_peer_window(packet.header.window, packet_seq, ack);
        if self.moved_at.is_some_and(|moved_at| ack >= moved_at) {
            self.moved_at = None;
        }
        let was_in_flight = self.sender.has_unacked();
        let mut progress = Progress::default();
        for seq in una..ack {
            self.ack_packet(now, seq, &mut progress);
        }
        self.sender.advance(ack);
        self.ack_blocks(now, packet, &mut progress);
        if was_in_flight {
            self.on_progress(now, progress, ack, ack > una);
        }
    }

    /// The newest packet by sequence number, then by ack, tells the window (RFC 9293's SND.WL1 and WL2). But a
    /// shut window that all else waits for opens by any packet that is not old for certain: the one that shut it
    /// may have lied about its number, and then nothing would be newer.
    fn update_peer_window(&mut self, window: u32, seq: u64, ack: u64) {
        let is_shut = self.peer_window == 0 && !self.sender.has_unacked();
        let is_older = (seq, ack) < self.window_from;
        let is_certain = !is_shut || seq < self.receiver.next();
        let is_old = ack < self.sender.una() || (is_older && is_certain);
        let is_credible = seq <= self.receiver.next() + PACKETS_AHEAD_MAX;
        if is_credible && !is_old {
            self.peer_window = window;
            self.window_from = (seq, ack);
        }
    }

    /// An ack full of blocks may have left out whatever lies above the last of them.
    fn ack_blocks(&mut self, now: Time, packet: &Packet<'_>, progress: &mut Progress) {
        let is_full = packet.sacks().count() >= SACK_BLOCKS_MAX;
        self.told = u64::MAX;
        for block in valid_blocks(packet.sacks(), self.sender.una(), self.sender.next()) {
            match block {
                Ok(block) => {
                    if is_full {
                        self.told = block.1;
                    }
                    for (start, end) in self.sender.news_of(block) {
                        (start..end).for_each(|seq| self.ack_packet(now, seq, progress));
                    }
                }
                Err(_) => self.counters.mishaps.make().bad_sacks += 1,
            }
        }
    }

    fn ack_packet(&mut self, now: Time, seq: u64, progress: &mut Progress) {
        let Some(acked) = self.sender.ack(seq) else {
            return;
        };
        let sent = (acked.sent_at, seq);
        self.rate
            .on_packet_acked(&mut progress.rate, sent, acked.size as u64, acked.rate);
        if acked.is_probe {
            self.mtu.on_probe_acked(acked.size);
            self.bbr.set_packet(self.full_datagram());
        } else {
            self.mtu.on_ack();
        }
        if !acked.was_retransmitted {
            progress.rtt_of = progress.rtt_of.max(Some(acked.sent_at));
        }
        self.rack
            .on_acked(now, sent, acked.was_retransmitted, &self.rtt);
        let newest = progress.newest.as_ref();
        if newest.is_none_or(|newest| (newest.sent_at, newest.seq) < sent) {
            progress.newest = Some(acked);
        }
    }

    /// Draws the conclusions: round trip, losses, rates, timers.
    fn on_progress(&mut self, now: Time, progress: Progress, ack: u64, advanced: bool) {
        self.leave_recovery(ack);
        let rtt = progress.rtt_of.map(|sent_at| now.saturating_since(sent_at));
        if let Some(rtt) = rtt {
            self.rtt.update(now, rtt);
        }
        let acked = progress.rate.bytes();
        if acked > 0 {
            self.tail.on_progress();
            self.arm_after_ack(now, advanced);
        }
        let losses = if acked > 0 {
            self.find_losses(now)
        } else {
            Losses::default()
        };
        let rate = self.rate.finish(now, &progress.rate, self.rtt.min());
        let report = Ack {
            now,
            acked,
            lost: losses.bytes,
            in_flight: self.sender.in_flight(),
            rate,
            rtt,
            recovery: self.recovery,
            delivered: self.rate.delivered(),
            delivered_at: self.rate.delivered_at(),
        };
        self.bbr.on_ack(&report, self.rtt.smoothed());
        self.pacer.set_rate(now, self.bbr.pacing_rate());
        if self.bbr.is_probing_rtt() {
            self.rate.on_app_limited(self.sender.in_flight());
        }
    }

    fn leave_recovery(&mut self, ack: u64) {
        if self.recovery != Recovery::Open && ack >= self.recovery_end {
            self.recovery = Recovery::Open;
            self.rack.on_recovered();
        }
    }

    /// Looks for packets that are lost by now, and begins a recovery if there are.
    pub(super) fn find_losses(&mut self, now: Time) -> Losses {
        let is_recovering = self.recovery != Recovery::Open;
        let window = self
            .rack
            .reordering_window(is_recovering, self.sender.sacked(), &self.rtt);
        let losses = self
            .sender
            .detect_losses(now, &self.rack, window, self.told);
        self.note_losses(&losses);
        if losses.packets > 0 && self.recovery == Recovery::Open {
            self.counters.mishaps.make().fast_recoveries += 1;
            self.recovery = Recovery::Fast;
            self.recovery_end = self.sender.next();
        }
        self.timers.set_reordering(losses.next_at);
        losses
    }

    pub(super) fn note_losses(&mut self, losses: &Losses) {
        if losses.packets > 0 {
            self.counters.mishaps.make().lost += losses.packets;
        }
        self.bbr.on_lost(losses.bytes);
        if let Some(size) = losses.probe {
            self.mtu.on_probe_lost(size);
        }
    }

    /// Both sides have ended and know it of each other: the stream is over, but a peer that missed the last ack
    /// is still answered.
    pub(super) fn settle(&mut self, now: Time) {
        if self.life == Life::Connected && self.receiver.is_complete() && self.sender.is_finished()
        {
            self.life = Life::Lingering(now + LINGER);
            self.timers.stop();
        }
        if self.life == Life::Connected && self.is_released && self.sender.is_finished() {
            self.timers.set_release(now + LINGER);
        }
    }
}
