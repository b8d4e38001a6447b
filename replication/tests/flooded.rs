//! Goal: what a peer that knows many keys makes us remember is bounded for the whole connection, however many
//! channels it speaks on. Method: one attacker, an allocator that counts. In a binary of its own for that.

mod common;

use std::alloc::System;

use bytes::Bytes;
use cap::Cap;
use common::script::{block, request};
use common::{End, HANDSHAKE_HASH, blocks};
use ferrocore_log::{Core, Corestore};
use ferrocore_mux::{ChannelId, Mux};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::time::Time;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::{Event, PROTOCOL};
use ferrocore_replication::limits::PEER_MEMORY_MAX;
use ferrocore_replication::messages::{BitfieldWords, Handshake, Message};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const CORES: usize = 64;

/// What a connection takes beside what it remembers: its channels, a frame, answers that wait.
const BESIDE: usize = 1024 * 1024;

struct Attacker {
    mux: Mux,
    channels: Vec<ChannelId>,
    victim: End,
}

impl Attacker {
    /// Shows that it knows the keys of `cores`.
    fn prove(store: &Corestore, cores: &[Core]) -> Self {
        let mut mux = Mux::new();
        let open = |core: &Core| {
            let handshake = Handshake {
                seeks: true,
                capability: capability(true, &core.key(), &HANDSHAKE_HASH),
            };
            let id = core.discovery_key();
            let opened = mux.open(PROTOCOL, Some(id.as_bytes()), &handshake.to_vec());
            opened.unwrap()
        };
        let channels = cores.iter().map(open).collect();
        let victim = End::new(false, store);
        let mut attacker = Self {
            mux,
            channels,
            victim,
        };
        assert!(attacker.deliver(), "it is read while it proves itself");
        attacker
    }

    fn say(&mut self, channel: usize, message: &Message) {
        let (mux, channel) = (&mut self.mux, self.channels[channel]);
        let sent = message.encode(&mut Vec::new(), |segments| {
            mux.send(channel, message.kind(), segments)
        });
        sent.unwrap();
    }

    /// Delivers what was said, and takes no answer. False once nothing is read any more.
    fn deliver(&mut self) -> bool {
        while let Some(frame) = self.mux.poll_transmit() {
            if !self.take(frame.to_bytes()) {
                return false;
            }
        }
        true
    }

    fn take(&mut self, frame: Bytes) -> bool {
        let End {
            store, connection, ..
        } = &mut self.victim;
        if !connection.wants_frame() {
            return false;
        }
        connection.handle_frame(frame);
        while let Some(Event::CoreWanted {
            offer,
            discovery_key,
            handshake,
        }) = connection.poll_event(Time::ZERO).unwrap()
        {
            let core = store.get_by_discovery_key(&discovery_key).unwrap().unwrap();
            connection.accept(offer, &handshake, &core).unwrap();
        }
        true
    }
}

#[test]
fn what_a_peer_says_on_many_channels_has_one_budget() {
    let store = Corestore::memory();
    let new = |number| {
        let core = store.get_named(&format!("core {number}")).unwrap();
        core.append_batch(blocks(2)).unwrap();
        core
    };
    let cores: Vec<Core> = (0..CORES).map(new).collect();
    let before = ALLOCATOR.allocated();
    let mut attacker = Attacker::prove(&store, &cores);
    // Every other block of 128 pages on each channel would take 32 MiB; then the same, moved by one.
    for shift in 0..2 {
        let words = vec![0x5555_5555u32 << shift; 1024];
        for page in 1..=128 {
            for channel in 0..CORES {
                let start = page * 32_768;
                let words = words.clone();
                let said = BitfieldWords { start, words };
                attacker.say(channel, &Message::Bitfield(said));
                assert!(attacker.deliver(), "what is too much is forgotten");
            }
        }
        let held = ALLOCATOR.allocated() - before;
        println!("{held} bytes for blocks it says to have");
        assert!(held <= PEER_MEMORY_MAX / 2 + BESIDE, "{held} bytes");
    }
    // Questions on all channels in turn, and no answer is taken.
    let asked = (1..1_000_000u64).take_while(|id| {
        let channel = *id as usize % CORES;
        attacker.say(channel, &request(*id, block(0)));
        attacker.deliver()
    });
    let asked = asked.count();
    let held = ALLOCATOR.allocated() - before;
    println!("{held} bytes after {asked} questions");
    assert!(asked < 999_999, "nothing more is read");
    assert!(held <= PEER_MEMORY_MAX + BESIDE, "{held} bytes");
    // Once it reads, it is served, and what it made us remember is given back.
    while attacker
        .victim
        .connection
        .poll_transmit()
        .unwrap()
        .is_some()
    {}
    attacker.victim.connection.poll_event(Time::ZERO).unwrap();
    assert!(attacker.victim.connection.wants_frame());
    drop(attacker);
    let held = ALLOCATOR.allocated().saturating_sub(before);
    assert!(held <= BESIDE / 4, "{held} bytes stay behind");
}
