//! Every number that bounds what a network, or a caller, can make a swarm hold or do.

use std::time::Duration;

/// Most connections a swarm seeks (`hyperswarm` `MAX_PEERS`); incoming ones may exceed it.
pub const PEERS_MAX: usize = 64;

/// Most dials under way at once (`hyperswarm` `MAX_PARALLEL`).
pub const DIALS_MAX: usize = 3;

/// A connection that lasted so long lets its peer be tried anew from the first attempt (`MIN_CONNECTION_TIME`).
pub const CONNECTION_LASTING: Duration = Duration::from_secs(15);

/// A peer is tried again after at most this many attempts that failed, unless it was asked for by its key.
pub const ATTEMPTS_MAX: u32 = 3;

/// Topics remembered of one peer. It has more with us only if it was found under more.
pub const TOPICS_PER_PEER_MAX: usize = 256;

/// Two connections to one peer, one dialled by each side, are taken for simultaneous dials if the second came so soon
/// after the first: as long as a dial may be under way without knowing of the other.
pub const CROSSING_WINDOW: Duration = Duration::from_secs(10);

/// Two connections that the same side dialled are taken for dials of two addresses at once if the second came so soon after
/// the first; later, the dialling side must have lost the first.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(2);

const _: () = assert!(REPEAT_WINDOW.as_secs() <= CROSSING_WINDOW.as_secs());
