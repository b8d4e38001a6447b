//! A listening server's presence in the DHT: announced to the three nodes closest to its key, kept alive, taken back.
//! Knows the cycle of `hyperdht/lib/announcer.js` 6.34 and which nodes count as its relays. Does not know how nodes are
//! asked, nor what becomes of the handshakes that they relay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;

use super::announce::{Action as Signed, Announce, Peer, Place};
use super::noise::RelayInfo;
use crate::id::Id;
use crate::message::Token;

/// Nodes that a server announces itself to, and addresses that it names to clients.
pub const RELAYS: usize = 3;

/// Time between two looks at the relays, and the least between two announcements.
pub const PING_INTERVAL: Duration = Duration::from_secs(3);

/// Looks between two announcements, about 5 minutes.
pub const PINGS_PER_CYCLE: u32 = 100;

/// What the announcer's owner is to do; each is reported back by the method named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A query of [`FIND_PEER`](super::FIND_PEER) for the target, beginning at these nodes:
    /// [`handle_found`](Announcer::handle_found).
    Find(Vec<SocketAddrV4>),
    /// A request of [`ANNOUNCE`](super::ANNOUNCE): [`handle_announced`](Announcer::handle_announced).
    Announce {
        /// To whom.
        to: SocketAddrV4,
        /// With the token it gave.
        token: Token,
        /// The value.
        value: Vec<u8>,
    },
    /// A ping: [`handle_pong`](Announcer::handle_pong).
    Ping(SocketAddrV4),
    /// A request of `FIND_PEER` to this node, and one of [`UNANNOUNCE`](super::UNANNOUNCE) with the token in the answer
    /// and the value of [`removal`](Announcer::removal): [`handle_removed`](Announcer::handle_removed).
    Remove(SocketAddrV4),
}

/// A node that has answered the query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The node.
    pub address: SocketAddrV4,
    /// Its id. Nodes without one cannot be announced to.
    pub id: Option<Id>,
    /// The token it gave.
    pub token: Option<Token>,
    /// Where it sees us.
    pub seen: SocketAddrV4,
}

/// Keeps one server findable.
///
/// Inputs: `handle_*`, [`refresh`](Self::refresh), [`suspend`](Self::suspend), [`resume`](Self::resume). Output:
/// [`poll_action`](Self::poll_action) until it returns `None`, then [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Announcer {
    key_pair: KeyPair,
    target: Id,
    state: State,
    cycles: u64,
    should_refresh: bool,
    /// What clients are told.
    relays: Vec<RelayInfo>,
    closest: Vec<SocketAddrV4>,
    /// Relays of this cycle, the last and the one before, with where they see us: clients still come through those.
    generations: VecDeque<BTreeMap<SocketAddrV4, SocketAddrV4>>,
    /// Asked, and not heard from.
    pending: BTreeMap<SocketAddrV4, SocketAddrV4>,
    removing: BTreeSet<SocketAddrV4>,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Finding,
    Announcing,
    Pinging {
        left: u32,
        alive: usize,
        since: Time,
    },
    Resting {
        left: u32,
        until: Time,
    },
    Suspended,
}

impl Announcer {
    /// Begins to look for the nodes to announce to.
    pub fn new(key_pair: KeyPair) -> Self {
        let target = Id::of_public_key(&key_pair.public_key());
        let mut announcer = Self {
            key_pair,
            target,
            state: State::Suspended,
            cycles: 0,
            should_refresh: false,
            relays: Vec::new(),
            closest: Vec::new(),
            generations: (0..3).map(|_| BTreeMap::new()).collect(),
            pending: BTreeMap::new(),
            removing: BTreeSet::new(),
            actions: VecDeque::new(),
        };
        announcer.begin();
        announcer
    }

    /// The query ended; `closest` are the nodes closest to the target, closest first. Empty if it failed.
    pub fn handle_found(&mut self, now: Time, closest: &[Found]) {
        if self.state != State::Finding {
            return;
        }
        let can_take = |found: &&Found| found.id.is_some() && found.token.is_some();
        let takers: Vec<_> = closest.iter().filter(can_take).take(RELAYS).collect();
        if takers.is_empty() {
            // The network is away, or young: what we had may still hold.
            return self.rest(now, 0);
        }
        self.closest = closest.iter().map(|found| found.address).collect();
        self.state = State::Announcing;
        self.generations.rotate_right(1);
        if let Some(current) = self.generations.front_mut() {
            current.clear();
        }
        takers.into_iter().for_each(|found| self.announce_to(found));
    }

    /// A node has taken the announcement, or not.
    pub fn handle_announced(&mut self, now: Time, to: SocketAddrV4, is_taken: bool) {
        if self.state != State::Announcing {
            return;
        }
        if let Some(seen) = self.pending.remove(&to)
            && is_taken
            && let Some(current) = self.generations.front_mut()
        {
            current.insert(to, seen);
        }
        self.finish_announcing(now);
    }

    /// A relay has answered a ping, or not.
    pub fn handle_pong(&mut self, now: Time, from: SocketAddrV4, is_alive: bool) {
        if self.pending.remove(&from).is_none() {
            return;
        }
        if let State::Pinging { alive, .. } = &mut self.state {
            *alive += usize::from(is_alive);
        }
        self.finish_pinging(now);
    }

    /// A node has forgotten us, or could not be told to.
    pub fn handle_removed(&mut self, from: SocketAddrV4) {
        self.removing.remove(&from);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let State::Resting { left, until } = self.state else {
            return;
        };
        if until > now {
            return;
        }
        if left == 0 || std::mem::take(&mut self.should_refresh) {
            return self.begin();
        }
        self.state = State::Pinging {
            left: left - 1,
            alive: 0,
            since: now,
        };
        self.pending = self.generations.front().cloned().unwrap_or_default();
        let pings = self.pending.keys().map(|relay| Action::Ping(*relay));
        self.actions.extend(pings);
        self.finish_pinging(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Resting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Announces anew as soon as may be: the network has changed.
    pub fn refresh(&mut self) {
        self.should_refresh = true;
    }

    /// Takes all announcements back, and rests until [`resume`](Self::resume). It is done when
    /// [`is_quiet`](Self::is_quiet). Whatever else is under way is to be given up, removals, too: they are asked for anew.
    pub fn suspend(&mut self) {
        if self.state == State::Suspended {
            return;
        }
        let mut standing = std::mem::take(&mut self.removing);
        standing.extend(self.announced_at());
        self.state = State::Suspended;
        self.pending.clear();
        self.actions.clear();
        self.remove(standing);
    }

    /// Announces again.
    pub fn resume(&mut self) {
        if self.state == State::Suspended {
            self.begin();
        }
    }

    /// Whether it rests, and nothing is left to be taken back.
    pub fn is_quiet(&self) -> bool {
        self.state == State::Suspended && self.removing.is_empty()
    }

    /// Announcements made so far.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }

    /// What clients are told in handshakes: our relays, and where each sees us.
    pub fn relays(&self) -> &[RelayInfo] {
        &self.relays
    }

    /// Where clients may look for us: `public`, our own address if we can be reached there, then the relays.
    pub fn addresses(&self, public: Option<SocketAddrV4>) -> Vec<SocketAddrV4> {
        let relays = self.relays.iter().map(|relay| relay.relay_address);
        public.into_iter().chain(relays).take(RELAYS).collect()
    }

    /// Whether `node` relays for us, or did until lately.
    pub fn is_relay(&self, node: &SocketAddrV4) -> bool {
        self.generations
            .iter()
            .any(|relays| relays.contains_key(node))
    }

    /// Where we are announced.
    pub fn target(&self) -> Id {
        self.target
    }

    /// The record that is announced.
    pub fn record(&self) -> Vec<u8> {
        let peer = Peer {
            public_key: self.key_pair.public_key(),
            relay_addresses: Vec::new(),
        };
        peer.to_vec()
    }

    /// The value that makes the node of `place` forget us.
    pub fn removal(&self, place: &Place) -> Vec<u8> {
        self.signed(Signed::Unannounce, place)
    }

    fn signed(&self, action: Signed, place: &Place) -> Vec<u8> {
        Announce::signed(action, place, Vec::new(), None, &self.key_pair).to_vec()
    }

    /// Where we may be announced now. While a cycle announces, also where the last one did, and whoever is asked may have taken it.
    fn announced_at(&self) -> BTreeSet<SocketAddrV4> {
        let is_announcing = self.state == State::Announcing;
        let generations = self.generations.iter().take(1 + usize::from(is_announcing));
        let asked = self.pending.keys().filter(|_| is_announcing);
        let taken = generations.flat_map(BTreeMap::keys);
        taken.chain(asked).copied().collect()
    }

    fn begin(&mut self) {
        self.should_refresh = false;
        self.state = State::Finding;
        self.actions.push_back(Action::Find(self.closest.clone()));
    }

    fn announce_to(&mut self, found: &Found) {
        let (Some(node_id), Some(token)) = (found.id, found.token) else {
            return;
        };
        let place = Place {
            target: self.target,
            node_id,
            token,
        };
        self.pending.insert(found.address, found.seen);
        self.actions.push_back(Action::Announce {
            to: found.address,
            token,
            value: self.signed(Signed::Announce, &place),
        });
    }

    fn finish_announcing(&mut self, now: Time) {
        if self.state != State::Announcing || !self.pending.is_empty() {
            return;
        }
        self.cycles += 1;
        let current = self.generations.front().cloned().unwrap_or_default();
        // In the order of their distance, as they were found.
        let order = self
            .closest
            .iter()
            .filter_map(|node| current.get_key_value(node));
        self.relays = order
            .map(|(relay, seen)| RelayInfo {
                relay_address: *relay,
                peer_address: *seen,
            })
            .collect();
        let former = self.generations.get(1).cloned().unwrap_or_default();
        let dropped: Vec<_> = former
            .into_keys()
            .filter(|relay| !current.contains_key(relay))
            .collect();
        self.remove(dropped);
        // If nobody took it, it is tried again at once.
        let pings = if current.is_empty() {
            0
        } else {
            PINGS_PER_CYCLE
        };
        self.rest(now, pings);
    }

    fn rest(&mut self, now: Time, left: u32) {
        let until = now + PING_INTERVAL;
        self.state = State::Resting { left, until };
    }

    fn finish_pinging(&mut self, now: Time) {
        let State::Pinging { left, alive, since } = self.state else {
            return;
        };
        if !self.pending.is_empty() {
            return;
        }
        let relays = self.generations.front().map_or(0, BTreeMap::len);
        if alive < relays.min(RELAYS) {
            self.should_refresh = true;
        }
        self.state = State::Resting {
            left,
            until: now.max(since + PING_INTERVAL),
        };
    }

    fn remove(&mut self, relays: impl IntoIterator<Item = SocketAddrV4>) {
        for relay in relays {
            if self.removing.insert(relay) {
                self.actions.push_back(Action::Remove(relay));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn node(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), port)
    }

    fn found(ports: impl IntoIterator<Item = u16>) -> Vec<Found> {
        let found = |port| Found {
            address: node(port),
            id: Some(Id::of_node(&node(port))),
            token: Some([7; 32].into()),
            seen: node(9999),
        };
        ports.into_iter().map(found).collect()
    }

    /// Answers everything at once: announcements and pings by whether `is_up`.
    fn settle(announcer: &mut Announcer, now: Time, nodes: &[u16], is_up: impl Fn(u16) -> bool) {
        while let Some(action) = announcer.poll_action() {
            match action {
                Action::Find(_) => announcer.handle_found(now, &found(nodes.iter().copied())),
                Action::Announce { to, .. } => {
                    announcer.handle_announced(now, to, is_up(to.port()));
                }
                Action::Ping(to) => announcer.handle_pong(now, to, is_up(to.port())),
                Action::Remove(to) => announcer.handle_removed(to),
            }
        }
    }

    fn ports(announcer: &Announcer) -> Vec<u16> {
        let relays = announcer.relays().iter();
        relays.map(|relay| relay.relay_address.port()).collect()
    }

    #[test]
    fn the_three_closest_are_announced_to_and_pinged_until_the_cycle_is_over() {
        let mut announcer = Announcer::new(KeyPair::generate());
        let mut now = Time::ZERO;
        settle(&mut announcer, now, &[5, 4, 3, 2], |_| true);
        assert_eq!(ports(&announcer), [5, 4, 3]);
        assert_eq!(
            announcer.addresses(Some(node(1))),
            [node(1), node(5), node(4)]
        );
        for _ in 0..PINGS_PER_CYCLE {
            assert_eq!(announcer.cycles(), 1);
            now = announcer.poll_timeout().unwrap();
            announcer.handle_timeout(now);
            settle(&mut announcer, now, &[5, 4, 3, 2], |_| true);
        }
        announcer.handle_timeout(announcer.poll_timeout().unwrap());
        settle(&mut announcer, now, &[5, 4, 3, 2], |_| true);
        assert_eq!(announcer.cycles(), 2);
        assert!(now.saturating_since(Time::ZERO) >= Duration::from_secs(300));
    }

    #[test]
    fn a_lost_relay_is_replaced_at_once_and_told_to_forget_us() {
        let mut announcer = Announcer::new(KeyPair::generate());
        settle(&mut announcer, Time::ZERO, &[1, 2, 3], |_| true);
        let mut now = announcer.poll_timeout().unwrap();
        announcer.handle_timeout(now);
        settle(&mut announcer, now, &[], |port| port != 2);
        now = announcer.poll_timeout().unwrap();
        announcer.handle_timeout(now);
        assert_eq!(
            announcer.poll_action(),
            Some(Action::Find(vec![node(1), node(2), node(3)]))
        );
        announcer.handle_found(now, &found([1, 3, 4]));
        let mut removed = Vec::new();
        while let Some(action) = announcer.poll_action() {
            match action {
                Action::Announce { to, .. } => announcer.handle_announced(now, to, true),
                Action::Remove(to) => removed.push(to),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ports(&announcer), [1, 3, 4]);
        assert_eq!(removed, [node(2)]);
        assert!(
            announcer.is_relay(&node(2)),
            "clients still come through it"
        );
    }

    #[test]
    fn who_finds_nobody_tries_again_after_a_pause() {
        let mut announcer = Announcer::new(KeyPair::generate());
        settle(&mut announcer, Time::ZERO, &[], |_| true);
        let now = announcer.poll_timeout().unwrap();
        assert!(now >= Time::ZERO + PING_INTERVAL);
        announcer.handle_timeout(now);
        assert_eq!(announcer.poll_action(), Some(Action::Find(Vec::new())));
        let mut without_token = found([1]);
        without_token[0].token = None;
        announcer.handle_found(now, &without_token);
        assert!(announcer.relays().is_empty());
        assert!(announcer.poll_timeout().is_some());
    }

    #[test]
    fn suspending_takes_all_announcements_back() {
        let mut announcer = Announcer::new(KeyPair::generate());
        settle(&mut announcer, Time::ZERO, &[1, 2, 3], |_| true);
        announcer.suspend();
        assert!(!announcer.is_quiet());
        assert_eq!(announcer.poll_timeout(), None);
        settle(&mut announcer, Time::ZERO, &[], |_| true);
        assert!(announcer.is_quiet());
        announcer.resume();
        settle(&mut announcer, Time::ZERO, &[1, 2], |_| true);
        assert_eq!(ports(&announcer), [1, 2]);
    }

    fn removals(announcer: &mut Announcer) -> Vec<u16> {
        let actions = std::iter::from_fn(|| announcer.poll_action());
        let removals = actions.filter_map(|action| match action {
            Action::Remove(from) => Some(from.port()),
            _ => None,
        });
        removals.collect()
    }

    /// Goal: no node goes on naming a server that sleeps. Method: it falls asleep when one of three nodes has taken the new
    /// announcement, while the others, and those of the one before, may have one, too.
    #[test]
    fn suspending_amid_an_announcement_takes_back_all_that_may_stand() {
        let mut announcer = Announcer::new(KeyPair::generate());
        settle(&mut announcer, Time::ZERO, &[1, 2, 3], |_| true);
        announcer.refresh();
        let now = announcer.poll_timeout().unwrap();
        announcer.handle_timeout(now);
        assert!(matches!(announcer.poll_action(), Some(Action::Find(_))));
        announcer.handle_found(now, &found([1, 4, 5]));
        while announcer.poll_action().is_some() {}
        announcer.handle_announced(now, node(4), true);
        announcer.suspend();
        assert_eq!(removals(&mut announcer), [1, 2, 3, 4, 5]);
    }

    /// Goal: a removal that falling asleep cuts short is made nevertheless, now and the next time. Method: a relay falls out, and
    /// the server falls asleep before it has been told so; later it is a relay again.
    #[test]
    fn suspending_amid_a_removal_does_not_forget_it() {
        let mut announcer = Announcer::new(KeyPair::generate());
        settle(&mut announcer, Time::ZERO, &[1, 2, 3], |_| true);
        announcer.refresh();
        let now = announcer.poll_timeout().unwrap();
        announcer.handle_timeout(now);
        announcer.poll_action();
        announcer.handle_found(now, &found([1, 3, 4]));
        for port in [1, 3, 4] {
            announcer.handle_announced(now, node(port), true);
        }
        assert_eq!(removals(&mut announcer), [2]);
        announcer.suspend();
        assert_eq!(removals(&mut announcer), [1, 2, 3, 4]);
        announcer.resume();
        settle(&mut announcer, now, &[1, 2, 3], |_| true);
        announcer.suspend();
        assert_eq!(removals(&mut announcer), [1, 2, 3, 4]);
    }
}
