//! The frame around everything in an `oplog`: checksum, length, and two bits.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | CRC-32 (IEEE) over all that follows, little endian |
//! | 4 | payload length << 2, partial << 1, header bit, little endian |
//! | … | payload |
//!
//! As in `hypercore/lib/oplog.js` 10.38.2.

use ferrocore_primitives::encoding::Reader;

/// Bytes in front of each payload.
pub(super) const FRAME_BYTES: usize = 8;

/// Largest payload whose length can be written.
pub(super) const PAYLOAD_BYTES_MAX: usize = (1 << 30) - 1;

/// A record whose checksum holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Which header the record belongs to.
    pub(super) bit: bool,
    /// Whether the next record belongs to the same atomic change.
    pub(super) partial: bool,
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, if there is a whole one.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let checksum = reader.u32().ok()?;
        let checked = bytes.get(4..)?;
        let info = reader.u32().ok()?;
        let payload = reader.bytes(usize::try_from(info >> 2).ok()?).ok()?;
        let checked = checked.get(..4 + payload.len())?;
        (crc32fast::hash(checked) == checksum).then_some(Self {
            bit: info & 1 != 0,
            partial: info & 2 != 0,
            payload,
        })
    }

    /// Bytes of the record, frame included.
    pub(super) fn len(&self) -> usize {
        FRAME_BYTES + self.payload.len()
    }
}

/// Bytes of the record that may be at the start of `bytes`, frame included, by its own say-so.
pub(super) fn claimed_len(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes.get(4..)?);
    let payload = usize::try_from(reader.u32().ok()? >> 2).ok()?;
    (payload <= reader.remaining()).then_some(FRAME_BYTES + payload)
}

/// The payload of the record at the start of `bytes`, whose checksum was found to hold, and what is behind it.
pub(super) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(bytes);
    let _checksum = reader.u32().ok()?;
    let info = reader.u32().ok()?;
    let payload = reader.bytes(usize::try_from(info >> 2).ok()?).ok()?;
    Some((payload, bytes.get(FRAME_BYTES + payload.len()..)?))
}

/// Appends a record whose payload is what `payload` appends.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_BYTES_MAX`]; callers bound it.
pub(super) fn put(out: &mut Vec<u8>, bit: bool, partial: bool, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    payload(out);
    let len = out.len() - start - FRAME_BYTES;
    assert!(len <= PAYLOAD_BYTES_MAX, "payloads are bounded by callers");
    let info = (len as u32) << 2 | u32::from(partial) << 1 | u32::from(bit);
    let (_, record) = out.split_at_mut(start);
    let (checksum, checked) = record.split_at_mut(4);
    let (info_bytes, _) = checked.split_at_mut(4);
    info_bytes.copy_from_slice(&info.to_le_bytes());
    checksum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damage_shows() {
        let mut bytes = Vec::new();
        put(&mut bytes, true, false, |out| out.extend_from_slice(b"one"));
        put(&mut bytes, false, true, |out| out.extend_from_slice(b""));
        let first = Record::decode(&bytes).unwrap();
        assert_eq!((first.bit, first.partial), (true, false));
        assert_eq!(first.payload, b"one");
        let second = Record::decode(&bytes[first.len()..]).unwrap();
        assert_eq!((second.bit, second.partial), (false, true));
        let (payload, behind) = split(&bytes).unwrap();
        assert_eq!((payload, behind), (first.payload, &bytes[first.len()..]));
        assert_eq!(Record::decode(&bytes[..first.len() - 1]), None);
        for at in 0..first.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Record::decode(&damaged), None, "byte {at}");
        }
    }
}
