//! What of a store is known to be on the device, so that its cores can be opened in synced mode without a sync.
//!
//! Who opens a core in that mode shows nothing of it that a power cut may still take. Nothing in its files tells: whoever had it
//! before may have been killed, or not have asked for syncs, or be another program, which makes none. So each file is synced that
//! nobody knows of.
//!
//! | known | by |
//! |---|---|
//! | a core that was closed here, nothing of it unsynced | its oplog, which is as it was left |
//! | a core that was not changed since the file system was synced as a whole | when its files were changed last |
//!
//! A sync of the whole file system costs whatever others have not written out yet, and those of one core's files some ten
//! syncs. So the first few cores are synced by themselves, and the next one brings all others along.
//!
//! Of errors that the device made before, a sync of the whole tells only those that no other program was told of. Where a sync
//! of the file itself would have told one, it may be missed.
//!
//! Who copies files in with the times that they had elsewhere, or sets the clock back, while a store is open, deceives the second: what is
//! so hidden is synced once it is written to again.
//!
//! Knows oplogs as they were left, and times. Does not know what is in the files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ferrocore_primitives::keys::DiscoveryKey;

use super::directory::{NAMES, Seal};
use super::file_system::{FileSystem, Identity, OpenFile};
use crate::storage::lock;

/// Cores that are synced by themselves before all are at once.
const ALONE_MAX: usize = 8;
/// Cores that are remembered as they were closed; each takes some hundred bytes.
const CLOSED_MAX: usize = 1 << 16;
/// A file's time may lag behind the clock: by a tick, and on some file systems it has whole seconds only.
const TIME_LAG_MAX: Duration = Duration::from_secs(2);

/// What a store knows of its cores.
pub(super) struct Settled {
    files: Arc<dyn FileSystem>,
    store: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many cores were synced by themselves.
    alone: usize,
    whole: Whole,
    /// The oplogs of cores as they were closed here; of none that was not synced, whatever was synced as a whole before.
    closed: HashMap<DiscoveryKey, Option<Seal>>,
}

#[derive(Default)]
enum Whole {
    #[default]
    NotYet,
    UnderWay,
    /// The file system that this directory is on: all that was changed before.
    Synced(Identity, SystemTime),
    /// It cannot be.
    Never,
}

impl Settled {
    /// Of the store in this directory, of which nothing is known yet.
    pub(super) fn new(files: Arc<dyn FileSystem>, store: PathBuf) -> Self {
        let state = Mutex::default();
        Self {
            files,
            store,
            state,
        }
    }

    /// Whether all that is in the files of `core` is on the device, and their names are. They are in `directory`, and nobody else
    /// changes them, for the oplog is locked. What cannot be told is not known.
    pub(super) fn covers(
        &self,
        core: &DiscoveryKey,
        directory: &Path,
        oplog: &dyn OpenFile,
    ) -> bool {
        let mut state = lock(&self.state);
        if let Some(closed) = state.closed.remove(core) {
            return closed.is_some_and(|left| Seal::of(oplog).is_ok_and(|found| found == left));
        }
        if matches!(state.whole, Whole::NotYet) && state.alone >= ALONE_MAX {
            // Who opens or closes a core meanwhile does not wait for it.
            state.whole = Whole::UnderWay;
            drop(state);
            let whole = self.sync_whole();
            state = lock(&self.state);
            state.whole = whole;
        }
        let covered = match &state.whole {
            Whole::Synced(whole, before) => {
                let found = oplog.identity();
                found.is_ok_and(|found| found.is_beside(whole)) && self.is_older(directory, *before)
            }
            Whole::NotYet | Whole::UnderWay | Whole::Never => false,
        };
        state.alone += usize::from(!covered);
        covered
    }

    /// Remembers how a core was closed: with this oplog, or not synced.
    pub(super) fn closed(&self, core: DiscoveryKey, oplog: Option<Seal>) {
        let closed = &mut lock(&self.state).closed;
        if closed.len() >= CLOSED_MAX {
            closed.retain(|_, oplog| oplog.is_none());
        }
        closed.insert(core, oplog);
    }

    fn sync_whole(&self) -> Whole {
        let before = SystemTime::now().checked_sub(TIME_LAG_MAX);
        match (self.files.sync_all(&self.store), before) {
            (Ok(Some(whole)), Some(before)) => Whole::Synced(whole, before),
            (Ok(_), _) => Whole::Never,
            (Err(error), _) => {
                // It may be about a file of somebody else. Ours tell it when they are synced.
                tracing::warn!(%error, "cannot sync a file system as a whole");
                Whole::Never
            }
        }
    }

    /// Whether the files in `directory` were changed before that moment; a link may lead to another file system.
    fn is_older(&self, directory: &Path, before: SystemTime) -> bool {
        NAMES.iter().all(|name| {
            let found = self.files.look(&directory.join(name));
            found.is_ok_and(|found| {
                found.is_none_or(|file| file.is_file && file.modified.is_some_and(|at| at < before))
            })
        })
    }
}
