//! Two peers behind simulated NATs on virtual time: each pair of kinds connects, or fails with the error that says why.
//!
//! A NAT here gives an inner socket one port (consistent) or one for every destination (random), and lets in only what
//! comes from where something was sent to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::connect::Holepunch;
use ferrocore_dht::hyperdht::noise::{ConnectError, Firewall, RelayInfo};
use ferrocore_dht::hyperdht::punch::client::{self, ClientPunch, PunchError, Start};
use ferrocore_dht::hyperdht::punch::puncher::{
    Action, BIRTHDAY_SOCKETS, Puncher, RANDOM_PUNCH_INTERVAL, RandomPunches, SocketNumber,
};
use ferrocore_dht::hyperdht::punch::samples::SAMPLES;
use ferrocore_dht::hyperdht::punch::server::{self, Round, ServerPunch};
use ferrocore_dht::hyperdht::router::{Known, Next, Return, read_holepunch_reply, route_holepunch};
use ferrocore_dht::hyperdht::seal::Sealing;
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::time::Time;
use proptest::prelude::*;

const LATENCY: Duration = Duration::from_millis(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// The server's socket that was announced.
const ANNOUNCED: SocketNumber = SocketNumber(u32::MAX);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Open,
    Consistent,
    Random,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Side {
    Client,
    Server,
}

/// A host and the NAT in front of it.
struct Nat {
    kind: Kind,
    host: Ipv4Addr,
    ports: HashMap<(SocketNumber, Option<SocketAddrV4>), u16>,
    inner: HashMap<u16, SocketNumber>,
    opened: HashSet<(u16, SocketAddrV4)>,
    random: u64,
}

impl Nat {
    fn new(kind: Kind, host: [u8; 4], seed: u64) -> Self {
        Self {
            kind,
            host: host.into(),
            ports: HashMap::new(),
            inner: HashMap::new(),
            opened: HashSet::new(),
            random: seed | 1,
        }
    }

    fn outbound(&mut self, socket: SocketNumber, to: SocketAddrV4) -> SocketAddrV4 {
        let destination = (self.kind == Kind::Random).then_some(to);
        let port = match self.ports.get(&(socket, destination)) {
            Some(port) => *port,
            None => self.free_port(),
        };
        self.ports.insert((socket, destination), port);
        self.inner.insert(port, socket);
        self.opened.insert((port, to));
        SocketAddrV4::new(self.host, port)
    }

    fn inbound(&self, port: u16, from: SocketAddrV4) -> Option<SocketNumber> {
        let is_in = self.kind == Kind::Open || self.opened.contains(&(port, from));
        self.inner.get(&port).copied().filter(|_| is_in)
    }

    fn free_port(&mut self) -> u16 {
        loop {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let port = 1024 + (self.random % 64_000) as u16;
            if !self.inner.contains_key(&port) {
                return port;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Body {
    Punch,
    Ping,
    Pong(SocketAddrV4),
    Request(u16, Holepunch),
    Reply(u16, Holepunch, SocketAddrV4),
    Stream,
}

#[derive(Debug)]
struct Packet {
    from: SocketAddrV4,
    to: SocketAddrV4,
    body: Body,
}

/// What happens at a time.
#[derive(Debug)]
enum Event {
    Arrival(Packet),
    RequestTimeout(u16),
}

struct World {
    now: Time,
    events: BinaryHeap<Reverse<(Time, usize)>>,
    scheduled: Vec<Option<Event>>,
    nats: HashMap<Side, Nat>,
    relays: Vec<SocketAddrV4>,
    samplers: Vec<SocketAddrV4>,
    client: ClientPunch,
    server: ServerPunch,
    /// Where the server announced itself, as each relay sees it.
    announced: SocketAddrV4,
    rounds: HashMap<u64, (u16, Return)>,
    request: Option<(u16, SocketAddrV4)>,
    next_tid: u16,
    punches_sent: usize,
    sockets_open: HashMap<Side, HashSet<SocketNumber>>,
    sockets_most: usize,
    stream_arrived: bool,
}

#[derive(Clone)]
struct Setting {
    client: Kind,
    server: Kind,
    relays: usize,
    samplers: u8,
    has_relay: bool,
    fast_open: bool,
    seed: u64,
    randoms: [RandomPunches; 2],
}

fn setting(client: Kind, server: Kind) -> Setting {
    Setting {
        client,
        server,
        relays: 1,
        samplers: 6,
        has_relay: false,
        fast_open: true,
        seed: 7,
        randoms: [RandomPunches::new(), RandomPunches::new()],
    }
}

impl World {
    fn new(now: Time, setting: &Setting) -> Self {
        let at = |a: u8, b: u8| SocketAddrV4::new(Ipv4Addr::new(a, 0, 0, b), 49_737);
        let relays: Vec<_> = (1..=setting.relays as u8).map(|i| at(50, i)).collect();
        let mut client_nat = Nat::new(setting.client, [60, 0, 0, 1], setting.seed);
        let mut server_nat = Nat::new(setting.server, [70, 0, 0, 1], setting.seed * 31);
        let sealing = |local| Sealing::new(&[3; 64], [local; 32]);
        let puncher = |is_initiator, kind, randoms: &RandomPunches| {
            let is_firewalled = kind != Kind::Open;
            let randoms = randoms.clone();
            Puncher::new(
                is_initiator,
                is_firewalled,
                Firewall::UNKNOWN,
                randoms,
                setting.seed,
            )
        };
        let server_puncher = puncher(false, setting.server, &setting.randoms[1]);
        let mut server = ServerPunch::new(now, sealing(2), server_puncher);
        if setting.has_relay {
            server.handle_relayed();
        }
        // The server announced itself to its relay, and answered the handshake, which came by the client's relay, from
        // its punching socket.
        let (server_relay, client_relay) = (relays[0], relays[relays.len() - 1]);
        let announced = server_nat.outbound(ANNOUNCED, server_relay);
        server_nat.outbound(ANNOUNCED, client_relay);
        let server_address = server_nat.outbound(server.socket(), client_relay);
        client_nat.outbound(ANNOUNCED, client_relay);
        let start = Start {
            sealing: sealing(1),
            id: 0,
            client_relay,
            server_address,
            server_relay: RelayInfo {
                relay_address: server_relay,
                peer_address: announced,
            },
            has_relay: setting.has_relay,
            fast_open: setting.fast_open,
            seed: setting.seed,
        };
        let client = ClientPunch::new(start, puncher(true, setting.client, &setting.randoms[0]));
        Self {
            now,
            events: BinaryHeap::new(),
            scheduled: Vec::new(),
            nats: HashMap::from([(Side::Client, client_nat), (Side::Server, server_nat)]),
            relays,
            samplers: (1..=setting.samplers).map(|i| at(80, i)).collect(),
            client,
            server,
            announced,
            rounds: HashMap::new(),
            request: None,
            next_tid: 0,
            punches_sent: 0,
            sockets_open: HashMap::new(),
            sockets_most: 0,
            stream_arrived: false,
        }
    }

    /// Runs until the client is connected or has failed, and proves the path with a packet.
    fn run(mut self) -> (Result<(), PunchError>, Self) {
        self.step();
        while self.client.result().is_none() {
            let next = self.events.peek().map(|Reverse((at, _))| *at);
            let timeouts = [self.client.poll_timeout(), self.server.poll_timeout(), next];
            self.now = timeouts
                .into_iter()
                .flatten()
                .min()
                .expect("nobody waits for ever");
            let passed = self.now.saturating_since(Time::ZERO);
            assert!(passed < Duration::from_secs(1000), "it ends");
            while self
                .events
                .peek()
                .is_some_and(|Reverse((at, _))| *at <= self.now)
            {
                let Reverse((_, number)) = self.events.pop().unwrap();
                let event = self.scheduled[number].take().unwrap();
                self.handle(event);
                self.step();
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.step();
        }
        let result = self.client.result().unwrap();
        if let Ok((socket, to)) = result {
            self.send(Side::Client, socket, to, false, Body::Stream);
            while !self.stream_arrived {
                let Reverse((_, number)) = self.events.pop().expect("the path carries a packet");
                let event = self.scheduled[number].take().unwrap();
                if matches!(&event, Event::Arrival(packet) if matches!(packet.body, Body::Stream)) {
                    self.handle(event);
                    assert!(self.stream_arrived, "the path carries a packet");
                }
            }
        }
        self.client.end(self.now);
        self.server.end(self.now);
        self.step();
        (result.map(|_| ()), self)
    }

    fn step(&mut self) {
        while let Some(step) = self.client.poll_step() {
            match step {
                client::Step::Punch(action) => self.act(Side::Client, action),
                client::Step::Request {
                    socket,
                    relay,
                    value,
                } => {
                    self.next_tid += 1;
                    self.request = Some((self.next_tid, relay));
                    let body = Body::Request(self.next_tid, value);
                    self.send(Side::Client, socket, relay, false, body);
                    self.schedule(REQUEST_TIMEOUT, Event::RequestTimeout(self.next_tid));
                }
            }
        }
        while let Some(step) = self.server.poll_step() {
            match step {
                server::Step::Punch(action) => self.act(Side::Server, action),
                server::Step::Answer {
                    ticket,
                    socket,
                    payload,
                } => {
                    let (tid, way) = self.rounds.remove(&ticket).expect("answered once");
                    let (value, relay) = way.holepunch(payload).expect("it came by a relay");
                    let socket = socket.unwrap_or(ANNOUNCED);
                    self.send(
                        Side::Server,
                        socket,
                        relay,
                        false,
                        Body::Request(tid, value),
                    );
                }
            }
        }
    }

    fn act(&mut self, side: Side, action: Action) {
        let open = self.sockets_open.entry(side).or_default();
        match action {
            Action::Open(socket) => {
                assert!(open.insert(socket));
                self.sockets_most = self.sockets_most.max(open.len());
            }
            Action::Close(socket) => assert!(open.remove(&socket)),
            Action::Send {
                socket,
                to,
                low_ttl,
            } => {
                self.punches_sent += 1;
                self.send(side, socket, to, low_ttl, Body::Punch);
            }
            Action::Sample(socket) => {
                for node in self.samplers.clone().into_iter().take(SAMPLES) {
                    self.send(side, socket, node, false, Body::Ping);
                }
                if self.samplers.len() < SAMPLES {
                    match side {
                        Side::Client => self.client.handle_sampled(self.now, socket),
                        Side::Server => self.server.handle_sampled(self.now, socket),
                    }
                }
            }
        }
    }

    fn send(
        &mut self,
        side: Side,
        socket: SocketNumber,
        to: SocketAddrV4,
        low_ttl: bool,
        body: Body,
    ) {
        let from = self.nats.get_mut(&side).unwrap().outbound(socket, to);
        let is_public = self.relays.contains(&to) || self.samplers.contains(&to);
        if is_public || !low_ttl {
            self.schedule(LATENCY, Event::Arrival(Packet { from, to, body }));
        }
    }

    fn send_public(&mut self, from: SocketAddrV4, to: SocketAddrV4, body: Body) {
        self.schedule(LATENCY, Event::Arrival(Packet { from, to, body }));
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.events
            .push(Reverse((self.now + after, self.scheduled.len())));
        self.scheduled.push(Some(event));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::RequestTimeout(tid) => {
                if self.request.is_some_and(|(waiting, _)| waiting == tid) {
                    self.request = None;
                    self.client.handle_failed_request(self.now);
                }
            }
            Event::Arrival(packet) if self.samplers.contains(&packet.to) => {
                self.send_public(packet.to, packet.from, Body::Pong(packet.from));
            }
            Event::Arrival(packet) if self.relays.contains(&packet.to) => self.relay(packet),
            Event::Arrival(packet) => self.arrive(packet),
        }
    }

    fn relay(&mut self, packet: Packet) {
        let Body::Request(tid, value) = packet.body else {
            return;
        };
        let known = Known::Relay(self.announced);
        match route_holepunch(&value.to_vec(), packet.from, known) {
            Next::Relay { to, value } => {
                self.send_public(packet.to, to, Body::Request(tid, value));
            }
            Next::ReplyTo { to, value } => {
                self.send_public(packet.to, to, Body::Reply(tid, value, to));
            }
            other => panic!("{other:?}"),
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let nats = self.nats.iter();
        let mut at = nats.filter(|(_, nat)| nat.host == *packet.to.ip());
        let Some((side, nat)) = at.next() else {
            return;
        };
        let Some(socket) = nat.inbound(packet.to.port(), packet.from) else {
            return;
        };
        match (side, packet.body) {
            (Side::Client, Body::Punch) => {
                self.client.handle_packet(self.now, socket, packet.from);
            }
            (Side::Server, Body::Punch) => {
                self.server.handle_packet(self.now, socket, packet.from);
            }
            (Side::Client, Body::Pong(seen)) => {
                self.client
                    .handle_sample(self.now, socket, seen, packet.from);
            }
            (Side::Server, Body::Pong(seen)) => {
                self.server
                    .handle_sample(self.now, socket, seen, packet.from);
            }
            (Side::Client, Body::Reply(tid, value, seen)) => {
                let Some((waiting, relay)) = self.request else {
                    return;
                };
                let reply = read_holepunch_reply(Some(&value.to_vec()), relay, packet.from);
                if let (Some(reply), true) = (reply, waiting == tid) {
                    self.request = None;
                    self.client.handle_reply(self.now, &reply, relay, seen);
                }
            }
            (Side::Server, Body::Request(tid, value)) => {
                let next = route_holepunch(&value.to_vec(), packet.from, Known::Server);
                let Next::ToServer(message, way) = next else {
                    panic!("{next:?}");
                };
                let ticket = u64::from(tid);
                self.rounds.insert(ticket, (tid, way));
                let round = Round {
                    ticket,
                    client: way.client(packet.from),
                    is_our_relay: self.relays.contains(&packet.from),
                    sample: (socket != ANNOUNCED).then_some((packet.to, packet.from)),
                    payload: message.payload,
                };
                self.server.handle_round(self.now, round);
            }
            (Side::Server, Body::Stream) => self.stream_arrived = true,
            (_, body) => panic!("{body:?}"),
        }
    }
}

fn run(setting: &Setting) -> (Result<(), PunchError>, World) {
    World::new(Time::ZERO, setting).run()
}

#[test]
fn every_pair_of_nats_connects_but_two_random_ones() {
    use Kind::{Consistent, Open, Random};
    for client in [Open, Consistent, Random] {
        for server in [Open, Consistent, Random] {
            for relays in [1, 2] {
                let setting = Setting {
                    relays,
                    ..setting(client, server)
                };
                let (result, world) = run(&setting);
                let expected = match (client, server) {
                    (Random, Random) => Err(PunchError::DoubleRandom),
                    _ => Ok(()),
                };
                assert_eq!(result, expected, "{client:?}, {server:?}, {relays} relays");
                assert!(world.sockets_most <= BIRTHDAY_SOCKETS);
            }
        }
    }
}

#[test]
fn consistent_nats_connect_by_the_fast_open_alone() {
    // Goal: no second round. Method: count packets, and look at the clock.
    let (result, world) = run(&setting(Kind::Consistent, Kind::Consistent));
    assert_eq!(result, Ok(()));
    assert_eq!(world.punches_sent, 2, "one to open, one back");
    assert!(world.now.saturating_since(Time::ZERO) < Duration::from_millis(200));
    let slow = Setting {
        fast_open: false,
        ..setting(Kind::Consistent, Kind::Consistent)
    };
    let (result, world) = run(&slow);
    assert_eq!(result, Ok(()));
    assert!(world.now.saturating_since(Time::ZERO) > Duration::from_millis(200));
}

#[test]
fn all_sockets_but_the_connected_one_are_closed() {
    for (client, server) in [
        (Kind::Consistent, Kind::Consistent),
        (Kind::Random, Kind::Consistent),
        (Kind::Consistent, Kind::Random),
        (Kind::Random, Kind::Random),
    ] {
        let (result, world) = run(&setting(client, server));
        let open = |side| world.sockets_open.get(&side).map_or(0, HashSet::len);
        assert_eq!(open(Side::Client), usize::from(result.is_ok()));
        assert_eq!(open(Side::Server), 0);
    }
}

#[test]
fn without_nodes_to_ask_the_nat_stays_unknown_and_fresh_sockets_are_tried() {
    let blind = Setting {
        samplers: 0,
        fast_open: false,
        ..setting(Kind::Consistent, Kind::Consistent)
    };
    let (result, _) = run(&blind);
    assert_eq!(
        result,
        Err(PunchError::RemoteAborted(ConnectError::ABORTED)),
        "the server cannot make its own out"
    );
}

#[test]
fn a_second_random_punch_has_to_wait_and_a_relay_gives_it_the_time() {
    let first = setting(Kind::Random, Kind::Consistent);
    let (result, world) = run(&first);
    assert_eq!(result, Ok(()));
    let later = |has_relay, busy: [bool; 2]| Setting {
        has_relay,
        randoms: [0, 1].map(|side| match busy[side] {
            true => first.randoms[side].clone(),
            false => RandomPunches::new(),
        }),
        ..setting(Kind::Random, Kind::Consistent)
    };
    let now = world.now;
    let again = |setting: &Setting| World::new(now, setting).run();
    let (result, _) = again(&later(false, [true, false]));
    assert_eq!(result, Err(PunchError::TooManyPunches), "our own limit");
    let (result, _) = again(&later(false, [false, true]));
    let refused = PunchError::RemoteAborted(ConnectError::TRY_LATER);
    assert_eq!(result, Err(refused), "the server's");
    for busy in [[true, false], [false, true]] {
        let (result, world) = again(&later(true, busy));
        assert_eq!(result, Ok(()));
        let waited = world.now.saturating_since(now);
        assert!(waited >= Duration::from_secs(10), "{waited:?}");
        assert!(waited < RANDOM_PUNCH_INTERVAL * 4, "{waited:?}");
    }
}

#[test]
fn a_dead_relay_ends_it() {
    let mut world = World::new(Time::ZERO, &setting(Kind::Consistent, Kind::Consistent));
    world.nats.get_mut(&Side::Server).unwrap().opened.clear();
    let (result, _) = world.run();
    assert_eq!(result, Err(PunchError::RelayTimeout));
}

#[test]
fn replayed_and_foreign_rounds_change_nothing() {
    let sealing = |local| Sealing::new(&[3; 64], [local; 32]);
    let randoms = RandomPunches::new();
    let puncher = Puncher::new(false, true, Firewall::UNKNOWN, randoms, 1);
    let mut server = ServerPunch::new(Time::ZERO, sealing(1), puncher);
    while server.poll_step().is_some() {}
    for payload in [
        vec![],
        vec![7; 200],
        Sealing::new(&[4; 64], [1; 32]).seal(&error()),
    ] {
        server.handle_round(Time::ZERO, round(payload));
        assert_eq!(server.poll_step(), None);
    }
    let hello = sealing(9).seal(&error_free());
    for _ in 0..100 {
        server.handle_round(Time::ZERO, round(hello.clone()));
        assert_eq!(server.poll_step(), None, "it waits for samples");
    }
    server.handle_sampled(Time::ZERO, server.socket());
    let mut answers = 0;
    for _ in 0..1000 {
        match server.poll_step() {
            Some(server::Step::Answer { .. }) => answers += 1,
            Some(server::Step::Punch(Action::Sample(socket))) => {
                server.handle_sampled(Time::ZERO, socket);
            }
            Some(_) => {}
            None => break,
        }
    }
    assert!((1..=server::WAITING_MAX).contains(&answers));
}

fn error() -> ferrocore_dht::hyperdht::connect::HolepunchPayload {
    ferrocore_dht::hyperdht::connect::HolepunchPayload::error(ConnectError::ABORTED, 0)
}

fn error_free() -> ferrocore_dht::hyperdht::connect::HolepunchPayload {
    ferrocore_dht::hyperdht::connect::HolepunchPayload::error(ConnectError::NONE, 0)
}

fn round(payload: Vec<u8>) -> Round {
    Round {
        ticket: 0,
        client: "1.2.3.4:5".parse().unwrap(),
        is_our_relay: true,
        sample: None,
        payload,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pairs_connect_whatever_ports_the_nats_choose(seed in 1_u64.., relays in 1_usize..3) {
        for (client, server) in [
            (Kind::Consistent, Kind::Consistent),
            (Kind::Consistent, Kind::Open),
            (Kind::Open, Kind::Consistent),
        ] {
            let setting = Setting { relays, seed: seed >> 8, ..setting(client, server) };
            prop_assert_eq!(run(&setting).0, Ok(()));
        }
    }
}
