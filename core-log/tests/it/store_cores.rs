//! Goal: whatever call fails as the files of cores are made, opened, locked, read, written, closed for others and opened again,
//! the caller is told, nothing is lost, no core is there in part, no lock and no descriptor is kept, and what failed can be
//! asked for again. Who only reads changes nothing.
//! Method: short histories on a real disk, once for each call that they make and each way in which it may fail.
//! `FERROCORE_STORE_FAULTS` says how many of these are tried in each sweep, `FERROCORE_SEED` which.
#![cfg(all(unix, feature = "files"))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferrocore_log::storage::files::file_system::{FileSystem, OsFileSystem};
use ferrocore_log::storage::files::{Files, ReadOnlyFiles};
use ferrocore_log::{
    Core, CoreError, Corestore, Durability, StorageError, StoreError, StoreOptions,
};
use ferrocore_primitives::keys::DiscoveryKey;
use tempfile::TempDir;

use crate::rig::Fault;
use crate::rig::aftermath::{Aftermath, copy};
use crate::rig::faults::is_io;
use crate::rig::power::Scene;
use crate::rig::rng::{Rng, from_env};
use crate::rig::watched::Watched;
use crate::rig::workload::Snapshot;

/// Of all failures of a history so many are tried, unless `FERROCORE_STORE_FAULTS` is set.
const SAMPLED_FAULTS: usize = 60;
/// The fewest that a store makes do with, so that two cores do not have all their files open at once.
const OPEN_FILES_MAX: usize = 8;
/// The root secret and who holds the store.
const FILES_OF_STORE: usize = 2;
/// A file that is being opened is counted before one is closed for it, and the oplog comes with it.
const FILES_IN_USE: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The core of this name, which is made if it is not here.
    Open(&'static str),
    /// A block, to a core that is closed again unless it is held.
    Append(&'static str),
    /// So many blocks at once.
    AppendMany(&'static str, usize),
    Truncate(&'static str, u64),
    /// The whole of a core, block by block.
    Clear(&'static str),
    Draft(&'static str),
    RemoveDrafts(&'static str),
    Purge(&'static str),
    /// All cores, which stay open.
    HoldAll,
    LetGo,
    /// All that is in all of them.
    Look,
    /// A bare hypercore has this one locked.
    Elsewhere(&'static str),
    /// Somebody else opens the store.
    OtherStore,
    /// Somebody looks at all, and may change nothing.
    ReadOnly,
    Gc,
    Reopen,
}

const MAKING: &[Step] = &[
    Step::Open("a"),
    Step::Append("a"),
    Step::Draft("a"),
    Step::Open("b"),
    Step::AppendMany("b", 3),
    Step::Purge("b"),
    Step::Open("b"),
    Step::Elsewhere("b"),
    Step::Reopen,
    Step::Append("b"),
];

/// Of `a`, `b` and `c`, each with blocks, and `empty`, each with a draft.
const OPENING: &[Step] = &[
    Step::Look,
    Step::Elsewhere("a"),
    Step::OtherStore,
    Step::Gc,
    Step::Truncate("a", 1),
    Step::Append("a"),
    Step::RemoveDrafts("b"),
    Step::Reopen,
    Step::Append("empty"),
];

const TAKING_TURNS: &[Step] = &[
    Step::HoldAll,
    Step::Append("a"),
    Step::Append("b"),
    Step::Look,
    Step::AppendMany("c", 2),
    Step::Clear("a"),
    Step::Append("empty"),
    Step::Look,
    Step::LetGo,
    Step::Append("a"),
];

const READING: &[Step] = &[Step::ReadOnly];

/// What a store holds: of each core its log, and its drafts.
type Seen = BTreeMap<DiscoveryKey, SeenCore>;

#[derive(Clone, PartialEq)]
struct SeenCore {
    log: Snapshot,
    drafts: Vec<String>,
}

fn look(store: &Corestore) -> Result<Seen, StorageError> {
    let mut seen = Seen::new();
    for listed in store.list().map_err(stored)? {
        let core = store.get_by_discovery_key(&listed.discovery_key);
        let Some(core) = core.map_err(stored)? else {
            continue;
        };
        listed.info.map_err(stored)?;
        seen.insert(listed.discovery_key, look_at(&core).map_err(of_core)?);
    }
    Ok(seen)
}

fn look_at(core: &Core) -> Result<SeenCore, CoreError> {
    let mut drafts = core.drafts()?;
    drafts.sort_unstable();
    Ok(SeenCore {
        log: Snapshot::of(core)?,
        drafts,
    })
}

/// What the storage said.
fn stored(error: StoreError) -> StorageError {
    match error {
        StoreError::Storage(error) => error,
        StoreError::Core(error) => of_core(error),
        error => panic!("{error}"),
    }
}

fn of_core(error: CoreError) -> StorageError {
    match error {
        CoreError::Storage(error) => error,
        error => panic!("{error}"),
    }
}

fn options(durability: Durability) -> StoreOptions {
    StoreOptions {
        durability,
        ..StoreOptions::default()
    }
}

/// A store that is open, or was.
struct Run {
    disk: Watched,
    directory: PathBuf,
    durability: Durability,
    store: Option<Corestore>,
    held: Vec<Core>,
    /// What the last step saw, if it looked.
    seen: Option<Seen>,
}

impl Run {
    fn new(disk: Watched, directory: &Path, durability: Durability) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
            durability,
            store: None,
            held: Vec::new(),
            seen: None,
        }
    }

    fn open(&mut self) -> Result<&Corestore, StorageError> {
        if self.store.is_none() {
            self.store = Some(self.open_another()?);
        }
        Ok(self.store.as_ref().unwrap())
    }

    fn open_another(&self) -> Result<Corestore, StorageError> {
        let (files, max) = (self.disk.files(), Some(OPEN_FILES_MAX));
        let files = Files::open_on(files, &self.directory, self.durability, max)?;
        Corestore::with_storage(files, options(self.durability))
    }

    fn open_read_only(&self) -> Result<Corestore, StorageError> {
        let (files, max) = (self.disk.files(), Some(OPEN_FILES_MAX));
        let files = ReadOnlyFiles::open_on(files, &self.directory, max)?;
        let read_only = true;
        let options = options(self.durability);
        Corestore::with_storage(
            files,
            StoreOptions {
                read_only,
                ..options
            },
        )
    }

    fn look(&mut self) -> Result<Seen, StorageError> {
        look(self.open()?)
    }

    fn core(&mut self, name: &str) -> Result<Core, StorageError> {
        self.open()?.get_named(name).map_err(stored)
    }

    fn key(&mut self, name: &str) -> Result<DiscoveryKey, StorageError> {
        let public_key = self.open()?.key_pair(name).public_key();
        Ok(ferrocore_log::Manifest::single(public_key)
            .key()
            .discovery_key())
    }

    fn step(&mut self, step: Step) -> Result<(), StorageError> {
        match step {
            Step::Open(name) => self.core(name).map(drop),
            Step::Append(name) => self.append(name, 1),
            Step::AppendMany(name, count) => self.append(name, count),
            Step::Truncate(name, length) => {
                let cut = self.core(name)?.truncate(length, None);
                cut.map(drop).map_err(of_core)
            }
            Step::Clear(name) => {
                let core = self.core(name)?;
                core.clear(0..core.length()).map(drop).map_err(of_core)
            }
            Step::Draft(name) => self.core(name)?.draft("draft").map(drop).map_err(of_core),
            Step::RemoveDrafts(name) => {
                let core = self.core(name)?;
                for draft in core.drafts().map_err(of_core)? {
                    core.delete_draft(&draft).map_err(of_core)?;
                }
                Ok(())
            }
            Step::Purge(name) => {
                let core = self.key(name)?;
                self.open()?.purge(&core).map(drop).map_err(stored)
            }
            Step::HoldAll => {
                let store = self.open()?;
                let open = |core| store.get_by_discovery_key(&core).map_err(stored);
                let listed = store.list().map_err(stored)?.into_iter();
                let cores = listed.map(|listed| open(listed.discovery_key));
                self.held = cores
                    .filter_map(Result::transpose)
                    .collect::<Result<_, _>>()?;
                Ok(())
            }
            Step::LetGo => {
                self.held.clear();
                Ok(())
            }
            Step::Look => {
                self.seen = Some(self.look()?);
                Ok(())
            }
            Step::Elsewhere(name) => self.elsewhere(name),
            Step::OtherStore => {
                self.open()?;
                match self.open_another() {
                    Err(StorageError::Locked { .. }) => Ok(()),
                    result => panic!("{:?}", result?),
                }
            }
            Step::ReadOnly => {
                let before = self.disk.now();
                let found = self.open_read_only().and_then(|store| look(&store));
                let now = self.disk.now();
                assert_eq!(now, before, "who only reads changed something");
                self.seen = Some(found?);
                Ok(())
            }
            Step::Gc => self
                .open()?
                .collect_garbage(false)
                .map(drop)
                .map_err(stored),
            Step::Reopen => {
                self.close();
                self.open().map(drop)
            }
        }
    }

    fn append(&mut self, name: &str, count: usize) -> Result<(), StorageError> {
        let core = self.core(name)?;
        let block = |at| format!("block {at} of {name}").into();
        let blocks = (core.length()..).take(count).map(block).collect();
        core.append_batch(blocks).map(drop).map_err(of_core)
    }

    /// Somebody else has locked a core, until he lets it go.
    fn elsewhere(&mut self, name: &str) -> Result<(), StorageError> {
        let core = self.key(name)?;
        let oplog = oplog_of(&self.directory, &core);
        let lock = OsFileSystem.lock(&oplog, false).unwrap();
        let _lock = lock.expect("nobody keeps it locked");
        match self.core(name) {
            Err(StorageError::Locked { .. }) => Ok(()),
            result => panic!("{:?}", result?),
        }
    }

    fn close(&mut self) {
        self.held.clear();
        self.store = None;
        assert_eq!(self.disk.open_files(), 0);
    }

    /// No more is open than may be, unless what a file is cannot be told any more; and nothing if no core is held.
    fn check_open_files(&self, may_close: bool) {
        let open = self.disk.open_files();
        if self.held.is_empty() {
            let expected = self.store.as_ref().map_or(0, |_| FILES_OF_STORE);
            return assert_eq!(open, expected);
        }
        let max = FILES_OF_STORE + OPEN_FILES_MAX + FILES_IN_USE;
        assert!(!may_close || open <= max, "{open} are open");
    }
}

fn oplog_of(directory: &Path, core: &DiscoveryKey) -> PathBuf {
    let name = core.to_hex();
    let cores = directory.join("corestore/cores");
    cores
        .join(&name[..2])
        .join(&name[2..4])
        .join(name)
        .join("oplog")
}

/// A directory that stores begin with.
struct Start(TempDir);

impl Start {
    fn without_cores() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Watched::new(None);
        let mut run = Run::new(disk, directory.path(), Durability::Buffered);
        run.open().unwrap();
        Self(directory)
    }

    fn of_cores() -> Self {
        let Self(directory) = Self::without_cores();
        let disk = Watched::new(None);
        let mut run = Run::new(disk, directory.path(), Durability::Buffered);
        for (name, count) in [("a", 3), ("b", 2), ("c", 1), ("empty", 0)] {
            run.append(name, count).unwrap();
            run.step(Step::Draft(name)).unwrap();
        }
        run.close();
        Self(directory)
    }

    fn copy(&self) -> TempDir {
        copy(self.0.path())
    }
}

#[test]
fn every_call_of_making_cores_may_fail() {
    sweep(&Start::without_cores(), MAKING, Durability::Sync);
    sweep(&Start::without_cores(), MAKING, Durability::Buffered);
}

#[test]
fn every_call_of_opening_cores_may_fail() {
    sweep(&Start::of_cores(), OPENING, Durability::Sync);
}

#[test]
fn every_call_of_cores_that_take_turns_may_fail() {
    sweep(&Start::of_cores(), TAKING_TURNS, Durability::Sync);
    sweep(&Start::of_cores(), TAKING_TURNS, Durability::Buffered);
}

#[test]
fn every_call_of_who_only_reads_may_fail() {
    sweep(&Start::of_cores(), READING, Durability::Buffered);
}

fn sweep(start: &Start, steps: &[Step], durability: Durability) {
    // The states between the steps.
    let twin = start.copy();
    let mut run = Run::new(Watched::new(None), twin.path(), durability);
    let mut states = vec![run.look().unwrap()];
    for step in steps {
        run.step(*step).unwrap();
        states.push(run.look().unwrap());
    }
    drop(run);
    // The calls of all of them.
    let directory = start.copy();
    let disk = Watched::with_cores(None);
    let mut run = Run::new(disk.clone(), directory.path(), durability);
    for step in steps {
        run.step(*step).unwrap();
        run.check_open_files(true);
    }
    let calls = disk.calls();
    drop(run);
    let numbered = calls.iter().enumerate();
    let faults: Vec<_> = numbered
        .flat_map(|(number, call)| call.faults(number))
        .collect();
    let wanted = from_env("FERROCORE_STORE_FAULTS", SAMPLED_FAULTS);
    let seed = from_env("FERROCORE_SEED", 1) as u64;
    let (mut rng, mut failures, mut tried) = (Rng::new(seed), 0, 0);
    for fault in &faults {
        if rng.below(faults.len()) < wanted {
            let _scene = Scene(format!("{fault:?}, {:?}", calls[fault.call]));
            failures += fail(start, *fault, steps, &states, durability);
            tried += 1;
        }
    }
    println!(
        "{failures} failures in {tried} of {} runs with one of {} calls that fail",
        faults.len(),
        calls.len()
    );
    assert!(2 * failures > tried, "{failures} of {tried}");
}

/// How many steps failed.
fn fail(
    start: &Start,
    fault: Fault,
    steps: &[Step],
    states: &[Seen],
    durability: Durability,
) -> usize {
    let directory = start.copy();
    let mut aftermath = Aftermath::new(directory.path());
    let disk = Watched::with_cores(Some(fault));
    let mut run = Run::new(disk.clone(), directory.path(), durability);
    let mut failures = 0;
    for (step, may_be) in steps.iter().zip(states.windows(2)) {
        let _scene = Scene(format!("{durability:?}, {step:?}"));
        run.seen = None;
        let result = run.step(*step);
        run.check_open_files(!fault.lasts);
        let seen = run.seen.take();
        seen.iter()
            .for_each(|seen| assert_is_one(seen, &may_be[1..]));
        let Err(error) = result else { continue };
        failures += 1;
        assert!(is_io(&error), "{error}");
        // The first file that a core closes for another gives it a descriptor.
        assert!(fault.lasts || !disk.found_no_descriptor(), "{error}");
        let syncs = durability == Durability::Sync;
        let mut found = Vec::new();
        aftermath.look(&disk.changes(), syncs, |disk, left| {
            let (shown, seen) = check((disk, left), durability, may_be, *step);
            found.push(seen);
            shown
        });
        if let [after_kill, _, after_both] = found.as_slice() {
            for (core, seen) in after_kill {
                let kept = after_both.get(core).map(|core| &core.log);
                assert!(kept == Some(&seen.log), "what was shown is lost");
            }
        }
        let was_held = !run.held.is_empty();
        run.held.clear();
        run.check_open_files(!fault.lasts);
        if fault.lasts {
            drop(run);
            let sound = Watched::new(None);
            check((&sound, &directory), durability, may_be, *step);
            return failures;
        }
        if was_held {
            run.step(Step::HoldAll).unwrap();
        }
        if run.look().unwrap() != may_be[1] || may_be[0] == may_be[1] {
            run.step(*step).unwrap(); // it is asked for again
            assert_is_one(&run.look().unwrap(), &may_be[1..]);
        }
    }
    let _scene = Scene(format!("{durability:?}, at the end"));
    if !fault.lasts {
        assert_is_one(&run.look().unwrap(), &states[steps.len()..]);
    }
    run.close();
    drop(run);
    let found = Run::new(Watched::new(None), directory.path(), durability).look();
    assert_is_one(&found.unwrap(), &states[steps.len()..]);
    failures
}

/// What is found in a directory, by a store whose disk does not fail; and that it goes on from there. Returns that, and how many changes
/// there were when it was known.
fn check(
    (disk, left): (&Watched, &TempDir),
    durability: Durability,
    may_be: &[Seen],
    step: Step,
) -> (usize, Seen) {
    let mut run = Run::new(disk.clone(), left.path(), durability);
    run.step(Step::HoldAll).unwrap();
    let shown = disk.now(); // closing them syncs them
    let found = run.look().unwrap();
    run.held.clear();
    assert_is_one(&found, may_be);
    let (Step::Open(name)
    | Step::Append(name)
    | Step::AppendMany(name, _)
    | Step::Truncate(name, _)
    | Step::Clear(name)
    | Step::Draft(name)
    | Step::Purge(name)
    | Step::Elsewhere(name)) = step
    else {
        return (shown, found);
    };
    run.append(name, 1).unwrap();
    let gone_on = run.look().unwrap();
    run.step(Step::Reopen).unwrap();
    assert_is_one(&run.look().unwrap(), std::slice::from_ref(&gone_on));
    let core = run.key(name).unwrap();
    let length = |seen: &Seen| seen.get(&core).map_or(0, |core| core.log.length);
    assert_eq!(length(&gone_on), length(&found) + 1);
    (shown, found)
}

fn assert_is_one(found: &Seen, may_be: &[Seen]) {
    let told = |seen: &Seen| -> Vec<_> {
        let of = |core: &SeenCore| (core.log.fork, core.log.length, core.drafts.clone());
        seen.iter().map(|(key, core)| (*key, of(core))).collect()
    };
    let all: Vec<_> = may_be.iter().map(told).collect();
    assert!(
        may_be.contains(found),
        "{:?} is none of {all:?}",
        told(found)
    );
}
