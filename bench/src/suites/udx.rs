//! UDX: ferrocore-udx and udx-native, each with itself and with the other, on loopback and on bad links.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ferrocore_interop_tests::lossy::{Damage, LossyLink};
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};

use super::{Run, in_turn};
use crate::netns::{ADDRESSES, Namespaces};
use crate::table::{Row, Table, Unit, Verdict};

const STREAMS: Row = row("udx-one", "one stream, 200 MB one way", Some(1.5));
const BOTH: Row = row("udx-both", "one stream, 100 MB each way at once", Some(1.5));
const HUNDRED: Row = row(
    "udx-hundred",
    "100 streams, 100 MB one way in all",
    Some(1.5),
);
const LINK_0: Row = row("udx-link-0", "100 Mbit/s, 20 ms round trip, no loss", None);
const LINK_1: Row = row("udx-link-1", "the same, 1 % lost each way", None);
const LINK_5: Row = row("udx-link-5", "the same, 5 % lost", None);
const LINK_20: Row = row("udx-link-20", "the same, 20 % lost", None);
const LINK_JITTER: Row = row(
    "udx-link-jitter",
    "100 Mbit/s, 20 ms round trip, each datagram up to 10 ms more",
    None,
);
const LINK_LATE: Row = row(
    "udx-link-late",
    "the same without that, 1 % come 5 ms late and are overtaken",
    None,
);
const LINK_DOUBLE: Row = row("udx-link-double", "the same, 5 % come twice", None);
const LINK_NOISE: Row = row("udx-link-noise", "the same, noise comes for 1 %", None);
const WIRE_1: Row = row(
    "udx-wire-1",
    "two namespaces, no delay, `nft` drops 1 % each way",
    None,
);
const WIRE_5: Row = row("udx-wire-5", "the same, 5 %", None);
const WIRE_20: Row = row("udx-wire-20", "the same, 20 %", None);
const IDLE: Row = Row {
    id: "udx-idle",
    job: "memory of 5,000 idle streams",
    unit: Unit::Bytes,
    aim: Some(10.0),
};
const IDLE_MORE: Row = Row {
    id: "udx-idle-more",
    job: "memory of 5,000 more",
    ..IDLE
};
pub(crate) const ROWS: &[Row] = &[
    STREAMS,
    BOTH,
    HUNDRED,
    LINK_0,
    LINK_1,
    LINK_5,
    LINK_20,
    LINK_JITTER,
    LINK_LATE,
    LINK_DOUBLE,
    LINK_NOISE,
    WIRE_1,
    WIRE_5,
    WIRE_20,
    IDLE,
    IDLE_MORE,
];

const JITTER: Duration = Duration::from_millis(10);

const IDLE_STREAMS: u32 = 5_000;

const fn row(id: &'static str, job: &'static str, aim: Option<f64>) -> Row {
    let unit = Unit::BytesPerSecond;
    Row { id, job, unit, aim }
}

/// Who is at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Native,
    Ours,
}

/// Sender and receiver, and the column they fill.
const PAIRINGS: [(End, End, &str); 4] = [
    (End::Native, End::Native, "native to native"),
    (End::Native, End::Ours, "native to ferrocore"),
    (End::Ours, End::Native, "ferrocore to native"),
    (End::Ours, End::Ours, "ferrocore to ferrocore"),
];

/// What is sent, and over what.
#[derive(Debug, Clone, Copy)]
struct Job {
    streams: u32,
    /// Over all streams, one way.
    bytes: u64,
    goes_both_ways: bool,
    path: Way,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Loopback,
    /// Through the forwarder.
    Link(Fault),
    /// Between namespaces.
    Wire(u32),
}

/// What the forwarder does to datagrams, beside passing them on.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Loses so many of a thousand.
    Loss(u64),
    Jitter(Duration),
    /// Has so many of a thousand overtaken by those that come within this time.
    Late(u64, Duration),
    Double(u64),
    Noise(u64),
}

fn job(row: &Row) -> Option<Job> {
    let (streams, megabytes, goes_both_ways, path) = match row.id {
        "udx-one" => (1, 200, false, Way::Loopback),
        "udx-both" => (1, 100, true, Way::Loopback),
        "udx-hundred" => (100, 100, false, Way::Loopback),
        "udx-link-0" => (1, 20, false, Way::Link(Fault::Loss(0))),
        "udx-link-1" => (1, 20, false, Way::Link(Fault::Loss(10))),
        "udx-link-5" => (1, 10, false, Way::Link(Fault::Loss(50))),
        "udx-link-20" => (1, 5, false, Way::Link(Fault::Loss(200))),
        "udx-link-jitter" => (1, 10, false, Way::Link(Fault::Jitter(JITTER))),
        "udx-link-late" => (1, 20, false, Way::Link(Fault::Late(10, JITTER / 2))),
        "udx-link-double" => (1, 20, false, Way::Link(Fault::Double(50))),
        "udx-link-noise" => (1, 20, false, Way::Link(Fault::Noise(10))),
        "udx-wire-1" => (1, 50, false, Way::Wire(10)),
        "udx-wire-5" => (1, 20, false, Way::Wire(50)),
        "udx-wire-20" => (1, 5, false, Way::Wire(200)),
        _ => return None,
    };
    Some(Job {
        streams,
        bytes: megabytes * 1_000_000,
        goes_both_ways,
        path,
    })
}

/// Measures every row that was asked for.
pub(crate) fn measure(run: &Run) -> Table {
    let pairings: Vec<_> = PAIRINGS
        .into_iter()
        .filter(|(sender, receiver, _)| !run.alone || [*sender, *receiver] == [End::Ours; 2])
        .collect();
    let columns = pairings.iter().map(|(.., column)| *column).collect();
    let title = "UDX: udx-native 1.21 and ferrocore-udx";
    let mut table = Table::new(title, columns, Verdict::First(1));
    let wires = Namespaces::make();
    if let Err(why) = &wires {
        eprintln!("no network namespaces here ({why}): rows that need them are skipped");
    }
    for round in 0..run.rounds {
        for row in run.pick(ROWS) {
            for (sender, receiver, column) in in_turn(&pairings, round) {
                match (job(row), &wires) {
                    (None, _) if sender == receiver => table.add(row, column, idle(row, sender)),
                    (
                        Some(Job {
                            path: Way::Wire(_), ..
                        }),
                        Err(_),
                    )
                    | (None, _) => {}
                    (Some(job), wires) => {
                        let rate = transfer(&job, [sender, receiver], wires.as_ref().ok());
                        rate.into_iter()
                            .for_each(|rate| table.add(row, column, rate));
                    }
                }
            }
        }
    }
    table
}

/// Bytes a second, both ways counted; `None` if not all of them arrived.
fn transfer(job: &Job, [sender, receiver]: [End; 2], wires: Option<&Namespaces>) -> Option<f64> {
    let wires = wires.filter(|_| matches!(job.path, Way::Wire(_)));
    let (mut sender, mut receiver) = (sender.start(0, wires), receiver.start(1, wires));
    let [from, to] = wires.map_or(["127.0.0.1"; 2], |_| ADDRESSES);
    let each = job.bytes / u64::from(job.streams);
    let back = if job.goes_both_ways { each } else { 0 };
    let is_hashed = !matches!(job.path, Way::Loopback); // there it would be measured too
    let receive = json!({ "host": to, "streams": job.streams, "back": back, "hash": is_hashed });
    let mut port = receiver.call("receive", receive)["port"].clone();
    let link = link(job.path, &port);
    if let Some(link) = &link {
        port = json!(link.port(0));
    }
    if let (Way::Wire(permille), Some(wires)) = (job.path, wires) {
        wires.lose(permille).expect("the namespaces were made");
    }
    let send = json!({
        "host": from, "to": to, "port": port, "streams": job.streams, "bytes": each, "hash": is_hashed,
    });
    let sent = sender.call("send", send);
    let heard = receiver.wait_event("received");
    let all = each * u64::from(job.streams);
    if (&heard["bytes"], &heard["hash"]) != (&json!(all), &sent["hash"]) {
        eprintln!("{job:?}: {all} bytes were sent, {sent}, and this arrived: {heard}");
        return None;
    }
    // Each end tells when everything it was sent was there.
    let seconds = match job.goes_both_ways {
        true => heard["seconds"].as_f64()?.max(sent["seconds"].as_f64()?),
        false => heard["seconds"].as_f64()?,
    };
    Some((all + back * u64::from(job.streams)) as f64 / seconds)
}

/// The forwarder, for the ways that need it, with a queue of 50 ms.
fn link(way: Way, port: &Value) -> Option<LossyLink> {
    let Way::Link(fault) = way else {
        return None;
    };
    let mut damage = Damage {
        delay: Duration::from_millis(10),
        bytes_per_second: 12_500_000,
        queue_bytes: 625_000,
        ..Damage::default()
    };
    match fault {
        Fault::Loss(permille) => damage.loss_permille = permille,
        Fault::Jitter(jitter) => damage.jitter = jitter,
        Fault::Late(permille, by) => (damage.late_permille, damage.late_by) = (permille, by),
        Fault::Double(permille) => damage.duplicate_permille = permille,
        Fault::Noise(permille) => damage.corrupt_permille = permille,
    }
    let link = LossyLink::start(damage, 1);
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
    link.set_peer(1, ([127, 0, 0, 1], port.expect("a port")).into());
    Some(link)
}

/// By how many bytes a process grows with the streams, or with as many more.
fn idle(row: &Row, who: End) -> f64 {
    let (mut holder, mut other) = (who.start(0, None), who.start(1, None));
    let mut hold = |first: u32| {
        let streams = json!({ "host": "127.0.0.1", "streams": IDLE_STREAMS, "first": first });
        let mut job = streams.clone();
        job["port"] = other.call("receive", streams)["port"].clone();
        job["to"] = json!("127.0.0.1");
        holder.call("hold", job)["bytes"].as_f64()
    };
    let held = match row.id {
        "udx-idle" => hold(0),
        _ => hold(0).and_then(|_| hold(IDLE_STREAMS)),
    };
    held.expect("bytes held")
}

impl End {
    /// Starts its process, in namespace `index` if there are any.
    fn start(self, index: usize, wires: Option<&Namespaces>) -> Peer {
        let (name, command) = match self {
            Self::Native => ("udx-native", native()),
            Self::Ours => ("ferrocore-udx", ours()),
        };
        let mut command = match wires {
            Some(wires) => wires.inside(index, &command),
            None => command,
        };
        Peer::run(name, &mut command)
    }
}

fn native() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/udx.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(node::ensure(Tree::Current));
    command
}

fn ours() -> Command {
    let this = std::env::current_exe().expect("the system tells a program its path");
    let mut command = Command::new(this);
    command.arg("work-udx");
    command
}
