//! Where the cores of a store are, for those who write them and for those who only read.
//!
//! Knows the directory layout. Does not know what is in a core's files, and opens none to write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ferrocore_primitives::keys::DiscoveryKey;

use super::block_file::{BlockFile, OsFile};
use super::conflicts::ConflictFile;
use super::{CoreFiles, CoreHeader, FileCore, StorageError, io_error};
use crate::storage::Alias;

/// A store's directory.
pub(super) struct Place {
    /// `STORE`.
    pub(super) store: PathBuf,
    /// `STORE/corestore`.
    pub(super) corestore: PathBuf,
    /// `STORE/corestore/cores`.
    pub(super) cores: PathBuf,
    /// `STORE/aliases`.
    pub(super) aliases: PathBuf,
    /// `STORE/keys`.
    pub(super) secrets: PathBuf,
    /// `STORE/drafts`: unsigned changes, a directory for each core that has any.
    pub(super) drafts: PathBuf,
    /// `STORE/conflicts`.
    pub(super) conflicts: PathBuf,
    /// `STORE/guards`, beside which its copy is.
    pub(super) guards: PathBuf,
}

impl Place {
    pub(super) fn new(store: &Path) -> Self {
        let corestore = store.join("corestore");
        Self {
            cores: corestore.join("cores"),
            corestore,
            aliases: store.join("aliases"),
            secrets: store.join("keys"),
            drafts: store.join("drafts"),
            conflicts: store.join("conflicts"),
            store: store.to_owned(),
            guards: store.join("guards"),
        }
    }

    /// The file of the root secret.
    pub(super) fn primary_key(&self) -> PathBuf {
        self.corestore.join("primary-key")
    }

    /// The directory of a core, whether or not it is there.
    pub(super) fn of_core(&self, core: &DiscoveryKey) -> PathBuf {
        let name = core.to_hex();
        let (first, second) = (name.get(..2), name.get(2..4));
        let parents = self.cores.join(first.unwrap_or_default());
        parents.join(second.unwrap_or_default()).join(name)
    }

    /// Where what froze a core is kept.
    pub(super) fn conflict(&self, core: &DiscoveryKey) -> ConflictFile {
        ConflictFile::new(&self.conflicts, core)
    }

    /// As [`Storage::peek`](crate::storage::Storage::peek).
    pub(super) fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        let directory = self.of_core(core);
        FileCore::peek(core, || {
            let path = directory.clone();
            let file =
                |name: &str| -> Box<dyn BlockFile> { Box::new(OsFile::read_only(path.join(name))) };
            Ok(Some(core_files(directory.clone(), file)))
        })
    }

    /// As [`Storage::list`](crate::storage::Storage::list).
    pub(super) fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        let mut cores = Vec::new();
        for first in entries(&self.cores)? {
            for second in entries(&first)? {
                let names = entries(&second)?.into_iter();
                cores.extend(names.filter_map(|path| parse_core(&path)));
            }
        }
        Ok(cores)
    }

    /// As [`Storage::disk_bytes`](crate::storage::Storage::disk_bytes).
    pub(super) fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        let bytes = |path: PathBuf| disk_bytes(&path).map_err(io_error("look at", &path));
        Ok(bytes(self.of_core(core))? + bytes(self.drafts_of(core))?)
    }

    /// The directory of a core's drafts, whether or not there are any.
    pub(super) fn drafts_of(&self, core: &DiscoveryKey) -> PathBuf {
        self.drafts.join(core.to_hex())
    }

    /// The names that the cores themselves tell.
    pub(super) fn names(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        let headers = self.headers()?.into_iter();
        let named = headers.filter_map(|header| {
            let alias = header.alias().or_else(|| header.given_alias())?;
            Some((alias, header.key.discovery_key()))
        });
        Ok(named.collect())
    }

    /// The cores that tell the name they were created under.
    pub(super) fn named(&self) -> Result<Vec<(Alias, CoreHeader)>, StorageError> {
        let headers = self.headers()?.into_iter();
        let named = headers.filter_map(|header| Some((header.alias()?, header)));
        Ok(named.collect())
    }

    /// What the cores that can be read tell of themselves.
    fn headers(&self) -> Result<Vec<CoreHeader>, StorageError> {
        let mut found = Vec::new();
        for core in self.list()? {
            // A core that cannot be read has no name for now; opening it says why.
            let header = self.peek(&core).unwrap_or_else(|error| {
                tracing::warn!(%core, %error, "cannot read a core's name");
                None
            });
            found.extend(header);
        }
        Ok(found)
    }
}

/// The files of the core in `directory`, each as `file` makes it.
pub(super) fn core_files(
    directory: PathBuf,
    file: impl Fn(&str) -> Box<dyn BlockFile>,
) -> CoreFiles {
    CoreFiles {
        oplog: file("oplog"),
        tree: file("tree"),
        bitfield: file("bitfield"),
        data: file("data"),
        header: file("header"),
        directory,
    }
}

/// What a file, or a directory with all that is in it, takes on the disk; nothing if it does not
/// exist.
pub(super) fn disk_bytes(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        metadata => metadata?,
    };
    let mut bytes = allocated(&metadata);
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
pub(super) fn allocated(metadata: &fs::Metadata) -> u64 {
    512 * std::os::unix::fs::MetadataExt::blocks(metadata)
}

#[cfg(not(unix))]
pub(super) fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

/// The entries of a directory; none if it does not exist or is none.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let read = |directory| -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    match read(directory) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        result => result.map_err(io_error("list", directory)),
    }
}

/// The discovery key a core's directory is named after, if it holds a core.
pub(super) fn parse_core(directory: &Path) -> Option<DiscoveryKey> {
    let key = parse_hex(directory.file_name()?.to_str()?)?;
    holds_core(directory).then_some(key.into())
}

/// Whether there is a core in its directory, be it one that lost its oplog: nothing is in `tree` or `bitfield`
/// before that is on the device.
pub(super) fn holds_core(directory: &Path) -> bool {
    let is_written = |name| {
        let metadata = fs::metadata(directory.join(name));
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
    };
    directory.join("oplog").exists() || is_written("tree") || is_written("bitfield")
}

/// 32 bytes of lower-case hexadecimal.
pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes().as_chunks::<2>();
    let (pairs, []) = digits else { return None };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let [high, low] = *pair;
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}
