//! Hyperswarm: find the peers of a topic, connect to each, keep one connection to each.
//!
//! Knows the rules of `hyperswarm` 4.17: who is dialled when, how often, and which of two connections stays. Does not know
//! what is said over a connection: that is the caller's, who gets an encrypted stream and its peer's key.
//!
//! The rules are state machines without IO; time and randomness are passed in.
//!
//! - [`peer_info`] is what is remembered of one peer: how often it was tried, and how soon it is worth another try.
//! - [`queue`] says who is dialled next, [`retry`] when a peer that was lost comes back into it.
//! - [`connections`] is the duplicate rule: of two connections to one peer, both sides keep the same one.

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod connections;
pub mod limits;
pub mod peer_info;
pub mod queue;
pub mod retry;
mod rng;
mod topic;

pub use topic::Topic;
