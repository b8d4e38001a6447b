//! The DHT: hyperdht and ferrocore, each with a network of its own in one process on loopback.

use std::path::Path;
use std::process::Command;

use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};

use super::{Run, in_turn};
use crate::table::{Row, Table, Unit, Verdict};

const BOOT: Row = row(
    "dht-boot",
    "1,000 nodes in one process: until all have joined, 32 at a time",
    Unit::Seconds,
    None,
);
const MEMORY: Row = row("dht-memory", "memory a node", Unit::Bytes, Some(10.0));
const LOOKUPS: Row = row(
    "dht-lookup",
    "lookups to their end, 16 at a time",
    Unit::PerSecond,
    None,
);
const ROWS: &[Row] = &[BOOT, MEMORY, LOOKUPS];

const NODES: u64 = 1_000;

const fn row(id: &'static str, job: &'static str, unit: Unit, aim: Option<f64>) -> Row {
    Row { id, job, unit, aim }
}

/// Whose network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    HyperDht,
    Ours,
}

/// Measures the rows that were asked for. Each contender's network serves all of them.
pub(crate) fn measure(run: &Run) -> Table {
    let all = [Who::HyperDht, Who::Ours].into_iter();
    let contenders: Vec<_> = all.filter(|who| !run.alone || *who == Who::Ours).collect();
    let columns = contenders.iter().map(|who| who.name()).collect();
    let mut table = Table::new("DHT: hyperdht 6.34 and ferrocore", columns, Verdict::Ratio);
    let rows = run.pick(ROWS);
    for round in 0..run.rounds {
        for who in in_turn(&contenders, round) {
            if rows.is_empty() {
                continue;
            }
            let mut peer = who.start();
            let network = peer.call("network", json!({ "nodes": NODES, "at_once": 32 }));
            for row in &rows {
                let sample = sample(row, &mut peer, &network);
                table.add(
                    row,
                    who.name(),
                    sample.expect("the worker says what it measured"),
                );
            }
        }
    }
    table
}

fn sample(row: &Row, peer: &mut Peer, network: &Value) -> Option<f64> {
    match row.id {
        "dht-boot" => network["seconds"].as_f64(),
        "dht-memory" => Some(network["bytes"].as_f64()? / NODES as f64),
        _ => rate(
            peer,
            "lookups",
            json!({ "topics": 20, "count": 2_000, "at_once": 16 }),
        ),
    }
}

/// Successes a second; all must succeed.
fn rate(peer: &mut Peer, name: &str, job: Value) -> Option<f64> {
    let count = job["count"].clone();
    let done = peer.call(name, job);
    assert_eq!(done["found"], count, "{name}: not all succeeded");
    Some(count.as_f64()? / done["seconds"].as_f64()?)
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::HyperDht => "hyperdht",
            Self::Ours => "ferrocore",
        }
    }

    fn start(self) -> Peer {
        let mut command = match self {
            Self::HyperDht => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/dht.mjs");
                let mut command = Command::new("node");
                command.arg(script).arg(node::ensure(Tree::Current));
                command
            }
            Self::Ours => {
                let this = std::env::current_exe().expect("the system tells a program its path");
                let mut command = Command::new(this);
                command.arg("work-dht");
                command
            }
        };
        Peer::run(self.name(), &mut command)
    }
}
