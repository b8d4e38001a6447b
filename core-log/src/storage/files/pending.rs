//! What the journal holds: the changes of several cores, and how to tell whether they were made.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `FCJ1` |
//! | 8 | length of the payload, little endian |
//! | 32 | BLAKE2b-256 of the payload |
//! | … | payload: uint count, then for each core what follows |
//!
//! | field | encoding |
//! |---|---|
//! | core | discovery key, 32 bytes |
//! | before, after | [`Identity`] of its state, 32 bytes each |
//! | user data | list of (string key, optional buffer value) |
//! | nodes | list of (uint index, uint size, hash 32) |
//! | head | 0, or 1 and (uint fork, uint ancestors, uint length, root hash 32, buffer signature) |
//! | bits | list of (bool value, uint start, uint end) |
//! | freed | list of (uint start, uint end) |
//! | blocks | list of (uint byte offset, list of buffers) |
//!
//! A list is a uint count and the items, of which all lists together have at most [`ITEMS_MAX`]: in memory the smallest takes
//! a hundred times its bytes. Integers and buffers are those of compact-encoding. The
//! format is ours: no other program reads it. Blocks are here only where they cannot be written to
//! their place before the batch counts: those of a change that replaces history.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, put_bool, put_buffer, put_optional_buffer, put_string,
    put_u64, put_uint,
};
use ferrocore_primitives::hash::{self, Hash};
use ferrocore_primitives::keys::DiscoveryKey;

use crate::merkle::Node;
use crate::storage::{BitWrite, BlockWrite, CoreHeader, CoreWrite, Head, HeadWrite, set_user_data};

const MAGIC: [u8; 4] = *b"FCJ1";
/// Bytes in front of the payload.
pub(super) const FRAME_BYTES: usize = MAGIC.len() + 8 + 32;

/// Most items of a journal. Nodes, of 34 bytes or more, fill it before there are as many; what is smaller comes in far smaller
/// numbers, or was made to cost us memory.
pub(super) const ITEMS_MAX: usize = 1 << 20;

/// Tells one state of a core from every other: a hash over fork, length, root hash and user data.
///
/// Heads alone never come back, as a truncate begins another fork, but user data may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(Hash);

impl Identity {
    /// Of a core with this header.
    pub(super) fn of(header: &CoreHeader) -> Self {
        Self::new(&header.head, &header.user_data)
    }

    /// Of that core once `write` is made.
    pub(super) fn after(header: &CoreHeader, write: &CoreWrite) -> Self {
        let head = write.head.as_ref().map_or(&header.head, |head| &head.head);
        let mut user_data = header.user_data.clone();
        for (key, value) in &write.user_data {
            set_user_data(&mut user_data, key.clone(), value.clone());
        }
        Self::new(head, &user_data)
    }

    fn new(head: &Head, user_data: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut text = Vec::new();
        put_u64(&mut text, head.fork);
        put_u64(&mut text, head.length);
        if head.length > 0 {
            text.extend_from_slice(head.root_hash.as_bytes());
        }
        for (key, value) in user_data {
            put_string(&mut text, key);
            put_buffer(&mut text, value);
        }
        Self(hash::hash(&[&text]))
    }
}

/// The change of one core in a batch.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) core: DiscoveryKey,
    pub(super) before: Identity,
    pub(super) after: Identity,
    pub(super) write: CoreWrite,
}

/// The journal's bytes while `changes` are being made.
pub(super) fn encode<'a>(changes: impl ExactSizeIterator<Item = &'a Pending>) -> Vec<u8> {
    let mut payload = Vec::new();
    put_uint(&mut payload, changes.len() as u64);
    changes.for_each(|pending| pending.encode(&mut payload));
    let mut out = Vec::with_capacity(FRAME_BYTES + payload.len());
    out.extend_from_slice(&MAGIC);
    put_u64(&mut out, payload.len() as u64);
    out.extend_from_slice(hash::hash(&[&payload]).as_bytes());
    out.extend_from_slice(&payload);
    out
}

/// The changes in the journal `bytes`, or `None` if they were not all written: none was made then.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Pending>> {
    let mut reader = Reader::new(bytes);
    if reader.fixed::<4>().ok()? != MAGIC {
        return None;
    }
    let len = usize::try_from(reader.u64().ok()?).ok()?;
    let told = Hash::from(reader.fixed32().ok()?);
    let payload = reader.bytes(len).ok()?;
    if hash::hash(&[payload]) != told {
        return None;
    }
    let left = Cell::new(ITEMS_MAX as u64);
    let change = |reader: &mut Reader<'_>| Pending::decode(reader, &left);
    list(&mut Reader::new(payload), &left, change).ok()
}

impl Pending {
    /// How many items this change has, itself one.
    pub(super) fn items(&self) -> usize {
        let write = &self.write;
        let blocks = write.blocks.iter().map(|run| 1 + run.blocks.len());
        let lists =
            write.user_data.len() + write.nodes.len() + write.bits.len() + write.freed.len();
        1 + lists + blocks.sum::<usize>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.core.as_bytes());
        out.extend_from_slice(self.before.0.as_bytes());
        out.extend_from_slice(self.after.0.as_bytes());
        let write = &self.write;
        put_list(out, &write.user_data, |out, (key, value)| {
            put_string(out, key);
            put_optional_buffer(out, value.as_deref());
        });
        put_list(out, &write.nodes, |out, node| node.encode(out));
        put_bool(out, write.head.is_some());
        if let Some(HeadWrite { head, ancestors }) = &write.head {
            put_uint(out, head.fork);
            put_uint(out, *ancestors);
            put_uint(out, head.length);
            out.extend_from_slice(head.root_hash.as_bytes());
            put_buffer(out, &head.signature);
        }
        put_list(out, &write.bits, |out, bits| {
            put_bool(out, bits.value);
            put_range(out, &bits.range);
        });
        put_list(out, &write.freed, put_range);
        put_list(out, &write.blocks, |out, blocks| {
            put_uint(out, blocks.byte_offset);
            put_list(out, &blocks.blocks, |out, block| put_buffer(out, block));
        });
    }

    fn decode(reader: &mut Reader<'_>, left: &Cell<u64>) -> Result<Self, DecodeError> {
        let pending = Self::read(reader, left)?;
        let set = pending.write.bits.iter().filter(|bits| bits.value);
        let set = set.map(|bits| bits.range.end - bits.range.start);
        // A block comes with its leaf. Without them, few bytes would make us mark any number of blocks.
        match set.fold(0, u64::saturating_add) <= pending.write.nodes.len() as u64 {
            true => Ok(pending),
            false => Err(DecodeError::Invalid("blocks without their nodes")),
        }
    }

    fn read(reader: &mut Reader<'_>, left: &Cell<u64>) -> Result<Self, DecodeError> {
        Ok(Self {
            core: DiscoveryKey::from(reader.fixed32()?),
            before: Identity(Hash::from(reader.fixed32()?)),
            after: Identity(Hash::from(reader.fixed32()?)),
            write: CoreWrite {
                user_data: list(reader, left, |reader| {
                    let key = reader.string()?.to_owned();
                    Ok((key, reader.optional_buffer()?.map(<[u8]>::to_vec)))
                })?,
                nodes: list(reader, left, Node::decode)?,
                head: match reader.bool()? {
                    true => Some(read_head(reader)?),
                    false => None,
                },
                bits: list(reader, left, |reader| {
                    let value = reader.bool()?;
                    let range = read_range(reader)?;
                    Ok(BitWrite { range, value })
                })?,
                freed: list(reader, left, read_range)?,
                blocks: list(reader, left, |reader| {
                    let byte_offset = reader.uint()?;
                    let block =
                        |reader: &mut Reader<'_>| Ok(Bytes::copy_from_slice(reader.buffer()?));
                    let blocks = list(reader, left, block)?;
                    Ok(BlockWrite {
                        byte_offset,
                        blocks,
                    })
                })?,
                manifest: None,
            },
        })
    }
}

fn read_head(reader: &mut Reader<'_>) -> Result<HeadWrite, DecodeError> {
    let (fork, ancestors) = (reader.uint()?, reader.uint()?);
    let head = Head {
        fork,
        length: reader.uint()?,
        root_hash: Hash::from(reader.fixed32()?),
        signature: Bytes::copy_from_slice(reader.buffer()?),
    };
    match ancestors <= head.length {
        true => Ok(HeadWrite { head, ancestors }),
        false => Err(DecodeError::Invalid(
            "a head that is shorter than what it keeps",
        )),
    }
}

fn put_range(out: &mut Vec<u8>, range: &Range<u64>) {
    put_uint(out, range.start);
    put_uint(out, range.end);
}

fn read_range(reader: &mut Reader<'_>) -> Result<Range<u64>, DecodeError> {
    let range = reader.uint()?..reader.uint()?;
    match range.start <= range.end {
        true => Ok(range),
        false => Err(DecodeError::Invalid("a range that ends before it begins")),
    }
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    put_uint(out, items.len() as u64);
    items.iter().for_each(|value| item(out, value));
}

/// As many items as are told, if so many are `left`.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    left: &Cell<u64>,
    item: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.uint()?;
    let rest = left.get().checked_sub(count);
    left.set(rest.ok_or(DecodeError::Invalid("more items than a journal may have"))?);
    (0..count).map(|_| item(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocore_primitives::keys::Key;

    fn header() -> CoreHeader {
        CoreHeader {
            key: Key::from([1; 32]),
            manifest: None,
            key_pair: None,
            user_data: BTreeMap::from([("kept".to_owned(), vec![1])]),
            head: Head::empty(),
        }
    }

    fn write() -> CoreWrite {
        let head = Head {
            fork: 1,
            length: 3,
            root_hash: Hash::from([3; 32]),
            signature: Bytes::from_static(b"signature"),
        };
        CoreWrite {
            blocks: vec![BlockWrite {
                byte_offset: 300,
                blocks: vec![Bytes::from_static(b"one"), Bytes::new()],
            }],
            nodes: vec![Node::blank(7), Node::leaf(1, b"leaf")],
            bits: vec![BitWrite {
                range: 1..3,
                value: true,
            }],
            head: Some(HeadWrite { head, ancestors: 1 }),
            manifest: None,
            user_data: vec![("set".to_owned(), Some(vec![5])), ("gone".to_owned(), None)],
            freed: vec![4..9, 20..30],
        }
    }

    fn pending() -> Vec<Pending> {
        let pending = |core, write| Pending {
            core: DiscoveryKey::from([core; 32]),
            before: Identity::of(&header()),
            after: Identity::after(&header(), &write),
            write,
        };
        vec![pending(1, write()), pending(2, CoreWrite::default())]
    }

    #[test]
    fn changes_come_back_whole_or_not_at_all() {
        let bytes = encode(pending().iter());
        let back = decode(&bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", pending()));
        let longer = [bytes.as_slice(), b"of a longer batch before"].concat();
        assert_eq!(decode(&longer).unwrap().len(), 2);
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&flipped).is_none(), "flipped at {at}");
        }
    }

    /// Goal: a payload that was never written by us, under a hash that fits, is no reason to panic
    /// or to allocate.
    #[test]
    fn a_count_beyond_the_bytes_is_refused() {
        let mut payload = Vec::new();
        put_uint(&mut payload, 1 << 50);
        let mut bytes = MAGIC.to_vec();
        put_u64(&mut bytes, payload.len() as u64);
        bytes.extend_from_slice(hash::hash(&[&payload]).as_bytes());
        bytes.extend_from_slice(&payload);
        assert!(decode(&bytes).is_none());
    }

    /// Goal: what a journal takes in memory is bounded by more than its bytes, and what is written is read. Method: the
    /// smallest items there are, as many as may be and one more.
    #[test]
    fn many_small_items_are_refused() {
        let mut pending = pending();
        pending.truncate(1);
        pending[0].write.freed.clear();
        let room = ITEMS_MAX - pending[0].items();
        for (count, is_taken) in [(room, true), (room + 1, false)] {
            pending[0].write.freed = vec![0..1; count];
            assert_eq!(pending[0].items() <= ITEMS_MAX, is_taken);
            assert_eq!(decode(&encode(pending.iter())).is_some(), is_taken);
        }
    }

    /// Goal: a change that marks blocks which it does not bring is none that was made.
    #[test]
    fn blocks_without_nodes_are_refused() {
        let mut pending = pending();
        let whole = |bits: Range<u64>| BitWrite {
            range: bits,
            value: true,
        };
        pending[0].write.bits = vec![whole(1..3)];
        assert!(decode(&encode(pending.iter())).is_some());
        // The last ones together are more than a number holds.
        for (bits, count) in [(0..1 << 52, 1), (1..4, 1), (0..1 << 52, 1 << 13)] {
            pending[0].write.bits = vec![whole(bits); count];
            assert!(decode(&encode(pending.iter())).is_none());
        }
    }

    /// Goal: numbers that no batch has make nobody compute with them.
    #[test]
    fn ranges_and_heads_that_run_backwards_are_refused() {
        let backwards = Range { start: 9, end: 4 };
        let changes: [fn(&mut CoreWrite, Range<u64>); 3] = [
            |write, range| write.freed = vec![range],
            |write, range| {
                write.bits = vec![BitWrite {
                    range,
                    value: false,
                }]
            },
            |write, _| write.head.as_mut().unwrap().ancestors = 4,
        ];
        for change in changes {
            let mut pending = pending();
            change(&mut pending[0].write, backwards.clone());
            assert!(decode(&encode(pending.iter())).is_none());
        }
    }

    #[test]
    fn an_identity_tells_heads_and_user_data_apart() {
        let (header, write) = (header(), write());
        let before = Identity::of(&header);
        assert_eq!(before, Identity::after(&header, &CoreWrite::default()));
        assert_ne!(before, Identity::after(&header, &write));
        let head_only = CoreWrite {
            head: write.head.clone(),
            ..CoreWrite::default()
        };
        let user_data_only = CoreWrite {
            user_data: write.user_data.clone(),
            ..CoreWrite::default()
        };
        assert_ne!(before, Identity::after(&header, &head_only));
        assert_ne!(before, Identity::after(&header, &user_data_only));
    }
}
