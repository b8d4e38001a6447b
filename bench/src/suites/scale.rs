//! What a block costs in a short core and in a long one: it must not grow with the length.

use std::path::{Path, PathBuf};

use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};

use super::{Run, in_turn};
use crate::contender::Contender;
use crate::table::{Row, Table, Unit, Verdict};

const BLOCK_BYTES: usize = 100;
const LENGTHS: [(&str, u64); 3] = [
    ("1,000", 1_000),
    ("100,000", 100_000),
    ("10,000,000", 10_000_000),
];
/// Blocks appended at once while the cores are made.
const MAKE_BATCH: u64 = 1_000;
const APPENDS: u64 = 5_000;
/// So many that the long core, too, is met again in places.
const READS: u64 = 200_000;
/// Blocks read before those, once: so many that nearly every page of the long core has been met.
const READS_BEFORE: u64 = 1_000_000;
const OPENS: u64 = 5;

const APPEND: Row = row("scale-append", "append a block of 100 B", Unit::Seconds);
const MAKE: Row = row(
    "scale-make",
    "append it among 1,000, from none on",
    Unit::Seconds,
);
const GET: Row = row(
    "scale-get",
    "get a random block, 200,000 in a row",
    Unit::Seconds,
);
const GET_WARM: Row = row(
    "scale-get-warm",
    "the same after 1,000,000 others",
    Unit::Seconds,
);
const GET_READS: Row = row("scale-get-reads", "reads of files for a get", Unit::Each);
const GET_BYTES: Row = row("scale-get-bytes", "bytes read for a get", Unit::Each);
const WARM_READS: Row = row(
    "scale-get-warm-reads",
    "reads of files for a get after the others",
    Unit::Each,
);
const WARM_BYTES: Row = row(
    "scale-get-warm-bytes",
    "bytes read for a get after the others",
    Unit::Each,
);
/// The least that the machine asks for the rows above in a long core: the rest of the growth is ours.
const GET_FLOOR: Row = row(
    "scale-get-floor",
    "two bare reads for each of the same blocks, leaf and bytes",
    Unit::Seconds,
);
const OPEN: Row = row("scale-open", "open the core", Unit::Seconds);
const MEMORY: Row = row(
    "scale-memory",
    "memory with it open, all blocks here",
    Unit::Bytes,
);
pub(crate) const ROWS: &[Row] = &[
    APPEND, MAKE, GET, GET_WARM, GET_FLOOR, GET_READS, GET_BYTES, WARM_READS, WARM_BYTES, OPEN,
    MEMORY,
];

const fn row(id: &'static str, job: &'static str, unit: Unit) -> Row {
    let aim = None;
    Row { id, job, unit, aim }
}

/// Measures every row that was asked for, with ferrocore alone.
pub(crate) fn measure(run: &Run) -> Table {
    let columns = LENGTHS.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(
        "A block's cost by the length of its core",
        columns,
        Verdict::Growth,
    );
    let rows = run.pick(ROWS);
    if rows.is_empty() {
        return table;
    }
    let mut peer = Contender::Ferrocore.start("log.mjs");
    let mut cores: Vec<_> = LENGTHS
        .iter()
        .map(|(name, length)| {
            let dir = run.scratch.join(format!("scale-{length}"));
            let (core, each) = Core::make(&mut peer, dir, *length);
            table.add(&MAKE, name, each);
            core
        })
        .collect();
    for round in 0..run.rounds {
        for row in &rows {
            for at in in_turn(&[0, 1, 2], round) {
                for sample in cores[at].measure(&mut peer, row) {
                    table.add(row, LENGTHS[at].0, sample);
                }
            }
        }
    }
    table
}

/// A core that grows a little as its appends are measured.
struct Core {
    dir: PathBuf,
    length: u64,
}

impl Core {
    /// Makes one of `length` blocks, and tells what each took.
    fn make(peer: &mut Peer, dir: PathBuf, length: u64) -> (Self, f64) {
        let mut core = Self { dir, length: 0 };
        let mut taken = 0.0;
        while core.length < length {
            // A call has a deadline.
            let count = (length - core.length).min(1_000_000);
            taken += core.append(peer, "append_batches", count);
        }
        let each = taken / length as f64;
        (core, each)
    }

    fn measure(&mut self, peer: &mut Peer, row: &Row) -> Vec<f64> {
        match row.id {
            "scale-append" => vec![self.append(peer, "append", APPENDS) / APPENDS as f64],
            "scale-get" => vec![self.get(peer, "get", 0, "seconds")],
            "scale-get-warm" => vec![self.get(peer, "get", READS_BEFORE, "seconds")],
            "scale-get-floor" => vec![self.get(peer, "read_raw", 0, "seconds")],
            "scale-get-reads" => vec![self.get(peer, "get", 0, "reads")],
            "scale-get-bytes" => vec![self.get(peer, "get", 0, "read_bytes")],
            "scale-get-warm-reads" => vec![self.get(peer, "get", READS_BEFORE, "reads")],
            "scale-get-warm-bytes" => vec![self.get(peer, "get", READS_BEFORE, "read_bytes")],
            "scale-open" => (0..OPENS).map(|_| self.open(peer)).collect(),
            "scale-memory" => vec![memory(&self.dir, self.length)],
            _ => Vec::new(), // measured as the cores are made
        }
    }

    /// Appends, and tells how long all of it took.
    fn append(&mut self, peer: &mut Peer, command: &str, count: u64) -> f64 {
        let arguments = json!({
            "dir": self.dir, "count": count, "size": BLOCK_BYTES, "batch": MAKE_BATCH,
        });
        let answer = peer.call(command, arguments);
        self.length = answer["length"]
            .as_u64()
            .expect("an append tells the length");
        seconds(&answer)
    }

    /// Reads random blocks, and tells what each took of `what`.
    fn get(&self, peer: &mut Peer, command: &str, warm: u64, what: &str) -> f64 {
        let arguments = json!({
            "dir": self.dir, "count": READS, "size": BLOCK_BYTES, "in_flight": 1, "warm": warm,
        });
        let answer = peer.call(command, arguments);
        answer[what].as_f64().expect("a get tells what it took") / READS as f64
    }

    fn open(&self, peer: &mut Peer) -> f64 {
        let arguments = json!({ "dir": self.dir, "length": self.length });
        seconds(&peer.call("open", arguments))
    }
}

fn memory(dir: &Path, length: u64) -> f64 {
    let arguments = json!({ "dir": dir, "length": length, "count": 1_000 });
    let held = Contender::Ferrocore
        .start("log.mjs")
        .call("hold", arguments);
    held["bytes"].as_f64().expect("`hold` tells bytes")
}

fn seconds(answer: &Value) -> f64 {
    answer["seconds"].as_f64().expect("jobs tell their time")
}
