//! Goal: drives are found by key alone in the DHT, by `fcore` and by Hyperswarm. Method: a private DHT of Node processes on
//! loopback, `hyperswarm` 4.17 on one side and `fcore` on the other.

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;

/// A swarm of Node on a DHT of its own, and how `fcore` gets into that.
fn testnet(storage: &std::path::Path) -> (Peer, Vec<String>) {
    let mut node = Peer::start(Tree::Current, Role::Swarm, storage);
    let testnet = node.call("testnet", json!({ "nodes": 5 }));
    let bootstrap = testnet["bootstrap"].as_array().unwrap();
    let addresses = bootstrap.iter().filter_map(|each| each.as_str());
    let flags = addresses.flat_map(|address| ["--bootstrap".to_owned(), address.to_owned()]);
    let place = ["--host", "127.0.0.1", "--port", "0", "--no-lan"];
    let flags = flags.chain(place.map(String::from)).collect();
    (node, flags)
}

#[test]
fn fcore_fetches_from_hyperswarm() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (mut node, flags) = testnet(&at("s1"));
    let drive = node.call("open", json!({}));
    node.call("put", json!({ "path": "/a.txt", "text": "hello" }));
    node.call("join", json!({ "client": false }));

    let mut arguments = vec!["get".to_owned(), drive["key"].as_str().unwrap().to_owned()];
    arguments.push(at("fetched").to_str().unwrap().to_owned());
    arguments.extend(flags);
    let got = Fcore::new(at("s2")).in_dht().run(arguments).expect_code(0);
    let via = got.event("peer")["via"].as_str().unwrap().to_owned();
    assert!(
        ["direct", "lan", "punched"].contains(&via.as_str()),
        "{via}"
    );
    assert_eq!(
        std::fs::read_to_string(at("fetched/a.txt")).unwrap(),
        "hello"
    );
}

#[test]
fn hyperswarm_fetches_from_fcore() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (mut node, flags) = testnet(&at("s1"));
    std::fs::create_dir(at("shared")).unwrap();
    std::fs::write(at("shared/a.txt"), "hello").unwrap();
    let mut arguments = vec![
        "share".to_owned(),
        at("shared").to_str().unwrap().to_owned(),
    ];
    arguments.extend(flags);
    let mut sharing = Fcore::new(at("s2")).in_dht().start(arguments);
    let ready = sharing.wait_event("ready");
    sharing.wait_event("announced");

    node.call("open", json!({ "key": ready["key"] }));
    node.call("join", json!({ "server": false }));
    let read = node.call(
        "get",
        json!({ "path": "/a.txt", "version": ready["version"] }),
    );
    assert_eq!(read, "hello");
    sharing.interrupt().expect_code(0);
}
