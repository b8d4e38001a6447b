//! What a node stores, and what it silently does not: one request after the other, each with one thing wrong.

use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_dht::hyperdht::announce::{Action, Announce, LookupReply, Place};
use ferrocore_dht::hyperdht::record::{MutableGet, MutablePut, MutableRecord};
use ferrocore_dht::hyperdht::{
    ANNOUNCE, FIND_PEER, IMMUTABLE_GET, IMMUTABLE_PUT, LOOKUP, MUTABLE_GET, MUTABLE_PUT,
    SEQ_REUSED, SEQ_TOO_LOW, UNANNOUNCE,
};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Command, ErrorCode, Reply, Token};
use ferrocore_dht::routing_table::K;
use ferrocore_dht::rpc::{Answer, Incoming, Socket};
use ferrocore_dht::store::{LOOKUP_PEERS, Moment, OWN_MAX, Store, VALUE_LEN_MAX};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::hash::hash;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_primitives::time::Time;

const NOW_MS: u64 = 1_800_000_000_000;

fn moment() -> Moment {
    Moment {
        now: Time::from_nanos(1),
        unix_ms: NOW_MS,
        node_id: [9; 32].into(),
    }
}

fn token() -> Token {
    [8; 32].into()
}

fn keys(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn topic() -> Id {
    [1; 32].into()
}

fn relay() -> SocketAddrV4 {
    "6.0.0.1:1".parse().unwrap()
}

fn request(command: Command, target: Id, value: Option<Vec<u8>>) -> Incoming {
    Incoming {
        tid: 1,
        from: relay(),
        to: "5.0.0.1:49737".parse().unwrap(),
        socket: Socket::Server,
        id: None,
        token: Some(token()),
        command,
        target: Some(target),
        value,
    }
}

fn announcement(action: Action, target: Id, n: u8) -> Announce {
    let place = Place {
        target,
        node_id: moment().node_id,
        token: token(),
    };
    let relays = (1..=5).map(|port| SocketAddrV4::new(*relay().ip(), port));
    Announce::signed(action, &place, relays.collect(), None, &keys(n))
}

fn ask(store: &mut Store, command: Command, target: Id) -> Option<Vec<u8>> {
    let answer = store.handle(&moment(), &request(command, target, None));
    let answer = answer.expect("questions are answered");
    assert!(answer.has_token && answer.has_closer_nodes);
    answer.value
}

fn lookup(store: &mut Store, target: Id) -> Option<LookupReply> {
    ask(store, LOOKUP, target).map(|value| LookupReply::from_slice(&value).unwrap())
}

#[test]
fn announcements_are_kept_named_and_taken_back() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let announce = announcement(Action::Announce, topic(), 1).to_vec();
    let answer = store.handle(&moment(), &request(ANNOUNCE, topic(), Some(announce)));
    assert_eq!(answer, Some(Answer::bare(None)));
    let [peer] = lookup(&mut store, topic())
        .unwrap()
        .peers
        .try_into()
        .unwrap();
    assert_eq!(peer.public_key, keys(1).public_key());
    assert_eq!(peer.relay_addresses.len(), 3, "of five");
    assert_eq!(
        ask(&mut store, FIND_PEER, topic()),
        None,
        "that is for keys"
    );

    let other = announcement(Action::Unannounce, topic(), 2).to_vec();
    let _ = store.handle(&moment(), &request(UNANNOUNCE, topic(), Some(other)));
    assert!(
        lookup(&mut store, topic()).is_some(),
        "another's removal does nothing"
    );
    let own = announcement(Action::Unannounce, topic(), 1).to_vec();
    let answer = store.handle(&moment(), &request(UNANNOUNCE, topic(), Some(own)));
    assert_eq!(answer, Some(Answer::bare(None)));
    assert_eq!(lookup(&mut store, topic()), None);
}

#[test]
fn a_server_under_its_own_key_is_found_and_relayed_for() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let target = Id::of_public_key(&keys(1).public_key());
    let announce = announcement(Action::Announce, target, 1).to_vec();
    let _ = store.handle(&moment(), &request(ANNOUNCE, target, Some(announce)));
    assert_eq!(store.forward(moment().now, &target).unwrap().relay, relay());
    assert!(ask(&mut store, FIND_PEER, target).is_some());
    assert_eq!(lookup(&mut store, target).unwrap().peers.len(), 1);
    assert_eq!(store.records(), 0);
    let _ = store
        .forward(moment().now + Duration::from_secs(3600), &target)
        .is_some();
    store.forget(&target, &keys(1).public_key());
    assert_eq!(ask(&mut store, FIND_PEER, target), None);

    assert!(store.serve(keys(1).public_key()) && store.serves(&target));
    assert!(ask(&mut store, FIND_PEER, target).is_some());
    store.unserve(&keys(1).public_key());
    assert_eq!(ask(&mut store, FIND_PEER, target), None);
    let served = (0..2 * OWN_MAX).filter(|n| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(*n as u64).to_le_bytes());
        store.serve(key.into())
    });
    assert_eq!(served.count(), OWN_MAX);
}

#[test]
fn writes_that_are_not_right_are_met_with_silence() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let key = Id::of_public_key(&keys(1).public_key());
    let announce = announcement(Action::Announce, topic(), 1);
    let record = MutableRecord::signed(1, b"value".to_vec(), &keys(1));
    let put = MutablePut {
        public_key: keys(1).public_key(),
        record: record.clone(),
    };
    let value = b"value".to_vec();
    let right = [
        request(ANNOUNCE, topic(), Some(announce.to_vec())),
        request(MUTABLE_PUT, key, Some(put.to_vec())),
        request(IMMUTABLE_PUT, Id::of_value(&value), Some(value.clone())),
    ];
    let mut wrong = Vec::new();
    for right in &right {
        let with = |change: fn(&mut Incoming)| {
            let mut wrong = request(right.command, right.target.unwrap(), right.value.clone());
            change(&mut wrong);
            wrong
        };
        wrong.push(with(|r| r.token = None));
        wrong.push(with(|r| r.target = None));
        wrong.push(with(|r| r.target = Some([77; 32].into())));
        wrong.push(with(|r| r.value = None));
        wrong.push(with(|r| r.value = Some(Vec::new())));
        wrong.push(with(|r| {
            r.value
                .as_mut()
                .unwrap()
                .iter_mut()
                .for_each(|byte| *byte ^= 0x55)
        }));
    }
    let mut unsigned = announce.clone();
    unsigned.signature = None;
    wrong.push(request(ANNOUNCE, topic(), Some(unsigned.to_vec())));
    let mut elsewhere = request(ANNOUNCE, topic(), Some(announce.to_vec()));
    elsewhere.token = Some([7; 32].into());
    wrong.push(elsewhere);
    for len in [0, VALUE_LEN_MAX + 1] {
        let other = MutablePut {
            record: MutableRecord::signed(1, vec![1; len], &keys(1)),
            ..put.clone()
        };
        wrong.push(request(MUTABLE_PUT, key, Some(other.to_vec())));
    }
    let long = vec![1; VALUE_LEN_MAX + 1];
    wrong.push(request(IMMUTABLE_PUT, Id::of_value(&long), Some(long)));
    wrong.push(request(UNANNOUNCE, topic(), Some(announce.to_vec())));
    wrong.push(request(MUTABLE_GET, key, None));
    for request in &wrong {
        assert_eq!(store.handle(&moment(), request), None, "{request:?}");
    }
    assert_eq!((store.records(), store.values()), (0, 0));
    for request in &right {
        assert!(store.handle(&moment(), request).is_some(), "{request:?}");
    }
    assert_eq!((store.records(), store.values()), (1, 2));
}

/// Goal: whatever a node keeps, no answer is longer than a packet.
#[test]
fn the_longest_answers_fit_one_packet() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let value = vec![7; VALUE_LEN_MAX];
    let record = MutableRecord::signed(u64::MAX >> 11, value.clone(), &keys(1));
    let key = Id::of_public_key(&keys(1).public_key());
    let put = MutablePut {
        public_key: keys(1).public_key(),
        record,
    };
    let mut writes = vec![
        request(IMMUTABLE_PUT, Id::of_value(&value), Some(value.clone())),
        request(MUTABLE_PUT, key, Some(put.to_vec())),
    ];
    for n in 1..=LOOKUP_PEERS as u8 + 5 {
        let announce = announcement(Action::Announce, topic(), n).to_vec();
        writes.push(request(ANNOUNCE, topic(), Some(announce)));
    }
    for write in &writes {
        assert!(store.handle(&moment(), write).is_some(), "{write:?}");
    }
    let any = MutableGet { seq_min: 0 }.to_vec();
    for question in [
        request(IMMUTABLE_GET, Id::of_value(&value), None),
        request(MUTABLE_GET, key, Some(any)),
        request(LOOKUP, topic(), None),
    ] {
        let answer = store.handle(&moment(), &question).unwrap();
        let reply = Reply {
            tid: u16::MAX,
            to: relay(),
            id: Some(topic()),
            token: Some(token()),
            closer_nodes: vec![relay(); K],
            error: ErrorCode::NONE,
            value: answer.value,
        };
        assert!(reply.value.as_ref().unwrap().len() > 1_000);
        let len = reply.to_vec().len();
        assert!(len <= 1_472, "{:?}: {len} bytes", question.command);
    }
}

#[test]
fn the_highest_number_of_a_record_wins() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let target = Id::of_public_key(&keys(1).public_key());
    let mut put = |seq, value: &[u8]| {
        let put = MutablePut {
            public_key: keys(1).public_key(),
            record: MutableRecord::signed(seq, value.to_vec(), &keys(1)),
        };
        let answer = store.handle(&moment(), &request(MUTABLE_PUT, target, Some(put.to_vec())));
        answer.unwrap().error
    };
    assert_eq!(put(5, b"five"), ErrorCode::NONE);
    assert_eq!(put(5, b"five"), ErrorCode::NONE);
    assert_eq!(put(5, b"other"), SEQ_REUSED);
    assert_eq!(put(4, b"four"), SEQ_TOO_LOW);
    assert_eq!(put(6, b"six"), ErrorCode::NONE);
    let mut get = |seq_min| {
        let value = Some(MutableGet { seq_min }.to_vec());
        let answer = store.handle(&moment(), &request(MUTABLE_GET, target, value));
        let value = answer.unwrap().value;
        value.map(|value| MutableRecord::from_slice(&value).unwrap().value)
    };
    assert_eq!(get(0), Some(b"six".to_vec()));
    assert_eq!(get(6), Some(b"six".to_vec()));
    assert_eq!(get(7), None);
    assert_eq!(ask(&mut store, IMMUTABLE_GET, target), None);
}

#[test]
fn bumps_go_up_and_not_into_the_future() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let mut bump = |bump| {
        let mut announce = announcement(Action::Announce, topic(), 1);
        announce.bump = bump;
        let _ = store.handle(
            &moment(),
            &request(ANNOUNCE, topic(), Some(announce.to_vec())),
        );
        lookup(&mut store, topic()).unwrap().bump
    };
    assert_eq!(bump(0), 0);
    assert_eq!(bump(NOW_MS), NOW_MS);
    assert_eq!(bump(NOW_MS - 1), NOW_MS);
    assert_eq!(bump(NOW_MS + 60_001), NOW_MS);
    assert_eq!(bump(NOW_MS + 60_000), NOW_MS + 60_000);
}

/// Whoever knows what the refresh is the hash of renews a record without its key, once for each link of the chain.
#[test]
fn a_refresh_renews_an_announcement() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    let secret = [5; 32];
    let refresh = Some(hash(&[&secret]).into());
    let place = Place {
        target: topic(),
        node_id: moment().node_id,
        token: token(),
    };
    let announce = Announce::signed(Action::Announce, &place, Vec::new(), refresh, &keys(1));
    let _ = store.handle(
        &moment(),
        &request(ANNOUNCE, topic(), Some(announce.to_vec())),
    );
    store.forget(&topic(), &keys(1).public_key());
    let renewal = |secret| Announce {
        peer: None,
        refresh: Some(secret),
        signature: None,
        bump: 0,
    };
    let mut renew = |secret| {
        let value = Some(renewal(secret).to_vec());
        store
            .handle(&moment(), &request(ANNOUNCE, topic(), value))
            .is_some()
    };
    assert!(!renew([6; 32]));
    assert!(renew(secret));
    assert!(!renew(secret), "its hash is used up");
    assert_eq!(lookup(&mut store, topic()).unwrap().peers.len(), 1);
}

#[test]
fn a_lookup_names_some_of_many() {
    let mut store = Store::new(Time::ZERO, [1; 32]);
    for n in 0..60 {
        let announce = announcement(Action::Announce, topic(), n).to_vec();
        let _ = store.handle(&moment(), &request(ANNOUNCE, topic(), Some(announce)));
    }
    let mut names = || lookup(&mut store, topic()).unwrap().peers;
    let first = names();
    assert_eq!(first.len(), LOOKUP_PEERS);
    assert_ne!(first, names(), "others the next time");
}
