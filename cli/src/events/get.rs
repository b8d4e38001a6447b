//! What fetching a drive reports.

use serde::Serialize;

use crate::output::{Event, count, human_bytes};

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
