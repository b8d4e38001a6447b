//! A file on a drive that is found on the local network alone, by its key.
//!
//! Usage: cargo run --example lan_drive -- share FILE, and on another machine what that prints

use ferrocore::Node;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let node = Node::builder().lan().open().await?;
    match arguments.as_slice() {
        [verb, file] if verb == "share" => {
            let drive = node.create_drive("example").await?;
            drive.put("/file", std::fs::read(file)?).await?;
            println!(
                "cargo run --example lan_drive -- fetch {} FILE",
                drive.key()
            );
            std::future::pending().await
        }
        [verb, key, file] if verb == "fetch" => {
            let drive = node.drive(&key.parse()?).await?;
            drive.update().await?;
            std::fs::write(file, drive.read("/file", ..).await?)?;
            node.close().await;
            Ok(())
        }
        _ => Err("usage: lan_drive share FILE | lan_drive fetch KEY FILE".into()),
    }
}
