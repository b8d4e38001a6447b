//! A node: it asks others and answers them, keeps its routing table, and finds out whether others can reach it.
//! Knows `dht-rpc/index.js` 6.27. Does not know sockets, clocks or names of hosts, nor the application's commands.
//!
//! Call [`Rpc::start`] once the sockets are bound, [`Rpc::handle_datagram`] for everything that arrives and
//! [`Rpc::handle_timeout`] when the time of [`Rpc::poll_timeout`] has come. After each call, and after each verb, take all
//! of [`Rpc::poll_transmit`] and [`Rpc::poll_event`].
//!
//! | differs from JavaScript | why |
//! |---|---|
//! | a reply must come from the address that was asked | there the number of 16 bits is all that a liar has to guess |
//! | nodes that name one on a local network are believed only if they are on one themselves | they could have us knock at doors behind our firewall |
//! | a node told to stay tries again when it learns its address | there the first node of a network never serves it |
//! | a node told to stay takes the id of its new address on another network | there it keeps the old one, which others take for forged |
//! | a suspended node keeps its table | there the pings under way are taken for failed |
//! | requests of strangers are counted ([`limits`](crate::limits)) | |

mod answers;
mod config;
mod events;
mod flights;
mod incoming;
mod network;
mod outgoing;
mod plan;
mod searches;
mod ticks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::address::{is_local, is_sendable};
use crate::health::{Health, Network};
use crate::id::Id;
use crate::limits::{INCOMING_MAX, Rates};
use crate::message::{Command, DATAGRAM_LEN_MAX, Message, MessageError, Reply, Request};
use crate::nat::{NatSampler, Seen};
use crate::random::Random;
use crate::routing_table::{Check, Heard, RoutingTable};
use crate::tokens::Tokens;
use crate::window::Window;
pub use config::{Config, Socket};
pub use events::{Event, Stats, Transmit};
use flights::{Flight, Flights, Overdue};
pub use incoming::{Answer, Incoming};
use network::{Bootstrap, NatTest};
use outgoing::Purpose;
pub use outgoing::{Outgoing, RequestError, RequestId, Response};
pub use plan::{Outcome, Plan, QueryId};
use searches::Search;

/// A request that was not sent.
#[derive(Debug)]
struct Refused {
    purpose: Purpose,
    error: RequestError,
}

impl Refused {
    fn new(purpose: Purpose, error: RequestError) -> Self {
        Self { purpose, error }
    }
}

/// How much longer than its delay a delayed ping may take.
const PING_DELAY_GRACE: Duration = Duration::from_secs(1);

/// Places that an empty queue keeps.
const QUEUE_KEPT: usize = 8;

/// Gives the memory of a burst back: most nodes do next to nothing most of the time.
fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > QUEUE_KEPT {
        *queue = VecDeque::new();
    }
}

/// A node of the network. See the [module](self).
#[derive(Debug)]
pub struct Rpc {
    config: Config,
    random: Random,
    table: RoutingTable,
    tokens: Tokens,
    rates: Rates,
    flights: Flights,
    searches: BTreeMap<QueryId, Search>,
    next_query: u64,
    nat: NatSampler,
    /// Who told us our address without being a node that stays.
    strangers: BTreeSet<SocketAddrV4>,
    is_firewalled: bool,
    is_ephemeral: bool,
    bootstrap: Bootstrap,
    nat_test: Option<NatTest>,
    checked_host: Option<Ipv4Addr>,
    health: Health,
    clock: ticks::Clock,
    hints_sent: u32,
    server_port: u16,
    is_suspended: bool,
    delayed: BTreeMap<(Time, u64), Transmit>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    incoming: usize,
    stats: Stats,
}

impl Rpc {
    /// A node that does nothing yet. `seed` is its randomness, and must be unpredictable.
    pub fn new(now: Time, config: Config, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let window = Window::new(now, config.window);
        let first_tid = u16::try_from(random.below(1 << 16)).unwrap_or_default();
        let mut nat = NatSampler::default();
        config.address.into_iter().for_each(|address| {
            nat.add(address);
        });
        Self {
            table: RoutingTable::new(random.bytes().into()),
            tokens: Tokens::new(now, random.bytes(), random.bytes()),
            rates: Rates::new(now),
            flights: Flights::new(window, first_tid),
            searches: BTreeMap::new(),
            next_query: 0,
            nat,
            strangers: BTreeSet::new(),
            is_firewalled: config.firewalled,
            is_ephemeral: true,
            bootstrap: Bootstrap::Waiting,
            nat_test: None,
            checked_host: None,
            health: Health::default(),
            clock: ticks::Clock::new(now, config.ephemeral.is_none(), &mut random),
            hints_sent: 0,
            server_port: 0,
            is_suspended: false,
            delayed: BTreeMap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            incoming: 0,
            stats: Stats::default(),
            config,
            random,
        }
    }

    /// The sockets are bound, the one for the server to that port: looks for the node's neighbours.
    pub fn start(&mut self, now: Time, server_port: u16) {
        self.server_port = server_port;
        for node in std::mem::take(&mut self.config.nodes).iter().rev() {
            self.heard(now, *node);
        }
        self.begin_bootstrap(now);
    }

    /// Something arrived. False if it is no message of this protocol, and for others to look at.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        socket: Socket,
        from: SocketAddrV4,
        datagram: &[u8],
    ) -> bool {
        match Message::parse(datagram) {
            Err(MessageError::NotDhtRpc) => return false,
            Err(_) => {}
            Ok(_) if self.is_suspended || !is_sendable(&from) => {}
            Ok(Message::Request(request)) => self.handle_request(now, socket, from, request),
            Ok(Message::Reply(reply)) => self.handle_reply(now, socket, from, reply),
        }
        true
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.is_suspended {
            return;
        }
        while let Some(overdue) = self.flights.take_overdue(now) {
            match overdue {
                Overdue::Again(number, is_first) => self.retry(now, number, is_first),
                Overdue::GivenUp(flight) => {
                    self.stats.timeouts += 1;
                    self.finish(now, flight, Err(RequestError::TimedOut));
                }
            }
        }
        while let Some(transmit) = self.flights.send_waiting(now) {
            self.transmits.push_back(transmit);
        }
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            self.transmits.push_back(entry.remove());
        }
        self.tick_if_due(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next; `None` while suspended.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.is_suspended {
            return None;
        }
        let tick = self.clock.next_tick();
        let delayed = self.delayed.keys().next().map(|(at, _)| *at);
        let others = self.flights.next_timeout().into_iter().chain(delayed);
        others.chain([tick]).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let next = self.transmits.pop_front();
        give_back(&mut self.transmits);
        next
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        give_back(&mut self.events);
        if matches!(event, Event::Incoming(_)) {
            self.incoming -= 1;
        }
        Some(event)
    }

    /// Asks one node. The answer comes as [`Event::Response`].
    ///
    /// # Errors
    /// [`RequestError`], if it cannot be sent at all.
    pub fn request(&mut self, now: Time, outgoing: Outgoing) -> Result<RequestId, RequestError> {
        self.launch(now, outgoing, Purpose::Application)
            .map(RequestId)
            .map_err(|refused| refused.error)
    }

    /// Asks a node to answer after a while, which shows how long a NAT keeps its hole open.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn delayed_ping(
        &mut self,
        now: Time,
        to: SocketAddrV4,
        delay: Duration,
    ) -> Result<RequestId, RequestError> {
        let millis = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        let outgoing = Outgoing {
            value: Some(millis.to_le_bytes().to_vec()),
            timeout: delay + PING_DELAY_GRACE,
            ..Outgoing::new(to, Command::DELAYED_PING)
        };
        self.request(now, outgoing)
    }

    /// Forgets a request; no event tells of its end.
    pub fn cancel(&mut self, now: Time, request: RequestId) {
        self.flights.take(now, request.0);
    }

    /// Puts the node to sleep: requests and queries end with [`RequestError::Suspended`], nothing is sent or heard. What
    /// it knows it keeps.
    pub fn suspend(&mut self, now: Time) {
        if self.is_suspended {
            return;
        }
        self.is_suspended = true;
        self.nat_test = None;
        for query in self.searches.keys().copied().collect::<Vec<_>>() {
            self.end_search(now, query, Err(RequestError::Suspended));
        }
        for number in self.flights.numbers(|_| true) {
            if let Some(flight) = self.flights.take(now, number) {
                self.finish(now, flight, Err(RequestError::Suspended));
            }
        }
        self.flights = Flights::new(Window::new(now, self.config.window), self.first_tid());
        self.delayed.clear();
        self.transmits.clear();
    }

    /// Wakes the node up. The sockets are bound again, the one for the server to that port.
    pub fn resume(&mut self, now: Time, server_port: u16) {
        if !self.is_suspended {
            return;
        }
        self.is_suspended = false;
        self.server_port = server_port;
        self.woke_up(now);
        if !self.bootstrap.is_done() {
            self.begin_bootstrap(now);
        }
    }

    /// Another network, or another address on it: what is known of our own is forgotten, and asked for again.
    pub fn network_changed(&mut self, now: Time) {
        if self.is_suspended {
            return;
        }
        if self.config.address.is_none() {
            self.nat = NatSampler::default();
            self.strangers.clear();
            self.push(Event::Address(Seen::Nothing));
        }
        if self.config.ephemeral.is_none() {
            self.is_firewalled = self.config.firewalled;
        }
        self.woke_up(now);
    }

    /// Sets the nodes to ask first, as when their names stand for other addresses now.
    pub fn set_bootstrap(&mut self, nodes: Vec<SocketAddrV4>) {
        self.config.bootstrap = nodes;
    }

    /// The node's id for others: only one that stays has one.
    pub fn id(&self) -> Option<Id> {
        (!self.is_ephemeral).then(|| self.table.own())
    }

    /// What others see of the socket that requests are sent from.
    pub fn seen(&self) -> Seen {
        self.nat.seen()
    }

    /// The address at which everybody can reach this node, if they can.
    pub fn remote_address(&self) -> Option<SocketAddrV4> {
        let address = self.nat.seen().address()?;
        let is_open = !self.is_firewalled && address.port() == self.server_port;
        is_open.then_some(address)
    }

    /// Whether others are taken to be unable to reach us.
    pub fn is_firewalled(&self) -> bool {
        self.is_firewalled
    }

    /// Whether the node is a mere client, and none of the network.
    pub fn is_ephemeral(&self) -> bool {
        self.is_ephemeral
    }

    /// Whether the node has looked for its neighbours.
    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrap.is_done()
    }

    /// Whether the node sleeps.
    pub fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// How the network is doing.
    pub fn network(&self) -> Network {
        self.health.network()
    }

    /// The nodes known.
    pub fn table(&self) -> &RoutingTable {
        &self.table
    }

    /// The socket that requests are sent from.
    pub fn socket(&self) -> Socket {
        if self.is_firewalled {
            Socket::Client
        } else {
            Socket::Server
        }
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The counts, for those who handle requests.
    pub(crate) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Builds a request and sends it, or has it wait.
    fn launch(&mut self, now: Time, outgoing: Outgoing, purpose: Purpose) -> Result<u64, Refused> {
        if self.is_suspended {
            return Err(Refused::new(purpose, RequestError::Suspended));
        }
        let Some(tid) = self.flights.tid() else {
            return Err(Refused::new(purpose, RequestError::TooMany));
        };
        let socket = outgoing.socket.unwrap_or_else(|| self.socket());
        let datagram = Request {
            tid,
            to: outgoing.to,
            id: self.id().filter(|_| socket == Socket::Server),
            token: outgoing.token,
            command: outgoing.command,
            target: outgoing.target,
            value: outgoing.value,
        }
        .to_vec();
        if !is_sendable(&outgoing.to) || datagram.len() > DATAGRAM_LEN_MAX {
            return Err(Refused::new(purpose, RequestError::NotSendable));
        }
        let number = self.flights.insert(Flight {
            number: 0,
            tid,
            to: outgoing.to,
            socket,
            ttl: outgoing.ttl,
            datagram,
            purpose,
            timeout: outgoing.timeout,
            retries: outgoing.retries,
            is_forced: outgoing.is_forced,
            sends: 0,
            first_sent: now,
            deadline: None,
        });
        self.stats.requests += 1;
        self.transmits.extend(self.flights.send(now, number));
        Ok(number)
    }

    fn retry(&mut self, now: Time, number: u64, is_first: bool) {
        self.stats.retries += 1;
        self.transmits.extend(self.flights.send(now, number));
        if let Some((Purpose::Query(query), to)) = self.flights.purpose(number) {
            let query = *query;
            if is_first {
                self.search_slowed(now, query, to);
            }
        }
    }

    fn handle_reply(&mut self, now: Time, socket: Socket, from: SocketAddrV4, reply: Reply) {
        let Some(flight) = self.flights.take_answered(now, reply.tid, from) else {
            return;
        };
        self.stats.responses += 1;
        let is_usual = socket == self.socket();
        let id = reply.id.and_then(|id| id.if_at(&from));
        self.heard_from(now, from, id, is_usual.then_some(reply.to), true);
        let response = Response {
            from,
            id,
            to: reply.to,
            socket,
            token: reply.token,
            closer_nodes: reply.closer_nodes,
            error: reply.error,
            value: reply.value,
            rtt: now.saturating_since(flight.first_sent),
        };
        self.finish(now, flight, Ok(response));
    }

    /// Tells whoever sent a request how it ended. `heard` was told before.
    fn finish(&mut self, now: Time, flight: Flight, result: Result<Response, RequestError>) {
        let to = flight.to;
        let was_known = !matches!(flight.purpose, Purpose::Application | Purpose::Check(_));
        if was_known && result == Err(RequestError::TimedOut) {
            self.table.remove(&Id::of_node(&to));
        }
        match flight.purpose {
            Purpose::Application => self.push(Event::Response(RequestId(flight.number), result)),
            Purpose::Query(query) => self.search_landed(now, query, to, result),
            Purpose::Check(check) => self.check_ended(now, check, &result),
            Purpose::QuickNat => self.bootstrap.quick_nat_ended(result.is_ok()),
            Purpose::NatTest => self.nat_test_landed(now, result.ok()),
            Purpose::Hint => {}
        }
    }

    fn check_ended(&mut self, now: Time, check: Check, result: &Result<Response, RequestError>) {
        let tick = self.clock.tick();
        let heard = match result {
            Ok(_) => self.table.answered(check, tick),
            Err(RequestError::TimedOut) => self.table.timed_out(check, tick),
            Err(_) => {
                self.table.abandoned(&check);
                None
            }
        };
        heard.into_iter().for_each(|heard| self.follow(now, heard));
    }

    /// A message came from there. `to` is where the sender sees us, if it came over the usual socket.
    fn heard_from(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        id: Option<Id>,
        to: Option<SocketAddrV4>,
        is_reply: bool,
    ) {
        if !(self.config.may_ask)(&from) {
            return;
        }
        let Some(id) = id else {
            return self.heard_stranger(now, from, to, is_reply);
        };
        self.heard(now, from);
        let tick = self.clock.tick();
        if let Some(to) = to.filter(|_| self.table.sample(&id, tick)) {
            self.sampled(now, to);
        }
    }

    fn heard(&mut self, now: Time, from: SocketAddrV4) {
        let heard = self.table.heard(from, self.clock.tick());
        self.follow(now, heard);
    }

    /// Pings the node that a newcomer may replace.
    fn follow(&mut self, now: Time, heard: Heard) {
        if let Heard::Full(check) = heard {
            self.check(now, check);
        }
    }

    fn check(&mut self, now: Time, check: Check) {
        let outgoing = Outgoing::ping(check.address());
        if let Err(refused) = self.launch(now, outgoing, Purpose::Check(check))
            && let Purpose::Check(check) = refused.purpose
        {
            self.table.abandoned(&check);
        }
    }

    /// Whether a node that `named_by` named is worth a request.
    fn may_ask(&self, node: &SocketAddrV4, named_by: &SocketAddrV4) -> bool {
        let is_elsewhere = is_local(*node.ip()) && !is_local(*named_by.ip());
        is_sendable(node) && !is_elsewhere && (self.config.may_ask)(node)
    }

    fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn push_incoming(&mut self, incoming: Incoming) {
        if self.incoming < INCOMING_MAX {
            self.incoming += 1;
            self.events.push_back(Event::Incoming(incoming));
        }
    }

    fn first_tid(&mut self) -> u16 {
        u16::try_from(self.random.below(1 << 16)).unwrap_or_default()
    }
}
