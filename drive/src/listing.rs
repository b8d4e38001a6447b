//! Walking over a drive's entries.
//!
//! Knows how paths lie in the index: under `files`, a zero byte, then the path. Everything below
//! a folder is one range there, from `FOLDER/` up to `FOLDER0` (`0` is the byte after `/`).

use bytes::Bytes;
use ferrocore_bee::{Bee, Range, RangeOptions};

use crate::entry::{Entry, EntryError, EntryValue};
use crate::error::DriveError;

const PREFIX: &[u8] = b"files\0";
const PREFIX_END: &[u8] = b"files\x01";

/// The index's key of a path.
pub(crate) fn key(path: &str) -> Bytes {
    [PREFIX, path.as_bytes()].concat().into()
}

/// What an index entry says, or which path is malformed.
pub(crate) fn entry(entry: ferrocore_bee::Entry) -> Result<Entry, DriveError> {
    let path = entry.key.strip_prefix(PREFIX).unwrap_or(&entry.key);
    let malformed = |source| DriveError::Entry {
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    };
    let text = std::str::from_utf8(path).map_err(|_| malformed(EntryError::path()))?;
    let json = entry.value.as_deref().unwrap_or(b"null");
    Ok(Entry {
        seq: entry.seq,
        path: text.to_owned(),
        value: EntryValue::from_json(json).map_err(malformed)?,
    })
}

/// Entries in byte order of their paths. Made by [`Drive::list`](crate::Drive::list).
pub struct Entries {
    range: Range,
}

impl Entries {
    pub(crate) fn all(bee: &Bee) -> Self {
        Self::between(
            bee,
            RangeOptions {
                gte: Some(Bytes::from_static(PREFIX)),
                lt: Some(Bytes::from_static(PREFIX_END)),
                ..RangeOptions::default()
            },
        )
    }

    pub(crate) fn below(bee: &Bee, folder: &str) -> Self {
        Self::between(
            bee,
            RangeOptions {
                gt: Some(key(&format!("{folder}/"))),
                lt: Some(key(&format!("{folder}0"))),
                ..RangeOptions::default()
            },
        )
    }

    fn between(bee: &Bee, options: RangeOptions) -> Self {
        Self {
            range: bee.range(options),
        }
    }

    /// The next entry. After [`DriveError::Entry`], which names the malformed one, the walk goes
    /// on with the next.
    ///
    /// # Errors
    /// As for [`Drive::entry`](crate::Drive::entry).
    pub async fn next(&mut self) -> Result<Option<Entry>, DriveError> {
        self.range.next().await?.map(entry).transpose()
    }
}

/// A file or a folder directly in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderItem {
    /// Its name, without any slash.
    pub name: String,
    /// Whether it is a folder. A file and a folder may have one name.
    pub is_folder: bool,
    /// The file, or the first entry below the folder.
    pub entry: Entry,
}

/// What is directly in a folder, in byte order. Made by
/// [`Drive::read_dir`](crate::Drive::read_dir).
pub struct Folder {
    bee: Bee,
    folder: String,
    /// Where the search goes on, after the folder's path.
    from: String,
}

impl Folder {
    pub(crate) fn new(bee: &Bee, folder: String) -> Self {
        Self {
            bee: bee.clone(),
            folder,
            from: "/".to_owned(),
        }
    }

    /// The next item; what lies below a folder is skipped, not read.
    ///
    /// # Errors
    /// As for [`Drive::entry`](crate::Drive::entry).
    pub async fn next(&mut self) -> Result<Option<FolderItem>, DriveError> {
        let mut range = self.bee.range(RangeOptions {
            gte: Some(key(&format!("{}{}", self.folder, self.from))),
            lt: Some(key(&format!("{}0", self.folder))),
            limit: Some(1),
            ..RangeOptions::default()
        });
        let Some(found) = range.next().await? else {
            return Ok(None);
        };
        let entry = entry(found)?;
        let below = entry.path.get(self.folder.len() + 1..).unwrap_or_default();
        let (name, is_folder) = match below.split_once('/') {
            Some((name, _)) => (name.to_owned(), true),
            None => (below.to_owned(), false),
        };
        // The byte after `/` ends a folder, a zero byte begins what follows a file.
        let next = if is_folder { '0' } else { '\0' };
        self.from = format!("/{name}{next}");
        Ok(Some(FolderItem {
            name,
            is_folder,
            entry,
        }))
    }
}
