//! Who connects to whom, by which way.

use ferrocore_swarm::connect::{ConnectError, ConnectOptions, ListenOptions, Route};
use serde_json::json;

use super::{Node, SMALL, exchange, hex, listening, peers, within};

/// 100 MB each way.
const LARGE: usize = 100_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_cross_each_way_when_we_dial() {
    let mut node = Node::with_testnet(4);
    let peers = peers(node.port).await;
    let key = node.listen(json!({}));
    let dialling = peers.connect(key, ConnectOptions::default());
    let connection = within(dialling).await.unwrap();
    assert_eq!(connection.remote_public_key(), key);
    let (stream, caller) = node.accept();
    assert_eq!(caller, peers.key_pair().public_key());
    exchange(&mut node, stream, connection, LARGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_cross_each_way_when_node_dials() {
    let mut node = Node::with_testnet(4);
    let peers = peers(node.port).await;
    let mut server = listening(&peers, ListenOptions::default()).await;
    let key = hex(&server.public_key());
    let dial = node.peer.begin("connect", json!({ "key": key }));
    let connection = within(server.accept()).await.unwrap();
    let answer = node.peer.finish(dial);
    assert_eq!(
        hex(&connection.remote_public_key()),
        answer["key"].as_str().unwrap()
    );
    let stream = answer["stream"].as_u64().unwrap();
    exchange(&mut node, stream, connection, LARGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_punch_without_the_lan() {
    let mut node = Node::with_testnet(6);
    let peers = peers(node.port).await;
    let key = node.listen(json!({ "lan": false }));
    let mut options = ConnectOptions::default();
    options.lan = false;
    let connection = within(peers.connect(key, options)).await.unwrap();
    assert_eq!(connection.route, Route::Punched);
    let (stream, _) = node.accept();
    exchange(&mut node, stream, connection, SMALL).await;

    let mut listen = ListenOptions::default();
    listen.lan = false;
    let mut server = listening(&peers, listen).await;
    let key = hex(&server.public_key());
    let arguments = json!({ "key": key, "lan": false });
    let dial = node.peer.begin("connect", arguments);
    let connection = within(server.accept()).await.unwrap();
    assert_eq!(connection.route, Route::Punched);
    let stream = node.peer.finish(dial)["stream"].as_u64().unwrap();
    exchange(&mut node, stream, connection, SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_meet_node_at_a_blind_relay_of_node() {
    let mut node = Node::with_testnet(4);
    let second = node.join();
    let peers = peers(node.port).await;
    let relay = node.peer.call("relay", json!({ "node": second }))["key"].clone();
    // Node chose the relay, and listens.
    let key = node.listen(json!({ "lan": false, "punch": false, "relayThrough": relay }));
    let mut options = ConnectOptions::default();
    (options.lan, options.punch) = (false, false);
    let connection = within(peers.connect(key, options)).await.unwrap();
    assert_eq!(connection.route, Route::Relayed);
    let (stream, _) = node.accept();
    exchange(&mut node, stream, connection, SMALL).await;

    // We chose it, and listen.
    let through = super::key(&relay);
    let mut listen = ListenOptions::default().relay_through(move || Some(through));
    (listen.lan, listen.punch) = (false, false);
    let mut server = listening(&peers, listen).await;
    let key = hex(&server.public_key());
    let arguments = json!({ "key": key, "lan": false, "punch": false });
    let dial = node.peer.begin("connect", arguments);
    let connection = within(server.accept()).await.unwrap();
    assert_eq!(connection.route, Route::Relayed);
    let stream = node.peer.finish(dial)["stream"].as_u64().unwrap();
    exchange(&mut node, stream, connection, SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dial_at_once() {
    let mut node = Node::with_testnet(4);
    let peers = peers(node.port).await;
    let mut server = listening(&peers, ListenOptions::default()).await;
    let theirs = node.listen(json!({}));
    let ours = hex(&server.public_key());
    let dial = node.peer.begin("connect", json!({ "key": ours }));
    let dialling = peers.connect(theirs, ConnectOptions::default());
    let (dialled, accepted) = within(async { tokio::join!(dialling, server.accept()) }).await;
    let dialled_there = node.peer.finish(dial)["stream"].as_u64().unwrap();
    let (accepted_there, _) = node.accept();
    exchange(&mut node, accepted_there, dialled.unwrap(), SMALL).await;
    exchange(&mut node, dialled_there, accepted.unwrap(), SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sleeps_or_ends_is_gone() {
    let mut node = Node::with_testnet(4);
    let peers = peers(node.port).await;
    let key = node.listen(json!({}));
    node.peer.call("suspend", json!({}));
    let dialling = peers.connect(key, ConnectOptions::default());
    let error = within(dialling).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotFound), "{error}");
    node.peer.call("resume", json!({}));
    let connection = within(async {
        loop {
            let dialling = peers.connect(key, ConnectOptions::default());
            if let Ok(connection) = dialling.await {
                return connection;
            }
        }
    })
    .await;
    let (stream, _) = node.accept();
    exchange(&mut node, stream, connection, SMALL).await;

    let mut server = listening(&peers, ListenOptions::default()).await;
    let ours = hex(&server.public_key());
    within(peers.suspend()).await;
    let dial = node.peer.begin("connect", json!({ "key": ours }));
    assert!(node.peer.try_finish(&dial).is_err());
    within(peers.resume()).await.unwrap();
    let dial = loop {
        let dial = node.peer.begin("connect", json!({ "key": ours }));
        if let Ok(answer) = node.peer.try_finish(&dial) {
            break answer;
        }
    };
    let connection = within(server.accept()).await.unwrap();
    let stream = dial["stream"].as_u64().unwrap();
    exchange(&mut node, stream, connection, SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_outlives_a_peer_that_stands_still() {
    let seconds = std::env::var("FERROCORE_STOPPED_SECONDS");
    let seconds = seconds.map_or(20, |seconds| seconds.parse().expect("a number of seconds"));
    let mut node = Node::with_testnet(4);
    // A network of our own goes on while Node stands still.
    let peers = peers(node.port).await;
    let key = node.listen(json!({}));
    let dialling = peers.connect(key, ConnectOptions::default());
    let connection = within(dialling).await.unwrap();
    let (stream, _) = node.accept();
    node.peer.pause();
    let standing = tokio::time::sleep(std::time::Duration::from_secs(seconds));
    let read = json!({ "stream": stream, "bytes": SMALL });
    let read = node.peer.begin("read", read);
    let (sender, _receiver) = connection.stream.split();
    let sending = tokio::spawn(super::transfer::send(sender, 6, SMALL));
    standing.await;
    node.peer.resume();
    let (hash, _sender) = within(sending).await.unwrap();
    assert_eq!(node.peer.finish(read)["hash"], hash);
}
