//! `fcore core replicate` and a Node peer, joined by nothing but two pipes.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, pipe};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::script;
use serde_json::Value;

/// How long either may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is killed if the test ends before it, and what it says on stderr.
struct Joined {
    process: Child,
    said: mpsc::Receiver<Value>,
}

impl Joined {
    fn start(mut command: Command, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Self {
        let command = command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (tell, said) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = stderr.lines().map_while(Result::ok);
            let messages = lines.filter_map(|line| serde_json::from_str(&line).ok());
            messages
                .map(|message| tell.send(message))
                .all(|sent| sent.is_ok())
        });
        Self { process, said }
    }

    /// Waits until it says something that is `wanted`.
    fn wait(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.said.recv_timeout(PATIENCE);
            let message = message.expect("it says so in time");
            if wanted(&message) {
                return message;
            }
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn info(fcore: &Fcore, core: &str) -> Value {
    let run = fcore.run(["core", "info", core]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let mut events = run.events.into_iter();
    events.find(|event| event["event"] == "core").unwrap()
}

#[test]
fn node_reads_what_fcore_writes_into_a_pipe() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let fcore = Fcore::new(at("ours"));
        assert_eq!(fcore.run(["core", "create", "log"]).code, Some(0));
        let lines: String = (0..50).map(|line| format!("line {line}\n")).collect();
        let appended = fcore.run_with(["core", "append", "log", "--lines"], lines.as_bytes());
        assert_eq!(appended.code, Some(0), "{}", appended.stderr);
        let core = info(&fcore, "log");

        let ((from_node, to_fcore), (from_fcore, to_node)) = (pipe().unwrap(), pipe().unwrap());
        let mut node = script("pipe.mjs", tree, &at("node"));
        node.args([core["key"].as_str().unwrap(), "50"]);
        let node = Joined::start(node, from_fcore, to_fcore);
        let ours = fcore.command(["core", "replicate", "log", "--initiator"]);
        let _ours = Joined::start(ours, from_node, to_node);
        let read = node.wait(|message| message["treeHash"].is_string());
        assert_eq!(read["treeHash"], core["tree_hash"], "{tree:?}");
    }
}

#[test]
fn fcore_reads_what_node_writes_into_a_pipe() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let ((from_node, to_fcore), (from_fcore, to_node)) = (pipe().unwrap(), pipe().unwrap());
        let node = Joined::start(script("pipe.mjs", tree, &at("node")), from_fcore, to_fcore);
        let written = node.wait(|message| message["key"].is_string());
        let key = written["key"].as_str().unwrap();
        let fcore = Fcore::new(at("ours"));
        let ours = Joined::start(
            fcore.command(["core", "replicate", key]),
            from_node,
            to_node,
        );
        ours.wait(|event| event["event"] == "synced" && event["length"] == 50);
        drop(node);
        drop(ours);
        let core = info(&fcore, key);
        assert_eq!(core["tree_hash"], written["treeHash"], "{tree:?}");
        assert_eq!(core["contiguous_length"], 50);
    }
}
