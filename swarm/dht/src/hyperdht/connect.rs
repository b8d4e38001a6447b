//! What relays carry between two peers that want to connect: handshakes and rounds of holepunching.
//! Knows the envelopes that relays read and the holepunch payload under encryption. Does not know the encryption,
//! who relays for whom, or how to punch.
//!
//! | value | layout |
//! |---|---|
//! | [`Handshake`] | flags uint, mode uint, noise buffer, by flag: 1 peer address IPv4, 2 relay address IPv4 |
//! | [`Holepunch`] | flags uint, mode uint, id uint, payload buffer, by flag: 1 peer address IPv4 |
//! | [`HolepunchPayload`] | flags uint (1 connected, 2 punching), error uint, firewall uint, round uint, by flag: 4 list of IPv4, 8 remote address IPv4, 16 token 32, 32 remote token 32 |

use std::net::SocketAddrV4;

use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, buffer_len, put_buffer, put_uint, uint_len,
};

use super::noise::{ConnectError, Firewall};
use crate::address::{IPV4_LEN, ipv4, ipv4_list, list_len, put_ipv4, put_ipv4_list};
use crate::flags::{field, flags};
use crate::message::Token;

const FLAG_PEER_ADDRESS: u64 = 1;
const FLAG_RELAY_ADDRESS: u64 = 2;

const FLAG_CONNECTED: u64 = 1;
const FLAG_PUNCHING: u64 = 2;
const FLAG_ADDRESSES: u64 = 4;
const FLAG_REMOTE_ADDRESS: u64 = 8;
const FLAG_TOKEN: u64 = 16;
const FLAG_REMOTE_TOKEN: u64 = 32;

/// On which leg of its way a message is. Unknown modes are to be ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mode(pub u64);

impl Mode {
    /// From the client, to a relay or to the server itself.
    pub const FROM_CLIENT: Self = Self(0);
    /// From the server, back to the relay.
    pub const FROM_SERVER: Self = Self(1);
    /// From the client's relay, to the server or to a second relay.
    pub const FROM_RELAY: Self = Self(2);
    /// From the second relay, to the server.
    pub const FROM_SECOND_RELAY: Self = Self(3);
    /// To the client.
    pub const REPLY: Self = Self(4);
}

/// A message of the Noise handshake and where it is going.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The leg.
    pub mode: Mode,
    /// The Noise message.
    pub noise: Vec<u8>,
    /// The other peer, as the relay sees it.
    pub peer_address: Option<SocketAddrV4>,
    /// The relay to go through, or to answer to.
    pub relay_address: Option<SocketAddrV4>,
}

/// A round of holepunching and where it is going.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holepunch {
    /// The leg.
    pub mode: Mode,
    /// The server's number for this connection, from its handshake; 0 towards the client.
    pub id: u64,
    /// A [`HolepunchPayload`], encrypted.
    pub payload: Vec<u8>,
    /// The other peer, as the relay sees it.
    pub peer_address: Option<SocketAddrV4>,
}

/// What one peer tells the other about itself and its progress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolepunchPayload {
    /// Whether to go on.
    pub error: ConnectError,
    /// The sender's firewall.
    pub firewall: Firewall,
    /// Number of the round; only grows.
    pub round: u64,
    /// Whether the sender has a connection.
    pub connected: bool,
    /// Whether the sender is punching.
    pub punching: bool,
    /// Where the sender can be reached, perhaps.
    pub addresses: Option<Vec<SocketAddrV4>>,
    /// Where the sender sees the receiver.
    pub remote_address: Option<SocketAddrV4>,
    /// Proves, when it comes back, that the receiver is at its address.
    pub token: Option<Token>,
    /// The receiver's own token, sent back.
    pub remote_token: Option<Token>,
}

impl Encode for Handshake {
    fn encoded_len(&self) -> usize {
        1 + uint_len(self.mode.0)
            + buffer_len(self.noise.len())
            + self.peer_address.map_or(0, |_| IPV4_LEN)
            + self.relay_address.map_or(0, |_| IPV4_LEN)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let present = [
            (FLAG_PEER_ADDRESS, self.peer_address.is_some()),
            (FLAG_RELAY_ADDRESS, self.relay_address.is_some()),
        ];
        put_uint(out, flags(&present));
        put_uint(out, self.mode.0);
        put_buffer(out, &self.noise);
        self.peer_address
            .iter()
            .for_each(|address| put_ipv4(out, address));
        self.relay_address
            .iter()
            .for_each(|address| put_ipv4(out, address));
    }
}

impl Decode for Handshake {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            mode: Mode(reader.uint()?),
            noise: reader.buffer()?.to_vec(),
            peer_address: field(reader, flags, FLAG_PEER_ADDRESS, ipv4)?,
            relay_address: field(reader, flags, FLAG_RELAY_ADDRESS, ipv4)?,
        })
    }
}

impl Encode for Holepunch {
    fn encoded_len(&self) -> usize {
        1 + uint_len(self.mode.0)
            + uint_len(self.id)
            + buffer_len(self.payload.len())
            + self.peer_address.map_or(0, |_| IPV4_LEN)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(
            out,
            flags(&[(FLAG_PEER_ADDRESS, self.peer_address.is_some())]),
        );
        put_uint(out, self.mode.0);
        put_uint(out, self.id);
        put_buffer(out, &self.payload);
        self.peer_address
            .iter()
            .for_each(|address| put_ipv4(out, address));
    }
}

impl Decode for Holepunch {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            mode: Mode(reader.uint()?),
            id: reader.uint()?,
            payload: reader.buffer()?.to_vec(),
            peer_address: field(reader, flags, FLAG_PEER_ADDRESS, ipv4)?,
        })
    }
}

impl HolepunchPayload {
    /// The round in which a side gives up.
    pub fn error(error: ConnectError, round: u64) -> Self {
        Self {
            error,
            firewall: Firewall::UNKNOWN,
            round,
            connected: false,
            punching: false,
            addresses: None,
            remote_address: None,
            token: None,
            remote_token: None,
        }
    }

    fn flags(&self) -> u64 {
        flags(&[
            (FLAG_CONNECTED, self.connected),
            (FLAG_PUNCHING, self.punching),
            (FLAG_ADDRESSES, self.addresses.is_some()),
            (FLAG_REMOTE_ADDRESS, self.remote_address.is_some()),
            (FLAG_TOKEN, self.token.is_some()),
            (FLAG_REMOTE_TOKEN, self.remote_token.is_some()),
        ])
    }
}

impl Encode for HolepunchPayload {
    fn encoded_len(&self) -> usize {
        let addresses = self.addresses.as_ref();
        1 + uint_len(self.error.0)
            + uint_len(self.firewall.0)
            + uint_len(self.round)
            + addresses.map_or(0, |list| list_len(list.len(), IPV4_LEN))
            + self.remote_address.map_or(0, |_| IPV4_LEN)
            + self.token.map_or(0, |_| Token::LEN)
            + self.remote_token.map_or(0, |_| Token::LEN)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.flags());
        put_uint(out, self.error.0);
        put_uint(out, self.firewall.0);
        put_uint(out, self.round);
        self.addresses
            .iter()
            .for_each(|list| put_ipv4_list(out, list));
        self.remote_address
            .iter()
            .for_each(|address| put_ipv4(out, address));
        self.token.iter().for_each(|token| token.encode(out));
        self.remote_token.iter().for_each(|token| token.encode(out));
    }
}

impl Decode for HolepunchPayload {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            error: ConnectError(reader.uint()?),
            firewall: Firewall(reader.uint()?),
            round: reader.uint()?,
            connected: flags & FLAG_CONNECTED != 0,
            punching: flags & FLAG_PUNCHING != 0,
            addresses: field(reader, flags, FLAG_ADDRESSES, ipv4_list)?,
            remote_address: field(reader, flags, FLAG_REMOTE_ADDRESS, ipv4)?,
            token: field(reader, flags, FLAG_TOKEN, Token::decode)?,
            remote_token: field(reader, flags, FLAG_REMOTE_TOKEN, Token::decode)?,
        })
    }
}
