//! Drafts: logs that begin as a core does and go on by themselves, until they are committed.
//!
//! A draft keeps its own blocks in a small core of its own, numbered from where it leaves the
//! core, and reads the others from the core. What its own core is signed with means nothing: it
//! is never told to anybody. Knows how both are one log; how it becomes the core's knows
//! `commit`, and where drafts are kept `place`.

mod base;
mod commit;
mod place;
mod seek;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ferrocore_primitives::hash::Hash;

pub(crate) use self::base::draft_base_again;
use self::base::{BASE_USER_DATA, Base};
use super::append::check_sizes;
use super::encrypt::nearest_block;
use super::{AppendOptions, Appended, Core, CoreError, HashedBlocks, Snapshot, Stored};
use crate::descent::Descent;
use crate::encryption::BlockCipher;
use crate::merkle::{Node, Roots};
use crate::storage::lock;

pub use self::commit::CommitOptions;
pub use self::place::DraftOptions;
pub(super) use self::place::Drafts;

/// A named log on top of a core. It is kept in the store until it is deleted, also when it is
/// dropped and when the core is closed. Clones, and drafts opened by the same name, are the same.
///
/// Whoever can read a core can draft on it; only [`Draft::commit`] needs a signature. If the core
/// is cut below where the draft leaves it, what is gone there is gone from the draft too, and it
/// cannot be committed any more.
///
/// # Examples
/// ```
/// use ferrocore_log::{CommitOptions, Corestore};
///
/// let core = Corestore::memory().get_named("log")?;
/// core.append("published")?;
/// let draft = core.draft("next issue")?;
/// draft.append("a first try")?;
/// draft.truncate(1)?;
/// draft.append_batch(vec!["better".into(), "good".into()])?;
/// assert_eq!((core.length(), draft.length()), (1, 3));
///
/// draft.commit(CommitOptions::default())?;
/// assert_eq!(core.get_local(2)?.unwrap(), "good");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Draft {
    inner: Arc<Inner>,
    /// The handle that the draft was opened through: it may encrypt.
    core: Core,
}

struct Inner {
    name: String,
    /// The core, through a handle that decrypts nothing.
    plain: Core,
    own: Core,
    state: Mutex<State>,
}

struct State {
    base: Base,
    /// The core's part, unless the core was cut while the draft was closed: then what is left of
    /// it nobody can tell.
    below: Option<Snapshot>,
    /// Counts what makes blocks change their place.
    moves: u64,
    /// The cipher that was last found to fit the draft's blocks.
    fitting: Option<BlockCipher>,
}

impl State {
    /// Blocks change their place.
    fn moved(&mut self) {
        self.moves += 1;
        self.fitting = None;
    }
}

impl Draft {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The core it was opened on.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Blocks, those of the core included.
    pub fn length(&self) -> u64 {
        self.inner.length(&lock(&self.inner.state))
    }

    /// How many blocks at the beginning are the core's.
    pub fn base_length(&self) -> u64 {
        lock(&self.inner.state).base.length
    }

    /// Bytes of all blocks; of their plaintext if the draft was opened through a handle that
    /// encrypts.
    ///
    /// # Errors
    /// [`CoreError::Storage`].
    pub fn byte_length(&self) -> Result<u64, CoreError> {
        let state = lock(&self.inner.state);
        self.inner.byte_length(&state, self.core.padding())
    }

    /// Hash over the roots: what the core's signers would sign.
    ///
    /// # Errors
    /// As for [`Draft::tree_hash_at`].
    pub fn tree_hash(&self) -> Result<Hash, CoreError> {
        let state = lock(&self.inner.state);
        let length = self.inner.length(&state);
        Ok(self.inner.roots_at(&state, length)?.hash())
    }

    /// Hash over the roots of the first `length` blocks.
    ///
    /// Cost: for each of the draft's own blocks, a few node reads and hashes.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`] if the draft is shorter, [`CoreError::SnapshotNotAvailable`] if
    /// the core was cut below the draft, [`CoreError::MissingNodes`]; [`CoreError::CorruptBlock`] if what is kept of a block of
    /// the draft is damaged; [`CoreError::Storage`].
    pub fn tree_hash_at(&self, length: u64) -> Result<Hash, CoreError> {
        let state = lock(&self.inner.state);
        Ok(self.inner.roots_at(&state, length)?.hash())
    }

    /// Whether block `index` is here.
    pub fn has(&self, index: u64) -> bool {
        let state = lock(&self.inner.state);
        match index < state.base.length {
            true => state.below.as_ref().is_some_and(|below| below.has(index)),
            false => index < self.inner.length(&state),
        }
    }

    /// Appends one block to the draft; as [`Draft::append_batch`].
    ///
    /// # Errors
    /// As for [`Draft::append_batch`].
    pub fn append(&self, block: impl Into<Bytes>) -> Result<Appended, CoreError> {
        self.append_batch(vec![block.into()])
    }

    /// Appends `blocks` to the draft as one, as durably as the store promises. Opened through a
    /// handle that encrypts, they are encrypted under the core's present fork.
    ///
    /// # Errors
    /// As for [`Core::append_batch`], but for the core's key pair, which is not needed.
    pub fn append_batch(&self, blocks: Vec<Bytes>) -> Result<Appended, CoreError> {
        self.append_with(blocks, AppendOptions::default())
    }

    /// As [`Draft::append_batch`], if the draft is what `options` ask for; its fork is the core's.
    ///
    /// # Errors
    /// As for [`Draft::append_batch`] and [`Core::append_with`].
    pub fn append_with(
        &self,
        blocks: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, CoreError> {
        let (inner, core) = (&*self.inner, &self.core);
        check_sizes(&blocks, core.padding())?;
        let mut state = lock(&inner.state);
        let (fork, start) = (core.fork(), inner.length(&state));
        options.check(core.key(), (fork, start), blocks.len() as u64)?;
        let blocks = self.encrypted(&mut state, blocks, fork)?;
        inner.own.append_hashed(HashedBlocks::hash(blocks))?;
        Ok(Appended {
            length: inner.length(&state),
            byte_length: inner.byte_length(&state, core.padding())?,
            fork,
        })
    }

    /// Cuts the draft to `length` blocks. Below [`Draft::base_length`] it leaves the core earlier
    /// from then on; the core is not changed.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`] if the draft is shorter; [`CoreError::Prologue`] below the
    /// pinned beginning; [`CoreError::SnapshotNotAvailable`] if the core was cut below the draft;
    /// [`CoreError::MissingNodes`], [`CoreError::Storage`].
    pub fn truncate(&self, length: u64) -> Result<(), CoreError> {
        let inner = &*self.inner;
        let mut state = lock(&inner.state);
        inner.check_length(&state, length)?;
        self.check_prologue(length)?;
        state.moved();
        if length > state.base.length {
            inner.own.truncate(length - state.base.origin, None)?;
            return Ok(());
        }
        if length == state.base.length {
            let (below, base) = (state.below.clone(), state.base);
            return inner.leave_at(&mut state, below, base);
        }
        let below = state.below.as_ref().ok_or_else(|| inner.gone(length))?;
        let below = below.checkout(length)?;
        let base = Base::behind(below.roots(), state.base.fork);
        inner.leave_at(&mut state, Some(below), base)
    }

    /// Begins anew: drops the draft's blocks and leaves the core where that ends now.
    ///
    /// # Errors
    /// [`CoreError::Storage`].
    pub fn overwrite(&self) -> Result<(), CoreError> {
        let inner = &*self.inner;
        let mut state = lock(&inner.state);
        let below = inner.plain.snapshot();
        let base = Base::behind(below.roots(), below.fork());
        state.moved();
        inner.leave_at(&mut state, Some(below), base)
    }

    /// Block `index` if it is here; the draft's own are.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`]; [`CoreError::SnapshotNotAvailable`] if the core was cut below
    /// it; and as for [`Core::get_local`].
    pub fn get_local(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let stored = self.inner.get_raw(index)?;
        stored
            .map(|stored| self.core.open_block(index, stored))
            .transpose()
    }

    /// Block `index`, from a supplier of the core if it is the core's and not here.
    ///
    /// # Errors
    /// As for [`Draft::get_local`] and [`Core::get`].
    pub async fn get(&self, index: u64) -> Result<Bytes, CoreError> {
        loop {
            if let Some(block) = self.get_local(index)? {
                return Ok(block);
            }
            let below = {
                let state = lock(&self.inner.state);
                state.below.clone().filter(|_| index < state.base.length)
            };
            if let Some(below) = below {
                below.get(index).await?;
            }
        }
    }

    /// Deletes the draft.
    ///
    /// # Errors
    /// As for [`Core::delete_draft`]: no other handle may be left.
    pub fn delete(self) -> Result<(), CoreError> {
        let Self { inner, core } = self;
        let name = inner.name.clone();
        drop(inner);
        core.delete_draft(&name)?;
        Ok(())
    }

    fn encrypted(
        &self,
        state: &mut State,
        blocks: Vec<Bytes>,
        fork: u64,
    ) -> Result<Vec<Bytes>, CoreError> {
        let core = &self.core;
        let Some(cipher) = core.cipher() else {
            return Ok(blocks);
        };
        if core.length() == 0 && core.manifest().is_none() {
            // Which of two ciphers is the core's is not known yet.
            return Err(CoreError::NotWritable { core: core.key() });
        }
        let is_known = state
            .fitting
            .as_ref()
            .is_some_and(|last| last.is_same(cipher));
        if !is_known && let Some((index, block)) = self.inner.nearest_block(state)? {
            core.inner.check_fits(cipher, index, &block)?;
            state.fitting = Some(cipher.clone());
        }
        let start = self.inner.length(state);
        let encrypt = |(index, block): (u64, &Bytes)| cipher.encrypt(index, fork, block);
        Ok((start..).zip(&blocks).map(encrypt).collect())
    }

    fn check_prologue(&self, length: u64) -> Result<(), CoreError> {
        let shared = self.core.inner.read();
        let prologue = shared.verifier.as_ref().and_then(|v| v.prologue());
        match prologue {
            Some(pinned) if length < pinned.length => Err(CoreError::Prologue {
                core: self.core.key(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("core", &self.core.key())
            .field("name", &self.inner.name)
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn length(&self, state: &State) -> u64 {
        state.base.length.max(state.base.origin + self.own.length())
    }

    fn byte_length(&self, state: &State, padding: usize) -> Result<u64, CoreError> {
        let committed = state.base.length - state.base.origin;
        let committed = self.own.checkout(committed.min(self.own.length()))?;
        let own = self.own.byte_length() - committed.byte_length();
        let padding = (padding as u64).saturating_mul(self.length(state));
        Ok((state.base.byte_length + own).saturating_sub(padding))
    }

    fn check_length(&self, state: &State, index: u64) -> Result<(), CoreError> {
        match self.length(state) {
            length if index > length => Err(CoreError::OutOfBounds {
                core: self.plain.key(),
                index,
                length,
            }),
            _ => Ok(()),
        }
    }

    /// The core was cut while the draft was closed.
    fn gone(&self, index: u64) -> CoreError {
        CoreError::SnapshotNotAvailable {
            core: self.plain.key(),
            index,
            compat_length: 0,
        }
    }

    /// The roots of the first `length` blocks.
    fn roots_at(&self, state: &State, length: u64) -> Result<Roots, CoreError> {
        self.check_length(state, length)?;
        let below = state.below.as_ref().ok_or_else(|| self.gone(length))?;
        if length < state.base.length {
            return Ok(below.checkout(length)?.roots().clone());
        }
        let (core, mut roots) = (self.plain.key(), below.roots().clone());
        let own = Arc::clone(&self.own.inner.read().roots);
        let fresh = HashMap::new();
        let mut descent = Descent::new(&own, &fresh, Stored(&*self.own.inner.storage));
        for index in state.base.length..length {
            // What is signed by this must be what was drafted: each leaf is proven by the draft's own roots.
            let leaf = descent.node(2 * (index - state.base.origin))?;
            let leaf = leaf.map_err(|_| CoreError::CorruptBlock { core, index })?;
            // A leaf's hash does not say where it is.
            let leaf = Node {
                index: 2 * index,
                ..leaf
            };
            roots.push(leaf, |_| {}).ok_or(CoreError::Full { core })?;
        }
        Ok(roots)
    }

    fn get_raw(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        loop {
            let (base, below, moves) = {
                let state = lock(&self.state);
                let length = self.length(&state);
                if index >= length {
                    let core = self.plain.key();
                    return Err(CoreError::OutOfBounds {
                        core,
                        index,
                        length,
                    });
                }
                (state.base, state.below.clone(), state.moves)
            };
            let block = match below {
                Some(below) if index < base.length => below.get_raw(index),
                None if index < base.length => Err(self.gone(index)),
                _ => self.get_own(index, &base).map(Some),
            };
            if lock(&self.state).moves == moves {
                return block;
            }
        }
    }

    /// The last block that is here, as it is stored: of the draft's own, or else of what it still sees of the core.
    fn nearest_block(&self, state: &State) -> Result<Option<(u64, Bytes)>, CoreError> {
        let own = &self.own;
        let nearest = nearest_block(&own.inner.bits(), own.length(), |index| own.get_raw(index))?;
        let nearest = nearest.map(|(index, block)| (state.base.origin + index, block));
        match (nearest, &state.below) {
            (None, Some(below)) => {
                let (bits, end) = (self.plain.inner.bits(), below.compat_length());
                nearest_block(&bits, end, |index| below.get_raw(index))
            }
            (nearest, _) => Ok(nearest),
        }
    }

    /// A block of the draft's own, as it is stored.
    fn get_own(&self, index: u64, base: &Base) -> Result<Bytes, CoreError> {
        let core = self.plain.key();
        let block = self.own.get_raw(index - base.origin)?;
        block.ok_or(CoreError::CorruptBlock { core, index })
    }

    /// Leaves the core at the length of `base`, of which `below` is the view, without blocks of
    /// the draft's own.
    fn leave_at(
        &self,
        state: &mut State,
        below: Option<Snapshot>,
        base: Base,
    ) -> Result<(), CoreError> {
        let base = Base {
            origin: base.length,
            own_fork: self.own.fork() + 1,
            ..base
        };
        self.keep(&base)?;
        self.own.truncate(0, None)?;
        (state.base, state.below) = (base, below);
        Ok(())
    }

    fn keep(&self, base: &Base) -> Result<(), CoreError> {
        self.own.set_user_data(BASE_USER_DATA, Some(&base.encode()))
    }
}
