//! Goal: a swarm of ours and swarms of Hyperswarm 4.17 agree on which connections there are: when both dial at once, when there
//! are more peers than are wanted, when one of them sleeps. Method: a private DHT of a Node process on loopback.
#![cfg(unix)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ferrocore_interop_tests::PATIENCE;
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::Peer;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::dht::{BootstrapNode, Dht};
use ferrocore_swarm::{
    Connection, ConnectionId, Connections, JoinOptions, MessageError, Messages, Online, Session,
    Swarm, SwarmBuilder, SwarmEvent, SwarmEvents, Topic, UNTAKEN_MAX,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

const SERVING: JoinOptions = JoinOptions {
    server: true,
    client: false,
    limit: None,
};

const LOOKING: JoinOptions = JoinOptions {
    server: false,
    client: true,
    limit: None,
};

/// How often something is looked at that no event tells of.
const PAUSE: Duration = Duration::from_millis(10);

/// Swarms of Node, and a DHT of their own.
struct Node {
    peer: Peer,
    port: u16,
    keys: Vec<PublicKey>,
}

impl Node {
    fn with_swarms(count: usize) -> Self {
        let mut peer = Self::start();
        let port = peer.call("testnet", json!({}))["port"].as_u64().unwrap();
        Self::open(peer, port.try_into().unwrap(), count)
    }

    /// Another process on the same DHT.
    fn beside(&self, count: usize) -> Self {
        let mut peer = Self::start();
        peer.call("attend", json!({ "port": self.port }));
        Self::open(peer, self.port, count)
    }

    fn start() -> Peer {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/swarms.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(node::ensure(Tree::Current));
        Peer::run("swarms.mjs", &mut command)
    }

    fn open(mut peer: Peer, port: u16, count: usize) -> Self {
        let keys = peer.call("open", json!({ "count": count }))["keys"].clone();
        let keys = keys.as_array().unwrap().iter().map(key).collect();
        Self { peer, port, keys }
    }

    /// A number that a command answers with.
    fn count(&mut self, command: &str, field: &str) -> u64 {
        self.peer.call(command, json!({}))[field].as_u64().unwrap()
    }

    /// The hashes of the open connections of the first swarm.
    fn connections(&mut self) -> Vec<String> {
        let answer = self.peer.call("connections", json!({}));
        let hashes = answer["hashes"].as_array().unwrap().iter();
        hashes
            .map(|hash| hash.as_str().unwrap().to_owned())
            .collect()
    }
}

/// A swarm of ours, and what it has given out.
struct Ours {
    swarm: Swarm,
    connections: Connections,
    open: HashMap<ConnectionId, Attended>,
}

/// A connection that a task has, until it ends; dropped, both end.
struct Attended {
    hash: String,
    words: mpsc::UnboundedSender<&'static str>,
    messages: Messages,
    task: AbortHandle,
}

impl Attended {
    fn new(connection: Connection) -> Self {
        let hash = hex(connection.stream.handshake_hash());
        let (words, said) = mpsc::unbounded_channel();
        let messages = connection.messages.clone().expect("over UDP");
        let task = tokio::spawn(attend(connection, said)).abort_handle();
        Self {
            hash,
            words,
            messages,
            task,
        }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens until the connection ends, and says what it is given.
async fn attend(connection: Connection, mut words: mpsc::UnboundedReceiver<&'static str>) {
    let (mut sender, mut receiver) = connection.stream.split();
    let listening = async { while let Ok(Some(_)) = receiver.recv().await {} };
    let talking = async {
        while let Some(word) = words.recv().await {
            sender.send(&[word]).await.ok();
            sender.flush().await.ok();
        }
    };
    tokio::select! {
        () = listening => {}
        () = talking => {}
    }
}

impl Ours {
    /// On the DHT of `node`.
    fn open(node: &Node, build: impl FnOnce(SwarmBuilder) -> SwarmBuilder) -> Self {
        Self::open_as(KeyPair::generate(), node, build)
    }

    fn open_as(
        keys: KeyPair,
        node: &Node,
        build: impl FnOnce(SwarmBuilder) -> SwarmBuilder,
    ) -> Self {
        let bootstrap = SocketAddrV4::new(Ipv4Addr::LOCALHOST, node.port);
        let dht = Dht::builder().host(Ipv4Addr::LOCALHOST).port(0);
        let dht = dht
            .bootstrap([BootstrapNode::from(bootstrap)])
            .ephemeral(true);
        let online = Online::new(dht.bind().unwrap(), keys.clone(), None);
        let builder = Swarm::builder().key_pair(keys);
        let builder = builder.transport(online.clone()).discovery(online);
        let (swarm, connections) = build(builder).open();
        Self {
            swarm,
            connections,
            open: HashMap::new(),
        }
    }

    async fn join(&self, topic: Topic, options: JoinOptions) -> Session {
        let session = self.swarm.join(topic, options);
        within(self.swarm.flush()).await;
        session
    }

    /// Takes what is given out, and lets go what is closed.
    async fn look(&mut self) -> Vec<String> {
        while let Ok(Some(connection)) = timeout(PAUSE, self.connections.next()).await {
            let id = connection.info.id;
            self.open.insert(id, Attended::new(connection));
        }
        self.open.retain(|_, each| !each.task.is_finished());
        self.open.values().map(|each| each.hash.clone()).collect()
    }
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.expect("in time")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(text: &Value) -> PublicKey {
    let text = text.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    PublicKey::from(std::array::from_fn::<u8, 32, _>(byte))
}

/// A number from the environment, as `scripts/soak` sets it.
fn size(name: &str, default: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(default, |size| size.parse().expect("a number"))
}

/// Waits until both sides have `count` connections, the same ones, and still have them a moment later.
async fn agreed(node: &mut Node, ours: &mut Ours, count: usize) {
    let started = Instant::now();
    let mut before = None;
    loop {
        let (mut here, mut there) = (ours.look().await, node.connections());
        here.sort();
        there.sort();
        assert!(
            started.elapsed() < PATIENCE,
            "here {here:?}, there {there:?}"
        );
        let is_agreed = here == there && here.len() == count;
        if is_agreed && before.as_ref() == Some(&here) {
            return;
        }
        before = is_agreed.then_some(here);
    }
}

/// Goal: whose dial stays is for the keys to say, so both sides keep the same, whichever key is the larger. Method: it is counted
/// how often dials did cross, by what each side has seen: where few did, little is shown, so that it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_dials_at_once_both_sides_keep_the_same() {
    let rounds = size("FERROCORE_DIALS", 200) / 2;
    let mut node = Node::with_swarms(1);
    for is_ours_larger in [true, false] {
        let (made, crossed) = dials_at_once(&mut node, is_ours_larger, rounds).await;
        println!("ours the larger key: {is_ours_larger}; {crossed} of {made} dials crossed");
        assert!(
            crossed * 4 >= rounds,
            "only {crossed} of {made} dials crossed"
        );
    }
}

/// Has both sides dial at once so often, and again and again until every fourth time has made two connections; returns how
/// often they did, and how often that came about.
async fn dials_at_once(node: &mut Node, is_ours_larger: bool, rounds: usize) -> (usize, usize) {
    const TIMES_MAX: usize = 10;
    let there = node.keys[0];
    let keys = std::iter::repeat_with(KeyPair::generate);
    let is_as_wanted =
        |keys: &KeyPair| (keys.public_key().as_bytes() > there.as_bytes()) == is_ours_larger;
    let keys = { keys }.find(is_as_wanted).unwrap();
    let mut ours = Ours::open_as(keys, node, |builder| builder);
    let mut events = ours.swarm.events();
    let _serving = ours.join(Topic::from_name("dials"), SERVING).await;
    let here = hex(ours.swarm.public_key().as_bytes());
    let (mut made, mut crossed) = (0, 0);
    while made < rounds || (crossed * 4 < rounds && made < TIMES_MAX * rounds) {
        made += 1;
        let before = node.count("crossings", "count");
        let dial = node.peer.begin("joinPeer", json!({ "key": here }));
        ours.swarm.join_peer(there);
        node.peer.finish(dial);
        agreed(node, &mut ours, 1).await;
        assert_eq!(ours.swarm.status().connections.len(), 1);
        let is_seen_there = node.count("crossings", "count") > before;
        let is_seen_here = is_duplicate_told(&mut events).await;
        crossed += usize::from(is_seen_here || is_seen_there);
        node.peer.call("leavePeer", json!({ "key": here }));
        ours.swarm.leave_peer(there);
        parted(node, &mut ours).await;
        is_duplicate_told(&mut events).await;
    }
    (made, crossed)
}

/// Takes the events there are; whether one tells of two connections to a peer.
async fn is_duplicate_told(events: &mut SwarmEvents) -> bool {
    let mut is_told = false;
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        is_told |= matches!(event, SwarmEvent::Duplicate { .. });
    }
    is_told
}

/// Hangs up until nobody is connected any more: a dial that was still under way comes up late.
async fn parted(node: &mut Node, ours: &mut Ours) {
    let started = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        assert!(started.elapsed() < PATIENCE, "they connect again and again");
        let is_quiet = ours.look().await.is_empty() && node.connections().is_empty();
        quiet = if is_quiet { quiet + 1 } else { 0 };
        node.peer.call("hangUp", json!({}));
        ours.open.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_peers_are_dialled_than_are_wanted() {
    let (peers, wanted) = (size("FERROCORE_PEERS", 100), 6);
    let mut node = Node::with_swarms(peers);
    let topic = Topic::from_name("crowd");
    let serving = json!({ "topic": hex(topic.as_bytes()), "client": false });
    node.peer.call("join", serving);
    let mut ours = Ours::open(&node, |builder| builder.max_peers(wanted));
    let _looking = ours.join(topic, LOOKING).await;
    let is_full = async {
        while ours.look().await.len() < wanted {
            sleep(PAUSE).await;
        }
    };
    within(is_full).await;
    let status = ours.swarm.status();
    assert_eq!(status.connections.len(), wanted);
    assert!(
        status.peers.len() > wanted,
        "{} were found",
        status.peers.len()
    );
    // One goes, and one of the others takes its place: no more.
    let gone = *ours.open.keys().next().unwrap();
    ours.open.remove(&gone);
    let is_full_again = async {
        while ours.look().await.len() < wanted {
            assert!(ours.swarm.status().connections.len() <= wanted);
            sleep(PAUSE).await;
        }
    };
    within(is_full_again).await;
    assert_eq!(ours.swarm.status().connections.len(), wanted);
}

/// Goal: a server has no more peers at a time than it may, however many come, and who was turned away comes in once there is
/// room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_peers_are_accepted_than_there_is_room_for() {
    let (peers, room) = (size("FERROCORE_PEERS", 100), 6);
    let first = Node::with_swarms(peers / 2);
    let second = first.beside(peers - peers / 2);
    let mut nodes = [first, second];
    let mut ours = Ours::open(&nodes[0], |builder| builder.max_inbound(room));
    let topic = Topic::from_name("rush");
    let _serving = ours.join(topic, SERVING).await;
    let looking = json!({ "topic": hex(topic.as_bytes()), "server": false });
    let joins: Vec<_> = nodes
        .iter_mut()
        .map(|node| node.peer.begin("join", looking.clone()))
        .collect();
    for (node, join) in nodes.iter_mut().zip(joins) {
        node.peer.finish(join);
    }

    let started = Instant::now();
    loop {
        let here = ours.look().await.len();
        let connected = ours.swarm.status().connections.len();
        assert!(here <= room && connected <= room, "{here} and {connected}");
        let mut sum = |field| -> u64 {
            let counts = nodes.iter_mut().map(|node| node.count("crowd", field));
            counts.sum()
        };
        let (dialled, open) = (sum("dialled"), sum("open"));
        if here == room && dialled == peers as u64 && open == room as u64 {
            break;
        }
        let counts = format!("here {here}, there {open}, {dialled} have dialled");
        assert!(started.elapsed() < PATIENCE, "{counts}");
    }
    let gone = *ours.open.keys().next().unwrap();
    ours.open.remove(&gone);
    let is_full_again = async {
        while ours.open.contains_key(&gone) || ours.look().await.len() < room {
            assert!(ours.swarm.status().connections.len() <= room);
            sleep(PAUSE).await;
        }
    };
    within(is_full_again).await;
    assert_eq!(ours.swarm.status().connections.len(), room);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sleeps_is_met_again_once_awake() {
    let mut node = Node::with_swarms(1);
    let topic = Topic::from_name("sleep");
    let mut ours = Ours::open(&node, |builder| builder);
    let _serving = ours.join(topic, JoinOptions::default()).await;
    node.peer
        .call("join", json!({ "topic": hex(topic.as_bytes()) }));
    agreed(&mut node, &mut ours, 1).await;

    within(ours.swarm.suspend()).await;
    agreed(&mut node, &mut ours, 0).await;
    within(ours.swarm.resume()).await.unwrap();
    agreed(&mut node, &mut ours, 1).await;

    node.peer.call("suspend", json!({}));
    agreed(&mut node, &mut ours, 0).await;
    node.peer.call("resume", json!({}));
    agreed(&mut node, &mut ours, 1).await;

    let heard = node.peer.begin("hear", json!({}));
    let connection = ours.open.values().next().unwrap();
    connection.words.send("hello").unwrap();
    assert_eq!(node.peer.finish(heard)["text"], "hello");
}

/// Goal: messages beside the stream cross both ways, long ones too, and those that nobody takes are bounded: the latest stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_beside_the_stream() {
    let mut node = Node::with_swarms(1);
    let topic = Topic::from_name("messages");
    let mut ours = Ours::open(&node, |builder| builder);
    let _serving = ours.join(topic, JoinOptions::default()).await;
    node.peer
        .call("join", json!({ "topic": hex(topic.as_bytes()) }));
    agreed(&mut node, &mut ours, 1).await;
    let messages = ours.open.values().next().unwrap().messages.clone();
    let longest = "x".repeat(messages.len_max());
    for text in ["hello", "", &longest] {
        messages.send(text.as_bytes()).unwrap();
        assert_eq!(node.peer.wait_event("message")["text"], text);
        node.peer.call("say", json!({ "texts": [text] }));
        assert_eq!(within(messages.recv()).await.unwrap(), text);
    }
    let (len, max) = (longest.len() + 1, longest.len());
    let refused = messages.send(&vec![0; len]);
    assert_eq!(refused, Err(MessageError::TooLong { len, max }));

    // On loopback nothing is lost that the receiver's queue holds: few at a time.
    let texts: Vec<String> = (0..UNTAKEN_MAX + 8).map(|n| format!("{n}")).collect();
    for texts in texts.chunks(8) {
        node.peer.call("say", json!({ "texts": texts }));
        talked(&mut node, &ours).await;
    }
    within(async {
        while messages.dropped() < 8 {
            sleep(PAUSE).await;
        }
    })
    .await;
    assert_eq!(within(messages.recv()).await.unwrap(), "8");
    ours.open.clear();
    let over = async { while messages.recv().await.is_some() {} };
    within(over).await;
    assert_eq!(messages.send(b"late"), Err(MessageError::Over));
}

/// Something crosses the stream, and so some time passes.
async fn talked(node: &mut Node, ours: &Ours) {
    let connection = ours.open.values().next().unwrap();
    let heard = node.peer.begin("hear", json!({}));
    connection.words.send("well").unwrap();
    assert_eq!(node.peer.finish(heard)["text"], "well");
}
