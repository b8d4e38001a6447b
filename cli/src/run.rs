//! From the command line to the exit code: parses, opens the store or asks its holder, runs.
//! Knows processes and runtimes. Does not know what commands do.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use crate::args::{Cli, Color, Command, CoreCommand, Globals, KeyCommand, KeyRecover};
use crate::commands::{self, key};
use crate::context::{Context, Streams};
use crate::exit::{Failure, Kind, Result};
use crate::hosting::{Host, run_through};
use crate::input::Input;
use crate::output::{Output, Sink, Style};
use crate::passphrase;
use crate::stop;
use crate::store::{self, Opening, Store};

/// How long we wait for a store that is held by somebody who does not run our command.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Runs the command line, without the program's name, and returns the exit code.
pub(crate) fn main(arguments: Vec<OsString>) -> u8 {
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let style = style(
        &cli,
        has_colors(cli.globals.color),
        std::io::stderr().is_terminal(),
    );
    match &cli.command {
        Command::Version => return commands::version(style),
        Command::Completions(completions) => return commands::completions(completions),
        _ => start_logs(cli.globals.verbose),
    }
    let output = Output::new(style, Sink::Process);
    let runtime = match runtime(&cli) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return 1;
        }
    };
    let code = runtime.block_on(run(cli, arguments, output));
    // A read of stdin that still waits must not keep the process.
    runtime.shutdown_background();
    code
}

/// Parses a command line; one that cannot be run is answered at once.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, u8> {
    let named = std::iter::once(OsString::from("fcore")).chain(arguments.iter().cloned());
    let error = match Cli::try_parse_from(named).and_then(Cli::check) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    let is_json = arguments.iter().any(|argument| argument == "--json");
    let is_failure = error.use_stderr();
    if !is_failure || !is_json {
        // Whoever does not read our help needs none.
        error.print().ok();
        return Err(u8::from(is_failure) * Kind::Usage.code());
    }
    let message = error.to_string();
    let message = message
        .trim_start_matches("error: ")
        .lines()
        .next()
        .unwrap_or_default();
    let failure = Failure::usage(message).hint("see fcore --help");
    let style = Style {
        json: true,
        ..Style::default()
    };
    writeln!(std::io::stderr(), "{}", style.failure(&failure)).ok();
    Err(failure.kind.code())
}

pub(crate) fn style(cli: &Cli, color: bool, is_terminal: bool) -> Style {
    let globals = &cli.globals;
    Style {
        json: globals.json,
        quiet: globals.quiet,
        verbose: globals.verbose,
        color,
        bars: is_terminal && !globals.json && !globals.quiet,
        data: cli.command.writes_data(globals),
    }
}

fn has_colors(color: Color) -> bool {
    let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && !asked_not_to,
    }
}

/// Logs go to stderr from `-vv` on.
fn start_logs(verbose: u8) {
    let filter = match verbose {
        0 | 1 => return,
        2 => "ferrocore=debug",
        _ => "ferrocore=trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Threads are for the network; local work needs none beside its own.
fn runtime(cli: &Cli) -> std::io::Result<Runtime> {
    let mut builder = match is_long(&cli.command) || cli.globals.has_network() {
        true => Builder::new_multi_thread(),
        false => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

/// Whether the command may hold the store for long, so that it runs those of others meanwhile.
fn is_long(command: &Command) -> bool {
    match command {
        Command::Share(_)
        | Command::Get(_)
        | Command::Seed(_)
        | Command::Core(CoreCommand::Replicate(_)) => true,
        Command::Dht(_) | Command::Relay(_) | Command::Doctor(_) => true,
        Command::Core(CoreCommand::Tail(tail)) => tail.follow,
        _ => false,
    }
}

async fn run(cli: Cli, arguments: Vec<OsString>, output: Output) -> u8 {
    match attempt(cli, &arguments, &output).await {
        Ok(code) => code,
        Err(failure) => output.finish(Err(failure)).await,
    }
}

async fn attempt(cli: Cli, arguments: &[OsString], output: &Output) -> Result<u8> {
    let directory = std::env::current_dir()
        .map_err(|error| Failure::storage("there is no working directory", &error))?;
    // Before Ctrl-C only asks us to end, which a prompt would not hear.
    let passphrase = passphrase::ask(&cli.command, &directory)?;
    let stop =
        stop::on_signals().map_err(|error| Failure::storage("cannot handle signals", &error))?;
    if let Command::Demo = cli.command {
        return commands::demo(output, &stop).await.map(|()| 0);
    }
    if let Command::Dht(command) = cli.command {
        let input = &mut Input::process();
        let done = commands::dht(&cli.globals, command, output, &stop, input).await;
        return done.map(|()| 0);
    }
    if let Command::Doctor(args) = cli.command {
        let checking = commands::doctor(&cli.globals, args, &directory, output);
        return stop.or_interrupted(checking).await.map(|()| 0);
    }
    if let Command::Relay(relay) = cli.command {
        let done = commands::relay(&cli.globals, relay, output, &stop).await;
        return done.map(|()| 0);
    }
    let dir = store::locate(&cli.globals, &directory)?;
    let streams = Streams {
        output: output.clone(),
        input: Mutex::new(Input::process()),
        stop,
        passphrase,
        directory,
    };
    if let Command::Key(KeyCommand::Recover(recover)) = &cli.command {
        let recover = recover.clone();
        return recover_into(cli.globals, streams, &dir, recover)
            .await
            .map(|()| 0);
    }
    match open(&dir, &cli, arguments, &streams).await? {
        Found::Ours(store) => hold(cli, streams, store).await.map(|()| 0),
        Found::Theirs(code) => Ok(code),
    }
}

/// Gives a store its root secret back, and opens it: no holder can do that for us.
async fn recover_into(
    globals: Globals,
    streams: Streams,
    dir: &Path,
    recover: KeyRecover,
) -> Result<()> {
    let (directory, passphrase) = (&streams.directory, streams.passphrase.as_ref());
    let backup = key::restore(&globals, dir, &recover, directory, passphrase)?;
    let store = match Store::open(dir, &globals).await? {
        Opening::Opened(store) => store,
        Opening::Held(failure) => return Err(failure),
    };
    let context = Context::new(globals, streams, store.clone()).await?;
    let result = key::recover(&context, recover, backup).await;
    store.node.close().await;
    result
}

/// What became of looking for the store.
enum Found {
    /// We hold it.
    Ours(Arc<Store>),
    /// Its holder ran the command, with this exit code.
    Theirs(u8),
}

/// Opens the store, or has its holder run the command, whichever is possible first.
async fn open(dir: &Path, cli: &Cli, arguments: &[OsString], streams: &Streams) -> Result<Found> {
    let globals = &cli.globals;
    let started = Instant::now();
    loop {
        let held = match Store::open(dir, globals).await? {
            Opening::Opened(store) => return Ok(Found::Ours(store)),
            Opening::Held(failure) => failure,
        };
        if let Some(code) = run_through(dir, arguments, streams).await? {
            return Ok(Found::Theirs(code));
        }
        if started.elapsed() > LOCK_PATIENCE {
            if !cli.command.only_reads() || globals.has_network() {
                return Err(held);
            }
            let note = format!("{held}: this is what it last wrote");
            streams.output.say(&note).await;
            let store = Store::open_read_only(dir, globals).await?;
            return Ok(Found::Ours(store));
        }
        let pause = async {
            tokio::time::sleep(LOCK_PAUSE).await;
            Ok(())
        };
        streams.stop.or_interrupted(pause).await?;
    }
}

/// Runs a command on a store that is ours alone, and those of others if it may take long.
async fn hold(cli: Cli, streams: Streams, store: Arc<Store>) -> Result<()> {
    let output = streams.output.clone();
    if store.is_new {
        let dir = store.dir.display();
        output.say(&format!("Created a store in {dir}")).await;
    }
    let host = match is_long(&cli.command) {
        true => Some(Host::start(&store, &output).await),
        false => None,
    };
    let result = command(cli, streams, store.clone()).await;
    if let Some(host) = host {
        host.close().await;
    }
    store.node.close().await;
    result
}

/// Runs one command on the store.
pub(crate) async fn command(cli: Cli, streams: Streams, store: Arc<Store>) -> Result<()> {
    let reports_peers = cli.globals.has_network() || is_long(&cli.command);
    let context = Context::new(cli.globals, streams, store).await?;
    tokio::select! {
        biased;
        done = commands::run(&context, cli.command) => done,
        failed = context.report_peers(), if reports_peers => failed,
    }
}
