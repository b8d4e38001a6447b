//! The client's rounds: it asks, and decides when both sides punch.
//! Knows what is said when (`hyperdht/lib/connect.js` 6.34). Does not know how rounds travel: they are requests that
//! its owner makes.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::puncher::{Action, Analysis, Kind, Puncher, SocketNumber};
use crate::hyperdht::connect::{Holepunch, HolepunchPayload, Mode};
use crate::hyperdht::noise::{ConnectError, Firewall, RelayInfo};
use crate::hyperdht::router::HolepunchReply;
use crate::hyperdht::seal::Sealing;
use crate::message::Token;

/// Rounds of one connection, however often the server asks to try later.
pub const ROUNDS_MAX: u64 = 32;

/// How long a server that does not know its NAT yet is given to find out.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);

/// How long is waited, at least and at most, before a punch that was put off is tried again.
const LATER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Why no connection came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PunchError {
    /// The relay did not answer. Another dial may find another one.
    #[error("the relay did not pass the rounds of holepunching on")]
    RelayTimeout,
    /// What came back was not sealed by the server.
    #[error("the server's round of holepunching does not open")]
    Invalid,
    /// One of the two NATs could not be made out: too few nodes answered. Try again later.
    #[error("the NATs could not be told in time")]
    ProbeTimeout,
    /// Both NATs give every connection another port. Only a relay helps.
    #[error("both peers are behind NATs with random ports")]
    DoubleRandom,
    /// This node punches random ports already, or has just done so, and no relay holds the connection. Try again in
    /// 20 seconds.
    #[error("too many punches of random ports at a time")]
    TooManyPunches,
    /// The server gave up, with this error.
    #[error("the server gave up with error {}", .0.0)]
    RemoteAborted(ConnectError),
    /// The server does not punch though asked to.
    #[error("the server does not punch")]
    RemoteNotPunching,
    /// The server has named no address that could be punched to.
    #[error("the server named no address to punch to")]
    RemoteNotPunchable,
    /// All packets were sent and none came back: a firewall drops them.
    #[error("no packet of the other peer came through")]
    NothingCameThrough,
}

/// What the owner is to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Something of the puncher's.
    Punch(Action),
    /// A request of [`PEER_HOLEPUNCH`](crate::hyperdht::PEER_HOLEPUNCH) to `relay`, with this value, from that socket.
    Request {
        /// From here.
        socket: SocketNumber,
        /// To there.
        relay: SocketAddrV4,
        /// The value.
        value: Holepunch,
    },
}

/// What the client knows when punching begins.
#[derive(Debug)]
pub struct Start {
    /// Seals the rounds.
    pub sealing: Sealing,
    /// The server's number for the connection.
    pub id: u64,
    /// The node that passed the handshake on.
    pub client_relay: SocketAddrV4,
    /// Where it sees the server.
    pub server_address: SocketAddrV4,
    /// The relay of the server that the first rounds go through.
    pub server_relay: RelayInfo,
    /// Whether a blind relay holds the connection meanwhile, so that there is time.
    pub has_relay: bool,
    /// Whether to open our NAT for the server's answer to the first round.
    pub fast_open: bool,
    /// Any number.
    pub seed: u64,
}

/// The client's side of holepunching.
///
/// Inputs: `handle_*`. Output: [`poll_step`](Self::poll_step) until it returns `None`, then
/// [`result`](Self::result) and [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct ClientPunch {
    start: Start,
    puncher: Puncher,
    state: State,
    round: u64,
    /// What the server's token was in its last round.
    remote_token: Option<Token>,
    /// Where the relay saw the server in the last round.
    peer_address: SocketAddrV4,
    /// Where, and with which token, the round under way looked for the server.
    asked: (SocketAddrV4, Option<Token>),
    /// Whether rounds go through the server's relay because the punch was put off.
    is_delayed: bool,
    steps: VecDeque<Step>,
    error: Option<PunchError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A round without punching is under way.
    Probing {
        may_retry: bool,
    },
    /// The server does not know its NAT yet.
    Pausing {
        may_retry: bool,
        until: Time,
    },
    /// Our own NAT is being found out.
    Analyzing {
        may_retry: bool,
        reopened: bool,
    },
    /// The server is being told that we will punch later.
    Telling,
    /// Later.
    Waiting {
        until: Time,
    },
    /// The round in which both sides say that they punch is under way.
    Asking,
    /// The puncher is at work.
    Punching,
    Over,
}

impl ClientPunch {
    /// Begins with the first round. `puncher` is new.
    pub fn new(start: Start, puncher: Puncher) -> Self {
        let mut punch = Self {
            peer_address: start.server_address,
            asked: (start.server_address, None),
            start,
            puncher,
            state: State::Over,
            round: 0,
            remote_token: None,
            is_delayed: false,
            steps: VecDeque::new(),
            error: None,
        };
        punch.probe(true);
        punch
    }

    /// The answer to the last request, from `relay`, which sees our socket at `seen`.
    pub fn handle_reply(
        &mut self,
        now: Time,
        reply: &HolepunchReply,
        relay: SocketAddrV4,
        seen: SocketAddrV4,
    ) {
        let Some(payload) = self.start.sealing.open(&reply.payload) else {
            return self.handle_no_reply(now, PunchError::Invalid);
        };
        if payload.error == ConnectError::TRY_LATER
            && self.start.has_relay
            && self.state == State::Asking
        {
            // It has shown our token, which no later round will carry.
            self.note(&payload);
            return self.wait(now);
        }
        if payload.error != ConnectError::NONE {
            return self.fail(now, PunchError::RemoteAborted(payload.error));
        }
        self.note(&payload);
        match self.state {
            State::Probing { may_retry } => {
                let socket = self.puncher.main_socket();
                self.puncher.handle_sample(socket, seen, relay);
                self.peer_address = reply.peer_address;
                self.remote_token = payload.token;
                self.probed(now, may_retry);
            }
            State::Telling => self.wait(now),
            State::Asking => self.answered(now),
            _ => {}
        }
    }

    /// The last request failed: the relay did not answer it, or with nonsense.
    pub fn handle_failed_request(&mut self, now: Time) {
        self.handle_no_reply(now, PunchError::RelayTimeout);
    }

    /// As [`Puncher::handle_sample`].
    pub fn handle_sample(
        &mut self,
        now: Time,
        socket: SocketNumber,
        seen: SocketAddrV4,
        node: SocketAddrV4,
    ) {
        self.puncher.handle_sample(socket, seen, node);
        self.analyze(now);
    }

    /// As [`Puncher::handle_sampled`].
    pub fn handle_sampled(&mut self, now: Time, socket: SocketNumber) {
        self.puncher.handle_sampled(socket);
        self.analyze(now);
    }

    /// As [`Puncher::handle_packet`].
    pub fn handle_packet(&mut self, now: Time, socket: SocketNumber, from: SocketAddrV4) {
        self.puncher.handle_packet(now, socket, from);
        if self.puncher.connected().is_some() {
            self.state = State::Over;
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::Pausing { may_retry, until } if until <= now => {
                self.state = State::Analyzing {
                    may_retry,
                    reopened: false,
                };
                self.analyze(now);
            }
            State::Waiting { until } if until <= now => self.ask(now),
            _ => {}
        }
        self.puncher.handle_timeout(now);
        if self.puncher.has_failed() {
            self.fail(now, PunchError::NothingCameThrough);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Pausing { until, .. } | State::Waiting { until } => Some(until),
            _ => self.puncher.poll_timeout(),
        }
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.take_actions();
        self.steps.pop_front()
    }

    /// How it ended: the socket that the server's packet came in by, and where from.
    pub fn result(&self) -> Option<Result<(SocketNumber, SocketAddrV4), PunchError>> {
        let connected = self.puncher.connected().map(Ok);
        connected.or(self.error.map(Err))
    }

    /// Our NAT as far as it is known, and the server's as it says.
    pub fn firewalls(&mut self) -> (Firewall, Firewall) {
        let ours = self.puncher.samples().firewall();
        (ours, self.puncher.remote().firewall)
    }

    /// Ends it: another way was faster, or nobody waits for it.
    pub fn end(&mut self, now: Time) {
        self.puncher.end(now);
        self.state = State::Over;
    }

    fn handle_no_reply(&mut self, now: Time, error: PunchError) {
        let is_waiting = matches!(
            self.state,
            State::Probing { .. } | State::Telling | State::Asking
        );
        if is_waiting {
            self.fail(now, error);
        }
    }

    fn note(&mut self, payload: &HolepunchPayload) {
        let (place, token) = self.asked;
        let is_proven = token.is_some() && payload.remote_token == token;
        self.puncher.update_remote(
            payload.firewall,
            payload.punching,
            payload.addresses.as_deref().unwrap_or_default(),
            is_proven.then_some(*place.ip()),
        );
    }

    fn probe(&mut self, may_retry: bool) {
        let server = self.start.server_address;
        if self.start.fast_open {
            self.puncher.open_session(server);
        }
        let relay = self.start.server_relay;
        let remote_address = self.start.fast_open.then_some(server);
        self.request(relay, false, remote_address, None);
        self.state = State::Probing { may_retry };
    }

    fn probed(&mut self, now: Time, may_retry: bool) {
        if Kind::of(self.puncher.remote().firewall) == Kind::Unknown {
            let until = now + UNKNOWN_PAUSE;
            self.state = State::Pausing { may_retry, until };
            return;
        }
        self.state = State::Analyzing {
            may_retry,
            reopened: false,
        };
        self.analyze(now);
    }

    fn analyze(&mut self, now: Time) {
        let State::Analyzing {
            may_retry,
            reopened,
        } = self.state
        else {
            return;
        };
        match self.puncher.analyze(true) {
            // Those of the fresh socket settle later.
            Analysis::Pending => {
                let reopened = reopened || self.puncher.main_socket() != SocketNumber(0);
                self.state = State::Analyzing {
                    may_retry,
                    reopened,
                };
            }
            // The server has to hear of the fresh socket.
            Analysis::Stable if reopened => self.probe(false),
            Analysis::Stable | Analysis::Unstable => self.decide(now, may_retry),
        }
    }

    fn decide(&mut self, now: Time, may_retry: bool) {
        let theirs = Kind::of(self.puncher.remote().firewall);
        if may_retry && (theirs == Kind::Unknown || self.remote_token.is_none()) {
            return self.probe(false);
        }
        if theirs == Kind::Unknown || Kind::of(self.puncher.samples().firewall()) == Kind::Unknown {
            return self.abort(now, PunchError::ProbeTimeout);
        }
        if self.puncher.is_hopeless() {
            return self.abort(now, PunchError::DoubleRandom);
        }
        // The server may have taken another socket, and its relay has seen it. Another relay has not.
        let is_same_relay = self.start.server_relay.relay_address == self.start.client_relay;
        if is_same_relay && self.peer_address != self.start.server_address {
            self.start.server_address = self.peer_address;
            self.puncher.open_session(self.peer_address);
        }
        self.ask(now);
    }

    /// Asks for punching, or puts it off.
    fn ask(&mut self, now: Time) {
        self.puncher.samples().freeze();
        let server = self.start.server_address;
        let token = self.start.sealing.token(*server.ip());
        let client_relay = RelayInfo {
            relay_address: self.start.client_relay,
            peer_address: server,
        };
        if self.puncher.is_random() && !self.puncher.may_start_random(now) {
            if !self.start.has_relay {
                return self.fail(now, PunchError::TooManyPunches);
            }
            if std::mem::replace(&mut self.is_delayed, true) {
                return self.wait(now);
            }
            self.request(client_relay, false, None, Some(token));
            self.state = State::Telling;
            return;
        }
        match self.is_delayed {
            true => self.request(self.start.server_relay, true, None, None),
            false => self.request(client_relay, true, None, Some(token)),
        }
        self.state = State::Asking;
    }

    fn answered(&mut self, now: Time) {
        if !self.puncher.remote().is_punching {
            return self.fail(now, PunchError::RemoteNotPunching);
        }
        match self.puncher.punch(now) {
            true => self.state = State::Punching,
            false => self.fail(now, PunchError::RemoteNotPunchable),
        }
    }

    fn wait(&mut self, now: Time) {
        if self.round >= ROUNDS_MAX {
            return self.fail(now, PunchError::TooManyPunches);
        }
        self.is_delayed = true;
        let spread = LATER.1.saturating_sub(LATER.0);
        self.start.seed = self.start.seed.wrapping_mul(0x5851_f42d_4c95_7f2d) + 1;
        let share = f64::from((self.start.seed >> 40) as u32) / f64::from(1_u32 << 24);
        self.state = State::Waiting {
            until: now + LATER.0 + spread.mul_f64(share),
        };
    }

    fn request(
        &mut self,
        through: RelayInfo,
        punching: bool,
        remote_address: Option<SocketAddrV4>,
        token: Option<Token>,
    ) {
        self.take_actions();
        self.asked = (through.peer_address, token);
        let samples = self.puncher.samples();
        let payload = HolepunchPayload {
            error: ConnectError::NONE,
            firewall: samples.firewall(),
            round: self.round,
            connected: false,
            punching,
            addresses: samples.addresses(),
            remote_address,
            token,
            remote_token: self.remote_token.filter(|_| punching || token.is_some()),
        };
        self.send(through, &payload);
    }

    fn send(&mut self, through: RelayInfo, payload: &HolepunchPayload) {
        self.round += 1;
        self.steps.push_back(Step::Request {
            socket: self.puncher.main_socket(),
            relay: through.relay_address,
            value: Holepunch {
                mode: Mode::FROM_CLIENT,
                id: self.start.id,
                payload: self.start.sealing.seal(payload),
                peer_address: Some(through.peer_address),
            },
        });
    }

    /// Tells the server too.
    fn abort(&mut self, now: Time, error: PunchError) {
        let payload = HolepunchPayload::error(ConnectError::ABORTED, self.round);
        self.send(self.start.server_relay, &payload);
        self.fail(now, error);
    }

    fn fail(&mut self, now: Time, error: PunchError) {
        if self.result().is_none() {
            self.error = Some(error);
        }
        self.end(now);
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.puncher.poll_action() {
            self.steps.push_back(Step::Punch(action));
        }
    }
}
