//! Views of a core that stay as they are while the core goes on.
//!
//! A snapshot holds roots, not blocks: it reads the blocks of the core, which are the same as long
//! as the core's history is. When that is cut, the snapshot knows how short, and what lay behind
//! is gone from it too. (In JavaScript a snapshot keeps what was stored here; a v10 store has one
//! place for each byte.)

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::hash::Hash;

use super::cuts::Cut;
use super::{ByteSpan, Core, CoreError, Stored};
use crate::descent::Broken;
use crate::flat_tree;
use crate::merkle::{Node, Roots};
use crate::seek::{self, NodeSource, Position};
use crate::storage::StorageError;

/// A core at one fork and length, for reading.
///
/// It keeps the core open. Blocks that are not here come from suppliers, as for the core.
///
/// # Examples
/// ```
/// use ferrocore_log::{CoreError, Corestore};
///
/// let core = Corestore::memory().get_named("log")?;
/// core.append_batch(vec!["a".into(), "b".into()])?;
/// let snapshot = core.snapshot();
/// core.append("c")?;
/// assert_eq!(snapshot.length(), 2);
///
/// core.truncate(1, None)?;
/// core.append("another b")?;
/// assert_eq!((core.fork(), core.length()), (1, 2));
/// assert_eq!(snapshot.get_local(0)?.unwrap(), "a");
/// let gone = snapshot.get_local(1);
/// assert!(matches!(gone, Err(CoreError::SnapshotNotAvailable { compat_length: 1, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    core: Core,
    fork: u64,
    roots: Arc<Roots>,
    cut: Arc<Cut>,
}

impl Core {
    /// The core as it is now.
    pub fn snapshot(&self) -> Snapshot {
        let shared = self.inner.read();
        Snapshot {
            core: self.clone(),
            fork: shared.fork,
            roots: Arc::clone(&shared.roots),
            cut: self.inner.cuts.watch(shared.being_cut_to),
        }
    }

    /// The first `length` blocks of the core as it is now.
    ///
    /// # Errors
    /// As for [`Core::tree_hash_at`].
    pub fn checkout(&self, length: u64) -> Result<Snapshot, CoreError> {
        self.uncut(|snapshot| {
            let (fork, roots) = self.inner.roots_at(length)?;
            if snapshot.cut.length() < length {
                return Err(snapshot.not_available(length - 1)); // the roots are of who knows when
            }
            Ok(Snapshot {
                fork,
                roots,
                ..snapshot.clone()
            })
        })
    }

    /// What `read` finds in a snapshot that is not cut meanwhile.
    pub(super) fn uncut<T>(
        &self,
        read: impl Fn(&Snapshot) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        loop {
            match read(&self.snapshot()) {
                Err(CoreError::SnapshotNotAvailable { .. }) => drop(self.inner.lock_writer()),
                result => return result,
            }
        }
    }
}

impl Snapshot {
    /// The core this is a view of.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Blocks, whether they are here or not, and whether the core still has them or not.
    pub fn length(&self) -> u64 {
        self.roots.length()
    }

    /// Bytes of all blocks; of their plaintext if the handle decrypts.
    pub fn byte_length(&self) -> u64 {
        self.core.byte_length_of(&self.roots)
    }

    /// Which history this is of.
    pub fn fork(&self) -> u64 {
        self.fork
    }

    /// Hash over the roots.
    pub fn tree_hash(&self) -> Hash {
        self.roots.hash()
    }

    /// How many blocks the core still has in common with this view: all, unless its history was
    /// cut before.
    pub fn compat_length(&self) -> u64 {
        self.length().min(self.cut.length())
    }

    /// The same view through another handle on the core, which may decrypt.
    pub(super) fn through(&self, core: &Core) -> Self {
        let core = core.clone();
        Self {
            core,
            ..self.clone()
        }
    }

    /// The first `length` blocks of this view.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`], [`CoreError::SnapshotNotAvailable`],
    /// [`CoreError::MissingNodes`], [`CoreError::Storage`].
    pub fn checkout(&self, length: u64) -> Result<Self, CoreError> {
        if length == self.length() {
            return Ok(self.clone());
        }
        let Some(last) = length.checked_sub(1) else {
            let roots = Arc::default();
            return Ok(Self {
                roots,
                ..self.clone()
            });
        };
        self.check(last)?;
        let found = self.core.inner.roots_at(length);
        self.check(last)?;
        let (_, roots) = found?;
        Ok(Self {
            roots,
            ..self.clone()
        })
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether block `index` is in this view and can be read without a supplier.
    pub fn has(&self, index: u64) -> bool {
        let bits = self.core.inner.bits();
        index < self.settled_compat_length() && bits.get(index)
    }

    /// Block `index` if it is here.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`], [`CoreError::SnapshotNotAvailable`], and as for
    /// [`Core::get_local`].
    pub fn get_local(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let stored = self.get_raw(index)?;
        stored
            .map(|stored| self.core.open_block(index, stored))
            .transpose()
    }

    /// As [`Snapshot::get_local`], but never decrypted.
    ///
    /// # Errors
    /// As for [`Snapshot::get_local`].
    pub fn get_raw(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let inner = &*self.core.inner;
        self.check(index)?;
        if !inner.bits().get(index) {
            inner.storage.check()?;
            self.check(index)?;
            return Ok(None);
        }
        let block = inner.read_block(&self.roots, index);
        // Only now is it certain that what was read is of this history.
        self.check(index)?;
        match block {
            // It was cleared meanwhile, and may be here again.
            Err(_) => self.read_undisturbed(index),
            block => block.map(Some),
        }
    }

    /// Block `index`, from a supplier if it is not here; as [`Core::get`].
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`], [`CoreError::SnapshotNotAvailable`], [`CoreError::NoPeers`],
    /// and as for [`Core::get_local`].
    pub async fn get(&self, index: u64) -> Result<Bytes, CoreError> {
        if let Some(block) = self.get_local(index)? {
            return Ok(block);
        }
        let _want = self.core.want_block(index);
        let supply = &self.core.inner.supply;
        loop {
            let progress = supply.listen();
            if let Some(block) = self.get_local(index)? {
                return Ok(block);
            }
            if supply.is_hopeless() {
                let core = self.core.key();
                return Err(CoreError::NoPeers { core, index });
            }
            progress.await;
        }
    }

    /// The block that holds byte `byte` and the offset in it, or `None` if the tree nodes on the
    /// way are not here.
    ///
    /// # Errors
    /// [`CoreError::BytePastEnd`], [`CoreError::SnapshotNotAvailable`], [`CoreError::MissingNodes`] once the log was cut below
    /// this view, [`CoreError::Storage`].
    pub fn seek_local(&self, byte: u64) -> Result<Option<(u64, u64)>, CoreError> {
        match self.find(byte)? {
            Found::At(index, offset) => Ok(Some((index, offset))),
            Found::Near { node, cause, .. } => match cause {
                Cause::Missing => Ok(None),
                Cause::Damage => Err(self.damaged(node)),
            },
        }
    }

    /// As [`Snapshot::seek_local`], asking suppliers for what is missing of the tree; or, if none can
    /// tell, fetching blocks until their paths show where the byte is.
    ///
    /// # Errors
    /// As for [`Snapshot::seek_local`] and [`Snapshot::get`].
    pub async fn seek(&self, byte: u64) -> Result<(u64, u64), CoreError> {
        let (mut asked, mut fetched) = (None, None);
        loop {
            match self.find_async(byte).await? {
                Found::At(index, offset) => return Ok((index, offset)),
                Found::Near { node, index, cause } => {
                    // Between two leaves only a block decides: their parent proves just the sum of their
                    // sizes. And what was of no use once is not tried again for the same node.
                    let may_ask = flat_tree::depth(node) > 1 && asked.replace(node) != Some(node);
                    if may_ask && self.core.find_byte(byte, node, index).await {
                        continue;
                    }
                    if fetched.replace(node) == Some(node) {
                        return Err(match cause {
                            Cause::Missing => {
                                let core = self.core.key();
                                CoreError::CorruptBlock { core, index } // its path is gone
                            }
                            Cause::Damage => self.damaged(node),
                        });
                    }
                    self.get(index).await?;
                }
            }
        }
    }

    /// Where the bytes of `range` are; as [`Core::byte_range_local`].
    ///
    /// # Errors
    /// As for [`Core::byte_range_local`], and [`CoreError::SnapshotNotAvailable`].
    pub fn byte_range_local(&self, range: Range<u64>) -> Result<ByteSpan, CoreError> {
        self.check_bytes(&range)?;
        let core = self.core.key();
        let find = |byte| match self.find(byte)? {
            Found::At(index, offset) => Ok((index, offset)),
            Found::Near { node, index, cause } => Err(match cause {
                Cause::Missing => CoreError::MissingNodes { core, index },
                Cause::Damage => self.damaged(node),
            }),
        };
        let start = find(range.start)?;
        let end = last_byte(&range).map(find).transpose()?;
        Ok(span(start, end))
    }

    /// As [`Snapshot::byte_range_local`], fetching blocks until their paths show where the bytes
    /// are.
    ///
    /// # Errors
    /// [`CoreError::BytePastEnd`], and as for [`Snapshot::get`].
    pub async fn byte_range(&self, range: Range<u64>) -> Result<ByteSpan, CoreError> {
        self.check_bytes(&range)?;
        let start = self.seek(range.start).await?;
        let end = match last_byte(&range) {
            Some(byte) => Some(self.seek(byte).await?),
            None => None,
        };
        Ok(span(start, end))
    }

    /// Of the nodes below `node`, which is right.
    fn damaged(&self, node: u64) -> CoreError {
        self.core.inner.broken(Broken::Wrong(node)).into()
    }

    fn check_bytes(&self, range: &Range<u64>) -> Result<(), CoreError> {
        let core = self.core.key();
        match range.end.max(range.start) {
            byte if byte > self.byte_length() => Err(CoreError::BytePastEnd { core, byte }),
            _ => Ok(()),
        }
    }

    /// Whether block `index` is in this view and was not cut off.
    fn check(&self, index: u64) -> Result<(), CoreError> {
        let (core, length) = (self.core.key(), self.length());
        if index >= length {
            return Err(CoreError::OutOfBounds {
                core,
                index,
                length,
            });
        }
        match index < self.settled_compat_length() {
            true => Ok(()),
            false => Err(self.not_available(index)),
        }
    }

    /// The compat length, so that whoever finds it unchanged after a read has read nothing of
    /// another history: the lock orders this behind a cut whose changes may have been read.
    fn settled_compat_length(&self) -> u64 {
        let _shared = self.core.inner.read();
        self.compat_length()
    }

    fn not_available(&self, index: u64) -> CoreError {
        CoreError::SnapshotNotAvailable {
            core: self.core.key(),
            index,
            compat_length: self.compat_length(),
        }
    }

    /// Reads block `index` while nobody changes the core.
    fn read_undisturbed(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let inner = &*self.core.inner;
        let _writer = inner.lock_writer();
        self.check(index)?;
        if !inner.bits().get(index) {
            inner.storage.check()?;
            return Ok(None);
        }
        inner.read_block_here(&self.roots, index)
    }

    fn find(&self, byte: u64) -> Result<Found, CoreError> {
        loop {
            match self.try_find(byte)? {
                Some(found) => return Ok(found),
                None => drop(self.core.inner.lock_writer()), // until the log is cut
            }
        }
    }

    /// As [`Snapshot::find`], but the thread does not wait while the log is being cut: that takes as long as the device does.
    async fn find_async(&self, byte: u64) -> Result<Found, CoreError> {
        loop {
            let progress = self.core.inner.supply.listen();
            match self.try_find(byte)? {
                Some(found) => return Ok(found),
                None => progress.await,
            }
        }
    }

    /// Finds a byte, unless the log is just being cut below this view.
    fn try_find(&self, byte: u64) -> Result<Option<Found>, CoreError> {
        loop {
            let (fork, compat_length) = (self.core.fork(), self.compat_length());
            let found = self.find_before(compat_length, byte);
            if self.settled_compat_length() == compat_length {
                if let Ok(Some(Found::Near { node, cause, .. })) = &found
                    && matches!(cause, Cause::Damage)
                {
                    self.core.inner.doubt_below(fork, *node);
                }
                return found;
            }
        }
    }

    /// Finds a byte of the first `length` blocks; `None` as for [`Snapshot::try_find`].
    fn find_before(&self, length: u64, byte: u64) -> Result<Option<Found>, CoreError> {
        let padding = self.core.padding() as u64;
        let nodes = Uncut {
            nodes: Stored(&*self.core.inner.storage),
            length,
        };
        let is_whole = length == self.length();
        let roots = match is_whole {
            true => Arc::clone(&self.roots),
            // The roots of the cut log are here: it was signed with them.
            false => match self.core.inner.try_roots_at(length)? {
                Some((_, roots)) => roots,
                None => return Ok(None),
            },
        };
        let size = |node| -> Result<Option<u64>, StorageError> {
            let node = nodes.node(node)?;
            Ok(node.map(|node| seek::unpadded(&node, padding)))
        };
        let found = match seek::seek(&roots, &nodes, byte, padding)? {
            Position::Block { index, .. } if index >= length && !is_whole => {
                Err(self.not_available(index))
            }
            Position::Block { index, offset } => Ok(Found::At(index, offset)),
            Position::Past if !is_whole => Err(self.not_available(length)),
            Position::Past => Err(CoreError::BytePastEnd {
                core: self.core.key(),
                byte,
            }),
            Position::Below { node, bytes } => {
                let index = guess(node, bytes, size(node)?);
                let cause = Cause::Missing;
                Ok(Found::Near { node, index, cause })
            }
            Position::Damaged { node, bytes } => {
                let index = guess(node, bytes, size(node)?);
                let cause = Cause::Damage;
                Ok(Found::Near { node, index, cause })
            }
        };
        found.map(Some)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("core", &self.core.key())
            .field("fork", &self.fork)
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

/// Where a byte is, or what to fetch to learn it.
enum Found {
    /// Block and offset.
    At(u64, u64),
    /// Somewhere below `node`, perhaps in block `index`; and why nobody can tell.
    Near { node: u64, index: u64, cause: Cause },
}

/// Why what is here does not tell where a byte is.
#[derive(Clone, Copy)]
enum Cause {
    Missing,
    Damage,
}

/// Nodes of which all blocks lie before a cut.
struct Uncut<'a> {
    nodes: Stored<'a>,
    length: u64,
}

impl NodeSource for Uncut<'_> {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        match flat_tree::end_block(index) <= self.length {
            true => self.nodes.node(index),
            false => Ok(None),
        }
    }
}

pub(super) fn last_byte(range: &Range<u64>) -> Option<u64> {
    (!range.is_empty()).then(|| range.end - 1)
}

/// The span from the place of the first byte to that of the last, if there is one.
pub(super) fn span((first, skip): (u64, u64), last: Option<(u64, u64)>) -> ByteSpan {
    let (end, last_end) = last.map_or((first, skip), |(index, offset)| (index + 1, offset + 1));
    ByteSpan {
        blocks: first..end,
        skip,
        last_end,
    }
}

/// The block below `node` that holds byte `bytes` of it if all blocks are of one size. Its
/// path splits the subtree, so every guess narrows the search.
fn guess(node: u64, bytes: u64, size: Option<u64>) -> u64 {
    let (first, leaves) = (flat_tree::first_block(node), flat_tree::leaves(node));
    let size = u128::from(size.unwrap_or(0).max(1));
    let place = u128::from(bytes) * u128::from(leaves) / size;
    first + u64::try_from(place).unwrap_or(0).min(leaves - 1)
}
