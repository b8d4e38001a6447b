//! What a connection has carried, and how fast.
//!
//! Knows sums and rates. Does not know what becomes of them.

use std::ops::{AddAssign, Sub};
use std::time::Duration;

use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::time::Time;

use crate::seldom::Seldom;

/// Counters of one connection, or of one channel of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Blocks that came, verified and were new.
    pub blocks_downloaded: u64,
    /// Their bytes.
    pub bytes_downloaded: u64,
    /// Blocks sent.
    pub blocks_uploaded: u64,
    /// Their bytes.
    pub bytes_uploaded: u64,
    /// Requests sent.
    pub requests_sent: u64,
    /// Requests given up because no answer came.
    pub requests_timed_out: u64,
    /// Requests taken back because another peer was faster.
    pub requests_overtaken: u64,
    /// Requests taken back because nobody waits for their block any more.
    pub requests_cancelled: u64,
    /// Requests that came.
    pub requests_received: u64,
    /// Messages of any kind sent.
    pub messages_sent: u64,
    /// Messages of any kind that came.
    pub messages_received: u64,
    /// Answers to nothing: late, cancelled or made up.
    pub answers_ignored: u64,
    /// Proofs that did not hold.
    pub proofs_refused: u64,
    /// Proofs that had to wait for another that they rest on.
    pub proofs_parked: u64,
    /// Answers for which there was no room while they would have had to wait. What they were to is asked for again.
    pub answers_dropped: u64,
    /// Bytes that came of messages of more than [`FREE_FRAME_LEN`](ferrocore_secret_stream::budget::FREE_FRAME_LEN), whole or
    /// not: they grow while a long block is on its way. Counted by sessions, not by channels.
    pub long_bytes_received: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.blocks_downloaded += other.blocks_downloaded;
        self.bytes_downloaded += other.bytes_downloaded;
        self.blocks_uploaded += other.blocks_uploaded;
        self.bytes_uploaded += other.bytes_uploaded;
        self.requests_sent += other.requests_sent;
        self.requests_timed_out += other.requests_timed_out;
        self.requests_overtaken += other.requests_overtaken;
        self.requests_cancelled += other.requests_cancelled;
        self.requests_received += other.requests_received;
        self.messages_sent += other.messages_sent;
        self.messages_received += other.messages_received;
        self.answers_ignored += other.answers_ignored;
        self.proofs_refused += other.proofs_refused;
        self.proofs_parked += other.proofs_parked;
        self.answers_dropped += other.answers_dropped;
        self.long_bytes_received += other.long_bytes_received;
    }
}

/// What was carried since an earlier moment.
impl Sub for Stats {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            blocks_downloaded: self.blocks_downloaded - earlier.blocks_downloaded,
            bytes_downloaded: self.bytes_downloaded - earlier.bytes_downloaded,
            blocks_uploaded: self.blocks_uploaded - earlier.blocks_uploaded,
            bytes_uploaded: self.bytes_uploaded - earlier.bytes_uploaded,
            requests_sent: self.requests_sent - earlier.requests_sent,
            requests_timed_out: self.requests_timed_out - earlier.requests_timed_out,
            requests_overtaken: self.requests_overtaken - earlier.requests_overtaken,
            requests_cancelled: self.requests_cancelled - earlier.requests_cancelled,
            requests_received: self.requests_received - earlier.requests_received,
            messages_sent: self.messages_sent - earlier.messages_sent,
            messages_received: self.messages_received - earlier.messages_received,
            answers_ignored: self.answers_ignored - earlier.answers_ignored,
            proofs_refused: self.proofs_refused - earlier.proofs_refused,
            proofs_parked: self.proofs_parked - earlier.proofs_parked,
            answers_dropped: self.answers_dropped - earlier.answers_dropped,
            long_bytes_received: self.long_bytes_received - earlier.long_bytes_received,
        }
    }
}

/// The counters of one channel. Most of many thousand have exchanged a few messages, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    messages_sent: u64,
    messages_received: u64,
    others: Seldom<Stats>,
}

impl Tally {
    pub(crate) fn add(&mut self, counted: Stats) {
        self.messages_sent += counted.messages_sent;
        self.messages_received += counted.messages_received;
        let others = Stats {
            messages_sent: 0,
            messages_received: 0,
            ..counted
        };
        if others != Stats::default() {
            *self.others.need() += others;
        }
    }

    pub(crate) fn sum(&self) -> Stats {
        Stats {
            messages_sent: self.messages_sent,
            messages_received: self.messages_received,
            ..self.others.get().copied().unwrap_or_default()
        }
    }
}

/// What one channel of a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreStats {
    /// The core.
    pub key: Key,
    /// Its name on the wire.
    pub discovery_key: DiscoveryKey,
    /// What was carried so far.
    pub stats: Stats,
    /// Our requests that wait for an answer.
    pub in_flight: usize,
    /// How many of them there may be.
    pub window: usize,
    /// The shortest time from a request for a block to its answer; unknown before the first.
    pub round_trip: Option<Duration>,
    /// The fork that the peer says to be on.
    pub remote_fork: u64,
    /// The length that it says to have, in blocks.
    pub remote_length: u64,
    /// How many blocks from the first it has without a gap.
    pub remote_contiguous: u64,
}

/// What one session carries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionReport {
    /// How long it has been there.
    pub age: Duration,
    /// What it has carried so far, all cores together.
    pub stats: Stats,
    /// Bytes of blocks sent in a second, lately.
    pub upload_rate: f64,
    /// Bytes of blocks that came in a second, lately.
    pub download_rate: f64,
    /// Each core on it, in no order.
    pub cores: Vec<CoreStats>,
}

impl SessionReport {
    /// The shortest time from a request to its answer, on any core.
    pub fn round_trip(&self) -> Option<Duration> {
        self.cores.iter().filter_map(|core| core.round_trip).min()
    }

    /// Our requests that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.cores.iter().map(|core| core.in_flight).sum()
    }
}

/// How fast something grows, averaged over the last seconds: what lies [`Rate::MEMORY`] back counts for a
/// third of what is now.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_second: f64,
    at: Time,
}

impl Rate {
    /// How far back it looks.
    pub const MEMORY: Duration = Duration::from_secs(3);

    /// Nothing has grown so far.
    pub fn new(now: Time) -> Self {
        Self {
            per_second: 0.0,
            at: now,
        }
    }

    /// It has grown by `amount`.
    pub fn add(&mut self, amount: u64, now: Time) {
        self.per_second = self.per_second(now) + amount as f64 / Self::MEMORY.as_secs_f64();
        self.at = now;
    }

    /// How much it grows in a second.
    pub fn per_second(&self, now: Time) -> f64 {
        let age = now.saturating_since(self.at).as_secs_f64();
        self.per_second * (-age / Self::MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a steady flow is told as it is, and one that has ended is forgotten.
    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::new(Time::ZERO);
        let mut now = Time::ZERO;
        for _ in 0..200 {
            now += Duration::from_millis(100);
            rate.add(1_000, now);
        }
        let steady = rate.per_second(now);
        assert!((9_800.0..10_200.0).contains(&steady), "{steady}");
        let later = rate.per_second(now + Duration::from_secs(30));
        assert!(later < 1.0, "{later}");
    }
}
