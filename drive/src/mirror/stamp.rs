//! Telling whether a local file is still the one that was seen, without reading it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::Metadata;
use serde::{Deserialize, Serialize};

/// Two changes within one tick of the file system's clock leave the same times: a file that
/// changed so recently is not told apart. Linux ticks each 1 to 10 ms.
const TICK: Duration = Duration::from_millis(20);

/// Size, times and inode of a local file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    modified_ns: i64,
    /// When anything of the file changed, even its times; 0 where the system does not say.
    changed_ns: i64,
    inode: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified_ns: modified_ns(metadata),
            changed_ns: changed_ns(metadata),
            inode: cap_fs_ext::MetadataExt::ino(metadata),
        }
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether any change after `now` would show.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let settled = now.checked_sub(TICK).map_or(0, nanoseconds);
        self.modified_ns.max(self.changed_ns) < settled
    }
}

fn modified_ns(metadata: &Metadata) -> i64 {
    let modified = metadata.modified();
    modified.map_or(0, |time| nanoseconds(time.into_std()))
}

#[cfg(unix)]
fn changed_ns(metadata: &Metadata) -> i64 {
    use cap_std::fs::MetadataExt;
    let seconds = metadata.ctime().saturating_mul(1_000_000_000);
    seconds.saturating_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed_ns(_: &Metadata) -> i64 {
    0
}

fn nanoseconds(time: SystemTime) -> i64 {
    let saturate = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => saturate(after),
        Err(before) => -saturate(before.duration()),
    }
}

/// Whether the owner may run the file.
#[cfg(unix)]
pub(super) fn is_executable(metadata: &Metadata) -> bool {
    use cap_std::fs::MetadataExt;
    metadata.mode() & 0o100 != 0
}

/// Windows keeps no such bit.
#[cfg(not(unix))]
pub(super) fn is_executable(_: &Metadata) -> bool {
    false
}
