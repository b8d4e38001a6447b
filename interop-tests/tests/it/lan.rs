//! Goal: on a network without a way out, drives are found by key alone, by `fcore` and by Node peers with the shim of
//! `peers/lan.mjs`. Method: hosts in network namespaces, on one switch; where those are not permitted, the tests say so and pass.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::{Duration, Instant};

use ferrocore_interop_tests::fcore::{Fcore, Run};
use ferrocore_interop_tests::network::Network;
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::{self, Peer};
use serde_json::json;

/// What the search may take, with all of a small transfer.
const SOON: Duration = Duration::from_secs(8);

/// It may take longer while the machine does something else, but not so often.
const ATTEMPTS: usize = 3;

fn node_on(network: &Network, host: u8, storage: &Path) -> Peer {
    let mut command = peer::script("lan.mjs", Tree::Current, storage);
    command.arg(node::ensure(Tree::Multicast));
    command.arg(network.address(host).to_string());
    Peer::run("lan.mjs", &mut network.host(host).enter(&command))
}

/// What is done there takes no longer than [`SOON`] at one of the attempts.
#[track_caller]
fn is_soon(mut what: impl FnMut(usize) -> Duration) {
    let mut all = Vec::new();
    for attempt in 0..ATTEMPTS {
        let took = what(attempt);
        if took < SOON {
            return;
        }
        all.push(took);
    }
    panic!("it took {all:?}");
}

#[test]
fn a_folder_is_fetched_by_key_alone() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("shared")).unwrap();
    std::fs::write(at("shared/a.txt"), "hello").unwrap();
    std::fs::write(at("shared/b.bin"), vec![7; 3_000_000]).unwrap();
    let sharing = Fcore::new(at("s1")).lan_only(&network, 0);
    let mut sharing = sharing.start(["share".as_ref(), at("shared").as_os_str()]);
    let link = sharing.wait_event("ready")["link"]
        .as_str()
        .unwrap()
        .to_owned();

    // Another host, and another store of the same.
    for reader in [1, 0] {
        is_soon(|attempt| {
            let store = format!("store{reader}.{attempt}");
            let fetched = format!("fetched{reader}.{attempt}");
            let getting = Fcore::new(at(&store)).lan_only(&network, reader);
            let started = Instant::now();
            let got = getting.run(["get".as_ref(), link.as_ref(), at(&fetched).as_os_str()]);
            let took = started.elapsed();
            let got = got.expect_code(0);
            assert_eq!(got.event("peer")["via"], "lan");
            for file in ["a.txt", "b.bin"] {
                let read = |folder: &str| std::fs::read(at(folder).join(file)).unwrap();
                assert!(read("shared") == read(&fetched), "{file} differs");
            }
            took
        });
    }
    sharing.interrupt().expect_code(0);
}

/// Goal: a network without a way out needs no option: who shares is found as soon as the local network knows, however long the
/// DHT is waited for in vain.
#[test]
fn a_search_that_leads_nowhere_holds_up_no_other() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("shared")).unwrap();
    std::fs::write(at("shared/a.txt"), "hello").unwrap();
    let mut shared = None;
    is_soon(|_| {
        if let Some((sharing, _)) = shared.take() {
            let sharing: Run = sharing;
            sharing.interrupt().expect_code(0);
        }
        let sharing = Fcore::new(at("s1")).in_dht_on(&network, 0);
        let mut sharing = sharing.start(["share".as_ref(), at("shared").as_os_str()]);
        let ready = sharing.wait_event("ready");
        let started = Instant::now();
        assert_eq!(sharing.wait_event("announced")["by"], json!(["lan"]));
        let took = started.elapsed();
        shared = Some((sharing, ready));
        took
    });
    let (sharing, ready) = shared.unwrap();

    let link = ready["link"].as_str().unwrap().as_ref();
    is_soon(|attempt| {
        let getting = Fcore::new(at(&format!("store.{attempt}"))).in_dht_on(&network, 1);
        let fetched = at(&format!("fetched.{attempt}"));
        let started = Instant::now();
        let got = getting.run(["get".as_ref(), link, fetched.as_os_str()]);
        let took = started.elapsed();
        assert_eq!(got.expect_code(0).event("peer")["via"], "lan");
        took
    });
    sharing.interrupt().expect_code(0);
}

/// Goal: a doctor says whether peers can meet on the local network. Method: three hosts on one without a way out: as it should be,
/// behind a firewall that drops multicast, and without an address.
#[test]
fn a_doctor_says_whether_the_local_network_works() {
    let Some(network) = Network::if_permitted(3) else {
        return;
    };
    if let Err(reason) = network.host(1).refuse_multicast() {
        return eprintln!("skipped: there is no firewall here: {reason}");
    }
    network.take_addresses(2);
    let scratch = tempfile::tempdir().unwrap();
    let checks = |host: u8, code: i32| {
        let fcore = Fcore::new(scratch.path().join("store")).lan_only(&network, host);
        let said = fcore.run(["doctor"]).expect_code(code);
        let checks = said.events.iter().filter(|event| event["event"] == "check");
        let of_lan = checks.filter(|check| check["name"] == "lan" || check["name"] == "mdns");
        let verdicts = of_lan.map(|check| {
            let is_good = check["ok"].as_bool().unwrap();
            assert_eq!(is_good, check["hint"].is_null(), "{check}");
            (check["name"].as_str().unwrap().to_owned(), is_good)
        });
        verdicts.collect::<Vec<_>>()
    };
    let verdict = |name: &str, is_good: bool| (name.to_owned(), is_good);
    assert_eq!(checks(0, 0), [verdict("lan", true), verdict("mdns", true)]);
    assert_eq!(checks(1, 1), [verdict("lan", true), verdict("mdns", false)]);
    assert_eq!(checks(2, 1), [verdict("lan", false)]);
}

#[test]
fn node_fetches_from_fcore() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("shared")).unwrap();
    std::fs::write(at("shared/a.txt"), "hello").unwrap();
    let sharing = Fcore::new(at("s1")).lan_only(&network, 0);
    let mut sharing = sharing.start(["share".as_ref(), at("shared").as_os_str()]);
    let ready = sharing.wait_event("ready");

    let mut node = node_on(&network, 1, &at("s2"));
    node.call("open", json!({ "key": ready["key"] }));
    node.call("lookup", json!({}));
    let read = node.call(
        "get",
        json!({ "path": "/a.txt", "version": ready["version"] }),
    );
    assert_eq!(read, "hello");
}

/// Goal: who serves many topics, which it shows in a filter, is found by Node, too, and by its own kind.
#[test]
fn one_of_many_topics_is_found() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("shared")).unwrap();
    std::fs::write(at("shared/a.txt"), "hello").unwrap();
    let serving = Fcore::new(at("s1")).lan_only(&network, 0);
    let mut sharing = serving.start(["share".as_ref(), at("shared").as_os_str()]);
    let ready = sharing.wait_event("ready");
    sharing.interrupt().expect_code(0);
    let key = ready["key"].as_str().unwrap();
    let others: Vec<_> = (0..9).map(|i| format!("log{i}")).collect();
    for other in &others {
        serving.run(["core", "create", other]).expect_code(0);
    }
    let all = ["seed", key].into_iter();
    let mut seeding = serving.start(all.chain(others.iter().map(String::as_str)));
    seeding.wait_event("ready");

    let mut node = node_on(&network, 1, &at("s2"));
    node.call("open", json!({ "key": key }));
    node.call("lookup", json!({}));
    let file = json!({ "path": "/a.txt", "version": ready["version"] });
    assert_eq!(node.call("get", file), "hello");
    let getting = Fcore::new(at("s3")).lan_only(&network, 1);
    let got = getting.run(["get".as_ref(), key.as_ref(), at("fetched").as_os_str()]);
    got.expect_code(0);
    seeding.interrupt().expect_code(0);
}

#[test]
fn fcore_fetches_from_node() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let mut node = node_on(&network, 0, &at("s1"));
    let drive = node.call("open", json!({}));
    node.call("put", json!({ "path": "/a.txt", "text": "hello" }));
    node.call("announce", json!({}));

    let getting = Fcore::new(at("s2")).lan_only(&network, 1);
    let key = drive["key"].as_str().unwrap();
    let got = getting.run(["get".as_ref(), key.as_ref(), at("fetched").as_os_str()]);
    assert_eq!(got.expect_code(0).event("peer")["via"], "lan");
    assert_eq!(
        std::fs::read_to_string(at("fetched/a.txt")).unwrap(),
        "hello"
    );
}

/// Goal: `--lan-only` sends nothing but multicast DNS and what neighbours are told over TCP. Method: the hosts have a way out, and
/// the kernel counts what takes it; without the option the same count is not nothing.
#[test]
fn lan_only_keeps_to_the_local_network() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    for host in [0, 1] {
        if let Err(reason) = network.host(host).watch_strays() {
            return eprintln!("skipped: packets cannot be counted here: {reason}");
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("shared")).unwrap();
    std::fs::write(at("shared/a.txt"), "hello").unwrap();
    let sharing = Fcore::new(at("s1")).lan_only(&network, 0);
    let mut sharing = sharing.start(["share".as_ref(), at("shared").as_os_str()]);
    let ready = sharing.wait_event("ready");
    let link = ready["link"].as_str().unwrap();
    let getting = Fcore::new(at("s2")).lan_only(&network, 1);
    let got = getting.run(["get".as_ref(), link.as_ref(), at("fetched").as_os_str()]);
    got.expect_code(0);
    sharing.interrupt().expect_code(0);
    assert_eq!([0, 1].map(|host| network.host(host).strays()), [0, 0]);

    let getting = Fcore::new(at("s3")).in_dht_on(&network, 1);
    let elsewhere = at("elsewhere");
    let get = ["get", link, elsewhere.to_str().unwrap(), "--timeout", "3s"];
    getting.run(get).expect_code(4);
    assert!(
        network.host(1).strays() > 0,
        "the count sees what the DHT sends"
    );
}
