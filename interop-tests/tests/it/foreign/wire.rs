//! Goal: over a connection, the replicator of the crate `hypercore` with `hypercore-protocol` 0.7 and we go through what we go
//! through with Node, in both roles; what it cannot do is known, and why.
//! Method: `foreign/`, which dials; taps hold a transfer at an exact byte.

use std::pin::pin;
use std::process::Command;
use std::time::Duration;

use ferrocore::{Core, Node};
use ferrocore_interop_tests::fcore::Run;
use ferrocore_interop_tests::tap::Tap;
use ferrocore_log::{CoreOptions, EncryptionKey};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{blocks, foreign, program, text};
use crate::beside_node::{filled, is_sound, listening};
use crate::exceptions::Exceptions;

/// Blocks that go over a connection.
const SERVED: usize = 60;

/// Bytes of a long block.
const LONG: usize = 10 << 20;

/// Bytes of one that the crate can read: a frame of 64 KiB is too long for it.
const LONG_FOR_IT: usize = 60_000;

/// A core of ours that the crate can read, and where it is served.
async fn we_serve() -> (Node, Core, u16) {
    let (node, port) = listening().await;
    let core = compat(&node, "log");
    (node, core, port)
}

fn compat(node: &Node, name: &str) -> Core {
    let options = CoreOptions {
        name: Some(name.to_owned()),
        compat: true,
        ..CoreOptions::default()
    };
    node.store().get_with(options).unwrap()
}

/// The program with these arguments, running.
fn start(arguments: &[&str]) -> Run {
    let mut command = Command::new(program());
    Run::of("the crate", command.args(arguments))
}

/// The crate with a new core in memory, or the one in a directory.
struct Served {
    run: Run,
    key: String,
}

impl Served {
    fn start(directory: &str, port: u16) -> Self {
        let mut run = start(&["serve", directory, &port.to_string()]);
        let told = run.wait_for("a key", |line| line["key"].is_string());
        let key = told["key"].as_str().unwrap().to_owned();
        Self { run, key }
    }

    /// Has it append so many blocks of this size, whose bytes are their index.
    fn fill(&mut self, count: usize, size: usize) {
        self.run.say(&format!("{count} {size}"));
        self.run
            .wait_for("that they are appended", |line| line["length"].is_u64());
    }

    /// Our copy, for which it dials now.
    fn core(&mut self, node: &Node) -> Core {
        let core = node.core(&self.key.parse().unwrap()).unwrap();
        self.run.say("dial");
        core
    }

    /// As [`within`]; the crate dials once more whenever nothing came of it for a while. What a connection has lost is asked for on
    /// the next one at once.
    async fn within<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..12 {
            let patience = Duration::from_secs(20);
            if let Ok(done) = timeout(patience, &mut future).await {
                return done;
            }
            self.run.say("dial");
        }
        panic!("not within four minutes");
    }
}

/// Waits for what the crate serves. What it is asked while it reads from its disk is lost on it (`Message::Request` with
/// `pending_create_proof` in its `src/replication/mod.rs`), and we ask again after thirty seconds, each time perhaps at such
/// a moment: on a busy machine that may come several times.
async fn within<T>(future: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(240);
    timeout(patience, future)
        .await
        .expect("within four minutes")
}

/// Downloads until `count` blocks are here, each of which is its index.
async fn complete(served: &mut Served, core: &Core, count: u64) {
    let _all = core.download_all();
    let events = core.events();
    let whole = async {
        while core.contiguous_length() < count {
            events.next().await;
        }
    };
    served.within(whole).await;
    assert_eq!(core.length(), count);
    assert!(is_sound(core));
    for index in 0..count {
        let block = core.get_local(index).unwrap().unwrap();
        assert!(block.iter().all(|byte| *byte == index as u8), "{index}");
    }
}

/// What the crate has in the end, of which it was given so many seconds to fetch it.
fn fetched(place: &str, port: u16, core: &Core, seconds: u64) -> Value {
    let (port, key) = (port.to_string(), core.key().to_hex());
    let (count, seconds) = (core.length().to_string(), seconds.to_string());
    let run = start(&["fetch", place, &port, &key, &count, &seconds]);
    let finished = run.finish_within(Duration::from_secs(90)).expect_code(0);
    finished.events.last().expect("it prints the core").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_fetch_what_the_crate_serves() {
    let (node, port) = listening().await;
    let mut served = Served::start("-", port);
    served.fill(SERVED, 8);
    let core = served.core(&node);
    complete(&mut served, &core, SERVED as u64).await;
    node.close().await;
}

/// Goal: the crate downloads from us what it asks for by itself, which is one block after the other: it takes no answer
/// while it works on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_fetches_what_we_serve() {
    let (node, core, port) = we_serve().await;
    core.append_batch(filled(SERVED, 8)).unwrap();
    let fetched = fetched("-", port, &core, 60);
    assert_eq!(fetched["length"], SERVED);
    assert_eq!(fetched["blocks"], blocks(&core));
    node.close().await;
}

/// Goal: who follows the length alone gets it from the crate, and no block; who reads a few blocks gets those; what was
/// cleared is fetched again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_the_crate_serves_we_fetch_what_is_asked_for() {
    let (node, port) = listening().await;
    let mut served = Served::start("-", port);
    served.fill(SERVED, 8);
    let core = served.core(&node);
    served.within(core.update()).await.unwrap();
    assert_eq!(core.length(), SERVED as u64);
    assert_eq!(core.count(0..SERVED as u64), 0);
    // One after the other: see `read_through`.
    for (count, index) in (1..).zip([41, 3, 59, 0]) {
        let block = served.within(core.get(index)).await.unwrap();
        assert_eq!(block, vec![index as u8; 8]);
        assert_eq!(core.count(0..SERVED as u64), count);
    }
    core.clear(0..SERVED as u64).unwrap();
    assert_eq!(core.count(0..SERVED as u64), 0);
    assert_eq!(served.within(core.get(41)).await.unwrap(), vec![41; 8]);
    assert_eq!(core.count(0..SERVED as u64), 1);
    assert!(is_sound(&core));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_tells_where_a_byte_is() {
    let (node, port) = listening().await;
    let mut served = Served::start("-", port);
    for size in [10, 30, 5, 400] {
        served.fill(10, size);
    }
    let core = served.core(&node);
    served.within(core.update()).await.unwrap();
    // At, in and before an edge; the last byte is the last of all.
    for (byte, expected) in [
        (100, (10, 0)),
        (133, (11, 3)),
        (399, (19, 29)),
        (4449, (39, 399)),
    ] {
        assert_eq!(
            served.within(core.seek(byte)).await.unwrap(),
            expected,
            "{byte}"
        );
    }
    assert!(core.count(0..40) < 8, "{} blocks", core.count(0..40));
    assert!(is_sound(&core));
    node.close().await;
}

/// Goal: the crate keeps an encrypted core of ours without its key, as it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_keeps_what_it_cannot_read() {
    let (node, core, port) = we_serve().await;
    let encrypted = core.with_encryption(&EncryptionKey::generate());
    encrypted.append_batch(filled(SERVED, 8)).unwrap();
    let fetched = fetched("-", port, &core, 60);
    assert_eq!(fetched["blocks"], blocks(&core));
    assert_ne!(fetched["blocks"], blocks(&encrypted));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_live_appends_of_the_crate_arrive_in_order() {
    let (node, port) = listening().await;
    let mut served = Served::start("-", port);
    let core = served.core(&node);
    let mut all = core.live_stream(0);
    // Faster than they can be fetched, and one by one.
    served.fill(50, 20);
    for index in 0..100_u8 {
        if index >= 50 {
            served.fill(1, usize::from(index));
        }
        let block = served.within(all.next()).await.unwrap().unwrap();
        let size = if index < 50 { 20 } else { usize::from(index) };
        assert_eq!(block, vec![index; size]);
    }
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_live_appends_of_ours_arrive_in_order_at_the_crate() {
    let (node, core, port) = we_serve().await;
    let (port, key) = (port.to_string(), core.key().to_hex());
    let mut reading = start(&["fetch", "-", &port, &key, "100", "60"]);
    for index in 0..100_u8 {
        let block = vec![index; usize::from(index)];
        core.append(block.clone()).unwrap();
        let told = reading.wait_for("the next block", |line| line["block"].is_string());
        assert_eq!(told["block"], text(&block));
    }
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_long_blocks_of_the_crate_arrive() {
    let (node, port) = listening().await;
    let mut served = Served::start("-", port);
    let core = served.core(&node);
    for (count, size) in [(2, 0), (3, LONG), (2, 0), (1, 1)] {
        served.fill(count, size);
    }
    complete(&mut served, &core, 8).await;
    assert_eq!(core.get(4).await.unwrap(), vec![4; LONG]);
    assert_eq!(core.get(6).await.unwrap(), "");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_long_blocks_of_ours_arrive_at_the_crate_as_long_as_it_can_read() {
    let mut exceptions = Exceptions::read("crate over a connection, frames");
    let (node, core, port) = we_serve().await;
    for (count, size) in [(2, 0), (20, LONG_FOR_IT), (2, 0), (1, 1)] {
        core.append_batch(filled(count, size)).unwrap();
    }
    let whole = fetched("-", port, &core, 60);
    assert_eq!(whole["blocks"], blocks(&core));
    core.append(vec![7; 70_000]).unwrap();
    let cut = fetched("-", port, &core, 3);
    if cut["blocks"] != blocks(&core) {
        exceptions.meet("frame: the crate reads none of more than 64 KiB");
    }
    exceptions.check();
    node.close().await;
}

/// Reads 40 blocks, one after the other, so that the crate is asked as little as can be while it reads from its disk.
async fn read_through(core: &Core) {
    core.update().await.unwrap();
    for index in 0..40 {
        let block = core.get(index).await.unwrap();
        assert!(block.iter().all(|byte| *byte == index as u8), "{index}");
    }
}

/// Goal: the crate is killed in the middle of a block that it sends; we have no part of it, and go on when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_is_killed_while_it_serves() {
    const SIZE: usize = 300_000;
    let theirs = TempDir::new().unwrap();
    let ours = TempDir::new().unwrap();
    let place = theirs.path().join("core");
    let place = place.to_str().unwrap();
    let mut had = 0;
    for passed in [2_000_000_u64, 3_345_678, u64::MAX] {
        let builder = Node::builder().dir(ours.path()).listen("127.0.0.1:0");
        let node = builder.open().await.unwrap();
        let tap = Tap::holding_dialled_after(node.listen_addr().unwrap().port(), passed);
        let mut served = Served::start(place, tap.port());
        if had == 0 {
            served.fill(40, SIZE);
        }
        let core = served.core(&node);
        if passed == u64::MAX {
            within(read_through(&core)).await;
            assert!(is_sound(&core));
            assert_eq!(core.contiguous_length(), 40);
            assert_eq!(node.stats().blocks_downloaded, 40 - had, "none twice");
        } else {
            let reading = core.clone();
            let reading = tokio::spawn(async move { read_through(&reading).await });
            tap.wait_holding();
            served.run.kill();
            tap.cut();
            let mut events = node.peers();
            within(async {
                while !node.connected().is_empty() {
                    events.next().await;
                }
            })
            .await;
            assert!(is_sound(&core));
            assert!(core.count(0..40) > had, "{} blocks", core.count(0..40));
            assert!(core.count(0..40) < 40);
            had = core.count(0..40);
            reading.abort();
            assert!(reading.await.unwrap_err().is_cancelled());
        }
        drop(core);
        node.close().await;
    }
}

/// Goal: the same for the crate as the reader, as far as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_is_killed_while_it_reads() {
    let mut exceptions = Exceptions::read("crate over a connection, killed");
    let (node, core, port) = we_serve().await;
    core.append_batch(filled(40, LONG_FOR_IT)).unwrap();
    let theirs = TempDir::new().unwrap();
    let place = theirs.path().join("core");
    let place = place.to_str().unwrap();
    let tap = Tap::holding_after(port, 1_234_567);
    let key = core.key().to_hex();
    let reading = start(&["fetch", place, &tap.port().to_string(), &key, "40", "60"]);
    tap.wait_holding();
    reading.kill();
    tap.cut();
    let left = foreign(&["read", place]);
    let left = left["blocks"].as_array().unwrap();
    let all = blocks(&core);
    let is_right = |(had, block): (&Value, &Value)| had.is_null() || had == block;
    assert!(left.iter().zip(all.as_array().unwrap()).all(is_right));
    let had = left.iter().filter(|block| block.is_string()).count();
    assert!((1..40).contains(&had), "{had}");
    let resumed = fetched(place, port, &core, 5);
    if resumed["blocks"] != all {
        let has = resumed["blocks"].as_array().unwrap();
        assert_eq!(has.iter().filter(|block| block.is_string()).count(), had);
        exceptions.meet("resume: the crate asks for nothing that it knew of before");
    }
    exceptions.check();
    node.close().await;
}

/// Goal: a log that is cut and goes on otherwise while the crate reads it is more than it follows; what it has of the old
/// history is right, and we go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_fork_while_the_crate_is_in_mid_download() {
    let mut exceptions = Exceptions::read("crate over a connection, forks");
    let (node, core, port) = we_serve().await;
    core.append_batch(filled(40, LONG_FOR_IT)).unwrap();
    let before = blocks(&core);
    let tap = Tap::holding_after(port, 1_234_567);
    let key = core.key().to_hex();
    let reading = start(&["fetch", "-", &tap.port().to_string(), &key, "40", "6"]);
    tap.wait_holding();
    core.truncate(10, None).unwrap();
    core.append_batch(filled(5, 20)).unwrap();
    tap.release();
    let finished = reading.finish_within(Duration::from_secs(90));
    let read = finished.expect_code(0).events.last().unwrap().clone();
    if read["blocks"] != blocks(&core) {
        let (read, before) = (read["blocks"].as_array(), before.as_array());
        let mut pairs = read.unwrap().iter().zip(before.unwrap());
        assert!(pairs.all(|(had, block)| had.is_null() || had == block));
        assert!(read.unwrap().iter().filter(|had| had.is_string()).count() >= 10);
        exceptions.meet("fork: the crate stays in the history that it began");
    }
    assert!(is_sound(&core));
    assert_eq!((core.fork(), core.length()), (1, 15));
    let whole = fetched("-", port, &core, 5);
    if whole["blocks"] != blocks(&core) {
        exceptions.meet("fork: the crate reads no log that was cut");
    }
    exceptions.check();
    node.close().await;
}

/// Goal: several cores on one stream are as much as the crate says it can; how far it can is known, in both directions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_several_channels_are_more_than_the_crate_reads() {
    const DIFFERENCE: &str = "batch: the crate misreads a change of channel in a frame";
    let mut exceptions = Exceptions::read("crate over a connection, several cores");
    let (node, port) = listening().await;
    let cores: Vec<Core> = (0..12)
        .map(|number| compat(&node, &number.to_string()))
        .collect();
    for core in &cores {
        core.append_batch(filled(20, 30)).unwrap();
    }
    let mut arguments = vec!["fetch-all".to_owned(), port.to_string()];
    arguments.extend(["20".to_owned(), "4".to_owned()]);
    arguments.extend(cores.iter().map(|core| core.key().to_hex()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let fetched = foreign(&arguments);
    let fetched = fetched["cores"].as_array().unwrap().iter();
    let is_whole = |(core, fetched): (&Core, &Value)| fetched["blocks"] == blocks(core);
    if !cores.iter().zip(fetched).all(is_whole) {
        exceptions.meet(DIFFERENCE);
    }

    let mut serving = start(&["serve-all", &port.to_string(), "12", "20"]);
    let told = serving.wait_for("keys", |line| line["keys"].is_array());
    let keys = told["keys"].as_array().unwrap().iter();
    let read = keys.map(|key| node.core(&key.as_str().unwrap().parse().unwrap()).unwrap());
    let read: Vec<Core> = read.collect();
    serving.say("dial");
    let downloads: Vec<_> = read.iter().map(Core::download_all).collect();
    let all = async {
        for (core, download) in read.iter().zip(&downloads) {
            core.get(19).await.unwrap();
            download.caught_up().await.unwrap();
        }
    };
    if timeout(Duration::from_secs(4), all).await.is_err() {
        exceptions.meet(DIFFERENCE);
    }
    exceptions.check();
    node.close().await;
}

/// Goal: messages of extensions cross, as far as the crate writes them as JavaScript does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_as_far_as_the_crate_writes_them_right() {
    let mut exceptions = Exceptions::read("crate over a connection, extensions");
    let (node, core, port) = we_serve().await;
    let chat = core.extension("chat").unwrap();
    let (port, key) = (port.to_string(), core.key().to_hex());
    let mut other = start(&["chat", &port, &key, "from it"]);
    let (_, message) = within(chat.next()).await;
    if message != "from it" {
        assert_eq!(message, "\x07from it", "its length, then the message");
        exceptions.meet("extension: the crate writes the length of the message before it");
    }
    // What reads as the crate has it: the length first.
    assert_eq!(chat.broadcast("\x06to you").unwrap(), 1);
    let told = other.wait_for("a message", |line| line["message"].is_string());
    assert_eq!(told["name"], "chat");
    assert_eq!(told["message"], text(b"to you"));
    exceptions.check();
    node.close().await;
}
