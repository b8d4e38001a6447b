//! What the commands of single logs report, and lists of them.

use serde::Serialize;

use crate::output::{Event, count, human_bytes};

/// Longest user data that is shown to people, in bytes.
const USER_DATA_SHOWN_MAX: usize = 64;

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
    /// Whether it must not be written until a peer has proven how long it is.
    pub(crate) guarded: bool,
    /// Whether its author signed two histories, so that it takes nothing more.
    pub(crate) conflict: bool,
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
    /// The beginning that the key itself names.
    pub(crate) prologue: Option<Prologue>,
    /// Keys of cores that belong to this one; `None` if the manifest says nothing of any.
    pub(crate) linked: Option<Vec<String>>,
    /// The application's bytes, hexadecimal.
    pub(crate) user_data: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Prologue {
    /// Tree hash of the first `length` blocks.
    pub(crate) hash: String,
    pub(crate) length: u64,
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
                    (true, true) => "once a peer has proven how long it is",
                    (true, false) => "yes",
                    _ => "no",
                }
                .to_owned(),
            ),
        ];
        let conflict = "its author signed two histories: nothing more is taken".to_owned();
        let conflict = self.conflict.then_some(("conflict", conflict));
        let link = self.link.clone().map(|link| ("link", link));
        let manifest = self.manifest.iter().flat_map(Manifest::rows);
        let lines = rows.into_iter().chain(conflict).chain(manifest).chain(link);
        let lines = lines.map(|(label, value)| format!("{label:14}{value}"));
        Some(lines.collect::<Vec<_>>().join("\n"))
    }
}

impl Manifest {
    /// What is there beyond signers.
    fn rows(&self) -> impl Iterator<Item = (&'static str, String)> {
        let prologue = self.prologue.as_ref().map(|prologue| {
            let blocks = count(prologue.length, "block");
            ("prologue", format!("{blocks}, tree hash {}", prologue.hash))
        });
        let linked = self.linked.iter().flatten();
        let linked = linked.map(|key| ("linked", key.clone()));
        let user_data = self.user_data.as_deref().map(|hex| {
            let told = match hex.len() / 2 {
                bytes if bytes <= USER_DATA_SHOWN_MAX => hex.to_owned(),
                bytes => format!("{bytes} bytes; `--json` shows them"),
            };
            ("user data", told)
        });
        prologue.into_iter().chain(linked).chain(user_data)
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

/// A core of the store that cannot be read, in a list of cores.
#[derive(Debug, Serialize)]
pub(crate) struct Unreadable {
    pub(crate) discovery_key: String,
    /// Known only where a name tells it: the core itself does not any more.
    pub(crate) key: Option<String>,
    pub(crate) name: Option<String>,
    /// What it takes on the disk.
    pub(crate) bytes: u64,
    /// As that of an error.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Event for Unreadable {
    const NAME: &'static str = "unreadable";

    fn words(&self) -> Option<String> {
        let name = self.name.as_deref().unwrap_or("-");
        let (bytes, message) = (human_bytes(self.bytes), &self.message);
        Some(format!("{bytes:>10}  {name}: cannot be read: {message}"))
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

/// A core was cut short, or would be.
#[derive(Debug, Serialize)]
pub(crate) struct Truncated {
    pub(crate) length: u64,
    pub(crate) fork: u64,
    pub(crate) dry_run: bool,
}

impl Event for Truncated {
    const NAME: &'static str = "truncated";

    fn words(&self) -> Option<String> {
        let would = if self.dry_run { "would be " } else { "" };
        Some(format!(
            "{would}{}, fork {}",
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
