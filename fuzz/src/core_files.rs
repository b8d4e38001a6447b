//! The files of a core: one of them is made of the input, the others are an honest core's.
//!
//! Holds: a core that opens goes on, opens again at the same length, and yields no block that was
//! not appended. (In `oplog` the input may sign for anything: it is told the checksums.)
//!
//! Reading checks a block against its leaf, and not the leaf against the roots: that would cost a
//! hash for each level. So a block may stand for another one if the record of its leaf was moved
//! there, with sizes above that lead to its bytes; an audit must tell then.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::storage::{CoreHeader, Head, StorageError};
use ferrocore_log::{Core, CoreError, Durability, Manifest};

use crate::honest::{block, key_pair};
use crate::memory::{Contents, Disk};

const SLOT_BYTES: usize = 4096;
/// Blocks of the honest core.
const LENGTH: u64 = 60;
/// More blocks than this are not looked at one by one.
const LOOKED_AT_MAX: u64 = 100;

/// What the input says about the oplog.
///
/// | first byte | the rest |
/// |---|---|
/// | 0 | the file |
/// | 1 | the payload of the first slot, then entries |
/// | other | entries behind the honest header |
///
/// An entry is a byte with its flags (1 partial, 2 of the other header), a byte with its length,
/// and its payload: the checksum is added here.
pub fn oplog(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let mut files = honest_files().clone();
    let oplog = files.entry("oplog").or_default();
    match mode {
        0 => *oplog = rest.to_vec(),
        1 => {
            let (len, rest) = rest.split_at(rest.len().min(2));
            let len = len
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte));
            let (payload, entries) = rest.split_at(len.min(rest.len()).min(SLOT_BYTES - 8));
            *oplog = record(payload, 0);
            oplog.resize(2 * SLOT_BYTES, 0);
            put_entries(oplog, entries, 0);
        }
        _ => {
            let bit = oplog[4] & 1 ^ oplog[SLOT_BYTES + 4] & 1;
            oplog.truncate(2 * SLOT_BYTES);
            put_entries(oplog, rest, bit);
        }
    }
    if let Some(core) = exercise(&Disk::new(files)) {
        goes_on(&core);
    }
}

fn put_entries(oplog: &mut Vec<u8>, mut rest: &[u8], bit: u8) {
    while let [flags, len, behind @ ..] = rest {
        let (payload, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        oplog.extend(record(payload, (flags & 1) << 1 | (flags >> 1 & 1) ^ bit));
        rest = behind;
    }
}

/// A record of the oplog with a checksum that holds.
fn record(payload: &[u8], flags: u8) -> Vec<u8> {
    let info = (payload.len() as u32) << 2 | u32::from(flags);
    let covered = [&info.to_le_bytes()[..], payload].concat();
    let crc = crc32fast::hash(&covered);
    [&crc.to_le_bytes()[..], &covered].concat()
}

/// The input lies over the file `tree`, from the place that its first two bytes name.
pub fn tree(data: &[u8]) {
    overlaid("tree", data);
}

/// The input lies over the file `bitfield`.
pub fn bitfield(data: &[u8]) {
    overlaid("bitfield", data);
}

/// The input lies over the file `header`, where headers too long for the oplog are.
pub fn header(data: &[u8]) {
    overlaid("header", data);
}

fn overlaid(name: &'static str, data: &[u8]) {
    let [low, high, bytes @ ..] = data else {
        return;
    };
    let mut files = honest_files().clone();
    let file = files.entry(name).or_default();
    let start = usize::from(u16::from_le_bytes([*low, *high])) % (file.len() + 1);
    file.resize(file.len().max(start + bytes.len()), 0);
    file[start..start + bytes.len()].copy_from_slice(bytes);
    if let Some(core) = exercise(&Disk::new(files)) {
        // A header carries no checksum of its own: it may name a shorter log.
        assert!(name == "header" || core.length() == LENGTH);
        check_blocks(&core);
        goes_on(&core);
    }
}

/// Opens the core, reads it, and opens it again.
fn exercise(disk: &Disk) -> Option<Core> {
    let core = open(disk).ok()??;
    let (fork, length) = (core.fork(), core.length());
    for index in looked_at(length) {
        let _ = core.get_local(index);
        let _ = core.missing_nodes(2 * index);
    }
    let _ = core.seek_local(core.byte_length() / 2);
    let _ = core.contiguous_length();
    drop(core);
    let again = open(disk).expect("what opened once opens again");
    let again = again.expect("a core does not vanish");
    assert_eq!((again.fork(), again.length()), (fork, length));
    Some(again)
}

fn looked_at(length: u64) -> impl Iterator<Item = u64> {
    (0..length.min(LOOKED_AT_MAX)).chain(length.checked_sub(1))
}

fn check_blocks(core: &Core) {
    let mut moved = false;
    for index in looked_at(core.length()) {
        let Ok(Some(found)) = core.get_local(index) else {
            continue;
        };
        let is_appended = (0..LENGTH).any(|index| appended(index) == found);
        assert!(is_appended, "block {index} is none that was appended");
        moved |= found != appended(index);
    }
    if moved {
        let report = core.audit(Mode::DryRun, |_| {});
        assert!(report.expect("memory does not fail").bad > 0);
    }
}

/// Changes the core in every way; each may be refused.
fn goes_on(core: &Core) {
    let _ = core.clear(1..5);
    let _ = core.set_user_data("key", Some(b"value"));
    if core.append("goes on").is_ok() {
        let last = core.get_local(core.length() - 1);
        assert_eq!(last.expect("it was just written"), Some("goes on".into()));
    }
    let _ = core.truncate(core.length() / 2, None);
    let _ = core.flush();
}

fn appended(index: u64) -> Bytes {
    block(u64::from(index >= 30), index)
}

/// Files with every feature: a truncate, a hole, a header of its own file, unflushed entries.
fn honest_files() -> &'static Contents {
    static FILES: OnceLock<Contents> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = Disk::default();
        let core = create(&disk);
        let blocks = |range: std::ops::Range<u64>, fork| range.map(|i| block(fork, i)).collect();
        core.append_batch(blocks(0..40, 0)).expect("memory");
        core.truncate(30, None).expect("memory");
        core.append_batch(blocks(30..LENGTH - 2, 1))
            .expect("memory");
        core.set_user_data("long", Some(&[7; 5_000]))
            .expect("memory");
        core.clear(3..6).expect("memory");
        core.flush().expect("memory");
        core.append_batch(blocks(LENGTH - 2..LENGTH, 1))
            .expect("memory");
        disk.contents()
    })
}

fn header_of_core() -> CoreHeader {
    let manifest = Manifest::single(key_pair().public_key());
    CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: None,
        user_data: BTreeMap::new(),
        head: Head::empty(),
    }
}

fn create(disk: &Disk) -> Core {
    let opened = FileCore::create(disk.core_files(), header_of_core(), Durability::Buffered);
    let opened = opened.expect("memory has room for a core");
    Core::open(opened, Some(key_pair()), Durability::Buffered).expect("it is new")
}

fn open(disk: &Disk) -> Result<Option<Core>, StorageError> {
    let id = header_of_core().key.discovery_key();
    let Some(opened) = FileCore::open(&id, disk.core_files(), Durability::Buffered)? else {
        return Ok(None);
    };
    match Core::open(opened, Some(key_pair()), Durability::Buffered) {
        Ok(core) => Ok(Some(core)),
        Err(CoreError::Storage(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Real entries and headers to start from, by target.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let files = honest_files();
    let oplog = &files["oplog"];
    let mut seeds = vec![("oplog", [&[0], &oplog[..]].concat())];
    let mut entries = vec![2];
    let mut rest = &oplog[2 * SLOT_BYTES..];
    while let [_, _, _, _, a, b, c, d, behind @ ..] = rest {
        let len = (u32::from_le_bytes([*a, *b, *c, *d]) >> 2) as usize;
        let (payload, behind) = behind.split_at(len.min(behind.len()));
        let payload = &payload[..payload.len().min(255)];
        entries.extend([0, payload.len() as u8]);
        entries.extend(payload);
        rest = behind;
    }
    seeds.push(("oplog", entries));
    let slot = &oplog[8..200];
    seeds.push(("oplog", [&[1, 0, 192][..], slot].concat()));
    for name in ["tree", "bitfield", "header"] {
        let target = match name {
            "tree" => "tree_file",
            "bitfield" => "bitfield_file",
            _ => "header_file",
        };
        let head = &files[name][..files[name].len().min(400)];
        seeds.push((target, [&[0, 0], head].concat()));
        seeds.push((target, vec![40, 0, 1, 2, 3, 4]));
    }
    seeds
}
