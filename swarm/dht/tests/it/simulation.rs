//! A network of a thousand nodes on virtual time: hosts come and go, a third of them behind NATs, some of them lie. Peers
//! announce themselves every ten minutes, others look them up; nearly all must be found. Then a hundred nodes gather
//! around each topic, and say nothing of what they were told.
//!
//! Runs small; `FERROCORE_DHT_NODES`, `FERROCORE_DHT_MINUTES` and `FERROCORE_DHT_SEED` make it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::net::Net;
use ferrocore_dht::hyperdht::announce::{Action, Announce, LookupReply, Peer, Place};
use ferrocore_dht::hyperdht::{ANNOUNCE, LOOKUP};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Message, Reply};
use ferrocore_dht::node::Node;
use ferrocore_dht::rpc::{Config, Event, Outcome, Outgoing, Plan, QueryId, Response, Transmit};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::KeyPair;

const MINUTE: Duration = Duration::from_secs(60);

/// Of a hundred hosts, how many are behind a NAT, and how many lie.
const NATS: usize = 30;
const LIARS: usize = 5;

/// Of a thousand hosts, how many are replaced in a minute: ten of a hundred in ten minutes.
const REPLACED: usize = 10;

const BOOTSTRAPPERS: usize = 5;

/// Minutes until the first hosts have become nodes that stay, and counting begins.
const WARMUP: usize = 32;

/// Minutes after which a peer announces itself again, as Hyperswarm does.
const ANNOUNCE_MINUTES: usize = 10;

const SYBILS: usize = 100;

struct Size {
    nodes: usize,
    minutes: usize,
    topics: usize,
    lookups_per_minute: usize,
}

/// A peer that announces itself under a topic, from some host as long as that lives.
struct Topic {
    id: Id,
    keys: KeyPair,
    host: Option<usize>,
    is_announced: bool,
}

enum Job {
    Announce(usize),
    Lookup { topic: usize, found: bool },
}

struct Simulation {
    net: Net<Node>,
    size: Size,
    bootstrap: Vec<SocketAddrV4>,
    topics: Vec<Topic>,
    jobs: BTreeMap<(usize, QueryId), Job>,
    /// Honest hosts that may die.
    mortals: Vec<usize>,
    /// On how many hosts the nodes are that surround a topic.
    attackers: Option<usize>,
    lookups: usize,
    found: usize,
}

fn variable(name: &str) -> Option<usize> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn seed(default: usize) -> u64 {
    let seed = variable("FERROCORE_DHT_SEED").unwrap_or(default);
    println!("replay with FERROCORE_DHT_SEED={seed}");
    seed as u64
}

impl Simulation {
    fn new(seed: u64, size: Size) -> Self {
        let mut net = Net::new(seed);
        let mut bootstrap = Vec::new();
        for _ in 0..BOOTSTRAPPERS {
            let address = SocketAddrV4::new(net.next_ip(), crate::net::SERVER_PORT);
            let mut config = Config::bootstrapper(address);
            config.bootstrap = bootstrap.clone();
            net.add(config, false);
            bootstrap.push(address);
        }
        let topics = (0..size.topics).map(|_| Topic {
            id: net.random.bytes().into(),
            keys: KeyPair::from_seed(&net.random.bytes()),
            host: None,
            is_announced: false,
        });
        let topics = topics.collect();
        Self {
            net,
            size,
            bootstrap,
            topics,
            jobs: BTreeMap::new(),
            mortals: Vec::new(),
            attackers: None,
            lookups: 0,
            found: 0,
        }
    }

    fn run(&mut self) {
        for minute in 0..WARMUP + self.size.minutes {
            let due = self.size.nodes.min(self.size.nodes * (minute + 1) / 8);
            while self.mortals.len() < due {
                self.add_host();
            }
            if minute + 6 == WARMUP {
                self.surround();
            }
            if minute >= WARMUP {
                self.replace_some();
            }
            if minute + 2 >= WARMUP {
                self.announce_some(minute);
            }
            for _ in 0..self.size.lookups_per_minute {
                if minute >= WARMUP + 2 {
                    self.look_up();
                }
                self.pass(MINUTE / u32::try_from(self.size.lookups_per_minute).unwrap());
            }
        }
        self.pass(MINUTE);
    }

    fn add_host(&mut self) {
        let mut config = Config::default();
        config.bootstrap = self.bootstrap.clone();
        let is_nat = self.net.random.below(100) < NATS;
        let host = self.net.add(config, is_nat);
        if self.net.random.below(100) < LIARS {
            self.net.liars.insert(host, lie);
        }
        self.mortals.push(host);
    }

    fn replace_some(&mut self) {
        for _ in 0..self.size.nodes * REPLACED / 1000 {
            let at = self.net.random.below(self.mortals.len());
            let dead = self.mortals.swap_remove(at);
            self.net.remove(dead);
            self.jobs.retain(|(host, _), _| *host != dead);
            for topic in &mut self.topics {
                topic.host = topic.host.filter(|host| *host != dead);
            }
            self.add_host();
        }
    }

    /// Whoever lost its host has another, and announces itself from there.
    fn announce_some(&mut self, minute: usize) {
        for at in 0..self.topics.len() {
            let is_new = self.topics[at].host.is_none();
            if is_new {
                self.topics[at].host = Some(self.honest());
                self.topics[at].is_announced = false;
            }
            if is_new || (at + minute).is_multiple_of(ANNOUNCE_MINUTES) {
                let (host, topic) = (self.topics[at].host.unwrap(), self.topics[at].id);
                self.query(host, topic, Job::Announce(at));
            }
        }
    }

    /// One more host looks a peer up, of those that have announced themselves.
    fn look_up(&mut self) {
        let topic = self.net.random.below(self.topics.len());
        if self.topics[topic].is_announced {
            let host = self.honest();
            self.lookups += 1;
            self.query(
                host,
                self.topics[topic].id,
                Job::Lookup {
                    topic,
                    found: false,
                },
            );
        }
    }

    fn honest(&mut self) -> usize {
        loop {
            let host = self.mortals[self.net.random.below(self.mortals.len())];
            if !self.net.liars.contains_key(&host)
                && self.net.hosts[&host].machine.rpc().is_bootstrapped()
            {
                return host;
            }
        }
    }

    fn query(&mut self, host: usize, topic: Id, job: Job) {
        let plan = Plan::new(topic, LOOKUP);
        let id = self
            .net
            .with(host, |node, now| node.rpc_mut().query(now, plan))
            .unwrap();
        self.jobs.insert((host, id), job);
    }

    fn pass(&mut self, time: Duration) {
        let mut events = Vec::new();
        let end = self.net.now + time;
        while let Some(next) = self.net.run_one(end, &mut events) {
            for event in events.drain(..) {
                self.take(next, event);
            }
        }
    }

    fn take(&mut self, host: usize, event: Event) {
        match event {
            Event::QueryResponse(id, response) => {
                if let Some(Job::Lookup { topic, found }) = self.jobs.get_mut(&(host, id)) {
                    let key = self.topics[*topic].keys.public_key();
                    let reply = response.value.as_deref().map(LookupReply::from_slice);
                    let peers = reply
                        .and_then(Result::ok)
                        .map_or(Vec::new(), |reply| reply.peers);
                    *found |= peers.iter().any(|peer| peer.public_key == key);
                }
            }
            Event::QueryEnded(id, outcome) => match self.jobs.remove(&(host, id)) {
                Some(Job::Lookup { found, .. }) => self.found += usize::from(found),
                Some(Job::Announce(topic)) => self.commit(host, topic, outcome.unwrap()),
                None => {}
            },
            _ => {}
        }
    }

    fn commit(&mut self, host: usize, topic: usize, outcome: Outcome) {
        let Topic {
            id,
            keys,
            is_announced,
            ..
        } = &mut self.topics[topic];
        *is_announced = true;
        let id = *id;
        let write = |response: &Response| {
            let place = Place {
                target: id,
                node_id: response.id?,
                token: response.token?,
            };
            let value = Announce::signed(Action::Announce, &place, Vec::new(), None, keys).to_vec();
            Some(Outgoing::write(response, ANNOUNCE, id, value))
        };
        let writes: Vec<_> = outcome.closest.iter().filter_map(write).collect();
        for outgoing in writes {
            let _ = self
                .net
                .with(host, |node, now| node.rpc_mut().request(now, outgoing));
        }
    }

    /// Nodes around every topic, on few hosts that choose their ports for it: alive, polite, and of no use.
    fn surround(&mut self) {
        let Some(hosts_per_topic) = self.attackers else {
            return;
        };
        for topic in 0..self.topics.len() {
            let target = self.topics[topic].id;
            let mut places = BTreeSet::new();
            for host in 0..hosts_per_topic {
                let host = u8::try_from(host).unwrap();
                let ip = Ipv4Addr::new(200, u8::try_from(topic).unwrap(), host, 1);
                let all = (1024..=60_000_u16).map(|port| SocketAddrV4::new(ip, port));
                let near: BTreeMap<_, _> = all
                    .map(|a| (Id::of_node(&a).distance(&target), a))
                    .collect();
                let near = near.into_iter().take(SYBILS / hosts_per_topic);
                places.extend(near);
            }
            for (_, address) in places {
                let mut config = Config::bootstrapper(address);
                config.bootstrap = self.bootstrap.clone();
                let host = self
                    .net
                    .add_at(*address.ip(), address.port(), config, false);
                self.net.liars.insert(host, say_nothing);
            }
        }
    }

    /// Queries of the hosts that live, and those of them that searched beside their target, too.
    fn queries(&self) -> (u64, u64) {
        let stats = self
            .net
            .hosts
            .values()
            .map(|host| host.machine.rpc().stats());
        stats.fold((0, 0), |(queries, crowded), stats| {
            (queries + stats.queries, crowded + stats.crowded)
        })
    }

    fn report(&self, name: &str) -> f64 {
        let rate = self.found as f64 / self.lookups as f64;
        let stay = self
            .net
            .hosts
            .values()
            .filter(|host| host.machine.rpc().id().is_some())
            .count();
        let (queries, crowded) = self.queries();
        println!(
            "{name}: {} of {} lookups found their peer ({:.2} %), {} hosts of which {stay} stay, {} datagrams, \
             {crowded} of {queries} queries saw a crowd",
            self.found,
            self.lookups,
            rate * 100.0,
            self.net.hosts.len(),
            self.net.datagrams,
        );
        rate
    }
}

/// Names nodes that are not there, and peers that nobody announced.
fn lie(random: &mut ferrocore_dht::random::Random, transmit: &mut Transmit) -> bool {
    let Ok(Message::Reply(mut reply)) = Message::parse(&transmit.datagram) else {
        return true;
    };
    match random.below(4) {
        0 => return false,
        1 => reply.closer_nodes.clear(),
        _ => {
            let nowhere = |_| {
                let [a, b, c, ..] = random.bytes();
                SocketAddrV4::new(Ipv4Addr::new(210, a, b, c), crate::net::SERVER_PORT)
            };
            reply.closer_nodes = (0..20).map(nowhere).collect();
        }
    }
    if reply.value.is_some() {
        let nobody = Peer {
            public_key: random.bytes().into(),
            relay_addresses: Vec::new(),
        };
        reply.value = Some(
            LookupReply {
                peers: vec![nobody],
                bump: 0,
            }
            .to_vec(),
        );
    }
    transmit.datagram = reply.to_vec();
    true
}

/// Forgets what it was told.
fn say_nothing(_: &mut ferrocore_dht::random::Random, transmit: &mut Transmit) -> bool {
    if let Ok(Message::Reply(reply)) = Message::parse(&transmit.datagram) {
        let mut near = reply.closer_nodes;
        near.retain(|node| node.ip().octets()[0] == 200);
        let reply = Reply {
            value: None,
            closer_nodes: near,
            ..reply
        };
        transmit.datagram = reply.to_vec();
    }
    true
}

#[test]
fn lookups_succeed_while_hosts_come_and_go_and_some_lie() {
    let size = Size {
        nodes: variable("FERROCORE_DHT_NODES").unwrap_or(150),
        minutes: variable("FERROCORE_DHT_MINUTES").unwrap_or(20),
        topics: 20,
        lookups_per_minute: 10,
    };
    let mut simulation = Simulation::new(seed(1), size);
    simulation.run();
    assert!(simulation.lookups >= 100);
    let rate = simulation.report("churn and lies");
    assert!(rate >= 0.99, "{rate}");
    let (queries, crowded) = simulation.queries();
    assert!(
        crowded * 200 <= queries,
        "{crowded} of {queries} searched beside their target for nothing"
    );
}

/// The hundred nodes are on four hosts, which have sixty thousand ports each to choose from.
#[test]
fn lookups_succeed_although_their_topics_are_surrounded() {
    let mut simulation = surrounded(4, 2);
    simulation.run();
    assert!(simulation.lookups >= 70);
    let rate = simulation.report("100 nodes of 4 hosts around a topic");
    assert!(rate >= 0.9, "{rate}");
}

/// The same with a hundred hosts in a hundred networks. Only searches beside the topic find those who know.
#[test]
fn lookups_succeed_although_a_hundred_hosts_surround_their_topic() {
    let mut simulation = surrounded(SYBILS, 3);
    simulation.run();
    assert!(simulation.lookups >= 70);
    let rate = simulation.report("100 nodes of 100 hosts around a topic");
    assert!(rate >= 0.9, "{rate}");
    let (_, crowded) = simulation.queries();
    assert!(crowded > 0, "nobody noticed");
}

fn surrounded(hosts: usize, default_seed: usize) -> Simulation {
    let size = Size {
        nodes: variable("FERROCORE_DHT_NODES").unwrap_or(150),
        minutes: variable("FERROCORE_DHT_MINUTES").unwrap_or(10),
        topics: 1,
        lookups_per_minute: 10,
    };
    let mut simulation = Simulation::new(seed(default_seed), size);
    simulation.attackers = Some(hosts);
    simulation
}
