//! One core on disk: append, get, open, and the memory of a long sparse one.

use std::path::{Path, PathBuf};

use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};

use super::{Run, in_turn, warm};
use crate::contender::Contender;
use crate::seed::Seed;
use crate::table::{Row, Table, Unit, Verdict};

const BLOCK_BYTES: usize = 100;
/// Appends in a row: so many that our journal is flushed on the way.
const APPENDS: u64 = 12_000;
const BATCH: u64 = 1_000;
const BATCHED: u64 = 100_000;
/// More than a row writes.
const WRITTEN_BYTES: usize = 64 << 20;
const READS: u64 = 100_000;
const READS_IN_FLIGHT: u64 = 256;
/// Blocks of the core that is opened and read.
const LENGTH: u64 = 100_000;
/// Times it is opened in a round.
const OPENS: u64 = 5;
/// Blocks of the core of which few are here.
const SPARSE_LENGTH: u64 = 10_000_000;
const SPARSE_BLOCKS: u64 = 2_000;

const APPEND: Row = Row {
    id: "append",
    job: "append a block of 100 B, one by one",
    unit: Unit::PerSecond,
    aim: Some(5.0),
};
const APPEND_BATCH: Row = Row {
    id: "append-batch",
    job: "append blocks of 100 B, 1,000 at once",
    unit: Unit::PerSecond,
    aim: Some(15.0),
};
const GET: Row = Row {
    id: "get",
    job: "get a random block of 100,000, one by one",
    unit: Unit::PerSecond,
    aim: Some(8.0),
};
const GET_MANY: Row = Row {
    id: "get-many",
    job: "get random blocks of 100,000, 256 in flight",
    unit: Unit::PerSecond,
    aim: Some(8.0),
};
const OPEN: Row = Row {
    id: "open",
    job: "open a core of 100,000 blocks",
    unit: Unit::Seconds,
    aim: None,
};
const MEMORY: Row = Row {
    id: "memory",
    job: "memory with a core of 10 million blocks open, 2,000 of them here and read",
    unit: Unit::Bytes,
    aim: Some(10.0),
};
pub(crate) const ROWS: &[Row] = &[APPEND, APPEND_BATCH, GET, GET_MANY, OPEN, MEMORY];

/// Measures every row that was asked for.
pub(crate) fn measure(run: &Run) -> Table {
    let contenders = run.contenders(&Contender::ALL);
    let columns = contenders.iter().map(|who| who.name()).collect();
    let mut table = Table::new("One core on disk", columns, Verdict::Ratio);
    let rows = run.pick(ROWS);
    let seed = Seed::serve(SPARSE_LENGTH, BLOCK_BYTES);
    let mut sides: Vec<_> = contenders
        .iter()
        .map(|who| Side::prepare(*who, run, &rows, &seed))
        .collect();
    let order: Vec<usize> = (0..sides.len()).collect();
    for round in 0..run.rounds {
        for row in &rows {
            for at in in_turn(&order, round) {
                let name = sides[at].who.name();
                warm(WRITTEN_BYTES);
                for sample in sides[at].measure(row) {
                    table.add(row, name, sample);
                }
            }
        }
    }
    table
}

/// A contender with its process and its cores.
struct Side {
    who: Contender,
    peer: Peer,
    dir: PathBuf,
    key: String,
    appended: u64,
}

impl Side {
    fn prepare(who: Contender, run: &Run, rows: &[&Row], seed: &Seed) -> Self {
        let dir = run.scratch.join(who.name().replace([' ', ','], "-"));
        std::fs::create_dir_all(&dir).expect("the scratch folder is writable");
        let mut side = Self {
            who,
            peer: who.start("log.mjs"),
            dir,
            key: seed.key.to_hex(),
            appended: 0,
        };
        let wants = |wanted: &[Row]| rows.iter().any(|row| wanted.iter().any(|w| w.id == row.id));
        if wants(&[GET, GET_MANY, OPEN]) {
            let arguments = json!({
                "dir": side.dir.join("full"), "count": LENGTH, "size": BLOCK_BYTES, "batch": BATCH,
            });
            side.peer.call("append_batches", arguments);
        }
        if wants(&[MEMORY]) {
            side.fetch(seed.port);
        }
        side
    }

    /// Does the job of `row` once, or as often as a round asks for.
    fn measure(&mut self, row: &Row) -> Vec<f64> {
        let full = self.dir.join("full");
        match row.id {
            "append" => vec![self.append("append", APPENDS)],
            "append-batch" => vec![self.append("append_batches", BATCHED)],
            "get" => vec![self.get(&full, 1)],
            "get-many" => vec![self.get(&full, READS_IN_FLIGHT)],
            "open" => (0..OPENS).map(|_| self.open(&full)).collect(),
            "memory" => vec![self.hold()],
            id => unreachable!("no row is called {id}"),
        }
    }

    fn append(&mut self, command: &str, count: u64) -> f64 {
        self.appended += 1;
        let dir = self.dir.join(format!("appended-{}", self.appended));
        let arguments = json!({ "dir": dir, "count": count, "size": BLOCK_BYTES, "batch": BATCH });
        let seconds = seconds(&self.peer.call(command, arguments));
        std::fs::remove_dir_all(&dir).expect("what was just written can be removed");
        count as f64 / seconds
    }

    fn get(&mut self, dir: &Path, in_flight: u64) -> f64 {
        let arguments =
            json!({ "dir": dir, "count": READS, "size": BLOCK_BYTES, "in_flight": in_flight });
        READS as f64 / seconds(&self.peer.call("get", arguments))
    }

    fn open(&mut self, dir: &Path) -> f64 {
        seconds(
            &self
                .peer
                .call("open", json!({ "dir": dir, "length": LENGTH })),
        )
    }

    fn fetch(&mut self, port: u16) {
        let arguments = json!({
            "dir": self.dir.join("sparse"), "key": self.key, "port": port,
            "length": SPARSE_LENGTH, "count": SPARSE_BLOCKS,
        });
        self.peer.call("fetch", arguments);
    }

    /// In a process of its own, which has done nothing else.
    fn hold(&self) -> f64 {
        let arguments = json!({
            "dir": self.dir.join("sparse"), "key": self.key,
            "length": SPARSE_LENGTH, "count": SPARSE_BLOCKS,
        });
        let held = self.who.start("log.mjs").call("hold", arguments);
        held["bytes"].as_f64().expect("`hold` tells bytes")
    }
}

fn seconds(answer: &Value) -> f64 {
    answer["seconds"].as_f64().expect("jobs tell their time")
}
