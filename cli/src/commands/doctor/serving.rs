//! Who serves a drive or log, and by which way they are reached. Nothing is fetched but what they say to have.

use std::time::Duration;

use ferrocore::{Key, Node, PeerReport};
use tokio::time::{Instant, sleep};

use crate::args::Globals;
use crate::context::obstacles;
use crate::events::Check;
use crate::exit::Result;

pub(super) const NAME: &str = "target";

/// How long others may come after the first.
const GRACE: Duration = Duration::from_secs(2);

/// How often we look.
const PAUSE: Duration = Duration::from_millis(100);

/// How many are named.
const NAMED_MAX: usize = 8;

/// Looks for them with a node of its own, which keeps nothing.
pub(super) async fn check(globals: &Globals, key: &Key) -> Result<Check> {
    let mut builder = Node::builder().discovery(globals.discovery());
    for peer in &globals.peer {
        builder = builder.peer(peer);
    }
    let node = builder.open().await?;
    let core = node.core(key)?;
    let found = servers(&node, key, globals.timeout).await;
    let check = match found.is_empty() {
        false => Check::good(NAME, found.join("; ")),
        true => {
            let detail = format!("nobody serves {key}{}", obstacles(&node));
            let hint = "see that the other side still shares it, or name it with --peer";
            Check::bad(NAME, detail, hint)
        }
    };
    drop(core);
    node.close().await;
    Ok(check)
}

async fn servers(node: &Node, key: &Key, patience: Duration) -> Vec<String> {
    let started = Instant::now();
    let mut first = None;
    loop {
        let reports = node.peer_reports().await;
        let named = reports.iter().filter_map(|report| name(report, key));
        let named: Vec<_> = named.take(NAMED_MAX).collect();
        if !named.is_empty() {
            first.get_or_insert_with(Instant::now);
        }
        let is_enough = first.is_some_and(|first| first.elapsed() >= GRACE);
        if is_enough || started.elapsed() >= patience {
            return named;
        }
        sleep(PAUSE).await;
    }
}

/// A peer that has something of the core, in words.
fn name(report: &PeerReport, key: &Key) -> Option<String> {
    let mut cores = report.session.cores.iter();
    let core = cores.find(|core| core.key == *key && core.remote_length > 0)?;
    let address = report.peer.address;
    let address = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let (via, have, length) = (
        report.peer.via.name(),
        core.remote_contiguous,
        core.remote_length,
    );
    Some(format!(
        "{address} ({via}) has {have} of {length} blocks of {key}"
    ))
}
