//! The ten messages of the `hypercore/alpha` channel, and its handshake.
//!
//! | module | noun |
//! |---|---|
//! | `questions` | [`Request`], [`Cancel`], [`Data`], [`NoData`] |
//! | `blocks` | [`Want`], [`BitfieldWords`], [`Range`] |
//!
//! Knows bytes. Does not know when a message is sent or what it does. Matches
//! `hypercore/lib/messages.js` 11.37.1; what 10.38 leaves away is optional when decoding.
//!
//! | kind | message | fields, `[..]` by flag or if bytes remain |
//! |---|---|---|
//! | 0 | [`Sync`] | flags, fork, length, remote length |
//! | 1 | [`Request`] | flags, id, fork, \[block: index, nodes\], \[hash: index, nodes\], \[seek: bytes, padding\], \[upgrade: start, length\], \[priority\] |
//! | 2 | [`Cancel`] | request |
//! | 3 | [`Data`] | flags, request, fork, \[block: index, value, nodes\], \[hash: index, nodes\], \[seek: bytes, nodes\], \[upgrade: start, length, nodes, nodes, signature\], \[manifest\] |
//! | 4 | [`NoData`] | request, \[flags, \[reason\]\] |
//! | 5, 6 | [`Want`], unwant | start, length, \[flags: 1 any\] |
//! | 7 | [`BitfieldWords`] | start, words |
//! | 8 | [`Range`] | flags, start, \[length\] |
//! | 9 | [`Extension`] | name, rest |
//!
//! Numbers are uints, `nodes` an array of nodes. Unknown flags and trailing bytes are ignored.

mod blocks;
mod questions;

use bytes::Bytes;
use ferrocore_mux::Segment;
use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, put_string, put_uint, put_uint32_array,
};

pub use self::blocks::{BitfieldWords, Range, Want};
pub use self::questions::{Cancel, Data, NoData, Reason, Request};

/// A message of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "messages are passed on, never stored by the thousand"
)]
pub enum Message {
    /// The sender's state.
    Sync(Sync),
    /// A question.
    Request(Request),
    /// A question taken back.
    Cancel(Cancel),
    /// An answer.
    Data(Data),
    /// The lack of one.
    NoData(NoData),
    /// Tell me which of these blocks you have.
    Want(Want),
    /// I do not need to know any more.
    Unwant(Want),
    /// Which blocks the sender has, bit by bit.
    Bitfield(BitfieldWords),
    /// A run of blocks that the sender has, or has no more.
    Range(Range),
    /// An application's message.
    Extension(Extension),
}

const SYNC: u64 = 0;
const REQUEST: u64 = 1;
const CANCEL: u64 = 2;
const DATA: u64 = 3;
const NO_DATA: u64 = 4;
const WANT: u64 = 5;
const UNWANT: u64 = 6;
const BITFIELD: u64 = 7;
const RANGE: u64 = 8;
const EXTENSION: u64 = 9;

impl Message {
    /// Decodes a message of the given kind; `None` if a later version added the kind.
    ///
    /// The value of a block is a slice of `payload`, not a copy.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not such a message.
    pub fn decode(kind: u64, payload: &Bytes) -> Result<Option<Self>, DecodeError> {
        let reader = &mut Reader::new(payload);
        Ok(Some(match kind {
            SYNC => Self::Sync(Sync::decode(reader)?),
            REQUEST => Self::Request(Request::decode(reader)?),
            CANCEL => Self::Cancel(Cancel {
                request: reader.uint()?,
            }),
            DATA => Self::Data(Data::decode(reader, payload)?),
            NO_DATA => Self::NoData(NoData::decode(reader)?),
            WANT => Self::Want(Want::decode(reader)?),
            UNWANT => Self::Unwant(Want::decode(reader)?),
            BITFIELD => Self::Bitfield(BitfieldWords {
                start: reader.uint()?,
                words: reader.uint32_array()?,
            }),
            RANGE => Self::Range(Range::decode(reader)?),
            EXTENSION => Self::Extension(Extension {
                name: reader.string()?.to_owned(),
                message: payload.slice_ref(reader.rest()),
            }),
            _ => return Ok(None),
        }))
    }

    /// The message's number on the channel.
    pub fn kind(&self) -> u64 {
        match self {
            Self::Sync(_) => SYNC,
            Self::Request(_) => REQUEST,
            Self::Cancel(_) => CANCEL,
            Self::Data(_) => DATA,
            Self::NoData(_) => NO_DATA,
            Self::Want(_) => WANT,
            Self::Unwant(_) => UNWANT,
            Self::Bitfield(_) => BITFIELD,
            Self::Range(_) => RANGE,
            Self::Extension(_) => EXTENSION,
        }
    }

    /// Encodes the message and hands its segments to `send`. `scratch` is overwritten.
    ///
    /// The value of a block is a segment of its own, so that it need not be copied.
    pub fn encode<T>(&self, scratch: &mut Vec<u8>, send: impl FnOnce(&[Segment<'_>]) -> T) -> T {
        scratch.clear();
        match self {
            Self::Sync(sync) => sync.encode(scratch),
            Self::Request(request) => request.encode(scratch),
            Self::Cancel(cancel) => put_uint(scratch, cancel.request),
            Self::Data(data) => return data.encode(scratch, send),
            Self::NoData(no_data) => no_data.encode(scratch),
            Self::Want(want) | Self::Unwant(want) => want.encode(scratch),
            Self::Bitfield(bitfield) => {
                put_uint(scratch, bitfield.start);
                put_uint32_array(scratch, &bitfield.words);
            }
            Self::Range(range) => range.encode(scratch),
            Self::Extension(extension) => {
                put_string(scratch, &extension.name);
                return send(&[
                    Segment::Copy(scratch),
                    Segment::Share(extension.message.clone()),
                ]);
            }
        }
        send(&[Segment::Copy(scratch)])
    }
}

/// What is sent with the channel's `open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Whether requests with a `seek` are understood.
    pub seeks: bool,
    /// Proves that the sender knows the core's key; see [`capability`](crate::capability).
    pub capability: [u8; 32],
}

impl Encode for Handshake {
    fn encoded_len(&self) -> usize {
        33
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, u64::from(self.seeks));
        out.extend_from_slice(&self.capability);
    }
}

impl Decode for Handshake {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            seeks: reader.uint()? & 1 != 0,
            capability: reader.fixed32()?,
        })
    }
}

/// The sender's state: sent when the channel opens and whenever it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sync {
    /// The sender's fork.
    pub fork: u64,
    /// The sender's length, in blocks.
    pub length: u64,
    /// The receiver's length as the sender knows it: an acknowledgement. 0 if the forks differ.
    pub remote_length: u64,
    /// The sender can prove an upgrade from `remote_length`.
    pub can_upgrade: bool,
    /// The sender answers requests.
    pub uploading: bool,
    /// The sender is interested in blocks or upgrades.
    pub downloading: bool,
    /// The sender has a manifest to give.
    pub has_manifest: bool,
    /// The sender takes blocks that it did not ask for.
    pub allow_push: bool,
}

impl Sync {
    const CAN_UPGRADE: u64 = 1;
    const UPLOADING: u64 = 2;
    const DOWNLOADING: u64 = 4;
    const HAS_MANIFEST: u64 = 8;
    const ALLOW_PUSH: u64 = 16;

    fn encode(&self, out: &mut Vec<u8>) {
        let flags = flag(self.can_upgrade, Self::CAN_UPGRADE)
            | flag(self.uploading, Self::UPLOADING)
            | flag(self.downloading, Self::DOWNLOADING)
            | flag(self.has_manifest, Self::HAS_MANIFEST)
            | flag(self.allow_push, Self::ALLOW_PUSH);
        put_uints(out, [flags, self.fork, self.length, self.remote_length]);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            fork: reader.uint()?,
            length: reader.uint()?,
            remote_length: reader.uint()?,
            can_upgrade: flags & Self::CAN_UPGRADE != 0,
            uploading: flags & Self::UPLOADING != 0,
            downloading: flags & Self::DOWNLOADING != 0,
            has_manifest: flags & Self::HAS_MANIFEST != 0,
            allow_push: flags & Self::ALLOW_PUSH != 0,
        })
    }
}

/// An application's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Which application; empty stands for the name in the sender's previous extension message.
    pub name: String,
    /// Its bytes, a slice of the frame.
    pub message: Bytes,
}

fn flag(is_set: bool, bit: u64) -> u64 {
    if is_set { bit } else { 0 }
}

/// Reads a part if its flag is set.
fn when<T>(
    flags: u64,
    bit: u64,
    read: impl FnOnce() -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if flags & bit == 0 {
        Ok(None)
    } else {
        read().map(Some)
    }
}

/// Flags that version 10 does not send.
fn optional_flags(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    if reader.is_empty() {
        Ok(0)
    } else {
        reader.uint()
    }
}

fn put_uints<const N: usize>(out: &mut Vec<u8>, values: [u64; N]) {
    for value in values {
        put_uint(out, value);
    }
}

#[cfg(test)]
mod tests;
