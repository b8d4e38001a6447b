//! A peer that says whatever a test wants.

use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::{Core, Corestore};
use ferrocore_mux::{ChannelId, Event, Mux};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::time::Time;
use ferrocore_replication::PeerMisbehaved;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::messages::{Handshake, Message, Range, Reason, Request, Sync};

use super::{End, HANDSHAKE_HASH, Pair, writer_and_reader};

/// A peer that says whatever a test wants, to an honest end.
pub(crate) struct Script {
    pub(crate) mux: Mux,
    pub(crate) channel: ChannelId,
    pub(crate) victim: End,
    pub(crate) now: Time,
}

impl Script {
    /// Opens a channel for `core`, which the victim's `store` has or wants.
    pub(crate) fn open(store: &Corestore, core: &Core) -> Self {
        let capability = capability(true, &core.key(), &HANDSHAKE_HASH);
        Self::open_with(
            store,
            core,
            &Handshake {
                seeks: true,
                capability,
            }
            .to_vec(),
        )
    }

    pub(crate) fn open_with(store: &Corestore, core: &Core, handshake: &[u8]) -> Self {
        let mut mux = Mux::new();
        let id = core.discovery_key();
        let channel = mux.open(PROTOCOL, Some(id.as_bytes()), handshake).unwrap();
        Self {
            mux,
            channel,
            victim: End::new(false, store),
            now: Time::ZERO,
        }
    }

    pub(crate) fn say(&mut self, message: &Message) {
        let (mux, channel) = (&mut self.mux, self.channel);
        let sent = message.encode(&mut Vec::new(), |segments| {
            mux.send(channel, message.kind(), segments)
        });
        sent.unwrap();
    }

    /// Delivers what was said and returns what the victim answers.
    pub(crate) fn deliver(&mut self) -> Result<Vec<Message>, PeerMisbehaved> {
        while let Some(frame) = self.mux.poll_transmit() {
            self.victim.arriving.push_back(frame.to_bytes());
        }
        loop {
            let frames = self.victim.step(self.now)?;
            let is_done = frames.is_empty() && self.victim.arriving.is_empty();
            frames
                .into_iter()
                .for_each(|frame| self.mux.handle_frame(frame));
            if is_done {
                return Ok(self.heard());
            }
        }
    }

    fn heard(&mut self) -> Vec<Message> {
        let mut heard = Vec::new();
        while let Some(event) = self.mux.poll_event().unwrap() {
            if let Event::Message { kind, payload, .. } = event {
                heard.push(Message::decode(kind, &payload).unwrap().unwrap());
            }
        }
        heard
    }

    pub(crate) fn is_open(&self, core: &Core) -> bool {
        self.victim.connection.has(&core.discovery_key())
    }
}

/// A writer of `blocks`, and a reader that knows of them and has none, before a script in the place of a peer.
pub(crate) fn before_reader(blocks: &[Bytes]) -> (Core, Core, Script) {
    let (here, writer, there, reader) = writer_and_reader(blocks);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    let script = Script::open(&there, &reader);
    (writer, reader, script)
}

pub(crate) fn sync_of(length: u64) -> Message {
    sync_on(0, length)
}

pub(crate) fn sync_on(fork: u64, length: u64) -> Message {
    Message::Sync(Sync {
        fork,
        length,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        ..Sync::default()
    })
}

pub(crate) fn range(drop: bool, start: u64, length: u64) -> Message {
    Message::Range(Range {
        drop,
        start,
        length,
    })
}

pub(crate) fn request(id: u64, proof: ProofRequest) -> Message {
    Message::Request(Request {
        id,
        proof,
        priority: 0,
    })
}

pub(crate) fn block(index: u64) -> ProofRequest {
    ProofRequest {
        block: Some(NodeRequest { index, nodes: 0 }),
        ..ProofRequest::default()
    }
}

pub(crate) fn reason(message: &Message) -> Option<Reason> {
    match message {
        Message::NoData(no_data) => Some(no_data.reason),
        _ => None,
    }
}
