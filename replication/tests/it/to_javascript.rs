//! What a JavaScript peer has to be told, and how, lest it turn away for good: it pauses who refuses 32 requests
//! with a reason, keeps what it knows of a peer's blocks over a fork, and does not say by itself what it came to
//! be able to prove (`hypercore/lib/replicator.js` 11.37.1).
//!
//! Method: a script in its place, and the messages that it hears.

use std::time::Duration;

use crate::common::script::{
    Script, before_reader, block, range, reason, request, sync_on as sync,
};
use crate::common::{Pair, blocks, writer_and_reader};
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_replication::limits::{DENIALS_MAX, WANT_BLOCKS};
use ferrocore_replication::messages::{Cancel, Message, NoData, Range, Reason, Request, Want};

/// What a JavaScript peer that heard all this knows to be here.
fn known<'a>(heard: impl IntoIterator<Item = &'a Message>) -> Vec<u64> {
    let (mut contiguous, mut bits) = (0, vec![false; 200]);
    for message in heard {
        match message {
            Message::Range(Range {
                drop,
                start,
                length,
            }) => {
                match (drop, start) {
                    (true, start) => contiguous = contiguous.min(*start),
                    (false, 0) => contiguous = contiguous.max(*length),
                    _ => {}
                }
                // As there, a contiguous length leaves no bits behind.
                if *drop || *start > 0 {
                    bits[*start as usize..(start + length) as usize].fill(!drop);
                }
            }
            Message::Bitfield(field) => {
                contiguous = contiguous.min(field.start);
                for (at, bit) in bits[field.start as usize..].iter_mut().enumerate() {
                    let word = field.words.get(at / 32).copied();
                    *bit = word.map_or(*bit, |word| word >> (at % 32) & 1 == 1);
                }
            }
            _ => {}
        }
    }
    let has = |index: &u64| *index < contiguous || bits[*index as usize];
    (0..200).filter(has).collect()
}

fn is_sync_of(message: &Message, fork: u64) -> bool {
    matches!(message, Message::Sync(sync) if sync.fork == fork)
}

#[test]
fn what_was_cut_is_taken_back_before_the_fork_is_told() {
    let (store, writer, ..) = writer_and_reader(&blocks(100));
    let mut script = Script::open(&store, &writer);
    script.say(&sync(0, 100));
    let mut heard = script.deliver().unwrap();
    assert_eq!(known(&heard).len(), 100);
    writer.truncate(40, None).unwrap();
    let news = script.deliver().unwrap();
    let told = news.iter().position(|message| is_sync_of(message, 1));
    let before = &news[..told.expect("the fork is told")];
    let known_then = known(heard.iter().chain(before));
    assert_eq!(known_then, (0..40).collect::<Vec<_>>());
    heard.extend(news);
    writer.append_batch(blocks(20)).unwrap();
    heard.extend(script.deliver().unwrap());
    assert_eq!(known(&heard), (0..60).collect::<Vec<_>>());
}

#[test]
fn a_relay_tells_again_what_it_was_asked_once_it_has_moved() {
    let (here, writer, there, relay) = writer_and_reader(&blocks(150));
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&relay);
    let _some = [
        relay.download(0..10),
        relay.download(50..60),
        relay.download(120..130),
    ];
    pair.drive();
    let mut script = Script::open(&there, &relay);
    script.say(&sync(0, 150));
    script.say(&Message::Want(Want {
        start: 0,
        length: WANT_BLOCKS,
        any: false,
    }));
    let mut heard = script.deliver().unwrap();
    assert_eq!(known(&heard).len(), 30);
    writer.truncate(100, None).unwrap();
    pair.drive();
    heard.extend(script.deliver().unwrap());
    assert_eq!(relay.fork(), 1);
    let here: Vec<u64> = (0..200).filter(|index| relay.has(*index)).collect();
    assert!(here.len() >= 10);
    assert_eq!(known(&heard), here);
}

#[test]
fn requests_of_a_history_that_is_left_are_refused_without_a_reason() {
    let (store, writer, ..) = writer_and_reader(&blocks(100));
    let mut script = Script::open(&store, &writer);
    script.say(&sync(0, 100));
    script.deliver().unwrap();
    for index in 0..48 {
        script.say(&request(1 + index, block(index)));
    }
    writer.truncate(10, None).unwrap();
    let heard = script.deliver().unwrap();
    let told = heard.iter().position(|message| is_sync_of(message, 1));
    let refused = heard.iter().position(|message| reason(message).is_some());
    assert!(told.expect("the fork is told") < refused.expect("they are refused"));
    let reasons: Vec<_> = heard.iter().filter_map(reason).collect();
    assert_eq!(reasons, [Reason::None; 48]);
}

#[test]
fn cleared_blocks_are_taken_back_before_they_are_refused() {
    let (store, writer, ..) = writer_and_reader(&blocks(100));
    let mut script = Script::open(&store, &writer);
    script.say(&sync(0, 100));
    let mut heard = script.deliver().unwrap();
    for index in 0..48 {
        script.say(&request(1 + index, block(10 + index)));
    }
    writer.clear(10..60).unwrap();
    let news = script.deliver().unwrap();
    for (at, message) in news.iter().enumerate() {
        let Message::NoData(NoData { request, reason }) = message else {
            continue;
        };
        assert_eq!(*reason, Reason::None);
        let then = known(heard.iter().chain(&news[..at]));
        assert!(!then.contains(&(9 + request)), "block {}", 9 + request);
    }
    assert_eq!(news.iter().filter_map(reason).count(), 48);
    heard.extend(news);
    let here: Vec<u64> = (0..10).chain(60..100).collect();
    assert_eq!(known(&heard), here, "also what is behind the gap");
}

/// How often our state of `fork` is told within `seconds`.
fn reminders(script: &mut Script, fork: u64, seconds: u64) -> usize {
    script.now += Duration::from_secs(seconds);
    let heard = script.deliver().unwrap();
    heard
        .iter()
        .filter(|message| is_sync_of(message, fork))
        .count()
}

#[test]
fn a_relay_that_may_prove_more_by_now_is_reminded_of_us() {
    let (_writer, reader, mut script) = before_reader(&blocks(5));
    assert_eq!(reader.length(), 5);
    script.say(&sync(0, 0));
    script.deliver().unwrap();
    assert_eq!(reminders(&mut script, 0, 100), 0, "it has nothing");
    // It says that it can prove nine blocks, but to whom has none; then it does not say so of its own accord.
    for message in [range(false, 0, 9), sync(0, 9)] {
        script.say(&message);
        assert_eq!(reminders(&mut script, 0, 0), 0);
        assert_eq!(reminders(&mut script, 0, 1), 1);
        assert_eq!(reminders(&mut script, 0, 1), 0);
        assert_eq!(reminders(&mut script, 0, 1), 1);
        script.say(&range(true, 0, 9));
        script.say(&sync(0, 0));
        script.deliver().unwrap();
        assert_eq!(reminders(&mut script, 0, 100), 0);
    }
}

#[test]
fn a_relay_is_asked_for_blocks_past_the_length_it_told() {
    let (_writer, reader, mut script) = before_reader(&blocks(9));
    let _all = reader.download_all();
    script.say(&sync(0, 5));
    script.say(&range(false, 0, 9));
    let heard = script.deliver().unwrap();
    let asked = heard.iter().filter_map(|message| match message {
        Message::Request(Request { proof, .. }) => Some(proof.block?.index),
        _ => None,
    });
    assert_eq!(asked.count(), 9);
}

#[test]
fn a_reader_that_does_not_follow_is_reminded_of_the_fork() {
    let (store, writer, ..) = writer_and_reader(&blocks(100));
    let mut script = Script::open(&store, &writer);
    script.say(&sync(0, 100));
    script.deliver().unwrap();
    assert_eq!(reminders(&mut script, 0, 100), 0);
    writer.truncate(40, None).unwrap();
    assert_eq!(reminders(&mut script, 1, 0), 1);
    assert_eq!(reminders(&mut script, 1, 1), 1);
    assert_eq!(reminders(&mut script, 1, 1), 0);
    assert_eq!(reminders(&mut script, 1, 1), 1);
    script.say(&sync(1, 40));
    script.deliver().unwrap();
    assert_eq!(reminders(&mut script, 1, 1000), 0);
}

#[test]
fn a_reader_that_told_of_blocks_and_not_of_its_length_is_acknowledged_all_the_same() {
    let (store, writer, ..) = writer_and_reader(&blocks(100));
    let mut script = Script::open(&store, &writer);
    script.say(&sync(0, 40));
    script.deliver().unwrap();
    assert_eq!(reminders(&mut script, 0, 100), 0, "it has told all");
    script.say(&range(false, 0, 60));
    script.deliver().unwrap();
    script.now += Duration::from_secs(1);
    let heard = script.deliver().unwrap();
    let [Message::Sync(told)] = heard.as_slice() else {
        panic!("{heard:?}")
    };
    assert_eq!((told.length, told.remote_length), (100, 60));
    assert!(told.can_upgrade);
    script.say(&sync(0, 100));
    script.deliver().unwrap();
    assert_eq!(reminders(&mut script, 0, 1000), 0, "it has followed");
}

/// Goal: a peer that asked for a block and an upgrade in one, and took both back as the block came from elsewhere, is reminded of how
/// long the log is until it asks again, whether the answer was under way or not.
#[test]
fn a_reader_that_took_an_upgrade_back_is_reminded_of_the_length() {
    for is_answered in [false, true] {
        let (store, writer, ..) = writer_and_reader(&blocks(100));
        let mut script = Script::open(&store, &writer);
        script.say(&sync(0, 40));
        script.deliver().unwrap();
        let upgrade = UpgradeRequest {
            start: 40,
            length: 60,
        };
        let ask = ProofRequest {
            upgrade: Some(upgrade),
            ..block(10)
        };
        script.say(&request(1, ask.clone()));
        if is_answered {
            assert_eq!(reminders(&mut script, 0, 100), 0, "it has its answer");
        }
        script.say(&Message::Cancel(Cancel { request: 1 }));
        assert_eq!(reminders(&mut script, 0, 0), 0);
        assert_eq!(reminders(&mut script, 0, 1), 1);
        assert_eq!(reminders(&mut script, 0, 1), 0);
        assert_eq!(reminders(&mut script, 0, 1), 1);
        script.say(&request(2, ask));
        script.deliver().unwrap();
        assert_eq!(reminders(&mut script, 0, 100), 0, "it has asked again");
        script.say(&Message::Cancel(Cancel { request: 2 }));
        script.say(&sync(0, 100));
        script.deliver().unwrap();
        assert_eq!(reminders(&mut script, 0, 100), 0, "it has all of it");
    }
}

#[test]
fn who_withheld_blocks_is_asked_again_on_another_fork() {
    let (_writer, reader, mut script) = before_reader(&blocks(100));
    let _all = reader.download_all();
    script.say(&sync(0, 100));
    script.say(&range(false, 0, 100));
    let mut refused = 0;
    loop {
        let heard = script.deliver().unwrap();
        let asked = heard.iter().filter_map(|message| match message {
            Message::Request(Request { id, .. }) => Some(*id),
            _ => None,
        });
        let asked: Vec<u64> = asked.collect();
        if asked.is_empty() {
            break;
        }
        refused += asked.len();
        for request in asked {
            let reason = Reason::NotAvailable;
            script.say(&Message::NoData(NoData { request, reason }));
        }
    }
    assert!(refused >= DENIALS_MAX);
    assert!(refused < 100, "it is asked for no more");
    script.say(&sync(1, 100));
    let heard = script.deliver().unwrap();
    let upgrade = UpgradeRequest {
        start: 0,
        length: 100,
    };
    let asks = |message: &Message| match message {
        Message::Request(Request { proof, .. }) => {
            proof.upgrade == Some(upgrade) && proof.fork == 1
        }
        _ => false,
    };
    assert!(heard.iter().any(asks), "{heard:?}");
}

#[test]
fn who_takes_blocks_back_does_not_withhold_them() {
    let (_writer, reader, mut script) = before_reader(&blocks(100));
    let _all = reader.download_all();
    script.say(&sync(0, 100));
    script.say(&range(false, 0, 100));
    let asked = script.deliver().unwrap();
    script.say(&range(true, 0, 90));
    for message in asked {
        if let Message::Request(Request { id: request, .. }) = message {
            let reason = Reason::NotAvailable;
            script.say(&Message::NoData(NoData { request, reason }));
        }
    }
    script.deliver().unwrap();
    assert!(script.victim.connection.poll_misbehaviour().is_none());
    script.say(&range(false, 0, 90));
    let heard = script.deliver().unwrap();
    let is_block = |message: &Message| {
        matches!(
            message,
            Message::Request(Request {
                proof: ProofRequest { block: Some(_), .. },
                ..
            })
        )
    };
    assert!(heard.iter().any(is_block), "it is asked again");
}
