//! How fast whoever holds room has to move.
//!
//! Knows bytes and time. Does not know who waits.

use std::time::Duration;

use tokio::time::Instant;

/// While nobody waits room may be held for as long as something moves...
pub(super) const AT_LEISURE: Tempo = Tempo {
    still: Duration::from_secs(60),
    bytes_a_second: 1024,
};

/// ... and while others wait: whoever stalls goes first.
pub(super) const HURRIED: Tempo = Tempo {
    still: Duration::from_secs(10),
    bytes_a_second: 64 * 1024,
};

/// A process that limits itself to some rate may move each of its streams at a rate so many times smaller.
pub(super) const STREAMS_AT_PACE: u64 = 64;

/// The least that has to move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tempo {
    /// For so long nothing need move; nor after something did, however much.
    pub(super) still: Duration,
    /// On average.
    pub(super) bytes_a_second: u64,
}

impl Tempo {
    /// The same where `pace` bytes a second are the most that all streams move.
    pub(super) fn at_pace(self, pace: Option<u64>) -> Self {
        let slowest = pace.map_or(u64::MAX, |pace| (pace / STREAMS_AT_PACE).max(1));
        Self {
            bytes_a_second: self.bytes_a_second.min(slowest),
            ..self
        }
    }

    /// How long so many bytes may take.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64) + self.still
    }

    /// By when more has to move, if it was `due` before and `bytes` move now.
    pub(super) fn next_due(&self, due: Instant, bytes: u64, now: Instant) -> Instant {
        let seconds = bytes as f64 / self.bytes_a_second as f64;
        let worth = Duration::try_from_secs_f64(seconds).unwrap_or(WORTH_MAX);
        (due + worth.min(WORTH_MAX)).min(now + self.still)
    }
}

/// More than anything is worth.
const WORTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
