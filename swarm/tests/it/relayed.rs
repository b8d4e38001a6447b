//! Streams that begin at a blind relay: how they leave it, and who may not make them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_dht::rpc::Socket;
use ferrocore_swarm::connect::{ConnectOptions, Connection, ListenOptions, Peers, Route, Server};
use ferrocore_udx::socket::StreamHandle;
use tokio::time::timeout;

use crate::network::{Network, connect, listening, relaying, talk, within};

/// Short, so that what happens after it is seen.
const LINGER: Duration = Duration::from_millis(200);

fn listen_options(punch: bool) -> ListenOptions {
    let mut options = ListenOptions::default();
    (options.lan, options.punch, options.relay_linger) = (false, punch, LINGER);
    options
}

fn connect_options(punch: bool) -> ConnectOptions {
    let mut options = ConnectOptions::default();
    (options.lan, options.punch, options.relay_linger) = (false, punch, LINGER);
    options
}

/// Two ends that met at a relay and may not punch.
struct Relayed {
    client: (Peers, Connection),
    listener: (Peers, Connection),
    /// What listens, and the relay.
    _kept: (Server, Peers),
}

async fn relayed(network: &Network) -> Relayed {
    let (a, b, c) = (
        network.peers().await,
        network.peers().await,
        network.peers().await,
    );
    let (_, key, _) = relaying(&c).await;
    let options = listen_options(false).relay_through(move || Some(key));
    let mut server = listening(&a, options).await;
    let (ours, theirs) = connect(&b, &mut server, connect_options(false)).await;
    assert_eq!((ours.route, theirs.route), (Route::Relayed, Route::Relayed));
    Relayed {
        client: (b, ours),
        listener: (a, theirs),
        _kept: (server, c),
    }
}

fn address(handle: &StreamHandle) -> SocketAddr {
    handle.remote().unwrap().0
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// Goal: a stream that has left its relay stays on the direct path, whatever still comes by the relay. Method: the dialling end
/// goes to the direct path, says something by the relay once more, and is silent; past the linger the listening end is where it
/// was, and bytes cross.
#[tokio::test]
async fn what_comes_late_by_the_relay_turns_no_stream_back() {
    let network = Network::start(6).await;
    let Relayed {
        client: (b, ours),
        listener: (a, theirs),
        _kept,
    } = relayed(&network).await;
    let (at_ours, at_theirs) = (ours.handle(), theirs.handle());
    let (relay, relays_id) = at_ours.remote().unwrap();
    let socket = b.dht().socket(Socket::Server).unwrap();
    let direct = a.dht().socket(Socket::Server).unwrap().local_addr();
    let id = at_theirs.local_id();
    at_ours.change_remote(&socket, id, direct).unwrap();
    at_ours.send_message(Bytes::new()).unwrap();
    within(until(|| address(&at_theirs) == socket.local_addr())).await;
    at_ours.change_remote(&socket, relays_id, relay).unwrap();
    at_ours.send_message(Bytes::from_static(b"late")).unwrap();
    while within(at_theirs.recv_message()).await.unwrap() != "late" {}
    at_ours.change_remote(&socket, id, direct).unwrap();
    let turned = timeout(
        10 * LINGER,
        until(|| address(&at_theirs) != socket.local_addr()),
    );
    assert!(turned.await.is_err(), "back at {}", address(&at_theirs));
    talk(ours, theirs).await;
}

/// Goal: a relay, which knows a stream's ids, aims it at nobody. Method: a socket that answers no pings sends a packet of the
/// stream straight to the listening end, which asks there and stays where it is.
#[tokio::test]
async fn a_relayed_stream_leaves_for_nobody_who_does_not_answer() {
    let network = Network::start(6).await;
    let Relayed {
        client: (_b, ours),
        listener: (a, theirs),
        _kept,
    } = relayed(&network).await;
    let at_theirs = theirs.handle();
    let before = address(&at_theirs);
    let forger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = a.dht().socket(Socket::Server).unwrap().local_addr();
    // A heartbeat of the stream: magic, version, no flags, no data offset, id, window, sequence, acknowledgement.
    let mut packet = vec![0xff, 1, 8, 0];
    packet.extend(at_theirs.local_id().to_le_bytes());
    packet.extend([0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    forger.send_to(&packet, to).await.unwrap();
    let mut ping = [0; 64];
    let asked = within(forger.recv_from(&mut ping)).await.unwrap();
    assert_eq!((asked.1, ping[0]), (to, 3), "a ping of the DHT");
    assert_eq!(address(&at_theirs), before);
    talk(ours, theirs).await;
}

/// Goal: what a server has handed out is its owner's, whatever becomes of the server. Method: it is closed, and the relayed
/// connection that it gave goes on.
#[tokio::test]
async fn a_relayed_connection_outlives_the_server_that_handed_it_out() {
    let network = Network::start(6).await;
    let Relayed {
        client: (_b, ours),
        listener: (_a, theirs),
        _kept: (server, _relay),
    } = relayed(&network).await;
    within(server.close()).await;
    let (left, right) = (ours.handle(), theirs.handle());
    let ended = async {
        tokio::select! {
            reason = left.closed() => reason,
            reason = right.closed() => reason,
        }
    };
    let ended = timeout(10 * LINGER, ended).await;
    assert!(ended.is_err(), "{ended:?}");
    within(talk(ours, theirs)).await;
}

/// Goal: a relayed connection keeps no node, as a direct one keeps none. Method: the nodes of both ends are dropped, while one
/// waits for rounds of holepunching that do not come; they end, and bytes still cross.
#[tokio::test]
async fn a_relayed_connection_keeps_no_node() {
    let network = Network::start(6).await;
    let (a, b, c) = (
        network.peers().await,
        network.peers().await,
        network.peers().await,
    );
    let (_, key, _) = relaying(&c).await;
    let options = listen_options(true).relay_through(move || Some(key));
    let mut server = listening(&a, options).await;
    let (ours, theirs) = connect(&b, &mut server, connect_options(false)).await;
    assert_eq!((ours.route, theirs.route), (Route::Relayed, Route::Relayed));
    let nodes = [a.dht().watch(), b.dht().watch()];
    drop((server, a, b));
    for mut node in nodes {
        // An error if it is gone for good already.
        within(node.wait_for(|status| status.is_suspended))
            .await
            .ok();
    }
    talk(ours, theirs).await;
}

/// Goal: a relayed stream goes on when one of its ends gets another address. Method: the dialling end sends from another socket,
/// which the relay pings and goes over to.
#[tokio::test]
async fn a_relay_follows_an_end_that_has_moved() {
    let network = Network::start(6).await;
    let Relayed {
        client: (b, ours),
        listener: (_a, theirs),
        _kept,
    } = relayed(&network).await;
    let at_ours = ours.handle();
    let (relay, id) = at_ours.remote().unwrap();
    let before = at_ours.local_addr();
    let sockets = [Socket::Server, Socket::Client].map(|tag| b.dht().socket(tag).unwrap());
    let other = sockets
        .iter()
        .find(|socket| Some(socket.local_addr()) != before);
    at_ours.change_remote(other.unwrap(), id, relay).unwrap();
    at_ours.send_message(Bytes::new()).unwrap();
    at_ours.send_heartbeat();
    let followed = async {
        while timeout(LINGER, at_ours.heard()).await.is_err() {
            at_ours.send_heartbeat();
        }
    };
    within(followed).await;
    talk(ours, theirs).await;
}
