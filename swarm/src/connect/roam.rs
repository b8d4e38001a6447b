//! Streams that go on when one of their ends gets another address.
//! Knows whom to believe. Does not know how an end notices that it has moved: its node does.
//!
//! | end | does |
//! |---|---|
//! | that has moved | sends empty messages, by which the other sees where it is now, and gives the stream up if nothing comes back |
//! | that has not | pings the address a packet came from, from the socket it came to, and sends there from then on |
//!
//! The ping is what keeps others from turning a stream on somebody who has not asked for it: a packet's sender can be
//! forged, an answer to the ping cannot be given from elsewhere. Whoever reads the packets on their way could answer
//! it, too, but could hold them up anyway, and reads nothing. JavaScript peers show a new path in the same way
//! (`relayConnection` of `hyperdht/lib/connect.js`), but follow none after a connection has come about: they
//! connect again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_dht::rpc::{Outgoing, Socket};
use ferrocore_udx::socket::{Path, StreamHandle, UdxSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::net::{Extra, tagged_at, v4};
use crate::dht::{Dht, WeakDht};

/// How often the end that has moved shows itself, and how long it waits each time. Together that is longer than peers are
/// silent while they live: [`KEEP_ALIVE`](super::KEEP_ALIVE).
const SHOWN: usize = 4;
const SHOWN_PAUSE: Duration = Duration::from_secs(2);

/// How often a stream that has gone over to a path asks the peer for a sign there, and how long it waits each time.
const PROVED: usize = 3;
const PROVED_PAUSE: Duration = Duration::from_secs(1);

const _: () = assert!(SHOWN as u64 * SHOWN_PAUSE.as_secs() > super::KEEP_ALIVE.as_secs());

/// Follows the peer of a stream that has a path of its own, until the stream is over. `extra` is the socket it is on, if that
/// was opened to punch; `left` the relay that it came from. What still comes by that is the peer's, but there the peer has
/// another id, and the relay answers pings as any node does: a stream that went back would lead nowhere.
pub(super) fn follow(
    dht: WeakDht,
    handle: StreamHandle,
    extra: Option<Extra>,
    left: Option<SocketAddr>,
) {
    let Some(disruptions) = dht.upgrade().map(|dht| dht.disruptions()) else {
        return;
    };
    tokio::spawn(async move {
        tokio::select! {
            () = follow_peer(&dht, &handle, extra.as_ref(), left) => {}
            () = show_ourselves(&handle, disruptions) => {}
            _ = handle.closed() => {}
        }
    });
}

async fn follow_peer(
    dht: &WeakDht,
    handle: &StreamHandle,
    extra: Option<&Extra>,
    left: Option<SocketAddr>,
) {
    while let (Ok(path), Some(dht)) = (handle.other_path().await, dht.upgrade()) {
        if left != Some(path.remote)
            && let Some((tag, socket)) = socket_of(&dht, &path, extra)
        {
            // Apart, for nearly all connections wait for this as long as they last, and hold room for all of it.
            Box::pin(take_path(&dht, handle, &path, tag, &socket)).await;
        }
    }
}

async fn take_path(dht: &Dht, handle: &StreamHandle, path: &Path, tag: Socket, socket: &UdxSocket) {
    let to = path.remote;
    if answers(dht, tag, to).await
        && let Some((from, id)) = handle.remote()
        && handle.change_remote(socket, id, to).is_ok()
    {
        tracing::debug!(%from, %to, "a peer has moved");
    }
}

/// What is being asked of where a stream's packets came from: one path at most.
pub(super) type Sightings = JoinSet<Option<(Path, UdxSocket)>>;

/// Asks whether somebody is where a packet came from. A relay knows its streams' ids, too, and could otherwise aim one at anybody by
/// one packet with a forged sender.
pub(super) fn look(sightings: &mut Sightings, dht: Dht, path: Path, at: (Socket, UdxSocket)) {
    let (tag, socket) = at;
    sightings.spawn(async move {
        let answers = answers(&dht, tag, path.remote).await;
        answers.then_some((path, socket))
    });
}

/// Whether a ping from one of our sockets is answered there: whoever is there takes part.
pub(super) async fn answers(dht: &Dht, from: Socket, to: SocketAddr) -> bool {
    let Some(to) = v4(to) else {
        return false;
    };
    let ping = Outgoing {
        socket: Some(from),
        ..Outgoing::ping(to)
    };
    dht.request(ping).await.is_ok()
}

/// The socket that a packet came to, and how the node knows it.
pub(super) fn socket_of(
    dht: &Dht,
    path: &Path,
    extra: Option<&Extra>,
) -> Option<(Socket, UdxSocket)> {
    let punched = extra.map(|extra| (extra.tag, extra.socket.clone()));
    let punched = punched.filter(|(_, socket)| socket.local_addr() == path.local);
    tagged_at(dht, path.local).or(punched)
}

/// Follows an end of a link that we are the relay of, until its stream is over: whoever has moved sends from there. JavaScript's
/// relays know an end where its first packet came from.
pub(super) fn follow_end(dht: &Dht, handle: StreamHandle) {
    let dht = dht.downgrade();
    tokio::spawn(async move {
        tokio::select! {
            () = follow_peer(&dht, &handle, None, None) => {}
            _ = handle.closed() => {}
        }
    });
}

/// Whether the peer answers on the path that a stream has gone over to. Who answered pings there may be somebody else, as a relay is
/// whose own address has changed.
pub(super) async fn is_heard(handle: &StreamHandle) -> bool {
    for _ in 0..PROVED {
        // One that cannot be sent is as one that is lost.
        handle.send_message(Bytes::new()).ok();
        handle.send_heartbeat();
        if let Ok(heard) = timeout(PROVED_PAUSE, handle.heard()).await {
            return heard.is_ok();
        }
    }
    false
}

/// [`show_ourselves`] for as long as there is a node; returns once the stream is over.
pub(super) async fn stand_by(dht: &WeakDht, handle: &StreamHandle) {
    let disruptions = dht.upgrade().map(|dht| dht.disruptions());
    if let Some(disruptions) = disruptions {
        show_ourselves(handle, disruptions).await;
    }
    handle.closed().await;
}

/// Whenever the network has changed: shows the peer where we are now, and ends the stream if it does not answer.
async fn show_ourselves(handle: &StreamHandle, mut disruptions: watch::Receiver<u64>) {
    while disruptions.changed().await.is_ok() {
        if !Box::pin(is_found(handle)).await {
            tracing::debug!(remote = ?handle.remote(), "a peer does not find us any more");
            return handle.destroy();
        }
    }
}

/// Shows the peer where we are; false if nothing comes back.
async fn is_found(handle: &StreamHandle) -> bool {
    let before = handle.stats().packets_received;
    for _ in 0..SHOWN {
        // One that cannot be sent is as one that is lost.
        handle.send_message(Bytes::new()).ok();
        sleep(SHOWN_PAUSE).await;
    }
    handle.stats().packets_received != before
}
