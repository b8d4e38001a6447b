//! Nodes of the DHT over UDP on loopback: every verb, and what happens to it when nodes sleep, end or are not there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::{PEER_HANDSHAKE, SEQ_REUSED, SEQ_TOO_LOW};
use ferrocore_dht::id::Id;
use ferrocore_dht::rpc::{Outgoing, RequestError, Socket};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_swarm::dht::{AnnounceOptions, Arrival, Builder, Dht, DhtError, VALUE_LEN_MAX};

/// Longest wait for anything, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

fn local() -> Builder {
    Dht::builder().host(Ipv4Addr::LOCALHOST).port(0)
}

/// A bootstrapper and nodes that stay, all bootstrapped.
async fn network(nodes: usize) -> Vec<Dht> {
    let first = local().bootstrapper(Ipv4Addr::LOCALHOST).bind().unwrap();
    within(first.until(|status| status.id.is_some()))
        .await
        .unwrap();
    let mut all = vec![first];
    for _ in 0..nodes {
        let node = local()
            .bootstrap([address(&all[0]).into()])
            .firewalled(false)
            .ephemeral(false);
        let node = node.bind().unwrap();
        within(node.until(|status| status.is_bootstrapped && status.id.is_some()))
            .await
            .unwrap();
        all.push(node);
    }
    all
}

async fn client(network: &[Dht]) -> Dht {
    let node = local()
        .bootstrap([address(&network[0]).into()])
        .ephemeral(true)
        .bind()
        .unwrap();
    within(node.bootstrapped()).await.unwrap();
    node
}

fn address(node: &Dht) -> SocketAddrV4 {
    node.local_address().unwrap()
}

async fn peers(node: &Dht, topic: Id) -> Vec<KeyAndRelays> {
    let mut lookup = node.lookup(topic).unwrap();
    let mut peers = Vec::new();
    while let Some((_, found)) = within(lookup.next()).await {
        peers.extend(
            found
                .peers
                .into_iter()
                .map(|peer| (*peer.public_key.as_bytes(), peer.relay_addresses)),
        );
    }
    within(lookup.finish()).await.unwrap();
    peers.sort();
    peers.dedup();
    peers
}

type KeyAndRelays = ([u8; 32], Vec<SocketAddrV4>);

#[tokio::test]
async fn peers_are_announced_found_and_taken_back() {
    let network = network(8).await;
    let (one, two) = (client(&network).await, client(&network).await);
    let (topic, keys) = (Id::from([1; 32]), KeyPair::from_seed(&[1; 32]));
    let key = *keys.public_key().as_bytes();
    assert_eq!(peers(&two, topic).await, []);

    let relays = vec!["192.0.2.1:1".parse().unwrap()];
    let stored = within(one.announce(topic, &keys, relays.clone()))
        .await
        .unwrap();
    assert_eq!((stored.nodes.len(), stored.closest.len()), (9, 9));
    assert_eq!(peers(&two, topic).await, [(key, relays)]);

    let moved = vec!["192.0.2.2:2".parse().unwrap()];
    let mut options = AnnounceOptions::default();
    options.clear = true;
    options.nodes = stored.closest;
    within(one.announce_with(topic, &keys, moved.clone(), options))
        .await
        .unwrap();
    assert_eq!(peers(&two, topic).await, [(key, moved)]);

    within(one.unannounce(topic, &keys)).await.unwrap();
    assert_eq!(peers(&two, topic).await, []);
}

#[tokio::test]
async fn a_peer_under_its_own_key_is_found_and_handshakes_reach_it_through_whoever_stored_it() {
    let network = network(4).await;
    let server = client(&network).await;
    let keys = KeyPair::from_seed(&[2; 32]);
    let target = Id::of_public_key(&keys.public_key());
    assert!(server.serve(keys.public_key()));
    let mut arrivals = server.arrivals().unwrap();
    assert!(server.arrivals().is_none(), "only one has it");
    within(server.announce(target, &keys, Vec::new()))
        .await
        .unwrap();

    let asking = client(&network).await;
    let mut finding = asking.find_peer(&keys.public_key()).unwrap();
    let (node, peer) = within(finding.next()).await.expect("it is found");
    assert_eq!(peer.public_key, keys.public_key());

    let mut handshake = vec![0, 0, 5];
    handshake.extend(b"noise");
    let outgoing = Outgoing {
        target: Some(target),
        value: Some(handshake),
        ..Outgoing::new(node.from, PEER_HANDSHAKE)
    };
    let asked = tokio::spawn({
        let asking = asking.clone();
        async move { asking.request(outgoing).await }
    });
    let Some(Arrival::Request(incoming)) = within(arrivals.recv()).await else {
        panic!("a handshake arrives");
    };
    assert_eq!(
        (incoming.command, incoming.from),
        (PEER_HANDSHAKE, node.from)
    );
    // From the server, with the client's address as the relay saw it.
    let mut answer = incoming.value.clone().unwrap();
    answer[1] = 1;
    let relay = incoming.from;
    server.relay(incoming, answer, relay, None);
    let answer = within(asked).await.unwrap().unwrap();
    assert_eq!(answer.from, node.from);
    assert!(
        answer
            .value
            .unwrap()
            .windows(5)
            .any(|window| window == b"noise")
    );
}

#[tokio::test]
async fn records_are_put_and_got() {
    let network = network(6).await;
    let (one, two) = (client(&network).await, client(&network).await);
    let stored = within(one.immutable_put(b"hello".to_vec())).await.unwrap();
    assert_eq!(
        within(two.immutable_get(stored.target))
            .await
            .unwrap()
            .as_deref(),
        Some(&b"hello"[..])
    );
    assert_eq!(
        within(two.immutable_get([3; 32].into())).await.unwrap(),
        None
    );

    let keys = KeyPair::from_seed(&[3; 32]);
    let key = keys.public_key();
    assert_eq!(within(two.mutable_get(&key, 0)).await.unwrap(), None);
    within(one.mutable_put(&keys, 4, b"four".to_vec()))
        .await
        .unwrap();
    within(one.mutable_put(&keys, 5, b"five".to_vec()))
        .await
        .unwrap();
    let record = within(two.mutable_get(&key, 0)).await.unwrap().unwrap();
    assert_eq!((record.seq, record.value), (5, b"five".to_vec()));
    assert_eq!(within(two.mutable_get(&key, 6)).await.unwrap(), None);
    for (seq, value, error) in [(5, "other", SEQ_REUSED), (4, "four", SEQ_TOO_LOW)] {
        let refused = within(one.mutable_put(&keys, seq, value.into())).await;
        assert!(
            matches!(refused, Err(DhtError::Refused(code)) if code == error),
            "{refused:?}"
        );
    }
    let large = within(one.immutable_put(vec![0; VALUE_LEN_MAX + 1])).await;
    assert!(matches!(large, Err(DhtError::TooLarge(_))));
}

#[tokio::test]
async fn a_sleeping_node_is_silent_and_wakes_up_where_it_was() {
    let network = network(4).await;
    let node = client(&network).await;
    let before = (address(&network[2]), address(&node));
    let search = node.find_node([7; 32].into()).unwrap();
    node.suspend().await;
    assert!(node.status().is_suspended && node.local_address().is_none());
    let failed = within(search.finish()).await;
    assert!(
        matches!(failed, Err(DhtError::Request(RequestError::Suspended))),
        "{failed:?}"
    );
    let refused = within(node.ping(before.0)).await;
    assert!(matches!(
        refused,
        Err(DhtError::Request(RequestError::Suspended))
    ));
    node.resume().await.unwrap();
    assert_eq!(address(&node), before.1, "the same port");
    within(node.ping(before.0)).await.unwrap();

    network[2].suspend().await;
    let mut ping = Outgoing::ping(before.0);
    ping.retries = 0;
    let silent = within(node.request(ping.clone())).await;
    assert!(matches!(
        silent,
        Err(DhtError::Request(RequestError::TimedOut))
    ));
    network[2].resume().await.unwrap();
    within(node.request(ping)).await.unwrap();
}

#[tokio::test]
async fn what_is_dropped_is_given_up_and_what_is_closed_fails() {
    let network = network(2).await;
    let node = client(&network).await;
    let nobody: SocketAddrV4 = "127.0.0.1:9".parse().unwrap();
    for _ in 0..3 {
        let impatient = tokio::time::timeout(Duration::ZERO, node.ping(nobody));
        assert!(impatient.await.is_err());
        drop(node.find_node([1; 32].into()).unwrap());
    }
    let pinging = tokio::spawn({
        let node = node.clone();
        async move { node.ping(nobody).await }
    });
    tokio::task::yield_now().await;
    node.close().await;
    assert!(matches!(
        within(pinging).await.unwrap(),
        Err(DhtError::Closed | DhtError::Request(_))
    ));
    assert!(matches!(
        node.find_node([1; 32].into()),
        Err(DhtError::Closed)
    ));
    assert!(matches!(node.resume().await, Err(DhtError::Closed)));

    let first = address(&network[0]);
    network[0].close().await;
    let again = local().port(first.port()).any_port(false).bind().unwrap();
    assert_eq!(address(&again), first, "the port is free");
}

#[tokio::test]
async fn a_node_that_knew_others_needs_no_bootstrap() {
    let network = network(6).await;
    let node = client(&network).await;
    let known = node.nodes(3);
    assert_eq!(known.len(), 3);
    drop(node);
    let again = local()
        .bootstrap([])
        .nodes(known)
        .ephemeral(true)
        .bind()
        .unwrap();
    within(again.bootstrapped()).await.unwrap();
    let found = within(again.find_node([5; 32].into()).unwrap().finish())
        .await
        .unwrap();
    assert_eq!(found.closest.len(), 7);
}

#[tokio::test]
async fn an_extra_socket_asks_and_answers() {
    let network = network(1).await;
    let node = client(&network).await;
    let extra = node.open_extra().unwrap();
    let mut ping = Outgoing::ping(address(&network[0]));
    ping.socket = Some(extra.name());
    let asking = tokio::spawn({
        let node = node.clone();
        async move { node.request(ping).await }
    });
    let datagram = within(extra.socket().recv_from()).await.unwrap();
    assert!(extra.handle(datagram.from, &datagram.data));
    assert!(!extra.handle(datagram.from, &[0]), "one byte is for others");
    let pong = within(asking).await.unwrap().unwrap();
    assert_eq!(pong.to.port(), extra.socket().local_addr().port());
    assert_eq!(pong.socket, extra.name());
}

/// Goal: a node whose socket has failed goes on. Method: a socket is closed behind its back; it answers others again, and is asked
/// by nobody to wake up.
#[tokio::test]
async fn a_node_binds_again_when_a_socket_has_failed() {
    let nodes = network(2).await;
    let (node, asker) = (&nodes[1], &nodes[2]);
    for tag in [Socket::Server, Socket::Client] {
        let before = node.socket(tag).unwrap();
        before.clone().close().await;
        within(async {
            while node.socket(tag).is_none_or(|socket| !socket.is_open()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        within(asker.ping(address(node))).await.unwrap();
        within(node.ping(address(asker))).await.unwrap();
    }
}
