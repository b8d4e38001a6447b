//! What a peer may cost, and how long frames may be.

/// The longest frame in either direction, in bytes: what one secret-stream message can hold
/// (a 24-bit length, less 17 bytes of encryption overhead).
pub const FRAME_LEN_MAX: usize = (1 << 24) - 1 - 17;

/// A batch that would grow beyond this many bytes is sealed and the next one started, so that the
/// receiver can work on one frame while the next one travels. A longer message travels alone.
pub const BATCH_LEN_TARGET: usize = 64 * 1024;

/// A frame of more than this many bytes is a long one: a single message, see
/// [`Mux::buffered_long_bytes`](crate::Mux::buffered_long_bytes).
pub const LONG_FRAME_LEN: usize = 256 * 1024;

/// Batches inside batches: JavaScript peers never nest them, but accept them.
pub const BATCH_DEPTH_MAX: usize = 4;

/// What all open offers together may hold, in bytes: names, handshakes, and messages sent ahead.
pub const OFFERED_BYTES_MAX: usize = 256 * 1024;

/// What each offer and each message sent ahead of an answer counts for beside its own length. It
/// bounds their number, too.
pub const OFFERED_OVERHEAD: usize = 512;

/// Channels a peer may number on its side of one connection.
pub const REMOTE_CHANNELS_MAX: usize = 16_384;

/// The longest protocol name and the longest channel id, in bytes.
pub const NAME_LEN_MAX: usize = 1024;

/// The longest handshake that we send with an `open`, in bytes.
pub const HANDSHAKE_LEN_MAX: usize = 64 * 1024;

const _: () = assert!(BATCH_LEN_TARGET < LONG_FRAME_LEN && LONG_FRAME_LEN < FRAME_LEN_MAX);
const _: () = assert!(OFFERED_OVERHEAD + 6 * NAME_LEN_MAX < OFFERED_BYTES_MAX);
