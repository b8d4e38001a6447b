//! One block of a bee: a put or a del, and the tree nodes it rewrote.
//!
//! | message | field | tag | type |
//! |---|---|---|---|
//! | Block | index | `0a` | an Index |
//! | | key | `12` | bytes |
//! | | value | `1a` | optional bytes: absent is null, empty is not |
//! | Index | levels | `0a` | repeated Level, see [`crate::node`] |
//!
//! As hyperbee 2.27 writes it (`lib/messages.js`), fields in this order. Readers accept any order and unknown fields. Nothing is copied in decoding: a [`Block`]
//! remembers where its parts lie and decodes a level when asked for it.

use std::ops::Range;

use bytes::Bytes;

use crate::node::{Node, Pointer, level_has_key, put_level};
use crate::protobuf::{Delimited, Malformed, field_len, payloads, put_field};

/// A key with its value, and the block that put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Index of the block in the core.
    pub seq: u64,
    /// The key.
    pub key: Bytes,
    /// The value; `None` is JavaScript's null, which is not the same as empty.
    pub value: Option<Bytes>,
}

impl Entry {
    /// Bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A decoded block. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    bytes: Bytes,
    index: Range<usize>,
    key: Range<usize>,
    value: Option<Range<usize>>,
}

impl Block {
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let (mut index, mut key, mut value) = (None, None, None);
        for field in Delimited::new(&bytes) {
            match field? {
                (INDEX, range) => index = Some(range),
                (KEY, range) => key = Some(range),
                (VALUE, range) => value = Some(range),
                _ => {}
            }
        }
        match (index, key) {
            (Some(index), Some(key)) => Ok(Self {
                bytes,
                index,
                key,
                value,
            }),
            _ => Err(Malformed::MissingField),
        }
    }

    /// Bytes of the whole block.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_entry(self, seq: u64) -> Entry {
        Entry {
            seq,
            key: self.bytes.slice(self.key),
            value: self.value.map(|range| self.bytes.slice(range)),
        }
    }

    /// The tree node at level `pointer.offset`.
    pub(crate) fn node(&self, pointer: Pointer) -> Result<Node, Malformed> {
        let offset = usize::try_from(pointer.offset).map_err(|_| Malformed::NoSuchLevel)?;
        let level = self.levels().nth(offset).ok_or(Malformed::NoSuchLevel)??;
        Node::decode(level)
    }

    /// Whether this block, the `seq`th of its core, deletes its key.
    ///
    /// A put of null has no value either, but some node of its block holds the key, unless the
    /// block is of a batch that rewrote all of them later: then nobody can tell.
    pub(crate) fn is_deletion(&self, seq: u64) -> Result<bool, Malformed> {
        if self.value.is_some() {
            return Ok(false);
        }
        for level in self.levels() {
            if level_has_key(level?, seq)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn levels(&self) -> impl Iterator<Item = Result<&[u8], Malformed>> {
        // `decode` found this range within these bytes.
        let index = self.bytes.get(self.index.clone()).unwrap_or_default();
        payloads(index).filter_map(|field| match field {
            Ok((LEVELS, level)) => Some(Ok(level)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

/// Appends one level to an index.
pub(crate) fn put_index_level(
    index: &mut Vec<u8>,
    keys: impl Iterator<Item = u64> + Clone,
    children: impl Iterator<Item = Pointer> + Clone,
) {
    put_level(index, LEVELS as u8, keys, children);
}

/// The bytes of a block; `index` is a sequence of [`put_index_level`]s.
pub(crate) fn encode_block(index: &[u8], key: &[u8], value: Option<&[u8]>) -> Bytes {
    let value_len = value.map_or(0, |value| field_len(value.len()));
    let mut out = Vec::with_capacity(field_len(index.len()) + field_len(key.len()) + value_len);
    put_field(&mut out, INDEX as u8, index);
    put_field(&mut out, KEY as u8, key);
    if let Some(value) = value {
        put_field(&mut out, VALUE as u8, value);
    }
    out.into()
}

const INDEX: u64 = 1;
const KEY: u64 = 2;
const VALUE: u64 = 3;
const LEVELS: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KEYS_MAX;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ROOT: Pointer = Pointer { seq: 7, offset: 0 };

    fn block(index: &[u8]) -> Block {
        Block::decode(encode_block(index, b"k", None)).unwrap()
    }

    fn level(keys: &[u64], children: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let children = children
            .iter()
            .map(|&(seq, offset)| Pointer { seq, offset });
        put_index_level(&mut out, keys.iter().copied(), children);
        out
    }

    proptest! {
        /// What is encoded decodes to the same, at whichever level it is.
        #[test]
        fn blocks_round_trip(
            keys in vec(0..1u64 << 40, 1..=KEYS_MAX),
            offset in 0u64..5,
            key: Vec<u8>,
            value: Option<Vec<u8>>,
        ) {
            let children: Vec<_> = (0..=keys.len() as u64).map(|i| (i << 30, i)).collect();
            let mut index = level(&[1], &[]).repeat(offset as usize);
            index.extend(level(&keys, &children));
            let block = Block::decode(encode_block(&index, &key, value.as_deref())).unwrap();
            let node = block.node(Pointer { seq: 9, offset }).unwrap();
            prop_assert!(node.keys.iter().map(|key| key.seq).eq(keys));
            prop_assert!(node.children.iter().map(|c| (c.seq, c.offset)).eq(children));
            let entry = block.into_entry(9);
            prop_assert_eq!(entry.key, key);
            prop_assert_eq!(entry.value, value.map(Bytes::from));
        }

        /// No bytes make decoding panic.
        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>, offset: u64) {
            let Ok(block) = Block::decode(bytes.into()) else { return Ok(()) };
            let _ = block.node(Pointer { seq: 1, offset });
            let _ = block.is_deletion(1);
        }

        /// The same for bytes that are levels at least on the outside.
        #[test]
        fn any_level_decodes_or_fails(bytes: Vec<u8>) {
            let mut index = Vec::new();
            put_field(&mut index, 1, &bytes);
            let _ = block(&index).node(ROOT);
            let _ = block(&index).is_deletion(1);
        }
    }

    #[test]
    fn fields_come_in_any_order_and_unknown_ones_are_skipped() {
        let bytes = b"\x1a\x01v\x20\x05\x12\x01k\x7a\x01?\x0a\x05\x0a\x03\x0a\x01\x07";
        let block = Block::decode(Bytes::from_static(bytes)).unwrap();
        assert_eq!(block.node(ROOT).unwrap().keys[0].seq, 7);
        let entry = block.into_entry(7);
        assert_eq!(
            (&entry.key[..], entry.value.as_deref()),
            (&b"k"[..], Some(&b"v"[..]))
        );
    }

    #[test]
    fn malformed_nodes_are_named() {
        let cases = [
            (vec![], Malformed::NoSuchLevel),
            (level(&[1; KEYS_MAX + 1], &[]), Malformed::TooManyKeys),
            (level(&[1], &[(1, 0)]), Malformed::ChildCount),
            (level(&[], &[(1, 0)]), Malformed::EmptyNode),
        ];
        for (index, expected) in cases {
            assert_eq!(block(&index).node(ROOT).unwrap_err(), expected);
        }
        assert_eq!(
            Block::decode(Bytes::from_static(b"\x12\x01k")).unwrap_err(),
            Malformed::MissingField
        );
    }

    #[test]
    fn a_put_of_null_is_no_deletion() {
        assert!(!block(&level(&[3, 7], &[])).is_deletion(7).unwrap());
        assert!(block(&level(&[3, 8], &[])).is_deletion(7).unwrap());
        assert!(block(&[]).is_deletion(7).unwrap());
    }
}
