//! Goal: whenever the process is killed or the power goes, a draft and its core are as before or
//! after what was under way, nothing committed is lost or doubled, and both go on.
//! Method: random histories of a core and its draft on files in memory that remember every change;
//! the files are rebuilt as they may be found after each of them, and again after each change that
//! the recovery makes, three deep.
//!
//! `FERROCORE_CUTS` says how many cuts each test makes, `FERROCORE_SEED` where it begins.
#![cfg(feature = "files")]

use crate::rig::power::{Acknowledged, Device, History, Loss, Scene};
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::workload::Snapshot;
use crate::rig::{Contents, Disk, create, open};
use bytes::Bytes;
use ferrocore_log::storage::StorageError;
use ferrocore_log::{CommitOptions, Core, CoreError, Draft, Durability};

/// Cuts of one test.
const CUTS: usize = 6_000;
const STEPS: usize = 12;
/// How often a recovery may be cut off in turn.
const DEPTH_MAX: usize = 3;

#[test]
fn a_power_cut_takes_nothing_of_a_draft_that_was_synced() {
    run(Durability::Sync);
}

/// A kill takes nothing; a power cut takes no committed block, and leaves what opens.
#[test]
fn a_power_cut_leaves_a_draft_that_opens_whatever_was_synced() {
    run(Durability::Buffered);
}

fn run(durability: Durability) {
    let mut by_depth = [0; DEPTH_MAX];
    let done = rounds(from_env("FERROCORE_CUTS", CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let recording = record(durability, &mut rng);
        let mut sweep = Sweep {
            durability,
            rng: &mut rng,
            cuts: [0; DEPTH_MAX],
        };
        sweep.run(&recording, 1);
        let both = by_depth.iter_mut().zip(sweep.cuts);
        both.for_each(|(all, these)| *all += these);
        sweep.cuts.iter().sum()
    });
    let deepest = by_depth[DEPTH_MAX - 1];
    println!("{done} cuts, {deepest} of them {DEPTH_MAX} deep");
    assert!(deepest > 0 || done < CUTS);
}

/// The blocks of a draft; one that is damaged counts for one that is not here.
type Blocks = Vec<Option<Bytes>>;

fn blocks_of(draft: &Draft) -> Blocks {
    let block = |index| draft.get_local(index).unwrap_or_default();
    (0..draft.length()).map(block).collect()
}

/// A state that was acknowledged.
#[derive(Debug, Clone)]
struct Mark {
    at: usize,
    core: Snapshot,
    /// Where there is none, one that is begun then.
    draft: Option<Blocks>,
    /// Whether no power cut takes the core's head back.
    durable: bool,
}

impl Acknowledged for Mark {
    fn at(&self) -> usize {
        self.at
    }

    fn is_durable(&self) -> bool {
        self.durable
    }
}

impl Mark {
    fn draft(&self) -> &Blocks {
        self.draft.as_ref().unwrap_or(&self.core.blocks)
    }
}

type Recording = History<Mark>;

fn record(durability: Durability, rng: &mut Rng) -> Recording {
    let disk = Disk::new(Contents::new());
    let mut core = create(&disk, durability).unwrap();
    core.append_batch(random_blocks(3, rng)).unwrap();
    core.flush().unwrap();
    let start = disk.contents();
    let skipped = disk.now();
    let mut draft = None;
    let mark = |core: &Core, draft: Option<&Draft>, durable| Mark {
        at: disk.now() - skipped,
        core: Snapshot::of(core).unwrap(),
        draft: draft.map(blocks_of),
        durable,
    };
    let mut marks = vec![mark(&core, None, true)];
    for _ in 0..STEPS {
        let begun = draft.get_or_insert_with(|| core.draft("draft").unwrap());
        let durable = step(&core, begun, rng);
        if rng.one_in(5) {
            draft = None;
            drop(core);
            core = open(&disk, durability).unwrap().unwrap();
        }
        let begun = draft.get_or_insert_with(|| core.draft("draft").unwrap());
        marks.push(mark(&core, Some(begun), durable));
    }
    drop(draft);
    drop(core);
    Recording::new(start, disk.changes().split_off(skipped), marks)
}

/// One step; returns whether it synced the core's head.
fn step(core: &Core, draft: &Draft, rng: &mut Rng) -> bool {
    match rng.below(12) {
        0..5 => {
            let count = 1 + rng.below(4);
            draft.append_batch(random_blocks(count, rng)).unwrap();
        }
        5 => draft.append(vec![0; 5_000]).map(drop).unwrap(),
        6 => {
            let length = rng.below(draft.length() as usize + 1) as u64;
            draft.truncate(length).unwrap();
        }
        7 => drop(core.append("beside").unwrap()),
        8 => draft.overwrite().unwrap(),
        _ => return commit(core, draft, rng),
    }
    false
}

/// Commits all or a part, and says whether that brought the core anything.
fn commit(core: &Core, draft: &Draft, rng: &mut Rng) -> bool {
    let before = core.length();
    let length = match rng.below(2) {
        0 => draft.length(),
        _ => rng.below(draft.length() as usize + 1) as u64,
    };
    let options = CommitOptions {
        length: Some(length),
        ..CommitOptions::default()
    };
    match draft.commit(options) {
        Ok(appended) => appended.length > before,
        Err(CoreError::Moved { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn random_blocks(count: usize, rng: &mut Rng) -> Vec<Bytes> {
    let block = |_| {
        let len = rng.below(40);
        Bytes::from(rng.bytes(len))
    };
    (0..count).map(block).collect()
}

struct Sweep<'a> {
    durability: Durability,
    rng: &'a mut Rng,
    /// How many there were at each depth.
    cuts: [usize; DEPTH_MAX],
}

impl Sweep<'_> {
    fn run(&mut self, recording: &Recording, depth: usize) {
        recording.each_moment(self.rng.next(), |device, at, losses| {
            for _ in 0..losses.len().div_ceil(3) {
                let loss = losses[self.rng.below(losses.len())];
                self.cut(device, recording, at, loss, depth);
            }
        });
    }

    fn cut(&mut self, device: &Device, recording: &Recording, at: usize, loss: Loss, depth: usize) {
        self.cuts[depth - 1] += 1;
        let _scene = Scene(format!("depth {depth}, after {at} changes, {loss:?}"));
        let syncs = self.durability == Durability::Sync;
        let strict = syncs || loss.is_kill();
        let crash = recording.crash(device, (at, loss), syncs, self.rng);
        let marks = recording.candidates(at, loss, strict);
        let disk = Disk::new(crash.contents());
        let core = open(&disk, self.durability).unwrap().unwrap();
        let found = match (core.draft("draft"), strict) {
            (Ok(draft), true) => check(&core, &draft, &marks),
            (Ok(draft), false) => return self.check_loosely(&core, &draft, &marks),
            (Err(error), _) => return check_refusal(&error, &marks, strict),
        };
        let shown = disk.now();
        let mut marks = vec![Mark {
            at: 0,
            durable: false,
            ..found
        }];
        go_on(&core, &mut marks, &disk, self.rng);
        if depth < DEPTH_MAX && self.rng.one_in(20 * depth * depth) {
            drop(core);
            let recording = Recording::after(crash, shown, disk.changes(), marks);
            self.run(&recording, depth + 1);
        }
    }

    /// With syncs lost: whatever is there is of some state, and no commit is undone or doubled.
    fn check_loosely(&mut self, core: &Core, draft: &Draft, marks: &[&Mark]) {
        let found = Snapshot::lossy(core);
        let is_one = marks.iter().any(|mark| mark.core.resembles(&found));
        assert!(is_one, "{found:?} is none of {marks:?}");
        let blocks = blocks_of(draft);
        // One whose creation was lost is begun anew, wherever the core ends then.
        let is_new = marks.iter().any(|mark| mark.draft.is_none()) && blocks == found.blocks;
        let is_one = is_new || marks.iter().any(|mark| resembles(mark.draft(), &blocks));
        assert!(is_one, "{blocks:?} is none of {marks:?}");
        match draft.commit(CommitOptions::default()) {
            Ok(_) => assert!(resembles(&Snapshot::lossy(core).blocks, &blocks)),
            Err(CoreError::Moved { .. } | CoreError::CorruptBlock { .. }) => {}
            Err(CoreError::Storage(StorageError::Corrupt { .. })) => {}
            Err(error) => panic!("{error}"),
        }
        draft.overwrite().unwrap();
        draft.append("goes on").unwrap();
        draft.commit(CommitOptions::default()).unwrap();
    }
}

/// Whether both are as long, and the same where both have blocks.
fn resembles(a: &Blocks, b: &Blocks) -> bool {
    let mut pairs = a.iter().zip(b);
    a.len() == b.len() && pairs.all(|(a, b)| a.is_none() || b.is_none() || a == b)
}

/// Core and draft are one of the states they may be, both the same one.
fn check(core: &Core, draft: &Draft, marks: &[&Mark]) -> Mark {
    let (found, blocks) = (Snapshot::of(core).unwrap(), blocks_of(draft));
    let is_one = |mark: &&&Mark| mark.core == found && *mark.draft() == blocks;
    let mark = marks.iter().find(is_one);
    let mark = mark.unwrap_or_else(|| panic!("{found:?} with {blocks:?} is none of {marks:?}"));
    Mark::clone(mark)
}

/// Only a draft that was created just before a power cut, with nothing synced, may be beyond
/// repair.
fn check_refusal(error: &CoreError, marks: &[&Mark], strict: bool) {
    let is_new = marks.iter().any(|mark| mark.draft.is_none());
    assert!(!strict && is_new, "{error}");
    let is_corrupt = matches!(error, CoreError::Storage(StorageError::Corrupt { .. }));
    assert!(is_corrupt, "{error}");
}

/// The draft goes on; then it is committed if the core begins it, and only then.
fn go_on(core: &Core, marks: &mut Vec<Mark>, disk: &Disk, rng: &mut Rng) {
    let draft = core.draft("draft").unwrap();
    let mark = |durable| Mark {
        at: disk.now(),
        core: Snapshot::of(core).unwrap(),
        draft: Some(blocks_of(&draft)),
        durable,
    };
    draft.append(rng.bytes(20)).unwrap();
    marks.push(mark(false));
    let begins = blocks_of(&draft).starts_with(&mark(false).core.blocks);
    match draft.commit(CommitOptions::default()) {
        Ok(_) => assert!(begins && mark(true).core.blocks == blocks_of(&draft)),
        Err(CoreError::Moved { .. }) => assert!(!begins),
        Err(error) => panic!("{error}"),
    }
    marks.push(mark(begins));
}
