//! Goal: `status` tells what is here and who is connected, from both ends of a connection, and through the
//! control socket of whoever holds the store.
#![cfg(unix)]

use crate::common::{Bench, noise};
use serde_json::Value;

/// What `status --json` says: its `core` and its `peer` events.
fn status(bench: &Bench, store: &str) -> (Vec<Value>, Vec<Value>) {
    let text = bench.run(store, &["status", "--json"]).expect(0).text();
    let events = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.partition(|event| event["event"] == "core")
}

#[test]
fn both_ends_tell_of_their_cores_and_of_each_other() {
    let bench = Bench::new();
    bench.write("in/data.bin", noise(3_000_000, 1));
    let (share, link, address) = bench.share("s1", "in");
    let get = ["get", &link, "out", "--live", "--peer", &address];
    let mut get = bench.start("s2", &get);
    get.wait("synced");

    let (cores, peers) = status(&bench, "s1");
    assert_eq!(cores.len(), 2, "an index and its blobs: {cores:?}");
    let blobs = cores.iter().find(|core| core["kind"] == "blobs").unwrap();
    assert_eq!(blobs["bytes"], 3_000_000);
    assert_eq!(
        (&blobs["writable"], &blobs["peers"]),
        (&true.into(), &1.into())
    );
    assert_eq!(blobs["length"], blobs["contiguous"]);
    let [peer] = peers.as_slice() else {
        panic!("one peer: {peers:?}");
    };
    assert_eq!(
        (&peer["event"], &peer["state"]),
        (&"peer".into(), &"connected".into())
    );
    assert_eq!(
        (&peer["via"], &peer["initiator"]),
        (&"tcp".into(), &false.into())
    );
    assert!(peer["bytes_up"].as_u64() >= Some(3_000_000), "{peer}");
    assert!(peer["up"].as_f64() > Some(0.0) && peer["seconds"].as_f64() > Some(0.0));
    assert_eq!(peer["in_flight"], 0);

    let (cores, peers) = status(&bench, "s2");
    assert!(
        cores.iter().all(|core| core["writable"] == false),
        "{cores:?}"
    );
    let peer = &peers[0];
    assert_eq!(
        (&peer["address"], &peer["initiator"]),
        (&address.into(), &true.into())
    );
    assert!(peer["bytes_down"].as_u64() >= Some(3_000_000), "{peer}");
    assert!(
        peer["round_trip"].as_f64() > Some(0.0),
        "it was asked: {peer}"
    );
    let of_blobs = peer["cores"].as_array().unwrap().iter();
    let mut of_blobs = of_blobs.filter(|core| core["key"] == blobs["key"]);
    let of_blobs = of_blobs.next().unwrap();
    assert_eq!(of_blobs["length"], blobs["length"]);
    assert_eq!(of_blobs["contiguous"], blobs["length"], "the peer has all");
    assert_eq!(of_blobs["blocks_down"], blobs["length"]);

    get.interrupt().expect(0);
    share.interrupt().expect(0);
    let (cores, peers) = status(&bench, "s2");
    assert_eq!((cores.len(), peers.len()), (2, 0), "nobody holds it now");
}

#[test]
fn watching_goes_on_until_it_is_interrupted() {
    let bench = Bench::new();
    bench
        .run_with("s", &["core", "create", "log"], b"")
        .expect(0);
    let mut watch = bench.start("s", &["status", "--watch"]);
    watch.wait("core");
    watch.wait("core");
    watch.interrupt().expect(0);
}
