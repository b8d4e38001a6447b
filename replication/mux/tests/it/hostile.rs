//! What a peer can do wrong, what that is called, and what it may cost.

use bytes::Bytes;
use ferrocore_mux::limits::{
    NAME_LEN_MAX, OFFERED_BYTES_MAX, OFFERED_OVERHEAD, REMOTE_CHANNELS_MAX,
};
use ferrocore_mux::{Event, Mux, PeerMisbehaved};
use ferrocore_primitives::encoding::{put_buffer, put_string, put_uint};
use proptest::prelude::*;

fn open(number: u64, protocol: &str) -> Bytes {
    let mut frame = vec![0, 1];
    put_uint(&mut frame, number);
    put_string(&mut frame, protocol);
    put_buffer(&mut frame, b"");
    frame.into()
}

/// Feeds frames to a mux that rejects every offer, until it complains.
fn rejecting(frames: impl IntoIterator<Item = Bytes>) -> Result<(), PeerMisbehaved> {
    let mut mux = Mux::new();
    for frame in frames {
        mux.handle_frame(frame);
        while let Some(event) = mux.poll_event()? {
            if let Event::RemoteOpen { offer, .. } = event {
                mux.reject(offer);
            }
        }
        while mux.poll_transmit().is_some() {}
    }
    Ok(())
}

/// Feeds frames to a mux that answers no offer.
fn ignoring(frames: impl IntoIterator<Item = Bytes>) -> Result<(), PeerMisbehaved> {
    let mut mux = Mux::new();
    for frame in frames {
        mux.handle_frame(frame);
        while mux.poll_event()?.is_some() {}
    }
    Ok(())
}

#[test]
fn channel_numbers_are_checked() {
    let wrong = |channel| Err(PeerMisbehaved::OpenedWrongChannel { channel });
    assert_eq!(ignoring([open(2, "p")]), wrong(2));
    assert_eq!(ignoring([open(1, "p"), open(1, "p")]), wrong(1));
    assert_eq!(ignoring([open(1 << 40, "p")]), wrong(1 << 40));
    assert_eq!(
        rejecting([open(1, "p"), open(1, "p"), open(2, "p")]),
        Ok(())
    );
    assert_eq!(rejecting([open(0, "p")]), Ok(()));
}

#[test]
fn a_reject_needs_something_to_reject() {
    for number in [0, 1, 9] {
        let frame = Bytes::from(vec![0, 2, number]);
        assert_eq!(
            ignoring([frame]),
            Err(PeerMisbehaved::RejectedWrongChannel {
                channel: number.into()
            })
        );
    }
}

#[test]
fn what_refers_to_nothing_is_ignored() {
    let frames: [&'static [u8]; 4] = [&[5, 1, 2], &[0, 3, 9], &[0, 3, 0], &[0, 77, 1, 2, 3]];
    assert_eq!(ignoring(frames.map(Bytes::from_static)), Ok(()));
}

#[test]
fn unanswered_offers_are_bounded() {
    for name in ["p".to_owned(), "p".repeat(NAME_LEN_MAX)] {
        let offers = |count: u64| (1..=count).map(|number| open(number, &name));
        let cost = OFFERED_OVERHEAD + 2 * name.len();
        let bound = (OFFERED_BYTES_MAX / cost) as u64;
        assert_eq!(ignoring(offers(bound)), Ok(()));
        assert_eq!(
            ignoring(offers(bound + 1)),
            Err(PeerMisbehaved::TooMuchAhead)
        );
    }
}

#[test]
fn messages_ahead_of_an_answer_are_bounded() {
    let message = || Bytes::from(vec![1, 0]);
    let flood = [open(1, "p")]
        .into_iter()
        .chain(std::iter::repeat_with(message).take(OFFERED_BYTES_MAX / OFFERED_OVERHEAD));
    assert_eq!(ignoring(flood), Err(PeerMisbehaved::TooMuchAhead));
    let long = Bytes::from(vec![1; OFFERED_BYTES_MAX]);
    assert_eq!(
        ignoring([open(1, "p"), long]),
        Err(PeerMisbehaved::TooMuchAhead)
    );
}

#[test]
fn channels_are_bounded_even_when_each_is_opened() {
    let mut mux = Mux::new();
    let mut error = None;
    for number in 1..=(REMOTE_CHANNELS_MAX as u64 + 1) {
        mux.handle_frame(open(number, "p"));
        match mux.poll_event() {
            Ok(Some(Event::RemoteOpen { offer, .. })) => {
                mux.accept(offer, b"").unwrap();
            }
            Ok(other) => panic!("{other:?}"),
            Err(misbehaved) => error = Some(misbehaved),
        }
        while mux.poll_event().is_ok_and(|event| event.is_some()) {}
        while mux.poll_transmit().is_some() {}
    }
    assert_eq!(error, Some(PeerMisbehaved::TooManyChannels));
}

#[test]
fn names_are_bounded() {
    let name = "x".repeat(NAME_LEN_MAX);
    assert_eq!(rejecting([open(1, &name)]), Ok(()));
    let name = "x".repeat(NAME_LEN_MAX + 1);
    assert_eq!(
        rejecting([open(1, &name)]),
        Err(PeerMisbehaved::NameTooLong {
            len: NAME_LEN_MAX + 1
        })
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(frames in prop::collection::vec(prop::collection::vec(0..6u8, 0..24), 0..12)) {
        let frames = frames.into_iter().map(Bytes::from);
        let _ = rejecting(frames.clone());
        let _ = ignoring(frames);
    }
}
