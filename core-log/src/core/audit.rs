//! Auditing a core: a little at a time, so that others get at it in between.

use std::sync::Arc;

use super::{Core, CoreError, Inner, Shared, is_signed, verifier_of};
use crate::audit::{Auditor, Mode, Report, Step, Stored};
use crate::events::Event;
use crate::merkle::Roots;
use crate::storage::{BitWrite, CoreWrite, Durability, OpenedCore, StorageError};

impl Core {
    /// As [`Core::open`] for reading only, whether the head's signature holds or not: to audit a
    /// damaged core, and to save what can be read of it.
    ///
    /// Roots that are missing or wrong are made anew of what is stored below them, if the signature holds for the
    /// outcome: then the core is the one that was signed, and an audit names them, and writes them to repair it. Else nothing
    /// of it is proven, and a root of which nothing is left is taken for one of no bytes.
    ///
    /// Cost: as [`Core::open`], and for a damaged root up to twice a read of all that is below it.
    ///
    /// # Errors
    /// As for [`Core::open`], but for the signature and the roots.
    pub fn danger_open_unverified(
        opened: OpenedCore,
        durability: Durability,
    ) -> Result<Self, CoreError> {
        let verifier = verifier_of(&opened.header)?;
        let (key, head) = (opened.header.key, &opened.header.head);
        let holds = |roots: &Roots| {
            let verifier = verifier.as_ref();
            is_signed(&key, verifier, (head.fork, roots), &head.signature)
        };
        let stored = Stored::new(&*opened.storage, &opened.bitfield);
        let roots = stored.find_roots(head.length, holds)?;
        if holds(&roots) {
            opened.storage.set_roots(&roots)?;
        }
        let core = Self::assemble(opened, roots, verifier, None, durability, Arc::default())?;
        Ok(Self {
            is_read_only: true,
            ..core
        })
    }

    /// Checks all that is stored of the core: blocks against leaves, nodes against the nodes above
    /// them, bits against both, and the roots against the signature. Each finding goes to `tell`,
    /// and how far the audit is.
    ///
    /// Cost: a read of every block that is here and of every node, and where a node and those next to it are damaged, up to as
    /// many more as are below; a few thousand nodes, or 4 MiB of blocks, before others may change the core. Memory does not grow
    /// with the core. Blocks may come meanwhile; those of a log that grows meanwhile are not audited.
    ///
    /// # Errors
    /// [`CoreError::HistoryChanged`] if the log is truncated meanwhile; [`CoreError::Storage`] if
    /// it cannot be read, or written to repair it.
    ///
    /// # Examples
    /// ```
    /// use ferrocore_log::Corestore;
    /// use ferrocore_log::audit::Mode;
    ///
    /// let core = Corestore::memory().get_named("notes")?;
    /// core.append("hello")?;
    /// let report = core.audit(Mode::DryRun, |step| println!("{step:?}"))?;
    /// assert_eq!((report.blocks, report.bad), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn audit(&self, mode: Mode, mut tell: impl FnMut(&Step)) -> Result<Report, CoreError> {
        let total = self.count(0..self.length());
        let (key, fork) = (self.key(), self.fork());
        let mut auditor = Auditor::default();
        let steps = self.audit_turn(fork, mode, |stored, shared| {
            auditor.start(stored, &shared.roots, shared.is_signed(&key))?;
            Ok(auditor.take_found())
        })?;
        steps.iter().for_each(&mut tell);
        let mut is_done = false;
        while !is_done {
            let steps = self.audit_turn(fork, mode, |stored, _| {
                is_done = auditor.take_turn(stored)?;
                Ok(auditor.take_found())
            })?;
            steps.iter().for_each(&mut tell);
            let blocks = auditor.report().blocks;
            tell(&Step::Progress { blocks, total });
        }
        if mode == Mode::Repair {
            self.inner.doubts.forget();
        }
        Ok(auditor.report())
    }

    /// Runs a part of an audit while nothing changes the core, and mends what it found.
    fn audit_turn(
        &self,
        fork: u64,
        mode: Mode,
        work: impl FnOnce(&Stored<'_>, &Shared) -> Result<(Vec<Step>, CoreWrite), StorageError>,
    ) -> Result<Vec<Step>, CoreError> {
        let inner = &*self.inner;
        let _writer = inner.lock_writer();
        let (steps, write) = {
            // Held for long, but nobody waits: who would change it holds the writer lock.
            let shared = inner.read();
            if shared.fork != fork {
                return Err(CoreError::HistoryChanged { core: inner.key });
            }
            let stored = Stored::new(&*inner.storage, &shared.bitfield);
            work(&stored, &shared)?
        };
        if mode == Mode::Repair {
            inner.mend(write)?;
        }
        Ok(steps)
    }
}

impl Inner {
    /// Commits what an audit found to be right. The caller holds the writer lock.
    fn mend(&self, write: CoreWrite) -> Result<(), CoreError> {
        if write.nodes.is_empty() && write.bits.is_empty() {
            return Ok(());
        }
        let bits = write.bits.clone();
        self.storage.commit(write, self.durability)?;
        self.update(|shared| bits.iter().for_each(|bits| shared.set_bits(bits)));
        let event = |bits: BitWrite| match bits.value {
            true => Event::Have(bits.range),
            false => Event::Clear(bits.range),
        };
        let events: Vec<Event> = bits.into_iter().map(event).collect();
        self.announce(&events);
        Ok(())
    }
}

impl Shared {
    fn set_bits(&mut self, bits: &BitWrite) {
        if bits.value {
            return self.mark(bits.range.clone());
        }
        self.change_bits(|page| page.set_range(bits.range.clone(), false));
        self.contiguous_length = self.contiguous_length.min(bits.range.start);
    }
}
