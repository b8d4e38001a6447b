//! Goal: single logs are followed, cut, cleared and audited, and the space they take is told and
//! given back.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::common::{Bench, Watchdog};
use serde_json::{Value, json};

/// A store `s` with a log `log` of these blocks; returns what tells of the log.
fn with_log(bench: &Bench, lines: &[u8]) -> Value {
    let created = bench.run("s", &["core", "create", "log", "--json"]);
    let created = created.expect(0).event("core");
    append(bench, lines);
    created
}

fn append(bench: &Bench, lines: &[u8]) {
    let arguments = ["core", "append", "log", "--lines"];
    bench.run_with("s", &arguments, lines).expect(0);
}

fn directory(bench: &Bench, core: &Value) -> PathBuf {
    let name = core["discovery_key"].as_str().unwrap();
    let (first, second) = (&name[..2], &name[2..4]);
    bench.path(&format!("s/corestore/cores/{first}/{second}/{name}"))
}

/// What the file system says that a folder takes.
fn allocated(path: &Path) -> u64 {
    let metadata = std::fs::metadata(path).unwrap();
    let below = metadata.is_dir().then(|| std::fs::read_dir(path).unwrap());
    let below = below.into_iter().flatten();
    let below: u64 = below.map(|entry| allocated(&entry.unwrap().path())).sum();
    512 * metadata.blocks() + below
}

fn length(bench: &Bench) -> Value {
    let info = bench.run("s", &["core", "info", "log", "--json"]);
    info.expect(0).event("core")["length"].clone()
}

#[test]
fn a_byte_is_found() {
    let bench = Bench::new();
    with_log(&bench, b"one\ntwo\nthree\n");
    let found = bench.run("s", &["core", "seek", "log", "4", "--json"]);
    let found = found.expect(0).event("seek");
    assert_eq!((&found["index"], &found["offset"]), (&json!(1), &json!(1)));
    bench.run("s", &["core", "seek", "log", "12"]).expect(3);
}

#[test]
fn a_log_is_cut_only_by_who_agrees() {
    let bench = Bench::new();
    with_log(&bench, b"a\nb\nc\nd\n");
    let truncate = ["core", "truncate", "log", "2", "--json"];
    bench.run("s", &truncate).expect(2);
    let dry = bench.run("s", &[&truncate[..], &["--dry-run"]].concat());
    let dry = dry.expect(0).event("truncated");
    assert_eq!((&dry["fork"], &dry["dry_run"]), (&json!(1), &json!(true)));
    assert_eq!(length(&bench), 4);
    let cut = bench.run_with("s", &truncate, b"y\n").expect(0);
    let cut = cut.event("truncated");
    assert_eq!((&cut["length"], &cut["fork"]), (&json!(2), &json!(1)));
    let again = [
        "core", "truncate", "log", "1", "--fork", "7", "--yes", "--json",
    ];
    let cut = bench.run("s", &again).expect(0).event("truncated");
    assert_eq!((&cut["length"], &cut["fork"]), (&json!(1), &json!(7)));
    bench
        .run("s", &["core", "truncate", "log", "5", "--yes"])
        .expect(3);
    append(&bench, b"e\n");
    let all = bench.run("s", &["core", "get", "log", ".."]).expect(0);
    assert_eq!(all.text(), "ae");
}

#[test]
fn cleared_blocks_give_their_space_back() {
    let bench = Bench::new();
    let core = with_log(&bench, &[&[b'x'; 1 << 20][..], b"\nend\n"].concat());
    bench.run("s", &["core", "audit", "log"]).expect(0); // leaves nothing in the journal
    let before = allocated(&directory(&bench, &core));
    bench.run("s", &["core", "clear", "log", "0"]).expect(2);
    let dry = bench.run("s", &["core", "clear", "log", "0", "--dry-run", "--json"]);
    let dry = dry.expect(0).event("freed");
    assert_eq!((&dry["blocks"], &dry["dry_run"]), (&json!(1), &json!(true)));
    let cleared = bench.run("s", &["core", "clear", "log", "0", "--yes", "--json"]);
    let freed = cleared.expect(0).event("freed");
    assert_eq!(freed["blocks"], 1);
    let now = allocated(&directory(&bench, &core));
    assert_eq!(freed["bytes"].as_u64().unwrap(), before - now);
    assert!(before - now > 1_000_000, "{before} - {now}");
    let last = bench.run("s", &["core", "get", "log", "1"]).expect(0);
    assert_eq!(last.text(), "end");
    bench.run("s", &["core", "get", "log", "0"]).expect(4);
}

#[test]
fn blocks_that_are_cut_off_give_their_space_back() {
    let bench = Bench::new();
    with_log(
        &bench,
        &[&b"first\n"[..], &[b'x'; 1 << 20], b"\nend\n"].concat(),
    );
    let taken = || {
        let shown = bench.run("s", &["du", "log", "--json"]).expect(0);
        shown.event("usage")["bytes"].as_u64().unwrap()
    };
    let before = taken();
    let cut = ["core", "truncate", "log", "1", "--yes"];
    bench.run("s", &cut).expect(0);
    let now = taken();
    assert!(before > now + 1_000_000, "{before}, then {now}");
    let first = bench.run("s", &["core", "get", "log", "0"]).expect(0);
    assert_eq!(first.text(), "first");
}

/// Goal: the last blocks are written, then those that another process appends meanwhile.
#[test]
fn the_end_of_a_log_is_followed() {
    let bench = Bench::new();
    with_log(&bench, b"a\nb\nc\n");
    let last = bench
        .run("s", &["core", "tail", "log", "-n", "2"])
        .expect(0);
    assert_eq!(last.text(), "b\nc\n");
    let arguments = [
        "core",
        "tail",
        "log",
        "-n",
        "1",
        "--follow",
        "--timeout",
        "1ms",
    ];
    let mut follower = bench.command("s", &arguments).spawn().unwrap();
    let _watchdog = Watchdog::of(&follower);
    let stdout = BufReader::new(follower.stdout.take().unwrap());
    let mut lines = stdout.lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("c"));
    append(&bench, b"d\ne\n"); // through the follower, which holds the store
    assert_eq!(lines.next().as_deref(), Some("d"));
    assert_eq!(lines.next().as_deref(), Some("e"));
    bench
        .run("s", &["core", "truncate", "log", "1", "--yes"])
        .expect(0);
    append(&bench, b"f\n");
    assert_eq!(lines.next().as_deref(), Some("f"));
    let pid = follower.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-s", "INT", &pid])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn damage_is_named_and_repaired() {
    let bench = Bench::new();
    let core = with_log(&bench, b"one\ntwo\nthree\nfour\n");
    let audit = ["core", "audit", "log", "--json"];
    let report = bench.run("s", &audit).expect(0).event("audit");
    assert_eq!((&report["blocks"], &report["bad"]), (&json!(4), &json!(0)));
    let flip = |file: &str, at: usize| {
        let path = directory(&bench, &core).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip("data", 4);
    flip("tree", 5 * 40 + 9);
    let told = bench.run("s", &audit).expect(7);
    assert_eq!(told.event("audit")["bad"], 2);
    let lines = String::from_utf8_lossy(&told.stdout).into_owned() + &told.stderr;
    for (what, start) in [("block", 1), ("node", 5)] {
        let is_told = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            event["event"] == "damaged" && event["what"] == what && event["start"] == start
        };
        assert!(lines.lines().any(is_told), "{what} {start} in {lines}");
    }
    bench
        .run("s", &[&audit[..], &["--repair"]].concat())
        .expect(7);
    let report = bench.run("s", &audit).expect(0).event("audit");
    assert_eq!((&report["blocks"], &report["bad"]), (&json!(3), &json!(0)));
}

/// Goal: a log one of whose roots is damaged is refused with what to do; an audit names the root, and mends it.
#[test]
fn damaged_roots_are_named_and_repaired() {
    let bench = Bench::new();
    let core = with_log(&bench, b"one\ntwo\nthree\nfour\nfive\nsix\nseven\n");
    let audit = ["core", "audit", "log", "--json"];
    bench.run("s", &audit).expect(0); // leaves nothing in the journal
    let path = directory(&bench, &core).join("tree");
    let sound = std::fs::read(&path).unwrap();
    for (root, at) in [(3, 9), (9, 0), (12, 7), (12, 39)] {
        let mut tree = sound.clone();
        tree[root * 40 + at] ^= 1;
        std::fs::write(&path, &tree).unwrap();
        let get = ["core", "get", "log", "..", "--json"];
        let refused = bench.run("s", &get).expect(7).event("error");
        let hint = refused["hint"].as_str().unwrap();
        assert!(hint.contains("fcore core audit --repair"), "{refused}");
        for (repair, bad) in [(false, 1), (false, 1), (true, 1), (false, 0)] {
            let arguments = [&audit[..], if repair { &["--repair"] } else { &[] }].concat();
            let told = bench.run("s", &arguments);
            let told = told.expect(if bad == 0 { 0 } else { 7 });
            let report = told.event("audit");
            let found = ["blocks", "bad", "mendable"].map(|field| &report[field]);
            assert_eq!(found, [&json!(7), &json!(bad), &json!(bad)], "root {root}");
            if bad > 0 {
                let named = told.event("damaged");
                let named = ["what", "start", "repaired"].map(|field| &named[field]);
                assert_eq!(named, [&json!("node"), &json!(root), &json!(repair)]);
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), sound);
        let all = bench.run("s", &["core", "get", "log", ".."]).expect(0);
        assert_eq!(all.text(), "onetwothreefourfivesixseven");
    }
}

/// Goal: where nothing is left that proves a root, the head is named, nothing is repaired, and what is left to do is said.
#[test]
fn a_log_that_nothing_proves_is_told_as_that() {
    let bench = Bench::new();
    let core = with_log(&bench, b"one\ntwo\n");
    bench.run("s", &["core", "audit", "log"]).expect(0);
    let path = directory(&bench, &core).join("tree");
    std::fs::write(&path, [0; 3 * 40]).unwrap();
    for repair in [&[][..], &["--repair"]] {
        let arguments = [&["core", "audit", "log", "--json"], repair].concat();
        let told = bench.run("s", &arguments).expect(7);
        assert_eq!(told.event("audit")["mendable"], 0);
        assert_eq!(told.event("damaged")["what"], "head");
        let hint = told.event("error")["hint"].clone();
        assert!(hint.as_str().unwrap().contains("a copy"), "{hint}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), [0; 3 * 40]);
    bench.run("s", &["purge", "log", "--yes"]).expect(0);
}

#[test]
fn space_is_told_and_a_log_is_purged() {
    let bench = Bench::new();
    let core = with_log(&bench, &[b'x'; 1 << 20]);
    let path = directory(&bench, &core);
    let usage = bench.run("s", &["du", "--json"]).expect(0).event("usage");
    assert_eq!(usage["name"], "log");
    assert_eq!(usage["bytes"].as_u64().unwrap(), allocated(&path));
    bench.run("s", &["purge", "log"]).expect(2);
    let dry = bench.run("s", &["purge", "log", "--dry-run", "--json"]);
    let dry = dry.expect(0).event("freed");
    assert_eq!(
        (&dry["bytes"], &dry["blocks"], &dry["dry_run"]),
        (&usage["bytes"], &json!(1), &json!(true))
    );
    assert!(path.exists());
    let mut follower = bench.command("s", &["core", "tail", "log", "-f"]);
    let mut follower = follower.spawn().unwrap();
    let _watchdog = Watchdog::of(&follower);
    let mut line = String::new();
    let mut stdout = BufReader::new(follower.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    bench.run("s", &["purge", "log", "--yes"]).expect(7);
    follower.kill().unwrap();
    follower.wait().unwrap();
    let purged = bench.run("s", &["purge", "log", "--yes", "--json"]);
    let freed = purged.expect(0).event("freed");
    assert_eq!(
        (&freed["bytes"], &freed["blocks"]),
        (&usage["bytes"], &json!(1))
    );
    assert!(!path.exists());
    bench.run("s", &["core", "info", "log"]).expect(3);
}

/// Goal: what is deleted for good leaves no key of it behind, and that is said before.
#[test]
fn a_log_is_purged_with_its_encryption_key() {
    let bench = Bench::new();
    let create = |name| {
        let create = ["core", "create", name, "--encrypt", "--json"];
        let created = bench.run("s", &create).expect(0).event("core");
        let name = created["discovery_key"].as_str().unwrap();
        bench.path(&format!("s/keys/{name}.encryption"))
    };
    let (key, other) = (create("log"), create("other"));
    append(&bench, b"one\n");
    let dry = bench.run("s", &["purge", "log", "--dry-run"]).expect(0);
    assert!(dry.stderr.contains("key that decrypts"), "{}", dry.stderr);
    assert!(key.exists());
    let purged = bench.run("s", &["purge", "log", "--yes", "--json"]);
    assert_eq!(purged.expect(0).event("freed")["encryption"], 1);
    assert!(!key.exists() && other.exists());
    bench.run("s", &["core", "create", "log"]).expect(0);
    append(&bench, b"plain\n");
    let read = bench.run("s", &["core", "get", "log", "0"]).expect(0);
    assert_eq!(read.text(), "plain");
}

#[test]
fn a_drive_is_purged_with_its_bytes() {
    let bench = Bench::new();
    bench.write("folder/file", vec![7; 1 << 20]);
    let (share, _, _) = bench.share("s", "./folder");
    bench.run("s", &["purge", "folder", "--yes"]).expect(7);
    share.interrupt().expect(0);
    let purged = bench.run("s", &["purge", "folder", "--yes", "--json"]);
    let freed = purged.expect(0).event("freed")["bytes"].as_u64().unwrap();
    assert!(freed > 1 << 20, "{freed}");
    assert!(bench.run("s", &["du"]).expect(0).text().is_empty());
}

/// Goal: a core that cannot be read is named with the reason by every command that lists cores, and hides no
/// other; they end with the code of what is done in part. It can be deleted by the name that it has left.
#[test]
fn what_is_damaged_is_listed_beside_the_rest() {
    let bench = Bench::new();
    let damaged = with_log(&bench, b"gone\n");
    bench.run("s", &["core", "create", "other"]).expect(0);
    let path = directory(&bench, &damaged);
    std::fs::write(path.join("oplog"), [7; 8192]).unwrap();
    let discovery_key = damaged["discovery_key"].as_str().unwrap();
    for (command, event) in [("list", "core"), ("status", "core"), ("du", "usage")] {
        let told = bench.run("s", &[command, "--json"]).expect(8);
        assert_eq!(told.event(event)["name"], "other", "{command}");
        let unreadable = told.event("unreadable");
        let fields = ["discovery_key", "key", "name"].map(|field| &unreadable[field]);
        let expected = [&damaged["discovery_key"], &damaged["key"], &json!("log")];
        assert_eq!((fields, &unreadable["kind"]), (expected, &json!("storage")));
        assert_eq!(unreadable["bytes"], allocated(&path));
        let message = unreadable["message"].as_str().unwrap();
        assert!(message.contains("corrupt in oplog"), "{message}");
        assert!(message.contains(discovery_key), "{message}");
        assert_eq!(told.event("error")["kind"], "partial");
        let words = bench.run("s", &[command]).expect(8).text();
        let rows = ["log: cannot be read: core", "other"];
        assert!(rows.iter().all(|row| words.contains(row)), "{words}");
    }
    let only = |name: &str| bench.run("s", &["du", name]);
    assert!(!only("other").expect(0).text().contains("cannot be read"));
    assert!(only("log").expect(8).text().contains("cannot be read"));
    let secrets = bench.run("s", &["key", "ls", "--json"]).expect(8);
    assert_eq!(secrets.event("secret")["name"], "other");
    assert_eq!(secrets.event("unreadable")["name"], "log");
    let words = bench.run("s", &["key", "backup"]).expect(8);
    assert_eq!(words.text().split_whitespace().count(), 24);

    bench.run("s", &["purge", discovery_key, "--yes"]).expect(0);
    for command in ["list", "status", "du"] {
        bench.run("s", &[command]).expect(0);
    }
    bench.run("s", &["core", "info", "log"]).expect(3);
}

/// Goal: what is too damaged to be opened can be deleted, is said to be damaged, and frees what it took; a drive
/// whose files' core is damaged goes with it.
#[test]
fn what_is_damaged_is_purged() {
    let bench = Bench::new();
    let core = with_log(&bench, &[b'x'; 1 << 20]);
    let path = directory(&bench, &core);
    std::fs::write(path.join("oplog"), [7; 8192]).unwrap();
    bench.run("s", &["core", "get", "log", "0"]).expect(7);
    let bytes = json!(allocated(&path));
    for last in ["--dry-run", "--yes"] {
        let freed = bench.run("s", &["purge", "log", "--json", last]).expect(0);
        let freed = freed.event("freed");
        let found = (&freed["bytes"], &freed["blocks"], &freed["damaged"]);
        assert_eq!(found, (&bytes, &json!(0), &json!(1)), "{last}");
        assert_eq!(path.exists(), last == "--dry-run");
    }

    bench.write("folder/file", vec![7; 1 << 20]);
    let (share, _, _) = bench.share("s", "./folder");
    share.interrupt().expect(0);
    let used = bench.run("s", &["du", "--json"]).expect(0);
    let used: Vec<Value> = used
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let bytes = |usage: &Value| usage["bytes"].as_u64().unwrap();
    let files = used.iter().max_by_key(|usage| bytes(usage)).unwrap();
    let core = find(&bench.path("s/corestore"), |oplog| {
        allocated(oplog.parent().unwrap()) == bytes(files)
    });
    std::fs::write(&core, [7; 8192]).unwrap();
    let all = allocated(&bench.path("s/corestore/cores"));
    let purged = bench.run("s", &["purge", "folder", "--yes"]).expect(0);
    assert!(purged.stderr.contains("is damaged"), "{}", purged.stderr);
    let left = allocated(&bench.path("s/corestore/cores"));
    assert!(all - left > 1 << 20, "{all} {left}");
    assert!(bench.run("s", &["du"]).expect(0).text().is_empty());
}

/// The oplog below `directory` for which `is_it` holds.
fn find(directory: &Path, is_it: impl Fn(&Path) -> bool + Copy) -> PathBuf {
    fn search(directory: &Path, is_it: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
        let mut entries = std::fs::read_dir(directory).unwrap();
        entries.find_map(|entry| {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => search(&path, is_it),
                false => (path.ends_with("oplog") && is_it(&path)).then_some(path),
            }
        })
    }
    search(directory, &is_it).unwrap()
}

/// Goal: what crashes leave behind is told and then freed, as much as the file system says, and
/// nothing else goes.
#[test]
fn what_crashes_left_behind_is_freed() {
    let bench = Bench::new();
    let core = with_log(&bench, b"kept\n");
    bench.run("s", &["core", "audit", "log"]).expect(0);
    let nothing = bench.run("s", &["gc", "--json"]).expect(0).event("freed");
    assert_eq!(nothing["bytes"], 0);
    let kept = directory(&bench, &core);
    let purged = bench.path(&format!(
        "s/corestore/cores/0a/1b/0a1b{}.purged",
        "0".repeat(60)
    ));
    let drafts = bench.path(&format!("s/drafts/{}/first", "1".repeat(64)));
    for directory in [&purged, &drafts] {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("data"), vec![7; 100_000]).unwrap();
    }
    for left_by_node in ["s/corestore/CORESTORE", "s/unknown"] {
        std::fs::write(bench.path(left_by_node), "x").unwrap();
    }
    std::fs::create_dir(bench.path("s/corestore/db")).unwrap();
    let before = allocated(&bench.path("s"));
    let dry = bench.run("s", &["gc", "--dry-run", "--json"]).expect(0);
    assert_eq!(allocated(&bench.path("s")), before);
    let freed = bench.run("s", &["gc", "--json"]).expect(0).event("freed");
    assert_eq!(dry.event("freed")["bytes"], freed["bytes"]);
    let bytes = freed["bytes"].as_u64().unwrap();
    assert!(bytes > 200_000, "{bytes}");
    assert_eq!(allocated(&bench.path("s")), before - bytes);
    assert!(!purged.exists() && !drafts.exists() && kept.exists());
    for left_by_node in ["s/corestore/CORESTORE", "s/corestore/db", "s/unknown"] {
        assert!(bench.path(left_by_node).exists());
    }
    assert_eq!(length(&bench), 1);
}
