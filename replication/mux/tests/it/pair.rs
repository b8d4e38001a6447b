//! Two muxes that talk to each other, in every order a network allows.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferrocore_mux::{ChannelId, Event, Mux, Segment};
use proptest::prelude::*;

/// One end, what it sent and received on every channel it ever had, and the frames on their way to it.
#[derive(Default)]
struct End {
    mux: Mux,
    channels: BTreeMap<ChannelId, Log>,
    arriving: VecDeque<Bytes>,
    opened: u8,
}

/// What one end knows of a channel. Handshakes are unique, so they tell which two belong together.
#[derive(Default)]
struct Log {
    handshake: Vec<u8>,
    remote_handshake: Option<Vec<u8>>,
    sent: Vec<u8>,
    received: Vec<u8>,
    closed: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Open { alice: bool, name: u8 },
    Close { alice: bool, nth: usize },
    Send { alice: bool, nth: usize, byte: u8 },
    Transmit { alice: bool },
    Deliver { alice: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let alice = any::<bool>();
    prop_oneof![
        2 => (alice, 0..4u8).prop_map(|(alice, name)| Op::Open { alice, name }),
        1 => (alice, 0..8usize).prop_map(|(alice, nth)| Op::Close { alice, nth }),
        4 => (alice, 0..8usize, any::<u8>()).prop_map(|(alice, nth, byte)| Op::Send { alice, nth, byte }),
        2 => alice.prop_map(|alice| Op::Transmit { alice }),
        3 => alice.prop_map(|alice| Op::Deliver { alice }),
    ]
}

impl End {
    fn open(&mut self, name: u8) {
        let handshake = self.next_handshake();
        let channel = self
            .mux
            .open(name_of(name), Some(&[name]), &handshake)
            .unwrap();
        self.channels.insert(
            channel,
            Log {
                handshake,
                ..Log::default()
            },
        );
    }

    fn next_handshake(&mut self) -> Vec<u8> {
        self.opened += 1;
        vec![self.opened]
    }

    fn nth_live(&self, nth: usize) -> Option<ChannelId> {
        let live: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, log)| !log.closed)
            .map(|(id, _)| *id)
            .collect();
        live.get(nth % live.len().max(1)).copied()
    }

    fn close(&mut self, nth: usize) {
        if let Some(channel) = self.nth_live(nth) {
            self.mux.close(channel);
            self.channels.get_mut(&channel).unwrap().closed = true;
        }
    }

    fn send(&mut self, nth: usize, byte: u8) {
        if let Some(channel) = self.nth_live(nth) {
            self.mux
                .send(channel, 0, &[Segment::Copy(&[byte])])
                .unwrap();
            self.channels.get_mut(&channel).unwrap().sent.push(byte);
        }
    }

    fn deliver(&mut self) {
        if let Some(frame) = self.arriving.pop_front() {
            self.mux.handle_frame(frame);
        }
        while let Some(event) = self.mux.poll_event().expect("both ends behave") {
            self.handle(event);
        }
    }

    /// Offers of the names "accepted" are taken, others refused.
    fn handle(&mut self, event: Event) {
        match event {
            Event::RemoteOpen {
                offer, protocol, ..
            } if protocol == "accepted" => {
                let handshake = self.next_handshake();
                let channel = self.mux.accept(offer, &handshake).unwrap();
                self.channels.insert(
                    channel,
                    Log {
                        handshake,
                        ..Log::default()
                    },
                );
            }
            Event::RemoteOpen { offer, .. } => self.mux.reject(offer),
            Event::Opened { channel, handshake } => {
                self.channels.get_mut(&channel).unwrap().remote_handshake =
                    Some(handshake.to_vec());
            }
            Event::Message {
                channel, payload, ..
            } => {
                self.channels
                    .get_mut(&channel)
                    .unwrap()
                    .received
                    .extend_from_slice(&payload);
            }
            Event::Closed { channel } | Event::Rejected { channel } => {
                self.channels.get_mut(&channel).unwrap().closed = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn name_of(name: u8) -> &'static str {
    if name.is_multiple_of(2) {
        "accepted"
    } else {
        "refused"
    }
}

fn transmit(from: &mut End, to: &mut End) -> bool {
    let frame = from.mux.poll_transmit();
    let sent = frame.is_some();
    to.arriving.extend(frame.map(|frame| frame.to_bytes()));
    sent
}

fn settle(alice: &mut End, bob: &mut End) {
    loop {
        let moved = transmit(alice, bob) | transmit(bob, alice);
        if !moved && alice.arriving.is_empty() && bob.arriving.is_empty() {
            return;
        }
        alice.deliver();
        bob.deliver();
    }
}

/// Every channel that met another received a prefix of what that sent, all of it if neither closed;
/// and both agree on which are open.
fn check(end: &End, other: &End) {
    for log in end.channels.values() {
        let Some(remote) = &log.remote_handshake else {
            continue;
        };
        let twin = other
            .channels
            .values()
            .find(|twin| twin.handshake == *remote)
            .expect("who opened it");
        assert!(twin.sent.starts_with(&log.received));
        assert_eq!(log.closed, twin.closed);
        if !log.closed {
            assert_eq!(twin.remote_handshake.as_ref(), Some(&log.handshake));
            assert_eq!(twin.sent, log.received);
        }
    }
}

proptest! {
    #[test]
    fn messages_arrive_in_order_and_both_ends_agree(ops in prop::collection::vec(op(), 0..120)) {
        // Goal: no order of opens, closes, sends and deliveries makes two honest ends disagree.
        let (mut alice, mut bob) = (End::default(), End::default());
        for op in ops {
            let is_alice = match op {
                Op::Open { alice, .. } | Op::Close { alice, .. } | Op::Send { alice, .. }
                | Op::Transmit { alice } | Op::Deliver { alice } => alice,
            };
            let (end, other) = if is_alice { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
            match op {
                Op::Open { name, .. } => end.open(name),
                Op::Close { nth, .. } => end.close(nth),
                Op::Send { nth, byte, .. } => end.send(nth, byte),
                Op::Transmit { .. } => { transmit(end, other); }
                Op::Deliver { .. } => end.deliver(),
            }
        }
        settle(&mut alice, &mut bob);
        check(&alice, &bob);
        check(&bob, &alice);
    }
}

#[test]
fn channels_of_one_name_pair_first_come_first_served() {
    let (mut alice, mut bob) = (End::default(), End::default());
    for _ in 0..3 {
        alice.open(1);
        bob.open(1);
    }
    settle(&mut alice, &mut bob);
    for (hers, his) in alice.channels.values().zip(bob.channels.values()) {
        assert_eq!(hers.remote_handshake.as_ref(), Some(&his.handshake));
    }
}

#[test]
fn an_offer_may_wait_and_keeps_what_was_sent_ahead() {
    let (mut alice, mut bob) = (Mux::new(), Mux::new());
    let hers = alice.open("p", None, b"hi").unwrap();
    alice.send(hers, 4, &[Segment::Copy(b"early")]).unwrap();
    bob.handle_frame(alice.poll_transmit().unwrap().to_bytes());
    let Some(Event::RemoteOpen { offer, .. }) = bob.poll_event().unwrap() else {
        panic!("an offer")
    };
    assert_eq!(bob.poll_event(), Ok(None));

    // Opening the same name answers the offer.
    let his = bob.open("p", None, b"ho").unwrap();
    let opened = Event::Opened {
        channel: his,
        handshake: "hi".into(),
    };
    assert_eq!(bob.poll_event(), Ok(Some(opened)));
    let early = Event::Message {
        channel: his,
        kind: 4,
        payload: "early".into(),
    };
    assert_eq!(bob.poll_event(), Ok(Some(early)));
    assert!(bob.accept(offer, b"").is_err(), "the offer is used up");

    alice.handle_frame(bob.poll_transmit().unwrap().to_bytes());
    assert_eq!(
        alice.poll_event(),
        Ok(Some(Event::Opened {
            channel: hers,
            handshake: "ho".into()
        }))
    );
}

#[test]
fn an_offer_taken_back_gives_its_number_back() {
    // Goal: the opener may use the number again once it hears the reject.
    let (mut alice, mut bob) = (Mux::new(), Mux::new());
    let hers = alice.open("p", None, b"").unwrap();
    alice.close(hers);
    bob.handle_frame(alice.poll_transmit().unwrap().to_bytes());
    let Some(Event::RemoteOpen { offer, .. }) = bob.poll_event().unwrap() else {
        panic!("an offer")
    };
    assert_eq!(bob.poll_event(), Ok(None));
    assert!(bob.accept(offer, b"").is_err());
    alice.handle_frame(bob.poll_transmit().unwrap().to_bytes());
    assert_eq!(alice.poll_event(), Ok(None));
    alice.open("p", None, b"").unwrap();
    assert!(
        alice
            .poll_transmit()
            .unwrap()
            .to_bytes()
            .starts_with(&[0, 1, 1]),
        "number 1 again"
    );
}
