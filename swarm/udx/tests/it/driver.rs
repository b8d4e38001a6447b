//! The driver on loopback: two endpoints of our own.

use std::time::Duration;

use bytes::Bytes;
use ferrocore_udx::limits::DATAGRAMS_MAX;
use ferrocore_udx::socket::{Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::{CloseReason, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Two connected streams on two endpoints.
async fn pair(id: u32) -> ((UdxSocket, UdxStream), (UdxSocket, UdxStream)) {
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, socket_b) = (bind(&a), bind(&b));
    let stream_a = a.create_stream(id, Config::default()).unwrap();
    let stream_b = b.create_stream(id + 1, Config::default()).unwrap();
    stream_a
        .connect(&socket_a, id + 1, socket_b.local_addr())
        .unwrap();
    stream_b
        .connect(&socket_b, id, socket_a.local_addr())
        .unwrap();
    ((socket_a, stream_a), (socket_b, stream_b))
}

fn bind(udx: &Udx) -> UdxSocket {
    udx.bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| ((index * 31) >> 3) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_cross_both_ways_at_once() {
    let ((_sa, a), (_sb, b)) = pair(1).await;
    let work = |stream: UdxStream| async move {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            writer.write_all(&pattern(10_000_000)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        writing.await.unwrap();
        assert!(read == pattern(10_000_000), "the bytes differ");
    };
    let (a, b) = (tokio::spawn(work(a)), tokio::spawn(work(b)));
    within(a).await.unwrap();
    within(b).await.unwrap();
}

#[tokio::test]
async fn plain_datagrams_pass_beside_streams() {
    let ((socket_a, mut a), (socket_b, mut b)) = pair(1).await;
    a.write_all(b"stream").await.unwrap();
    socket_a
        .send_to(b"\x03 query", socket_b.local_addr(), None)
        .await
        .unwrap();
    socket_a
        .send_to(b"\0", socket_b.local_addr(), Some(5))
        .await
        .unwrap();
    let first = within(socket_b.recv_from()).await.unwrap();
    assert_eq!(
        (&first.data[..], first.from),
        (&b"\x03 query"[..], socket_a.local_addr())
    );
    assert_eq!(within(socket_b.recv_from()).await.unwrap().data, "\0");
    let mut read = [0; 6];
    within(b.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"stream");
    assert!(socket_a.stats().datagrams_sent >= 3);
}

#[tokio::test]
async fn packets_of_unknown_streams_are_plain_datagrams() {
    let udx = Udx::new();
    let socket = bind(&udx);
    let packet = [&[0xff, 1, 1, 0, 9, 9, 9, 9][..], &[0; 12], b"x"].concat();
    socket
        .send_to(&packet, socket.local_addr(), None)
        .await
        .unwrap();
    assert_eq!(within(socket.recv_from()).await.unwrap().data, packet);
}

#[tokio::test]
async fn a_listening_stream_connects_to_whoever_sends_first() {
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, socket_b) = (bind(&a), bind(&b));
    let mut server = b.create_stream(8, Config::default()).unwrap();
    server.listen(7);
    let mut client = a.create_stream(7, Config::default()).unwrap();
    client.connect(&socket_a, 8, socket_b.local_addr()).unwrap();
    client.write_all(b"hello").await.unwrap();
    assert_eq!(
        within(server.connected()).await.unwrap(),
        socket_a.local_addr()
    );
    let mut read = [0; 5];
    within(server.read_exact(&mut read)).await.unwrap();
    server.write_all(b"world").await.unwrap();
    within(client.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"world");
}

/// Goal: a peer's first packets may come before it is known who it is, and are not waited for again. Method: they are here before
/// the stream listens; it is connected at once, not when they are repeated a second later.
#[tokio::test]
async fn who_comes_before_a_stream_listens_is_connected_at_once() {
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, socket_b) = (bind(&a), bind(&b));
    let mut server = b.create_stream(8, Config::default()).unwrap();
    let mut client = a.create_stream(7, Config::default()).unwrap();
    client.connect(&socket_a, 8, socket_b.local_addr()).unwrap();
    client.write_all(b"hello").await.unwrap();
    let is_here = async {
        while server.stats().packets_received == 0 {
            tokio::task::yield_now().await;
        }
    };
    within(is_here).await;
    assert_eq!(server.remote(), None);
    server.listen(7);
    assert_eq!(server.remote(), Some((socket_a.local_addr(), 7)));
    let mut read = [0; 5];
    within(server.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"hello");
    within(client.acked()).await.unwrap();
}

#[tokio::test]
async fn messages_cross_and_long_ones_are_refused() {
    let ((_sa, a), (_sb, b)) = pair(1).await;
    a.send_message(Bytes::from_static(b"one")).unwrap();
    a.send_message(Bytes::from_static(b"")).unwrap();
    assert_eq!(within(b.recv_message()).await.unwrap(), "one");
    assert_eq!(within(b.recv_message()).await.unwrap(), "");
    a.send_message(Bytes::from(vec![0; 2000])).unwrap_err();
}

#[tokio::test]
async fn a_dropped_stream_resets_its_peer_and_a_shut_one_delivers() {
    let ((_sa, a), (_sb, mut b)) = pair(1).await;
    drop(a);
    let error = within(b.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let ((_sa, mut a), (_sb, mut b)) = pair(5).await;
    a.write_all(&pattern(300_000)).await.unwrap();
    let _ = timeout(Duration::ZERO, a.shutdown()).await; // begun, not waited for
    drop(a);
    let mut read = Vec::new();
    within(b.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, pattern(300_000));
    within(b.shutdown()).await.unwrap();
    assert_eq!(
        within(b.closed()).await,
        None,
        "to end what the other side has ended is no error"
    );
}

#[tokio::test]
async fn both_ends_close_a_stream_and_free_everything() {
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, socket_b) = (bind(&a), bind(&b));
    let mut one = a.create_stream(1, Config::default()).unwrap();
    let mut two = b.create_stream(2, Config::default()).unwrap();
    one.connect(&socket_a, 2, socket_b.local_addr()).unwrap();
    two.connect(&socket_b, 1, socket_a.local_addr()).unwrap();
    one.write_all(b"bye").await.unwrap();
    within(one.shutdown()).await.unwrap();
    let mut read = Vec::new();
    within(two.read_to_end(&mut read)).await.unwrap();
    within(two.shutdown()).await.unwrap();
    assert_eq!(within(one.closed()).await, None);
    assert_eq!(within(two.closed()).await, None);
    drop((one, two));
    let address = socket_a.local_addr();
    within(socket_a.close()).await;
    within(socket_b.close()).await;
    assert_eq!((a.stream_count(), b.stream_count()), (0, 0));
    a.bind(address).expect("the port is free again");
}

#[tokio::test]
async fn closing_the_socket_ends_its_streams() {
    let ((socket_a, mut a), (_sb, mut b)) = pair(1).await;
    a.write_all(b"x").await.unwrap();
    within(b.read_u8()).await.unwrap();
    within(socket_a.close()).await;
    assert_eq!(within(a.closed()).await, Some(CloseReason::SocketClosed));
    assert_eq!(within(b.closed()).await, Some(CloseReason::ResetByPeer));
}

#[tokio::test]
async fn a_closed_socket_takes_no_streams_and_tells_its_receivers() {
    let udx = Udx::new();
    let socket = bind(&udx);
    let (clone, address) = (socket.clone(), socket.local_addr());
    within(socket.close()).await;
    let stream = udx.create_stream(1, Config::default()).unwrap();
    let refused = stream.connect(&clone, 2, address).unwrap_err();
    assert_eq!(refused, CloseReason::SocketClosed.into());
    within(clone.recv_from()).await.unwrap_err();
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_dropped_and_counted() {
    let (a, b) = (Udx::new(), Udx::new());
    let (sender, receiver) = (bind(&a), bind(&b));
    let mut sent = 0u64;
    // The kernel may drop some: go on until the queue has overflowed.
    within(async {
        while receiver.stats().datagrams_dropped == 0 {
            sender
                .send_to(b"flood", receiver.local_addr(), None)
                .await
                .unwrap();
            sent += 1;
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(sent > DATAGRAMS_MAX as u64);
    for _ in 0..DATAGRAMS_MAX {
        within(receiver.recv_from()).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_moves_to_another_socket_in_mid_transfer() {
    let (a, b) = (Udx::new(), Udx::new());
    let (first, second, socket_b) = (bind(&a), bind(&a), bind(&b));
    let mut one = a.create_stream(1, Config::default()).unwrap();
    let mut two = b.create_stream(2, Config::default()).unwrap();
    one.connect(&first, 2, socket_b.local_addr()).unwrap();
    two.connect(&socket_b, 1, first.local_addr()).unwrap();
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        two.read_to_end(&mut read).await.unwrap();
        (two, read)
    });
    one.write_all(&pattern(1_000_000)).await.unwrap();
    one.change_remote(&second, 2, socket_b.local_addr())
        .unwrap();
    one.write_all(&pattern(1_000_000)).await.unwrap();
    within(one.moved()).await.unwrap();
    within(one.shutdown()).await.unwrap();
    let (two, read) = within(reading).await.unwrap();
    assert_eq!(read, [pattern(1_000_000), pattern(1_000_000)].concat());
    let path = within(two.other_path()).await.unwrap();
    assert_eq!(path.remote, second.local_addr());
}

#[tokio::test]
async fn a_path_that_was_seen_is_news_again_after_a_change() {
    // Goal: who goes over to a path, finds nobody, and comes back, is told of a peer that speaks by it later. Method: the path is
    // seen before the change; nothing else comes in between.
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, first, second) = (bind(&a), bind(&b), bind(&b));
    let one = a.create_stream(1, Config::default()).unwrap();
    let two = b.create_stream(2, Config::default()).unwrap();
    let (old, new) = (first.local_addr(), second.local_addr());
    one.connect(&socket_a, 2, old).unwrap();
    two.connect(&second, 1, socket_a.local_addr()).unwrap();
    for to in [Some(new), None] {
        two.send_message(Bytes::new()).unwrap();
        assert_eq!(within(one.other_path()).await.unwrap().remote, new);
        for to in to.into_iter().chain([old]) {
            one.change_remote(&socket_a, 2, to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_relay_joins_two_streams() {
    let (relay, a, b) = (Udx::new(), Udx::new(), Udx::new());
    let (middle, socket_a, socket_b) = (bind(&relay), bind(&a), bind(&b));
    let left = relay.create_stream(100, Config::default()).unwrap();
    let right = relay.create_stream(200, Config::default()).unwrap();
    left.listen(1);
    right.listen(2);
    left.relay_to(&right);
    right.relay_to(&left);
    let mut one = a.create_stream(1, Config::default()).unwrap();
    let mut two = b.create_stream(2, Config::default()).unwrap();
    one.connect(&socket_a, 100, middle.local_addr()).unwrap();
    two.connect(&socket_b, 200, middle.local_addr()).unwrap();
    let (sent, writing) = (pattern(500_000), pattern(500_000));
    let writer = tokio::spawn(async move {
        one.write_all(&writing).await.unwrap();
        one
    });
    two.write_all(b"x").await.unwrap();
    let mut read = vec![0; sent.len()];
    within(two.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, sent);
    let one = within(writer).await.unwrap();
    one.destroy();
    assert_eq!(within(two.closed()).await, Some(CloseReason::ResetByPeer));
    assert_eq!(within(left.closed()).await, Some(CloseReason::ResetByPeer));
}

/// Two streams that a relay has joined, of which both have said something.
struct Joined {
    middle: UdxSocket,
    relayed: [UdxStream; 2],
    sockets: [UdxSocket; 2],
    ends: [UdxStream; 2],
}

async fn joined() -> Joined {
    let (relay, a, b) = (Udx::new(), Udx::new(), Udx::new());
    let (middle, sockets) = (bind(&relay), [bind(&a), bind(&b)]);
    let relayed = [100, 200].map(|id| relay.create_stream(id, Config::default()).unwrap());
    let [left, right] = &relayed;
    left.listen(1);
    right.listen(2);
    left.relay_to(right);
    right.relay_to(left);
    let mut one = a.create_stream(1, Config::default()).unwrap();
    let mut two = b.create_stream(2, Config::default()).unwrap();
    one.connect(&sockets[0], 100, middle.local_addr()).unwrap();
    two.connect(&sockets[1], 200, middle.local_addr()).unwrap();
    let mut word = [0; 5];
    one.write_all(b"hello").await.unwrap();
    two.write_all(b"there").await.unwrap();
    within(one.read_exact(&mut word)).await.unwrap();
    within(two.read_exact(&mut word)).await.unwrap();
    Joined {
        middle,
        relayed,
        sockets,
        ends: [one, two],
    }
}

/// Goal: the peers of a relay that goes away need not find that out by its silence. Method: it closes its socket; what they hear
/// counts as the other's next packet.
#[tokio::test]
async fn a_relay_that_closes_tells_its_peers() {
    let joined = joined().await;
    within(joined.middle.close()).await;
    for end in joined.ends {
        assert_eq!(within(end.closed()).await, Some(CloseReason::ResetByPeer));
    }
}

/// Goal: a relay that lets go of two streams ends neither: they may have found another path just now, and have said nothing there
/// yet. Method: they go over to it after that, and bytes cross.
#[tokio::test]
async fn a_relay_that_lets_go_tells_nobody() {
    let joined = joined().await;
    for stream in &joined.relayed {
        stream.destroy();
        assert_eq!(within(stream.closed()).await, Some(CloseReason::Destroyed));
    }
    let ([at_one, at_two], [mut one, mut two]) = (joined.sockets, joined.ends);
    one.change_remote(&at_one, 2, at_two.local_addr()).unwrap();
    two.change_remote(&at_two, 1, at_one.local_addr()).unwrap();
    let mut word = [0; 5];
    one.write_all(b"again").await.unwrap();
    within(two.read_exact(&mut word)).await.unwrap();
    two.write_all(&word).await.unwrap();
    within(one.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"again");
}

/// Returns once everything that had reached `socket` before was read from it: what is sent now comes out last. A full buffer drops
/// it, so it is sent until it comes.
async fn has_read_its_queue(socket: &UdxSocket) {
    let marker = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    loop {
        marker.send_to(b"last", socket.local_addr()).unwrap();
        if let Ok(datagram) = timeout(Duration::from_millis(50), socket.recv_from()).await {
            assert_eq!(datagram.unwrap().data, "last");
            return;
        }
    }
}

/// Goal: a stream that runs over a relay goes on over a direct path that opens later, and loses nothing. Method: both ends
/// write without a pause until both have moved, and then as much again; every byte is known by its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_stream_leaves_its_relay() {
    const AFTER: usize = 2_000_000;
    let (relay, a, b) = (Udx::new(), Udx::new(), Udx::new());
    let (middle, socket_a, socket_b) = (bind(&relay), bind(&a), bind(&b));
    let left = relay.create_stream(100, Config::default()).unwrap();
    let right = relay.create_stream(200, Config::default()).unwrap();
    left.listen(1);
    right.listen(2);
    left.relay_to(&right);
    right.relay_to(&left);
    let one = a.create_stream(1, Config::default()).unwrap();
    let two = b.create_stream(2, Config::default()).unwrap();
    one.connect(&socket_a, 100, middle.local_addr()).unwrap();
    two.connect(&socket_b, 200, middle.local_addr()).unwrap();
    let (at_one, at_two) = (one.handle(), two.handle());
    let (has_moved, moving) = tokio::sync::watch::channel(false);
    let work = |stream: UdxStream| {
        let moving = moving.clone();
        async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let writing = tokio::spawn(async move {
                let (chunk, mut after) = (pattern(8 * 1024), 0);
                while after < AFTER {
                    let counts = *moving.borrow();
                    writer.write_all(&chunk).await.unwrap();
                    after += if counts { chunk.len() } else { 0 };
                }
                writer.shutdown().await.unwrap();
            });
            let (mut read, chunk) = (vec![0; 8 * 1024], pattern(8 * 1024));
            while reader.read_exact(&mut read).await.is_ok() {
                assert!(read == chunk, "the bytes differ");
            }
            writing.await.unwrap();
        }
    };
    let (one, two) = (tokio::spawn(work(one)), tokio::spawn(work(two)));
    while left
        .stats()
        .bytes_received
        .min(right.stats().bytes_received)
        < 500_000
    {
        tokio::task::yield_now().await;
    }
    let direct = socket_b.local_addr();
    at_one.change_remote(&socket_a, 2, direct).unwrap();
    let path = within(at_two.other_path()).await.unwrap();
    assert_eq!(path.remote, socket_a.local_addr());
    at_two.change_remote(&socket_b, 1, path.remote).unwrap();
    within(at_one.heard()).await.unwrap();
    within(at_two.heard()).await.unwrap();
    within(at_one.moved()).await.unwrap();
    within(at_two.moved()).await.unwrap();
    within(has_read_its_queue(&middle)).await;
    let passed = || (left.stats().bytes_received + right.stats().bytes_received) as usize;
    let before = passed();
    has_moved.send_replace(true);
    within(one).await.unwrap();
    within(two).await.unwrap();
    let late = passed() - before;
    assert!(late < AFTER / 10, "{late} bytes still took the relay");
}

#[tokio::test]
async fn ipv4_is_reached_from_an_ipv6_socket() {
    let (a, b) = (Udx::new(), Udx::new());
    let Ok(socket_a) = a.bind("[::]:0".parse().unwrap()) else {
        eprintln!("no IPv6 here: skipped");
        return;
    };
    let socket_b = bind(&b);
    socket_a
        .send_to(b"hi", socket_b.local_addr(), None)
        .await
        .unwrap();
    let got = within(socket_b.recv_from()).await.unwrap();
    assert_eq!(got.data, "hi");
    socket_b.send_to(b"ho", got.from, None).await.unwrap();
    let back = within(socket_a.recv_from()).await.unwrap();
    assert_eq!(
        (&back.data[..], back.from),
        (&b"ho"[..], socket_b.local_addr())
    );
}

#[tokio::test]
async fn a_stream_that_never_connects_times_out_whenever_a_socket_comes_or_goes() {
    // The stream waits before the first socket, and the first socket closes before the deadline.
    let udx = Udx::new();
    let mut config = Config::default();
    config.idle_timeout = Some(Duration::from_millis(300));
    let early = udx.create_stream(1, config.clone()).unwrap();
    let (first, second) = (bind(&udx), bind(&udx));
    let late = udx.create_stream(2, config).unwrap();
    late.listen(9);
    let patient = udx.create_stream(3, Config::default()).unwrap();
    patient.set_idle_timeout(Some(Duration::from_millis(300)));
    within(first.close()).await;
    for stream in [early, late, patient] {
        assert_eq!(within(stream.closed()).await, Some(CloseReason::TimedOut));
    }
    assert_eq!(udx.stream_count(), 0);
    drop(second);
}

#[tokio::test]
async fn a_stream_outlives_the_socket_it_has_moved_from() {
    // Goal: nothing of the stream stands in line at the socket that closes. Method: move and close at once.
    for round in 0..20 {
        let (a, b) = (Udx::new(), Udx::new());
        let (first, second, socket_b) = (bind(&a), bind(&a), bind(&b));
        let mut one = a.create_stream(1, Config::default()).unwrap();
        let mut two = b.create_stream(2, Config::default()).unwrap();
        one.connect(&first, 2, socket_b.local_addr()).unwrap();
        two.connect(&socket_b, 1, first.local_addr()).unwrap();
        one.write_all(&pattern(20_000 * round)).await.unwrap();
        one.change_remote(&second, 2, socket_b.local_addr())
            .unwrap();
        two.change_remote(&socket_b, 1, second.local_addr())
            .unwrap();
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            two.read_to_end(&mut read).await.unwrap();
            read
        });
        within(first.close()).await;
        within(one.shutdown()).await.unwrap();
        assert!(within(reading).await.unwrap() == pattern(20_000 * round));
    }
}

#[tokio::test]
async fn a_relay_counts_what_it_passes_on_and_closes_when_its_peers_are_silent() {
    let (relay, a, b) = (Udx::new(), Udx::new(), Udx::new());
    let (middle, socket_a, socket_b) = (bind(&relay), bind(&a), bind(&b));
    let left = relay.create_stream(100, Config::default()).unwrap();
    let right = relay.create_stream(200, Config::default()).unwrap();
    left.listen(1);
    right.listen(2);
    left.relay_to(&right);
    right.relay_to(&left);
    let one = a.create_stream(1, Config::default()).unwrap();
    let two = b.create_stream(2, Config::default()).unwrap();
    one.connect(&socket_a, 100, middle.local_addr()).unwrap();
    two.connect(&socket_b, 200, middle.local_addr()).unwrap();
    one.send_message(Bytes::from_static(b"through")).unwrap();
    let is_heard = async {
        while left.stats().packets_received == 0 {
            tokio::task::yield_now().await; // the relay counts it, so it counts as heard
        }
    };
    within(is_heard).await;
    // Not before: a machine that stands still for a second would make it be silence.
    for stream in [&left, &right] {
        stream.set_idle_timeout(Some(Duration::from_secs(1)));
    }
    assert_eq!(within(left.closed()).await, Some(CloseReason::TimedOut));
    assert_eq!(within(right.closed()).await, Some(CloseReason::TimedOut));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_datagrams_pass_in_one_call_where_the_system_can() {
    let ((socket_a, mut a), (socket_b, mut b)) = pair(1).await;
    if socket_a.segments_max() == 1 {
        eprintln!("no segmentation offload here: skipped");
        return;
    }
    let writing = tokio::spawn(async move {
        a.write_all(&pattern(20_000_000)).await.unwrap();
        a.shutdown().await.unwrap();
    });
    let mut read = Vec::new();
    within(b.read_to_end(&mut read)).await.unwrap();
    within(writing).await.unwrap();
    let (sender, receiver) = (socket_a.stats(), socket_b.stats());
    assert!(sender.datagrams_sent > 4 * sender.sends, "{sender:?}");
    assert!(
        receiver.datagrams_received > 4 * receiver.receives,
        "{receiver:?}"
    );
}

#[tokio::test]
async fn a_datagram_can_be_sent_as_soon_as_the_socket_is_bound() {
    // Goal: punches and pings, which nobody repeats at once, leave. Method: nothing is awaited in between.
    let udx = Udx::new();
    let address = "127.0.0.1:0".parse().unwrap();
    let receiver = udx.bind(address).unwrap();
    let sender = udx.bind(address).unwrap();
    sender
        .try_send_to(b"at once", receiver.local_addr(), None)
        .unwrap();
    sender
        .try_send_to(b"near", receiver.local_addr(), Some(5))
        .unwrap();
    assert_eq!(receiver.recv_from().await.unwrap().data, "at once");
    assert_eq!(receiver.recv_from().await.unwrap().data, "near");
}
