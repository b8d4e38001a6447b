//! A chat with whoever is in the same room, anywhere. Nothing is kept, and nobody is asked who they are.
//!
//! Usage: cargo run --example chat -- ROOM [BOOTSTRAP]
//!   BOOTSTRAP  a node of another network than the public one, such as that of the example `private_dht`

use ferrocore::swarm::{JoinOptions, Swarm, Topic, dht::Dht};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let room = std::env::args().nth(1).ok_or("usage: chat ROOM")?;
    let node = match std::env::args().nth(2) {
        Some(node) => Dht::builder().bootstrap([node.parse()?]),
        None => Dht::builder(),
    };
    let (swarm, peers) = Swarm::builder().dht(node.bind()?).open();
    let _joined = swarm.join(Topic::from_name(&room), JoinOptions::default());
    let (everybody, mut said) = peers.gather();
    std::thread::spawn(move || {
        let typed = std::io::stdin().lines().map_while(Result::ok);
        typed.for_each(|line| _ = everybody.send(line));
    });
    while let Some((who, what)) = said.next().await {
        println!("{who}: {}", what.escape_ascii());
    }
    Ok(())
}
