//! Replication over one stream, without IO: frames in, frames out.
//!
//! | module | noun |
//! |---|---|
//! | `incoming` | what the peer opens and says, on its way to a channel |
//! | `rounds` | the turn of each channel to work, to speak and to answer |
//! | `offers` | what we offered and the peer has not answered |
//! | `offences` | what the peer did wrong |
//!
//! Knows the channels of all cores on one connection. Does not know sockets, clocks or stores.

mod incoming;
mod offences;
mod offers;
mod rounds;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::supply::Wake;
use ferrocore_mux::{ChannelId, Frame, Mux, OfferId};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::time::Time;

use self::offences::Offences;
use self::offers::Offers;
use crate::alarm::Bell;
use crate::buffers::Bounds;
use crate::channel::CoreChannel;
use crate::heard::Heard;
use crate::kept::KeptMemory;
use crate::limits::{CHANNELS_MAX, MESSAGES_TOGETHER_MAX, OFFERED_MAX, OPEN_MESSAGES};
use crate::memory::PeersMemory;
use crate::misbehaviour::PeerMisbehaved;
use crate::shares::Shares;
use crate::stats::{CoreStats, Stats};
use crate::unplaced::Unplaced;
use crate::uploads::LongAnswers;

/// The protocol's name on the wire.
pub const PROTOCOL: &str = "hypercore/alpha";

/// Its older name, by which a peer may open it, too (`hypercore/lib/replicator.js` 11.37.1 and 10.38.2, `aliases`).
pub const PROTOCOL_ALIAS: &str = "hypercore";

/// One side of one connection.
///
/// - Input: [`handle_frame`](Self::handle_frame) when [`wants_frame`](Self::wants_frame);
///   [`handle_wake`](Self::handle_wake) after `wake` was called; [`handle_timeout`](Self::handle_timeout)
///   at [`next_timeout`](Self::next_timeout).
/// - Then [`poll_event`](Self::poll_event) until it returns `None`, answering what it asks with
///   [`accept`](Self::accept) or [`reject`](Self::reject).
/// - Then [`poll_transmit`](Self::poll_transmit) until it returns `None`; if a frame is not used up
///   yet (`!wants_frame()`), poll events again.
///
/// All connections that share a core go by one clock: those who wait for it hear from any of them what time it is.
///
/// Cores are read and written on the way: a block asked for is read when its frame is made, a block
/// that came is on its way to storage when `poll_event` returns. It never waits for the device: a core
/// that does ([`Durability::Sync`](ferrocore_log::Durability::Sync)) takes what came in the background, and
/// calls `wake` then.
pub struct Connection {
    mux: Mux,
    scratch: Vec<u8>,
    is_initiator: bool,
    handshake_hash: [u8; 64],
    bell: Arc<Bell>,
    /// Boxed: a table of many has room to spare.
    channels: HashMap<ChannelId, Box<CoreChannel>>,
    by_core: HashMap<DiscoveryKey, ChannelId>,
    /// Cores that there was no place for.
    unplaced: Unplaced,
    offers: Offers,
    /// Channels with messages that were not settled, each once, and those that rang.
    touched: Vec<ChannelId>,
    /// Channels with questions of the peer, in the order they are served, each once.
    asked: VecDeque<ChannelId>,
    heard: Heard,
    /// For answers that cannot be stored yet.
    kept: KeptMemory,
    /// Channels that are committing.
    commits: usize,
    long_answers: LongAnswers,
    /// Channels with a long answer to make, in the order they came to it: the first has the room, or waits for it. They are not
    /// among those that are `asked`.
    long_line: VecDeque<ChannelId>,
    bounds: Bounds,
    /// Requests of ours on all channels.
    shares: Shares,
    arriving: Arriving,
    /// Whether a frame was given that is not used up.
    has_input: bool,
    /// How many messages are taken in before others have their turn.
    messages_together: usize,
    /// How many more in this turn.
    messages_left: usize,
    is_proven: bool,
    offences: Offences,
    /// What all channels have carried.
    stats: Stats,
}

/// What is under way on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Our requests that were not answered.
    pub requests: usize,
    /// The peer's questions, and messages to it, that wait for room in the output.
    pub questions: usize,
    /// Bytes that wait to be taken by [`Connection::poll_transmit`].
    pub bytes: usize,
    /// Cores of which something that came is on its way to the device. [`Connection::new`]'s `wake` is called
    /// when it is there.
    pub commits: usize,
    /// Bytes of answers that wait for those they rest on, or for the device.
    pub kept_bytes: usize,
}

/// When something came last of a frame that was not whole then. It may be an answer, or stand before one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arriving {
    /// Of any frame.
    pub any: Time,
    /// Of one of more than [`FREE_FRAME_LEN`](ferrocore_secret_stream::budget::FREE_FRAME_LEN) bytes.
    pub long: Time,
}

/// What a connection asks of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer wants to replicate a core. Accept with it, or reject.
    CoreWanted {
        /// What to answer with.
        offer: OfferId,
        /// Names the core.
        discovery_key: DiscoveryKey,
        /// The peer's opening bytes, checked on accepting.
        handshake: Bytes,
    },
}

impl Connection {
    /// A fresh connection. `handshake_hash` is that of the stream's Noise handshake; `wake` is called,
    /// from any thread, when a core has news for the peer.
    pub fn new(is_initiator: bool, handshake_hash: [u8; 64], wake: Wake) -> Self {
        let mut mux = Mux::new();
        mux.alias(PROTOCOL, PROTOCOL_ALIAS);
        let heard = Heard::default();
        Self {
            mux,
            scratch: Vec::new(),
            is_initiator,
            handshake_hash,
            bell: Bell::new(wake),
            channels: HashMap::new(),
            by_core: HashMap::new(),
            unplaced: Unplaced::default(),
            offers: Offers::new(heard.peers()),
            touched: Vec::new(),
            asked: VecDeque::new(),
            heard,
            kept: KeptMemory::default(),
            commits: 0,
            long_answers: LongAnswers::default(),
            long_line: VecDeque::new(),
            bounds: Bounds::LONG,
            shares: Shares::default(),
            arriving: Arriving::default(),
            has_input: false,
            messages_together: usize::MAX,
            messages_left: usize::MAX,
            is_proven: false,
            offences: Offences::default(),
            stats: Stats::default(),
        }
    }

    /// Offers `core` to the peer. Nothing happens if it is on the connection already. While there is
    /// [no place](Self::has_place) it waits, as do up to [`OFFERS_WAITING_MAX`](crate::limits::OFFERS_WAITING_MAX)
    /// others, and for a time those who read it; the peer can still ask for it.
    pub fn attach(&mut self, core: &Core) {
        if self.has(&core.discovery_key()) {
            return;
        }
        if self.channels.len() >= OFFERED_MAX || !self.offers.make_room(self.is_proven) {
            return self.unplaced.push(core);
        }
        let id = core.discovery_key();
        let handshake = self.handshake_for(core);
        let opened = self.alone(|mux| mux.open(PROTOCOL, Some(id.as_bytes()), &handshake));
        let Ok(channel) = opened else {
            return self.offers.give_room_back();
        };
        self.insert(channel, core);
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.note_offered();
        }
        self.offers.add(channel);
    }

    /// Whether a core would be offered to the peer now. That is so of [`OFFERED_MAX`] cores in all, of
    /// [`UNANSWERED_OFFERS_MAX`](crate::limits::UNANSWERED_OFFERS_MAX) that it has neither taken nor rejected, and of
    /// [`UNPROVEN_OFFERS_MAX`](crate::limits::UNPROVEN_OFFERS_MAX) before it has shown that it knows a core's key; of fewer while
    /// other connections have many such offers, but of [`OFFERS_OWN`](crate::limits::OFFERS_OWN) at least.
    pub fn has_place(&mut self) -> bool {
        self.channels.len() < OFFERED_MAX && self.offers.have_room(self.is_proven)
    }

    /// Takes the peer's offer of a core, or rejects it if there are [`CHANNELS_MAX`] channels: two that have more cores in
    /// common keep their connection, and replicate some of them.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadCapability`] if the peer does not know the core's key.
    pub fn accept(
        &mut self,
        offer: OfferId,
        handshake: &[u8],
        core: &Core,
    ) -> Result<(), PeerMisbehaved> {
        self.check_capability(handshake, core)?;
        if self.has(&core.discovery_key()) || self.channels.len() >= CHANNELS_MAX {
            self.mux.reject(offer);
            return Ok(());
        }
        // The peer may have taken the offer back.
        let handshake = self.handshake_for(core);
        if let Ok(channel) = self.alone(|mux| mux.accept(offer, &handshake)) {
            self.insert(channel, core);
        }
        Ok(())
    }

    /// Refuses the peer's offer of a core.
    pub fn reject(&mut self, offer: OfferId) {
        self.mux.reject(offer);
    }

    /// Closes the channel of a core, if there is one, and offers it no more if it waits for that.
    pub fn detach(&mut self, core: &DiscoveryKey) {
        self.unplaced.remove(core);
        if let Some(channel) = self.by_core.get(core).copied() {
            self.mux.close(channel);
            self.remove(channel);
        }
    }

    /// Takes in a frame.
    pub fn handle_frame(&mut self, frame: Bytes) {
        self.has_input = true;
        self.mux.handle_frame(frame);
    }

    /// Looks at the cores that have news.
    pub fn handle_wake(&mut self) {
        self.touched.append(&mut self.bell.take());
    }

    /// Tells of frames that took longer than a read to come. To be called before [`handle_timeout`](Self::handle_timeout):
    /// without it a long answer on a slow stream is given up before it is here.
    pub fn note_arriving(&mut self, arriving: Arriving) {
        self.arriving = arriving;
    }

    /// Gives up requests that are overdue.
    pub fn handle_timeout(&mut self, now: Time) {
        self.look_at_offers(now);
        self.unplaced.look(now);
        let is_due = |channel: &CoreChannel| {
            channel
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
        };
        let busy = self.shares.busy();
        let due: Vec<_> = busy
            .filter(|id| self.channels.get(id).is_some_and(|channel| is_due(channel)))
            .collect();
        for id in due {
            let arriving = self.arriving;
            self.with(id, |channel, wire| {
                channel.handle_timeout(wire, arriving, now)
            });
            self.touch(id);
        }
    }

    /// Asks the peer for nothing more, as it is gone, and leaves to others what it has not answered. What came from it is
    /// still stored.
    pub fn end_asking(&mut self) {
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            self.with(id, |channel, _| channel.end_asking());
        }
    }

    /// What the owner has to decide, or `None` when the input is used up or too much output waits, or when others
    /// [should have their turn](Self::take_turns).
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if the connection is to be closed.
    pub fn poll_event(&mut self, now: Time) -> Result<Option<Event>, PeerMisbehaved> {
        while self.messages_left > 0 && !self.is_clogged() {
            self.messages_left -= 1;
            let Some(event) = self.mux.poll_event()? else {
                self.has_input = false;
                break;
            };
            if let Some(event) = self.handle_event(event, now)? {
                // The owner looks for a core, on the disk.
                self.messages_left = self.messages_left.saturating_sub(OPEN_MESSAGES);
                return Ok(Some(event));
            }
        }
        self.messages_left = self.messages_together;
        self.offer_unplaced();
        self.settle(now)?;
        Ok(None)
    }

    /// The next frame to write, or `None`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::TooManyInvalidRequests`] if the connection is to be closed.
    pub fn poll_transmit(&mut self) -> Result<Option<Frame>, PeerMisbehaved> {
        self.upload()?;
        Ok(self.mux.poll_transmit())
    }

    /// Shares `memory` with other connections for what the peer says. To be called before there are channels; without
    /// it there is enough.
    pub fn share_memory(&mut self, memory: &PeersMemory) {
        self.heard = Heard::new(memory);
        self.offers = Offers::new(memory);
    }

    /// Shares `memory` with other connections for answers that wait, for those they rest on or for the device: instead of
    /// what the process has for that. To be called before there are channels.
    pub fn share_answers(&mut self, memory: &PeersMemory) {
        self.kept = KeptMemory::new(memory);
    }

    /// Keeps its output within `bounds` from now on; at first within the long ones.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.mux.set_long_frame_len(bounds.long_frame_len);
    }

    /// From now on answers with a block of more than [`UPLOAD_TOGETHER_BYTES`](crate::limits::UPLOAD_TOGETHER_BYTES) are made one by one, each
    /// when [`grant_room`](Self::grant_room) was called for it. Without this there is no such limit.
    pub fn limit_long_answers(&mut self) {
        self.long_answers = LongAnswers::Limited;
    }

    /// From now on [`poll_event`](Self::poll_event) takes in no more than [`MESSAGES_TOGETHER_MAX`] messages until it returns
    /// `None`, of which a core that is wanted counts as [`OPEN_MESSAGES`] more, and
    /// [`has_more`](Self::has_more) says whether it is to be called again. Without this a frame is taken in at once, however
    /// much work it is.
    pub fn take_turns(&mut self) {
        self.messages_together = MESSAGES_TOGETHER_MAX;
        self.messages_left = MESSAGES_TOGETHER_MAX;
    }

    /// The room, in bytes, that the next answer waits for.
    pub fn wants_room(&self) -> Option<usize> {
        match self.long_answers {
            LongAnswers::Waiting(len) => Some(len),
            _ => None,
        }
    }

    /// There is as much room as the next answer [waits for](Self::wants_room). A longer one that overtakes it waits in its
    /// turn.
    pub fn grant_room(&mut self) {
        self.long_answers.grant();
        self.let_first_in_line_answer();
    }

    /// There is no room any more, should the answer not have needed it.
    pub fn revoke_room(&mut self) {
        self.long_answers.spend();
    }

    /// Whether the last frame is used up and another one may be read. False while the peer leaves
    /// too many of our answers unread.
    pub fn wants_frame(&self) -> bool {
        !self.has_input
    }

    /// Whether some of the last frame can be taken in now.
    pub fn has_more(&self) -> bool {
        self.has_input && !self.is_clogged()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    pub fn next_timeout(&self) -> Option<Time> {
        let busy = self.shares.busy();
        busy.filter_map(|id| self.channels.get(&id)?.next_deadline())
            .chain(self.offers.next_deadline())
            .chain(self.unplaced.next_deadline())
            .min()
    }

    /// What the peer did wrong without losing the connection, in order; only the first
    /// [`MISBEHAVIOURS_MAX`](crate::limits::MISBEHAVIOURS_MAX) that nobody asked for are kept.
    pub fn poll_misbehaviour(&mut self) -> Option<PeerMisbehaved> {
        self.offences.next()
    }

    /// Whether a core is on the connection, accepted by the peer or not yet.
    pub fn has(&self, core: &DiscoveryKey) -> bool {
        self.by_core.contains_key(core)
    }

    /// What is under way and what waits: all zero when both ends are at rest.
    pub fn backlog(&self) -> Backlog {
        Backlog {
            requests: self.shares.in_flight(),
            questions: self.heard.questions(),
            bytes: self.mux.buffered_bytes(),
            commits: self.commits,
            kept_bytes: self.kept.bytes(),
        }
    }

    /// Whether the peer has shown that it knows the key of some core.
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// What the connection has carried.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What it is carrying of each core, in no order.
    pub fn core_stats(&self) -> Vec<CoreStats> {
        self.channels
            .values()
            .map(|channel| channel.core_stats())
            .collect()
    }

    /// Offers what has waited for places that are free now.
    fn offer_unplaced(&mut self) {
        while self.unplaced.len() > 0 && self.has_place() {
            let Some((core, _finding)) = self.unplaced.pop() else {
                break;
            };
            self.attach(&core);
        }
    }

    /// Lets what `send` sends travel in a frame of its own. The crate `hypercore-protocol` takes no `open` out of a
    /// batch (0.7.2, `decode_unframed_channel_messages` in `src/message.rs`): it would never see the channel.
    fn alone<T>(&mut self, send: impl FnOnce(&mut Mux) -> T) -> T {
        self.mux.end_batch();
        let sent = send(&mut self.mux);
        self.mux.end_batch();
        sent
    }
}
