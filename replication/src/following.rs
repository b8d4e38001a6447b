//! Following one peer to a higher fork: what to ask it for next, and when the move is made.
//!
//! Knows the order of the steps. Does not know whether a proof holds (the core does) nor how requests
//! are sent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ferrocore_log::Core;
use ferrocore_log::core::{AcceptError, AdoptTicket};
use ferrocore_log::proof::{Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::reorg::Reorg;

use crate::peer::Peer;
use crate::requests::Asked;

/// A move of a core to the fork that a peer has announced.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// Once the fork is proven: the search for where it leaves our history.
    /// Boxed: it is large, and most channels never have one.
    reorg: Option<Box<Reorg>>,
    /// Once all is known: the move, which is on its way to the device.
    adopting: Option<Box<AdoptTicket>>,
    /// The peer would not prove the fork.
    is_refused: bool,
}

impl Following {
    /// Whether the peer is on a higher fork that it can be asked to prove. Nothing proves a log
    /// without blocks.
    pub(crate) fn is_possible(&self, core: &Core, peer: &Peer) -> bool {
        peer.sync.fork > core.fork() && peer.sync.length > 0 && !self.is_refused
    }

    /// Whether the move is being made.
    pub(crate) fn is_adopting(&self) -> bool {
        self.adopting.is_some()
    }

    /// What to ask for next, one at a time.
    pub(crate) fn next(&self, core: &Core, peer: &Peer) -> Option<(Asked, ProofRequest)> {
        if self.is_adopting() {
            return None;
        }
        if let Some(reorg) = &self.reorg {
            let request = reorg.wants()?;
            return Some((Asked::Node(request.hash?.index), request));
        }
        let request = ProofRequest {
            fork: peer.sync.fork,
            upgrade: Some(UpgradeRequest {
                start: 0,
                length: peer.sync.length,
            }),
            manifest: peer.sync.has_manifest && core.manifest().is_none(),
            ..ProofRequest::default()
        };
        Some((Asked::Fork, request))
    }

    /// Takes in an answer. The last one moves the core; `waker` is told if that takes time, to
    /// [`poll`](Self::poll).
    pub(crate) fn handle(
        &mut self,
        core: &Core,
        proof: Proof,
        waker: &Waker,
    ) -> Result<(), AcceptError> {
        let reorg = match self.reorg.take() {
            None => Box::new(core.reorg(proof)?),
            Some(mut reorg) => {
                core.narrow(&mut reorg, &proof)?;
                reorg
            }
        };
        if reorg.wants().is_some() {
            self.reorg = Some(reorg);
            return Ok(());
        }
        self.adopting = Some(Box::new(core.adopt_async(*reorg)));
        self.poll(waker)
    }

    /// Looks how the move went, if one is being made.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Result<(), AcceptError> {
        let Some(mut ticket) = self.adopting.take() else {
            return Ok(());
        };
        match Pin::new(&mut ticket).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(adopted) => adopted,
            Poll::Pending => {
                self.adopting = Some(ticket);
                Ok(())
            }
        }
    }

    /// The peer will not answer. A fork that is proven is taken as it is: what more it has in common
    /// with ours is fetched again.
    pub(crate) fn give_up(&mut self, core: &Core, waker: &Waker) -> Result<(), AcceptError> {
        match self.reorg.take() {
            Some(reorg) => {
                self.adopting = Some(Box::new(core.adopt_async(*reorg)));
                self.poll(waker)
            }
            None => {
                self.is_refused = true;
                Ok(())
            }
        }
    }

    /// The peer spoke again: what it would not prove before it may prove now.
    pub(crate) fn reconsider(&mut self) {
        self.is_refused = false;
    }
}
