//! Goal: any number of cores is open at once with few open files, and none the worse for it.
//! Method: far more cores than descriptors, in a process that may not open more; changes by
//! another program behind the back of a core whose files were closed.
//! `FERROCORE_CORES` says how many cores.
#![cfg(all(feature = "files", target_os = "linux"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crate::common::ready;
use crate::rig::rng::{Rng, from_env};
use ferrocore_log::storage::files::block_file::{BlockFile, OsFile};
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::{Core, CoreError, Corestore, Durability, StorageError, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;
use nix::sys::resource::{Resource, setrlimit};

const CORES: usize = 10_000;
/// What the system lets the other process open, of all kinds.
const DESCRIPTORS: u64 = 64;
const OPEN_FILES_MAX: usize = 32;
const CHILD: &str = "FERROCORE_SCALE_CHILD";

fn open(directory: &Path, open_files_max: usize) -> Corestore {
    let options = StoreOptions {
        open_files_max: Some(open_files_max),
        ..StoreOptions::default()
    };
    Corestore::open(directory, options).unwrap()
}

fn core_directory(store: &Path, core: &DiscoveryKey) -> PathBuf {
    let name = core.to_hex();
    let cores = store.join("corestore/cores");
    cores.join(&name[..2]).join(&name[2..4]).join(&name)
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn more_cores_than_descriptors_are_open_at_once() {
    if let Ok(directory) = std::env::var(CHILD) {
        return work(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    for round in ["created", "opened again"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store_scale::more_cores_than_descriptors_are_open_at_once",
            ])
            .arg("--nocapture")
            .env(CHILD, directory.path())
            .output()
            .unwrap();
        println!("{round}: {}", String::from_utf8_lossy(&child.stdout));
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{round}: {stderr}");
    }
}

fn work(directory: &Path) {
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).unwrap();
    let store = open(directory, OPEN_FILES_MAX);
    let (count, before) = (from_env("FERROCORE_CORES", CORES), resident());
    let started = std::time::Instant::now();
    let cores: Vec<Core> = (0..count)
        .map(|i| store.get_named(&format!("core {i}")).unwrap())
        .collect();
    let opened = (started.elapsed(), resident());
    let length = cores[0].length();
    for round in length..length + 2 {
        for (core, i) in cores.iter().zip(0..) {
            let block = format!("block {round} of {i}");
            assert_eq!(core.append(block).unwrap().length, round + 1);
            assert!(i % 500 > 0 || descriptors() <= OPEN_FILES_MAX + 16);
        }
    }
    let appended = resident();
    for (core, i) in cores.iter().zip(0..) {
        for index in 0..core.length() {
            let block = ready(core.get(index)).unwrap();
            assert_eq!(block, format!("block {index} of {i}"));
        }
    }
    let per_core = |resident: usize| resident.saturating_sub(before) / count;
    println!(
        "{count} cores opened in {:?}; resident bytes a core: {} opened, {} appended to, {} read; {} descriptors",
        opened.0,
        per_core(opened.1),
        per_core(appended),
        per_core(resident()),
        descriptors(),
    );
    // As a killed process: nothing is closed, so that the next one has something to recover.
    std::process::exit(0);
}

/// Goal: threads that take the descriptors from each other all see what they wrote.
#[test]
fn threads_share_few_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path(), 8));
    let cores: Vec<Core> = (0..40)
        .map(|i| store.get_named(&i.to_string()).unwrap())
        .collect();
    let cores = Arc::new(cores);
    let work = |thread: usize| {
        let cores = Arc::clone(&cores);
        move || {
            let mut rng = Rng::new(thread as u64);
            for step in 0..1_000u64 {
                let core = &cores[rng.below(10) * 4 + thread]; // one writer each
                let other = &cores[rng.below(cores.len())];
                match rng.below(20) {
                    0 => core.flush().unwrap(),
                    1 if core.length() > 5 => drop(core.truncate(core.length() - 2, None).unwrap()),
                    2..8 => drop(
                        core.append(vec![thread as u8; 1 + step as usize % 90])
                            .unwrap(),
                    ),
                    _ if other.length() == 0 => {}
                    _ => {
                        let index = rng.below(other.length() as usize) as u64;
                        let block = other.get_local(index).unwrap();
                        let of = other.key() == core.key();
                        assert!(!of || block.unwrap().iter().all(|b| *b == thread as u8));
                    }
                }
            }
        }
    };
    let threads: Vec<_> = (0..4).map(|i| thread::spawn(work(i))).collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let lengths: Vec<_> = cores
        .iter()
        .map(|core| (core.key(), core.length()))
        .collect();
    drop((cores, store));
    let store = open(directory.path(), 8);
    for (key, length) in lengths {
        let core = store.get(&key).unwrap();
        assert_eq!(core.length(), length);
        (0..length).for_each(|i| drop(ready(core.get(i)).unwrap()));
    }
}

/// A store in which the files of a core were closed in favour of others'.
struct Idle {
    directory: tempfile::TempDir,
    store: Corestore,
    core: Core,
}

impl Idle {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), 8);
        let core = store.get_named("idle").unwrap();
        core.append_batch((0..10).map(|i| vec![i; 100].into()).collect())
            .unwrap();
        core.flush().unwrap();
        let idle = Self {
            directory,
            store,
            core,
        };
        idle.take_descriptors();
        idle
    }

    /// Uses other cores until ours has no file open.
    fn take_descriptors(&self) {
        let others = (0..20).map(|i| self.store.get_named(&i.to_string()).unwrap());
        let others: Vec<Core> = others.collect();
        for other in &others {
            other.append("x").unwrap();
        }
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let mut open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        assert!(!open.any(|path| path.starts_with(self.path())));
    }

    fn path(&self) -> PathBuf {
        core_directory(self.directory.path(), &self.core.discovery_key())
    }

    /// The core as a program opens it that knows nothing of stores.
    fn foreign(&self) -> Core {
        let file = |name| Box::new(OsFile::new(self.path().join(name))) as Box<dyn BlockFile>;
        let files = CoreFiles {
            directory: self.path(),
            oplog: file("oplog"),
            tree: file("tree"),
            bitfield: file("bitfield"),
            data: file("data"),
            header: file("header"),
        };
        let key_pair = self.store.key_pair("idle");
        let durability = Durability::Buffered;
        let opened = FileCore::open(&self.core.discovery_key(), files, durability).unwrap();
        Core::open(opened.unwrap(), Some(key_pair), durability).unwrap()
    }

    fn assert_refused(&self) {
        for _ in 0..2 {
            let read = self.core.get_local(0).unwrap_err();
            let refused = matches!(read, CoreError::Storage(StorageError::Changed { .. }));
            assert!(refused, "{read}");
        }
        let append = self.core.append("y").unwrap_err();
        let refused = matches!(append, CoreError::Storage(StorageError::Changed { .. }));
        assert!(refused, "{append}");
        assert!(append.to_string().contains("open the core again"));
        let again = self.core.append("y").unwrap_err();
        let poisoned = matches!(again, CoreError::Storage(StorageError::Poisoned { .. }));
        assert!(poisoned, "{again}");
    }
}

#[test]
fn an_idle_core_goes_on_where_it_was() {
    let idle = Idle::new();
    assert_eq!(idle.core.get_local(9).unwrap().unwrap(), vec![9; 100]);
    idle.take_descriptors();
    idle.core.truncate(4, None).unwrap();
    idle.take_descriptors();
    idle.core.append("next").unwrap();
    idle.take_descriptors();
    assert_eq!(idle.core.get_local(4).unwrap().unwrap(), "next");
    idle.take_descriptors();
    let key = idle.core.key();
    let Idle { store, core, .. } = &idle;
    core.clear(0..1).unwrap();
    assert_eq!(store.get(&key).unwrap().contiguous_length(), 0);
}

/// Goal: whatever another program does to a core whose lock was given up is noticed before
/// anything is read or written, and its work is kept.
#[test]
fn a_core_that_was_changed_while_idle_is_refused() {
    type Change = fn(&Core);
    let changes: [(Change, u64); 5] = [
        (
            |core| assert_eq!(core.append("foreign").unwrap().length, 11),
            11,
        ),
        (
            |core| {
                core.append("foreign").unwrap();
                core.flush().unwrap();
            },
            11,
        ),
        (
            |core| assert_eq!(core.truncate(3, None).unwrap().length, 3),
            3,
        ),
        (|core| core.clear(0..2).unwrap(), 10),
        (
            |core| {
                core.truncate(9, None).unwrap();
                core.append(vec![9; 100]).unwrap();
                core.flush().unwrap();
            },
            10,
        ),
    ];
    for (change, length) in changes {
        let idle = Idle::new();
        let foreign = idle.foreign();
        change(&foreign);
        drop(foreign);
        idle.assert_refused();
        let Idle {
            directory,
            store,
            core,
        } = idle;
        let key = core.key();
        drop(core);
        assert_eq!(store.get(&key).unwrap().length(), length);
        drop((store, directory));
    }
}

#[test]
fn a_core_whose_files_were_replaced_while_idle_is_refused() {
    let idle = Idle::new();
    let oplog = idle.path().join("oplog");
    fs::copy(&oplog, oplog.with_extension("copy")).unwrap();
    fs::rename(oplog.with_extension("copy"), &oplog).unwrap();
    idle.assert_refused();
    for file in ["data", "oplog"] {
        let idle = Idle::new();
        fs::remove_file(idle.path().join(file)).unwrap();
        idle.assert_refused();
    }
    let idle = Idle::new();
    fs::write(idle.path().join("oplog"), [0; 8192]).unwrap();
    idle.assert_refused();
}

#[test]
fn a_core_that_another_program_took_while_idle_is_locked() {
    use nix::fcntl::{FcntlArg, fcntl};
    let idle = Idle::new();
    let oplog = idle.path().join("oplog");
    let taken = fs::OpenOptions::new().read(true).write(true).open(oplog);
    let taken = taken.unwrap();
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as _,
        l_whence: nix::libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&taken, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    let error = idle.core.get_local(0).unwrap_err();
    let locked = matches!(error, CoreError::Storage(StorageError::Locked { .. }));
    assert!(locked, "{error}");
    drop(taken);
    assert_eq!(idle.core.get_local(0).unwrap().unwrap(), vec![0; 100]);
}
