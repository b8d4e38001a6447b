//! The driver: UDP sockets on tokio, each carrying many streams and plain datagrams.
//! Knows sockets, tasks and clocks. Does not know the protocol, which is [`Stream`](crate::stream::Stream)'s.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ferrocore_udx::socket::Udx;
//! use ferrocore_udx::stream::Config;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let udx = Udx::new();
//! let socket = udx.bind("0.0.0.0:0".parse()?)?;
//! // Ids and addresses travel by other means: a DHT's handshake, for one.
//! let mut stream = udx.create_stream(7, Config::default())?;
//! stream.connect(&socket, 9, "192.0.2.1:4000".parse()?)?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer).await?;
//! # Ok(()) }
//! ```

mod buffers;
mod datagrams;
mod driver;
mod fragments;
mod handle;
mod table;
mod timers;
mod udp;

pub use handle::{Path, StreamHandle, UdxStream};
pub use table::{CreateError, Udx};
pub use udp::{Datagram, SocketStats, UdxSocket};
