//! A node of the DHT as a peer: who it listens as, whom it connects to, for whom it relays.
//! Knows which task a message is for. Does not know how connections are made.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ferrocore_dht::hyperdht::router::{Known, Next, route_handshake, route_holepunch};
use ferrocore_dht::hyperdht::{PEER_HANDSHAKE, PEER_HOLEPUNCH};
use ferrocore_dht::id::Id;
use ferrocore_dht::rpc::Incoming;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use tokio::sync::{mpsc, oneshot};

use super::dial::{ConnectOptions, dial};
use super::error::ConnectError;
use super::net::Net;
use super::server::{ListenOptions, Server, ServerRequest, listen};
use super::stream::Connection;
use crate::dht::{Arrival, Dht, DhtError};

/// Peers whose relays are remembered.
const REMEMBERED_MAX: usize = 512;

/// Relays remembered of one peer.
const REMEMBERED_RELAYS_MAX: usize = 3;

/// Makes connections over the DHT. Clones are the same.
#[derive(Debug, Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    net: Net,
    key_pair: KeyPair,
    servers: Mutex<HashMap<Id, mpsc::Sender<ServerRequest>>>,
    remembered: Mutex<Remembered>,
}

/// Where peers were found the last time, oldest first.
#[derive(Debug, Default)]
struct Remembered {
    relays: HashMap<PublicKey, Vec<SocketAddrV4>>,
    order: VecDeque<PublicKey>,
}

/// Why a key cannot be listened under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Drop another server first.
    #[error("this node listens under too many keys")]
    TooMany,
    /// Use the server that there is; or, where it was dropped just now, [`close`](Server::close) it.
    #[error("this node listens under that key already")]
    AlreadyListening,
}

impl Peers {
    /// Connections over `dht`, as the owner of `key_pair` unless something else is said. There can be only one of these
    /// for each node: a second one hears nothing.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(dht: Dht, key_pair: KeyPair) -> Self {
        let arrivals = dht.arrivals();
        let peers = Self::over(Net::new(dht), key_pair);
        if let Some(arrivals) = arrivals {
            tokio::spawn(hand_in(Arc::downgrade(&peers.shared), arrivals));
        }
        peers
    }

    fn over(net: Net, key_pair: KeyPair) -> Self {
        let shared = Shared {
            net,
            key_pair,
            servers: Mutex::default(),
            remembered: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Listens under a key, and announces it.
    ///
    /// # Errors
    /// [`ListenError::AlreadyListening`].
    pub fn listen(&self, key_pair: KeyPair, options: ListenOptions) -> Result<Server, ListenError> {
        let target = Id::of_public_key(&key_pair.public_key());
        if self.servers().contains_key(&target) {
            return Err(ListenError::AlreadyListening);
        }
        if !self.net().serve(key_pair.public_key()) {
            return Err(ListenError::TooMany);
        }
        let (server, requests) = listen(self, key_pair, options);
        self.servers().insert(target, requests);
        Ok(server)
    }

    /// Connects to the owner of `key`, by the first way that carries.
    ///
    /// # Errors
    /// [`ConnectError`] says what failed last, [`ConnectOptions::watcher`] hears of everything that did.
    pub async fn connect(
        &self,
        key: PublicKey,
        options: ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        dial(self, key, options).await
    }

    /// Who we are where nothing else is said.
    pub fn key_pair(&self) -> KeyPair {
        self.shared.key_pair.clone()
    }

    /// Takes all announcements back, as far as nodes answer in time, and puts the node to sleep. All connections end.
    pub async fn suspend(&self) {
        self.tell_servers(ServerRequest::Suspend).await;
        self.net().dht().suspend().await;
    }

    /// Wakes the node up and announces all servers again.
    ///
    /// # Errors
    /// [`DhtError::Io`] if no socket can be bound; everything sleeps on.
    pub async fn resume(&self) -> Result<(), DhtError> {
        self.net().dht().resume().await?;
        self.tell_servers(ServerRequest::Resume).await;
        Ok(())
    }

    /// The node.
    pub fn dht(&self) -> &Dht {
        self.net().dht()
    }

    /// The network has changed: announces all servers anew.
    pub async fn refresh(&self) {
        self.tell_servers(ServerRequest::Refresh).await;
    }

    pub(super) fn net(&self) -> &Net {
        &self.shared.net
    }

    pub(super) fn forget_server(&self, key: &PublicKey) {
        self.net().unserve(key);
        self.servers().remove(&Id::of_public_key(key));
    }

    /// Nodes that may know `server`: those the caller names, else those it was found through before.
    pub(super) fn known_relays(
        &self,
        server: &PublicKey,
        given: &[SocketAddrV4],
    ) -> Vec<SocketAddrV4> {
        if !given.is_empty() {
            return given.to_vec();
        }
        let remembered = self.remembered();
        remembered.relays.get(server).cloned().unwrap_or_default()
    }

    pub(super) fn remember_relays(&self, server: PublicKey, mut relays: Vec<SocketAddrV4>) {
        relays.truncate(REMEMBERED_RELAYS_MAX);
        let mut remembered = self.remembered();
        if relays.is_empty() {
            return;
        }
        if remembered.relays.insert(server, relays).is_none() {
            remembered.order.push_back(server);
        }
        if remembered.order.len() > REMEMBERED_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.relays.remove(&oldest);
        }
    }

    /// Hands a handshake or a round to its server. The node has passed on what is for others.
    fn handle(&self, incoming: Incoming) {
        let target = incoming.target;
        let Some(server) = target.and_then(|target| self.servers().get(&target).cloned()) else {
            return;
        };
        let value = incoming.value.as_deref().unwrap_or_default();
        let request = match incoming.command {
            PEER_HANDSHAKE => match route_handshake(value, incoming.from, Known::Server) {
                Next::ToServer(message, way) => ServerRequest::Handshake(incoming, message, way),
                _ => return,
            },
            PEER_HOLEPUNCH => match route_holepunch(value, incoming.from, Known::Server) {
                Next::ToServer(message, way) => ServerRequest::Round(incoming, message, way),
                _ => return,
            },
            _ => return,
        };
        let _ = server.try_send(request);
    }

    /// Tells all servers, and waits until they have done it.
    async fn tell_servers(&self, request: impl Fn(oneshot::Sender<()>) -> ServerRequest) {
        let servers: Vec<_> = self.servers().values().cloned().collect();
        let mut done = Vec::new();
        for server in servers {
            let (sender, receiver) = oneshot::channel();
            if server.send(request(sender)).await.is_ok() {
                done.push(receiver);
            }
        }
        for done in done {
            let _ = done.await;
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<Id, mpsc::Sender<ServerRequest>>> {
        let servers = &self.shared.servers;
        servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        let remembered = &self.shared.remembered;
        remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hand_in(shared: Weak<Shared>, mut arrivals: mpsc::Receiver<Arrival>) {
    while let Some(arrival) = arrivals.recv().await {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if let Arrival::Request(incoming) = arrival {
            Peers { shared }.handle(incoming);
        }
    }
}
