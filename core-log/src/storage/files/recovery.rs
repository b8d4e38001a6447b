//! From files to a state: the header, then the entries since, whatever a crash left behind.
//!
//! Reading changes nothing; what a crash left undone is made good when the core is opened.

use std::ops::Range;

use ferrocore_primitives::encoding::Decode;
use ferrocore_primitives::hash;
use ferrocore_primitives::keys::DiscoveryKey;

use super::entry::{self, Entry, Upgrade};
use super::header::{External, Slot, StoredHeader};
use super::oplog::{self, Damage, ENTRIES_MEMORY_MAX, ENTRIES_OFFSET, Layout, OPLOG_BYTES_MAX};
use super::overlay::{Lookup, Overlay};
use super::part::Part;
use super::tree::Tree;
use crate::bitfield::PAGE_BITS;
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::storage::{BitWrite, CoreHeader, Head, StorageError, set_user_data};

/// Longest header that is read or written.
pub(super) const HEADER_BYTES_MAX: u64 = 64 << 20;

/// What is said of an oplog that lacks what it had.
const LOST_HEADERS: &str = "it is missing, empty or cut short, though the core was written";

/// Most changes of bits that entries make, page by page: they take as much memory as entries may.
const CHANGES_MAX: usize = ENTRIES_MEMORY_MAX as usize / entry::BITS_COST;

/// Whether a state must have its roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootCheck {
    /// They are there, and those that the header names.
    Whole,
    /// Whatever they are: somebody looks for them.
    None,
}

/// The last committed state of a core.
pub(super) struct State {
    pub(super) header: CoreHeader,
    /// Where in the file `header` the header is, if it is there.
    pub(super) external: Option<Range<u64>>,
    pub(super) layout: Layout,
    /// Whether a header was torn as it was written.
    pub(super) lost_slot: bool,
    /// What is not in the file `tree` yet.
    pub(super) overlay: Overlay,
    /// So many blocks from the first were certainly here when the header was written.
    pub(super) front: u64,
    /// What is not in the file `bitfield` yet.
    pub(super) bits: Vec<BitWrite>,
    /// The roots of the head's length.
    pub(super) roots: Roots,
    /// Whether the head is that of an entry, which leaves its root hash out.
    pub(super) upgraded: bool,
}

/// Reads the state of `core`, or `None` if it has none yet.
pub(super) fn read(
    core: &DiscoveryKey,
    oplog: &Part,
    header_file: &Part,
    tree: &Tree,
    bitfield: &Part,
    check: RootCheck,
) -> Result<Option<State>, StorageError> {
    let contents = match oplog::read(oplog)? {
        Ok(Some(contents)) => contents,
        // A header is on the device before the first byte of either file is written.
        Ok(None) if tree.reaches_past(0)? || bitfield.len()? > 0 => {
            return Err(corrupt(core, "oplog", 0, LOST_HEADERS.to_owned()));
        }
        Ok(None) => return Ok(None), // a power cut took it as it was created
        Err(damage) => return Err(refuse(core, oplog, &damage)),
    };
    tree.check_format()?;
    let (stored, external) = match contents.slot {
        Slot::Inline(stored) => (*stored, None),
        Slot::External(external) => {
            let stored = read_external(core, header_file, &external)?;
            (stored, Some(external.at))
        }
    };
    check_identity(core, &stored.header)?;
    // It may be an older one, which knows nothing of what was cleared since.
    let one_header = contents.layout.has_one_header();
    let front = stored.contiguous_length.filter(|_| !one_header);
    let mut state = State {
        header: stored.header,
        front: front.unwrap_or(0),
        external,
        layout: contents.layout,
        lost_slot: contents.lost_slot,
        overlay: Overlay::default(),
        bits: Vec::new(),
        roots: Roots::default(),
        upgraded: false,
    };
    let foreign = contents.foreign_entries;
    contents
        .entries
        .iter()
        .for_each(|entry| state.replay(entry));
    drop(contents.entries);
    if check == RootCheck::Whole {
        state.check_roots(core, tree)?;
    }
    state.drop_unbacked_bits(core, tree)?;
    // Also where the other slot is zeros, as in a core that was never flushed.
    if one_header && (foreign || state.has_later_nodes(tree)?) {
        let reason = "its last header is damaged".to_owned();
        return Err(corrupt(core, "oplog", 0, reason));
    }
    Ok(Some(state))
}

impl State {
    fn replay(&mut self, entry: Entry) {
        if let Some((key, value)) = entry.user_data {
            set_user_data(&mut self.header.user_data, key, value);
        }
        if let Some(upgrade) = entry.upgrade {
            self.upgrade(upgrade);
        }
        self.overlay.insert(entry.nodes);
        self.bits.extend(entry.bits);
    }

    fn upgrade(&mut self, upgrade: Upgrade) {
        let head = &mut self.header.head;
        if upgrade.ancestors < head.length {
            self.overlay.truncate(upgrade.ancestors);
        }
        head.fork = upgrade.fork;
        head.length = upgrade.length;
        head.signature = upgrade.signature;
        self.upgraded = true;
    }

    /// Finds the roots, and derives the root hash that entries leave out.
    ///
    /// A head from the header carries the hash: then both must agree.
    fn check_roots(&mut self, core: &DiscoveryKey, tree: &Tree) -> Result<(), StorageError> {
        let length = self.header.head.length;
        let mut nodes = Vec::new();
        for index in flat_tree::full_roots(length) {
            let node = self.node(tree, index)?;
            let missing = || corrupt(core, "tree", index, "a root is missing".to_owned());
            nodes.push(node.ok_or_else(missing)?);
        }
        self.roots = Roots::new(length, nodes).unwrap_or_default();
        let roots = self.roots.nodes();
        let root_hash = match length {
            0 => Head::empty().root_hash,
            _ => hash::tree(roots.iter().map(|n| (n.index, n.size, n.hash))),
        };
        let told = std::mem::replace(&mut self.header.head.root_hash, root_hash);
        // A long header has no checksum: its length may be damaged, and 0 needs no roots.
        let is_empty = length == 0 && told == Roots::default().hash();
        if !self.upgraded && told != root_hash && !is_empty {
            let reason = "the roots are not those the header names".to_owned();
            return Err(corrupt(core, "tree", 0, reason));
        }
        Ok(())
    }

    /// Drops bits that are set in pages without a single node.
    ///
    /// A few bytes of an entry say how long a log is and which blocks are here: whoever hands us a directory
    /// would choose how many pages we make. After a power cut in buffered mode, blocks whose nodes were lost
    /// could not be read anyway.
    fn drop_unbacked_bits(&mut self, core: &DiscoveryKey, tree: &Tree) -> Result<(), StorageError> {
        let length = self.header.head.length;
        for change in std::mem::take(&mut self.bits) {
            let (mut at, end) = (change.range.start, change.range.end.min(length));
            if self.bits.len() >= CHANGES_MAX {
                return Err(too_much_memory(core));
            }
            if !change.value {
                self.bits.push(change);
                continue;
            }
            while let Some(block) = self.next_backed(tree, at)?.filter(|block| *block < end) {
                let page = block - block % PAGE_BITS;
                let range = at.max(page)..end.min(page + PAGE_BITS);
                at = range.end;
                let value = true;
                self.bits.push(BitWrite { range, value });
                if self.bits.len() >= CHANGES_MAX {
                    return Err(too_much_memory(core));
                }
            }
        }
        Ok(())
    }

    /// The first block from `block` on next to which there is a node.
    fn next_backed(&self, tree: &Tree, block: u64) -> Result<Option<u64>, StorageError> {
        let new = self.overlay.next(2 * block);
        if new == Some(2 * block) {
            return Ok(Some(block)); // as is that of nearly every block that came
        }
        let stored = tree.next(2 * block)?;
        Ok(new.into_iter().chain(stored).min().map(|index| index / 2))
    }

    fn node(&self, tree: &Tree, index: u64) -> Result<Option<Node>, StorageError> {
        match self.overlay.get(index) {
            Lookup::Here(node) => Ok(Some(node)),
            Lookup::Gone => Ok(None),
            Lookup::Unchanged => tree.node(index),
        }
    }

    /// Whether the tree is longer than this state, though nothing here was truncated: a later
    /// state was flushed. Before the first flush, and where a torn header was cleared, no node past the end is
    /// written that is not in an entry which is on the device.
    fn has_later_nodes(&self, tree: &Tree) -> Result<bool, StorageError> {
        Ok(self.overlay.cut().is_none() && tree.reaches_past(self.header.head.length)?)
    }
}

/// The header that is in the file `header`.
pub(super) fn read_external(
    core: &DiscoveryKey,
    file: &Part,
    external: &External,
) -> Result<StoredHeader, StorageError> {
    let at = &external.at;
    let damaged = |reason: &str| corrupt(core, "header", at.start, reason.to_owned());
    let length = at.end - at.start;
    if length > HEADER_BYTES_MAX || at.end > file.len()? {
        return Err(damaged("the file ends before the header does"));
    }
    let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
    if file.read(at.start, &mut payload)? < payload.len() {
        return Err(damaged("the file ends before the header does"));
    }
    if !external.is(&payload) {
        return Err(damaged("its checksum is wrong"));
    }
    match Slot::from_slice(&payload) {
        Ok(Slot::Inline(stored)) => Ok(*stored),
        Ok(Slot::External(_)) => Err(damaged("a header that points elsewhere")),
        Err(error) => Err(damaged(&error.to_string())),
    }
}

/// A header must be of the core whose directory it is in.
fn check_identity(core: &DiscoveryKey, header: &CoreHeader) -> Result<(), StorageError> {
    if header.key.discovery_key() != *core {
        let reason = "the header is of another core".to_owned();
        return Err(corrupt(core, "oplog", 0, reason));
    }
    match &header.manifest {
        Some(manifest) if !manifest.belongs_to(&header.key) => {
            let reason = "the manifest does not belong to the key".to_owned();
            Err(corrupt(core, "oplog", 0, reason))
        }
        _ => Ok(()),
    }
}

fn refuse(core: &DiscoveryKey, oplog: &Part, damage: &Damage) -> StorageError {
    match damage {
        Damage::Version(version) => StorageError::UnknownFormat {
            path: oplog.path().clone(),
            reason: format!("header version {version}; a newer program wrote it"),
        },
        Damage::NoHeader => corrupt(core, "oplog", 0, "both headers are damaged".to_owned()),
        Damage::TooLong => {
            let reason = format!("more than {OPLOG_BYTES_MAX} bytes are too long to be one");
            corrupt(core, "oplog", OPLOG_BYTES_MAX, reason)
        }
        Damage::Memory => too_much_memory(core),
        Damage::Entry(offset) => {
            let reason = "an entry that was acknowledged is damaged, and newer ones follow it";
            corrupt(core, "oplog", *offset, reason.to_owned())
        }
    }
}

fn too_much_memory(core: &DiscoveryKey) -> StorageError {
    let reason = format!("its entries would take more than {ENTRIES_MEMORY_MAX} bytes of memory");
    corrupt(core, "oplog", ENTRIES_OFFSET, reason)
}

fn corrupt(core: &DiscoveryKey, part: &'static str, offset: u64, reason: String) -> StorageError {
    StorageError::Corrupt {
        core: *core,
        part,
        offset,
        reason,
    }
}
