//! Goal: a store in synced mode shows nothing of a core that a power cut may still take, whoever wrote it; and what is known to be
//! on the device is not synced again, so that thousands of cores open at the cost of a few.
//! Method: stores on a real disk, on which each change and each sync is recorded; the directory as the power would leave it if all
//! were lost that no sync has covered.
#![cfg(all(unix, feature = "files"))]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferrocore_log::storage::files::Files;
use ferrocore_log::{Corestore, Durability, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::rig::What;
use crate::rig::power::Loss;
use crate::rig::rng::Rng;
use crate::rig::tree::TreeDevice;
use crate::rig::watched::{TreeChange, Watched};

/// More than are synced by themselves.
const CORES: usize = 20;
/// Cores that are synced by themselves before all are at once.
const ALONE_MAX: usize = 8;
/// Files of a core, its directory and those above.
const SYNCS_OF_CORE_MAX: usize = 10;

/// A store's directory, and what of it is on the device.
struct Bench {
    directory: tempfile::TempDir,
    device: TreeDevice,
    disk: Watched,
    known: usize,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            device: TreeDevice::new(directory.path()),
            directory,
            disk: Watched::new(None),
            known: 0,
        }
    }

    /// One with cores that a buffered holder has closed in order, each of a block that tells which it is.
    fn of_cores() -> (Self, Vec<DiscoveryKey>) {
        let bench = Self::new();
        let store = bench.open(Durability::Buffered, Durability::Buffered);
        let create = |number| {
            let core = store.get_named(&format!("core {number}")).unwrap();
            core.append(format!("block of {number}")).unwrap();
            core.discovery_key()
        };
        let cores = (0..CORES).map(create).collect();
        drop(store);
        (bench, cores)
    }

    /// The store opened in the first mode, of which cores are changed in the second.
    fn open(&self, store: Durability, durability: Durability) -> Corestore {
        let files = Files::open_on(self.disk.files(), self.directory.path(), store, None).unwrap();
        let options = StoreOptions {
            durability,
            ..StoreOptions::default()
        };
        Corestore::with_storage(files, options).unwrap()
    }

    fn open_synced(&self) -> Corestore {
        self.open(Durability::Sync, Durability::Sync)
    }

    /// Makes all files seem to be of long ago, as most are when a store is opened.
    fn let_time_pass(&self) {
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        for_each_file(self.directory.path(), &|path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
        });
    }

    /// What was synced since this was asked last: files and directories, and how often all.
    fn syncs(&mut self) -> (usize, usize) {
        let changes = self.disk.changes();
        let new = &changes[self.known..];
        self.known = changes.len();
        for change in new {
            self.device.advance(change);
        }
        let count = |is: fn(&TreeChange) -> bool| new.iter().filter(|change| is(change)).count();
        let one = |change: &TreeChange| {
            use TreeChange::{Content, SyncDirectory};
            matches!(change, Content(_, What::Sync) | SyncDirectory(_))
        };
        let all = |change: &TreeChange| matches!(change, TreeChange::SyncAll);
        (count(one), count(all))
    }

    /// The power goes: these cores still have what they were opened with.
    fn assert_on_device(&mut self, cores: &[DiscoveryKey], blocks: u64) {
        self.syncs();
        let left = tempfile::tempdir().unwrap();
        let rng = &mut Rng::new(0);
        self.device.write_after(Loss::Everything, rng, left.path());
        let files = Files::open(left.path(), Durability::Buffered).unwrap();
        let store = Corestore::with_storage(files, StoreOptions::default()).unwrap();
        for (number, core) in cores.iter().enumerate() {
            let core = store.get_by_discovery_key(core).unwrap();
            let core = core.unwrap_or_else(|| panic!("core {number} is gone"));
            assert_eq!(core.length(), blocks, "core {number}");
            for index in 0..blocks {
                let block = core.get_local(index).unwrap();
                let told = format!("block of {number}").into_bytes();
                assert_eq!(block.unwrap(), told, "core {number}");
            }
        }
    }

    fn path_of(&self, core: &DiscoveryKey, name: &str) -> std::path::PathBuf {
        let hex = core.to_hex();
        let cores = self.directory.path().join("corestore/cores");
        let above = cores.join(&hex[..2]).join(&hex[2..4]);
        above.join(hex).join(name)
    }
}

fn for_each_file(directory: &Path, work: &impl Fn(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => for_each_file(&path, work),
            false => work(&path),
        }
    }
}

/// Goal: whichever of these ways it is that makes a core known to be on the device, it is there once the core was opened.
#[test]
fn what_a_buffered_holder_left_is_on_the_device_before_it_is_shown() {
    for is_old in [false, true] {
        let (mut bench, cores) = Bench::of_cores();
        if is_old {
            bench.let_time_pass();
        }
        let store = bench.open_synced();
        bench.syncs();
        for opened in 1..=CORES {
            let core = store.get_by_discovery_key(&cores[opened - 1]).unwrap();
            drop(core.unwrap());
            bench.assert_on_device(&cores[..opened], 1);
        }
    }
}

/// Goal: thousands of cores cost as much as a few: those that were not changed lately are synced all at once.
#[test]
fn many_cores_are_synced_at_once() {
    let (mut bench, cores) = Bench::of_cores();
    bench.let_time_pass();
    let store = bench.open_synced();
    bench.syncs();
    let mut wholes = 0;
    for (opened, core) in cores.iter().enumerate() {
        drop(store.get_by_discovery_key(core).unwrap().unwrap());
        let (single, whole) = bench.syncs();
        wholes += whole;
        match opened < ALONE_MAX {
            true => assert!((1..=SYNCS_OF_CORE_MAX).contains(&single), "{single}"),
            false => assert_eq!((single, wholes), (0, 1), "core {opened}"),
        }
    }
}

/// Goal: a core that was closed here, all of it on the device, costs no sync when it is opened again.
#[test]
fn a_core_that_was_closed_here_is_not_synced_again() {
    let (mut bench, cores) = Bench::of_cores();
    let store = bench.open_synced();
    let open = || store.get_by_discovery_key(&cores[0]).unwrap().unwrap();
    drop(open());
    bench.syncs();
    drop(open());
    assert_eq!(bench.syncs(), (0, 0), "only looked at");
    open().append("block of 0").unwrap();
    bench.syncs();
    drop(open());
    assert_eq!(bench.syncs(), (0, 0), "changed, and closed");
    bench.assert_on_device(&cores[..1], 2);
}

/// Goal: neither what somebody here did not sync, nor what another program did, is taken for synced, be it after all was.
#[test]
fn what_changed_since_all_was_synced_is_synced_again() {
    let (mut bench, cores) = Bench::of_cores();
    bench.let_time_pass();
    let store = bench.open(Durability::Sync, Durability::Buffered);
    let open = |number: usize| store.get_by_discovery_key(&cores[number]).unwrap().unwrap();
    (0..CORES - 1).for_each(|number| drop(open(number)));
    let last = CORES - 1;
    open(last).append(format!("block of {last}")).unwrap();
    bench.syncs();
    drop(open(last));
    let (single, _) = bench.syncs();
    assert!(single > 0, "its blocks were not synced");
    drop(open(last));
    assert_eq!(bench.syncs(), (0, 0), "now they are");
    // Another program leaves half an entry, to each of two that were opened.
    for number in [0, last] {
        let oplog = bench.path_of(&cores[number], "oplog");
        let mut bytes = fs::read(&oplog).unwrap();
        bytes.extend([1; 7]);
        fs::write(&oplog, bytes).unwrap();
        drop(open(number));
        assert!(bench.syncs().0 >= 4, "it is not as it was left");
    }
}

/// Goal: of a core on another file system, and of one that another program changed before it was opened, nobody knows.
#[test]
fn a_sync_of_all_covers_what_was_there_alone() {
    let (mut bench, cores) = Bench::of_cores();
    bench.let_time_pass();
    let store = bench.open_synced();
    let open = |number: usize| store.get_by_discovery_key(&cores[number]).unwrap().unwrap();
    (0..=ALONE_MAX).for_each(|number| drop(open(number)));
    bench.syncs();
    let data = bench.path_of(&cores[ALONE_MAX + 1], "data");
    let elsewhere = bench.directory.path().join("elsewhere");
    fs::rename(&data, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &data).unwrap();
    let (long_ago, no_follow) = (TimeSpec::new(0, 0), UtimensatFlags::NoFollowSymlink);
    utimensat(AT_FDCWD, &data, &long_ago, &long_ago, no_follow).unwrap();
    let tree = bench.path_of(&cores[ALONE_MAX + 2], "tree");
    File::options()
        .write(true)
        .open(tree)
        .unwrap()
        .set_modified(SystemTime::now())
        .unwrap();
    for number in [ALONE_MAX + 1, ALONE_MAX + 2] {
        drop(open(number));
        assert!(bench.syncs().0 > 0, "core {number}");
    }
    drop(open(ALONE_MAX + 3));
    assert_eq!(bench.syncs(), (0, 0));
}
