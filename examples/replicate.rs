//! Replicates a log over TCP.
//!
//! Usage: `cargo run --example replicate`

use ferrocore::Node;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("127.0.0.1:0").open().await?;
    let notes = alice.create_core("notes")?;
    notes.append("hello")?;

    let address = alice.listen_addr().expect("it listens");
    let bob = Node::builder().peer(address).open().await?;
    let copy = bob.core(&notes.key())?;
    println!("{}", String::from_utf8_lossy(&copy.get(0).await?));
    Ok(())
}
