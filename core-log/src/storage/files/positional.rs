//! An open file by position: what each operating system offers for it.
//!
//! Knows system calls. Does not know paths, nor who keeps the file open.

use std::fs::File;
use std::io;
use std::ops::Range;

pub(super) use sys::{next_data, sync_all, sync_directory, write_all_at};

/// Fills `buffer` from `offset` on as far as the file goes, and says how far.
pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest @ [_, ..]) = buffer.get_mut(done..) {
        match sys::read_at(file, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Makes `range` read as zeros within the file's length, and gives its space back if possible.
pub(super) fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    let end = range.end.min(file.metadata()?.len());
    if range.start >= end || sys::punch(file, range.start..end)? {
        return Ok(());
    }
    overwrite(file, range.start..end)
}

/// Zeros for file systems that cannot punch holes.
fn overwrite(file: &File, range: Range<u64>) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    let mut offset = range.start;
    while offset < range.end {
        let count = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..count).unwrap_or(ZEROS);
        sys::write_all_at(file, zeros, offset)?;
        offset += zeros.len() as u64;
    }
    Ok(())
}

/// Takes all of the file for data, where nobody tells its holes.
fn any_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    Ok((offset < file.metadata()?.len()).then_some(offset))
}

#[cfg(unix)]
mod sys {
    use super::{File, Range, any_data, io};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(in crate::storage::files) fn write_all_at(
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Makes the entries of `directory` survive a power cut.
    pub(in crate::storage::files) fn sync_directory(directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    /// Syncs the file system that `directory` is on, which is returned open; `None` if that is not known to reach the device.
    ///
    /// It does in ext2 to ext4, which flush the device also where nothing but blocks was written, and in btrfs, which writes
    /// nothing in its place; what is in memory is beyond help. XFS flushes nothing where its log is clean, though bytes that took
    /// the place of others may be in the device's cache; and who has files elsewhere, as over a network or in a program, may not
    /// be asked at all.
    #[cfg(target_os = "linux")]
    pub(in crate::storage::files) fn sync_all(directory: &Path) -> io::Result<Option<File>> {
        use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, fstatfs};
        let directory = File::open(directory)?;
        let kind = fstatfs(&directory)?.filesystem_type();
        if ![EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind) {
            return Ok(None);
        }
        nix::unistd::syncfs(&directory)?;
        Ok(Some(directory))
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::storage::files) fn sync_all(_: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    /// Whether the file system could punch the hole.
    #[cfg(target_os = "linux")]
    pub(super) fn punch(file: &File, range: Range<u64>) -> io::Result<bool> {
        use nix::errno::Errno;
        use nix::fcntl::{FallocateFlags, fallocate};
        let too_far = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let offset = i64::try_from(range.start).map_err(too_far)?;
        let len = i64::try_from(range.end - range.start).map_err(too_far)?;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn punch(_: &File, _: Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    #[cfg(target_os = "linux")]
    pub(in crate::storage::files) fn next_data(
        file: &File,
        offset: u64,
    ) -> io::Result<Option<u64>> {
        use nix::errno::Errno;
        use nix::unistd::{Whence, lseek64};
        let Ok(from) = i64::try_from(offset) else {
            return Ok(None);
        };
        // The cursor it moves is of no meaning here: reads and writes are positional.
        match lseek64(file, from, Whence::SeekData) {
            Ok(found) => Ok(u64::try_from(found).ok()),
            Err(Errno::ENXIO) => Ok(None),
            Err(Errno::EINVAL) => any_data(file, offset),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::storage::files) use any_data as next_data;
}

#[cfg(windows)]
mod sys {
    use super::{File, Range, io};
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(in crate::storage::files) fn write_all_at(
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let count = file.seek_write(rest, offset)?;
            let (_, behind) = rest
                .split_at_checked(count)
                .ok_or(io::ErrorKind::WriteZero)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            (offset, rest) = (offset + count as u64, behind);
        }
        Ok(())
    }

    /// Windows has no such thing; directory entries are journaled by the file system.
    pub(in crate::storage::files) fn sync_directory(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::storage::files) fn sync_all(_: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    pub(super) fn punch(_: &File, _: Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    pub(in crate::storage::files) use super::any_data as next_data;
}

#[cfg(not(any(unix, windows)))]
compile_error!("the feature `files` needs Unix or Windows; use memory storage elsewhere");

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: without holes, zeros are written, neither more nor fewer than were asked for.
    #[test]
    fn what_cannot_be_punched_is_overwritten() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[1; 200_000]).unwrap();
        overwrite(&file, 7..150_001).unwrap();
        let mut back = vec![7; 200_001];
        assert_eq!(read_at(&file, 0, &mut back).unwrap(), 200_000);
        let zeros = back.iter().filter(|byte| **byte == 0).count();
        assert_eq!((zeros, back[6], back[150_001]), (150_001 - 7, 1, 1));
    }
}
