//! Streams a large range of blocks out of a log that is not here, in order, without fetching the rest.
//!
//! Usage: `cargo run --release --example stream_range`

use ferrocore::Node;

/// A film of 256 MiB, of which somebody watches 32 MiB from the middle.
const BLOCKS: u64 = 4096;
const BLOCK_BYTES: usize = 65_536;
const WATCHED: std::ops::Range<u64> = 2000..2512;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let studio = Node::builder().listen("127.0.0.1:0").open().await?;
    let film = studio.create_core("film")?;
    let mut reel = film.sink();
    for index in 0..BLOCKS {
        reel.push(vec![index as u8; BLOCK_BYTES])?;
    }
    reel.flush()?;

    let address = studio.listen_addr().expect("it listens");
    let viewer = Node::builder().peer(address).open().await?;
    let copy = viewer.core(&film.key())?;
    let started = std::time::Instant::now();
    let mut frames = copy.read_stream(WATCHED);
    let mut bytes = 0;
    while let Some(frame) = frames.next().await? {
        bytes += frame.len();
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("watched {bytes} bytes in {seconds:.2} s");
    println!("{} of {BLOCKS} blocks are here", copy.count(0..BLOCKS));
    assert_eq!(copy.count(WATCHED), WATCHED.end - WATCHED.start);
    assert!(copy.count(0..BLOCKS) < 1024, "the rest was not fetched");
    Ok(())
}
