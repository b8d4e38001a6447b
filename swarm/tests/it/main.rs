//! All tests of swarms, on memory transports and on loopback, in one program: each one more would link the same crates again.

mod connect;
mod dht;
mod duplicates;
mod flooded;
mod lan;
mod network;
mod online;
mod relayed;
mod swarm;
