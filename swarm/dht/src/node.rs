//! A node of the HyperDHT: it asks and answers, and stores for others once it stays.
//! Knows which commands are the store's. Does not know sockets or clocks, nor how handshakes are answered: those it
//! hands out.

use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore_primitives::time::Time;

use crate::hyperdht::{FIND_PEER, PEER_HANDSHAKE, PEER_HOLEPUNCH, PLUGIN};
use crate::id::Id;
use crate::message::Command;
use crate::random::Random;
use crate::rpc::{Config, Event, Incoming, Rpc};
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

    /// The next thing to know. Requests among them are handshakes, rounds of holepunching, and those to plugins.
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
        if matches!(incoming.command, PEER_HANDSHAKE | PEER_HOLEPUNCH) {
            return Some(incoming);
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
