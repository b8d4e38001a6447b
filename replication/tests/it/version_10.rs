//! Goal: what only peers of hypercore 10 say is answered as hypercore 10.38.2 answers it. Method: a scripted peer
//! that says it; each case names the function of `hypercore/lib/replicator.js` 10.38.2 that it follows.

use crate::common::script::{Script, block, reason, request, sync_of};
use crate::common::{blocks, writer_and_reader};
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_replication::messages::{Cancel, Data, Message, Range, Reason, Want};

/// A writer of 10 blocks and a peer that has introduced itself.
fn peer() -> Script {
    let (store, writer, ..) = writer_and_reader(&blocks(10));
    let mut peer = Script::open(&store, &writer);
    peer.say(&sync_of(0));
    peer.deliver().unwrap();
    peer
}

fn answer_to(peer: &mut Script, id: u64, proof: ProofRequest) -> Vec<Message> {
    peer.say(&request(id, proof));
    peer.deliver().unwrap()
}

fn only_data(heard: &[Message]) -> &Data {
    match heard {
        [Message::Data(data)] => data,
        other => panic!("one Data, not {other:?}"),
    }
}

/// `_requestManifest`: a request with no other part. `_handleRequest`: a peer of another fork, or that asks for what
/// is not here, gets the manifest all the same if it asks for it.
#[test]
fn the_manifest_is_given_alone_whatever_else_cannot_be() {
    let mut peer = peer();
    let manifest = ProofRequest {
        manifest: true,
        ..ProofRequest::default()
    };
    let (mut elsewhere, mut past_end) = (manifest.clone(), manifest.clone());
    elsewhere.fork = 7;
    past_end.block = block(10).block;
    for (id, asked) in (1..).zip([manifest, elsewhere, past_end]) {
        let heard = answer_to(&mut peer, id, asked);
        let data = only_data(&heard);
        assert_eq!(data.request, id);
        assert!(data.proof.manifest.is_some());
        assert!(data.proof.block.is_none() && data.proof.upgrade.is_none());
    }
    let mut elsewhere = block(3);
    elsewhere.fork = 7;
    let heard = answer_to(&mut peer, 9, elsewhere);
    assert_eq!(reason(&heard[0]), Some(Reason::NotAvailable));
}

/// `_checkIfConflict`: a peer that doubts us asks for all of our log under id 0, which is answered like any other.
#[test]
fn a_request_of_id_0_is_answered() {
    let mut peer = peer();
    let whole = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 10,
        }),
        ..ProofRequest::default()
    };
    let heard = answer_to(&mut peer, 0, whole);
    let data = only_data(&heard);
    assert_eq!(data.request, 0);
    assert_eq!(
        data.proof.upgrade.as_ref().map(|upgrade| upgrade.start),
        Some(0)
    );
}

/// `_onwant`, `onunwant`, `oncancel`: who has all blocks says so once for each Want, and the other two are answered by
/// nothing. Wants of version 10 carry no flags.
#[test]
fn wants_without_flags_are_answered_and_taken_back() {
    let mut peer = peer();
    let want = Want {
        start: 0,
        length: 1 << 21,
        any: false,
    };
    peer.say(&Message::Want(want));
    let all = Range {
        drop: false,
        start: 0,
        length: 10,
    };
    assert_eq!(peer.deliver().unwrap(), [Message::Range(all)]);
    peer.say(&Message::Unwant(want));
    peer.say(&Message::Cancel(Cancel { request: 77 }));
    assert_eq!(peer.deliver().unwrap(), []);
}
