//! What a stream has done and how it stands.

use std::time::Duration;

use super::Stream;
use crate::rare::Rare;

/// Counts since the stream was made.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) packets_sent: u64,
    pub(super) packets_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Most streams never see any.
    pub(super) mishaps: Rare<Mishaps>,
}

/// What a good network and a good peer never cause.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Mishaps {
    pub(super) retransmits: u64,
    pub(super) lost: u64,
    pub(super) timeouts: u64,
    pub(super) fast_recoveries: u64,
    pub(super) tail_probes: u64,
    pub(super) duplicates: u64,
    pub(super) refused: u64,
    pub(super) bad_acks: u64,
    pub(super) bad_sacks: u64,
    pub(super) messages_dropped: u64,
}

/// A snapshot of a stream. Bytes count UDX headers, but not those of UDP and IP.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Stats {
    /// Packets sent, of every kind.
    pub packets_sent: u64,
    /// Packets received, of every kind.
    pub packets_received: u64,
    /// Bytes of packets sent.
    pub bytes_sent: u64,
    /// Bytes of packets received.
    pub bytes_received: u64,
    /// Packets sent again.
    pub retransmits: u64,
    /// Packets found lost, some of them more than once.
    pub lost: u64,
    /// Times the retransmission timer fired.
    pub timeouts: u64,
    /// Losses noticed by acks of later packets.
    pub fast_recoveries: u64,
    /// Tail-loss probes sent.
    pub tail_probes: u64,
    /// Packets received again.
    pub duplicates: u64,
    /// Packets there was no room for, or after the end.
    pub refused: u64,
    /// Acks of what was never sent.
    pub bad_acks: u64,
    /// SACK blocks that cannot be true.
    pub bad_sacks: u64,
    /// Unordered messages received that nobody took before [`MESSAGES_MAX`](crate::limits::MESSAGES_MAX) others came.
    pub messages_dropped: u64,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Smallest round trip of the last five minutes.
    pub rtt_min: Option<Duration>,
    /// Bytes that may be in flight.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// The receive window that the peer named last, in bytes.
    pub peer_window: u32,
    /// Bandwidth of the path as seen of late, in bytes per second.
    pub bandwidth: u64,
    /// Largest datagram known to pass, with IP and UDP headers.
    pub mtu: u16,
    /// State of congestion control: `startup`, `drain`, `probe-bandwidth` or `probe-rtt`.
    pub congestion_state: &'static str,
}

impl Stream {
    /// How the stream stands.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let mishaps = counters.mishaps.get().copied().unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
        let bandwidth = self.bbr.bandwidth() as u64;
        Stats {
            packets_sent: counters.packets_sent,
            packets_received: counters.packets_received,
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            retransmits: mishaps.retransmits,
            lost: mishaps.lost,
            timeouts: mishaps.timeouts,
            fast_recoveries: mishaps.fast_recoveries,
            tail_probes: mishaps.tail_probes,
            duplicates: mishaps.duplicates,
            refused: mishaps.refused,
            bad_acks: mishaps.bad_acks,
            bad_sacks: mishaps.bad_sacks,
            messages_dropped: mishaps.messages_dropped,
            rtt: self.rtt.smoothed(),
            rtt_min: self.rtt.min(),
            congestion_window: self.bbr.window(),
            in_flight: self.sender.in_flight(),
            peer_window: self.peer_window,
            bandwidth,
            mtu: self.mtu.current(),
            congestion_state: self.bbr.mode_name(),
        }
    }
}
