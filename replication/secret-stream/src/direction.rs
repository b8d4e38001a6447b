//! The two directions of a stream after the handshake: header first, then encrypted messages.
//! Knows frames, ids and encryption. Does not know where bytes come from and go to.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use ferrocore_primitives::hash::{Hash, keyed};
use ferrocore_primitives::{namespace, random};

use crate::framer::put_frame_len;
use crate::noise::SecretKey;
use crate::secretstream::{HEADER_LEN, MAC_LEN, OVERHEAD, PREFIX_LEN, Pull, Push};
use crate::{FRAME_LEN_MAX, Framer, HandshakeResult, StreamError};

/// The longest message, in bytes: what fits in a frame beside tag and MAC.
pub const MESSAGE_LEN_MAX: usize = FRAME_LEN_MAX - OVERHEAD;

/// Bytes of the frame that starts a direction: stream id and header.
const HEADER_FRAME_LEN: usize = Hash::LEN + HEADER_LEN;

/// How much memory is kept when everything has been sent, in bytes: what [`SEND_BUFFER_LEN`](crate::SEND_BUFFER_LEN) and a
/// message behind it grow to.
const OUTGOING_KEEP_LEN: usize = 512 * 1024;

/// What the ids and keys of this protocol derive under.
pub(crate) const NAMESPACE: &str = "hyperswarm/secret-stream";

/// The sending direction: messages in, bytes out.
///
/// [`push`](Self::push) messages, write [`pending`](Self::pending) and [`advance`](Self::advance) by what
/// was written.
pub struct Outgoing {
    push: Push,
    buffer: Vec<u8>,
    written_len: usize,
}

impl Outgoing {
    /// Starts the direction behind `unsent`, such as the frame of the last handshake message.
    pub fn new(keys: &HandshakeResult, unsent: Vec<u8>) -> Self {
        Self::with_header(keys, unsent, &random::bytes())
    }

    /// As [`new`](Self::new) with a given header: for tests. One used twice gives away the messages.
    pub fn with_header(keys: &HandshakeResult, unsent: Vec<u8>, header: &[u8; HEADER_LEN]) -> Self {
        let mut buffer = unsent;
        put_frame_len(&mut buffer, HEADER_FRAME_LEN);
        buffer.extend_from_slice(stream_id(keys, keys.is_initiator).as_bytes());
        buffer.extend_from_slice(header);
        Self {
            push: Push::new(&keys.tx, header),
            buffer,
            written_len: 0,
        }
    }

    /// Appends one message, the concatenation of `segments`, encrypted, as one frame.
    ///
    /// # Errors
    /// [`StreamError::MessageTooLong`] above [`MESSAGE_LEN_MAX`]; nothing is appended then.
    pub fn push<S: AsRef<[u8]>>(&mut self, segments: &[S]) -> Result<(), StreamError> {
        let message_len = segments.iter().map(|segment| segment.as_ref().len()).sum();
        if message_len > MESSAGE_LEN_MAX {
            return Err(StreamError::MessageTooLong(message_len));
        }
        self.buffer
            .reserve(message_len + OVERHEAD + size_of::<u32>());
        put_frame_len(&mut self.buffer, message_len + OVERHEAD);
        let frame_start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; PREFIX_LEN]);
        for segment in segments {
            self.buffer.extend_from_slice(segment.as_ref());
        }
        self.buffer.extend_from_slice(&[0; MAC_LEN]);
        self.push.seal(self.buffer.split_at_mut(frame_start).1);
        Ok(())
    }

    /// The bytes to write next.
    pub fn pending(&self) -> &[u8] {
        self.buffer.split_at(self.written_len).1
    }

    /// Keeps no memory for messages to come, if none is pending.
    pub fn shrink(&mut self) {
        if self.pending().is_empty() {
            self.buffer = Vec::new();
            self.written_len = 0;
        }
    }

    /// Removes the first `n` of the pending bytes: they have been written.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.pending().len(), "wrote more than was pending");
        self.written_len += n;
        if self.written_len == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(OUTGOING_KEEP_LEN);
            self.written_len = 0;
        }
    }
}

/// The receiving direction: bytes in, messages out.
///
/// Read into [`space`](Self::space), then call [`next_message`](Self::next_message) until there is none.
pub struct Incoming {
    framer: Framer,
    state: State,
    message_len_max: usize,
    /// Frames that were complete so far.
    frames: u64,
}

enum State {
    /// The peer's header has not arrived.
    Header {
        expected_id: Hash,
        rx: SecretKey,
    },
    Open(Pull),
    Failed,
}

impl Incoming {
    /// Starts the direction. `framer` holds what was read behind the last handshake message.
    pub fn new(keys: &HandshakeResult, mut framer: Framer) -> Self {
        framer.set_frame_len_max(HEADER_FRAME_LEN);
        let state = State::Header {
            expected_id: stream_id(keys, !keys.is_initiator),
            rx: keys.rx.clone(),
        };
        Self {
            framer,
            state,
            message_len_max: MESSAGE_LEN_MAX,
            frames: 0,
        }
    }

    /// Refuses messages of more than `len` bytes from now on: [`MESSAGE_LEN_MAX`] at first. Lower it while
    /// the peer has not proven to be worth the memory.
    pub fn set_message_len_max(&mut self, len: usize) {
        self.message_len_max = len.min(MESSAGE_LEN_MAX);
        if self.is_open() {
            self.allow_messages();
        }
    }

    /// Asks for at most `len` bytes in a read; see [`Framer::set_read_len_max`].
    pub fn set_read_len_max(&mut self, len: usize) {
        self.framer.set_read_len_max(len);
    }

    /// Where to append what was read; see [`Framer::space`].
    pub fn space(&mut self) -> &mut BytesMut {
        self.framer.space()
    }

    /// The announced length of the frame that has begun to arrive; see [`Framer::incomplete_len`].
    pub fn incomplete_len(&self) -> Option<usize> {
        self.framer.incomplete_len()
    }

    /// Makes space for the whole of that frame; see [`Framer::reserve_frame`].
    pub fn reserve_frame(&mut self) {
        self.framer.reserve_frame();
    }

    /// The next message, if all of it is there. Empty messages are keepalives and left out.
    ///
    /// A message shares memory with those it was read with: copy small ones that are kept long.
    ///
    /// # Errors
    /// [`StreamError`] if the peer broke the protocol; every later call fails too.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, StreamError> {
        let result = self.read_frames();
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Which frame is arriving, if some of it is here and some of it is not: the how manieth of this direction.
    pub fn arriving(&self) -> Option<u64> {
        (!self.framer.is_empty()).then_some(self.frames)
    }

    /// Whether the peer's header has arrived.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes note that nothing more will arrive.
    ///
    /// # Errors
    /// [`StreamError::UnexpectedEnd`] if something is missing.
    pub fn end(&self) -> Result<(), StreamError> {
        match self.is_open() && self.framer.is_empty() {
            true => Ok(()),
            false => Err(StreamError::UnexpectedEnd),
        }
    }

    fn allow_messages(&mut self) {
        self.framer
            .set_frame_len_max(self.message_len_max + OVERHEAD);
    }

    /// Works through frames up to the first that holds a message.
    fn read_frames(&mut self) -> Result<Option<Bytes>, StreamError> {
        while let Some(frame) = self.framer.next_frame()? {
            self.frames += 1;
            match &mut self.state {
                State::Header { expected_id, rx } => {
                    self.state = State::Open(open_header(&frame, expected_id, rx)?);
                    self.allow_messages();
                }
                State::Open(pull) => {
                    let message = open_message(frame, pull)?;
                    if !message.is_empty() {
                        return Ok(Some(message));
                    }
                }
                State::Failed => return Err(StreamError::Failed),
            }
        }
        match self.state {
            State::Failed => Err(StreamError::Failed),
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("pending_len", &self.pending().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// What the initiator's or the responder's direction is called; only the two of them can know it.
fn stream_id(keys: &HandshakeResult, initiators: bool) -> Hash {
    let role = if initiators { 0 } else { 1 };
    keyed(&keys.hash, &[namespace::nth(NAMESPACE, role).as_ref()])
}

fn open_header(frame: &[u8], expected_id: &Hash, rx: &SecretKey) -> Result<Pull, StreamError> {
    let (id, header) = frame.split_first_chunk().ok_or(StreamError::WrongHeader)?;
    let header = header.try_into().map_err(|_| StreamError::WrongHeader)?;
    if !Hash::from(*id).ct_eq(expected_id) {
        return Err(StreamError::WrongHeader);
    }
    Ok(Pull::new(rx, header))
}

/// Decrypts where the frame lies and cuts the message out of it.
fn open_message(mut frame: BytesMut, pull: &mut Pull) -> Result<Bytes, StreamError> {
    pull.open(&mut frame).map_err(|_| StreamError::Forged)?;
    frame.truncate(frame.len() - MAC_LEN);
    frame.advance(PREFIX_LEN);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HANDSHAKE_FRAME_LEN_MAX, Handshake, Role};
    use ferrocore_primitives::sign::KeyPair;

    /// What both sides have after a handshake, the initiator's first.
    fn keys() -> (HandshakeResult, HandshakeResult) {
        let new = |role| Handshake::xx(role, &KeyPair::generate());
        let (mut a, mut b) = (new(Role::Initiator), new(Role::Responder));
        b.read(&a.write(&[]).unwrap()).unwrap();
        a.read(&b.write(&[]).unwrap()).unwrap();
        b.read(&a.write(&[]).unwrap()).unwrap();
        (a.finish().unwrap(), b.finish().unwrap())
    }

    fn pair() -> (Outgoing, Incoming) {
        let (a, b) = keys();
        let framer = Framer::new(HANDSHAKE_FRAME_LEN_MAX);
        (Outgoing::new(&a, Vec::new()), Incoming::new(&b, framer))
    }

    fn deliver(outgoing: &mut Outgoing, incoming: &mut Incoming) {
        incoming.space().extend_from_slice(outgoing.pending());
        outgoing.advance(outgoing.pending().len());
    }

    #[test]
    fn segments_arrive_as_one_message_and_keepalives_not_at_all() {
        let (mut outgoing, mut incoming) = pair();
        outgoing.push(&[b"one, ".as_slice(), b"", b"two"]).unwrap();
        outgoing.push::<&[u8]>(&[]).unwrap();
        outgoing.push(&[b"three"]).unwrap();
        assert!(!incoming.is_open());
        assert!(incoming.end().is_err());
        deliver(&mut outgoing, &mut incoming);
        assert_eq!(incoming.next_message().unwrap().unwrap(), "one, two");
        assert_eq!(incoming.next_message().unwrap().unwrap(), "three");
        assert!(incoming.next_message().unwrap().is_none());
        assert!(incoming.is_open());
        incoming.end().unwrap();
    }

    #[test]
    fn the_longest_message_fits_and_one_byte_more_does_not() {
        let (mut outgoing, mut incoming) = pair();
        let longest = vec![7; MESSAGE_LEN_MAX];
        let error = outgoing.push(&[longest.as_slice(), &[7]]).unwrap_err();
        assert!(matches!(error, StreamError::MessageTooLong(len) if len == MESSAGE_LEN_MAX + 1));
        outgoing.push(&[&longest]).unwrap();
        deliver(&mut outgoing, &mut incoming);
        assert!(incoming.next_message().unwrap().unwrap() == longest);
        assert!(outgoing.buffer.capacity() <= 2 * OUTGOING_KEEP_LEN);
    }

    #[test]
    fn messages_are_limited_as_asked() {
        let (mut outgoing, mut incoming) = pair();
        incoming.set_message_len_max(10);
        outgoing.push(&[[1; 10]]).unwrap();
        deliver(&mut outgoing, &mut incoming);
        assert_eq!(
            incoming.next_message().unwrap().unwrap(),
            [1; 10].as_slice()
        );
        incoming.set_message_len_max(12);
        for len in [12, 13] {
            outgoing.push(&[vec![1; len]]).unwrap();
        }
        deliver(&mut outgoing, &mut incoming);
        assert_eq!(incoming.next_message().unwrap().unwrap().len(), 12);
        let error = incoming.next_message().unwrap_err();
        assert!(matches!(
            error,
            StreamError::FrameTooLong { len: 30, max: 29 }
        ));
    }

    #[test]
    fn a_header_of_another_stream_or_role_is_refused() {
        let (a, b) = keys();
        let (_, other) = keys();
        let new = |keys| Incoming::new(keys, Framer::new(0));
        // Our own header, reflected; and one of another connection.
        for mut incoming in [new(&a), new(&other)] {
            let mut outgoing = Outgoing::new(&a, Vec::new());
            deliver(&mut outgoing, &mut incoming);
            let error = incoming.next_message().unwrap_err();
            assert!(matches!(error, StreamError::WrongHeader));
            let error = incoming.next_message().unwrap_err();
            assert!(matches!(error, StreamError::Failed));
        }
        let mut incoming = new(&b);
        incoming.space().extend_from_slice(&[0xff, 0xff, 0]);
        let error = incoming.next_message().unwrap_err();
        assert!(matches!(error, StreamError::FrameTooLong { max: 56, .. }));
    }

    #[test]
    fn a_forged_frame_ends_the_stream_for_good() {
        // Behind a forged frame a good one follows: it must not come out.
        let (mut outgoing, mut incoming) = pair();
        deliver(&mut outgoing, &mut incoming);
        incoming.next_message().unwrap();
        incoming.space().extend_from_slice(&[17, 0, 0]);
        incoming.space().extend_from_slice(&[0; 17]);
        outgoing.push(&[b"good"]).unwrap();
        deliver(&mut outgoing, &mut incoming);
        let error = incoming.next_message().unwrap_err();
        assert!(matches!(error, StreamError::Forged));
        let error = incoming.next_message().unwrap_err();
        assert!(matches!(error, StreamError::Failed));
    }

    #[test]
    fn frames_without_room_for_tag_and_mac_are_refused() {
        for len in 0..17u8 {
            let (mut outgoing, mut incoming) = pair();
            deliver(&mut outgoing, &mut incoming);
            incoming.space().extend_from_slice(&[len, 0, 0]);
            incoming
                .space()
                .extend_from_slice(&vec![0; usize::from(len)]);
            let error = incoming.next_message().unwrap_err();
            assert!(matches!(error, StreamError::Forged));
        }
    }
}
