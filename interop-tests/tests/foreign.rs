//! Goal: the crate `hypercore` 0.17 alpha reads what we wrote, we read what it wrote, and both go on
//! from there. It knows compat cores of up to 32,768 blocks, without forks.
//! Method: `foreign/`, a program in a workspace of its own, works on a core's directory while our
//! store is closed.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use bytes::Bytes;
use ferrocore_log::{Core, CoreOptions, Corestore, StoreOptions};
use ferrocore_primitives::keys::Key;
use serde_json::Value;

/// The most blocks that the crate can open.
const LENGTH_MAX: u64 = 32_768;

#[test]
fn the_crate_reads_what_we_wrote_and_back() {
    let scratch = tempfile::tempdir().unwrap();
    let core = compat(scratch.path());
    core.append_batch(vec![
        Bytes::from("one"),
        Bytes::new(),
        Bytes::from(vec![7; 9_000]),
    ])
    .unwrap();
    (0..20).for_each(|i: u8| drop(core.append(vec![i; i.into()]).unwrap()));
    core.clear(5..9).unwrap();
    let directory = directory(scratch.path(), &core.key());
    let expected = blocks(&core);
    drop(core);

    let read = foreign(&["read", &directory]);
    assert_eq!(read["length"], 23);
    assert_eq!(read["blocks"], expected);
    assert_eq!(read["writable"], false, "the header holds no secret");

    let core = compat(scratch.path());
    core.append("one more").unwrap();
    core.clear(0..2).unwrap();
    let expected = blocks(&core);
    drop(core);
    assert_eq!(foreign(&["read", &directory])["blocks"], expected);
    foreign(&["clear", &directory, "10", "12"]);
    let core = compat(scratch.path());
    assert_eq!(core.get_local(10).unwrap(), None);
    assert_eq!(core.get_local(12).unwrap().unwrap(), vec![9; 9]);
    assert_eq!(core.get_local(23).unwrap().unwrap(), "one more");
}

#[test]
fn the_crate_reads_the_longest_log_it_can() {
    let scratch = tempfile::tempdir().unwrap();
    let core = compat(scratch.path());
    let numbers = (0..LENGTH_MAX).map(|i| Bytes::from(i.to_string()));
    core.append_batch(numbers.collect()).unwrap();
    let directory = directory(scratch.path(), &core.key());
    let expected = blocks(&core);
    drop(core);
    assert_eq!(foreign(&["read", &directory])["blocks"], expected);
}

#[test]
fn we_read_what_the_crate_wrote_and_go_on_by_turns() {
    let scratch = tempfile::tempdir().unwrap();
    let made = scratch.path().join("made");
    let written = foreign(&["write", made.to_str().unwrap(), "9", "17"]);
    assert_eq!(written["length"], 9 * 17);
    let key: Key = written["key"].as_str().unwrap().parse().unwrap();

    let store = scratch.path().join("store");
    drop(Corestore::open(&store, StoreOptions::default()).unwrap());
    let place = directory(&store, &key);
    std::fs::create_dir_all(Path::new(&place).parent().unwrap()).unwrap();
    std::fs::rename(&made, &place).unwrap();

    for turn in 0..6 {
        let core = open(&store, &key);
        assert!(
            core.is_writable(),
            "the crate keeps the secret in the header"
        );
        let theirs = format!("theirs {}", turn - 1);
        match turn {
            0 => assert_eq!(blocks(&core), written["blocks"]),
            _ => {
                let last = core.get_local(core.length() - 1).unwrap();
                assert_eq!(last.unwrap(), theirs);
            }
        }
        core.append(format!("ours {turn}")).unwrap();
        let expected = blocks(&core);
        drop(core);
        assert_eq!(foreign(&["read", &place])["blocks"], expected);
        foreign(&["append", &place, &format!("theirs {turn}")]);
    }
    assert_eq!(open(&store, &key).length(), 9 * 17 + 12);
}

fn compat(store: &Path) -> Core {
    let store = Corestore::open(store, StoreOptions::default()).unwrap();
    let options = CoreOptions {
        name: Some("log".to_owned()),
        compat: true,
        ..CoreOptions::default()
    };
    store.get_with(options).unwrap()
}

fn open(store: &Path, key: &Key) -> Core {
    let store = Corestore::open(store, StoreOptions::default()).unwrap();
    store.get(key).unwrap()
}

/// Where the core's files are.
fn directory(store: &Path, key: &Key) -> String {
    let id = key.discovery_key().to_hex();
    let cores = store.join("corestore/cores");
    let path = cores.join(&id[..2]).join(&id[2..4]).join(&id);
    path.to_str().expect("a scratch directory").to_owned()
}

/// The blocks as the program prints them.
fn blocks(core: &Core) -> Value {
    let hex = |block: Bytes| {
        block
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let blocks = (0..core.length()).map(|index| core.get_local(index).unwrap().map(hex));
    blocks.map(Value::from).collect()
}

fn foreign(arguments: &[&str]) -> Value {
    let mut command = Command::new(program());
    let output = command.args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// The program, built at its first use. Builds of other test processes wait for each other.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--locked", "--manifest-path"])
            .arg(home.join("foreign/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target.join("debug/ferrocore-foreign")
    })
}
