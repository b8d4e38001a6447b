//! What crashes leave behind in a store: what is of no use to anybody any more.
//!
//! | leftover | whose |
//! |---|---|
//! | `corestore/cores/aa/bb/KEY.purged` | a purge that was cut off |
//! | `corestore/cores/aa/bb`, `aa`, a core's directory, if they are empty | purged cores, a creation that was cut off |
//! | `drafts/KEY` of a core that is not here, `drafts/KEY.purged` | its purge was cut off |
//! | `drafts/KEY/DRAFT.purged` | the deletion of a draft that was cut off |
//! | `*.new`, `.tmp*` in the store and in `keys`, `corestore/primary-key.new`, an hour old | a file that was to be replaced |
//!
//! Nothing else is touched: neither what Corestore 7 leaves (`corestore/CORESTORE`, `db`), nor keys,
//! nor files of unknown names.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::file_system::Entry;
use super::io_error;
use super::place::{Place, core_of};
use crate::storage::{Garbage, StorageError};

/// Younger files may be about to be renamed.
const TEMPORARY_AGE_MIN: Duration = Duration::from_secs(60 * 60);

/// Finds everything that is of no use, and removes it unless `dry_run`.
pub(super) fn collect(place: &Place, dry_run: bool) -> Result<Vec<Garbage>, StorageError> {
    let mut found = Vec::new();
    for path in leftovers(place)? {
        let bytes = place.bytes_at(&path)?;
        if !dry_run {
            remove(place, &path)?;
        }
        found.push(Garbage { path, bytes });
    }
    let doomed = |path: &Path| found.iter().any(|garbage| garbage.path == path);
    let mut empty = Vec::new();
    for first in place.entries(&place.cores)? {
        let mut kept = false;
        for second in place.entries(&first)? {
            kept |= !collect_empty(place, &second, &doomed, dry_run, &mut empty)?;
        }
        if !kept && is_prefix(place, &first)? {
            empty.push(remove_empty(place, first, dry_run)?);
        }
    }
    found.extend(empty);
    Ok(found)
}

/// Takes the empty directories of cores below `second`, and itself if nothing stays in it; says
/// whether it went.
fn collect_empty(
    place: &Place,
    second: &Path,
    doomed: &impl Fn(&Path) -> bool,
    dry_run: bool,
    found: &mut Vec<Garbage>,
) -> Result<bool, StorageError> {
    if !is_prefix(place, second)? {
        return Ok(false);
    }
    let mut kept = false;
    let cores = place.entries(second)?.into_iter();
    for core in cores.filter(|path| !doomed(path)) {
        let is_core = core_of(&core).is_some() && is_directory(place, &core)?;
        if is_core && place.entries(&core)?.is_empty() {
            found.push(remove_empty(place, core, dry_run)?);
        } else {
            kept = true;
        }
    }
    if !kept {
        found.push(remove_empty(place, second.to_owned(), dry_run)?);
    }
    Ok(!kept)
}

fn leftovers(place: &Place) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    let purged_in = |directory: &Path| -> Result<_, StorageError> {
        let entries = place.entries(directory)?.into_iter();
        Ok(entries.filter(|path| is_purged(path)))
    };
    for first in place.entries(&place.cores)? {
        for second in place.entries(&first)? {
            found.extend(purged_in(&second)?);
        }
    }
    for drafts in place.entries(&place.drafts)? {
        let is_stray = match core_of(&drafts) {
            Some(core) => !place.holds_core(&place.of_core(&core))?,
            None => is_purged(&drafts),
        };
        match is_stray {
            true => found.push(drafts),
            false => found.extend(purged_in(&drafts)?),
        }
    }
    for directory in [&place.store, &place.corestore, &place.secrets] {
        for path in place.entries(directory)? {
            if is_old_temporary(place, &path)? {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Whether a core of this name was being removed.
fn is_purged(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "purged")
        && core_of(&path.with_extension("")).is_some()
}

/// Whether the directory is one of those that cores are spread over.
fn is_prefix(place: &Place, path: &Path) -> Result<bool, StorageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_prefix = |name: &str| name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit());
    Ok(name.is_some_and(is_prefix) && is_directory(place, path)?)
}

fn is_directory(place: &Place, path: &Path) -> Result<bool, StorageError> {
    let found = look(place, path)?;
    Ok(found.is_some_and(|found| found.is_directory))
}

fn is_old_temporary(place: &Place, path: &Path) -> Result<bool, StorageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_of_corestore = path.parent() == Some(&place.corestore);
    let is_temporary = name.is_some_and(|name| match is_of_corestore {
        true => name == "primary-key.new", // all else there is JavaScript's
        false => name.starts_with(".tmp") || name.ends_with(".new"),
    });
    if !is_temporary {
        return Ok(false);
    }
    let found = look(place, path)?.filter(|found| found.is_file);
    let changed = found.and_then(|found| found.modified);
    let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
    Ok(age.is_some_and(|age| age >= TEMPORARY_AGE_MIN))
}

fn look(place: &Place, path: &Path) -> Result<Option<Entry>, StorageError> {
    let found = place.files.look(path);
    found.map_err(io_error("look at", path))
}

fn remove(place: &Place, path: &Path) -> Result<(), StorageError> {
    let removed = match is_directory(place, path)? {
        true => place.files.remove_all(path),
        false => place.files.remove_file(path),
    };
    removed.map_err(io_error("remove", path))
}

fn remove_empty(place: &Place, path: PathBuf, dry_run: bool) -> Result<Garbage, StorageError> {
    let found = look(place, &path)?;
    if !dry_run {
        let removed = place.files.remove_empty(&path);
        removed.map_err(io_error("remove", &path))?;
    }
    let bytes = found.map_or(0, |found| found.allocated);
    Ok(Garbage { path, bytes })
}
