//! Decoders that nobody else is to call, for the fuzz targets, and what tests count. No part of the interface: it may change
//! at any time.
//!
//! Not behind a feature, which would compile all that depends on this crate twice.

#[cfg(feature = "backup")]
pub use crate::backup::fuzzing::{backup, backup_text, seal_head};
#[cfg(feature = "files")]
pub use crate::storage::files::fuzzing::{aliases, aliases_text, guards, guards_text, journal};

/// What a draft builds on, decoded and encoded again.
pub fn draft_base(bytes: &[u8]) -> Option<Vec<u8>> {
    crate::core::draft_base_again(bytes)
}

/// How many signatures of trees this thread has checked.
pub fn signatures_checked() -> u64 {
    crate::verifier::signatures_checked()
}

/// How many blocks of a core suppliers are getting; how many of them one more may try as all who do are late, and how many
/// nobody wanted; how often it is known that one of them was waited for in vain.
pub fn claimed(core: &crate::Core) -> [usize; 4] {
    core.claimed()
}
