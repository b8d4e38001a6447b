//! Carrying our handshake to a peer: through nodes known beforehand, and those that the DHT names.
//! Knows who is asked in which order. Does not know what follows the answer.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddrV4;

use ferrocore_dht::hyperdht::handshake::{Agreed, ClientHandshake, HandshakeFailure};
use ferrocore_dht::hyperdht::router::{HandshakeReply, handshake_request, read_handshake_reply};
use ferrocore_dht::hyperdht::{FIND_PEER, PEER_HANDSHAKE};
use ferrocore_dht::id::Id;
use ferrocore_dht::rpc::{Outgoing, Plan};
use ferrocore_primitives::encoding::Encode;
use tokio::task::JoinSet;

use super::error::{ConnectError, DialEvent, Watcher};
use super::net::Net;

/// Nodes asked at a time to pass a handshake on.
const ASKING_MAX: usize = 3;

/// Nodes asked in all.
const ASKED_MAX: usize = 64;

/// How often a request of the search is sent again.
const RETRIES: u32 = 3;

/// The peer's answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The node that passed the handshake on, or the peer itself.
    pub(super) asked: SocketAddrV4,
    /// Where that node sees us.
    pub(super) client_address: SocketAddrV4,
    pub(super) reply: HandshakeReply,
    pub(super) agreed: Agreed,
    /// Nodes that know the peer.
    pub(super) relays: Vec<SocketAddrV4>,
}

struct Heard {
    asked: SocketAddrV4,
    seen: SocketAddrV4,
    reply: HandshakeReply,
}

/// Asks until the peer answers. `known` are nodes that may know it.
pub(super) async fn search(
    net: &Net,
    target: Id,
    handshake: &ClientHandshake,
    known: &[SocketAddrV4],
    watcher: &Watcher,
) -> Result<Answer, ConnectError> {
    watcher.tell(DialEvent::Searching);
    let mut query = net.query(Plan {
        nodes: known.to_vec(),
        retries: RETRIES,
        ..Plan::new(target, FIND_PEER)
    })?;
    let mut is_searching = true;
    let mut waiting: VecDeque<_> = known.iter().copied().collect();
    let mut met: HashSet<_> = known.iter().copied().collect();
    let mut relays = Vec::new();
    let mut asking: JoinSet<Option<Heard>> = JoinSet::new();
    loop {
        while asking.len() < ASKING_MAX
            && let Some(node) = waiting.pop_front()
        {
            watcher.tell(DialEvent::Asking(node));
            asking.spawn(ask(net.clone(), target, handshake.request().to_vec(), node));
        }
        if !is_searching && asking.is_empty() {
            return Err(match relays.is_empty() {
                true => ConnectError::NotFound,
                false => ConnectError::NoAnswer,
            });
        }
        tokio::select! {
            response = query.next(), if is_searching => match response {
                Some(response) if response.value.is_some() => {
                    relays.push(response.from);
                    if met.len() < ASKED_MAX && met.insert(response.from) {
                        waiting.push_back(response.from);
                    }
                }
                Some(_) => {}
                None => is_searching = false,
            },
            Some(heard) = asking.join_next() => {
                let Ok(Some(Heard { asked, seen, reply })) = heard else {
                    continue;
                };
                match handshake.read(&reply.noise) {
                    Ok(agreed) => {
                        watcher.tell(DialEvent::Answered { through: asked, server: reply.server_address });
                        return Ok(Answer { asked, client_address: seen, reply, agreed, relays });
                    }
                    // That node made it up; the others may not.
                    Err(HandshakeFailure::Forged(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

async fn ask(net: Net, target: Id, noise: Vec<u8>, to: SocketAddrV4) -> Option<Heard> {
    let outgoing = Outgoing {
        target: Some(target),
        value: Some(handshake_request(noise).to_vec()),
        ..Outgoing::new(to, PEER_HANDSHAKE)
    };
    let response = net.request(outgoing).await.ok()?;
    let reply = read_handshake_reply(response.value.as_deref(), to, response.from)?;
    Some(Heard {
        asked: to,
        seen: response.to,
        reply,
    })
}
