//! UDX: reliable, ordered streams and unordered messages over UDP, many of them on one socket, as Hyperswarm's
//! peers speak it.
//!
//! Knows the protocol of [libudx](https://github.com/holepunchto/libudx) (main branch of August 2026,
//! `udx-native` 1.21). Does not know encryption, discovery or who the peer is.
//!
//! - [`stream::Stream`] is one stream as a state machine, without IO: packets and time in, packets, bytes and
//!   deadlines out. [`packet`] is its codec. Both build for WebAssembly.
//! - `socket` (feature `tokio`) drives it: [`Udx`](socket::Udx) holds the streams, a
//!   [`UdxSocket`](socket::UdxSocket) carries any number of them and plain datagrams beside, a
//!   [`UdxStream`](socket::UdxStream) is `AsyncRead + AsyncWrite`.
//!
//! # Packet layout
//!
//! All numbers little-endian (libudx `udx_write_header`, `process_packet`).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | magic `ff` |
//! | 1 | 1 | version `01` |
//! | 2 | 1 | kinds, any combination: 1 DATA, 2 END, 4 SACK, 8 MESSAGE, 16 DESTROY, 32 HEARTBEAT; 0 is a plain ack |
//! | 3 | 1 | data offset: bytes between header and payload, which are padding or SACK blocks |
//! | 4 | 4 | stream id, as the *receiver* of the packet numbers it |
//! | 8 | 4 | receive window of the sender of the packet, in bytes |
//! | 12 | 4 | sequence number, in packets |
//! | 16 | 4 | ack: the next sequence number expected |
//! | 20 | data offset | zeros (a probe of the MTU), or SACK blocks |
//! | | 8 each | SACK block: first sequence number, and the one after the last; without a data offset they fill the packet |
//! | | rest | payload |
//!
//! DATA and END take a sequence number, alone or together; everything else carries the next one without using it.
//! A HEARTBEAT is answered with an ack and otherwise ignored. A DESTROY is sent once.
//!
//! # Where this side differs from libudx on the same wire
//!
//! | here | libudx | why |
//! |---|---|---|
//! | one ack for all packets that one read of the socket returned; where packets get lost one each, up to eight | one per packet | fewer packets and system calls; RACK and BBR count what an ack covers, not acks |
//! | the retransmission timer backs off up to 8 s, and 40 s without an ack end the stream | 13 s | a laptop's lid, a stopped process |
//! | END goes alone, after everything else is acked | with the last data | no data hangs on an ack that libudx, gone by then, does not repeat |
//! | a stream that ended answers its peer for 5 s more | forgotten at once | a lost last ack made the peer run into its timeout |
//! | the window begins with 512 KiB and grows to 4 MiB with what the application reads | always 4 MiB | a stranger costs less |
//! | the window is announced when reading has opened it | waits for the peer's probe | no stall |
//! | two probes find an MTU of 1,500 | eleven | fewer small packets |
//! | after a timeout, a packet first sent to a former address goes to the present one | never | the former may be dead |

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod ack;
mod backlog;
mod congestion;
mod error;
mod flight;
pub mod limits;
mod loss;
mod mtu;
pub mod packet;
mod rare;
mod recv;
mod rtt;
mod send;
mod seq;
mod span;
pub mod stream;

#[cfg(feature = "tokio")]
pub mod socket;
