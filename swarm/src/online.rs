//! The HyperDHT as a discovery and a transport of a swarm.
//! Knows how one node serves both. Does not know how it finds or reaches anybody: that is `dht` and `connect`.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};

use ferrocore_dht::hyperdht::announce::Peer;
use ferrocore_dht::id::Id;
use ferrocore_dht::nat::Seen;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Topic;
use crate::connect::{
    ConnectError, ConnectOptions, DialEvent, ListenOptions, Peers, Route, Server, Watcher,
};
use crate::dht::{AnnounceOptions, Dht};
use crate::discovery::{Discovery, DiscoveryError, Finder, Interest};
use crate::latest::Latest;
use crate::limits::{
    DHT_FOUND_EACH, DHT_FOUND_MAX, DIAL_TIMEOUT, LISTEN_PATIENCE, PEERS_KNOWN_MAX,
};
use crate::shares::Shares;
use crate::target::{Address, PeerId, Target};
use crate::transport::{
    BoxFuture, DialError, Established, Inbound, ListenError, Paths, Transport, Via,
};

/// One node of the HyperDHT, by which a swarm finds peers, reaches them and is reached. A cheap clone.
#[derive(Clone)]
pub struct Online {
    shared: Arc<Shared>,
}

struct Shared {
    peers: Peers,
    relay_through: Option<PublicKey>,
    /// Whether a topic is served: only then anybody need reach us.
    is_serving: watch::Sender<bool>,
    /// The nodes that pass handshakes on to us; none until we are announced.
    relays: watch::Sender<Vec<SocketAddrV4>>,
    /// The nodes closest to each topic that we announced.
    announced: Mutex<HashMap<Topic, Vec<SocketAddrV4>>>,
    /// Who could not be reached without a relay, the latest of them.
    needs_relay: Mutex<Latest<PublicKey>>,
}

impl Online {
    /// Over `dht`, as the owner of `key_pair`, which must be the swarm's. A peer that cannot be reached otherwise is met at the
    /// blind relay `relay_through`, if there is one.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(dht: Dht, key_pair: KeyPair, relay_through: Option<PublicKey>) -> Self {
        let shared = Shared {
            peers: Peers::new(dht, key_pair),
            relay_through,
            is_serving: watch::Sender::new(false),
            relays: watch::Sender::new(Vec::new()),
            announced: Mutex::default(),
            needs_relay: Mutex::new(Latest::new(PEERS_KNOWN_MAX)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The node.
    pub fn dht(&self) -> &Dht {
        self.shared.peers.dht()
    }

    /// What makes the connections, for those beside the swarm's.
    pub fn peers(&self) -> &Peers {
        &self.shared.peers
    }
}

impl Discovery for Online {
    fn name(&self) -> &'static str {
        "dht"
    }

    fn refresh<'a>(
        &'a self,
        interest: Interest,
        finder: Finder,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(async move {
            self.dht().bootstrapped().await.map_err(failed)?;
            let topic = finder.topic();
            if interest.server {
                self.shared.is_serving.send_replace(true);
            }
            let was_served = self.shared.announced().contains_key(&topic);
            let mut closest = Vec::new();
            if interest.client {
                closest = self.shared.look_up(&finder).await?;
            }
            if interest.server {
                self.shared.announce(topic, closest, !was_served).await
            } else if was_served {
                self.shared.take_back(topic).await
            } else {
                Ok(())
            }
        })
    }

    fn leave<'a>(&'a self, topic: Topic) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let was_served = self.shared.announced().contains_key(&topic);
            if was_served && let Err(error) = self.shared.take_back(topic).await {
                tracing::debug!(%topic, %error, "an announcement stands until it is forgotten");
            }
        })
    }
}

impl Shared {
    /// Hands in whoever is found; returns the nodes closest to the topic.
    async fn look_up(&self, finder: &Finder) -> Result<Vec<SocketAddrV4>, DiscoveryError> {
        let known = self.announced().get(&finder.topic()).cloned();
        let id = Id::from(*finder.topic().as_bytes());
        let dht = self.peers.dht();
        let mut lookup = dht
            .lookup_from(id, known.unwrap_or_default())
            .map_err(failed)?;
        let mut shares = Shares::new(DHT_FOUND_EACH, DHT_FOUND_MAX);
        while let Some((_, reply)) = lookup.next().await {
            let peers = reply.peers.into_iter();
            let share = shares.handle_answer(peers.map(|peer| (peer.public_key, peer)));
            hand_in(finder, share).await;
        }
        hand_in(finder, shares.into_rest()).await;
        let outcome = lookup.finish().await.map_err(failed)?;
        if outcome.successes == 0 {
            return Err(DiscoveryError("no node of the DHT answers".into()));
        }
        Ok(outcome
            .closest
            .iter()
            .map(|response| response.from)
            .collect())
    }

    async fn announce(
        &self,
        topic: Topic,
        nodes: Vec<SocketAddrV4>,
        clear: bool,
    ) -> Result<(), DiscoveryError> {
        let relays = self.known_relays().await;
        let options = AnnounceOptions {
            clear,
            nodes,
            ..AnnounceOptions::default()
        };
        let (id, keys) = (Id::from(*topic.as_bytes()), self.peers.key_pair());
        self.announced().entry(topic).or_default();
        let dht = self.peers.dht();
        let stored = dht.announce_with(id, &keys, relays, options).await;
        let stored = stored.map_err(failed)?;
        self.announced().insert(topic, stored.nodes);
        Ok(())
    }

    /// Who passes handshakes on to us: whom nobody does that for is found in vain, so it is worth a wait.
    async fn known_relays(&self) -> Vec<SocketAddrV4> {
        let mut relays = self.relays.subscribe();
        let known = relays.wait_for(|relays| !relays.is_empty());
        timeout(LISTEN_PATIENCE, known).await.ok();
        self.relays.borrow().clone()
    }

    async fn take_back(&self, topic: Topic) -> Result<(), DiscoveryError> {
        self.announced().remove(&topic);
        let (id, keys) = (Id::from(*topic.as_bytes()), self.peers.key_pair());
        let taken_back = self.peers.dht().unannounce(id, &keys).await;
        taken_back.map(drop).map_err(failed)
    }

    fn announced(&self) -> std::sync::MutexGuard<'_, HashMap<Topic, Vec<SocketAddrV4>>> {
        self.announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_need(&self, key: PublicKey) {
        let mut needs = self
            .needs_relay
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        needs.insert(key);
    }

    /// The relay to meet anybody at, when our own NAT gives out random ports.
    fn relay_for_all(&self) -> Option<PublicKey> {
        let is_random = || matches!(self.peers.dht().status().seen, Seen::Host(_));
        self.relay_through.filter(|_| is_random())
    }

    /// The relay to meet a peer at that we dial: also one that is known to need it.
    fn relay_for(&self, key: &PublicKey) -> Option<PublicKey> {
        let needs = self
            .needs_relay
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let needed = self.relay_through.filter(|_| needs.contains(key));
        needed.or_else(|| self.relay_for_all())
    }

    /// Takes in who connects, and keeps in mind through whom they may.
    async fn serve(&self, mut server: Server, inbound: Inbound) {
        let mut announced = server.announcement();
        let mut disruptions = self.peers.dht().disruptions();
        loop {
            let relays = announced.relay_addresses();
            self.relays.send_if_modified(|known| {
                let is_news = *known != relays;
                *known = relays;
                is_news
            });
            tokio::select! {
                connection = server.accept() => match connection {
                    Some(connection) => {
                        let address = connection.remote_address();
                        let (via, messages) = (via(connection.route), connection.messages());
                        let established = Established::new(connection.stream, via, address);
                        inbound.hand_in(established.with_messages(messages)).await;
                    }
                    None => return,
                },
                () = announced.changed() => {}
                Ok(()) = disruptions.changed() => {
                    // Those who pass handshakes on to us see us elsewhere now.
                    self.peers.refresh().await;
                }
            }
        }
    }
}

impl Transport for Online {
    fn name(&self) -> &'static str {
        "dht"
    }

    fn can_dial(&self, target: &Target) -> bool {
        target.expected_key().is_some()
    }

    fn dial<'a>(
        &'a self,
        target: &'a Target,
        key_pair: &'a KeyPair,
        paths: &'a Paths,
    ) -> BoxFuture<'a, Result<Established, DialError>> {
        Box::pin(async move {
            let key = target.expected_key().ok_or(DialError::NoAddress)?;
            let relays = target.addresses.iter().filter_map(|address| match address {
                Address::Relay(address) => Some(*address),
                _ => None,
            });
            let options = ConnectOptions {
                key_pair: Some(key_pair.clone()),
                relay_addresses: relays.collect(),
                relay_through: self.shared.relay_for(&key),
                timeout: DIAL_TIMEOUT,
                watcher: watcher(paths),
                ..ConnectOptions::default()
            };
            match self.shared.peers.connect(key, options).await {
                Ok(connection) => {
                    let (via, address) = (via(connection.route), connection.remote_address());
                    let (pulse, messages) = (connection.handle(), connection.messages());
                    let established = Established::new(connection.stream, via, address);
                    Ok(established.with_pulse(pulse).with_messages(messages))
                }
                Err(error @ (ConnectError::CannotPunch | ConnectError::Punch(_))) => {
                    self.shared.note_need(key);
                    Err(DialError::NeedsRelay(error.to_string()))
                }
                Err(error) => Err(DialError::Other(error.to_string())),
            }
        })
    }

    fn listen<'a>(
        &'a self,
        key_pair: &'a KeyPair,
        inbound: Inbound,
    ) -> BoxFuture<'a, Result<(), ListenError>> {
        Box::pin(async move {
            let mut is_serving = self.shared.is_serving.subscribe();
            is_serving.wait_for(|is_serving| *is_serving).await.ok();
            let asked = inbound.clone();
            let options = ListenOptions::default();
            let options = options.admit(move |caller| asked.admits(&caller.public_key));
            let shared = Arc::downgrade(&self.shared);
            let options = options
                .relay_through(move || shared.upgrade().and_then(|shared| shared.relay_for_all()));
            let server = self.shared.peers.listen(key_pair.clone(), options);
            let server = server.map_err(|error| ListenError {
                transport: "dht",
                reason: error.to_string(),
            })?;
            self.shared.serve(server, inbound).await;
            Ok(())
        })
    }

    fn suspend(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.shared.peers.suspend().await;
            // Announced again, it is by whoever passes handshakes on to us then.
            self.shared.relays.send_replace(Vec::new());
            self.shared.announced().clear();
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), ListenError>> {
        Box::pin(async {
            let resumed = self.shared.peers.resume().await;
            resumed.map_err(|error| ListenError {
                transport: "dht",
                reason: error.to_string(),
            })
        })
    }

    fn disrupted(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.dht().disruptions().changed().await.is_err() {
                std::future::pending().await
            }
        })
    }
}

async fn hand_in(finder: &Finder, peers: Vec<Peer>) {
    for peer in peers {
        let relays = peer.relay_addresses.into_iter();
        let addresses = relays.map(Address::Relay).collect();
        let id = PeerId::Key(peer.public_key);
        finder.found(Target { id, addresses }).await;
    }
}

fn watcher(paths: &Paths) -> Watcher {
    let paths = paths.clone();
    Watcher::new(move |event| match event {
        DialEvent::Trying { route, address } => match address {
            Some(address) => paths.trying(format_args!("{route} {address}")),
            None => paths.trying(route),
        },
        DialEvent::Failed { route, reason } => paths.failed(route, reason),
        DialEvent::Searching => paths.trying("search"),
        _ => {}
    })
}

fn via(route: Route) -> Via {
    match route {
        Route::Lan => Via::Lan,
        Route::Punched => Via::Punched,
        Route::Relayed => Via::Relayed,
        _ => Via::Direct,
    }
}

fn failed(error: impl fmt::Display) -> DiscoveryError {
    DiscoveryError(error.to_string())
}

impl fmt::Debug for Online {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Online")
            .field("dht", self.dht())
            .finish_non_exhaustive()
    }
}
