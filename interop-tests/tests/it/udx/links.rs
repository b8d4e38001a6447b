//! Paths that are not well: damaged links, a path that dies under a stream, an end that stands still.

use std::net::SocketAddr;
use std::time::Duration;

use ferrocore_interop_tests::lossy::{Damage, LossyLink};
use ferrocore_udx::socket::{Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::udx::ends::{
    Node, OURS, THEIRS, bind_ours, connected, exchange_in_turn, exchange_ours, pattern, read_all,
    within,
};

/// Random links in every test run; `FERROCORE_UDX_LINKS` makes more.
const LINKS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_link_damages_no_stream() {
    // Goal: over real sockets and in real time, whatever a link does, both directions arrive whole.
    // Method: links at random, from a seed, by turns between two ends of ours and between Node and us.
    let seed = setting("FERROCORE_SEED", 5);
    let links = setting("FERROCORE_UDX_LINKS", LINKS);
    let mut node = Node::start();
    let (mut lost, mut passed) = (0, 0);
    for round in 0..links {
        let case = seed.wrapping_mul(1_000_003).wrapping_add(round);
        let damage = any_damage(case);
        println!("case {case}: {damage:?}");
        let len = [50_000, 200_000, 500_000][(case % 3) as usize];
        let link = LossyLink::start(damage, case);
        let (ours, theirs) = (OURS + round as u32, THEIRS + round as u32);
        let udx = Udx::new();
        let (socket, stream) = through(&udx, &link, 0, ours, theirs);
        link.set_peer(0, socket.local_addr());
        if round % 2 == 0 {
            let other = Udx::new();
            let (far_socket, far) = through(&other, &link, 1, theirs, ours);
            link.set_peer(1, far_socket.local_addr());
            exchange_ours(stream, far, len).await;
        } else {
            link.set_peer(1, node.address);
            node.connect(theirs, ours, Some(link.port(1)));
            exchange_in_turn(&mut node, stream, theirs, len).await;
        }
        lost += link.lost();
        passed += link.passed();
    }
    println!("{links} links: {passed} datagrams passed, {lost} lost");
    assert!(lost > 0, "nothing was lost in {passed} datagrams");
}

/// A stream of ours behind side `side` of the link.
fn through(
    udx: &Udx,
    link: &LossyLink,
    side: usize,
    id: u32,
    remote: u32,
) -> (UdxSocket, UdxStream) {
    let socket = bind_ours(udx);
    let stream = udx.create_stream(id, Config::default()).unwrap();
    stream
        .connect(&socket, remote, address(link, side))
        .unwrap();
    (socket, stream)
}

fn address(link: &LossyLink, side: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], link.port(side)))
}

fn any_damage(case: u64) -> Damage {
    let pick = |place: u32, choices: [u64; 4]| {
        choices[(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (40 + 2 * place)) as usize & 3]
    };
    Damage {
        loss_permille: pick(0, [10, 50, 100, 200]),
        duplicate_permille: pick(1, [0, 20, 0, 200]),
        corrupt_permille: pick(2, [0, 10, 50, 0]),
        late_permille: pick(3, [0, 0, 50, 200]),
        late_by: Duration::from_millis(pick(4, [3, 10, 30, 80])),
        delay: Duration::from_millis(pick(5, [0, 2, 10, 30])),
        jitter: Duration::from_millis(pick(6, [0, 0, 2, 20])),
        bytes_per_second: pick(7, [0, 0, 12_500_000, 1_000_000]),
        queue_bytes: 100_000,
        ..Damage::default()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| {
        text.parse().expect("the variable is a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_survives_a_change_of_network() {
    // Goal: the path that a stream goes by dies with packets of ours on it, and both ends go on by another, which our end
    // reaches from another socket. Method: two links; the first is cut towards Node while both directions are under way.
    // Towards us it lives on: libudx sends a packet again by the path it took first (`pkt->remote_addr`), so that a
    // stream of its own with packets on a dead path is lost, whoever its peer is.
    let damage = Damage {
        delay: Duration::from_millis(5),
        ..Damage::default()
    };
    let (old, new) = (LossyLink::start(damage, 1), LossyLink::start(damage, 2));
    let mut node = Node::start();
    let udx = Udx::new();
    let (first, stream) = through(&udx, &old, 0, OURS, THEIRS);
    let second = bind_ours(&udx);
    for (link, socket) in [(&old, &first), (&new, &second)] {
        link.set_peer(0, socket.local_addr());
        link.set_peer(1, node.address);
    }
    node.connect(THEIRS, OURS, Some(old.port(1)));
    let reading = node.peer.begin("read", json!({ "stream": THEIRS }));
    let handle = stream.handle();
    let (reader, mut writer) = tokio::io::split(stream);
    let data = pattern(7, 0, 3_000_000);
    let heard = tokio::spawn(read_all(reader));
    writer.write_all(&data[..1_000_000]).await.unwrap();
    let write = json!({ "stream": THEIRS, "bytes": 1_000_000, "seed": 3 });
    let writing = node.peer.begin("write", write);

    old.cut_towards(1);
    handle
        .change_remote(&second, THEIRS, address(&new, 0))
        .unwrap();
    let port = new.port(1);
    let moving = json!({ "stream": THEIRS, "socket": 0, "remote": OURS, "port": port });
    let moving = node.peer.begin("move", moving);

    writer.write_all(&data[1_000_000..]).await.unwrap();
    writer.shutdown().await.unwrap();
    let hash = blake2b_simd::blake2b(&data).to_hex().to_string();
    let read = node.peer.finish(reading);
    assert_eq!(read, json!({ "bytes": data.len(), "hash": hash }));
    let sent = node.peer.finish(writing);
    node.peer.call("end", json!({ "stream": THEIRS }));
    let (count, hash) = within(heard).await.unwrap();
    assert_eq!((count, json!(hash)), (1_000_000, sent["hash"].clone()));
    within(handle.moved()).await.unwrap_or(()); // it may have closed well by now
    node.peer.finish(moving);
    assert_eq!(within(handle.closed()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_process_that_stands_still_is_waited_for() {
    // Goal: a stopped end, reading or writing, costs time and nothing else. Method: SIGSTOP in mid-transfer, both
    // directions under way.
    let seconds = setting("FERROCORE_UDX_STOP", 2);
    let (mut node, _udx, _socket, stream) = connected(Config::default());
    const LEN: usize = 20_000_000;
    let reading = node.peer.begin("read", json!({ "stream": THEIRS }));
    let write = json!({ "stream": THEIRS, "bytes": LEN, "seed": 2 });
    let writing = node.peer.begin("write", write);
    let handle = stream.handle();
    let (reader, mut writer) = tokio::io::split(stream);
    let heard = tokio::spawn(read_all(reader));
    let data = pattern(1, 0, LEN);
    writer.write_all(&data[..LEN / 4]).await.unwrap();
    node.peer.pause();
    let (rest, hash) = (data[LEN / 4..].to_vec(), blake2b_simd::blake2b(&data));
    let sending = tokio::spawn(async move {
        writer.write_all(&rest).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    tokio::time::sleep(Duration::from_secs(seconds)).await; // that is what is tested
    assert!(
        !sending.is_finished(),
        "a stopped process has taken everything"
    );
    node.peer.resume();
    let resumed = std::time::Instant::now();
    let sent = node.peer.finish(writing);
    node.peer.call("end", json!({ "stream": THEIRS }));
    let read = node.peer.finish(reading);
    let hash = hash.to_hex().to_string();
    assert_eq!(read, json!({ "bytes": LEN, "hash": hash }));
    let (count, hash) = within(heard).await.unwrap();
    println!("all is here {:?} after the stop", resumed.elapsed());
    assert_eq!((count, json!(hash)), (LEN as u64, sent["hash"].clone()));
    within(sending).await.unwrap();
    assert_eq!(within(handle.closed()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_waits_while_our_window_is_shut() {
    // Goal: who is not read from is sent no more than there is room for, however long that takes, and all the rest as soon as it
    // is read. Method: Node writes much more than our window, and we read nothing for a while; then a part, and nothing for a
    // while; then all. It cannot be the other way round: udx-native takes in whatever comes, and shuts its window never.
    const WINDOW: u32 = 100_000;
    const LEN: usize = 2_000_000;
    let mut config = Config::default();
    config.receive_window = WINDOW;
    let (mut node, _udx, _socket, mut stream) = connected(config);
    let write = json!({ "stream": THEIRS, "bytes": LEN, "seed": 4 });
    let writing = node.peer.begin("write", write);
    let (mut hash, mut count) = (blake2b_simd::State::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    for part in [0, 300_000, LEN] {
        while count < part {
            let len = within(stream.read(&mut buffer)).await.unwrap();
            hash.update(&buffer[..len]);
            count += len;
        }
        if part < LEN {
            tokio::time::sleep(Duration::from_secs(2)).await; // that is what is tested
            let stats = stream.stats();
            println!("after {count}: {stats:?}");
            let waiting = stats.bytes_received - count as u64;
            assert!(waiting < 2 * u64::from(WINDOW), "{stats:?}");
        }
    }
    let sent = node.peer.finish(writing);
    node.peer.call("end", json!({ "stream": THEIRS }));
    assert_eq!(within(stream.read(&mut buffer)).await.unwrap(), 0);
    assert_eq!(json!(hash.finalize().to_hex().to_string()), sent["hash"]);
}
