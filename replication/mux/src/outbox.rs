//! Messages on their way out, gathered into frames.
//!
//! Knows batches and frame lengths. Does not know channels.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use ferrocore_primitives::encoding::{put_uint, uint_len};

use crate::error::MuxError;
use crate::limits::{BATCH_LEN_TARGET, FRAME_LEN_MAX, LONG_FRAME_LEN};

/// A shared segment shorter than this is copied all the same: one more segment costs more.
const SHARE_LEN_MIN: usize = 2048;

/// The most bytes a batch adds to one message: its own head, a change of channel, a length.
const BATCH_OVERHEAD_MAX: usize = 2 + 2 * 6 + 5;

/// Frames for which memory is kept when none is ready.
const READY_KEPT_MAX: usize = 64;

/// A part of a message's payload.
#[derive(Debug, Clone)]
pub enum Segment<'a> {
    /// Bytes to be copied into the frame.
    Copy(&'a [u8]),
    /// Bytes that travel as a segment of their own when they are long: a block.
    Share(Bytes),
}

impl Segment<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copy(bytes) => bytes,
            Self::Share(bytes) => bytes,
        }
    }
}

/// One frame: segments to be written one behind the other, as one message of the stream below.
#[derive(Debug, Clone)]
pub struct Frame {
    segments: Vec<Bytes>,
    len: usize,
    is_long: bool,
}

impl Frame {
    /// The parts, in order. None is empty.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// Length of all segments together, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// False: a frame always holds a message.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its length if it is a long one, else 0.
    fn long_len(&self) -> usize {
        match self.is_long {
            true => self.len,
            false => 0,
        }
    }

    /// The frame in one piece, copied.
    pub fn to_bytes(&self) -> Bytes {
        self.segments.concat().into()
    }
}

/// What was sent and not yet taken away.
#[derive(Debug)]
pub(crate) struct Outbox {
    ready: VecDeque<Frame>,
    ready_len: usize,
    /// Of it, in long frames.
    ready_long_len: usize,
    batch: Batch,
    /// Frames of more bytes are long ones.
    long_frame_len: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            ready_len: 0,
            ready_long_len: 0,
            batch: Batch::default(),
            long_frame_len: LONG_FRAME_LEN,
        }
    }
}

impl Outbox {
    /// Adds a message to the current batch, or to the next one if it does not fit.
    pub(crate) fn push(
        &mut self,
        channel: u32,
        kind: u64,
        payload: &[Segment<'_>],
    ) -> Result<(), MuxError> {
        let len = payload
            .iter()
            .fold(uint_len(kind), |sum, part| sum + part.as_slice().len());
        if len + uint_len(channel.into()) > FRAME_LEN_MAX {
            return Err(MuxError::MessageTooLong { len });
        }
        if self.batch.items > 0 && self.batch.len + len + BATCH_OVERHEAD_MAX > BATCH_LEN_TARGET {
            self.seal();
        }
        self.batch.push(channel, kind, len, payload);
        Ok(())
    }

    /// Lets the next message begin a frame.
    pub(crate) fn end_batch(&mut self) {
        if self.batch.items > 0 {
            self.seal();
        }
    }

    /// The next frame: everything pushed since the last call, unless that fills several.
    pub(crate) fn poll(&mut self) -> Option<Frame> {
        if self.ready.is_empty() {
            self.end_batch();
        }
        let frame = self.ready.pop_front()?;
        self.ready_len -= frame.len;
        self.ready_long_len -= frame.long_len();
        if self.ready.is_empty() && self.ready.capacity() > READY_KEPT_MAX {
            self.ready = VecDeque::new(); // thousands of channels were opened at once
        }
        Some(frame)
    }

    /// Frames of more than `len` bytes are long ones from now on.
    pub(crate) fn set_long_frame_len(&mut self, len: usize) {
        self.long_frame_len = len.max(BATCH_LEN_TARGET);
    }

    /// How many bytes wait to be taken.
    pub(crate) fn buffered(&self) -> usize {
        self.ready_len + self.batch.len
    }

    /// How many bytes wait in long frames.
    pub(crate) fn buffered_long(&self) -> usize {
        self.ready_long_len
    }

    fn seal(&mut self) {
        let frame = mem::take(&mut self.batch).into_frame(self.long_frame_len);
        self.ready_len += frame.len;
        self.ready_long_len += frame.long_len();
        self.ready.push_back(frame);
    }
}

/// A frame being written. Its head is written last, because a single message needs no batch.
#[derive(Debug, Default)]
struct Batch {
    segments: Vec<Bytes>,
    tail: Vec<u8>,
    items: usize,
    len: usize,
    first_channel: u32,
    first_len: usize,
    last_channel: u32,
}

impl Batch {
    fn push(&mut self, channel: u32, kind: u64, len: usize, payload: &[Segment<'_>]) {
        if self.items == 0 {
            (self.first_channel, self.first_len) = (channel, len);
        } else {
            self.put_item_head(channel, len);
        }
        self.last_channel = channel;
        self.items += 1;
        put_uint(&mut self.tail, kind);
        self.len += uint_len(kind);
        for part in payload {
            self.put(part);
        }
    }

    fn put_item_head(&mut self, channel: u32, len: usize) {
        let before = self.tail.len();
        if channel != self.last_channel {
            self.tail.push(0);
            put_uint(&mut self.tail, channel.into());
        }
        put_uint(&mut self.tail, len as u64);
        self.len += self.tail.len() - before;
    }

    fn put(&mut self, part: &Segment<'_>) {
        self.len += part.as_slice().len();
        match part {
            Segment::Share(bytes) if bytes.len() >= SHARE_LEN_MIN => {
                self.segments.push(mem::take(&mut self.tail).into());
                self.segments.push(bytes.clone());
            }
            small => self.tail.extend_from_slice(small.as_slice()),
        }
    }

    fn into_frame(mut self, long_frame_len: usize) -> Frame {
        let head = self.head();
        let len = head.len() + self.len;
        let mut segments = vec![Bytes::from(head)];
        segments.append(&mut self.segments);
        segments.push(self.tail.into());
        segments.retain(|segment| !segment.is_empty());
        debug_assert!(len <= FRAME_LEN_MAX);
        Frame {
            segments,
            len,
            is_long: len > long_frame_len,
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(BATCH_OVERHEAD_MAX);
        if self.items > 1 {
            head.extend([0, 0]);
        }
        put_uint(&mut head, self.first_channel.into());
        if self.items > 1 {
            put_uint(&mut head, self.first_len as u64);
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_block_is_shared_and_a_short_one_copied() {
        let mut outbox = Outbox::default();
        let block = Bytes::from(vec![7; 64 * 1024]);
        outbox
            .push(
                1,
                3,
                &[
                    Segment::Copy(b"ab"),
                    Segment::Share(block.clone()),
                    Segment::Copy(b"z"),
                ],
            )
            .unwrap();
        let frame = outbox.poll().unwrap();
        let shared = frame
            .segments()
            .iter()
            .any(|segment| segment.as_ptr() == block.as_ptr());
        assert!(shared, "the block's bytes are the frame's bytes");
        assert_eq!(frame.len(), frame.to_bytes().len());

        outbox
            .push(1, 3, &[Segment::Share(block.slice(..10))])
            .unwrap();
        assert_eq!(outbox.poll().unwrap().segments().len(), 2);
        assert!(outbox.poll().is_none());
    }

    #[test]
    fn an_ended_batch_is_a_frame() {
        let mut outbox = Outbox::default();
        outbox.end_batch();
        for message in [b"one", b"two"] {
            outbox.push(1, 0, &[Segment::Copy(message)]).unwrap();
            outbox.end_batch();
        }
        let frames = std::iter::from_fn(|| outbox.poll()).map(|frame| frame.to_bytes());
        assert_eq!(
            frames.collect::<Vec<_>>(),
            [&b"\x01\0one"[..], b"\x01\0two"]
        );
    }

    #[test]
    fn batches_are_sealed_at_the_target_and_nothing_is_lost() {
        let mut outbox = Outbox::default();
        let message = vec![1; BATCH_LEN_TARGET / 3];
        for _ in 0..7 {
            outbox.push(1, 0, &[Segment::Copy(&message)]).unwrap();
        }
        assert!(outbox.buffered() >= 7 * message.len());
        let lens: Vec<_> = std::iter::from_fn(|| outbox.poll())
            .map(|frame| frame.len())
            .collect();
        assert_eq!(lens.len(), 4);
        assert!(lens.iter().all(|len| *len <= BATCH_LEN_TARGET));
        assert_eq!(outbox.buffered(), 0);
    }

    #[test]
    fn the_longest_message_fits_and_a_longer_one_is_refused() {
        let mut outbox = Outbox::default();
        let payload = Bytes::from(vec![0; FRAME_LEN_MAX - 1]);
        outbox.push(1, 0, &[Segment::Copy(b"small")]).unwrap();
        let refused = outbox.push(1, 0, &[Segment::Share(payload.clone())]);
        assert_eq!(
            refused,
            Err(MuxError::MessageTooLong { len: FRAME_LEN_MAX })
        );
        outbox
            .push(1, 0, &[Segment::Share(payload.slice(1..))])
            .unwrap();
        outbox.push(1, 0, &[Segment::Copy(b"small")]).unwrap();
        assert_eq!(outbox.buffered_long(), FRAME_LEN_MAX);
        let lens: Vec<_> = std::iter::from_fn(|| outbox.poll())
            .map(|frame| frame.len())
            .collect();
        assert_eq!(lens, [7, FRAME_LEN_MAX, 7]);
        assert_eq!(outbox.buffered_long(), 0);
    }
}
