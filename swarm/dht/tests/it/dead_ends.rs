//! Searches whose nodes are gone: all that a node knew near the target, or all that it remembers.

use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore_dht::id::Id;
use ferrocore_dht::message::Command;
use ferrocore_dht::routing_table::K;
use ferrocore_dht::rpc::{Plan, Rpc};

use crate::net::{Net, SERVER_PORT};
use crate::rpc::{SECOND, config, ids, network, query};

/// The closest to `target` of the nodes that live, but for one host.
fn closest(net: &Net<Rpc>, target: &Id, but: usize) -> Vec<Id> {
    let own = net.hosts[&but].machine.id();
    let mut all = ids(net);
    all.retain(|id| Some(*id) != own);
    all.sort_by_key(|id| id.distance(target));
    all.truncate(K);
    all
}

/// Goal: a search whose nodes are all dead goes on with those that are farther away: it finds the closest of the living. Method:
/// of a network the nodes die that one of them would ask first, and it searches at once.
#[test]
fn a_search_whose_nodes_are_all_dead_goes_on_with_farther_ones() {
    let (mut net, _) = network(21, 80);
    let (host, target) = (60, Id::from(net.random.bytes()));
    let table = net.hosts[&host].machine.table();
    assert!(table.len() >= K + 5);
    let asked: Vec<_> = table
        .closest(&target, K)
        .map(|node| node.address())
        .collect();
    let hosts = net.hosts.keys().copied();
    let dead: Vec<_> = hosts
        .filter(|host| asked.contains(&net.address(*host)))
        .collect();
    dead.into_iter().for_each(|host| net.remove(host));
    let outcome = query(&mut net, host, Plan::new(target, Command::FIND_NODE)).unwrap();
    let found: Vec<_> = outcome.closest.iter().filter_map(|r| r.id).collect();
    assert_eq!(found, closest(&net, &target, host));
}

/// Goal: a node that comes back when all it remembers are gone asks its bootstrap node. Method: it remembers addresses that nobody
/// has.
#[test]
fn a_node_that_remembers_only_the_dead_asks_its_bootstrap_node() {
    let (mut net, first) = network(22, 30);
    let mut config = config(first);
    let gone = |last| SocketAddrV4::new(Ipv4Addr::new(210, 1, last, 1), SERVER_PORT);
    config.nodes = (0..60).map(gone).collect();
    let host = net.add(config, false);
    net.run_for(SECOND * 20, |_, _, _| {});
    assert!(net.hosts[&host].machine.is_bootstrapped());
    let target = Id::from(net.random.bytes());
    let outcome = query(&mut net, host, Plan::new(target, Command::FIND_NODE)).unwrap();
    let found: Vec<_> = outcome.closest.iter().filter_map(|r| r.id).collect();
    assert_eq!(found, closest(&net, &target, host));
}
