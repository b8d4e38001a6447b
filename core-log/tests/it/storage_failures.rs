//! Goal: whatever call to the files fails, once or from then on, the caller is told, the core
//! refuses work until it is opened again, and then has the state before or after.
//! Method: one history with every kind of operation, once for each call that it makes.
#![cfg(feature = "files")]

use crate::rig::faults::{KINDS, blocks, faults, is_io, left_by};
use crate::rig::workload::{Snapshot, WIDE_LENGTHS, wide};
use crate::rig::{Contents, Disk, Fault, FaultKind, create, header, key_pair, open};
use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::manifest::Prologue;
use ferrocore_log::storage::CoreHeader;
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::{
    CommitOptions, Core, CoreError, Corestore, Durability, Manifest, StorageError,
};

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(usize),
    Truncate(u64),
    Clear(u64, u64),
    UserData(usize),
    Flush,
    Read(u64),
    /// So many blocks under a signature that was made elsewhere.
    AppendSigned(usize),
    TruncateSigned(u64),
    /// An audit that mends what it finds.
    Repair,
}

const STEPS: &[Step] = &[
    Step::Append(5),
    Step::Flush,
    Step::Append(3),
    Step::Read(2),
    Step::UserData(10),
    Step::Truncate(7),
    Step::Append(2),
    Step::Clear(1, 3),
    Step::Append(130),
    Step::UserData(5_000),
    Step::Flush,
    Step::Truncate(100),
    Step::Append(2),
    Step::AppendSigned(3),
    Step::TruncateSigned(98),
    Step::UserData(6_000),
    Step::Flush,
    Step::Read(90),
];

/// Of a core with damage.
const REPAIR_STEPS: &[Step] = &[
    Step::Append(2),
    Step::Repair,
    Step::Append(1),
    Step::Flush,
    Step::Repair,
    Step::Truncate(30),
];

/// Of a core of [`LONG`] blocks: at its end, at the edge of its last page of bits, and on pages of the tree of
/// which one takes the other's place in the cache.
const LONG_STEPS: &[Step] = &[
    Step::Read(LONG - 1),
    Step::Read(LONG - 1 - CACHED_BLOCKS),
    Step::Append(9),
    Step::Clear(LONG - 1, LONG + 2),
    Step::Read(3),
    Step::Read(CACHED_BLOCKS + 3),
    Step::Flush,
    Step::Clear(CACHED_BLOCKS - 2, CACHED_BLOCKS + 1),
    Step::Truncate(CACHED_BLOCKS + 2),
    Step::Append(130),
    Step::Truncate(CACHED_BLOCKS - 3),
    Step::Append(4),
    Step::Read(CACHED_BLOCKS),
];

/// Blocks before the first one with which another shares its place in the cache of the tree.
const CACHED_BLOCKS: u64 = 131_072;
const LONG: u64 = WIDE_LENGTHS[1];
const _: () = assert!(LONG > CACHED_BLOCKS);

fn run(core: &Core, step: Step) -> Result<(), CoreError> {
    match step {
        Step::Append(count) => core.append_batch(blocks(count)).map(drop),
        Step::Truncate(length) => core.truncate(length, None).map(drop),
        Step::Clear(start, end) => core.clear(start..end),
        Step::UserData(size) => core.set_user_data("key", Some(&vec![7; size])),
        Step::Flush => core.flush(),
        Step::Read(index) => core.get_local(index).map(drop),
        Step::AppendSigned(count) => {
            let proposal = core.propose(blocks(count))?;
            let signature = proposal.assemble(&[proposal.sign(&key_pair()).unwrap()]);
            core.append_signed(proposal, &signature).map(drop)
        }
        Step::TruncateSigned(length) => {
            let proposal = core.propose_truncate(length, None)?;
            let signature = proposal.assemble(&[proposal.sign(&key_pair()).unwrap()]);
            core.truncate_signed(proposal, &signature).map(drop)
        }
        Step::Repair => core.audit(Mode::Repair, |_| {}).map(drop),
    }
}

/// What is done to a core, from which files on.
struct History {
    start: Contents,
    steps: &'static [Step],
    durability: Durability,
    /// How it is looked at.
    look: fn(&Core) -> Snapshot,
}

impl History {
    /// The core as it begins: a new one where there are no files.
    fn begin(&self, disk: &Disk) -> Result<Core, StorageError> {
        match self.start.is_empty() {
            true => create(disk, self.durability),
            false => Ok(open(disk, self.durability)?.unwrap()),
        }
    }

    /// The states between the steps, and how many calls all of them take.
    fn rehearse(&self) -> (Vec<Snapshot>, usize) {
        let twin = self.begin(&Disk::new(self.start.clone())).unwrap();
        let mut states = vec![(self.look)(&twin)];
        for step in self.steps {
            run(&twin, *step).unwrap();
            states.push((self.look)(&twin));
        }
        let disk = Disk::new(self.start.clone());
        let core = self.begin(&disk).unwrap();
        self.steps
            .iter()
            .for_each(|step| run(&core, *step).unwrap());
        drop(core);
        (states, disk.calls())
    }
}

#[test]
fn every_call_may_fail() {
    sweep(Contents::new(), STEPS, whole);
}

fn whole(core: &Core) -> Snapshot {
    Snapshot::of(core).unwrap()
}

/// As [`every_call_may_fail`], of a core longer than what the cache of its tree has room for.
#[test]
fn every_call_of_a_long_core_may_fail() {
    sweep(wide(LONG), LONG_STEPS, whole);
}

/// As [`every_call_may_fail`], of a core of which a block and a node are damaged: a call that fails makes nobody
/// take what is sound for damaged, nor think that all is mended.
#[test]
fn every_call_of_a_repair_may_fail() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    run(&core, Step::Append(40)).unwrap();
    core.flush().unwrap();
    let mut files = disk.contents();
    let mut flip = |name, at: usize| files.get_mut(name).unwrap().edit(|bytes| bytes[at] ^= 1);
    flip("data", 3); // in block 2
    flip("tree", 40 * 13 + 10); // above blocks 6 and 7
    let disk = Disk::new(files.clone());
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    let before = Snapshot::lossy(&core);
    run(&core, Step::Repair).unwrap();
    assert_ne!(
        Snapshot::lossy(&core),
        before,
        "there is something to repair"
    );
    drop(core);
    sweep(files, REPAIR_STEPS, Snapshot::lossy);
}

fn sweep(start: Contents, steps: &'static [Step], look: fn(&Core) -> Snapshot) {
    for durability in [Durability::Sync, Durability::Buffered] {
        let start = start.clone();
        let history = History {
            start,
            steps,
            durability,
            look,
        };
        let (states, calls) = history.rehearse();
        assert!(calls > 50, "{calls} calls");
        for fault in faults(0..calls) {
            fail(fault, &history, &states);
        }
        println!("{} failures", faults(0..calls).count());
    }
}

fn fail(fault: Fault, history: &History, states: &[Snapshot]) {
    let disk = Disk::with_fault(history.start.clone(), Some(fault));
    let Ok(core) = history.begin(&disk) else {
        return check_reopens(&disk, history, &states[..1]);
    };
    let failed = history
        .steps
        .iter()
        .position(|step| match run(&core, *step) {
            Ok(()) => false,
            Err(error) => {
                // Also where bits could not be read, which only the next call that needs the files can tell.
                assert!(failed_io(&error), "{fault:?} of {step:?}: {error}");
                true
            }
        });
    let Some(failed) = failed else {
        // It was none of a step: closing tells nobody, and loses nothing.
        drop(core);
        return check_reopens(&disk, history, &states[history.steps.len()..]);
    };
    let must_refuse = disk.has_lost_change();
    let refused = core.append("refused");
    match refused {
        _ if is_poisoned(&refused) => {
            assert!(core.get_local(0).is_err() || !core.has(0), "{fault:?}");
        }
        // A read failed, before anything was written; and it fails again.
        Err(error) => {
            assert!(
                !must_refuse && fault.lasts && failed_io(&error),
                "{fault:?}: {error}"
            );
        }
        Ok(_) => {
            assert!(
                !must_refuse,
                "{fault:?}: a core goes on after a failed write"
            );
            assert!(!fault.lasts || is_short_read(fault), "{fault:?}");
            return check_went_on(&disk, core, fault, history);
        }
    }
    let changes = disk.now();
    assert!(core.append("refused").is_err() && core.flush().is_err());
    drop(core);
    assert_eq!(disk.now(), changes, "{fault:?}: a poisoned core writes");
    check_reopens(&disk, history, &states[failed..failed + 2]);
}

/// Of a core that only failed to read: what it goes on to write is found again.
fn check_went_on(disk: &Disk, core: Core, fault: Fault, history: &History) {
    let truncated = core.truncate(core.length() - 1, None);
    if truncated.is_err() {
        return assert!(fault.lasts, "{fault:?}");
    }
    let head = (core.fork(), core.length(), core.byte_length());
    let state = (!fault.lasts).then(|| (history.look)(&core));
    drop(core);
    for files in left_by(disk, &history.start, history.durability) {
        let found = open(&Disk::new(files), history.durability)
            .unwrap()
            .unwrap();
        let head_found = (found.fork(), found.length(), found.byte_length());
        assert_eq!(head_found, head, "{fault:?}");
        if let Some(state) = &state {
            assert_eq!(&(history.look)(&found), state, "{fault:?}");
        }
    }
}

/// Whether writing works all the same.
fn is_short_read(fault: Fault) -> bool {
    matches!(fault.kind, FaultKind::ShortRead)
}

fn is_poisoned<T>(result: &Result<T, CoreError>) -> bool {
    matches!(
        result,
        Err(CoreError::Storage(StorageError::Poisoned { .. }))
    )
}

fn failed_io(error: &CoreError) -> bool {
    matches!(error, CoreError::Storage(error) if is_io(error))
}

fn check_reopens(disk: &Disk, history: &History, states: &[Snapshot]) {
    let (start, durability) = (&history.start, history.durability);
    let is_new = |states: &[Snapshot]| start.is_empty() && states[0].length == 0;
    for files in left_by(disk, start, durability) {
        let disk = Disk::new(files);
        let core = match open(&disk, durability).unwrap() {
            Some(core) => core,
            None if is_new(states) => create(&disk, durability).unwrap(),
            None => panic!("the core is gone"),
        };
        let state = (history.look)(&core);
        assert!(states.contains(&state), "{state:?} is none of {states:?}");
        core.append("goes on").unwrap();
    }
}

/// Goal: an open that fails changes nothing that a later one needs.
#[test]
fn every_call_of_an_open_may_fail() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    STEPS.iter().for_each(|step| run(&core, *step).unwrap());
    run(&core, Step::Append(3)).unwrap();
    let expected = Snapshot::of(&core).unwrap();
    let mut files = disk.contents();
    // As after a crash: half an entry, and pages and nodes from a later state.
    let mut edit = |name, edit: fn(&mut Vec<u8>)| files.get_mut(name).unwrap().edit(edit);
    edit("oplog", |oplog| oplog.extend([1; 100]));
    edit("tree", |tree| tree.extend([1; 400]));
    edit("bitfield", |bitfield| bitfield[3_000] = 9);
    let disk = Disk::new(files.clone());
    drop(open(&disk, Durability::Sync).unwrap());
    for call in 0..disk.calls() {
        for kind in KINDS {
            let lasts = call % 2 == 0;
            let disk = Disk::with_fault(files.clone(), Some(Fault { call, lasts, kind }));
            // A failure while it is closed again is nobody's to see.
            if let Err(error) = open(&disk, Durability::Sync) {
                assert!(is_io(&error), "{error}");
            }
            let again = open(&Disk::new(disk.contents()), Durability::Sync);
            assert_eq!(Snapshot::of(&again.unwrap().unwrap()).unwrap(), expected);
        }
    }
}

/// A core and its draft, as lists of blocks.
type Lists = (Vec<Bytes>, Vec<Bytes>);

#[derive(Debug, Clone, Copy)]
enum DraftStep {
    Append(u8),
    Truncate(u64),
    Overwrite,
    /// All of it, or its first so many blocks.
    Commit(Option<u64>),
    Beside(u8),
}

const DRAFT_STEPS: &[DraftStep] = &[
    DraftStep::Append(2),
    DraftStep::Append(3),
    DraftStep::Truncate(6),
    DraftStep::Commit(Some(4)),
    DraftStep::Append(1),
    DraftStep::Commit(None),
    DraftStep::Truncate(2),
    DraftStep::Append(2),
    DraftStep::Overwrite,
    DraftStep::Beside(1),
    DraftStep::Overwrite,
    DraftStep::Append(2),
    DraftStep::Commit(None),
];

fn draft_blocks(step: usize, count: u8) -> Vec<Bytes> {
    let block = |i: u8| Bytes::from(vec![step as u8; 1 + usize::from(i)]);
    (0..count).map(block).collect()
}

fn run_draft(core: &Core, number: usize, step: DraftStep) -> Result<(), CoreError> {
    if let DraftStep::Beside(count) = step {
        return core.append_batch(draft_blocks(number, count)).map(drop);
    }
    let draft = core.draft("draft")?;
    match step {
        DraftStep::Append(count) => draft.append_batch(draft_blocks(number, count)).map(drop),
        DraftStep::Truncate(length) => draft.truncate(length),
        DraftStep::Overwrite => draft.overwrite(),
        DraftStep::Commit(length) => draft
            .commit(CommitOptions {
                length,
                ..CommitOptions::default()
            })
            .map(drop),
        DraftStep::Beside(_) => Ok(()),
    }
}

/// What each step makes of the lists.
fn draft_states() -> Vec<Lists> {
    let start = draft_blocks(99, 3);
    let mut states = vec![(start.clone(), start)];
    for (number, step) in DRAFT_STEPS.iter().enumerate() {
        let (mut core, mut draft) = states.last().unwrap().clone();
        match step {
            DraftStep::Append(count) => draft.extend(draft_blocks(number, *count)),
            DraftStep::Truncate(length) => draft.truncate(*length as usize),
            DraftStep::Overwrite => draft.clone_from(&core),
            DraftStep::Commit(length) => {
                let length = length.map_or(draft.len(), |length| length as usize);
                core = draft[..length].to_vec();
            }
            DraftStep::Beside(count) => core.extend(draft_blocks(number, *count)),
        }
        states.push((core, draft));
    }
    states
}

/// The files of a core of three blocks.
fn core_to_draft_on(durability: Durability) -> Contents {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, durability).unwrap();
    core.append_batch(draft_blocks(99, 3)).unwrap();
    core.flush().unwrap();
    drop(core);
    disk.contents()
}

/// Goal: whatever call fails while a draft is written and committed, the caller is told, and the core and the
/// draft are each as before or after.
#[test]
fn every_call_of_a_draft_may_fail() {
    let states = draft_states();
    for durability in [Durability::Sync, Durability::Buffered] {
        let files = core_to_draft_on(durability);
        let disk = Disk::new(files.clone());
        let core = open(&disk, durability).unwrap().unwrap();
        let opening = disk.calls();
        for (number, step) in DRAFT_STEPS.iter().enumerate() {
            run_draft(&core, number, *step).unwrap();
            check_lists(
                &disk.contents(),
                durability,
                &states[number + 1..=number + 1],
            );
        }
        drop(core);
        let calls = opening..disk.calls();
        assert!(calls.len() > 100, "{} calls", calls.len());
        for fault in faults(calls.clone()) {
            fail_draft(fault, &files, durability, &states);
        }
        println!("{} failures of drafts", faults(calls).count());
    }
}

fn fail_draft(fault: Fault, files: &Contents, durability: Durability, states: &[Lists]) {
    let disk = Disk::with_fault(files.clone(), Some(fault));
    let core = open(&disk, durability).unwrap().unwrap();
    let steps = DRAFT_STEPS.iter().enumerate();
    let mut steps = steps.map(|(number, step)| run_draft(&core, number, *step));
    let failed = steps.position(|result| match result {
        Ok(()) => false,
        Err(error) => {
            assert!(failed_io(&error), "{fault:?}: {error}");
            true
        }
    });
    // A draft that nobody holds is opened anew for each step; the core beside it stays open.
    if let Some(DraftStep::Beside(_)) = failed.map(|failed| DRAFT_STEPS[failed])
        && disk.has_lost_change()
    {
        let refused = core.append("refused");
        assert!(is_poisoned(&refused), "{fault:?}: {refused:?}");
    }
    drop(core);
    let possible = match failed {
        Some(failed) => &states[failed..failed + 2],
        None => &states[DRAFT_STEPS.len()..],
    };
    for files in left_by(&disk, files, durability) {
        check_lists(&files, durability, possible);
    }
}

/// Core and draft are each one of `possible`, and go on.
fn check_lists(files: &Contents, durability: Durability, possible: &[Lists]) {
    let core = open(&Disk::new(files.clone()), durability)
        .unwrap()
        .unwrap();
    let draft = core.draft("draft").unwrap();
    let all = |length, get: &dyn Fn(u64) -> Bytes| (0..length).map(get).collect::<Vec<_>>();
    let of_core = all(core.length(), &|i| core.get_local(i).unwrap().unwrap());
    let of_draft = all(draft.length(), &|i| draft.get_local(i).unwrap().unwrap());
    assert!(possible.iter().any(|(core, _)| *core == of_core));
    assert!(possible.iter().any(|(_, draft)| *draft == of_draft));
    draft.overwrite().unwrap();
    draft.append("goes on").unwrap();
    let committed = draft.commit(CommitOptions::default()).unwrap();
    assert_eq!(committed.length, of_core.len() as u64 + 1);
}

/// Goal: a copy of a pinned beginning that a failing call cut off claims no block it does not have, and goes on.
#[test]
fn every_call_of_a_static_copy_may_fail() {
    let source = Corestore::memory().get_named("source").unwrap();
    source.append_batch(blocks(40)).unwrap();
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = Disk::new(Contents::new());
        let copy = open_static(&disk, &source, durability).unwrap();
        copy.copy_prologue(&source).unwrap();
        drop(copy);
        let calls = disk.calls();
        let mut failures = 0;
        for fault in faults(0..calls) {
            let disk = Disk::with_fault(Contents::new(), Some(fault));
            let opened = open_static(&disk, &source, durability).map_err(CoreError::Storage);
            let copied = opened.and_then(|copy| copy.copy_prologue(&source));
            if let Err(error) = &copied {
                failures += 1;
                assert!(failed_io(error), "{fault:?}: {error}");
            }
            for files in left_by(&disk, &Contents::new(), durability) {
                let copy = open_static(&Disk::new(files), &source, durability).unwrap();
                let here = copy.contiguous_length();
                assert!(here == 40 || copied.is_err(), "{fault:?}: {here} blocks");
                (0..here).for_each(|index| assert_same_block(&copy, &source, index));
                copy.copy_prologue(&source).unwrap();
                (0..40).for_each(|index| assert_same_block(&copy, &source, index));
                assert_eq!(copy.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
            }
        }
        println!("{failures} failures of {calls} calls");
        assert!(failures > calls && calls > 10, "{failures} of {calls}");
    }
}

/// The core that pins all of `source`, made if it is not there.
fn open_static(disk: &Disk, source: &Core, durability: Durability) -> Result<Core, StorageError> {
    let prologue = Prologue {
        hash: source.tree_hash(),
        length: source.length(),
    };
    let manifest = Manifest::builder().prologue(prologue).build().unwrap();
    let key = manifest.key();
    let found = FileCore::open(&key.discovery_key(), disk.core_files(), durability)?;
    let opened = match found {
        Some(opened) => opened,
        None => {
            let header = CoreHeader {
                key,
                manifest: Some(manifest),
                ..header()
            };
            FileCore::create(disk.core_files(), header, durability)?
        }
    };
    match Core::open(opened, None, durability) {
        Err(CoreError::Storage(error)) => Err(error),
        result => Ok(result.unwrap()),
    }
}

#[track_caller]
fn assert_same_block(copy: &Core, source: &Core, index: u64) {
    let [ours, theirs] = [copy, source].map(|core| core.get_local(index).unwrap());
    assert_eq!(ours, theirs, "block {index}");
}
