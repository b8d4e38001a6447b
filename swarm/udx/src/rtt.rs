//! Round-trip times: smoothed, their variation, the smallest of late, and the retransmission timeout (RFC 6298).
//! Knows samples. Does not know packets.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::congestion::filter::{Window, Windowed};
use crate::limits::{RTO_INITIAL, RTO_MAX, RTO_MIN, RTT_MAX};
use crate::span::Span;

/// Estimates of one path.
#[derive(Debug)]
pub(crate) struct Rtt {
    smoothed: Option<Span>,
    variation: Span,
    min: Windowed<Smallest>,
}

/// The smallest round trip of the last five minutes.
#[derive(Debug)]
struct Smallest;

impl Window for Smallest {
    type At = Time;
    type Value = Span;
    const LEN: u64 = MIN_WINDOW_NANOS;

    fn age(now: Time, then: Time) -> u64 {
        now.as_nanos().saturating_sub(then.as_nanos())
    }

    fn is_better(value: Span, than: Span) -> bool {
        value <= than
    }
}

impl Rtt {
    pub(crate) fn new() -> Self {
        Self {
            smoothed: None,
            variation: Span::ZERO,
            min: Windowed::new(),
        }
    }

    /// Takes a sample of a packet that was sent once.
    pub(crate) fn update(&mut self, now: Time, sample: Duration) {
        let sample = self.clamp(sample);
        self.min.update(now, sample.into());
        let Some(smoothed) = self.smoothed() else {
            self.smoothed = Some(sample.into());
            self.variation = (sample / 2).into();
            return;
        };
        self.variation = ((self.variation() * 3 + smoothed.abs_diff(sample)) / 4).into();
        self.smoothed = Some(((smoothed * 7 + sample) / 8).into());
    }

    /// `None` before the first sample.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(Span::get)
    }

    /// The smallest of the last five minutes.
    pub(crate) fn min(&self) -> Option<Duration> {
        self.min.get().map(Span::get)
    }

    /// Time after which an unanswered packet counts as lost, without backing off.
    pub(crate) fn rto(&self) -> Duration {
        self.smoothed().map_or(RTO_INITIAL, |smoothed| {
            (smoothed + self.variation() * 4).clamp(RTO_MIN, RTO_MAX)
        })
    }

    fn variation(&self) -> Duration {
        self.variation.get()
    }

    /// A machine that slept measures its sleep: such samples are cut (libudx `clamp_rtt`).
    fn clamp(&self, sample: Duration) -> Duration {
        let Some(smoothed) = self.smoothed() else {
            return sample.min(RTT_MAX);
        };
        let outlier = smoothed + self.variation() * 5;
        if sample > SUSPICIOUS && sample > outlier {
            outlier.min(RTT_MAX)
        } else {
            sample
        }
    }
}

const MIN_WINDOW_NANOS: u64 = 300_000_000_000;
const SUSPICIOUS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_samples_within_its_bounds() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.rto(), RTO_INITIAL);
        rtt.update(Time::ZERO, Duration::from_millis(1));
        assert_eq!(rtt.rto(), RTO_MIN);
        let mut slow = Rtt::new();
        slow.update(Time::ZERO, Duration::from_millis(400));
        assert_eq!(slow.rto(), Duration::from_millis(400 + 4 * 200));
        slow.update(Time::ZERO, Duration::from_secs(29));
        assert!(
            slow.rto() < Duration::from_secs(4),
            "a sleep is no round trip"
        );
        assert_eq!(slow.min(), Some(Duration::from_millis(400)));
    }
}
