//! A DHT on loopback for tests, and what peers on it do in all of them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::connect::{
    BlindRelay, ConnectOptions, Connection, ListenOptions, Peers, Server,
};
use ferrocore_swarm::dht::{BootstrapNode, Dht};

/// Longest wait for anything, however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A network of nodes that stay, and whoever joins it.
pub(crate) struct Network {
    bootstrap: BootstrapNode,
    nodes: Vec<Dht>,
}

impl Network {
    pub(crate) async fn start(size: usize) -> Self {
        let host = Ipv4Addr::LOCALHOST;
        let builder = || Dht::builder().host(host).port(0);
        let first = builder().bootstrapper(host).bind().unwrap();
        first.bootstrapped().await.unwrap();
        let bootstrap = BootstrapNode::from(first.local_address().unwrap());
        let mut nodes = vec![first];
        for _ in 1..size {
            let node = builder().bootstrap([bootstrap.clone()]);
            let node = node.ephemeral(false).firewalled(false).bind().unwrap();
            node.until(|status| status.id.is_some()).await.unwrap();
            nodes.push(node);
        }
        Self { bootstrap, nodes }
    }

    /// The node that everybody asks, as a peer.
    pub(crate) fn first(&self) -> Peers {
        let [first, ..] = self.nodes.as_slice() else {
            panic!("a network has a node");
        };
        Peers::new(first.clone(), KeyPair::generate())
    }

    /// A node that does not stay and takes itself to be behind a firewall.
    pub(crate) async fn peers(&self) -> Peers {
        let builder = Dht::builder().host(Ipv4Addr::LOCALHOST).port(0);
        let builder = builder.bootstrap([self.bootstrap.clone()]).ephemeral(true);
        // Nobody is asked to try: on loopback they would get through.
        let builder = builder.config(|config| config.quick_firewall = false);
        let dht = builder.bind().unwrap();
        dht.bootstrapped().await.unwrap();
        Peers::new(dht, KeyPair::generate())
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

pub(crate) async fn listening(peers: &Peers, options: ListenOptions) -> Server {
    let mut server = peers.listen(KeyPair::generate(), options).unwrap();
    assert!(within(server.announced()).await);
    server
}

/// Both sides say something, and hear it.
pub(crate) async fn talk(ours: Connection, theirs: Connection) {
    assert_eq!(ours.stream.handshake_hash(), theirs.stream.handshake_hash());
    let (mut sender, _) = ours.stream.split();
    let (mut answerer, mut receiver) = theirs.stream.split();
    sender.send(&[b"hello"]).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "hello");
    answerer.send(&[b"there"]).await.unwrap();
    answerer.flush().await.unwrap();
}

pub(crate) async fn connect(
    client: &Peers,
    server: &mut Server,
    options: ConnectOptions,
) -> (Connection, Connection) {
    let dialling = client.connect(server.public_key(), options);
    let ours = within(dialling).await.unwrap();
    (ours, within(server.accept()).await.unwrap())
}

/// Makes a blind relay of a node. Also returns who passes handshakes on to it.
pub(crate) async fn relaying(peers: &Peers) -> (BlindRelay, PublicKey, Vec<SocketAddrV4>) {
    let mut server = listening(peers, ListenOptions::default()).await;
    let (relay, key) = (BlindRelay::new(peers), server.public_key());
    let passing = server.relay_addresses();
    let serving = relay.clone();
    tokio::spawn(async move {
        while let Some(connection) = server.accept().await {
            let relay = serving.clone();
            tokio::spawn(async move { relay.serve(connection).await });
        }
    });
    (relay, key, passing)
}
