//! Raw streams and the encrypted ones over them.
//! Knows ids and the header that each side sends first. Does not know how the path was found.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use ferrocore_primitives::random;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_secret_stream::{HandshakeResult, Options, SecretStream};
use ferrocore_udx::socket::{StreamHandle, Udx, UdxSocket, UdxStream};
use ferrocore_udx::stream::Config;
use tokio::time::timeout;

use super::error::{ConnectError, Route};
use crate::messages::Messages;

/// Time until the first packet of a peer at a path that should carry.
pub const PATH_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between packets on an idle stream.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Attempts to find a free stream id.
const ID_ATTEMPTS: usize = 16;

/// An encrypted connection to a peer.
#[derive(Debug)]
pub struct Connection {
    /// The stream; it knows the peer's key, and which side dialled.
    pub stream: SecretStream<UdxStream>,
    /// By which path it came about. A relayed one may move to a direct path later: [`handle`](Self::handle) tells.
    pub route: Route,
    handle: StreamHandle,
    messages: Messages,
    socket: Option<UdxSocket>,
}

impl Connection {
    /// The peer's key.
    pub fn remote_public_key(&self) -> PublicKey {
        self.stream.remote_public_key()
    }

    /// Where the peer, or the relay, is now.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.handle.remote().map(|(address, _)| address)
    }

    /// The stream below: its statistics, its present path, its end.
    pub fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }

    /// What is said beside the stream.
    pub fn messages(&self) -> Messages {
        self.messages.clone()
    }

    /// By the path that it went over to.
    pub(super) fn over(self, route: Route, socket: UdxSocket) -> Self {
        Self {
            route,
            socket: Some(socket),
            ..self
        }
    }

    /// The socket that it began on, of connections that we dialled.
    pub(super) fn socket(&self) -> Option<UdxSocket> {
        self.socket.clone()
    }
}

/// A stream of our own that waits for a path, under a random id.
pub(super) fn raw_stream(udx: &Udx) -> Result<UdxStream, ConnectError> {
    let config = || {
        let mut config = Config::default();
        config.seed = random::u64();
        config
    };
    let mut ids = std::iter::repeat_with(|| u32::from_le_bytes(random::bytes()));
    let made = ids
        .by_ref()
        .take(ID_ATTEMPTS)
        .find_map(|id| udx.create_stream(id, config()).ok());
    made.ok_or(ConnectError::TooMany)
}

/// Encrypts a connected stream, and sends our header: the other side learns by it where we are.
pub(super) async fn encrypt(
    stream: UdxStream,
    keys: HandshakeResult,
    route: Route,
    socket: Option<UdxSocket>,
) -> Result<Connection, ConnectError> {
    let handle = stream.handle();
    let options = Options {
        keep_alive: Some(KEEP_ALIVE),
        ..Options::default()
    };
    let messages = Messages::new(handle.clone(), &keys);
    let mut stream = SecretStream::from_keys(stream, keys, &[], options);
    stream.open().await?;
    Ok(Connection {
        stream,
        route,
        handle,
        messages,
        socket,
    })
}

/// Returns once the peer has acked our header: the path carries both ways.
pub(super) async fn proven(connection: &Connection, at: SocketAddrV4) -> Result<(), ConnectError> {
    match timeout(PATH_TIMEOUT, connection.handle.acked()).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(ConnectError::Silent(at)),
    }
}
