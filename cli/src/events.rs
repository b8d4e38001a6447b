//! Everything that commands report: the fields of the JSON lines, and the words for people.
//! Knows formats. Does not know where the values come from.
//!
//! Keys are z-base-32, discovery keys and hashes lower-case hex, sizes bytes, durations seconds.

mod dht;
mod doctor;
mod keys;
mod search;

use std::net::SocketAddr;

use serde::Serialize;

use crate::output::{Event, count, human_bytes};

pub(crate) use dht::{
    DhtAnnouncer, DhtPeer, DhtPong, DhtReady, DhtStored, DhtValue, RelayReady, Relayed,
};
pub(crate) use doctor::Check;
pub(crate) use search::{Dial, Path, Search, Topic};

pub(crate) use keys::{
    BackedUp, Exported, Imported, Recovered, Root, Secret, Tally as SecretTally,
};

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

/// Others can find what is served, by its key alone.
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

/// What is to be fetched is known.
#[derive(Debug, Serialize)]
pub(crate) struct Resolved {
    pub(crate) key: String,
    pub(crate) version: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Event for Resolved {
    const NAME: &'static str = "resolved";

    fn words(&self) -> Option<String> {
        let files = count(self.files, "file");
        Some(format!(
            "Fetching {files}, {}, version {}",
            human_bytes(self.bytes),
            self.version
        ))
    }
}

/// How far fetching is: files done and wanted, bytes done and wanted, peers connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) have: u64,
    pub(crate) want: u64,
    pub(crate) bytes: u64,
    pub(crate) total: u64,
    pub(crate) peers: usize,
}

impl Event for Progress {
    const NAME: &'static str = "progress";
    const VERBOSITY: u8 = 1;

    fn words(&self) -> Option<String> {
        Some(format!(
            "{} of {}, {} of {}, {}",
            self.have,
            count(self.want, "file"),
            human_bytes(self.bytes),
            human_bytes(self.total),
            count(self.peers as u64, "peer")
        ))
    }
}

/// Everything up to this version is here, and more is waited for.
#[derive(Debug, Serialize)]
pub(crate) struct Synced {
    pub(crate) version: u64,
}

impl Event for Synced {
    const NAME: &'static str = "synced";

    fn words(&self) -> Option<String> {
        Some(format!(
            "Up to date at version {}; following changes until Ctrl-C",
            self.version
        ))
    }
}

/// Fetching is done.
#[derive(Debug, Serialize)]
pub(crate) struct Fetched {
    pub(crate) version: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) blocks_have: u64,
    pub(crate) blocks_fetched: u64,
    pub(crate) bytes_fetched: u64,
}

impl Event for Fetched {
    const NAME: &'static str = "done";

    fn words(&self) -> Option<String> {
        let files = count(self.files, "file");
        let (bytes, fetched) = (human_bytes(self.bytes), human_bytes(self.bytes_fetched));
        Some(format!(
            "Done: {files}, {bytes}, version {} ({fetched} fetched now)",
            self.version
        ))
    }
}

/// A file, link or folder of a drive.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: EntryKind,
    pub(crate) size: u64,
    pub(crate) executable: bool,
    pub(crate) link: Option<String>,
    pub(crate) seq: Option<u64>,
    pub(crate) metadata: serde_json::Value,
    /// Whether the words tell more than the name.
    #[serde(skip)]
    pub(crate) long: bool,
    /// How the words call it: by its name, or by its path.
    #[serde(skip)]
    pub(crate) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EntryKind {
    File,
    Link,
    Folder,
}

impl Event for Entry {
    const NAME: &'static str = "entry";

    fn words(&self) -> Option<String> {
        let name = printable(&self.name);
        let slash = if self.kind == EntryKind::Folder {
            "/"
        } else {
            ""
        };
        if !self.long {
            return Some(format!("{name}{slash}"));
        }
        let mark = match (self.kind, self.executable) {
            (EntryKind::Folder, _) => 'd',
            (EntryKind::Link, _) => 'l',
            (EntryKind::File, true) => 'x',
            (EntryKind::File, false) => '-',
        };
        let link = self
            .link
            .as_ref()
            .map(|to| format!(" -> {}", printable(to)));
        Some(format!(
            "{mark} {:>10} {name}{slash}{}",
            self.size,
            link.unwrap_or_default()
        ))
    }
}

/// The state of a core.
#[derive(Debug, Serialize)]
pub(crate) struct CoreState {
    pub(crate) key: String,
    pub(crate) discovery_key: String,
    pub(crate) name: Option<String>,
    pub(crate) length: u64,
    pub(crate) fork: u64,
    pub(crate) byte_length: u64,
    pub(crate) contiguous_length: u64,
    pub(crate) tree_hash: String,
    pub(crate) writable: bool,
    /// Whether it must not be written until a peer has shown how long it is.
    pub(crate) guarded: bool,
    pub(crate) manifest: Option<Manifest>,
    /// With the encryption key: shown once, when the core is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Manifest {
    pub(crate) version: u64,
    pub(crate) compat: bool,
    pub(crate) allow_patch: bool,
    pub(crate) quorum: u64,
    pub(crate) signers: Vec<Signer>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Signer {
    pub(crate) public_key: String,
    pub(crate) namespace: String,
}

impl Event for CoreState {
    const NAME: &'static str = "core";

    fn words(&self) -> Option<String> {
        let rows = [
            ("name", self.name.clone().unwrap_or_else(|| "-".to_owned())),
            ("key", self.key.clone()),
            ("discovery key", self.discovery_key.clone()),
            ("length", count(self.length, "block")),
            (
                "here",
                format!("{} without a gap", count(self.contiguous_length, "block")),
            ),
            ("bytes", self.byte_length.to_string()),
            ("fork", self.fork.to_string()),
            ("tree hash", self.tree_hash.clone()),
            (
                "writable",
                match (self.writable, self.guarded) {
                    (true, true) => "once a peer has shown how long it is",
                    (true, false) => "yes",
                    _ => "no",
                }
                .to_owned(),
            ),
        ];
        let link = self.link.clone().map(|link| ("link", link));
        let lines = rows.into_iter().chain(link);
        let lines = lines.map(|(label, value)| format!("{label:14}{value}"));
        Some(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// One line of `list`.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) length: u64,
    pub(crate) contiguous: u64,
    pub(crate) bytes: u64,
    pub(crate) writable: bool,
    pub(crate) peers: usize,
}

impl Event for Listed {
    const NAME: &'static str = "core";

    fn words(&self) -> Option<String> {
        let name = self.name.as_deref().unwrap_or("-");
        let have = format!("{}/{}", self.contiguous, self.length);
        let mode = if self.writable { "rw" } else { "r" };
        let bytes = human_bytes(self.bytes);
        Some(format!(
            "{name:20} {:6} {mode:2} {have:>15} {bytes:>10}  {}",
            self.kind, self.key
        ))
    }
}

/// Blocks were appended.
#[derive(Debug, Serialize)]
pub(crate) struct Appended {
    pub(crate) length: u64,
    pub(crate) byte_length: u64,
    pub(crate) fork: u64,
}

impl Event for Appended {
    const NAME: &'static str = "appended";

    fn words(&self) -> Option<String> {
        Some(format!(
            "{}, {} bytes",
            count(self.length, "block"),
            self.byte_length
        ))
    }
}

/// Everything up to the known length of a core is here.
#[derive(Debug, Serialize)]
pub(crate) struct CoreSynced {
    pub(crate) key: String,
    pub(crate) length: u64,
}

impl Event for CoreSynced {
    const NAME: &'static str = "synced";

    fn words(&self) -> Option<String> {
        Some(format!(
            "{}: all {} are here",
            self.key,
            count(self.length, "block")
        ))
    }
}

/// Where a byte of a core is.
#[derive(Debug, Serialize)]
pub(crate) struct Sought {
    pub(crate) index: u64,
    pub(crate) offset: u64,
}

impl Event for Sought {
    const NAME: &'static str = "seek";

    fn words(&self) -> Option<String> {
        Some(format!("block {}, byte {}", self.index, self.offset))
    }
}

/// A core was cut short.
#[derive(Debug, Serialize)]
pub(crate) struct Truncated {
    pub(crate) length: u64,
    pub(crate) fork: u64,
}

impl Event for Truncated {
    const NAME: &'static str = "truncated";

    fn words(&self) -> Option<String> {
        Some(format!(
            "{}, fork {}",
            count(self.length, "block"),
            self.fork
        ))
    }
}

/// Something of a core is damaged: blocks by index, nodes by tree index.
#[derive(Debug, Serialize)]
pub(crate) struct Damaged {
    pub(crate) what: &'static str,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) repaired: bool,
}

impl Event for Damaged {
    const NAME: &'static str = "damaged";

    fn words(&self) -> Option<String> {
        let repaired = if self.repaired { " (repaired)" } else { "" };
        let place = match self.what {
            "head" => "the signature does not hold".to_owned(),
            "unmarked" => format!("block {} is here, but was given up", self.start),
            "bits" => format!("nothing proves blocks {}..{}", self.start, self.end),
            what => format!("{what} {} is damaged", self.start),
        };
        Some(format!("{place}{repaired}"))
    }
}

/// What an audit came to.
#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    pub(crate) blocks: u64,
    pub(crate) bad: u64,
    pub(crate) mendable: u64,
    #[serde(skip)]
    pub(crate) repaired: bool,
}

impl Event for Audit {
    const NAME: &'static str = "audit";

    fn words(&self) -> Option<String> {
        let verb = if self.repaired {
            "repaired"
        } else {
            "can be repaired"
        };
        let blocks = count(self.blocks, "block");
        Some(format!(
            "{blocks} checked, {} bad, {} {verb}",
            self.bad, self.mendable
        ))
    }
}

/// What a core takes on the disk.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) length: u64,
    pub(crate) bytes: u64,
}

impl Event for Usage {
    const NAME: &'static str = "usage";

    fn words(&self) -> Option<String> {
        let name = self.name.as_deref().unwrap_or("-");
        Some(format!(
            "{:>10}  {}  {name}",
            human_bytes(self.bytes),
            self.key
        ))
    }
}

/// Disk space was given back.
#[derive(Debug, Serialize)]
pub(crate) struct Freed {
    pub(crate) bytes: u64,
    pub(crate) blocks: u64,
}

impl Event for Freed {
    const NAME: &'static str = "freed";

    fn words(&self) -> Option<String> {
        let blocks = count(self.blocks, "block");
        Some(format!("{blocks} gone, {} freed", human_bytes(self.bytes)))
    }
}

/// As [`Freed`], of what crashes left behind.
#[derive(Debug, Serialize)]
pub(crate) struct Collected {
    pub(crate) bytes: u64,
    /// None: blocks belong to somebody.
    pub(crate) blocks: u64,
    pub(crate) leftovers: usize,
    pub(crate) dry_run: bool,
}

impl Event for Collected {
    const NAME: &'static str = Freed::NAME;

    fn words(&self) -> Option<String> {
        let leftovers = count(self.leftovers as u64, "leftover");
        let (done, bytes) = match self.dry_run {
            true => ("would be", human_bytes(self.bytes)),
            false => ("were", human_bytes(self.bytes)),
        };
        Some(format!("{leftovers}, {bytes} {done} freed"))
    }
}

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

/// A peer broke the protocol.
#[derive(Debug, Serialize)]
pub(crate) struct Misbehaviour {
    pub(crate) remote_key: String,
    pub(crate) kind: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) message: String,
}

impl Event for Misbehaviour {
    const NAME: &'static str = "misbehaviour";

    fn words(&self) -> Option<String> {
        Some(format!("{} ({})", self.message, self.verdict))
    }
}

/// The demonstration is over.
#[derive(Debug, Serialize)]
pub(crate) struct Demonstrated {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) equal: bool,
}

impl Event for Demonstrated {
    const NAME: &'static str = "done";

    fn words(&self) -> Option<String> {
        let verdict = if self.equal {
            "equal, byte by byte"
        } else {
            "NOT equal"
        };
        let files = count(self.files, "file");
        let bytes = human_bytes(self.bytes);
        Some(format!(
            "Done: {files}, {bytes} in {:.1} s; both folders are {verdict}",
            self.seconds
        ))
    }
}

/// This program.
#[derive(Debug, Serialize)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sodium: bool,
}

impl Event for Program {
    const NAME: &'static str = "program";

    fn words(&self) -> Option<String> {
        Some(format!("{} {}", self.name, self.version))
    }
}

/// A path that cannot forge lines or colours on a terminal.
fn printable(path: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.to_string()
        }
    };
    path.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_play_with_the_terminal() {
        let change = Change {
            op: Op::Add,
            path: "/a\n- /b\u{1b}[31m".to_owned(),
            bytes: 5,
        };
        assert_eq!(change.words().unwrap(), "+ /a\\n- /b\\u{1b}[31m (5 B)");
    }

    #[test]
    fn operations_are_lower_case() {
        assert_eq!(serde_json::to_string(&Op::Remove).unwrap(), "\"remove\"");
        assert_eq!(
            serde_json::to_string(&EntryKind::Folder).unwrap(),
            "\"folder\""
        );
    }
}
