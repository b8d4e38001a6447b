//! Hypercore in Rust: share logs and folders between machines, verified block by block.
//!
//! A [`Node`] is a store of cores and the peers it replicates them with. A [`Core`] is a signed,
//! append-only log; a [`Drive`] is a file system on two of them. Whatever arrives from a peer is
//! verified against a signature before it is stored or handed out.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ferrocore::Node;
//!
//! let alice = Node::builder().listen("127.0.0.1:0").open().await?;
//! let notes = alice.create_core("notes")?;
//! notes.append("hello")?;
//!
//! let bob = Node::builder().peer(alice.listen_addr().unwrap()).open().await?;
//! let copy = bob.core(&notes.key())?;
//! assert_eq!(copy.get(0).await?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! Reading waits for peers as long as the node has a way to reach any. How long is enough is the
//! caller's to say, with a timeout of its own.
//!
//! # Features
//! `sodium`: encrypt by libsodium, which is faster. The bytes are the same.
//!
//! `websocket`: addresses that begin with `ws://`, and module `websocket`.

#![deny(missing_docs)]

mod address;
mod bans;
#[doc(hidden)]
pub mod fuzzing;
mod guests;
mod known_nodes;
pub mod limits;
mod network;
mod node;
mod peers;
mod shared;
mod tcp;
mod throttle;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use ferrocore_bee as bee;
pub use ferrocore_drive as drive;
pub use ferrocore_log as log;
pub use ferrocore_primitives as primitives;
pub use ferrocore_replication as replication;
pub use ferrocore_secret_stream as secret_stream;
pub use ferrocore_swarm as swarm;

pub use ferrocore_bee::Bee;
pub use ferrocore_drive::{Drive, DriveOptions};
pub use ferrocore_log::{Core, Corestore, Durability, EncryptionKey};
pub use ferrocore_primitives::id::{IdError, Link};
pub use ferrocore_primitives::keys::{DiscoveryKey, Key};
pub use ferrocore_primitives::sign::PublicKey;

pub use ferrocore_swarm::transport::Via;
pub use network::{DhtOptions, Discovery};
pub use node::{Node, NodeBuilder, NodeError};
pub use peers::{ConnectionId, PeerEvent, PeerEvents, PeerInfo, PeerReport};
pub use tcp::{Dialing, Listening};

/// The examples of the README must work, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
