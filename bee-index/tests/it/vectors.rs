//! Every case of the golden vectors, which hyperbee 2.27 wrote: the same operations in the same
//! batches must give the same blocks, and the same queries the same answers.

use bytes::Bytes;
use ferrocore_bee::{
    Batch, Bee, Change, Header, HistoryOptions, Metadata, Options, Range, RangeOptions,
};
use ferrocore_log::Corestore;
use pollster::block_on;
use serde_json::Value;

#[test]
fn blocks_are_equal() {
    for case in cases() {
        check_blocks(&case, replay(&case));
    }
}

/// The same with each batch starting from what is on the core, not from what the last one knew.
#[test]
fn blocks_are_equal_when_reopened_in_between() {
    for case in cases() {
        let reopen = |bee: Bee| Bee::new(bee.core().clone(), options(&case));
        check_blocks(&case, replay_with(&case, reopen));
    }
}

fn check_blocks(case: &Value, bee: Bee) {
    let name = case["name"].as_str().unwrap();
    let core = bee.core();
    assert_eq!(core.length(), case["length"], "{name}");
    for (index, expected) in case["blocks"].as_array().into_iter().flatten().enumerate() {
        let block = core.get_local(index as u64).unwrap().unwrap();
        assert_eq!(hex::encode(&block), *expected, "{name}, block {index}");
    }
    // The large case lists no blocks; the tree hash stands for all of them.
    assert_eq!(core.byte_length(), case["byteLength"], "{name}");
    assert_eq!(core.tree_hash().to_hex(), case["treeHash"], "{name}");
}

#[test]
fn headers_are_read() {
    for case in cases() {
        let bee = replay(&case);
        let expected = Header {
            metadata: options(&case).metadata,
        };
        assert_eq!(
            block_on(bee.header()).unwrap(),
            Some(expected),
            "{}",
            case["name"]
        );
        assert!(block_on(Bee::is_bee(bee.core())).unwrap());
    }
}

#[test]
fn ranges_are_equal() {
    let case = case("ten-sequential");
    let bee = replay(&case);
    for query in case["rangeQueries"].as_array().unwrap() {
        let range = &query["range"];
        let bound = |name| range.get(name).map(bytes);
        let options = RangeOptions {
            gt: bound("gt"),
            gte: bound("gte"),
            lt: bound("lt"),
            lte: bound("lte"),
            reverse: range["reverse"].as_bool().unwrap_or(false),
            limit: range["limit"].as_u64().map(|limit| limit as usize),
        };
        let keys: Vec<_> = block_on(keys(bee.range(options)));
        let expected: Vec<_> = query["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(bytes)
            .collect();
        assert_eq!(keys, expected, "{range}");
    }
}

#[test]
fn histories_are_equal() {
    let case = case("ten-sequential");
    let bee = replay(&case);
    for query in case["historyQueries"].as_array().unwrap() {
        let expected = query["entries"].as_array().unwrap();
        let mut history = bee.history(history_options(&query["opts"], bee.version()));
        for entry in expected {
            let Some(Change::Put(put)) = block_on(history.next()).unwrap() else {
                panic!("{query}: no put where {entry} should be");
            };
            assert_eq!(
                (put.seq, put.key),
                (entry["seq"].as_u64().unwrap(), bytes(&entry["key"]))
            );
        }
        assert_eq!(block_on(history.next()).unwrap(), None, "{query}");
    }
}

#[test]
fn history_tells_puts_of_null_from_deletions() {
    let bee = replay(&case("delete-to-empty-and-reinsert"));
    block_on(bee.put_null("c")).unwrap();
    let mut history = bee.history(HistoryOptions::default());
    let mut seen = Vec::new();
    while let Some(change) = block_on(history.next()).unwrap() {
        seen.push(match change {
            Change::Put(entry) => ("put", entry.key),
            Change::Del { key, .. } => ("del", key),
        });
    }
    let expected = [("put", "a"), ("del", "a"), ("put", "b"), ("put", "c")];
    assert_eq!(seen, expected.map(|(kind, key)| (kind, Bytes::from(key))));
}

#[test]
fn the_large_tree_has_all_live_entries() {
    let case = case("large-300");
    let bee = replay(&case);
    let keys = block_on(keys(bee.range(RangeOptions::default())));
    assert_eq!(keys.len() as u64, case["liveCount"].as_u64().unwrap());
}

/// A bee with all operations of `case` made.
fn replay(case: &Value) -> Bee {
    replay_with(case, |bee| bee)
}

fn replay_with(case: &Value, between: impl Fn(Bee) -> Bee) -> Bee {
    let core = Corestore::memory().get_named("bee").unwrap();
    let mut bee = Bee::new(core, options(case));
    for op in operations(case) {
        let mut batch = bee.batch();
        match op["ops"].as_array() {
            Some(ops) => ops.iter().for_each(|op| apply(&mut batch, op)),
            None => apply(&mut batch, &op),
        }
        block_on(batch.flush()).unwrap();
        bee = between(bee);
    }
    bee
}

fn apply(batch: &mut Batch, op: &Value) {
    let key = encoded_key(op);
    let done = match (op["op"].as_str().unwrap(), op["value"].as_str()) {
        ("del", _) => block_on(batch.del(key)),
        (_, None) => block_on(batch.put_null(key)),
        (_, Some(value)) if op["cas"] == "reject" => block_on(batch.put_if(key, value, |_| false)),
        (_, Some(value)) => block_on(batch.put(key, value)),
    };
    done.unwrap();
}

/// The key with the prefixes of the sub-bees it is put in: each name, then a zero byte.
fn encoded_key(op: &Value) -> String {
    let subs = op["sub"].as_array().into_iter().flatten();
    let prefix: String = subs
        .map(|sub| format!("{}\0", sub.as_str().unwrap()))
        .collect();
    prefix + op["key"].as_str().unwrap()
}

fn operations(case: &Value) -> Vec<Value> {
    if case["name"] == "utf8-json" {
        let json = r#"{"a":1,"b":[true,null,1.5,"é"],"c":{}}"#;
        return vec![
            serde_json::json!({ "op": "put", "key": "ключ", "value": json }),
            serde_json::json!({ "op": "put", "key": "nul", "value": null }),
        ];
    }
    case["ops"].as_array().unwrap().clone()
}

fn options(case: &Value) -> Options {
    let metadata = match case["name"].as_str().unwrap() {
        "header-null-metadata-object" => Some(Metadata::default()),
        "header-content-feed" => Some(Metadata {
            content_feed: Some(Bytes::from_static(&[0x11; 32])),
            user_data: Some(Bytes::from_static(b"ud")),
        }),
        _ => None,
    };
    Options {
        metadata,
        always_duplicate: case["name"] != "always-duplicate-false-skips",
    }
}

/// JavaScript's bounds: `gt` besides `gte`, and negative numbers counted from the version.
fn history_options(options: &Value, version: u64) -> HistoryOptions {
    let number = |name: &str| {
        let number = options.get(name)?.as_i64()?;
        Some(if number < 0 {
            version - number.unsigned_abs()
        } else {
            number as u64
        })
    };
    HistoryOptions {
        gte: number("gt").map(|gt| gt + 1).or(number("gte")).unwrap_or(0),
        lt: number("lt"),
        reverse: options["reverse"].as_bool().unwrap_or(false),
        limit: number("limit").map(|limit| limit as usize),
    }
}

async fn keys(mut range: Range) -> Vec<Bytes> {
    let mut keys = Vec::new();
    while let Some(entry) = range.next().await.unwrap() {
        keys.push(entry.key);
    }
    keys
}

fn bytes(text: &Value) -> Bytes {
    Bytes::from(text.as_str().unwrap().to_owned())
}

fn case(name: &str) -> Value {
    cases()
        .into_iter()
        .find(|case| case["name"] == name)
        .unwrap()
}

fn cases() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../interop-tests/vectors/bee.json"
    );
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    vectors["cases"].as_array().unwrap().clone()
}
