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
//!
//! Output is JSON: `{"key":"…","length":1,"byteLength":5,"writable":true,"blocks":["68656c6c6f"]}`;
//! blocks are hexadecimal, or null.

use std::path::PathBuf;

use hypercore::{Hypercore, HypercoreBuilder, HypercoreError, Storage};

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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
