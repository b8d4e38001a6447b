//! libsodium's `secretstream_xchacha20poly1305`: a sequence of authenticated messages in one direction.
//! Knows frames of `tag (1) | message | MAC (16)`, in place. Does not know where frames go.
//!
//! Two implementations give the same bytes: pure Rust, and libsodium with the feature `sodium`.

#[cfg(any(test, not(feature = "sodium")))]
mod pure;

#[cfg(feature = "sodium")]
use ferrocore_sodium::secretstream::State;
#[cfg(not(feature = "sodium"))]
use pure::State;

/// Bytes of the header that starts a direction; random, public.
pub const HEADER_LEN: usize = 24;

/// Bytes of a direction's key.
pub const KEY_LEN: usize = 32;

/// Bytes in front of the message in a frame.
pub const PREFIX_LEN: usize = 1;

/// Bytes behind the message in a frame.
pub const MAC_LEN: usize = 16;

/// Bytes that a frame has beside its message.
pub const OVERHEAD: usize = PREFIX_LEN + MAC_LEN;

/// A frame that does not decrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame does not decrypt")]
pub struct Forged;

/// The sending end of a direction.
pub struct Push(State);

impl Push {
    /// Starts a direction; the receiver must get `header`. The same key and header must never be used
    /// twice.
    pub fn new(key: &[u8; KEY_LEN], header: &[u8; HEADER_LEN]) -> Self {
        Self(State::new(key, header))
    }

    /// Encrypts the message in the middle of `frame` and fills in tag and MAC around it.
    ///
    /// # Panics
    /// If `frame` is shorter than [`OVERHEAD`].
    pub fn seal(&mut self, frame: &mut [u8]) {
        self.0.seal(frame);
    }
}

/// The receiving end of a direction.
pub struct Pull(State);

impl Pull {
    /// Starts a direction with the header that the sender made.
    pub fn new(key: &[u8; KEY_LEN], header: &[u8; HEADER_LEN]) -> Self {
        Self(State::new(key, header))
    }

    /// Decrypts `frame`: afterwards its message stands between [`PREFIX_LEN`] and [`MAC_LEN`] bytes
    /// without meaning. Whatever the tag says about the message is ignored, as in JavaScript.
    ///
    /// # Errors
    /// [`Forged`] if it is not the sender's next frame; nothing has changed then.
    pub fn open(&mut self, frame: &mut [u8]) -> Result<(), Forged> {
        self.0.open(frame).then_some(()).ok_or(Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; KEY_LEN] = [0x11; KEY_LEN];
    const HEADER: [u8; HEADER_LEN] = [0x22; HEADER_LEN];

    /// What libsodium 1.0.18 makes of "one", "two" with the tag REKEY, "three".
    const FROM_LIBSODIUM: [(&str, &[u8]); 3] = [
        ("da6b12feda0e5c5e14b58a698a49714c1053e25a", b"one"),
        ("e1585dacbf9cb268f3b1a424af11515bf07a9675", b"two"),
        ("20d6a0ba26bcd70a541310364f72af3ba662dc46c12d", b"three"),
    ];

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[0; PREFIX_LEN], message, &[0; MAC_LEN]].concat()
    }

    #[test]
    fn a_change_of_key_is_followed() {
        let mut pull = Pull::new(&KEY, &HEADER);
        for (hex, message) in FROM_LIBSODIUM {
            let mut frame = hex::decode(hex).unwrap();
            pull.open(&mut frame).unwrap();
            assert_eq!(&frame[PREFIX_LEN..frame.len() - MAC_LEN], message);
        }
    }

    #[test]
    fn forged_replayed_and_short_frames_are_refused() {
        let mut push = Push::new(&KEY, &HEADER);
        let mut pull = Pull::new(&KEY, &HEADER);
        let mut good = frame(b"message");
        push.seal(&mut good);
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 1;
            assert_eq!(pull.open(&mut forged), Err(Forged));
        }
        assert_eq!(pull.open(&mut good.clone()[..OVERHEAD - 1]), Err(Forged));
        assert_eq!(pull.open(&mut []), Err(Forged));
        assert_eq!(pull.open(&mut good.clone()), Ok(()));
        assert_eq!(pull.open(&mut good), Err(Forged));
    }

    proptest! {
        /// Pure Rust seals to the same bytes as the chosen implementation, and opens what it sealed: with
        /// the feature `sodium` this compares the two.
        #[test]
        fn implementations_agree(lens in prop::collection::vec(prop_oneof![0..200usize, 0..70_000usize], 1..8)) {
            let mut push = Push::new(&KEY, &HEADER);
            let mut pure_push = pure::State::new(&KEY, &HEADER);
            let mut pure_pull = pure::State::new(&KEY, &HEADER);
            for len in lens {
                let message: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
                let (mut ours, mut pure) = (frame(&message), frame(&message));
                push.seal(&mut ours);
                pure_push.seal(&mut pure);
                prop_assert!(ours == pure);
                prop_assert!(pure_pull.open(&mut ours));
                prop_assert!(ours[PREFIX_LEN..PREFIX_LEN + len] == message);
            }
        }
    }
}
