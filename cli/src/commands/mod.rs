//! The commands. Each takes a [`Context`] and its arguments, and reports what it does.

mod announced;
mod audit;
mod core;
mod demo;
mod dht;
mod doctor;
mod files;
mod get;
pub(crate) mod key;
mod list;
mod mirror;
mod relay;
mod replicate;
mod seed;
mod share;
mod space;
mod status;
mod tail;
mod trim;
mod watch;

use std::io::Write as _;
use std::time::Duration;

use clap::CommandFactory as _;
use ferrocore::drive::Drive;
use ferrocore::{Core, EncryptionKey, Key, Link};

use crate::args::{Cli, Command, Completions, CoreCommand};
use crate::context::Context;
use crate::events::Program;
use crate::exit::{Failure, Kind, Result};
use crate::output::Style;
use crate::target::Place;

pub(crate) use demo::demo;
pub(crate) use dht::dht;
pub(crate) use doctor::doctor;
pub(crate) use relay::relay;

/// Runs a command that works on the store. A wish to end interrupts those that do not wait for it.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let stop = context.stop();
    match command {
        Command::Share(share) => share::share(context, share).await,
        Command::Get(get) => get::get(context, get).await,
        Command::Seed(seed) => seed::seed(context, seed).await,
        Command::Core(CoreCommand::Replicate(replicate)) => {
            replicate::replicate(context, replicate).await
        }
        Command::Core(command) => stop.or_interrupted(core::run(context, command)).await,
        Command::Key(command) => stop.or_interrupted(key::run(context, command)).await,
        Command::Ls(ls) => stop.or_interrupted(files::ls(context, ls)).await,
        Command::Cat(cat) => stop.or_interrupted(files::cat(context, cat)).await,
        Command::Put(put) => stop.or_interrupted(files::put(context, put)).await,
        Command::Rm(rm) => stop.or_interrupted(files::rm(context, rm)).await,
        Command::Du(du) => stop.or_interrupted(space::du(context, du)).await,
        Command::Gc => stop.or_interrupted(space::gc(context)).await,
        Command::Purge(purge) => stop.or_interrupted(space::purge(context, purge)).await,
        Command::List => stop.or_interrupted(list::list(context)).await,
        Command::Status(status) => status::status(context, status).await,
        Command::Demo
        | Command::Dht(_)
        | Command::Relay(_)
        | Command::Doctor(_)
        | Command::Version
        | Command::Completions(_) => {
            unreachable!("these run before there is a store")
        }
    }
}

/// Prints the version; as fast as a program can start.
pub(crate) fn version(style: Style) -> u8 {
    let program = Program {
        name: "fcore",
        version: env!("CARGO_PKG_VERSION"),
        sodium: cfg!(feature = "sodium"),
    };
    let line = style.event(&program).unwrap_or_default();
    u8::from(writeln!(std::io::stdout(), "{line}").is_err())
}

/// Prints a completion script.
pub(crate) fn completions(completions: &Completions) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "fcore", &mut script);
    u8::from(std::io::stdout().write_all(&script).is_err())
}

/// The drive that `place` means, as new as peers know it, at the version it names.
async fn view(context: &Context, place: &Place) -> Result<Drive> {
    let drive = context.store.drive(place).await?;
    refresh(context, &drive, place.version).await?;
    check_key(context, place, &drive).await?;
    match place.version {
        Some(version) => Ok(drive.checkout(version)),
        None => Ok(drive.snapshot()),
    }
}

/// The link to all of a drive or core, for those who may read it.
fn link(key: Key, encryption: Option<&EncryptionKey>) -> String {
    let link = Link {
        encryption_key: encryption.map(|key| *key.secret()),
        ..Link::from(key)
    };
    link.to_string()
}

/// Makes sure that an encryption key in a link is the right one, and remembers it.
async fn check_key(context: &Context, place: &Place, drive: &Drive) -> Result<()> {
    if place.encryption.is_some() {
        context.step(drive.blobs()).await?;
    }
    context.store.remember(place, drive)
}

/// Asks peers for what is new in a drive of others, and makes sure that it has the version
/// `wanted`, if one is.
async fn refresh(context: &Context, drive: &Drive, wanted: Option<u64>) -> Result<()> {
    let index = drive.index();
    let is_here = index.length() > 0 && wanted.is_none_or(|wanted| wanted <= drive.version());
    let is_ours = index.is_writable() && !index.is_guarded();
    let is_settled = is_ours || (is_here && wanted.is_some());
    if !is_settled && !is_here {
        context.discover().await?;
    }
    if !is_settled && context.has_network() {
        ask(context, drive, is_here).await?;
    }
    if is_unknown(index) {
        return Err(unknown("drive", &drive.key()));
    }
    match wanted {
        Some(version) if version == 0 || version > drive.version() => {
            let (key, newest) = (drive.key(), drive.version());
            let message = format!("drive {key} has no version {version}; its newest is {newest}");
            Err(Failure::not_found(message))
        }
        _ => Ok(()),
    }
}

/// What is here already does not wait long for peers that do not answer.
async fn ask(context: &Context, drive: &Drive, is_here: bool) -> Result<()> {
    let timeout = context.globals.timeout;
    let patience = if is_here {
        timeout.min(REFRESH_PATIENCE)
    } else {
        timeout
    };
    match tokio::time::timeout(patience, drive.update()).await {
        Ok(updated) => {
            updated?;
            if drive.index().is_frozen() {
                let text = "Its author signed two histories: this is what is here, and nothing comes after it";
                context.output().say(text).await;
            }
        }
        Err(_) if is_here => {
            context
                .output()
                .say("No peer answers; this is what is here")
                .await
        }
        Err(_) => return Err(context.timed_out()),
    }
    Ok(())
}

/// How long a command that could do with what is here waits for news.
const REFRESH_PATIENCE: Duration = Duration::from_secs(3);

/// Whether nothing is here of a core of others, nor anybody who could say more.
fn is_unknown(core: &Core) -> bool {
    core.length() == 0 && !core.is_writable() && core.supply().suppliers() == 0
}

fn unknown(what: &str, key: &Key) -> Failure {
    let message = format!("nothing of {what} {key} is here, and there is no peer to ask");
    Failure::new(Kind::NoPeer, message)
        .hint("name a peer that has it with --peer, or let peers be looked for (no --no-lan)")
}
