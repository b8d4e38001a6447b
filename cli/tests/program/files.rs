//! Goal: the file verbs work on a store, alone and through whoever holds it, with the same output
//! and the same exit codes. Method: every scene is played both ways.
#![cfg(unix)]

use crate::common::{Bench, Running, noise};

/// Plays `scene` on a store that nobody holds, and on one that `share` holds.
fn both_ways(scene: impl Fn(&Bench)) {
    for held in [false, true] {
        let bench = Bench::new();
        bench.write("in/read me.txt", "hello\n");
        bench.write("in/a/b.bin", noise(200_000, 7));
        std::os::unix::fs::symlink("b.bin", bench.path("in/a/link")).unwrap();
        let (share, _, _) = bench.share("s", "in");
        let mut share: Option<Running> = Some(share);
        if !held {
            share.take().unwrap().interrupt().expect(0);
        }
        scene(&bench);
        if let Some(share) = share {
            share.interrupt().expect(0);
            assert!(!bench.path("s/control.sock").exists());
        }
    }
}

#[test]
fn folders_are_listed() {
    both_ways(|bench| {
        assert_eq!(
            bench.run("s", &["ls", "in"]).expect(0).text(),
            "a/\nread me.txt\n"
        );
        assert_eq!(
            bench.run("s", &["ls", "in:/a"]).expect(0).text(),
            "b.bin\nlink\n"
        );
        assert_eq!(
            bench.run("s", &["ls", "-R", "in"]).expect(0).text(),
            "/a/b.bin\n/a/link\n/read me.txt\n"
        );
        let long = bench.run("s", &["ls", "-l", "in:/a"]).expect(0).text();
        assert!(
            long.contains("200000 b.bin") && long.contains("link -> b.bin"),
            "{long}"
        );
        let entry = bench
            .run("s", &["ls", "in:/a/b.bin", "--json"])
            .expect(0)
            .event("entry");
        assert_eq!(
            (&entry["type"], &entry["size"]),
            (&"file".into(), &200_000.into())
        );
        bench.run("s", &["ls", "in:/no"]).expect(3);
        bench.run("s", &["ls", "nobody"]).expect(3);
        bench.run("s", &["ls", "in+99"]).expect(3);
        bench.run("s", &["ls", "./in"]).expect(2);
        bench.run("s", &["ls", "hyper://abc"]).expect(2);
    });
}

#[test]
fn files_are_written_to_stdout_byte_by_byte() {
    both_ways(|bench| {
        let content = noise(200_000, 7);
        assert!(bench.run("s", &["cat", "in:/a/b.bin"]).expect(0).stdout == content);
        assert!(bench.run("s", &["cat", "in:/a/link"]).expect(0).stdout == content);
        let range = bench
            .run("s", &["cat", "in:/a/b.bin", "--range", "65530..131080"])
            .expect(0);
        assert!(range.stdout == content[65_530..131_080]);
        assert!(
            bench
                .run("s", &["cat", "in:/a/b.bin", "--range", "300000.."])
                .expect(0)
                .stdout
                .is_empty()
        );
        let absent = bench.run("s", &["cat", "in:/no", "--json"]).expect(3);
        assert!(absent.stdout.is_empty());
        let error = absent.event("error");
        assert_eq!(
            (&error["code"], &error["kind"]),
            (&3.into(), &"not_found".into())
        );
        bench.run("s", &["cat", "in"]).expect(2);
        bench
            .run("s", &["cat", "in:/a/b.bin", "--range", "9..3"])
            .expect(2);
    });
}

#[test]
fn files_are_put_and_removed() {
    both_ways(|bench| {
        let content = noise(500_000, 9);
        bench
            .run_with("s", &["put", "-", "in:/new/x.bin"], &content)
            .expect(0);
        assert!(bench.run("s", &["cat", "in:/new/x.bin"]).expect(0).stdout == content);
        bench.write("local.txt", "local");
        let put = bench
            .run("s", &["put", "local.txt", "in:/new/", "--json"])
            .expect(0);
        assert_eq!(put.event("change")["path"], "/new/local.txt");
        let version = put.event("version")["seq"].as_u64().unwrap();

        bench.run("s", &["rm", "in:/new"]).expect(3);
        bench.run("s", &["rm", "in:/new/x.bin"]).expect(0);
        bench.run("s", &["cat", "in:/new/x.bin"]).expect(3);
        bench.run("s", &["rm", "-R", "in:/new"]).expect(0);
        bench.run("s", &["ls", "in:/new"]).expect(3);
        let old = format!("in+{version}:/new/x.bin");
        assert!(bench.run("s", &["cat", &old]).expect(0).stdout == content);
        bench.run("s", &["rm", &old]).expect(2);
        bench.run("s", &["put", "-", "in"]).expect(2);
        bench.run("s", &["put", "missing", "in:/x"]).expect(3);
    });
}

#[test]
fn drives_of_others_cannot_be_changed() {
    let bench = Bench::new();
    bench.write("in/x", "x");
    let (_share, link, address) = bench.share("s1", "in");
    let key = link.trim_start_matches("hyper://");
    bench
        .run("s2", &["ls", &link, "--peer", &address])
        .expect(0);
    bench
        .run_with("s2", &["put", "-", &format!("{key}:/y")], b"y")
        .expect(6);
    bench.run("s2", &["rm", &format!("{key}:/x")]).expect(6);
}

#[test]
fn a_guest_can_fetch_through_the_holder() {
    let bench = Bench::new();
    bench.write("in/x", noise(100_000, 2));
    bench.write("other/y", "y");
    let (_there, link, address) = bench.share("s1", "in");
    let (_here, _, _) = bench.share("s2", "other");
    let done = bench
        .run("s2", &["get", &link, "out", "--peer", &address, "--json"])
        .expect(0);
    assert_eq!(done.event("done")["files"], 1);
    assert_eq!(
        crate::common::files(&bench.path("in")),
        crate::common::files(&bench.path("out"))
    );
    bench.run("s2", &["list", "--durability", "sync"]).expect(2);
}

#[test]
fn a_drive_of_ours_is_exported_without_any_peer() {
    both_ways(|bench| {
        bench
            .run("s", &["get", "in", "copy", "--timeout", "2s"])
            .expect(0);
        assert_eq!(
            crate::common::files(&bench.path("in")),
            crate::common::files(&bench.path("copy"))
        );
        // What is equal already counts as ours.
        bench.run("s", &["get", "in"]).expect(0);
    });
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let bench = Bench::new();
    bench.write("in/large", noise(4 << 20, 1));
    bench.share("s", "in").0.interrupt().expect(0);
    let mut cat = bench.command("s", &["cat", "in:/large"]).spawn().unwrap();
    let mut stdout = cat.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0; 100]).unwrap();
    drop(stdout);
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn the_store_is_listed() {
    let bench = Bench::new();
    for command in ["list", "status", "du"] {
        let told = bench.run("empty", &[command]).expect(0);
        assert!(told.text().is_empty() && told.stderr.contains("Nothing"));
    }
    both_ways(|bench| {
        bench.run("s", &["core", "create", "journal"]).expect(0);
        let list = bench.run("s", &["list", "--json"]).expect(0).text();
        let kinds: Vec<String> = list
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|core| format!("{} {}", core["kind"].as_str().unwrap(), core["name"]))
            .collect();
        assert_eq!(kinds, ["drive \"in\"", "core \"journal\"", "blobs null"]);
    });
}
