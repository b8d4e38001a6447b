//! A Node peer in a process of its own: one script of `peers/`, steered by JSON lines.
//! Knows `peers/conversation.mjs`. Does not know what the commands do.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::node::{self, Tree};
use crate::process::{Next, Process, deadline};

/// Which script a peer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `peers/bee.mjs`, a Hyperbee.
    Bee,
    /// `peers/core.mjs`, a Hypercore.
    Core,
    /// `peers/drive.mjs`, a Hyperdrive.
    Drive,
    /// `peers/stores.mjs`, many stores one after the other.
    Stores,
    /// `peers/swarm.mjs`, a Hyperdrive on a Hyperswarm.
    Swarm,
}

/// A running Node peer. Dropping it kills the process.
pub struct Peer {
    process: Process,
    last_id: u64,
    answers: HashMap<u64, Result<Value, String>>,
    events: VecDeque<Value>,
}

/// How a script of `peers/` is run on `tree`, keeping its cores in the folder `storage`.
pub fn script(name: &str, tree: Tree, storage: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .arg(crate::home().join("peers").join(name))
        .arg(node::ensure(tree))
        .arg(storage);
    command
}

/// A command under way, to be collected by [`Peer::finish`].
#[derive(Debug)]
#[must_use = "a failed command is only seen by `Peer::finish`"]
pub struct Call {
    id: u64,
    name: String,
}

impl Peer {
    /// Starts a peer of `role` on `tree`, keeping its cores in the folder `storage`.
    #[track_caller]
    pub fn start(tree: Tree, role: Role, storage: &Path) -> Self {
        let script = match role {
            Role::Bee => "bee.mjs",
            Role::Core => "core.mjs",
            Role::Drive => "drive.mjs",
            Role::Stores => "stores.mjs",
            Role::Swarm => "swarm.mjs",
        };
        let mut command = self::script(script, tree, storage);
        Self::run(format!("{script} on {tree:?}"), &mut command)
    }

    /// The most memory the process has held, in bytes; Linux only.
    pub fn peak_memory(&self) -> Option<u64> {
        self.process.peak_memory()
    }

    /// Starts any program that keeps the conversation of `peers/conversation.mjs`; `name` is for
    /// messages.
    #[track_caller]
    pub fn run(name: impl Into<String>, command: &mut Command) -> Self {
        let mut peer = Self {
            process: Process::start(name, command),
            last_id: 0,
            answers: HashMap::new(),
            events: VecDeque::new(),
        };
        peer.wait_event("started");
        peer
    }

    /// Sends a command without waiting for its answer; `arguments` is a JSON object.
    pub fn begin(&mut self, name: &str, mut arguments: Value) -> Call {
        self.last_id += 1;
        arguments["id"] = json!(self.last_id);
        arguments["do"] = json!(name);
        self.process.write_line(&arguments.to_string());
        Call {
            id: self.last_id,
            name: name.to_owned(),
        }
    }

    /// Waits so long for the answer to a command that must succeed if it comes at all.
    #[track_caller]
    pub fn finish_within(&mut self, call: Call, patience: Duration) -> Option<Value> {
        let end = deadline(patience);
        while !self.answers.contains_key(&call.id) {
            match self.process.next_json(end) {
                Next::Json(message) => self.sort(message),
                Next::End | Next::Timeout => return None,
            }
        }
        Some(self.finish(call))
    }

    /// Waits for the answer to a command, which may be a refusal.
    ///
    /// # Errors
    /// The peer's own message when it could not do it.
    #[track_caller]
    pub fn try_finish(&mut self, call: &Call) -> Result<Value, String> {
        let deadline = deadline(PATIENCE);
        loop {
            if let Some(answer) = self.answers.remove(&call.id) {
                return answer;
            }
            self.read_one(deadline, &call.name);
        }
    }

    /// Waits for the answer to a command that must succeed.
    #[track_caller]
    pub fn finish(&mut self, call: Call) -> Value {
        match self.try_finish(&call) {
            Ok(value) => value,
            Err(message) => self
                .process
                .fail(&format!("`{}` failed: {message}", call.name)),
        }
    }

    /// Sends a command that must succeed and waits for its answer.
    #[track_caller]
    pub fn call(&mut self, name: &str, arguments: Value) -> Value {
        let call = self.begin(name, arguments);
        self.finish(call)
    }

    /// Waits for the next event of this name; those before it are dropped.
    #[track_caller]
    pub fn wait_event(&mut self, name: &str) -> Value {
        let deadline = deadline(PATIENCE);
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["event"] == name {
                    return event;
                }
            }
            self.read_one(deadline, name);
        }
    }

    /// Serves the store on a free TCP port and returns the port.
    #[track_caller]
    pub fn listen(&mut self) -> u16 {
        let port = self.call("listen", json!({}))["port"].as_u64();
        port.and_then(|port| u16::try_from(port).ok())
            .expect("`listen` answers with a port")
    }

    /// Dials a peer on this machine and returns once the handshake is done.
    #[track_caller]
    pub fn connect(&mut self, port: u16) {
        self.call("connect", json!({ "port": port }));
    }

    /// Closes the store cleanly, then ends the process.
    #[track_caller]
    pub fn close(mut self) {
        self.call("close", json!({}));
    }

    /// SIGSTOP: the process stands still until [`resume`](Self::resume), and answers nothing.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// SIGKILL: the process ends wherever it is.
    pub fn kill(mut self) {
        self.halt();
    }

    /// As [`kill`](Self::kill), for one that will be replaced.
    pub fn halt(&mut self) {
        self.process.kill();
    }

    #[track_caller]
    fn read_one(&mut self, deadline: Instant, wanted: &str) {
        match self.process.next_json(deadline) {
            Next::Json(message) => self.sort(message),
            Next::End => self
                .process
                .fail(&format!("ended while the test waited for `{wanted}`")),
            Next::Timeout => self
                .process
                .fail(&format!("no `{wanted}` within {PATIENCE:?}")),
        }
    }

    fn sort(&mut self, mut message: Value) {
        let Some(id) = message["id"].as_u64() else {
            self.events.push_back(message);
            return;
        };
        let answer = match message["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(message["ok"].take()),
        };
        self.answers.insert(id, answer);
    }
}
