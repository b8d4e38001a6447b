//! Streams that meet Node at a blind relay, and leave it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferrocore_swarm::connect::{
    ConnectOptions, Connection, DialEvent, ListenOptions, Route, Watcher,
};
use ferrocore_udx::socket::StreamHandle;
use serde_json::json;

use super::{Node, exchange_on, hex, is_left, key, listening, peers, relaying, within};

/// What crosses at a time.
const BLOCK: usize = 300_000;

/// Short, so that what happens after it is seen.
const LINGER: Duration = Duration::from_millis(200);

/// Dials until one is punched for in time: on a busy machine Node's held answers may come too late.
const ATTEMPTS: usize = 5;

fn connect_options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    // A NAT opened before the first round would be punched through at once: on loopback all packets arrive.
    (options.lan, options.fast_open, options.relay_linger) = (false, false, LINGER);
    options
}

/// Whether either end sends straight to the other's socket.
fn is_direct(node: &mut Node, stream: u64, ours: &StreamHandle) -> bool {
    let theirs = node.peer.call("path", json!({ "stream": stream }));
    let port = |address: Option<SocketAddr>| address.map(|address| u64::from(address.port()));
    let to = ours.remote().map(|(address, _)| address);
    port(to) == theirs["local"].as_u64() && port(ours.local_addr()) == theirs["port"].as_u64()
}

/// Says where our end stood when a test fails: Node tells its own side.
struct Witness(StreamHandle);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(ours) = self;
            let path = (ours.local_addr(), ours.remote());
            println!("our end: {path:?}, {:?}", ours.stats());
        }
    }
}

/// Bytes cross at the relay, while the stream leaves it, and until long after what is kept of it is dropped.
async fn leave(node: &mut Node, stream: u64, connection: Connection) {
    assert_eq!(connection.route, Route::Relayed);
    let handle = connection.handle();
    let _witness = Witness(handle.clone());
    let mut halves = connection.stream.split();
    halves = exchange_on(node, stream, halves, BLOCK).await;
    assert!(!is_direct(node, stream, &handle), "the rounds are held");
    node.peer.call("release", json!({}));
    let moving = Instant::now();
    while !is_direct(node, stream, &handle) {
        assert!(moving.elapsed() < super::PATIENCE, "still at the relay");
        halves = exchange_on(node, stream, halves, BLOCK).await;
    }
    let moved = Instant::now();
    while moved.elapsed() < 10 * LINGER {
        halves = exchange_on(node, stream, halves, BLOCK).await;
        assert!(is_direct(node, stream, &handle), "back at the relay");
    }
}

/// Whether the punch of a dial led anywhere, as its watcher is told.
#[derive(Default)]
struct Punch {
    made: AtomicU64,
    failed: AtomicU64,
}

impl Punch {
    fn watcher(self: &Arc<Self>) -> Watcher {
        let punch = Arc::clone(self);
        Watcher::new(move |event| match event {
            DialEvent::Connected {
                route: Route::Punched,
                ..
            } => {
                punch.made.fetch_add(1, Ordering::SeqCst);
            }
            DialEvent::Failed {
                route: Route::Punched,
                ..
            } => {
                punch.failed.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_dial_leaves_our_relay_while_data_crosses() {
    let mut node = Node::with_testnet(6);
    let (ours, at_relay) = (peers(node.port).await, peers(node.port).await);
    let (relay, through) = relaying(&at_relay).await;
    let listen = json!({ "lan": false, "relayThrough": through, "held": true });
    let key = node.listen(listen);
    for _ in 0..ATTEMPTS {
        node.peer.call("hold", json!({}));
        let punch = Arc::new(Punch::default());
        let mut options = connect_options();
        options.watcher = punch.watcher();
        let connection = within(ours.connect(key, options)).await.unwrap();
        let (stream, _) = node.accept();
        if punch.failed.load(Ordering::SeqCst) > 0 {
            node.peer.call("release", json!({}));
            continue;
        }
        leave(&mut node, stream, connection).await;
        assert_eq!(punch.made.load(Ordering::SeqCst), 1);
        return is_left(&relay).await;
    }
    panic!("no dial was punched for within {ATTEMPTS}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_dial_leaves_a_relay_of_node_while_data_crosses() {
    let mut node = Node::with_testnet(6);
    let second = node.join();
    let peers = peers(node.port).await;
    let relay = node.peer.call("relay", json!({ "node": second }))["key"].clone();
    let through = key(&relay);
    let mut listen = ListenOptions::default().relay_through(move || Some(through));
    (listen.lan, listen.relay_linger) = (false, LINGER);
    let mut server = listening(&peers, listen).await;
    node.peer.call("hold", json!({}));
    let dial = json!({ "key": hex(&server.public_key()), "lan": false, "held": true });
    let dial = node.peer.begin("connect", dial);
    let connection = within(server.accept()).await.unwrap();
    let stream = node.peer.finish(dial)["stream"].as_u64().unwrap();
    leave(&mut node, stream, connection).await;
}
