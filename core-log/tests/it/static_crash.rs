//! Goal: a static core of which the making, or the copying, is cut off opens, has all that was acknowledged and no
//! block that it does not pin, and is whole once it is made again.
//! Method: histories of a store in which a core is pinned, of blocks or from another core, loses some blocks and is pinned
//! again, on files in memory that remember every change; the files are rebuilt as they may be found after each of them,
//! and again after each change that the recovery and the next making bring, three deep.
//!
//! `FERROCORE_STORE_CUTS` says how many cuts each test makes, `FERROCORE_SEED` where it begins.
#![cfg(feature = "files")]

use crate::rig::power::{Acknowledged, Device, History, Loss, Scene};
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::rot::repair;
use crate::rig::store::open_store;
use crate::rig::{Contents, Disk, create};
use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::{Core, CoreError, Corestore, Durability, StorageError, StoreError};
use ferrocore_primitives::keys::DiscoveryKey;

/// Cuts of one test.
const CUTS: usize = 2_000;
/// Steps of one history, after the first making.
const STEPS: usize = 4;
/// How often a recovery may be cut off in turn.
const DEPTH_MAX: usize = 3;
/// Blocks more than are copied in one commit.
const MANY: usize = 4_500;
const USER_DATA: (&str, &[u8]) = ("app", b"the source's");

#[test]
fn a_power_cut_takes_nothing_of_a_static_core_that_was_synced() {
    run(Durability::Sync);
}

/// A kill takes nothing; after a power cut an audit tells what was lost, and the next making brings it.
#[test]
fn a_power_cut_leaves_a_static_core_that_can_be_made_again() {
    run(Durability::Buffered);
}

fn run(durability: Durability) {
    let done = rounds(from_env("FERROCORE_STORE_CUTS", CUTS), |seed| {
        let mut rng = Rng::new(seed);
        let origin = Origin::new(&mut rng);
        let recording = record(&origin, durability, &mut rng);
        let mut sweep = Sweep {
            origin: &origin,
            durability,
            rng: &mut rng,
            cuts: 0,
        };
        sweep.run(&recording, 1);
        sweep.cuts
    });
    println!("{done} cuts");
}

/// What is pinned, and how.
struct Origin {
    source: Core,
    blocks: Vec<Bytes>,
    key: DiscoveryKey,
    is_copied: bool,
}

impl Origin {
    fn new(rng: &mut Rng) -> Self {
        let count = if rng.one_in(8) {
            MANY
        } else {
            1 + rng.below(150)
        };
        let blocks: Vec<Bytes> = (0..count)
            .map(|_| {
                let len = rng.below(40);
                rng.bytes(len).into()
            })
            .collect();
        let source = create(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
        source.append_batch(blocks.clone()).unwrap();
        let (name, value) = USER_DATA;
        source.set_user_data(name, Some(value)).unwrap();
        let pinned = Corestore::memory().create_static(blocks.clone()).unwrap();
        Self {
            source,
            blocks,
            key: pinned.discovery_key(),
            is_copied: rng.one_in(2),
        }
    }

    fn make(&self, store: &Corestore) -> Core {
        let made = match self.is_copied {
            true => store.staticify(&self.source),
            false => store.create_static(self.blocks.clone()),
        };
        let made = made.unwrap();
        assert_eq!(made.discovery_key(), self.key);
        made
    }

    /// Which blocks are here, each of which must be the right one; and whether the user data is.
    fn state_of(&self, core: &Core) -> State {
        let is_here = |(index, block): (u64, &Bytes)| {
            let found = core.get_local(index).unwrap();
            assert!(found.is_none() || found.as_ref() == Some(block), "{index}");
            found.is_some()
        };
        State {
            length: core.length(),
            here: (0..).zip(&self.blocks).map(is_here).collect(),
            has_user_data: self.has_user_data(core),
        }
    }

    fn has_user_data(&self, core: &Core) -> bool {
        let found = core.user_data(USER_DATA.0);
        assert!(found.is_none() || self.is_copied && found.as_deref() == Some(USER_DATA.1));
        found.is_some()
    }

    #[track_caller]
    fn assert_whole(&self, core: &Core) {
        let state = self.state_of(core);
        assert_eq!(state.length, self.blocks.len() as u64);
        assert!(state.here.iter().all(|is_here| *is_here));
        assert_eq!(state.has_user_data, self.is_copied);
        assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
    }
}

/// What is here of a static core.
#[derive(Debug, Clone)]
struct State {
    length: u64,
    here: Vec<bool>,
    has_user_data: bool,
}

/// A state that was acknowledged.
#[derive(Debug, Clone)]
struct Mark {
    at: usize,
    /// `None` before the core was created.
    state: Option<State>,
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

type Recording = History<Mark>;

fn record(origin: &Origin, durability: Durability, rng: &mut Rng) -> Recording {
    let disk = Disk::new(Contents::new());
    let mut store = open_store(&disk, durability).unwrap();
    let mut core = origin.make(&store);
    let mark = |core: &Core, durable| Mark {
        at: disk.now(),
        state: Some(origin.state_of(core)),
        durable,
    };
    let mut marks = vec![none(), mark(&core, false)];
    for _ in 0..STEPS {
        let before = disk.now();
        let mut is_flushed = false;
        match rng.below(4) {
            0 => {
                core.flush().unwrap();
                is_flushed = disk.now() > before;
            }
            1 => {
                drop((core, store));
                store = open_store(&disk, durability).unwrap();
                core = origin.make(&store);
            }
            _ => {
                let start = rng.below(origin.blocks.len());
                let end = start + rng.below(origin.blocks.len() - start + 1);
                core.clear(start as u64..end as u64).unwrap();
                marks.push(mark(&core, false));
                core = origin.make(&store);
            }
        }
        marks.push(mark(&core, is_flushed));
    }
    drop((core, store));
    Recording::new(Contents::new(), disk.changes(), marks)
}

fn none() -> Mark {
    Mark {
        at: 0,
        state: None,
        durable: false,
    }
}

struct Sweep<'a> {
    origin: &'a Origin,
    durability: Durability,
    rng: &'a mut Rng,
    cuts: usize,
}

impl Sweep<'_> {
    fn run(&mut self, recording: &Recording, depth: usize) {
        let is_sampled = depth > 1 || self.origin.blocks.len() == MANY;
        recording.each_moment(self.rng.next(), |device, at, losses| {
            let any = [losses[self.rng.below(losses.len())]];
            let losses = if is_sampled { &any } else { losses };
            for loss in losses {
                self.cut(device, recording, at, *loss, depth);
            }
        });
    }

    fn cut(&mut self, device: &Device, recording: &Recording, at: usize, loss: Loss, depth: usize) {
        self.cuts += 1;
        let _scene = Scene(format!("depth {depth}, after {at} changes, {loss:?}"));
        let syncs = self.durability == Durability::Sync;
        let strict = syncs || loss.is_kill();
        let crash = recording.crash(device, (at, loss), syncs, self.rng);
        let marks = &recording.candidates(at, loss, strict);
        let disk = Disk::new(crash.contents());
        let store = open_store(&disk, self.durability).unwrap();
        let found = match store.get_by_discovery_key(&self.origin.key) {
            Err(error) => return check_refusal(&error, marks, strict),
            Ok(found) => found,
        };
        let shown = disk.now();
        if !strict {
            return self.check_loosely(found.as_ref(), &store);
        }
        let state = found.as_ref().map(|core| self.origin.state_of(core));
        check(state.as_ref(), marks);
        let mark = |at, state, durable| Mark { at, state, durable };
        let mut marks = vec![mark(0, state, false)];
        if let Some(core) = &found {
            assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
        }
        drop(found);
        let core = self.origin.make(&store);
        self.origin.assert_whole(&core);
        let state = self.origin.state_of(&core);
        marks.push(mark(disk.now(), Some(state), false));
        drop((core, store));
        if depth < DEPTH_MAX && self.rng.one_in(60 * depth) {
            let recording = Recording::after(crash, shown, disk.changes(), marks);
            self.run(&recording, depth + 1);
        }
    }

    /// With syncs lost: no block is wrong, and after an audit has told which are lost, they can be had again.
    fn check_loosely(&self, found: Option<&Core>, store: &Corestore) {
        if let Some(core) = found {
            for (index, block) in (0..).zip(&self.origin.blocks) {
                match core.get_local(index) {
                    Ok(found) => assert!(found.is_none() || found.as_ref() == Some(block)),
                    Err(CoreError::CorruptBlock { .. }) => {}
                    Err(CoreError::Storage(StorageError::Corrupt { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            repair(core, |_| {});
        }
        self.origin.assert_whole(&self.origin.make(store));
    }
}

/// What was found is here in some state that it may be in, or between these: it is copied in parts.
fn check(found: Option<&State>, marks: &[&Mark]) {
    let Some(found) = found else {
        assert!(marks.iter().any(|mark| mark.state.is_none()));
        return;
    };
    let states: Vec<_> = marks.iter().map(|mark| mark.state.as_ref()).collect();
    let all = |has: &dyn Fn(&State) -> bool| states.iter().all(|s| s.is_some_and(has));
    let any = |has: &dyn Fn(&State) -> bool| states.iter().any(|s| s.is_some_and(has));
    let lies_between =
        |is_here, has: &dyn Fn(&State) -> bool| (is_here || !all(has)) && (!is_here || any(has));
    assert!(found.length > 0 || !all(&|state| state.length > 0));
    assert!(lies_between(found.has_user_data, &|state| state.has_user_data));
    for (index, is_here) in found.here.iter().enumerate() {
        assert!(
            lies_between(*is_here, &|state| state.here[index]),
            "{index}"
        );
    }
}

/// Only a core that was created just before a power cut, with nothing synced, may be beyond repair.
fn check_refusal(error: &StoreError, marks: &[&Mark], strict: bool) {
    let is_new = marks.iter().any(|mark| mark.state.is_none());
    assert!(!strict && is_new, "{error}");
    let is_corrupt = matches!(error, StoreError::Storage(StorageError::Corrupt { .. }));
    assert!(is_corrupt, "{error}");
}
