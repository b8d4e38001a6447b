//! Goal: every way to fail has its exit code, and nothing hangs. Method: peers that misbehave in
//! ways of their own, short timeouts, stores that are locked or damaged.
#![cfg(unix)]

use std::io::{BufRead as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::common::{Bench, Watchdog, files, noise};

const KEY: &str = "hyper://tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy";

/// Longer than the timeouts below on however busy a machine, shorter than any of ours that ought not to matter.
const SOON: Duration = Duration::from_secs(27);

/// Enough to be connected and answered on a busy machine.
const PATIENT: &str = "5s";

#[track_caller]
fn get_fails(bench: &Bench, link: &str, address: &str, timeout: &str) -> serde_json::Value {
    let started = Instant::now();
    let get = [
        "get",
        link,
        "out",
        "--peer",
        address,
        "--timeout",
        timeout,
        "--json",
    ];
    let error = bench.run("s2", &get).expect(4).event("error");
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    error
}

fn port(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_closed_port_is_no_peer() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port(&listener);
    drop(listener);
    let failed = get_fails(&bench, KEY, &address, "700ms");
    assert_eq!(failed["kind"], "no_peer");
}

#[test]
fn a_peer_that_says_nothing_is_no_peer() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let failed = get_fails(&bench, KEY, &port(&listener), "700ms");
    assert_eq!(failed["kind"], "no_peer");
}

#[test]
fn a_peer_that_talks_nonsense_is_no_peer() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port(&listener);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(&[0xff; 4096]).ok();
        }
    });
    let failed = get_fails(&bench, KEY, &address, "700ms");
    assert_eq!(failed["kind"], "no_peer");
}

#[test]
fn a_peer_without_the_key_is_a_timeout() {
    let bench = Bench::new();
    bench.write("in/x", "x");
    let (_share, _, address) = bench.share("s1", "in");
    let failed = get_fails(&bench, KEY, &address, PATIENT);
    assert_eq!(failed["kind"], "timeout");
}

#[test]
fn every_command_that_needs_a_peer_gives_up() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port(&listener);
    let options = ["--peer", &address, "--timeout", "500ms"];
    let key = KEY.trim_start_matches("hyper://");
    let path = format!("{KEY}/file");
    for command in [
        &["ls", KEY][..],
        &["cat", &path],
        &["core", "get", key, "0"],
        &["core", "info", key],
        &["core", "replicate", key],
    ] {
        let started = Instant::now();
        bench.run("s", &[command, &options].concat()).expect(4);
        assert!(started.elapsed() < SOON, "{command:?}");
    }
}

#[test]
fn without_any_peer_it_fails_at_once() {
    let bench = Bench::new();
    for arguments in [
        vec!["get", KEY],
        vec!["ls", KEY],
        vec!["core", "get", KEY, "0"],
    ] {
        let error = bench
            .run("s", &[&arguments[..], &["--json"]].concat())
            .expect(4)
            .event("error");
        assert!(
            error["hint"].as_str().unwrap().contains("--peer"),
            "{error}"
        );
    }
}

/// Goal: a peer that stops in the middle ends in exit 4, and the next run goes on from there.
/// Method: what the system buffers between the two is far less than the rest of the file.
#[test]
fn a_transfer_that_stalls_times_out_and_is_resumed() {
    let bench = Bench::new();
    bench.write("in/large", noise(48 << 20, 6));
    let (share, link, address) = bench.share("s1", "in");
    let mut get = bench.start(
        "s2",
        &[
            "get",
            &link,
            "out",
            "--peer",
            &address,
            "--down",
            "4M",
            "--timeout",
            PATIENT,
        ],
    );
    get.wait_for("some bytes", |event| {
        event["event"] == "progress" && event["bytes"].as_u64() > Some(0)
    });
    share.signal("STOP");
    get.finish().expect(4);
    share.signal("CONT");
    let done = bench
        .run("s2", &["get", &link, "out", "--peer", &address, "--json"])
        .expect(0)
        .event("done");
    assert!(done["blocks_have"].as_u64().unwrap() > 0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
}

#[test]
fn malformed_command_lines_are_usage_errors() {
    let bench = Bench::new();
    for arguments in [
        &["get", "hyper://abc"][..],
        &["get", "https://example.com"],
        &["get"],
        &["frobnicate"],
        &["list", "--timeout", "never"],
        &["list", "--listen", "nonsense"],
        &["list", "--listen", "203.0.113.1:1"],
        &["get", KEY, "--peer", "nonsense"],
    ] {
        bench.run("s", arguments).expect(2);
        let json = [arguments, &["--json"]].concat();
        assert_eq!(
            bench.run("s", &json).expect(2).event("error")["kind"],
            "usage"
        );
    }
    bench.run("s", &["--help"]).expect(0);
}

#[test]
fn a_destination_that_cannot_be_written_is_a_storage_error() {
    let bench = Bench::new();
    bench.write("in/x", "x");
    let (_share, link, address) = bench.share("s1", "in");
    bench.write("file", "in the way");
    bench
        .run("s2", &["get", &link, "file", "--peer", &address])
        .expect(7);
    bench
        .run("s2", &["get", &link, "file/below", "--peer", &address])
        .expect(7);
}

#[test]
fn a_damaged_block_is_named_and_never_handed_out() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    bench
        .run_with(
            "s",
            &["core", "append", "log", "--lines"],
            b"first\nsecond\n",
        )
        .expect(0);
    let data = find(&bench.path("s"), "data");
    let mut bytes = std::fs::read(&data).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"second")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&data, bytes).unwrap();

    assert_eq!(
        bench
            .run("s", &["core", "get", "log", "0"])
            .expect(0)
            .text(),
        "first"
    );
    let refused = bench
        .run("s", &["core", "get", "log", "1", "--json"])
        .expect(7);
    assert!(refused.stdout.is_empty());
    assert!(
        refused.event("error")["message"]
            .as_str()
            .unwrap()
            .contains("block 1")
    );
}

/// Goal: what a peer sends and cannot prove is not taken, and said to be so. Method: a node of the peer's
/// tree is flipped on its disk, which only a proof of the first blocks needs.
#[test]
fn what_does_not_verify_is_refused() {
    let bench = Bench::new();
    let key = liar(&bench, "log");

    let serve = ["core", "replicate", "log", "--listen", "127.0.0.1:0"];
    let mut serving = bench.start("s", &serve);
    let address = serving.wait("ready")["listen"].as_str().unwrap().to_owned();
    let get = [
        "core",
        "get",
        &key,
        "0",
        "--peer",
        &address,
        "--timeout",
        PATIENT,
        "--json",
    ];
    let refused = bench.run("reader", &get).expect(5);
    assert!(refused.stdout.is_empty());
    assert_eq!(refused.event("error")["kind"], "verification");
    let told = refused.event("misbehaviour");
    assert_eq!(
        (&told["kind"], &told["verdict"]),
        (&"bad_proof".into(), &"channel_closed".into())
    );
}

/// Goal: the same over stdin and stdout, where nobody else could tell who did what.
#[test]
fn what_does_not_verify_is_named_on_a_pair_of_pipes_too() {
    let bench = Bench::new();
    let key = liar(&bench, "log");
    let (near, far) = UnixStream::pair().unwrap();
    let mut lying = bench.start_on("s", &["core", "replicate", "log", "--initiator"], near);
    let replicate = ["core", "replicate", &key, "--json", "--timeout", PATIENT];
    let mut reader = bench.start_on("reader", &replicate, far);
    let _watchdogs = (Watchdog::of(&lying), Watchdog::of(&reader));
    let stderr = std::io::BufReader::new(reader.stderr.take().unwrap());
    let lines: Vec<serde_json::Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let event = |name: &str| {
        let found = lines.iter().find(|line| line["event"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {lines:?}"))
    };
    let (peer, told) = (event("peer"), event("misbehaviour"));
    assert_eq!(peer["via"], "stdio");
    assert_eq!(told["remote_key"], peer["remote_key"]);
    assert_eq!(told["kind"], "bad_proof");
    assert_eq!(event("error")["kind"], "verification");
    assert_eq!(reader.wait().unwrap().code(), Some(5));
    lying.kill().unwrap();
    lying.wait().unwrap();
}

/// Makes a core of four blocks in the store `s` that cannot prove the first two of them: the hash above the others is
/// changed. Returns its key.
fn liar(bench: &Bench, name: &str) -> String {
    let created = bench
        .run("s", &["core", "create", name, "--json"])
        .expect(0);
    let core = created.event("core");
    let append = ["core", "append", name, "--lines"];
    bench.run_with("s", &append, b"a\nb\nc\nd\n").expect(0);
    bench.run("s", &["core", "audit", name]).expect(0); // leaves nothing in the journal
    let discovery_key = core["discovery_key"].as_str().unwrap();
    let tree = find(&bench.path("s"), &format!("{discovery_key}/tree"));
    let mut nodes = std::fs::read(&tree).unwrap();
    nodes[5 * 40 + 9] ^= 1;
    std::fs::write(tree, nodes).unwrap();
    core["key"].as_str().unwrap().to_owned()
}

/// Goal: a peer whose proofs do not hold, again and again, is kept away, which is told in words and as an event, and does
/// not come back. Method: as above, with more cores than there are proofs that are put up with.
#[test]
fn who_cannot_prove_is_banned_and_named() {
    let bench = Bench::new();
    let names: Vec<String> = (0..10).map(|number| format!("log{number}")).collect();
    let keys: Vec<String> = names.iter().map(|name| liar(&bench, name)).collect();

    let with = |first: &[&str], cores: &[String], last: &[&str]| -> Vec<String> {
        let (first, last) = (first.iter(), last.iter());
        let words = first.map(ToString::to_string).chain(cores.iter().cloned());
        words.chain(last.map(ToString::to_string)).collect()
    };
    let replicate = ["core", "replicate"];
    let listen = with(&replicate, &names, &["--listen", "127.0.0.1:0"]);
    let mut serving = bench.start("s", &listen);
    let address = serving.wait("ready")["listen"].as_str().unwrap().to_owned();
    let dial = with(&replicate, &keys, &["--peer", &address]);
    for store in ["reader", "another"] {
        let mut reading = bench.start(store, &dial);
        let came = reading.wait_for("the liar", |event| event["state"] == "connected");
        let told = reading.wait("misbehaviour");
        assert_eq!(told["kind"], "bad_proof");
        let told = reading.wait_for("the last", |event| event["verdict"] == "banned");
        assert_eq!(told["kind"], "too_many_strikes");
        let banned = reading.wait_for("a ban", |event| event["state"] == "banned");
        assert_eq!(
            (&banned["event"], &banned["remote_key"]),
            (&"peer".into(), &came["remote_key"])
        );
        assert_eq!(banned["seconds"], 600.0);
        reading.wait_for("its end", |event| event["state"] == "disconnected");
        let ended = reading.interrupt().text();
        let states = ended.lines().filter(|line| line.contains("\"connected\""));
        assert_eq!(states.count(), 1, "{ended}");
    }
    // And in words.
    let dial: Vec<&str> = dial.iter().map(String::as_str).collect();
    let mut command = bench.command("in words", &dial);
    let mut reading = command.spawn().unwrap();
    let _watchdog = Watchdog::of(&reading);
    let lines = std::io::BufReader::new(reading.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let told = lines.find(|line| line.contains("banned for"));
    reading.kill().unwrap();
    reading.wait().unwrap();
    let told = told.expect("it is told before the end");
    assert!(told.ends_with("banned for 600 s"), "{told}");
}

/// Goal: who meets two histories of one author takes no more of either, and can see so later.
#[test]
fn two_histories_of_one_author_are_a_conflict() {
    let bench = Bench::new();
    let created = bench
        .run("s", &["core", "create", "log", "--json"])
        .expect(0);
    let key = created.event("core")["key"].as_str().unwrap().to_owned();
    let append = |store: &str, lines: &[u8]| {
        let append = ["core", "append", "log", "--lines"];
        bench.run_with(store, &append, lines).expect(0);
    };
    append("s", b"a\n");
    let copied = std::process::Command::new("cp")
        .args(["-r", "s", "copy"])
        .current_dir(bench.path(""))
        .status();
    assert!(copied.unwrap().success());
    append("s", b"b\n");
    append("copy", b"x\ny\n");
    let get_from = |store: &str, index: &str| {
        let serve = ["core", "replicate", "log", "--listen", "127.0.0.1:0"];
        let mut serving = bench.start(store, &serve);
        let address = serving.wait("ready")["listen"].as_str().unwrap().to_owned();
        let get = ["core", "get", &key, index, "--peer", &address, "--json"];
        let got = bench.run("reader", &get);
        serving.kill();
        got
    };
    let info = |json: &str| bench.run("reader", &["core", "info", &key, "--no-lan", json]);
    assert_eq!(get_from("s", "1").expect(0).text(), "b");
    assert_eq!(info("--json").expect(0).event("core")["conflict"], false);
    let refused = get_from("copy", "2").expect(5);
    assert_eq!(refused.event("error")["kind"], "verification");
    let message = refused.event("error")["message"].to_string();
    assert!(message.contains("two histories"), "{message}");
    let core = info("--json").expect(0).event("core");
    assert_eq!(
        (&core["conflict"], &core["length"]),
        (&true.into(), &2.into())
    );
    let words = info("-q").expect(0).text();
    assert!(words.contains("signed two histories"), "{words}");
}

#[test]
fn what_is_not_ours_is_not_written() {
    let bench = Bench::new();
    let created = bench
        .run("s", &["core", "create", "log", "--json"])
        .expect(0);
    let key = created.event("core")["key"].as_str().unwrap().to_owned();
    bench.write("file", "content");
    for arguments in [
        &["core", "append", &key, "file"][..],
        &["core", "truncate", &key, "0", "--yes"],
        &["put", "file", &format!("{key}:/file")],
    ] {
        let refused = bench.run("reader", &[arguments, &["--json"]].concat());
        let refused = refused.expect(6).event("error");
        assert_eq!(refused["kind"], "not_permitted", "{arguments:?}");
    }
}

#[test]
fn a_store_held_by_a_program_without_a_socket_is_locked() {
    let bench = Bench::new();
    bench.write("in/x", "x");
    let (share, _, _) = bench.share("s", "in");
    std::fs::remove_file(bench.path("s/control.sock")).unwrap();
    let create = ["core", "create", "log", "--json"];
    let error = bench.run("s", &create).expect(7).event("error");
    assert_eq!(error["kind"], "storage");
    let holder = format!("process {}", share.pid());
    for field in ["message", "hint"] {
        let text = error[field].as_str().unwrap();
        assert!(text.contains(&holder), "{text}");
    }
    // What only reads gets what the holder last wrote.
    let listed = bench.run("s", &["list"]).expect(0);
    assert!(listed.text().contains("in"), "{}", listed.text());
    assert!(listed.stderr.contains("in use"), "{}", listed.stderr);
    assert_eq!(bench.run("s", &["cat", "in:/x"]).expect(0).text(), "x");
    share.interrupt().expect(0);
    bench.run("s", &["list"]).expect(0);
}

#[test]
fn names_that_are_damaged_twice_are_a_storage_error() {
    let bench = Bench::new();
    bench.run("s", &["core", "create", "log"]).expect(0);
    bench.write("s/names.json", "{");
    bench.run("s", &["core", "info", "log"]).expect(0);
    bench.write("s/names.json", "{");
    bench.write("s/names.copy.json", "{");
    let refused = bench.run("s", &["list"]).expect(7);
    assert!(refused.stderr.contains("remember"), "{}", refused.stderr);
}

/// Goal: without the file of names nothing but the file is lost: names, kinds and folders are in the cores' headers.
#[test]
fn names_are_found_again_without_their_file() {
    let bench = Bench::new();
    let lose = || {
        for file in ["s/names.json", "s/names.copy.json"] {
            std::fs::remove_file(bench.path(file)).unwrap();
        }
    };
    bench.run("s", &["core", "create", "log"]).expect(0);
    bench.write("in/x", "x");
    bench.write("other/y", "y");
    for folder in ["in", "other"] {
        bench.share("s", folder).0.interrupt().expect(0);
    }
    let before = bench.run("s", &["list", "--json"]).expect(0).text();
    lose();
    assert_eq!(bench.run("s", &["list", "--json"]).expect(0).text(), before);
    assert_eq!(bench.run("s", &["cat", "in:/x"]).expect(0).text(), "x");
    lose();
    bench
        .run_with("s", &["core", "append", "log"], b"a")
        .expect(0);
    // The folder is still that of the drive it had: no second drive is made for it.
    bench.share("s", "in").0.interrupt().expect(0);
    let drives = bench.run("s", &["list", "--json"]).expect(0).text();
    assert_eq!(drives.lines().count(), before.lines().count(), "{drives}");
}

#[test]
fn garbage_on_the_port_does_not_disturb_a_share() {
    let bench = Bench::new();
    bench.write("in/x", noise(100_000, 8));
    let (_share, link, address) = bench.share("s1", "in");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 1000], &[0xff; 1000]] {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(garbage).ok();
    }
    bench
        .run("s2", &["get", &link, "out", "--peer", &address])
        .expect(0);
    assert_eq!(files(&bench.path("in")), files(&bench.path("out")));
}

/// The only file below `folder` whose path ends with `name`.
fn find(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut found = files(folder).into_iter().map(|(path, _)| path);
    let found = found.find(|path| path.ends_with(name));
    folder.join(found.unwrap())
}
