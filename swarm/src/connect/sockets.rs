//! The sockets of one punch, on tokio.
//! Knows how a puncher's actions are done. Does not know rounds.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use ferrocore_dht::hyperdht::punch::puncher::{Action, SocketNumber};
use ferrocore_dht::hyperdht::punch::samples::SAMPLES;
use ferrocore_dht::hyperdht::punch::{LOW_TTL, PUNCH};
use ferrocore_dht::rpc::{Outgoing, Response, Socket};
use ferrocore_udx::socket::UdxSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::net::{Extra, Net, WeakNet};

/// Things that happened to one punch and wait for it; further packets are dropped.
const INPUTS_MAX: usize = 256;

/// How long a socket outlives its use: `LINGER_TIME` of `hyperdht/lib/socket-pool.js` 6.34.
const LINGER: Duration = Duration::from_secs(3);

/// Sockets that are closed beside so many others are closed at once.
const LINGERING_MAX: usize = 8;

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// A punch came in.
    Packet(SocketNumber, SocketAddrV4),
    /// A node told where it sees a socket.
    Sample(SocketNumber, Box<Response>),
    /// No more nodes will.
    Sampled(SocketNumber),
    /// The round under way was answered, or not.
    Round(Option<Box<Response>>),
}

/// The sockets, and the tasks that wait on them.
#[derive(Debug)]
pub(super) struct Sockets {
    net: WeakNet,
    open: HashMap<SocketNumber, Extra>,
    inputs: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
}

impl Sockets {
    pub(super) fn new(net: &Net) -> (Self, mpsc::Receiver<Input>) {
        let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
        let sockets = Self {
            net: net.downgrade(),
            open: HashMap::new(),
            inputs,
            tasks: JoinSet::new(),
        };
        (sockets, receiver)
    }

    pub(super) fn act(&mut self, action: Action) {
        while self.tasks.try_join_next().is_some() {}
        match action {
            Action::Open(socket) => self.open(socket),
            Action::Close(socket) => self.close(socket),
            Action::Sample(socket) => self.sample(socket),
            Action::Send {
                socket,
                to,
                low_ttl,
            } => self.send(socket, to, low_ttl),
        }
    }

    /// Asks `outgoing` from a socket, and reports the answer as that of a round.
    pub(super) fn ask(&mut self, socket: SocketNumber, outgoing: Outgoing) {
        let outgoing = Outgoing {
            socket: self.tag(socket),
            ..outgoing
        };
        let (net, inputs) = (self.net.upgrade(), self.inputs.clone());
        self.tasks.spawn(async move {
            let answer = match net {
                Some(net) => net.request(outgoing).await.ok().map(Box::new),
                None => None,
            };
            let _ = inputs.send(Input::Round(answer)).await;
        });
    }

    /// How the DHT knows a socket.
    pub(super) fn tag(&self, socket: SocketNumber) -> Option<Socket> {
        self.open.get(&socket).map(|extra| extra.tag)
    }

    /// The number of the socket that the DHT knows as `tag`.
    pub(super) fn number(&self, tag: Socket) -> Option<SocketNumber> {
        let mut open = self.open.iter();
        open.find(|(_, extra)| extra.tag == tag)
            .map(|(number, _)| *number)
    }

    /// Hands a socket out, for a stream.
    pub(super) fn take(&mut self, socket: SocketNumber) -> Option<Extra> {
        self.open.remove(&socket)
    }

    /// The same of the socket at this local address.
    pub(super) fn take_at(&mut self, local: SocketAddr) -> Option<Extra> {
        let mut open = self.open.iter();
        let number = open.find(|(_, extra)| extra.socket.local_addr() == local);
        let number = number.map(|(number, _)| *number)?;
        self.take(number)
    }

    /// The socket at this local address.
    pub(super) fn at(&self, local: SocketAddr) -> Option<(Socket, UdxSocket)> {
        let mut open = self.open.values();
        let extra = open.find(|extra| extra.socket.local_addr() == local)?;
        Some((extra.tag, extra.socket.clone()))
    }

    fn open(&mut self, number: SocketNumber) {
        let Some(net) = self.net.upgrade() else {
            return;
        };
        let (extra, mut punches) = match net.open_extra() {
            Ok(opened) => opened,
            Err(error) => return tracing::debug!(%error, "no socket to punch with"),
        };
        self.open.insert(number, extra);
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            while let Some(from) = punches.recv().await {
                let _ = inputs.try_send(Input::Packet(number, from));
            }
        });
    }

    /// Closes a socket, in a while: who has heard from it may be about to come. One of many was a guess.
    fn close(&mut self, socket: SocketNumber) {
        if let Some(extra) = self.open.remove(&socket)
            && self.open.len() < LINGERING_MAX
        {
            tokio::spawn(async move {
                sleep(LINGER).await;
                drop(extra);
            });
        }
    }

    fn send(&self, socket: SocketNumber, to: SocketAddrV4, low_ttl: bool) {
        let Some(extra) = self.open.get(&socket) else {
            return;
        };
        let ttl = low_ttl.then_some(LOW_TTL);
        if let Err(error) = extra.socket.try_send_to(&PUNCH, to.into(), ttl) {
            tracing::trace!(%error, %to, "punch");
        }
    }

    /// Pings nodes from the socket, and other nodes once more if some do not answer.
    fn sample(&mut self, number: SocketNumber) {
        let tag = self.tag(number);
        let Some(net) = self.net.upgrade() else {
            return;
        };
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let mut nodes = net.sample_nodes(2 * SAMPLES).into_iter();
            let mut missing = if tag.is_some() { SAMPLES } else { 0 };
            for _ in 0..2 {
                let mut pings = JoinSet::new();
                for to in nodes.by_ref().take(missing) {
                    let net = net.clone();
                    let ping = Outgoing {
                        socket: tag,
                        retries: 0,
                        ..Outgoing::ping(to)
                    };
                    pings.spawn(async move { net.request(ping).await });
                }
                while let Some(answer) = pings.join_next().await {
                    if let Ok(Ok(response)) = answer {
                        missing -= 1;
                        let sample = Input::Sample(number, Box::new(response));
                        let _ = inputs.send(sample).await;
                    }
                }
            }
            let _ = inputs.send(Input::Sampled(number)).await;
        });
    }
}
