//! Connecting to a peer by its key.
//! Knows the order of a dial: handshake, then all ways at once. Does not know how each way is made, nor which path wins.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::handshake::ClientHandshake;
use ferrocore_dht::hyperdht::noise::{Firewall, NoisePayload, RelayThrough};
use ferrocore_dht::hyperdht::path::{Answered, Ours, Way, client_ways};
use ferrocore_dht::hyperdht::punch::client::Start;
use ferrocore_dht::hyperdht::seal::Sealing;
use ferrocore_dht::id::Id;
use ferrocore_dht::rpc::{Outgoing, Socket};
use ferrocore_primitives::random;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_udx::socket::{Path, StreamHandle, UdxSocket, UdxStream};
use tokio::time::{sleep, timeout};

use super::blind::{Meeting, meet};
use super::error::{ConnectError, DialEvent, Route, Watcher};
use super::net::{Extra, Net, v4};
use super::peers::Peers;
use super::punching::punch_to_server;
use super::race::{Carrier, Found, Race, Tries, Won};
use super::roam::{Sightings, follow, is_heard, look, socket_of, stand_by};
use super::search::{Answer, search};
use super::stream::{Connection, PATH_TIMEOUT, raw_stream};
use crate::dht::WeakDht;

/// How long a dial may take, unless [`ConnectOptions`] say otherwise.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the way through a relay is kept after the stream has left it, unless [`ConnectOptions`] or
/// [`ListenOptions`](super::ListenOptions) say otherwise: what was sent there may still arrive.
pub const RELAY_LINGER: Duration = Duration::from_secs(10);

/// How to dial.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Who we are; the node's own pair if none is given.
    pub key_pair: Option<KeyPair>,
    /// Nodes that may know the peer.
    pub relay_addresses: Vec<SocketAddrV4>,
    /// A blind relay to meet at if the peer names none.
    pub relay_through: Option<PublicKey>,
    /// Whether networks of both are tried.
    pub lan: bool,
    /// Whether NATs are punched through.
    pub punch: bool,
    /// Whether a NAT is opened before the peer has agreed to punch: mostly faster.
    pub fast_open: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// How long the way through a relay is kept after the stream has left it.
    pub relay_linger: Duration,
    /// Is told each step.
    pub watcher: Watcher,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            key_pair: None,
            relay_addresses: Vec::new(),
            relay_through: None,
            lan: true,
            punch: true,
            fast_open: true,
            timeout: DIAL_TIMEOUT,
            relay_linger: RELAY_LINGER,
            watcher: Watcher::default(),
        }
    }
}

pub(super) async fn dial(
    peers: &Peers,
    server: PublicKey,
    options: ConnectOptions,
) -> Result<Connection, ConnectError> {
    let limit = options.timeout;
    let dialling = Dial::run(peers, server, options);
    timeout(limit, dialling)
        .await
        .map_err(|_| ConnectError::Timeout)?
}

struct Dial<'a> {
    peers: &'a Peers,
    net: &'a Net,
    options: ConnectOptions,
    target: Id,
    relay_through: Option<RelayThrough>,
    firewall: Firewall,
}

impl<'a> Dial<'a> {
    async fn run(
        peers: &'a Peers,
        server: PublicKey,
        options: ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        let net = peers.net();
        net.check()?;
        let token = || random::bytes::<32>().into();
        let dial = Self {
            peers,
            net,
            target: Id::of_public_key(&server),
            relay_through: options.relay_through.map(|public_key| RelayThrough {
                public_key,
                token: token(),
            }),
            firewall: match net.public_address() {
                Some(_) => Firewall::OPEN,
                None => Firewall::UNKNOWN,
            },
            options,
        };
        let stream = raw_stream(net.udx())?;
        let key_pair = dial.options.key_pair.clone();
        let key_pair = key_pair.unwrap_or_else(|| peers.key_pair());
        let payload = dial.payload(&stream);
        let handshake = ClientHandshake::new(&key_pair, server, &payload)?;
        let own = net.server_of(&dial.target).into_iter();
        let known = peers.known_relays(&server, &dial.options.relay_addresses);
        let known: Vec<_> = own.chain(known).collect();
        let watcher = &dial.options.watcher;
        let answer = search(net, dial.target, &handshake, &known, watcher).await?;
        let connection = dial.take_ways(stream, &answer).await?;
        let told = answer.agreed.payload.relay_addresses.clone();
        peers.remember_relays(server, told.unwrap_or(answer.relays));
        Ok(connection)
    }

    fn payload(&self, stream: &UdxStream) -> NoisePayload {
        let lan = self.options.lan.then(|| self.net.lan_addresses());
        let public = self.net.public_address().into_iter();
        NoisePayload {
            firewall: self.firewall,
            addresses4: public.chain(lan.into_iter().flatten()).collect(),
            relay_through: self.relay_through,
            ..NoisePayload::new(stream.local_id())
        }
    }

    fn ways(&self, answer: &Answer) -> Vec<Way> {
        let interfaces = self.net.interfaces();
        let answered = Answered {
            asked: answer.asked,
            is_relayed: answer.reply.is_relayed,
            server_address: answer.reply.server_address,
            client_address: answer.client_address,
            payload: &answer.agreed.payload,
        };
        let ours = Ours {
            firewall: self.firewall,
            interfaces: &interfaces,
            port: self.net.server_port(),
            lan: self.options.lan,
            punch: self.options.punch,
            relay_through: self.relay_through,
        };
        client_ways(&answered, &ours)
    }

    /// Tries all ways at once, and takes the first.
    async fn take_ways(
        &self,
        stream: UdxStream,
        answer: &Answer,
    ) -> Result<Connection, ConnectError> {
        let udx = answer.agreed.payload.udx;
        let udx = udx.and_then(|udx| u32::try_from(udx.id).ok());
        let remote_id = udx.ok_or(ConnectError::NoAnswer)?;
        let ways = self.ways(answer);
        if ways.contains(&Way::Await) {
            stream.listen(remote_id);
        }
        let has_relay = ways.iter().any(|way| matches!(way, Way::Relay { .. }));
        let mut tries = Tries::new();
        for way in ways {
            self.start(&mut tries, way, answer, &stream, has_relay);
        }
        let (keys, watcher) = (answer.agreed.keys.clone(), &self.options.watcher);
        let won = Race::new(remote_id, keys, watcher, tries)
            .run(stream)
            .await?;
        Ok(self.settle(won, remote_id))
    }

    /// A relay is left for the first of the other ways that leads to the peer.
    fn settle(&self, won: Won, remote_id: u32) -> Connection {
        let handle = won.connection.handle();
        let (route, address) = (won.route, won.found.address());
        self.tell(DialEvent::Connected { route, address });
        match won.found {
            Found::Path(carrier) => {
                follow(self.net.dht().downgrade(), handle, carrier.extra, None);
            }
            Found::Meeting(meeting) => {
                let leaving = Leaving {
                    dht: self.net.dht().downgrade(),
                    handle,
                    remote_id,
                    meeting,
                    watcher: self.options.watcher.clone(),
                    linger: self.options.relay_linger,
                };
                tokio::spawn(leaving.run(won.tries));
            }
        }
        won.connection
    }

    fn start(
        &self,
        tries: &mut Tries,
        way: Way,
        answer: &Answer,
        stream: &UdxStream,
        has_relay: bool,
    ) {
        let net = self.net.clone();
        let trying = |route, address| self.tell(DialEvent::Trying { route, address });
        match way {
            Way::Direct(to) => {
                trying(Route::Direct, Some(to));
                tries.spawn(async move { (Route::Direct, net.server_path(to)) });
            }
            Way::Await => {
                trying(Route::Direct, None);
                let handle = stream.handle();
                tries.spawn(async move { (Route::Direct, wait(&net, &handle).await) });
            }
            Way::Lan(to) => {
                trying(Route::Lan, Some(to));
                tries.spawn(async move { (Route::Lan, knock(&net, to).await) });
            }
            Way::Punch(relay) => {
                trying(Route::Punched, Some(answer.reply.server_address));
                let hash = &answer.agreed.keys.hash;
                let info = answer.agreed.payload.holepunch.as_ref();
                let start = Start {
                    sealing: Sealing::new(hash, random::bytes()),
                    id: info.map_or(0, |info| info.id),
                    client_relay: answer.asked,
                    server_address: answer.reply.server_address,
                    server_relay: relay,
                    has_relay,
                    fast_open: self.options.fast_open,
                    seed: random::u64(),
                };
                let (target, remote) = (self.target, answer.agreed.payload.firewall);
                tries.spawn(async move {
                    let punched = punch_to_server(&net, target, start, remote).await;
                    let found = punched.map(|(extra, to)| Found::Path(Carrier::punched(extra, to)));
                    (Route::Punched, found.map_err(ConnectError::from))
                });
            }
            Way::Relay {
                through,
                is_initiator,
            } => {
                trying(Route::Relayed, None);
                self.tell(DialEvent::Relay(through.public_key));
                let (peers, id) = (self.peers.clone(), stream.local_id());
                tries.spawn(async move {
                    let met = meet(peers, through, is_initiator, id).await;
                    let found = met.map(Found::Meeting).map_err(ConnectError::from);
                    (Route::Relayed, found)
                });
            }
        }
    }

    fn tell(&self, event: DialEvent) {
        self.options.watcher.tell(event);
    }
}

/// Waits for the peer's first packet.
async fn wait(net: &Net, handle: &StreamHandle) -> Result<Found, ConnectError> {
    let connected = timeout(PATH_TIMEOUT, handle.connected()).await;
    let address = match connected {
        Ok(Ok(address)) => v4(address),
        _ => None,
    };
    let address = address.ok_or(ConnectError::NoAnswer)?;
    let local = handle.local_addr();
    let socket = local.and_then(|local| net.socket_at(local));
    let socket = socket.ok_or(ConnectError::NoAnswer)?;
    Ok(Found::Path(Carrier::own(socket, address)))
}

/// Pings an address on the local network.
async fn knock(net: &Net, to: SocketAddrV4) -> Result<Found, ConnectError> {
    let ping = Outgoing {
        socket: Some(Socket::Server),
        ..Outgoing::ping(to)
    };
    let answer = net.request(ping).await;
    answer.map_err(|_| ConnectError::Lan(to))?;
    net.server_path(to)
}

/// A relayed stream whose other ways are still tried.
struct Leaving {
    dht: WeakDht,
    handle: StreamHandle,
    remote_id: u32,
    meeting: Meeting,
    watcher: Watcher,
    linger: Duration,
}

impl Leaving {
    async fn run(self, tries: Tries) {
        let (dht, handle) = (self.dht.clone(), self.handle.clone());
        tokio::select! {
            () = self.move_over(tries) => {}
            () = stand_by(&dht, &handle) => {}
        }
    }

    /// Moves the stream to the first direct path on which the peer is heard, and then leaves the relay. Paths that were silent are
    /// kept: a peer that was slow goes over to one for good, and leaves the relay, after we have come back from it.
    async fn move_over(self, mut tries: Tries) {
        let (mut silent, mut sightings) = (Vec::new(), Sightings::new());
        loop {
            let (route, carrier) = tokio::select! {
                Some(done) = tries.join_next() => match done {
                    Ok((route, Ok(Found::Path(carrier)))) => (route, carrier),
                    Ok((route, Err(error))) => {
                        let reason = error.to_string();
                        self.watcher.tell(DialEvent::Failed { route, reason });
                        continue;
                    }
                    Ok((_, Ok(Found::Meeting(_)))) | Err(_) => continue,
                },
                path = self.handle.other_path(), if sightings.is_empty() => match path {
                    Ok(path) => {
                        self.look(&mut sightings, path, &silent);
                        continue;
                    }
                    Err(_) => return,
                },
                Some(seen) = sightings.join_next() => match seen {
                    Ok(Some((path, socket))) => self.way_of(&path, socket, &mut silent),
                    _ => continue,
                },
                _ = self.handle.closed() => return,
            };
            if self.change_to(&carrier) {
                if is_heard(&self.handle).await {
                    let address = carrier.to;
                    self.watcher.tell(DialEvent::Connected { route, address });
                    return self.leave(carrier.extra).await;
                }
                self.go_back(route, carrier.to);
                silent.push((route, carrier));
            }
        }
    }

    /// Asks whether somebody is where the peer's packets come from by now.
    fn look(&self, sightings: &mut Sightings, path: Path, silent: &[(Route, Carrier)]) {
        if path.remote == SocketAddr::from(self.meeting.address) {
            return;
        }
        let Some(dht) = self.dht.upgrade() else {
            return;
        };
        let mut extras = silent.iter().filter_map(|(_, way)| way.extra.as_ref());
        let extra = extras.find(|extra| extra.socket.local_addr() == path.local);
        if let Some(at) = socket_of(&dht, &path, extra) {
            look(sightings, dht, path, at);
        }
    }

    /// The way by which the peer has come: one of ours that was silent, or its own.
    fn way_of(
        &self,
        path: &Path,
        socket: UdxSocket,
        silent: &mut Vec<(Route, Carrier)>,
    ) -> (Route, Carrier) {
        let to = v4(path.remote).unwrap_or(self.meeting.address);
        let known = silent.iter().position(|(_, way)| {
            let is_there = way.socket.local_addr() == path.local;
            is_there && (way.extra.is_some() || way.to == to)
        });
        let known = known.map(|known| silent.swap_remove(known));
        match known {
            Some((route, carrier)) => (route, Carrier { to, ..carrier }),
            None => (Route::Direct, Carrier::own(socket, to)),
        }
    }

    /// False for the relay's own address: by that the peer came to whoever waited for its first packet.
    fn change_to(&self, carrier: &Carrier) -> bool {
        let Carrier { socket, to, .. } = carrier;
        let change = || {
            self.handle
                .change_remote(socket, self.remote_id, (*to).into())
        };
        *to != self.meeting.address && change().is_ok()
    }

    fn go_back(&self, route: Route, from: SocketAddrV4) {
        let reason = ConnectError::Silent(from).to_string();
        self.watcher.tell(DialEvent::Failed { route, reason });
        self.meeting.take(&self.handle);
    }

    async fn leave(self, extra: Option<Extra>) {
        show_path(&self.handle, self.linger).await;
        let left = Some(self.meeting.address.into());
        drop(self.meeting);
        follow(self.dht, self.handle, extra, left);
    }
}

/// Lets the peer see the new path, and waits until what went by the old one is through.
pub(super) async fn show_path(handle: &StreamHandle, linger: Duration) {
    let _ = handle.send_message(bytes::Bytes::new());
    let lingering = async {
        let _ = handle.moved().await;
        sleep(linger).await;
    };
    tokio::select! {
        () = lingering => {}
        _ = handle.closed() => {}
    }
}

impl Net {
    fn server_path(&self, to: SocketAddrV4) -> Result<Found, ConnectError> {
        let socket = self.server_socket().ok_or(ConnectError::Suspended)?;
        Ok(Found::Path(Carrier::own(socket, to)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::{Arc, Mutex};

    use ferrocore_udx::socket::Udx;
    use ferrocore_udx::stream::{CloseReason, Config};
    use tokio::sync::Notify;

    use super::*;
    use crate::dht::Dht;

    /// Goal: a stream whose relay carries is not lost to a path that does not, though somebody answered there. Method: such a path is
    /// found, and then the peer's own; the stream goes over to the first, comes back, and stays on the second.
    #[tokio::test]
    async fn a_relay_is_left_for_good_only_when_the_peer_is_heard_elsewhere() {
        let host = Ipv4Addr::LOCALHOST;
        let dht = Dht::builder().host(host).port(0).bootstrapper(host);
        let net = Net::new(dht.bind().unwrap());
        let far = Udx::new();
        let bind = |udx: &Udx| udx.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (relay, direct) = (bind(&far), bind(&far));
        let at = |socket: &UdxSocket| v4(socket.local_addr()).unwrap();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at_nobody = v4(nobody.local_addr().unwrap()).unwrap();
        let peer = far.create_stream(9, Config::default()).unwrap();
        peer.listen(7);
        let ours = net.server_socket().unwrap();
        let stream = net.udx().create_stream(7, Config::default()).unwrap();
        stream.connect(&ours, 9, at(&relay).into()).unwrap();
        stream
            .send_message(bytes::Bytes::from_static(b"here"))
            .unwrap();
        assert_eq!(peer.recv_message().await.unwrap(), "here");
        let (events, failed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (told, has_failed) = (Arc::clone(&events), Arc::clone(&failed));
        let leaving = Leaving {
            handle: stream.handle(),
            remote_id: 9,
            meeting: Meeting::at(ours.clone(), at(&relay), 9),
            watcher: Watcher::new(move |event| {
                if matches!(event, DialEvent::Failed { .. }) {
                    has_failed.notify_one();
                }
                told.lock().unwrap().push(event);
            }),
            linger: Duration::ZERO,
            dht: net.dht().downgrade(),
        };
        let mut tries = Tries::new();
        let silent = Carrier::own(ours.clone(), at_nobody);
        tries.spawn(async move { (Route::Lan, Ok(Found::Path(silent))) });
        let (good, handle) = (Carrier::own(ours, at(&direct)), peer.handle());
        let come_back = stream.handle();
        let at_relay = relay.local_addr();
        tries.spawn(async move {
            failed.notified().await;
            while come_back.remote().unwrap().0 != at_relay {
                tokio::task::yield_now().await;
            }
            (Route::Direct, Ok(Found::Path(good)))
        });
        tokio::spawn(async move {
            let path = handle.other_path().await.unwrap();
            let socket = direct.clone();
            handle.change_remote(&socket, 7, path.remote).unwrap();
            handle.send_message(bytes::Bytes::new()).unwrap();
            handle.closed().await;
        });
        leaving.run(tries).await;
        let routes: Vec<_> = events.lock().unwrap().iter().map(route_of).collect();
        assert_eq!(routes, [(Route::Lan, false), (Route::Direct, true)]);
    }

    /// Goal: a peer that is slow to be heard on a direct path, and leaves the relay for it after we have come back from there, is not
    /// lost. Method: it says nothing on the path until then.
    #[tokio::test]
    async fn a_peer_is_followed_to_a_path_that_was_given_up() {
        let host = Ipv4Addr::LOCALHOST;
        let node = || Dht::builder().host(host).port(0).bootstrapper(host).bind();
        let (net, far) = (Net::new(node().unwrap()), Net::new(node().unwrap()));
        let relay = far.udx().bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (ours, direct) = (net.server_socket().unwrap(), far.server_socket().unwrap());
        let at = |socket: &UdxSocket| v4(socket.local_addr()).unwrap();
        let (at_relay, at_direct) = (at(&relay), at(&direct));
        let peer = far.udx().create_stream(9, Config::default()).unwrap();
        peer.listen(7);
        let stream = net.udx().create_stream(7, Config::default()).unwrap();
        stream.connect(&ours, 9, at_relay.into()).unwrap();
        let here = bytes::Bytes::from_static(b"here");
        stream.send_message(here).unwrap();
        assert_eq!(peer.recv_message().await.unwrap(), "here");
        let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
        let leaving = Leaving {
            handle: stream.handle(),
            remote_id: 9,
            meeting: Meeting::at(ours.clone(), at_relay, 9),
            watcher: Watcher::new(move |event| told.send(route_of(&event)).unwrap()),
            linger: Duration::ZERO,
            dht: net.dht().downgrade(),
        };
        let mut tries = Tries::new();
        let way = Carrier::own(ours.clone(), at_direct);
        tries.spawn(async move { (Route::Lan, Ok(Found::Path(way))) });
        let leaving = tokio::spawn(leaving.run(tries));
        assert_eq!(events.recv().await, Some((Route::Lan, false)));
        while stream.remote().unwrap().0 != at_relay.into() {
            tokio::task::yield_now().await;
        }
        let handle = peer.handle();
        handle.change_remote(&direct, 7, at(&ours).into()).unwrap();
        handle.send_message(bytes::Bytes::new()).unwrap();
        let told = timeout(Duration::from_secs(30), events.recv()).await;
        assert_eq!(told, Ok(Some((Route::Lan, true))));
        assert_eq!(stream.remote().unwrap().0, at_direct.into());
        leaving.await.unwrap();
    }

    /// Goal: a relayed stream whose relay does not find us any more, for we have moved, ends in seconds. Method: the relay answers
    /// nothing after the network has changed; there is no other way.
    #[tokio::test]
    async fn a_relayed_stream_that_has_lost_its_relay_ends() {
        let host = Ipv4Addr::LOCALHOST;
        let dht = Dht::builder().host(host).port(0).bootstrapper(host);
        let dht = dht.bind().unwrap();
        let net = Net::new(dht.clone());
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at_nobody = v4(nobody.local_addr().unwrap()).unwrap();
        let ours = net.server_socket().unwrap();
        let stream = net.udx().create_stream(7, Config::default()).unwrap();
        stream.connect(&ours, 9, at_nobody.into()).unwrap();
        let leaving = Leaving {
            handle: stream.handle(),
            remote_id: 9,
            meeting: Meeting::at(ours, at_nobody, 9),
            watcher: Watcher::default(),
            linger: Duration::ZERO,
            dht: dht.downgrade(),
        };
        let leaving = tokio::spawn(leaving.run(Tries::new()));
        tokio::task::yield_now().await;
        dht.disrupt();
        let ended = timeout(Duration::from_secs(30), stream.closed()).await;
        assert_eq!(ended, Ok(Some(CloseReason::Destroyed)));
        leaving.await.unwrap();
    }

    fn route_of(event: &DialEvent) -> (Route, bool) {
        match event {
            DialEvent::Failed { route, .. } => (*route, false),
            DialEvent::Connected { route, .. } => (*route, true),
            other => panic!("{other:?}"),
        }
    }
}
