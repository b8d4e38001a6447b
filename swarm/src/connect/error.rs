//! Why a peer could not be reached, and what was tried.
//! Knows outcomes. Does not know how they came about.

use std::fmt;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use ferrocore_dht::hyperdht::handshake::HandshakeFailure;
use ferrocore_dht::hyperdht::punch::client::PunchError;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_secret_stream::StreamError;
use thiserror::Error;

use crate::dht::DhtError;

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody in the DHT knows the peer: it is not listening, or not for long. Try again later.
    #[error("nobody knows where the peer is")]
    NotFound,
    /// Nodes know the peer, but it did not answer through any of them: it has just left, or refuses us.
    #[error("the peer does not answer")]
    NoAnswer,
    /// The peer answered, and does not go on.
    #[error(transparent)]
    Handshake(#[from] HandshakeFailure),
    /// The peer can be reached neither directly nor by punching, and no relay was named.
    #[error("the peer is behind a firewall and cannot be punched through to")]
    CannotPunch,
    /// Punching failed. A relay would help.
    #[error("punching failed: {0}")]
    Punch(#[from] PunchError),
    /// The peer did not answer on the local network, and there is no other way.
    #[error("the peer did not answer at {0} on the local network")]
    Lan(SocketAddrV4),
    /// The blind relay did not bring us together.
    #[error("relaying failed: {0}")]
    Relay(#[source] RelayError),
    /// A path was found but carried nothing in time.
    #[error("the peer did not answer at {0}")]
    Silent(SocketAddrV4),
    /// The node is suspended: resume it first.
    #[error("the node is suspended")]
    Suspended,
    /// It took longer than it may.
    #[error("it took too long")]
    Timeout,
    /// The DHT cannot be asked.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// The stream failed before it was in use.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The operating system refused a socket.
    #[error("no socket: {0}")]
    Io(#[from] io::Error),
    /// Another connection to the same peer stays, and this one ended: use that.
    #[error("there is a connection to that peer already")]
    Duplicate,
    /// There are too many streams.
    #[error("too many streams are open")]
    TooMany,
}

/// Why a blind relay was of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// It could not be reached itself.
    #[error("the relay cannot be reached: {0}")]
    Unreachable(#[source] Box<ConnectError>),
    /// It ended the connection, or does not relay.
    #[error("the relay does not relay")]
    Refused,
    /// The other peer did not come in time.
    #[error("the other peer did not come to the relay")]
    Timeout,
}

/// By which path a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// Straight to an address.
    Direct,
    /// Straight, on a network of both.
    Lan,
    /// Through NATs that were opened from both sides.
    Punched,
    /// Through a blind relay.
    Relayed,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Lan => "lan",
            Self::Punched => "punched",
            Self::Relayed => "relayed",
        })
    }
}

/// A step of a dial: what is tried, what failed, what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialEvent {
    /// The DHT is asked who knows the peer.
    Searching,
    /// A node is asked to pass our handshake on.
    Asking(SocketAddrV4),
    /// The peer answered, through that node, which sees it at `server`.
    Answered {
        /// The node.
        through: SocketAddrV4,
        /// Where it sees the peer.
        server: SocketAddrV4,
    },
    /// A path is tried, to this address or through this relay.
    Trying {
        /// Which path.
        route: Route,
        /// Where to, if there is an address.
        address: Option<SocketAddrV4>,
    },
    /// A path led nowhere.
    Failed {
        /// Which path.
        route: Route,
        /// Why.
        reason: String,
    },
    /// The stream is connected, or has moved to a better path.
    Connected {
        /// Which path.
        route: Route,
        /// Where the peer is.
        address: SocketAddrV4,
    },
    /// Relaying goes through this node.
    Relay(PublicKey),
}

/// Takes the steps of a dial.
#[derive(Clone, Default)]
pub struct Watcher(Option<Arc<dyn Fn(DialEvent) + Send + Sync>>);

impl Watcher {
    /// Tells `tell` each step as it happens.
    pub fn new(tell: impl Fn(DialEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, event: DialEvent) {
        tracing::debug!(?event, "dial");
        if let Some(tell) = &self.0 {
            tell(event);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}
