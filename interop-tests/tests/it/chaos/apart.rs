//! A peer in a process of its own, which may be killed at any time: a Node script, or this program once more, which keeps
//! the conversation of `peers/chaos.mjs`.
//! Knows how they are run, and what a kill must leave. Does not know when that happens.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, script};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ours::{Ours, agree, hash_at, head_of};
use super::{Head, NAME};

/// Tells this program that it is a peer, and where its store is.
const DIRECTORY: &str = "FERROCORE_CHAOS_PEER";

/// What runs in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Node(Tree),
    Ours,
}

pub(super) struct Apart {
    pub(super) name: String,
    dir: PathBuf,
    pub(super) program: Program,
    pub(super) peer: Peer,
}

impl Apart {
    pub(super) fn start(name: String, dir: PathBuf, program: Program) -> Self {
        let peer = Peer::run(name.clone(), &mut command(program, &dir));
        Self {
            name,
            dir,
            program,
            peer,
        }
    }

    /// SIGKILL, and the same again.
    pub(super) fn replace(&mut self) {
        self.peer.halt();
        self.peer = Peer::run(self.name.clone(), &mut command(self.program, &self.dir));
    }

    /// What it says of a log.
    pub(super) fn standing(&mut self, slot: usize) -> Standing {
        let told = self.peer.call("info", json!({ "slot": slot }));
        Standing {
            head: Head::told(&told),
            contiguous: told["contiguousLength"].as_u64().unwrap(),
        }
    }

    /// Begins to append, and lets so much time go by. Nobody is told whether it is done.
    pub(super) fn begin_to_append(&mut self, slot: usize, count: u64, time: Duration) {
        let blocks = json!({ "slot": slot, "count": count, "size": 70_000, "fill": 7 });
        let _unfinished = self.peer.begin("append", blocks);
        std::thread::sleep(time); // a moment by chance; nothing is waited for
    }

    /// Holds that a killed writer has all it had told of, and at most `more` blocks of which it had not.
    pub(super) fn assert_kept(&mut self, slot: usize, told: &Standing, more: u64) -> Head {
        let kept = self.standing(slot);
        let (now, before) = (&kept.head, &told.head);
        assert_eq!(now.fork, before.fork, "{kept:?}, {told:?}");
        assert!(
            [before.length, before.length + more].contains(&now.length),
            "a batch is written whole or not at all: {kept:?}, {told:?}"
        );
        let at = json!({ "slot": slot, "length": before.length });
        assert_eq!(
            self.peer.call("hashAt", at),
            before.tree_hash,
            "{kept:?}, {told:?}"
        );
        assert_eq!(kept.contiguous, now.length, "all its blocks are here");
        kept.head
    }

    /// Holds that a killed reader has all it had told of.
    pub(super) fn assert_not_behind(&mut self, slot: usize, told: &Standing) {
        let kept = self.standing(slot);
        let order = |standing: &Standing| (standing.head.fork, standing.head.length);
        assert!(order(&kept) >= order(told), "{kept:?}, {told:?}");
        if kept.head.fork == told.head.fork {
            assert!(kept.contiguous >= told.contiguous, "{kept:?}, {told:?}");
        }
    }
}

/// What a peer has of a log.
#[derive(Debug)]
pub(super) struct Standing {
    head: Head,
    contiguous: u64,
}

fn command(program: Program, dir: &Path) -> Command {
    match program {
        Program::Node(tree) => script("chaos.mjs", tree, dir),
        Program::Ours => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", NAME, "--nocapture"])
                .env(DIRECTORY, dir);
            command
        }
    }
}

/// Whether this process was started to be a peer; if so, it was one until it was told to end.
pub(super) async fn was_a_peer() -> bool {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return false;
    };
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut ours = Ours::start(Path::new(&dir)).await;
    tell(&json!({ "event": "started" }));
    while let Some(line) = lines.recv().await {
        let asked: Value = serde_json::from_str(&line).unwrap();
        if asked["do"] == "converge" {
            let (core, head) = (ours.core(slot_of(&asked)).clone(), Head::told(&asked));
            tokio::spawn(async move {
                tell(&match agree(&core, &head).await {
                    Ok(()) => json!({ "id": asked["id"], "ok": null }),
                    Err(error) => json!({ "id": asked["id"], "error": error }),
                });
            });
        } else {
            let answer = answer(&mut ours, &asked).await;
            tell(&json!({ "id": asked["id"], "ok": answer }));
        }
    }
    ours.stop().await;
    true
}

async fn answer(ours: &mut Ours, asked: &Value) -> Value {
    let number = |name: &str| asked[name].as_u64().expect("a number");
    let slot = slot_of(asked);
    match asked["do"].as_str().unwrap() {
        "open" => info(ours.open(asked["key"].as_str(), asked["name"].as_str())),
        "listen" => json!({ "port": ours.port() }),
        "append" => {
            let size = number("size") as usize;
            ours.append(slot, number("count"), size, number("fill"));
            info(ours.core(slot))
        }
        "truncate" => {
            ours.truncate(slot, number("length"));
            info(ours.core(slot))
        }
        "connect" => {
            ours.dial(number("port") as u16);
            Value::Null
        }
        "disconnect" => {
            ours.disconnect();
            Value::Null
        }
        "info" => info(ours.core(slot)),
        "hashAt" => hash_at(ours.core(slot), number("length")),
        "explain" => ours.explain(slot).await.into(),
        other => panic!("no such command: {other}"),
    }
}

fn slot_of(asked: &Value) -> usize {
    asked["slot"].as_u64().unwrap_or_default() as usize
}

fn info(core: &ferrocore::Core) -> Value {
    let head = head_of(core);
    json!({
        "id": core.key().to_string(),
        "fork": head.fork,
        "length": head.length,
        "contiguousLength": core.contiguous_length(),
        "treeHash": head.tree_hash,
    })
}

/// Sends one line, on a line of its own whatever the test harness has written.
fn tell(message: &Value) {
    let mut out = std::io::stdout().lock();
    // Nobody listens once the other side has ended.
    let _ = write!(out, "\n{message}\n").and_then(|()| out.flush());
}
