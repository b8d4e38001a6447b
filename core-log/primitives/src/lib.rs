//! Encodings, hashes, keys and ids shared by every crate of the stack.
//!
//! Knows how single values are written, hashed, signed and named. Does not know trees, messages, storage
//! or the network; all of it is pure Rust and synchronous.

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

#[macro_use]
mod byte_array;

pub mod encoding;
pub mod hash;
pub mod id;
pub mod index_encoding;
pub mod keys;
pub mod namespace;
pub mod random;
pub mod sign;
pub mod time;
