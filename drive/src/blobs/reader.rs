//! Reading a blob front to back, a block at a time, while the next ones are on their way.

use std::collections::VecDeque;
use std::iter;
use std::ops::{Bound, Range, RangeBounds};

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::core::Download;

use super::{BLOCK_BYTES, BlobError, block_map};
use crate::DriveError;
use crate::entry::BlobId;

/// How many blocks ahead of the reader are wanted from suppliers: 4 MiB of full blocks.
pub const PREFETCH_BLOCKS: u64 = 64;

/// How many blocks are read and hashed together where they are here: their hashes are computed side by side.
const BLOCKS_TOGETHER: u64 = 4;

/// The bytes of a blob, or of a range of it. At most four blocks are in memory, or one that is longer than those
/// of a blob usually are.
#[derive(Debug)]
pub struct BlobReader {
    core: Core,
    id: BlobId,
    /// Blocks that were read before their turn: the next ones.
    ready: VecDeque<Bytes>,
    /// Blocks to come, in order; those in `ready` are still among them.
    runs: VecDeque<Range<u64>>,
    /// Bytes of the next block that lie before the range.
    skip: u64,
    /// Bytes of the range to come.
    remaining: u64,
    prefetch: Option<Prefetch>,
}

/// Wanted blocks of one run.
#[derive(Debug)]
struct Prefetch {
    end: u64,
    _want: Download,
}

impl BlobReader {
    pub(super) async fn open(
        core: &Core,
        id: &BlobId,
        range: impl RangeBounds<u64>,
    ) -> Result<Self, DriveError> {
        let mut reader = Self {
            core: core.clone(),
            id: *id,
            ready: VecDeque::new(),
            runs: VecDeque::new(),
            skip: 0,
            remaining: 0,
            prefetch: None,
        };
        if id.block_map {
            let map = block_map::read(core, id).await?;
            let range = clamp(range, map.byte_length());
            let (runs, skip) = map.seek(range.start);
            reader.place(runs, skip, &range);
        } else {
            let range = clamp(range, id.byte_length);
            let (first, skip) = find(core, id, &range).await?;
            reader.place(iter::once(first..id.blocks().end), skip, &range);
        }
        Ok(reader)
    }

    /// The next bytes, at least one; `None` at the end.
    ///
    /// # Errors
    /// The core's, and [`BlobError::WrongLength`] if the blob ends early.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DriveError> {
        while self.remaining > 0 {
            let bytes = self.next_block().await?;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Bytes still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// All bytes to come, in one piece.
    ///
    /// # Errors
    /// As for [`BlobReader::next`].
    pub async fn read_to_end(mut self) -> Result<Bytes, DriveError> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        if self.remaining == 0 {
            return Ok(first);
        }
        let mut bytes = first.to_vec();
        while let Some(more) = self.next().await? {
            bytes.extend_from_slice(&more);
        }
        Ok(bytes.into())
    }

    fn place(&mut self, runs: impl IntoIterator<Item = Range<u64>>, skip: u64, range: &Range<u64>) {
        self.runs = runs.into_iter().collect();
        self.skip = skip;
        self.remaining = range.end - range.start;
    }

    async fn next_block(&mut self) -> Result<Bytes, DriveError> {
        let index = self.advance().ok_or_else(|| self.wrong_length())?;
        let here = match self.ready.pop_front() {
            Some(block) => Some(block),
            None => self.read_together(index)?,
        };
        if here.is_none() || self.prefetch.is_some() {
            self.prefetch(index);
        }
        let mut block = match here {
            Some(block) => block,
            None => self.core.get(index).await?,
        };
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
        block = block.split_off(skip.min(block.len()));
        self.skip = 0;
        if block.len() as u64 > self.remaining {
            block.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        }
        self.remaining -= block.len() as u64;
        Ok(block)
    }

    /// Block `index`, which was taken off its run, if it is here; and those of its run behind it that are wanted and
    /// here, too, as far as [`BLOCKS_TOGETHER`].
    fn read_together(&mut self, index: u64) -> Result<Option<Bytes>, DriveError> {
        let bytes = self.remaining.saturating_add(self.skip);
        let wanted = bytes.div_ceil(BLOCK_BYTES as u64).min(BLOCKS_TOGETHER);
        let run_end = self.runs.front().map_or(index + 1, |run| run.end);
        let end = run_end.min(index.saturating_add(wanted));
        let indexes: Vec<_> = (index..end).collect();
        let room = indexes.len() * BLOCK_BYTES;
        let mut blocks = self.core.get_local_all(&indexes, room).into_iter();
        let first = blocks.next().transpose()?.flatten();
        // What is wrong with a later one is told in its turn.
        self.ready
            .extend(blocks.map_while(|block| block.ok().flatten()));
        Ok(first)
    }

    /// Takes the next block's index off the runs.
    fn advance(&mut self) -> Option<u64> {
        loop {
            let run = self.runs.front_mut()?;
            if let Some(index) = run.next() {
                return Some(index);
            }
            self.runs.pop_front();
            self.prefetch = None;
        }
    }

    /// Wants what follows `index` in its run, unless enough of it is wanted already.
    fn prefetch(&mut self, index: u64) {
        let end = self.runs.front().map_or(index + 1, |run| run.end);
        let ahead = end.min(index.saturating_add(PREFETCH_BLOCKS));
        let wanted = self
            .prefetch
            .as_ref()
            .map_or(index, |prefetch| prefetch.end);
        let half = PREFETCH_BLOCKS / 2;
        if wanted.saturating_sub(index) <= half && wanted < end {
            self.prefetch = Some(Prefetch {
                end: ahead,
                _want: self.core.download(index..ahead),
            });
        }
    }

    fn wrong_length(&self) -> DriveError {
        BlobError::WrongLength {
            block_offset: self.id.block_offset,
            byte_length: self.id.byte_length,
        }
        .into()
    }
}

/// The block that holds the first byte of `range`, and the byte's offset in it.
async fn find(core: &Core, id: &BlobId, range: &Range<u64>) -> Result<(u64, u64), DriveError> {
    if range.start == 0 || range.is_empty() {
        return Ok((id.block_offset, 0));
    }
    let byte = id.byte_offset.saturating_add(range.start);
    let (index, offset) = core.seek(byte).await?;
    if id.blocks().contains(&index) {
        return Ok((index, offset));
    }
    Err(BlobError::WrongLength {
        block_offset: id.block_offset,
        byte_length: id.byte_length,
    }
    .into())
}

/// `range` within `0..length`.
fn clamp(range: impl RangeBounds<u64>, length: u64) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => length,
    };
    let end = end.min(length);
    start.min(end)..end
}
