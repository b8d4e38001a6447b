//! Harness for the tests that put ferrocore beside the JavaScript stack.
//!
//! - [`node`] installs the two pinned npm trees;
//! - [`peer`] runs a Node script of `peers/` as a separate process and steers it;
//! - [`fcore`] builds and runs the command line;
//! - [`lossy`] is a UDP forwarder that loses, delays, reorders, doubles, garbles, changes and slows down;
//! - [`network`] makes networks of network namespaces, and [`wire`] damages the cable of a host of theirs;
//! - [`rng`] is chance that a seed repeats;
//! - [`tap`] is a TCP forwarder that can hold or cut a transfer at an exact byte;
//! - [`folder`] makes folders worth transferring and compares them.
//!
//! The harness knows no ferrocore crate: both sides are judged from outside. It panics with a
//! message for the reader of a failed test, every wait has a deadline, and no process outlives
//! the value that stands for it. Unix only, like the signals and file names it tests with.
#![cfg(unix)]

pub mod fcore;
pub mod folder;
pub mod lossy;
pub mod network;
pub mod node;
pub mod peer;
mod process;
pub mod rng;
pub mod tap;
#[cfg(target_os = "linux")]
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for anything that should happen at once, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// This package's folder.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The golden vector file of this name, such as `core.json`.
pub fn vector_file(name: &str) -> PathBuf {
    home().join("vectors").join(name)
}
