//! A drive: one large file over loopback TCP, the import of many small files; `fcore` and a Node peer, each
//! in processes of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::folder;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;

use super::{Run, in_turn, warm};
use crate::contender::Contender;
use crate::table::{Row, Table, Unit, Verdict};

/// The average file of a source tree.
const SMALL_FILE_BYTES: usize = 24_800;
const SMALL_FILES: usize = 10_000;
const LARGE_FILE_BYTES: usize = 1 << 30;
/// What a row writes at the most: the file into two stores and a folder.
const WRITTEN_BYTES: usize = 3 * LARGE_FILE_BYTES;

/// Rounds of a suite of cores for which this one does one: its jobs take many seconds.
const ROUNDS_EACH: u32 = 5;

const RECEIVE: Row = row("receive", "receive a file of 1 GiB over TCP", Unit::Seconds);
const RECEIVE_PEAK: Row = row("receive-memory", "its peak memory", Unit::Bytes);
const IMPORT: Row = Row {
    aim: Some(8.0),
    ..row("import", "import 10,000 files, 248 MB", Unit::Seconds)
};
const IMPORT_PEAK: Row = row("import-memory", "its peak memory", Unit::Bytes);
pub(crate) const ROWS: &[Row] = &[RECEIVE, IMPORT];

const fn row(id: &'static str, job: &'static str, unit: Unit) -> Row {
    let aim = None;
    Row { id, job, unit, aim }
}

/// What one side took for one job.
struct Measured {
    seconds: f64,
    peak: u64,
}

/// Measures every row that was asked for.
pub(crate) fn measure(run: &Run) -> Table {
    let contenders = run.contenders(&[Contender::Node11, Contender::Ferrocore]);
    let columns = contenders.iter().map(|who| who.name()).collect();
    let mut table = Table::new("A drive", columns, Verdict::Ratio);
    let rows = run.pick(ROWS);
    if rows.is_empty() {
        return table;
    }
    let (large, small) = (run.scratch.join("large"), run.scratch.join("small"));
    make_folders(&large, &small);
    let _ = Fcore::new(&run.scratch).command(["version"]); // builds it, which is not to be timed
    for round in 0..run.rounds.div_ceil(ROUNDS_EACH) {
        for row in &rows {
            for who in in_turn(&contenders, round) {
                let scratch = run.scratch.join("drive");
                warm(WRITTEN_BYTES);
                let (measured, peak) = match (row.id, who) {
                    ("receive", Contender::Ferrocore) => {
                        (fcore_transfer(&large, &scratch), RECEIVE_PEAK)
                    }
                    ("receive", _) => (node_transfer(&large, &scratch), RECEIVE_PEAK),
                    (_, Contender::Ferrocore) => (fcore_import(&small, &scratch), IMPORT_PEAK),
                    _ => (node_import(&small, &scratch), IMPORT_PEAK),
                };
                table.add(row, who.name(), measured.seconds);
                table.add(&peak, who.name(), measured.peak as f64);
                std::fs::remove_dir_all(&scratch).expect("what was just written can be removed");
            }
        }
    }
    table
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

fn make_folders(large: &Path, small: &Path) {
    std::fs::create_dir_all(large).expect("the temporary folder is writable");
    folder::write_random(&large.join("file"), LARGE_FILE_BYTES, 1);
    for i in 0..SMALL_FILES {
        let dir = small.join(format!("{:02}", i % 64));
        std::fs::create_dir_all(&dir).expect("the temporary folder is writable");
        folder::write_random(&dir.join(i.to_string()), SMALL_FILE_BYTES, 1 + i as u64);
    }
}
