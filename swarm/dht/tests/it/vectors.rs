//! Every codec against the bytes that the JavaScript packages wrote: read, compared, and written back.

use crate::common::{address, addresses, bytes, each, fixed, id, maybe, vectors};

use ferrocore_dht::address::{ipv4, put_ipv4};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Command, ErrorCode, Message, Reply, Request};
use ferrocore_dht::routing_table::{Heard, K, Node, RoutingTable};
use ferrocore_primitives::encoding::Reader;
use ferrocore_primitives::sign::PublicKey;

#[test]
fn ids_of_nodes_and_keys() {
    let vectors = vectors();
    each(&vectors["peerIds"], 4, |vector| {
        let node = address(vector);
        let mut encoded = Vec::new();
        put_ipv4(&mut encoded, &node);
        assert_eq!(encoded, bytes(&vector["encoded"]));
        assert_eq!(ipv4(&mut Reader::new(&encoded)), Ok(node));
        assert_eq!(Id::of_node(&node), id(&vector["id"]));
    });
    each(&vectors["keys"], 4, |vector| {
        let key = PublicKey::from(fixed(&vector["publicKey"]));
        assert_eq!(Id::of_public_key(&key), id(&vector["target"]));
    });
}

#[test]
fn requests() {
    each(&vectors()["dhtRpc"]["requests"], 9, |vector| {
        let number = vector["command"].as_u64().unwrap();
        let internal = vector["internal"].as_bool().unwrap();
        let request = Request {
            tid: u16::try_from(vector["tid"].as_u64().unwrap()).unwrap(),
            to: address(&vector["to"]),
            id: maybe(&vector["senderId"], id),
            token: maybe(&vector["token"], |v| fixed(v).into()),
            command: Command { internal, number },
            target: maybe(&vector["target"], id),
            value: maybe(&vector["value"], bytes),
        };
        let datagram = bytes(&vector["bytes"]);
        assert_eq!(request.to_vec(), datagram);
        assert_eq!(Message::parse(&datagram), Ok(Message::Request(request)));
    });
}

#[test]
fn replies() {
    each(&vectors()["dhtRpc"]["replies"], 6, |vector| {
        let fields = &vector["decoded"];
        let reply = Reply {
            tid: u16::try_from(fields["tid"].as_u64().unwrap()).unwrap(),
            to: address(&fields["to"]),
            id: maybe(&fields["id"], id),
            token: maybe(&fields["token"], |v| fixed(v).into()),
            closer_nodes: maybe(&fields["closerNodes"], addresses).unwrap_or_default(),
            error: ErrorCode(fields["error"].as_u64().unwrap()),
            value: maybe(&fields["value"], bytes),
        };
        let datagram = bytes(&vector["bytes"]);
        assert_eq!(reply.to_vec(), datagram);
        assert_eq!(Message::parse(&datagram), Ok(Message::Reply(reply)));

        let request = bytes(&vector["requestBytes"]);
        let Ok(Message::Request(request_read)) = Message::parse(&request) else {
            panic!("the request is one");
        };
        assert_eq!(request_read.to_vec(), request);
    });
}

#[test]
fn command_numbers_are_those_of_javascript() {
    let vectors = vectors();
    let numbers = &vectors["constants"]["rpcCommands"];
    assert_eq!(numbers.as_object().unwrap().len(), 5);
    for (name, command) in [
        ("PING", Command::PING),
        ("PING_NAT", Command::PING_NAT),
        ("FIND_NODE", Command::FIND_NODE),
        ("DOWN_HINT", Command::DOWN_HINT),
        ("DELAYED_PING", Command::DELAYED_PING),
    ] {
        assert_eq!(numbers[name], command.number, "{name}");
        assert!(command.internal);
    }
}

/// The nodes that the JavaScript table named, in its order, are those that ours names.
#[test]
fn closer_nodes_of_a_table() {
    each(&vectors()["dhtRpc"]["replies"], 6, |vector| {
        let Some(mut nodes) = maybe(&vector["decoded"]["closerNodes"], addresses) else {
            return;
        };
        let Ok(Message::Request(request)) = Message::parse(&bytes(&vector["requestBytes"])) else {
            panic!("the request is one");
        };
        let expected = nodes.clone();
        nodes.sort();
        let mut table = RoutingTable::new(id(&vector["replierTableId"]));
        for node in nodes {
            assert_eq!(table.heard(node, 1), Heard::Added);
        }
        let closest = table.closest(&request.target.unwrap(), K);
        assert_eq!(closest.map(Node::address).collect::<Vec<_>>(), expected);
    });
}
