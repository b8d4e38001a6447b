//! Everything that commands report: the fields of the JSON lines, and the words for people.
//! Knows formats. Does not know where the values come from.
//!
//! Keys are z-base-32, discovery keys and hashes lower-case hex, sizes bytes, durations seconds.

mod dht;
mod doctor;
mod files;
mod get;
mod keys;
mod logs;
mod peer;
mod program;
mod search;
mod share;
mod space;

pub(crate) use dht::{
    DhtAnnouncer, DhtPeer, DhtPong, DhtReady, DhtStored, DhtValue, RelayReady, Relayed,
};
pub(crate) use doctor::Check;
pub(crate) use files::{Entry, EntryKind};
pub(crate) use get::{Fetched, Progress, Resolved, Synced};
pub(crate) use logs::{
    Appended, Audit, CoreState, CoreSynced, Damaged, Listed, Manifest, Prologue, Signer, Sought,
    Truncated, Unreadable,
};
pub(crate) use peer::{Banned, CorePeer, Misbehaviour, Peer, PeerStatus};
pub(crate) use program::{Demonstrated, Program};
pub(crate) use search::{Dial, Path, Search, Topic};
pub(crate) use share::{Announced, Change, Listens, Op, Ready, Skipped, Upload, Version};
pub(crate) use space::{Collected, Freed, Usage};

pub(crate) use keys::{
    BackedUp, Exported, Imported, Recovered, Root, Secret, Tally as SecretTally,
};

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
    use crate::output::Event as _;

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
