//! Frames on their way in, taken apart one item at a time.
//!
//! Knows batches. Does not know channels. A frame of sixteen million bytes may hold eight million
//! items, so they are decoded when asked for and never stored apart from their frame.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use ferrocore_primitives::encoding::{DecodeError, Reader};

use crate::error::PeerMisbehaved;
use crate::limits::{BATCH_DEPTH_MAX, FRAME_LEN_MAX};

/// The channel of control messages.
pub(crate) const CONTROL: u64 = 0;

/// The control message that holds items.
const BATCH: u64 = 0;

/// One message: the sender's number of the channel, the kind of message, the payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) channel: u64,
    pub(crate) kind: u64,
    pub(crate) payload: Bytes,
}

/// Frames given but not decoded to their end.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    frames: VecDeque<Bytes>,
    /// The batch being read, below it those that contain it.
    batches: Vec<Batch>,
}

#[derive(Debug)]
struct Batch {
    channel: u64,
    rest: Bytes,
}

impl Inbox {
    /// Queues a frame. An empty one is a keep-alive and means nothing.
    pub(crate) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.frames.push_back(frame);
        }
    }

    /// The next item that is not a batch, or `None` when all frames are read.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, PeerMisbehaved> {
        loop {
            let Some(item) = self.next_raw()? else {
                return Ok(None);
            };
            if (item.channel, item.kind) != (CONTROL, BATCH) {
                return Ok(Some(item));
            }
            self.enter(item.payload)?;
        }
    }

    fn next_raw(&mut self) -> Result<Option<Item>, PeerMisbehaved> {
        while let Some(batch) = self.batches.last_mut() {
            match batch.next()? {
                Some(item) => return Ok(Some(item)),
                None => self.batches.pop(),
            };
        }
        let Some(mut frame) = self.frames.pop_front() else {
            return Ok(None);
        };
        if frame.len() > FRAME_LEN_MAX {
            return Err(PeerMisbehaved::FrameTooLong { len: frame.len() });
        }
        let channel = take_uint(&mut frame)?;
        Ok(Some(Item::parse(channel, frame)?))
    }

    fn enter(&mut self, mut batch: Bytes) -> Result<(), PeerMisbehaved> {
        if self.batches.len() == BATCH_DEPTH_MAX {
            return Err(PeerMisbehaved::BatchTooDeep);
        }
        let channel = take_uint(&mut batch)?;
        self.batches.push(Batch {
            channel,
            rest: batch,
        });
        Ok(())
    }
}

impl Batch {
    fn next(&mut self) -> Result<Option<Item>, DecodeError> {
        while !self.rest.is_empty() {
            match take_uint(&mut self.rest)? {
                0 => self.channel = take_uint(&mut self.rest)?,
                len => return self.take_item(len).map(Some),
            }
        }
        Ok(None)
    }

    fn take_item(&mut self, len: u64) -> Result<Item, DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::OutOfBounds)?;
        if len > self.rest.len() {
            return Err(DecodeError::OutOfBounds);
        }
        Item::parse(self.channel, self.rest.split_to(len))
    }
}

impl Item {
    fn parse(channel: u64, mut message: Bytes) -> Result<Self, DecodeError> {
        let kind = take_uint(&mut message)?;
        Ok(Self {
            channel,
            kind,
            payload: message,
        })
    }
}

/// Reads one uint off the front.
fn take_uint(bytes: &mut Bytes) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = reader.uint()?;
    let used = bytes.len() - reader.remaining();
    bytes.advance(used);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(frame: &[u8]) -> Result<Vec<(u64, u64, Vec<u8>)>, PeerMisbehaved> {
        let mut inbox = Inbox::default();
        inbox.push(Bytes::copy_from_slice(frame));
        let mut items = Vec::new();
        while let Some(item) = inbox.next()? {
            items.push((item.channel, item.kind, item.payload.to_vec()));
        }
        Ok(items)
    }

    #[test]
    fn a_batch_may_switch_channels_and_hold_batches() {
        // Goal: nested batches come out flat and in order, and the outer channel is kept.
        let inner = [0, 7, 2, 1, b'x']; // kind 0 = batch, channel 7, one item
        let mut frame = vec![0, 0, 3, 2, 5, b'a', 0, 0, inner.len() as u8];
        frame.extend(inner);
        frame.extend([0, 3, 1, 9]);
        let expected = vec![(3, 5, b"a".to_vec()), (7, 1, b"x".to_vec()), (3, 9, vec![])];
        assert_eq!(items(&frame).unwrap(), expected);
    }

    #[test]
    fn nesting_is_bounded() {
        // Goal: a small frame cannot make us recurse; each level costs the peer three bytes.
        let mut frame = vec![0, 0, 1, 1, 5];
        for _ in 0..BATCH_DEPTH_MAX {
            let mut outer = vec![0, 0, 0, u8::try_from(frame.len() - 1).unwrap()];
            outer.extend(&frame[1..]);
            frame = outer;
        }
        assert_eq!(items(&frame), Err(PeerMisbehaved::BatchTooDeep));
    }

    #[test]
    fn what_ends_too_early_is_refused() {
        let cases: [&[u8]; 6] = [
            &[1],
            &[0, 0],
            &[0, 0, 1, 0],
            &[0, 0, 1, 2, 5],
            &[0xfd, 1],
            &[0xff; 9],
        ];
        for frame in cases {
            assert!(
                matches!(items(frame), Err(PeerMisbehaved::Malformed(_))),
                "{frame:?}"
            );
        }
    }

    #[test]
    fn overlong_frames_are_refused() {
        let frame = vec![1; FRAME_LEN_MAX + 1];
        assert_eq!(
            items(&frame),
            Err(PeerMisbehaved::FrameTooLong { len: frame.len() })
        );
        assert!(items(&frame[1..]).is_ok());
    }

    #[test]
    fn empty_frames_mean_nothing() {
        assert_eq!(items(&[]).unwrap(), vec![]);
    }
}
