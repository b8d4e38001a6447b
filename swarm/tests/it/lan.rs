//! Discovery by multicast DNS, among swarms of one machine.
//!
//! Goal: who is on a topic is found by key-less names, connected, and nobody else is. Method: swarms on the loopback interface
//! (which users' swarms leave out); real sockets, real time, no test on how long it takes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_primitives::id::encode_z32;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_swarm::lan::{Include, Lan};
use ferrocore_swarm::transport::Via;
use ferrocore_swarm::{
    Connection, ConnectionInfo, Connections, JoinOptions, Swarm, SwarmEvent, Topic,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const LOOPBACK: Include = Include {
    loopback: true,
    tunnels: false,
};

/// Tests run beside each other on one network.
fn new_topic() -> Topic {
    Topic::from(ferrocore_primitives::random::bytes())
}

fn swarm() -> (Swarm, Connections) {
    let (transport, lan) = Lan::open(LOOPBACK).unwrap();
    Swarm::builder().transport(transport).discovery(lan).open()
}

/// The connection to this peer. Another may come before it: in the filter of who is on many topics one seems to be that is not.
async fn met(connections: &mut Connections, key: PublicKey) -> Connection {
    loop {
        let connection = soon(connections.next()).await.unwrap();
        if connection.info.remote_key == key {
            return connection;
        }
    }
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), wait)
        .await
        .expect("it comes soon")
}

#[tokio::test]
async fn members_of_a_topic_find_each_other() {
    let topic = new_topic();
    let (alice, mut to_alice) = swarm();
    let (bob, mut to_bob) = swarm();
    let (eve, mut to_eve) = swarm();
    let _serving = alice.join(
        topic,
        JoinOptions {
            client: false,
            ..Default::default()
        },
    );
    let _elsewhere = eve.join(new_topic(), JoinOptions::default());
    let _looking = bob.join(
        topic,
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    let keys = [alice.public_key(), bob.public_key()];
    let at_bob = met(&mut to_bob, keys[0]).await;
    let at_alice = met(&mut to_alice, keys[1]).await;
    assert_eq!((at_bob.info.via, at_alice.info.via), (Via::Lan, Via::Lan));
    assert_eq!(at_bob.topics, [topic]);
    soon(eve.flush()).await;
    let meets = async {
        while let Some(connection) = to_eve.next().await {
            assert!(!keys.contains(&connection.info.remote_key));
        }
    };
    assert!(timeout(Duration::from_millis(200), meets).await.is_err());
    let connected = [&alice, &bob].map(|swarm| swarm.status().connections);
    let is_eve = |info: &ConnectionInfo| info.remote_key == eve.public_key();
    assert!(!connected.iter().flatten().any(is_eve), "{connected:#?}");
}

/// Goal: a node hears its own announcement, and does not take itself for a peer. Method: another node of this machine is found,
/// so answers arrive; nobody else is known then.
#[tokio::test]
async fn a_node_does_not_find_itself_but_others_of_its_machine() {
    let topic = new_topic();
    let (alice, mut to_alice) = swarm();
    let _alone = alice.join(topic, JoinOptions::default());
    // Its question is answered by then, by itself.
    soon(alice.flush()).await;
    let mut events = alice.events();
    let (bob, _to_bob) = swarm();
    let _beside = bob.join(topic, JoinOptions::default());
    while !matches!(soon(events.next()).await, Some(SwarmEvent::Found { .. })) {}
    let mut others = vec![soon(to_alice.next()).await.unwrap()];
    while others
        .iter()
        .all(|one| one.info.remote_key != bob.public_key())
    {
        others.push(soon(to_alice.next()).await.unwrap());
    }
    let known: Vec<_> = alice.status().peers;
    assert_eq!(known.len(), others.len(), "{known:#?}");
}

#[tokio::test]
async fn a_topic_joined_later_is_found_among_many() {
    let (alice, _to_alice) = swarm();
    let (bob, mut to_bob) = swarm();
    let topics: Vec<Topic> = (0..50).map(|_| new_topic()).collect();
    let serving: Vec<_> = topics
        .iter()
        .map(|topic| alice.join(*topic, JoinOptions::default()))
        .collect();
    let early = bob.join(
        new_topic(),
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    soon(bob.flush()).await;
    let _looking = bob.join(
        topics[42],
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    let connection = met(&mut to_bob, alice.public_key()).await;
    assert_eq!(connection.topics, [topics[42]]);
    drop((early, serving));
}

/// Hears all multicast DNS on loopback.
fn eavesdropper() -> UdpSocket {
    let (group, port) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddrV4::new(group, port).into()).unwrap();
    socket
        .join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)
        .unwrap();
    UdpSocket::from_std(socket.into()).unwrap()
}

/// Goal: neither topics nor keys are on the network, in any of their notations. Method: somebody listens to all of it while two
/// members meet.
#[tokio::test]
async fn a_listener_learns_neither_topics_nor_keys() {
    let listener = eavesdropper();
    let topic = new_topic();
    let (alice, _to_alice) = swarm();
    let (bob, mut to_bob) = swarm();
    let _serving = alice.join(topic, JoinOptions::default());
    let _looking = bob.join(topic, JoinOptions::default());
    met(&mut to_bob, alice.public_key()).await;
    let (mut heard, mut packet) = (Vec::new(), vec![0; 9000]);
    let announcement = b"_ferrocore".as_slice();
    while !contains(&heard, announcement) {
        let (length, _) = soon(listener.recv_from(&mut packet)).await.unwrap();
        heard.extend_from_slice(&packet[..length]);
    }
    while let Ok((length, _)) = listener.try_recv_from(&mut packet) {
        heard.extend_from_slice(&packet[..length]);
    }
    heard.make_ascii_lowercase();
    let keys = [alice.public_key(), bob.public_key()];
    let secrets = [*topic.as_bytes(), *keys[0].as_bytes(), *keys[1].as_bytes()];
    for secret in secrets {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let z32 = encode_z32(&secret);
        // Half of it would do to recognise it.
        for part in [&secret[..8], &hex.as_bytes()[..16], &z32.as_bytes()[..13]] {
            assert!(!contains(&heard, &part.to_ascii_lowercase()));
        }
    }
}

fn contains(heard: &[u8], part: &[u8]) -> bool {
    heard.windows(part.len()).any(|window| window == part)
}
