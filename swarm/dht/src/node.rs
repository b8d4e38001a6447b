//! A node of the HyperDHT: it asks and answers, and stores for others once it stays.
//! Knows which commands are the store's, and what is passed on. Does not know sockets or clocks, nor how handshakes are
//! answered: those for its own servers it hands out.

use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::time::Time;

use crate::hyperdht::connect::{Handshake, Holepunch, Mode};
use crate::hyperdht::router::{Known, Next, route_handshake, route_holepunch};
use crate::hyperdht::{FIND_PEER, PEER_HANDSHAKE, PEER_HOLEPUNCH, PLUGIN};
use crate::id::Id;
use crate::message::Command;
use crate::random::Random;
use crate::rpc::{Answer, Config, Event, Incoming, Rpc, Stats};
use crate::store::{Moment, Store};

/// An [`Rpc`] with a [`Store`]. Everything that arrives and all verbs go to [`rpc`](Self::rpc_mut); events are taken
/// here, as the store answers some of them.
#[derive(Debug)]
pub struct Node {
    rpc: Rpc,
    store: Store,
    /// Milliseconds since 1970 at [`Time::ZERO`].
    epoch_ms: u64,
}

impl Node {
    /// A node that does nothing yet. `seed` is its randomness, `unix_ms` are the milliseconds since 1970.
    pub fn new(now: Time, unix_ms: u64, config: Config, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let mut node = Self {
            rpc: Rpc::new(now, config, random.bytes()),
            store: Store::new(now, random.bytes()),
            epoch_ms: 0,
        };
        node.set_unix_ms(now, unix_ms);
        node
    }

    /// Sets the wall clock, which goes on while the machine sleeps.
    pub fn set_unix_ms(&mut self, now: Time, unix_ms: u64) {
        self.epoch_ms = unix_ms.saturating_sub(millis(now));
    }

    /// The next thing to know. Requests among them are handshakes and rounds of holepunching for servers of this node
    /// ([`Store::serve`]), and those to plugins; others' are passed on here.
    pub fn poll_event(&mut self, now: Time) -> Option<Event> {
        loop {
            match self.rpc.poll_event()? {
                Event::Incoming(incoming) => {
                    if let Some(incoming) = self.serve(now, incoming) {
                        return Some(Event::Incoming(incoming));
                    }
                }
                event => return Some(event),
            }
        }
    }

    /// The asking and answering part.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// The asking and answering part.
    pub fn rpc_mut(&mut self) -> &mut Rpc {
        &mut self.rpc
    }

    /// What is stored here.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is stored here.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Gives back what is not for the store.
    fn serve(&mut self, now: Time, incoming: Incoming) -> Option<Incoming> {
        match incoming.command {
            PEER_HANDSHAKE => return self.route(now, incoming, route_handshake, count_handshake),
            PEER_HOLEPUNCH => return self.route(now, incoming, route_holepunch, count_round),
            _ => {}
        }
        let Some(node_id) = self.rpc.id().filter(|_| is_known(incoming.command)) else {
            self.rpc.refuse(now, incoming);
            return None;
        };
        if incoming.command == PLUGIN {
            return Some(incoming);
        }
        self.store_serves(now, node_id, incoming);
        None
    }

    /// Passes a message between peers on, or gives it back if it is for a server of this node.
    fn route<T: Encode>(
        &mut self,
        now: Time,
        incoming: Incoming,
        route: impl Fn(&[u8], SocketAddrV4, Known) -> Next<T>,
        count: impl Fn(&T, &mut Stats),
    ) -> Option<Incoming> {
        let target = incoming.target?;
        let known = match self
            .store
            .forward(now, &target)
            .map(|forward| forward.relay)
        {
            _ if self.store.serves(&target) => Known::Server,
            Some(server) => Known::Relay(server),
            None => Known::Stranger,
        };
        match route(incoming.value.as_deref()?, incoming.from, known) {
            Next::ToServer(..) => return Some(incoming),
            Next::PointOnwards => self.rpc.reply(
                now,
                incoming,
                Answer {
                    has_token: false,
                    ..Answer::value(None)
                },
            ),
            Next::Relay { to, value } => {
                count(&value, self.rpc.stats_mut());
                self.rpc.relay(incoming, value.to_vec(), to, None);
            }
            Next::ReplyTo { to, value } => self.rpc.reply_to(now, incoming, value.to_vec(), to),
            Next::Drop => {}
        }
        None
    }

    fn store_serves(&mut self, now: Time, node_id: Id, incoming: Incoming) {
        let moment = Moment {
            now,
            unix_ms: self.epoch_ms.saturating_add(millis(now)),
            node_id,
        };
        if let Some(answer) = self.store.handle(&moment, &incoming) {
            self.rpc.reply(now, incoming, answer);
        }
    }
}

fn count_handshake(passed_on: &Handshake, stats: &mut Stats) {
    stats.handshakes_relayed += 1;
    stats.handshakes_second += u64::from(passed_on.mode == Mode::FROM_SECOND_RELAY);
}

fn count_round(_: &Holepunch, stats: &mut Stats) {
    stats.rounds_relayed += 1;
}

/// Nodes never to be asked: some of a test network that got mixed up with the public one (`hyperdht/index.js`).
pub fn may_ask(node: &SocketAddrV4) -> bool {
    let strays = [
        (Ipv4Addr::new(134, 209, 28, 98), Some(49738)),
        (Ipv4Addr::new(167, 99, 142, 185), Some(49738)),
        (Ipv4Addr::new(35, 233, 47, 252), Some(9400)),
        (Ipv4Addr::new(150, 136, 142, 116), None),
    ];
    let is_stray = |(ip, port): &(Ipv4Addr, Option<u16>)| {
        node.ip() == ip && port.is_none_or(|port| node.port() == port)
    };
    !strays.iter().any(is_stray)
}

/// The commands of the store and of plugins.
fn is_known(command: Command) -> bool {
    let range = FIND_PEER.number..=PLUGIN.number;
    !command.internal && range.contains(&command.number)
}

fn millis(now: Time) -> u64 {
    now.as_nanos() / 1_000_000
}
