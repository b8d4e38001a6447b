//! A DHT of one's own: no packet goes to anybody else. Two nodes find each other in it by the key of a core.
//!
//! Usage: cargo run --example private_dht [PORT]
//!   PORT  stay, as the first nodes of a network that others join, by `--bootstrap 127.0.0.1:PORT` or as below

use std::net::Ipv4Addr;

use ferrocore::swarm::dht::{BootstrapNode, Dht};
use ferrocore::{DhtOptions, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Ipv4Addr::LOCALHOST; // on a real network, the address others reach this machine at
    let port = std::env::args().nth(1);
    let first = Dht::builder().host(host).bootstrapper(host);
    let first = first.port(port.as_deref().unwrap_or("0").parse()?).bind()?;
    first.bootstrapped().await?;
    let bootstrap = BootstrapNode::from(first.local_address().ok_or("it has an address")?);
    // One node is enough; with more the network outlives any of them.
    let second = Dht::builder().host(host).port(0).firewalled(false);
    let second = second.bootstrap([bootstrap.clone()]).ephemeral(false);
    let second = second.bind()?;
    second.until(|status| status.id.is_some()).await?;
    if port.is_some() {
        println!(
            "--bootstrap {host}:{}",
            first.local_address().map_or(0, |at| at.port())
        );
        return std::future::pending().await;
    }

    let mut options = DhtOptions::default();
    (options.bootstrap, options.host, options.port) = (vec![bootstrap], Some(host), Some(0));
    let alice = Node::builder().dht(options.clone()).open().await?;
    let notes = alice.create_core("notes")?;
    notes.append("found by its key alone")?;
    let bob = Node::builder().dht(options).open().await?;
    let copy = bob.core(&notes.key())?;
    println!("{}", String::from_utf8_lossy(&copy.get(0).await?));
    bob.close().await;
    alice.close().await;
    Ok(())
}
