//! The crate's replicator, and the crate `hypercore-protocol` below it, against whoever listens.
//! Knows streams and channels. Does not know directories.

use std::time::Duration;

use futures::StreamExt as _;
use hypercore::{
    Hypercore, HypercoreBuilder, HypercoreError, PartialKeypair, Storage, VerifyingKey,
};
use hypercore_handshake::Cipher;
use hypercore_handshake::state_machine::SecStream;
use hypercore_protocol::schema::{Extension, Synchronize};
use hypercore_protocol::{Event, Key, Message, Protocol, discovery_key};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::compat::TokioAsyncReadCompatExt;
use uint24le_framing::Uint24LELengthPrefixedFraming;

use crate::{describe, hex, number, text, unhex};

/// The key pair of who has only the key.
pub(crate) fn reader(key: &str) -> PartialKeypair {
    let public = VerifyingKey::from_bytes(&unhex(key)).expect("a key");
    PartialKeypair {
        public,
        secret: None,
    }
}

/// Whatever the crate asks for by itself.
pub(crate) async fn fetch(
    core: &Hypercore,
    port: &str,
    blocks: u64,
    seconds: u64,
) -> Result<(), HypercoreError> {
    let replicating = replicate(core, port).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut told = 0;
    while told < blocks && Instant::now() < end && !replicating.is_finished() {
        while told < blocks && core.has(told) {
            // On a disk it says to have what it cannot read yet: «could not load node, store tree, blank».
            let Ok(Some(block)) = core.get(told).await else {
                break;
            };
            println!("{{\"block\":\"{}\"}}", text(&block));
            told += 1;
        }
        sleep(Duration::from_millis(5)).await; // the crate tells nobody
    }
    replicating.abort();
    Ok(())
}

/// Appends what stdin says: all bytes of block `i` are `i`. Dials when it says so: who does not know the core yet would
/// reject the channel, which ends the crate's stream («received invalid special message»).
pub(crate) async fn serve(core: Hypercore, port: &str) -> Result<(), HypercoreError> {
    println!("{{\"key\":\"{}\"}}", hex(core.key_pair().public.as_bytes()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut replicating = None;
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "dial" {
            replicating = Some(replicate(&core, port).await);
            continue;
        }
        let (count, size) = line.split_once(' ').expect("COUNT SIZE");
        for _ in 0..number(count) {
            let index = core.info().length;
            core.append(&vec![index as u8; number(size) as usize])
                .await?;
        }
        println!("{{\"length\":{}}}", core.info().length);
    }
    drop(replicating);
    Ok(())
}

pub(crate) async fn serve_all(port: &str, cores: u64, blocks: u64) -> Result<(), HypercoreError> {
    let mut made = Vec::new();
    for number in 0..cores {
        let core = HypercoreBuilder::new(Storage::new_memory().await?)
            .build()
            .await?;
        let texts = (0..blocks).map(|index| format!("core {number}, block {index}"));
        core.append_batch(texts.collect::<Vec<_>>()).await?;
        made.push(core);
    }
    let keys = made
        .iter()
        .map(|core| hex(core.key_pair().public.as_bytes()));
    println!(
        "{{\"keys\":[\"{}\"]}}",
        keys.collect::<Vec<_>>().join("\",\"")
    );
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut replicating = None;
    while let Ok(Some(_dial)) = lines.next_line().await {
        replicating = Some(replicate_all(made.clone(), port).await);
    }
    drop(replicating);
    Ok(())
}

pub(crate) async fn fetch_all(
    port: &str,
    blocks: u64,
    seconds: u64,
    keys: &[&str],
) -> Result<(), HypercoreError> {
    let mut cores = Vec::new();
    for key in keys {
        let builder = HypercoreBuilder::new(Storage::new_memory().await?);
        cores.push(builder.key_pair(reader(key)).build().await?);
    }
    let replicating = replicate_all(cores.clone(), port).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    let is_whole = |core: &Hypercore| core.info().contiguous_length >= blocks;
    while !cores.iter().all(is_whole) && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    replicating.abort();
    let mut described = Vec::new();
    for core in &cores {
        described.push(describe(core).await?);
    }
    println!("{{\"cores\":[{}]}}", described.join(","));
    Ok(())
}

/// Several cores on one stream.
///
/// Not by the crate's own `replicate`, which is polled only when it is woken: `uint24le_framing` 0.2.0 forgets to have itself
/// woken when a part of a frame has come (`poll_next` in `src/framing.rs`), so it is polled all the time here.
///
/// # Errors
/// What ended the stream, if it was not its end.
async fn together(stream: Cipher, cores: Vec<Hypercore>) -> std::io::Result<()> {
    let keys = cores.iter().map(|core| core.key_pair().public.to_bytes());
    let keys: Vec<Key> = keys.collect();
    let mut protocol = Protocol::new(Box::new(stream));
    while let Some(event) = urged(protocol.next()).await {
        match event {
            Ok(Event::Handshake(_)) => {
                for key in &keys {
                    tokio::spawn(protocol.open(*key));
                }
            }
            Ok(Event::Channel(channel)) => {
                let mut of_key = cores.iter().zip(&keys);
                let core =
                    of_key.find(|(_, key)| discovery_key(&key[..]) == *channel.discovery_key());
                let (core, _) = core.expect("it was opened");
                tokio::spawn(urged(core.attach_channel(channel)));
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) async fn chat(port: &str, key: &str, said: &str) -> Result<(), HypercoreError> {
    let mut protocol = Protocol::new(Box::new(dial(port).await));
    let (key, said) = (unhex(key), said.as_bytes().to_vec());
    let mut ended = Vec::new();
    let mut stdin = tokio::io::stdin();
    let over = stdin.read_to_end(&mut ended);
    tokio::pin!(over);
    loop {
        let event = tokio::select! {
            event = urged(protocol.next()) => event,
            _ = &mut over => return Ok(()),
        };
        match event {
            Some(Ok(Event::Handshake(_))) => drop(tokio::spawn(protocol.open(key))),
            Some(Ok(Event::Channel(mut channel))) => {
                let said = said.clone();
                tokio::spawn(async move {
                    let sync = Message::Synchronize(Synchronize {
                        fork: 0,
                        length: 0,
                        remote_length: 0,
                        can_upgrade: true,
                        uploading: true,
                        downloading: true,
                    });
                    let (name, message) = ("chat".to_owned(), said);
                    let said = Message::Extension(Extension { name, message });
                    channel.send_batch(&[sync, said]).await.expect("it is open");
                    while let Some(message) = channel.next().await {
                        if let Message::Extension(Extension { name, message }) = message {
                            println!("{{\"name\":\"{name}\",\"message\":\"{}\"}}", hex(&message));
                        }
                    }
                });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("the stream ended: {error}"),
            None => return Ok(()),
        }
    }
}

/// Replicates `core` with whoever listens.
async fn replicate(core: &Hypercore, port: &str) -> tokio::task::JoinHandle<()> {
    replicate_all(vec![core.clone()], port).await
}

/// Replicates these cores with whoever listens. Now and then, on a busy machine, the crate ends a stream by itself, with an error:
/// then it dials again, as whoever is in a swarm does.
async fn replicate_all(cores: Vec<Hypercore>, port: &str) -> tokio::task::JoinHandle<()> {
    let (first, port) = (dial(port).await, port.to_owned());
    tokio::spawn(async move {
        let mut stream = first;
        for _ in 0..DIALS {
            match together(stream, cores.clone()).await {
                Ok(()) => return,
                Err(error) => eprintln!("the stream ended: {error}"),
            }
            stream = dial(&port).await;
        }
    })
}

/// How often it dials before it gives up.
const DIALS: usize = 5;

/// Polls `future` every few milliseconds, whether it is woken or not.
async fn urged<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    loop {
        tokio::select! {
            output = &mut future => return output,
            _ = ticks.tick() => {}
        }
    }
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
