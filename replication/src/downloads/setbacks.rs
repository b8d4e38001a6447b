//! Answers that do not come: late, denied, overtaken, or useless.
//!
//! Knows who may try instead. Does not know who will.

use ferrocore_log::Core;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::AcceptError;
use ferrocore_primitives::time::Time;
use ferrocore_secret_stream::budget::FREE_FRAME_LEN;

use super::Downloads;
use super::waits::Parked;
use crate::connection::Arriving;
use crate::limits::PARKED_LOOK_INTERVAL;
use crate::messages::Cancel;
use crate::messages::Message;
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::Peer;
use crate::requests::{Asked, Pending};
use crate::stats::Stats;
use crate::wire::Wire;

impl Downloads {
    /// Gives up requests that are overdue and tells the peer. `arriving` is what may be their answers.
    pub(crate) fn handle_timeout(
        &mut self,
        core: &Core,
        peer: &Peer,
        wire: &mut Wire<'_>,
        arriving: Arriving,
        now: Time,
    ) {
        let mean_block = core.byte_length() / core.length().max(1);
        let is_long = usize::try_from(mean_block).is_ok_and(|len| len > FREE_FRAME_LEN);
        // What is long is not an answer of this core, else.
        let long = if is_long { arriving.long } else { Time::ZERO };
        let arriving = Arriving { long, ..arriving };
        for (request, pending) in self.requests.overdue(arriving, now) {
            wire.counted.requests_timed_out += 1;
            wire.send(&Message::Cancel(Cancel { request }));
            if let (Some(id), Some(path)) = (self.supplier(), pending.path()) {
                core.supply().fail(id, path.block);
            }
            self.give_up(core, &pending);
        }
        self.make_way(core, &mut wire.counted, now);
        self.take_back(core, wire, now);
        if self.inquiries.is_due_again(now) {
            self.ask_again(peer, wire);
        }
        if let Some(id) = self.supplier() {
            let late = self.requests.late(now).into_iter();
            late.for_each(|path| core.supply().late(id, path.block));
            let drawn_out = self.requests.drawn_out(now).into_iter();
            drawn_out.for_each(|path| core.supply().discount(id, path.block));
        }
    }

    /// Gives up answers that have waited for another for a while if somebody else has found no room meanwhile. Whoever is asked
    /// for them again is asked so that they need not wait.
    fn make_way(&mut self, core: &Core, stats: &mut Stats, now: Time) {
        let parked = self.waits.get_mut().and_then(|waits| waits.parked.take());
        let Some(parked) = parked.filter(|_| self.promises.has_parked()) else {
            return;
        };
        let is_wanted = parked.refused != self.kept.refused_to_others();
        if parked.look_at > now || !is_wanted {
            let look_at = match parked.look_at > now {
                true => parked.look_at,
                false => now + PARKED_LOOK_INTERVAL,
            };
            self.waits.need().parked = Some(Parked { look_at, ..parked });
            return;
        }
        for answer in self.promises.take_parked() {
            stats.answers_dropped += 1;
            self.unjudged += 1;
            self.kept.give_back(answer.kept_bytes);
            self.give_up(core, &answer.pending);
        }
    }

    /// What the peer said and could not be remembered may be asked of it again, as far as there is room for it. If there is
    /// none and no block is in flight, what is remembered of it is of no use just now.
    fn ask_again(&mut self, peer: &Peer, wire: &Wire<'_>) {
        let pages_free = || peer.blocks.read().pages_free(wire.memory());
        if pages_free() == 0 && self.requests.len() == 0 {
            self.note_forgotten(peer.blocks.forget_scattered());
        }
        self.inquiries.allow_again(pages_free());
        self.note_available(0); // whoever looked for blocks there, looks again
    }

    /// Takes back requests for blocks that have come from other peers. Whether there were any.
    pub(crate) fn cancel_overtaken(&mut self, core: &Core, wire: &mut Wire<'_>, now: Time) -> bool {
        let overtaken = self.requests.overtaken(|block| core.has(block), now);
        let is_any = !overtaken.is_empty();
        for (request, pending) in overtaken {
            wire.counted.requests_overtaken += 1;
            wire.send(&Message::Cancel(Cancel { request }));
            self.give_up(core, &pending);
        }
        is_any
    }

    /// Takes back requests for blocks that nobody waits for any more, as JavaScript does when the last reader of a block
    /// leaves (`hypercore/lib/replicator.js` 11.37.1, `BlockRequest._unref`), and for those of a download, too. It does not
    /// count against the peer: neither that it did not answer, nor an answer that was on its way.
    pub(crate) fn cancel_unwanted(&mut self, core: &Core, wire: &mut Wire<'_>) {
        let Some(id) = self.supplier() else {
            return;
        };
        let blocks = core.supply().unwanted(id);
        if blocks.is_empty() {
            return;
        }
        let promises = &self.promises;
        let is_awaited = |path| promises.is_awaited(path);
        for (request, pending) in self.requests.unwanted(&blocks, is_awaited) {
            wire.counted.requests_cancelled += 1;
            wire.send(&Message::Cancel(Cancel { request }));
            self.give_up(core, &pending);
        }
    }

    /// Looks at how a step to the peer's fork went.
    pub(super) fn check_followed(
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

    /// The peer will not give what it announced: it is taken not to have it. Only then its claim is free
    /// again, so that the next to make it is another.
    pub(super) fn deny(
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
            // Nor what it has taken back.
            Asked::Block(path) => !peer.has(path.block) || peer.blocks.deny(path.block),
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

    /// There was no room for an answer. Whoever has room is asked again.
    pub(super) fn drop_answer(&mut self, core: &Core, pending: &Pending) {
        match pending.asked {
            Asked::Seek(seek, _) => core.supply().seek_answered(seek), // not refused: who asked looks again
            _ => self.give_up(core, pending),
        }
    }

    /// A request without a usable answer: others may have its block, and answers that rest on its own
    /// are tried without it.
    pub(super) fn give_up(&mut self, core: &Core, pending: &Pending) {
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
                if let Err(error) = self.following.give_up(core, &self.waker) {
                    tracing::warn!(core = %core.key(), %error, "cannot follow to another fork");
                }
                self.doubt(); // unless it was adopted
                self.pause(); // until one of us moves
            }
        }
    }
}
