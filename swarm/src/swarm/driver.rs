//! The task of a swarm: dials whoever the roster names, takes in whoever comes.
//! Knows tasks and the clock. Does not know whose turn it is: the roster does.

use std::sync::Arc;

use ferrocore_primitives::sign::PublicKey;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::events::SwarmEvent;
use super::shared::{Queues, Shared};
use crate::discovery::Found;
use crate::limits::DIAL_TIMEOUT;
use crate::target::{PeerId, Target};
use crate::transport::{DialError, Established, Inbound, PathEvent, Paths};

type Dials = JoinSet<(PeerId, Result<Established, DialError>)>;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, mut queues: Queues) {
    let mut dials = Dials::new();
    let mut listening = listen(&shared);
    loop {
        let timeout = take_turns(&shared, &mut dials);
        let wait = async {
            match timeout {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            () = wait => {}
            Some(found) = queues.found.recv() => take_in(&shared, found),
            Some(inbound) = queues.inbound.recv() => shared.enter(inbound, None),
            Some(Ok((peer, dialled))) = dials.join_next() => conclude(&shared, &peer, dialled),
            Some(Ok(reason)) = listening.join_next() => {
                shared.tell(SwarmEvent::NotListening { reason });
            }
        }
    }
}

/// Starts every dial whose turn it is; returns when to look again.
fn take_turns(shared: &Arc<Shared>, dials: &mut Dials) -> Option<Instant> {
    let mut due = Vec::new();
    let timeout = {
        let now = shared.now();
        let roster = &mut shared.lock().roster;
        roster.handle_timeout(now);
        while let Some(target) = roster.poll_dial(now) {
            due.push(target);
        }
        roster.poll_timeout()
    };
    for target in due {
        start(shared, target, dials);
    }
    timeout.map(|timeout| shared.instant(timeout))
}

fn start(shared: &Arc<Shared>, target: Target, dials: &mut Dials) {
    shared.note_dial(&target.id);
    let shared = Arc::clone(shared);
    dials.spawn(async move {
        let id = target.id.clone();
        let dialled = timeout(DIAL_TIMEOUT, dial(&shared, &target)).await;
        (id, dialled.unwrap_or(Err(DialError::Timeout)))
    });
}

/// Tries each transport that can reach the peer, in their order.
async fn dial(shared: &Arc<Shared>, target: &Target) -> Result<Established, DialError> {
    if let Some(key) = target.expected_key()
        && !shared.admits(&key)
    {
        return Err(DialError::Other("it is kept away".into()));
    }
    let paths = report_paths(shared, &target.id);
    let mut failure = DialError::NoAddress;
    for transport in &shared.transports {
        if transport.can_dial(target) {
            match transport.dial(target, &shared.key_pair, &paths).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

fn report_paths(shared: &Arc<Shared>, peer: &PeerId) -> Paths {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    Paths::new(move |event| {
        shared.note_path(&peer, &event);
        let peer = peer.clone();
        shared.tell(match event {
            PathEvent::Trying(path) => SwarmEvent::Dialing { peer, path },
            PathEvent::Failed { path, reason } => SwarmEvent::PathFailed { peer, path, reason },
        });
    })
}

fn conclude(shared: &Arc<Shared>, peer: &PeerId, dialled: Result<Established, DialError>) {
    let reason = match dialled {
        Ok(connection) if shared.admits(&connection.stream.remote_public_key()) => {
            return shared.enter(connection, Some(peer));
        }
        Ok(connection) if connection.stream.remote_public_key() == shared.key_pair.public_key() => {
            // The roster notes that this address is our own.
            return shared.enter(connection, Some(peer));
        }
        Ok(_) => "it is kept away".to_owned(),
        Err(error) => {
            if matches!(error, DialError::NeedsRelay(_)) {
                shared.with_roster(|roster, _| roster.needs_relay(peer));
            }
            error.to_string()
        }
    };
    let retry = shared.with_roster(|roster, now| roster.dial_failed(peer, now));
    shared.note_failure(peer, &reason, retry);
    let peer = peer.clone();
    shared.tell(SwarmEvent::DialFailed {
        peer,
        reason,
        retry,
    });
}

fn take_in(shared: &Arc<Shared>, found: Found) {
    let peer = found.target.id.clone();
    let is_news = {
        let mut state = shared.lock();
        let joined = state.topics.get(&found.topic);
        let limit = joined.and_then(|joined| joined.client_limit());
        let limit = limit.filter(|_| !state.is_suspended);
        match limit {
            Some(limit) if state.roster.may_add(&found.topic, &peer, limit) => {
                state.roster.found(found.target, found.topic)
            }
            _ => false,
        }
    };
    let (topic, discovery) = (found.topic, found.discovery);
    if is_news {
        shared.tell(SwarmEvent::Found {
            topic,
            discovery,
            peer,
        });
    }
    drop(found.waiting);
    shared.stir();
}

/// Lets every transport accept peers.
fn listen(shared: &Arc<Shared>) -> JoinSet<String> {
    let mut listening = JoinSet::new();
    for transport in &shared.transports {
        let (transport, shared) = (Arc::clone(transport), Arc::clone(shared));
        listening.spawn(async move {
            let admitting = Arc::clone(&shared);
            let inbound = Inbound {
                sender: shared.inbound.clone(),
                admits: Arc::new(move |key: &PublicKey| admitting.admits(key)),
            };
            match transport.listen(&shared.key_pair, inbound).await {
                Ok(()) => format!("{} accepts no peers any more", transport.name()),
                Err(error) => error.to_string(),
            }
        });
    }
    listening
}
