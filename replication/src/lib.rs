//! Replication of hypercores: the `hypercore/alpha` protocol over any encrypted stream.
//!
//! [`Connection`] is the protocol without IO: frames in, frames out, time passed in. [`Session`] is a
//! tokio task that moves its frames over a [`SecretStream`](ferrocore_secret_stream::SecretStream) and
//! opens the cores that a peer asks for in a [`Corestore`](ferrocore_log::Corestore).
//!
//! What is wanted of a core, and by whom it is being fetched, is the core's own business
//! ([`ferrocore_log::supply`]): every channel is one supplier among others. What a peer sends reaches
//! storage only as a proof that the core has verified.
//!
//! | module | concept |
//! |---|---|
//! | [`messages`] | bytes of the ten messages |
//! | [`fully_remote`] | proofs that travel alone |
//! | [`capability`] | proof that a peer knows a core's key |
//! | [`connection`], `shares`, `heard` | all channels of one stream |
//! | `channel` | one core on one stream: the parts below, composed |
//! | `peer`, `remote_blocks`, `holdings`, `remote_wants` | what the other side has and wants |
//! | `announcer` | what it is told unasked |
//! | `uploads` | what it asked |
//! | `downloads`, `requests`, `promises`, `kept` | what it is asked |
//! | `pace` | how fast it answers, and how much it is asked at a time |
//! | `pushes` | blocks that are sent unasked |
//! | `extensions` | messages of applications |
//! | `buffers`, `memory` | what all of it may hold |
//! | [`session`] | the driver |
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod alarm;
mod announcer;
mod buffers;
pub mod capability;
mod channel;
pub mod connection;
mod downloads;
mod extensions;
mod following;
pub mod fully_remote;
#[doc(hidden)]
pub mod fuzzing;
mod heard;
mod holdings;
mod kept;
pub mod limits;
mod memory;
pub mod messages;
pub mod misbehaviour;
mod pace;
mod patience;
mod peer;
mod promises;
mod pushes;
mod reminder;
mod remote_blocks;
mod remote_wants;
mod requests;
mod seldom;
pub mod session;
mod shares;
pub mod stats;
mod suspicion;
mod unplaced;
mod uploads;
mod wire;
mod work;

pub use connection::Connection;
pub use misbehaviour::PeerMisbehaved;
pub use session::{Session, SessionError};
pub use stats::{CoreStats, SessionReport, Stats};
