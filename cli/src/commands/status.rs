//! `status`: what is in the store, and who is connected.

use std::time::Duration;

use ferrocore::PeerReport;
use ferrocore::replication::CoreStats;

use super::list;
use crate::args::Status;
use crate::context::{Context, z32};
use crate::events::{CorePeer, PeerStatus};
use crate::exit::Result;

/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Once, or until Ctrl-C, which is no failure.
pub(crate) async fn status(context: &Context, status: Status) -> Result<()> {
    loop {
        context.stop().or_interrupted(tell(context)).await?;
        if !status.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = context.stop().asked() => return Ok(()),
        }
    }
}

async fn tell(context: &Context) -> Result<()> {
    list::list(context).await?;
    for report in context.store.node.peer_reports().await {
        context.output().list(&describe(&report)).await?;
    }
    Ok(())
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
