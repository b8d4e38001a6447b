//! Where a search goes, and what it makes of each answer: one query, and answers made for it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::id::Id;
use ferrocore_dht::message::ErrorCode;
use ferrocore_dht::query::{Query, Step};
use ferrocore_dht::rpc::{Response, Socket};

const OWN: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 1);

fn node(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(5, 0, 0, number), 49737)
}

fn response(from: SocketAddrV4, error: ErrorCode, named: &[SocketAddrV4]) -> Response {
    Response {
        from,
        id: Some(Id::of_node(&from)),
        to: SocketAddrV4::new(OWN, 49737),
        socket: Socket::Client,
        token: None,
        closer_nodes: named.to_vec(),
        error,
        value: None,
        rtt: Duration::from_millis(50),
    }
}

/// Whom the query asks now, until it wants something else.
fn visits(query: &mut Query) -> (BTreeSet<SocketAddrV4>, Step) {
    let mut visited = BTreeSet::new();
    loop {
        match query.step() {
            Step::Visit(node) => assert!(visited.insert(node), "{node} is asked twice"),
            step => return (visited, step),
        }
    }
}

/// Goal: a node that refuses what it is asked still knows the way, as in `dht-rpc`: the nodes it names are asked, and it is not
/// among those that count. Method: all but the last two nodes of a chain answer with an error.
#[test]
fn nodes_named_beside_an_error_are_asked_too() {
    let target = Id::from([7; 32]);
    let own = Id::of_node(&SocketAddrV4::new(OWN, 49737));
    let errors = [
        ErrorCode::UNKNOWN_COMMAND,
        ErrorCode::INVALID_TOKEN,
        ErrorCode(99),
    ];
    let mut query = Query::new(target, own, 10);
    query.add_table([node(0)]);
    for (at, error) in (0..).zip(errors) {
        assert_eq!(visits(&mut query), (BTreeSet::from([node(at)]), Step::Wait));
        let named = [node(at + 1), node(100 + at)];
        let may_ask = |node: &SocketAddrV4| node.ip().octets()[3] < 100;
        query.answered(&response(node(at), error, &named), may_ask);
    }
    assert_eq!(visits(&mut query).0, BTreeSet::from([node(3)]));
    query.answered(
        &response(node(3), ErrorCode::NONE, &[node(4), node(0)]),
        |_| true,
    );
    assert_eq!(
        visits(&mut query).0,
        BTreeSet::from([node(4)]),
        "nobody twice"
    );
    query.answered(&response(node(4), ErrorCode::NONE, &[]), |_| true);
    assert_eq!(visits(&mut query), (BTreeSet::new(), Step::Farther));
    assert_eq!(visits(&mut query), (BTreeSet::new(), Step::Done));

    assert_eq!((query.errors(), query.successes()), (errors.len(), 2));
    let closest: BTreeSet<_> = query.closest().iter().map(|kept| kept.from).collect();
    assert_eq!(closest, BTreeSet::from([node(3), node(4)]));
}
