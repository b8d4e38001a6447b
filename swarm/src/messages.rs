//! Messages beside a connection's stream: each for itself, perhaps lost, doubled or late, and held up by nothing.
//! Knows their encryption, and what becomes of those that nobody takes. Does not know what they say.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferrocore_secret_stream::HandshakeResult;
use ferrocore_secret_stream::unordered::{OVERHEAD, Opener, Sealer};
use ferrocore_udx::socket::StreamHandle;
use ferrocore_udx::stream::StreamError;
use thiserror::Error;

/// Sends and takes messages beside the stream of a connection over UDP: what `send`, `trySend` and `'message'` are of
/// `@hyperswarm/secret-stream`. A cheap clone; it keeps no connection open.
///
/// A message goes in one datagram, encrypted, and is not repeated. Of those that nobody takes the
/// [`UNTAKEN_MAX`] latest are kept, and [`dropped`](Self::dropped) counts the others.
#[derive(Clone)]
pub struct Messages {
    shared: Arc<Shared>,
}

/// Messages of the peer that wait to be taken, and ours that wait to be sent.
pub const UNTAKEN_MAX: usize = ferrocore_udx::limits::MESSAGES_MAX;

struct Shared {
    handle: StreamHandle,
    sealer: Mutex<Sealer>,
    opener: Opener,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It does not fit a datagram: send it over the stream, or in pieces.
    #[error("a message of {len} bytes is longer than {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// What fits now; it may become more as the path is found to take longer datagrams, or less on another path.
        max: usize,
    },
    /// [`UNTAKEN_MAX`] wait to be sent: drop it, or try again later.
    #[error("too many messages wait to be sent")]
    TooMany,
    /// The connection is over.
    #[error("the connection is over")]
    Over,
}

impl Messages {
    /// Beside the stream of `handle`, whose handshake gave `keys`. To be made once of each: two would use the same keys.
    pub(crate) fn new(handle: StreamHandle, keys: &HandshakeResult) -> Self {
        let shared = Shared {
            handle,
            sealer: Mutex::new(Sealer::new(keys)),
            opener: Opener::new(keys),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The longest message that fits a datagram now, in bytes: 1,100 or more.
    pub fn len_max(&self) -> usize {
        self.shared
            .handle
            .message_len_max()
            .saturating_sub(OVERHEAD)
    }

    /// How many messages of the peer nobody took before [`UNTAKEN_MAX`] others came.
    pub fn dropped(&self) -> u64 {
        self.shared.handle.stats().messages_dropped
    }

    /// Sends a message, which may get lost.
    ///
    /// # Errors
    /// As [`MessageError`] says of each.
    pub fn send(&self, message: &[u8]) -> Result<(), MessageError> {
        let (len, max) = (message.len(), self.len_max());
        if len > max {
            return Err(MessageError::TooLong { len, max });
        }
        let envelope = {
            let sealer = self.shared.sealer.lock();
            let mut sealer = sealer.unwrap_or_else(PoisonError::into_inner);
            sealer.seal(message)
        };
        let sent = self.shared.handle.send_message(envelope.into());
        sent.map_err(|error| match error {
            StreamError::TooManyMessages => MessageError::TooMany,
            StreamError::MessageTooLong { max, .. } => {
                let max = max.saturating_sub(OVERHEAD);
                MessageError::TooLong { len, max }
            }
            _ => MessageError::Over,
        })
    }

    /// The peer's next message; `None` once the connection is over and all were taken. What was not made by the peer, or was
    /// changed on its way, is dropped.
    pub async fn recv(&self) -> Option<Bytes> {
        loop {
            let envelope = self.shared.handle.recv_message().await.ok()?;
            // Peers also send empty ones, to show where they are.
            if let Some(message) = self.shared.opener.open(&envelope) {
                return Some(message.into());
            }
        }
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}
