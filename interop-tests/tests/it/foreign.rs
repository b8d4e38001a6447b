//! Goal: the crate `hypercore` 0.17 alpha reads what we wrote, we read what it wrote, and both go on
//! from there. It knows compat cores of up to 32,768 blocks, without forks. Over a connection: `wire`.
//! Method: `foreign/`, a program in a workspace of its own, works on a core's directory while our
//! store is closed.
#![cfg(unix)]

mod wire;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::exceptions::Exceptions;
use bytes::Bytes;
use ferrocore_log::{Core, CoreOptions, Corestore, StoreOptions};
use ferrocore_primitives::keys::Key;
use serde_json::Value;

/// The most blocks that the crate can open.
const LENGTH_MAX: u64 = 32_768;

/// A soak makes it the longest log that the crate can open: it reads slowly.
#[test]
fn the_crate_reads_what_we_appended() {
    let is_soak = std::env::var_os("FERROCORE_HISTORIES").is_some();
    let length = if is_soak { LENGTH_MAX } else { 3_000 };
    let scratch = tempfile::tempdir().unwrap();
    let (store, key) = made_by_the_crate(scratch.path(), 1, 3);
    let core = open(&store, &key);
    core.append_batch(vec![Bytes::new(), Bytes::from(vec![7; 9_000])])
        .unwrap();
    let numbers = (core.length()..length).map(|i| Bytes::from(i.to_string()));
    core.append_batch(numbers.collect()).unwrap();
    core.clear(5..900).unwrap();
    let expected = blocks(&core);
    drop(core);
    let place = directory(&store, &key);
    assert_eq!(foreign(&["read", &place])["blocks"], expected);
    foreign(&["clear", &place, "1000", "1010"]);
    let core = open(&store, &key);
    assert_eq!(core.get_local(1005).unwrap(), None);
    assert_eq!(core.get_local(1010).unwrap().unwrap(), "1010");
    assert_eq!(core.length(), length);
}

#[test]
fn what_the_crate_cannot_open_is_known() {
    let scratch = tempfile::tempdir().unwrap();
    let mut exceptions = Exceptions::read("crate");
    let store = Corestore::open(scratch.path(), StoreOptions::default()).unwrap();
    let options = CoreOptions {
        name: Some("log".to_owned()),
        compat: true,
        ..CoreOptions::default()
    };
    let key = store.get_with(options).unwrap().key();
    drop(store);
    let output = run(&["read", &directory(scratch.path(), &key)]);
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Unknown manifest version 1") {
        exceptions.meet("header: the crate knows no manifest of version 1");
    }
    exceptions.check();
}

#[test]
fn we_read_what_the_crate_wrote_and_go_on_by_turns() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, key) = made_by_the_crate(scratch.path(), 9, 17);
    let place = directory(&store, &key);
    let written = foreign(&["read", &place]);
    assert_eq!(written["length"], 9 * 17);
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

/// A store with a core in it that the crate made.
fn made_by_the_crate(scratch: &Path, batches: u64, size: u64) -> (PathBuf, Key) {
    let made = scratch.join("made");
    let [batches, size] = [batches, size].map(|number| number.to_string());
    let written = foreign(&["write", made.to_str().unwrap(), &batches, &size]);
    let key: Key = written["key"].as_str().unwrap().parse().unwrap();
    let store = scratch.join("store");
    drop(Corestore::open(&store, StoreOptions::default()).unwrap());
    let place = directory(&store, &key);
    std::fs::create_dir_all(Path::new(&place).parent().unwrap()).unwrap();
    std::fs::rename(&made, &place).unwrap();
    (store, key)
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
    let blocks = (0..core.length()).map(|index| core.get_local(index).unwrap());
    let texts = blocks.map(|block| block.map(|block| text(&block)));
    texts.map(Value::from).collect()
}

/// A block as the program prints it.
fn text(block: &[u8]) -> String {
    match block {
        [first, ..] if block.len() > 64 && block.iter().all(|byte| byte == first) => {
            format!("{}*{first:02x}", block.len())
        }
        block => block.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn foreign(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
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
