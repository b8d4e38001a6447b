//! The operations of a bee in the order they were made: one per block.

use std::ops;

use bytes::Bytes;

use crate::bee::Bee;
use crate::block::Entry;
use crate::error::BeeError;
use crate::reader::Tree;

/// Which operations to read. The default is all of them, oldest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryOptions {
    /// Only blocks from this one on.
    pub gte: u64,
    /// Only blocks before this one; `None` is up to the bee's version.
    pub lt: Option<u64>,
    /// Newest first.
    pub reverse: bool,
    /// Stop after so many operations.
    pub limit: Option<usize>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key got this value.
    Put(Entry),
    /// The key was deleted. A put of null shows as this when its batch rewrote the nodes around
    /// it later: nothing on the core tells them apart then.
    Del {
        /// Index of the block in the core.
        seq: u64,
        /// The deleted key.
        key: Bytes,
    },
}

/// A walk over the operations of a bee. Made by [`Bee::history`].
pub struct History {
    bee: Bee,
    options: HistoryOptions,
    remaining: usize,
    walk: Option<(Tree, ops::Range<u64>)>,
}

impl History {
    pub(crate) fn new(bee: Bee, options: HistoryOptions) -> Self {
        Self {
            bee,
            options,
            remaining: options.limit.unwrap_or(usize::MAX),
            walk: None,
        }
    }

    /// The next operation, or `None` after the last. The version walked over is that of the bee
    /// at the first call. Dropping the future loses no operation.
    ///
    /// # Errors
    /// As for [`Bee::get`].
    pub async fn next(&mut self) -> Result<Option<Change>, BeeError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let walk = match self.walk.take() {
            Some(walk) => walk,
            None => self.start().await?,
        };
        let (tree, seqs) = self.walk.insert(walk);
        let mut rest = seqs.clone();
        let seq = if self.options.reverse {
            rest.next_back()
        } else {
            rest.next()
        };
        let Some(seq) = seq else {
            return Ok(None);
        };
        let change = change(tree, seq).await?;
        *seqs = rest;
        self.remaining -= 1;
        Ok(Some(change))
    }

    async fn start(&self) -> Result<(Tree, ops::Range<u64>), BeeError> {
        let tree = self.bee.tree().await?;
        let version = tree.version();
        let end = self.options.lt.map_or(version, |lt| lt.min(version));
        Ok((tree, self.options.gte.max(1)..end))
    }
}

async fn change(tree: &Tree, seq: u64) -> Result<Change, BeeError> {
    let block = tree.block(seq).await?;
    let is_deletion = block
        .is_deletion(seq)
        .map_err(|reason| BeeError::Corrupt { seq, reason })?;
    let entry = block.into_entry(seq);
    if is_deletion {
        let Entry { seq, key, .. } = entry;
        return Ok(Change::Del { seq, key });
    }
    Ok(Change::Put(entry))
}
