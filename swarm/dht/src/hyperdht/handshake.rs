//! The Noise handshake of two peers, carried by requests: the client's side, the server's, and the server's memory of
//! the handshakes it has answered.
//! Knows Noise messages and their payloads (`hyperdht/lib/{noise-wrap,server}.js` 6.34). Does not know relays, sockets
//! or what becomes of the connection.
//!
//! One message each way: IK, with [`peer_handshake_namespace`] as its prologue and a [`NoisePayload`] in each. A
//! client sends the same bytes to several relays; the server recognises them and gives every relay the same answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::hash::{Hash, hash};
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_primitives::time::Time;
use ferrocore_secret_stream::{Handshake, HandshakeError, HandshakeResult};

use super::noise::{ConnectError, NoisePayload, NoisePayloadError};
use super::peer_handshake_namespace;

/// How long a handshake is remembered after it has led to a connection or failed.
pub const CLEAR_AFTER: Duration = Duration::from_secs(10);

/// How long an answered handshake may go without a sign of the client.
pub const UNUSED_MAX: Duration = Duration::from_secs(10);

/// Handshakes that a server remembers at once. For a new one the oldest of those that are over is forgotten; if there is none,
/// the oldest whose client has not come yet: a flood then shortens how long it may take to come, and shuts nobody out.
pub const HANDSHAKES_MAX: usize = 4096;

/// How many may be under way from one host, as whoever passes them on sees it; beyond that its oldest is forgotten in the same way.
pub const HANDSHAKES_PER_HOST_MAX: usize = 256;

/// What the two sides have agreed on.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// The keys of the stream.
    pub keys: HandshakeResult,
    /// What the other side said.
    pub payload: NoisePayload,
}

/// A handshake as the client sees it.
#[derive(Debug)]
pub struct ClientHandshake {
    /// Stands behind our message.
    handshake: Handshake,
    request: Vec<u8>,
}

/// Why a server's message leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// It is not the server's: whoever relayed it made it up. Ask another relay.
    #[error("the answer was not made by the server")]
    Forged(#[from] HandshakeError),
    /// The server speaks a version that came later: update this side.
    #[error("the server speaks version {0} of the handshake")]
    Incompatible(u64),
    /// The server's message is its own, and malformed or without a stream: update one of the sides.
    #[error("the server's answer makes no sense")]
    Malformed,
    /// The server does not want, or not now.
    #[error("the server refused with error {}", .0.0)]
    Refused(ConnectError),
}

impl ClientHandshake {
    /// Starts a handshake with `server`, telling it `payload`.
    ///
    /// # Errors
    /// [`HandshakeFailure::Forged`] if `server` is no usable key: nobody has the secret of such a key.
    pub fn new(
        key_pair: &KeyPair,
        server: PublicKey,
        payload: &NoisePayload,
    ) -> Result<Self, HandshakeFailure> {
        let prologue = peer_handshake_namespace();
        let handshake = Handshake::ik_initiator(key_pair, server);
        Self::start(handshake.with_prologue(prologue.as_bytes()), payload)
    }

    /// As [`new`](Self::new) with a given ephemeral key pair: for tests. One used twice gives the keys away.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_ephemeral(
        key_pair: &KeyPair,
        server: PublicKey,
        payload: &NoisePayload,
        ephemeral: KeyPair,
    ) -> Result<Self, HandshakeFailure> {
        let prologue = peer_handshake_namespace();
        let handshake = Handshake::ik_initiator(key_pair, server).with_ephemeral(ephemeral);
        Self::start(handshake.with_prologue(prologue.as_bytes()), payload)
    }

    fn start(mut handshake: Handshake, payload: &NoisePayload) -> Result<Self, HandshakeFailure> {
        let request = handshake.write(&payload.to_vec())?;
        Ok(Self { handshake, request })
    }

    /// Our Noise message; the same for every relay.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Reads an answer. A forged one leaves everything as it was.
    ///
    /// # Errors
    /// [`HandshakeFailure`].
    pub fn read(&self, noise: &[u8]) -> Result<Agreed, HandshakeFailure> {
        let mut handshake = self.handshake.clone();
        let payload = handshake.read(noise)?;
        let keys = handshake.finish()?;
        let payload = NoisePayload::parse(&payload).map_err(|error| match error {
            NoisePayloadError::UnknownVersion(version) => HandshakeFailure::Incompatible(version),
            NoisePayloadError::Malformed(_) => HandshakeFailure::Malformed,
        })?;
        match payload.error {
            ConnectError::NONE if payload.udx.is_some() => Ok(Agreed { keys, payload }),
            ConnectError::NONE => Err(HandshakeFailure::Malformed),
            error => Err(HandshakeFailure::Refused(error)),
        }
    }
}

/// A client's handshake as the server sees it, read and not answered yet.
#[derive(Debug)]
pub struct ServerHandshake {
    handshake: Handshake,
    remote_public_key: PublicKey,
    payload: Result<NoisePayload, NoisePayloadError>,
}

impl ServerHandshake {
    /// Reads the client's message.
    ///
    /// # Errors
    /// [`HandshakeError`] if it was not made for this key; say nothing then.
    pub fn read(key_pair: &KeyPair, noise: &[u8]) -> Result<Self, HandshakeError> {
        let handshake = Handshake::ik_responder(key_pair);
        Self::start(handshake, noise)
    }

    /// As [`read`](Self::read) with a given ephemeral key pair: for tests. One used twice gives the keys away.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn with_ephemeral(
        key_pair: &KeyPair,
        noise: &[u8],
        ephemeral: KeyPair,
    ) -> Result<Self, HandshakeError> {
        let handshake = Handshake::ik_responder(key_pair).with_ephemeral(ephemeral);
        Self::start(handshake, noise)
    }

    fn start(handshake: Handshake, noise: &[u8]) -> Result<Self, HandshakeError> {
        let prologue = peer_handshake_namespace();
        let mut handshake = handshake.with_prologue(prologue.as_bytes());
        let payload = handshake.read(noise)?;
        let remote_public_key = handshake
            .remote_public_key()
            .ok_or(HandshakeError::OutOfTurn)?;
        Ok(Self {
            handshake,
            remote_public_key,
            payload: NoisePayload::parse(&payload),
        })
    }

    /// The client's key, which its message proves to be its own.
    pub fn remote_public_key(&self) -> PublicKey {
        self.remote_public_key
    }

    /// What the client said, if we can go on with it, and otherwise what to answer.
    ///
    /// # Errors
    /// [`ConnectError::VERSION_MISMATCH`] or [`ConnectError::ABORTED`].
    pub fn payload(&self) -> Result<&NoisePayload, ConnectError> {
        match &self.payload {
            Ok(payload) if payload.udx.is_some() => Ok(payload),
            Err(NoisePayloadError::UnknownVersion(_)) => Err(ConnectError::VERSION_MISMATCH),
            _ => Err(ConnectError::ABORTED),
        }
    }

    /// Our Noise message, with `payload` in it, and the keys.
    ///
    /// # Errors
    /// [`HandshakeError::UnusableKey`] if a key of the client turns out unusable only now; say nothing then.
    pub fn answer(
        mut self,
        payload: &NoisePayload,
    ) -> Result<(Vec<u8>, HandshakeResult), HandshakeError> {
        let noise = self.handshake.write(&payload.to_vec())?;
        Ok((noise, self.handshake.finish()?))
    }
}

/// The handshakes that a server has met, by the exact bytes of their Noise message and by number. What it has no more room for
/// is dropped.
#[derive(Debug)]
pub struct Handshakes<T> {
    slots: Vec<Option<Slot<T>>>,
    free: Vec<usize>,
    by_noise: HashMap<Hash, usize>,
    /// Those under way.
    per_host: HashMap<Ipv4Addr, usize>,
    /// Those whose client has not come, by when they began.
    waiting: BTreeMap<u64, usize>,
    next: u64,
    /// Those that are over, in the order in which they are forgotten.
    over: VecDeque<(Time, usize)>,
}

#[derive(Debug)]
struct Slot<T> {
    value: T,
    noise: Hash,
    host: Ipv4Addr,
    stage: Stage,
}

/// How far a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Answered, as the so-manieth.
    Waiting(u64),
    /// Its client has come.
    Met,
    Over,
}

/// What a server knows about an incoming Noise message.
#[derive(Debug, PartialEq, Eq)]
pub enum Met {
    /// It came before, under this number.
    Before(u64),
    /// It is new, and has this number now.
    New(u64),
    /// As many clients as may be are here and not done, of that host or in all: drop it.
    NoRoom,
}

impl<T> Handshakes<T> {
    /// None yet.
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_noise: HashMap::new(),
            per_host: HashMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
            over: VecDeque::new(),
        }
    }

    /// Looks a Noise message up; if it is new, remembers it with what `make` makes for its number.
    pub fn meet(&mut self, noise: &[u8], host: Ipv4Addr, make: impl FnOnce(u64) -> T) -> Met {
        let noise = hash(&[noise]);
        if let Some(at) = self.by_noise.get(&noise) {
            return Met::Before(*at as u64);
        }
        if !self.make_room_for(host) || !self.make_room() {
            return Met::NoRoom;
        }
        let at = self.free.pop().unwrap_or(self.slots.len());
        let slot = Slot {
            value: make(at as u64),
            noise,
            host,
            stage: Stage::Waiting(self.next),
        };
        self.waiting.insert(self.next, at);
        self.next += 1;
        match self.slots.get_mut(at) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        self.by_noise.insert(noise, at);
        *self.per_host.entry(host).or_default() += 1;
        Met::New(at as u64)
    }

    /// What is remembered of handshake `number`.
    pub fn get(&mut self, number: u64) -> Option<&mut T> {
        self.slot(number).map(|slot| &mut slot.value)
    }

    /// The client of handshake `number` has come: it is not forgotten for others any more until it is over.
    pub fn handle_client(&mut self, number: u64) {
        if let Some(slot) = self.slot(number)
            && let Stage::Waiting(since) = slot.stage
        {
            slot.stage = Stage::Met;
            self.waiting.remove(&since);
        }
    }

    /// Handshake `number` is over: forgets it [`CLEAR_AFTER`] from `now`, or when room is needed; until then it is
    /// answered as before.
    pub fn clear_later(&mut self, now: Time, number: u64) {
        let Ok(at) = usize::try_from(number) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let (before, host) = (slot.stage, slot.host);
        slot.stage = Stage::Over;
        match before {
            Stage::Over => return,
            Stage::Waiting(since) => drop(self.waiting.remove(&since)),
            Stage::Met => {}
        }
        self.over.push_back((now + CLEAR_AFTER, at));
        self.count_less(host);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.over.front().map(|(at, _)| *at)
    }

    /// Forgets what is due, and returns it.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<T> {
        let due = self.over.iter().take_while(|(at, _)| *at <= now).count();
        (0..due).filter_map(|_| self.forget_over()).collect()
    }

    /// Forgets everything at once, and returns it.
    pub fn clear(&mut self) -> Vec<T> {
        let slots = std::mem::take(self).slots;
        slots.into_iter().flatten().map(|slot| slot.value).collect()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_noise.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_noise.is_empty()
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot<T>> {
        let at = usize::try_from(number).ok()?;
        self.slots.get_mut(at)?.as_mut()
    }

    /// Anybody can name a host as that of a client it passes on, so that host must not be shut out by it.
    fn make_room_for(&mut self, host: Ipv4Addr) -> bool {
        let of_host = self.per_host.get(&host).copied().unwrap_or(0);
        if of_host < HANDSHAKES_PER_HOST_MAX {
            return true;
        }
        let is_hosts = |at: &usize| {
            let slot = self.slots.get(*at).and_then(Option::as_ref);
            slot.is_some_and(|slot| slot.host == host)
        };
        let oldest = self.waiting.iter().find(|(_, at)| is_hosts(at));
        let oldest = oldest.map(|(since, _)| *since);
        oldest.is_some_and(|since| self.forget_waiting(since).is_some())
    }

    /// False if there is nothing but clients that have come.
    fn make_room(&mut self) -> bool {
        if self.by_noise.len() < HANDSHAKES_MAX || self.forget_over().is_some() {
            return true;
        }
        let oldest = self.waiting.first_key_value().map(|(since, _)| *since);
        oldest.is_some_and(|since| self.forget_waiting(since).is_some())
    }

    /// Forgets the one that was over first.
    fn forget_over(&mut self) -> Option<T> {
        let (_, at) = self.over.pop_front()?;
        self.forget(at).map(|slot| slot.value)
    }

    fn forget_waiting(&mut self, since: u64) -> Option<T> {
        let at = self.waiting.remove(&since)?;
        let slot = self.forget(at)?;
        self.count_less(slot.host);
        Some(slot.value)
    }

    fn forget(&mut self, at: usize) -> Option<Slot<T>> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.by_noise.remove(&slot.noise);
        self.free.push(at);
        Some(slot)
    }

    fn count_less(&mut self, host: Ipv4Addr) {
        if let Some(of_host) = self.per_host.get_mut(&host) {
            *of_host -= 1;
            if *of_host == 0 {
                self.per_host.remove(&host);
            }
        }
    }
}

impl<T> Default for Handshakes<T> {
    fn default() -> Self {
        Self::new()
    }
}
