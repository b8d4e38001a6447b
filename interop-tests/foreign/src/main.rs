//! The crate `hypercore` as a second reader and writer of the files of a compat core.
//!
//! Usage, with DIRECTORY the one that holds `oplog`:
//!
//! | command | what it does |
//! |---|---|
//! | `read DIRECTORY` | prints the length and every block |
//! | `write DIRECTORY BATCHES SIZE` | makes a core and appends batches of SIZE blocks, then prints as `read` does |
//! | `append DIRECTORY TEXT` | appends a block, then prints as `read` does |
//! | `clear DIRECTORY START END` | clears blocks, then prints as `read` does |
//! | `fetch PORT KEY BLOCKS SECONDS` | dials and downloads the core into memory until it has BLOCKS blocks or the time is over, then prints as `read` does |
//! | `serve PORT BLOCKS` | makes a core in memory, dials, prints `{"key":"…"}` and serves it until stdin ends |
//!
//! Output is JSON: `{"key":"…","length":1,"byteLength":5,"writable":true,"blocks":["68656c6c6f"]}`;
//! blocks are hexadecimal, or null.

use std::path::PathBuf;
use std::time::Duration;

use hypercore::{
    Hypercore, HypercoreBuilder, HypercoreError, PartialKeypair, Storage, VerifyingKey,
};
use hypercore_handshake::Cipher;
use hypercore_handshake::state_machine::SecStream;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::compat::TokioAsyncReadCompatExt;
use uint24le_framing::Uint24LELengthPrefixedFraming;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), HypercoreError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let core = match arguments[..] {
        ["read", directory] => open(directory).await?,
        ["write", directory, batches, size] => {
            write(directory, number(batches), number(size)).await?
        }
        ["append", directory, text] => {
            let core = open(directory).await?;
            core.append(text.as_bytes()).await?;
            core
        }
        ["clear", directory, start, end] => {
            let mut core = open(directory).await?;
            core.clear(number(start), number(end)).await?;
            core
        }
        ["fetch", port, key, blocks, seconds] => {
            fetch(port, key, number(blocks), number(seconds)).await?
        }
        ["serve", port, blocks] => return serve(port, number(blocks)).await,
        _ => panic!("usage: see the source"),
    };
    print(&core).await
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

async fn open(directory: &str) -> Result<Hypercore, HypercoreError> {
    let storage = Storage::new_disk(&PathBuf::from(directory), false).await?;
    HypercoreBuilder::new(storage).open(true).build().await
}

/// Block `i` holds the text `block i`.
async fn write(directory: &str, batches: u64, size: u64) -> Result<Hypercore, HypercoreError> {
    let storage = Storage::new_disk(&PathBuf::from(directory), true).await?;
    let core = HypercoreBuilder::new(storage).build().await?;
    for batch in 0..batches {
        let blocks: Vec<String> = (0..size)
            .map(|index| format!("block {}", batch * size + index))
            .collect();
        core.append_batch(blocks).await?;
    }
    Ok(core)
}

async fn serve(port: &str, blocks: u64) -> Result<(), HypercoreError> {
    let core = HypercoreBuilder::new(Storage::new_memory().await?)
        .build()
        .await?;
    let blocks: Vec<String> = (0..blocks).map(|index| format!("block {index}")).collect();
    core.append_batch(blocks).await?;
    println!("{{\"key\":\"{}\"}}", hex(core.key_pair().public.as_bytes()));
    let replicating = tokio::spawn(core.replicate(dial(port).await));
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    replicating.abort();
    Ok(())
}

/// Whatever the crate asks for by itself: nobody calls `get` before it is over.
async fn fetch(
    port: &str,
    key: &str,
    blocks: u64,
    seconds: u64,
) -> Result<Hypercore, HypercoreError> {
    let public = VerifyingKey::from_bytes(&unhex(key)).expect("a key");
    let secret = None;
    let core = HypercoreBuilder::new(Storage::new_memory().await?)
        .key_pair(PartialKeypair { public, secret })
        .build()
        .await?;
    let replicating = tokio::spawn(core.replicate(dial(port).await));
    let end = Instant::now() + Duration::from_secs(seconds);
    while core.info().contiguous_length < blocks && Instant::now() < end {
        sleep(Duration::from_millis(10)).await; // the crate tells nobody
    }
    replicating.abort();
    Ok(core)
}

/// The encrypted stream to whoever listens on `port`, as its initiator.
async fn dial(port: &str) -> Cipher {
    let stream = TcpStream::connect(format!("127.0.0.1:{port}"))
        .await
        .expect("somebody listens");
    let framed = Uint24LELengthPrefixedFraming::new(stream.compat());
    let handshake = SecStream::new_initiator_xx(&[]).expect("a fresh key");
    Cipher::new(Some(Box::new(framed)), handshake.into())
}

async fn print(core: &Hypercore) -> Result<(), HypercoreError> {
    let info = core.info();
    let mut blocks = Vec::new();
    for index in 0..info.length {
        blocks.push(match core.get(index).await? {
            Some(block) => format!("\"{}\"", hex(&block)),
            None => "null".to_owned(),
        });
    }
    println!(
        "{{\"key\":\"{}\",\"length\":{},\"byteLength\":{},\"writable\":{},\"blocks\":[{}]}}",
        hex(core.key_pair().public.as_bytes()),
        info.length,
        info.byte_length,
        info.writeable,
        blocks.join(",")
    );
    Ok(())
}

fn unhex(text: &str) -> [u8; 32] {
    let digit = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex");
    std::array::from_fn(digit)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
