//! Rows about which blocks are where, and about messages of applications.

use ferrocore_replication::messages::{BitfieldWords, Extension, Message, Range, Want};

use crate::act::Act;
use crate::common::script::range;
use crate::rows::{IGNORE, MAX, Row, both};
use crate::stage::From;

pub(crate) fn holdings() -> Vec<Row> {
    let want = |start, length, any| Message::Want(Want { start, length, any });
    let have = |drop, start, length| Act::Say(range(drop, start, length));
    vec![
        both(
            "a Want to 2^53",
            From::Block,
            vec![Act::Say(want(0, MAX, false))],
            IGNORE.answers(0),
        ),
        both(
            "a Want for any block to 2^53",
            From::Block,
            vec![Act::Say(want(0, MAX, true))],
            IGNORE.answers(1),
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
            IGNORE.answers(10_000).kib(64).peak(1000),
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
            IGNORE.answers(10_000).kib(64).peak(1000),
        ),
        both(
            "Wants taken back and said again",
            From::Block,
            vec![Act::Each(10_000, |number| {
                let want = Want {
                    start: number / 2 % 600 * 64,
                    length: 64,
                    any: number % 4 < 2,
                };
                match number % 2 {
                    0 => Message::Want(want),
                    _ => Message::Unwant(want),
                }
            })],
            IGNORE.answers(5_000).kib(64).peak(1200),
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
            IGNORE,
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
            IGNORE,
        ),
        both(
            "runs announced and dropped that cut each other to pieces",
            From::Block,
            vec![Act::Each(100_000, |number| {
                Message::Range(Range {
                    drop: number % 3 == 0,
                    start: 5 + number * 7919 % 40_000 * 1000,
                    length: number * 104_729 % 5000 * 1000,
                })
            })],
            IGNORE.kib(1100).peak(1200),
        ),
    ]
}

fn bits(start: u64, words: usize) -> Message {
    Message::Bitfield(BitfieldWords {
        start,
        words: vec![0x5555_5555; words],
    })
}

pub(crate) fn extensions() -> Vec<Row> {
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
