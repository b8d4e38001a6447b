//! Export: making a local folder equal to a drive, without ever leaving that folder.
//!
//! The calling thread walks the drive's index, decides for each entry what there is to do, and
//! wants its bytes from suppliers; a few threads compare and write, several files at once.

mod dest;
mod place;
mod prune;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use ferrocore_log::core::Download;
use ferrocore_primitives::keys::Key;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::dest::{Dest, Local, Refused};
use self::place::{Action, Job, Outcome, Report};
use super::{MirrorEvent, MirrorSummary, Op, Reporter, SkipReason, Stamp, default_workers, stamp};
use crate::blobs::Blobs;
use crate::download::{ACTIVE_RANGES_MAX, Selection};
use crate::drive::Drive;
use crate::entry::{BlobId, Entry, EntryValue};
use crate::error::DriveError;
use crate::path;
use crate::wait::{Cancel, Cancelled};

/// How a drive is exported.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Which entries; by default all.
    pub selection: Selection,
    /// Whether to replace local files that we did not write. By default they are kept, and told
    /// as [`SkipReason::Kept`].
    pub overwrite: bool,
    /// What to delete of what the drive lacks; by default nothing.
    pub prune: Prune,
    /// How many threads write: by default one a core, at most 8.
    pub workers: usize,
    /// Stops the export; what was written until then stays.
    pub cancel: Cancel,
}

/// What an export deletes. Only what the selection contains is ever deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prune {
    /// Nothing.
    #[default]
    Nothing,
    /// What we wrote, if it was not changed since.
    Written,
    /// Every file and link that the drive lacks, and the folders that become empty.
    All,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            selection: Selection::all(),
            overwrite: false,
            prune: Prune::default(),
            workers: default_workers(),
            cancel: Cancel::new(),
        }
    }
}

/// What we wrote into a folder. Keep one for each pair of drive and folder; without it files of
/// equal content are found by reading them, others are not known to be ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportCache {
    /// The drive's key, as hex: blob ids mean nothing in another.
    drive: String,
    written: BTreeMap<String, Written>,
}

/// What is at a path by our hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    File {
        stamp: Stamp,
        blob: BlobId,
        /// The blobs core's: after a truncate the same id means other bytes.
        #[serde(default)]
        fork: u64,
    },
    Link {
        target: String,
    },
}

/// An export ended early. What was fetched stays in the store, what was written in the folder;
/// another run goes on from there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There is a file where the folder should be; name another.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// There is no space left; make some and export again.
    #[error("no space left to write {}", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// We may not write there; check the permissions.
    #[error("not permitted to write {}: {source}", path.display())]
    NotWritable {
        /// What was being written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else went wrong with the folder.
    #[error("cannot write {}: {source}", path.display())]
    Local {
        /// What was being written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The drive failed.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// [`ExportOptions::cancel`] was used.
    #[error("the export was cancelled")]
    Cancelled,
}

impl ExportError {
    fn local(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            io::ErrorKind::NotADirectory => Self::NotAFolder { path },
            _ => Self::Local { path, source },
        }
    }
}

impl From<Cancelled> for ExportError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Makes the folder `dest` equal to the present version of `drive`, and tells `observe` about
/// each path.
///
/// Nothing is written outside `dest`: paths that climb are refused, and links are created but
/// never followed. Files appear whole, by renaming. Local files that we did not write are kept
/// unless [`ExportOptions::overwrite`] is set; those of equal content count as ours from then on.
/// Runs of zero blocks become holes.
///
/// Blocks the calling thread, also to wait for bytes that are not here; how long is the caller's
/// to say, by [`ExportOptions::cancel`].
///
/// # Errors
/// [`ExportError`]; what was done until then stays.
pub fn export(
    drive: &Drive,
    dest: &Path,
    cache: &mut ExportCache,
    options: &ExportOptions,
    observe: &mut dyn FnMut(MirrorEvent<'_>),
) -> Result<MirrorSummary, ExportError> {
    let cancel = options.cancel.child();
    cache.belong_to(&drive.key());
    let mut dest = Dest::open(dest)?;
    dest.remove_parts();
    let drive = drive.snapshot();
    let _index = drive.index().download(0..drive.version());
    let blobs = cancel.block_on(drive.blobs())??.clone();
    cancel
        .block_on(blobs.core().update())?
        .map_err(DriveError::from)?;
    let mut report = Reporter::new(observe);
    report.summary.version = drive.version();
    prune::prune(&drive, &mut dest, cache, options, &mut report)?;
    let result = thread::scope(|scope| {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let (sender, reports) = mpsc::channel();
        for worker in 0..options.workers.max(1) {
            let (queue, sender) = (Arc::clone(&queue), sender.clone());
            let (dest, blobs, cancel) = (dest.clone(), &blobs, &cancel);
            scope.spawn(move || place::work(worker, &queue, &sender, dest, blobs, cancel));
        }
        let export = Export {
            blobs: &blobs,
            dest: &mut dest,
            cache,
            options,
            cancel: &cancel,
            report,
            jobs,
            reports,
            in_flight: 0,
            nesting: Nesting::default(),
        };
        export.run(&drive)
    });
    dest.remove_parts();
    result
}

/// The calling thread's part.
struct Export<'a> {
    blobs: &'a Blobs,
    dest: &'a mut Dest,
    cache: &'a mut ExportCache,
    options: &'a ExportOptions,
    cancel: &'a Cancel,
    report: Reporter<'a>,
    jobs: Sender<Job>,
    reports: Receiver<Report>,
    in_flight: usize,
    nesting: Nesting,
}

impl Export<'_> {
    fn run(mut self, drive: &Drive) -> Result<MirrorSummary, ExportError> {
        let result = self.walk(drive).and_then(|()| self.collect(0));
        if result.is_err() {
            // Threads that wait for bytes let go of them.
            self.cancel.cancel();
        }
        result.map(|()| self.report.summary)
    }

    fn walk(&mut self, drive: &Drive) -> Result<(), ExportError> {
        let mut entries = drive.entries();
        loop {
            match self.cancel.block_on(entries.next())? {
                Ok(Some(entry)) => self.meet(entry)?,
                Ok(None) => return Ok(()),
                Err(DriveError::Entry { path, source }) => {
                    self.skip(&path, SkipReason::Malformed(source.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn meet(&mut self, entry: Entry) -> Result<(), ExportError> {
        if !self.options.selection.contains(&entry.path) {
            return Ok(());
        }
        match self.plan(&entry) {
            Ok(Some(action)) => self.dispatch(entry, action),
            Ok(None) => {
                self.report
                    .done(Op::Equal, &entry.path, byte_length(&entry.value));
                Ok(())
            }
            Err(Refused::Skip(reason)) => {
                self.skip(&entry.path, reason);
                Ok(())
            }
            Err(Refused::Io(error)) => Err(self.dest.error(&entry.path, error)),
        }
    }

    /// What there is to do for an entry; `None` if it is there already.
    fn plan(&mut self, entry: &Entry) -> Result<Option<Action>, Refused> {
        if !path::is_normal(&entry.path) {
            return Err(Refused::Skip(SkipReason::NotNormal));
        }
        if self.nesting.is_below_file(&entry.path) {
            return Err(Refused::Skip(SkipReason::Occupied));
        }
        let local = self.dest.look(&entry.path)?;
        match (&entry.value.linkname, &entry.value.blob) {
            (Some(target), _) if !target.is_empty() => self.plan_link(&entry.path, target, &local),
            (_, Some(blob)) => self.plan_file(entry, blob, &local),
            _ => Err(Refused::Skip(SkipReason::Malformed(
                "it is neither a file nor a link".to_owned(),
            ))),
        }
    }

    fn plan_link(
        &mut self,
        path: &str,
        target: &str,
        local: &Local,
    ) -> Result<Option<Action>, Refused> {
        match local {
            Local::Nothing => Ok(Some(Action::Link(Op::Add))),
            Local::Link(there) if there == target => {
                let target = target.to_owned();
                self.cache
                    .written
                    .insert(path.to_owned(), Written::Link { target });
                Ok(None)
            }
            Local::Other => Err(Refused::Skip(SkipReason::Occupied)),
            _ if self.may_replace(path, local) => Ok(Some(Action::Link(Op::Change))),
            _ => Err(Refused::Skip(SkipReason::Kept)),
        }
    }

    fn plan_file(
        &self,
        entry: &Entry,
        blob: &BlobId,
        local: &Local,
    ) -> Result<Option<Action>, Refused> {
        let current = self.blobs.core().fork();
        let is_current = self.cache.is_written(&entry.path, local)
            && matches!(
                self.cache.written.get(&entry.path),
                Some(Written::File { blob: written, fork, .. }) if (written, *fork) == (blob, current)
            );
        match local {
            Local::Nothing => Ok(Some(Action::Write(Op::Add))),
            Local::File(metadata) if is_current => {
                let is_executable = stamp::is_executable(metadata);
                let is_equal = is_executable == entry.value.executable || !cfg!(unix);
                Ok((!is_equal).then_some(Action::SetExecutable))
            }
            Local::Other => Err(Refused::Skip(SkipReason::Occupied)),
            _ if self.cache.is_written(&entry.path, local) => Ok(Some(Action::Write(Op::Change))),
            Local::File(metadata) if blob.block_map || metadata.len() == blob.byte_length => {
                let overwrite = self.options.overwrite;
                Ok(Some(Action::Compare { overwrite }))
            }
            _ if self.options.overwrite => Ok(Some(Action::Write(Op::Change))),
            _ => Err(Refused::Skip(SkipReason::Kept)),
        }
    }

    fn may_replace(&self, path: &str, local: &Local) -> bool {
        self.options.overwrite || self.cache.is_written(path, local)
    }

    /// Wants an entry's bytes and hands it to a thread.
    fn dispatch(&mut self, entry: Entry, action: Action) -> Result<(), ExportError> {
        let wants = match (&entry.value.blob, &action) {
            (Some(blob), Action::Write(_) | Action::Compare { .. }) => self.want(blob)?,
            _ => Vec::new(),
        };
        let job = Job {
            entry,
            action,
            _wants: wants,
        };
        self.in_flight += 1;
        // Threads end before this only by a panic, which the scope passes on.
        let _ = self.jobs.send(job);
        self.collect(ACTIVE_RANGES_MAX)
    }

    /// Wants the blocks of a blob that are not here. What lies past the core's end is left to
    /// the reader, which will say so.
    fn want(&mut self, blob: &BlobId) -> Result<Vec<Download>, ExportError> {
        let core = self.blobs.core();
        let mut wants = Vec::new();
        let runs = match self.cancel.block_on(self.blobs.blocks(blob))? {
            Ok(runs) => runs,
            Err(error) if place::malformed(&error).is_some() => return Ok(wants),
            Err(error) => return Err(error.into()),
        };
        for run in runs.into_iter().filter(|run| run.end <= core.length()) {
            let (all, have) = (run.end - run.start, core.count(run.clone()));
            self.report.summary.blocks_have += have;
            self.report.summary.blocks_fetched += all - have;
            if have < all {
                wants.push(core.download(run));
            }
        }
        Ok(wants)
    }

    /// Takes reports until at most `left` jobs are out.
    fn collect(&mut self, left: usize) -> Result<(), ExportError> {
        loop {
            let report = if self.in_flight > left {
                self.reports.recv().ok()
            } else {
                self.reports.try_recv().ok()
            };
            match report {
                Some(report) => self.take(report)?,
                None => return Ok(()),
            }
        }
    }

    fn take(&mut self, report: Report) -> Result<(), ExportError> {
        let (path, outcome) = match report {
            Report::Progress(bytes) => {
                self.report.progress(bytes);
                return Ok(());
            }
            Report::Finished { path, outcome } => (path, outcome),
        };
        self.in_flight -= 1;
        match outcome? {
            Outcome::Done {
                op,
                bytes,
                written,
                was_read,
            } => {
                self.report.summary.files_read += u64::from(was_read);
                self.report.done(op, &path, bytes);
                self.cache.written.insert(path, written);
            }
            Outcome::Skipped(reason) => self.skip(&path, reason),
        }
        Ok(())
    }

    fn skip(&mut self, path: &str, reason: SkipReason) {
        let local = Path::new(path.trim_start_matches('/'));
        self.report.skipped(local, &reason);
    }
}

impl ExportCache {
    fn belong_to(&mut self, drive: &Key) {
        let drive: String = drive
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if self.drive != drive {
            let written = BTreeMap::new();
            *self = Self { drive, written };
        }
    }

    /// Whether what is at `path` is what we put there.
    fn is_written(&self, path: &str, local: &Local) -> bool {
        match (self.written.get(path), local) {
            (Some(Written::File { stamp, .. }), Local::File(metadata)) => {
                *stamp == Stamp::of(metadata)
            }
            (Some(Written::Link { target }), Local::Link(there)) => there == target.as_str(),
            _ => false,
        }
    }
}

fn byte_length(value: &EntryValue) -> u64 {
    value.blob.map_or(0, |blob| blob.byte_length)
}

/// Finds entries below one that is a file. A drive may hold both; the file comes first and wins.
///
/// Keeps those files of the walk that later paths may lie below: each begins with the one before.
#[derive(Debug, Default)]
struct Nesting {
    files: Vec<String>,
}

impl Nesting {
    /// Whether an earlier path is a folder of this one. Paths come in byte order.
    fn is_below_file(&mut self, path: &str) -> bool {
        while let Some(file) = self.files.last() {
            match path.strip_prefix(file.as_str()) {
                Some(rest) if rest.starts_with('/') => return true,
                Some(_) => break,
                None => self.files.pop(),
            };
        }
        self.files.push(path.to_owned());
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_below_files_are_found() {
        let mut nesting = Nesting::default();
        let paths = ["/a", "/a-", "/a-/x", "/a/b", "/a/b/c", "/a0", "/b", "/b/c"];
        let below: Vec<&str> = paths
            .into_iter()
            .filter(|path| nesting.is_below_file(path))
            .collect();
        assert_eq!(below, ["/a-/x", "/a/b", "/a/b/c", "/b/c"]);
    }
}
