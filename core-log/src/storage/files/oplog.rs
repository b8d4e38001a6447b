//! The oplog: two slots for the header, then the entries since it was written.
//!
//! | offset | what |
//! |---|---|
//! | 0 | slot 0, a [`Record`] within 4096 bytes |
//! | 4096 | slot 1 |
//! | 8192 | entries, back to back |
//!
//! With the header bits of both slots as b0 and b1, the active slot has number b0 xor b1, and
//! entries count as long as their bit is that number. A new header goes to the other slot under a
//! bit that changes the number: that makes it active and all entries void in one write. As in
//! `hypercore/lib/oplog.js` 10.38.2.
//!
//! An entry that does not hold is where a write was torn, and ends the log: what may be whole behind it was
//! never acknowledged. Unless an entry behind it tells that it had reached the device ([`Entry::settled`]): then it was
//! damaged later, and whoever went on from the entry before it would sign another history.

use std::fmt;

use ferrocore_primitives::encoding::Decode;

use super::entry::{self, Entry};
use super::header::{self, Slot};
use super::part::Part;
use super::record::{self, Record};
use crate::storage::{CoreWrite, StorageError};

/// Bytes of one slot.
pub(super) const SLOT_BYTES: usize = 4096;
/// Where entries begin.
pub(super) const ENTRIES_OFFSET: u64 = 2 * SLOT_BYTES as u64;

/// Longest oplog that is read. JavaScript flushes at 64 KiB, and no entry of its can hold more
/// than 2^20 nodes of 50 bytes; ours stay below 1 MiB but for one change, whose user data is at most 64 MiB.
pub(super) const OPLOG_BYTES_MAX: u64 = 128 << 20;

/// Most memory that entries may take once they were replayed, by what [`entry::cost`] says: 2^20 nodes and 64 MiB
/// of user data do. Many entries of a few bytes each would take ten times what they have in the file.
pub(super) const ENTRIES_MEMORY_MAX: u64 = 256 << 20;

/// Most bytes that are hashed in search of an entry behind one that does not hold.
const SEARCH_BYTES_MAX: usize = 64 << 20;

/// The open oplog of a core.
pub(super) struct Oplog {
    part: Part,
    /// Header bits of the two slots.
    slots: [bool; 2],
    entries_len: u64,
    /// How many of them have reached the device.
    settled: u64,
    /// Whether the header has. One that was read may be what a killed process had only written; that of a new core need not,
    /// for without it there is none.
    is_header_settled: bool,
    /// How many slots hold a header.
    headers: usize,
    /// Records under construction, kept for its capacity.
    buffer: Vec<u8>,
}

/// What an oplog holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) slot: Slot,
    pub(super) entries: Entries,
    pub(super) layout: Layout,
    /// Whether the newer slot may have been damaged after it was written: the other one cannot
    /// be read, though it was written to.
    pub(super) lost_slot: bool,
    /// Whether entries of another header follow.
    pub(super) foreign_entries: bool,
}

/// The entries of an oplog in whole atomic groups, none of which is decoded before its turn.
pub(super) struct Entries {
    /// The whole file.
    bytes: Vec<u8>,
    /// How many bytes of it, from [`ENTRIES_OFFSET`] on, are theirs.
    len: usize,
}

impl Entries {
    /// Decodes them one by one.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        let start = ENTRIES_OFFSET as usize;
        let mut rest = self.bytes.get(start..start + self.len).unwrap_or_default();
        std::iter::from_fn(move || {
            let (payload, behind) = record::split(rest)?;
            rest = behind;
            Entry::from_slice(payload).ok()
        })
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where the next header and the next entry go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    slots: [bool; 2],
    entries_len: u64,
    headers: usize,
}

impl Layout {
    /// Whether nothing came after the header.
    pub(super) fn is_flushed(self) -> bool {
        self.entries_len == 0
    }

    /// Whether only one slot holds a header, as before the first flush.
    pub(super) fn has_one_header(self) -> bool {
        self.headers == 1
    }
}

/// Reads an oplog; `None` if it has no header yet: it is too short for two, or zeros, as a power cut leaves it
/// that comes before its first sync. `Err` carries what does not hold.
pub(super) fn read(part: &Part) -> Result<Result<Option<Contents>, Damage>, StorageError> {
    let len = part.len()?;
    if len > OPLOG_BYTES_MAX {
        return Ok(Err(Damage::TooLong));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let count = part.read(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(parse(bytes))
}

/// Why an oplog cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Longer than [`OPLOG_BYTES_MAX`].
    TooLong,
    /// Neither slot holds a header.
    NoHeader,
    /// A header of a later version.
    Version(u64),
    /// Its entries would take more memory than [`ENTRIES_MEMORY_MAX`].
    Memory,
    /// The entry here, an offset in the file, had reached the device and does not hold any more.
    Entry(u64),
}

/// The contents of an oplog whose bytes are `bytes`.
fn parse(bytes: Vec<u8>) -> Result<Option<Contents>, Damage> {
    let areas = [
        bytes.get(..SLOT_BYTES).unwrap_or(&bytes),
        bytes.get(SLOT_BYTES..).unwrap_or_default(),
    ];
    let [first, second] = areas.map(|area| area.get(..SLOT_BYTES).unwrap_or(area));
    let lost = |slot: &[u8]| slot.iter().any(|byte| *byte != 0);
    let found = (parse_slot(first)?, parse_slot(second)?);
    let headers = usize::from(found.0.is_some()) + usize::from(found.1.is_some());
    let (slots, slot, lost_slot) = match found {
        (None, None) if (bytes.len() as u64) < ENTRIES_OFFSET => return Ok(None),
        (None, None) if bytes.iter().all(|byte| *byte == 0) => return Ok(None),
        (None, None) => return Err(Damage::NoHeader),
        (Some((bit, slot)), None) => ([bit, bit], slot, lost(second)),
        (None, Some((bit, slot))) => ([!bit, bit], slot, lost(first)),
        (Some((b0, slot0)), Some((b1, slot1))) => {
            ([b0, b1], if b0 == b1 { slot0 } else { slot1 }, false)
        }
    };
    let tail = bytes.get(SLOT_BYTES * 2..).unwrap_or_default();
    let [b0, b1] = slots;
    let (len, foreign_entries) = measure_entries(tail, b0 != b1)?;
    let layout = Layout {
        slots,
        entries_len: len as u64,
        headers,
    };
    Ok(Some(Contents {
        slot,
        entries: Entries { bytes, len },
        layout,
        lost_slot,
        foreign_entries,
    }))
}

fn parse_slot(area: &[u8]) -> Result<Option<(bool, Slot)>, Damage> {
    let Some(record) = Record::decode(area) else {
        return Ok(None);
    };
    match header::version(record.payload) {
        Ok(version) if version > header::VERSION => Err(Damage::Version(version)),
        _ => Ok(Slot::from_slice(record.payload)
            .ok()
            .map(|slot| (record.bit, slot))),
    }
}

/// How many bytes the entries under `bit` have, and whether others follow.
fn measure_entries(bytes: &[u8], bit: bool) -> Result<(usize, bool), Damage> {
    let (mut rest, mut foreign) = (bytes, false);
    let (mut whole_bytes, mut cost) = (0, 0);
    // Where something ends the entries that may be damage.
    let mut torn = false;
    loop {
        let Some(record) = Record::decode(rest) else {
            torn = true;
            break;
        };
        foreign = record.bit != bit;
        let Some(own) = entry::cost(record.payload).ok().filter(|_| !foreign) else {
            break;
        };
        cost += own;
        rest = rest.get(record.len()..).unwrap_or_default();
        if !record.partial {
            whole_bytes = bytes.len() - rest.len();
            if cost > ENTRIES_MEMORY_MAX {
                return Err(Damage::Memory);
            }
        }
    }
    let behind = bytes.get(whole_bytes..).unwrap_or_default();
    if torn && was_settled(behind, bit, whole_bytes as u64) {
        return Err(Damage::Entry(ENTRIES_OFFSET + whole_bytes as u64));
    }
    Ok((whole_bytes, foreign))
}

/// Whether anything in `bytes`, which begin `len` bytes behind the first entry, tells under `bit` that more than these had
/// reached the device.
///
/// The length of what is damaged may be wrong, so each place is tried.
fn was_settled(mut bytes: &[u8], bit: bool, len: u64) -> bool {
    let mut budget = SEARCH_BYTES_MAX;
    while !bytes.is_empty() {
        if let Some(claimed) = record::claimed_len(bytes) {
            let Some(left) = budget.checked_sub(claimed) else {
                return false;
            };
            budget = left;
            let record = Record::decode(bytes).filter(|record| record.bit == bit);
            let settled = record.and_then(|record| entry::settled(record.payload).ok());
            if settled.is_some_and(|settled| settled > len) {
                return true;
            }
        }
        bytes = bytes.get(1..).unwrap_or_default();
    }
    false
}

impl Oplog {
    /// An oplog that has no header yet.
    pub(super) fn empty(part: Part) -> Self {
        let layout = Layout {
            slots: [true, false],
            entries_len: 0,
            headers: 0,
        };
        Self {
            is_header_settled: true,
            ..Self::new(part, layout)
        }
    }

    /// An oplog that was read.
    pub(super) fn new(part: Part, layout: Layout) -> Self {
        Self {
            part,
            slots: layout.slots,
            entries_len: layout.entries_len,
            settled: 0,
            is_header_settled: false,
            headers: layout.headers,
            buffer: Vec::new(),
        }
    }

    /// Bytes of entries since the last header.
    pub(super) fn entries_len(&self) -> u64 {
        self.entries_len
    }

    /// Whether only one slot holds a header: that of a core which was never flushed, or whose other one was torn.
    ///
    /// Should it be damaged later, nobody may take it for the former. So nodes past the end of the log are never
    /// written before there are two.
    pub(super) fn has_one_header(&self) -> bool {
        self.headers == 1
    }

    /// Empties the slot that could not be read, for good: a later cut would make it seem damaged.
    pub(super) fn clear_lost_slot(&self) -> Result<(), StorageError> {
        let lost = 1 - self.active();
        self.part
            .write((lost * SLOT_BYTES) as u64, &[0; SLOT_BYTES])?;
        self.part.sync()
    }

    /// Makes the file end behind the last whole entry, for good: behind one that a power cut took
    /// there may be whole ones. Should the next cut undo this, an entry written meanwhile could
    /// lead to them, and they would count again, on top of another history.
    ///
    /// What makes them void is on the device before: it may be a header that a killed process had only written, and without
    /// that these entries are the state.
    pub(super) fn cut_tail(&mut self) -> Result<(), StorageError> {
        let len = ENTRIES_OFFSET + self.entries_len;
        if self.part.len()? == len {
            return Ok(());
        }
        self.sync()?;
        self.part.set_len(len)?;
        self.part.sync()
    }

    /// Builds the records of `write` and returns their length in bytes, 0 if there are none.
    /// [`Oplog::append_prepared`] writes them.
    pub(super) fn prepare(&mut self, write: &CoreWrite) -> u64 {
        let bit = self.active() == 1;
        self.buffer.clear();
        entry::put_records(&mut self.buffer, bit, write, self.settled);
        self.buffer.len() as u64
    }

    /// Appends what [`Oplog::prepare`] built, in one write. Before the first one behind a header that was read, that header is made
    /// durable: an entry that a power cut keeps without it would tell of a header that was damaged.
    pub(super) fn append_prepared(&mut self) -> Result<(), StorageError> {
        if !self.is_header_settled {
            self.sync()?;
        }
        let offset = ENTRIES_OFFSET + self.entries_len;
        self.part.write(offset, &self.buffer)?;
        self.entries_len += self.buffer.len() as u64;
        self.buffer.shrink_to(SLOT_BYTES);
        Ok(())
    }

    /// Makes `payload` the header and drops all entries. With `sync` each step is on the device
    /// before the next; what the oplog holds must be there already: the entries before the last header have the
    /// bit that this one brings into force, so should their removal be undone by a power cut, they would count again.
    ///
    /// # Panics
    /// If the payload does not fit a slot; the caller then makes it external.
    pub(super) fn write_header(&mut self, payload: &[u8], sync: bool) -> Result<(), StorageError> {
        let target = 1 - self.active();
        // A slot's bit flips each time it is written, and with it the number of the active slot.
        let [b0, b1] = self.slots;
        let bit = !if target == 0 { b0 } else { b1 };
        let mut out = Vec::with_capacity(record::FRAME_BYTES + payload.len());
        record::put(&mut out, bit, false, |out| out.extend_from_slice(payload));
        assert!(out.len() <= SLOT_BYTES, "longer headers are external");
        self.part.write((target * SLOT_BYTES) as u64, &out)?;
        if sync {
            self.part.sync()?;
        }
        self.part.set_len(ENTRIES_OFFSET)?;
        self.slots = if target == 0 { [bit, b1] } else { [b0, bit] };
        self.headers = 2.min(self.headers + 1);
        self.is_header_settled |= sync;
        (self.entries_len, self.settled) = (0, 0);
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.part.sync()?;
        self.settled = self.entries_len;
        self.is_header_settled = true;
        Ok(())
    }

    /// Number of the slot that holds the header.
    fn active(&self) -> usize {
        let [b0, b1] = self.slots;
        usize::from(b0 != b1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::BitWrite;
    use crate::storage::files::block_file::OsFile;
    use crate::storage::files::header::External;

    fn oplog(directory: &tempfile::TempDir) -> Part {
        let path = directory.path().join("oplog");
        Part::new(Box::new(OsFile::new(path.clone())), path)
    }

    fn bits(index: u64) -> CoreWrite {
        CoreWrite {
            bits: vec![BitWrite {
                range: index..index + 1,
                value: true,
            }],
            ..CoreWrite::default()
        }
    }

    fn append(log: &mut Oplog, index: u64) {
        assert!(log.prepare(&bits(index)) > 0);
        log.append_prepared().unwrap();
    }

    fn place(contents: &Contents) -> u64 {
        match &contents.slot {
            Slot::External(external) => external.at.start,
            Slot::Inline(_) => panic!("the test writes external headers"),
        }
    }

    /// Goal: of any number of headers the last one counts, with the entries behind it, whichever
    /// slot it is in; and the slots take turns as in JavaScript.
    #[test]
    fn the_last_header_counts_with_its_entries() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Oplog::empty(oplog(&directory));
        for round in 0..9 {
            let payload = External::of(b"a header", round).encode();
            log.write_header(&payload, round % 2 == 0).unwrap();
            (0..round).for_each(|index| append(&mut log, index));
            let contents = read(&oplog(&directory)).unwrap().unwrap().unwrap();
            assert_eq!(place(&contents), round);
            assert_eq!(contents.entries.iter().count() as u64, round);
            assert_eq!(contents.layout.slots, log.slots);
            let bytes = std::fs::read(directory.path().join("oplog")).unwrap();
            let slot = &bytes[(round % 2) as usize * SLOT_BYTES..];
            assert_eq!(Record::decode(slot).unwrap().payload, payload);
        }
    }

    /// Goal: whatever part of a new header reaches the file, the old state or the new is found.
    #[test]
    fn a_torn_header_leaves_the_old_one_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oplog");
        for round in 0..4 {
            let _ = std::fs::remove_file(&path);
            let mut log = Oplog::empty(oplog(&directory));
            for header in 0..=round {
                log.write_header(&External::of(b"a header", header).encode(), false)
                    .unwrap();
            }
            append(&mut log, 5);
            let before = std::fs::read(&path).unwrap();
            log.write_header(&External::of(b"a header", 50).encode(), false)
                .unwrap();
            let after = std::fs::read(&path).unwrap();
            let start = (1 - (round as usize % 2)) * SLOT_BYTES;
            for torn in 0..SLOT_BYTES {
                let mut bytes = before.clone();
                bytes[start..start + torn].copy_from_slice(&after[start..start + torn]);
                let contents = parse(bytes).unwrap().unwrap();
                let seen = (place(&contents), contents.entries.iter().count());
                assert!(seen == (round, 1) || seen == (50, 0), "{torn}: {seen:?}");
            }
        }
    }

    #[test]
    fn a_group_cut_short_is_dropped_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Oplog::empty(oplog(&directory));
        log.write_header(&External::of(b"a header", 0).encode(), false)
            .unwrap();
        append(&mut log, 1);
        let whole = log.entries_len();
        let mut group = bits(2);
        group.bits.extend(bits(4).bits);
        log.prepare(&group);
        log.append_prepared().unwrap();
        let bytes = std::fs::read(directory.path().join("oplog")).unwrap();
        for cut in ENTRIES_OFFSET + whole..bytes.len() as u64 {
            let contents = parse(bytes[..cut as usize].to_vec()).unwrap().unwrap();
            assert_eq!(contents.entries.iter().count(), 1);
            assert_eq!(contents.layout.entries_len, whole);
        }
        assert_eq!(parse(bytes).unwrap().unwrap().entries.iter().count(), 3);
    }

    /// Goal: an entry that was synced before another one came is not taken for a torn write, whichever of its bits flips;
    /// without a sync, or as the last one, it is. Who opens the oplog in between and syncs it vouches for all that is in it.
    #[test]
    fn a_settled_entry_that_is_damaged_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let entries = |synced: bool, reopened: bool| {
            let mut log = Oplog::empty(oplog(&directory));
            log.part.set_len(0).unwrap();
            log.write_header(&External::of(b"a header", 0).encode(), synced)
                .unwrap();
            let mut ends = vec![ENTRIES_OFFSET as usize];
            for index in 0..3 {
                if reopened && index > 0 {
                    let part = oplog(&directory);
                    let layout = read(&part).unwrap().unwrap().unwrap().layout;
                    log = Oplog::new(part, layout);
                    if synced {
                        log.sync().unwrap();
                    }
                }
                append(&mut log, index);
                if synced {
                    log.sync().unwrap();
                }
                ends.push((ENTRIES_OFFSET + log.entries_len()) as usize);
            }
            (std::fs::read(directory.path().join("oplog")).unwrap(), ends)
        };
        for (synced, reopened) in [(true, false), (true, true), (false, false), (false, true)] {
            let (bytes, ends) = entries(synced, reopened);
            assert_eq!(
                parse(bytes.clone())
                    .unwrap()
                    .unwrap()
                    .entries
                    .iter()
                    .count(),
                3
            );
            for at in ENTRIES_OFFSET as usize..bytes.len() {
                let hit = ends.iter().filter(|end| **end <= at).count() - 1;
                for flip in 0..8 {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1 << flip;
                    match parse(bytes) {
                        Err(damage) => {
                            assert!(synced && hit < 2, "byte {at}, bit {flip}");
                            assert_eq!(damage, Damage::Entry(ends[hit] as u64));
                        }
                        Ok(contents) => {
                            assert!(!synced || hit == 2, "byte {at}, bit {flip}");
                            assert_eq!(contents.unwrap().entries.iter().count(), hit);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_oplog_is_told_apart() {
        assert!(parse(vec![]).unwrap().is_none());
        assert!(parse(vec![0; 100]).unwrap().is_none());
        assert!(parse(vec![0; 8192]).unwrap().is_none());
        assert_eq!(parse(vec![1; 8192]).unwrap_err(), Damage::NoHeader);
        let mut bytes = Vec::new();
        record::put(&mut bytes, false, false, |out| out.push(2));
        assert_eq!(parse(bytes).unwrap_err(), Damage::Version(2));
    }
}
