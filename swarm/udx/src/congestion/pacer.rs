//! Spreads packets over time: a bucket of bytes that fills at the pacing rate.
//! Knows bytes and times. Does not know why the rate is what it is.

use std::time::Duration;

use ferrocore_primitives::time::Time;

/// The bucket. A batch may overdraw it; the debt is waited for.
#[derive(Debug)]
pub(crate) struct Pacer {
    rate: f64,
    tokens: f64,
    filled_at: Time,
}

impl Pacer {
    pub(crate) fn new(rate: f64) -> Self {
        Self {
            rate,
            tokens: BURST_MIN,
            filled_at: Time::ZERO,
        }
    }

    /// Sets the rate, in bytes per second.
    pub(crate) fn set_rate(&mut self, now: Time, rate: f64) {
        self.fill(now);
        self.rate = rate.max(RATE_MIN);
    }

    /// True if a packet may leave now.
    pub(crate) fn may_send(&mut self, now: Time) -> bool {
        self.fill(now);
        self.tokens > 0.0
    }

    pub(crate) fn on_sent(&mut self, bytes: u64) {
        #[allow(clippy::cast_precision_loss)] // packets are small
        let bytes = bytes as f64;
        self.tokens -= bytes;
    }

    /// When the next packet may leave: later than the last one could, be it by the clock's smallest step.
    pub(crate) fn ready_at(&self) -> Time {
        let wait = (1.0 - self.tokens).max(0.0) / self.rate;
        let wait = Duration::from_secs_f64(wait.min(WAIT_MAX_SECS));
        self.filled_at + wait.max(Duration::from_nanos(1))
    }

    /// Timers of drivers are a millisecond coarse: the bucket holds what a late one has missed.
    fn fill(&mut self, now: Time) {
        let elapsed = now.saturating_since(self.filled_at).as_secs_f64();
        let full = (self.rate * BURST_SECS).max(BURST_MIN);
        self.tokens = (self.tokens + elapsed * self.rate).min(full);
        self.filled_at = self.filled_at.max(now);
    }
}

/// What the bucket holds at least, in bytes: ten packets, the initial window.
const BURST_MIN: f64 = 15_000.0;
const BURST_SECS: f64 = 0.004;
/// No estimate is so bad that a packet waits longer than its share of this, in bytes per second.
const RATE_MIN: f64 = 1_500.0;
const WAIT_MAX_SECS: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_at_the_rate() {
        // A packet takes 1.5 ms, or less than a nanosecond.
        for (rate, millis) in [(1_000_000.0, 1_000), (2_576_653_308.6, 10), (1e13, 1)] {
            let mut pacer = Pacer::new(rate);
            let (mut now, mut sent) = (Time::ZERO, 0.0);
            let span = Duration::from_millis(millis);
            while now < Time::ZERO + span {
                while pacer.may_send(now) {
                    pacer.on_sent(1_500);
                    sent += 1_500.0;
                }
                assert!(pacer.ready_at() > now, "at {rate} the time stands still");
                now = pacer.ready_at();
            }
            let due = rate * span.as_secs_f64();
            let burst = BURST_MIN.max(rate * 1e-9);
            assert!(
                (due..due + burst + 5_000.0).contains(&sent),
                "{sent} bytes of {due}"
            );
        }
    }
}
