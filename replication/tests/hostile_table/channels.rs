//! Rows about channels, frames, and messages that cannot be read.

use std::time::Duration;

use ferrocore_primitives::encoding::{put_buffer, put_string};
use ferrocore_replication::connection::PROTOCOL;

use crate::act::{Act, Opening};
use crate::rows::{BAD_CAPABILITY, IGNORE, REFUSE, Row, both, closes};
use crate::stage::From;

pub(crate) fn openings() -> Vec<Row> {
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
            "a hundred half-open channels, and messages on them",
            From::Connected,
            vec![Act::Frame(half_open(100))],
            REFUSE.answers(100),
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
            "never answers what we offer, and time passes",
            From::Connected,
            vec![Act::LeaveWaiting, Act::Pass(Duration::from_secs(60))],
            IGNORE.answers(1),
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

/// A batch of so many opens of cores that are not here, with a message behind each.
fn half_open(count: u8) -> Vec<u8> {
    let mut batch = vec![0, 0, 0];
    for number in 1..=count {
        let mut open = vec![1, number];
        put_string(&mut open, PROTOCOL);
        put_buffer(&mut open, &[number; 32]);
        open.extend([1; 33]); // the handshake: flags, and a capability
        put_buffer(&mut batch, &open);
        // To the channel, a Cancel, and back to control messages.
        batch.extend([0, number, 2, 2, 1, 0, 0]);
    }
    batch
}

pub(crate) fn frames() -> Vec<Row> {
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
            "garbage instead of the log's proof",
            From::Length,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage instead of a block",
            From::Block,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage instead of an answer",
            From::All,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage instead of a fork's proof",
            From::Fork,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage instead of a pushed block",
            From::Pushed,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage instead of a pushed log",
            From::OnlyPushed,
            &[0xff; 40],
            closes("Mux(Malformed)"),
        ),
        frame(
            "garbage while a commit is on its way",
            From::Committing,
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

pub(crate) fn malformed() -> Vec<Row> {
    let garbage = |name, from| {
        let acts = vec![Act::Raw(3, vec![0xff; 40])];
        both(name, from, acts, closes("Malformed"))
    };
    let raw = |name, kind, bytes: &[u8]| {
        both(
            name,
            From::Open,
            vec![Act::Raw(kind, bytes.to_vec())],
            closes("Malformed"),
        )
    };
    vec![
        garbage("Data of garbage before any is asked for", From::Open),
        garbage("Data of garbage for the log's proof", From::Length),
        garbage("Data of garbage for a block", From::Block),
        garbage("Data of garbage for all blocks", From::All),
        garbage("Data of garbage for a fork's proof", From::Fork),
        garbage("Data of garbage for a pushed block", From::Pushed),
        garbage("Data of garbage for a pushed log", From::OnlyPushed),
        garbage(
            "Data of garbage while a commit is on its way",
            From::Committing,
        ),
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
