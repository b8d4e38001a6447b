//! Flag bits that say which fields follow.
//! Knows how presence becomes a bit and a bit a field. Does not know which fields there are.

use ferrocore_primitives::encoding::{DecodeError, Reader};

/// The flags of a message: for each pair, the bit is set if the field is there.
pub(crate) fn flags(fields: &[(u64, bool)]) -> u64 {
    fields
        .iter()
        .filter(|(_, present)| *present)
        .fold(0, |flags, (bit, _)| flags | bit)
}

/// Reads a field if its `bit` is among `flags`.
pub(crate) fn field<'a, T>(
    reader: &mut Reader<'a>,
    flags: u64,
    bit: u64,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    (flags & bit != 0).then(|| read(reader)).transpose()
}
