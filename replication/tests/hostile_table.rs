//! Goal: whatever a peer says, it costs little, has a named consequence, leaves the log as it was, and an honest
//! peer beside it completes.
//! Method: each row of a table is played against us twice, once while we read from the peer and once while we
//! write the log. `docs/PROTOCOL.md` holds the same table; `FERROCORE_BLESS=1` writes it there.
//! `FERROCORE_ROW` chooses the rows whose name contains it and prints what they came to.

#[path = "hostile_table/act.rs"]
mod act;
#[path = "hostile_table/beside.rs"]
mod beside;
#[path = "hostile_table/channels.rs"]
mod channels;
mod common;
#[path = "hostile_table/counted.rs"]
mod counted;
#[path = "hostile_table/holdings.rs"]
mod holdings;
#[path = "hostile_table/lies.rs"]
mod lies;
#[path = "hostile_table/proofs.rs"]
mod proofs;
#[path = "hostile_table/pushes.rs"]
mod pushes;
#[path = "hostile_table/requests.rs"]
mod requests;
#[path = "hostile_table/rows.rs"]
mod rows;
#[path = "hostile_table/stage.rs"]
mod stage;

use std::alloc::System;
use std::fmt::Write;

use cap::Cap;
use ferrocore_replication::limits::{CONNECTION_OWN_MAX, PEER_MEMORY_MAX};
use rows::{Expected, Row, Verdict, rows};
use stage::{From, Role, Stage};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test, for nothing else may allocate meanwhile.
#[test]
fn every_misbehaviour_has_its_consequence_and_a_bounded_cost() {
    let only = std::env::var("FERROCORE_ROW");
    let mut wrong = Vec::new();
    let rows = rows();
    assert!(rows.len() >= 60, "{} rows", rows.len());
    for row in &rows {
        if only
            .as_ref()
            .is_ok_and(|only| !row.name.contains(only.as_str()))
        {
            continue;
        }
        for expected in [row.reads, row.writes] {
            assert!(
                expected.peak_kib_max * 1024 <= peak_max(row.from),
                "{}",
                row.name
            );
        }
        for (role, expected) in [(Role::Reads, row.reads), (Role::Writes, row.writes)] {
            let found = play(row, role);
            if only.is_ok() {
                println!("{} / {role:?}: {found:?}", row.name);
            }
            if let Some(difference) = differs(&found, &expected) {
                wrong.push(format!(
                    "{} / {role:?}: {difference}\n      {found:?}",
                    row.name
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    if only.is_err() {
        compare_with_docs(&rows);
    }
}

/// What `docs/PROTOCOL.md` says that a peer may cost beside the frame that it sends.
fn peak_max(from: From) -> usize {
    match from {
        From::Connected => 2 << 20,
        _ => CONNECTION_OWN_MAX + PEER_MEMORY_MAX,
    }
}

/// Steps of work that a message may cost, whatever it says: itself, two pages, what is left of a run and what it cuts off.
const STEPS_OF_MESSAGE: u64 = 5;

/// What a row may cost beside that: turns of its channel while time passes, the pages of one Bitfield.
const STEPS_OF_ROW: u64 = 128;

/// What a row came to.
#[derive(Debug)]
struct Found {
    verdict: Verdict,
    error: String,
    /// Messages that we sent in answer.
    answers: usize,
    /// Bytes that stayed allocated.
    held: usize,
    /// Bytes that were allocated at once, with those of the scripted peer itself.
    peak: usize,
    /// Bytes that the peer sent.
    sent: usize,
    /// Whether the log is another than before.
    is_changed: bool,
    /// Messages of the peer that arrived, and how many it sent.
    arrived: (u64, u64),
    /// Why we refused.
    reasons: String,
    /// Proofs that were looked at and did not hold.
    proofs: u64,
    /// Signatures that were checked, and how many messages of the peer said that the log is longer.
    signatures: (u64, u64),
    /// How often our storage was read.
    reads: usize,
    /// Steps of work that were done: a message, a channel's turn, a page of bits.
    steps: u64,
    /// Whether an honest peer had all it wanted meanwhile, and another one completed afterwards.
    is_honest_served: (bool, bool),
}

fn play(row: &Row, role: Role) -> Found {
    let (from, acts) = row.played(role);
    let mut stage = Stage::set(role, from);
    let before = stage.state();
    stage.answers = 0;
    stage.refusals = 0;
    stage.reasons.clear();
    stage.sent = 0;
    stage.said = 0;
    stage.upgrades = 0;
    let (stats, reads, signatures) = (stage.stats(), stage.reads(), stage.signatures());
    let (steps, beside_bytes) = (stage.steps(), stage.beside_bytes());
    // The allocator knows one peak only, that of all time: the row begins from there.
    let ballast = Vec::<u8>::with_capacity(ALLOCATOR.max_allocated() - ALLOCATOR.allocated());
    let allocated = ALLOCATOR.allocated();
    for act in acts {
        stage.play(act);
    }
    let beside = stage.beside_bytes().saturating_sub(beside_bytes);
    let peak = (ALLOCATOR.max_allocated() - allocated).saturating_sub(beside);
    let own = stage.own_bytes().saturating_sub(beside_bytes);
    let held = ALLOCATOR.allocated().saturating_sub(allocated + own);
    drop(ballast);
    let (reads, signatures) = (stage.reads() - reads, stage.signatures() - signatures);
    let steps = stage.steps() - steps;
    let stats = stage.stats() - stats;
    let (verdict, error) = stage.verdict();
    let is_changed = stage.state() != before;
    stage.let_commit();
    Found {
        verdict,
        error,
        answers: stage.answers,
        held,
        peak,
        sent: stage.sent,
        is_changed,
        arrived: (stats.messages_received, stage.said),
        reasons: Vec::from_iter(stage.reasons.iter().map(String::as_str)).join(", "),
        proofs: stats.proofs_refused,
        signatures: (signatures, stage.upgrades),
        reads,
        steps,
        is_honest_served: (stage.has_served_beside(), stage.serves_an_honest_peer()),
    }
}

fn differs(found: &Found, expected: &Expected) -> Option<String> {
    let mut wrong = String::new();
    if (found.verdict, found.error.as_str()) != (expected.verdict, expected.error) {
        let _ = write!(
            wrong,
            "expected {:?} {}; ",
            expected.verdict, expected.error
        );
    }
    if found.answers > expected.answers_max {
        let _ = write!(wrong, "at most {} answers; ", expected.answers_max);
    }
    if found.held > expected.held_kib_max * 1024 {
        let _ = write!(wrong, "at most {} KiB; ", expected.held_kib_max);
    }
    if found.peak > 3 * found.sent + expected.peak_kib_max * 1024 {
        let _ = write!(wrong, "at most {} KiB at once; ", expected.peak_kib_max);
    }
    if found.is_changed != expected.changes {
        wrong.push_str("the log; ");
    }
    let goes_on = matches!(
        found.verdict,
        Verdict::Ignore | Verdict::Refuse | Verdict::StopAsking
    );
    let (arrived, said) = found.arrived;
    if arrived > said || (goes_on && arrived < said) {
        let _ = write!(wrong, "{arrived} messages arrived of {said}; ");
    }
    if found.reasons != expected.reasons {
        let _ = write!(wrong, "expected the reasons {:?}; ", expected.reasons);
    }
    if found.proofs > expected.proofs_max {
        let _ = write!(wrong, "at most {} proofs; ", expected.proofs_max);
    }
    let (signatures, upgrades) = found.signatures;
    if signatures > upgrades {
        let _ = write!(wrong, "at most {upgrades} signatures; ");
    }
    if found.reads > expected.reads_max {
        let _ = write!(wrong, "at most {} reads; ", expected.reads_max);
    }
    let steps_max = STEPS_OF_MESSAGE * said + STEPS_OF_ROW;
    if found.steps > steps_max {
        let _ = write!(wrong, "at most {steps_max} steps; ");
    }
    if found.is_honest_served != (true, true) {
        wrong.push_str("an honest peer was not served; ");
    }
    (!wrong.is_empty()).then_some(wrong)
}

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
const BEGIN: &str =
    "<!-- rows of replication/tests/hostile_table: FERROCORE_BLESS=1 writes them -->\n";
const END: &str = "<!-- end of rows -->\n";

/// The table in the documentation says what is played here.
fn compare_with_docs(rows: &[Row]) {
    let mut table =
        String::from("\n| misbehaviour | while we read | while we write |\n|---|---|---|\n");
    for row in rows {
        let _ = writeln!(
            table,
            "| {} | {} | {} |",
            row.name,
            row.reads.say(),
            row.writes.say()
        );
    }
    table.push('\n');
    let docs = std::fs::read_to_string(DOCS).unwrap();
    let (head, rest) = docs.split_once(BEGIN).expect("the table has a place");
    let (there, tail) = rest.split_once(END).expect("the table has an end");
    if there == table {
        return;
    }
    assert!(
        std::env::var_os("FERROCORE_BLESS").is_some(),
        "docs/PROTOCOL.md says otherwise; FERROCORE_BLESS=1 writes the table there"
    );
    std::fs::write(DOCS, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
}
