//! Goal: whatever call fails, or wherever the power goes, amid what a store does to files that are read whole (names, guards,
//! secrets, evidence, the root secret) and to the directories of cores that it purges: the caller is told, what is
//! found is what was or what was asked for, nothing acknowledged is lost, and what failed can be asked for again.
//! Method: short histories on a real disk, once for each call that they make and each way in which it may fail; and the
//! directory rebuilt as it may be found after each change, with what no sync covered lost, kept, torn or in part.
//!
//! The open files of cores never fail here: see `store_cores`, and the rig's of `storage_*`.
#![cfg(all(unix, feature = "files"))]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferrocore_log::root_secret::RestoreError;
use ferrocore_log::storage::files::Files;
use ferrocore_log::storage::{Alias, CoreHeader, Head, Storage};
use ferrocore_log::{Corestore, Durability, Manifest, RootSecret, StorageError, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::rig::Fault;
use crate::rig::aftermath::{Aftermath, copy};
use crate::rig::faults::is_io;
use crate::rig::power::{Acknowledged, Loss, Scene, candidates, losses};
use crate::rig::rng::{Rng, from_env};
use crate::rig::tree::TreeDevice;
use crate::rig::watched::{Call, Watched};

/// Of what may become of changes that no sync has covered, so much is tried at each, unless `FERROCORE_STORE_CUTS` is set.
const SAMPLED_LOSSES: usize = 4;
/// One in so many cuts is followed by cuts of the recovery, where that changes anything.
const ONE_IN_DEEPER: usize = 10;

#[derive(Debug, Clone, Copy)]
enum Step {
    Alias(&'static str, usize),
    Secret(usize),
    Guard(usize, bool),
    Evidence(usize),
    RemoveDraft(usize),
    Purge(usize),
    /// A core with a secret of its own.
    Create,
    Gc,
    Look,
    Reopen,
    /// Another root secret.
    Restore(u8),
}

/// What is done to a store of three cores: `a`, which has a draft, `b` and `c`.
const NAMES: &[Step] = &[
    Step::Alias("first", A),
    Step::Guard(A, true),
    Step::Secret(A),
    Step::Evidence(A),
    Step::Look,
    Step::Purge(A),
    Step::Alias("first", B),
    Step::Purge(A),
];

const GUARDS: &[Step] = &[
    Step::Guard(B, true),
    Step::Guard(C, true),
    Step::Guard(B, false),
    Step::Secret(ABSENT),
    Step::Evidence(C),
    Step::Reopen,
    Step::Guard(B, true),
    Step::Look,
];

const PURGES: &[Step] = &[
    Step::Gc,
    Step::RemoveDraft(A),
    Step::Gc,
    Step::Purge(C),
    Step::Secret(C),
    Step::Reopen,
    Step::Secret(B),
    Step::Purge(B),
    Step::Gc,
];

const CREATION: &[Step] = &[Step::Guard(CREATED, true), Step::Look, Step::Create];

/// Of one whose files are damaged.
const STEPS_AFTER_DAMAGE: &[Step] = &[Step::Look, Step::Alias("first", A), Step::Guard(A, true)];

/// Of no cores.
const RESTORES: &[Step] = &[
    Step::Secret(ABSENT),
    Step::Restore(8),
    Step::Look,
    Step::Guard(ABSENT, false),
    Step::Restore(9),
    Step::Look,
];

/// A core's place among those that are looked at.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
/// One that is never here.
const ABSENT: usize = 3;
const CREATED: usize = 4;

/// A directory that stores begin with.
struct Start {
    directory: TempDir,
    cores: [DiscoveryKey; 5],
}

impl Start {
    /// Three cores, each of a block, and a draft on the first.
    fn of_cores() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            durability: Durability::Buffered,
            ..StoreOptions::default()
        };
        let store = Corestore::open(directory.path(), options).unwrap();
        let cores = ["a", "b", "c"].map(|name| store.get_named(name).unwrap());
        for core in &cores {
            core.append("a block").unwrap();
            core.flush().unwrap();
        }
        let draft = cores[A].draft("draft").unwrap();
        draft.append("of a draft").unwrap();
        let [a, b, c] = cores.each_ref().map(|core| core.discovery_key());
        drop((draft, cores, store));
        fs::create_dir(directory.path().join("keys")).unwrap();
        for core in [&a, &b] {
            fs::write(encryption_key_of(directory.path(), core), "a key").unwrap();
        }
        Self::with(directory, [a, b, c])
    }

    /// The same, of which the index of names is lost, and a copy of the guards.
    fn of_damaged_files() -> Self {
        let start = Self::of_cores();
        let at = |name: &str| start.directory.path().join(name);
        let store = Files::open(start.directory.path(), Durability::Buffered).unwrap();
        store.set_guarded(&start.cores[B], true).unwrap();
        drop(store);
        for name in ["aliases", "aliases.copy", "guards.copy"] {
            fs::remove_file(at(name)).unwrap();
        }
        start
    }

    fn without_cores() -> Self {
        let directory = tempfile::tempdir().unwrap();
        drop(Files::open(directory.path(), Durability::Buffered).unwrap());
        Self::with(directory, [[1; 32].into(); 3])
    }

    fn with(directory: TempDir, [a, b, c]: [DiscoveryKey; 3]) -> Self {
        let created = created().key.discovery_key();
        let cores = [a, b, c, [3; 32].into(), created];
        Self { directory, cores }
    }

    fn copy(&self) -> TempDir {
        copy(self.directory.path())
    }
}

/// Where `fcore` keeps what a core is encrypted with.
fn encryption_key_of(directory: &Path, core: &DiscoveryKey) -> PathBuf {
    let keys = directory.join("keys");
    keys.join(format!("{}.encryption", core.to_hex()))
}

fn created() -> CoreHeader {
    let key_pair = KeyPair::from_seed(&[5; 32]);
    let manifest = Manifest::single(key_pair.public_key());
    CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: Some(key_pair),
        user_data: BTreeMap::new(),
        head: Head::empty(),
    }
}

/// Everything that the small files tell.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    root_secret: [u8; 32],
    aliases: BTreeMap<String, DiscoveryKey>,
    cores: Vec<SeenCore>,
    listed: Vec<DiscoveryKey>,
}

#[derive(Debug, Clone, PartialEq)]
struct SeenCore {
    /// Its length, and how many drafts it has.
    is_here: Option<(u64, usize)>,
    secret: Option<[u8; 32]>,
    is_guarded: bool,
    evidence: bool,
    has_encryption_key: bool,
    has_drafts: bool,
}

impl Seen {
    fn of(store: &Files, directory: &Path, start: &Start) -> Result<Self, StorageError> {
        let core = |core| SeenCore::of(store, directory, core);
        let mut cores: Vec<_> = start.cores.iter().map(core).collect::<Result<_, _>>()?;
        if cores[CREATED].is_here.is_none() {
            cores[CREATED].secret = None; // it comes first
        }
        let mut listed = store.list()?;
        listed.sort_unstable();
        // An empty oplog is listed, too, and is no core yet.
        let is_here = |key: &DiscoveryKey| {
            let known = start.cores.iter().position(|core| core == key);
            known.is_none_or(|known| cores[known].is_here.is_some())
        };
        listed.retain(is_here);
        let aliases = store.aliases()?.into_iter();
        Ok(Self {
            root_secret: store.root_secret()?,
            aliases: aliases.map(|(alias, core)| (alias.name, core)).collect(),
            cores,
            listed,
        })
    }

    /// Without what is only as durable as the store.
    fn durable(&self) -> Self {
        Self {
            aliases: BTreeMap::new(),
            ..self.clone()
        }
    }
}

impl SeenCore {
    fn of(store: &Files, directory: &Path, core: &DiscoveryKey) -> Result<Self, StorageError> {
        let file = directory.join("conflicts").join(core.to_hex());
        let (mut is_here, mut evidence) = (None, file.exists());
        if let Some(opened) = store.open(core)? {
            let drafts = opened.drafts.unwrap().list()?.len();
            is_here = Some((opened.header.head.length, drafts));
            let kept = opened.conflicts.unwrap().load()?;
            assert!(kept.as_ref().is_none_or(|kept| kept == EVIDENCE));
            assert!(kept.is_none() || evidence);
            evidence = kept.is_some();
        }
        Ok(Self {
            is_here,
            secret: store.secret(core)?.map(|pair| *pair.seed()),
            is_guarded: store.is_guarded(core)?,
            evidence,
            has_encryption_key: encryption_key_of(directory, core).exists(),
            has_drafts: directory.join("drafts").join(core.to_hex()).exists(),
        })
    }
}

const EVIDENCE: &[u8] = b"what froze it";

/// A store that is open, or was.
struct Run<'a> {
    start: &'a Start,
    disk: Watched,
    directory: PathBuf,
    durability: Durability,
    store: Option<Files>,
}

impl<'a> Run<'a> {
    fn new(start: &'a Start, disk: Watched, directory: &Path, durability: Durability) -> Self {
        Self {
            start,
            disk,
            directory: directory.to_owned(),
            durability,
            store: None,
        }
    }

    fn open(&mut self) -> Result<&Files, StorageError> {
        if self.store.is_none() {
            let files = self.disk.files();
            let store = Files::open_on(files, &self.directory, self.durability, None)?;
            self.store = Some(store);
        }
        Ok(self.store.as_ref().unwrap())
    }

    fn look(&mut self) -> Result<Seen, StorageError> {
        let (start, directory) = (self.start, self.directory.clone());
        Seen::of(self.open()?, &directory, start)
    }

    fn step(&mut self, step: Step) -> Result<(), StorageError> {
        let core = |core: usize| &self.start.cores[core];
        match step {
            Step::Alias(name, to) => self.open()?.set_alias(alias(name), core(to)),
            Step::Secret(of) => {
                let key_pair = KeyPair::from_seed(&[of as u8; 32]);
                self.open()?.set_secret(core(of), &key_pair)
            }
            Step::Guard(of, guarded) => self.open()?.set_guarded(core(of), guarded),
            Step::Evidence(of) => {
                let opened = self.open()?.open(core(of))?.unwrap();
                opened.conflicts.unwrap().keep(EVIDENCE)
            }
            Step::RemoveDraft(of) => {
                let drafts = self.open()?.open(core(of))?.unwrap().drafts.unwrap();
                for draft in drafts.list()? {
                    drafts.remove(&draft.key.discovery_key())?;
                }
                Ok(())
            }
            Step::Purge(of) => self.open()?.purge(core(of)).map(drop),
            Step::Create => {
                let (store, header) = (self.open()?, created());
                match store.open(&header.key.discovery_key())? {
                    Some(_) => Ok(()),
                    None => store.create(header).map(drop),
                }
            }
            Step::Gc => self.open()?.collect_garbage(false).map(drop),
            Step::Look => self.look().map(drop),
            Step::Reopen => {
                self.store = None;
                self.open().map(drop)
            }
            Step::Restore(secret) => {
                self.store = None;
                let root = RootSecret::from(Zeroizing::new([secret; 32]));
                let files = self.disk.files();
                match Files::restore_on(files, &self.directory, &root, true) {
                    Err(RestoreError::Storage(error)) => return Err(error),
                    result => result.unwrap(),
                }
                self.open().map(drop)
            }
        }
    }
}

fn alias(name: &str) -> Alias {
    Alias {
        namespace: [0; 32],
        name: name.to_owned(),
    }
}

/// The states between the steps, and the calls that all of them make.
fn rehearse(start: &Start, steps: &[Step], durability: Durability) -> (Vec<Seen>, Vec<Call>) {
    let (twin, directory) = (start.copy(), start.copy());
    let mut run = Run::new(start, Watched::new(None), twin.path(), durability);
    let mut states = vec![run.look().unwrap()];
    for step in steps {
        run.step(*step).unwrap();
        states.push(run.look().unwrap());
    }
    let disk = Watched::new(None);
    let mut run = Run::new(start, disk.clone(), directory.path(), durability);
    run.open().unwrap();
    steps.iter().for_each(|step| run.step(*step).unwrap());
    (states, disk.calls())
}

#[test]
fn every_call_of_names_and_a_purge_may_fail() {
    sweep(&Start::of_cores(), NAMES, Durability::Sync);
}

#[test]
fn every_call_of_names_that_are_not_synced_may_fail() {
    sweep(&Start::of_cores(), NAMES, Durability::Buffered);
}

#[test]
fn every_call_of_guards_may_fail() {
    sweep(&Start::of_cores(), GUARDS, Durability::Sync);
}

#[test]
fn every_call_of_drafts_secrets_and_purges_may_fail() {
    sweep(&Start::of_cores(), PURGES, Durability::Sync);
}

#[test]
fn every_call_of_a_creation_may_fail() {
    sweep(&Start::of_cores(), CREATION, Durability::Sync);
}

#[test]
fn every_call_of_making_files_good_may_fail() {
    let start = Start::of_damaged_files();
    sweep(&start, STEPS_AFTER_DAMAGE, Durability::Sync);
}

#[test]
fn every_call_of_a_restore_may_fail() {
    sweep(&Start::without_cores(), RESTORES, Durability::Sync);
}

fn sweep(start: &Start, steps: &[Step], durability: Durability) {
    let (states, calls) = rehearse(start, steps, durability);
    let mut failures = 0;
    for (number, call) in calls.iter().enumerate() {
        for fault in call.faults(number) {
            failures += fail(start, fault, steps, &states, durability);
        }
    }
    let calls = calls.len();
    println!("{failures} failures of {calls} calls");
    assert!(failures > calls && calls > 50, "{failures} of {calls}");
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
    let disk = Watched::new(Some(fault));
    let mut run = Run::new(start, disk.clone(), directory.path(), durability);
    let mut failures = 0;
    let mut opening = std::iter::once((Step::Reopen, &states[..1]));
    let between = states.windows(2);
    let mut each = steps.iter().copied().zip(between);
    while let Some((step, may_be)) = opening.next().or_else(|| each.next()) {
        let _scene = Scene(format!("{fault:?}, {durability:?}, {step:?}"));
        let Err(error) = run.step(step) else { continue };
        failures += 1;
        assert!(is_io(&error), "{error}");
        let may_be = &with_guards_first(step, may_be);
        let syncs = durability == Durability::Sync;
        aftermath.look(&disk.changes(), syncs, |disk, left| {
            check(start, (disk, left), durability, may_be)
        });
        if fault.lasts {
            return failures;
        }
        run.step(step).unwrap(); // it is asked for again
        assert_eq!(&run.look().unwrap(), may_be.last().unwrap());
    }
    let _scene = Scene(format!("{fault:?}, {durability:?}, at the end"));
    drop(run);
    let sound = Watched::new(None);
    check(
        start,
        (&sound, &directory),
        durability,
        &states[steps.len()..],
    );
    failures
}

/// The states that may be found amid a step: before a root secret is brought back, all that it signs for is guarded.
fn with_guards_first(step: Step, may_be: &[Seen]) -> Vec<Seen> {
    let mut states = may_be.to_vec();
    if let (Step::Restore(_), [before, after, ..]) = (step, may_be) {
        let mut guarded = before.clone();
        let cores = guarded.cores.iter_mut().zip(&after.cores);
        cores.for_each(|(core, after)| core.is_guarded = after.is_guarded);
        states.insert(1, guarded);
    }
    states
}

/// What is found in a directory, by a store whose disk does not fail.
fn check(
    start: &Start,
    (disk, left): (&Watched, &TempDir),
    durability: Durability,
    may_be: &[Seen],
) -> usize {
    let mut run = Run::new(start, disk.clone(), left.path(), durability);
    let found = run.look().unwrap();
    assert!(may_be.contains(&found), "{found:#?} is none of {may_be:#?}");
    assert_tidy(left.path());
    disk.now()
}

/// Nothing is left of a purge, but perhaps the directory where it was noted; of a deleted draft, what `gc` takes.
fn assert_tidy(store: &Path) {
    let mut found = vec![store.to_owned()];
    while let Some(path) = found.pop() {
        let below = path.strip_prefix(store).unwrap();
        let name = below.to_str().unwrap();
        let is_draft = name.starts_with("drafts") && below.components().count() > 2;
        assert!(
            is_draft || name == "purges" || !name.contains("purge"),
            "{name}"
        );
        if path.is_dir() {
            found.extend(fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        }
    }
}

/// A state that was acknowledged, when there were so many changes.
struct Mark {
    at: usize,
    state: Seen,
}

impl Acknowledged for Mark {
    fn at(&self) -> usize {
        self.at
    }
}

/// Goal: wherever the power goes, what was acknowledged is there, and what was under way is as it was or as it was asked for.
#[test]
fn a_cut_amid_names_and_a_purge_leaves_one_state() {
    let start = Start::of_cores();
    cut(&start, NAMES, Durability::Sync);
    cut(&start, NAMES, Durability::Buffered);
}

#[test]
fn a_cut_amid_guards_leaves_one_state() {
    cut(&Start::of_cores(), GUARDS, Durability::Sync);
}

#[test]
fn a_cut_amid_drafts_secrets_and_purges_leaves_one_state() {
    cut(&Start::of_cores(), PURGES, Durability::Sync);
}

#[test]
fn a_cut_amid_making_files_good_leaves_one_state() {
    let start = Start::of_damaged_files();
    cut(&start, STEPS_AFTER_DAMAGE, Durability::Sync);
}

#[test]
fn a_cut_amid_a_restore_leaves_one_state() {
    cut(&Start::without_cores(), RESTORES, Durability::Sync);
}

#[test]
fn a_cut_amid_a_creation_leaves_one_state() {
    cut(&Start::of_cores(), CREATION, Durability::Sync);
}

/// Cuts a history at each of its changes.
fn cut(start: &Start, steps: &[Step], durability: Durability) {
    let seed = from_env("FERROCORE_SEED", 1) as u64;
    let directory = start.copy();
    let mut device = TreeDevice::new(directory.path());
    let disk = Watched::new(None);
    let mut run = Run::new(start, disk.clone(), directory.path(), durability);
    let mut marks = vec![mark(&disk, &mut run)];
    for step in steps {
        run.step(*step).unwrap();
        marks.push(mark(&disk, &mut run));
    }
    drop(run);
    marks[0].at = 0; // before it is first looked at it is there all the same
    let mut sweep = Sweep {
        start,
        durability,
        rng: Rng::new(seed),
        cuts: 0,
    };
    for (at, change) in disk.changes().iter().enumerate() {
        if !device.advance(change) {
            continue;
        }
        let found = candidates(&marks, at + 1, true);
        let states: Vec<_> = found.iter().map(|mark| mark.state.clone()).collect();
        let done = marks.iter().filter(|mark| mark.at <= at).count() - 1;
        let step = steps.get(done);
        let states = step.map_or(states.clone(), |step| with_guards_first(*step, &states));
        let _scene = Scene(format!(
            "FERROCORE_SEED={seed}, {durability:?}, after {change:?}, amid {step:?}"
        ));
        sweep.cut_at(&device, &states, 1);
    }
    println!("{} cuts", sweep.cuts);
    assert!(sweep.cuts > 200, "{} cuts", sweep.cuts);
}

fn mark(disk: &Watched, run: &mut Run<'_>) -> Mark {
    let state = run.look().unwrap();
    Mark {
        at: disk.now(),
        state,
    }
}

struct Sweep<'a> {
    start: &'a Start,
    durability: Durability,
    rng: Rng,
    cuts: usize,
}

impl Sweep<'_> {
    fn cut_at(&mut self, device: &TreeDevice, may_be: &[Seen], depth: usize) {
        for loss in self.losses(device.pending()) {
            self.cuts += 1;
            let _scene = Scene(format!("{loss:?}, depth {depth}"));
            let left = tempfile::tempdir().unwrap();
            let mut device = device.left(loss, &mut self.rng, left.path());
            // What a kill left is still to be synced.
            let is_pending = device.pending() > 0;
            let one_in = if is_pending { 3 } else { ONE_IN_DEEPER };
            let deeper = depth == 1 && self.rng.one_in(one_in);
            let disk = Watched::new(None);
            let mut run = Run::new(self.start, disk.clone(), left.path(), self.durability);
            let found = run.look().unwrap();
            // What the first cut took, the second one does not bring back.
            let strict = self.durability == Durability::Sync || depth == 1 && loss.is_kill();
            check_state(&found, may_be, strict);
            drop(run);
            assert_tidy(left.path());
            for change in disk.changes().iter().filter(|_| deeper) {
                if device.advance(change) {
                    self.cut_at(&device, may_be, depth + 1);
                }
            }
        }
    }

    /// What becomes of so many changes that no sync has covered. In CI all, none, and some others.
    fn losses(&mut self, pending: usize) -> Vec<Loss> {
        let mut losses = losses(pending, &mut self.rng);
        if from_env("FERROCORE_STORE_CUTS", 0) == 0 {
            while losses.len() > SAMPLED_LOSSES {
                losses.swap_remove(2 + self.rng.below(losses.len() - 2));
            }
        }
        losses
    }
}

/// Of a store that does not sync, a power cut may take names.
fn check_state(found: &Seen, may_be: &[Seen], strict: bool) {
    let is_one = may_be.iter().any(|state| match strict {
        true => state == found,
        false => state.durable() == found.durable(),
    });
    assert!(is_one, "{found:#?} is none of {may_be:#?}");
}
