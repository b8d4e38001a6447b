//! Where bytes are in a draft: in the core's part, or in the draft's own blocks behind it.

use std::ops::Range;
use std::sync::Arc;

use super::{Base, Draft, Inner, State};
use crate::core::snapshot::{last_byte, span};
use crate::core::{ByteSpan, CoreError, Snapshot, Stored};
use crate::seek::{self, Position};
use crate::storage::lock;

/// In which part of a draft a byte is.
enum Part {
    /// In the core's.
    Below(Snapshot),
    /// Among its own blocks: here, block and offset.
    Own(u64, u64),
}

impl Draft {
    /// The block that holds byte `byte` and the offset in it, or `None` if the core's tree nodes on the way are
    /// not here; of the plaintext if the draft was opened through a handle that encrypts. The byte at the very
    /// end is in the block after the last.
    ///
    /// # Errors
    /// [`CoreError::BytePastEnd`]; [`CoreError::SnapshotNotAvailable`] if the core was cut below it;
    /// [`CoreError::Storage`].
    pub fn seek_local(&self, byte: u64) -> Result<Option<(u64, u64)>, CoreError> {
        loop {
            let moves = self.moves();
            let found = match self.part_of(byte) {
                Ok(Part::Own(index, offset)) => Ok(Some((index, offset))),
                Ok(Part::Below(below)) => below.seek_local(byte),
                Err(error) => Err(error),
            };
            if self.moves() == moves {
                return found;
            }
        }
    }

    /// As [`Draft::seek_local`], asking the core's suppliers for what is missing.
    ///
    /// # Errors
    /// As for [`Draft::seek_local`] and [`Core::seek`](crate::Core::seek).
    pub async fn seek(&self, byte: u64) -> Result<(u64, u64), CoreError> {
        loop {
            let moves = self.moves();
            let found = match self.part_of(byte) {
                Ok(Part::Own(index, offset)) => Ok((index, offset)),
                Ok(Part::Below(below)) => below.seek(byte).await,
                Err(error) => Err(error),
            };
            if self.moves() == moves {
                return found;
            }
        }
    }

    /// Where the bytes of `range` are, as far as the core's tree nodes that are here tell.
    ///
    /// # Errors
    /// As for [`Draft::seek_local`], and [`CoreError::MissingNodes`].
    pub fn byte_range_local(&self, range: Range<u64>) -> Result<ByteSpan, CoreError> {
        let missing = || CoreError::MissingNodes {
            core: self.core.key(),
            index: self.base_length().saturating_sub(1),
        };
        loop {
            let moves = self.moves();
            let find = |byte| self.seek_local(byte)?.ok_or_else(missing);
            let found = self.check_bytes(&range).and_then(|()| {
                let start = find(range.start)?;
                Ok(span(start, last_byte(&range).map(find).transpose()?))
            });
            if self.moves() == moves {
                return found;
            }
        }
    }

    /// As [`Draft::byte_range_local`], asking the core's suppliers for what is missing.
    ///
    /// # Errors
    /// As for [`Draft::seek`].
    pub async fn byte_range(&self, range: Range<u64>) -> Result<ByteSpan, CoreError> {
        loop {
            let moves = self.moves();
            self.check_bytes(&range)?;
            let start = self.seek(range.start).await?;
            let last = match last_byte(&range) {
                Some(byte) => Some(self.seek(byte).await?),
                None => None,
            };
            if self.moves() == moves {
                return Ok(span(start, last));
            }
        }
    }

    fn check_bytes(&self, range: &Range<u64>) -> Result<(), CoreError> {
        let core = self.core.key();
        match range.end.max(range.start) {
            byte if byte > self.byte_length()? => Err(CoreError::BytePastEnd { core, byte }),
            _ => Ok(()),
        }
    }

    fn moves(&self) -> u64 {
        lock(&self.inner.state).moves
    }

    fn part_of(&self, byte: u64) -> Result<Part, CoreError> {
        let state = lock(&self.inner.state);
        let padding = self.core.padding() as u64;
        let State { base, below, .. } = &*state;
        let below_bytes = unpadded(base.byte_length, base.length, padding);
        if byte < below_bytes {
            let below = below.as_ref();
            let below = below.ok_or_else(|| self.inner.gone(base.length - 1))?;
            return Ok(Part::Below(below.through(&self.core)));
        }
        let (index, offset) = self
            .inner
            .seek_own(base, byte - below_bytes, padding, byte)?;
        Ok(Part::Own(index, offset))
    }
}

impl Inner {
    /// Finds byte `rest` behind the core's part, which is byte `byte` of all.
    fn seek_own(
        &self,
        base: &Base,
        rest: u64,
        padding: u64,
        byte: u64,
    ) -> Result<(u64, u64), CoreError> {
        let past = || CoreError::BytePastEnd {
            core: self.plain.key(),
            byte,
        };
        let roots = Arc::clone(&self.own.inner.read().roots);
        let committed = (base.length - base.origin).min(roots.length());
        let before = self.own.checkout(committed)?.byte_length();
        let before = unpadded(before, committed, padding);
        let at = before.checked_add(rest).ok_or_else(past)?;
        let nodes = Stored(&*self.own.inner.storage);
        match seek::seek(&roots, &nodes, at, padding)? {
            Position::Block { index, offset } => {
                Ok(((base.origin + index).max(base.length), offset))
            }
            Position::Past => Err(past()),
            Position::Below { node, .. } | Position::Damaged { node, .. } => {
                Err(CoreError::CorruptBlock {
                    core: self.plain.key(),
                    index: base.origin + crate::flat_tree::first_block(node),
                })
            }
        }
    }
}

fn unpadded(bytes: u64, blocks: u64, padding: u64) -> u64 {
    bytes.saturating_sub(padding.saturating_mul(blocks))
}
