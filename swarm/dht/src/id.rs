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

    /// The point that differs in one bit, counted from the first: the middle of all that share just the bits before
    /// it with this one. Itself if there is no such bit.
    #[must_use]
    pub fn with_bit_flipped(mut self, bit: usize) -> Self {
        if let Some(byte) = self.0.get_mut(bit / 8) {
            *byte ^= 0x80 >> (bit % 8);
        }
        self
    }
}

impl Distance {
    /// An eighth of this distance.
    #[must_use]
    pub fn eighth(&self) -> Self {
        let mut carried = 0;
        Self(self.0.map(|byte| {
            let shifted = carried << 5 | byte >> 3;
            carried = byte;
            shifted
        }))
    }

    /// Twice this distance, or all there is.
    #[must_use]
    pub fn doubled(&self) -> Self {
        if self.0.first().is_some_and(|first| first & 0x80 != 0) {
            return Self([0xff; Id::LEN]);
        }
        let mut carried = 0;
        let mut doubled = self.0;
        for byte in doubled.iter_mut().rev() {
            let shifted = *byte << 1 | carried;
            carried = *byte >> 7;
            *byte = shifted;
        }
        Self(doubled)
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
    fn points_that_differ_in_a_bit_share_those_before_it() {
        let zero = Id::from([0; 32]);
        for bit in 0..256 {
            let flipped = zero.with_bit_flipped(bit);
            assert_eq!(zero.distance(&flipped).shared_bits(), bit);
            assert_eq!(flipped.with_bit_flipped(bit), zero);
        }
        assert_eq!(zero.with_bit_flipped(256), zero);
    }

    #[test]
    fn an_eighth_is_three_bits_less() {
        let mut bytes = [0; 32];
        bytes[3] = 0b1011;
        let zero = Id::from([0; 32]);
        let eighth = zero.distance(&bytes.into()).eighth();
        bytes[3] = 0b1;
        bytes[4] = 0b0110_0000;
        assert_eq!(eighth, zero.distance(&bytes.into()));
    }

    #[test]
    fn a_double_is_one_bit_more_and_never_less() {
        let mut bytes = [0; 32];
        bytes[4] = 0b1100_0001;
        let zero = Id::from([0; 32]);
        let doubled = zero.distance(&bytes.into()).doubled();
        bytes[3] = 1;
        bytes[4] = 0b1000_0010;
        assert_eq!(doubled, zero.distance(&bytes.into()));
        let far = zero.distance(&[0x80; 32].into()).doubled();
        assert_eq!(far, zero.distance(&[0xff; 32].into()));
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
