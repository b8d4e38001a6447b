//! Goal: the secrets of a store survive it, are shown to nobody, and bring back logs that are not written
//! before somebody has proven how long they are.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::{Bench, Finished, files};
use serde_json::{Value, json};

const PASSPHRASE: (&str, &str) = ("FCORE_PASSPHRASE", "correct horse");

/// Runs a command that needs a passphrase.
#[track_caller]
fn with_passphrase(bench: &Bench, store: &str, arguments: &[&str]) -> Finished {
    bench.write("passphrase", "correct horse\nanother line\n");
    let file = ["--passphrase-file", "passphrase"];
    bench.run(store, &[arguments, &file].concat())
}

#[track_caller]
fn append(bench: &Bench, store: &str, core: &str, lines: &[u8], more: &[&str]) -> Finished {
    let arguments = [&["core", "append", core, "--lines", "--json"], more].concat();
    bench.run_with(store, &arguments, lines)
}

#[track_caller]
fn info(bench: &Bench, store: &str, core: &str) -> Value {
    let info = bench.run(store, &["core", "info", core, "--json"]);
    info.expect(0).event("core")
}

#[track_caller]
fn key(bench: &Bench, store: &str, core: &str) -> String {
    info(bench, store, core)["key"].as_str().unwrap().to_owned()
}

/// The words of the store's root secret.
#[track_caller]
fn phrase(bench: &Bench, store: &str) -> String {
    let backup = bench.run(store, &["key", "backup", "--json"]).expect(0);
    assert_eq!(backup.event("backup")["phrase"], true);
    assert_eq!(backup.text().split_whitespace().count(), 24);
    backup.text()
}

#[track_caller]
fn fingerprint(bench: &Bench, store: &str) -> Value {
    let listed = bench.run(store, &["key", "ls", "--json"]).expect(0);
    listed.event("root")["fingerprint"].clone()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What `key ls` says of a core.
#[track_caller]
fn secret(bench: &Bench, store: &str, key: &str) -> Option<Value> {
    let listed = bench.run(store, &["key", "ls", "--json"]).expect(0);
    let text = listed.text();
    let mut events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    events.find(|event: &Value| event["event"] == "secret" && event["key"] == key)
}

#[test]
fn words_bring_a_log_back_and_a_peer_frees_it() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    append(&bench, "s", "log", b"one\ntwo\n", &[]).expect(0);
    let (words, log) = (phrase(&bench, "s"), key(&bench, "s", "log"));
    // Somebody reads it.
    let (mut share, address) = serve(&bench, "s", "log");
    let mut reader = bench.start("reader", &["core", "replicate", &log, "--peer", &address]);
    reader.wait("synced");
    reader.interrupt().expect(0);
    share.kill_and_wait();
    let before = info(&bench, "s", "log");
    let root = fingerprint(&bench, "s");
    std::fs::remove_dir_all(bench.path("s")).unwrap();

    let recover = ["key", "recover", "--core", "log", "--json"];
    let recovered = bench.run_with("s", &recover, words.as_bytes());
    assert_eq!(recovered.expect(0).event("recovered")["fingerprint"], root);
    let back = info(&bench, "s", "log");
    assert_eq!((&back["key"], &back["length"]), (&before["key"], &json!(0)));
    assert_eq!(
        (&back["writable"], &back["guarded"]),
        (&json!(true), &json!(true))
    );
    for _ in 0..2 {
        let refused = append(&bench, "s", "log", b"three\n", &[]).expect(6);
        let refused = refused.event("error");
        assert_eq!(refused["kind"], "not_permitted");
        assert!(refused["hint"].as_str().unwrap().contains("--offline"));
    }
    // A peer that has nothing of it helps nobody.
    let (mut empty, address) = serve(&bench, "empty", &log);
    let nobody = ["--peer", &address, "--timeout", "1s"];
    append(&bench, "s", "log", b"three\n", &nobody).expect(6);
    empty.kill_and_wait();

    let (mut reader, address) = serve(&bench, "reader", &log);
    let appended = append(&bench, "s", "log", b"three\n", &["--peer", &address]);
    assert_eq!(appended.expect(0).event("appended")["length"], 3);
    append(&bench, "s", "log", b"four\n", &[]).expect(0);
    let all = bench.run("s", &["core", "get", "log", "..", "--peer", &address]);
    assert_eq!(all.expect(0).text(), "onetwothreefour");
    reader.kill_and_wait();
}

#[test]
fn who_knows_better_need_not_wait() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    let words = phrase(&bench, "s");
    bench
        .run_with("t", &["key", "recover", "--core", "log"], words.as_bytes())
        .expect(0);
    append(&bench, "t", "log", b"one\n", &[]).expect(6);
    bench
        .run("t", &["core", "truncate", "log", "0", "--yes"])
        .expect(6);
    append(&bench, "t", "log", b"one\n", &["--offline"]).expect(0);
    append(&bench, "t", "log", b"two\n", &[]).expect(0);
    // What was never there is guarded, too: who knows?
    bench.run("t", &["core", "create", "new"]).expect(0);
    append(&bench, "t", "new", b"one\n", &[]).expect(6);
    bench
        .run("t", &["core", "create", "other", "--offline"])
        .expect(0);
    append(&bench, "t", "other", b"one\n", &[]).expect(0);
}

#[test]
fn a_file_brings_everything_back() {
    let bench = Bench::new();
    bench.write("folder/file", "content");
    bench.run("s", &["core", "create", "log"]).expect(0);
    bench
        .run("s", &["core", "create", "hidden", "--encrypt"])
        .expect(0);
    let (share, _, _) = bench.share("s", "folder");
    // Through the process that holds the store.
    let backup = ["key", "backup", "--file", "keys.fcore", "--json"];
    let told = with_passphrase(&bench, "s", &backup)
        .expect(0)
        .event("backup");
    assert_eq!(
        (&told["phrase"], &told["encryption"]),
        (&json!(false), &json!(1))
    );
    share.interrupt().expect(0);
    assert_eq!(mode(&bench.path("keys.fcore")), 0o600);
    with_passphrase(&bench, "s", &backup).expect(7); // none is replaced

    let recover = ["key", "recover", "keys.fcore", "--json"];
    with_passphrase(&bench, "t", &recover).expect(0);
    assert_eq!(fingerprint(&bench, "t"), fingerprint(&bench, "s"));
    for name in ["log", "hidden"] {
        assert_eq!(key(&bench, "t", name), key(&bench, "s", name));
        append(&bench, "t", name, b"x\n", &["--offline"]).expect(0);
    }
    let hidden = secret(&bench, "t", &key(&bench, "t", "hidden")).unwrap();
    assert_eq!(
        (&hidden["signs"], &hidden["encryption"]),
        (&json!("derived"), &json!(true))
    );
    bench.write("more", "more");
    bench.run("t", &["put", "more", "folder:/more"]).expect(6);
    bench
        .run("t", &["put", "more", "folder:/more", "--offline"])
        .expect(0);
    let cat = bench.run("t", &["cat", "folder:/more"]).expect(0);
    assert_eq!(cat.text(), "more");
    bench
        .run("t", &["share", "folder", "--name", "fresh", "--once"])
        .expect(6);
}

#[test]
fn what_is_wrong_with_a_backup_is_said() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    let words = phrase(&bench, "s");
    let recover = |words: &str, code| {
        let recovered = bench.run_with("t", &["key", "recover"], words.as_bytes());
        assert!(!bench.path("t").exists(), "nothing was made");
        recovered.expect(code).stderr
    };
    let mut swapped: Vec<&str> = words.split_whitespace().collect();
    let other = swapped.iter().position(|word| *word != swapped[0]).unwrap();
    swapped.swap(0, other);
    recover(&swapped.join(" "), 2);
    recover("", 2);
    let typo = words.replacen(' ', "x ", 1);
    let said = recover(&typo, 2);
    let first = words.split(' ').next().unwrap();
    assert!(said.contains("word 1") && !said.contains(first), "{said}");

    with_passphrase(&bench, "s", &["key", "backup", "--file", "k"]).expect(0);
    let open = |passphrase: &str| {
        let mut command = bench.command("u", &["key", "recover", "k", "--json"]);
        let output = command.env(PASSPHRASE.0, passphrase).output().unwrap();
        output.status.code()
    };
    assert_eq!(open("wrong"), Some(6));
    with_passphrase(&bench, "t", &["key", "recover", "missing"]).expect(3);
    bench.write("odd", "odd");
    with_passphrase(&bench, "t", &["key", "recover", "odd"]).expect(2);
    with_passphrase(&bench, "t", &["key", "import", "k"]).expect(2);
    with_passphrase(&bench, "s", &["key", "export", "log", "--file", "e"]).expect(0);
    with_passphrase(&bench, "t", &["key", "recover", "e"]).expect(2);
    // Nobody to ask, nothing given.
    bench.run("s", &["key", "export", "log"]).expect(2);
    let empty = bench.write("empty", "");
    let empty = empty.to_str().unwrap();
    let export = ["key", "export", "log", "--passphrase-file", empty];
    bench.run("s", &export).expect(2);
    assert_eq!(open(PASSPHRASE.1), Some(0));
}

#[test]
fn no_root_secret_is_destroyed() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    let words = phrase(&bench, "s");
    let recover = |store: &str, more: &[&str]| {
        let arguments = [&["key", "recover"], more].concat();
        bench.run_with(store, &arguments, words.as_bytes())
    };
    bench.run("empty", &["list"]).expect(0);
    let old = fingerprint(&bench, "empty");
    recover("empty", &[]).expect(2);
    assert_eq!(fingerprint(&bench, "empty"), old);
    recover("empty", &["--yes"]).expect(0);
    assert_eq!(fingerprint(&bench, "empty"), fingerprint(&bench, "s"));
    let kept = format!("empty/keys/root-{}", old.as_str().unwrap());
    assert_eq!(mode(&bench.path(&kept)), 0o600);
    bench.run("full", &["core", "create", "log"]).expect(0);
    let old = fingerprint(&bench, "full");
    recover("full", &["--yes"]).expect(2);
    assert_eq!(fingerprint(&bench, "full"), old);
}

#[test]
fn an_exported_log_is_written_elsewhere() {
    let bench = Bench::new();
    bench
        .run("s", &["core", "create", "log", "--encrypt"])
        .expect(0);
    append(&bench, "s", "log", b"one\n", &[]).expect(0);
    let log = key(&bench, "s", "log");
    let export = with_passphrase(&bench, "s", &["key", "export", "log", "--json"]).expect(0);
    assert_eq!(export.event("exported")["key"], json!(log));
    let import = ["key", "import", "--passphrase-file", "passphrase", "--json"];
    let imported = bench.run_with("t", &import, &export.stdout);
    let imported = imported.expect(0).event("imported");
    assert_eq!(
        (&imported["name"], &imported["guarded"]),
        (&json!("log"), &json!(true))
    );
    assert_eq!(secret(&bench, "t", &log).unwrap()["signs"], "imported");
    append(&bench, "t", "log", b"two\n", &[]).expect(6);
    let (mut serving, address) = serve(&bench, "s", "log");
    append(&bench, "t", "log", b"two\n", &["--peer", &address]).expect(0);
    let all = bench.run("t", &["core", "get", "log", "..", "--peer", &address]);
    assert_eq!(all.expect(0).text(), "onetwo");
    serving.kill_and_wait();
    // Again, it changes nothing.
    bench.run_with("t", &import, &export.stdout).expect(0);
    append(&bench, "t", "log", b"three\n", &[]).expect(0);
    // Words alone would not bring it back.
    let told = bench.run("t", &["key", "backup", "--json"]).expect(0);
    assert_eq!(told.event("backup")["not_in_phrase"], 2);
    with_passphrase(&bench, "reader", &["key", "export", &log]).expect(6);
}

/// Goal: a store that lost its root secret says so instead of making another, under which its logs are read only, and
/// takes its words, also where another one has taken its place.
#[test]
fn a_lost_root_secret_is_told_and_recovered_in_place() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    append(&bench, "s", "log", b"one\n", &[]).expect(0);
    bench.run("other", &["core", "create", "log"]).expect(0);
    let (words, others) = (phrase(&bench, "s"), phrase(&bench, "other"));
    let path = bench.path("s/corestore/primary-key");
    let recover = ["key", "recover", "--json"];
    std::fs::write(&path, b"").unwrap();
    for command in [&["list", "--json"][..], &["core", "info", "log", "--json"]] {
        let refused = bench.run("s", command).expect(7).event("error");
        assert_eq!(refused["kind"], "storage");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("primary-key") && message.contains("fcore key recover"));
    }
    let wrong = bench.run_with("s", &recover, others.as_bytes());
    assert_eq!(wrong.expect(2).event("error")["kind"], "usage");
    for other in [
        &b""[..],
        &std::fs::read(bench.path("other/corestore/primary-key")).unwrap(),
    ] {
        std::fs::write(&path, other).unwrap();
        bench.run_with("s", &recover, words.as_bytes()).expect(0);
        let back = info(&bench, "s", "log");
        let told = [&back["length"], &back["writable"], &back["guarded"]];
        assert_eq!(told, [&json!(1), &json!(true), &json!(true)]);
    }
}

/// Goal: a log that lost its oplog is named, and nothing is written in its place.
#[test]
fn a_log_without_its_oplog_is_not_begun_anew() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    append(&bench, "s", "log", b"one\n", &[]).expect(0);
    let log = key(&bench, "s", "log");
    let cores = files(&bench.path("s/corestore/cores"));
    let mut paths = cores.iter().map(|(path, _)| path);
    let oplog = paths.find(|path| path.ends_with("oplog")).unwrap();
    let oplog = bench.path("s/corestore/cores").join(oplog);
    let lose: [fn(&Path) -> std::io::Result<()>; 2] = [
        |oplog| std::fs::write(oplog, b""),
        |oplog| std::fs::remove_file(oplog),
    ];
    for lose in lose {
        lose(&oplog).unwrap();
        let before = files(&bench.path("s/corestore"));
        assert_eq!(
            bench
                .run("s", &["list", "--json"])
                .expect(8)
                .event("unreadable")["key"],
            log
        );
        bench.run("s", &["core", "info", "log"]).expect(7);
        append(&bench, "s", "log", b"two\n", &[]).expect(7);
        assert_eq!(files(&bench.path("s/corestore")), before);
    }
    bench.run("s", &["purge", "log", "--yes"]).expect(0);
}

/// Goal: nothing that commands say or leave behind shows a secret, but for the words themselves.
#[test]
fn secrets_stay_where_they_are() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    let root = std::fs::read(bench.path("s/corestore/primary-key")).unwrap();
    let hex: String = root.iter().map(|byte| format!("{byte:02x}")).collect();
    let says = |arguments: &[&str]| {
        let said = with_passphrase(&bench, "s", arguments).expect(0);
        [said.stdout, said.stderr.into_bytes()].concat()
    };
    let said = [
        bench.run("s", &["key", "ls", "-vv"]).expect(0).stdout,
        says(&["key", "backup", "--file", "b", "-vv"]),
        says(&["key", "export", "log", "-vv"]),
    ];
    let contains =
        |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    for said in said {
        assert!(!contains(&said, hex.as_bytes()) && !contains(&said, b"correct horse"));
    }
    for (path, content) in files(&bench.path("s")) {
        let is_the_key = path == Path::new("corestore/primary-key");
        assert_eq!(contains(&content, &root), is_the_key, "{}", path.display());
        assert!(!contains(&content, b"correct horse"), "{}", path.display());
    }
    assert!(!contains(&std::fs::read(bench.path("b")).unwrap(), &root));
    assert_eq!(mode(&bench.path("s/corestore/primary-key")), 0o600);
}

/// Serves a core on a free port; returns the process and the address.
#[track_caller]
fn serve(bench: &Bench, store: &str, core: &str) -> (Serving, String) {
    let listen = ["core", "replicate", core, "--listen", "127.0.0.1:0"];
    let mut serving = bench.start(store, &listen);
    let address = serving.wait("ready")["listen"].as_str().unwrap().to_owned();
    (Serving(Some(serving)), address)
}

struct Serving(Option<crate::common::Running>);

impl Serving {
    fn kill_and_wait(&mut self) {
        self.0.take().unwrap().kill();
    }
}
