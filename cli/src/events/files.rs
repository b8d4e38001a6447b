//! What is in a drive.

use serde::Serialize;

use super::printable;
use crate::output::Event;

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
