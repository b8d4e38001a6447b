//! A peer on the command line: for trying networks, such as those that `scripts/nat-test` makes.
//!
//! Usage: cargo run -p ferrocore-swarm --example peer -- COMMAND
//!   nodes HOST PORT COUNT      runs COUNT nodes of a DHT of their own, the first at HOST:PORT
//!   listen BOOTSTRAP [RELAY]   listens under a fresh key and sends back what comes
//!   connect BOOTSTRAP KEY [RELAY]   connects, sends a megabyte and compares what comes back; over a relay once more
//!                              when the stream has left it
//!   listen BOOTSTRAP pour|drain, connect BOOTSTRAP KEY pour|drain
//!                              who pours sends 32 MB, says when half of it was taken, and ends; who drains counts what came
//!   relay BOOTSTRAP            a blind relay
//!
//! Each line on stdout is a word and its values; steps of a dial go to stderr.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_secret_stream::{Receiver, Sender};
use ferrocore_swarm::connect::{
    BlindRelay, ConnectOptions, Connection, DialEvent, ListenOptions, Peers, Route, Server, Watcher,
};
use ferrocore_swarm::dht::{BootstrapNode, Dht};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const MESSAGES: usize = 16;
const MESSAGE_LEN: usize = 64 * 1024;

/// Messages of who pours.
const POURED: usize = 512;

/// A punch of random ports takes 35 seconds at most.
const MOVE_TIMEOUT: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["nodes", host, port, count] => nodes(host.parse()?, port.parse()?, count.parse()?).await,
        ["listen", bootstrap] => listen(bootstrap, None).await,
        ["listen", bootstrap, way @ ("pour" | "drain")] => {
            let peers = peers(bootstrap).await?;
            let mut server = listening(&peers, None).await?;
            let connection = server.accept().await.ok_or("the node was closed")?;
            one_way(connection, way).await
        }
        ["connect", bootstrap, peer, way @ ("pour" | "drain")] => {
            let peers = peers(bootstrap).await?;
            let dialling = peers.connect(key(peer)?, ConnectOptions::default());
            one_way(dialling.await?, way).await
        }
        ["listen", bootstrap, relay] => listen(bootstrap, Some(key(relay)?)).await,
        ["connect", bootstrap, peer] => connect(bootstrap, key(peer)?, None).await,
        ["connect", bootstrap, peer, relay] => {
            connect(bootstrap, key(peer)?, Some(key(relay)?)).await
        }
        ["relay", bootstrap] => relay(bootstrap).await,
        _ => Err("see the head of the file for what there is".into()),
    }
}

async fn nodes(host: Ipv4Addr, port: u16, count: usize) -> Result<()> {
    let first = Dht::builder().host(host).port(port).bootstrapper(host);
    let first = first.any_port(false).bind()?;
    first.bootstrapped().await?;
    let bootstrap = BootstrapNode::from(first.local_address().ok_or("no address")?);
    let mut nodes = vec![first];
    for _ in 1..count {
        let node = Dht::builder().host(host).port(0);
        let node = node.bootstrap([bootstrap.clone()]).ephemeral(false);
        let node = node.firewalled(false).bind()?;
        node.until(|status| status.id.is_some()).await?;
        nodes.push(node);
    }
    println!("ready {count}");
    std::future::pending().await
}

async fn peers(bootstrap: &str) -> Result<Peers> {
    let dht = Dht::builder()
        .bootstrap([bootstrap.parse()?])
        .ephemeral(true);
    let dht = dht.bind()?;
    dht.bootstrapped().await?;
    Ok(Peers::new(dht, KeyPair::generate()))
}

async fn listening(peers: &Peers, relay: Option<PublicKey>) -> Result<Server> {
    let options = ListenOptions::default().relay_through(move || relay);
    let mut server = peers.listen(KeyPair::generate(), options)?;
    if !server.announced().await {
        return Err("the node was closed".into());
    }
    println!("key {}", server.public_key());
    Ok(server)
}

async fn listen(bootstrap: &str, relay: Option<PublicKey>) -> Result<()> {
    let peers = peers(bootstrap).await?;
    let mut server = listening(&peers, relay).await?;
    while let Some(connection) = server.accept().await {
        println!("connection {}", connection.route);
        tokio::spawn(echo(connection));
    }
    Ok(())
}

async fn echo(connection: Connection) -> Result<()> {
    let (mut sender, mut receiver) = connection.stream.split();
    while let Some(message) = receiver.recv().await? {
        sender.send(&[message]).await?;
        sender.flush().await?;
    }
    sender.close().await?;
    Ok(())
}

async fn connect(bootstrap: &str, peer: PublicKey, relay: Option<PublicKey>) -> Result<()> {
    let peers = peers(bootstrap).await?;
    let started = Instant::now();
    let (tell, mut events) = mpsc::unbounded_channel();
    let mut options = ConnectOptions::default();
    options.relay_through = relay;
    options.watcher = Watcher::new(move |event| {
        eprintln!("{:>6} ms {event:?}", started.elapsed().as_millis());
        let _ = tell.send(event);
    });
    let connection = peers.connect(peer, options).await?;
    let route = connection.route;
    println!("connected {route} {}", started.elapsed().as_millis());
    let handle = connection.handle();
    let (mut sender, mut receiver) = connection.stream.split();
    echoed(&mut sender, &mut receiver).await?;
    if route == Route::Relayed && has_moved(&mut events).await {
        echoed(&mut sender, &mut receiver).await?;
        let address = handle.remote().map(|(address, _)| address);
        println!("moved {address:?} {}", started.elapsed().as_millis());
    }
    sender.close().await?;
    Ok(())
}

/// Waits until a relayed stream has left its relay; false if nothing but the relay leads to the peer.
async fn has_moved(events: &mut mpsc::UnboundedReceiver<DialEvent>) -> bool {
    let moving = async {
        while let Some(event) = events.recv().await {
            match event {
                DialEvent::Connected { route, .. } if route != Route::Relayed => return true,
                DialEvent::Failed {
                    route: Route::Punched,
                    ..
                } => return false,
                _ => {}
            }
        }
        false
    };
    timeout(MOVE_TIMEOUT, moving).await.unwrap_or(false)
}

async fn echoed<W, R>(sender: &mut Sender<W>, receiver: &mut Receiver<R>) -> Result<()>
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    for number in 0..MESSAGES {
        let message = vec![number as u8; MESSAGE_LEN];
        sender.send(&[&message]).await?;
        sender.flush().await?;
        let mut back = Vec::new();
        while back.len() < message.len() {
            let part = receiver.recv().await?.ok_or("the peer has ended")?;
            back.extend_from_slice(&part);
        }
        if back != message {
            return Err("another message came back".into());
        }
    }
    println!("echoed {}", MESSAGES * MESSAGE_LEN);
    Ok(())
}

/// Bytes go one way, and the other end ends its side once all are there.
async fn one_way(connection: Connection, way: &str) -> Result<()> {
    println!("connected {}", connection.route);
    let (mut sender, mut receiver) = connection.stream.split();
    if way == "pour" {
        for number in 0..POURED {
            if number == POURED / 2 {
                println!("half");
            }
            sender.send(&[vec![number as u8; MESSAGE_LEN]]).await?;
            sender.flush().await?;
        }
        sender.close().await?;
        while receiver.recv().await?.is_some() {}
        println!("poured {}", POURED * MESSAGE_LEN);
    } else {
        let mut count = 0;
        while let Some(message) = receiver.recv().await? {
            if message != vec![count as u8; MESSAGE_LEN] {
                return Err("another message came".into());
            }
            count += 1;
        }
        println!("drained {}", count * MESSAGE_LEN);
        sender.close().await?;
    }
    Ok(())
}

async fn relay(bootstrap: &str) -> Result<()> {
    let peers = peers(bootstrap).await?;
    let mut server = listening(&peers, None).await?;
    let relay = BlindRelay::new(&peers);
    while let Some(connection) = server.accept().await {
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve(connection).await });
    }
    Ok(())
}

fn key(text: &str) -> Result<PublicKey> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !text.is_ascii() {
        return Err("a key has 64 hexadecimal digits".into());
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
    }
    Ok(key.into())
}
