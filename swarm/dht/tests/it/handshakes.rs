//! Handshakes over relays, between values: who passes what on, who answers whom, and what strangers can do.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::connect::{Handshake, Holepunch, Mode};
use ferrocore_dht::hyperdht::handshake::{
    CLEAR_AFTER, ClientHandshake, HANDSHAKES_MAX, HANDSHAKES_PER_HOST_MAX, HandshakeFailure,
    Handshakes, Met, ServerHandshake,
};
use ferrocore_dht::hyperdht::noise::{ConnectError, NoisePayload};
use ferrocore_dht::hyperdht::router::{
    FORWARD_AGE_MAX, FORWARDS_MAX, Forward, Forwards, Known, Next, Return, handshake_request,
    read_handshake_reply, read_holepunch_reply, route_handshake, route_holepunch,
};
use ferrocore_dht::id::Id;
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_primitives::time::Time;
use proptest::prelude::*;

fn at(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), 1000 + u16::from(host))
}

const CLIENT: u8 = 1;
const SERVER: u8 = 9;

fn payload(error: ConnectError) -> NoisePayload {
    NoisePayload {
        error,
        ..NoisePayload::new(7)
    }
}

/// Carries a handshake request from the client to `first` and on, and returns the reply that reaches the client,
/// with its sender.
fn carry(
    known: &HashMap<u8, Known>,
    first: u8,
    request: Handshake,
    mut serve: impl FnMut(Handshake, Return) -> Option<Vec<u8>>,
) -> Option<(Handshake, SocketAddrV4)> {
    let (mut from, mut to, mut value) = (at(CLIENT), at(first), request);
    for _ in 0..8 {
        let role = known[&to.ip().octets()[3]];
        match route_handshake(&value.to_vec(), from, role) {
            Next::Relay { to: next, value: v } => (from, to, value) = (to, next, v),
            Next::ReplyTo { to: client, value } => {
                assert_eq!(client, at(CLIENT));
                return Some((value, to));
            }
            Next::ToServer(message, way) => {
                let (answer, next) = way.handshake(serve(message, way)?);
                let Some(next) = next else {
                    return Some((answer, to));
                };
                (from, to, value) = (to, next, answer);
            }
            Next::PointOnwards | Next::Drop => return None,
        }
    }
    panic!("the message goes in circles");
}

fn network() -> HashMap<u8, Known> {
    HashMap::from([
        (2, Known::Relay(at(SERVER))),
        (3, Known::Relay(at(2))), // knows a relay rather than the server
        (4, Known::Stranger),
        (SERVER, Known::Server),
    ])
}

#[test]
fn a_handshake_reaches_the_server_directly_through_one_relay_and_through_two() {
    let (client, server) = (KeyPair::generate(), KeyPair::generate());
    let hello = payload(ConnectError::NONE);
    let dial = ClientHandshake::new(&client, server.public_key(), &hello).unwrap();
    for (first, client_seen) in [(SERVER, None), (2, Some(at(CLIENT))), (3, Some(at(CLIENT)))] {
        let request = handshake_request(dial.request().to_vec());
        let (reply, from) = carry(&network(), first, request, |message, way| {
            assert_eq!(message.peer_address, client_seen);
            assert_eq!(way.client(at(CLIENT)), at(CLIENT));
            let met = ServerHandshake::read(&server, &message.noise).unwrap();
            assert_eq!(met.remote_public_key(), client.public_key());
            Some(met.answer(&hello).unwrap().0)
        })
        .unwrap();
        let read = read_handshake_reply(Some(&reply.to_vec()), at(first), from).unwrap();
        assert_eq!(read.is_relayed, first != SERVER);
        assert_eq!(read.server_address, at(SERVER));
        let agreed = dial.read(&read.noise).unwrap();
        assert_eq!(agreed.keys.remote_public_key, server.public_key());
    }
}

#[test]
fn who_knows_no_way_points_onwards_and_a_given_relay_wins() {
    let request = handshake_request(vec![1]);
    assert_eq!(
        route_handshake(&request.to_vec(), at(CLIENT), Known::Stranger),
        Next::PointOnwards
    );
    let given = Handshake {
        relay_address: Some(at(5)),
        ..request
    };
    let next = route_handshake(&given.to_vec(), at(CLIENT), Known::Relay(at(SERVER)));
    assert!(matches!(next, Next::Relay { to, .. } if to == at(5)));
}

#[test]
fn answers_of_others_and_of_the_wrong_leg_are_no_answers() {
    let reply = Handshake {
        mode: Mode::REPLY,
        noise: vec![1],
        peer_address: None,
        relay_address: None,
    };
    let bytes = reply.to_vec();
    assert!(read_handshake_reply(Some(&bytes), at(2), at(2)).is_some());
    assert!(read_handshake_reply(Some(&bytes), at(2), at(3)).is_none());
    assert!(read_handshake_reply(None, at(2), at(2)).is_none());
    let wrong = Handshake {
        mode: Mode::FROM_SERVER,
        ..reply
    };
    assert!(read_handshake_reply(Some(&wrong.to_vec()), at(2), at(2)).is_none());
}

#[test]
fn a_round_goes_to_the_server_and_back_through_one_relay() {
    let round = Holepunch {
        mode: Mode::FROM_CLIENT,
        id: 3,
        payload: vec![5],
        peer_address: Some(at(SERVER)),
    };
    let next = route_holepunch(&round.to_vec(), at(CLIENT), Known::Stranger);
    let Next::Relay { to, value } = next else {
        panic!("{next:?}");
    };
    assert_eq!(to, at(SERVER));
    let next = route_holepunch(&value.to_vec(), at(2), Known::Server);
    let Next::ToServer(message, way) = next else {
        panic!("{next:?}");
    };
    assert_eq!((message.id, &message.payload[..]), (3, &[5][..]));
    let (answer, to) = way.holepunch(vec![6]).unwrap();
    assert_eq!(to, at(2));
    let next = route_holepunch(&answer.to_vec(), at(SERVER), Known::Stranger);
    let Next::ReplyTo { to, value } = next else {
        panic!("{next:?}");
    };
    assert_eq!(to, at(CLIENT));
    let reply = read_holepunch_reply(Some(&value.to_vec()), at(2), at(2)).unwrap();
    assert_eq!((reply.peer_address, reply.payload), (at(SERVER), vec![6]));
}

#[test]
fn a_forged_answer_does_not_spoil_the_handshake() {
    // A relay that lies costs a request, not the dial.
    let (client, server) = (KeyPair::generate(), KeyPair::generate());
    let hello = payload(ConnectError::NONE);
    let dial = ClientHandshake::new(&client, server.public_key(), &hello).unwrap();
    assert!(matches!(
        dial.read(&[7; 100]),
        Err(HandshakeFailure::Forged(_))
    ));
    let other = KeyPair::generate();
    assert!(ServerHandshake::read(&other, dial.request()).is_err());
    let met = ServerHandshake::read(&server, dial.request()).unwrap();
    let refusal = payload(ConnectError::TRY_LATER);
    let (noise, _) = met.answer(&refusal).unwrap();
    assert_eq!(
        dial.read(&noise).unwrap_err(),
        HandshakeFailure::Refused(ConnectError::TRY_LATER)
    );
    let met = ServerHandshake::read(&server, dial.request()).unwrap();
    assert!(dial.read(&met.answer(&hello).unwrap().0).is_ok());
}

#[test]
fn keys_that_are_no_secure_points_are_refused() {
    // The identity, a point of order four, y = p + 1 (not canonical), and one that is off the curve.
    let mut not_canonical = [0xff; 32];
    (not_canonical[0], not_canonical[31]) = (0xee, 0x7f);
    let mut identity = [0; 32];
    identity[0] = 1;
    let hello = payload(ConnectError::NONE);
    for key in [identity, [0; 32], not_canonical, [2; 32]] {
        let dial = ClientHandshake::new(&KeyPair::generate(), PublicKey::from(key), &hello);
        assert!(dial.is_err(), "as the server's key");
        // As the client's ephemeral key.
        let server = KeyPair::generate();
        let noise = [&key[..], &[0; 96]].concat();
        assert!(ServerHandshake::read(&server, &noise).is_err());
    }
}

#[test]
fn a_replayed_handshake_meets_its_old_number_until_it_is_forgotten() {
    let mut met = Handshakes::new();
    let host = *at(1).ip();
    assert_eq!(met.meet(b"a", host, |n| n), Met::New(0));
    assert_eq!(met.meet(b"b", host, |n| n), Met::New(1));
    assert_eq!(met.meet(b"a", host, |_| unreachable!()), Met::Before(0));
    assert_eq!(met.poll_timeout(), None);
    met.clear_later(Time::ZERO, 0);
    let later = Time::ZERO + CLEAR_AFTER;
    assert_eq!(met.poll_timeout(), Some(later));
    assert_eq!(met.meet(b"a", host, |_| unreachable!()), Met::Before(0));
    assert_eq!(met.handle_timeout(later), [0]);
    assert_eq!(met.get(0), None);
    assert_eq!(met.len(), 1);
    assert_eq!(
        met.meet(b"a", host, |n| n),
        Met::New(0),
        "numbers are reused"
    );
    assert_eq!(met.get(u64::MAX), None);
}

/// Goal: handshakes that nobody follows up shut nobody out, neither a host that they name nor others. Method: more from each host,
/// and of more hosts, than there is room for; the newest is always taken, and no client that has come is forgotten.
#[test]
fn a_flood_of_handshakes_shuts_nobody_out() {
    let mut met = Handshakes::new();
    let here = Ipv4Addr::new(10, 1, 0, 0);
    let Met::New(first) = met.meet(b"first", here, |_| 0) else {
        panic!("no room");
    };
    met.handle_client(first);
    for host in 0..64_u8 {
        for i in 0..=HANDSHAKES_PER_HOST_MAX as u32 {
            let noise = [&[host][..], &i.to_le_bytes()].concat();
            let result = met.meet(&noise, Ipv4Addr::new(10, 0, 0, host), |_| i);
            assert!(matches!(result, Met::New(_)), "host {host}, message {i}");
            assert!(met.len() <= HANDSHAKES_MAX);
        }
        let of_host = |i: u32| [&[host][..], &i.to_le_bytes()].concat();
        let address = Ipv4Addr::new(10, 0, 0, host);
        let second = met.meet(&of_host(1), address, |_| unreachable!());
        assert!(matches!(second, Met::Before(_)));
    }
    assert_eq!(met.len(), HANDSHAKES_MAX);
    assert_eq!(met.get(first), Some(&mut 0));
    let again = met.meet(b"first", here, |_| unreachable!());
    assert_eq!(again, Met::Before(first));
}

#[test]
fn clients_that_have_come_fill_a_host_and_then_the_table() {
    let mut met = Handshakes::new();
    let mut sent = 0_u32;
    for host in 0..64_u8 {
        for i in 0..=HANDSHAKES_PER_HOST_MAX {
            let noise = [&[host][..], &i.to_le_bytes()].concat();
            let result = met.meet(&noise, Ipv4Addr::new(10, 0, 0, host), |_| ());
            let fits = i < HANDSHAKES_PER_HOST_MAX && (sent as usize) < HANDSHAKES_MAX;
            assert_eq!(result != Met::NoRoom, fits, "host {host}, message {i}");
            if let Met::New(number) = result {
                met.handle_client(number);
            }
            sent += u32::from(fits);
        }
    }
    assert_eq!(met.len(), HANDSHAKES_MAX);
    assert_eq!(met.clear().len(), HANDSHAKES_MAX);
    assert_eq!(met.meet(b"a", *at(1).ip(), |_| ()), Met::New(0));
}

/// Goal: a host may connect as often as it likes, if it does so one after the other. Method: ten times as many
/// handshakes as it may have under way, each over before the next.
#[test]
fn handshakes_that_are_over_take_no_room_from_new_ones() {
    let (mut met, host) = (Handshakes::new(), *at(1).ip());
    for i in 0..10 * HANDSHAKES_MAX {
        let now = Time::ZERO + Duration::from_millis(i as u64 / 10);
        let Met::New(number) = met.meet(&i.to_le_bytes(), host, |_| ()) else {
            panic!("handshake {i} was not new");
        };
        met.clear_later(now, number);
        assert!(met.len() <= HANDSHAKES_MAX);
    }
    let last = 10 * HANDSHAKES_MAX - 1;
    let again = met.meet(&last.to_le_bytes(), host, |_| unreachable!());
    assert!(matches!(again, Met::Before(_)));
    assert!(matches!(
        met.meet(&0_usize.to_le_bytes(), host, |_| ()),
        Met::New(_)
    ));
}

#[test]
fn servers_are_relayed_for_until_they_are_too_old_or_too_many() {
    let forward = |host| Forward {
        relay: at(host),
        record: vec![host],
    };
    let mut forwards = Forwards::new(Time::ZERO);
    let target = Id::from([1; 32]);
    forwards.insert(Time::ZERO, target, forward(1));
    forwards.insert(Time::ZERO, target, forward(2));
    assert_eq!(forwards.get(Time::ZERO, &target), Some(&forward(2)));
    let after = |share: f64| Time::ZERO + FORWARD_AGE_MAX.mul_f64(share);
    assert!(forwards.get(after(0.7), &target).is_some());
    assert!(forwards.get(after(1.4), &target).is_none());
    for i in 0..u64::try_from(FORWARDS_MAX).unwrap() + 10 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&i.to_le_bytes());
        forwards.insert(after(1.4), id.into(), forward(1));
        assert!(forwards.len() <= FORWARDS_MAX);
    }
    forwards.remove(&target);
    let gone = after(1.4) + FORWARD_AGE_MAX * 2 + Duration::from_secs(1);
    assert!(forwards.get(gone, &target).is_none());
    assert!(forwards.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_routed_or_dropped(bytes: Vec<u8>, role in 0..3_usize) {
        let known = [Known::Server, Known::Relay(at(3)), Known::Stranger][role];
        let _ = route_handshake(&bytes, at(1), known);
        let _ = route_holepunch(&bytes, at(1), known);
        let _ = ServerHandshake::read(&KeyPair::from_seed(&[1; 32]), &bytes);
        let _ = read_handshake_reply(Some(&bytes), at(1), at(1));
        let _ = read_holepunch_reply(Some(&bytes), at(1), at(1));
    }
}
