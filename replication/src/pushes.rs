//! Blocks that go to the peer unasked, and those that come so, on one channel.
//!
//! Knows what a pushed block has to bring along. Does not know which blocks are to be pushed, nor whether they
//! are welcome here: both are the core's ([`ferrocore_log::push`]). Matches `push` and `_handleRequest` of
//! `hypercore/lib/replicator.js` 11.37.1.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll, Waker};

use ferrocore_log::Core;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::{AcceptError, AcceptTicket};
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::supply::SupplierId;

use crate::kept::{Kept, bytes_of};
use crate::limits::{BAD_PUSHES_MAX, PUSHED_WAITING_MAX};
use crate::messages::{Data, Message, Request};
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::Peer;
use crate::promises::levels_below_root;
use crate::stats::Stats;
use crate::uploads::{self, LongAnswers};
use crate::wire::Wire;

/// One channel's pushes.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    /// How long the log is that the peer was sent proof of, in blocks: it may not have told yet.
    proven: u64,
    /// Whether the core had blocks to push when it was last looked at.
    is_waiting: bool,
    /// Pushed blocks of the peer that did not hold.
    refused: u32,
    /// Pushed blocks of the peer, while there are any.
    receiving: Option<Box<Receiving>>,
}

/// Pushed blocks that came.
#[derive(Debug)]
struct Receiving {
    /// One on its way to the device.
    storing: Option<AcceptTicket>,
    /// Those that came behind it, which may rest on it.
    behind: VecDeque<Waiting>,
    /// What both take.
    kept: Kept,
}

/// A pushed block, and what it takes of the room for answers that wait.
#[derive(Debug)]
struct Waiting {
    proof: Proof,
    kept_bytes: usize,
}

impl Pushes {
    /// Looks whether there are blocks to push.
    pub(crate) fn look(&mut self, core: &Core, to: Option<SupplierId>) {
        self.is_waiting = to.is_some_and(|to| core.supply().has_push(to));
    }

    /// Whether there are.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// The peer is on another fork, or we are.
    pub(crate) fn start_over(&mut self) {
        self.proven = 0;
    }

    /// A proof was sent: the next one goes on from there.
    pub(crate) fn note_sent(&mut self, proof: &Proof) {
        if let Some(upgrade) = &proof.upgrade {
            self.proven = self.proven.max(upgrade.start + upgrade.length);
        }
    }

    /// A peer that is pushed to may have got further than it was when it asked for an upgrade.
    pub(crate) fn go_on_from(&self, peer: &Peer, request: &mut Request) {
        let upgrade = request.proof.upgrade.as_mut();
        let Some(upgrade) = upgrade.filter(|_| peer.sync.allow_push) else {
            return;
        };
        let end = upgrade.start.saturating_add(upgrade.length);
        if upgrade.start < self.proven && self.proven < end {
            upgrade.start = self.proven;
            upgrade.length = end - self.proven;
        }
    }

    /// Pushes one block, or drops it if the peer does not take it; false when there is none.
    pub(crate) fn send_next(
        &mut self,
        core: &Core,
        peer: &Peer,
        to: Option<SupplierId>,
        wire: &mut Wire<'_>,
        long: &mut LongAnswers,
    ) -> bool {
        let next = to.and_then(|to| Some((to, core.supply().next_push(to)?)));
        let Some((to, index)) = next else {
            self.is_waiting = false;
            return false;
        };
        if !is_welcome(core, peer, index) {
            return true;
        }
        let request = self.request(core, peer, index);
        let together = wire.bounds().upload_together;
        let proofs = match long.are_allowed(|| uploads::answer_len(core, &request)) {
            true => core.prove_all(slice::from_ref(&request), together),
            false => core.prove_short(slice::from_ref(&request), together),
        };
        match proofs.into_iter().next() {
            None => {
                *long = LongAnswers::Waiting(uploads::answer_len(core, &request));
                core.supply().put_back_push(to, index);
            }
            Some(Ok(Some(proof))) if proof.block.is_some() => self.send(proof, wire, long),
            Some(_) => {} // it is not here any more
        }
        true
    }

    /// Takes in an answer that nobody asked for. False if it is of no use here. `waker` is told when there is
    /// more to do for [`go_on`](Self::go_on).
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadProof`] if it does not hold, once too often: what is pushed while the log is being
    /// upgraded otherwise may rest on what has changed.
    pub(crate) fn handle(
        &mut self,
        core: &Core,
        proof: &Proof,
        waker: &Waker,
        kept: Kept,
    ) -> Result<bool, PeerMisbehaved> {
        let is_of_use =
            proof.fork == core.fork() && (proof.block.is_some() || proof.upgrade.is_some());
        if !core.push_mode().is_allowed() || !is_of_use {
            return Ok(false);
        }
        let receiving = self.receiving.get_or_insert_with(|| Receiving::new(kept));
        if receiving.storing.is_some() {
            receiving.keep(proof.clone());
            return Ok(true);
        }
        receiving.storing = Some(core.accept_async(proof.clone()));
        let is_of_use = self.look_at_storing(core, waker);
        match &mut self.receiving {
            Some(receiving) if receiving.storing.is_some() => receiving.kept.hold(bytes_of(proof)),
            Some(receiving) if receiving.behind.is_empty() => self.receiving = None,
            _ => {}
        }
        is_of_use
    }

    /// Whether a pushed block is on its way to the device.
    pub(crate) fn is_storing(&self) -> bool {
        let receiving = self.receiving.as_ref();
        receiving.is_some_and(|receiving| receiving.storing.is_some())
    }

    /// Goes on with what has come behind a block that is stored now, and counts that if it was of no use. Returns the next that is.
    ///
    /// # Errors
    /// As for [`handle`](Self::handle).
    pub(crate) fn go_on(
        &mut self,
        core: &Core,
        waker: &Waker,
        stats: &mut Stats,
    ) -> Result<Option<Proof>, PeerMisbehaved> {
        stats.answers_ignored += u64::from(!self.look_at_storing(core, waker)?);
        while let Some(receiving) = self.receiving.as_mut().filter(|r| r.storing.is_none()) {
            let Some(Waiting { proof, kept_bytes }) = receiving.behind.pop_front() else {
                self.receiving = None;
                break;
            };
            receiving.kept.give_back(kept_bytes);
            let kept = receiving.kept.beside();
            if !self.handle(core, &proof, waker, kept)? {
                return Ok(Some(proof));
            }
        }
        Ok(None)
    }

    /// Looks whether the block that is being stored is, and judges it if it was not.
    fn look_at_storing(&mut self, core: &Core, waker: &Waker) -> Result<bool, PeerMisbehaved> {
        let receiving = self.receiving.as_mut();
        let Some((receiving, mut ticket)) =
            receiving.and_then(|r| r.storing.take().map(|t| (r, t)))
        else {
            return Ok(true);
        };
        let Poll::Ready(result) = Pin::new(&mut ticket).poll(&mut Context::from_waker(waker))
        else {
            receiving.storing = Some(ticket);
            return Ok(true);
        };
        let behind = receiving.behind.iter();
        receiving.kept.retain(behind.map(|b| b.kept_bytes).sum());
        match result {
            Ok(_) => Ok(true),
            Err(AcceptError::Verify(error)) if !error.is_blameless() => self.refuse(error),
            Err(AcceptError::Storage(error) | AcceptError::Verify(VerifyError::Storage(error))) => {
                tracing::error!(core = %core.key(), %error, "cannot store what a peer sent");
                Ok(true)
            }
            Err(AcceptError::Unplaced { index }) => {
                tracing::warn!(core = %core.key(), index, "the tree is damaged: a pushed block has no place");
                Ok(false)
            }
            Err(_) => Ok(true), // another peer was faster
        }
    }

    fn refuse(&mut self, error: VerifyError) -> Result<bool, PeerMisbehaved> {
        self.refused += 1;
        match self.refused >= BAD_PUSHES_MAX {
            true => Err(PeerMisbehaved::BadProof(error)),
            false => Ok(false),
        }
    }

    /// What the peer would ask for to get the block, going by what it is known to have.
    fn request(&self, core: &Core, peer: &Peer, index: u64) -> ProofRequest {
        let known = peer.sync.length.max(self.proven);
        let upgrade = UpgradeRequest {
            start: known,
            length: core.length().saturating_sub(known),
        };
        ProofRequest {
            fork: core.fork(),
            block: Some(NodeRequest {
                index,
                nodes: levels_below_root(index, known).unwrap_or(0),
            }),
            upgrade: (index >= known).then_some(upgrade),
            manifest: peer.sync.length == 0,
            ..ProofRequest::default()
        }
    }

    fn send(&mut self, proof: Proof, wire: &mut Wire<'_>, long: &mut LongAnswers) {
        let block_len = proof.block.as_ref().map_or(0, |block| block.value.len());
        if block_len > wire.bounds().upload_together {
            long.spend();
        }
        let data = Data { request: 0, proof };
        let message = Message::Data(data);
        if wire.try_send(&message).is_ok() {
            wire.counted.blocks_uploaded += 1;
            wire.counted.bytes_uploaded += block_len as u64;
            if let Message::Data(data) = &message {
                self.note_sent(&data.proof);
            }
        }
    }
}

impl Receiving {
    fn new(kept: Kept) -> Box<Self> {
        Box::new(Self {
            storing: None,
            behind: VecDeque::new(),
            kept,
        })
    }

    /// Keeps a block behind the one that is being stored, or drops it if there is no room.
    fn keep(&mut self, mut proof: Proof) {
        if self.behind.len() < PUSHED_WAITING_MAX
            && let Some(kept_bytes) = self.kept.keep(&mut proof)
        {
            self.behind.push_back(Waiting { proof, kept_bytes });
        }
    }
}

/// Whether the peer takes a block that it has not asked for.
fn is_welcome(core: &Core, peer: &Peer, index: u64) -> bool {
    let sync = &peer.sync;
    let takes = peer.is_synced && sync.allow_push && sync.downloading && sync.fork == core.fork();
    takes && index < core.length() && !peer.has(index)
}
