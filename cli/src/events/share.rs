//! What serving a folder reports.

use std::net::SocketAddr;

use serde::Serialize;

use super::printable;
use crate::output::{Event, count, human_bytes};

/// A drive is being served.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    pub(crate) key: String,
    pub(crate) link: String,
    pub(crate) discovery_key: String,
    pub(crate) version: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) listen: Option<SocketAddr>,
    /// Where the DHT reaches us on this machine.
    pub(crate) udp: Option<SocketAddr>,
    /// What the other side types.
    pub(crate) command: String,
}

impl Event for Ready {
    const NAME: &'static str = "ready";

    fn words(&self) -> Option<String> {
        let files = count(self.files, "file");
        let bytes = human_bytes(self.bytes);
        Some(format!(
            "Serving {files}, {bytes}, version {}. On the other machine:\n\n    {}\n",
            self.version, self.command
        ))
    }
}

/// Others can find what is served, by its key alone; told again when more discoveries tell them.
#[derive(Debug, Serialize)]
pub(crate) struct Announced {
    /// Which discoveries tell them.
    pub(crate) by: Vec<&'static str>,
}

impl Event for Announced {
    const NAME: &'static str = "announced";

    fn words(&self) -> Option<String> {
        Some(match self.by.as_slice() {
            [] => "Nobody can find it by its key alone; say where it is with --listen".to_owned(),
            by => format!("Others find it by its key: {}", by.join(", ")),
        })
    }
}

/// Cores are being served.
#[derive(Debug, Serialize)]
pub(crate) struct Listens {
    pub(crate) listen: Option<SocketAddr>,
    /// Where the DHT reaches us on this machine.
    pub(crate) udp: Option<SocketAddr>,
}

impl Event for Listens {
    const NAME: &'static str = "ready";

    fn words(&self) -> Option<String> {
        self.listen.map(|address| format!("Listening on {address}"))
    }
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    Add,
    Change,
    Remove,
    Equal,
}

/// A file came, changed or went.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) op: Op,
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

impl Event for Change {
    const NAME: &'static str = "change";
    const VERBOSITY: u8 = 1;

    fn words(&self) -> Option<String> {
        let mark = match self.op {
            Op::Add => '+',
            Op::Change => '~',
            Op::Remove => '-',
            Op::Equal => '=',
        };
        let path = printable(&self.path);
        Some(format!("{mark} {path} ({})", human_bytes(self.bytes)))
    }
}

/// A file was left out or kept.
#[derive(Debug, Serialize)]
pub(crate) struct Skipped {
    pub(crate) path: String,
    pub(crate) reason: String,
}

impl Event for Skipped {
    const NAME: &'static str = "skipped";

    fn words(&self) -> Option<String> {
        Some(format!(
            "skipped {}: {}",
            printable(&self.path),
            self.reason
        ))
    }
}

/// A drive has a new version.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) seq: u64,
}

impl Event for Version {
    const NAME: &'static str = "version";

    fn words(&self) -> Option<String> {
        Some(format!("version {}", self.seq))
    }
}

/// Peers took blocks from us; sums since the start.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Upload {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Event for Upload {
    const NAME: &'static str = "upload";
    const VERBOSITY: u8 = 1;

    fn words(&self) -> Option<String> {
        Some(format!(
            "sent {}, {}",
            count(self.blocks, "block"),
            human_bytes(self.bytes)
        ))
    }
}
