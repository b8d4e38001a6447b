//! Replicates a log over a WebSocket, as browsers and JavaScript peers do.
//!
//! Usage: `cargo run --features websocket --example websocket`

use ferrocore::Node;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("ws://127.0.0.1:0").open().await?;
    let notes = alice.create_core("notes")?;
    notes.append("hello over a WebSocket")?;

    let url = format!("ws://{}/", alice.listen_addr().expect("it listens"));
    let bob = Node::builder().peer(url).open().await?;
    let copy = bob.core(&notes.key())?;
    println!("{}", String::from_utf8_lossy(&copy.get(0).await?));
    Ok(())
}
