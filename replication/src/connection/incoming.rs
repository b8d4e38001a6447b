//! What the peer opens and says, on its way to a channel.
//!
//! Knows protocols, capabilities and which channel is of which core. Does not know what messages say.

use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_mux::{ChannelId, Event as MuxEvent, OfferId};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::time::Time;

use super::{Connection, Event, PROTOCOL};
use crate::alarm::Alarm;
use crate::capability::{capability, is_same};
use crate::channel::CoreChannel;
use crate::messages::{Handshake, Message};
use crate::misbehaviour::PeerMisbehaved;

impl Connection {
    pub(super) fn handle_event(
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
        self.end_offer(id);
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
        self.judge(id, handled.unwrap_or(Ok(())))?;
        match self.channels.get(&id) {
            Some(channel) if channel.has_lot() => self.settle(now),
            _ => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, id: ChannelId, core: &Core) {
        self.by_core.insert(core.discovery_key(), id);
        let channel = CoreChannel::new(core.clone(), &self.kept);
        self.channels.insert(id, Box::new(channel));
    }

    pub(super) fn remove(&mut self, id: ChannelId) {
        self.end_offer(id);
        if let Some(channel) = self.channels.remove(&id) {
            self.by_core.remove(&channel.core().discovery_key());
            self.shares.moved(id, channel.in_flight(), 0, false);
            let heard = (channel.questions(), channel.question_bytes());
            self.heard.moved(heard, (0, 0));
            self.commits -= usize::from(channel.is_committing());
        }
    }

    /// If it was offered: the peer has answered, or needs to no more.
    fn end_offer(&mut self, id: ChannelId) {
        self.offers.remove(id);
        let channel = self.channels.get_mut(&id);
        if channel.is_some_and(|channel| channel.note_answered()) {
            self.offers.give_room_back();
        }
    }

    pub(super) fn handshake_for(&self, core: &Core) -> Vec<u8> {
        let capability = capability(self.is_initiator, &core.key(), &self.handshake_hash);
        Handshake {
            seeks: true,
            capability,
        }
        .to_vec()
    }

    pub(super) fn check_capability(
        &self,
        handshake: &[u8],
        core: &Core,
    ) -> Result<Handshake, PeerMisbehaved> {
        let shown = Handshake::from_slice(handshake).map_err(PeerMisbehaved::MalformedHandshake)?;
        let expected = capability(!self.is_initiator, &core.key(), &self.handshake_hash);
        if is_same(&shown.capability, &expected) {
            Ok(shown)
        } else {
            Err(PeerMisbehaved::BadCapability)
        }
    }
}
