//! The table's decisions one by one, and its order against a naive twin.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const OWN: [u8; 32] = [0; 32];

fn address(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), n)
}

/// Addresses of nodes that share no bit with [`OWN`], so that all belong in one row.
fn far() -> impl Iterator<Item = SocketAddrV4> {
    let all = (1..u16::MAX).map(address);
    all.filter(|address| Id::of_node(address).as_bytes()[0] >= 0x80)
}

/// A bootstrapped table whose farthest row was filled, one node a tick from tick 0 on; and a newcomer to it.
fn full_row() -> (RoutingTable, Vec<SocketAddrV4>, SocketAddrV4) {
    let mut table = RoutingTable::new(OWN.into());
    table.set_bootstrapped();
    let mut nodes: Vec<_> = far().take(K + 1).collect();
    let newcomer = nodes.pop().unwrap();
    for (tick, node) in nodes.iter().enumerate() {
        assert_eq!(table.heard(*node, tick as u64), Heard::Added);
    }
    (table, nodes, newcomer)
}

fn knows(table: &RoutingTable, address: &SocketAddrV4) -> bool {
    table.get(&Id::of_node(address)).is_some()
}

fn full(heard: Heard) -> Check {
    match heard {
        Heard::Full(check) => check,
        other => panic!("{other:?} instead of a check"),
    }
}

#[test]
fn a_newcomer_takes_the_place_of_a_silent_node() {
    let (mut table, nodes, newcomer) = full_row();
    let check = full(table.heard(newcomer, 100));
    assert_eq!(check.address(), nodes[0], "silent longest");
    assert!(!knows(&table, &newcomer));
    assert_eq!(table.timed_out(check, 101), Some(Heard::Added));
    assert!(knows(&table, &newcomer) && !knows(&table, &nodes[0]));
    assert_eq!(table.len(), K);
}

/// A host of the internet has two places in a row, however many ports it has; one of a local network has them all.
#[test]
fn a_host_has_few_places_in_a_row() {
    for (ip, places) in [
        (Ipv4Addr::new(6, 0, 0, 1), HOST_NODES_MAX),
        (Ipv4Addr::new(10, 0, 0, 1), K),
    ] {
        let mut table = RoutingTable::new(OWN.into());
        let all = (1..u16::MAX).map(|port| SocketAddrV4::new(ip, port));
        for node in all
            .filter(|node| Id::of_node(node).as_bytes()[0] >= 0x80)
            .take(100)
        {
            let _ = table.heard(node, 0);
        }
        assert_eq!(table.len(), places);
    }
}

#[test]
fn a_node_that_answers_keeps_its_place() {
    let (mut table, nodes, newcomer) = full_row();
    let check = full(table.heard(newcomer, 100));
    assert_eq!(table.heard(nodes[0], 100), Heard::Known);
    assert_eq!(table.answered(check, 100), None);
    assert!(!knows(&table, &newcomer) && knows(&table, &nodes[0]));
}

#[test]
fn a_node_that_answers_without_its_id_loses_its_place() {
    let (mut table, nodes, newcomer) = full_row();
    let check = full(table.heard(newcomer, 100));
    assert_eq!(table.answered(check, 100), Some(Heard::Added));
    assert!(knows(&table, &newcomer) && !knows(&table, &nodes[0]));
}

#[test]
fn few_places_are_contested_at_a_time_and_none_before_bootstrap() {
    let (mut table, _, _) = full_row();
    let mut newcomers = far().skip(K);
    let mut knock = || newcomers.next().unwrap();
    let mut checks: Vec<_> = (0..REPINGS_MAX)
        .map(|_| full(table.heard(knock(), 100)))
        .collect();
    assert_eq!(table.heard(knock(), 100), Heard::Refused);
    assert_eq!(
        table.timed_out(checks.pop().unwrap(), 100),
        Some(Heard::Added)
    );
    let _check = full(table.heard(knock(), 100));

    let mut table = RoutingTable::new(OWN.into());
    let refused = far().take(K + 1).map(|node| table.heard(node, 0)).last();
    assert_eq!(refused, Some(Heard::Refused));
}

#[test]
fn old_acquaintances_that_were_pinged_recently_are_left_alone() {
    let (mut table, nodes, newcomer) = full_row();
    let tick = OLD_TICKS + 100;
    for node in &nodes {
        assert_eq!(table.heard(*node, tick), Heard::Known);
    }
    assert_eq!(table.heard(newcomer, tick), Heard::Refused, "this tick");
    assert_eq!(table.heard(newcomer, tick + 1), Heard::Refused, "recently");
    let _check = full(table.heard(newcomer, tick + RECENT_TICKS));
}

#[test]
fn young_nodes_are_contested_even_if_pinged_recently_but_not_twice_a_tick() {
    let (mut table, nodes, newcomer) = full_row();
    for node in &nodes {
        assert_eq!(table.heard(*node, 30), Heard::Known);
    }
    assert_eq!(table.heard(newcomer, 30), Heard::Refused);
    let check = full(table.heard(newcomer, 31));
    assert_eq!(check.address(), nodes[0], "of equals, the first that came");
}

#[test]
fn those_silent_longest_are_due_first_and_fewer_when_busy() {
    let (mut table, nodes, _) = full_row();
    assert_eq!(table.heard(nodes[0], 50), Heard::Known);
    let addresses = |due: &[Check]| due.iter().map(Check::address).collect::<Vec<_>>();
    let due = table.due(100, 0);
    assert_eq!(addresses(&due), nodes[1..=PINGS]);
    assert!(table.due(100, 0).is_empty(), "they were pinged this tick");
    assert_eq!(table.due(101, 0).len(), PINGS_RECENT);
    for check in due {
        assert_eq!(table.timed_out(check, 101), None);
    }
    assert_eq!(table.len(), K - PINGS);
    let due = table.due(200, IN_FLIGHT_IDLE_MAX + 1);
    assert_eq!(addresses(&due), nodes[6..6 + PINGS_BUSY]);
    assert!(RoutingTable::new(OWN.into()).due(1, 0).is_empty());
}

#[test]
fn hints_are_followed_once_a_tick_and_bounded() {
    let (mut table, nodes, newcomer) = full_row();
    let tick = 100;
    assert_eq!(table.hinted_down(&newcomer, tick), None, "unknown");
    let check = table.hinted_down(&nodes[0], tick).unwrap();
    assert_eq!(table.hinted_down(&nodes[0], tick), None, "this tick");
    let checks: Vec<_> = (nodes[1..].iter())
        .filter_map(|node| table.hinted_down(node, tick))
        .collect();
    assert_eq!(checks.len(), HINTED_CHECKS_MAX - 1);
    assert_eq!(table.timed_out(check, tick), None);
    assert!(!knows(&table, &nodes[0]));
    assert!(table.hinted_down(&nodes[K - 1], tick).is_some());
}

#[test]
fn a_late_outcome_does_not_hit_a_node_that_went_and_came_back() {
    let (mut table, nodes, _) = full_row();
    let check = table.hinted_down(&nodes[0], 100).unwrap();
    assert!(table.remove(&Id::of_node(&nodes[0])));
    assert!(!table.remove(&Id::of_node(&nodes[0])));
    assert_eq!(table.heard(nodes[0], 100), Heard::Added);
    assert_eq!(table.timed_out(check, 100), None);
    assert!(knows(&table, &nodes[0]));
}

#[test]
fn we_are_not_in_our_own_table() {
    let mut table = RoutingTable::new(Id::of_node(&address(1)));
    assert_eq!(table.heard(address(1), 0), Heard::Refused);
    assert_eq!(table.heard(address(2), 0), Heard::Added);
    table.set_own(Id::of_node(&address(2)));
    assert!(table.is_empty());
    assert_eq!(table.pick(7), None);
}

/// The order of `closest`, from its definition: by rows, within a row by id.
fn naive(table: &RoutingTable, nodes: &[SocketAddrV4], target: &Id) -> Vec<Id> {
    let row = |id: &Id| table.own().distance(id).shared_bits().min(255);
    let start = row(target);
    let mut ids: Vec<_> = nodes.iter().map(Id::of_node).collect();
    ids.retain(|id| table.get(id).is_some());
    ids.sort_by_key(|id| match row(id) {
        far if far <= start => (start - far, *id),
        near => (near, *id),
    });
    ids.dedup();
    ids
}

proptest! {
    /// Whatever happens, rows stay bounded, both orders hold the same nodes, and the closest are those of the twin.
    #[test]
    fn the_table_stays_whole(
        own: [u8; 32],
        moved: [u8; 32],
        target: [u8; 32],
        events in prop::collection::vec((0..6_u8, 0..200_u16), 0..600),
    ) {
        let mut table = RoutingTable::new(own.into());
        table.set_bootstrapped();
        let mut checks = Vec::new();
        for (tick, (event, n)) in events.into_iter().enumerate() {
            let (tick, node) = (tick as u64, address(n));
            match event {
                0..=2 => if let Heard::Full(check) = table.heard(node, tick) { checks.push(check) },
                3 => checks.extend(table.hinted_down(&node, tick)),
                4 => checks.extend(table.due(tick, usize::from(n % 4))),
                _ => {
                    let ended = checks.pop().and_then(|check| match n % 2 {
                        0 => table.answered(check, tick),
                        _ => table.timed_out(check, tick),
                    });
                    if let Some(Heard::Full(check)) = ended { checks.push(check) }
                }
            }
            prop_assert_eq!(table.repings + table.checks, checks.len());
            prop_assert!(table.repings <= REPINGS_MAX);
        }
        let nodes: Vec<_> = (0..200).map(address).collect();
        for own in [own, moved] {
            table.set_own(own.into());
            for target in [target, own] {
                let expected = naive(&table, &nodes, &target.into());
                let all: Vec<_> = table.closest(&target.into(), usize::MAX).map(Node::id).collect();
                prop_assert_eq!(&all, &expected);
                prop_assert_eq!(all.len(), table.len());
                let row = |id: &Id| table.own().distance(id).shared_bits();
                prop_assert!((0..256).all(|n| all.iter().filter(|id| row(id) == n).count() <= K));
                prop_assert_eq!(table.closest(&target.into(), K).count(), K.min(all.len()));
            }
            let mut latest: Vec<_> = table.latest().map(|node| (node.id, node.heard)).collect();
            prop_assert!(latest.windows(2).all(|pair| pair[0].1 > pair[1].1));
            prop_assert_eq!(latest.len(), table.len());
            let mut rows: Vec<_> = table.rows.from(&table.own()).map(|node| (node.id, node.heard)).collect();
            latest.sort();
            rows.sort();
            prop_assert_eq!(latest, rows);
            let picked = (0..table.len()).filter_map(|n| table.pick(n as u64)).map(Node::id);
            prop_assert_eq!(picked.collect::<std::collections::BTreeSet<_>>().len(), table.len());
        }
    }
}
