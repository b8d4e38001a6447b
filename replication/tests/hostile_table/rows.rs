//! The rows: what a peer does, and what is to come of it.

use ferrocore_log::proof::{NodeRequest, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_replication::messages::{
    BitfieldWords, Cancel, Extension, Message, NoData, Range, Reason, Request, Sync, Want,
};

use crate::act::{Act, Opening};
use crate::lies::{Lie, of_block};
use crate::stage::{From, LENGTH, request, sync};

/// One misbehaviour.
pub(crate) struct Row {
    /// As the documentation calls it.
    pub(crate) name: &'static str,
    pub(crate) from: From,
    pub(crate) acts: Vec<Act>,
    /// What comes of it while we read from the peer.
    pub(crate) reads: Expected,
    /// What comes of it while we write the log.
    pub(crate) writes: Expected,
}

/// What is done about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Ignore,
    /// It is told that it gets no answer.
    Refuse,
    /// Nothing more is read from it until it reads.
    NotRead,
    /// It is asked for nothing more on this channel.
    StopAsking,
    /// Its channel is closed.
    CloseChannel,
    /// Its connection is closed.
    CloseConnection,
}

/// What must come of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) verdict: Verdict,
    /// The error's variant.
    pub(crate) error: &'static str,
    /// Messages that it may cost us.
    pub(crate) answers_max: usize,
    /// Memory that it may leave behind, in KiB.
    pub(crate) held_kib_max: usize,
    /// Whether the log grows, by what is true in it.
    pub(crate) changes: bool,
}

impl Expected {
    const fn of(verdict: Verdict, error: &'static str) -> Self {
        Self {
            verdict,
            error,
            answers_max: 4,
            held_kib_max: 16,
            changes: false,
        }
    }

    /// Up to so many messages are answered.
    const fn answers(self, answers_max: usize) -> Self {
        Self {
            answers_max,
            ..self
        }
    }

    /// Up to so many KiB are kept.
    const fn kib(self, held_kib_max: usize) -> Self {
        Self {
            held_kib_max,
            ..self
        }
    }

    /// What was true in it is kept.
    const fn changes(self) -> Self {
        Self {
            changes: true,
            ..self
        }
    }

    /// As the documentation says it.
    pub(crate) fn say(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ignore => "ignore",
            Verdict::Refuse => "refuse",
            Verdict::NotRead => "not read",
            Verdict::StopAsking => "stop asking",
            Verdict::CloseChannel => "close channel",
            Verdict::CloseConnection => "close connection",
        };
        match self.error {
            "" => verdict.to_owned(),
            error => format!("{verdict}: `{error}`"),
        }
    }
}

const IGNORE: Expected = Expected::of(Verdict::Ignore, "");
const REFUSE: Expected = Expected::of(Verdict::Refuse, "");
const NOT_READ: Expected = Expected::of(Verdict::NotRead, "");
const BAD_CAPABILITY: Expected = closes("BadCapability");

/// The connection is closed.
const fn closes(error: &'static str) -> Expected {
    Expected::of(Verdict::CloseConnection, error)
}

/// The channel is closed.
const fn drops(error: &'static str) -> Expected {
    Expected::of(Verdict::CloseChannel, error)
}

/// The largest number on the wire.
const MAX: u64 = (1 << 53) - 1;

fn row(name: &'static str, from: From, acts: Vec<Act>, reads: Expected, writes: Expected) -> Row {
    Row {
        name,
        from,
        acts,
        reads,
        writes,
    }
}

/// A row with the same consequence in both roles.
fn both(name: &'static str, from: From, acts: Vec<Act>, expected: Expected) -> Row {
    row(name, from, acts, expected, expected)
}

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = openings();
    rows.extend(frames());
    rows.extend(malformed());
    rows.extend(states());
    rows.extend(requests());
    rows.extend(answers());
    rows.extend(block_lies());
    rows.extend(length_lies());
    rows.extend(fork_lies());
    rows.extend(holdings());
    rows.extend(extensions());
    rows
}

fn openings() -> Vec<Row> {
    let open =
        |name, opening, expected| both(name, From::Connected, vec![Act::Open(opening)], expected);
    vec![
        open(
            "a capability that is none",
            Opening::WrongCapability,
            BAD_CAPABILITY,
        ),
        open(
            "our own capability shown back",
            Opening::Mirrored,
            BAD_CAPABILITY,
        ),
        open(
            "the capability of another core",
            Opening::OfAnotherCore,
            BAD_CAPABILITY,
        ),
        open(
            "a capability cut short",
            Opening::CutShort,
            closes("MalformedHandshake"),
        ),
        open("a core that is not here", Opening::UnknownCore, REFUSE),
        open("another protocol", Opening::UnknownProtocol, REFUSE),
        open("a channel of no core", Opening::WithoutId, REFUSE),
        open("a channel id of 31 bytes", Opening::ShortId, REFUSE),
        open("channel number 0", Opening::NumberZero, REFUSE),
        open(
            "a channel number out of order",
            Opening::NumberFarOff,
            closes("Mux(OpenedWrongChannel)"),
        ),
        open(
            "a protocol name of 2 KiB",
            Opening::LongName,
            closes("Mux(NameTooLong)"),
        ),
        both(
            "a channel number in use",
            From::Open,
            vec![Act::Open(Opening::NumberInUse)],
            closes("Mux(OpenedWrongChannel)"),
        ),
        both(
            "the same core on a second channel",
            From::Open,
            vec![Act::Open(Opening::Twice)],
            REFUSE,
        ),
        both(
            "requests ahead of a capability that is none",
            From::Connected,
            vec![
                Act::Open(Opening::WrongCapability),
                Act::Frame(vec![1, 1, 1, 1, 0, 4, 3]),
            ],
            BAD_CAPABILITY.answers(0),
        ),
        both(
            "messages on a channel that was never opened",
            From::Connected,
            vec![Act::Frame(vec![9, 0, 1, 2, 3])],
            IGNORE,
        ),
        both(
            "its channel closed, and messages on it",
            From::Open,
            vec![Act::Close, Act::Frame(vec![1, 0, 7, 0, 20, 0])],
            IGNORE,
        ),
        both(
            "a reject of what was not offered",
            From::Open,
            vec![Act::Frame(vec![0, 2, 9])],
            closes("Mux(RejectedWrongChannel)"),
        ),
        both(
            "a close of what was not opened",
            From::Open,
            vec![Act::Frame(vec![0, 3, 9])],
            IGNORE,
        ),
    ]
}

fn frames() -> Vec<Row> {
    let frame = |name, from, frame: &[u8], expected| {
        both(name, from, vec![Act::Frame(frame.to_vec())], expected)
    };
    let mut nested = vec![0, 0, 1, 1, 5];
    for _ in 0..4 {
        let mut outer = vec![0, 0, 0, u8::try_from(nested.len() - 1).unwrap()];
        outer.extend(&nested[1..]);
        nested = outer;
    }
    let switches = [[0, 0, 1].as_slice(), &[0, 1].repeat(500_000)].concat();
    let longest = [[1, 42].as_slice(), &vec![7; (1 << 24) - 20]].concat();
    vec![
        frame(
            "garbage before a channel",
            From::Connected,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage on an open channel",
            From::Open,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage instead of an answer",
            From::All,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame("an empty frame", From::Open, &[], IGNORE),
        frame(
            "a batch cut short",
            From::Open,
            &[0, 0, 1, 9, 1],
            closes("Mux(Malformed)"),
        ),
        frame(
            "batches in batches",
            From::Open,
            &nested,
            closes("Mux(BatchTooDeep)"),
        ),
        frame(
            "a batch of nothing but changes of channel",
            From::Open,
            &switches,
            IGNORE,
        ),
        frame(
            "a control message that is none",
            From::Open,
            &[0, 77, 1, 2, 3],
            IGNORE,
        ),
        frame(
            "the longest frame, of a message that is none",
            From::Open,
            &longest,
            IGNORE,
        ),
        frame(
            "a frame longer than that",
            From::Open,
            &vec![1; 1 << 24],
            closes("Mux(FrameTooLong)"),
        ),
    ]
}

fn malformed() -> Vec<Row> {
    let raw = |name, kind, bytes: &[u8]| {
        both(
            name,
            From::Open,
            vec![Act::Raw(kind, bytes.to_vec())],
            closes("Malformed"),
        )
    };
    vec![
        raw("a Sync cut short", 0, &[7]),
        raw("a Request cut short", 1, &[1, 1, 0, 4]),
        raw("a number above 2^53", 2, &[0xff; 9]),
        raw(
            "Data with a million nodes announced",
            3,
            &[1, 1, 0, 4, 1, 7, 0xfe, 0, 0, 16, 0],
        ),
        raw(
            "Data with more bytes announced than there are",
            3,
            &[1, 1, 0, 4, 0xfe, 0xff, 0xff, 0xff, 0x7f],
        ),
        raw("a NoData of nothing", 4, &[]),
        raw("a Want cut short", 5, &[1]),
        raw(
            "a Bitfield with 2^30 words announced",
            7,
            &[0, 0xfe, 0, 0, 0, 0x40, 1, 2, 3, 4],
        ),
        raw("a Range cut short", 8, &[0, 1]),
        raw(
            "an Extension with a name that is no text",
            9,
            &[2, 0xff, 0xfe, 1],
        ),
        both(
            "a message of a later version",
            From::Open,
            vec![Act::Raw(10, vec![1, 2, 3])],
            IGNORE,
        ),
        both(
            "messages with bytes behind them",
            From::Open,
            vec![Act::Raw(2, vec![1, 2, 3])],
            IGNORE,
        ),
    ]
}

fn states() -> Vec<Row> {
    let far = |fork, length| Act::Say(sync(fork, length));
    vec![
        row(
            "a length of 2^53 - 1",
            From::Block,
            vec![far(0, MAX)],
            IGNORE,
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

fn requests() -> Vec<Row> {
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
    let one = |name, proof| both(name, From::Block, vec![ask(1, proof)], REFUSE);
    vec![
        one("a request for a block past the end", of_block(MAX, 0)),
        one(
            "a request of another fork",
            ProofRequest {
                fork: 7,
                ..of_block(3, 0)
            },
        ),
        one("a request for an upgrade past the end", upgrade(4, 99)),
        one(
            "a request for an upgrade that wraps around",
            upgrade(MAX, MAX),
        ),
        one("a request for an upgrade by nothing", upgrade(3, 0)),
        one(
            "a request for 2^53 - 1 nodes above a block",
            of_block(3, MAX),
        ),
        one("a request for node 2^53 - 1", hash(MAX, 1)),
        row(
            "a request for a byte past the end",
            From::Block,
            vec![ask(
                1,
                ProofRequest {
                    seek: Some(SeekRequest {
                        bytes: MAX,
                        padding: 0,
                    }),
                    ..hash(8, 3)
                },
            )],
            REFUSE,
            REFUSE,
        ),
        one("a request for everything at once", everything),
        both(
            "70 requests in a row that make no sense",
            From::Block,
            vec![Act::Each(70, |id| request(id, upgrade(4, 99)))],
            closes("TooManyInvalidRequests").answers(63).kib(32),
        ),
        row(
            "a request without a question",
            From::Block,
            vec![ask(1, ProofRequest::default())],
            REFUSE,
            REFUSE,
        ),
        row(
            "a flood of requests",
            From::Block,
            vec![Act::Each(100_000, |id| request(id, of_block(id % 20, 0)))],
            REFUSE.answers(100_000),
            IGNORE.answers(100_000),
        ),
        row(
            "a flood of requests, and it reads no answer",
            From::Block,
            vec![
                Act::StopReading,
                Act::Each(100_000, |id| request(id, of_block(id % 20, 0))),
            ],
            NOT_READ.answers(0).kib(3 * 1024),
            NOT_READ.answers(0).kib(3 * 1024),
        ),
        row(
            "a flood of requests under one id",
            From::Block,
            vec![Act::Each(100_000, |id| request(1, of_block(id % 20, 0)))],
            REFUSE.answers(100_000),
            IGNORE.answers(100_000),
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
            REFUSE.answers(10_000),
            IGNORE.answers(10_000),
        ),
        row(
            "requests replayed",
            From::Block,
            vec![ask(1, of_block(3, 0)), ask(1, of_block(3, 0))],
            REFUSE,
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
            IGNORE.answers(0),
        ),
    ]
}

fn answers() -> Vec<Row> {
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
        row(
            "the same data twice",
            From::Block,
            vec![Act::Answer(Lie::None), Act::Again],
            IGNORE.changes(),
            IGNORE,
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
            From::Block,
            vec![Act::Refuse],
            IGNORE,
        ),
        row(
            "withholds all that it announced",
            From::All,
            vec![Act::RefuseAll],
            Expected::of(Verdict::StopAsking, "TooManyDenials"),
            IGNORE,
        ),
        row(
            "proofs of a conflict that is none, again and again",
            From::Block,
            vec![Act::RawTimes(1000, 3, vec![8, 0, 0, 0, 20, 0, 0, 0])],
            IGNORE,
            IGNORE,
        ),
    ]
}

fn block_lies() -> Vec<Row> {
    // A proof that may show another signed history is asked for whole, and refused.
    let lie = |name, lie, reads| {
        row(
            name,
            From::Block,
            vec![Act::Answer(lie), Act::RefuseAll],
            reads,
            IGNORE,
        )
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
            drops("BadProof(TooLarge)"),
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
    ]
}

fn length_lies() -> Vec<Row> {
    let lie = |name, lie, reads| {
        row(
            name,
            From::Length,
            vec![Act::Answer(lie), Act::RefuseAll],
            reads,
            IGNORE,
        )
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
        lie("a signature of a megabyte", Lie::LongSignature, signature),
        lie(
            "a manifest that does not hash to the key",
            Lie::OtherManifest,
            drops("BadProof(Manifest)"),
        ),
        lie("no manifest", Lie::NoManifest, signature),
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
        row(
            "bad proofs on one channel after the other",
            From::Connected,
            strikes(),
            closes("TooManyStrikes").answers(80),
            REFUSE.answers(80),
        ),
        row(
            "no answer to the question for its length",
            From::Length,
            vec![Act::Refuse],
            IGNORE,
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

fn fork_lies() -> Vec<Row> {
    let lie = |name, lie, reads| {
        row(
            name,
            From::Fork,
            vec![Act::Answer(lie), Act::RefuseAll],
            reads,
            IGNORE,
        )
    };
    vec![
        lie("a fork that the writer has not signed", Lie::Fork, IGNORE),
        row(
            "a fork announced and not proven",
            From::Fork,
            vec![Act::RefuseAll],
            IGNORE,
            IGNORE,
        ),
        lie("data of the old fork for the new one", Lie::None, IGNORE),
    ]
}

fn holdings() -> Vec<Row> {
    let want = |start, length, any| Message::Want(Want { start, length, any });
    let have = |drop, start, length| {
        Act::Say(Message::Range(Range {
            drop,
            start,
            length,
        }))
    };
    vec![
        both(
            "a Want to 2^53",
            From::Block,
            vec![Act::Say(want(0, MAX, false))],
            IGNORE.answers(0),
        ),
        both(
            "a Want of a batch from 2^53 - 1",
            From::Block,
            vec![Act::Say(want(MAX, 1 << 21, false))],
            IGNORE,
        ),
        both(
            "a flood of Wants",
            From::Block,
            vec![Act::Each(10_000, |number| {
                Message::Want(Want {
                    start: number << 21,
                    length: 1 << 21,
                    any: false,
                })
            })],
            IGNORE.answers(10_000).kib(64),
        ),
        both(
            "a flood of Wants for any block",
            From::Block,
            vec![Act::Each(10_000, |number| {
                Message::Want(Want {
                    start: number,
                    length: MAX,
                    any: true,
                })
            })],
            IGNORE.answers(10_000).kib(64),
        ),
        both(
            "an Unwant of what was not wanted",
            From::Block,
            vec![Act::Say(Message::Unwant(Want {
                start: MAX,
                length: MAX,
                any: false,
            }))],
            IGNORE,
        ),
        both(
            "a Bitfield that does not start at a word",
            From::Block,
            vec![Act::Say(bits(7, 4))],
            IGNORE,
        ),
        both(
            "a Bitfield of a megabyte",
            From::Block,
            vec![Act::Say(bits(0, 1 << 18))],
            IGNORE.kib(600),
        ),
        both(
            "a Bitfield at 2^53 - 32",
            From::Block,
            vec![Act::Say(bits(MAX - 31, 4))],
            IGNORE,
        ),
        both(
            "Bitfields all over the place",
            From::Block,
            vec![Act::Each(5000, |number| bits(number << 20, 1))],
            IGNORE.kib(3 * 1024),
        ),
        both(
            "a Range that wraps around",
            From::Block,
            vec![have(false, MAX, MAX)],
            IGNORE,
        ),
        both(
            "a Range of everything",
            From::Block,
            vec![have(false, 0, MAX)],
            IGNORE,
        ),
        both(
            "a Range from block 3 to 2^53",
            From::Block,
            vec![have(false, 3, MAX)],
            IGNORE.kib(600),
        ),
        both(
            "all blocks dropped",
            From::Block,
            vec![have(true, 0, MAX)],
            IGNORE,
        ),
        both(
            "a flood of Ranges all over the place",
            From::Block,
            vec![Act::Each(100_000, |number| {
                Message::Range(Range {
                    drop: false,
                    start: number << 30,
                    length: 1,
                })
            })],
            IGNORE.kib(3 * 1024),
        ),
        both(
            "blocks announced and dropped, again and again",
            From::Block,
            vec![Act::Each(100_000, |number| {
                Message::Range(Range {
                    drop: number % 2 == 0,
                    start: 5,
                    length: 1 << 20,
                })
            })],
            IGNORE.kib(600),
        ),
    ]
}

fn bits(start: u64, words: usize) -> Message {
    Message::Bitfield(BitfieldWords {
        start,
        words: vec![0x5555_5555; words],
    })
}

fn extensions() -> Vec<Row> {
    vec![
        both(
            "a flood of extension messages",
            From::Open,
            vec![Act::RawTimes(
                100_000,
                9,
                b"\x04none-and-some-bytes".to_vec(),
            )],
            IGNORE.answers(0),
        ),
        both(
            "an extension message without a name",
            From::Open,
            vec![Act::Raw(9, vec![0, 1, 2])],
            IGNORE,
        ),
        both(
            "an extension name of a megabyte",
            From::Open,
            vec![Act::Say(Message::Extension(Extension {
                name: "x".repeat(1 << 20),
                message: vec![1].into(),
            }))],
            IGNORE,
        ),
    ]
}
