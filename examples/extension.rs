//! A custom extension: messages of an application on the connection that replicates a core.
//!
//! Usage: cargo run --example extension

use ferrocore::Node;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("127.0.0.1:0").open().await?;
    let log = alice.create_core("log")?;
    log.append("hello")?;
    let questions = log.extension("questions")?;

    let address = alice.listen_addr().ok_or("nobody listens")?;
    let bob = Node::builder().peer(address).open().await?;
    let copy = bob.core(&log.key())?;
    copy.get(0).await?; // connected, and proven to know the key
    let answers = copy.extension("questions")?;
    answers.broadcast("how long is the log?")?;

    let (peer, question) = questions.next().await;
    println!("bob asks: {}", String::from_utf8_lossy(&question));
    questions.send(peer, format!("{} block", log.length()))?;
    let (_, answer) = answers.next().await;
    println!("alice answers: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
