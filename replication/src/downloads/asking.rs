//! What the peer is asked for next.
//!
//! Knows the order: a longer log, bytes that are sought, then blocks in the order in which the core hands out
//! claims. Does not know what becomes of the answers.

use std::ops::Range;

use ferrocore_log::Core;
use ferrocore_log::flat_tree;
use ferrocore_log::proof::{NodeRequest, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::push::PushMode;
use ferrocore_log::supply::{Claim, SeekId, SupplierId};
use ferrocore_primitives::time::Time;

use super::Downloads;
use super::available::Available;
use super::commit::Arrived;
use crate::messages::{Message, Request};
use crate::peer::Peer;
use crate::promises::{Path, levels_below_root};
use crate::requests::Asked;
use crate::wire::Wire;

impl Downloads {
    /// Asks for an upgrade if there is one, and for as many wanted blocks as may be in flight, but
    /// not more than `budget`.
    pub(crate) fn schedule(
        &mut self,
        core: &Core,
        peer: &Peer,
        wire: &mut Wire<'_>,
        budget: usize,
        now: Time,
    ) {
        // Who cannot be asked is not short of room.
        self.is_short = false;
        // Who cannot be asked waits for nobody: only what is left to others below is waited for again.
        let left_until = self.left_until();
        self.leave_until(None);
        let Some(id) = self.supplier.as_ref().map(|supplier| supplier.id) else {
            return;
        };
        self.take_back(core, wire, now);
        self.look_what_is_provable(core, peer);
        if let Some(from) = self.news_from.take() {
            core.supply().available(id, from);
        }
        let is_idle =
            core.push_mode() == PushMode::Only || !self.is_of_use() || self.suspicion.is_any();
        if is_idle || !peer.is_synced || !peer.sync.uploading {
            return;
        }
        let before = self.requests.len();
        if core.is_frozen() {
            // It follows nobody any more, but blocks of what is here are welcome.
        } else if self.following.is_possible(core, peer) {
            self.request_fork(core, peer, wire, now);
        } else if peer.sync.fork == core.fork() && self.kept.has_room() {
            self.request_upgrade(core, peer, wire, now);
            self.request_head(core, id, wire, now);
        }
        if !self.kept.has_room() {
            self.wait_for_room(core, id);
        } else if can_ask_for_blocks(core, peer) {
            self.leave_until(left_until);
            self.request_blocks(core, peer, id, wire, budget, now);
        }
        wire.counted.requests_sent += (self.requests.len() - before) as u64;
    }

    /// What came can neither be stored nor judged yet: nothing more is asked for, and nobody waits for this peer.
    fn wait_for_room(&mut self, core: &Core, id: SupplierId) {
        core.supply().expect(id, None);
        // Where others use it up, nothing that happens here tells that there is room again.
        self.is_short = self.kept.is_crowded();
    }

    /// Asks for what is wanted and the peer has, and says how soon it would answer more.
    fn request_blocks(
        &mut self,
        core: &Core,
        peer: &Peer,
        id: SupplierId,
        wire: &mut Wire<'_>,
        budget: usize,
        now: Time,
    ) {
        let mean_block = core.byte_length() / core.length().max(1);
        let wanted = self.requests.room(mean_block);
        let granted = wanted.min(budget);
        let may_wait = self.kept.in_flight_max(mean_block);
        let room = granted.min(may_wait.saturating_sub(self.requests.len()));
        let available = Available::new(peer);
        self.request_seeks(core, id, &available, wire, now);
        for claim in self.claim(core, id, &available, room, now) {
            self.request_block(core, peer, claim, wire, now);
        }
        let unknown = available.into_unknown();
        for message in self.inquiries.ask(&unknown, now) {
            wire.send(&message);
        }
        let pace = self.requests.pace();
        let outlook = pace.outlook(self.requests.len(), mean_block, now);
        core.supply().expect(id, outlook);
        let is_cut = room == granted && room < wanted;
        let is_cut = is_cut && self.requests.room(mean_block) == wanted - room;
        self.is_short = is_cut && core.supply().is_wanting();
    }

    /// Claims blocks, and leaves those that somebody waits for to faster peers for a while.
    fn claim(
        &mut self,
        core: &Core,
        id: SupplierId,
        available: &Available<'_>,
        room: usize,
        now: Time,
    ) -> Vec<Claim> {
        let left_until = self.left_until();
        if left_until.is_some_and(|until| until <= now) {
            self.leave_until(None);
            return core.supply().claim(id, available, room);
        }
        let claims = core.supply().claim_patiently(id, available, room);
        let until = claims.left_for.map(|time| now + time);
        // What was left first is not left for longer.
        self.leave_until(until.map(|until| left_until.unwrap_or(until).min(until)));
        claims.taken
    }

    /// Until when blocks that somebody waits for are left to faster peers.
    pub(super) fn left_until(&self) -> Option<Time> {
        self.waits.get()?.left_until
    }

    fn leave_until(&mut self, until: Option<Time>) {
        if until.is_some() || self.waits.get().is_some() {
            self.waits.need().left_until = until;
        }
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

    /// One upgrade at a time, and only from the length that the peer has acknowledged.
    fn request_upgrade(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>, now: Time) {
        let (start, sync) = (core.length(), &peer.sync);
        if !is_upgrade_offered(core, peer) || self.is_upgrade_coming() {
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

    /// Of a peer that has no more than we do, if the core has to know that it really has that: its signed tree.
    fn request_head(&mut self, core: &Core, id: SupplierId, wire: &mut Wire<'_>, now: Time) {
        if self.is_upgrade_coming() {
            return;
        }
        if let Some(length) = core.supply().unproven_head(id) {
            self.request_whole(core, length, wire, now);
        }
    }

    /// Asks for the signed tree of `length` blocks, or for a longer one that grows through it.
    pub(super) fn request_whole(
        &mut self,
        core: &Core,
        length: u64,
        wire: &mut Wire<'_>,
        now: Time,
    ) {
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
    }

    /// Whether the peer has more of the log than we can ask it for until it speaks again.
    pub(crate) fn waits_for_sync(&self, core: &Core, peer: &Peer) -> bool {
        let length = core.length();
        let is_longer = peer.length() > length;
        let is_of_use = self.is_of_use() && peer.is_synced && peer.sync.uploading;
        let may_ask = is_of_use && peer.sync.fork == core.fork() && !core.is_frozen();
        may_ask && is_longer && !is_upgrade_offered(core, peer) && !self.is_upgrade_coming()
    }

    /// Whether a longer log was asked for, or came and is not committed yet.
    fn is_upgrade_coming(&self) -> bool {
        self.requests.is_upgrading() || self.is_upgrade_here()
    }

    /// Whether a longer log came and is not committed yet.
    pub(super) fn is_upgrade_here(&self) -> bool {
        let is_committing = self.committing.as_ref().is_some_and(|c| c.is_upgrade());
        let mut arrived = self.arrived.get().into_iter().flatten();
        is_committing || arrived.any(Arrived::is_upgrade)
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
        for seek in self
            .inquiries
            .answered(|range| available.known(range).is_some())
        {
            core.supply().reconsider_seek(id, seek);
        }
        while let Some(claim) = core.supply().claim_seek(id) {
            let blocks = flat_tree::first_block(claim.below);
            let blocks = blocks..blocks + flat_tree::leaves(claim.below);
            let block = available.known(claim.guess..blocks.end);
            let Some(block) = block.or_else(|| available.known(blocks.clone())) else {
                self.inquire(
                    core,
                    id,
                    claim.id,
                    available.is_unsure(&blocks).then_some(blocks),
                    wire,
                    now,
                );
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

    /// What could not be proven by the peer, as our own tree was damaged, may be now: that was mended, or its log has grown.
    fn look_what_is_provable(&mut self, core: &Core, peer: &Peer) {
        let length = core.length().min(peer.length());
        let is_still_so = |root| {
            let first = flat_tree::first_block(root);
            let is_root = first < length && flat_tree::root_of(first, length) == root;
            is_root && core.missing_nodes(root).is_ok_and(|missing| missing > 0)
        };
        if let Some(from) = peer.blocks.keep_unprovable(is_still_so) {
            self.note_available(from);
        }
    }

    fn request_block(
        &mut self,
        core: &Core,
        peer: &Peer,
        claim: Claim,
        wire: &mut Wire<'_>,
        now: Time,
    ) {
        let index = claim.index;
        let may_rest_on_others = self.unjudged == 0;
        let short = may_rest_on_others.then(|| self.promises.short_path(index));
        let path = match short.flatten() {
            Some(path) => path,
            None => match core.missing_nodes(2 * index) {
                Ok(missing) => {
                    let levels = levels_below_root(index, peer.length());
                    Path::to_stored(index, levels.map_or(missing, |levels| levels.min(missing)))
                }
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

    /// Asks whether the peer has any of the blocks `near` a byte, one of which is needed to ask where it is.
    fn inquire(
        &mut self,
        core: &Core,
        id: SupplierId,
        seek: SeekId,
        near: Option<Range<u64>>,
        wire: &mut Wire<'_>,
        now: Time,
    ) {
        match near.and_then(|blocks| self.inquiries.ask_for_any(seek, blocks, now)) {
            Some(want) => {
                wire.send(&want);
                core.supply().postpone_seek(id, seek);
            }
            None => core.supply().refuse_seek(id, seek),
        }
    }

    /// Takes back what the peer was asked to tell of and need not tell any more.
    pub(super) fn take_back(&mut self, core: &Core, wire: &mut Wire<'_>, now: Time) {
        let is_sought = |seek| core.supply().is_sought(seek);
        let (unwants, unanswered) = self.inquiries.close(is_sought, now);
        unwants.iter().for_each(|unwant| wire.send(unwant));
        for seek in unanswered {
            self.refuse_seek(core, seek);
        }
    }
}

/// Whether the peer said that it can prove a longer log, to us as we are now.
fn is_upgrade_offered(core: &Core, peer: &Peer) -> bool {
    let (length, sync) = (core.length(), &peer.sync);
    sync.can_upgrade && sync.length > length && sync.remote_length == length
}

/// A peer with a shorter log can prove blocks only if our tree grew from its own roots.
fn can_ask_for_blocks(core: &Core, peer: &Peer) -> bool {
    let length = peer.length();
    peer.sync.fork == core.fork()
        && (length >= core.length() || core.can_upgrade_from(length).unwrap_or(false))
}
