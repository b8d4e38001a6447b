//! Goal: what strangers can make a node keep is bounded, measured at the allocator: the figures of `docs/NETWORK.md`.
//! Method: one test, for nothing else may allocate meanwhile. What takes no signature is flooded to its bound; announcements, which
//! take two each, up to an eighth of a generation (all of it with `FERROCORE_FLOOD`), where hash tables are as full as at the end.

use std::alloc::System;
use std::net::{Ipv4Addr, SocketAddrV4};

use cap::Cap;
use ferrocore_dht::hyperdht::announce::{Action, Announce, Place};
use ferrocore_dht::hyperdht::router::FORWARDS_MAX;
use ferrocore_dht::hyperdht::{ANNOUNCE, IMMUTABLE_PUT};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Command, Request, Token};
use ferrocore_dht::node::Node;
use ferrocore_dht::rpc::{Config, Incoming, Socket};
use ferrocore_dht::store::{Moment, RECORDS_MAX, Store, VALUE_LEN_MAX};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::hash::hash;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Of announcements under topics, with bumps and refreshes.
const ANNOUNCEMENTS_MAX: usize = 128 << 20;

/// Of servers that are relayed for, but for their refreshes, which are among those.
const FORWARDS_BYTES_MAX: usize = 16 << 20;

/// Of mutable records, and of immutable ones.
const VALUES_MAX: usize = 72 << 20;

/// Of requests that wait or are counted, and the routing table.
const REQUESTS_BYTES_MAX: usize = 1 << 20;

/// No announcement is longer in memory: the key, three relays and a refresh.
const RELAYS: u16 = 3;

const NOW: Time = Time::from_nanos(1);
const NOW_MS: u64 = 1_800_000_000_000;
const OWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(5, 0, 0, 1), 49737);
const TOKEN: [u8; 32] = [8; 32];

#[test]
fn a_flooded_node_keeps_no_more_than_its_bounds() {
    let count = std::env::var("FERROCORE_FLOOD").map_or(RECORDS_MAX / 8, |_| RECORDS_MAX);
    // Two generations, the second of which is full.
    let announced = kept(|store| announce(store, count, false)) * (2 * RECORDS_MAX).div_ceil(count);
    println!("announcements, bumps and refreshes: {announced}");
    assert!(announced <= ANNOUNCEMENTS_MAX, "{announced}");
    let count = count.min(FORWARDS_MAX / 2);
    let relayed = kept(|store| announce(store, count, true)) * FORWARDS_MAX.div_ceil(count);
    println!("servers relayed for: {relayed}");
    assert!(relayed <= FORWARDS_BYTES_MAX, "{relayed}");
    for len in [4, 500, VALUE_LEN_MAX] {
        let values = kept(|store| put_values(store, len));
        println!("values of {len} bytes: {values}");
        assert!(values <= VALUES_MAX, "{values}");
    }
    let asked = flooded_with_requests();
    println!("requests: {asked}");
    assert!(asked <= REQUESTS_BYTES_MAX, "{asked}");
}

/// The most that a store held meanwhile, but for what it began with.
fn kept(flood: impl FnOnce(&mut Store) -> usize) -> usize {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    flood(&mut store)
}

/// Announces under a topic of its own each time, or a key as its own server; returns the most that the store held.
fn announce(store: &mut Store, count: usize, is_server: bool) -> usize {
    let before = ALLOCATOR.allocated();
    let mut peak = 0;
    for number in 0..count {
        let keys = KeyPair::from_seed(&seed(number));
        let target = match is_server {
            true => Id::of_public_key(&keys.public_key()),
            false => Id::from(seed(number)),
        };
        let place = Place {
            target,
            node_id: moment().node_id,
            token: Token::from(TOKEN),
        };
        let refresh = (!is_server).then(|| *hash(&[&seed(number)]).as_bytes());
        let relays = (1..=RELAYS).map(|port| SocketAddrV4::new(*OWN.ip(), port));
        let mut announce =
            Announce::signed(Action::Announce, &place, relays.collect(), refresh, &keys);
        announce.bump = NOW_MS;
        let answer = store.handle(&moment(), &request(ANNOUNCE, target, announce.to_vec()));
        assert!(answer.is_some(), "it is stored");
        drop(announce);
        peak = peak.max(ALLOCATOR.allocated().saturating_sub(before));
    }
    peak
}

/// Puts immutable records of a length, three times as many as are kept; returns the most that the store held.
fn put_values(store: &mut Store, len: usize) -> usize {
    let before = ALLOCATOR.allocated();
    let mut peak = 0;
    for number in 0..(3 * RECORDS_MAX / 2).min((200 << 20) / len) {
        let mut value = vec![0; len];
        value[..4].copy_from_slice(&(number as u32).to_le_bytes());
        let target = Id::of_value(&value);
        let answer = store.handle(&moment(), &request(IMMUTABLE_PUT, target, value));
        assert!(answer.is_some(), "it is stored");
        peak = peak.max(ALLOCATOR.allocated().saturating_sub(before));
    }
    peak
}

/// The most that a node held while 100,000 strangers asked, and were looked at one by one.
fn flooded_with_requests() -> usize {
    let before = ALLOCATOR.allocated();
    let mut node = Node::new(NOW, NOW_MS, Config::bootstrapper(OWN), [7; 32]);
    node.rpc_mut().start(NOW, OWN.port());
    let commands = [
        (Command::PING, Vec::new()),
        (Command::DELAYED_PING, 10_000_u32.to_le_bytes().to_vec()),
        (Command::FIND_NODE, Vec::new()),
        (Command::application(99), vec![1; 1000]),
    ];
    let mut peak = 0;
    for number in 0..100_000_u32 {
        let from = SocketAddrV4::new(Ipv4Addr::from(0x4000_0000 + number), 1000);
        let (command, value) = &commands[number as usize % commands.len()];
        let request = Request {
            tid: 1,
            to: OWN,
            id: Some(Id::of_node(&from)),
            token: None,
            command: *command,
            target: Some(Id::from(seed(number as usize))),
            value: (!value.is_empty()).then(|| value.clone()),
        };
        // Twenty thousand a second: five times as many as are looked at.
        let now = NOW + std::time::Duration::from_micros(u64::from(number) * 50);
        node.rpc_mut().handle_timeout(now);
        node.rpc_mut()
            .handle_datagram(now, Socket::Server, from, &request.to_vec());
        while let Some(event) = node.poll_event(now) {
            drop(event);
        }
        while node.rpc_mut().poll_transmit().is_some() {}
        peak = peak.max(ALLOCATOR.allocated().saturating_sub(before));
    }
    peak
}

fn moment() -> Moment {
    Moment {
        now: NOW,
        unix_ms: NOW_MS,
        node_id: [9; 32].into(),
    }
}

fn request(command: Command, target: Id, value: Vec<u8>) -> Incoming {
    Incoming {
        tid: 1,
        from: "6.0.0.1:1".parse().unwrap(),
        to: OWN,
        socket: Socket::Server,
        id: None,
        token: Some(Token::from(TOKEN)),
        command,
        target: Some(target),
        value: Some(value),
    }
}

fn seed(number: usize) -> [u8; 32] {
    *hash(&[&number.to_le_bytes()]).as_bytes()
}
