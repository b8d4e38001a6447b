//! Conversations with live JavaScript cores (hypercore 11.37.1), replayed: we say what they said.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::common::{End, blocks};
use bytes::Bytes;
use ferrocore_log::{Core, CoreOptions, Corestore};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;
use serde_json::Value;

/// One line of a transcript.
struct Line {
    is_from_script: bool,
    note: String,
    frame: Vec<u8>,
}

fn transcript(section: &str, id: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop-tests/vectors/core.json");
    let text = std::fs::read_to_string(path).expect("the vectors are part of the repository");
    let file: Value = serde_json::from_str(&text).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let vector = vectors
        .iter()
        .find(|v| v["section"] == section && v["id"] == id)
        .unwrap();
    let lines = vector["output"]["frames"].as_array().unwrap();
    let lines = lines
        .iter()
        .filter(|line| line["frame"].is_string())
        .map(|line| Line {
            is_from_script: line["dir"].as_str().unwrap().starts_with("script"),
            note: line["note"].as_str().unwrap_or_default().to_owned(),
            frame: hex::decode(line["frame"].as_str().unwrap()).unwrap(),
        });
    lines.collect()
}

/// The core of the transcripts: ten blocks, signed by the pair of seed 01...01.
fn writer() -> (Corestore, Core) {
    let store = Corestore::memory();
    let key_pair = Some(KeyPair::from_seed(&[1; 32]));
    let core = store
        .get_with(CoreOptions {
            key_pair,
            ..CoreOptions::default()
        })
        .unwrap();
    core.append_batch(blocks(10)).unwrap();
    (store, core)
}

/// Everything the end sends until it has nothing left to do.
fn sent(end: &mut End) -> Vec<String> {
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.extend(end.step(Time::ZERO).unwrap().into_iter().map(hex::encode));
    }
    frames
}

#[test]
fn an_uploader_says_what_a_javascript_one_said() {
    let (store, core) = writer();
    let mut end = End::new(false, &store);
    end.connection.attach(&core);
    let mut lines = transcript("proof", "transcript").into_iter().peekable();
    let mut note = "first".to_owned();
    while lines.peek().is_some() {
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.is_from_script) {
            expected.push(hex::encode(line.frame));
        }
        assert_eq!(sent(&mut end), expected, "after {note}");
        if let Some(line) = lines.next() {
            note = line.note;
            end.arriving.push_back(line.frame.into());
        }
    }
    assert_eq!(sent(&mut end), Vec::<String>::new(), "after {note}");
}

#[test]
fn a_reader_asks_what_a_javascript_one_asked() {
    // Goal: the same questions, but for two things that are ours to choose. JavaScript puts its first Sync
    // into a batch of one, and tells its state twice where once will do; and it uses a request's id again.
    let (_, writer) = writer();
    let store = Corestore::memory();
    let reader = store.get(&writer.key()).unwrap();
    let mut end = End::new(false, &store);
    let lines = transcript("end-to-end", "reader-transcript");
    let script: Vec<&Line> = lines.iter().filter(|line| line.is_from_script).collect();
    let [open, sync, upgrade, ack, range, block_4, block_5] = script.as_slice() else {
        panic!("seven lines")
    };

    end.connection.attach(&reader);
    assert_eq!(sent(&mut end), [hex::encode(&lines[0].frame)]);
    assert_eq!(hear(&mut end, &open.frame), ["010007000000"]);
    assert_eq!(hear(&mut end, &sync.frame), ["0101180100000a"]);
    assert_eq!(hear(&mut end, &upgrade.frame), ["01000e000a0a"]);
    assert_eq!(reader.tree_hash(), writer.tree_hash());
    assert!(hear(&mut end, &ack.frame).is_empty());
    assert!(hear(&mut end, &range.frame).is_empty());

    let waker = &mut Context::from_waker(Waker::noop());
    let mut get_4 = pin!(reader.get(4));
    assert!(get_4.as_mut().poll(waker).is_pending());
    assert_eq!(
        sent(&mut end),
        ["0101210200040301"],
        "block 4, three nodes, urgent"
    );
    hear(&mut end, &with_id(&block_4.frame, 2));
    assert_ready(get_4.as_mut().poll(waker), b"block-4");

    let mut get_5 = pin!(reader.get(5));
    assert!(get_5.as_mut().poll(waker).is_pending());
    assert_eq!(
        sent(&mut end),
        ["0101210300050001"],
        "block 5, whose leaf came with block 4"
    );
    hear(&mut end, &with_id(&block_5.frame, 3));
    assert_ready(get_5.as_mut().poll(waker), b"block-5");
}

fn hear(end: &mut End, frame: &[u8]) -> Vec<String> {
    end.arriving.push_back(Bytes::copy_from_slice(frame));
    sent(end)
}

/// The same Data frame (channel, kind, flags, id, ...) as an answer to request `id`.
fn with_id(frame: &[u8], id: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[3] = id;
    frame
}

fn assert_ready<E: std::fmt::Debug>(poll: Poll<Result<Bytes, E>>, expected: &[u8]) {
    match poll {
        Poll::Ready(block) => assert_eq!(block.unwrap(), expected),
        Poll::Pending => panic!("the block is here"),
    }
}
