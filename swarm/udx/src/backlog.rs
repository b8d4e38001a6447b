//! Bytes in order that wait for the application, in pieces that come and go one by one: a reader that falls behind
//! costs what waits for it, and nothing is moved or copied again as that grows. Knows nothing of packets.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

/// Longest piece, in bytes, unless one packet is longer: short enough that an allocator has it at hand.
const PIECE_LEN_MAX: usize = 64 * 1024;

/// Shortest piece, in bytes: a packet.
const PIECE_LEN_MIN: usize = 2 * 1024;

/// A queue of bytes. Empty, it holds no memory but for its own few words.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pieces: VecDeque<BytesMut>,
    len: usize,
}

impl Backlog {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `bytes` behind what waits. It takes at most as much memory as waits then, and two pieces.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = self.pieces.back().map_or(0, spare);
        let (here, beyond) = bytes.split_at(bytes.len().min(room));
        if let Some(last) = self.pieces.back_mut() {
            last.extend_from_slice(here);
        }
        if !beyond.is_empty() {
            let len = self.len.clamp(PIECE_LEN_MIN, PIECE_LEN_MAX);
            let mut piece = BytesMut::with_capacity(len.max(beyond.len()));
            piece.extend_from_slice(beyond);
            self.pieces.push_back(piece);
        }
        self.len += bytes.len();
    }

    /// Hands the first bytes to `take`, at most `max` of them, in order and in one or more parts. Returns how many.
    pub(crate) fn read(&mut self, max: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut rest = max.min(self.len);
        let read = rest;
        while rest > 0 {
            let Some(first) = self.pieces.front_mut() else {
                break;
            };
            let (part, _) = first.split_at(rest.min(first.len()));
            take(part);
            let len = part.len();
            rest -= len;
            first.advance(len);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.len -= read;
        if self.len == 0 {
            self.pieces = VecDeque::new();
        }
        read
    }
}

/// What fits behind a piece's bytes without more memory.
fn spare(piece: &BytesMut) -> usize {
    piece.capacity() - piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(backlog: &Backlog) -> usize {
        backlog.pieces.iter().map(BytesMut::capacity).sum()
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut backlog = Backlog::default();
        let (mut pushed, mut read) = (0_u32, Vec::new());
        for round in 0..2_000 {
            let bytes: Vec<u8> = (0..round * 7 % 1_500)
                .map(|_| {
                    pushed += 1;
                    pushed.to_le_bytes()[0] ^ pushed.to_le_bytes()[1]
                })
                .collect();
            backlog.push(&bytes);
            let before = read.len();
            let count = backlog.read(round * 11 % 1_300, |part| read.extend_from_slice(part));
            assert_eq!(read.len() - before, count);
            assert_eq!(backlog.len(), pushed as usize - read.len());
        }
        backlog.read(usize::MAX, |part| read.extend_from_slice(part));
        let expected = (1..=pushed).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]);
        assert!(read.into_iter().eq(expected));
        assert!(backlog.is_empty());
    }

    #[test]
    fn memory_follows_what_waits() {
        let mut backlog = Backlog::default();
        backlog.push(b"one");
        assert!(memory(&backlog) <= 2 * PIECE_LEN_MIN);
        for _ in 0..3_000 {
            backlog.push(&[0; 1_400]);
            assert!(memory(&backlog) <= backlog.len() + 2 * PIECE_LEN_MAX);
        }
        while !backlog.is_empty() {
            backlog.read(10_000, |_| {});
            assert!(memory(&backlog) <= backlog.len() + 2 * PIECE_LEN_MAX);
        }
        assert_eq!((memory(&backlog), backlog.pieces.capacity()), (0, 0));
    }

    #[test]
    fn a_long_packet_has_a_piece_of_its_own() {
        let mut backlog = Backlog::default();
        let long = vec![7; 3 * PIECE_LEN_MAX];
        backlog.push(b"x");
        backlog.push(&long);
        let mut read = Vec::new();
        assert_eq!(
            backlog.read(usize::MAX, |part| read.extend_from_slice(part)),
            long.len() + 1
        );
        assert_eq!(read.split_first(), Some((&b'x', long.as_slice())));
    }
}
