//! Everybody a swarm has heard of, and whose turn it is: `hyperswarm/index.js` without its streams.
//! Knows the limits, the queue, the backoffs and the duplicate rule. Does not know tasks, sockets or lookups.

use std::collections::{HashMap, HashSet};

use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;

use crate::Topic;
use crate::connections::{Candidate, Connections, Verdict};
use crate::latest::Latest;
use crate::limits::{
    ADDRESSES_MAX, DIALS_MAX, EXPLICIT_ATTEMPTS_MAX, INBOUND_MAX, PEERS_KNOWN_MAX, PEERS_MAX,
};
use crate::peer_info::{PeerInfo, Tier};
use crate::queue::Queue;
use crate::retry::RetryTimer;
use crate::target::{PeerId, Target};

/// Names one connection of a swarm, for as long as the swarm lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// How many connections a swarm seeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RosterLimits {
    /// Connections sought; incoming ones may exceed it, and so may peers asked for by key.
    pub peers_max: usize,
    /// Dials under way at once.
    pub dials_max: usize,
    /// Connections accepted.
    pub inbound_max: usize,
}

impl Default for RosterLimits {
    fn default() -> Self {
        Self {
            peers_max: PEERS_MAX,
            dials_max: DIALS_MAX,
            inbound_max: INBOUND_MAX,
        }
    }
}

/// Everybody a swarm has heard of.
///
/// In: [`found`](Self::found), [`join_peer`](Self::join_peer), [`dialled`](Self::dialled) or
/// [`dial_failed`](Self::dial_failed) after every [`poll_dial`](Self::poll_dial), [`accepted`](Self::accepted),
/// [`closed`](Self::closed), [`handle_timeout`](Self::handle_timeout). Out, after each of them: `poll_dial` until it
/// has none, [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Roster {
    peers: HashMap<PeerId, Peer>,
    explicit: HashSet<PeerId>,
    dialling: HashSet<PeerId>,
    queue: Queue<PeerId>,
    retry: RetryTimer<PeerId>,
    connections: Connections<ConnectionId>,
    open: HashMap<ConnectionId, Open>,
    banned_keys: HashSet<PublicKey>,
    /// Who has a connection but does not answer on it.
    silent: HashSet<PublicKey>,
    /// Whom the firewall refused last.
    refused: Latest<PublicKey>,
    /// Who is connected by ways that are not the swarm's.
    elsewhere: HashSet<PublicKey>,
    limits: RosterLimits,
    seed: u64,
    is_resting: bool,
}

#[derive(Debug)]
struct Peer {
    info: PeerInfo,
    target: Target,
    /// Its key, once known.
    key: Option<PublicKey>,
}

/// A connection that stays for now.
#[derive(Debug)]
struct Open {
    key: PublicKey,
    /// Who it was when we dialled it; none for those who dialled us.
    dialled: Option<PeerId>,
}

impl Roster {
    /// Nobody is known. `seed` decides the order of equals and the exact backoffs.
    pub fn new(our_key: PublicKey, limits: RosterLimits, seed: u64) -> Self {
        Self {
            peers: HashMap::new(),
            explicit: HashSet::new(),
            dialling: HashSet::new(),
            queue: Queue::new(seed),
            retry: RetryTimer::new(!seed),
            connections: Connections::new(our_key),
            open: HashMap::new(),
            banned_keys: HashSet::new(),
            silent: HashSet::new(),
            refused: Latest::new(PEERS_KNOWN_MAX),
            elsewhere: HashSet::new(),
            limits,
            seed,
            is_resting: false,
        }
    }

    /// Lets nobody be dialled until [`wake`](Self::wake), and forgets whose turn it was: those wanted are found again.
    pub fn rest(&mut self) {
        self.is_resting = true;
        self.queue = Queue::new(self.seed);
        self.retry = RetryTimer::new(!self.seed);
        for peer in self.peers.values_mut() {
            (peer.info.queued, peer.info.waiting) = (false, false);
        }
    }

    /// Undoes [`rest`](Self::rest). Those asked for by key are dialled at once.
    pub fn wake(&mut self) {
        self.is_resting = false;
        let explicit: Vec<PeerId> = self.explicit.iter().cloned().collect();
        for id in explicit {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.info.forgive();
            }
            if !self.is_connected(&id) && !self.dialling.contains(&id) {
                self.enqueue(&id);
            }
        }
    }

    /// A lookup has found a peer under `topic`. Returns whether it was unknown under it.
    pub fn found(&mut self, target: Target, topic: Topic) -> bool {
        if target.expected_key() == Some(self.connections.our_key()) {
            return false;
        }
        let Some(peer) = self.upsert(target) else {
            return false;
        };
        let is_news = peer.info.add_topic(topic);
        let id = peer.target.id.clone();
        if !self.is_connected(&id) && !self.dialling.contains(&id) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.info.found();
            }
            self.enqueue(&id);
        }
        is_news
    }

    /// Dials this key whether or not a lookup finds it, until [`leave_peer`](Self::leave_peer).
    pub fn join_peer(&mut self, key: PublicKey) {
        if key == self.connections.our_key() {
            return;
        }
        let id = PeerId::Key(key);
        self.explicit.insert(id.clone());
        let peer = self.peers.entry(id.clone());
        let peer = peer.or_insert_with(|| Peer::new(Target::key(key)));
        peer.info.explicit = true;
        if !self.is_connected(&id) && !self.dialling.contains(&id) {
            self.enqueue(&id);
        }
    }

    /// Lets a key be dialled no more, unless lookups find it. An open connection stays.
    pub fn leave_peer(&mut self, key: PublicKey) {
        let id = PeerId::Key(key);
        self.explicit.remove(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.info.explicit = false;
        }
        self.forget_maybe(&id);
    }

    /// Forgets that peers were found under a topic that was left.
    pub fn leave_topic(&mut self, topic: &Topic) {
        for peer in self.peers.values_mut() {
            peer.info.remove_topic(topic);
        }
        let idle: Vec<PeerId> = self.peers.keys().cloned().collect();
        for id in idle {
            if self.peers.get(&id).is_some_and(Peer::is_aimless) {
                self.queue.remove(&id);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.info.queued = false;
                }
                self.forget_maybe(&id);
            }
        }
    }

    /// Keeps a key away, both ways, or no more. Returns its open connection, which is to be closed. As many are kept away as the
    /// caller names: no peer adds to them.
    pub fn ban(&mut self, key: PublicKey, is_banned: bool) -> Option<ConnectionId> {
        if is_banned {
            self.banned_keys.insert(key);
        } else {
            self.banned_keys.remove(&key);
            self.refused.remove(&key);
        }
        self.mark_banned(key, is_banned)
    }

    /// Keeps a key that the firewall has refused away, both ways, until [`PEERS_KNOWN_MAX`] others were: strangers have any number
    /// of keys. Returns its open connection, which is to be closed.
    pub fn refuse(&mut self, key: PublicKey) -> Option<ConnectionId> {
        if let Some(oldest) = self.refused.insert(key)
            && !self.banned_keys.contains(&oldest)
        {
            self.mark_banned(oldest, false);
        }
        self.mark_banned(key, true)
    }

    fn mark_banned(&mut self, key: PublicKey, is_banned: bool) -> Option<ConnectionId> {
        for peer in self.peers.values_mut() {
            if peer.known_key() == Some(key) {
                peer.info.banned = is_banned;
            }
        }
        self.connections.get(&key).filter(|_| is_banned)
    }

    /// These keys are connected by other ways than the swarm's, and dialled only once they are not. What was said before no
    /// longer holds.
    pub fn met_elsewhere(&mut self, keys: HashSet<PublicKey>) {
        let before = std::mem::replace(&mut self.elsewhere, keys);
        let lost = |peer: &&Peer| {
            let key = peer.known_key();
            key.is_some_and(|key| before.contains(&key) && !self.elsewhere.contains(&key))
        };
        let lost = self.peers.values().filter(lost);
        let lost: Vec<PeerId> = lost.map(|peer| peer.target.id.clone()).collect();
        for id in lost {
            if !self.is_connected(&id) && !self.dialling.contains(&id) {
                self.enqueue(&id);
                self.forget_maybe(&id);
            }
        }
    }

    /// Whether a key is kept away.
    pub fn is_banned(&self, key: &PublicKey) -> bool {
        self.banned_keys.contains(key) || self.refused.contains(key)
    }

    /// The next peer to dial, if it is time for one.
    pub fn poll_dial(&mut self, now: Time) -> Option<Target> {
        if self.is_resting || self.dialling.len() >= self.limits.dials_max {
            return None;
        }
        let id = self.next_explicit(now).or_else(|| self.next_queued())?;
        let target = self.peers.get(&id)?.target.clone();
        self.dialling.insert(id);
        Some(target)
    }

    /// A dial has led to a connection. What the verdict names is to be closed.
    pub fn dialled(
        &mut self,
        id: &PeerId,
        candidate: Candidate<ConnectionId>,
        now: Time,
    ) -> Verdict<ConnectionId> {
        self.dialling.remove(id);
        let verdict = self.connections.offer(candidate, now);
        let Some(peer) = self.peers.get_mut(id) else {
            return self.entered(candidate, Some(id), verdict);
        };
        peer.key = Some(candidate.remote_key);
        match verdict {
            Verdict::Only | Verdict::Replaces(_) => peer.info.connected(now),
            Verdict::Duplicate(_) => {}
            // Its addresses lead nowhere else until it is found anew.
            Verdict::Ourselves => peer.info.reconnecting = false,
        }
        self.entered(candidate, Some(id), verdict)
    }

    /// A dial has failed. Returns how long the peer waits for the next, if it gets one.
    pub fn dial_failed(&mut self, id: &PeerId, now: Time) -> Option<Tier> {
        self.dialling.remove(id);
        self.lost(id, now)
    }

    /// The last dial has shown that only a relay can help: the next counts as the first.
    pub fn needs_relay(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.info.needs_relay = true;
            peer.info.forgive();
        }
    }

    /// Whether a peer may be added to those found under `topic`, of whom at most `limit` are to be dialled.
    pub fn may_add(&self, topic: &Topic, id: &PeerId, limit: usize) -> bool {
        let is_wanted = |peer: &&Peer| peer.info.topics().contains(topic);
        let is_known = self.peers.get(id).as_ref().is_some_and(is_wanted);
        is_known || limit == usize::MAX || self.peers.values().filter(is_wanted).count() < limit
    }

    /// A peer has connected to us. What the verdict names is to be closed; `None` if there are too many, or the peer is
    /// banned: then it is this one.
    pub fn accepted(
        &mut self,
        candidate: Candidate<ConnectionId>,
        now: Time,
    ) -> Option<Verdict<ConnectionId>> {
        let inbound = self.open.values().filter(|open| open.dialled.is_none());
        if inbound.count() >= self.limits.inbound_max || self.is_banned(&candidate.remote_key) {
            return None;
        }
        let verdict = self.connections.offer(candidate, now);
        for peer in self.peers.values_mut() {
            if peer.known_key() == Some(candidate.remote_key) {
                peer.info.accepted();
            }
        }
        Some(self.entered(candidate, None, verdict))
    }

    /// A connection is over. Returns whether it was the one to its peer.
    pub fn closed(&mut self, id: ConnectionId, now: Time) -> bool {
        let Some(open) = self.open.remove(&id) else {
            return false;
        };
        let was_the_one = self.connections.remove(&open.key, id);
        if was_the_one {
            self.silent.remove(&open.key);
        }
        match open.dialled {
            Some(peer) => {
                self.lost(&peer, now);
            }
            None if was_the_one => self.wait_for_named(open.key, now),
            None => {}
        }
        was_the_one
    }

    /// The peer does not answer on connection `id` any more, or does again. Until then it counts as gone, so that who has
    /// come back elsewhere is found and dialled before the connection is given up. Returns whether anything has changed.
    pub fn set_silent(&mut self, id: ConnectionId, is_silent: bool) -> bool {
        let key = self.open.get(&id).map(|open| open.key);
        let key = key.filter(|key| self.connections.get(key) == Some(id));
        key.is_some_and(|key| match is_silent {
            true => self.silent.insert(key),
            false => self.silent.remove(&key),
        })
    }

    /// Lets those whose backoff is over queue again.
    pub fn handle_timeout(&mut self, now: Time) {
        for id in self.retry.handle_timeout(now) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.info.waiting = false;
            }
            if self.is_connected(&id) || self.dialling.contains(&id) {
                continue;
            }
            self.enqueue(&id);
            self.forget_maybe(&id);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.retry.poll_timeout()
    }

    /// Those who wait for a dial, or whose dial is under way, and will have been tried once all are gone from the answer.
    pub fn pending(&self) -> HashSet<PeerId> {
        let queued = self.peers.iter().filter(|(_, peer)| peer.info.queued);
        let queued = queued.map(|(id, _)| id.clone());
        self.dialling.iter().cloned().chain(queued).collect()
    }

    /// Whether more peers would be dialled if there were any.
    pub fn has_room(&self) -> bool {
        let factor = match self.explicit.len() {
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            _ => 4,
        };
        // As `_withinMaxPeers`: whoever asks for peers by key gets less of the others.
        factor * (self.connections.len() + self.dialling.len()) < self.limits.peers_max
    }

    /// The connections that stay, one for each peer.
    pub fn connections(&self) -> &Connections<ConnectionId> {
        &self.connections
    }

    /// The topics this key was found under, by whatever name.
    pub fn topics_of(&self, key: &PublicKey) -> Vec<Topic> {
        let peers = self.peers.values();
        let named = peers.filter(|peer| peer.known_key() == Some(*key));
        let topics: HashSet<Topic> = named.flat_map(|peer| peer.info.topics()).copied().collect();
        topics.into_iter().collect()
    }

    /// Whether somebody found under this topic is connected.
    pub fn is_met(&self, topic: &Topic) -> bool {
        self.unmet([*topic]).is_empty()
    }

    /// Those of `topics` under which nobody who was found is connected. One look at each peer, however many topics.
    pub fn unmet(&self, topics: impl IntoIterator<Item = Topic>) -> HashSet<Topic> {
        let mut unmet: HashSet<Topic> = topics.into_iter().collect();
        let connected = self.peers.iter().filter(|(id, _)| self.is_connected(id));
        for topic in connected.flat_map(|(_, peer)| peer.info.topics()) {
            unmet.remove(topic);
        }
        unmet
    }

    /// What is remembered of each peer.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, &PeerInfo)> {
        self.peers.iter().map(|(id, peer)| (id, &peer.info))
    }

    /// Whether a dial to this peer is under way.
    pub fn is_dialling(&self, id: &PeerId) -> bool {
        self.dialling.contains(id)
    }

    fn upsert(&mut self, mut target: Target) -> Option<&mut Peer> {
        target.addresses.truncate(ADDRESSES_MAX);
        let id = target.id.clone();
        if !self.peers.contains_key(&id) && self.peers.len() >= PEERS_KNOWN_MAX {
            return None;
        }
        let peer = self.peers.entry(id);
        let peer = peer.or_insert_with(|| Peer::new(target.clone()));
        if peer.target.addresses != target.addresses {
            peer.target = target; // new is always better
            peer.info.reconnecting = true;
        }
        peer.info.banned = peer
            .known_key()
            .is_some_and(|key| self.banned_keys.contains(&key) || self.refused.contains(&key));
        Some(peer)
    }

    fn enqueue(&mut self, id: &PeerId) {
        if self.is_resting {
            return;
        }
        if let Some(peer) = self.peers.get_mut(id)
            && peer.info.update_priority()
        {
            peer.info.queued = true;
            self.queue.push(peer.info.priority(), id.clone());
        }
    }

    fn next_explicit(&self, now: Time) -> Option<PeerId> {
        let is_due = |id: &&PeerId| {
            let info = self.peers.get(*id).map(|peer| &peer.info);
            info.is_some_and(|info| !info.banned && is_explicit_due(info, now))
                && !self.dialling.contains(*id)
                && !self.is_connected(id)
        };
        self.explicit.iter().find(is_due).cloned()
    }

    fn next_queued(&mut self) -> Option<PeerId> {
        while self.has_room() {
            let id = self.queue.pop()?;
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.info.queued = false;
            let is_wanted = !peer.info.banned && !peer.is_aimless();
            if is_wanted && !self.is_connected(&id) && !self.dialling.contains(&id) {
                return Some(id);
            }
            self.forget_maybe(&id);
        }
        None
    }

    /// Enters a connection that stays.
    fn entered(
        &mut self,
        candidate: Candidate<ConnectionId>,
        dialled: Option<&PeerId>,
        verdict: Verdict<ConnectionId>,
    ) -> Verdict<ConnectionId> {
        if let Verdict::Replaces(older) = verdict {
            // It was not lost: its peer need not be dialled again.
            self.open.remove(&older);
        }
        if matches!(verdict, Verdict::Only | Verdict::Replaces(_)) {
            let open = Open {
                key: candidate.remote_key,
                dialled: dialled.cloned(),
            };
            self.open.insert(candidate.id, open);
            // Only the connection before it was silent, if any.
            self.silent.remove(&candidate.remote_key);
        }
        verdict
    }

    /// Notes that a dial, or what came of it, is over.
    fn lost(&mut self, id: &PeerId, now: Time) -> Option<Tier> {
        let peer = self.peers.get_mut(id)?;
        peer.info.disconnected(now);
        let tier = self.wait(id, now);
        self.forget_maybe(id);
        tier
    }

    fn wait(&mut self, id: &PeerId, now: Time) -> Option<Tier> {
        let peer = self.peers.get_mut(id)?;
        if self.is_resting || peer.is_aimless() || peer.info.waiting {
            return None;
        }
        let tier = peer.info.retry_tier()?;
        peer.info.waiting = true;
        self.retry.add(tier, id.clone(), now);
        Some(tier)
    }

    /// Who dialled us dials again; but who was found by name, and lost, may have its address changed without knowing that we
    /// are still here. Lookups by name find it only once.
    fn wait_for_named(&mut self, key: PublicKey, now: Time) {
        let is_named = |(id, peer): &(&PeerId, &Peer)| {
            matches!(id, PeerId::Name(_)) && peer.known_key() == Some(key)
        };
        let ids = self.peers.iter().filter(is_named);
        let ids: Vec<PeerId> = ids.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.wait(&id, now);
        }
    }

    /// Whether it has a connection on which it answers: another may be made to who does not, and takes its place.
    fn is_connected(&self, id: &PeerId) -> bool {
        let key = self.peers.get(id).and_then(Peer::known_key);
        self.has_connection(id) && key.is_some_and(|key| !self.silent.contains(&key))
    }

    fn has_connection(&self, id: &PeerId) -> bool {
        let key = self.peers.get(id).and_then(Peer::known_key);
        key.is_some_and(|key| self.connections.get(&key).is_some() || self.elsewhere.contains(&key))
    }

    fn forget_maybe(&mut self, id: &PeerId) {
        let is_idle = !self.dialling.contains(id) && !self.has_connection(id);
        let peer = self.peers.get(id);
        if is_idle && peer.is_some_and(|peer| peer.info.is_forgettable()) {
            self.peers.remove(id);
        }
    }
}

fn is_explicit_due(info: &PeerInfo, now: Time) -> bool {
    let pause = std::time::Duration::from_secs(info.attempts().into());
    let since = info.disconnected_at();
    info.attempts() < EXPLICIT_ATTEMPTS_MAX
        && since.is_none_or(|since| now.saturating_since(since) >= pause)
}

impl Peer {
    fn new(target: Target) -> Self {
        Self {
            info: PeerInfo::default(),
            target,
            key: None,
        }
    }

    fn known_key(&self) -> Option<PublicKey> {
        self.target.expected_key().or(self.key)
    }

    /// Whether no topic or caller wants it any more.
    fn is_aimless(&self) -> bool {
        !self.info.explicit && self.info.topics().is_empty()
    }
}

#[cfg(test)]
mod tests;
