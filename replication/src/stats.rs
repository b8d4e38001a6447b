//! What a connection has carried.

use std::ops::AddAssign;

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
    /// Requests that came.
    pub requests_received: u64,
    /// Answers to nothing: late, cancelled or made up.
    pub answers_ignored: u64,
    /// Proofs that did not hold.
    pub proofs_refused: u64,
    /// Proofs that had to wait for another that they rest on.
    pub proofs_parked: u64,
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
        self.requests_received += other.requests_received;
        self.answers_ignored += other.answers_ignored;
        self.proofs_refused += other.proofs_refused;
        self.proofs_parked += other.proofs_parked;
    }
}
