//! HyperDHT's values and signatures against the bytes that the JavaScript packages wrote.

use std::fmt::Debug;

use crate::common::{address, addresses, bytes, each, fixed, id, maybe, vectors};
use ferrocore_dht::hyperdht::announce::{Action, Announce, LookupReply, Peer, Place};
use ferrocore_dht::hyperdht::connect::{Handshake, Holepunch, HolepunchPayload, Mode};
use ferrocore_dht::hyperdht::contact::Contact;
use ferrocore_dht::hyperdht::noise::{
    ConnectError, Firewall, HolepunchInfo, NoisePayload, RelayInfo, RelayThrough, UdxInfo,
};
use ferrocore_dht::hyperdht::plugin::PluginRequest;
use ferrocore_dht::hyperdht::record::{MutableGet, MutablePut, MutableRecord, signable};
use ferrocore_dht::hyperdht::{self, SEQ_REUSED, SEQ_TOO_LOW};
use ferrocore_dht::id::Id;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::KeyPair;
use serde_json::Value;

/// Both ways: `value` is written as `wire`, and `wire` is read as `value`.
fn same<T: Encode + Decode + PartialEq + Debug>(value: &T, wire: &Value) {
    let wire = bytes(wire);
    assert_eq!(value.to_vec(), wire);
    assert_eq!(T::from_slice(&wire).as_ref(), Ok(value));
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn flag(value: &Value) -> bool {
    value.as_bool().expect("a flag")
}

fn peer(value: &Value) -> Peer {
    Peer {
        public_key: fixed(&value["publicKey"]).into(),
        relay_addresses: addresses(&value["relayAddresses"]),
    }
}

#[test]
fn command_and_error_numbers_and_namespaces_are_those_of_javascript() {
    let vectors = vectors();
    let commands = vectors["constants"]["commands"].as_object().unwrap();
    assert_eq!(commands.len(), 11);
    for (name, command) in [
        ("PEER_HANDSHAKE", hyperdht::PEER_HANDSHAKE),
        ("PEER_HOLEPUNCH", hyperdht::PEER_HOLEPUNCH),
        ("FIND_PEER", hyperdht::FIND_PEER),
        ("LOOKUP", hyperdht::LOOKUP),
        ("ANNOUNCE", hyperdht::ANNOUNCE),
        ("UNANNOUNCE", hyperdht::UNANNOUNCE),
        ("MUTABLE_PUT", hyperdht::MUTABLE_PUT),
        ("MUTABLE_GET", hyperdht::MUTABLE_GET),
        ("IMMUTABLE_PUT", hyperdht::IMMUTABLE_PUT),
        ("IMMUTABLE_GET", hyperdht::IMMUTABLE_GET),
        ("PLUGIN", hyperdht::PLUGIN),
    ] {
        assert_eq!(commands[name], command.number, "{name}");
        assert!(!command.internal);
    }
    let errors = vectors["constants"]["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 6);
    for (name, error) in [
        ("NONE", ConnectError::NONE.0),
        ("ABORTED", ConnectError::ABORTED.0),
        ("VERSION_MISMATCH", ConnectError::VERSION_MISMATCH.0),
        ("TRY_LATER", ConnectError::TRY_LATER.0),
        ("SEQ_REUSED", SEQ_REUSED.0),
        ("SEQ_TOO_LOW", SEQ_TOO_LOW.0),
    ] {
        assert_eq!(errors[name], error, "{name}");
    }
    let firewalls = vectors["constants"]["firewall"].as_object().unwrap();
    assert_eq!(firewalls.len(), 4);
    for (name, firewall) in [
        ("UNKNOWN", Firewall::UNKNOWN),
        ("OPEN", Firewall::OPEN),
        ("CONSISTENT", Firewall::CONSISTENT),
        ("RANDOM", Firewall::RANDOM),
    ] {
        assert_eq!(firewalls[name], firewall.0, "{name}");
    }
    let namespaces = vectors["namespaces"]["hyperswarm/dht"].as_object().unwrap();
    assert_eq!(namespaces.len(), 7, "six and the hash of the name");
    for (name, namespace) in [
        ("ANNOUNCE", hyperdht::announce_namespace()),
        ("UNANNOUNCE", hyperdht::unannounce_namespace()),
        ("MUTABLE_PUT", hyperdht::mutable_put_namespace()),
        ("PEER_HANDSHAKE", hyperdht::peer_handshake_namespace()),
        ("PEER_HOLEPUNCH", hyperdht::peer_holepunch_namespace()),
        ("PLUGIN", hyperdht::plugin_namespace()),
    ] {
        assert_eq!(namespaces[name], namespace.to_hex(), "{name}");
    }
}

#[test]
fn peers_lookups_and_announcements() {
    let messages = &vectors()["messages"];
    each(&messages["peer"], 2, |v| same(&peer(v), &v["bytes"]));
    each(&messages["lookupRawReply"], 2, |v| {
        let peers = v["peers"].as_array().unwrap().iter().map(peer).collect();
        let bump = number(&v["bump"]);
        same(&LookupReply { peers, bump }, &v["bytes"]);
    });
    each(&messages["announce"], 3, |v| {
        let announce = Announce {
            peer: maybe(&v["peer"], peer),
            refresh: maybe(&v["refresh"], fixed),
            signature: maybe(&v["signature"], |s| fixed(s).into()),
            bump: number(&v["bump"]),
        };
        same(&announce, &v["bytes"]);
    });
}

#[test]
fn handshakes_and_holepunches() {
    let messages = &vectors()["messages"];
    each(&messages["peerHandshake"], 5, |v| {
        let handshake = Handshake {
            mode: Mode(number(&v["mode"])),
            noise: bytes(&v["noise"]),
            peer_address: maybe(&v["peerAddress"], address),
            relay_address: maybe(&v["relayAddress"], address),
        };
        same(&handshake, &v["bytes"]);
    });
    each(&messages["peerHolepunch"], 3, |v| {
        let holepunch = Holepunch {
            mode: Mode(number(&v["mode"])),
            id: number(&v["id"]),
            payload: bytes(&v["payload"]),
            peer_address: maybe(&v["peerAddress"], address),
        };
        same(&holepunch, &v["bytes"]);
    });
    each(&messages["holepunchPayload"], 4, |v| {
        let fields = &v["fields"];
        let payload = HolepunchPayload {
            error: ConnectError(number(&fields["error"])),
            firewall: Firewall(number(&fields["firewall"])),
            round: number(&fields["round"]),
            connected: flag(&fields["connected"]),
            punching: flag(&fields["punching"]),
            addresses: maybe(&fields["addresses"], addresses),
            remote_address: maybe(&fields["remoteAddress"], address),
            token: maybe(&fields["token"], |t| fixed(t).into()),
            remote_token: maybe(&fields["remoteToken"], |t| fixed(t).into()),
        };
        same(&payload, &v["bytes"]);
    });
}

#[test]
fn noise_payloads() {
    each(&vectors()["messages"]["noisePayload"], 6, |v| {
        let payload = noise_payload(&v["fields"]);
        assert_eq!(payload.to_vec(), bytes(&v["bytes"]), "{}", v["name"]);
        assert_eq!(NoisePayload::parse(&bytes(&v["bytes"])), Ok(payload));
    });
}

fn noise_payload(fields: &Value) -> NoisePayload {
    let addresses6 = maybe(&fields["addresses6"], |list| {
        let list = list.as_array().unwrap().iter();
        list.map(|a| format!("[{}]:{}", a["host"].as_str().unwrap(), a["port"]))
            .map(|text| text.parse().unwrap())
            .collect()
    });
    NoisePayload {
        error: ConnectError(number(&fields["error"])),
        firewall: Firewall(number(&fields["firewall"])),
        holepunch: maybe(&fields["holepunch"], |info| HolepunchInfo {
            id: number(&info["id"]),
            relays: info["relays"]
                .as_array()
                .unwrap()
                .iter()
                .map(relay)
                .collect(),
        }),
        addresses4: addresses(&fields["addresses4"]),
        addresses6: addresses6.unwrap_or_default(),
        udx: maybe(&fields["udx"], |info| UdxInfo {
            reusable_socket: flag(&info["reusableSocket"]),
            id: number(&info["id"]),
            seq: number(&info["seq"]),
        }),
        secret_stream: !fields["secretStream"].is_null(),
        relay_through: maybe(&fields["relayThrough"], |info| RelayThrough {
            public_key: fixed(&info["publicKey"]).into(),
            token: fixed(&info["token"]).into(),
        }),
        relay_addresses: maybe(&fields["relayAddresses"], addresses),
    }
}

fn relay(value: &Value) -> RelayInfo {
    RelayInfo {
        relay_address: address(&value["relayAddress"]),
        peer_address: address(&value["peerAddress"]),
    }
}

#[test]
fn mutable_records() {
    let vectors = vectors();
    let messages = &vectors["messages"];
    let key = fixed(&vectors["keys"][0]["publicKey"]);
    each(&messages["mutable"], 5, |v| {
        let record = MutableRecord {
            seq: number(&v["seq"]),
            value: bytes(&v["value"]),
            signature: [5; 64].into(),
        };
        same(&record, &v["getResponse"]);
        let public_key = key.into();
        same(&MutablePut { public_key, record }, &v["put"]);
    });
    each(&messages["mutableGetRequestSeq"], 4, |v| {
        let seq_min = number(&v["seq"]);
        same(&MutableGet { seq_min }, &v["bytes"]);
    });
}

#[test]
fn plugin_requests_and_contacts() {
    let messages = &vectors()["messages"];
    each(&messages["pluginRequest"], 2, |v| {
        let request = PluginRequest {
            plugin: v["plugin"].as_str().unwrap().to_owned(),
            version: number(&v["version"]),
            command: number(&v["command"]),
            value: maybe(&v["value"], bytes),
        };
        same(&request, &v["bytes"]);
    });
    each(&messages["hyperdhtAddress"], 2, |v| {
        let key = fixed(&v["key"]).into();
        let nodes = maybe(&v["nodes"], addresses);
        same(&Contact { key, nodes }, &v["bytes"]);
    });
}

#[test]
fn announcements_are_signed_as_javascript_signs_them() {
    each(&vectors()["signatures"]["announce"], 4, |v| {
        let keys = KeyPair::from_seed(&fixed(&v["seed"]));
        let place = Place {
            target: id(&v["target"]),
            node_id: id(&v["nodeId"]),
            token: fixed(&v["token"]).into(),
        };
        let peer = Peer::from_slice(&bytes(&v["peer"])).unwrap();
        let refresh = maybe(&v["refresh"], fixed);
        let signed = |action| {
            let relays = peer.relay_addresses.clone();
            Announce::signed(action, &place, relays, refresh, &keys)
        };
        let announce = signed(Action::Announce);
        same(&announce, &v["announceValue"]);
        assert_eq!(announce.signature.unwrap().to_hex(), v["announceSignature"]);
        assert_eq!(announce.verify(Action::Announce, &place), Ok(&peer));

        let unannounce = signed(Action::Unannounce);
        assert_eq!(
            unannounce.signature.unwrap().to_hex(),
            v["unannounceSignature"]
        );
        assert_eq!(unannounce.verify(Action::Unannounce, &place), Ok(&peer));
        if v["name"] == "self" {
            assert_eq!(Id::of_public_key(&peer.public_key), place.target);
        }
    });
}

#[test]
fn records_are_signed_and_placed_as_javascript_does() {
    let vectors = vectors();
    each(&vectors["signatures"]["mutable"], 3, |v| {
        let keys = KeyPair::from_seed(&fixed(&v["seed"]));
        let record = MutableRecord::signed(number(&v["seq"]), bytes(&v["value"]), &keys);
        assert_eq!(record.signature.to_hex(), v["signature"]);
        let public_key = keys.public_key();
        let put = MutablePut { public_key, record };
        same(&put, &v["put"]);
        assert_eq!(put.verify(&id(&v["target"])).is_ok(), flag(&v["verifies"]));
        let signed = signable(put.record.seq, &put.record.value);
        assert_eq!(signed[..32], *hyperdht::mutable_put_namespace().as_bytes());
    });
    each(&vectors["signatures"]["immutable"], 2, |v| {
        assert_eq!(Id::of_value(&bytes(&v["value"])), id(&v["target"]));
    });
}
