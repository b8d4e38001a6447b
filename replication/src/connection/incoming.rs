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
        self.touch(id);
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
        self.touch(id);
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
            if channel.is_asked {
                self.asked.retain(|asked| *asked != id);
                self.long_line.retain(|waiting| *waiting != id);
                self.let_first_in_line_answer();
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferrocore_log::Corestore;
    use ferrocore_log::proof::ProofRequest;
    use ferrocore_mux::{Mux, Segment};

    use super::*;
    use crate::kept::Kept;
    use crate::limits::{
        CROWDED_LOOKS_MAX, KEPT_BYTES_ALL_MAX, KEPT_BYTES_ASKING, MESSAGES_TOGETHER_MAX,
        OPEN_MESSAGES,
    };
    use crate::memory::PeersMemory;
    use crate::messages::{Cancel, Request, Sync};
    use crate::work::steps_done;

    /// A connection whose peer has opened some cores.
    fn connected(cores: usize) -> (Connection, Vec<ChannelId>) {
        let store = Corestore::memory();
        let connection = |is_initiator| Connection::new(is_initiator, [7; 64], Arc::new(|| {}));
        let (mut peer, mut connection) = (connection(true), connection(false));
        connection.share_answers(&PeersMemory::new(KEPT_BYTES_ALL_MAX));
        for number in 0..cores {
            peer.attach(&store.get_named(&number.to_string()).unwrap());
        }
        while let Some(frame) = peer.poll_transmit().unwrap() {
            connection.handle_frame(frame.to_bytes());
            while let Some(wanted) = connection.poll_event(Time::ZERO).unwrap() {
                let Event::CoreWanted {
                    offer,
                    discovery_key,
                    handshake,
                } = wanted;
                let core = store.get_by_discovery_key(&discovery_key).unwrap();
                connection
                    .accept(offer, &handshake, &core.unwrap())
                    .unwrap();
            }
        }
        while connection.poll_transmit().unwrap().is_some() {}
        let ids: Vec<_> = connection.channels.keys().copied().collect();
        assert_eq!(ids.len(), cores);
        (connection, ids)
    }

    fn hear(connection: &mut Connection, channel: ChannelId, message: &Message) {
        let payload = message.encode(&mut Vec::new(), |segments| {
            let parts = segments.iter().map(|segment| match segment {
                Segment::Copy(bytes) => *bytes,
                Segment::Share(bytes) => bytes,
            });
            Bytes::from(parts.collect::<Vec<_>>().concat())
        });
        connection
            .handle_message(channel, message.kind(), &payload, Time::ZERO)
            .unwrap();
    }

    /// Goal: a frame whose messages go from channel to channel costs no more than one for each.
    #[test]
    fn a_channel_is_noted_once_however_often_it_is_spoken_on() {
        let (mut connection, ids) = connected(3);
        for _ in 0..1000 {
            for id in &ids {
                hear(
                    &mut connection,
                    *id,
                    &Message::Cancel(Cancel { request: 1 }),
                );
            }
        }
        assert_eq!(connection.touched.len(), 3);
        connection.settle(Time::ZERO).unwrap();
        assert!(connection.touched.is_empty());
        hear(
            &mut connection,
            ids[0],
            &Message::Cancel(Cancel { request: 1 }),
        );
        assert_eq!(connection.touched.len(), 1, "it has another turn");
    }

    /// Goal: a peer that asks and takes it back, again and again, while nothing can be answered, is remembered once; one that is
    /// gone, not at all.
    #[test]
    fn a_channel_waits_once_however_often_it_is_asked_on() {
        let (mut connection, ids) = connected(2);
        for _ in 0..100 {
            for message in (0..64).map(|id| Message::Request(request(id))) {
                hear(&mut connection, ids[0], &message);
            }
            for request in 0..64 {
                hear(
                    &mut connection,
                    ids[0],
                    &Message::Cancel(Cancel { request }),
                );
            }
        }
        assert_eq!(
            (connection.heard.questions(), connection.asked.len()),
            (0, 1)
        );
        hear(&mut connection, ids[1], &Message::Request(request(1)));
        assert_eq!(connection.asked, ids);
        connection.remove(ids[0]);
        assert_eq!(connection.asked, &ids[1..]);
        connection.upload().unwrap();
        assert!(connection.asked.is_empty() && connection.mux.buffered_bytes() > 0);
        hear(&mut connection, ids[1], &Message::Request(request(2)));
        assert_eq!(connection.asked, &ids[1..], "it is answered again");
    }

    /// A connection whose channels have peers to ask, and no room for answers while what is returned is there.
    fn crowded(cores: usize) -> (Connection, Vec<ChannelId>, Kept) {
        let (mut connection, ids) = connected(cores);
        let mut kept = connection.kept.kept();
        kept.hold(KEPT_BYTES_ASKING + 1);
        let sync = Message::Sync(Sync {
            length: 10,
            uploading: true,
            ..Sync::default()
        });
        for id in &ids {
            hear(&mut connection, *id, &sync);
        }
        connection.settle(Time::ZERO).unwrap();
        assert_eq!(connection.shares.short(), cores);
        (connection, ids, kept)
    }

    /// Goal: channels that wait for room do not cost each burst a look at each of them, and all have their turn once there is some.
    #[test]
    fn who_waits_for_room_is_not_looked_at_with_every_burst() {
        let (mut connection, ids, kept) = crowded(200);
        let before = steps_done();
        for _ in 0..10 {
            hear(
                &mut connection,
                ids[0],
                &Message::Cancel(Cancel { request: 1 }),
            );
            connection.settle(Time::ZERO).unwrap();
        }
        let steps = steps_done() - before;
        assert!(steps <= 10 * (CROWDED_LOOKS_MAX as u64 + 2), "{steps}");
        assert_eq!(connection.shares.short(), 200);
        drop(kept);
        connection.settle(Time::ZERO).unwrap();
        assert_eq!(connection.shares.short(), 0);
    }

    /// Goal: who cannot be asked any more takes no share from those who can.
    #[test]
    fn who_cannot_be_asked_is_not_short() {
        let (mut connection, ids, _kept) = crowded(2);
        connection.with(ids[0], |channel, _| channel.stop_asking());
        connection.settle(Time::ZERO).unwrap();
        assert_eq!(connection.shares.short(), 1);
        assert_eq!(connection.shares.next_short(), Some(ids[1]));
    }

    /// Goal: a frame of many messages lets others have their turn, and is taken in completely.
    #[test]
    fn a_frame_of_many_messages_is_taken_in_by_turns() {
        let store = Corestore::memory();
        let core = store.get_named("test").unwrap();
        let (mut connection, _) = connected(0);
        let mut mux = Mux::new();
        let handshake = Handshake {
            seeks: true,
            capability: capability(true, &core.key(), &[7; 64]),
        };
        let id = core.discovery_key();
        let channel = mux
            .open(PROTOCOL, Some(id.as_bytes()), &handshake.to_vec())
            .unwrap();
        connection.take_turns();
        connection.handle_frame(mux.poll_transmit().unwrap().to_bytes());
        if let Some(Event::CoreWanted {
            offer, handshake, ..
        }) = connection.poll_event(Time::ZERO).unwrap()
        {
            connection.accept(offer, &handshake, &core).unwrap();
        }
        while let Some(frame) = {
            connection.poll_event(Time::ZERO).unwrap();
            connection.poll_transmit().unwrap()
        } {
            mux.handle_frame(frame.to_bytes());
        }
        let cancels = 2 * MESSAGES_TOGETHER_MAX + 10;
        let message = Message::Cancel(Cancel { request: 1 });
        for _ in 0..cancels {
            message.encode(&mut Vec::new(), |segments| {
                mux.send(channel, message.kind(), segments).unwrap();
            });
        }
        let (mut turns, mut heard) = (0, Vec::new());
        while let Some(frame) = mux.poll_transmit() {
            connection.handle_frame(frame.to_bytes());
        }
        while connection.has_more() {
            connection.poll_event(Time::ZERO).unwrap();
            heard.push(connection.stats().messages_received);
            turns += 1;
        }
        assert!(connection.wants_frame());
        assert!(turns >= 3, "{heard:?}");
        let turn = heard.windows(2).map(|heard| heard[1] - heard[0]).max();
        assert!(turn.unwrap() <= MESSAGES_TOGETHER_MAX as u64, "{heard:?}");
        assert_eq!(heard.last(), Some(&(cancels as u64)));
    }

    /// Goal: a frame that names thousands of cores is taken in by turns, too: each is looked for on the disk.
    #[test]
    fn a_frame_that_names_many_cores_is_taken_in_by_turns() {
        const CORES: usize = 300;
        let (mut connection, _) = connected(0);
        let mut mux = Mux::new();
        let handshake = Handshake {
            seeks: true,
            capability: [0; 32],
        };
        for index in 0..CORES {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&index.to_le_bytes());
            mux.open(PROTOCOL, Some(&id), &handshake.to_vec()).unwrap();
        }
        connection.take_turns();
        while let Some(frame) = mux.poll_transmit() {
            connection.handle_frame(frame.to_bytes());
        }
        let mut turns = vec![0];
        while connection.has_more() {
            while let Some(Event::CoreWanted { offer, .. }) =
                connection.poll_event(Time::ZERO).unwrap()
            {
                connection.reject(offer);
                *turns.last_mut().unwrap() += 1;
            }
            turns.push(0);
        }
        assert_eq!(turns.iter().sum::<usize>(), CORES, "{turns:?}");
        let most = MESSAGES_TOGETHER_MAX / (OPEN_MESSAGES + 1);
        assert!(turns.iter().all(|turn| *turn <= most), "{turns:?}");
    }

    fn request(id: u64) -> Request {
        Request {
            id,
            proof: ProofRequest::default(),
            priority: 0,
        }
    }
}
