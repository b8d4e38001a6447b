//! Three Rust and three Node peers, of which one each writes, through appends, truncates, disconnects and
//! restarts: in the end all have the same logs, to the last byte that is stored. One of Node's is of version 10.38; one of ours is a process of its own, which
//! is killed instead of restarted, and loses nothing that it had told of. Which ones is up to the seed.
//!
//! `FERROCORE_CHAOS` rounds of it (3 in CI) for each of `FERROCORE_CHAOS_SEEDS` seeds (2 in CI) from
//! `FERROCORE_SEED` on; a failure names the seed, what happened, and what every peer then knew. Each connection has one of ours at an end: two of Node's may turn away from each
//! other for good over a truncate, for which nobody else can do anything (docs/RELIABILITY.md).
#![cfg(unix)]

mod apart;
mod ours;

use std::path::PathBuf;
use std::time::Duration;

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::rng::Rng;
use serde_json::{Value, json};
use tokio::time::timeout;

use apart::{Apart, Program};
use ours::{Ours, agree};

/// How long all peers may take to agree.
const PATIENCE: Duration = Duration::from_secs(120);

/// Things that happen between two moments at which all must agree.
const STEPS: u64 = 12;

/// Rust peers come first; the first of each kind writes a log.
const RUST: usize = 3;
const PEERS: usize = 6;
const WRITERS: [usize; 2] = [0, RUST];
const NAMES: [&str; 2] = ["by-rust", "by-node"];

/// What this test is called in this program.
const NAME: &str = "chaos::six_peers_agree_after_all_that_happens";

/// What every copy of a log must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    fork: u64,
    length: u64,
    tree_hash: Value,
}

/// A peer of ours, in this process.
struct Here {
    dir: PathBuf,
    /// None while it restarts.
    running: Option<Ours>,
}

enum Member {
    Here(Box<Here>),
    Apart(Box<Apart>),
}

struct Chaos {
    members: Vec<Member>,
    ports: Vec<u16>,
    keys: Vec<String>,
    heads: Vec<Head>,
    random: Rng,
    _scratch: tempfile::TempDir,
}

/// Which peer is what, by the seed: as the writer, and as each reader.
fn program(seed: u64, index: usize) -> Option<Program> {
    let ours_apart = (seed % 3) as usize;
    let older = RUST + (seed / 3 % 3) as usize;
    match index {
        index if index == ours_apart => Some(Program::Ours),
        index if index < RUST => None,
        index if index == older => Some(Program::Node(Tree::Legacy)),
        _ => Some(Program::Node(Tree::Current)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_peers_agree_after_all_that_happens() {
    if apart::was_a_peer().await {
        return;
    }
    let number = |name, default| {
        let value = std::env::var(name).ok();
        value.map_or(default, |value| value.parse::<u64>().expect("a number"))
    };
    let seed = number("FERROCORE_SEED", 2);
    let seeds = number("FERROCORE_CHAOS_SEEDS", 2);
    let rounds = number("FERROCORE_CHAOS", 3);
    for seed in seed..seed + seeds {
        let mut chaos = Chaos::start(seed).await;
        let heads = chaos.run(seed, rounds).await;
        println!(
            "FERROCORE_SEED={seed}: all six agreed after {rounds} rounds of {STEPS} steps; {heads:?}"
        );
    }
}

impl Chaos {
    async fn start(seed: u64) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut chaos = Self {
            members: Vec::new(),
            ports: vec![0; PEERS],
            keys: vec![String::new(); 2],
            heads: Vec::new(),
            random: Rng::new(seed),
            _scratch: scratch,
        };
        for index in 0..PEERS {
            let dir = chaos._scratch.path().join(index.to_string());
            let member = match program(seed, index) {
                None => Member::Here(Box::new(Here { dir, running: None })),
                Some(program) => {
                    let name = format!("peer {index}, {program:?}");
                    Member::Apart(Box::new(Apart::start(name, dir, program)))
                }
            };
            chaos.members.push(member);
        }
        // The writers first, who tell the keys.
        for (slot, writer) in WRITERS.into_iter().enumerate() {
            chaos.keys[slot] = chaos.key_of(writer, NAMES[slot]).await;
            chaos.heads.push(Head {
                fork: 0,
                length: 0,
                tree_hash: Value::Null,
            });
        }
        for index in 0..PEERS {
            chaos.open(index).await;
        }
        for slot in [0, 1] {
            chaos.append(slot).await;
        }
        chaos
    }

    /// The key of the log that a peer writes.
    async fn key_of(&mut self, writer: usize, name: &str) -> String {
        match &mut self.members[writer] {
            Member::Here(here) => {
                let mut ours = Ours::start(&here.dir).await;
                let key = ours.open(None, Some(name)).key().to_string();
                ours.stop().await;
                key
            }
            Member::Apart(apart) => {
                let named = json!({ "slot": 0, "name": name });
                let opened = apart.peer.call("open", named);
                if matches!(apart.program, Program::Node(_)) {
                    apart.peer.call("close", json!({}));
                }
                apart.replace();
                opened["id"].as_str().unwrap().to_owned()
            }
        }
    }

    /// Lets things happen, and waits until all agree, `rounds` times; what they agree on in the end.
    async fn run(&mut self, seed: u64, rounds: u64) -> &[Head] {
        for round in 0..rounds {
            let mut course = Vec::new();
            for _ in 0..STEPS {
                course.push(self.step().await);
            }
            let context = || format!("FERROCORE_SEED={seed}, round {round}: {course:?}");
            self.converge(&context).await;
        }
        &self.heads
    }

    /// Does something at random, and tells what.
    async fn step(&mut self) -> String {
        let (slot, peer) = (self.random.index(2), self.random.index(PEERS));
        match self.random.below(10) {
            0..=3 => self.append(slot).await,
            4 if self.heads[slot].length > 1 => self.truncate(slot).await,
            4 | 5 => self.disconnect(peer),
            6 | 7 => self.restart(peer).await,
            _ => {
                let other = self.random.index(PEERS);
                match peer.min(other) < RUST {
                    true => self.connect(peer, other),
                    false => self.connect(peer, other - RUST),
                }
            }
        }
    }

    async fn append(&mut self, slot: usize) -> String {
        let count = 1 + self.random.below(60);
        let size: usize = *self.random.pick(&[0, 1, 100, 3_000, 70_000]);
        let fill = self.random.below(256);
        self.heads[slot] = match &mut self.members[WRITERS[slot]] {
            Member::Here(here) => here.running().append(slot, count, size, fill),
            Member::Apart(apart) => {
                let blocks = json!({ "slot": slot, "count": count, "size": size, "fill": fill });
                Head::told(&apart.peer.call("append", blocks))
            }
        };
        format!("append {count} x {size} to {slot}")
    }

    async fn truncate(&mut self, slot: usize) -> String {
        let length = 1 + self.random.below(self.heads[slot].length - 1);
        self.heads[slot] = match &mut self.members[WRITERS[slot]] {
            Member::Here(here) => here.running().truncate(slot, length),
            Member::Apart(apart) => {
                let cut = json!({ "slot": slot, "length": length });
                Head::told(&apart.peer.call("truncate", cut))
            }
        };
        format!("truncate {slot} to {length}")
    }

    fn disconnect(&mut self, peer: usize) -> String {
        match &mut self.members[peer] {
            Member::Here(here) => here.running().disconnect(),
            Member::Apart(apart) => drop(apart.peer.call("disconnect", json!({}))),
        }
        format!("disconnect {peer}")
    }

    fn connect(&mut self, from: usize, to: usize) -> String {
        if from == to {
            return "nothing".to_owned();
        }
        let port = self.ports[to];
        match &mut self.members[from] {
            Member::Here(here) => here.running().dial(port),
            Member::Apart(apart) => drop(apart.peer.call("connect", json!({ "port": port }))),
        }
        format!("connect {from} to {to}")
    }

    /// Node's readers are killed; its writer, which may not have written all it said, ends cleanly. Ours in a process of its
    /// own is killed, a writer perhaps in the middle of an append.
    async fn restart(&mut self, peer: usize) -> String {
        let writes = WRITERS.iter().position(|writer| *writer == peer);
        match &mut self.members[peer] {
            Member::Here(here) => here.running.take().unwrap().stop().await,
            Member::Apart(apart) if apart.program == Program::Ours => {
                return self.kill(peer).await;
            }
            Member::Apart(apart) => {
                if writes.is_some() {
                    apart.peer.call("close", json!({}));
                }
                apart.replace();
            }
        }
        self.open(peer).await;
        format!("restart {peer}")
    }

    async fn kill(&mut self, peer: usize) -> String {
        let more = self.random.below(2) * self.random.below(60);
        let time = Duration::from_micros(self.random.below(30_000));
        let told = [0, 1].map(|slot| self.apart(peer).standing(slot));
        let writes = WRITERS.iter().position(|writer| *writer == peer);
        if let Some(slot) = writes.filter(|_| more > 0) {
            self.apart(peer).begin_to_append(slot, more, time);
        }
        self.apart(peer).replace();
        self.open(peer).await;
        for (slot, told) in told.iter().enumerate() {
            match writes == Some(slot) {
                true => self.heads[slot] = self.apart(peer).assert_kept(slot, told, more),
                false => self.apart(peer).assert_not_behind(slot, told),
            }
        }
        format!("kill {peer} while it appends {more}")
    }

    fn apart(&mut self, peer: usize) -> &mut Apart {
        match &mut self.members[peer] {
            Member::Apart(apart) => apart,
            Member::Here(_) => panic!("it is in this process"),
        }
    }

    /// Opens the cores of a peer that has just started, and has it listen.
    async fn open(&mut self, peer: usize) {
        let keys = &self.keys;
        let named = |slot: usize| (WRITERS[slot] == peer).then_some(NAMES[slot]);
        self.ports[peer] = match &mut self.members[peer] {
            Member::Here(here) => {
                let mut ours = Ours::start(&here.dir).await;
                for slot in [0, 1] {
                    let name = named(slot);
                    let key = name.is_none().then_some(keys[slot].as_str());
                    ours.open(key, name);
                }
                here.running.insert(ours).port()
            }
            Member::Apart(apart) => {
                for slot in [0, 1] {
                    let opened = match named(slot) {
                        Some(name) => json!({ "slot": slot, "name": name }),
                        None => json!({ "slot": slot, "key": keys[slot] }),
                    };
                    apart.peer.call("open", opened);
                }
                apart.peer.listen()
            }
        };
    }

    /// Connects everybody in a line, ours and Node's in turn, and waits until all have what the writers have.
    async fn converge(&mut self, context: &impl Fn() -> String) {
        let mut line = [(0..RUST).collect::<Vec<_>>(), (RUST..PEERS).collect()];
        line.iter_mut().for_each(|kind| self.random.shuffle(kind));
        if self.random.below(2) == 1 {
            line.swap(0, 1);
        }
        let line: Vec<usize> = (0..PEERS).map(|at| line[at % 2][at / 2]).collect();
        for pair in line.windows(2) {
            // Ours dial: they go on until somebody answers.
            self.connect(pair[0].min(pair[1]), pair[0].max(pair[1]));
        }
        let heads = self.heads.clone();
        for (slot, head) in heads.iter().enumerate() {
            for index in 0..PEERS {
                if !self.members[index].agrees(slot, head).await {
                    let all = self.explain(slot).await;
                    panic!(
                        "peer {index} is not {head:?} of {slot}\n{all}\n{}",
                        context()
                    );
                }
            }
        }
    }

    /// What every peer says of a log, and of those it replicates it with.
    async fn explain(&mut self, slot: usize) -> String {
        let mut all = String::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            let port = self.ports[index];
            let said = match member {
                Member::Here(here) => here.running().explain(slot).await,
                Member::Apart(apart) => {
                    let explained = apart.peer.call("explain", json!({ "slot": slot }));
                    match explained.as_str() {
                        Some(text) => text.to_owned(),
                        None => explained.to_string(),
                    }
                }
            };
            all += &format!("peer {index} at {port}: {said}\n");
        }
        all
    }
}

impl Member {
    /// Waits until this peer has all of a log, and it is right.
    async fn agrees(&mut self, slot: usize, head: &Head) -> bool {
        match self {
            Self::Here(here) => {
                let agreed = timeout(PATIENCE, agree(here.running().core(slot), head));
                let agreed = agreed.await;
                agreed.map(Result::unwrap).is_ok()
            }
            Self::Apart(apart) => {
                let wanted = json!({
                    "slot": slot, "fork": head.fork, "length": head.length,
                    "treeHash": head.tree_hash,
                });
                let call = apart.peer.begin("converge", wanted);
                let agreed = apart.peer.finish_within(call, PATIENCE);
                let lost = agreed.iter().flat_map(Value::as_array).flatten();
                let lost = lost.filter(|told| told.to_string().contains("was lost in the move"));
                lost.for_each(|told| println!("{}: {told}", apart.name));
                agreed.is_some()
            }
        }
    }
}

impl Here {
    fn running(&mut self) -> &mut Ours {
        self.running.as_mut().expect("it is running between steps")
    }
}

impl Head {
    /// As a process tells it.
    fn told(info: &Value) -> Self {
        Self {
            fork: info["fork"].as_u64().unwrap(),
            length: info["length"].as_u64().unwrap(),
            tree_hash: info["treeHash"].clone(),
        }
    }
}
