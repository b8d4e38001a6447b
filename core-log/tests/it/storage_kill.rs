//! Goal: a process killed at any moment loses nothing that it had acknowledged.
//! Method: this test starts itself as another process, which works on a store on disk and tells
//! each acknowledged state; it is killed after some of them, and the store is opened.
//! `FERROCORE_KILLS` says how often, `FERROCORE_SEED` how long each lives.
#![cfg(all(feature = "files", unix))]

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig::rng::{Rng, from_env};
use bytes::Bytes;
use ferrocore_log::{CommitOptions, Core, Corestore, Durability, StoreOptions};

const KILLS: usize = 30;
const WORKLOADS: usize = 7;
/// The one that clears blocks.
const CLEAR: usize = 3;
/// The one that changes two cores together.
const TOGETHER: usize = 5;
/// The one that writes a draft, and commits it.
const DRAFT: usize = 6;
/// Tells the other process which store to work on, and how.
const CHILD: &str = "FERROCORE_KILL_CHILD";
const NAME: &str = "storage_kill::a_killed_process_loses_nothing";

#[test]
fn a_killed_process_loses_nothing() {
    if let Ok(child) = std::env::var(CHILD) {
        let (workload, directory) = child.split_once(' ').unwrap();
        return work(Path::new(directory), workload.parse().unwrap());
    }
    let seed = from_env("FERROCORE_SEED", 0);
    for kill in 0..from_env("FERROCORE_KILLS", KILLS) {
        let directory = tempfile::tempdir().unwrap();
        let mut rng = Rng::new((seed + kill) as u64);
        let workload = kill % WORKLOADS;
        let mut cleared = Cleared::default();
        // A store may be killed more than once.
        for _ in 0..1 + kill % 3 {
            let told = kill_one(directory.path(), workload, 1 + rng.below(150));
            if workload == CLEAR {
                cleared.add(&told);
            }
            check(directory.path(), workload, *told.last().unwrap(), &cleared);
        }
    }
}

/// What the other process says once a step is acknowledged: how many there were, and the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    steps: u64,
    fork: u64,
    length: u64,
}

/// What is not there any more.
#[derive(Default)]
struct Cleared {
    told: Vec<Range<u64>>,
    /// By a step that was killed, if it came so far.
    perhaps: Vec<Range<u64>>,
}

impl Cleared {
    /// Adds what one process cleared that told of these steps, one at least.
    fn add(&mut self, told: &[Told]) {
        let clearing = told.iter().filter(|told| clears(told.steps));
        self.told
            .extend(clearing.map(|told| cleared_at(told.length)));
        let last = told.last().unwrap();
        if clears(last.steps + 1) {
            self.perhaps.push(cleared_at(last.length));
        }
    }

    /// Whether a block is gone, if that is sure.
    fn is_gone(&self, block: u64) -> Option<bool> {
        let is_in = |ranges: &[Range<u64>]| ranges.iter().any(|range| range.contains(&block));
        match is_in(&self.told) {
            true => Some(true),
            false => (!is_in(&self.perhaps)).then_some(false),
        }
    }
}

/// Starts a process, kills it after it has told of `steps` steps, and returns all that it told of.
fn kill_one(directory: &Path, workload: usize, steps: usize) -> Vec<Told> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, format!("{workload} {}", directory.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = told.filter_map(|line| parse(&line.unwrap()));
    let mut all: Vec<Told> = told.by_ref().take(steps).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    all.extend(told);
    all
}

fn parse(line: &str) -> Option<Told> {
    let mut numbers = line.split_once("told ")?.1.split(' ').map(str::parse);
    let mut number = || numbers.next()?.ok();
    Some(Told {
        steps: number()?,
        fork: number()?,
        length: number()?,
    })
}

/// Works on the store until killed.
fn work(directory: &Path, workload: usize) {
    let (store, core) = open(directory, workload);
    let steps = core.user_data("steps").map_or(0, |steps| number(&steps));
    let _twin_stays_open = (workload == TOGETHER).then(|| store.get_named("twin").unwrap());
    let mut out = std::io::stdout();
    for step in steps + 1.. {
        match workload {
            TOGETHER => run_together(&store, &core, step),
            DRAFT => run_draft(&core, step),
            _ => run(&core, workload, step),
        }
        let told = (step, core.fork(), core.length());
        let line = format!("told {} {} {}\n", told.0, told.1, told.2);
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

fn open(directory: &Path, workload: usize) -> (Corestore, Core) {
    let durability = match workload {
        4 => Durability::Sync,
        _ => Durability::Buffered,
    };
    let store = Corestore::open(directory, StoreOptions::from(durability)).unwrap();
    let core = store.get_named("killed").unwrap();
    (store, core)
}

/// One step of two cores that must not be told apart.
fn run_together(store: &Corestore, core: &Core, step: u64) {
    let mut batch = store.batch();
    let (fork, length) = (core.fork(), core.length());
    for core in [core, &store.get_named("twin").unwrap()] {
        let blocks = (length..length + 1 + step % 5).map(|index| block(fork, index));
        batch.append_batch(core, blocks.collect()).unwrap();
        let note = step.to_le_bytes();
        batch.set_user_data(core, "steps", Some(&note)).unwrap();
    }
    batch.commit().unwrap();
}

/// One step of a draft: more blocks of it, or all of them committed, or half of them dropped.
fn run_draft(core: &Core, step: u64) {
    let draft = core.draft("draft").unwrap();
    let length = draft.length();
    match step % 5 {
        3 => drop(draft.commit(CommitOptions::default()).unwrap()),
        4 if step % 10 == 9 => draft.truncate(core.length().midpoint(length)).unwrap(),
        _ => {
            let blocks = (length..length + 1 + step % 7).map(|index| block(0, index));
            draft.append_batch(blocks.collect()).unwrap();
        }
    }
    let note = step.to_le_bytes();
    core.set_user_data("steps", Some(&note)).unwrap();
}

/// Every block of the draft is what it was, and the draft goes on.
fn check_draft(core: &Core, steps: u64) {
    let draft = core.draft("draft").unwrap();
    for index in 0..draft.length() {
        let found = draft.get_local(index).unwrap();
        assert_eq!(found, Some(block(0, index)), "block {index} of the draft");
    }
    (steps + 1..steps + 11).for_each(|step| run_draft(core, step));
    for index in 0..core.length() {
        assert_eq!(core.get_local(index).unwrap(), Some(block(0, index)));
    }
}

/// One step: each ends by noting its number, and is acknowledged then.
fn run(core: &Core, workload: usize, step: u64) {
    let length = core.length();
    match workload {
        0 | 4 => append(core, 1),
        1 => append(core, 1 + step % 200),
        2 if step % 7 == 6 => {
            core.truncate(length / 2, None).unwrap();
        }
        CLEAR if clears(step) => core.clear(cleared_at(length)).unwrap(),
        CLEAR if step % 11 == 10 => core.flush().unwrap(),
        _ => append(core, 1 + step % 5),
    }
    let note = step.to_le_bytes();
    core.set_user_data("steps", Some(&note)).unwrap();
}

/// Whether that step of [`CLEAR`] clears blocks.
fn clears(step: u64) -> bool {
    step % 3 == 2
}

/// The blocks that are cleared of a log of that length.
fn cleared_at(length: u64) -> Range<u64> {
    length.saturating_sub(3)..length
}

fn append(core: &Core, count: u64) {
    let (fork, length) = (core.fork(), core.length());
    let blocks = (length..length + count).map(|index| block(fork, index));
    core.append_batch(blocks.collect()).unwrap();
}

/// A block tells where it belongs.
fn block(fork: u64, index: u64) -> Bytes {
    let len = (index * 31 % 900) as usize;
    let mut block = format!("{fork} {index} ").into_bytes();
    block.resize(block.len() + len, index as u8);
    Bytes::from(block)
}

/// All that was told is there, and at most the step after it.
fn check(directory: &Path, workload: usize, told: Told, cleared: &Cleared) {
    let (store, core) = open(directory, workload);
    let steps = core.user_data("steps").map_or(0, |steps| number(&steps));
    assert!(
        (told.steps..=told.steps + 1).contains(&steps),
        "{told:?}, found {steps}"
    );
    let found = (core.fork(), core.length());
    assert!(found.0 >= told.fork, "{told:?}, found {found:?}");
    assert!(
        found.0 > told.fork || found.1 >= told.length,
        "{told:?}, found {found:?}"
    );
    for index in 0..core.length() {
        let found = core.get_local(index).unwrap();
        if let Some(found) = &found {
            let fork = number_at(found);
            assert!(fork <= core.fork());
            assert_eq!(*found, block(fork, index));
        }
        if let Some(is_gone) = cleared.is_gone(index) {
            assert_eq!(found.is_none(), is_gone, "block {index} after {told:?}");
        }
    }
    if workload == TOGETHER {
        let twin = store.get_named("twin").unwrap();
        assert_eq!(twin.length(), core.length());
        assert_eq!(twin.tree_hash(), core.tree_hash());
        assert_eq!(twin.user_data("steps"), core.user_data("steps"));
        return run_together(&store, &core, steps + 1);
    }
    if workload == DRAFT {
        return check_draft(&core, steps);
    }
    core.append(block(core.fork(), core.length())).unwrap();
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// The fork a block says it is of.
fn number_at(block: &[u8]) -> u64 {
    let text = block.split(|byte| *byte == b' ').next().unwrap();
    std::str::from_utf8(text).unwrap().parse().unwrap()
}
