//! Sessions over real streams: the driver.

mod common;

use std::time::Duration;

use common::{assert_complete_copy, blocks, writer_and_reader};
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::session::SessionOptions;
use ferrocore_replication::{Session, SessionError};
use ferrocore_secret_stream::{Options, Role, SecretStream, StreamError, WRITE_TIMEOUT};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn secret<T: AsyncRead + AsyncWrite + Unpin>(io: T, role: Role) -> SecretStream<T> {
    SecretStream::handshake(io, role, &KeyPair::generate(), Options::default())
        .await
        .unwrap()
}

async fn sessions_over<T>(
    ours: T,
    theirs: T,
    here: &Corestore,
    there: &Corestore,
) -> (Session, Session)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let options = SessionOptions::default();
    (
        Session::spawn(ours, here.clone(), options),
        Session::spawn(theirs, there.clone(), options),
    )
}

/// A pipe that holds little, so that both sides have to wait for each other.
fn narrow_pipe() -> (DuplexStream, DuplexStream) {
    duplex(1000)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("within a minute")
}

#[tokio::test]
async fn a_core_goes_through_a_pipe_and_follows() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(500));
    let all = reader.download_all();
    let (ours, theirs) = narrow_pipe();
    let (ours, theirs) = sessions_over(ours, theirs, &here, &there).await;
    within(all.caught_up()).await.unwrap();
    assert_complete_copy(&writer, &reader);
    let events = reader.events();
    writer.append("more").unwrap();
    while reader.length() == 500 {
        within(events.next()).await;
    }
    assert_eq!(within(reader.get(500)).await.unwrap(), "more");
    ours.close();
    within(ours.closed()).await.unwrap();
    within(theirs.closed()).await.unwrap();
    assert_eq!(theirs.stats().blocks_downloaded, 501);
    assert_eq!(reader.supply().suppliers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_flows_against_each_other_do_not_lock_up() {
    // Goal: both ends have megabytes to send and a pipe that holds a thousand bytes.
    let (here, writer, there, reader) = writer_and_reader(&vec![vec![1; 100_000].into(); 40]);
    let back_writer = there.get_named("back").unwrap();
    back_writer
        .append_batch(vec![vec![2; 100_000].into(); 40])
        .unwrap();
    let back_reader = here.get(&back_writer.key()).unwrap();
    let downloads = (reader.download_all(), back_reader.download_all());
    let (ours, theirs) = narrow_pipe();
    let _sessions = sessions_over(ours, theirs, &here, &there).await;
    within(downloads.0.caught_up()).await.unwrap();
    within(downloads.1.caught_up()).await.unwrap();
    assert_complete_copy(&writer, &reader);
    assert_complete_copy(&back_writer, &back_reader);
}

#[tokio::test]
async fn a_reader_opened_later_is_offered_too() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let writer = here.get_named("late").unwrap();
    writer.append("hello").unwrap();
    let (ours, theirs) = narrow_pipe();
    let (_ours, theirs) = sessions_over(ours, theirs, &here, &there).await;
    let reader = there.get(&writer.key()).unwrap();
    theirs.attach(&reader); // keeps the reader waiting until the session knows it
    assert!(within(reader.update()).await.unwrap());
    assert_eq!(within(reader.get(0)).await.unwrap(), "hello");
}

#[tokio::test]
async fn over_tcp() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(20_000));
    let all = reader.download_all();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (ours, (theirs, _)) = (ours.unwrap(), theirs.unwrap());
    let _sessions = sessions_over(ours, theirs, &here, &there).await;
    within(all.caught_up()).await.unwrap();
    assert_complete_copy(&writer, &reader);
}

#[tokio::test]
async fn dropping_a_session_gives_its_claims_back() {
    let (here, _, there, reader) = writer_and_reader(&blocks(10));
    let (ours, theirs) = narrow_pipe();
    let (ours, theirs) = sessions_over(ours, theirs, &here, &there).await;
    assert!(within(reader.update()).await.unwrap());
    drop(theirs);
    within(ours.closed()).await.unwrap();
    no_suppliers(&reader).await;
    assert!(
        within(reader.get(3)).await.is_err(),
        "nobody is left to ask"
    );
}

async fn no_suppliers(core: &Core) {
    within(async {
        while core.supply().suppliers() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn garbage_inside_the_stream_ends_the_session_and_says_why() {
    let store = Corestore::memory();
    let (ours, theirs) = narrow_pipe();
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let session = Session::spawn(ours, store, SessionOptions::default());
    let (mut sender, _receiver) = theirs.split();
    sender.send(&[[0xff_u8; 40]]).await.unwrap();
    sender.flush().await.unwrap();
    let ended = within(session.closed()).await;
    assert!(matches!(ended, Err(SessionError::Peer(_))), "{ended:?}");
}

#[tokio::test]
async fn a_peer_that_goes_away_in_mid_frame_is_an_error() {
    let (here, _, _, _) = writer_and_reader(&blocks(1));
    let (ours, theirs) = narrow_pipe();
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let session = Session::spawn(ours, here, SessionOptions::default());
    let mut wire = None;
    let (mut sender, receiver) = theirs.split_with(|io| {
        let (reader, writer) = tokio::io::split(io);
        wire = Some(writer);
        (tokio::io::sink(), reader)
    });
    // The header of the stream went into the sink; half a frame takes its place.
    sender.flush().await.unwrap();
    let mut wire = wire.unwrap();
    wire.write_all(&[56, 0, 0, 1, 2, 3]).await.unwrap();
    wire.shutdown().await.unwrap();
    let ended = within(session.closed()).await;
    assert!(matches!(ended, Err(SessionError::Stream(_))), "{ended:?}");
    drop(receiver);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_ends_the_session() {
    // Goal: nobody holds a session by not reading, be it that only keepalives are to be written.
    let (_here, _, there, reader) = writer_and_reader(&blocks(1));
    let (ours, theirs) = narrow_pipe();
    let (ours, _theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let session = Session::spawn(ours, there, SessionOptions::default());
    let ended = timeout(10 * WRITE_TIMEOUT, session.closed()).await;
    match ended.expect("within its deadline") {
        Err(SessionError::Stream(error)) => {
            assert!(matches!(*error, StreamError::WriteTimeout), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.supply().suppliers(), 0);
}
