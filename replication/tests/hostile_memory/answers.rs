//! Scenes in which we read: what answers cost that can neither be stored nor judged yet.

use std::thread;

use bytes::Bytes;
use ferrocore_log::core::Download;
use ferrocore_log::proof::{BlockProof, NodeRequest, Proof, ProofRequest};
use ferrocore_log::push::PushMode;
use ferrocore_log::{Core, Corestore};
use ferrocore_replication::limits::{
    KEPT_BYTES_ALL_MAX, KEPT_BYTES_MAX, PUSHED_WAITING_MAX, THOUSAND_CONNECTIONS_MAX, WINDOW_START,
};
use ferrocore_replication::messages::{Data, Message, Request};
use ferrocore_replication::session::PeersMemory;

use crate::common::gate::{self, Gate};
use crate::common::script::{Script, range, sync_of};
use crate::common::{Pair, assert_complete_copy, blocks};
use crate::{ALLOCATOR, Attacker, Budgets, CONNECTION_OWN_MAX, Scene, completes};

/// How often one attacker answers with garbage.
pub(crate) const ANSWERS: usize = 64;

/// So many that each of `count` is asked for some all the time. They are below one root, so that each block's path rests on
/// that of the first that is asked for.
fn blocks_for(count: usize) -> usize {
    (count * (ANSWERS + 4 * WINDOW_START)).next_power_of_two()
}

/// A log that we want from attackers, and from an honest peer in the end.
pub(crate) struct Read {
    at_writer: Corestore,
    pub(crate) writer: Core,
    reader: Core,
    all: Download,
}

impl Read {
    pub(crate) fn new(store: &Corestore, count: usize) -> Self {
        let at_writer = Corestore::memory();
        let writer = at_writer.get_named("read").unwrap();
        writer.append_batch(blocks(blocks_for(count))).unwrap();
        let reader = store.get(&writer.key()).unwrap();
        let all = reader.download_all();
        Self {
            at_writer,
            writer,
            reader,
            all,
        }
    }

    /// An honest peer brings all of it.
    pub(crate) async fn completes(&self, store: &Corestore, budgets: &Budgets) {
        completes(&self.at_writer, store, &self.all, budgets).await;
        assert_complete_copy(&self.writer, &self.reader);
    }
}

impl Attacker {
    /// Proves the log, says to have all of it, and answers with garbage until it is asked nothing more, but for what it is
    /// asked first.
    pub(crate) async fn attack_reader(&mut self, writer: &Core, len: usize) {
        let channel = self.prove(writer).await;
        let length = writer.length();
        let said = [sync_of(length), range(false, 0, length)];
        assert!(self.say(channel, said).await);
        let (mut is_first, mut left) = (true, ANSWERS);
        while left > 0 {
            let heard = self.hear().await;
            if heard.is_empty() {
                return;
            }
            for asked in heard {
                let Message::Request(request) = asked else {
                    continue;
                };
                let answer = match request.proof.block {
                    Some(_) if std::mem::take(&mut is_first) => continue,
                    Some(block) => {
                        left = left.saturating_sub(1);
                        garbage(request.id, block.index, len)
                    }
                    None => {
                        let manifest = true;
                        let asked = ProofRequest {
                            manifest,
                            ..request.proof
                        };
                        let proof = writer.prove(&asked).unwrap().unwrap();
                        let request = request.id;
                        Message::Data(Data { request, proof })
                    }
                };
                if !self.say(channel, [answer]).await {
                    return; // nothing more is read of it
                }
            }
        }
    }
}

/// A long block that does not hold.
fn garbage(request: u64, index: u64, len: usize) -> Message {
    let block = BlockProof {
        index,
        value: Bytes::from(vec![7; len]),
        nodes: Vec::new(),
    };
    let proof = Proof {
        block: Some(block),
        ..Proof::default()
    };
    Message::Data(Data { request, proof })
}

/// A reader whose device takes nothing, and its attackers.
struct Stalled {
    at_writer: Corestore,
    writer: Core,
    reader: Core,
    gate: Gate,
    /// What their connections share.
    answers: PeersMemory,
    scripts: Vec<Script>,
}

impl Stalled {
    fn new(count: usize) -> Self {
        let at_writer = Corestore::memory();
        let writer = at_writer.get_named("read").unwrap();
        writer.append_batch(blocks(blocks_for(count))).unwrap();
        let (reader, gate) = gate::reader(&writer.key());
        let mut pair = Pair::new(&at_writer, &Corestore::memory());
        pair.b.connection.attach(&reader);
        while reader.length() < writer.length() {
            pair.drive();
            thread::yield_now();
        }
        Self {
            at_writer,
            writer,
            reader,
            gate,
            answers: PeersMemory::new(KEPT_BYTES_ALL_MAX),
            scripts: Vec::new(),
        }
    }

    /// Connects one more, which says to have all, and returns what it is asked for.
    fn connect(&mut self) -> Vec<Request> {
        let mut script = Script::open(&Corestore::memory(), &self.reader);
        script.victim.connection.share_answers(&self.answers);
        script.victim.connection.attach(&self.reader);
        script.deliver().unwrap();
        script.say(&sync_of(self.writer.length()));
        script.say(&range(false, 0, self.writer.length()));
        let asked = script.deliver().unwrap().into_iter();
        let requests = asked.filter_map(|message| match message {
            Message::Request(request) if request.proof.block.is_some() => Some(request),
            _ => None,
        });
        self.scripts.push(script);
        requests.collect()
    }

    /// The last one says something, and its connection takes it in.
    fn say(&mut self, message: &Message) -> usize {
        let script = self.scripts.last_mut().unwrap();
        script.say(message);
        script.deliver().unwrap();
        script.victim.connection.backlog().kept_bytes
    }

    /// A true block, which from now on is on its way to the device.
    fn say_true(&mut self, request: u64, block: NodeRequest) {
        let asked = ProofRequest {
            block: Some(block),
            ..ProofRequest::default()
        };
        let proof = self.writer.prove(&asked).unwrap().unwrap();
        self.say(&Message::Data(Data { request, proof }));
        let script = self.scripts.last().unwrap();
        assert_eq!(script.victim.connection.backlog().commits, 1);
    }

    /// One more connects, truly answers once, and then with garbage until it is asked nothing more.
    fn answer(&mut self, len: usize) {
        let mut asked = self.connect();
        let first = asked.remove(0);
        self.say_true(first.id, first.proof.block.unwrap());
        for request in asked {
            let index = request.proof.block.unwrap().index;
            assert!(self.say(&garbage(request.id, index, len)) <= KEPT_BYTES_MAX);
        }
    }

    /// The same, but nobody asked.
    fn push(&mut self, len: usize) {
        self.connect();
        // Of a tree with one root, whole.
        let levels = u64::from(self.writer.length().ilog2());
        let index = self.scripts.len() as u64;
        let nodes = levels;
        self.say_true(0, NodeRequest { index, nodes });
        for index in 0..2 * PUSHED_WAITING_MAX as u64 {
            assert!(self.say(&garbage(0, index, len)) <= KEPT_BYTES_MAX);
        }
    }

    /// The device goes on, and an honest peer brings all.
    fn complete(mut self) {
        self.gate.open();
        while let Some(mut script) = self.scripts.pop() {
            while script.victim.connection.backlog().commits > 0 {
                script.deliver().unwrap();
                thread::yield_now();
            }
            assert_eq!(script.victim.connection.backlog().kept_bytes, 0);
        }
        let _all = self.reader.download_all();
        let mut pair = Pair::new(&self.at_writer, &Corestore::memory());
        pair.b.connection.attach(&self.reader);
        while self.reader.contiguous_length() < self.writer.length() {
            pair.drive();
            thread::yield_now();
        }
        assert_complete_copy(&self.writer, &self.reader);
    }
}

/// Plays one of the scenes with a device that takes nothing.
pub(crate) fn play(scene: Scene) {
    let (count, len) = match scene {
        Scene::Undurable(count, len) | Scene::Pushed(count, len) => (count, len),
        other => panic!("{other:?} is played elsewhere"),
    };
    let is_pushed = matches!(scene, Scene::Pushed(..));
    let mut stalled = Stalled::new(count);
    let _all = (!is_pushed).then(|| stalled.reader.download_all());
    if is_pushed {
        stalled.reader.set_push_mode(PushMode::Allow);
    }
    stalled.gate.close();
    let before = ALLOCATOR.allocated();
    for _ in 0..count {
        match is_pushed {
            true => stalled.push(len),
            false => stalled.answer(len),
        }
    }
    let cost = ALLOCATOR.max_allocated() - before;
    let scripts = stalled.scripts.iter();
    let kept = scripts.map(|script| script.victim.connection.backlog().kept_bytes);
    let kept: usize = kept.sum();
    let own = 4 * len; // what is said last, in the script and on its way
    println!("{scene:?}: {cost} bytes, {own} of them the attackers', {kept} of them kept");
    assert!(cost.saturating_sub(own + kept) <= count * CONNECTION_OWN_MAX);
    assert!(count > 1000 || cost.saturating_sub(own) <= THOUSAND_CONNECTIONS_MAX);
    assert!(kept <= scene.kept_max());
    assert!(
        2 * kept > scene.kept_max().min(count * 40 * len),
        "they do their worst"
    );
    stalled.complete();
}
