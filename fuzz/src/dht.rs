//! The DHT: datagrams of anyone, what they carry, and a node among strangers who say whatever they want.
//!
//! Holds: what was read is written so that it reads the same; a node answers a request with at most one datagram, asks
//! no more than its window lets it, keeps no more than its bounds, and every query it runs ends.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::announce::{Action, Announce, LookupReply, Peer, Place};
use ferrocore_dht::hyperdht::connect::{Handshake, Holepunch, HolepunchPayload};
use ferrocore_dht::hyperdht::contact::Contact;
use ferrocore_dht::hyperdht::noise::NoisePayload;
use ferrocore_dht::hyperdht::plugin::PluginRequest;
use ferrocore_dht::hyperdht::record::{MutablePut, MutableRecord};
use ferrocore_dht::hyperdht::{ANNOUNCE, IMMUTABLE_PUT, LOOKUP, MUTABLE_PUT};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Command, ErrorCode, Message, Reply, Request, Token};
use ferrocore_dht::node::Node;
use ferrocore_dht::routing_table::NODES_MAX;
use ferrocore_dht::rpc::{Config, Event, Plan, Socket};
use ferrocore_dht::window::WINDOW_MAX;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;

/// One datagram, and the values it may carry.
pub fn messages(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        let written = match &message {
            Message::Request(request) => request.to_vec(),
            Message::Reply(reply) => reply.to_vec(),
        };
        assert_eq!(Message::parse(&written), Ok(message));
    }
    round::<Peer>(data);
    round::<LookupReply>(data);
    round::<Announce>(data);
    round::<MutablePut>(data);
    round::<MutableRecord>(data);
    round::<Handshake>(data);
    round::<Holepunch>(data);
    round::<HolepunchPayload>(data);
    round::<PluginRequest>(data);
    round::<Contact>(data);
}

/// The payload of a handshake.
pub fn noise_payloads(data: &[u8]) {
    if let Ok(payload) = NoisePayload::parse(data) {
        assert_eq!(NoisePayload::parse(&payload.to_vec()), Ok(payload));
    }
}

fn round<T: Decode + Encode + PartialEq + Debug>(data: &[u8]) {
    if let Ok(value) = T::from_slice(data) {
        let written = value.to_vec();
        assert_eq!(written.len(), value.encoded_len());
        assert_eq!(T::from_slice(&written), Ok(value));
    }
}

const OWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(5, 0, 0, 1), 49737);

/// A script: a byte that says what is next, then its operands.
pub fn nodes(data: &[u8]) {
    let now = Time::from_nanos(1);
    let mut config = Config::bootstrapper(OWN);
    config.bootstrap = vec![stranger(1)];
    let mut node = Node::new(now, 0, config, [7; 32]);
    node.rpc_mut().start(now, OWN.port());
    let mut script = Script {
        node,
        now,
        asked: Vec::new(),
        token: None,
        queries: 0,
        requests_sent: 0,
        heard: 0,
        started: now,
    };
    script.take(0);
    let mut rest = data;
    while let [what, behind @ ..] = rest {
        rest = script.step(*what, behind);
    }
    script.fall_silent();
}

struct Script {
    node: Node,
    now: Time,
    /// Whom the node asked, and by which number: the latest.
    asked: Vec<(SocketAddrV4, u16)>,
    token: Option<Token>,
    queries: usize,
    requests_sent: usize,
    /// Requests of others, each of which may be passed on.
    heard: u128,
    started: Time,
}

impl Script {
    fn step<'a>(&mut self, what: u8, behind: &'a [u8]) -> &'a [u8] {
        let (operand, rest) = match behind {
            [operand, rest @ ..] => (*operand, rest),
            [] => (0, behind),
        };
        match what % 8 {
            0 => self.wait(Duration::from_millis(u64::from(operand) * 50)),
            1 => self.search(operand),
            2 => return self.raw(operand, rest),
            3 | 4 => return self.answer(what, operand, rest),
            5 if operand < 8 => {
                self.node.rpc_mut().suspend(self.now);
                self.take(0);
                self.node.rpc_mut().resume(self.now, OWN.port());
                self.take(0);
            }
            _ => return self.ask(what, operand, rest),
        }
        rest
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.node.rpc_mut().handle_timeout(self.now);
        self.take(0);
    }

    fn search(&mut self, operand: u8) {
        let plan = Plan::new(Id::from([operand; 32]), LOOKUP);
        self.queries += usize::from(self.node.rpc_mut().query(self.now, plan).is_ok());
        self.take(0);
    }

    /// The next bytes are a datagram as they are.
    fn raw<'a>(&mut self, len: u8, rest: &'a [u8]) -> &'a [u8] {
        let (datagram, rest) = rest.split_at(usize::from(len).min(rest.len()));
        self.hear(stranger(len), datagram);
        rest
    }

    /// A request of somebody, with what makes it pass the first checks.
    fn ask<'a>(&mut self, what: u8, operand: u8, rest: &'a [u8]) -> &'a [u8] {
        let (value, rest) = rest.split_at((usize::from(operand) % 40).min(rest.len()));
        let from = stranger(operand);
        let keys = KeyPair::from_seed(&[operand; 32]);
        let number = u64::from(what >> 3) % 12;
        let mut request = Request {
            tid: u16::from(operand),
            to: OWN,
            id: (what & 0x80 != 0).then(|| Id::of_node(&from)),
            token: self.token.filter(|_| what & 0x40 != 0),
            command: Command {
                internal: what & 1 == 0,
                number,
            },
            target: (what & 0x20 != 0).then(|| Id::from([operand; 32])),
            value: (!value.is_empty()).then(|| value.to_vec()),
        };
        if let Some(token) = request.token {
            self.sign(&mut request, token, &keys);
        }
        let datagram = request.to_vec();
        self.hear(from, &datagram);
        rest
    }

    /// Makes a write what its node would store.
    fn sign(&self, request: &mut Request, token: Token, keys: &KeyPair) {
        let value = request.value.clone().unwrap_or_default();
        let key = Id::of_public_key(&keys.public_key());
        match request.command {
            ANNOUNCE => {
                let target = request.target.unwrap_or(key);
                let node_id = Id::of_node(&OWN);
                let place = Place {
                    target,
                    node_id,
                    token,
                };
                let announce = Announce::signed(Action::Announce, &place, Vec::new(), None, keys);
                (request.target, request.value) = (Some(target), Some(announce.to_vec()));
            }
            MUTABLE_PUT => {
                let record = MutableRecord::signed(value.len() as u64, value, keys);
                let put = MutablePut {
                    public_key: keys.public_key(),
                    record,
                };
                (request.target, request.value) = (Some(key), Some(put.to_vec()));
            }
            IMMUTABLE_PUT => request.target = Some(Id::of_value(&value)),
            _ => {}
        }
    }

    /// An answer to what the node asked last, with closer nodes that the script names.
    fn answer<'a>(&mut self, what: u8, operand: u8, rest: &'a [u8]) -> &'a [u8] {
        let (nodes, rest) = rest.split_at((usize::from(operand) % 24).min(rest.len()));
        let Some((from, tid)) = self.asked.pop() else {
            return rest;
        };
        let reply = Reply {
            tid,
            to: if what & 0x10 == 0 {
                OWN
            } else {
                stranger(operand)
            },
            id: (what & 0x80 == 0).then(|| Id::of_node(&from)),
            token: Some([operand; 32].into()),
            closer_nodes: nodes.iter().map(|node| stranger(*node)).collect(),
            error: ErrorCode(u64::from(what & 0x40 != 0)),
            value: (what & 0x20 != 0).then(|| nodes.to_vec()),
        };
        self.hear(from, &reply.to_vec());
        rest
    }

    fn hear(&mut self, from: SocketAddrV4, datagram: &[u8]) {
        let is_request = matches!(Message::parse(datagram), Ok(Message::Request(_)));
        self.node
            .rpc_mut()
            .handle_datagram(self.now, Socket::Server, from, datagram);
        self.heard += u128::from(is_request);
        self.take(usize::from(is_request));
    }

    /// Takes all that comes out; of replies and what is passed on there is at most `answers_max`.
    fn take(&mut self, answers_max: usize) {
        let late = self.now;
        while let Some(event) = self.node.poll_event(late) {
            match event {
                Event::QueryEnded(..) => self.queries -= 1,
                Event::Incoming(incoming) => self.node.rpc_mut().refuse(late, incoming),
                _ => {}
            }
        }
        let mut replies = 0;
        while let Some(transmit) = self.node.rpc_mut().poll_transmit() {
            match Message::parse(&transmit.datagram).expect("what is sent can be read") {
                Message::Request(request) => {
                    self.requests_sent += 1;
                    self.asked.push((transmit.to, request.tid));
                }
                Message::Reply(reply) => {
                    replies += 1;
                    self.token = reply.token.or(self.token);
                }
            }
        }
        // Delayed pings are answered when time passes.
        assert!(
            replies <= answers_max || answers_max == 0,
            "{replies} answers"
        );
        let slots = 1 + self.now.saturating_since(self.started).as_millis() / 750;
        let sent_max = slots * WINDOW_MAX as u128 + self.answered_max() + self.heard;
        assert!(
            self.requests_sent as u128 <= sent_max,
            "more requests than the window lets out"
        );
        assert!(self.node.rpc().table().len() <= NODES_MAX);
    }

    /// Each answer makes room for another request.
    fn answered_max(&self) -> u128 {
        let stats = self.node.rpc().stats();
        u128::from(stats.responses + stats.timeouts) + 2 * WINDOW_MAX as u128
    }

    /// Nobody answers any more: every query ends.
    fn fall_silent(&mut self) {
        for _ in 0..20_000 {
            if self.queries == 0 {
                return;
            }
            let next = self.node.rpc().poll_timeout().expect("it is awake");
            self.now = next.max(self.now);
            self.node.rpc_mut().handle_timeout(self.now);
            self.take(0);
        }
        panic!("{} queries do not end", self.queries);
    }
}

fn stranger(number: u8) -> SocketAddrV4 {
    let ip = Ipv4Addr::new(6 + number % 3, 0, number / 8, number);
    SocketAddrV4::new(ip, 1000 + u16::from(number))
}

/// Target and input.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let keys = KeyPair::from_seed(&[1; 32]);
    let peer = Peer {
        public_key: keys.public_key(),
        relay_addresses: vec![stranger(1)],
    };
    let place = Place {
        target: [1; 32].into(),
        node_id: [2; 32].into(),
        token: [3; 32].into(),
    };
    let announce = Announce::signed(Action::Announce, &place, vec![stranger(2)], None, &keys);
    let record = MutableRecord::signed(1, b"value".to_vec(), &keys);
    let request = Request {
        tid: 1,
        to: OWN,
        id: Some([1; 32].into()),
        token: Some([2; 32].into()),
        command: ANNOUNCE,
        target: Some([3; 32].into()),
        value: Some(announce.to_vec()),
    };
    let reply = Reply {
        tid: 1,
        to: OWN,
        id: Some([1; 32].into()),
        token: Some([2; 32].into()),
        closer_nodes: (0..20).map(stranger).collect(),
        error: ErrorCode::UNKNOWN_COMMAND,
        value: Some(
            LookupReply {
                peers: vec![peer.clone()],
                bump: 9,
            }
            .to_vec(),
        ),
    };
    let put = MutablePut {
        public_key: keys.public_key(),
        record: record.clone(),
    };
    let messages = [
        request.to_vec(),
        reply.to_vec(),
        peer.to_vec(),
        announce.to_vec(),
        record.to_vec(),
        put.to_vec(),
    ];
    let payload = [vec![1, 0x7f, 0, 1], vec![1; 200]].concat();
    let busy: Vec<u8> = (0..=255)
        .flat_map(|n: u8| [n, n.wrapping_mul(31), 9, 8, 7])
        .collect();
    let answers = [
        1, 1, 3, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
    ];
    let scripts = [busy, answers.repeat(8), vec![1, 9, 0, 255, 0, 255, 0, 255]];
    let mut seeds: Vec<_> = messages
        .into_iter()
        .map(|input| ("dht_messages", input))
        .collect();
    seeds.push(("noise_payloads", payload));
    seeds.push(("noise_payloads", vec![1, 0, 0, 0]));
    seeds.extend(scripts.into_iter().map(|input| ("dht_nodes", input)));
    seeds
}
