//! Reading a log block by block or as bytes, and writing one, a few blocks at a time.
//!
//! No stream needs a runtime: each has a `next` to await. What lies ahead is wanted from
//! suppliers before it is asked for, at most [`PREFETCH_BLOCKS_MAX`] blocks of it.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::append::check_sizes;
use super::cuts::Cut;
use super::{Core, CoreError, Download, Snapshot};
use crate::limits::{PREFETCH_BLOCKS_MAX, SINK_BLOCKS_MAX, SINK_BYTES_MAX};

/// The blocks of a log, in order. Made by [`Core::read_stream`], [`Core::live_stream`] and
/// [`Snapshot::read_stream`].
#[must_use = "it reads nothing until `next` is awaited"]
#[derive(Debug)]
pub struct ReadStream {
    source: Source,
    next: u64,
    /// Where it ends, at the latest.
    end: u64,
    ahead: Ahead,
}

#[derive(Debug)]
enum Source {
    /// The log as it will be when the first block is asked for.
    Latest(Core),
    Fixed(Snapshot),
    /// The log for good.
    Live(Core, Arc<Cut>),
}

/// The bytes of a log, in order. Made by [`Core::byte_stream`] and [`Snapshot::byte_stream`].
#[must_use = "it reads nothing until `next` is awaited"]
#[derive(Debug)]
pub struct ByteStream {
    source: Source,
    range: Range<u64>,
    /// The blocks, once it is known where the first byte is.
    blocks: Option<ReadStream>,
    /// Bytes of the next block that lie before the range.
    skip: u64,
    /// Bytes to come.
    remaining: u64,
}

/// Appends blocks a batch at a time. Made by [`Core::sink`].
///
/// What is dropped without [`Sink::flush`] is not appended: there would be nobody to tell that it
/// failed.
#[must_use = "what is not flushed is not appended"]
#[derive(Debug)]
pub struct Sink {
    core: Core,
    blocks: Vec<Bytes>,
    bytes: usize,
}

impl Core {
    /// The blocks of `range`, as far as the log goes when the first is asked for; suppliers are
    /// asked for a newer length before. They are of one history: if it is cut meanwhile, the
    /// stream ends in [`CoreError::SnapshotNotAvailable`].
    ///
    /// # Examples
    /// ```
    /// # pollster::block_on(async {
    /// use ferrocore_log::Corestore;
    ///
    /// let core = Corestore::memory().get_named("log")?;
    /// core.append_batch(vec!["a".into(), "b".into(), "c".into()])?;
    /// let mut blocks = core.read_stream(1..);
    /// while let Some(block) = blocks.next().await? {
    ///     println!("{block:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn read_stream(&self, range: impl RangeBounds<u64>) -> ReadStream {
        ReadStream::new(Source::Latest(self.clone()), &range)
    }

    /// The blocks from `start` on, those of the future too: it never ends, but in
    /// [`CoreError::HistoryChanged`] if the log is cut before a block that it has given.
    pub fn live_stream(&self, start: u64) -> ReadStream {
        let cut = self.inner.cuts.watch(None);
        ReadStream::new(Source::Live(self.clone(), cut), &(start..))
    }

    /// The bytes of `range`, as [`Core::read_stream`] gives blocks; of the plaintext if this
    /// handle decrypts.
    pub fn byte_stream(&self, range: impl RangeBounds<u64>) -> ByteStream {
        ByteStream::new(Source::Latest(self.clone()), &range)
    }

    /// Gathers blocks to append them together.
    pub fn sink(&self) -> Sink {
        Sink {
            core: self.clone(),
            blocks: Vec::new(),
            bytes: 0,
        }
    }
}

impl Snapshot {
    /// The blocks of `range`, as far as the view goes.
    pub fn read_stream(&self, range: impl RangeBounds<u64>) -> ReadStream {
        ReadStream::new(Source::Fixed(self.clone()), &range)
    }

    /// The bytes of `range`, as far as the view goes.
    pub fn byte_stream(&self, range: impl RangeBounds<u64>) -> ByteStream {
        ByteStream::new(Source::Fixed(self.clone()), &range)
    }
}

impl ReadStream {
    fn new(source: Source, range: &impl RangeBounds<u64>) -> Self {
        let Range { start, end } = bounds(range);
        Self {
            source,
            next: start,
            end,
            ahead: Ahead::default(),
        }
    }

    /// The next block, or `None` after the last. Dropping the future loses none.
    ///
    /// # Errors
    /// As for [`Core::get`] and [`Snapshot::get`], and [`CoreError::HistoryChanged`] of a live
    /// stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CoreError> {
        self.source.fix().await?;
        let block = match &self.source {
            Source::Live(core, cut) => live_block(core, cut, self.next, &mut self.ahead).await?,
            Source::Latest(core) => core.get(self.next).await?, // it is fixed by now
            Source::Fixed(snapshot) => {
                let end = self.end.min(snapshot.length());
                if self.next >= end {
                    return Ok(None);
                }
                self.ahead.want(snapshot.core(), self.next, end);
                snapshot.get(self.next).await?
            }
        };
        self.next += 1;
        Ok(Some(block))
    }

    /// The index of the block that [`ReadStream::next`] gives next.
    pub fn position(&self) -> u64 {
        self.next
    }
}

/// Block `index` of a log that has given those before, once there is one.
async fn live_block(
    core: &Core,
    cut: &Cut,
    index: u64,
    ahead: &mut Ahead,
) -> Result<Bytes, CoreError> {
    loop {
        let progress = core.inner.supply.listen();
        check_uncut(core, cut, index)?;
        let length = core.length();
        if index < length {
            ahead.want(core, index, length);
            let block = core.get(index).await;
            check_uncut(core, cut, index)?;
            match block {
                Err(CoreError::OutOfBounds { .. }) => {} // cut just here
                block => return block,
            }
        }
        progress.await;
    }
}

/// Whether all blocks before `index` are what they were.
fn check_uncut(core: &Core, cut: &Cut, index: u64) -> Result<(), CoreError> {
    let _shared = core.inner.read();
    match cut.length() < index {
        true => Err(CoreError::HistoryChanged { core: core.key() }),
        false => Ok(()),
    }
}

impl ByteStream {
    fn new(source: Source, range: &impl RangeBounds<u64>) -> Self {
        Self {
            source,
            range: bounds(range),
            blocks: None,
            skip: 0,
            remaining: 0,
        }
    }

    /// The next bytes, at least one, at most a block; `None` at the end. Dropping the future loses
    /// none.
    ///
    /// # Errors
    /// As for [`Snapshot::get`], and [`CoreError::BytePastEnd`] if the log ends before the range
    /// begins.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CoreError> {
        if self.blocks.is_none() {
            self.begin().await?;
        }
        while self.remaining > 0 {
            let Some(blocks) = &mut self.blocks else {
                break;
            };
            let Some(mut bytes) = blocks.next().await? else {
                break;
            };
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
            let mut bytes = bytes.split_off(skip.min(bytes.len()));
            self.skip = 0;
            bytes.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            self.remaining -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Finds the first byte.
    async fn begin(&mut self) -> Result<(), CoreError> {
        self.source.fix().await?;
        let Source::Fixed(snapshot) = &self.source else {
            return Ok(()); // there are no live streams of bytes
        };
        let Range { start, end } = self.range;
        let (core, length) = (snapshot.core().key(), snapshot.byte_length());
        if start > length {
            return Err(CoreError::BytePastEnd { core, byte: start });
        }
        let remaining = end.min(length).saturating_sub(start);
        let (first, skip) = match remaining {
            0 => (0, 0),
            _ => snapshot.seek(start).await?,
        };
        (self.remaining, self.skip) = (remaining, skip);
        self.blocks = Some(snapshot.read_stream(first..));
        Ok(())
    }
}

impl Source {
    /// Settles what a stream reads that is not live.
    async fn fix(&mut self) -> Result<(), CoreError> {
        if let Self::Latest(core) = self {
            core.update().await?;
            *self = Self::Fixed(core.snapshot());
        }
        Ok(())
    }
}

/// The blocks that are wanted before they are asked for.
#[derive(Debug, Default)]
struct Ahead {
    /// From this block on others are wanted.
    renew_at: u64,
    want: Option<Download>,
}

impl Ahead {
    /// Wants blocks from `index` on, but none from `end` on, if any is not here.
    fn want(&mut self, core: &Core, index: u64, end: u64) {
        if index < self.renew_at || index >= end {
            return;
        }
        let range = index..end.min(index.saturating_add(PREFETCH_BLOCKS_MAX));
        self.renew_at = index + (range.end - index).div_ceil(2);
        self.want = (!core.has_range(range.clone())).then(|| core.download(range));
    }
}

impl Sink {
    /// Adds a block to those to be appended, and appends them if they are many or large.
    ///
    /// # Errors
    /// [`CoreError::BlockTooLarge`]: this block is not taken. Else as for [`Core::append_batch`]; the blocks are kept, and
    /// appended by the next call that can.
    pub fn push(&mut self, block: impl Into<Bytes>) -> Result<(), CoreError> {
        let block = block.into();
        check_sizes(std::slice::from_ref(&block), self.core.padding())?;
        self.bytes += block.len();
        self.blocks.push(block);
        match self.blocks.len() >= SINK_BLOCKS_MAX || self.bytes >= SINK_BYTES_MAX {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Appends what was not appended yet.
    ///
    /// # Errors
    /// As for [`Core::append_batch`]; the blocks are kept.
    pub fn flush(&mut self) -> Result<(), CoreError> {
        if !self.blocks.is_empty() {
            self.core.append_batch(self.blocks.clone())?;
            self.blocks.clear();
            self.bytes = 0;
        }
        Ok(())
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Corestore;

    /// Goal: nothing is wanted of a log that was cut before the block that comes next.
    #[test]
    fn nothing_lies_ahead_behind_the_end() {
        let core = Corestore::memory().get_named("log").unwrap();
        core.append_batch(vec![Bytes::new(); 4]).unwrap();
        let mut ahead = Ahead::default();
        for end in 0..=5 {
            ahead.want(&core, 5, end);
            assert!(ahead.want.is_none() && ahead.renew_at == 0);
        }
        ahead.want(&core, 1, 4);
        assert_eq!(ahead.renew_at, 3);
    }
}
