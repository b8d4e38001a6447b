//! Sessions over real streams: the driver.

mod held_room;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::common::{assert_complete_copy, blocks, writer_and_reader};
use ferrocore_log::{Core, CoreError, Corestore, StoreError, StoreOptions};
use ferrocore_mux::{ChannelId, Mux};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::limits::{CLOSE_TIMEOUT, REQUEST_TIMEOUT, UPDATE_TIME_MAX};
use ferrocore_replication::messages::Handshake;
use ferrocore_replication::session::SessionOptions;
use ferrocore_replication::{Session, SessionError};
use ferrocore_secret_stream::{
    FrameBudgets, Options, Receiver, Role, SecretStream, Sender, StreamError, WRITE_TIMEOUT,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    copy, copy_bidirectional, duplex, split,
};
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
        Session::spawn(ours, here.clone(), options.clone()),
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

/// Goal: who opens a core while a session follows the store reads it at once; only when the peer said that it has none is nobody left
/// to ask.
#[tokio::test]
async fn a_reader_opened_later_waits_for_the_answer() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let writer = here.get_named("late").unwrap();
    writer.append("hello").unwrap();
    let (ours, theirs) = narrow_pipe();
    let (_ours, theirs) = sessions_over(ours, theirs, &here, &there).await;
    let reader = there.get(&writer.key()).unwrap();
    assert_eq!(within(reader.get(0)).await.unwrap(), "hello");
    let unknown = there.get(&Key::from([7; 32])).unwrap();
    let read = within(unknown.get(0)).await;
    assert!(matches!(read, Err(CoreError::NoPeers { .. })), "{read:?}");
    theirs.close();
    within(theirs.closed()).await.unwrap();
    let unknown = there.get(&Key::from([8; 32])).unwrap();
    let read = timeout(Duration::ZERO, unknown.get(0)).await;
    assert!(matches!(read, Ok(Err(CoreError::NoPeers { .. }))));
}

/// Goal: a core that nobody holds is fetched from the disk for a peer that names it, and is let go when that peer leaves.
#[tokio::test]
async fn a_core_is_opened_for_who_names_it_and_let_go_again() {
    let folder = tempfile::tempdir().unwrap();
    let here = Corestore::open(folder.path(), StoreOptions::default()).unwrap();
    let (key, hash) = {
        let writer = here.get_named("asleep").unwrap();
        writer.append_batch(blocks(50)).unwrap();
        (writer.key(), writer.tree_hash())
    };
    let other = here.get_named("never named").unwrap().discovery_key();
    let open = || {
        let mut opened = here.watch_opened();
        std::iter::from_fn(move || opened.try_next()).map(|core| core.key())
    };
    assert_eq!(open().count(), 0, "nobody holds one");
    let there = Corestore::memory();
    let reader = there.get(&key).unwrap();
    let all = reader.download_all();
    let (ours, theirs) = narrow_pipe();
    let (ours, theirs) = sessions_over(ours, theirs, &here, &there).await;
    within(all.caught_up()).await.unwrap();
    assert_eq!((reader.length(), reader.tree_hash()), (50, hash));
    assert_eq!(open().collect::<Vec<_>>(), [key]);
    let in_use = here.purge(&key.discovery_key());
    assert!(
        matches!(in_use, Err(StoreError::InUse { .. })),
        "{in_use:?}"
    );
    theirs.close();
    let _ = within(ours.closed()).await;
    assert_eq!(open().count(), 0, "it is let go");
    assert!(here.purge(&key.discovery_key()).unwrap() > 0);
    assert!(here.contains(&other).unwrap());
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

/// Goal: a peer that does not take what is written to it keeps neither the stream nor what waits for it: not when the session
/// is aborted, nor once it was given time to be closed.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_keeps_no_stream_of_a_session_that_has_ended() {
    for end in [Session::abort, Session::close] {
        let (_here, _, there, _reader) = writer_and_reader(&blocks(1));
        let readers: Vec<_> = (0..50)
            .map(|n| there.get(&[n; 32].into()).unwrap())
            .collect();
        let (ours, theirs) = narrow_pipe();
        let (ours, theirs) = tokio::join!(
            secret(ours, Role::Initiator),
            secret(theirs, Role::Responder)
        );
        let session = Session::spawn(ours, there, SessionOptions::default());
        let (sender, _receiver) = theirs.split();
        let mut wire = sender.into_inner();
        // What it offers fills the pipe many times.
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.write_all(&[0]).await.unwrap();
        end(&session);
        timeout(2 * CLOSE_TIMEOUT, session.closed())
            .await
            .expect("it ends")
            .unwrap();
        assert!(wire.write_all(&[0]).await.is_err(), "the stream is open");
        drop(readers);
    }
}

/// Goal: that our own task was busy for longer than a peer may take to answer is not the peer's fault. Method: what the peer says
/// is held back, and given to the session in the moment in which its time is over.
#[tokio::test(start_paused = true)]
async fn what_has_come_goes_before_the_time_that_is_over() {
    const ROUNDS: u64 = 20;
    let (here, _, there, reader) = writer_and_reader(&blocks(ROUNDS as usize));
    let (at_reader, mut wire) = duplex(100_000);
    let (mut other, at_writer) = duplex(100_000);
    let joined = async {
        let sessions = sessions_over(at_writer, at_reader, &here, &there);
        tokio::pin!(sessions);
        tokio::select! {
            sessions = &mut sessions => sessions,
            _ = copy_bidirectional(&mut wire, &mut other) => panic!("it goes on"),
        }
    };
    let (_writes, reads) = joined.await;
    let (mut from_reader, mut to_reader) = split(wire);
    let (mut from_writer, mut to_writer) = split(other);
    tokio::spawn(async move { copy(&mut from_reader, &mut to_writer).await });
    let mut held = Vec::new();
    let updates = reader.clone();
    let update = tokio::spawn(async move { updates.update().await });
    for round in 0..ROUNDS {
        let _wanted = (round > 0).then(|| reader.download(round - 1..round));
        for _ in 0..1000 {
            let read = from_writer.read_buf(&mut held);
            tokio::select! {
                biased;
                read = read => drop(read.unwrap()),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(!held.is_empty(), "an answer");
        if round > 0 {
            tokio::time::advance(REQUEST_TIMEOUT + Duration::from_secs(1)).await;
        }
        to_reader.write_all(&held).await.unwrap();
        held.clear();
        if round == 0 {
            // The handshakes are over, and the log is known.
            while reader.length() == 0 {
                from_writer.read_buf(&mut held).await.unwrap();
                to_reader.write_all(&held).await.unwrap();
                held.clear();
            }
        }
        while round > 0 && !reader.has(round - 1) {
            assert_eq!(reads.stats().requests_timed_out, 0, "round {round}");
            tokio::task::yield_now().await;
        }
    }
    update.abort();
    assert_eq!(reads.stats().requests_timed_out, 0);
}

/// A peer that knows the key of `core` and has begun a frame of the longest kind, which it does not end.
async fn stalls_in_a_long_frame(
    store: &Corestore,
    core: &Core,
    budgets: &FrameBudgets,
) -> (Session, WriteHalf<DuplexStream>) {
    let (session, mut wire) = opens(store, core, budgets).await;
    wire.write_all(&[255, 255, 255]).await.unwrap();
    wire.write_all(&[7; 10_000]).await.unwrap();
    (session, wire)
}

/// A peer that knows the key of `core` and has opened it, and its end of the wire.
async fn opens(
    store: &Corestore,
    core: &Core,
    budgets: &FrameBudgets,
) -> (Session, WriteHalf<DuplexStream>) {
    let opened = Opened::over(duplex(100_000), store, core, budgets).await;
    (opened.session, opened.sender.into_inner())
}

/// A peer that speaks for itself, and has opened a core with a session of ours.
struct Opened {
    session: Session,
    sender: Sender<WriteHalf<DuplexStream>>,
    receiver: Receiver<ReadHalf<DuplexStream>>,
    mux: Mux,
    channel: ChannelId,
}

impl Opened {
    /// Over a wire, our end first.
    async fn over(
        (ours, theirs): (DuplexStream, DuplexStream),
        store: &Corestore,
        core: &Core,
        budgets: &FrameBudgets,
    ) -> Self {
        let (ours, theirs) = tokio::join!(
            secret(ours, Role::Responder),
            secret(theirs, Role::Initiator)
        );
        let session = Session::spawn(ours, store.clone(), options_with(budgets));
        let hash = *theirs.handshake_hash();
        let (mut sender, mut receiver) = theirs.split();
        let mut mux = Mux::new();
        let handshake = Handshake {
            seeks: true,
            capability: capability(true, &core.key(), &hash),
        };
        let id = core.discovery_key();
        let channel = mux.open(PROTOCOL, Some(id.as_bytes()), &handshake.to_vec());
        let opening = mux.poll_transmit().unwrap().to_bytes();
        sender.send(&[opening]).await.unwrap();
        sender.flush().await.unwrap();
        let answer = within(receiver.recv()).await.unwrap().expect("an answer");
        mux.handle_frame(answer);
        while mux.poll_event().unwrap().is_some() {}
        Self {
            session,
            sender,
            receiver,
            mux,
            channel: channel.unwrap(),
        }
    }
}

/// Goal: a frame that comes a byte a second, or stops in its midst, short or long, while we read or write the log: its session
/// ends in time, having cost little and changed nothing, and an honest peer beside it gets or brings all at once.
#[tokio::test(start_paused = true)]
async fn who_trickles_or_stalls_in_a_frame_loses_its_session_alone() {
    for (frame_len, is_trickling) in [
        (100_u32, true),
        (100, false),
        (70_000, true),
        (70_000, false),
    ] {
        for reads in [true, false] {
            let row = (frame_len, is_trickling, reads);
            let (here, writer, there, reader) = writer_and_reader(&blocks(20));
            let (store, core) = if reads {
                (&there, &reader)
            } else {
                (&here, &writer)
            };
            let budgets = FrameBudgets::new(0);
            let (session, mut wire) = opens(store, core, &budgets).await;
            let start = tokio::time::Instant::now();
            wire.write_all(&frame_len.to_le_bytes()[..3]).await.unwrap();
            let trickle = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if is_trickling {
                        let _ = wire.write_all(&[7]).await; // it may have ended
                    }
                }
            };
            let played = async {
                let all = reader.download_all();
                let (ours, theirs) = duplex(100_000);
                let _honest = sessions_over(ours, theirs, &here, &there).await;
                all.caught_up().await.unwrap();
                let took = start.elapsed();
                (session.closed().await, took)
            };
            let (ended, took) = tokio::select! {
                played = played => played,
                () = trickle => unreachable!(),
            };
            assert!(
                took <= UPDATE_TIME_MAX,
                "{row:?}: the honest peer took {took:?}"
            );
            match ended {
                Err(SessionError::Stream(error)) => assert!(
                    matches!(*error, StreamError::FrameTimeout { .. }),
                    "{row:?}: {error}"
                ),
                other => panic!("{row:?}: {other:?}"),
            }
            let most = Duration::from_secs(60 + u64::from(frame_len) / 1024 + 2);
            assert!(start.elapsed() <= most, "{row:?}: {:?}", start.elapsed());
            let stats = session.stats();
            assert!(
                stats.messages_sent <= 4 && stats.blocks_uploaded == 0,
                "{row:?}: {stats:?}"
            );
            assert_eq!(budgets.held(), 0, "{row:?}");
            assert_eq!((writer.fork(), writer.length()), (0, 20));
            assert_complete_copy(&writer, &reader);
        }
    }
}

fn options_with(budgets: &FrameBudgets) -> SessionOptions {
    SessionOptions {
        frame_budgets: budgets.clone(),
        ..SessionOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_peer_gets_the_room_that_a_stalled_one_holds() {
    // Goal: all room is held by peers that stall in a long frame. Each gives it back at its deadline, with
    // its connection, and a peer that waited for it sends its long blocks.
    let (here, writer, there, reader) = writer_and_reader(&vec![vec![1; 1_000_000].into(); 5]);
    let budgets = FrameBudgets::new(0);
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(stalls_in_a_long_frame(&there, &reader, &budgets).await);
    }
    assert!(budgets.incoming.held() >= 16 << 20);
    let all = reader.download_all();
    let (ours, theirs) = duplex(100_000);
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let options = options_with(&budgets);
    let _honest = (
        Session::spawn(ours, here, options.clone()),
        Session::spawn(theirs, there, options),
    );
    timeout(Duration::from_secs(200), all.caught_up())
        .await
        .expect("each stalled one has less than half a minute")
        .unwrap();
    assert_complete_copy(&writer, &reader);
    for (session, _) in &stalled {
        match within(session.closed()).await {
            Err(SessionError::Stream(error)) => {
                assert!(
                    matches!(*error, StreamError::FrameTimeout { .. }),
                    "{error}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    // The last block may be here before the session has seen that it was worked off, aside.
    within(async {
        while budgets.held() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_long_blocks_that_stops_reading_gives_its_room_back() {
    // Goal: one that asks for a block of 15 MiB and takes a byte a second of it holds up nobody for long.
    let long = vec![2; 15 << 20];
    let (here, writer, there, reader) = writer_and_reader(&[long.into()]);
    let budgets = FrameBudgets::new(0);
    let (ours, theirs) = duplex(1000);
    let (slow, fast) = tokio::io::split(theirs);
    let theirs = Trickle {
        reader: slow,
        writer: fast,
        is_slow: Arc::default(),
        next: Box::pin(tokio::time::sleep(Duration::ZERO)),
    };
    let is_slow = Arc::clone(&theirs.is_slow);
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let options = options_with(&budgets);
    let held_up = Session::spawn(ours, here.clone(), options.clone());
    let other_options = SessionOptions::default();
    let _slow = Session::spawn(theirs, there, other_options);
    within(reader.update()).await.unwrap();
    is_slow.store(true, Ordering::SeqCst);
    let _want = reader.download(0..1);
    within(async {
        while budgets.outgoing.held() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let third = Corestore::memory();
    let honest = third.get(&writer.key()).unwrap();
    let all = honest.download_all();
    let (ours, theirs) = duplex(100_000);
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let _honest = (
        Session::spawn(ours, here, options.clone()),
        Session::spawn(theirs, third, options),
    );
    within(all.caught_up()).await.unwrap();
    match within(held_up.closed()).await {
        Err(SessionError::Stream(error)) => {
            assert!(
                matches!(*error, StreamError::FrameTimeout { .. }),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// A stream from which, once asked to, a byte a second is read.
struct Trickle {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    is_slow: Arc<AtomicBool>,
    next: Pin<Box<tokio::time::Sleep>>,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_slow.load(Ordering::SeqCst) {
            return Pin::new(&mut self.reader).poll_read(context, buffer);
        }
        ready!(self.next.as_mut().poll(context));
        let mut one = [0];
        let mut byte = ReadBuf::new(&mut one);
        ready!(Pin::new(&mut self.reader).poll_read(context, &mut byte))?;
        buffer.put_slice(byte.filled());
        let soon = tokio::time::Instant::now() + Duration::from_secs(1);
        self.next.as_mut().reset(soon);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}
