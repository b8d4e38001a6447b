//! Goal: what a hostile peer asks or answers costs it the request, and changes nothing for those
//! who come after.
//! Method: requests and proofs that no honest program makes, over memory stores.

use bytes::Bytes;
use ferrocore_log::core::ProveError;
use ferrocore_log::limits::{NUMBER_MAX, PROOF_NODES_MAX};
use ferrocore_log::proof::{NodeRequest, PlanError, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::{Core, Corestore};
use proptest::prelude::*;

fn writer(length: u8) -> Core {
    let core = Corestore::memory().get_named("writer").unwrap();
    let blocks = (1..=length).map(|i| Bytes::from(vec![i; usize::from(i)]));
    core.append_batch(blocks.collect()).unwrap();
    core
}

#[test]
fn a_node_half_inside_the_askers_tree_is_no_node_to_prove() {
    let core = writer(8);
    for (seek, hash) in [(Some(20), 3), (Some(20), 7), (Some(2), 3), (None, 3)] {
        let request = ProofRequest {
            hash: Some(NodeRequest {
                index: hash,
                nodes: 0,
            }),
            seek: seek.map(|bytes| SeekRequest { bytes, padding: 0 }),
            upgrade: Some(UpgradeRequest {
                start: 3,
                length: 5,
            }),
            ..ProofRequest::default()
        };
        let refused = core.prove(&request).unwrap_err();
        let expected = matches!(refused, ProveError::Invalid(PlanError::InvalidNode));
        assert!(expected, "{request:?}: {refused}");
    }
}

/// Numbers around the edges of a short log, and those at the end of all numbers.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..40, 1 => NUMBER_MAX - 3..=NUMBER_MAX]
}

fn requests() -> impl Strategy<Value = ProofRequest> {
    let part = || proptest::option::of((number(), number()));
    (part(), part(), part(), part()).prop_map(|(block, hash, seek, upgrade)| ProofRequest {
        block: block.map(|(index, nodes)| NodeRequest { index, nodes }),
        hash: hash.map(|(index, nodes)| NodeRequest { index, nodes }),
        seek: seek.map(|(bytes, padding)| SeekRequest { bytes, padding }),
        upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
        ..ProofRequest::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_request_is_answered_within_bounds_or_refused(length in 0u8..20, request in requests()) {
        if let Ok(Some(proof)) = writer(length).prove(&request) {
            let seek = proof.seek.iter().map(|part| part.nodes.len());
            let path = proof.block.iter().map(|part| part.nodes.len());
            let hash = proof.hash.iter().map(|part| part.nodes.len());
            let upgrade = proof.upgrade.iter().map(|part| part.nodes.len() + part.additional.len());
            let longest = seek.chain(path).chain(hash).chain(upgrade).max();
            prop_assert!(longest.unwrap_or(0) <= PROOF_NODES_MAX);
        }
    }
}
