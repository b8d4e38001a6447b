//! What a node does every five seconds.
//! Knows the constants of `dht-rpc/index.js` 6.27. Does not know how anything of it is done.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::searches::Owner;
use super::{Event, Rpc};
use crate::health::Network;
use crate::random::Random;
use crate::routing_table::K;

/// One tick.
pub(super) const TICK: Duration = Duration::from_secs(5);

/// A tick that comes so late means that the machine slept.
const SLEPT: Duration = Duration::from_secs(15);

/// Ticks without trouble until a node whose NAT is friendly stays: 20 minutes.
const STABLE_TICKS: u32 = 240;

/// The same after trouble: an hour.
const MORE_STABLE_TICKS: u32 = 3 * STABLE_TICKS;

/// Idle ticks until the table is refreshed: 5 minutes.
const REFRESH_TICKS: u32 = 60;

/// Ticks between the attempts of a node that was told to stay, and may be behind a firewall.
const FORCED_TICKS: u64 = 12;

/// Sleep makes everything look as old as so many ticks do: an hour.
const SLEEP_TICKS: u64 = 720;

/// Counts ticks.
#[derive(Debug)]
pub(super) struct Clock {
    tick: u64,
    ticked_at: Time,
    stable: u32,
    refresh: u32,
}

impl Clock {
    pub(super) fn new(now: Time, is_adaptive: bool, random: &mut Random) -> Self {
        // Nodes that start together do not tick together.
        let tick = 100 - random.below(50) as u64;
        let refresh = REFRESH_TICKS - u32::try_from(random.below(30)).unwrap_or_default();
        Self {
            tick,
            ticked_at: now,
            stable: if is_adaptive { STABLE_TICKS } else { 0 },
            refresh,
        }
    }

    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    pub(super) fn next_tick(&self) -> Time {
        self.ticked_at + TICK
    }

    pub(super) fn postpone_refresh(&mut self) {
        self.refresh = REFRESH_TICKS;
    }

    /// The address was looked at: not again for a while.
    pub(super) fn postpone_persistence(&mut self) {
        self.stable = MORE_STABLE_TICKS;
    }

    /// The table is pinged in two ticks and refreshed in one.
    fn slept(&mut self) {
        self.tick = (self.tick + SLEEP_TICKS) & !7 | 6;
        self.stable = MORE_STABLE_TICKS;
        self.refresh = 1;
    }
}

impl Rpc {
    pub(super) fn tick_if_due(&mut self, now: Time) {
        let since = now.saturating_since(self.clock.ticked_at);
        if since < TICK {
            return;
        }
        self.clock.ticked_at = now;
        if since > SLEPT {
            self.woke_up(now);
        } else {
            self.clock.tick += 1;
        }
        if self.bootstrap.is_done() {
            self.tick(now);
        }
    }

    /// The machine slept: what is known is old. The node notices by itself if its clock goes on while the machine
    /// sleeps.
    pub fn woke_up(&mut self, now: Time) {
        self.clock.slept();
        self.clock.ticked_at = now;
        self.checked_host(None);
        self.health.reset();
        if self.config.ephemeral.is_none() && !self.is_ephemeral {
            self.is_ephemeral = true;
            self.push(Event::Ephemeral);
        }
        self.push(Event::WokeUp);
    }

    /// Looks for the neighbours of a node we know, so that what we know spreads over all distances. The node does so
    /// itself now and then.
    pub fn refresh(&mut self, now: Time) {
        if self.is_searching(Owner::Refresh) {
            return;
        }
        let random = self.random.u64();
        let node = self.table.pick(random);
        let target = node.map_or_else(|| self.table.own(), |node| node.id());
        self.search_own(now, target, Owner::Refresh);
    }

    fn tick(&mut self, now: Time) {
        self.stay_if_stable(now);
        self.follow_address(now);
        let tick = self.clock.tick;
        if tick & 7 == 0 {
            self.ping_some(now);
        }
        self.clock.refresh = self.clock.refresh.saturating_sub(1);
        if (tick & 63 == 0 && self.table.len() < K) || self.clock.refresh == 0 {
            self.refresh(now);
        }
        self.hints_sent = 0;
        self.look_at_health();
    }

    fn stay_if_stable(&mut self, now: Time) {
        if !self.is_ephemeral || self.config.ephemeral == Some(true) {
            return;
        }
        if self.config.ephemeral == Some(false) {
            if !self.is_firewalled || self.clock.tick.is_multiple_of(FORCED_TICKS) {
                self.update_network_state(now, false);
            }
            return;
        }
        self.clock.stable = self.clock.stable.saturating_sub(1);
        if self.clock.stable == 0 {
            if self.is_host_checked() {
                self.clock.postpone_persistence();
            } else {
                self.update_network_state(now, false);
            }
        }
    }

    fn ping_some(&mut self, now: Time) {
        if self.table.is_empty() {
            self.push(Event::Alone);
            return self.refresh(now);
        }
        let due = self.table.due(self.clock.tick, self.flights.len());
        due.into_iter().for_each(|check| self.check(now, check));
    }

    fn look_at_health(&mut self) {
        let before: Network = self.health.network();
        let network = self
            .health
            .update(self.stats.responses, self.stats.timeouts);
        if network != before {
            self.push(Event::Network(network));
        }
    }
}
