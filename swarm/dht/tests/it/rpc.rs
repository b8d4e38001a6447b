//! Nodes among each other on virtual time: how a network starts, who becomes part of it, what is found and forgotten.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::common::{address, fixed, vectors};
use crate::net::Net;
use ferrocore_dht::health::Network;
use ferrocore_dht::id::Id;
use ferrocore_dht::limits::SOURCE_REQUESTS_MAX;
use ferrocore_dht::message::{Command, ErrorCode, Message, Reply, Request};
use ferrocore_dht::nat::{NatSampler, Seen};
use ferrocore_dht::routing_table::K;
use ferrocore_dht::rpc::{
    Answer, Config, Event, Outcome, Outgoing, Plan, RequestError, Response, Rpc, Socket,
};
use ferrocore_dht::tokens::Tokens;
use ferrocore_dht::window::{SLOT, WINDOW_MAX};
use ferrocore_primitives::time::Time;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A network of a bootstrapper and nodes that stay, none behind a NAT.
pub(crate) fn network(seed: u64, nodes: usize) -> (Net<Rpc>, SocketAddrV4) {
    let mut net: Net<Rpc> = Net::new(seed);
    let first = SocketAddrV4::new(net.next_ip(), crate::net::SERVER_PORT);
    net.add(Config::bootstrapper(first), false);
    for _ in 0..nodes {
        net.add(staying(first), false);
        net.run_for(SECOND, |_, _, _| {});
    }
    net.run_for(SECOND * 10, |_, _, _| {});
    (net, first)
}

pub(crate) fn config(bootstrap: SocketAddrV4) -> Config {
    let mut config = Config::default();
    config.bootstrap = vec![bootstrap];
    config
}

fn staying(bootstrap: SocketAddrV4) -> Config {
    let mut config = config(bootstrap);
    config.ephemeral = Some(false);
    config.firewalled = false;
    config
}

/// Runs a query of one host to its end.
pub(crate) fn query(net: &mut Net<Rpc>, host: usize, plan: Plan) -> Result<Outcome, RequestError> {
    let id = net.with(host, |rpc, now| rpc.query(now, plan)).unwrap();
    let mut ended = None;
    net.run_for(MINUTE, |net, at, event| match event {
        Event::QueryEnded(of, result) if at == host && of == id => ended = Some(result),
        Event::Incoming(incoming) => {
            net.with(at, |rpc, now| rpc.reply(now, incoming, Answer::value(None)));
        }
        _ => {}
    });
    ended.expect("the query ended")
}

fn request(net: &mut Net<Rpc>, host: usize, outgoing: Outgoing) -> Result<Response, RequestError> {
    let id = net
        .with(host, |rpc, now| rpc.request(now, outgoing))
        .unwrap();
    let mut ended = None;
    net.run_for(MINUTE, |_, at, event| match event {
        Event::Response(of, result) if at == host && of == id => ended = Some(result),
        _ => {}
    });
    ended.expect("the request ended")
}

pub(crate) fn ids(net: &Net<Rpc>) -> Vec<Id> {
    let hosts = net.hosts.values();
    hosts.filter_map(|host| host.machine.id()).collect()
}

#[test]
fn tokens_are_those_of_javascript() {
    let vector = &vectors()["dhtRpc"]["tokens"];
    let [older, newer] = [0, 1].map(|at| fixed(&vector["secrets"][at]));
    let mut tokens = Tokens::new(Time::ZERO, older, newer);
    let host = vector["host"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        tokens.issue(Time::ZERO, host),
        fixed(&vector["token1"]).into()
    );
    for token in ["token0", "token1"] {
        assert!(tokens.accepts(Time::ZERO, host, &fixed(&vector[token]).into()));
    }
}

#[test]
fn samples_of_the_nat_agree_as_in_javascript() {
    let vectors = vectors();
    let cases = vectors["natSampler"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let mut sampler = NatSampler::default();
        for step in case["steps"].as_array().unwrap() {
            sampler.add(address(&step["add"]));
            let host = step["host"].as_str().map(|host| host.parse().unwrap());
            let port = step["port"].as_u64().unwrap();
            let seen = sampler.seen();
            assert_eq!(seen.host(), host, "{}", case["name"]);
            let seen_port = seen.address().map_or(0, |address| address.port());
            assert_eq!(u64::from(seen_port), port);
        }
    }
}

/// A bootstrapper and 40 nodes: all become part of the network, and each finds the very closest of all to any target.
#[test]
fn a_network_grows_from_one_node_and_finds_what_is_closest() {
    let (mut net, _) = network(1, 40);
    assert_eq!(ids(&net).len(), 41, "all stay");
    for host in [0, 7, 40] {
        let target = Id::from(net.random.bytes());
        let outcome = query(&mut net, host, Plan::new(target, Command::FIND_NODE)).unwrap();
        let own = net.hosts[&host].machine.id().unwrap();
        let mut all: Vec<_> = ids(&net).into_iter().filter(|id| *id != own).collect();
        all.sort_by_key(|id| id.distance(&target));
        all.truncate(K);
        let found: Vec<_> = outcome.closest.iter().filter_map(|r| r.id).collect();
        assert_eq!(found, all);
    }
}

/// The first node of a network has nobody who tells it its address; it learns it from the second, and stays too.
#[test]
fn a_first_node_without_its_address_stays_once_others_come() {
    let mut net: Net<Rpc> = Net::new(2);
    let first = SocketAddrV4::new(net.next_ip(), crate::net::SERVER_PORT);
    let mut alone = staying(first);
    alone.bootstrap.clear();
    net.add(alone, false);
    net.run_for(SECOND, |_, _, _| {});
    assert!(net.hosts[&0].machine.is_bootstrapped());
    assert_eq!(net.hosts[&0].machine.id(), None);
    net.add(staying(first), false);
    net.run_for(MINUTE * 2, |_, _, _| {});
    assert_eq!(net.hosts[&0].machine.id(), Some(Id::of_node(&first)));
    assert!(net.hosts[&1].machine.id().is_some());
}

/// A node told nothing stays after 20 minutes if others reach it, and never from behind a NAT.
#[test]
fn an_open_node_stays_in_time_and_one_behind_a_nat_does_not() {
    let (mut net, first) = network(3, 10);
    let open = net.add(config(first), false);
    let closed = net.add(config(first), true);
    net.run_for(SECOND * 10, |_, _, _| {});
    let rpc = |net: &Net<Rpc>, at: usize| {
        let rpc = &net.hosts[&at].machine;
        (rpc.is_firewalled(), rpc.is_ephemeral())
    };
    assert_eq!(
        rpc(&net, open),
        (false, true),
        "the quick look at its firewall"
    );
    assert_eq!(rpc(&net, closed), (true, true));
    let address = net.address(open);
    assert_eq!(net.hosts[&open].machine.remote_address(), Some(address));
    assert_eq!(net.hosts[&closed].machine.remote_address(), None);
    net.run_for(MINUTE * 19, |_, _, _| {});
    assert_eq!(rpc(&net, open), (false, true));
    net.run_for(MINUTE * 2, |_, _, _| {});
    assert_eq!(rpc(&net, open), (false, false));
    assert_eq!(net.hosts[&open].machine.id(), Some(Id::of_node(&address)));
    net.run_for(MINUTE * 90, |_, _, _| {});
    assert_eq!(rpc(&net, closed), (true, true));
}

/// Half of the nodes vanish: the others forget them, and find all that are left.
#[test]
fn the_dead_are_forgotten() {
    let (mut net, _) = network(4, 40);
    for host in 1..=20 {
        net.remove(host);
    }
    net.run_for(MINUTE * 30, |_, _, _| {});
    let alive = ids(&net);
    for host in net.hosts.values() {
        let known = host.machine.table().latest();
        assert!(known.into_iter().all(|node| alive.contains(&node.id())));
        assert_eq!(host.machine.network(), Network::Online);
    }
    let target = Id::from([9; 32]);
    let outcome = query(&mut net, 0, Plan::new(target, Command::FIND_NODE)).unwrap();
    assert_eq!(outcome.closest.len(), K);
}

/// With one datagram in five lost every node is found still.
#[test]
fn losses_are_made_good() {
    let (mut net, _) = network(5, 30);
    net.loss = Some(5);
    let target = Id::from([5; 32]);
    let outcome = query(&mut net, 3, Plan::new(target, Command::FIND_NODE)).unwrap();
    assert_eq!(outcome.closest.len(), K);
    assert!(net.hosts[&3].machine.stats().retries > 0);
}

/// A node that sleeps hears nothing and ends what is under way; awake it knows what it knew.
#[test]
fn a_suspended_node_is_silent_and_keeps_its_table() {
    let (mut net, first) = network(6, 10);
    let known = net.hosts[&5].machine.table().len();
    let plan = Plan::new(Id::from([1; 32]), Command::FIND_NODE);
    let query_id = net.with(5, |rpc, now| rpc.query(now, plan)).unwrap();
    net.with(5, |rpc, now| rpc.suspend(now));
    let mut ended = None;
    net.run_for(SECOND, |_, at, event| match event {
        Event::QueryEnded(of, result) if at == 5 && of == query_id => ended = Some(result),
        _ => {}
    });
    assert_eq!(ended, Some(Err(RequestError::Suspended)));
    assert_eq!(net.hosts[&5].machine.in_flight(), 0);
    assert_eq!(net.hosts[&5].machine.poll_timeout(), None);
    let ping = net.with(5, |rpc, now| rpc.request(now, Outgoing::ping(first)));
    assert_eq!(ping, Err(RequestError::Suspended));
    let address = net.address(5);
    let refused = request(&mut net, 0, Outgoing::ping(address));
    assert_eq!(refused, Err(RequestError::TimedOut));

    net.with(5, |rpc, now| rpc.resume(now, crate::net::SERVER_PORT));
    assert_eq!(net.hosts[&5].machine.table().len(), known);
    net.run_for(MINUTE, |_, _, _| {});
    assert!(request(&mut net, 0, Outgoing::ping(address)).is_ok());
}

/// Whatever the tick it happens at: the ticks of a node that woke up are those of one that pings in two more.
#[test]
fn a_node_may_sleep_at_any_tick() {
    let mut stranger = Stranger::new();
    for ticks in 0..20 {
        stranger.rpc.suspend(stranger.now);
        stranger.rpc.resume(stranger.now, 49737);
        for _ in 0..ticks {
            stranger.now += SECOND * 5;
            stranger.rpc.handle_timeout(stranger.now);
        }
    }
    assert_eq!(
        stranger.rpc.id(),
        Some(Id::of_node(&"5.0.0.1:49737".parse().unwrap()))
    );
}

/// The three verbs by which handshakes travel: sent on with their number, answered to somebody else, refused.
#[test]
fn a_request_is_relayed_and_its_answer_reaches_the_first_sender() {
    let (mut net, _) = network(7, 5);
    let (relay, server) = (1, 2);
    let (relay_address, server_address) = (net.address(relay), net.address(server));
    let outgoing = Outgoing {
        target: Some([3; 32].into()),
        value: Some(b"from the client".to_vec()),
        ..Outgoing::new(relay_address, Command::application(0))
    };
    let id = net.with(3, |rpc, now| rpc.request(now, outgoing)).unwrap();
    let mut legs = Vec::new();
    let mut answer = None;
    net.run_for(MINUTE, |net, at, event| match event {
        Event::Incoming(incoming) => {
            legs.push((at, incoming.value.clone().unwrap()));
            assert_eq!(incoming.target, Some([3; 32].into()));
            net.with(at, |rpc, now| match legs.len() {
                1 => rpc.relay(incoming, b"to the server".to_vec(), server_address, None),
                2 => rpc.relay(incoming, b"back".to_vec(), relay_address, None),
                _ => {
                    let client =
                        SocketAddrV4::new("5.0.3.4".parse().unwrap(), crate::net::SERVER_PORT);
                    rpc.reply_to(now, incoming, b"answer".to_vec(), client);
                }
            });
        }
        Event::Response(of, result) if at == 3 && of == id => answer = Some(result.unwrap()),
        _ => {}
    });
    let expected = [
        (relay, &b"from the client"[..]),
        (server, b"to the server"),
        (relay, b"back"),
    ];
    assert!(
        legs.iter()
            .map(|(at, value)| (*at, value.as_slice()))
            .eq(expected)
    );
    let answer = answer.expect("the client got its answer");
    assert_eq!(answer.from, relay_address);
    assert_eq!(answer.value.as_deref(), Some(&b"answer"[..]));
    assert_eq!((answer.token, answer.closer_nodes.len()), (None, 0));
}

/// A single node and a stranger who writes its own datagrams.
struct Stranger {
    rpc: Rpc,
    now: Time,
    address: SocketAddrV4,
}

impl Stranger {
    fn new() -> Self {
        let own: SocketAddrV4 = "5.0.0.1:49737".parse().unwrap();
        let now = Time::ZERO + SECOND;
        let mut rpc = Rpc::new(now, Config::bootstrapper(own), [7; 32]);
        rpc.start(now, own.port());
        let address = "6.0.0.1:1234".parse().unwrap();
        Self { rpc, now, address }
    }

    fn request(&self, command: Command) -> Request {
        Request {
            tid: 77,
            to: "5.0.0.1:49737".parse().unwrap(),
            id: None,
            token: None,
            command,
            target: None,
            value: None,
        }
    }

    /// Sends it; returns who got what for it.
    fn send(&mut self, request: &Request) -> Vec<(SocketAddrV4, Reply)> {
        let datagram = request.to_vec();
        let is_ours = self
            .rpc
            .handle_datagram(self.now, Socket::Server, self.address, &datagram);
        assert!(is_ours);
        self.sent()
    }

    fn sent(&mut self) -> Vec<(SocketAddrV4, Reply)> {
        let sent = std::iter::from_fn(|| self.rpc.poll_transmit());
        let replies = sent.filter_map(|sent| match Message::parse(&sent.datagram) {
            Ok(Message::Reply(reply)) => Some((sent.to, reply)),
            _ => None,
        });
        replies.collect()
    }
}

#[test]
fn the_commands_of_the_network_are_answered() {
    let mut stranger = Stranger::new();
    let own = stranger.rpc.id();
    assert!(own.is_some());
    let with = |stranger: &Stranger, command, value: &[u8]| Request {
        value: Some(value.to_vec()),
        ..stranger.request(command)
    };

    let ping = stranger.request(Command::PING);
    let [(to, reply)] = stranger.send(&ping).try_into().unwrap();
    assert_eq!(
        (to, reply.to, reply.id, reply.tid),
        (stranger.address, stranger.address, own, 77)
    );
    assert_eq!((reply.token, reply.error), (None, ErrorCode::NONE));

    let ping = with(&stranger, Command::PING_NAT, &[0x88, 0x13]);
    let [(to, reply)] = stranger.send(&ping).try_into().unwrap();
    assert_eq!((to.port(), reply.to.port()), (5000, 5000));
    let none = with(&stranger, Command::PING_NAT, &[0, 0]);
    assert_eq!(stranger.send(&none), [], "there is no port 0");

    let late = with(&stranger, Command::DELAYED_PING, &1500_u32.to_le_bytes());
    assert_eq!(stranger.send(&late), []);
    stranger.now += Duration::from_millis(1500);
    assert!(stranger.rpc.poll_timeout() <= Some(stranger.now));
    stranger.rpc.handle_timeout(stranger.now);
    assert_eq!(stranger.sent().len(), 1);
    let never = with(&stranger, Command::DELAYED_PING, &10_001_u32.to_le_bytes());
    assert_eq!(stranger.send(&never), []);
    stranger.now += SECOND * 11;
    stranger.rpc.handle_timeout(stranger.now);
    assert_eq!(stranger.sent(), []);

    let aimless = stranger.request(Command::FIND_NODE);
    assert_eq!(stranger.send(&aimless), [], "without a target");
    let unknown = Request {
        target: Some([1; 32].into()),
        ..stranger.request(Command {
            internal: true,
            number: 99,
        })
    };
    let [(_, reply)] = stranger.send(&unknown).try_into().unwrap();
    assert_eq!(reply.error, ErrorCode::UNKNOWN_COMMAND);
}

#[test]
fn a_false_token_is_answered_with_a_true_one() {
    let mut stranger = Stranger::new();
    let mut write = stranger.request(Command::application(8));
    write.token = Some([1; 32].into());
    let [(_, reply)] = stranger.send(&write).try_into().unwrap();
    assert_eq!(reply.error, ErrorCode::INVALID_TOKEN);
    while stranger.rpc.poll_event().is_some() {}
    write.token = reply.token;
    assert_eq!(stranger.send(&write), [], "it is the application's now");
    let Some(Event::Incoming(incoming)) = stranger.rpc.poll_event() else {
        panic!("the application hears of it");
    };
    assert_eq!(incoming.token, write.token);
}

#[test]
fn replies_count_only_from_whom_was_asked() {
    let mut stranger = Stranger::new();
    let asked: SocketAddrV4 = "6.0.0.2:1".parse().unwrap();
    let id = stranger
        .rpc
        .request(stranger.now, Outgoing::ping(asked))
        .unwrap();
    let sent = stranger.rpc.poll_transmit().unwrap();
    let Ok(Message::Request(ping)) = Message::parse(&sent.datagram) else {
        panic!("a request was sent");
    };
    let reply = Reply {
        tid: ping.tid,
        to: "5.0.0.1:49737".parse().unwrap(),
        id: None,
        token: None,
        closer_nodes: Vec::new(),
        error: ErrorCode::NONE,
        value: None,
    };
    while stranger.rpc.poll_event().is_some() {}
    let datagram = reply.to_vec();
    for (from, counts) in [(stranger.address, false), (asked, true), (asked, false)] {
        stranger
            .rpc
            .handle_datagram(stranger.now, Socket::Server, from, &datagram);
        let event = stranger.rpc.poll_event();
        assert_eq!(
            matches!(event, Some(Event::Response(of, Ok(_))) if of == id),
            counts
        );
    }
}

#[test]
fn a_flood_is_answered_up_to_its_share() {
    let mut stranger = Stranger::new();
    let ping = stranger.request(Command::PING);
    let answers: usize = (0..1000).map(|_| stranger.send(&ping).len()).sum();
    assert_eq!(answers, SOURCE_REQUESTS_MAX as usize);
    assert_eq!(
        stranger.rpc.stats().refused,
        1000 - u64::from(SOURCE_REQUESTS_MAX)
    );
}

/// What a stranger claims about our address counts only while there is nobody better to ask.
#[test]
fn strangers_do_not_tell_us_who_we_are() {
    let mut stranger = Stranger::new();
    let seen = stranger.rpc.seen();
    let mut lie = stranger.request(Command::PING);
    lie.to = "9.9.9.9:9".parse().unwrap();
    for _ in 0..100 {
        stranger.send(&lie);
    }
    assert_eq!(stranger.rpc.seen(), seen);
    assert!(matches!(seen, Seen::Address(_)));
}

/// Goal: a burst of requests leaves in the portions of the window, and all of it in the end. Method: nobody answers.
#[test]
fn a_burst_of_requests_leaves_in_portions() {
    let mut rpc = Rpc::new(Time::ZERO, Config::default(), [7; 32]);
    rpc.start(Time::ZERO, crate::net::SERVER_PORT);
    while rpc.poll_transmit().is_some() {}
    for number in 0..300 {
        let to = SocketAddrV4::new((0x0500_0001 + number).into(), 1000);
        let outgoing = Outgoing::new(to, Command::application(0));
        rpc.request(Time::ZERO, outgoing).unwrap();
    }
    let mut asked = std::collections::HashSet::new();
    let mut asked_at = |rpc: &mut Rpc, now: Time| {
        while rpc.poll_timeout().is_some_and(|timeout| timeout <= now) {
            rpc.handle_timeout(now);
        }
        asked.extend(std::iter::from_fn(|| rpc.poll_transmit()).map(|transmit| transmit.to));
        asked.len()
    };
    assert_eq!(asked_at(&mut rpc, Time::ZERO), WINDOW_MAX);
    let soon = Time::ZERO + (SLOT - Duration::from_millis(1));
    assert_eq!(asked_at(&mut rpc, soon), WINDOW_MAX);
    assert_eq!(asked_at(&mut rpc, Time::ZERO + SLOT), 2 * WINDOW_MAX);
    assert_eq!(asked_at(&mut rpc, Time::ZERO + SLOT * 3), 2 * WINDOW_MAX);
    for slots in 4..40 {
        asked_at(&mut rpc, Time::ZERO + SLOT * slots);
    }
    assert_eq!(asked.len(), 300);
}

/// Goal: on another network a node forgets what others saw of it, and learns what they see now. Method: it moves to another
/// address in mid-life, as a laptop does.
#[test]
fn on_another_network_a_node_learns_its_address_anew() {
    let (mut net, first) = network(8, 20);
    let host = net.add(config(first), true);
    net.run_for(MINUTE, |_, _, _| {});
    let before = net.hosts[&host].machine.seen().host();
    assert_eq!(before, Some(net.hosts[&host].ip));

    net.move_to(host, [9, 9, 9, 9].into());
    let rpc = net.with(host, |rpc, now| {
        rpc.network_changed(now);
        rpc.seen()
    });
    assert_eq!(rpc, Seen::Nothing);
    net.run_for(10 * MINUTE, |_, _, _| {});
    let now = net.hosts[&host].machine.seen().host();
    assert_eq!(now, Some([9, 9, 9, 9].into()));
}

/// Goal: a node that was told to stay does so under the id of where it is now, for others take any other for forged and do not keep
/// it. Method: it moves to another address; another node finds it there, under that id. A node that is told its address keeps its id.
#[test]
fn a_node_that_stays_takes_the_id_of_its_new_address() {
    let (mut net, first) = network(9, 20);
    let host = net.add(staying(first), false);
    let fixed = net.add(Config::bootstrapper(first), false);
    net.run_for(MINUTE, |_, _, _| {});
    let id = Id::of_node(&net.address(host));
    assert_eq!(net.hosts[&host].machine.id(), Some(id));

    for moving in [host, fixed] {
        net.move_to(moving, [9, 9, 9, moving as u8].into());
        net.with(moving, |rpc, now| rpc.network_changed(now));
    }
    net.run_for(10 * MINUTE, |_, _, _| {});
    let (address, id) = (net.address(host), Id::of_node(&net.address(host)));
    assert_eq!(net.hosts[&host].machine.id(), Some(id));
    assert_eq!(net.hosts[&fixed].machine.id(), Some(Id::of_node(&first)));
    let plan = Plan::new(id, Command::application(0));
    let outcome = query(&mut net, 3, plan).unwrap();
    let closest = outcome.closest.first().map(|node| (node.from, node.id));
    assert_eq!(closest, Some((address, Some(id))));
}
