//! Replication: an honest end, and a peer that knows the core's key and says anything.
//!
//! Holds: as for `proofs`, the reader stores the writer's blocks and nothing else; what waits for
//! the peer stays within the limit; and the reader can be served by an honest peer afterwards.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_mux::{ChannelId, Event as MuxEvent, Mux, Segment};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::time::Time;
use ferrocore_replication::Connection;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::{Event, PROTOCOL};
use ferrocore_replication::messages::{Data, Handshake, Message, Range, Request, Sync};

use crate::messages::encode;
use crate::mutate::is_encodable;
use crate::proofs::Game;

const HANDSHAKE_HASH: [u8; 64] = [0x11; 64];
const STEPS_MAX: usize = 32;
/// Messages of the victim's that are answered in one step.
const HEARD_MAX: usize = 64;
/// Frames that are passed on in one step.
const FRAMES_MAX: usize = 256;

/// The input is what the peer says.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(mut game) = Game::new(&mut input) else {
        return;
    };
    let _all = game.reader.download_all();
    let mut peer = Peer::open(&game.reader);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || peer.step(&mut input, &mut game).is_err() {
            break;
        }
        if !peer.deliver() {
            break;
        }
        game.check();
    }
    game.finish();
}

struct Peer {
    mux: Mux,
    channel: ChannelId,
    victim: Connection,
    /// Requests that were heard and not answered yet.
    requests: Vec<Request>,
    now: Time,
}

impl Peer {
    fn open(reader: &Core) -> Self {
        let mut mux = Mux::new();
        let handshake = Handshake {
            seeks: true,
            capability: capability(true, &reader.key(), &HANDSHAKE_HASH),
        };
        let id = reader.discovery_key();
        let channel = mux.open(PROTOCOL, Some(id.as_bytes()), &handshake.to_vec());
        let mut victim = Connection::new(false, HANDSHAKE_HASH, Arc::new(|| {}));
        victim.attach(reader);
        Self {
            mux,
            channel: channel.expect("short names"),
            victim,
            requests: Vec::new(),
            now: Time::ZERO,
        }
    }

    fn step(&mut self, input: &mut Unstructured<'_>, game: &mut Game) -> Result<()> {
        match input.int_in_range(0..=8)? {
            0 => self.say_bytes(input)?,
            1 => game.append(input.int_in_range(1..=4)?),
            2 | 3 => self.announce(input, game)?,
            4 => {
                let nanos = input.int_in_range(0..=400_000_000_000u64)?;
                self.now = Time::from_nanos(self.now.as_nanos().saturating_add(nanos));
                self.victim.handle_timeout(self.now);
            }
            _ => self.answer(input, game)?,
        }
        Ok(())
    }

    /// Any bytes as a message of any kind.
    fn say_bytes(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let kind = input.int_in_range(0..=10u64)?;
        let len = input.int_in_range(0..=60)?;
        let payload = input.bytes(len.min(input.len()))?;
        let _ = self.mux.send(self.channel, kind, &[Segment::Copy(payload)]);
        Ok(())
    }

    /// A length and blocks, true or not.
    fn announce(&mut self, input: &mut Unstructured<'_>, game: &Game) -> Result<()> {
        let (fork, length) = (game.writer.fork(), game.writer.length());
        let length = match input.ratio(1, 4)? {
            true => input.int_in_range(0..=1u64 << 53)?.saturating_sub(1),
            false => length,
        };
        let sync = Sync {
            fork: if input.ratio(1, 8)? { fork + 1 } else { fork },
            length,
            remote_length: game.reader.length(),
            can_upgrade: true,
            uploading: true,
            downloading: true,
            has_manifest: true,
            allow_push: false,
        };
        self.say(&Message::Sync(sync));
        let range = Range {
            drop: input.ratio(1, 8)?,
            start: 0,
            length,
        };
        self.say(&Message::Range(range));
        Ok(())
    }

    /// Answers a request, honestly or not.
    fn answer(&mut self, input: &mut Unstructured<'_>, game: &Game) -> Result<()> {
        if self.requests.is_empty() {
            return self.announce(input, game);
        }
        let chosen = input.choose_index(self.requests.len())?;
        let request = self.requests.swap_remove(chosen);
        let Ok(Some(proof)) = game.writer.prove(&request.proof) else {
            return Ok(());
        };
        let proof = game.changed(input, &proof)?;
        if is_encodable(&proof) {
            let request = request.id;
            self.say(&Message::Data(Data { request, proof }));
        }
        Ok(())
    }

    fn say(&mut self, message: &Message) {
        let bytes = encode(message);
        let _ = self
            .mux
            .send(self.channel, message.kind(), &[Segment::Copy(&bytes)]);
    }

    /// Carries frames to and fro. False once the victim gives the peer up.
    fn deliver(&mut self) -> bool {
        let mut arriving = Vec::new();
        while let Some(frame) = self.mux.poll_transmit() {
            arriving.push(frame.to_bytes());
        }
        arriving.push(Bytes::new()); // one more turn for what the last frame left
        for frame in arriving {
            self.victim.handle_wake();
            self.victim.handle_frame(frame);
            if !self.turn() {
                return false;
            }
        }
        true
    }

    fn turn(&mut self) -> bool {
        for _ in 0..FRAMES_MAX {
            match self.victim.poll_event(self.now) {
                Err(_) => return false,
                Ok(Some(Event::CoreWanted { offer, .. })) => self.victim.reject(offer),
                Ok(_) => {}
            }
            match self.victim.poll_transmit() {
                Err(_) => return false,
                Ok(None) => break,
                Ok(Some(frame)) => self.mux.handle_frame(frame.to_bytes()),
            }
        }
        self.hear();
        true
    }

    fn hear(&mut self) {
        while let Some(event) = self
            .mux
            .poll_event()
            .expect("the victim keeps the protocol")
        {
            if let MuxEvent::Message { kind, payload, .. } = event {
                let message = Message::decode(kind, &payload).expect("the victim is understood");
                match message {
                    Some(Message::Request(request)) if self.requests.len() < HEARD_MAX => {
                        self.requests.push(request);
                    }
                    _ => {}
                }
            }
        }
    }
}
