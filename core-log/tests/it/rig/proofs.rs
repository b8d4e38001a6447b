//! What a reader takes from its source: a longer log, blocks, another history.

use ferrocore_log::Core;
use ferrocore_log::core::AcceptError;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};

/// Brings `reader` to the length of `source`.
pub(crate) fn upgrade(reader: &Core, source: &Core) {
    if reader.length() < source.length() {
        let proof = longer(source, reader.length());
        reader.accept(proof).unwrap();
    }
}

/// Brings `reader` to the newer history of `source`, and returns whether that cut its log. Where both begin alike is
/// looked for over at most so many levels of the tree; what is not found by then is forgotten.
pub(crate) fn follow(reader: &Core, source: &Core, levels: usize) -> Result<bool, AcceptError> {
    let mut reorg = reader.reorg(longer(source, 0))?;
    for _ in 0..levels {
        let Some(request) = reorg.wants() else { break };
        reader.narrow(&mut reorg, &prove(source, &request))?;
    }
    let cuts = reorg.ancestors() < reader.length();
    reader.adopt(reorg)?;
    Ok(cuts)
}

/// The proof of block `index` that `reader` lacks.
pub(crate) fn block_proof(reader: &Core, source: &Core, index: u64) -> Proof {
    let nodes = reader.missing_nodes(2 * index).unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        fork: source.fork(),
        ..ProofRequest::default()
    };
    prove(source, &request)
}

/// The proof of all of `source`, for who has `start` blocks of it.
fn longer(source: &Core, start: u64) -> Proof {
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start,
            length: source.length() - start,
        }),
        manifest: true,
        fork: source.fork(),
        ..ProofRequest::default()
    };
    prove(source, &request)
}

fn prove(source: &Core, request: &ProofRequest) -> Proof {
    source.prove(request).unwrap().unwrap()
}
