//! Swarms on a private DHT.
//!
//! Goal: who is on a topic is found through the DHT and connected by UDX, and nobody is once they have left. Method: nodes on
//! loopback, real sockets and time; nothing depends on how long it takes.

use std::net::Ipv4Addr;
use std::time::Duration;

use ferrocore_primitives::sign::KeyPair;
use ferrocore_swarm::dht::{BootstrapNode, Dht};
use ferrocore_swarm::transport::Via;
use ferrocore_swarm::{Connections, JoinOptions, Online, Swarm, Topic};
use tokio::time::timeout;

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), wait)
        .await
        .expect("it comes soon")
}

/// A network of one node that everybody asks.
struct World {
    first: Dht,
}

impl World {
    async fn new() -> Self {
        let here = Ipv4Addr::LOCALHOST;
        let first = Dht::builder()
            .bootstrapper(here)
            .host(here)
            .port(0)
            .bind()
            .unwrap();
        soon(first.bootstrapped()).await.unwrap();
        Self { first }
    }

    fn swarm(&self) -> (Swarm, Connections) {
        let bootstrap = BootstrapNode::from(self.first.local_address().unwrap());
        let dht = Dht::builder()
            .bootstrap([bootstrap])
            .host(Ipv4Addr::LOCALHOST)
            .port(0);
        let keys = KeyPair::generate();
        let online = Online::new(dht.bind().unwrap(), keys.clone(), None);
        Swarm::builder()
            .key_pair(keys)
            .transport(online.clone())
            .discovery(online)
            .open()
    }
}

#[tokio::test]
async fn members_of_a_topic_find_each_other_and_leave() {
    let world = World::new().await;
    let topic = Topic::from_name("chess");
    let (alice, mut to_alice) = world.swarm();
    let (bob, mut to_bob) = world.swarm();
    let serving = alice.join(
        topic,
        JoinOptions {
            client: false,
            ..Default::default()
        },
    );
    soon(alice.flush()).await;
    let _looking = bob.join(
        topic,
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    let (at_bob, at_alice) = (
        soon(to_bob.next()).await.unwrap(),
        soon(to_alice.next()).await.unwrap(),
    );
    assert_eq!(at_bob.info.remote_key, alice.public_key());
    assert_eq!(at_alice.info.remote_key, bob.public_key());
    assert!(
        matches!(at_bob.info.via, Via::Direct | Via::Lan),
        "{:?}",
        at_bob.info.via
    );
    let (mut sender, _receiver) = at_bob.stream.split();
    let (_sender, mut receiver) = at_alice.stream.split();
    sender.send(&[b"hello"]).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(soon(receiver.recv()).await.unwrap().unwrap(), "hello");

    soon(serving.leave()).await;
    let (carol, _to_carol) = world.swarm();
    let _looking = carol.join(
        topic,
        JoinOptions {
            server: false,
            ..Default::default()
        },
    );
    soon(carol.flush()).await;
    assert!(carol.status().peers.is_empty(), "{:?}", carol.status());
}

#[tokio::test]
async fn members_who_all_look_for_each_other_keep_one_connection_to_each() {
    let world = World::new().await;
    let topic = Topic::from_name("go");
    let mut swarms: Vec<_> = (0..4).map(|_| world.swarm()).collect();
    let mut sessions = Vec::new();
    for (swarm, _) in &swarms {
        sessions.push(swarm.join(topic, JoinOptions::default()));
        soon(swarm.flush()).await;
    }
    let mut kept = Vec::new();
    for (swarm, connections) in &mut swarms {
        while swarm.status().connections.len() < 3 {
            kept.push(soon(connections.next()).await.unwrap());
        }
        let mut keys: Vec<_> = swarm
            .status()
            .connections
            .iter()
            .map(|info| info.remote_key)
            .collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 3);
    }
}

/// Goal: who sleeps is not found, though it was announced; awake it is, with the same key. Method: Alice sleeps while Carol looks.
#[tokio::test]
async fn who_sleeps_is_found_again_once_awake() {
    let world = World::new().await;
    let topic = Topic::from_name("shogi");
    let (alice, mut to_alice) = world.swarm();
    let (bob, mut to_bob) = world.swarm();
    let serving = JoinOptions {
        client: false,
        ..Default::default()
    };
    let looking = JoinOptions {
        server: false,
        ..Default::default()
    };
    let _serving = alice.join(topic, serving);
    soon(alice.flush()).await;
    let _looking = bob.join(topic, looking);
    soon(to_bob.next()).await.unwrap();
    soon(to_alice.next()).await.unwrap();

    soon(alice.suspend()).await;
    let (carol, mut to_carol) = world.swarm();
    let _looking_too = carol.join(topic, looking);
    soon(carol.flush()).await;
    assert!(carol.status().peers.is_empty(), "{:?}", carol.status());

    soon(alice.resume()).await.unwrap();
    soon(alice.flush()).await;
    carol.refresh();
    let found = soon(to_carol.next()).await.unwrap();
    assert_eq!(found.info.remote_key, alice.public_key());
}

/// Goal: who has come back under another key is found long before the connection to who it was is given up. Method: Alice
/// vanishes without a word, with the runtime she lives in, while Bob has something to say to her.
#[tokio::test]
async fn who_vanishes_without_a_word_is_looked_for_elsewhere() {
    let world = World::new().await;
    let topic = Topic::from_name("xiangqi");
    let (bob, mut to_bob) = world.swarm();
    let serving = JoinOptions {
        client: false,
        ..Default::default()
    };
    let looking = JoinOptions {
        server: false,
        ..Default::default()
    };
    let mut hers = tokio::runtime::Builder::new_multi_thread();
    let hers = hers.worker_threads(1).enable_all().build().unwrap();
    let (alice, mut to_alice, _serving) = {
        let _here = hers.enter();
        let (alice, to_alice) = world.swarm();
        let serving = alice.join(topic, serving);
        (alice, to_alice, serving)
    };
    soon(alice.flush()).await;
    let _looking = bob.join(topic, looking);
    let at_bob = soon(to_bob.next()).await.unwrap();
    let _at_alice = soon(to_alice.next()).await.unwrap();
    hers.shutdown_background();

    let (mut sender, _receiver) = at_bob.stream.split();
    sender.send(&[b"your move"]).await.unwrap();
    sender.flush().await.unwrap();
    let (again, _to_again) = world.swarm();
    let _serving_again = again.join(topic, serving);
    soon(again.flush()).await;
    let found = soon(to_bob.next()).await.unwrap();
    assert_eq!(found.info.remote_key, again.public_key());
    let mut open = bob.status().connections.into_iter();
    assert!(
        open.any(|info| info.remote_key == alice.public_key()),
        "the old one was given up first"
    );
}
