//! The files of one core, opened when they are used and closed when others need the descriptors.
//!
//! Knows descriptors, the lock, and whether a file is still the one that was closed. Does not
//! know what is in the files.
//!
//! # Why an idle core may be without its lock
//!
//! The lock on `oplog` is lost when the file is closed. It is held whenever any file of the core is
//! open, and a core without it is not unguarded: `corestore/primary-key` stays locked as long as
//! the store is open, which keeps out Corestore 6 and every program of ours. What remains is a bare
//! hypercore 10 that opens the core's directory by itself. It is found out: before any file is
//! opened again, `oplog` is locked and must be as it was left: the same file, as long as it was,
//! with the same records in both header slots. Every commit of either program changes the length
//! or a slot's checksum, so whoever changed anything is noticed before anything is read or
//! written, and the core refuses work from then on. The other files must be the same ones.
//!
//! A file that failed to be written out after it was closed tells so at the next sync all the
//! same: Linux keeps an error that nobody was told for whoever opens the file next.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use thiserror::Error;

use super::block_file::BlockFile;
use super::file_system::{FileSystem, Identity, OpenFile, OpenMode};
use super::home::Home;
use super::oplog::SLOT_BYTES;
use super::pool::{Holder, Pool};
use super::record::FRAME_BYTES;

/// The files of a core, by number; [`OPLOG`] is the locked one.
pub(super) const NAMES: [&str; 5] = ["oplog", "tree", "bitfield", "data", "header"];
const OPLOG: usize = 0;

/// What is done with the files of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// They are changed; the oplog must be there.
    Write,
    /// They are changed, and the oplog is created if it is not there.
    Create,
    /// They are read only, and not locked: somebody else may change them meanwhile.
    Read,
}

/// A file cannot be used, or used again after it was closed.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    /// Another program has locked the core.
    #[error("another program has it open")]
    Locked,
    /// Another program changed the core.
    #[error("{0}")]
    Changed(&'static str),
}

/// The directory of one core that this process has open.
pub(super) struct CoreDirectory {
    home: Home,
    access: Access,
    file_system: Arc<dyn FileSystem>,
    pool: Arc<Pool>,
    /// Held shared while a file is used, exclusively to open or close any.
    files: RwLock<Files>,
    /// Since the pool's hand passed.
    used: AtomicBool,
    /// Whether what is in a file may not have reached the device yet: also what whoever had it open before did not sync.
    unsynced: [AtomicBool; NAMES.len()],
    /// Whether the entry of a file in the directory may not have.
    has_new: AtomicBool,
    /// Whether the entry of the directory itself, or of those above it, may not have.
    is_new: AtomicBool,
    /// Kept until all files are closed.
    _guard: Box<dyn Send + Sync>,
}

struct Files {
    /// Locked, unless it is only read.
    oplog: Option<Box<dyn OpenFile>>,
    /// What the oplog was when it was closed.
    seal: Option<Seal>,
    /// All but the oplog, whose place is never used.
    others: [Slot; NAMES.len()],
}

enum Slot {
    /// Never looked for.
    Unknown,
    /// Looked for, and not there. Nobody else creates it.
    Missing,
    Open(Box<dyn OpenFile>, Identity),
    Closed(Identity),
}

/// What is compared of an oplog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    identity: Identity,
    len: u64,
    /// Checksum and length of the records in both header slots.
    frames: [[u8; FRAME_BYTES]; 2],
}

impl CoreDirectory {
    /// Opens the oplog of the core at `home`, and locks it unless it is only read; `None` if
    /// there is none. `guard` is kept until all files are closed for good.
    ///
    /// # Errors
    /// [`Unusable::Locked`] within the error if somebody else has it locked.
    pub(super) fn open(
        home: Home,
        access: Access,
        file_system: Arc<dyn FileSystem>,
        pool: Arc<Pool>,
        guard: Box<dyn Send + Sync>,
    ) -> io::Result<Option<Arc<Self>>> {
        let oplog_path = home.path.join("oplog");
        let oplog = match open_in(&pool, || open_oplog(&*file_system, &oplog_path, access)) {
            Ok(oplog) => oplog,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_settled = access == Access::Write
            && home
                .settled
                .as_ref()
                .is_some_and(|settled| settled.covers(&home.core, &home.path, &*oplog));
        let is_new = || AtomicBool::new(!is_settled);
        let files = Files {
            oplog: Some(oplog),
            seal: None,
            others: [const { Slot::Unknown }; NAMES.len()],
        };
        let directory = Arc::new(Self {
            home,
            access,
            file_system,
            pool,
            files: RwLock::new(files),
            used: AtomicBool::new(true),
            unsynced: NAMES.map(|_| is_new()),
            has_new: is_new(),
            is_new: is_new(),
            _guard: guard,
        });
        directory.join_pool();
        Ok(Some(directory))
    }

    /// The file `name` of the core; one that is only read refuses to be written.
    pub(super) fn file(self: &Arc<Self>, name: &str) -> Box<dyn BlockFile> {
        let number = NAMES.iter().position(|known| *known == name);
        Box::new(PooledFile {
            directory: Arc::clone(self),
            number: number.expect("a core has no other files"),
        })
    }

    /// Runs `work` on a file that stays open meanwhile; on `None` if there is no such file.
    fn with<T>(
        self: &Arc<Self>,
        number: usize,
        create: bool,
        work: impl FnOnce(Option<&dyn OpenFile>) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let files = self.read();
        match files.get(number) {
            Some(None) if create => {}
            Some(file) => return work(file),
            None => {}
        }
        drop(files);
        let mut files = self.write();
        self.ensure_open(&mut files, number, create)?;
        work(files.get(number).flatten())
    }

    fn with_existing<T>(
        self: &Arc<Self>,
        number: usize,
        missing: T,
        work: impl FnOnce(&dyn OpenFile) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with(number, false, |file| file.map_or(Ok(missing), work))
    }

    fn with_created<T>(
        self: &Arc<Self>,
        number: usize,
        work: impl FnOnce(&dyn OpenFile) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let not_there = || io::Error::from(io::ErrorKind::NotFound);
        let done = self.with(number, true, |file| work(file.ok_or_else(not_there)?));
        self.set_unsynced(number, true);
        done
    }

    /// Says whether it was so before.
    fn set_unsynced(&self, number: usize, value: bool) -> bool {
        let unsynced = self.unsynced.get(number);
        unsynced.is_none_or(|unsynced| unsynced.swap(value, Ordering::AcqRel))
    }

    /// Opens a file, the oplog before it.
    fn ensure_open(
        self: &Arc<Self>,
        files: &mut Files,
        number: usize,
        create: bool,
    ) -> io::Result<()> {
        if files.oplog.is_none() {
            files.oplog = Some(self.reopen_oplog(files.seal)?);
            self.join_pool();
        }
        let Some(slot) = files.others.get_mut(number).filter(|_| number != OPLOG) else {
            return Ok(());
        };
        if matches!(slot, Slot::Open(..)) || matches!(slot, Slot::Missing if !create) {
            return Ok(()); // another thread was here first
        }
        let known = match slot {
            Slot::Closed(known) => Some(*known),
            _ => None,
        };
        *slot = match self.open_other(number, create, known)? {
            Some((file, identity)) => Slot::Open(file, identity),
            None => Slot::Missing,
        };
        Ok(())
    }

    /// Opens the file `number`, which must be the `known` one if it was open before.
    fn open_other(
        &self,
        number: usize,
        create: bool,
        known: Option<Identity>,
    ) -> io::Result<Option<(Box<dyn OpenFile>, Identity)>> {
        let path = self.home.path.join(NAMES.get(number).unwrap_or(&""));
        let open = |mode| open_in(&self.pool, || self.file_system.open(&path, mode));
        let mode = match self.access {
            Access::Read => OpenMode::Read,
            Access::Write | Access::Create => OpenMode::Write,
        };
        let opened = match open(mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match known {
                Some(_) => return Err(changed("it was removed")),
                None if !create => return Ok(None),
                None => {
                    let made = open(OpenMode::Create);
                    self.has_new.store(true, Ordering::Release);
                    made
                }
            },
            opened => opened,
        };
        let file = opened?;
        match file.identity() {
            Ok(identity) if known.is_none_or(|known| known == identity) => {
                Ok(Some((file, identity)))
            }
            result => {
                self.pool.release(1);
                result.and(Err(changed("it was replaced")))
            }
        }
    }

    fn reopen_oplog(&self, seal: Option<Seal>) -> io::Result<Box<dyn OpenFile>> {
        let path = self.home.path.join("oplog");
        let access = match self.access {
            Access::Read => Access::Read,
            Access::Write | Access::Create => Access::Write,
        };
        let opened = match open_in(&self.pool, || open_oplog(&*self.file_system, &path, access)) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(changed("it was removed"));
            }
            Err(error) => return Err(error),
        };
        match Seal::of(&*opened) {
            Ok(found) if seal.is_some_and(|seal| found.continues(&seal, access)) => Ok(opened),
            result => {
                self.pool.release(1);
                result.and(Err(changed("its journal is not as it was left")))
            }
        }
    }

    fn join_pool(self: &Arc<Self>) {
        let holder: Arc<dyn Holder> = Arc::clone(self) as _;
        self.pool.join(Arc::downgrade(&holder));
    }

    fn sync(self: &Arc<Self>, number: usize) -> io::Result<()> {
        let was_unsynced = self.set_unsynced(number, false);
        let synced = self.with_existing(number, (), |file| {
            file.sync()?;
            self.sync_entries()
        });
        if synced.is_err() && was_unsynced {
            self.set_unsynced(number, true);
        }
        synced
    }

    /// Makes the files' entries survive a power cut, and with them those of the directories above.
    fn sync_entries(&self) -> io::Result<()> {
        once(&self.has_new, || {
            self.file_system.sync_directory(&self.home.path)
        })?;
        once(&self.is_new, || {
            let mut above = self.home.path.ancestors().skip(1).take(self.home.above);
            above.try_for_each(|above| self.file_system.sync_directory(above))
        })
    }

    /// What the oplog is, if nothing of the core is left to sync.
    fn settled_seal(&self, files: &Files) -> Option<Seal> {
        let parts = self.unsynced.iter().chain([&self.has_new, &self.is_new]);
        if parts.into_iter().any(|part| part.load(Ordering::Acquire)) {
            return None;
        }
        match &files.oplog {
            Some(oplog) => Seal::of(&**oplog).ok(),
            None => files.seal,
        }
    }

    // A panic while files are used leaves them open; nothing is half done.
    fn read(&self) -> RwLockReadGuard<'_, Files> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Files> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for CoreDirectory {
    fn close(&self) -> Option<usize> {
        if self.used.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut files = match self.files.try_write() {
            Ok(files) => files,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // What cannot be recognised later stays open.
        files.close().ok()
    }
}

impl Drop for CoreDirectory {
    fn drop(&mut self) {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(settled) = &self.home.settled {
            settled.closed(self.home.core, self.settled_seal(&files));
        }
        self.pool.release(files.count());
    }
}

impl Files {
    /// The file if it is open; `Some(None)` if it is known not to exist.
    fn get(&self, number: usize) -> Option<Option<&dyn OpenFile>> {
        if number == OPLOG {
            return Some(Some(&**self.oplog.as_ref()?));
        }
        match self.others.get(number)? {
            Slot::Open(file, _) => Some(Some(&**file)),
            Slot::Missing => Some(None),
            Slot::Unknown | Slot::Closed(_) => None,
        }
    }

    fn count(&self) -> usize {
        let open = |slot: &&Slot| matches!(slot, Slot::Open(..));
        self.others.iter().filter(open).count() + usize::from(self.oplog.is_some())
    }

    /// Closes all files, and says how many.
    fn close(&mut self) -> io::Result<usize> {
        let count = self.count();
        if let Some(oplog) = &self.oplog {
            self.seal = Some(Seal::of(&**oplog)?);
        }
        for slot in &mut self.others {
            if let Slot::Open(_, identity) = slot {
                *slot = Slot::Closed(*identity);
            }
        }
        self.oplog = None; // last: while any file is open, the lock is held
        Ok(count)
    }
}

impl Seal {
    /// Whether an oplog sealed as `earlier` may have become this one.
    fn continues(&self, earlier: &Self, access: Access) -> bool {
        match access {
            // Whoever writes it may have gone on; what that means for the reader is checked there.
            Access::Read => self.identity == earlier.identity,
            Access::Write | Access::Create => self == earlier,
        }
    }

    pub(super) fn of(file: &dyn OpenFile) -> io::Result<Self> {
        let (identity, len) = (file.identity()?, file.len()?);
        let mut frames = [[0; FRAME_BYTES]; 2];
        for (frame, slot) in frames.iter_mut().zip(0..) {
            let offset = slot * SLOT_BYTES as u64;
            let count = file.read(offset, frame)?;
            if count < frame.len() && offset + (count as u64) < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self {
            identity,
            len,
            frames,
        })
    }
}

/// Does `work` if the flag is set, which is not after that.
fn once(flag: &AtomicBool, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match flag.swap(false, Ordering::AcqRel) {
        true => work().inspect_err(|_| flag.store(true, Ordering::Release)),
        false => Ok(()),
    }
}

/// Opens an oplog, and locks it unless it is only read.
fn open_oplog(
    files: &dyn FileSystem,
    path: &Path,
    access: Access,
) -> io::Result<Box<dyn OpenFile>> {
    if access == Access::Read {
        return files.open(path, OpenMode::Read);
    }
    let locked = files.lock(path, access == Access::Create)?;
    locked.ok_or_else(|| io::Error::other(Unusable::Locked))
}

/// Opens one file, counted in `pool`. When no descriptor is left, cores give some back.
fn open_in<T>(pool: &Pool, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    pool.reserve(1);
    let opened = open().or_else(|error| match is_exhausted(&error) {
        true => {
            pool.shrink();
            open()
        }
        false => Err(error),
    });
    opened.inspect_err(|_| pool.release(1))
}

#[cfg(unix)]
fn is_exhausted(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

#[cfg(not(unix))]
fn is_exhausted(_: &io::Error) -> bool {
    false
}

fn changed(how: &'static str) -> io::Error {
    io::Error::other(Unusable::Changed(how))
}

/// One file of a core, open as long as the pool lets it.
struct PooledFile {
    directory: Arc<CoreDirectory>,
    number: usize,
}

impl BlockFile for PooledFile {
    fn len(&self) -> io::Result<u64> {
        let directory = &self.directory;
        directory.with_existing(self.number, 0, |file| file.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let directory = &self.directory;
        directory.with_existing(self.number, 0, |file| file.read(offset, buffer))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let directory = &self.directory;
        directory.with_created(self.number, |file| file.write(offset, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let directory = &self.directory;
        directory.with_created(self.number, |file| file.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.directory.sync(self.number)
    }

    fn is_synced(&self) -> bool {
        let unsynced = self.directory.unsynced.get(self.number);
        unsynced.is_some_and(|unsynced| !unsynced.load(Ordering::Acquire))
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let directory = &self.directory;
        let done = directory.with_existing(self.number, (), |file| file.punch(range));
        directory.set_unsynced(self.number, true);
        done
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let directory = &self.directory;
        directory.with_existing(self.number, None, |file| file.next_data(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_system::OsFileSystem;
    use super::*;

    /// Goal: what could not be opened is not counted: the pool would close others for it for ever.
    #[test]
    fn files_that_cannot_be_opened_are_not_counted() {
        let directory = tempfile::tempdir().unwrap();
        let pool = Arc::new(Pool::new(Some(8)));
        let open = |access| {
            let (files, pool) = (Arc::new(OsFileSystem), Arc::clone(&pool));
            let home = Home {
                core: [1; 32].into(),
                path: directory.path().to_owned(),
                above: 0,
                settled: None,
            };
            CoreDirectory::open(home, access, files, pool, Box::new(()))
        };
        assert!(open(Access::Write).unwrap().is_none());
        assert_eq!(pool.open(), 0);
        let core = open(Access::Create).unwrap().unwrap();
        assert!(open(Access::Write).is_err(), "it is locked");
        assert_eq!(pool.open(), 1);
        std::fs::create_dir(directory.path().join("tree")).unwrap();
        assert!(core.file("tree").len().is_err());
        core.file("data").write(0, b"data").unwrap();
        assert_eq!(pool.open(), 2);
        drop(core);
        assert_eq!(pool.open(), 0);
    }
}
