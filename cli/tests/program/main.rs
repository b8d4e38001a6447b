//! All tests of the program `fcore`, in one program: each one more would link the same crates again.
//! Its name is one that no other crate's has: those that need `fcore` have it built by that.

mod common;
mod core;
mod dht;
mod dht_peers;
mod encrypted;
mod failures;
mod files;
mod keys;
mod program;
mod share_get;
mod status;
mod upkeep;
