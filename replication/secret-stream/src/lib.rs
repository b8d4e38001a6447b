//! The encrypted byte stream between two Hyperswarm peers: `@hyperswarm/secret-stream` 6.9.2.
//!
//! Knows the Noise handshake, the header exchange, the encryption and the framing of messages. Does not
//! know what messages mean, nor how the peers found each other.
//!
//! ```text
//! initiator                                  responder
//!   Noise messages, one frame each  <----->
//!   stream id, header               ------>
//!                                   <------  stream id, header
//!   encrypted messages              <----->  encrypted messages
//! ```
//!
//! Everything on the wire is a frame: u24 length, little endian, and that many bytes. [`Handshake`],
//! [`Outgoing`] and [`Incoming`] do the work without IO; with the feature `tokio` (on by default),
//! [`SecretStream`] drives them over any byte stream. [`unordered`] encrypts messages that go beside it.

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

#[cfg(feature = "tokio")]
pub mod budget;
mod curve;
mod direction;
#[cfg(feature = "tokio")]
mod driver;
mod error;
mod framer;
mod handshake;
mod noise;
#[cfg(feature = "tokio")]
mod receiver;
pub mod secret_box;
pub mod secretstream;
pub mod unordered;

#[cfg(feature = "tokio")]
pub use budget::{FrameBudget, FrameBudgets, FrameRoom};
pub use direction::{Incoming, MESSAGE_LEN_MAX, Outgoing};
#[cfg(feature = "tokio")]
pub use driver::{
    HANDSHAKE_TIMEOUT, KEEP_ALIVE, Options, SEND_BUFFER_LEN, SecretStream, Sender, WRITE_TIMEOUT,
};
pub use error::{HandshakeError, StreamError};
pub use framer::{FRAME_LEN_MAX, Framer, READ_LEN_MAX, put_frame};
pub use handshake::{HANDSHAKE_FRAME_LEN_MAX, Handshake, HandshakeResult, Pattern, Role};
#[cfg(feature = "tokio")]
pub use receiver::{Arrivals, FRAME_BYTES_A_SECOND, FRAME_TIMEOUT, Receiver};
