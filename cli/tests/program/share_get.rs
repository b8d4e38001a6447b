//! Goal: a folder goes from one store to another over TCP, whole, in part, again, live, and after
//! either side was killed. Method: two processes on loopback, folders compared.
#![cfg(unix)]

use crate::common::{Bench, files, noise};

fn sample(bench: &Bench) {
    bench.write("in/read me.txt", "hello\n");
    bench.write("in/empty", "");
    bench.write("in/a/b/c.bin", noise(300_000, 1));
    bench.write("in/a/ü#%?.txt", "odd");
    std::os::unix::fs::symlink("a/b/c.bin", bench.path("in/link")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let script = bench.write("in/run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_crosses_and_a_second_run_fetches_nothing() {
    let bench = Bench::new();
    sample(&bench);
    let (share, link, address) = bench.share("s1", "in");
    let get = ["get", &link, "out", "--peer", &address, "--json"];
    let first = bench.run("s2", &get).expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = bench
        .path("out/run.sh")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o100, 0o100);
    let (resolved, done) = (first.event("resolved"), first.event("done"));
    assert_eq!(resolved["files"], 6);
    assert_eq!(
        (&done["files"], &done["bytes"]),
        (&resolved["files"], &resolved["bytes"])
    );
    assert!(done["blocks_fetched"].as_u64().unwrap() >= 5);
    assert_eq!(done["blocks_have"], 0);

    let second = bench.run("s2", &get).expect(0);
    assert_eq!(second.event("done")["blocks_fetched"], 0);
    let ended = share.interrupt().expect(0);
    assert_eq!(ended.event("ready")["link"], link.as_str());
}

#[test]
fn the_same_folder_keeps_its_key_and_a_new_one_is_new() {
    let bench = Bench::new();
    sample(&bench);
    let (share, link, _) = bench.share("s", "in");
    share.interrupt().expect(0);
    let (share, again, _) = bench.share("s", "./in/../in/");
    assert_eq!(link, again);
    share.interrupt().expect(0);

    let mut other = bench.start("s", &["share", "in", "--new", "--name", "other"]);
    assert_ne!(other.wait("ready")["link"], link.as_str());
    other.interrupt().expect(0);
    bench.write("elsewhere/x", "x");
    bench
        .run("s", &["share", "elsewhere", "--name", "other"])
        .expect(2);
    bench.run("s", &["share", "missing"]).expect(3);
    bench.run("s", &["share", "in/empty"]).expect(2);
}

#[test]
fn parts_and_versions_can_be_fetched() {
    let bench = Bench::new();
    sample(&bench);
    let (share, link, address) = bench.share("s1", "in");
    let get = |extra: &[&str]| {
        let mut arguments = vec!["get"];
        arguments.extend(extra);
        arguments.extend(["--peer", &address, "--json"]);
        bench.run("s2", &arguments)
    };
    let folder = format!("{link}/a/b");
    get(&[&folder, "part"]).expect(0);
    assert_eq!(files(&bench.path("part")).len(), 1);
    get(&[&link, "globs", "--path", "*.txt", "--path", "empty"]).expect(0);
    assert_eq!(files(&bench.path("globs")).len(), 3);
    get(&[&format!("{link}/no/such"), "x"]).expect(3);
    get(&[&link, "x", "--path", "*.jpg"]).expect(3);
    get(&[&link, "x", "--at", "999"]).expect(3);
    get(&[&format!("{link}+1"), "old"]).expect(0);
    assert_eq!(files(&bench.path("old")).len(), 0);
    get(&[&link, "x", "--path", "[a"]).expect(2);
    drop(share);
}

#[test]
fn local_files_are_kept_unless_they_may_be_replaced() {
    let bench = Bench::new();
    sample(&bench);
    let (_share, link, address) = bench.share("s1", "in");
    bench.write("out/read me.txt", "mine\n");
    bench.write("out/extra", "mine too\n");
    let get = ["get", &link, "out", "--peer", &address, "--json"];
    let kept = bench.run("s2", &get).expect(8);
    assert_eq!(kept.event("skipped")["path"], "read me.txt");
    assert_eq!(kept.event("error")["kind"], "partial");
    assert_eq!(
        std::fs::read(bench.path("out/read me.txt")).unwrap(),
        b"mine\n"
    );

    let replace = [&get[..], &["--overwrite", "--prune"]].concat();
    bench.run("s2", &replace).expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
}

#[test]
fn changes_are_followed_on_both_sides() {
    let bench = Bench::new();
    sample(&bench);
    let (mut share, link, address) = bench.share("s1", "in");
    let mut get = bench.start("s2", &["get", &link, "out", "--live", "--peer", &address]);
    get.wait("synced");
    bench.write("in/new/file", "late");
    std::fs::remove_file(bench.path("in/empty")).unwrap();
    get.wait_for("the new file", |event| {
        event["op"] == "add" && event["path"] == "/new/file"
    });
    get.wait("synced");
    let is_equal = || files(&bench.path("in")) == files(&bench.path("out"));
    while !is_equal() {
        get.wait("synced");
    }
    share.wait("version");
    get.interrupt().expect(0);
    share.signal("TERM");
    share.finish().expect(0);
}

/// Goal: either side keeps to the rate it was given. Method: a limit can only make it slower, so that what it takes
/// has a least, however busy the machine is.
#[test]
fn a_limit_holds_on_either_side() {
    let bench = Bench::new();
    bench.write("in/data", noise(900_000, 6));
    for (name, up, down) in [("up", "300K", "100M"), ("down", "100M", "300K")] {
        let store = format!("shared-{name}");
        let listen = ["share", "in", "--listen", "127.0.0.1:0", "--up", up];
        let mut share = bench.start(&store, &listen);
        let ready = share.wait("ready");
        let [link, address] = ["link", "listen"].map(|field| ready[field].as_str().unwrap());
        let (out, reader) = (format!("out-{name}"), format!("got-{name}"));
        let begun = std::time::Instant::now();
        bench
            .run(
                &reader,
                &["get", link, &out, "--peer", address, "--down", down],
            )
            .expect(0);
        // A burst and what the sockets hold take less than half a second.
        let took = begun.elapsed().as_secs_f64();
        assert!(took > 2.4, "{name}: {took} s for 900 kB at 300 kB/s");
        assert_eq!(files(&bench.path("in")), files(&bench.path(&out)));
        share.interrupt().expect(0);
    }
}

/// Goal: what was fetched before a kill is not fetched again. Method: a slow transfer, killed in
/// the middle, then run again.
#[test]
fn a_killed_get_is_resumed() {
    let bench = Bench::new();
    bench.write("in/large", noise(8 << 20, 3));
    let (_share, link, address) = bench.share("s1", "in");
    let mut get = bench.start(
        "s2",
        &[
            "get", &link, "out", "--peer", &address, "--down", "3M", "-v",
        ],
    );
    get.wait_for("some bytes", |event| {
        event["event"] == "progress" && event["bytes"].as_u64() > Some(0)
    });
    get.kill();
    let done = bench
        .run("s2", &["get", &link, "out", "--peer", &address, "--json"])
        .expect(0)
        .event("done");
    assert!(done["blocks_have"].as_u64().unwrap() > 0, "{done}");
    assert_eq!(
        done["blocks_have"].as_u64().unwrap() + done["blocks_fetched"].as_u64().unwrap(),
        128
    );
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
}

#[test]
fn a_killed_share_is_found_again() {
    let bench = Bench::new();
    bench.write("in/large", noise(8 << 20, 4));
    let (share, link, address) = bench.share("s1", "in");
    let mut get = bench.start(
        "s2",
        &["get", &link, "out", "--peer", &address, "--down", "4M"],
    );
    get.wait("resolved");
    share.kill();
    let mut share = bench.start("s1", &["share", "in", "--listen", &address]);
    assert_eq!(share.wait("ready")["link"], link.as_str());
    get.finish().expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
}

#[test]
fn an_interrupted_get_says_so_and_is_resumed() {
    let bench = Bench::new();
    bench.write("in/large", noise(4 << 20, 5));
    let (_share, link, address) = bench.share("s1", "in");
    let mut get = bench.start(
        "s2",
        &["get", &link, "out", "--peer", &address, "--down", "300K"],
    );
    get.wait("resolved");
    let ended = get.interrupt().expect(130);
    assert_eq!(ended.event("error")["kind"], "interrupted");
    bench
        .run("s2", &["get", &link, "out", "--peer", &address])
        .expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
}

#[test]
fn names_that_a_drive_cannot_carry_are_skipped() {
    use std::os::unix::ffi::OsStrExt as _;
    let bench = Bench::new();
    bench.write("in/good", "x");
    let bad = std::ffi::OsStr::from_bytes(b"in/b\xffd");
    std::fs::write(bench.path("").join(bad), "x").unwrap();
    let mut share = bench.start("s1", &["share", "in"]);
    assert_eq!(share.wait("ready")["files"], 1);
    let ended = share.interrupt().expect(8);
    ended.event("skipped");
}

/// Goal: who seeds has all of a drive, and serves it when its writer is gone.
#[test]
fn a_seeder_serves_what_its_writer_no_longer_does() {
    let bench = Bench::new();
    sample(&bench);
    let (share, link, address) = bench.share("s1", "in");
    let seed = ["seed", &link, "--peer", &address, "--listen", "127.0.0.1:0"];
    let mut seed = bench.start("s2", &seed);
    let ready = seed.wait("ready");
    let listen = ready["listen"].as_str().unwrap().to_owned();
    // The index, and the bytes.
    let mut synced = std::collections::BTreeSet::new();
    while synced.len() < 2 {
        synced.insert(seed.wait("synced")["key"].to_string());
    }
    share.interrupt().expect(0);
    bench
        .run("s3", &["get", &link, "out", "--peer", &listen])
        .expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
    seed.interrupt().expect(0);
}
