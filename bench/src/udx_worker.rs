//! ferrocore's end of the benchmark of UDX: each command is the twin of one in `peers/udx.mjs`.
//! Knows how to do a job and time it. Does not know whom it is compared with.

use std::error::Error;
use std::io::{self, BufRead as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ferrocore_udx::socket::{Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::worker::{memory, tell};

/// Ids of the sender's streams begin here, those of the receiver's at [`RECEIVER`].
const SENDER: u32 = 1000;
const RECEIVER: u32 = 1_000_000;

const CHUNK: usize = 64 * 1024;

type Failure = Box<dyn Error + Send + Sync>;

/// A command with all that any of them needs; what one does not need is left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Job {
    id: u64,
    #[serde(rename = "do")]
    name: String,
    /// This end's address.
    host: IpAddr,
    /// The other end's.
    to: IpAddr,
    port: u16,
    streams: u32,
    /// Ids of streams are counted from here.
    first: u32,
    /// Sent over each stream.
    bytes: usize,
    /// Sent back over each.
    back: usize,
    hash: bool,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            id: 0,
            name: String::new(),
            host: Ipv4Addr::LOCALHOST.into(),
            to: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            streams: 1,
            first: 0,
            bytes: 0,
            back: 0,
            hash: false,
        }
    }
}

/// What one stream heard.
#[derive(Debug)]
struct Heard {
    bytes: usize,
    hash: Option<String>,
}

/// Does what stdin says until it ends.
pub(crate) fn serve() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    tell(&json!({ "event": "started" }));
    let mut held = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let job: Job = serde_json::from_str(&line).expect("commands come from this program");
        let id = job.id;
        match runtime.block_on(work(job, &mut held)) {
            Ok(answer) => tell(&json!({ "id": id, "ok": answer })),
            Err(error) => tell(&json!({ "id": id, "error": error.to_string() })),
        }
    }
}

async fn work(job: Job, held: &mut Vec<(UdxSocket, Vec<UdxStream>)>) -> Result<Value, Failure> {
    match job.name.as_str() {
        "receive" => receive(job),
        "send" => send(job).await,
        "hold" => hold(job, held).await,
        name => Err(format!("no such command: {name}").into()),
    }
}

fn endpoint(job: &Job, ids: u32) -> Result<(UdxSocket, Vec<UdxStream>), Failure> {
    let udx = Udx::new();
    let socket = udx.bind(SocketAddr::new(job.host, 0))?;
    let ids = ids + job.first..ids + job.first + job.streams;
    let streams: Result<_, _> = ids
        .map(|id| udx.create_stream(id, Config::default()))
        .collect();
    Ok((socket, streams?))
}

fn receive(job: Job) -> Result<Value, Failure> {
    let (socket, streams) = endpoint(&job, RECEIVER)?;
    let port = socket.local_addr().port();
    let start = Arc::new(OnceLock::new());
    let mut transfers = JoinSet::new();
    for (stream, index) in streams.into_iter().zip(0..) {
        stream.listen(SENDER + job.first + index);
        let (job, start) = (job.clone(), Arc::clone(&start));
        transfers.spawn(async move {
            stream.connected().await?;
            start.get_or_init(Instant::now);
            transfer(stream, job.back, job.hash, false).await
        });
    }
    tokio::spawn(async move {
        let _socket = socket;
        match collect(transfers).await {
            Ok((heard, _)) => {
                let seconds = start.get().map(|start| start.elapsed().as_secs_f64());
                let Heard { bytes, hash } = heard;
                tell(
                    &json!({ "event": "received", "seconds": seconds, "bytes": bytes, "hash": hash }),
                );
            }
            Err(error) => tell(&json!({ "event": "received", "error": error.to_string() })),
        }
    });
    Ok(json!({ "port": port }))
}

async fn send(job: Job) -> Result<Value, Failure> {
    let (socket, streams) = endpoint(&job, SENDER)?;
    let start = Instant::now();
    let mut transfers = JoinSet::new();
    for (stream, index) in streams.into_iter().zip(0..) {
        stream.connect(
            &socket,
            RECEIVER + job.first + index,
            SocketAddr::new(job.to, job.port),
        )?;
        transfers.spawn(transfer(stream, job.bytes, false, job.hash));
    }
    let (heard, sent) = collect(transfers).await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "received": heard.bytes, "hash": sent }))
}

/// Sums up what all streams heard, and takes a hash of what one sent.
async fn collect(
    mut transfers: JoinSet<Result<(Heard, Option<String>), Failure>>,
) -> Result<(Heard, Option<String>), Failure> {
    let (mut all, mut all_sent) = (
        Heard {
            bytes: 0,
            hash: None,
        },
        None,
    );
    while let Some(done) = transfers.join_next().await {
        let (heard, sent) = done??;
        all.bytes += heard.bytes;
        all.hash = heard.hash;
        all_sent = sent;
    }
    Ok((all, all_sent))
}

/// Sends `bytes` while it reads to the end; returns when that is here, and writing goes on.
async fn transfer(
    stream: UdxStream,
    bytes: usize,
    hashes_heard: bool,
    hashes_sent: bool,
) -> Result<(Heard, Option<String>), Failure> {
    let (reader, writer) = tokio::io::split(stream);
    let writing = tokio::spawn(write(writer, bytes, hashes_sent));
    let heard = drain(reader, hashes_heard).await?;
    let sent = match hashes_sent {
        true => writing.await??,
        false => None,
    };
    Ok((heard, sent))
}

async fn write(
    mut writer: impl AsyncWriteExt + Unpin,
    bytes: usize,
    hashes: bool,
) -> Result<Option<String>, Failure> {
    let chunk: Vec<u8> = (0..CHUNK as u32)
        .map(|at| ((at >> 3).wrapping_mul(0x9e37_79b1) >> 13).wrapping_add(at) as u8)
        .collect();
    let mut hash = hashes.then(blake2b_simd::State::new);
    let mut left = bytes;
    while left > 0 {
        let part = &chunk[..left.min(CHUNK)];
        left -= part.len();
        if let Some(hash) = &mut hash {
            hash.update(part);
        }
        writer.write_all(part).await?;
    }
    writer.shutdown().await?;
    Ok(hash.map(|hash| hash.finalize().to_hex().to_string()))
}

async fn drain(mut reader: impl AsyncReadExt + Unpin, hashes: bool) -> Result<Heard, Failure> {
    let mut hash = hashes.then(blake2b_simd::State::new);
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        let len = reader.read(&mut buffer).await?;
        if len == 0 {
            break;
        }
        bytes += len;
        if let Some(hash) = &mut hash {
            hash.update(&buffer[..len]);
        }
    }
    let hash = hash.map(|hash| hash.finalize().to_hex().to_string());
    Ok(Heard { bytes, hash })
}

async fn hold(job: Job, held: &mut Vec<(UdxSocket, Vec<UdxStream>)>) -> Result<Value, Failure> {
    let before = memory()?;
    let (socket, mut streams) = endpoint(&job, SENDER)?;
    for (stream, index) in streams.iter_mut().zip(0..) {
        stream.connect(
            &socket,
            RECEIVER + job.first + index,
            SocketAddr::new(job.to, job.port),
        )?;
        stream.write_all(b"x").await?;
    }
    for stream in &streams {
        stream.acked().await?;
    }
    held.push((socket, streams));
    Ok(json!({ "bytes": memory()?.saturating_sub(before) }))
}
