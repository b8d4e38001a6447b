//! What peers meet under.
//! Knows 32 bytes. Does not know what they stand for.

use std::fmt;

use ferrocore_primitives::hash::hash;
use ferrocore_primitives::keys::DiscoveryKey;

/// What peers meet under: any 32 bytes, used as they are as the target in the DHT.
///
/// Who replicates a core joins its *discovery key*, never its key: whoever stores an announcement reads the topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic([u8; 32]);

impl Topic {
    /// The topic that everybody arrives at who knows `name`. Only as secret as the name.
    pub fn from_name(name: &str) -> Self {
        Self(*hash(&[name.as_bytes()]).as_bytes())
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Topic {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<DiscoveryKey> for Topic {
    fn from(key: DiscoveryKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        DiscoveryKey::from(self.0).fmt(f)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({self})")
    }
}
