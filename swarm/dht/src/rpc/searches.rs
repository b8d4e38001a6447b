//! The queries of a node: each asks through the node's requests, and starts from its table.
//! Knows who runs which query. Does not know whom a query visits next.

use std::net::SocketAddrV4;

use ferrocore_primitives::time::Time;

use super::outgoing::Purpose;
use super::{Event, Outcome, Outgoing, Plan, QueryId, RequestError, Response, Rpc};
use crate::address::put_ipv4;
use crate::id::{Distance, Id};
use crate::limits::QUERIES_MAX;
use crate::message::{Command, ErrorCode};
use crate::query::{Hint, Query, Step};
use crate::routing_table::K;

/// With fewer requests under way a search of our own is as fast as others.
const IN_FLIGHT_IDLE: usize = 3;

/// A query under way.
#[derive(Debug)]
pub(super) struct Search {
    query: Query,
    plan: Plan,
    owner: Owner,
}

/// Whose query it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Application,
    /// The node's own, while it starts.
    Bootstrap,
    /// The node's own, now and then.
    Refresh,
    /// Another query, whose target is crowded.
    Sweep(QueryId),
}

impl Rpc {
    /// Asks the nodes closest to a target. Their answers come as [`Event::QueryResponse`], the end as
    /// [`Event::QueryEnded`].
    ///
    /// # Errors
    /// [`RequestError::Suspended`], [`RequestError::TooMany`].
    pub fn query(&mut self, now: Time, plan: Plan) -> Result<QueryId, RequestError> {
        self.clock.postpone_refresh();
        self.search(now, plan, Owner::Application)
    }

    /// Ends a query; no event tells of it.
    pub fn cancel_query(&mut self, now: Time, query: QueryId) {
        self.searches.remove(&query);
        self.cancel_visits(now, query);
        let is_part = |search: &Search| search.owner == Owner::Sweep(query);
        let parts = self.searches.iter().filter(|(_, search)| is_part(search));
        for part in parts.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.cancel_query(now, part);
        }
    }

    /// Searches as the node itself does: with less haste while others need the window.
    pub(super) fn search_own(&mut self, now: Time, target: Id, owner: Owner) {
        self.clock.postpone_refresh();
        let plan = Plan {
            concurrency: Some(self.quiet_concurrency()),
            ..Plan::new(target, Command::FIND_NODE)
        };
        // With so many queries under way the table is fresh anyway.
        if self.search(now, plan, owner).is_err() && owner == Owner::Bootstrap {
            self.bootstrap_searched(now);
        }
    }

    pub(super) fn is_searching(&self, owner: Owner) -> bool {
        self.searches.values().any(|search| search.owner == owner)
    }

    /// A visit of a query ended.
    pub(super) fn search_landed(
        &mut self,
        now: Time,
        id: QueryId,
        node: SocketAddrV4,
        result: Result<Response, RequestError>,
    ) {
        let Some(mut search) = self.searches.remove(&id) else {
            return;
        };
        match result {
            Ok(response) => self.search_answered(now, id, &mut search, response),
            Err(RequestError::TimedOut) => search.query.timed_out(&node),
            Err(_) => search.query.failed(&node),
        }
        self.searches.insert(id, search);
        self.advance(now, id);
    }

    /// A visit of a query takes long.
    pub(super) fn search_slowed(&mut self, now: Time, id: QueryId, node: SocketAddrV4) {
        if let Some(search) = self.searches.get_mut(&id) {
            search.query.slowed(&node);
            self.advance(now, id);
        }
    }

    pub(super) fn end_search(&mut self, now: Time, id: QueryId, result: Result<(), RequestError>) {
        let Some(search) = self.searches.remove(&id) else {
            return;
        };
        self.cancel_visits(now, id);
        let outcome = Outcome {
            successes: search.query.successes(),
            errors: search.query.errors(),
            closest: search.query.into_closest(),
        };
        match search.owner {
            Owner::Sweep(of) => {
                if let Some(whole) = self.searches.get_mut(&of) {
                    whole.query.sweep_ended(&outcome.closest);
                    self.advance(now, of);
                }
            }
            Owner::Application => self.push(Event::QueryEnded(id, result.map(|()| outcome))),
            Owner::Bootstrap if result.is_ok() => self.bootstrap_searched(now),
            Owner::Bootstrap | Owner::Refresh => {}
        }
    }

    fn search(&mut self, now: Time, plan: Plan, owner: Owner) -> Result<QueryId, RequestError> {
        if self.is_suspended {
            return Err(RequestError::Suspended);
        }
        if self.searches.len() >= QUERIES_MAX {
            return Err(RequestError::TooMany);
        }
        let concurrency = plan.concurrency.unwrap_or(self.config.concurrency);
        let mut query = Query::new(plan.target, self.table.own(), concurrency);
        query.start_from(&plan.nodes, plan.only_nodes);
        let region = self.region().filter(|_| owner == Owner::Application);
        region
            .into_iter()
            .for_each(|region| query.expect_within(region));
        self.stats.queries += 1;
        self.next_query += 1;
        let id = QueryId(self.next_query);
        let search = Search { query, plan, owner };
        self.searches.insert(id, search);
        self.fill(id);
        self.advance(now, id);
        Ok(id)
    }

    /// How far the [`K`] closest nodes are from a target, judged by those that are closest to ourselves. In a small
    /// table, such as that of a node that has just come, only the nearest few are surely the closest there are. And
    /// where we live next to a crowd ourselves, the nearest few of all are still likely to be honest: so the widest
    /// of three estimates counts.
    fn region(&self) -> Option<Distance> {
        if !self.bootstrap.is_done() {
            return None;
        }
        let own = self.table.own();
        let known = self.table.latest();
        let mut distances: Vec<_> = known.map(|node| own.distance(&node.id())).collect();
        distances.sort_unstable();
        let estimates = [(K / 4, 2), (K / 2, 1), (K, 0)].map(|(nearest, doublings)| {
            let enough = distances.len() >= 2 * nearest;
            let distance = distances.get(nearest - 1).filter(|_| enough)?;
            Some((0..doublings).fold(*distance, |far, _| far.doubled()))
        });
        estimates.into_iter().flatten().max()
    }

    fn search_answered(&mut self, now: Time, id: QueryId, search: &mut Search, response: Response) {
        let from = response.from;
        search
            .query
            .answered(&response, |node| self.may_ask(node, &from));
        if matches!(search.owner, Owner::Bootstrap | Owner::Refresh) {
            let idle = self.flights.len() < IN_FLIGHT_IDLE;
            let quiet = self.quiet_concurrency();
            search
                .query
                .set_concurrency(if idle { self.config.concurrency } else { quiet });
        }
        match search.owner {
            Owner::Bootstrap => self.bootstrap_heard(now, from),
            Owner::Application if response.error == ErrorCode::NONE => {
                self.push(Event::QueryResponse(id, response));
            }
            Owner::Application | Owner::Refresh | Owner::Sweep(_) => {}
        }
    }

    /// Looks for the nodes of a crowded region by searches beside its middle.
    fn sweep(&mut self, now: Time, id: QueryId) {
        self.stats.crowded += 1;
        let search = self.searches.get(&id);
        let targets = search.map_or(Vec::new(), |search| search.query.sweep_targets());
        for target in targets {
            let Some(search) = self.searches.get_mut(&id) else {
                return;
            };
            search.query.sweep_began();
            let plan = Plan::new(target, Command::FIND_NODE);
            if self.search(now, plan, Owner::Sweep(id)).is_err()
                && let Some(search) = self.searches.get_mut(&id)
            {
                search.query.sweep_ended(&[]);
            }
        }
    }

    /// Does what a query wants, until it waits or is over.
    fn advance(&mut self, now: Time, id: QueryId) {
        while let Some(search) = self.searches.get_mut(&id) {
            let step = search.query.step();
            while let Some(hint) = self.searches.get_mut(&id).and_then(|s| s.query.poll_hint()) {
                self.send_hint(now, hint);
            }
            match step {
                Step::Visit(node) => self.visit(now, id, node),
                Step::Table => self.fill(id),
                Step::Farther => self.widen(id),
                Step::Sweep => self.sweep(now, id),
                Step::Wait => return,
                Step::Done => return self.end_search(now, id, Ok(())),
            }
        }
    }

    /// Gives a query nodes of the table, and the bootstrap nodes where those are few.
    fn fill(&mut self, id: QueryId) {
        let Some(search) = self.searches.get_mut(&id) else {
            return;
        };
        let target = search.plan.target;
        let wanted = search.query.wanted();
        if wanted == 0 {
            return;
        }
        let known = self.table.closest(&target, wanted);
        search.query.add_table(known.map(|node| node.address()));
        if search.query.wanted() > 0 {
            let bootstrap = self.config.bootstrap.iter();
            search.query.add_table(bootstrap.copied());
        }
    }

    /// Gives a query nodes of the table that it does not know yet, and the bootstrap nodes.
    fn widen(&mut self, id: QueryId) {
        let Some(search) = self.searches.get_mut(&id) else {
            return;
        };
        let (query, target) = (&mut search.query, search.plan.target);
        let all = self.table.closest(&target, self.table.len());
        let new = all.map(|node| node.address());
        let new = new.filter(|node| !query.knows(node));
        let new: Vec<_> = new.take(query.wanted()).collect();
        query.add_table(new.into_iter().chain(self.config.bootstrap.iter().copied()));
    }

    fn visit(&mut self, now: Time, id: QueryId, node: SocketAddrV4) {
        let Some(search) = self.searches.get(&id) else {
            return;
        };
        let plan = &search.plan;
        let outgoing = Outgoing {
            target: Some(plan.target),
            value: plan.value.clone(),
            retries: if plan.is_forced { 0 } else { plan.retries },
            is_forced: plan.is_forced,
            ..Outgoing::new(node, plan.command)
        };
        let refused = self.launch(now, outgoing, Purpose::Query(id)).is_err();
        if let Some(search) = self.searches.get_mut(&id).filter(|_| refused) {
            search.query.failed(&node);
        }
    }

    fn send_hint(&mut self, now: Time, hint: Hint) {
        if self.hints_sent >= self.config.down_hints_max {
            return;
        }
        self.hints_sent += 1;
        let mut down = Vec::new();
        put_ipv4(&mut down, &hint.down);
        let outgoing = Outgoing {
            value: Some(down),
            ..Outgoing::new(hint.to, Command::DOWN_HINT)
        };
        // A hint that cannot be sent is not worth more.
        let _ = self.launch(now, outgoing, Purpose::Hint);
    }

    fn cancel_visits(&mut self, now: Time, id: QueryId) {
        let is_visit = |purpose: &Purpose| matches!(purpose, Purpose::Query(of) if *of == id);
        for number in self.flights.numbers(|flight| is_visit(&flight.purpose)) {
            self.flights.take(now, number);
        }
    }

    fn quiet_concurrency(&self) -> usize {
        let quiet = (self.config.concurrency / 8).max(2);
        quiet.min(self.config.concurrency)
    }
}
