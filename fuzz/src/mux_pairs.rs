//! Protomux: two honest ends, any order of calls, and frames that take any time.
//!
//! Holds: neither end is ever blamed; what is sent on a channel arrives once and in order until one end closes it; what offers
//! and messages ahead of their answer count for is what there is of them, after each step; in the end both agree on which
//! channels are open, and no offer waits; and when all are closed nothing is left in any queue, in either direction.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use ferrocore_mux::limits::{OFFERED_BYTES_MAX, OFFERED_OVERHEAD};
use ferrocore_mux::{ChannelId, Event, Mux, OfferId, Segment};

/// Names of channels: few, so that halves meet and queue.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Channels that one end opens in one run.
const CHANNELS_MAX: u64 = 24;

/// Messages that one end sends on channels that are not open yet, in one run: what more of them count for is too much ahead, as
/// documented, and ends the connection.
const AHEAD_MAX: usize = 400;

const _: () =
    assert!(AHEAD_MAX + 2 * (CHANNELS_MAX as usize) < OFFERED_BYTES_MAX / (OFFERED_OVERHEAD + 16));

/// A byte says what is next, its upper bits to whom it is done.
pub fn run(data: &[u8]) {
    let mut ends = [End::default(), End::default()];
    for byte in data {
        let (side, what) = (usize::from(byte >> 7), byte & 0x7f);
        let operand = usize::from(what >> 3);
        match what & 7 {
            0 => ends[side].open(operand),
            1 => ends[side].answer(true),
            2 => ends[side].answer(false),
            3 | 4 => ends[side].send(operand),
            5 => ends[side].close(operand),
            6 => ends[side].transmit(),
            _ => deliver(&mut ends, side, operand),
        }
        ends.iter().for_each(End::check);
    }
    come_to_rest(&mut ends);
    agree(&ends);
    for channel in ends[0].opened() {
        ends[0].mux.close(channel);
        ends[0].channels.remove(&channel);
    }
    come_to_rest(&mut ends);
    for end in &ends {
        assert!(end.opened().is_empty(), "the other end has closed all");
        assert_eq!(end.mux.buffered_bytes(), 0);
        assert_eq!(end.mux.offered_bytes(), 0, "nothing is left of offers");
    }
}

#[derive(Default)]
struct End {
    mux: Mux,
    /// Numbers channels of this end, never twice.
    serials: u64,
    /// Messages that were sent before their channel was open.
    ahead: usize,
    channels: HashMap<ChannelId, Channel>,
    offers: VecDeque<OfferId>,
    /// Frames on their way to the other end.
    under_way: VecDeque<Bytes>,
}

/// One end's half.
#[derive(Debug, Default)]
struct Channel {
    serial: u64,
    /// The other end's serial, once it is open.
    remote: Option<u64>,
    sent: u64,
    received: u64,
}

impl End {
    fn open(&mut self, name: usize) {
        if self.serials < CHANNELS_MAX {
            let handshake = self.next_serial();
            let name = NAMES[name % NAMES.len()];
            let channel = self.mux.open("fuzz", Some(name.as_bytes()), &handshake);
            self.insert(channel.expect("short names"));
        }
    }

    /// Answers the oldest offer.
    fn answer(&mut self, accepts: bool) {
        let Some(offer) = self.offers.pop_front() else {
            return;
        };
        if !accepts || self.serials >= CHANNELS_MAX {
            return self.mux.reject(offer);
        }
        let handshake = self.next_serial();
        // It may have been taken back, or met a channel of ours.
        if let Ok(channel) = self.mux.accept(offer, &handshake) {
            self.insert(channel);
        }
    }

    fn next_serial(&mut self) -> [u8; 8] {
        self.serials += 1;
        self.serials.to_le_bytes()
    }

    fn insert(&mut self, channel: ChannelId) {
        let serial = self.serials;
        let half = Channel {
            serial,
            ..Channel::default()
        };
        assert!(
            self.channels.insert(channel, half).is_none(),
            "ids do not come back"
        );
        self.poll();
    }

    /// Sends the next number on one of the channels, open or not yet.
    fn send(&mut self, which: usize) {
        let Some(channel) = self.nth(which) else {
            return;
        };
        let half = self.channels.get_mut(&channel).expect("it is there");
        if half.remote.is_none() {
            if self.ahead == AHEAD_MAX {
                return;
            }
            self.ahead += 1;
        }
        half.sent += 1;
        let message = [half.serial.to_le_bytes(), half.sent.to_le_bytes()].concat();
        let kind = half.sent % 3;
        let sent = self.mux.send(channel, kind, &[Segment::Copy(&message)]);
        sent.expect("the channel is open here");
    }

    fn close(&mut self, which: usize) {
        if let Some(channel) = self.nth(which) {
            self.mux.close(channel);
            self.channels.remove(&channel);
        }
    }

    fn nth(&self, which: usize) -> Option<ChannelId> {
        let mut channels: Vec<_> = self.channels.keys().copied().collect();
        channels.sort_unstable();
        (!channels.is_empty()).then(|| channels[which % channels.len()])
    }

    fn transmit(&mut self) {
        while let Some(frame) = self.mux.poll_transmit() {
            assert!(!frame.is_empty());
            self.under_way.push_back(frame.to_bytes());
        }
        assert_eq!(self.mux.buffered_bytes(), 0);
    }

    fn poll(&mut self) {
        while let Some(event) = self.mux.poll_event().expect("both are honest") {
            match event {
                Event::RemoteOpen { offer, .. } => self.offers.push_back(offer),
                Event::Opened { channel, handshake } => {
                    let half = self.channels.get_mut(&channel).expect("it was opened here");
                    let serial = u64::from_le_bytes(handshake[..].try_into().expect("a serial"));
                    assert!(half.remote.replace(serial).is_none(), "it is opened once");
                }
                Event::Message {
                    channel, payload, ..
                } => {
                    let half = self.channels.get_mut(&channel).expect("it is open here");
                    half.received += 1;
                    let sent_on = u64::from_le_bytes(payload[..8].try_into().expect("16 bytes"));
                    let number = u64::from_le_bytes(payload[8..].try_into().expect("16 bytes"));
                    assert_eq!(half.remote, Some(sent_on), "it was sent on this channel");
                    assert_eq!(half.received, number, "in order, and none is lost");
                }
                Event::Closed { channel } | Event::Rejected { channel } => {
                    let half = self.channels.remove(&channel);
                    assert!(half.is_some(), "it was open until now");
                }
                _ => {}
            }
        }
    }

    /// Holds that the sum of what the other end has sent and nobody has answered is right. Offers that were taken back, or met
    /// a channel of ours, are not counted any more.
    fn check(&self) {
        let (offers, bytes) = self.mux.recount_offered();
        assert_eq!(self.mux.offered_bytes(), bytes);
        assert!(bytes <= OFFERED_BYTES_MAX && offers <= self.offers.len());
    }

    /// Channels that are open at both ends, as far as this one knows.
    fn opened(&self) -> Vec<ChannelId> {
        let open = self
            .channels
            .iter()
            .filter(|(_, half)| half.remote.is_some());
        open.map(|(channel, _)| *channel).collect()
    }
}

/// Delivers up to `count` frames to one end.
fn deliver(ends: &mut [End; 2], to: usize, count: usize) {
    for _ in 0..=count {
        if let Some(frame) = ends[1 - to].under_way.pop_front() {
            ends[to].mux.handle_frame(frame);
        }
    }
    ends[to].poll();
}

/// Delivers everything and answers every offer, until nothing happens any more.
fn come_to_rest(ends: &mut [End; 2]) {
    loop {
        for side in [0, 1] {
            while !ends[side].offers.is_empty() {
                ends[side].answer(false);
            }
            ends[side].transmit();
        }
        if ends.iter().all(|end| end.under_way.is_empty()) {
            for end in &*ends {
                end.check();
                assert_eq!(end.mux.offered_bytes(), 0, "all offers are answered");
            }
            return;
        }
        deliver(ends, 0, usize::from(u16::MAX).min(ends[1].under_way.len()));
        deliver(ends, 1, usize::from(u16::MAX).min(ends[0].under_way.len()));
    }
}

/// Each half has its other half, and everything that was sent has arrived.
fn agree(ends: &[End; 2]) {
    for (end, other) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        for half in end.channels.values() {
            let remote = half.remote.expect("all offers are answered");
            let theirs = other
                .channels
                .values()
                .find(|theirs| theirs.serial == remote);
            let theirs = theirs.expect("its other half is open, too");
            assert_eq!(theirs.remote, Some(half.serial));
            assert_eq!(theirs.received, half.sent, "nothing is lost");
        }
    }
}

/// Channels that meet, are refused, carry messages, and are closed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (theirs, all) = (0x80, 0x7f);
    vec![
        vec![
            0,
            3,
            6,
            all | theirs,
            1 | theirs,
            3 | theirs,
            6 | theirs,
            all,
            3,
            5,
            6,
            all | theirs,
        ],
        vec![
            0,
            0,
            theirs,
            6,
            6 | theirs,
            all,
            all | theirs,
            3,
            11,
            5,
            0,
            3,
            6,
            all | theirs,
        ],
        vec![
            0,
            5,
            0,
            3,
            6,
            all | theirs,
            2 | theirs,
            1 | theirs,
            6 | theirs,
            all,
            0,
            6,
            all | theirs,
        ],
    ]
}
