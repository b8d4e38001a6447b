//! Goal: whatever call to the files fails while a reader takes in proofs, once or from then on, it is told, has
//! the state before or after when it is opened again, and gets to the end from there.
//! Method: one history with upgrades, blocks, a fork that is followed and a clear, once for each call that it
//! makes.
#![cfg(feature = "files")]

use crate::rig::faults::{blocks, faults, is_io, left_by};
use crate::rig::workload::Snapshot;
use crate::rig::{Contents, Disk, Fault, create, create_from, header, open};
use std::ops::Range;

use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::AcceptError;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreError, Durability, StorageError};

/// What the reader does next, from which of the [sources].
#[derive(Debug, Clone, Copy)]
enum Step {
    Upgrade(usize),
    Blocks(usize, &'static [u64]),
    Follow(usize),
    Clear(u64, u64),
    Flush,
    /// An audit that mends what it finds.
    Repair,
}

const STEPS: &[Step] = &[
    Step::Upgrade(0),
    Step::Blocks(0, &[3, 4, 19]),
    Step::Flush,
    Step::Blocks(0, &[5]),
    Step::Upgrade(1),
    Step::Blocks(1, &[130, 0, 7]),
    Step::Repair,
    Step::Clear(3, 6),
    Step::Blocks(1, &[4, 100]),
    Step::Follow(2),
    Step::Blocks(2, &[45, 60, 4]),
    Step::Flush,
    Step::Blocks(2, &[1]),
];

/// The writer as it was at three moments, at the last under another fork.
fn sources() -> [Core; 3] {
    let source = |length: usize| {
        let core = create(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
        core.append_batch(blocks(length)).unwrap();
        core
    };
    let forked = source(150);
    forked.truncate(41, None).unwrap();
    forked.append_batch(vec![Bytes::from("new"); 29]).unwrap();
    [source(20), source(150), forked]
}

fn reader(disk: &Disk, durability: Durability) -> Result<Core, StorageError> {
    let mut header = header();
    header.manifest = None;
    create_from(disk, header, durability)
}

/// Runs a step, or says what failed in storage.
fn run(core: &Core, sources: &[Core], step: Step) -> Result<(), StorageError> {
    match step {
        Step::Upgrade(from) => {
            let proof = upgrade(&sources[from], core.length());
            core.accept(proof).map(drop).map_err(of_accept)
        }
        Step::Blocks(from, blocks) => {
            let mut changeset = core.changeset();
            for index in blocks {
                let nodes = core.missing_nodes(2 * index)?;
                let block = NodeRequest {
                    index: *index,
                    nodes,
                };
                let request = ProofRequest {
                    block: Some(block),
                    ..ProofRequest::default()
                };
                let proof = prove(&sources[from], request);
                for verified in core.verify_into(&mut changeset, vec![proof]) {
                    verified.map_err(of_verify)?;
                }
            }
            core.commit(changeset).map(drop).map_err(of_accept)
        }
        Step::Follow(from) => {
            let proof = upgrade(&sources[from], 0);
            let mut reorg = core.reorg(proof).map_err(of_verify)?;
            while let Some(request) = reorg.wants() {
                let proof = prove(&sources[from], request);
                core.narrow(&mut reorg, &proof).map_err(of_verify)?;
            }
            core.adopt(reorg).map_err(of_accept)
        }
        Step::Clear(start, end) => core.clear(start..end).map_err(of_core),
        Step::Flush => core.flush().map_err(of_core),
        Step::Repair => core.audit(Mode::Repair, |_| {}).map(drop).map_err(of_core),
    }
}

fn upgrade(source: &Core, start: u64) -> Proof {
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start,
            length: source.length() - start,
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    prove(source, request)
}

fn prove(source: &Core, request: ProofRequest) -> Proof {
    let fork = source.fork();
    let request = ProofRequest { fork, ..request };
    source.prove(&request).unwrap().unwrap()
}

fn of_core(error: CoreError) -> StorageError {
    match error {
        CoreError::Storage(error) => error,
        error => panic!("{error}"),
    }
}

fn of_verify(error: VerifyError) -> StorageError {
    match error {
        VerifyError::Storage(error) => error,
        error => panic!("{error}"),
    }
}

fn of_accept(error: AcceptError) -> StorageError {
    match error {
        AcceptError::Storage(error) => error,
        AcceptError::Verify(error) => of_verify(error),
        error => panic!("{error}"),
    }
}

#[test]
fn every_call_of_a_reader_may_fail() {
    let sources = sources();
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = Disk::new(Contents::new());
        let core = reader(&disk, durability).unwrap();
        let mut states = vec![Snapshot::of(&core).unwrap()];
        for step in STEPS {
            run(&core, &sources, *step).unwrap();
            states.push(Snapshot::of(&core).unwrap());
        }
        assert_eq!((core.fork(), core.length()), (1, 70));
        assert!(core.has(4) && core.has(45) && !core.has(5));
        drop(core);
        let calls = rehearse(&sources, durability);
        assert!(calls > 100, "{calls} calls");
        for fault in faults(0..calls) {
            fail(fault, durability, &sources, &states);
        }
        println!("{} failures", faults(0..calls).count());
    }
}

/// How many calls the history takes.
fn rehearse(sources: &[Core], durability: Durability) -> usize {
    let disk = Disk::new(Contents::new());
    let core = reader(&disk, durability).unwrap();
    for step in STEPS {
        run(&core, sources, *step).unwrap();
    }
    drop(core);
    disk.calls()
}

fn fail(fault: Fault, durability: Durability, sources: &[Core], states: &[Snapshot]) {
    let disk = Disk::with_fault(Contents::new(), Some(fault));
    let Ok(core) = reader(&disk, durability) else {
        return check_reopens(&disk, durability, fault, sources, states, 0..1);
    };
    let failed = STEPS.iter().position(|step| {
        let error = run(&core, sources, *step).err();
        assert!(
            error.as_ref().is_none_or(is_io),
            "{fault:?} of {step:?}: {error:?}"
        );
        error.is_some()
    });
    let must_refuse = disk.has_lost_change();
    let refused = core.flush().err();
    let is_poisoned =
        |error: &CoreError| matches!(error, CoreError::Storage(StorageError::Poisoned { .. }));
    if failed.is_some() && must_refuse {
        assert!(
            refused.as_ref().is_some_and(is_poisoned),
            "{fault:?}: {refused:?}"
        );
    }
    if let (Some(failed), Some(_)) = (failed, refused) {
        let changes = disk.now();
        let again = run(&core, sources, STEPS[failed]);
        assert!(again.is_err(), "{fault:?}");
        drop(core);
        assert_eq!(disk.now(), changes, "{fault:?}: a poisoned core writes");
    } else {
        // A read failed, before anything was written, or closing does.
        drop(core);
    }
    let failed = failed.unwrap_or(STEPS.len());
    let possible = failed..states.len().min(failed + 2);
    check_reopens(&disk, durability, fault, sources, states, possible);
}

/// Whoever opens the files finds one of the `possible` states, and gets to the end from there.
fn check_reopens(
    disk: &Disk,
    durability: Durability,
    fault: Fault,
    sources: &[Core],
    states: &[Snapshot],
    possible: Range<usize>,
) {
    for files in left_by(disk, &Contents::new(), durability) {
        let disk = Disk::new(files);
        let core = match open(&disk, durability).unwrap() {
            Some(core) => core,
            None if possible.start == 0 => reader(&disk, durability).unwrap(),
            None => panic!("{fault:?}: the core is gone"),
        };
        let state = Snapshot::of(&core).unwrap();
        let at = possible.clone().find(|at| states[*at] == state);
        let at = at.unwrap_or_else(|| panic!("{fault:?}, {possible:?}: {state:?}"));
        for step in &STEPS[at..] {
            run(&core, sources, *step).unwrap();
        }
        assert_eq!(Some(&Snapshot::of(&core).unwrap()), states.last());
    }
}
