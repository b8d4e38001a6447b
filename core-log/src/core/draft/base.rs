//! What a draft builds on, as it is kept in the user data of the draft's own core.

use ferrocore_primitives::encoding::{DecodeError, Reader, put_uint};
use ferrocore_primitives::hash::Hash;

use crate::merkle::Roots;

/// The user data that holds [`Base`].
pub(super) const BASE_USER_DATA: &str = "draft/base";
/// The user data that holds the name, which is empty if there is none.
pub(super) const NAME_USER_DATA: &str = "draft/name";

/// Where a draft leaves the core.
///
/// | field | encoding |
/// |---|---|
/// | version | uint, 1 |
/// | origin, length, byte length, fork, own fork | uint each |
/// | hash | 32 bytes |
///
/// Writing it is what truncates and advances a draft: blocks of the draft's own core count only
/// from the fork on that it names, so the truncate of these that follows may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    /// The block that the first of the draft's own core is. Those before `length` are in the
    /// core by now.
    pub(super) origin: u64,
    /// How many blocks are the core's.
    pub(super) length: u64,
    /// Bytes of these, as they are stored.
    pub(super) byte_length: u64,
    /// The core's fork when the draft was begun.
    pub(super) fork: u64,
    /// Under an older fork the draft's own core is empty.
    pub(super) own_fork: u64,
    /// The tree hash of the core's blocks: whether the core still begins with them.
    pub(super) hash: Hash,
}

const VERSION: u64 = 1;

impl Base {
    /// Behind the blocks with these roots, of a core at `fork`; with no block of the draft's own.
    pub(super) fn behind(roots: &Roots, fork: u64) -> Self {
        Self {
            origin: roots.length(),
            length: roots.length(),
            byte_length: roots.byte_length(),
            fork,
            own_fork: 0,
            hash: roots.hash(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Self {
            origin,
            length,
            byte_length,
            fork,
            own_fork,
            hash,
        } = *self;
        for number in [VERSION, origin, length, byte_length, fork, own_fork] {
            put_uint(&mut out, number);
        }
        out.extend_from_slice(hash.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.uint()? != VERSION {
            return Err(DecodeError::Invalid("the draft is of a newer format"));
        }
        let base = Self {
            origin: reader.uint()?,
            length: reader.uint()?,
            byte_length: reader.uint()?,
            fork: reader.uint()?,
            own_fork: reader.uint()?,
            hash: Hash::from(reader.fixed32()?),
        };
        match base.origin <= base.length {
            true => Ok(base),
            false => Err(DecodeError::Invalid("the draft begins behind its base")),
        }
    }
}

/// What `bytes` say, encoded again; see [`crate::fuzzing`].
pub(crate) fn draft_base_again(bytes: &[u8]) -> Option<Vec<u8>> {
    Base::decode(bytes).ok().map(|base| base.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let base = Base {
            origin: 3,
            length: 300,
            byte_length: 70_000,
            fork: 1,
            own_fork: 2,
            hash: Hash::from([7; 32]),
        };
        let bytes = base.encode();
        assert_eq!(Base::decode(&bytes).unwrap(), base);
        for len in 0..bytes.len() {
            assert!(Base::decode(&bytes[..len]).is_err());
        }
    }
}
