//! Connections to peers by their key: handshakes through relays of the DHT, holes in NATs, blind relays.
//! Knows what `hyperdht` 6.34 does to connect. Does not know topics, nor what is said over a connection.
//!
//! [`Peers`] makes connections and listens for them; a [`Connection`] is an encrypted stream and the path it took.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ferrocore_primitives::sign::KeyPair;
//! use ferrocore_swarm::connect::{ConnectOptions, ListenOptions, Peers};
//! use ferrocore_swarm::dht::Dht;
//!
//! let peers = Peers::new(Dht::builder().bind()?, KeyPair::generate());
//! let keys = KeyPair::generate();
//! let mut server = peers.listen(keys.clone(), ListenOptions::default())?;
//! server.announced().await;
//! // Elsewhere:
//! let connection = peers.connect(keys.public_key(), ConnectOptions::default()).await?;
//! println!("connected, {}", connection.route);
//! let (mut sender, mut receiver) = connection.stream.split();
//! # Ok(()) }
//! ```
//!
//! A dial is a race of all ways that make sense ([`ferrocore_dht::hyperdht::path`]). If a blind relay wins it, the
//! others go on, and the stream moves to the first direct path without its reader or writer noticing.

mod accept;
mod announcing;
mod blind;
mod dial;
mod error;
mod net;
mod peers;
mod pool;
mod punching;
mod race;
mod relay_server;
mod roam;
mod search;
mod server;
mod sockets;
mod stream;

pub use dial::{ConnectOptions, DIAL_TIMEOUT, RELAY_LINGER};
pub use error::{ConnectError, DialEvent, RelayError, Route, Watcher};
pub use peers::{ListenError, Peers};
pub use pool::Pool;
pub use relay_server::{BlindRelay, RelayStats, SESSIONS_MAX};
pub use server::{Announcement, BACKLOG_MAX, Caller, ListenOptions, Server};
pub use stream::{Connection, KEEP_ALIVE, PATH_TIMEOUT};
