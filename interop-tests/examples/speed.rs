//! Measures `fcore` beside Node on this machine: one large file over loopback TCP, and the import
//! of many small files. Prints a table; the figures in the documentation come from here.
//!
//! Usage: `cargo run --release -p ferrocore-interop-tests --example speed [MIB] [FILES]`
#![cfg(unix)]

use std::path::Path;
use std::time::{Duration, Instant};

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::folder;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;

/// The average file of a source tree.
const SMALL_FILE_BYTES: usize = 24_800;

/// What one side took for one job.
struct Measured {
    seconds: f64,
    peak: u64,
}

fn main() {
    let mut sizes = std::env::args()
        .skip(1)
        .map(|size| size.parse().expect("sizes are whole numbers"));
    let mib: usize = sizes.next().unwrap_or(1024);
    let files: usize = sizes.next().unwrap_or(10_000);
    let scratch = tempfile::tempdir().expect("the temporary folder is writable");
    let (large, small) = (scratch.path().join("large"), scratch.path().join("small"));
    make_folders(&large, mib, &small, files);

    println!("| job | who | seconds | rate | peak memory |\n|---|---|---|---|---|");
    let at = |name: &str| scratch.path().join(name);
    let rate =
        |measured: &Measured| format!("{:.0} MB/s", (mib << 20) as f64 / 1e6 / measured.seconds);
    let job = format!("receive {mib} MiB over TCP");
    let node = node_transfer(&large, &at("node-transfer"));
    print_row(&job, "Node", &node, &rate(&node));
    let fcore = fcore_transfer(&large, &at("fcore-transfer"));
    print_row(&job, "fcore", &fcore, &rate(&fcore));

    let rate = |measured: &Measured| format!("{:.0} files/s", files as f64 / measured.seconds);
    let job = format!("import {files} files");
    let node = node_import(&small, &at("node-import"));
    print_row(&job, "Node", &node, &rate(&node));
    let fcore = fcore_import(&small, &at("fcore-import"));
    print_row(&job, "fcore", &fcore, &rate(&fcore));
}

/// From the connection to the last byte of the file, with the core on disk too. Node is faster
/// when it fetches all blocks before it writes the file than when it mirrors at once.
fn node_transfer(source: &Path, scratch: &Path) -> Measured {
    let mut writer = Peer::start(Tree::Current, Role::Drive, &scratch.join("writer"));
    let key = writer.call("open", json!({}))["key"].clone();
    let version = writer.call("import", json!({ "dir": source }))["version"].clone();
    let port = writer.listen();
    let mut reader = Peer::start(Tree::Current, Role::Drive, &scratch.join("reader"));
    reader.call("open", json!({ "key": key }));
    timed_node(&mut reader, |reader| {
        reader.connect(port);
        reader.call("reach", json!({ "version": version }));
        reader.call("download", json!({}));
        reader.call("export", json!({ "dir": scratch.join("target") }));
    })
}

fn fcore_transfer(source: &Path, scratch: &Path) -> Measured {
    let mut share = Fcore::new(scratch.join("writer")).start([
        "share".as_ref(),
        source.as_os_str(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
    ]);
    let (port, ready) = share.wait_ready();
    let key = ready["key"]
        .as_str()
        .expect("`ready` names the key")
        .to_owned();
    let (target, peer) = (scratch.join("target"), format!("127.0.0.1:{port}"));
    let start = Instant::now();
    // `--live` keeps the process, and so its memory figure, after the last byte.
    let mut get = Fcore::new(scratch.join("reader")).start([
        "get".as_ref(),
        key.as_ref(),
        target.as_os_str(),
        "--live".as_ref(),
        "--peer".as_ref(),
        peer.as_ref(),
    ]);
    get.wait_event("synced");
    measured(start.elapsed(), get.peak_memory())
}

fn node_import(source: &Path, scratch: &Path) -> Measured {
    let mut writer = Peer::start(Tree::Current, Role::Drive, scratch);
    writer.call("open", json!({}));
    timed_node(&mut writer, |writer| {
        writer.call("import", json!({ "dir": source }));
    })
}

fn fcore_import(source: &Path, scratch: &Path) -> Measured {
    let start = Instant::now();
    let mut share = Fcore::new(scratch).start([
        "share".as_ref(),
        source.as_os_str(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
    ]);
    share.wait_ready();
    measured(start.elapsed(), share.peak_memory())
}

fn timed_node(peer: &mut Peer, job: impl FnOnce(&mut Peer)) -> Measured {
    let start = Instant::now();
    job(peer);
    let elapsed = start.elapsed();
    measured(elapsed, peer.call("memory", json!({}))["peak"].as_u64())
}

fn measured(elapsed: Duration, peak: Option<u64>) -> Measured {
    Measured {
        seconds: elapsed.as_secs_f64(),
        peak: peak.unwrap_or(0),
    }
}

fn make_folders(large: &Path, mib: usize, small: &Path, files: usize) {
    std::fs::create_dir_all(large).expect("the temporary folder is writable");
    folder::write_random(&large.join("file"), mib << 20, 1);
    for i in 0..files {
        let dir = small.join(format!("{:02}", i % 64));
        std::fs::create_dir_all(&dir).expect("the temporary folder is writable");
        folder::write_random(&dir.join(i.to_string()), SMALL_FILE_BYTES, 1 + i as u64);
    }
}

fn print_row(job: &str, who: &str, measured: &Measured, rate: &str) {
    let peak = measured.peak as f64 / 1e6;
    println!(
        "| {job} | {who} | {:.2} | {rate} | {peak:.0} MB |",
        measured.seconds
    );
}
