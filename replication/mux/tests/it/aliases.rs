//! A protocol that goes by two names: whichever the peer uses, both mean one channel.

use ferrocore_mux::{Event, Mux, PeerMisbehaved};

const NEW: &str = "hypercore/alpha";
const OLD: &str = "hypercore";

/// What `to` sees of all that `from` has sent.
fn deliver(from: &mut Mux, to: &mut Mux) -> Result<Vec<Event>, PeerMisbehaved> {
    while let Some(frame) = from.poll_transmit() {
        to.handle_frame(frame.to_bytes());
    }
    std::iter::from_fn(|| to.poll_event().transpose()).collect()
}

/// A mux that knows both names.
fn knowing() -> Mux {
    let mut mux = Mux::new();
    mux.alias(NEW, OLD);
    mux
}

fn handshake_of(events: &[Event]) -> Option<&[u8]> {
    match events {
        [Event::Opened { handshake, .. }] => Some(handshake),
        _ => None,
    }
}

#[test]
fn an_offer_by_the_alias_is_one_of_the_protocol_and_answered_by_the_alias() {
    // Goal: a peer that knows nothing but the old name gets its channel.
    let (mut here, mut there) = (knowing(), Mux::new());
    there.open(OLD, Some(b"id"), b"theirs").unwrap();
    let events = deliver(&mut there, &mut here).unwrap();
    let [
        Event::RemoteOpen {
            offer, protocol, ..
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(protocol, NEW);
    here.accept(*offer, b"ours").unwrap();
    let events = deliver(&mut here, &mut there).unwrap();
    assert_eq!(handshake_of(&events), Some(b"ours".as_slice()));
    let events = deliver(&mut there, &mut here).unwrap();
    assert_eq!(handshake_of(&events), Some(b"theirs".as_slice()));
}

#[test]
fn opening_the_protocol_meets_an_offer_by_the_alias() {
    let (mut here, mut there) = (knowing(), Mux::new());
    there.open(OLD, Some(b"id"), b"theirs").unwrap();
    assert_eq!(deliver(&mut there, &mut here).unwrap().len(), 1);
    here.open(NEW, Some(b"id"), b"ours").unwrap();
    assert_eq!(
        handshake_of(&deliver(&mut here, &mut there).unwrap()),
        Some(b"ours".as_slice())
    );
}

#[test]
fn both_open_at_once_by_different_names() {
    let (mut here, mut there) = (knowing(), Mux::new());
    there.alias(OLD, NEW); // its protocol is the old one
    there.open(OLD, Some(b"id"), b"theirs").unwrap();
    here.open(NEW, Some(b"id"), b"ours").unwrap();
    let there_sees = {
        let frames: Vec<_> = std::iter::from_fn(|| here.poll_transmit()).collect();
        let events = deliver(&mut there, &mut here).unwrap();
        assert_eq!(handshake_of(&events), Some(b"theirs".as_slice()));
        frames
            .into_iter()
            .for_each(|frame| there.handle_frame(frame.to_bytes()));
        there.poll_event().unwrap()
    };
    assert_eq!(
        handshake_of(there_sees.as_slice()),
        Some(b"ours".as_slice())
    );
}

#[test]
fn a_name_that_is_no_alias_is_another_protocol() {
    let (mut here, mut there) = (Mux::new(), Mux::new());
    here.open(NEW, Some(b"id"), b"ours").unwrap();
    there.open(OLD, Some(b"id"), b"theirs").unwrap();
    let events = deliver(&mut there, &mut here).unwrap();
    assert!(matches!(events.as_slice(), [Event::RemoteOpen { protocol, .. }] if protocol == OLD));
}
