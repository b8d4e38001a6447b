//! All tests of live Node and Rust peers, in one program: each one more would link the same crates again.

mod beside_node;
mod cancels;
mod chaos;
mod conflicts;
mod connect;
mod dht;
mod exceptions;
mod extensions;
mod foreign;
mod forks;
mod histories;
mod lan;
mod live;
mod node_peers;
mod pipes;
mod proofs;
mod restored;
mod scenarios;
mod seeks;
mod signers;
mod swarm;
mod swarms;
mod travel;
mod udx;
mod websocket;
