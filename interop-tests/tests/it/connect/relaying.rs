//! What our nodes are to Node's peers that want to connect: they carry handshakes and rounds of holepunching, and are blind relays.

use ferrocore_dht::rpc::Stats;
use ferrocore_swarm::dht::Dht;
use serde_json::{Value, json};

use super::{Node, SMALL, hex, is_left, our_network, peers, relaying};

/// A network of ours alone, and two Node peers on it that know nothing of each other.
struct Carried {
    nodes: Vec<Dht>,
    node: Node,
    ends: [u64; 2],
}

impl Carried {
    async fn start() -> Self {
        let (nodes, port) = our_network(6).await;
        let mut node = Node::start();
        node.port = port;
        let ends = [node.join(), node.join()];
        Self { nodes, node, ends }
    }

    /// Listens at the first peer, with no other way than punching. Returns the key, and who passes handshakes on to it.
    fn listen(&mut self) -> (String, Vec<u64>) {
        let listen = json!({ "node": self.ends[0], "lan": false });
        let answer = self.node.peer.call("listen", listen);
        let relays = answer["relays"].as_array().unwrap().iter();
        let relays = relays.map(|port| port.as_u64().unwrap()).collect();
        (answer["key"].as_str().unwrap().to_owned(), relays)
    }

    /// Dials from the second, and checks that bytes cross from socket to socket, both opened to punch.
    fn dial(&mut self, mut options: Value) {
        options["node"] = json!(self.ends[1]);
        options["lan"] = json!(false);
        let ours = self.node.peer.call("connect", options)["stream"].clone();
        let (theirs, _) = self.node.accept();
        let node = &mut self.node.peer;
        let read = node.begin("read", json!({ "stream": theirs, "bytes": SMALL }));
        let write = json!({ "stream": ours, "bytes": SMALL, "seed": 1 });
        let written = node.call("write", write);
        assert_eq!(node.finish(read)["hash"], written["hash"]);
        let paths = [ours, json!(theirs)].map(|id| node.call("path", json!({ "stream": id })));
        assert_eq!(paths[0]["port"], paths[1]["local"]);
        assert_eq!(paths[1]["port"], paths[0]["local"]);
        assert_eq!(paths.map(|path| path["punched"].clone()), [true, true]);
    }

    fn stats(&self) -> Vec<Stats> {
        self.nodes.iter().map(Dht::stats).collect()
    }

    fn node_at(&self, port: u64) -> &Dht {
        let is_at = |node: &&Dht| {
            node.local_address()
                .is_some_and(|at| u64::from(at.port()) == port)
        };
        self.nodes.iter().find(is_at).expect("a node of ours")
    }
}

/// Goal: a network without any Node node in it is as good to Node's peers. Method: they may not use the LAN, so that handshakes
/// and rounds go over our nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_nodes_carry_handshakes_and_rounds_of_two_node_peers() {
    let mut carried = Carried::start().await;
    for dials in 1..=3 {
        let (key, _) = carried.listen();
        carried.dial(json!({ "key": key }));
        let sum = |count: fn(&Stats) -> u64| carried.stats().iter().map(count).sum::<u64>();
        assert!(sum(|stats| stats.handshakes_relayed) >= dials);
        assert!(sum(|stats| stats.rounds_relayed) >= dials);
    }
}

/// Goal: the same over two relays. Method: the client asks a node that the server is not announced at, and names another that it
/// is: the handshake takes both. The first round goes over one of the server's nodes then, and the one that makes both punch over
/// the client's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_our_nodes_carry_a_handshake_and_its_rounds() {
    let mut carried = Carried::start().await;
    let (key, relays) = carried.listen();
    let ports = carried
        .nodes
        .iter()
        .map(|node| node.local_address().unwrap().port());
    let first = ports.map(u64::from).find(|port| !relays.contains(port));
    let (first, second) = (first.expect("a node that is not asked"), relays[0]);
    carried.dial(json!({ "key": key, "through": [first, second] }));
    let (first_stats, second_stats) = (
        carried.node_at(first).stats(),
        carried.node_at(second).stats(),
    );
    assert_eq!(first_stats.handshakes_second, 0);
    assert!(first_stats.handshakes_relayed >= 1, "{first_stats:?}");
    assert!(second_stats.handshakes_second >= 1, "{second_stats:?}");
    assert!(first_stats.rounds_relayed >= 1, "{first_stats:?}");
    let others = relays
        .iter()
        .map(|port| carried.node_at(*port).stats().rounds_relayed);
    assert!(others.sum::<u64>() >= 1, "by the server's nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_peers_meet_at_our_blind_relay() {
    let mut node = Node::with_testnet(4);
    let second = node.join();
    let peers = peers(node.port).await;
    let (relay, through) = relaying(&peers).await;
    let key = node.listen(json!({ "lan": false, "punch": false, "relayThrough": through }));
    let arguments = json!({ "node": second, "key": hex(&key), "lan": false, "punch": false });
    let ours = node.peer.call("connect", arguments)["stream"].clone();
    let (theirs, _) = node.accept();
    assert_eq!(relay.stats().links, 1);
    let read = node
        .peer
        .begin("read", json!({ "stream": theirs, "bytes": SMALL }));
    let write = json!({ "stream": ours, "bytes": SMALL, "seed": 1 });
    let written = node.peer.call("write", write);
    assert_eq!(node.peer.finish(read)["hash"], written["hash"]);
    node.peer.call("destroy", json!({ "stream": ours }));
    is_left(&relay).await;
}
