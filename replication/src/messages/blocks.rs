//! Which blocks a peer has, and which it is asked about.
//!
//! Knows bytes. Does not know whether it has them.

use ferrocore_primitives::encoding::{DecodeError, Reader, put_uint};

use super::{flag, optional_flags, put_uints};

/// A run of blocks that the sender asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// First block.
    pub start: u64,
    /// How many.
    pub length: u64,
    /// One of them will do.
    pub any: bool,
}

impl Want {
    const ANY: u64 = 1;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_uints(out, [self.start, self.length]);
        if self.any {
            put_uint(out, Self::ANY);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (start, length) = (reader.uint()?, reader.uint()?);
        let any = optional_flags(reader)? & Self::ANY != 0;
        Ok(Self { start, length, any })
    }
}

/// Which blocks the sender has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitfieldWords {
    /// The block of the first bit, a multiple of 32.
    pub start: u64,
    /// 32 blocks each, the lowest bit first.
    pub words: Vec<u32>,
}

/// A run of blocks that the sender has or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The blocks are gone.
    pub drop: bool,
    /// First block.
    pub start: u64,
    /// How many.
    pub length: u64,
}

impl Range {
    const DROP: u64 = 1;
    const ONE: u64 = 2;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let is_one = self.length == 1;
        put_uints(
            out,
            [
                flag(self.drop, Self::DROP) | flag(is_one, Self::ONE),
                self.start,
            ],
        );
        if !is_one {
            put_uint(out, self.length);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            drop: flags & Self::DROP != 0,
            start: reader.uint()?,
            length: if flags & Self::ONE != 0 {
                1
            } else {
                reader.uint()?
            },
        })
    }
}
