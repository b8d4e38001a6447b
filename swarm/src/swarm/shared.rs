//! What the tasks of a swarm share, behind one short lock.
//! Knows the roster, the topics and the open connections. Does not know tasks: those are `driver` and `topics`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_primitives::time::Time;
use ferrocore_udx::socket::StreamHandle;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::Instant;

use super::events::{PathStatus, PeerState, PeerStatus, Status, SwarmEvent};
use super::topics::Joined;
use super::{Connection, ConnectionInfo, Firewall};
use crate::Topic;
use crate::connections::{Candidate, Verdict};
use crate::discovery::{Discovery, Found};
use crate::limits::{EVENTS_MAX, FOUND_QUEUED_MAX, INBOUND_MAX, PATHS_MAX};
use crate::link::{Carried, Control, Link};
use crate::peer_info::{PeerInfo, Tier};
use crate::roster::{ConnectionId, Roster, RosterLimits};
use crate::target::PeerId;
use crate::transport::{Established, PathEvent, Transport};

pub(super) struct Shared {
    pub(super) key_pair: KeyPair,
    pub(super) transports: Vec<Arc<dyn Transport>>,
    pub(super) discoveries: Vec<Arc<dyn Discovery>>,
    pub(super) firewall: Option<Firewall>,
    pub(super) events: broadcast::Sender<SwarmEvent>,
    /// Wakes the driver.
    pub(super) wake: Notify,
    /// Changes whenever a flush may be over.
    pub(super) progress: watch::Sender<()>,
    pub(super) state: Mutex<State>,
    pub(super) found: mpsc::Sender<Found>,
    /// Those found who have not reached the roster.
    pub(super) found_waiting: Arc<AtomicUsize>,
    pub(super) inbound: mpsc::Sender<Established>,
    out: mpsc::Sender<Connection>,
    started: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) roster: Roster,
    pub(super) topics: HashMap<Topic, Joined>,
    pub(super) next_id: u64,
    pub(super) open: HashMap<ConnectionId, Open>,
    /// The last dial of each peer that is known.
    dials: HashMap<PeerId, LastDial>,
    pub(super) is_suspended: bool,
    is_shut_down: bool,
}

pub(super) struct Open {
    info: ConnectionInfo,
    pub(super) control: Arc<Control>,
    /// Our address without which it is lost.
    pub(super) bound_to: Option<IpAddr>,
}

/// What became of a dial.
#[derive(Debug, Default)]
struct LastDial {
    paths: Vec<PathStatus>,
    failure: Option<String>,
    retry: Option<Tier>,
}

/// What the driver takes from.
pub(super) struct Queues {
    pub(super) found: mpsc::Receiver<Found>,
    pub(super) inbound: mpsc::Receiver<Established>,
}

impl Shared {
    pub(super) fn new(
        key_pair: KeyPair,
        limits: RosterLimits,
        seed: u64,
        out: mpsc::Sender<Connection>,
    ) -> (Self, Queues) {
        let (found, found_queue) = mpsc::channel(FOUND_QUEUED_MAX);
        let (inbound, inbound_queue) = mpsc::channel(INBOUND_MAX);
        let state = State {
            roster: Roster::new(key_pair.public_key(), limits, seed),
            topics: HashMap::new(),
            next_id: 0,
            open: HashMap::new(),
            dials: HashMap::new(),
            is_suspended: false,
            is_shut_down: false,
        };
        let shared = Self {
            key_pair,
            transports: Vec::new(),
            discoveries: Vec::new(),
            firewall: None,
            events: broadcast::Sender::new(EVENTS_MAX),
            wake: Notify::new(),
            progress: watch::Sender::new(()),
            state: Mutex::new(state),
            found,
            found_waiting: Arc::default(),
            inbound,
            out,
            started: Instant::now(),
        };
        let queues = Queues {
            found: found_queue,
            inbound: inbound_queue,
        };
        (shared, queues)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the roster, and lets the driver see to what follows.
    pub(super) fn with_roster<T>(&self, change: impl FnOnce(&mut Roster, Time) -> T) -> T {
        let changed = change(&mut self.lock().roster, self.now());
        self.stir();
        changed
    }

    pub(super) fn stir(&self) {
        self.wake.notify_one();
        self.progress.send_replace(());
    }

    pub(super) fn tell(&self, event: SwarmEvent) {
        tracing::debug!(?event, "swarm");
        self.events.send(event).ok();
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    pub(super) fn instant(&self, time: Time) -> Instant {
        self.started + time.saturating_since(Time::ZERO)
    }

    /// Whether a key may connect. Who is refused by the firewall is kept away for a while.
    pub(super) fn admits(&self, key: &PublicKey) -> bool {
        if *key == self.key_pair.public_key() {
            return false;
        }
        let is_closed = {
            let state = self.lock();
            state.is_suspended || state.roster.is_banned(key)
        };
        if is_closed {
            return false;
        }
        let is_refused = self.firewall.as_ref().is_some_and(|refuses| refuses(key));
        if is_refused {
            let closed = self.with_roster(|roster, _| roster.refuse(*key));
            self.banned(*key, closed);
        }
        !is_refused
    }

    pub(super) fn ban(&self, key: PublicKey, is_banned: bool) {
        let closed = self.with_roster(|roster, _| roster.ban(key, is_banned));
        if is_banned {
            self.banned(key, closed);
        }
    }

    fn banned(&self, key: PublicKey, closed: Option<ConnectionId>) {
        if let Some(id) = closed {
            self.hang_up(id);
        }
        self.tell(SwarmEvent::Banned(key));
    }

    /// Enters a connection, and gives it out if it stays.
    pub(super) fn enter(self: &Arc<Self>, connection: Established, dialled: Option<&PeerId>) {
        if self.lock().is_suspended {
            if let Some(peer) = dialled {
                self.with_roster(|roster, now| roster.dial_failed(peer, now));
            }
            return;
        }
        let info = ConnectionInfo {
            id: self.next_id(),
            remote_key: connection.stream.remote_public_key(),
            is_initiator: connection.stream.is_initiator(),
            via: connection.via,
            address: connection.address,
        };
        let candidate = Candidate {
            id: info.id,
            remote_key: info.remote_key,
            is_initiator: info.is_initiator,
            handshake_hash: *connection.stream.handshake_hash(),
        };
        let verdict = self.with_roster(|roster, now| match dialled {
            Some(peer) => Some(roster.dialled(peer, candidate, now)),
            None => roster.accepted(candidate, now),
        });
        match verdict {
            Some(Verdict::Only) => self.give_out(connection, info),
            Some(Verdict::Replaces(older)) => {
                self.hang_up(older);
                self.tell(SwarmEvent::Duplicate {
                    remote_key: info.remote_key,
                    kept: info.id,
                });
                self.give_out(connection, info);
            }
            Some(Verdict::Duplicate(kept)) => self.tell(SwarmEvent::Duplicate {
                remote_key: info.remote_key,
                kept,
            }),
            Some(Verdict::Ourselves) | None => {}
        }
    }

    fn give_out(self: &Arc<Self>, connection: Established, info: ConnectionInfo) {
        if let Some(pulse) = connection.pulse.filter(|_| info.is_initiator) {
            tokio::spawn(feel(Arc::downgrade(self), info.id, pulse));
        }
        let control = Arc::new(Control::default());
        let weak = Arc::downgrade(self);
        let on_drop = move || {
            if let Some(shared) = weak.upgrade() {
                shared.closed(&info);
            }
        };
        let link_control = Arc::clone(&control);
        let stream = connection
            .stream
            .map_io(|io| Link::new(io, link_control, on_drop));
        let open = Open {
            info,
            control,
            bound_to: connection.bound_to,
        };
        let topics = {
            let mut state = self.lock();
            state.open.insert(info.id, open);
            state.roster.topics_of(&info.remote_key)
        };
        self.tell(SwarmEvent::Connected(info));
        let connection = Connection {
            stream,
            info,
            topics,
            messages: connection.messages,
        };
        // Whom nobody takes is let go: dropping the connection enters its end.
        self.out.try_send(connection).ok();
        self.progress.send_replace(());
    }

    /// A peer does not answer on its connection any more, or does again: whoever it was found for is looked for elsewhere
    /// meanwhile.
    fn note_silence(&self, id: ConnectionId, is_silent: bool) {
        let mut state = self.lock();
        let key = state.open.get(&id).map(|open| open.info.remote_key);
        if !state.roster.set_silent(id, is_silent) {
            return;
        }
        let topics = key.map(|key| state.roster.topics_of(&key));
        for topic in state.roster.unmet(topics.unwrap_or_default()) {
            state.topics.get(&topic).inspect(|joined| joined.desert());
        }
    }

    /// Ends a connection that was given out.
    fn hang_up(&self, id: ConnectionId) {
        let state = self.lock();
        if let Some(open) = state.open.get(&id) {
            open.control.close();
        }
    }

    fn closed(&self, info: &ConnectionInfo) {
        let mut state = self.lock();
        state.open.remove(&info.id);
        let topics = state.roster.topics_of(&info.remote_key);
        state.roster.closed(info.id, self.now());
        for topic in state.roster.unmet(topics) {
            state.topics.get(&topic).inspect(|joined| joined.desert());
        }
        drop(state);
        self.tell(SwarmEvent::Disconnected(*info));
        self.stir();
    }

    /// A dial begins: what is known of the one before is forgotten, and of peers that are.
    pub(super) fn note_dial(&self, peer: &PeerId) {
        let mut state = self.lock();
        let known: HashSet<PeerId> = state.roster.peers().map(|(id, _)| id.clone()).collect();
        state.dials.retain(|id, _| known.contains(id));
        state.dials.insert(peer.clone(), LastDial::default());
    }

    pub(super) fn note_path(&self, peer: &PeerId, event: &PathEvent) {
        if let Some(dial) = self.lock().dials.get_mut(peer) {
            dial.note(event);
        }
    }

    pub(super) fn note_failure(&self, peer: &PeerId, reason: &str, retry: Option<Tier>) {
        if let Some(dial) = self.lock().dials.get_mut(peer) {
            (dial.failure, dial.retry) = (Some(reason.to_owned()), retry);
        }
    }

    fn next_id(&self) -> ConnectionId {
        let mut state = self.lock();
        state.next_id += 1;
        ConnectionId(state.next_id)
    }

    pub(super) fn carried(&self, id: ConnectionId) -> Option<Carried> {
        let state = self.lock();
        state.open.get(&id).map(|open| open.control.carried())
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let peers = state.roster.peers().map(|(id, info)| {
            let dial = state.dials.get(id);
            PeerStatus {
                peer: id.clone(),
                attempts: info.attempts(),
                priority: info.priority(),
                state: peer_state(info, state.roster.is_dialling(id)),
                paths: dial.map_or_else(Vec::new, |dial| dial.paths.clone()),
                last_failure: dial.and_then(|dial| dial.failure.clone()),
                retry: dial.and_then(|dial| dial.retry),
                needs_relay: info.needs_relay,
            }
        });
        Status {
            topics: state.topics.values().map(Joined::status).collect(),
            peers: peers.collect(),
            connections: state.open.values().map(|open| open.info).collect(),
            is_suspended: state.is_suspended,
        }
    }

    /// Waits for lookups, and then for those found.
    pub(super) async fn flush(&self) {
        let mut progress = self.progress.subscribe();
        while !self.has_found_all() {
            progress.changed().await.ok();
        }
        let pending = self.lock().roster.pending();
        while !self.is_tried(&pending) {
            progress.changed().await.ok();
        }
    }

    /// Whether every search is over, and who was found is known; nobody is found any more once all is shut down.
    fn has_found_all(&self) -> bool {
        let state = self.lock();
        let has_taken_in = self.found_waiting.load(Ordering::SeqCst) == 0;
        state.is_shut_down || has_taken_in && state.topics.values().all(Joined::is_settled)
    }

    /// Whether none of these still waits, but for want of room.
    fn is_tried(&self, peers: &HashSet<PeerId>) -> bool {
        let state = self.lock();
        let still = state.roster.pending();
        let dialling = |id: &PeerId| state.roster.is_dialling(id);
        let is_full = !state.roster.has_room() && !still.iter().any(dialling);
        state.is_shut_down || is_full || peers.is_disjoint(&still)
    }

    pub(super) fn shut_down(&self) {
        let mut state = self.lock();
        state.is_shut_down = true;
        state.topics.clear();
        for open in state.open.values() {
            open.control.close();
        }
        drop(state);
        self.stir();
    }
}

impl LastDial {
    fn note(&mut self, event: &PathEvent) {
        match event {
            PathEvent::Trying(path) if self.paths.len() < PATHS_MAX => {
                self.paths.push(PathStatus {
                    path: path.clone(),
                    failure: None,
                });
            }
            PathEvent::Trying(_) => {}
            PathEvent::Failed { path, reason } => {
                let mut tried = self.paths.iter_mut().rev();
                if let Some(tried) = tried.find(|tried| tried.is(path)) {
                    tried.failure = Some(reason.clone());
                }
            }
        }
    }
}

impl PathStatus {
    /// Whether `failed` names it: by its kind and address, or its kind alone.
    fn is(&self, failed: &str) -> bool {
        let rest = self.path.strip_prefix(failed);
        self.failure.is_none() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

fn peer_state(info: &PeerInfo, is_dialling: bool) -> PeerState {
    match info {
        _ if is_dialling => PeerState::Dialling,
        info if info.banned => PeerState::Banned,
        info if info.queued => PeerState::Queued,
        info if info.waiting => PeerState::Waiting,
        _ => PeerState::Idle,
    }
}

/// Tells the swarm whenever a peer does not answer any more, or does again, until the connection is over.
async fn feel(shared: Weak<Shared>, id: ConnectionId, pulse: StreamHandle) {
    let mut is_silent = true;
    while pulse.unanswered(is_silent).await.is_ok()
        && let Some(shared) = shared.upgrade()
    {
        shared.note_silence(id, is_silent);
        is_silent = !is_silent;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: who flushes while the swarm is closed does not wait for what nobody takes in any more. Method: somebody was found and is on
    /// the way to the roster when all is shut down.
    #[tokio::test]
    async fn nobody_waits_for_a_search_that_was_shut_down() {
        let limits = RosterLimits::default();
        let (out, _connections) = mpsc::channel(1);
        let (shared, queues) = Shared::new(KeyPair::generate(), limits, 0, out);
        shared.found_waiting.store(1, Ordering::SeqCst);
        let mut flushing = std::pin::pin!(shared.flush());
        let waits = tokio::time::timeout(std::time::Duration::ZERO, &mut flushing);
        assert!(waits.await.is_err());
        drop(queues);
        shared.shut_down();
        let ends = tokio::time::timeout(std::time::Duration::from_secs(10), flushing);
        assert!(ends.await.is_ok());
    }

    fn trying(path: &str) -> PathEvent {
        PathEvent::Trying(path.to_owned())
    }

    #[test]
    fn a_failure_is_told_of_the_path_that_it_names() {
        let mut dial = LastDial::default();
        dial.note(&trying("lan 10.0.0.1:1"));
        dial.note(&trying("lan 10.0.0.2:1"));
        dial.note(&trying("punched 44.0.0.2:7"));
        for (path, reason) in [
            ("lan 10.0.0.1:1", "gone"),
            ("punched", "random"),
            ("lan", "far"),
        ] {
            let (path, reason) = (path.to_owned(), reason.to_owned());
            dial.note(&PathEvent::Failed { path, reason });
        }
        let failures = dial.paths.iter().map(|path| path.failure.as_deref());
        let failures: Vec<_> = failures.collect();
        assert_eq!(failures, [Some("gone"), Some("far"), Some("random")]);
    }

    #[test]
    fn paths_are_bounded() {
        let mut dial = LastDial::default();
        for number in 0..PATHS_MAX + 3 {
            dial.note(&trying(&format!("tcp {number}")));
        }
        assert_eq!(dial.paths.len(), PATHS_MAX);
    }
}
