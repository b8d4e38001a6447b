//! Peers over TCP, plain or with a WebSocket on it: accepting them, dialling them again and again.
//! Knows addresses, handshakes and their bounds. Does not know cores: a session replicates those.
//!
//! Addresses are given here; peers that have to be found come by `network`.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ferrocore_primitives::random;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_replication::SessionError;
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::{Options, Role, SecretStream, StreamError};
use ferrocore_swarm::BoxIo;
use ferrocore_swarm::transport::Via;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::address::Address;
use crate::guests::{Guests, Place};
use crate::limits::{
    ACCEPT_PAUSE, CONNECT_TIMEOUT, GOODBYE_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, REDIAL_MAX,
    REDIAL_MIN,
};
use crate::peers::{Arrival, PeerEvent, Refusal};
use crate::shared::{Hold, Shared};

/// An address where peers are accepted. Dropped, it takes no more, and those it took are let go.
#[derive(Debug)]
#[must_use = "dropping it stops listening"]
pub struct Listening {
    address: SocketAddr,
    task: AbortHandle,
}

/// A peer that is being dialled whenever it is not connected. Dropped, it is let go.
#[derive(Debug)]
#[must_use = "dropping it stops dialling"]
pub struct Dialing {
    task: AbortHandle,
}

impl Listening {
    /// The address, with the port that the system chose if none was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts peers at `address`.
pub(crate) async fn listen(node: Hold, address: &str) -> io::Result<Listening> {
    let spoken = Address::parse(address)?;
    let listener = TcpListener::bind(spoken.host()).await?;
    let address = listener.local_addr()?;
    let finding = node.store.finding();
    let task = tokio::spawn(async move {
        // Let go in this order's reverse, also when it is aborted.
        let node = node;
        let _finding = finding;
        accept(&node, listener, spoken).await;
    });
    let task = task.abort_handle();
    Ok(Listening { address, task })
}

/// Dials `address` for as long as the answer is kept.
pub(crate) fn dial(node: Hold, address: String) -> Dialing {
    let finding = node.store.finding();
    let task = tokio::spawn(async move {
        let node = node;
        let _finding = finding;
        redial(&node, &address).await;
    });
    Dialing {
        task: task.abort_handle(),
    }
}

async fn accept(node: &Hold, listener: TcpListener, spoken: Address) {
    let guests = Guests::default();
    // Dropped with this task, it ends those of the connections.
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(_) if node.is_resting() => tracing::debug!("a peer came while we sleep"),
                Ok((stream, address)) => {
                    let Some(place) = guests.admit(address.ip()).await else {
                        tracing::debug!(%address, "too many peers");
                        continue;
                    };
                    let (number, spoken) = (place.number(), spoken.clone());
                    let answering = answer(node.clone(), stream, address, spoken, place);
                    guests.runs(number, connections.spawn(answering));
                }
                Err(error) => {
                    // Out of file descriptors: others must close some first.
                    tracing::warn!(%error, "cannot accept peers");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    node.until_closed(accepting).await;
    while connections.join_next().await.is_some() {}
}

/// Serves one peer that has dialled us. Whatever is wrong with it is its own problem.
async fn answer(node: Hold, stream: TcpStream, address: SocketAddr, spoken: Address, place: Place) {
    match shake_hands(&node, stream, Role::Responder, &spoken).await {
        Ok(stream) => {
            let attended = attend_as(&node, stream, Some(address), Via::Tcp, Some(place)).await;
            if let Err(refusal) = attended {
                tracing::debug!(%address, ?refusal, "a peer was turned away");
            }
        }
        Err(error) => tracing::debug!(%address, %error, "a peer was turned away"),
    }
}

/// Dials again and again while the node is awake, until it closes; but not whoever was met there while it is connected, by
/// whatever way: it may have dialled us, or be found by the swarm.
async fn redial(node: &Hold, address: &str) {
    let mut pause = REDIAL_MIN;
    let mut met = None;
    loop {
        if let Some(peer) = &met {
            node.until_closed(node.peers.gone(peer)).await;
            node.until_closed(node.peers.pardoned(peer)).await;
        }
        node.awake().await;
        if node.is_closing() {
            return;
        }
        let started = Instant::now();
        match call(node, address).await {
            Ok(peer) => {
                met = peer;
                if started.elapsed() > REDIAL_MAX {
                    pause = REDIAL_MIN;
                }
            }
            Err(error) => {
                let address = address.to_owned();
                let reason = reason(&error);
                node.peers.tell(PeerEvent::Unreachable { address, reason });
            }
        }
        node.until_closed(sleep(jittered(pause))).await;
        pause = (pause * 2).min(REDIAL_MAX);
    }
}

/// Dials once, and attends the connection to its end, which comes with a goodbye when the node closes or sleeps. Returns who
/// was there.
async fn call(node: &Hold, address: &str) -> Result<Option<PublicKey>, StreamError> {
    let connected = tokio::select! {
        connected = connect(node, address) => connected?,
        () = node.parted() => return Ok(None),
    };
    let (stream, address) = connected;
    let peer = stream.remote_public_key();
    match attend(node, stream, Some(address), Via::Tcp).await {
        Ok(()) | Err(Refusal::Duplicate | Refusal::Banned) => Ok(Some(peer)),
        Err(Refusal::Ourselves) => Err(io::Error::other("it is this node itself").into()),
    }
}

async fn connect(
    node: &Shared,
    address: &str,
) -> Result<(SecretStream<BoxIo>, SocketAddr), StreamError> {
    let spoken = Address::parse(address)?;
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(spoken.host())).await;
    let stream = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let address = stream.peer_addr()?;
    let stream = shake_hands(node, stream, Role::Initiator, &spoken).await?;
    Ok((stream, address))
}

async fn shake_hands(
    node: &Shared,
    stream: TcpStream,
    role: Role,
    spoken: &Address,
) -> Result<SecretStream<BoxIo>, StreamError> {
    stream.set_nodelay(true)?;
    speak(node, stream, role, spoken).await
}

/// Opens what is spoken below the secret stream.
async fn speak<T>(
    node: &Shared,
    io: T,
    role: Role,
    spoken: &Address,
) -> Result<SecretStream<BoxIo>, StreamError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[cfg(feature = "websocket")]
    if let Address::WebSocket { url, .. } = spoken {
        let opening = async {
            match role {
                Role::Initiator => crate::websocket::client(url, io).await,
                Role::Responder => crate::websocket::accept(io).await,
            }
        };
        let opened = timeout(HANDSHAKE_TIMEOUT, opening).await;
        let io = opened.map_err(|_| StreamError::HandshakeTimeout)??;
        return handshake(node, io, role).await;
    }
    let _ = spoken;
    handshake(node, io, role).await
}

async fn handshake<T>(node: &Shared, io: T, role: Role) -> Result<SecretStream<BoxIo>, StreamError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = Options {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        ..Options::default()
    };
    let stream = SecretStream::handshake(io, role, &node.key_pair, options).await?;
    Ok(stream.map_io(|io| Box::new(io) as BoxIo))
}

/// Replicates over the connection until it ends, the node closes or sleeps, or another one to the same key replaces it.
///
/// # Errors
/// At once, if it is not to stay.
pub(crate) async fn attend<T>(
    node: &Hold,
    stream: SecretStream<T>,
    address: Option<SocketAddr>,
    via: Via,
) -> Result<(), Refusal>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    attend_as(node, stream, address, via, None).await
}

/// The same for one that may have to give its place to another.
async fn attend_as<T>(
    node: &Hold,
    mut stream: SecretStream<T>,
    address: Option<SocketAddr>,
    via: Via,
    place: Option<Place>,
) -> Result<(), Refusal>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let arrival = Arrival {
        remote_key: stream.remote_public_key(),
        address,
        is_initiator: stream.is_initiator(),
        via,
        handshake_hash: *stream.handshake_hash(),
    };
    // A stream over UDP would wait for longer, and a reader for it would not look for anybody else.
    stream.set_idle_timeout(Some(IDLE_TIMEOUT));
    let open = || node.session(stream, SessionOptions::default());
    let entered = node.peers.enter(arrival, open)?;
    if let Some(place) = &place {
        place.attends(&entered.session);
    }
    // Also when nobody attends it any more, the session has the store open, and its socket, until it has ended.
    let (ended, hold) = (entered.session.ended(), node.clone());
    tokio::spawn(async move {
        ended.await;
        drop((hold, place));
    });
    let report = |misbehaved| node.peers.judge(entered.info, misbehaved);
    let reporting = async {
        while let Some(misbehaved) = entered.session.misbehaved().await {
            report(misbehaved);
        }
        entered.session.closed().await
    };
    let parted = async {
        tokio::select! {
            () = node.parted() => {}
            () = entered.replaced.notified() => {}
        }
    };
    let ended = tokio::select! {
        ended = reporting => ended,
        () = parted => {
            entered.session.close();
            let goodbye = timeout(GOODBYE_TIMEOUT, entered.session.closed()).await;
            match goodbye {
                Ok(ended) => ended,
                Err(_) => {
                    entered.session.abort();
                    entered.session.closed().await
                }
            }
        }
    };
    if let Err(SessionError::Peer(misbehaved)) = ended {
        report(misbehaved);
    }
    Ok(())
}

/// What failed, and why.
fn reason(error: &StreamError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Between half of `pause` and all of it, so that two peers do not keep missing each other.
fn jittered(pause: Duration) -> Duration {
    let share = f64::from(u16::from_le_bytes(random::bytes())) / f64::from(u16::MAX);
    pause.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_vary_within_bounds() {
        for _ in 0..100 {
            let pause = jittered(REDIAL_MAX);
            assert!((REDIAL_MAX / 2..=REDIAL_MAX).contains(&pause), "{pause:?}");
        }
    }
}
