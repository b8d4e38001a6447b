//! Deleting what the drive lacks.

use std::collections::HashSet;
use std::path::Path;

use super::super::walk::{Kind, Walk};
use super::super::{Op, Reporter};
use super::dest::{Dest, Local, Refused};
use super::{ExportCache, ExportError, ExportOptions, Prune};
use crate::drive::Drive;
use crate::error::DriveError;
use crate::wait::Cancel;

/// Deletes as the options say. Names that no drive can have are left alone.
pub(super) fn prune(
    drive: &Drive,
    dest: &mut Dest,
    cache: &mut ExportCache,
    options: &ExportOptions,
    report: &mut Reporter<'_>,
) -> Result<(), ExportError> {
    let candidates = match options.prune {
        Prune::Nothing => return Ok(()),
        Prune::Written => cache.written.keys().cloned().collect(),
        Prune::All => local_paths(dest)?,
    };
    for path in candidates {
        if !options.selection.contains(&path) || is_in(drive, &path, &options.cancel)? {
            continue;
        }
        match remove(dest, &path, cache, options.prune) {
            Ok(Some(bytes)) => report.done(Op::Remove, &path, bytes),
            Ok(None) => {}
            Err(Refused::Skip(reason)) => report.skipped(Path::new(&path), &reason),
            Err(Refused::Io(error)) => return Err(dest.error(&path, error)),
        }
        cache.written.remove(&path);
    }
    Ok(())
}

fn local_paths(dest: &Dest) -> Result<Vec<String>, ExportError> {
    let root = dest.root().try_clone();
    let walk = root.and_then(|root| Walk::new(root, HashSet::new()));
    let walk = walk.map_err(|error| dest.error("", error))?;
    let files = walk.filter(|found| matches!(found.kind, Kind::File(..) | Kind::Link(_)));
    Ok(files.filter_map(|found| found.path).collect())
}

/// Whether the drive has anything at `path`, even something malformed.
fn is_in(drive: &Drive, path: &str, cancel: &Cancel) -> Result<bool, ExportError> {
    match cancel.block_on(drive.entry(path))? {
        Ok(entry) => Ok(entry.is_some()),
        Err(DriveError::Entry { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a file or a link, and returns how many bytes it had.
fn remove(
    dest: &mut Dest,
    path: &str,
    cache: &ExportCache,
    prune: Prune,
) -> Result<Option<u64>, Refused> {
    let local = dest.look(path)?;
    if prune == Prune::Written && !cache.is_written(path, &local) {
        return Ok(None);
    }
    let bytes = match &local {
        Local::File(metadata) => metadata.len(),
        Local::Link(_) => 0,
        Local::Nothing | Local::Other => return Ok(None),
    };
    dest.remove(path)?;
    Ok(Some(bytes))
}
