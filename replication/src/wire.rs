//! One channel's way out, while it has its turn: messages into the mux, and what is counted.

use ferrocore_mux::{ChannelId, Mux, MuxError};

use crate::buffers::Bounds;
use crate::memory::Memory;
use crate::messages::Message;
use crate::stats::Stats;

/// Sends messages on one channel.
pub(crate) struct Wire<'a> {
    mux: &'a mut Mux,
    channel: ChannelId,
    scratch: &'a mut Vec<u8>,
    memory: &'a Memory,
    bounds: Bounds,
    /// What the channel carries in this turn.
    pub(crate) counted: Stats,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(
        mux: &'a mut Mux,
        channel: ChannelId,
        scratch: &'a mut Vec<u8>,
        memory: &'a Memory,
        bounds: Bounds,
    ) -> Self {
        Self {
            mux,
            channel,
            scratch,
            memory,
            bounds,
            counted: Stats::default(),
        }
    }

    /// What the connection may remember of what the peer says.
    pub(crate) fn memory(&self) -> &Memory {
        self.memory
    }

    /// How much may wait to be written.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Sends a message that may be too long for a frame: one with a block.
    pub(crate) fn try_send(&mut self, message: &Message) -> Result<(), MuxError> {
        let (mux, channel) = (&mut *self.mux, self.channel);
        self.counted.messages_sent += 1;
        message.encode(self.scratch, |segments| {
            mux.send(channel, message.kind(), segments)
        })
    }

    /// Sends a short message. On a channel that was closed meanwhile it is of no interest.
    pub(crate) fn send(&mut self, message: &Message) {
        let sent = self.try_send(message);
        debug_assert!(
            !matches!(sent, Err(MuxError::MessageTooLong { .. })),
            "{message:?} is short"
        );
    }

    /// How many bytes wait to be written on all channels.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.mux.buffered_bytes()
    }
}
