//! The task of a node: it reads the sockets, keeps time, looks up names, and notices sleep and other networks.
//! Knows clocks. Does not know the protocol.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ferrocore_dht::rpc::Socket;
use ferrocore_primitives::time::Time;
use ferrocore_udx::socket::{Datagram, UdxSocket};
use tokio::time::{sleep_until, timeout};

use super::Arrival;
use super::bootstrap::{BootstrapNode, resolve_all};
use super::shared::{Shared, own_ip, unix_ms};
use super::sockets::{Sockets, v4};
use crate::limits::ADDRESSES_LOOK;
use crate::surroundings::Addresses;

/// The wall clock may be so far ahead of ours before we must have slept.
const SLEPT: Duration = Duration::from_secs(15);

/// How often the machine's own address is looked at.
const LOOK_INTERVAL: Duration = ADDRESSES_LOOK;

/// Names are not looked up more often than this.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);

/// The pause before the sockets are bound anew after one has failed.
const REBIND_PAUSE: Duration = Duration::from_secs(1);

/// What came next.
enum Next {
    Datagram(Socket, io::Result<Datagram>),
    Time,
    Woken,
}

pub(super) async fn run(shared: Arc<Shared>, bootstrap: Vec<BootstrapNode>) {
    let mut surroundings = Surroundings::new(&shared);
    let mut names = Names::new(bootstrap);
    names.resolve_unknown(&shared).await;
    shared.with(|inner, now| {
        if let Some(sockets) = &inner.sockets {
            let port = sockets.server_port();
            inner.node.rpc_mut().start(now, port);
        }
    });
    loop {
        let (sockets, deadline, is_alone) = shared.with(|inner, _| {
            let deadline = inner.node.rpc().poll_timeout();
            let deadline = deadline.map(|deadline| match surroundings.next_look(&shared) {
                Some(look) => look.min(deadline),
                None => deadline,
            });
            inner.sleeps_until = deadline;
            let is_alone = std::mem::take(&mut inner.is_alone);
            (
                (!inner.is_closed).then(|| inner.sockets.clone()),
                deadline,
                is_alone,
            )
        });
        let is_parked = sockets.as_ref().is_none_or(Option::is_none);
        shared
            .is_parked
            .send_if_modified(|old| std::mem::replace(old, is_parked) != is_parked);
        let Some(sockets) = sockets else {
            return;
        };
        if is_alone {
            names.resolve_again(&shared);
        }
        let next = next(&shared, sockets.as_ref(), deadline).await;
        // Clones keep a socket open: they are not held while others close it.
        drop(sockets);
        match next {
            Next::Datagram(socket, Ok(datagram)) => take(&shared, socket, datagram),
            Next::Datagram(_, Err(_)) => {
                // The node goes to sleep, or the socket has failed.
                timeout(REBIND_PAUSE, shared.wake.notified()).await.ok();
                shared.bind_again();
            }
            Next::Woken => {}
            Next::Time => {
                surroundings.look(&shared);
                shared.with(|inner, now| inner.node.rpc_mut().handle_timeout(now));
            }
        }
    }
}

async fn next(shared: &Shared, sockets: Option<&Sockets>, deadline: Option<Time>) -> Next {
    let server = sockets.map(|sockets| &sockets.server);
    let client = sockets.map(|sockets| &sockets.client);
    tokio::select! {
        datagram = receive(server) => Next::Datagram(Socket::Server, datagram),
        datagram = receive(client) => Next::Datagram(Socket::Client, datagram),
        () = until(shared, deadline) => Next::Time,
        () = shared.wake.notified() => Next::Woken,
    }
}

async fn receive(socket: Option<&UdxSocket>) -> io::Result<Datagram> {
    match socket {
        Some(socket) => socket.recv_from().await,
        None => std::future::pending().await,
    }
}

async fn until(shared: &Shared, deadline: Option<Time>) {
    match deadline {
        Some(deadline) => sleep_until(shared.instant(deadline)).await,
        None => std::future::pending().await,
    }
}

fn take(shared: &Shared, socket: Socket, datagram: Datagram) {
    let Some(from) = v4(datagram.from) else {
        return;
    };
    shared.with(|inner, now| {
        let rpc = inner.node.rpc_mut();
        if !rpc.handle_datagram(now, socket, from, &datagram.data) {
            let data = datagram.data;
            inner.arrive(Arrival::Datagram { socket, from, data });
        }
    });
}

/// The wall clock and the machine's own addresses, as they were last seen.
#[derive(Debug)]
struct Surroundings {
    unix_ms: u64,
    now: Time,
    /// The address of the way out, if there is one.
    ip: Option<Ipv4Addr>,
    addresses: Addresses,
    looked_at: Time,
}

impl Surroundings {
    fn new(shared: &Shared) -> Self {
        Self {
            unix_ms: unix_ms(),
            now: shared.now(),
            ip: own_ip(),
            addresses: Addresses::now(),
            looked_at: shared.now(),
        }
    }

    /// When to look at the addresses. A node bound to one address stays where it is.
    fn next_look(&self, shared: &Shared) -> Option<Time> {
        let is_anywhere = shared.place.host.is_unspecified();
        is_anywhere.then(|| self.looked_at + LOOK_INTERVAL)
    }

    /// The clock of a runtime stands still while a machine sleeps; the one on the wall does not.
    fn look(&mut self, shared: &Shared) {
        let (unix_ms, now) = (unix_ms(), shared.now());
        let by_wall = Duration::from_millis(unix_ms.saturating_sub(self.unix_ms));
        let passed = now.saturating_since(self.now);
        let has_slept = by_wall > passed + SLEPT;
        (self.unix_ms, self.now) = (unix_ms, now);
        let change = self.change(shared, now);
        shared.with(|inner, now| {
            inner.node.set_unix_ms(now, unix_ms);
            let rpc = inner.node.rpc_mut();
            match change {
                Some(Change::Moved) => rpc.network_changed(now),
                _ if has_slept && !rpc.is_suspended() => rpc.woke_up(now),
                // The way out is as it was: what is known of it holds, but not for every connection.
                Some(Change::Beside) => inner.disruptions += 1,
                None => {}
            }
        });
    }

    fn change(&mut self, shared: &Shared, now: Time) -> Option<Change> {
        if self.next_look(shared).is_none_or(|look| now < look) {
            return None;
        }
        self.looked_at = now;
        let (ip, addresses) = (own_ip(), Addresses::now());
        let is_other = addresses != self.addresses;
        let has_moved = match ip {
            Some(_) => ip != self.ip,
            // A network without a way out is left with its address.
            None => is_other,
        };
        self.ip = ip.or(self.ip);
        self.addresses = addresses;
        match (has_moved, is_other) {
            (true, _) => Some(Change::Moved),
            (false, true) => Some(Change::Beside),
            (false, false) => None,
        }
    }
}

/// What has become of the machine's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The machine is on another network, or elsewhere on it.
    Moved,
    /// It has an address more or less beside that of its way out.
    Beside,
}

/// The bootstrap nodes by name.
#[derive(Debug)]
struct Names {
    nodes: Arc<Vec<BootstrapNode>>,
    resolved_at: Option<Time>,
}

impl Names {
    fn new(nodes: Vec<BootstrapNode>) -> Self {
        Self {
            nodes: Arc::new(nodes),
            resolved_at: None,
        }
    }

    /// Looks up those whose address is not known at all, before the node starts.
    async fn resolve_unknown(&mut self, shared: &Shared) {
        if self.nodes.iter().all(|node| node.known().is_some()) {
            return;
        }
        let is_known = |node: &&BootstrapNode| node.known().is_some();
        let (known, unknown): (Vec<_>, Vec<_>) = self.nodes.iter().partition(is_known);
        let unknown: Vec<_> = unknown.into_iter().cloned().collect();
        let mut addresses: Vec<_> = known.iter().filter_map(|node| node.known()).collect();
        addresses.extend(resolve_all(unknown).await);
        shared.with(|inner, _| inner.node.rpc_mut().set_bootstrap(addresses));
    }

    /// Nobody answers: names may stand for other addresses than those that were known. Looked up beside the task.
    fn resolve_again(&mut self, shared: &Arc<Shared>) {
        let now = shared.now();
        let is_early = self
            .resolved_at
            .is_some_and(|at| now < at + RESOLVE_INTERVAL);
        if is_early || self.nodes.is_empty() {
            return;
        }
        self.resolved_at = Some(now);
        let (shared, nodes) = (Arc::downgrade(shared), Arc::clone(&self.nodes));
        tokio::spawn(async move {
            let addresses = resolve_all(nodes.to_vec()).await;
            let found = shared.upgrade().filter(|_| !addresses.is_empty());
            if let Some(shared) = found {
                shared.with(|inner, now| {
                    let rpc = inner.node.rpc_mut();
                    rpc.set_bootstrap(addresses);
                    rpc.refresh(now);
                });
            }
        });
    }
}
