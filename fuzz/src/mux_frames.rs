//! Protomux: frames of a peer that says whatever it wants.
//!
//! Holds: the mux names each open channel once, takes back what it refuses, and what waits for a
//! peer that does not read is bounded by what the peer sent.

use std::collections::HashSet;

use bytes::Bytes;
use ferrocore_mux::{ChannelId, Event, Mux, Segment};

/// What an answer to one byte of the peer's may cost.
const ANSWER_BYTES_MAX: usize = 64;

/// Frames: a byte with the length, then the frame. Ours is one open channel to begin with.
pub fn run(data: &[u8]) {
    let mut mux = Mux::new();
    let ours = mux
        .open("ours", Some(b"id"), b"hello")
        .expect("short names");
    let mut peer = Peer {
        mux,
        open: HashSet::from([ours]),
    };
    let mut rest = data;
    while let [len, behind @ ..] = rest {
        let (frame, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        peer.mux.handle_frame(Bytes::copy_from_slice(frame));
        if !peer.answer() {
            return;
        }
        rest = behind;
        let buffered = peer.mux.buffered_bytes();
        assert!(
            buffered <= ANSWER_BYTES_MAX * (data.len() + 1),
            "{buffered} bytes wait"
        );
    }
    while let Some(frame) = peer.mux.poll_transmit() {
        assert!(!frame.is_empty());
    }
}

struct Peer {
    mux: Mux,
    open: HashSet<ChannelId>,
}

impl Peer {
    /// Takes every second offer and echoes messages. False once the stream is of no use.
    fn answer(&mut self) -> bool {
        loop {
            match self.mux.poll_event() {
                Err(_) => return false,
                Ok(None) => return true,
                Ok(Some(event)) => self.handle(event),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::RemoteOpen {
                offer, handshake, ..
            } => match handshake.len() % 2 {
                0 => {
                    let channel = self.mux.accept(offer, b"");
                    self.open.extend(channel);
                }
                _ => self.mux.reject(offer),
            },
            Event::Opened { channel, .. } => assert!(self.open.contains(&channel)),
            Event::Message { channel, kind, .. } => {
                assert!(self.open.contains(&channel), "the channel is open");
                if kind == 7 {
                    let _ = self.mux.send(channel, 1, &[Segment::Copy(b"x")]);
                } else if kind == 8 {
                    self.mux.close(channel);
                    self.open.remove(&channel);
                }
            }
            Event::Closed { channel } | Event::Rejected { channel } => {
                assert!(self.open.remove(&channel), "it was open until now");
            }
            _ => {}
        }
    }
}

/// Frames of an honest peer.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut mux = Mux::new();
    let channel = mux.open("theirs", None, b"ab").expect("short names");
    let ours = mux.open("ours", Some(b"id"), b"hi").expect("short names");
    for channel in [channel, ours] {
        for kind in [0, 7, 1] {
            mux.send(channel, kind, &[Segment::Copy(b"message")])
                .expect("short messages");
        }
    }
    mux.close(channel);
    let mut seed = Vec::new();
    while let Some(frame) = mux.poll_transmit() {
        seed.push(frame.len() as u8);
        seed.extend_from_slice(&frame.to_bytes());
    }
    vec![seed]
}
