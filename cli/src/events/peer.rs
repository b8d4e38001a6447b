//! Who comes and goes, what connections carry, what peers do wrong.

use ferrocore::PublicKey;
use ferrocore::primitives::id::encode_z32;
use ferrocore::replication::PeerMisbehaved;
use serde::Serialize;

use crate::output::{Event, count, human_bytes};

/// A peer came or went, or could not be reached.
#[derive(Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) remote_key: Option<String>,
    pub(crate) address: String,
    pub(crate) via: &'static str,
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Event for Peer {
    const NAME: &'static str = "peer";
    const VERBOSITY: u8 = 1;

    fn words(&self) -> Option<String> {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}"));
        Some(format!(
            "peer {} {}{}",
            self.address,
            self.state,
            reason.unwrap_or_default()
        ))
    }
}

/// One connection, in `status`. Rates are bytes of blocks a second, times are seconds.
#[derive(Debug, Serialize)]
pub(crate) struct PeerStatus {
    pub(crate) remote_key: String,
    pub(crate) address: String,
    pub(crate) via: &'static str,
    pub(crate) state: &'static str,
    pub(crate) initiator: bool,
    pub(crate) seconds: f64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) round_trip: Option<f64>,
    pub(crate) in_flight: usize,
    pub(crate) cores: Vec<CorePeer>,
}

/// What a peer has of one core, and what went to and fro.
#[derive(Debug, Serialize)]
pub(crate) struct CorePeer {
    pub(crate) key: String,
    pub(crate) length: u64,
    pub(crate) contiguous: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) blocks_up: u64,
    pub(crate) blocks_down: u64,
    pub(crate) in_flight: usize,
    pub(crate) window: usize,
    pub(crate) round_trip: Option<f64>,
}

impl Event for PeerStatus {
    const NAME: &'static str = "peer";

    fn words(&self) -> Option<String> {
        let rate = |rate: f64| human_bytes(rate as u64);
        let round_trip = self
            .round_trip
            .map(|time| format!(", {:.1} ms away", time * 1e3));
        Some(format!(
            "peer {:21} up {} ({}/s), down {} ({}/s), {} in flight{}, {}",
            self.address,
            human_bytes(self.bytes_up),
            rate(self.up),
            human_bytes(self.bytes_down),
            rate(self.down),
            self.in_flight,
            round_trip.unwrap_or_default(),
            count(self.cores.len() as u64, "core"),
        ))
    }
}

/// A peer is kept away from now on, whatever address it has, for so many seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Banned {
    pub(crate) remote_key: String,
    pub(crate) state: &'static str,
    pub(crate) seconds: f64,
}

impl Event for Banned {
    const NAME: &'static str = "peer";

    fn words(&self) -> Option<String> {
        let Self {
            remote_key,
            state,
            seconds,
        } = self;
        Some(format!("peer {remote_key} {state} for {seconds} s"))
    }
}

/// A peer broke the protocol.
#[derive(Debug, Serialize)]
pub(crate) struct Misbehaviour {
    pub(crate) remote_key: String,
    pub(crate) kind: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) message: String,
}

impl Misbehaviour {
    /// What the peer of this key did.
    pub(crate) fn of(remote_key: &PublicKey, misbehaved: &PeerMisbehaved) -> Self {
        Self {
            remote_key: encode_z32(remote_key.as_bytes()),
            kind: misbehaved.kind(),
            verdict: misbehaved.verdict().name(),
            message: misbehaved.to_string(),
        }
    }
}

impl Event for Misbehaviour {
    const NAME: &'static str = "misbehaviour";

    fn words(&self) -> Option<String> {
        Some(format!("{} ({})", self.message, self.verdict))
    }
}
