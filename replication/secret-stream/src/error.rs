//! What can go wrong on a stream, and whose fault it is.

use std::io;

/// Why a handshake failed. The connection is of no use; none of the variants says anything about other
/// connections to the same peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A message of the peer is shorter than its keys.
    #[error("a handshake message is too short")]
    Truncated,
    /// The peer's key is no point on the curve, or one that would make the shared secret predictable.
    #[error("the peer sent a public key that cannot be used")]
    UnusableKey,
    /// A message of the peer does not decrypt: it speaks another protocol, expects another key of us, or
    /// somebody changed the message on its way.
    #[error("a handshake message does not decrypt")]
    Forged,
    /// The caller read when it was its turn to write, or the other way round, or went on after an error.
    #[error("handshake step called out of turn")]
    OutOfTurn,
}

/// Why a stream ended. Drop the connection; apart from [`MessageTooLong`](Self::MessageTooLong) nothing
/// more can be sent or received on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The byte stream below failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The handshake failed.
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    /// The peer did not complete the handshake in time; see `Options::handshake_timeout`.
    #[error("the peer did not complete the handshake in time")]
    HandshakeTimeout,
    /// Nothing arrived for too long; see `Options::idle_timeout`.
    #[error("nothing was received from the peer for too long")]
    IdleTimeout,
    /// The peer took nothing of what was written for too long; see `Options::write_timeout`.
    #[error("the peer did not read what was sent to it for too long")]
    WriteTimeout,
    /// A frame that had begun to arrive did not come; or a long one was not worked off, or not taken by the peer, in
    /// the time that it may hold memory for; see the module `budget`.
    #[error("a frame of {len} bytes took too long")]
    FrameTimeout {
        /// Its length, in bytes.
        len: usize,
    },
    /// All memory for long frames was in use for too long: try again later.
    #[error("there was no room for a frame of {len} bytes for too long")]
    NoRoom {
        /// Its length, in bytes.
        len: usize,
    },
    /// The connection ended inside a frame or before the peer's header.
    #[error("the connection ended in the middle of a frame or of the handshake")]
    UnexpectedEnd,
    /// The peer announced a frame longer than is allowed at this point.
    #[error("the peer announced a frame of {len} bytes where at most {max} are allowed")]
    FrameTooLong {
        /// The announced length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// The peer's header is malformed or belongs to another handshake.
    #[error("the peer's header does not belong to this handshake")]
    WrongHeader,
    /// A frame is too short or does not decrypt: it was changed on its way, or the peer is broken.
    #[error("a frame does not decrypt")]
    Forged,
    /// An earlier error ended the stream.
    #[error("an earlier error ended the stream")]
    Failed,
    /// The caller's message does not fit in a frame. Nothing was sent; the stream goes on.
    #[error("a message of {0} bytes is longer than {max}; split it", max = crate::MESSAGE_LEN_MAX)]
    MessageTooLong(usize),
}
