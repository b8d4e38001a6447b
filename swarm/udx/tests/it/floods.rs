//! Strangers at a socket: packets of unknown streams, of known ones from elsewhere, and noise, while streams work.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ferrocore_udx::limits::{DATAGRAM_LEN_MAX, DATAGRAMS_MAX};
use ferrocore_udx::packet::{Header, Kinds};
use ferrocore_udx::socket::{Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

fn bind(udx: &Udx) -> UdxSocket {
    udx.bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// A plain socket of somebody else.
fn stranger() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn packet(kinds: Kinds, stream_id: u32, seq: u32, ack: u32) -> Vec<u8> {
    let header = Header {
        kinds,
        data_offset: 0,
        stream_id,
        window: 0,
        seq,
        ack,
    };
    header.to_bytes().to_vec()
}

/// `count` connected pairs, with ids from 1 on one side and from 10,001 on the other.
fn streams(
    count: u32,
    (a, sa): (&Udx, &UdxSocket),
    (b, sb): (&Udx, &UdxSocket),
) -> Vec<[UdxStream; 2]> {
    let make = |udx: &Udx, socket: &UdxSocket, id, remote: u32, to: SocketAddr| {
        let stream = udx.create_stream(id, Config::default()).unwrap();
        stream.connect(socket, remote, to).unwrap();
        stream
    };
    let pair = |id| {
        [
            make(a, sa, id, id + 10_000, sb.local_addr()),
            make(b, sb, id + 10_000, id, sa.local_addr()),
        ]
    };
    (1..=count).map(pair).collect()
}

#[tokio::test]
async fn a_spoofed_source_neither_moves_a_stream_nor_is_answered() {
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, socket_b) = (bind(&a), bind(&b));
    let mut pairs = streams(1, (&a, &socket_a), (&b, &socket_b));
    let [mut one, mut two] = pairs.pop().unwrap();
    let victim = stranger();
    let lies = [
        packet(Kinds::HEARTBEAT, 10_001, 0, 0),
        packet(Kinds::DESTROY, 10_001, 0x7000_0000, 0), // far from what is expected
        packet(Kinds::SACK, 10_001, 0, 0),
        packet(Kinds::ACK, 10_001, 9, 9),
        packet(Kinds::END, 10_001, 0x5000_0000, 0),
    ];
    for _ in 0..40 {
        for lie in &lies {
            victim.send_to(lie, socket_b.local_addr()).unwrap();
        }
    }
    let path = within(two.other_path()).await.unwrap();
    assert_eq!(path.remote, victim.local_addr().unwrap());
    one.write_all(b"still here").await.unwrap();
    let mut read = [0; 10];
    within(two.read_exact(&mut read)).await.unwrap();
    two.write_all(b"so am I").await.unwrap();
    let mut read = [0; 7];
    within(one.read_exact(&mut read)).await.unwrap();
    assert_eq!(two.remote().unwrap().0, socket_a.local_addr());
    let answer = victim.recv_from(&mut [0; 100]);
    assert!(answer.is_err(), "the source of lies was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_work_while_a_socket_is_flooded() {
    // Goal: with a thousand streams on a socket, nobody else's datagrams make more streams, fill memory or stop
    // the ones that work. Method: a flood of five kinds as long as a transfer takes, and until more has come than anybody keeps.
    const STREAMS: u32 = 1000;
    const FLOOD_MAX: u32 = 10_000_000;
    const LEN: usize = 3_000_000;
    let (a, b) = (Udx::new(), Udx::new());
    let (socket_a, socket_b) = (bind(&a), bind(&b));
    let mut pairs = streams(STREAMS, (&a, &socket_a), (&b, &socket_b));
    let [mut one, mut two] = pairs.pop().unwrap();
    let (to, flooded) = (socket_b.local_addr(), socket_b.clone());
    let flood = tokio::task::spawn_blocking(move || {
        let stranger = stranger();
        for index in 0..FLOOD_MAX {
            // What the system drops for want of room has not come.
            if index >= 30_000 && flooded.stats().datagrams_dropped > 0 {
                break;
            }
            let datagram = match index % 5 {
                0 => packet(Kinds::DATA, 0xdead_0000 + index, 0, 0),
                1 => packet(Kinds::HEARTBEAT, 10_001 + index % (STREAMS - 1), 0, 0),
                2 => packet(Kinds::SACK, 10_001 + index % STREAMS, index, index),
                3 => vec![7; DATAGRAM_LEN_MAX + 1],
                _ => vec![0xff; 19],
            };
            let _ = stranger.send_to(&datagram, to);
        }
    });
    let writing = tokio::spawn(async move {
        one.write_all(&vec![9; LEN]).await.unwrap();
        one.shutdown().await.unwrap();
    });
    let mut read = Vec::new();
    within(two.read_to_end(&mut read)).await.unwrap();
    within(writing).await.unwrap();
    within(flood).await.unwrap();
    assert!(read == vec![9; LEN], "other bytes arrived");
    assert_eq!(b.stream_count(), STREAMS as usize);
    // When this has come, nothing of the flood is with the system any more, however much it holds.
    let [mut last, mut behind_all] = pairs.pop().unwrap();
    last.write_all(b"x").await.unwrap();
    within(behind_all.read_u8()).await.unwrap();
    let mut waiting = 0;
    while let Ok(datagram) = timeout(Duration::ZERO, socket_b.recv_from()).await {
        assert!(datagram.unwrap().data.len() <= DATAGRAM_LEN_MAX);
        waiting += 1;
    }
    assert!(waiting <= DATAGRAMS_MAX, "{waiting} datagrams waited");
    assert!(socket_b.stats().datagrams_dropped > 0);
}
