//! WebSocket frames that are cut into short messages as they come.
//!
//! Holds: however the bytes come and are taken, what is handed on is what a cutter hands on that sees all of them at once; no
//! message is longer than a piece, and nothing of what came is lost, or kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ferrocore::websocket::{PIECE_MAX, Pieces};
use tokio::io::{AsyncRead, ReadBuf};

const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// The first two bytes say in which bits the rest comes, and is taken; the rest follows the head of a request.
///
/// A third byte of 0 has the first frame's payload grow to more than a piece: inputs are short.
pub fn run(data: &[u8]) {
    let &[come, taken, long, ref wire @ ..] = data else {
        return;
    };
    let mut all = [HEAD, wire].concat();
    if long == 0 {
        all.extend((0..PIECE_MAX + 1000).map(|byte| byte as u8));
    }
    let lens = [come, taken].map(|len| usize::from(len).pow(2) + 1);
    let (cut, is_fault) = cut(&all, lens[0], lens[1]);
    let Some(frames) = cut.strip_prefix(HEAD) else {
        panic!("the head passes as it is");
    };
    let (expected, expects_fault) = at_once(&all[HEAD.len()..]);
    assert_eq!(is_fault, expects_fault);
    assert!(frames == expected, "it is what a naive cutter makes of it");
}

/// What comes of `wire` in bits of these lengths, and whether it ends with a fault.
fn cut(wire: &[u8], come: usize, taken: usize) -> (Vec<u8>, bool) {
    let mut pieces = Pieces::new(InBits { wire, len: come });
    let (mut cut, mut space) = (Vec::new(), vec![0; taken]);
    loop {
        let mut out = ReadBuf::new(&mut space);
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut pieces).poll_read(&mut context, &mut out) {
            Poll::Ready(Ok(())) if out.filled().is_empty() => return (cut, false),
            Poll::Ready(Ok(())) => cut.extend_from_slice(out.filled()),
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                return (cut, true);
            }
            Poll::Pending => panic!("there is more, or an end"),
        }
    }
}

struct InBits<'a> {
    wire: &'a [u8],
    len: usize,
}

impl AsyncRead for InBits<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.len.min(self.wire.len()).min(out.remaining());
        let (now, later) = self.wire.split_at(len);
        out.put_slice(now);
        self.wire = later;
        Poll::Ready(Ok(()))
    }
}

/// The same, frame by frame (RFC 6455, section 5.2), by somebody who sees all of it; and whether it ends with a fault.
fn at_once(mut wire: &[u8]) -> (Vec<u8>, bool) {
    let (mut cut, mut is_within) = (Vec::new(), false);
    while let Some((first, len, mask, payload)) = header(wire) {
        let opcode = first & 0x0f;
        let is_control = opcode >= 8;
        if !is_control && (opcode == 0) != is_within {
            return (cut, true);
        }
        let here = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(payload.len());
        let (payload, behind) = payload.split_at(here);
        let first = match first {
            first if is_control => first,
            first => 0x80 | (first & 0x70) | if opcode == 0 { 2 } else { opcode },
        };
        is_within = if is_control {
            is_within
        } else {
            wire[0] & 0x80 == 0
        };
        let piece_max = if is_control {
            u64::MAX
        } else {
            PIECE_MAX as u64
        };
        let mut left = len;
        let mut rest = payload;
        loop {
            let piece = left.min(piece_max);
            put_header(&mut cut, first, piece, mask);
            let here = usize::try_from(piece).unwrap_or(usize::MAX).min(rest.len());
            cut.extend_from_slice(&rest[..here]);
            rest = &rest[here..];
            left -= piece;
            if left == 0 || (here as u64) < piece {
                break;
            }
        }
        wire = behind;
        if (payload.len() as u64) < len {
            break;
        }
    }
    (cut, false)
}

type Header<'a> = (u8, u64, Option<[u8; 4]>, &'a [u8]);

/// First byte, length, mask, and what is behind, once all of it is here.
fn header(wire: &[u8]) -> Option<Header<'_>> {
    let (&first, rest) = wire.split_first()?;
    let (&second, rest) = rest.split_first()?;
    let (len, rest) = match second & 0x7f {
        126 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*len)), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*len), rest)
        }
        len => (u64::from(len), rest),
    };
    if second & 0x80 == 0 {
        return Some((first, len, None, rest));
    }
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    Some((first, len, Some(*mask), rest))
}

fn put_header(cut: &mut Vec<u8>, first: u8, len: u64, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    cut.push(first);
    match len {
        0..=125 => cut.push(masked | len as u8),
        126..=0xffff => {
            cut.push(masked | 126);
            cut.extend((len as u16).to_be_bytes());
        }
        _ => {
            cut.push(masked | 127);
            cut.extend(len.to_be_bytes());
        }
    }
    cut.extend(mask.into_iter().flatten());
}

/// Messages in one frame and in several, pings between them, long ones, and some that do not fit together.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        let mut frame = vec![first];
        frame.push(0x80 | payload.len() as u8);
        frame.extend([1, 2, 3, 4]);
        frame.extend(payload);
        frame
    };
    let long = [
        &[0x82, 0xff],
        &(PIECE_MAX as u64 + 900).to_be_bytes()[..],
        &[9; 4],
    ]
    .concat();
    let wires = [
        frame(0x82, b"whole"),
        [
            frame(0x02, b"in"),
            vec![0x89, 0],
            frame(0x00, b"three"),
            frame(0x80, b""),
        ]
        .concat(),
        [frame(0x81, b"text"), vec![0x82, 126, 0, 3, 7, 7, 7]].concat(),
        [frame(0x02, b"one"), frame(0x82, b"two")].concat(),
        frame(0x80, b"of what"),
        vec![0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0, 5],
        long,
    ];
    let bits = [[0, 0], [1, 30], [30, 1], [255, 255]];
    let with_bits = |wire: &Vec<u8>| {
        let wire = wire.clone();
        let head = bits.iter().zip([1, 0, 1, 0]);
        head.map(move |([come, taken], long)| [&[*come, *taken, long], &wire[..]].concat())
    };
    wires.iter().flat_map(with_bits).collect()
}
