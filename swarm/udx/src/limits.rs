//! Every number that bounds what a peer, or a caller, can make this crate hold or do.

use std::time::Duration;

/// Largest datagram sent, with IP and UDP headers, in bytes.
pub const MTU_MAX: u16 = 1500;

/// Longest datagram taken in, in bytes. libudx receives into as many, so no peer sends a longer one.
pub const DATAGRAM_LEN_MAX: usize = 2048;

/// The size, with IP and UDP headers, that every path is taken to carry, in bytes.
pub const MTU_BASE: u16 = 1200;

/// Bytes of IPv4 and UDP headers.
pub const OVERHEAD_IPV4: u16 = 28;

/// Bytes of IPv6 and UDP headers.
pub const OVERHEAD_IPV6: u16 = 48;

/// SACK blocks in one ack (libudx `UDX_MAX_SACKS`).
pub const SACK_BLOCKS_MAX: usize = 50;

/// Acks for packets that arrived in one go while others are missing; they name different gaps if those are many.
pub const ACKS_MAX: u32 = 8;

/// Default of [`Config::receive_window`](crate::stream::Config::receive_window), in bytes; libudx's too.
pub const RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;

/// What a connected stream's window begins with, in bytes; it grows by eight times what is read, up to
/// [`Config::receive_window`](crate::stream::Config::receive_window). A stranger whose first bytes nobody has
/// liked yet costs less than 2 MiB: this backlog, the same again in packets ahead, and what a buffer spares.
pub const RECEIVE_WINDOW_FIRST: u32 = 512 * 1024;

/// The window of a stream before it is connected, in bytes.
pub const UNCONNECTED_WINDOW: u32 = 64 * 1024;

/// How far ahead of the next expected packet one is kept, in packets; also the most packets in flight.
pub const PACKETS_AHEAD_MAX: u64 = 16_384;

/// What a packet that waits for its predecessors is charged beside its payload, in bytes, so that a flood of
/// empty packets fills the receive window too.
pub const PACKET_CHARGE: usize = 128;

/// Bytes written by the application and not yet made into packets; then writes wait (libudx's high watermark).
pub const SEND_QUEUE_MAX: usize = 256 * 1024;

/// Bytes sent and not yet acked, whatever window the peer names.
pub const IN_FLIGHT_MAX: u64 = 16 * 1024 * 1024;

/// Unordered messages waiting to be sent, or to be taken. One more to be sent is refused; one more to be taken takes the place
/// of the oldest, which is dropped and counted.
pub const MESSAGES_MAX: usize = 256;

/// Former remote addresses that retransmissions still go to.
pub const FORMER_REMOTES_MAX: usize = 4;

/// First retransmission timeout, and what it falls back to without samples.
pub const RTO_INITIAL: Duration = Duration::from_secs(1);

/// Shortest retransmission timeout. libudx waits a second; tail-loss probes come earlier in either case.
pub const RTO_MIN: Duration = Duration::from_millis(400);

/// Longest retransmission timeout, backed off or not.
pub const RTO_MAX: Duration = Duration::from_secs(8);

/// Round trips measured longer are taken for a machine that slept.
pub const RTT_MAX: Duration = Duration::from_secs(30);

/// Default of [`Config::give_up_after`](crate::stream::Config::give_up_after).
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(40);

/// How long a stream that ended well still answers a peer that missed the last ack.
pub const LINGER: Duration = Duration::from_secs(5);

/// Plain datagrams waiting for the socket's owner; the next one is dropped and counted.
pub const DATAGRAMS_MAX: usize = 1024;

/// Streams in one endpoint.
pub const STREAMS_MAX: usize = 65_536;

const _: () = assert!(MTU_BASE <= MTU_MAX);
const _: () = assert!((MTU_MAX - OVERHEAD_IPV4) as usize <= DATAGRAM_LEN_MAX);
const _: () = assert!(SACK_BLOCKS_MAX * 8 + 20 <= (MTU_BASE - OVERHEAD_IPV6) as usize);
const _: () = assert!(UNCONNECTED_WINDOW <= RECEIVE_WINDOW_FIRST);
const _: () = assert!(RECEIVE_WINDOW_FIRST <= RECEIVE_WINDOW);
