//! compact-encoding: how integers, buffers, strings and arrays are written on the wire and on disk.
//! Knows single values and bounds. Does not know messages: those implement [`Encode`] and [`Decode`].
//!
//! The bytes are those of the JavaScript package `compact-encoding` 3.5.2:
//!
//! | value | layout |
//! |---|---|
//! | uint | up to `0xfc` one byte; else `fd` + u16, `fe` + u32 or `ff` + u64, little endian |
//! | int | zig-zag, then uint |
//! | u8 … u64 | fixed width, little endian |
//! | buffer, string | uint length in bytes, then the bytes |
//! | optional buffer | as a buffer; length 0 means none |
//! | bool | one byte, true if it is 1 |
//! | array | uint count, then the items |
//! | uint32 array | uint count of words, then the words, little endian |
//! | frame | uint length in bytes, then a value; what follows the value inside the frame is skipped |
//!
//! JavaScript numbers are exact to 2^53 - 1 ([`UINT_MAX`]), so larger integers are refused. Longer forms
//! than necessary (`fd 01 00` for 1) are accepted, and so are bytes behind the last known field: newer
//! peers append fields.

/// The largest integer that can be encoded: JavaScript's largest exact one.
pub const UINT_MAX: u64 = (1 << 53) - 1;

/// The most items an array may announce.
pub const ARRAY_LEN_MAX: usize = 0x10_0000;

/// The largest uint that is written as a single byte; the bytes above it announce a wider integer.
const UINT_ONE_BYTE_MAX: u64 = 0xfc;
const UINT_TAG_U16: u8 = 0xfd;
const UINT_TAG_U32: u8 = 0xfe;
const UINT_TAG_U64: u8 = 0xff;

/// Why bytes could not be decoded. The sender is at fault: drop the message or the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the bytes end before the value does")]
    OutOfBounds,
    /// An integer is larger than [`UINT_MAX`].
    #[error("an integer is larger than 2^53 - 1")]
    UintTooLarge,
    /// An array announces more than [`ARRAY_LEN_MAX`] items.
    #[error("an array announces more than {ARRAY_LEN_MAX} items")]
    ArrayTooLong,
    /// A string is not UTF-8.
    #[error("a string is not utf-8")]
    InvalidUtf8,
    /// A value is well formed but has no meaning here; the text names it.
    #[error("invalid value: {0}")]
    Invalid(&'static str),
}

/// A value with a wire form.
pub trait Encode {
    /// Exact number of bytes that [`encode`](Self::encode) appends.
    fn encoded_len(&self) -> usize;

    /// Appends the wire form to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// The wire form in a buffer of its own.
    fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode(&mut out);
        debug_assert_eq!(out.len(), self.encoded_len());
        out
    }
}

/// A value that can be read back from its wire form.
pub trait Decode: Sized {
    /// Reads the value, leaving `reader` behind it.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not such a value; `reader` is then somewhere inside it.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads the value from the start of `bytes`; trailing bytes are ignored.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn from_slice(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(bytes))
    }
}

/// A cursor over bytes that somebody else wrote: every read is checked, none allocates more than the
/// bytes at hand justify.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// # Errors
/// Every read returns [`DecodeError::OutOfBounds`] when the bytes run out; other refusals are named at
/// the method.
#[allow(clippy::missing_errors_doc, reason = "described once, above")]
impl<'a> Reader<'a> {
    /// Starts reading at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Number of bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An integer of one to nine bytes; refuses more than [`UINT_MAX`].
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        match self.u8()? {
            UINT_TAG_U16 => self.u16().map(u64::from),
            UINT_TAG_U32 => self.u32().map(u64::from),
            UINT_TAG_U64 => self.u64(),
            small => Ok(u64::from(small)),
        }
    }

    /// A zig-zag encoded signed integer.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let zigzag = self.uint()?;
        let half = (zigzag >> 1).cast_signed();
        Ok(if zigzag & 1 == 0 { half } else { -half - 1 })
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.fixed().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed().map(u16::from_le_bytes)
    }

    /// Three bytes.
    pub fn u24(&mut self) -> Result<u32, DecodeError> {
        let [a, b, c] = self.fixed()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// Five bytes.
    pub fn u40(&mut self) -> Result<u64, DecodeError> {
        self.wide::<5>()
    }

    /// Six bytes.
    pub fn u48(&mut self) -> Result<u64, DecodeError> {
        self.wide::<6>()
    }

    /// Seven bytes; refuses more than [`UINT_MAX`].
    pub fn u56(&mut self) -> Result<u64, DecodeError> {
        self.wide::<7>()
    }

    /// Eight bytes; refuses more than [`UINT_MAX`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.wide::<8>()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or(DecodeError::OutOfBounds)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::OutOfBounds)?;
        self.rest = rest;
        Ok(*head)
    }

    /// 32 bytes: a hash or a key.
    pub fn fixed32(&mut self) -> Result<[u8; 32], DecodeError> {
        self.fixed()
    }

    /// 64 bytes: a signature.
    pub fn fixed64(&mut self) -> Result<[u8; 64], DecodeError> {
        self.fixed()
    }

    /// A length-prefixed buffer.
    pub fn buffer(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.len()?;
        self.bytes(len)
    }

    /// A length-prefixed buffer whose absence is written as length zero.
    pub fn optional_buffer(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let buffer = self.buffer()?;
        Ok((!buffer.is_empty()).then_some(buffer))
    }

    /// A length-prefixed string; refuses what is not UTF-8.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.buffer()?).map_err(|_| DecodeError::InvalidUtf8)
    }

    /// One byte, true only if it is 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? == 1)
    }

    /// Everything that is left; the reader is empty afterwards.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A reader over a length-prefixed frame. This reader continues behind the frame, whatever of it
    /// is read.
    pub fn frame(&mut self) -> Result<Reader<'a>, DecodeError> {
        self.buffer().map(Reader::new)
    }

    /// A counted array of 32-bit words, little endian.
    pub fn uint32_array(&mut self) -> Result<Vec<u32>, DecodeError> {
        let len = self.len()?.checked_mul(size_of::<u32>());
        let bytes = self.bytes(len.ok_or(DecodeError::OutOfBounds)?)?;
        let (words, _) = bytes.as_chunks();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// A counted array of items read by `item`, each at least `min_item_len` bytes long (at least one is
    /// assumed).
    ///
    /// Refuses more than [`ARRAY_LEN_MAX`] items. The count is checked against the bytes that are left
    /// before anything is allocated.
    pub fn array<T>(
        &mut self,
        min_item_len: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.len()?;
        if count > ARRAY_LEN_MAX {
            return Err(DecodeError::ArrayTooLong);
        }
        if count > self.remaining() / min_item_len.max(1) {
            return Err(DecodeError::OutOfBounds);
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// An `N`-byte integer that may exceed what JavaScript can hold.
    fn wide<const N: usize>(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.fixed::<N>()?;
        let value = bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value > UINT_MAX {
            return Err(DecodeError::UintTooLarge);
        }
        Ok(value)
    }

    /// A length or count. One that does not fit in memory cannot be followed by so many bytes either.
    fn len(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.uint()?).map_err(|_| DecodeError::OutOfBounds)
    }
}

/// Number of bytes that [`put_uint`] appends.
pub const fn uint_len(value: u64) -> usize {
    match value {
        0..=UINT_ONE_BYTE_MAX => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Number of bytes that [`put_int`] appends.
pub const fn int_len(value: i64) -> usize {
    uint_len(zigzag(value))
}

/// Number of bytes that [`put_buffer`] appends for `n` bytes; the same for a string of `n` bytes.
pub const fn buffer_len(n: usize) -> usize {
    uint_len(n as u64) + n
}

/// Appends an integer in its shortest form.
///
/// Peers refuse values above [`UINT_MAX`]; passing one is a bug of the caller, caught in debug builds.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value <= UINT_MAX, "{value} is larger than 2^53 - 1");
    match value {
        0..=UINT_ONE_BYTE_MAX => out.push(value as u8),
        0xfd..=0xffff => put_tagged(out, UINT_TAG_U16, (value as u16).to_le_bytes()),
        0x1_0000..=0xffff_ffff => put_tagged(out, UINT_TAG_U32, (value as u32).to_le_bytes()),
        _ => put_tagged(out, UINT_TAG_U64, value.to_le_bytes()),
    }
}

/// Appends a signed integer, zig-zag encoded.
pub fn put_int(out: &mut Vec<u8>, value: i64) {
    put_uint(out, zigzag(value));
}

/// Appends two bytes, little endian.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends three bytes, little endian; `value` must be below 2^24 (checked in debug builds).
pub fn put_u24(out: &mut Vec<u8>, value: u32) {
    let [a, b, c, overflow] = value.to_le_bytes();
    debug_assert_eq!(overflow, 0, "{value} does not fit in three bytes");
    out.extend_from_slice(&[a, b, c]);
}

/// Appends four bytes, little endian.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends eight bytes, little endian; the bound of [`put_uint`] holds here too.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value <= UINT_MAX, "{value} is larger than 2^53 - 1");
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a byte, 1 for true.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends a length-prefixed buffer.
pub fn put_buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length-prefixed buffer, or length zero for none. An empty buffer reads back as none.
pub fn put_optional_buffer(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_buffer(out, bytes.unwrap_or_default());
}

/// Appends a length-prefixed string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    put_buffer(out, text.as_bytes());
}

/// Appends a counted array of 32-bit words.
pub fn put_uint32_array(out: &mut Vec<u8>, words: &[u32]) {
    put_array(out, words, |out, word| put_u32(out, *word));
}

/// Appends a counted array whose items are written by `item`.
pub fn put_array<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    debug_assert!(items.len() <= ARRAY_LEN_MAX || size_of::<T>() == size_of::<u32>());
    put_uint(out, items.len() as u64);
    items.iter().for_each(|value| item(out, value));
}

/// Appends `tag` and the integer behind it.
fn put_tagged<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

/// Small magnitudes of either sign become small unsigned numbers.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn longer_forms_than_necessary_are_accepted() {
        assert_eq!(Reader::new(&[0xfd, 1, 0]).uint(), Ok(1));
        assert_eq!(Reader::new(&[0xfe, 1, 0, 0, 0]).uint(), Ok(1));
        assert_eq!(Reader::new(&[0xff, 1, 0, 0, 0, 0, 0, 0, 0]).uint(), Ok(1));
    }

    #[test]
    fn integers_beyond_javascript_are_refused() {
        let over = (UINT_MAX + 1).to_le_bytes();
        assert_eq!(Reader::new(&over).u64(), Err(DecodeError::UintTooLarge));
        assert_eq!(Reader::new(&over).u56(), Err(DecodeError::UintTooLarge));
        let tagged = encoded(|out| put_tagged(out, UINT_TAG_U64, over));
        assert_eq!(Reader::new(&tagged).uint(), Err(DecodeError::UintTooLarge));
        assert_eq!(Reader::new(&UINT_MAX.to_le_bytes()).u64(), Ok(UINT_MAX));
    }

    #[test]
    fn an_announced_length_must_be_there() {
        // A peer announces far more than it sends; nothing may be allocated for it.
        let long = encoded(|out| put_uint(out, UINT_MAX));
        assert_eq!(Reader::new(&long).buffer(), Err(DecodeError::OutOfBounds));
        assert_eq!(
            Reader::new(&long).uint32_array(),
            Err(DecodeError::OutOfBounds)
        );
        assert!(matches!(
            Reader::new(&long).frame(),
            Err(DecodeError::OutOfBounds)
        ));
    }

    #[test]
    fn array_counts_are_bounded() {
        let read = |bytes: &[u8], min| Reader::new(bytes).array(min, |r| r.u8());
        let too_long = encoded(|out| put_uint(out, ARRAY_LEN_MAX as u64 + 1));
        assert_eq!(read(&too_long, 1), Err(DecodeError::ArrayTooLong));
        let mut at_most = encoded(|out| put_uint(out, ARRAY_LEN_MAX as u64));
        assert_eq!(read(&at_most, 0), Err(DecodeError::OutOfBounds));
        at_most.resize(at_most.len() + ARRAY_LEN_MAX, 7);
        assert_eq!(read(&at_most, 1).unwrap().len(), ARRAY_LEN_MAX);
        assert_eq!(read(&[3, 1, 2, 3], 2), Err(DecodeError::OutOfBounds));
    }

    #[test]
    fn a_frame_skips_what_its_reader_leaves() {
        let mut reader = Reader::new(&[3, 1, 0xaa, 0xbb, 9]);
        assert_eq!(reader.frame().unwrap().uint(), Ok(1));
        assert_eq!(reader.uint(), Ok(9));
        assert!(reader.is_empty());
    }

    #[test]
    fn only_one_is_true_and_strings_are_utf8() {
        assert_eq!(Reader::new(&[2]).bool(), Ok(false));
        assert_eq!(
            Reader::new(&[1, 0xff]).string(),
            Err(DecodeError::InvalidUtf8)
        );
    }

    proptest! {
        #[test]
        fn uint_round_trips(value in 0..=UINT_MAX, shift in 0..53) {
            let value = value >> shift;
            let bytes = encoded(|out| put_uint(out, value));
            prop_assert_eq!(bytes.len(), uint_len(value));
            prop_assert_eq!(Reader::new(&bytes).uint(), Ok(value));
        }

        #[test]
        fn int_round_trips(value in -(1i64 << 52)..(1 << 52), shift in 0..52) {
            let value = value >> shift;
            let bytes = encoded(|out| put_int(out, value));
            prop_assert_eq!(bytes.len(), int_len(value));
            prop_assert_eq!(Reader::new(&bytes).int(), Ok(value));
        }

        #[test]
        fn fixed_widths_round_trip(value in 0..=UINT_MAX) {
            let bytes = value.to_le_bytes();
            let mask = |bits: u32| value & ((1 << bits) - 1);
            prop_assert_eq!(u64::from(Reader::new(&bytes).u8().unwrap()), mask(8));
            prop_assert_eq!(u64::from(Reader::new(&bytes).u16().unwrap()), mask(16));
            prop_assert_eq!(u64::from(Reader::new(&bytes).u24().unwrap()), mask(24));
            prop_assert_eq!(u64::from(Reader::new(&bytes).u32().unwrap()), mask(32));
            prop_assert_eq!(Reader::new(&bytes).u40().unwrap(), mask(40));
            prop_assert_eq!(Reader::new(&bytes).u48().unwrap(), mask(48));
            prop_assert_eq!(Reader::new(&bytes).u56().unwrap(), mask(56));
            prop_assert_eq!(Reader::new(&bytes).u64().unwrap(), value);
        }

        #[test]
        fn a_message_round_trips(buffer: Vec<u8>, text: String, words: Vec<u32>, flag: bool, small in 0..1u32 << 24) {
            let bytes = encoded(|out| {
                put_buffer(out, &buffer);
                put_optional_buffer(out, Some(&buffer));
                put_string(out, &text);
                put_uint32_array(out, &words);
                put_bool(out, flag);
                put_u24(out, small);
            });
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.buffer().unwrap(), &buffer);
            prop_assert_eq!(reader.optional_buffer().unwrap(), (!buffer.is_empty()).then_some(&buffer[..]));
            prop_assert_eq!(reader.string().unwrap(), &text);
            prop_assert_eq!(reader.uint32_array().unwrap(), words);
            prop_assert_eq!(reader.bool().unwrap(), flag);
            prop_assert_eq!(reader.u24().unwrap(), small);
            prop_assert!(reader.is_empty());
        }

        /// Whatever the bytes are, reads end, stay inside them and never panic.
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, choices in prop::collection::vec(0..9, 0..20)) {
            let mut reader = Reader::new(&bytes);
            for choice in choices {
                let before = reader.remaining();
                let _ = match choice {
                    0 => reader.uint().map(drop),
                    1 => reader.int().map(drop),
                    2 => reader.u56().map(drop),
                    3 => reader.optional_buffer().map(drop),
                    4 => reader.string().map(drop),
                    5 => reader.frame().map(drop),
                    6 => reader.uint32_array().map(drop),
                    7 => reader.array(1, |item| item.uint()).map(drop),
                    _ => reader.fixed32().map(drop),
                };
                prop_assert!(reader.remaining() <= before);
            }
        }
    }
}
