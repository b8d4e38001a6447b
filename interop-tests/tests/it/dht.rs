//! Nodes of hyperdht in a Node process and of ferrocore in this one, in one network on loopback.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ferrocore_dht::id::Id;
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::{Call, Peer};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_swarm::dht::{Builder, Dht};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Longest wait for anything in this process, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often something is tried that a busy machine may spoil.
const TRIES: usize = 10;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// Nodes of hyperdht, in a process of their own.
struct Node {
    peer: Peer,
}

impl Node {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/dht.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(node::ensure(Tree::Current));
        Self {
            peer: Peer::run("dht.mjs", &mut command),
        }
    }

    /// A network of JavaScript nodes; returns the address of the first.
    fn testnet(&mut self, size: usize) -> SocketAddrV4 {
        let port = self.call("testnet", json!({ "size": size }))["port"].as_u64();
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::try_from(port.unwrap()).unwrap())
    }

    fn join(&mut self, count: usize, bootstrap: SocketAddrV4, client: bool) {
        let port = bootstrap.port();
        self.call(
            "join",
            json!({ "count": count, "port": port, "client": client }),
        );
    }

    fn call(&mut self, name: &str, arguments: Value) -> Value {
        tokio::task::block_in_place(|| self.peer.call(name, arguments))
    }

    /// As `call`, again and again: JavaScript gives requests up after seconds, also when this machine is too busy for them.
    fn call_again(&mut self, name: &str, arguments: &Value) -> Value {
        for _ in 0..TRIES {
            let called = tokio::task::block_in_place(|| {
                let call = self.peer.begin(name, arguments.clone());
                self.peer.try_finish(&call)
            });
            if let Ok(answer) = called {
                return answer;
            }
        }
        self.call(name, arguments.clone())
    }

    /// Keys that node number `node` finds under a topic.
    fn lookup(&mut self, node: usize, topic: Id) -> BTreeSet<String> {
        let lookup = self.begin_lookup(node, topic);
        self.finish_lookup(lookup)
    }

    fn begin_lookup(&mut self, node: usize, topic: Id) -> Call {
        let arguments = json!({ "node": node, "topic": topic.to_string() });
        self.peer.begin("lookup", arguments)
    }

    fn finish_lookup(&mut self, lookup: Call) -> BTreeSet<String> {
        let found = tokio::task::block_in_place(|| self.peer.finish(lookup));
        found.as_object().unwrap().keys().cloned().collect()
    }
}

fn local(bootstrap: Option<SocketAddrV4>) -> Builder {
    let node = Dht::builder().host(Ipv4Addr::LOCALHOST).port(0);
    match bootstrap {
        Some(address) => node.bootstrap([address.into()]),
        None => node.bootstrapper(Ipv4Addr::LOCALHOST),
    }
}

fn address(node: &Dht) -> SocketAddrV4 {
    node.local_address().unwrap()
}

/// A node of ours that stays: the first of its network without a bootstrap.
async fn staying(bootstrap: Option<SocketAddrV4>) -> Dht {
    let node = local(bootstrap)
        .firewalled(false)
        .ephemeral(false)
        .bind()
        .unwrap();
    within(node.until(|status| status.is_bootstrapped && status.id.is_some()))
        .await
        .unwrap();
    node
}

async fn client(bootstrap: SocketAddrV4) -> Dht {
    let node = local(Some(bootstrap)).ephemeral(true).bind().unwrap();
    within(node.bootstrapped()).await.unwrap();
    node
}

/// Keys that `node` finds under a topic.
async fn lookup(node: &Dht, topic: Id) -> BTreeSet<String> {
    let mut lookup = node.lookup(topic).unwrap();
    let mut keys = BTreeSet::new();
    while let Some((_, found)) = within(lookup.next()).await {
        keys.extend(
            found
                .peers
                .iter()
                .map(|peer| hex(peer.public_key.as_bytes())),
        );
    }
    within(lookup.finish()).await.unwrap();
    keys
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keys(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn seed(seed: u8) -> String {
    hex(&[seed; 32])
}

fn key(seed: u8) -> String {
    hex(keys(seed).public_key().as_bytes())
}

/// Everything a client does, from `ours` and from JavaScript's node number `theirs`, read back by the other.
async fn exchange(node: &mut Node, theirs: usize, ours: &Dht, salt: u8) {
    let topic = Id::from([salt; 32]);
    let (by_us, by_them) = (salt, salt.wrapping_add(100));
    let announce = json!({ "node": theirs, "topic": topic.to_string(), "seed": seed(by_them) });
    node.call_again("announce", &announce);
    within(ours.announce(topic, &keys(by_us), Vec::new()))
        .await
        .unwrap();
    let both = BTreeSet::from([key(by_us), key(by_them)]);
    assert_eq!(node.lookup(theirs, topic), both);
    assert_eq!(lookup(ours, topic).await, both);
    let mut left = vec![both];
    for _ in 0..TRIES {
        if left.iter().all(BTreeSet::is_empty) {
            break;
        }
        node.call_again("unannounce", &announce);
        within(ours.unannounce(topic, &keys(by_us))).await.unwrap();
        left = vec![node.lookup(theirs, topic), lookup(ours, topic).await];
    }
    assert_eq!(left, vec![BTreeSet::new(); 2]);

    let value = format!("immutable {salt}");
    let stored = within(ours.immutable_put(value.clone().into_bytes()))
        .await
        .unwrap();
    let get = json!({ "node": theirs, "hash": stored.target.to_string() });
    assert_eq!(node.call("immutableGet", get), json!(value));
    let value = format!("immutable too {salt}");
    node.call("immutablePut", json!({ "node": theirs, "value": value }));
    let target = Id::of_value(value.as_bytes());
    let got = within(ours.immutable_get(target)).await.unwrap();
    assert_eq!(got.as_deref(), Some(value.as_bytes()));

    within(ours.mutable_put(&keys(by_us), 3, b"ours".to_vec()))
        .await
        .unwrap();
    let get = json!({ "node": theirs, "key": key(by_us) });
    assert_eq!(
        node.call("mutableGet", get),
        json!({ "seq": 3, "value": "ours" })
    );
    let put = json!({ "node": theirs, "seed": seed(by_them), "seq": 7, "value": "theirs" });
    node.call("mutablePut", put);
    let record = within(ours.mutable_get(&keys(by_them).public_key(), 0))
        .await
        .unwrap();
    let record = record.expect("the record is found");
    assert_eq!((record.seq, record.value.as_slice()), (7, &b"theirs"[..]));
}

/// A node of ours is the only one that twenty JavaScript nodes know when they start: all become part of the network,
/// announce and find each other, and we find them.
#[tokio::test(flavor = "multi_thread")]
async fn our_node_is_the_only_bootstrap_of_twenty() {
    let first = staying(None).await;
    let mut node = Node::start();
    node.join(20, address(&first), false);
    let status = node.call("status", json!({}));
    assert!(
        status
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["id"].is_string()),
        "{status}"
    );
    let pong = node.call("ping", json!({ "node": 3, "port": address(&first).port() }));
    assert_eq!(pong["id"], json!(first.status().id.unwrap().to_string()));
    // It knows them all; on a busy machine it may have lost one for a while.
    let knows_all = first.until(|status| status.nodes == 20);
    within(knows_all).await.unwrap();

    let topic = Id::from([1; 32]);
    for from in [0, 7, 19] {
        let seed = seed(u8::try_from(from).unwrap());
        let announce = json!({ "node": from, "topic": topic.to_string(), "seed": seed });
        node.call_again("announce", &announce);
    }
    let all = BTreeSet::from([key(0), key(7), key(19)]);
    assert_eq!(node.lookup(12, topic), all);
    assert_eq!(lookup(&first, topic).await, all);
    exchange(&mut node, 5, &first, 2).await;
}

/// A client of ours in a network of JavaScript nodes alone.
#[tokio::test(flavor = "multi_thread")]
async fn our_client_uses_a_network_of_theirs() {
    let mut node = Node::start();
    let bootstrap = node.testnet(10);
    let ours = client(bootstrap).await;
    exchange(&mut node, 4, &ours, 3).await;
    let staying = staying(Some(bootstrap)).await;
    exchange(&mut node, 6, &staying, 4).await;
    let pong = node.call(
        "ping",
        json!({ "node": 3, "port": address(&staying).port() }),
    );
    assert_eq!(pong["id"], json!(staying.status().id.unwrap().to_string()));
}

/// JavaScript clients in a network of our nodes alone: everything they store is stored by us, and one of them dials the
/// other by its key, with its handshake passed on by us.
#[tokio::test(flavor = "multi_thread")]
async fn their_clients_use_a_network_of_ours() {
    let mut ours = vec![staying(None).await];
    for _ in 0..5 {
        ours.push(staying(Some(address(&ours[0]))).await);
    }
    let mut node = Node::start();
    node.join(2, address(&ours[0]), true);
    exchange(&mut node, 0, &ours[3], 5).await;

    node.call("listen", json!({ "node": 0, "seed": seed(9) }));
    let found = node.call("findPeer", json!({ "node": 1, "key": key(9) }));
    assert_eq!(found, json!(key(9)));
    let echo = node.call(
        "dial",
        json!({ "node": 1, "key": key(9), "text": "through ours" }),
    );
    assert_eq!(echo["echo"], "through ours");

    let port = address(&ours[1]).port();
    let ping = node.call("delayedPing", json!({ "node": 1, "port": port, "ms": 300 }));
    assert!(ping["passed"].as_u64().unwrap() >= 300);
}

/// Ten nodes of each kind: each node knows all others and is told everything.
#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_mixed_network_dies_and_everything_is_found() {
    half_dies(10).await;
}

/// Thirty nodes of each kind: an announcement is kept by the closest twenty of the sixty, of which half are gone.
#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_network_in_which_nobody_keeps_all_dies_and_everything_is_found() {
    half_dies(30).await;
}

/// Nodes of each kind, ten announcements by nodes of both; then every second of each kind is gone without a word. Every node that is
/// left finds all ten. (Where all that came first are gone, it may be that those who came after knew hardly anybody else.)
async fn half_dies(each: usize) {
    let mut ours = vec![staying(None).await];
    let bootstrap = address(&ours[0]);
    let mut node = Node::start();
    for _ in 1..each {
        ours.push(staying(Some(bootstrap)).await);
        node.join(1, bootstrap, false);
    }
    node.join(1, bootstrap, false);

    let topic = Id::from([6; 32]);
    for at in 0..5_u8 {
        let from = usize::from(at) * each / 5;
        within(ours[from].announce(topic, &keys(at), Vec::new()))
            .await
            .unwrap();
        let announce = json!({ "node": from, "topic": topic.to_string(), "seed": seed(at + 50) });
        node.call_again("announce", &announce);
    }
    let all: BTreeSet<_> = (0..5).chain(50..55).map(key).collect();
    assert_eq!(lookup(&ours[1], topic).await, all);

    let is_dead = |number: usize| number.is_multiple_of(2);
    let mut left = Vec::new();
    for (number, ours) in ours.into_iter().enumerate() {
        if is_dead(number) {
            ours.close().await;
        } else {
            left.push(ours);
        }
    }
    for number in (0..each).filter(|number| is_dead(*number)) {
        node.call("kill", json!({ "from": number, "to": number + 1 }));
    }
    let mut lookups = JoinSet::new();
    for ours in &left {
        let ours = ours.clone();
        lookups.spawn(async move { lookup(&ours, topic).await });
    }
    while let Some(found) = lookups.join_next().await {
        assert_eq!(found.unwrap(), all, "by one of ours");
    }
    let theirs = (0..each).filter(|number| !is_dead(*number));
    let begun: Vec<_> = theirs
        .map(|number| node.begin_lookup(number, topic))
        .collect();
    for lookup in begun {
        assert_eq!(node.finish_lookup(lookup), all, "by one of theirs");
    }
}
