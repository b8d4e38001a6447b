//! What strangers can make a listening peer and a blind relay spend.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_dht::hyperdht::PEER_HANDSHAKE;
use ferrocore_dht::hyperdht::connect::{Handshake, Mode};
use ferrocore_dht::hyperdht::handshake::ClientHandshake;
use ferrocore_dht::hyperdht::noise::{Firewall, NoisePayload, RelayThrough};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::Request;
use ferrocore_mux::Mux;
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::connect::{
    ConnectError, ConnectOptions, Connection, ListenOptions, RelayError, Route, Server,
};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::network::{Network, connect, listening, relaying, talk, within};

/// More than a process may have descriptors for, were each worth a socket; and than a node runs queries.
const FLOOD: usize = 700;

/// Sockets to punch with that a node opens before it hears of the clients again, each of which may be about to close while
/// another has its place: all at once, if the machine stood still until all were late.
const SOCKETS_MAX: usize = 2 * 64;

/// The datagram of a handshake of a fresh client, as somebody claims to pass it on, for a relay that is not there.
fn handshake(server: PublicKey, to: SocketAddrV4, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let client = SocketAddrV4::new(Ipv4Addr::new(7, 7, high, low), 777);
    let relay = RelayThrough {
        public_key: KeyPair::generate().public_key(),
        token: [7; 32].into(),
    };
    let passed_on = Said {
        firewall: Firewall::UNKNOWN,
        relay_through: Some(relay),
        mode: Mode::FROM_RELAY,
        client: Some(client),
    };
    passed_on.datagram(server, to, number)
}

/// What a fresh client, or who claims to pass its handshake on, says.
struct Said {
    firewall: Firewall,
    relay_through: Option<RelayThrough>,
    mode: Mode,
    client: Option<SocketAddrV4>,
}

impl Said {
    fn datagram(self, server: PublicKey, to: SocketAddrV4, number: u16) -> Vec<u8> {
        let payload = NoisePayload {
            firewall: self.firewall,
            relay_through: self.relay_through,
            ..NoisePayload::new(number.into())
        };
        let dialling = ClientHandshake::new(&KeyPair::generate(), server, &payload).unwrap();
        let message = Handshake {
            mode: self.mode,
            noise: dialling.request().to_vec(),
            peer_address: self.client,
            relay_address: None,
        };
        let request = Request {
            tid: number,
            to,
            id: None,
            token: None,
            command: PEER_HANDSHAKE,
            target: Some(Id::of_public_key(&server)),
            value: Some(message.to_vec()),
        };
        request.to_vec()
    }
}

/// Goal: handshakes that nobody follows up cost few sockets and queries, and who means it is let in. Method: hundreds from one
/// socket, each naming a relay that is not there; then a peer that punches connects, and the flooded one still finds out that
/// somebody is not there.
#[tokio::test]
async fn a_flood_of_handshakes_leaves_descriptors_and_queries() {
    let network = Network::start(6).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let met = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&met);
    let mut options = ListenOptions::default().admit(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    options.lan = false;
    let mut server = listening(&a, options).await;
    let to = a.dht().local_address().unwrap();
    let flooder = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut sockets_max = 0;
    let flooding = async {
        for number in 0.. {
            let before = met.load(Ordering::Relaxed);
            if before >= FLOOD {
                return;
            }
            let datagram = handshake(server.public_key(), to, number);
            flooder.send_to(&datagram, to).await.unwrap();
            // A lost one is made up for by the next.
            let arrives = async {
                while met.load(Ordering::Relaxed) == before {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(1), arrives).await.ok();
            sockets_max = sockets_max.max(a.dht().extra_sockets());
        }
    };
    within(flooding).await;
    assert!(sockets_max <= SOCKETS_MAX, "{sockets_max} sockets");
    let nobody = KeyPair::generate().public_key();
    let error = within(a.connect(nobody, ConnectOptions::default())).await;
    assert!(matches!(error, Err(ConnectError::NotFound)), "{error:?}");
    let mut options = ConnectOptions::default();
    options.lan = false;
    let (ours, theirs) = connect(&b, &mut server, options).await;
    assert_eq!(ours.route, Route::Punched);
    talk(ours, theirs).await;
}

/// Goal: a handshake is no connection before its client is there: it costs one datagram of an invented sender. Method: strangers
/// shake hands by themselves, and as clients that anybody can reach, and say nothing more; who is handed out is the peer that
/// connects afterwards.
#[tokio::test]
async fn who_only_shakes_hands_is_no_connection() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let met = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&met);
    let options = ListenOptions::default().admit(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    let mut server = listening(&a, options).await;
    let to = a.dht().local_address().unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(client) = nobody.local_addr().unwrap() else {
        panic!("it was bound to an IPv4 address");
    };
    for number in 0..8 {
        let said = match number % 2 {
            0 => Said {
                firewall: Firewall::UNKNOWN,
                relay_through: None,
                mode: Mode::FROM_CLIENT,
                client: None,
            },
            _ => Said {
                firewall: Firewall::OPEN,
                relay_through: None,
                mode: Mode::FROM_RELAY,
                client: Some(client),
            },
        };
        let datagram = said.datagram(server.public_key(), to, number);
        let shaking = async {
            while met.load(Ordering::Relaxed) <= usize::from(number) {
                stranger.send_to(&datagram, to).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(shaking).await;
    }
    let (ours, theirs) = connect(&b, &mut server, ConnectOptions::default()).await;
    assert_eq!(theirs.remote_public_key(), b.key_pair().public_key());
    talk(ours, theirs).await;
}

/// A frame that opens so many channels of a protocol nobody has: each would be answered by a refusal.
fn opens(count: usize) -> Bytes {
    let mut mux = Mux::new();
    for _ in 0..count {
        mux.open("x", None, &[]).unwrap();
    }
    mux.poll_transmit().unwrap().to_bytes()
}

/// Goal: nobody makes a relay queue refusals without end. Method: one long frame of opens ends the session; one as long as talk
/// is does not.
#[tokio::test]
async fn a_relay_takes_no_long_frames() {
    let network = Network::start(4).await;
    let (a, b) = (network.peers().await, network.peers().await);
    let (_, key, _) = relaying(&a).await;
    let connection = within(b.connect(key, ConnectOptions::default()))
        .await
        .unwrap();
    let (mut sender, mut receiver) = connection.stream.split();
    sender.send(&[opens(100)]).await.unwrap();
    sender.flush().await.unwrap();
    assert!(within(receiver.recv()).await.unwrap().is_some());
    let long = opens(6_000);
    assert!(long.len() > 24 * 1024);
    sender.send(&[long]).await.unwrap();
    sender.flush().await.unwrap();
    let mut received = 0;
    while let Ok(Some(frame)) = within(receiver.recv()).await {
        received += frame.len();
    }
    assert!(received < 1024, "{received} bytes");
}

/// Sends whoever comes a frame that is longer than what relays say.
async fn flood_all(mut server: Server) {
    let mut flooding = JoinSet::new();
    while let Some(connection) = server.accept().await {
        flooding.spawn(flood_one(connection));
    }
}

async fn flood_one(connection: Connection) {
    let (mut sender, mut receiver) = connection.stream.split();
    sender.send(&[opens(6_000)]).await.unwrap();
    sender.flush().await.unwrap();
    while let Ok(Some(_)) = receiver.recv().await {}
}

/// Goal: nor does a relay that the peer has picked make a client do so. Method: a relay that floods is told from one that is
/// silent by why the client left it.
#[tokio::test]
async fn a_client_takes_no_long_frames_of_a_relay() {
    let network = Network::start(4).await;
    let (a, b, c) = (
        network.peers().await,
        network.peers().await,
        network.peers().await,
    );
    let at_relay = listening(&c, ListenOptions::default()).await;
    let key = at_relay.public_key();
    let flooding = tokio::spawn(flood_all(at_relay));
    let mut listen = ListenOptions::default();
    (listen.lan, listen.punch) = (false, false);
    let server = listening(&a, listen).await;
    let mut options = ConnectOptions::default();
    (options.lan, options.punch, options.relay_through) = (false, false, Some(key));
    let error = within(b.connect(server.public_key(), options)).await;
    let is_refused = matches!(error, Err(ConnectError::Relay(RelayError::Refused)));
    assert!(is_refused, "{error:?}");
    flooding.abort();
}
