//! What can go wrong, split by whose fault it is.

use ferrocore_primitives::encoding::DecodeError;

/// The peer broke the protocol: the stream is of no use any more, close it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A frame ends too early or holds an impossible number.
    #[error("peer sent a malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// A frame is longer than [`FRAME_LEN_MAX`](crate::limits::FRAME_LEN_MAX).
    #[error("peer sent a frame of {len} bytes")]
    FrameTooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// Batches are nested deeper than [`BATCH_DEPTH_MAX`](crate::limits::BATCH_DEPTH_MAX).
    #[error("peer nested batches too deeply")]
    BatchTooDeep,
    /// A channel was opened under a number in use, or not the next free one.
    #[error("peer opened channel {channel}, which is in use or out of order")]
    OpenedWrongChannel {
        /// The peer's number of it.
        channel: u64,
    },
    /// A channel was rejected that was not on offer.
    #[error("peer rejected channel {channel}, which was not on offer")]
    RejectedWrongChannel {
        /// Our number of it.
        channel: u64,
    },
    /// A protocol name or channel id is longer than [`NAME_LEN_MAX`](crate::limits::NAME_LEN_MAX).
    #[error("peer named a channel with {len} bytes")]
    NameTooLong {
        /// Length of the name or id, in bytes.
        len: usize,
    },
    /// More than [`REMOTE_CHANNELS_MAX`](crate::limits::REMOTE_CHANNELS_MAX) channels.
    #[error("peer opened too many channels")]
    TooManyChannels,
    /// Unanswered offers, with what was sent ahead of the answers, hold more than
    /// [`OFFERED_BYTES_MAX`](crate::limits::OFFERED_BYTES_MAX).
    #[error("peer sent too much ahead of our answer")]
    TooMuchAhead,
}

/// A call that does not fit the state of the [`Mux`](crate::Mux). Its state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MuxError {
    /// The channel is closed, or was rejected: drop it.
    #[error("the channel is closed")]
    ChannelClosed,
    /// The offer was answered already, or the peer took it back: drop it.
    #[error("the offer is gone")]
    OfferGone,
    /// The message does not fit a frame: send it in parts.
    #[error("a message of {len} bytes does not fit a frame")]
    MessageTooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// The protocol name or the id is longer than [`NAME_LEN_MAX`](crate::limits::NAME_LEN_MAX).
    #[error("a channel name of {len} bytes is too long")]
    NameTooLong {
        /// Length of the name or id, in bytes.
        len: usize,
    },
}
