//! `dht`: nodes, topics and records of the DHT, without a store.

mod ping;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use ferrocore::primitives::hash::hash;
use ferrocore::primitives::id::{encode_z32, parse_key};
use ferrocore::primitives::sign::{KeyPair, PublicKey};
use ferrocore_dht::id::Id;
use ferrocore_swarm::connect::{ListenOptions, Peers, Server};
use ferrocore_swarm::dht::{Builder, Dht, DhtError, VALUE_LEN_MAX};
use tokio::task::JoinSet;

use crate::args::{DhtAnnounce, DhtBootstrap, DhtCommand, DhtGet, DhtLookup, DhtPut, Globals};
use crate::events::{DhtAnnouncer, DhtPeer, DhtReady, DhtStored, DhtValue};
use crate::exit::{Failure, Kind, Result};
use crate::input::Input;
use crate::output::Output;
use crate::stop::Stop;

pub(super) use ping::reach;

/// Nodes forget announcements after 13 to 27 minutes.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// When an announcement is tried again that nobody took.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(60);

/// How long nodes may take to forget us when we end.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// Callers of an announced key that are kept at once.
const CALLERS_MAX: usize = 64;

const SECRET_LEN: usize = 32;

/// Runs a command of the DHT.
pub(crate) async fn dht(
    globals: &Globals,
    command: DhtCommand,
    output: &Output,
    stop: &Stop,
    input: &mut Input,
) -> Result<()> {
    match command {
        DhtCommand::Bootstrap(bootstrap) => run_first(globals, bootstrap, output, stop).await,
        DhtCommand::Node => run_node(globals, output, stop).await,
        DhtCommand::Announce(announce) => keep_announced(globals, announce, output, stop).await,
        DhtCommand::Ping(args) => stop.or_interrupted(ping::ping(globals, args, output)).await,
        DhtCommand::Lookup(args) => stop.or_interrupted(lookup(globals, args, output)).await,
        DhtCommand::Put(args) => stop.or_interrupted(put(globals, args, output, input)).await,
        DhtCommand::Get(args) => stop.or_interrupted(get(globals, args, output)).await,
    }
}

async fn run_first(
    globals: &Globals,
    args: DhtBootstrap,
    output: &Output,
    stop: &Stop,
) -> Result<()> {
    let host = args
        .address
        .or(globals.host)
        .filter(|host| !host.is_unspecified());
    let Some(host) = host else {
        let failure = Failure::usage("others must know where to reach this node");
        return Err(
            failure.hint("name its address, with --host IP, or --address IP behind a router")
        );
    };
    let node = builder(globals).bootstrapper(host);
    let node = start(globals, node.bootstrap(globals.bootstrap.iter().cloned()))?;
    stop.or_interrupted(settled(globals, &node)).await?;
    output.report(&ready(&node, Some(host))).await?;
    stop.asked().await;
    node.close().await;
    Ok(())
}

async fn run_node(globals: &Globals, output: &Output, stop: &Stop) -> Result<()> {
    let node = start(globals, builder(globals).ephemeral(false))?;
    stop.or_interrupted(settled(globals, &node)).await?;
    if node.status().nodes == 0 {
        return Err(nobody());
    }
    output.report(&ready(&node, None)).await?;
    stop.asked().await;
    node.close().await;
    Ok(())
}

async fn lookup(globals: &Globals, args: DhtLookup, output: &Output) -> Result<()> {
    let node = client(globals).await?;
    let mut lookup = node.lookup(topic(&args.topic))?;
    let mut seen = BTreeSet::new();
    while let Some((response, found)) = in_time(globals, async { Ok(lookup.next().await) }).await? {
        for peer in found.peers {
            if seen.insert(*peer.public_key.as_bytes()) {
                let peer = DhtPeer {
                    public_key: encode_z32(peer.public_key.as_bytes()),
                    relays: peer.relay_addresses,
                    from: response.from,
                };
                output.list(&peer).await?;
            }
        }
    }
    let outcome = lookup.finish().await?;
    match (outcome.closest.is_empty(), seen.is_empty()) {
        (true, _) => Err(nobody()),
        (false, true) => Err(Failure::not_found(
            "nobody has announced themselves under that topic",
        )),
        (false, false) => Ok(()),
    }
}

async fn keep_announced(
    globals: &Globals,
    args: DhtAnnounce,
    output: &Output,
    stop: &Stop,
) -> Result<()> {
    let node = stop.or_interrupted(client(globals)).await?;
    let (topic, keys) = (topic(&args.topic), KeyPair::generate());
    let peers = Peers::new(node.clone(), keys.clone());
    let listening = peers.listen(keys.clone(), ListenOptions::default());
    let mut server = listening.map_err(|error| Failure::new(Kind::Other, error))?;
    stop.or_interrupted(announced(globals, &mut server)).await?;
    output.report(&ready(&node, None)).await?;
    let mut callers = JoinSet::new();
    let mut announcement = server.announcement();
    let mut is_announced = false;
    loop {
        let relays = announcement.relay_addresses();
        let announcing = in_time(globals, node.announce(topic, &keys, relays.clone()));
        let pause = match stop.or_interrupted(announcing).await {
            Ok(stored) => {
                is_announced = true;
                let announcer = DhtAnnouncer {
                    topic: topic.to_string(),
                    public_key: encode_z32(keys.public_key().as_bytes()),
                    relays,
                    nodes: stored.nodes.len(),
                };
                output.report(&announcer).await?;
                ANNOUNCE_INTERVAL
            }
            // The nodes that have it keep it for a while yet.
            Err(failure)
                if is_announced && matches!(failure.kind, Kind::NoPeer | Kind::Timeout) =>
            {
                output.say(&format!("not renewed: {failure}")).await;
                ANNOUNCE_RETRY
            }
            Err(failure) => return Err(failure),
        };
        tokio::select! {
            () = stop.asked() => break,
            () = tokio::time::sleep(pause) => {}
            () = announcement.changed() => {}
            () = be_there(&mut server, &mut callers) => {}
        }
    }
    in_time(globals, node.unannounce(topic, &keys)).await?;
    // Whoever does not answer forgets us by itself.
    tokio::time::timeout(FAREWELL, peers.suspend()).await.ok();
    node.close().await;
    Ok(())
}

/// Lets callers connect, who hear nothing: that we are there is all there is to know.
async fn be_there(server: &mut Server, callers: &mut JoinSet<()>) {
    while let Some(connection) = server.accept().await {
        while callers.try_join_next().is_some() {}
        if callers.len() < CALLERS_MAX {
            callers.spawn(async move {
                connection.handle().closed().await;
            });
        }
    }
}

/// Waits until callers can find a server.
pub(super) async fn announced(globals: &Globals, server: &mut Server) -> Result<()> {
    match tokio::time::timeout(globals.timeout, server.announced()).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(nobody()),
        Err(_) => Err(Failure::new(
            Kind::Timeout,
            "no node has taken our announcement in time",
        )),
    }
}

async fn put(globals: &Globals, args: DhtPut, output: &Output, input: &mut Input) -> Result<()> {
    let value = match args.value.as_str() {
        "-" => read_all(input).await?,
        value => value.as_bytes().to_vec(),
    };
    if value.is_empty() {
        return Err(Failure::usage("there is nothing to store"));
    }
    let keys = args.secret.as_deref().map(secret).transpose()?;
    let node = client(globals).await?;
    let stored = match &keys {
        Some(keys) => in_time(globals, node.mutable_put(keys, args.seq, value)).await?,
        None => in_time(globals, node.immutable_put(value)).await?,
    };
    let stored = DhtStored {
        hash: keys.is_none().then(|| stored.target.to_string()),
        key: keys
            .as_ref()
            .map(|keys| encode_z32(keys.public_key().as_bytes())),
        seq: keys.is_some().then_some(args.seq),
        nodes: stored.nodes.len(),
    };
    output.list(&stored).await
}

async fn get(globals: &Globals, args: DhtGet, output: &Output) -> Result<()> {
    let target = parse_key(&args.target)
        .map_err(|_| Failure::usage("a hash or key is 64 hexadecimal digits, or z-base-32"))?;
    let node = client(globals).await?;
    let (value, seq) = if args.key {
        let key = PublicKey::from(*target.as_bytes());
        let found = in_time(globals, node.mutable_get(&key, 0)).await?;
        found.map_or((None, None), |record| {
            (Some(record.value), Some(record.seq))
        })
    } else {
        let target = Id::from(*target.as_bytes());
        (in_time(globals, node.immutable_get(target)).await?, None)
    };
    let value = value.ok_or_else(|| Failure::not_found("no node has such a value"))?;
    let bytes = value.len();
    output.report(&DhtValue { bytes, seq }).await?;
    output.data(value.into()).await
}

pub(super) fn builder(globals: &Globals) -> Builder {
    let mut builder = Dht::builder();
    if let Some(host) = globals.host {
        builder = builder.host(host);
    }
    if let Some(port) = globals.port {
        builder = builder.port(port).any_port(false);
    }
    if !globals.bootstrap.is_empty() {
        builder = builder.bootstrap(globals.bootstrap.iter().cloned());
    }
    builder
}

pub(super) fn start(globals: &Globals, builder: Builder) -> Result<Dht> {
    if globals.no_dht || globals.lan_only {
        return Err(Failure::usage("without the DHT there is nothing to do"));
    }
    builder.bind().map_err(|error| {
        let failure = Failure::usage(format!("cannot open the UDP socket: {error}"));
        failure.hint("choose another --host or --port")
    })
}

/// A node that asks, and is gone soon: any port will do.
pub(super) async fn client(globals: &Globals) -> Result<Dht> {
    let node = builder(globals).ephemeral(true);
    let node = match globals.port {
        Some(_) => node,
        None => node.port(0),
    };
    let node = start(globals, node)?;
    in_time(globals, node.bootstrapped()).await?;
    if node.status().nodes == 0 {
        return Err(nobody());
    }
    Ok(node)
}

/// Waits until the node has looked around.
pub(super) async fn settled(globals: &Globals, node: &Dht) -> Result<()> {
    in_time(globals, node.bootstrapped()).await
}

async fn in_time<T>(
    globals: &Globals,
    work: impl Future<Output = Result<T, DhtError>>,
) -> Result<T> {
    match tokio::time::timeout(globals.timeout, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::new(
            Kind::Timeout,
            "the DHT did not answer in time",
        )),
    }
}

pub(super) fn ready(node: &Dht, host: Option<Ipv4Addr>) -> DhtReady {
    let status = node.status();
    let local = node.local_address();
    let host = host.or_else(|| Some(*status.remote_address.or(local)?.ip()));
    DhtReady {
        host: host.map_or_else(String::new, |host| host.to_string()),
        port: local.map_or(0, |local| local.port()),
        id: status.id.map(|id| id.to_string()),
        nodes: status.nodes,
        firewalled: status.is_firewalled,
    }
}

/// 64 hexadecimal digits are taken as they are; of other text the hash is taken.
fn topic(text: &str) -> Id {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parse_key(text) {
        Ok(topic) if is_hex => (*topic.as_bytes()).into(),
        _ => hash(&[text.as_bytes()]).into(),
    }
}

/// The key pair whose secret is in `path`; a new one if there is no such file.
pub(super) fn secret(path: &Path) -> Result<KeyPair> {
    let failed = |error| Failure::storage(path.display(), &error);
    match std::fs::read_to_string(path) {
        Ok(text) => match parse_key(text.trim()) {
            Ok(secret) => Ok(KeyPair::from_seed(secret.as_bytes())),
            Err(_) => Err(Failure::usage(format!(
                "{} holds no secret",
                path.display()
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let keys = KeyPair::generate();
            write_secret(path, keys.seed()).map_err(failed)?;
            Ok(keys)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Only its owner can read it.
fn write_secret(path: &Path, secret: &[u8; SECRET_LEN]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{}", encode_z32(secret))
}

async fn read_all(input: &mut Input) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    loop {
        let chunk = input.chunk().await;
        match chunk.map_err(|error| Failure::storage("stdin", &error))? {
            Some(chunk) => value.extend_from_slice(&chunk),
            None => return Ok(value),
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(too_large(value.len()));
        }
    }
}

fn too_large(len: usize) -> Failure {
    let hint = "put a hash of it there, or the key of a drive";
    Failure::usage(DhtError::TooLarge(len)).hint(hint)
}

pub(super) fn nobody() -> Failure {
    let hint = "check the network, or name a node with --bootstrap HOST:PORT";
    Failure::new(Kind::NoPeer, DhtError::NobodyAnswered).hint(hint)
}

impl From<DhtError> for Failure {
    fn from(error: DhtError) -> Self {
        match error {
            DhtError::TooLarge(len) => too_large(len),
            DhtError::NobodyAnswered | DhtError::Request(_) => nobody(),
            DhtError::Refused(_) => {
                let failure = Self::new(Kind::NotPermitted, error);
                failure.hint("choose a higher --seq than that of the value that is there")
            }
            error => Self::new(Kind::Other, error),
        }
    }
}
