//! Block maps: blobs whose bytes are shared with others, block by block.
//!
//! Knows how to read a map. Does not write them: this version does not deduplicate.
//!
//! | field | encoding (`hyperblobs/lib/block-map.js` 2.12.1) |
//! |---|---|
//! | version | uint: 0 |
//! | blocks | array of (uint index, uint byte length), at most 8,192 in one map block |

use std::ops::Range;

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_primitives::encoding::{DecodeError, Reader};

use super::BlobError;
use crate::DriveError;
use crate::entry::BlobId;

/// Most blocks one map may take, as in JavaScript.
const MAP_BLOCKS_MAX: u64 = 64;

/// Most entries in one block of a map: what JavaScript writes.
const MAP_BLOCK_ENTRIES_MAX: usize = 8192;

/// The blocks of a blob, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BlockMap {
    blocks: Vec<MappedBlock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MappedBlock {
    index: u64,
    byte_length: u64,
}

/// Reads the map that `id` points at.
pub(super) async fn read(core: &Core, id: &BlobId) -> Result<BlockMap, DriveError> {
    let malformed = |reason| BlobError::BlockMap {
        block_offset: id.block_offset,
        reason,
    };
    if id.block_length > MAP_BLOCKS_MAX {
        return Err(malformed("it is too large").into());
    }
    let _want = core.download(id.blocks());
    let mut map = BlockMap::default();
    for index in id.blocks() {
        let block = core.get(index).await?;
        map.extend(&block).map_err(malformed)?;
    }
    Ok(map)
}

impl BlockMap {
    pub(super) fn byte_length(&self) -> u64 {
        let lengths = self.blocks.iter().map(|block| block.byte_length);
        lengths.fold(0, u64::saturating_add)
    }

    /// The blocks, neighbours joined.
    pub(super) fn runs(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for block in &self.blocks {
            match runs.last_mut() {
                Some(run) if run.end == block.index => run.end += 1,
                _ => runs.push(block.index..block.index + 1),
            }
        }
        runs
    }

    /// The runs from the block that holds byte `start` on, and the byte's offset in it.
    pub(super) fn seek(mut self, start: u64) -> (Vec<Range<u64>>, u64) {
        let mut skip = start;
        let before = self.blocks.iter().position(|block| {
            let inside = skip < block.byte_length;
            skip -= if inside { 0 } else { block.byte_length };
            inside
        });
        self.blocks.drain(..before.unwrap_or(self.blocks.len()));
        (self.runs(), skip)
    }

    fn extend(&mut self, block: &Bytes) -> Result<(), &'static str> {
        let blocks = decode(block).map_err(|_| "it is not a block map")?;
        if blocks.len() > MAP_BLOCK_ENTRIES_MAX {
            return Err("a block of it has too many entries");
        }
        self.blocks.extend(blocks);
        Ok(())
    }
}

fn decode(block: &[u8]) -> Result<Vec<MappedBlock>, DecodeError> {
    let mut reader = Reader::new(block);
    if reader.uint()? != 0 {
        return Err(DecodeError::Invalid("unknown block map version"));
    }
    reader.array(2, |reader| {
        Ok(MappedBlock {
            index: reader.uint()?,
            byte_length: reader.uint()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(blocks: &[(u64, u64)]) -> BlockMap {
        let block = |&(index, byte_length)| MappedBlock { index, byte_length };
        BlockMap {
            blocks: blocks.iter().map(block).collect(),
        }
    }

    #[test]
    fn reads_the_golden_map() {
        let bytes = Bytes::from(hex::decode("000200fde803fd2c01fe00000100").unwrap());
        let mut read = BlockMap::default();
        read.extend(&bytes).unwrap();
        assert_eq!(read, map(&[(0, 1000), (300, 65536)]));
    }

    #[test]
    fn seeks_to_the_block_that_holds_a_byte() {
        let blocks = [(5, 10), (6, 0), (9, 10)];
        let (runs, skip) = map(&blocks).seek(9);
        assert_eq!((runs.as_slice(), skip), (&[5..7, 9..10][..], 9));
        let (runs, skip) = map(&blocks).seek(15);
        assert_eq!((runs.as_slice(), skip), (std::slice::from_ref(&(9..10)), 5));
        assert_eq!(map(&blocks).seek(20), (vec![], 0));
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [&b""[..], b"\x01\x00", b"\x00\xfe\xff\xff\xff\xff"] {
            assert!(
                BlockMap::default()
                    .extend(&Bytes::from_static(bytes))
                    .is_err()
            );
        }
        let mut long = vec![0, 0xfd, 0x01, 0x20];
        long.extend([0; 2 * 8193]);
        assert!(BlockMap::default().extend(&Bytes::from(long)).is_err());
    }
}
