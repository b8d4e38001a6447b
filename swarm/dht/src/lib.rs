//! The HyperDHT as its JavaScript nodes speak it: datagrams and data structures, without IO.
//!
//! Knows the wire of `dht-rpc` 6.27 and `hyperdht` 6.34, and how a node behaves. Does not know sockets or clocks: bytes,
//! addresses, time and randomness come in as arguments, so everything here builds for WebAssembly too.
//!
//! - [`node`] is a node of the HyperDHT: [`rpc`] with a [`store`].
//! - [`rpc`] is a node of any such network: it asks, answers, keeps its table, and finds out whether others can reach it.
//! - [`query`] is the search for the nodes closest to a target.
//! - [`message`] is the datagram: a request, or the reply to one.
//! - [`id`] is the space that nodes and targets share, and the distance in it.
//! - [`hyperdht`] is what messages carry: announcements, records, handshakes, and their signatures.
//! - [`routing_table`] is who is known, and who of them is worth keeping.
//! - [`address`] is how IP addresses are written.
//! - [`tokens`], [`nat`], [`window`], [`health`] and [`limits`] are what a node counts by.
//!
//! Everything decoded was written by strangers: counts are capped before anything is allocated, unknown flags and
//! trailing bytes are skipped as newer nodes append fields, and nothing panics.

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod address;
mod flags;
pub mod health;
pub mod hyperdht;
pub mod id;
pub mod limits;
pub mod message;
pub mod nat;
pub mod node;
pub mod query;
pub mod random;
pub mod routing_table;
pub mod rpc;
pub mod store;
pub mod tokens;
pub mod window;
