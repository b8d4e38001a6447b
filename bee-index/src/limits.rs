//! The numbers that bound what a bee's blocks can make a reader do or keep.

/// Keys of one tree node. Hyperbee writes up to 8, Hyperbee 2 in compatible mode up to 9.
pub const KEYS_MAX: usize = 9;

/// Children of one tree node.
pub const CHILDREN_MAX: usize = KEYS_MAX + 1;

/// Nodes on the way from a root to a leaf. With 4 keys and more per node a tree of 2^53 entries
/// is 24 high, so a longer way is a cycle or worse.
pub const DEPTH_MAX: usize = 64;

/// Bytes of tree nodes and their entries kept by a bee, its clones and its checkouts.
pub const CACHE_BYTES_MAX: usize = 64 << 20;

/// Entries larger than this are not kept: one large value would push out thousands of keys.
pub const CACHED_ENTRY_BYTES_MAX: usize = 16 << 10;

/// Bytes of tree nodes that a writer keeps from one batch to the next.
pub const WRITER_BYTES_MAX: usize = 32 << 20;
