//! Goal: nodes find each other over TCP and bring each other cores and drives, whatever else
//! connects. Method: nodes in memory on loopback; every wait has a deadline.

mod liars;
#[cfg(target_os = "linux")]
mod sockets;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ferrocore::log::CoreError;
use ferrocore::swarm::dht::{BootstrapNode, Dht};
use ferrocore::swarm::lan::Include;
use ferrocore::{
    Core, DhtOptions, Discovery, Node, NodeBuilder, PeerEvent, PeerEvents, PublicKey, Via, limits,
};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Held by who opens hundreds of sockets: a process may have some thousand.
static CROWDED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.expect("it comes soon")
}

async fn open(builder: NodeBuilder) -> Node {
    builder.open().await.unwrap()
}

/// A node that finds others, and is found, on the loopback interface.
fn here() -> NodeBuilder {
    let mut discovery = Discovery::lan();
    discovery.lan = Some(Include {
        loopback: true,
        ..Include::default()
    });
    Node::builder().discovery(discovery)
}

async fn listening() -> (Node, SocketAddr) {
    let node = open(Node::builder().listen("127.0.0.1:0")).await;
    let address = node.listen_addr().unwrap();
    (node, address)
}

#[tokio::test]
async fn a_core_crosses_and_grows_live() {
    let (alice, address) = listening().await;
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let bob = open(Node::builder().peer(address)).await;
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");

    written.append("two").unwrap();
    let events = read.events();
    while read.length() < 2 {
        soon(events.next()).await;
    }
    assert_eq!(soon(read.get(1)).await.unwrap(), "two");
    assert_eq!(bob.stats().blocks_downloaded, 2);
    assert_eq!(alice.connected().len(), 1);
    assert!(!alice.connected()[0].is_initiator && bob.connected()[0].is_initiator);
    assert_eq!(bob.connected()[0].remote_key, alice.public_key());
}

#[tokio::test]
async fn a_drive_is_read_once_its_newest_version_is_known() {
    let (alice, address) = listening().await;
    let written = alice.create_drive("photos").await.unwrap();
    written.put("/a/b.txt", "hello").await.unwrap();
    let bob = open(Node::builder().peer(address)).await;
    let read = bob.drive(&written.key()).await.unwrap();
    assert!(soon(read.update()).await.unwrap());
    assert_eq!(soon(read.read("/a/b.txt", ..)).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_reader_behind_another_reader_is_served() {
    let (alice, address) = listening().await;
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let middle = open(Node::builder().peer(address).listen("127.0.0.1:0")).await;
    let passed = middle.core(&written.key()).unwrap();
    let end = open(Node::builder().peer(middle.listen_addr().unwrap())).await;
    let read = end.core(&written.key()).unwrap();
    soon(passed.get(0)).await.unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");
}

#[tokio::test]
async fn without_a_way_to_peers_a_reader_does_not_wait() {
    let node = open(Node::builder()).await;
    let read = node.core(&[7; 32].into()).unwrap();
    assert!(matches!(read.get(0).await, Err(CoreError::NoPeers { .. })));
    // With one, it waits as long as the caller likes.
    let dialing = node.dial("127.0.0.1:9");
    assert!(
        timeout(Duration::from_millis(50), read.get(0))
            .await
            .is_err()
    );
    drop(dialing);
    assert!(matches!(
        soon(read.get(0)).await,
        Err(CoreError::NoPeers { .. })
    ));
}

#[tokio::test]
async fn a_peer_that_comes_up_late_is_found() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let bob = open(Node::builder().peer(address)).await;
    let mut events = bob.peers();
    assert!(matches!(
        soon(events.next()).await,
        Some(PeerEvent::Unreachable { .. })
    ));

    let alice = open(Node::builder().listen(address)).await;
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    let (alice, address) = listening().await;
    let bob = open(Node::builder().peer(address)).await;
    let mut events = bob.peers();
    while !matches!(soon(events.next()).await, Some(PeerEvent::Connected(_))) {}
    alice.close().await;
    drop(alice);
    while !matches!(soon(events.next()).await, Some(PeerEvent::Disconnected(_))) {}
    let _again = open(Node::builder().listen(address)).await;
    while !matches!(soon(events.next()).await, Some(PeerEvent::Connected(_))) {}
}

#[tokio::test]
async fn garbage_is_dropped_and_harms_nobody() {
    let (alice, address) = listening().await;
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0; 300],
        &[32, 0, 0, 7],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        // We may be reset or ended, but not left waiting.
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    let bob = open(Node::builder().peer(address)).await;
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");
}

/// Goal: peers that say nothing keep nobody out. Method: as many as may be half open; the next peer is let in, and the first
/// of them let go.
#[tokio::test]
async fn silent_connections_give_way() {
    let (alice, address) = listening().await;
    let mut silent = Vec::new();
    for _ in 0..limits::HALF_OPEN_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut events = alice.peers();
    let _bob = open(Node::builder().peer(address)).await;
    assert!(matches!(
        soon(events.next()).await,
        Some(PeerEvent::Connected(_))
    ));
    let ended = soon(silent[0].read(&mut [0; 8])).await;
    assert!(ended.is_err() || ended.unwrap() == 0);
}

/// Goal: connections are bounded, and whoever fills all places without a core to show keeps nobody out, nor ends those that
/// have one. Method: a reader, and then more of one host than there are places; the reader reads on, and another is let in.
#[tokio::test]
async fn inbound_connections_are_bounded() {
    let _alone = CROWDED.lock().await;
    let (alice, address) = listening().await;
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let reader = open(Node::builder().peer(address)).await;
    let mut at_reader = reader.peers();
    let read = reader.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");

    let mut events = alice.peers();
    let mut others = Vec::new();
    for _ in 0..limits::INBOUND_MAX {
        let stream = TcpStream::connect(address).await.unwrap();
        let keys = KeyPair::generate();
        let shaken = SecretStream::handshake(stream, Role::Initiator, &keys, Options::default());
        others.push(soon(shaken).await.unwrap());
        while !matches!(soon(events.next()).await, Some(PeerEvent::Connected(_))) {}
    }
    assert!(alice.connected().len() <= limits::INBOUND_MAX + 1); // one may be about to end
    let another = open(Node::builder().peer(address)).await;
    let its = another.core(&written.key()).unwrap();
    assert_eq!(soon(its.get(0)).await.unwrap(), "one");
    written.append("two").unwrap();
    let news = read.events();
    while read.length() < 2 {
        soon(news.next()).await;
    }
    assert_eq!(soon(read.get(1)).await.unwrap(), "two");
    let left = timeout(Duration::ZERO, async {
        while !matches!(at_reader.next().await, Some(PeerEvent::Disconnected(_))) {}
    });
    assert!(left.await.is_err(), "the reader was let go");
}

/// Waits until of so many connections to one peer one is left.
async fn until_settled(events: &mut PeerEvents, connections: usize) {
    let (mut came, mut refused, mut ended) = (0, 0, 0);
    while came + refused < connections || ended + 1 < came {
        match soon(events.next()).await {
            Some(PeerEvent::Connected(_)) => came += 1,
            Some(PeerEvent::Disconnected(_)) => ended += 1,
            Some(PeerEvent::Duplicate { .. }) => refused += 1,
            _ => {}
        }
    }
}

/// Goal: of two connections by addresses that were given, both sides keep the one that the larger key dialled. Method: both dial
/// at once, again and again, for whose key is larger is chance.
#[tokio::test]
async fn who_dial_each_other_keep_one_connection() {
    for _ in 0..8 {
        let ((alice, to_alice), (bob, to_bob)) = (listening().await, listening().await);
        let mut events = [alice.peers(), bob.peers()];
        let _dialing = (alice.dial(to_bob), bob.dial(to_alice));
        for events in &mut events {
            until_settled(events, 2).await;
        }
        let [at_alice, at_bob] = [&alice, &bob].map(Node::connected);
        assert_eq!((at_alice.len(), at_bob.len()), (1, 1));
        let alice_is_larger = alice.public_key() > bob.public_key();
        assert_eq!(at_alice[0].is_initiator, alice_is_larger);
        assert_eq!(at_bob[0].is_initiator, !alice_is_larger);
    }
}

/// Goal: a peer that is found on the local network and also dialled by its address is connected once, the same way on both sides,
/// and found again when the address is given up. Method: multicast on the loopback interface.
#[tokio::test]
async fn who_is_found_and_dialled_is_connected_once() {
    let (alice, bob) = (open(here()).await, open(here()).await);
    let listening = alice.listen("127.0.0.1:0").await.unwrap();
    let written = alice.create_core("notes").unwrap();
    written.append("hello").unwrap();
    let mut events = [alice.peers(), bob.peers()];
    let dialing = bob.dial(listening.address());
    let read = bob.core(&written.key()).unwrap();
    for events in &mut events {
        until_settled(events, 2).await;
    }
    let [at_alice, at_bob] = [&alice, &bob].map(Node::connected);
    assert_eq!((at_alice.len(), at_bob.len()), (1, 1));
    assert_eq!(at_alice[0].via, at_bob[0].via);
    assert_eq!(soon(read.get(0)).await.unwrap(), "hello");

    drop(dialing);
    let vias = || -> Vec<Via> { bob.connected().iter().map(|peer| peer.via).collect() };
    while vias() != [Via::Lan] {
        soon(events[1].next()).await;
    }
}

#[tokio::test]
async fn an_address_of_our_own_is_told() {
    let (alice, address) = listening().await;
    let mut events = alice.peers();
    let _dialing = alice.dial(address);
    let told = soon(events.next()).await;
    assert!(
        matches!(&told, Some(PeerEvent::Unreachable { reason, .. }) if reason.contains("itself")),
        "{told:?}"
    );
    assert!(alice.connected().is_empty());
}

#[tokio::test]
async fn closing_says_goodbye_and_dropping_stops_listening() {
    let (alice, address) = listening().await;
    let bob = open(Node::builder().peer(address)).await;
    let mut events = bob.peers();
    while !matches!(soon(events.next()).await, Some(PeerEvent::Connected(_))) {}
    soon(alice.close()).await;
    assert!(alice.connected().is_empty());
    drop(alice);
    while soon(TcpStream::connect(address)).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_node_leaves_its_store_to_the_next() {
    let (alice, address) = listening().await;
    let written = alice.create_core("notes").unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for round in 0..20 {
        written.append(vec![round; 100_000]).unwrap();
        let store = Node::builder().dir(scratch.path());
        let bob = open(store.peer(address).listen("127.0.0.1:0")).await;
        let read = bob.core(&written.key()).unwrap();
        // Half of them leave in the midst of it.
        if round % 2 == 0 {
            soon(read.get(u64::from(round))).await.unwrap();
        }
        soon(bob.close()).await;
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error() {
    let (_alice, address) = listening().await;
    let error = Node::builder().listen(address).open().await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()));
}

/// Goal: nodes that were told nothing of each other meet over what both have open. Method: multicast on the loopback interface,
/// which users' nodes leave out.
#[tokio::test]
async fn nodes_of_one_network_find_each_other_by_key_alone() {
    let (alice, bob) = (open(here()).await, open(here()).await);
    let written = alice.create_core("notes").unwrap();
    written.append("hello").unwrap();
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "hello");
    let peer = bob.connected()[0];
    assert_eq!((peer.via, peer.remote_key), (Via::Lan, alice.public_key()));
    bob.close().await;
    assert!(bob.swarm().is_none());
}

/// Goal: a node that sleeps has no connections, refuses everybody and dials nobody, and is itself again afterwards.
#[tokio::test]
async fn a_node_that_sleeps_is_alone_until_it_wakes() {
    let (alice, address) = listening().await;
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let bob = open(Node::builder().peer(address)).await;
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");

    for (sleeper, other) in [(&bob, &alice), (&alice, &bob)] {
        let mut others = other.peers();
        soon(sleeper.suspend()).await;
        assert!(sleeper.is_suspended() && sleeper.connected().is_empty());
        while !other.connected().is_empty() {
            soon(others.next()).await;
        }
        let tail = written.length();
        written.append("more").unwrap();
        assert_eq!(read.length(), tail);
        soon(sleeper.resume()).await.unwrap();
        assert_eq!(soon(read.get(tail)).await.unwrap(), "more");
    }
    alice.suspend().await;
    soon(alice.close()).await;
}

/// A node of the DHT that stays, and that nobody's firewall is in front of.
async fn resident(bootstrap: &BootstrapNode) -> Dht {
    let builder = Dht::builder().host(Ipv4Addr::LOCALHOST).port(0);
    let builder = builder.bootstrap([bootstrap.clone()]).ephemeral(false);
    let node = builder.firewalled(false).bind().unwrap();
    soon(node.until(|status| status.id.is_some()))
        .await
        .unwrap();
    node
}

/// Who a lookup in the DHT finds for a core.
async fn found(node: &Node, core: &Core) -> Vec<PublicKey> {
    let dht = node.dht().expect("it was asked for");
    soon(dht.bootstrapped()).await.ok();
    let mut lookup = dht.lookup(core.discovery_key().into()).unwrap();
    let mut keys = Vec::new();
    while let Some((_, found)) = soon(lookup.next()).await {
        keys.extend(found.peers.into_iter().map(|peer| peer.public_key));
    }
    keys
}

/// Goal: who was in the DHT before needs no bootstrap node to come back. Method: the only one of a private DHT goes, others stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_store_comes_back_when_no_bootstrap_node_is_there() {
    let host = Ipv4Addr::LOCALHOST;
    let first = Dht::builder().host(host).port(0).bootstrapper(host);
    let first = first.bind().unwrap();
    soon(first.bootstrapped()).await.unwrap();
    let bootstrap = BootstrapNode::from(first.local_address().unwrap());
    let _residents = [resident(&bootstrap).await, resident(&bootstrap).await];
    let online = || {
        let mut options = DhtOptions::default();
        options.bootstrap = vec![bootstrap.clone()];
        (options.host, options.port) = (Some(host), Some(0));
        Node::builder().discovery(Discovery::dht(options))
    };
    let alice = open(online()).await;
    let written = alice.create_core("notes").unwrap();
    written.append("hello").unwrap();
    let store = tempfile::tempdir().unwrap();
    let bob = open(online().dir(store.path())).await;
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "hello");
    soon(bob.close()).await;
    drop((bob, read));

    first.close().await;
    written.append("more").unwrap();
    let stranger = open(online()).await;
    assert_eq!(found(&stranger, &written).await, []);
    let bob = open(online().dir(store.path())).await;
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(1)).await.unwrap(), "more");
    assert!(found(&bob, &written).await.contains(&alice.public_key()));
}
