//! The command line: commands, options, help.
//! Knows names, syntax and defaults. Does not know what commands do. The arguments of each family of commands are in a
//! module of their own.

mod dht;
mod drive;
mod key;
mod logs;
mod store;
mod value;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ferrocore::swarm::dht::BootstrapNode;
use ferrocore::swarm::lan::Include;
use ferrocore::{DhtOptions, Discovery, PublicKey};

pub(crate) use dht::*;
pub(crate) use drive::*;
pub(crate) use key::*;
pub(crate) use logs::*;
pub(crate) use store::*;
use value::{parse_address, parse_duration, parse_public_key, parse_rate};

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
    #[arg(long, global = true)]
    pub(crate) lan_only: bool,
    /// Ask this node of the DHT first, instead of the public ones; may be given several times
    #[arg(long, global = true, value_name = "HOST:PORT")]
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
    /// Write to restored logs although no peer has proven how long they are
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
    ///
    /// With --json, a `core` event for each log, and an `unreadable` event for each that is damaged: exit code 8 then.
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

impl Cli {
    /// Refuses options that the command would ignore, to somebody's surprise.
    pub(crate) fn check(self) -> Result<Self, clap::Error> {
        if let Some((one, other)) = self.globals.contradiction() {
            let message = format!("{one} cannot be used with {other}");
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        if self.globals.dry_run && !self.command.destroys() {
            let message = "only commands that destroy something have a --dry-run";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(self)
    }
}

impl Globals {
    /// Two options of which one takes away what the other is for. Not left to clap, which sees no conflict of an option before
    /// the command with one behind it.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        if self.no_lan && self.lan_only {
            return Some(("--no-lan", "--lan-only"));
        }
        let of_dht = [
            ("--bootstrap", !self.bootstrap.is_empty()),
            ("--host", self.host.is_some()),
            ("--port", self.port.is_some()),
            ("--relay", self.relay.is_some()),
        ];
        let (named, _) = of_dht.into_iter().find(|(_, is_given)| *is_given)?;
        let without = [("--no-dht", self.no_dht), ("--lan-only", self.lan_only)];
        let (without, _) = without.into_iter().find(|(_, is_given)| *is_given)?;
        Some((named, without))
    }

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

    /// Goal: what cannot have its effect is refused, not ignored.
    #[test]
    fn options_of_the_dht_are_refused_without_it() {
        let check = |arguments: &[&str]| parse(arguments).and_then(Cli::check);
        assert!(check(&["--no-lan", "list", "--lan-only"]).is_err());
        let key = "y".repeat(52);
        for without in ["--no-dht", "--lan-only"] {
            for option in [
                ["--bootstrap", "127.0.0.1:1"],
                ["--host", "127.0.0.1"],
                ["--port", "0"],
                ["--relay", &key],
            ] {
                let [name, value] = option;
                assert!(check(&["share", ".", name, value]).is_ok(), "{name}");
                for arguments in [
                    ["share", ".", without, name, value],
                    [without, "share", ".", name, value],
                    [name, value, "share", ".", without],
                ] {
                    let refused = check(&arguments).map(|_| ());
                    let kind = refused.unwrap_err().kind();
                    assert_eq!(kind, ErrorKind::ArgumentConflict, "{arguments:?}");
                }
            }
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
