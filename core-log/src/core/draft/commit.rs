//! How a draft becomes the core's.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use ferrocore_primitives::sign::KeyPair;

use super::base::Base;
use super::{Draft, Inner, State};
use crate::core::append::{Growth, check_sizes, sealed};
use crate::core::{Appended, CoreError, HashedBlocks, Proposal, Stored};
use crate::descent::Descent;
use crate::limits::BATCH_BYTES_MAX;
use crate::merkle::Roots;
use crate::signable::TreeHead;
use crate::storage::{Durability, lock};

/// How a draft is committed.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Commit only up to this length; the rest stays in the draft. By default all of it.
    pub length: Option<u64>,
    /// The signature that makes this length the core's, made elsewhere: what the parts of
    /// [`Draft::propose`] assemble to. By default it is made here.
    pub signature: Option<Bytes>,
    /// The pair to sign with, if not the core's own.
    pub key_pair: Option<KeyPair>,
}

impl Draft {
    /// Moves the draft's blocks into the core: in one append, under one signature, synced to the
    /// device. The draft stays, and leaves the core behind them.
    ///
    /// If the core has got some of the draft's very blocks since, only the others are appended.
    /// So it may be committed again after a crash or an error, whatever had been done by then.
    ///
    /// # Errors
    /// [`CoreError::Moved`] if the core does not continue as the draft does, or, if blocks are
    /// encrypted, has another fork, under which their key stream would be used twice;
    /// [`CoreError::OutOfBounds`] if the draft is shorter than asked for;
    /// [`CoreError::BatchTooLarge`], which committing a part at a time avoids;
    /// [`CoreError::NotWritable`] if there is nothing to sign with; [`CoreError::Signature`] if the
    /// signature given does not hold, [`CoreError::Signer`] if none could be made;
    /// [`CoreError::Unconfirmed`] or [`CoreError::Behind`] while there may be more of the core elsewhere,
    /// whoever signs; [`CoreError::Conflict`] if the core is frozen;
    /// [`CoreError::Prologue`], [`CoreError::Storage`].
    pub fn commit(&self, options: CommitOptions) -> Result<Appended, CoreError> {
        let inner = &*self.inner;
        let mut state = lock(&inner.state);
        let length = options.length.unwrap_or_else(|| inner.length(&state));
        inner.check_length(&state, length)?;
        let (roots, appended) = self.append_to_core(&state, length, &options)?;
        inner.advance(&mut state, &roots, appended.fork)?;
        Ok(appended)
    }

    /// What a commit of the first `length` blocks, or of all, would make of the core: for its
    /// signers, whose parts are assembled to the signature of [`CommitOptions::signature`].
    ///
    /// # Errors
    /// As for [`Draft::commit`], but for those of signatures.
    pub fn propose(&self, length: Option<u64>) -> Result<Proposal, CoreError> {
        let state = lock(&self.inner.state);
        let length = length.unwrap_or_else(|| self.inner.length(&state));
        self.inner.check_length(&state, length)?;
        Proposal::of(&self.core.inner, self.grown_core(&state, length)?)
    }

    fn append_to_core(
        &self,
        state: &State,
        length: u64,
        options: &CommitOptions,
    ) -> Result<(Roots, Appended), CoreError> {
        let core = &*self.core.inner;
        let _writer = core.lock_writer();
        let growth = self.grown_core(state, length)?;
        let (roots, appended) = (growth.roots.clone(), growth.appended(self.core.padding()));
        if growth.start < length {
            core.check_guard()?;
            let signature = self.signature(&growth, options)?;
            let (write, grown) = sealed(growth, signature);
            // The draft lets go of what the core has: it must really have it.
            core.storage.commit(write, Durability::Sync)?;
            let events = core.flip_growth(grown);
            core.announce(&events);
        }
        Ok((roots, appended))
    }

    /// The core with what it lacks of the draft's first `length` blocks.
    fn grown_core(&self, state: &State, length: u64) -> Result<Growth, CoreError> {
        let core = &*self.core.inner;
        core.check_not_frozen()?;
        let mut growth = core.growth();
        self.check_base(state, &growth, length)?;
        // Before all of it is read.
        self.check_own_bytes(state, growth.start..length, BATCH_BYTES_MAX)?;
        let blocks: Result<Vec<Bytes>, CoreError> = (growth.start..length)
            .map(|index| self.inner.get_own(index, &state.base))
            .collect();
        let hashed = HashedBlocks::hash(blocks?);
        check_sizes(hashed.blocks(), 0)?;
        core.grow(&mut growth, |_, _| Ok(hashed))?;
        Ok(growth)
    }

    /// Refuses blocks of the draft's own that are more than `max` bytes together, as its tree tells.
    fn check_own_bytes(
        &self,
        state: &State,
        blocks: Range<u64>,
        max: usize,
    ) -> Result<(), CoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let own = &*self.inner.own.inner;
        let (roots, _) = own.roots_and_bits();
        let fresh = HashMap::new();
        let mut descent = Descent::new(&roots, &fresh, Stored(&*own.storage));
        let mut offset = |block: u64| -> Result<u64, CoreError> {
            let found = descent.byte_offset(2 * (block - state.base.origin))?;
            Ok(found.map_err(|broken| own.broken(broken))?)
        };
        let bytes = offset(blocks.end)?.saturating_sub(offset(blocks.start)?);
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= max => Ok(()),
            bytes => Err(CoreError::BatchTooLarge {
                bytes: bytes.unwrap_or(usize::MAX),
                max,
            }),
        }
    }

    /// Whether the core, as it is, goes on as the draft does, up to `length` at most.
    fn check_base(&self, state: &State, growth: &Growth, length: u64) -> Result<(), CoreError> {
        let start = growth.start;
        let is_secret = self.core.is_encrypted() && growth.fork != state.base.fork;
        let is_below = state.base.length <= start && start <= length;
        let continues = is_below && !is_secret && state.below.is_some();
        if continues && self.inner.roots_at(state, start)? == growth.roots {
            return Ok(());
        }
        Err(CoreError::Moved {
            core: self.core.key(),
            fork: growth.fork,
            length: start,
        })
    }

    fn signature(&self, growth: &Growth, options: &CommitOptions) -> Result<Bytes, CoreError> {
        let core = &*self.core.inner;
        let (fork, roots) = (growth.fork, &growth.roots);
        if let Some(signature) = &options.signature {
            return core.confirm(fork, roots, signature);
        }
        let Some(key_pair) = &options.key_pair else {
            return core.sign(fork, roots);
        };
        let verifier = core.read().verifier.clone();
        let sole = verifier.filter(|v| v.sole_signer(&key_pair.public_key()).is_some());
        let verifier = sole.ok_or(CoreError::NotWritable { core: core.key })?;
        let signed = verifier.sign(&TreeHead::of(fork, roots), key_pair);
        signed.map_err(|source| CoreError::Signer {
            core: core.key,
            source,
        })
    }
}

impl Inner {
    /// Leaves the core behind the blocks that have these roots, which are the core's by now.
    fn advance(&self, state: &mut State, roots: &Roots, fork: u64) -> Result<(), CoreError> {
        let base = Base::behind(roots, fork);
        let below = self.plain.still_begins_with(&base)?;
        state.moved();
        if base.length == self.length(state) {
            return self.leave_at(state, below, base);
        }
        let Base {
            origin, own_fork, ..
        } = state.base;
        let base = Base {
            origin,
            own_fork,
            ..base
        };
        self.keep(&base)?;
        (state.base, state.below) = (base, below);
        self.own.clear(0..base.length - origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Corestore;

    /// Goal: a draft that is too large for a batch is refused before any of it is read: here it cannot be.
    #[test]
    fn what_is_too_large_is_not_read() {
        let core = Corestore::memory().get_named("log").unwrap();
        core.append("the core's").unwrap();
        let draft = core.draft("draft").unwrap();
        draft
            .append_batch(vec![Bytes::from_static(b"ten bytes!"); 5])
            .unwrap();
        draft.inner.own.clear(0..5).unwrap();
        let state = lock(&draft.inner.state);
        let check = |blocks, max| draft.check_own_bytes(&state, blocks, max);
        check(1..6, 50).unwrap();
        check(2..4, 20).unwrap();
        check(6..6, 0).unwrap();
        let refused = check(1..6, 49).unwrap_err();
        assert!(matches!(
            refused,
            CoreError::BatchTooLarge { bytes: 50, max: 49 }
        ));
    }
}
