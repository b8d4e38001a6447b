//! What handles and the task share: the node behind a lock, its sockets, and who waits for what.
//! Knows whom to tell. Does not wait for anything itself.

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use ferrocore_dht::health::Network;
use ferrocore_dht::node::Node;
use ferrocore_dht::rpc::{
    Config, Event, Outcome, Outgoing, Plan, QueryId, RequestError, RequestId, Response, Socket,
};
use ferrocore_primitives::random;
use ferrocore_primitives::time::Time;
use ferrocore_udx::socket::{Udx, UdxSocket};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::sockets::{Place, Sockets};
use super::{Arrival, DhtError, NodeStatus, Search};

/// Requests and datagrams that wait for whoever makes connections; later ones are dropped.
const ARRIVALS_MAX: usize = 1024;

/// What all handles share. Dropping the last one ends the node.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) udx: Udx,
    pub(super) place: Place,
    pub(super) status: watch::Sender<NodeStatus>,
    /// As in the status, which changes much more often.
    pub(super) disruptions: watch::Sender<u64>,
    /// Wakes the task: there are other sockets, an earlier deadline, or it is over.
    pub(super) wake: Notify,
    /// Whether the task holds no sockets.
    pub(super) is_parked: watch::Sender<bool>,
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) node: Node,
    /// None while the node sleeps.
    pub(super) sockets: Option<Sockets>,
    pub(super) is_closed: bool,
    /// Nobody is known: names of bootstrap nodes are to be looked up again.
    pub(super) is_alone: bool,
    /// When the task wakes up by itself.
    pub(super) sleeps_until: Option<Time>,
    ports: (u16, u16),
    extra: HashMap<u32, UdxSocket>,
    next_extra: u32,
    requests: HashMap<RequestId, oneshot::Sender<Result<Response, RequestError>>>,
    queries: HashMap<QueryId, mpsc::UnboundedSender<Found>>,
    arrivals: Option<mpsc::Sender<Arrival>>,
    is_offline: bool,
    pub(super) disruptions: u64,
}

/// What a query found. At most as many as it visits nodes wait to be taken.
#[derive(Debug)]
pub(super) enum Found {
    Response(Response),
    End(Result<Outcome, RequestError>),
}

/// A request under way. Dropped, it is given up.
#[derive(Debug)]
pub(super) struct Asked {
    shared: Arc<Shared>,
    id: RequestId,
    answer: oneshot::Receiver<Result<Response, RequestError>>,
}

impl Shared {
    pub(super) fn new(udx: Udx, place: Place, sockets: Sockets, config: Config) -> Self {
        let node = Node::new(Time::ZERO, unix_ms(), config, random::bytes());
        let mut inner = Inner {
            node,
            ports: sockets.ports(),
            sockets: Some(sockets),
            is_closed: false,
            is_alone: false,
            sleeps_until: None,
            extra: HashMap::new(),
            next_extra: 0,
            requests: HashMap::new(),
            queries: HashMap::new(),
            arrivals: None,
            is_offline: false,
            disruptions: 0,
        };
        let status = inner.status();
        inner.sleeps_until = Some(Time::ZERO);
        Self {
            udx,
            place,
            status: watch::Sender::new(status),
            disruptions: watch::Sender::new(0),
            wake: Notify::new(),
            is_parked: watch::Sender::new(false),
            started: Instant::now(),
            inner: Mutex::new(inner),
        }
    }

    /// Calls `f` with the node, sends what there is to send and tells whoever waits.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Inner, Time) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let result = f(&mut inner, now);
        inner.flush(now);
        let status = inner.status();
        self.disruptions.send_if_modified(|old| {
            let disruptions = status.disruptions;
            std::mem::replace(old, disruptions) != disruptions
        });
        self.status.send_if_modified(|old| {
            let is_new = *old != status;
            *old = status;
            is_new
        });
        let is_early = match (inner.node.rpc().poll_timeout(), inner.sleeps_until) {
            (Some(next), Some(planned)) => next < planned,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_early {
            self.wake.notify_one();
        }
        result
    }

    pub(super) fn request(self: &Arc<Self>, outgoing: Outgoing) -> Result<Asked, DhtError> {
        self.ask(|node, now| node.rpc_mut().request(now, outgoing))
    }

    pub(super) fn delayed_ping(
        self: &Arc<Self>,
        node: SocketAddrV4,
        delay: Duration,
    ) -> Result<Asked, DhtError> {
        self.ask(|own, now| own.rpc_mut().delayed_ping(now, node, delay))
    }

    pub(super) fn query(self: &Arc<Self>, plan: Plan) -> Result<Search, DhtError> {
        let (sender, found) = mpsc::unbounded_channel();
        let id = self.with(|inner, now| {
            inner.check_open()?;
            let id = inner.node.rpc_mut().query(now, plan)?;
            inner.queries.insert(id, sender);
            Ok::<_, DhtError>(id)
        })?;
        Ok(Search::new(Arc::clone(self), id, found))
    }

    pub(super) fn cancel_query(&self, id: QueryId) {
        self.with(|inner, now| {
            if inner.queries.remove(&id).is_some() {
                inner.node.rpc_mut().cancel_query(now, id);
            }
        });
    }

    pub(super) fn resume(&self) -> Result<(), DhtError> {
        self.with(|inner, now| {
            inner.check_open()?;
            if inner.sockets.is_none() {
                let sockets = Sockets::bind(&self.udx, self.place, Some(inner.ports))?;
                inner.ports = sockets.ports();
                let port = sockets.server_port();
                inner.sockets = Some(sockets);
                inner.node.rpc_mut().resume(now, port);
            }
            Ok::<_, DhtError>(())
        })?;
        self.wake.notify_one();
        Ok(())
    }

    /// Binds both sockets anew if one has failed, with which its streams have ended. Tried again if it cannot be.
    pub(super) fn bind_again(&self) {
        let bound = self.with(|inner, now| {
            let has_failed = |sockets: &Sockets| !sockets.are_open();
            if inner.sockets.as_ref().is_some_and(has_failed) {
                let sockets = Sockets::bind(&self.udx, self.place, Some(inner.ports))?;
                inner.ports = sockets.ports();
                let port = sockets.server_port();
                inner.sockets = Some(sockets);
                inner.node.rpc_mut().suspend(now);
                inner.node.rpc_mut().resume(now, port);
            }
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = bound {
            tracing::warn!(%error, "the sockets cannot be bound again");
        }
    }

    /// Ends the node. Gives back its sockets to be closed.
    pub(super) fn close(&self) -> Option<Sockets> {
        let sockets = self.with(|inner, now| {
            inner.is_closed = true;
            inner.requests.clear();
            inner.queries.clear();
            inner.arrivals = None;
            inner.node.rpc_mut().suspend(now);
            inner.sockets.take()
        });
        self.wake.notify_one();
        sockets
    }

    /// Closes sockets that were taken from the node, once its task has let go of them.
    pub(super) async fn release(&self, sockets: Option<Sockets>) {
        self.wake.notify_one();
        // The sender lives in `self`, so this cannot fail.
        let _ = self.is_parked.subscribe().wait_for(|parked| *parked).await;
        if let Some(sockets) = sockets {
            sockets.close().await;
        }
    }

    pub(super) fn local_address(&self) -> Option<SocketAddrV4> {
        let port = self.with(|inner, _| Some(inner.sockets.as_ref()?.server_port()))?;
        let ip = match self.place.host {
            Ipv4Addr::UNSPECIFIED => own_ip().unwrap_or(Ipv4Addr::LOCALHOST),
            host => host,
        };
        Some(SocketAddrV4::new(ip, port))
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    pub(super) fn instant(&self, time: Time) -> Instant {
        self.started + time.saturating_since(Time::ZERO)
    }

    fn ask(
        self: &Arc<Self>,
        ask: impl FnOnce(&mut Node, Time) -> Result<RequestId, RequestError>,
    ) -> Result<Asked, DhtError> {
        let (sender, answer) = oneshot::channel();
        let id = self.with(|inner, now| {
            inner.check_open()?;
            let id = ask(&mut inner.node, now)?;
            inner.requests.insert(id, sender);
            Ok::<_, DhtError>(id)
        })?;
        Ok(Asked {
            shared: Arc::clone(self),
            id,
            answer,
        })
    }
}

impl Inner {
    pub(super) fn status(&self) -> NodeStatus {
        let rpc = self.node.rpc();
        NodeStatus {
            is_bootstrapped: rpc.is_bootstrapped(),
            is_ephemeral: rpc.is_ephemeral(),
            is_firewalled: rpc.is_firewalled(),
            seen: rpc.seen(),
            remote_address: rpc.remote_address(),
            id: rpc.id(),
            network: rpc.network(),
            is_suspended: rpc.is_suspended(),
            nodes: rpc.table().len(),
            disruptions: self.disruptions,
        }
    }

    pub(super) fn socket(&self, socket: Socket) -> Option<&UdxSocket> {
        match socket {
            Socket::Server => self.sockets.as_ref().map(|sockets| &sockets.server),
            Socket::Client => self.sockets.as_ref().map(|sockets| &sockets.client),
            Socket::Extra(name) => self.extra.get(&name),
        }
    }

    pub(super) fn add_extra(&mut self, socket: UdxSocket) -> u32 {
        while self.extra.contains_key(&self.next_extra) {
            self.next_extra = self.next_extra.wrapping_add(1);
        }
        let name = self.next_extra;
        self.next_extra = name.wrapping_add(1);
        self.extra.insert(name, socket);
        name
    }

    pub(super) fn extra_len(&self) -> usize {
        self.extra.len()
    }

    pub(super) fn extra_sockets(&self) -> Vec<UdxSocket> {
        self.extra.values().cloned().collect()
    }

    pub(super) fn remove_extra(&mut self, name: u32) {
        self.extra.remove(&name);
    }

    pub(super) fn take_arrivals(&mut self) -> Option<mpsc::Receiver<Arrival>> {
        if self.is_closed || self.arrivals.as_ref().is_some_and(|old| !old.is_closed()) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
        self.arrivals = Some(sender);
        Some(receiver)
    }

    /// Hands something to whoever makes connections, if there is somebody and they keep up.
    pub(super) fn arrive(&self, arrival: Arrival) {
        if let Some(arrivals) = &self.arrivals {
            let _ = arrivals.try_send(arrival);
        }
    }

    pub(super) fn check_open(&self) -> Result<(), DhtError> {
        if self.is_closed {
            return Err(DhtError::Closed);
        }
        Ok(())
    }

    fn flush(&mut self, now: Time) {
        loop {
            self.send();
            let Some(event) = self.node.poll_event(now) else {
                break;
            };
            self.tell(event);
        }
        self.send();
    }

    /// A datagram that does not fit the socket's buffer is lost, as it could be anywhere on its way.
    fn send(&mut self) {
        while let Some(transmit) = self.node.rpc_mut().poll_transmit() {
            let Some(socket) = self.socket(transmit.socket) else {
                continue;
            };
            let to = SocketAddr::V4(transmit.to);
            if let Err(error) = socket.try_send_to(&transmit.datagram, to, transmit.ttl) {
                tracing::trace!(%to, %error, "a datagram was not sent");
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Incoming(incoming) => self.arrive(Arrival::Request(incoming)),
            Event::Response(id, result) => {
                if let Some(asked) = self.requests.remove(&id) {
                    let _ = asked.send(result);
                }
            }
            Event::QueryResponse(id, response) => {
                if let Some(search) = self.queries.get(&id) {
                    let _ = search.send(Found::Response(response));
                }
            }
            Event::QueryEnded(id, result) => {
                if let Some(search) = self.queries.remove(&id) {
                    let _ = search.send(Found::End(result));
                }
            }
            Event::Alone => self.is_alone = true,
            Event::Bootstrapped => self.is_alone |= self.node.rpc().table().is_empty(),
            Event::WokeUp => self.disruptions += 1,
            // What was announced may be forgotten by now, and nobody was found meanwhile.
            Event::Network(network) => {
                let is_offline = network == Network::Offline;
                let was_offline = std::mem::replace(&mut self.is_offline, is_offline);
                self.disruptions += u64::from(was_offline && !is_offline);
            }
            event => tracing::debug!(?event, "the node changed"),
        }
    }
}

impl Future for Asked {
    type Output = Result<Response, DhtError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|answer| match answer {
                Ok(result) => Ok(result?),
                Err(_) => Err(DhtError::Closed),
            })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let id = self.id;
        self.shared.with(|inner, now| {
            if inner.requests.remove(&id).is_some() {
                inner.node.rpc_mut().cancel(now, id);
            }
        });
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.shared.close());
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// The address that this machine would send from to the internet. Nothing is sent to find out.
pub(super) fn own_ip() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // A documentation address: connecting a UDP socket only chooses a route.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if !address.ip().is_unspecified() => Some(*address.ip()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dht;
    use super::*;

    /// Goal: who comes back into the network announces and looks up everything anew, though the machine's addresses are what they
    /// were, as when a router loses its line. Method: a node is told what its health says.
    #[tokio::test]
    async fn a_network_that_comes_back_is_a_disruption() {
        let dht = Dht::builder().bootstrap([]).host(Ipv4Addr::LOCALHOST);
        let dht = dht.port(0).bind().unwrap();
        let health = [
            (Network::Degraded, 0),
            (Network::Online, 0),
            (Network::Offline, 0),
            (Network::Offline, 0),
            (Network::Online, 1),
            (Network::Offline, 1),
            (Network::Degraded, 2),
            (Network::Online, 2),
        ];
        let mut disruptions = dht.disruptions();
        for (network, expected) in health {
            let tell = |inner: &mut Inner, _| inner.tell(Event::Network(network));
            dht.shared().with(tell);
            assert_eq!(*disruptions.borrow_and_update(), expected, "{network:?}");
        }
    }
}
