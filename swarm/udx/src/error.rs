//! What can go wrong with a stream, and what to do about it.

use thiserror::Error;

/// Why a stream closed without both sides having ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer dropped the stream. Connect again if there was more to say.
    #[error("the peer destroyed the stream")]
    ResetByPeer,
    /// The peer acked nothing for [`give_up_after`](crate::stream::Config::give_up_after), or was silent for
    /// [`idle_timeout`](crate::stream::Config::idle_timeout). Look for another path to it.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// This side dropped the stream.
    #[error("the stream was destroyed on this side")]
    Destroyed,
    /// The socket below was closed or failed. Bind another one.
    #[error("the UDP socket was closed")]
    SocketClosed,
}

/// A call that the stream's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Connect first.
    #[error("the stream is not connected")]
    NotConnected,
    /// A stream connects once; use `change_remote` to move it.
    #[error("the stream is connected already")]
    AlreadyConnected,
    /// The remote address has port 0 or is unspecified.
    #[error("the remote address cannot be sent to")]
    BadAddress,
    /// This side has ended the stream: nothing can be written after that.
    #[error("the stream was ended on this side")]
    Ended,
    /// The stream is over.
    #[error("the stream is closed: {0}")]
    Closed(#[from] CloseReason),
    /// An unordered message must fit into one packet.
    #[error("the message has {len} bytes, a packet holds {max}")]
    MessageTooLong {
        /// The message's length, in bytes.
        len: usize,
        /// What fits now, in bytes; it grows while the path's MTU is being found.
        max: usize,
    },
    /// Too many unordered messages are waiting: send it later or not at all.
    #[error("too many unordered messages are waiting to be sent")]
    TooManyMessages,
}
