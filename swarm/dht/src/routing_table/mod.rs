//! The routing table: which nodes we know, and which of them to keep.
//! Knows Kademlia's buckets and when a node is to be pinged, replaced or forgotten, as `dht-rpc/index.js` 6.27
//! decides it. Does not know how to ping: it hands out [`Check`]s and is told how they ended.
//!
//! A row that is full keeps the nodes it has: a newcomer gets a place only when the node that was silent longest
//! does not answer. So a table cannot be flushed by inventing nodes. Ids derive from addresses
//! ([`Id::of_node`]), and a table never holds more than [`NODES_MAX`] of them. Unlike JavaScript's, a row has few nodes
//! of one host.
//!
//! Time is a count of ticks of 5 seconds.

use std::cmp::Reverse;
use std::net::SocketAddrV4;

use crate::address::is_local;
use crate::id::Id;

mod rows;
use rows::Rows;

/// Nodes a row holds, and closest nodes a reply names.
pub const K: usize = 20;

/// Nodes of one host that a row holds, unless the host is on a local network: ids derive from address and port, so one
/// host can have thousands of them in any row.
pub const HOST_NODES_MAX: usize = 2;

/// The most nodes a table holds.
pub const NODES_MAX: usize = Id::LEN * 8 * K;

/// How many nodes are pinged at a time to make place in full rows.
pub const REPINGS_MAX: usize = 3;

/// While so many checks are running, hints that nodes are down are ignored.
pub const HINTED_CHECKS_MAX: usize = 10;

/// Ticks within which a ping was recent: one minute.
const RECENT_TICKS: u64 = 12;

/// Ticks after which a node is old: half an hour.
const OLD_TICKS: u64 = 360;

/// Nodes pinged in one go; fewer while requests are in flight, fewer still when even the node that was silent
/// longest was pinged recently.
const PINGS: usize = 5;
const PINGS_BUSY: usize = 3;
const PINGS_RECENT: usize = 2;

/// With more requests than this in flight we are busy.
const IN_FLIGHT_IDLE_MAX: usize = 2;

/// The nodes we know. Tell it of every node that shows its id ([`heard`](Self::heard)) and of every request that
/// timed out ([`remove`](Self::remove)); ask it for [`due`](Self::due) checks every eighth tick; ping the node of each
/// [`Check`] it hands out and give the check back to [`answered`](Self::answered) or [`timed_out`](Self::timed_out).
#[derive(Debug)]
pub struct RoutingTable {
    rows: Rows,
    /// Numbers everything heard, so that two events of one tick can be told apart.
    serial: u64,
    bootstrapped: bool,
    repings: usize,
    checks: usize,
}

/// A node we know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    id: Id,
    address: SocketAddrV4,
    /// Tick of its insertion.
    added: u64,
    /// Tick of the last exchange, or of the last attempt.
    pinged: u64,
    /// Tick of the last time its word about our address was taken.
    sampled: Option<u64>,
    /// Whether somebody said that it was down.
    hinted: bool,
    /// Serial of its insertion.
    born: u64,
    /// Serial of the last message from it.
    heard: u64,
}

/// A node to be pinged. Give it back when the ping ended: as many as are outstanding are counted.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the table waits for the outcome"]
pub struct Check {
    address: SocketAddrV4,
    born: u64,
    heard: u64,
    /// Who gets the place if the node is gone.
    newcomer: Option<SocketAddrV4>,
}

/// What became of a node we heard of.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a check is to be made"]
pub enum Heard {
    /// It is in the table now.
    Added,
    /// It was there already.
    Known,
    /// Its row is full; it takes the place of the checked node if that one is gone.
    Full(Check),
    /// Its row is full and stays so, or it is ourselves.
    Refused,
}

impl RoutingTable {
    /// An empty table around our id.
    pub fn new(own: Id) -> Self {
        Self {
            rows: Rows::new(own),
            serial: 0,
            bootstrapped: false,
            repings: 0,
            checks: 0,
        }
    }

    /// From now on full rows are checked when newcomers knock.
    pub fn set_bootstrapped(&mut self) {
        self.bootstrapped = true;
    }

    /// The node at `address` sent us a message with its id in it.
    pub fn heard(&mut self, address: SocketAddrV4, tick: u64) -> Heard {
        let id = Id::of_node(&address);
        let serial = self.next_serial();
        let Some(node) = self.rows.get_mut(&id) else {
            return self.insert(id, address, tick, serial);
        };
        node.heard = serial;
        node.pinged = tick;
        Heard::Known
    }

    /// Forgets a node, as when a request to it timed out. Returns whether it was known.
    pub fn remove(&mut self, id: &Id) -> bool {
        self.rows.remove(id).is_some()
    }

    /// The nodes to ping now, longest silent first. With `in_flight` requests under way they are fewer. None are due
    /// in an empty table: then the bootstrap nodes are to be asked.
    pub fn due(&mut self, tick: u64, in_flight: usize) -> Vec<Check> {
        let mut nodes: Vec<_> = self.rows.iter().collect();
        nodes.sort_unstable_by_key(|node| node.heard);
        let mut silent = nodes.into_iter().take(PINGS).peekable();
        let count = match silent.peek() {
            Some(oldest) if is_recent(oldest.pinged, tick) => PINGS_RECENT,
            _ if in_flight > IN_FLIGHT_IDLE_MAX => PINGS_BUSY,
            _ => PINGS,
        };
        let silent = silent.take(count).take_while(|node| node.pinged != tick);
        let due: Vec<Id> = silent.map(|node| node.id).collect();
        let checks = due.iter().filter_map(|id| self.check(id, tick, None));
        checks.collect()
    }

    /// Somebody says that the node at `address` is down: returns a check if it is worth one.
    pub fn hinted_down(&mut self, address: &SocketAddrV4, tick: u64) -> Option<Check> {
        let id = Id::of_node(address);
        let running = self.checks;
        let node = self.rows.get_mut(&id)?;
        if running >= HINTED_CHECKS_MAX || (node.pinged >= tick && node.hinted) {
            return None;
        }
        node.hinted = true;
        self.check(&id, tick, None)
    }

    /// The ping of `check` was answered; [`heard`](Self::heard) was told before, if the answer had an id. A node that
    /// hides its id now is no longer one to name to others. Returns what became of the newcomer, if there was one
    /// and the place is free.
    pub fn answered(&mut self, check: Check, tick: u64) -> Option<Heard> {
        let node = self.rows.get(&Id::of_node(&check.address));
        let shown = node.is_some_and(|node| node.heard > check.heard);
        self.end(check, shown, tick)
    }

    /// The ping of `check` was not answered. Returns what became of the newcomer, if there was one.
    pub fn timed_out(&mut self, check: Check, tick: u64) -> Option<Heard> {
        self.end(check, false, tick)
    }

    /// The ping of `check` was never finished, as when the node went to sleep: nothing is known.
    pub fn abandoned(&mut self, check: &Check) {
        let running = self.running(check.newcomer.is_some());
        *running = running.saturating_sub(1);
    }

    /// Whether the node of that id may say now what our address is: once when it is new, and again when that was
    /// long ago. Notes that it did.
    pub fn sample(&mut self, id: &Id, tick: u64) -> bool {
        let Some(node) = self.rows.get_mut(id) else {
            return false;
        };
        let is_due = match node.sampled {
            Some(last) => tick.saturating_sub(last) >= OLD_TICKS,
            None => true,
        };
        if is_due {
            node.sampled = Some(tick);
        }
        is_due
    }

    /// Moves to another id of ours, once we know our address. Nodes that find no place around it are forgotten;
    /// those nearest to our old id choose first.
    pub fn set_own(&mut self, own: Id) {
        let old = std::mem::replace(&mut self.rows, Rows::new(own));
        for node in old.from(&old.own()) {
            if node.id != own {
                let _ = self.rows.insert(node.clone()); // or there is no place for it
            }
        }
    }

    /// Our id.
    pub fn own(&self) -> Id {
        self.rows.own()
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether we know nobody.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// The node of that id.
    pub fn get(&self, id: &Id) -> Option<&Node> {
        self.rows.get(id)
    }

    /// Up to `count` nodes, those near `target` before others. Rows are taken whole, so the order is not that of
    /// distance: whoever asked sorts.
    pub fn closest(&self, target: &Id, count: usize) -> impl Iterator<Item = &Node> + use<'_> {
        self.rows.from(target).take(count)
    }

    /// All nodes, those heard last before others.
    pub fn latest(&self) -> impl Iterator<Item = &Node> + use<'_> {
        let mut nodes: Vec<_> = self.rows.iter().collect();
        nodes.sort_unstable_by_key(|node| Reverse(node.heard));
        nodes.into_iter()
    }

    /// A node chosen by a random number, each as likely as the others.
    pub fn pick(&self, random: u64) -> Option<&Node> {
        let count = u64::try_from(self.len()).ok()?;
        let at = usize::try_from(random.checked_rem(count)?).ok()?;
        self.rows.from(&self.own()).nth(at)
    }

    fn insert(&mut self, id: Id, address: SocketAddrV4, tick: u64, serial: u64) -> Heard {
        if id == self.own() || self.has_enough_of(&id, &address) {
            return Heard::Refused;
        }
        let node = Node {
            id,
            address,
            added: tick,
            pinged: tick,
            sampled: None,
            hinted: false,
            born: serial,
            heard: serial,
        };
        if self.rows.insert(node).is_ok() {
            return Heard::Added;
        }
        self.reping(&id, address, tick)
    }

    /// Whether the row of `id` has all the nodes of that host that it may have.
    fn has_enough_of(&self, id: &Id, address: &SocketAddrV4) -> bool {
        let row = self.rows.row(id).iter();
        let same = row.filter(|node| node.address.ip() == address.ip());
        !is_local(*address.ip()) && same.count() >= HOST_NODES_MAX
    }

    /// Checks the node that was silent longest in the row of `id`, unless all were pinged recently and are old
    /// acquaintances.
    fn reping(&mut self, id: &Id, newcomer: SocketAddrV4, tick: u64) -> Heard {
        if !self.bootstrapped || self.repings >= REPINGS_MAX {
            return Heard::Refused;
        }
        let row = self.rows.row(id).iter().filter(|node| node.pinged != tick);
        let Some(oldest) = row.min_by_key(|node| (node.pinged, node.added)) else {
            return Heard::Refused;
        };
        let proven = tick.saturating_sub(oldest.added) > OLD_TICKS;
        if proven && is_recent(oldest.pinged, tick) {
            return Heard::Refused;
        }
        let oldest = oldest.id;
        self.check(&oldest, tick, Some(newcomer))
            .map_or(Heard::Refused, Heard::Full)
    }

    fn check(&mut self, id: &Id, tick: u64, newcomer: Option<SocketAddrV4>) -> Option<Check> {
        let node = self.rows.get_mut(id)?;
        node.pinged = tick;
        *self.running(newcomer.is_some()) += 1;
        let node = self.rows.get(id)?;
        Some(Check {
            address: node.address,
            born: node.born,
            heard: node.heard,
            newcomer,
        })
    }

    /// A node that did not show itself goes, unless it went meanwhile and came back.
    fn end(&mut self, check: Check, shown: bool, tick: u64) -> Option<Heard> {
        let running = self.running(check.newcomer.is_some());
        *running = running.saturating_sub(1);
        if shown {
            return None;
        }
        let id = Id::of_node(&check.address);
        if self
            .rows
            .get(&id)
            .is_some_and(|node| node.born == check.born)
        {
            self.remove(&id);
        }
        check.newcomer.map(|newcomer| self.heard(newcomer, tick))
    }

    /// How many checks of a kind are outstanding.
    fn running(&mut self, for_newcomer: bool) -> &mut usize {
        if for_newcomer {
            &mut self.repings
        } else {
            &mut self.checks
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

impl Node {
    /// Its id.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Its address.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Check {
    /// Whom to ping.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

fn is_recent(pinged: u64, tick: u64) -> bool {
    tick.saturating_sub(pinged) < RECENT_TICKS
}

#[cfg(test)]
mod tests;
