//! The file `bitfield`: page `p` of 4096 bytes at byte `4096 p`, as [`Bitfield`] lays them out.
//!
//! Pages are read when somebody looks at them, change in memory, and are written whole when the core is
//! flushed. As in `hypercore/lib/bitfield.js` 10.38.2.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::part::Part;
use super::poison::Poison;
use crate::bitfield::{Bitfield, PAGE_BITS, PAGE_BYTES, PageSource};
use crate::storage::{BitWrite, StorageError};

/// Pages read at a time.
const READ_PAGES: usize = 64;

/// The open bitfield of a core.
pub(super) struct BitfieldFile {
    part: Arc<Part>,
    bits: Bitfield,
    dirty: BTreeSet<u64>,
}

impl BitfieldFile {
    /// The bitfield of a core without blocks.
    pub(super) fn empty(part: Part) -> Self {
        Self {
            part: Arc::new(part),
            bits: Bitfield::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// The bits of the first `length` blocks, after `changes` were made to them; before, the first `front`
    /// were set. Should a page turn out to be unreadable later, `poison` is set.
    ///
    /// What the file says of later blocks is dropped there too: the log may grow past them before
    /// the next flush, and they are not here.
    pub(super) fn load(
        part: Part,
        length: u64,
        changes: &[BitWrite],
        front: u64,
        poison: &Arc<Poison>,
    ) -> Result<Self, StorageError> {
        let mut file = Self::empty(part);
        file.cut(length)?;
        let pages = file.part.len()?.div_ceil(PAGE_BYTES as u64);
        let source = Pages {
            part: Arc::clone(&file.part),
            poison: Arc::clone(poison),
        };
        file.bits = Bitfield::lazy(Box::new(source), pages, front.min(length));
        file.replay(length, changes)?;
        let last_page = length / PAGE_BITS;
        file.bits.load(length..(last_page + 1) * PAGE_BITS)?;
        if file.bits.next_set(length).is_some() {
            file.bits.truncate(length);
            file.dirty.insert(last_page);
            file.flush()?;
        }
        file.bits.advance_front();
        Ok(file)
    }

    pub(super) fn bits(&self) -> &Bitfield {
        &self.bits
    }

    /// How many blocks are here without a gap from the first.
    pub(super) fn contiguous_length(&mut self) -> u64 {
        self.bits.advance_front()
    }

    /// Makes one change in memory.
    pub(super) fn apply(&mut self, change: &BitWrite) -> Result<(), StorageError> {
        if change.range.is_empty() {
            return Ok(());
        }
        self.bits.load(change.range.clone())?;
        match change.value {
            true => self.set(change.range.clone()),
            false => self.clear(change.range.clone()),
        }
        Ok(())
    }

    /// Makes `changes` to the bits of the first `length` blocks.
    fn replay(&mut self, length: u64, changes: &[BitWrite]) -> Result<(), StorageError> {
        let mut changes = changes.iter().map(|change| within(change, length));
        changes.try_for_each(|change| self.apply(&change))
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

    fn set(&mut self, range: Range<u64>) {
        let pages = range.start / PAGE_BITS..=(range.end - 1) / PAGE_BITS;
        self.bits.set_range(range, true);
        self.dirty.extend(pages);
    }

    /// Touches the pages that hold a bit only: how long the log is, is its author's choice.
    fn clear(&mut self, range: Range<u64>) {
        // Also where no bit is left: a replayed clear may be in the file already, but not in the header.
        self.bits.lower_front(range.start);
        let mut from = range.start;
        while let Some(index) = self.bits.next_set(from).filter(|i| *i < range.end) {
            let page = index / PAGE_BITS;
            from = range.end.min((page + 1) * PAGE_BITS);
            self.bits.set_range(index..from, false);
            self.dirty.insert(page);
        }
    }

    /// Drops pages that have no bit of the first `length` blocks.
    fn cut(&self, length: u64) -> Result<(), StorageError> {
        let len = length.div_ceil(PAGE_BITS) * PAGE_BYTES as u64;
        match self.part.len()? > len {
            true => self.part.set_len(len),
            false => Ok(()),
        }
    }
}

/// The file as the source of pages that nobody has looked at yet.
struct Pages {
    part: Arc<Part>,
    poison: Arc<Poison>,
}

impl PageSource for Pages {
    fn read_page(&self, number: u64) -> Result<Box<[u8; PAGE_BYTES]>, StorageError> {
        read_page(&self.part, number)
    }

    fn next_page(&self, from: u64) -> Result<Option<u64>, StorageError> {
        let data = self.part.next_data(from * PAGE_BYTES as u64)?;
        Ok(data.map(|data| data / PAGE_BYTES as u64))
    }

    fn fail(&self, error: StorageError) {
        tracing::error!(%error, "cannot read which blocks are here");
        self.poison.set_because(error);
    }
}

/// `change` as far as it is of the first `length` blocks.
fn within(change: &BitWrite, length: u64) -> BitWrite {
    let end = change.range.end.min(length);
    BitWrite {
        range: change.range.start.min(end)..end,
        value: change.value,
    }
}

/// As [`BitfieldFile::load`] with the `bits` that were [`read`] before the changes were known;
/// the file stays as it is.
pub(super) fn replay(mut bits: Bitfield, length: u64, changes: &[BitWrite]) -> Bitfield {
    for BitWrite { range, value } in changes.iter().map(|change| within(change, length)) {
        bits.set_range(range, value);
    }
    bits.truncate(length);
    bits
}

/// Reads the one bit of `index`.
pub(super) fn read_bit(part: &Part, index: u64) -> Result<bool, StorageError> {
    let (mut bits, number) = (Bitfield::new(), index / PAGE_BITS);
    bits.load_page(number, read_page(part, number)?.as_slice());
    Ok(bits.get(index))
}

/// What the bit of `index` is after `changes`.
pub(super) fn replay_bit(bit: bool, index: u64, changes: &[BitWrite]) -> bool {
    let mut changes = changes.iter().rev();
    let last = changes.find(|change| change.range.contains(&index));
    last.map_or(bit, |change| change.value)
}

fn read_page(part: &Part, number: u64) -> Result<Box<[u8; PAGE_BYTES]>, StorageError> {
    let mut page = Box::new([0; PAGE_BYTES]);
    let count = part.read(number * PAGE_BYTES as u64, &mut page[..])?;
    // JavaScript reads whole 32-bit words only.
    page.get_mut(count & !3..).unwrap_or_default().fill(0);
    Ok(page)
}

/// Reads the pages that are in the file; holes, which a sparse reader leaves, cost nothing.
pub(super) fn read(part: &Part) -> Result<Bitfield, StorageError> {
    let mut bits = Bitfield::new();
    let mut buffer = vec![0; READ_PAGES * PAGE_BYTES];
    let mut from = 0;
    while let Some(data) = part.next_data(from)? {
        let first = data / PAGE_BYTES as u64;
        let start = first * PAGE_BYTES as u64;
        let count = part.read(start, &mut buffer)?;
        // JavaScript reads whole 32-bit words only.
        let bytes = buffer.get(..count & !3).unwrap_or_default();
        for (page, number) in bytes.chunks(PAGE_BYTES).zip(first..) {
            bits.load_page(number, page);
        }
        if count < buffer.len() {
            break;
        }
        from = start + buffer.len() as u64;
    }
    Ok(bits)
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

    fn load(
        directory: &tempfile::TempDir,
        length: u64,
        changes: &[BitWrite],
    ) -> Result<BitfieldFile, StorageError> {
        BitfieldFile::load(part(directory), length, changes, 0, &Arc::default())
    }

    #[test]
    fn bits_come_back_and_those_past_the_end_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = BitfieldFile::empty(part(&directory));
        let last = 70 * PAGE_BITS;
        file.apply(&change(0..3, true)).unwrap();
        file.apply(&change(5..6, true)).unwrap();
        file.apply(&change(last - 1..last + 2, true)).unwrap();
        file.flush().unwrap();
        let replayed = [change(1..2, false), change(9..1 << 60, true)];
        let mut file = load(&directory, 10, &replayed).unwrap();
        let set: Vec<_> = (0..last + 5).filter(|i| file.bits().get(*i)).collect();
        assert_eq!(set, [0, 2, 5, 9]);
        file.flush().unwrap();
        let file = load(&directory, last + 5, &[]).unwrap();
        assert_eq!(file.bits().count(0..last + 5), 4);
    }

    /// Goal: the author of a log chooses how long it is: where that leaves holes, neither a clear
    /// nor an open takes time or space for them.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_log_costs_the_pages_that_exist() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().unwrap();
        let length = 1 << 43;
        let mut file = BitfieldFile::empty(part(&directory));
        file.apply(&change(7..8, true)).unwrap();
        file.apply(&change(length - 1..length, true)).unwrap();
        file.flush().unwrap();
        let mut file = load(&directory, length, &[]).unwrap();
        assert_eq!(file.bits().count(0..length), 2);
        file.apply(&change(8..length, false)).unwrap();
        file.flush().unwrap();
        let file = load(&directory, length, &[]).unwrap();
        assert_eq!(file.bits().next_set(8), None);
        let metadata = std::fs::metadata(directory.path().join("bitfield")).unwrap();
        assert!(metadata.blocks() <= 64, "{} blocks", metadata.blocks());
    }
}
