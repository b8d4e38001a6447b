//! A chat with whoever on the local network is in the same room. Nothing is kept, and nobody is asked who they are.
//!
//! Usage: cargo run --example chat -- ROOM

use ferrocore::swarm::lan::{Include, Lan};
use ferrocore::swarm::{JoinOptions, Swarm, Topic};
use tokio::sync::broadcast;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let room = std::env::args().nth(1).ok_or("usage: chat ROOM")?;
    let (transport, lan) = Lan::open(Include::default())?;
    let swarm = Swarm::builder().transport(transport).discovery(lan);
    let (swarm, mut peers) = swarm.open();
    let _session = swarm.join(Topic::from_name(&room), JoinOptions::default());
    let typed = broadcast::Sender::new(16);
    let lines = typed.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            lines.send(line).ok();
        }
    });
    while let Some(peer) = peers.next().await {
        let (mut sender, mut receiver) = peer.stream.split();
        let mut lines = typed.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok(line) = lines.recv() => {
                        sender.send(&[line]).await?;
                        sender.flush().await?;
                    }
                    // Silence would end the connection.
                    failed = sender.keep_alive() => drop(failed?),
                    else => return Ok::<_, ferrocore::secret_stream::StreamError>(()),
                }
            }
        });
        tokio::spawn(async move {
            while let Ok(Some(line)) = receiver.recv().await {
                println!("{}: {}", peer.info.remote_key, line.escape_ascii());
            }
        });
    }
    Ok(())
}
