//! Questions that need no block: what is here, what is signed, where bytes are.

use std::ops::Range;
use std::sync::Arc;

use ferrocore_primitives::hash::Hash;

use super::{Core, CoreError, Inner, Stored};
use crate::bitfield::Bitfield;
use crate::descent::{self, Broken};
use crate::flat_tree;
use crate::merkle::Roots;
use crate::storage::{Head, StorageError};

/// Where the bytes of a range are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteSpan {
    /// The blocks that hold them; empty for an empty range.
    pub blocks: Range<u64>,
    /// Bytes of the first block before them.
    pub skip: u64,
    /// Bytes of the last block up to their end.
    pub last_end: u64,
}

impl Core {
    /// Whether block `index` is here. Should storage be unable to tell, it says no, and refuses work from
    /// then on; so do the other questions.
    pub fn has(&self, index: u64) -> bool {
        self.inner.bits().get(index)
    }

    /// Whether all blocks of `range` are here; so it is for an empty one.
    pub fn has_range(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.inner.bits().next_unset(range.start) >= range.end
    }

    /// How many blocks of `range` are here.
    pub fn count(&self, range: Range<u64>) -> u64 {
        self.inner.bits().count(range)
    }

    /// Asks `question` of the bits of the blocks that are here, as they are now.
    pub fn with_bitfield<T>(&self, question: impl FnOnce(&Bitfield) -> T) -> T {
        question(&self.inner.bits())
    }

    /// Hash over the roots.
    pub fn tree_hash(&self) -> Hash {
        self.inner.read().roots.hash()
    }

    /// Hash over the roots of the first `length` blocks: what a signer of that length signs.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`] if the log is shorter; [`CoreError::MissingNodes`] if the roots
    /// are not here, which fetching block `length - 1` brings; [`CoreError::Storage`].
    pub fn tree_hash_at(&self, length: u64) -> Result<Hash, CoreError> {
        Ok(self.inner.roots_at(length)?.1.hash())
    }

    /// Fork and length, of one moment: asked for one after the other, a truncate may come between.
    pub fn fork_and_length(&self) -> (u64, u64) {
        let shared = self.inner.read();
        (shared.fork, shared.roots.length())
    }

    /// The signed head: all of one moment.
    pub fn head(&self) -> Head {
        let shared = self.inner.read();
        Head {
            fork: shared.fork,
            length: shared.roots.length(),
            root_hash: shared.roots.hash(),
            signature: shared.signature.clone(),
        }
    }

    /// Where the bytes of `range` are, as far as the tree nodes that are here tell.
    ///
    /// # Errors
    /// [`CoreError::BytePastEnd`] if the log ends before the range does,
    /// [`CoreError::MissingNodes`] with a block whose path narrows the search,
    /// [`CoreError::Storage`].
    pub fn byte_range_local(&self, range: Range<u64>) -> Result<ByteSpan, CoreError> {
        self.uncut(|snapshot| snapshot.byte_range_local(range.clone()))
    }

    /// As [`Core::byte_range_local`], fetching blocks until their paths show where the bytes are.
    ///
    /// # Errors
    /// [`CoreError::BytePastEnd`], and as for [`Core::get`].
    pub async fn byte_range(&self, range: Range<u64>) -> Result<ByteSpan, CoreError> {
        loop {
            match self.snapshot().byte_range(range.clone()).await {
                Err(CoreError::SnapshotNotAvailable { .. }) => {}
                result => return result,
            }
        }
    }
}

impl Inner {
    /// The roots of the first `length` blocks, and the fork of which they are. Waits for a cut that is under way.
    pub(super) fn roots_at(&self, length: u64) -> Result<(u64, Arc<Roots>), CoreError> {
        loop {
            match self.try_roots_at(length)? {
                Some(found) => return Ok(found),
                None => drop(self.lock_writer()), // whoever cuts the log is done after this
            }
        }
    }

    /// As [`Inner::roots_at`], but `None` while the log is being cut.
    pub(super) fn try_roots_at(&self, length: u64) -> Result<Option<(u64, Arc<Roots>)>, CoreError> {
        let (fork, current) = {
            let shared = self.read();
            (shared.fork, Arc::clone(&shared.roots))
        };
        if length == current.length() {
            return Ok(Some((fork, current)));
        }
        if length > current.length() {
            return Err(CoreError::OutOfBounds {
                core: self.key,
                index: length,
                length: current.length(),
            });
        }
        let roots = self.roots_within(&current, length);
        match self.is_still_on(fork) {
            true => Ok(Some((fork, Arc::new(roots?)))),
            false => Ok(None),
        }
    }

    /// The roots of the first `length` blocks of the log, which has `current`: those are signed, and so these are proven.
    pub(super) fn roots_within(&self, current: &Roots, length: u64) -> Result<Roots, CoreError> {
        match descent::roots_at(current, &Stored(&*self.storage), length)? {
            Ok(roots) => Ok(roots),
            Err(Broken::Missing(node)) => Err(CoreError::MissingNodes {
                core: self.key,
                index: self.block_that_brings(node, length),
            }),
            Err(broken) => Err(self.broken(broken).into()),
        }
    }

    /// The block to fetch for the roots of the first `length` blocks, for which `node` is missing: the last of them has all of these
    /// on its path. Where it is here, none comes for it; then one below that node.
    fn block_that_brings(&self, node: u64, length: u64) -> u64 {
        let (bits, last) = (self.bits(), length.saturating_sub(1));
        if !bits.get(last) {
            return last;
        }
        let first = flat_tree::first_block(node);
        let absent = bits.next_unset(first);
        match absent < flat_tree::end_block(node) {
            true => absent,
            false => first,
        }
    }

    /// The error of a tree in which this was found.
    pub(super) fn broken(&self, broken: Broken) -> StorageError {
        let (offset, reason) = match broken {
            Broken::Missing(node) => (node, format!("node {node} is missing")),
            Broken::Wrong(node) => (node, format!("the nodes below node {node} do not make it")),
        };
        StorageError::Corrupt {
            core: self.discovery_key,
            part: "tree",
            offset,
            reason,
        }
    }
}
