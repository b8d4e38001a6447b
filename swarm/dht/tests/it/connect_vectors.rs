//! Handshake, sealing and address rules against the bytes that the JavaScript packages wrote.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::common::{bytes, each, fixed, vectors};
use ferrocore_dht::hyperdht::connect::HolepunchPayload;
use ferrocore_dht::hyperdht::handshake::{ClientHandshake, ServerHandshake};
use ferrocore_dht::hyperdht::noise::NoisePayload;
use ferrocore_dht::hyperdht::reach::{is_bogon, is_private, is_reserved, match_address};
use ferrocore_dht::hyperdht::relay::{PROTOCOL, Pair, Unpair};
use ferrocore_dht::hyperdht::seal::Sealing;
use ferrocore_dht::message::Token;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::KeyPair;
use serde_json::Value;

fn pair(seed: &Value) -> KeyPair {
    KeyPair::from_seed(&fixed(seed))
}

fn host(value: &Value) -> Ipv4Addr {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn both_noise_messages_and_all_keys_are_those_of_javascript() {
    let vectors = vectors();
    let ik = &vectors["noiseIK"];
    let (client, server) = (pair(&ik["clientSeed"]), pair(&ik["serverSeed"]));
    let payload = |name: &str| NoisePayload::parse(&bytes(&ik[name])).unwrap();
    let dial = ClientHandshake::with_ephemeral(
        &client,
        server.public_key(),
        &payload("payload1"),
        pair(&ik["clientEphemeralSeed"]),
    )
    .unwrap();
    assert_eq!(dial.request(), bytes(&ik["message1"]));

    let ephemeral = pair(&ik["serverEphemeralSeed"]);
    let met = ServerHandshake::with_ephemeral(&server, dial.request(), ephemeral).unwrap();
    assert_eq!(met.remote_public_key(), client.public_key());
    assert_eq!(met.payload().unwrap(), &payload("payload1"));
    let (noise, keys) = met.answer(&payload("payload2")).unwrap();
    assert_eq!(noise, bytes(&ik["message2"]));

    let agreed = dial.read(&noise).unwrap();
    assert_eq!(agreed.payload, payload("payload2"));
    for keys in [&agreed.keys, &keys] {
        assert_eq!(keys.hash[..], bytes(&ik["handshakeHash"]));
    }
    assert_eq!(agreed.keys.tx[..], bytes(&ik["initiatorTx"]));
    assert_eq!(agreed.keys.rx[..], bytes(&ik["initiatorRx"]));
    assert_eq!(keys.tx[..], bytes(&ik["responderTx"]));
    assert_eq!(keys.rx[..], bytes(&ik["responderRx"]));
}

#[test]
fn sealed_rounds_and_address_tokens_are_those_of_javascript() {
    let vectors = vectors();
    let sealed = &vectors["holepunchBox"];
    let token = &sealed["addressToken"];
    let hash = fixed(&vectors["noiseIK"]["handshakeHash"]);
    let sealing = Sealing::new(&hash, fixed(&token["localSecret"]));
    let payload = HolepunchPayload::from_slice(&bytes(&sealed["plain"])).unwrap();
    assert_eq!(payload.to_vec(), bytes(&sealed["plain"]));
    let wire = bytes(&sealed["wire"]);
    assert_eq!(
        sealing.seal_with_nonce(&payload, &fixed(&sealed["nonce"])),
        wire
    );
    assert_eq!(sealing.open(&wire), Some(payload.clone()));
    assert_eq!(sealing.open(&sealing.seal(&payload)), Some(payload));
    let expected: Token = fixed(&token["token"]).into();
    assert!(sealing.token(host(&token["host"])) == expected);
    for at in 0..wire.len() {
        let mut forged = wire.clone();
        forged[at] ^= 1;
        assert_eq!(sealing.open(&forged), None, "byte {at}");
        assert_eq!(sealing.open(&wire[..at]), None, "cut at {at}");
    }
}

#[test]
fn address_ranges_are_those_of_javascript() {
    each(&vectors()["bogon"], 13, |vector| {
        let ip = host(&vector["ip"]);
        assert_eq!(vector["private"], is_private(ip), "{ip}");
        assert_eq!(vector["reserved"], is_reserved(ip), "{ip}");
        assert_eq!(vector["bogon"], is_bogon(ip), "{ip}");
    });
}

#[test]
fn the_nearest_address_is_that_of_javascript() {
    each(&vectors()["matchAddress"], 3, |vector| {
        let hosts = |name: &str| -> Vec<Ipv4Addr> {
            vector[name].as_array().unwrap().iter().map(host).collect()
        };
        let theirs: Vec<_> = hosts("theirs")
            .into_iter()
            .map(|ip| SocketAddrV4::new(ip, 1))
            .collect();
        let found = match_address(&hosts("mine"), &theirs).map(|address| *address.ip());
        assert_eq!(found, crate::common::maybe(&vector["match"], host));
    });
}

#[test]
fn blind_relay_messages_are_those_of_javascript() {
    let messages = &vectors()["messages"];
    assert_eq!(messages["blindRelayProtocol"], PROTOCOL);
    each(&messages["blindRelayPair"], 2, |vector| {
        let pair = Pair {
            is_initiator: vector["isInitiator"].as_bool().unwrap(),
            token: fixed::<32>(&vector["token"]).into(),
            id: vector["id"].as_u64().unwrap(),
            seq: vector["seq"].as_u64().unwrap(),
        };
        assert_eq!(pair.to_vec(), bytes(&vector["bytes"]));
        assert_eq!(Pair::from_slice(&pair.to_vec()), Ok(pair));
    });
    each(&messages["blindRelayUnpair"], 1, |vector| {
        let token = fixed::<32>(&vector["token"]).into();
        assert_eq!(Unpair { token }.to_vec(), bytes(&vector["bytes"]));
        assert_eq!(
            Unpair::from_slice(&bytes(&vector["bytes"])),
            Ok(Unpair { token })
        );
    });
}
