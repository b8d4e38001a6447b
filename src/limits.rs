//! The bounds and times this crate keeps, in one place.

use std::time::Duration;

/// Most connections that peers may open to one address of a node. When there are as many, another one takes the place of the
/// longest of those that have shown no core's key; see [`INBOUND_SHARE`].
pub const INBOUND_MAX: usize = 256;

/// Most connections beside [`INBOUND_MAX`] that have given way and are about to be closed; while there are as many, no other
/// is accepted.
pub const LEAVING_MAX: usize = 16;

/// Most of them whose handshake is not done; another one takes the place of the longest.
pub const HALF_OPEN_MAX: usize = 32;

/// How many of [`INBOUND_MAX`] places one host, or network of 2^64 IPv6 addresses, holds even if all its peers have shown a
/// core's key. Beyond that it gives way to others.
pub const INBOUND_SHARE: usize = 64;

/// How long a peer that lied is kept away, unless the builder says otherwise: an honest one with a broken disk may have mended
/// it.
pub const BAN_TIME: Duration = Duration::from_secs(600);

/// Most keys that are kept away; of more, those whose time is over first come back early.
pub const BANS_MAX: usize = 1024;

/// So many proofs that do not hold within [`BAN_TIME`] cost a key its welcome, on however many connections they came.
pub const BAD_PROOFS_MAX: u32 = ferrocore_replication::limits::STRIKES_MAX;

/// How long a peer may take for its part of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TCP connection may take to be there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing came for this long is dead: peers send keepalives every 5 s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before a peer is dialled again, which doubles each time it fails.
pub const REDIAL_MIN: Duration = Duration::from_millis(100);

/// The longest pause before a peer is dialled again.
pub const REDIAL_MAX: Duration = Duration::from_secs(5);

/// How long a connection may take to say goodbye when the node closes.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after the system could not accept a connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most cores whose peers a node looks for at once: those opened last.
pub const TOPICS_MAX: usize = 512;

/// How long a connection may take to say how it stands.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a node that closes takes to tell others that it cannot be found any more.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most peer events that wait for one subscriber; it misses the oldest beyond that.
pub const PEER_EVENTS_MAX: usize = 256;

const _: () = assert!(HALF_OPEN_MAX <= INBOUND_MAX && INBOUND_SHARE < INBOUND_MAX);
