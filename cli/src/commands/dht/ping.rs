//! `dht ping`: whether a peer can be reached by its key, how, and how fast.

use std::sync::{Arc, Mutex, PoisonError};

use ferrocore::primitives::id::{encode_z32, parse_key};
use ferrocore::primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::connect::{ConnectError, ConnectOptions, DialEvent, Peers, Watcher};
use tokio::time::Instant;

use super::client;
use crate::args::{DhtPing, Globals};
use crate::events::DhtPong;
use crate::exit::{Failure, Kind, Result};
use crate::output::Output;

/// Ways that led nowhere, in words. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeadEnds(Arc<Mutex<Vec<String>>>);

pub(super) async fn ping(globals: &Globals, args: DhtPing, output: &Output) -> Result<()> {
    let key = parse_key(&args.key)
        .map_err(|_| Failure::usage("a key is 64 hexadecimal digits, or z-base-32"))?;
    let node = client(globals).await?;
    let peers = Peers::new(node.clone(), KeyPair::generate());
    let key = PublicKey::from(*key.as_bytes());
    let pong = reach(globals, &peers, key, globals.relay).await;
    node.close().await;
    output.list(&pong?).await
}

/// Connects to the owner of a key, at a relay if there is no other way, and hangs up.
pub(crate) async fn reach(
    globals: &Globals,
    peers: &Peers,
    key: PublicKey,
    relay: Option<PublicKey>,
) -> Result<DhtPong> {
    let dead_ends = DeadEnds::default();
    let mut options = ConnectOptions::default();
    options.timeout = globals.timeout;
    options.lan = !globals.no_lan;
    options.relay_through = relay;
    options.watcher = dead_ends.watcher();
    let started = Instant::now();
    let dialled = peers.connect(key, options).await;
    let connection = dialled.map_err(|error| unreached(error, &dead_ends))?;
    let seconds = started.elapsed().as_secs_f64();
    let (handle, route) = (connection.handle(), connection.route.to_string());
    let address = connection.remote_address();
    let round_trip = handle.stats().rtt.map(|time| time.as_secs_f64());
    handle.destroy();
    Ok(DhtPong {
        remote_key: encode_z32(key.as_bytes()),
        address: address.map(|address| address.to_string()),
        via: route,
        seconds,
        round_trip,
    })
}

impl DeadEnds {
    fn watcher(&self) -> Watcher {
        let dead_ends = self.0.clone();
        Watcher::new(move |event| {
            if let DialEvent::Failed { route, reason } = event {
                let mut dead_ends = dead_ends.lock().unwrap_or_else(PoisonError::into_inner);
                dead_ends.push(format!("{route}: {reason}"));
            }
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn unreached(error: ConnectError, dead_ends: &DeadEnds) -> Failure {
    let (kind, hint) = match &error {
        ConnectError::NotFound => (
            Kind::NoPeer,
            "see that it runs, on the same network, and that this is the key of a peer, not of a drive or log",
        ),
        ConnectError::CannotPunch | ConnectError::Punch(_) => {
            (Kind::NoPeer, "name a blind relay with --relay KEY")
        }
        ConnectError::Timeout => (Kind::Timeout, "raise --timeout"),
        ConnectError::Io(_) | ConnectError::TooMany | ConnectError::Suspended => {
            return Failure::new(Kind::Other, error);
        }
        _ => (
            Kind::NoPeer,
            "try again: it may have just left, or refuse us",
        ),
    };
    let tried = dead_ends.take().join("; ");
    let message = match tried.as_str() {
        "" => error.to_string(),
        tried => format!("{error} (tried {tried})"),
    };
    Failure::new(kind, message).hint(hint)
}
