//! The file `data`: the blocks, one after the other at their byte offsets.
//!
//! Blocks of zeros are not written but left as holes, so that a sparse file stays sparse. A hole is
//! there like any write: the file is made to reach past it, and what lay in it before is gone.

use std::ops::Range;

use bytes::Bytes;
use ferrocore_primitives::keys::DiscoveryKey;

use super::part::Part;
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES_MAX};
use crate::storage::{BlockWrite, StorageError};

/// Blocks from this size on are written from where they are; smaller ones are gathered first.
const GATHER_BELOW_BYTES: usize = 64 * 1024;
/// Most bytes gathered into one write.
const GATHERED_BYTES_MAX: usize = 512 * 1024;
/// Fewer zeros than this are written: a file system keeps no smaller hole.
const HOLE_BYTES_MIN: usize = 4096;

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
        // Larger blocks are legal but rare: look before allocating what a node says. The file may be a hole.
        if size > BATCH_BYTES_MAX {
            return Err(self.corrupt(offset, "no block is as long as its leaf says"));
        }
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
        let bytes: usize = write.blocks.iter().map(Bytes::len).sum();
        let mut gathered = Vec::with_capacity(bytes.min(GATHERED_BYTES_MAX));
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

    /// Gives the space of all from `end` on back.
    pub(super) fn cut(&self, end: u64) -> Result<(), StorageError> {
        match self.part.len()? > end {
            true => self.part.set_len(end),
            false => Ok(()),
        }
    }

    /// How many bytes the file has.
    pub(super) fn len(&self) -> Result<u64, StorageError> {
        self.part.len()
    }

    /// Empties it.
    pub(super) fn clear(&self) -> Result<(), StorageError> {
        self.part.set_len(0)
    }

    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.part.sync()
    }

    fn put(&self, offset: &mut u64, bytes: &[u8]) -> Result<(), StorageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = *offset + bytes.len() as u64;
        match bytes.len() >= HOLE_BYTES_MIN && is_zero(bytes) {
            true => self.leave_hole(*offset..end)?,
            false => self.part.write(*offset, bytes)?,
        }
        *offset = end;
        Ok(())
    }

    /// Makes `range` read as zeros, at no cost of space.
    fn leave_hole(&self, range: Range<u64>) -> Result<(), StorageError> {
        let len = self.part.len()?;
        if range.start < len {
            self.part.punch(range.start..range.end.min(len))?;
        }
        match range.end > len {
            true => self.part.set_len(range.end),
            false => Ok(()),
        }
    }

    fn ends_early(&self, offset: u64) -> StorageError {
        self.corrupt(offset, "the file ends before the block does")
    }

    fn corrupt(&self, offset: u64, reason: &str) -> StorageError {
        StorageError::Corrupt {
            core: self.core,
            part: "data",
            offset,
            reason: reason.to_owned(),
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: &[u8] = &[0; HOLE_BYTES_MIN];
    let mut chunks = bytes.chunks(ZEROS.len());
    chunks.all(|chunk| ZEROS.starts_with(chunk))
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

    /// Goal: how long a file is, costs whoever made it nothing; a leaf that says as much makes us allocate nothing.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_size_that_a_hole_justifies_is_refused_unallocated() {
        let directory = tempfile::tempdir().unwrap();
        let data = data(&directory);
        data.part.set_len(1 << 43).unwrap();
        let error = data.read(5, 1 << 42).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { part: "data", .. }));
        let block = data.read(1 << 42, BLOCK_BYTES_MAX + 1).unwrap();
        assert_eq!(block.len(), BLOCK_BYTES_MAX + 1, "larger than ours are");
    }

    /// Goal: zeros read as zeros wherever they are put, before, across and behind the end.
    #[test]
    fn zeros_hide_what_lay_there() {
        let size = 3 * HOLE_BYTES_MIN;
        for start in [0, 1, 5_000, size as u64, 20_000] {
            let directory = tempfile::tempdir().unwrap();
            let data = data(&directory);
            let put = |byte_offset, byte| {
                let blocks = vec![Bytes::from(vec![byte; size])];
                data.write(&BlockWrite {
                    byte_offset,
                    blocks,
                })
            };
            put(0, 1).unwrap();
            put(start, 0).unwrap();
            assert_eq!(data.read(start, size).unwrap(), vec![0; size]);
            let before = start.min(size as u64) as usize;
            assert_eq!(data.read(0, before).unwrap(), vec![1; before]);
        }
    }

    /// Goal: zeros cost no space, whether they come in order or not.
    #[cfg(target_os = "linux")]
    #[test]
    fn zeros_cost_no_space() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().unwrap();
        let data = data(&directory);
        let zeros = Bytes::from(vec![0; 1 << 20]);
        for place in [5, 0, 1, 2, 300, 7] {
            let write = BlockWrite {
                byte_offset: place << 20,
                blocks: vec![zeros.clone(), zeros.clone()],
            };
            data.write(&write).unwrap();
        }
        let metadata = std::fs::metadata(directory.path().join("data")).unwrap();
        assert_eq!(metadata.len(), 302 << 20);
        assert_eq!(metadata.blocks(), 0);
    }
}
