//! What others ask: the network's own commands are answered here, the rest is the application's.
//! Knows `dht-rpc/index.js` and `lib/io.js` 6.27. Does not know what the application's commands do.
//!
//! One request brings at most one datagram to its sender; now and then a ping to somebody else, of which few are under
//! way at a time.

use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::encoding::Reader;
use ferrocore_primitives::time::Time;

use super::{Answer, Incoming, Rpc, Socket, Transmit};
use crate::address::{ipv4, is_sendable};
use crate::limits::{DELAYED_PINGS_MAX, PING_DELAY_MAX};
use crate::message::{Command, DATAGRAM_LEN_MAX, ErrorCode, Reply, Request};
use crate::routing_table::K;

impl Rpc {
    /// Answers a request.
    pub fn reply(&mut self, now: Time, incoming: Incoming, answer: Answer) {
        let from = incoming.from;
        self.send_reply(now, &incoming, answer, from);
    }

    /// Answers a request of somebody else than its sender: `to`, who waits for an answer of that number. Without token
    /// or closer nodes.
    pub fn reply_to(&mut self, now: Time, incoming: Incoming, value: Vec<u8>, to: SocketAddrV4) {
        self.send_reply(now, &incoming, Answer::bare(Some(value)), to);
    }

    /// Sends a request on, with the same number, command and target, without its token. The answer does not come back
    /// here. `socket` is another one than that the request came to.
    pub fn relay(
        &mut self,
        incoming: Incoming,
        value: Vec<u8>,
        to: SocketAddrV4,
        socket: Option<Socket>,
    ) {
        let socket = socket.unwrap_or(incoming.socket);
        let request = Request {
            tid: incoming.tid,
            to,
            id: self.id().filter(|_| socket == Socket::Server),
            token: None,
            command: incoming.command,
            target: incoming.target,
            value: Some(value),
        };
        self.send_datagram(socket, to, request.to_vec());
    }

    /// Answers that the command is not served here, with nodes closer to the target.
    pub fn refuse(&mut self, now: Time, incoming: Incoming) {
        self.reply(now, incoming, Answer::error(ErrorCode::UNKNOWN_COMMAND));
    }

    pub(super) fn handle_request(
        &mut self,
        now: Time,
        socket: Socket,
        from: SocketAddrV4,
        request: Request,
    ) {
        if !self.rates.allows(now, from) {
            self.stats.refused += 1;
            return;
        }
        self.stats.incoming += 1;
        let incoming = Incoming {
            tid: request.tid,
            from,
            to: request.to,
            socket,
            id: request.id.and_then(|id| id.if_at(&from)),
            token: request.token,
            command: request.command,
            target: request.target,
            value: request.value,
        };
        if let Some(token) = &incoming.token
            && !self.tokens.accepts(now, *from.ip(), token)
        {
            let answer = Answer {
                has_token: true,
                ..Answer::error(ErrorCode::INVALID_TOKEN)
            };
            return self.reply(now, incoming, answer);
        }
        let to = (socket == self.socket()).then_some(request.to);
        self.heard_from(now, from, incoming.id, to, false);
        self.answer(now, incoming);
    }

    fn answer(&mut self, now: Time, incoming: Incoming) {
        if !incoming.command.internal {
            return self.push_incoming(incoming);
        }
        match incoming.command {
            Command::PING => self.reply(now, incoming, Answer::bare(None)),
            Command::DELAYED_PING => self.answer_later(now, &incoming),
            Command::PING_NAT => self.answer_to_port(now, &incoming),
            Command::FIND_NODE if incoming.target.is_none() => {}
            Command::FIND_NODE => {
                let answer = Answer {
                    has_token: false,
                    ..Answer::value(None)
                };
                self.reply(now, incoming, answer);
            }
            Command::DOWN_HINT => self.answer_hint(now, incoming),
            _ => self.refuse(now, incoming),
        }
    }

    /// The value is the port to answer to.
    fn answer_to_port(&mut self, now: Time, incoming: &Incoming) {
        let value = incoming.value.as_deref().unwrap_or_default();
        if let Ok(port) = Reader::new(value).u16() {
            let to = SocketAddrV4::new(*incoming.from.ip(), port);
            self.send_reply(now, incoming, Answer::bare(None), to);
        }
    }

    /// The value is the delay.
    fn answer_later(&mut self, now: Time, incoming: &Incoming) {
        let value = incoming.value.as_deref().unwrap_or_default();
        let Ok(millis) = Reader::new(value).u32() else {
            return;
        };
        let delay = Duration::from_millis(millis.into());
        if delay > PING_DELAY_MAX || self.delayed.len() >= DELAYED_PINGS_MAX {
            return;
        }
        let datagram = self.reply_datagram(now, incoming, Answer::bare(None), incoming.from);
        let transmit = Transmit {
            socket: incoming.socket,
            to: incoming.from,
            ttl: None,
            datagram,
        };
        let serial = self.random.u64();
        self.delayed.insert((now + delay, serial), transmit);
    }

    /// The value is the address of a node said to be down: it is pinged if we know it.
    fn answer_hint(&mut self, now: Time, incoming: Incoming) {
        let value = incoming.value.as_deref().unwrap_or_default();
        let Ok(down) = ipv4(&mut Reader::new(value)) else {
            return;
        };
        let check = self.table.hinted_down(&down, self.clock.tick());
        check.into_iter().for_each(|check| self.check(now, check));
        self.reply(now, incoming, Answer::bare(None));
    }

    fn send_reply(&mut self, now: Time, incoming: &Incoming, answer: Answer, to: SocketAddrV4) {
        let socket = answer.socket.unwrap_or(incoming.socket);
        let datagram = self.reply_datagram(now, incoming, answer, to);
        self.send_datagram(socket, to, datagram);
    }

    fn reply_datagram(
        &mut self,
        now: Time,
        incoming: &Incoming,
        answer: Answer,
        to: SocketAddrV4,
    ) -> Vec<u8> {
        let socket = answer.socket.unwrap_or(incoming.socket);
        let target = incoming.target.filter(|_| answer.has_closer_nodes);
        let closer_nodes = target.map(|target| {
            let closest = self.table.closest(&target, K);
            closest.map(|node| node.address()).collect()
        });
        let reply = Reply {
            tid: incoming.tid,
            to,
            id: self.id().filter(|_| socket == Socket::Server),
            token: answer.has_token.then(|| self.tokens.issue(now, *to.ip())),
            closer_nodes: closer_nodes.unwrap_or_default(),
            error: answer.error,
            value: answer.value,
        };
        reply.to_vec()
    }

    fn send_datagram(&mut self, socket: Socket, to: SocketAddrV4, datagram: Vec<u8>) {
        if self.is_suspended || !is_sendable(&to) || datagram.len() > DATAGRAM_LEN_MAX {
            return;
        }
        self.transmits.push_back(Transmit {
            socket,
            to,
            ttl: None,
            datagram,
        });
    }
}
