//! Protomux: many protocols over one stream of messages, without IO.
//!
//! A [`Mux`] turns frames into [`Event`]s and messages into [`Frame`]s. It is a state machine:
//! frames come in by [`Mux::handle_frame`], leave by [`Mux::poll_transmit`], and whoever owns the
//! byte stream moves them. One frame is one message of the secret stream below.
//!
//! Payloads are never copied on the way in (they are slices of the frame) and long ones are not
//! copied on the way out (they are segments of the frame, see [`Segment::Share`]).
//!
//! The wire format is that of the JavaScript package `protomux` 3:
//!
//! | frame | layout |
//! |---|---|
//! | message | `uint channel`, `uint kind`, payload |
//! | batch | `00 00`, `uint channel`, then items `uint length`, `uint kind`, payload; length 0 is followed by `uint channel` and switches to it |
//! | open | `00 01`, `uint channel`, `string protocol`, `buffer id`, handshake |
//! | reject | `00 02`, `uint channel` (the opener's) |
//! | close | `00 03`, `uint channel` (the closer's) |
//!
//! Knows channels, their pairing and batches. Does not know what any protocol says, nor encryption.
//!
//! ```
//! use ferrocore_mux::{Event, Mux, Segment};
//!
//! let (mut alice, mut bob) = (Mux::new(), Mux::new());
//! let hers = alice.open("chat", None, b"")?;
//! let his = bob.open("chat", None, b"")?;
//! alice.send(hers, 0, &[Segment::Copy(b"hello")])?;
//! while let Some(frame) = alice.poll_transmit() {
//!     bob.handle_frame(frame.to_bytes());
//! }
//! assert!(matches!(bob.poll_event()?, Some(Event::Opened { channel, .. }) if channel == his));
//! assert!(matches!(bob.poll_event()?, Some(Event::Message { payload, .. }) if payload == "hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod channels;
mod error;
mod inbox;
pub mod limits;
mod mux;
mod outbox;
mod remotes;

pub use channels::{ChannelId, OfferId};
pub use error::{MuxError, PeerMisbehaved};
pub use mux::{Event, Mux};
pub use outbox::{Frame, Segment};
