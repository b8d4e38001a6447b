//! Rows about what the peer answers.

use std::time::Duration;

use ferrocore_replication::limits::{REQUEST_TIMEOUT, STRIKES_MAX};
use ferrocore_replication::messages::{Message, NoData, Reason};

use crate::act::{Act, Opening};
use crate::lies::Lie;
use crate::rows::{Expected, IGNORE, MAX, Row, Verdict, both, drops, row};
use crate::stage::{From, LENGTH, sync};

pub(crate) fn answers() -> Vec<Row> {
    let no_data = |request, reason| Act::Say(Message::NoData(NoData { request, reason }));
    vec![
        both(
            "data under an id of nothing",
            From::Block,
            vec![Act::Answer(Lie::Id)],
            IGNORE,
        ),
        both(
            "data under id 0",
            From::Block,
            vec![Act::Answer(Lie::IdZero)],
            IGNORE,
        ),
        both(
            "the same data twice",
            From::Missing,
            vec![Act::Answer(Lie::None), Act::Again],
            IGNORE.changes(),
        ),
        both(
            "a flood of data that nobody asked for",
            From::Open,
            vec![Act::RawTimes(100_000, 3, vec![0, 99, 0])],
            IGNORE.answers(0),
        ),
        both(
            "NoData for nothing",
            From::Block,
            vec![no_data(99, Reason::None)],
            IGNORE,
        ),
        both(
            "NoData for a reason that is none",
            From::Block,
            vec![no_data(1, Reason::Other(MAX))],
            IGNORE,
        ),
        both(
            "withholds one block that it announced",
            From::Missing,
            vec![Act::Refuse],
            IGNORE,
        ),
        both(
            "withholds all that it announced",
            From::All,
            vec![Act::RefuseAll],
            Expected::of(Verdict::StopAsking, "TooManyDenials"),
        ),
        both(
            "answers once, and then never again",
            From::All,
            vec![Act::Answer(Lie::None)],
            IGNORE.changes(),
        ),
        both(
            "answers once, and then never again, and time passes",
            From::All,
            vec![Act::Answer(Lie::None), Act::Pass(Duration::from_secs(100))],
            IGNORE.answers(130).changes(),
        ),
        both(
            "answers the others and never the first",
            From::All,
            vec![Act::Withhold, Act::AnswerAll(Lie::None)],
            IGNORE.kib(64).changes(),
        ),
        both(
            "answers the others and never the first, and time passes",
            From::All,
            vec![
                Act::Withhold,
                Act::AnswerAll(Lie::None),
                Act::Pass(Duration::from_secs(100)),
            ],
            // What rested on the first is asked for again with the whole path each.
            IGNORE.answers(100).changes().reads(300),
        ),
        both(
            "never answers the first, and the others with garbage that rests on it, again and again",
            From::Tree,
            [
                Act::Withhold,
                Act::AnswerAll(Lie::Value),
                Act::Pass(REQUEST_TIMEOUT + Duration::from_secs(1)),
                Act::Withhold,
                Act::Answer(Lie::Value),
                Act::RefuseAll,
            ]
            .into(),
            drops("BadProof(Checksum)").answers(80).reads(400),
        ),
        row(
            "proofs of a conflict, again and again",
            From::Block,
            vec![Act::RawTimes(1000, 3, vec![8, 0, 0, 0, 20, 0, 0, 0])],
            IGNORE,
            IGNORE,
        ),
    ]
}

pub(crate) fn block_lies() -> Vec<Row> {
    // A proof that may show another signed history is asked for whole, and refused.
    let lie = |name, lie, reads| {
        let acts = vec![Act::Answer(lie), Act::RefuseAll];
        both(name, From::Missing, acts, reads)
    };
    let checksum = drops("BadProof(Checksum)");
    let unanchored = drops("BadProof(Unanchored)");
    let nodes = drops("BadProof(UnexpectedNode)");
    vec![
        lie("a block with one byte changed", Lie::Value, checksum),
        lie("an empty block", Lie::EmptyValue, checksum),
        lie("a block that is too long", Lie::LongValue, checksum),
        lie(
            "the nodes of a path in another order",
            Lie::NodeOrder,
            nodes,
        ),
        lie("a surplus node", Lie::NodeSurplus, nodes),
        lie(
            "100,000 surplus nodes",
            Lie::ManyNodes,
            drops("BadProof(TooLarge)").peak(4 * 1024),
        ),
        lie("a missing node", Lie::NodeMissing, unanchored),
        lie("no nodes at all", Lie::NoNodes, unanchored),
        lie("a node twice", Lie::NodeTwice, nodes),
        lie("a forged hash of a node", Lie::NodeHash, checksum),
        lie("a forged size of a node", Lie::NodeSize, checksum),
        lie(
            "a node of 2^53 - 1 bytes",
            Lie::NodeSizeHuge,
            drops("BadProof(TooLarge)"),
        ),
        lie("a node in another's place", Lie::NodeIndex, nodes),
        lie("the true proof of another block", Lie::OtherBlock, IGNORE),
        lie(
            "another block under the name of the one asked for",
            Lie::OtherBlockRenamed,
            nodes,
        ),
        lie("data of another fork", Lie::Fork, IGNORE),
        lie("data of fork 2^53 - 1", Lie::ForkHuge, IGNORE),
        lie(
            "a block with an upgrade nobody asked for",
            Lie::SurplusUpgrade,
            IGNORE,
        ),
        lie(
            "a block with a node nobody asked for",
            Lie::SurplusHash,
            IGNORE,
        ),
        lie(
            "a block with the place of a byte nobody asked for",
            Lie::SurplusSeek,
            IGNORE,
        ),
        lie(
            "a block with a manifest nobody asked for",
            Lie::SurplusManifest,
            IGNORE.changes(),
        ),
        lie("an answer with nothing in it", Lie::Nothing, IGNORE),
        row(
            "a block with one byte changed while a commit is on its way, and then done",
            From::Committing,
            vec![Act::Answer(Lie::Value), Act::LetCommit, Act::RefuseAll],
            checksum.kib(64).changes(),
            IGNORE.changes(),
        )
        .while_we_write(
            From::Committing,
            vec![Act::Push(1, Lie::Value), Act::LetCommit],
        ),
    ]
}

pub(crate) fn length_lies() -> Vec<Row> {
    let lie = |name, lie, reads| {
        let acts = vec![Act::Answer(lie), Act::RefuseAll];
        both(name, From::Length, acts, reads)
    };
    let signature = drops("BadProof(Signature)");
    let nodes = drops("BadProof(UnexpectedNode)");
    vec![
        lie(
            "a signature with one bit changed",
            Lie::Signature,
            signature,
        ),
        lie("a signature left away", Lie::NoSignature, signature),
        lie(
            "the signature of a shorter log",
            Lie::OldSignature,
            signature,
        ),
        lie(
            "the signature of another fork",
            Lie::OtherForkSignature,
            signature,
        ),
        lie(
            "a signature of a megabyte",
            Lie::LongSignature,
            signature.peak(1200),
        ),
        lie(
            "a manifest that does not hash to the key",
            Lie::OtherManifest,
            drops("BadProof(Manifest)"),
        ),
        // Who writes the log knows its manifest, and does not ask for it: what comes without is true.
        row(
            "no manifest",
            From::Length,
            vec![Act::Answer(Lie::NoManifest), Act::RefuseAll],
            signature,
            IGNORE.changes(),
        )
        .while_we_write(From::OnlyPushed, vec![Act::PushLog(1, Lie::NoManifest)]),
        lie("an upgrade from elsewhere", Lie::UpgradeStart, IGNORE),
        lie("an upgrade said to be longer", Lie::UpgradeLonger, nodes),
        lie("an upgrade said to be shorter", Lie::UpgradeShorter, nodes),
        lie(
            "an upgrade said to be 2^53 - 1 blocks",
            Lie::UpgradeHuge,
            drops("BadProof(TooLarge)"),
        ),
        lie("a forged hash of a root", Lie::RootHash, signature),
        lie("a forged size of a root", Lie::RootSize, signature),
        lie("roots in another order", Lie::RootOrder, nodes),
        lie("a surplus root", Lie::RootSurplus, nodes),
        lie("a missing root", Lie::RootMissing, nodes),
        lie("nodes past the head", Lie::Additional, nodes),
        both(
            "bad proofs on one channel after the other",
            From::Lost,
            strikes(),
            Expected::of(Verdict::Ban, "TooManyStrikes")
                .answers(80)
                .proofs(STRIKES_MAX.into()),
        ),
        both(
            "no answer to the question for its length",
            From::Length,
            vec![Act::Refuse],
            IGNORE,
        ),
    ]
}

fn strikes() -> Vec<Act> {
    let strike = [
        Act::Open(Opening::True),
        Act::Say(sync(0, LENGTH)),
        Act::Answer(Lie::Signature),
        Act::RefuseAll,
    ];
    strike
        .iter()
        .cycle()
        .take(8 * strike.len())
        .cloned()
        .collect()
}

pub(crate) fn fork_lies() -> Vec<Row> {
    let lie = |name, lie, expected| {
        let acts = vec![Act::Answer(lie), Act::RefuseAll];
        both(name, From::Fork, acts, expected)
    };
    vec![
        lie(
            "a fork that the writer has not signed",
            Lie::Fork,
            drops("BadProof(Signature)"),
        ),
        both(
            "a fork announced and not proven",
            From::Fork,
            vec![Act::RefuseAll],
            IGNORE,
        ),
        lie("data of the old fork for the new one", Lie::None, IGNORE),
    ]
}
