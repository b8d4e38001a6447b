//! A child process that speaks JSON lines: deadlines on every wait, its output kept for the
//! message of a failed test, killed when dropped.
//! Knows pipes and signals. Does not know what the lines mean.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

/// A running child and everything it has said so far.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// What [`Process::next_json`] came back with.
pub(crate) enum Next {
    /// A line that is a JSON object, from either stream.
    Json(Value),
    /// Both streams have ended.
    End,
    /// The deadline passed.
    Timeout,
}

struct Line {
    stream: Stream,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

impl Process {
    /// Starts `command` with all three streams piped; `name` is for messages.
    pub(crate) fn start(name: impl Into<String>, command: &mut Command) -> Self {
        let name = name.into();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (sender, lines) = mpsc::channel();
        forward(
            child.stdout.take().expect("stdout is piped"),
            Stream::Stdout,
            sender.clone(),
        );
        forward(
            child.stderr.take().expect("stderr is piped"),
            Stream::Stderr,
            sender,
        );
        let stdin = child.stdin.take();
        Self {
            name,
            child,
            stdin,
            lines,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Writes one line to the child's stdin. A child that is gone shows at the next read.
    pub(crate) fn write_line(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// Writes `input` to the child's stdin and closes it, while its output is being read.
    pub(crate) fn feed(&mut self, input: Vec<u8>) {
        let stdin = self.stdin.take();
        thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    }

    /// The next JSON object on either stream; other lines are only kept.
    pub(crate) fn next_json(&mut self, deadline: Instant) -> Next {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let json = serde_json::from_slice::<Value>(&line.bytes)
                        .ok()
                        .filter(Value::is_object);
                    self.keep(line);
                    if let Some(json) = json {
                        return Next::Json(json);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Next::Timeout,
                Err(RecvTimeoutError::Disconnected) => return Next::End,
            }
        }
    }

    /// Reaps the child after [`Next::End`].
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child
            .wait()
            .unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.name))
    }

    /// Sends a signal that the child may handle.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids fit in pid_t");
        signal::kill(Pid::from_raw(pid), signal)
            .unwrap_or_else(|errno| panic!("cannot send {signal} to {}: {errno}", self.name));
    }

    /// SIGKILL, and returns once the child is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // an error means that it has ended already
        let _ = self.child.wait();
    }

    /// The most memory the child has held, in bytes, while it runs and where `/proc` tells.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    }

    /// Everything read from stdout so far.
    pub(crate) fn stdout(&self) -> &[u8] {
        &self.stdout
    }

    /// Everything read from stderr so far.
    pub(crate) fn stderr(&self) -> &[u8] {
        &self.stderr
    }

    /// Ends the test: `problem`, and what the child had said.
    #[track_caller]
    pub(crate) fn fail(&self, problem: &str) -> ! {
        panic!(
            "{}: {problem}\n--- stdout\n{}\n--- stderr\n{}",
            self.name,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }

    fn keep(&mut self, line: Line) {
        match line.stream {
            Stream::Stdout => self.stdout.extend_from_slice(&line.bytes),
            Stream::Stderr => self.stderr.extend_from_slice(&line.bytes),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of the wait that starts now.
pub(crate) fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience
}

/// Reads a stream to its end in a thread of its own, so that the child never blocks on a full pipe.
fn forward(stream: impl Read + Send + 'static, kind: Stream, sender: Sender<Line>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        loop {
            let mut bytes = Vec::new();
            match reader.read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_)
                    if sender
                        .send(Line {
                            stream: kind,
                            bytes,
                        })
                        .is_err() =>
                {
                    return;
                }
                Ok(_) => {}
            }
        }
    });
}

/// How much of a stream a failure message shows.
const TAIL_BYTES_MAX: usize = 4096;

fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(TAIL_BYTES_MAX);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}
