//! Getting what a core wants from one peer: claims, requests, and the proofs that come back.
//!
//! Knows how wants become requests and how answers become commits. Does not know what the wants
//! are (they are the core's) nor what the peer is told about us.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use ferrocore_log::Core;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::AcceptError;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::supply::{Availability, Claim, SupplierId, Wake};
use ferrocore_primitives::time::Time;

use crate::limits::{WANT_BLOCKS, WANTS_MAX};
use crate::messages::{Cancel, Data, Message, NoData, Request, Want};
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::{Peer, RemoteBlocks};
use crate::promises::{Path, Promises};
use crate::requests::{Pending, Requests};
use crate::stats::Stats;
use crate::wire::Wire;

/// What one peer is asked for.
#[derive(Debug)]
pub(crate) struct Downloads {
    /// Present while the peer is a supplier of the core.
    supplier: Option<Supplier>,
    requests: Requests,
    promises: Promises<Arrived>,
    /// Answers to be verified and committed together.
    arrived: Vec<Arrived>,
    /// Batches of blocks that the peer was asked about.
    wanted: BTreeSet<u64>,
}

/// Membership in a core's supply. Dropped, its claims are free for others.
#[derive(Debug)]
struct Supplier {
    core: Core,
    id: SupplierId,
}

/// A request and its answer.
#[derive(Debug)]
struct Arrived {
    pending: Pending,
    proof: Proof,
}

impl Drop for Supplier {
    fn drop(&mut self) {
        self.core.supply().detach(self.id);
    }
}

impl Downloads {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            supplier: None,
            requests: Requests::new(now),
            promises: Promises::default(),
            arrived: Vec::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// Makes the peer a supplier of `core`. `wake` is called when there is more to ask for.
    pub(crate) fn start(&mut self, core: &Core, wake: Wake) {
        let id = core.supply().attach(wake);
        self.supplier = Some(Supplier {
            core: core.clone(),
            id,
        });
    }

    /// Asks the peer for nothing more.
    pub(crate) fn stop(&mut self) {
        self.supplier = None;
    }

    /// How many requests are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// When the next request may be overdue.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.requests.next_deadline()
    }

    /// The peer's state changed: says to the core which length it can be brought to.
    pub(crate) fn handle_sync(&mut self, core: &Core, peer: &Peer) {
        let Some(supplier) = &self.supplier else {
            return;
        };
        let length = core.length();
        let is_same_fork = peer.sync.fork == core.fork();
        // Until it acknowledges our length, what it says of upgrades is about an older one.
        let may_upgrade = peer.sync.can_upgrade || peer.sync.remote_length != length;
        let reachable = if is_same_fork && may_upgrade {
            peer.sync.length
        } else {
            length
        };
        core.supply().settle(supplier.id, reachable);
    }

    /// The peer has blocks at or past `from` that it had not before.
    pub(crate) fn handle_available(&mut self, core: &Core, from: u64) {
        if let Some(supplier) = &self.supplier {
            core.supply().available(supplier.id, from);
        }
    }

    /// An answer came. It is verified by the next [`commit`](Self::commit).
    pub(crate) fn handle_data(&mut self, core: &Core, data: Data, now: Time, stats: &mut Stats) {
        let Some(pending) = self.requests.answered(data.request, now) else {
            stats.answers_ignored += 1;
            return;
        };
        if !pending.is_answered_by(&data.proof) {
            stats.answers_ignored += 1;
            return self.give_up(core, &pending);
        }
        let arrived = Arrived {
            pending,
            proof: data.proof,
        };
        match arrived.pending.path {
            Some(path) if self.promises.is_early(path) => {
                stats.proofs_parked += 1;
                self.promises.park(path, arrived);
            }
            _ => self.arrive(arrived),
        }
    }

    /// An answer will not come.
    pub(crate) fn handle_no_data(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        no_data: NoData,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        let Some(pending) = self.requests.answered(no_data.request, now) else {
            return Ok(());
        };
        self.forgo(core, peer, &pending);
        match pending.asked.block {
            Some(block) if !peer.blocks.deny(block.index) => Err(PeerMisbehaved::TooManyDenials),
            _ => Ok(()),
        }
    }

    /// Gives up requests that are overdue and tells the peer.
    pub(crate) fn handle_timeout(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        wire: &mut Wire<'_>,
        now: Time,
        stats: &mut Stats,
    ) {
        if self
            .requests
            .next_deadline()
            .is_none_or(|deadline| now < deadline)
        {
            return;
        }
        for (request, pending) in self.requests.overdue(now) {
            stats.requests_timed_out += 1;
            wire.send(&Message::Cancel(Cancel { request }));
            self.forgo(core, peer, &pending);
        }
    }

    /// Verifies what has arrived and commits it in one pass.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadProof`] if a proof does not hold. Those that do are committed.
    pub(crate) fn commit(&mut self, core: &Core, stats: &mut Stats) -> Result<(), PeerMisbehaved> {
        if self.arrived.is_empty() {
            return Ok(());
        }
        let (pending, proofs): (Vec<_>, Vec<_>) = std::mem::take(&mut self.arrived)
            .into_iter()
            .map(|arrived| (arrived.pending, arrived.proof))
            .unzip();
        let sizes: Vec<usize> = proofs.iter().map(block_len).collect();
        let mut changeset = core.changeset();
        let results = core.verify_into(&mut changeset, proofs);
        let (mut verified, mut bytes, mut refused) = (Vec::new(), 0, None);
        for ((pending, size), result) in pending.into_iter().zip(sizes).zip(results) {
            match result {
                Ok(()) => {
                    bytes += size as u64;
                    verified.push(pending);
                }
                Err(error) => {
                    self.release(core, &pending);
                    if is_to_blame(&error, &pending) {
                        stats.proofs_refused += 1;
                        refused = Some(error);
                    }
                }
            }
        }
        match core.commit(changeset) {
            Ok(accepted) => {
                stats.blocks_downloaded += accepted.blocks.len() as u64;
                stats.bytes_downloaded += bytes;
                if accepted.blocks.len() < verified.len() {
                    self.release_duplicates(core, &verified, &accepted.blocks);
                }
            }
            Err(error) => self.fail_commit(core, &verified, &error),
        }
        refused.map_or(Ok(()), |error| Err(PeerMisbehaved::BadProof(error)))
    }

    /// Asks for an upgrade if there is one, and for as many wanted blocks as may be in flight, but
    /// not more than `budget`.
    pub(crate) fn schedule(
        &mut self,
        core: &Core,
        peer: &Peer,
        wire: &mut Wire<'_>,
        budget: usize,
        now: Time,
        stats: &mut Stats,
    ) {
        let Some(id) = self.supplier.as_ref().map(|supplier| supplier.id) else {
            return;
        };
        if !peer.is_synced || !peer.sync.uploading || peer.sync.fork != core.fork() {
            return;
        }
        let before = self.requests.len();
        self.request_upgrade(core, peer, wire, now);
        if can_ask_for_blocks(core, peer) {
            let mean_block = core.byte_length() / core.length().max(1);
            let room = self.requests.room(mean_block).min(budget);
            let available = Available::new(peer);
            let claims = core.supply().claim(id, &available, room);
            for claim in claims {
                self.request_block(core, claim, wire, now);
            }
            self.want(available.unknown.into_inner(), wire);
        }
        stats.requests_sent += (self.requests.len() - before) as u64;
    }

    /// One upgrade at a time, and only from the length that the peer has acknowledged.
    fn request_upgrade(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>, now: Time) {
        let (start, sync) = (core.length(), &peer.sync);
        let is_possible = sync.can_upgrade && sync.length > start && sync.remote_length == start;
        if !is_possible || self.requests.is_upgrading() {
            return;
        }
        let asked = ProofRequest {
            fork: core.fork(),
            upgrade: Some(UpgradeRequest {
                start,
                length: sync.length - start,
            }),
            manifest: sync.has_manifest && core.manifest().is_none(),
            ..ProofRequest::default()
        };
        let id = self.requests.insert(asked.clone(), None, now);
        wire.send(&Message::Request(Request {
            id,
            proof: asked,
            priority: 0,
        }));
    }

    fn request_block(&mut self, core: &Core, claim: Claim, wire: &mut Wire<'_>, now: Time) {
        let index = claim.index;
        let path = match self.promises.short_path(index) {
            Some(path) => path,
            None => match core.missing_nodes(2 * index) {
                Ok(missing) => Path::to_stored(index, missing),
                Err(error) => {
                    tracing::warn!(core = %core.key(), index, %error, "cannot read the tree");
                    return self.stop();
                }
            },
        };
        self.promises.promise(path);
        let asked = ProofRequest {
            fork: core.fork(),
            block: Some(NodeRequest {
                index,
                nodes: path.levels,
            }),
            ..ProofRequest::default()
        };
        let id = self.requests.insert(asked.clone(), Some(path), now);
        let priority = u64::from(claim.urgent);
        wire.send(&Message::Request(Request {
            id,
            proof: asked,
            priority,
        }));
    }

    /// Asks which blocks of these batches the peer has.
    fn want(&mut self, batches: BTreeSet<u64>, wire: &mut Wire<'_>) {
        for batch in batches {
            if self.wanted.len() < WANTS_MAX && self.wanted.insert(batch) {
                wire.send(&Message::Want(Want {
                    start: batch * WANT_BLOCKS,
                    length: WANT_BLOCKS,
                    any: false,
                }));
            }
        }
    }

    /// Queues an answer, and those that were waiting for it behind it.
    fn arrive(&mut self, arrived: Arrived) {
        let mut ready = vec![arrived];
        while let Some(next) = ready.pop() {
            if let Some(path) = next.pending.path {
                ready.extend(self.promises.settle(path));
            }
            self.arrived.push(next);
        }
    }

    /// A request that the peer will not answer: it is not asked for the same again at once.
    fn forgo(&mut self, core: &Core, peer: &mut Peer, pending: &Pending) {
        if pending.asked.upgrade.is_some() {
            peer.sync.can_upgrade = false;
            self.handle_sync(core, peer);
        }
        self.give_up(core, pending);
    }

    /// A request without a usable answer: others may have its block, and answers that rest on its
    /// own are tried without it.
    fn give_up(&mut self, core: &Core, pending: &Pending) {
        self.release(core, pending);
        if let Some(path) = pending.path {
            for orphan in self.promises.settle(path) {
                self.arrive(orphan);
            }
        }
    }

    fn release(&self, core: &Core, pending: &Pending) {
        if let (Some(supplier), Some(block)) = (&self.supplier, pending.asked.block) {
            core.supply().release(supplier.id, block.index);
        }
    }

    /// Blocks that came from elsewhere meanwhile leave no claims behind.
    fn release_duplicates(&self, core: &Core, verified: &[Pending], fresh: &[u64]) {
        for pending in verified {
            if pending
                .asked
                .block
                .is_some_and(|block| fresh.binary_search(&block.index).is_err())
            {
                self.release(core, pending);
            }
        }
    }

    fn fail_commit(&mut self, core: &Core, verified: &[Pending], error: &AcceptError) {
        verified
            .iter()
            .for_each(|pending| self.release(core, pending));
        if let AcceptError::Storage(error) = error {
            tracing::error!(core = %core.key(), %error, "cannot store what a peer sent");
            self.stop();
        }
    }
}

/// A peer with a shorter log can prove blocks only if our tree grew from its own roots.
fn can_ask_for_blocks(core: &Core, peer: &Peer) -> bool {
    peer.sync.length >= core.length() || core.can_upgrade_from(peer.sync.length).unwrap_or(false)
}

fn block_len(proof: &Proof) -> usize {
    proof.block.as_ref().map_or(0, |block| block.value.len())
}

/// Whether a failed verification is the peer's fault: not if we or another peer moved the core, nor
/// if we asked for too short a path.
fn is_to_blame(error: &VerifyError, pending: &Pending) -> bool {
    let rests_on_another = pending
        .path
        .is_some_and(|path| path.promised_anchor.is_some());
    match error {
        VerifyError::Unanchored { .. } => !rests_on_another,
        VerifyError::WrongFork { .. } => false,
        other => !other.is_blameless(),
    }
}

/// The blocks that a peer is known to have, and where it is not known what it has.
struct Available<'a> {
    blocks: &'a RemoteBlocks,
    length: u64,
    /// Batches with wanted blocks that the peer did not speak about.
    unknown: RefCell<BTreeSet<u64>>,
}

impl<'a> Available<'a> {
    fn new(peer: &'a Peer) -> Self {
        Self {
            blocks: &peer.blocks,
            length: peer.sync.length,
            unknown: RefCell::default(),
        }
    }

    fn note_unknown(&self, gap: Range<u64>) {
        let start = gap.start.max(self.blocks.contiguous());
        if start < gap.end {
            let batches = start / WANT_BLOCKS..=(gap.end - 1) / WANT_BLOCKS;
            self.unknown.borrow_mut().extend(batches.take(WANTS_MAX));
        }
    }
}

impl Availability for Available<'_> {
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        let range = range.start..range.end.min(self.length);
        let found = self.blocks.next(range.clone());
        self.note_unknown(range.start..found.unwrap_or(range.end));
        found
    }
}
