//! One entry of the oplog: a change that has not reached the other files yet.
//!
//! | field | encoding |
//! |---|---|
//! | flags | one byte: 1 user data, 2 nodes, 4 upgrade, 8 bits, 128 settled |
//! | user data | string key, buffer value; an empty value removes the key |
//! | nodes | array of (uint index, uint size, hash 32) |
//! | upgrade | uint fork, uint ancestors, uint length, buffer signature |
//! | bits | uint flags (1: clear), uint start, uint length |
//! | settled | uint: so many bytes of entries had reached the device when this one was written |
//!
//! As in `hypercore/lib/messages.js` 10.38.2, but for `settled`: ours alone, in the last entry of a change, and only behind
//! what was synced. JavaScript looks at no flag it does not know, nor behind what it reads. It is what tells
//! [damage from a torn write](super::oplog).

use bytes::Bytes;
use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, put_array, put_buffer, put_string, put_uint,
};

use super::record;
use crate::merkle::Node;
use crate::storage::{BitWrite, CoreWrite, HeadWrite};

const FLAG_USER_DATA: u64 = 1;
const FLAG_NODES: u64 = 2;
const FLAG_UPGRADE: u64 = 4;
const FLAG_BITS: u64 = 8;
const FLAG_SETTLED: u64 = 128;
const FLAGS: u64 = FLAG_USER_DATA | FLAG_NODES | FLAG_UPGRADE | FLAG_BITS | FLAG_SETTLED;

const BITS_FLAG_CLEAR: u64 = 1;

/// A decoded entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) user_data: Option<(String, Option<Vec<u8>>)>,
    pub(super) nodes: Vec<Node>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) bits: Option<BitWrite>,
    /// So many bytes of the entries before had reached the device; 0 if nobody knows.
    pub(super) settled: u64,
}

/// A new head as an entry tells it: its root hash follows from the nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    pub(super) fork: u64,
    pub(super) ancestors: u64,
    pub(super) length: u64,
    pub(super) signature: Bytes,
}

impl Decode for Entry {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        let mut entry = Self::default();
        if flags & FLAG_USER_DATA != 0 {
            entry.user_data = Some(read_user_data(reader)?);
        }
        if flags & FLAG_NODES != 0 {
            entry.nodes = reader.array(Node::ENCODED_LEN_MIN, Node::decode)?;
        }
        if flags & FLAG_UPGRADE != 0 {
            entry.upgrade = Some(Upgrade::decode(reader)?);
        }
        if flags & FLAG_BITS != 0 {
            entry.bits = Some(read_bits(reader)?);
        }
        // Behind the field of a flag that is not known, it would be something else.
        if flags & FLAG_SETTLED != 0 && flags & !FLAGS == 0 {
            entry.settled = reader.uint()?;
        }
        Ok(entry)
    }
}

/// What a node takes in memory until it is in the file `tree`, in bytes: in a tree map filled in order, whose
/// leaves are half full.
const NODE_COST: usize = 128;
/// What a change of bits takes, in bytes: in a vector, while that grows.
pub(super) const BITS_COST: usize = 3 * size_of::<BitWrite>();
/// What a pair of user data takes beside its bytes, in bytes: two allocations, and a place as a node's.
const PAIR_COST: usize = 192;

/// Bytes of memory that the entry `payload` takes once it was replayed, at most. Allocates no more than it has
/// for a signature.
///
/// # Errors
/// As decoding it.
pub(super) fn cost(payload: &[u8]) -> Result<u64, DecodeError> {
    let reader = &mut Reader::new(payload);
    let flags = reader.uint()?;
    let mut cost = 0;
    if flags & FLAG_USER_DATA != 0 {
        let (key, value) = (reader.string()?, reader.optional_buffer()?);
        cost += key.len() + value.map_or(0, <[u8]>::len) + PAIR_COST;
    }
    if flags & FLAG_NODES != 0 {
        let node = |reader: &mut Reader<'_>| Node::decode(reader).map(drop);
        cost += reader.array(Node::ENCODED_LEN_MIN, node)?.len() * NODE_COST;
    }
    if flags & FLAG_UPGRADE != 0 {
        Upgrade::decode(reader)?; // the last one counts alone
    }
    if flags & FLAG_BITS != 0 {
        read_bits(reader)?;
        cost += BITS_COST;
    }
    if flags & FLAG_SETTLED != 0 && flags & !FLAGS == 0 {
        reader.uint()?;
    }
    Ok(cost as u64)
}

/// How many bytes of entries before `payload` had reached the device, as it tells; 0 if it does not.
///
/// # Errors
/// As decoding it.
pub(super) fn settled(payload: &[u8]) -> Result<u64, DecodeError> {
    Ok(Entry::from_slice(payload)?.settled)
}

impl Decode for Upgrade {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fork: reader.uint()?,
            ancestors: reader.uint()?,
            length: reader.uint()?,
            signature: Bytes::copy_from_slice(reader.buffer()?),
        })
    }
}

fn read_user_data(reader: &mut Reader<'_>) -> Result<(String, Option<Vec<u8>>), DecodeError> {
    let key = reader.string()?.to_owned();
    Ok((key, reader.optional_buffer()?.map(<[u8]>::to_vec)))
}

fn read_bits(reader: &mut Reader<'_>) -> Result<BitWrite, DecodeError> {
    let flags = reader.uint()?;
    let (start, length) = (reader.uint()?, reader.uint()?);
    Ok(BitWrite {
        range: start..start + length,
        value: flags & BITS_FLAG_CLEAR == 0,
    })
}

/// Appends the records of `write` under header bit `bit`: as many as it has runs of bits or
/// user data, since an entry holds one of each, all but the last marked as partial. `settled` bytes of entries have
/// reached the device.
pub(super) fn put_records(out: &mut Vec<u8>, bit: bool, write: &CoreWrite, settled: u64) {
    let rest_only = write.nodes.is_empty() && write.head.is_none();
    let count = write.bits.len().max(write.user_data.len());
    let count = if rest_only { count } else { count.max(1) };
    for i in 0..count {
        let (first, last) = (i == 0, i + 1 == count);
        record::put(out, bit, !last, |out| {
            put_entry(
                out,
                write.user_data.get(i),
                if first { &write.nodes } else { &[] },
                write.head.as_ref().filter(|_| first),
                write.bits.get(i),
                if last { settled } else { 0 },
            );
        });
    }
}

fn put_entry(
    out: &mut Vec<u8>,
    user_data: Option<&(String, Option<Vec<u8>>)>,
    nodes: &[Node],
    head: Option<&HeadWrite>,
    bits: Option<&BitWrite>,
    settled: u64,
) {
    let flag = |present: bool, flag: u64| if present { flag } else { 0 };
    let flags = flag(user_data.is_some(), FLAG_USER_DATA)
        | flag(!nodes.is_empty(), FLAG_NODES)
        | flag(head.is_some(), FLAG_UPGRADE)
        | flag(bits.is_some(), FLAG_BITS)
        | flag(settled > 0, FLAG_SETTLED);
    put_uint(out, flags);
    if let Some((key, value)) = user_data {
        put_string(out, key);
        put_buffer(out, value.as_deref().unwrap_or_default());
    }
    if !nodes.is_empty() {
        put_array(out, nodes, |out, node| node.encode(out));
    }
    if let Some(HeadWrite { head, ancestors }) = head {
        put_uint(out, head.fork);
        put_uint(out, *ancestors);
        put_uint(out, head.length);
        put_buffer(out, &head.signature);
    }
    if let Some(bits) = bits {
        put_uint(out, if bits.value { 0 } else { BITS_FLAG_CLEAR });
        put_uint(out, bits.range.start);
        put_uint(out, bits.range.end - bits.range.start);
    }
    if settled > 0 {
        put_uint(out, settled);
    }
}

#[cfg(test)]
mod tests {
    use super::record::Record;
    use super::*;
    use crate::storage::Head;
    use ferrocore_primitives::hash::Hash;
    use proptest::prelude::*;

    fn writes() -> impl Strategy<Value = CoreWrite> {
        let node = (0u64..1 << 50, 0u64..1 << 50, any::<[u8; 32]>());
        let bits = (0u64..1 << 50, 0u64..1 << 50, any::<bool>());
        let pairs = ("[a-z]{0,5}", proptest::option::of(any::<[u8; 3]>()));
        let head = (any::<[u8; 64]>(), 0u64..1 << 50);
        (
            proptest::collection::vec(node, 0..5),
            proptest::collection::vec(bits, 0..4),
            proptest::collection::vec(pairs, 0..4),
            proptest::option::of(head),
        )
            .prop_map(|(nodes, bits, pairs, head)| CoreWrite {
                nodes: nodes.into_iter().map(node_of).collect(),
                bits: bits.into_iter().map(bits_of).collect(),
                user_data: pairs
                    .into_iter()
                    .map(|(key, value)| (key, value.map(|v| v.to_vec())))
                    .collect(),
                head: head.map(|(signature, length)| HeadWrite {
                    head: Head {
                        fork: 3,
                        length,
                        root_hash: Hash::from([0; 32]),
                        signature: Bytes::copy_from_slice(&signature),
                    },
                    ancestors: length / 2,
                }),
                ..CoreWrite::default()
            })
    }

    fn node_of((index, size, hash): (u64, u64, [u8; 32])) -> Node {
        let hash = Hash::from(hash);
        Node { index, size, hash }
    }

    fn bits_of((start, length, value): (u64, u64, bool)) -> BitWrite {
        let range = start..start + length;
        BitWrite { range, value }
    }

    proptest! {
        /// Goal: whatever is journaled comes back, in order, as one atomic group.
        #[test]
        fn writes_survive_their_records(write in writes(), bit in any::<bool>(), settled in 0u64..1 << 50) {
            let mut bytes = Vec::new();
            put_records(&mut bytes, bit, &write, settled);
            let (mut rest, mut entries, mut partials) = (&bytes[..], Vec::new(), Vec::new());
            let (mut costs, nodes_count, bits_count) = (Vec::new(), write.nodes.len(), write.bits.len());
            while !rest.is_empty() {
                let record = Record::decode(rest).unwrap();
                prop_assert_eq!(record.bit, bit);
                partials.push(record.partial);
                entries.push(Entry::from_slice(record.payload).unwrap());
                costs.push(cost(record.payload).unwrap());
                rest = &rest[record.len()..];
            }
            prop_assert_eq!(entries.last().map_or(settled, |last| last.settled), settled);
            prop_assert!(partials.pop().is_none_or(|last| !last));
            prop_assert!(partials.iter().all(|partial| *partial));
            let nodes: Vec<_> = entries.iter().flat_map(|e| e.nodes.clone()).collect();
            prop_assert_eq!(nodes, write.nodes);
            let bits: Vec<_> = entries.iter().filter_map(|e| e.bits.clone()).collect();
            prop_assert_eq!(bits, write.bits);
            let pairs: Vec<_> = entries.iter().filter_map(|e| e.user_data.clone()).collect();
            prop_assert_eq!(pairs, write.user_data);
            let upgrade = entries.first().and_then(|e| e.upgrade.as_ref());
            prop_assert_eq!(upgrade.map(|u| u.length), write.head.map(|h| h.head.length));
            let costs: u64 = costs.iter().sum();
            prop_assert!(costs >= (nodes_count * NODE_COST + bits_count * BITS_COST) as u64);
        }

        /// Goal: whatever the bytes, that they cost something and that they decode is the same.
        #[test]
        fn any_bytes_decode_or_fail(
            flags in (0u8..32, any::<bool>()).prop_map(|(flags, settled)| flags | u8::from(settled) << 7),
            bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
        ) {
            let bytes = [&[flags], bytes.as_slice()].concat();
            prop_assert_eq!(Entry::from_slice(&bytes).err(), cost(&bytes).err());
        }
    }
}
