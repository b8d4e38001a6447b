//! The files of a core in memory.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ferrocore_log::storage::files::CoreFiles;
use ferrocore_log::storage::files::block_file::BlockFile;

/// File names and what they hold.
pub(crate) type Contents = HashMap<&'static str, Vec<u8>>;

/// Longest file: real ones are sparse, these are not.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Files that can be copied and opened again.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Contents>>);

struct MemoryFile {
    disk: Disk,
    name: &'static str,
}

impl Disk {
    pub(crate) fn new(files: Contents) -> Self {
        Self(Arc::new(Mutex::new(files)))
    }

    pub(crate) fn contents(&self) -> Contents {
        self.with(|files| files.clone())
    }

    pub(crate) fn file(&self, name: &'static str) -> Box<dyn BlockFile> {
        let disk = self.clone();
        Box::new(MemoryFile { disk, name })
    }

    pub(crate) fn core_files(&self) -> CoreFiles {
        let file = |name| self.file(name);
        CoreFiles {
            directory: PathBuf::from("memory"),
            oplog: file("oplog"),
            tree: file("tree"),
            bitfield: file("bitfield"),
            data: file("data"),
            header: file("header"),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Contents) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MemoryFile {
    fn with<T>(&self, look: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.disk
            .with(|files| look(files.entry(self.name).or_default()))
    }
}

impl BlockFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| bytes.len() as u64))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.with(|bytes| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = bytes.get(start..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        }))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = within(offset.saturating_add(bytes.len() as u64))?;
        self.with(|file| {
            file.resize(file.len().max(end), 0);
            file[end - bytes.len()..end].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = within(len)?;
        self.with(|file| file.resize(len, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.with(|file| {
            let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(file.len());
            let (start, end) = (clamp(range.start), clamp(range.end));
            file.get_mut(start..end).unwrap_or_default().fill(0);
        });
        Ok(())
    }
}

fn within(len: u64) -> io::Result<usize> {
    match usize::try_from(len) {
        Ok(small) if len <= FILE_BYTES_MAX => Ok(small),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}
