//! The 256-bit space of nodes and targets.
//! Knows how ids derive from addresses, keys and values, and how far apart two are. Does not know who is where.
//!
//! | point | BLAKE2b-256 of |
//! |---|---|
//! | node (`dht-rpc/lib/peer.js`) | its public IPv4 address and port, 6 bytes as in [`address`](crate::address) |
//! | peer, mutable record | its Ed25519 public key |
//! | immutable record | its value |
//! | topic | nothing: any 32 bytes are used as they are |
//!
//! A node's id is tied to its address, so it cannot be chosen freely: a receiver computes it from the datagram's
//! source and takes a different claim for none ([`Id::if_at`]).

use std::fmt;
use std::net::SocketAddrV4;

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader};
use ferrocore_primitives::hash::{Hash, hash};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::PublicKey;

use crate::address::put_ipv4;

/// A point: a node's id, or the target of a request. Printed as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; Id::LEN]);

/// How far two points are apart: their XOR, read as one big-endian number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance([u8; Id::LEN]);

impl Id {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The id of the node at `address`.
    pub fn of_node(address: &SocketAddrV4) -> Self {
        let mut bytes = Vec::with_capacity(crate::address::IPV4_LEN);
        put_ipv4(&mut bytes, address);
        hash(&[&bytes]).into()
    }

    /// Where a peer announces itself, and where the mutable records it signs are kept.
    pub fn of_public_key(key: &PublicKey) -> Self {
        hash(&[key.as_bytes()]).into()
    }

    /// Where an immutable record is kept.
    pub fn of_value(value: &[u8]) -> Self {
        hash(&[value]).into()
    }

    /// This id, claimed by a datagram from `address`, if it is that address's.
    pub fn if_at(self, address: &SocketAddrV4) -> Option<Self> {
        (self == Self::of_node(address)).then_some(self)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The distance between two points; the same in both directions, zero only from a point to itself.
    pub fn distance(&self, other: &Self) -> Distance {
        let mut xor = self.0;
        xor.iter_mut().zip(other.0).for_each(|(a, b)| *a ^= b);
        Distance(xor)
    }
}

impl Distance {
    /// A quarter of this distance.
    pub fn quarter(&self) -> Self {
        let mut carried = 0;
        Self(self.0.map(|byte| {
            let shifted = carried << 6 | byte >> 2;
            carried = byte;
            shifted
        }))
    }

    /// How many leading bits the two points share, 0 to 256.
    pub fn shared_bits(&self) -> usize {
        let whole = self.0.iter().take_while(|byte| **byte == 0).count();
        let partial = self.0.get(whole).map_or(0, |byte| byte.leading_zeros());
        whole * 8 + partial as usize
    }
}

impl From<[u8; Id::LEN]> for Id {
    fn from(bytes: [u8; Id::LEN]) -> Self {
        Self(bytes)
    }
}

impl From<Hash> for Id {
    fn from(hash: Hash) -> Self {
        Self(hash.into())
    }
}

impl From<DiscoveryKey> for Id {
    /// The topic under which a core's peers find each other.
    fn from(key: DiscoveryKey) -> Self {
        Self(key.into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for Id {
    fn encoded_len(&self) -> usize {
        Self::LEN
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl Decode for Id {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.fixed32().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_id_holds_only_at_its_own_address() {
        let address = "88.99.3.86:49737".parse().unwrap();
        let id = Id::of_node(&address);
        assert_eq!(id.if_at(&address), Some(id));
        assert_eq!(id.if_at(&"88.99.3.86:49738".parse().unwrap()), None);
        assert_eq!(Id::from([7; 32]).if_at(&address), None);
    }

    #[test]
    fn a_quarter_is_two_bits_less() {
        let mut bytes = [0; 32];
        bytes[3] = 0b1011;
        let zero = Id::from([0; 32]);
        let quarter = zero.distance(&bytes.into()).quarter();
        bytes[3] = 0b10;
        bytes[4] = 0b1100_0000;
        assert_eq!(quarter, zero.distance(&bytes.into()));
    }

    #[test]
    fn distance_is_the_xor_and_counts_shared_bits() {
        let mut bytes = [0; 32];
        let zero = Id::from(bytes);
        assert_eq!(zero.distance(&zero).shared_bits(), 256);
        bytes[31] = 1;
        assert_eq!(zero.distance(&bytes.into()).shared_bits(), 255);
        let near = zero.distance(&bytes.into());
        bytes[1] = 0x10;
        assert_eq!(zero.distance(&bytes.into()).shared_bits(), 11);
        assert_eq!(
            zero.distance(&bytes.into()),
            Id::from(bytes).distance(&zero)
        );
        assert!(near < zero.distance(&bytes.into()));
    }
}
