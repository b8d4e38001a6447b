//! Where rows are played: an honest end of ours, a scripted peer before it, and an honest writer who knows the
//! truth.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::core::{AppendTicket, Download};
use ferrocore_log::fuzzing::signatures_checked;
use ferrocore_log::proof::{Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::push::PushMode;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{CoreHeader, Head, Storage};
use ferrocore_log::{Core, CoreOptions, Corestore, Durability, StoreOptions};
use ferrocore_mux::{ChannelId, Event, Mux, Segment};
use ferrocore_primitives::encoding::{Encode, put_buffer, put_string, put_uint};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::fuzzing::steps_done;
use ferrocore_replication::limits::{UPDATE_TIME_MAX, UPDATE_TOTAL_ALONE_MAX};
use ferrocore_replication::messages::{Data, Handshake, Message, NoData, Reason, Request, Sync};
use ferrocore_replication::{PeerMisbehaved, Stats};

use crate::act::{Act, Opening};
use crate::beside::Beside;
use crate::common::gate::Gate;
use crate::common::script::{range, sync_on};
use crate::common::{End, HANDSHAKE_HASH, Pair, blocks};
use crate::counted::{Counted, Reads};
use crate::lies::{Lie, Signatures, of_block, whole};
use crate::rows::Verdict;

/// Blocks of the log, and how long it was when the writer signed it before.
pub(crate) const LENGTH: u64 = 40;
const OLD_LENGTH: usize = 10;
/// Blocks of it that are below its first root.
const TREE: u64 = 32;

/// The last kind of message that we know.
const KIND_MAX: u64 = 9;

/// What we do while the peer misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// We read the log from it.
    Reads,
    /// We write the log.
    Writes,
}

/// How far both are when a row begins. Who writes the log asks for it only where it has lost it: its store was brought
/// back without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The stream is there, nothing more.
    Connected,
    /// The same. Who writes the log has lost it.
    Lost,
    /// The peer's channel is open.
    Open,
    /// We have asked for the whole log's proof. Who writes the log has lost it.
    Length,
    /// We have the proof, and have asked for block 4. Who writes the log has it.
    Block,
    /// The same. Who writes the log had lost it.
    Missing,
    /// We have the proof, and have asked for all blocks. Who writes the log had lost it.
    All,
    /// The same, but for all blocks below the first root.
    Tree,
    /// The peer says that it is on fork 1, and we have asked for its proof.
    Fork,
    /// We have the proof of the log, have asked for nothing more, and take what is pushed.
    Pushed,
    /// We have nothing, ask for nothing, and take what is pushed. Who writes the log has lost it.
    OnlyPushed,
    /// We have asked for all blocks, and what answered half of that is on its way to a device that takes nothing. Who
    /// writes the log has appended the last block, which is on that way, too.
    Committing,
}

/// One performance.
pub(crate) struct Stage {
    writer: Core,
    here: Corestore,
    signatures: Signatures,
    core: Core,
    victim: End,
    error: Option<PeerMisbehaved>,
    mux: Mux,
    channel: Option<ChannelId>,
    questions: VecDeque<Request>,
    last_answer: Option<Message>,
    is_reading: bool,
    /// Whether the log is written and whole where it is attacked.
    is_whole: bool,
    _wanted: Option<Download>,
    beside: Beside,
    /// How often our storage was read.
    reads: Reads,
    /// Before the device, if commits are to be durable.
    gate: Gate,
    appending: Option<AppendTicket>,
    now: Time,
    /// Messages that we sent.
    pub(crate) answers: usize,
    /// How many of them refused something: NoData, rejects.
    pub(crate) refusals: usize,
    /// Why, as far as it was said.
    pub(crate) reasons: BTreeSet<String>,
    /// Messages that the peer sent on its channel, of kinds that we know.
    pub(crate) said: u64,
    /// How many of them said that the log is longer.
    pub(crate) upgrades: u64,
    /// Bytes that the peer sent.
    pub(crate) sent: usize,
}

/// What a peer must not be able to change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    fork: u64,
    length: u64,
    tree_hash: ferrocore_primitives::hash::Hash,
    blocks: u64,
    has_conflict: bool,
}

impl Stage {
    pub(crate) fn set(role: Role, from: From) -> Self {
        let (here, writer) = writer();
        let (reads, gate) = (Reads::default(), Gate::default());
        let (there, core) = attacked(role, from, &writer, &reads, &gate);
        let is_whole = role == Role::Writes && !has_lost(from);
        let beside = match is_whole {
            true => Beside::of_log(&there, &core, &reads),
            false => Beside::of_another(&there, &reads),
        };
        let mut stage = Self {
            signatures: signatures(),
            victim: End::new(false, &there),
            error: None,
            mux: Mux::new(),
            channel: None,
            questions: VecDeque::new(),
            last_answer: None,
            is_reading: true,
            is_whole,
            _wanted: None,
            beside,
            reads,
            gate,
            appending: None,
            now: Time::ZERO,
            answers: 0,
            refusals: 0,
            reasons: BTreeSet::new(),
            said: 0,
            upgrades: 0,
            sent: 0,
            writer,
            here,
            core,
        };
        stage.come_to(from);
        stage
    }

    fn come_to(&mut self, from: From) {
        if matches!(from, From::Connected | From::Lost) {
            return;
        }
        match from {
            From::Pushed => self.core.set_push_mode(PushMode::Allow),
            From::OnlyPushed => self.core.set_push_mode(PushMode::Only),
            From::Committing => self.victim.connection.attach(&self.core),
            _ => {}
        }
        self.play(&Act::Open(Opening::True));
        if from == From::Open {
            return;
        }
        if from == From::Committing && self.is_whole {
            return self.append_last();
        }
        self.play(&Act::Say(sync(0, LENGTH)));
        if from == From::Length {
            assert!(!self.questions.is_empty(), "it is asked for the proof");
            return;
        }
        self.play(&Act::AnswerAll(Lie::None));
        self.settle();
        if matches!(from, From::Pushed | From::OnlyPushed) {
            return;
        }
        let wanted = match from {
            From::Block | From::Missing => 4..5,
            From::Tree => 0..TREE,
            _ => 0..LENGTH,
        };
        if from == From::Fork {
            self.play(&Act::Say(sync(1, LENGTH)));
        } else if !self.is_whole {
            self._wanted = Some(self.core.download(wanted));
            self.play(&Act::Say(range(false, 0, LENGTH)));
        }
        assert_eq!(
            self.questions.is_empty(),
            self.is_whole && from != From::Fork,
            "{from:?}"
        );
        if from == From::Committing {
            self.commit_half();
        }
    }

    /// Waits for commits that threads make.
    fn settle(&mut self) {
        self.deliver();
        while self.victim.connection.backlog().commits > 0 {
            thread::yield_now();
            self.deliver();
        }
    }

    /// The last block of the log is signed and on its way to the device.
    fn append_last(&mut self) {
        self.gate.close();
        let last = blocks(LENGTH as usize).pop().expect("it is long");
        self.appending = Some(self.core.append_async(last));
        self.gate.await_sync();
    }

    /// Half of the blocks are verified and on their way to the device.
    fn commit_half(&mut self) {
        self.gate.close();
        (0..LENGTH / 2).for_each(|_| self.answer(Lie::None));
        self.deliver();
        assert_eq!(self.victim.connection.backlog().commits, 1);
        self.gate.await_sync();
    }

    /// The device takes everything again.
    pub(crate) fn let_commit(&mut self) {
        self.gate.open();
        if let Some(append) = self.appending.take() {
            append.wait().unwrap();
        }
    }

    pub(crate) fn play(&mut self, act: &Act) {
        match act {
            Act::Say(message) => self.say(message),
            Act::Each(count, message) => (0..*count).for_each(|number| self.say(&message(number))),
            Act::Raw(kind, bytes) => self.raw(*kind, bytes),
            Act::RawTimes(count, kind, bytes) => (0..*count).for_each(|_| self.raw(*kind, bytes)),
            Act::Frame(frame) => self.frame(frame.clone()),
            Act::Open(opening) => self.open(*opening),
            Act::Answer(lie) => self.answer(*lie),
            Act::Push(count, lie) => self.push(*count, *lie, &of_block(4, 5)),
            Act::PushLog(count, lie) => self.push(*count, *lie, &pushed_log()),
            Act::Withhold => drop(self.questions.pop_front()),
            Act::Refuse => self.refuse(),
            Act::RefuseAll => self.all(Self::refuse),
            Act::AnswerAll(lie) => self.all(|stage| stage.answer(*lie)),
            Act::Again => {
                let again = self.last_answer.clone();
                again.iter().for_each(|message| self.say(message));
            }
            Act::StopReading => self.is_reading = false,
            Act::Pass(time) => self.pass(*time),
            Act::LeaveWaiting => self.wait_for_news(),
            Act::LetCommit => {
                self.let_commit();
                self.settle();
            }
            Act::Close => self.mux.close(self.channel.unwrap()),
        }
        self.deliver();
        self.beside.go_on(self.now);
    }

    /// Lets clocks go on, a second at a time.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = until.min(self.now + Duration::from_secs(1));
            self.deliver();
            self.beside.go_on(self.now);
        }
    }

    /// We offer the core and wait for news of it, for no longer than may be.
    fn wait_for_news(&mut self) {
        let core = self.core.clone();
        self.victim.connection.attach(&core);
        self.deliver();
        let (begin, mut update) = (self.now, pin!(core.update()));
        let context = &mut Context::from_waker(Waker::noop());
        while update.as_mut().poll(context).is_pending() {
            assert!(
                self.now < begin + UPDATE_TOTAL_ALONE_MAX,
                "we wait for ever"
            );
            self.pass(Duration::from_secs(1));
        }
    }

    /// What became of the peer, and why.
    pub(crate) fn verdict(&mut self) -> (Verdict, String) {
        if let Some(error) = &self.error {
            let verdict = match error.verdict() {
                ferrocore_replication::misbehaviour::Verdict::Ban => Verdict::Ban,
                _ => Verdict::CloseConnection,
            };
            return (verdict, name_of(error));
        }
        let misbehaved = self.victim.connection.poll_misbehaviour();
        if let Some(error) = &misbehaved {
            let verdict = match error.verdict() {
                ferrocore_replication::misbehaviour::Verdict::StopAsking => Verdict::StopAsking,
                _ => Verdict::CloseChannel,
            };
            return (verdict, name_of(error));
        }
        let is_read = self.victim.connection.wants_frame();
        let verdict = match () {
            () if !is_read => Verdict::NotRead,
            () if self.refusals > 0 => Verdict::Refuse,
            () => Verdict::Ignore,
        };
        (verdict, String::new())
    }

    pub(crate) fn state(&self) -> State {
        State {
            fork: self.core.fork(),
            length: self.core.length(),
            tree_hash: self.core.tree_hash(),
            blocks: self.core.count(0..1000),
            has_conflict: self.core.conflict().is_some(),
        }
    }

    /// Bytes that the scripted peer itself keeps, and the honest one beside it.
    pub(crate) fn own_bytes(&mut self) -> usize {
        (self.questions, self.last_answer) = (VecDeque::new(), None);
        let arriving: usize = self.victim.arriving.iter().map(Bytes::len).sum();
        arriving + self.beside_bytes()
    }

    /// Bytes that the honest peer beside it keeps.
    pub(crate) fn beside_bytes(&self) -> usize {
        usize::try_from(self.beside.bytes).unwrap_or(0)
    }

    /// How often our storage was read, but for the honest peer beside it.
    pub(crate) fn reads(&self) -> usize {
        self.reads.count() - self.beside.reads
    }

    /// How many signatures were checked, but for the honest peer beside it.
    pub(crate) fn signatures(&self) -> u64 {
        signatures_checked() - self.beside.signatures
    }

    /// How many steps of work were done, but for the honest peer beside it.
    pub(crate) fn steps(&self) -> u64 {
        steps_done() - self.beside.steps
    }

    /// Whether the honest peer had all it wanted while the other one was at it.
    pub(crate) fn has_served_beside(&self) -> bool {
        self.beside.is_served
    }

    /// What the connection with the peer has carried.
    pub(crate) fn stats(&self) -> Stats {
        self.victim.stats()
    }

    /// Lets an honest peer do what it came for, beside the other one and not faster than clocks go: who reads knows the
    /// newest length, has caught up and gets a block in [`UPDATE_TIME_MAX`].
    pub(crate) fn serves_an_honest_peer(&mut self) -> bool {
        let third = Corestore::memory();
        let (mut pair, reader) = match self.is_whole {
            false => (Pair::new(&self.here, &self.victim.store), self.core.clone()),
            true => (
                Pair::new(&self.victim.store, &third),
                third.get(&self.writer.key()).unwrap(),
            ),
        };
        if self.is_whole {
            pair.a.attach_if_outside(&self.core);
        }
        // Who asks for nothing would have to be pushed to.
        reader.set_push_mode(PushMode::Refuse);
        let all = reader.download_all();
        pair.b.connection.attach(&reader);
        let mut reads = pin!(async {
            reader.update().await.unwrap();
            all.caught_up().await.unwrap();
            reader.get(LENGTH - 1).await.unwrap();
        });
        let (begin, mut took) = (self.now, None);
        for _ in 0..80 {
            pair.now = self.now;
            pair.drive_all();
            if self.error.is_some() {
                let store = self.victim.store.clone();
                self.victim = End::new(false, &store); // its connection is gone
            } else {
                self.error = self.victim.step(self.now).err();
            }
            let context = &mut Context::from_waker(Waker::noop());
            if took.is_none() && reads.as_mut().poll(context).is_ready() {
                took = Some(self.now.saturating_since(begin));
            }
            self.now += Duration::from_secs(1);
        }
        let is_in_time = took.is_some_and(|took| took <= UPDATE_TIME_MAX);
        is_in_time && reader.length() == LENGTH && reader.count(0..LENGTH) == LENGTH
    }

    fn say(&mut self, message: &Message) {
        self.said += 1;
        self.upgrades += u64::from(is_upgrade(message));
        let (mux, channel) = (&mut self.mux, self.channel.expect("it is open"));
        let _ = message.encode(&mut Vec::new(), |segments| {
            mux.send(channel, message.kind(), segments)
        });
    }

    fn raw(&mut self, kind: u64, bytes: &[u8]) {
        self.said += u64::from(kind <= KIND_MAX);
        let channel = self.channel.expect("it is open");
        let _ = self.mux.send(channel, kind, &[Segment::Copy(bytes)]);
    }

    fn frame(&mut self, frame: Vec<u8>) {
        self.flush();
        self.send(frame.into());
    }

    fn answer(&mut self, lie: Lie) {
        let asked = self.questions.pop_front();
        let (id, asked) = match asked {
            Some(request) => (request.id, request.proof),
            None if lie.changes_proof() => panic!("nobody asks, so {lie:?} is not heard"),
            None => (77, of_block(4, 3)),
        };
        let proof = match lie.tell(&self.writer, &asked, &self.signatures) {
            Some(proof) => proof,
            // Of a fork that there is not: the log as it is, as if it were that fork's.
            None if lie == Lie::Fork => Proof {
                fork: asked.fork,
                ..whole(&self.writer)
            },
            None => whole(&self.writer),
        };
        let request = match lie {
            Lie::Id => id + 1000,
            Lie::IdZero => 0,
            _ => id,
        };
        let answer = Message::Data(Data { request, proof });
        self.say(&answer);
        self.last_answer = Some(answer);
    }

    fn push(&mut self, count: usize, lie: Lie, block: &ProofRequest) {
        let proof = lie.tell(&self.writer, block, &self.signatures);
        let proof = proof.expect("the writer has it");
        let pushed = Message::Data(Data { request: 0, proof });
        (0..count).for_each(|_| self.say(&pushed));
    }

    fn refuse(&mut self) {
        let request = self.questions.pop_front().map_or(77, |request| request.id);
        let reason = Reason::NotAvailable;
        self.say(&Message::NoData(NoData { request, reason }));
    }

    fn all(&mut self, answer: impl Fn(&mut Self)) {
        while !self.questions.is_empty() {
            answer(self);
            self.deliver();
        }
    }

    fn open(&mut self, opening: Opening) {
        let key = match opening {
            Opening::UnknownCore | Opening::OfAnotherCore => {
                Corestore::memory().get_named("other").unwrap().key()
            }
            _ => self.writer.key(),
        };
        let id = match opening {
            Opening::UnknownCore => key.discovery_key(),
            _ => self.writer.discovery_key(),
        };
        let capability = match opening {
            Opening::WrongCapability => [7; 32],
            Opening::Mirrored => capability(false, &key, &HANDSHAKE_HASH),
            _ => capability(true, &key, &HANDSHAKE_HASH),
        };
        let seeks = true;
        let mut handshake = Handshake { seeks, capability }.to_vec();
        if opening == Opening::CutShort {
            handshake.truncate(20);
        }
        if opening == Opening::True {
            let channel = self.mux.open(PROTOCOL, Some(id.as_bytes()), &handshake);
            self.channel = Some(channel.unwrap());
            return;
        }
        let (number, protocol) = match opening {
            Opening::NumberZero => (0, PROTOCOL.to_owned()),
            Opening::NumberFarOff => (1 << 30, PROTOCOL.to_owned()),
            Opening::Twice => (2, PROTOCOL.to_owned()),
            Opening::UnknownProtocol => (1, "hypercore/omega".to_owned()),
            Opening::LongName => (1, "x".repeat(2048)),
            _ => (1, PROTOCOL.to_owned()),
        };
        let id: &[u8] = match opening {
            Opening::WithoutId => &[],
            Opening::ShortId => &id.as_bytes()[..31],
            _ => id.as_bytes(),
        };
        let mut frame = vec![0, 1];
        put_uint(&mut frame, number);
        put_string(&mut frame, &protocol);
        put_buffer(&mut frame, id);
        frame.extend(handshake);
        self.frame(frame);
    }

    fn flush(&mut self) {
        while let Some(frame) = self.mux.poll_transmit() {
            self.send(frame.to_bytes());
        }
    }

    fn send(&mut self, frame: Bytes) {
        self.sent += frame.len();
        self.victim.arriving.push_back(frame);
    }

    /// Delivers what was said and hears what we answer.
    fn deliver(&mut self) {
        self.flush();
        while self.error.is_none() {
            let frames = match self.step() {
                Ok(frames) => frames,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            };
            let is_stuck = !self.victim.connection.wants_frame();
            let is_done = frames.is_empty() && (self.victim.arriving.is_empty() || is_stuck);
            frames.into_iter().for_each(|frame| self.hear(frame));
            if is_done {
                break;
            }
        }
    }

    /// As [`End::step`], but nothing is taken from us if the peer does not read.
    fn step(&mut self) -> Result<Vec<Bytes>, PeerMisbehaved> {
        if self.is_reading {
            return self.victim.step(self.now);
        }
        let connection = &mut self.victim.connection;
        if connection.wants_frame()
            && let Some(frame) = self.victim.arriving.pop_front()
        {
            connection.handle_frame(frame);
        }
        connection.poll_event(self.now).map(|_| Vec::new())
    }

    fn note_reason(&mut self, reason: Reason) {
        // Once each: what a row keeps is counted.
        let reason = format!("{reason:?}");
        if !self.reasons.contains(&reason) {
            self.reasons.insert(reason);
        }
    }

    fn hear(&mut self, frame: Bytes) {
        self.mux.handle_frame(frame);
        // What answers a frame that the mux here has not sent is an error to it.
        while let Some(event) = self.mux.poll_event().unwrap_or_else(|_| {
            self.refusals += 1;
            None
        }) {
            self.answers += 1;
            match event {
                Event::Message { kind, payload, .. } => match Message::decode(kind, &payload) {
                    Ok(Some(Message::Request(request))) => self.questions.push_back(request),
                    Ok(Some(Message::NoData(no_data))) => {
                        self.refusals += 1;
                        self.note_reason(no_data.reason);
                    }
                    _ => {}
                },
                Event::Rejected { .. } => self.refusals += 1,
                _ => {}
            }
        }
    }
}

/// The variant of an error, and of the one inside it.
fn name_of(error: &PeerMisbehaved) -> String {
    let debug = format!("{error:?}");
    let word = |text: &str| {
        text.split(|c: char| !c.is_alphanumeric())
            .next()
            .map(str::to_owned)
    };
    let (outer, inner) = debug.split_once('(').unwrap_or((&debug, ""));
    let outer = word(outer).unwrap_or_default();
    match word(inner).filter(|inner| !inner.is_empty()) {
        Some(inner) if outer == "Mux" || outer == "BadProof" => format!("{outer}({inner})"),
        _ => outer,
    }
}

fn is_upgrade(message: &Message) -> bool {
    matches!(message, Message::Data(data) if data.proof.upgrade.is_some())
}

/// What a reader would ask for that has nothing.
fn pushed_log() -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: LENGTH,
        }),
        manifest: true,
        ..of_block(0, 0)
    }
}

/// Whether who writes the log has lost it.
fn has_lost(from: From) -> bool {
    matches!(
        from,
        From::Lost | From::Length | From::Missing | From::All | From::Tree | From::OnlyPushed
    )
}

/// The store that is attacked, and the log in it.
fn attacked(
    role: Role,
    from: From,
    writer: &Core,
    reads: &Reads,
    gate: &Gate,
) -> (Corestore, Core) {
    let has_lost = role == Role::Writes && has_lost(from);
    let memory = match has_lost {
        true => Memory::restored([9; 32]),
        false => Memory::with_root_secret([9; 32]),
    };
    let (reads, gate) = (reads.clone(), gate.clone());
    let storage = Counted {
        memory,
        reads,
        gate,
    };
    if from == From::Committing {
        return (Corestore::memory(), durable(role, writer, &storage));
    }
    let store = Corestore::with_storage(storage, StoreOptions::default()).unwrap();
    let core = match role {
        Role::Reads => store.get(&writer.key()).unwrap(),
        Role::Writes => store.get_with(writer_options()).unwrap(),
    };
    assert_eq!(core.is_guarded(), has_lost);
    if role == Role::Writes && !has_lost {
        write(&core);
    }
    (store, core)
}

/// A core of no store, whose commits are made by threads. Who writes it has all but the last block.
fn durable(role: Role, writer: &Core, storage: &Counted) -> Core {
    let is_writer = role == Role::Writes;
    let header = CoreHeader {
        key: writer.key(),
        manifest: writer.manifest().filter(|_| is_writer),
        key_pair: is_writer.then(key_pair),
        user_data: Default::default(),
        head: Head::empty(),
    };
    let opened = storage.create(header).unwrap();
    let core = Core::open(opened, None, Durability::Sync).unwrap();
    if is_writer {
        core.append_batch(blocks(LENGTH as usize - 1)).unwrap();
    }
    core
}

fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn writer_options() -> CoreOptions {
    CoreOptions {
        key_pair: Some(key_pair()),
        ..CoreOptions::default()
    }
}

fn write(core: &Core) {
    let blocks = blocks(LENGTH as usize);
    core.append_batch(blocks[..OLD_LENGTH].to_vec()).unwrap();
    core.append_batch(blocks[OLD_LENGTH..].to_vec()).unwrap();
}

/// A writer that has signed its log twice.
fn writer() -> (Corestore, Core) {
    let store = Corestore::memory();
    let core = store.get_with(writer_options()).unwrap();
    write(&core);
    (store, core)
}

fn signatures() -> Signatures {
    let old = Corestore::memory();
    let old = old.get_with(writer_options()).unwrap();
    let blocks = blocks(LENGTH as usize);
    old.append_batch(blocks[..OLD_LENGTH].to_vec()).unwrap();
    let signature = |core: &Core| whole(core).upgrade.unwrap().signature.unwrap();
    let signed_old = signature(&old);
    old.truncate(1, Some(1)).unwrap();
    old.append_batch(blocks[1..].to_vec()).unwrap();
    Signatures {
        old: signed_old,
        other_fork: signature(&old),
    }
}

/// Tells a length on a fork, and that there is a manifest.
pub(crate) fn sync(fork: u64, length: u64) -> Message {
    match sync_on(fork, length) {
        Message::Sync(sync) => Message::Sync(Sync {
            has_manifest: true,
            ..sync
        }),
        other => other,
    }
}
