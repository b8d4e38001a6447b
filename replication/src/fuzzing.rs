//! What tests count. No part of the interface: it may change at any time.
//!
//! Not behind a feature, which would compile all that depends on this crate twice.

/// How many steps of work this thread has done: messages, channels that had their turn, requests answered, answers verified,
/// pages of what peers have.
pub fn steps_done() -> u64 {
    crate::work::steps_done()
}
