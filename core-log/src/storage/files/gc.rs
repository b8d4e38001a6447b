//! What crashes leave behind in a store: what is of no use to anybody any more.
//!
//! | leftover | whose |
//! |---|---|
//! | `corestore/cores/aa/bb/KEY.purged` | a purge that was cut off |
//! | `corestore/cores/aa/bb`, `aa`, a core's directory, if they are empty | purged cores, a creation that was cut off |
//! | `drafts/KEY` of a core that is not here, `drafts/KEY.purged` | its purge was cut off |
//! | `drafts/KEY/DRAFT.purged` | the deletion of a draft that was cut off |
//! | `*.new`, `.tmp*` in the store and in `keys`, an hour old | a file that was to be replaced |
//!
//! Nothing else is touched: neither what Corestore 7 leaves (`corestore/CORESTORE`, `db`), nor keys,
//! nor files of unknown names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::io_error;
use super::place::{self, Place, entries, parse_hex};
use crate::storage::{Garbage, StorageError};

/// Younger files may be about to be renamed.
const TEMPORARY_AGE_MIN: Duration = Duration::from_secs(60 * 60);

/// Finds everything that is of no use, and removes it unless `dry_run`.
pub(super) fn collect(place: &Place, dry_run: bool) -> Result<Vec<Garbage>, StorageError> {
    let mut found = Vec::new();
    for path in leftovers(place)? {
        let bytes = place::disk_bytes(&path).map_err(io_error("look at", &path))?;
        if !dry_run {
            remove(&path).map_err(io_error("remove", &path))?;
        }
        found.push(Garbage { path, bytes });
    }
    let doomed = |path: &Path| found.iter().any(|garbage| garbage.path == path);
    let mut empty = Vec::new();
    for first in entries(&place.cores)? {
        let mut kept = false;
        for second in entries(&first)? {
            kept |= !collect_empty(&second, &doomed, dry_run, &mut empty)?;
        }
        if !kept && is_prefix(&first) {
            empty.push(remove_empty(first, dry_run)?);
        }
    }
    found.extend(empty);
    Ok(found)
}

/// Takes the empty directories of cores below `second`, and itself if nothing stays in it; says
/// whether it went.
fn collect_empty(
    second: &Path,
    doomed: &impl Fn(&Path) -> bool,
    dry_run: bool,
    found: &mut Vec<Garbage>,
) -> Result<bool, StorageError> {
    if !is_prefix(second) {
        return Ok(false);
    }
    let mut kept = false;
    for core in entries(second)?.into_iter().filter(|path| !doomed(path)) {
        let is_core = core_of(&core).is_some() && core.is_dir();
        if is_core && entries(&core)?.is_empty() {
            found.push(remove_empty(core, dry_run)?);
        } else {
            kept = true;
        }
    }
    if !kept {
        found.push(remove_empty(second.to_owned(), dry_run)?);
    }
    Ok(!kept)
}

fn leftovers(place: &Place) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    for first in entries(&place.cores)? {
        for second in entries(&first)? {
            found.extend(entries(&second)?.into_iter().filter(|path| is_purged(path)));
        }
    }
    for drafts in entries(&place.drafts)? {
        let core = core_of(&drafts).map(Into::into);
        let is_stray = core.is_some_and(|core| !place::holds_core(&place.of_core(&core)));
        if is_stray || is_purged(&drafts) {
            found.push(drafts);
        } else {
            found.extend(entries(&drafts)?.into_iter().filter(|path| is_purged(path)));
        }
    }
    for directory in [&place.store, &place.secrets] {
        let files = entries(directory)?.into_iter();
        found.extend(files.filter(|path| is_old_temporary(path)));
    }
    Ok(found)
}

/// Whether a core of this name was being removed.
fn is_purged(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "purged")
        && core_of(&path.with_extension("")).is_some()
}

/// The discovery key that the last part of a path is.
fn core_of(path: &Path) -> Option<[u8; 32]> {
    parse_hex(path.file_name()?.to_str()?)
}

/// Whether the directory is one of those that cores are spread over.
fn is_prefix(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && path.is_dir()
}

fn is_old_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_temporary = name.is_some_and(|name| name.starts_with(".tmp") || name.ends_with(".new"));
    let changed = fs::symlink_metadata(path).and_then(|metadata| {
        let changed = metadata.modified()?;
        Ok(metadata.is_file().then_some(changed))
    });
    let age = |changed| SystemTime::now().duration_since(changed).ok();
    let age = changed.ok().flatten().and_then(age);
    is_temporary && age.is_some_and(|age| age >= TEMPORARY_AGE_MIN)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

fn remove_empty(path: PathBuf, dry_run: bool) -> Result<Garbage, StorageError> {
    let metadata = fs::metadata(&path).map_err(io_error("look at", &path))?;
    if !dry_run {
        fs::remove_dir(&path).map_err(io_error("remove", &path))?;
    }
    let bytes = place::allocated(&metadata);
    Ok(Garbage { path, bytes })
}
