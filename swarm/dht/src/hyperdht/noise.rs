//! What two peers tell each other inside the Noise handshake: where they are and how to go on.
//! Knows the payload's fields. Does not know the handshake around it or which path is taken.
//!
//! | field | bytes | flag |
//! |---|---|---|
//! | version, 1 | uint | |
//! | flags | uint | |
//! | error, firewall | uint each | |
//! | holepunch: id, list of (relay address, peer address) | uint, list of 12 | 1 |
//! | IPv4 addresses | list of IPv4 | 2 |
//! | IPv6 addresses | list of IPv6 | 4 |
//! | UDX: version 1, features (1 reusable socket), stream id, sequence number | uint each | 8 |
//! | secret stream: version 1 | uint | 16 |
//! | relay through: version 1, flags 0, public key, token | uint, uint, 32, 32 | 32 |
//! | relay addresses | list of IPv4 | 64 |
//!
//! The versions of the parts are written and not looked at, as in JavaScript.

use std::net::{SocketAddrV4, SocketAddrV6};

use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, put_array, put_uint, uint_len,
};
use ferrocore_primitives::sign::PublicKey;

use crate::address::{
    ADDRESSES_MAX, IPV4_LEN, IPV6_LEN, capped_list, ipv4, ipv4_list, ipv6_list, list_len, put_ipv4,
    put_ipv4_list, put_ipv6_list,
};
use crate::flags::{field, flags};
use crate::message::Token;

/// The version of the payload and of its parts.
const VERSION: u64 = 1;

/// Two IPv4 addresses.
const RELAY_LEN: usize = 2 * IPV4_LEN;

const FLAG_HOLEPUNCH: u64 = 1;
const FLAG_ADDRESSES4: u64 = 2;
const FLAG_ADDRESSES6: u64 = 4;
const FLAG_UDX: u64 = 8;
const FLAG_SECRET_STREAM: u64 = 16;
const FLAG_RELAY_THROUGH: u64 = 32;
const FLAG_RELAY_ADDRESSES: u64 = 64;

const FEATURE_REUSABLE_SOCKET: u64 = 1;

/// Why a peer does not go on. Unknown numbers are failures too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectError(pub u64);

impl ConnectError {
    /// It goes on.
    pub const NONE: Self = Self(0);
    /// It gave up.
    pub const ABORTED: Self = Self(1);
    /// It does not know the version of our payload.
    pub const VERSION_MISMATCH: Self = Self(2);
    /// It has no capacity now.
    pub const TRY_LATER: Self = Self(3);
}

/// How a peer's address looks from outside. Unknown numbers are to be taken for [`Firewall::UNKNOWN`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Firewall(pub u64);

impl Firewall {
    /// It does not know yet.
    pub const UNKNOWN: Self = Self(0);
    /// Anybody can reach it.
    pub const OPEN: Self = Self(1);
    /// Everybody sees the same address and port.
    pub const CONSISTENT: Self = Self(2);
    /// Everybody sees another port.
    pub const RANDOM: Self = Self(3);
}

/// One peer's side of a connection to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoisePayload {
    /// Whether it goes on.
    pub error: ConnectError,
    /// How it is reachable.
    pub firewall: Firewall,
    /// How to start holepunching; from servers without a public address.
    pub holepunch: Option<HolepunchInfo>,
    /// Its public address first, if it has one, then those on its local networks.
    pub addresses4: Vec<SocketAddrV4>,
    /// The same for IPv6; nobody fills it today.
    pub addresses6: Vec<SocketAddrV6>,
    /// The stream to connect to.
    pub udx: Option<UdxInfo>,
    /// Whether the stream will be encrypted as a secret stream.
    pub secret_stream: bool,
    /// A relay that it asks for.
    pub relay_through: Option<RelayThrough>,
    /// Where to find this server the next time.
    pub relay_addresses: Option<Vec<SocketAddrV4>>,
}

/// How to start holepunching with a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolepunchInfo {
    /// The server's number for this connection.
    pub id: u64,
    /// Its relays.
    pub relays: Vec<RelayInfo>,
}

/// A node that relays for a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayInfo {
    /// The relay.
    pub relay_address: SocketAddrV4,
    /// The server as that relay sees it.
    pub peer_address: SocketAddrV4,
}

/// One end of a UDX stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdxInfo {
    /// Whether more connections may use the same socket.
    pub reusable_socket: bool,
    /// The stream's id at this end.
    pub id: u64,
    /// Its first sequence number.
    pub seq: u64,
}

/// A blind relay and the token both sides show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayThrough {
    /// The relay's key.
    pub public_key: PublicKey,
    /// The pairing.
    pub token: Token,
}

/// Why bytes are no payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoisePayloadError {
    /// It is of a version that came later: answer with [`ConnectError::VERSION_MISMATCH`].
    #[error("the payload has the unknown version {0}")]
    UnknownVersion(u64),
    /// Its fields do not hold together: drop the handshake.
    #[error("malformed payload")]
    Malformed(#[from] DecodeError),
}

impl NoisePayload {
    /// Of who would be connected to a stream of this id, encrypted, and says no more.
    pub fn new(stream_id: u32) -> Self {
        Self {
            error: ConnectError::NONE,
            firewall: Firewall::UNKNOWN,
            holepunch: None,
            addresses4: Vec::new(),
            addresses6: Vec::new(),
            udx: Some(UdxInfo {
                reusable_socket: false,
                id: stream_id.into(),
                seq: 0,
            }),
            secret_stream: true,
            relay_through: None,
            relay_addresses: None,
        }
    }

    /// Reads the payload in `bytes`; what follows its last field is skipped.
    ///
    /// # Errors
    /// [`NoisePayloadError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoisePayloadError> {
        let mut reader = Reader::new(bytes);
        match reader.uint()? {
            VERSION => Ok(Self::read(&mut reader)?),
            other => Err(NoisePayloadError::UnknownVersion(other)),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            error: ConnectError(reader.uint()?),
            firewall: Firewall(reader.uint()?),
            holepunch: field(reader, flags, FLAG_HOLEPUNCH, HolepunchInfo::decode)?,
            addresses4: field(reader, flags, FLAG_ADDRESSES4, ipv4_list)?.unwrap_or_default(),
            addresses6: field(reader, flags, FLAG_ADDRESSES6, ipv6_list)?.unwrap_or_default(),
            udx: field(reader, flags, FLAG_UDX, UdxInfo::decode)?,
            secret_stream: field(reader, flags, FLAG_SECRET_STREAM, Reader::uint)?.is_some(),
            relay_through: field(reader, flags, FLAG_RELAY_THROUGH, RelayThrough::decode)?,
            relay_addresses: field(reader, flags, FLAG_RELAY_ADDRESSES, ipv4_list)?,
        })
    }

    fn flags(&self) -> u64 {
        flags(&[
            (FLAG_HOLEPUNCH, self.holepunch.is_some()),
            (FLAG_ADDRESSES4, !self.addresses4.is_empty()),
            (FLAG_ADDRESSES6, !self.addresses6.is_empty()),
            (FLAG_UDX, self.udx.is_some()),
            (FLAG_SECRET_STREAM, self.secret_stream),
            (FLAG_RELAY_THROUGH, self.relay_through.is_some()),
            (FLAG_RELAY_ADDRESSES, self.relay_addresses.is_some()),
        ])
    }
}

impl Encode for NoisePayload {
    fn encoded_len(&self) -> usize {
        let (four, six) = (self.addresses4.len(), self.addresses6.len());
        let relays = self.relay_addresses.as_ref();
        2 + uint_len(self.error.0)
            + uint_len(self.firewall.0)
            + self.holepunch.as_ref().map_or(0, Encode::encoded_len)
            + if four == 0 {
                0
            } else {
                list_len(four, IPV4_LEN)
            }
            + if six == 0 { 0 } else { list_len(six, IPV6_LEN) }
            + self.udx.as_ref().map_or(0, Encode::encoded_len)
            + usize::from(self.secret_stream)
            + self.relay_through.as_ref().map_or(0, Encode::encoded_len)
            + relays.map_or(0, |list| list_len(list.len(), IPV4_LEN))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, VERSION);
        put_uint(out, self.flags());
        put_uint(out, self.error.0);
        put_uint(out, self.firewall.0);
        self.holepunch.iter().for_each(|info| info.encode(out));
        if !self.addresses4.is_empty() {
            put_ipv4_list(out, &self.addresses4);
        }
        if !self.addresses6.is_empty() {
            put_ipv6_list(out, &self.addresses6);
        }
        self.udx.iter().for_each(|info| info.encode(out));
        if self.secret_stream {
            put_uint(out, VERSION);
        }
        self.relay_through.iter().for_each(|info| info.encode(out));
        self.relay_addresses
            .iter()
            .for_each(|list| put_ipv4_list(out, list));
    }
}

impl Encode for HolepunchInfo {
    fn encoded_len(&self) -> usize {
        uint_len(self.id) + list_len(self.relays.len(), RELAY_LEN)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.id);
        put_array(out, &self.relays, |out, relay| {
            put_ipv4(out, &relay.relay_address);
            put_ipv4(out, &relay.peer_address);
        });
    }
}

impl Decode for HolepunchInfo {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = reader.uint()?;
        let relays = capped_list(reader, ADDRESSES_MAX, RELAY_LEN, |reader| {
            Ok(RelayInfo {
                relay_address: ipv4(reader)?,
                peer_address: ipv4(reader)?,
            })
        })?;
        Ok(Self { id, relays })
    }
}

impl Encode for UdxInfo {
    fn encoded_len(&self) -> usize {
        2 + uint_len(self.id) + uint_len(self.seq)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, VERSION);
        put_uint(
            out,
            flags(&[(FEATURE_REUSABLE_SOCKET, self.reusable_socket)]),
        );
        put_uint(out, self.id);
        put_uint(out, self.seq);
    }
}

impl Decode for UdxInfo {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.uint()?;
        Ok(Self {
            reusable_socket: reader.uint()? & FEATURE_REUSABLE_SOCKET != 0,
            id: reader.uint()?,
            seq: reader.uint()?,
        })
    }
}

impl Encode for RelayThrough {
    fn encoded_len(&self) -> usize {
        2 + PublicKey::LEN + Token::LEN
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, VERSION);
        put_uint(out, 0);
        self.public_key.encode(out);
        self.token.encode(out);
    }
}

impl Decode for RelayThrough {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.uint()?;
        reader.uint()?;
        Ok(Self {
            public_key: PublicKey::decode(reader)?,
            token: Token::decode(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_is_named_rather_than_read() {
        assert_eq!(
            NoisePayload::parse(&[2, 0xff]),
            Err(NoisePayloadError::UnknownVersion(2))
        );
        assert_eq!(
            NoisePayload::parse(&[]),
            Err(NoisePayloadError::Malformed(DecodeError::OutOfBounds))
        );
    }
}
