//! Three Rust and three Node peers, of which one each writes, through appends, truncates, disconnects and
//! restarts: in the end all have the same logs.
//!
//! `FERROCORE_CHAOS` rounds of it (3 in CI) for each of `FERROCORE_CHAOS_SEEDS` seeds (2 in CI) from
//! `FERROCORE_SEED` on; a failure names the seed, what happened, and what every peer then knew. Each connection has one of ours at an end: two of Node's may turn away from each
//! other for good over a truncate, for which nobody else can do anything (docs/RELIABILITY.md).
#![cfg(unix)]

use std::path::PathBuf;
use std::time::Duration;

use ferrocore::log::core::Download;
use ferrocore::{Core, Dialing, Node};
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long all peers may take to agree.
const PATIENCE: Duration = Duration::from_secs(120);

/// Things that happen between two moments at which all must agree.
const STEPS: u64 = 12;

/// Rust peers come first; the first of each kind writes a log.
const RUST: usize = 3;
const PEERS: usize = 6;
const WRITERS: [usize; 2] = [0, RUST];
const NAMES: [&str; 2] = ["by-rust", "by-node"];

/// What every copy of a log must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    fork: u64,
    length: u64,
    tree_hash: Value,
}

/// A peer of ours, in this process.
struct Ours {
    dir: PathBuf,
    /// None while it restarts.
    running: Option<Running>,
}

struct Running {
    node: Node,
    cores: Vec<(Core, Download)>,
    dialing: Vec<Dialing>,
}

/// A peer of Node's.
struct Theirs {
    dir: PathBuf,
    peer: Peer,
}

enum Member {
    Ours(Box<Ours>),
    Theirs(Box<Theirs>),
}

struct Chaos {
    members: Vec<Member>,
    ports: Vec<u16>,
    keys: Vec<String>,
    heads: Vec<Head>,
    random: Random,
    _scratch: tempfile::TempDir,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_peers_agree_after_all_that_happens() {
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
            random: Random(seed),
            _scratch: scratch,
        };
        for index in 0..PEERS {
            let dir = chaos._scratch.path().join(index.to_string());
            let member = match index < RUST {
                true => Member::Ours(Box::new(Ours { dir, running: None })),
                false => {
                    let peer = Peer::run(format!("peer {index}"), &mut command(&dir));
                    Member::Theirs(Box::new(Theirs { dir, peer }))
                }
            };
            chaos.members.push(member);
        }
        for slot in [0, 1] {
            let writer = WRITERS[slot];
            chaos.keys[slot] = match &mut chaos.members[writer] {
                Member::Ours(ours) => {
                    let node = Node::builder().dir(&ours.dir).open().await.unwrap();
                    let key = node.create_core(NAMES[slot]).unwrap().key();
                    node.close().await;
                    key.to_string()
                }
                Member::Theirs(theirs) => {
                    let opened = theirs
                        .peer
                        .call("open", json!({ "slot": slot, "name": NAMES[slot] }));
                    opened["id"].as_str().unwrap().to_owned()
                }
            };
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
        let (slot, peer) = (
            self.random.below(2) as usize,
            self.random.below(PEERS as u64) as usize,
        );
        match self.random.below(10) {
            0..=3 => self.append(slot).await,
            4 if self.heads[slot].length > 1 => self.truncate(slot).await,
            4 | 5 => self.disconnect(peer),
            6 | 7 => self.restart(peer).await,
            _ => {
                let other = self.random.below(PEERS as u64) as usize;
                match peer.min(other) < RUST {
                    true => self.connect(peer, other),
                    false => self.connect(peer, other - RUST),
                }
            }
        }
    }

    async fn append(&mut self, slot: usize) -> String {
        let count = 1 + self.random.below(60);
        let size = [0, 1, 100, 3_000, 70_000][self.random.below(5) as usize];
        let fill = self.random.below(256);
        self.heads[slot] = match &mut self.members[WRITERS[slot]] {
            Member::Ours(ours) => {
                let core = ours.core(slot);
                let block = |index| vec![(fill + index) as u8; size as usize].into();
                core.append_batch((0..count).map(block).collect()).unwrap();
                head_of(core)
            }
            Member::Theirs(theirs) => {
                let blocks = json!({ "slot": slot, "count": count, "size": size, "fill": fill });
                told(&theirs.peer.call("append", blocks))
            }
        };
        format!("append {count} x {size} to {slot}")
    }

    async fn truncate(&mut self, slot: usize) -> String {
        let length = 1 + self.random.below(self.heads[slot].length - 1);
        self.heads[slot] = match &mut self.members[WRITERS[slot]] {
            Member::Ours(ours) => {
                ours.core(slot).truncate(length, None).unwrap();
                head_of(ours.core(slot))
            }
            Member::Theirs(theirs) => {
                let cut = json!({ "slot": slot, "length": length });
                told(&theirs.peer.call("truncate", cut))
            }
        };
        format!("truncate {slot} to {length}")
    }

    fn disconnect(&mut self, peer: usize) -> String {
        match &mut self.members[peer] {
            Member::Ours(ours) => ours.running().dialing.clear(),
            Member::Theirs(theirs) => drop(theirs.peer.call("disconnect", json!({}))),
        }
        format!("disconnect {peer}")
    }

    fn connect(&mut self, from: usize, to: usize) -> String {
        if from == to {
            return "nothing".to_owned();
        }
        let port = self.ports[to];
        match &mut self.members[from] {
            Member::Ours(ours) => {
                let running = ours.running();
                let dialing = running.node.dial(format!("127.0.0.1:{port}"));
                running.dialing.push(dialing);
            }
            Member::Theirs(theirs) => drop(theirs.peer.call("connect", json!({ "port": port }))),
        }
        format!("connect {from} to {to}")
    }

    /// Node's readers are killed; its writer, which may not have written all it said, ends cleanly.
    async fn restart(&mut self, peer: usize) -> String {
        match &mut self.members[peer] {
            Member::Ours(ours) => {
                let Running {
                    node,
                    cores,
                    dialing,
                } = ours.running.take().unwrap();
                drop(dialing);
                node.close().await;
                drop((cores, node));
            }
            Member::Theirs(theirs) => {
                if WRITERS.contains(&peer) {
                    theirs.peer.call("close", json!({}));
                }
                theirs.peer.halt();
                theirs.peer = Peer::run(format!("peer {peer}"), &mut command(&theirs.dir));
            }
        }
        self.open(peer).await;
        format!("restart {peer}")
    }

    /// Opens the cores of a peer that has just started, and has it listen.
    async fn open(&mut self, peer: usize) {
        let keys = &self.keys;
        self.ports[peer] = match &mut self.members[peer] {
            Member::Ours(ours) => {
                let builder = Node::builder().dir(&ours.dir).listen("127.0.0.1:0");
                let node = builder.open().await.unwrap();
                let open = |slot: usize| match WRITERS[slot] == peer {
                    true => node.create_core(NAMES[slot]).unwrap(),
                    false => node.core(&keys[slot].parse().unwrap()).unwrap(),
                };
                let cores = [0, 1]
                    .map(open)
                    .map(|core| (core.clone(), core.download_all()));
                let port = node.listen_addr().unwrap().port();
                ours.running = Some(Running {
                    node,
                    cores: cores.into(),
                    dialing: Vec::new(),
                });
                port
            }
            Member::Theirs(theirs) => {
                for slot in [0, 1] {
                    let opened = match WRITERS[slot] == peer {
                        true => json!({ "slot": slot, "name": NAMES[slot] }),
                        false => json!({ "slot": slot, "key": keys[slot] }),
                    };
                    theirs.peer.call("open", opened);
                }
                theirs.peer.listen()
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
                Member::Ours(ours) => {
                    let head = (
                        head_of(ours.core(slot)),
                        ours.core(slot).contiguous_length(),
                    );
                    let key = ours.core(slot).key();
                    let reports = ours.running().node.peer_reports().await;
                    let channels = reports.iter().map(|report| {
                        let cores = report.session.cores.iter();
                        let core = cores.filter(|core| core.key == key).collect::<Vec<_>>();
                        format!("  {:?}: {core:?}", report.peer)
                    });
                    format!("{head:?}\n{}", channels.collect::<Vec<_>>().join("\n"))
                }
                Member::Theirs(theirs) => theirs
                    .peer
                    .call("explain", json!({ "slot": slot }))
                    .to_string(),
            };
            all += &format!("peer {index} at {port}: {said}\n");
        }
        all
    }
}

impl Member {
    /// Waits until this peer has all of a log.
    async fn agrees(&mut self, slot: usize, head: &Head) -> bool {
        match self {
            Self::Ours(ours) => timeout(PATIENCE, agree(ours.core(slot), head))
                .await
                .is_ok(),
            Self::Theirs(theirs) => {
                let wanted = json!({
                    "slot": slot, "fork": head.fork, "length": head.length,
                    "treeHash": head.tree_hash,
                });
                let call = theirs.peer.begin("converge", wanted);
                theirs.peer.finish_within(call, PATIENCE).is_some()
            }
        }
    }
}

impl Ours {
    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it is running between steps")
    }

    fn core(&mut self, slot: usize) -> &Core {
        &self.running().cores[slot].0
    }
}

/// Waits until `core` is what `head` says, with every block.
async fn agree(core: &Core, head: &Head) {
    let events = core.events();
    while head_of(core) != *head || core.contiguous_length() != head.length {
        events.next().await;
    }
}

fn head_of(core: &Core) -> Head {
    let head = core.head();
    let digits = head.root_hash.as_bytes().iter();
    let hash: String = digits.map(|byte| format!("{byte:02x}")).collect();
    Head {
        fork: head.fork,
        length: head.length,
        tree_hash: if head.length == 0 {
            Value::Null
        } else {
            json!(hash)
        },
    }
}

fn told(info: &Value) -> Head {
    Head {
        fork: info["fork"].as_u64().unwrap(),
        length: info["length"].as_u64().unwrap(),
        tree_hash: info["treeHash"].clone(),
    }
}

fn command(storage: &std::path::Path) -> std::process::Command {
    ferrocore_interop_tests::peer::script("chaos.mjs", Tree::Current, storage)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
