//! Giving up blocks: cutting the log short, and forgetting blocks that can be fetched again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::keys::Key;

use super::history::History;
use super::{Appended, Core, CoreError, Inner, Stored};
use crate::descent::{Broken, Descent};
use crate::events::Event;
use crate::limits::NUMBER_MAX;
use crate::merkle::Roots;
use crate::storage::{BitWrite, CoreWrite, StorageError};

impl Core {
    /// Cuts the log to `length` blocks and starts another history: the next fork, or `fork`.
    ///
    /// What is cut off cannot be read any more, and its disk space is given back: here at once, and at every reader once it meets
    /// this fork. A kill or a power cut in between frees it at the next opening. Bytes stay, until those of later blocks lie over them, where
    /// another program cut the log, as hypercore 10 does, and where a node that tells where they begin is damaged or not here.
    ///
    /// Cost: one hash and two node reads a level of the tree, a signature, a commit.
    ///
    /// # Errors
    /// [`CoreError::NotWritable`], [`CoreError::ReadOnly`]; [`CoreError::OutOfBounds`] if the log is shorter;
    /// [`CoreError::InvalidFork`] and [`CoreError::ForkTooLarge`] as for [`Core::next_fork`];
    /// [`CoreError::Prologue`] below the pinned beginning; [`CoreError::Unconfirmed`] or [`CoreError::Behind`] while there may be more of
    /// the log elsewhere; [`CoreError::Conflict`], [`CoreError::Signer`]. Nothing is signed that was not signed before: where a node
    /// that the shorter log has for a root, or one beside the way to it, is damaged, [`CoreError::Storage`]
    /// ([`StorageError::Corrupt`] in `tree`, which an audit repairs); where it is not here, as after an audit that gave it up,
    /// [`CoreError::MissingNodes`], which names a block that brings it when it comes from a peer. Where no peer has that, a cut
    /// to another length may need other nodes.
    ///
    /// # Examples
    /// ```
    /// use ferrocore_log::Corestore;
    ///
    /// let core = Corestore::memory().get_named("log")?;
    /// core.append_batch(vec!["keep".into(), "regret".into()])?;
    /// let cut = core.truncate(1, None)?;
    /// assert_eq!((cut.length, cut.fork), (1, 1));
    /// assert!(core.get_local(1)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn truncate(&self, length: u64, fork: Option<u64>) -> Result<Appended, CoreError> {
        let inner = &*self.inner;
        self.check_not_read_only()?;
        let _writer = inner.lock_writer();
        if !inner.is_written_here() {
            return Err(CoreError::NotWritable { core: inner.key });
        }
        let fork = inner.check_cut(length, fork)?;
        let current = Arc::clone(&inner.read().roots);
        // What is signed is proven to whoever reads it: nothing that nobody signed may get in.
        let roots = inner.roots_within(&current, length)?;
        let signature = inner.sign(fork, &roots)?;
        inner.cut(fork, roots, signature, self.padding())
    }

    /// The fork that a truncate leads to: `fork`, or the next if there is none.
    ///
    /// # Errors
    /// [`CoreError::InvalidFork`] if `fork` is not newer, [`CoreError::ForkTooLarge`].
    pub fn next_fork(&self, fork: Option<u64>) -> Result<u64, CoreError> {
        next_fork(self.key(), self.fork(), fork)
    }

    /// Forgets the blocks of `range` here and gives their disk space back. The log still has
    /// them: peers that kept them can supply them again.
    ///
    /// Where tree nodes are not here that tell where the bytes end, as after a power cut, their space is not given back.
    ///
    /// # Errors
    /// [`CoreError::Storage`], also where nodes that tell are damaged ([`StorageError::Corrupt`] in `tree`, which an audit
    /// repairs): other blocks would be gone too. [`CoreError::ReadOnly`].
    pub fn clear(&self, range: Range<u64>) -> Result<(), CoreError> {
        let inner = &*self.inner;
        self.check_not_read_only()?;
        let _writer = inner.lock_writer();
        let range = range.start..range.end.min(self.length());
        if range.is_empty() {
            return Ok(());
        }
        let write = CoreWrite {
            bits: vec![BitWrite {
                range: range.clone(),
                value: false,
            }],
            freed: inner.bytes_around(&range)?.into_iter().collect(),
            ..CoreWrite::default()
        };
        inner.storage.commit(write, inner.durability)?;
        inner.update(|shared| {
            shared.change_bits(|bits| bits.set_range(range.clone(), false));
            shared.contiguous_length = shared.contiguous_length.min(range.start);
        });
        inner.announce(&[Event::Clear(range)]);
        Ok(())
    }
}

impl Inner {
    /// Cuts the log to what `roots` are of. The caller holds the writer lock.
    pub(super) fn cut(
        &self,
        fork: u64,
        roots: Roots,
        signature: Bytes,
        padding: usize,
    ) -> Result<Appended, CoreError> {
        let length = roots.length();
        let padding = (padding as u64).saturating_mul(length);
        let truncated = Appended {
            length,
            byte_length: roots.byte_length().saturating_sub(padding),
            fork,
        };
        self.replace_history(History {
            fork,
            ancestors: length,
            roots,
            signature,
            nodes: Vec::new(),
            manifest: None,
        })?;
        Ok(truncated)
    }

    /// The fork that a truncate to `length` leads to, whoever signs it.
    pub(super) fn check_cut(&self, length: u64, fork: Option<u64>) -> Result<u64, CoreError> {
        let shared = self.read();
        let (core, old_length) = (self.key, shared.roots.length());
        if length > old_length {
            return Err(CoreError::OutOfBounds {
                core,
                index: length,
                length: old_length,
            });
        }
        let prologue = shared.verifier.as_ref().and_then(|v| v.prologue());
        if prologue.is_some_and(|prologue| length < prologue.length) {
            return Err(CoreError::Prologue { core });
        }
        next_fork(core, shared.fork, fork)
    }

    /// The bytes of `range` and of the absent blocks on both sides, or `None` where the tree nodes that tell are not here. Whoever
    /// frees them destroys what lies there: so it is proven that nothing else does.
    fn bytes_around(&self, range: &Range<u64>) -> Result<Option<Range<u64>>, StorageError> {
        let (roots, bits) = self.roots_and_bits();
        let start = bits.prev_set(range.start).map_or(0, |i| i + 1);
        let end = bits.next_set(range.end);
        let fresh = HashMap::new();
        let mut descent = Descent::new(&roots, &fresh, Stored(&*self.storage));
        let mut offset = |block: u64| match descent.byte_offset(2 * block)? {
            Ok(offset) => Ok(Some(offset)),
            Err(Broken::Missing(_)) => Ok(None),
            Err(broken) => Err(self.broken(broken)),
        };
        let end = match end {
            Some(end) => offset(end)?,
            None => Some(roots.byte_length()),
        };
        Ok(offset(start)?.zip(end).map(|(start, end)| start..end))
    }
}

/// The fork after `current`, or `fork` if there is one.
fn next_fork(core: Key, current: u64, fork: Option<u64>) -> Result<u64, CoreError> {
    let (fork, max) = (fork.unwrap_or(current + 1), NUMBER_MAX);
    match fork {
        _ if fork <= current => Err(CoreError::InvalidFork { core, fork }),
        _ if fork > max => Err(CoreError::ForkTooLarge { core, fork, max }),
        _ => Ok(fork),
    }
}
