//! The sockets of a node: one that others know, one to ask from, and any number opened for holes in NATs.
//! Knows ports. Does not know what is sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use ferrocore_dht::rpc::Socket;
use ferrocore_udx::socket::{Udx, UdxSocket};

use super::shared::Shared;
use super::{Dht, DhtError};

/// How many ports from the wanted one on are tried before any other, if any will do.
const PORTS: u16 = 5;

/// Where a node is bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) host: Ipv4Addr,
    pub(super) port: u16,
    pub(super) any_port: bool,
}

/// The two sockets that every node has.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    pub(super) server: UdxSocket,
    pub(super) client: UdxSocket,
}

impl Sockets {
    /// Binds both; to the ports they had `before`, where those are free.
    pub(super) fn bind(udx: &Udx, place: Place, before: Option<(u16, u16)>) -> io::Result<Self> {
        let bind = |port| udx.bind(SocketAddr::from((place.host, port)));
        let range = match place.port {
            0 => 0..0,
            port if place.any_port => port..port.saturating_add(PORTS),
            port => port..port.saturating_add(1),
        };
        let candidates = before.map(|(server, _)| server).into_iter().chain(range);
        let mut server = Err(io::Error::from(io::ErrorKind::AddrInUse));
        for port in candidates {
            server = bind(port);
            if server.is_ok() {
                break;
            }
        }
        let server = match server {
            Err(_) if place.any_port || place.port == 0 => bind(0),
            result => result,
        }?;
        let client = bind(before.map_or(0, |(_, client)| client)).or_else(|_| bind(0))?;
        Ok(Self { server, client })
    }

    pub(super) fn server_port(&self) -> u16 {
        self.server.local_addr().port()
    }

    pub(super) fn ports(&self) -> (u16, u16) {
        (self.server_port(), self.client.local_addr().port())
    }

    pub(super) fn are_open(&self) -> bool {
        self.server.is_open() && self.client.is_open()
    }

    pub(super) async fn close(self) {
        self.server.close().await;
        self.client.close().await;
    }
}

/// A socket beside the node's own, for holes in NATs: the node can send from it, by its [`name`](Self::name). Dropped,
/// it closes once no stream is on it.
#[derive(Debug)]
pub struct ExtraSocket {
    shared: Arc<Shared>,
    name: u32,
    socket: UdxSocket,
}

impl Dht {
    /// Opens a socket on a port of the system's choice. Whoever has it reads it, and hands the node what is for it by
    /// [`ExtraSocket::handle`].
    ///
    /// # Errors
    /// [`DhtError::Io`].
    pub fn open_extra(&self) -> Result<ExtraSocket, DhtError> {
        let shared = Arc::clone(self.shared());
        let socket = shared.udx.bind(SocketAddr::from((shared.place.host, 0)))?;
        let name = shared.with(|inner, _| inner.add_extra(socket.clone()));
        Ok(ExtraSocket {
            shared,
            name,
            socket,
        })
    }

    /// How many such sockets there are.
    pub fn extra_sockets(&self) -> usize {
        self.shared().with(|inner, _| inner.extra_len())
    }
}

impl ExtraSocket {
    /// How the node knows it.
    pub fn name(&self) -> Socket {
        Socket::Extra(self.name)
    }

    /// The socket.
    pub fn socket(&self) -> &UdxSocket {
        &self.socket
    }

    /// Hands the node a datagram that came here. False if it is not for it.
    pub fn handle(&self, from: SocketAddr, data: &[u8]) -> bool {
        let Some(from) = v4(from) else {
            return false;
        };
        let name = self.name();
        self.shared.with(|inner, now| {
            let rpc = inner.node.rpc_mut();
            rpc.handle_datagram(now, name, from, data)
        })
    }
}

impl Drop for ExtraSocket {
    fn drop(&mut self) {
        let name = self.name;
        self.shared.with(|inner, _| inner.remove_extra(name));
    }
}

/// The DHT speaks IPv4 only.
pub(super) fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(address) => {
            let ip = address.ip().to_ipv4_mapped()?;
            Some(SocketAddrV4::new(ip, address.port()))
        }
    }
}
