//! The commands of the network: `dht`, `relay`, `doctor`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::target::Place;

/// Work with the DHT. None of it touches the store.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DhtCommand {
    /// Run the first node of a network, or one that others are given as --bootstrap, until Ctrl-C
    #[command(
        after_help = "Example:\n  fcore dht bootstrap --host 192.168.1.7 --port 49737\n  fcore dht node --bootstrap 192.168.1.7:49737"
    )]
    Bootstrap(DhtBootstrap),
    /// Run a node that stores for others once they can reach it, until Ctrl-C
    #[command(after_help = "Example:\n  fcore dht node --bootstrap 192.168.1.7:49737")]
    Node,
    /// Connect to a peer by its key; tell by which way, and how long it took
    ///
    /// Exit code 4 if it cannot be reached.
    #[command(after_help = "Example:\n  fcore dht ping KEY")]
    Ping(DhtPing),
    /// List the peers that announced themselves under a topic
    #[command(after_help = "Example:\n  fcore dht lookup my-topic")]
    Lookup(DhtLookup),
    /// Announce a new key under a topic, and listen under it, until Ctrl-C; then take it back
    #[command(after_help = "Example:\n  fcore dht announce my-topic")]
    Announce(DhtAnnounce),
    /// Store a value, at most 1,000 bytes, under its hash, or under a key that can replace it
    #[command(
        after_help = "Example:\n  echo hello | fcore dht put -\n  fcore dht put --secret my.secret --seq 2 'hello again'"
    )]
    Put(DhtPut),
    /// Print the value stored under a hash, or under a key
    #[command(after_help = "Example:\n  fcore dht get HASH\n  fcore dht get --key KEY")]
    Get(DhtGet),
}

/// Arguments of `dht bootstrap`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtBootstrap {
    /// The address at which others reach this node, if it is not that of --host
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<Ipv4Addr>,
}

/// Arguments of `dht ping`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtPing {
    /// The key that the peer listens under: 64 hexadecimal digits, or z-base-32
    pub(crate) key: String,
}

/// Arguments of `dht lookup`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtLookup {
    /// The topic: 64 hexadecimal digits, or any other text, whose hash is taken
    pub(crate) topic: String,
}

/// Arguments of `dht announce`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtAnnounce {
    /// The topic: 64 hexadecimal digits, or any other text, whose hash is taken
    pub(crate) topic: String,
}

/// Arguments of `dht put`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtPut {
    /// The value; `-` reads stdin
    pub(crate) value: String,
    /// Store it under the key of the secret in this file, which is made if it is not there
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
    /// The value's number: nodes keep the highest
    #[arg(long, requires = "secret", default_value_t = 0)]
    pub(crate) seq: u64,
}

/// Arguments of `dht get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtGet {
    /// The hash or key: 64 hexadecimal digits, or z-base-32
    pub(crate) target: String,
    /// It is a key: print the newest value stored under it
    #[arg(long)]
    pub(crate) key: bool,
}

/// Run a blind relay until Ctrl-C: peers that cannot reach each other meet there
///
/// It passes packets on that it cannot read. Anybody who knows its key may use it; run it where others can
/// reach it, and give its key to both sides, or to one of them, as --relay.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  fcore relay --secret relay.secret\n  fcore share ~/Photos --relay KEY"
)]
pub(crate) struct Relay {
    /// Keep the same key by the secret in this file, which is made if it is not there [default: a new key]
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
}

/// Check what it takes to share and fetch, and say what to do: clock, disk, local network, UDP, DHT, NAT
///
/// With --relay also the relay; with a target who serves it, and by which way. --no-dht, --no-lan and --lan-only leave
/// parts out. Exit code 0 only if everything else works; 4 if only nobody serves the target.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore doctor hyper://KEY")]
pub(crate) struct Doctor {
    /// A drive or log: a link, a key or a name
    pub(crate) target: Option<Place>,
}
