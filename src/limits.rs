//! The bounds and times this crate keeps, in one place.

use std::time::Duration;

/// Most connections that peers may open to a node; more are refused at once.
pub const INBOUND_MAX: usize = 256;

/// Most inbound connections whose handshake is not done; more wait to be accepted.
pub const HALF_OPEN_MAX: usize = 32;

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

/// How long a node that closes takes to tell others that it cannot be found any more.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most peer events that wait for one subscriber; it misses the oldest beyond that.
pub const PEER_EVENTS_MAX: usize = 256;

/// The longest WebSocket message that is taken, in bytes: one frame of a secret stream, with its length.
pub const WEBSOCKET_MESSAGE_MAX: usize = (1 << 24) + 16;

const _: () = assert!(HALF_OPEN_MAX <= INBOUND_MAX);
