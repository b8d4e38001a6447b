//! fcore
fn main() {}
