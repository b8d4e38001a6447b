//! One core on files: when each byte is written, and in which order.
//!
//! | step | commit | flush |
//! |---|---|---|
//! | 1 | block bytes into `data` | new nodes into `tree`, pages into `bitfield` |
//! | 2 | an entry into `oplog`: the commit point | the header into `oplog`: drops all entries |
//! | 3 | nodes, bits and head in memory; the space of what was given up is freed in `data` | after a truncate: what `tree` must not hold is removed |
//!
//! With [`Durability::Sync`] each step is on the device before the next begins. A crash anywhere
//! leaves the state before or after the commit, and a header never names a length whose roots
//! are not in `tree`.
//!
//! With [`Durability::Buffered`] that holds for a kill of the process. A power cut takes the core
//! back to a head it had, none older than at the last flush, truncate or clear; of blocks
//! appended since, and of those the system had not written out by itself, bytes may be missing,
//! which reading them tells. For that flushes sync all but `data` in either mode: they are rare,
//! and a header that reached the device before its roots would leave a core that does not open.
//! Who opens a core with [`Durability::Sync`] syncs what is not known to be on the device, whoever left it.

mod opening;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use ferrocore_primitives::keys::DiscoveryKey;

use super::block_file::BlockFile;
use super::data::Data;
use super::overlay::{Lookup, Overlay};
use super::part::Part;
use super::poison::Poison;
use super::recovery::{self, RootCheck, State};
use super::tree::Tree;
use super::writer::Writer;
use crate::core::is_signed_as_stored;
use crate::descent::Descent;
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::storage::{
    BlockPlace, CoreStorage, CoreWrite, Durability, NodesOf, StorageError, lock, set_user_data,
};

/// Entries are flushed once there are this many bytes of them: some 4,000 appends. A flush waits for
/// the device, so it should be rare.
const FLUSH_AT_BYTES: u64 = 896 * 1024;
/// More bytes of entries than this are never in an oplog, but for a single larger change.
const ENTRIES_BYTES_MAX: u64 = 1024 * 1024;
const _: () = assert!(FLUSH_AT_BYTES < ENTRIES_BYTES_MAX);

/// Changes with at least so many nodes past the end write them to `tree` at once instead of journaling them.
const UNJOURNALED_NODES_MIN: usize = 256;
/// Most nodes before the end that one entry brings: more are brought by others before it.
const ENTRY_NODES_MAX: usize = 16 * 1024;

/// The files of one core. A test may bring its own.
pub struct CoreFiles {
    /// Where they are, for messages.
    pub directory: PathBuf,
    /// Headers and journal.
    pub oplog: Box<dyn BlockFile>,
    /// Nodes.
    pub tree: Box<dyn BlockFile>,
    /// Which blocks are here.
    pub bitfield: Box<dyn BlockFile>,
    /// Blocks.
    pub data: Box<dyn BlockFile>,
    /// A header too long for the oplog.
    pub header: Box<dyn BlockFile>,
}

/// An open core. Dropping it flushes it, as far as possible.
pub struct FileCore {
    core: DiscoveryKey,
    data: Data,
    tree: Tree,
    overlay: RwLock<Overlay>,
    /// Whether `overlay` may hold something: spares most reads the lock.
    overlaid: AtomicBool,
    writer: Mutex<Writer>,
    poison: Arc<Poison>,
}

/// The files as parts.
pub(super) struct Parts {
    pub(super) oplog: Part,
    pub(super) tree: Tree,
    pub(super) bitfield: Part,
    pub(super) data: Data,
    pub(super) header: Part,
}

impl FileCore {
    pub(super) fn core(&self) -> DiscoveryKey {
        self.core
    }

    /// Locks what commits need. Whoever holds several locks them in the order of their cores.
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    /// Refuses all work from now on.
    pub(super) fn poison(&self) {
        self.poison.set();
    }

    /// Writes the blocks and the manifest of a change to come.
    pub(super) fn stage(
        &self,
        writer: &mut Writer,
        early: CoreWrite,
        durability: Durability,
    ) -> Result<(), StorageError> {
        self.write(|| self.commit_with(writer, early, durability))
    }

    pub(super) fn check_poison(&self) -> Result<(), StorageError> {
        self.poison.check(&self.core)
    }

    /// Runs `work`, which writes; if it fails, memory and disk may differ from then on.
    fn write<T>(&self, work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        work().inspect_err(|_| self.poison())
    }

    /// Commits `write`, in two steps if it replaces history and brings blocks: the old blocks
    /// must not be overwritten before the new head is durable.
    pub(super) fn commit_in_order(
        &self,
        writer: &mut Writer,
        mut write: CoreWrite,
        durability: Durability,
    ) -> Result<(), StorageError> {
        if !writer.truncates(&write) || write.blocks.is_empty() {
            return self.commit_with(writer, write, durability);
        }
        let (set, cleared) = write.bits.into_iter().partition(|bits| bits.value);
        let blocks = CoreWrite {
            blocks: std::mem::take(&mut write.blocks),
            bits: set,
            ..CoreWrite::default()
        };
        write.bits = cleared;
        self.commit_with(writer, write, durability)?;
        self.commit_with(writer, blocks, durability)
    }

    fn commit_with(
        &self,
        writer: &mut Writer,
        mut write: CoreWrite,
        durability: Durability,
    ) -> Result<(), StorageError> {
        writer.durability = durability;
        let mut blocks = write.blocks.iter();
        blocks.try_for_each(|blocks| self.data.write(blocks))?;
        if let Some(manifest) = write.manifest.take() {
            // No entry can hold it. Known too early it does no harm: it follows from the key.
            writer.header.manifest = Some(manifest);
            self.flush_with(writer, durability)?;
        }
        let truncates = writer.truncates(&write);
        if !truncates && write.nodes.len() >= UNJOURNALED_NODES_MIN {
            self.write_nodes(writer, &mut write, durability)?;
        }
        self.journal(writer, &write, durability)?;
        self.apply(writer, write)?;
        if truncates {
            // What comes next may overwrite what was cut off.
            self.flush_with(writer, Durability::Sync)
        } else if writer.oplog.entries_len() >= FLUSH_AT_BYTES {
            self.flush_with(writer, durability)
        } else {
            Ok(())
        }
    }

    /// Writes the nodes of a large change that are past the end to their place.
    ///
    /// Until the commit the next open removes them. The roots are journaled too: without them no power cut, which may
    /// take the others, would leave a core that opens. Nodes of the tree as it is are journaled, and so
    /// written twice. That costs a reader of small blocks up to a fifth, a part of it for the flushes, each with four syncs, of a
    /// journal that fills sooner. What would be cheaper does not hold:
    ///
    /// - Half of a node, as a kill amid the write leaves it, would be taken for another one; and of those written before it
    ///   some lack the node above, as a file that is written from left to right has both kinds of parents: blocks held
    ///   against these could not be placed. Parents first would be a write for each node.
    /// - To check at the next open what was about to be written takes a note of where that was. An entry has no room for
    ///   one that hypercore 10 reads as nothing, and it would find the halves: it checks no node when it opens.
    /// - After the entry it does no harm, but saves only memory, and after a power cut in buffered mode the halves may be
    ///   there and the entry not.
    fn write_nodes(
        &self,
        writer: &mut Writer,
        write: &mut CoreWrite,
        durability: Durability,
    ) -> Result<(), StorageError> {
        let end = writer.header.head.length;
        let is_past = |node: &Node| flat_tree::end_block(node.index) > end;
        let (mut past, mut nodes): (Vec<_>, Vec<_>) = std::mem::take(&mut write.nodes)
            .into_iter()
            .partition(is_past);
        while nodes.len() > ENTRY_NODES_MAX {
            let early = CoreWrite {
                nodes: nodes.split_off(nodes.len() - ENTRY_NODES_MAX),
                ..CoreWrite::default()
            };
            self.commit_with(writer, early, durability)?;
        }
        if past.len() >= UNJOURNALED_NODES_MIN {
            // Nodes that an audit took away, in the journal as well: both would take these away again. Or the second
            // header is to come: by that, and later nodes, it is told when it was lost.
            let must_flush = self.overlay().hides_some() || writer.oplog.has_one_header();
            if must_flush {
                self.flush_with(writer, durability)?;
            }
            if !must_flush || writer.is_vouched {
                past.sort_unstable_by_key(|node| node.index);
                self.tree.write(past.iter())?;
                let length = write.head.as_ref().map_or(0, |head| head.head.length);
                let roots: Vec<u64> = flat_tree::full_roots(length).collect();
                past.retain(|node| roots.contains(&node.index));
            }
        }
        nodes.append(&mut past);
        write.nodes = nodes;
        Ok(())
    }

    /// Makes `write` durable: with the operating system, or on the device.
    fn journal(
        &self,
        writer: &mut Writer,
        write: &CoreWrite,
        durability: Durability,
    ) -> Result<(), StorageError> {
        let mut len = writer.oplog.prepare(write);
        if len > 0 && writer.oplog.entries_len() + len > ENTRIES_BYTES_MAX {
            self.flush_with(writer, durability)?;
            len = writer.oplog.prepare(write);
        }
        // What a truncate or a clear takes away must not be gone before it is known to be.
        let destructive = writer.truncates(write) || !write.freed.is_empty();
        let sync = durability == Durability::Sync || destructive;
        if sync {
            sync_places(&self.data, &self.tree, writer)?;
        }
        if len > 0 {
            writer.oplog.append_prepared()?;
        }
        if sync {
            writer.oplog.sync()?;
        }
        Ok(())
    }

    /// Makes `write` the state in memory.
    fn apply(&self, writer: &mut Writer, write: CoreWrite) -> Result<(), StorageError> {
        writer.unflushed = true;
        let truncates = writer.truncates(&write);
        if truncates || !write.nodes.is_empty() {
            let mut overlay = self.overlay_mut();
            if let Some(head) = write.head.as_ref().filter(|_| truncates) {
                overlay.truncate(head.ancestors);
            }
            overlay.insert(write.nodes);
            self.overlaid.store(true, Ordering::Release);
        }
        for bits in &write.bits {
            writer.bitfield.apply(bits)?;
        }
        for (key, value) in write.user_data {
            set_user_data(&mut writer.header.user_data, key, value);
        }
        if let Some(head) = write.head {
            writer.header.head = head.head;
            writer.is_vouched = true;
        }
        let mut freed = write.freed.into_iter();
        freed.try_for_each(|range| match truncates {
            // Nothing lies behind, but for what an append left that was cut off.
            true => self.data.cut(range.start),
            false => self.data.free(range),
        })
    }

    /// Frees what a truncate in the journal gave up, should a kill have come before: all behind what it kept, and behind the last
    /// block that came since. The log's `roots` are those that were signed: by one that was damaged, others would be gone.
    fn free_behind(&self, roots: &Roots) -> Result<(), StorageError> {
        let last = lock(&self.writer).bitfield.bits().prev_set(roots.length());
        self.check_poison()?; // bits that could not be read are not set
        let kept = self.overlay().cut().unwrap_or(roots.length());
        let end = last.map_or(kept, |last| kept.max(last + 1));
        match Descent::new(roots, &HashMap::new(), NodesOf(self)).byte_offset(2 * end)? {
            Ok(offset) => self.write(|| self.data.cut(offset)),
            Err(_) => Ok(()), // it stays until later blocks lie over it
        }
    }

    /// Whether the header may be written: one that names other roots than were signed must not take the place of the one that is
    /// there. Checks the signature once, if there were entries that changed the head.
    fn is_vouched(&self, writer: &mut Writer) -> bool {
        writer.is_vouched = writer.is_vouched || is_signed_as_stored(&writer.header, self);
        writer.is_vouched
    }

    /// Moves all entries to their places; they stay where they are if nobody knows the roots.
    fn flush_with(&self, writer: &mut Writer, durability: Durability) -> Result<(), StorageError> {
        if !self.is_vouched(writer) {
            return Ok(());
        }
        let length = writer.header.head.length;
        // Whoever finds nodes or bits without a header knows by this that it was lost later.
        writer.oplog.sync()?;
        let cut = self.settle_nodes(length)?;
        writer.bitfield.flush()?;
        // The header drops the entry by which the next open would free what a truncate gave up.
        if durability == Durability::Sync || cut {
            self.data.sync()?;
        }
        self.tree.sync()?;
        writer.bitfield.sync()?;
        writer.write_header(Durability::Sync)?;
        if cut {
            self.tree.cut(length)?;
        }
        self.overlay_mut().clear();
        self.overlaid.store(false, Ordering::Release);
        writer.unflushed = false;
        Ok(())
    }

    /// Writes what is journaled into the tree, and says whether more must go once the header
    /// names the new length.
    ///
    /// Until then the roots of the old length stay where they are unless the new tree has
    /// something else there: hypercore 10 looks for them before it reads the entries.
    fn settle_nodes(&self, length: u64) -> Result<bool, StorageError> {
        let overlay = self.overlay();
        if let Some(cut) = overlay.cut() {
            self.tree.blank(cut, length)?;
        }
        self.tree.write(overlay.nodes())?;
        Ok(overlay.cut().is_some())
    }

    fn overlay(&self) -> RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn overlay_mut(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreStorage for FileCore {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.check_poison()?;
        if !self.overlaid.load(Ordering::Acquire) {
            return self.tree.node(index);
        }
        let found = self.overlay().get(index);
        match found {
            Lookup::Here(node) => Ok(Some(node)),
            Lookup::Gone => Ok(None),
            Lookup::Unchanged => self.tree.node(index),
        }
    }

    fn next_node(&self, from: u64) -> Result<Option<u64>, StorageError> {
        self.check_poison()?;
        let stored = self.tree.next(from)?;
        Ok(self.overlay().next(from).into_iter().chain(stored).min())
    }

    fn locate(&self, roots: &Roots, index: u64) -> Result<Option<BlockPlace>, StorageError> {
        self.check_poison()?;
        if self.overlaid.load(Ordering::Acquire) {
            // The file alone knows a block whose leaf is in it, unless history was cut since.
            let overlay = self.overlay();
            let is_in_file = overlay.cut().is_none() && overlay.get(2 * index) == Lookup::Unchanged;
            drop(overlay);
            if !is_in_file {
                return BlockPlace::find(roots, &NodesOf(self), index);
            }
        }
        match self.tree.locate(index) {
            Ok(Some(place)) => Ok(Some(place)),
            // Its neighbours, or what takes the place of a damaged one, may be journaled.
            _ => BlockPlace::find(roots, &NodesOf(self), index),
        }
    }

    fn check(&self) -> Result<(), StorageError> {
        self.check_poison()
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        self.check_poison()?;
        self.data.read(byte_offset, size)
    }

    fn set_roots(&self, roots: &Roots) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        writer.header.head.root_hash = roots.hash();
        writer.is_vouched = true;
        writer.unflushed = writer.oplog.entries_len() > 0;
        let durability = writer.durability;
        drop(writer);
        let truncated = self.overlay().cut().is_some();
        if !truncated {
            return Ok(());
        }
        // As when it is opened.
        self.free_behind(roots)?;
        self.flush(durability)
    }

    fn commit(&self, write: CoreWrite, durability: Durability) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        self.check_poison()?;
        writer.check_header(&self.core, &write)?;
        self.write(|| self.commit_in_order(&mut writer, write, durability))
    }

    fn flush(&self, durability: Durability) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        self.check_poison()?;
        self.write(|| {
            if writer.unflushed {
                self.flush_with(&mut writer, durability)?;
            }
            if durability == Durability::Sync {
                sync_places(&self.data, &self.tree, &writer)?;
                writer.oplog.sync()?;
            }
            Ok(())
        })
    }
}

impl Drop for FileCore {
    fn drop(&mut self) {
        let durability = lock(&self.writer).durability;
        if self.check_poison().is_err() {
            return;
        }
        // Should it fail, the entries are still in the oplog.
        if let Err(error) = self.flush(durability) {
            tracing::warn!(core = %self.core, %error, "cannot flush a core while closing it");
        }
    }
}

impl Parts {
    pub(super) fn new(core: &DiscoveryKey, files: CoreFiles) -> Self {
        let part = |file, name: &str| Part::new(file, files.directory.join(name));
        Self {
            oplog: part(files.oplog, "oplog"),
            tree: Tree::new(*core, part(files.tree, "tree")),
            bitfield: part(files.bitfield, "bitfield"),
            data: Data::new(*core, part(files.data, "data")),
            header: part(files.header, "header"),
        }
    }

    /// Drops what is left of a core that a power cut took as it was created: the nodes of another history must
    /// not vouch for anything in this one.
    fn clear(&self) -> Result<(), StorageError> {
        self.tree.cut(0)?; // for good, before there is a header
        if self.data.len()? > 0 {
            self.data.clear()?;
        }
        for part in [&self.bitfield, &self.header] {
            if part.len()? > 0 {
                part.set_len(0)?;
            }
        }
        Ok(())
    }

    pub(super) fn read(
        &self,
        core: &DiscoveryKey,
        check: RootCheck,
    ) -> Result<Option<State>, StorageError> {
        let (oplog, header, bitfield) = (&self.oplog, &self.header, &self.bitfield);
        recovery::read(core, oplog, header, &self.tree, bitfield, check)
    }

    /// Syncs all files, the oplog last: its entries are of no use without what they stand on.
    fn sync(&self) -> Result<(), StorageError> {
        self.data.sync()?;
        self.tree.sync()?;
        self.bitfield.sync()?;
        self.header.sync()?;
        self.oplog.sync()
    }
}

/// Syncs everything but the oplog.
fn sync_places(data: &Data, tree: &Tree, writer: &Writer) -> Result<(), StorageError> {
    data.sync()?;
    tree.sync()?;
    writer.bitfield.sync()?;
    writer.header_file.sync()
}
