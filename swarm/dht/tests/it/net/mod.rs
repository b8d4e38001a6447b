//! A network of nodes on virtual time: datagrams with delays, hosts behind NATs, hosts that die.
//! Knows nothing of what the nodes say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::node::Node;
use ferrocore_dht::random::Random;
use ferrocore_dht::rpc::{Config, Event, Rpc, Socket, Transmit};
use ferrocore_primitives::time::Time;

pub(crate) const SERVER_PORT: u16 = 49737;
const CLIENT_PORT: u16 = 50000;

/// How long a NAT lets answers in.
const HOLE_AGE: Duration = Duration::from_secs(30);

/// What runs on a host.
pub(crate) trait Machine {
    fn new(now: Time, config: Config, seed: [u8; 32]) -> Self;
    fn rpc(&self) -> &Rpc;
    fn rpc_mut(&mut self) -> &mut Rpc;
    fn poll_event(&mut self, now: Time) -> Option<Event>;
}

impl Machine for Rpc {
    fn new(now: Time, config: Config, seed: [u8; 32]) -> Self {
        Self::new(now, config, seed)
    }

    fn rpc(&self) -> &Rpc {
        self
    }

    fn rpc_mut(&mut self) -> &mut Rpc {
        self
    }

    fn poll_event(&mut self, _: Time) -> Option<Event> {
        self.poll_event()
    }
}

impl Machine for Node {
    fn new(now: Time, config: Config, seed: [u8; 32]) -> Self {
        Self::new(now, 0, config, seed)
    }

    fn rpc(&self) -> &Rpc {
        self.rpc()
    }

    fn rpc_mut(&mut self) -> &mut Rpc {
        self.rpc_mut()
    }

    fn poll_event(&mut self, now: Time) -> Option<Event> {
        self.poll_event(now)
    }
}

/// What a liar makes of a datagram before it leaves; false if it does not.
pub(crate) type Lie = fn(&mut Random, &mut Transmit) -> bool;

/// A host of the network: a node, and what stands in front of it.
pub(crate) struct Host<M> {
    pub(crate) machine: M,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) is_nat: bool,
    /// Whom it sent to from which of its ports, and when last.
    holes: HashMap<(u16, SocketAddrV4), Time>,
    wakes_at: Option<Time>,
}

enum What {
    Datagram(SocketAddrV4, SocketAddrV4, Vec<u8>),
    Wake(usize),
}

struct Due {
    at: Time,
    serial: u64,
    what: What,
}

/// The network.
pub(crate) struct Net<M> {
    pub(crate) now: Time,
    pub(crate) random: Random,
    pub(crate) hosts: BTreeMap<usize, Host<M>>,
    pub(crate) liars: BTreeMap<usize, Lie>,
    pub(crate) datagrams: u64,
    /// One datagram in so many is lost.
    pub(crate) loss: Option<usize>,
    by_address: HashMap<SocketAddrV4, (usize, Socket)>,
    queue: BinaryHeap<Reverse<Due>>,
    serial: u64,
    next_host: usize,
}

impl<M: Machine> Net<M> {
    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            now: Time::ZERO + Duration::from_secs(1),
            random: Random::new(bytes),
            hosts: BTreeMap::new(),
            liars: BTreeMap::new(),
            datagrams: 0,
            loss: None,
            by_address: HashMap::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            next_host: 0,
        }
    }

    /// Addresses of hosts on the internet, each its own.
    pub(crate) fn next_ip(&self) -> Ipv4Addr {
        let number = u32::try_from(self.next_host).unwrap();
        Ipv4Addr::from(0x0500_0001 + number * 257)
    }

    pub(crate) fn add(&mut self, config: Config, is_nat: bool) -> usize {
        let ip = self.next_ip();
        self.add_at(ip, SERVER_PORT, config, is_nat)
    }

    pub(crate) fn add_at(
        &mut self,
        ip: Ipv4Addr,
        port: u16,
        config: Config,
        is_nat: bool,
    ) -> usize {
        let index = self.next_host;
        self.next_host += 1;
        let client = port.wrapping_add(CLIENT_PORT - SERVER_PORT);
        for (port, socket) in [(port, Socket::Server), (client, Socket::Client)] {
            let address = SocketAddrV4::new(ip, port);
            self.by_address.insert(address, (index, socket));
        }
        let host = Host {
            machine: M::new(self.now, config, self.random.bytes()),
            ip,
            port,
            is_nat,
            holes: HashMap::new(),
            wakes_at: None,
        };
        self.hosts.insert(index, host);
        self.with(index, |machine, now| machine.rpc_mut().start(now, port));
        index
    }

    pub(crate) fn remove(&mut self, index: usize) {
        self.liars.remove(&index);
        if let Some(host) = self.hosts.remove(&index) {
            let client = host.port.wrapping_add(CLIENT_PORT - SERVER_PORT);
            for port in [host.port, client] {
                self.by_address.remove(&SocketAddrV4::new(host.ip, port));
            }
        }
    }

    /// Gives a host another address: nothing that is on its way to the old one arrives.
    pub(crate) fn move_to(&mut self, index: usize, ip: Ipv4Addr) {
        let host = self.hosts.get_mut(&index).unwrap();
        let client = host.port.wrapping_add(CLIENT_PORT - SERVER_PORT);
        for port in [host.port, client] {
            let place = self.by_address.remove(&SocketAddrV4::new(host.ip, port));
            let place = place.expect("it was somewhere");
            self.by_address.insert(SocketAddrV4::new(ip, port), place);
        }
        host.ip = ip;
        host.holes.clear();
    }

    pub(crate) fn address(&self, index: usize) -> SocketAddrV4 {
        let host = &self.hosts[&index];
        SocketAddrV4::new(host.ip, host.port)
    }

    /// Calls a node, and sends what it has to send.
    pub(crate) fn with<T>(&mut self, index: usize, f: impl FnOnce(&mut M, Time) -> T) -> T {
        let host = self.hosts.get_mut(&index).unwrap();
        let result = f(&mut host.machine, self.now);
        self.flush(index);
        result
    }

    /// Lets time pass until then. Events go to `on_event` with the number of their host.
    pub(crate) fn run_until(
        &mut self,
        end: Time,
        mut on_event: impl FnMut(&mut Self, usize, Event),
    ) {
        for index in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.take_events(index, &mut on_event);
        }
        let mut events = Vec::new();
        while let Some(index) = self.run_one(end, &mut events) {
            for event in events.drain(..) {
                on_event(self, index, event);
                if self.hosts.contains_key(&index) {
                    self.flush(index);
                }
            }
        }
    }

    /// Lets the next thing happen, if it does before `end`, and returns at which host. Its events are appended.
    pub(crate) fn run_one(&mut self, end: Time, events: &mut Vec<Event>) -> Option<usize> {
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Reverse(due) = self.queue.pop().unwrap();
            self.now = due.at;
            let index = match due.what {
                What::Datagram(from, to, bytes) => self.deliver(from, to, &bytes),
                What::Wake(index) => self.wake(index),
            };
            if let Some(index) = index {
                let (host, now) = (self.hosts.get_mut(&index).unwrap(), self.now);
                events.extend(std::iter::from_fn(|| host.machine.poll_event(now)));
                self.flush(index);
                return Some(index);
            }
        }
        self.now = end;
        None
    }

    pub(crate) fn run_for(
        &mut self,
        time: Duration,
        on_event: impl FnMut(&mut Self, usize, Event),
    ) {
        self.run_until(self.now + time, on_event);
    }

    fn take_events(&mut self, index: usize, on_event: &mut impl FnMut(&mut Self, usize, Event)) {
        while let Some(event) = self
            .hosts
            .get_mut(&index)
            .and_then(|host| host.machine.poll_event(self.now))
        {
            on_event(self, index, event);
            if self.hosts.contains_key(&index) {
                self.flush(index);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddrV4, to: SocketAddrV4, bytes: &[u8]) -> Option<usize> {
        let (index, socket) = *self.by_address.get(&to)?;
        let host = self.hosts.get_mut(&index)?;
        let hole = host.holes.get(&(to.port(), from));
        let is_open = hole.is_some_and(|at| self.now.saturating_since(*at) < HOLE_AGE);
        if host.is_nat && !is_open {
            return None;
        }
        assert!(
            host.machine
                .rpc_mut()
                .handle_datagram(self.now, socket, from, bytes)
        );
        Some(index)
    }

    fn wake(&mut self, index: usize) -> Option<usize> {
        let host = self.hosts.get_mut(&index)?;
        if host.wakes_at != Some(self.now) {
            return None;
        }
        host.wakes_at = None;
        host.machine.rpc_mut().handle_timeout(self.now);
        Some(index)
    }

    fn flush(&mut self, index: usize) {
        let now = self.now;
        let host = self.hosts.get_mut(&index).unwrap();
        let (ip, server) = (host.ip, host.port);
        let client = server.wrapping_add(CLIENT_PORT - SERVER_PORT);
        let mut out = Vec::new();
        while let Some(transmit) = host.machine.rpc_mut().poll_transmit() {
            let port = if transmit.socket == Socket::Server {
                server
            } else {
                client
            };
            if host.is_nat {
                host.holes.insert((port, transmit.to), now);
            }
            out.push((SocketAddrV4::new(ip, port), transmit));
        }
        if host.holes.len() > 1000 {
            host.holes
                .retain(|_, at| now.saturating_since(*at) < HOLE_AGE);
        }
        let wakes_at = host.machine.rpc().poll_timeout().map(|at| at.max(now));
        let is_new = host
            .wakes_at
            .is_none_or(|old| wakes_at.is_some_and(|new| new < old));
        if let Some(at) = wakes_at.filter(|_| is_new) {
            host.wakes_at = Some(at);
            self.post(at.saturating_since(now), What::Wake(index));
        }
        let lie = self.liars.get(&index).copied();
        for (from, mut transmit) in out {
            if lie.is_some_and(|lie| !lie(&mut self.random, &mut transmit)) {
                continue;
            }
            self.datagrams += 1;
            if self.loss.is_some_and(|loss| self.random.below(loss) == 0) {
                continue;
            }
            let delay = Duration::from_millis(10 + self.random.below(90) as u64);
            self.post(delay, What::Datagram(from, transmit.to, transmit.datagram));
        }
    }

    fn post(&mut self, after: Duration, what: What) {
        self.serial += 1;
        self.queue.push(Reverse(Due {
            at: self.now + after,
            serial: self.serial,
            what,
        }));
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}
