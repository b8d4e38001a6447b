//! How peers are reached: the seam below a swarm.
//! Knows what a swarm asks of a transport. Does not know when, or why.

pub mod memory;
pub mod tcp;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_secret_stream::{SecretStream, StreamError};
use ferrocore_udx::socket::StreamHandle;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::link::{BoxIo, Io};
use crate::messages::Messages;
use crate::target::Target;

/// A future of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// By which path a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Via {
    /// TCP, to an address that was given.
    Tcp,
    /// TCP, on the local network.
    Lan,
    /// UDP, without help.
    Direct,
    /// UDP, through NATs that were opened from both sides.
    Punched,
    /// UDP, through a relay that sees only ciphertext.
    Relayed,
    /// Within this process.
    Memory,
}

impl Via {
    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Punched => "punched",
            Self::Relayed => "relayed",
            Self::Memory => "memory",
        }
    }
}

/// A connection whose handshake is done.
pub struct Established {
    /// The stream. It knows the peer's key, and who dialled.
    pub stream: SecretStream<BoxIo>,
    /// By which path.
    pub via: Via,
    /// Where the peer is, if it is anywhere.
    pub address: Option<SocketAddr>,
    /// The address of ours without which it is lost, if it does not survive a change of networks.
    pub(crate) bound_to: Option<IpAddr>,
    /// Tells whether the peer still answers, where the transport knows that before anything is given up.
    pub(crate) pulse: Option<StreamHandle>,
    /// What is said beside the stream, where the transport has that.
    pub(crate) messages: Option<Messages>,
}

impl Established {
    /// A connection over `stream`.
    pub fn new<T: Io + 'static>(
        stream: SecretStream<T>,
        via: Via,
        address: Option<SocketAddr>,
    ) -> Self {
        Self {
            stream: stream.map_io(|io| Box::new(io) as BoxIo),
            via,
            address,
            bound_to: None,
            pulse: None,
            messages: None,
        }
    }

    /// Lets the swarm look for the peer elsewhere while it does not answer on `pulse`, the stream below.
    #[must_use]
    pub fn with_pulse(self, pulse: StreamHandle) -> Self {
        Self {
            pulse: Some(pulse),
            ..self
        }
    }

    /// Gives out `messages`, too.
    #[must_use]
    pub fn with_messages(self, messages: Messages) -> Self {
        Self {
            messages: Some(messages),
            ..self
        }
    }

    /// Lets the connection end once the machine has lost `own`, its address.
    #[must_use]
    pub fn bound_to(self, own: IpAddr) -> Self {
        Self {
            bound_to: Some(own),
            ..self
        }
    }
}

/// Why a peer could not be reached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// It has no address that this transport can reach.
    #[error("it has no address that can be reached")]
    NoAddress,
    /// The address does not answer; the peer may be gone, or a firewall be in the way.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something answers, but does not prove to be the peer.
    #[error("{0}")]
    Handshake(#[from] StreamError),
    /// Somebody else answers: the address is of the past, or a lie.
    #[error("another peer answers there")]
    OtherKey,
    /// It took longer than [`DIAL_TIMEOUT`](crate::limits::DIAL_TIMEOUT).
    #[error("it took too long")]
    Timeout,
    /// A relay may help: each side's NAT gives out random ports.
    #[error("{0}")]
    NeedsRelay(String),
    /// Whatever else a transport has to say.
    #[error("{0}")]
    Other(String),
}

/// Why a transport accepts no peers any more.
#[derive(Debug, Error)]
#[error("{transport} accepts no peers: {reason}")]
pub struct ListenError {
    /// Which transport.
    pub transport: &'static str,
    /// Why.
    pub reason: String,
}

/// Tells of the paths that one dial tries.
#[derive(Clone)]
pub struct Paths {
    tell: Arc<dyn Fn(PathEvent) + Send + Sync>,
}

/// What became of one path of a dial.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathEvent {
    /// It is tried now, such as `tcp 192.168.1.7:4000`.
    Trying(String),
    /// It led nowhere.
    Failed {
        /// As in [`PathEvent::Trying`].
        path: String,
        /// Why.
        reason: String,
    },
}

impl Paths {
    /// Tells `tell`.
    pub fn new(tell: impl Fn(PathEvent) + Send + Sync + 'static) -> Self {
        Self {
            tell: Arc::new(tell),
        }
    }

    /// A path is tried.
    pub fn trying(&self, path: impl fmt::Display) {
        (self.tell)(PathEvent::Trying(path.to_string()));
    }

    /// A path led nowhere.
    pub fn failed(&self, path: impl fmt::Display, reason: impl fmt::Display) {
        (self.tell)(PathEvent::Failed {
            path: path.to_string(),
            reason: reason.to_string(),
        });
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paths").finish_non_exhaustive()
    }
}

/// Where a transport hands in those who dialled us.
#[derive(Clone)]
pub struct Inbound {
    pub(crate) sender: mpsc::Sender<Established>,
    pub(crate) admits: Arc<dyn Fn(&PublicKey) -> bool + Send + Sync>,
}

impl Inbound {
    /// Whether this key may connect: to be asked as soon as it is known, better before we show that we are here.
    pub fn admits(&self, key: &PublicKey) -> bool {
        (self.admits)(key)
    }

    /// Hands in a connection. Returns whether anybody is left to take it.
    pub async fn hand_in(&self, connection: Established) -> bool {
        self.sender.send(connection).await.is_ok()
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}

/// A way to reach peers and to be reached.
pub trait Transport: Send + Sync {
    /// Its name in events.
    fn name(&self) -> &'static str;

    /// Whether a dial of `target` makes sense.
    fn can_dial(&self, target: &Target) -> bool;

    /// Connects to a peer, as the owner of `key_pair`, by whatever path leads there.
    fn dial<'a>(
        &'a self,
        target: &'a Target,
        key_pair: &'a KeyPair,
        paths: &'a Paths,
    ) -> BoxFuture<'a, Result<Established, DialError>>;

    /// Accepts peers, as the owner of `key_pair`, until the future is dropped.
    ///
    /// How many handshakes run at once, and for how long, is the transport's to bound.
    fn listen<'a>(
        &'a self,
        key_pair: &'a KeyPair,
        inbound: Inbound,
    ) -> BoxFuture<'a, Result<(), ListenError>>;

    /// Tells others that nobody is here any more, and lets go of what the system can take back, until
    /// [`resume`](Self::resume). The swarm dials nobody meanwhile, and takes nobody.
    fn suspend(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Goes on as before [`suspend`](Self::suspend).
    fn resume(&self) -> BoxFuture<'_, Result<(), ListenError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns when what it knows of the network holds no longer, as after the machine has slept. Beside that the swarm
    /// itself looks at the machine's addresses.
    fn disrupted(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
