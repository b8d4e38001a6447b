//! `fcore`: share folders, fetch them, and work with Hypercores.
//!
//! A command runs on the store's node ([`context`]). Whoever holds the store runs the commands of
//! others ([`control`]). Data goes to stdout, everything else to stderr ([`output`]); how a
//! command ends is one of a few kinds ([`exit`]).

mod args;
mod caches;
mod commands;
mod confirm;
mod context;
#[cfg(unix)]
mod control;
mod events;
mod exit;
mod hosting;
mod input;
mod keyring;
mod labels;
mod names;
mod output;
mod passphrase;
mod progress;
mod run;
mod stop;
mod store;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    ExitCode::from(run::main(arguments))
}
