//! A server's announcer, driven.
//! Knows how its actions are done. Does not know when they are due.

use std::net::SocketAddrV4;

use ferrocore_dht::hyperdht::announce::Place;
use ferrocore_dht::hyperdht::announcer::{Action, Announcer, Found};
use ferrocore_dht::hyperdht::noise::RelayInfo;
use ferrocore_dht::hyperdht::{ANNOUNCE, FIND_PEER, UNANNOUNCE};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{ErrorCode, Token};
use ferrocore_dht::rpc::{Outgoing, Plan, Response};
use ferrocore_primitives::sign::KeyPair;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::net::Net;
use super::punching::until;

/// How long a server that ends waits for its announcements to be taken back.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

/// How far announcing has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced {
    /// Announcements so far.
    pub(super) cycles: u64,
    pub(super) relays: Vec<RelayInfo>,
    pub(super) addresses: Vec<SocketAddrV4>,
}

#[derive(Debug)]
enum Done {
    Found(Vec<Found>),
    Announced(SocketAddrV4, bool),
    Pong(SocketAddrV4, bool),
    /// A node gave a token, with which it is to be told to forget us.
    Token(SocketAddrV4, Option<(Id, Token)>),
    Removed(SocketAddrV4),
}

#[derive(Debug)]
pub(super) struct Announcing {
    net: Net,
    announcer: Announcer,
    tasks: JoinSet<Done>,
    announced: watch::Sender<Announced>,
}

impl Announcing {
    pub(super) fn new(net: Net, key_pair: KeyPair) -> Self {
        let mut announcing = Self {
            net,
            announcer: Announcer::new(key_pair),
            tasks: JoinSet::new(),
            announced: watch::Sender::default(),
        };
        announcing.step();
        announcing
    }

    pub(super) fn watch(&self) -> watch::Receiver<Announced> {
        self.announced.subscribe()
    }

    pub(super) fn relays(&self) -> Vec<RelayInfo> {
        self.announcer.relays().to_vec()
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddrV4> {
        self.announcer.addresses(self.net.public_address())
    }

    pub(super) fn is_relay(&self, node: &SocketAddrV4) -> bool {
        self.announcer.is_relay(node)
    }

    pub(super) fn refresh(&mut self) {
        self.announcer.refresh();
    }

    pub(super) fn resume(&mut self) {
        self.announcer.resume();
        self.step();
    }

    /// Takes everything back, as far as nodes answer in time, and rests until it is resumed.
    pub(super) async fn stop(&mut self) {
        self.announcer.suspend();
        self.tasks.abort_all();
        self.step();
        let quiet = async {
            while !self.announcer.is_quiet() && !self.tasks.is_empty() {
                self.turn().await;
            }
        };
        let _ = timeout(STOP_TIMEOUT, quiet).await;
    }

    /// Goes on until something has happened.
    pub(super) async fn turn(&mut self) {
        let due = self.announcer.poll_timeout();
        tokio::select! {
            Some(done) = self.tasks.join_next() => {
                if let Ok(done) = done {
                    self.handle(done);
                }
            }
            () = until(&self.net, due) => self.announcer.handle_timeout(self.net.now()),
        }
        self.step();
    }

    fn handle(&mut self, done: Done) {
        let now = self.net.now();
        match done {
            Done::Found(found) => self.announcer.handle_found(now, &found),
            Done::Announced(to, is_taken) => self.announcer.handle_announced(now, to, is_taken),
            Done::Pong(from, is_alive) => self.announcer.handle_pong(now, from, is_alive),
            Done::Token(from, None) | Done::Removed(from) => self.announcer.handle_removed(from),
            Done::Token(from, Some((node_id, token))) => self.remove(from, node_id, token),
        }
    }

    fn step(&mut self) {
        while let Some(action) = self.announcer.poll_action() {
            match action {
                Action::Find(nodes) => self.find(nodes),
                Action::Announce { to, token, value } => self.announce(to, token, value),
                Action::Ping(to) => {
                    let net = self.net.clone();
                    let ping = async move { net.request(Outgoing::ping(to)).await.is_ok() };
                    self.tasks.spawn(async move { Done::Pong(to, ping.await) });
                }
                Action::Remove(from) => self.ask_token(from),
            }
        }
        let announced = Announced {
            cycles: self.announcer.cycles(),
            relays: self.relays(),
            addresses: self.addresses(),
        };
        self.announced.send_if_modified(|known| {
            let is_new = known.cycles != announced.cycles || known.addresses != announced.addresses;
            *known = announced;
            is_new
        });
    }

    fn find(&mut self, nodes: Vec<SocketAddrV4>) {
        let plan = Plan {
            nodes,
            ..Plan::new(self.announcer.target(), FIND_PEER)
        };
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let outcome = match net.query(plan) {
                Ok(search) => search.finish().await.unwrap_or_default(),
                Err(_) => Default::default(),
            };
            Done::Found(outcome.closest.iter().map(found).collect())
        });
    }

    fn announce(&mut self, to: SocketAddrV4, token: Token, value: Vec<u8>) {
        let outgoing = Outgoing {
            target: Some(self.announcer.target()),
            token: Some(token),
            value: Some(value),
            ..Outgoing::new(to, ANNOUNCE)
        };
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let answer = net.request(outgoing).await;
            let is_taken = answer.is_ok_and(|answer| answer.error == ErrorCode::NONE);
            Done::Announced(to, is_taken)
        });
    }

    fn ask_token(&mut self, from: SocketAddrV4) {
        let outgoing = Outgoing {
            target: Some(self.announcer.target()),
            ..Outgoing::new(from, FIND_PEER)
        };
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let answer = net.request(outgoing).await.ok();
            // Who has no record has nothing to forget.
            let holder = answer.filter(|answer| answer.value.is_some());
            Done::Token(from, holder.and_then(|node| node.id.zip(node.token)))
        });
    }

    fn remove(&mut self, from: SocketAddrV4, node_id: Id, token: Token) {
        let place = Place {
            target: self.announcer.target(),
            node_id,
            token,
        };
        let outgoing = Outgoing {
            target: Some(place.target),
            token: Some(token),
            value: Some(self.announcer.removal(&place)),
            ..Outgoing::new(from, UNANNOUNCE)
        };
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let _ = net.request(outgoing).await;
            Done::Removed(from)
        });
    }
}

fn found(response: &Response) -> Found {
    Found {
        address: response.from,
        id: response.id,
        token: response.token,
        seen: response.to,
    }
}
