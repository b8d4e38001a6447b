//! `status`: what is in the store, who is connected, and how finding and reaching others goes.

use std::time::Duration;

use ferrocore::PeerReport;
use ferrocore::replication::CoreStats;
use ferrocore::swarm::{self, PeerId, PeerState, SearchState, TopicStatus};

use super::list;
use crate::args::Status;
use crate::context::{Context, z32};
use crate::events::{CorePeer, Dial, Path, PeerStatus, Search, Topic};
use crate::exit::Result;

/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Once, or until Ctrl-C, which is no failure.
pub(crate) async fn status(context: &Context, status: Status) -> Result<()> {
    if !status.watch {
        return list::partly(context.stop().or_interrupted(tell(context)).await?);
    }
    tokio::select! {
        failure = watch(context) => failure,
        () = context.stop().asked() => Ok(()),
    }
}

/// Tells again and again, until that fails.
async fn watch(context: &Context) -> Result<()> {
    loop {
        tell(context).await?;
        tokio::time::sleep(PERIOD).await;
    }
}

/// Says at the end how many cores cannot be read.
async fn tell(context: &Context) -> Result<usize> {
    let unreadable = list::tell(context).await?;
    for report in context.store.node.peer_reports().await {
        context.output().list(&describe(&report)).await?;
    }
    if let Some(swarm) = context.store.node.swarm() {
        tell_search(context, &swarm.status()).await?;
    }
    Ok(unreadable)
}

/// How finding and reaching others goes: each topic, and each peer that is not connected.
async fn tell_search(context: &Context, status: &swarm::Status) -> Result<()> {
    for topic in &status.topics {
        context.output().list(&describe_topic(topic)).await?;
    }
    let connected: Vec<PeerId> = status
        .connections
        .iter()
        .map(|info| PeerId::Key(info.remote_key))
        .collect();
    for peer in &status.peers {
        // Who was found by name is idle once connected.
        let is_named = matches!(peer.peer, PeerId::Name(_)) && peer.last_failure.is_none();
        let is_met = connected.contains(&peer.peer) || (is_named && peer.state == PeerState::Idle);
        if !is_met {
            let relay = context.globals.relay.is_some();
            context.output().list(&describe_dial(peer, relay)).await?;
        }
    }
    Ok(())
}

fn describe_topic(topic: &TopicStatus) -> Topic {
    let searches = topic.searches.iter().map(|(by, state)| {
        let (state, reason) = match state {
            SearchState::Searching => ("searching", None),
            SearchState::Done => ("done", None),
            SearchState::Failed(reason) => ("failed", Some(reason.clone())),
            SearchState::Suspended => ("suspended", None),
            _ => ("unknown", None),
        };
        Search { by, state, reason }
    });
    Topic {
        discovery_key: topic.topic.to_string(),
        server: topic.interest.server,
        client: topic.interest.client,
        searches: searches.collect(),
    }
}

fn describe_dial(peer: &swarm::PeerStatus, has_relay: bool) -> Dial {
    let paths = peer.paths.iter().map(|path| Path {
        path: path.path.clone(),
        reason: path.failure.clone(),
    });
    let retry = peer.retry.map(|tier| tier.about().as_secs_f64());
    let (state, next) = match peer.state {
        PeerState::Queued => ("queued", "its turn comes".to_owned()),
        PeerState::Dialling => ("dialling", "under way".to_owned()),
        PeerState::Waiting => match retry {
            Some(seconds) => ("waiting", format!("again about {seconds} s later")),
            None => ("waiting", "again soon".to_owned()),
        },
        PeerState::Banned => ("banned", "kept away".to_owned()),
        _ => ("idle", "given up until it is found again".to_owned()),
    };
    let next = match peer.needs_relay && !has_relay {
        true => format!("{next}; a blind relay would reach it: --relay KEY"),
        false => next,
    };
    Dial {
        peer: match &peer.peer {
            PeerId::Key(key) => z32(key.as_bytes()),
            name => name.to_string(),
        },
        state,
        attempts: peer.attempts,
        paths: paths.collect(),
        reason: peer.last_failure.clone(),
        retry,
        needs_relay: peer.needs_relay,
        next,
    }
}

fn describe(report: &PeerReport) -> PeerStatus {
    let (peer, session) = (&report.peer, &report.session);
    let mut cores: Vec<CorePeer> = session.cores.iter().map(describe_core).collect();
    cores.sort_by(|a, b| a.key.cmp(&b.key));
    PeerStatus {
        remote_key: z32(peer.remote_key.as_bytes()),
        address: peer
            .address
            .map_or_else(String::new, |address| address.to_string()),
        via: peer.via.name(),
        state: "connected",
        initiator: peer.is_initiator,
        seconds: session.age.as_secs_f64(),
        bytes_up: session.stats.bytes_uploaded,
        bytes_down: session.stats.bytes_downloaded,
        up: session.upload_rate,
        down: session.download_rate,
        round_trip: session.round_trip().map(|time| time.as_secs_f64()),
        in_flight: session.in_flight(),
        cores,
    }
}

fn describe_core(core: &CoreStats) -> CorePeer {
    CorePeer {
        key: core.key.to_string(),
        length: core.remote_length,
        contiguous: core.remote_contiguous,
        bytes_up: core.stats.bytes_uploaded,
        bytes_down: core.stats.bytes_downloaded,
        blocks_up: core.stats.blocks_uploaded,
        blocks_down: core.stats.blocks_downloaded,
        in_flight: core.in_flight,
        window: core.window,
        round_trip: core.round_trip.map(|time| time.as_secs_f64()),
    }
}
