//! A chat with whoever is in the same room, anywhere. Nothing is kept, and nobody is asked who they are.
//!
//! Usage: cargo run --example chat -- ROOM [BOOTSTRAP]
//!   BOOTSTRAP  a node of another network than the public one, such as that of the example `private_dht`

use ferrocore::primitives::sign::KeyPair;
use ferrocore::swarm::{Connection, JoinOptions, Online, Swarm, Topic, dht::Dht};
use tokio::sync::broadcast;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let room = std::env::args().nth(1).ok_or("usage: chat ROOM")?;
    let mut node = Dht::builder();
    if let Some(bootstrap) = std::env::args().nth(2) {
        node = node.bootstrap([bootstrap.parse()?]);
    }
    let keys = KeyPair::generate();
    let online = Online::new(node.bind()?, keys.clone(), None);
    let swarm = Swarm::builder().key_pair(keys);
    let (swarm, mut peers) = swarm.transport(online.clone()).discovery(online).open();
    let _session = swarm.join(Topic::from_name(&room), JoinOptions::default());
    let typed = broadcast::Sender::new(16);
    let lines = typed.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            lines.send(line).ok();
        }
    });
    while let Some(peer) = peers.next().await {
        tokio::spawn(talk(peer, typed.subscribe()));
    }
    Ok(())
}

/// Sends what is typed, prints what comes, until the peer goes.
async fn talk(peer: Connection, mut typed: broadcast::Receiver<String>) {
    let (mut sender, mut receiver) = peer.stream.split();
    tokio::spawn(async move {
        while let Ok(line) = typed.recv().await {
            if sender.send(&[line]).await.is_err() || sender.flush().await.is_err() {
                return;
            }
        }
    });
    while let Ok(Some(line)) = receiver.recv().await {
        println!("{}: {}", peer.info.remote_key, line.escape_ascii());
    }
}
