//! Why the DHT did not do what was asked.

use std::io;

use ferrocore_dht::message::ErrorCode;
use ferrocore_dht::rpc::RequestError;
use thiserror::Error;

/// Why the DHT did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DhtError {
    /// There is no answer, or it could not be asked for.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No node near the target answered. Check the network and the bootstrap nodes.
    #[error("no node of the DHT answered")]
    NobodyAnswered,
    /// The nodes refused: for mutable records, there is a newer one (17), or another of this number (16).
    #[error("the nodes refused, with error {}", .0.0)]
    Refused(ErrorCode),
    /// The value is too large to travel. Put a hash of it there, or the key of a core.
    #[error("{0} bytes are too large for a record")]
    TooLarge(usize),
    /// The node was closed.
    #[error("the node is closed")]
    Closed,
    /// A socket could not be opened.
    #[error("cannot open a UDP socket")]
    Io(#[from] io::Error),
}
