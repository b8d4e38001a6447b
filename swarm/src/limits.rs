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

/// Peers remembered at once, connected or not. Whoever is found beyond that is left out until others are forgotten.
pub const PEERS_KNOWN_MAX: usize = 1024;

/// Most connections that peers may open to us; more are closed at once.
pub const INBOUND_MAX: usize = 256;

/// An explicit peer is dialled out of turn while it failed less often than this (`hyperswarm` `_attemptClientConnections`).
pub const EXPLICIT_ATTEMPTS_MAX: u32 = 5;

/// Addresses of one peer that are tried; a lookup that names more is cut.
pub const ADDRESSES_MAX: usize = 8;

/// How long all of one dial may take, whatever its paths.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one address may take to accept a TCP connection.
pub const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take for its part of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing came for this long is dead: peers send keepalives every 5 s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most inbound connections of one transport whose handshake is not done; more wait to be accepted.
pub const HALF_OPEN_MAX: usize = 32;

/// The pause after the system could not accept a connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a topic is looked up and announced again (`REFRESH_INTERVAL`), and what is added at random
/// (`RANDOM_JITTER`).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// See [`REFRESH_INTERVAL`].
pub const REFRESH_JITTER: Duration = Duration::from_secs(120);

/// How soon a topic is looked up again that met nobody, and an announcement that failed is tried again, doubling up to
/// [`REFRESH_INTERVAL`].
pub const REFRESH_RETRY: Duration = Duration::from_secs(5);

/// How long a topic whose last peer is gone waits for that to come back before it is looked up again: whoever is dialled
/// again at once was, by then.
pub const DESERTED_PAUSE: Duration = Duration::from_secs(3);

/// How long leaving a topic may take to tell others.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Peers that wait to be looked at, of all discoveries together; a discovery that finds more waits.
pub const FOUND_QUEUED_MAX: usize = 64;

/// Events that wait for one subscriber; it misses the oldest beyond that.
pub const EVENTS_MAX: usize = 512;

/// How long an address on the local network may take to accept a TCP connection.
pub const LAN_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Topics that a node shows on the local network by a tag each; more are shown in a filter.
pub const LAN_TAGS_MAX: usize = 8;

/// Topics that a node shows on the local network; more are served, but not found there.
pub const LAN_TOPICS_MAX: usize = 1000;

/// Nodes of the local network that are remembered.
pub const LAN_NEIGHBOURS_MAX: usize = 256;

/// Answers taken from the local network before all that is kept of them is thrown away; and a pause made, if they came within
/// [`LAN_FLOOD_TIME`].
pub const LAN_ANSWERS_MAX: usize = 4096;

/// More time for so many answers is no flood: a large network has them in weeks.
pub const LAN_FLOOD_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// That pause.
pub const LAN_FLOOD_PAUSE: Duration = Duration::from_secs(30);

/// The pause before discovery on the local network is tried again after it failed.
pub const LAN_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How long those on the local network are given to answer before a lookup counts as done; answers are taken later, too.
pub const LAN_BROWSE_TIME: Duration = Duration::from_millis(1500);

/// How long changes of topics are gathered before they are announced.
pub const LAN_GATHER: Duration = Duration::from_millis(20);

/// How long the goodbye of an announcement may take.
pub const LAN_GOODBYE_TIME: Duration = Duration::from_millis(300);

/// How often it is looked whether another day has begun, for which topics have other tags.
pub const LAN_DAY_CHECK: Duration = Duration::from_secs(600);

/// Peers taken from one lookup in the DHT.
pub const DHT_FOUND_MAX: usize = 256;

/// Peers taken from one answer before all answers are there: those of the twenty nodes that a lookup ends at have room.
pub const DHT_FOUND_EACH: usize = 12;

const _: () = assert!(20 * DHT_FOUND_EACH <= DHT_FOUND_MAX);

/// How long a topic waits to be announced in the DHT until somebody is there who passes handshakes on to us.
pub const LISTEN_PATIENCE: Duration = Duration::from_secs(5);

/// How often this machine's addresses are looked at.
pub const ADDRESSES_LOOK: Duration = Duration::from_secs(2);

/// How long addresses that have changed may go on changing before anything is done about it.
pub const ADDRESSES_SETTLE: Duration = Duration::from_millis(500);

/// How long a swarm that goes to sleep may take to tell others.
pub const SUSPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Topics that are taken back at once.
pub const LEAVING_MAX: usize = 16;

/// Paths of its last dial that are remembered of a peer.
pub const PATHS_MAX: usize = 16;

/// The longest message of a [`Gathering`](crate::Gathering), in bytes.
pub const GATHERED_LEN_MAX: usize = 64 * 1024;

/// Messages of a gathering that wait: to be taken, of all peers together, and to be sent, to each.
pub const GATHERED_QUEUED_MAX: usize = 64;
