//! The server's answers to rounds of holepunching.
//! Knows what is answered when (`hyperdht/lib/server.js` 6.34). Does not know how rounds travel: they come with a
//! ticket, by which the answer finds its way back.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use ferrocore_primitives::time::Time;

use super::puncher::{Action, Analysis, Kind, Puncher, SocketNumber};
use crate::hyperdht::connect::HolepunchPayload;
use crate::hyperdht::handshake::UNUSED_MAX;
use crate::hyperdht::noise::{ConnectError, Firewall};
use crate::hyperdht::seal::Sealing;

/// Rounds that wait for our NAT to be found out; more are dropped, as clients repeat them.
pub const WAITING_MAX: usize = 4;

/// A round as it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// Chosen by the owner, and handed back with the answer.
    pub ticket: u64,
    /// Where the relay sees the client.
    pub client: SocketAddrV4,
    /// Whether the relay is one that we announced ourselves to.
    pub is_our_relay: bool,
    /// If it came in by the punching socket: where the relay sees that, and the relay.
    pub sample: Option<(SocketAddrV4, SocketAddrV4)>,
    /// The client's payload, sealed.
    pub payload: Vec<u8>,
}

/// What the owner is to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Something of the puncher's.
    Punch(Action),
    /// Answer the round of that ticket.
    Answer {
        /// The round's.
        ticket: u64,
        /// From here; from the server's own socket if there is none any more.
        socket: Option<SocketNumber>,
        /// Our payload, sealed.
        payload: Vec<u8>,
    },
}

/// The server's side of holepunching.
///
/// Inputs: `handle_*`. Output: [`poll_step`](Self::poll_step) until it returns `None`, then
/// [`has_failed`](Self::has_failed) and [`poll_timeout`](Self::poll_timeout). The connection itself shows by the
/// client's first UDX packet, at whichever socket it arrives.
#[derive(Debug)]
pub struct ServerPunch {
    sealing: Sealing,
    puncher: Puncher,
    /// Whether a blind relay holds the connection meanwhile.
    has_relay: bool,
    /// Whether a round of the client's came.
    is_heard: bool,
    round: u64,
    waiting: VecDeque<(Round, HolepunchPayload)>,
    /// Until when the client must have asked for punching.
    deadline: Option<Time>,
    steps: VecDeque<Step>,
}

impl ServerPunch {
    /// Waits for the client's first round. `puncher` is new.
    pub fn new(now: Time, sealing: Sealing, puncher: Puncher) -> Self {
        Self {
            sealing,
            puncher,
            has_relay: false,
            is_heard: false,
            round: 0,
            waiting: VecDeque::new(),
            deadline: Some(now + UNUSED_MAX),
            steps: VecDeque::new(),
        }
    }

    /// The socket that the answer to the handshake leaves from, so that the relay sees its address.
    pub fn socket(&self) -> SocketNumber {
        self.puncher.main_socket()
    }

    /// A round came in. Those that the client did not seal are ignored.
    pub fn handle_round(&mut self, now: Time, round: Round) {
        let Some(payload) = self.sealing.open(&round.payload) else {
            return;
        };
        self.is_heard = true;
        if payload.error != ConnectError::NONE {
            self.round = self.round.max(payload.round);
            return self.abort(now, &round, ConnectError::ABORTED);
        }
        if let Some((seen, node)) = round.sample {
            let socket = self.puncher.main_socket();
            self.puncher.handle_sample(socket, seen, node);
        }
        if payload.round >= self.round {
            self.round = payload.round;
            let token = self.sealing.token(*round.client.ip());
            let is_proven = round.is_our_relay && payload.remote_token == Some(token);
            self.puncher.update_remote(
                payload.firewall,
                payload.punching,
                payload.addresses.as_deref().unwrap_or_default(),
                is_proven.then_some(*round.client.ip()),
            );
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((round, payload));
        }
        self.serve(now);
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
        self.serve(now);
    }

    /// As [`Puncher::handle_sampled`].
    pub fn handle_sampled(&mut self, now: Time, socket: SocketNumber) {
        self.puncher.handle_sampled(socket);
        self.serve(now);
    }

    /// As [`Puncher::handle_packet`].
    pub fn handle_packet(&mut self, now: Time, socket: SocketNumber, from: SocketAddrV4) {
        self.puncher.handle_packet(now, socket, from);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.end(now);
        }
        self.puncher.handle_timeout(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let punching = self.puncher.poll_timeout();
        [self.deadline, punching].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.take_actions();
        self.steps.pop_front()
    }

    /// Whether a round came that the client had sealed.
    pub fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Whether nothing will come of it any more.
    pub fn has_failed(&self) -> bool {
        self.puncher.has_failed()
    }

    /// Our NAT as far as it is known, and the client's as it says.
    pub fn firewalls(&mut self) -> (Firewall, Firewall) {
        let ours = self.puncher.samples().firewall();
        (ours, self.puncher.remote().firewall)
    }

    /// The two sides have met at a blind relay: the client has as long as that connection lasts.
    pub fn handle_relayed(&mut self) {
        self.has_relay = true;
        self.deadline = None;
    }

    /// Ends it: the client is here, or nobody waits for it.
    pub fn end(&mut self, now: Time) {
        self.deadline = None;
        self.waiting.clear();
        self.puncher.end(now);
    }

    /// Answers the rounds that waited, as far as our NAT is known.
    fn serve(&mut self, now: Time) {
        while let Some((round, payload)) = self.waiting.pop_front() {
            // A client that punches is believed to know that it can; another is worth fresh sockets.
            let is_asked = self.puncher.remote().is_punching;
            match self.puncher.analyze(!is_asked) {
                Analysis::Pending => {
                    self.waiting.push_front((round, payload));
                    return;
                }
                Analysis::Unstable if !is_asked => {
                    return self.abort(now, &round, ConnectError::ABORTED);
                }
                Analysis::Stable | Analysis::Unstable => self.answer(now, &round, &payload),
            }
        }
    }

    fn answer(&mut self, now: Time, round: &Round, payload: &HolepunchPayload) {
        self.fast_open(round, payload);
        let mut error = ConnectError::NONE;
        if self.puncher.remote().is_punching {
            self.deadline = None;
            if self.is_too_early(now) {
                if !self.has_relay {
                    return self.abort(now, round, ConnectError::TRY_LATER);
                }
                error = ConnectError::TRY_LATER;
            } else if !self.puncher.punch(now) {
                return self.abort(now, round, ConnectError::ABORTED);
            }
        }
        let is_punching = self.puncher.is_punching();
        let samples = self.puncher.samples();
        // The client decides by what it is told.
        if samples.firewall() != Firewall::UNKNOWN {
            samples.freeze();
        }
        let token = self.sealing.token(*round.client.ip());
        let answer = HolepunchPayload {
            error,
            firewall: samples.firewall(),
            round: self.round,
            connected: false,
            punching: is_punching,
            addresses: samples.addresses(),
            remote_address: None,
            token: round.is_our_relay.then_some(token),
            remote_token: payload.token,
        };
        self.send(round.ticket, Some(self.puncher.main_socket()), &answer);
    }

    /// The client has opened its NAT for us, and ours has one address: a packet may get through right now.
    fn fast_open(&mut self, round: &Round, payload: &HolepunchPayload) {
        let samples = self.puncher.samples();
        let is_ours = |address: &SocketAddrV4| {
            let ours = samples.addresses().unwrap_or_default();
            ours.contains(address)
        };
        let opened = payload.remote_address.as_ref().is_some_and(is_ours);
        if opened && Kind::of(samples.firewall()) == Kind::Consistent {
            self.puncher.ping(round.client);
        }
    }

    fn is_too_early(&self, now: Time) -> bool {
        !self.puncher.is_punching()
            && self.puncher.is_random()
            && !self.puncher.may_start_random(now)
    }

    fn abort(&mut self, now: Time, round: &Round, error: ConnectError) {
        let payload = HolepunchPayload::error(error, self.round);
        self.end(now);
        self.send(round.ticket, None, &payload);
    }

    fn send(&mut self, ticket: u64, socket: Option<SocketNumber>, payload: &HolepunchPayload) {
        self.take_actions();
        let payload = self.sealing.seal(payload);
        self.steps.push_back(Step::Answer {
            ticket,
            socket,
            payload,
        });
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.puncher.poll_action() {
            self.steps.push_back(Step::Punch(action));
        }
    }
}
