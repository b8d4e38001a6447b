//! All tests of the mux, in one program: each one more would link the same crates again.

mod aliases;
mod hostile;
mod pair;
mod vectors;
