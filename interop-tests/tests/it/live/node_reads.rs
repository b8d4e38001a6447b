//! Node reads what `fcore` serves.

use std::fs;

use ferrocore_interop_tests::folder::{self, Snapshot};
use ferrocore_interop_tests::node::Tree;
use serde_json::json;

use crate::live::{Shared, Stage};

#[test]
fn node_mirrors_thousands_of_shared_files() {
    let stage = Stage::new();
    let source = stage.real_files("source");
    let expected = Snapshot::of(&source);
    assert!(
        expected.entries().len() > 2500,
        "only {} files to test with",
        expected.entries().len()
    );
    let shared = Shared::start(&stage.fcore("store"), &source);
    for tree in Tree::ALL {
        let (mut node, _) = stage.node_drive(tree, &format!("{tree:?}-store"), Some(&shared.key));
        node.connect(shared.port);
        let reached = node.call("reach", json!({ "version": shared.version }));
        assert_eq!(reached["compat"], false, "new drives have manifests");
        let target = stage.path(&format!("{tree:?}"));
        node.call("export", json!({ "dir": target }));
        expected.assert_same(&Snapshot::of(&target));
    }
}

#[test]
fn node_reads_single_files_and_ranges_without_the_rest() {
    // Goal: sparse reading from our side as a server. Method: one file and one range of a large
    // drive, and few blocks stored at the reader.
    let stage = Stage::new();
    let source = stage.path("source");
    folder::write(&source, "small", b"just this");
    folder::write_random(&source.join("large"), 20_000_000, 3);
    let shared = Shared::start(&stage.fcore("store"), &source);
    let (mut node, _) = stage.node_drive(Tree::Current, "node", Some(&shared.key));
    node.connect(shared.port);
    node.call("reach", json!({ "version": shared.version }));

    assert_eq!(
        node.call("get", json!({ "path": "/small" }))["base64"],
        "anVzdCB0aGlz"
    );
    let range = node.call(
        "get",
        json!({ "path": "/large", "start": 9_999_999, "end": 10_000_008 }),
    );
    let bytes = fs::read(source.join("large")).unwrap();
    assert_eq!(range["base64"], base64(&bytes[9_999_999..10_000_009]));
    assert_eq!(node.call("get", json!({ "path": "/absent" })), json!(null));
}

#[test]
fn one_share_serves_several_readers_at_once() {
    let stage = Stage::new();
    let source = stage.few_files("source");
    let shared = Shared::start(&stage.fcore("store"), &source);
    let names = ["a", "b", "c"];
    let mut readers = names.map(|name| {
        stage
            .node_drive(Tree::Current, &format!("{name}-store"), Some(&shared.key))
            .0
    });
    let calls: Vec<_> = readers
        .iter_mut()
        .zip(names)
        .map(|(node, name)| {
            node.connect(shared.port);
            node.call("reach", json!({ "version": shared.version }));
            node.begin("export", json!({ "dir": stage.path(name) }))
        })
        .collect();
    for ((mut node, call), name) in readers.into_iter().zip(calls).zip(names) {
        node.finish(call);
        Snapshot::of(&source).assert_same(&Snapshot::of(&stage.path(name)));
    }
}

/// Standard base64 of ten bytes at most: enough for a look at a range.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, i| {
            bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0))
        });
        let letters = (0..4).map(move |i| ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] as char);
        let padding = 3 - chunk.len();
        letters
            .take(4 - padding)
            .chain("==".chars().take(padding))
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
