//! What the program says of itself.

use serde::Serialize;

use crate::output::{Event, count, human_bytes};

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
