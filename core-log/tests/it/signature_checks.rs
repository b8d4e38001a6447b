//! Goal: of what peers send, each longer log costs one check of a signature, and blocks cost none.
//! Method: counts the checks of the thread that verifies. Every proof is made while the log is as long as it says, for a
//! longer one has another signature.

use std::iter;

use bytes::Bytes;
use ferrocore_log::fuzzing::signatures_checked;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, Corestore, flat_tree};

fn writer_and_reader() -> (Core, Core) {
    let writer = Corestore::memory().get_named("log").unwrap();
    let reader = Corestore::memory().get(&writer.key()).unwrap();
    (writer, reader)
}

fn append(writer: &Core, count: u64) {
    let block = |index: u64| Bytes::from(format!("block {index}"));
    writer
        .append_batch((0..count).map(block).collect())
        .unwrap();
}

/// Block `index` for somebody who knows the roots of a log of `length` blocks, and nothing below them.
fn block(index: u64, length: u64) -> ProofRequest {
    let nodes = u64::from(flat_tree::root_of(index, length).trailing_ones());
    ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    }
}

/// A longer log for somebody who has `from` blocks of it.
fn upgrade(from: u64, to: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: from,
            length: to - from,
        }),
        manifest: from == 0,
        ..ProofRequest::default()
    }
}

fn prove(writer: &Core, request: &ProofRequest) -> Proof {
    writer.prove(request).unwrap().expect("it is whole")
}

/// Verifies all in one pass, and tells how many signatures were checked for that and for the commit.
fn checks(reader: &Core, proofs: Vec<Proof>) -> u64 {
    let before = signatures_checked();
    let mut changeset = reader.changeset();
    let verified = reader.verify_into(&mut changeset, proofs);
    assert!(verified.iter().all(Result::is_ok), "{verified:?}");
    reader.commit(changeset).unwrap();
    signatures_checked() - before
}

#[test]
fn an_upgrade_costs_one_check_however_many_blocks_come_with_it() {
    let (writer, reader) = writer_and_reader();
    for lengths in [&[1][..], &[40], &[41, 60, 61]] {
        let mut proofs = Vec::new();
        for &to in lengths {
            let from = writer.length();
            append(&writer, to - from);
            let first = ProofRequest {
                block: block(from, to).block,
                ..upgrade(from, to)
            };
            let others = (from + 1..to).map(|index| block(index, to));
            let asked = iter::once(first).chain(others);
            proofs.extend(asked.map(|ask| prove(&writer, &ask)));
        }
        assert_eq!(checks(&reader, proofs), lengths.len() as u64);
        assert_eq!(reader.count(0..61), writer.length());
    }
}

#[test]
fn blocks_of_a_known_log_cost_no_check() {
    let (writer, reader) = writer_and_reader();
    append(&writer, 61);
    assert_eq!(checks(&reader, vec![prove(&writer, &upgrade(0, 61))]), 1);
    let proof = |index| prove(&writer, &block(index, 61));
    assert_eq!(checks(&reader, (0..50).map(proof).collect()), 0);
    for index in 50..61 {
        assert_eq!(checks(&reader, vec![proof(index)]), 0);
    }
    assert_eq!(reader.count(0..61), 61);
    let before = signatures_checked();
    let mut forged = proof(60);
    forged.block.as_mut().unwrap().value = Bytes::from_static(b"forged");
    reader.accept(forged).unwrap_err();
    assert_eq!(signatures_checked(), before, "nor does one that is none");
}
