//! Goal: who hands us a directory does not choose how much memory it takes to open what is in it.
//! Method: one test, for nothing else may allocate meanwhile: the peak at the allocator while a core is opened
//! whose journal has as many entries as fit, each as small as it can be.
#![cfg(feature = "files")]

use std::alloc::System;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use cap::Cap;
use ferrocore_log::storage::StorageError;
use ferrocore_log::storage::files::block_file::{BlockFile, OsFile};
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::{Corestore, StoreOptions};
use ferrocore_primitives::encoding::put_uint;
use ferrocore_primitives::keys::DiscoveryKey;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes of entries in a journal.
const JOURNAL_BYTES: usize = 4 << 20;
/// Bytes of the tiniest pairs of user data that take more memory than they may.
const REFUSED_BYTES: usize = 24 << 20;
/// Most memory that entries may take, as `oplog.rs` has it.
const ENTRIES_MEMORY_MAX: usize = 256 << 20;
/// What the rest of an open core may take.
const SLACK: usize = 4 << 20;

/// Entry number `i`.
type Entry = fn(&mut Vec<u8>, u64);

#[test]
fn a_journal_of_tiny_entries_takes_no_more_than_it_may() {
    // Each with what one of them may take once it was replayed; what takes most comes last.
    let kinds: [(&str, usize, usize, Entry); 5] = [
        ("nothing", JOURNAL_BYTES, 0, |out, _| out.push(0)),
        ("the same node", JOURNAL_BYTES, 0, |out, _| put_node(out, 2)),
        ("a node", JOURNAL_BYTES, 128, |out, i| {
            put_node(out, 100 + 2 * i)
        }),
        ("user data", REFUSED_BYTES, 200, |out, i| {
            out.extend([1, 4]);
            out.extend([0, 7, 14, 21].map(|shift| (i >> shift) as u8 & 0x7f));
            out.extend([1, 7]);
        }),
        ("bits", JOURNAL_BYTES, 96, |out, i| {
            out.extend([8, 0, (i % 5) as u8, 1])
        }),
    ];
    for (name, bytes, each, entry) in kinds {
        let directory = tempfile::tempdir().unwrap();
        let (core, files) = make_core(directory.path());
        let count = fill_journal(&files, bytes, entry);
        let before = ALLOCATOR.allocated();
        let (peak, result) = peek(&core, &files);
        println!(
            "{name}: {count} entries, {} bytes at the most",
            peak - before
        );
        let is_refused = each * count > ENTRIES_MEMORY_MAX;
        assert_eq!(result.is_err(), is_refused, "{name}");
        let entries = if is_refused { 0 } else { each * count };
        assert!(peak - before <= bytes + entries + SLACK, "{name}: {peak}");
        if let Err(error) = result {
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("bytes of memory"), "{error}");
        }
    }
}

/// A core in the store at `store`, and where its files are.
fn make_core(store: &Path) -> (DiscoveryKey, PathBuf) {
    let store_of = Corestore::open(store, StoreOptions::default()).unwrap();
    let core = store_of.get_named("log").unwrap();
    core.append_batch(vec![bytes::Bytes::from_static(b"x"); 5])
        .unwrap();
    core.flush().unwrap();
    let (key, name) = (core.discovery_key(), core.discovery_key().to_hex());
    let cores = store.join("corestore/cores");
    (key, cores.join(&name[..2]).join(&name[2..4]).join(&name))
}

/// Fills the journal of the core in `directory` with such entries, and says how many they are.
fn fill_journal(directory: &Path, bytes: usize, entry: Entry) -> usize {
    let oplog = directory.join("oplog");
    let slots = std::fs::read(&oplog).unwrap();
    let bit = (slots[4] ^ slots[4096 + 4]) & 1;
    let mut oplog = BufWriter::new(File::options().append(true).open(oplog).unwrap());
    let (mut out, mut written, mut count) = (Vec::new(), 0, 0);
    while written < bytes - 64 {
        out.clear();
        put_entry(&mut out, bit, |out| entry(out, count));
        oplog.write_all(&out).unwrap();
        written += out.len();
        count += 1;
    }
    oplog.flush().unwrap();
    count as usize
}

fn put_node(out: &mut Vec<u8>, index: u64) {
    out.extend([2, 1]);
    put_uint(out, index);
    out.push(1);
    out.extend([9; 32]);
}

fn put_entry(out: &mut Vec<u8>, bit: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 8]);
    payload(out);
    let info = ((out.len() - start - 8) as u32) << 2 | u32::from(bit);
    out[start + 4..start + 8].copy_from_slice(&info.to_le_bytes());
    let checksum = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads the core, and returns how much memory was taken at the most until now.
fn peek(core: &DiscoveryKey, directory: &Path) -> (usize, Result<(), StorageError>) {
    let file = |name| -> Box<dyn BlockFile> { Box::new(OsFile::read_only(directory.join(name))) };
    let files = || {
        Ok(Some(CoreFiles {
            directory: directory.to_owned(),
            oplog: file("oplog"),
            tree: file("tree"),
            bitfield: file("bitfield"),
            data: file("data"),
            header: file("header"),
        }))
    };
    let result = FileCore::peek(core, files).map(drop);
    (ALLOCATOR.max_allocated(), result)
}
