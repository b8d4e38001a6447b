//! All tests of the DHT without a network, in one program: each one more would link the same crates again.

mod common;
mod concurrency;
mod connect_vectors;
mod dead_ends;
mod handshakes;
mod net;
mod paths;
mod payload_props;
mod payload_vectors;
mod props;
mod punching;
mod queries;
mod rpc;
mod simulation;
mod store;
mod vectors;
