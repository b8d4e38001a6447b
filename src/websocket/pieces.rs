//! WebSocket frames (RFC 6455, section 5.2) cut into short messages on their way in.
//! Knows where frames begin and end. Does not know what they hold, nor handshakes beyond where their head ends.
//!
//! `tungstenite` takes a frame in as a whole, and reserves what its header announces: 14 bytes would cost us 16 MiB,
//! from whoever has proven nothing. As nobody here cares where messages end, it never gets to see a long one.
//!
//! | of a frame that comes | as it is handed on, in each piece |
//! |---|---|
//! | FIN | set: each piece is a message |
//! | reserved bits | as they are |
//! | opcode 0 of a message that has begun | 2 |
//! | opcodes 1, 2 and others | as they are |
//! | length | of the piece, at most [`PIECE_MAX`] |
//! | masking key | as it is, for a piece's length is a multiple of the key's |

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest message that is handed on, in bytes.
pub const PIECE_MAX: usize = 64 * 1024;

/// How much is read at a time, in bytes.
const READ_LEN: usize = 16 * 1024;

/// How long a frame's header can be.
const HEADER_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const MASK_LEN: usize = 4;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
/// Opcodes from here on are of control frames, which are short, and may come within a message.
const CONTROL: u8 = 8;

/// What ends the head of an HTTP request or response.
const HEAD_END: &[u8] = b"\r\n\r\n";

const _: () = assert!(PIECE_MAX.is_multiple_of(MASK_LEN));

/// A stream whose reader sees no long WebSocket frame, from behind the first HTTP head on.
#[derive(Debug)]
pub struct Pieces<T> {
    io: T,
    cutter: Cutter,
    buffer: Box<[u8]>,
    /// What of the buffer was read and not cut yet.
    unread: std::ops::Range<usize>,
}

impl<T> Pieces<T> {
    /// Over `io`, on which nothing has been said yet: for those who open a WebSocket on it themselves.
    pub fn new(io: T) -> Self {
        Self {
            io,
            cutter: Cutter::default(),
            buffer: vec![0; READ_LEN].into(),
            unread: 0..0,
        }
    }

    #[cfg(test)]
    pub(super) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Pieces<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            let mut input = this.buffer.get(this.unread.clone()).unwrap_or_default();
            let cut = this.cutter.cut(&mut input, out);
            this.unread.start = this.unread.end - input.len();
            // What is before a fault comes first: it may be an HTTP error, and the fault its body. The next call meets it.
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            cut?;
            let mut space = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut space))?;
            this.unread = 0..space.filled().len();
            if this.unread.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Pieces<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// The same without IO.
#[derive(Debug, Default)]
struct Cutter {
    place: Place,
    /// What is here of a frame's header.
    header: Vec<u8>,
    /// Whether a message has begun, and not ended.
    is_within: bool,
    /// The frame that is being cut.
    frame: Frame,
    /// What is still to be handed on of the header that is ours.
    unsent: Vec<u8>,
    /// Bytes that its piece still lacks.
    piece: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the HTTP head, of whose end so many bytes have just passed.
    Head(usize),
    Header,
    Payload,
}

impl Default for Place {
    fn default() -> Self {
        Self::Head(0)
    }
}

/// A frame that comes.
#[derive(Debug, Default)]
struct Frame {
    /// The first byte of each piece.
    first: u8,
    mask: Option<[u8; MASK_LEN]>,
    /// Bytes that are in no piece yet.
    rest: u64,
    piece_max: u64,
}

impl Cutter {
    /// Moves what it can from `input` to `out`.
    fn cut(&mut self, input: &mut &[u8], out: &mut ReadBuf<'_>) -> io::Result<()> {
        while out.remaining() > 0 {
            let goes_on = match self.place {
                Place::Head(passed) => self.pass_head(passed, input, out),
                Place::Header => self.read_header(input)?,
                Place::Payload => self.pass_payload(input, out),
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Each of these returns false when it needs more input.
    fn pass_head(&mut self, mut passed: usize, input: &mut &[u8], out: &mut ReadBuf<'_>) -> bool {
        let mut len = 0;
        for &byte in input.iter().take(out.remaining()) {
            len += 1;
            passed = match HEAD_END.get(passed) {
                Some(&next) if next == byte => passed + 1,
                _ => usize::from(HEAD_END.first() == Some(&byte)),
            };
            if passed == HEAD_END.len() {
                break;
            }
        }
        pass(len, input, out);
        self.place = match passed == HEAD_END.len() {
            true => Place::Header,
            false => Place::Head(passed),
        };
        len > 0
    }

    fn read_header(&mut self, input: &mut &[u8]) -> io::Result<bool> {
        while self.header.len() < header_len(&self.header) {
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            self.header.push(byte);
            *input = rest;
        }
        self.frame = self.begin_frame()?;
        self.header.clear();
        self.begin_piece();
        self.place = Place::Payload;
        Ok(true)
    }

    fn pass_payload(&mut self, input: &mut &[u8], out: &mut ReadBuf<'_>) -> bool {
        if !self.unsent.is_empty() {
            let len = self.unsent.len().min(out.remaining());
            self.unsent
                .drain(..len)
                .for_each(|byte| out.put_slice(&[byte]));
        } else if self.piece > 0 {
            let len = self.piece.min(input.len()).min(out.remaining());
            pass(len, input, out);
            self.piece -= len;
            return len > 0;
        } else if self.frame.rest > 0 {
            self.begin_piece();
        } else {
            self.place = Place::Header;
        }
        true
    }

    /// Reads the header, which is complete.
    fn begin_frame(&mut self) -> io::Result<Frame> {
        let first = self.header.first().copied().unwrap_or_default();
        let opcode = first & !(FIN | RESERVED);
        let (rest, mask) = length_and_mask(&self.header);
        if opcode >= CONTROL {
            let piece_max = u64::MAX;
            return Ok(Frame {
                first,
                mask,
                rest,
                piece_max,
            });
        }
        // With each piece a message of its own, nobody else sees that one is left without an end, or begins without one.
        if (opcode == CONTINUATION) != self.is_within {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer's messages and their fragments do not fit together",
            ));
        }
        self.is_within = first & FIN == 0;
        let opcode = match opcode {
            CONTINUATION => BINARY,
            other => other,
        };
        Ok(Frame {
            first: FIN | (first & RESERVED) | opcode,
            mask,
            rest,
            piece_max: PIECE_MAX as u64,
        })
    }

    fn begin_piece(&mut self) {
        let frame = &mut self.frame;
        let len = frame.rest.min(frame.piece_max);
        frame.rest -= len;
        self.piece = usize::try_from(len).unwrap_or(usize::MAX);
        self.unsent.push(frame.first);
        let masked = frame.mask.map_or(0, |_| MASKED);
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len @ ..=125), _) => self.unsent.push(masked | len),
            (_, Ok(len)) => {
                self.unsent.push(masked | 126);
                self.unsent.extend(len.to_be_bytes());
            }
            _ => {
                self.unsent.push(masked | 127);
                self.unsent.extend(len.to_be_bytes());
            }
        }
        self.unsent.extend(frame.mask.iter().flatten());
    }
}

/// How long a header is that begins so, as far as that shows.
fn header_len(header: &[u8]) -> usize {
    let &[_, second, ..] = header else {
        return 2;
    };
    let mask = if second & MASKED > 0 { MASK_LEN } else { 0 };
    let length = match second & !MASKED {
        127 => 8,
        126 => 2,
        _ => 0,
    };
    (2 + length + mask).min(HEADER_MAX)
}

fn length_and_mask(header: &[u8]) -> (u64, Option<[u8; MASK_LEN]>) {
    let &[_, second, ref rest @ ..] = header else {
        return (0, None);
    };
    let (len, rest) = match (second & !MASKED, rest) {
        (127, &[a, b, c, d, e, f, g, h, ref rest @ ..]) => {
            (u64::from_be_bytes([a, b, c, d, e, f, g, h]), rest)
        }
        (126, &[a, b, ref rest @ ..]) => (u64::from(u16::from_be_bytes([a, b])), rest),
        (len, rest) => (u64::from(len), rest),
    };
    (len, rest.first_chunk().copied())
}

fn pass(len: usize, input: &mut &[u8], out: &mut ReadBuf<'_>) {
    let (now, later) = input.split_at(len);
    out.put_slice(now);
    *input = later;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const TEXT: u8 = 1;

    /// Cuts `wire`, which comes and is taken in bits of these lengths.
    fn cut(wire: &[u8], come: usize, taken: usize) -> io::Result<Vec<u8>> {
        let (mut cutter, mut cut) = (Cutter::default(), Vec::new());
        cutter.place = Place::Header;
        for mut input in wire.chunks(come) {
            loop {
                let mut space = vec![0; taken];
                let mut out = ReadBuf::new(&mut space);
                cutter.cut(&mut input, &mut out)?;
                if out.filled().is_empty() {
                    break;
                }
                cut.extend_from_slice(out.filled());
            }
            assert!(input.is_empty());
        }
        Ok(cut)
    }

    /// A frame as clients send it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, MASKED | 127];
        frame.extend((payload.len() as u64).to_be_bytes());
        frame.extend([1, 2, 3, 4]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn long_frames_become_short_messages_however_they_come() {
        let payload: Vec<u8> = (0..PIECE_MAX + 200).map(|i| i as u8).collect();
        let (whole, rest) = payload.split_at(PIECE_MAX);
        let wire = [frame(BINARY, &payload), vec![0x89, 0], frame(FIN, b"end")].concat();
        let mut expected = vec![FIN | BINARY, MASKED | 127];
        expected.extend((PIECE_MAX as u64).to_be_bytes());
        expected.extend([1, 2, 3, 4]);
        expected.extend(whole);
        expected.extend([FIN | BINARY, MASKED | 126, 0, 200, 1, 2, 3, 4]);
        expected.extend(rest);
        expected.extend([0x89, 0]); // a ping in between
        expected.extend([FIN | BINARY, MASKED | 3, 1, 2, 3, 4]);
        expected.extend(b"end");
        for (come, taken) in [(1, 1), (7, 100_000), (100_000, 5), (100_000, 100_000)] {
            assert!(cut(&wire, come, taken).unwrap() == expected);
        }
    }

    #[test]
    fn fragments_must_fit_together() {
        for wrong in [
            frame(FIN | CONTINUATION, b"of what"),
            [frame(BINARY, b"one"), frame(FIN | BINARY, b"two")].concat(),
            [frame(TEXT, b"one"), frame(BINARY, b"two")].concat(),
        ] {
            let error = cut(&wrong, 100, 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn what_is_before_a_fault_is_handed_on_first() {
        let head = b"HTTP/1.1 404 Not Found\r\n\r\n";
        let wire = [head.as_slice(), &[FIN | CONTINUATION, 1, 7]].concat();
        let mut pieces = Pieces::new(io::Cursor::new(wire));
        let mut read = [0; 100];
        assert_eq!(pieces.read(&mut read).await.unwrap(), head.len());
        for _ in 0..2 {
            let error = pieces.read(&mut read).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn the_head_passes_as_it_is() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n";
        let wire = [head.as_slice(), &[FIN | BINARY, 1, 7]].concat();
        let mut cutter = Cutter::default();
        let mut space = [0; 100];
        let mut out = ReadBuf::new(&mut space);
        let mut input = wire.as_slice();
        cutter.cut(&mut input, &mut out).unwrap();
        assert_eq!(out.filled(), wire);
        assert!(matches!(cutter.place, Place::Header | Place::Payload));
    }
}
