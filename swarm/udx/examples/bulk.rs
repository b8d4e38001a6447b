//! Sends bytes over one or many streams on loopback, between two processes, and tells how fast it went.
//!
//! Usage:
//!   cargo run --release -p ferrocore-udx --example bulk -- receive STREAMS
//!   cargo run --release -p ferrocore-udx --example bulk -- send PORT STREAMS MEGABYTES
//!
//! `receive` prints its port first. The twin in JavaScript is `bulk.mjs`; either can talk to the other.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant;

use ferrocore_udx::socket::{Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Ids of the sender's streams begin here, those of the receiver's at `RECEIVER`.
const SENDER: u32 = 1000;
const RECEIVER: u32 = 1_000_000;

const CHUNK: usize = 64 * 1024;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["receive", streams] => receive(streams.parse()?).await,
        ["send", port, streams, megabytes] => {
            let to = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
            send(to, streams.parse()?, megabytes.parse()?).await
        }
        _ => Err("usage: bulk receive STREAMS | bulk send PORT STREAMS MEGABYTES".into()),
    }
}

/// An endpoint with `count` streams, numbered from `ids`.
fn endpoint(count: u32, ids: u32) -> Result<(UdxSocket, Vec<UdxStream>), Box<dyn Error>> {
    let udx = Udx::new();
    let socket = udx.bind("127.0.0.1:0".parse()?)?;
    let streams: Result<_, _> = (0..count)
        .map(|index| udx.create_stream(ids + index, Config::default()))
        .collect();
    Ok((socket, streams?))
}

async fn receive(count: u32) -> Result<(), Box<dyn Error>> {
    let (socket, streams) = endpoint(count, RECEIVER)?;
    let mut tasks = JoinSet::new();
    for (stream, index) in streams.into_iter().zip(0..) {
        stream.listen(SENDER + index);
        tasks.spawn(drain(stream));
    }
    println!("{}", socket.local_addr().port());
    let (mut start, mut bytes) = (None, 0);
    while let Some(received) = tasks.join_next().await {
        let (began, count) = received??;
        start = Some(start.map_or(began, |start: Instant| start.min(began)));
        bytes += count;
    }
    let seconds = start.map_or(0.0, |start| start.elapsed().as_secs_f64());
    println!("{:.1} MB/s", bytes as f64 / seconds / 1e6);
    Ok(())
}

/// Reads a stream to its end; returns when it began and how much came.
async fn drain(mut stream: UdxStream) -> std::io::Result<(Instant, usize)> {
    let mut buffer = vec![0; CHUNK];
    let mut total = stream.read(&mut buffer).await?;
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => total += len,
        }
    }
    stream.shutdown().await?;
    Ok((start, total))
}

async fn send(to: SocketAddr, count: u32, megabytes: usize) -> Result<(), Box<dyn Error>> {
    let (socket, streams) = endpoint(count, SENDER)?;
    let each = megabytes * 1_000_000 / count as usize;
    let mut tasks = JoinSet::new();
    for (mut stream, index) in streams.into_iter().zip(0..) {
        stream.connect(&socket, RECEIVER + index, to)?;
        tasks.spawn(async move {
            let chunk = vec![7; CHUNK];
            let mut left = each;
            while left > 0 {
                let len = left.min(CHUNK);
                stream.write_all(&chunk[..len]).await?;
                left -= len;
            }
            stream.shutdown().await?;
            stream.closed().await; // the other end's END wants its ack
            std::io::Result::Ok(stream.stats())
        });
    }
    let (mut retransmits, mut timeouts, mut last) = (0, 0, None);
    while let Some(stats) = tasks.join_next().await {
        let stats = stats??;
        retransmits += stats.retransmits;
        timeouts += stats.timeouts;
        last = Some(stats);
    }
    eprintln!("{retransmits} retransmits, {timeouts} timeouts; the last stream: {last:?}");
    eprintln!("{:?}", socket.stats());
    Ok(())
}
