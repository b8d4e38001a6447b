//! Plain TCP, with the secret stream's XX handshake: neither side needs to know the other's key beforehand.
//! Knows sockets and their bounds. Does not know which addresses are worth a dial, but for the filter it is given.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferrocore_primitives::sign::KeyPair;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{BoxFuture, DialError, Established, Inbound, ListenError, Paths, Transport, Via};
use crate::limits::{
    ACCEPT_PAUSE, HALF_OPEN_MAX, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, INBOUND_MAX, LAN_CONNECT_TIMEOUT,
    TCP_CONNECT_TIMEOUT,
};
use crate::target::{Address, Target};

/// Says whether a remote address may be dialled, or may dial.
pub type AddressFilter = Arc<dyn Fn(&SocketAddr) -> bool + Send + Sync>;

/// TCP, for peers whose address was given or that are on the local network.
pub struct Tcp {
    listener: Option<TcpListener>,
    via: Via,
    admits: Option<AddressFilter>,
}

const BACKLOG: i32 = 128;

impl Tcp {
    /// Dials, and accepts peers at `address`; port 0 lets the system choose one.
    ///
    /// # Errors
    /// If the address is taken, or not of this machine.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self::new(Some(listener), Via::Tcp))
    }

    /// Dials, and accepts nobody.
    pub fn dial_only() -> Self {
        Self::new(None, Via::Tcp)
    }

    /// Dials peers found on the local network, and accepts such at a port of the system's choice. Who is none of them, as
    /// `admits` says by the address, is neither dialled nor accepted.
    ///
    /// # Errors
    /// If the system has no port left.
    pub fn lan(admits: AddressFilter) -> io::Result<Self> {
        let listener = bind_any()?;
        Ok(Self {
            admits: Some(admits),
            ..Self::new(Some(listener), Via::Lan)
        })
    }

    /// Where peers are accepted, if they are.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }

    fn new(listener: Option<TcpListener>, via: Via) -> Self {
        Self {
            listener,
            via,
            admits: None,
        }
    }

    /// The address in it that is for us.
    fn address(&self, address: &Address) -> Option<SocketAddr> {
        match (address, self.via) {
            (Address::Tcp(address), Via::Tcp) | (Address::Lan(address), Via::Lan) => Some(*address),
            _ => None,
        }
    }

    fn admits(&self, address: &SocketAddr) -> bool {
        self.admits.as_ref().is_none_or(|admits| admits(address))
    }

    /// How long an address may take to answer.
    fn patience(&self) -> Duration {
        match self.via {
            Via::Lan => LAN_CONNECT_TIMEOUT,
            _ => TCP_CONNECT_TIMEOUT,
        }
    }

    async fn accept_all(&self, listener: &TcpListener, key_pair: &KeyPair, inbound: Inbound) {
        let half_open = Arc::new(Semaphore::new(HALF_OPEN_MAX));
        // Dropped with this future, it ends the handshakes.
        let mut handshakes = JoinSet::new();
        while let Ok(place) = Arc::clone(&half_open).acquire_owned().await {
            while handshakes.try_join_next().is_some() {}
            let (stream, address) = match listener.accept().await {
                // A socket for both families names IPv4 peers in IPv6.
                Ok((stream, address)) => (
                    stream,
                    SocketAddr::new(address.ip().to_canonical(), address.port()),
                ),
                Err(error) => {
                    // Out of file descriptors: others must close some first.
                    tracing::warn!(%error, "cannot accept peers");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if handshakes.len() >= INBOUND_MAX || !self.admits(&address) {
                tracing::debug!(%address, "a peer was not admitted");
                continue;
            }
            let (key_pair, inbound, via) = (key_pair.clone(), inbound.clone(), self.via);
            handshakes.spawn(async move {
                let own = stream.local_addr();
                match shake_hands(stream, Role::Responder, &key_pair).await {
                    Ok(stream) if !inbound.admits(&stream.remote_public_key()) => {}
                    Ok(stream) => {
                        let connection = Established::new(stream, via, Some(address));
                        inbound.hand_in(bound(connection, own)).await;
                    }
                    Err(error) => tracing::debug!(%address, %error, "a peer was turned away"),
                }
                drop(place);
            });
        }
    }
}

impl Transport for Tcp {
    fn name(&self) -> &'static str {
        self.via.name()
    }

    fn can_dial(&self, target: &Target) -> bool {
        let mut addresses = target.addresses.iter();
        addresses.any(|address| self.address(address).is_some())
    }

    fn dial<'a>(
        &'a self,
        target: &'a Target,
        key_pair: &'a KeyPair,
        paths: &'a Paths,
    ) -> BoxFuture<'a, Result<Established, DialError>> {
        Box::pin(async move {
            // One after another: two connections at once to one peer would be one too many.
            let mut failure = DialError::NoAddress;
            for address in &target.addresses {
                let Some(remote) = self.address(address).filter(|remote| self.admits(remote))
                else {
                    continue;
                };
                paths.trying(address);
                match connect(remote, self.patience(), target, key_pair).await {
                    Ok((stream, own)) => {
                        let connection = Established::new(stream, self.via, Some(remote));
                        return Ok(bound(connection, own));
                    }
                    Err(error) => {
                        paths.failed(address, &error);
                        failure = error;
                    }
                }
            }
            Err(failure)
        })
    }

    fn listen<'a>(
        &'a self,
        key_pair: &'a KeyPair,
        inbound: Inbound,
    ) -> BoxFuture<'a, Result<(), ListenError>> {
        Box::pin(async move {
            match &self.listener {
                Some(listener) => self.accept_all(listener, key_pair, inbound).await,
                None => std::future::pending().await,
            }
            Ok(())
        })
    }
}

async fn connect(
    address: SocketAddr,
    patience: Duration,
    target: &Target,
    key_pair: &KeyPair,
) -> Result<(SecretStream<TcpStream>, io::Result<SocketAddr>), DialError> {
    let connecting = timeout(patience, TcpStream::connect(address)).await;
    let stream = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let own = stream.local_addr();
    let stream = shake_hands(stream, Role::Initiator, key_pair).await?;
    let expected = target.expected_key();
    if expected.is_some_and(|expected| expected != stream.remote_public_key()) {
        return Err(DialError::OtherKey);
    }
    Ok((stream, own))
}

/// A TCP connection stays with the address that it began with.
fn bound(connection: Established, own: io::Result<SocketAddr>) -> Established {
    match own {
        Ok(own) => connection.bound_to(own.ip()),
        Err(_) => connection,
    }
}

async fn shake_hands(
    stream: TcpStream,
    role: Role,
    key_pair: &KeyPair,
) -> Result<SecretStream<TcpStream>, ferrocore_secret_stream::StreamError> {
    stream.set_nodelay(true)?;
    let options = Options {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        idle_timeout: Some(IDLE_TIMEOUT),
        ..Options::default()
    };
    SecretStream::handshake(stream, role, key_pair, options).await
}

/// A port on all addresses, of both families where the system has both.
fn bind_any() -> io::Result<TcpListener> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    bind_family(Domain::IPV6, v6).or_else(|_| bind_family(Domain::IPV4, v4))
}

fn bind_family(domain: Domain, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
