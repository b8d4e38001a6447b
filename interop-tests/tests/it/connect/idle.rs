//! Connections on which nothing is said.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::Duration;

use ferrocore_secret_stream::StreamError;
use ferrocore_swarm::connect::{ConnectOptions, Connection, ListenOptions, Peers};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Halves, Node, SMALL, exchange_on, hex, listening, peers, within};

/// How long nothing is said: six keep-alives of either side.
const IDLE: Duration = Duration::from_secs(33);

/// After so much silence an end that is told to be impatient gives up.
const SILENCE: Duration = Duration::from_secs(15);

/// Both ends of a connection.
struct Pair {
    stream: u64,
    ours: Connection,
}

/// We dial this node of Node's.
async fn dial(node: &mut Node, number: u64, peers: &Peers) -> Pair {
    let key = node.listen(json!({ "node": number }));
    let dialling = peers.connect(key, ConnectOptions::default());
    let ours = within(dialling).await.unwrap();
    let (stream, _) = node.accept();
    Pair { stream, ours }
}

/// Node dials us.
async fn accept(node: &mut Node, peers: &Peers) -> Pair {
    let mut server = listening(peers, ListenOptions::default()).await;
    let key = hex(&server.public_key());
    let dial = node.peer.begin("connect", json!({ "key": key }));
    let ours = within(server.accept()).await.unwrap();
    let stream = node.peer.finish(dial)["stream"].as_u64().unwrap();
    Pair { stream, ours }
}

impl Pair {
    /// Node gives up if it hears nothing.
    fn impatient_there(self, node: &mut Node) -> Self {
        let silence = u64::try_from(SILENCE.as_millis()).unwrap();
        let timeout = json!({ "stream": self.stream, "ms": silence });
        node.peer.call("timeout", timeout);
        self
    }

    /// We do.
    fn impatient_here(mut self) -> Self {
        self.ours.stream.set_idle_timeout(Some(SILENCE));
        self
    }
}

/// Keeps our end alive until then; nothing may come, and nothing may fail.
async fn keep(halves: Halves, until: Instant) -> Halves {
    let (mut sender, mut receiver) = halves;
    tokio::select! {
        message = receiver.recv() => panic!("nothing was said: {message:?}"),
        error = sender.keep_alive() => panic!("{error:?}"),
        () = sleep_until(until) => {}
    }
    (sender, receiver)
}

/// How our end ends that only listens.
async fn end(ours: Connection) -> StreamError {
    let (_sender, mut receiver) = ours.stream.split();
    within(receiver.recv()).await.unwrap_err()
}

/// Goal: a connection on which nothing is said stays, whoever dialled, and carries bytes after. Keep-alives are what an impatient
/// end hears meanwhile; one that is patient needs none; and where they are missing an impatient end gives up, of which the other
/// one learns. Method: all at once, as it is the time that is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_idle_stay() {
    let mut node = Node::with_testnet(4);
    let silent = json!({ "port": node.port, "keepAlive": false });
    let silent = node.peer.call("node", silent)["node"].as_u64().unwrap();
    let peers = peers(node.port).await;
    let dialled = dial(&mut node, 0, &peers).await;
    let accepted = accept(&mut node, &peers).await;
    let patient = dial(&mut node, silent, &peers).await;
    let we_are_silent = dial(&mut node, 0, &peers).await;
    let node_is_silent = dial(&mut node, silent, &peers).await.impatient_here();
    let ends = [we_are_silent.stream, node_is_silent.stream];
    let kept = [dialled, accepted].map(|pair| pair.impatient_there(&mut node).impatient_here());
    let given_up_there = tokio::spawn(end(we_are_silent.impatient_there(&mut node).ours));
    let given_up_here = tokio::spawn(end(node_is_silent.ours));
    let until = Instant::now() + IDLE;
    let kept = kept.map(|pair| {
        let halves = pair.ours.stream.split();
        (pair.stream, tokio::spawn(keep(halves, until)))
    });
    for (stream, keeping) in kept {
        let halves = within(keeping).await.unwrap();
        exchange_on(&mut node, stream, halves, SMALL).await;
    }
    let halves = patient.ours.stream.split();
    exchange_on(&mut node, patient.stream, halves, SMALL).await;

    let reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
    let error = within(given_up_there).await.unwrap();
    assert!(
        matches!(&error, StreamError::Io(io) if reset(io)),
        "{error}"
    );
    let error = within(given_up_here).await.unwrap();
    assert!(matches!(error, StreamError::IdleTimeout), "{error}");
    let failed: HashMap<u64, Value> = [(); 2]
        .map(|()| node.peer.wait_event("failed"))
        .into_iter()
        .map(|event| (event["stream"].as_u64().unwrap(), event))
        .collect();
    let [there, here] = ends.map(|stream| &failed[&stream]);
    assert_eq!(there["reason"], "Stream timed out");
    assert_eq!(here["code"], "ECONNRESET");
}
