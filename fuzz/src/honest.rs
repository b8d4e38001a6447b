//! The honest side: one key pair, and cores that it signs.

use bytes::Bytes;
use ferrocore_log::{Core, CoreOptions, Corestore};
use ferrocore_primitives::sign::KeyPair;

/// The pair that signs everything here: found inputs must mean the same in the next run.
pub(crate) fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

/// Block `index` of history `fork`: no two are alike, some are empty.
pub(crate) fn block(fork: u64, index: u64) -> Bytes {
    let len = (index * 5 + fork) % 23;
    let byte = |i| (fork * 89 + index * 31 + i) as u8;
    (0..len).map(byte).collect()
}

/// An empty core that [`key_pair`] signs.
pub(crate) fn core_of(options: CoreOptions) -> Core {
    let options = CoreOptions {
        key_pair: Some(key_pair()),
        ..options
    };
    Corestore::memory()
        .get_with(options)
        .expect("memory has room for a core")
}

/// A core of nine blocks.
pub(crate) fn writer() -> Core {
    let core = core_of(CoreOptions::default());
    core.append_batch((0..9).map(|index| block(0, index)).collect())
        .expect("the core is writable");
    core
}
