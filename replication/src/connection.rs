//! Replication over one stream, without IO: frames in, frames out.
//!
//! Knows the channels of all cores on one connection. Does not know sockets, clocks or stores.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::supply::Wake;
use ferrocore_mux::{ChannelId, Event as MuxEvent, Frame, Mux, OfferId};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::time::Time;

use crate::alarm::{Alarm, Bell};
use crate::buffers::Bounds;
use crate::capability::{capability, is_same};
use crate::channel::CoreChannel;
use crate::heard::Heard;
use crate::limits::{
    CHANNELS_MAX, MISBEHAVIOURS_MAX, OFFER_LEN_MAX, STRIKES_MAX, UNPROVEN_OUTPUT_MAX,
};
use crate::memory::PeersMemory;
use crate::messages::{Handshake, Message};
use crate::misbehaviour::{PeerMisbehaved, Verdict};
use crate::shares::Shares;
use crate::stats::{CoreStats, Stats};
use crate::uploads::LongAnswers;
use crate::wire::Wire;

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
    /// Channels with messages that were not settled.
    touched: Vec<ChannelId>,
    /// Channels with questions of the peer, in the order they are served.
    asked: VecDeque<ChannelId>,
    heard: Heard,
    /// Channels that are committing.
    commits: usize,
    long_answers: LongAnswers,
    bounds: Bounds,
    /// Requests of ours on all channels.
    shares: Shares,
    /// Whether a frame was given that is not used up.
    has_input: bool,
    is_proven: bool,
    strikes: u32,
    /// What the peer did wrong and the connection outlived, until somebody asks.
    misbehaved: VecDeque<PeerMisbehaved>,
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
        Self {
            mux,
            scratch: Vec::new(),
            is_initiator,
            handshake_hash,
            bell: Bell::new(wake),
            channels: HashMap::new(),
            by_core: HashMap::new(),
            touched: Vec::new(),
            asked: VecDeque::new(),
            heard: Heard::default(),
            commits: 0,
            long_answers: LongAnswers::default(),
            bounds: Bounds::LONG,
            shares: Shares::default(),
            has_input: false,
            is_proven: false,
            strikes: 0,
            misbehaved: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Offers `core` to the peer. Nothing happens if it is on the connection already.
    pub fn attach(&mut self, core: &Core) {
        if self.by_core.contains_key(&core.discovery_key()) {
            return;
        }
        let id = core.discovery_key();
        let handshake = self.handshake_for(core);
        let opened = self.alone(|mux| mux.open(PROTOCOL, Some(id.as_bytes()), &handshake));
        if let Ok(channel) = opened {
            self.insert(channel, core);
        }
    }

    /// Takes the peer's offer of a core.
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
        if self.by_core.contains_key(&core.discovery_key()) {
            self.mux.reject(offer);
            return Ok(());
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(PeerMisbehaved::TooManyChannels);
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

    /// Closes the channel of a core, if there is one.
    pub fn detach(&mut self, core: &DiscoveryKey) {
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

    /// Gives up requests that are overdue.
    pub fn handle_timeout(&mut self, now: Time) {
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
            self.with(id, |channel, wire| channel.handle_timeout(wire, now));
            self.touched.push(id);
        }
    }

    /// What the owner has to decide, or `None` when the input is used up or too much output waits.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if the connection is to be closed.
    pub fn poll_event(&mut self, now: Time) -> Result<Option<Event>, PeerMisbehaved> {
        while !self.is_clogged() {
            let Some(event) = self.mux.poll_event()? else {
                self.has_input = false;
                break;
            };
            if let Some(event) = self.handle_event(event, now)? {
                return Ok(Some(event));
            }
        }
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

    /// The room, in bytes, that the next answer waits for.
    pub fn wants_room(&self) -> Option<usize> {
        match self.long_answers {
            LongAnswers::Waiting(len) => Some(len),
            _ => None,
        }
    }

    /// There is room for one long answer.
    pub fn grant_room(&mut self) {
        self.long_answers = LongAnswers::Granted;
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

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    pub fn next_timeout(&self) -> Option<Time> {
        let busy = self.shares.busy();
        busy.filter_map(|id| self.channels.get(&id)?.next_deadline())
            .min()
    }

    /// What the peer did wrong without losing the connection, in order; only the first
    /// [`MISBEHAVIOURS_MAX`] that nobody asked for are kept.
    pub fn poll_misbehaviour(&mut self) -> Option<PeerMisbehaved> {
        self.misbehaved.pop_front()
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

    fn handle_event(
        &mut self,
        event: MuxEvent,
        now: Time,
    ) -> Result<Option<Event>, PeerMisbehaved> {
        match event {
            MuxEvent::RemoteOpen {
                offer,
                protocol,
                id,
                handshake,
            } => {
                return Ok(self.consider(offer, &protocol, id, handshake));
            }
            MuxEvent::Opened { channel, handshake } => self.handle_opened(channel, &handshake)?,
            MuxEvent::Message {
                channel,
                kind,
                payload,
            } => self.handle_message(channel, kind, &payload, now)?,
            MuxEvent::Closed { channel } | MuxEvent::Rejected { channel } => self.remove(channel),
            _ => {}
        }
        Ok(None)
    }

    /// Passes on an offer that may be one of a core.
    fn consider(
        &mut self,
        offer: OfferId,
        protocol: &str,
        id: Option<Bytes>,
        handshake: Bytes,
    ) -> Option<Event> {
        let id: Option<[u8; 32]> = id.and_then(|id| id.as_ref().try_into().ok());
        match id.map(DiscoveryKey::from) {
            Some(discovery_key) if protocol == PROTOCOL && !self.has(&discovery_key) => {
                Some(Event::CoreWanted {
                    offer,
                    discovery_key,
                    handshake,
                })
            }
            _ => {
                self.mux.reject(offer);
                None
            }
        }
    }

    fn handle_opened(&mut self, id: ChannelId, handshake: &[u8]) -> Result<(), PeerMisbehaved> {
        let Some(channel) = self.channels.get(&id) else {
            return Ok(());
        };
        let shown = self.check_capability(handshake, channel.core())?;
        self.is_proven = true;
        let alarm = Alarm::new(&self.bell, id);
        self.with(id, |channel, wire| {
            channel.handle_opened(shown.seeks, wire, alarm)
        });
        self.touched.push(id);
        Ok(())
    }

    fn handle_message(
        &mut self,
        id: ChannelId,
        kind: u64,
        payload: &Bytes,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        let message = Message::decode(kind, payload);
        let message = message.map_err(|source| PeerMisbehaved::Malformed { kind, source })?;
        let Some(message) = message else {
            return Ok(()); // of a later version
        };
        let handled = self.with(id, |channel, wire| channel.handle(message, wire, now));
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
        self.judge(id, handled.unwrap_or(Ok(())))
    }

    /// Commits, tells and asks on every channel that something happened on.
    fn settle(&mut self, now: Time) -> Result<(), PeerMisbehaved> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.settle_channel(id, now)?;
        }
        for _ in 0..self.shares.short() {
            let Some(id) = self.shares.next_short() else {
                break;
            };
            self.settle_channel(id, now)?;
        }
        Ok(())
    }

    fn settle_channel(&mut self, id: ChannelId, now: Time) -> Result<(), PeerMisbehaved> {
        let Some(channel) = self.channels.get(&id) else {
            return Ok(());
        };
        let budget = self.shares.budget(channel.in_flight());
        let settled = self.with(id, |channel, wire| channel.settle(wire, budget, now));
        if self
            .channels
            .get(&id)
            .is_some_and(|channel| channel.is_short())
        {
            self.shares.fall_short(id);
        }
        self.judge(id, settled.unwrap_or(Ok(())))
    }

    /// Answers the peer's questions, one channel after the other, while there is room.
    fn upload(&mut self) -> Result<(), PeerMisbehaved> {
        let target = self.bounds.upload_target;
        while self.mux.buffered_bytes() < target && !self.long_answers.is_waiting() {
            let Some(id) = self.asked.pop_front() else {
                break;
            };
            let mut long = self.long_answers;
            let uploaded = self.with(id, |channel, wire| channel.upload(wire, &mut long));
            self.long_answers = long;
            self.judge(id, uploaded.unwrap_or(Ok(())))?;
            if self
                .channels
                .get(&id)
                .is_some_and(|channel| channel.questions() > 0)
            {
                self.asked.push_back(id);
            }
        }
        Ok(())
    }

    /// Runs `work` on a channel and keeps the connection's sums up to date.
    fn with<T>(
        &mut self,
        id: ChannelId,
        work: impl FnOnce(&mut CoreChannel, &mut Wire<'_>) -> T,
    ) -> Option<T> {
        let channel = self.channels.get_mut(&id)?;
        let (in_flight, questions) = (channel.in_flight(), channel.questions());
        let was_committing = channel.is_committing();
        let (stats, question_bytes) = (channel.stats(), channel.question_bytes());
        let memory = self.heard.blocks();
        let mut wire = Wire::new(&mut self.mux, id, &mut self.scratch, memory, self.bounds);
        let done = work(channel, &mut wire);
        channel.count_sent(wire.sent());
        self.stats += channel.stats() - stats;
        self.shares
            .moved(id, in_flight, channel.in_flight(), channel.is_busy());
        let heard = (channel.questions(), channel.question_bytes());
        self.heard.moved((questions, question_bytes), heard);
        self.commits -= usize::from(was_committing);
        self.commits += usize::from(channel.is_committing());
        if questions == 0 && channel.questions() > 0 {
            self.asked.push_back(id);
        }
        Some(done)
    }

    /// Acts on a peer's misbehaviour on one channel.
    fn judge(
        &mut self,
        id: ChannelId,
        result: Result<(), PeerMisbehaved>,
    ) -> Result<(), PeerMisbehaved> {
        let Err(misbehaved) = result else {
            return Ok(());
        };
        tracing::warn!(%misbehaved, "a peer misbehaved");
        match misbehaved.verdict() {
            Verdict::CloseConnection => return Err(misbehaved),
            Verdict::CloseChannel => {
                self.mux.close(id);
                self.remove(id);
                self.strikes += 1;
            }
            Verdict::StopAsking => {
                self.with(id, |channel, _| channel.stop_asking());
            }
        }
        if self.misbehaved.len() < MISBEHAVIOURS_MAX {
            self.misbehaved.push_back(misbehaved);
        }
        if self.strikes == STRIKES_MAX {
            return Err(PeerMisbehaved::TooManyStrikes);
        }
        Ok(())
    }

    /// Lets what `send` sends travel in a frame of its own. The crate `hypercore-protocol` takes no `open` out of a
    /// batch (0.7.2, `decode_unframed_channel_messages` in `src/message.rs`): it would never see the channel.
    fn alone<T>(&mut self, send: impl FnOnce(&mut Mux) -> T) -> T {
        self.mux.end_batch();
        let sent = send(&mut self.mux);
        self.mux.end_batch();
        sent
    }

    /// Whether the peer left so much unread that nothing more is taken from it.
    fn is_clogged(&self) -> bool {
        let output_max = match self.is_proven {
            true => self.bounds.output_max,
            false => UNPROVEN_OUTPUT_MAX,
        };
        // What we offered of our own accord is not the peer's doing, and long answers have room of their own.
        let output_max = output_max + self.channels.len() * OFFER_LEN_MAX;
        let output = self.mux.buffered_bytes() - self.mux.buffered_long_bytes();
        output >= output_max || self.heard.is_too_much()
    }

    fn insert(&mut self, id: ChannelId, core: &Core) {
        self.by_core.insert(core.discovery_key(), id);
        self.channels
            .insert(id, Box::new(CoreChannel::new(core.clone())));
    }

    fn remove(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.remove(&id) {
            self.by_core.remove(&channel.core().discovery_key());
            self.shares.moved(id, channel.in_flight(), 0, false);
            let heard = (channel.questions(), channel.question_bytes());
            self.heard.moved(heard, (0, 0));
            self.commits -= usize::from(channel.is_committing());
        }
    }

    fn handshake_for(&self, core: &Core) -> Vec<u8> {
        let capability = capability(self.is_initiator, &core.key(), &self.handshake_hash);
        Handshake {
            seeks: true,
            capability,
        }
        .to_vec()
    }

    fn check_capability(&self, handshake: &[u8], core: &Core) -> Result<Handshake, PeerMisbehaved> {
        let shown = Handshake::from_slice(handshake).map_err(PeerMisbehaved::MalformedHandshake)?;
        let expected = capability(!self.is_initiator, &core.key(), &self.handshake_hash);
        if is_same(&shown.capability, &expected) {
            Ok(shown)
        } else {
            Err(PeerMisbehaved::BadCapability)
        }
    }
}
