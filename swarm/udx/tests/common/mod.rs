//! Two streams on virtual time, with a network between them that loses, delays, reorders, doubles, cuts and garbles.
//! Everything follows from one seed.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use ferrocore_primitives::time::Time;
use ferrocore_udx::packet::{Header, Packet};
use ferrocore_udx::stream::{Config, Stream};

/// SplitMix64: small, seeded, good enough to shuffle packets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

/// What one direction of the network does to datagrams.
#[derive(Debug, Clone)]
pub struct Network {
    pub loss_permille: u64,
    pub duplicate_permille: u64,
    /// A datagram that arrives as noise: checksums drop it, so it is lost, and noise comes in its place.
    pub corrupt_permille: u64,
    pub delay: Duration,
    pub jitter: Duration,
    /// Bytes per second through a queue of `queue` bytes; zero is unlimited.
    pub bandwidth: u64,
    pub queue: u64,
    /// Larger datagrams vanish.
    pub datagram_max: usize,
    /// Larger datagrams vanish unless they may go in fragments.
    pub fragment_max: usize,
    /// Datagrams arrive together at multiples of this, as a busy machine takes them in; zero is one by one.
    pub batch: Duration,
    /// From here to there nothing passes.
    pub outage: Option<(Time, Time)>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            loss_permille: 0,
            duplicate_permille: 0,
            corrupt_permille: 0,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            bandwidth: 0,
            queue: 0,
            datagram_max: usize::MAX,
            fragment_max: usize::MAX,
            batch: Duration::ZERO,
            outage: None,
        }
    }
}

/// One end: a stream, what it is to say, what it has heard.
pub struct Peer {
    pub stream: Stream,
    pub to_write: Vec<u8>,
    pub written: usize,
    pub heard: Vec<u8>,
    /// Ends its side when everything is written.
    pub finishes: bool,
    /// Lets the stream go once it has written and read everything, as an application does that is done.
    pub drops: bool,
    /// Reads at most this much a turn, after this long.
    pub read_max: usize,
    pub read_every: Duration,
    read_at: Time,
    wire: Network,
    busy_until: Time,
}

/// Arrives when, in which order of sending, at which side, what.
type Flying = (Time, u64, usize, Vec<u8>);

pub struct Pair {
    pub now: Time,
    pub peers: [Peer; 2],
    pub rng: Rng,
    pub delivered: u64,
    flying: BinaryHeap<Reverse<Flying>>,
    sent: u64,
}

pub const IDS: [u32; 2] = [0x0102_0304, 0x0a0b_0c0d];

impl Pair {
    pub fn new(seed: u64, configs: [Config; 2], wires: [Network; 2]) -> Self {
        let [left, right] = configs;
        let [to_right, to_left] = wires;
        let mut pair = Self {
            now: Time::from_nanos(1_000_000),
            peers: [Peer::new(0, left, to_right), Peer::new(1, right, to_left)],
            rng: Rng::new(seed),
            delivered: 0,
            flying: BinaryHeap::new(),
            sent: 0,
        };
        for side in [0, 1] {
            let address = address(1 - side);
            let stream = &mut pair.peers[side].stream;
            stream.connect(pair.now, IDS[1 - side], address).unwrap();
        }
        pair
    }

    /// Runs until `done`, or nothing more would ever happen, or `deadline`. True if `done`.
    pub fn run(&mut self, deadline: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + deadline;
        loop {
            for side in [0, 1] {
                self.act(side);
            }
            if done(self) {
                return true;
            }
            match self.next_event() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => return false,
            }
            self.deliver();
            for peer in &mut self.peers {
                if peer.stream.poll_timeout().is_some_and(|at| at <= self.now) {
                    peer.stream.handle_timeout(self.now);
                }
            }
        }
    }

    /// Loses everything in flight.
    pub fn cut(&mut self) {
        self.flying.clear();
    }

    /// From now on larger datagrams pass in fragments only, both ways.
    pub fn narrow(&mut self, fragment_max: usize) {
        for peer in &mut self.peers {
            peer.wire.fragment_max = fragment_max;
        }
    }

    fn next_event(&self) -> Option<Time> {
        let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
        let timeouts = self
            .peers
            .iter()
            .filter_map(|peer| peer.stream.poll_timeout());
        let reads = self.peers.iter().filter(|peer| peer.wants_to_read());
        let reads = reads.map(|peer| peer.read_at);
        arrival.into_iter().chain(timeouts).chain(reads).min()
    }

    /// The application's turn, then the network card's.
    fn act(&mut self, side: usize) {
        let peer = &mut self.peers[side];
        peer.read(self.now);
        peer.write(self.now);
        let mut out = Vec::new();
        while let Some(transmit) = self.peers[side]
            .stream
            .poll_transmit(self.now, 16, &mut out)
        {
            let segment = transmit.segment_size.unwrap_or(out.len());
            let is_alone = transmit.segment_size.is_none();
            assert!(is_alone || !transmit.may_fragment, "several in one");
            for datagram in out.chunks(segment) {
                assert!(
                    datagram.len() <= 1472,
                    "a datagram of {} bytes",
                    datagram.len()
                );
                self.send(side, datagram.to_vec(), transmit.may_fragment);
            }
            out.clear();
        }
    }

    fn send(&mut self, side: usize, datagram: Vec<u8>, may_fragment: bool) {
        let wire = self.peers[side].wire.clone();
        if datagram.len() > wire.fragment_max && !may_fragment {
            return;
        }
        let is_out = wire
            .outage
            .is_some_and(|(from, to)| from <= self.now && self.now < to);
        if datagram.len() > wire.datagram_max || is_out || self.rng.chance(wire.loss_permille) {
            return;
        }
        let Some(queued) = self.queue_delay(side, datagram.len() as u64, &wire) else {
            return;
        };
        let copies = 1 + u64::from(self.rng.chance(wire.duplicate_permille));
        for _ in 0..copies {
            let jitter = self.rng.below(wire.jitter.as_nanos() as u64 + 1);
            let at = self.now + queued + wire.delay + Duration::from_nanos(jitter);
            let batch = wire.batch.as_nanos().max(1) as u64;
            let at = Time::from_nanos(at.as_nanos().next_multiple_of(batch));
            let datagram = if self.rng.chance(wire.corrupt_permille) {
                self.noise(datagram.len())
            } else {
                datagram.clone()
            };
            self.sent += 1;
            self.flying
                .push(Reverse((at, self.sent, 1 - side, datagram)));
        }
    }

    /// How long a datagram waits for the bottleneck; `None` if its queue is full.
    fn queue_delay(&mut self, side: usize, bytes: u64, wire: &Network) -> Option<Duration> {
        if wire.bandwidth == 0 {
            return Some(Duration::ZERO);
        }
        let peer = &mut self.peers[side];
        let start = peer.busy_until.max(self.now);
        let waiting = start.saturating_since(self.now).as_secs_f64() * wire.bandwidth as f64;
        if waiting > wire.queue as f64 {
            return None;
        }
        peer.busy_until = start + Duration::from_secs_f64(bytes as f64 / wire.bandwidth as f64);
        Some(peer.busy_until.saturating_since(self.now))
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.rng.next() as u8).collect()
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.flying.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, side, datagram))) = self.flying.pop() else {
                return;
            };
            self.delivered += 1;
            let stream = &mut self.peers[side].stream;
            let is_ours =
                Header::parse(&datagram).is_some_and(|header| header.stream_id == IDS[side]);
            if let Some(packet) = Packet::parse(&datagram).filter(|_| is_ours) {
                stream.handle_packet(self.now, &packet);
            }
        }
    }
}

impl Peer {
    fn new(side: usize, config: Config, wire: Network) -> Self {
        Self {
            stream: Stream::new(Time::from_nanos(1_000_000), IDS[side], config),
            to_write: Vec::new(),
            written: 0,
            heard: Vec::new(),
            finishes: true,
            drops: false,
            read_max: usize::MAX,
            read_every: Duration::ZERO,
            read_at: Time::ZERO,
            wire,
            busy_until: Time::ZERO,
        }
    }

    fn wants_to_read(&self) -> bool {
        self.read_max > 0
            && self.stream.is_readable()
            && !self.stream.has_ended()
            && self.stream.close_reason().is_none()
    }

    fn read(&mut self, now: Time) {
        if now >= self.read_at && self.read_max > 0 {
            let bytes = self.stream.read(self.read_max);
            self.heard.extend_from_slice(&bytes);
            self.read_at = now + self.read_every;
        }
    }

    fn write(&mut self, now: Time) {
        while self.written < self.to_write.len() {
            match self.stream.write(&self.to_write[self.written..]) {
                Ok(0) | Err(_) => return,
                Ok(written) => self.written += written,
            }
        }
        if self.finishes {
            let _ = self.stream.finish();
        }
        if self.drops && self.stream.has_ended() && self.stream.is_finished() {
            self.stream.release(now);
        }
    }
}

pub fn address(side: usize) -> std::net::SocketAddr {
    format!("10.0.0.{}:4000", side + 1).parse().unwrap()
}

/// Bytes that show a swap, a gap or a repetition.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// A number from the environment, for `scripts/soak`.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
