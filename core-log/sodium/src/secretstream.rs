//! `crypto_secretstream_xchacha20poly1305`: a sequence of authenticated messages in one direction.
//! Knows one direction's state. Tags other than MESSAGE are understood on receipt and never sent.
//!
//! A frame is `tag (1) | message | MAC (16)`, encrypted and decrypted where it lies.

use libsodium_sys::{
    crypto_secretstream_xchacha20poly1305_init_pull as init_pull,
    crypto_secretstream_xchacha20poly1305_pull as pull,
    crypto_secretstream_xchacha20poly1305_push as push,
    crypto_secretstream_xchacha20poly1305_state as RawState,
};
use std::ffi::c_ulonglong;
use std::ptr;
use zeroize::Zeroize;

/// Bytes that a frame has beside its message.
pub const OVERHEAD: usize = 17;

/// Bytes of the tag, in front of the message.
const TAG_LEN: usize = 1;

/// The tag of an ordinary message.
const TAG_MESSAGE: u8 = 0;

/// One end of one direction. The keys are zeroized on drop.
pub struct State(RawState);

impl State {
    /// Starts a direction from its key and the header that the sender chose at random.
    pub fn new(key: &[u8; 32], header: &[u8; 24]) -> Self {
        crate::init();
        let mut state = RawState {
            k: [0; 32],
            nonce: [0; 12],
            _pad: [0; 8],
        };
        // Sender and receiver start from the same state: `init_push` only draws the header beforehand.
        // SAFETY: `header` and `key` have the lengths libsodium reads, `state` is its own type.
        let result = unsafe { init_pull(&raw mut state, header.as_ptr(), key.as_ptr()) };
        assert_eq!(result, 0, "starting a secret stream cannot fail");
        Self(state)
    }

    /// Encrypts the message in the middle of `frame` and fills in tag and MAC around it.
    ///
    /// # Panics
    /// If `frame` is shorter than [`OVERHEAD`].
    pub fn seal(&mut self, frame: &mut [u8]) {
        assert!(frame.len() >= OVERHEAD, "a frame has room for tag and MAC");
        let message_len = (frame.len() - OVERHEAD) as c_ulonglong;
        let out = frame.as_mut_ptr();
        // SAFETY: `out` has OVERHEAD bytes more than the message. The message lies exactly where its
        // ciphertext goes, which libsodium's stream XOR allows (in-place encryption); the tag byte is
        // written before the message and the MAC after it is encrypted. Length and additional data may be
        // null.
        let result = unsafe {
            push(
                &raw mut self.0,
                out,
                ptr::null_mut(),
                out.add(TAG_LEN),
                message_len,
                ptr::null(),
                0,
                TAG_MESSAGE,
            )
        };
        assert_eq!(result, 0, "encrypting cannot fail");
    }

    /// Checks `frame` and decrypts the message in its middle. Returns whether it was authentic; if not,
    /// neither `frame` nor the state has changed.
    #[must_use]
    pub fn open(&mut self, frame: &mut [u8]) -> bool {
        if frame.len() < OVERHEAD {
            return false;
        }
        let start = frame.as_mut_ptr();
        // SAFETY: libsodium reads `frame.len()` bytes and writes OVERHEAD fewer, one byte behind the start.
        // It checks the MAC before it writes, and the message goes exactly where its ciphertext lies.
        // Length, tag and additional data may be null.
        let result = unsafe {
            pull(
                &raw mut self.0,
                start.add(TAG_LEN),
                ptr::null_mut(),
                ptr::null_mut(),
                start,
                frame.len() as c_ulonglong,
                ptr::null(),
                0,
            )
        };
        result == 0
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.0.k.zeroize();
        self.0.nonce.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (State, State) {
        let new = || State::new(&[1; 32], &[2; 24]);
        (new(), new())
    }

    fn sealed(state: &mut State, message: &[u8]) -> Vec<u8> {
        let mut frame = [&[0], message, &[0; 16]].concat();
        state.seal(&mut frame);
        frame
    }

    /// Every length around the sizes at which vector code changes its path, in place, in order.
    #[test]
    fn messages_of_every_length_round_trip() {
        let (mut sender, mut receiver) = pair();
        for len in (0..600).chain([4095, 65536, 100_000]) {
            let message: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut frame = sealed(&mut sender, &message);
            assert!(len < 16 || !frame.windows(16).any(|window| window == &message[..16]));
            assert!(receiver.open(&mut frame));
            assert_eq!(frame[TAG_LEN..=len], message);
        }
    }

    #[test]
    fn forged_frames_are_refused_and_change_nothing() {
        let (mut sender, mut receiver) = pair();
        let frame = sealed(&mut sender, b"message");
        for at in 0..frame.len() {
            let mut forged = frame.clone();
            forged[at] ^= 0x10;
            let before = forged.clone();
            assert!(!receiver.open(&mut forged));
            assert_eq!(forged, before);
        }
        assert!(!receiver.open(&mut frame.clone()[..OVERHEAD - 1]));
        assert!(receiver.open(&mut frame.clone()));
        assert!(!receiver.open(&mut frame.clone()), "replayed");
    }
}
