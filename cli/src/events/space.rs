//! What takes space, and what gave it back.

use serde::Serialize;

use crate::output::{Event, count, human_bytes};

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

/// Disk space was given back, or would be.
#[derive(Debug, Serialize)]
pub(crate) struct Freed {
    /// `None` where only doing it would tell.
    pub(crate) bytes: Option<u64>,
    /// Without those of damaged cores.
    pub(crate) blocks: u64,
    /// How many cores were too damaged to be opened.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) damaged: usize,
    /// How many encryption keys went with it.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) encryption: usize,
    pub(crate) dry_run: bool,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Event for Freed {
    const NAME: &'static str = "freed";

    fn words(&self) -> Option<String> {
        let blocks = count(self.blocks, "block");
        let gone = if self.dry_run {
            "would be gone"
        } else {
            "gone"
        };
        let bytes = self
            .bytes
            .map(|bytes| format!(", {} freed", human_bytes(bytes)));
        let key = match self.encryption {
            0 => "",
            _ => ", with the key that decrypts them",
        };
        let bytes = bytes.unwrap_or_default();
        Some(format!("{blocks} {gone}{key}{bytes}"))
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
