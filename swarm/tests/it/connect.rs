//! Peers that find each other by key over a DHT on loopback, in one process.

use std::io::Read as _;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrocore_dht::hyperdht::punch::{LOW_TTL, PUNCH};
use ferrocore_dht::rpc::Socket;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_swarm::connect::{
    ConnectError, ConnectOptions, DialEvent, ListenError, ListenOptions, Peers, Pool, Route,
    Watcher,
};
use socket2::{Domain, Protocol, Socket as Socket2, Type};

use crate::network::{Network, connect, listening, relaying, talk, within};

#[tokio::test]
async fn peers_find_each_other_by_key_and_talk() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let mut options = ConnectOptions::default();
    options.watcher = Watcher::new(move |event| told.lock().unwrap().push(event));
    let (ours, theirs) = connect(&b, &mut server, options).await;
    assert_eq!(ours.remote_public_key(), server.public_key());
    assert_eq!(theirs.remote_public_key(), b.key_pair().public_key());
    talk(ours, theirs).await;
    let events = events.lock().unwrap();
    assert_eq!(events.first(), Some(&DialEvent::Searching));
    assert!(matches!(events.last(), Some(DialEvent::Connected { .. })));
}

#[tokio::test]
async fn a_punch_alone_connects_too() {
    let network = Network::start(6).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let mut options = ConnectOptions::default();
    options.lan = false;
    let (ours, theirs) = connect(&b, &mut server, options).await;
    assert_eq!(ours.route, Route::Punched);
    talk(ours, theirs).await;
}

/// All UDP of this machine, with its IPv4 headers; `None` where that is not permitted.
fn tap() -> Option<Socket2> {
    let tap = Socket2::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).ok()?;
    tap.set_recv_buffer_size(8 << 20).ok()?;
    tap.set_read_timeout(Some(Duration::from_millis(100)))
        .ok()?;
    Some(tap)
}

/// The hops left of the first packet of one zero byte from `port` that is on the tap, and of the first longer one.
fn hops(tap: &Socket2, port: u16) -> [Option<u8>; 2] {
    let (mut packet, mut hops) = ([0; 2048], [None; 2]);
    while let Ok(length) = (&*tap).read(&mut packet) {
        let header = usize::from(packet[0] & 15) * 4;
        let udp = &packet[header.min(length)..length];
        if udp.len() > 8 && udp[..2] == port.to_be_bytes() {
            let is_punch = udp[8..] == PUNCH;
            hops[usize::from(!is_punch)].get_or_insert(packet[8]);
        }
    }
    hops
}

/// Goal: the packet that opens our own NAT does not get as far as the other, and no other packet is kept from it. Method: a raw
/// socket reads the headers; again if the machine had too much to say for it.
#[tokio::test]
async fn the_first_packet_of_a_punch_has_few_hops() {
    let network = Network::start(6).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    for _ in 0..20 {
        let Some(tap) = tap() else {
            return eprintln!("skipped: raw sockets are not permitted here");
        };
        let mut options = ConnectOptions::default();
        options.lan = false;
        let (ours, theirs) = connect(&b, &mut server, options).await;
        let port = ours.handle().local_addr().unwrap().port();
        talk(ours, theirs).await;
        if let [Some(first), Some(data)] = hops(&tap, port) {
            assert_eq!(u32::from(first), LOW_TTL);
            assert!(u32::from(data) > LOW_TTL, "{data}");
            return;
        }
    }
    panic!("no packet of a punch was seen");
}

/// Goal: a network of one node is enough. Method: too few nodes to know one's NAT by, so that the server tries other sockets while
/// the client has heard from the first.
#[tokio::test]
async fn a_punch_connects_by_the_socket_that_was_heard() {
    let network = Network::start(1).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    for _ in 0..3 {
        let mut options = ConnectOptions::default();
        options.lan = false;
        let (ours, theirs) = connect(&b, &mut server, options).await;
        talk(ours, theirs).await;
    }
}

/// Goal: a node that passes handshakes on to a server reaches it itself, though nobody else knows it. Method: a network of one
/// node that stays, which dials.
#[tokio::test]
async fn the_node_that_relays_for_a_server_finds_it() {
    let network = Network::start(1).await;
    let a = network.peers().await;
    let mut server = listening(&a, ListenOptions::default()).await;
    let first = network.first();
    let (ours, theirs) = connect(&first, &mut server, ConnectOptions::default()).await;
    talk(ours, theirs).await;
}

/// Goal: relays of an old announcement, all gone, do not hold up those that the search finds. Method: three sockets that answer
/// nothing are named; another node is asked before they have been asked for the last time, which is the fourth.
#[tokio::test]
async fn dead_relays_leave_room_for_those_that_are_found() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let dead: [_; 3] = std::array::from_fn(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut options = ConnectOptions::default();
    options.relay_addresses = dead.iter().map(address).collect();
    let (ours, theirs) = connect(&b, &mut server, options).await;
    talk(ours, theirs).await;
    for socket in dead {
        socket.set_nonblocking(true).unwrap();
        let mut handshakes = 0;
        let mut datagram = [0; 2048];
        while let Ok(length) = socket.recv(&mut datagram) {
            handshakes += usize::from(length > 150); // the search asks there, too, in few bytes
        }
        assert!(handshakes < 4, "it was waited for");
    }
}

fn address(socket: &std::net::UdpSocket) -> SocketAddrV4 {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

#[tokio::test]
async fn nobody_is_found_under_an_unknown_key() {
    let network = Network::start(3).await;
    let peers = network.peers().await;
    let nobody = KeyPair::generate().public_key();
    let dialling = peers.connect(nobody, ConnectOptions::default());
    let error = within(dialling).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotFound), "{error:?}");
}

#[tokio::test]
async fn who_is_not_admitted_hears_nothing() {
    let network = Network::start(3).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let stranger = b.key_pair().public_key();
    let options = ListenOptions::default().admit(move |caller| caller.public_key != stranger);
    let mut server = listening(&a, options).await;
    let dialling = b.connect(server.public_key(), ConnectOptions::default());
    let error = within(dialling).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer), "{error:?}");
    let mut known = ConnectOptions::default();
    known.key_pair = Some(KeyPair::generate());
    let (ours, theirs) = connect(&b, &mut server, known).await;
    talk(ours, theirs).await;
}

#[tokio::test]
async fn a_blind_relay_joins_two_peers_that_may_not_punch() {
    let network = Network::start(6).await;
    let (a, b, c) = (
        network.peers().await,
        network.peers().await,
        network.peers().await,
    );
    let (relay, key, _) = relaying(&c).await;
    // Neither side may punch, so the relay is the only way.
    let mut listen = ListenOptions::default().relay_through(move || Some(key));
    (listen.lan, listen.punch) = (false, false);
    let mut server = listening(&a, listen).await;
    let mut options = ConnectOptions::default();
    (options.lan, options.punch) = (false, false);
    let (ours, theirs) = connect(&b, &mut server, options).await;
    assert_eq!((ours.route, theirs.route), (Route::Relayed, Route::Relayed));
    assert_eq!(relay.stats().links, 1);
    talk(ours, theirs).await;
}

#[tokio::test]
async fn a_pool_keeps_one_of_two_connections() {
    let network = Network::start(3).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let pool = Pool::new();
    let key = server.public_key();
    let dialling = pool.connect(&b, key, ConnectOptions::default());
    let (first, theirs) = within(async { tokio::join!(dialling, server.accept()) }).await;
    let (first, _theirs) = (first.unwrap(), theirs.unwrap());
    let again = pool.connect(&b, key, ConnectOptions::default()).await;
    assert!(matches!(again, Err(ConnectError::Duplicate)));
    let handle = first.handle();
    drop(first);
    handle.destroy();
    within(async {
        while pool.has(&key) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Goal: of two connections that cross, both sides keep the same one, whichever order they meet them in; of two that one side
/// dialled, the newer.
#[tokio::test]
async fn of_two_that_cross_both_pools_keep_one() {
    let network = Network::start(3).await;
    let sides = [network.peers().await, network.peers().await];
    let pairs = [1, 2].map(|seed| KeyPair::from_seed(&[seed; 32]));
    let keys = pairs.clone().map(|pair| pair.public_key());
    let larger = usize::from(keys[1].as_bytes() > keys[0].as_bytes());
    let mut servers = Vec::new();
    for (side, pair) in sides.iter().zip(&pairs) {
        servers.push(side.listen(pair.clone(), ListenOptions::default()).unwrap());
    }
    // The connections, each with both its ends, that of side 0 first.
    let mut dial = async |from: usize| {
        let to = 1 - from;
        let options = || {
            let mut options = ConnectOptions::default();
            options.key_pair = Some(pairs[from].clone());
            options
        };
        let dialling = async {
            loop {
                // The announcement takes a moment.
                if let Ok(connection) = sides[from].connect(keys[to], options()).await {
                    return connection;
                }
            }
        };
        let (ours, theirs) = within(async { tokio::join!(dialling, servers[to].accept()) }).await;
        let mut ends = [Some(ours), theirs];
        ends.rotate_left(from);
        ends.map(Option::unwrap)
    };
    for orders in [[0, 1], [1, 0], [0, 0], [1, 1]] {
        let pools = [Pool::new(), Pool::new()];
        let made = [dial(0).await, dial(1).await];
        let mut at = [Vec::new(), Vec::new()];
        for (number, [one, other]) in made.into_iter().enumerate() {
            at[0].push((number, one));
            at[1].push((number, other));
        }
        let mut kept = Vec::new();
        for (side, (mut ends, first)) in at.into_iter().zip(orders).enumerate() {
            if ends[0].0 != first {
                ends.reverse();
            }
            let mut last = None;
            for (number, end) in ends {
                last = pools[side]
                    .admit(end, &keys[side])
                    .map(|end| (number, end))
                    .or(last);
            }
            kept.push(last.unwrap());
        }
        assert_eq!(kept[0].0, kept[1].0, "orders {orders:?}");
        assert_eq!(kept[0].0, larger, "orders {orders:?}");
        assert_eq!((pools[0].len(), pools[1].len()), (1, 1));
    }
}

#[tokio::test]
async fn a_suspended_server_is_gone_and_comes_back() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    within(a.suspend()).await;
    let key = server.public_key();
    let dialling = b.connect(key, ConnectOptions::default());
    let error = within(dialling).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotFound), "{error:?}");
    let refused = a.connect(key, ConnectOptions::default()).await;
    assert!(matches!(refused, Err(ConnectError::Suspended)));
    within(a.resume()).await.unwrap();
    // The announcement takes a moment: callers try again, too.
    let dialling = async {
        loop {
            if let Ok(connection) = b.connect(key, ConnectOptions::default()).await {
                return connection;
            }
        }
    };
    let (ours, theirs) = within(async { tokio::join!(dialling, server.accept()) }).await;
    talk(ours, theirs.unwrap()).await;
}

/// Goal: who sleeps holds no connection. Method: one that was punched is on a socket of its own.
#[tokio::test]
async fn a_node_that_sleeps_lets_a_punched_connection_go() {
    let network = Network::start(6).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let mut options = ConnectOptions::default();
    options.lan = false;
    let (ours, theirs) = connect(&b, &mut server, options).await;
    assert_eq!(ours.route, Route::Punched);
    within(b.suspend()).await;
    let (at_ours, at_theirs) = (ours.handle(), theirs.handle());
    let ends = async { tokio::join!(at_ours.closed(), at_theirs.closed()) };
    let ended = tokio::time::timeout(Duration::from_secs(20), ends).await;
    assert!(ended.is_ok(), "the connection stands");
}

/// Goal: a server that ends takes its own announcement back, and not that of the next under its key. Method: the next one begins as
/// soon as it may, again and again, and is found.
#[tokio::test]
async fn a_server_that_comes_after_another_is_found() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let keys = KeyPair::generate();
    for _ in 0..5 {
        let listening = async {
            loop {
                match a.listen(keys.clone(), ListenOptions::default()) {
                    Ok(server) => return server,
                    Err(error) => assert_eq!(error, ListenError::AlreadyListening),
                }
                tokio::task::yield_now().await;
            }
        };
        let mut server = within(listening).await;
        assert!(within(server.announced()).await);
        let (ours, theirs) = connect(&b, &mut server, ConnectOptions::default()).await;
        talk(ours, theirs).await;
        assert!(named_at(&b, &keys).await >= 3);
    }
    let ending = async {
        loop {
            if let Ok(server) = a.listen(keys.clone(), ListenOptions::default()) {
                return server.close().await;
            }
            tokio::task::yield_now().await;
        }
    };
    within(ending).await;
    assert_eq!(named_at(&b, &keys).await, 0);
    assert!(a.listen(keys, ListenOptions::default()).is_ok());
}

/// How many nodes name a server.
async fn named_at(asker: &Peers, keys: &KeyPair) -> usize {
    let found = asker.dht().find_peer(&keys.public_key()).unwrap();
    let closest = within(found.finish()).await.unwrap().closest;
    let named = closest.iter().filter(|answer| answer.value.is_some());
    named.count()
}

/// Goal: a stream goes on when one end's address changes. Method: the dialling end moves to another socket of its node, which to
/// the other end looks like another address; what the other end sends then arrives only if it follows.
#[tokio::test]
async fn a_stream_follows_its_peer_to_another_address() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let mut options = ConnectOptions::default();
    options.punch = false;
    let (ours, theirs) = connect(&b, &mut server, options).await;
    let (at_ours, at_theirs) = (ours.handle(), theirs.handle());
    let (mut sender, mut ours_hears) = ours.stream.split();
    let (mut answerer, mut theirs_hears) = theirs.stream.split();
    for tag in [Socket::Client, Socket::Server] {
        let socket = b.dht().socket(tag).unwrap();
        let (address, id) = at_ours.remote().unwrap();
        at_ours.change_remote(&socket, id, address).unwrap();
        sender.send(&[b"hello"]).await.unwrap();
        sender.flush().await.unwrap();
        assert_eq!(within(theirs_hears.recv()).await.unwrap().unwrap(), "hello");
        within(async {
            while at_theirs.remote().map(|(address, _)| address) != Some(socket.local_addr()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        answerer.send(&[b"there"]).await.unwrap();
        answerer.flush().await.unwrap();
        assert_eq!(within(ours_hears.recv()).await.unwrap().unwrap(), "there");
    }
}

/// Goal: a forged packet does not turn a stream on somebody else. Method: a socket that answers no pings sends a packet of
/// the stream; the stream stays where it is.
#[tokio::test]
async fn a_stream_follows_nobody_who_does_not_answer() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let mut server = listening(&a, ListenOptions::default()).await;
    let mut options = ConnectOptions::default();
    options.punch = false;
    let (ours, theirs) = connect(&b, &mut server, options).await;
    let (before, _) = theirs.handle().remote().unwrap();
    let forger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (to, id) = ours.handle().remote().unwrap();
    // A heartbeat of the stream: magic, version, no flags, no data offset, id, window, sequence, acknowledgement.
    let mut packet = vec![0xff, 1, 8, 0];
    packet.extend(id.to_le_bytes());
    packet.extend([0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    forger.send_to(&packet, to).await.unwrap();
    let mut ping = [0; 64];
    let asked = within(forger.recv_from(&mut ping)).await.unwrap();
    assert_eq!((asked.1, ping[0]), (to, 3), "a ping of the DHT");
    assert_eq!(theirs.handle().remote().unwrap().0, before);
    talk(ours, theirs).await;
}
