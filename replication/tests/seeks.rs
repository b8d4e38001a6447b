//! Finding the block of a byte in a log that is hardly here.

mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use common::{Pair, writer_and_reader};
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore, EncryptionKey};

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
    pair.b.connection.attach(&reader, pair.now);
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
    pair.b.connection.attach(&reader, pair.now);
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
    seed.b.connection.attach(&sparse, seed.now);
    seed.drive();
    drop(seed);

    let byte = writer.byte_length() / 2;
    let expected = writer.seek_local(byte).unwrap();
    let mut poor = Pair::new(&sparse_store, &there);
    poor.b.connection.attach(&reader, poor.now);
    poor.drive();
    assert_eq!(reader.length(), 1000);
    let mut sought = pin!(reader.seek(byte));
    assert!(poll(sought.as_mut()).is_pending());
    poor.drive();
    let mut rich = Pair::new(&here, &there);
    rich.b.connection.attach(&reader, rich.now);
    rich.drive();
    let found = drive(&mut [&mut poor, &mut rich], sought.as_mut()).unwrap();
    assert_eq!(Some(found), expected);
}
