//! Goal: a network of the DHT is run and used from the command line, on loopback.
#![cfg(unix)]

use crate::common::Bench;

const LOCAL: [&str; 2] = ["--host", "127.0.0.1"];

#[test]
fn records_and_topics_travel_over_a_network_of_our_own() {
    let bench = Bench::new();
    let mut first = bench.start(
        "s",
        &["dht", "bootstrap", "--host", "127.0.0.1", "--port", "0"],
    );
    let ready = first.wait("ready");
    let address = format!("127.0.0.1:{}", ready["port"]);
    assert!(ready["id"].is_string());
    let with = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        all.extend(LOCAL.map(str::to_owned));
        all.extend(["--bootstrap".to_owned(), address.clone()]);
        all
    };
    let run = |arguments: &[&str]| {
        let all = with(arguments);
        bench.run("s", &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let start = |arguments: &[&str]| {
        let all = with(arguments);
        bench.start("s", &all.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let mut node = start(&["dht", "node", "--port", "0"]);
    assert_eq!(node.wait("ready")["nodes"], 1);

    let stored = run(&["dht", "put", "hello", "--json"])
        .expect(0)
        .event("stored");
    let hash = stored["hash"].as_str().unwrap();
    assert_eq!(run(&["dht", "get", hash]).expect(0).text(), "hello");
    run(&["dht", "get", &"00".repeat(32)]).expect(3);
    run(&["dht", "get", "nonsense"]).expect(2);

    let secret = bench.path("my.secret");
    let secret = secret.to_str().unwrap();
    let put = |seq: &str, value: &str| {
        run(&[
            "dht", "put", value, "--secret", secret, "--seq", seq, "--json",
        ])
    };
    let key = put("1", "one").expect(0).event("stored")["key"].clone();
    put("2", "two").expect(0);
    put("1", "older").expect(6);
    let key = key.as_str().unwrap();
    assert_eq!(run(&["dht", "get", "--key", key]).expect(0).text(), "two");

    run(&["dht", "lookup", "cats"]).expect(3);
    let mut announcing = start(&["dht", "announce", "cats"]);
    assert!(announcing.wait("ready")["port"].as_u64().unwrap() > 0);
    let announced = announcing.wait("announcer");
    let found = run(&["dht", "lookup", "cats", "--json"])
        .expect(0)
        .event("announcer");
    assert_eq!(found["public_key"], announced["public_key"]);
    assert!(!found["relays"].as_array().unwrap().is_empty());
    let key = announced["public_key"].as_str().unwrap();
    let ping = with(&["dht", "ping", key, "--json"]);
    let pong = bench.run_until("s", &ping, 0).event("pong");
    assert_eq!(pong["remote_key"], announced["public_key"], "it listens");
    announcing.interrupt().expect(0);
    run(&["dht", "lookup", "cats"]).expect(3);
    node.interrupt().expect(0);
    first.interrupt().expect(0);
}

#[test]
fn what_cannot_be_is_said() {
    let bench = Bench::new();
    bench.run("s", &["dht", "bootstrap"]).expect(2);
    bench
        .run("s", &["dht", "lookup", "cats", "--bootstrap", "nonsense"])
        .expect(2);
    let nobody = [
        "dht",
        "lookup",
        "cats",
        "--host",
        "127.0.0.1",
        "--bootstrap",
        "127.0.0.1:9",
    ];
    bench.run("s", &nobody).expect(4);
    let key = "y".repeat(52);
    let nobody = [
        &["get", &key, "--no-lan", "--timeout", "1s", "--port", "0"][..],
        &nobody[3..],
    ];
    let failed = bench.run("s", &nobody.concat()).expect(4);
    assert!(
        failed.stderr.contains("no node of the DHT answers"),
        "{}",
        failed.stderr
    );
    let large = "x".repeat(1001);
    let put = ["dht", "put", "-", "--bootstrap", "127.0.0.1:9"];
    let refused = bench.run_with("s", &put, large.as_bytes()).expect(2);
    assert!(refused.stderr.contains("too large"), "{}", refused.stderr);
    // The bench gives it --no-dht, too.
    let contradiction = bench.run("s", &["list", "--relay", &key]).expect(2);
    assert!(contradiction.stderr.contains("--no-dht"));
}
