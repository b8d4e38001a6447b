//! The command line under test: builds `fcore` once, runs it with `--json`, reads its events.
//! Knows `--store`, `--json` and exit codes. Does not know the commands.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::PATIENCE;
use crate::network::{Host, Network};
use crate::process::{Next, Process, deadline};

/// `fcore` with a store of its own, and no discovery beside the peers it is given.
#[derive(Debug, Clone)]
pub struct Fcore {
    store: PathBuf,
    /// The host of a network, if it is not this machine.
    on: Option<Host>,
    /// Whether it may look for peers in the DHT that its arguments name.
    in_dht: bool,
}

/// A running `fcore`, or another program of its habits. Dropping it kills the process.
pub struct Run {
    process: Process,
    events: Vec<Value>,
    /// Events before this one have been waited for.
    seen: usize,
}

/// What a run of `fcore` left.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// All JSON events, from stdout and stderr.
    pub events: Vec<Value>,
    /// Everything on stdout, events included.
    pub stdout: Vec<u8>,
    /// Everything on stderr, as text.
    pub stderr: String,
}

impl Fcore {
    /// `fcore` keeping its store in `store`.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            on: None,
            in_dht: false,
        }
    }

    /// The same in a DHT: the arguments must name bootstrap nodes, and forbid the local network.
    pub fn in_dht(mut self) -> Self {
        self.in_dht = true;
        self
    }

    /// The same on a host of a network, where it looks for peers.
    pub fn lan_only(mut self, network: &Network, host: u8) -> Self {
        self.on = Some(network.host(host));
        self
    }

    /// The same on a host of a network, in the DHT that its arguments name.
    pub fn in_dht_on(mut self, network: &Network, host: u8) -> Self {
        self.on = Some(network.host(host));
        self.in_dht()
    }

    /// The folder of its store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The command as the harness runs it, for tests that wire the streams themselves.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(binary());
        command.arg("--store").arg(&self.store);
        match &self.on {
            _ if self.in_dht => command.arg("--json"),
            None => command.args(ALWAYS),
            Some(_) => command.args(["--json", "--lan-only"]),
        };
        command.args(arguments);
        command.env_remove("FCORE_STORE").env("NO_COLOR", "1");
        match &self.on {
            None => command,
            Some(host) => host.enter(&command),
        }
    }

    /// Starts `fcore` and leaves it running.
    #[track_caller]
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned())
            .collect();
        let name = format!("fcore {}", arguments.join(OsStr::new(" ")).display());
        Run::of(name, &mut self.command(&arguments))
    }

    /// Runs `fcore` to its end, with nothing on stdin.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.start(arguments).finish()
    }

    /// Runs `fcore` to its end, with `input` on stdin.
    #[track_caller]
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: impl Into<Vec<u8>>,
    ) -> Finished {
        let mut run = self.start(arguments);
        run.process.feed(input.into());
        run.finish()
    }
}

impl Run {
    /// Another program that prints JSON lines; `name` is for messages.
    #[track_caller]
    pub fn of(name: impl Into<String>, command: &mut Command) -> Self {
        Self {
            process: Process::start(name, command),
            events: Vec::new(),
            seen: 0,
        }
    }

    /// Writes a line to its stdin.
    pub fn say(&mut self, line: &str) {
        self.process.write_line(line);
    }

    /// Waits for the next event of this name after those waited for already.
    #[track_caller]
    pub fn wait_event(&mut self, name: &str) -> Value {
        self.wait_for(name, |event| event["event"] == name)
    }

    /// Waits for the next event that `matches`; `what` is for the message if none comes.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = deadline(PATIENCE);
        loop {
            while let Some(event) = self.events.get(self.seen) {
                self.seen += 1;
                if matches(event) {
                    return event.clone();
                }
            }
            match self.process.next_json(deadline) {
                Next::Json(event) => self.events.push(event),
                Next::End => self
                    .process
                    .fail(&format!("ended while the test waited for {what}")),
                Next::Timeout => self.process.fail(&format!("no {what} within {PATIENCE:?}")),
            }
        }
    }

    /// The TCP port of `--listen`, from the `ready` event.
    #[track_caller]
    pub fn wait_ready(&mut self) -> (u16, Value) {
        let ready = self.wait_event("ready");
        let listen = ready["listen"]
            .as_str()
            .and_then(|address| address.rsplit_once(':'));
        match listen.and_then(|(_, port)| port.parse().ok()) {
            Some(port) => (port, ready),
            None => self
                .process
                .fail(&format!("`ready` names no TCP address: {ready}")),
        }
    }

    /// Closes its stdin and waits for its end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    /// The same, with a deadline of the test's own.
    #[track_caller]
    pub fn finish_within(mut self, patience: Duration) -> Finished {
        self.process.feed(Vec::new());
        let deadline = deadline(patience);
        loop {
            match self.process.next_json(deadline) {
                Next::Json(event) => self.events.push(event),
                Next::Timeout => self
                    .process
                    .fail(&format!("still running after {patience:?}")),
                Next::End => break,
            }
        }
        Finished {
            code: self.process.wait().code(),
            events: self.events,
            stdout: self.process.stdout().to_vec(),
            stderr: String::from_utf8_lossy(self.process.stderr()).into_owned(),
        }
    }

    /// Ctrl-C, then waits for the end.
    #[track_caller]
    pub fn interrupt(self) -> Finished {
        self.process.signal(Signal::SIGINT);
        self.finish()
    }

    /// SIGTERM, then waits for the end.
    #[track_caller]
    pub fn terminate(self) -> Finished {
        self.process.signal(Signal::SIGTERM);
        self.finish()
    }

    /// The most memory the process has held, in bytes; Linux only.
    pub fn peak_memory(&self) -> Option<u64> {
        self.process.peak_memory()
    }

    /// SIGKILL: the process ends wherever it is.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

impl Finished {
    /// Asserts the exit code, showing what `fcore` said if it differs.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "unexpected exit code\n--- stdout\n{}\n--- stderr\n{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// The first event of this name.
    #[track_caller]
    pub fn event(&self, name: &str) -> &Value {
        let event = self.events.iter().find(|event| event["event"] == name);
        event.unwrap_or_else(|| panic!("no `{name}` among {:#?}", self.events))
    }
}

/// What every run is given: tests must reach their own peers only.
const ALWAYS: [&str; 3] = ["--json", "--no-dht", "--no-lan"];

/// The binary, built by the same profile as the running test unless `FCORE_BIN` names one.
///
/// Cargo hands a test the binaries of its own package only. A nested cargo is safe (cargo lets go of
/// its lock before tests run), fresh, and works in a new clone. It builds the binary for one of its own
/// tests, since only then are features resolved as `cargo test --workspace` does: so it finds everything built,
/// where `cargo build` would compile it all once more without the features of dev-dependencies.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("FCORE_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "test",
            "--no-run",
            "--workspace",
            "--test",
            "program",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(["--profile", &running_profile()])
        .current_dir(crate::home())
        .output()
        .expect("cargo runs: it started this test");
    assert!(
        output.status.success(),
        "fcore does not build\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let mut executables = messages.filter_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        let is_binary = message["target"]["name"] == "fcore";
        let executable = message["executable"].as_str().filter(|_| is_binary);
        executable.map(PathBuf::from)
    });
    executables
        .next_back()
        .expect("cargo names the executable it built")
}

/// The profile this program was built with: tests lie in `target/PROFILE/deps/`, others a folder higher.
fn running_profile() -> String {
    let this = std::env::current_exe().expect("the running program has a path");
    let mut folders = this.ancestors().skip(1).filter_map(Path::file_name);
    let folder = folders.find(|folder| !["deps", "examples"].map(OsStr::new).contains(folder));
    let folder = folder.map(OsStr::to_string_lossy);
    match folder.as_deref() {
        Some("debug") | None => "test".to_owned(),
        Some(profile) => profile.to_owned(),
    }
}
