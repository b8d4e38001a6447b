//! Goal: a WebSocket costs what its peer sends, not what it announces. Method: one test, for nothing else may allocate
//! meanwhile; the allocator's peak, of strangers that announce the longest frames, and of ones that keep to them.

use std::alloc::System;

use cap::Cap;
use ferrocore::websocket::{WebSocketIo, accept};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What one socket may take, pipe and all.
const SOCKET_MAX: usize = 512 * 1024;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Answers a stranger that says `announced` once it is there, and reads `len` bytes from it.
async fn read_from_stranger(announced: &[u8], payload: &[u8], times: usize) {
    let (mut far, near) = duplex(4096);
    let stranger = async {
        far.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 4096];
        assert!(far.read(&mut answer).await.unwrap() > 0);
        far.write_all(announced).await.unwrap();
        for _ in 0..times {
            far.write_all(payload).await.unwrap();
        }
        far // held until all was read
    };
    let us = async {
        let mut socket: WebSocketIo<_> = accept::<DuplexStream>(near).await.unwrap();
        let mut chunk = vec![0; 4096];
        let mut left = times * payload.len();
        while left > 0 {
            left -= socket.read(&mut chunk).await.unwrap();
        }
        socket
    };
    tokio::join!(stranger, us);
}

#[tokio::test]
async fn an_announced_length_reserves_nothing() {
    let header = |first: u8, len: u64| {
        let mut header = vec![first, 0xff];
        header.extend(len.to_be_bytes());
        header.extend([0; 4]);
        header
    };
    read_from_stranger(&header(0x82, 10), &[1; 10], 1).await; // what the runtime needs
    // One piece of what was announced, some of a message without end, and a message that does come as long as it was announced.
    for (announced, times) in [
        (header(0x82, 1 << 24), 16), // a piece
        (header(0x02, u64::MAX >> 1), 6 * 16),
        (header(0x82, 1 << 24), (1 << 24) / 4096),
    ] {
        let before = ALLOCATOR.max_allocated();
        let held = ALLOCATOR.allocated();
        read_from_stranger(&announced, &[7; 4096], times).await;
        let peak = ALLOCATOR.max_allocated();
        println!("{} bytes above what was held", peak - held);
        assert!(
            peak == before || peak - held <= SOCKET_MAX,
            "{}",
            peak - held
        );
    }
}
