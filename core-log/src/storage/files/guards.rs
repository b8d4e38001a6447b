//! Which cores must not be written yet, since a longer history of them may be elsewhere.
//!
//! Lines of text, of which later ones count more:
//!
//! | line | meaning |
//! |---|---|
//! | `restored` | the root secret was brought back: every core is guarded, whatever was said before |
//! | `guarded <discovery key>` | the core's secret was imported |
//! | `confirmed <discovery key>` | somebody has proven how long the core is, or was not to be asked |
//!
//! Each line is on the device before what it allows or forbids. One that a crash cut is no line: of the
//! two that forbid, the secret had not come yet.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use ferrocore_primitives::keys::DiscoveryKey;

use super::io_error;
use super::place::parse_hex;
use super::positional::sync_directory;
use super::whole::{self, GUARDS_BYTES_MAX};
use crate::storage::StorageError;

/// What to do about guards that are too long to be read, or would be.
const TOO_LONG: &str = "restore it from a backup; without it nothing keeps a core from being written that was \
    longer elsewhere";

const RESTORED: &str = "restored";
const GUARDED: &str = "guarded";
const CONFIRMED: &str = "confirmed";

/// The guards in memory and on disk.
#[derive(Debug)]
pub(super) struct Guards {
    path: PathBuf,
    /// Bytes of whole lines; what a crash left behind them goes with the next one.
    len: u64,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    is_restored: bool,
    /// Cores that are, or are not, guarded, whatever holds for the others.
    cores: HashMap<DiscoveryKey, bool>,
}

impl Guards {
    /// Reads the guards at `path`; without a file nothing is guarded.
    pub(super) fn load(path: PathBuf) -> Result<Self, StorageError> {
        let bytes = whole::read(&path, GUARDS_BYTES_MAX, TOO_LONG)?.unwrap_or_default();
        let (state, len) = State::parse(&bytes).map_err(|line| unknown(&path, &line))?;
        Ok(Self { path, len, state })
    }

    pub(super) fn is_guarded(&self, core: &DiscoveryKey) -> bool {
        let told = self.state.cores.get(core).copied();
        told.unwrap_or(self.state.is_restored)
    }

    /// Guards every core from now on.
    pub(super) fn guard_all(&mut self) -> Result<(), StorageError> {
        self.add(RESTORED)
    }

    pub(super) fn set(&mut self, core: &DiscoveryKey, guarded: bool) -> Result<(), StorageError> {
        if self.is_guarded(core) == guarded {
            return Ok(());
        }
        let word = if guarded { GUARDED } else { CONFIRMED };
        self.add(&format!("{word} {core}"))
    }

    fn add(&mut self, line: &str) -> Result<(), StorageError> {
        let line = format!("{line}\n");
        let len = self.len + line.len() as u64;
        whole::check(&self.path, len, GUARDS_BYTES_MAX, TOO_LONG)?;
        self.write(&line).map_err(io_error("write", &self.path))?;
        self.len += line.len() as u64;
        self.state.apply(line.trim_end());
        Ok(())
    }

    /// Writes behind the last whole line; on the device when this returns.
    fn write(&self, line: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        file.set_len(self.len)?;
        file.seek(io::SeekFrom::End(0))?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

impl State {
    /// What the whole lines of `bytes` say, and how many bytes they have; or the line that is none of ours.
    fn parse(bytes: &[u8]) -> Result<(Self, u64), String> {
        let text = String::from_utf8_lossy(bytes);
        let whole = text
            .rfind('\n')
            .map_or("", |end| text.get(..=end).unwrap_or_default());
        let mut state = Self::default();
        for line in whole.lines() {
            state.apply(line).ok_or_else(|| line.to_owned())?;
        }
        Ok((state, whole.len() as u64))
    }

    /// Takes in one line; `None` if it is none of ours.
    fn apply(&mut self, line: &str) -> Option<()> {
        if line == RESTORED {
            *self = Self {
                is_restored: true,
                ..Self::default()
            };
            return Some(());
        }
        let (word, core) = line.split_once(' ')?;
        let is_guarded = match word {
            GUARDED => true,
            CONFIRMED => false,
            _ => return None,
        };
        self.cores.insert(parse_hex(core)?.into(), is_guarded);
        Some(())
    }
}

/// Whether all cores are guarded, and those of which something else is said.
pub(super) fn parse(bytes: &[u8]) -> Option<(bool, Vec<(DiscoveryKey, bool)>)> {
    let (state, _) = State::parse(bytes).ok()?;
    Some((state.is_restored, state.cores.into_iter().collect()))
}

fn unknown(path: &Path, line: &str) -> StorageError {
    StorageError::UnknownFormat {
        path: path.to_owned(),
        reason: format!("`{line}` is no guard"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn core(number: u8) -> DiscoveryKey {
        DiscoveryKey::from([number; 32])
    }

    #[test]
    fn guards_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guards");
        let open = || Guards::load(path.clone()).unwrap();
        assert!(!open().is_guarded(&core(1)));
        assert!(!path.exists(), "nothing to say");
        open().set(&core(1), true).unwrap();
        assert!(open().is_guarded(&core(1)) && !open().is_guarded(&core(2)));
        open().set(&core(1), false).unwrap();
        assert!(!open().is_guarded(&core(1)));
        open().guard_all().unwrap();
        assert!(open().is_guarded(&core(1)) && open().is_guarded(&core(2)));
        open().set(&core(2), false).unwrap();
        assert!(open().is_guarded(&core(1)) && !open().is_guarded(&core(2)));
    }

    /// Goal: wherever a crash cuts the file, it opens, and no core is written that was guarded by a
    /// whole line and not confirmed by another.
    #[test]
    fn a_cut_line_confirms_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guards");
        let mut guards = Guards::load(path.clone()).unwrap();
        guards.guard_all().unwrap();
        guards.set(&core(1), false).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in RESTORED.len() + 1..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let mut guards = Guards::load(path.clone()).unwrap();
            assert!(guards.is_guarded(&core(1)), "cut at {len}");
            guards.set(&core(2), false).unwrap();
            let guards = Guards::load(path.clone()).unwrap();
            assert!(guards.is_guarded(&core(1)) && !guards.is_guarded(&core(2)));
        }
    }

    #[test]
    fn guards_have_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guards");
        let mut guards = Guards::load(path.clone()).unwrap();
        guards.len = GUARDS_BYTES_MAX - 10;
        let full = guards.set(&core(1), true).unwrap_err();
        assert!(matches!(full, StorageError::FileTooLong { .. }), "{full}");
        assert!(!guards.is_guarded(&core(1)) && !path.exists());
        fs::File::create(&path)
            .unwrap()
            .set_len(GUARDS_BYTES_MAX + 1)
            .unwrap();
        let error = Guards::load(path).unwrap_err();
        assert!(matches!(error, StorageError::FileTooLong { .. }), "{error}");
    }

    #[test]
    fn a_line_of_a_later_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guards");
        for line in ["frozen", "guarded x", "restored now", &"guarded ".repeat(9)] {
            fs::write(&path, format!("{line}\n")).unwrap();
            assert!(Guards::load(path.clone()).is_err(), "{line}");
        }
    }
}
