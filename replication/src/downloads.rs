//! Getting what a core wants from one peer: claims, requests, and the proofs that come back.
//!
//! | module | noun |
//! |---|---|
//! | `supplier` | the peer as one of the core's suppliers |
//! | `standing` | what may be expected of it |
//! | `asking`, `available` | what it is asked for next, and what it could be |
//! | `inquiries` | what it is asked to tell of |
//! | `commit` | answers that came |
//! | `setbacks` | answers that did not |
//! | `waits` | when somebody has waited long enough |
//!
//! Knows how wants become requests and how answers become commits. Does not know what the wants
//! are (they are the core's) nor what the peer is told about us.

mod asking;
mod available;
mod commit;
mod inquiries;
mod setbacks;
mod standing;
mod supplier;
mod waits;

use std::task::Waker;

use ferrocore_log::Core;
use ferrocore_log::proof::Proof;
use ferrocore_log::supply::{SupplierId, Wake};
use ferrocore_primitives::time::Time;

use self::commit::{Arrived, Committing, check_conflict};
use self::inquiries::Inquiries;
use self::supplier::Supplier;
use self::waits::{Parked, Waits};
use crate::following::Following;
use crate::kept::Kept;
use crate::limits::{ANSWERS_TOGETHER_MAX, PARKED_LOOK_INTERVAL};
use crate::messages::{Data, NoData};
use crate::misbehaviour::PeerMisbehaved;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::promises::Promises;
use crate::remote_blocks::Forgotten;
use crate::requests::{Asked, Pending, Requests};
use crate::seldom::Seldom;
use crate::stats::Stats;
use crate::suspicion::{Shown, Suspicion};

/// What one peer is asked for.
pub(crate) struct Downloads {
    /// The peer as a supplier of the core, from the start on. It is woken even while it cannot be
    /// asked for anything: there may be something to tell it.
    supplier: Option<Supplier>,
    /// Whether the peer is asked for nothing more.
    is_stopped: bool,
    /// Whether it withholds what it announced, and is asked for nothing until one of us moves to another fork.
    is_withholding: bool,
    /// Our fork and the peer's, as of what was asked for.
    forks: (u64, u64),
    following: Following,
    requests: Requests,
    promises: Promises<Arrived>,
    /// Answers that could not be judged, as what they were to rest on has not come: so many requests more are for what rests
    /// on nothing that is under way, and whose answers can.
    unjudged: usize,
    /// Answers to be verified and committed together.
    arrived: Seldom<Vec<Arrived>>,
    /// Those that are on their way to the device. Until they are there, the next wait.
    committing: Option<Box<Committing>>,
    /// What answers take that wait.
    kept: Kept,
    /// Told when they are.
    waker: Waker,
    /// Whether the last request was not the last there was to send.
    is_short: bool,
    inquiries: Inquiries,
    /// The first block of those that the peer has since the last look.
    news_from: Option<u64>,
    suspicion: Suspicion,
    shown: Shown,
    waits: Seldom<Waits>,
    /// Whether the peer is woken for blocks that come from elsewhere.
    heeds_blocks: bool,
}

impl Downloads {
    pub(crate) fn new(kept: Kept) -> Self {
        Self {
            supplier: None,
            is_stopped: false,
            is_withholding: false,
            forks: (0, 0),
            following: Following::default(),
            requests: Requests::default(),
            promises: Promises::default(),
            unjudged: 0,
            arrived: Seldom::default(),
            committing: None,
            kept,
            waker: Waker::noop().clone(),
            is_short: false,
            inquiries: Inquiries::default(),
            news_from: None,
            suspicion: Suspicion::default(),
            shown: Shown::default(),
            waits: Seldom::default(),
            heeds_blocks: true,
        }
    }

    /// Makes the peer a supplier of `core`. `wake` is called when there is more to ask for, `waker` when what
    /// came from the peer has reached storage.
    pub(crate) fn start(
        &mut self,
        core: &Core,
        peer: &Peer,
        answers_seeks: bool,
        wake: Wake,
        waker: Waker,
    ) {
        let supplier = Supplier::attach(core, answers_seeks, wake);
        core.supply().share(supplier.id, peer.blocks.share());
        self.supplier = Some(supplier);
        self.waker = waker;
    }

    /// Says whether blocks that come from elsewhere are `of_interest`. They are, too, where another is asked for the same. True
    /// if that is new.
    pub(crate) fn heed_blocks(&mut self, core: &Core, of_interest: bool) -> bool {
        let heeds = of_interest || self.requests.is_contested();
        let Some(supplier) = self
            .supplier
            .as_ref()
            .filter(|_| heeds != self.heeds_blocks)
        else {
            return false;
        };
        core.supply().heed_blocks(supplier.id, heeds);
        self.heeds_blocks = heeds;
        heeds
    }

    /// Told when what came from the peer has reached storage.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// What takes of the same room for answers that wait.
    pub(crate) fn kept_beside(&self) -> Kept {
        self.kept.beside()
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

    /// Asks the peer for nothing more, and leaves to others what it has not answered. What came is stored.
    pub(crate) fn end(&mut self, core: &Core) {
        self.is_stopped = true;
        for pending in self.requests.take_all() {
            self.give_up(core, &pending);
        }
    }

    /// Asks the peer for nothing more of this history.
    pub(crate) fn turn_away(&mut self) {
        self.is_withholding = true;
        self.doubt();
        self.pause();
    }

    /// Whether the peer can be asked at all.
    fn is_of_use(&self) -> bool {
        !self.is_stopped && !self.is_withholding
    }

    /// How many requests are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// When the next request may be overdue, what was left to others is open to us, the peer has nothing
    /// to tell of what it was asked about, or is waited for no longer.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let deadlines = [
            self.requests.next_deadline(),
            self.inquiries.next_deadline(),
            self.waits.get().and_then(Waits::next_deadline),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Whether more would be asked for if the connection had room for it.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Whether nothing is asked for because answers take too much room on the connection.
    pub(crate) fn is_crowded(&self) -> bool {
        self.kept.is_crowded()
    }

    /// Whether as many answers wait to be committed as are at a time.
    pub(crate) fn has_lot(&self) -> bool {
        let arrived = self.arrived.get().map_or(0, Vec::len);
        arrived >= ANSWERS_TOGETHER_MAX && self.committing.is_none()
    }

    /// Whether something that came is on its way to the device.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing.is_some() || self.following.is_adopting()
    }

    /// How fast the peer answers.
    pub(crate) fn pace(&self) -> &Pace {
        self.requests.pace()
    }

    /// The peer told its state anew, or for the first time.
    pub(crate) fn handle_sync(&mut self, core: &Core, peer: &Peer, is_first: bool) {
        if is_first {
            self.start_patience_over();
        }
        self.following.reconsider();
        self.judge(core, peer);
    }

    /// Of these blocks it is not known any more which the peer has.
    pub(crate) fn note_forgotten(&mut self, forgotten: Forgotten) {
        if let Some(blocks) = forgotten {
            self.inquiries.forget(&blocks);
        }
    }

    /// The peer has blocks at or past `from` that it had not before. Whoever waits for some looks again by the next
    /// [`schedule`](Self::schedule), once for all that it says until then.
    pub(crate) fn note_available(&mut self, from: u64) {
        self.news_from = Some(self.news_from.map_or(from, |before| before.min(from)));
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
            self.show_head(core, &proof);
            self.suspicion.conclude();
            return Ok(());
        }
        if matches!(pending.asked, Asked::Fork | Asked::Node(_)) {
            let followed = self.following.handle(core, proof, &self.waker);
            return self.check_followed(core, followed, stats);
        }
        self.take_in(core, pending, proof, stats, now);
        Ok(())
    }

    /// Takes in an answer to be verified, unless there is no room for one that would have to wait.
    fn take_in(
        &mut self,
        core: &Core,
        pending: Pending,
        mut proof: Proof,
        stats: &mut Stats,
        now: Time,
    ) {
        let early = pending.path().filter(|path| self.promises.is_early(*path));
        let must_wait = early.is_some() || self.committing.is_some();
        let kept_bytes = match must_wait {
            true => self.kept.keep(&mut proof),
            false => Some(0), // it is verified with the burst it came in
        };
        let Some(kept_bytes) = kept_bytes else {
            stats.answers_dropped += 1;
            return self.drop_answer(core, &pending);
        };
        let arrived = Arrived {
            pending,
            proof,
            kept_bytes,
        };
        match early {
            Some(path) => {
                stats.proofs_parked += 1;
                let refused = self.kept.refused_to_others();
                self.waits.need().parked.get_or_insert(Parked {
                    look_at: now + PARKED_LOOK_INTERVAL,
                    refused,
                });
                self.promises.park(path, arrived);
            }
            None => self.arrive(arrived),
        }
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
}
