//! All tests of UDX streams, in one program: each one more would link the same crates again.
//! Those that count allocations are programs of their own beside it.

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
mod floods;
mod goodput;
mod hostile;
mod losses;
mod pair;
mod vectors;
