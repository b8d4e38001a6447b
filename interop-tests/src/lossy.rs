//! A UDP forwarder between two peers that loses, delays, reorders, doubles, garbles and changes what passes, and lets through
//! only so much a second.
//! Knows datagrams. Does not know what is in them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// What happens to datagrams, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Damage {
    /// Lost, out of a thousand.
    pub loss_permille: u64,
    /// Doubled, out of a thousand.
    pub duplicate_permille: u64,
    /// Replaced by noise of the same length, out of a thousand: what a checksum would have dropped, and nothing that
    /// could be taken for a packet of the peers.
    pub corrupt_permille: u64,
    /// Changed in one bit and handed over, out of a thousand: what no checksum of UDP's notices.
    pub change_permille: u64,
    /// Overtaken by those behind them, out of a thousand.
    pub late_permille: u64,
    /// How much longer the late ones take.
    pub late_by: Duration,
    /// How long each way takes.
    pub delay: Duration,
    /// How much longer at most; different datagrams take different times and overtake each other.
    pub jitter: Duration,
    /// What each direction lets through; zero is unlimited.
    pub bytes_per_second: u64,
    /// What waits for that at most; what finds the queue full is lost.
    pub queue_bytes: u64,
}

/// A running forwarder. Each peer takes the address of its side for the other peer's.
pub struct LossyLink {
    sides: [Arc<UdpSocket>; 2],
    peers: Arc<Mutex<[Option<SocketAddr>; 2]>>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a forwarder has done, and whether it is to do nothing more.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) changed: AtomicU64,
    /// By the side that nothing is handed over at.
    is_cut: [AtomicBool; 2],
}

/// What came in at a side.
pub(crate) struct Parcel {
    pub(crate) side: usize,
    pub(crate) data: Vec<u8>,
}

/// Sends something out at a side; false if that failed.
pub(crate) type Exit = Box<dyn Fn(&[u8]) -> bool + Send>;

impl LossyLink {
    /// Starts a forwarder on loopback whose decisions follow from `seed`.
    pub fn start(damage: Damage, seed: u64) -> Self {
        let sides = [0, 1].map(|_| Arc::new(bind().expect("loopback has free ports")));
        let (peers, counts) = (Arc::new(Mutex::new([None; 2])), Arc::<Counts>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, parcels) = mpsc::channel();
        let mut threads: Vec<_> = [0, 1]
            .map(|side| {
                let (socket, sender) = (Arc::clone(&sides[side]), sender.clone());
                let (peers, stop) = (Arc::clone(&peers), Arc::clone(&stop));
                thread::spawn(move || receive(&socket, side, &peers, &sender, &stop))
            })
            .into();
        let exits = [0, 1].map(|side| {
            let (socket, peers) = (Arc::clone(&sides[side]), Arc::clone(&peers));
            let exit = move |data: &[u8]| {
                let peer = peers.lock().unwrap_or_else(PoisonError::into_inner)[side];
                peer.is_some_and(|peer| socket.send_to(data, peer).is_ok())
            };
            Box::new(exit) as Exit
        });
        let forwarder = Forwarder::new(exits, 0, Arc::clone(&counts), damage, seed);
        threads.push(thread::spawn(move || forwarder.run(&parcels)));
        Self {
            sides,
            peers,
            counts,
            stop,
            threads,
        }
    }

    /// The port that the peer of `side`, 0 or 1, sends to.
    pub fn port(&self, side: usize) -> u16 {
        let address = self.sides[side].local_addr();
        address.expect("the socket is bound").port()
    }

    /// Tells where the peer of `side` is. Otherwise its first datagram does.
    pub fn set_peer(&self, side: usize, peer: SocketAddr) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)[side] = Some(peer);
    }

    /// From now on nothing reaches the peer of `side`, 0 or 1, and what was on its way there is lost.
    pub fn cut_towards(&self, side: usize) {
        self.counts.is_cut[side].store(true, Ordering::Relaxed);
    }

    /// Datagrams lost so far, garbled ones and those that found the queue full among them.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Datagrams handed over so far, doubled ones twice.
    pub fn passed(&self) -> u64 {
        self.counts.passed.load(Ordering::Relaxed)
    }
}

impl Drop for LossyLink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Due when, in which order of arrival, for which side, what.
type Waiting = (Instant, u64, usize, Vec<u8>);

/// Holds what has come in until it is due, and sends it out, damaged.
pub(crate) struct Forwarder {
    exits: [Exit; 2],
    /// Bytes before the datagram, which are not damaged.
    header_len: usize,
    counts: Arc<Counts>,
    /// When each side's queue will be empty.
    free_at: [Instant; 2],
    damage: Damage,
    random: Rng,
    waiting: BinaryHeap<Reverse<Waiting>>,
    count: u64,
}

impl Forwarder {
    pub(crate) fn new(
        exits: [Exit; 2],
        header_len: usize,
        counts: Arc<Counts>,
        damage: Damage,
        seed: u64,
    ) -> Self {
        Self {
            exits,
            header_len,
            counts,
            free_at: [Instant::now(); 2],
            damage,
            random: Rng::new(seed),
            waiting: BinaryHeap::new(),
            count: 0,
        }
    }

    /// Until nobody is left to bring parcels.
    pub(crate) fn run(mut self, parcels: &Receiver<Parcel>) {
        loop {
            match parcels.recv_timeout(self.send_due()) {
                Ok(parcel) => self.take(parcel),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, parcel: Parcel) {
        let queued = self.queue(parcel.side, parcel.data.len());
        let is_lost = self.happens(self.damage.loss_permille);
        let Some(at) = queued.filter(|_| !is_lost) else {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let copies = 1 + usize::from(self.happens(self.damage.duplicate_permille));
        for _ in 0..copies {
            let share = self.random.next() as f64 / u64::MAX as f64;
            let mut at = at + self.damage.delay + self.damage.jitter.mul_f64(share);
            if self.happens(self.damage.late_permille) {
                at += self.damage.late_by;
            }
            let mut data = parcel.data.clone();
            if self.happens(self.damage.corrupt_permille) {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                let body = data.get_mut(self.header_len..).unwrap_or_default();
                body.fill_with(|| self.random.next() as u8 & 0x7f); // UDX begins with 0xff
            }
            if self.damage.change_permille > 0 && self.happens(self.damage.change_permille) {
                self.change(&mut data);
            }
            self.count += 1;
            let entry = (at, self.count, 1 - parcel.side, data);
            self.waiting.push(Reverse(entry));
        }
    }

    /// When a datagram of `len` bytes is through the bottleneck; `None` if its queue is full.
    fn queue(&mut self, side: usize, len: usize) -> Option<Instant> {
        let (now, rate) = (Instant::now(), self.damage.bytes_per_second);
        if rate == 0 {
            return Some(now);
        }
        let start = self.free_at[side].max(now);
        let waiting = (start - now).as_secs_f64() * rate as f64;
        if waiting > self.damage.queue_bytes as f64 {
            return None;
        }
        self.free_at[side] = start + Duration::from_secs_f64(len as f64 / rate as f64);
        Some(self.free_at[side])
    }

    /// Sends what is due and returns how long until the next.
    fn send_due(&mut self) -> Duration {
        while let Some(Reverse((at, ..))) = self.waiting.peek() {
            let left = at.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return left;
            }
            if let Some(Reverse((_, _, side, data))) = self.waiting.pop() {
                let is_cut = self.counts.is_cut[side].load(Ordering::Relaxed);
                // What cannot be sent is lost, like the rest.
                if !is_cut && self.exits[side](&data) {
                    self.counts.passed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Duration::from_millis(100)
    }

    /// Turns one bit over.
    fn change(&mut self, data: &mut [u8]) {
        let body = data.get_mut(self.header_len..).unwrap_or_default();
        if !body.is_empty() {
            let bit = self.random.index(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            self.counts.changed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn happens(&mut self, permille: u64) -> bool {
        self.random.below(1000) < permille
    }
}

fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

fn receive(
    socket: &UdpSocket,
    side: usize,
    peers: &Mutex<[Option<SocketAddr>; 2]>,
    sender: &Sender<Parcel>,
    stop: &AtomicBool,
) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue; // nothing yet
        };
        peers.lock().unwrap_or_else(PoisonError::into_inner)[side].get_or_insert(from);
        let data = buffer[..len].to_vec();
        if sender.send(Parcel { side, data }).is_err() {
            return;
        }
    }
}
