//! `relay`: a blind relay, through which peers meet that cannot reach each other.
//! Knows who is let in, which is everybody. Does not know what the peers send.

use ferrocore::primitives::id::encode_z32;
use ferrocore::primitives::sign::KeyPair;
use ferrocore_swarm::connect::{BlindRelay, ListenOptions, Peers, Server};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dht::{FAREWELL, announced, builder, nobody, ready, secret, settled, start};
use crate::args::{Globals, Relay};
use crate::events::{RelayReady, Relayed};
use crate::exit::{Failure, Kind, Result};
use crate::output::Output;
use crate::stop::Stop;

/// Relays until the end is asked for.
pub(crate) async fn relay(
    globals: &Globals,
    args: Relay,
    output: &Output,
    stop: &Stop,
) -> Result<()> {
    let keys = match args.secret.as_deref() {
        Some(path) => secret(path)?,
        None => KeyPair::generate(),
    };
    let node = start(globals, builder(globals))?;
    stop.or_interrupted(settled(globals, &node)).await?;
    if node.status().nodes == 0 {
        return Err(nobody());
    }
    let peers = Peers::new(node.clone(), keys.clone());
    let mut server = peers
        .listen(keys, ListenOptions::default())
        .map_err(|error| Failure::new(Kind::Other, error))?;
    stop.or_interrupted(announced(globals, &mut server)).await?;
    let ready = RelayReady {
        public_key: encode_z32(server.public_key().as_bytes()),
        node: ready(&node, None),
    };
    output.report(&ready).await?;
    let relay = BlindRelay::new(&peers);
    tokio::select! {
        () = serve(&relay, server) => {}
        () = stop.asked() => {}
    }
    let joined = relay.stats().matched;
    // Whoever does not answer forgets us by itself.
    timeout(FAREWELL, peers.suspend()).await.ok();
    node.close().await;
    output.report(&Relayed { joined }).await
}

/// Serves all who come, until the node is closed.
async fn serve(relay: &BlindRelay, mut server: Server) {
    let mut sessions = JoinSet::new();
    while let Some(connection) = server.accept().await {
        while sessions.try_join_next().is_some() {}
        let relay = relay.clone();
        sessions.spawn(async move { relay.serve(connection).await });
    }
}
