//! The two names of a core: its key, which lets one read, and its discovery key, which does not.
//! Knows how one derives from the other. Does not know manifests, where keys come from.

use std::str::FromStr;

use crate::byte_array::{write_hex, write_z32};
use crate::hash::keyed;
use crate::id::{IdError, parse_key};

byte_array! {
    /// The key of a core: the hash of its manifest, or a public key for compat cores. Who knows it may
    /// read the core. Printed as z-base-32; parsed from z-base-32, hexadecimal or a link.
    Key, 32, write_z32
}

byte_array! {
    /// The public name of a core, under which it is announced: tells nothing about the key. Printed as
    /// lower-case hexadecimal.
    DiscoveryKey, 32, write_hex
}

impl Key {
    /// The discovery key of this core.
    pub fn discovery_key(&self) -> DiscoveryKey {
        let hash = keyed(self.as_bytes(), &[b"hypercore"]);
        DiscoveryKey::from(*hash.as_bytes())
    }
}

impl FromStr for Key {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_key(text)
    }
}
