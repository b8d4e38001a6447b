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
//! | `fetch DIRECTORY PORT KEY BLOCKS SECONDS` | dials and downloads the core until it has BLOCKS blocks or the time is over, printing `{"block":"…"}` for each as soon as all before it are there; then prints as `read` does |
//! | `serve DIRECTORY PORT` | opens or makes the core and prints `{"key":"…"}`; dials at the line `dial` on stdin; for each line `COUNT SIZE` it appends so many blocks one by one, and prints `{"length":…}` |
//! | `serve-all PORT CORES BLOCKS` | makes cores in memory, prints `{"keys":["…"]}`, dials at the line `dial` on stdin, and serves them on one stream until it ends |
//! | `fetch-all PORT BLOCKS SECONDS KEY…` | dials and downloads BLOCKS blocks of all these cores on one stream, then prints `{"cores":[…]}` |
//! | `chat PORT KEY TEXT` | opens the core's channel without a core, sends an extension message, prints `{"name":"…","message":"…"}` for each that comes until stdin ends |
//!
//! Output is JSON: `{"key":"…","length":1,"byteLength":5,"writable":true,"blocks":["68656c6c6f"]}`;
//! blocks are hexadecimal, or null; long ones that repeat a byte are `10485760*05`. A DIRECTORY of `-` is memory.

mod wire;

use std::path::{Path, PathBuf};

use hypercore::{Hypercore, HypercoreBuilder, HypercoreError, PartialKeypair, Storage};

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
        ["fetch", directory, port, key, blocks, seconds] => {
            let core = open_or_make(directory, Some(wire::reader(key))).await?;
            wire::fetch(&core, port, number(blocks), number(seconds)).await?;
            core
        }
        ["serve", directory, port] => {
            return wire::serve(open_or_make(directory, None).await?, port).await;
        }
        ["serve-all", port, cores, blocks] => {
            return wire::serve_all(port, number(cores), number(blocks)).await;
        }
        ["fetch-all", port, blocks, seconds, ref keys @ ..] => {
            return wire::fetch_all(port, number(blocks), number(seconds), keys).await;
        }
        ["chat", port, key, text] => return wire::chat(port, key, text).await,
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

/// The core in a directory, or a new one there; as a reader, or with a key pair of its own.
async fn open_or_make(
    directory: &str,
    reader: Option<PartialKeypair>,
) -> Result<Hypercore, HypercoreError> {
    if directory != "-" && Path::new(directory).join("oplog").exists() {
        return open(directory).await;
    }
    let storage = match directory {
        "-" => Storage::new_memory().await?,
        directory => Storage::new_disk(&PathBuf::from(directory), false).await?,
    };
    let builder = HypercoreBuilder::new(storage);
    match reader {
        Some(key_pair) => builder.key_pair(key_pair).build().await,
        None => builder.build().await,
    }
}

async fn print(core: &Hypercore) -> Result<(), HypercoreError> {
    println!("{}", describe(core).await?);
    Ok(())
}

async fn describe(core: &Hypercore) -> Result<String, HypercoreError> {
    let info = core.info();
    let mut blocks = Vec::new();
    for index in 0..info.length {
        let block = match core.has(index) {
            true => core.get(index).await?, // which waits for a peer, if there is one
            false => None,
        };
        blocks.push(block.map_or("null".to_owned(), |block| format!("\"{}\"", text(&block))));
    }
    Ok(format!(
        "{{\"key\":\"{}\",\"length\":{},\"byteLength\":{},\"writable\":{},\"blocks\":[{}]}}",
        hex(core.key_pair().public.as_bytes()),
        info.length,
        info.byte_length,
        info.writeable,
        blocks.join(",")
    ))
}

fn unhex(text: &str) -> [u8; 32] {
    let digit = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex");
    std::array::from_fn(digit)
}

fn text(block: &[u8]) -> String {
    match block {
        [first, ..] if block.len() > 64 && block.iter().all(|byte| byte == first) => {
            format!("{}*{first:02x}", block.len())
        }
        block => hex(block),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
