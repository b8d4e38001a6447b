//! Goal: what hostile connections cost in memory is bounded, one by one and a thousand together.
//! Method: each attacker speaks raw bytes or frames to a real session over a pipe, on virtual time; an
//! allocator counts. Each scene has a process of its own. `FERROCORE_HOSTILE` says how many do all they can at
//! once, or answer us; the other scenes of many have a thousand.

#[path = "hostile_memory/answers.rs"]
mod answers;
#[path = "hostile_memory/asking.rs"]
mod asking;
mod common;

use std::alloc::System;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cap::Cap;
use common::script::{block, request};
use common::{assert_complete_copy, blocks};
use ferrocore_log::core::Download;
use ferrocore_log::{Core, Corestore, StoreOptions};
use ferrocore_mux::limits::REMOTE_CHANNELS_MAX;
use ferrocore_mux::{ChannelId, Event, Mux};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::limits::{
    CONNECTION_OWN_MAX, KEPT_BYTES_ALL_MAX, KEPT_BYTES_MAX, KEPT_BYTES_OWN, LONG_BUFFERS_MAX,
    PEERS_MEMORY_MAX, SHORT_CONNECTION_OWN_MAX, THOUSAND_CONNECTIONS_MAX, UNANSWERED_OFFERS_BYTES,
    UNPROVEN_FRAME_LEN_MAX,
};
use ferrocore_replication::messages::{BitfieldWords, Handshake, Message};
use ferrocore_replication::session::{LongBuffers, PeersMemory, SessionOptions};
use ferrocore_secret_stream::budget::{FRAME_BUDGET, FREE_FRAME_LEN};
use ferrocore_secret_stream::{
    FRAME_LEN_MAX, FrameBudgets, Options, Receiver, Role, SecretStream, Sender,
};
use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::time::timeout;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a connection may cost before its capability is proven, in bytes.
const UNPROVEN_MAX: usize = 2 << 20;

/// Questions of one that has proven itself: what is remembered of them is near what may be.
const QUESTIONS: u64 = 8_000;

/// The longest blocks that are read without room for them, in bytes: with long buffers, and with short ones.
const LONG_BLOCK: usize = 256 * 1024;
const SHORT_BLOCK: usize = 64 * 1024;

/// Cores that we read, of which nobody has any.
const CORES: u64 = 10_000;

/// Bytes that a pipe holds. They count, too.
const PIPE: usize = 4096;

/// What an attacker does and then holds on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Nothing after the handshake.
    Silence,
    /// The longest frame that takes no room, but for its last byte.
    AlmostFreeFrame,
    /// The longest frame before a proof, but for its last byte.
    AlmostUnprovenFrame,
    /// Opens channels of cores that are not here, and reads no answer.
    OpensAndReadsNot,
    /// The same, until it has used up all channel numbers, reading.
    AllChannelNumbers,
    /// A batch as long as may be that opens channels.
    LongBatchOfOpens,
    /// All of it: numbers used up, answers unread, and then a frame without end.
    Everything,
}

const UNPROVEN: [Attack; 7] = [
    Attack::Silence,
    Attack::AlmostFreeFrame,
    Attack::AlmostUnprovenFrame,
    Attack::OpensAndReadsNot,
    Attack::AllChannelNumbers,
    Attack::LongBatchOfOpens,
    Attack::Everything,
];

/// An attacker's end. Dropped, the connection ends.
struct Attacker {
    sender: Sender<Raw>,
    raw: Raw,
    receiver: Receiver<ReadHalf<DuplexStream>>,
    handshake_hash: [u8; 64],
    mux: Mux,
    session: Session,
}

impl Attacker {
    async fn connect(store: &Corestore, budgets: &Budgets) -> Self {
        let (ours, theirs) = duplex(PIPE);
        let options = Options {
            keep_alive: None,
            ..Options::default()
        };
        let (ours_keys, theirs_keys) = (KeyPair::generate(), KeyPair::generate());
        let (ours, theirs) = tokio::try_join!(
            SecretStream::handshake(ours, Role::Responder, &ours_keys, options),
            SecretStream::handshake(theirs, Role::Initiator, &theirs_keys, options),
        )
        .unwrap();
        let session = SessionOptions {
            frame_budgets: budgets.frames.clone(),
            peers_memory: budgets.words.clone(),
            answers_memory: budgets.answers.clone(),
            long_buffers: budgets.places.clone(),
            ..SessionOptions::default()
        };
        let handshake_hash = *theirs.handshake_hash();
        let mut raw = None;
        let (sender, receiver) = theirs.split_with(|io| {
            let (reader, writer) = tokio::io::split(io);
            let writer = Raw(Arc::new(Mutex::new(writer)));
            raw = Some(writer.clone());
            (writer, reader)
        });
        Self {
            sender,
            raw: raw.unwrap(),
            receiver,
            handshake_hash,
            mux: Mux::new(),
            session: Session::spawn(ours, store.clone(), session),
        }
    }

    /// Returns how many bytes the attacker itself had in memory.
    async fn attack(&mut self, attack: Attack) -> usize {
        match attack {
            Attack::Silence => {}
            Attack::AlmostFreeFrame => self.begin_frame(FREE_FRAME_LEN, FREE_FRAME_LEN - 1).await,
            Attack::AlmostUnprovenFrame => {
                self.begin_frame(UNPROVEN_FRAME_LEN_MAX, UNPROVEN_FRAME_LEN_MAX - 1)
                    .await;
            }
            Attack::OpensAndReadsNot => self.open_unknown(60_000, false).await,
            Attack::AllChannelNumbers => self.open_unknown(REMOTE_CHANNELS_MAX as u64, true).await,
            Attack::LongBatchOfOpens => {
                let open = open_of(1, &[7; 32]);
                let mut batch = Vec::with_capacity(UNPROVEN_FRAME_LEN_MAX);
                batch.extend([0, 0, 0]);
                while batch.len() + open.len() + 2 < UNPROVEN_FRAME_LEN_MAX - 64 {
                    batch.push(u8::try_from(open.len()).unwrap());
                    batch.extend(&open);
                }
                self.sender.send(&[&batch]).await.unwrap();
                drop(batch);
                self.sender.flush().await.unwrap();
                return UNPROVEN_FRAME_LEN_MAX;
            }
            Attack::Everything => {
                self.open_unknown(REMOTE_CHANNELS_MAX as u64, true).await;
                self.open_unknown(60_000, false).await;
                self.begin_frame(UNPROVEN_FRAME_LEN_MAX, UNPROVEN_FRAME_LEN_MAX - 1)
                    .await;
            }
        }
        0
    }

    /// Opens the channel of a core whose key it knows.
    async fn prove(&mut self, core: &Core) -> ChannelId {
        let (channel, open) = self.open_true(core);
        self.send(&open).await;
        let answer = self.receiver.recv().await.unwrap();
        self.mux.handle_frame(answer.expect("an answer"));
        channel
    }

    /// A channel of a core whose key it knows, and the frame that opens it.
    fn open_true(&mut self, core: &Core) -> (ChannelId, Bytes) {
        let capability = capability(true, &core.key(), &self.handshake_hash);
        let handshake = Handshake {
            seeks: true,
            capability,
        };
        let id = core.discovery_key();
        let opened = self
            .mux
            .open(PROTOCOL, Some(id.as_bytes()), &handshake.to_vec());
        let frame = self.mux.poll_transmit().unwrap().to_bytes();
        (opened.unwrap(), frame)
    }

    /// The same, and it reads no answer, but waits until it has been heard.
    async fn prove_unheard(&mut self, core: &Core) {
        let open = self.open_true(core);
        self.send(&open.1).await;
        while !self.session.is_proven() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it is told next; nothing once that takes long.
    async fn hear(&mut self) -> Vec<Message> {
        let mut heard = Vec::new();
        while heard.is_empty() {
            while let Some(event) = self.mux.poll_event().unwrap() {
                if let Event::Message { kind, payload, .. } = event {
                    heard.extend(Message::decode(kind, &payload).unwrap());
                }
            }
            if heard.is_empty() {
                let frame = timeout(Duration::from_secs(1), self.receiver.recv()).await;
                let Ok(Ok(Some(frame))) = frame else {
                    break;
                };
                self.mux.handle_frame(frame);
            }
        }
        heard
    }

    /// All that one can do who knows a key and reads nothing: says to have blocks all over the place, asks long
    /// blocks without end, and begins the longest frame there is.
    async fn attack_proven(&mut self, core: &Core, pages: u64) {
        let channel = self.prove(core).await;
        // A page of memory each, however few blocks are in it.
        let mut words = vec![0; 1024];
        words[7] = 0x5555_5555;
        for page in 1..=pages {
            let (start, words) = (page * 32_768, words.clone());
            let said = Message::Bitfield(BitfieldWords { start, words });
            if !self.say(channel, [said]).await {
                return; // nothing more is read of it
            }
        }
        for hundred in 0..QUESTIONS / 100 {
            let ids = 100 * hundred..100 * (hundred + 1);
            let asked = ids.map(|id| request(id, block(id % core.length())));
            if !self.say(channel, asked).await {
                return;
            }
        }
        self.begin_frame(FRAME_LEN_MAX, FRAME_LEN_MAX - 1).await;
    }

    /// False if nobody takes it. All of it fits in a frame.
    async fn say(
        &mut self,
        channel: ChannelId,
        messages: impl IntoIterator<Item = Message>,
    ) -> bool {
        let mux = &mut self.mux;
        for message in messages {
            let sent = message.encode(&mut Vec::new(), |segments| {
                mux.send(channel, message.kind(), segments)
            });
            sent.unwrap();
        }
        let frame = self.mux.poll_transmit().unwrap().to_bytes();
        self.try_send(&frame).await
    }

    /// Announces a frame and sends a part of it, as far as it is taken.
    async fn begin_frame(&mut self, len: usize, sent: usize) {
        let raw = &mut self.raw;
        let prefix = u32::try_from(len).unwrap().to_le_bytes();
        let _ = give(raw, &prefix[..3]).await;
        let piece = [0; PIPE];
        let mut rest = sent;
        while rest > 0 && give(raw, &piece[..rest.min(PIPE)]).await {
            rest -= rest.min(PIPE);
        }
    }

    /// Opens `count` channels, 100 a frame, under numbers of their own or always the same hundred.
    async fn open_unknown(&mut self, count: u64, is_reading: bool) {
        for hundred in 0..count / 100 {
            let mut batch = vec![0, 0, 0];
            for number in 0..100 {
                let number = 1 + number + if is_reading { 100 * hundred } else { 0 };
                let open = open_of(number, &number.to_le_bytes().repeat(4));
                batch.push(u8::try_from(open.len()).unwrap());
                batch.extend(open);
            }
            if !self.try_send(&batch).await {
                return;
            }
            if is_reading {
                let soon = Duration::from_millis(1);
                while let Ok(Ok(Some(_))) = timeout(soon, self.receiver.recv()).await {}
            }
        }
    }

    async fn send(&mut self, message: &[u8]) {
        assert!(self.try_send(message).await);
    }

    /// False if nobody takes it.
    async fn try_send(&mut self, message: &[u8]) -> bool {
        let sent = async {
            self.sender.send(&[message]).await?;
            self.sender.flush().await
        };
        matches!(timeout(Duration::from_millis(100), sent).await, Ok(Ok(())))
    }
}

/// The writing half of a pipe, for frames and for bytes that are none.
#[derive(Clone)]
struct Raw(Arc<Mutex<WriteHalf<DuplexStream>>>);

impl AsyncWrite for Raw {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_shutdown(context)
    }
}

/// An `open` without the channel before it.
fn open_of(number: u64, id: &[u8]) -> Vec<u8> {
    use ferrocore_primitives::encoding::{put_buffer, put_string, put_uint};
    let mut open = vec![1];
    put_uint(&mut open, number);
    put_string(&mut open, PROTOCOL);
    put_buffer(&mut open, id);
    open.extend([1; 33]);
    open
}

/// Writes while it is taken within a time.
async fn give(raw: &mut Raw, bytes: &[u8]) -> bool {
    let written = timeout(Duration::from_millis(100), raw.write_all(bytes)).await;
    matches!(written, Ok(Ok(())))
}

/// What is measured in a process of its own, so that no other's peak hides its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    One(Attack),
    Many(Attack),
    /// So many, and we read [`CORES`].
    Reading(usize, Attack),
    /// The same, and each knows a key, and answers nothing.
    ReadingProven(usize),
    /// Once each has shown that it knows a key, it begins the longest frame there is.
    ThousandProven,
    /// So many do all they can once they have shown that they know a key of blocks of this length.
    Proven(usize, usize),
    /// We read, and so many hold back what the others of their answers, garbage of this length, rest on.
    Parked(usize, usize),
    /// We read from so many for a device that takes nothing, and they answer with garbage of this length.
    Undurable(usize, usize),
    /// The same, but it is pushed.
    Pushed(usize, usize),
    /// So many have a longer answer overtake the one that waits for room.
    Overtaking(usize),
    /// So many ask what is here of all that one question can be about.
    Wanting(usize),
    /// One frame as long as may be, of messages on two channels in turn.
    Alternating,
}

impl Scene {
    /// How much of answers may be kept, in bytes, on so many connections.
    fn kept_max(self) -> usize {
        match self {
            Self::Parked(count, _) | Self::Undurable(count, _) | Self::Pushed(count, _) => {
                (count * KEPT_BYTES_MAX).min(KEPT_BYTES_ALL_MAX + count * KEPT_BYTES_OWN)
            }
            _ => 0,
        }
    }
}

fn scenes() -> Vec<Scene> {
    let mut scenes = UNPROVEN.map(Scene::One).to_vec();
    scenes.push(Scene::Many(Attack::AlmostUnprovenFrame));
    scenes.push(Scene::Many(Attack::Everything));
    scenes.push(Scene::ThousandProven);
    scenes.extend(UNPROVEN.map(|attack| Scene::Reading(1, attack)));
    scenes.push(Scene::Reading(many().unwrap_or(50), Attack::Everything));
    scenes.push(Scene::Reading(1000, Attack::Silence));
    scenes.push(Scene::ReadingProven(1));
    scenes.push(Scene::ReadingProven(1000));
    scenes.push(Scene::Proven(1, LONG_BLOCK));
    scenes.push(Scene::Proven(8, LONG_BLOCK));
    scenes.push(Scene::Proven(1000, SHORT_BLOCK));
    scenes.push(Scene::Proven(1000, LONG_BLOCK));
    let many = many().unwrap_or(16);
    let (long, short) = (4 << 20, 16 << 10); // either comes to more than may be kept
    scenes.extend([Scene::Parked(1, long), Scene::Parked(many, short)]);
    scenes.extend([Scene::Undurable(1, long), Scene::Undurable(many, short)]);
    scenes.extend([Scene::Pushed(1, long), Scene::Pushed(many, short)]);
    scenes.extend([Scene::Overtaking(28), Scene::Wanting(100)]);
    scenes.push(Scene::Alternating);
    scenes
}

/// How many of those that do all they can, or answer us, there are at once.
fn many() -> Option<usize> {
    let count = std::env::var("FERROCORE_HOSTILE").ok()?;
    Some(count.parse().unwrap())
}

/// Names the scene that a process is to play.
const SCENE: &str = "FERROCORE_HOSTILE_SCENE";

#[test]
fn hostile_connections_cost_little() {
    if let Ok(name) = std::env::var(SCENE) {
        let scene = scenes()
            .into_iter()
            .find(|scene| format!("{scene:?}") == name);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let scene = scene.unwrap();
        return match scene {
            Scene::Undurable(..) | Scene::Pushed(..) => answers::play(scene),
            _ => runtime.block_on(play(scene)),
        };
    }
    for scene in scenes() {
        let played = Command::new(std::env::current_exe().unwrap())
            .args(["hostile_connections_cost_little", "--exact", "--nocapture"])
            .env(SCENE, format!("{scene:?}"))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&played.stdout);
        let figures = output.lines().filter(|line| line.contains(" bytes"));
        figures.for_each(|line| println!("{line}"));
        assert!(
            played.status.success(),
            "{output}{}",
            String::from_utf8_lossy(&played.stderr)
        );
    }
}

/// What the connections of a scene share.
#[derive(Clone)]
struct Budgets {
    frames: FrameBudgets,
    words: PeersMemory,
    answers: PeersMemory,
    places: LongBuffers,
}

impl Budgets {
    fn held(&self) -> usize {
        self.frames.held() + self.words.held() + self.answers.held()
    }
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("ferrocore-hostile-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn play(scene: Scene) {
    let folder = Folder::new();
    let store = match scene {
        // On disk, so that what is read of it takes memory.
        Scene::Proven(..) | Scene::Overtaking(_) => {
            Corestore::open(&folder.0, StoreOptions::default()).unwrap()
        }
        _ => Corestore::memory(),
    };
    let core = store.get_named("core").unwrap();
    core.append_batch(blocks(10)).unwrap();
    let read = match scene {
        Scene::Parked(count, _) => Some(answers::Read::new(&store, count)),
        _ => None,
    };
    let _cores = match scene {
        Scene::Reading(..) | Scene::ReadingProven(_) => unknown(&store),
        _ => Vec::new(),
    };
    let long = match scene {
        Scene::Overtaking(_) => asking::uneven(&store),
        Scene::Wanting(_) => asking::empty_copy(&store),
        _ => store.get_named("long").unwrap(),
    };
    if let Scene::Proven(_, len) = scene {
        let block = vec![7; len];
        for _ in 0..10 {
            long.append(block.clone()).unwrap();
        }
    }
    let budget = Budgets {
        frames: FrameBudgets::new(FRAME_BUDGET),
        words: PeersMemory::new(PEERS_MEMORY_MAX),
        answers: PeersMemory::new(KEPT_BYTES_ALL_MAX),
        places: LongBuffers::new(LONG_BUFFERS_MAX),
    };
    drop(Attacker::connect(&store, &budget).await); // makes what is made once
    settle().await;
    let before = ALLOCATOR.allocated();
    let fillers = match scene {
        Scene::Overtaking(_) => asking::fillers(&store, &long, &budget).await,
        _ => Vec::new(),
    };
    let many = many().unwrap_or(50);
    let (count, max) = match scene {
        Scene::Parked(count, _) | Scene::Undurable(count, _) | Scene::Pushed(count, _) => {
            let own = count * CONNECTION_OWN_MAX;
            (count, own + scene.kept_max())
        }
        Scene::One(_) => (1, UNPROVEN_MAX),
        Scene::Reading(count, _) => {
            let each = UNPROVEN_MAX.min(THOUSAND_CONNECTIONS_MAX / count.max(1));
            (count, count * each)
        }
        Scene::ReadingProven(count) => {
            let own = if count > 1 {
                SHORT_CONNECTION_OWN_MAX
            } else {
                CONNECTION_OWN_MAX
            };
            (count, count * own + UNANSWERED_OFFERS_BYTES)
        }
        Scene::Proven(count, _) => {
            let long = count.min(LONG_BUFFERS_MAX);
            let short = count - long;
            let own = long * CONNECTION_OWN_MAX + short * SHORT_CONNECTION_OWN_MAX;
            (count, own)
        }
        Scene::Overtaking(count) => {
            let own = (count + fillers.len()) * SHORT_CONNECTION_OWN_MAX;
            (count, own + FRAME_BUDGET / 2)
        }
        Scene::Wanting(count) => (count, count * SHORT_CONNECTION_OWN_MAX),
        Scene::Alternating => (1, FRAME_LEN_MAX + CONNECTION_OWN_MAX),
        Scene::Many(Attack::Everything) => (many, many * (THOUSAND_CONNECTIONS_MAX / 1000)),
        Scene::Many(_) | Scene::ThousandProven => (1000, THOUSAND_CONNECTIONS_MAX),
    };
    // Enough to use up what they share.
    let pages = if count > 8 { 24 } else { 256 };
    // All at once: were one to attack after the other, the first would be gone when the last comes.
    let mut attacks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (store, core, budget) = (store.clone(), core.clone(), budget.clone());
        let long = long.clone();
        let writer = read.as_ref().map(|read| read.writer.clone());
        attacks.spawn(async move {
            let mut attacker = Attacker::connect(&store, &budget).await;
            let own = match scene {
                Scene::One(attack) | Scene::Many(attack) | Scene::Reading(_, attack) => {
                    attacker.attack(attack).await
                }
                Scene::ReadingProven(_) => {
                    attacker.prove_unheard(&core).await;
                    0
                }
                Scene::ThousandProven => {
                    attacker.prove(&core).await;
                    attacker.begin_frame(FRAME_LEN_MAX, 100_000).await;
                    0
                }
                Scene::Proven(..) => {
                    attacker.attack_proven(&long, pages).await;
                    0
                }
                Scene::Overtaking(_) => {
                    attacker.overtake(&long).await;
                    0
                }
                Scene::Wanting(_) => {
                    attacker.want_all(&long).await;
                    0
                }
                Scene::Alternating => attacker.alternate([&core, &long]).await,
                Scene::Parked(_, len) => {
                    attacker.attack_reader(&writer.unwrap(), len).await;
                    3 * len // to say it once
                }
                Scene::Undurable(..) | Scene::Pushed(..) => unreachable!("they have no sessions"),
            };
            (attacker, own)
        });
    }
    let attackers = attacks.join_all().await;
    if !fillers.is_empty() {
        drop(fillers); // now there is room
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let cost = ALLOCATOR.max_allocated() - before;
    let own: usize = attackers.iter().map(|(_, own)| own).sum();
    let connected = attackers
        .iter()
        .filter(|(attacker, _)| !attacker.session.is_closed())
        .count();
    let (held, words) = (budget.frames.held(), budget.words.held());
    println!(
        "{scene:?}: {cost} bytes, {own} of them the attackers', {held} and {words} in the budgets, {connected} connected"
    );
    assert_eq!(connected, count);
    let shared = match scene {
        Scene::Proven(..) | Scene::Parked(..) => held + words.min(PEERS_MEMORY_MAX),
        _ => 0, // there is room for it below
    };
    assert!(cost.saturating_sub(own + shared) <= max);
    assert!(count > 1000 || cost.saturating_sub(own) <= THOUSAND_CONNECTIONS_MAX);
    assert!(held <= FRAME_BUDGET);
    if scene == Scene::Proven(1, LONG_BLOCK) {
        assert_eq!(budget.places.free(), LONG_BUFFERS_MAX - 1);
        assert!(
            held >= FRAME_LEN_MAX && words >= 1 << 20,
            "it does its worst"
        );
    }
    if let (Some(read), Scene::Parked(_, len)) = (read, scene) {
        let kept = cost.saturating_sub(own);
        let worst = scene.kept_max().min(count * answers::ANSWERS * len);
        assert!(2 * kept > worst, "they do their worst");
        read.completes(&store, &budget).await;
    }
    // Beside them an honest peer gets all it wants: its blocks need no room.
    honest_peer_completes(&store, &core, &budget).await;
    drop(attackers);
    settle().await;
    assert_eq!(budget.held(), 0, "whoever is gone holds nothing");
    assert_eq!(budget.places.free(), LONG_BUFFERS_MAX);
}

/// Readers of cores that nobody has.
fn unknown(store: &Corestore) -> Vec<Core> {
    let keys = (0..CORES).map(|number| {
        let mut key = [5; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Key::from(key)
    });
    keys.map(|key| store.get(&key).unwrap()).collect()
}

async fn honest_peer_completes(store: &Corestore, core: &Core, budgets: &Budgets) {
    let there = Corestore::memory();
    let reader = there.get(&core.key()).unwrap();
    let all = reader.download_all();
    completes(store, &there, &all, budgets).await;
    assert_complete_copy(core, &reader);
}

/// Two honest ones are connected until `all` has caught up.
async fn completes(store: &Corestore, there: &Corestore, all: &Download, budgets: &Budgets) {
    let (ours, theirs) = duplex(PIPE);
    let (ours_keys, theirs_keys) = (KeyPair::generate(), KeyPair::generate());
    let (ours, theirs) = tokio::try_join!(
        SecretStream::handshake(ours, Role::Responder, &ours_keys, Options::default()),
        SecretStream::handshake(theirs, Role::Initiator, &theirs_keys, Options::default()),
    )
    .unwrap();
    let options = SessionOptions {
        frame_budgets: budgets.frames.clone(),
        peers_memory: budgets.words.clone(),
        answers_memory: budgets.answers.clone(),
        long_buffers: budgets.places.clone(),
        ..SessionOptions::default()
    };
    let _sessions = (
        Session::spawn(ours, store.clone(), options.clone()),
        Session::spawn(theirs, there.clone(), options),
    );
    all.caught_up().await.unwrap();
}

/// Lets tasks end whose connections are gone.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}
