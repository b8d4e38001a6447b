//! Making connections over the DHT: handshakes that are passed on and answered, rounds of holepunching, blind relays.
//!
//! Holds: what a relay passes on is no longer than what it was asked by a few addresses; a server answers only what was
//! made for its key; rounds, sealed or not, cost bounded work, sockets and packets; a relay's table stays within its
//! bounds and is empty once its sessions are over.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::connect::{Handshake, HolepunchPayload};
use ferrocore_dht::hyperdht::handshake::{ClientHandshake, Handshakes, Met, ServerHandshake};
use ferrocore_dht::hyperdht::noise::{ConnectError, Firewall, NoisePayload};
use ferrocore_dht::hyperdht::punch::puncher::{Action, BIRTHDAY_SOCKETS, Puncher, RandomPunches};
use ferrocore_dht::hyperdht::punch::server::{Round, ServerPunch, Step};
use ferrocore_dht::hyperdht::relay::{PAIRS_PER_SESSION_MAX, Pair, Pairings, SessionId, Unpair};
use ferrocore_dht::hyperdht::router::{
    Known, Next, handshake_request, read_handshake_reply, read_holepunch_reply, route_handshake,
    route_holepunch,
};
use ferrocore_dht::hyperdht::seal::Sealing;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;

/// What passing a message on may add: two addresses.
const GROWTH_MAX: usize = 16;

fn address(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, number), 1 + u16::from(number))
}

/// The value of a handshake or round, for each of the three that we may be to its target.
pub fn routes(data: &[u8]) {
    for known in [Known::Server, Known::Relay(address(3)), Known::Stranger] {
        match route_handshake(data, address(1), known) {
            Next::Relay { value, .. } | Next::ReplyTo { value, .. } => {
                assert!(value.to_vec().len() <= data.len() + GROWTH_MAX);
            }
            Next::ToServer(message, way) => {
                assert!(way.client(address(1)).port() != 0);
                serve(&message);
            }
            Next::PointOnwards | Next::Drop => {}
        }
        match route_holepunch(data, address(1), known) {
            Next::Relay { value, .. } | Next::ReplyTo { value, .. } => {
                assert!(value.to_vec().len() <= data.len() + GROWTH_MAX);
            }
            _ => {}
        }
    }
    let _ = read_handshake_reply(Some(data), address(1), address(1));
    let _ = read_holepunch_reply(Some(data), address(1), address(1));
}

fn serve(message: &Handshake) {
    let keys = KeyPair::from_seed(&[1; 32]);
    if let Ok(met) = ServerHandshake::read(&keys, &message.noise) {
        let _ = met.payload();
        let _ = met.answer(&NoisePayload::new(7));
    }
    let mut met = Handshakes::new();
    let host = *address(1).ip();
    assert_eq!(met.meet(&message.noise, host, |_| ()), Met::New(0));
    assert_eq!(met.meet(&message.noise, host, |_| ()), Met::Before(0));
}

/// Rounds to a server, each behind its length: the input is what is inside of the seal. The first bit of a length says
/// that it comes without one.
pub fn rounds(data: &[u8]) {
    let sealing = |local| Sealing::new(&[3; 64], [local; 32]);
    let theirs = sealing(1);
    let mut now = Time::from_nanos(1);
    let puncher = Puncher::new(false, true, Firewall::UNKNOWN, RandomPunches::new(), 5);
    let mut server = ServerPunch::new(now, sealing(2), puncher);
    let mut rest = data;
    let mut sent = 0_usize;
    let mut asked = 0_usize;
    while let [head, behind @ ..] = rest {
        let len = usize::from(head >> 1).min(behind.len());
        let (inside, behind) = behind.split_at(len);
        rest = behind;
        asked += 1;
        let payload = match (head & 1, HolepunchPayload::from_slice(inside)) {
            (0, Ok(payload)) => theirs.seal(&payload),
            _ => inside.to_vec(),
        };
        server.handle_round(now, round(payload));
        answer(&mut server, now, *head, &mut sent);
        now += Duration::from_millis(10 * u64::from(*head));
        server.handle_timeout(now);
        answer(&mut server, now, *head, &mut sent);
    }
    // At most one packet a millisecond or so, beside those that open and answer.
    let passed = now.saturating_since(Time::ZERO).as_millis() as usize;
    assert!(
        sent <= BIRTHDAY_SOCKETS + 16 * asked + passed,
        "{sent} packets"
    );
}

fn round(payload: Vec<u8>) -> Round {
    Round {
        ticket: 0,
        client: address(1),
        is_our_relay: true,
        sample: None,
        payload,
    }
}

/// Does what the server wants, within what one input may cost.
fn answer(server: &mut ServerPunch, now: Time, seen: u8, sent: &mut usize) {
    for _ in 0..4 * BIRTHDAY_SOCKETS {
        match server.poll_step() {
            Some(Step::Punch(Action::Sample(socket))) => {
                for node in 0..4 {
                    let port = if seen & 2 == 0 { 7 } else { 7 + node };
                    server.handle_sample(now, socket, address(port), address(100 + node));
                }
                server.handle_sampled(now, socket);
            }
            Some(Step::Punch(Action::Send { to, .. })) => {
                assert!(to.port() != 0);
                *sent += 1;
            }
            Some(_) => {}
            None => return,
        }
    }
    panic!("the server never has enough");
}

/// Messages to a blind relay: a byte for the session and the kind, then the message.
pub fn relays(data: &[u8]) {
    let mut pairings = Pairings::new();
    let mut now = Time::ZERO;
    for message in data.chunks(44) {
        let [head, message @ ..] = message else {
            return;
        };
        let session = SessionId(u64::from(head & 7));
        now += Duration::from_millis(u64::from(*head));
        match head >> 6 {
            0 => {
                if let Ok(unpair) = Unpair::from_slice(message) {
                    pairings.handle_unpair(session, &unpair);
                }
            }
            1 => pairings.handle_timeout(now),
            _ => {
                if let Ok(pair) = Pair::from_slice(message) {
                    assert_eq!(Pair::from_slice(&pair.to_vec()), Ok(pair));
                    pairings.handle_pair(now, session, &pair);
                }
            }
        }
        assert!(pairings.len() <= 8 * PAIRS_PER_SESSION_MAX);
    }
    for session in 0..8 {
        pairings.handle_session_ended(SessionId(session));
    }
    assert!(pairings.is_empty(), "nothing is left behind");
}

/// Values to start from.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let server = KeyPair::from_seed(&[1; 32]).public_key();
    let client = KeyPair::from_seed(&[2; 32]);
    let dial = ClientHandshake::with_ephemeral(
        &client,
        server,
        &NoisePayload::new(7),
        KeyPair::from_seed(&[3; 32]),
    );
    let noise = dial.map(|dial| dial.request().to_vec()).unwrap_or_default();
    let request = handshake_request(noise);
    let through = Handshake {
        mode: ferrocore_dht::hyperdht::connect::Mode::FROM_SECOND_RELAY,
        peer_address: Some(address(1)),
        relay_address: Some(address(2)),
        ..request.clone()
    };
    let mut round = HolepunchPayload::error(ConnectError::NONE, 1);
    round.punching = true;
    round.firewall = Firewall::CONSISTENT;
    round.addresses = Some(vec![address(1), address(2)]);
    round.remote_token = Some(Sealing::new(&[3; 64], [2; 32]).token(*address(1).ip()));
    let mut random = round.clone();
    random.firewall = Firewall::RANDOM;
    let sealed = |round: &HolepunchPayload| {
        let inside = round.to_vec();
        [&[2 * inside.len() as u8][..], &inside].concat()
    };
    let pair = |is_initiator| Pair {
        is_initiator,
        token: [7; 32].into(),
        id: 70_000,
        seq: 0,
    };
    let told = |head: u8, is_initiator| {
        let mut told = [&[head][..], &pair(is_initiator).to_vec()].concat();
        told.resize(44, 0);
        told
    };
    vec![
        ("dht_routes", request.to_vec()),
        ("dht_routes", through.to_vec()),
        ("dht_rounds", [sealed(&round), sealed(&random)].concat()),
        ("dht_rounds", [sealed(&random), sealed(&round)].concat()),
        (
            "blind_relays",
            [told(0x80, true), told(0x81, false)].concat(),
        ),
    ]
}
