//! A store's files and directories, on a real disk, that fail when asked to and remember every change.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::file_system::{
    Entry, FileAccess, FileSystem, Identity, OpenFile, OpenMode, OsFileSystem,
};

use super::{Fault, FaultKind, What};

/// The operating system's files and directories below one of them. Nothing is synced: who kills the process that tests
/// this, has no use for what it wrote.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Mutex<State>>);

struct State {
    fault: Option<Fault>,
    /// Whether what is done with the open files of a core counts.
    counts_cores: bool,
    calls: Vec<Call>,
    changes: Vec<TreeChange>,
    /// How many files are open, of those that stay so.
    open: usize,
    found_none: bool,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// What is there.
    Look,
    /// Bytes, which may be fewer than there are.
    Read,
    Change,
    /// A file to stay open, for which there may be no descriptor left.
    Open,
}

impl Call {
    /// Every way in which it may fail, as the call of this number: with a broken disk, and a full or a short one where that
    /// makes a difference; once and from then on.
    pub(crate) fn faults(self, call: usize) -> impl Iterator<Item = Fault> {
        let kinds: &[_] = match self {
            Self::Look => &[FaultKind::Broken],
            Self::Read => &[FaultKind::Broken, FaultKind::ShortRead],
            Self::Change => &[FaultKind::Broken, FaultKind::Short],
            Self::Open => &[FaultKind::Broken, FaultKind::Exhausted],
        };
        let both = |kind: &FaultKind| [(*kind, false), (*kind, true)];
        let all = kinds.iter().flat_map(both);
        all.map(move |(kind, lasts)| Fault { call, lasts, kind })
    }
}

/// One change of what is below a directory.
#[derive(Debug, Clone)]
pub(crate) enum TreeChange {
    CreateFile(PathBuf),
    CreateDirectory(PathBuf),
    Content(PathBuf, What),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDirectory(PathBuf),
    /// Of all there is.
    SyncAll,
}

impl Watched {
    /// One on which the open files of cores never fail.
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self::with(fault, false)
    }

    /// One on which any file may fail.
    pub(crate) fn with_cores(fault: Option<Fault>) -> Self {
        Self::with(fault, true)
    }

    fn with(fault: Option<Fault>, counts_cores: bool) -> Self {
        let (calls, changes) = (Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(State {
            fault,
            counts_cores,
            calls,
            changes,
            open: 0,
            found_none: false,
        })))
    }

    /// As a store takes it.
    pub(crate) fn files(&self) -> Arc<dyn FileSystem> {
        Arc::new(self.clone())
    }

    /// All that it was asked for, in order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Every change so far, in order.
    pub(crate) fn changes(&self) -> Vec<TreeChange> {
        self.lock().changes.clone()
    }

    /// How many files are open, of those that are opened by hand.
    pub(crate) fn open_files(&self) -> usize {
        self.lock().open
    }

    /// How many changes there were.
    pub(crate) fn now(&self) -> usize {
        self.lock().changes.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn changed(&self, change: TreeChange) {
        self.lock().changes.push(change);
    }

    /// Counts a call, and says whether it is one that fails.
    fn fault(&self, what: Call) -> Option<FaultKind> {
        let mut state = self.lock();
        let call = state.calls.len();
        state.calls.push(what);
        let fault = state.fault?;
        let fails = call == fault.call || fault.lasts && call > fault.call;
        fails.then_some(fault.kind)
    }

    /// As [`Self::fault`], where the file at `path` is held open.
    fn fault_of(&self, path: &Path, what: Call) -> Option<FaultKind> {
        let is_of_core = path.parent().and_then(Path::file_name);
        let is_of_core = is_of_core.is_some_and(|above| above.len() == 2 * 32);
        if is_of_core && !self.lock().counts_cores {
            return None;
        }
        let fault = self.fault(what);
        match fault {
            // A core finds a descriptor for its files, if there is any.
            Some(FaultKind::Exhausted) if is_of_core => self.lock().found_none = true,
            _ => {}
        }
        fault
    }

    /// Whether a file of a core was not opened since no descriptor was left.
    pub(crate) fn found_no_descriptor(&self) -> bool {
        self.lock().found_none
    }

    fn look<T>(&self, look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        do_unless(self.fault(Call::Look), look)
    }

    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        do_unless(self.fault(Call::Change), change)
    }

    fn remove_below(&self, directory: &Path, count_max: usize) -> io::Result<()> {
        for path in OsFileSystem.entries(directory)?.iter().take(count_max) {
            match OsFileSystem.look(path)?.is_some_and(|e| e.is_directory) {
                true => self.remove_whole(path)?,
                false => {
                    OsFileSystem.remove_file(path)?;
                    self.changed(TreeChange::Remove(path.clone()));
                }
            }
        }
        Ok(())
    }

    fn remove_whole(&self, directory: &Path) -> io::Result<()> {
        self.remove_below(directory, usize::MAX)?;
        OsFileSystem.remove_empty(directory)?;
        self.changed(TreeChange::Remove(directory.to_owned()));
        Ok(())
    }

    fn watch<F: ?Sized>(&self, path: &Path, inner: Box<F>, is_held: bool) -> WatchedFile<F> {
        WatchedFile {
            disk: self.clone(),
            path: path.to_owned(),
            inner,
            is_held,
            is_new: AtomicBool::new(false),
        }
    }

    /// A file that is open from now on, and was made just now if it is not there yet.
    fn hold(&self, path: &Path, is_new: bool, file: Box<dyn OpenFile>) -> Box<dyn OpenFile> {
        if is_new {
            self.changed(TreeChange::CreateFile(path.to_owned()));
        }
        self.lock().open += 1;
        Box::new(self.watch(path, file, true))
    }
}

impl FileSystem for Watched {
    fn file(&self, path: &Path, access: FileAccess) -> Box<dyn BlockFile> {
        Box::new(self.watch(path, OsFileSystem.file(path, access), false))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn OpenFile>> {
        do_unless(self.fault_of(path, Call::Open), || {
            let is_new = !path.exists();
            let file = OsFileSystem.open(path, mode)?;
            Ok(self.hold(path, is_new, file))
        })
    }

    fn lock(&self, path: &Path, create: bool) -> io::Result<Option<Box<dyn OpenFile>>> {
        do_unless(self.fault_of(path, Call::Open), || {
            let is_new = !path.exists();
            let locked = OsFileSystem.lock(path, create)?;
            Ok(locked.map(|locked| self.hold(path, is_new, locked)))
        })
    }

    fn look(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.look(|| OsFileSystem.look(path))
    }

    fn entries(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = self.look(|| OsFileSystem.entries(directory))?;
        entries.sort_unstable(); // so that each run makes the same calls
        Ok(entries)
    }

    fn create_directory(&self, path: &Path, is_private: bool) -> io::Result<()> {
        self.change(|| {
            let above = path.ancestors().take_while(|above| !above.exists());
            let new: Vec<_> = above.map(Path::to_owned).collect();
            OsFileSystem.create_directory(path, is_private)?;
            let new = new.into_iter().rev().map(TreeChange::CreateDirectory);
            new.for_each(|change| self.changed(change));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|| {
            OsFileSystem.rename(from, to)?;
            self.changed(TreeChange::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|| {
            if path.exists() {
                OsFileSystem.remove_file(path)?;
                self.changed(TreeChange::Remove(path.to_owned()));
            }
            Ok(())
        })
    }

    fn remove_empty(&self, path: &Path) -> io::Result<()> {
        self.change(|| {
            OsFileSystem.remove_empty(path)?;
            self.changed(TreeChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        let fault = self.fault(Call::Change);
        match fault {
            _ if !path.exists() => {}
            None | Some(FaultKind::ShortRead) => self.remove_whole(path)?,
            Some(FaultKind::Short) => self.remove_below(path, 2)?,
            Some(_) => {}
        }
        match fault.filter(|fault| !matches!(fault, FaultKind::ShortRead)) {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.look(|| match path.exists() {
            true => {
                self.changed(TreeChange::SyncDirectory(path.to_owned()));
                Ok(())
            }
            false => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn sync_all(&self, path: &Path) -> io::Result<Option<Identity>> {
        self.look(|| {
            let directory = OsFileSystem.open(path, OpenMode::Read)?;
            self.changed(TreeChange::SyncAll);
            directory.identity().map(Some)
        })
    }
}

/// What a call comes to that may fail. What fails in the [short](FaultKind::Short) way, and has no halves, is done all the same.
fn do_unless<T>(fault: Option<FaultKind>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match fault {
        None | Some(FaultKind::ShortRead) => call(),
        Some(FaultKind::Short) => call().and(Err(FaultKind::Short.into())),
        Some(fault) => Err(fault.into()),
    }
}

struct WatchedFile<F: ?Sized> {
    disk: Watched,
    path: PathBuf,
    inner: Box<F>,
    /// Whether it is open until it is dropped.
    is_held: bool,
    /// Whether this handle made it: then a sync covers its entry, too.
    is_new: AtomicBool,
}

impl<F: ?Sized> WatchedFile<F> {
    fn fault(&self, what: Call) -> Option<FaultKind> {
        match self.is_held {
            true => self.disk.fault_of(&self.path, what),
            false => self.disk.fault(what),
        }
    }

    fn made(&self) {
        if !self.is_held && !self.path.exists() {
            self.is_new.store(true, Ordering::Relaxed);
            self.disk.changed(TreeChange::CreateFile(self.path.clone()));
        }
    }

    fn changed(&self, what: What) {
        let change = TreeChange::Content(self.path.clone(), what);
        self.disk.changed(change);
    }
}

impl<F: ?Sized> Drop for WatchedFile<F> {
    fn drop(&mut self) {
        if self.is_held {
            self.disk.lock().open -= 1;
        }
    }
}

impl<F: BlockFile + ?Sized> BlockFile for WatchedFile<F> {
    fn len(&self) -> io::Result<u64> {
        do_unless(self.fault(Call::Look), || self.inner.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.fault(Call::Read) {
            None => self.inner.read(offset, buffer),
            Some(FaultKind::ShortRead) => Ok(self.inner.read(offset, buffer)? / 2),
            Some(fault) => Err(fault.into()),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.fault(Call::Change);
        let bytes = match fault {
            None | Some(FaultKind::ShortRead) => bytes,
            Some(FaultKind::Short) => &bytes[..bytes.len() / 2],
            Some(fault) => return Err(fault.into()),
        };
        self.made();
        self.inner.write(offset, bytes)?;
        let bytes = bytes.into();
        self.changed(What::Write { offset, bytes });
        match fault.filter(|fault| matches!(fault, FaultKind::Short)) {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        do_unless(self.fault(Call::Change), || {
            self.made();
            self.inner.set_len(len)?;
            self.changed(What::SetLen(len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        do_unless(self.fault(Call::Look), || {
            if self.path.exists() {
                self.changed(What::Sync);
            }
            if self.is_new.swap(false, Ordering::Relaxed)
                && let Some(above) = self.path.parent()
            {
                let change = TreeChange::SyncDirectory(above.to_owned());
                self.disk.changed(change);
            }
            Ok(())
        })
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        do_unless(self.fault(Call::Change), || {
            self.inner.punch(range.clone())?;
            self.changed(What::Punch(range));
            Ok(())
        })
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        do_unless(self.fault(Call::Look), || self.inner.next_data(offset))
    }
}

impl OpenFile for WatchedFile<dyn OpenFile> {
    fn identity(&self) -> io::Result<Identity> {
        do_unless(self.fault(Call::Look), || self.inner.identity())
    }
}
