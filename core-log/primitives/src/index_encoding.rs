//! Encodings that sort: their bytes compare as the values do, also one behind the other as a tuple.
//! Knows single values. Does not know which keys a store makes of them.
//!
//! Matches `index-encoder` as Corestore 7 uses it for the keys of its database.
//!
//! | value | bytes |
//! |---|---|
//! | number up to `fb` | itself |
//! | up to `ffff` | `fc`, u16 |
//! | up to `ffff_ffff` | `fd`, u32 |
//! | up to 2^53 - 1 | `fe`, u64 |
//! | infinity | `ff` |
//! | buffer or string | `00`, its bytes with `02` behind every `00`, `00 01` |
//!
//! Integers are big endian, unlike in [`encoding`](crate::encoding), and the one-byte form ends one earlier.

use crate::encoding::{DecodeError, Reader, UINT_MAX};

const ONE_BYTE_MAX: u64 = 0xfb;
const TAG_U16: u8 = 0xfc;
const TAG_U32: u8 = 0xfd;
const TAG_U64: u8 = 0xfe;
const TAG_INFINITE: u8 = 0xff;

/// Starts a buffer, and stands before [`ZERO_BYTE`] or [`END`] inside it.
const ESCAPE: u8 = 0;
const END: u8 = 1;
const ZERO_BYTE: u8 = 2;

/// A number, or what is larger than all of them: the open end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Number {
    /// At most [`UINT_MAX`].
    Finite(u64),
    /// JavaScript's `Infinity`.
    Infinite,
}

/// Appends a number in its shortest form, the only one that sorts.
///
/// Peers refuse values above [`UINT_MAX`]; passing one is a bug of the caller, caught in debug builds.
pub fn put_number(out: &mut Vec<u8>, number: Number) {
    let Number::Finite(value) = number else {
        return out.push(TAG_INFINITE);
    };
    debug_assert!(value <= UINT_MAX, "{value} is larger than 2^53 - 1");
    match value {
        0..=ONE_BYTE_MAX => out.push(value as u8),
        0xfc..=0xffff => put_tagged(out, TAG_U16, (value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => put_tagged(out, TAG_U32, (value as u32).to_be_bytes()),
        _ => put_tagged(out, TAG_U64, value.to_be_bytes()),
    }
}

/// Reads a number. Longer forms than necessary are accepted, as JavaScript does.
///
/// # Errors
/// [`DecodeError::OutOfBounds`] if bytes are missing, [`DecodeError::UintTooLarge`] above [`UINT_MAX`].
pub fn number(reader: &mut Reader<'_>) -> Result<Number, DecodeError> {
    let value = match reader.u8()? {
        TAG_INFINITE => return Ok(Number::Infinite),
        TAG_U16 => u16::from_be_bytes(reader.fixed()?).into(),
        TAG_U32 => u32::from_be_bytes(reader.fixed()?).into(),
        TAG_U64 => u64::from_be_bytes(reader.fixed()?),
        small => small.into(),
    };
    if value > UINT_MAX {
        return Err(DecodeError::UintTooLarge);
    }
    Ok(Number::Finite(value))
}

/// Appends a buffer.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(ESCAPE);
    for byte in bytes {
        out.push(*byte);
        if *byte == ESCAPE {
            out.push(ZERO_BYTE);
        }
    }
    out.extend_from_slice(&[ESCAPE, END]);
}

/// Reads a buffer. It is no longer than what is left to read.
///
/// # Errors
/// [`DecodeError::OutOfBounds`] if its end is missing, [`DecodeError::Invalid`] if it is no buffer.
pub fn bytes(reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    if reader.u8()? != ESCAPE {
        return Err(DecodeError::Invalid("a sorted buffer starts with 0"));
    }
    let mut bytes = Vec::new();
    loop {
        match reader.u8()? {
            ESCAPE => match reader.u8()? {
                END => return Ok(bytes),
                ZERO_BYTE => bytes.push(0),
                _ => return Err(DecodeError::Invalid("0 is followed by 1 or 2")),
            },
            byte => bytes.push(byte),
        }
    }
}

/// Appends a string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Reads a string.
///
/// # Errors
/// As [`bytes`], and [`DecodeError::InvalidUtf8`].
pub fn string(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    String::from_utf8(bytes(reader)?).map_err(|_| DecodeError::InvalidUtf8)
}

fn put_tagged<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded<T>(put: impl Fn(&mut Vec<u8>, T), value: T) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    /// Numbers of every length, many of them close to where it changes.
    fn any_number() -> impl Strategy<Value = Number> {
        prop_oneof![
            (0..=UINT_MAX, 0..53).prop_map(|(value, shift)| Number::Finite(value >> shift)),
            (0xf8..0x100u64).prop_map(Number::Finite),
            (0xfff8..0x1_0008u64).prop_map(Number::Finite),
            (0xffff_fff8..0x1_0000_0008u64).prop_map(Number::Finite),
            Just(Number::Infinite),
        ]
    }

    /// Buffers that are often alike and full of bytes with a meaning.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..6)
    }

    fn put_key(out: &mut Vec<u8>, (bytes, number): &(Vec<u8>, Number)) {
        put_bytes(out, bytes);
        put_number(out, *number);
    }

    proptest! {
        #[test]
        fn numbers_sort_and_round_trip(a in any_number(), b in any_number()) {
            let (sorted_a, sorted_b) = (encoded(put_number, a), encoded(put_number, b));
            prop_assert_eq!(sorted_a.cmp(&sorted_b), a.cmp(&b));
            prop_assert_eq!(number(&mut Reader::new(&sorted_a)), Ok(a));
        }

        #[test]
        fn buffers_sort_and_round_trip(a in any_bytes(), b in any_bytes()) {
            let (sorted_a, sorted_b) = (encoded(put_bytes, &a[..]), encoded(put_bytes, &b[..]));
            prop_assert_eq!(sorted_a.cmp(&sorted_b), a.cmp(&b));
            prop_assert_eq!(bytes(&mut Reader::new(&sorted_a)), Ok(a));
        }

        #[test]
        fn tuples_sort_and_round_trip(a in (any_bytes(), any_number()), b in (any_bytes(), any_number())) {
            let (sorted_a, sorted_b) = (encoded(put_key, &a), encoded(put_key, &b));
            prop_assert_eq!(sorted_a.cmp(&sorted_b), a.cmp(&b));
            let mut reader = Reader::new(&sorted_a);
            let read = (bytes(&mut reader).unwrap(), number(&mut reader).unwrap());
            prop_assert!(reader.is_empty());
            prop_assert_eq!(read, a);
        }

        /// Whatever the bytes are, reads end without a panic, and a buffer is no longer than they are.
        #[test]
        fn arbitrary_bytes_never_panic(input: Vec<u8>) {
            let _ = number(&mut Reader::new(&input));
            let _ = string(&mut Reader::new(&input));
            let read = bytes(&mut Reader::new(&input)).unwrap_or_default();
            prop_assert!(read.len() <= input.len());
        }
    }

    #[test]
    fn what_is_cut_off_or_no_encoding_is_refused() {
        let read_bytes = |input: &[u8]| bytes(&mut Reader::new(input));
        for cut in [&[][..], &[0], &[0, 7], &[0, 7, 0]] {
            assert_eq!(read_bytes(cut), Err(DecodeError::OutOfBounds));
        }
        assert!(matches!(read_bytes(&[1]), Err(DecodeError::Invalid(_))));
        assert!(matches!(
            read_bytes(&[0, 0, 3]),
            Err(DecodeError::Invalid(_))
        ));
        let not_utf8 = string(&mut Reader::new(&[0, 0xff, 0, 1]));
        assert_eq!(not_utf8, Err(DecodeError::InvalidUtf8));
        let read_number = |input: &[u8]| number(&mut Reader::new(input));
        for cut in [&[][..], &[TAG_U16, 0], &[TAG_U32, 0, 0, 0], &[TAG_U64]] {
            assert_eq!(read_number(cut), Err(DecodeError::OutOfBounds));
        }
        let too_large = encoded(|out, value| put_tagged(out, TAG_U64, value), [0xff; 8]);
        assert_eq!(read_number(&too_large), Err(DecodeError::UintTooLarge));
    }
}
