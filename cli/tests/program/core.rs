//! Goal: single logs are written, read and replicated from the command line.
#![cfg(unix)]

use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::common::{Bench, Watchdog, noise};

#[test]
fn blocks_go_in_and_come_out() {
    let bench = Bench::new();
    let created = bench
        .run("s", &["core", "create", "log", "--json"])
        .expect(0)
        .event("core");
    assert_eq!(
        (&created["length"], &created["writable"]),
        (&0.into(), &true.into())
    );
    assert_eq!(created["manifest"]["version"], 1);
    bench.run("s", &["core", "create", "log"]).expect(2);

    bench
        .run_with(
            "s",
            &["core", "append", "log", "--lines"],
            b"one\ntwo\nthree",
        )
        .expect(0);
    let frames = b"\x02\0\0\0\n\n\0\0\0\0";
    bench
        .run_with("s", &["core", "append", "log", "--frames"], frames)
        .expect(0);
    bench.write("file", "from a file");
    let appended = bench
        .run("s", &["core", "append", "log", "file", "--json"])
        .expect(0)
        .event("appended");
    assert_eq!(
        (&appended["length"], &appended["byte_length"]),
        (&6.into(), &24.into())
    );

    assert_eq!(
        bench
            .run("s", &["core", "get", "log", "1"])
            .expect(0)
            .text(),
        "two"
    );
    assert_eq!(
        bench
            .run("s", &["core", "get", "log", "0..2", "--frames"])
            .expect(0)
            .stdout,
        b"\x03\0\0\0one\x03\0\0\0two"
    );
    assert_eq!(
        bench
            .run("s", &["core", "get", "log", ".."])
            .expect(0)
            .text(),
        "onetwothree\n\nfrom a file"
    );
    bench.run("s", &["core", "get", "log", "6"]).expect(3);
    bench.run("s", &["core", "get", "log", "x"]).expect(2);
    bench.run("s", &["core", "get", "nolog", "0"]).expect(3);
    let info = bench
        .run("s", &["core", "info", "log", "--json"])
        .expect(0)
        .event("core");
    assert_eq!(
        (&info["length"], &info["contiguous_length"]),
        (&6.into(), &6.into())
    );
    assert_eq!(info["key"], created["key"]);
    // Every field that a script may rely on.
    let expected = [
        "byte_length",
        "contiguous_length",
        "discovery_key",
        "fork",
        "key",
        "length",
        "manifest",
        "name",
        "tree_hash",
        "writable",
    ];
    for field in expected {
        assert!(info.get(field).is_some(), "{field} in {info}");
    }
}

#[test]
fn a_block_too_large_is_refused_with_a_hint() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    let large = vec![b'x'; 15 * 1024 * 1024 + 1];
    let refused = bench
        .run_with("s", &["core", "append", "log", "--json"], &large)
        .expect(2);
    assert!(
        refused.event("error")["hint"]
            .as_str()
            .unwrap()
            .contains("--lines")
    );
    bench
        .run_with(
            "s",
            &["core", "append", "log", "--frames"],
            b"\xff\xff\xff\xff",
        )
        .expect(2);
    bench
        .run_with("s", &["core", "append", "log"], &large[1..])
        .expect(0);
    assert_eq!(
        bench
            .run("s", &["core", "get", "log", "0"])
            .expect(0)
            .stdout
            .len(),
        large.len() - 1
    );
}

/// Goal: a script that fails knows what was appended, and what to do.
#[test]
fn an_append_that_fails_tells_what_it_appended() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    bench.write("file", "from a file");
    let torn = b"\x01\0\0\0a\x02\0\0\0b";
    let frames = ["core", "append", "log", "--frames", "--json"];
    let refused = bench.run_with("s", &frames, torn).expect(2);
    assert_eq!(refused.event("appended")["length"], 1);
    assert!(refused.event("error")["hint"].is_string());

    // Of several files all or none, as far as that can be told before.
    bench.write("large", vec![b'x'; 15 * 1024 * 1024 + 1]);
    for (other, code) in [("missing", 3), ("large", 2), (".", 7)] {
        let append = ["core", "append", "log", "file", other, "--json"];
        let refused = bench.run("s", &append).expect(code);
        assert!(!refused.text().contains("appended"), "{other}");
    }
    let info = bench.run("s", &["core", "info", "log", "--json"]);
    assert_eq!(info.expect(0).event("core")["length"], 1);
}

/// Goal: each refusal has the code of its kind, and says what to do.
#[test]
fn refusals_say_what_to_do() {
    let bench = Bench::new();
    let created = bench
        .run("s", &["core", "create", "log", "--json"])
        .expect(0);
    let key = created.event("core")["key"].as_str().unwrap().to_owned();
    let lines = ["core", "append", "log", "--lines"];
    bench.run_with("s", &lines, b"one\ntwo\n").expect(0);
    let cut = ["core", "truncate", "log", "1", "--fork", "5", "--yes"];
    bench.run("s", &cut).expect(0);
    for (store, arguments, code) in [
        ("s", &["get", "log", "1"][..], 3),
        ("s", &["get", "log", "0..2"], 3),
        ("s", &["seek", "log", "9"], 3),
        ("s", &["truncate", "log", "2", "--yes"], 3),
        ("s", &["truncate", "log", "0", "--fork", "5", "--yes"], 2),
        (
            "s",
            &["truncate", "log", "0", "--fork", "5", "--dry-run"],
            2,
        ),
        ("s", &["truncate", "log", "0"], 2),
        ("other", &["append", &key], 6),
        ("other", &["truncate", &key, "0", "--yes"], 6),
        ("other", &["truncate", &key, "0", "--dry-run"], 6),
        ("other", &["info", &key], 4),
        ("s", &["info", "nolog"], 3),
        ("s", &["audit", "nolog"], 3),
    ] {
        let arguments = [&["core"], arguments, &["--json", "--no-lan", "--no-dht"]].concat();
        let refused = bench.run(store, &arguments).expect(code).event("error");
        assert_eq!(refused["code"], code, "{arguments:?}");
        assert!(refused["hint"].is_string(), "{arguments:?}: {refused}");
    }
    for last in ["--dry-run", "--yes"] {
        let fork = (1u64 << 53).to_string();
        let cut = [
            "core", "truncate", "log", "0", "--fork", &fork, last, "--json",
        ];
        let refused = bench.run("s", &cut).expect(2).event("error");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("is larger than"), "{message}");
    }
    let info = bench.run("s", &["core", "info", "log", "--json"]);
    assert_eq!(info.expect(0).event("core")["fork"], 5);
}

#[test]
fn logs_are_replicated_live_over_tcp() {
    let bench = Bench::new();
    let key = bench
        .run("s1", &["core", "create", "log", "--json"])
        .expect(0)
        .event("core")["key"]
        .clone();
    let key = key.as_str().unwrap();
    bench
        .run_with("s1", &["core", "append", "log", "--lines"], b"a\nb\n")
        .expect(0);
    let mut writer = bench.start(
        "s1",
        &["core", "replicate", "log", "--listen", "127.0.0.1:0"],
    );
    let ready = writer.wait("ready");
    let address = ready["listen"].as_str().unwrap();
    let mut reader = bench.start("s2", &["core", "replicate", key, "--peer", address]);
    assert_eq!(reader.wait("synced")["length"], 2);
    // Through the holder of the store, while it replicates.
    bench
        .run_with("s1", &["core", "append", "log", "--lines"], b"c\n")
        .expect(0);
    reader.wait_for("three blocks", |event| {
        event["event"] == "synced" && event["length"] == 3
    });
    assert_eq!(
        bench
            .run("s2", &["core", "get", key, ".."])
            .expect(0)
            .text(),
        "abc"
    );
    reader.interrupt().expect(0);
    writer.interrupt().expect(0);
    assert_eq!(
        bench.run("s2", &["core", "get", key, "2"]).expect(0).text(),
        "c"
    );
    bench
        .run_with("s2", &["core", "append", key], b"x")
        .expect(6);
}

/// Goal: a log whose beginning was given up to save space is served like any other.
#[test]
fn a_log_with_cleared_blocks_is_served() {
    let bench = Bench::new();
    let created = bench.run("s1", &["core", "create", "log", "--json"]);
    let key = created.expect(0).event("core")["key"].clone();
    let key = key.as_str().unwrap();
    let lines = ["core", "append", "log", "--lines"];
    bench.run_with("s1", &lines, b"a\nb\nc\n").expect(0);
    let clear = ["core", "clear", "log", "0..1", "--yes"];
    bench.run("s1", &clear).expect(0);
    let serve = ["core", "replicate", "log", "--listen", "127.0.0.1:0"];
    let mut writer = bench.start("s1", &serve);
    let address = writer.wait("ready")["listen"].as_str().unwrap().to_owned();
    let get = ["core", "get", key, "1..3", "--peer", &address];
    assert_eq!(bench.run("s2", &get).expect(0).text(), "bc");
    let get = [
        "core",
        "get",
        key,
        "0",
        "--peer",
        &address,
        "--timeout",
        "2s",
    ];
    bench.run("s2", &get).expect(4);
    writer.interrupt().expect(0);
}

/// Goal: either side keeps to the rate it was given on a pair of pipes, too. Method: as over TCP
/// (`a_limit_holds_on_either_side`), what it takes has a least, however busy the machine is.
#[test]
fn a_limit_holds_over_stdin_and_stdout() {
    let bench = Bench::new();
    let created = bench.run("s1", &["core", "create", "log", "--json"]);
    let key = created.expect(0).event("core")["key"].clone();
    let key = key.as_str().unwrap();
    bench.write("block", noise(300_000, 8));
    let append = ["core", "append", "log", "block", "block", "block"];
    bench.run("s1", &append).expect(0);
    for (name, up, down) in [("up", "300K", "100M"), ("down", "100M", "300K")] {
        let store = format!("reader-{name}");
        let (near, far) = UnixStream::pair().unwrap();
        let serve = ["core", "replicate", "log", "--initiator", "--up", up];
        let fetch = ["core", "replicate", key, "--json", "--down", down];
        let begun = Instant::now();
        let mut writer = bench.start_on("s1", &serve, near);
        let mut reader = bench.start_on(&store, &fetch, far);
        let _watchdogs = (Watchdog::of(&writer), Watchdog::of(&reader));
        let stderr = std::io::BufReader::new(reader.stderr.take().unwrap());
        let mut lines = std::io::BufRead::lines(stderr).map(Result::unwrap);
        assert!(lines.any(|line| line.contains("\"synced\"") && line.contains(r#""length":3"#)));
        // A burst and what the sockets hold take less than a second.
        let took = begun.elapsed().as_secs_f64();
        assert!(took > 2.0, "{name}: {took} s for 900 kB at 300 kB/s");
        writer.kill().unwrap();
        writer.wait().unwrap();
        assert_eq!(reader.wait().unwrap().code(), Some(0));
    }
}

/// Goal: a block that takes longer than `--timeout` to come is waited for while it is on its way. Method: a writer that sends slowly.
#[test]
fn a_block_on_its_way_is_no_silence() {
    let bench = Bench::new();
    let created = bench.run("s1", &["core", "create", "log", "--json"]);
    let key = created.expect(0).event("core")["key"].clone();
    let key = key.as_str().unwrap();
    let block = noise(4_000_000, 9);
    bench.write("block", &block);
    let append = ["core", "append", "log", "block"];
    bench.run("s1", &append).expect(0);
    let serve = ["core", "replicate", "log", "--listen", "127.0.0.1:0"];
    let serve = [&serve[..], &["--up", "400K"]].concat();
    let mut writer = bench.start("s1", &serve);
    let address = writer.wait("ready")["listen"].as_str().unwrap().to_owned();
    let get = ["core", "get", key, "0", "--peer", &address];
    let begun = Instant::now();
    let got = bench.run("s2", &[&get[..], &["--timeout", "5s"]].concat());
    assert!(got.expect(0).stdout == block);
    let took = begun.elapsed().as_secs_f64();
    assert!(took > 8.0, "{took} s for 4 MB at 400 kB/s");
    writer.interrupt().expect(0);
}

/// Goal: two processes whose stdin and stdout are joined replicate. Method: socket pairs.
#[test]
fn logs_are_replicated_over_stdin_and_stdout() {
    let bench = Bench::new();
    let key = bench
        .run("s1", &["core", "create", "log", "--json"])
        .expect(0)
        .event("core")["key"]
        .clone();
    let key = key.as_str().unwrap();
    bench
        .run_with("s1", &["core", "append", "log", "--lines"], b"a\nb\n")
        .expect(0);
    let (near, far) = UnixStream::pair().unwrap();
    let mut writer = bench.start_on("s1", &["core", "replicate", "log", "--initiator"], near);
    let mut reader = bench.start_on("s2", &["core", "replicate", key, "--json"], far);
    let _watchdogs = (Watchdog::of(&writer), Watchdog::of(&reader));
    let stderr = std::io::BufReader::new(reader.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map(Result::unwrap);
    assert!(lines.any(|line| line.contains(r#""peer""#) && line.contains(r#""connected""#)));
    assert!(lines.any(|line| line.contains("\"synced\"")));
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(
        reader.wait().unwrap().code(),
        Some(0),
        "everything was there when the stream ended"
    );
    assert!(lines.any(|line| line.contains(r#""disconnected""#)));
    assert_eq!(
        bench
            .run("s2", &["core", "get", key, ".."])
            .expect(0)
            .text(),
        "ab"
    );
}

/// Goal: a log as hypercore 10 makes it: its key is its signer's.
#[test]
fn a_key_can_be_the_public_key() {
    let bench = Bench::new();
    let create = ["core", "create", "old", "--public-key-is-key", "--json"];
    let core = bench.run("s", &create).expect(0).event("core");
    assert_eq!(core["manifest"]["compat"], true);
    assert_eq!(core["manifest"]["signers"][0]["public_key"], core["key"]);
    let append = ["core", "append", "old", "--lines"];
    bench.run_with("s", &append, b"a\nb\n").expect(0);
    let info = bench.run("s", &["core", "info", "old", "--json"]);
    assert_eq!(info.expect(0).event("core")["length"], 2);
    let other = bench.run("s", &["core", "create", "new", "--json"]);
    assert_eq!(other.expect(0).event("core")["manifest"]["compat"], false);
}
