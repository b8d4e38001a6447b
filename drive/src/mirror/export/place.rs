//! The threads' part of an export: comparing and writing.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, File, OpenOptions};
use ferrocore_log::CoreError;
use ferrocore_log::core::Download;

use super::super::{Op, SkipReason, Stamp, stamp};
use super::dest::{Dest, Refused};
use super::{ExportError, Written, byte_length};
use crate::blobs::{BlobReader, Blobs};
use crate::entry::{BlobId, Entry};
use crate::error::DriveError;
use crate::wait::{Cancel, Cancelled};

/// Progress is told each time so many bytes are written.
const PROGRESS_BYTES: u64 = 1 << 20;

/// An entry to do something about.
pub(super) struct Job {
    pub(super) entry: Entry,
    pub(super) action: Action,
    /// Its bytes are on their way as long as these live.
    pub(super) _wants: Vec<Download>,
}

pub(super) enum Action {
    /// Write the file; nothing that matters is there.
    Write(Op),
    /// A file of the same size is there that we do not know.
    Compare { overwrite: bool },
    /// Our file is there, but for its executable bit.
    SetExecutable,
    /// Make the link.
    Link(Op),
}

pub(super) enum Report {
    /// So many bytes were written.
    Progress(u64),
    Finished {
        path: String,
        outcome: Result<Outcome, ExportError>,
    },
}

pub(super) enum Outcome {
    Done {
        op: Op,
        bytes: u64,
        written: Written,
        was_read: bool,
    },
    Skipped(SkipReason),
}

/// Does jobs until there are no more.
pub(super) fn work(
    worker: usize,
    jobs: &Mutex<Receiver<Job>>,
    reports: &Sender<Report>,
    dest: Dest,
    blobs: &Blobs,
    cancel: &Cancel,
) {
    let mut placer = Placer {
        part: worker.to_string(),
        dest,
        blobs,
        cancel,
        reports,
        fork: blobs.core().fork(),
    };
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        let outcome = placer.run(&job);
        let path = job.entry.path;
        let finished = Report::Finished { path, outcome };
        if reports.send(finished).is_err() {
            return;
        }
    }
}

/// What of a drive's error is the entry's fault, and no reason to stop.
pub(super) fn malformed(error: &DriveError) -> Option<SkipReason> {
    match error {
        DriveError::Blob(_)
        | DriveError::Core(CoreError::OutOfBounds { .. } | CoreError::BytePastEnd { .. }) => {
            Some(SkipReason::Malformed(error.to_string()))
        }
        _ => None,
    }
}

struct Placer<'a> {
    /// The name of this thread's file before it is renamed.
    part: String,
    dest: Dest,
    blobs: &'a Blobs,
    cancel: &'a Cancel,
    reports: &'a Sender<Report>,
    /// That of the blobs core when the job began: what is read from then on may be a later one's.
    fork: u64,
}

/// Why a file was not placed.
enum PlaceError {
    Local(Refused),
    Drive(DriveError),
    Cancelled,
}

impl Placer<'_> {
    fn run(&mut self, job: &Job) -> Result<Outcome, ExportError> {
        let entry = &job.entry;
        if self.cancel.is_cancelled() {
            return Err(ExportError::Cancelled);
        }
        self.fork = self.blobs.core().fork();
        let placed = match job.action {
            Action::Write(op) => self.write(entry, op),
            Action::Compare { overwrite } => self.compare(entry, overwrite),
            Action::SetExecutable => self.set_executable(entry),
            Action::Link(op) => self.link(entry, op),
        };
        placed.or_else(|error| match error {
            PlaceError::Local(Refused::Skip(reason)) => Ok(Outcome::Skipped(reason)),
            PlaceError::Local(Refused::Io(error)) => Err(self.dest.error(&entry.path, error)),
            PlaceError::Drive(error) => match malformed(&error) {
                Some(reason) => Ok(Outcome::Skipped(reason)),
                None => Err(error.into()),
            },
            PlaceError::Cancelled => Err(ExportError::Cancelled),
        })
    }

    fn write(&mut self, entry: &Entry, op: Op) -> Result<Outcome, PlaceError> {
        let blob = entry.value.blob.unwrap_or_default();
        let (folder, name) = self.dest.create_parent(&entry.path)?;
        let parts = self.dest.parts()?;
        let mut file = create(&parts, &self.part, entry.value.executable)?;
        let bytes = self.copy(&blob, &mut file)?;
        parts.rename(&self.part, &folder, name)?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok(Outcome::Done {
            op,
            bytes,
            written: self.written(stamp, blob),
            was_read: true,
        })
    }

    /// Writes a blob's bytes; blocks of zeros become holes.
    fn copy(&self, blob: &BlobId, file: &mut File) -> Result<u64, PlaceError> {
        let mut reader = self.open(blob)?;
        let (mut at, mut hole, mut told) = (0, 0, 0);
        while let Some(block) = self.cancel.block_on(reader.next())?? {
            let len = block.len() as u64;
            if is_zero(&block) {
                hole += len;
            } else {
                if hole > 0 {
                    file.seek(SeekFrom::Start(at))?;
                    hole = 0;
                }
                file.write_all(&block)?;
            }
            at += len;
            if at - told >= PROGRESS_BYTES {
                self.progress(at - told);
                told = at;
                // Bytes that are here are not waited for, so nothing else would notice.
                if self.cancel.is_cancelled() {
                    return Err(PlaceError::Cancelled);
                }
            }
        }
        if hole > 0 {
            file.set_len(at)?;
        }
        self.progress(at - told);
        Ok(at)
    }

    fn compare(&mut self, entry: &Entry, overwrite: bool) -> Result<Outcome, PlaceError> {
        let blob = entry.value.blob.unwrap_or_default();
        let (folder, name) = self.dest.create_parent(&entry.path)?;
        let mut file = open(&folder, name)?;
        if self.is_equal(&blob, &mut file)? {
            let op = make_executable(&file, entry.value.executable)?;
            let stamp = Stamp::of(&file.metadata()?);
            return Ok(Outcome::Done {
                op,
                bytes: stamp.size(),
                written: self.written(stamp, blob),
                was_read: true,
            });
        }
        match overwrite {
            true => self.write(entry, Op::Change),
            false => Ok(Outcome::Skipped(SkipReason::Kept)),
        }
    }

    fn is_equal(&self, blob: &BlobId, file: &mut File) -> Result<bool, PlaceError> {
        let mut reader = self.open(blob)?;
        let mut buffer = Vec::new();
        while let Some(block) = self.cancel.block_on(reader.next())?? {
            buffer.clear();
            file.take(block.len() as u64).read_to_end(&mut buffer)?;
            if buffer != block {
                return Ok(false);
            }
        }
        let at_end = file.read(&mut [0])? == 0;
        Ok(at_end)
    }

    fn set_executable(&mut self, entry: &Entry) -> Result<Outcome, PlaceError> {
        let blob = entry.value.blob.unwrap_or_default();
        let (folder, name) = self.dest.create_parent(&entry.path)?;
        let file = open(&folder, name)?;
        let op = make_executable(&file, entry.value.executable)?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok(Outcome::Done {
            op,
            bytes: 0,
            written: self.written(stamp, blob),
            was_read: false,
        })
    }

    fn link(&mut self, entry: &Entry, op: Op) -> Result<Outcome, PlaceError> {
        let target = entry.value.linkname.clone().unwrap_or_default();
        let (folder, name) = self.dest.create_parent(&entry.path)?;
        let parts = self.dest.parts()?;
        clear(&parts, &self.part)?;
        parts.symlink_contents(&target, &self.part)?;
        parts.rename(&self.part, &folder, name)?;
        Ok(Outcome::Done {
            op,
            bytes: byte_length(&entry.value),
            written: Written::Link { target },
            was_read: false,
        })
    }

    fn written(&self, stamp: Stamp, blob: BlobId) -> Written {
        let fork = self.fork;
        Written::File { stamp, blob, fork }
    }

    fn open(&self, blob: &BlobId) -> Result<BlobReader, PlaceError> {
        Ok(self.cancel.block_on(self.blobs.read(blob, ..))??)
    }

    fn progress(&self, bytes: u64) {
        // Nobody listens once the export has failed elsewhere.
        let _ = self.reports.send(Report::Progress(bytes));
    }
}

impl From<io::Error> for PlaceError {
    fn from(error: io::Error) -> Self {
        Self::Local(error.into())
    }
}

impl From<Refused> for PlaceError {
    fn from(refused: Refused) -> Self {
        Self::Local(refused)
    }
}

impl From<DriveError> for PlaceError {
    fn from(error: DriveError) -> Self {
        Self::Drive(error)
    }
}

impl From<Cancelled> for PlaceError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Removes what a file that was not finished has left.
fn clear(parts: &Dir, name: &str) -> io::Result<()> {
    match parts.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn create(parts: &Dir, name: &str, executable: bool) -> io::Result<File> {
    clear(parts, name)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    set_mode(&mut options, executable);
    parts.open_with(name, &options)
}

#[cfg(unix)]
fn set_mode(options: &mut OpenOptions, executable: bool) {
    use cap_std::fs::OpenOptionsExt;
    options.mode(if executable { 0o777 } else { 0o666 });
}

#[cfg(not(unix))]
fn set_mode(_: &mut OpenOptions, _: bool) {}

/// Opens a file to read, not through a link, not waiting for a pipe's other end.
fn open(folder: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No).nonblock(true);
    folder.open_with(name, &options)
}

/// Sets or clears the executable bits, for those who may read.
fn make_executable(file: &File, executable: bool) -> io::Result<Op> {
    let metadata = file.metadata()?;
    if stamp::is_executable(&metadata) == executable {
        return Ok(Op::Equal);
    }
    set_executable(file, &metadata, executable)
}

#[cfg(unix)]
fn set_executable(
    file: &File,
    metadata: &cap_std::fs::Metadata,
    executable: bool,
) -> io::Result<Op> {
    use cap_std::fs::{MetadataExt, Permissions, PermissionsExt};
    let mode = metadata.mode() & 0o7777;
    let mode = match executable {
        true => mode | (mode & 0o444) >> 2,
        false => mode & !0o111,
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(Op::Change)
}

#[cfg(not(unix))]
fn set_executable(_: &File, _: &cap_std::fs::Metadata, _: bool) -> io::Result<Op> {
    Ok(Op::Equal)
}

fn is_zero(block: &[u8]) -> bool {
    let mut chunks = block.chunks(4096);
    chunks.all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}
