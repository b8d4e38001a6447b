//! The DHT: hyperdht and ferrocore, each with a network of its own in one process on loopback.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
const CONNECTS: Row = row(
    "dht-connect",
    "connections dialled by key, 16 at a time among 16 clients and 16 servers, a byte there and back",
    Unit::PerSecond,
    None,
);
const IDLE: Row = row(
    "dht-idle",
    "memory of 5,000 idle connections, for each with both its ends",
    Unit::Bytes,
    Some(10.0),
);
const IDLE_MORE: Row = row(
    "dht-idle-more",
    "the same of 5,000 more",
    Unit::Bytes,
    Some(10.0),
);
const IDLE_TIME: Row = row(
    "dht-idle-time",
    "processor time of 5,000 idle connections in 30 s, both ends",
    Unit::Seconds,
    None,
);
pub(crate) const ROWS: &[Row] = &[BOOT, MEMORY, LOOKUPS, CONNECTS];
pub(crate) const IDLE_ROWS: &[Row] = &[IDLE, IDLE_MORE, IDLE_TIME];

const NODES: u64 = 1_000;

/// Nodes of the network that idle connections are made over.
const FEW_NODES: u64 = 10;
const IDLE_CONNECTIONS: u64 = 5_000;

/// A thousand nodes of JavaScript take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

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
    let (rows, idle_rows) = (run.pick(ROWS), run.pick(IDLE_ROWS));
    for round in 0..run.rounds {
        for who in in_turn(&contenders, round) {
            if !rows.is_empty() {
                let mut peer = who.start();
                let network = network(&mut peer, NODES);
                for row in &rows {
                    let sample = sample(row, &mut peer, &network);
                    table.add(row, who.name(), sample.expect(TELLS));
                }
            }
            if !idle_rows.is_empty() {
                let samples = idle(who).expect(TELLS);
                for row in &idle_rows {
                    let sample = samples.iter().find(|(id, _)| *id == row.id);
                    table.add(row, who.name(), sample.expect("every row has one").1);
                }
            }
        }
    }
    table
}

const TELLS: &str = "the worker says what it measured";

fn network(peer: &mut Peer, nodes: u64) -> Value {
    call(peer, "network", json!({ "nodes": nodes, "at_once": 32 }))
}

fn sample(row: &Row, peer: &mut Peer, network: &Value) -> Option<f64> {
    match row.id {
        "dht-boot" => network["seconds"].as_f64(),
        "dht-memory" => Some(network["bytes"].as_f64()? / NODES as f64),
        "dht-connect" => {
            let job = json!({ "peers": 16, "count": 1_000, "at_once": 16 });
            let done = call(peer, "connects", job.clone());
            rate(&job, &done)
        }
        _ => {
            let job = json!({ "topics": 20, "count": 2_000, "at_once": 16 });
            let done = call(peer, "lookups", job.clone());
            rate(&job, &done)
        }
    }
}

/// Memory of a connection, that of one of as many more, and processor time.
fn idle(who: Who) -> Option<[(&'static str, f64); 3]> {
    let mut peer = who.start();
    network(&mut peer, FEW_NODES);
    let job = json!({ "peers": 8, "count": IDLE_CONNECTIONS, "at_once": 16, "seconds": 30 });
    let [first, more] = [(); 2].map(|()| {
        let done = call(&mut peer, "idle", job.clone());
        if done["ended"] != 0 {
            eprintln!(
                "{}: idle connections that have ended: {}",
                who.name(),
                done["ended"]
            );
        }
        rate(&job, &done["made"]).map(|_| done)
    });
    let (first, more) = (first?, more?);
    let each = |done: &Value| Some(done["bytes"].as_f64()? / IDLE_CONNECTIONS as f64);
    Some([
        (IDLE.id, each(&first)?),
        (IDLE_MORE.id, each(&more)?),
        (IDLE_TIME.id, first["processor"].as_f64()?),
    ])
}

fn call(peer: &mut Peer, name: &str, job: Value) -> Value {
    let call = peer.begin(name, job);
    peer.finish_within(call, PATIENCE)
        .expect("an answer in time")
}

/// Successes a second; all must succeed.
fn rate(job: &Value, done: &Value) -> Option<f64> {
    assert_eq!(done["found"], job["count"], "not all succeeded");
    Some(job["count"].as_f64()? / done["seconds"].as_f64()?)
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
