//! Goal: whenever the process is killed or the power goes, a batch over several cores is there
//! whole or not at all, each core is as one that stands alone, and the store goes on.
//! Method: random histories of a store of three cores on files in memory. All its files, the
//! journal among them, are rebuilt as they may be found after each change, and again after each
//! change that the recovery makes, three deep.
//!
//! `FERROCORE_STORE_CUTS` says how many cuts each test makes, `FERROCORE_SEED` where it begins.
#![cfg(feature = "files")]

use std::collections::HashMap;

use crate::rig::power::{Acknowledged, Crash, Device, History, Loss, Scene};
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::store::{JOURNAL, NAMES, open_core, open_cores, open_store, oplog_of, peek_core};
use crate::rig::workload::{Snapshot, lacks_nodes};
use crate::rig::{Contents, Disk};
use bytes::Bytes;
use ferrocore_log::{Core, Corestore, Durability, StorageError, StoreError};
use ferrocore_primitives::hash::Hash;

/// Cuts of one test.
const CUTS: usize = 3_000;
/// Steps of one history.
const STEPS: usize = 8;
/// How often a recovery may be cut off in turn.
const DEPTH_MAX: usize = 3;

#[test]
fn a_power_cut_halves_no_batch_that_was_synced() {
    sweep(Durability::Sync);
}

/// A kill halves none; a power cut takes each core back to a state it had.
#[test]
fn a_kill_halves_no_batch() {
    sweep(Durability::Buffered);
}

/// Goal: a journal that a power cut brings back is not made again, even if a core has come to look
/// as it did before the batch.
#[test]
fn a_batch_that_is_over_stays_over() {
    let (disk, durability) = (Disk::new(Contents::new()), Durability::Sync);
    let store = open_store(&disk, durability).unwrap();
    let cores = open_cores(&store).unwrap();
    let set = |value: &[u8]| cores[0].set_user_data("key", Some(value)).unwrap();
    set(b"one");
    let (start, first) = (disk.contents(), mark(&disk, &cores));
    let before = disk.now();
    let mut batch = store.batch();
    batch.set_user_data(&cores[0], "key", Some(b"two")).unwrap();
    batch.append(&cores[1], "together").unwrap();
    batch.commit().unwrap();
    let second = mark(&disk, &cores);
    set(b"one");
    let third = mark(&disk, &cores);
    drop((cores, store));
    let mut marks = vec![first, second, third];
    marks.iter_mut().for_each(|mark| mark.at -= before);
    let recording = Recording::new(start, disk.changes().split_off(before), marks);
    for seed in 0..3 {
        let mut sweep = Sweep {
            durability,
            rng: &mut Rng::new(seed),
            cuts: 0,
            journaled: 0,
        };
        sweep.run(&recording, &Released::new(), 1);
        assert!(sweep.journaled > 0);
    }
}

fn sweep(durability: Durability) {
    let mut journaled = 0;
    let cuts = rounds(from_env("FERROCORE_STORE_CUTS", CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let recording = record(durability, &mut rng);
        let mut sweep = Sweep {
            durability,
            rng: &mut rng,
            cuts: 0,
            journaled: 0,
        };
        sweep.run(&recording, &Released::new(), 1);
        journaled += sweep.journaled;
        sweep.cuts
    });
    println!("{cuts} cuts, {journaled} of them with a batch in the journal");
    assert!(journaled > cuts / 100, "the journal is under test");
}

/// What is there of each core.
type State = Vec<Option<Snapshot>>;

/// A state that was acknowledged, when there were so many changes.
#[derive(Debug, Clone)]
struct Mark {
    at: usize,
    state: State,
}

impl Acknowledged for Mark {
    fn at(&self) -> usize {
        self.at
    }
}

type Recording = History<Mark>;

/// Records what somebody does with a store.
fn record(durability: Durability, rng: &mut Rng) -> Recording {
    let disk = Disk::new(Contents::new());
    let mut store = open_store(&disk, durability).unwrap();
    let mut marks = vec![Mark {
        at: 0,
        state: vec![None; NAMES.len()],
    }];
    let mut cores: Vec<Core> = Vec::new();
    for name in NAMES {
        cores.push(store.get_named(name).unwrap());
        marks.push(mark(&disk, &cores));
    }
    for _ in 0..STEPS {
        if rng.one_in(12) {
            cores.clear();
            drop(store);
            store = open_store(&disk, durability).unwrap();
            cores = open_cores(&store).unwrap();
        } else {
            work(&store, &cores, rng).unwrap();
        }
        marks.push(mark(&disk, &cores));
    }
    drop((cores, store));
    Recording::new(Contents::new(), disk.changes(), marks)
}

fn mark(disk: &Disk, cores: &[Core]) -> Mark {
    let state = |number| cores.get(number).map(Snapshot::lossy);
    Mark {
        at: disk.now(),
        state: (0..NAMES.len()).map(state).collect(),
    }
}

/// One change of some cores.
fn work(store: &Corestore, cores: &[Core], rng: &mut Rng) -> Result<(), StoreError> {
    let core = &cores[rng.below(cores.len())];
    match rng.below(12) {
        0 => drop(core.truncate(rng.below(core.length() as usize + 1) as u64, None)?),
        1 => drop(core.append(block(rng))?),
        2 => core.set_user_data("key", Some(value(rng)))?,
        3 => core.clear(core.length() / 2..core.length())?,
        4 => core.flush()?,
        _ => change_together(store, cores, rng)?,
    }
    Ok(())
}

/// A batch over most of the cores: blocks, user data, or both.
fn change_together(store: &Corestore, cores: &[Core], rng: &mut Rng) -> Result<(), StoreError> {
    let (mut batch, left_out) = (store.batch(), rng.below(cores.len() + 2));
    let count = if rng.one_in(9) { 130 } else { 1 + rng.below(3) };
    for (number, core) in cores.iter().enumerate() {
        let kind = rng.below(4);
        if number != left_out && kind != 0 {
            batch.append_batch(core, (0..count).map(|_| block(rng)).collect())?;
        }
        if number != left_out && kind < 2 {
            batch.set_user_data(core, "key", Some(value(rng)))?;
        }
    }
    batch.commit()?;
    Ok(())
}

/// One of a few, so that a core comes to have one again.
fn value(rng: &mut Rng) -> &'static [u8] {
    [b"one", b"two"][rng.below(2)]
}

fn block(rng: &mut Rng) -> Bytes {
    let len = rng.below(40);
    Bytes::from(rng.bytes(len))
}

/// Heads of cores that somebody has seen: none of them may ever have another hash.
type Released = HashMap<(usize, u64, u64), Hash>;

fn release(released: &mut Released, state: &State) {
    for (number, core) in state.iter().enumerate() {
        let Some(core) = core else { continue };
        let head = (number, core.fork, core.length);
        let known = released.insert(head, core.hash);
        assert!(
            known.is_none_or(|hash| hash == core.hash),
            "two histories of {head:?}"
        );
    }
}

struct Sweep<'a> {
    durability: Durability,
    rng: &'a mut Rng,
    cuts: usize,
    /// Cuts that left a batch in the journal.
    journaled: usize,
}

impl Sweep<'_> {
    /// Cuts `recording` at each of its changes, deeper down and after those that are many at a
    /// sample of them.
    fn run(&mut self, recording: &Recording, released: &Released, depth: usize) {
        let mut released = released.clone();
        let mut marks = recording.marks.iter().peekable();
        recording.each_moment(self.rng.next(), |device, at, losses| {
            while let Some(mark) = marks.next_if(|mark| mark.at.max(recording.shown) <= at) {
                release(&mut released, &mark.state);
            }
            self.cuts_at(device, recording, &released, (at, depth), losses);
        });
    }

    fn cuts_at(
        &mut self,
        device: &Device,
        recording: &Recording,
        released: &Released,
        (at, depth): (usize, usize),
        losses: &[Loss],
    ) {
        let sampled = [losses[self.rng.below(losses.len())]];
        let losses = if depth == 1 { losses } else { &sampled };
        for loss in losses {
            let syncs = self.durability == Durability::Sync;
            let strict = syncs || loss.is_kill();
            let _scene = Scene(format!("depth {depth}, after {at} changes, {loss:?}"));
            let crash = recording.crash(device, (at, *loss), syncs, self.rng);
            let marks = recording.candidates(at, *loss, strict);
            self.cut(crash, &marks, released, strict, depth);
        }
    }

    fn cut(
        &mut self,
        crash: Crash<Mark>,
        marks: &[&Mark],
        released: &Released,
        strict: bool,
        depth: usize,
    ) {
        self.cuts += 1;
        let files = crash.contents();
        let journal = files.get(JOURNAL);
        let is_journaled = journal.is_some_and(|file| file.to_vec().starts_with(b"FCJ1"));
        self.journaled += usize::from(is_journaled);
        // Deeper down the files are of before the recovery, and the marks of after it.
        if strict && depth == 1 {
            check_without_journal(&files, marks);
        }
        let disk = Disk::new(files);
        let store = open_store(&disk, self.durability).unwrap();
        let found: Vec<_> = (0..NAMES.len())
            .map(|number| open_if_there(&store, number, marks, strict))
            .collect();
        let shown = disk.now();
        let state: State = found
            .iter()
            .map(|c| c.as_ref().map(Snapshot::lossy))
            .collect();
        check(&state, marks, strict);
        let mut seen = released.clone();
        if strict {
            release(&mut seen, &state);
        }
        let mut marks = vec![Mark { at: 0, state }];
        let Some(cores) = found.into_iter().collect::<Option<Vec<Core>>>() else {
            return; // a history begins anew
        };
        for together in [false, true] {
            let done = match together {
                false => work(&store, &cores, self.rng),
                true => change_together(&store, &cores, self.rng),
            };
            match done {
                // A root of the shorter log was lost, and the core says so.
                Err(StoreError::Core(error)) if !strict && !together && lacks_nodes(&error) => {}
                result => result.unwrap(),
            }
            marks.push(mark(&disk, &cores));
            if strict {
                release(&mut seen, &marks.last().unwrap().state);
            }
        }
        drop((cores, store));
        // A batch that is completed, and is not on the device.
        let is_hidden = is_journaled && crash.is_unsynced(JOURNAL);
        let one_in = if is_hidden { 3 } else { 150 } * depth;
        if strict && depth < DEPTH_MAX && self.rng.one_in(one_in) {
            let recording = Recording::after(crash, shown, disk.changes(), marks);
            self.run(&recording, released, depth + 1);
        }
    }
}

/// The core, unless a power cut took it in the moment of its creation.
fn open_if_there(store: &Corestore, number: usize, marks: &[&Mark], strict: bool) -> Option<Core> {
    match open_core(store, number) {
        Err(StoreError::Storage(StorageError::Corrupt { .. })) if !strict => {
            assert!(marks.iter().any(|mark| mark.state[number].is_none()));
            None
        }
        result => result.unwrap(),
    }
}

/// Who knows nothing of the journal, as hypercore 10, finds each core whole at one of the moments,
/// and the roots that its header names without reading further.
fn check_without_journal(files: &Contents, marks: &[&Mark]) {
    for number in 0..NAMES.len() {
        let head = peek_core(&Disk::new(files.clone()), number).unwrap();
        let head = head.map(|header| (header.head.fork, header.head.length));
        let mut states = marks.iter().map(|mark| &mark.state[number]);
        let is_one = states.any(|state| state.as_ref().map(|s| (s.fork, s.length)) == head);
        assert!(is_one, "core {number}: {head:?} is of none of {marks:?}");
        let mut header_alone = files.clone();
        let oplog = header_alone.entry(oplog_of(number)).or_default();
        oplog.truncate(8192);
        match peek_core(&Disk::new(header_alone), number) {
            // A slot was torn; the entries that tell it from a damaged one were just taken away.
            Err(StorageError::Corrupt { part: "oplog", .. }) => {}
            result => drop(result.unwrap()),
        }
    }
}

/// All cores are as they were at one of the moments; or, after a power cut that nothing was synced
/// for, each at one of them.
fn check(found: &State, marks: &[&Mark], strict: bool) {
    if strict {
        let is_one = marks.iter().any(|mark| mark.state == *found);
        assert!(is_one, "{found:?} is none of {marks:?}");
        return;
    }
    for (number, core) in found.iter().enumerate() {
        let mut states = marks.iter().map(|mark| &mark.state[number]);
        let is_one = states.any(|state| match (state, core) {
            (Some(state), Some(core)) => state.resembles(core),
            (state, core) => state.is_none() && core.is_none(),
        });
        assert!(is_one, "core {number}: {core:?} is none of {marks:?}");
    }
}
