//! The two ends of a stream, ours here and udx-native in a Node process, and what passes between them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use blake2b_simd::State;
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::Peer;
use ferrocore_udx::socket::{Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::Config;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest wait for anything in this process, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const OURS: u32 = 0x1111_0001;
pub(crate) const THEIRS: u32 = 0x2222_0001;

/// A Node endpoint with one socket.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
}

impl Node {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/udx.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(node::ensure(Tree::Current));
        let mut peer = Peer::run("udx.mjs", &mut command);
        let address = bind(&mut peer);
        Self { peer, address }
    }

    /// Makes Node's end of a stream to `port`, or to whoever sends first.
    pub(crate) fn connect(&mut self, stream: u32, remote: u32, port: Option<u16>) {
        let arguments = json!({ "stream": stream, "remote": remote, "port": port });
        self.peer.call("connect", arguments);
    }
}

pub(crate) fn bind(peer: &mut Peer) -> SocketAddr {
    let port = peer.call("bind", json!({}))["port"].as_u64().unwrap();
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
}

pub(crate) fn bind_ours(udx: &Udx) -> UdxSocket {
    udx.bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Node, our endpoint, and a stream between them.
pub(crate) fn connected(config: Config) -> (Node, Udx, UdxSocket, UdxStream) {
    let mut node = Node::start();
    let udx = Udx::new();
    let socket = bind_ours(&udx);
    let stream = udx.create_stream(OURS, config).unwrap();
    node.connect(THEIRS, OURS, Some(socket.local_addr().port()));
    stream.connect(&socket, THEIRS, node.address).unwrap();
    (node, udx, socket, stream)
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// Twin of `pattern` in ../peers/udx.mjs.
pub(crate) fn pattern(seed: u32, offset: usize, len: usize) -> Vec<u8> {
    let byte = |at: u32| {
        ((at >> 3).wrapping_mul(0x9e37_79b1) >> 13)
            .wrapping_add(at)
            .wrapping_add(seed) as u8
    };
    (offset..offset + len).map(|at| byte(at as u32)).collect()
}

/// Writes `len` bytes of the pattern, ends the stream, returns the hash.
pub(crate) async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    seed: u32,
    len: usize,
) -> String {
    let hash = write(&mut writer, seed, len).await;
    writer.shutdown().await.unwrap();
    hash
}

/// Writes `len` bytes of the pattern, returns the hash.
async fn write(writer: &mut (impl AsyncWrite + Unpin), seed: u32, len: usize) -> String {
    let mut hash = State::new();
    for offset in (0..len).step_by(1 << 16) {
        let data = pattern(seed, offset, (len - offset).min(1 << 16));
        hash.update(&data);
        writer.write_all(&data).await.unwrap();
    }
    hash.finalize().to_hex().to_string()
}

/// Reads to the end, returns the count and the hash.
pub(crate) async fn read_all(mut reader: impl AsyncRead + Unpin) -> (u64, String) {
    let (mut hash, mut count) = (State::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = reader.read(&mut buffer).await.unwrap();
        if len == 0 {
            return (count, hash.finalize().to_hex().to_string());
        }
        hash.update(&buffer[..len]);
        count += len as u64;
    }
}

/// Sends `len` bytes in each direction at once, and compares what arrived by its hash.
pub(crate) async fn exchange(node: &mut Node, stream: UdxStream, theirs: u32, len: usize) {
    let reading = node.peer.begin("read", json!({ "stream": theirs }));
    let writing = node.peer.begin(
        "write",
        json!({ "stream": theirs, "bytes": len, "seed": 2 }),
    );
    let (reader, writer) = tokio::io::split(stream);
    let ours = tokio::spawn(write_all(writer, 1, len));
    let heard = tokio::spawn(read_all(reader));
    let sent = node.peer.finish(writing);
    node.peer.call("end", json!({ "stream": theirs }));
    let read = node.peer.finish(reading);
    let (count, hash) = within(heard).await.unwrap();
    assert_eq!(
        (count, json!(hash)),
        (len as u64, sent["hash"].clone()),
        "from Node"
    );
    assert_eq!(
        read,
        json!({ "bytes": len, "hash": within(ours).await.unwrap() }),
        "to Node"
    );
}

/// [`exchange`] where acks get lost: we end after Node has, for Node forgets the stream once both have, and does not
/// say again that our last data has arrived.
pub(crate) async fn exchange_in_turn(node: &mut Node, stream: UdxStream, theirs: u32, len: usize) {
    let reading = node.peer.begin("read", json!({ "stream": theirs }));
    let write_theirs = json!({ "stream": theirs, "bytes": len, "seed": 2 });
    let writing = node.peer.begin("write", write_theirs);
    let (reader, mut writer) = tokio::io::split(stream);
    let ours = tokio::spawn(async move { (write(&mut writer, 1, len).await, writer) });
    let heard = tokio::spawn(read_all(reader));
    let sent = node.peer.finish(writing);
    node.peer.call("end", json!({ "stream": theirs }));
    let (count, hash) = within(heard).await.unwrap();
    assert_eq!((count, json!(hash)), (len as u64, sent["hash"].clone()));
    let (hash, mut writer) = within(ours).await.unwrap();
    within(writer.shutdown()).await.unwrap();
    let read = node.peer.finish(reading);
    assert_eq!(read, json!({ "bytes": len, "hash": hash }));
}

/// [`exchange`] between two streams of ours.
pub(crate) async fn exchange_ours(one: UdxStream, two: UdxStream, len: usize) {
    let (one_reader, one_writer) = tokio::io::split(one);
    let (two_reader, two_writer) = tokio::io::split(two);
    let sent_one = tokio::spawn(write_all(one_writer, 1, len));
    let sent_two = tokio::spawn(write_all(two_writer, 2, len));
    let heard_one = tokio::spawn(read_all(one_reader));
    let heard_two = within(read_all(two_reader)).await;
    assert_eq!(heard_two, (len as u64, within(sent_one).await.unwrap()));
    let heard_one = within(heard_one).await.unwrap();
    assert_eq!(heard_one, (len as u64, within(sent_two).await.unwrap()));
}
