//! Walking a local folder in the order of drive paths, links not followed.
//!
//! Memory: the names of the folders on the way. A folder sorts as if its name ended with `/`,
//! which makes the walk's order that of the paths' bytes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use cap_fs_ext::{DirExt, MetadataExt};
use cap_std::fs::{Dir, Metadata};

use super::SkipReason;
use crate::path;

/// Deepest folder that is entered. Each level keeps a directory open.
const DEPTH_MAX: usize = 200;

/// Files and folders are told apart by device and inode.
pub(super) type FileId = (u64, u64);

pub(super) fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// A walk over everything below a folder that is not a folder.
pub(super) struct Walk {
    levels: Vec<Level>,
    exclude: HashSet<FileId>,
}

/// Something that was met.
#[derive(Debug)]
pub(super) struct Found {
    /// Below the walk's folder.
    pub(super) local: PathBuf,
    /// In a drive; `None` for names that drives cannot have.
    pub(super) path: Option<String>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    File(Place, Metadata),
    Link(Place),
    Skipped(SkipReason),
    SkippedFolder(SkipReason),
}

/// A name in an open directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) dir: Arc<Dir>,
    pub(super) name: OsString,
}

struct Level {
    dir: Arc<Dir>,
    local: PathBuf,
    names: vec::IntoIter<Name>,
}

struct Name {
    name: OsString,
    is_folder: bool,
}

impl Walk {
    /// A walk below `root` that leaves out `exclude`.
    pub(super) fn new(root: Dir, exclude: HashSet<FileId>) -> io::Result<Self> {
        let names = sorted_names(&root)?;
        let level = Level {
            dir: Arc::new(root),
            local: PathBuf::new(),
            names,
        };
        Ok(Self {
            levels: vec![level],
            exclude,
        })
    }

    fn visit(&mut self, place: Place, local: PathBuf, is_folder: bool) -> Option<Found> {
        let kind = if is_folder {
            Kind::SkippedFolder(self.enter(&place, &local).err()?)
        } else {
            self.look(place)?
        };
        let (path, kind) = match (drive_path(&local), kind) {
            (Ok(path), kind) => (Some(path), kind),
            (Err(reason), Kind::File(..) | Kind::Link(_)) => (None, Kind::Skipped(reason)),
            (Err(_), kind) => (None, kind),
        };
        Some(Found { local, path, kind })
    }

    fn look(&self, place: Place) -> Option<Kind> {
        let metadata = match place.dir.symlink_metadata(&place.name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Kind::Skipped(SkipReason::Unreadable(error.to_string()))),
        };
        if self.exclude.contains(&file_id(&metadata)) {
            return None;
        }
        let file_type = metadata.file_type();
        Some(if file_type.is_file() {
            Kind::File(place, metadata)
        } else if file_type.is_symlink() {
            Kind::Link(place)
        } else {
            Kind::Skipped(SkipReason::Special)
        })
    }

    fn enter(&mut self, place: &Place, local: &Path) -> Result<(), SkipReason> {
        if self.levels.len() >= DEPTH_MAX {
            return Err(SkipReason::TooDeep);
        }
        match self.open(place) {
            Ok(Some((dir, names))) => {
                self.levels.push(Level {
                    dir: Arc::new(dir),
                    local: local.to_owned(),
                    names,
                });
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SkipReason::Unreadable(error.to_string())),
        }
    }

    fn open(&self, place: &Place) -> io::Result<Option<(Dir, vec::IntoIter<Name>)>> {
        let dir = place.dir.open_dir_nofollow(&place.name)?;
        if !self.exclude.is_empty() && self.exclude.contains(&file_id(&dir.dir_metadata()?)) {
            return Ok(None);
        }
        let names = sorted_names(&dir)?;
        Ok(Some((dir, names)))
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(Name { name, is_folder }) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let local = level.local.join(&name);
            let place = Place {
                dir: Arc::clone(&level.dir),
                name,
            };
            if let Some(found) = self.visit(place, local, is_folder) {
                return Some(found);
            }
        }
    }
}

impl Name {
    /// Orders as the drive paths below this name do.
    fn order(&self) -> impl Iterator<Item = u8> + '_ {
        let slash = self.is_folder.then_some(b'/');
        self.name.as_encoded_bytes().iter().copied().chain(slash)
    }
}

fn sorted_names(dir: &Dir) -> io::Result<vec::IntoIter<Name>> {
    let mut names = Vec::new();
    for entry in dir.entries()? {
        let entry = entry?;
        names.push(Name {
            name: entry.file_name(),
            is_folder: entry.file_type()?.is_dir(),
        });
    }
    names.sort_unstable_by(|a, b| a.order().cmp(b.order()));
    Ok(names.into_iter())
}

/// The drive path of a local one, if every peer will read it the same.
fn drive_path(local: &Path) -> Result<String, SkipReason> {
    let mut path = String::new();
    for name in local {
        path.push('/');
        path.push_str(name.to_str().ok_or(SkipReason::NotUtf8)?);
    }
    match path::is_portable(&path) {
        true => Ok(path),
        false => Err(SkipReason::NotPortable),
    }
}
