//! How many nodes a query asks at a time, and when it is over: the rules of `dht-rpc/lib/query.js` 6.27, one by one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;

use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Command, ErrorCode};
use ferrocore_dht::query::{CONCURRENCY, Query, Step};
use ferrocore_dht::routing_table::K;
use ferrocore_dht::rpc::{Config, Plan, Response, Rpc, Socket};
use ferrocore_primitives::time::Time;

const NODES: u8 = 40;
const ONLY: bool = true;

/// A query among nodes that are numbered as it asks them: closest first.
struct Search {
    query: Query,
    nodes: Vec<SocketAddrV4>,
    asked: usize,
}

impl Search {
    fn new() -> Self {
        let target = target();
        let mut nodes: Vec<_> = (0..NODES).map(node).collect();
        nodes.sort_by_key(|node| target.distance(&Id::of_node(node)));
        Self {
            query: Query::new(target, Id::of_node(&node(NODES)), CONCURRENCY),
            nodes,
            asked: 0,
        }
    }

    /// It knows the closest ones from its table.
    fn of_table(count: usize) -> Self {
        let mut search = Self::new();
        let nodes = search.nodes[..count].to_vec();
        search.query.add_table(nodes);
        search
    }

    /// It was given the closest ones.
    fn of_given(count: usize, only: bool) -> Self {
        let mut search = Self::new();
        search.query.start_from(&search.nodes[..count], only);
        search
    }

    /// Whom it asks now, and what it wants then.
    fn step(&mut self) -> (Range<usize>, Step) {
        let first = self.asked;
        loop {
            match self.query.step() {
                Step::Visit(node) => {
                    assert_eq!(node, self.nodes[self.asked], "the closest comes next");
                    self.asked += 1;
                }
                step => return (first..self.asked, step),
            }
        }
    }

    /// Whom it asks now; it is not over.
    fn asks(&mut self) -> Range<usize> {
        let (asked, step) = self.step();
        assert_eq!(step, Step::Wait);
        asked
    }

    fn answered(&mut self, number: usize, error: ErrorCode, named: &[SocketAddrV4]) {
        let response = Response {
            from: self.nodes[number],
            id: Some(Id::of_node(&self.nodes[number])),
            to: node(NODES),
            socket: Socket::Client,
            token: None,
            closer_nodes: named.to_vec(),
            error,
            value: None,
            rtt: Duration::from_millis(50),
        };
        self.query.answered(&response, |_| true);
    }

    /// Whom it asks once this one has answered.
    fn after_answer(&mut self, number: usize) -> Range<usize> {
        self.answered(number, ErrorCode::NONE, &[]);
        self.asks()
    }

    fn after_error(&mut self, number: usize) -> Range<usize> {
        self.answered(number, ErrorCode::UNKNOWN_COMMAND, &[]);
        self.asks()
    }

    fn after_timeout(&mut self, number: usize) -> Range<usize> {
        self.query.timed_out(&self.nodes[number]);
        self.asks()
    }

    fn after_slowness(&mut self, number: usize) -> Range<usize> {
        self.query.slowed(&self.nodes[number]);
        self.asks()
    }
}

fn target() -> Id {
    [7; 32].into()
}

fn node(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(5, 0, 0, number), 49737)
}

#[test]
fn ten_of_the_nodes_known_are_asked_at_a_time() {
    let mut search = Search::of_table(30);
    assert_eq!(search.asks(), 0..10);
    assert_eq!(search.asks(), 10..10);
    assert_eq!(search.after_answer(5), 10..11);
    assert_eq!(search.after_error(0), 11..12);
    assert_eq!(search.after_timeout(10), 12..13);
    search.query.failed(&search.nodes[12]);
    assert_eq!(search.asks(), 13..14);
    search.query.set_concurrency(2);
    for number in [1, 2, 3, 4, 6, 7, 8, 9] {
        assert_eq!(search.after_answer(number), 14..14);
    }
    assert_eq!(search.after_answer(11), 14..15);
}

#[test]
fn who_cannot_be_among_the_closest_is_not_asked() {
    let mut search = Search::of_table(NODES.into());
    assert_eq!(search.asks(), 0..10);
    for number in 0..K - 1 {
        assert_eq!(search.after_answer(number).len(), 1);
    }
    assert_eq!(search.after_answer(K - 1), 29..29);
    for number in K..28 {
        search.after_answer(number);
    }
    search.answered(28, ErrorCode::NONE, &[]);
    assert_eq!(search.step(), (29..29, Step::Done));
    assert!(
        search
            .query
            .closest()
            .iter()
            .map(|kept| kept.from)
            .eq(search.nodes[..K].iter().copied())
    );
}

/// Goal: a node that is slow takes nobody's place. It makes one place, once, and takes that with it when it answers or does not.
#[test]
fn each_slow_node_makes_place_for_one_more() {
    let mut search = Search::of_table(NODES.into());
    assert_eq!(search.asks(), 0..10);
    assert_eq!(search.after_slowness(3), 10..11);
    assert_eq!(search.after_slowness(3), 11..11, "once");
    assert_eq!(search.after_slowness(4), 11..12);
    assert_eq!(search.after_slowness(5), 12..13);
    assert_eq!(search.after_answer(3), 13..13);
    assert_eq!(search.after_timeout(4), 13..13);
    assert_eq!(search.after_error(5), 13..13);
    assert_eq!(search.after_answer(0), 13..14);
    assert_eq!(search.after_slowness(0), 14..14, "it has answered");
}

/// Goal: nodes that were given are likely the right ones. Ten are asked at once, then no more than three at a time until ten
/// have answered.
#[test]
fn a_query_from_given_nodes_goes_on_carefully() {
    let mut search = Search::of_given(NODES.into(), !ONLY);
    assert_eq!(search.asks(), 0..10);
    for number in 0..6 {
        assert_eq!(search.after_answer(number), 10..10);
    }
    assert_eq!(search.after_error(6), 10..10, "three are under way");
    assert_eq!(search.after_answer(7), 10..11);
    assert_eq!(
        search.after_slowness(8),
        11..12,
        "one more beside a slow one"
    );
    assert_eq!(search.after_answer(8), 12..12);
    // The tenth.
    assert_eq!(search.after_answer(9), 12..20);
    assert_eq!(search.after_answer(10), 20..21);
}

/// Goal: who does not answer counts towards the ten, but care ends with an answer only.
#[test]
fn silence_does_not_end_the_care_of_a_query_from_given_nodes() {
    let mut search = Search::of_given(NODES.into(), !ONLY);
    assert_eq!(search.asks(), 0..10);
    for number in 0..7 {
        assert_eq!(search.after_timeout(number), 10..10);
    }
    for number in 7..12 {
        let next = number + 3;
        assert_eq!(search.after_timeout(number), next..next + 1);
    }
    assert_eq!(search.after_answer(12), 15..23);
}

#[test]
fn a_query_that_was_given_too_few_takes_the_table_and_no_care() {
    let mut search = Search::of_given(K - 1, !ONLY);
    assert_eq!(search.query.wanted(), 1);
    let known = search.nodes[K - 1..].to_vec();
    search.query.add_table(known);
    assert_eq!(search.asks(), 0..10);
    assert_eq!(search.after_answer(0), 10..11);
    assert_eq!(search.after_timeout(1), 11..12);
}

#[test]
fn a_query_waits_for_the_slow_only_while_it_has_too_few() {
    for (count, over) in [(K + 1, true), (K, false)] {
        let mut search = Search::of_table(count);
        search.asks();
        for number in 0..count - 1 {
            search.after_answer(number);
        }
        search.query.slowed(&search.nodes[count - 1]);
        let step = if over { Step::Done } else { Step::Wait };
        assert_eq!(search.step(), (count..count, step));
        search.query.timed_out(&search.nodes[count - 1]);
        assert_eq!(search.step(), (count..count, Step::Done));
    }
}

/// Goal: where more than three of four given nodes failed, the table is tried, once; unless only those given may be asked.
#[test]
fn a_query_whose_given_nodes_fail_turns_to_the_table() {
    for (answers, only, end) in [
        (K / 4 - 1, !ONLY, Step::Table),
        (K / 4 - 1, ONLY, Step::Done),
        (K / 4, !ONLY, Step::Done),
    ] {
        let mut search = Search::of_given(K, only);
        search.asks();
        for number in 0..K - 1 {
            if number < answers {
                search.after_answer(number);
            } else {
                search.after_timeout(number);
            }
        }
        search.query.timed_out(&search.nodes[K - 1]);
        assert_eq!(search.step(), (K..K, end));
        if end == Step::Table {
            assert_eq!(search.query.wanted(), K);
            let known = search.nodes[..=K].to_vec();
            search.query.add_table(known);
            assert_eq!(search.asks(), K..K + 1, "nobody twice");
            search.query.timed_out(&search.nodes[K]);
            assert_eq!(search.step(), (K + 1..K + 1, Step::Farther));
            assert_eq!(search.step(), (K + 1..K + 1, Step::Done));
        }
    }
}

/// Goal: where more than three of four nodes of the table failed, farther ones are tried, once: all that were near may be dead,
/// while others live. There is no waiting for those that are only slow.
#[test]
fn a_query_whose_table_fails_wants_farther_nodes() {
    for (answers, end) in [
        (0, Step::Farther),
        (K / 4 - 1, Step::Farther),
        (K / 4, Step::Wait),
    ] {
        let mut search = Search::of_table(K);
        search.asks();
        for number in 0..answers {
            search.after_answer(number);
        }
        for number in answers..K - 1 {
            search.after_slowness(number);
        }
        search.query.slowed(&search.nodes[K - 1]);
        assert_eq!(search.step(), (K..K, end), "{answers} answers");
        if end == Step::Farther {
            assert!(search.query.knows(&search.nodes[K - 1]));
            assert!(!search.query.knows(&search.nodes[K]));
            let farther = search.nodes[K - 1..K + 2].to_vec();
            search.query.add_table(farther);
            assert_eq!(search.asks(), K..K + 2);
        }
        for number in answers..K - 1 {
            assert_eq!(search.after_timeout(number).len(), 0);
        }
        search.query.timed_out(&search.nodes[K - 1]);
        for number in K..search.asked {
            assert_eq!(search.asks().len(), 0);
            search.query.timed_out(&search.nodes[number]);
        }
        assert_eq!(search.step().1, Step::Done);
    }
}

/// Goal: only who is being asked can be slow, answer or fail to: a query goes by what it asked.
#[test]
fn who_was_not_asked_makes_no_place() {
    let mut search = Search::of_table(NODES.into());
    assert_eq!(search.asks(), 0..10);
    assert_eq!(search.after_slowness(20), 10..10);
    assert_eq!(search.after_timeout(21), 10..10);
    assert_eq!(search.after_answer(22), 10..10);
    search.query.failed(&search.nodes[23]);
    assert_eq!(search.asks(), 10..10);
    assert_eq!((search.query.successes(), search.query.errors()), (0, 0));
}

#[test]
fn where_only_given_nodes_are_asked_nobody_else_is() {
    for (only, asked) in [(ONLY, 3..3), (!ONLY, 3..4)] {
        let mut search = Search::of_given(3, only);
        search.query.add_table([]);
        assert_eq!(search.asks(), 0..3);
        let named = [search.nodes[3]];
        search.answered(0, ErrorCode::NONE, &named);
        assert_eq!(search.asks(), asked);
    }
}

/// Goal: requests are what the query counts: a node is slow when it is asked again. Method: nobody answers a node that was given
/// thirty others; how many datagrams go to new ones each second?
#[test]
fn a_node_that_is_asked_again_is_slow() {
    let mut rpc = Rpc::new(Time::ZERO, Config::default(), [7; 32]);
    rpc.start(Time::ZERO, crate::net::SERVER_PORT);
    while rpc.poll_transmit().is_some() {}
    let mut plan = Plan::new(target(), Command::FIND_NODE);
    plan.nodes = (0..30).map(node).collect();
    let given: BTreeSet<_> = plan.nodes.iter().copied().collect();
    rpc.query(Time::ZERO, plan).unwrap();
    let mut asked = BTreeSet::new();
    let mut asked_by = |rpc: &mut Rpc, now: Time| {
        while rpc.poll_timeout().is_some_and(|timeout| timeout <= now) {
            rpc.handle_timeout(now);
        }
        asked.extend(std::iter::from_fn(|| rpc.poll_transmit()).map(|sent| sent.to));
        asked.intersection(&given).count()
    };
    // Carefully, for they were given: three beside ten slow ones, three beside thirteen.
    for (seconds, count) in [(0, 10), (1, 13), (2, 16)] {
        let at = Time::ZERO + Duration::from_secs(seconds);
        assert_eq!(asked_by(&mut rpc, at), count, "after {seconds} s");
    }
}
