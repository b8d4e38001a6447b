//! Goal: whatever call fails amid a batch over several cores, once or from then on, the caller is
//! told, no core goes on from a state that the others do not share, and the store that is opened
//! again has all of the batch or nothing of it.
//! Method: one history with every kind of batch, once for each call that it makes.
#![cfg(feature = "files")]

use crate::audit::NODE_BYTES;
use crate::rig::faults::{blocks, faults, left_by};
use crate::rig::store::{
    JOURNAL, NAMES, head_in_header, key_of, open_core, open_cores, open_store, oplog_of, tree_of,
};
use crate::rig::workload::Snapshot;
use crate::rig::{Contents, Disk, Fault, FaultKind, What};
use ferrocore_log::audit::Mode;
use ferrocore_log::{Core, CoreError, Corestore, Durability, Manifest, StorageError, StoreError};
use ferrocore_primitives::sign::KeyPair;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many blocks to each core.
    Together(usize),
    /// A block to each core, with user data that fills a journal.
    TogetherWide,
    /// User data of the first, a block to the second.
    Apart(&'static [u8]),
    /// A block to one core.
    Alone(usize),
    Flush(usize),
    Truncate(usize),
    /// So many blocks to one core, under a signature that was made elsewhere.
    Signed(usize, usize),
    /// One core cut to so many blocks, likewise.
    TruncateSigned(usize, u64),
    /// An audit of one core that mends what it finds.
    Repair(usize),
}

const STEPS: &[Step] = &[
    Step::Together(2),
    Step::Apart(b"one"),
    Step::Alone(1),
    Step::Flush(0),
    Step::Apart(b"two"),
    Step::Truncate(2),
    Step::Signed(0, 2),
    Step::Together(130),
    Step::TruncateSigned(0, 3),
    Step::Repair(1),
    Step::Together(1),
];

fn run(store: &Corestore, cores: &[Core], step: Step) -> Result<(), StoreError> {
    let mut batch = store.batch();
    match step {
        Step::Together(count) => {
            for core in cores {
                batch.append_batch(core, blocks(count))?;
            }
        }
        Step::TogetherWide => {
            for core in cores {
                batch.append(core, "a block")?;
                batch.set_user_data(core, "wide", Some(&vec![7; WIDE]))?;
            }
        }
        Step::Apart(value) => {
            batch.set_user_data(&cores[0], "key", Some(value))?;
            batch.append(&cores[1], "a block")?;
        }
        Step::Alone(core) => drop(cores[core].append("alone")?),
        Step::Flush(core) => cores[core].flush()?,
        Step::Truncate(core) => drop(cores[core].truncate(1, None)?),
        Step::Signed(core, count) => {
            let proposal = cores[core].propose(blocks(count))?;
            let signature = proposal.sign(&key_pair_of(core)).unwrap();
            let signature = proposal.assemble(&[signature]);
            cores[core].append_signed(proposal, &signature)?;
        }
        Step::TruncateSigned(core, length) => {
            let proposal = cores[core].propose_truncate(length, None)?;
            let signature = proposal.sign(&key_pair_of(core)).unwrap();
            let signature = proposal.assemble(&[signature]);
            cores[core].truncate_signed(proposal, &signature)?;
        }
        Step::Repair(core) => drop(cores[core].audit(Mode::Repair, |_| {})?),
    }
    batch.commit().map(drop)
}

/// What signs a core, from a store that never fails.
fn key_pair_of(core: usize) -> KeyPair {
    let store = open_store(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
    store.key_pair(NAMES[core])
}

type State = Vec<Snapshot>;

fn state_of(cores: &[Core]) -> State {
    cores
        .iter()
        .map(|core| Snapshot::of(core).unwrap())
        .collect()
}

/// Bytes of user data that do not fit into a journal of 1 MiB.
const WIDE: usize = 1100 * 1024;

/// Three cores without blocks.
fn start(durability: Durability) -> Contents {
    let disk = Disk::new(Contents::new());
    open_cores(&open_store(&disk, durability).unwrap()).unwrap();
    disk.contents()
}

/// The states between the steps, and how many calls all of them take.
fn rehearse(files: &Contents, durability: Durability) -> (Vec<State>, usize) {
    let disk = Disk::new(files.clone());
    let store = open_store(&disk, durability).unwrap();
    let cores = open_cores(&store).unwrap();
    let mut states = vec![state_of(&cores)];
    for step in STEPS {
        run(&store, &cores, *step).unwrap();
        states.push(state_of(&cores));
    }
    let calls = Disk::new(files.clone());
    let store = open_store(&calls, durability).unwrap();
    let cores = open_cores(&store).unwrap();
    STEPS
        .iter()
        .for_each(|step| run(&store, &cores, *step).unwrap());
    drop((cores, store));
    (states, calls.calls())
}

#[test]
fn every_call_of_a_batch_may_fail() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let files = start(durability);
        let (states, calls) = rehearse(&files, durability);
        assert!(calls > 100, "{calls} calls");
        let mut failures = 0;
        for fault in faults(0..calls) {
            failures += usize::from(fail(fault, durability, &files, &states));
        }
        println!("{failures} failures");
        assert!(failures > calls);
    }
}

/// Whether the fault was one of a step.
fn fail(fault: Fault, durability: Durability, files: &Contents, states: &[State]) -> bool {
    let disk = Disk::with_fault(files.clone(), Some(fault));
    let opened = open_store(&disk, durability).ok();
    let opened = opened.and_then(|store| Some((open_cores(&store).ok()?, store)));
    let Some((cores, store)) = opened else {
        check_reopens(&disk, durability, files, &states[..1]);
        return false;
    };
    let failed = STEPS
        .iter()
        .position(|step| match run(&store, &cores, *step) {
            Ok(()) => false,
            Err(error) => {
                assert!(is_io(&error), "{fault:?} of {step:?}: {error}");
                true
            }
        });
    let Some(failed) = failed else {
        drop((cores, store));
        check_reopens(&disk, durability, files, &states[STEPS.len()..]);
        return false;
    };
    drop(cores);
    // Cores of a batch that may count already stay closed until the store is opened again.
    let may_be = &states[failed..failed + 2];
    let again = open_cores(&store);
    let found = again
        .ok()
        .and_then(|cores| cores.iter().map(|c| Snapshot::of(c).ok()).collect());
    let found: Option<State> = found;
    if let Some(found) = &found {
        assert!(
            may_be.contains(found),
            "{fault:?}: {found:?} is none of {may_be:?}"
        );
    }
    drop(store);
    match found {
        // Whoever was shown a state keeps it.
        Some(found) => check_reopens(&disk, durability, files, &[found]),
        None => check_reopens(&disk, durability, files, may_be),
    }
    true
}

/// Goal: a core that takes an append after something failed keeps it, and what failed is still whole or not at all: half a
/// batch is not dropped for one core and brought to the others. Method: as above; one of the cores that were held goes on.
#[test]
fn what_is_accepted_after_a_failure_is_kept() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let files = start(durability);
        let (states, calls) = rehearse(&files, durability);
        let (mut accepted, mut refused) = (0, 0);
        for (who, fault) in faults(0..calls).enumerate() {
            let who = who % NAMES.len();
            let disk = Disk::with_fault(files.clone(), Some(fault));
            let Some((failed, took)) = go_on(&disk, durability, who) else {
                continue;
            };
            let counter = if took.is_some() {
                &mut accepted
            } else {
                &mut refused
            };
            *counter += 1;
            let lengths = |state: &State| state.iter().map(|core| core.length).collect::<Vec<_>>();
            let may_be = [&states[failed], &states[failed + 1]].map(lengths);
            for left in left_by(&disk, &files, durability) {
                let store = open_store(&Disk::new(left), durability).unwrap();
                let cores = open_cores(&store).unwrap();
                let mut found: Vec<u64> = cores.iter().map(Core::length).collect();
                if let Some(length) = took {
                    let block = cores[who].get_local(length - 1).unwrap();
                    assert_eq!(block.as_deref(), Some(&b"after"[..]), "{fault:?}");
                    found[who] -= 1;
                }
                assert!(
                    may_be.contains(&found),
                    "{fault:?}: {found:?} of {may_be:?}"
                );
            }
        }
        println!("{accepted} accepted, {refused} refused");
        assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
    }
}

/// Which step failed, and how long the core is if it took a block after that.
fn go_on(disk: &Disk, durability: Durability, who: usize) -> Option<(usize, Option<u64>)> {
    let store = open_store(disk, durability).ok()?;
    let cores = open_cores(&store).ok()?;
    let failed = STEPS
        .iter()
        .position(|step| run(&store, &cores, *step).is_err())?;
    let length = match cores[who].append("after") {
        Ok(_) => Some(cores[who].length()),
        Err(error) => {
            assert!(matches!(error, CoreError::Storage(_)), "{error}");
            None
        }
    };
    Some((failed, length))
}

fn is_io(error: &StoreError) -> bool {
    matches!(error, StoreError::Core(CoreError::Storage(error)) if crate::rig::faults::is_io(error))
}

/// As [`is_io`], or while the store or a core of it is opened.
fn is_io_of_store(error: &StoreError) -> bool {
    is_io(error) || matches!(error, StoreError::Storage(error) if crate::rig::faults::is_io(error))
}

fn check_reopens(disk: &Disk, durability: Durability, start: &Contents, states: &[State]) {
    for files in left_by(disk, start, durability) {
        let disk = Disk::new(files);
        let store = open_store(&disk, durability).unwrap();
        let cores = open_cores(&store).unwrap();
        let state = state_of(&cores);
        assert!(states.contains(&state), "{state:?} is none of {states:?}");
        run(&store, &cores, Step::Together(1)).unwrap();
    }
}

/// Goal: whatever call fails while a static core is made in a store, of blocks or of another core of it, the caller is
/// told, what is there claims no block it does not have, the other core is not harmed, and the next attempt makes it whole.
#[test]
fn every_call_of_making_a_static_core_may_fail() {
    for (durability, is_copied) in [
        (Durability::Sync, false),
        (Durability::Sync, true),
        (Durability::Buffered, false),
        (Durability::Buffered, true),
    ] {
        let disk = Disk::new(start(durability));
        let store = open_store(&disk, durability).unwrap();
        let source = store.get_named(NAMES[0]).unwrap();
        source.append_batch(blocks(PINNED)).unwrap();
        source.set_user_data("key", Some(b"the source's")).unwrap();
        source.flush().unwrap();
        drop((source, store));
        let files = disk.contents();
        let make = |disk: &Disk| make_static(disk, durability, is_copied);
        let disk = Disk::new(files.clone());
        make(&disk).unwrap();
        let (calls, mut failures) = (disk.calls(), 0);
        for fault in faults(0..calls) {
            let disk = Disk::with_fault(files.clone(), Some(fault));
            let made = make(&disk);
            if let Err(error) = &made {
                failures += 1;
                assert!(is_io_of_store(error), "{fault:?}: {error}");
            }
            for files in left_by(&disk, &files, durability) {
                check_static(&Disk::new(files), durability, made.is_ok(), is_copied);
            }
        }
        println!("{failures} failures of {calls} calls");
        assert!(failures > calls && calls > 20, "{failures} of {calls}");
    }
}

/// Blocks of the core that is pinned.
const PINNED: usize = 45;

fn make_static(disk: &Disk, durability: Durability, is_copied: bool) -> Result<(), StoreError> {
    let store = open_store(disk, durability)?;
    make_in(&store, is_copied).map(drop)
}

fn make_in(store: &Corestore, is_copied: bool) -> Result<Core, StoreError> {
    match is_copied {
        true => store.staticify(&source_in(store)?),
        false => store.create_static(blocks(PINNED)),
    }
}

/// By its key: its name would be looked for under the keys that other versions gave it, and there is one place for those.
fn source_in(store: &Corestore) -> Result<Core, StoreError> {
    open_core(store, 0).map(|core| core.expect("it was there before"))
}

fn check_static(disk: &Disk, durability: Durability, is_made: bool, is_copied: bool) {
    let store = open_store(disk, durability).unwrap();
    let source = source_in(&store).unwrap();
    assert_eq!(source.contiguous_length(), PINNED as u64);
    let pinned = Corestore::memory().create_static(blocks(PINNED)).unwrap();
    let found = store.get_by_discovery_key(&pinned.discovery_key()).unwrap();
    assert!(found.is_some() || !is_made);
    if let Some(core) = &found {
        let here = core.count(0..PINNED as u64);
        assert!(here == PINNED as u64 || !is_made, "{here} blocks");
        assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
    }
    drop(found);
    let made = make_in(&store, is_copied).unwrap();
    for (index, block) in (0..).zip(blocks(PINNED)) {
        for core in [&made, &source] {
            assert_eq!(core.get_local(index).unwrap().as_ref(), Some(&block));
        }
    }
    assert_eq!(made.user_data("key").is_some(), is_copied);
}

/// Goal: a store whose journal failed makes no more batches, and gives none of the cores out, until
/// it is opened again.
#[test]
fn a_failed_journal_refuses_its_cores_until_the_store_is_opened() {
    let durability = Durability::Sync;
    let files = start(durability);
    let (calls_before, calls_after) = calls_of_first_batch(&files, durability);
    let mut unfinished = 0;
    for call in calls_before..calls_after {
        let (lasts, kind) = (false, FaultKind::Broken);
        let disk = Disk::with_fault(files.clone(), Some(Fault { call, lasts, kind }));
        let store = open_store(&disk, durability).unwrap();
        let cores = open_cores(&store).unwrap();
        run(&store, &cores[..2], Step::Together(1)).unwrap_err();
        let other = cores[2].clone();
        drop(cores);
        let refused = open_cores(&store);
        let Err(error) = refused else {
            continue; // it failed before the journal was written
        };
        unfinished += 1;
        assert!(
            matches!(error, StoreError::Storage(StorageError::Unfinished { .. })),
            "{error}"
        );
        other.append("of no batch").unwrap();
        let mut batch = store.batch();
        batch.append(&other, "refused").unwrap();
        batch.commit().map(drop).unwrap_err();
        drop((other, store));
        let store = open_store(&disk, durability).unwrap();
        let cores = open_cores(&store).unwrap();
        assert_eq!(cores[0].length(), cores[1].length());
        run(&store, &cores, Step::Together(1)).unwrap();
    }
    assert!(unfinished > 5, "{unfinished}");
}

fn calls_of_first_batch(files: &Contents, durability: Durability) -> (usize, usize) {
    let disk = Disk::new(files.clone());
    let store = open_store(&disk, durability).unwrap();
    let cores = open_cores(&store).unwrap();
    let before = disk.calls();
    run(&store, &cores[..2], Step::Together(1)).unwrap();
    (before, disk.calls())
}

/// A batch whose process was killed as soon as it counted.
struct Halved {
    before: State,
    after: State,
    at_commit: Contents,
}

fn halved(durability: Durability) -> Halved {
    halved_of(start(durability), Step::Together(2), durability)
}

fn halved_of(mut at_commit: Contents, batch: Step, durability: Durability) -> Halved {
    let disk = Disk::new(at_commit.clone());
    let store = open_store(&disk, durability).unwrap();
    let cores = open_cores(&store).unwrap();
    let (before, from) = (state_of(&cores), disk.now());
    run(&store, &cores, batch).unwrap();
    let after = state_of(&cores);
    let changes = disk.changes();
    let is_commit = |change: &crate::rig::Change| {
        change.file == JOURNAL && matches!(change.what, What::Write { .. })
    };
    let commit = from + changes[from..].iter().position(is_commit).unwrap();
    for change in &changes[..=commit] {
        crate::rig::apply(&mut at_commit, change);
    }
    Halved {
        before,
        after,
        at_commit,
    }
}

/// Goal: a core that cannot be read takes the batch from no other: it counts, and whoever opens that core is told.
#[test]
fn a_damaged_core_halves_no_batch() {
    let durability = Durability::Sync;
    let halved = halved(durability);
    for damaged in 0..3 {
        let mut files = halved.at_commit.clone();
        let oplog = files.get_mut(oplog_of(damaged)).unwrap();
        oplog.edit(|bytes| bytes.fill(0x55));
        let disk = Disk::new(files);
        // Twice, for the journal is empty then.
        for _ in 0..2 {
            let store = open_store(&disk, durability).unwrap();
            for number in 0..3 {
                let core = open_core(&store, number);
                if number == damaged {
                    let error = core.err().unwrap();
                    assert!(
                        matches!(error, StoreError::Storage(StorageError::Corrupt { .. })),
                        "{error}"
                    );
                    continue;
                }
                let found = Snapshot::of(&core.unwrap().unwrap()).unwrap();
                assert_ne!(found, halved.before[number]);
                assert_eq!(found, halved.after[number]);
            }
        }
    }
}

/// Goal: a core whose roots are damaged takes the batch from no other, either: also if its head is in its journal, so that
/// nothing but its signature tells what it was. It alone is refused, by its name, and an audit mends it.
#[test]
fn a_damaged_root_halves_no_batch() {
    let durability = Durability::Sync;
    for is_flushed in [false, true] {
        let left = of_two_roots(is_flushed, durability);
        let halved = halved_of(left, Step::Together(2), durability);
        for damaged in 0..3 {
            let mut files = halved.at_commit.clone();
            let tree = files.get_mut(tree_of(damaged)).unwrap();
            tree.edit(|nodes| nodes[3 * NODE_BYTES + 9] ^= 1);
            check_other_cores(&Disk::new(files), damaged, &halved);
        }
    }
}

/// Three cores of two roots, the second of which may be in the journal, as is the head then.
fn of_two_roots(is_flushed: bool, durability: Durability) -> Contents {
    let disk = Disk::new(start(durability));
    let store = open_store(&disk, durability).unwrap();
    let cores = open_cores(&store).unwrap();
    for core in &cores {
        core.append_batch(blocks(4)).unwrap();
        core.flush().unwrap();
        core.append("behind the first root").unwrap();
        if is_flushed {
            core.flush().unwrap();
        }
    }
    disk.contents() // closing them would flush
}

/// Goal: at no moment of a recovery does a header name roots that nobody signed, also where the batch has to be brought to a core
/// whose roots are damaged, and fills its journal; and a recovery that is cut off there is made good by the next one.
#[test]
fn a_recovery_names_no_roots_that_nobody_signed() {
    let durability = Durability::Sync;
    let halved = halved_of(
        of_two_roots(false, durability),
        Step::TogetherWide,
        durability,
    );
    for damaged in 0..3 {
        let mut files = halved.at_commit.clone();
        let before = head_in_header(&files, damaged);
        assert_eq!(before.length, 4);
        let tree = files.get_mut(tree_of(damaged)).unwrap();
        tree.edit(|nodes| nodes[3 * NODE_BYTES + 9] ^= 1);
        let disk = Disk::new(files.clone());
        drop(open_store(&disk, durability).unwrap());
        let after = &halved.after[damaged];
        let after = (after.fork, after.length, after.hash);
        for change in &disk.changes() {
            crate::rig::apply(&mut files, change);
            let head = head_in_header(&files, damaged);
            let is_after = (head.fork, head.length, head.root_hash) == after;
            assert!(head == before || is_after, "{head:?}");
            check_other_cores(&Disk::new(files.clone()), damaged, &halved);
        }
    }
}

/// All but one core are as the batch leaves them, now and when the store is opened again. That one is mended by an audit.
fn check_other_cores(disk: &Disk, damaged: usize, halved: &Halved) {
    for _ in 0..2 {
        let store = open_store(disk, Durability::Sync).unwrap();
        for number in 0..3 {
            let core = open_core(&store, number);
            if number == damaged {
                let error = core.err().unwrap().to_string();
                assert!(error.contains(&key_of(number).to_string()), "{error}");
                continue;
            }
            let found = Snapshot::of(&core.unwrap().unwrap()).unwrap();
            assert_eq!(found, halved.after[number]);
        }
    }
    let store = open_store(disk, Durability::Sync).unwrap();
    let public_key = store.key_pair(NAMES[damaged]).public_key();
    let key = Manifest::single(public_key).key();
    let core = store.danger_get_unverified(&key).unwrap().unwrap();
    core.audit(Mode::Repair, |_| {}).unwrap();
    drop(core);
    let core = open_core(&store, damaged).unwrap().unwrap();
    let found = Snapshot::of(&core).unwrap();
    assert_eq!(found, halved.after[damaged]);
}

/// Goal: a journal with any byte flipped, or cut anywhere, is completed whole or dropped.
#[test]
fn a_damaged_journal_halves_no_batch() {
    let durability = Durability::Sync;
    let Halved {
        before,
        after,
        at_commit,
    } = halved(durability);
    let len = at_commit[JOURNAL].len();
    assert!(len > 500, "{len}");
    let (mut completed, mut dropped) = (0, 0);
    for at in 0..=len {
        for cuts in [false, true] {
            let mut files = at_commit.clone();
            let journal = files.get_mut(JOURNAL).unwrap();
            match at < len && !cuts {
                true => journal.edit(|bytes| bytes[at] ^= 1 << (at % 8)),
                false => journal.truncate(at),
            }
            let store = open_store(&Disk::new(files), durability).unwrap();
            let state = state_of(&open_cores(&store).unwrap());
            match state == after {
                true => completed += 1,
                false => dropped += 1,
            }
            assert!(state == before || state == after, "byte {at}");
        }
    }
    assert!(completed > 0 && dropped >= 2 * len, "{completed} {dropped}");
}
