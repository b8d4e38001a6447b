//! When a packet counts as lost: RACK, tail-loss probes (RFC 8985) and what reordering teaches them.
//! Knows times and sequence numbers. Does not know packets' contents or congestion control.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::rtt::Rtt;
use crate::span::Span;

/// The newest packet known to have arrived, and how patient to be with those sent before it.
#[derive(Debug)]
pub(crate) struct Rack {
    newest: Option<(Time, u64)>,
    rtt: Span,
    highest: u64,
    saw_reordering: bool,
    /// Quarters of the smallest round trip; grows when a retransmission turns out to be needless.
    patience: u32,
    calm_recoveries: u32,
}

impl Rack {
    pub(crate) fn new(una: u64) -> Self {
        Self {
            newest: None,
            rtt: Span::ZERO,
            highest: una,
            saw_reordering: false,
            patience: 1,
            calm_recoveries: 0,
        }
    }

    /// Packet `seq`, last sent at `sent_at`, has arrived.
    pub(crate) fn on_acked(
        &mut self,
        now: Time,
        (sent_at, seq): (Time, u64),
        was_retransmitted: bool,
        rtt: &Rtt,
    ) {
        let took = now.saturating_since(sent_at);
        let min = rtt.min().unwrap_or(Duration::ZERO);
        if was_retransmitted && took < min {
            // The ack is the first transmission's: it was late, not lost.
            if took < min / 2 {
                self.on_needless_retransmission();
            }
            return;
        }
        if self.newest.is_none_or(|newest| newest < (sent_at, seq)) {
            self.newest = Some((sent_at, seq));
            self.rtt = took.into();
        }
        if seq >= self.highest {
            self.highest = seq + 1;
        } else if !was_retransmitted {
            self.saw_reordering = true;
        }
    }

    /// A recovery is over; patience fades after sixteen without a mistake.
    pub(crate) fn on_recovered(&mut self) {
        self.calm_recoveries += 1;
        if self.calm_recoveries >= PATIENCE_RECOVERIES {
            self.patience = 1;
        }
    }

    /// True if a packet was sent before the newest that has arrived.
    pub(crate) fn is_sent_before(&self, sent_at: Time, seq: u64) -> bool {
        self.newest.is_some_and(|newest| (sent_at, seq) < newest)
    }

    /// The round trip of the newest packet that has arrived.
    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.get()
    }

    /// How much longer than a round trip a packet may take.
    pub(crate) fn reordering_window(
        &self,
        is_recovering: bool,
        sacked: usize,
        rtt: &Rtt,
    ) -> Duration {
        if !self.saw_reordering && (is_recovering || sacked >= DUPLICATE_THRESHOLD) {
            return Duration::ZERO;
        }
        let window = rtt.min().unwrap_or(Duration::ZERO) / 4 * self.patience;
        window.min(rtt.smoothed().unwrap_or(Duration::ZERO))
    }

    fn on_needless_retransmission(&mut self) {
        self.saw_reordering = true;
        self.patience = (self.patience + 1).min(PATIENCE_MAX);
        self.calm_recoveries = 0;
    }
}

const DUPLICATE_THRESHOLD: usize = 3;
const PATIENCE_RECOVERIES: u32 = 16;
const PATIENCE_MAX: u32 = 40;

/// Packets sent, beyond the window if need be, when nothing was heard for a while: their acks tell which of those
/// before them are lost. Also in the middle of a recovery, unlike RFC 8985's: where many packets are lost, so are
/// many of those sent again, and waiting for the retransmission timer costs dozens of round trips.
#[derive(Debug, Default)]
pub(crate) struct TailProbe {
    /// Probes since the peer acked something new.
    unanswered: u32,
}

impl TailProbe {
    /// Whether none was sent since the peer acked something new.
    pub(crate) fn is_unused(&self) -> bool {
        self.unanswered == 0
    }

    pub(crate) fn may_send(&self) -> bool {
        self.unanswered < PROBES_MAX
    }

    pub(crate) fn on_sent(&mut self) {
        self.unanswered += 1;
    }

    /// The peer acked something new.
    pub(crate) fn on_progress(&mut self) {
        self.unanswered = 0;
    }

    /// Time until the next one (RFC 8985, 7.2), doubled from the third on.
    pub(crate) fn timeout(&self, rtt: &Rtt, in_flight_packets: usize) -> Duration {
        let doublings = self.unanswered.saturating_sub(1).min(PROBES_MAX);
        probe_timeout(rtt, in_flight_packets) * (1 << doublings)
    }
}

/// After these the retransmission timer takes over.
const PROBES_MAX: u32 = 4;

fn probe_timeout(rtt: &Rtt, in_flight_packets: usize) -> Duration {
    let Some(smoothed) = rtt.smoothed() else {
        return WITHOUT_SAMPLE;
    };
    let slack = if in_flight_packets == 1 {
        ACK_DELAY_MAX
    } else {
        Duration::ZERO
    };
    (smoothed * 2 + slack).max(PROBE_TIMEOUT_MIN)
}

const WITHOUT_SAMPLE: Duration = Duration::from_secs(1);
/// libudx answers at once, but a busy one somewhat later.
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);
/// Shorter than this a driver's timer and a scheduler's turn are noise.
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(5);
