//! Measures ferrocore beside the JavaScript stack, in turn and in one go, and prints how they compare.
//!
//! Usage: `cargo run --release -p ferrocore-bench -- log`, or `drive`, or `all`; `--help` says more.
//!
//! Each contender works in a process of its own ([`contender`]) that is told what to do and answers how
//! long it took; a suite ([`suites`]) says what is done, in rounds that every contender takes part in, so
//! that a busy moment of the machine meets all of them. The figures are medians over the rounds.
#![cfg(unix)]

mod contender;
mod counted;
mod dht_worker;
mod netns;
mod seed;
mod suites;
mod table;
mod udx_worker;
mod uniform;
mod worker;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, Subcommand};
use serde_json::json;

use self::suites::{Run, dht, drive, log, replicate, scale, udx};
use self::table::{Row, Table};

/// ferrocore beside the JavaScript stack, on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// How often each contender does each job of the log; the drive's jobs are done once in five of them.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..1000))]
    rounds: u32,
    /// Only the rows whose name contains this.
    #[arg(long, global = true, default_value = "")]
    row: String,
    /// Without the JavaScript contenders: to see what a change does.
    #[arg(long, global = true)]
    alone: bool,
    /// Where all samples go, as JSON.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Where cores and files are kept meanwhile, some 5 GB; by default the system's temporary folder.
    #[arg(long, global = true)]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum What {
    /// One core: append, get, open, memory.
    Log,
    /// What a block costs in a core of 1,000, 100,000 and 10 million; ferrocore alone.
    Scale,
    /// One core over loopback TCP, from either side to either side; how its cost grows with length and peers.
    Replicate,
    /// A drive: one large file over TCP, the import of many small files.
    Drive,
    /// UDX: streams over UDP on loopback, on damaged links, between network namespaces; memory.
    Udx,
    /// The DHT: 1,000 nodes in one process, and lookups among them.
    Dht,
    /// All of them.
    All,
    /// Does what stdin says: how this program starts itself as a contender.
    #[command(hide = true)]
    Work,
    /// The same for UDX.
    #[command(hide = true)]
    WorkUdx,
    /// The same for the DHT.
    #[command(hide = true)]
    WorkDht,
}

fn main() {
    let arguments = Arguments::parse();
    match arguments.what {
        What::Work => return worker::serve(),
        What::WorkUdx => return udx_worker::serve(),
        What::WorkDht => return dht_worker::serve(),
        _ => {}
    }
    if let Err(names) = known_row(&arguments) {
        eprintln!(
            "no row of that suite has {:?} in its name; there are: {}",
            arguments.row,
            names.join(", ")
        );
        std::process::exit(2);
    }
    let start = Instant::now();
    let tables = measure(&arguments);
    for table in &tables {
        println!("{}", table.to_markdown());
    }
    println!("measured in {:.0} s", start.elapsed().as_secs_f64());
    if let Some(path) = &arguments.json {
        let tables: Vec<_> = tables.iter().map(Table::to_json).collect();
        let text = json!({ "rounds": arguments.rounds, "tables": tables }).to_string();
        std::fs::write(path, text).expect("the path given by --json is writable");
    }
}

/// The names there are, if none of them is meant by `--row`.
fn known_row(arguments: &Arguments) -> Result<(), Vec<&'static str>> {
    let suites: [(What, &[&[Row]]); 6] = [
        (What::Log, &[log::ROWS]),
        (What::Scale, &[scale::ROWS]),
        (What::Replicate, &[replicate::RATES, replicate::GROWING]),
        (What::Drive, &[drive::ROWS]),
        (What::Udx, &[udx::ROWS]),
        (What::Dht, &[dht::ROWS, dht::IDLE_ROWS]),
    ];
    let asked = suites
        .into_iter()
        .filter(|(what, _)| [*what, What::All].contains(&arguments.what));
    let rows = asked.flat_map(|(_, rows)| rows.concat());
    let names: Vec<_> = rows.map(|row| row.id).collect();
    match names.iter().any(|name| name.contains(&arguments.row)) {
        true => Ok(()),
        false => Err(names),
    }
}

fn measure(arguments: &Arguments) -> Vec<Table> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("ferrocore-bench-");
    let scratch = match &arguments.scratch {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    };
    let scratch = scratch.expect("the scratch folder is writable");
    let run = Run {
        rounds: arguments.rounds,
        row: arguments.row.clone(),
        alone: arguments.alone,
        scratch: scratch.path().to_owned(),
    };
    let wants = |what| [what, What::All].contains(&arguments.what);
    let mut tables = Vec::new();
    if wants(What::Log) {
        tables.push(log::measure(&run));
    }
    if wants(What::Scale) {
        tables.push(scale::measure(&run));
    }
    if wants(What::Replicate) {
        tables.push(replicate::measure(&run));
        tables.push(replicate::measure_growth(&run));
        tables.push(replicate::measure_peers(&run));
    }
    if wants(What::Drive) {
        tables.push(drive::measure(&run));
    }
    if wants(What::Udx) {
        tables.push(udx::measure(&run));
    }
    if wants(What::Dht) {
        tables.push(dht::measure(&run));
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_no_suite_has_is_an_error_that_tells_the_names() {
        let asked = |line: &str| known_row(&Arguments::parse_from(line.split(' ')));
        assert_eq!(asked("bench dht"), Ok(()));
        assert_eq!(asked("bench dht --row dht-idle"), Ok(()));
        assert_eq!(asked("bench all --row udx-one"), Ok(()));
        let names = asked("bench dht --row udx-one").unwrap_err();
        assert!(
            names.contains(&"dht-connect") && names.contains(&"dht-idle-time"),
            "{names:?}"
        );
        assert!(!names.contains(&"udx-one"));
    }
}
