//! Packets on their way: sent at least once, or about to be, and not acked with all before them.
//! Knows their order, which are lost and which arrived ahead. Does not know what is to be sent next.

use std::collections::VecDeque;

use bytes::Bytes;
use ferrocore_primitives::time::Time;

use crate::ack::RangeSet;
use crate::congestion::PacketRate;
use crate::loss::Rack;
use crate::packet::{HEADER_LEN, Kinds};
use crate::rare::Rare;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    Lost,
    Acked,
}

/// A packet that was sent at least once, or is about to be.
#[derive(Debug)]
pub(crate) struct Sent {
    payload: Bytes,
    kinds: Kinds,
    fate: Fate,
    /// Nonzero while the packet is a probe of the MTU.
    padding: u8,
    transmits: u32,
    /// Which remote address it was first sent to, counted over the stream's life.
    path: u32,
    sent_at: Time,
    rate: PacketRate,
    timed_out: bool,
}

/// What the rest of the stream learns of an acked packet.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) seq: u64,
    pub(crate) size: usize,
    pub(crate) sent_at: Time,
    pub(crate) rate: PacketRate,
    pub(crate) is_probe: bool,
    pub(crate) was_retransmitted: bool,
}

/// A packet to be sent again.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) seq: u64,
    /// Bytes of the datagram.
    pub(crate) size: usize,
    pub(crate) path: u32,
    /// How often it was sent.
    pub(crate) transmits: u32,
}

/// What a search for losses found.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) bytes: u64,
    /// Without probes of the MTU, which say nothing about congestion.
    pub(crate) packets: u64,
    pub(crate) probe: Option<usize>,
    /// When the next packet counts as lost if nothing is heard.
    pub(crate) next_at: Option<Time>,
}

/// The packets from the first unacked one on. There is none while a stream is idle, which is most of the time.
#[derive(Debug)]
pub(crate) struct Flight {
    una: u64,
    packets: VecDeque<Sent>,
    /// Every transmission in the order of time; those superseded are skipped when they come up.
    order: VecDeque<(u64, u32)>,
    in_flight: u64,
    in_flight_packets: usize,
    unacked_payload: u64,
    sacked: usize,
    trouble: Rare<Trouble>,
}

/// What there is to know once packets are missing.
#[derive(Debug, Default)]
struct Trouble {
    /// In the order in which they are sent again.
    lost: VecDeque<u64>,
    /// Transmissions that may have arrived without the peer having had room to say so.
    untold: VecDeque<(u64, u32)>,
    /// What the peer's SACK blocks have named.
    named: RangeSet,
}

impl Flight {
    /// With the packets from `una` on, of which there are none yet.
    pub(crate) fn new(una: u64) -> Self {
        Self {
            una,
            packets: VecDeque::with_capacity(1), // many streams say one thing at a time
            order: VecDeque::with_capacity(1),
            in_flight: 0,
            in_flight_packets: 0,
            unacked_payload: 0,
            sacked: 0,
            trouble: Rare::default(),
        }
    }

    /// Appends a packet; send it with [`Flight::transmit`].
    pub(crate) fn push(&mut self, payload: Bytes, kinds: Kinds, padding: u8, path: u32) {
        self.unacked_payload += length(payload.len());
        self.packets.push_back(Sent {
            payload,
            kinds,
            fate: Fate::Lost, // not in flight until transmitted
            padding,
            transmits: 0,
            path,
            sent_at: Time::ZERO,
            rate: PacketRate::default(),
            timed_out: false,
        });
    }

    /// Notes that packet `seq` leaves now, and returns it for its bytes.
    pub(crate) fn transmit(&mut self, seq: u64, now: Time, rate: PacketRate) -> Option<&Sent> {
        let index = self.index(seq)?;
        let packet = self.packets.get_mut(index)?;
        if packet.fate == Fate::Lost {
            packet.fate = Fate::InFlight;
            self.in_flight += length(packet.size());
            self.in_flight_packets += 1;
        }
        packet.transmits = packet.transmits.saturating_add(1);
        packet.sent_at = now;
        packet.rate = rate;
        self.order.push_back((seq, packet.transmits));
        self.compact_order();
        self.packet(seq)
    }

    /// The next lost packet to send again.
    pub(crate) fn peek_lost(&mut self) -> Option<Lost> {
        while let Some(seq) = self.first_lost() {
            match self.packet(seq) {
                Some(packet) if packet.fate == Fate::Lost => {
                    return Some(Lost {
                        seq,
                        size: packet.size(),
                        path: packet.current_path(),
                        transmits: packet.transmits,
                    });
                }
                _ => self.trouble.make().lost.pop_front(),
            };
        }
        None
    }

    /// Marks packet `seq` as arrived; `None` if it was known.
    pub(crate) fn ack(&mut self, seq: u64) -> Option<Acked> {
        let index = self.index(seq)?;
        let packet = self.packets.get_mut(index)?;
        if packet.fate == Fate::Acked {
            return None;
        }
        let acked = packet.acked(seq);
        if packet.fate == Fate::InFlight {
            self.in_flight -= length(acked.size);
            self.in_flight_packets -= 1;
        }
        packet.fate = Fate::Acked;
        self.sacked += 1;
        Some(acked)
    }

    /// The parts of a valid SACK block that no block has named before.
    pub(crate) fn news_of(&mut self, (start, end): (u64, u64)) -> Vec<(u64, u64)> {
        self.trouble.make().named.insert_range(start, end)
    }

    /// Forgets the packets below `ack`, all acked before.
    pub(crate) fn advance(&mut self, ack: u64) {
        while self.una < ack
            && let Some(packet) = self.packets.pop_front()
        {
            debug_assert_eq!(packet.fate, Fate::Acked, "advanced over an unacked packet");
            self.una += 1;
            self.sacked -= 1;
            self.unacked_payload -= length(packet.payload.len());
        }
        if let Some(trouble) = self.trouble.get_mut() {
            trouble.named.remove_below(ack);
        }
    }

    /// Marks as lost what was sent long enough before something that has arrived (RFC 8985, 6.2). Packets from
    /// `told` on are left out: the peer's last ack had no room to tell of them.
    pub(crate) fn detect_losses(
        &mut self,
        now: Time,
        rack: &Rack,
        reordering: std::time::Duration,
        told: u64,
    ) -> Losses {
        let mut losses = Losses::default();
        self.reconsider(told);
        while let Some(&(seq, transmit)) = self.order.front() {
            match self.live(seq, transmit) {
                None => {}
                Some(_) if seq >= told => self.trouble.make().untold.push_back((seq, transmit)),
                Some(sent_at) if !rack.is_sent_before(sent_at, seq) => break,
                Some(sent_at) => {
                    let lost_at = sent_at + rack.rtt() + reordering;
                    if lost_at > now {
                        losses.next_at = Some(lost_at);
                        break;
                    }
                    self.lose(seq, &mut losses);
                }
            }
            self.order.pop_front();
        }
        losses
    }

    /// The retransmission timer fired: everything in flight is lost.
    pub(crate) fn lose_all(&mut self) -> Losses {
        let mut losses = Losses::default();
        self.trouble.make().lost.clear();
        for seq in self.una..self.next() {
            match self.packet(seq).map(|packet| packet.fate) {
                Some(Fate::InFlight) => {
                    self.lose(seq, &mut losses);
                    self.mark_timed_out(seq);
                }
                Some(Fate::Lost) => self.trouble.make().lost.push_back(seq),
                _ => {}
            }
        }
        self.order.clear();
        self.trouble.make().untold.clear();
        losses
    }

    /// Packet `seq` and its path, unless it has arrived: what a probe sends again.
    pub(crate) fn unacked(&self, seq: u64) -> Option<(u64, u32)> {
        let packet = self.packet(seq)?;
        (packet.fate != Fate::Acked).then(|| (seq, packet.current_path()))
    }

    /// The first that is not acked.
    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    /// The sequence number after the last.
    pub(crate) fn next(&self) -> u64 {
        self.una + length(self.packets.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes sent, neither acked nor lost.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Payload between the first unacked packet and the last sent one, in bytes.
    pub(crate) fn unacked_payload(&self) -> u64 {
        self.unacked_payload
    }

    /// Packets acked ahead of one that is not.
    pub(crate) fn sacked(&self) -> usize {
        self.sacked
    }

    /// How often the END was sent if it is all there is, without payload.
    pub(crate) fn bare_end_transmits(&self) -> Option<u32> {
        let only = self.packets.front().filter(|_| self.packets.len() == 1)?;
        (only.kinds == Kinds::END).then_some(only.transmits)
    }

    /// Puts back in line what acks tell of by now. New packets are in the order of their numbers, so that the
    /// first of those left out is nearly always the lowest; what is not waits a little longer.
    fn reconsider(&mut self, told: u64) {
        let Some(trouble) = self.trouble.get_mut() else {
            return;
        };
        let known = trouble.untold.iter().take_while(|&&(seq, _)| seq < told);
        let known = known.count();
        for packet in trouble.untold.drain(..known).rev() {
            self.order.push_front(packet);
        }
    }

    fn first_lost(&self) -> Option<u64> {
        self.trouble.get()?.lost.front().copied()
    }

    fn index(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.una)?).ok()
    }

    fn packet(&self, seq: u64) -> Option<&Sent> {
        self.packets.get(self.index(seq)?)
    }

    /// When that transmission left, if it is the packet's latest and still in flight.
    fn live(&self, seq: u64, transmit: u32) -> Option<Time> {
        let packet = self.packet(seq)?;
        (packet.fate == Fate::InFlight && packet.transmits == transmit).then_some(packet.sent_at)
    }

    fn lose(&mut self, seq: u64, losses: &mut Losses) {
        let Some(packet) = self
            .index(seq)
            .and_then(|index| self.packets.get_mut(index))
        else {
            return;
        };
        let size = packet.size();
        packet.fate = Fate::Lost;
        self.in_flight -= length(size);
        self.in_flight_packets -= 1;
        self.trouble.make().lost.push_back(seq);
        losses.bytes += length(size);
        if std::mem::take(&mut packet.padding) == 0 {
            losses.packets += 1;
        } else {
            losses.probe = Some(size);
        }
    }

    fn mark_timed_out(&mut self, seq: u64) {
        if let Some(packet) = self
            .index(seq)
            .and_then(|index| self.packets.get_mut(index))
        {
            packet.timed_out = true;
        }
    }

    /// Keeps superseded entries from piling up behind a packet that stays in flight.
    fn compact_order(&mut self) {
        let untold = self.trouble.get().map_or(0, |trouble| trouble.untold.len());
        if self.order.len() + untold <= 2 * self.packets.len() + 64 {
            return;
        }
        if let Some(trouble) = self.trouble.get_mut() {
            let mut untold = std::mem::take(&mut trouble.untold);
            untold.retain(|&(seq, transmit)| self.live(seq, transmit).is_some());
            self.trouble.make().untold = untold;
        }
        let mut order = std::mem::take(&mut self.order);
        order.retain(|&(seq, transmit)| self.live(seq, transmit).is_some());
        self.order = order;
    }
}

impl Sent {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn kinds(&self) -> Kinds {
        self.kinds
    }

    pub(crate) fn padding(&self) -> u8 {
        self.padding
    }

    pub(crate) fn was_retransmitted(&self) -> bool {
        self.transmits > 1
    }

    /// Bytes of the datagram.
    fn size(&self) -> usize {
        HEADER_LEN + usize::from(self.padding) + self.payload.len()
    }

    /// A packet goes where it first went, until a timeout shows that path to be dead.
    fn current_path(&self) -> u32 {
        if self.timed_out { u32::MAX } else { self.path }
    }

    fn acked(&self, seq: u64) -> Acked {
        Acked {
            seq,
            size: self.size(),
            sent_at: self.sent_at,
            rate: self.rate,
            is_probe: self.padding != 0,
            was_retransmitted: self.was_retransmitted(),
        }
    }
}

/// Lengths in memory fit 64 bits on every platform.
fn length(len: usize) -> u64 {
    len as u64
}
