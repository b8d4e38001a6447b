//! All tests of replication between two ends in one process, in one program: each one more would link the same crates again.
//! Those that count allocations are programs of their own beside it.

mod announcements;
mod aside;
mod both_ways;
mod broken_streams;
mod buffers;
mod cancels;
#[path = "../common/mod.rs"]
mod common;
mod conflict;
mod crowded;
mod damaged;
mod durable;
mod extensions;
mod flips;
mod forks;
mod hostile;
mod idle;
mod liars;
mod long_answers;
mod lots;
mod offers;
mod pair;
mod props;
mod pushes;
mod restored;
mod scattered;
mod scheduler;
mod seeks;
mod session;
mod to_javascript;
mod transcripts;
mod unanswered;
mod updates;
mod vectors;
mod version_10;
