//! What HyperDHT puts into dht-rpc messages: commands, errors, namespaces, and the values of each command.
//! Knows their bytes and signatures (`hyperdht/lib/{constants,messages,persistent}.js` 6.34). Does not know who
//! stores or relays what, nor the encryption around [`connect`]'s payloads.
//!
//! | command | target | value of the request | value of the reply |
//! |---|---|---|---|
//! | [`PEER_HANDSHAKE`] | peer | [`connect::Handshake`] | the same |
//! | [`PEER_HOLEPUNCH`] | peer | [`connect::Holepunch`] | the same |
//! | [`FIND_PEER`] | peer | | [`announce::Peer`] or none |
//! | [`LOOKUP`] | topic | | [`announce::LookupReply`] or none |
//! | [`ANNOUNCE`], [`UNANNOUNCE`] | topic or peer | [`announce::Announce`] | |
//! | [`MUTABLE_PUT`] | public key | [`record::MutablePut`] | |
//! | [`MUTABLE_GET`] | public key | [`record::MutableGet`] | [`record::MutableRecord`] or none |
//! | [`IMMUTABLE_PUT`] | value | the bare value | |
//! | [`IMMUTABLE_GET`] | value | | the bare value or none |
//! | [`PLUGIN`] | any | [`plugin::PluginRequest`] | up to the plugin |

use std::sync::LazyLock;

use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::namespace::nth;

use crate::message::{Command, ErrorCode};

pub mod announce;
pub mod announcer;
pub mod connect;
pub mod contact;
pub mod handshake;
pub mod noise;
pub mod path;
pub mod plugin;
pub mod punch;
pub mod reach;
pub mod record;
pub mod relay;
pub mod router;
pub mod seal;

/// Carries a Noise handshake to a peer, over relays.
pub const PEER_HANDSHAKE: Command = Command::application(0);
/// Carries a round of holepunching to a peer, over relays.
pub const PEER_HOLEPUNCH: Command = Command::application(1);
/// Asks for the record of a listening peer.
pub const FIND_PEER: Command = Command::application(2);
/// Asks for the peers of a topic.
pub const LOOKUP: Command = Command::application(3);
/// Stores a peer's record. Needs a token.
pub const ANNOUNCE: Command = Command::application(4);
/// Removes a peer's record. Needs a token.
pub const UNANNOUNCE: Command = Command::application(5);
/// Stores a signed value. Needs a token.
pub const MUTABLE_PUT: Command = Command::application(6);
/// Asks for a signed value.
pub const MUTABLE_GET: Command = Command::application(7);
/// Stores a value under its hash. Needs a token.
pub const IMMUTABLE_PUT: Command = Command::application(8);
/// Asks for a value by its hash.
pub const IMMUTABLE_GET: Command = Command::application(9);
/// For extensions of a node.
pub const PLUGIN: Command = Command::application(10);

/// Another value is stored under this sequence number.
pub const SEQ_REUSED: ErrorCode = ErrorCode(16);
/// A newer value is stored.
pub const SEQ_TOO_LOW: ErrorCode = ErrorCode(17);

/// The namespaces of signatures and handshakes; their numbers are those of the commands.
struct Namespaces {
    announce: Hash,
    unannounce: Hash,
    mutable_put: Hash,
    peer_handshake: Hash,
    peer_holepunch: Hash,
    plugin: Hash,
}

static NAMESPACES: LazyLock<Namespaces> = LazyLock::new(|| Namespaces {
    announce: nth("hyperswarm/dht", 4),
    unannounce: nth("hyperswarm/dht", 5),
    mutable_put: nth("hyperswarm/dht", 6),
    peer_handshake: nth("hyperswarm/dht", 0),
    peer_holepunch: nth("hyperswarm/dht", 1),
    plugin: nth("hyperswarm/dht", 10),
});

/// What announcements are signed under.
pub fn announce_namespace() -> Hash {
    NAMESPACES.announce
}

/// What the removal of announcements is signed under.
pub fn unannounce_namespace() -> Hash {
    NAMESPACES.unannounce
}

/// What mutable records are signed under.
pub fn mutable_put_namespace() -> Hash {
    NAMESPACES.mutable_put
}

/// The prologue of the Noise handshake.
pub fn peer_handshake_namespace() -> Hash {
    NAMESPACES.peer_handshake
}

/// What the key of holepunch payloads derives under.
pub fn peer_holepunch_namespace() -> Hash {
    NAMESPACES.peer_holepunch
}

/// What plugins sign under.
pub fn plugin_namespace() -> Hash {
    NAMESPACES.plugin
}

/// Why a record that a stranger sent is not to be stored or believed. Drop it; a node answers such a write with
/// silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The announcement is of nobody.
    #[error("the announcement names no peer")]
    NoPeer,
    /// The announcement is not signed.
    #[error("the announcement is not signed")]
    NoSignature,
    /// The signature is not its key's over this record, at this node, with this token.
    #[error("the signature does not hold")]
    BadSignature,
    /// The record does not belong under the target it was sent for.
    #[error("the record belongs under another target")]
    WrongTarget,
}
