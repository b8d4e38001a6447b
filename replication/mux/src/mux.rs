//! The state machine: frames in, events out; messages in, frames out.

use std::collections::VecDeque;

use bytes::Bytes;
use ferrocore_primitives::encoding::{Reader, put_buffer, put_string, put_uint};

use crate::channels::{ChannelId, Channels, Name, Offer, OfferId, RemoteClosed, RemoteOpened};
use crate::error::{MuxError, PeerMisbehaved};
use crate::inbox::{CONTROL, Inbox, Item};
use crate::limits::HANDSHAKE_LEN_MAX;
use crate::outbox::{Frame, Outbox, Segment};

const OPEN: u64 = 1;
const REJECT: u64 = 2;
const CLOSE: u64 = 3;

/// Protomux on one side of one stream.
///
/// - Input: [`handle_frame`](Self::handle_frame), then [`poll_event`](Self::poll_event) until it
///   returns `None`. Frames are decoded as events are asked for, so an offer may be answered before
///   the message behind it is looked at.
/// - Calls: [`open`](Self::open), [`accept`](Self::accept), [`reject`](Self::reject),
///   [`send`](Self::send), [`close`](Self::close).
/// - Output: [`poll_transmit`](Self::poll_transmit) until it returns `None`. What was sent since the
///   last time leaves in as few frames as may be: poll late to batch, poll early to be quick.
///
/// Whatever is sent waits in memory: look at [`buffered_bytes`](Self::buffered_bytes) before
/// answering a peer that does not read.
#[derive(Debug, Default)]
pub struct Mux {
    inbox: Inbox,
    outbox: Outbox,
    channels: Channels,
    events: VecDeque<Event>,
    /// Other names of protocols, and the protocols.
    aliases: Vec<[String; 2]>,
}

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a channel that we have not: accept or reject it.
    RemoteOpen {
        /// What to answer with.
        offer: OfferId,
        /// The protocol's name.
        protocol: String,
        /// Which of several channels of this protocol, if it says so.
        id: Option<Bytes>,
        /// The protocol's opening bytes.
        handshake: Bytes,
    },
    /// Both sides opened the channel.
    Opened {
        /// The channel.
        channel: ChannelId,
        /// The protocol's opening bytes, from the peer.
        handshake: Bytes,
    },
    /// A message on an open channel.
    Message {
        /// The channel.
        channel: ChannelId,
        /// The protocol's number for this kind of message.
        kind: u64,
        /// A slice of the frame it came in.
        payload: Bytes,
    },
    /// The peer closed the channel.
    Closed {
        /// The channel, which is gone.
        channel: ChannelId,
    },
    /// The peer refused the channel that we opened.
    Rejected {
        /// The channel, which is gone.
        channel: ChannelId,
    },
}

impl Mux {
    /// A mux on a fresh stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a peer open channels of `protocol` by the name `alias`, too. Who does is answered by that name.
    ///
    /// JavaScript's Protomux 3.12.1 (`index.js`, `aliases`) pairs such channels with those that are open already, and
    /// answers by the protocol's own name; an offer by an alias it refuses.
    pub fn alias(&mut self, protocol: &str, alias: &str) {
        self.aliases.push([alias.to_owned(), protocol.to_owned()]);
    }

    /// Takes a frame off the stream. Empty frames are ignored.
    pub fn handle_frame(&mut self, frame: Bytes) {
        self.inbox.push(frame);
    }

    /// The next thing that the peer did, or `None` when its frames are used up.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if a frame breaks the protocol. The stream is then of no use.
    pub fn poll_event(&mut self) -> Result<Option<Event>, PeerMisbehaved> {
        while self.events.is_empty() {
            match self.inbox.next()? {
                Some(item) => self.handle_item(item)?,
                None => return Ok(None),
            }
        }
        Ok(self.events.pop_front())
    }

    /// What is sent from now on leaves in another frame than what was sent so far.
    pub fn end_batch(&mut self) {
        self.outbox.end_batch();
    }

    /// The next frame to write, or `None` when everything sent was taken.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.outbox.poll()
    }

    /// Opens a channel. Messages may be sent right behind it, before the peer answers.
    ///
    /// Answers the oldest offer of the same protocol and id, if there is one.
    ///
    /// # Errors
    /// [`MuxError::NameTooLong`], [`MuxError::MessageTooLong`].
    pub fn open(
        &mut self,
        protocol: &str,
        id: Option<&[u8]>,
        handshake: &[u8],
    ) -> Result<ChannelId, MuxError> {
        let id = id.unwrap_or_default();
        if let Some(len) = Name::excessive_len(protocol, id) {
            return Err(MuxError::NameTooLong { len });
        }
        check_handshake(handshake)?;
        let name = Name::new(protocol, id);
        let (channel, offer) = self.channels.open(name.clone());
        let name = offer.as_ref().map_or(&name, Offer::said);
        self.send_open(channel, name, handshake)?;
        if let Some(offer) = offer {
            self.opened(channel, offer);
        }
        Ok(channel)
    }

    /// Opens our half of a channel that the peer offered.
    ///
    /// # Errors
    /// [`MuxError::OfferGone`] if it was answered or taken back, [`MuxError::MessageTooLong`].
    pub fn accept(&mut self, offer: OfferId, handshake: &[u8]) -> Result<ChannelId, MuxError> {
        check_handshake(handshake)?;
        let (channel, offer) = self.channels.accept(offer)?;
        self.send_open(channel, offer.said(), handshake)?;
        self.opened(channel, offer);
        Ok(channel)
    }

    /// Refuses a channel that the peer offered. Nothing happens if the offer is gone.
    pub fn reject(&mut self, offer: OfferId) {
        let number = offer.number();
        if self.channels.withdraw(offer).is_ok() {
            self.send_reject(number.into());
        }
    }

    /// Closes a channel. Nothing happens if it is closed.
    pub fn close(&mut self, channel: ChannelId) {
        if self.channels.close(channel).is_ok() {
            self.send_control(CLOSE, channel.number().into());
            self.events.retain(|event| event.channel() != Some(channel));
        }
    }

    /// Sends a message of the given kind; `payload` is the concatenation of its segments.
    ///
    /// # Errors
    /// [`MuxError::ChannelClosed`], [`MuxError::MessageTooLong`].
    pub fn send(
        &mut self,
        channel: ChannelId,
        kind: u64,
        payload: &[Segment<'_>],
    ) -> Result<(), MuxError> {
        self.channels.check(channel)?;
        self.outbox.push(channel.number(), kind, payload)
    }

    /// How many bytes were sent and not yet taken by [`poll_transmit`](Self::poll_transmit).
    pub fn buffered_bytes(&self) -> usize {
        self.outbox.buffered()
    }

    /// How many bytes the peer's offers that wait for an answer count for, with what was sent ahead on them; at most
    /// [`OFFERED_BYTES_MAX`](crate::limits::OFFERED_BYTES_MAX).
    pub fn offered_bytes(&self) -> usize {
        self.channels.offered_bytes()
    }

    /// What waits for an answer, counted anew: how many offers, and the bytes that they count for. For tests of the sum that
    /// is kept.
    #[doc(hidden)]
    pub fn recount_offered(&self) -> (usize, usize) {
        self.channels.recount_offered()
    }

    /// Takes frames of more than `len` bytes for long ones from now on, but for none that holds several messages; at first
    /// those of more than [`LONG_FRAME_LEN`](crate::limits::LONG_FRAME_LEN).
    pub fn set_long_frame_len(&mut self, len: usize) {
        self.outbox.set_long_frame_len(len);
    }

    /// How many of them wait in [long](Self::set_long_frame_len) frames that are complete.
    pub fn buffered_long_bytes(&self) -> usize {
        self.outbox.buffered_long()
    }

    fn handle_item(&mut self, item: Item) -> Result<(), PeerMisbehaved> {
        if item.channel == CONTROL {
            return self.handle_control(item.kind, &item.payload);
        }
        let message = self
            .channels
            .remote_message(item.channel, item.kind, item.payload)?;
        if let Some((channel, payload)) = message {
            self.events.push_back(Event::Message {
                channel,
                kind: item.kind,
                payload,
            });
        }
        Ok(())
    }

    fn handle_control(&mut self, kind: u64, payload: &Bytes) -> Result<(), PeerMisbehaved> {
        let mut reader = Reader::new(payload);
        match kind {
            OPEN => self.handle_open(payload, &mut reader)?,
            REJECT => {
                if let Some(channel) = self.channels.remote_reject(reader.uint()?)? {
                    self.events.push_back(Event::Rejected { channel });
                }
            }
            CLOSE => self.handle_close(reader.uint()?),
            _ => {} // a control message of a later version
        }
        Ok(())
    }

    fn handle_open(
        &mut self,
        payload: &Bytes,
        reader: &mut Reader<'_>,
    ) -> Result<(), PeerMisbehaved> {
        let number = reader.uint()?;
        let (protocol, id) = (reader.string()?, reader.buffer()?);
        if number == CONTROL {
            self.send_reject(CONTROL); // reserved: JavaScript peers answer so, too
            return Ok(());
        }
        if let Some(len) = Name::excessive_len(protocol, id) {
            return Err(PeerMisbehaved::NameTooLong { len });
        }
        let handshake = payload.slice_ref(reader.rest());
        let alias = Name::new(protocol, id);
        let protocol = self.protocol_named(protocol);
        let name = Name::new(&protocol, id);
        let alias = (alias != name).then_some(alias);
        match self.channels.remote_open(number, name, alias, &handshake)? {
            RemoteOpened::Paired(channel) => {
                self.events.push_back(Event::Opened { channel, handshake })
            }
            RemoteOpened::Offered(offer) => self.events.push_back(Event::RemoteOpen {
                offer,
                protocol,
                id: (!id.is_empty()).then(|| Bytes::copy_from_slice(id)),
                handshake,
            }),
            RemoteOpened::Abandoned => {}
        }
        Ok(())
    }

    /// The protocol that goes by this name.
    fn protocol_named(&self, name: &str) -> String {
        let mut aliases = self.aliases.iter();
        let found = aliases.find_map(|[alias, protocol]| (alias == name).then_some(protocol));
        found.map_or(name, String::as_str).to_owned()
    }

    fn handle_close(&mut self, number: u64) {
        match self.channels.remote_close(number) {
            RemoteClosed::Closed(channel) => self.events.push_back(Event::Closed { channel }),
            RemoteClosed::Withdrawn => self.send_reject(number),
            RemoteClosed::Unknown => {}
        }
    }

    /// Reports an offer that was taken as an open channel, and what was sent ahead on it.
    fn opened(&mut self, channel: ChannelId, offer: Offer) {
        self.events.push_back(Event::Opened {
            channel,
            handshake: offer.handshake,
        });
        let ahead = offer.ahead.into_iter();
        self.events
            .extend(ahead.map(|(kind, payload)| Event::Message {
                channel,
                kind,
                payload,
            }));
    }

    fn send_open(
        &mut self,
        channel: ChannelId,
        name: &Name,
        handshake: &[u8],
    ) -> Result<(), MuxError> {
        let mut head = Vec::new();
        put_uint(&mut head, channel.number().into());
        put_string(&mut head, &name.protocol);
        put_buffer(&mut head, &name.id);
        self.outbox
            .push(0, OPEN, &[Segment::Copy(&head), Segment::Copy(handshake)])
    }

    fn send_reject(&mut self, number: u64) {
        self.send_control(REJECT, number);
    }

    fn send_control(&mut self, kind: u64, number: u64) {
        let mut payload = Vec::new();
        put_uint(&mut payload, number);
        let sent = self.outbox.push(0, kind, &[Segment::Copy(&payload)]);
        debug_assert!(sent.is_ok(), "ten bytes fit a frame");
    }
}

impl Event {
    fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::RemoteOpen { .. } => None,
            Self::Opened { channel, .. }
            | Self::Message { channel, .. }
            | Self::Closed { channel }
            | Self::Rejected { channel } => Some(*channel),
        }
    }
}

/// Checked before a channel is opened, so that a refused call changes nothing.
fn check_handshake(handshake: &[u8]) -> Result<(), MuxError> {
    if handshake.len() > HANDSHAKE_LEN_MAX {
        return Err(MuxError::MessageTooLong {
            len: handshake.len(),
        });
    }
    Ok(())
}
