//! Cores that we offered and the peer has said nothing of.
//!
//! Each keeps readers waiting, but not for ever, and takes memory. Knows how many there may be, and when to look at them
//! next. Does not know what for.

use std::collections::BTreeMap;

use ferrocore_log::Core;
use ferrocore_mux::ChannelId;
use ferrocore_primitives::time::Time;

use super::Connection;
use crate::limits::{
    HEAD_PATIENCE_ALONE, OFFER_MEMORY, OFFERS_OWN, UNANSWERED_LOOK_INTERVAL, UNANSWERED_OFFERS_MAX,
    UNPROVEN_OFFERS_MAX,
};
use crate::memory::{Memory, PeersMemory, Share};

/// Those of one connection.
pub(super) struct Offers {
    /// What those take that were not answered.
    share: Share,
    /// From when on more of them may be made.
    proven: Option<Memory>,
    /// They were made since somebody knew what time it is.
    fresh: Vec<ChannelId>,
    /// Until when each is waited for.
    until: BTreeMap<ChannelId, Time>,
    due: Option<Time>,
}

impl Offers {
    /// None yet, on a connection that shares `peers` with others.
    pub(super) fn new(peers: &PeersMemory) -> Self {
        let memory = |is_proven, max| {
            let shared = peers.for_offers(is_proven);
            Memory::new(OFFERS_OWN * OFFER_MEMORY, max * OFFER_MEMORY, &shared)
        };
        Self {
            share: memory(false, UNPROVEN_OFFERS_MAX).share(),
            proven: Some(memory(true, UNANSWERED_OFFERS_MAX)),
            fresh: Vec::new(),
            until: BTreeMap::new(),
            due: None,
        }
    }

    /// Whether there is room for one more. `is_proven` tells whether the peer has shown that it knows a core's key.
    pub(super) fn have_room(&mut self, is_proven: bool) -> bool {
        if is_proven && let Some(memory) = &self.proven {
            let mut share = memory.share();
            // If there is no room, they stay where they are until some were answered.
            if share.take(self.share.bytes()) {
                self.share = share;
                self.proven = None;
            }
        }
        self.share.memory().free() >= OFFER_MEMORY
    }

    /// Takes room for one more; false if there is none.
    pub(super) fn make_room(&mut self, is_proven: bool) -> bool {
        self.have_room(is_proven) && self.share.take(OFFER_MEMORY)
    }

    /// One more is made, for which there is room.
    pub(super) fn add(&mut self, id: ChannelId) {
        self.fresh.push(id);
    }

    /// The room of one is free again.
    pub(super) fn give_room_back(&mut self) {
        self.share.give_back(OFFER_MEMORY);
    }

    /// The peer answered, or the core is on the connection no more.
    pub(super) fn remove(&mut self, id: ChannelId) {
        self.until.remove(&id);
        if self.until.is_empty() {
            self.due = None;
        }
    }

    /// When to [look](Connection::look_at_offers) at them.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.due
    }
}

impl Connection {
    /// Notes when what was offered since was offered.
    pub(super) fn note_offers(&mut self, now: Time) {
        self.unplaced.note_time(now);
        for id in std::mem::take(&mut self.offers.fresh) {
            let channel = self.channels.get(&id);
            let Some(channel) = channel.filter(|channel| channel.is_finding()) else {
                continue; // answered, or gone
            };
            let until = now + HEAD_PATIENCE_ALONE;
            let due = next_look(channel.core(), until, now);
            let earlier = self.offers.due.filter(|earlier| *earlier < due);
            self.offers.due = Some(earlier.unwrap_or(due));
            self.offers.until.insert(id, until);
        }
    }

    /// Lets those go on who have waited long enough for an answer to an offer.
    pub(super) fn look_at_offers(&mut self, now: Time) {
        if self.offers.due.is_none_or(|due| due > now) {
            return;
        }
        // Those that are due soon are looked at now: thousands were offered one shortly after the other.
        let soon = now + UNANSWERED_LOOK_INTERVAL;
        let (channels, mut next) = (&mut self.channels, None::<Time>);
        self.offers.until.retain(|id, until| {
            let Some(channel) = channels.get_mut(id) else {
                return false;
            };
            let due = next_look(channel.core(), *until, now);
            let is_over = *until <= soon;
            match is_over {
                true => channel.stop_finding(),
                false => next = Some(next.map_or(due, |next| next.min(due))),
            }
            !is_over
        });
        self.offers.due = next.map(|next| next.max(soon));
    }
}

/// Tells those who wait for a core what time it is, and returns when to do so again: no later than `until`.
fn next_look(core: &Core, until: Time, now: Time) -> Time {
    let next = core.supply().look_at_updates(now);
    next.map_or(until, |next| next.min(until))
}

const _: () = assert!(UNANSWERED_LOOK_INTERVAL.as_secs() < HEAD_PATIENCE_ALONE.as_secs());
