//! What is wrong is refused with its own exit code, within its time, and harms nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use ferrocore_interop_tests::folder::{self, Snapshot};
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::tap::Tap;
use serde_json::{Value, json};

use crate::live::{Shared, Stage, get, text};

/// A well-formed key that nobody serves.
const NOBODYS_KEY: &str = "yryyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyo";

/// An entry as a hostile writer stores it: its name, and a target if it is a link.
type RawEntry = (&'static str, Option<&'static str>);

const SHORT: [&str; 2] = ["--timeout", "1s"];

#[test]
fn a_malformed_link_is_a_usage_error() {
    let stage = Stage::new();
    let too_long = "0".repeat(65);
    for link in [
        "hyper://",
        "hyper://nonsense",
        "hyper://nonsense+1/a",
        "pear://yryyy",
        &too_long,
    ] {
        let refused = stage
            .fcore("store")
            .run(["get", link, "dest"])
            .expect_code(2);
        assert!(!refused.stderr.is_empty(), "the error is explained");
    }
}

#[test]
fn peers_that_do_not_deliver_end_in_a_timeout() {
    let stage = Stage::new();
    let closed = free_port();
    let silent = listener(|_socket| {
        loop {
            thread::park();
        }
    });
    let closing = listener(drop);
    let garbage = listener(|mut socket| {
        let _ = socket.write_all(&[0xff; 1 << 16]); // it may be dropped before the end
    });
    for (name, port) in [
        ("closed", closed),
        ("silent", silent),
        ("closing", closing),
        ("garbage", garbage),
    ] {
        let run = stage
            .fcore(name)
            .run(get(NOBODYS_KEY, &stage.path("dest"), port, &SHORT))
            .expect_code(4);
        assert_eq!(run.event("error")["code"], 4, "{name}");
    }
}

#[test]
fn a_peer_without_the_drive_ends_in_a_timeout() {
    let stage = Stage::new();
    let shared = Shared::start(&stage.fcore("store"), &stage.few_files("source"));
    stage
        .fcore("reader")
        .run(get(NOBODYS_KEY, &stage.path("dest"), shared.port, &SHORT))
        .expect_code(4);
}

#[test]
fn a_peer_that_closes_in_mid_block_ends_in_a_timeout() {
    let stage = Stage::new();
    let shared = Shared::start(&stage.fcore("store"), &stage.few_files("source"));
    let tap = Tap::holding_after(shared.port, 100_000);
    // Until it is held there, a busy machine may be silent for a while.
    let patient = ["--timeout", "5s"];
    let run =
        stage
            .fcore("reader")
            .start(get(&shared.key, &stage.path("dest"), tap.port(), &patient));
    tap.wait_holding();
    tap.cut();
    run.finish().expect_code(4);
}

#[test]
fn an_absent_path_and_version_are_not_found() {
    let stage = Stage::new();
    let shared = Shared::start(&stage.fcore("store"), &stage.few_files("source"));
    let reader = stage.fcore("reader");
    let peer = format!("127.0.0.1:{}", shared.port);
    let link = format!("hyper://{}/no/such/file", shared.key);
    reader.run(["cat", &link, "--peer", &peer]).expect_code(3);
    let dest = stage.path("dest");
    reader
        .run(get(
            &shared.key,
            &dest,
            shared.port,
            &["--at", "9999", "--timeout", "5s"],
        ))
        .expect_code(3);
    reader
        .run(get(
            &shared.key,
            &dest,
            shared.port,
            &["--path", "/no/such/**"],
        ))
        .expect_code(3);
}

#[test]
fn a_destination_that_cannot_be_written_is_a_storage_error() {
    let stage = Stage::new();
    let shared = Shared::start(&stage.fcore("store"), &stage.few_files("source"));
    folder::write(&stage.path(""), "a file", b"");
    for dest in [stage.path("a file"), PathBuf::from("/proc/nowhere")] {
        stage
            .fcore("reader")
            .run(get(&shared.key, &dest, shared.port, &[]))
            .expect_code(7);
    }
    assert_eq!(
        fs::read(stage.path("a file")).unwrap(),
        b"",
        "the file in the way is untouched"
    );
}

#[test]
fn a_full_destination_is_a_storage_error_and_a_rerun_continues() {
    let stage = Stage::new();
    let source = stage.path("source");
    fs::create_dir(&source).unwrap();
    for i in 0..10u8 {
        folder::write_random(&source.join(i.to_string()), 400_000, 1 + u64::from(i));
    }
    let shared = Shared::start(&stage.fcore("store"), &source);
    let (reader, dest) = (stage.fcore("reader"), stage.path("dest"));
    fs::create_dir(&dest).unwrap();
    let Some(code) = run_with_small_disk(
        &reader.command(get(&shared.key, &dest, shared.port, &[])),
        &dest,
    ) else {
        eprintln!(
            "not tested: this machine lets us mount no tmpfs, even in a namespace of our own"
        );
        return;
    };
    assert_eq!(code, 7);

    let rerun = reader
        .run(get(&shared.key, &dest, shared.port, &[]))
        .expect_code(0);
    assert!(
        rerun.event("done")["blocks_have"].as_u64() > Some(0),
        "what had arrived was kept"
    );
    Snapshot::of(&source).assert_same(&Snapshot::of(&dest));
}

#[test]
fn entries_that_climb_out_of_the_destination_are_refused() {
    // Goal: nothing is written outside DEST, whatever a drive calls its files. Method: names that
    // JS would never store, put there by hand; everything around DEST stays as it was.
    let cases: [(&str, &[RawEntry]); 5] = [
        ("parent", &[("/../escaped", None)]),
        ("relative parent", &[("../escaped", None)]),
        ("parent in the middle", &[("/a/../../escaped", None)]),
        (
            "through a relative link",
            &[("/ln", Some("..")), ("/ln/escaped", None)],
        ),
        (
            "through an absolute link",
            &[("/ln", Some("OUTSIDE")), ("/ln/escaped", None)],
        ),
    ];
    for (case, entries) in cases {
        let stage = Stage::new();
        let outside = stage.path("outside");
        fs::create_dir(&outside).unwrap();
        let (mut node, opened) = stage.node_drive(Tree::Current, "node", None);
        node.call("put", json!({ "path": "/harmless", "text": "fine" }));
        for (path, link) in entries {
            let link = link.map(|target| target.replace("OUTSIDE", outside.to_str().unwrap()));
            node.call(
                "putRaw",
                json!({ "path": path, "text": "escaped", "linkname": link }),
            );
        }
        let dest = outside.join("dest");
        let port = node.listen();
        let run =
            stage
                .fcore("reader")
                .run(get(&text(&opened["id"]), &dest, port, &["--overwrite"]));
        assert_ne!(run.code, Some(0), "{case}: something was refused");
        let leaked = Snapshot::of(&outside).without(|path| path.starts_with("dest"));
        assert!(leaked.entries().is_empty(), "{case}: {leaked:?}");
        assert!(!stage.path("escaped").exists(), "{case}");
    }
}

#[test]
fn a_flipped_byte_in_the_store_is_named_and_never_handed_out() {
    let stage = Stage::new();
    let source = stage.path("source");
    fs::create_dir(&source).unwrap();
    folder::write_random(&source.join("file"), 300_000, 5);
    let sharer = stage.fcore("store");
    let shared = Shared::start(&sharer, &source);
    let link = format!("hyper://{}/file", shared.key);
    shared.run.interrupt();
    assert_eq!(
        sharer.run(["cat", &link]).expect_code(0).stdout,
        fs::read(source.join("file")).unwrap()
    );

    flip_a_byte(
        &largest_data_file(&sharer.store().join("corestore")),
        150_000,
    );
    let broken = sharer.run(["cat", &link]).expect_code(7);
    let error: &Value = broken.event("error");
    assert_eq!(error["code"], 7);
    let message = text(&error["message"]);
    assert!(message.contains("block 2"), "the block is named: {message}");
    let intact = fs::read(source.join("file")).unwrap();
    assert!(
        intact.starts_with(&broken.stdout),
        "only right bytes came out"
    );
}

#[test]
fn garbage_on_the_port_leaves_other_peers_alone() {
    let stage = Stage::new();
    let (source, target) = (stage.few_files("source"), stage.path("target"));
    let shared = Shared::start(&stage.fcore("store"), &source);
    let open: Vec<TcpStream> = garbage()
        .iter()
        .map(|bytes| send(shared.port, bytes))
        .collect();
    stage
        .fcore("reader")
        .run(get(&shared.key, &target, shared.port, &[]))
        .expect_code(0);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    for (mut socket, bytes) in open
        .into_iter()
        .zip(garbage())
        .filter(|(_, bytes)| bytes.len() > 200)
    {
        socket
            .set_read_timeout(Some(ferrocore_interop_tests::PATIENCE))
            .unwrap();
        let ended = socket.read_to_end(&mut Vec::new());
        assert!(
            ended.is_ok() || is_reset(&ended),
            "{} bytes of garbage were not dropped",
            bytes.len()
        );
    }
}

/// What strangers send to open ports, and frames that lie about their length.
fn garbage() -> [Vec<u8>; 6] {
    [
        Vec::new(),
        b"G".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 1000],
        vec![0xff; 1 << 16],
        [&[32, 0, 0][..], &[0x58; 1 << 16]].concat(),
    ]
}

fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let _ = socket.write_all(bytes); // it may be dropped before the end
    socket
}

fn is_reset(ended: &std::io::Result<usize>) -> bool {
    matches!(ended, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// A listener that gives every connection to `serve`, each on a thread of its own; returns its port.
fn listener(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(socket));
        }
    });
    port
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Runs `command` in a mount namespace where `dir` is a disk of 1 MiB; none if that is not allowed here.
fn run_with_small_disk(command: &Command, dir: &Path) -> Option<i32> {
    const MOUNT_FAILED: i32 = 99;
    const SCRIPT: &str = r#"mount -t tmpfs -o size=1m tmpfs "$0" || exit 99; exec "$@""#;
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
        .arg(dir);
    wrapped.arg(command.get_program()).args(command.get_args());
    let output = wrapped.output().ok()?;
    let denied = String::from_utf8_lossy(&output.stderr).starts_with("unshare:");
    output
        .status
        .code()
        .filter(|code| *code != MOUNT_FAILED && !denied)
}

fn largest_data_file(corestore: &Path) -> PathBuf {
    let files = Snapshot::of(corestore);
    let data = files.entries().keys().filter(|path| path.ends_with("data"));
    let largest = data.max_by_key(|path| fs::metadata(corestore.join(path)).unwrap().len());
    corestore.join(largest.expect("a store with cores has data files"))
}

fn flip_a_byte(path: &Path, offset: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}
