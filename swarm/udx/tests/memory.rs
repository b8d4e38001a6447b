//! Goal: what a stream costs is bounded whoever the peer is, measured at the allocator.
//! Method: one test, for nothing else may allocate meanwhile; each part takes the peak of one hostile or idle peer.

mod common;

use std::alloc::System;

use cap::Cap;
use common::{IDS, address};
use ferrocore_primitives::time::Time;
use ferrocore_udx::packet::{Header, Kinds, Packet};
use ferrocore_udx::stream::{Config, Stream};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What design rule 4 grants a connection until it has proven itself, in bytes.
const STRANGER_MAX: usize = 2 << 20;

const NOW: Time = Time::ZERO;

#[test]
fn a_stranger_costs_less_than_two_mebibytes_and_an_idle_stream_little() {
    let ahead = flood(Kinds::DATA, 1200, |index| 2 * index + 2);
    let empty = flood(Kinds::DATA, 0, |index| 2 * index + 2);
    let backwards = flood(Kinds::DATA, 100, |index| 16_000 - (index % 16_000));
    let in_line = flood(Kinds::DATA, 1200, |index| index);
    let messages = flood(Kinds::MESSAGE, 2000, |_| 0);
    let peaks = [ahead, empty, backwards, in_line, messages];
    println!("peaks of floods {peaks:?}");
    assert!(peaks.iter().all(|&peak| peak <= STRANGER_MAX), "{peaks:?}");
    let all = mixed_flood();
    println!("peak of all together {all}");
    assert!(all <= STRANGER_MAX + (600 << 10), "{all}");
    let idle = idle();
    println!(
        "an idle stream takes {idle}, {} of them itself",
        size_of::<Stream>()
    );
    assert!(idle <= 900, "{idle} bytes");
}

/// The most that a fresh stream held while 100,000 such packets came and nobody read.
fn flood(kinds: Kinds, len: usize, seq: impl Fn(u32) -> u32) -> usize {
    let before = ALLOCATOR.allocated();
    let mut stream = connected();
    let mut datagram = vec![0; 20 + len];
    let mut peak = 0;
    for index in 0..100_000 {
        packet(&mut stream, kinds, seq(index), &mut datagram);
        peak = peak.max(ALLOCATOR.allocated() - before);
    }
    peak
}

/// Everything at once: a full backlog, as much ahead of it as is kept, messages.
fn mixed_flood() -> usize {
    let before = ALLOCATOR.allocated();
    let mut stream = connected();
    let mut datagram = vec![0; 1220];
    let mut peak = 0;
    for index in 0..100_000u32 {
        packet(&mut stream, Kinds::MESSAGE, 0, &mut datagram);
        packet(&mut stream, Kinds::DATA, 500 + 2 * index, &mut datagram);
        packet(&mut stream, Kinds::DATA, index, &mut datagram);
        peak = peak.max(ALLOCATOR.allocated() - before);
    }
    peak
}

/// What a stream holds that has sent something, was answered, and does nothing any more.
fn idle() -> usize {
    let before = ALLOCATOR.allocated();
    let streams: Vec<_> = (0..1000).map(|_| used()).collect();
    (ALLOCATOR.allocated() - before) / streams.len()
}

fn used() -> Stream {
    let mut stream = connected();
    stream.write(&[1; 3000]).unwrap();
    let mut out = Vec::new();
    while stream.poll_transmit(NOW, 16, &mut out).is_some() {}
    let header = Header {
        kinds: Kinds::DATA,
        data_offset: 0,
        stream_id: IDS[0],
        window: 1 << 20,
        seq: 0,
        ack: 3,
    };
    let datagram = [&header.to_bytes()[..], &[2; 1000]].concat();
    stream.handle_packet(NOW, &Packet::parse(&datagram).unwrap());
    assert_eq!(stream.read(usize::MAX).len(), 1000);
    assert!(stream.is_flushed());
    while stream.poll_transmit(NOW, 16, &mut out).is_some() {}
    stream
}

fn connected() -> Stream {
    let mut stream = Stream::new(NOW, IDS[0], Config::default());
    stream.connect(NOW, IDS[1], address(1)).unwrap();
    stream
}

fn packet(stream: &mut Stream, kinds: Kinds, seq: u32, datagram: &mut [u8]) {
    let header = Header {
        kinds,
        data_offset: 0,
        stream_id: IDS[0],
        window: 1 << 20,
        seq,
        ack: 0,
    };
    datagram[..20].copy_from_slice(&header.to_bytes());
    stream.handle_packet(NOW, &Packet::parse(datagram).unwrap());
}
