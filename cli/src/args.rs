//! The command line: commands, options, help.
//! Knows names, syntax and defaults. Does not know what commands do.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ferrocore::primitives::id::parse_key;
use ferrocore::swarm::dht::BootstrapNode;
use ferrocore::swarm::lan::Include;
use ferrocore::{DhtOptions, Discovery, IdError, PublicKey};

use crate::target::{HalfOpen, Name, Place};

/// Share folders, fetch them, and work with Hypercores.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "fcore",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(after_help = "Examples:
  fcore share ~/Photos   serve a folder, and follow its changes
  fcore get hyper://KEY  fetch it on another machine
  fcore demo             see both on this machine")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Where cores and keys live [default: `ferrocore` in the user's data directory]
    #[arg(long, global = true, env = "FCORE_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Write one JSON object a line instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write nothing but data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; repeat for logs
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Longest wait without progress, such as 500ms, 30s or 2m
    #[arg(long, global = true, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// What written data survives: `buffered` a kill, `sync` a power cut
    #[arg(long, global = true, value_enum, default_value_t = Durability::Buffered, value_name = "HOW")]
    pub(crate) durability: Durability,
    /// Accept peers over TCP there; port 0 picks one
    #[arg(long, global = true, value_parser = parse_address, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Dial this peer over TCP; may be given several times
    #[arg(long, global = true, value_parser = parse_address, value_name = "HOST:PORT")]
    pub(crate) peer: Vec<String>,
    /// Do not look for peers in the DHT
    #[arg(long, global = true)]
    pub(crate) no_dht: bool,
    /// Do not look for peers on the local network
    #[arg(long, global = true)]
    pub(crate) no_lan: bool,
    /// Look for peers on the local network alone
    #[arg(long, global = true, conflicts_with = "no_lan")]
    pub(crate) lan_only: bool,
    /// Ask this node of the DHT first, instead of the public ones; may be given several times
    #[arg(long, global = true, conflicts_with_all = ["no_dht", "lan_only"], value_name = "HOST:PORT")]
    pub(crate) bootstrap: Vec<BootstrapNode>,
    /// The address of this machine for the DHT [default: all]
    #[arg(long, global = true, value_name = "IP")]
    pub(crate) host: Option<Ipv4Addr>,
    /// The UDP port for the DHT [default: 49737 or one near it]
    #[arg(long, global = true, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Meet peers that cannot be reached otherwise at this blind relay
    #[arg(long, global = true, value_parser = parse_public_key, value_name = "KEY", hide_short_help = true)]
    pub(crate) relay: Option<PublicKey>,
    /// Send at most so many bytes a second, such as 500k or 5M
    #[arg(long, global = true, value_parser = parse_rate, value_name = "RATE")]
    pub(crate) up: Option<u64>,
    /// Receive at most so many bytes a second
    #[arg(long, global = true, value_parser = parse_rate, value_name = "RATE")]
    pub(crate) down: Option<u64>,
    /// Write to restored logs although no peer has shown how long they are
    ///
    /// Only if nobody can have more of them: a second history of a log is refused by its readers.
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) offline: bool,
    /// Do not ask before something is destroyed
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Only say what would be destroyed
    #[arg(long, global = true, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// What written data survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    Buffered,
    Sync,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    Share(Share),
    Get(Get),
    Seed(Seed),
    Ls(Ls),
    Cat(Cat),
    Put(Put),
    Rm(Rm),
    /// Work with single logs
    #[command(subcommand)]
    Core(CoreCommand),
    /// Back up, bring back and pass on the secrets of the store
    #[command(subcommand)]
    Key(KeyCommand),
    /// List what is in the store
    #[command(after_help = "Example:\n  fcore list")]
    List,
    Status(Status),
    /// Nodes, topics and records of the DHT; networks of your own
    #[command(subcommand)]
    Dht(DhtCommand),
    Relay(Relay),
    Doctor(Doctor),
    Du(Du),
    Purge(Purge),
    /// Free what crashes left behind: purges and drafts cut off, temporary files
    ///
    /// Logs, names and keys are not touched. With --dry-run nothing is removed.
    #[command(after_help = "Example:\n  fcore gc --dry-run")]
    Gc,
    /// Run the main job on this machine: share a sample folder, fetch it in another process, compare
    #[command(after_help = "Example:\n  fcore demo")]
    Demo,
    /// Print the version
    #[command(after_help = "Example:\n  fcore version")]
    Version,
    Completions(Completions),
}

/// Import a folder into a drive, serve it, and follow its changes until Ctrl-C
///
/// The same folder continues the same drive. Prints what the other side types to fetch it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore share ~/Photos --listen 0.0.0.0:4000")]
pub(crate) struct Share {
    /// The folder
    pub(crate) dir: PathBuf,
    /// Call the drive so [default: the folder's name]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Start another drive even if the folder has one
    #[arg(long)]
    pub(crate) new: bool,
    /// Serve the folder as it is now, without following its changes
    #[arg(long)]
    pub(crate) once: bool,
    /// Encrypt a new drive: peers can keep it, but only who has the whole link can read it
    #[arg(long)]
    pub(crate) encrypt: bool,
}

/// Keep drives and cores whole, follow their changes, and serve them until Ctrl-C
///
/// Nothing times out: peers may come and go.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore seed hyper://KEY photos --listen 0.0.0.0:4000")]
pub(crate) struct Seed {
    /// The drives and cores: links, keys or names
    #[arg(required = true, value_name = "TARGET")]
    pub(crate) targets: Vec<Place>,
}

/// Fetch a drive, or a part of it, into a folder
///
/// A run that was cut short is resumed by running it again. Files that fcore did not write are kept,
/// and reported with exit code 8.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore get hyper://KEY ./photos --peer 192.168.1.7:4000")]
pub(crate) struct Get {
    /// The drive: a link, a key or a name
    #[arg(value_name = "LINK")]
    pub(crate) target: Place,
    /// The folder to write [default: the drive's name or the key's first letters]
    pub(crate) dest: Option<PathBuf>,
    /// Only files that match this pattern; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Vec<String>,
    /// The drive as it was at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<u64>,
    /// Go on fetching what changes until Ctrl-C
    #[arg(long, conflicts_with = "at")]
    pub(crate) live: bool,
    /// Replace files that fcore did not write
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Delete files that the drive does not have
    #[arg(long)]
    pub(crate) prune: bool,
}

/// Show what is in the store, how complete it is, and who is connected
///
/// Run it while another command holds the store, such as `share`: it tells of its connections, of its topics, and
/// what was tried with peers that are not connected. With --json, a `core` event for each log, a `peer` event for each
/// connection, a `topic` event for each topic and a `dial` event for each of those peers.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore status --watch")]
pub(crate) struct Status {
    /// Again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// List the files of a drive
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore ls -l photos:/2024")]
pub(crate) struct Ls {
    /// The drive, a version, a folder in it
    pub(crate) target: Place,
    /// Show type, size and link targets
    #[arg(short)]
    pub(crate) long: bool,
    /// List folders in folders too
    #[arg(short = 'R')]
    pub(crate) recursive: bool,
}

/// Write a file of a drive to stdout
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore cat photos:/notes.txt --range 0..100")]
pub(crate) struct Cat {
    /// The drive and the path of the file
    pub(crate) target: Place,
    /// Only these bytes
    #[arg(long, value_name = "A..B")]
    pub(crate) range: Option<HalfOpen>,
}

/// Write a file into a drive of this store
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore put notes.txt photos:/notes.txt")]
pub(crate) struct Put {
    /// The file, or - for stdin
    pub(crate) src: PathBuf,
    /// The drive and the path; a path that ends with a slash takes the file's name
    pub(crate) target: Place,
}

/// Remove a file from a drive of this store
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore rm photos:/notes.txt")]
pub(crate) struct Rm {
    /// The drive and the path
    pub(crate) target: Place,
    /// Remove a folder with all that is in it
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CoreCommand {
    Create(CoreCreate),
    Append(CoreAppend),
    Get(CoreGet),
    Info(CoreInfo),
    Seek(CoreSeek),
    Tail(CoreTail),
    Truncate(CoreTruncate),
    Clear(CoreClear),
    Audit(CoreAudit),
    Replicate(CoreReplicate),
}

/// Create a log
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core create journal")]
pub(crate) struct CoreCreate {
    /// Its name in the store
    pub(crate) name: Name,
    /// Encrypt its blocks with a new key, which is printed and remembered
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// Let its key be the bare public key of its signer, as hypercore 10 does
    #[arg(long)]
    pub(crate) public_key_is_key: bool,
}

/// Append blocks: stdin or whole files, one block each
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  echo hello | fcore core append journal")]
pub(crate) struct CoreAppend {
    /// The log
    pub(crate) core: Place,
    /// One block for each file
    #[arg(value_name = "FILE", conflicts_with_all = ["lines", "frames"])]
    pub(crate) files: Vec<PathBuf>,
    /// One block for each line of stdin, without its line end
    #[arg(long, conflicts_with = "frames")]
    pub(crate) lines: bool,
    /// One block for each frame of stdin: a 32-bit little-endian length, then the bytes
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Write blocks to stdout
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core get journal 0..10")]
pub(crate) struct CoreGet {
    /// The log
    pub(crate) core: Place,
    /// The blocks: A, A..B, A.. or ..B
    pub(crate) range: HalfOpen,
    /// A 32-bit little-endian length before each block
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Show the state of a log
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core info journal")]
pub(crate) struct CoreInfo {
    /// The log
    pub(crate) core: Place,
}

/// Find the block that holds a byte of a log, and the offset in it
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core seek journal 1000000")]
pub(crate) struct CoreSeek {
    /// The log
    pub(crate) core: Place,
    /// Bytes from the start of the log
    pub(crate) byte: u64,
}

/// Write the last blocks of a log to stdout, one a line
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core tail journal --follow")]
pub(crate) struct CoreTail {
    /// The log
    pub(crate) core: Place,
    /// How many of the blocks that are there
    #[arg(short = 'n', long, default_value_t = 10)]
    pub(crate) blocks: u64,
    /// Go on with what is appended here or by peers, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// A 32-bit little-endian length before each block instead of a line end behind it
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Cut a log of this store short, and start another history
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core truncate journal 100")]
pub(crate) struct CoreTruncate {
    /// The log
    pub(crate) core: Place,
    /// How many blocks stay
    pub(crate) length: u64,
    /// The number of the new history [default: the next one]
    #[arg(long)]
    pub(crate) fork: Option<u64>,
}

/// Give the disk space of blocks back; they can be fetched again from peers that have them
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core clear journal 0..1000")]
pub(crate) struct CoreClear {
    /// The log
    pub(crate) core: Place,
    /// The blocks: A, A..B, A.. or ..B
    pub(crate) range: HalfOpen,
}

/// Check all that is stored of a log: blocks, tree and bits against the signature
///
/// Exit code 7 when anything is bad.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core audit journal")]
pub(crate) struct CoreAudit {
    /// The log
    pub(crate) core: Place,
    /// Mend what can be proven, and forget what is wrong, so that it can be fetched again
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    /// List the root secret, by a fingerprint, and the logs that there are secrets of
    #[command(after_help = "Example:\n  fcore key ls")]
    Ls,
    Backup(KeyBackup),
    Recover(KeyRecover),
    Export(KeyExport),
    Import(KeyImport),
}

/// Write the root secret to stdout as 24 words, or all secrets to an encrypted file
///
/// The words bring back every log and drive that has a name, as far as peers have the blocks, but neither
/// imported secrets nor encryption keys: the file has those too.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore key backup --file keys.fcore")]
pub(crate) struct KeyBackup {
    /// Write all secrets to this new file, under a passphrase
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Write the words even if there is a file
    #[arg(long)]
    pub(crate) phrase: bool,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, requires = "file", value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Bring secrets back into a new store: from 24 words on stdin, or from a file
///
/// Nothing can be appended to a log of it until a peer has shown how long that is, unless --offline says
/// that nobody has more.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore --store ./new key recover --core journal --drive photos")]
pub(crate) struct KeyRecover {
    /// A file that `key backup` made [default: the words, from stdin]
    pub(crate) file: Option<PathBuf>,
    /// The name of a log that was in the store; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) core: Vec<Name>,
    /// The name of a drive that was in the store; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) drive: Vec<Name>,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, requires = "file", value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Write what it takes to write and decrypt one log or drive, encrypted
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore key export journal --file journal.fcore")]
pub(crate) struct KeyExport {
    /// The log or drive
    pub(crate) core: Place,
    /// Write to this new file [default: text to stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Take in what `key export` wrote, so that the log or drive can be written here
///
/// Nothing can be appended until a peer has shown how long the log is, unless --offline says that nobody
/// has more. Two stores must not write to one log at the same time.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore key import journal.fcore")]
pub(crate) struct KeyImport {
    /// The file [default: stdin]
    pub(crate) file: Option<PathBuf>,
    /// Call it so [default: as it was called]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// The passphrase is the first line of this file [default: $FCORE_PASSPHRASE, or asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Show what drives and logs take on the disk
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore du")]
pub(crate) struct Du {
    /// Only this drive or log
    pub(crate) target: Option<Place>,
}

/// Delete a drive or log from this store for good
///
/// Peers keep what they have. One made later under the same name has the same key, so choose another.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore purge photos")]
pub(crate) struct Purge {
    /// The drive or log
    pub(crate) target: Place,
}

/// Replicate logs over stdin and stdout, or over --listen and --peer, until the stream ends or Ctrl-C
///
/// A key that is not in the store is opened as a reader and downloaded whole.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore core replicate KEY --peer 192.168.1.7:4000")]
pub(crate) struct CoreReplicate {
    /// The logs
    #[arg(required = true, value_name = "CORE")]
    pub(crate) cores: Vec<Place>,
    /// Start the handshake, over stdin and stdout
    #[arg(long)]
    pub(crate) initiator: bool,
}

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

/// Print a completion script
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  fcore completions bash > ~/.local/share/bash-completion/completions/fcore"
)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

impl Cli {
    /// Refuses options that the command would ignore, to somebody's surprise.
    pub(crate) fn check(self) -> Result<Self, clap::Error> {
        if self.globals.dry_run && !self.command.destroys() {
            let message = "only commands that destroy something have a --dry-run";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(self)
    }
}

impl Globals {
    /// Whether the command line names a way to reach peers.
    pub(crate) fn has_network(&self) -> bool {
        self.listen.is_some() || !self.peer.is_empty() || self.is_search_asked_for()
    }

    /// Whether the command line says where to look for peers.
    pub(crate) fn is_search_asked_for(&self) -> bool {
        self.lan_only || !self.bootstrap.is_empty()
    }

    /// Where peers may be looked for.
    pub(crate) fn discovery(&self) -> Discovery {
        let mut discovery = Discovery::default();
        if !self.no_lan {
            discovery.lan = Some(Include::default());
        }
        if !self.no_dht && !self.lan_only {
            let mut options = DhtOptions::default();
            options.bootstrap.clone_from(&self.bootstrap);
            (options.host, options.port, options.relay) = (self.host, self.port, self.relay);
            discovery.dht = Some(options);
        }
        discovery
    }
}

impl Command {
    /// Whether the command takes away what cannot be had back.
    fn destroys(&self) -> bool {
        matches!(
            self,
            Self::Gc
                | Self::Purge(_)
                | Self::Core(CoreCommand::Truncate(_) | CoreCommand::Clear(_))
        )
    }

    /// Whether the command changes nothing and waits for nobody, so that a store that another
    /// program holds can be read as it was last written.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Ls(_) | Self::Cat(_) | Self::List | Self::Du(_) => true,
            Self::Status(status) => !status.watch,
            Self::Core(command) => match command {
                CoreCommand::Get(_) | CoreCommand::Info(_) | CoreCommand::Seek(_) => true,
                CoreCommand::Tail(tail) => !tail.follow,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether stdout carries data, so that JSON events go to stderr.
    pub(crate) fn writes_data(&self, globals: &Globals) -> bool {
        match self {
            Self::Cat(_)
            | Self::Dht(DhtCommand::Get(_))
            | Self::Core(CoreCommand::Get(_) | CoreCommand::Tail(_))
            | Self::Completions(_) => true,
            Self::Core(CoreCommand::Replicate(_)) => !globals.has_network(),
            Self::Key(KeyCommand::Backup(backup)) => backup.file.is_none() || backup.phrase,
            Self::Key(KeyCommand::Export(export)) => export.file.is_none(),
            _ => false,
        }
    }
}

fn parse_public_key(text: &str) -> Result<PublicKey, IdError> {
    let key = parse_key(text)?;
    Ok(PublicKey::from(*key.as_bytes()))
}

/// Checks the form only: names are looked up when they are needed.
fn parse_address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("an address is a host and a port, as in 192.168.1.7:4000".to_owned()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write for example 500ms, 30s or 2m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(number * seconds_per_unit) {
        Ok(time) if time > TIMEOUT_MAX => Ok(TIMEOUT_MAX),
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(wrong()),
    }
}

/// A year; longer ones mean "for ever", and clocks cannot be asked for just any.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no rate; write bytes a second, for example 500k or 5M");
    let unit_at = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let bytes_per_unit = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let rate = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(bytes_per_unit));
    rate.filter(|rate| *rate > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["fcore"].iter().chain(arguments))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Goal: nobody has to guess the syntax. Method: walk all commands that do something.
    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &clap::Command) {
            if command.has_subcommands() {
                return command.get_subcommands().for_each(check);
            }
            let help = command.get_after_help().map(ToString::to_string);
            let name = command.get_name();
            assert!(help.is_some_and(|help| help.contains("fcore")), "{name}");
        }
        Cli::command().get_subcommands().for_each(check);
    }

    #[test]
    fn global_options_are_taken_before_and_behind_the_command() {
        for arguments in [["--timeout", "2s", "list"], ["list", "--timeout", "2s"]] {
            let cli = parse(&arguments).unwrap();
            assert_eq!(cli.globals.timeout, Duration::from_secs(2));
        }
    }

    #[test]
    fn a_dry_run_of_what_destroys_nothing_is_refused() {
        let check = |arguments: &[&str]| parse(arguments).and_then(Cli::check);
        assert!(check(&["purge", "log", "--dry-run"]).is_ok());
        assert!(check(&["--dry-run", "core", "truncate", "log", "3"]).is_ok());
        assert!(check(&["share", ".", "--dry-run"]).is_err());
    }

    #[test]
    fn times_and_rates_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("99999999999999h"), Ok(TIMEOUT_MAX));
        for text in ["", "0", "-1s", "1y", "s", "nan"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("5M"), Ok(5_000_000));
        assert_eq!(parse_rate("12"), Ok(12));
        for text in ["", "0", "M", "1.5M", "99999999999999999G"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_port() {
        for text in ["127.0.0.1:0", "[::1]:4000", "example.org:65535"] {
            assert!(parse_address(text).is_ok(), "{text}");
        }
        for text in ["", "example.org", "example.org:", "127.0.0.1:65536"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn stdout_carries_data_where_the_manual_says() {
        let data = |arguments: &[&str]| {
            let cli = parse(arguments).unwrap();
            cli.command.writes_data(&cli.globals)
        };
        assert!(data(&["cat", "photos:/a"]));
        assert!(data(&["core", "get", "journal", "0"]));
        assert!(data(&["core", "replicate", "journal"]));
        assert!(!data(&[
            "core",
            "replicate",
            "journal",
            "--listen",
            "[::]:0"
        ]));
        assert!(!data(&["ls", "photos"]));
    }
}
