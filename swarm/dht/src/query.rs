//! The search for the nodes closest to a target: whom to ask next, and when to stop.
//! Knows `dht-rpc/lib/query.js` 6.27. Does not know datagrams, timeouts or what is asked: it names nodes to visit and is
//! told what came of it.
//!
//! | differs from JavaScript | why |
//! |---|---|
//! | of the nodes known, the closest is visited first | fewer requests; there it is the one heard of last |
//! | a closer node after one that is not closer is taken too | replies name nodes in no order |
//! | of the closest nodes at most [`HOST_NODES_MAX`] are of one host of the internet | ids derive from address and port: one host can have thousands of them near any target |
//! | where far more nodes crowd around the target than there should be, all nodes of the region count as closest, and searches beside the target find those that nobody names any more | a hundred invented ones cannot hide what the others have |
//! | where hardly any node of the table answers, farther ones are asked and the bootstrap nodes | all that were near may have died at once; there the search then ends with nothing |
//! | at most [`VISITS_MAX`] nodes are visited | liars can name closer nodes forever |

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddrV4;

use crate::address::is_local;
use crate::id::{Distance, Id};
use crate::message::ErrorCode;
use crate::routing_table::{HOST_NODES_MAX, K};
use crate::rpc::Response;

/// Nodes asked at a time, unless told otherwise.
pub const CONCURRENCY: usize = 10;

/// Nodes asked at a time after the first when a query starts from given ones, until as many have answered as are asked
/// at a time otherwise: likely they are the right ones.
const CONCURRENCY_CAREFUL: usize = 3;

/// Where the region around a target is crowded, nodes of it that count as closest.
pub const REGION_NODES_MAX: usize = 256;

/// Where the region around a target is crowded, searches beside the target: each covers half of what is left of the
/// region, so that of its [`K`] nodes hardly one is missed.
pub const SWEEPS: usize = 5;

/// Nodes that one query visits.
pub const VISITS_MAX: usize = 1000;

/// Nodes known and not visited yet; the farthest are forgotten.
pub const PENDING_MAX: usize = 256;

/// Nodes remembered as the ones that named another.
const REFERRERS_MAX: usize = K;

/// A search. Ask [`step`](Self::step) what to do until it says [`Step::Wait`] or [`Step::Done`]; tell it of every answer,
/// then ask again.
#[derive(Debug)]
pub struct Query {
    target: Id,
    own: Id,
    concurrency: usize,
    only_given: bool,
    seen: HashMap<SocketAddrV4, Seen>,
    pending: BTreeMap<Distance, SocketAddrV4>,
    /// Known, in the region, and too far unless that turns out to be crowded.
    spare: BTreeMap<Distance, SocketAddrV4>,
    /// How far the [`K`] closest nodes are from any target, going by how close others are to us.
    region: Option<Distance>,
    /// Searches beside the target that are under way; `None` before they begin.
    sweeps: Option<usize>,
    /// By distance, at most [`K`], or [`REGION_NODES_MAX`] in a crowded region.
    closest: Vec<Response>,
    in_flight: usize,
    slow: usize,
    visits: usize,
    is_careful: bool,
    table: Table,
    successes: usize,
    errors: usize,
    hints: VecDeque<Hint>,
}

/// What a query wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Ask this node.
    Visit(SocketAddrV4),
    /// More nodes, from the routing table: [`Query::add_table`].
    Table,
    /// As [`Table`](Self::Table), farther ones that the query does not [know](Query::knows), and the bootstrap nodes: hardly any
    /// of the others answers. Wanted once.
    Farther,
    /// Searches beside the target, for its region is crowded: [`Query::sweep_targets`].
    Sweep,
    /// Answers.
    Wait,
    /// Nothing: it is over.
    Done,
}

/// A node named another that does not answer, and should be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// Whom to tell.
    pub to: SocketAddrV4,
    /// Who is down.
    pub down: SocketAddrV4,
}

/// What became of an address.
#[derive(Debug)]
enum Seen {
    /// Not asked yet; named by these.
    Known {
        named_by: Vec<SocketAddrV4>,
    },
    /// Being asked.
    Asked {
        named_by: Vec<SocketAddrV4>,
        is_slow: bool,
    },
    Done,
    Down,
}

/// How much of the routing table a query had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Table {
    /// Nothing: it was given nodes.
    Untouched,
    Near,
    Farther,
}

impl Query {
    /// A search for `target` by the node of id `own`.
    pub fn new(target: Id, own: Id, concurrency: usize) -> Self {
        Self {
            target,
            own,
            concurrency: concurrency.max(1),
            only_given: false,
            seen: HashMap::new(),
            pending: BTreeMap::new(),
            spare: BTreeMap::new(),
            region: None,
            sweeps: None,
            closest: Vec::new(),
            in_flight: 0,
            slow: 0,
            visits: 0,
            is_careful: false,
            table: Table::Untouched,
            successes: 0,
            errors: 0,
            hints: VecDeque::new(),
        }
    }

    /// Starts from these nodes: the closest ones of an earlier query. With `only` no others are asked.
    pub fn start_from(&mut self, nodes: &[SocketAddrV4], only: bool) {
        for node in nodes.iter().take(PENDING_MAX) {
            self.add(*node, None);
        }
        self.only_given = only;
    }

    /// Says how far the [`K`] nodes closest to a target usually are from it. If they are much closer, somebody may have
    /// put them there.
    pub fn expect_within(&mut self, region: Distance) {
        self.region = Some(region);
    }

    /// More nodes from the routing table, or bootstrap nodes.
    pub fn add_table(&mut self, nodes: impl IntoIterator<Item = SocketAddrV4>) {
        if self.table == Table::Untouched {
            self.table = Table::Near;
        }
        for node in nodes {
            self.add(node, None);
        }
    }

    /// Targets beside the target, whose closest nodes make up its region. Routing tables there are full of those that
    /// crowd around the target; but tables have other rows for these.
    pub fn sweep_targets(&self) -> Vec<Id> {
        let Some(region) = self.region else {
            return Vec::new();
        };
        let first = region.shared_bits();
        let bits = first..first + SWEEPS;
        bits.map(|bit| self.target.with_bit_flipped(bit)).collect()
    }

    /// A search beside the target has begun.
    pub fn sweep_began(&mut self) {
        *self.sweeps.get_or_insert(0) += 1;
    }

    /// It found these nodes.
    pub fn sweep_ended(&mut self, found: &[Response]) {
        self.sweeps = self.sweeps.map(|sweeps| sweeps.saturating_sub(1));
        for response in found.iter().take(K) {
            self.add(response.from, None);
        }
    }

    /// How many nodes it would take from the table now.
    pub fn wanted(&self) -> usize {
        if self.only_given {
            return 0;
        }
        K.saturating_sub(self.pending.len())
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if self.sweeps.is_none() && !self.only_given && self.is_crowded() {
            self.sweeps = Some(0);
            return Step::Sweep;
        }
        if let Some(node) = self.next_visit() {
            return Step::Visit(node);
        }
        if self.table == Table::Untouched && self.successes + self.errors == 0 {
            self.is_careful = true;
        }
        let all_slow = self.slow == self.in_flight;
        let is_sweeping = self.sweeps.is_some_and(|sweeps| sweeps > 0);
        if is_sweeping || !self.pending.is_empty() || !all_slow {
            return Step::Wait;
        }
        let failed = self.successes < K / 4 && !self.only_given;
        if failed && self.table == Table::Near {
            self.table = Table::Farther;
            return Step::Farther;
        }
        if self.in_flight > 0 && self.closest.len() < K {
            return Step::Wait;
        }
        if failed && self.table == Table::Untouched {
            return Step::Table;
        }
        Step::Done
    }

    /// A visited node answered, perhaps with an error. `may_ask` says which of the nodes it names may be asked at all.
    pub fn answered(&mut self, response: &Response, may_ask: impl Fn(&SocketAddrV4) -> bool) {
        if !self.landed(&response.from, Seen::Done) {
            return;
        }
        if response.error == ErrorCode::NONE {
            self.successes += 1;
            self.keep(response);
        } else {
            self.errors += 1;
        }
        let named = response.closer_nodes.iter().take(K);
        for node in named.filter(|node| may_ask(node)) {
            self.add(*node, Some(response.from));
        }
        if self.table == Table::Untouched && self.successes + self.errors >= self.concurrency {
            self.is_careful = false;
        }
    }

    /// A visited node has not answered yet, for longer than most take.
    pub fn slowed(&mut self, node: &SocketAddrV4) {
        if let Some(Seen::Asked { is_slow, .. }) = self.seen.get_mut(node)
            && !*is_slow
        {
            *is_slow = true;
            self.slow += 1;
        }
    }

    /// A visited node did not answer.
    pub fn timed_out(&mut self, node: &SocketAddrV4) {
        let named_by = match self.seen.get_mut(node) {
            Some(Seen::Asked { named_by, .. }) => std::mem::take(named_by),
            _ => Vec::new(),
        };
        if self.landed(node, Seen::Down) {
            self.errors += 1;
            let hints = named_by.into_iter().map(|to| Hint { to, down: *node });
            self.hints.extend(hints);
        }
    }

    /// A node could not be asked.
    pub fn failed(&mut self, node: &SocketAddrV4) {
        if self.landed(node, Seen::Done) {
            self.errors += 1;
        }
    }

    /// The next node to be told that another is down.
    pub fn poll_hint(&mut self) -> Option<Hint> {
        self.hints.pop_front()
    }

    /// How many nodes to ask at a time from now on.
    pub fn set_concurrency(&mut self, concurrency: usize) {
        self.concurrency = concurrency.max(1);
    }

    /// Whether it has asked this node, or is to.
    pub fn knows(&self, node: &SocketAddrV4) -> bool {
        self.seen.contains_key(node)
    }

    /// What is searched.
    pub fn target(&self) -> Id {
        self.target
    }

    /// The answers of the closest nodes, closest first; of nodes that showed their id.
    pub fn closest(&self) -> &[Response] {
        &self.closest
    }

    /// [`closest`](Self::closest), at the end.
    pub fn into_closest(self) -> Vec<Response> {
        self.closest
    }

    /// Answers without an error so far.
    pub fn successes(&self) -> usize {
        self.successes
    }

    /// Errors and timeouts so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    fn next_visit(&mut self) -> Option<SocketAddrV4> {
        let concurrency = if self.is_careful {
            CONCURRENCY_CAREFUL
        } else {
            self.concurrency
        };
        if self.visits >= VISITS_MAX {
            self.pending.clear();
        }
        while self.in_flight < concurrency + self.slow {
            let (distance, node) = self.pending.pop_first()?;
            if self.is_wanted(&node, distance) {
                self.ask(node);
                return Some(node);
            }
            self.spare(distance, node);
        }
        None
    }

    fn ask(&mut self, node: SocketAddrV4) {
        self.in_flight += 1;
        self.visits += 1;
        let named_by = match self.seen.remove(&node) {
            Some(Seen::Known { named_by }) => named_by,
            _ => Vec::new(),
        };
        let asked = Seen::Asked {
            named_by,
            is_slow: false,
        };
        self.seen.insert(node, asked);
    }

    /// Keeps a node that is too far, for the case that the region turns out to be crowded.
    fn spare(&mut self, distance: Distance, node: SocketAddrV4) {
        let is_near = self.region.is_some_and(|region| distance <= region);
        if is_near && self.spare.len() < PENDING_MAX {
            self.spare.insert(distance, node);
        } else {
            self.seen.remove(&node);
        }
    }

    /// Takes note of a node, named by another or known before.
    fn add(&mut self, node: SocketAddrV4, named_by: Option<SocketAddrV4>) {
        if self.only_given {
            return;
        }
        match self.seen.get_mut(&node) {
            Some(Seen::Done) => return,
            Some(Seen::Down) => {
                self.hints
                    .extend(named_by.map(|to| Hint { to, down: node }));
                return;
            }
            Some(
                Seen::Known { named_by: others }
                | Seen::Asked {
                    named_by: others, ..
                },
            ) => {
                let room = REFERRERS_MAX.saturating_sub(others.len());
                others.extend(named_by.into_iter().take(room));
                return;
            }
            None => {}
        }
        let id = Id::of_node(&node);
        let distance = self.target.distance(&id);
        let is_near = self.region.is_some_and(|region| distance <= region);
        if id == self.own || !(is_near || self.is_wanted(&node, distance)) {
            return;
        }
        let named_by = named_by.into_iter().collect();
        self.seen.insert(node, Seen::Known { named_by });
        self.pending.insert(distance, node);
        if self.pending.len() > PENDING_MAX
            && let Some((_, farthest)) = self.pending.pop_last()
        {
            self.seen.remove(&farthest);
        }
    }

    /// Whether an answer from there could be one of the closest.
    fn is_wanted(&self, node: &SocketAddrV4, distance: Distance) -> bool {
        let closer = self.closest.iter();
        let closer = closer.take_while(|kept| self.distance(kept) < distance);
        let of_host = |kept: &&Response| kept.from.ip() == node.ip();
        let (count, same) = closer.fold((0, 0), |(count, same), kept| {
            (count + 1, same + usize::from(of_host(&kept)))
        });
        let is_near = self.is_crowded() && self.region.is_some_and(|region| distance <= region);
        let max = if is_near { REGION_NODES_MAX } else { K };
        count < max && (same < HOST_NODES_MAX || is_local(*node.ip()))
    }

    /// Whether the closest nodes are much closer than they should be. Within an eighth of the region there are two or
    /// three honest nodes: who crowds less than that leaves some of them among the closest.
    fn is_crowded(&self) -> bool {
        let last = self.closest.get(K - 1);
        let region = self.region.map(|region| region.eighth());
        last.zip(region)
            .is_some_and(|(last, near)| self.distance(last) < near)
    }

    fn keep(&mut self, response: &Response) {
        let distance = self.distance(response);
        if response.id.is_none() || !self.is_wanted(&response.from, distance) {
            return;
        }
        let at = self
            .closest
            .partition_point(|kept| self.distance(kept) < distance);
        self.closest.insert(at, response.clone());
        if !is_local(*response.from.ip()) {
            self.keep_few_of_host(&response.from);
        }
        if self.is_crowded() {
            self.pending.append(&mut self.spare);
            let region = self.region;
            let target = self.target;
            let is_near = |kept: &Response| {
                kept.id
                    .is_some_and(|id| Some(target.distance(&id)) <= region)
            };
            let near = self.closest.partition_point(is_near);
            self.closest.truncate(near.clamp(K, REGION_NODES_MAX));
        } else {
            self.closest.truncate(K);
        }
    }

    fn keep_few_of_host(&mut self, node: &SocketAddrV4) {
        let mut same = 0;
        self.closest.retain(|kept| {
            same += usize::from(kept.from.ip() == node.ip());
            kept.from.ip() != node.ip() || same <= HOST_NODES_MAX
        });
    }

    /// A visit is over. False if there was none.
    fn landed(&mut self, node: &SocketAddrV4, now: Seen) -> bool {
        let Some(Seen::Asked { is_slow, .. }) = self.seen.get(node) else {
            return false;
        };
        self.slow = self.slow.saturating_sub(usize::from(*is_slow));
        self.in_flight = self.in_flight.saturating_sub(1);
        self.seen.insert(*node, now);
        true
    }

    fn distance(&self, response: &Response) -> Distance {
        let id = response.id.unwrap_or_else(|| Id::of_node(&response.from));
        self.target.distance(&id)
    }
}
