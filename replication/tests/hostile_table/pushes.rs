//! Rows about what the peer sends unasked, to who takes that and to who does not.

use ferrocore_replication::limits::BAD_PUSHES_MAX;

use crate::act::Act;
use crate::lies::Lie;
use crate::rows::{Expected, IGNORE, Row, both, drops, row};
use crate::stage::From;

/// So many bad ones that a channel is closed for them.
const MANY: usize = BAD_PUSHES_MAX as usize;

pub(crate) fn pushes() -> Vec<Row> {
    let block = |name, count, lie, reads: Expected| {
        row(
            name,
            From::Pushed,
            vec![Act::Push(count, lie)],
            reads,
            IGNORE.reads(reads.reads_max),
        )
    };
    // Where the block is here already, nodes that do not fit are seen all the same.
    let false_block = |name, lie, error| {
        let acts = vec![Act::Push(MANY, lie)];
        both(name, From::Pushed, acts, drops(error).proofs(MANY as u64))
    };
    let log = |name, count, lie, reads: Expected| {
        let pushed = vec![Act::PushLog(count, lie)];
        both(name, From::OnlyPushed, pushed, reads)
    };
    vec![
        block("a forged block, pushed", 1, Lie::Value, IGNORE),
        false_block(
            "forged blocks, pushed until it is enough",
            Lie::Value,
            "BadProof(Checksum)",
        ),
        false_block(
            "another block under a false name, pushed until it is enough",
            Lie::OtherBlockRenamed,
            "BadProof(UnexpectedNode)",
        ),
        block(
            "blocks without their nodes, pushed until it is enough",
            MANY,
            Lie::NoNodes,
            drops("BadProof(Unanchored)").proofs(MANY as u64),
        ),
        false_block(
            "blocks with a surplus node, pushed until it is enough",
            Lie::NodeSurplus,
            "BadProof(UnexpectedNode)",
        ),
        block(
            "blocks of another fork, pushed without end",
            10_000,
            Lie::Fork,
            IGNORE,
        ),
        block(
            "nothing at all, pushed without end",
            10_000,
            Lie::Nothing,
            IGNORE,
        ),
        block(
            "the same block, pushed without end",
            10_000,
            Lie::None,
            IGNORE.changes().kib(96).reads(11_000),
        ),
        log(
            "a log with a forged signature, pushed",
            1,
            Lie::Signature,
            IGNORE,
        ),
        log(
            "logs with a forged signature, pushed until it is enough",
            MANY,
            Lie::Signature,
            drops("BadProof(Signature)").proofs(MANY as u64),
        ),
        log(
            "logs without a signature, pushed until it is enough",
            MANY,
            Lie::NoSignature,
            drops("BadProof(Signature)").proofs(MANY as u64),
        ),
        log(
            "the signature of a shorter log, pushed until it is enough",
            MANY,
            Lie::OldSignature,
            drops("BadProof(Signature)").proofs(MANY as u64),
        ),
        both(
            "blocks pushed to who takes none, without end",
            From::Block,
            vec![Act::Push(10_000, Lie::None)],
            IGNORE,
        ),
        both(
            "forged blocks pushed to who takes none",
            From::Block,
            vec![Act::Push(2 * MANY, Lie::Value)],
            IGNORE,
        ),
    ]
}
