//! The secret stream in pure Rust.
//!
//! For each frame ChaCha20 (the IETF variant, nonce = counter ‖ inner nonce) gives
//!
//! | keystream block | use |
//! |---|---|
//! | 0 | the Poly1305 key, from its first half |
//! | 1 | hides a block that holds the tag and zeros |
//! | 2 … | hides the message |
//!
//! The MAC covers block 1 whole (only its first byte is sent), the hidden message, padding, and both
//! lengths. Then the inner nonce is XORed with the MAC and the counter grows; if it wraps, or the tag says
//! so, the keys change.

use std::iter::repeat_n;

use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::{ChaCha20, R20, hchacha};
use poly1305::universal_hash::{KeyInit, UniversalHash};
use poly1305::{Block, Poly1305};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{HEADER_LEN, KEY_LEN, MAC_LEN};

const BLOCK_LEN: usize = 64;
const INNER_NONCE_LEN: usize = 8;

const TAG_MESSAGE: u8 = 0;
const TAG_REKEY: u8 = 2;

/// Poly1305 works on blocks of this many bytes.
const POLY_BLOCK_LEN: usize = 16;

/// The most bytes the MAC covers behind the message's whole blocks: a partial block, as much padding, and
/// the two lengths.
const MAC_END_LEN_MAX: usize = 2 * (POLY_BLOCK_LEN - 1) + 2 * size_of::<u64>();

/// One end of one direction. The keys are zeroized on drop.
pub(super) struct State {
    key: [u8; KEY_LEN],
    counter: u32,
    inner_nonce: [u8; INNER_NONCE_LEN],
}

/// What the keystream of one frame provides.
struct FrameStream {
    /// Stands at the message.
    cipher: ChaCha20,
    poly_key: Zeroizing<[u8; 32]>,
    /// The block with the tag, as it comes out of the cipher.
    tag_block: [u8; BLOCK_LEN],
}

impl State {
    pub(super) fn new(key: &[u8; KEY_LEN], header: &[u8; HEADER_LEN]) -> Self {
        let [salt @ .., a, b, c, d, e, f, g, h] = header;
        Self {
            key: hchacha::<R20>(key.into(), salt.into()).into(),
            counter: 1,
            inner_nonce: [*a, *b, *c, *d, *e, *f, *g, *h],
        }
    }

    pub(super) fn seal(&mut self, frame: &mut [u8]) {
        let (tag, message, mac) = split(frame).expect("a frame has room for tag and MAC");
        let mut stream = self.frame_stream(TAG_MESSAGE);
        *tag = stream.tag_block[0];
        stream.cipher.apply_keystream(message);
        *mac = stream.authenticate(message);
        self.advance(TAG_MESSAGE, mac);
    }

    pub(super) fn open(&mut self, frame: &mut [u8]) -> bool {
        let Some((hidden_tag, message, mac)) = split(frame) else {
            return false;
        };
        let mut stream = self.frame_stream(*hidden_tag);
        // The hidden tag went through the cipher once more and is in the clear; the MAC covers it hidden.
        let tag = std::mem::replace(&mut stream.tag_block[0], *hidden_tag);
        if !bool::from(stream.authenticate(message).ct_eq(&*mac)) {
            return false;
        }
        stream.cipher.apply_keystream(message);
        self.advance(tag, mac);
        true
    }

    /// Starts the keystream of the current frame and passes `tag` through it.
    fn frame_stream(&self, tag: u8) -> FrameStream {
        let mut cipher = self.cipher();
        let mut tag_block = [0; BLOCK_LEN];
        tag_block[0] = tag;
        let mut blocks = Zeroizing::new([[0; BLOCK_LEN], tag_block]);
        cipher.apply_keystream(blocks.as_flattened_mut());
        let [poly_block, tag_block] = &*blocks;
        let mut poly_key = Zeroizing::new([0; 32]);
        poly_key.copy_from_slice(poly_block.split_at(32).0);
        FrameStream {
            cipher,
            poly_key,
            tag_block: *tag_block,
        }
    }

    /// Moves on to the next frame.
    fn advance(&mut self, tag: u8, mac: &[u8; MAC_LEN]) {
        for (nonce, mac) in self.inner_nonce.iter_mut().zip(mac) {
            *nonce ^= mac;
        }
        self.counter = self.counter.wrapping_add(1);
        if tag & TAG_REKEY != 0 || self.counter == 0 {
            self.change_keys();
        }
    }

    /// Replaces key and inner nonce by their encryption, so that earlier frames stay secret even if the new
    /// key leaks.
    fn change_keys(&mut self) {
        let mut cipher = self.cipher();
        cipher.apply_keystream(&mut self.key);
        cipher.apply_keystream(&mut self.inner_nonce);
        self.counter = 1;
    }

    fn cipher(&self) -> ChaCha20 {
        let [a, b, c, d] = self.counter.to_le_bytes();
        let [e, f, g, h, i, j, k, l] = self.inner_nonce;
        let nonce = [a, b, c, d, e, f, g, h, i, j, k, l];
        ChaCha20::new((&self.key).into(), (&nonce).into())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.key.zeroize();
        self.inner_nonce.zeroize();
    }
}

impl FrameStream {
    /// The MAC over the tag block and the hidden message.
    ///
    /// libsodium pads with as many zeros as the message has bytes in its last, partial block, which does
    /// not fill that block; its wire format keeps this.
    fn authenticate(&self, hidden: &[u8]) -> [u8; MAC_LEN] {
        let mut poly = Poly1305::new((&*self.poly_key).into());
        poly.update(Block::slice_as_chunks(&self.tag_block).0);
        let (blocks, tail) = Block::slice_as_chunks(hidden);
        poly.update(blocks);

        let covered_len = (BLOCK_LEN + hidden.len()) as u64;
        let end = tail
            .iter()
            .copied()
            .chain(repeat_n(0, tail.len()))
            .chain(0u64.to_le_bytes())
            .chain(covered_len.to_le_bytes());
        let mut buffer = [0; MAC_END_LEN_MAX];
        let mut len = 0;
        for (slot, byte) in buffer.iter_mut().zip(end) {
            *slot = byte;
            len += 1;
        }
        poly.compute_unpadded(buffer.split_at(len).0).into()
    }
}

/// A frame's tag, message and MAC.
fn split(frame: &mut [u8]) -> Option<(&mut u8, &mut [u8], &mut [u8; MAC_LEN])> {
    let (tag, rest) = frame.split_first_mut()?;
    let (message, mac) = rest.split_last_chunk_mut()?;
    Some((tag, message, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_when_the_counter_wraps() {
        // The state of libsodium after the frames of `a_change_of_key_is_followed`, with its counter set
        // to the last value; then what it made of "four" and "five".
        let mut state = State::new(&[0x11; 32], &[0x22; 24]);
        for (hex, message) in [
            ("da6b12feda0e5c5e14b58a698a49714c1053e25a", "one"),
            ("e1585dacbf9cb268f3b1a424af11515bf07a9675", "two"),
            ("20d6a0ba26bcd70a541310364f72af3ba662dc46c12d", "three"),
            ("3e166a8f21684c2152432502e760579269e17d0c73", "four"),
            ("3efa6f79820bc75152b40873811dbeb03a34c489e7", "five"),
        ] {
            if message == "four" {
                state.counter = u32::MAX;
            }
            let mut frame = hex::decode(hex).unwrap();
            assert!(state.open(&mut frame), "{message}");
            assert_eq!(&frame[1..=message.len()], message.as_bytes());
        }
        assert_eq!(state.counter, 2, "one frame after the change");
    }
}
