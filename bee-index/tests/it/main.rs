//! All tests of the index, in one program: each one more would link the same crates again.

mod hostile;
mod model;
mod sparse;
mod vectors;
mod writers;
