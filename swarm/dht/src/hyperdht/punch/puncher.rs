//! The packets that open NATs, and the sockets they leave from.
//! Knows kinds of NATs, intervals and sockets by number (`hyperdht/lib/holepuncher.js` 6.34). Does not know the rounds
//! in which the peers agree to punch.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::samples::Samples;
use crate::hyperdht::noise::Firewall;

/// Sockets that the random side of a pair opens: with 1,750 guesses of the other, one of them is hit in 999 cases
/// of 1,000.
pub const BIRTHDAY_SOCKETS: usize = 256;

/// How often a socket is replaced because its NAT cannot be made out.
pub const REOPENS_MAX: usize = 3;

/// Addresses of the other side that are sent to.
pub const REMOTE_ADDRESSES_MAX: usize = 8;

/// Random punches of a node at once.
pub const RANDOM_PUNCHES_MAX: usize = 1;

/// Least time between two random punches of a node, which routers take for a scan of ports.
pub const RANDOM_PUNCH_INTERVAL: Duration = Duration::from_secs(20);

const CONSISTENT_TRIES: u32 = 10;
const CONSISTENT_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses that nobody has proven are sent to every so many tries.
const UNVERIFIED_EVERY: u32 = 4;
const RANDOM_TRIES: u32 = 1750;
const RANDOM_INTERVAL: Duration = Duration::from_millis(20);
const AFTER_OPENING: Duration = Duration::from_millis(100);
/// Rounds over all birthday sockets that only open our own NAT.
const LOW_TTL_ROUNDS: u32 = 1;
const PORT_MIN: u16 = 1000;

/// A socket of a puncher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketNumber(pub u32);

/// What the owner of a puncher is to do, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Bind a fresh socket to any port.
    Open(SocketNumber),
    /// Ask [`SAMPLES`](super::samples::SAMPLES) nodes from that socket where they see it. Report each answer with
    /// [`Puncher::handle_sample`], and the last, or that none is coming, with [`Puncher::handle_sampled`].
    Sample(SocketNumber),
    /// Send [`PUNCH`](super::PUNCH) from that socket.
    Send {
        /// From here.
        socket: SocketNumber,
        /// To there.
        to: SocketAddrV4,
        /// With [`LOW_TTL`](super::LOW_TTL).
        low_ttl: bool,
    },
    /// Close that socket, unless a stream uses it.
    Close(SocketNumber),
}

/// How many random punches a node has under way; shared by its punchers.
#[derive(Clone, Debug, Default)]
pub struct RandomPunches(Arc<Mutex<RandomState>>);

#[derive(Debug, Default)]
struct RandomState {
    active: usize,
    last: Option<Time>,
}

impl RandomPunches {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether another may start.
    pub fn may_start(&self, now: Time) -> bool {
        let state = self.lock();
        let is_early = |last| now.saturating_since(last) < RANDOM_PUNCH_INTERVAL;
        state.active < RANDOM_PUNCHES_MAX && !state.last.is_some_and(is_early)
    }

    fn start(&self) {
        self.lock().active += 1;
    }

    fn end(&self, now: Time) {
        let mut state = self.lock();
        state.active = state.active.saturating_sub(1);
        state.last = state.last.max(Some(now));
    }

    fn lock(&self) -> MutexGuard<'_, RandomState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of the other side.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its NAT as it says.
    pub firewall: Firewall,
    /// Whether it punches, or will when it hears that we do.
    pub is_punching: bool,
    addresses: Vec<(SocketAddrV4, bool)>,
}

/// What a NAT looks like for punching: an open host is as good as a consistent NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Unknown,
    Consistent,
    Random,
}

impl Kind {
    pub(super) fn of(firewall: Firewall) -> Self {
        match firewall {
            Firewall::OPEN | Firewall::CONSISTENT => Self::Consistent,
            Firewall::RANDOM => Self::Random,
            _ => Self::Unknown,
        }
    }
}

/// Whether the own NAT is known well enough to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Analysis {
    /// Ask again after the next sample.
    Pending,
    /// It is.
    Stable,
    /// It is not, or both sides are random.
    Unstable,
}

/// One side's punching for one connection.
///
/// Inputs: `handle_*` and [`update_remote`](Self::update_remote). Output: [`poll_action`](Self::poll_action) until it
/// returns `None`, [`connected`](Self::connected), [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Puncher {
    is_initiator: bool,
    is_firewalled: bool,
    main: SocketNumber,
    sockets: Vec<SocketNumber>,
    opened: u32,
    samples: Samples,
    remote: Remote,
    reopens_left: usize,
    phase: Phase,
    randoms: RandomPunches,
    is_counted: bool,
    seen_at: Time,
    random: u64,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    /// Both sides are consistent.
    Consistent {
        tries: u32,
        at: Time,
    },
    /// We are consistent and guess ports.
    Guessing {
        host: Ipv4Addr,
        left: u32,
        at: Time,
    },
    /// We are random, send from all our sockets in turn and hope that one is hit.
    Cycling {
        to: SocketAddrV4,
        next: usize,
        low_ttl_rounds: u32,
        left: u32,
        at: Time,
    },
    Connected {
        socket: SocketNumber,
        to: SocketAddrV4,
    },
    /// Given up, or no longer needed.
    Over,
}

impl Puncher {
    /// Opens the first socket. `is_initiator`: the client. `remote` is what the other side's handshake said of its
    /// firewall; `seed` is random.
    pub fn new(
        is_initiator: bool,
        is_firewalled: bool,
        remote: Firewall,
        randoms: RandomPunches,
        seed: u64,
    ) -> Self {
        let mut puncher = Self {
            is_initiator,
            is_firewalled,
            main: SocketNumber(0),
            sockets: Vec::new(),
            opened: 0,
            samples: Samples::new(is_firewalled),
            remote: Remote {
                firewall: remote,
                is_punching: false,
                addresses: Vec::new(),
            },
            reopens_left: REOPENS_MAX,
            phase: Phase::Idle,
            randoms,
            is_counted: false,
            seen_at: Time::ZERO,
            random: seed,
            actions: VecDeque::new(),
        };
        puncher.main = puncher.open();
        puncher.actions.push_back(Action::Sample(puncher.main));
        puncher
    }

    /// `node` sees socket `socket` at `seen`.
    pub fn handle_sample(&mut self, socket: SocketNumber, seen: SocketAddrV4, node: SocketAddrV4) {
        if socket == self.main {
            self.samples.add(seen, node);
        }
    }

    /// No more samples of `socket` are coming.
    pub fn handle_sampled(&mut self, socket: SocketNumber) {
        if socket == self.main {
            self.samples.complete();
        }
    }

    /// A [`PUNCH`](super::PUNCH) arrived. A server sends one back; a client is connected.
    pub fn handle_packet(&mut self, now: Time, socket: SocketNumber, from: SocketAddrV4) {
        self.seen_at = now;
        if self.is_over() || !self.sockets.contains(&socket) || from.port() == 0 {
            return;
        }
        if self.is_initiator {
            self.connect(now, socket, from);
        } else {
            self.send(socket, from, false);
        }
    }

    /// What the other side says of itself. `verified` is a host that it has proven to receive at. The address of a
    /// random NAT has port 0: only its host means something.
    pub fn update_remote(
        &mut self,
        firewall: Firewall,
        is_punching: bool,
        addresses: &[SocketAddrV4],
        verified: Option<Ipv4Addr>,
    ) {
        let known = std::mem::take(&mut self.remote.addresses);
        let is_verified = |host: &Ipv4Addr| {
            let mut proven = known.iter().filter(|(_, verified)| *verified);
            verified.as_ref() == Some(host) || proven.any(|(address, _)| address.ip() == host)
        };
        self.remote = Remote {
            firewall,
            is_punching,
            addresses: addresses
                .iter()
                .take(REMOTE_ADDRESSES_MAX)
                .map(|address| (*address, is_verified(address.ip())))
                .collect(),
        };
    }

    /// Starts punching, if that can lead to anything. Ask [`is_random`](Self::is_random) and
    /// [`may_start_random`](Self::may_start_random) first.
    pub fn punch(&mut self, now: Time) -> bool {
        self.seen_at = now;
        if self.phase != Phase::Idle {
            return !self.is_over();
        }
        let (ours, theirs) = self.kinds();
        let verified = self.remote.addresses.iter().find(|(_, proven)| *proven);
        let verified = verified.map(|(address, _)| *address);
        self.phase = match (ours, theirs, verified) {
            _ if self.remote.addresses.is_empty() => return false,
            // The server has just answered the client's fast open, and waits for what comes of it.
            (Kind::Consistent, Kind::Consistent, _) => Phase::Consistent {
                tries: 0,
                at: match self.is_initiator {
                    true => now,
                    false => now + CONSISTENT_INTERVAL,
                },
            },
            (Kind::Consistent, Kind::Random, Some(to)) => Phase::Guessing {
                host: *to.ip(),
                left: RANDOM_TRIES,
                at: now,
            },
            (Kind::Random, Kind::Consistent, Some(to)) if to.port() != 0 => {
                self.open_birthday_sockets(to);
                Phase::Cycling {
                    to,
                    next: 0,
                    low_ttl_rounds: LOW_TTL_ROUNDS,
                    left: RANDOM_TRIES,
                    at: now + AFTER_OPENING,
                }
            }
            _ => return false,
        };
        if self.is_random() {
            self.is_counted = true;
            self.randoms.start();
        }
        true
    }

    /// Sends what is due. After a pause, such as of a machine that slept, nothing is made up for.
    pub fn handle_timeout(&mut self, now: Time) {
        self.seen_at = now;
        while self.poll_timeout().is_some_and(|at| at <= now) {
            self.turn(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Consistent { at, .. }
            | Phase::Guessing { at, .. }
            | Phase::Cycling { at, .. } => Some(at),
            Phase::Idle | Phase::Connected { .. } | Phase::Over => None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Where the client is connected: from this socket, to there.
    pub fn connected(&self) -> Option<(SocketNumber, SocketAddrV4)> {
        match self.phase {
            Phase::Connected { socket, to } => Some((socket, to)),
            _ => None,
        }
    }

    /// Whether it has ended without a connection, or was ended.
    pub fn has_failed(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether packets are being sent.
    pub fn is_punching(&self) -> bool {
        self.poll_timeout().is_some()
    }

    /// Ends it, and closes all sockets.
    pub fn end(&mut self, now: Time) {
        self.seen_at = now;
        if self.is_over() {
            return;
        }
        self.phase = Phase::Over;
        for socket in std::mem::take(&mut self.sockets) {
            self.actions.push_back(Action::Close(socket));
        }
        self.uncount();
    }

    /// Opens our NAT for packets from `to`, without reaching it.
    pub fn open_session(&mut self, to: SocketAddrV4) {
        self.send(self.main, to, true);
    }

    /// Sends a single packet.
    pub fn ping(&mut self, to: SocketAddrV4) {
        self.send(self.main, to, false);
    }

    /// The socket that samples are of and rounds go over.
    pub fn main_socket(&self) -> SocketNumber {
        self.main
    }

    /// What was seen of that socket.
    pub fn samples(&mut self) -> &mut Samples {
        &mut self.samples
    }

    /// What is known of the other side.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Whether one side's ports must be guessed.
    pub fn is_random(&self) -> bool {
        let (ours, theirs) = self.kinds();
        ours == Kind::Random || theirs == Kind::Random
    }

    /// Whether this node may start a random punch now.
    pub fn may_start_random(&self, now: Time) -> bool {
        self.randoms.may_start(now)
    }

    /// Whether both sides' ports would have to be guessed.
    pub fn is_hopeless(&self) -> bool {
        self.kinds() == (Kind::Random, Kind::Random)
    }

    /// Whether our NAT is known. With `may_reopen`, other sockets are tried if it is not, or if both sides are random:
    /// mobile networks have several NATs.
    pub fn analyze(&mut self, may_reopen: bool) -> Analysis {
        if !self.samples.is_settled() {
            return Analysis::Pending;
        }
        if !self.is_hopeless() && self.kinds().0 != Kind::Unknown {
            return Analysis::Stable;
        }
        if !may_reopen || self.reopens_left == 0 || self.phase != Phase::Idle {
            return Analysis::Unstable;
        }
        self.reopens_left -= 1;
        self.reopen();
        Analysis::Pending
    }

    fn kinds(&self) -> (Kind, Kind) {
        let ours = Kind::of(self.samples.firewall());
        (ours, Kind::of(self.remote.firewall))
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. } | Phase::Over)
    }

    fn reopen(&mut self) {
        let old = self.main;
        self.sockets.retain(|socket| *socket != old);
        self.main = self.open();
        self.samples = Samples::new(self.is_firewalled);
        self.actions.push_back(Action::Sample(self.main));
        self.actions.push_back(Action::Close(old));
    }

    fn open(&mut self) -> SocketNumber {
        let socket = SocketNumber(self.opened);
        self.opened += 1;
        self.sockets.push(socket);
        self.actions.push_back(Action::Open(socket));
        socket
    }

    fn open_birthday_sockets(&mut self, to: SocketAddrV4) {
        while self.sockets.len() < BIRTHDAY_SOCKETS {
            let socket = self.open();
            self.send(socket, to, true);
        }
    }

    fn connect(&mut self, now: Time, socket: SocketNumber, to: SocketAddrV4) {
        self.phase = Phase::Connected { socket, to };
        for other in std::mem::take(&mut self.sockets) {
            if other != socket {
                self.actions.push_back(Action::Close(other));
            }
        }
        self.seen_at = now;
        self.uncount();
    }

    fn uncount(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            self.randoms.end(self.seen_at);
        }
    }

    fn turn(&mut self, now: Time) {
        self.phase = match self.phase {
            Phase::Consistent { tries, .. } if tries < CONSISTENT_TRIES => {
                self.send_to_all(tries + 1);
                Phase::Consistent {
                    tries: tries + 1,
                    at: now + CONSISTENT_INTERVAL,
                }
            }
            Phase::Guessing { host, left, .. } if left > 0 => {
                let to = SocketAddrV4::new(host, self.random_port());
                self.send(self.main, to, false);
                Phase::Guessing {
                    host,
                    left: left - 1,
                    at: now + RANDOM_INTERVAL,
                }
            }
            Phase::Cycling {
                to,
                next,
                low_ttl_rounds,
                left,
                ..
            } if left > 0 => {
                let is_round = next >= self.sockets.len();
                let low_ttl_rounds = low_ttl_rounds - u32::from(is_round && low_ttl_rounds > 0);
                let next = if is_round { 0 } else { next };
                if let Some(socket) = self.sockets.get(next).copied() {
                    self.send(socket, to, low_ttl_rounds > 0);
                }
                Phase::Cycling {
                    to,
                    next: next + 1,
                    low_ttl_rounds,
                    left: left - 1,
                    at: now + RANDOM_INTERVAL,
                }
            }
            _ => return self.end(now),
        };
    }

    fn send_to_all(&mut self, tries: u32) {
        let addresses = self.remote.addresses.clone();
        for (to, is_verified) in addresses {
            if is_verified || tries.is_multiple_of(UNVERIFIED_EVERY) {
                self.send(self.main, to, false);
            }
        }
    }

    fn send(&mut self, socket: SocketNumber, to: SocketAddrV4, low_ttl: bool) {
        if to.port() == 0 {
            return;
        }
        self.actions.push_back(Action::Send {
            socket,
            to,
            low_ttl,
        });
    }

    /// Splitmix64: ports need not be unpredictable, only spread.
    fn random_port(&mut self) -> u16 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let range = u64::from(u16::MAX - PORT_MIN) + 1;
        let offset = (mixed ^ (mixed >> 31)) % range;
        PORT_MIN + u16::try_from(offset).unwrap_or_default()
    }
}

impl Drop for Puncher {
    fn drop(&mut self) {
        self.uncount();
    }
}
