//! Both sides of holepunching, driven: their state machines with sockets, requests and the clock.
//! Knows the order of calls. Does not know what a round says.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddrV4;

use ferrocore_dht::hyperdht::PEER_HOLEPUNCH;
use ferrocore_dht::hyperdht::connect::Holepunch;
use ferrocore_dht::hyperdht::noise::Firewall;
use ferrocore_dht::hyperdht::punch::client::{self, ClientPunch, PunchError, Start};
use ferrocore_dht::hyperdht::punch::puncher::Puncher;
use ferrocore_dht::hyperdht::punch::server::{self, Round, ServerPunch};
use ferrocore_dht::hyperdht::router::{Return, read_holepunch_reply};
use ferrocore_dht::hyperdht::seal::Sealing;
use ferrocore_dht::id::Id;
use ferrocore_dht::rpc::{Incoming, Outgoing, Response, Socket};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::random;
use ferrocore_primitives::time::Time;
use ferrocore_udx::socket::UdxSocket;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep_until;

use super::net::{Extra, Net, WeakNet};
use super::sockets::{Input, Sockets};

/// A round for a server's connection, as it came in.
#[derive(Debug)]
pub(super) struct RoundIn {
    pub(super) incoming: Incoming,
    pub(super) message: Holepunch,
    pub(super) way: Return,
    pub(super) is_our_relay: bool,
}

/// Punches to a server; returns the socket and the address that carry. The socket is to be kept as long as its stream.
pub(super) async fn punch_to_server(
    net: &Net,
    target: Id,
    start: Start,
    remote: Firewall,
) -> Result<(Extra, SocketAddrV4), PunchError> {
    let (mut sockets, mut inputs) = Sockets::new(net);
    let mut punch = ClientPunch::new(start, puncher(net, true, remote));
    let mut asked = None;
    loop {
        while let Some(step) = punch.poll_step() {
            match step {
                client::Step::Punch(action) => sockets.act(action),
                client::Step::Request {
                    socket,
                    relay,
                    value,
                } => {
                    asked = Some(relay);
                    let outgoing = Outgoing {
                        target: Some(target),
                        value: Some(value.to_vec()),
                        ..Outgoing::new(relay, PEER_HOLEPUNCH)
                    };
                    sockets.ask(socket, outgoing);
                }
            }
        }
        if let Some(result) = punch.result() {
            let (number, to) = result?;
            let socket = sockets.take(number);
            let socket = socket.ok_or(PunchError::NothingCameThrough)?;
            return Ok((socket, to));
        }
        let timeout = punch.poll_timeout();
        tokio::select! {
            Some(input) = inputs.recv() => handle_client_input(net, &mut punch, input, asked),
            () = until(net, timeout) => punch.handle_timeout(net.now()),
        }
    }
}

fn handle_client_input(
    net: &Net,
    punch: &mut ClientPunch,
    input: Input,
    asked: Option<SocketAddrV4>,
) {
    let now = net.now();
    match input {
        Input::Packet(socket, from) => punch.handle_packet(now, socket, from),
        Input::Sample(socket, node) => punch.handle_sample(now, socket, node.to, node.from),
        Input::Sampled(socket) => punch.handle_sampled(now, socket),
        Input::Round(answer) => {
            let read = |response: &Response| {
                let relay = asked?;
                let reply = read_holepunch_reply(response.value.as_deref(), relay, response.from)?;
                Some((reply, relay, response.to))
            };
            match answer.as_deref().and_then(read) {
                Some((reply, relay, seen)) => punch.handle_reply(now, &reply, relay, seen),
                None => punch.handle_failed_request(now),
            }
        }
    }
}

/// A server's side of one punch. Its first socket is open as soon as it exists, for the answer to the handshake leaves from there,
/// unless many punches have begun: then it waits for the client's first round. Beside a relay it may wait as long as the
/// connection lasts, and does nothing any more once the node is gone.
#[derive(Debug)]
pub(super) struct ServerPunching {
    net: WeakNet,
    punch: ServerPunch,
    sockets: Sockets,
    inputs: mpsc::Receiver<Input>,
    answers: HashMap<u64, (Incoming, Return)>,
    tickets: u64,
    /// Nothing is done before there is.
    room: Option<OwnedSemaphorePermit>,
}

impl ServerPunching {
    pub(super) fn new(net: &Net, sealing: Sealing, remote: Firewall) -> Self {
        let (sockets, inputs) = Sockets::new(net);
        let mut punching = Self {
            net: net.downgrade(),
            punch: ServerPunch::new(net.now(), sealing, puncher(net, false, remote)),
            sockets,
            inputs,
            answers: HashMap::new(),
            tickets: 0,
            room: net.room_to_punch(false),
        };
        punching.step();
        punching
    }

    /// Where the answer to the handshake leaves from.
    pub(super) fn socket(&self) -> Option<Socket> {
        self.sockets.tag(self.punch.socket())
    }

    /// The socket at this local address, if it is one of these.
    pub(super) fn socket_at(&self, local: std::net::SocketAddr) -> Option<(Socket, UdxSocket)> {
        self.sockets.at(local)
    }

    /// Hands that socket out, for a stream.
    pub(super) fn take_at(&mut self, local: std::net::SocketAddr) -> Option<Extra> {
        self.sockets.take_at(local)
    }

    pub(super) fn handle_relayed(&mut self) {
        self.punch.handle_relayed();
    }

    pub(super) fn handle_round(&mut self, round: RoundIn) {
        let RoundIn {
            incoming,
            message,
            way,
            is_our_relay,
        } = round;
        let Some(net) = self.net.upgrade() else {
            return;
        };
        let from = incoming.from;
        let is_main = self.sockets.number(incoming.socket) == Some(self.punch.socket());
        let ticket = self.tickets;
        self.tickets += 1;
        let round = Round {
            ticket,
            client: way.client(from),
            is_our_relay,
            sample: is_main.then_some((incoming.to, from)),
            payload: message.payload,
        };
        self.answers.insert(ticket, (incoming, way));
        self.punch.handle_round(net.now(), round);
        if self.room.is_none() && self.punch.is_heard() {
            self.room = net.room_to_punch(true);
        }
        self.step();
    }

    /// Goes on until something has happened; to be called again, unless it has failed.
    pub(super) async fn turn(&mut self) {
        let timeout = self.punch.poll_timeout();
        let timeout = self.net.upgrade().zip(timeout);
        let timeout = timeout.map(|(net, time)| net.instant(time));
        let is_due = async {
            match timeout {
                Some(instant) => sleep_until(instant).await,
                None => pending().await,
            }
        };
        let input = tokio::select! {
            Some(input) = self.inputs.recv() => Some(input),
            () = is_due => None,
        };
        let Some(net) = self.net.upgrade() else {
            return;
        };
        match input {
            Some(input) => self.handle_input(net.now(), input),
            None => self.punch.handle_timeout(net.now()),
        }
        self.step();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.punch.has_failed()
    }

    fn handle_input(&mut self, now: Time, input: Input) {
        match input {
            Input::Packet(socket, from) => self.punch.handle_packet(now, socket, from),
            Input::Sample(socket, node) => {
                self.punch.handle_sample(now, socket, node.to, node.from);
            }
            Input::Sampled(socket) => self.punch.handle_sampled(now, socket),
            Input::Round(_) => {}
        }
    }

    fn step(&mut self) {
        if self.room.is_none() {
            return;
        }
        while let Some(step) = self.punch.poll_step() {
            match step {
                server::Step::Punch(action) => self.sockets.act(action),
                server::Step::Answer {
                    ticket,
                    socket,
                    payload,
                } => self.answer(
                    ticket,
                    socket.and_then(|number| self.sockets.tag(number)),
                    payload,
                ),
            }
        }
        // Rounds that the punch has dropped are not answered.
        let oldest = self.tickets.saturating_sub(2 * server::WAITING_MAX as u64);
        self.answers.retain(|ticket, _| *ticket >= oldest);
    }

    fn answer(&mut self, ticket: u64, socket: Option<Socket>, payload: Vec<u8>) {
        let Some((incoming, way)) = self.answers.remove(&ticket) else {
            return;
        };
        if let Some((value, relay)) = way.holepunch(payload)
            && let Some(net) = self.net.upgrade()
        {
            let socket = socket.unwrap_or(Socket::Server);
            net.relay(incoming, value.to_vec(), relay, Some(socket));
        }
    }
}

fn puncher(net: &Net, is_initiator: bool, remote: Firewall) -> Puncher {
    Puncher::new(
        is_initiator,
        net.is_firewalled(),
        remote,
        net.randoms(),
        random::u64(),
    )
}

/// Waits until `time`, or for ever.
pub(super) async fn until(net: &Net, time: Option<Time>) {
    match time {
        Some(time) => sleep_until(net.instant(time)).await,
        None => pending().await,
    }
}
