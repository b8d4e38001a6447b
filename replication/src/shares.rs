//! How the requests that a connection may have in flight are shared among its cores.
//!
//! Knows counts and turns. Does not know what is asked. A core may take whatever is free while no other is
//! short of room; then each keeps to an equal share, and those that were short are served in turn.

use std::collections::{BTreeSet, VecDeque};

use ferrocore_mux::ChannelId;

use crate::limits::IN_FLIGHT_MAX;

/// The shares of one connection.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    in_flight: usize,
    /// Channels that wait for answers, or for their time.
    busy: BTreeSet<ChannelId>,
    /// Channels that would ask for more, in the order they are served. One that is gone costs a look.
    short: VecDeque<ChannelId>,
}

impl Shares {
    /// A channel has `after` requests in flight where it had `before`, and something to wait for or not.
    pub(crate) fn moved(&mut self, id: ChannelId, before: usize, after: usize, is_busy: bool) {
        self.in_flight = self.in_flight - before + after;
        if is_busy {
            self.busy.insert(id);
        } else {
            self.busy.remove(&id);
        }
    }

    /// Channels with something to wait for.
    pub(crate) fn busy(&self) -> impl Iterator<Item = ChannelId> {
        self.busy.iter().copied()
    }

    /// Requests in flight on all channels.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many more requests a channel may send that has `own` in flight.
    pub(crate) fn budget(&self, own: usize) -> usize {
        let free = IN_FLIGHT_MAX.saturating_sub(self.in_flight);
        if self.short.is_empty() {
            return free;
        }
        let share = IN_FLIGHT_MAX / (self.busy.len() + self.short.len());
        free.min(share.max(1).saturating_sub(own))
    }

    /// A channel would ask for more than it may.
    pub(crate) fn fall_short(&mut self, id: ChannelId) {
        if !self.short.contains(&id) {
            self.short.push_back(id);
        }
    }

    /// How many channels are short of room.
    pub(crate) fn short(&self) -> usize {
        self.short.len()
    }

    /// The next channel that is short, if there is room for its requests.
    pub(crate) fn next_short(&mut self) -> Option<ChannelId> {
        let is_full = self.in_flight >= IN_FLIGHT_MAX;
        (!is_full).then(|| self.short.pop_front()).flatten()
    }
}
