//! What streams do on a path that is well.

use std::time::Duration;

use bytes::Bytes;
use ferrocore_udx::socket::Udx;
use ferrocore_udx::stream::{CloseReason, Config};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::udx::ends::{
    Node, OURS, THEIRS, bind, bind_ours, connected, exchange, pattern, read_all, within, write_all,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_cross_each_way() {
    let (mut node, _udx, _socket, stream) = connected(Config::default());
    let handle = stream.handle();
    exchange(&mut node, stream, THEIRS, 100_000_000).await;
    assert_eq!(within(handle.closed()).await, None);
    assert_eq!(
        handle.stats().mtu,
        1500,
        "loopback carries the largest packet"
    );
    assert_eq!(node.peer.wait_event("closed")["stream"], THEIRS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_streams_share_two_sockets() {
    const COUNT: u32 = 50;
    const LEN: usize = 300_000;
    let mut node = Node::start();
    let udx = Udx::new();
    let socket = bind_ours(&udx);
    let port = socket.local_addr().port();
    let mut calls = Vec::new();
    let mut tasks = Vec::new();
    for index in 0..COUNT {
        let (ours, theirs) = (OURS + index, THEIRS + index);
        node.connect(theirs, ours, Some(port));
        let stream = udx.create_stream(ours, Config::default()).unwrap();
        stream.connect(&socket, theirs, node.address).unwrap();
        let read = node.peer.begin("read", json!({ "stream": theirs }));
        let write = json!({ "stream": theirs, "bytes": LEN, "seed": index });
        let write = node.peer.begin("write", write);
        let (reader, writer) = tokio::io::split(stream);
        tasks.push((
            tokio::spawn(read_all(reader)),
            tokio::spawn(write_all(writer, index + 100, LEN)),
        ));
        calls.push((theirs, read, write));
    }
    for ((theirs, read, write), (heard, ours)) in calls.into_iter().zip(tasks) {
        let sent = node.peer.finish(write);
        node.peer.call("end", json!({ "stream": theirs }));
        let read = node.peer.finish(read);
        let (count, hash) = within(heard).await.unwrap();
        assert_eq!((count, json!(hash)), (LEN as u64, sent["hash"].clone()));
        assert_eq!(
            read,
            json!({ "bytes": LEN, "hash": within(ours).await.unwrap() })
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_datagrams_pass_beside_the_stream() {
    let (mut node, _udx, socket, stream) = connected(Config::default());
    stream.send_message(Bytes::from_static(b"to node")).unwrap();
    let message = node.peer.wait_event("message");
    assert_eq!(
        (&message["stream"], &message["text"]),
        (&json!(THEIRS), &json!("to node"))
    );
    node.peer
        .call("message", json!({ "stream": THEIRS, "text": "from node" }));
    assert_eq!(within(stream.recv_message()).await.unwrap(), "from node");

    socket
        .send_to(b"plain", node.address, Some(3))
        .await
        .unwrap();
    let datagram = node.peer.wait_event("datagram");
    assert_eq!(
        (&datagram["text"], &datagram["port"]),
        (&json!("plain"), &json!(socket.local_addr().port()))
    );
    node.peer.call(
        "datagram",
        json!({ "port": socket.local_addr().port(), "text": "back" }),
    );
    let back = within(socket.recv_from()).await.unwrap();
    assert_eq!((&back.data[..], back.from), (&b"back"[..], node.address));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_ends_first_and_goes_on_reading() {
    for node_ends_first in [true, false] {
        let (mut node, _udx, _socket, stream) = connected(Config::default());
        let handle = stream.handle();
        let reading = node.peer.begin("read", json!({ "stream": THEIRS }));
        let (mut reader, writer) = tokio::io::split(stream);
        let write = json!({ "stream": THEIRS, "bytes": 100_000, "seed": 5 });
        if node_ends_first {
            let sent = node.peer.call("write", write)["hash"].clone();
            node.peer.call("end", json!({ "stream": THEIRS }));
            let (count, hash) = within(read_all(&mut reader)).await;
            assert_eq!((count, json!(hash)), (100_000, sent));
            let ours = within(write_all(writer, 6, 200_000)).await;
            assert_eq!(node.peer.finish(reading)["hash"], json!(ours));
        } else {
            let ours = within(write_all(writer, 6, 200_000)).await;
            assert_eq!(node.peer.finish(reading)["hash"], json!(ours));
            let sent = node.peer.call("write", write)["hash"].clone();
            node.peer.call("end", json!({ "stream": THEIRS }));
            let (count, hash) = within(read_all(&mut reader)).await;
            assert_eq!((count, json!(hash)), (100_000, sent));
        }
        assert_eq!(within(handle.closed()).await, None);
        node.peer.wait_event("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_seen_on_the_other_side() {
    let (mut node, udx, socket, mut stream) = connected(Config::default());
    stream.write_all(b"x").await.unwrap();
    within(stream.acked()).await.unwrap();
    node.peer.call("destroy", json!({ "stream": THEIRS }));
    assert_eq!(
        within(stream.closed()).await,
        Some(CloseReason::ResetByPeer)
    );

    node.connect(THEIRS + 1, OURS + 1, Some(socket.local_addr().port()));
    let stream = udx.create_stream(OURS + 1, Config::default()).unwrap();
    stream.connect(&socket, THEIRS + 1, node.address).unwrap();
    drop(stream);
    let failed = node.peer.wait_event("failed");
    assert_eq!(
        (&failed["stream"], &failed["code"]),
        (&json!(THEIRS + 1), &json!("ECONNRESET"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_times_out() {
    let mut config = Config::default();
    config.give_up_after = Duration::from_secs(2);
    let (node, _udx, _socket, mut stream) = connected(config);
    stream.write_all(b"x").await.unwrap();
    within(stream.acked()).await.unwrap();
    node.peer.kill();
    stream.write_all(b"anyone there").await.unwrap();
    assert_eq!(within(stream.closed()).await, Some(CloseReason::TimedOut));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_moves_between_sockets_in_mid_transfer() {
    // Ours moves while it sends, then Node's while it sends.
    let (mut node, udx, socket, mut stream) = connected(Config::default());
    let second = bind_ours(&udx);
    let reading = node.peer.begin("read", json!({ "stream": THEIRS }));
    let data = pattern(7, 0, 2_000_000);
    stream.write_all(&data[..1_000_000]).await.unwrap();
    stream.change_remote(&second, THEIRS, node.address).unwrap();
    stream.write_all(&data[1_000_000..]).await.unwrap();
    within(stream.moved()).await.unwrap();
    within(stream.shutdown()).await.unwrap();
    let hash = blake2b_simd::blake2b(&data).to_hex().to_string();
    assert_eq!(node.peer.finish(reading)["hash"], json!(hash));

    let moved_to = bind(&mut node.peer);
    let heard = tokio::spawn(read_all(stream));
    let write = |seed| json!({ "stream": THEIRS, "bytes": 1_000_000, "seed": seed });
    node.peer.call("write", write(0));
    let port = socket.local_addr().port();
    let moving = json!({ "stream": THEIRS, "socket": 1, "remote": OURS, "port": port });
    let moving = node.peer.begin("move", moving);
    node.peer.call("write", write(1));
    node.peer.call("end", json!({ "stream": THEIRS }));
    node.peer.finish(moving);
    let expected = [pattern(0, 0, 1_000_000), pattern(1, 0, 1_000_000)].concat();
    let hash = blake2b_simd::blake2b(&expected).to_hex().to_string();
    assert_eq!(within(heard).await.unwrap(), (2_000_000, hash));
    assert_ne!(moved_to, node.address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_relays_for_two_of_the_other() {
    // Two ends of ours through Node, then two of Node's through us.
    let mut relay = Node::start();
    let udx = Udx::new();
    let (left, right) = (bind_ours(&udx), bind_ours(&udx));
    relay.connect(100, OURS, None);
    relay.connect(200, OURS + 1, None);
    relay
        .peer
        .call("relay", json!({ "left": 100, "right": 200 }));
    let mut one = udx.create_stream(OURS, Config::default()).unwrap();
    let mut two = udx.create_stream(OURS + 1, Config::default()).unwrap();
    one.connect(&left, 100, relay.address).unwrap();
    two.connect(&right, 200, relay.address).unwrap();
    two.write_all(b"opens the way back").await.unwrap();
    let sent = tokio::spawn(async move { write_all(&mut one, 3, 500_000).await });
    let (count, hash) = within(read_all(&mut two)).await;
    assert_eq!((count, hash), (500_000, within(sent).await.unwrap()));

    let relay = Udx::new();
    let middle = bind_ours(&relay);
    let left = relay.create_stream(300, Config::default()).unwrap();
    let right = relay.create_stream(400, Config::default()).unwrap();
    left.listen(THEIRS);
    right.listen(THEIRS);
    left.relay_to(&right);
    right.relay_to(&left);
    let (mut a, mut b) = (Node::start(), Node::start());
    a.connect(THEIRS, 300, Some(middle.local_addr().port()));
    b.connect(THEIRS, 400, Some(middle.local_addr().port()));
    let reading = b.peer.begin("read", json!({ "stream": THEIRS }));
    b.peer
        .call("write", json!({ "stream": THEIRS, "bytes": 1, "seed": 0 }));
    let sent = a.peer.call(
        "write",
        json!({ "stream": THEIRS, "bytes": 500_000, "seed": 4 }),
    );
    a.peer.call("end", json!({ "stream": THEIRS }));
    let read: Value = b.peer.finish(reading);
    assert_eq!(read, json!({ "bytes": 500_000, "hash": sent["hash"] }));
    a.peer.call("destroy", json!({ "stream": THEIRS }));
    assert_eq!(within(right.closed()).await, Some(CloseReason::ResetByPeer));
}
