//! Goal: whenever the process is killed or the power goes, and whatever part of the last changes
//! reaches the device, the core opens, has what was acknowledged, and goes on.
//! Method: random histories, some of a core of several pages of the bitfield, on files in memory that remember every change. The files are rebuilt
//! as they may be found after each of them, with what no sync covered lost, kept, torn or in
//! part, and again after each change that the recovery itself makes, three deep.
//!
//! `FERROCORE_CUTS` says how many cuts each test makes, `FERROCORE_SEED` where it begins.
#![cfg(feature = "files")]

use std::collections::HashMap;

use crate::rig::power::{Crash, Device, History, Loss, Scene, losses};
use crate::rig::proofs::{block_proof, follow, upgrade};
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::rot::{open_mended, repair};
use crate::rig::workload::{
    Mark, Recording, Snapshot, lacks_nodes, pick, record_reader, record_rotting_reader,
    record_rotting_writer, record_writer,
};
use crate::rig::{Contents, Disk, What, create, create_from, header, key_pair, open};
use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::core::AcceptError;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::storage::{BitWrite, BlockWrite, CoreWrite, Head, HeadWrite, StorageError};
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, Durability, flat_tree};
use ferrocore_primitives::hash::Hash;

/// Where the entries begin in `oplog`.
const ENTRIES_OFFSET: u64 = 8192;
/// Cuts of one test.
const CUTS: usize = 17_000;
/// Of the one where bytes rot, for an audit follows each.
const ROTTING_CUTS: usize = 5_000;
/// Of the one where a kill comes first.
const KILLED_CUTS: usize = 5_000;
/// Of its histories, which are opened once more at each, at about so many.
const KILLED_MOMENTS: usize = 100;
/// Of a history of more changes, as one is that flushes many scattered nodes, not every loss is tried at each.
const FEW_CHANGES: usize = 300;
/// But so many.
const SAMPLED_LOSSES: usize = 6;
/// A history is cut at every change. Of that of a wide core only about so many are cut at, unless more cuts are wanted than CI makes.
const WIDE_MOMENTS: usize = 200;
/// Of a recovery, once and twice as deep, at about so many.
const DEEPER_MOMENTS: [usize; DEPTH_MAX - 1] = [40, 10];
/// Every node and block is looked at of a log that is no longer than this; of a longer one so seldom that it costs the same.
const AUDITED_MAX: u64 = 100;
/// So many of the blocks that are found are proven to somebody else.
const PROVEN_BLOCKS: usize = 2;
/// How often a recovery may be cut off in turn.
const DEPTH_MAX: usize = 3;

#[test]
fn a_power_cut_takes_nothing_that_was_synced() {
    let done = rounds(from_env("FERROCORE_CUTS", CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let writer = record_writer(Durability::Sync, &mut rng);
        let reader = record_reader(Durability::Sync, &mut rng);
        sweep(Durability::Sync, &writer, &mut rng) + sweep(Durability::Sync, &reader, &mut rng)
    });
    println!("{done} cuts");
}

/// A kill takes nothing, a power cut the newest heads and bytes of blocks, which reading them
/// tells.
#[test]
fn a_power_cut_leaves_a_core_that_opens_whatever_was_synced() {
    let done = rounds(from_env("FERROCORE_CUTS", CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let writer = record_writer(Durability::Buffered, &mut rng);
        sweep(Durability::Buffered, &writer, &mut rng)
    });
    println!("{done} cuts");
}

#[test]
fn a_power_cut_leaves_a_reader_that_opens_whatever_was_synced() {
    let done = rounds(from_env("FERROCORE_CUTS", CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let reader = record_reader(Durability::Buffered, &mut rng);
        sweep(Durability::Buffered, &reader, &mut rng)
    });
    println!("{done} cuts");
}

/// Goal: where bytes rot and are mended, no block is wrong, what was mended stays so, and a repair that was cut off is
/// made good by the next one.
#[test]
fn a_cut_amid_a_repair_leaves_what_the_next_one_mends() {
    let done = rounds(from_env("FERROCORE_CUTS", ROTTING_CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let durability = match seed % 2 {
            0 => Durability::Sync,
            _ => Durability::Buffered,
        };
        let recording = record_rotting_writer(durability, &mut rng);
        sweep(durability, &recording, &mut rng)
    });
    println!("{done} cuts");
}

/// Goal: where a reader's bytes rot and are mended, in addition to that no right block is refused once they were.
#[test]
fn a_cut_amid_a_readers_repair_leaves_what_lets_the_rest_come() {
    let done = rounds(from_env("FERROCORE_CUTS", ROTTING_CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let durability = match seed % 2 {
            0 => Durability::Sync,
            _ => Durability::Buffered,
        };
        let recording = record_rotting_reader(durability, &mut rng);
        sweep(durability, &recording, &mut rng)
    });
    println!("{done} cuts");
}

/// Goal: a head that replaces history and brings a block with it keeps the order: at no moment
/// is an old block overwritten while the old head still counts.
#[test]
fn a_cut_amid_a_reorg_never_mixes_histories() {
    for seed in 0..8 {
        for durability in [Durability::Sync, Durability::Buffered] {
            let mut rng = Rng::new(seed);
            sweep(durability, &record_reorg(durability), &mut rng);
        }
    }
}

/// Goal: what a kill leaves is with the system, and may not be on the device. In synced mode the next one who opens the core
/// shows nothing of it that a power cut can still take; in either, a cut amid the opening or after it takes no more than one
/// before.
#[test]
fn a_power_cut_after_a_kill_takes_nothing_that_was_shown() {
    let round = |seed: u64| {
        let mut rng = Rng::new(seed);
        let durability = match seed % 2 {
            0 => Durability::Sync,
            _ => Durability::Buffered,
        };
        let recording = match seed / 2 % 2 {
            0 => record_writer(durability, &mut rng),
            _ => record_reader(durability, &mut rng),
        };
        kill_and_cut((durability, durability), &recording, &mut rng)
    };
    // Killed amid a truncate, whose entry was not on the device: opening cut off the bits of what the truncate had given up.
    round(20_261_704);
    let done = rounds(from_env("FERROCORE_CUTS", KILLED_CUTS), round);
    println!("{done} cuts");
}

/// Goal: the same where the one before synced nothing, and the next one does, whether the former was killed or closed the core in
/// order.
#[test]
fn a_power_cut_after_a_buffered_holder_takes_nothing_that_was_shown() {
    let done = rounds(from_env("FERROCORE_CUTS", KILLED_CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let recording = match seed % 2 {
            0 => record_writer(Durability::Buffered, &mut rng),
            _ => record_reader(Durability::Buffered, &mut rng),
        };
        let durabilities = (Durability::Buffered, Durability::Sync);
        kill_and_cut(durabilities, &recording, &mut rng)
    });
    println!("{done} cuts");
}

/// Kills one who recorded in the first mode, for one to come in the second.
fn kill_and_cut(
    (before, after): (Durability, Durability),
    recording: &Recording,
    rng: &mut Rng,
) -> usize {
    let history = &recording.history;
    let one_in = history.changes.len().div_ceil(KILLED_MOMENTS);
    let strict = before == Durability::Sync;
    let mut cuts = 0;
    history.each_moment(rng.next(), |device, at, losses| {
        let kills = losses.iter().filter(|loss| loss.is_kill());
        for loss in kills {
            // At the end the core was closed.
            if at == history.changes.len() || rng.one_in(one_in.max(1)) {
                let killed = history.crash(device, (at, *loss), strict, rng);
                let _scene = Scene(format!("killed after {at} changes, {loss:?}"));
                cuts += cut_after_kill((before, after), recording, killed, rng);
            }
        }
    });
    cuts
}

/// Opens what a kill left and goes on, and cuts the power after each change that this makes.
fn cut_after_kill(
    (before, durability): (Durability, Durability),
    recording: &Recording,
    killed: Crash<Mark>,
    rng: &mut Rng,
) -> usize {
    let disk = Disk::new(killed.contents());
    let Some(core) = open(&disk, durability).unwrap() else {
        return 0; // nothing was shown
    };
    let found = Mark {
        at: 0,
        state: Some(Snapshot::of(&core).unwrap()),
        durable: false,
    };
    let syncs = durability == Durability::Sync;
    let (shown, mut marks) = (disk.now(), vec![found]);
    let cut = Cut {
        recording,
        candidates: Vec::new(),
        strict: true,
        released: &Released::new(),
        depth: 1,
    };
    go_on(&core, &cut, rng);
    marks.push(Mark {
        at: disk.now(),
        state: Some(Snapshot::of(&core).unwrap()),
        durable: false,
    });
    let opening = History::after(killed, shown, disk.changes(), marks);
    let mut cuts = 0;
    opening.each_moment(rng.next(), |device, at, _| {
        let cruel = [Loss::Everything, Loss::AllButResizes];
        let cuts_of = |losses: Vec<Loss>| losses.into_iter().filter(|loss| !loss.is_kill());
        let any: Vec<_> = cuts_of(losses(device.pending(), rng)).collect();
        let any = any.get(rng.below(any.len().max(1))).copied();
        for loss in cruel.into_iter().chain(any) {
            // Before it is shown, what the one before did not sync may be lost.
            let strict = syncs && (at >= shown || before == Durability::Sync);
            let cut = Cut {
                recording,
                candidates: opening.candidates(at, loss, strict),
                strict,
                ..cut
            };
            let of = opening.changes.len();
            let _scene = Scene(format!("cut after {at} of {of}, {loss:?}"));
            match open(&Disk::new(device.after(loss, rng)), durability) {
                Ok(Some(core)) => drop(check_found(&core, &cut, rng)),
                Ok(None) => assert!(cut.candidates.iter().any(|mark| mark.state.is_none())),
                Err(error) => check_refusal(&error, &cut),
            }
            cuts += 1;
        }
    });
    cuts
}

/// Whether there is time for more cuts than CI makes.
fn is_soak() -> bool {
    from_env("FERROCORE_CUTS", CUTS) > CUTS
}

fn sweep(durability: Durability, recording: &Recording, rng: &mut Rng) -> usize {
    let mut sweep = Sweep {
        durability,
        rng,
        cuts: 0,
    };
    sweep.run(recording, &Released::new(), 1);
    sweep.cuts
}

/// Heads that somebody has seen: none of them may ever have another hash.
type Released = HashMap<(u64, u64), Hash>;

fn release(released: &mut Released, state: &Snapshot) {
    let known = released.insert((state.fork, state.length), state.hash);
    assert!(
        known.is_none_or(|hash| hash == state.hash),
        "two histories of fork {} and length {}",
        state.fork,
        state.length
    );
}

struct Sweep<'a> {
    durability: Durability,
    rng: &'a mut Rng,
    cuts: usize,
}

/// One cut, and what may be found after it.
struct Cut<'a> {
    recording: &'a Recording,
    /// Acknowledged states that may be found, and those that were under way.
    candidates: Vec<&'a Mark>,
    /// Whether nothing acknowledged may be lost.
    strict: bool,
    released: &'a Released,
    depth: usize,
}

impl Sweep<'_> {
    /// Cuts `recording` at each of its changes; all of them at first, a sample deeper down.
    fn run(&mut self, recording: &Recording, released: &Released, depth: usize) {
        let mut released = released.clone();
        let history = &recording.history;
        let mut marks = history.marks.iter().peekable();
        let moments = match depth {
            1 if recording.is_wide() && !is_soak() => WIDE_MOMENTS,
            1 => usize::MAX,
            _ => DEEPER_MOMENTS[depth - 2],
        };
        let one_in = history.changes.len().div_ceil(moments);
        history.each_moment(self.rng.next(), |device, at, losses| {
            while let Some(mark) = marks.next_if(|mark| mark.at.max(history.shown) <= at) {
                mark.state.iter().for_each(|s| release(&mut released, s));
            }
            if self.rng.one_in(one_in.max(1)) {
                self.cuts_at(device, recording, &released, (at, depth), losses);
            }
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
        let count = match depth {
            1 if recording.history.changes.len() <= FEW_CHANGES => losses.len(),
            1 => SAMPLED_LOSSES,
            _ => 1,
        };
        let any = |_| losses[self.rng.below(losses.len())];
        let sampled: Vec<Loss> = (0..count).map(any).collect();
        let losses = if count == losses.len() {
            losses
        } else {
            &sampled
        };
        for loss in losses {
            let syncs = self.durability == Durability::Sync && !recording.is_lossy;
            let strict = syncs || loss.is_kill() && !recording.is_lossy;
            let _scene = Scene(format!("depth {depth}, after {at} changes, {loss:?}"));
            let cut = Cut {
                recording,
                candidates: recording.history.candidates(at, *loss, strict),
                strict,
                released,
                depth,
            };
            let crash = recording
                .history
                .crash(device, (at, *loss), syncs, self.rng);
            self.cut(crash, &cut);
        }
    }

    fn cut(&mut self, crash: Crash<Mark>, cut: &Cut<'_>) {
        self.cuts += 1;
        let files = crash.contents();
        let disk = Disk::new(files.clone());
        let is_rotting = cut.recording.is_rotting;
        let opened = match is_rotting {
            true => open_mended(&disk, self.durability, |_| {}),
            false => open(&disk, self.durability),
        };
        let core = match opened {
            Ok(Some(core)) => core,
            Ok(None) => return check_creates(&disk, self.durability, cut),
            Err(error) => return check_refusal(&error, cut),
        };
        let shown = disk.now();
        let follows = cut.recording.is_reorg && has_new_header(&disk);
        let found = check_found(&core, cut, self.rng);
        if cut.strict {
            check_header_alone(&files, follows || is_rotting);
        }
        let mut released = cut.released.clone();
        if cut.strict {
            release(&mut released, &found);
        }
        let mark = |state| Mark {
            at: disk.now(),
            state: Some(state),
            durable: false,
        };
        let mut marks = vec![Mark {
            at: 0,
            ..mark(found.clone())
        }];
        if is_rotting {
            repair(&core, |core| marks.push(mark(Snapshot::lossy(core))));
        }
        for _ in 0..2 {
            go_on(&core, cut, self.rng);
            let state = Snapshot::lossy(&core);
            if cut.strict {
                release(&mut released, &state);
            }
            marks.push(mark(state));
        }
        self.check_again(&disk, &marks);
        drop(core);
        if cut.depth < DEPTH_MAX && self.rng.one_in(100 * cut.depth) {
            let recording = Recording {
                history: History::after(crash, shown, disk.changes(), marks),
                source: cut.recording.source.clone(),
                is_reorg: cut.recording.is_reorg,
                is_lossy: !cut.strict,
                is_rotting: cut.recording.is_rotting,
            };
            // What a power cut may take back binds nobody.
            let none = Released::new();
            let released = if cut.strict { cut.released } else { &none };
            self.run(&recording, released, cut.depth + 1);
        }
    }

    /// The same is found when the core is opened once more.
    fn check_again(&self, disk: &Disk, marks: &[Mark]) {
        let copy = Disk::new(disk.contents());
        let again = open(&copy, self.durability).unwrap().unwrap();
        let expected = marks.last().and_then(|mark| mark.state.as_ref());
        assert_eq!(expected, Some(&Snapshot::lossy(&again)));
    }
}

/// What was found is one of the states it may be.
fn check_found(core: &Core, cut: &Cut<'_>, rng: &mut Rng) -> Snapshot {
    let mut states = cut.candidates.iter().filter_map(|mark| mark.state.as_ref());
    if !cut.strict {
        let found = Snapshot::lossy(core);
        let is_one = states.any(|state| state.resembles(&found));
        assert!(is_one, "{found:?} is none of {:?}", cut.candidates);
        return found;
    }
    let found = match cut.depth {
        1 if !cut.recording.is_rotting => Snapshot::of(core).unwrap(),
        _ => Snapshot::lossy(core),
    };
    let is_one = states.any(|state| *state == found);
    assert!(is_one, "{found:?} is none of {:?}", cut.candidates);
    if !cut.recording.is_rotting && core.length() > 0 {
        check_proven(core, &found, rng);
        let one_in = core.length().div_ceil(AUDITED_MAX);
        if rng.one_in(one_in as usize) {
            assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
        }
    }
    found
}

/// Another store, which knows nothing but the key, takes the head and some blocks for what they are.
fn check_proven(core: &Core, found: &Snapshot, rng: &mut Rng) {
    let mut header = header();
    header.manifest = None;
    let reader = create_from(&Disk::new(Contents::new()), header, Durability::Buffered).unwrap();
    match core.fork() {
        0 => upgrade(&reader, core),
        _ => drop(follow(&reader, core, usize::MAX).unwrap()),
    }
    let head = (reader.fork(), reader.length(), reader.tree_hash());
    assert_eq!(head, (found.fork, found.length, found.hash));
    let here: Vec<_> = found.looked_at().filter(|(_, b)| b.is_some()).collect();
    for _ in 0..PROVEN_BLOCKS.min(here.len()) {
        let (index, block) = here[rng.below(here.len())];
        reader.accept(block_proof(&reader, core, index)).unwrap();
        assert_eq!(reader.get_local(index).unwrap(), *block);
    }
}

/// Where there was no core yet, one is made as if for the first time.
fn check_creates(disk: &Disk, durability: Durability, cut: &Cut<'_>) {
    assert!(cut.candidates.iter().any(|mark| mark.state.is_none()));
    create(disk, durability).unwrap().append("first").unwrap();
}

/// Only a core that was created just before a power cut, with nothing synced, may be beyond repair.
fn check_refusal(error: &StorageError, cut: &Cut<'_>) {
    let is_new = cut.candidates.iter().any(|mark| mark.state.is_none());
    assert!(!cut.strict && is_new, "{error}");
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}

/// Whether the recovery wrote a header, as it does where the journal cuts the log.
fn has_new_header(disk: &Disk) -> bool {
    disk.changes().iter().any(|change| match &change.what {
        What::Write { offset, bytes } => {
            change.file == "oplog" && *offset < ENTRIES_OFFSET && bytes.iter().any(|b| *b != 0)
        }
        _ => false,
    })
}

/// Hypercore 10 looks for the roots that the header names before it reads the entries: so the
/// header must name a length whose roots are there, at any moment. One that rotted, and is journaled anew, is not.
///
/// That cannot hold while a reader `follows` to another history, from when its tree is changed until the header names the
/// new length. A root of the old history whose place the new one has, but of which nothing came yet, must be gone by
/// then: else it could stay behind the header, and right blocks would be held against it. In that moment hypercore 10
/// refuses the core until it was opened here (10.38.2, run by hand: `Could not load node: 3`; its own `flush` in
/// `lib/merkle-tree.js` has the same order). Where another root took its place it opens it, for it does not look which is there.
fn check_header_alone(files: &Contents, follows: bool) {
    let mut files = files.clone();
    files
        .entry("oplog")
        .or_default()
        .truncate(ENTRIES_OFFSET as usize);
    match open(&Disk::new(files), Durability::Buffered) {
        // A slot was torn, and the entries that told it from a damaged one were just taken away.
        Err(StorageError::Corrupt { part: "oplog", .. }) => {}
        Err(StorageError::Corrupt { part: "tree", .. }) if follows => {}
        result => drop(result.unwrap()),
    }
}

/// A writer appends or truncates, a reader follows to another history or takes another block.
fn go_on(core: &Core, cut: &Cut<'_>, rng: &mut Rng) {
    let strict = cut.strict && !cut.recording.is_rotting;
    match &cut.recording.source {
        None if rng.one_in(4) => match core.truncate(core.length() / 2, None) {
            // A root of the shorter log was lost, and the core says so.
            Err(error) if !strict && lacks_nodes(&error) => {}
            result => drop(result.unwrap()),
        },
        None => {
            let block = rng.bytes(20);
            core.append(block.clone()).unwrap();
            let last = core.length() - 1;
            assert_eq!(core.get_local(last).unwrap().unwrap(), block);
        }
        Some(source) if core.fork() < source.fork() => {
            follow(core, source, usize::MAX).unwrap();
        }
        Some(source) if core.length() < source.length() => upgrade(core, source),
        Some(source) if core.length() > 0 => {
            let index = pick(core.length(), rng);
            match core.accept(block_proof(core, source, index)) {
                // The way to the block was lost, and the core says so.
                Err(AcceptError::Storage(StorageError::Corrupt { .. }))
                    if !cut.strict && !cut.recording.is_rotting => {}
                result => drop(result.unwrap()),
            }
        }
        Some(_) => {}
    }
}

/// A reorg that turns `old 0..7` into `old 0..3, new 3..6`, of which block 4 is brought along.
fn record_reorg(durability: Durability) -> Recording {
    let block = |tag: &str, i: usize| Bytes::from(format!("{tag} {i}"));
    let old: Vec<_> = (0..7).map(|i| block("old", i)).collect();
    let shared = old.iter().take(3).cloned();
    let new: Vec<_> = shared.chain((3..6).map(|i| block("new", i))).collect();
    let disk = Disk::new(Contents::new());
    create(&disk, durability)
        .unwrap()
        .append_batch(old)
        .unwrap();
    let start = disk.contents();
    let before = snapshot_of(&start);

    let disk = Disk::new(start.clone());
    let core = header().key.discovery_key();
    let opened = FileCore::open(&core, disk.core_files(), durability).unwrap();
    let storage = opened.unwrap().storage;
    storage.commit(reorg(&new), durability).unwrap();
    let after = snapshot_of(&disk.contents());
    assert_eq!(after.blocks[4].as_ref(), Some(&new[4]));
    // The head may be there without the block.
    let mut between = after.clone();
    between.blocks[4] = None;
    between.here.0 -= 1;
    let mark = |at, state, durable| Mark {
        at,
        state: Some(state),
        durable,
    };
    let marks = vec![
        mark(0, before, true),
        mark(disk.now(), between, true),
        mark(disk.now(), after, false),
    ];
    Recording {
        history: History::new(start, disk.changes(), marks),
        source: None,
        is_reorg: true,
        is_lossy: false,
        is_rotting: false,
    }
}

fn snapshot_of(files: &Contents) -> Snapshot {
    let core = open(&Disk::new(files.clone()), Durability::Buffered);
    Snapshot::of(&core.unwrap().unwrap()).unwrap()
}

/// The change to `blocks`, from a history that shares the first 3 of 7, with block 4 brought.
fn reorg(blocks: &[Bytes]) -> CoreWrite {
    let (mut roots, mut nodes) = (Roots::default(), Vec::new());
    for (block, index) in blocks.iter().zip(0..) {
        let leaf = Node::leaf(index, block);
        nodes.push(leaf);
        roots.push(leaf, |parent| nodes.push(parent)).unwrap();
    }
    // A reader gets the nodes of the proof only; all of those above new blocks is the most.
    nodes.retain(|node| flat_tree::end_block(node.index) > 3);
    let byte_offset = blocks[..4].iter().map(|block| block.len() as u64).sum();
    CoreWrite {
        blocks: vec![BlockWrite {
            byte_offset,
            blocks: vec![blocks[4].clone()],
        }],
        nodes,
        bits: vec![
            BitWrite {
                range: 3..7,
                value: false,
            },
            BitWrite {
                range: 4..5,
                value: true,
            },
        ],
        head: Some(HeadWrite {
            head: Head {
                fork: 1,
                length: roots.length(),
                root_hash: roots.hash(),
                signature: signature(1, &roots),
            },
            ancestors: 3,
        }),
        ..CoreWrite::default()
    }
}

/// The writer's signature, for a head that no core of this rig makes.
fn signature(fork: u64, roots: &Roots) -> Bytes {
    let manifest = header().manifest.unwrap();
    let verifier = Verifier::new(manifest.key(), manifest).unwrap();
    let head = TreeHead::of(fork, roots);
    verifier.sign(&head, &key_pair()).unwrap()
}
