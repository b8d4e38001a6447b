//! The file `data`: the blocks, one after the other at their byte offsets.

use std::ops::Range;

use bytes::Bytes;
use ferrocore_primitives::keys::DiscoveryKey;

use super::part::Part;
use crate::limits::BLOCK_BYTES_MAX;
use crate::storage::{BlockWrite, StorageError};

/// Blocks from this size on are written from where they are; smaller ones are gathered first.
const GATHER_BELOW_BYTES: usize = 64 * 1024;
/// Most bytes gathered into one write.
const GATHERED_BYTES_MAX: usize = 512 * 1024;

/// The open data of a core.
pub(super) struct Data {
    core: DiscoveryKey,
    part: Part,
}

impl Data {
    pub(super) fn new(core: DiscoveryKey, part: Part) -> Self {
        Self { core, part }
    }

    /// `size` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, size: usize) -> Result<Bytes, StorageError> {
        // Larger blocks are legal but rare: look before allocating what a node says.
        if size > BLOCK_BYTES_MAX && self.part.len()? < offset.saturating_add(size as u64) {
            return Err(self.ends_early(offset));
        }
        let mut bytes = vec![0; size];
        match self.part.read(offset, &mut bytes)? == size {
            true => Ok(Bytes::from(bytes)),
            false => Err(self.ends_early(offset)),
        }
    }

    /// Writes adjacent blocks in as few writes as make sense.
    pub(super) fn write(&self, write: &BlockWrite) -> Result<(), StorageError> {
        let mut offset = write.byte_offset;
        if let [block] = write.blocks.as_slice() {
            return self.put(&mut offset, block);
        }
        let mut gathered = Vec::new();
        for block in &write.blocks {
            let direct = block.len() >= GATHER_BELOW_BYTES;
            if direct || gathered.len() + block.len() > GATHERED_BYTES_MAX {
                self.put(&mut offset, &gathered)?;
                gathered.clear();
            }
            if direct {
                self.put(&mut offset, block)?;
            } else {
                gathered.extend_from_slice(block);
            }
        }
        self.put(&mut offset, &gathered)
    }

    /// Gives the space of `range` back.
    pub(super) fn free(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.part.punch(range)
    }

    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.part.sync()
    }

    fn put(&self, offset: &mut u64, bytes: &[u8]) -> Result<(), StorageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.part.write(*offset, bytes)?;
        *offset += bytes.len() as u64;
        Ok(())
    }

    fn ends_early(&self, offset: u64) -> StorageError {
        StorageError::Corrupt {
            core: self.core,
            part: "data",
            offset,
            reason: "the file ends before the block does".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files::block_file::OsFile;

    fn data(directory: &tempfile::TempDir) -> Data {
        let path = directory.path().join("data");
        let part = Part::new(Box::new(OsFile::new(path.clone())), path);
        Data::new(DiscoveryKey::from([0; 32]), part)
    }

    /// Goal: gathering changes how often is written, not what.
    #[test]
    fn blocks_of_any_size_lie_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let data = data(&directory);
        let sizes = [3, 0, 100_000, 1, 65_536, 65_535, 2].into_iter();
        let sizes = sizes.chain(std::iter::repeat_n(9_999, 120));
        let blocks: Vec<_> = sizes
            .zip(0u8..)
            .map(|(size, i)| Bytes::from(vec![i; size]))
            .collect();
        let expected = blocks.concat();
        let byte_offset = 7;
        data.write(&BlockWrite {
            byte_offset,
            blocks,
        })
        .unwrap();
        assert_eq!(data.read(7, expected.len()).unwrap(), expected);
        assert_eq!(data.read(0, 7).unwrap().as_ref(), [0; 7]);
    }

    #[test]
    fn a_size_past_the_end_is_refused_unallocated() {
        let directory = tempfile::tempdir().unwrap();
        let data = data(&directory);
        for size in [1, BLOCK_BYTES_MAX, usize::MAX] {
            let error = data.read(0, size).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { part: "data", .. }));
        }
        assert!(data.read(1 << 50, 0).unwrap().is_empty());
    }
}
