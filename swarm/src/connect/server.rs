//! Listening: being announced, answering handshakes, handing out connections.
//! Knows whose handshake gets which answer. Does not know what becomes of one connection: that is a task of its own.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use ferrocore_dht::hyperdht::connect::{Handshake, Holepunch};
use ferrocore_dht::hyperdht::handshake::{Handshakes, Met, ServerHandshake};
use ferrocore_dht::hyperdht::noise::{
    ConnectError as Refusal, Firewall, HolepunchInfo, NoisePayload, RelayThrough,
};
use ferrocore_dht::hyperdht::path::{Asked, Ours, ServerWay, server_relay_way, server_way};
use ferrocore_dht::hyperdht::router::Return;
use ferrocore_dht::hyperdht::seal::Sealing;
use ferrocore_dht::rpc::{Answer, Incoming, Socket};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::random;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_udx::socket::UdxStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{self, AbortHandle, JoinSet};

use super::accept::{Accepting, AtRelay, accept};
use super::announcing::{Announced, Announcing};
use super::dial::RELAY_LINGER;
use super::error::ConnectError;
use super::net::Net;
use super::peers::Peers;
use super::punching::{RoundIn, ServerPunching, until};
use super::stream::{Connection, raw_stream};

/// Connections that wait to be taken; who comes then waits.
pub const BACKLOG_MAX: usize = 64;

/// Requests that wait for a server's task; more are dropped, as clients repeat them.
const REQUESTS_MAX: usize = 256;

/// Rounds that wait for a connection's task.
const ROUNDS_MAX: usize = 8;

/// Clients that are awaited at relays that they have named at once; further ones are answered, and have the other ways.
/// The relay is to be looked up and dialled, and any stranger can name one that is not there.
const THEIR_MEETINGS_MAX: usize = 16;

/// The same at the relay that we name, which is known and there.
const OUR_MEETINGS_MAX: usize = 128;

/// Tasks whose client has come, until that is noted.
const CAME_MAX: usize = 64;

/// Who wants to connect.
#[derive(Debug)]
pub struct Caller<'a> {
    /// Its key, proven.
    pub public_key: PublicKey,
    /// Where it is, as whoever passed its handshake on sees it.
    pub address: SocketAddrV4,
    /// What it says of itself.
    pub payload: &'a NoisePayload,
}

/// Asked for each caller before anything is answered; false is silence.
type Admits = Arc<dyn Fn(&Caller<'_>) -> bool + Send + Sync>;

/// Asked for each caller that is answered.
type NamesRelay = Arc<dyn Fn() -> Option<PublicKey> + Send + Sync>;

/// How to listen.
#[derive(Clone)]
#[non_exhaustive]
pub struct ListenOptions {
    admits: Admits,
    relay_through: NamesRelay,
    /// Whether addresses on local networks are told to callers.
    pub lan: bool,
    /// Whether NATs are punched through.
    pub punch: bool,
    /// How long the way through a relay is kept after a stream has left it.
    pub relay_linger: Duration,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            admits: Arc::new(|_| true),
            relay_through: Arc::new(|| None),
            lan: true,
            punch: true,
            relay_linger: RELAY_LINGER,
        }
    }
}

impl ListenOptions {
    /// Answers only those for whom `admits` is true. It must not block.
    #[must_use]
    pub fn admit(self, admits: impl Fn(&Caller<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self {
            admits: Arc::new(admits),
            ..self
        }
    }

    /// Has callers meet us at the blind relay that `relay_through` names, which is asked for each of them and must not block.
    #[must_use]
    pub fn relay_through(
        self,
        relay_through: impl Fn() -> Option<PublicKey> + Send + Sync + 'static,
    ) -> Self {
        Self {
            relay_through: Arc::new(relay_through),
            ..self
        }
    }
}

impl fmt::Debug for ListenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenOptions")
            .field("lan", &self.lan)
            .field("punch", &self.punch)
            .finish_non_exhaustive()
    }
}

/// A key that is listened under. Dropped, it takes its announcements back in the background, for three seconds at most; until
/// then nobody else can listen under the key.
#[derive(Debug)]
pub struct Server {
    public_key: PublicKey,
    connections: mpsc::Receiver<Connection>,
    announced: watch::Receiver<Announced>,
    /// Ends the task when dropped.
    _alive: mpsc::Sender<()>,
}

impl Server {
    /// The key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Ends it, and waits until announcements are taken back: the key can be listened under again.
    pub async fn close(self) {
        let Self {
            mut announced,
            _alive,
            ..
        } = self;
        drop(_alive);
        while announced.changed().await.is_ok() {}
    }

    /// The next connection, or `None` once the node is closed.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.connections.recv().await
    }

    /// Returns once we can be found: announced to a node at least once. False if the node was closed.
    pub async fn announced(&mut self) -> bool {
        let is_done = |announced: &Announced| announced.cycles > 0 && !announced.relays.is_empty();
        self.announced.wait_for(is_done).await.is_ok()
    }

    /// Where callers may look for us, to be told along with an announcement of a topic.
    pub fn relay_addresses(&self) -> Vec<SocketAddrV4> {
        self.announced.borrow().addresses.clone()
    }

    /// How far announcing has come, for who waits for that beside connections.
    pub fn announcement(&self) -> Announcement {
        Announcement {
            announced: self.announced.clone(),
        }
    }
}

/// How a server is announced; see [`Server::announcement`].
#[derive(Debug, Clone)]
pub struct Announcement {
    announced: watch::Receiver<Announced>,
}

impl Announcement {
    /// As [`Server::relay_addresses`], of now.
    pub fn relay_addresses(&mut self) -> Vec<SocketAddrV4> {
        self.announced.borrow_and_update().addresses.clone()
    }

    /// Returns when that may be another than at the last look; never again once the server is gone.
    pub async fn changed(&mut self) {
        if self.announced.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// What the router hands to a server.
#[derive(Debug)]
pub(super) enum ServerRequest {
    Handshake(Incoming, Handshake, Return),
    Round(Incoming, Holepunch, Return),
    /// Take the announcement back and drop all handshakes.
    Suspend(oneshot::Sender<()>),
    /// Announce again.
    Resume(oneshot::Sender<()>),
    /// The network has changed.
    Refresh(oneshot::Sender<()>),
}

/// What is remembered of a handshake.
#[derive(Debug, Default)]
struct Slot {
    /// Our message, and the socket that it leaves from.
    reply: Option<(Vec<u8>, Option<Socket>)>,
    /// To the task of its connection. A channel has 32 places from the beginning, for which there is mostly no use.
    rounds: Option<mpsc::Sender<Box<RoundIn>>>,
    task: Option<Ending>,
}

/// Ends a task when dropped: of a handshake that is forgotten.
#[derive(Debug)]
struct Ending(AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Room to wait for clients at relays.
struct Meetings {
    ours: Arc<Semaphore>,
    theirs: Arc<Semaphore>,
}

impl Meetings {
    fn new() -> Self {
        Self {
            ours: Arc::new(Semaphore::new(OUR_MEETINGS_MAX)),
            theirs: Arc::new(Semaphore::new(THEIR_MEETINGS_MAX)),
        }
    }

    fn ours(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ours).try_acquire_owned().ok()
    }

    fn theirs(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.theirs).try_acquire_owned().ok()
    }
}

struct Task {
    peers: Peers,
    net: Net,
    key_pair: KeyPair,
    options: ListenOptions,
    handshakes: Handshakes<Slot>,
    announcing: Announcing,
    connections: mpsc::Sender<Connection>,
    accepting: JoinSet<()>,
    /// The handshake of each task.
    numbers: HashMap<task::Id, u64>,
    came: (mpsc::Sender<task::Id>, mpsc::Receiver<task::Id>),
    meetings: Meetings,
    is_suspended: bool,
}

/// Begins to listen; the requests for the server go into the sender.
pub(super) fn listen(
    peers: &Peers,
    key_pair: KeyPair,
    options: ListenOptions,
) -> (Server, mpsc::Sender<ServerRequest>) {
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    let (connections, accepted) = mpsc::channel(BACKLOG_MAX);
    let (alive, is_dropped) = mpsc::channel(1);
    let announcing = Announcing::new(peers.net().clone(), key_pair.clone());
    let server = Server {
        public_key: key_pair.public_key(),
        connections: accepted,
        announced: announcing.watch(),
        _alive: alive,
    };
    let task = Task {
        net: peers.net().clone(),
        peers: peers.clone(),
        key_pair,
        options,
        handshakes: Handshakes::new(),
        announcing,
        connections,
        accepting: JoinSet::new(),
        numbers: HashMap::new(),
        came: mpsc::channel(CAME_MAX),
        meetings: Meetings::new(),
        is_suspended: false,
    };
    tokio::spawn(task.run(receiver, is_dropped));
    (server, requests)
}

impl Task {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<ServerRequest>,
        mut is_dropped: mpsc::Receiver<()>,
    ) {
        loop {
            let timeout = self.handshakes.poll_timeout();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => break,
                },
                _ = is_dropped.recv() => break,
                Some(done) = self.accepting.join_next_with_id() => {
                    let id = done.map_or_else(|error| error.id(), |(id, ())| id);
                    if let Some(number) = self.number_of(id) {
                        self.handshakes.clear_later(self.net.now(), number);
                    }
                    self.numbers.remove(&id);
                }
                Some(id) = self.came.1.recv() => {
                    if let Some(number) = self.number_of(id) {
                        self.handshakes.handle_client(number);
                    }
                }
                () = self.announcing.turn() => {}
                () = until(&self.net, timeout) => {
                    self.handshakes.handle_timeout(self.net.now());
                }
            }
        }
        // The next server of this key announces itself only when nothing of this one's is to be taken back any more.
        self.announcing.stop().await;
        self.peers.forget_server(&self.key_pair.public_key());
        // Connections under way end with this; those handed out do not.
    }

    async fn handle(&mut self, request: ServerRequest) {
        match request {
            ServerRequest::Handshake(incoming, message, way) => {
                if !self.is_suspended {
                    self.handle_handshake(incoming, message, way);
                }
            }
            ServerRequest::Round(incoming, message, way) => {
                self.handle_round(incoming, message, way);
            }
            ServerRequest::Suspend(_done) => {
                self.is_suspended = true;
                self.handshakes.clear();
                self.accepting.abort_all();
                self.announcing.stop().await;
            }
            ServerRequest::Resume(_done) => {
                self.is_suspended = false;
                self.announcing.resume();
            }
            ServerRequest::Refresh(_done) => self.announcing.refresh(),
        }
    }

    fn handle_handshake(&mut self, incoming: Incoming, message: Handshake, way: Return) {
        let client = way.client(incoming.from);
        let met = self
            .handshakes
            .meet(&message.noise, *client.ip(), |_| Slot::default());
        let number = match met {
            Met::Before(number) => number,
            Met::NoRoom => return,
            Met::New(number) => {
                let slot = match self.answer(number, &incoming, &message, way) {
                    Ok(slot) => slot,
                    Err(error) => {
                        tracing::debug!(%error, %client, "handshake");
                        None
                    }
                };
                let is_over = slot.as_ref().is_none_or(|slot| slot.rounds.is_none());
                if let (Some(slot), Some(place)) = (slot, self.handshakes.get(number)) {
                    *place = slot;
                }
                if is_over {
                    self.handshakes.clear_later(self.net.now(), number);
                }
                number
            }
        };
        let slot = self.handshakes.get(number);
        if let Some((noise, socket)) = slot.and_then(|slot| slot.reply.clone()) {
            self.reply(incoming, way, noise, socket);
        }
    }

    /// The handshake of a task, unless it was forgotten: numbers are used again.
    fn number_of(&mut self, id: task::Id) -> Option<u64> {
        let number = *self.numbers.get(&id)?;
        let task = self.handshakes.get(number)?.task.as_ref()?;
        (task.0.id() == id).then_some(number)
    }

    fn reply(&self, incoming: Incoming, way: Return, noise: Vec<u8>, socket: Option<Socket>) {
        match way.handshake(noise) {
            (value, None) => self.net.reply(incoming, Answer::bare(Some(value.to_vec()))),
            (value, Some(relay)) => self.net.relay(incoming, value.to_vec(), relay, socket),
        }
    }

    /// Answers a new handshake and starts its connection; `None` is silence.
    fn answer(
        &mut self,
        number: u64,
        incoming: &Incoming,
        message: &Handshake,
        way: Return,
    ) -> Result<Option<Slot>, ConnectError> {
        let Ok(met) = ServerHandshake::read(&self.key_pair, &message.noise) else {
            return Ok(None);
        };
        let client = way.client(incoming.from);
        let payload = match met.payload() {
            Ok(payload) => payload.clone(),
            Err(refusal) => return Ok(refuse(met, &self.payload(refusal, None, None, None))),
        };
        let caller = Caller {
            public_key: met.remote_public_key(),
            address: client,
            payload: &payload,
        };
        if !(self.options.admits)(&caller) {
            return Ok(None);
        }
        let remote_id = payload.udx.and_then(|udx| u32::try_from(udx.id).ok());
        let Some(remote_id) = remote_id else {
            return Ok(None);
        };
        let stream = raw_stream(self.net.udx())?;
        let (relay_through, room) = self.name_relay().unzip();
        let is_open = self.net.public_address().is_some();
        let holepunch = (!is_open).then(|| HolepunchInfo {
            id: number,
            relays: self.announcing.relays(),
        });
        let ours = self.payload(Refusal::NONE, holepunch, Some(&stream), relay_through);
        let (noise, keys) = match met.answer(&ours) {
            Ok(answered) => answered,
            Err(_) => return Ok(None),
        };
        let server_way = self.way(way, incoming, &payload, is_open);
        let sealing = Sealing::new(&keys.hash, random::bytes());
        let punching = match server_way {
            ServerWay::Punch | ServerWay::AwaitLan => {
                Some(ServerPunching::new(&self.net, sealing, payload.firewall))
            }
            _ => None,
        };
        let socket = match server_way {
            ServerWay::Punch => punching.as_ref().and_then(ServerPunching::socket),
            _ => None,
        };
        let (rounds, receiver) = mpsc::channel(ROUNDS_MAX);
        let accepting = Accepting {
            peers: self.peers.clone(),
            stream,
            keys,
            remote_id,
            way: server_way,
            socket: incoming.socket,
            punching,
            relay: self.at_relay(relay_through, room, &payload),
            rounds: receiver,
            came: self.came.0.clone(),
            connections: self.connections.clone(),
            relay_linger: self.options.relay_linger,
        };
        let task = self.accepting.spawn(accept(accepting));
        self.numbers.insert(task.id(), number);
        Ok(Some(Slot {
            reply: Some((noise, socket)),
            rounds: Some(rounds),
            task: Some(Ending(task)),
        }))
    }

    /// The relay that a client is to meet us at, if there is one now, under a token of its own.
    fn name_relay(&self) -> Option<(RelayThrough, OwnedSemaphorePermit)> {
        let public_key = (self.options.relay_through)()?;
        let through = RelayThrough {
            public_key,
            token: random::bytes::<32>().into(),
        };
        Some((through, self.meetings.ours()?))
    }

    fn at_relay(
        &self,
        ours: Option<RelayThrough>,
        room: Option<OwnedSemaphorePermit>,
        payload: &NoisePayload,
    ) -> Option<AtRelay> {
        let (through, is_ours) = server_relay_way(ours, payload)?;
        let room = room.or_else(|| self.meetings.theirs())?;
        Some(AtRelay {
            through,
            is_ours,
            room,
        })
    }

    fn way(
        &self,
        way: Return,
        incoming: &Incoming,
        payload: &NoisePayload,
        is_open: bool,
    ) -> ServerWay {
        let interfaces = self.net.interfaces();
        let asked = Asked {
            is_direct: way == Return::Direct,
            client_address: way.client(incoming.from),
            server_address: incoming.to,
            payload,
        };
        let ours = Ours {
            firewall: match is_open {
                true => Firewall::OPEN,
                false => Firewall::UNKNOWN,
            },
            interfaces: &interfaces,
            port: self.net.server_port(),
            lan: self.options.lan,
            punch: self.options.punch,
            relay_through: None,
        };
        server_way(&asked, &ours)
    }

    fn payload(
        &self,
        error: Refusal,
        holepunch: Option<HolepunchInfo>,
        stream: Option<&UdxStream>,
        relay_through: Option<RelayThrough>,
    ) -> NoisePayload {
        let public = self.net.public_address();
        let lan = self.options.lan.then(|| self.net.lan_addresses());
        let relay_addresses = self.announcing.addresses();
        NoisePayload {
            error,
            firewall: match public {
                Some(_) => Firewall::OPEN,
                None => Firewall::UNKNOWN,
            },
            holepunch,
            addresses4: public
                .into_iter()
                .chain(lan.into_iter().flatten())
                .collect(),
            relay_through,
            relay_addresses: (!relay_addresses.is_empty()).then_some(relay_addresses),
            ..NoisePayload::new(stream.map_or(0, |stream| stream.local_id()))
        }
    }

    fn handle_round(&mut self, incoming: Incoming, message: Holepunch, way: Return) {
        let is_our_relay = self.announcing.is_relay(&incoming.from);
        let slot = self.handshakes.get(message.id);
        if let Some(rounds) = slot.and_then(|slot| slot.rounds.as_ref()) {
            let _ = rounds.try_send(Box::new(RoundIn {
                incoming,
                message,
                way,
                is_our_relay,
            }));
        }
    }
}

fn refuse(met: ServerHandshake, payload: &NoisePayload) -> Option<Slot> {
    let (noise, _) = met.answer(payload).ok()?;
    Some(Slot {
        reply: Some((noise, None)),
        rounds: None,
        task: None,
    })
}
