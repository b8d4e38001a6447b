//! Which ways are tried, for each situation of two peers.

use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore_dht::hyperdht::noise::{
    Firewall, HolepunchInfo, NoisePayload, RelayInfo, RelayThrough,
};
use ferrocore_dht::hyperdht::path::{
    Answered, Asked, Ours, ServerWay, Way, client_ways, server_relay_way, server_way,
};

fn address(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

const RELAY: &str = "88.1.1.1:1";
const SERVER: &str = "77.1.1.1:2";
const CLIENT: &str = "66.1.1.1:3";

fn relay_info() -> RelayInfo {
    RelayInfo {
        relay_address: address(RELAY),
        peer_address: address(SERVER),
    }
}

fn through(key: u8) -> RelayThrough {
    RelayThrough {
        public_key: [key; 32].into(),
        token: [key; 32].into(),
    }
}

fn payload() -> NoisePayload {
    let other = RelayInfo {
        relay_address: address("99.1.1.1:1"),
        peer_address: address(SERVER),
    };
    NoisePayload {
        holepunch: Some(HolepunchInfo {
            id: 0,
            relays: vec![other, relay_info()],
        }),
        addresses4: vec![address("192.168.1.7:9"), address("127.0.0.1:9")],
        ..NoisePayload::new(7)
    }
}

fn answered(payload: &NoisePayload) -> Answered<'_> {
    Answered {
        asked: address(RELAY),
        is_relayed: true,
        server_address: address(SERVER),
        client_address: address(CLIENT),
        payload,
    }
}

const INTERFACES: [Ipv4Addr; 1] = [Ipv4Addr::new(192, 168, 1, 20)];

fn ours() -> Ours<'static> {
    Ours {
        firewall: Firewall::UNKNOWN,
        interfaces: &INTERFACES,
        port: 10,
        lan: true,
        punch: true,
        relay_through: None,
    }
}

#[test]
fn a_server_that_answers_itself_is_connected_to_where_it_was_asked() {
    let payload = payload();
    let asked = Answered {
        is_relayed: false,
        server_address: address(RELAY),
        ..answered(&payload)
    };
    assert_eq!(client_ways(&asked, &ours()), [Way::Direct(address(RELAY))]);
}

#[test]
fn an_open_server_is_connected_to_at_its_first_public_address() {
    let mut payload = payload();
    payload.firewall = Firewall::OPEN;
    let ways = client_ways(&answered(&payload), &ours());
    assert_eq!(ways, [Way::Direct(address(SERVER))], "none is public");
    payload.addresses4.push(address("5.5.5.5:5"));
    let ways = client_ways(&answered(&payload), &ours());
    assert_eq!(ways, [Way::Direct(address("5.5.5.5:5"))]);
}

#[test]
fn a_server_without_relays_is_sent_to_where_the_relay_sees_it() {
    let mut payload = payload();
    payload.holepunch = None;
    let ways = client_ways(&answered(&payload), &ours());
    assert_eq!(ways, [Way::Direct(address(SERVER))]);
}

#[test]
fn an_open_client_waits() {
    let open = Ours {
        firewall: Firewall::OPEN,
        ..ours()
    };
    assert_eq!(client_ways(&answered(&payload()), &open), [Way::Await]);
}

/// Goal: nobody takes itself for the other peer. Method: both are behind one public address, and have the same one on different
/// networks, as containers do.
#[test]
fn our_own_address_is_not_knocked_at() {
    let mut payload = payload();
    let same = address("192.168.1.20:9");
    payload.addresses4 = vec![same];
    let beside = Answered {
        client_address: address("77.1.1.1:3"),
        ..answered(&payload)
    };
    let elsewhere = Ours { port: 10, ..ours() };
    let ways = client_ways(&beside, &elsewhere);
    assert_eq!(ways, [Way::Lan(same), Way::Punch(relay_info())]);
    let ours = Ours { port: 9, ..ours() };
    assert_eq!(client_ways(&beside, &ours), [Way::Punch(relay_info())]);
}

#[test]
fn behind_one_host_the_lan_is_tried_beside_punching_through_the_common_relay() {
    let payload = payload();
    let same = Answered {
        client_address: address("77.1.1.1:3"),
        ..answered(&payload)
    };
    let lan = Way::Lan(address("192.168.1.7:9"));
    let punch = Way::Punch(relay_info());
    assert_eq!(client_ways(&same, &ours()), [lan, punch]);
    assert_eq!(client_ways(&answered(&payload), &ours()), [punch]);
    let never = Ours {
        lan: false,
        punch: false,
        ..ours()
    };
    assert_eq!(client_ways(&same, &never), [], "it cannot be reached");
}

#[test]
fn a_blind_relay_is_tried_beside_everything_and_the_servers_choice_wins() {
    let mut payload = payload();
    let named = Ours {
        relay_through: Some(through(1)),
        ..ours()
    };
    let relay = |key, is_initiator| Way::Relay {
        through: through(key),
        is_initiator,
    };
    let ways = client_ways(&answered(&payload), &named);
    assert_eq!(ways, [relay(1, true), Way::Punch(relay_info())]);
    payload.relay_through = Some(through(2));
    let ways = client_ways(&answered(&payload), &named);
    assert_eq!(ways[0], relay(2, false));
    let theirs = Some((through(2), false));
    assert_eq!(server_relay_way(None, &payload), theirs);
    let own = Some((through(1), true));
    assert_eq!(server_relay_way(Some(through(1)), &payload), own);
}

#[test]
fn a_server_connects_waits_or_punches() {
    let mut client = payload();
    let way = |client: &NoisePayload, is_direct, host: &str, ours: &Ours<'_>| {
        let asked = Asked {
            is_direct,
            client_address: address(CLIENT),
            server_address: SocketAddrV4::new(host.parse().unwrap(), 2),
            payload: client,
        };
        server_way(&asked, ours)
    };
    let direct = ServerWay::Direct(address(CLIENT));
    assert_eq!(way(&client, true, "77.1.1.1", &ours()), direct);
    assert_eq!(way(&client, false, "77.1.1.1", &ours()), ServerWay::Punch);
    assert_eq!(
        way(&client, false, "66.1.1.1", &ours()),
        ServerWay::AwaitLan
    );
    let open = Ours {
        firewall: Firewall::OPEN,
        ..ours()
    };
    assert_eq!(way(&client, false, "77.1.1.1", &open), ServerWay::Await);
    client.firewall = Firewall::OPEN;
    assert_eq!(way(&client, false, "77.1.1.1", &ours()), direct);
}
