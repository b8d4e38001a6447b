//! Shares one file until Ctrl-C.
//!
//! Usage: cargo run --example share_file -- FILE
//!
//! It prints what to give `fetch_file`.

use ferrocore::Node;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(file) = std::env::args().nth(1) else {
        return Err("usage: share_file FILE".into());
    };
    let node = Node::builder().listen("127.0.0.1:0").open().await?;
    let drive = node.create_drive("example").await?;
    drive.put("/file", std::fs::read(file)?).await?;

    let address = node.listen_addr().expect("it listens");
    println!("{} {address}", drive.key());
    std::future::pending().await
}
