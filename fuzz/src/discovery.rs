//! Finding peers: what strangers on the local network say of themselves, and the nodes that a store remembers.
//!
//! Holds: what was read is written so that it reads the same; an announcement is at most half full; no more nodes than fit are
//! remembered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore::fuzzing;
use ferrocore_swarm::Topic;
use ferrocore_swarm::lan::announcement::Shown;
use ferrocore_swarm::limits::{LAN_TAGS_MAX, LAN_TOPICS_MAX};

const DAY: u64 = 20_000;
const INSTANCE: &str = "00112233445566778899aabbccddeeff";

/// The keys of a TXT record that mean something, and one that does not.
const KEYS: [&str; 14] = [
    "v", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "f0", "f1", "f2", "f3", "x",
];

/// Nodes that a file names at most.
const NODES_MAX: usize = 100;

/// A TXT record: for each property the number of its key in a fixed list, its length, and its value.
pub fn announcements(data: &[u8]) {
    let mut txt = BTreeMap::new();
    let mut rest = data;
    while let [key, len, behind @ ..] = rest {
        let (value, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        txt.insert(KEYS[usize::from(*key) % KEYS.len()], value);
        rest = behind;
    }
    let Some(shown) = Shown::from_txt(|key| txt.get(key).copied()) else {
        return;
    };
    let written = shown.to_txt();
    for (key, value) in &written {
        assert!(key.len() + 1 + value.len() <= 255, "{key} fits a string");
    }
    let value = |key: &str| {
        let mut found = written.iter().filter(|(name, _)| name == key);
        found.next().map(|(_, value)| value.as_slice())
    };
    assert_eq!(Shown::from_txt(value).as_ref(), Some(&shown));
    match &shown {
        Shown::Tags(tags) => assert!(tags.len() <= LAN_TAGS_MAX),
        Shown::Filter(filter) => {
            let bits: u32 = filter.iter().map(|byte| byte.count_ones()).sum();
            assert!(
                bits as usize <= filter.len() * 4,
                "it would attract anybody"
            );
        }
    }
    for day in [0, DAY, u64::MAX] {
        let _ = shown.has(&Topic::from_name("0"), day, INSTANCE);
    }
}

/// The file: a byte that says of which network the reader is, then the text.
pub fn known_nodes(data: &[u8]) {
    let Some((network, text)) = data.split_first() else {
        return;
    };
    let network = ["public", "127.0.0.1:1", ""][usize::from(*network) % 3];
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let nodes = fuzzing::known_nodes(network, text);
    assert!(nodes.len() <= NODES_MAX);
    let written = fuzzing::known_nodes_text(network, &nodes);
    assert_eq!(fuzzing::known_nodes(network, &written), nodes);
}

fn topics(count: usize) -> Vec<Topic> {
    let names = (0..count).map(|number| number.to_string());
    names.map(|name| Topic::from_name(&name)).collect()
}

/// Target and input.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let counts = [0, 1, LAN_TAGS_MAX, LAN_TAGS_MAX + 1, 200, LAN_TOPICS_MAX];
    let shown = counts.map(|count| Shown::new(topics(count).iter(), DAY, INSTANCE));
    let announcements = shown
        .iter()
        .map(|shown| ("lan_announcements", script(shown)));
    let nodes: Vec<_> = (0..=NODES_MAX)
        .map(|number| SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, number as u8), 49737))
        .collect();
    let files = [(0, "public", &nodes[..]), (1, "127.0.0.1:1", &nodes[..2])];
    let files = files.map(|(number, network, nodes)| {
        let text = fuzzing::known_nodes_text(network, nodes);
        ("known_nodes", [&[number], text.as_bytes()].concat())
    });
    announcements.chain(files).collect()
}

fn script(shown: &Shown) -> Vec<u8> {
    let mut script = Vec::new();
    for (key, value) in shown.to_txt() {
        let number = KEYS.iter().position(|known| **known == key);
        script.push(number.expect("one that is written") as u8);
        script.push(value.len() as u8);
        script.extend(value);
    }
    script
}
