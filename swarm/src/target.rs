//! Who was found, and where: what discoveries hand to transports.
//! Knows names and addresses. Does not know how to find or to reach anybody.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use ferrocore_primitives::sign::PublicKey;

/// Names a peer before and after it is connected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerId {
    /// By its key, which a transport makes it prove.
    Key(PublicKey),
    /// By what a discovery calls it, until the handshake shows its key.
    Name(Arc<str>),
}

/// Where a peer may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// It accepts TCP there, and speaks Noise XX.
    Tcp(SocketAddr),
    /// As [`Address::Tcp`], found on the local network.
    Lan(SocketAddr),
    /// A DHT node that knows how to reach it.
    Relay(SocketAddrV4),
    /// In this process; for tests.
    Memory(u64),
}

/// A peer that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who. Found again under the same name, it is the same peer.
    pub id: PeerId,
    /// Where, likeliest first; may be empty where the key is enough.
    pub addresses: Vec<Address>,
}

impl Target {
    /// A peer by its key alone.
    pub fn key(key: PublicKey) -> Self {
        Self {
            id: PeerId::Key(key),
            addresses: Vec::new(),
        }
    }

    /// The key that it must prove to own, if that is known.
    pub fn expected_key(&self) -> Option<PublicKey> {
        match self.id {
            PeerId::Key(key) => Some(key),
            PeerId::Name(_) => None,
        }
    }
}

impl From<PublicKey> for PeerId {
    fn from(key: PublicKey) -> Self {
        Self::Key(key)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Lan(address) => write!(f, "lan {address}"),
            Self::Relay(address) => write!(f, "through {address}"),
            Self::Memory(number) => write!(f, "memory {number}"),
        }
    }
}
