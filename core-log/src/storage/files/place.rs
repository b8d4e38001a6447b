//! Where the cores of a store are, for those who write them and for those who only read.
//!
//! Knows the directory layout. Does not know what is in a core's files, and opens none to write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrocore_primitives::keys::DiscoveryKey;

use super::aliases::{Told, Unread};
use super::block_file::BlockFile;
use super::conflicts::ConflictFile;
use super::file_system::{FileAccess, FileSystem};
use super::{CoreFiles, CoreHeader, FileCore, StorageError, io_error};
use crate::storage::Alias;

/// A store's directory.
pub(super) struct Place {
    /// Which tells what is there.
    pub(super) files: Arc<dyn FileSystem>,
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
    /// `STORE/root`: which root secret the store has.
    pub(super) root: PathBuf,
    /// `STORE/purges`: which cores are being purged.
    pub(super) purges: PathBuf,
}

impl Place {
    pub(super) fn new(files: Arc<dyn FileSystem>, store: &Path) -> Self {
        let corestore = store.join("corestore");
        Self {
            files,
            cores: corestore.join("cores"),
            corestore,
            aliases: store.join("aliases"),
            secrets: store.join("keys"),
            drafts: store.join("drafts"),
            conflicts: store.join("conflicts"),
            store: store.to_owned(),
            guards: store.join("guards"),
            root: store.join("root"),
            purges: store.join("purges"),
        }
    }

    /// The file of the root secret.
    pub(super) fn primary_key(&self) -> PathBuf {
        self.corestore.join("primary-key")
    }

    /// The file in which the holder of the store leaves its process id.
    pub(super) fn holder(&self) -> PathBuf {
        self.store.join("pid")
    }

    /// The directory of a core, whether or not it is there.
    pub(super) fn of_core(&self, core: &DiscoveryKey) -> PathBuf {
        let name = core.to_hex();
        let (first, second) = (name.get(..2), name.get(2..4));
        let parents = self.cores.join(first.unwrap_or_default());
        parents.join(second.unwrap_or_default()).join(name)
    }

    /// The file of a core's secret key, if that was imported.
    pub(super) fn secret_of(&self, core: &DiscoveryKey) -> PathBuf {
        self.secrets.join(core.to_hex())
    }

    /// The file in which a program above may keep what a core is encrypted with.
    pub(super) fn encryption_key_of(&self, core: &DiscoveryKey) -> PathBuf {
        self.secret_of(core).with_extension("encryption")
    }

    /// The file of what froze a core.
    pub(super) fn conflict_of(&self, core: &DiscoveryKey) -> PathBuf {
        self.conflicts.join(core.to_hex())
    }

    /// Where what froze a core is kept.
    pub(super) fn conflict(&self, core: &DiscoveryKey) -> ConflictFile {
        ConflictFile::new(Arc::clone(&self.files), self.conflict_of(core))
    }

    /// As [`Storage::peek`](crate::storage::Storage::peek).
    pub(super) fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        let directory = self.of_core(core);
        FileCore::peek(core, || {
            let path = directory.clone();
            let file = |name: &str| self.files.file(&path.join(name), FileAccess::Read);
            Ok(Some(core_files(directory.clone(), file)))
        })
    }

    /// As [`Storage::list`](crate::storage::Storage::list).
    pub(super) fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        let mut cores = Vec::new();
        for first in self.entries(&self.cores)? {
            for second in self.entries(&first)? {
                cores.extend(self.cores_in(&second)?);
            }
        }
        Ok(cores)
    }

    /// The cores whose directories are in `directory`, which are named after their discovery keys.
    pub(super) fn cores_in(&self, directory: &Path) -> Result<Vec<DiscoveryKey>, StorageError> {
        let mut cores = Vec::new();
        for path in self.entries(directory)? {
            if let Some(core) = core_of(&path)
                && self.holds_core(&path)?
            {
                cores.push(core);
            }
        }
        Ok(cores)
    }

    /// Whether there is a core in its directory, be it one that lost its oplog: nothing is in `tree` or `bitfield`
    /// before that is on the device.
    ///
    /// # Errors
    /// [`StorageError::Io`] if that cannot be told: it must not be taken for one that is not there.
    pub(super) fn holds_core(&self, directory: &Path) -> Result<bool, StorageError> {
        let look = |name| {
            let path = directory.join(name);
            let found = self.files.look(&path);
            found.map_err(io_error("look at", &path))
        };
        let is_written = |name| {
            let found = look(name)?;
            Ok(found.is_some_and(|entry| !entry.is_directory && entry.len > 0))
        };
        Ok(look("oplog")?.is_some() || is_written("tree")? || is_written("bitfield")?)
    }

    /// The entries of a directory; none if it does not exist or is none.
    pub(super) fn entries(&self, directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
        let entries = self.files.entries(directory);
        entries.map_err(io_error("list", directory))
    }

    /// As [`Storage::disk_bytes`](crate::storage::Storage::disk_bytes).
    pub(super) fn disk_bytes(&self, core: &DiscoveryKey) -> Result<u64, StorageError> {
        Ok(self.bytes_at(&self.of_core(core))? + self.bytes_at(&self.drafts_of(core))?)
    }

    /// What a file, or a directory with all that is in it, takes on the disk; nothing if it does not
    /// exist.
    pub(super) fn bytes_at(&self, path: &Path) -> Result<u64, StorageError> {
        let found = self.files.look(path).map_err(io_error("look at", path))?;
        let Some(found) = found else { return Ok(0) };
        let mut bytes = found.allocated;
        if found.is_directory {
            for path in self.entries(path)? {
                bytes += self.bytes_at(&path)?;
            }
        }
        Ok(bytes)
    }

    /// The directory of a core's drafts, whether or not there are any.
    pub(super) fn drafts_of(&self, core: &DiscoveryKey) -> PathBuf {
        self.drafts.join(core.to_hex())
    }

    /// The names that the cores themselves tell.
    pub(super) fn names(&self) -> Result<Told, StorageError> {
        let (headers, unread) = self.headers()?;
        let named = headers.into_iter().filter_map(|header| {
            let alias = header.alias().or_else(|| header.given_alias())?;
            Some((alias, header.key.discovery_key()))
        });
        Ok(Told {
            names: named.collect(),
            unread,
        })
    }

    /// The cores that tell the name they were created under.
    pub(super) fn named(&self) -> Result<Vec<(Alias, CoreHeader)>, StorageError> {
        let (headers, _) = self.headers()?;
        let named = headers
            .into_iter()
            .filter_map(|header| Some((header.alias()?, header)));
        Ok(named.collect())
    }

    /// What the cores that can be read tell of themselves, and those that cannot.
    fn headers(&self) -> Result<(Vec<CoreHeader>, Vec<Unread>), StorageError> {
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        for core in self.list()? {
            // A core that cannot be read has no name for now; opening it says why.
            let header = self.peek(&core).unwrap_or_else(|error| {
                tracing::warn!(%core, %error, "cannot read a core's name");
                let path = self.of_core(&core);
                unread.push(Unread { core, path });
                None
            });
            found.extend(header);
        }
        Ok((found, unread))
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

/// The discovery key that a path ends with.
pub(super) fn core_of(path: &Path) -> Option<DiscoveryKey> {
    Some(parse_hex(path.file_name()?.to_str()?)?.into())
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
