//! Import: making a drive equal to a local folder.
//!
//! The caller's thread walks the folder beside the drive's index, both in path order. Paths to
//! look at go in groups to threads that read, compare and hash; their results come back in the
//! same order, so that the same folder always makes the same drive.

mod apply;
mod read;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata};
use ferrocore_primitives::keys::Key;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::apply::Applier;
use self::read::{Job, Message, Task, Work};
use super::walk::{FileId, Found, Kind, Place, Walk, file_id};
use super::{MirrorEvent, MirrorSummary, Reporter, Stamp, default_workers, stamp};
use crate::drive::Drive;
use crate::entry::{BlobId, Entry};
use crate::error::DriveError;
use crate::listing::Entries;
use crate::wait::{Cancel, Cancelled};

/// Most files in one group.
const GROUP_FILES_MAX: usize = 64;

/// A group is full at so many bytes.
const GROUP_BYTES: u64 = 1 << 20;

/// How a folder is imported.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Local files and folders to leave out, such as the store itself.
    pub exclude: Vec<PathBuf>,
    /// How many threads read and hash: by default one a core, at most 8. Each keeps at most
    /// three groups of a MiB in memory.
    pub workers: usize,
    /// Stops the import; what was done until then stays.
    pub cancel: Cancel,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            exclude: Vec::new(),
            workers: default_workers(),
            cancel: Cancel::new(),
        }
    }
}

/// What is known of the files of a folder, so that they are not read again. Keep one for each
/// pair of folder and drive; a lost one costs time only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportCache {
    /// The drive's key, as hex: blob ids mean nothing in another.
    drive: String,
    files: BTreeMap<String, CachedFile>,
}

/// A local file with the blob that holds its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CachedFile {
    stamp: Stamp,
    blob: BlobId,
}

/// An import ended early. What was done until then stays in the drive.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The folder cannot be read; check that it is one and that we may.
    #[error("cannot read {}: {source}", path.display())]
    Source {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The drive failed.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// [`ImportOptions::cancel`] was used.
    #[error("the import was cancelled")]
    Cancelled,
}

impl From<Cancelled> for ImportError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Makes `drive` equal to the folder `source`, and tells `observe` about each path.
///
/// Links are kept as links, with their text. Whatever lies in the drive and not in the folder is
/// removed from it; what cannot be read is skipped and stays in the drive as it was. Content that
/// is equal is not appended again. A file that changes while it is read is read again, a few
/// times.
///
/// Blocks the calling thread.
///
/// # Errors
/// [`ImportError`]; what was done until then stays.
pub fn import(
    drive: &Drive,
    source: &Path,
    cache: &mut ImportCache,
    options: &ImportOptions,
    observe: &mut dyn FnMut(MirrorEvent<'_>),
) -> Result<MirrorSummary, ImportError> {
    let cancel = &options.cancel;
    cache.belong_to(&drive.key());
    let walk = walk(source, &options.exclude)?;
    let blobs = cancel.block_on(drive.blobs())??.clone();
    let applier = Applier::new(drive, &blobs, cache, Reporter::new(observe), cancel);
    thread::scope(|scope| {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..options.workers.max(1) {
            let (queue, blobs, cancel) = (Arc::clone(&queue), &blobs, cancel.clone());
            scope.spawn(move || read::work(&queue, blobs, &cancel));
        }
        let import = Import {
            applier,
            group: Group::default(),
            jobs,
            pending: VecDeque::new(),
            pending_max: 2 * options.workers.max(1) + 2,
            cancel,
        };
        import.run(walk, drive.snapshot())
    })
}

/// The calling thread's part.
struct Import<'a> {
    applier: Applier<'a>,
    group: Group,
    jobs: Sender<Job>,
    /// Groups that are being read, in order.
    pending: VecDeque<(Arc<[Task]>, Receiver<Message>)>,
    pending_max: usize,
    cancel: &'a Cancel,
}

/// Tasks that go to a thread together.
#[derive(Default)]
struct Group {
    tasks: Vec<Task>,
    bytes: u64,
}

impl Import<'_> {
    fn run(mut self, walk: Walk, index: Drive) -> Result<MirrorSummary, ImportError> {
        match self.merge(walk, index) {
            Ok(()) => self.applier.finish(),
            Err(ImportError::Cancelled) => {
                self.applier.finish()?;
                Err(ImportError::Cancelled)
            }
            Err(error) => Err(error),
        }
    }

    /// Walks folder and index side by side.
    fn merge(&mut self, walk: Walk, index: Drive) -> Result<(), ImportError> {
        let mut index = Index::new(index.list("/")?, self.cancel);
        for found in walk {
            self.meet(found, &mut index)?;
        }
        while let Some(stale) = index.take()? {
            self.push(Task::remove(stale), 0)?;
        }
        self.dispatch()?;
        self.collect(0)
    }

    fn meet(&mut self, found: Found, index: &mut Index<'_>) -> Result<(), ImportError> {
        let Found { local, path, kind } = found;
        let report = &mut self.applier.report;
        match (path, kind) {
            (None, Kind::Skipped(reason) | Kind::SkippedFolder(reason)) => {
                report.skipped(&local, &reason);
            }
            (Some(path), Kind::SkippedFolder(reason)) => {
                report.skipped(&local, &reason);
                let below = format!("{path}/");
                self.remove_before(&below, index)?;
                index.skip_below(&below)?;
            }
            (Some(path), Kind::Skipped(reason)) => {
                report.skipped(&local, &reason);
                self.remove_before(&path, index)?;
                index.take_at(&path)?;
            }
            (Some(path), Kind::Link(place)) => {
                self.remove_before(&path, index)?;
                let prior = index.take_at(&path)?;
                self.push(Task::new(path, local, prior, Work::Link(place)), 0)?;
            }
            (Some(path), Kind::File(place, metadata)) => {
                self.remove_before(&path, index)?;
                let prior = index.take_at(&path)?;
                self.look(path, local, prior, place, &metadata)?;
            }
            (None, Kind::File(..) | Kind::Link(_)) => {}
        }
        Ok(())
    }

    fn remove_before(&mut self, path: &str, index: &mut Index<'_>) -> Result<(), ImportError> {
        while let Some(stale) = index.take_before(path)? {
            self.push(Task::remove(stale), 0)?;
        }
        Ok(())
    }

    /// Has a file read, unless the cache knows it.
    fn look(
        &mut self,
        path: String,
        local: PathBuf,
        prior: Option<Entry>,
        place: Place,
        metadata: &Metadata,
    ) -> Result<(), ImportError> {
        let stamp = Stamp::of(metadata);
        let prior_entry = prior.as_ref();
        let (work, bytes) = if prior_entry.is_some_and(|p| self.applier.is_cached(&stamp, p)) {
            let executable = stamp::is_executable(metadata);
            (Work::Known { executable, stamp }, 0)
        } else {
            (Work::Read(place), stamp.size())
        };
        self.push(Task::new(path, local, prior, work), bytes)
    }

    fn push(&mut self, task: Task, bytes: u64) -> Result<(), ImportError> {
        self.group.tasks.push(task);
        self.group.bytes += bytes;
        if self.group.bytes < GROUP_BYTES && self.group.tasks.len() < GROUP_FILES_MAX {
            return Ok(());
        }
        self.dispatch()
    }

    /// Hands the group to a thread, and takes results until few enough groups are out.
    fn dispatch(&mut self) -> Result<(), ImportError> {
        let tasks: Arc<[Task]> = std::mem::take(&mut self.group).tasks.into();
        let (results, receiver) = read::channel();
        let job = Job {
            tasks: Arc::clone(&tasks),
            results,
        };
        // Threads end before this only by a panic, which the scope passes on.
        let _ = self.jobs.send(job);
        self.pending.push_back((tasks, receiver));
        self.collect(self.pending_max)
    }

    /// Takes results, in order, until at most `left` groups are out.
    fn collect(&mut self, left: usize) -> Result<(), ImportError> {
        while self.pending.len() > left {
            let Some((tasks, results)) = self.pending.pop_front() else {
                break;
            };
            let mut tasks = tasks.iter();
            for message in results {
                self.applier.apply(message, &mut tasks)?;
            }
            if self.cancel.is_cancelled() {
                return Err(ImportError::Cancelled);
            }
        }
        Ok(())
    }
}

impl ImportCache {
    fn belong_to(&mut self, drive: &Key) {
        let drive = hex(drive);
        if self.drive != drive {
            *self = Self {
                drive,
                files: BTreeMap::new(),
            };
        }
    }
}

fn hex(key: &Key) -> String {
    key.as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The drive's side of the walk, with one entry of lookahead.
struct Index<'a> {
    entries: Entries,
    /// The next entry, once looked at.
    next: Option<Option<Entry>>,
    cancel: &'a Cancel,
}

impl<'a> Index<'a> {
    fn new(entries: Entries, cancel: &'a Cancel) -> Self {
        Self {
            entries,
            next: None,
            cancel,
        }
    }

    fn take(&mut self) -> Result<Option<Entry>, ImportError> {
        self.peek()?;
        Ok(self.next.take().flatten())
    }

    fn take_before(&mut self, path: &str) -> Result<Option<Entry>, ImportError> {
        match self.order(path)? {
            Some(Ordering::Less) => self.take(),
            _ => Ok(None),
        }
    }

    fn take_at(&mut self, path: &str) -> Result<Option<Entry>, ImportError> {
        match self.order(path)? {
            Some(Ordering::Equal) => self.take(),
            _ => Ok(None),
        }
    }

    /// Passes over what lies below `folder`, given with a slash at its end.
    fn skip_below(&mut self, folder: &str) -> Result<(), ImportError> {
        while self
            .peek()?
            .is_some_and(|entry| entry.path.starts_with(folder))
        {
            self.take()?;
        }
        Ok(())
    }

    fn order(&mut self, path: &str) -> Result<Option<Ordering>, ImportError> {
        let next = self.peek()?;
        Ok(next.map(|entry| entry.path.as_str().cmp(path)))
    }

    fn peek(&mut self) -> Result<Option<&Entry>, ImportError> {
        if self.next.is_none() {
            self.next = Some(self.cancel.block_on(self.entries.next())??);
        }
        Ok(self.next.as_ref().and_then(Option::as_ref))
    }
}

fn walk(source: &Path, exclude: &[PathBuf]) -> Result<Walk, ImportError> {
    let failed = |source_error| ImportError::Source {
        path: source.to_owned(),
        source: source_error,
    };
    let root = Dir::open_ambient_dir(source, ambient_authority()).map_err(failed)?;
    let exclude: HashSet<FileId> = exclude.iter().filter_map(|path| id_of(path)).collect();
    Walk::new(root, exclude).map_err(failed)
}

/// What is not there needs no exclusion.
fn id_of(path: &Path) -> Option<FileId> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(file_id(&cap_std::fs::Metadata::from_just_metadata(
        metadata,
    )))
}
