//! What the commands of the DHT report.

use std::net::SocketAddrV4;

use serde::Serialize;

use crate::output::{Event, count};

/// A node of the DHT runs.
#[derive(Debug, Serialize)]
pub(crate) struct DhtReady {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// In hexadecimal; none for a mere client.
    pub(crate) id: Option<String>,
    pub(crate) nodes: usize,
    pub(crate) firewalled: bool,
}

impl Event for DhtReady {
    const NAME: &'static str = "ready";

    fn words(&self) -> Option<String> {
        let (host, port) = (&self.host, self.port);
        let nodes = count(self.nodes as u64, "other node");
        let state = match &self.id {
            Some(id) => format!("It stores for others, under the id {id}"),
            None => "It stores for others once they can reach it".to_owned(),
        };
        Some(format!("Node at {host}:{port}, knows {nodes}. {state}"))
    }
}

/// A blind relay runs.
#[derive(Debug, Serialize)]
pub(crate) struct RelayReady {
    /// What peers are given as `--relay`.
    pub(crate) public_key: String,
    #[serde(flatten)]
    pub(crate) node: DhtReady,
}

impl Event for RelayReady {
    const NAME: &'static str = DhtReady::NAME;

    fn words(&self) -> Option<String> {
        let (host, port, key) = (&self.node.host, self.node.port, &self.public_key);
        Some(format!(
            "Relaying at {host}:{port} until Ctrl-C. Peers meet here by\n\n    --relay {key}\n"
        ))
    }
}

/// What a blind relay has done.
#[derive(Debug, Serialize)]
pub(crate) struct Relayed {
    /// Pairs of peers.
    pub(crate) joined: u64,
}

impl Event for Relayed {
    const NAME: &'static str = "relayed";

    fn words(&self) -> Option<String> {
        Some(format!("Joined {} of peers", count(self.joined, "pair")))
    }
}

/// A peer was reached by its key.
#[derive(Debug, Serialize)]
pub(crate) struct DhtPong {
    pub(crate) remote_key: String,
    /// Where it, or the relay, is.
    pub(crate) address: Option<String>,
    /// The first way that carried.
    pub(crate) via: String,
    /// From the search to the first answer over that way.
    pub(crate) seconds: f64,
    pub(crate) round_trip: Option<f64>,
}

impl Event for DhtPong {
    const NAME: &'static str = "pong";

    fn words(&self) -> Option<String> {
        let address = self.address.as_deref().unwrap_or("-");
        let away = self.round_trip.map(|time| time * 1e3);
        let away = away.map(|ms| format!(", {ms:.1} ms away"));
        Some(format!(
            "{} at {address}, {}, connected in {:.2} s{}",
            self.remote_key,
            self.via,
            self.seconds,
            away.unwrap_or_default()
        ))
    }
}

/// A key is announced.
#[derive(Debug, Serialize)]
pub(crate) struct DhtAnnouncer {
    pub(crate) topic: String,
    pub(crate) public_key: String,
    pub(crate) relays: Vec<SocketAddrV4>,
    /// How many nodes have taken it.
    pub(crate) nodes: usize,
}

impl Event for DhtAnnouncer {
    const NAME: &'static str = "announcer";

    fn words(&self) -> Option<String> {
        let nodes = count(self.nodes as u64, "node");
        let (key, topic) = (&self.public_key, &self.topic);
        Some(format!("Announced {key} under {topic} at {nodes}"))
    }
}

/// A peer was found under a topic.
#[derive(Debug, Serialize)]
pub(crate) struct DhtPeer {
    pub(crate) public_key: String,
    pub(crate) relays: Vec<SocketAddrV4>,
    /// Who named it.
    pub(crate) from: SocketAddrV4,
}

impl Event for DhtPeer {
    const NAME: &'static str = "announcer";

    fn words(&self) -> Option<String> {
        let relays = self.relays.iter().map(ToString::to_string);
        let relays: Vec<_> = relays.collect();
        Some(
            format!("{}  {}", self.public_key, relays.join(" "))
                .trim_end()
                .to_owned(),
        )
    }
}

/// A value is stored.
#[derive(Debug, Serialize)]
pub(crate) struct DhtStored {
    /// The hash, in hexadecimal, of a value that cannot change.
    pub(crate) hash: Option<String>,
    /// The key of one that can.
    pub(crate) key: Option<String>,
    pub(crate) seq: Option<u64>,
    pub(crate) nodes: usize,
}

impl Event for DhtStored {
    const NAME: &'static str = "stored";

    fn words(&self) -> Option<String> {
        self.hash.clone().or_else(|| self.key.clone())
    }
}

/// A value was found.
#[derive(Debug, Serialize)]
pub(crate) struct DhtValue {
    pub(crate) bytes: usize,
    pub(crate) seq: Option<u64>,
}

impl Event for DhtValue {
    const NAME: &'static str = "value";

    fn words(&self) -> Option<String> {
        None
    }
}
