//! A core as it was last committed, for who does not write it: nothing is locked, and nothing on
//! disk is changed. Somebody else may be writing it.
//!
//! Knows how to tell that the files were changed while they were read. The log itself only grows,
//! so a state that was read whole stays readable; what takes that away is a truncate, which starts
//! another fork. Each read is followed by a look at the oplog, and fails if there is a new fork:
//! what was read may be of either history.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ferrocore_primitives::keys::DiscoveryKey;

use super::bitfield;
use super::data::Data;
use super::file_core::{CoreFiles, Parts};
use super::header::Slot;
use super::oplog::{self, ENTRIES_OFFSET, SLOT_BYTES};
use super::overlay::{Lookup, Overlay};
use super::part::Part;
use super::record::FRAME_BYTES;
use super::recovery::{self, RootCheck, State};
use super::tree::Tree;
use crate::bitfield::Bitfield;
use crate::flat_tree;
use crate::merkle::Node;
use crate::storage::{
    BitWrite, CoreHeader, CoreStorage, CoreWrite, Durability, OpenedCore, StorageError, lock,
};

/// How often a core is read before it is given up: a writer changes a header once in thousands of
/// commits, so that two tries nearly always do.
const TRIES_MAX: usize = 16;

/// Opens a core to be read; see [`FileCore::open_read_only`](super::FileCore::open_read_only).
pub(super) fn open(
    core: &DiscoveryKey,
    files: impl Fn() -> Result<Option<CoreFiles>, StorageError>,
    check: RootCheck,
) -> Result<Option<OpenedCore>, StorageError> {
    let Some(read) = read(core, files, true, check)? else {
        return Ok(None);
    };
    let (header, mut overlay) = (read.state.header, read.state.overlay);
    // In memory they stay those of this state.
    overlay.insert(read.state.roots.nodes().iter().copied());
    let storage = Snapshot {
        length: header.head.length,
        tree: read.tree,
        overlay,
        data: read.data,
        bits: read.bits,
        watch: read.watch,
    };
    Ok(Some(OpenedCore {
        drafts: None,
        header,
        bitfield: read.bitfield,
        storage: Arc::new(storage),
        conflicts: None,
    }))
}

/// Reads what is known of a core.
pub(super) fn peek(
    core: &DiscoveryKey,
    files: impl Fn() -> Result<Option<CoreFiles>, StorageError>,
) -> Result<Option<CoreHeader>, StorageError> {
    let read = read(core, files, false, RootCheck::Whole)?;
    Ok(read.map(|read| read.state.header))
}

/// A state that was read while nobody changed it.
struct Read {
    state: State,
    bitfield: Bitfield,
    watch: Watch,
    tree: Tree,
    data: Data,
    bits: Part,
}

fn read(
    core: &DiscoveryKey,
    files: impl Fn() -> Result<Option<CoreFiles>, StorageError>,
    with_bits: bool,
    check: RootCheck,
) -> Result<Option<Read>, StorageError> {
    for _ in 0..TRIES_MAX {
        // Anew each time: what was missing before may be there now.
        let Some(files) = files()? else {
            return Ok(None);
        };
        let parts = Parts::new(core, files);
        let before = Mark::of(&parts.oplog)?;
        // First the bits: the entries that are read after them tell of all that changed since.
        let bits = match with_bits {
            true => bitfield::read(&parts.bitfield),
            false => Ok(Bitfield::new()),
        };
        let mark = Mark::of(&parts.oplog)?;
        let state = bits.and_then(|bits| Ok((parts.read(core, check)?, bits)));
        let after = Mark::of(&parts.oplog)?;
        match state {
            Ok((None, _)) if after == before => return Ok(None),
            Err(error) if after == before => return Err(error),
            Ok((Some(state), bits)) if after.slots == before.slots => {
                let head = &state.header.head;
                let (length, fork) = (head.length, head.fork);
                let bitfield = bitfield::replay(bits, length, &state.bits);
                let watch = Watch {
                    core: *core,
                    fork,
                    oplog: parts.oplog,
                    header_file: parts.header,
                    seen: Mutex::new(mark),
                };
                match watch.check() {
                    Err(StorageError::Changed { .. }) => continue,
                    checked => checked?,
                }
                return Ok(Some(Read {
                    state,
                    bitfield,
                    watch,
                    tree: parts.tree,
                    data: parts.data,
                    bits: parts.bitfield,
                }));
            }
            _ => {}
        }
    }
    Err(StorageError::Unsettled { core: *core })
}

/// The state of a core at one moment, and the files it is in.
struct Snapshot {
    length: u64,
    tree: Tree,
    overlay: Overlay,
    data: Data,
    bits: Part,
    watch: Watch,
}

impl CoreStorage for Snapshot {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        // Past the end there may be nodes of what was appended since, or cut off before.
        if flat_tree::end_block(index) > self.length {
            return Ok(None);
        }
        match self.overlay.get(index) {
            Lookup::Here(node) => Ok(Some(node)),
            Lookup::Gone => Ok(None),
            Lookup::Unchanged => {
                let node = self.tree.node(index);
                self.watch.check()?;
                node
            }
        }
    }

    fn next_node(&self, from: u64) -> Result<Option<u64>, StorageError> {
        let stored = self.tree.next(from);
        self.watch.check()?;
        Ok(self.overlay.next(from).into_iter().chain(stored?).min())
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        let block = self.data.read(byte_offset, size);
        self.watch.check()?;
        block
    }

    fn still_has(&self, index: u64) -> Result<Option<bool>, StorageError> {
        for _ in 0..TRIES_MAX {
            let before = Mark::of(&self.watch.oplog)?;
            // First the file: the entries that are read after it tell of all that changed since.
            let bit = bitfield::read_bit(&self.bits, index)?;
            let changes = self.watch.read_changes();
            let after = Mark::of(&self.watch.oplog)?;
            if changes.is_err() && after != before {
                continue; // it was changed while it was read
            }
            if let Some(changes) = changes?
                && after.slots == before.slots
            {
                self.watch.check()?;
                return Ok(Some(
                    index < self.length && bitfield::replay_bit(bit, index, &changes),
                ));
            }
        }
        let core = self.watch.core;
        Err(StorageError::Unsettled { core })
    }

    fn commit(&self, _: CoreWrite, _: Durability) -> Result<(), StorageError> {
        Err(self.watch.read_only())
    }

    fn flush(&self, _: Durability) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Notices when the core begins another history.
struct Watch {
    core: DiscoveryKey,
    fork: u64,
    oplog: Part,
    header_file: Part,
    /// What the oplog was when it told of no other fork.
    seen: Mutex<Mark>,
}

impl Watch {
    /// Fails if the core is not at the fork it was at.
    fn check(&self) -> Result<(), StorageError> {
        let mut seen = lock(&self.seen);
        for _ in 0..TRIES_MAX {
            let mark = Mark::of(&self.oplog)?;
            if mark == *seen {
                return Ok(());
            }
            let fork = self.read_fork();
            let after = Mark::of(&self.oplog)?;
            if after.slots != mark.slots || fork.is_err() && after != mark {
                continue; // it was changed while it was read
            }
            match fork? {
                Some(fork) if fork == self.fork => {
                    *seen = mark;
                    return Ok(());
                }
                Some(_) => return Err(self.changed()),
                None => {} // half written
            }
        }
        Err(StorageError::Unsettled { core: self.core })
    }

    /// The fork that the oplog tells of, if it is whole.
    fn read_fork(&self) -> Result<Option<u64>, StorageError> {
        let Ok(Some(contents)) = oplog::read(&self.oplog)? else {
            return Ok(None);
        };
        let entries = contents.entries.iter();
        let upgrades = entries.filter_map(|entry| entry.upgrade);
        let header = match contents.slot {
            _ if contents.lost_slot => return Ok(None),
            Slot::Inline(stored) => stored.header,
            Slot::External(external) => {
                recovery::read_external(&self.core, &self.header_file, &external)?.header
            }
        };
        let last = upgrades.last().map(|upgrade| upgrade.fork);
        Ok(Some(last.unwrap_or(header.head.fork)))
    }

    /// The bits that the entries change, if the oplog is whole.
    fn read_changes(&self) -> Result<Option<Vec<BitWrite>>, StorageError> {
        let contents = match oplog::read(&self.oplog)? {
            Ok(Some(contents)) if !contents.lost_slot => contents,
            _ => return Ok(None),
        };
        let changes = contents.entries.iter().filter_map(|entry| entry.bits);
        Ok(Some(changes.collect()))
    }

    fn changed(&self) -> StorageError {
        StorageError::Changed {
            path: self.oplog.path().clone(),
            how: "its log was truncated",
        }
    }

    fn read_only(&self) -> StorageError {
        StorageError::ReadOnly { core: self.core }
    }
}

/// What tells whether an oplog is the same as before: its length, and checksum and length of the records in its slots and of the first
/// entry behind them. Every commit changes one of them: an entry makes it longer, and what is behind a new header is there until it is
/// cut off or another entry, which belongs to that header and says so, takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    len: u64,
    slots: [[u8; FRAME_BYTES]; 2],
    first_entry: [u8; FRAME_BYTES],
}

impl Mark {
    /// The slots are looked at last: an entry is cut off only after the header that has taken it in was written, so whoever finds no
    /// entry where there was one finds that header.
    fn of(oplog: &Part) -> Result<Self, StorageError> {
        let len = oplog.len()?;
        let mut first_entry = [0; FRAME_BYTES];
        oplog.glance(ENTRIES_OFFSET, &mut first_entry)?;
        let mut slots = [[0; FRAME_BYTES]; 2];
        for (slot, number) in slots.iter_mut().zip(0..) {
            oplog.read(number * SLOT_BYTES as u64, slot)?;
        }
        Ok(Self {
            len,
            slots,
            first_entry,
        })
    }
}
