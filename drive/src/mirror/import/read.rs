//! The threads' part of an import: reading, comparing, hashing.
//!
//! A job is a group of tasks; its messages say what came of each, in order. The channel is short:
//! a thread that is ahead waits.

use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::fs::{File, OpenOptions};
use ferrocore_log::core::HashedBlocks;

use super::super::walk::Place;
use super::super::{SkipReason, Stamp, stamp};
use crate::blobs::{Blobs, cut};
use crate::entry::{BlobId, Entry};
use crate::error::DriveError;
use crate::wait::{Cancel, Cancelled};

/// A file larger than this is not gathered with others but handed over in parts of this size.
const PART_BYTES: u64 = 1 << 20;

/// Messages of one job that may wait.
const MESSAGES_MAX: usize = 2;

/// How often a file that changes meanwhile is read.
const READS_MAX: usize = 4;

/// A path to do something about.
#[derive(Debug)]
pub(super) struct Task {
    /// The drive path.
    pub(super) path: String,
    /// The same, below the folder.
    pub(super) local: PathBuf,
    /// What the drive has there.
    pub(super) prior: Option<Entry>,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Read(Place),
    Link(Place),
    /// The content is known to be what the drive has.
    Known {
        executable: bool,
        stamp: Stamp,
    },
    Remove,
}

pub(super) struct Job {
    pub(super) tasks: Arc<[Task]>,
    pub(super) results: SyncSender<Message>,
}

pub(super) enum Message {
    /// What came of the next tasks; the blocks are those of the [`Outcome::Read`]s among them.
    Done {
        blocks: HashedBlocks,
        outcomes: Vec<Outcome>,
    },
    /// The next blocks of the next task's file.
    Part(HashedBlocks),
    /// That file changed: it begins anew.
    Restart,
}

pub(super) enum Outcome {
    /// A file of so many blocks and bytes.
    Read {
        blocks: u64,
        bytes: u64,
        seen: Seen,
    },
    /// A file whose blocks were sent in parts.
    Streamed(Seen),
    /// A file whose bytes the drive has already.
    Same(Seen),
    /// A link with this target.
    Link(String),
    /// The task said it all.
    AsTold,
    /// There is nothing any more.
    Gone,
    Skipped(SkipReason),
}

/// A file as it was when its bytes were read.
pub(super) struct Seen {
    pub(super) stamp: Stamp,
    pub(super) executable: bool,
    /// Whether the stamp would tell any later change.
    pub(super) is_settled: bool,
}

/// A channel for a job's messages.
pub(super) fn channel() -> (SyncSender<Message>, Receiver<Message>) {
    sync_channel(MESSAGES_MAX)
}

/// Does jobs until there are no more.
pub(super) fn work(jobs: &Mutex<Receiver<Job>>, blobs: &Blobs, cancel: &Cancel) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { tasks, results }) = job else {
            return;
        };
        let mut reader = Reader {
            blobs,
            cancel,
            results,
            blocks: Vec::new(),
            outcomes: Vec::new(),
        };
        // Whoever took the results is gone: the import has ended.
        let _ = reader.run(&tasks);
    }
}

impl Task {
    pub(super) fn new(path: String, local: PathBuf, prior: Option<Entry>, work: Work) -> Self {
        Self {
            path,
            local,
            prior,
            work,
        }
    }

    pub(super) fn remove(prior: Entry) -> Self {
        Self::new(
            prior.path.clone(),
            PathBuf::new(),
            Some(prior),
            Work::Remove,
        )
    }

    pub(super) fn prior_blob(&self) -> Option<&BlobId> {
        self.prior.as_ref()?.value.blob.as_ref()
    }
}

/// Does one job.
struct Reader<'a> {
    blobs: &'a Blobs,
    cancel: &'a Cancel,
    results: SyncSender<Message>,
    blocks: Vec<Bytes>,
    outcomes: Vec<Outcome>,
}

/// Nobody takes the results, or the import is cancelled.
struct Stopped;

impl Reader<'_> {
    fn run(&mut self, tasks: &[Task]) -> Result<(), Stopped> {
        for task in tasks {
            if self.cancel.is_cancelled() {
                return Err(Stopped);
            }
            let outcome = match &task.work {
                Work::Read(place) => self.read(place, task.prior_blob())?,
                Work::Link(place) => read_link(place),
                Work::Known { .. } | Work::Remove => Outcome::AsTold,
            };
            self.outcomes.push(outcome);
        }
        self.flush()
    }

    fn read(&mut self, place: &Place, prior: Option<&BlobId>) -> Result<Outcome, Stopped> {
        for _ in 0..READS_MAX {
            match self.try_read(place, prior) {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(ReadError::Stopped) => return Err(Stopped),
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Outcome::Gone);
                }
                Err(ReadError::Io(error)) => {
                    return Ok(Outcome::Skipped(SkipReason::Unreadable(error.to_string())));
                }
            }
        }
        Ok(Outcome::Skipped(SkipReason::Changing))
    }

    /// Reads the file once. `None`: it changed meanwhile.
    fn try_read(
        &mut self,
        place: &Place,
        prior: Option<&BlobId>,
    ) -> Result<Option<Outcome>, ReadError> {
        let mut source = Source::open(place)?;
        let size = source.seen.stamp.size();
        let content = if size > PART_BYTES {
            self.read_parts(&mut source.file, size, prior)?
        } else {
            self.read_whole(&mut source.file, size, prior)?
        };
        if !source.is_unchanged()? {
            if matches!(content, Content::Parts) {
                self.send(Message::Restart)?;
            }
            return Ok(None);
        }
        let seen = source.seen;
        Ok(Some(match content {
            Content::Same => Outcome::Same(seen),
            Content::Parts => Outcome::Streamed(seen),
            Content::Whole(whole) => {
                let blocks = whole.len() as u64;
                self.blocks.extend(whole);
                Outcome::Read {
                    blocks,
                    bytes: size,
                    seen,
                }
            }
        }))
    }

    fn read_whole(
        &self,
        file: &mut File,
        size: u64,
        prior: Option<&BlobId>,
    ) -> Result<Content, ReadError> {
        let bytes = read_up_to(file, size + 1)?;
        match prior {
            Some(prior) if self.is_equal(prior, size, &mut bytes.as_ref())? => Ok(Content::Same),
            _ => Ok(Content::Whole(cut(bytes))),
        }
    }

    fn read_parts(
        &mut self,
        file: &mut File,
        size: u64,
        prior: Option<&BlobId>,
    ) -> Result<Content, ReadError> {
        if let Some(prior) = prior {
            if self.is_equal(prior, size, file)? {
                return Ok(Content::Same);
            }
            file.rewind()?;
        }
        self.flush()?;
        let mut left = size;
        while left > 0 {
            if self.cancel.is_cancelled() {
                return Err(ReadError::Stopped);
            }
            let part = read_up_to(file, left.min(PART_BYTES))?;
            if part.is_empty() {
                // It became shorter, which its stamp will tell.
                break;
            }
            left -= part.len() as u64;
            self.send(Message::Part(HashedBlocks::hash(cut(part))))?;
        }
        Ok(Content::Parts)
    }

    /// Whether the drive's blob `prior` holds the `size` bytes of `file`. Bytes that are not
    /// here cannot be compared, nor those that do not verify: they are not equal.
    fn is_equal(&self, prior: &BlobId, size: u64, file: &mut impl Read) -> Result<bool, ReadError> {
        let compare = async {
            if !self.blobs.has(prior).await? || self.blobs.byte_length(prior).await? != size {
                return Ok(false);
            }
            let mut blob = self.blobs.read(prior, ..).await?;
            while let Some(block) = blob.next().await? {
                if read_up_to(file, block.len() as u64)? != block {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match self.cancel.block_on(compare) {
            Ok(Ok(is_equal)) => Ok(is_equal),
            Ok(Err(CompareError::Io(error))) => Err(error.into()),
            Ok(Err(CompareError::Drive(error))) => {
                tracing::warn!(%error, "what the drive has cannot be compared with its file");
                Ok(false)
            }
            Err(Cancelled) => Err(ReadError::Stopped),
        }
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        if self.outcomes.is_empty() {
            return Ok(());
        }
        let blocks = std::mem::take(&mut self.blocks);
        let message = Message::Done {
            blocks: HashedBlocks::hash(blocks),
            outcomes: std::mem::take(&mut self.outcomes),
        };
        self.send(message)
    }

    fn send(&self, message: Message) -> Result<(), Stopped> {
        self.results.send(message).map_err(|_| Stopped)
    }
}

/// What one reading of a file found.
enum Content {
    Same,
    Whole(Vec<Bytes>),
    /// It was sent in parts.
    Parts,
}

/// A file that is being read, with what it was at the beginning.
struct Source {
    file: File,
    seen: Seen,
}

impl Source {
    fn open(place: &Place) -> Result<Self, ReadError> {
        let now = SystemTime::now();
        let mut options = OpenOptions::new();
        // A pipe may be there by now: opening it must not wait for a writer.
        options.read(true).follow(FollowSymlinks::No).nonblock(true);
        let file = place.dir.open_with(&place.name, &options)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no longer a file").into());
        }
        let stamp = Stamp::of(&metadata);
        let seen = Seen {
            stamp,
            executable: stamp::is_executable(&metadata),
            is_settled: stamp.is_settled(now),
        };
        Ok(Self { file, seen })
    }

    fn is_unchanged(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(Stamp::of(&metadata) == self.seen.stamp)
    }
}

enum ReadError {
    Io(io::Error),
    Stopped,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Stopped> for ReadError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

enum CompareError {
    Io(io::Error),
    Drive(DriveError),
}

impl From<io::Error> for CompareError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DriveError> for CompareError {
    fn from(error: DriveError) -> Self {
        Self::Drive(error)
    }
}

fn read_up_to(file: &mut impl Read, max: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(max).unwrap_or(0));
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn read_link(place: &Place) -> Outcome {
    match place.dir.read_link_contents(&place.name) {
        Ok(target) => match target.into_os_string().into_string() {
            Ok(target) => Outcome::Link(target),
            Err(_) => Outcome::Skipped(SkipReason::LinkNotUtf8),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Gone,
        Err(error) => Outcome::Skipped(SkipReason::Unreadable(error.to_string())),
    }
}
