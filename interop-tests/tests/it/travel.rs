//! Goal: a transfer survives that one of its machines moves to another address in the middle of it. Method: hosts in network
//! namespaces, on one switch; a limited rate makes the transfer last. Where namespaces are not permitted, the tests say so and
//! pass.
#![cfg(target_os = "linux")]

use std::path::Path;

use ferrocore_interop_tests::fcore::{Fcore, Run};
use ferrocore_interop_tests::network::Network;

use crate::own_dht::OwnDht;

/// At the rate below this takes six seconds.
const SIZE: usize = 6_000_000;

const RATE: &str = "1M";

fn sample(folder: &Path) -> Vec<u8> {
    // No two blocks are equal.
    let bytes =
        (0..SIZE as u32 / 4).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
    let bytes: Vec<u8> = bytes.collect();
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("data.bin"), &bytes).unwrap();
    bytes
}

/// Waits until bytes have come, and not all of them.
fn is_under_way(getting: &mut Run) {
    getting.wait_for("progress", |event| {
        let bytes = event["bytes"].as_u64().unwrap_or_default();
        event["event"] == "progress" && bytes > 0 && bytes < SIZE as u64 / 2
    });
}

/// How often a peer was connected.
fn connections(events: &[serde_json::Value]) -> usize {
    let connected =
        |event: &&serde_json::Value| event["event"] == "peer" && event["state"] == "connected";
    events.iter().filter(connected).count()
}

/// Over UDP the one connection goes on, whichever end moves.
#[test]
fn a_stream_goes_on_at_another_address() {
    let Some(network) = Network::if_permitted(3) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let data = sample(&at("shared"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let dht = OwnDht::start(&network, &at("s0"));

    let sharing = ["share", &text(&at("shared")), "--up", RATE];
    let mut sharing = dht.run(&network, 1, &at("s1"), &sharing);
    let link = sharing.wait_event("ready")["link"].clone();
    sharing.wait_event("announced");
    for (mover, address) in [(2, 12), (1, 11)] {
        let (store, fetched) = (at(&format!("store{mover}")), at(&format!("fetched{mover}")));
        let get = ["get", link.as_str().unwrap(), &text(&fetched)];
        let mut getting = dht.run(&network, 2, &store, &get);
        is_under_way(&mut getting);
        network.move_host(mover, address);
        let got = getting.finish().expect_code(0);
        assert!(std::fs::read(fetched.join("data.bin")).unwrap() == data);
        assert_eq!(connections(&got.events), 1, "{:#?}", got.events);
    }
    sharing.interrupt().expect_code(0);
}

/// Over TCP, on the local network, another connection takes its place.
#[test]
fn who_moves_on_the_local_network_is_met_again() {
    let Some(network) = Network::if_permitted(2) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let data = sample(&at("shared"));
    let sharing = Fcore::new(at("s1")).lan_only(&network, 0);
    let folder = at("shared");
    let share = [
        "share".as_ref(),
        folder.as_os_str(),
        "--up".as_ref(),
        RATE.as_ref(),
    ];
    let mut sharing = sharing.start(share);
    let link = sharing.wait_event("ready")["link"].clone();
    let getting = Fcore::new(at("s2")).lan_only(&network, 1);
    let link = link.as_str().unwrap().as_ref();
    let mut getting = getting.start(["get".as_ref(), link, at("fetched").as_os_str()]);
    is_under_way(&mut getting);
    network.move_host(1, 12);
    let got = getting.finish().expect_code(0);
    assert!(std::fs::read(at("fetched/data.bin")).unwrap() == data);
    assert!(connections(&got.events) > 1, "{:#?}", got.events);
    sharing.interrupt().expect_code(0);
}
