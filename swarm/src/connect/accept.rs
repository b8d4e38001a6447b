//! One incoming connection: from the answered handshake to the stream that is handed out, and on to a better path.
//! Knows the server's ways. Does not know handshakes or announcements.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::handshake::UNUSED_MAX;
use ferrocore_dht::hyperdht::noise::RelayThrough;
use ferrocore_dht::hyperdht::path::ServerWay;
use ferrocore_dht::hyperdht::reach::is_private;
use ferrocore_dht::rpc::Socket;
use ferrocore_secret_stream::HandshakeResult;
use ferrocore_udx::socket::{Path, StreamHandle, UdxSocket, UdxStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::blind::{Meeting, meet};
use super::dial::show_path;
use super::error::{ConnectError, RelayError, Route};
use super::net::{tagged_at, v4};
use super::peers::Peers;
use super::punching::{RoundIn, ServerPunching};
use super::roam::{Sightings, follow, is_heard, look, stand_by};
use super::stream::{Connection, encrypt, proven};
use crate::dht::{Dht, WeakDht};

/// An answered handshake.
pub(super) struct Accepting {
    pub(super) peers: Peers,
    pub(super) stream: UdxStream,
    pub(super) keys: HandshakeResult,
    /// The client's id of the stream.
    pub(super) remote_id: u32,
    pub(super) way: ServerWay,
    /// The socket that the handshake came in by.
    pub(super) socket: Socket,
    pub(super) punching: Option<ServerPunching>,
    pub(super) relay: Option<AtRelay>,
    pub(super) rounds: mpsc::Receiver<Box<RoundIn>>,
    pub(super) connections: mpsc::Sender<Connection>,
    /// Is told which task's client has come.
    pub(super) came: mpsc::Sender<task::Id>,
    /// How long the way through a relay is kept after the stream has left it.
    pub(super) relay_linger: Duration,
}

/// A blind relay to meet the client at.
pub(super) struct AtRelay {
    pub(super) through: RelayThrough,
    /// Whether we chose it.
    pub(super) is_ours: bool,
    /// Kept until the client has come there.
    pub(super) room: OwnedSemaphorePermit,
}

/// How the client came.
enum Came {
    /// Its first packet is here.
    Directly,
    /// It is at the relay.
    Relayed(Meeting),
}

type Meetings = JoinSet<Result<Meeting, RelayError>>;

pub(super) async fn accept(mut accepting: Accepting) {
    let handle = accepting.stream.handle();
    if let ServerWay::Direct(to) = accepting.way {
        return accepting.connect_to(to).await;
    }
    accepting.stream.listen(accepting.remote_id);
    let mut meetings = Meetings::new();
    if let Some(relay) = accepting.relay.take() {
        let (peers, id) = (accepting.peers.clone(), accepting.stream.local_id());
        meetings.spawn(async move {
            let met = meet(peers, relay.through, relay.is_ours, id).await;
            drop(relay.room);
            met
        });
    }
    let came = accepting.wait(&handle, &mut meetings).await;
    if came.is_some() {
        accepting.came.send(task::id()).await.ok();
    }
    match came {
        Some(Came::Directly) => accepting.hand_out_direct(&handle).await,
        Some(Came::Relayed(meeting)) => accepting.hand_out_relayed(handle, meeting).await,
        None => {} // the stream is dropped: nobody came
    }
}

impl Accepting {
    /// The client is open, or has asked us itself; or somebody says so, in one datagram of an invented sender.
    async fn connect_to(self, to: SocketAddrV4) {
        let Some(socket) = self.peers.net().socket(self.socket) else {
            return;
        };
        let connected = self.stream.connect(&socket, self.remote_id, to.into());
        if connected.is_err() {
            return;
        }
        match met(self.stream, self.keys, Route::Direct).await {
            Ok(connection) => {
                self.came.send(task::id()).await.ok();
                follow(
                    self.peers.dht().downgrade(),
                    connection.handle(),
                    None,
                    None,
                );
                self.connections.send(connection).await.ok();
            }
            Err(error) => tracing::debug!(%error, %to, "accept"),
        }
    }

    /// Waits for the client to come by any way.
    async fn wait(&mut self, handle: &StreamHandle, meetings: &mut Meetings) -> Option<Came> {
        let deadline = Instant::now() + UNUSED_MAX;
        loop {
            let has_punching = self.punching.is_some();
            if !has_punching && meetings.is_empty() && Instant::now() >= deadline {
                return None;
            }
            tokio::select! {
                connected = handle.connected() => return connected.ok().map(|_| Came::Directly),
                Some(round) = self.rounds.recv() => self.handle_round(*round),
                () = turn(&mut self.punching) => {}
                Some(met) = meetings.join_next() => match met {
                    Ok(Ok(meeting)) => return Some(Came::Relayed(meeting)),
                    Ok(Err(error)) => tracing::debug!(%error, "relay"),
                    Err(_) => {}
                },
                () = sleep_until(deadline), if !has_punching && meetings.is_empty() => {}
            }
            self.drop_failed_punching();
        }
    }

    async fn hand_out_direct(mut self, handle: &StreamHandle) {
        let address = handle.remote().and_then(|(address, _)| v4(address));
        let local = handle.local_addr();
        let server = self.peers.net().server_socket();
        let is_servers = server.is_some_and(|server| Some(server.local_addr()) == local);
        let route = match address {
            Some(address) if is_servers && is_private(*address.ip()) => Route::Lan,
            Some(_) if is_servers => Route::Direct,
            _ => Route::Punched,
        };
        let punching = self.punching.as_mut();
        let extra = local.and_then(|local| punching?.take_at(local));
        follow(
            self.peers.dht().downgrade(),
            self.stream.handle(),
            extra,
            None,
        );
        hand_out(self.stream, self.keys, route, &self.connections).await;
    }

    async fn hand_out_relayed(mut self, handle: StreamHandle, meeting: Meeting) {
        let connected = handle.connect(&meeting.socket, meeting.stream_id, meeting.address.into());
        if connected.is_err() {
            // The client came directly in this very moment.
            return self.hand_out_direct(&handle).await;
        }
        if let Some(punching) = &mut self.punching {
            punching.handle_relayed();
        }
        let (keys, connections) = (self.keys.clone(), self.connections.clone());
        let stream = self.stream;
        let mut upgrade = Upgrade {
            dht: self.peers.dht().downgrade(),
            handle,
            remote_id: self.remote_id,
            punching: self.punching,
            rounds: self.rounds,
            meeting,
            linger: self.relay_linger,
            sightings: Sightings::new(),
        };
        // A task of its own, for what was handed out outlives the server. Without a connection the stream is over, and so is this.
        let upgrading = tokio::spawn(async move {
            let handing_out = hand_out(stream, keys, Route::Relayed, &connections);
            tokio::join!(handing_out, upgrade.run());
        });
        upgrading.await.ok();
    }

    fn handle_round(&mut self, round: RoundIn) {
        if let Some(punching) = &mut self.punching {
            punching.handle_round(round);
        }
    }

    fn drop_failed_punching(&mut self) {
        if self
            .punching
            .as_ref()
            .is_some_and(ServerPunching::has_failed)
        {
            self.punching = None;
        }
    }
}

/// A relayed stream that may still find a direct path.
struct Upgrade {
    dht: WeakDht,
    handle: StreamHandle,
    remote_id: u32,
    punching: Option<ServerPunching>,
    rounds: mpsc::Receiver<Box<RoundIn>>,
    meeting: Meeting,
    linger: Duration,
    sightings: Sightings,
}

impl Upgrade {
    async fn run(&mut self) {
        let (dht, handle) = (self.dht.clone(), self.handle.clone());
        tokio::select! {
            () = self.move_over() => {}
            () = stand_by(&dht, &handle) => {}
        }
    }

    async fn move_over(&mut self) {
        loop {
            tokio::select! {
                path = self.handle.other_path(), if self.sightings.is_empty() => match path {
                    Ok(path) => self.look(path),
                    Err(_) => return,
                },
                Some(seen) = self.sightings.join_next() => {
                    if let Ok(Some((path, socket))) = seen
                        && self.handle.change_remote(&socket, self.remote_id, path.remote).is_ok()
                    {
                        if is_heard(&self.handle).await {
                            return self.leave(&path).await;
                        }
                        self.meeting.take(&self.handle);
                    }
                }
                Some(round) = self.rounds.recv() => {
                    if let Some(punching) = &mut self.punching {
                        punching.handle_round(*round);
                    }
                }
                () = turn(&mut self.punching) => {}
                _ = self.handle.closed() => return,
            }
            if self
                .punching
                .as_ref()
                .is_some_and(ServerPunching::has_failed)
            {
                self.punching = None;
            }
        }
    }

    fn look(&mut self, path: Path) {
        if path.remote == SocketAddr::from(self.meeting.address) {
            return;
        }
        if let Some(dht) = self.dht.upgrade()
            && let Some(at) = self.socket_at(&dht, path.local)
        {
            look(&mut self.sightings, dht, path, at);
        }
    }

    async fn leave(&mut self, path: &Path) {
        show_path(&self.handle, self.linger).await;
        let punching = self.punching.as_mut();
        let extra = punching.and_then(|punching| punching.take_at(path.local));
        let left = Some(self.meeting.address.into());
        follow(self.dht.clone(), self.handle.clone(), extra, left);
    }

    fn socket_at(&self, dht: &Dht, local: SocketAddr) -> Option<(Socket, UdxSocket)> {
        let punching = self.punching.as_ref();
        let own = punching.and_then(|punching| punching.socket_at(local));
        own.or_else(|| tagged_at(dht, local))
    }
}

async fn turn(punching: &mut Option<ServerPunching>) {
    match punching {
        Some(punching) => punching.turn().await,
        None => std::future::pending().await,
    }
}

async fn hand_out(
    stream: UdxStream,
    keys: HandshakeResult,
    route: Route,
    connections: &mpsc::Sender<Connection>,
) {
    match met(stream, keys, route).await {
        Ok(connection) => drop(connections.send(connection).await),
        Err(error) => tracing::debug!(%error, "accept"),
    }
}

/// The connection, once its client has acked something: who only shakes hands takes no connection's place.
async fn met(
    stream: UdxStream,
    keys: HandshakeResult,
    route: Route,
) -> Result<Connection, ConnectError> {
    let connection = encrypt(stream, keys, route, None).await?;
    let address = connection.remote_address().and_then(v4);
    proven(&connection, address.ok_or(ConnectError::NoAnswer)?).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ferrocore_primitives::sign::KeyPair;
    use ferrocore_udx::socket::Udx;
    use ferrocore_udx::stream::Config;

    use super::super::race::tests::keys;
    use super::*;
    use crate::dht::Dht;

    /// Goal: a client that comes directly in the very moment in which the relay brings it, too, is handed out. Method: its first
    /// packet is here when the meeting comes about.
    #[tokio::test]
    async fn who_comes_directly_and_by_a_relay_is_handed_out() {
        let host = Ipv4Addr::LOCALHOST;
        let dht = Dht::builder().host(host).port(0).bootstrapper(host);
        let peers = Peers::new(dht.bind().unwrap(), KeyPair::generate());
        let ours = peers.net().server_socket().unwrap();
        let far = Udx::new();
        let theirs = far.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = far.create_stream(9, Config::default()).unwrap();
        client.connect(&theirs, 7, ours.local_addr()).unwrap();
        client.send_message(bytes::Bytes::new()).unwrap();
        let stream = peers.net().udx().create_stream(7, Config::default());
        let stream = stream.unwrap();
        stream.listen(9);
        stream.connected().await.unwrap();
        let (connections, mut accepted) = mpsc::channel(1);
        let handle = stream.handle();
        let accepting = Accepting {
            peers,
            stream,
            keys: keys(),
            remote_id: 9,
            way: ServerWay::Await,
            socket: Socket::Server,
            punching: None,
            relay: None,
            rounds: mpsc::channel(1).1,
            connections,
            came: mpsc::channel(1).0,
            relay_linger: std::time::Duration::ZERO,
        };
        let relay = v4(theirs.local_addr()).unwrap();
        let meeting = Meeting::at(ours, relay, 5);
        accepting.hand_out_relayed(handle, meeting).await;
        let connection = accepted.try_recv().unwrap();
        assert_ne!(connection.route, Route::Relayed);
        assert_eq!(connection.remote_address(), Some(theirs.local_addr()));
    }
}
