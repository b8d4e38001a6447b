//! All tests of the drive, in one program: each one more would link the same crates again.

mod mirror;
mod reading;
mod remote;
mod vectors;
