//! Accepting proofs: verify against the roots, commit, flip, tell.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::group::{AcceptTicket, Acceptance, Done, Waiter, changeset_cost};
use super::ticket::Completer;
use super::{AcceptError, Core, Inner, Stored};
use crate::changeset::{Changeset, VerifyError};
use crate::descent::{Broken, Descent};
use crate::events::Event;
use crate::limits::APPENDS_WAITING_BYTES_MAX;
use crate::merkle::Roots;
use crate::proof::Proof;
use crate::seek::NodeSource;
use crate::storage::{BitWrite, BlockWrite, CoreWrite, Durability, Head, HeadWrite, StorageError};
use crate::verifier::Verifier;

/// What a commit of verified proofs brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Blocks that were not here before.
    pub blocks: Vec<u64>,
    /// The new length, if it is a longer log.
    pub length: Option<u64>,
    /// Blocks that are right and yet not here: a node of the tree that tells where they belong is damaged. Ask for one of
    /// them again: [`Core::missing_nodes`] then counts the whole path, and what comes takes the damaged node's place.
    pub unplaced: Vec<u64>,
}

impl Core {
    /// Verifies one proof and commits it.
    ///
    /// # Errors
    /// [`AcceptError`]; the core is unchanged, but that after [`AcceptError::Unplaced`] the rest of what was proven is here.
    pub fn accept(&self, proof: Proof) -> Result<Accepted, AcceptError> {
        let mut changeset = self.changeset();
        for result in self.verify_into(&mut changeset, vec![proof]) {
            result?;
        }
        self.commit(changeset).and_then(placed)
    }

    /// A changeset on the current roots, for several proofs that are committed together.
    pub fn changeset(&self) -> Changeset {
        let shared = self.inner.read();
        let verifier = match &shared.verifier {
            Some(verifier) => verifier.clone(),
            None => Verifier::compat(self.inner.key),
        };
        Changeset::new(shared.fork, Roots::clone(&shared.roots), verifier)
    }

    /// Verifies `proofs` on top of `changeset`, in order; those that fail leave it as it was.
    ///
    /// Cost: one hash a block, O(log length) hashes a proof, one signature an upgrade. Takes
    /// no lock while it hashes.
    pub fn verify_into(
        &self,
        changeset: &mut Changeset,
        proofs: Vec<Proof>,
    ) -> Vec<Result<(), VerifyError>> {
        let results = changeset.extend(&Stored(&*self.inner.storage), proofs);
        for result in &results {
            if let Err(VerifyError::Damaged { below, .. }) = result {
                self.inner.doubt_below(changeset.base.fork, *below);
            }
        }
        results
    }

    /// Commits verified proofs: all of them or none, but for blocks whose place cannot be told
    /// ([`Accepted::unplaced`]). With [`Durability::Sync`] those who accept at the same
    /// time share a commit, and so its wait for the device.
    ///
    /// # Errors
    /// [`VerifyError::Stale`] if the core has moved on since the changeset was begun, or
    /// [`AcceptError::Storage`].
    pub fn commit(&self, changeset: Changeset) -> Result<Accepted, AcceptError> {
        if self.inner.durability == Durability::Buffered {
            return self.inner.accept_alone(changeset);
        }
        let (waiter, ticket) = self.acceptance(changeset, Ok);
        self.inner.commit_now(waiter);
        ticket.wait()
    }

    /// As [`Core::commit`], without waiting for the device.
    ///
    /// The ticket is complete once the blocks survive what the store's [`Durability`] promises; until then
    /// nobody sees them, nor a new length. With [`Durability::Sync`] this only queues copies of them for a thread of
    /// the store: a block may be a small part of what it came in. With [`Durability::Buffered`] the commit is made when this returns.
    ///
    /// # Errors
    /// The ticket's, as for [`Core::commit`], and [`AcceptError::TooMuch`].
    pub fn commit_async(&self, changeset: Changeset) -> AcceptTicket {
        self.commit_judged(changeset, Ok)
    }

    fn commit_judged(&self, mut changeset: Changeset, judge: Judge) -> AcceptTicket {
        if self.inner.durability == Durability::Buffered {
            return AcceptTicket::ready(self.inner.accept_alone(changeset).and_then(judge));
        }
        let Some(room) = self.inner.queue.reserve(changeset_cost(&changeset)) else {
            let max = APPENDS_WAITING_BYTES_MAX;
            return AcceptTicket::ready(Err(AcceptError::TooMuch { max }));
        };
        changeset.own_blocks();
        let (waiter, ticket) = self.acceptance(changeset, judge);
        self.inner.commit_later(waiter, Some(room));
        ticket
    }

    /// Verifies one proof, and commits it without waiting for the device.
    ///
    /// # Errors
    /// The ticket's, as for [`Core::accept`] and [`Core::commit_async`]. If it does not verify, the ticket is
    /// complete at once.
    pub fn accept_async(&self, proof: Proof) -> AcceptTicket {
        let mut changeset = self.changeset();
        match self.verify_into(&mut changeset, vec![proof]).pop() {
            Some(Err(error)) => AcceptTicket::ready(Err(error.into())),
            _ => self.commit_judged(changeset, placed),
        }
    }

    fn acceptance(&self, changeset: Changeset, judge: Judge) -> (Waiter, AcceptTicket) {
        let (completer, ticket) = Completer::new(self.discovery_key());
        let completer = completer.judging(judge);
        let acceptance = Acceptance {
            changeset,
            completer,
        };
        (Waiter::Accept(Box::new(acceptance)), ticket)
    }
}

impl Inner {
    fn accept_alone(&self, changeset: Changeset) -> Result<Accepted, AcceptError> {
        let _writer = self.lock_writer();
        self.accept(changeset)
    }

    /// The writer lock must be held, here and below.
    fn accept(&self, changeset: Changeset) -> Result<Accepted, AcceptError> {
        let mut accepted = self.weigh(&changeset)?;
        if !changeset.is_empty() {
            let write = self.change_for(&changeset, &mut accepted)?;
            self.storage.commit(write, self.durability)?;
        }
        self.flip(changeset, &accepted);
        Ok(accepted)
    }

    /// Accepts what all of `group` bring: blocks in one commit, then each longer log in its own, of which
    /// only the first can still fit. What does not fit fails alone.
    pub(super) fn accept_group(&self, group: Vec<Acceptance>, done: &mut Done) {
        let _writer = self.lock_writer();
        let (upgrades, blocks): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|waiting| waiting.changeset.is_upgrade());
        self.accept_blocks(blocks, done);
        for Acceptance {
            changeset,
            completer,
        } in upgrades
        {
            done.push(completer, self.accept(changeset));
        }
    }

    fn accept_blocks(&self, group: Vec<Acceptance>, done: &mut Done) {
        let (mut write, mut taken) = (CoreWrite::default(), HashSet::new());
        let mut fitting = Vec::new();
        for waiting in group {
            match self.add(&waiting.changeset, &mut taken, &mut write) {
                Ok(accepted) => fitting.push((waiting, accepted)),
                Err(error) => done.push(waiting.completer, Err(error)),
            }
        }
        // Peers may have proven the same nodes.
        write.nodes.sort_unstable_by_key(|node| node.index);
        write.nodes.dedup_by_key(|node| node.index);
        let is_empty = fitting
            .iter()
            .all(|(waiting, _)| waiting.changeset.is_empty());
        let committed = match is_empty {
            true => Ok(()),
            false => self.storage.commit(write, self.durability),
        };
        for (waiting, accepted) in fitting {
            let result = match &committed {
                Ok(()) => {
                    self.flip(waiting.changeset, &accepted);
                    Ok(accepted)
                }
                Err(error) => Err(error.again(self.discovery_key).into()),
            };
            done.push(waiting.completer, result);
        }
    }

    /// Adds what `changeset` brings, but for blocks that others have brought already, to `write`.
    fn add(
        &self,
        changeset: &Changeset,
        taken: &mut HashSet<u64>,
        write: &mut CoreWrite,
    ) -> Result<Accepted, AcceptError> {
        let mut accepted = self.weigh(changeset)?;
        accepted.blocks.retain(|index| !taken.contains(index));
        let more = self.change_for(changeset, &mut accepted)?;
        taken.extend(&accepted.blocks);
        write.blocks.extend(more.blocks);
        write.nodes.extend(more.nodes);
        write.bits.extend(more.bits);
        write.manifest = write.manifest.take().or(more.manifest);
        Ok(accepted)
    }

    /// What `changeset` brings to the current state, if it still fits it.
    fn weigh(&self, changeset: &Changeset) -> Result<Accepted, VerifyError> {
        let shared = self.read();
        let (base, length) = (changeset.base, shared.roots.length());
        let moved = changeset.is_upgrade() && base.length != length;
        if base.fork != shared.fork || base.length > length || moved {
            return Err(VerifyError::Stale);
        }
        if changeset.is_upgrade() && shared.is_frozen() {
            return Err(VerifyError::Frozen);
        }
        let indexes = changeset.blocks.iter().map(|(index, _)| *index);
        let mut blocks: Vec<u64> = indexes.filter(|i| !shared.bitfield.get(*i)).collect();
        blocks.sort_unstable();
        blocks.dedup();
        Ok(Accepted {
            blocks,
            length: changeset.is_upgrade().then(|| changeset.length()),
            unplaced: Vec::new(),
        })
    }

    /// What to write to make `accepted` of `changeset` part of the core. Blocks whose place cannot be told it takes out.
    fn change_for(
        &self,
        changeset: &Changeset,
        accepted: &mut Accepted,
    ) -> Result<CoreWrite, StorageError> {
        let current = Arc::clone(&self.read().roots);
        let roots = match changeset.is_upgrade() {
            true => &changeset.roots,
            false => &*current,
        };
        let head = changeset.signature.as_ref().map(|signature| HeadWrite {
            head: Head {
                fork: changeset.base.fork,
                length: roots.length(),
                root_hash: roots.hash(),
                signature: signature.clone(),
            },
            ancestors: changeset.base.length,
        });
        Ok(CoreWrite {
            blocks: self.place(changeset, roots, accepted)?,
            nodes: changeset.nodes.values().copied().collect(),
            bits: runs(&accepted.blocks),
            head,
            manifest: self.new_manifest(changeset),
            ..CoreWrite::default()
        })
    }

    /// Finds each fresh block's byte offset and joins neighbours.
    ///
    /// Nodes above what a proof brought were stored before, and may be damaged: by their sizes a block would lie over
    /// another one. So the way to it is held against the roots.
    fn place(
        &self,
        changeset: &Changeset,
        roots: &Roots,
        accepted: &mut Accepted,
    ) -> Result<Vec<BlockWrite>, StorageError> {
        let values: HashMap<u64, &Bytes> = changeset.blocks.iter().map(|(i, b)| (*i, b)).collect();
        let mut descent = Descent::new(roots, &changeset.nodes, Stored(&*self.storage));
        let mut writes: Vec<BlockWrite> = Vec::new();
        let (mut placed, mut next) = (Vec::with_capacity(accepted.blocks.len()), None);
        for index in std::mem::take(&mut accepted.blocks) {
            let Some(block) = values.get(&index) else {
                continue;
            };
            match (writes.last_mut(), next) {
                (Some(last), Some(next)) if next == index => last.blocks.push((*block).clone()),
                _ => match offset_of(&mut descent, 2 * index)? {
                    Ok(byte_offset) => writes.push(BlockWrite {
                        byte_offset,
                        blocks: vec![(*block).clone()],
                    }),
                    Err(broken) => {
                        self.doubt_below(changeset.base.fork, broken.below());
                        accepted.unplaced.push(index);
                        continue;
                    }
                },
            }
            placed.push(index);
            next = Some(index + 1);
        }
        accepted.blocks = placed;
        Ok(writes)
    }

    pub(super) fn new_manifest(&self, changeset: &Changeset) -> Option<crate::Manifest> {
        let shared = self.read();
        match (&shared.verifier, changeset.is_upgrade()) {
            (Some(_), _) => None,
            (None, true) => Some(changeset.verified_under().clone()),
            (None, false) => changeset.manifest.clone(),
        }
    }

    fn flip(&self, changeset: Changeset, accepted: &Accepted) {
        let manifest = self.new_manifest(&changeset);
        let learnt = manifest.is_some();
        self.doubts
            .settle(|node| changeset.nodes.contains_key(&node));
        let verifier = manifest.and_then(|manifest| Verifier::new(self.key, manifest));
        self.update(|shared| {
            if let Some(signature) = changeset.signature {
                shared.roots = Arc::new(changeset.roots);
                shared.signature = signature;
            }
            if learnt {
                shared.verifier = verifier;
            }
            for run in runs(&accepted.blocks) {
                shared.mark(run.range);
            }
        });
        if accepted.length.is_some() {
            self.head_proven();
        }
        self.supply.arrived(accepted.blocks.iter().copied());
        let mut events = Vec::new();
        if learnt {
            events.push(Event::Manifest);
        }
        if let Some(length) = accepted.length {
            events.push(Event::Append { length });
        }
        events.extend(
            runs(&accepted.blocks)
                .into_iter()
                .map(|run| Event::Have(run.range)),
        );
        if !events.is_empty() {
            self.announce(&events);
        }
    }
}

/// Where the block of `leaf` begins. Where nodes are missing on the way to it, those around them may tell.
fn offset_of<S: NodeSource>(
    descent: &mut Descent<'_, S>,
    leaf: u64,
) -> Result<Result<u64, Broken>, StorageError> {
    match descent.byte_offset(leaf)? {
        Err(Broken::Missing(_)) => descent.likely_byte_offset(leaf),
        found => Ok(found),
    }
}

/// What becomes of a commit for who waits for it.
type Judge = fn(Accepted) -> Result<Accepted, AcceptError>;

/// Fails for who brought one block, and that has no place.
fn placed(accepted: Accepted) -> Result<Accepted, AcceptError> {
    match accepted.unplaced.first() {
        Some(index) => Err(AcceptError::Unplaced { index: *index }),
        None => Ok(accepted),
    }
}

/// Sorted indexes as runs of set bits.
fn runs(indexes: &[u64]) -> Vec<BitWrite> {
    let mut runs: Vec<BitWrite> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some(run) if run.range.end == *index => run.range.end += 1,
            _ => runs.push(BitWrite {
                range: *index..*index + 1,
                value: true,
            }),
        }
    }
    runs
}
