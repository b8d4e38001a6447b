//! How much work was done, for tests that bound it: counted, as time depends on the machine.
//!
//! Knows a sum. Does not know what a step is: about as much as a message, or a page of bits, takes.

use std::cell::Cell;

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// So many more were done.
pub(crate) fn steps(count: u64) {
    STEPS.set(STEPS.get() + count);
}

/// How many this thread has done.
pub(crate) fn steps_done() -> u64 {
    STEPS.get()
}
