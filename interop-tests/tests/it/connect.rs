//! Connections by key between hyperdht in a Node process and ferrocore-swarm in this one, on loopback.
#![cfg(unix)]

mod idle;
mod joined;
mod leaving;
mod relaying;
mod transfer;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::Peer;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_secret_stream::{Receiver, Sender};
use ferrocore_swarm::connect::{BlindRelay, Connection, ListenOptions, Peers, Server};
use ferrocore_swarm::dht::{BootstrapNode, Dht};
use ferrocore_udx::socket::UdxStream;
use serde_json::{Value, json};
use tokio::io::{ReadHalf, WriteHalf};

/// Longest wait for anything in this process, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Enough to notice a broken path.
const SMALL: usize = 1_000_000;

/// A Node process, and the port of the network that it is to join.
struct Node {
    peer: Peer,
    port: u16,
}

impl Node {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/connect.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(node::ensure(Tree::Current));
        let peer = Peer::run("connect.mjs", &mut command);
        Self { peer, port: 0 }
    }

    /// A process with a network of its own, and one node that is behind a firewall for all it knows.
    fn with_testnet(size: u64) -> Self {
        let mut node = Self::start();
        let answer = node.peer.call("testnet", json!({ "size": size }));
        node.port = port(&answer);
        node.join();
        node
    }

    /// Starts a node; returns its number.
    fn join(&mut self) -> u64 {
        let answer = self.peer.call("node", json!({ "port": self.port }));
        answer["node"].as_u64().unwrap()
    }

    /// Listens; returns the key.
    fn listen(&mut self, options: Value) -> PublicKey {
        key(&self.peer.call("listen", options)["key"])
    }

    /// The stream of the next connection that comes in, and whose it is.
    fn accept(&mut self) -> (u64, PublicKey) {
        let event = self.peer.wait_event("connection");
        (event["stream"].as_u64().unwrap(), key(&event["key"]))
    }
}

fn port(answer: &Value) -> u16 {
    answer["port"].as_u64().unwrap().try_into().unwrap()
}

fn key(value: &Value) -> PublicKey {
    let text = value.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    PublicKey::from(std::array::from_fn::<u8, 32, _>(byte))
}

fn hex(key: &PublicKey) -> String {
    key.as_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// A node of ours in the network of `port`, behind a firewall for all it knows.
async fn peers(port: u16) -> Peers {
    let bootstrap = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let dht = Dht::builder()
        .host(Ipv4Addr::LOCALHOST)
        .port(0)
        .bootstrap([BootstrapNode::from(bootstrap)])
        .ephemeral(true)
        .config(|config| config.quick_firewall = false)
        .bind()
        .unwrap();
    within(dht.bootstrapped()).await.unwrap();
    Peers::new(dht, KeyPair::generate())
}

/// A network of our nodes alone; returns them and the port of the first.
async fn our_network(size: usize) -> (Vec<Dht>, u16) {
    let host = Ipv4Addr::LOCALHOST;
    let builder = || Dht::builder().host(host).port(0);
    let first = builder().bootstrapper(host).bind().unwrap();
    within(first.bootstrapped()).await.unwrap();
    let address = first.local_address().unwrap();
    let mut nodes = vec![first];
    while nodes.len() < size {
        let node = builder().bootstrap([address.into()]);
        let node = node.ephemeral(false).firewalled(false).bind().unwrap();
        within(node.until(|status| status.id.is_some()))
            .await
            .unwrap();
        nodes.push(node);
    }
    (nodes, address.port())
}

async fn listening(peers: &Peers, options: ListenOptions) -> Server {
    let mut server = peers.listen(KeyPair::generate(), options).unwrap();
    assert!(within(server.announced()).await);
    server
}

/// Runs a blind relay on a node, until the test is over. Also returns its key.
async fn relaying(peers: &Peers) -> (BlindRelay, String) {
    let mut server = listening(peers, ListenOptions::default()).await;
    let (relay, key) = (BlindRelay::new(peers), hex(&server.public_key()));
    let serving = relay.clone();
    tokio::spawn(async move {
        while let Some(connection) = server.accept().await {
            let relay = serving.clone();
            tokio::spawn(async move { relay.serve(connection).await });
        }
    });
    (relay, key)
}

/// Returns once a relay joins nobody any more.
async fn is_left(relay: &BlindRelay) {
    within(async {
        while relay.stats().links > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Our end of a stream to Node.
type Halves = (Sender<WriteHalf<UdxStream>>, Receiver<ReadHalf<UdxStream>>);

/// Sends `len` bytes each way between one of our connections and stream `stream` of Node, and compares their hashes.
async fn exchange(node: &mut Node, stream: u64, connection: Connection, len: usize) {
    exchange_on(node, stream, connection.stream.split(), len).await;
}

/// As [`exchange`], on a stream that is still needed.
async fn exchange_on(node: &mut Node, stream: u64, halves: Halves, len: usize) -> Halves {
    let (sender, receiver) = halves;
    let read = node
        .peer
        .begin("read", json!({ "stream": stream, "bytes": len }));
    let write = json!({ "stream": stream, "bytes": len, "seed": 5 });
    let write = node.peer.begin("write", write);
    let ours = tokio::spawn(transfer::send(sender, 6, len));
    let (theirs, receiver) = within(transfer::receive(receiver, len)).await;
    let (ours, sender) = within(ours).await.unwrap();
    assert_eq!(node.peer.finish(write)["hash"], theirs, "from Node");
    assert_eq!(node.peer.finish(read)["hash"], ours, "to Node");
    (sender, receiver)
}
