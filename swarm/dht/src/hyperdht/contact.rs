//! A peer's key together with nodes that may know where it is (`hyperdht-address`).
//! Knows its bytes. Does not know its text forms.
//!
//! Key 32, flags uint (missing is 0), list of IPv4 nodes with flag 1.

use std::net::SocketAddrV4;

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_uint};
use ferrocore_primitives::sign::PublicKey;

use crate::address::{IPV4_LEN, ipv4_list, list_len, put_ipv4_list};
use crate::flags::{field, flags};

const FLAG_NODES: u64 = 1;

/// Whom to connect to, and perhaps where to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contact {
    /// The peer's key.
    pub key: PublicKey,
    /// Nodes to ask first.
    pub nodes: Option<Vec<SocketAddrV4>>,
}

impl Encode for Contact {
    fn encoded_len(&self) -> usize {
        let nodes = self.nodes.as_ref();
        PublicKey::LEN + 1 + nodes.map_or(0, |list| list_len(list.len(), IPV4_LEN))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.key.encode(out);
        put_uint(out, flags(&[(FLAG_NODES, self.nodes.is_some())]));
        self.nodes.iter().for_each(|list| put_ipv4_list(out, list));
    }
}

impl Decode for Contact {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let key = PublicKey::decode(reader)?;
        let flags = if reader.is_empty() { 0 } else { reader.uint()? };
        let nodes = field(reader, flags, FLAG_NODES, ipv4_list)?;
        Ok(Self { key, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_key_is_a_contact() {
        let contact = Contact {
            key: [7; 32].into(),
            nodes: None,
        };
        assert_eq!(Contact::from_slice(&[7; 32]), Ok(contact));
    }
}
