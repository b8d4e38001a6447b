//! Frames on a byte stream: u24 length, little endian, then that many bytes.
//! Knows how to cut received bytes into frames without copying them. Does not know what frames hold.

use bytes::{Buf, BytesMut};
use ferrocore_primitives::encoding::{Reader, put_u24};

use crate::StreamError;

/// The longest frame the length field can announce, in bytes.
pub const FRAME_LEN_MAX: usize = (1 << 24) - 1;

/// The most bytes a read asks for, unless a longer frame is on its way.
pub const READ_LEN_MAX: usize = 128 * 1024;

/// Bytes the first read asks for; doubled whenever a read fills all its space.
const READ_LEN_MIN: usize = 512;

/// Bytes of the length field.
const PREFIX_LEN: usize = 3;

/// Cuts a byte stream into frames.
///
/// Read into [`space`](Self::space), then call [`next_frame`](Self::next_frame) until there is none. Space
/// grows with what has arrived, never by an announced length alone: at most twice the bytes at hand, or what a read
/// may ask for ([`READ_LEN_MAX`] unless told otherwise).
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    frame_len_max: usize,
    read_len: usize,
    read_len_max: usize,
}

impl Framer {
    /// Accepts frames of up to `frame_len_max` bytes.
    pub fn new(frame_len_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            frame_len_max,
            read_len: READ_LEN_MIN,
            read_len_max: READ_LEN_MAX,
        }
    }

    /// Accepts frames of up to `frame_len_max` bytes from now on.
    pub fn set_frame_len_max(&mut self, frame_len_max: usize) {
        self.frame_len_max = frame_len_max;
    }

    /// Asks for at most `len` bytes in a read from now on, up to [`READ_LEN_MAX`], and keeps no buffer in which nothing
    /// is.
    pub fn set_read_len_max(&mut self, len: usize) {
        self.read_len_max = len.min(READ_LEN_MAX);
        self.read_len = self.read_len.min(self.read_len_max);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Where to append what was read: a buffer with spare capacity.
    ///
    /// Fill as much of the spare capacity as there is to read; what is already there must stay.
    pub fn space(&mut self) -> &mut BytesMut {
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare == 0 && self.buffer.capacity() > 0 {
            self.read_len = self.read_len_max.min(2 * self.read_len);
        }
        let missing = self.missing_len();
        // The end of a long frame is not worth moving all of it.
        let is_at_end = (1..=spare).contains(&missing) && self.buffer.len() > self.read_len;
        // Little space would mean little work per system call.
        if spare == 0 || (spare < self.read_len / 4 && !is_at_end) {
            let doubled = missing.min(self.buffer.len());
            self.grow(doubled.max(self.read_len));
        }
        &mut self.buffer
    }

    /// Makes space for the whole frame that has begun to arrive: for callers that have found out that they
    /// can afford it.
    pub fn reserve_frame(&mut self) {
        let missing = self.missing_len();
        if missing > self.buffer.capacity() - self.buffer.len() {
            self.grow(missing);
        }
    }

    /// The announced length of the frame that has begun to arrive, if some of it is missing and it is
    /// allowed.
    pub fn incomplete_len(&self) -> Option<usize> {
        let len = self.announced_len()?;
        (len <= self.frame_len_max && self.missing_len() > 0).then_some(len)
    }

    /// The next frame, if all of it is there. It shares memory with others that were read with it.
    ///
    /// # Errors
    /// [`StreamError::FrameTooLong`] as soon as such a length is announced.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, StreamError> {
        let Some(len) = self.announced_len() else {
            return Ok(None);
        };
        if len > self.frame_len_max {
            let max = self.frame_len_max;
            return Err(StreamError::FrameTooLong { len, max });
        }
        if self.missing_len() > 0 {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_LEN);
        let frame = self.buffer.split_to(len);
        if len > self.read_len_max {
            // What came behind it must not keep its memory.
            self.buffer = BytesMut::from(self.buffer.as_ref());
        }
        Ok(Some(frame))
    }

    /// Whether no bytes are left: the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes that the frame at hand still lacks.
    fn missing_len(&self) -> usize {
        let len = PREFIX_LEN + self.announced_len().unwrap_or(0);
        len.saturating_sub(self.buffer.len())
    }

    /// Makes space for exactly `additional` bytes: `reserve` alone would double what is there.
    fn grow(&mut self, additional: usize) {
        if !self.buffer.try_reclaim(additional) {
            let mut larger = BytesMut::with_capacity(self.buffer.len() + additional);
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        }
    }

    fn announced_len(&self) -> Option<usize> {
        let len = Reader::new(&self.buffer).u24().ok()?;
        usize::try_from(len).ok()
    }
}

/// Appends a frame around `payload`, which must be at most [`FRAME_LEN_MAX`] bytes long.
pub fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame_len(out, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the length field of a frame of `len` bytes.
pub(crate) fn put_frame_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("callers keep to FRAME_LEN_MAX");
    put_u24(out, len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    /// Reads from `wire` what fits in the spare capacity, at most `limit` bytes, as a socket would.
    fn read(framer: &mut Framer, wire: &mut &[u8], limit: usize) {
        let space = framer.space();
        let spare = space.capacity() - space.len();
        assert!(spare > 0);
        let (now, later) = wire.split_at(spare.min(limit).min(wire.len()));
        space.put_slice(now);
        *wire = later;
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        // A peer announces the longest frame and then trickles bytes.
        let mut framer = Framer::new(FRAME_LEN_MAX);
        let mut wire = Vec::new();
        put_frame_len(&mut wire, FRAME_LEN_MAX);
        wire.resize(3000, 0);
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            read(&mut framer, &mut wire, 1);
            assert!(framer.next_frame().unwrap().is_none());
        }
        assert!(framer.buffer.capacity() <= 4 * 3000);
    }

    #[test]
    fn too_long_a_frame_is_refused_at_its_length() {
        let mut framer = Framer::new(10);
        framer.space().extend_from_slice(&[11, 0]);
        assert!(framer.next_frame().unwrap().is_none());
        framer.space().extend_from_slice(&[0]);
        assert!(matches!(
            framer.next_frame(),
            Err(StreamError::FrameTooLong { len: 11, max: 10 })
        ));
        framer.set_frame_len_max(11);
        assert!(framer.next_frame().unwrap().is_none());
    }

    #[test]
    fn reads_grow_while_they_fill_the_space() {
        let mut framer = Framer::new(FRAME_LEN_MAX);
        let mut wire = vec![];
        (0..100).for_each(|_| put_frame(&mut wire, &[7; 60_000]));
        let mut wire = wire.as_slice();
        let mut reads = 0;
        while !wire.is_empty() {
            read(&mut framer, &mut wire, usize::MAX);
            while framer.next_frame().unwrap().is_some() {}
            reads += 1;
        }
        assert!(reads < 60, "{reads} reads for 6 MB");
        assert!(framer.buffer.capacity() <= 2 * READ_LEN_MAX);
    }

    proptest! {
        /// However frames are cut by reads, they come out as they went in.
        #[test]
        fn frames_survive_any_cut(
            lens in prop::collection::vec(prop_oneof![0..40usize, 0..5000usize], 0..20),
            limits in prop::collection::vec(1..3000usize, 1..10),
        ) {
            let frames: Vec<Vec<u8>> = (0u8..).zip(lens).map(|(fill, len)| vec![fill; len]).collect();
            let mut wire = Vec::new();
            frames.iter().for_each(|frame| put_frame(&mut wire, frame));
            let (mut wire, mut framer) = (wire.as_slice(), Framer::new(5000));
            let mut limits = limits.into_iter().cycle();
            let mut received = Vec::new();
            while !wire.is_empty() {
                read(&mut framer, &mut wire, limits.next().unwrap());
                while let Some(frame) = framer.next_frame().unwrap() {
                    received.push(frame.to_vec());
                }
            }
            prop_assert!(framer.is_empty());
            prop_assert_eq!(received, frames);
        }
    }
}
