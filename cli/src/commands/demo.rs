//! `demo`: the main job on this machine. One process shares a sample folder, another fetches it,
//! and the two folders are compared.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use ferrocore::primitives::hash::{Hash, hash};
use ferrocore::swarm::dht::Dht;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::events::Demonstrated;
use crate::exit::{Failure, Kind, Result};
use crate::output::{Output, count, human_bytes};
use crate::stop::Stop;

/// Bytes of the sample's largest file.
const LARGE_BYTES: usize = 24 << 20;

/// Small files of the sample.
const SMALL_FILES: usize = 200;

/// Runs the demonstration in a folder of its own, which is removed in the end.
pub(crate) async fn demo(output: &Output, stop: &Stop) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("fcore-demo-").tempdir();
    let scratch = scratch
        .map_err(|error| Failure::storage("cannot make a folder for the demonstration", &error))?;
    let shown = stop.or_interrupted(show(output, scratch.path())).await;
    scratch.close().ok();
    shown
}

async fn show(output: &Output, scratch: &Path) -> Result<()> {
    let (source, target) = (scratch.join("shared"), scratch.join("fetched"));
    let failed = |error: io::Error| Failure::storage("the demonstration failed", &error);
    write_sample(&source).map_err(failed)?;
    let sample = snapshot(&source).map_err(failed)?;
    let bytes: u64 = sample.values().map(|file| file.bytes).sum();
    let files = count(sample.len() as u64, "file");
    output
        .say(&format!(
            "A folder with {files}, {}, is shared by one process:",
            human_bytes(bytes)
        ))
        .await;

    let here = Ipv4Addr::LOCALHOST;
    let dht = Dht::builder().bootstrapper(here).host(here).port(0);
    let dht = dht.bind().map_err(failed)?;
    let no_socket = || Failure::new(Kind::Other, "the demonstration's DHT has no socket");
    let bootstrap = dht.local_address().ok_or_else(no_socket)?.to_string();
    let started = Instant::now();
    let share = ["share".as_ref(), source.as_os_str()];
    let mut sharing = Fcore::start(&scratch.join("store-1"), &bootstrap, &share)?;
    let ready = sharing.wait_event("ready").await?;
    let link = text(&ready, "link")?;
    sharing.wait_event("announced").await?;
    output
        .say(&format!(
            "    {link}\nand fetched by another, which finds it by that link alone, in a DHT of this process."
        ))
        .await;

    let get = ["get".as_ref(), link.as_ref(), target.as_os_str()];
    let mut getting = Fcore::start(&scratch.join("store-2"), &bootstrap, &get)?;
    getting.wait_event("done").await?;
    let seconds = started.elapsed().as_secs_f64();
    drop((sharing, getting));

    let equal = snapshot(&target).map_err(failed)? == sample;
    let done = Demonstrated {
        files: sample.len() as u64,
        bytes,
        seconds,
        equal,
    };
    output.report(&done).await?;
    match equal {
        true => Ok(()),
        false => Err(Failure::new(Kind::Verification, "the folders differ")),
    }
}

fn text<'a>(event: &'a Value, field: &str) -> Result<&'a str> {
    let missing = || Failure::new(Kind::Other, format!("no `{field}` in {event}"));
    event.get(field).and_then(Value::as_str).ok_or_else(missing)
}

/// Another process of this program, which ends with this value.
struct Fcore {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Fcore {
    fn start(store: &Path, bootstrap: &str, arguments: &[&std::ffi::OsStr]) -> Result<Self> {
        let failed = |error: io::Error| Failure::storage("cannot start another process", &error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(["--json", "--no-lan", "--host", "127.0.0.1", "--port", "0"])
            .args(["--bootstrap", bootstrap])
            .arg("--store")
            .arg(store)
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new(Kind::Other, "no stdout"))?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines })
    }

    /// Waits for an event of the process; its end before that is a failure.
    async fn wait_event(&mut self, name: &str) -> Result<Value> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event.get("event").and_then(Value::as_str) == Some(name) {
                return Ok(event);
            }
        }
        self.child.wait().await.ok();
        Err(Failure::new(
            Kind::Other,
            format!("a process ended before it said `{name}`"),
        ))
    }
}

/// A file as the comparison sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    hash: Hash,
}

/// All files below `folder`, links by where they point.
fn snapshot(folder: &Path) -> io::Result<BTreeMap<PathBuf, Seen>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            let kind = path.symlink_metadata()?.file_type();
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let content = match kind.is_symlink() {
                true => path.read_link()?.into_os_string().into_encoded_bytes(),
                false => std::fs::read(&path)?,
            };
            let seen = Seen {
                bytes: content.len() as u64,
                hash: hash(&[&content]),
            };
            let relative = path.strip_prefix(folder).unwrap_or(&path).to_owned();
            files.insert(relative, seen);
        }
    }
    Ok(files)
}

/// A folder with a bit of everything.
fn write_sample(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder.join("notes/deep/er"))?;
    std::fs::write(
        folder.join("read me.txt"),
        "Everything in here was fetched block by block.\n",
    )?;
    std::fs::write(folder.join("empty"), "")?;
    std::fs::write(folder.join("notes/deep/er/grüße.txt"), "¡Hola!\n")?;
    std::fs::write(folder.join("large.bin"), noise(LARGE_BYTES))?;
    for number in 0..SMALL_FILES {
        std::fs::write(
            folder.join(format!("notes/{number}.txt")),
            noise(number * 37),
        )?;
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("notes/1.txt", folder.join("link"))?;
    Ok(())
}

/// Bytes without a pattern, always the same (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
