//! `fcore` as a child process: with a store of its own, JSON events read line by line, a deadline
//! on every wait, killed when the test is over.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A scratch folder with a store in it.
pub(crate) struct Bench {
    root: tempfile::TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// A command that is running.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    events: Vec<Value>,
    seen: usize,
    stderr: Option<JoinHandle<String>>,
    _watchdog: Watchdog,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command on the store called `store`, in the scratch folder.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, store: &str, arguments: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fcore"));
        let is = |argument: &A, wanted: &str| argument.as_ref() == wanted;
        let is_private = arguments.iter().any(|each| is(each, "--bootstrap"))
            || matches!(arguments, [dht, first, ..] if is(dht, "dht") && is(first, "bootstrap"));
        if !is_private {
            command.arg("--no-dht");
        }
        command
            .arg("--store")
            .arg(self.path(store))
            // Tests must reach their own peers only.
            .arg("--no-lan")
            .args(arguments)
            .current_dir(self.root.path())
            .env_remove("FCORE_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, store: &str, arguments: &[A]) -> Finished {
        self.run_with(store, arguments, &[])
    }

    /// The same, once more if it does not end with `code`, a few times: a path through the network may be late on a busy machine.
    #[track_caller]
    pub(crate) fn run_until<A: AsRef<OsStr>>(
        &self,
        store: &str,
        arguments: &[A],
        code: i32,
    ) -> Finished {
        const ATTEMPTS: usize = 5;
        let mut runs = std::iter::repeat_with(|| self.run(store, arguments)).take(ATTEMPTS);
        let last = runs.find(|run| run.code == Some(code));
        last.unwrap_or_else(|| self.run(store, arguments).expect(code))
    }

    /// The same, with something on stdin.
    #[track_caller]
    pub(crate) fn run_with<A: AsRef<OsStr>>(
        &self,
        store: &str,
        arguments: &[A],
        stdin: &[u8],
    ) -> Finished {
        let mut child = self
            .command(store, arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let _watchdog = Watchdog::of(&child);
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        let feeding = std::thread::spawn(move || pipe.write_all(&stdin));
        let output = child.wait_with_output().unwrap();
        let _ = feeding.join().unwrap();
        Finished {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command whose stdin and stdout are `stream`; its stderr is piped.
    pub(crate) fn start_on(&self, store: &str, arguments: &[&str], stream: UnixStream) -> Child {
        let stdin = OwnedFd::from(stream.try_clone().unwrap());
        let mut command = self.command(store, arguments);
        let stdout = OwnedFd::from(stream);
        command.stdin(stdin).stdout(stdout).spawn().unwrap()
    }

    /// Starts a command with `--json`.
    #[track_caller]
    pub(crate) fn start<A: AsRef<OsStr>>(&self, store: &str, arguments: &[A]) -> Running {
        let mut child = self
            .command(store, arguments)
            .arg("--json")
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).ok();
            text
        });
        Running {
            _watchdog: Watchdog::of(&child),
            child,
            lines,
            events: Vec::new(),
            seen: 0,
            stderr: Some(stderr),
        }
    }

    /// Shares the folder `folder` on a free port; returns the process, the link and the address.
    #[track_caller]
    pub(crate) fn share(&self, store: &str, folder: &str) -> (Running, String, String) {
        let mut share = self.start(store, &["share", folder, "--listen", "127.0.0.1:0"]);
        let ready = share.wait("ready");
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        (share, text("link"), text("listen"))
    }
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert_eq!(
            self.code,
            Some(code),
            "\n--- stdout\n{stdout}\n--- stderr\n{}",
            self.stderr
        );
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// The first event of that name, wherever it was written.
    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> Value {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let mut events = stdout
            .lines()
            .chain(self.stderr.lines())
            .filter_map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                (event["event"] == name).then_some(event)
            });
        events
            .next()
            .unwrap_or_else(|| panic!("no `{name}` in\n{stdout}\n{}", self.stderr))
    }
}

impl Running {
    /// The next event of that name.
    #[track_caller]
    pub(crate) fn wait(&mut self, name: &str) -> Value {
        self.wait_for(name, |event| event["event"] == name)
    }

    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.events.get(self.seen) {
                self.seen += 1;
                if matches(event) {
                    return event.clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                self.child.kill().ok();
                let stderr = self.stderr.take().map(|stderr| stderr.join().unwrap());
                panic!(
                    "no `{what}` among {:#?}\n{}",
                    self.events,
                    stderr.unwrap_or_default()
                );
            };
            self.events.push(serde_json::from_str(&line).unwrap());
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = self.child.wait().unwrap();
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv() {
            self.events.push(serde_json::from_str(&line).unwrap());
        }
        for event in &self.events {
            stdout.push_str(&format!("{event}\n"));
        }
        Finished {
            code: status.code(),
            stdout: stdout.into(),
            stderr: self.stderr.take().unwrap().join().unwrap(),
        }
    }

    /// Ctrl-C, and the end.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Finished {
        self.signal("INT");
        self.finish()
    }

    /// SIGKILL, and the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Kills a process that is not done in time, unless dropped before.
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    pub(crate) fn of(child: &Child) -> Self {
        let (alive, over) = channel();
        let pid = child.id();
        std::thread::spawn(move || {
            if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                send_signal(pid, "KILL");
            }
        });
        Self { _alive: alive }
    }
}

/// Sends a signal by its name, as kill(1) knows it.
fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// Files of a folder by path, with their content.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(folder).unwrap().to_owned();
            if path.is_symlink() {
                let target = path.read_link().unwrap();
                files.push((relative, target.into_os_string().into_encoded_bytes()));
            } else if path.is_dir() {
                folders.push(path);
            } else {
                files.push((relative, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Bytes without a pattern, from a seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
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
