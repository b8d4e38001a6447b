//! Picking entries, and fetching what was picked.

use std::collections::VecDeque;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;

use crate::drive::Drive;
use crate::entry::Entry;
use crate::error::DriveError;

/// Most ranges of blocks that one download wants at a time.
pub const ACTIVE_RANGES_MAX: usize = 64;

/// Which entries of a drive are meant.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    globs: Option<GlobSet>,
}

/// A pattern is not a glob; see [`Selection::globs`] for what is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct GlobError(String);

impl Selection {
    /// All entries.
    pub fn all() -> Self {
        Self::default()
    }

    /// Entries that match any of `patterns`, or lie below a folder that does. `*` and `?` do not
    /// match `/`, `**` matches folders at any depth, `[ab]` and `{a,b}` are alternatives. As in a
    /// `.gitignore`, a pattern with a `/` before its end begins at the root, one without matches
    /// names at any depth. No patterns at all select everything.
    ///
    /// # Errors
    /// [`GlobError`] names the first malformed pattern.
    pub fn globs<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, GlobError> {
        let mut set = GlobSetBuilder::new();
        let mut is_empty = true;
        for pattern in patterns {
            is_empty = false;
            let rooted = rooted(pattern.as_ref());
            for pattern in [format!("{rooted}/**"), rooted] {
                let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
                set.add(glob.map_err(|error| GlobError(error.to_string()))?);
            }
        }
        let globs = set.build().map_err(|error| GlobError(error.to_string()))?;
        Ok(Self {
            globs: (!is_empty).then_some(globs),
        })
    }

    /// Whether the entry at `path` is meant.
    pub fn contains(&self, path: &str) -> bool {
        self.globs.as_ref().is_none_or(|globs| globs.is_match(path))
    }
}

/// `pattern` as one that begins at the root.
fn rooted(pattern: &str) -> String {
    let pattern = pattern.trim_end_matches('/');
    match (pattern.strip_prefix('/'), pattern.contains('/')) {
        (Some(path), _) => format!("/{path}"),
        (None, true) => format!("/{pattern}"),
        (None, false) => format!("/**/{pattern}"),
    }
}

/// How much a selection picks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Links.
    pub links: u64,
    /// Bytes of the files; of a deduplicated one, of its block map.
    pub bytes: u64,
    /// Blocks of all files.
    pub blocks: u64,
}

/// Adds up the entries of `selection`. Malformed ones do not count.
pub(crate) async fn totals(drive: &Drive, selection: &Selection) -> Result<Totals, DriveError> {
    let drive = drive.snapshot();
    let _index = drive.index().download(0..drive.version());
    let mut totals = Totals::default();
    let mut entries = drive.entries();
    loop {
        match entries.next().await {
            Ok(Some(entry)) if selection.contains(&entry.path) => totals.add(&entry),
            Ok(Some(_)) | Err(DriveError::Entry { .. }) => {}
            Ok(None) => return Ok(totals),
            Err(error) => return Err(error),
        }
    }
}

impl Totals {
    fn add(&mut self, entry: &Entry) {
        match &entry.value.blob {
            Some(blob) => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(blob.byte_length);
                self.blocks = self.blocks.saturating_add(blob.block_length);
            }
            None => self.links += 1,
        }
    }
}

/// Fetches the entries of `selection`, at most [`ACTIVE_RANGES_MAX`] ranges at a time.
pub(crate) async fn download(drive: &Drive, selection: &Selection) -> Result<(), DriveError> {
    let drive = drive.snapshot();
    let _index = drive.index().download(0..drive.version());
    let blobs = drive.blobs().await?.core();
    blobs.update().await?;
    let mut active = VecDeque::new();
    let mut entries = drive.entries();
    while let Some(entry) = entries.next().await? {
        for mut blocks in picked(&drive, selection, &entry).await? {
            // An entry may claim more than there is; nobody could ever supply that.
            blocks.end = blocks.end.min(blobs.length());
            if active.len() == ACTIVE_RANGES_MAX {
                finish(active.pop_front()).await?;
            }
            active.push_back(blobs.download(blocks));
        }
    }
    while !active.is_empty() {
        finish(active.pop_front()).await?;
    }
    Ok(())
}

/// The blocks of an entry's bytes, if it is picked.
async fn picked(
    drive: &Drive,
    selection: &Selection,
    entry: &Entry,
) -> Result<Vec<std::ops::Range<u64>>, DriveError> {
    match &entry.value.blob {
        Some(blob) if selection.contains(&entry.path) => drive.blobs().await?.blocks(blob).await,
        _ => Ok(Vec::new()),
    }
}

async fn finish(range: Option<ferrocore_log::core::Download>) -> Result<(), DriveError> {
    match range {
        Some(range) => Ok(range.done().await?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_at_the_root_or_match_names() {
        let cases = [
            ("*.rs", "/a/b/c.rs", true),
            ("*.rs", "/c.rs", true),
            ("*.rs", "/c.rs/below", true),
            ("*.rs", "/c.rss", false),
            ("src", "/a/src/main.rs", true),
            ("src/*.rs", "/src/main.rs", true),
            ("src/*.rs", "/a/src/main.rs", false),
            ("src/*.rs", "/src/a/main.rs", false),
            ("/src", "/src/a/main.rs", true),
            ("/src", "/a/src", false),
            ("src/", "/a/src/b", true),
            ("a/**/z", "/a/b/c/z", true),
            ("{x,y}.txt", "/y.txt", true),
        ];
        for (pattern, path, expected) in cases {
            let selection = Selection::globs([pattern]).unwrap();
            assert_eq!(selection.contains(path), expected, "{pattern} {path}");
        }
        assert!(Selection::globs(["[a"]).is_err());
        assert!(Selection::globs::<&str>([]).unwrap().contains("/any"));
    }
}
