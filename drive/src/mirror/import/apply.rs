//! The calling thread's end of an import: appending bytes, changing the index, telling.

use std::slice;

use ferrocore_log::core::HashedBlocks;

use super::super::{MirrorSummary, Op, Reporter, Stamp};
use super::read::{Message, Outcome, Seen, Task, Work};
use super::{CachedFile, ImportCache, ImportError};
use crate::blobs::{BlobWriter, Blobs};
use crate::drive::{Change, Drive};
use crate::entry::{BlobId, Entry, EntryValue};
use crate::wait::Cancel;

/// Changes that reach the index in one append.
const CHANGES_MAX: usize = 1024;

pub(super) struct Applier<'a> {
    drive: &'a Drive,
    blobs: &'a Blobs,
    cache: &'a mut ImportCache,
    cancel: &'a Cancel,
    pub(super) report: Reporter<'a>,
    changes: Vec<Change>,
    /// The file that comes in parts.
    writer: Option<BlobWriter>,
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        drive: &'a Drive,
        blobs: &'a Blobs,
        cache: &'a mut ImportCache,
        report: Reporter<'a>,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            drive,
            blobs,
            cache,
            cancel,
            report,
            changes: Vec::new(),
            writer: None,
        }
    }

    /// Whether the file with this stamp is known to hold the bytes of `prior`.
    pub(super) fn is_cached(&self, stamp: &Stamp, prior: &Entry) -> bool {
        let cached = self.cache.files.get(&prior.path);
        cached.is_some_and(|cached| {
            cached.stamp == *stamp && prior.value.blob.as_ref() == Some(&cached.blob)
        })
    }

    /// Takes a message about the next of `tasks`.
    pub(super) fn apply(
        &mut self,
        message: Message,
        tasks: &mut slice::Iter<'_, Task>,
    ) -> Result<(), ImportError> {
        match message {
            Message::Restart => self.writer = None,
            Message::Part(blocks) => self.append_part(blocks)?,
            Message::Done { blocks, outcomes } => self.settle_all(blocks, outcomes, tasks)?,
        }
        Ok(())
    }

    /// Flushes what is left and returns the summary.
    pub(super) fn finish(mut self) -> Result<MirrorSummary, ImportError> {
        self.flush()?;
        self.report.summary.version = self.drive.version();
        Ok(self.report.summary)
    }

    fn append_part(&mut self, blocks: HashedBlocks) -> Result<(), ImportError> {
        let bytes = blocks.blocks().iter().map(|block| block.len() as u64).sum();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            writer => writer.insert(self.cancel.block_on(self.blobs.writer())?),
        };
        writer.append(blocks)?;
        self.report.progress(bytes);
        Ok(())
    }

    fn settle_all(
        &mut self,
        blocks: HashedBlocks,
        outcomes: Vec<Outcome>,
        tasks: &mut slice::Iter<'_, Task>,
    ) -> Result<(), ImportError> {
        let streamed = self.writer.take().map(BlobWriter::finish).transpose()?;
        let mut writer = self.cancel.block_on(self.blobs.writer())?;
        writer.append(blocks)?;
        let mut rest = writer.finish()?;
        self.report.progress(rest.byte_length);
        for (outcome, task) in outcomes.into_iter().zip(tasks) {
            match outcome {
                Outcome::Read {
                    blocks,
                    bytes,
                    seen,
                } => {
                    let blob = take(&mut rest, blocks, bytes);
                    self.put_file(task, blob, &seen);
                }
                Outcome::Streamed(seen) => self.put_file(task, streamed.unwrap_or_default(), &seen),
                Outcome::Same(seen) => self.keep_content(task, &seen),
                Outcome::Link(target) => self.put_link(task, target),
                Outcome::AsTold => self.do_as_told(task),
                Outcome::Gone => self.remove(task),
                Outcome::Skipped(reason) => self.report.skipped(&task.local, &reason),
            }
        }
        if self.changes.len() >= CHANGES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn put_file(&mut self, task: &Task, blob: BlobId, seen: &Seen) {
        self.report.summary.files_read += 1;
        self.remember(task, blob, seen);
        let op = if task.prior.is_some() {
            Op::Change
        } else {
            Op::Add
        };
        self.report.done(op, &task.path, blob.byte_length);
        self.change(task, Some(EntryValue::file(blob, seen.executable)));
    }

    fn put_link(&mut self, task: &Task, target: String) {
        let prior = task
            .prior
            .as_ref()
            .map(|prior| prior.value.linkname.as_deref());
        let op = match prior {
            None => Op::Add,
            Some(prior) if prior == Some(target.as_str()) => Op::Equal,
            Some(_) => Op::Change,
        };
        self.report.done(op, &task.path, 0);
        if op != Op::Equal {
            self.cache.files.remove(&task.path);
            self.change(task, Some(EntryValue::link(target)));
        }
    }

    /// The file's bytes are those the drive has already.
    fn keep_content(&mut self, task: &Task, seen: &Seen) {
        self.report.summary.files_read += 1;
        if let Some(blob) = task.prior_blob() {
            self.remember(task, *blob, seen);
        }
        self.set_executable(task, seen.executable, seen.stamp.size());
    }

    fn do_as_told(&mut self, task: &Task) {
        match task.work {
            Work::Known { executable, stamp } => {
                self.set_executable(task, executable, stamp.size());
            }
            Work::Remove => self.remove(task),
            Work::Read(_) | Work::Link(_) => {}
        }
    }

    fn set_executable(&mut self, task: &Task, executable: bool, bytes: u64) {
        let Some(prior) = &task.prior else {
            return;
        };
        if prior.value.executable == executable {
            return self.report.done(Op::Equal, &task.path, bytes);
        }
        let value = EntryValue {
            executable,
            ..prior.value.clone()
        };
        self.report.done(Op::Change, &task.path, 0);
        self.change(task, Some(value));
    }

    fn remove(&mut self, task: &Task) {
        self.cache.files.remove(&task.path);
        if task.prior.is_some() {
            let bytes = task.prior_blob().map_or(0, |blob| blob.byte_length);
            self.report.done(Op::Remove, &task.path, bytes);
            self.change(task, None);
        }
    }

    fn remember(&mut self, task: &Task, blob: BlobId, seen: &Seen) {
        let files = &mut self.cache.files;
        if seen.is_settled {
            let stamp = seen.stamp;
            files.insert(task.path.clone(), CachedFile { stamp, blob });
        } else {
            files.remove(&task.path);
        }
    }

    fn change(&mut self, task: &Task, value: Option<EntryValue>) {
        let path = task.path.clone();
        self.changes.push(Change { path, value });
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        let changes = std::mem::take(&mut self.changes);
        // Not cancelled in the middle: what is read is kept.
        Ok(Cancel::new().block_on(self.drive.apply(changes))??)
    }
}

/// Cuts a blob of so many blocks and bytes off the front of `rest`.
fn take(rest: &mut BlobId, blocks: u64, bytes: u64) -> BlobId {
    let front = BlobId {
        block_length: blocks,
        byte_length: bytes,
        ..*rest
    };
    *rest = BlobId {
        block_offset: rest.block_offset + blocks,
        byte_offset: rest.byte_offset + bytes,
        block_length: rest.block_length.saturating_sub(blocks),
        byte_length: rest.byte_length.saturating_sub(bytes),
        block_map: false,
    };
    front
}
