//! The journal of a store: changes of several cores that are made together or not at all.
//!
//! | step | what | a crash after it |
//! |---|---|---|
//! | 1 | blocks into each core's `data`, behind its end or where none is | none is made |
//! | 2 | all changes into the journal: the commit point | all are made when the store opens |
//! | 3 | each core commits its change as if it were alone | likewise |
//! | 4 | the journal is emptied | all were made |
//!
//! With [`Durability::Sync`] each step is on the device before the next begins. With
//! [`Durability::Buffered`] that holds for a kill of the process; a power cut takes each core back
//! to a state it had, which may be one before the batch for one core and after it for another.
//!
//! The journal lies outside `corestore/`, and other programs do not know it: between steps 2 and
//! 4 they see some cores before the batch and some after it, each of them whole. If one of them is
//! changed by such a program then, the batch is not completed. A store opened for reading only sees
//! the same, and completes nothing.
//!
//! A core that is too damaged to be opened, or of a format we do not know, takes no part any more: the batch counts, so the
//! others are completed. Whoever opens that one is told what is wrong with it. One whose roots are damaged gets its part where its
//! length says that it lacks it, for an audit may find what they were.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ferrocore_primitives::keys::DiscoveryKey;

use super::block_file::BlockFile;
use super::file_core::FileCore;
use super::part::Part;
use super::pending::{self, FRAME_BYTES, Identity, Pending};
use super::writer::Writer;
use crate::core::is_signed_as_stored;
use crate::storage::{CoreStorage, CoreWrite, Durability, Head, StorageError, lock};

/// Largest journal, in bytes: what one batch may change, not counting blocks that are appended.
pub const JOURNAL_BYTES_MAX: u64 = 32 << 20;
/// What an item counts at least: a journal of smaller ones has as many as may be before it has as many bytes.
const ITEM_BYTES_MIN: usize = 32;
const _: () = assert!(ITEM_BYTES_MIN * pending::ITEMS_MAX == JOURNAL_BYTES_MAX as usize);
/// A journal longer than this is cut when it is emptied; others keep their place on the disk, so
/// that the next batch changes no length.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The journal of one store.
pub struct Journal {
    state: Mutex<State>,
    path: PathBuf,
}

struct State {
    part: Part,
    /// The cores of a batch that failed half-way. Until the store is opened again they stay closed.
    unfinished: Option<BTreeSet<DiscoveryKey>>,
}

impl Journal {
    /// The journal in `file`, whose name is `path`.
    pub fn new(file: Box<dyn BlockFile>, path: PathBuf) -> Self {
        let part = Part::new(file, path.clone());
        let state = Mutex::new(State {
            part,
            unfinished: None,
        });
        Self { state, path }
    }

    /// Commits the changes of several cores, each core once, in the order of their discovery keys.
    ///
    /// # Errors
    /// [`StorageError::BatchTooLarge`], [`StorageError::HeaderTooLarge`] or
    /// [`StorageError::Poisoned`] before anything is changed. [`StorageError::Io`] poisons the
    /// core it was met at, and if the batch may count already, all its cores and the journal:
    /// then open the store again, which completes the batch or drops it.
    pub fn commit(
        &self,
        changes: Vec<(Arc<FileCore>, CoreWrite)>,
        durability: Durability,
    ) -> Result<(), StorageError> {
        let mut state = lock(&self.state);
        state.check(&self.path)?;
        let (mut begun, mut pendings) = (Vec::new(), Vec::new());
        for (core, write) in &changes {
            let (change, pending) = Change::begin(core, write.clone())?;
            begun.push(change);
            pendings.push(pending);
        }
        let journal = pending::encode(pendings.iter());
        let items: usize = pendings.iter().map(Pending::items).sum();
        let bytes = journal.len().max(items * ITEM_BYTES_MIN) as u64;
        let max = JOURNAL_BYTES_MAX;
        if bytes > max {
            return Err(StorageError::BatchTooLarge { bytes, max });
        }
        for change in &mut begun {
            change.stage(durability)?;
        }
        let result = state.run(&journal, &mut begun, pendings, durability);
        if result.is_err() {
            begun.iter().for_each(|change| change.core.poison());
            let cores = begun.iter().map(|change| change.core.core());
            state.unfinished = Some(cores.collect());
        }
        result
    }

    /// Completes the batch that a crash left half made, in all cores that can be read, or drops one that does not
    /// count.
    ///
    /// `open` opens a core, or says that it is not there; if it is told to, whatever the roots are
    /// ([`FileCore::open_unverified_shared`]). To be called before anybody else opens one.
    ///
    /// # Errors
    /// [`StorageError`]: the journal stays as it is, and the store must not be used.
    pub fn recover(
        &self,
        mut open: impl FnMut(&DiscoveryKey, bool) -> Result<Option<Arc<FileCore>>, StorageError>,
    ) -> Result<(), StorageError> {
        let state = lock(&self.state);
        let Some(pendings) = state.read()? else {
            return Ok(());
        };
        let mut found = Vec::new();
        for pending in &pendings {
            let opened = match open(&pending.core, false) {
                Err(StorageError::Corrupt { part: "tree", .. }) => open(&pending.core, true),
                opened => opened,
            };
            match opened {
                Ok(core) => {
                    let stage = stage_of(core.as_ref(), pending);
                    found.push((core, stage));
                }
                Err(
                    error @ (StorageError::Corrupt { .. } | StorageError::UnknownFormat { .. }),
                ) => {
                    tracing::warn!(%error, "a core of an unfinished batch cannot be read; the others get their part");
                    found.push((None, Stage::Unreadable));
                }
                Err(error) => return Err(error),
            }
        }
        if found.iter().any(|(_, stage)| *stage == Stage::Elsewhere) {
            // Had it not been completed, no core had been let go on.
            tracing::info!(path = %self.path.display(), "dropping a batch that was over");
            return state.clear(0, true);
        }
        // Whoever wrote it may have been killed before it was on the device: a power cut amid what follows must leave it there.
        state.part.sync()?;
        for ((core, stage), pending) in found.into_iter().zip(pendings) {
            let Some(core) = core.filter(|_| stage != Stage::Unreadable) else {
                continue;
            };
            if stage == Stage::Before {
                core.commit(pending.write, Durability::Sync)?;
            }
            core.flush(Durability::Sync)?;
        }
        state.clear(0, true)
    }

    /// Refuses to open a core whose batch failed half-way.
    ///
    /// # Errors
    /// [`StorageError::Unfinished`].
    pub fn check_open(&self, core: &DiscoveryKey) -> Result<(), StorageError> {
        let state = lock(&self.state);
        let mut unfinished = state.unfinished.iter();
        match unfinished.any(|cores| cores.contains(core)) {
            true => state.check(&self.path),
            false => Ok(()),
        }
    }
}

/// Where a core is with respect to its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    After,
    Elsewhere,
    Unreadable,
}

fn stage_of(core: Option<&Arc<FileCore>>, pending: &Pending) -> Stage {
    let Some(core) = core else {
        return Stage::Elsewhere;
    };
    let header = core.writer().header.clone();
    match Identity::of(&header) {
        found if found == pending.after => Stage::After,
        found if found == pending.before => Stage::Before,
        _ if is_signed_as_stored(&header, &**core) => Stage::Elsewhere,
        // Its roots are damaged, and its journal does not tell what they were.
        _ => stage_by_length(&header.head, pending),
    }
}

/// Where a core of this head must be, if that is the one before its change or the one after it.
fn stage_by_length(head: &Head, pending: &Pending) -> Stage {
    let at = (head.fork, head.length);
    match &pending.write.head {
        Some(write) if at == (write.head.fork, write.head.length) => Stage::After,
        Some(write) if at == (write.head.fork, write.ancestors) => Stage::Before,
        _ => Stage::Unreadable,
    }
}

/// A core that takes part in a batch: nobody else commits to it meanwhile.
struct Change<'a> {
    core: &'a FileCore,
    writer: MutexGuard<'a, Writer>,
    /// What is written before the batch counts.
    early: CoreWrite,
}

impl<'a> Change<'a> {
    fn begin(core: &'a FileCore, mut write: CoreWrite) -> Result<(Self, Pending), StorageError> {
        let writer = core.writer();
        core.check_poison()?;
        writer.check_header(&core.core(), &write)?;
        let mut early = CoreWrite {
            manifest: write.manifest.take(),
            ..CoreWrite::default()
        };
        // Blocks in place of others must not be written before their history is replaced.
        if !writer.truncates(&write) {
            early.blocks = std::mem::take(&mut write.blocks);
        }
        let pending = Pending {
            core: core.core(),
            before: Identity::of(&writer.header),
            after: Identity::after(&writer.header, &write),
            write,
        };
        let change = Self {
            core,
            writer,
            early,
        };
        Ok((change, pending))
    }

    fn stage(&mut self, durability: Durability) -> Result<(), StorageError> {
        let early = std::mem::take(&mut self.early);
        self.core.stage(&mut self.writer, early, durability)
    }
}

impl State {
    /// Steps 2 to 4. After a failure the batch may count or not.
    fn run(
        &self,
        journal: &[u8],
        begun: &mut [Change<'_>],
        pendings: Vec<Pending>,
        durability: Durability,
    ) -> Result<(), StorageError> {
        self.part.write(0, journal)?;
        if durability == Durability::Sync {
            self.part.sync()?;
        }
        // Left behind by a power cut, a batch is over once a core has another head than before and
        // after it; user data may come to be what it was before.
        let comes_back = pendings.iter().any(|pending| pending.write.head.is_none());
        for (change, pending) in begun.iter_mut().zip(pendings) {
            let (core, writer) = (change.core, &mut change.writer);
            core.commit_in_order(writer, pending.write, durability)?;
        }
        self.clear(journal.len(), durability == Durability::Sync && comes_back)
    }

    /// The batch that is not known to be over.
    fn read(&self) -> Result<Option<Vec<Pending>>, StorageError> {
        let len = self.part.len()?.min(JOURNAL_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        let count = self.part.read(0, &mut bytes)?;
        bytes.truncate(count);
        Ok(pending::decode(&bytes))
    }

    /// Empties the journal of `len` bytes.
    fn clear(&self, len: usize, sync: bool) -> Result<(), StorageError> {
        match len > KEPT_BYTES_MAX {
            true => self.part.set_len(0)?,
            false => self.part.write(0, &[0; FRAME_BYTES])?,
        }
        match sync {
            true => self.part.sync(),
            false => Ok(()),
        }
    }

    fn check(&self, path: &Path) -> Result<(), StorageError> {
        match self.unfinished {
            Some(_) => Err(StorageError::Unfinished {
                path: path.to_owned(),
            }),
            None => Ok(()),
        }
    }
}
