//! Getting what a core wants from one peer: claims, requests, and the proofs that come back.
//!
//! Knows how wants become requests and how answers become commits. Does not know what the wants
//! are (they are the core's) nor what the peer is told about us.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

use ferrocore_log::Core;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::{AcceptError, RemoteHead};
use ferrocore_log::flat_tree;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::supply::{Availability, Claim, SeekId, SupplierId, Wake};
use ferrocore_primitives::time::Time;

use crate::following::Following;
use crate::limits::{WANT_BLOCKS, WANTS_MAX};
use crate::messages::{Cancel, Data, Message, NoData, Request, Want};
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::{Peer, RemoteBlocks};
use crate::promises::{Path, Promises};
use crate::requests::{Asked, Pending, Requests};
use crate::stats::Stats;
use crate::suspicion::{Shown, Suspicion, may_show_conflict};
use crate::wire::Wire;

/// What one peer is asked for.
pub(crate) struct Downloads {
    /// The peer as a supplier of the core, from the start on. It is woken even while it cannot be
    /// asked for anything: there may be something to tell it.
    supplier: Option<Supplier>,
    /// Whether the peer is asked for nothing more.
    is_stopped: bool,
    /// Our fork and the peer's, as of what was asked for.
    forks: (u64, u64),
    following: Following,
    requests: Requests,
    promises: Promises<Arrived>,
    /// Answers to be verified and committed together.
    arrived: Vec<Arrived>,
    /// Batches of blocks that the peer was asked about.
    wanted: BTreeSet<u64>,
    suspicion: Suspicion,
    shown: Shown,
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
            is_stopped: false,
            forks: (0, 0),
            following: Following::default(),
            requests: Requests::new(now),
            promises: Promises::default(),
            arrived: Vec::new(),
            wanted: BTreeSet::new(),
            suspicion: Suspicion::default(),
            shown: Shown::default(),
        }
    }

    /// Makes the peer a supplier of `core`. `wake` is called when there is more to ask for.
    pub(crate) fn start(&mut self, core: &Core, answers_seeks: bool, wake: Wake) {
        let id = core.supply().attach(wake);
        if answers_seeks {
            core.supply().answer_seeks(id);
        }
        core.supply().carry_extensions(id);
        self.supplier = Some(Supplier {
            core: core.clone(),
            id,
        });
    }

    /// The peer as a supplier, once it has opened its half of the channel.
    pub(crate) fn supplier(&self) -> Option<SupplierId> {
        self.supplier.as_ref().map(|supplier| supplier.id)
    }

    /// Asks the peer for nothing more.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
        self.doubt();
        self.pause();
    }

    /// How many requests are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// When the next request may be overdue.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.requests.next_deadline()
    }

    /// The peer told its state anew.
    pub(crate) fn handle_sync(&mut self, core: &Core, peer: &Peer) {
        self.following.reconsider();
        self.judge(core, peer);
    }

    /// The peer's state or ours changed: says to the core which length it can be brought to. A peer
    /// that has not come to our fork yet can supply nothing, and those who wait should look elsewhere.
    pub(crate) fn judge(&mut self, core: &Core, peer: &Peer) {
        if !peer.is_synced {
            return;
        }
        self.leave_forks((core.fork(), peer.sync.fork));
        self.report_head(core, peer);
        let Some(supplier) = self.supplier.as_ref().filter(|_| !self.is_stopped) else {
            return;
        };
        if self.following.is_possible(core, peer) && peer.sync.uploading {
            return core.supply().resume(supplier.id);
        }
        if peer.sync.fork != core.fork() || !peer.sync.uploading {
            return self.pause();
        }
        let length = core.length();
        // Until it acknowledges our length, what it says of upgrades is about an older one.
        let may_upgrade = peer.sync.can_upgrade || peer.sync.remote_length != length;
        let reachable = if may_upgrade {
            peer.sync.length
        } else {
            length
        };
        core.supply().settle(supplier.id, reachable);
    }

    /// Says to the core which head the peer says to have: whoever writes the core must know. What the
    /// peer could not be asked to prove does not count.
    fn report_head(&self, core: &Core, peer: &Peer) {
        let Some(supplier) = self.supplier.as_ref().filter(|_| !self.is_stopped) else {
            return;
        };
        let sync = &peer.sync;
        let is_provable = match sync.fork.cmp(&core.fork()) {
            Ordering::Greater => self.following.is_possible(core, peer),
            Ordering::Equal => {
                let may_upgrade = sync.can_upgrade || sync.remote_length != core.length();
                may_upgrade || sync.length <= core.length()
            }
            Ordering::Less => true,
        };
        if is_provable && sync.uploading {
            let (fork, length) = (sync.fork, sync.length);
            core.supply().hear(supplier.id, RemoteHead { fork, length });
        } else {
            core.supply().doubt(supplier.id);
        }
    }

    /// The peer has blocks at or past `from` that it had not before.
    pub(crate) fn handle_available(&mut self, core: &Core, from: u64) {
        if let Some(supplier) = &self.supplier {
            core.supply().available(supplier.id, from);
        }
    }

    /// An answer came. It is verified by the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`PeerMisbehaved::TooManyDenials`] if it answers another question, once too often.
    pub(crate) fn handle_data(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        data: Data,
        now: Time,
        stats: &mut Stats,
    ) -> Result<(), PeerMisbehaved> {
        let Some(pending) = self.requests.answered(data.request, now) else {
            stats.answers_ignored += 1;
            if data.request == 0 && self.shown.is_one_more() {
                check_conflict(core, &data.proof); // as a peer shows it that knows of one
            }
            return Ok(());
        };
        if !pending.is_answered_by(&data.proof) {
            stats.answers_ignored += 1;
            return self.deny(core, peer, &pending);
        }
        let proof = data.proof;
        if pending.asked == Asked::Whole {
            check_conflict(core, &proof);
            self.suspicion.conclude();
            return Ok(());
        }
        if matches!(pending.asked, Asked::Fork | Asked::Node(_)) {
            let followed = self.following.handle(core, proof);
            return self.check_followed(core, followed, stats);
        }
        let arrived = Arrived { pending, proof };
        match pending.path() {
            Some(path) if self.promises.is_early(path) => {
                stats.proofs_parked += 1;
                self.promises.park(path, arrived);
            }
            _ => self.arrive(arrived),
        }
        Ok(())
    }

    /// An answer will not come.
    ///
    /// # Errors
    /// [`PeerMisbehaved::TooManyDenials`] if that happened too often.
    pub(crate) fn handle_no_data(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        no_data: NoData,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        match self.requests.answered(no_data.request, now) {
            Some(pending) => self.deny(core, peer, &pending),
            None => Ok(()),
        }
    }

    /// Gives up requests that are overdue and tells the peer.
    pub(crate) fn handle_timeout(
        &mut self,
        core: &Core,
        wire: &mut Wire<'_>,
        now: Time,
        stats: &mut Stats,
    ) {
        for (request, pending) in self.requests.overdue(now) {
            stats.requests_timed_out += 1;
            wire.send(&Message::Cancel(Cancel { request }));
            self.give_up(core, &pending);
        }
        if let Some(id) = self.supplier() {
            let late = self.requests.late(now).into_iter();
            late.for_each(|path| core.supply().late(id, path.block));
        }
    }

    /// Takes back requests for blocks that have come from other peers.
    pub(crate) fn cancel_overtaken(&mut self, core: &Core, wire: &mut Wire<'_>, stats: &mut Stats) {
        for (request, pending) in self.requests.overtaken(|block| core.has(block)) {
            stats.requests_overtaken += 1;
            wire.send(&Message::Cancel(Cancel { request }));
            self.give_up(core, &pending);
        }
    }

    /// Verifies what has arrived and commits it in one pass.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadProof`] if a proof does not hold. Those that do are committed.
    pub(crate) fn commit(
        &mut self,
        core: &Core,
        peer: &Peer,
        wire: &mut Wire<'_>,
        now: Time,
        stats: &mut Stats,
    ) -> Result<(), PeerMisbehaved> {
        if let Some(error) = self.suspicion.take_verdict() {
            return Err(PeerMisbehaved::BadProof(error));
        }
        if self.arrived.is_empty() {
            return Ok(());
        }
        let arrived = std::mem::take(&mut self.arrived).into_iter();
        let (requests, proofs) = arrived
            .map(|arrived| (arrived.pending, arrived.proof))
            .unzip();
        let mut changeset = core.changeset();
        let results = core.verify_into(&mut changeset, proofs);
        let (verified, refused) = self.sort_out(core, requests, results);
        let bytes: usize = changeset
            .blocks()
            .iter()
            .map(|(_, block)| block.len())
            .sum();
        match core.commit(changeset) {
            Ok(accepted) => {
                stats.blocks_downloaded += accepted.blocks.len() as u64;
                stats.bytes_downloaded += bytes as u64;
                if accepted.blocks.len() < verified.len() {
                    self.release_duplicates(core, &verified, &accepted.blocks);
                    settle_seeks(core, &verified);
                }
            }
            Err(error) => self.fail_commit(core, &verified, &error),
        }
        let Some(error) = refused else {
            return Ok(());
        };
        stats.proofs_refused += 1;
        self.suspect(core, peer, error, wire, now)
    }

    /// Asks a peer whose proof does not hold for all it has, if that may show another history.
    fn suspect(
        &mut self,
        core: &Core,
        peer: &Peer,
        error: VerifyError,
        wire: &mut Wire<'_>,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        let length = core.length().min(peer.sync.length);
        let is_same_fork = peer.sync.fork == core.fork();
        let may_tell = may_show_conflict(&error) && length > 0 && is_same_fork;
        if !may_tell || self.suspicion.is_any() {
            return Err(PeerMisbehaved::BadProof(error));
        }
        let proof = ProofRequest {
            fork: core.fork(),
            upgrade: Some(UpgradeRequest { start: 0, length }),
            ..ProofRequest::default()
        };
        let id = self.requests.insert(proof.fork, Asked::Whole, now);
        wire.send(&Message::Request(Request {
            id,
            proof,
            priority: 0,
        }));
        self.suspicion = Suspicion::Asked(error);
        self.pause(); // others may have what it was to give
        Ok(())
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
        let is_idle = self.is_stopped || self.suspicion.is_any();
        if is_idle || !peer.is_synced || !peer.sync.uploading {
            return;
        }
        let before = self.requests.len();
        if core.conflict().is_some() {
            // It follows nobody any more, but blocks of what is here are welcome.
        } else if self.following.is_possible(core, peer) {
            self.request_fork(core, peer, wire, now);
        } else if peer.sync.fork == core.fork() {
            self.request_upgrade(core, peer, wire, now);
        }
        if can_ask_for_blocks(core, peer) {
            let mean_block = core.byte_length() / core.length().max(1);
            let room = self.requests.room(mean_block).min(budget);
            let available = Available::new(peer);
            self.request_seeks(core, id, &available, wire, now);
            let claims = core.supply().claim(id, &available, room);
            for claim in claims {
                self.request_block(core, claim, wire, now);
            }
            self.want(available.unknown.into_inner(), wire);
        }
        stats.requests_sent += (self.requests.len() - before) as u64;
    }

    fn doubt(&self) {
        if let Some(supplier) = &self.supplier {
            supplier.core.supply().doubt(supplier.id);
        }
    }

    fn pause(&self) {
        if let Some(supplier) = &self.supplier {
            supplier.core.supply().pause(supplier.id);
        }
    }

    /// Drops what was asked for and what came while we or the peer were on another fork. It is
    /// nobody's fault that it has become useless.
    fn leave_forks(&mut self, forks: (u64, u64)) {
        if std::mem::replace(&mut self.forks, forks) == forks {
            return;
        }
        self.requests.forget();
        self.promises = Promises::default();
        self.arrived.clear();
        self.wanted.clear();
        self.following = Following::default();
        self.suspicion.conclude();
        self.pause();
    }

    /// Asks for the next step to the peer's fork.
    fn request_fork(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>, now: Time) {
        if self.requests.is_upgrading() {
            return;
        }
        if let Some((asked, proof)) = self.following.next(core, peer) {
            let id = self.requests.insert(proof.fork, asked, now);
            wire.send(&Message::Request(Request {
                id,
                proof,
                priority: 0,
            }));
        }
    }

    /// Looks at how a step to the peer's fork went.
    fn check_followed(
        &mut self,
        core: &Core,
        followed: Result<(), AcceptError>,
        stats: &mut Stats,
    ) -> Result<(), PeerMisbehaved> {
        match followed {
            Err(AcceptError::Verify(error)) if !error.is_blameless() => {
                stats.proofs_refused += 1;
                Err(PeerMisbehaved::BadProof(error))
            }
            Err(AcceptError::Storage(error) | AcceptError::Verify(VerifyError::Storage(error))) => {
                tracing::error!(core = %core.key(), %error, "cannot follow to another fork");
                self.stop();
                Ok(())
            }
            _ => Ok(()), // or another peer was faster
        }
    }

    /// One upgrade at a time, and only from the length that the peer has acknowledged.
    fn request_upgrade(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>, now: Time) {
        let (start, sync) = (core.length(), &peer.sync);
        let is_possible = sync.can_upgrade && sync.length > start && sync.remote_length == start;
        if !is_possible || self.requests.is_upgrading() {
            return;
        }
        let proof = ProofRequest {
            fork: core.fork(),
            upgrade: Some(UpgradeRequest {
                start,
                length: sync.length - start,
            }),
            manifest: sync.has_manifest && core.manifest().is_none(),
            ..ProofRequest::default()
        };
        let id = self.requests.insert(proof.fork, Asked::Upgrade, now);
        wire.send(&Message::Request(Request {
            id,
            proof,
            priority: 0,
        }));
    }

    /// Asks where bytes are, by way of leaves that the peer has.
    fn request_seeks(
        &mut self,
        core: &Core,
        id: SupplierId,
        available: &Available<'_>,
        wire: &mut Wire<'_>,
        now: Time,
    ) {
        while let Some(claim) = core.supply().claim_seek(id) {
            let blocks = flat_tree::first_block(claim.below);
            let blocks = blocks..blocks + flat_tree::leaves(claim.below);
            let block = available.next_available(claim.guess..blocks.end);
            let Some(block) = block.or_else(|| available.next_available(blocks)) else {
                core.supply().refuse_seek(id, claim.id);
                continue;
            };
            let proof = ProofRequest {
                fork: core.fork(),
                hash: Some(NodeRequest {
                    index: 2 * block,
                    nodes: u64::from(flat_tree::depth(claim.below)),
                }),
                seek: Some(SeekRequest {
                    bytes: claim.byte,
                    padding: claim.padding,
                }),
                ..ProofRequest::default()
            };
            let asked = Asked::Seek(claim.id, 2 * block);
            let id = self.requests.insert(proof.fork, asked, now);
            wire.send(&Message::Request(Request {
                id,
                proof,
                priority: 1,
            }));
        }
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
        let proof = ProofRequest {
            fork: core.fork(),
            block: Some(NodeRequest {
                index,
                nodes: path.levels,
            }),
            ..ProofRequest::default()
        };
        let id = self.requests.insert(proof.fork, Asked::Block(path), now);
        if claim.contested {
            self.requests.contest(id);
        }
        wire.send(&Message::Request(Request {
            id,
            proof,
            priority: u64::from(claim.urgent),
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

    /// Which requests are answered by proofs that hold, and the worst that is wrong with the others.
    fn sort_out(
        &self,
        core: &Core,
        requests: Vec<Pending>,
        results: Vec<Result<(), VerifyError>>,
    ) -> (Vec<Pending>, Option<VerifyError>) {
        let (mut verified, mut refused) = (Vec::with_capacity(requests.len()), None);
        for (pending, result) in requests.into_iter().zip(results) {
            let Err(error) = result else {
                verified.push(pending);
                continue;
            };
            self.release_all(core, [&pending]);
            if is_to_blame(&error, &pending) {
                refused = Some(error);
            }
        }
        (verified, refused)
    }

    /// Queues an answer, and those that were waiting for it behind it.
    fn arrive(&mut self, arrived: Arrived) {
        let mut ready = vec![arrived];
        while let Some(next) = ready.pop() {
            if let Some(path) = next.pending.path() {
                ready.extend(self.promises.settle(path));
            }
            self.arrived.push(next);
        }
    }

    /// The peer will not give what it announced: it is taken not to have it. Only then its claim is free
    /// again, so that the next to make it is another.
    fn deny(
        &mut self,
        core: &Core,
        peer: &mut Peer,
        pending: &Pending,
    ) -> Result<(), PeerMisbehaved> {
        let is_tolerable = match pending.asked {
            // Of a history that we have left meanwhile.
            Asked::Block(_) | Asked::Seek(..) | Asked::Upgrade if pending.fork != core.fork() => {
                true
            }
            Asked::Block(path) => peer.blocks.deny(path.block),
            Asked::Upgrade => {
                peer.sync.can_upgrade = false;
                self.judge(core, peer);
                true
            }
            Asked::Seek(..) | Asked::Fork | Asked::Node(_) | Asked::Whole => true,
        };
        self.give_up(core, pending);
        if is_tolerable {
            Ok(())
        } else {
            Err(PeerMisbehaved::TooManyDenials)
        }
    }

    /// A request without a usable answer: others may have its block, and answers that rest on its own
    /// are tried without it.
    fn give_up(&mut self, core: &Core, pending: &Pending) {
        match pending.asked {
            Asked::Block(path) => {
                self.release(core, path.block);
                for orphan in self.promises.settle(path) {
                    self.arrive(orphan);
                }
            }
            Asked::Seek(seek, _) => self.refuse_seek(core, seek),
            Asked::Upgrade => self.doubt(),
            Asked::Whole => self.suspicion.conclude(),
            Asked::Fork | Asked::Node(_) => {
                if let Err(error) = self.following.give_up(core) {
                    tracing::warn!(core = %core.key(), %error, "cannot follow to another fork");
                }
                self.doubt(); // unless it was adopted
                self.pause(); // until one of us moves
            }
        }
    }

    fn release(&self, core: &Core, block: u64) {
        if let Some(supplier) = &self.supplier {
            core.supply().release(supplier.id, block);
        }
    }

    fn refuse_seek(&self, core: &Core, seek: SeekId) {
        if let Some(supplier) = &self.supplier {
            core.supply().refuse_seek(supplier.id, seek);
        }
    }

    fn release_all<'a>(&self, core: &Core, requests: impl IntoIterator<Item = &'a Pending>) {
        for pending in requests {
            match pending.asked {
                Asked::Block(path) => self.release(core, path.block),
                Asked::Seek(seek, _) => self.refuse_seek(core, seek),
                Asked::Upgrade | Asked::Fork | Asked::Node(_) | Asked::Whole => {}
            }
        }
    }

    /// Blocks that came from elsewhere meanwhile leave no claims behind.
    fn release_duplicates(&self, core: &Core, verified: &[Pending], fresh: &[u64]) {
        let is_fresh = |path: Path| fresh.binary_search(&path.block).is_ok();
        let duplicates = verified
            .iter()
            .filter(|p| p.path().is_some_and(|path| !is_fresh(path)));
        self.release_all(core, duplicates);
    }

    fn fail_commit(&mut self, core: &Core, verified: &[Pending], error: &AcceptError) {
        self.release_all(core, verified);
        if let AcceptError::Storage(error) = error {
            tracing::error!(core = %core.key(), %error, "cannot store what a peer sent");
            self.stop();
        }
    }
}

/// Whoever asked for bytes looks again.
fn settle_seeks(core: &Core, verified: &[Pending]) {
    for pending in verified {
        if let Asked::Seek(seek, _) = pending.asked {
            core.supply().seek_answered(seek);
        }
    }
}

/// Looks whether a peer's whole log is another than the one here.
fn check_conflict(core: &Core, proof: &Proof) {
    match core.check_conflict(proof) {
        Ok(_) => {} // the core tells everybody
        Err(VerifyError::Storage(error)) => {
            tracing::error!(core = %core.key(), %error, "cannot keep what froze the core");
        }
        Err(error) => tracing::debug!(core = %core.key(), %error, "a peer shows no signed log"),
    }
}

/// A peer with a shorter log can prove blocks only if our tree grew from its own roots.
fn can_ask_for_blocks(core: &Core, peer: &Peer) -> bool {
    let is_shorter = peer.sync.length < core.length();
    peer.sync.fork == core.fork()
        && (!is_shorter || core.can_upgrade_from(peer.sync.length).unwrap_or(false))
}

/// Whether a failed verification is the peer's fault: not if we or another peer moved the core, nor
/// if we asked for too short a path.
fn is_to_blame(error: &VerifyError, pending: &Pending) -> bool {
    let path = pending.path();
    let rests_on_another = path.is_some_and(|path| path.promised_anchor.is_some());
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
