//! Goal: streams give what the log has, of one history, whole and in order, and values come back
//! as they went in.
//! Method: streams against lists, over random ranges, cuts, clears and blocks that come late.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::common::ready;
use bytes::Bytes;
use ferrocore_log::codec::{Binary, TypedCore, TypedError, Utf8};
use ferrocore_log::limits::{
    BLOCK_BYTES_MAX, PREFETCH_BLOCKS_MAX, SINK_BLOCKS_MAX, SINK_BYTES_MAX,
};
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::supply::All;
use ferrocore_log::{Core, CoreError, Corestore, EncryptionKey};
use proptest::prelude::*;

fn core_of(blocks: &[Vec<u8>]) -> Core {
    let core = Corestore::memory().get_named("core").unwrap();
    let blocks = blocks.iter().cloned().map(Bytes::from);
    core.append_batch(blocks.collect()).unwrap();
    core
}

fn numbered(count: u8) -> Core {
    let blocks: Vec<_> = (0..count).map(|n| vec![n; 3]).collect();
    core_of(&blocks)
}

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn fetch(reader: &Core, source: &Core, index: Option<u64>) {
    let upgrade = UpgradeRequest {
        start: reader.length(),
        length: source.length() - reader.length(),
    };
    let block = index.map(|index| NodeRequest {
        index,
        nodes: reader.missing_nodes(2 * index).unwrap(),
    });
    let request = ProofRequest {
        block,
        upgrade: (upgrade.length > 0).then_some(upgrade),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(source.prove(&request).unwrap().unwrap())
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_give_what_the_log_has(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..30),
        (a, b) in (0u64..40, 0u64..40),
        (c, d) in (0u64..150, 0u64..150),
        is_encrypted: bool,
    ) {
        let mut core = core_of(&[]);
        if is_encrypted {
            core = core.with_encryption(&EncryptionKey::from([4; 32]));
        }
        core.append_batch(blocks.iter().cloned().map(Bytes::from).collect()).unwrap();
        let length = blocks.len() as u64;
        let (start, end) = (a.min(length), b.min(length).max(a.min(length)));
        for mut stream in [core.read_stream(a..b), core.snapshot().read_stream(a..b)] {
            for block in &blocks[start as usize..end as usize] {
                prop_assert_eq!(ready(stream.next()).unwrap().unwrap(), block.clone());
            }
            prop_assert_eq!(ready(stream.next()).unwrap(), None);
        }
        let bytes = blocks.concat();
        let (from, to) = (c.min(d), c.max(d));
        for mut stream in [core.byte_stream(from..to), core.snapshot().byte_stream(from..to)] {
            if from > bytes.len() as u64 {
                let past = ready(stream.next());
                prop_assert!(matches!(past, Err(CoreError::BytePastEnd { .. })), "{:?}", past);
                continue;
            }
            let mut found = Vec::new();
            while let Some(more) = ready(stream.next()).unwrap() {
                prop_assert!(!more.is_empty());
                found.extend_from_slice(&more);
            }
            let end = bytes.len().min(to as usize);
            prop_assert_eq!(&found, &bytes[from as usize..end]);
        }
    }
}

#[test]
fn a_stream_is_of_one_history() {
    let core = numbered(6);
    let mut stream = core.read_stream(..);
    assert_eq!(ready(stream.next()).unwrap().unwrap(), vec![0; 3]);
    core.append("later").unwrap();
    core.truncate(2, None).unwrap();
    core.append_batch(vec!["x".into(); 6]).unwrap();
    assert_eq!(ready(stream.next()).unwrap().unwrap(), vec![1; 3]);
    for _ in 0..2 {
        let gone = ready(stream.next());
        assert!(matches!(
            gone,
            Err(CoreError::SnapshotNotAvailable { index: 2, .. })
        ));
    }
}

#[test]
fn a_live_stream_waits_for_what_comes() {
    let core = numbered(2);
    let mut stream = core.live_stream(1);
    assert_eq!(ready(stream.next()).unwrap().unwrap(), vec![1; 3]);
    {
        let mut next = pin!(stream.next());
        let context = &mut Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(context).is_pending());
        core.append("new").unwrap();
        let ready = next.as_mut().poll(context);
        assert!(matches!(ready, Poll::Ready(Ok(Some(block))) if block == "new"));
    }
    // A cut of what it has not given goes unnoticed.
    core.append("never seen").unwrap();
    core.truncate(3, None).unwrap();
    assert!(
        poll(stream.next()).is_pending(),
        "and dropping it loses nothing"
    );
    core.append("seen").unwrap();
    assert_eq!(ready(stream.next()).unwrap().unwrap(), "seen");
    core.truncate(3, None).unwrap();
    core.append("another").unwrap();
    let cut = ready(stream.next());
    assert!(
        matches!(cut, Err(CoreError::HistoryChanged { .. })),
        "{cut:?}"
    );
}

/// What lies ahead is wanted before it is asked for, and no more of it than the bound says.
#[test]
fn blocks_that_are_elsewhere_are_wanted_ahead() {
    let source = numbered(200);
    let reader = Corestore::memory().get(&source.key()).unwrap();
    fetch(&reader, &source, None);
    let supply = reader.supply();
    let supplier = supply.attach(std::sync::Arc::new(|| {}));
    supply.settle(supplier, 200);
    let mut stream = reader.read_stream(..);
    let mut given = 0;
    while given < 200 {
        match poll(stream.next()) {
            Poll::Ready(block) => {
                assert_eq!(block.unwrap().unwrap(), vec![given as u8; 3]);
                given += 1;
            }
            Poll::Pending => {
                let claims = supply.claim(supplier, &All, 1_000);
                assert!(claims.len() as u64 <= PREFETCH_BLOCKS_MAX);
                assert!(claims.len() > 1 || given > 190, "{given}");
                for claim in claims {
                    fetch(&reader, &source, Some(claim.index));
                }
            }
        }
    }
    assert_eq!(ready(stream.next()).unwrap(), None);
}

#[test]
fn a_sink_appends_in_batches() {
    let core = numbered(0);
    let events = core.events();
    let mut sink = core.sink();
    for number in 0..SINK_BLOCKS_MAX + 5 {
        sink.push(vec![number as u8]).unwrap();
    }
    assert_eq!(core.length(), SINK_BLOCKS_MAX as u64);
    sink.flush().unwrap();
    sink.flush().unwrap();
    assert_eq!(core.length(), SINK_BLOCKS_MAX as u64 + 5);
    sink.push(vec![0; SINK_BYTES_MAX]).unwrap();
    assert_eq!(core.length(), SINK_BLOCKS_MAX as u64 + 6);
    drop(events);
    let length = core.length();
    sink.push("before").unwrap();
    let too_large = sink.push(vec![0; BLOCK_BYTES_MAX + 1]);
    assert!(matches!(too_large, Err(CoreError::BlockTooLarge { .. })));
    sink.flush().unwrap();
    assert_eq!(core.length(), length + 1, "what was pushed before it comes");
    let mut refused = core.read_only().sink();
    refused.push("kept").unwrap();
    assert!(matches!(refused.flush(), Err(CoreError::ReadOnly { .. })));
}

#[test]
fn values_come_back() {
    let core = numbered(0);
    let text = TypedCore::new(core.clone(), Utf8);
    text.append("Grüße").unwrap();
    text.append_batch(["", "日本"]).unwrap();
    assert_eq!(ready(text.get(2)).unwrap(), "日本");
    assert_eq!(text.get_local(0).unwrap().unwrap(), "Grüße");
    assert_eq!(text.get_local(3).unwrap(), None);
    core.append(vec![0xff]).unwrap();
    let mut values = text.read_stream(1..);
    assert_eq!(ready(values.next()).unwrap().unwrap(), "");
    assert_eq!(ready(values.next()).unwrap().unwrap(), "日本");
    let wrong = ready(values.next());
    assert!(matches!(wrong, Err(TypedError::Decode { index: 3, .. })));
    assert!(ready(values.next()).unwrap().is_none());
    let binary = TypedCore::new(core, Binary);
    binary.append(&[1, 2]).unwrap();
    assert_eq!(ready(binary.get(4)).unwrap(), vec![1, 2]);
}

/// The very bytes that JavaScript's `json` encoding writes and reads.
#[cfg(feature = "json")]
#[test]
fn json_is_that_of_javascript() {
    use ferrocore_log::codec::{Codec as _, Json};
    use serde_json::{Value, json};

    let core = numbered(0);
    let typed = TypedCore::new(core.clone(), Json::<Value>::new());
    typed.append(&json!({ "a": [1, null, "ü"] })).unwrap();
    let stored = core.get_local(0).unwrap().unwrap();
    assert_eq!(stored, "{\"a\":[1,null,\"ü\"]}");
    assert_eq!(ready(typed.get(0)).unwrap()["a"][2], "ü");
    core.append("{").unwrap();
    let wrong = ready(typed.get(1));
    assert!(matches!(wrong, Err(TypedError::Decode { index: 1, .. })));
    let not_a_number = Json::<u8>::new().decode("true".into());
    assert!(not_a_number.is_err());
}
