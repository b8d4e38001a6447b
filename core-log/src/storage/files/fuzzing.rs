//! See [`crate::fuzzing`].

use ferrocore_primitives::keys::DiscoveryKey;

use super::{aliases, guards, pending};
use crate::storage::Alias;

/// A journal, decoded and encoded again.
pub fn journal(bytes: &[u8]) -> Option<Vec<u8>> {
    pending::decode(bytes).map(|changes| pending::encode(changes.iter()))
}

/// Whether the file of guards says that every core is guarded, and of which cores it says something else.
pub fn guards(bytes: &[u8]) -> Option<(bool, Vec<(DiscoveryKey, bool)>)> {
    guards::parse(bytes)
}

/// A file of guards that says so.
pub fn guards_text(is_restored: bool, cores: &[(DiscoveryKey, bool)]) -> String {
    guards::text_of(is_restored, cores)
}

/// The names in an index, and whether it is as it was written.
pub fn aliases(bytes: &[u8]) -> (Vec<(Alias, DiscoveryKey)>, bool) {
    aliases::parse(bytes)
}

/// An index of these names.
pub fn aliases_text(names: &[(Alias, DiscoveryKey)]) -> Vec<u8> {
    aliases::text_of(names)
}
