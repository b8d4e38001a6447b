//! Bytes that can be told from others, over encrypted streams.

use blake2b_simd::State;
use ferrocore_secret_stream::{Receiver, Sender};
use tokio::io::{AsyncRead, AsyncWrite};

const CHUNK: usize = 60_000;

/// Twin of `pattern` in ../../peers/connect.mjs.
fn pattern(seed: u32, offset: usize, len: usize) -> Vec<u8> {
    let byte = |at: u32| {
        ((at >> 3).wrapping_mul(0x9e37_79b1) >> 13)
            .wrapping_add(at)
            .wrapping_add(seed) as u8
    };
    (offset..offset + len).map(|at| byte(at as u32)).collect()
}

/// Sends `len` bytes, and returns their hash, and the sender, which must outlive them.
pub(crate) async fn send<W: AsyncWrite + Unpin>(
    mut sender: Sender<W>,
    seed: u32,
    len: usize,
) -> (String, Sender<W>) {
    let mut hash = State::new();
    let mut done = 0;
    while done < len {
        let chunk = pattern(seed, done, CHUNK.min(len - done));
        hash.update(&chunk);
        done += chunk.len();
        sender.send(&[chunk]).await.unwrap();
    }
    sender.flush().await.unwrap();
    (hash.finalize().to_hex().to_string(), sender)
}

/// Receives `len` bytes, and returns their hash, and the receiver.
pub(crate) async fn receive<R: AsyncRead + Unpin>(
    mut receiver: Receiver<R>,
    len: usize,
) -> (String, Receiver<R>) {
    let mut hash = State::new();
    let mut done = 0;
    while done < len {
        let message = receiver.recv().await.unwrap().expect("no end yet");
        done += message.len();
        hash.update(&message);
    }
    (hash.finalize().to_hex().to_string(), receiver)
}
