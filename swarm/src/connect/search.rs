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

/// Nodes known beforehand that are asked at a time to pass a handshake on.
const ASKING_KNOWN_MAX: usize = 3;

/// The same of those that the search finds, which have places of their own: what was known may be of an announcement whose nodes
/// are all gone, and each of them is waited for. JavaScript has two, beside one for all that are known.
const ASKING_FOUND_MAX: usize = 3;

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

/// Requests under way.
type Asking = JoinSet<Option<Heard>>;

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
    let mut known_waiting: VecDeque<_> = known.iter().copied().collect();
    let mut found_waiting = VecDeque::new();
    let mut met: HashSet<_> = known.iter().copied().collect();
    let mut relays = Vec::new();
    let (mut asking_known, mut asking_found) = (Asking::new(), Asking::new());
    let fill = |asking: &mut Asking, waiting: &mut VecDeque<_>, max| {
        while asking.len() < max
            && let Some(node) = waiting.pop_front()
        {
            watcher.tell(DialEvent::Asking(node));
            let request = handshake.request().to_vec();
            asking.spawn(ask(net.clone(), target, request, node));
        }
    };
    loop {
        fill(&mut asking_known, &mut known_waiting, ASKING_KNOWN_MAX);
        fill(&mut asking_found, &mut found_waiting, ASKING_FOUND_MAX);
        if !is_searching && asking_known.is_empty() && asking_found.is_empty() {
            return Err(match relays.is_empty() {
                true => ConnectError::NotFound,
                false => ConnectError::NoAnswer,
            });
        }
        let heard = tokio::select! {
            response = query.next(), if is_searching => {
                match response {
                    Some(response) if response.value.is_some() => {
                        relays.push(response.from);
                        if met.len() < ASKED_MAX && met.insert(response.from) {
                            found_waiting.push_back(response.from);
                        }
                    }
                    Some(_) => {}
                    None => is_searching = false,
                }
                continue;
            }
            Some(heard) = asking_known.join_next() => heard,
            Some(heard) = asking_found.join_next() => heard,
        };
        let Ok(Some(Heard { asked, seen, reply })) = heard else {
            continue;
        };
        match handshake.read(&reply.noise) {
            Ok(agreed) => {
                let server = reply.server_address;
                let through = asked;
                watcher.tell(DialEvent::Answered { through, server });
                return Ok(Answer {
                    asked,
                    client_address: seen,
                    reply,
                    agreed,
                    relays,
                });
            }
            // That node made it up; the others may not.
            Err(HandshakeFailure::Forged(_)) => {}
            Err(error) => return Err(error.into()),
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
