//! dht-rpc datagrams: requests and the replies to them.
//! Knows every field of both. Does not know what commands do, which tokens are good, or who is asked; nor what callers see of
//! them, which is [`rpc::Outgoing`](crate::rpc::Outgoing) and [`rpc::Incoming`](crate::rpc::Incoming) with their answers.
//!
//! One datagram carries one message (`dht-rpc/lib/io.js` 6.27). Fields marked with a flag are there only if the flag
//! is set; encodings are those of [`encoding`](ferrocore_primitives::encoding) and [`address`](crate::address).
//!
//! | request | bytes | flag |
//! |---|---|---|
//! | type and version | `03` | |
//! | flags | uint | |
//! | transaction id | u16 | |
//! | address it is sent to | IPv4 | |
//! | id of the sender | 32 | 1 |
//! | token | 32 | 2 |
//! | command; of the DHT's own with flag 4 | uint | |
//! | target | 32 | 8 |
//! | value | buffer | 16 |
//!
//! | reply | bytes | flag |
//! |---|---|---|
//! | type and version | `13` | |
//! | flags | uint | |
//! | transaction id of the request | u16 | |
//! | address it is sent to | IPv4 | |
//! | id of the sender | 32 | 1 |
//! | token for a later write | 32 | 2 |
//! | closer nodes | list of IPv4 | 4 |
//! | error, if not 0 | uint | 8 |
//! | value | buffer | 16 |

use std::fmt;
use std::net::SocketAddrV4;

use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, buffer_len, put_buffer, put_u16, put_uint, uint_len,
};

use crate::address::{IPV4_LEN, ipv4, ipv4_list, list_len, put_ipv4, put_ipv4_list};
use crate::flags::{field, flags};
use crate::id::Id;

/// The largest datagram, in bytes: what UDP can carry over IPv4. Larger ones are refused before they are read.
pub const DATAGRAM_LEN_MAX: usize = 65_507;

/// First byte of a request: type 0, version 3.
const REQUEST: u8 = 0x03;

/// First byte of a reply: type 1, version 3.
const REPLY: u8 = 0x13;

const FLAG_ID: u64 = 1;
const FLAG_TOKEN: u64 = 2;
const FLAG_INTERNAL: u64 = 4;
const FLAG_TARGET: u64 = 8;
const FLAG_CLOSER_NODES: u64 = 4;
const FLAG_ERROR: u64 = 8;
const FLAG_VALUE: u64 = 16;

/// Type, flags (always one byte), transaction id and address.
const HEADER_LEN: usize = 1 + 1 + 2 + IPV4_LEN;

/// A request or a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Somebody asks.
    Request(Request),
    /// Somebody answers.
    Reply(Reply),
}

/// A question or an order to one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Number by which the reply is recognised.
    pub tid: u16,
    /// Where the sender sends it: from this the receiver learns its own public address.
    pub to: SocketAddrV4,
    /// The sender's id as it claims it; see [`Id::if_at`]. Only nodes that stay and can be reached send one.
    pub id: Option<Id>,
    /// The token that the receiver gave out before, for writes.
    pub token: Option<Token>,
    /// What is to be done.
    pub command: Command,
    /// What it is about.
    pub target: Option<Id>,
    /// The command's argument. Empty is not the same as none.
    pub value: Option<Vec<u8>>,
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Number of the request.
    pub tid: u16,
    /// The requester as the replier sees it.
    pub to: SocketAddrV4,
    /// The replier's id as it claims it; see [`Id::if_at`].
    pub id: Option<Id>,
    /// A token to send along with a write to this node.
    pub token: Option<Token>,
    /// Nodes closer to the target, in no order; empty and absent are the same. Errors carry them too.
    pub closer_nodes: Vec<SocketAddrV4>,
    /// What went wrong, or [`ErrorCode::NONE`].
    pub error: ErrorCode,
    /// The command's result. Empty is not the same as none.
    pub value: Option<Vec<u8>>,
}

/// What a request asks for. Numbers nobody knows are carried too: they are answered with
/// [`ErrorCode::UNKNOWN_COMMAND`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Command {
    /// Whether it is one of the DHT's own commands rather than the application's.
    pub internal: bool,
    /// Its number among those.
    pub number: u64,
}

impl Command {
    /// Answer, to show that you are there.
    pub const PING: Self = Self::internal(0);
    /// Answer to another port of mine: the value, u16.
    pub const PING_NAT: Self = Self::internal(1);
    /// Name the nodes that you know closest to the target.
    pub const FIND_NODE: Self = Self::internal(2);
    /// The node at the address in the value seems to be gone.
    pub const DOWN_HINT: Self = Self::internal(3);
    /// Answer after some milliseconds: the value, u32.
    pub const DELAYED_PING: Self = Self::internal(4);

    /// Command `number` of the application.
    pub const fn application(number: u64) -> Self {
        Self {
            internal: false,
            number,
        }
    }

    const fn internal(number: u64) -> Self {
        Self {
            internal: true,
            number,
        }
    }
}

/// Why a request failed. Applications share the number space: HyperDHT has codes of its own from 16 on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ErrorCode(pub u64);

impl ErrorCode {
    /// Nothing failed.
    pub const NONE: Self = Self(0);
    /// The node does not know the command, or does not serve it yet.
    pub const UNKNOWN_COMMAND: Self = Self(1);
    /// The token is too old or another node's; the reply brings a fresh one.
    pub const INVALID_TOKEN: Self = Self(2);
}

/// 32 bytes that prove to their issuer that whoever shows them received its datagrams. Not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; Token::LEN]);

/// Why a datagram is no message. Either way it is dropped without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It is of another protocol, or of another version: let the next layer on the socket have a look.
    #[error("not a dht-rpc 3 datagram")]
    NotDhtRpc,
    /// It is larger than [`DATAGRAM_LEN_MAX`].
    #[error("{0} bytes are more than a datagram holds")]
    TooLong(usize),
    /// Its fields do not hold together.
    #[error("malformed message")]
    Malformed(#[from] DecodeError),
}

impl Message {
    /// Reads the message in `datagram`; bytes behind its last field are skipped.
    ///
    /// # Errors
    /// [`MessageError`]; the datagram is then to be ignored.
    pub fn parse(datagram: &[u8]) -> Result<Self, MessageError> {
        if datagram.len() > DATAGRAM_LEN_MAX {
            return Err(MessageError::TooLong(datagram.len()));
        }
        let mut reader = Reader::new(datagram);
        match reader.u8() {
            Ok(REQUEST) => Ok(Self::Request(Request::read(&mut reader)?)),
            Ok(REPLY) => Ok(Self::Reply(Reply::read(&mut reader)?)),
            _ => Err(MessageError::NotDhtRpc),
        }
    }
}

impl Request {
    /// The datagram. Whether it is short enough to travel unfragmented is up to the value.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.push(REQUEST);
        put_uint(&mut out, self.flags());
        put_u16(&mut out, self.tid);
        put_ipv4(&mut out, &self.to);
        self.id.iter().for_each(|id| id.encode(&mut out));
        self.token.iter().for_each(|token| token.encode(&mut out));
        put_uint(&mut out, self.command.number);
        self.target
            .iter()
            .for_each(|target| target.encode(&mut out));
        self.value
            .iter()
            .for_each(|value| put_buffer(&mut out, value));
        debug_assert_eq!(out.len(), self.len());
        out
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            tid: reader.u16()?,
            to: ipv4(reader)?,
            id: field(reader, flags, FLAG_ID, Id::decode)?,
            token: field(reader, flags, FLAG_TOKEN, Token::decode)?,
            command: Command {
                internal: flags & FLAG_INTERNAL != 0,
                number: reader.uint()?,
            },
            target: field(reader, flags, FLAG_TARGET, Id::decode)?,
            value: field(reader, flags, FLAG_VALUE, |r| r.buffer().map(Vec::from))?,
        })
    }

    fn flags(&self) -> u64 {
        flags(&[
            (FLAG_ID, self.id.is_some()),
            (FLAG_TOKEN, self.token.is_some()),
            (FLAG_INTERNAL, self.command.internal),
            (FLAG_TARGET, self.target.is_some()),
            (FLAG_VALUE, self.value.is_some()),
        ])
    }

    fn len(&self) -> usize {
        HEADER_LEN
            + self.id.map_or(0, |_| Id::LEN)
            + self.token.map_or(0, |_| Token::LEN)
            + uint_len(self.command.number)
            + self.target.map_or(0, |_| Id::LEN)
            + self.value.as_ref().map_or(0, |v| buffer_len(v.len()))
    }
}

impl Reply {
    /// The datagram. Whether it is short enough to travel unfragmented is up to the value.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.push(REPLY);
        put_uint(&mut out, self.flags());
        put_u16(&mut out, self.tid);
        put_ipv4(&mut out, &self.to);
        self.id.iter().for_each(|id| id.encode(&mut out));
        self.token.iter().for_each(|token| token.encode(&mut out));
        if !self.closer_nodes.is_empty() {
            put_ipv4_list(&mut out, &self.closer_nodes);
        }
        if self.error != ErrorCode::NONE {
            put_uint(&mut out, self.error.0);
        }
        self.value
            .iter()
            .for_each(|value| put_buffer(&mut out, value));
        debug_assert_eq!(out.len(), self.len());
        out
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            tid: reader.u16()?,
            to: ipv4(reader)?,
            id: field(reader, flags, FLAG_ID, Id::decode)?,
            token: field(reader, flags, FLAG_TOKEN, Token::decode)?,
            closer_nodes: field(reader, flags, FLAG_CLOSER_NODES, ipv4_list)?.unwrap_or_default(),
            error: ErrorCode(field(reader, flags, FLAG_ERROR, Reader::uint)?.unwrap_or_default()),
            value: field(reader, flags, FLAG_VALUE, |r| r.buffer().map(Vec::from))?,
        })
    }

    fn flags(&self) -> u64 {
        flags(&[
            (FLAG_ID, self.id.is_some()),
            (FLAG_TOKEN, self.token.is_some()),
            (FLAG_CLOSER_NODES, !self.closer_nodes.is_empty()),
            (FLAG_ERROR, self.error != ErrorCode::NONE),
            (FLAG_VALUE, self.value.is_some()),
        ])
    }

    fn len(&self) -> usize {
        let nodes = list_len(self.closer_nodes.len(), IPV4_LEN);
        HEADER_LEN
            + self.id.map_or(0, |_| Id::LEN)
            + self.token.map_or(0, |_| Token::LEN)
            + if self.closer_nodes.is_empty() {
                0
            } else {
                nodes
            }
            + match self.error {
                ErrorCode::NONE => 0,
                ErrorCode(number) => uint_len(number),
            }
            + self.value.as_ref().map_or(0, |v| buffer_len(v.len()))
    }
}

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; Token::LEN]> for Token {
    fn from(bytes: [u8; Token::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Encode for Token {
    fn encoded_len(&self) -> usize {
        Self::LEN
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl Decode for Token {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.fixed32().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_and_versions_are_told_apart() {
        for datagram in [
            &[][..],
            &[0],
            &[0xff, 1, 0, 0],
            &[0x02, 0],
            &[0x04, 0],
            &[0x23, 0],
        ] {
            assert_eq!(Message::parse(datagram), Err(MessageError::NotDhtRpc));
        }
        assert_eq!(
            Message::parse(&[REQUEST]),
            Err(MessageError::Malformed(DecodeError::OutOfBounds))
        );
        let long = vec![REPLY; DATAGRAM_LEN_MAX + 1];
        assert_eq!(
            Message::parse(&long),
            Err(MessageError::TooLong(DATAGRAM_LEN_MAX + 1))
        );
    }

    #[test]
    fn unknown_flags_and_trailing_bytes_are_skipped() {
        let ping = Request {
            tid: 1,
            to: "10.0.0.9:4321".parse().unwrap(),
            id: None,
            token: None,
            command: Command::PING,
            target: None,
            value: None,
        };
        let mut bytes = ping.to_vec();
        bytes[1] |= 0xe0;
        bytes.extend([1, 2, 3]);
        assert_eq!(Message::parse(&bytes), Ok(Message::Request(ping)));
    }
}
