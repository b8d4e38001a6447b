//! What holds for all of HyperDHT's values and all bytes: writing and reading cancel out, and nothing panics.

use std::fmt::Debug;
use std::net::{Ipv6Addr, SocketAddrV6};

use crate::common::{any_address, any_addresses, any_buffer, any_token, any_uint};
use ferrocore_dht::hyperdht::announce::{Announce, LookupReply, Peer};
use ferrocore_dht::hyperdht::connect::{Handshake, Holepunch, HolepunchPayload, Mode};
use ferrocore_dht::hyperdht::contact::Contact;
use ferrocore_dht::hyperdht::noise::{
    ConnectError, Firewall, HolepunchInfo, NoisePayload, RelayInfo, RelayThrough, UdxInfo,
};
use ferrocore_dht::hyperdht::plugin::PluginRequest;
use ferrocore_dht::hyperdht::record::{MutableGet, MutablePut, MutableRecord};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::{PublicKey, Signature};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey::from)
}

fn any_signature() -> impl Strategy<Value = Signature> {
    vec(any::<u8>(), 64).prop_map(|bytes| Signature::try_from(&*bytes).unwrap())
}

prop_compose! {
    fn any_peer()(public_key in any_key(), relay_addresses in vec(any_address(), 0..5)) -> Peer {
        Peer { public_key, relay_addresses }
    }
}

prop_compose! {
    fn any_announce()(
        peer in option::of(any_peer()),
        refresh: Option<[u8; 32]>,
        signature in option::of(any_signature()),
        bump in any_uint(),
    ) -> Announce {
        Announce { peer, refresh, signature, bump }
    }
}

prop_compose! {
    fn any_holepunch_payload()(
        (error, firewall, round) in (any_uint(), any_uint(), any_uint()),
        (connected, punching) in any::<(bool, bool)>(),
        addresses in option::of(any_addresses()),
        remote_address in option::of(any_address()),
        token in option::of(any_token()),
        remote_token in option::of(any_token()),
    ) -> HolepunchPayload {
        let (error, firewall) = (ConnectError(error), Firewall(firewall));
        HolepunchPayload {
            error, firewall, round, connected, punching, addresses, remote_address, token, remote_token,
        }
    }
}

prop_compose! {
    fn any_holepunch_info()(
        id in any_uint(),
        relays in vec((any_address(), any_address()), 0..=128),
    ) -> HolepunchInfo {
        let relays = relays.into_iter().map(|(relay_address, peer_address)| RelayInfo { relay_address, peer_address });
        HolepunchInfo { id, relays: relays.collect() }
    }
}

prop_compose! {
    fn any_noise_payload()(
        (error, firewall) in (any_uint(), any_uint()),
        holepunch in option::of(any_holepunch_info()),
        addresses4 in any_addresses(),
        addresses6 in vec(any::<(u128, u16)>(), 0..=128),
        udx in option::of((any::<bool>(), any_uint(), any_uint())),
        secret_stream: bool,
        relay_through in option::of((any_key(), any_token())),
        relay_addresses in option::of(any_addresses()),
    ) -> NoisePayload {
        let six = |(ip, port)| SocketAddrV6::new(Ipv6Addr::from_bits(ip), port, 0, 0);
        NoisePayload {
            error: ConnectError(error),
            firewall: Firewall(firewall),
            holepunch,
            addresses4,
            addresses6: addresses6.into_iter().map(six).collect(),
            udx: udx.map(|(reusable_socket, id, seq)| UdxInfo { reusable_socket, id, seq }),
            secret_stream,
            relay_through: relay_through.map(|(public_key, token)| RelayThrough { public_key, token }),
            relay_addresses,
        }
    }
}

/// Written and read again it is the same, and cut short anywhere it is read without panic.
fn survives<T: Encode + Decode + PartialEq + Debug>(value: &T, cut: prop::sample::Index) {
    let wire = value.to_vec();
    assert_eq!(T::from_slice(&wire).as_ref(), Ok(value));
    let _ = T::from_slice(&wire[..cut.index(wire.len())]);
}

/// What was understood of `wire` survives being written and read again.
fn reads_stably<T: Encode + Decode + PartialEq + Debug>(wire: &[u8]) {
    if let Ok(value) = T::from_slice(wire) {
        assert_eq!(T::from_slice(&value.to_vec()), Ok(value));
    }
}

proptest! {
    #[test]
    fn announcements_survive_the_wire(
        announce in any_announce(),
        peers in vec(any_peer(), 0..=128),
        bump in any_uint(),
        cut: prop::sample::Index,
    ) {
        survives(&announce, cut);
        survives(&LookupReply { peers, bump }, cut);
    }

    #[test]
    fn records_survive_the_wire(
        public_key in any_key(),
        seq in any_uint(),
        value in any_buffer(),
        signature in any_signature(),
        cut: prop::sample::Index,
    ) {
        let record = MutableRecord { seq, value, signature };
        survives(&record, cut);
        survives(&MutablePut { public_key, record }, cut);
        survives(&MutableGet { seq_min: seq }, cut);
    }

    #[test]
    fn handshakes_and_holepunches_survive_the_wire(
        (mode, id) in (any_uint(), any_uint()),
        buffer in any_buffer(),
        peer_address in option::of(any_address()),
        relay_address in option::of(any_address()),
        payload in any_holepunch_payload(),
        cut: prop::sample::Index,
    ) {
        let mode = Mode(mode);
        survives(&Handshake { mode, noise: buffer.clone(), peer_address, relay_address }, cut);
        survives(&Holepunch { mode, id, payload: buffer, peer_address }, cut);
        survives(&payload, cut);
    }

    #[test]
    fn noise_payloads_survive_the_wire(payload in any_noise_payload(), cut: prop::sample::Index, byte: u8) {
        let mut wire = payload.to_vec();
        prop_assert_eq!(NoisePayload::parse(&wire), Ok(payload));
        let cut = cut.index(wire.len());
        let _ = NoisePayload::parse(&wire[..cut]);
        wire[cut] = byte;
        let _ = NoisePayload::parse(&wire);
    }

    #[test]
    fn plugin_requests_and_contacts_survive_the_wire(
        plugin: String,
        (version, command) in (any_uint(), any_uint()),
        value in option::of(any_buffer()),
        key in any_key(),
        nodes in option::of(any_addresses()),
        cut: prop::sample::Index,
    ) {
        survives(&PluginRequest { plugin, version, command, value }, cut);
        survives(&Contact { key, nodes }, cut);
    }

    #[test]
    fn any_bytes_are_read_without_panic(wire in vec(any::<u8>(), 0..300), flags in 0..0x80_u8) {
        reads_stably::<Peer>(&wire);
        reads_stably::<LookupReply>(&wire);
        reads_stably::<Announce>(&wire);
        reads_stably::<MutablePut>(&wire);
        reads_stably::<Handshake>(&wire);
        reads_stably::<Holepunch>(&wire);
        reads_stably::<HolepunchPayload>(&wire);
        reads_stably::<PluginRequest>(&wire);
        reads_stably::<Contact>(&wire);
        let noise = [&[1, flags], &*wire].concat();
        if let Ok(payload) = NoisePayload::parse(&noise) {
            prop_assert_eq!(NoisePayload::parse(&payload.to_vec()), Ok(payload));
        }
    }
}
