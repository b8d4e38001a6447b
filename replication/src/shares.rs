//! How the requests that a connection may have in flight are shared among its cores.
//!
//! Knows counts and turns. Does not know what is asked. A core may take whatever is free while no other is
//! short of room; then each keeps to an equal share, and those that were short are served in turn.

use std::collections::{BTreeSet, HashSet, VecDeque};

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
    are_short: HashSet<ChannelId>,
    /// How many of those are busy, too.
    both: usize,
}

impl Shares {
    /// A channel has `after` requests in flight where it had `before`, and something to wait for or not.
    pub(crate) fn moved(&mut self, id: ChannelId, before: usize, after: usize, is_busy: bool) {
        self.in_flight = self.in_flight - before + after;
        let is_short = || usize::from(self.are_short.contains(&id));
        if is_busy && self.busy.insert(id) {
            self.both += is_short();
        } else if !is_busy && self.busy.remove(&id) {
            self.both -= is_short();
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
        let hungry = self.busy.len() + self.short.len() - self.both;
        let share = IN_FLIGHT_MAX / hungry;
        free.min(share.max(1).saturating_sub(own))
    }

    /// A channel would ask for more than it may.
    pub(crate) fn fall_short(&mut self, id: ChannelId) {
        if self.are_short.insert(id) {
            self.short.push_back(id);
            self.both += usize::from(self.busy.contains(&id));
        }
    }

    /// How many channels are short of room.
    pub(crate) fn short(&self) -> usize {
        self.short.len()
    }

    /// The next channel that is short, if there is room for its requests.
    pub(crate) fn next_short(&mut self) -> Option<ChannelId> {
        let is_full = self.in_flight >= IN_FLIGHT_MAX;
        let next = (!is_full).then(|| self.short.pop_front()).flatten()?;
        self.are_short.remove(&next);
        self.both -= usize::from(self.busy.contains(&next));
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use ferrocore_mux::Mux;

    use super::*;

    /// Goal: cores that all want more than there is have an equal share of all of it, whether they wait for answers or not.
    #[test]
    fn what_is_short_and_busy_counts_once() {
        let mut mux = Mux::new();
        let mut channel = |id: u8| mux.open("test", Some(&[id]), &[]).unwrap();
        let ids = [(); 3].map({
            let mut number = 0;
            move |()| {
                number += 1;
                channel(number)
            }
        });
        let (mut shares, mut own) = (Shares::default(), [0; 3]);
        for (id, own) in ids.iter().zip(&mut own) {
            shares.fall_short(*id);
            shares.moved(*id, 0, 1, true);
            *own = 1;
        }
        for (id, own) in ids.iter().zip(&mut own) {
            let more = shares.budget(*own);
            shares.moved(*id, *own, *own + more, true);
            *own += more;
        }
        assert_eq!(own, [IN_FLIGHT_MAX / 3; 3]);
        // Served and busy, it is no more and no less.
        assert_eq!(shares.next_short(), Some(ids[0]));
        assert_eq!(shares.budget(0), IN_FLIGHT_MAX - 3 * (IN_FLIGHT_MAX / 3));
        for id in ids {
            shares.moved(id, IN_FLIGHT_MAX / 3, 0, false);
            shares.fall_short(id);
        }
        assert_eq!((shares.both, shares.short()), (0, 3));
        assert_eq!(shares.budget(0), IN_FLIGHT_MAX / 3);
        while shares.next_short().is_some() {}
        assert_eq!(shares.budget(0), IN_FLIGHT_MAX);
    }
}
