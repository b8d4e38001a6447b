//! Exclusive locks on files, compatible with those that Node's `fd-lock` takes.
//!
//! | system | lock |
//! |---|---|
//! | Linux, Android | open file description lock over the whole file (`F_OFD_SETLK`) |
//! | other Unix | `flock` |
//! | Windows | the file is opened without sharing |
//!
//! Each belongs to the open file, not to the process: a second open in the same process is
//! refused too, and a killed process leaves no lock behind. A process that another thread starts has the open file, too, until
//! it runs its program; so that this keeps no lock, locks are let go before the file is closed.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::Path;

use super::block_file::BlockFile;
use super::file_system::{Identity, OpenFile};

/// An open file that nobody else has locked until this is dropped.
pub(super) struct LockedFile {
    file: File,
    /// Where it is not the file itself that holds the lock.
    _lock: sys::Lock,
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        sys::unlock(&self.file);
    }
}

impl BlockFile for LockedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        BlockFile::read(&self.file, offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        BlockFile::write(&self.file, offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.file.punch(range)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }
}

impl OpenFile for LockedFile {
    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }
}

/// Opens and locks the file at `path`, or `None` if somebody else has it locked.
pub(super) fn open(path: &Path, create: bool) -> io::Result<Option<LockedFile>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create);
    loop {
        match sys::open(&mut options, path)? {
            // Whoever had it locked put another one in its place, or removed it.
            Some(locked) if !sys::is_at(&locked.file, path)? => {}
            result => return Ok(result),
        }
    }
}

/// Whether the file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        theirs => {
            Ok(theirs.map(|theirs| (theirs.dev(), theirs.ino()))? == (ours.dev(), ours.ino()))
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod sys {
    pub(super) use super::is_at;
    use super::{File, LockedFile, OpenOptions, Path, io};
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    use std::os::unix::fs::OpenOptionsExt;

    /// Nothing to hold.
    pub(super) struct Lock;

    pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<Option<LockedFile>> {
        let file = options.mode(0o600).open(path)?;
        let is_locked = set(&file, libc::F_WRLCK)?;
        Ok(is_locked.then_some(LockedFile { file, _lock: Lock }))
    }

    pub(super) fn unlock(file: &File) {
        // What fails here happens when the file is closed.
        set(file, libc::F_UNLCK).ok();
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "the constants are small; libc types them as int, the struct as short"
    )]
    fn set(file: &File, kind: libc::c_int) -> io::Result<bool> {
        let whole_file = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
mod sys {
    pub(super) use super::is_at;
    use super::{File, LockedFile, OpenOptions, Path, io};
    use nix::errno::Errno;
    use nix::fcntl::{Flock, FlockArg};
    use std::os::unix::fs::OpenOptionsExt;

    /// Which lets go of the lock when dropped.
    pub(super) struct Lock {
        _held: Flock<File>,
    }

    pub(super) fn unlock(_: &File) {}

    pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<Option<LockedFile>> {
        let file = options.mode(0o600).open(path)?;
        match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(LockedFile {
                file,
                _lock: Lock { _held: held },
            })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

#[cfg(windows)]
mod sys {
    use super::{File, LockedFile, OpenOptions, Path, io};
    use std::os::windows::fs::OpenOptionsExt;

    const ERROR_SHARING_VIOLATION: i32 = 32;

    /// Nobody can move a file that is open without sharing.
    pub(super) fn is_at(_: &File, _: &Path) -> io::Result<bool> {
        Ok(true)
    }

    /// Nothing to hold: the lock lives as long as the open file, which no other process gets.
    pub(super) struct Lock;

    pub(super) fn unlock(_: &File) {}

    pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<Option<LockedFile>> {
        match options.share_mode(0).open(path) {
            Ok(file) => Ok(Some(LockedFile { file, _lock: Lock })),
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_file_is_refused_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("primary-key");
        assert!(open(&path, false).is_err(), "it does not exist");
        let held = open(&path, true).unwrap();
        assert!(held.is_some());
        assert!(open(&path, true).unwrap().is_none());
        drop(held);
        assert!(open(&path, false).unwrap().is_some());
    }

    /// Goal: a process that is being started keeps no lock of ours. Method: the file is open a second time, as it is there.
    #[test]
    fn a_lock_is_let_go_while_the_file_is_open_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oplog");
        let held = open(&path, true).unwrap().unwrap();
        let _elsewhere = held.file.try_clone().unwrap();
        drop(held);
        assert!(cfg!(windows) || open(&path, true).unwrap().is_some());
    }
}
