//! One core over loopback TCP between two processes, with either side at either end; and what a block costs
//! in a short core and a long one, from one peer and from many.

use std::path::Path;

use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};

use super::{Run, in_turn, warm};
use crate::contender::Contender;
use crate::seed::Seed;
use crate::table::{Row, Table, Unit, Verdict};

/// What is replicated.
struct Load {
    rate: Row,
    wire: Row,
    messages: Row,
    spent: Row,
    peak: Row,
    count: u64,
    size: usize,
    /// Blocks appended at once while it is made.
    batch: u64,
}

const LOADS: [Load; 2] = [
    Load {
        rate: row(
            "bulk",
            "512 MiB in blocks of 64 KiB",
            Unit::BytesPerSecond,
            Some(5.0),
        ),
        wire: row(
            "bulk-wire",
            "bytes on the wire for one of payload",
            Unit::Each,
            None,
        ),
        messages: row("bulk-messages", "messages for one block", Unit::Each, None),
        spent: row(
            "bulk-processor",
            "processor time for a block, of both ends",
            Unit::Seconds,
            None,
        ),
        peak: row(
            "bulk-memory",
            "peak memory of who receives",
            Unit::Bytes,
            None,
        ),
        count: 8_192,
        size: 65_536,
        batch: 64,
    },
    Load {
        rate: row(
            "small",
            "200,000 blocks of 100 B",
            Unit::PerSecond,
            Some(30.0),
        ),
        wire: row(
            "small-wire",
            "bytes on the wire for one of payload",
            Unit::Each,
            None,
        ),
        messages: row("small-messages", "messages for one block", Unit::Each, None),
        spent: row(
            "small-processor",
            "processor time for a block, of both ends",
            Unit::Seconds,
            None,
        ),
        peak: row(
            "small-memory",
            "peak memory of who receives",
            Unit::Bytes,
            Some(10.0),
        ),
        count: 200_000,
        size: 100,
        batch: 1_000,
    },
];
pub(crate) const RATES: &[Row] = &[LOADS[0].rate, LOADS[1].rate];

/// From whom, to whom; Node to Node first, which is what the others are held against: left to the system, and with the
/// receiver, which is the slower end, on one processor.
const PAIRS: [(&str, Contender, Contender); 5] = [
    ("Node 11 to Node 11", Contender::Node11, Contender::Node11),
    (
        "Node 11 to Node 11 on one core",
        Contender::Node11,
        Contender::Node11Pinned,
    ),
    ("Node 11 to us", Contender::Node11, Contender::Ferrocore),
    ("us to Node 11", Contender::Ferrocore, Contender::Node11),
    ("us to us", Contender::Ferrocore, Contender::Ferrocore),
];

/// Pairs of Node alone.
const NODE_ALONE: usize = 2;

/// Rounds of a suite of cores for which this one does one: its jobs take many seconds.
const ROUNDS_EACH: u32 = 2;

const GROWTH: Row = row(
    "replicate-length",
    "download a block of 100 B",
    Unit::Seconds,
    None,
);
const PEERS: Row = row(
    "replicate-peers",
    "download a block of 100 B",
    Unit::Seconds,
    None,
);
/// The rows of the tables that are not about rates.
pub(crate) const GROWING: &[Row] = &[GROWTH, PEERS];
const LENGTHS: [(&str, u64); 3] = [
    ("1,000", 1_000),
    ("100,000", 100_000),
    ("10,000,000", 10_000_000),
];
const PEER_COUNTS: [(&str, usize); 3] = [("1 peer", 1), ("8 peers", 8), ("64 peers", 64)];
/// Blocks that are fetched of a long core.
const FETCHED: u64 = 50_000;
const BLOCK_BYTES: usize = 100;

const fn row(id: &'static str, job: &'static str, unit: Unit, aim: Option<f64>) -> Row {
    Row { id, job, unit, aim }
}

/// Measures every row that was asked for, between all pairs.
pub(crate) fn measure(run: &Run) -> Table {
    let pairs: Vec<_> = PAIRS
        .iter()
        .filter(|(_, from, to)| !run.alone || (*from == *to && *to == Contender::Ferrocore))
        .collect();
    let columns = pairs.iter().map(|(name, _, _)| *name).collect();
    let mut table = Table::new(
        "One core over loopback TCP",
        columns,
        Verdict::First(NODE_ALONE),
    );
    let rows = run.pick(RATES);
    for load in LOADS
        .iter()
        .filter(|load| rows.iter().any(|row| row.id == load.rate.id))
    {
        let mut supplies = Supply::start_all(run, load);
        for round in 0..run.rounds.div_ceil(ROUNDS_EACH) {
            for (name, from, to) in in_turn(&pairs, round) {
                let supply = supplies.iter_mut().find(|supply| supply.who == *from);
                let supply = supply.expect("one was started for each");
                warm(2 * load.size * load.count as usize);
                let before = spent(&mut supply.peer);
                let downloaded = download(&run.scratch, *to, supply.job(load));
                let (measured, receiver) = (&downloaded.measured, downloaded.spent);
                let sender = spent(&mut supply.peer) - before;
                let payload = (load.count * load.size as u64) as f64;
                let unit = match load.rate.unit {
                    Unit::BytesPerSecond => payload,
                    _ => load.count as f64,
                };
                table.add(&load.rate, name, unit / number(measured, "seconds"));
                table.add(&load.wire, name, number(measured, "wire") / payload);
                let messages = number(measured, "messages") / load.count as f64;
                table.add(&load.messages, name, messages);
                let spent = (sender + receiver) / load.count as f64;
                table.add(&load.spent, name, spent);
                table.add(&load.peak, name, downloaded.peak as f64);
            }
        }
    }
    table
}

/// What a block costs by the length of its core.
pub(crate) fn measure_growth(run: &Run) -> Table {
    let columns = LENGTHS.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(
        "A block over loopback by the length of its core",
        columns,
        Verdict::Growth,
    );
    if run.pick(&[GROWTH]).is_empty() {
        return table;
    }
    for (name, length) in LENGTHS {
        let seed = Seed::serve(length, BLOCK_BYTES);
        let count = FETCHED.min(length);
        // What is fetched of the long one lies where its tree is deepest.
        let job = json!({
            "key": seed.key.to_hex(), "port": seed.port,
            "length": length, "start": (length - count) / 2, "count": count,
        });
        for _ in 0..run.rounds {
            let downloaded = download(&run.scratch, Contender::Ferrocore, job.clone());
            let seconds = number(&downloaded.measured, "seconds");
            table.add(&GROWTH, name, seconds / count as f64);
        }
    }
    table
}

/// What a block costs by the number of peers it may come from.
pub(crate) fn measure_peers(run: &Run) -> Table {
    let columns = PEER_COUNTS.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(
        "A block over loopback by the number of peers",
        columns,
        Verdict::Growth,
    );
    if run.pick(&[PEERS]).is_empty() {
        return table;
    }
    let seed = Seed::serve(2 * FETCHED, BLOCK_BYTES);
    for (name, peers) in PEER_COUNTS {
        let job = json!({
            "key": seed.key.to_hex(), "port": seed.port,
            "length": 2 * FETCHED, "count": FETCHED, "peers": peers,
        });
        for _ in 0..run.rounds {
            let downloaded = download(&run.scratch, Contender::Ferrocore, job.clone());
            let seconds = number(&downloaded.measured, "seconds");
            table.add(&PEERS, name, seconds / FETCHED as f64);
        }
    }
    table
}

/// A process that serves a load.
struct Supply {
    who: Contender,
    key: String,
    port: u64,
    peer: Peer,
}

impl Supply {
    fn start_all(run: &Run, load: &Load) -> Vec<Self> {
        let contenders = run.contenders(&[Contender::Node11, Contender::Ferrocore]);
        let start = |who: &Contender| Self::start(*who, &run.scratch, load);
        contenders.iter().map(start).collect()
    }

    fn start(who: Contender, scratch: &Path, load: &Load) -> Self {
        let dir = scratch.join(format!("{}-{}", load.rate.id, who.name()));
        let mut peer = who.start("log.mjs");
        let blocks = json!({
            "dir": dir, "count": load.count, "size": load.size, "batch": load.batch,
        });
        peer.call("append_batches", blocks);
        let supplied = peer.call("supply", json!({ "dir": dir }));
        Self {
            who,
            key: supplied["key"]
                .as_str()
                .expect("it tells the key")
                .to_owned(),
            port: supplied["port"].as_u64().expect("it tells the port"),
            peer,
        }
    }

    fn job(&self, load: &Load) -> Value {
        json!({ "key": self.key, "port": self.port, "length": load.count })
    }
}

/// A download by a process of its own.
struct Downloaded {
    /// What it told.
    measured: Value,
    /// Processor time it took, in seconds, its start not counted.
    spent: f64,
    /// The most memory it held at once, in bytes.
    peak: u64,
}

/// Has a fresh process download into an empty folder.
fn download(scratch: &Path, who: Contender, mut job: Value) -> Downloaded {
    let dir = scratch.join("downloaded");
    job["dir"] = json!(dir);
    let mut peer = who.start("log.mjs");
    let before = spent(&mut peer);
    let measured = peer.call("download", job);
    let spent = spent(&mut peer) - before;
    let peak = peer.peak_memory().expect("it still runs");
    std::fs::remove_dir_all(&dir).expect("what was just written can be removed");
    Downloaded {
        measured,
        spent,
        peak,
    }
}

/// Processor time that a process has taken so far, in seconds.
fn spent(peer: &mut Peer) -> f64 {
    number(&peer.call("spent", json!({})), "seconds")
}

fn number(answer: &Value, name: &str) -> f64 {
    answer[name].as_f64().expect("downloads tell their figures")
}
