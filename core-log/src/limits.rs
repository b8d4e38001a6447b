//! The bounds this crate keeps, in one place.

use std::time::Duration;

/// Largest block, in bytes, that may be appended: 15 MiB, as in JavaScript, so that the block
/// and its proof fit one encrypted frame.
pub const BLOCK_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Largest value that a length, index, fork or size may have: 2^53 - 1, JavaScript's safe
/// integers.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Most nodes one part of a proof may carry. A path up a tree of 2^53 leaves has 53, an upgrade
/// at most twice that; the rest is slack for seeks inside.
pub const PROOF_NODES_MAX: usize = 256;

/// Most nodes one signature may carry for signers that saw longer trees: some 50 each, of which
/// signers of about the same length share most.
pub const PATCH_NODES_MAX: usize = 4096;

/// Most events that wait for one subscriber; past that it is told that it lagged.
pub const EVENTS_MAX: usize = 1024;

/// Bytes of blocks, as they are stored, that one append may carry before it is refused: a batch is one write.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// Bytes that the messages of one extension, or to one peer, may hold while they wait; no single
/// message is longer.
pub const EXTENSION_BYTES_MAX: usize = 1024 * 1024;

/// Most messages of one extension, or to one peer, that wait.
pub const EXTENSION_QUEUE_MAX: usize = 1024;

/// Most blocks that wait to be pushed to one peer.
pub const PUSHES_MAX: usize = 1024;

/// Longest name of an extension, in bytes.
pub const EXTENSION_NAME_MAX: usize = 256;

/// Bytes that the changes of one core may take up while they wait for a commit: blocks as they are stored, nodes, and some
/// for each change and each block, be it empty. [`Core::append_async`](crate::Core::append_async) and
/// [`Core::commit_async`](crate::Core::commit_async) refuse what would be more, unless nothing waits: then a larger
/// change may wait alone. What somebody waits with, as in [`Core::append`](crate::Core::append), counts and is never refused.
pub const APPENDS_WAITING_BYTES_MAX: usize = 256 << 20;

/// Most events that wait for one subscriber of a store; it is told if it misses any.
pub const STORE_EVENTS_MAX: usize = 1024;

/// Most blocks that a stream wants from suppliers before they are asked for: 32, as in JavaScript.
pub const PREFETCH_BLOCKS_MAX: u64 = 32;

/// Blocks that a [`Sink`](crate::core::Sink) gathers before it appends them.
pub const SINK_BLOCKS_MAX: usize = 1024;

/// Bytes of blocks that a [`Sink`](crate::core::Sink) gathers before it appends them.
pub const SINK_BYTES_MAX: usize = 1 << 20;

/// [`Core::update`](crate::Core::update) waits for all suppliers together for so long at most, however many come and owe
/// something, while one has shown a log: twice what a single one is waited for, so that an honest one that comes late, and is
/// slow, has its time.
pub const UPDATE_TOTAL_MAX: Duration = Duration::from_secs(12);

/// ... and for so long while none has.
pub const UPDATE_TOTAL_ALONE_MAX: Duration = Duration::from_secs(60);
