//! libsodium's secret stream behind a safe interface: the same bytes as the pure Rust one, faster.
//! Knows how to call libsodium. Does not know frames, handshakes or when which implementation is used.
//!
//! This is the only crate of the workspace with unsafe code. Every call passes pointers and lengths of one
//! borrowed slice, and libsodium keeps none of them.

#![deny(missing_docs)]

pub mod secretstream;

use std::sync::Once;

/// Lets libsodium pick the fastest implementations for this processor. Without it calls are correct, but
/// slow.
fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        // SAFETY: takes no arguments and may be called at any time, by any thread.
        let result = unsafe { libsodium_sys::sodium_init() };
        assert!(result >= 0, "libsodium found no source of randomness");
    });
}
