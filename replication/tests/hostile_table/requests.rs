//! Rows about what the peer says of itself, and what it asks.

use std::time::Duration;

use ferrocore_log::proof::{NodeRequest, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_replication::messages::{Cancel, Message, Request, Sync};

use crate::act::Act;
use crate::common::script::request;
use crate::lies::{Lie, of_block};
use crate::rows::{IGNORE, MAX, NOT_READ, REFUSE, Row, both, closes, drops, row};
use crate::stage::{From, LENGTH, sync};

pub(crate) fn states() -> Vec<Row> {
    let far = |fork, length| Act::Say(sync(fork, length));
    vec![
        row(
            "a length of 2^53 - 1",
            From::Block,
            vec![far(0, MAX)],
            IGNORE,
            IGNORE,
        ),
        both(
            "opens and says nothing, and time passes",
            From::Open,
            vec![Act::Pass(Duration::from_secs(60))],
            IGNORE.answers(0),
        ),
        both(
            "opens and says nothing",
            From::Open,
            vec![],
            IGNORE.answers(0),
        ),
        row(
            "says a length and answers nothing",
            From::Open,
            vec![far(0, MAX)],
            IGNORE,
            IGNORE,
        ),
        row(
            "says a length and answers nothing, and time passes",
            From::Open,
            vec![far(0, MAX), Act::Pass(Duration::from_secs(100))],
            IGNORE.answers(10),
            IGNORE.answers(10),
        ),
        both(
            "acknowledges a length that is not ours, and time passes",
            From::Open,
            vec![
                Act::Say(Message::Sync(Sync {
                    length: MAX,
                    remote_length: 7,
                    uploading: true,
                    ..Sync::default()
                })),
                Act::Pass(Duration::from_secs(10)),
            ],
            IGNORE,
        ),
        row(
            "a length of 2^53 - 1, and a proof without the manifest",
            From::Open,
            vec![far(0, MAX), Act::Answer(Lie::None)],
            drops("BadProof(Signature)"),
            IGNORE,
        ),
        row(
            "a length that shrinks",
            From::Block,
            vec![far(0, 3)],
            IGNORE,
            IGNORE,
        ),
        row(
            "a length of 0, again and again",
            From::Open,
            vec![Act::Each(1000, |_| sync(0, 0))],
            IGNORE,
            IGNORE.answers(1000),
        ),
        row(
            "fork 2^53 - 1 and no proof of it",
            From::Block,
            vec![far(MAX, 10), Act::RefuseAll],
            IGNORE,
            IGNORE,
        ),
        row(
            "forks to and fro",
            From::Block,
            vec![
                Act::Each(1000, |number| sync(number % 2, LENGTH)),
                Act::RefuseAll,
            ],
            IGNORE.answers(1100),
            IGNORE,
        ),
        row(
            "uploading taken back while it is asked, and time passes",
            From::All,
            vec![
                Act::Say(Message::Sync(Sync {
                    length: LENGTH,
                    downloading: true,
                    ..Sync::default()
                })),
                Act::Pass(Duration::from_secs(100)),
            ],
            IGNORE.answers(60),
            IGNORE.answers(60),
        ),
        row(
            "uploading taken back while a read is left to it",
            From::Block,
            vec![Act::Say(Message::Sync(Sync {
                length: LENGTH,
                downloading: true,
                ..Sync::default()
            }))],
            IGNORE,
            IGNORE,
        ),
        both(
            "neither uploading nor downloading",
            From::Open,
            vec![Act::Say(Message::Sync(Sync {
                length: LENGTH,
                ..Sync::default()
            }))],
            IGNORE,
        ),
        both(
            "acknowledges a length that is not ours",
            From::Open,
            vec![Act::Say(Message::Sync(Sync {
                length: LENGTH,
                remote_length: MAX,
                can_upgrade: true,
                uploading: true,
                ..Sync::default()
            }))],
            IGNORE,
        ),
    ]
}

fn upgrade(start: u64, length: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest { start, length }),
        ..ProofRequest::default()
    }
}

fn ask(id: u64, proof: ProofRequest) -> Act {
    Act::Say(request(id, proof))
}

pub(crate) fn requests() -> Vec<Row> {
    let hash = |index, nodes| ProofRequest {
        hash: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    };
    let seek = |bytes| ProofRequest {
        seek: Some(SeekRequest { bytes, padding: 0 }),
        ..of_block(4, 0)
    };
    let everything = ProofRequest {
        hash: Some(NodeRequest { index: 9, nodes: 1 }),
        upgrade: Some(UpgradeRequest {
            start: 3,
            length: 4,
        }),
        ..seek(MAX)
    };
    let one = |name, proof, reads, writes| {
        let acts = vec![ask(1, proof)];
        row(
            name,
            From::Block,
            acts,
            REFUSE.because(reads),
            REFUSE.because(writes),
        )
    };
    let not_here = |name, proof| one(name, proof, "NotAvailable", "NotAvailable");
    let invalid = |name, proof| one(name, proof, "InvalidRequest", "InvalidRequest");
    // Who has the block sees what is wrong with the rest.
    let invalid_of_block = |name, proof| one(name, proof, "NotAvailable", "InvalidRequest");
    vec![
        not_here("a request for a block past the end", of_block(MAX, 0)),
        not_here(
            "a request of another fork",
            ProofRequest {
                fork: 7,
                ..of_block(3, 0)
            },
        ),
        invalid("a request for an upgrade past the end", upgrade(4, 99)),
        invalid(
            "a request for an upgrade that wraps around",
            upgrade(MAX, MAX),
        ),
        invalid("a request for an upgrade by nothing", upgrade(3, 0)),
        invalid_of_block(
            "a request for 2^53 - 1 nodes above a block",
            of_block(3, MAX),
        ),
        invalid("a request for node 2^53 - 1", hash(MAX, 1)),
        invalid_of_block(
            "a request for a byte past the end",
            ProofRequest {
                seek: Some(SeekRequest {
                    bytes: MAX,
                    padding: 0,
                }),
                ..hash(8, 3)
            },
        ),
        invalid_of_block("a request for everything at once", everything),
        both(
            "70 requests in a row that make no sense",
            From::Block,
            vec![Act::Each(70, |id| request(id, upgrade(4, 99)))],
            closes("TooManyInvalidRequests").answers(63).kib(32),
        ),
        not_here("a request without a question", ProofRequest::default()),
        row(
            "a flood of requests",
            From::Block,
            vec![Act::Each(100_000, |id| request(id, of_block(id % 20, 0)))],
            REFUSE.answers(100_000).because("NotAvailable"),
            IGNORE.answers(100_000).reads(120_000),
        ),
        row(
            "a flood of requests, and it reads no answer",
            From::Block,
            vec![
                Act::StopReading,
                Act::Each(100_000, |id| request(id, of_block(id % 20, 0))),
            ],
            NOT_READ.answers(0).kib(3 * 1024).peak(1200),
            NOT_READ.answers(0).kib(3 * 1024).peak(1200),
        ),
        row(
            "a flood of requests under one id",
            From::Block,
            vec![Act::Each(100_000, |id| request(1, of_block(id % 20, 0)))],
            REFUSE.answers(100_000).peak(1000).because("NotAvailable"),
            IGNORE.answers(100_000).peak(1000),
        ),
        row(
            "a flood of urgent requests",
            From::Block,
            vec![Act::Each(10_000, |id| {
                Message::Request(Request {
                    id,
                    proof: of_block(id % 20, 0),
                    priority: MAX,
                })
            })],
            REFUSE.answers(10_000).peak(500).because("NotAvailable"),
            IGNORE.answers(10_000).peak(500).reads(12_000),
        ),
        row(
            "requests replayed",
            From::Block,
            vec![ask(1, of_block(3, 0)), ask(1, of_block(3, 0))],
            REFUSE.because("NotAvailable"),
            IGNORE,
        ),
        both(
            "a flood of cancels",
            From::Block,
            vec![Act::Each(100_000, |request| {
                Message::Cancel(Cancel { request })
            })],
            IGNORE.answers(0),
        ),
        both(
            "requests taken back at once",
            From::Block,
            vec![Act::Each(10_000, |number| match number % 2 {
                0 => request(number, of_block(3, 0)),
                _ => Message::Cancel(Cancel {
                    request: number - 1,
                }),
            })],
            IGNORE.answers(0).peak(1200),
        ),
    ]
}
