//! Finding the block of a byte in a log that is hardly here.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::common::script::{Script, before_reader, range, sync_of};
use crate::common::{Pair, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore, EncryptionKey};
use ferrocore_replication::limits::{ANY_WANT_TIMEOUT, WANT_BLOCKS};
use ferrocore_replication::messages::{Data, Message, Request, Want};

/// Blocks of very different sizes: no guess by the mean block is right.
fn uneven() -> Vec<Bytes> {
    let size =
        |index: u64| (index * index * 7919 % 400) as usize + usize::from(index == 300) * 90_000;
    (0..1000)
        .map(|index| Bytes::from(vec![index as u8; size(index)]))
        .collect()
}

/// Polls `future` once.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets all pairs work until `future` is ready.
fn drive<F: Future>(pairs: &mut [&mut Pair], future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..1000 {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        pairs.iter_mut().for_each(|pair| pair.drive());
    }
    panic!("nobody answers");
}

fn bytes_of_interest(writer: &Core) -> Vec<u64> {
    let length = writer.byte_length();
    let spread = (0..40).map(|step| step * length / 40);
    spread.chain([1, 399, 400, length - 1]).collect()
}

#[test]
fn one_question_and_at_most_one_block_find_a_byte() {
    // Goal: cost does not grow with the log. A parent's hash proves the sum of its leaves' sizes, not
    // each of them, so which of the last two blocks it is takes one of these blocks.
    let (here, writer, there, reader) = writer_and_reader(&uneven());
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    for byte in bytes_of_interest(&writer) {
        let (before, had) = (pair.b.stats().requests_sent, reader.count(0..1000));
        let found = drive(&mut [&mut pair], reader.seek(byte)).unwrap();
        assert_eq!(Some(found), writer.seek_local(byte).unwrap(), "byte {byte}");
        assert!(pair.b.stats().requests_sent <= before + 2, "byte {byte}");
        assert!(reader.count(0..1000) <= had + 1, "byte {byte}");
    }
    let past = drive(&mut [&mut pair], reader.seek(writer.byte_length() + 1));
    assert!(matches!(past, Err(CoreError::BytePastEnd { .. })));
}

#[test]
fn padding_does_not_count() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let key = EncryptionKey::generate();
    let options = CoreOptions {
        name: Some("secret".into()),
        encryption: Some(key.clone()),
        ..CoreOptions::default()
    };
    let writer = here.get_with(options).unwrap();
    writer.append_batch(uneven()).unwrap();
    let reader = there.get(&writer.key()).unwrap().with_encryption(&key);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    for byte in bytes_of_interest(&writer) {
        let found = drive(&mut [&mut pair], reader.seek(byte)).unwrap();
        assert_eq!(Some(found), writer.seek_local(byte).unwrap(), "byte {byte}");
    }
}

#[test]
fn who_cannot_tell_leaves_it_to_another() {
    // Goal: a peer without the blocks around the byte is not waited for. Method: it is asked first.
    let (here, writer, sparse_store, sparse) = writer_and_reader(&uneven());
    let there = Corestore::memory();
    let reader = there.get(&writer.key()).unwrap();
    let mut seed = Pair::new(&here, &sparse_store);
    let _few = sparse.download(0..3);
    seed.b.connection.attach(&sparse);
    seed.drive();
    drop(seed);

    let byte = writer.byte_length() / 2;
    let expected = writer.seek_local(byte).unwrap();
    let mut poor = Pair::new(&sparse_store, &there);
    poor.b.connection.attach(&reader);
    poor.drive();
    assert_eq!(reader.length(), 1000);
    let mut sought = pin!(reader.seek(byte));
    assert!(poll(sought.as_mut()).is_pending());
    poor.drive();
    let mut rich = Pair::new(&here, &there);
    rich.b.connection.attach(&reader);
    rich.drive();
    let found = drive(&mut [&mut poor, &mut rich], sought.as_mut()).unwrap();
    assert_eq!(Some(found), expected);
}

/// A reader of 1,000 blocks of which it has none, before a peer that does not say which it has.
fn reader_of_a_relay() -> (Core, Core, Script) {
    let (writer, reader, mut script) = before_reader(&uneven());
    script.say(&sync_of(1000));
    script.deliver().unwrap();
    (writer, reader, script)
}

fn wanted(heard: &[Message]) -> Want {
    let [Message::Want(want)] = heard else {
        panic!("{heard:?}")
    };
    *want
}

#[test]
fn a_peer_is_asked_whether_it_has_any_block_near_the_byte() {
    // Goal: of a peer whose blocks are not known just one is asked for, and it need not tell about others any
    // more once the byte is found.
    let (writer, reader, mut script) = reader_of_a_relay();
    let byte = writer.byte_length() / 3;
    let expected = writer.seek_local(byte).unwrap().unwrap();
    let mut sought = pin!(reader.seek(byte));
    assert!(poll(sought.as_mut()).is_pending());
    let want = wanted(&script.deliver().unwrap());
    assert!(want.any);
    assert!((want.start..want.start + want.length).contains(&expected.0));
    assert_eq!(script.deliver().unwrap(), [], "it is asked once");

    let near = expected.0 ^ 8; // not the block itself, but one below the same node
    script.say(&range(false, near, 1));
    let heard = script.deliver().unwrap();
    let [Message::Request(Request { id, proof, .. })] = heard.as_slice() else {
        panic!("{heard:?}")
    };
    assert_eq!(proof.hash.map(|node| node.index), Some(2 * near));
    let data = Data {
        request: *id,
        proof: writer.prove(proof).unwrap().unwrap(),
    };
    script.say(&Message::Data(data));
    let heard = script.deliver().unwrap();
    assert!(heard.contains(&Message::Unwant(want)), "{heard:?}");
    let _ = poll(sought.as_mut());
    let found_near = reader.seek_local(byte).unwrap();
    assert!(found_near.is_none_or(|found| found == expected));
}

#[test]
fn who_has_nothing_near_a_byte_says_nothing_and_is_not_waited_for_long() {
    let (writer, reader, mut script) = reader_of_a_relay();
    let mut sought = pin!(reader.seek(writer.byte_length() / 3));
    assert!(poll(sought.as_mut()).is_pending());
    let want = wanted(&script.deliver().unwrap());
    assert!(poll(sought.as_mut()).is_pending());
    script.now += ANY_WANT_TIMEOUT;
    assert_eq!(script.deliver().unwrap(), [Message::Unwant(want)]);
    // Then the block is fetched in which the byte may be, from whoever has it.
    assert!(poll(sought.as_mut()).is_pending());
    let want = wanted(&script.deliver().unwrap());
    assert_eq!((want.start, want.length, want.any), (0, WANT_BLOCKS, false));
    script.now += ANY_WANT_TIMEOUT;
    assert_eq!(
        script.deliver().unwrap(),
        [],
        "nothing is left to take back"
    );
}

#[test]
fn a_relay_that_has_a_part_of_the_log_tells_where_a_byte_in_it_is() {
    let (here, writer, relays, relay) = writer_and_reader(&uneven());
    let mut upstream = Pair::new(&here, &relays);
    upstream.b.connection.attach(&relay);
    let _part = relay.download(640..704);
    upstream.drive();
    drop(upstream);
    let there = Corestore::memory();
    let reader = there.get(&writer.key()).unwrap();
    let mut pair = Pair::new(&relays, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    let lengths: Vec<u64> = uneven().iter().map(|block| block.len() as u64).collect();
    for block in [640, 650, 677, 703] {
        let byte = lengths[..block].iter().sum::<u64>() + lengths[block] / 2;
        let expected = writer.seek_local(byte).unwrap();
        let found = drive(&mut [&mut pair], reader.seek(byte)).unwrap();
        assert_eq!(Some(found), expected, "byte {byte}");
    }
    assert!(reader.count(0..1000) <= 4, "{}", reader.count(0..1000));
    assert!(
        pair.b.connection.next_timeout().is_none(),
        "all was taken back"
    );
}

#[test]
fn ranges_of_any_length_are_answered_with_one_block_and_forgotten_when_taken_back() {
    // What a JavaScript peer asks in its mode `SMALL_WANTS`, from the node over half of a log.
    let (here, _writer, there, reader) = writer_and_reader(&blocks(1000));
    let mut pair = Pair::new(&here, &there);
    let _some = reader.download(700..710);
    pair.b.connection.attach(&reader);
    pair.drive();
    let mut script = Script::open(&there, &reader);
    script.say(&sync_of(0));
    script.deliver().unwrap();
    let want = Want {
        start: 0,
        length: 4 * WANT_BLOCKS,
        any: true,
    };
    script.say(&Message::Want(want));
    assert_eq!(script.deliver().unwrap(), [range(false, 700, 1)]);
    let mut news = |index: u64, script: &mut Script| {
        let _one = reader.download(index..index + 1);
        pair.drive();
        script.deliver().unwrap()
    };
    assert_eq!(news(100, &mut script), [range(false, 100, 1)]);
    script.say(&Message::Unwant(want));
    assert_eq!(news(200, &mut script), [], "it does not want to know");
}
