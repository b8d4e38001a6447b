//! ferrocore's side of the benchmark of the log: each command is the twin of one in `peers/log.mjs`.
//! Knows how to do a job and time it. Does not know whom it is compared with.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrocore_log::{Core, CoreError, Corestore, StoreOptions};
use ferrocore_primitives::id::parse_key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::counted::Counted;
use crate::seed;

/// Longest time that blocks on their way over loopback are waited for.
const FETCH_PATIENCE: Duration = Duration::from_secs(100);

/// Longest time that a whole core on its way over loopback is waited for.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(280);

/// Blocks that are asked for at once.
const FETCHES_IN_FLIGHT: usize = 64;

/// The name of the core in every store that is made here.
const NAME: &str = "bench";

type Answer = Result<Value, Box<dyn Error>>;

/// A command with all that any of them needs; what one does not need is left out.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Job {
    id: u64,
    #[serde(rename = "do")]
    name: String,
    dir: PathBuf,
    length: u64,
    count: u64,
    size: usize,
    batch: u64,
    in_flight: u64,
    key: String,
    port: u16,
    start: u64,
    peers: usize,
    /// Random blocks that are read before the clock starts.
    warm: u64,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            id: 0,
            name: String::new(),
            dir: PathBuf::new(),
            length: 0,
            count: 0,
            size: 0,
            batch: 1,
            in_flight: 1,
            key: String::new(),
            port: 0,
            start: 0,
            peers: 1,
            warm: 0,
        }
    }
}

/// What `hold` and `supply` keep open.
#[derive(Default)]
struct Held {
    core: Option<Core>,
    supplying: Option<Runtime>,
}

/// Does what stdin says until it ends; the conversation is that of `interop-tests/peers/conversation.mjs`.
pub(crate) fn serve() {
    let mut held = Held::default();
    tell(&json!({ "event": "started" }));
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let job: Job = serde_json::from_str(&line).expect("commands come from this program");
        let id = job.id;
        match work(&job, &mut held) {
            Ok(answer) => tell(&json!({ "id": id, "ok": answer })),
            Err(error) => tell(&json!({ "id": id, "error": error.to_string() })),
        }
    }
}

pub(crate) fn tell(message: &Value) {
    // Whoever started this may be gone; stdin says so next.
    let _ = writeln!(io::stdout().lock(), "{message}");
}

fn work(job: &Job, held: &mut Held) -> Answer {
    match job.name.as_str() {
        "append" => append(job, 1),
        "append_batches" => append(job, job.batch),
        "get" => get(job),
        "read_raw" => read_raw(job),
        "open" => open(job),
        "fetch" => fetch(job),
        "hold" => hold(job, held),
        "supply" => supply(job, held),
        "download" => download(job),
        "spent" => Ok(json!({ "seconds": spent()? })),
        name => Err(format!("no such command: {name}").into()),
    }
}

fn core(job: &Job) -> Result<Core, Box<dyn Error>> {
    let store = Corestore::open(&job.dir, StoreOptions::default())?;
    match job.key.as_str() {
        "" => Ok(store.get_named(NAME)?),
        key => Ok(store.get(&parse_key(key)?)?),
    }
}

/// Appends `count` blocks, `batch` at a time; to a core that is longer already if there is one.
fn append(job: &Job, batch: u64) -> Answer {
    let core = core(job)?;
    let block = Bytes::from(vec![7; job.size]);
    let start = Instant::now();
    for _ in 0..job.count / batch {
        match batch {
            1 => core.append(block.clone())?,
            _ => core.append_batch(vec![block.clone(); batch as usize])?,
        };
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "length": core.length() }))
}

/// Reads `count` random blocks: in this thread if they are asked for one by one, else in as many as the
/// machine runs at once, which is how many reads of a local block can be in flight.
fn get(job: &Job) -> Answer {
    let core = core(job)?;
    let mut indexes = random_indexes(job.warm + job.count, core.length());
    read_all(&core, &indexes.split_off(job.count as usize), job.size)?;
    let threads = match job.in_flight {
        1 => 1,
        _ => thread::available_parallelism()?.get(),
    };
    let before = reads()?;
    let start = Instant::now();
    let shares = indexes.chunks(indexes.len().div_ceil(threads));
    thread::scope(|scope| {
        let core = &core;
        let read = |share| scope.spawn(move || read_all(core, share, job.size));
        let readers: Vec<_> = shares.map(read).collect();
        let results = readers
            .into_iter()
            .map(|reader| reader.join().expect("no panic"));
        results.collect::<Result<(), String>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let [calls, bytes] = reads()?;
    let (calls, bytes) = (calls - before[0], bytes - before[1]);
    Ok(json!({ "seconds": seconds, "reads": calls, "read_bytes": bytes }))
}

/// How often this process has read anything since it began, and how many bytes, as Linux counts them.
fn reads() -> Result<[u64; 2], Box<dyn Error>> {
    let counts = std::fs::read_to_string("/proc/self/io")?;
    let count = |name: &str| {
        let mut lines = counts.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|count| count.parse().ok())
            .ok_or("no count of reads")
    };
    Ok([count("syscr")?, count("rchar")?])
}

fn read_all(core: &Core, indexes: &[u64], size: usize) -> Result<(), String> {
    for index in indexes {
        let block = core.get_local(*index).map_err(|error| error.to_string())?;
        if block.map(|block| block.len()) != Some(size) {
            return Err("a block has the wrong size".to_owned());
        }
    }
    Ok(())
}

/// Reads what [`get`] cannot do without where its core is long, and does nothing with it: of the same blocks the
/// leaf and the bytes, one read of a file each. Blocks must all have the size that the job tells.
fn read_raw(job: &Job) -> Answer {
    const NODE_BYTES: usize = 40;
    let (length, name) = {
        let core = core(job)?;
        (core.length(), core.key().discovery_key().to_hex())
    };
    let files = job.dir.join("corestore/cores");
    let files = files.join(&name[..2]).join(&name[2..4]).join(&name);
    let (tree, data) = (
        File::open(files.join("tree"))?,
        File::open(files.join("data"))?,
    );
    let (mut leaf, mut block) = ([0; NODE_BYTES], vec![0; job.size]);
    let indexes = random_indexes(job.count, length);
    let start = Instant::now();
    for index in indexes {
        // Leaves of the last blocks may be in the journal alone: then there is nothing to read.
        let _ = tree.read_at(&mut leaf, index * 2 * NODE_BYTES as u64)?;
        let _ = data.read_at(&mut block, index * job.size as u64)?;
    }
    Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
}

fn open(job: &Job) -> Answer {
    let start = Instant::now();
    let core = core(job)?;
    let length = core.length();
    let seconds = start.elapsed().as_secs_f64();
    check_length(job, length)?;
    Ok(json!({ "seconds": seconds }))
}

fn check_length(job: &Job, length: u64) -> Result<(), String> {
    match length == job.length {
        true => Ok(()),
        false => Err(format!(
            "the core has {length} blocks instead of {}",
            job.length
        )),
    }
}

/// Fetches `count` random blocks of the core `key` from a peer on this machine.
fn fetch(job: &Job) -> Answer {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let fetching = fetch_blocks(job);
        tokio::time::timeout(FETCH_PATIENCE, fetching).await?
    })
}

async fn fetch_blocks(job: &Job) -> Answer {
    let store = Corestore::open(&job.dir, StoreOptions::default())?;
    let core = store.get(&parse_key(&job.key)?)?;
    let socket = TcpStream::connect(("127.0.0.1", job.port)).await?;
    let (pair, options) = (KeyPair::generate(), Options::default());
    let stream = SecretStream::handshake(socket, Role::Initiator, &pair, options).await?;
    let session = Session::spawn(stream, store.clone(), SessionOptions::default());
    core.update().await?;
    check_length(job, core.length())?;
    let indexes = random_indexes(job.count, job.length);
    let mut readers = tokio::task::JoinSet::new();
    for share in indexes.chunks(indexes.len().div_ceil(FETCHES_IN_FLIGHT)) {
        let (core, share) = (core.clone(), share.to_vec());
        readers.spawn(async move {
            for index in share {
                core.get(index).await?;
            }
            Ok::<_, CoreError>(())
        });
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }
    session.close();
    session.closed().await?;
    Ok(Value::Null)
}

/// Serves the core in `dir` to peers on this machine from now on.
fn supply(job: &Job, held: &mut Held) -> Answer {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let store = Corestore::open(&job.dir, StoreOptions::default())?;
    let key = store.get_named(NAME)?.key();
    let port = runtime.block_on(seed::listen(store))?;
    held.supplying = Some(runtime);
    Ok(json!({ "key": key.to_hex(), "port": port }))
}

/// Downloads the core `key` from a peer on this machine: all of it, or `count` blocks from `start` on, over as
/// many connections as `peers`. The time is that from the known length to the last block on disk.
fn download(job: &Job) -> Answer {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let downloading = download_blocks(job);
        tokio::time::timeout(DOWNLOAD_PATIENCE, downloading).await?
    })
}

async fn download_blocks(job: &Job) -> Answer {
    let store = Corestore::open(&job.dir, StoreOptions::default())?;
    let core = store.get(&parse_key(&job.key)?)?;
    let wire = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut sessions = Vec::new();
    for _ in 0..job.peers {
        let socket = TcpStream::connect(("127.0.0.1", job.port)).await?;
        socket.set_nodelay(true)?;
        let socket = Counted::new(socket, Arc::clone(&wire));
        let (pair, options) = (KeyPair::generate(), Options::default());
        let stream = SecretStream::handshake(socket, Role::Initiator, &pair, options).await?;
        sessions.push(Session::spawn(
            stream,
            store.clone(),
            SessionOptions::default(),
        ));
    }
    core.update().await?;
    check_length(job, core.length())?;
    let whole = job.count == 0;
    let start = if whole { start } else { Instant::now() };
    let range = match whole {
        true => 0..core.length(),
        false => job.start..job.start + job.count,
    };
    let blocks = range.end - range.start;
    core.download(range).done().await?;
    let seconds = start.elapsed().as_secs_f64();
    let mut messages = 0;
    for session in sessions {
        session.close();
        session.closed().await?;
        let stats = session.stats();
        messages += stats.messages_sent + stats.messages_received;
    }
    Ok(json!({
        "seconds": seconds,
        "blocks": blocks,
        "wire": wire.load(Ordering::Relaxed),
        "messages": messages,
    }))
}

/// Opens a core, reads `count` blocks that `fetch` fetched, and keeps it open; tells the memory held.
fn hold(job: &Job, held: &mut Held) -> Answer {
    let core = core(job)?;
    check_length(job, core.length())?;
    for index in random_indexes(job.count, job.length) {
        core.get_local(index)?.ok_or("a block is not here")?;
    }
    held.core = Some(core);
    Ok(json!({ "bytes": memory()? }))
}

/// Processor time that this process has taken so far, in seconds, to a tick of a hundredth.
fn spent() -> Result<f64, String> {
    const TICKS_PER_SECOND: f64 = 100.0; // on every Linux that tells it to programs
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    // The name before it may hold anything.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let mut ticks = fields
        .into_iter()
        .flat_map(|fields| fields.split(' ').skip(11).take(2));
    let user: Option<f64> = ticks.next().and_then(|ticks| ticks.parse().ok());
    let system: Option<f64> = ticks.next().and_then(|ticks| ticks.parse().ok());
    let ticks = user.zip(system).map(|(user, system)| user + system);
    Ok(ticks.ok_or("the system does not tell")? / TICKS_PER_SECOND)
}

/// What this process holds in memory, in bytes.
pub(crate) fn memory() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| 1024 * kib)
        .ok_or("the system does not tell".to_owned())
}

/// The processor time that this process has taken, in seconds; the system counts in hundredths.
pub(crate) fn processor_seconds() -> Result<f64, String> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    // The name of the program is in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
    let ticks = fields
        .into_iter()
        .flat_map(|fields| fields.split_whitespace().skip(11).take(2));
    let ticks: Result<Vec<u64>, _> = ticks.map(str::parse).collect();
    let ticks = ticks.map_err(|error| error.to_string())?;
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}

/// The same places in every process: a Lehmer generator modulo 2^31 - 1.
fn random_indexes(count: u64, length: u64) -> Vec<u64> {
    let mut state = 1u64;
    let mut next = || {
        state = state * 48_271 % 2_147_483_647;
        state % length
    };
    (0..count).map(|_| next()).collect()
}
