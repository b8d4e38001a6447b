//! Goal: who only reads a store changes nothing in it, and sees a state that was committed or an
//! error, whatever another program does to the files meanwhile.
//! Method: recorded histories of writers and readers, replayed change by change under somebody
//! who reads; what he sees is compared with what a writer would recover there.
//! `FERROCORE_READERS` says how often a core is opened so, `FERROCORE_SEED` where it begins.
#![cfg(feature = "files")]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::common::infos;
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::workload::{Recording, Snapshot, record_reader, record_writer};
use crate::rig::{Contents, Disk, header};
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::{
    Core, CoreError, Corestore, Durability, StorageError, StoreError, StoreOptions,
};
use ferrocore_primitives::keys::Key;

const READERS: usize = 1_000;

fn read_only(files: impl Fn() -> CoreFiles) -> Result<Option<Core>, StorageError> {
    let core = header().key.discovery_key();
    let opened = FileCore::open_read_only(&core, || Ok(Some(files())))?;
    match opened.map(|opened| Core::open(opened, None, Durability::Buffered)) {
        None => Ok(None),
        Some(Err(CoreError::Storage(error))) => Err(error),
        Some(result) => Ok(Some(result.unwrap())),
    }
}

fn record(rng: &mut Rng) -> Recording {
    let durability = [Durability::Sync, Durability::Buffered][rng.below(2)];
    match rng.one_in(2) {
        true => record_writer(durability, rng),
        false => record_reader(durability, rng),
    }
}

/// What a writer finds at first and after each change, as after a kill; `None` where there is no core yet.
fn recovered(recording: &Recording) -> Vec<Option<Snapshot>> {
    let mut files = recording.history.start();
    let find = |files: &Contents| {
        let core = crate::rig::open(&Disk::new(files.clone()), Durability::Buffered).unwrap();
        core.map(|core| Snapshot::of(&core).unwrap())
    };
    let mut states = vec![find(&files)];
    for change in &recording.history.changes {
        crate::rig::apply(&mut files, change);
        states.push(find(&files));
    }
    states
}

/// Goal: a reader sees what a writer would recover, and leaves the recovery to it.
#[test]
fn a_reader_sees_what_a_writer_recovers() {
    let mut opened = 0;
    rounds(from_env("FERROCORE_READERS", READERS), |seed| {
        let recording = record(&mut Rng::new(seed));
        let states = recovered(&recording);
        let disk = Disk::new(recording.history.start());
        for (done, state) in states.iter().enumerate() {
            if let Some(change) = done
                .checked_sub(1)
                .map(|last| &recording.history.changes[last])
            {
                disk.apply(change);
            }
            let core = read_only(|| disk.core_files()).unwrap();
            let seen = core.map(|core| Snapshot::of(&core).unwrap());
            assert_eq!(&seen, state);
            opened += usize::from(seen.is_some());
        }
        assert!(disk.changes().is_empty());
        states.len()
    });
    assert!(opened > 0);
}

/// Files that somebody else changes while they are read.
struct Racing {
    file: Box<dyn BlockFile>,
    writer: Arc<Writer>,
}

struct Writer {
    disk: Disk,
    recording: Recording,
    /// Whether it makes many changes now and then, instead of few all the time: what was read then may look as before.
    in_leaps: bool,
    /// How many of the changes are made, and chance.
    now: Mutex<(usize, Rng)>,
}

impl Writer {
    /// Goes on, or not.
    fn work(&self) {
        let mut now = self.now.lock().unwrap();
        let (done, rng) = &mut *now;
        let mut leap = match self.in_leaps && rng.one_in(8) {
            true => 1 + rng.below(12),
            false => 0,
        };
        while leap > 0 || !self.in_leaps && rng.one_in(3) {
            let Some(change) = self.recording.history.changes.get(*done) else {
                break;
            };
            self.disk.apply(change);
            *done += 1;
            leap = leap.saturating_sub(1);
        }
    }

    fn done(&self) -> usize {
        self.now.lock().unwrap().0
    }

    fn files(self: &Arc<Self>) -> CoreFiles {
        let files = self.disk.core_files();
        let racing = |file| -> Box<dyn BlockFile> {
            let writer = Arc::clone(self);
            Box::new(Racing { file, writer })
        };
        CoreFiles {
            oplog: racing(files.oplog),
            tree: racing(files.tree),
            bitfield: racing(files.bitfield),
            data: racing(files.data),
            header: racing(files.header),
            ..files
        }
    }
}

impl BlockFile for Racing {
    fn len(&self) -> io::Result<u64> {
        self.writer.work();
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.writer.work();
        self.file.read(offset, buffer)
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("a reader writes nothing")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        panic!("a reader writes nothing")
    }

    fn sync(&self) -> io::Result<()> {
        panic!("a reader writes nothing")
    }

    fn punch(&self, _: Range<u64>) -> io::Result<()> {
        panic!("a reader writes nothing")
    }
}

/// Goal: whatever is changed while a core is opened and read, it is a state that was committed in
/// that time, and each block is that state's, or an error.
#[test]
fn a_reader_of_a_core_that_is_written_sees_one_state() {
    let (mut whole, mut refused, mut cleared, mut unsettled) = (0, 0, 0, 0);
    let round = |seed| {
        let mut rng = Rng::new(seed);
        let recording = record(&mut rng);
        let states = recovered(&recording);
        let writer = Arc::new(Writer {
            disk: Disk::new(recording.history.start()),
            recording,
            in_leaps: rng.one_in(2),
            now: Mutex::new((0, rng)),
        });
        let mut opened = 0;
        while writer.done() < writer.recording.history.changes.len() {
            let before = writer.done();
            let core = match read_only(|| writer.files()) {
                Ok(core) => core,
                Err(StorageError::Unsettled { .. }) => {
                    unsettled += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            opened += 1;
            let when_opened = &states[before..=writer.done()];
            let Some(core) = core else {
                assert!(when_opened.iter().any(Option::is_none));
                continue;
            };
            let head = (core.fork(), core.length(), core.tree_hash());
            let user_data = core.user_data("key");
            let is_it = |state: &&Snapshot| {
                (state.fork, state.length, state.hash) == head
                    && state.user_data == user_data
                    && state.looked_at().all(|(i, b)| core.has(i) == b.is_some())
            };
            let state = when_opened.iter().flatten().find(is_it);
            let state = state.unwrap_or_else(|| panic!("{head:?} never was"));
            for (index, block) in state.looked_at() {
                match core.get_local(index) {
                    Ok(None) if block.is_some() => {
                        let is_gone = |state: &Snapshot| {
                            let mut found = state.looked_at().filter(|(i, _)| *i == index);
                            found.all(|(_, block)| block.is_none())
                        };
                        let mut until_now = states[before..=writer.done()].iter().flatten();
                        assert!(until_now.any(is_gone), "{index} is here");
                        cleared += 1;
                    }
                    Err(error @ CoreError::CorruptBlock { .. }) => panic!("{error}"),
                    Ok(found) => {
                        assert_eq!(&found, block);
                        whole += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        opened
    };
    rounds(from_env("FERROCORE_READERS", READERS), round);
    println!("{whole} blocks, {refused} refused, {cleared} cleared; {unsettled} times unsettled");
    assert!(whole > refused && refused > 0);
}

/// All below a directory: what it is, and when it was changed.
fn contents(directory: &Path) -> HashMap<PathBuf, (std::time::SystemTime, Vec<u8>)> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, (changed, Vec::new()));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, (changed, bytes));
        }
    }
    found
}

fn open_read_only(directory: &Path) -> Result<Corestore, StoreError> {
    let options = StoreOptions {
        read_only: true,
        ..StoreOptions::default()
    };
    Corestore::open(directory, options)
}

fn assert_read_only<T: std::fmt::Debug>(result: Result<T, impl Into<StoreError>>) {
    let error = result.unwrap_err().into();
    let typed = matches!(
        error,
        StoreError::Storage(StorageError::ReadOnly { .. })
            | StoreError::Core(CoreError::Storage(StorageError::ReadOnly { .. }))
    );
    assert!(typed, "{error}");
}

/// Goal: a store is read whole, by every way to ask, while another program has it open and on a
/// medium that cannot be written, and not a byte nor a time of it changes.
#[test]
fn a_store_is_read_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(open_read_only(path).is_err(), "there is no store");
    assert!(contents(path).is_empty());

    let writer = Corestore::open(path, StoreOptions::default()).unwrap();
    let named = writer.namespace("x").get_named("ä").unwrap();
    named
        .append_batch((0..200).map(|i| vec![i; 9].into()).collect())
        .unwrap();
    named.flush().unwrap();
    named.truncate(190, None).unwrap();
    named.append("after a truncate").unwrap();
    let reader = writer.get(&Key::from([7; 32])).unwrap();
    let compat = ferrocore_log::CoreOptions {
        key_pair: Some(writer.key_pair("of corestore 6")),
        compat: true,
        ..Default::default()
    };
    let compat = writer.get_with(compat).unwrap();

    for open_elsewhere in [true, false] {
        let before = contents(path);
        let store = open_read_only(path).unwrap();
        let core = store.namespace("x").get_named("ä").unwrap();
        assert_eq!(core.key(), named.key());
        assert_eq!((core.length(), core.fork()), (191, 1));
        for index in 0..191 {
            let block = core.get_local(index).unwrap();
            assert_eq!(block, named.get_local(index).unwrap(), "{open_elsewhere}");
        }
        assert!(!core.is_writable());
        assert!(matches!(
            core.append("x"),
            Err(CoreError::NotWritable { .. })
        ));
        assert_read_only(core.set_user_data("a", Some(b"b")));
        assert_read_only(core.clear(0..1));
        assert_read_only(store.purge(&reader.discovery_key()));
        assert_read_only(store.get_named("new"));
        assert_eq!(store.get(&reader.key()).unwrap().length(), 0);
        let by_name = store.get_named("of corestore 6").unwrap();
        assert_eq!(by_name.key(), compat.key());
        assert_eq!(infos(&store), infos(&writer));
        assert_eq!(
            store.disk_bytes(&core.discovery_key()).unwrap(),
            writer.disk_bytes(&core.discovery_key()).unwrap()
        );
        core.flush().unwrap();
        drop((core, store));
        assert!(contents(path) == before, "something was written");
        named.flush().unwrap();
        #[cfg(unix)]
        set_mode(path, true);
    }
    #[cfg(unix)]
    set_mode(path, false);
    writer.get_named("and goes on").unwrap();
}

/// Takes the right to write from all below, or gives it back.
#[cfg(unix)]
fn set_mode(path: &Path, read_only: bool) {
    use std::os::unix::fs::PermissionsExt as _;
    let is_directory = path.is_dir();
    let mode = 0o400 | (u32::from(is_directory) * 0o100) | (u32::from(!read_only) * 0o200);
    if is_directory {
        let below = fs::read_dir(path).unwrap();
        below.for_each(|entry| set_mode(&entry.unwrap().path(), read_only));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Goal: who reads goes on while the log grows, and is told when it was cut.
#[test]
fn a_reader_goes_on_until_the_log_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let writer = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let log = writer.get_named("log").unwrap();
    log.append_batch((0..50).map(|i| vec![i; 9].into()).collect())
        .unwrap();
    let store = open_read_only(directory.path()).unwrap();
    let core = store.get_named("log").unwrap();
    for i in 50..200 {
        log.append(vec![i; 9]).unwrap();
        if i % 20 == 0 {
            log.flush().unwrap();
        }
        let index = u64::from(i) % 50;
        assert_eq!(
            core.get_local(index).unwrap().unwrap(),
            vec![index as u8; 9]
        );
    }
    assert_eq!(core.length(), 50);
    drop(core);
    let core = store.get_named("log").unwrap();
    assert_eq!(core.length(), 200, "opened again it is as it is now");
    log.truncate(100, None).unwrap();
    log.append_batch(vec!["other".into(); 150]).unwrap();
    let error = core.get_local(150).unwrap_err();
    let changed = matches!(error, CoreError::Storage(StorageError::Changed { .. }));
    assert!(changed, "{error}");
    drop(core);
    let core = store.get_named("log").unwrap();
    assert_eq!((core.length(), core.fork()), (250, 1));
    assert_eq!(core.get_local(150).unwrap().unwrap(), "other");
}

/// Goal: a block that the writer has cleared since is not here, and not damaged; if it came back, it is.
#[test]
fn a_reader_is_told_of_a_block_that_was_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let writer = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let log = writer.get_named("log").unwrap();
    let block = |i: u8| bytes::Bytes::from(vec![i; 5000]);
    log.append_batch((0..9).map(block).collect()).unwrap();
    let store = open_read_only(directory.path()).unwrap();
    for flushed in [false, true] {
        let core = store.get_named("log").unwrap();
        let request = ProofRequest {
            block: Some(NodeRequest { index: 5, nodes: 0 }),
            ..ProofRequest::default()
        };
        let proof = log.prove(&request).unwrap().unwrap();
        log.clear(5..6).unwrap();
        if flushed {
            log.flush().unwrap();
        }
        assert_eq!(core.get_local(5).unwrap(), None, "flushed: {flushed}");
        assert_eq!(core.snapshot().get_local(5).unwrap(), None);
        assert_eq!(core.get_local(4).unwrap(), Some(block(4)));
        log.accept(proof).unwrap();
        assert_eq!(core.get_local(5).unwrap(), Some(block(5)));
    }
}

/// Goal: drafts are read in a store that is only read, beside who writes them, and not changed.
#[test]
fn drafts_of_a_store_that_is_only_read_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let writer = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let log = writer.get_named("log").unwrap();
    log.append("published").unwrap();
    let draft = log.draft("next").unwrap();
    draft.append_batch(vec!["a".into(), "b".into()]).unwrap();
    let before = contents(directory.path());
    let core = open_read_only(directory.path())
        .unwrap()
        .get_named("log")
        .unwrap();
    assert_eq!(core.drafts().unwrap(), ["next"]);
    let read = core.draft("next").unwrap();
    assert_eq!((read.length(), read.base_length()), (3, 1));
    for index in 0..3 {
        assert_eq!(
            read.get_local(index).unwrap(),
            draft.get_local(index).unwrap()
        );
    }
    assert_eq!(read.tree_hash().unwrap(), draft.tree_hash().unwrap());
    assert_read_only(read.append("c"));
    assert_read_only(read.truncate(1));
    assert_read_only(read.overwrite());
    assert_read_only(core.draft("none yet").map(drop));
    drop(read);
    assert_read_only(core.delete_draft("next"));
    drop(core);
    assert!(
        contents(directory.path()) == before,
        "something was written"
    );
}
