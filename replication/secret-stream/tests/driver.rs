//! Two ends over an in-memory pipe, on virtual time, and ends that do not play by the rules.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_secret_stream::budget::FREE_FRAME_LEN;
use ferrocore_secret_stream::{
    Arrivals, FRAME_BYTES_A_SECOND, FRAME_LEN_MAX, FRAME_TIMEOUT, FrameBudget, HANDSHAKE_TIMEOUT,
    HandshakeError, KEEP_ALIVE, Options, Receiver, Role, SecretStream, Sender, StreamError,
    WRITE_TIMEOUT,
};
use proptest::prelude::*;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    duplex,
};
use tokio::time::{Instant, sleep, timeout};

type Stream = SecretStream<DuplexStream>;
type Ends = (
    Sender<WriteHalf<DuplexStream>>,
    Receiver<ReadHalf<DuplexStream>>,
);

async fn start(io: DuplexStream, role: Role, options: Options) -> Result<Stream, StreamError> {
    SecretStream::handshake(io, role, &KeyPair::generate(), options).await
}

/// Both ends over a pipe that holds `pipe_len` bytes, the initiator's first.
async fn pair(pipe_len: usize, options: Options) -> (Stream, Stream) {
    let (a, b) = duplex(pipe_len);
    tokio::try_join!(
        start(a, Role::Initiator, options),
        start(b, Role::Responder, options)
    )
    .unwrap()
}

async fn split_pair(pipe_len: usize, options: Options) -> (Ends, Ends) {
    let (a, b) = pair(pipe_len, options).await;
    (a.split(), b.split())
}

/// The error of a handshake, as `role`, with a peer that `act` plays.
async fn error_of<F: Future>(role: Role, act: impl FnOnce(DuplexStream) -> F) -> StreamError {
    let (ours, theirs) = duplex(1 << 16);
    let (result, _) = tokio::join!(start(ours, role, Options::default()), act(theirs));
    result.unwrap_err()
}

/// A stream that reads and writes one byte at a time.
struct OneByte(DuplexStream);

impl AsyncRead for OneByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut small = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut small))?;
        buf.put_slice(small.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OneByte {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn both_ends_know_each_other() {
    let keys = [KeyPair::generate(), KeyPair::generate()];
    let (a, b) = duplex(1024);
    let (a, b) = tokio::try_join!(
        SecretStream::handshake(a, Role::Initiator, &keys[0], Options::default()),
        SecretStream::handshake(b, Role::Responder, &keys[1], Options::default()),
    )
    .unwrap();
    assert_eq!(a.remote_public_key(), keys[1].public_key());
    assert_eq!(b.remote_public_key(), keys[0].public_key());
    assert_eq!(a.handshake_hash(), b.handshake_hash());
    assert!(a.is_initiator() && !b.is_initiator());
}

#[tokio::test(start_paused = true)]
async fn one_byte_at_a_time_is_enough() {
    // Every read and every write moves one byte: no step may assume more.
    let (a, b) = duplex(1024);
    let keys = KeyPair::generate();
    let (a, b) = tokio::try_join!(
        SecretStream::handshake(OneByte(a), Role::Initiator, &keys, Options::default()),
        SecretStream::handshake(OneByte(b), Role::Responder, &keys, Options::default()),
    )
    .unwrap();
    let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
    sender.send(&[b"hello, ", b"world ."]).await.unwrap();
    sender.close().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "hello, world .");
    assert_eq!(receiver.recv().await.unwrap(), None);
    assert_eq!(receiver.recv().await.unwrap(), None, "it stays ended");
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_a_flush_or_a_full_buffer() {
    let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 20, Options::default()).await;
    let wait = Duration::from_secs(1);
    sender.send(&[b"message"]).await.unwrap();
    let early = timeout(wait, receiver.recv()).await;
    assert!(early.is_err(), "still in the buffer");
    sender.flush().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "message");

    let block = Bytes::from(vec![1; 100_000]);
    for _ in 0..4 {
        sender.send(&[&block]).await.unwrap();
    }
    assert_eq!(receiver.recv().await.unwrap().unwrap(), block);
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_lose_nothing() {
    // Every call is dropped at its first wait, over a pipe that makes it wait all the time.
    let ((mut sender, _a), (_b, mut receiver)) = split_pair(64, Options::default()).await;
    let message = Bytes::from(vec![7; 1000]);
    sender.send(&[&message]).await.unwrap();
    let mut flushed = false;
    let mut received = None;
    while received.is_none() {
        tokio::select! {
            biased;
            result = sender.flush(), if !flushed => { result.unwrap(); flushed = true; }
            () = tokio::task::yield_now() => {}
        }
        tokio::select! {
            biased;
            result = receiver.recv() => received = result.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(received.unwrap(), message);
}

#[tokio::test(start_paused = true)]
async fn a_silent_sender_keeps_the_stream_alive() {
    let options = Options {
        idle_timeout: Some(2 * KEEP_ALIVE),
        ..Options::default()
    };
    let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 16, options).await;
    let kept = async {
        tokio::select! {
            result = receiver.recv() => panic!("{result:?}"),
            result = sender.keep_alive() => panic!("{result:?}"),
            () = sleep(100 * KEEP_ALIVE) => {}
        }
    };
    kept.await;
    // Without keepalives the receiver gives up, exactly at its timeout after the last one.
    let start = Instant::now();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, StreamError::IdleTimeout));
    assert!(start.elapsed() <= 2 * KEEP_ALIVE);
}

/// Goal: a frame that comes a byte a second, or stops in its midst, ends the stream, whatever the peer's other deadlines; one
/// that nobody listened for meanwhile does not. Method: virtual time, and a wire that the peer writes itself.
#[tokio::test(start_paused = true)]
async fn a_frame_has_a_deadline_from_its_first_byte() {
    for trickles in [true, false] {
        for frame_len in [40_u32, 100_000] {
            let options = Options {
                idle_timeout: Some(10 * FRAME_TIMEOUT),
                ..Options::default()
            };
            let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 20, options).await;
            sender.send(&[b"first"]).await.unwrap();
            sender.flush().await.unwrap();
            assert_eq!(receiver.recv().await.unwrap().unwrap(), "first");
            let mut wire = sender.into_inner();
            let start = Instant::now();
            wire.write_all(&frame_len.to_le_bytes()[..3]).await.unwrap();
            let trickle = async {
                loop {
                    sleep(Duration::from_secs(2)).await;
                    if trickles {
                        wire.write_all(&[7]).await.unwrap();
                    }
                }
            };
            let error = tokio::select! {
                error = receiver.recv() => error.unwrap_err(),
                () = trickle => unreachable!(),
            };
            assert!(matches!(error, StreamError::FrameTimeout { .. }), "{error}");
            let seconds = u64::from(frame_len).div_ceil(FRAME_BYTES_A_SECOND as u64);
            let most = FRAME_TIMEOUT + Duration::from_secs(seconds);
            assert!(start.elapsed() <= most + Duration::from_secs(2));
        }
    }

    let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 20, Options::default()).await;
    sender.send(&[b"first"]).await.unwrap();
    sender.send(&[[1; 50_000]]).await.unwrap();
    sender.flush().await.unwrap();
    receiver.recv().await.unwrap();
    for _ in 0..10 {
        let read = timeout(Duration::ZERO, receiver.recv()).await;
        if let Ok(message) = read {
            assert_eq!(message.unwrap().unwrap().len(), 50_000);
            return;
        }
        sleep(10 * FRAME_TIMEOUT).await;
    }
    panic!("it did not come");
}

/// Goal: whoever waits for what stands behind a frame knows that it is arriving, and until when it was; short messages that come at
/// once, and silence, tell nothing of that. Method: virtual time, and a wire that the peer writes itself.
#[tokio::test(start_paused = true)]
async fn what_is_arriving_is_told() {
    const SECONDS: u64 = 10;
    for frame_len in [FREE_FRAME_LEN, FREE_FRAME_LEN + 1] {
        let is_long = frame_len > FREE_FRAME_LEN;
        let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 20, Options::default()).await;
        sender.send(&[b"first"]).await.unwrap();
        sender.flush().await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "first");
        assert_eq!(receiver.arrivals(), Arrivals::default());
        let mut wire = sender.into_inner();
        let prefix = u32::try_from(frame_len).unwrap().to_le_bytes();
        wire.write_all(&prefix[..3]).await.unwrap();
        let start = Instant::now();
        let trickle = async {
            for _ in 0..SECONDS {
                sleep(Duration::from_secs(1)).await;
                wire.write_all(&[7; 1000]).await.unwrap();
            }
            sleep(Duration::from_secs(20)).await;
        };
        tokio::select! {
            message = receiver.recv() => panic!("{message:?}"),
            () = trickle => {}
        }
        let last = start + Duration::from_secs(SECONDS);
        let arrivals = receiver.arrivals();
        assert_eq!(arrivals.any, Some(last));
        assert_eq!(arrivals.long, is_long.then_some(last));
        let counted = if is_long { SECONDS * 1000 + 3 } else { 0 };
        assert_eq!(receiver.long_bytes().load(Ordering::Relaxed), counted);
    }
}

/// Goal: a frame that needs no room any more, as buffers became longer, leaves its place to others. Method: virtual time; somebody
/// else has all the room at first.
#[tokio::test(start_paused = true)]
async fn who_needs_no_room_any_more_waits_for_none() {
    let budget = FrameBudget::new(0);
    let taken = budget.room(FRAME_LEN_MAX).await.unwrap();
    let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 20, Options::default()).await;
    receiver.set_frame_budget(budget.clone());
    receiver.set_buffers(1024, 2048);
    sender.send(&[vec![1; 50_000]]).await.unwrap();
    sender.flush().await.unwrap();
    let early = timeout(Duration::from_secs(1), receiver.recv()).await;
    assert!(early.is_err() && budget.is_crowded());
    receiver.set_buffers(1024, FREE_FRAME_LEN);
    receiver.recv().await.unwrap().unwrap();
    assert!(!budget.is_crowded());
    drop(taken);
    assert_eq!(budget.held(), 0);
}

/// Goal: as long as a frame waited for room nobody listened, and that is not the peer's silence, be it that no room is needed at last.
/// Method: the rest of the frame comes half a minute after that.
#[tokio::test(start_paused = true)]
async fn who_needs_no_room_any_more_begins_to_listen() {
    const IDLE: Duration = Duration::from_secs(30);
    let budget = FrameBudget::new(0);
    let _taken = budget.room(FRAME_LEN_MAX).await.unwrap();
    let (a, mut b) = pair(1 << 20, Options::default()).await;
    b.set_idle_timeout(Some(IDLE));
    let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
    receiver.set_frame_budget(budget.clone());
    receiver.set_buffers(1024, 2048);
    sender.send(&[b"first"]).await.unwrap();
    sender.flush().await.unwrap();
    receiver.recv().await.unwrap().unwrap();
    let mut io = sender.into_inner();
    io.write_all(&[0x50, 0xc3, 0, 7]).await.unwrap();
    let early = timeout(IDLE + IDLE, receiver.recv()).await;
    assert!(early.is_err() && budget.is_crowded());
    receiver.set_buffers(1024, FREE_FRAME_LEN);
    let early = timeout(IDLE / 2, receiver.recv()).await;
    assert!(early.is_err(), "{early:?}");
    let late = receiver.recv().await.unwrap_err();
    assert!(matches!(late, StreamError::IdleTimeout), "{late}");
}

/// Goal: time in which a long frame waits for memory here is not the peer's. Method: virtual time; somebody else has all the room.
#[tokio::test(start_paused = true)]
async fn what_waits_for_room_is_arriving() {
    let budget = FrameBudget::new(0);
    let taken = budget.room(FRAME_LEN_MAX).await.unwrap();
    let ((mut sender, _a), (_b, mut receiver)) = split_pair(1 << 20, Options::default()).await;
    receiver.set_frame_budget(budget.clone());
    sender.send(&[vec![1; 2 * FREE_FRAME_LEN]]).await.unwrap();
    sender.flush().await.unwrap();
    let early = timeout(Duration::from_secs(100), receiver.recv()).await;
    assert!(early.is_err(), "there is no room");
    let now = Some(Instant::now());
    assert_eq!(
        receiver.arrivals(),
        Arrivals {
            any: now,
            long: now
        }
    );
    drop(taken);
    sleep(Duration::from_secs(5)).await;
    let granted = Some(Instant::now());
    receiver.recv().await.unwrap().unwrap();
    let late = receiver.arrivals();
    assert_eq!((late.any, late.long), (granted, granted));
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_is_an_empty_message_after_the_interval() {
    let (a, b) = pair(1 << 16, Options::default()).await;
    // The initiator's end without decryption. The responder's header is still on its way to it.
    let mut raw = None;
    a.split_with(|io| (raw = Some(io), ()));
    let mut raw = raw.unwrap();
    raw.read_exact(&mut [0; 3 + 56]).await.unwrap();

    let (mut sender, _receiver) = b.split();
    let start = Instant::now();
    for n in 1..4 {
        let mut frame = [0; 3 + 17];
        tokio::select! {
            result = sender.keep_alive() => panic!("{result:?}"),
            result = raw.read_exact(&mut frame) => { result.unwrap(); }
        }
        assert_eq!(frame[..3], [17, 0, 0]);
        let (elapsed, latest) = (start.elapsed(), n * KEEP_ALIVE + Duration::from_millis(1));
        assert!(elapsed <= latest, "{elapsed:?}");
        assert!(
            elapsed + KEEP_ALIVE / 16 + Duration::from_millis(3) >= latest,
            "{elapsed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_inside_a_frame_is_an_error() {
    let (a, b) = pair(1 << 16, Options::default()).await;
    let mut raw = None;
    a.split_with(|io| (raw = Some(io), ()));
    let (_sender, mut receiver) = b.split();
    raw.take().unwrap().write_all(&[17, 0]).await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, StreamError::UnexpectedEnd));
}

#[tokio::test(start_paused = true)]
async fn changed_bytes_on_the_wire_end_the_stream() {
    let (a, b) = pair(1 << 16, Options::default()).await;
    let mut raw = None;
    a.split_with(|io| (raw = Some(io), ()));
    let mut raw = raw.unwrap();
    let (_sender, mut receiver) = b.split();
    raw.write_all(&[20, 0, 0]).await.unwrap();
    raw.write_all(&[7; 20]).await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, StreamError::Forged));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_no_handshake() {
    // An HTTP client on our port: its first bytes announce a frame far too long.
    let http = async |mut io: DuplexStream| io.write_all(b"GET / HTTP/1.1").await.unwrap();
    let error = error_of(Role::Responder, http).await;
    assert!(matches!(error, StreamError::FrameTooLong { max: 512, .. }));

    let zeros = async |mut io: DuplexStream| io.write_all(&[0; 600]).await.unwrap();
    let error = error_of(Role::Responder, zeros).await;
    let expected = HandshakeError::Truncated;
    assert!(matches!(error, StreamError::Handshake(e) if e == expected));

    // A key of small order in the responder's place.
    let weak = async |mut io: DuplexStream| {
        io.write_all(&[96, 0, 0, 1]).await.unwrap();
        io.write_all(&[0; 95]).await.unwrap();
        io.read_exact(&mut [0; 3 + 32]).await.unwrap();
    };
    let error = error_of(Role::Initiator, weak).await;
    let expected = HandshakeError::UnusableKey;
    assert!(matches!(error, StreamError::Handshake(e) if e == expected));
}

#[tokio::test(start_paused = true)]
async fn a_truncated_handshake_is_an_error() {
    for len in [0, 2, 3, 30] {
        let cut = async |mut io: DuplexStream| {
            let message = [&[32, 0, 0][..], &[9; 32]].concat();
            io.write_all(&message[..len]).await.unwrap();
        };
        let error = error_of(Role::Responder, cut).await;
        assert!(matches!(error, StreamError::UnexpectedEnd), "after {len}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_ends_at_its_deadline() {
    for role in [Role::Initiator, Role::Responder] {
        let start = Instant::now();
        // A byte now and then must not put the deadline off.
        let trickle = async |mut io: DuplexStream| {
            for byte in [96, 0, 0, 1, 1, 1, 1, 1] {
                if io.write_all(&[byte]).await.is_err() {
                    break;
                }
                sleep(HANDSHAKE_TIMEOUT / 4).await;
            }
        };
        let error = error_of(role, trickle).await;
        assert!(matches!(error, StreamError::HandshakeTimeout));
        assert!(start.elapsed() >= HANDSHAKE_TIMEOUT);
        assert!(start.elapsed() < 2 * HANDSHAKE_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_never_comes_is_a_handshake_timeout() {
    // The responder finishes Noise, so its key is proven, and then falls silent.
    let start = Instant::now();
    let (a, _b) = pair(1 << 16, Options::default()).await;
    let (silent, _open) = duplex(1);
    let (_sender, mut receiver) = a.split_with(|_| ((), silent));
    let mut error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, StreamError::HandshakeTimeout));
    assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT);
    error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, StreamError::HandshakeTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    let ((mut sender, _), _peer) = split_pair(1000, Options::default()).await;
    sender.send(&[[1; 5000]]).await.unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        // An attempt that is cancelled must not put the deadline off.
        let attempt = timeout(WRITE_TIMEOUT / 4, sender.flush()).await;
        assert!(attempt.is_err());
    }
    let error = sender.flush().await.unwrap_err();
    assert!(matches!(error, StreamError::WriteTimeout));
    assert_eq!(start.elapsed(), WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_waited_for() {
    let (a, b) = pair(1000, Options::default()).await;
    let (mut sender, _receiver) = a.split();
    let mut raw = None;
    b.split_with(|io| (raw = Some(io), ()));
    let mut raw = raw.unwrap();
    let read_slowly = async {
        for _ in 0..8 {
            sleep(WRITE_TIMEOUT * 3 / 4).await;
            raw.read_exact(&mut [0; 500]).await.unwrap();
        }
    };
    sender.send(&[[1; 4000]]).await.unwrap();
    let (flushed, ()) = tokio::join!(sender.flush(), read_slowly);
    flushed.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Messages of any sizes, in any number of segments and flushes, arrive whole and in order in both
    /// directions at once, through a pipe of any capacity.
    #[test]
    fn messages_of_any_size_arrive(
        lens in prop::collection::vec(prop_oneof![4 => 1..300usize, 1 => 1..400_000usize], 1..20),
        cut in 0.0..1.0f64,
        flush_every in 1..8usize,
        pipe_len in prop_oneof![64..200usize, 1000..1_000_000usize],
    ) {
        let messages: Vec<Vec<u8>> = (0u8..).zip(&lens).map(|(fill, len)| vec![fill; *len]).collect();
        let send = async |mut sender: Sender<WriteHalf<DuplexStream>>| {
            for (n, message) in messages.iter().enumerate() {
                let (head, tail) = message.split_at((message.len() as f64 * cut) as usize);
                sender.send(&[head, tail]).await.unwrap();
                if n % flush_every == 0 {
                    sender.flush().await.unwrap();
                }
            }
            sender.flush().await.unwrap();
            sender
        };
        let recv = async |mut receiver: Receiver<ReadHalf<DuplexStream>>| {
            for message in &messages {
                let received = receiver.recv().await.unwrap().unwrap();
                assert!(received == message);
            }
            receiver
        };
        runtime().block_on(async {
            let ((a_send, a_recv), (b_send, b_recv)) = split_pair(pipe_len, Options::default()).await;
            tokio::join!(send(a_send), recv(b_recv), send(b_send), recv(a_recv))
        });
    }
}
