//! Goal: short buffers are enough for everything, and long ones are had while they are of use and no longer.
//! Method: sessions over a pipe, with so many places for long buffers, on virtual time.

use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::Corestore;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::limits::LONG_BUFFERS_IDLE;
use ferrocore_replication::session::{LongBuffers, SessionOptions};
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::io::duplex;
use tokio::time::{sleep, timeout};

use crate::common::{assert_complete_copy, blocks, writer_and_reader};

/// What a pipe holds: less than a block.
const PIPE: usize = 16 * 1024;

async fn sessions(
    here: &Corestore,
    there: &Corestore,
    long_buffers: &LongBuffers,
) -> (Session, Session) {
    let (ours, theirs) = duplex(PIPE);
    let (our_keys, their_keys) = (KeyPair::generate(), KeyPair::generate());
    let (ours, theirs) = tokio::try_join!(
        SecretStream::handshake(ours, Role::Initiator, &our_keys, Options::default()),
        SecretStream::handshake(theirs, Role::Responder, &their_keys, Options::default()),
    )
    .unwrap();
    let options = SessionOptions {
        long_buffers: long_buffers.clone(),
        ..SessionOptions::default()
    };
    (
        Session::spawn(ours, here.clone(), options.clone()),
        Session::spawn(theirs, there.clone(), options),
    )
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("within a minute")
}

/// Blocks shorter than, as long as, and longer than what fits into short buffers, and than what is read without room.
fn of_all_lengths() -> Vec<Bytes> {
    let lens = [0, 1, 100, 65_535, 65_536, 65_537, 72_000, 100_000, 300_000];
    let lens = lens.into_iter().cycle().take(90);
    lens.map(|len| vec![7; len].into()).collect()
}

#[tokio::test(start_paused = true)]
async fn two_bulks_against_each_other_are_whole_in_short_buffers() {
    for places in [0, 1, 2] {
        let places = LongBuffers::new(places);
        let (ours, writer, theirs, reader) = writer_and_reader(&of_all_lengths());
        let back_writer = theirs.get_named("back").unwrap();
        back_writer.append_batch(of_all_lengths()).unwrap();
        back_writer.append_batch(blocks(5_000)).unwrap();
        let back_reader = ours.get(&back_writer.key()).unwrap();
        let downloads = (reader.download_all(), back_reader.download_all());
        let _sessions = sessions(&ours, &theirs, &places).await;
        within(downloads.0.caught_up()).await.unwrap();
        within(downloads.1.caught_up()).await.unwrap();
        assert_complete_copy(&writer, &reader);
        assert_complete_copy(&back_writer, &back_reader);
    }
}

#[tokio::test(start_paused = true)]
async fn long_buffers_are_taken_for_much_and_given_back() {
    let places = LongBuffers::new(3);
    let (ours, writer, theirs, reader) = writer_and_reader(&blocks(10));
    let all = reader.download_all();
    let sessions = sessions(&ours, &theirs, &places).await;
    within(all.caught_up()).await.unwrap();
    assert_eq!(places.free(), 3, "little fits into short ones");
    for _ in 0..2 {
        writer
            .append_batch(vec![Bytes::from(vec![7; 65_536]); 20])
            .unwrap();
        let length = writer.length();
        within(reader.download(0..length).done()).await.unwrap();
        assert_eq!(places.free(), 1, "both ends have theirs");
        sleep(2 * LONG_BUFFERS_IDLE).await;
        assert_eq!(places.free(), 3);
    }
    writer.append("little").unwrap();
    let length = writer.length();
    within(reader.download(length - 1..length).done())
        .await
        .unwrap();
    assert_eq!(places.free(), 3);
    assert_complete_copy(&writer, &reader);
    drop(sessions);
}
