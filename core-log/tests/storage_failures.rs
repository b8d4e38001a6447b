//! Goal: whatever call to the files fails, once or from then on, the caller is told, the core
//! refuses work until it is opened again, and then has the state before or after.
//! Method: one history with every kind of operation, once for each call that it makes.
#![cfg(feature = "files")]

mod rig;

use bytes::Bytes;
use ferrocore_log::{Core, CoreError, Durability, StorageError};
use rig::power::{Device, Loss};
use rig::rng::Rng;
use rig::workload::Snapshot;
use rig::{Contents, Disk, Fault, FaultKind, create, open};

const KINDS: [FaultKind; 4] = [
    FaultKind::Broken,
    FaultKind::Full,
    FaultKind::Short,
    FaultKind::ShortRead,
];

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(usize),
    Truncate(u64),
    Clear(u64, u64),
    UserData(usize),
    Flush,
    Read(u64),
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
    Step::UserData(6_000),
    Step::Flush,
    Step::Read(90),
];

fn run(core: &Core, step: Step) -> Result<(), CoreError> {
    let block = |i: usize| Bytes::from(vec![i as u8; 1 + i % 7]);
    match step {
        Step::Append(count) => core.append_batch((0..count).map(block).collect()).map(drop),
        Step::Truncate(length) => core.truncate(length, None).map(drop),
        Step::Clear(start, end) => core.clear(start..end),
        Step::UserData(size) => core.set_user_data("key", Some(&vec![7; size])),
        Step::Flush => core.flush(),
        Step::Read(index) => core.get_local(index).map(drop),
    }
}

/// The states between the steps, and how many calls all of them take.
fn rehearse(durability: Durability) -> (Vec<Snapshot>, usize) {
    let twin = create(&Disk::new(Contents::new()), durability).unwrap();
    let mut states = vec![Snapshot::of(&twin).unwrap()];
    for step in STEPS {
        run(&twin, *step).unwrap();
        states.push(Snapshot::of(&twin).unwrap());
    }
    let disk = Disk::new(Contents::new());
    let core = create(&disk, durability).unwrap();
    STEPS.iter().for_each(|step| run(&core, *step).unwrap());
    drop(core);
    (states, disk.calls())
}

#[test]
fn every_call_may_fail() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let (states, calls) = rehearse(durability);
        assert!(calls > 100, "{calls} calls");
        for call in 0..calls {
            for (kind, lasts) in KINDS.iter().flat_map(|k| [(*k, false), (*k, true)]) {
                let fault = Fault { call, lasts, kind };
                fail(fault, durability, &states);
            }
        }
        println!("{} failures", calls * KINDS.len() * 2);
    }
}

fn fail(fault: Fault, durability: Durability, states: &[Snapshot]) {
    let disk = Disk::with_fault(Contents::new(), Some(fault));
    let Ok(core) = create(&disk, durability) else {
        return check_reopens(&disk, durability, &states[..1], true);
    };
    let failed = STEPS.iter().position(|step| match run(&core, *step) {
        Ok(()) => false,
        Err(error) => {
            assert!(is_io(&error), "{fault:?} of {step:?}: {error}");
            true
        }
    });
    let Some(failed) = failed else {
        // It was none of a step: closing tells nobody, and loses nothing.
        drop(core);
        return check_reopens(&disk, durability, &states[STEPS.len()..], false);
    };
    match core.append("refused") {
        Err(CoreError::Storage(StorageError::Poisoned { .. })) => {
            assert!(core.get_local(0).is_err() || !core.has(0), "{fault:?}");
        }
        // A read failed, before anything was written; or it fails again.
        Err(error) => assert!(fault.lasts && is_io(&error), "{fault:?}: {error}"),
        Ok(_) => {
            assert!(!fault.lasts || is_short_read(fault), "{fault:?}");
            let truncated = core.truncate(core.length() - 1, None);
            assert!(truncated.is_ok() || fault.lasts, "{fault:?}");
            return;
        }
    }
    let changes = disk.now();
    assert!(core.append("refused").is_err() && core.flush().is_err());
    drop(core);
    assert_eq!(disk.now(), changes, "{fault:?}: a poisoned core writes");
    check_reopens(&disk, durability, &states[failed..failed + 2], false);
}

/// Whether writing works all the same.
fn is_short_read(fault: Fault) -> bool {
    matches!(fault.kind, FaultKind::ShortRead)
}

fn is_io(error: &CoreError) -> bool {
    matches!(error, CoreError::Storage(StorageError::Io { .. }))
}

/// What a restart of the process finds, and in Sync mode of the machine.
fn check_reopens(disk: &Disk, durability: Durability, states: &[Snapshot], is_new: bool) {
    let mut found = vec![disk.contents()];
    if durability == Durability::Sync {
        let mut device = Device::new(Contents::new());
        let changes = disk.changes();
        changes.iter().for_each(|change| device.advance(change));
        found.push(device.after(Loss::Everything, &mut Rng::new(0)));
    }
    for files in found {
        let disk = Disk::new(files);
        let core = match open(&disk, durability).unwrap() {
            Some(core) => core,
            None if is_new => create(&disk, durability).unwrap(),
            None => panic!("the core is gone"),
        };
        let state = Snapshot::of(&core).unwrap();
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
    files.get_mut("oplog").unwrap().extend([1; 100]);
    files.get_mut("tree").unwrap().extend([1; 400]);
    files.get_mut("bitfield").unwrap()[3_000] = 9;
    let disk = Disk::new(files.clone());
    drop(open(&disk, Durability::Sync).unwrap());
    for call in 0..disk.calls() {
        for kind in KINDS {
            let lasts = call % 2 == 0;
            let disk = Disk::with_fault(files.clone(), Some(Fault { call, lasts, kind }));
            // A failure while it is closed again is nobody's to see.
            if let Err(error) = open(&disk, Durability::Sync) {
                assert!(matches!(error, StorageError::Io { .. }), "{error}");
            }
            let again = open(&Disk::new(disk.contents()), Durability::Sync);
            assert_eq!(Snapshot::of(&again.unwrap().unwrap()).unwrap(), expected);
        }
    }
}
