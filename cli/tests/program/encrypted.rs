//! Goal: an encrypted drive is read by whoever has the whole link, kept and passed on by anybody,
//! and read by nobody else. Method: stores with and without the key, on loopback.
#![cfg(unix)]

use crate::common::{Bench, Running, files, noise};

const TEXT: &str = "nobody else reads this";

/// A key that encrypts nothing here.
const WRONG: &str = "tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy";

/// Shares a folder as an encrypted drive; returns the process, the link and the address.
fn share(bench: &Bench) -> (Running, String, String) {
    bench.write("in/notes.txt", TEXT);
    bench.write("in/a/large", noise(300_000, 1));
    let arguments = ["share", "in", "--encrypt", "--listen", "127.0.0.1:0"];
    let mut share = bench.start("s1", &arguments);
    let ready = share.wait("ready");
    let text = |field: &str| ready[field].as_str().unwrap().to_owned();
    (share, text("link"), text("listen"))
}

#[test]
fn a_drive_is_read_with_the_whole_link_and_then_by_key() {
    let bench = Bench::new();
    let (share, link, address) = share(&bench);
    let (key, _) = link.split_once('#').expect("the link has the key");
    let notes = format!("{key}/notes.txt");

    let get = |store: &str, link: &str| {
        bench.run(store, &["get", link, "out", "--peer", &address, "--json"])
    };
    for link in [key.to_owned(), format!("{key}#{WRONG}")] {
        let refused = get("s3", &link).expect(6);
        assert!(
            refused.event("error")["hint"]
                .as_str()
                .unwrap()
                .contains('#')
        );
        bench
            .run("s3", &["ls", &link, "--peer", &address])
            .expect(6);
    }
    assert!(!bench.path("out/notes.txt").exists());
    get("s3", &link).expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
    // The link was right, so its key is remembered.
    let read = bench.run("s3", &["cat", &notes]).expect(0);
    assert_eq!(read.text(), TEXT);
    let part = ["cat", &format!("{key}/a/large"), "--range", "70000..70010"];
    let part = bench.run("s3", &part).expect(0).stdout;
    assert_eq!(part, noise(300_000, 1)[70_000..70_010]);
    share.interrupt().expect(0);

    for store in ["s1/corestore", "s3/corestore"] {
        let leaks = |(_, bytes): &(_, Vec<u8>)| {
            bytes
                .windows(TEXT.len())
                .any(|part| part == TEXT.as_bytes())
        };
        assert!(!files(&bench.path(store)).iter().any(leaks), "{store}");
    }
}

#[test]
fn the_same_folder_stays_encrypted() {
    let bench = Bench::new();
    let (running, link, _) = share(&bench);
    running.interrupt().expect(0);
    let (again, same, _) = bench.share("s1", "in");
    assert_eq!(link, same);
    again.interrupt().expect(0);
    let (again, same, _) = share(&bench);
    assert_eq!(link, same);
    // A wrong key in a link of ours does not replace the right one.
    let wrong = link.split_once('#').unwrap().0.to_owned() + "#" + WRONG;
    bench.run("s1", &["ls", &wrong]);
    bench.run("s1", &["ls", "in"]).expect(0);
    again.interrupt().expect(0);

    bench.write("open/x", "x");
    bench.share("s1", "open").0.interrupt().expect(0);
    bench.run("s1", &["share", "open", "--encrypt"]).expect(2);
}

#[test]
fn a_store_without_the_key_passes_the_drive_on() {
    let bench = Bench::new();
    let (share, link, address) = share(&bench);
    let listed = bench.run("s1", &["list", "--json"]).expect(0).text();
    let keys: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|core| core["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 2, "{listed}");
    let mut arguments = vec!["core", "replicate"];
    arguments.extend(keys.iter().map(String::as_str));
    arguments.extend(["--peer", &address, "--listen", "127.0.0.1:0"]);
    let mut blind = bench.start("blind", &arguments);
    let ready = blind.wait("ready");
    for _ in &keys {
        blind.wait("synced");
    }
    share.interrupt().expect(0);

    let address = ready["listen"].as_str().unwrap();
    bench
        .run("s3", &["get", &link, "out", "--peer", address])
        .expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
    blind.interrupt().expect(0);
}

#[test]
fn a_log_is_encrypted_by_name_and_read_by_link() {
    let bench = Bench::new();
    let created = bench
        .run("s", &["core", "create", "log", "--encrypt", "--json"])
        .expect(0)
        .event("core");
    let link = created["link"].as_str().unwrap();
    assert!(link.contains('#'));
    let appended = bench
        .run_with(
            "s",
            &["core", "append", "log", "--lines", "--json"],
            b"one\nthree\n",
        )
        .expect(0)
        .event("appended");
    assert_eq!(appended["byte_length"], 8);
    for name in ["log", link] {
        let blocks = bench.run("s", &["core", "get", name, ".."]).expect(0);
        assert_eq!(blocks.text(), "onethree");
    }
    let info = bench.run("s", &["core", "info", "log", "--json"]).expect(0);
    assert!(info.event("core").get("link").is_none());

    // Goal: a wrong key is said to be wrong, and nothing is printed. Both kinds of core are told.
    let compat = [
        "core",
        "create",
        "old",
        "--encrypt",
        "--public-key-is-key",
        "--json",
    ];
    let compat = bench.run("s", &compat).expect(0).event("core");
    bench
        .run_with("s", &["core", "append", "old"], b"one")
        .expect(0);
    let compat = compat["link"].as_str().unwrap();
    for link in [link, compat] {
        let wrong = format!("{}#{WRONG}", link.split_once('#').unwrap().0);
        let refused = bench
            .run("s", &["core", "get", &wrong, "0", "--json"])
            .expect(6);
        let error = refused.event("error");
        let [message, hint] = ["message", "hint"].map(|field| error[field].as_str().unwrap());
        assert!(
            message.contains("the key does not fit") && hint.contains('#'),
            "{error}"
        );
        bench.run("s", &["core", "get", link, "0"]).expect(0);
    }

    // Goal: nothing in a log tells that it is encrypted: without the key its bytes are written as those of any log.
    for kept in std::fs::read_dir(bench.path("s").join("keys")).unwrap() {
        std::fs::remove_file(kept.unwrap().path()).unwrap();
    }
    for link in [link, compat] {
        let key = link.split_once('#').unwrap().0;
        let written = bench.run("s", &["core", "get", key, "0"]).expect(0).stdout;
        assert!(written.len() > 3 && !written.ends_with(b"one"));
    }
}

/// Goal: nothing is written that the log's own link does not read. Method: a wrong link; a key file with a flipped bit,
/// and one of versions before, which has no checksum.
#[test]
fn a_wrong_key_appends_nothing() {
    let bench = Bench::new();
    for kind in [&[][..], &["--public-key-is-key"]] {
        let store = if kind.is_empty() { "s" } else { "compat" };
        let create = [&["core", "create", "log", "--encrypt", "--json"], kind].concat();
        let created = bench.run(store, &create).expect(0).event("core");
        let link = created["link"].as_str().unwrap();
        let append = |log: &str, block: &[u8]| {
            bench.run_with(store, &["core", "append", log, "--json"], block)
        };
        let refused = |log: &str, code: i32, says: &str| {
            let error = append(log, b"lost").expect(code).event("error");
            let [message, hint] = ["message", "hint"].map(|field| error[field].as_str().unwrap());
            assert!(message.contains(says) && hint.contains('#'), "{error}");
        };
        append("log", b"one").expect(0);
        let wrong = format!("{}#{WRONG}", link.split_once('#').unwrap().0);
        refused(&wrong, 6, "the key does not fit");

        let name = created["discovery_key"].as_str().unwrap();
        let path = bench.path(&format!("{store}/keys/{name}.encryption"));
        let kept = std::fs::read(&path).unwrap();
        let flipped = |len: usize| {
            let mut bytes = kept[..len].to_vec();
            bytes[7] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
        };
        flipped(kept.len());
        refused("log", 7, path.to_str().unwrap());
        bench.run(store, &["core", "get", "log", "0"]).expect(7);
        append(link, b"two").expect(0);
        flipped(32);
        refused("log", 6, "the key does not fit");
        std::fs::write(&path, &kept[..32]).unwrap();
        append("log", b"three").expect(0);
        for log in ["log", link] {
            let blocks = bench.run(store, &["core", "get", log, ".."]).expect(0);
            assert_eq!(blocks.text(), "onetwothree");
        }
    }
}
