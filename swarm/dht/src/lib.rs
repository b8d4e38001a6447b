//! The HyperDHT as its JavaScript nodes speak it: datagrams and data structures, without IO.
//!
//! Knows the wire of `dht-rpc` 6.27 and `hyperdht` 6.34. Does not know sockets, clocks, timeouts or queries: bytes and addresses come
//! in as arguments, so everything here builds for WebAssembly too.
//!
//! - [`message`] is the datagram: a request, or the reply to one.
//! - [`id`] is the space that nodes and targets share, and the distance in it.
//! - [`hyperdht`] is what messages carry: announcements, records, handshakes, and their signatures.
//! - [`routing_table`] is who is known, and who of them is worth keeping.
//! - [`address`] is how IP addresses are written.
//!
//! Everything decoded was written by strangers: counts are capped before anything is allocated, unknown flags and
//! trailing bytes are skipped as newer nodes append fields, and nothing panics.

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod address;
mod flags;
pub mod hyperdht;
pub mod id;
pub mod message;
pub mod routing_table;
