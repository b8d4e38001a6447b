//! The folder that is written to. Every path goes through it, one name at a time, and no link is
//! followed: there is no way out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_fs_ext::DirExt;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata};

use super::super::SkipReason;
use super::ExportError;

/// Where files are written before they are renamed: one folder, so that a killed export leaves
/// nothing behind elsewhere. Drives cannot write below it.
const PARTS_FOLDER: &str = ".ferrocore-part";

/// An open folder. Clones share the handle, each has a memory of its own.
#[derive(Clone)]
pub(super) struct Dest {
    root: Arc<Dir>,
    path: PathBuf,
    /// The folder that was opened last: neighbours follow each other.
    last: Option<(String, Arc<Dir>)>,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Local {
    Nothing,
    File(Metadata),
    Link(PathBuf),
    /// A folder, a device, …
    Other,
}

/// Why a path was not touched.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is left as it is.
    Skip(SkipReason),
    /// The folder as a whole cannot be worked on.
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => {
                Self::Skip(SkipReason::Unnameable(error.to_string()))
            }
            io::ErrorKind::IsADirectory => Self::Skip(SkipReason::Occupied),
            _ => Self::Io(error),
        }
    }
}

impl Dest {
    /// Opens the folder at `path`, creating it if there is nothing.
    pub(super) fn open(path: &Path) -> Result<Self, ExportError> {
        let failed = |error| ExportError::local(path, error);
        let open = || Dir::open_ambient_dir(path, ambient_authority());
        let root = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).map_err(failed)?;
                open()
            }
            opened => opened,
        };
        Ok(Self {
            root: Arc::new(root.map_err(failed)?),
            path: path.to_owned(),
            last: None,
        })
    }

    pub(super) fn root(&self) -> &Dir {
        &self.root
    }

    /// An error about a drive path below the folder.
    pub(super) fn error(&self, path: &str, error: io::Error) -> ExportError {
        ExportError::local(&self.path.join(path.trim_start_matches('/')), error)
    }

    /// What is at the drive path `path`.
    pub(super) fn look(&mut self, path: &str) -> Result<Local, Refused> {
        if Path::new(path).starts_with(Path::new("/").join(PARTS_FOLDER)) {
            let reason = "the export itself uses this name".to_owned();
            return Err(Refused::Skip(SkipReason::Unnameable(reason)));
        }
        let (folder, name) = split(path);
        let Some(dir) = self.folder(folder, false)? else {
            return Ok(Local::Nothing);
        };
        let metadata = match dir.symlink_metadata(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Local::Nothing),
            Err(error) => return Err(error.into()),
        };
        let file_type = metadata.file_type();
        Ok(if file_type.is_file() {
            Local::File(metadata)
        } else if file_type.is_symlink() {
            Local::Link(dir.read_link_contents(name)?)
        } else {
            Local::Other
        })
    }

    /// The folder that holds the drive path `path`, created where it is missing, and its name
    /// there.
    pub(super) fn create_parent<'p>(
        &mut self,
        path: &'p str,
    ) -> Result<(Arc<Dir>, &'p str), Refused> {
        let (folder, name) = split(path);
        match self.folder(folder, true)? {
            Some(dir) => Ok((dir, name)),
            None => Err(Refused::Io(io::ErrorKind::NotFound.into())),
        }
    }

    /// Deletes what is at the drive path `path`, and the folders that become empty by it.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), Refused> {
        let (mut folder, name) = split(path);
        let Some(dir) = self.folder(folder, false)? else {
            return Ok(());
        };
        dir.remove_file(name)?;
        drop((dir, self.last.take()));
        while !folder.is_empty() {
            let (parent, name) = split(folder);
            let Some(dir) = self.folder(parent, false)? else {
                break;
            };
            // A folder that is not empty stays.
            if dir.remove_dir(name).is_err() {
                break;
            }
            self.last = None;
            folder = parent;
        }
        Ok(())
    }

    /// The folder where files are written before they are renamed.
    pub(super) fn parts(&mut self) -> Result<Arc<Dir>, Refused> {
        match self.folder(&format!("/{PARTS_FOLDER}"), true)? {
            Some(dir) => Ok(dir),
            None => Err(Refused::Io(io::ErrorKind::NotFound.into())),
        }
    }

    /// Removes what an export has left there.
    pub(super) fn remove_parts(&mut self) {
        self.last = None;
        match self.root.remove_dir_all(PARTS_FOLDER) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot remove {PARTS_FOLDER}");
            }
            _ => {}
        }
    }

    /// Opens a folder, given as a drive path without a slash at its end.
    fn folder(&mut self, folder: &str, create: bool) -> Result<Option<Arc<Dir>>, Refused> {
        if folder.is_empty() {
            return Ok(Some(Arc::clone(&self.root)));
        }
        if let Some((_, dir)) = self.last.as_ref().filter(|(last, _)| last == folder) {
            return Ok(Some(Arc::clone(dir)));
        }
        let mut dir = Arc::clone(&self.root);
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            dir = match step(&dir, name, create)? {
                Some(next) => Arc::new(next),
                None => return Ok(None),
            };
        }
        self.last = Some((folder.to_owned(), Arc::clone(&dir)));
        Ok(Some(dir))
    }
}

/// Opens the folder `name` of `dir`, creating it if asked to.
fn step(dir: &Dir, name: &str, create: bool) -> Result<Option<Dir>, Refused> {
    match dir.open_dir_nofollow(name) {
        Ok(next) => return Ok(Some(next)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(why_not(dir, name, error));
        }
        Err(_) if !create => return Ok(None),
        Err(_) => {}
    }
    match dir.create_dir(name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let opened = dir.open_dir_nofollow(name);
    opened.map(Some).map_err(|error| why_not(dir, name, error))
}

fn why_not(dir: &Dir, name: &str, error: io::Error) -> Refused {
    match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_symlink() => Refused::Skip(SkipReason::ThroughLink),
        Ok(metadata) if !metadata.is_dir() => Refused::Skip(SkipReason::Occupied),
        _ => error.into(),
    }
}

/// A normalised drive path as its folder, without a slash at its end, and its name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
