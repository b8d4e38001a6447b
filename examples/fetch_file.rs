//! Fetches what `share_file` shares, verified, and writes it to stdout.
//!
//! Usage: cargo run --example fetch_file -- KEY ADDRESS > FILE

use std::io::Write as _;

use ferrocore::{Key, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(key), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fetch_file KEY ADDRESS".into());
    };
    let node = Node::builder().peer(address).open().await?;
    let drive = node.drive(&key.parse::<Key>()?).await?;
    drive.update().await?;

    let mut reader = drive.reader("/file", ..).await?;
    while let Some(bytes) = reader.next().await? {
        std::io::stdout().write_all(&bytes)?;
    }
    node.close().await;
    Ok(())
}
