//! The part of protobuf's wire format that bees use: varints, length-delimited and packed fields.
//! Knows bytes only; the messages are in [`crate::block`] and [`crate::header`].

use std::ops::Range;

use thiserror::Error;

/// Largest integer a bee may hold: JavaScript writes and reads them as doubles.
const UINT_MAX: u64 = (1 << 53) - 1;

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A field or varint goes on past the end of its message.
    #[error("a field is cut short")]
    Truncated,
    /// A varint has more than ten bytes, or names a number above 2^53 - 1.
    #[error("an integer is too large")]
    IntegerTooLarge,
    /// A field has a wire type that protobuf 2 messages of a bee never have.
    #[error("a field has an unknown wire type")]
    WireType,
    /// A block without index or without key.
    #[error("a required field is missing")]
    MissingField,
    /// The block has no level of the offset that a pointer names.
    #[error("a pointer names a level that the block does not have")]
    NoSuchLevel,
    /// A tree node with more keys or children than any writer makes.
    #[error("a tree node has too many keys or children")]
    TooManyKeys,
    /// The children of an inner node are not one more than its keys.
    #[error("a tree node has the wrong number of children")]
    ChildCount,
    /// A node without keys that is not the root of an empty tree.
    #[error("a tree node has no keys")]
    EmptyNode,
    /// A key or child lies outside of the version being read.
    #[error("a pointer leads outside of the version being read")]
    OutsideVersion,
    /// The way down from the root is longer than any tree can be high; the pointers may be cyclic.
    #[error("the tree is too deep")]
    TooDeep,
    /// The leaves do not all lie at the same depth.
    #[error("the leaves lie at different depths")]
    Uneven,
    /// Keys do not ascend along the tree.
    #[error("keys are out of order")]
    KeyOrder,
}

/// The length-delimited fields of a message: field number, and where in the message it lies.
/// Fields of other wire types are unknown to bees and skipped.
pub(crate) struct Delimited<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Delimited<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(message),
        }
    }

    fn next_field(&mut self) -> Result<Option<(u64, Range<usize>)>, Malformed> {
        while !self.cursor.is_empty() {
            let tag = self.cursor.varint()?;
            match tag & 7 {
                WIRE_VARINT => self.cursor.varint().map(drop)?,
                WIRE_FIXED64 => self.cursor.skip(8).map(drop)?,
                WIRE_DELIMITED => {
                    let length = self.cursor.uint()?;
                    return Ok(Some((tag >> 3, self.cursor.skip(length)?)));
                }
                WIRE_FIXED32 => self.cursor.skip(4).map(drop)?,
                _ => return Err(Malformed::WireType),
            }
        }
        Ok(None)
    }
}

impl Iterator for Delimited<'_> {
    type Item = Result<(u64, Range<usize>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_field().transpose()
    }
}

/// The length-delimited fields of a message: field number and payload.
pub(crate) fn payloads(message: &[u8]) -> impl Iterator<Item = Result<(u64, &[u8]), Malformed>> {
    Delimited::new(message).map(|field| {
        let (number, range) = field?;
        let payload = message.get(range).ok_or(Malformed::Truncated)?;
        Ok((number, payload))
    })
}

/// The integers of a packed field.
pub(crate) struct Packed<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Packed<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(payload),
        }
    }
}

impl Iterator for Packed<'_> {
    type Item = Result<u64, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.cursor.is_empty()).then(|| self.cursor.uint())
    }
}

/// Bytes that `value` takes as a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value` as a varint of minimal length.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that a length-delimited field with a payload of `len` bytes takes, tag included.
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends the tag and length of a length-delimited field; its payload of `len` bytes follows.
pub(crate) fn put_field_head(out: &mut Vec<u8>, field: u8, len: usize) {
    out.push(field << 3 | WIRE_DELIMITED as u8);
    put_varint(out, len as u64);
}

/// Appends a whole length-delimited field.
pub(crate) fn put_field(out: &mut Vec<u8>, field: u8, payload: &[u8]) {
    put_field_head(out, field, payload.len());
    out.extend_from_slice(payload);
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn is_empty(&self) -> bool {
        self.position >= self.bytes.len()
    }

    /// A varint that some unknown field may use to its full 64 bits.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.position).ok_or(Malformed::Truncated)?;
            self.position += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::IntegerTooLarge)
    }

    fn uint(&mut self) -> Result<u64, Malformed> {
        match self.varint()? {
            value @ 0..=UINT_MAX => Ok(value),
            _ => Err(Malformed::IntegerTooLarge),
        }
    }

    fn skip(&mut self, len: u64) -> Result<Range<usize>, Malformed> {
        let start = self.position;
        let remaining = self.bytes.len() - start;
        let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
        if len > remaining {
            return Err(Malformed::Truncated);
        }
        self.position = start + len;
        Ok(start..self.position)
    }
}

const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_DELIMITED: u64 = 2;
const WIRE_FIXED32: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every integer a bee may hold comes back, in as many bytes as announced.
        #[test]
        fn varints_round_trip(value in 0..=UINT_MAX) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(Packed::new(&bytes).collect::<Vec<_>>(), [Ok(value)]);
        }

        /// Any bytes are either fields within the message or an error; neither panics nor loops.
        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            for field in Delimited::new(&bytes) {
                let Ok((_, range)) = field else { break };
                prop_assert!(range.end <= bytes.len());
            }
        }
    }

    /// Fields of every other wire type are stepped over.
    #[test]
    fn unknown_fields_are_skipped() {
        let message = [
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0x01, // 1: -1 as int64
            0x11, 0, 0, 0, 0, 0, 0, 0, 0, // 2: fixed64
            0x1d, 0, 0, 0, 0, // 3: fixed32
            0x22, 1, b'x', // 4: the only one that counts
        ];
        let fields: Vec<_> = Delimited::new(&message).collect();
        assert_eq!(fields, [Ok((4, 27..28))]);
    }

    #[test]
    fn bad_fields_are_errors() {
        let first = |bytes: &[u8]| Delimited::new(bytes).next();
        assert_eq!(first(&[0x0a, 2, 0]), Some(Err(Malformed::Truncated)));
        assert_eq!(first(&[0x0a]), Some(Err(Malformed::Truncated)));
        assert_eq!(first(&[0x0b]), Some(Err(Malformed::WireType)));
        assert_eq!(first(&[0x80; 11]), Some(Err(Malformed::IntegerTooLarge)));
        let too_large = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(
            Packed::new(&too_large).next(),
            Some(Err(Malformed::IntegerTooLarge))
        );
    }
}
