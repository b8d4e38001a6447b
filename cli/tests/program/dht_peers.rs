//! Goal: peers are reached by key, meet at a blind relay, and are told what is wrong, over a network of our own on loopback.
//! Method: `fcore` runs the network and the relay; two peers in this process may go no other way.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::{Bench, Finished, PATIENCE, Running, files};
use ferrocore::primitives::id::{encode_z32, parse_key};
use ferrocore::primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::connect::{ConnectOptions, ListenOptions, Peers, Route};
use ferrocore_swarm::dht::{BootstrapNode, Dht};
use serde_json::Value;

/// Between looks at what no event tells of.
const PAUSE: Duration = Duration::from_millis(200);

/// A DHT of processes, and a relay in it.
struct Network {
    bench: Bench,
    bootstrap: String,
    _nodes: Vec<Running>,
    relay: Running,
    relay_key: String,
}

impl Network {
    fn start() -> Self {
        let bench = Bench::new();
        let first = ["dht", "bootstrap", "--host", "127.0.0.1", "--port", "0"];
        let mut nodes = vec![bench.start("s", &first)];
        let bootstrap = format!("127.0.0.1:{}", nodes[0].wait("ready")["port"]);
        for _ in 0..3 {
            let mut node = bench.start("s", &on(&bootstrap, &["dht", "node"]));
            node.wait("ready");
            nodes.push(node);
        }
        let (relay, relay_key) = start_relay(&bench, &bootstrap);
        Self {
            bench,
            bootstrap,
            _nodes: nodes,
            relay,
            relay_key,
        }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.run_in("s", arguments)
    }

    fn run_in(&self, store: &str, arguments: &[&str]) -> Finished {
        self.bench.run(store, &on(&self.bootstrap, arguments))
    }

    async fn peers(&self) -> Peers {
        let bootstrap: BootstrapNode = self.bootstrap.parse().unwrap();
        let builder = Dht::builder().host(Ipv4Addr::LOCALHOST).port(0);
        let builder = builder.bootstrap([bootstrap]).ephemeral(true);
        let builder = builder.config(|config| config.quick_firewall = false);
        let dht = builder.bind().unwrap();
        dht.bootstrapped().await.unwrap();
        Peers::new(dht, KeyPair::generate())
    }
}

fn start_relay(bench: &Bench, bootstrap: &str) -> (Running, String) {
    let arguments = on(bootstrap, &["relay", "--secret", "relay.secret"]);
    let mut relay = bench.start("s", &arguments);
    let ready = relay.wait("ready");
    assert_eq!(ready["host"], "127.0.0.1");
    assert!(ready["port"].as_u64().is_some_and(|port| port > 0));
    (relay, ready["public_key"].as_str().unwrap().to_owned())
}

fn on(bootstrap: &str, arguments: &[&str]) -> Vec<String> {
    let here = [
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--bootstrap",
        bootstrap,
    ];
    let all = arguments.iter().chain(&here);
    all.map(|each| (*each).to_owned()).collect()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.expect("in time")
}

#[tokio::test]
async fn peers_that_may_not_punch_meet_at_a_relay() {
    let network = Network::start();
    let key = parse_key(&network.relay_key).unwrap();
    let key = PublicKey::from(*key.as_bytes());
    let (a, b) = (network.peers().await, network.peers().await);
    // Neither side may punch, so the relay is the only way.
    let mut listen = ListenOptions::default().relay_through(move || Some(key));
    (listen.lan, listen.punch) = (false, false);
    let mut server = a.listen(KeyPair::generate(), listen).unwrap();
    assert!(within(server.announced()).await);
    let mut options = ConnectOptions::default();
    (options.lan, options.punch) = (false, false);
    let dialling = b.connect(server.public_key(), options);
    let ours = within(dialling).await.unwrap();
    let theirs = within(server.accept()).await.unwrap();
    assert_eq!(ours.route, Route::Relayed);
    let (mut sender, _reading) = ours.stream.split();
    let (_writing, mut receiver) = theirs.stream.split();
    sender.send(&[b"hello"]).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(within(receiver.recv()).await.unwrap().unwrap(), "hello");
    let ended = network.relay.interrupt().expect(0);
    assert_eq!(ended.event("relayed")["joined"], 1);
    // The secret is kept, so that peers that know the relay find it again.
    let (again, same_key) = start_relay(&network.bench, &network.bootstrap);
    assert_eq!(same_key, network.relay_key);
    again.interrupt().expect(0);
}

/// The checks of a doctor, in order, and whether each went well.
fn checks(finished: &Finished) -> Vec<(String, bool)> {
    let events = finished.text();
    let events = events.lines().map(|line| line.parse::<Value>().unwrap());
    let mut found = Vec::new();
    for event in events.filter(|event| event["event"] == "check") {
        let ok = event["ok"].as_bool().unwrap();
        assert!(ok || event["hint"].is_string(), "{event}");
        found.push((event["name"].as_str().unwrap().to_owned(), ok));
    }
    found
}

fn all(names: &[&str], but: &str) -> Vec<(String, bool)> {
    let checked = |name: &&str| ((*name).to_owned(), *name != but);
    names.iter().map(checked).collect()
}

#[test]
fn a_doctor_says_what_works_and_what_does_not() {
    let network = Network::start();
    let doctor = |more: &[&str]| {
        let mut arguments = vec!["doctor", "--json"];
        arguments.extend(more);
        on(&network.bootstrap, &arguments)
    };
    let names = ["clock", "disk", "udp", "dht", "nat", "relay"];
    let well = doctor(&["--relay", &network.relay_key]);
    let well = network.bench.run_until("s", &well, 0);
    assert_eq!(checks(&well), all(&names, ""));
    let nobody = encode_z32(KeyPair::generate().public_key().as_bytes());
    let ill = network.bench.run("s", &doctor(&["--relay", &nobody]));
    let ill = ill.expect(1);
    assert_eq!(checks(&ill), all(&names, "relay"));
    let alone = on("127.0.0.1:9", &["doctor", "--json"]);
    let alone = network.bench.run("s", &alone).expect(1);
    assert_eq!(checks(&alone), all(&names[..4], "dht"));
    let offline = network.bench.run("s", &["doctor", "--json"]).expect(0);
    assert_eq!(checks(&offline), all(&names[..2], ""));
}

#[test]
fn a_doctor_says_who_serves_a_drive() {
    let network = Network::start();
    let bench = &network.bench;
    bench.write("photos/a.txt", "hello");
    let mut share = bench.start("sharer", &on(&network.bootstrap, &["share", "photos"]));
    let ready = share.wait("ready");
    assert!(ready["listen"].is_null(), "nobody asked for TCP: {ready}");
    assert!(!ready["command"].as_str().unwrap().contains("--peer"));
    let [key, topic] = ["key", "discovery_key"].map(|field| ready[field].as_str().unwrap());
    let started = Instant::now();
    while network.run(&["dht", "lookup", topic]).code != Some(0) {
        assert!(started.elapsed() < PATIENCE, "never announced");
    }
    let doctor = on(&network.bootstrap, &["doctor", key, "--json"]);
    let served = bench.run_until("s", &doctor, 0);
    let names = ["clock", "disk", "udp", "dht", "nat", "target"];
    assert_eq!(checks(&served), all(&names, ""));
    let last: Value = served.text().lines().last().unwrap().parse().unwrap();
    let detail = last["detail"].as_str().unwrap();
    // On one machine several ways lead there, and the first that carries counts.
    let ways = ["direct", "punched", "lan"].map(|way| format!("({way}) has 2 of 2 blocks"));
    assert!(ways.iter().any(|way| detail.contains(way)), "{detail}");
    share.interrupt().expect(0);
    let gone = network.run(&["doctor", key, "--json", "--timeout", "8s"]);
    assert_eq!(checks(&gone.expect(4)), all(&names, "target"));
}

/// Goal: a port that was named is the one that is bound, or nothing is: others may have been told to look there.
#[test]
fn a_named_port_that_is_taken_is_refused() {
    let network = Network::start();
    let bench = &network.bench;
    bench.write("photos/a.txt", "hello");
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let key = "y".repeat(52);
    for command in [
        &["share", "photos"][..],
        &["get", &key],
        &["dht", "bootstrap"],
        &["dht", "node"],
    ] {
        let place = ["--host", "127.0.0.1", "--port", &port];
        let there = ["--bootstrap", &network.bootstrap];
        let refused = bench.run("s", &[command, &place, &there].concat());
        let refused = refused.expect(2);
        assert!(refused.stderr.contains("--port"), "{}", refused.stderr);
    }
    let doctor = ["doctor", "--host", "127.0.0.1", "--port", &port, "--json"];
    let there = ["--bootstrap", &network.bootstrap];
    let verdict = bench.run("s", &[&doctor[..], &there].concat()).expect(1);
    assert!(checks(&verdict).contains(&("udp".to_owned(), false)));
}

/// Goal: who seeds finds a drive by its key alone, and is found by it when the writer is gone; who replicates a log, too.
#[test]
fn seeders_find_and_are_found_by_key_alone() {
    let network = Network::start();
    let bench = &network.bench;
    let start = |store, command: &[&str]| bench.start(store, &on(&network.bootstrap, command));
    bench.write("photos/a.txt", "hello");
    let mut share = start("sharer", &["share", "photos"]);
    let key = share.wait("ready")["key"].as_str().unwrap().to_owned();
    let mut seed = start("seeder", &["seed", &key]);
    serves(&mut seed);
    // The index, and the bytes.
    let mut synced = BTreeSet::new();
    while synced.len() < 2 {
        synced.insert(seed.wait("synced")["key"].to_string());
    }
    share.interrupt().expect(0);
    network.run_in("getter", &["get", &key, "out"]).expect(0);
    assert_eq!(files(&bench.path("photos")), files(&bench.path("out")));
    seed.interrupt().expect(0);

    bench.run("writer", &["core", "create", "log"]).expect(0);
    let log = bench.run("writer", &["core", "info", "log", "--json"]);
    let log = log.expect(0).event("core")["key"]
        .as_str()
        .unwrap()
        .to_owned();
    bench
        .run_with("writer", &["core", "append", "log"], b"block")
        .expect(0);
    let mut writing = start("writer", &["core", "replicate", "log"]);
    serves(&mut writing);
    let mut reading = start("reader", &["core", "replicate", &log]);
    serves(&mut reading);
    reading.wait("synced");
    writing.interrupt().expect(0);
    let read = network.run_in("getter", &["core", "get", &log, "0"]);
    assert_eq!(read.expect(0).text(), "block");
    reading.interrupt().expect(0);
}

/// Says where the DHT reaches it, and then that it is found there.
fn serves(running: &mut Running) {
    let ready = running.wait("ready");
    assert!(
        ready["udp"]
            .as_str()
            .is_some_and(|udp| udp.starts_with("127.0.0.1:")),
        "{ready}"
    );
    assert_eq!(running.wait("announced")["by"], serde_json::json!(["dht"]));
}

#[test]
fn who_listens_is_reached_by_key_and_who_does_not_is_not() {
    let network = Network::start();
    let ping = ["dht", "ping", &network.relay_key, "--json"];
    let ping = on(&network.bootstrap, &ping);
    let pong = network.bench.run_until("s", &ping, 0).event("pong");
    assert_eq!(pong["remote_key"], network.relay_key.as_str());
    assert!(pong["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(["direct", "punched"].contains(&pong["via"].as_str().unwrap()));
    assert!(pong["seconds"].as_f64().unwrap() > 0.0);
    let missing = network.run(&["dht", "ping", &"00".repeat(32), "--json"]);
    assert_eq!(missing.expect(4).event("error")["kind"], "no_peer");
    network.run(&["dht", "ping", "nonsense"]).expect(2);
    let key = network.relay_key.clone();
    let (bench, bootstrap) = (network.bench, network.bootstrap);
    network.relay.interrupt().expect(0);
    bench
        .run("s", &on(&bootstrap, &["dht", "ping", &key]))
        .expect(4);
}

/// Goal: `status` says which topics are searched for how, and of a peer that cannot be reached which paths were tried, what
/// failed, and what comes next. Method: a sharer is killed, so that its announcement stands and nobody answers.
#[test]
fn status_tells_of_topics_and_of_dials_that_fail() {
    let network = Network::start();
    let bench = &network.bench;
    bench.write("photos/a.txt", "hello");
    let mut share = bench.start("sharer", &on(&network.bootstrap, &["share", "photos"]));
    let ready = share.wait("ready");
    let [link, topic] =
        ["link", "discovery_key"].map(|field| ready[field].as_str().unwrap().to_owned());
    let sharer = share.wait("announced");
    assert_eq!(sharer["by"][0], "dht");
    let shared = events(&bench.run("sharer", &["status", "--json"]), "topic");
    let shared = shared
        .iter()
        .find(|event| event["discovery_key"] == topic.as_str());
    let shared = shared.expect("the drive's topic");
    assert_eq!(
        (&shared["server"], &shared["client"]),
        (&true.into(), &false.into())
    );
    assert_eq!(shared["searches"][0]["by"], "dht");
    assert_eq!(shared["searches"][0]["state"], "done");

    let key = events(
        &network.run(&["dht", "lookup", &topic, "--json"]),
        "announcer",
    );
    let key = key[0]["public_key"].clone();
    share.kill();
    let get = on(
        &network.bootstrap,
        &["get", &link, "out", "--timeout", "60s"],
    );
    let get = bench.start("getter", &get);
    let started = Instant::now();
    let dial = loop {
        assert!(started.elapsed() < PATIENCE, "no dial failed");
        let dials = events(&bench.run("getter", &["status", "--json"]), "dial");
        let failed = dials
            .into_iter()
            .find(|dial| dial["peer"] == key && dial["reason"].is_string());
        if let Some(dial) = failed {
            break dial;
        }
        std::thread::sleep(PAUSE);
    };
    assert!(dial["attempts"].as_u64() >= Some(1), "{dial}");
    let paths = dial["paths"].as_array().unwrap();
    assert!(
        !paths.is_empty() && paths.iter().all(|path| path["path"].is_string()),
        "{dial}"
    );
    assert!(
        dial["next"].as_str().is_some_and(|next| !next.is_empty()),
        "{dial}"
    );
    get.kill();
}

/// The events of one name that a command has printed; none if it failed, as before a store is there.
fn events(finished: &Finished, name: &str) -> Vec<Value> {
    let text = finished.text();
    let all = text.lines().filter_map(|line| line.parse::<Value>().ok());
    all.filter(|event| event["event"] == name).collect()
}
