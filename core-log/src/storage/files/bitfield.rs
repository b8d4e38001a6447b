//! The file `bitfield`: page `p` of 4096 bytes at byte `4096 p`, as [`Bitfield`] lays them out.
//!
//! Pages change in memory and are written whole when the core is flushed. As in
//! `hypercore/lib/bitfield.js` 10.38.2.

use std::collections::BTreeSet;

use super::part::Part;
use crate::bitfield::{Bitfield, PAGE_BITS, PAGE_BYTES};
use crate::storage::{BitWrite, StorageError};

/// Pages read at a time.
const READ_PAGES: usize = 64;

/// The open bitfield of a core.
pub(super) struct BitfieldFile {
    part: Part,
    bits: Bitfield,
    dirty: BTreeSet<u64>,
}

impl BitfieldFile {
    /// The bitfield of a core without blocks.
    pub(super) fn empty(part: Part) -> Self {
        Self {
            part,
            bits: Bitfield::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Reads the bits of the first `length` blocks, after `changes` were made to them.
    ///
    /// What the file says of later blocks is dropped, at the latest with the next flush.
    pub(super) fn load(
        part: Part,
        length: u64,
        changes: &[BitWrite],
    ) -> Result<Self, StorageError> {
        let mut file = Self::empty(part);
        file.cut(length)?;
        file.read()?;
        for change in changes {
            let end = change.range.end.min(length);
            let range = change.range.start.min(end)..end;
            let value = change.value;
            file.apply(&BitWrite { range, value });
        }
        if file.bits.next_set(length).is_some() {
            file.bits.truncate(length);
            file.dirty.insert(length / PAGE_BITS);
        }
        Ok(file)
    }

    pub(super) fn bits(&self) -> &Bitfield {
        &self.bits
    }

    /// Makes one change in memory.
    pub(super) fn apply(&mut self, change: &BitWrite) {
        if change.range.is_empty() {
            return;
        }
        self.bits.set_range(change.range.clone(), change.value);
        let pages = change.range.start / PAGE_BITS..=(change.range.end - 1) / PAGE_BITS;
        self.dirty.extend(pages);
    }

    /// Writes the pages that changed.
    pub(super) fn flush(&mut self) -> Result<(), StorageError> {
        while let Some(number) = self.dirty.first() {
            let page = self.bits.page_bytes(*number);
            self.part.write(number * PAGE_BYTES as u64, &page)?;
            self.dirty.pop_first();
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.part.sync()
    }

    /// Drops pages that have no bit of the first `length` blocks.
    fn cut(&self, length: u64) -> Result<(), StorageError> {
        let len = length.div_ceil(PAGE_BITS) * PAGE_BYTES as u64;
        match self.part.len()? > len {
            true => self.part.set_len(len),
            false => Ok(()),
        }
    }

    fn read(&mut self) -> Result<(), StorageError> {
        let mut buffer = vec![0; READ_PAGES * PAGE_BYTES];
        let mut number = 0;
        loop {
            let count = self.part.read(number * PAGE_BYTES as u64, &mut buffer)?;
            // JavaScript reads whole 32-bit words only.
            let bytes = buffer.get(..count & !3).unwrap_or_default();
            for page in bytes.chunks(PAGE_BYTES) {
                self.bits.load_page(number, page);
                number += 1;
            }
            if count < buffer.len() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files::block_file::OsFile;

    fn part(directory: &tempfile::TempDir) -> Part {
        let path = directory.path().join("bitfield");
        Part::new(Box::new(OsFile::new(path.clone())), path)
    }

    fn change(range: std::ops::Range<u64>, value: bool) -> BitWrite {
        BitWrite { range, value }
    }

    #[test]
    fn bits_come_back_and_those_past_the_end_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = BitfieldFile::empty(part(&directory));
        let last = 70 * PAGE_BITS;
        file.apply(&change(0..3, true));
        file.apply(&change(5..6, true));
        file.apply(&change(last - 1..last + 2, true));
        file.flush().unwrap();
        let replayed = [change(1..2, false), change(9..1 << 60, true)];
        let mut file = BitfieldFile::load(part(&directory), 10, &replayed).unwrap();
        let set: Vec<_> = (0..last + 5).filter(|i| file.bits().get(*i)).collect();
        assert_eq!(set, [0, 2, 5, 9]);
        file.flush().unwrap();
        let file = BitfieldFile::load(part(&directory), last + 5, &[]).unwrap();
        assert_eq!(file.bits().count(0..last + 5), 4);
    }
}
